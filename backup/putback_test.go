package backup_test

import (
	"fmt"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/datadir"
	"github.com/quorate/quorate/test/etcdlab"
)

// TestPutBack has a prefix damaged after a backup, and put right.
func TestPutBack(t *testing.T) {
	t.Parallel()
	l := etcdlab.New(t, etcdlab.Options{}).Ready()
	c := l.Members[0].Dial()
	do := func(ops ...clientv3.Op) {
		t.Helper()
		if _, err := c.Txn(t.Context()).Then(ops...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	lease, err := c.Grant(t.Context(), 3600)
	if err != nil {
		t.Fatal(err)
	}
	do(clientv3.OpPut("/p/deleted", "1"), clientv3.OpPut("/p/changed", "1"), clientv3.OpPut("/p/same", "1"), clientv3.OpPut("/q/other", "1"),
		clientv3.OpPut("/p/leased", "1", clientv3.WithLease(lease.ID)))
	store := directory(t)
	take(t, options(t, l, store))
	do(clientv3.OpDelete("/p/deleted"), clientv3.OpPut("/p/changed", "2"), clientv3.OpPut("/p/extra", "1"), clientv3.OpPut("/q/other", "2"), clientv3.OpDelete("/p/leased"))
	e := entries(t, store)[0]
	local, err := backup.Fetch(t.Context(), backup.Origin{Bucket: store, Entry: &e}, t.TempDir(), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = local.Close() })
	o := backup.PutBackOptions{DiffOptions: backup.DiffOptions{Backup: local, Client: c, Keys: datadir.Prefix("/p/"), SameLineage: true}}
	check := func(what string, o backup.PutBackOptions, want, after string) {
		t.Helper()
		keys, err := backup.Put(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, k := range keys {
			got = append(got, strings.TrimPrefix(k.Key, "/p/")+" "+string(k.Outcome))
		}
		if s := strings.Join(got, "; "); s != want {
			t.Errorf("%s: %s\nwant %s", what, s, want)
		}
		if s := values(t, c); s != after {
			t.Errorf("%s: the cluster has %s\nwant %s", what, s, after)
		}
	}
	before := "/p/changed=2 /p/extra=1 /p/same=1 /q/other=2 "
	dry := o
	dry.DryRun = true
	check("dry run", dry, "changed refused, newer; deleted put back; extra refused, not in the backup; leased refused, hung on a lease", before)
	check("careful", o, "changed refused, newer; deleted put back; extra refused, not in the backup; leased refused, hung on a lease",
		"/p/changed=2 /p/deleted=1 /p/extra=1 /p/same=1 /q/other=2 ")
	o.DeleteExtra = true
	check("with extra", o, "changed refused, newer; extra refused, newer; leased refused, hung on a lease",
		"/p/changed=2 /p/deleted=1 /p/extra=1 /p/same=1 /q/other=2 ")
	o.OverwriteNewer, o.WithoutLease = true, true
	check("all", o, "changed put back; extra deleted; leased put back", "/p/changed=1 /p/deleted=1 /p/leased=1 /p/same=1 /q/other=2 ")
	check("again", o, "", "/p/changed=1 /p/deleted=1 /p/leased=1 /p/same=1 /q/other=2 ")
}

func values(t *testing.T, c *clientv3.Client) string {
	t.Helper()
	r, err := c.Get(t.Context(), "\x00", clientv3.WithFromKey())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, kv := range r.Kvs {
		fmt.Fprintf(&b, "%s=%s ", kv.Key, kv.Value)
	}
	return b.String()
}
