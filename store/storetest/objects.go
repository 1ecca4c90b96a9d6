package storetest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: got error %v, want %v", what, err, want)
	}
}

func testCreateAndGet(t *testing.T, h Harness) {
	t.Helper()
	ctx := within(t, patience)
	key := store.Key{Namespace: namespace, Name: "a"}
	err := h.Store.Get(ctx, key, &v1alpha1.EtcdCluster{})
	wantErr(t, "Get of what is not there", err, store.ErrNotFound)
	if !strings.Contains(err.Error(), key.String()) {
		t.Fatalf("the error does not name %s: %v", key, err)
	}

	c := newCluster(t, namespace, "a")
	c.UID, c.ResourceVersion, c.Generation = "mine", "7", 99
	c.Labels = map[string]string{"team": "x"}
	c.Status.Summary = "as given"
	create(ctx, t, h.Store, c)
	if c.UID == "" || c.UID == "mine" || c.ResourceVersion == "" || c.Generation != 1 || c.CreationTimestamp.IsZero() || c.DeletionTimestamp != nil {
		t.Fatalf("Create did not fill in what is the store's: %+v", c.ObjectMeta)
	}
	got := getCluster(ctx, t, h.Store, key)
	if diff := cmp.Diff(c, got); diff != "" {
		t.Fatalf("Get differs from what Create returned:\n%s", diff)
	}
	if got.Kind != "EtcdCluster" || got.Status.Summary != "as given" || got.Labels["team"] != "x" {
		t.Fatalf("Get: %+v", got)
	}
	// What was in the object before is not left in it.
	used := newCluster(t, "other", "other")
	used.Annotations = map[string]string{"left": "over"}
	if err := h.Store.Get(ctx, key, used); err != nil {
		t.Fatalf("Get: %v", err)
	}
	if diff := cmp.Diff(c, used); diff != "" {
		t.Fatalf("Get into a used object:\n%s", diff)
	}
}

func testCreateExists(t *testing.T, h Harness) {
	t.Helper()
	ctx := within(t, patience)
	c := newCluster(t, namespace, "a")
	c.Finalizers = []string{v1alpha1.FinalizerCluster}
	create(ctx, t, h.Store, c)
	again := newCluster(t, namespace, "a")
	wantErr(t, "second Create", h.Store.Create(ctx, again), store.ErrExists)
	if again.UID != "" || again.ResourceVersion != "" {
		t.Fatalf("a failed Create changed the object: %+v", again.ObjectMeta)
	}
	remove(ctx, t, h.Store, c)
	wantErr(t, "Create while it is being deleted", h.Store.Create(ctx, newCluster(t, namespace, "a")), store.ErrExists)
}

func testInvalid(t *testing.T, h Harness) {
	t.Helper()
	ctx := within(t, patience)
	placed := newHost("h")
	placed.Namespace = namespace
	for what, obj := range map[string]v1alpha1.Object{
		"without a name":               newCluster(t, namespace, ""),
		"without a namespace":          newCluster(t, "", "a"),
		"with a slash in its name":     newCluster(t, namespace, "a/b"),
		"with capitals":                newCluster(t, namespace, "A"),
		"a host that has a namespace":  placed,
		"a namespace that is not one":  newCluster(t, "_", "a"),
		"with a name that is too long": newSecret(strings.Repeat("a", 254)),
	} {
		wantErr(t, "Create "+what, h.Store.Create(ctx, obj), store.ErrInvalid)
	}
}

func testGetIsLinearizable(t *testing.T, h Harness) {
	t.Helper()
	ctx := within(t, patience)
	c := create(ctx, t, h.Other, newCluster(t, namespace, "a"))
	for range 50 {
		c.Spec.Etcd.SnapshotCount++
		if err := h.Other.Update(ctx, c); err != nil {
			t.Fatalf("Update: %v", err)
		}
		if got := getCluster(ctx, t, h.Store, store.KeyOf(c)); got.Spec.Etcd.SnapshotCount != c.Spec.Etcd.SnapshotCount {
			t.Fatalf("Get saw %d after %d was written", got.Spec.Etcd.SnapshotCount, c.Spec.Etcd.SnapshotCount)
		}
	}
}

func testUpdateChecks(t *testing.T, h Harness) {
	t.Helper()
	ctx := within(t, patience)
	old := create(ctx, t, h.Store, newCluster(t, namespace, "a"))
	now := old.DeepCopy()
	now.Spec.Suspended = true
	if err := h.Store.Update(ctx, now); err != nil {
		t.Fatalf("Update: %v", err)
	}
	if now.ResourceVersion == old.ResourceVersion {
		t.Fatalf("Update left the resourceVersion as it was")
	}
	foreign, blank := now.DeepCopy(), now.DeepCopy()
	foreign.UID = "another"
	blank.ResourceVersion = ""
	gone := newCluster(t, namespace, "gone")
	gone.UID, gone.ResourceVersion = now.UID, now.ResourceVersion
	for _, tt := range []struct {
		what string
		obj  *v1alpha1.EtcdCluster
		want error
	}{
		{"with an old resourceVersion", old, store.ErrConflict},
		{"with another UID", foreign, store.ErrConflict},
		{"without a resourceVersion", blank, store.ErrConflict},
		{"of what is not there", gone, store.ErrNotFound},
	} {
		tt.obj.Spec.Etcd.SnapshotCount = 11
		tt.obj.Status.Summary = "wrong"
		wantErr(t, "Update "+tt.what, h.Store.Update(ctx, tt.obj), tt.want)
		wantErr(t, "UpdateStatus "+tt.what, h.Store.UpdateStatus(ctx, tt.obj), tt.want)
	}
	if diff := cmp.Diff(now, getCluster(ctx, t, h.Store, store.KeyOf(now))); diff != "" {
		t.Fatalf("a refused write changed the object:\n%s", diff)
	}
}

func testGeneration(t *testing.T, h Harness) {
	t.Helper()
	ctx := within(t, patience)
	c := create(ctx, t, h.Store, newCluster(t, namespace, "a"))
	step := func(what string, want int64, write func(context.Context, v1alpha1.Object) error) {
		t.Helper()
		if err := write(ctx, c); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if c.Generation != want {
			t.Fatalf("generation after %s: %d, want %d", what, c.Generation, want)
		}
	}
	c.Labels = map[string]string{"a": "b"}
	step("a label", 1, h.Store.Update)
	c.Status.Summary = "s"
	step("a status", 1, h.Store.UpdateStatus)
	c.Spec.Suspended = true
	step("a spec", 2, h.Store.Update)
	c.Generation = 77
	step("a generation of the caller's", 2, h.Store.Update)
	c.Spec.Suspended = false
	step("another spec", 3, h.Store.Update)
}

func testUpdateIgnoresStatus(t *testing.T, h Harness) {
	t.Helper()
	ctx := within(t, patience)
	c := newCluster(t, namespace, "a")
	c.Status.Summary = "right"
	create(ctx, t, h.Store, c)
	c.Spec.Suspended = true
	c.Status.Summary = "wrong"
	if err := h.Store.Update(ctx, c); err != nil {
		t.Fatalf("Update: %v", err)
	}
	if !c.Spec.Suspended || c.Status.Summary != "right" {
		t.Fatalf("Update returned suspended %v and status %q", c.Spec.Suspended, c.Status.Summary)
	}
	if diff := cmp.Diff(c, getCluster(ctx, t, h.Store, store.KeyOf(c))); diff != "" {
		t.Fatalf("Update returned something else than is stored:\n%s", diff)
	}
}

func testUpdateStatusIgnoresTheRest(t *testing.T, h Harness) {
	t.Helper()
	ctx := within(t, patience)
	c := newCluster(t, namespace, "a")
	c.Labels = map[string]string{"a": "right"}
	create(ctx, t, h.Store, c)
	before := c.ResourceVersion
	c.Spec.Suspended = true
	c.Labels["a"] = "wrong"
	c.Finalizers = []string{v1alpha1.FinalizerCluster}
	c.Status.Summary = "new"
	v1alpha1.SetCondition(&c.Status.Conditions, v1alpha1.Condition{Type: v1alpha1.ConditionAvailable, Status: v1alpha1.True, Reason: "Test"})
	if err := h.Store.UpdateStatus(ctx, c); err != nil {
		t.Fatalf("UpdateStatus: %v", err)
	}
	got := getCluster(ctx, t, h.Store, store.KeyOf(c))
	if got.Spec.Suspended || got.Labels["a"] != "right" || len(got.Finalizers) > 0 || got.Status.Summary != "new" ||
		!v1alpha1.IsTrue(got.Status.Conditions, v1alpha1.ConditionAvailable) || got.ResourceVersion == before {
		t.Fatalf("after UpdateStatus: %+v", got)
	}
	if diff := cmp.Diff(got, c); diff != "" {
		t.Fatalf("UpdateStatus returned something else than is stored:\n%s", diff)
	}
}

func testStoreOwnsMetadata(t *testing.T, h Harness) {
	t.Helper()
	ctx := within(t, patience)
	c := create(ctx, t, h.Store, newCluster(t, namespace, "a"))
	made := c.CreationTimestamp
	now := v1alpha1.Now()
	c.CreationTimestamp, c.DeletionTimestamp = v1alpha1.NewTime(made.AddDate(-1, 0, 0)), &now
	c.Spec.Suspended = true
	if err := h.Store.Update(ctx, c); err != nil {
		t.Fatalf("Update: %v", err)
	}
	got := getCluster(ctx, t, h.Store, store.KeyOf(c))
	if !got.CreationTimestamp.Equal(&made) || got.DeletionTimestamp != nil {
		t.Fatalf("Update changed what is the store's: created %v, deleted %v", got.CreationTimestamp, got.DeletionTimestamp)
	}
}

func testEqualWritesNothing(t *testing.T, h Harness) {
	t.Helper()
	ctx := within(t, patience)
	c := newCluster(t, namespace, "a")
	c.Status.Summary = "s"
	create(ctx, t, h.Store, c)
	before := c.ResourceVersion
	if err := h.Store.UpdateStatus(ctx, c); err != nil {
		t.Fatalf("UpdateStatus: %v", err)
	}
	if err := h.Store.Update(ctx, c); err != nil {
		t.Fatalf("Update: %v", err)
	}
	if got := getCluster(ctx, t, h.Store, store.KeyOf(c)); got.ResourceVersion != before || c.ResourceVersion != before {
		t.Fatalf("an equal write changed the resourceVersion from %s to %s (returned %s)", before, got.ResourceVersion, c.ResourceVersion)
	}
}

func testDelete(t *testing.T, h Harness) {
	t.Helper()
	ctx := within(t, patience)
	c := create(ctx, t, h.Store, newCluster(t, namespace, "a"))
	key, old := store.KeyOf(c), c.ResourceVersion
	touch(ctx, t, h.Store, key, "newer")
	del := func(pre store.Preconditions) error { return h.Store.Delete(ctx, v1alpha1.KindCluster, key, pre) }
	wantErr(t, "Delete with another UID", del(store.Preconditions{UID: "another"}), store.ErrConflict)
	wantErr(t, "Delete with an old resourceVersion", del(store.Preconditions{UID: c.UID, ResourceVersion: old}), store.ErrConflict)
	if err := del(store.Preconditions{}); err == nil {
		t.Fatalf("Delete without a UID went through")
	}
	if err := del(store.Preconditions{UID: c.UID}); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	wantErr(t, "Get of what was deleted", h.Store.Get(ctx, key, c), store.ErrNotFound)
	wantErr(t, "Delete of what was deleted", del(store.Preconditions{UID: c.UID}), store.ErrNotFound)
}

func testFinalizers(t *testing.T, h Harness) {
	t.Helper()
	ctx := within(t, patience)
	c := newCluster(t, namespace, "a")
	c.Finalizers = []string{"quorate.io/one", "quorate.io/two"}
	create(ctx, t, h.Store, c)
	key := store.KeyOf(c)
	remove(ctx, t, h.Store, c)
	first := getCluster(ctx, t, h.Store, key)
	if first.DeletionTimestamp == nil {
		t.Fatalf("Delete of an object with finalizers did not mark it")
	}
	remove(ctx, t, h.Store, c)
	c = getCluster(ctx, t, h.Store, key)
	if diff := cmp.Diff(first, c); diff != "" {
		t.Fatalf("a second Delete changed the object:\n%s", diff)
	}
	v1alpha1.RemoveFinalizer(c, "quorate.io/one")
	c.DeletionTimestamp = nil
	if err := h.Store.Update(ctx, c); err != nil {
		t.Fatalf("Update: %v", err)
	}
	c = getCluster(ctx, t, h.Store, key)
	if c.DeletionTimestamp == nil || len(c.Finalizers) != 1 {
		t.Fatalf("after the first finalizer: deleted %v, finalizers %v", c.DeletionTimestamp, c.Finalizers)
	}
	more := c.DeepCopy()
	more.Finalizers = append(more.Finalizers, "quorate.io/late")
	wantErr(t, "a finalizer added while deleting", h.Store.Update(ctx, more), store.ErrInvalid)
	c.Status.Summary = "stopping"
	if err := h.Store.UpdateStatus(ctx, c); err != nil {
		t.Fatalf("UpdateStatus while deleting: %v", err)
	}
	v1alpha1.RemoveFinalizer(c, "quorate.io/two")
	if err := h.Store.Update(ctx, c); err != nil {
		t.Fatalf("Update that removes the last finalizer: %v", err)
	}
	wantErr(t, "Get after the last finalizer", h.Store.Get(ctx, key, c), store.ErrNotFound)
}

func testRecreated(t *testing.T, h Harness) {
	t.Helper()
	ctx := within(t, patience)
	old := create(ctx, t, h.Store, newCluster(t, namespace, "a"))
	remove(ctx, t, h.Store, old)
	now := create(ctx, t, h.Store, newCluster(t, namespace, "a"))
	if now.UID == old.UID {
		t.Fatalf("the recreated object has the old UID")
	}
	stale := now.DeepCopy()
	stale.UID = old.UID
	stale.Spec.Suspended = true
	stale.Status.Summary = "wrong"
	wantErr(t, "Update of the old object", h.Store.Update(ctx, stale), store.ErrConflict)
	wantErr(t, "UpdateStatus of the old object", h.Store.UpdateStatus(ctx, stale), store.ErrConflict)
	wantErr(t, "Delete of the old object",
		h.Store.Delete(ctx, v1alpha1.KindCluster, store.KeyOf(old), store.Preconditions{UID: old.UID}), store.ErrConflict)
	if diff := cmp.Diff(now, getCluster(ctx, t, h.Store, store.KeyOf(now))); diff != "" {
		t.Fatalf("the old object changed the new one:\n%s", diff)
	}
}

func testSecret(t *testing.T, h Harness) {
	t.Helper()
	ctx := within(t, patience)
	s := newSecret("tls")
	s.Type = v1alpha1.SecretTypeTLS
	s.Data = map[string][]byte{"tls.crt": {0, 1, 255}, "tls.key": []byte("old"), "spare": []byte("s")}
	s.StringData = map[string]string{"tls.key": "new", "password": "p"}
	s.Annotations = map[string]string{"a": "b"}
	create(ctx, t, h.Store, s)
	want := map[string][]byte{"tls.crt": {0, 1, 255}, "tls.key": []byte("new"), "password": []byte("p"), "spare": []byte("s")}
	got := &v1alpha1.Secret{}
	if err := h.Store.Get(ctx, store.KeyOf(s), got); err != nil {
		t.Fatalf("Get: %v", err)
	}
	if diff := cmp.Diff(want, got.Data); diff != "" || got.StringData != nil || got.Type != v1alpha1.SecretTypeTLS || got.Annotations["a"] != "b" {
		t.Fatalf("the secret came back as %+v\n%s", got.ObjectMeta, diff)
	}
	before := got.ResourceVersion
	if err := h.Store.Update(ctx, got); err != nil {
		t.Fatalf("Update: %v", err)
	}
	if got.ResourceVersion != before {
		t.Fatalf("an equal Update of a secret wrote")
	}
	got.StringData = map[string]string{"password": "q"}
	delete(got.Data, "spare")
	if err := h.Store.Update(ctx, got); err != nil {
		t.Fatalf("Update: %v", err)
	}
	list, err := h.Store.List(ctx, v1alpha1.KindSecret, store.ListOptions{Namespace: namespace})
	if err != nil || len(list) != 1 {
		t.Fatalf("List: %d secrets, %v", len(list), err)
	}
	want = map[string][]byte{"tls.crt": {0, 1, 255}, "tls.key": []byte("new"), "password": []byte("q")}
	got, ok := list[0].(*v1alpha1.Secret)
	if diff := cmp.Diff(want, got.Data); !ok || diff != "" {
		t.Fatalf("the updated secret:\n%s", diff)
	}
}

func testMutate(t *testing.T, h Harness) {
	t.Helper()
	ctx := within(t, long)
	c := create(ctx, t, h.Store, newCluster(t, namespace, "a"))
	const writers, each = 16, 5
	start := c.Spec.Etcd.SnapshotCount
	errs := make(chan error, writers)
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				errs <- store.Mutate(ctx, h.Store, store.KeyOf(c), &v1alpha1.EtcdCluster{}, func(c *v1alpha1.EtcdCluster) (bool, error) {
					c.Spec.Etcd.SnapshotCount++
					return true, nil
				})
			}
		})
	}
	go func() { wg.Wait(); close(errs) }()
	for err := range errs {
		if err != nil {
			t.Errorf("Mutate: %v", err)
		}
	}
	got := getCluster(ctx, t, h.Store, store.KeyOf(c))
	if n := got.Spec.Etcd.SnapshotCount - start; n != writers*each || got.Generation != 1+writers*each {
		t.Fatalf("%d increments gave %d and generation %d", writers*each, n, got.Generation)
	}
}

func testEndedContext(t *testing.T, h Harness) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// Often, since a store that does not look may still be stopped by chance.
	for range 200 {
		err := h.Store.Get(ctx, store.Key{Namespace: namespace, Name: "a"}, &v1alpha1.EtcdCluster{})
		wantErr(t, "Get with an ended context", err, store.ErrUnavailable)
	}
	_, err := h.Store.List(ctx, v1alpha1.KindCluster, store.ListOptions{})
	wantErr(t, "List with an ended context", err, store.ErrUnavailable)
	wantErr(t, "Create with an ended context", h.Store.Create(ctx, newCluster(t, namespace, "a")), store.ErrUnavailable)
}
