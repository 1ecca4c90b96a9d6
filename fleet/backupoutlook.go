package fleet

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// BackupOutlook is what a policy is about to do for one of its clusters.
type BackupOutlook struct {
	Cluster store.Key
	// Refused says why it can't be backed up; empty where it can.
	Refused string
	// Due is when its next backup is due; a time that has passed means now. It is zero
	// with Refused, and where the policy is suspended.
	Due time.Time
	// Destinations in the order of the policy.
	Destinations []DestinationOutlook
}

// DestinationOutlook is how one store stands to it.
type DestinationOutlook struct {
	Name, URL string
	// Problem says why the store could not be asked; the rest is zero then.
	Problem  string
	Holdings BackupHoldings
	// WouldDelete is what the rules do not keep of what is there now.
	WouldDelete BackupPruned
}

// Outlook tells what a policy would do, and does nothing. It asks the stores.
func (c *BackupController) Outlook(ctx context.Context, key store.Key) ([]BackupOutlook, error) {
	p := &v1alpha1.EtcdBackupPolicy{}
	err := c.opts.Store.Get(ctx, key, p)
	if err != nil {
		return nil, err
	}
	v := &policyView{policy: p, now: c.opts.Now(), unreadable: map[string]string{}}
	if v.schedule, err = NewBackupSchedule(p.Spec.Schedule); err != nil {
		return nil, err
	}
	if err = c.view(ctx, v); err != nil {
		return nil, err
	}
	for c.readStores(ctx, v) {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	all := make([]BackupOutlook, 0, len(v.clusters))
	for i := range v.clusters {
		o := BackupOutlook{Cluster: store.KeyOf(v.clusters[i].cluster)}
		switch wrong := v.clusters[i].problem; {
		case wrong != nil:
			o.Refused = wrong.message
		case !p.Spec.Suspended:
			o.Due, _ = v.dueAt(&v.clusters[i]) // all stores were asked
		}
		for j := range p.Spec.Destinations {
			d, err := c.destinationOutlook(ctx, v, i, j)
			if err != nil {
				return nil, err
			}
			o.Destinations = append(o.Destinations, d)
		}
		all = append(all, o)
	}
	return all, nil
}

func (c *BackupController) destinationOutlook(ctx context.Context, v *policyView, cluster, destination int) (DestinationOutlook, error) {
	view, d := &v.clusters[cluster], &v.policy.Spec.Destinations[destination]
	e := view.entries[destination]
	out := DestinationOutlook{Name: d.Name, URL: d.URL, Problem: e.problem, Holdings: e.holdings}
	if out.Problem == "" && e.readAt.IsZero() {
		// One that is away is not asked for every cluster.
		out.Problem = cmp.Or(v.unreadable[d.Name], "it was not asked")
	}
	if out.Problem != "" || v.policy.Spec.Suspended {
		return out, nil
	}
	of, err := backupsOf(view.cluster)
	if err != nil {
		return out, err
	}
	rules, wrong, err := c.pruning(ctx, v.policy, d, of, v.schedule.Zone())
	if wrong != nil {
		err = errors.New(wrong.message)
	}
	if err != nil {
		return out, err
	}
	rules.DryRun = true
	if out.WouldDelete, err = c.opts.Backups.Prune(ctx, rules); err != nil {
		out.Problem = clip(err.Error())
	}
	return out, ctx.Err()
}
