package etcd

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

func newMember(name string) *v1alpha1.EtcdMember {
	m := &v1alpha1.EtcdMember{}
	m.Namespace, m.Name = "prod", name
	m.Spec.ClusterName = "a"
	return m
}

// filled makes a store with some of everything.
func filled(t *testing.T, h home) *Store {
	t.Helper()
	s := h.open(t)
	cluster := newCluster("a")
	cluster.Annotations = map[string]string{"keep": "me"}
	cluster.Status.Summary = "as it was"
	host := &v1alpha1.EtcdHost{}
	host.Name = "h"
	mustCreate(t, s, cluster, newCluster("b"), newMember("a-0"), newMember("a-1"), host,
		newSecret("tls", map[string]string{"tls.key": pemText}), newCluster("deleted"))
	deleted := newCluster("deleted")
	must(t, s.Get(t.Context(), store.KeyOf(deleted), deleted))
	must(t, s.Delete(t.Context(), v1alpha1.KindCluster, store.KeyOf(deleted), store.Preconditions{UID: deleted.UID}))
	s.Record(t.Context(), happened("a-0", "Started", "an event"))
	return s
}

func backup(t *testing.T, s *Store) ([]byte, Manifest) {
	t.Helper()
	var archive bytes.Buffer
	m, err := s.Snapshot(t.Context(), &archive)
	if err != nil {
		t.Fatalf("Snapshot: %v", err)
	}
	return archive.Bytes(), m
}

func (h home) restore(t *testing.T, archive []byte) RestoreOptions {
	t.Helper()
	return RestoreOptions{
		Archive: bytes.NewReader(archive), Dir: h.dir, MarkerFile: h.marker, Keyring: h.keyring,
		Logger: h.options(t).Logger,
	}
}

func TestSnapshot(t *testing.T) {
	h := newHome(t)
	s := filled(t, h)
	at, err := s.Position(t.Context())
	must(t, err)
	_, m := backup(t, s)
	want := map[string]int{"etcdclusters": 2, "etcdmembers": 2, "etcdhosts": 1, "secrets": 1}
	if diff := cmp.Diff(want, m.ObjectCounts); diff != "" {
		t.Fatalf("object counts:\n%s", diff)
	}
	if m.Format != 1 || m.Epoch.ID != at.EpochID || m.Revision < at.Revision || m.SHA256 == "" || m.Size == 0 ||
		m.QuorateVersion != "v0.0.0-test" || time.Since(m.Created) > time.Minute {
		t.Fatalf("the manifest: %+v, at %+v", m, at)
	}
	entries, err := os.ReadDir(filepath.Dir(h.dir))
	must(t, err)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "quorate-store-") {
			t.Fatalf("the spool was left behind: %s", e.Name())
		}
	}
}

func TestRestore(t *testing.T) {
	ctx := t.Context()
	h := newHome(t)
	s := filled(t, h)
	archive, m := backup(t, s)
	before := newCluster("a")
	must(t, s.Get(ctx, store.KeyOf(before), before))
	// What comes after the backup is lost with the directory.
	late := newCluster("late")
	mustCreate(t, s, late)
	seen, err := s.Position(ctx)
	must(t, err)
	closeStore(t, s)
	must(t, os.RemoveAll(h.dir))
	refused(t, h.options(t), ErrStoreLost)

	out, err := Restore(ctx, h.restore(t, archive))
	if err != nil {
		t.Fatalf("Restore: %v", err)
	}
	if out.Suspended != 2 || out.Epoch.Number < time.Now().Add(-time.Minute).Unix() || out.Epoch.ID == m.Epoch.ID ||
		out.Epoch.RestoredAt == nil || out.Age > time.Minute || out.Revision <= seen.Revision {
		t.Fatalf("Restored: %+v", out)
	}
	if diff := cmp.Diff(m, out.Manifest); diff != "" {
		t.Fatalf("the manifest:\n%s", diff)
	}
	leftovers, err := filepath.Glob(h.dir + ".restoring*")
	if err != nil || len(leftovers) > 0 {
		t.Fatalf("left behind: %v, %v", leftovers, err)
	}

	s = h.open(t)
	now, err := s.Position(ctx)
	must(t, err)
	must(t, now.Check(seen))
	if err = seen.Check(now); !errors.Is(err, store.ErrStale) {
		t.Fatalf("the old store after the new: %v", err)
	}
	epoch := strconv.FormatInt(out.Epoch.Number, 10)
	for _, obj := range []v1alpha1.Object{newCluster("a"), newCluster("b"), newMember("a-0"), newMember("a-1")} {
		must(t, s.Get(ctx, store.KeyOf(obj), obj))
		if got := obj.GetAnnotations()[v1alpha1.AnnotationRestored]; got != epoch {
			t.Fatalf("%s is held for epoch %q, want %s", store.KeyOf(obj), got, epoch)
		}
	}
	after := newCluster("a")
	must(t, s.Get(ctx, store.KeyOf(after), after))
	if after.UID != before.UID || after.Generation != before.Generation || after.Annotations["keep"] != "me" ||
		after.Status.Summary != "as it was" || after.ResourceVersion == before.ResourceVersion {
		t.Fatalf("the cluster came back as %+v", after)
	}
	if value(t, s, "tls", "tls.key") != pemText {
		t.Fatalf("the secret did not survive")
	}
	for _, name := range []string{"late", "deleted"} {
		if err = s.Get(ctx, store.Key{Namespace: "prod", Name: name}, late); !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("Get %s: %v", name, err)
		}
	}
	if diff := cmp.Diff([]string{"a-0 an event x1"}, told(t, s, store.EventOptions{})); diff != "" {
		t.Fatalf("events:\n%s", diff)
	}
	mustCreate(t, s, late)
	// It can be backed up and restored again, into a later epoch still.
	archive, _ = backup(t, s)
	closeStore(t, s)
	must(t, os.Rename(h.dir, h.dir+".old"))
	again, err := Restore(ctx, h.restore(t, archive))
	if err != nil || again.Epoch.Number <= out.Epoch.Number || again.Suspended != 3 {
		t.Fatalf("Restore again: %+v, %v", again, err)
	}
	closeStore(t, h.open(t))
	// The first restore's files are now stale.
	must(t, os.Rename(h.dir, h.dir+".newer"))
	must(t, os.Rename(h.dir+".old", h.dir))
	refused(t, h.options(t), store.ErrStale)
}

// TestRestoreListsUnderLaterRevisions: no resourceVersion is given out twice, and a
// watch can not go on over a restore as if nothing had been.
func TestRestoreListsUnderLaterRevisions(t *testing.T) {
	h := newHome(t)
	s := filled(t, h)
	archive, m := backup(t, s)
	closeStore(t, s)
	must(t, os.Rename(h.dir, h.dir+".old"))
	out, err := Restore(t.Context(), h.restore(t, archive))
	must(t, err)
	if out.Revision < m.Revision+revisionBump {
		t.Fatalf("revision %d after a backup of %d", out.Revision, m.Revision)
	}
	s = h.open(t)
	// Old revisions are compacted: a watch that resumes from one must list again.
	for resp := range s.client.Watch(t.Context(), objectsPrefix, withRevision(m.Revision)) {
		if resp.CompactRevision == 0 {
			t.Fatalf("a watch from revision %d went on: %v", m.Revision, resp.Err())
		}
	}
}

func TestRestoreRefuses(t *testing.T) {
	h := newHome(t)
	s := filled(t, h)
	archive, _ := backup(t, s)
	flipped := bytes.Clone(archive)
	flipped[len(flipped)/2] ^= 1
	for name, tt := range map[string]struct {
		prepare func(t *testing.T, to home, opts *RestoreOptions)
		want    error
		text    string
	}{
		"a directory that is not empty": {func(t *testing.T, to home, _ *RestoreOptions) {
			t.Helper()
			must(t, os.MkdirAll(to.dir, 0o700))
			must(t, os.WriteFile(filepath.Join(to.dir, "precious"), []byte("x"), 0o600))
		}, nil, "move it aside"},
		"another keyring":       {func(*testing.T, home, *RestoreOptions) {}, ErrNoKey, "keyring"},
		"no keyring":            {func(t *testing.T, to home, _ *RestoreOptions) { t.Helper(); must(t, os.Remove(to.keyring)) }, os.ErrNotExist, "keyring"},
		"a flipped bit":         {func(_ *testing.T, _ home, o *RestoreOptions) { o.Archive = bytes.NewReader(flipped) }, ErrCorrupt, "SHA-256"},
		"a backup cut off":      {func(_ *testing.T, _ home, o *RestoreOptions) { o.Archive = bytes.NewReader(archive[:len(archive)/2]) }, io.ErrUnexpectedEOF, "unpack"},
		"something else":        {func(_ *testing.T, _ home, o *RestoreOptions) { o.Archive = strings.NewReader("hello") }, ErrCorrupt, "quorate server backup"},
		"another store's label": {func(t *testing.T, _ home, o *RestoreOptions) { t.Helper(); o.Archive = relabelled(t, archive) }, ErrCorrupt, "another"},
	} {
		t.Run(name, func(t *testing.T) {
			to := newHome(t)
			if name != "another keyring" {
				raw, err := os.ReadFile(h.keyring)
				must(t, err)
				must(t, os.WriteFile(to.keyring, raw, 0o600))
			}
			opts := to.restore(t, archive)
			tt.prepare(t, to, &opts)
			_, err := Restore(t.Context(), opts)
			if err == nil || (tt.want != nil && !errors.Is(err, tt.want)) || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("Restore: %v, want %v that says %q", err, tt.want, tt.text)
			}
			// Nothing was switched on, nothing half-made is left, and what was there is there.
			entries, err := os.ReadDir(to.dir)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			for _, e := range entries {
				if e.Name() != "precious" {
					t.Fatalf("it left %s", e.Name())
				}
			}
			leftovers, _ := filepath.Glob(to.dir + ".restoring*")
			if exists(to.marker) || len(leftovers) > 0 {
				t.Fatalf("it left a marker or %v", leftovers)
			}
		})
	}
	closeStore(t, s)
}

// relabelled puts the manifest of another store before the archive's database.
func relabelled(t *testing.T, archive []byte) io.Reader {
	t.Helper()
	other := newHome(t).open(t)
	_, m := backup(t, other)
	in := tar.NewReader(bytes.NewReader(archive))
	own, err := readManifest(in)
	must(t, err)
	m.SHA256, m.Size = own.SHA256, own.Size
	_, err = in.Next()
	must(t, err)
	db, err := os.CreateTemp(t.TempDir(), "db")
	must(t, err)
	_, err = io.Copy(db, in)
	must(t, err)
	var out bytes.Buffer
	must(t, writeArchive(&out, m, db))
	must(t, db.Close())
	return &out
}

// TestRestoreCutOff: a restore that ends in the middle switches nothing on, and the
// next one cleans up and succeeds.
func TestRestoreCutOff(t *testing.T) {
	h := newHome(t)
	s := filled(t, h)
	archive, _ := backup(t, s)
	closeStore(t, s)
	must(t, os.Rename(h.dir, h.dir+".old"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Restore(ctx, h.restore(t, archive)); !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("Restore with an ended context: %v", err)
	}
	if exists(h.dir) {
		t.Fatalf("it was switched on")
	}
	// What a killed one leaves.
	must(t, os.MkdirAll(filepath.Join(h.dir+".restoring", "member", "snap"), 0o700))
	must(t, os.WriteFile(h.dir+".restoring.db", []byte("half"), 0o600))
	if _, err := Restore(t.Context(), h.restore(t, archive)); err != nil {
		t.Fatalf("Restore: %v", err)
	}
	h.open(t)
}

func TestRestoreInUse(t *testing.T) {
	h := newHome(t)
	s := filled(t, h)
	archive, _ := backup(t, s)
	other := h
	other.dir = filepath.Join(filepath.Dir(h.dir), "empty")
	l, err := lock(other.dir)
	must(t, err)
	defer func() { must(t, l.release()) }()
	if _, err := Restore(t.Context(), other.restore(t, archive)); !errors.Is(err, ErrInUse) {
		t.Fatalf("Restore: %v", err)
	}
}
