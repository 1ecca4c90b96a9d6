package etcd

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// refused opens the store and wants it to be refused with that error, for a reason
// that says each of the texts.
func refused(t *testing.T, opts Options, want error, texts ...string) {
	t.Helper()
	s, err := Open(t.Context(), opts)
	if err == nil {
		closeStore(t, s)
		t.Fatalf("Open went through, want %v", want)
	}
	if !errors.Is(err, want) {
		t.Fatalf("Open: %v, want %v", err, want)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Fatalf("Open: %v, want it to say %q", err, text)
		}
	}
}

func TestOpenAgain(t *testing.T) {
	h := newHome(t)
	s := h.open(t)
	epoch, err := s.Epoch(t.Context())
	if err != nil || epoch.Number != 1 || epoch.ID == "" || epoch.RestoredAt != nil {
		t.Fatalf("the first epoch: %+v, %v", epoch, err)
	}
	c := newCluster("a")
	mustCreate(t, s, c)
	revision := s.Revision()
	closeStore(t, s)
	closeStore(t, s)
	if err = s.Get(t.Context(), store.KeyOf(c), c); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "closed") {
		t.Fatalf("Get of a closed store: %v", err)
	}
	for range s.Watch(t.Context(), v1alpha1.KindCluster, "") {
		t.Fatalf("a watch of a closed store gave a key")
	}

	s = h.open(t)
	again, err := s.Position(t.Context())
	if err != nil || again.EpochID != epoch.ID || again.Revision < revision {
		t.Fatalf("opened again at %+v, %v; it was %+v at %d", again, err, epoch, revision)
	}
	if err := s.Get(t.Context(), store.KeyOf(c), &v1alpha1.EtcdCluster{}); err != nil {
		t.Fatalf("Get: %v", err)
	}
	if info, err := os.Stat(h.dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("the data directory: %v, %v", info.Mode(), err)
	}
}

func TestOpenIsFast(t *testing.T) {
	h := newHome(t)
	for range 2 {
		begin := time.Now()
		s := h.open(t)
		if took := time.Since(begin); took > 3*time.Second {
			t.Fatalf("Open took %s", took)
		}
		closeStore(t, s)
	}
}

func TestOpenBadOptions(t *testing.T) {
	k := newKeyring(t)
	for name, opts := range map[string]Options{
		"nowhere":    {Keyring: k},
		"two":        {Keyring: k, Dir: t.TempDir(), Endpoints: []string{"http://127.0.0.1:1"}},
		"no keyring": {Dir: t.TempDir()},
	} {
		if s, err := Open(t.Context(), opts); err == nil {
			closeStore(t, s)
			t.Errorf("%s: Open went through", name)
		}
	}
}

func TestOpenTwice(t *testing.T) {
	h := newHome(t)
	s := h.open(t)
	begin := time.Now()
	refused(t, h.options(t), ErrInUse, h.dir, "in use by another quorate server", "pid")
	if took := time.Since(begin); took > 3*time.Second {
		t.Fatalf("it took %s to say so", took)
	}
	mustCreate(t, s, newCluster("still-works"))
	closeStore(t, s)
	h.open(t)
}

// TestOpenInAnotherProcess runs this test's binary again, which opens the same store.
func TestOpenInAnotherProcess(t *testing.T) {
	const variable = "QUORATE_TEST_STORE"
	if at := os.Getenv(variable); at != "" {
		h := home{filepath.Join(at, "store"), filepath.Join(at, "store.epoch"), filepath.Join(at, "keyring.json")}
		refused(t, h.options(t), ErrInUse)
		return
	}
	h := newHome(t)
	s := h.open(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOpenInAnotherProcess$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"="+filepath.Dir(h.dir))
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: TestOpenInAnotherProcess")) {
		t.Fatalf("the other process: %v\n%s", err, out)
	}
	mustCreate(t, s, newCluster("still-works"))
}

func TestOpenRefusesLostOrDamaged(t *testing.T) {
	const hint = "quorate server restore"
	db := func(h home) string { return filepath.Join(h.dir, "member", "snap", "db") }
	truncate := func(keep int64) func(*testing.T, home) {
		return func(t *testing.T, h home) {
			t.Helper()
			must(t, os.Truncate(db(h), keep))
		}
	}
	overwrite := func(at func(size int64) int64, n int) func(*testing.T, home) {
		return func(t *testing.T, h home) {
			t.Helper()
			f, err := os.OpenFile(db(h), os.O_RDWR, 0)
			must(t, err)
			info, err := f.Stat()
			must(t, err)
			_, err = f.WriteAt(bytes.Repeat([]byte{0xa5}, n), at(info.Size()))
			must(t, errors.Join(err, f.Close()))
		}
	}
	for name, tt := range map[string]struct {
		damage func(t *testing.T, h home)
		want   error
	}{
		"the directory is gone":    {func(t *testing.T, h home) { t.Helper(); must(t, os.RemoveAll(h.dir)) }, ErrStoreLost},
		"the directory is empty":   {func(t *testing.T, h home) { t.Helper(); must(t, os.RemoveAll(filepath.Join(h.dir, "member"))) }, ErrStoreLost},
		"the database is gone":     {func(t *testing.T, h home) { t.Helper(); must(t, os.Remove(db(h))) }, ErrCorrupt},
		"the log is gone":          {func(t *testing.T, h home) { t.Helper(); must(t, os.RemoveAll(filepath.Join(h.dir, "member", "wal"))) }, ErrCorrupt},
		"the database is empty":    {truncate(0), ErrCorrupt},
		"the database is cut off":  {truncate(3 * 4096), ErrCorrupt},
		"the database is garbage":  {overwrite(func(int64) int64 { return 0 }, 8192), ErrCorrupt},
		"its pages are garbage":    {overwrite(func(int64) int64 { return 8192 }, 12*4096), ErrCorrupt},
		"another, empty, database": {anotherStore, store.ErrStale},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			s := h.open(t)
			mustCreate(t, s, newCluster("a"), newCluster("b"), newSecret("s", map[string]string{"k": "v"}))
			closeStore(t, s)
			tt.damage(t, h)
			refused(t, h.options(t), tt.want, hint)
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// anotherStore puts a new store's files in the place of h's.
func anotherStore(t *testing.T, h home) {
	t.Helper()
	other := newHome(t)
	s := other.open(t)
	closeStore(t, s)
	must(t, os.RemoveAll(h.dir))
	must(t, os.Rename(other.dir, h.dir))
}

func TestOpenRefusesDamagedLog(t *testing.T) {
	h := newHome(t)
	s := h.open(t)
	mustCreate(t, s, newCluster("a"))
	closeStore(t, s)
	wals, err := filepath.Glob(filepath.Join(h.dir, "member", "wal", "*.wal"))
	if err != nil || len(wals) != 1 {
		t.Fatalf("%v, %v", wals, err)
	}
	f, err := os.OpenFile(wals[0], os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte{0xa5}, 64), 256)
	must(t, errors.Join(err, f.Close()))
	s, err = Open(t.Context(), h.options(t))
	if err == nil {
		closeStore(t, s)
		t.Fatalf("Open went through")
	}
	if !strings.Contains(err.Error(), "quorate server restore") || !strings.Contains(err.Error(), h.dir) {
		t.Fatalf("Open: %v", err)
	}
}

func TestOpenRefusesRolledBack(t *testing.T) {
	h := newHome(t)
	s := h.open(t)
	mustCreate(t, s, newCluster("a"))
	closeStore(t, s)
	old := h.dir + ".copy"
	must(t, os.CopyFS(old, os.DirFS(h.dir)))
	s = h.open(t)
	for _, name := range []string{"b", "c", "d"} {
		mustCreate(t, s, newCluster(name))
	}
	closeStore(t, s)
	must(t, os.Rename(h.dir, h.dir+".new"))
	must(t, os.Rename(old, h.dir))
	refused(t, h.options(t), store.ErrStale, h.marker, "rolled back")
	must(t, os.RemoveAll(h.dir))
	must(t, os.Rename(h.dir+".new", h.dir))
	h.open(t)
}

func TestOpenForeignDirectory(t *testing.T) {
	h := newHome(t)
	must(t, os.MkdirAll(h.dir, 0o700))
	must(t, os.WriteFile(filepath.Join(h.dir, "thesis.txt"), []byte("mine"), 0o600))
	s, err := Open(t.Context(), h.options(t))
	if err == nil {
		closeStore(t, s)
		t.Fatalf("Open went through")
	}
	if !strings.Contains(err.Error(), "thesis.txt") {
		t.Fatalf("Open: %v", err)
	}
}

// TestOpenAfterAnInterruptedStart: what a first start leaves behind when it is cut off
// before there was a log is no damage.
func TestOpenAfterAnInterruptedStart(t *testing.T) {
	h := newHome(t)
	must(t, os.MkdirAll(filepath.Join(h.dir, "member", "snap"), 0o700))
	h.open(t)
}

func TestOpenUnreachable(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := Open(ctx, Options{Endpoints: []string{"http://127.0.0.1:1"}, Keyring: newKeyring(t), Logger: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, store.ErrUnavailable) || time.Since(begin) > 5*time.Second {
		t.Fatalf("Open after %s: %v", time.Since(begin), err)
	}
}

func TestExternalLost(t *testing.T) {
	k := newKeyring(t)
	opts := Options{
		Endpoints: []string{"http://" + remote(t)}, Keyring: k,
		MarkerFile: filepath.Join(t.TempDir(), "marker"), Logger: slog.New(slog.DiscardHandler),
	}
	closeStore(t, open(t, opts))
	closeStore(t, open(t, opts))
	opts.Endpoints = []string{"http://" + remote(t)}
	refused(t, opts, ErrStoreLost, opts.MarkerFile, "quorate server restore")
}

// TestKeyLayout keeps the key layout, which stores on disk depend on.
func TestKeyLayout(t *testing.T) {
	for _, tt := range []struct {
		kind v1alpha1.Kind
		key  store.Key
		want string
	}{
		{v1alpha1.KindCluster, store.Key{Namespace: "prod", Name: "a"}, "/quorate/objects/etcdclusters/prod/a"},
		{v1alpha1.KindHost, store.Key{Name: "h"}, "/quorate/objects/etcdhosts/_/h"},
		{v1alpha1.KindSecret, store.Key{Namespace: "prod-eu", Name: "a.b"}, "/quorate/objects/secrets/prod-eu/a.b"},
	} {
		got, err := storageKey(tt.kind, tt.key)
		if err != nil || got != tt.want {
			t.Fatalf("storageKey: %q, %v, want %q", got, err, tt.want)
		}
		back, err := keyFrom(tt.kind, got)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.key, back); diff != "" {
			t.Fatalf("keyFrom:\n%s", diff)
		}
	}
}
