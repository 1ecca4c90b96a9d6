package remote_test

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/servertest"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// seen learns the position that a fixture is at.
func seen(t *testing.T, f *servertest.Fixture) store.Position {
	t.Helper()
	var at remote.MemoryPosition
	if _, err := f.Client(t, server.RoleAdmin, "", remote.Options{Seen: &at}).Version(t.Context()); err != nil {
		t.Fatalf("Version: %v", err)
	}
	return at.Seen()
}

// TestStale: no call uses the data of a store that is behind what was seen, and
// none is made to believe that something is not there.
func TestStale(t *testing.T) {
	f := servertest.New(t, nil)
	c := servertest.Cluster("prod", "c")
	m := servertest.Member("prod", "m", "h1")
	f.Create(t, c, m)
	real := seen(t, f)
	older, other, behind := real, real, real
	older.Epoch--
	other.EpochID = "another"
	behind.Revision--
	for name, claim := range map[string]store.Position{"older epoch": older, "another store": other, "older revision": behind} {
		t.Run(name, func(t *testing.T) {
			file, err := remote.FilePosition(filepath.Join(t.TempDir(), "seen.json"))
			if err != nil {
				t.Fatalf("FilePosition: %v", err)
			}
			if err := file.Observe(real); err != nil {
				t.Fatalf("Observe: %v", err)
			}
			client := f.Client(t, server.RoleAdmin, "", remote.Options{Seen: file})
			f.Claim(&claim)
			defer f.Claim(nil)
			got := &v1alpha1.EtcdCluster{}
			for what, err := range map[string]error{
				"Get":            client.Get(t.Context(), store.KeyOf(c), got),
				"Get of nothing": client.Get(t.Context(), store.Key{Namespace: "prod", Name: "none"}, got),
				"List":           second(client.List(t.Context(), v1alpha1.KindCluster, store.ListOptions{})),
				"Plan":           second(client.Plan(t.Context(), store.KeyOf(c))),
				"Events":         second(client.Events(t.Context(), store.EventOptions{})),
				"Backup":         second(client.Backup(t.Context())),
				"Logs":           second(client.Logs(t.Context(), store.KeyOf(m), remote.LogOptions{})),
				"Version":        second(client.Version(t.Context())),
			} {
				if !errors.Is(err, store.ErrStale) {
					t.Errorf("%s: %v", what, err)
				}
			}
			if got.Name != "" {
				t.Error("the object was read")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			for key := range client.Watch(ctx, v1alpha1.KindCluster, "") {
				t.Errorf("the watch yielded %s", key)
			}
			if file.Seen() != real {
				t.Errorf("remembered %+v, not %+v", file.Seen(), real)
			}
			f.Claim(nil)
			if err := client.Get(t.Context(), store.KeyOf(c), got); err != nil {
				t.Errorf("the right store: %v", err)
			}
		})
	}
}

func second[T any](_ T, err error) error { return err }

// TestStaleStream: a watch that stands while the store is put back yields no more,
// and goes on with the right store.
func TestStaleStream(t *testing.T) {
	f := servertest.New(t, func(o *server.Options) { o.Heartbeat = 20 * time.Millisecond })
	f.Create(t, servertest.Cluster("prod", "a"))
	client := f.Client(t, server.RoleAdmin, "", remote.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	keys := client.Watch(ctx, v1alpha1.KindCluster, "")
	if k := <-keys; k.Name != "a" {
		t.Fatalf("told of %s", k)
	}
	old := seen(t, f)
	old.EpochID = "another"
	f.Claim(&old)
	// The stream breaks at its next heartbeat.
	eventually(t, "the stream breaks", func() bool { return f.Active() == 0 })
	f.Create(t, servertest.Cluster("prod", "b"))
	select {
	case k := <-keys:
		t.Fatalf("told of %s by another store", k)
	case <-time.After(500 * time.Millisecond):
	}
	f.Claim(nil)
	eventually(t, "told of b", func() bool { return (<-keys).Name == "b" })
}

// TestNewEpoch: a restored store is followed, and the one before refused.
func TestNewEpoch(t *testing.T) {
	f := servertest.New(t, nil)
	path := filepath.Join(t.TempDir(), "seen.json")
	file, err := remote.FilePosition(path)
	if err != nil {
		t.Fatalf("FilePosition: %v", err)
	}
	client := f.Client(t, server.RoleAdmin, "", remote.Options{Seen: file})
	if _, err = client.Version(t.Context()); err != nil {
		t.Fatalf("Version: %v", err)
	}
	next := file.Seen()
	next.Epoch, next.EpochID, next.Revision = next.Epoch+1, "restored", 1
	f.Claim(&next)
	if _, err = client.Version(t.Context()); err != nil {
		t.Fatalf("after a restore: %v", err)
	}
	f.Claim(nil)
	if _, err = client.Version(t.Context()); !errors.Is(err, store.ErrStale) {
		t.Fatalf("the store before: %v", err)
	}
	again, err := remote.FilePosition(path)
	if err != nil || again.Seen() != next {
		t.Fatalf("after a restart: %+v, %v", again.Seen(), err)
	}
}

// TestWrongTokenTellsNothing: the position of a server that doesn't know the token
// is not remembered.
func TestWrongTokenTellsNothing(t *testing.T) {
	f := servertest.New(t, nil)
	var at remote.MemoryPosition
	client := f.ClientAt(t, f.URL, "quorate_a_b", remote.Options{Seen: &at})
	if _, err := client.Version(t.Context()); !errors.Is(err, store.ErrForbidden) {
		t.Fatalf("Version: %v", err)
	}
	if at.Seen() != (store.Position{}) {
		t.Fatalf("remembered %+v", at.Seen())
	}
}

// TestCutBackup: a backup that fails half-way never looks complete.
func TestCutBackup(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		err  error
	}{
		"at once":  {"", errors.New("the disk is full")},
		"half-way": {"half of it", errors.New("the disk is full")},
		"whole":    {"all of it", nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := servertest.New(t, func(o *server.Options) {
				o.Snapshot = func(_ context.Context, w io.Writer) error {
					if tt.text != "" {
						if _, err := io.WriteString(w, tt.text); err != nil {
							return err
						}
					}
					return tt.err
				}
			})
			r, err := f.Client(t, server.RoleAdmin, "", remote.Options{}).Backup(t.Context())
			var text []byte
			if err == nil {
				text, err = io.ReadAll(r)
				_ = r.Close()
			}
			if string(text) != tt.text || (err == nil) != (tt.err == nil) {
				t.Fatalf("read %q, %v", text, err)
			}
		})
	}
}
