package fleet

import (
	"fmt"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
)

// lostAfter is how long a host must have been silent before a member of it that does not
// vote yet is given up.
const lostAfter = time.Minute

// silentFor is how long the host's agent has not reported; zero while it does.
func (s *State) silentFor(h *HostState) time.Duration {
	c := v1alpha1.FindCondition(h.Object.Status.Conditions, v1alpha1.ConditionReady)
	if h.Ready || c == nil {
		return 0
	}
	return s.ReadAt.Sub(c.LastTransitionTime.Time)
}

// holdMembers states why the first step of a change of the members has to wait.
func holdMembers(s *State, p *v1alpha1.Plan, first *v1alpha1.PlanStep) {
	if first.Action == v1alpha1.ActionDeleteMember {
		if s.Roster == nil {
			// Etcd may have been told of it by somebody who died before he could say so.
			hold(p, HeldMemberList, "etcd could not be asked who its members are: "+orElse(s.RosterError, "no member serves"))
		}
		return
	}
	m := s.member(first.Member)
	learner := m != nil && !s.votes(m)
	if first.Action == v1alpha1.ActionRemoveMember && learner {
		s.holdDrop(p)
		return
	}
	except := ""
	if first.Action == v1alpha1.ActionRemoveMember {
		except = first.Member
	}
	switch sick := s.sickVoters(except); {
	case sick != "":
		hold(p, HeldUnhealthy, sick)
	case s.Roster == nil:
		hold(p, HeldMemberList, "etcd could not be asked who its members are: "+orElse(s.RosterError, "no member serves"))
	case len(s.undeclared()) > 0:
		hold(p, HeldUndeclared, "etcd has members that no EtcdMember declares: "+strings.Join(s.undeclared(), "; ")+
			": remove them with `etcdctl member remove ID` if they are not wanted")
	case s.corrupt():
		hold(p, HeldUnhealthy, "etcd has found that members' data differ (CORRUPT): find out which member is wrong before any joins or leaves")
	case s.leader() == nil:
		hold(p, HeldUnknownLeader, "the members do not agree on a leader yet")
	}
	if p.Held != "" {
		return
	}
	switch first.Action {
	case v1alpha1.ActionCreateMember:
		if s.Turn != "" {
			hold(p, HeldTurn, s.Turn)
			return
		}
		if host, _, why := s.placeNext(0, nil); host == nil {
			holdUnplaced(p, &why)
		}
	case v1alpha1.ActionAddMember:
		if why := s.unprepared(m); why != "" {
			hold(p, HeldNotPrepared, m.Object.Name+": "+why)
		}
	case v1alpha1.ActionPromoteMember:
		if why := s.unready(m); why != "" {
			hold(p, HeldLearner, m.Object.Name+": "+why)
		}
	case v1alpha1.ActionMoveLeader:
		if first.MemberID == "" {
			hold(p, HeldUnknownLeader, first.Member+" has not joined yet, so leadership can't be handed to it")
		}
	case v1alpha1.ActionRemoveMember:
		if l := s.leader(); l.Object.Name == first.Member && s.voters() > 1 {
			hold(p, HeldUnknownLeader, first.Member+" leads, and no healthy member is there to hand leadership to")
		} else if s.voters() < 2 {
			hold(p, HeldUnhealthy, first.Member+" is the only voter")
		}
	default:
	}
}

// holdDrop is for a learner, whose removal touches no quorum; it only needs one.
func (s *State) holdDrop(p *v1alpha1.Plan) {
	switch {
	case s.healthyCount() < quorum(s.voters()):
		hold(p, HeldUnhealthy, sickList(s))
	case s.Roster == nil:
		hold(p, HeldMemberList, "etcd could not be asked who its members are: "+orElse(s.RosterError, "no member serves"))
	case s.leader() == nil:
		hold(p, HeldUnknownLeader, "the members do not agree on a leader yet")
	}
}

// sickVoters says what is wrong with the voters other than one.
func (s *State) sickVoters(except string) string {
	var sick []string
	for i := range s.Members {
		m := &s.Members[i]
		if m.Object.Name != except && s.votes(m) && !s.healthy(m) {
			sick = append(sick, m.Object.Name+": "+s.whyUnhealthy(m))
		}
	}
	return strings.Join(sick, "; ")
}

// unprepared says why a member can't be started yet; empty if it can.
func (s *State) unprepared(m *MemberState) string {
	c := v1alpha1.FindCondition(m.Object.Status.Conditions, v1alpha1.ConditionPrepared)
	switch {
	case c != nil && c.Status == v1alpha1.True && m.Object.Status.ObservedGeneration >= m.Object.Generation && m.Object.Status.PeerURL != "":
		return ""
	case c != nil && c.Status != v1alpha1.True:
		return c.Message
	case !m.HostReady:
		return "the agent of host " + m.Object.Spec.Host + " does not report"
	}
	return "its host has not reported yet"
}

// unready says why a learner is not to be promoted yet: etcd itself would promote one that
// is dead, since it only asks how far the log once was.
func (s *State) unready(m *MemberState) string {
	a, ok := s.answer(m)
	leader := s.leader()
	if !ok || leader == nil {
		if phase := m.Object.Status.Phase; phase == v1alpha1.MemberCrashLoop || phase == v1alpha1.MemberFailed {
			return fmt.Sprintf("%s: %s", phase, m.Object.Status.Message)
		}
		if !m.HostReady && !ok {
			return fmt.Sprintf("the agent of host %s does not report, and its etcd %s; if that lasts for %s, another is made on another host",
				m.Object.Spec.Host, m.silence(s), lostAfter)
		}
		return "its etcd " + m.silence(s)
	}
	end, _ := s.answer(leader)
	r := s.listed(m)
	switch {
	case r == nil || r.ID != a.MemberID:
		return "another etcd answers at its address"
	case m.Object.Spec.MemberID == "":
		return "it has not been seen to have joined yet"
	case len(a.Errors) > 0:
		return strings.Join(a.Errors, ", ")
	case a.Leader != end.MemberID:
		return "it does not follow the leader yet"
	case a.AppliedIndex+learnerLag < end.Index:
		return fmt.Sprintf("it is catching up, %d of %d entries", a.AppliedIndex, end.Index)
	}
	return ""
}

// Reasons of the condition Progressing while members join and leave.
const (
	ReasonForming = "Forming"
	ReasonMoving  = "MovingMember"
)

// growing reports whether the cluster is still being formed, one member after another: it
// has never been seen with all of them.
func (s *State) growing() bool {
	if !s.sequential() || s.voters() >= int(s.Cluster.Spec.Replicas) {
		return false
	}
	d := v1alpha1.FindCondition(s.Cluster.Status.Conditions, v1alpha1.ConditionDegraded)
	return d == nil || d.Reason == "NotServing" || d.Reason == ReasonForming
}

// changing is the reason of the condition Progressing where the step under way, or the
// next one, brings a member in or out of a cluster that serves; empty where it does not.
func (s *State) changing(p *progress) string {
	if s.Roster == nil || s.Cluster.DeletionTimestamp != nil || s.Cluster.Spec.Suspended || len(p.plan.Steps) == 0 && p.task == nil {
		return ""
	}
	var action v1alpha1.TaskAction
	if p.task != nil {
		action = p.task.Spec.Action
	} else {
		action = p.plan.Steps[0].Action
	}
	c := s.changes()
	switch action {
	case v1alpha1.ActionCreateMember, v1alpha1.ActionAddMember, v1alpha1.ActionPromoteMember, v1alpha1.ActionRemoveMember, v1alpha1.ActionDeleteMember:
	case v1alpha1.ActionMoveLeader:
		if !c.begun(s) {
			return ""
		}
	default:
		return ""
	}
	if s.growing() {
		return ReasonForming
	}
	return ReasonMoving
}

// electing reports whether what is amiss is only that leadership was moved a moment ago,
// or that the members changed: those that answer may know no leader for an instant.
func electing(s *State, p progress) bool {
	if p.task == nil || p.task.Status.ActedAt == nil || s.ReadAt.Sub(p.task.Status.ActedAt.Time) > moveLeaderPatience || len(s.Alarms) > 0 {
		return false
	}
	switch p.task.Spec.Action {
	case v1alpha1.ActionMoveLeader, v1alpha1.ActionPromoteMember, v1alpha1.ActionRemoveMember:
	default:
		return false
	}
	voters := 0
	for i := range s.Members {
		m := &s.Members[i]
		if !s.votes(m) {
			continue
		}
		voters++
		if _, ok := s.answer(m); !ok && m.Object.Name != p.task.Spec.Member {
			return false
		}
	}
	return voters >= int(s.Cluster.Spec.Replicas)
}

// electingText says what keeps the members busy while electing is true.
func electingText(t *v1alpha1.EtcdTask) string {
	switch t.Spec.Action {
	case v1alpha1.ActionPromoteMember:
		return t.Spec.Member + " becomes a voter"
	case v1alpha1.ActionRemoveMember:
		return t.Spec.Member + " leaves the cluster"
	default:
		return "leadership is moving to " + t.Spec.Member
	}
}
