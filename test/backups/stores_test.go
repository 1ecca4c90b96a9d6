package backups

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/test/etcdlab"
	"github.com/quorate/quorate/test/s3lab"
)

// shop is a cluster with some MiB that don't compress, and a store with a proven backup
// of it.
type shop struct {
	cluster *etcdlab.Cluster
	client  *clientv3.Client
	store   bucket.Bucket
	older   catalog.Ref
}

// quick gives up soon: what is tried is the fault, not patience.
var quick = bucket.Retry{Attempts: 4, Min: 5 * time.Millisecond, Max: 50 * time.Millisecond, Total: 20 * time.Second}

func newShop(t *testing.T, c bucket.Config, o bucket.Options) *shop {
	t.Helper()
	s := &shop{cluster: etcdlab.New(t, etcdlab.Options{}).Ready()}
	s.client = s.cluster.Members[0].Dial()
	s.fill(t)
	o.Retry, o.Stall = quick, 2*time.Second
	var err error
	if s.store, err = bucket.Open(t.Context(), c, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.store.Close() })
	taken, err := s.take(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s.older = taken.Written[0].Ref
	s.mustProve(t, s.older)
	return s
}

func (s *shop) fill(t *testing.T) {
	t.Helper()
	for i := range 100 {
		value := make([]byte, 100<<10)
		_, _ = rand.Read(value) // it never fails
		if _, err := s.client.Put(t.Context(), fmt.Sprintf("/bulk/%03d", i), string(value)); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *shop) take(ctx context.Context, spool string) (*backup.Taken, error) {
	return backup.Take(ctx, backup.TakeOptions{
		Cluster: prod, Access: etcd.Access{Endpoints: s.cluster.URLs()},
		Destinations: []backup.Destination{{Name: "store", Bucket: s.store}}, SpoolDir: spool, SpoolFloor: 1,
	})
}

func (s *shop) prove(t *testing.T, ref catalog.Ref) (*catalog.Proof, error) {
	t.Helper()
	cat, err := backup.ReadCatalog(t.Context(), s.store, catalog.ReadOptions{})
	if err != nil {
		return nil, err
	}
	for i := range cat.Entries {
		if cat.Entries[i].Ref.Compare(ref) == 0 {
			return s.proveEntry(t, &cat.Entries[i])
		}
	}
	return nil, fmt.Errorf("the store has no %s", ref)
}

func (s *shop) proveEntry(t *testing.T, e *catalog.Entry) (*catalog.Proof, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return backup.Prove(t.Context(), e, backup.ProveOptions{
		Bucket: s.store, ScratchDir: t.TempDir(), ScratchFloor: 1, Etcd: backup.EtcdCommand{Path: self, Name: "etcd", Version: "3.7.3"},
	})
}

func (s *shop) mustProve(t *testing.T, ref catalog.Ref) {
	t.Helper()
	p, err := s.prove(t, ref)
	if err != nil || p.Result != catalog.Verified {
		t.Fatalf("%s is not to be proven: %+v, %v", ref, p, err)
	}
}

// honest wants every backup that is called proven to be so, and the older one to be
// there still. It is asked when the fault is over.
func (s *shop) honest(t *testing.T) {
	t.Helper()
	cat, err := backup.ReadCatalog(t.Context(), s.store, catalog.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for i := range cat.Entries {
		e := &cat.Entries[i]
		found = found || e.Ref.Compare(s.older) == 0
		if e.Verdict() != catalog.Proven {
			continue
		}
		if p, err := s.proveEntry(t, e); err != nil || p.Result != catalog.Verified {
			t.Errorf("%s was called proven, and is not: %+v, %v", e.Ref, p, err)
		}
	}
	if !found {
		t.Errorf("the older backup %s is gone", s.older)
	}
}

// TestFaultyStore has a real S3 server fail in many ways while a backup is taken and
// proven: none is called Verified that is not, and each failure says what it is.
func TestFaultyStore(t *testing.T) {
	lab := s3lab.New(t, s3lab.Options{})
	lab.Make("faults")
	s := newShop(t, lab.Config("faults"), bucket.Options{Credentials: s3lab.Credentials()})
	put, get := s3lab.Method("PUT", ""), s3lab.Method("GET", "snapshot.db")
	for _, c := range []struct {
		name  string
		fault s3lab.Fault
		// kind of the error, or nil if it must come through; proof fails instead of the
		// backup.
		kind  error
		proof bool
		says  string
	}{
		{"503 for a third", s3lab.Fault{Share: 0.2, Status: 503, Code: "SlowDown"}, nil, false, ""},
		{"503 for ever", s3lab.Fault{Status: 503, Code: "SlowDown"}, bucket.ErrUnavailable, false, "attempts"},
		{"some uploads are cut", s3lab.Fault{Match: put, Times: 3, CutRequest: 50_000}, nil, false, ""},
		{"all uploads are cut", s3lab.Fault{Match: put, CutRequest: 50_000}, bucket.ErrUnavailable, false, "attempts"},
		{"some uploads are damaged", s3lab.Fault{Match: put, Times: 2, FlipRequest: 5000}, nil, false, ""},
		{"all uploads are damaged", s3lab.Fault{Match: put, FlipRequest: 5000}, bucket.ErrCorrupt, false, ""},
		{"uploads are slow", s3lab.Fault{Match: put, BytesPerSecond: 20 << 20}, nil, false, ""},
		{"the server is silent", s3lab.Fault{Match: put, Freeze: true}, bucket.ErrUnavailable, false, "attempts"},
		{"an hour ahead", s3lab.Fault{Skew: time.Hour}, bucket.ErrClockSkew, false, "NTP"},
		{"an hour behind", s3lab.Fault{Skew: -time.Hour}, bucket.ErrClockSkew, false, "NTP"},
		{"some downloads are cut", s3lab.Fault{Match: get, Times: 2, CutResponse: 200_000}, nil, false, ""},
		{"no download is answered", s3lab.Fault{Match: get, Status: 503, Code: "SlowDown"}, bucket.ErrUnavailable, true, "could not be tried"},
	} {
		t.Run(c.name, func(t *testing.T) {
			lab.Proxy.Add(c.fault)
			taken, err := s.take(t.Context(), t.TempDir())
			if err == nil {
				var p *catalog.Proof
				if p, err = s.prove(t, taken.Written[0].Ref); err == nil && p.Result != catalog.Verified {
					err = errors.New(p.Reason)
				}
			} else if c.proof {
				t.Errorf("it was not even taken: %v", err)
			}
			met := lab.Proxy.Heal()
			if met == 0 {
				t.Error("the fault met no request")
			}
			switch {
			case c.kind == nil && err != nil:
				t.Errorf("it did not come through: %v", err)
			case c.kind != nil && (!errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says)):
				t.Errorf("error %v, want %v that says %q", err, c.kind, c.says)
			}
			s.honest(t)
		})
	}
}

// TestRot has a bit of a stored object turn after it was proven: the next proof fails,
// and the older backup is restored all the same.
func TestRot(t *testing.T) {
	lab := s3lab.New(t, s3lab.Options{})
	lab.Make("rot")
	s := newShop(t, lab.Config("rot"), bucket.Options{Credentials: s3lab.Credentials()})
	taken, err := s.take(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ref := taken.Written[0].Ref
	s.mustProve(t, ref)
	turned := 0
	err = filepath.WalkDir(lab.Root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(path, ref.ID()) || !strings.HasPrefix(filepath.Base(path), "snapshot.db") {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		raw[len(raw)/3] ^= 4
		turned++
		return os.WriteFile(path, raw, 0o600)
	})
	if err != nil || turned != 1 {
		t.Fatalf("%d objects turned, %v", turned, err)
	}
	p, err := s.prove(t, ref)
	if err != nil || p.Result != catalog.ResultFailed || p.Reason == "" {
		t.Errorf("proof of what has rotted: %+v, %v", p, err)
	}
	s.mustProve(t, s.older)
}

// TestStoreFull has no room for a second backup.
func TestStoreFull(t *testing.T) {
	lab := s3lab.New(t, s3lab.Options{TmpfsBytes: 28 << 20})
	lab.Make("full")
	s := newShop(t, lab.Config("full"), bucket.Options{Credentials: s3lab.Credentials()})
	if _, err := s.take(t.Context(), t.TempDir()); !errors.Is(err, bucket.ErrNoSpace) {
		t.Errorf("error %v, want %v", err, bucket.ErrNoSpace)
	}
	s.mustProve(t, s.older)
	s.honest(t)
}

// TestRevoked takes the credentials away.
func TestRevoked(t *testing.T) {
	lab := s3lab.New(t, s3lab.Options{})
	lab.Make("revoked")
	revoke := lab.User("AKUSER", "user-secret")
	lab.Own("revoked", "AKUSER")
	s := newShop(t, lab.Config("revoked"), bucket.Options{Credentials: s3lab.UserCredentials("AKUSER", "user-secret")})
	revoke()
	if _, err := s.take(t.Context(), t.TempDir()); !errors.Is(err, bucket.ErrDenied) || strings.Contains(err.Error(), "user-secret") {
		t.Errorf("error %v, want %v", err, bucket.ErrDenied)
	}
	lab.User("AKUSER", "user-secret")
	lab.Own("revoked", "AKUSER")
	s.honest(t)
}

// TestSpoolDisk has the spool's disk too small, and full in the middle.
func TestSpoolDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("a small disk needs root: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	s := newShop(t, bucket.Config{Provider: bucket.File, Prefix: t.TempDir()}, bucket.Options{})
	_, err := s.take(t.Context(), dir)
	if !errors.Is(err, backup.ErrSpoolFull) {
		t.Errorf("error %v, want %v", err, backup.ErrSpoolFull)
	}
	if left, readErr := os.ReadDir(dir); readErr != nil || len(left) > 0 {
		t.Errorf("left in the spool: %v, %v", left, readErr)
	}
	s.honest(t)
}
