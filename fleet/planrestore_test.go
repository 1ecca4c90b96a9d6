package fleet_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/store"
)

// rounds lets everybody act in turn, without waiting for anything.
func (w *world) rounds(n int) {
	for range n {
		w.reconcile()
		w.restoreAll()
		for _, m := range w.members() {
			w.agent(m)
		}
		w.elect()
	}
}

func (w *world) plan(t *testing.T) v1alpha1.Plan {
	t.Helper()
	p, err := w.control.Plan(context.Background(), store.Key{Namespace: "default", Name: "c"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (w *world) formed(t *testing.T) {
	t.Helper()
	if !w.settle() {
		t.Fatalf("not formed:\n%s", strings.Join(w.events, "\n"))
	}
	w.fail(t)
}

// setRestore writes a restore's status as only its controller does.
func (w *world) setRestore(name string, change func(*v1alpha1.EtcdRestoreStatus)) {
	w.must(store.MutateStatus(context.Background(), w.store, store.Key{Namespace: "default", Name: name}, &v1alpha1.EtcdRestore{}, func(r *v1alpha1.EtcdRestore) (bool, error) {
		change(&r.Status)
		return true, nil
	}))
}

// TestUselessNameOfRestore: a name that means no restore to be carried out changes nothing
// about a healthy cluster, save that its plan is held, and says why.
func TestUselessNameOfRestore(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(w *world)
		want    string
	}{
		"there is none": {func(*world) {}, "there is no EtcdRestore undo in namespace default: apply it"},
		"of another cluster": {func(w *world) {
			w.restore("undo", true, func(s *v1alpha1.EtcdRestoreSpec) { s.ClusterName = "other" })
		}, "EtcdRestore undo is for cluster other"},
		"not looked at": {func(w *world) { w.restore("undo", true) }, "EtcdRestore undo is not ready: it has not been looked at yet"},
		"waiting": {func(w *world) {
			w.restore("undo", true)
			w.setRestore("undo", func(st *v1alpha1.EtcdRestoreStatus) {
				st.Phase, st.Message = v1alpha1.RestorePending, "the store is away"
			})
		}, "EtcdRestore undo is not ready: the store is away"},
		"being checked": {func(w *world) {
			w.restore("undo", true)
			w.setRestore("undo", func(st *v1alpha1.EtcdRestoreStatus) { st.Phase = v1alpha1.RestoreChecking })
		}, "EtcdRestore undo is not ready"},
		"failed": {func(w *world) {
			w.restore("undo", true)
			w.setRestore("undo", func(st *v1alpha1.EtcdRestoreStatus) {
				st.Phase, st.Message = v1alpha1.RestoreFailed, "the quota is too small"
			})
		}, "EtcdRestore undo is over (the quota is too small): apply one under another name"},
		"of an earlier cluster": {func(w *world) {
			w.restore("undo", true)
			w.setRestore("undo", func(st *v1alpha1.EtcdRestoreStatus) {
				st.Phase, st.Token = v1alpha1.RestoreRunning, "quorate-another-cluster"
			})
		}, "EtcdRestore undo is over"},
		"not in place": {func(w *world) {
			r := w.restore("undo", false)
			w.setRestore("undo", func(st *v1alpha1.EtcdRestoreStatus) {
				st.Phase, st.Token = v1alpha1.RestoreRunning, "quorate-"+string(w.cluster().UID)+"-"+string(r.UID)
			})
		}, "EtcdRestore undo does not say inPlace"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(3, 3)
			w.formed(t)
			tc.prepare(w)
			before := maps.Clone(w.procs)
			w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.RestoreName, s.Etcd.SnapshotCount = "undo", 5000 })
			orders := w.ordered
			for range 20 {
				w.reconcile()
				for _, m := range w.members() {
					w.agent(m)
				}
			}
			w.fail(t)
			if !maps.Equal(before, w.procs) || w.ordered != orders {
				t.Errorf("something was done: %d orders", w.ordered-orders)
			}
			st := w.cluster().Status
			if st.Summary != "Healthy" || st.Ready != "3/3" || st.ClusterID == "" || len(st.Endpoints) != 3 || !v1alpha1.IsTrue(st.Conditions, v1alpha1.ConditionAvailable) {
				t.Errorf("its status is %+v", st)
			}
			p := w.plan(t)
			if p.HeldReason != fleet.HeldRestore || !strings.Contains(p.Held, "c-1 has the data of no restore, and the cluster names another: "+tc.want) || len(p.Steps) > 0 {
				t.Errorf("its plan is %+v", p)
			}
			if c := v1alpha1.FindCondition(st.Conditions, v1alpha1.ConditionProgressing); c.Status != v1alpha1.False || c.Message != p.Held {
				t.Errorf("%+v", c)
			}
			if w.restored("undo") != nil {
				w.dropRestore("undo")
			}
			w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.RestoreName = "" })
			w.formed(t)
		})
	}
}

// TestRestoreDeletedHalfWay: once an EtcdRestore is gone nothing more is done to a
// cluster that it was to form, however far it was; a restore in place finishes.
func TestRestoreDeletedHalfWay(t *testing.T) {
	for _, inPlace := range []bool{true, false} {
		heldOnce, late := false, false
		for n := range 40 {
			w := newWorld(3, 3)
			if inPlace {
				w.formed(t)
			} else {
				w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.RestoreName = "undo" })
			}
			w.restore("undo", inPlace)
			for w.accepted(w.cluster()) == nil {
				w.restoreAll()
			}
			w.rounds(n)
			if w.restored("undo").Finished() {
				break
			}
			w.dropRestore("undo")
			// What was begun ends: a process that was ordered, a member that was told to go.
			for range 10 {
				w.reconcile()
				for _, m := range w.members() {
					w.agent(m)
				}
				w.elect()
			}
			w.fail(t)
			p := w.plan(t)
			heldOnce = heldOnce || p.Held != ""
			if !w.asWanted() && p.HeldReason != fleet.HeldRestore {
				t.Errorf("after %d rounds: it is not held: %+v", n, p)
			}
			w.restore("again", true)
			if !w.settle() {
				t.Fatalf("after %d rounds: it does not finish: %s\n%s", n, w.plan(t).Held, strings.Join(w.events, "\n"))
			}
			w.fail(t)
			if w.restored("again").Status.Phase != v1alpha1.RestoreCompleted {
				t.Errorf("after %d rounds: %+v", n, w.restored("again").Status)
			}
			late = late || n > 10
		}
		if !heldOnce || !late {
			t.Errorf("in place %t: the test misses its aim: held %t, late %t", inPlace, heldOnce, late)
		}
	}
}

// TestRestorePlanIsWhatHappens: what the plan of a restore in place says is what is done,
// under the names that it says; the new members take the places of the former ones.
func TestRestorePlanIsWhatHappens(t *testing.T) {
	w := newWorld(3, 3)
	w.formed(t)
	was := w.members()
	w.held(func(f *fleet.BackupFound) { f.Of.ClusterID = w.ensembleOf(was[0]).ID })
	w.restore("undo", true)
	for w.accepted(w.cluster()) == nil {
		w.restoreAll()
	}
	before, _ := w.store.list(v1alpha1.KindTask, store.ListOptions{})
	plan := w.plan(t)
	if plan.Held != "" || len(plan.Steps) != 15 {
		t.Fatalf("the plan is %+v", plan)
	}
	if v := w.cluster(); !w.settle() || v == nil {
		t.Fatal("it does not finish")
	}
	w.fail(t)
	var done []*v1alpha1.EtcdTask
	all, _ := w.store.list(v1alpha1.KindTask, store.ListOptions{})
	for _, o := range all {
		if task, ok := o.(*v1alpha1.EtcdTask); ok && !slices.ContainsFunc(before, func(b v1alpha1.Object) bool { return b.GetName() == task.Name }) {
			done = append(done, task)
		}
	}
	slices.SortFunc(done, func(a, b *v1alpha1.EtcdTask) int { return int(a.Spec.Number - b.Spec.Number) })
	if len(done) != len(plan.Steps) {
		t.Fatalf("%d steps were planned and %d taken", len(plan.Steps), len(done))
	}
	for i, step := range plan.Steps {
		if task := done[i].Spec; task.Action != step.Action || task.Member != step.Member {
			t.Errorf("step %d was planned as %s %s, and was %s %s", i, step.Action, step.Member, task.Action, task.Member)
		}
	}
	st := w.restored("undo").Status
	is := w.members()
	for i := range was {
		if is[i].Name != fmt.Sprint("c-", 4+i) || is[i].Spec.Host != was[i].Spec.Host || is[i].Status.Ports != was[i].Status.Ports || is[i].Spec.MemberID == was[i].Spec.MemberID {
			t.Errorf("%s on %s at %+v took the place of %s on %s at %+v", is[i].Name, is[i].Spec.Host, is[i].Status.Ports, was[i].Name, was[i].Spec.Host, was[i].Status.Ports)
		}
		if p := st.Places[i]; p.Member != was[i].Name || p.Host != was[i].Spec.Host || p.Ports != was[i].Status.Ports {
			t.Errorf("place %d is %+v", i, p)
		}
		if b := is[i].Spec.Bootstrap; b.State != v1alpha1.BootstrapRestored || b.Token != st.Token || b.BumpRevision != st.BumpRevision || len(b.InitialCluster) != 3 {
			t.Errorf("%s bootstraps with %+v", is[i].Name, b)
		}
	}
	if st.Phase != v1alpha1.RestoreCompleted || st.LastRevision != servedRevision || st.LostRevisions != servedRevision-archiveRevision || st.Revision <= servedRevision || st.ClusterID == "" || st.ClusterID != w.cluster().Status.ClusterID {
		t.Errorf("the restore says %+v", st)
	}
	if len(w.archive.opened) < 9 {
		t.Errorf("the backup was opened %d times", len(w.archive.opened))
	}
	w.dropRestore("undo")
	w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Etcd.SnapshotCount = 7000 })
	w.formed(t) // what is over is not needed any more
}

// TestPlacesThatAreGone: where a former member's host is away, the new one goes elsewhere.
func TestPlacesThatAreGone(t *testing.T) {
	w := newWorld(3, 3)
	w.formed(t)
	w.restore("undo", true)
	for len(w.members()) != 0 {
		w.rounds(1)
	}
	w.setHost("host-1", false)
	w.rounds(60)
	w.fail(t)
	hosts := map[string]int{}
	for _, m := range w.members() {
		hosts[m.Spec.Host]++
	}
	if hosts["host-0"]+hosts["host-2"] != 3 || !w.restored("undo").Finished() {
		t.Errorf("members are on %v; %s", hosts, w.restored("undo").Status.Message)
	}
}

// TestRestoreWaitsForProof: a former member that nobody can prove to be stopped keeps
// the data of all of them from being renamed aside, and is told.
func TestRestoreWaitsForProof(t *testing.T) {
	w := newWorld(3, 3)
	w.formed(t)
	w.setHost("host-1", false)
	w.restore("undo", true)
	w.rounds(60)
	w.fail(t)
	running := slices.Collect(maps.Keys(w.procs))
	for _, m := range w.members() {
		if m.DeletionTimestamp != nil {
			t.Errorf("%s is deleted", m.Name)
		}
	}
	if len(running) != 1 || len(w.members()) != 3 {
		t.Errorf("%v run", running)
	}
	st := w.cluster().Status
	c := v1alpha1.FindCondition(st.Conditions, v1alpha1.ConditionProgressing)
	if want := "the agent of host host-1 does not report, so it can't be proven that " + running[0] + " is stopped"; !strings.Contains(c.Message, want) {
		t.Errorf("%q, want %q", c.Message, want)
	}
	if want := "3 of its former members are left"; st.Summary != "Restoring" || st.ClusterID != "" || !strings.Contains(w.restored("undo").Status.Message, want) {
		t.Errorf("%s; %q, want %q", st.Summary, w.restored("undo").Status.Message, want)
	}
	w.setHost("host-1", true)
	w.formed(t)
}

// TestRestoreOfBrokenCluster: a change that can't be finished, for which a cluster is
// often restored, does not keep it from being restored.
func TestRestoreOfBrokenCluster(t *testing.T) {
	w := newWorld(3, 3)
	w.formed(t)
	w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Etcd.SnapshotCount = 5000 })
	for range 3 {
		w.rounds(1)
		for _, m := range w.members() {
			w.broken[fleet.WantedHash(w.cluster(), m)] = true
		}
	}
	w.rounds(20)
	if st := w.cluster().Status; st.Ready != "2/3" {
		t.Fatalf("the change did not break a member: %+v", st)
	}
	w.restore("undo", true)
	for n := 0; !w.restored("undo").Finished(); n++ {
		w.rounds(1)
		if n == 60 {
			// The new members have the configuration that broke the former ones.
			if st := w.cluster().Status; w.members()[0].Name != "c-4" || st.Summary != "Restoring" {
				t.Fatalf("it is %s, with %s", st.Summary, w.members()[0].Name)
			}
			w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Etcd.SnapshotCount = 6000 })
		}
		if n > 200 {
			t.Fatalf("it is not restored: %s\n%+v", w.restored("undo").Status.Message, w.cluster().Status.Conditions)
		}
	}
	w.fail(t)
}

// TestSuspendedWhileRestored: a cluster that is suspended half-way is stopped when no
// member is left to be stopped, and goes on when it is resumed.
func TestSuspendedWhileRestored(t *testing.T) {
	for n := 1; ; n++ {
		w := newWorld(3, 3)
		w.formed(t)
		w.restore("undo", true)
		w.rounds(n)
		if w.restored("undo").Finished() {
			if n < 20 {
				t.Errorf("a restore took %d rounds", n)
			}
			return
		}
		w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Suspended = true })
		w.rounds(20)
		w.fail(t)
		if c := v1alpha1.FindCondition(w.cluster().Status.Conditions, v1alpha1.ConditionSuspended); len(w.procs) > 0 || c.Status != v1alpha1.True {
			t.Errorf("after %d rounds: %v run, and it is %+v", n, w.procs, c)
		}
		if r := w.restored("undo"); !r.Finished() && (r.Status.Phase != v1alpha1.RestoreRunning || !strings.Contains(r.Status.Message, "the cluster is suspended, and goes on once spec.suspended is false")) {
			t.Errorf("after %d rounds: %s: %s", n, r.Status.Phase, r.Status.Message)
		}
		w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Suspended = false })
		w.formed(t)
	}
}
