package fleet_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/store"
)

// TestChangeThatHealsAll: a configuration with which no member comes up can be
// replaced by one with which they do.
func TestChangeThatHealsAll(t *testing.T) {
	w := newWorld(3, 3)
	if !w.settle() {
		t.Fatal("not formed")
	}
	for _, p := range w.procs {
		w.broken[p.hash] = true
	}
	w.elect()
	w.disturbed++
	w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Etcd.SnapshotCount = 5000 })
	for range 60 {
		w.reconcile()
		for _, m := range w.members() {
			w.agent(m)
		}
		w.elect()
		if w.asWanted() {
			w.fail(t)
			return
		}
	}
	t.Fatalf("it did not heal: %+v\n%s", w.cluster().Status, strings.Join(w.events, "\n"))
}

// TestRestoredAndDeleted: a cluster that is deleted while it is held stays held,
// and goes when its plan is accepted.
func TestRestoredAndDeleted(t *testing.T) {
	ctx := context.Background()
	w := newWorld(3, 3)
	if !w.settle() {
		t.Fatal("not formed")
	}
	hold := func(o v1alpha1.Object, key store.Key) {
		w.must(store.Mutate(ctx, w.store, key, o, func(o v1alpha1.Object) (bool, error) {
			o.SetAnnotations(map[string]string{v1alpha1.AnnotationRestored: "7"})
			return true, nil
		}))
	}
	for _, m := range w.members() {
		hold(&v1alpha1.EtcdMember{}, store.KeyOf(m))
	}
	c := w.cluster()
	key := store.KeyOf(c)
	hold(&v1alpha1.EtcdCluster{}, key)
	w.must(w.store.Delete(ctx, v1alpha1.KindCluster, key, store.Preconditions{UID: c.UID}))
	for range 10 {
		w.reconcile()
	}
	for _, m := range w.members() {
		if m.DeletionTimestamp != nil {
			t.Fatalf("%s is being deleted though its cluster is held", m.Name)
		}
	}
	plan, err := w.control.Plan(ctx, key, nil)
	if err != nil || plan.HeldReason != fleet.HeldRestored || len(plan.Steps) != 3 {
		t.Fatalf("plan is %+v, %v", plan, err)
	}
	if err := w.control.Accept(ctx, key, plan.Token); err != nil {
		t.Fatal(err)
	}
	if !w.settle() {
		t.Fatal("the deletion was accepted and did not end")
	}
	w.fail(t)
}

// TestAlarmsAndChanges: a full database does not keep a larger quota from being
// rolled out, and data that differ keep every restart back.
func TestAlarmsAndChanges(t *testing.T) {
	for alarm, held := range map[string]bool{"NOSPACE": false, "CORRUPT": true} {
		s := &fleet.State{
			ReadAt: time.Unix(100, 0), Alarms: []etcd.Alarm{{Member: 1, Type: alarm}},
			Cluster: &v1alpha1.EtcdCluster{Spec: v1alpha1.EtcdClusterSpec{Replicas: 3}},
		}
		s.Cluster.Spec.Etcd.SnapshotCount = 5
		for i, name := range []string{"c-1", "c-2", "c-3"} {
			m := &v1alpha1.EtcdMember{Spec: v1alpha1.EtcdMemberSpec{Run: v1alpha1.RunRunning, Bootstrap: &v1alpha1.Bootstrap{}}}
			m.Name = name
			s.Members = append(s.Members, fleet.MemberState{Object: m, HostReady: true, Probe: &fleet.Probe{
				SentAt: time.Unix(101, 0),
				Status: etcd.Status{MemberID: etcd.ID(i + 1), Leader: 1, Errors: []string{alarm}},
			}})
		}
		p := fleet.Plan(s)
		if len(p.Steps) != 4 || (p.Held != "") != held {
			t.Errorf("%s: held %q, steps %d", alarm, p.Held, len(p.Steps))
		}
	}
}
