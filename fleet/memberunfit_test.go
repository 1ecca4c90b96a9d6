package fleet_test

import (
	"context"
	"testing"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/memory"
)

// seeing is a driver that sees what a test says, and counts what it is told.
type seeing struct {
	driver.Driver

	seen    v1alpha1.EtcdMemberStatus
	ensured int
}

func (d *seeing) Observe(context.Context, *v1alpha1.EtcdMember) (v1alpha1.EtcdMemberStatus, error) {
	return *d.seen.DeepCopy(), nil
}

func (d *seeing) Ensure(context.Context, *v1alpha1.EtcdMember) (v1alpha1.EtcdMemberStatus, error) {
	d.ensured++
	s := *d.seen.DeepCopy()
	v1alpha1.SetCondition(&s.Conditions, v1alpha1.Condition{Type: v1alpha1.ConditionPrepared, Status: v1alpha1.True, Reason: "Prepared"})
	return s, nil
}

type unheard struct{}

func (unheard) Record(context.Context, store.Event) {}

// TestUnfitHostTakesNobodyNew: a member that is new on an unfit host is not prepared,
// and one that was there before is never touched by what the host is fit for.
func TestUnfitHostTakesNobodyNew(t *testing.T) {
	prepared := []v1alpha1.Condition{{Type: v1alpha1.ConditionPrepared, Status: v1alpha1.True, Reason: "Prepared"}}
	for _, tc := range []struct {
		name   string
		run    v1alpha1.RunPolicy
		before v1alpha1.EtcdMemberStatus
		seen   v1alpha1.EtcdMemberStatus
		comes  bool
	}{
		{"new", v1alpha1.RunPrepared, v1alpha1.EtcdMemberStatus{}, v1alpha1.EtcdMemberStatus{Phase: v1alpha1.MemberPending}, false},
		{"half prepared before", v1alpha1.RunPrepared, v1alpha1.EtcdMemberStatus{Phase: v1alpha1.MemberPending}, v1alpha1.EtcdMemberStatus{Phase: v1alpha1.MemberPrepared}, false},
		{"told to be prepared", v1alpha1.RunPrepared, v1alpha1.EtcdMemberStatus{Conditions: prepared}, v1alpha1.EtcdMemberStatus{Phase: v1alpha1.MemberPrepared}, true},
		{"told to run", v1alpha1.RunRunning, v1alpha1.EtcdMemberStatus{}, v1alpha1.EtcdMemberStatus{Phase: v1alpha1.MemberPrepared}, true},
		{"it runs, and its status was lost", v1alpha1.RunPrepared, v1alpha1.EtcdMemberStatus{}, v1alpha1.EtcdMemberStatus{Phase: v1alpha1.MemberRunning, Process: &v1alpha1.ProcessStatus{PID: 7}}, true},
		{"it ran, and its status was lost", v1alpha1.RunPrepared, v1alpha1.EtcdMemberStatus{}, v1alpha1.EtcdMemberStatus{Phase: v1alpha1.MemberStopped}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx := t.Context()
			s := memory.New(memory.Options{})
			m := &v1alpha1.EtcdMember{}
			m.Namespace, m.Name, m.Spec.Host, m.Spec.Run = "prod", "m", "h", tc.run
			if err := s.Create(ctx, m); err != nil {
				t.Fatal(err)
			}
			m.Status = tc.before
			if err := s.UpdateStatus(ctx, m); err != nil {
				t.Fatal(err)
			}
			d := &seeing{seen: tc.seen}
			why := &fleet.Refusal{Reason: fleet.ReasonHostUnfit, Message: "host h is unfit: its disk is slow"}
			c := fleet.NewMemberController(fleet.MemberOptions{
				Store: s, Driver: d, Recorder: unheard{}, Host: "h",
				MayCome: func(*v1alpha1.EtcdMember) *fleet.Refusal { return why },
			})
			if _, err := c.Reconcile(ctx, store.KeyOf(m)); err != nil {
				t.Fatal(err)
			}
			if came := d.ensured > 0; came != tc.comes {
				t.Errorf("it came: %t, want %t", came, tc.comes)
			}
			if err := s.Get(ctx, store.KeyOf(m), m); err != nil {
				t.Fatal(err)
			}
			cond := v1alpha1.FindCondition(m.Status.Conditions, v1alpha1.ConditionPrepared)
			if !tc.comes && (cond == nil || cond.Status != v1alpha1.False || cond.Reason != fleet.ReasonHostUnfit || cond.Message != why.Message || m.Status.Phase != v1alpha1.MemberPending || m.Status.Message != why.Message) {
				t.Errorf("it says %+v", m.Status)
			}
			if tc.comes {
				return
			}
			// Fit again: it comes.
			why = nil
			if _, err := c.Reconcile(ctx, store.KeyOf(m)); err != nil || d.ensured != 1 {
				t.Errorf("it did not come to a host that is fit: %v", err)
			}
		})
	}
}
