package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// HeldRestore says that the restore which a cluster names can't be carried out yet.
const HeldRestore = "RestoreNotReady"

// A cluster is restored by naming an EtcdRestore in its spec. Once that is accepted, its
// members are those whose data comes from it; the others are former ones, which are all
// stopped, with proof, before the data of any is renamed aside, and gone before a new
// member is created. So two clusters never run of which one claims to be the other. A name
// that means no such restore changes nothing and holds everything.

// everyMember ranges over the members, the former ones, and those that were removed.
func (s *State) everyMember(yield func(*MemberState) bool) {
	for _, list := range [][]MemberState{s.Members, s.Former, s.Left} {
		for i := range list {
			if !yield(&list[i]) {
				return
			}
		}
	}
}

func (s *State) isFormer(m *MemberState) bool {
	return slices.ContainsFunc(s.Former, func(f MemberState) bool { return f.Object.Name == m.Object.Name })
}

// setFormerAside tells the members that are replaced from those that stay.
func (s *State) setFormerAside() {
	if s.Cluster.Spec.RestoreName == "" || s.unrestorable() != "" || !s.Restore.Spec.InPlace {
		return
	}
	// The places remember the names of those that are gone already: none comes twice.
	for _, p := range s.Restore.Status.Places {
		s.LastNumber = max(s.LastNumber, memberNumber(s.Cluster.Name, p.Member))
	}
	all := s.Members
	s.Members = nil
	for _, m := range all {
		if m.Object.Spec.RestoreName == s.Cluster.Spec.RestoreName {
			s.Members = append(s.Members, m)
		} else {
			s.Former = append(s.Former, m)
		}
	}
}

// undecided says why members that are not of the cluster's restore are neither replaced
// nor left as they are; empty where there are none.
func (s *State) undecided() string {
	for i := range s.Members {
		m := s.Members[i].Object
		if m.Spec.RestoreName == s.Cluster.Spec.RestoreName {
			continue
		}
		why := s.unrestorable()
		switch {
		case s.Cluster.Spec.RestoreName == "":
			why = "spec.restoreName is gone: put it back"
		case why == "":
			why = fmt.Sprintf("EtcdRestore %s does not say inPlace", s.Restore.Name)
		}
		back := "take spec.restoreName away"
		if m.Spec.RestoreName != "" {
			back = "set spec.restoreName back to " + m.Spec.RestoreName
		}
		return fmt.Sprintf("%s has the data of %s, and the cluster names another: %s; to go on with the members as they are, %s (`quorate edit`)",
			m.Name, orElse(m.Spec.RestoreName, "no restore"), why, back)
	}
	return ""
}

// restoring reports whether the cluster is being formed from a backup.
func (s *State) restoring() bool {
	return s.Cluster.Spec.RestoreName != "" && (len(s.Former) > 0 || neverUp(s))
}

// restoreText says how far it is.
func (s *State) restoreText() string {
	done := 0
	for i := range s.Members {
		if v1alpha1.IsTrue(s.Members[i].Object.Status.Conditions, v1alpha1.ConditionRestored) {
			done++
		}
	}
	text := fmt.Sprintf("the cluster is being restored (EtcdRestore %s): ", s.Cluster.Spec.RestoreName)
	switch {
	case len(s.Former) > 0:
		return text + fmt.Sprintf("%d of its former members are left to be stopped and renamed aside", len(s.Former))
	case done < int(s.Cluster.Spec.Replicas):
		return text + fmt.Sprintf("%d of %d members have their data", done, s.Cluster.Spec.Replicas)
	}
	return text + "every member has its data, and they are starting"
}

// observeRestore reads the restore that the cluster names.
func (c *ClusterController) observeRestore(ctx context.Context, s *State) error {
	if s.Cluster.Spec.RestoreName == "" {
		return nil
	}
	r := &v1alpha1.EtcdRestore{}
	err := c.opts.Store.Get(ctx, store.Key{Namespace: s.Cluster.Namespace, Name: s.Cluster.Spec.RestoreName}, r)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	s.Restore = r
	s.setFormerAside()
	return nil
}

// restoreToken names the cluster that a restore makes. It is of this restore and this
// cluster: with an earlier token, the members would have the IDs of those there were.
func restoreToken(c *v1alpha1.EtcdCluster, r *v1alpha1.EtcdRestore) string {
	return "quorate-" + string(c.UID) + "-" + string(r.UID)
}

// unrestorable says why members can't be made from the cluster's restore; empty if they
// can.
func (s *State) unrestorable() string {
	name, r := s.Cluster.Spec.RestoreName, s.Restore
	switch {
	case name == "":
		return ""
	case r == nil:
		return fmt.Sprintf("there is no EtcdRestore %s in namespace %s: apply it", name, s.Cluster.Namespace)
	case r.Spec.ClusterName != s.Cluster.Name:
		return fmt.Sprintf("EtcdRestore %s is for cluster %s", name, r.Spec.ClusterName)
	case r.Status.Phase == v1alpha1.RestoreRunning && r.Status.Token == restoreToken(s.Cluster, r):
		return ""
	case r.Finished() || r.Status.Token != "":
		return fmt.Sprintf("EtcdRestore %s is over (%s): apply one under another name", name, orElse(r.Status.Message, string(r.Status.Phase)))
	}
	return fmt.Sprintf("EtcdRestore %s is not ready: %s", name, orElse(r.Status.Message, "it has not been looked at yet"))
}

func holdUnrestorable(s *State, p *v1alpha1.Plan) {
	if wrong := s.unrestorable(); wrong != "" {
		hold(p, HeldRestore, wrong)
	}
}

// planReplace puts members with restored data into the places of the former ones. All
// are stopped before any is renamed aside: until then nothing has been done that starting
// them again would not undo.
func planReplace(s *State, p *v1alpha1.Plan) {
	why := "it is replaced by restored data (EtcdRestore " + s.Cluster.Spec.RestoreName + ")"
	former := leaderLast(s, s.Former)
	for _, m := range former {
		if stopped(m.Object) || m.Object.DeletionTimestamp != nil {
			continue
		}
		p.Steps = append(p.Steps, v1alpha1.PlanStep{
			Action: v1alpha1.ActionStopMember, Member: m.Object.Name, MemberID: m.Object.Spec.MemberID, Reason: why,
			Precondition: "none",
			Impact:       "the member stops and keeps its data; the cluster serves nothing until the restored members do",
		})
	}
	for _, m := range former {
		p.Steps = append(p.Steps, v1alpha1.PlanStep{
			Action: v1alpha1.ActionDeleteMember, Member: m.Object.Name, MemberID: m.Object.Spec.MemberID, Reason: why,
			Precondition: "every former member is proven to be stopped",
			Impact:       "its data is renamed aside and " + keptFor(s),
		})
	}
	missing := max(int(s.Cluster.Spec.Replicas)-len(s.Members), 0)
	names := make([]string, 0, s.Cluster.Spec.Replicas)
	for i := range s.Members {
		names = append(names, s.Members[i].Object.Name)
	}
	for i := range missing {
		names = append(names, s.newName(i))
		p.Steps = append(p.Steps, v1alpha1.PlanStep{
			Action: v1alpha1.ActionCreateMember, Member: s.newName(i), Reason: "it takes the place of a former member",
			Precondition: "every former member is gone, its data renamed aside",
			Impact:       "none: its host prepares ports, release and certificates, and starts nothing",
		})
	}
	planFounders(s, p, names)
}

func restoreStep(s *State, member string) v1alpha1.PlanStep {
	return v1alpha1.PlanStep{
		Action: v1alpha1.ActionRestoreMember, Member: member,
		Reason:       "the cluster is formed from a backup (EtcdRestore " + s.Cluster.Spec.RestoreName + ")",
		Precondition: "every member is prepared",
		Impact:       "none: its host makes the data directory, and starts nothing",
	}
}

// planRestoreRest restores the members that a restore under way has not reached yet.
func planRestoreRest(s *State, p *v1alpha1.Plan) {
	for i := range s.Members {
		m := s.Members[i].Object
		if m.Spec.RestoreName != "" && m.Spec.Bootstrap == nil && m.DeletionTimestamp == nil {
			p.Steps = append(p.Steps, restoreStep(s, m.Name))
		}
	}
}

// holdUnrestored keeps restored members from being started before all have their data:
// a majority of them would serve, and the rest would be of no use to it.
func holdUnrestored(s *State, p *v1alpha1.Plan) {
	if len(p.Steps) == 0 || p.Steps[0].Action != v1alpha1.ActionStartMember {
		return
	}
	var waiting []string
	for i := range s.Members {
		m := s.Members[i].Object
		if m.Spec.RestoreName == "" || m.Spec.MemberID != "" || m.Spec.Run == v1alpha1.RunRunning || joiner(&s.Members[i]) {
			continue
		}
		c := v1alpha1.FindCondition(m.Status.Conditions, v1alpha1.ConditionRestored)
		if c != nil && c.Status == v1alpha1.True && m.Status.ObservedGeneration >= m.Generation {
			continue
		}
		why := orElse(m.Status.Message, "its host has not reported yet")
		switch {
		case !s.Members[i].HostReady:
			why = "the agent of host " + m.Spec.Host + " does not report"
		case c != nil && c.Status == v1alpha1.False && c.Message != "":
			why = c.Message
		}
		waiting = append(waiting, m.Name+": "+why)
	}
	if len(waiting) > 0 {
		hold(p, HeldRestore, strings.Join(waiting, "; "))
	}
}

// placeNext chooses a host for the i-th member that is yet to be created: the place of
// the former member that it stands for, with its ports, as long as that can be had.
func (s *State) placeNext(i int, planned map[string]int) (*HostState, *v1alpha1.Ports, refusal) {
	if at := len(s.Members) + i; s.Restore != nil && neverUp(s) && at < len(s.Restore.Status.Places) {
		was := s.Restore.Status.Places[at]
		if h := s.host(was.Host); h != nil && s.fits(was.Host, planned) {
			return h, &was.Ports, refusal{}
		}
	}
	host, why := s.place(planned)
	return host, nil, why
}

// restoreMember tells a member's host to make its data directory.
func (c *ClusterController) restoreMember(ctx context.Context, s *State, m *MemberState) error {
	obj := m.Object.DeepCopy()
	if obj.Spec.Bootstrap != nil {
		return nil
	}
	if err := found(s, obj); err != nil {
		return fmt.Errorf("restore %s: %w", obj.Name, err)
	}
	return c.opts.Store.Update(ctx, obj)
}
