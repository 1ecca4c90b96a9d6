package etcd

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// Update implements store.Store. An object that is as it stands writes nothing.
func (s *Store) Update(ctx context.Context, obj v1alpha1.Object) error {
	return s.write(ctx, "update", obj, func(cur, obj v1alpha1.Object) (v1alpha1.Object, error) {
		next := copyOf(obj)
		foldStringData(next)
		setStatus(next, cur)
		return next, keepMetadata(next, cur)
	})
}

// UpdateStatus implements store.Store.
func (s *Store) UpdateStatus(ctx context.Context, obj v1alpha1.Object) error {
	return s.write(ctx, "update the status of", obj, func(cur, obj v1alpha1.Object) (v1alpha1.Object, error) {
		next := copyOf(cur)
		setStatus(next, obj)
		return next, nil
	})
}

// keepMetadata puts what the store sets back into next, whatever the caller did to it.
func keepMetadata(next, cur v1alpha1.Object) error {
	next.SetCreationTimestamp(cur.GetCreationTimestamp())
	next.SetDeletionTimestamp(cur.GetDeletionTimestamp())
	next.SetDeletionGracePeriodSeconds(cur.GetDeletionGracePeriodSeconds())
	next.SetGeneration(cur.GetGeneration())
	if cur.GetDeletionTimestamp() == nil {
		return nil
	}
	for _, f := range next.GetFinalizers() {
		if !slices.Contains(cur.GetFinalizers(), f) {
			return fmt.Errorf("%w: the finalizer %s can't be added to an object that is being deleted", store.ErrInvalid, f)
		}
	}
	return nil
}

// write reads what is stored, checks that obj was made from it, and stores what
// change makes of both. Obj holds the stored state afterwards.
func (s *Store) write(ctx context.Context, op string, obj v1alpha1.Object, change func(cur, obj v1alpha1.Object) (v1alpha1.Object, error)) error {
	kind, key := v1alpha1.KindOf(obj), store.KeyOf(obj)
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	cur, err := s.read(ctx, kind, key)
	if err != nil {
		return store.Error(op, kind, key, err)
	}
	if obj.GetUID() != cur.obj.GetUID() || obj.GetResourceVersion() != cur.obj.GetResourceVersion() {
		return store.Error(op, kind, key, store.ErrConflict)
	}
	next, err := change(cur.obj, obj)
	if err == nil {
		err = s.replace(ctx, cur, next)
	}
	if err != nil {
		return store.Error(op, kind, key, err)
	}
	assign(obj, next)
	return nil
}

// replace stores next in place of cur, with its new generation and resourceVersion.
func (s *Store) replace(ctx context.Context, cur stored, next v1alpha1.Object) error {
	next.SetResourceVersion(cur.obj.GetResourceVersion())
	before, err := split(cur.obj)
	if err != nil {
		return err
	}
	after, err := split(next)
	if err != nil {
		return err
	}
	if before.equal(after) {
		return nil
	}
	if !bytes.Equal(before.spec, after.spec) {
		next.SetGeneration(cur.obj.GetGeneration() + 1)
	}
	if next.GetDeletionTimestamp() != nil && len(next.GetFinalizers()) == 0 {
		_, err = s.commit(ctx, cur.key, cur.revision, clientv3.OpDelete(cur.key))
		return err
	}
	return s.put(ctx, cur.key, cur.revision, next)
}
