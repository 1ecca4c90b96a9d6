package app

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/store"
)

// BackupFileResult is what came of one backup of one cluster.
type BackupFileResult struct {
	Policy, Cluster store.Key
	// Status of its record; Failed with a message where there was none.
	Status v1alpha1.EtcdBackupStatus
	// Err says why nobody has it: ErrUnanswered, or that of taking it.
	Err error
	// Destinations in the order of the policy.
	Destinations []BackupFileDestination
}

// BackupFileDestination is what came of one destination.
type BackupFileDestination struct {
	v1alpha1.BackupDestinationStatus

	URL string
	// Pruned is what retention has deleted, and PruneErr why it could not.
	Pruned   fleet.BackupPruned
	PruneErr error
}

// Once takes a backup of each cluster by each policy now, proves it and prunes. The
// error is that of ctx; what came of each backup stands in the results. Lock it first.
func (f *BackupFile) Once(ctx context.Context) ([]BackupFileResult, error) {
	f.meet(ctx)
	var results []*BackupFileResult
	slots := make(chan struct{}, backupsAtOnce)
	var wg sync.WaitGroup
	for _, p := range f.policies {
		for _, cluster := range f.selected[store.KeyOf(p)] {
			r := &BackupFileResult{Policy: store.KeyOf(p), Cluster: cluster}
			results = append(results, r)
			wg.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				f.takeOne(ctx, p, r)
			})
		}
	}
	wg.Wait()
	out := make([]BackupFileResult, 0, len(results))
	for _, r := range results {
		out = append(out, *r)
	}
	if ctx.Err() != nil {
		return out, errors.Join(ctx.Err(), f.leftUnproven(context.WithoutCancel(ctx)))
	}
	return out, nil
}

// takeOne orders one backup, and has it carried out.
func (f *BackupFile) takeOne(ctx context.Context, p *v1alpha1.EtcdBackupPolicy, r *BackupFileResult) {
	fail := func(err error) { r.Status.Phase, r.Status.Message, r.Err = v1alpha1.BackupFailed, err.Error(), err }
	if why := f.silence(ctx, r.Cluster); why != "" {
		fail(fmt.Errorf("%w: %s", ErrUnanswered, why))
		return
	}
	b := &v1alpha1.EtcdBackup{Spec: v1alpha1.EtcdBackupSpec{ClusterName: r.Cluster.Name, PolicyName: p.Name, Reason: v1alpha1.BackupManual}}
	b.Namespace, b.Name = r.Cluster.Namespace, r.Cluster.Name+"-once-"+p.Name
	b.Labels = map[string]string{v1alpha1.LabelCluster: r.Cluster.Name, v1alpha1.LabelBackupPolicy: p.Name}
	if err := f.store.Create(ctx, b); err != nil {
		fail(err)
		return
	}
	err := f.carryOut(ctx, store.KeyOf(b))
	// What has become of it is to be told also when everything ends.
	if getErr := f.store.Get(context.WithoutCancel(ctx), store.KeyOf(b), b); err == nil {
		err = getErr
	}
	r.Status = b.Status
	if err != nil && !b.Finished() {
		fail(err)
	}
	f.fill(p, r)
}

// carryOut has a backup worked on until it is finished, and what follows it is done.
func (f *BackupFile) carryOut(ctx context.Context, key store.Key) error {
	for {
		again, err := f.backups.ReconcileBackup(ctx, key)
		if err != nil || again == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(again):
		}
	}
}

// fill adds what the record does not tell.
func (f *BackupFile) fill(p *v1alpha1.EtcdBackupPolicy, r *BackupFileResult) {
	f.engine.mu.Lock()
	defer f.engine.mu.Unlock()
	name := takenOf(r.Policy.String(), r.Cluster)
	if err := f.engine.taken[name]; err != nil {
		r.Err = err
	}
	for _, d := range p.Spec.Destinations {
		out := BackupFileDestination{URL: d.URL}
		out.Name = d.Name
		for _, of := range r.Status.Destinations {
			if of.Name == d.Name {
				out.BackupDestinationStatus = of
			}
		}
		pruned := f.engine.pruned[name+" "+d.Name]
		out.Pruned, out.PruneErr = pruned.BackupPruned, pruned.err
		r.Destinations = append(r.Destinations, out)
	}
}
