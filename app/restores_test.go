package app

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/datadir"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/internal/version"
	"github.com/quorate/quorate/test/etcdlab"
)

// thisBinary is the only etcd there is.
type thisBinary struct{}

func (thisBinary) Resolve(string, string) (v1alpha1.ReleaseRef, error) {
	return v1alpha1.ReleaseRef{Version: version.Etcd()}, nil
}

func (thisBinary) executable(context.Context, string) (string, error) { return os.Executable() }

// adapter is what the fleet restores with, of a real etcd's backups.
type adapter struct {
	t  *testing.T
	b  *backups
	in fleet.BackupStore
	of fleet.BackupsOf
}

func newAdapter(t *testing.T) *adapter {
	t.Helper()
	b, err := newBackups(paths(t.TempDir()), thisBinary{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return &adapter{t, b, fleet.BackupStore{Name: "vault", URL: "file://" + t.TempDir()}, fleet.BackupsOf{Namespace: "default", Cluster: "prod"}}
}

// take backs a new etcd up that has one key.
func (a *adapter) take(recipients ...string) fleet.BackupTaken {
	a.t.Helper()
	l := etcdlab.New(a.t, etcdlab.Options{Members: 1}).Ready()
	if _, err := l.Members[0].Dial().Put(a.t.Context(), "kept", "in a backup"); err != nil {
		a.t.Fatal(err)
	}
	taken, err := a.b.Take(a.t.Context(), fleet.BackupOrder{
		BackupsOf: a.of, Access: etcd.Access{Endpoints: l.URLs()}, Stores: []fleet.BackupStore{a.in}, Recipients: recipients, WithoutLeader: true,
		Compression: v1alpha1.CompressionFastest, Progress: func(string) {},
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return taken
}

func (a *adapter) find(change func(o *fleet.BackupSought)) (fleet.BackupFound, error) {
	o := fleet.BackupSought{BackupsOf: a.of, Store: a.in, Point: v1alpha1.PointLatest, Progress: func(string) {}}
	change(&o)
	return a.b.Find(a.t.Context(), o)
}

// refused checks that a search fails with text, and whether to try it again helps.
func (a *adapter) refused(what, text string, hopeless bool, change func(o *fleet.BackupSought)) {
	a.t.Helper()
	f, err := a.find(change)
	if err == nil || !strings.Contains(err.Error(), text) || errors.Is(err, fleet.ErrHopeless) != hopeless {
		a.t.Errorf("%s: %+v, %v; want %q", what, f, err, text)
	}
}

func (a *adapter) read(o fleet.BackupTrial) ([]byte, int64, error) {
	o.Store, o.Progress = a.in, func(string) {}
	db, size, err := a.b.Open(a.t.Context(), o)
	if err != nil {
		return nil, 0, err
	}
	raw, err := io.ReadAll(db)
	return raw, size, errors.Join(err, db.Close())
}

// checkRead: what is read is a whole snapshot with its hash.
func (a *adapter) checkRead(o fleet.BackupTrial, taken fleet.BackupTaken) []byte {
	a.t.Helper()
	raw, size, err := a.read(o)
	if err != nil {
		a.t.Fatal(err)
	}
	file := filepath.Join(a.t.TempDir(), "read.db")
	if err = os.WriteFile(file, raw, 0o600); err != nil {
		a.t.Fatal(err)
	}
	info, err := datadir.CheckSnapshot(a.t.Context(), file, datadir.CheckOptions{})
	if err != nil || !info.Verified || info.Revision != taken.Revision || info.Size != taken.DBSize || size != 0 && size != int64(len(raw)) {
		a.t.Errorf("read were %d bytes of %d: %+v, %v", len(raw), size, info, err)
	}
	return raw
}

// TestRestoresFindAndOpen: a backup of a real etcd is found, proven, and read as etcd
// would stream it; so is a snapshot that is in no catalog, if it has its hash.
func TestRestoresFindAndOpen(t *testing.T) {
	t.Parallel()
	a := newAdapter(t)
	a.refused("an empty store", "there is no backup of default/prod (to try it again does not help)", true, func(*fleet.BackupSought) {})
	taken := a.take()
	id := taken.Written[0].PointID
	f, err := a.find(func(*fleet.BackupSought) {})
	if err != nil || f.PointID != id || f.Revision != taken.Revision || f.Keys != 1 || f.DBSize != taken.DBSize || f.Of.ClusterID != taken.ClusterID ||
		!f.ProvenAt.IsZero() || f.EtcdVersion != version.Etcd() || time.Since(f.TakenAt) > time.Hour {
		t.Errorf("found was %+v, %v; taken was %+v", f, err, taken)
	}
	proven := func(o *fleet.BackupSought) { o.Point = v1alpha1.PointLatestProven }
	a.refused("nothing is proven", "none of the 1 of default/prod is proven", true, proven)
	a.refused("nothing that old", "that was begun by 2001-01-01T00:00:00Z is complete", true, func(o *fleet.BackupSought) {
		o.NotAfter = time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	})
	a.refused("no such ID", "there is no such backup: nothing", true, func(o *fleet.BackupSought) { o.Point = "nothing" })
	a.refused("another cluster ID", "there is no backup of default/prod", true, func(o *fleet.BackupSought) { o.ClusterID = 7 })
	trial := fleet.BackupTrial{BackupsOf: f.Of, PointID: id}
	whole := a.checkRead(trial, taken)
	tried := trial
	tried.Store, tried.Progress = a.in, func(string) {}
	verdict, err := a.b.Prove(t.Context(), tried)
	if err != nil || !verdict.Verified {
		t.Fatalf("the proof found %+v, %v", verdict, err)
	}
	if f, err = a.find(proven); err != nil || f.PointID != id || !f.ProvenAt.Equal(verdict.At) {
		t.Errorf("proven is %+v, %v; the proof was %+v", f, err, verdict)
	}
	if _, _, err = a.read(fleet.BackupTrial{BackupsOf: f.Of, PointID: "nothing"}); !errors.Is(err, backup.ErrNoBackup) {
		t.Errorf("reading what is not there: %v", err)
	}

	a.put("nightly.db", whole)
	a.put("copied.db", whole[:len(whole)-sha256.Size])
	object := func(name string) func(o *fleet.BackupSought) {
		return func(o *fleet.BackupSought) { o.Object, o.BackupsOf = name, fleet.BackupsOf{} }
	}
	if f, err = a.find(object("nightly.db")); err != nil || f.PointID != "nightly.db" || f.Revision != taken.Revision || f.Keys != 1 || f.DBSize != taken.DBSize || f.Of.Cluster != "" {
		t.Errorf("the snapshot is %+v, %v", f, err)
	}
	if minor := version.Etcd()[:strings.LastIndex(version.Etcd(), ".")]; !strings.HasPrefix(f.EtcdVersion, minor) {
		t.Errorf("it is of etcd %q", f.EtcdVersion)
	}
	a.checkRead(fleet.BackupTrial{Object: "nightly.db"}, taken)
	a.refused("a snapshot without a hash", "has no hash behind the database, so nobody can tell whether it is whole", true, object("copied.db"))
	a.refused("no such snapshot", "missing.db", false, object("missing.db"))
	if left, globErr := filepath.Glob(filepath.Join(a.b.spool, "*")); globErr != nil || len(left) > 0 {
		t.Errorf("%v is left in the spool, %v", left, globErr)
	}
}

func (a *adapter) put(name string, raw []byte) {
	a.t.Helper()
	err := a.b.with(a.t.Context(), a.in, func(in bucket.Bucket) error {
		_, err := in.Put(a.t.Context(), name, bytes.NewReader(raw), bucket.PutOptions{})
		return err
	})
	if err != nil {
		a.t.Fatal(err)
	}
}

// TestRestoresOfEncrypted: an encrypted backup is read with the identity of one of its
// recipients, and what is wrong with another one is told without it.
func TestRestoresOfEncrypted(t *testing.T) {
	t.Parallel()
	a := newAdapter(t)
	mine, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	taken := a.take(mine.Recipient().String())
	a.refused("without an identity", "is encrypted: name a Secret with an identity of one of its recipients", false, func(*fleet.BackupSought) {})
	f, err := a.find(func(o *fleet.BackupSought) { o.Identity = mine.String() })
	if err != nil || f.PointID != taken.Written[0].PointID {
		t.Fatalf("found was %+v, %v", f, err)
	}
	a.checkRead(fleet.BackupTrial{BackupsOf: f.Of, PointID: f.PointID, Identity: mine.String()}, taken)
	for name, identity := range map[string]string{"none": "", "another": other.String()} {
		_, _, err = a.read(fleet.BackupTrial{BackupsOf: f.Of, PointID: f.PointID, Identity: identity})
		if !errors.Is(err, backup.ErrNoIdentity) {
			t.Errorf("read with %s: %v", name, err)
		}
	}
	_, _, err = a.read(fleet.BackupTrial{BackupsOf: f.Of, PointID: f.PointID, Identity: "AGE-SECRET-KEY-1WORD"})
	if !errors.Is(err, fleet.ErrHopeless) || strings.Contains(err.Error(), "WORD") {
		t.Errorf("read with nonsense: %v", err)
	}
}

// TestRestoresOfSeveralClusters: where a name has meant several clusters, it must be said
// which is meant, and the answer says which there are.
func TestRestoresOfSeveralClusters(t *testing.T) {
	s, in := vault(t)
	for i := range 3 {
		put(t, in, held{"prod", 1, "", int64(10 + i), time.Duration(50-i) * time.Hour, i < 2})
	}
	put(t, in, held{"prod", 2, "", 5, time.Hour, false})
	put(t, in, held{"other", 3, "", 6, time.Minute, true})
	a := &adapter{t, testBackups(t), s, fleet.BackupsOf{Namespace: "default", Cluster: "prod"}}
	for _, which := range []string{"0000000000000001, epoch 1: 3 backups", "0000000000000002, epoch 1: 1 backup", "; say source.clusterID"} {
		a.refused("two clusters of the name", which, true, func(*fleet.BackupSought) {})
		a.refused("two clusters of the name, and none of the cluster as it is now", which, true, func(o *fleet.BackupSought) { o.Prefer = 7 })
	}
	for want, change := range map[string]func(o *fleet.BackupSought){
		"0000000c": func(o *fleet.BackupSought) { o.ClusterID = 1 },
		"0000000b": func(o *fleet.BackupSought) { o.ClusterID, o.Point = 1, v1alpha1.PointLatestProven },
		"0000000a": func(o *fleet.BackupSought) {
			o.ClusterID, o.NotAfter = 1, time.Now().Add(-49*time.Hour-30*time.Minute)
		},
		"00000005": func(o *fleet.BackupSought) { o.Prefer, o.Point = 2, v1alpha1.PointLatest },
		"00000006": func(o *fleet.BackupSought) { o.Cluster = "other" },
	} {
		if f, err := a.find(change); err != nil || !strings.HasSuffix(f.PointID, want) {
			t.Errorf("%+v, %v; want %s", f, err, want)
		}
	}
}

// deaf is a store of which one manifest can't be read at this moment.
type deaf struct {
	bucket.Bucket

	name string
}

func (d deaf) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if strings.Contains(name, d.name) {
		return nil, fmt.Errorf("%s: %w", name, bucket.ErrUnavailable)
	}
	return d.Bucket.Get(ctx, name)
}

// TestRestoresOfUnread: what could not be read is not passed over for what is older, and
// is looked for again.
func TestRestoresOfUnread(t *testing.T) {
	s, in := vault(t)
	put(t, in, held{"prod", 1, "", 10, 2 * time.Hour, true})
	put(t, in, held{"prod", 1, "", 11, time.Hour, true})
	for _, point := range []string{v1alpha1.PointLatest, v1alpha1.PointLatestProven, "0000000b"} {
		o := fleet.BackupSought{BackupsOf: fleet.BackupsOf{Namespace: "default", Cluster: "prod"}, Store: s, Point: point}
		f, err := testBackups(t).find(t.Context(), o, deaf{in, "0000000b/point.json"})
		if !errors.Is(err, backup.ErrUnread) || !errors.Is(err, bucket.ErrUnavailable) || errors.Is(err, fleet.ErrHopeless) {
			t.Errorf("%s: %+v, %v", point, f, err)
		}
		if f, err = testBackups(t).find(t.Context(), o, deaf{in, "0000000a/point.json"}); err != nil || !strings.HasSuffix(f.PointID, "0000000b") {
			t.Errorf("%s, and an older one can't be read: %+v, %v", point, f, err)
		}
	}
}
