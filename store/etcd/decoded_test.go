package etcd

import (
	"strconv"
	"testing"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// TestListedObjectsAreTheCallers: what a caller does to a listed object, no other
// list shows, and what was changed meanwhile, every list does.
func TestListedObjectsAreTheCallers(t *testing.T) {
	s := newHome(t).open(t)
	c := &v1alpha1.EtcdCluster{}
	c.Namespace, c.Name, c.Labels = "prod", "a", map[string]string{"team": "a"}
	if err := s.Create(t.Context(), c); err != nil {
		t.Fatalf("Create: %v", err)
	}
	list := func() *v1alpha1.EtcdCluster {
		t.Helper()
		objs, err := s.List(t.Context(), v1alpha1.KindCluster, store.ListOptions{})
		if err != nil || len(objs) != 1 {
			t.Fatalf("List: %d objects, %v", len(objs), err)
		}
		got, ok := objs[0].(*v1alpha1.EtcdCluster)
		if !ok {
			t.Fatalf("listed a %T", objs[0])
		}
		return got
	}
	for i := range 3 {
		first := list()
		first.Labels["team"], first.Spec.Replicas = "spoilt", 99
		second := list()
		if second.Labels["team"] != "a" || second.Spec.Replicas == 99 {
			t.Fatalf("a caller's change is listed: %+v", second)
		}
		second.Status.Ready = strconv.Itoa(i)
		if err := s.UpdateStatus(t.Context(), second); err != nil {
			t.Fatalf("UpdateStatus: %v", err)
		}
		if got := list(); got.Status.Ready != strconv.Itoa(i) || got.ResourceVersion != second.ResourceVersion {
			t.Fatalf("listed %q at %s, want %d at %s", got.Status.Ready, got.ResourceVersion, i, second.ResourceVersion)
		}
	}
}
