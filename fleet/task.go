package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/store"
)

// errHeld says that the act can't be taken now; it is tried again.
var errHeld = errors.New("held")

// moveLeaderPatience is how long a hand-over of leadership may take before the
// task is given up and planned anew.
const moveLeaderPatience = 10 * time.Second

// verdict is what becomes of an unfinished task.
type verdict struct {
	// phase is TaskSucceeded, TaskAbandoned, or empty to go on.
	phase   v1alpha1.TaskPhase
	message string
}

// judge decides, from what is seen, whether an unfinished task is done, void, or
// still to be worked on. It is pure.
func judge(s *State, t *v1alpha1.EtcdTask, now time.Time) verdict {
	c := s.Cluster
	m := s.member(t.Spec.Member)
	abandoned := func(why string) verdict { return verdict{v1alpha1.TaskAbandoned, why} }
	succeeded := func(what string) verdict { return verdict{v1alpha1.TaskSucceeded, what} }
	if t.Spec.ClusterUID != string(c.UID) {
		return abandoned("it belongs to an earlier cluster of this name")
	}
	if m != nil && t.Spec.MemberID != "" && m.Object.Spec.MemberID != t.Spec.MemberID {
		return abandoned("the name has come to mean another member")
	}
	if m == nil && t.Spec.Action != v1alpha1.ActionCreateMember && t.Spec.Action != v1alpha1.ActionDeleteMember {
		return abandoned("the member is gone")
	}
	deleting, suspended := c.DeletionTimestamp != nil, c.Spec.Suspended
	switch t.Spec.Action {
	case v1alpha1.ActionCreateMember:
		if m != nil {
			return succeeded("declared on host " + m.Object.Spec.Host)
		}
		if deleting || suspended {
			return abandoned("the cluster is no longer to be formed")
		}
	case v1alpha1.ActionAddMember, v1alpha1.ActionPromoteMember, v1alpha1.ActionRemoveMember:
		return judgeMembers(s, t, m)
	case v1alpha1.ActionRestoreMember:
		// It waits for nothing: hosts make the members' data side by side.
		if m.Object.Spec.Bootstrap != nil {
			return succeeded("told to be restored")
		}
		if deleting || suspended {
			return abandoned("the cluster is no longer to be formed")
		}
	case v1alpha1.ActionStartMember:
		// Starting waits for nothing: founding members need each other to elect a leader.
		if m.Object.Spec.Run == v1alpha1.RunRunning {
			return succeeded("told to run")
		}
		if deleting || suspended {
			return abandoned("the cluster is no longer to run")
		}
	case v1alpha1.ActionUpdateMember:
		if deleting || suspended {
			return abandoned("the cluster is no longer to run")
		}
		if s.isFormer(m) {
			return abandoned("the member is replaced by restored data")
		}
		return judgeUpdate(s, t, m)
	case v1alpha1.ActionMoveLeader:
		if deleting || suspended {
			return abandoned("the cluster is no longer to run")
		}
		if leader := s.leader(); leader != nil && leader.Object.Name == t.Spec.Member {
			return succeeded("it leads")
		}
		if t.Status.ActedAt != nil && now.Sub(t.Status.ActedAt.Time) > moveLeaderPatience {
			return abandoned("leadership did not move; it will be planned anew")
		}
	case v1alpha1.ActionStopMember:
		if stopped(m.Object) {
			return succeeded(m.Object.Status.StopProof.Evidence)
		}
		if deleting || !suspended && !s.isFormer(m) {
			if m.Object.Spec.RestoreName != c.Spec.RestoreName {
				return abandoned("the restore that replaces it is not carried out any more")
			}
			return abandoned("the cluster is no longer suspended")
		}
	case v1alpha1.ActionDeleteMember:
		switch {
		case m == nil:
			return succeeded("stopped, its data retired")
		case !deleting && m.Object.DeletionTimestamp != nil && !m.HostReady && s.hasLeft(m):
			// Nothing depends on it any more: a lost host keeps nobody waiting.
			return succeeded("told to stop and to retire its data; its host does so once it reports again")
		}
	}
	return verdict{}
}

func judgeUpdate(s *State, t *v1alpha1.EtcdTask, m *MemberState) verdict {
	if WantedHash(s.Cluster, m.Object) != t.Spec.ConfigHash {
		return verdict{v1alpha1.TaskAbandoned, "the cluster's configuration has changed again"}
	}
	p := m.Object.Status.Process
	if !s.votes(m) && (s.hopeless(m) != "" || s.draining(m) || m.Object.DeletionTimestamp != nil || s.hasLeft(m)) {
		return verdict{v1alpha1.TaskAbandoned, "it has not voted yet, and is not wanted any more"}
	}
	if p == nil || p.ConfigHash != t.Spec.ConfigHash || v1alpha1.MemberConfigHash(&m.Object.Spec) != t.Spec.ConfigHash {
		return verdict{}
	}
	a, ok := s.answer(m)
	switch {
	case s.serves(m):
	case ok && a.Learner:
		return verdict{v1alpha1.TaskSucceeded, "it runs with the new configuration, as a learner"}
	case ok && s.leaderless() && (m.Object.Spec.MemberID == "" || m.Object.Spec.MemberID == a.MemberID.String()):
		// It has done its part: the quorum needs the next member's configuration too.
		return verdict{v1alpha1.TaskSucceeded, "it runs with the new configuration; there is no quorum for it to join yet"}
	case neverUp(s) && fromNothing(s.Cluster):
		// Before members have found each other, etcd may not answer at all.
		return verdict{v1alpha1.TaskSucceeded, "it runs with the new configuration, and waits for the others to found the cluster with"}
	default:
		return verdict{}
	}
	return verdict{v1alpha1.TaskSucceeded, fmt.Sprintf("it serves with the new configuration, %d entries applied", a.AppliedIndex)}
}

// waitingFor says what an unfinished task waits for, or "" if its act is still to
// be taken.
func waitingFor(s *State, t *v1alpha1.EtcdTask) string {
	m := s.member(t.Spec.Member)
	switch t.Spec.Action {
	case v1alpha1.ActionUpdateMember:
		if m != nil && v1alpha1.MemberConfigHash(&m.Object.Spec) == t.Spec.ConfigHash {
			if p := v1alpha1.FindCondition(m.Object.Status.Conditions, v1alpha1.ConditionPrepared); p != nil && p.Status == v1alpha1.False {
				return m.Object.Name + " can't be restarted with the new configuration: " + p.Message
			}
			if phase := m.Object.Status.Phase; phase == v1alpha1.MemberRefused || phase == v1alpha1.MemberFailed {
				return fmt.Sprintf("%s is %s: %s", m.Object.Name, phase, m.Object.Status.Message)
			}
			if p := m.Object.Status.Process; p == nil || p.ConfigHash != t.Spec.ConfigHash {
				return m.Object.Name + " is restarting: " + orElse(m.Object.Status.Message, "its host has not reported yet")
			}
			return m.Object.Name + " is not healthy yet: " + s.whyUnhealthy(m)
		}
	case v1alpha1.ActionStopMember:
		if m != nil && m.Object.Spec.Run == v1alpha1.RunStopped {
			return unproven(m, m.Object.Name+" is stopping")
		}
	case v1alpha1.ActionDeleteMember:
		if m != nil && m.Object.DeletionTimestamp != nil {
			return unproven(m, m.Object.Name+" is stopping, then its data is retired")
		}
	case v1alpha1.ActionPromoteMember, v1alpha1.ActionRemoveMember:
		if t.Status.ActedAt != nil && s.Roster == nil {
			return "etcd was told, and can't be asked whether it is done: " + orElse(s.RosterError, "no member serves")
		}
	case v1alpha1.ActionMoveLeader:
		if t.Status.ActedAt != nil {
			return "leadership is moving to " + t.Spec.Member
		}
	case v1alpha1.ActionCreateMember, v1alpha1.ActionRestoreMember, v1alpha1.ActionStartMember, v1alpha1.ActionAddMember:
	}
	return ""
}

// unproven says why a member that is to be stopped is not proven to be yet.
func unproven(m *MemberState, otherwise string) string {
	switch {
	case !m.HostReady:
		return "the agent of host " + m.Object.Spec.Host + " does not report, so it can't be proven that " + m.Object.Name + " is stopped"
	case m.Object.Status.Phase == v1alpha1.MemberFailed:
		return "it can't be proven that " + m.Object.Name + " is stopped: " + m.Object.Status.Message
	}
	return otherwise
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// wanted reports whether an unfinished task whose act has not been taken is what
// the plan would do first, so that it may be taken now.
func wanted(t *v1alpha1.EtcdTask, p *v1alpha1.Plan) (bool, string) {
	same := func(step v1alpha1.PlanStep) bool {
		return step.Action == t.Spec.Action && step.Member == t.Spec.Member && step.ConfigHash == t.Spec.ConfigHash
	}
	if len(p.Steps) == 0 || !same(p.Steps[0]) {
		return false, "the plan has changed"
	}
	if p.Held != "" {
		return false, p.Held
	}
	return true, ""
}

// act takes a task's step. It is idempotent, and compares what it is about to
// change with what the step was planned on: every write carries the
// resourceVersion of the object that was read.
func (c *ClusterController) act(ctx context.Context, s *State, t *v1alpha1.EtcdTask) error {
	m := s.member(t.Spec.Member)
	switch t.Spec.Action {
	case v1alpha1.ActionCreateMember:
		return c.createMember(ctx, s, t)
	case v1alpha1.ActionRestoreMember:
		return c.restoreMember(ctx, s, m)
	case v1alpha1.ActionStartMember:
		return c.startMember(ctx, s, m)
	case v1alpha1.ActionAddMember:
		return c.addMember(ctx, s, m)
	case v1alpha1.ActionPromoteMember:
		return c.promoteMember(ctx, s, m)
	case v1alpha1.ActionRemoveMember:
		return c.removeMember(ctx, s, m)
	case v1alpha1.ActionUpdateMember:
		obj := m.Object.DeepCopy()
		obj.Spec = WantedSpec(s.Cluster, m.Object)
		return c.opts.Store.Update(ctx, obj)
	case v1alpha1.ActionMoveLeader:
		return c.moveLeader(ctx, s, t)
	case v1alpha1.ActionStopMember:
		obj := m.Object.DeepCopy()
		obj.Spec.Run = v1alpha1.RunStopped
		return c.opts.Store.Update(ctx, obj)
	case v1alpha1.ActionDeleteMember:
		return c.deleteMember(ctx, s, m)
	}
	return fmt.Errorf("task %s: unknown action %q", t.Name, t.Spec.Action)
}

func (c *ClusterController) createMember(ctx context.Context, s *State, t *v1alpha1.EtcdTask) error {
	return c.placeAndCreate(ctx, s, t.Spec.Member, func(host *HostState, ports *v1alpha1.Ports) *v1alpha1.EtcdMember {
		return newMember(s, t.Spec.Member, host, ports)
	})
}

// newMember is a member that is to be created on a host. Ports are those it had there
// before, or nil.
func newMember(s *State, name string, host *HostState, ports *v1alpha1.Ports) *v1alpha1.EtcdMember {
	m := &v1alpha1.EtcdMember{Spec: v1alpha1.EtcdMemberSpec{
		ClusterName: s.Cluster.Name,
		Host:        host.Object.Name,
		RestoreName: s.Cluster.Spec.RestoreName,
		Run:         v1alpha1.RunPrepared,
		Release:     s.Releases[host.Object.Status.Platform],
	}}
	m.Namespace, m.Name = s.Cluster.Namespace, name
	m.Labels = map[string]string{v1alpha1.LabelCluster: s.Cluster.Name}
	m.Finalizers = []string{v1alpha1.FinalizerMember}
	m.OwnerReferences = []v1alpha1.OwnerReference{{
		APIVersion: v1alpha1.KindCluster.APIVersion, Kind: v1alpha1.KindCluster.Kind, Name: s.Cluster.Name, UID: s.Cluster.UID,
	}}
	m.Spec = WantedSpec(s.Cluster, m)
	if s.formed() {
		m.Spec.Bootstrap = &v1alpha1.Bootstrap{State: v1alpha1.BootstrapExisting, Token: s.bootstrapToken(), InitialCluster: []v1alpha1.Peer{}}
	}
	if p := s.Cluster.Spec.Ports; p != nil {
		m.Spec.Ports = *p
	} else if ports != nil {
		m.Spec.Ports = *ports
	}
	return m
}

// startMember tells a member to run. On the first start it also says how to
// bootstrap: the same for every founding member, since it is made of what stands
// in the objects alone.
func (c *ClusterController) startMember(ctx context.Context, s *State, m *MemberState) error {
	obj := m.Object.DeepCopy()
	if obj.Spec.Bootstrap == nil {
		if err := errors.Join(found(s, obj), c.meet(ctx, s, obj)); err != nil {
			return fmt.Errorf("start %s: %w", obj.Name, err)
		}
	}
	obj.Spec.Run = v1alpha1.RunRunning
	return c.opts.Store.Update(ctx, obj)
}

// found tells a member how the cluster is founded.
func found(s *State, obj *v1alpha1.EtcdMember) error {
	bootstrap, err := foundation(s)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(bootstrap.InitialCluster, func(p v1alpha1.Peer) bool { return p.Name == obj.Name })
	if i < 0 || bootstrap.InitialCluster[i].URL != obj.Status.PeerURL {
		return fmt.Errorf("the other founding members were told another peer URL than %s for it; put its ports and address back as they were: %w",
			obj.Status.PeerURL, errHeld)
	}
	obj.Spec.Bootstrap, obj.Spec.Ports = bootstrap, obj.Status.Ports
	return nil
}

// foundation is how the founding members bootstrap. Once one has been told, all are
// told the same, whatever has changed since: a cluster's ID is made of it.
func foundation(s *State) (*v1alpha1.Bootstrap, error) {
	for i := range s.Members {
		// At a discovery service each is told of itself alone.
		if b := s.Members[i].Object.Spec.Bootstrap; b != nil && b.Discovery == nil && b.State != v1alpha1.BootstrapExisting {
			return b.DeepCopy(), nil
		}
	}
	peers := make([]v1alpha1.Peer, 0, len(s.Members))
	for i := range s.Members {
		o := s.Members[i].Object
		if o.Status.PeerURL == "" {
			return nil, fmt.Errorf("%s has no peer address yet: %w", o.Name, errHeld)
		}
		peers = append(peers, v1alpha1.Peer{Name: o.Name, URL: o.Status.PeerURL})
	}
	b := &v1alpha1.Bootstrap{
		State: v1alpha1.BootstrapNew,
		// Cluster IDs are made of peer URLs and token: a cluster made again in the same
		// place must not be taken for the old one.
		Token:          "quorate-" + string(s.Cluster.UID),
		InitialCluster: peers,
	}
	if s.Cluster.Spec.RestoreName != "" {
		if wrong := s.unrestorable(); wrong != "" {
			return nil, fmt.Errorf("%s: %w", wrong, errHeld)
		}
		b.State, b.Token = v1alpha1.BootstrapRestored, s.Restore.Status.Token
		b.BumpRevision, b.DisarmCorrupt = s.Restore.Status.BumpRevision, s.Restore.Spec.DisarmCorrupt
	}
	return b, nil
}

func (c *ClusterController) moveLeader(ctx context.Context, s *State, t *v1alpha1.EtcdTask) error {
	leader := s.leader()
	if leader == nil {
		return fmt.Errorf("move leader: no leader: %w", errHeld)
	}
	to, err := etcd.ParseID(t.Spec.MemberID)
	if err != nil || to == 0 {
		return fmt.Errorf("move leader to %s: its member ID is not recorded yet: %w", t.Spec.Member, errHeld)
	}
	c.leaders.moved(s, t.Spec.Member, c.opts.Now())
	return c.opts.Etcd.MoveLeader(ctx, s.Cluster, leader.Object, to)
}

func (c *ClusterController) deleteMember(ctx context.Context, s *State, m *MemberState) error {
	if m == nil || m.Object.DeletionTimestamp != nil {
		return nil
	}
	obj := m.Object.DeepCopy()
	if obj.Spec.DeletionPolicy != s.Cluster.Spec.DeletionPolicy || obj.Spec.RetainFor != s.Cluster.Spec.RetainFor {
		obj.Spec.DeletionPolicy, obj.Spec.RetainFor = s.Cluster.Spec.DeletionPolicy, s.Cluster.Spec.RetainFor
		if err := c.opts.Store.Update(ctx, obj); err != nil {
			return err
		}
	}
	return c.opts.Store.Delete(ctx, v1alpha1.KindMember, store.KeyOf(obj), store.Preconditions{UID: obj.UID})
}

// newTask is the intent of a plan's first step, numbered after those there are.
func newTask(s *State, step v1alpha1.PlanStep, number int64) *v1alpha1.EtcdTask {
	t := &v1alpha1.EtcdTask{Spec: v1alpha1.EtcdTaskSpec{
		ClusterName: s.Cluster.Name, ClusterUID: string(s.Cluster.UID), Number: number,
		Action: step.Action, Member: step.Member, MemberID: step.MemberID, ConfigHash: step.ConfigHash, Reason: step.Reason,
	}}
	t.Namespace, t.Name = s.Cluster.Namespace, fmt.Sprintf("%s-step-%d", s.Cluster.Name, number)
	t.Labels = map[string]string{v1alpha1.LabelCluster: s.Cluster.Name}
	t.OwnerReferences = []v1alpha1.OwnerReference{{
		APIVersion: v1alpha1.KindCluster.APIVersion, Kind: v1alpha1.KindCluster.Kind, Name: s.Cluster.Name, UID: s.Cluster.UID,
	}}
	return t
}

// createdOne reports whether the task created a member.
func createdOne(t *v1alpha1.EtcdTask) bool {
	return t.Spec.Action == v1alpha1.ActionCreateMember && t.Status.Phase == v1alpha1.TaskSucceeded
}

// tasksOf splits a cluster's tasks into the unfinished one, the highest number,
// and those finished, oldest first.
func tasksOf(objects []v1alpha1.Object) (open *v1alpha1.EtcdTask, last int64, finished []*v1alpha1.EtcdTask) {
	for _, o := range objects {
		t, ok := o.(*v1alpha1.EtcdTask)
		if !ok {
			continue
		}
		last = max(last, t.Spec.Number)
		if t.Finished() {
			finished = append(finished, t)
		} else if open == nil || t.Spec.Number < open.Spec.Number {
			open = t
		}
	}
	slices.SortFunc(finished, func(a, b *v1alpha1.EtcdTask) int { return int(a.Spec.Number - b.Spec.Number) })
	return open, last, finished
}
