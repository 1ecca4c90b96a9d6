package fleet

import (
	"context"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/store"
)

// View asks a cluster's members what they are at this moment.
func (c *ClusterController) View(ctx context.Context, key store.Key) (v1alpha1.ClusterView, error) {
	cluster := &v1alpha1.EtcdCluster{}
	if err := c.opts.Store.Get(ctx, key, cluster); err != nil {
		return v1alpha1.ClusterView{}, err
	}
	if cluster.Observed() {
		o, err := c.imports.observe(ctx, cluster)
		if err != nil {
			return v1alpha1.ClusterView{}, err
		}
		return o.view(), nil
	}
	s, _, err := c.observe(ctx, cluster)
	if err != nil {
		return v1alpha1.ClusterView{}, err
	}
	return viewOf(s), nil
}

func viewOf(s *State) v1alpha1.ClusterView {
	v := v1alpha1.ClusterView{
		Namespace: s.Cluster.Namespace, Cluster: s.Cluster.Name, AskedAt: v1alpha1.NewMicroTime(s.ReadAt),
		Members: []v1alpha1.MemberView{},
	}
	v.State, v.Message = stateOf(s)
	if l := s.leader(); l != nil {
		v.Leader = l.Object.Name
	}
	for i := range s.Members {
		m := &s.Members[i]
		if m.Object.Spec.ClusterID != "" {
			v.ClusterID = m.Object.Spec.ClusterID
		}
		v.Members = append(v.Members, s.viewMember(m))
	}
	for _, a := range s.Alarms {
		v.Alarms = append(v.Alarms, v1alpha1.AlarmView{Type: a.Type, Member: s.nameOf(a.Member)})
	}
	return v
}

// stateOf puts the conditions of a cluster into an operator's word.
func stateOf(s *State) (v1alpha1.ClusterState, string) {
	available, degraded := availableCondition(s), degradedCondition(s)
	switch {
	case s.Cluster.DeletionTimestamp != nil || !s.formed() || allStopped(s):
		return v1alpha1.StateStopped, available.Message
	case available.Status == v1alpha1.Unknown:
		return v1alpha1.StateUnknown, available.Message
	case available.Status != v1alpha1.True:
		return v1alpha1.StateUnavailable, available.Message
	case degraded.Status == v1alpha1.True:
		return v1alpha1.StateDegraded, degraded.Message
	}
	return v1alpha1.StateHealthy, ""
}

func (s *State) viewMember(m *MemberState) v1alpha1.MemberView {
	obj := m.Object
	v := v1alpha1.MemberView{
		Name: obj.Name, ID: obj.Spec.MemberID, Host: obj.Spec.Host, Endpoint: obj.Status.ClientURL,
		Phase: obj.Status.Phase, Healthy: s.healthy(m),
	}
	if obj.Status.Process != nil {
		v.PID = obj.Status.Process.PID
	}
	if !v.Healthy {
		v.Message = s.whyUnhealthy(m)
	}
	a, ok := s.answer(m)
	if !ok {
		return v
	}
	v.Answered = true
	v.Role = roleOf(&a)
	v.Version, v.DBSize, v.DBSizeInUse, v.DBQuota, v.Revision = a.Version, a.DBSize, a.DBSizeInUse, a.DBQuota, a.Revision
	v.RaftTerm, v.RaftIndex, v.RaftAppliedIndex = a.Term, a.Index, a.AppliedIndex
	v.LatencyMilliseconds = float64(m.Probe.Took) / float64(time.Millisecond)
	if v.ID == "" {
		v.ID = a.MemberID.String()
	}
	if v.DBQuota == 0 {
		v.DBQuota = s.Cluster.Spec.Etcd.QuotaBackend.Value()
	}
	return v
}

// roleOf is the part of a member that answers; empty while it follows no leader.
func roleOf(a *etcd.Status) v1alpha1.MemberRole {
	switch {
	case a.Learner:
		return v1alpha1.RoleLearner
	case a.Leader == a.MemberID:
		return v1alpha1.RoleLeader
	case a.Leader == 0:
		return ""
	}
	return v1alpha1.RoleFollower
}
