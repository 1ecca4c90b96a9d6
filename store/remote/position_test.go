package remote

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/store"
)

func TestObserve(t *testing.T) {
	at := func(epoch int64, id string, revision int64) store.Position {
		return store.Position{Epoch: epoch, EpochID: id, Revision: revision}
	}
	for _, tt := range []struct {
		name          string
		seen, p, want store.Position
		stale         bool
	}{
		{"first", store.Position{}, at(1, "a", 5), at(1, "a", 5), false},
		{"forward", at(1, "a", 5), at(1, "a", 6), at(1, "a", 6), false},
		{"overtaken", at(1, "a", 5), at(1, "a", 4), at(1, "a", 5), false},
		{"restored", at(1, "a", 5), at(2, "b", 1), at(2, "b", 1), false},
		{"older epoch", at(2, "b", 1), at(1, "a", 9), at(2, "b", 1), true},
		{"other store", at(1, "a", 5), at(1, "b", 9), at(1, "a", 5), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := MemoryPosition{seen: tt.seen}
			err := m.Observe(tt.p)
			if errors.Is(err, store.ErrStale) != tt.stale || (err != nil) != tt.stale {
				t.Fatalf("Observe: %v", err)
			}
			if m.Seen() != tt.want {
				t.Fatalf("seen %+v, want %+v", m.Seen(), tt.want)
			}
		})
	}
}

// TestPositionFile: epochs are durable at once, revisions once a second.
func TestPositionFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seen.json")
	open := func() *PositionFile {
		t.Helper()
		f, err := FilePosition(path)
		if err != nil {
			t.Fatalf("FilePosition: %v", err)
		}
		return f
	}
	f := open()
	now := time.Unix(1000, 0)
	f.now = func() time.Time { return now }
	observe := func(epoch int64, id string, revision int64) {
		t.Helper()
		if err := f.Observe(store.Position{Epoch: epoch, EpochID: id, Revision: revision}); err != nil {
			t.Fatalf("Observe: %v", err)
		}
	}
	durable := func(epoch, revision int64) {
		t.Helper()
		if got := open().Seen(); got.Epoch != epoch || got.Revision != revision {
			t.Fatalf("durable is %+v, want %d at %d", got, epoch, revision)
		}
	}
	observe(1, "a", 5)
	durable(1, 5)
	observe(1, "a", 6)
	durable(1, 5)
	now = now.Add(time.Second)
	observe(1, "a", 7)
	durable(1, 7)
	observe(2, "b", 1)
	durable(2, 1)
	observe(2, "b", 2)
	durable(2, 1)
	if err := f.Flush(); err != nil {
		t.Fatalf("Flush: %v", err)
	}
	durable(2, 2)

	for _, damage := range []string{"", "{", `{}`, `{"epoch":1}`, `[]`} {
		if err := os.WriteFile(path, []byte(damage), 0o600); err != nil {
			t.Fatalf("damage the file: %v", err)
		}
		if _, err := FilePosition(path); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "remove the file") {
			t.Errorf("%q: %v", damage, err)
		}
	}
}

// TestPositionNotKept: a position that can't be made durable is remembered for as
// long as the process lives.
func TestPositionNotKept(t *testing.T) {
	f, err := FilePosition(filepath.Join(t.TempDir(), "none", "seen.json"))
	if err != nil {
		t.Fatalf("FilePosition: %v", err)
	}
	if err := f.Observe(store.Position{Epoch: 2, EpochID: "b", Revision: 1}); err == nil || errors.Is(err, store.ErrStale) {
		t.Fatalf("Observe: %v", err)
	}
	if err := f.Observe(store.Position{Epoch: 1, EpochID: "a", Revision: 1}); !errors.Is(err, store.ErrStale) {
		t.Fatalf("Observe of an older one: %v", err)
	}
}

func TestConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "client.json")
	if _, err := LoadConfig(path); err == nil || !strings.Contains(err.Error(), "quorate up") {
		t.Errorf("a missing file: %v", err)
	}
	want := Config{Server: "http://127.0.0.1:1", Token: "t", CA: "pem"}
	if err := want.Save(path); err != nil {
		t.Fatalf("Save: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("its mode is %v, %v", info.Mode(), err)
	}
	if got, err := LoadConfig(path); err != nil || got != want {
		t.Fatalf("LoadConfig: %+v, %v", got, err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatalf("chmod: %v", err)
		}
		if _, err := LoadConfig(path); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	for name, cfg := range map[string]Config{
		"no scheme":      {Server: "127.0.0.1:7379", Token: "t"},
		"other scheme":   {Server: "ftp://127.0.0.1", Token: "t"},
		"no host":        {Server: "http://", Token: "t"},
		"in the clear":   {Server: "http://192.0.2.1:7379", Token: "t"},
		"by name":        {Server: "http://quorate.example.com", Token: "t"},
		"no token":       {Server: "http://127.0.0.1:7379"},
		"no certificate": {Server: "https://192.0.2.1", Token: "t", CA: "x"},
		"no CA file":     {Server: "https://192.0.2.1", Token: "t", CAFile: path + ".none"},
	} {
		if _, err := New(cfg, Options{}); err == nil {
			t.Errorf("%s: passed", name)
		}
	}
	for _, url := range []string{"http://localhost:1", "http://[::1]:1", "https://192.0.2.1"} {
		if _, err := New(Config{Server: url, Token: "t"}, Options{}); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
}
