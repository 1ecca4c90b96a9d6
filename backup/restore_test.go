package backup_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/test/etcdlab"
)

// restore makes a cluster of one member and returns its client.
func restore(t *testing.T, o backup.Origin) *clientv3.Client {
	t.Helper()
	l := etcdlab.New(t, etcdlab.Options{Edit: func(members []*etcdlab.Member) {
		m := members[0]
		m.Dir = filepath.Join(t.TempDir(), "data")
		_, err := backup.Restore(t.Context(), backup.RestoreOptions{
			Origin: o, Members: []backup.RestoreMember{{Name: m.Name, Dir: m.Dir}}, InitialCluster: map[string][]string{m.Name: {m.Peer}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}}).Ready()
	return l.Members[0].Dial()
}

// dump is every key with all that etcd says of it.
func dump(t *testing.T, c *clientv3.Client) string {
	t.Helper()
	r, err := c.Get(t.Context(), "\x00", clientv3.WithFromKey())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, kv := range r.Kvs {
		fmt.Fprintf(&b, "%q=%q created %d modified %d version %d lease %x\n", kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease)
	}
	return b.String()
}

func head(s string) string { return s[:min(len(s), 2000)] }
