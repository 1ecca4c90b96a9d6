package fleet

import (
	"fmt"
	"slices"

	"github.com/quorate/quorate/api/v1alpha1"
)

// planFormed is the plan of a cluster that exists: who runs with an older configuration is
// restarted, and who is to join or leave does. What has begun is finished first; only
// members that are down anyway are restarted before, since that may be what heals them.
func planFormed(s *State, p *v1alpha1.Plan) {
	starting := len(p.Steps) > 0
	down, update := planUpdate(s)
	members, begun := planMembers(s)
	steps := slices.Concat(down, update, members)
	if begun {
		steps = slices.Concat(down, members, update)
	}
	p.Steps = append(p.Steps, steps...)
	if starting || len(steps) == 0 {
		return
	}
	if isUpdate(steps, update, len(down) > 0, begun) {
		holdUpdate(s, p, &steps[0])
	} else {
		holdMembers(s, p, &steps[0])
	}
}

// isUpdate reports whether the first step belongs to an update of the configuration: a
// change of leader may belong to either.
func isUpdate(steps, update []v1alpha1.PlanStep, down, begun bool) bool {
	return steps[0].Action == v1alpha1.ActionUpdateMember || !down && !begun && len(update) > 0
}

// neededBack reports whether a stopped member that was to be removed has to be started
// again: the others all answer, and have found no leader without it for a minute. Had it
// been removed, they would need it no more.
func (s *State) neededBack(m *MemberState) bool {
	if s.Roster != nil {
		return false
	}
	for i := range s.Members {
		o := &s.Members[i]
		if _, ok := s.answer(o); o.Object.Name != m.Object.Name && s.votes(o) && !ok {
			return false
		}
	}
	c := v1alpha1.FindCondition(s.Cluster.Status.Conditions, v1alpha1.ConditionAvailable)
	return s.leaderless() && c != nil && c.Status == v1alpha1.False && s.ReadAt.Sub(c.LastTransitionTime.Time) > lostAfter
}

// sequential reports whether one member founds the cluster and the others join it.
func (s *State) sequential() bool {
	return s.Cluster.Spec.Formation.Mode == v1alpha1.FormationSequential && s.Cluster.Spec.RestoreName == ""
}

// planFounder forms a cluster of one member; the others join it once it serves.
func planFounder(s *State, p *v1alpha1.Plan) {
	name := s.newName(0)
	if len(s.Members) > 0 {
		name = s.Members[0].Object.Name
		holdUnprepared(s, p)
	} else {
		host, _, why := s.placeNext(0, nil)
		if host == nil {
			holdUnplaced(p, &why)
		}
		p.Steps = append(p.Steps, v1alpha1.PlanStep{
			Action: v1alpha1.ActionCreateMember, Member: name, Reason: "it founds the cluster alone, and the others join it",
			Precondition: "a host is ready",
			Impact:       "none: its host prepares ports, release and certificates, and starts nothing",
		})
	}
	p.Steps = append(p.Steps, startStep(name, "the cluster is being formed", "it is prepared"))
	for i := 1; i < int(s.Cluster.Spec.Replicas); i++ {
		next := s.newName(i - len(s.Members))
		step := s.createStep(next, i, nil)
		step.Reason = fmt.Sprintf("the cluster wants %d members and has %d", s.Cluster.Spec.Replicas, i)
		p.Steps = append(p.Steps, step)
		p.Steps = append(p.Steps, s.joinSteps(next, true)...)
	}
}

// notes are what a person should know of a cluster of this shape.
func (s *State) notes() []string {
	if s.Cluster.DeletionTimestamp != nil {
		return nil
	}
	var notes []string
	switch n := int(s.Cluster.Spec.Replicas); {
	case n == 1:
		notes = append(notes, "1 member: its loss stops everything, and its disk holds the only copy of the data; 3 tolerate the loss of one")
	case n == 2:
		notes = append(notes, "2 members: the loss of either stops writes; 3 tolerate the loss of one")
	case n%2 == 0:
		notes = append(notes, fmt.Sprintf("%d members tolerate the loss of %d, as %d do, and each write waits for %d of them instead of %d", n, n-quorum(n), n-1, quorum(n), quorum(n-1)))
	case n >= 7:
		notes = append(notes, fmt.Sprintf("%d members tolerate the loss of %d, and each write waits for %d of them", n, n-quorum(n), quorum(n)))
	}
	notes = append(notes, s.placementNotes()...)
	for i := range s.Left {
		if m := &s.Left[i]; m.Object.DeletionTimestamp != nil && !m.HostReady {
			notes = append(notes, fmt.Sprintf("%s has left the cluster; host %s stops it and puts its data aside once its agent reports again", m.Object.Name, m.Object.Spec.Host))
		}
	}
	if s.Cluster.Spec.Suspended {
		for i := range s.Members {
			if m := &s.Members[i]; s.draining(m) {
				notes = append(notes, fmt.Sprintf("host %s is being drained, and %s stays there while the cluster is suspended: set spec.suspended to false to have it moved, or end the drain (`quorate host uncordon %s`)",
					m.Object.Spec.Host, m.Object.Name, m.Object.Spec.Host))
			}
		}
	}
	return notes
}
