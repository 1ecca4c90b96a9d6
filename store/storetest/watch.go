package storetest

import (
	"context"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// watcher reads a watch and counts how often each key came.
type watcher struct {
	mu    sync.Mutex
	count map[store.Key]int
	// asked is what wait and again have counted so far.
	asked map[store.Key]int
	more  chan struct{}
}

func watching(t *testing.T, s store.Store, kind v1alpha1.Kind, namespace string) *watcher {
	t.Helper()
	w := &watcher{count: map[store.Key]int{}, asked: map[store.Key]int{}, more: make(chan struct{}, 1)}
	keys := s.Watch(t.Context(), kind, namespace)
	go func() {
		for key := range keys {
			w.mu.Lock()
			w.count[key]++
			w.mu.Unlock()
			select {
			case w.more <- struct{}{}:
			default:
			}
		}
	}()
	return w
}

// wait waits until each key has come at least once.
func (w *watcher) wait(t *testing.T, what string, keys ...store.Key) {
	t.Helper()
	w.until(t, what, keys, func(store.Key) int { return 1 })
}

// mark takes what has come as known; again then asks for more than that. Call it
// before the change that is to be seen.
func (w *watcher) mark() {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.Copy(w.asked, w.count)
}

// again waits until each key has come once more than when mark was last called, or,
// if it never was, than the once it took to be listed.
func (w *watcher) again(t *testing.T, what string, keys ...store.Key) {
	t.Helper()
	w.until(t, what, keys, func(key store.Key) int { return max(w.asked[key], 1) + 1 })
}

func (w *watcher) until(t *testing.T, what string, keys []store.Key, least func(store.Key) int) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		missing := w.missing(keys, least)
		if len(missing) == 0 {
			return
		}
		select {
		case <-w.more:
		case <-timer.C:
			t.Fatalf("%s: the watch never gave %d of %d keys, such as %s", what, len(missing), len(keys), missing[0])
		}
	}
}

func (w *watcher) missing(keys []store.Key, least func(store.Key) int) []store.Key {
	w.mu.Lock()
	defer w.mu.Unlock()
	var missing []store.Key
	for _, key := range keys {
		if w.count[key] < least(key) {
			missing = append(missing, key)
		}
	}
	return missing
}

// only fails the test if a key of another namespace came.
func (w *watcher) only(t *testing.T, namespace string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for key := range w.count {
		if key.Namespace != namespace {
			t.Fatalf("a watch of %s gave %s", namespace, key)
		}
	}
}

func testWatch(t *testing.T, h Harness) {
	t.Helper()
	ctx := within(t, patience)
	a, b := store.Key{Namespace: namespace, Name: "a"}, store.Key{Namespace: "other", Name: "b"}
	c := newCluster(t, a.Namespace, a.Name)
	c.Finalizers = []string{v1alpha1.FinalizerCluster}
	create(ctx, t, h.Store, c)
	create(ctx, t, h.Store, newSecret("not-a-cluster"))
	w := watching(t, h.Store, v1alpha1.KindCluster, "")
	w.wait(t, "the key that is there", a)
	create(ctx, t, h.Store, newCluster(t, b.Namespace, b.Name))
	w.wait(t, "a new key", b)

	for _, step := range []struct {
		what string
		act  func()
	}{
		{"a changed status", func() { touch(ctx, t, h.Store, a, "changed") }},
		{"a deletionTimestamp", func() { remove(ctx, t, h.Store, c) }},
		{"the last finalizer", func() {
			got := getCluster(ctx, t, h.Store, a)
			v1alpha1.RemoveFinalizer(got, v1alpha1.FinalizerCluster)
			if err := h.Store.Update(ctx, got); err != nil {
				t.Fatalf("Update: %v", err)
			}
		}},
		{"a recreated object", func() { create(ctx, t, h.Store, newCluster(t, a.Namespace, a.Name)) }},
	} {
		w.mark()
		step.act()
		w.again(t, step.what, a)
	}
	if n := w.missing([]store.Key{{Namespace: namespace, Name: "not-a-cluster"}}, func(store.Key) int { return 1 }); len(n) != 1 {
		t.Fatalf("a watch of clusters gave a secret")
	}
}

func testWatchNamespace(t *testing.T, h Harness) {
	t.Helper()
	ctx := within(t, patience)
	w := watching(t, h.Store, v1alpha1.KindCluster, namespace)
	for _, ns := range []string{"other", namespace} {
		create(ctx, t, h.Store, newCluster(t, ns, "a"))
	}
	w.wait(t, "the key of the namespace", store.Key{Namespace: namespace, Name: "a"})
	w.only(t, namespace)
}

// gap makes every sort of change while the watch is cut off, and says which keys it
// must give once it is back.
func gap(t *testing.T, h Harness, during func()) {
	t.Helper()
	ctx := within(t, long)
	key := func(name string) store.Key { return store.Key{Namespace: namespace, Name: name} }
	for _, name := range []string{"kept", "changed", "deleted", "recreated"} {
		create(ctx, t, h.Other, newCluster(t, namespace, name))
	}
	w := watching(t, h.Store, v1alpha1.KindCluster, "")
	w.wait(t, "the keys that are there", key("kept"), key("changed"), key("deleted"), key("recreated"))
	// A key that came by a change rather than by the first list must be known as well.
	late := create(ctx, t, h.Other, newCluster(t, namespace, "late"))
	w.wait(t, "a new key", key("late"))
	w.mark()
	reconnect := func() {}
	if h.Disconnect != nil {
		reconnect = h.Disconnect()
	}
	touch(ctx, t, h.Other, key("changed"), "during the gap")
	remove(ctx, t, h.Other, getCluster(ctx, t, h.Other, key("deleted")))
	remove(ctx, t, h.Other, getCluster(ctx, t, h.Other, key("recreated")))
	remove(ctx, t, h.Other, late)
	create(ctx, t, h.Other, newCluster(t, namespace, "recreated"))
	create(ctx, t, h.Other, newCluster(t, namespace, "new"))
	during()
	reconnect()
	w.again(t, "changes made during the gap", key("changed"), key("deleted"), key("recreated"), key("late"))
	w.wait(t, "a key made during the gap", key("new"))
	w.mark()
	touch(ctx, t, h.Other, key("kept"), "after the gap")
	w.again(t, "a change after the gap", key("kept"))
}

func testWatchAcrossDisconnection(t *testing.T, h Harness) {
	t.Helper()
	if h.Disconnect == nil {
		t.Skip("this store has nothing to disconnect")
	}
	gap(t, h, func() {})
}

func testWatchAcrossCompaction(t *testing.T, h Harness) {
	t.Helper()
	if h.Compact == nil {
		t.Skip("this store has no history to compact")
	}
	gap(t, h, h.Compact)
}

func testWatchSlowReader(t *testing.T, h Harness) {
	t.Helper()
	ctx := within(t, long)
	const keys, rounds = 20, 50
	for i := range keys {
		create(ctx, t, h.Store, newCluster(t, namespace, numbered(i)))
	}
	watch := h.Store.Watch(t.Context(), v1alpha1.KindCluster, "")
	// One key is read, so that the watch is known to follow.
	<-watch
	for r := range rounds {
		for i := range keys {
			touch(ctx, t, h.Store, store.Key{Namespace: namespace, Name: numbered(i)}, numbered(r))
		}
	}
	last := store.Key{Namespace: namespace, Name: "last"}
	create(ctx, t, h.Store, newCluster(t, last.Namespace, last.Name))
	came := 0
	for {
		select {
		case key, ok := <-watch:
			if !ok {
				t.Fatalf("the watch closed")
			}
			if key == last {
				// Some may have been on their way before the reader fell behind.
				if most := keys * rounds / 4; came > most {
					t.Fatalf("a slow reader got %d keys for %d changes of %d keys, want at most %d", came, keys*rounds, keys, most)
				}
				return
			}
			came++
		case <-ctx.Done():
			t.Fatalf("the watch never gave the last key")
		}
	}
}

func testWatchCloses(t *testing.T, h Harness) {
	t.Helper()
	ctx := within(t, patience)
	for i := range 5 {
		create(ctx, t, h.Store, newCluster(t, namespace, numbered(i)))
	}
	watchCtx, cancel := context.WithCancel(t.Context())
	read, unread := h.Store.Watch(watchCtx, v1alpha1.KindCluster, ""), h.Store.Watch(watchCtx, v1alpha1.KindCluster, "")
	<-read
	cancel()
	for _, watch := range []<-chan store.Key{read, unread} {
		for open := true; open; {
			select {
			case _, open = <-watch:
			case <-ctx.Done():
				t.Fatalf("the watch did not close when its context ended")
			}
		}
	}
}
