package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// restoreName lets the restore that a cluster names be changed only to one that is to
// replace its members, or back to the one that they come from: with another name, nothing
// could be done to the cluster at all.
func (a admission) restoreName(ctx context.Context, obj, old v1alpha1.Object) error {
	is, ok := obj.(*v1alpha1.EtcdCluster)
	was, known := old.(*v1alpha1.EtcdCluster)
	if !ok || !known || is.Spec.RestoreName == was.Spec.RestoreName {
		return nil
	}
	objects, err := a.store.List(ctx, v1alpha1.KindMember, store.ListOptions{
		Namespace: is.Namespace, Labels: map[string]string{v1alpha1.LabelCluster: is.Name},
	})
	if err != nil {
		return err
	}
	members, other := 0, ""
	for _, o := range objects {
		m, ok := o.(*v1alpha1.EtcdMember)
		if !ok || m.Spec.ClusterName != is.Name {
			continue
		}
		members++
		if m.Spec.RestoreName != is.Spec.RestoreName {
			other = m.Name
		}
	}
	switch {
	case is.Spec.RestoreName == "" && members == 0:
		// They may have been renamed aside for the restore, and it would be formed under the
		// IDs that they had.
		return fmt.Errorf("spec.restoreName: it can't be taken away: the cluster would begin empty: name another EtcdRestore, or delete the cluster and apply it again: %w", store.ErrInvalid)
	case other == "":
		return nil
	case is.Spec.RestoreName == "":
		return fmt.Errorf("spec.restoreName: it can't be taken away: %s has the data of EtcdRestore %s: write restoreName: %s into what you apply: %w",
			other, was.Spec.RestoreName, was.Spec.RestoreName, store.ErrInvalid)
	}
	r := &v1alpha1.EtcdRestore{}
	err = a.store.Get(ctx, store.Key{Namespace: is.Namespace, Name: is.Spec.RestoreName}, r)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return fmt.Errorf("spec.restoreName: there is no EtcdRestore %s in namespace %s: apply one with inPlace: true, which sets this by itself: %w", is.Spec.RestoreName, is.Namespace, store.ErrInvalid)
	case err != nil:
		return err
	case r.Spec.ClusterName != is.Name || !r.Spec.InPlace || r.Finished():
		return fmt.Errorf("spec.restoreName: EtcdRestore %s is over, is for another cluster, or does not say inPlace: apply one that does, which sets this by itself: %w", r.Name, store.ErrInvalid)
	}
	return nil
}
