package memory_test

import (
	"testing"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/memory"
	"github.com/quorate/quorate/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		t.Helper()
		return storetest.Harness{Store: memory.New(memory.Options{})}
	})
}

// TestUID: who gives UIDs gets the same ones from a store that is made anew.
func TestUID(t *testing.T) {
	own := func(kind v1alpha1.Kind, key store.Key) v1alpha1.UID {
		if kind.Kind == v1alpha1.KindHost.Kind {
			return ""
		}
		return v1alpha1.UID(kind.Plural + "/" + key.String())
	}
	var hosts []v1alpha1.UID
	for range 2 {
		s := memory.New(memory.Options{UID: own})
		c, h := &v1alpha1.EtcdCluster{}, &v1alpha1.EtcdHost{}
		c.Namespace, c.Name, h.Name = "prod", "a", "h"
		for _, obj := range []v1alpha1.Object{c, h} {
			if err := s.Create(t.Context(), obj); err != nil {
				t.Fatal(err)
			}
		}
		if c.UID != "etcdclusters/prod/a" {
			t.Errorf("the cluster's UID is %q", c.UID)
		}
		hosts = append(hosts, h.UID)
	}
	if hosts[0] == "" || hosts[0] == hosts[1] {
		t.Errorf("the hosts' UIDs are %q", hosts)
	}
}
