package backup_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/test/etcdlab"
)

// TestMain makes the test binary act as etcd too.
func TestMain(m *testing.M) { etcdlab.Main(m) }

var prod = catalog.Cluster{Namespace: "default", Name: "prod"}

// directory is a store in a directory of the test.
func directory(t *testing.T) bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(t.Context(), bucket.Config{Provider: bucket.File, Prefix: t.TempDir()}, bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func access(c *etcdlab.Cluster) etcd.Access {
	return etcd.Access{Endpoints: c.URLs(), TLS: c.TLS, Username: c.User, Password: c.Password}
}

// options of a backup of a lab into one store.
func options(t *testing.T, c *etcdlab.Cluster, to bucket.Bucket) backup.TakeOptions {
	t.Helper()
	return backup.TakeOptions{
		Cluster: prod, Access: access(c), SpoolDir: t.TempDir(), SpoolFloor: 1,
		Destinations: []backup.Destination{{Name: "store", Bucket: to}},
	}
}

// itself is the etcd that the test binary is.
func itself(t *testing.T) backup.EtcdCommand {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return backup.EtcdCommand{Path: self, Name: "etcd", Version: "3.7.3"}
}

func take(t *testing.T, o backup.TakeOptions) *backup.Taken {
	t.Helper()
	taken, err := backup.Take(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return taken
}

// entries that a store holds.
func entries(t *testing.T, b bucket.Bucket) []catalog.Entry {
	t.Helper()
	cat, err := backup.ReadCatalog(t.Context(), b, catalog.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return cat.Entries
}

func prove(t *testing.T, b bucket.Bucket, e *catalog.Entry) *catalog.Proof {
	t.Helper()
	p, err := backup.Prove(t.Context(), e, backup.ProveOptions{Bucket: b, ScratchDir: t.TempDir(), ScratchFloor: 1, Etcd: itself(t)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// fill writes keys, some with a lease, deletes some, and compacts.
func fill(t *testing.T, c *clientv3.Client, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	lease, err := c.Grant(ctx, 3600)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		ops := []clientv3.Op{clientv3.OpPut(fmt.Sprintf("/a/%05d", i), fmt.Sprint("value ", i)), clientv3.OpPut(fmt.Sprintf("/b/%03d", i%100), strconv.Itoa(i))}
		switch i % 10 {
		case 3:
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("/lease/%05d", i), "leased", clientv3.WithLease(lease.ID)))
		case 7:
			ops = append(ops, clientv3.OpDelete(fmt.Sprintf("/a/%05d", i-1)))
		}
		r, err := c.Txn(ctx).Then(ops...).Commit()
		if err != nil {
			t.Fatal(err)
		}
		if i == n/2 {
			if _, err = c.Compact(ctx, r.Header.Revision-5); err != nil {
				t.Fatal(err)
			}
		}
	}
}
