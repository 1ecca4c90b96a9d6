// Package storetest is the suite that every implementation of store.Store passes.
// An implementation that passes it can take the place of any other.
package storetest

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// Harness is a store under test. Each test has one of its own, empty.
type Harness struct {
	// Store under test.
	Store store.Store
	// Other reaches the same objects and is not cut off by Disconnect; nil means Store.
	Other store.Store
	// Compact drops the history below, so that a watch can't resume from before; nil
	// where there is none to drop.
	Compact func()
	// Disconnect breaks what watches of Store stand on until reconnect is called; nil
	// where nothing can break.
	Disconnect func() (reconnect func())
}

const (
	namespace = "prod"
	// patience is how long a test waits for what must come.
	patience = 30 * time.Second
	long     = 3 * time.Minute
)

// Run runs the suite. Open makes an empty store, and leaves its clean-up to t.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	t.Helper()
	tests := []struct {
		name string
		run  func(t *testing.T, h Harness)
	}{
		{"CreateAndGet", testCreateAndGet},
		{"CreateExists", testCreateExists},
		{"Invalid", testInvalid},
		{"GetIsLinearizable", testGetIsLinearizable},
		{"UpdateChecks", testUpdateChecks},
		{"Generation", testGeneration},
		{"UpdateIgnoresStatus", testUpdateIgnoresStatus},
		{"UpdateStatusIgnoresTheRest", testUpdateStatusIgnoresTheRest},
		{"StoreOwnsMetadata", testStoreOwnsMetadata},
		{"EqualWritesNothing", testEqualWritesNothing},
		{"Delete", testDelete},
		{"Finalizers", testFinalizers},
		{"Recreated", testRecreated},
		{"List", testList},
		{"ClusterScoped", testClusterScoped},
		{"Prefixes", testPrefixes},
		{"Secret", testSecret},
		{"Mutate", testMutate},
		{"EndedContext", testEndedContext},
		{"Watch", testWatch},
		{"WatchNamespace", testWatchNamespace},
		{"WatchAcrossDisconnection", testWatchAcrossDisconnection},
		{"WatchAcrossCompaction", testWatchAcrossCompaction},
		{"WatchSlowReader", testWatchSlowReader},
		{"WatchCloses", testWatchCloses},
		{"TenThousand", testTenThousand},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := open(t)
			if h.Other == nil {
				h.Other = h.Store
			}
			tt.run(t, h)
		})
	}
}

// within bounds a test, so that a store that hangs fails it.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// clusterJSON is valid under the schema as it stands, for stores that hold it
// against that.
const clusterJSON = `{
  "spec": {
    "version": "3.7.3", "replicas": 3, "deletionPolicy": "Retain", "retainFor": "168h",
    "tls": {"mode": "Generated", "leafValidity": "8760h"},
    "etcd": {
      "quotaBackend": "8Gi", "maxRequest": "1536Ki", "maxTxnOps": 128, "snapshotCount": 10000,
      "heartbeatInterval": "100ms", "electionTimeout": "1s",
      "autoCompaction": {"mode": "Periodic", "retention": "5m"},
      "logging": {"level": "info", "maxSize": 64, "maxBackups": 4}
    }
  }
}`

func newCluster(t *testing.T, namespace, name string) *v1alpha1.EtcdCluster {
	t.Helper()
	c := &v1alpha1.EtcdCluster{}
	if err := json.Unmarshal([]byte(clusterJSON), c); err != nil {
		t.Fatalf("the suite's own cluster: %v", err)
	}
	c.Namespace, c.Name = namespace, name
	return c
}

func newHost(name string) *v1alpha1.EtcdHost {
	h := &v1alpha1.EtcdHost{}
	h.Name = name
	h.Spec.Address = "127.0.0.1"
	return h
}

func newSecret(name string) *v1alpha1.Secret {
	s := &v1alpha1.Secret{}
	s.Namespace, s.Name = namespace, name
	return s
}

// create creates obj and fails the test if it can't.
func create[T v1alpha1.Object](ctx context.Context, t *testing.T, s store.Store, obj T) T {
	t.Helper()
	if err := s.Create(ctx, obj); err != nil {
		t.Fatalf("Create: %v", err)
	}
	return obj
}

func getCluster(ctx context.Context, t *testing.T, s store.Store, key store.Key) *v1alpha1.EtcdCluster {
	t.Helper()
	c := &v1alpha1.EtcdCluster{}
	if err := s.Get(ctx, key, c); err != nil {
		t.Fatalf("Get %s: %v", key, err)
	}
	return c
}

// remove deletes obj as it stands.
func remove(ctx context.Context, t *testing.T, s store.Store, obj v1alpha1.Object) {
	t.Helper()
	err := s.Delete(ctx, v1alpha1.KindOf(obj), store.KeyOf(obj), store.Preconditions{UID: obj.GetUID()})
	if err != nil {
		t.Fatalf("Delete %s: %v", store.KeyOf(obj), err)
	}
}

// touch changes the object's status in the store.
func touch(ctx context.Context, t *testing.T, s store.Store, key store.Key, text string) {
	t.Helper()
	err := store.MutateStatus(ctx, s, key, &v1alpha1.EtcdCluster{}, func(c *v1alpha1.EtcdCluster) (bool, error) {
		c.Status.Summary = text
		return true, nil
	})
	if err != nil {
		t.Fatalf("touch %s: %v", key, err)
	}
}

func numbered(i int) string { return fmt.Sprintf("c-%05d", i) }
