package fleet

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/quorate/quorate/api/v1alpha1"
)

// Reasons for which a plan is held.
const (
	HeldRestored        = "StoreRestored"
	HeldCA              = "CertificateAuthority"
	HeldNotPrepared     = "MembersNotPrepared"
	HeldUnhealthy       = "MembersNotHealthy"
	HeldHostUnreachable = "HostNotReady"
	HeldUnknownLeader   = "LeaderUnknown"
)

// Plan says what would bring the cluster to its spec. It is pure: equal states
// give equal plans. Only its first step may be taken, and only while Held is empty.
func Plan(s *State) v1alpha1.Plan {
	c := s.Cluster
	p := v1alpha1.Plan{Namespace: c.Namespace, Cluster: c.Name, Generation: c.Generation}
	switch {
	case c.DeletionTimestamp != nil:
		planDelete(s, &p)
	case c.Spec.Suspended:
		planSuspend(s, &p)
	case s.undecided() != "":
		hold(&p, HeldRestore, s.undecided())
	case len(s.Former) > 0:
		planReplace(s, &p)
	case !s.formed():
		planForm(s, &p)
	default:
		planStart(s, &p)
		planFormed(s, &p)
		planLeader(s, &p)
		if len(p.Steps) > 0 && neverUp(s) {
			// Half a restore goes no further than its EtcdRestore does.
			holdUnrestorable(s, &p)
		}
	}
	if epoch, ok := c.Annotations[v1alpha1.AnnotationRestored]; ok {
		planRestored(s, &p)
		hold(&p, HeldRestored, "the fleet's store was restored (epoch "+epoch+
			") and may be older than what runs: read this plan, then accept it with `quorate plan "+c.Name+" --accept`")
	}
	p.Notes = append(p.Notes, s.notes()...)
	p.Token = token(&p)
	return p
}

// planRestored lists what the hosts will do by themselves as soon as the plan of a
// restored cluster is accepted: members were held as they are, which may not be
// what the restored objects say.
func planRestored(s *State, p *v1alpha1.Plan) {
	if s.Cluster.DeletionTimestamp != nil {
		return
	}
	steps := p.Steps
	for i := range s.Members {
		m := s.Members[i].Object
		if slices.ContainsFunc(steps, func(st v1alpha1.PlanStep) bool { return st.Member == m.Name }) {
			continue
		}
		switch {
		case m.Spec.Run == v1alpha1.RunRunning && m.Status.Phase == v1alpha1.MemberStopped:
			p.Steps = append(p.Steps, startStep(m.Name, "it was stopped after the backup was made, and the restored store wants it to run", "its data directory is its own and not rolled back"))
		case m.Spec.Run == v1alpha1.RunStopped && m.Status.Process != nil:
			p.Steps = append(p.Steps, v1alpha1.PlanStep{
				Action: v1alpha1.ActionStopMember, Member: m.Name, MemberID: m.Spec.MemberID,
				Reason:       "it was started after the backup was made, and the restored store wants it stopped",
				Precondition: "none",
				Impact:       "the member stops and keeps its data; without a quorum the cluster serves nothing",
			})
		case pending(&s.Members[i]):
			p.Steps = append(p.Steps, updateStep(s, &s.Members[i], "it runs with another configuration than the restored store's"))
		}
	}
}

// hold keeps the first step from being taken; the first reason given stands, save
// that a restored store goes before all.
func hold(p *v1alpha1.Plan, reason, text string) {
	if p.Held == "" || reason == HeldRestored {
		p.HeldReason, p.Held = reason, text
	}
}

// token names the steps of a plan, so that a person accepts what they have read.
func token(p *v1alpha1.Plan) string {
	// Steps are strings: marshalling can't fail.
	raw, _ := json.Marshal(struct {
		Generation int64
		Steps      []v1alpha1.PlanStep
	}{p.Generation, p.Steps})
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:6])
}

// planDelete stops and forgets every member, the leader last so that there is no
// election among members that are about to go.
func planDelete(s *State, p *v1alpha1.Plan) {
	for _, m := range slices.Concat(leaderLast(s, s.Former), leaderLast(s, s.Members), leaderLast(s, s.Left)) {
		p.Steps = append(p.Steps, v1alpha1.PlanStep{
			Action: v1alpha1.ActionDeleteMember, Member: m.Object.Name, MemberID: m.Object.Spec.MemberID,
			Reason:       "the cluster is being deleted",
			Precondition: "none",
			Impact:       "the member stops; its data is renamed aside and " + keptFor(s),
		})
	}
}

func keptFor(s *State) string {
	if s.Cluster.Spec.DeletionPolicy == v1alpha1.DeletionDelete {
		return "collected after " + s.Cluster.Spec.RetainFor
	}
	return "kept until a person removes it"
}

func planSuspend(s *State, p *v1alpha1.Plan) {
	for i := range s.Left {
		// While the others still say that it was removed: afterwards nobody could.
		if m := &s.Left[i]; m.Object.DeletionTimestamp == nil {
			p.Steps = append(p.Steps, goStep(s, m, "etcd has removed it from the cluster"))
		}
	}
	for _, m := range append(leaderLast(s, s.Former), leaderLast(s, s.Members)...) {
		if stopped(m.Object) || m.Object.Spec.Run == v1alpha1.RunPrepared {
			continue
		}
		p.Steps = append(p.Steps, v1alpha1.PlanStep{
			Action: v1alpha1.ActionStopMember, Member: m.Object.Name, MemberID: m.Object.Spec.MemberID,
			Reason:       "spec.suspended is true",
			Precondition: "none",
			Impact:       "the member stops and keeps its data; without a quorum the cluster serves nothing",
		})
	}
}

// stopped reports whether a member was told to stop and is proven to have.
func stopped(m *v1alpha1.EtcdMember) bool {
	return m.Spec.Run == v1alpha1.RunStopped && m.Status.StopProof != nil && m.Status.ObservedGeneration >= m.Generation
}

func planForm(s *State, p *v1alpha1.Plan) {
	if s.CAProblem != "" {
		hold(p, HeldCA, s.CAProblem)
	}
	if s.FormationProblem != "" {
		hold(p, HeldFormation, s.FormationProblem)
	}
	holdUnrestorable(s, p)
	if s.sequential() {
		planFounder(s, p)
		return
	}
	missing := int(s.Cluster.Spec.Replicas) - len(s.Members)
	planned := map[string]int{}
	for i := range max(missing, 0) {
		host, _, why := s.placeNext(i, planned)
		name := s.newName(i)
		step := v1alpha1.PlanStep{
			Action: v1alpha1.ActionCreateMember, Member: name,
			Reason:       fmt.Sprintf("the cluster wants %d members and has %d", s.Cluster.Spec.Replicas, len(s.Members)+i),
			Precondition: "a host is ready",
			Impact:       "none: its host prepares ports, release and certificates, and starts nothing",
		}
		if host == nil {
			holdUnplaced(p, &why)
		} else {
			planned[host.Object.Name]++
			step.Precondition = "host " + host.Object.Name + " is ready"
		}
		p.Steps = append(p.Steps, step)
	}
	if missing <= 0 {
		holdUnprepared(s, p)
	}
	names := make([]string, 0, s.Cluster.Spec.Replicas)
	for i := range s.Members {
		names = append(names, s.Members[i].Object.Name)
	}
	for i := range max(missing, 0) {
		names = append(names, p.Steps[i].Member)
	}
	planFounders(s, p, names)
}

// planFounders has members found the cluster: from nothing, or from a backup.
func planFounders(s *State, p *v1alpha1.Plan, names []string) {
	ready := "every member is prepared"
	if s.Cluster.Spec.RestoreName != "" {
		for _, name := range names {
			p.Steps = append(p.Steps, restoreStep(s, name))
		}
		ready = "every member's data is restored"
	}
	for _, name := range names {
		p.Steps = append(p.Steps, startStep(name, "the cluster is being formed", ready))
	}
}

// newName is the name of the i-th member that is yet to be created.
func (s *State) newName(i int) string {
	return fmt.Sprintf("%s-%d", s.Cluster.Name, s.LastNumber+1+int64(i))
}

func holdUnprepared(s *State, p *v1alpha1.Plan) {
	var waiting []string
	for i := range s.Members {
		m := &s.Members[i]
		if v1alpha1.IsTrue(m.Object.Status.Conditions, v1alpha1.ConditionPrepared) && m.Object.Status.ObservedGeneration >= m.Object.Generation {
			continue
		}
		why := "its host has not reported yet"
		if c := v1alpha1.FindCondition(m.Object.Status.Conditions, v1alpha1.ConditionPrepared); c != nil && c.Status != v1alpha1.True {
			why = c.Message
		} else if !m.HostReady {
			why = "the agent of host " + m.Object.Spec.Host + " does not report"
		}
		waiting = append(waiting, m.Object.Name+": "+why)
	}
	if len(waiting) > 0 {
		hold(p, HeldNotPrepared, strings.Join(waiting, "; "))
	}
}

func startStep(member, reason, precondition string) v1alpha1.PlanStep {
	return v1alpha1.PlanStep{
		Action: v1alpha1.ActionStartMember, Member: member, Reason: reason, Precondition: precondition,
		Impact: "none: the member begins to serve",
	}
}

// planStart starts the members of a formed cluster that are not told to run:
// those left over from a formation, and those of a suspended cluster.
func planStart(s *State, p *v1alpha1.Plan) {
	planRestoreRest(s, p)
	for i := range s.Members {
		m := s.Members[i].Object
		switch {
		case m.Spec.Run == v1alpha1.RunRunning || m.DeletionTimestamp != nil:
		case !told(&s.Members[i]) && joiner(&s.Members[i]) || m.Spec.Leaving && !s.neededBack(&s.Members[i]):
		case m.Spec.Bootstrap == nil:
			p.Steps = append(p.Steps, startStep(m.Name, "the cluster is being formed", "every member is prepared"))
		default:
			p.Steps = append(p.Steps, startStep(m.Name, startReason(m), "its data directory is its own and not rolled back"))
		}
	}
	holdUnrestored(s, p)
}

func startReason(m *v1alpha1.EtcdMember) string {
	if m.Spec.Run == v1alpha1.RunPrepared {
		return "the cluster is being formed"
	}
	return "spec.suspended is false"
}

// planUpdate restarts, one at a time, the members that run with another
// configuration than the cluster's. Members that are down go first, since that
// costs nothing and may be what heals them; the leader goes last, after its
// leadership has been handed to a member that is done.
func planUpdate(s *State) (downSteps, steps []v1alpha1.PlanStep) {
	leader := s.leader()
	var down, followers []*MemberState
	var leading *MemberState
	for i := range s.Members {
		m := &s.Members[i]
		if m.Object.DeletionTimestamp != nil || m.Object.Spec.Leaving || joiner(m) && !told(m) ||
			WantedHash(s.Cluster, m.Object) == v1alpha1.MemberConfigHash(&m.Object.Spec) {
			continue
		}
		switch {
		case pending(m):
			down = append([]*MemberState{m}, down...)
		case leader != nil && m.Object.Name == leader.Object.Name:
			leading = m
		case !s.serves(m):
			down = append(down, m)
		default:
			followers = append(followers, m)
		}
	}
	for _, m := range down {
		why := "it is not serving, and " + outdated(s, m)
		if s.serves(m) {
			why = outdated(s, m)
		}
		downSteps = append(downSteps, updateStep(s, m, why))
	}
	for _, m := range followers {
		steps = append(steps, updateStep(s, m, outdated(s, m)))
	}
	if leading != nil {
		if to := s.successor(leading); to != nil {
			steps = append(steps, v1alpha1.PlanStep{
				Action: v1alpha1.ActionMoveLeader, Member: to.Object.Name, MemberID: to.Object.Spec.MemberID,
				Reason:       "the leader " + leading.Object.Name + " is to be restarted next",
				Precondition: "every member is healthy",
				Impact:       "writes wait for one change of leader, a few milliseconds",
			})
		}
		steps = append(steps, updateStep(s, leading, outdated(s, leading)))
	}
	return downSteps, steps
}

// outdated says in what way a member's configuration is not the wanted one.
func outdated(s *State, m *MemberState) string {
	spec := m.Object.Spec
	spec.RestartedAt = s.Cluster.Spec.RestartedAt
	if v1alpha1.MemberConfigHash(&spec) == WantedHash(s.Cluster, m.Object) {
		return "a restart was asked for"
	}
	return "it runs with an older configuration"
}

func updateStep(s *State, m *MemberState, reason string) v1alpha1.PlanStep {
	impact := "the member restarts; the others serve"
	switch voters := s.voters(); {
	case !s.votes(m):
		impact = "none: it is a learner"
	case voters == 1:
		impact = "the only member restarts: clients wait until it is back"
	case voters == 2:
		impact = "one of two members restarts: without it there is no quorum, and clients wait until it is back"
	}
	return v1alpha1.PlanStep{
		Action: v1alpha1.ActionUpdateMember, Member: m.Object.Name, MemberID: m.Object.Spec.MemberID,
		ConfigHash: WantedHash(s.Cluster, m.Object), Reason: reason, Impact: impact,
		Precondition: "every other member is healthy, or this one is not serving anyway",
	}
}

// pending reports whether a member's host has been told to restart it and has not
// done so yet: a task that was abandoned may have left that behind.
func pending(m *MemberState) bool {
	p := m.Object.Status.Process
	return m.Object.Spec.Run == v1alpha1.RunRunning && p != nil && p.ConfigHash != v1alpha1.MemberConfigHash(&m.Object.Spec)
}

// holdUpdate states why the first step of an update has to wait.
func holdUpdate(s *State, p *v1alpha1.Plan, first *v1alpha1.PlanStep) {
	m := s.member(first.Member)
	if !m.HostReady {
		hold(p, HeldHostUnreachable, fmt.Sprintf("the agent of host %s does not report, so %s can't be restarted", m.Object.Spec.Host, m.Object.Name))
		return
	}
	for i := range s.Members {
		if other := &s.Members[i]; other.Object.Name != m.Object.Name && pending(other) {
			hold(p, HeldUnhealthy, other.Object.Name+" is still to be restarted, as it was told before")
			return
		}
	}
	if first.Action == v1alpha1.ActionUpdateMember && !s.votes(m) {
		return // no quorum counts it
	}
	if first.Action == v1alpha1.ActionUpdateMember && !s.serves(m) {
		// It may be down already. That nobody has asked yet does not say so, nor does an
		// election, which may need it.
		asked := m.Probe != nil && !m.Probe.SentAt.Before(s.ReadAt)
		if _, answers := s.answer(m); !asked || answers && !s.leaderless() {
			hold(p, HeldUnhealthy, m.Object.Name+": "+s.whyUnhealthy(m))
		}
		return
	}
	if s.corrupt() {
		hold(p, HeldUnhealthy, "etcd has found that members' data differ (CORRUPT): find out which member is wrong before any is restarted")
		return
	}
	var sick []string
	for i := range s.Members {
		if s.votes(&s.Members[i]) && !s.serves(&s.Members[i]) {
			sick = append(sick, s.Members[i].Object.Name+": "+s.whyUnhealthy(&s.Members[i]))
		}
	}
	if len(sick) > 0 {
		hold(p, HeldUnhealthy, strings.Join(sick, "; "))
		return
	}
	if s.voters() > 1 && s.leader() == nil {
		hold(p, HeldUnknownLeader, "the members do not agree on a leader yet")
	}
}

// successor is the healthy follower to hand leadership to: one that runs the
// wanted configuration, so that leadership moves only once, and the furthest in
// the log.
func (s *State) successor(leading *MemberState) *MemberState {
	var best *MemberState
	var bestKey [2]uint64
	for i := range s.Members {
		m := &s.Members[i]
		if m.Object.Name == leading.Object.Name || !s.votes(m) || m.Object.Spec.Leaving {
			continue
		}
		a, ok := s.answer(m)
		var key [2]uint64
		if WantedHash(s.Cluster, m.Object) == v1alpha1.MemberConfigHash(&m.Object.Spec) {
			key[0] = 1
		}
		if ok && s.healthy(m) {
			key[1] = 1 + a.AppliedIndex/1000
		}
		if best == nil || slices.Compare(key[:], bestKey[:]) > 0 {
			best, bestKey = m, key
		}
	}
	return best
}

// WantedSpec is the member's spec as the cluster wants it now.
func WantedSpec(c *v1alpha1.EtcdCluster, m *v1alpha1.EtcdMember) v1alpha1.EtcdMemberSpec {
	spec := *m.Spec.DeepCopy()
	spec.TLS = *c.Spec.TLS.DeepCopy()
	spec.Etcd = *c.Spec.Etcd.DeepCopy()
	spec.RestartedAt = c.Spec.RestartedAt.DeepCopy()
	spec.DeletionPolicy = c.Spec.DeletionPolicy
	spec.RetainFor = c.Spec.RetainFor
	spec.Class = c.Spec.Class
	spec.Resources = v1alpha1.Resources(*c.Spec.Resources.DeepCopy())
	return spec
}

// WantedHash is the configuration the member's process is to run with.
func WantedHash(c *v1alpha1.EtcdCluster, m *v1alpha1.EtcdMember) string {
	spec := WantedSpec(c, m)
	return v1alpha1.MemberConfigHash(&spec)
}

// leaderLast returns the members, those that are down first and the leader last.
// Those whose host does not report come at the very end: they would keep the
// others waiting for a proof that nobody can give.
func leaderLast(s *State, list []MemberState) []*MemberState {
	leader := s.leader()
	rank := func(m *MemberState) int {
		switch {
		case !m.HostReady:
			return 3
		case leader != nil && m.Object.Name == leader.Object.Name:
			return 2
		case s.healthy(m):
			return 1
		}
		return 0
	}
	members := make([]*MemberState, len(list))
	for i := range list {
		members[i] = &list[i]
	}
	slices.SortStableFunc(members, func(a, b *MemberState) int { return cmp.Compare(rank(a), rank(b)) })
	return members
}
