package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

func restoreOf(name, cluster, more string) string {
	return "apiVersion: quorate.io/v1alpha1\nkind: EtcdRestore\nmetadata: {name: " + name + "}\nspec: {clusterName: " + cluster + ", " + more + "}\n"
}

func clusterOf(name string, members int, more string) string {
	return "apiVersion: quorate.io/v1alpha1\nkind: EtcdCluster\nmetadata: {name: " + name + "}\nspec: {version: 3.7.3, replicas: " +
		strconv.Itoa(members) + ", etcd: {initialCorruptCheck: false}" + more + "}\n"
}

// awaitRestore waits until a restore is over.
func (u *upped) awaitRestore(name string) v1alpha1.EtcdRestoreStatus {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), 3*time.Minute)
	defer cancel()
	r := &v1alpha1.EtcdRestore{}
	eventually(ctx, u.t, func() (bool, string) {
		if err := u.client.Get(ctx, store.Key{Namespace: "default", Name: name}, r); err != nil {
			return false, err.Error()
		}
		return r.Finished(), fmt.Sprintf("%s is %s: %s", name, r.Status.Phase, r.Status.Message)
	})
	return r.Status
}

// awaitCluster waits until a cluster serves with all of its members.
func (u *upped) awaitCluster(name string) *v1alpha1.EtcdCluster {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), 2*time.Minute)
	defer cancel()
	c := &v1alpha1.EtcdCluster{}
	eventually(ctx, u.t, func() (bool, string) {
		if err := u.client.Get(ctx, store.Key{Namespace: "default", Name: name}, c); err != nil {
			return false, err.Error()
		}
		return c.Status.Summary == "Healthy" && c.Status.ClusterID != "", fmt.Sprintf("%s: %+v", name, c.Status)
	})
	return c
}

// membersOf a cluster, by name.
func (u *upped) membersOf(cluster string) map[string]*v1alpha1.EtcdMember {
	u.t.Helper()
	objects, err := u.client.List(u.t.Context(), v1alpha1.KindMember, store.ListOptions{Namespace: "default", Labels: map[string]string{v1alpha1.LabelCluster: cluster}})
	must(u.t, err)
	all := map[string]*v1alpha1.EtcdMember{}
	for _, o := range objects {
		if m, ok := o.(*v1alpha1.EtcdMember); ok {
			all[m.Name] = m
		}
	}
	return all
}

func pids(members map[string]*v1alpha1.EtcdMember) string {
	var b strings.Builder
	for _, name := range []string{"prod-1", "prod-2", "prod-3"} {
		if m := members[name]; m != nil && m.Status.Process != nil {
			fmt.Fprintf(&b, "%s %d; ", name, m.Status.Process.PID)
		}
	}
	return b.String()
}

// data is what an etcd has, without its revision.
func data(t *testing.T, c *clientv3.Client) (text string, revision int64) {
	t.Helper()
	text = everything(t, c)
	_, keys, _ := strings.Cut(text, "\n")
	r, err := c.Get(t.Context(), "none")
	must(t, err)
	return keys, r.Header.Revision
}

// TestRestore: a backup becomes a new cluster, and takes the place of what an existing
// one holds, at the same addresses; what is older than the restored revision counts as
// compacted, and the old data is renamed aside. What can't be restored touches nothing,
// and a server that dies on the way is followed by one that finishes.
func TestRestore(t *testing.T) {
	dir, vault := t.TempDir(), filepath.Join(t.TempDir(), "vault")
	must(t, os.Mkdir(vault, 0o700))
	u := bringUp(t, dir)
	must(t, u.apply(clusterOf("prod", 3, "")))
	old := u.awaitCluster("prod")
	c := u.etcd("prod")
	lease, err := c.Grant(t.Context(), 3600)
	must(t, err)
	for i := range 300 {
		_, err = c.Put(t.Context(), fmt.Sprintf("/key/%03d", i%200), fmt.Sprint("value ", i), clientv3.WithLease(lease.ID))
		must(t, err)
	}
	want, _ := data(t, c)
	where := "destination: {name: vault, url: 'file://" + vault + "'}"
	must(t, u.apply(backupOf("good", "prod", "destinations: [{name: vault, url: 'file://"+vault+"'}]")))
	if st := u.awaitBackup("good"); st.Phase != v1alpha1.BackupVerified {
		t.Fatalf("the backup is %+v", st)
	}
	for i := range 100 {
		_, err = c.Put(t.Context(), fmt.Sprintf("/key/%03d", i), "later")
		must(t, err)
	}
	_, seen := data(t, c)

	// Into a new cluster, whose spec names the restore: in either order.
	must(t, u.apply(clusterOf("copy", 1, ", restoreName: to-copy")))
	must(t, u.apply(restoreOf("to-copy", "copy", "source: {backupName: good}")))
	st := u.awaitRestore("to-copy")
	if st.Phase != v1alpha1.RestoreCompleted || st.Point == nil || st.Point.Keys != 200 {
		t.Fatalf("the restore into a new cluster is %+v", st)
	}
	got, revision := data(t, u.etcd("copy"))
	if got != want || revision < st.Revision {
		t.Errorf("the new cluster is at revision %d and has\n%.300s\nnot\n%.300s", revision, got, want)
	}
	leases, err := u.etcd("copy").Leases(t.Context())
	must(t, err)
	if len(leases.Leases) != 1 || leases.Leases[0].ID != lease.ID {
		t.Errorf("the new cluster has the leases %v, not %x", leases.Leases, lease.ID)
	}

	before := u.membersOf("prod")
	u.refused(vault, seen)
	if now := u.membersOf("prod"); pids(now) != pids(before) || len(now) != 3 {
		t.Errorf("what was refused has touched the members: %s, before %s", pids(now), pids(before))
	}
	u.inPlace(dir, old, before, where, want, seen)
}

// refused: what can't be restored says why, and touches nothing.
func (u *upped) refused(vault string, seen int64) {
	t := u.t
	for _, tt := range []struct{ name, spec, text string }{
		{"no-leave", "source: {backupName: good}", "say inPlace: true"},
		{"low", "inPlace: true, bumpRevision: 0, source: {backupName: good}", fmt.Sprintf("clients have seen up to %d", seen)},
		{"none", "inPlace: true, source: {destination: {name: vault, url: 'file://" + vault + "'}, point: 0000000a}", "there is no such backup"},
	} {
		must(t, u.apply(restoreOf(tt.name, "prod", tt.spec)))
		if st := u.awaitRestore(tt.name); st.Phase != v1alpha1.RestoreFailed || !strings.Contains(st.Message, tt.text) {
			t.Errorf("%s is %s: %s", tt.name, st.Phase, st.Message)
		}
	}
	// A backup that nobody has proven is restored into a scratch etcd first, and a rotten one
	// fails there.
	rotten := filepath.Join(filepath.Dir(vault), "rotten")
	must(t, os.Mkdir(rotten, 0o700))
	must(t, u.apply(backupOf("unproven", "prod", "destinations: [{name: rotten, url: 'file://"+rotten+"'}], proof: {mode: Never, reason: it is about to rot}")))
	if st := u.awaitBackup("unproven"); st.Phase != v1alpha1.BackupTaken {
		t.Fatalf("the unproven backup is %+v", st)
	}
	rot(t, rotten)
	must(t, u.apply(restoreOf("from-rotten", "prod", "inPlace: true, source: {backupName: unproven}")))
	if st := u.awaitRestore("from-rotten"); st.Phase != v1alpha1.RestoreFailed || !strings.Contains(st.Message, "nothing was touched") {
		t.Errorf("from a rotten backup it is %s: %s", st.Phase, st.Message)
	}
}

// rot alters one byte in the middle of the stored snapshot.
func rot(t *testing.T, dir string) {
	t.Helper()
	n := 0
	must(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || !strings.HasPrefix(info.Name(), "snapshot.db") {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		raw[len(raw)/2] ^= 1
		n++
		return os.WriteFile(path, raw, 0o600)
	}))
	if n != 1 {
		t.Fatalf("%d snapshots lie in %s", n, dir)
	}
}

// inPlace restores prod in place, with the server stopped on the way.
func (u *upped) inPlace(dir string, old *v1alpha1.EtcdCluster, before map[string]*v1alpha1.EtcdMember, where, want string, seen int64) {
	t := u.t
	watcher := u.etcd("prod")
	must(t, u.apply(restoreOf("back", "prod", "inPlace: true, source: {clusterName: prod, "+where+"}")))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	eventually(ctx, t, func() (bool, string) {
		now := u.membersOf("prod")
		return now["prod-4"] != nil, fmt.Sprintf("%d members, none of them new", len(now))
	})
	u.stop()
	u = bringUp(t, dir)
	st := u.awaitRestore("back")
	if st.Phase != v1alpha1.RestoreCompleted || st.LastRevision < seen || st.LostRevisions < 100 || st.Revision <= seen {
		t.Fatalf("the restore in place is %+v", st)
	}
	now := u.awaitCluster("prod")
	if now.Status.ClusterID == old.Status.ClusterID || now.Status.ClusterID != st.ClusterID {
		t.Errorf("the cluster ID was %s, is %s, and the restore says %s", old.Status.ClusterID, now.Status.ClusterID, st.ClusterID)
	}
	if a, b := strings.Join(old.Status.Endpoints, " "), strings.Join(now.Status.Endpoints, " "); a != b {
		t.Errorf("clients reached it at %s, and now at %s", a, b)
	}
	got, revision := data(t, u.etcd("prod"))
	if got != want || revision < st.Revision {
		t.Errorf("restored in place, it is at revision %d and has\n%.300s\nnot\n%.300s", revision, got, want)
	}
	// Who has seen the old cluster's last revision is told that it is gone, rather than left
	// waiting for the next one.
	missed := watcher.Watch(clientv3.WithRequireLeader(t.Context()), "/key/", clientv3.WithPrefix(), clientv3.WithRev(seen+1))
	if first := <-missed; !errors.Is(first.Err(), rpctypes.ErrCompacted) {
		t.Errorf("a client that has seen revision %d is told %v", seen, first.Err())
	}
	for name, m := range before {
		found, err := filepath.Glob(filepath.Join(dir, "retired", "default."+name+".*[0-9]Z"))
		must(t, err)
		if len(found) != 1 {
			t.Errorf("the data of %s (%s) is not aside: %v", name, m.Status.DataDir, found)
		}
	}
}

// TestAuthIsOn: where users are asked for, a backup says which one it needs, and a restore
// in place keeps them.
func TestAuthIsOn(t *testing.T) {
	vault := filepath.Join(t.TempDir(), "vault")
	must(t, os.Mkdir(vault, 0o700))
	u := bringUp(t, t.TempDir())
	c := u.etcd("playground")
	_, err := c.Put(t.Context(), "/a", "b")
	must(t, err)
	// The test's own certificate is of a user with all rights, and the server's is not yet.
	for _, name := range []string{"root", "test"} {
		_, err = c.UserAddWithOptions(t.Context(), name, "", &clientv3.UserAddOptions{NoPassword: true})
		must(t, err)
		_, err = c.UserGrantRole(t.Context(), name, "root")
		must(t, err)
	}
	_, err = c.AuthEnable(t.Context())
	must(t, err)
	where := "destinations: [{name: vault, url: 'file://" + vault + "'}]"
	must(t, u.apply(backupOf("no-user", "playground", where)))
	if st := u.awaitBackup("no-user"); st.Phase != v1alpha1.BackupFailed || !strings.Contains(st.Message, "`etcdctl user add quorate-server --no-password`") {
		t.Errorf("without a user it is %s: %s", st.Phase, st.Message)
	}
	_, err = c.UserAddWithOptions(t.Context(), "quorate-server", "", &clientv3.UserAddOptions{NoPassword: true})
	must(t, err)
	must(t, u.apply(backupOf("no-role", "playground", where)))
	if st := u.awaitBackup("no-role"); st.Phase != v1alpha1.BackupFailed || !strings.Contains(st.Message, "`etcdctl user grant-role quorate-server root`") {
		t.Errorf("without the role it is %s: %s", st.Phase, st.Message)
	}
	_, err = c.UserGrantRole(t.Context(), "quorate-server", "root")
	must(t, err)
	must(t, u.apply(backupOf("allowed", "playground", where)))
	if st := u.awaitBackup("allowed"); st.Phase != v1alpha1.BackupVerified {
		t.Fatalf("with user and role it is %s: %s", st.Phase, st.Message)
	}
	must(t, u.apply(restoreOf("back", "playground", "inPlace: true, source: {backupName: allowed}")))
	if st := u.awaitRestore("back"); st.Phase != v1alpha1.RestoreCompleted {
		t.Fatalf("the restore is %s: %s", st.Phase, st.Message)
	}
	again := u.etcd("playground")
	r, err := again.Get(t.Context(), "/a")
	must(t, err)
	users, err := again.UserList(t.Context())
	must(t, err)
	if len(r.Kvs) != 1 || len(users.Users) != 3 {
		t.Errorf("the restored cluster has %v and the users %v", r.Kvs, users.Users)
	}
	must(t, u.apply(backupOf("after", "playground", where)))
	if st := u.awaitBackup("after"); st.Phase != v1alpha1.BackupVerified {
		t.Errorf("after the restore it is %s: %s", st.Phase, st.Message)
	}
}
