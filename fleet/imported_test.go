package fleet_test

import (
	"context"
	"errors"
	"testing"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// TestImportedObjects: of an observed cluster nothing is made and nothing is held,
// and what importing has made goes with it.
func TestImportedObjects(t *testing.T) {
	ctx := context.Background()
	w := newWorld(1, 1)
	key := store.Key{Namespace: "default", Name: "orders"}
	for name, marked := range map[string]string{"orders-credentials": "orders", "theirs": ""} {
		s := &v1alpha1.Secret{}
		s.Namespace, s.Name = "default", name
		if marked != "" {
			s.Annotations = map[string]string{v1alpha1.AnnotationImportedFor: marked}
		}
		w.must(w.store.Create(ctx, s))
	}
	c := &v1alpha1.EtcdCluster{Spec: v1alpha1.EtcdClusterSpec{
		Management: v1alpha1.ManagementObserve, Replicas: 1,
		// Nothing can listen on port 0.
		Import: &v1alpha1.ImportSpec{Endpoints: []string{"http://127.0.0.1:0"}, CredentialsSecretRef: "orders-credentials"},
	}}
	c.Namespace, c.Name = key.Namespace, key.Name
	c.Annotations = map[string]string{v1alpha1.AnnotationRestored: "2"}
	w.must(w.store.Create(ctx, c))
	if again, err := w.control.Reconcile(ctx, key); again != 0 || err != nil {
		t.Errorf("it is reconciled as a managed one: %s, %v", again, err)
	}
	if again, err := w.control.ReconcileImported(ctx, store.Key{Namespace: "default", Name: "c"}); again != 0 || err != nil {
		t.Errorf("a managed one is reconciled as observed: %s, %v", again, err)
	}
	again, err := w.control.ReconcileImported(ctx, key)
	if again == 0 || err != nil {
		t.Errorf("it is not looked at again: %s, %v", again, err)
	}
	w.must(w.store.Get(ctx, key, c))
	if len(c.Annotations) > 0 || !v1alpha1.HasFinalizer(c, v1alpha1.FinalizerCluster) {
		t.Errorf("metadata is %+v", c.ObjectMeta)
	}
	if v1alpha1.FindCondition(c.Status.Conditions, v1alpha1.ConditionAvailable) == nil || c.Status.Ready != "0/1" {
		t.Errorf("status is %+v", c.Status)
	}
	for _, kind := range []v1alpha1.Kind{v1alpha1.KindMember, v1alpha1.KindTask} {
		made, listErr := w.store.List(ctx, kind, store.ListOptions{})
		if len(made) > 0 || listErr != nil {
			t.Errorf("%d %s were made, %v", len(made), kind.Plural, listErr)
		}
	}

	w.must(w.store.Delete(ctx, v1alpha1.KindCluster, key, store.Preconditions{UID: c.UID}))
	if _, err = w.control.ReconcileImported(ctx, key); err != nil {
		t.Error(err)
	}
	if err = w.store.Get(ctx, key, c); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("it is still there: %v", err)
	}
	s := &v1alpha1.Secret{}
	if err = w.store.Get(ctx, store.Key{Namespace: "default", Name: "orders-credentials"}, s); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("its Secret is still there: %v", err)
	}
	if err = w.store.Get(ctx, store.Key{Namespace: "default", Name: "theirs"}, s); err != nil {
		t.Errorf("another Secret is gone: %v", err)
	}
	for _, f := range w.faults {
		t.Error(f)
	}
}
