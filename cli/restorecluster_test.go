package cli

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/servertest"
	"github.com/quorate/quorate/store"
)

func TestRestoreClusterFlags(t *testing.T) {
	const in = "restore cluster a "
	for _, tc := range []struct{ args, stderr string }{
		{"restore cluster", "NAME is missing"},
		{"restore cluster a b --backup c", `"b" is one argument too many`},
		{in, "it is not said from what: --backup names an EtcdBackup (`quorate get backups` lists them)"},
		{in + "--backup b --store s3://c", "give one of them"},
		{in + "--store ./here", `--store is "./here": give a URL`},
		{in + "--policy p --object x", "--object is a snapshot in a store: name that with --store"},
		{in + "--policy p --credentials-secret s", "belong to --store"},
		{in + "--backup b --identity-secret s", "belong to --store"},
		{in + "--store s3://c --destination d", "--destination chooses among those of a policy or a backup"},
		{in + "--backup b --point latest", "--backup names one backup: leave"},
		{in + "--backup b --of c", "--backup names one backup: leave"},
		{in + "--store s3://c --object x --of c", "--object names one snapshot: leave"},
		{in + "--policy p --point 12345678 --not-after 2026-11-21T03:00:00Z", "an ID names one backup"},
		{in + "--policy p --not-after yesterday", `--not-after is "yesterday": give a time such as`},
		{in + "--policy p --bump-revision some", `--bump-revision is "some": give auto, or a number`},
		{in + "--policy p --bump-revision -1", `--bump-revision is "-1"`},
		{in + "--policy p --no-proof=", "--no-proof is empty: say in a sentence why"},
		{in + "--store s3://c --object x --no-proof hurry", "read whole and checked, and not tried"},
		{in + "--policy p --in-place --version 3.7.3", "--in-place is for one that exists: leave them out"},
		{in + "--policy p --replicas 0", "--replicas is 0: choose 1 to 9"},
		{in + "--policy p -o wide", `--output is "wide"`},
		{in + "--policy p --timeout 5", `--timeout is "5": give a duration`},
	} {
		t.Run(tc.args, func(t *testing.T) {
			code, _, stderr := run(t, strings.Fields(tc.args)...)
			if code != exitUsage || !strings.Contains(stderr, tc.stderr) {
				t.Errorf("exit code %d, want %d; stderr %q, want %q in it", code, exitUsage, stderr, tc.stderr)
			}
		})
	}
}

func TestRestoreName(t *testing.T) {
	now := time.Date(2026, 11, 21, 3, 4, 5, 0, time.FixedZone("", 3600))
	for name, want := range map[string]string{
		"prod":                                  "prod-restore-20261121-020405",
		strings.Repeat("a", 48):                 strings.Repeat("a", 39) + "-restore-20261121-020405",
		strings.Repeat("a", 38) + "-b-and-more": strings.Repeat("a", 38) + "-restore-20261121-020405",
	} {
		if got := restoreName(name, now); got != want || len(got) > 63 {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

func TestWhatIsLost(t *testing.T) {
	places := []v1alpha1.RestorePlace{{Member: "a-1", Host: "h"}}
	for _, tc := range []struct {
		name string
		seen v1alpha1.EtcdRestoreStatus
		now  string
		want string
	}{
		{"new", v1alpha1.EtcdRestoreStatus{}, "", "nothing: no member is replaced"},
		{"nobody answers", v1alpha1.EtcdRestoreStatus{Places: places}, "ab", "nobody knows how much"},
		{"as it is", v1alpha1.EtcdRestoreStatus{Places: places, LastRevision: 7}, "ab", "nothing: the cluster is at revision 7"},
		{"one", v1alpha1.EtcdRestoreStatus{Places: places, LastRevision: 8, LostRevisions: 1}, "ab", "1 revision: the cluster is at revision 8"},
		{"another cluster since", v1alpha1.EtcdRestoreStatus{Places: places, LastRevision: 1e6, LostRevisions: 1e6}, "cd", "can't be told"},
	} {
		r := &restoreOrder{target: &v1alpha1.EtcdCluster{}, seen: &tc.seen}
		r.target.Status.ClusterID, r.seen.Point = tc.now, &v1alpha1.RestorePoint{ClusterID: "ab"}
		if got := r.lostText(); !strings.Contains(got, tc.want) {
			t.Errorf("%s: %q, want %q in it", tc.name, got, tc.want)
		}
	}
}

// outlook plays what knows of backups.
type outlook struct{ f *servertest.Fixture }

func (o *outlook) Preview(ctx context.Context, r *v1alpha1.EtcdRestore) (*v1alpha1.EtcdRestore, error) {
	r = r.DeepCopy()
	r.Status.Phase, r.Status.Message = v1alpha1.RestoreRunning, "it would begin"
	if o.f.Store.Get(ctx, store.Key{Namespace: r.Namespace, Name: r.Spec.ClusterName}, &v1alpha1.EtcdCluster{}) != nil {
		r.Status.Phase, r.Status.Message = v1alpha1.RestorePending, "there is no EtcdCluster"
	}
	r.Status.Point = &v1alpha1.RestorePoint{ID: "20261121T030405Z-r0000000000000000007-0a1b2c3d", Revision: 7, EtcdVersion: "3.7.1"}
	return r, nil
}

// restoring is a server that restores nothing by itself. While broken is set it takes
// clusters and no restores.
func restoring(t *testing.T) (f *servertest.Fixture, broken *atomic.Bool) {
	t.Helper()
	broken = &atomic.Bool{}
	known := &outlook{}
	f = servertest.New(t, func(o *server.Options) {
		o.Restores = known
		st := o.Store
		o.Admit = func(ctx context.Context, obj, _ v1alpha1.Object) error {
			r, ok := obj.(*v1alpha1.EtcdRestore)
			if !ok || !broken.Load() {
				return nil
			}
			// What is only looked at comes before the cluster.
			objs, err := st.List(ctx, v1alpha1.KindCluster, store.ListOptions{Namespace: r.Namespace})
			if err == nil && len(objs) > 0 {
				err = fmt.Errorf("no restore today: %w", store.ErrForbidden)
			}
			return err
		}
	})
	known.f = f
	t.Setenv(envServer, f.URL)
	t.Setenv(envToken, f.Token(t, server.RoleAdmin, ""))
	t.Setenv(envCAFile, "")
	t.Setenv(envDataDir, t.TempDir())
	return f, broken
}

func ordered(ctx context.Context, args string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = Main(ctx, append([]string{"quorate", "restore", "cluster"}, strings.Fields(args)...), Stdio{In: eof{}, Out: &out, Err: &errs})
	return code, out.String(), errs.String()
}

// TestRestoreHalfOrdered: where the cluster was created and the restore could not be, it
// is said what there is, and the same command goes on from there.
func TestRestoreHalfOrdered(t *testing.T) {
	f, broken := restoring(t)
	broken.Store(true)
	const command = "prod --store file:///backups --version 3.7.3 --replicas 1 --wait=false"
	code, stdout, stderr := ordered(t.Context(), command)
	if code != exitRefused || stdout != "etcdcluster/prod created\n" || !strings.Contains(stderr, "no restore today") ||
		!strings.Contains(stderr, "etcdcluster/prod was created, has no members, and waits for an EtcdRestore of the name prod-restore-") ||
		!strings.Contains(stderr, "delete cluster prod --yes`") {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	broken.Store(false)
	if code, stdout, stderr = ordered(t.Context(), command); code != exitOK || strings.Contains(stdout, "etcdcluster/prod created") {
		t.Fatalf("once more: exit code %d, %q, %q", code, stdout, stderr)
	}
	cluster, r := &v1alpha1.EtcdCluster{}, &v1alpha1.EtcdRestore{}
	if err := f.Store.Get(t.Context(), store.Key{Namespace: "default", Name: "prod"}, cluster); err != nil {
		t.Fatal(err)
	}
	if err := f.Store.Get(t.Context(), store.Key{Namespace: "default", Name: cluster.Spec.RestoreName}, r); err != nil {
		t.Fatalf("the cluster waits for %q: %v", cluster.Spec.RestoreName, err)
	}
	if r.Spec.Source.Point != "20261121T030405Z-r0000000000000000007-0a1b2c3d" {
		t.Errorf("the order is for %q, not for the backup that was looked at", r.Spec.Source.Point)
	}
	if code, _, stderr = ordered(t.Context(), command); code != exitRefused || !strings.Contains(stderr, "etcdcluster/prod exists: give --in-place") {
		t.Errorf("a third time: exit code %d, %q", code, stderr)
	}
}

// TestRestoreLikeTheOther: a new cluster is like the one that was backed up, without what
// is that one's alone.
func TestRestoreLikeTheOther(t *testing.T) {
	f, _ := restoring(t)
	other := servertest.Cluster("far", "orders")
	other.Spec.Replicas, other.Spec.Ports, other.Spec.DeletionPolicy = 5, &v1alpha1.Ports{Client: 2379, Peer: 2380, Metrics: 2381}, v1alpha1.DeletionDelete
	other.Spec.Suspended, other.Spec.RestoreName = true, "before"
	f.Create(t, other)
	if code, _, stderr := ordered(t.Context(), "copy --store file:///backups --of far/orders --wait=false"); code != exitOK {
		t.Fatalf("exit code %d, %q", code, stderr)
	}
	made := &v1alpha1.EtcdCluster{}
	if err := f.Store.Get(t.Context(), store.Key{Namespace: "default", Name: "copy"}, made); err != nil {
		t.Fatal(err)
	}
	s := made.Spec
	if s.Replicas != 5 || s.Version != other.Spec.Version || s.DeletionPolicy != v1alpha1.DeletionDelete || s.Ports != nil || s.Suspended || !strings.HasPrefix(s.RestoreName, "copy-restore-") {
		t.Errorf("it is %+v", s)
	}
}

// TestRestoreWaits: who is interrupted is told that the restore goes on, and one that
// fails is told with what is left of it.
func TestRestoreWaits(t *testing.T) {
	f, _ := restoring(t)
	began := func(name string) *v1alpha1.EtcdRestore {
		r := &v1alpha1.EtcdRestore{}
		deadline := time.Now().Add(20 * time.Second)
		for f.Store.Get(t.Context(), store.Key{Namespace: "default", Name: name}, r) != nil {
			if time.Now().After(deadline) {
				t.Errorf("%s was not ordered", name)
				return nil
			}
			<-time.After(10 * time.Millisecond)
		}
		return r
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		began("r1")
		cancel()
	}()
	code, _, stderr := ordered(ctx, "one --store file:///backups --version 3.7.3 --restore-name r1")
	if code != exitFailed || !strings.Contains(stderr, "cancelled: the wait is over, and the restore goes on: `") || !strings.Contains(stderr, "describe restore r1`") {
		t.Errorf("interrupted: exit code %d, %q", code, stderr)
	}
	go func() {
		if r := began("r2"); r != nil {
			r.Status.Phase, r.Status.Message = v1alpha1.RestoreFailed, "the backup is rotten; nothing was touched"
			if err := f.Store.UpdateStatus(t.Context(), r); err != nil {
				t.Error(err)
			}
		}
	}()
	code, _, stderr = ordered(t.Context(), "two --store file:///backups --version 3.7.3 --restore-name r2")
	if code != exitFailed || !strings.Contains(stderr, "error: etcdrestore/r2 failed: the backup is rotten; nothing was touched\n") || !strings.Contains(stderr, "delete cluster two --yes` removes it") {
		t.Errorf("failed: exit code %d, %q", code, stderr)
	}
}
