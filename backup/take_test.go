package backup_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/test/etcdlab"
)

// TestBackup takes a backup of three members, proves it, and restores it: the new
// cluster says what the old one said.
func TestBackup(t *testing.T) {
	t.Parallel()
	l := etcdlab.New(t, etcdlab.Options{Members: 3}).Ready()
	c := l.Members[0].Dial()
	fill(t, c, 500)
	store := directory(t)
	taken := take(t, options(t, l, store))
	if taken.Source.Role != backup.RoleFollower {
		t.Errorf("taken from a %s: %s", taken.Source.Role, taken.Source.Why)
	}
	all := entries(t, store)
	if len(all) != 1 || all[0].State != catalog.Complete || all[0].Verdict() != catalog.Unproven {
		t.Fatalf("the store holds %+v", all)
	}
	now, err := c.Get(t.Context(), "\x00", clientv3.WithFromKey(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	p := all[0].Point
	if p.Revision != now.Header.Revision || p.Counts.Keys != now.Count || p.Counts.Leases != 1 {
		t.Errorf("the manifest says revision %d, %+v; the cluster is at %d with %d keys", p.Revision, p.Counts, now.Header.Revision, now.Count)
	}
	hash, err := c.HashKV(t.Context(), l.Members[0].Client, p.Revision)
	if err != nil {
		t.Fatal(err)
	}
	if hash.Hash != p.HashKV.Hash || hash.CompactRevision != p.HashKV.CompactRevision {
		t.Errorf("the manifest has hash %+v, the cluster %d compacted at %d", p.HashKV, hash.Hash, hash.CompactRevision)
	}
	proof := prove(t, store, &all[0])
	if proof.Result != catalog.Verified || proof.Counts.Keys != now.Count || proof.PeakMemory == 0 {
		t.Errorf("proof: %+v", proof)
	}
	if all = entries(t, store); all[0].Verdict() != catalog.Proven {
		t.Errorf("with the proof it is %s: %+v", all[0].Verdict(), all[0].Proofs)
	}
	restored := restore(t, backup.Origin{Bucket: store, Entry: &all[0]})
	got := dump(t, restored)
	if want := dump(t, c); got != want {
		t.Errorf("the restored cluster has other keys:\n%s\nnot\n%s", head(got), head(want))
	}
}

// TestRotten has a byte of the stored object altered: the proof fails, and says so.
func TestRotten(t *testing.T) {
	t.Parallel()
	l := etcdlab.New(t, etcdlab.Options{}).Ready()
	fill(t, l.Members[0].Dial(), 200)
	store := directory(t)
	take(t, options(t, l, store))
	e := entries(t, store)[0]
	file := filepath.Join(strings.TrimPrefix(store.String(), "file://"), filepath.FromSlash(e.Dir+e.Point.Object))
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 1
	if err = os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err = os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	e = entries(t, store)[0]
	if p := prove(t, store, &e); p.Result != catalog.ResultFailed {
		t.Errorf("proof: %+v", p)
	}
	if e = entries(t, store)[0]; e.Verdict() != catalog.Failed {
		t.Errorf("it is %s", e.Verdict())
	}
}

// TestAuth backs up, proves and restores a cluster with users.
func TestAuth(t *testing.T) {
	t.Parallel()
	l := etcdlab.New(t, etcdlab.Options{}).Ready()
	fill(t, l.Members[0].Dial(), 50)
	l.EnableAuth("secret")
	store := directory(t)
	take(t, options(t, l, store))
	e := entries(t, store)[0]
	if !e.Point.AuthEnabled {
		t.Error("the manifest does not say that there are users")
	}
	if p := prove(t, store, &e); p.Result != catalog.Verified {
		t.Errorf("proof: %+v", p)
	}
}

// TestUserWithoutRoot: etcd takes snapshots for root alone, and who is refused is told so.
func TestUserWithoutRoot(t *testing.T) {
	t.Parallel()
	l := etcdlab.New(t, etcdlab.Options{}).Ready()
	client := l.Members[0].Dial()
	if _, err := client.UserAdd(t.Context(), "reader", "pw"); err != nil {
		t.Fatal(err)
	}
	l.EnableAuth("secret")
	store := directory(t)
	o := options(t, l, store)
	o.Access.Username, o.Access.Password = "reader", "pw"
	_, err := backup.Take(t.Context(), o)
	const want = "permission denied: user reader may not take a snapshot, for which etcd wants the role root: grant it with `etcdctl user grant-role reader root`, or name a user who has it"
	if !errors.Is(err, backup.ErrNoSource) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
	if left := entries(t, store); len(left) != 0 {
		t.Errorf("it left %d entries", len(left))
	}
}

// TestElection begins a backup at the moment at which the leader dies: it waits for the
// next one.
func TestElection(t *testing.T) {
	t.Parallel()
	l := etcdlab.New(t, etcdlab.Options{Members: 3}).Ready()
	fill(t, l.Members[0].Dial(), 10)
	o := options(t, l, directory(t))
	s, err := l.Members[0].Dial().Status(t.Context(), l.Members[0].Client)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range l.Members {
		own, err := m.Dial().Status(t.Context(), m.Client)
		if err != nil {
			t.Fatal(err)
		}
		if own.Header.MemberId == s.Leader {
			m.Kill()
		}
	}
	if taken := take(t, o); taken.Source.Role != backup.RoleFollower && taken.Source.Role != backup.RoleLeader {
		t.Errorf("taken from a %s: %s", taken.Source.Role, taken.Source.Why)
	}
}
