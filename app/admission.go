package app

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// admission refuses what the schema can't know to be wrong, before anything is
// stored.
type admission struct {
	store    store.Store
	releases catalog
}

// admit checks a change: old is nil for a creation, obj is nil for a deletion.
func (a admission) admit(ctx context.Context, obj, old v1alpha1.Object) error {
	if obj == nil {
		return a.deletion(ctx, old)
	}
	if old != nil {
		_, was := old.GetAnnotations()[v1alpha1.AnnotationRestored]
		if _, is := obj.GetAnnotations()[v1alpha1.AnnotationRestored]; was && !is {
			return fmt.Errorf("%s is held since the fleet's store was restored: accept the plan of its cluster (`quorate plan NAME --accept`) instead of taking the annotation %s off: %w",
				obj.GetName(), v1alpha1.AnnotationRestored, store.ErrForbidden)
		}
	}
	if err := admitBackups(obj); err != nil {
		return err
	}
	if err := a.restoreName(ctx, obj, old); err != nil {
		return err
	}
	c, ok := obj.(*v1alpha1.EtcdCluster)
	// An observed cluster runs what it runs.
	if !ok || old != nil || c.Observed() {
		return nil
	}
	return a.version(c.Spec.Version)
}

func (a admission) version(version string) error {
	have, err := a.releases.List()
	if err != nil {
		return err
	}
	var versions []string
	for _, r := range have {
		if r.Version == version {
			return nil
		}
		versions = append(versions, r.Version)
	}
	return fmt.Errorf("spec.version: there is no etcd %s here, only %s: use one of these, or add it with `quorate release add`: %w",
		version, strings.Join(dedupe(versions), ", "), store.ErrInvalid)
}

func dedupe(list []string) []string {
	var out []string
	seen := map[string]bool{}
	for _, s := range list {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

// deletion keeps a person from taking a member away from under its cluster.
func (a admission) deletion(ctx context.Context, old v1alpha1.Object) error {
	switch o := old.(type) {
	case *v1alpha1.EtcdMember:
		c := &v1alpha1.EtcdCluster{}
		err := a.store.Get(ctx, store.Key{Namespace: o.Namespace, Name: o.Spec.ClusterName}, c)
		if errors.Is(err, store.ErrNotFound) || err == nil && c.DeletionTimestamp != nil {
			return nil
		}
		if err != nil {
			return err
		}
		return fmt.Errorf("member %s belongs to cluster %s, which needs it: delete the cluster instead (`quorate delete cluster %s`): %w",
			o.Name, c.Name, c.Name, store.ErrForbidden)
	case *v1alpha1.EtcdHost:
		members, err := a.store.List(ctx, v1alpha1.KindMember, store.ListOptions{})
		if err != nil {
			return err
		}
		var on []string
		for _, m := range members {
			if m, ok := m.(*v1alpha1.EtcdMember); ok && m.Spec.Host == o.Name {
				on = append(on, store.KeyOf(m).String())
			}
		}
		if len(on) > 0 {
			return fmt.Errorf("host %s has the members %s: drain it first (`quorate host drain %s --wait`): %w", o.Name, strings.Join(on, ", "), o.Name, store.ErrForbidden)
		}
	case *v1alpha1.EtcdTask:
		if !o.Finished() {
			return fmt.Errorf("task %s is not finished: it is the record of what is being done to cluster %s: %w", o.Name, o.Spec.ClusterName, store.ErrForbidden)
		}
	case *v1alpha1.Secret:
		return a.secret(ctx, o)
	}
	return nil
}

// secret keeps a CA as long as a cluster signs with it.
func (a admission) secret(ctx context.Context, s *v1alpha1.Secret) error {
	clusters, err := a.store.List(ctx, v1alpha1.KindCluster, store.ListOptions{Namespace: s.Namespace})
	if err != nil {
		return err
	}
	for _, o := range clusters {
		c, ok := o.(*v1alpha1.EtcdCluster)
		if !ok || c.Observed() {
			continue
		}
		generated := c.Spec.TLS.Mode == v1alpha1.TLSGenerated && s.Name == c.Name+"-ca"
		named := c.Spec.TLS.Mode == v1alpha1.TLSCASecret && s.Name == c.Spec.TLS.CASecretRef
		if generated || named {
			return fmt.Errorf("secret %s/%s is the CA of cluster %s: without it no certificate of its members can be renewed: delete the cluster first: %w",
				s.Namespace, s.Name, c.Name, store.ErrForbidden)
		}
	}
	return nil
}
