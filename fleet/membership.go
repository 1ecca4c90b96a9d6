package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
)

// observeMembership reads what a change of the members depends on: etcd's own list of
// them, whose turn it is, and the hosts that a new one may come to.
func (c *ClusterController) observeMembership(ctx context.Context, s *State, open *v1alpha1.EtcdTask) error {
	if !s.rosterWanted(open) {
		return nil
	}
	var via []*v1alpha1.EtcdMember
	for i := range s.Members {
		if a, ok := s.answer(&s.Members[i]); ok && a.Leader != 0 && !a.Learner {
			via = append(via, s.Members[i].Object)
		}
	}
	if len(via) == 0 {
		return nil
	}
	const patience = 2 * time.Second
	ask, cancel := context.WithTimeout(ctx, patience)
	roster, err := c.opts.Etcd.Members(ask, s.Cluster, via)
	cancel()
	if err != nil {
		s.RosterError = short(err)
		return nil // the plan is held, and says why
	}
	s.Roster = roster
	s.setLeftAside()
	if !s.wantsHost() {
		return nil
	}
	if s.Turn, err = c.turns.take(ctx, c.opts.Store, s, c.opts.Now()); err != nil || s.Turn != "" {
		return err
	}
	s.Hosts = nil
	return c.observeAllHosts(ctx, s)
}

// hasLeft reports whether etcd has removed the member from the cluster, or never knew it.
func (s *State) hasLeft(m *MemberState) bool {
	for i := range s.Left {
		if s.Left[i].Object.Name == m.Object.Name {
			return true
		}
	}
	return false
}

// stays reports whether a member that was to be removed is to stay after all: etcd still
// counts it, or it is a learner that is wanted again, and nothing asks for its going any more.
func (s *State) stays(m *MemberState) bool {
	if s.Roster == nil || s.draining(m) {
		return false
	}
	c := s.changes()
	if !s.votes(m) {
		return c.joining != nil && c.joining.Object.Name == m.Object.Name
	}
	return c.surplus == 0
}

// bootstrapToken is that of the cluster's members. It has no meaning for one that joins.
func (s *State) bootstrapToken() string {
	for i := range s.Members {
		if b := s.Members[i].Object.Spec.Bootstrap; b != nil && b.Token != "" {
			return b.Token
		}
	}
	return "quorate-" + string(s.Cluster.UID)
}

// judgeMembers decides on a task that changes who the members are.
func judgeMembers(s *State, t *v1alpha1.EtcdTask, m *MemberState) verdict {
	abandoned := func(why string) verdict { return verdict{v1alpha1.TaskAbandoned, why} }
	switch {
	case t.Spec.Action == v1alpha1.ActionAddMember && told(m):
		return verdict{v1alpha1.TaskSucceeded, "a learner of the cluster, and told to run"}
	case t.Spec.Action == v1alpha1.ActionPromoteMember && s.Roster != nil && s.votes(m):
		return verdict{v1alpha1.TaskSucceeded, fmt.Sprintf("it votes; there are %d voters", s.voters())}
	case t.Spec.Action == v1alpha1.ActionRemoveMember && s.hasLeft(m):
		return verdict{v1alpha1.TaskSucceeded, fmt.Sprintf("removed; there are %d voters", s.voters())}
	case s.hasLeft(m):
		return abandoned("etcd has removed it from the cluster")
	case s.Cluster.DeletionTimestamp != nil || s.Cluster.Spec.Suspended:
		return abandoned("the cluster is no longer to run")
	case s.isFormer(m):
		return abandoned("the member is replaced by restored data")
	}
	return verdict{}
}

// heldChange makes what etcd said to a change of its members wait: its refusals pass, and
// what became of a request that was not answered is seen next time.
func heldChange(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: etcd says: %s; it is tried again: %w", what, short(err), errHeld)
}

// addMember makes a prepared member a learner of the cluster, and tells it to run. Whoever
// comes after a death between the two finds its peer URL among etcd's members.
func (c *ClusterController) addMember(ctx context.Context, s *State, m *MemberState) error {
	leader := s.leader()
	if leader == nil {
		return fmt.Errorf("add %s: no leader: %w", m.Object.Name, errHeld)
	}
	obj := m.Object.DeepCopy()
	what := "add " + obj.Name
	roster, err := c.opts.Etcd.Members(ctx, s.Cluster, []*v1alpha1.EtcdMember{leader.Object})
	if err != nil {
		return heldChange(what, err)
	}
	find := func() *etcd.Member {
		now := State{Roster: roster}
		return now.listed(m)
	}
	if find() == nil {
		if err = c.opts.Etcd.AddLearner(ctx, s.Cluster, leader.Object, obj.Status.PeerURL); err != nil {
			return heldChange(what, err)
		}
		if roster, err = c.opts.Etcd.Members(ctx, s.Cluster, []*v1alpha1.EtcdMember{leader.Object}); err != nil {
			return heldChange(what, err)
		}
	}
	if find() == nil {
		return fmt.Errorf("add %s: etcd does not list it yet: %w", obj.Name, errHeld)
	}
	obj.Spec = WantedSpec(s.Cluster, obj)
	obj.Spec.Ports, obj.Spec.Run = obj.Status.Ports, v1alpha1.RunRunning
	obj.Spec.Bootstrap.InitialCluster = s.peers(roster)
	return c.opts.Store.Update(ctx, obj)
}

// peers names etcd's members as a joining one is told of them: all of them, as etcd
// compares their URLs with its own list.
func (s *State) peers(roster []etcd.Member) []v1alpha1.Peer {
	peers := make([]v1alpha1.Peer, 0, len(roster))
	now := State{Roster: roster}
	for i := range roster {
		r := &roster[i]
		name := orElse(r.Name, r.ID.String())
		for j := range s.Members {
			if l := now.listed(&s.Members[j]); l != nil && l.ID == r.ID {
				name = s.Members[j].Object.Name
			}
		}
		for _, url := range r.PeerURLs {
			peers = append(peers, v1alpha1.Peer{Name: name, URL: url})
		}
	}
	return peers
}

func (c *ClusterController) promoteMember(ctx context.Context, s *State, m *MemberState) error {
	leader, r := s.leader(), s.listed(m)
	if leader == nil || r == nil {
		return fmt.Errorf("promote %s: etcd's leader or the learner is not known: %w", m.Object.Name, errHeld)
	}
	return heldChange("promote "+m.Object.Name, c.opts.Etcd.Promote(ctx, s.Cluster, leader.Object, r.ID))
}

// removeMember takes a member out of the cluster. That it is to go is written down first:
// it is never started again by one who does not know whether it went.
func (c *ClusterController) removeMember(ctx context.Context, s *State, m *MemberState) error {
	leader, r := s.leader(), s.listed(m)
	if leader == nil || r == nil {
		return fmt.Errorf("remove %s: etcd's leader or the member is not known: %w", m.Object.Name, errHeld)
	}
	if !m.Object.Spec.Leaving {
		obj := m.Object.DeepCopy()
		obj.Spec.Leaving = true
		if err := c.opts.Store.Update(ctx, obj); err != nil {
			return err
		}
		m.Object = obj
	}
	err := c.opts.Etcd.Remove(ctx, s.Cluster, leader.Object, r.ID)
	if errors.Is(err, context.Canceled) {
		return err
	}
	return heldChange("remove "+m.Object.Name, err)
}
