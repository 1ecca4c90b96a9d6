package agent

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/store"
)

func TestLoad(t *testing.T) {
	a, _ := newAgent(t, false)
	req := Request{Action: Load, Load: []byte("what to do\n")}
	if _, err := a.answer(t.Context(), req); !errors.Is(err, store.ErrForbidden) || !strings.Contains(err.Error(), "--allow-load") {
		t.Fatalf("where it is not allowed: %v", err)
	}
	a.opts.Worker = []string{"sh", "-c", "cat; echo done"}
	r, err := a.answer(t.Context(), req)
	if text := read(t, r, err); text != "what to do\ndone\n" {
		t.Errorf("read %q", text)
	}
	a.opts.Worker = []string{"sh", "-c", "echo half; echo no endpoint answers >&2; exit 3"}
	r, err = a.answer(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if string(text) != "half\n" || err == nil || !strings.Contains(err.Error(), "no endpoint answers") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("a worker that failed: %q, %v", text, err)
	}
	if err = r.Close(); err != nil {
		t.Error(err)
	}
}

// TestLoadEnds: a load that nobody reads any more ends by a signal, upon which it may
// take back what it wrote.
func TestLoadEnds(t *testing.T) {
	a, _ := newAgent(t, false)
	mark := filepath.Join(t.TempDir(), "mark")
	a.opts.Worker = []string{"sh", "-c", "trap 'echo over >" + mark + "; exit' TERM; echo begun; while :; do sleep 0.05; done"}
	r, err := a.answer(t.Context(), Request{Action: Load})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = io.ReadFull(r, make([]byte, len("begun\n"))); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err = r.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > workerPatience/2 {
		t.Errorf("it took %s to end", took)
	}
	if raw, err := os.ReadFile(mark); err != nil || string(raw) != "over\n" {
		t.Errorf("it left %q, %v", raw, err)
	}
}
