package backups

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/test/etcdlab"
)

// binaryOf a version; the newest is the test binary itself.
func binaryOf(t *testing.T, version string) string {
	t.Helper()
	if version == "3.7" {
		return ""
	}
	path, err := etcdlab.Built(version)
	if err != nil {
		t.Skip(err)
	}
	return path
}

// TestVersions backs up clusters of three releases with TLS and users, from a learner,
// proves the backup on the etcd of this module, and restores it on the release it came
// from.
func TestVersions(t *testing.T) {
	for _, version := range []string{"3.5.35", "3.6.16", "3.7"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			binary := binaryOf(t, version)
			l := etcdlab.New(t, etcdlab.Options{Members: 2, Binary: binary, CA: etcdlab.NewAuthority(t), ClientCerts: true}).Ready()
			c := l.Members[0].Dial()
			for i := range 200 {
				if _, err := c.Put(t.Context(), fmt.Sprintf("/k/%03d", i%120), strconv.Itoa(i)); err != nil {
					t.Fatal(err)
				}
			}
			addLearner(t, l, c)
			l.EnableAuth(password)
			store := open(t, t.TempDir())
			taken, err := backup.Take(t.Context(), backup.TakeOptions{
				Cluster: prod, Access: etcd.Access{Endpoints: l.URLs(), TLS: l.TLS, Username: l.User, Password: l.Password},
				Destinations: []backup.Destination{{Name: "store", Bucket: store}}, SpoolDir: t.TempDir(), SpoolFloor: 1,
			})
			if err != nil {
				t.Fatal(err)
			}
			if taken.Source.Role != backup.RoleLearner {
				t.Errorf("taken from %s, a %s: %s; passed %v", taken.Source.Name, taken.Source.Role, taken.Source.Why, taken.Passed)
			}
			e := entry(t, store, taken.Written[0].Ref)
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			proof, err := backup.Prove(t.Context(), e, backup.ProveOptions{
				Bucket: store, ScratchDir: t.TempDir(), ScratchFloor: 1, Etcd: backup.EtcdCommand{Path: self, Name: "etcd", Version: "3.7.3"},
			})
			if err != nil || proof.Result != catalog.Verified {
				t.Fatalf("proof %+v, %v", proof, err)
			}
			r := restored(t, backup.Origin{Bucket: store, Entry: e}, binary)
			r.User, r.Password = "root", password
			r.Ready()
			var kvs struct{ Kvs []struct{ Value []byte } }
			decode(t, etcdctl(t, r.Members[0].Client, "root:"+password, "get", "/k/", "--prefix"), &kvs)
			if len(kvs.Kvs) != 120 {
				t.Errorf("%d keys are restored, want 120", len(kvs.Kvs))
			}
		})
	}
}

// addLearner starts a third member that has no vote.
func addLearner(t *testing.T, l *etcdlab.Cluster, c *clientv3.Client) {
	t.Helper()
	m := l.Joining("learner")
	etcdlab.Until(t, "a learner to be added", func(ctx context.Context) error {
		_, err := c.MemberAddAsLearner(ctx, []string{m.Peer})
		return err
	})
	m.Start()
	etcdlab.Until(t, "the learner to catch up", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		lc, err := m.TryDial()
		if err != nil {
			return err
		}
		defer func() { _ = lc.Close() }()
		mine, err := lc.Status(ctx, m.Client)
		if err != nil {
			return err
		}
		leading, err := c.Status(ctx, l.Members[0].Client)
		if err == nil && mine.RaftAppliedIndex < leading.RaftAppliedIndex {
			return fmt.Errorf("it has applied %d of %d", mine.RaftAppliedIndex, leading.RaftAppliedIndex)
		}
		return err
	})
}
