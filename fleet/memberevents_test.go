package fleet_test

import (
	"context"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/memory"
)

// heard keeps the reasons of events.
type heard struct{ reasons []string }

func (h *heard) Record(_ context.Context, e store.Event) { h.reasons = append(h.reasons, e.Reason) }

// TestRefusalEventsSayWhat: a member that does not become part of its cluster is not said
// to have a wrong data directory.
func TestRefusalEventsSayWhat(t *testing.T) {
	formed := func(status metav1.ConditionStatus, message string) []v1alpha1.Condition {
		return []v1alpha1.Condition{{Type: v1alpha1.ConditionFormed, Status: status, Reason: "R", Message: message}}
	}
	for _, tc := range []struct {
		want       string
		conditions []v1alpha1.Condition
	}{
		{"FormationRefused", formed(v1alpha1.False, "the token is full")},
		{"DataDirectoryRefused", formed(v1alpha1.True, "")},
		{"DataDirectoryRefused", formed(v1alpha1.False, "etcd does not run yet")},
		{"DataDirectoryRefused", nil},
	} {
		ctx := t.Context()
		s := memory.New(memory.Options{})
		m := &v1alpha1.EtcdMember{}
		m.Namespace, m.Name, m.Spec.Host, m.Spec.Run = "prod", "m", "h", v1alpha1.RunRunning
		if err := s.Create(ctx, m); err != nil {
			t.Fatal(err)
		}
		h := &heard{}
		d := &seeing{seen: v1alpha1.EtcdMemberStatus{Phase: v1alpha1.MemberRefused, Message: "the token is full", Conditions: tc.conditions}}
		c := fleet.NewMemberController(fleet.MemberOptions{Store: s, Driver: d, Recorder: h, Host: "h"})
		if _, err := c.Reconcile(ctx, store.KeyOf(m)); err != nil {
			t.Fatal(err)
		}
		if len(h.reasons) != 1 || h.reasons[0] != tc.want {
			t.Errorf("%+v: events %v, want %s", tc.conditions, h.reasons, tc.want)
		}
	}
}
