package storetest

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

func listed(ctx context.Context, t *testing.T, s store.Store, kind v1alpha1.Kind, opts store.ListOptions) []string {
	t.Helper()
	list, err := s.List(ctx, kind, opts)
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	names := make([]string, 0, len(list))
	for _, obj := range list {
		if got := v1alpha1.KindOf(obj).Kind; got != kind.Kind || obj.GetResourceVersion() == "" || obj.GetUID() == "" {
			t.Fatalf("List of %s returned a %s: %v", kind.Kind, got, obj)
		}
		names = append(names, store.KeyOf(obj).String())
	}
	return names
}

func testList(t *testing.T, h Harness) {
	t.Helper()
	ctx := within(t, patience)
	for _, c := range []struct {
		key    store.Key
		labels map[string]string
	}{
		{store.Key{Namespace: "prod", Name: "b"}, map[string]string{"tier": "1", "zone": "x"}},
		{store.Key{Namespace: "prod-eu", Name: "a"}, map[string]string{"tier": "1"}},
		{store.Key{Namespace: "prod", Name: "a"}, map[string]string{"tier": "2"}},
		{store.Key{Namespace: "dev", Name: "z"}, nil},
		{store.Key{Namespace: "prod", Name: "a-b"}, nil},
		{store.Key{Namespace: "prod", Name: "a.b"}, nil},
	} {
		obj := newCluster(t, c.key.Namespace, c.key.Name)
		obj.Labels = c.labels
		create(ctx, t, h.Store, obj)
	}
	create(ctx, t, h.Store, newSecret("a"))
	for _, tt := range []struct {
		what string
		opts store.ListOptions
		want []string
	}{
		{"everything", store.ListOptions{}, []string{"dev/z", "prod/a", "prod/a-b", "prod/a.b", "prod/b", "prod-eu/a"}},
		{"a namespace", store.ListOptions{Namespace: "prod"}, []string{"prod/a", "prod/a-b", "prod/a.b", "prod/b"}},
		{"another namespace", store.ListOptions{Namespace: "prod-eu"}, []string{"prod-eu/a"}},
		{"the start of a namespace", store.ListOptions{Namespace: "pro"}, []string{}},
		{"the start of names", store.ListOptions{NamePrefix: "a"}, []string{"prod/a", "prod/a-b", "prod/a.b", "prod-eu/a"}},
		{"the start of names in a namespace", store.ListOptions{Namespace: "prod", NamePrefix: "a-"}, []string{"prod/a-b"}},
		{"the start of names and a label", store.ListOptions{Namespace: "prod", NamePrefix: "b", Labels: map[string]string{"tier": "1"}}, []string{"prod/b"}},
		{"a label", store.ListOptions{Labels: map[string]string{"tier": "1"}}, []string{"prod/b", "prod-eu/a"}},
		{"two labels", store.ListOptions{Labels: map[string]string{"tier": "1", "zone": "x"}}, []string{"prod/b"}},
		{"a label in a namespace", store.ListOptions{Namespace: "prod", Labels: map[string]string{"tier": "2"}}, []string{"prod/a"}},
		{"an empty label is not an absent one", store.ListOptions{Labels: map[string]string{"zone": ""}}, []string{}},
	} {
		if diff := cmp.Diff(tt.want, listed(ctx, t, h.Store, v1alpha1.KindCluster, tt.opts)); diff != "" {
			t.Errorf("List of %s:\n%s", tt.what, diff)
		}
	}
	if got := listed(ctx, t, h.Store, v1alpha1.KindTask, store.ListOptions{}); len(got) != 0 {
		t.Errorf("List of a kind without objects: %v", got)
	}
}

func testClusterScoped(t *testing.T, h Harness) {
	t.Helper()
	ctx := within(t, patience)
	for _, name := range []string{"b", "a"} {
		create(ctx, t, h.Store, newHost(name))
	}
	host := &v1alpha1.EtcdHost{}
	if err := h.Store.Get(ctx, store.Key{Name: "a"}, host); err != nil {
		t.Fatalf("Get: %v", err)
	}
	if host.Namespace != "" || host.Spec.Address != "127.0.0.1" {
		t.Fatalf("the host came back as %+v", host)
	}
	if diff := cmp.Diff([]string{"a", "b"}, listed(ctx, t, h.Store, v1alpha1.KindHost, store.ListOptions{})); diff != "" {
		t.Fatalf("List:\n%s", diff)
	}
	w := watching(t, h.Store, v1alpha1.KindHost, "")
	w.wait(t, "the hosts there are", store.Key{Name: "a"}, store.Key{Name: "b"})
	remove(ctx, t, h.Store, host)
	w.again(t, "the host that was deleted", store.Key{Name: "a"})
}

func testPrefixes(t *testing.T, h Harness) {
	t.Helper()
	ctx := within(t, patience)
	names := []string{"a", "a-1", "a-10", "a1", "aa"}
	for _, ns := range []string{"prod", "prod-eu", "prod1"} {
		for _, name := range names {
			create(ctx, t, h.Store, newCluster(t, ns, name))
		}
	}
	w := watching(t, h.Store, v1alpha1.KindCluster, "prod")
	want := []store.Key{}
	for _, name := range names {
		want = append(want, store.Key{Namespace: "prod", Name: name})
	}
	w.wait(t, "the keys of the namespace", want...)
	for _, ns := range []string{"prod-eu", "prod1"} {
		touch(ctx, t, h.Store, store.Key{Namespace: ns, Name: "a"}, "changed")
	}
	remove(ctx, t, h.Store, getCluster(ctx, t, h.Store, store.Key{Namespace: "prod", Name: "a"}))
	w.again(t, "the deleted key", store.Key{Namespace: "prod", Name: "a"})
	if diff := cmp.Diff([]string{"prod/a-1", "prod/a-10", "prod/a1", "prod/aa"},
		listed(ctx, t, h.Store, v1alpha1.KindCluster, store.ListOptions{Namespace: "prod"})); diff != "" {
		t.Fatalf("List after deleting a:\n%s", diff)
	}
	if got := listed(ctx, t, h.Store, v1alpha1.KindCluster, store.ListOptions{}); len(got) != 3*len(names)-1 {
		t.Fatalf("List of all: %v", got)
	}
	w.only(t, "prod")
}

func testTenThousand(t *testing.T, h Harness) {
	t.Helper()
	if testing.Short() {
		t.Skip("10,000 objects take a while: run without -short")
	}
	ctx := within(t, long)
	const count, writers = 10_000, 32
	early := watching(t, h.Store, v1alpha1.KindCluster, "")
	var wg sync.WaitGroup
	errs := make(chan error, writers)
	for i := range writers {
		wg.Go(func() {
			for n := i; n < count; n += writers {
				if err := h.Store.Create(ctx, newCluster(t, namespace, numbered(n))); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		t.Fatalf("Create: %v", err)
	default:
	}
	got := listed(ctx, t, h.Store, v1alpha1.KindCluster, store.ListOptions{})
	if len(got) != count || !slices.IsSorted(got) {
		t.Fatalf("List: %d objects, in order %v; want %d", len(got), slices.IsSorted(got), count)
	}
	keys := make([]store.Key, 0, count)
	for n := range count {
		keys = append(keys, store.Key{Namespace: namespace, Name: numbered(n)})
	}
	early.wait(t, "a watch from the beginning", keys...)
	watching(t, h.Store, v1alpha1.KindCluster, "").wait(t, "a watch that began late", keys...)
}
