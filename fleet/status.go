package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/store"
)

// writeStatus writes the cluster's status if it has changed, and records the
// changes that people want to know of.
func (c *ClusterController) writeStatus(ctx context.Context, s *State, p progress) error {
	obj := &v1alpha1.EtcdCluster{}
	var before v1alpha1.EtcdClusterStatus
	var changed bool
	err := store.MutateStatus(ctx, c.opts.Store, store.KeyOf(s.Cluster), obj, func(o *v1alpha1.EtcdCluster) (bool, error) {
		if o.UID != s.Cluster.UID {
			return false, nil
		}
		before = *o.Status.DeepCopy()
		setStatus(s, p, &o.Status)
		changed = !v1alpha1.Equal(before, o.Status)
		return changed, nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil || !changed {
		return err
	}
	c.tellHeld(ctx, obj, &before)
	c.tellConditions(ctx, obj, &before)
	return nil
}

// tellConditions records when a cluster begins or ceases to serve, or to be well.
func (c *ClusterController) tellConditions(ctx context.Context, obj *v1alpha1.EtcdCluster, before *v1alpha1.EtcdClusterStatus) {
	if obj.DeletionTimestamp != nil {
		return // that members go down is what was asked for
	}
	for _, kind := range []string{v1alpha1.ConditionAvailable, v1alpha1.ConditionDegraded} {
		was, is := v1alpha1.FindCondition(before.Conditions, kind), v1alpha1.FindCondition(obj.Status.Conditions, kind)
		if is == nil || was != nil && was.Status == is.Status && was.Reason == is.Reason {
			continue
		}
		if was == nil && kind == v1alpha1.ConditionDegraded && is.Status == v1alpha1.False {
			continue
		}
		e := store.Event{Type: store.Normal, Reason: is.Reason, Message: is.Message, Source: "fleet"}
		if bad := kind == v1alpha1.ConditionDegraded; (is.Status == v1alpha1.True) == bad && is.Reason != "Forming" && is.Reason != "Restoring" && is.Reason != "Suspended" {
			e.Type = store.Warning
		}
		c.opts.Recorder.Record(ctx, store.About(obj, e))
	}
}

// tellHeld records when a cluster comes to wait for something that only a person
// can give it.
func (c *ClusterController) tellHeld(ctx context.Context, obj *v1alpha1.EtcdCluster, before *v1alpha1.EtcdClusterStatus) {
	was := v1alpha1.FindCondition(before.Conditions, v1alpha1.ConditionProgressing)
	is := v1alpha1.FindCondition(obj.Status.Conditions, v1alpha1.ConditionProgressing)
	if is == nil || was != nil && was.Reason == is.Reason {
		return
	}
	switch is.Reason {
	case HeldCA, HeldNoRelease, HeldRestored, HeldNoCapacity, HeldSpread, HeldZones:
		c.opts.Recorder.Record(ctx, store.About(obj, store.Event{Type: store.Warning, Reason: is.Reason, Message: is.Message, Source: "fleet"}))
	}
}

// setStatus makes the whole status anew from the state.
func setStatus(s *State, p progress, st *v1alpha1.EtcdClusterStatus) {
	generation := s.Cluster.Generation
	healthy, wanted := s.healthyCount(), int(s.Cluster.Spec.Replicas)
	st.ObservedGeneration = generation
	st.Ready = fmt.Sprintf("%d/%d", min(healthy, wanted), wanted)
	st.Leader = ""
	if l := s.leader(); l != nil {
		st.Leader = l.Object.Name
	}
	st.Version = cmp.Or(s.lowestVersion(), s.Cluster.Spec.Version)
	st.Endpoints = nil
	for i := range s.Members {
		m := s.Members[i].Object
		if told(&s.Members[i]) && s.votes(&s.Members[i]) && m.Status.ClientURL != "" {
			st.Endpoints = append(st.Endpoints, m.Status.ClientURL)
		}
		if m.Spec.ClusterID != "" {
			st.ClusterID = m.Spec.ClusterID
		}
	}
	if s.restoring() {
		st.ClusterID = "" // that of the former members would be taken for the new one's
	}
	available := availableCondition(s)
	if (available.Reason == "Forming" || available.Reason == "Restoring") && p.plan.Held != "" {
		available.Message += ": " + p.plan.Held
	}
	progressing := progressingCondition(s, p)
	degraded := degradedCondition(s)
	if electing(s, p) {
		degraded.Status, degraded.Reason, degraded.Message = v1alpha1.False, ReasonMoving, electingText(p.task)
	}
	if updating(s, p) {
		degraded.Status, degraded.Reason = v1alpha1.False, "Updating"
		degraded.Message = p.task.Spec.Member + " is being restarted"
		if len(s.Members) > 1 {
			degraded.Message += "; the others serve"
		}
	}
	suspended := suspendedCondition(s)
	for _, cond := range []v1alpha1.Condition{available, progressing, degraded, suspended} {
		cond.ObservedGeneration, cond.LastTransitionTime = generation, v1alpha1.NewTime(s.ReadAt)
		v1alpha1.SetCondition(&st.Conditions, cond)
	}
	switch {
	case s.Cluster.DeletionTimestamp != nil:
		st.Summary = "Deleting"
	case suspended.Status == v1alpha1.True:
		st.Summary = "Suspended"
	case available.Status != v1alpha1.True:
		st.Summary = available.Reason
	case held(s.Cluster):
		st.Summary = "Held: " + HeldRestored
	case degraded.Status == v1alpha1.True:
		st.Summary = degraded.Reason
	case progressing.Status == v1alpha1.True:
		st.Summary = progressing.Reason
	default:
		st.Summary = "Healthy"
	}
}

// lowestVersion that members answer with, or empty.
func (s *State) lowestVersion() string {
	lowest := ""
	for i := range s.Members {
		if a, ok := s.answer(&s.Members[i]); ok && (lowest == "" || compareVersions(a.Version, lowest) < 0) {
			lowest = a.Version
		}
	}
	return lowest
}

func availableCondition(s *State) v1alpha1.Condition {
	c := v1alpha1.Condition{Type: v1alpha1.ConditionAvailable, Status: v1alpha1.False}
	voters := s.voters()
	healthy := s.healthyCount()
	switch {
	case s.restoring():
		c.Reason, c.Message = "Restoring", s.restoreText()
	case !s.formed():
		c.Reason, c.Message = "Forming", "the cluster is not formed yet"
	case healthy >= quorum(voters) && s.leader() != nil:
		c.Status, c.Reason = v1alpha1.True, "QuorumServes"
		c.Message = fmt.Sprintf("%d of %d members serve, %s leads", healthy, voters, s.leader().Object.Name)
	case allStopped(s):
		c.Reason, c.Message = "Suspended", "every member is stopped, as spec.suspended asks"
	case s.unasked():
		c.Status, c.Reason, c.Message = v1alpha1.Unknown, "NotAsked", "the members could not be asked"
	case healthy >= quorum(voters):
		c.Reason, c.Message = "NoLeader", "the members do not agree on a leader"
	case neverUp(s):
		c.Reason, c.Message = "Forming", "the members are starting: "+sickList(s)
	default:
		c.Reason = "QuorumLost"
		c.Message = fmt.Sprintf("%d of %d members serve, %d are needed: %s", healthy, voters, quorum(voters), sickList(s))
	}
	return c
}

// unasked reports whether no member has been asked since the objects were read.
func (s *State) unasked() bool {
	for i := range s.Members {
		if p := s.Members[i].Probe; p != nil && !p.SentAt.Before(s.ReadAt) {
			return false
		}
	}
	return true
}

// neverUp reports whether no member is known to have joined yet.
func neverUp(s *State) bool {
	for i := range s.Members {
		if s.Members[i].Object.Spec.MemberID != "" {
			return false
		}
	}
	return true
}

func allStopped(s *State) bool {
	for i := range s.Members {
		if m := &s.Members[i]; !stopped(m.Object) && told(m) {
			return false
		}
	}
	return s.formed()
}

// noneToStop reports whether no member, nor a former one, is left to be stopped.
func noneToStop(s *State) bool {
	for m := range s.everyMember {
		if m.Object.Spec.Run != v1alpha1.RunPrepared && !stopped(m.Object) {
			return false
		}
	}
	return true
}

func sickList(s *State) string {
	var sick []string
	for i := range s.Members {
		if m := &s.Members[i]; !s.healthy(m) && s.votes(m) {
			sick = append(sick, m.Object.Name+": "+s.whyUnhealthy(m))
		}
	}
	return strings.Join(sick, "; ")
}

func progressingCondition(s *State, p progress) v1alpha1.Condition {
	c := v1alpha1.Condition{Type: v1alpha1.ConditionProgressing, Status: v1alpha1.False}
	switch reason := s.changing(&p); {
	case reason != "" && p.task != nil:
		c.Status, c.Reason = v1alpha1.True, reason
		c.Message = fmt.Sprintf("task %s: %s %s: %s", p.task.Name, p.task.Spec.Action, p.task.Spec.Member, orElse(p.waiting, p.task.Spec.Reason))
	case reason != "" && (p.plan.Held == "" || p.plan.HeldReason == HeldLearner || p.plan.HeldReason == HeldNotPrepared):
		c.Status, c.Reason = v1alpha1.True, reason
		c.Message = fmt.Sprintf("%s %s: %s", p.plan.Steps[0].Action, p.plan.Steps[0].Member, orElse(p.plan.Held, p.plan.Steps[0].Reason))
	case p.plan.Held != "" && p.task == nil:
		c.Reason, c.Message = p.plan.HeldReason, p.plan.Held
	case p.task != nil:
		c.Status, c.Reason = v1alpha1.True, string(p.task.Spec.Action)
		c.Message = fmt.Sprintf("task %s on %s: %s", p.task.Name, p.task.Spec.Member, orElse(p.waiting, p.task.Spec.Reason))
	case len(p.plan.Steps) > 0:
		c.Status, c.Reason = v1alpha1.True, string(p.plan.Steps[0].Action)
		c.Message = fmt.Sprintf("steps to go: %d", len(p.plan.Steps))
	case s.formed() && neverUp(s):
		c.Status, c.Reason, c.Message = v1alpha1.True, "Forming", "the members are electing their first leader"
	default:
		c.Reason, c.Message = "AsWanted", "nothing is left to do"
	}
	return c
}

func degradedCondition(s *State) v1alpha1.Condition {
	c := v1alpha1.Condition{Type: v1alpha1.ConditionDegraded, Status: v1alpha1.False}
	switch {
	case s.Cluster.DeletionTimestamp != nil:
		c.Reason, c.Message = "Deleting", "the cluster is being deleted"
	case len(s.Alarms) > 0:
		c.Status, c.Reason, c.Message = v1alpha1.True, "AlarmRaised", alarmText(s.Alarms, s)
	case !s.formed() || allStopped(s) || neverUp(s):
		c.Reason, c.Message = "NotServing", "the cluster is not meant to serve yet, or not any more"
	case s.growing() && s.sickVoters("") == "":
		c.Reason, c.Message = "Forming", fmt.Sprintf("%d of %d members have joined", s.voters(), s.Cluster.Spec.Replicas)
	case s.healthyCount() < int(s.Cluster.Spec.Replicas):
		c.Status, c.Reason = v1alpha1.True, "MembersDown"
		c.Message = sickList(s)
		for i := range s.Members {
			if m := s.Members[i].Object; m.Status.Phase == v1alpha1.MemberRefused {
				c.Reason = "MemberRefused"
			}
		}
		if c.Message == "" {
			c.Message = fmt.Sprintf("%d of %d members exist", len(s.Members), s.Cluster.Spec.Replicas)
		}
	case len(s.silentHosts()) > 0:
		c.Status, c.Reason = v1alpha1.True, "HostsNotReady"
		c.Message = "every member serves, but nobody would restart those on " + strings.Join(s.silentHosts(), ", ") + ": no agent reports from there"
	default:
		c.Reason, c.Message = "AllHealthy", allHealthy(s.voters())
	}
	return c
}

func allHealthy(members int) string {
	if members == 1 {
		return "its only member is healthy"
	}
	return fmt.Sprintf("all %d members are healthy", members)
}

// updating reports whether the one member that is down is the one that is being
// restarted, since not long ago: that is no incident.
func updating(s *State, p progress) bool {
	const patience = time.Minute
	if p.task == nil || p.task.Spec.Action != v1alpha1.ActionUpdateMember || p.task.Status.ActedAt == nil ||
		s.ReadAt.Sub(p.task.Status.ActedAt.Time) > patience || len(s.Alarms) > 0 || len(s.Members) < int(s.Cluster.Spec.Replicas) {
		return false
	}
	for i := range s.Members {
		if m := &s.Members[i]; !s.healthy(m) && s.votes(m) && m.Object.Name != p.task.Spec.Member {
			return false
		}
	}
	return true
}

func alarmText(alarms []etcd.Alarm, s *State) string {
	texts := make([]string, 0, len(alarms))
	for _, a := range alarms {
		texts = append(texts, a.Type+" on "+s.nameOf(a.Member))
	}
	return "etcd has raised " + strings.Join(texts, ", ")
}

// nameOf is the name of a member by its ID, or the ID where it is a stranger.
func (s *State) nameOf(id etcd.ID) string {
	for i := range s.Members {
		if s.Members[i].Object.Spec.MemberID == id.String() {
			return s.Members[i].Object.Name
		}
	}
	return id.String()
}

func suspendedCondition(s *State) v1alpha1.Condition {
	c := v1alpha1.Condition{Type: v1alpha1.ConditionSuspended, Status: v1alpha1.False, Reason: "NotAsked", Message: "spec.suspended is false"}
	if s.Cluster.Spec.Suspended {
		c.Reason, c.Message = "Stopping", "members are being stopped"
		if noneToStop(s) {
			c.Status, c.Reason, c.Message = v1alpha1.True, "Stopped", "every member is proven to be stopped; data is kept"
		}
	}
	return c
}
