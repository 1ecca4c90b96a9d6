package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
)

// Reasons for which a change of the members is held.
const (
	// HeldLearner: the member that joins has not caught up with the leader yet.
	HeldLearner = "LearnerNotReady"
	// HeldMemberList: etcd could not be asked who its members are.
	HeldMemberList = "MemberListUnknown"
	// HeldUndeclared: etcd has a member that no EtcdMember declares.
	HeldUndeclared = "UndeclaredMember"
	// HeldTurn: another cluster is moved off the draining host first.
	HeldTurn = "WaitingForTurn"
)

// learnerLag is how many entries a learner may be behind the leader when it is promoted.
// The two are asked at slightly different moments, so under load it is never zero.
const learnerLag = 500

// A member joins a cluster that serves in three steps: it is created and prepared, added
// as a learner, and promoted once it has caught up. It leaves in two: etcd removes it,
// then its process is stopped and its data retired. A voter is removed only after its
// replacement votes, and one thing is done at a time: etcd allows one learner, and each
// change is easier to trust on a cluster in which nothing else moves.

// changes is who is there, sorted by what is to become of them.
type changes struct {
	// voters are the members that etcd counts, and leaving those of them that are to
	// go: on draining hosts, or deleted.
	voters, leaving []*MemberState
	// joining is the member on its way in, or nil; useless are those on their way that
	// are not wanted any more, or will never arrive.
	joining *MemberState
	useless []*MemberState
	// need is how many more voters are wanted beside those that stay.
	need int
	// surplus is how many voters are too many.
	surplus int
}

// changes sorts the members. It is no plan: what it says may be impossible now.
func (s *State) changes() changes {
	var c changes
	wanted := int(s.Cluster.Spec.Replicas)
	var coming []*MemberState
	for i := range s.Members {
		m := &s.Members[i]
		switch {
		case s.votes(m):
			c.voters = append(c.voters, m)
			if m.Object.DeletionTimestamp != nil || s.draining(m) {
				c.leaving = append(c.leaving, m)
			}
		case m.Object.DeletionTimestamp != nil || s.draining(m) || s.hopeless(m) != "":
			c.useless = append(c.useless, m)
		default:
			coming = append(coming, m)
		}
	}
	c.need = max(wanted-(len(c.voters)-len(c.leaving)), 0)
	c.surplus = max(len(c.voters)-wanted, 0)
	// One that etcd knows of already goes before one that is only prepared.
	slices.SortStableFunc(coming, func(a, b *MemberState) int { return cmp.Compare(btoi(!told(a)), btoi(!told(b))) })
	if c.need > 0 && len(coming) > 0 {
		c.joining, coming = coming[0], coming[1:]
	}
	c.useless = append(c.useless, coming...)
	return c
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// begun reports whether a member is half-way in or out.
func (c *changes) begun(s *State) bool {
	return c.joining != nil || len(c.useless) > 0 || c.surplus > 0 || len(c.voters) < int(s.Cluster.Spec.Replicas) ||
		slices.ContainsFunc(s.Left, func(m MemberState) bool { return m.Object.DeletionTimestamp == nil })
}

// joiner reports whether a member joins, or joined, a cluster that was there already.
func joiner(m *MemberState) bool {
	b := m.Object.Spec.Bootstrap
	return b != nil && b.State == v1alpha1.BootstrapExisting
}

// told reports whether a member was told how to bootstrap. Joiners say from their
// creation that they are; their list of members comes with their start.
func told(m *MemberState) bool {
	b := m.Object.Spec.Bootstrap
	return b != nil && (b.State != v1alpha1.BootstrapExisting || len(b.InitialCluster) > 0)
}

// listed is the member as etcd lists it, or nil where it does not, or was not asked.
func (s *State) listed(m *MemberState) *etcd.Member {
	for i := range s.Roster {
		r := &s.Roster[i]
		if m.Object.Spec.MemberID != "" && r.ID.String() == m.Object.Spec.MemberID ||
			m.Object.Spec.MemberID == "" && m.Object.Status.PeerURL != "" && slices.Contains(r.PeerURLs, m.Object.Status.PeerURL) {
			return r
		}
	}
	return nil
}

// votes reports whether etcd counts the member. Where etcd's list was not read, the
// member's own word counts, and one that has ever joined is taken for a voter.
func (s *State) votes(m *MemberState) bool {
	if s.Roster != nil {
		r := s.listed(m)
		return r != nil && !r.Learner
	}
	if !told(m) {
		return m.Object.Spec.Bootstrap == nil // a founder that is still to be told
	}
	if a, ok := s.answer(m); ok {
		return !a.Learner
	}
	return !joiner(m) || m.Object.Spec.MemberID != ""
}

// voters counts the members that etcd counts, those included that nobody declares.
func (s *State) voters() int {
	n := 0
	if s.Roster != nil {
		for i := range s.Roster {
			n += btoi(!s.Roster[i].Learner)
		}
		return n
	}
	for i := range s.Members {
		n += btoi(s.votes(&s.Members[i]))
	}
	return n
}

// draining reports whether the member's host is to be emptied.
func (s *State) draining(m *MemberState) bool {
	h := s.host(m.Object.Spec.Host)
	return h != nil && h.Object.Spec.Drain
}

// hopeless says why a member that does not vote yet never will; empty while it may.
func (s *State) hopeless(m *MemberState) string {
	_, answers := s.answer(m)
	host := s.host(m.Object.Spec.Host)
	switch {
	case m.Object.Status.Phase == v1alpha1.MemberRefused && told(m):
		return "its host refuses to start it: " + m.Object.Status.Message
	case !told(m) && unfitHost(m):
		return "its host does not take it: " + m.Object.Status.Message
	case host == nil:
		return "there is no host " + m.Object.Spec.Host
	case !host.Ready && !answers && s.silentFor(host) >= lostAfter:
		return "the agent of host " + m.Object.Spec.Host + " does not report, and its etcd does not answer"
	}
	return ""
}

// unfitHost reports whether the host has refused a member that has not been there yet.
func unfitHost(m *MemberState) bool {
	c := v1alpha1.FindCondition(m.Object.Status.Conditions, v1alpha1.ConditionPrepared)
	return c != nil && c.Status == v1alpha1.False && c.Reason == ReasonHostUnfit
}

// undeclared are the members that etcd lists and no object declares, in words.
func (s *State) undeclared() []string {
	var strangers []string
	for i := range s.Roster {
		r := &s.Roster[i]
		if !slices.ContainsFunc(s.Members, func(m MemberState) bool { l := s.listed(&m); return l != nil && l.ID == r.ID }) {
			strangers = append(strangers, fmt.Sprintf("%s (%s)", r.ID, strings.Join(r.PeerURLs, ", ")))
		}
	}
	return strangers
}

// rosterWanted reports whether etcd has to be asked who its members are: where all is as
// wanted, the members' own answers say enough. A task under way may have changed that.
func (s *State) rosterWanted(open *v1alpha1.EtcdTask) bool {
	if s.Cluster.DeletionTimestamp != nil || len(s.Former) > 0 || !s.formed() || neverUp(s) {
		return false
	}
	if len(s.Members) != int(s.Cluster.Spec.Replicas) {
		return true
	}
	if open != nil {
		switch open.Spec.Action {
		case v1alpha1.ActionAddMember, v1alpha1.ActionPromoteMember, v1alpha1.ActionRemoveMember, v1alpha1.ActionDeleteMember:
			return true
		default:
		}
	}
	for i := range s.Members {
		m := &s.Members[i]
		a, ok := s.answer(m)
		if m.Object.Spec.Leaving || m.Object.DeletionTimestamp != nil || s.draining(m) || joiner(m) && (!ok || a.Learner || m.Object.Spec.MemberID == "") {
			return true
		}
	}
	return false
}

// setLeftAside tells the members that etcd has removed from those that there are.
func (s *State) setLeftAside() {
	if s.Roster == nil {
		return
	}
	all := s.Members
	s.Members = nil
	for i := range all {
		m := &all[i]
		o := m.Object
		was := o.Spec.MemberID != "" || o.Spec.Leaving || joiner(m) && (told(m) || o.DeletionTimestamp != nil)
		if was && s.listed(m) == nil {
			s.Left = append(s.Left, *m)
		} else {
			s.Members = append(s.Members, *m)
		}
	}
}

// wantsHost reports whether a host is to be chosen for a member that is to join.
func (s *State) wantsHost() bool {
	if s.Roster == nil || s.Cluster.Spec.Suspended || s.restoreOpen() {
		return false
	}
	c := s.changes()
	return c.need > 0 && c.joining == nil && c.surplus == 0 && len(c.useless) == 0
}

// restoreOpen reports whether the cluster's restore is still being carried out: members
// move once it is over.
func (s *State) restoreOpen() bool {
	return s.Cluster.Spec.RestoreName != "" && s.Restore != nil && s.unrestorable() == ""
}

// planMembers says what is to be done about who is a member; begun, that some of it was
// done already, so that it goes before what has not begun.
func planMembers(s *State) (steps []v1alpha1.PlanStep, begun bool) {
	if neverUp(s) || s.restoreOpen() {
		return nil, false
	}
	for i := range s.Left {
		if m := &s.Left[i]; m.Object.DeletionTimestamp == nil {
			steps = append(steps, goStep(s, m, "etcd has removed it from the cluster"))
		}
	}
	c := s.changes()
	for _, m := range c.useless {
		steps = append(steps, s.dropSteps(m)...)
	}
	gone := c.goners()
	for range c.surplus {
		if len(gone) > 0 {
			steps, gone = append(steps, s.leaveSteps(gone[0], "")...), gone[1:]
		}
	}
	need := c.need
	missing := int(s.Cluster.Spec.Replicas) - len(c.voters)
	// arrived is what follows the coming of a member: it fills a gap, or another goes.
	arrived := func(name string) {
		if missing--; missing < 0 && len(gone) > 0 {
			steps, gone = append(steps, s.leaveSteps(gone[0], name)...), gone[1:]
		}
	}
	if c.joining != nil {
		steps = append(steps, s.joinSteps(c.joining.Object.Name, !told(c.joining))...)
		need--
		arrived(c.joining.Object.Name)
	}
	for i := range need {
		name := s.newName(i)
		replaced := gone
		if missing > 0 {
			replaced = nil
		}
		steps = append(steps, s.createStep(name, i, replaced))
		steps = append(steps, s.joinSteps(name, true)...)
		arrived(name)
	}
	return steps, len(steps) > 0 && c.begun(s)
}

// goners are the voters that are to go, in order; those that are only too many come last:
// the newest first, and the leader never before others.
func (c *changes) goners() []*MemberState {
	rank := func(m *MemberState) int {
		switch {
		case m.Object.Spec.Leaving:
			return 0 // it may have been removed already, without anybody having seen it
		case m.Object.DeletionTimestamp != nil:
			return 1
		case slices.Contains(c.leaving, m):
			return 2
		}
		return 3
	}
	gone := slices.Clone(c.voters)
	slices.Reverse(gone) // members are sorted by number
	slices.SortStableFunc(gone, func(a, b *MemberState) int {
		if ra, rb := rank(a), rank(b); ra != rb {
			return cmp.Compare(ra, rb)
		}
		return cmp.Compare(btoi(c.leads(a)), btoi(c.leads(b)))
	})
	if extra := len(c.leaving) + max(c.surplus-len(c.leaving), 0); extra < len(gone) {
		gone = gone[:extra]
	}
	return gone
}

// leads reports whether the member says that it leads; a hint for the order only.
func (*changes) leads(m *MemberState) bool {
	return m.Probe != nil && m.Probe.Err == "" && m.Probe.Status.Leader != 0 && m.Probe.Status.Leader == m.Probe.Status.MemberID
}

// createStep declares a member that is to join.
func (s *State) createStep(name string, i int, gone []*MemberState) v1alpha1.PlanStep {
	reason := fmt.Sprintf("the cluster wants %d members and has %d", s.Cluster.Spec.Replicas, s.voters()+i)
	if len(gone) > 0 {
		reason = fmt.Sprintf("it takes the place of %s, whose host %s is being drained", gone[0].Object.Name, gone[0].Object.Spec.Host)
	}
	return v1alpha1.PlanStep{
		Action: v1alpha1.ActionCreateMember, Member: name, Reason: reason,
		Precondition: "every member is healthy, and a host is ready",
		Impact:       "none: its host prepares ports, release and certificates, and starts nothing",
	}
}

// joinSteps bring a member in that is prepared.
func (*State) joinSteps(name string, add bool) []v1alpha1.PlanStep {
	promote := v1alpha1.PlanStep{
		Action: v1alpha1.ActionPromoteMember, Member: name, Reason: "it is to vote",
		Precondition: fmt.Sprintf("it is a learner that answers and is at most %d entries behind, and every voter is healthy", learnerLag),
		Impact:       "none: the quorum counts one member more",
	}
	if !add {
		return []v1alpha1.PlanStep{promote}
	}
	return []v1alpha1.PlanStep{{
		Action: v1alpha1.ActionAddMember, Member: name, Reason: "it joins as a learner, which counts for no quorum",
		Precondition: "it is prepared, and every voter is healthy",
		Impact:       "the leader sends it the database",
	}, promote}
}

// goesBecause is why a member has to go: what a person asked for, or else.
func (s *State) goesBecause(m *MemberState, otherwise string) string {
	switch {
	case m.Object.DeletionTimestamp != nil:
		return "it is being deleted"
	case s.draining(m):
		return "its host " + m.Object.Spec.Host + " is being drained"
	}
	return otherwise
}

// leaveSteps take a voter out. Leadership is handed on first: a leader that is removed
// leaves the others to an election.
func (s *State) leaveSteps(m *MemberState, replacement string) []v1alpha1.PlanStep {
	reason := s.goesBecause(m, "the cluster has more voters than it wants")
	var steps []v1alpha1.PlanStep
	if leader := s.leader(); leader != nil && leader.Object.Name == m.Object.Name {
		to := v1alpha1.PlanStep{
			Action: v1alpha1.ActionMoveLeader, Member: replacement, Reason: "the leader " + m.Object.Name + " is to leave next",
			Precondition: "every member is healthy",
			Impact:       "writes wait for one change of leader, a few milliseconds",
		}
		if heir := s.heir(m); heir != nil {
			to.Member, to.MemberID = heir.Object.Name, heir.Object.Spec.MemberID
		}
		if to.Member != "" {
			steps = append(steps, to)
		}
	}
	return append(steps, v1alpha1.PlanStep{
		Action: v1alpha1.ActionRemoveMember, Member: m.Object.Name, MemberID: m.Object.Spec.MemberID, Reason: reason,
		Precondition: "every other voter is healthy, and one of them leads",
		Impact:       "none: the others serve",
	}, goStep(s, m, reason))
}

// heir is the voter to hand leadership to when the leader is to leave.
func (s *State) heir(leader *MemberState) *MemberState {
	var best *MemberState
	var bestKey [3]int
	for i := range s.Members {
		m := &s.Members[i]
		a, ok := s.answer(m)
		if m.Object.Name == leader.Object.Name || !ok || !s.votes(m) || !s.healthy(m) || s.draining(m) || m.Object.Spec.Leaving ||
			m.Object.DeletionTimestamp != nil || m.Object.Spec.MemberID == "" {
			continue
		}
		key := [3]int{
			1 + btoi(s.mayLead(m)), btoi(WantedHash(s.Cluster, m.Object) == v1alpha1.MemberConfigHash(&m.Object.Spec)),
			btoi(a.AppliedIndex+learnerLag >= a.Index),
		}
		if best == nil || slices.Compare(key[:], bestKey[:]) > 0 {
			best, bestKey = m, key
		}
	}
	return best
}

// dropSteps get rid of a member that does not vote and never will.
func (s *State) dropSteps(m *MemberState) []v1alpha1.PlanStep {
	reason := s.goesBecause(m, orElse(s.hopeless(m), "it is not needed any more"))
	var steps []v1alpha1.PlanStep
	if told(m) || s.listed(m) != nil {
		steps = append(steps, v1alpha1.PlanStep{
			Action: v1alpha1.ActionRemoveMember, Member: m.Object.Name, MemberID: m.Object.Spec.MemberID, Reason: reason,
			Precondition: "a quorum of the voters is healthy", Impact: "none: it is a learner",
		})
	}
	if m.Object.DeletionTimestamp == nil {
		steps = append(steps, goStep(s, m, reason))
	}
	return steps
}

func goStep(s *State, m *MemberState, reason string) v1alpha1.PlanStep {
	return v1alpha1.PlanStep{
		Action: v1alpha1.ActionDeleteMember, Member: m.Object.Name, MemberID: m.Object.Spec.MemberID, Reason: reason,
		Precondition: "it is no member of the cluster any more",
		Impact:       "its process stops; its data is renamed aside and " + keptFor(s),
	}
}
