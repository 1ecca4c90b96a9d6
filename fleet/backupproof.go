package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/internal/bytesize"
	"github.com/quorate/quorate/store"
)

// prove tries the backup in each destination that has it.
func (r *backupRun) prove(ctx context.Context) {
	for _, d := range r.seen().Status.Destinations {
		if d.PointID == "" || d.ProofAt != nil {
			continue
		}
		verdict, err := r.proveIn(ctx, d)
		if ctx.Err() != nil {
			return
		}
		writeErr := r.write(ctx, func(st *v1alpha1.EtcdBackupStatus) {
			for i := range st.Destinations {
				if to := &st.Destinations[i]; to.Name == d.Name {
					recordProof(to, verdict, err)
				}
			}
		})
		if writeErr != nil {
			r.c.opts.Logger.WarnContext(ctx, "a proof could not be recorded; it lies in the store", slog.String("backup", r.record.Name), slog.Any("error", writeErr))
		}
	}
}

func recordProof(to *v1alpha1.BackupDestinationStatus, v BackupVerdict, err error) {
	if err != nil {
		to.Error = clip("it could not be proven: " + err.Error())
		return
	}
	at := v1alpha1.NewTime(v.At)
	to.Proven, to.ProofAt, to.RestoreMilliseconds = v.Verified, &at, v.Took.Milliseconds()
	to.Error = ""
	if !v.Verified {
		to.Error = clip("it was restored, and is not what was backed up: " + v.Reason)
	}
}

// proveIn tries one destination, again where it could not be tried.
func (r *backupRun) proveIn(ctx context.Context, d v1alpha1.BackupDestinationStatus) (BackupVerdict, error) {
	i := slices.IndexFunc(r.order.Stores, func(s BackupStore) bool { return s.Name == d.Name })
	if i < 0 {
		return BackupVerdict{}, fmt.Errorf("policy %s has no destination %s any more", r.record.Spec.PolicyName, d.Name)
	}
	trial := BackupTrial{BackupsOf: r.of, Store: r.order.Stores[i], PointID: d.PointID, Identity: r.identity, Progress: r.say}
	for try, wait := 1, proofWait; ; try, wait = try+1, 4*wait {
		proveCtx, cancel := context.WithTimeoutCause(ctx, r.c.opts.ProveTime, errTooLong)
		verdict, err := r.c.opts.Backups.Prove(proveCtx, trial)
		if err != nil {
			err = because(proveCtx, err)
		}
		cancel()
		if err == nil || try == proofTries || ctx.Err() != nil || errors.Is(err, errTooLong) || errors.Is(err, ErrHopeless) {
			return verdict, err
		}
		r.say("the proof in " + d.Name + " could not be carried out, and is tried again: " + err.Error())
		select {
		case <-ctx.Done():
			return verdict, err
		case <-time.After(wait):
		}
	}
}

// backupEnd is how a backup ended.
type backupEnd struct {
	phase   v1alpha1.BackupPhase
	reason  string
	message string
	// verified says what the condition Verified says, and partial that not all is well
	// although there is a backup.
	verified v1alpha1.Condition
	partial  string
}

// outcome judges a backup that was taken by what came of each destination.
func outcome(destinations []v1alpha1.BackupDestinationStatus, proof v1alpha1.BackupProof) backupEnd {
	var missing, wrong, untried, proven []string
	for _, d := range destinations {
		switch {
		case d.PointID == "":
			missing = append(missing, d.Name+": "+d.Error)
		case d.Proven:
			proven = append(proven, d.Name)
		case d.ProofAt != nil:
			wrong = append(wrong, d.Name+": "+d.Error)
		default:
			untried = append(untried, d.Name+": "+d.Error)
		}
	}
	end := backupEnd{verified: v1alpha1.Condition{Type: v1alpha1.ConditionVerified}}
	if len(missing) > 0 {
		end.partial = fmt.Sprintf("%d of %d destinations do not have it: %s", len(missing), len(destinations), strings.Join(missing, "; "))
	}
	switch {
	case len(wrong) > 0:
		end.phase, end.reason, end.message = v1alpha1.BackupFailed, "ProofFailed", "the backup can't be trusted: "+strings.Join(wrong, "; ")
		end.verified.Status = v1alpha1.False
	case !proof.Wanted():
		end.phase, end.reason = v1alpha1.BackupTaken, "NotProven"
		end.message = "it is stored, and not proven: " + proof.Reason
		end.verified.Status = v1alpha1.Unknown
	case len(untried) > 0:
		end.phase, end.reason = v1alpha1.BackupTaken, reasonUntried
		end.message = "it is stored, and could not be proven: " + strings.Join(untried, "; ")
		end.verified.Status, end.partial = v1alpha1.Unknown, strings.Join(append(untried, missing...), "; ")
	default:
		end.phase, end.reason = v1alpha1.BackupVerified, "Restored"
		end.message = "restored from " + strings.Join(proven, ", ") + " and found equal"
		end.verified.Status = v1alpha1.True
	}
	if end.partial != "" && end.phase == v1alpha1.BackupVerified {
		end.message += "; " + end.partial
	}
	return end
}

func progressing(st *v1alpha1.EtcdBackupStatus, reason, message string) {
	v1alpha1.SetCondition(&st.Conditions, v1alpha1.Condition{Type: v1alpha1.ConditionProgressing, Status: v1alpha1.True, Reason: reason, Message: clip(message)})
	v1alpha1.SetCondition(&st.Conditions, v1alpha1.Condition{Type: v1alpha1.ConditionVerified, Status: v1alpha1.Unknown, Reason: reason, Message: clip(message)})
	v1alpha1.SetCondition(&st.Conditions, v1alpha1.Condition{Type: v1alpha1.ConditionDegraded, Status: v1alpha1.False, Reason: reason, Message: clip(message)})
}

// finishBackup writes the end into a status.
func finishBackup(st *v1alpha1.EtcdBackupStatus, now time.Time, end backupEnd) {
	at := v1alpha1.NewTime(now)
	if st.StartedAt == nil {
		st.StartedAt = &at
	}
	st.Phase, st.Message, st.FinishedAt = end.phase, clip(end.message), &at
	degraded := v1alpha1.Condition{Type: v1alpha1.ConditionDegraded, Status: v1alpha1.False, Reason: end.reason, Message: st.Message}
	if end.phase == v1alpha1.BackupFailed || end.partial != "" {
		degraded.Status = v1alpha1.True
	}
	verified := end.verified
	if verified.Type == "" {
		verified = v1alpha1.Condition{Type: v1alpha1.ConditionVerified, Status: v1alpha1.False}
	}
	verified.Reason, verified.Message = end.reason, st.Message
	for _, cond := range []v1alpha1.Condition{
		{Type: v1alpha1.ConditionProgressing, Status: v1alpha1.False, Reason: "Finished", Message: st.Message}, degraded, verified,
	} {
		v1alpha1.SetCondition(&st.Conditions, cond)
	}
}

// tell records the end of a backup as an event.
func (c *BackupController) tell(ctx context.Context, b *v1alpha1.EtcdBackup) {
	e := store.Event{Type: store.Normal, Reason: "Backup" + string(b.Status.Phase), Source: "fleet", Message: b.Status.Message}
	if v1alpha1.IsTrue(b.Status.Conditions, v1alpha1.ConditionDegraded) {
		e.Type = store.Warning
		if b.Status.Phase != v1alpha1.BackupFailed {
			e.Reason = "BackupIncomplete"
		}
	}
	c.opts.Recorder.Record(ctx, store.About(b, e))
}

// after prunes where the backup is a good one, and collects old records.
func (r *backupRun) after(ctx context.Context, end backupEnd) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if r.settings.policy != nil && end.phase != v1alpha1.BackupFailed {
		if err := r.prune(ctx); err != nil {
			r.c.opts.Logger.WarnContext(ctx, "backups were not pruned", slog.String("policy", r.settings.policyName()), slog.Any("error", err))
		}
	}
	return r.c.tidy(ctx, r.record)
}

// prune applies the policy as it is now, not as it was when the backup began: hours may
// lie between. What has changed its place since is left for the next time.
func (r *backupRun) prune(ctx context.Context) error {
	c, b := r.c, r.seen()
	cluster, policy := &v1alpha1.EtcdCluster{}, &v1alpha1.EtcdBackupPolicy{}
	if err := c.opts.Store.Get(ctx, store.KeyOf(r.cluster), cluster); err != nil {
		return err
	}
	if err := c.opts.Store.Get(ctx, store.KeyOf(r.settings.policy), policy); err != nil {
		return err
	}
	// After a restore of the fleet's store the rules may be those of long ago.
	if cluster.UID != r.cluster.UID || held(cluster) || policy.UID != r.settings.policy.UID || policy.Spec.Suspended {
		return nil
	}
	schedule, err := NewBackupSchedule(policy.Spec.Schedule)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.opts.PruneTime, errTooLong)
	defer cancel()
	var failed []error
	for _, d := range b.Status.Destinations {
		i := slices.IndexFunc(policy.Spec.Destinations, func(to v1alpha1.BackupDestination) bool { return to.Name == d.Name })
		key, url, ok := r.bookKey(d.Name)
		if d.PointID == "" || i < 0 || !ok || policy.Spec.Destinations[i].URL != url {
			continue
		}
		rules, wrong, err := c.pruning(ctx, policy, &policy.Spec.Destinations[i], r.of, schedule.Zone())
		if wrong != nil || err != nil {
			continue
		}
		pruned, err := c.opts.Backups.Prune(ctx, rules)
		if err != nil {
			failed = append(failed, fmt.Errorf("destination %s: %w", d.Name, because(ctx, err)))
			c.opts.Recorder.Record(ctx, store.About(b, store.Event{
				Type: store.Warning, Reason: "PruneFailed", Source: "fleet", Message: clip(fmt.Sprintf("old backups in %s were not all deleted: %v", d.Name, err)),
			}))
			continue
		}
		now := c.opts.Now()
		c.book.change(key, identityOf(r.cluster), url, func(e *bookEntry) { e.read(now, pruned.Holdings) })
		if pruned.Deleted > 0 {
			c.opts.Recorder.Record(ctx, store.About(b, store.Event{
				Type: store.Normal, Reason: "BackupsPruned", Source: "fleet",
				Message: fmt.Sprintf("old backups deleted in %s: %d, %s; %d left", d.Name, pruned.Deleted, bytesize.Text(pruned.Bytes), pruned.Holdings.Points),
			}))
		}
	}
	return errors.Join(failed...)
}

// pruning is what a policy's rules ask for in one destination.
func (c *BackupController) pruning(ctx context.Context, p *v1alpha1.EtcdBackupPolicy, d *v1alpha1.BackupDestination, of BackupsOf, zone *time.Location) (BackupPruning, *problem, error) {
	in, wrong, err := c.storeOf(ctx, p.Namespace, d)
	if wrong != nil || err != nil {
		return BackupPruning{}, wrong, err
	}
	rules := BackupPruning{BackupsOf: of, Store: in, Policy: store.KeyOf(p).String(), Zone: zone, Retention: retentionOf(p, d)}
	if p.Spec.Proof.Wanted() {
		rules.AwaitProof = awaitProof
	}
	return rules, nil, nil
}

// tidy deletes the records of a cluster and policy beyond those that are kept.
func (c *BackupController) tidy(ctx context.Context, b *v1alpha1.EtcdBackup) error {
	records, err := c.records(ctx, b.Namespace, b.Spec.ClusterName)
	if err != nil {
		return err
	}
	records = slices.DeleteFunc(records, func(o *v1alpha1.EtcdBackup) bool { return o.Spec.PolicyName != b.Spec.PolicyName || !o.Finished() })
	// What is dated in the future goes first: it would hide what is new.
	limit := c.opts.Now().Add(clockSlack)
	newestFirst(records)
	slices.SortStableFunc(records, func(a, b *v1alpha1.EtcdBackup) int {
		return cmp.Compare(ordinal(began(a).After(limit)), ordinal(began(b).After(limit)))
	})
	verified := false
	for i, o := range records {
		newestVerified := !verified && o.Status.Phase == v1alpha1.BackupVerified
		verified = verified || newestVerified
		if i < keepRecords || newestVerified {
			continue
		}
		err = c.opts.Store.Delete(ctx, v1alpha1.KindBackup, store.KeyOf(o), store.Preconditions{UID: o.UID})
		if err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return nil
}

func ordinal(b bool) int {
	if b {
		return 1
	}
	return 0
}

// began is when a backup began, or was ordered.
func began(b *v1alpha1.EtcdBackup) time.Time {
	if b.Status.StartedAt != nil {
		return b.Status.StartedAt.Time
	}
	return b.CreationTimestamp.Time
}

func newestFirst(records []*v1alpha1.EtcdBackup) {
	slices.SortFunc(records, func(a, b *v1alpha1.EtcdBackup) int {
		if by := began(b).Compare(began(a)); by != 0 {
			return by
		}
		return strings.Compare(b.Name, a.Name)
	})
}
