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

// TestRestoredPlanTellsAll: what the hosts will do by themselves once a restored
// cluster is accepted stands in the plan that a person reads.
func TestRestoredPlanTellsAll(t *testing.T) {
	member := func(name string, run v1alpha1.RunPolicy, phase v1alpha1.MemberPhase, p *v1alpha1.ProcessStatus) fleet.MemberState {
		m := &v1alpha1.EtcdMember{Spec: v1alpha1.EtcdMemberSpec{Run: run, Bootstrap: &v1alpha1.Bootstrap{}}}
		m.Name, m.Status.Phase, m.Status.Process = name, phase, p
		return fleet.MemberState{Object: m, HostReady: true}
	}
	hash := v1alpha1.MemberConfigHash(&v1alpha1.EtcdMemberSpec{Run: v1alpha1.RunRunning, Bootstrap: &v1alpha1.Bootstrap{}})
	s := &fleet.State{
		Cluster: &v1alpha1.EtcdCluster{Spec: v1alpha1.EtcdClusterSpec{Replicas: 3}},
		Members: []fleet.MemberState{
			member("c-1", v1alpha1.RunRunning, v1alpha1.MemberStopped, nil),
			member("c-2", v1alpha1.RunRunning, v1alpha1.MemberRunning, &v1alpha1.ProcessStatus{ConfigHash: hash}),
			member("c-3", v1alpha1.RunRunning, v1alpha1.MemberRunning, &v1alpha1.ProcessStatus{ConfigHash: "another"}),
		},
	}
	if p := fleet.Plan(s); len(p.Steps) != 0 {
		t.Fatalf("without a restore: %+v", p.Steps)
	}
	s.Cluster.Annotations = map[string]string{v1alpha1.AnnotationRestored: "7"}
	p := fleet.Plan(s)
	if len(p.Steps) != 2 || p.Steps[0].Action != v1alpha1.ActionStartMember || p.Steps[0].Member != "c-1" ||
		p.Steps[1].Action != v1alpha1.ActionUpdateMember || p.Steps[1].Member != "c-3" {
		t.Errorf("steps are %+v", p.Steps)
	}
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

// TestSilentHosts: members that answer while nobody looks after them are no
// healthy cluster.
func TestSilentHosts(t *testing.T) {
	ctx := context.Background()
	w := newWorld(3, 3)
	if !w.settle() {
		t.Fatal("not formed")
	}
	for ready, summary := range map[bool]string{false: "HostsNotReady", true: "Healthy"} {
		status := v1alpha1.Unknown
		if ready {
			status = v1alpha1.True
		}
		w.must(store.MutateStatus(ctx, w.store, store.Key{Name: "host-1"}, &v1alpha1.EtcdHost{}, func(h *v1alpha1.EtcdHost) (bool, error) {
			return v1alpha1.SetCondition(&h.Status.Conditions, v1alpha1.Condition{
				Type: v1alpha1.ConditionReady, Status: status, Reason: "Test",
			}), nil
		}))
		w.reconcile()
		if is := w.cluster().Status.Summary; is != summary {
			t.Errorf("with a host ready %t: %s, want %s: %+v", ready, is, summary, w.cluster().Status.Conditions)
		}
	}
	w.fail(t)
}
