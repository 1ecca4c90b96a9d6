package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// maxAttention is how many clusters a status names.
const maxAttention = 20

// judgement is how one cluster's backups stand.
type judgement struct {
	fresh, proven, failed bool
	// rank orders what is wrong, the worst first; 0 is nothing.
	rank            int
	reason, message string
}

// The ranks of what is wrong.
const (
	rankFine = iota
	rankFailed
	rankUnproven
	rankStale
	rankRefused
)

// judge says how a cluster's backups stand. What is not known is not fine.
func (v *policyView) judge(view *clusterBackups) judgement {
	j := judgement{fresh: true, proven: true}
	stopped := view.problem != nil && view.problem.reason == reasonSuspended
	wrong := func(rank int, reason, message string) {
		if rank > j.rank {
			j.rank, j.reason, j.message = rank, reason, message
		}
	}
	for i, e := range view.entries {
		name := v.policy.Spec.Destinations[i].Name
		// A cluster that is stopped on purpose has no news to back up.
		if why := v.tooOld(e.holdings.Newest, "backup"); why != "" && (!stopped || e.holdings.Newest == nil) {
			j.fresh = false
			if !e.known && e.problem != "" {
				why = "nobody knows what it has: " + e.problem
			}
			wrong(rankStale, "Stale", "destination "+name+": "+why)
		}
		if why := v.tooOld(e.holdings.Proven, "proven backup"); why != "" && (!stopped || e.holdings.Proven == nil) {
			j.proven = false
			if v.policy.Spec.Proof.Wanted() {
				wrong(rankUnproven, "Unproven", "destination "+name+": "+why)
			}
		}
	}
	if len(view.done) > 0 {
		last := view.done[0]
		j.failed = last.Status.Phase == v1alpha1.BackupFailed || v1alpha1.IsTrue(last.Status.Conditions, v1alpha1.ConditionDegraded)
		if j.failed {
			wrong(rankFailed, reasonFailed, "backup "+last.Name+": "+last.Status.Message)
			// Why it is stale is what a person wants to know.
			if j.rank > rankFailed && j.rank < rankRefused {
				j.message += ": the last backup, " + last.Name + ", failed: " + last.Status.Message
			}
		}
	}
	if p := view.problem; p != nil && !stopped {
		j.failed = j.failed || p.reason == reasonNotAllowed
		wrong(rankRefused, p.reason, p.message)
	}
	j.message = clip(j.message)
	return j
}

// tooOld says why a backup is not young enough, or "".
func (v *policyView) tooOld(h *HeldBackup, what string) string {
	switch {
	case h == nil:
		return "it has no " + what
	case h.At.After(v.now.Add(clockSlack)):
		return fmt.Sprintf("its newest %s is dated %s, in the future: a clock is or was wrong", what, h.At.UTC().Format(time.RFC3339))
	case v.now.Sub(h.At) > v.stale:
		return fmt.Sprintf("its newest %s is of %s, and %s is the most", what, h.At.UTC().Format(time.RFC3339), shortDuration(v.stale))
	}
	return ""
}

// status of the policy as it is now.
func (v *policyView) status(st *v1alpha1.EtcdBackupPolicyStatus) {
	p := v.policy
	st.ObservedGeneration, st.Schedule = p.Generation, v.schedule.String()
	st.Clusters, st.Fresh, st.Stale, st.Unproven, st.Failed = int32(len(v.clusters)), 0, 0, 0, 0 //nolint:gosec // far fewer
	type ranked struct {
		rank int
		v1alpha1.ClusterAttention
	}
	var attention []ranked
	for i := range v.clusters {
		j := v.judge(&v.clusters[i])
		if j.fresh {
			st.Fresh++
		} else {
			st.Stale++
		}
		if !j.proven {
			st.Unproven++
		}
		if j.failed {
			st.Failed++
		}
		if j.rank != rankFine {
			attention = append(attention, ranked{j.rank, v1alpha1.ClusterAttention{Cluster: v.clusters[i].cluster.Name, Reason: j.reason, Message: j.message}})
		}
	}
	slices.SortFunc(attention, func(a, b ranked) int { return cmp.Or(b.rank-a.rank, strings.Compare(a.Cluster, b.Cluster)) })
	st.Attention = nil
	for _, a := range attention[:min(len(attention), maxAttention)] {
		st.Attention = append(st.Attention, a.ClusterAttention)
	}
	st.LastRunAt, st.NextRunAt = timeOr(v.lastRun, st.LastRunAt), timeOr(v.nextRun, nil)
	for _, cond := range []v1alpha1.Condition{v.ready(), v.freshness(st), v.provenness(st)} {
		cond.ObservedGeneration = p.Generation
		cond.Message = clip(cond.Message)
		v1alpha1.SetCondition(&st.Conditions, cond)
	}
}

func timeOr(at time.Time, otherwise *v1alpha1.Time) *v1alpha1.Time {
	if at.IsZero() {
		return otherwise
	}
	t := v1alpha1.NewTime(at)
	return &t
}

func (v *policyView) ready() v1alpha1.Condition {
	c := v1alpha1.Condition{Type: v1alpha1.ConditionReady, Status: v1alpha1.False}
	switch {
	case v.policy.Spec.Suspended:
		c.Reason, c.Message = reasonSuspended, "the policy is suspended: no backup is taken on schedule"
	case len(v.clusters) == 0:
		c.Reason, c.Message = "NoCluster", "it backs up nothing: "+v.nobody()
	case len(v.unreadable) > 0:
		c.Reason = "DestinationUnreadable"
		for _, name := range slices.Sorted(maps.Keys(v.unreadable)) {
			c.Message += fmt.Sprintf("destination %s: %s. ", name, v.unreadable[name])
		}
		c.Message = strings.TrimSpace(c.Message)
	default:
		c.Status, c.Reason, c.Message = v1alpha1.True, "Scheduled", "backups are taken "+v.schedule.String()
	}
	return c
}

func (v *policyView) nobody() string {
	if v.policy.Spec.ClusterName != "" {
		return fmt.Sprintf("there is no EtcdCluster %s in namespace %s", v.policy.Spec.ClusterName, v.policy.Namespace)
	}
	return fmt.Sprintf("no EtcdCluster in namespace %s has the labels of its selector", v.policy.Namespace)
}

func (v *policyView) freshness(st *v1alpha1.EtcdBackupPolicyStatus) v1alpha1.Condition {
	c := v1alpha1.Condition{Type: v1alpha1.ConditionFresh, Status: v1alpha1.True, Reason: "AllFresh"}
	switch {
	case st.Clusters == 0:
		c.Status, c.Reason, c.Message = v1alpha1.Unknown, "NoCluster", "it backs up nothing"
	case st.Stale > 0:
		c.Status, c.Reason = v1alpha1.False, "Stale"
		c.Message = fmt.Sprintf("%d of %d clusters have no backup that is at most %s old in every destination%s", st.Stale, st.Clusters, shortDuration(v.stale), first(st))
	default:
		c.Message = fmt.Sprintf("every cluster has a backup that is at most %s old in every destination", shortDuration(v.stale))
	}
	return c
}

func (v *policyView) provenness(st *v1alpha1.EtcdBackupPolicyStatus) v1alpha1.Condition {
	c := v1alpha1.Condition{Type: v1alpha1.ConditionProven, Status: v1alpha1.True, Reason: "AllProven"}
	switch {
	case st.Clusters == 0:
		c.Status, c.Reason, c.Message = v1alpha1.Unknown, "NoCluster", "it backs up nothing"
	case !v.policy.Spec.Proof.Wanted():
		c.Status, c.Reason, c.Message = v1alpha1.False, "NotWanted", "backups are not proven: "+v.policy.Spec.Proof.Reason
	case st.Unproven > 0:
		c.Status, c.Reason = v1alpha1.False, "Unproven"
		c.Message = fmt.Sprintf("%d of %d clusters have no proven backup that is at most %s old in every destination%s", st.Unproven, st.Clusters, shortDuration(v.stale), first(st))
	default:
		c.Message = "every cluster has a backup in every destination that was restored and found equal"
	}
	return c
}

// first names the cluster that needs attention most.
func first(st *v1alpha1.EtcdBackupPolicyStatus) string {
	if len(st.Attention) == 0 {
		return ""
	}
	return fmt.Sprintf(": cluster %s: %s", st.Attention[0].Cluster, st.Attention[0].Message)
}

// writePolicyStatus writes what has changed, and tells when a condition has.
func (c *BackupController) writePolicyStatus(ctx context.Context, v *policyView) error {
	return c.changePolicyStatus(ctx, v.policy, v.status)
}

// writeInvalid says that a policy can't be followed.
func (c *BackupController) writeInvalid(ctx context.Context, p *v1alpha1.EtcdBackupPolicy, why error) error {
	return c.changePolicyStatus(ctx, p, func(st *v1alpha1.EtcdBackupPolicyStatus) {
		st.ObservedGeneration, st.NextRunAt = p.Generation, nil
		for _, condition := range []string{v1alpha1.ConditionReady, v1alpha1.ConditionFresh, v1alpha1.ConditionProven} {
			status := v1alpha1.Unknown
			if condition == v1alpha1.ConditionReady {
				status = v1alpha1.False
			}
			v1alpha1.SetCondition(&st.Conditions, v1alpha1.Condition{
				Type: condition, Status: status, Reason: reasonBadSettings, Message: clip(why.Error()), ObservedGeneration: p.Generation,
			})
		}
	})
}

func (c *BackupController) changePolicyStatus(ctx context.Context, p *v1alpha1.EtcdBackupPolicy, change func(*v1alpha1.EtcdBackupPolicyStatus)) error {
	var before v1alpha1.EtcdBackupPolicyStatus
	changed := false
	obj := &v1alpha1.EtcdBackupPolicy{}
	err := store.MutateStatus(ctx, c.opts.Store, store.KeyOf(p), obj, func(now *v1alpha1.EtcdBackupPolicy) (bool, error) {
		if changed = false; now.UID != p.UID || now.Generation != p.Generation {
			return false, nil
		}
		before = *now.Status.DeepCopy()
		change(&now.Status)
		changed = !v1alpha1.Equal(before, now.Status)
		return changed, nil
	})
	if errors.Is(err, store.ErrNotFound) || err == nil && !changed {
		return nil
	}
	if err != nil {
		return err
	}
	for _, condition := range []string{v1alpha1.ConditionReady, v1alpha1.ConditionFresh, v1alpha1.ConditionProven} {
		was, is := v1alpha1.FindCondition(before.Conditions, condition), v1alpha1.FindCondition(obj.Status.Conditions, condition)
		if is == nil || was != nil && was.Status == is.Status && was.Reason == is.Reason {
			continue
		}
		e := store.Event{Type: store.Normal, Reason: is.Reason, Message: is.Message, Source: "fleet"}
		if is.Status == v1alpha1.False {
			e.Type = store.Warning
		}
		c.opts.Recorder.Record(ctx, store.About(obj, e))
	}
	return nil
}
