package chaos_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorate/quorate/chaos"
)

// TestTurn: one at a time disturbs a cluster, whoever else disturbs another.
func TestTurn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ledger")
	var inside, most atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 3 {
				end, err := chaos.Turn(t.Context(), dir, "c1")
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n > most.Load() {
					most.Store(n)
				}
				time.Sleep(2 * time.Millisecond)
				inside.Add(-1)
				must(t, end())
			}
		})
	}
	end, err := chaos.Turn(t.Context(), dir, "c2")
	must(t, err)
	wg.Wait()
	if most.Load() != 1 {
		t.Errorf("%d had a turn at once", most.Load())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err = chaos.Turn(ctx, dir, "c2"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second turn: %v", err)
	}
	must(t, end())
	if left, readErr := os.ReadDir(dir); readErr != nil || len(left) != 0 {
		t.Errorf("there is left: %v, %v", left, readErr)
	}
	if _, err = chaos.Turn(t.Context(), dir, "../c2"); err == nil {
		t.Error("a turn outside of the ledger")
	}
}

// TestTurnWaitsForWhatIsHeld: the starter of a pause may be dead, the pause goes on.
func TestTurnWaitsForWhatIsHeld(t *testing.T) {
	l := newLab(t, 1)
	began := time.Now()
	l.start(chaos.Disturbance{Kind: chaos.Pause, Cluster: "c1", Endpoint: l.Members[0].Client, For: time.Second})
	end, err := chaos.Turn(t.Context(), l.options().Dir, "c1")
	must(t, err)
	if took := time.Since(began); took < time.Second {
		t.Errorf("there was a turn after %s, while a member was paused", took)
	}
	must(t, end())
}

// TestLedgerOfAnother: what others could have written is neither believed nor carried out.
func TestLedgerOfAnother(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o777))
	proof := filepath.Join(t.TempDir(), "proof")
	must(t, os.WriteFile(filepath.Join(dir, "kill-00000001.json"), []byte(`{"id":"kill-00000001","disturbance":{"kind":"kill","for":1,"again":true},`+
		`"launch":{"path":"/bin/touch","args":["touch","`+proof+`"],"dir":"/"}}`), 0o600))
	_, sweepErr := chaos.Sweep(t.Context(), dir)
	_, listErr := chaos.List(dir)
	_, turnErr := chaos.Turn(t.Context(), dir, "c")
	for what, err := range map[string]error{"sweep": sweepErr, "list": listErr, "end": chaos.End(t.Context(), dir, "kill-00000001"), "turn": turnErr} {
		if err == nil || !strings.Contains(err.Error(), "written by others") {
			t.Errorf("%s of a ledger that everyone may write: %v", what, err)
		}
	}
	if os.Geteuid() == 0 {
		must(t, os.Chmod(dir, 0o755))
		must(t, os.Chown(dir, 12345, 12345))
		if _, err := chaos.Sweep(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "belongs to user 12345") {
			t.Errorf("a sweep of another user's ledger: %v", err)
		}
	}
	if _, err := os.Stat(proof); err == nil {
		t.Error("what another user has written was started")
	}
}

// TestSpoiledRecord: one record that can't be read keeps none of the others from being
// undone.
func TestSpoiledRecord(t *testing.T) {
	l := newLab(t, 1)
	dir := filepath.Join(t.TempDir(), "ledger")
	o := l.options()
	o.Dir = dir
	r, err := chaos.Start(t.Context(), o, chaos.Disturbance{Kind: chaos.Pause, Endpoint: l.Members[0].Client, For: time.Minute})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "kill-00000001.json"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "kill-00000002.json"), []byte(`{"id":"kill-00000003"}`), 0o600))
	records, err := chaos.List(dir)
	if err == nil || len(records) != 1 {
		t.Errorf("listed %d, %v", len(records), err)
	}
	must(t, r.Record.Holder.Signal(9))
	l.gone(r.Record.Holder)
	swept, err := chaos.Sweep(t.Context(), dir)
	if err == nil || len(swept) != 1 || swept[0].ID != r.Record.ID {
		t.Errorf("swept %+v, %v", swept, err)
	}
}

// TestEndpointOfAnotherMachine: who listens at all addresses of this machine is not the
// member at an address that is not this machine's.
func TestEndpointOfAnotherMachine(t *testing.T) {
	l := newLab(t, 1)
	port := l.Members[0].Client[strings.LastIndex(l.Members[0].Client, ":"):]
	if _, err := chaos.ProcessAt("http://198.51.100.77"+port, ""); !errors.Is(err, chaos.ErrNoProcess) {
		t.Errorf("an endpoint of another machine: %v", err)
	}
}
