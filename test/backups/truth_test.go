package backups

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// key is all that etcd says of a key.
type key struct {
	value                     string
	created, modified, number int64
	lease                     int64
}

// truth is every change of a cluster, as a watch from its beginning tells it.
type truth struct {
	mu     sync.Mutex
	grown  *sync.Cond
	events []*clientv3.Event
	seen   int64
	failed error
}

// watchAll begins at revision 1.
func watchAll(ctx context.Context, c *clientv3.Client) *truth {
	tr := &truth{}
	tr.grown = sync.NewCond(&tr.mu)
	go func() {
		for r := range c.Watch(clientv3.WithRequireLeader(ctx), "\x00", clientv3.WithFromKey(), clientv3.WithRev(1), clientv3.WithProgressNotify()) {
			tr.mu.Lock()
			tr.events = append(tr.events, r.Events...)
			tr.seen = max(tr.seen, r.Header.Revision)
			if err := r.Err(); err != nil {
				tr.failed = err
			}
			tr.mu.Unlock()
			tr.grown.Broadcast()
		}
		tr.mu.Lock()
		if tr.failed == nil {
			tr.failed = fmt.Errorf("the watch ended: %w", context.Cause(ctx))
		}
		tr.mu.Unlock()
		tr.grown.Broadcast()
	}()
	return tr
}

// at is the cluster's data at a revision, once the watch has got there.
func (tr *truth) at(t *testing.T, revision int64) map[string]key {
	t.Helper()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for tr.seen < revision && tr.failed == nil {
		tr.grown.Wait()
	}
	if tr.seen < revision {
		t.Fatalf("the watch got to revision %d of %d: %v", tr.seen, revision, tr.failed)
	}
	state := map[string]key{}
	for _, e := range tr.events {
		switch kv := e.Kv; {
		case kv.ModRevision > revision:
			return state
		case e.Type == clientv3.EventTypeDelete:
			delete(state, string(kv.Key))
		default:
			state[string(kv.Key)] = key{string(kv.Value), kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease}
		}
	}
	return state
}

// differences between two states, a few of them in words.
func differences(got, want map[string]key) []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if g, ok := got[name]; !ok {
			all = append(all, fmt.Sprintf("%q is missing", name))
		} else if g != want[name] {
			all = append(all, fmt.Sprintf("%q is %+v, want %+v", name, g, want[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			all = append(all, fmt.Sprintf("%q is too many", name))
		}
	}
	return all[:min(len(all), 10)]
}
