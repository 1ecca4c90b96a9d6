package app

import (
	"context"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/store"
)

// importedRunner looks after the clusters that others run, with workers of its own:
// one that swallows what is sent to it takes seconds of a worker's time, and must
// not take them from the clusters that Quorate runs.
func (s *Server) importedRunner() *fleet.Runner {
	const workers, patience = 32, 10 * time.Second
	return &fleet.Runner{
		Name: "imported", Reconcile: s.clusters.ReconcileImported, Workers: workers, Timeout: patience, Logger: s.opts.Logger,
		Sources: []fleet.Source{s.watch(v1alpha1.KindCluster), s.clustersOfSecrets},
	}
}

// clustersOfSecrets yields the observed clusters that a Secret belongs to when it
// changes: new credentials are used at once.
func (s *Server) clustersOfSecrets(ctx context.Context) <-chan store.Key {
	out := make(chan store.Key)
	go func() {
		defer close(out)
		for key := range s.store.Watch(ctx, v1alpha1.KindSecret, "") {
			clusters, err := s.store.List(ctx, v1alpha1.KindCluster, store.ListOptions{Namespace: key.Namespace})
			if err != nil {
				// They are looked at every few seconds all the same.
				continue
			}
			for _, o := range clusters {
				c, ok := o.(*v1alpha1.EtcdCluster)
				if !ok || !c.Observed() || c.Spec.Import == nil || c.Spec.Import.CredentialsSecretRef != key.Name {
					continue
				}
				select {
				case out <- store.KeyOf(c):
				case <-ctx.Done():
				}
			}
		}
	}()
	return out
}
