package fleet_test

import (
	"context"
	"testing"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// TestView: a view says what members answer now, in an operator's words.
func TestView(t *testing.T) {
	ctx := context.Background()
	key := store.Key{Namespace: "default", Name: "c"}
	w := newWorld(3, 3)
	if !w.settle() {
		t.Fatal("not formed")
	}
	look := func(state v1alpha1.ClusterState, healthy int) v1alpha1.ClusterView {
		t.Helper()
		v, err := w.control.View(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, m := range v.Members {
			if m.Healthy {
				n++
			}
			if m.Healthy == (m.Message != "") || m.Healthy && !m.Answered {
				t.Errorf("member %+v", m)
			}
		}
		if v.State != state || n != healthy || len(v.Members) != 3 {
			t.Errorf("state %s with %d healthy, want %s with %d: %+v", v.State, n, state, healthy, v)
		}
		return v
	}
	v := look(v1alpha1.StateHealthy, 3)
	if v.Leader == "" || v.Members[0].Name != "c-1" || v.Members[0].ID == "" {
		t.Errorf("view is %+v", v)
	}
	delete(w.procs, "c-2")
	w.elect()
	look(v1alpha1.StateDegraded, 2)
	delete(w.procs, "c-3")
	w.elect()
	v = look(v1alpha1.StateUnavailable, 0)
	if v.Leader != "" || v.Message == "" {
		t.Errorf("without a quorum: %+v", v)
	}
}
