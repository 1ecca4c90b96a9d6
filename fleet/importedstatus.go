package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/store"
)

func (c *ClusterController) writeImportedStatus(ctx context.Context, o *observation) error {
	obj := &v1alpha1.EtcdCluster{}
	var before v1alpha1.EtcdClusterStatus
	var changed bool
	err := store.MutateStatus(ctx, c.opts.Store, store.KeyOf(o.cluster), obj, func(now *v1alpha1.EtcdCluster) (bool, error) {
		if now.UID != o.cluster.UID || now.Generation != o.cluster.Generation {
			return false, nil
		}
		before = *now.Status.DeepCopy()
		setImportedStatus(o, &now.Status)
		changed = !v1alpha1.Equal(before, now.Status)
		return changed, nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil || !changed {
		return err
	}
	c.tellConditions(ctx, obj, &before)
	return nil
}

// setImportedStatus makes the status anew. What the cluster was known by before is
// kept: an endpoint that comes to answer for another one is told by it.
func setImportedStatus(o *observation, st *v1alpha1.EtcdClusterStatus) {
	st.ObservedGeneration = o.cluster.Generation
	members := o.survey.Members
	healthy := 0
	var endpoints []string
	for i := range members {
		if o.healthy(&members[i]) {
			healthy++
		}
		if members[i].Endpoint != "" {
			endpoints = append(endpoints, members[i].Endpoint)
		}
	}
	if len(endpoints) == 0 {
		endpoints = slices.Clone(o.cluster.Spec.Import.Endpoints)
	}
	slices.Sort(endpoints)
	st.Endpoints = slices.Compact(endpoints)
	st.Ready = fmt.Sprintf("%d/%d", healthy, max(len(members), int(o.cluster.Spec.Replicas)))
	st.Leader = ""
	if l := o.leader(); l != nil {
		st.Leader = memberName(&l.Member)
	}
	if o.answering() > 0 {
		st.ClusterID = o.survey.ClusterID.String()
	}
	st.Version = cmp.Or(o.lowestVersion(), st.Version, o.cluster.Spec.Version)
	available, degraded := o.available(), o.degraded()
	progressing := v1alpha1.Condition{Type: v1alpha1.ConditionProgressing, Status: v1alpha1.False, Reason: "AsWanted", Message: observedOnly}
	suspended := v1alpha1.Condition{Type: v1alpha1.ConditionSuspended, Status: v1alpha1.False, Reason: "NotAsked", Message: observedOnly}
	for _, cond := range []v1alpha1.Condition{available, progressing, degraded, suspended} {
		cond.ObservedGeneration = o.cluster.Generation
		v1alpha1.SetCondition(&st.Conditions, cond)
	}
	switch {
	case available.Status != v1alpha1.True:
		st.Summary = available.Reason
	case degraded.Status == v1alpha1.True:
		st.Summary = degraded.Reason
	default:
		st.Summary = "Healthy"
	}
}

// answering counts the members that answer.
func (o *observation) answering() int {
	n := 0
	for i := range o.survey.Members {
		if o.survey.Members[i].Answered {
			n++
		}
	}
	return n
}

// serves reports whether a member is a working part of the quorum.
func (*observation) serves(m *etcd.MemberAnswer) bool {
	// A backlog of applies means that reads would be old.
	const backlog = 5000
	return m.Answered && m.Status.Leader != 0 && !m.Status.Learner && m.Status.Index <= m.Status.AppliedIndex+backlog
}

// healthy reports whether nothing is wrong with a member, a learner included.
func (o *observation) healthy(m *etcd.MemberAnswer) bool {
	return m.Fault == nil && len(m.Status.Errors) == 0 && (o.serves(m) || m.Answered && m.Learner && m.Status.Leader != 0)
}

// leader is the member that those with the highest term follow; nil when they
// follow none, or one that is not listed.
func (o *observation) leader() *etcd.MemberAnswer {
	var id etcd.ID
	var term uint64
	for i := range o.survey.Members {
		if m := &o.survey.Members[i]; m.Answered && m.Status.Leader != 0 && m.Status.Term >= term {
			id, term = m.Status.Leader, m.Status.Term
		}
	}
	for i := range o.survey.Members {
		if m := &o.survey.Members[i]; id != 0 && m.ID == id {
			return m
		}
	}
	return nil
}

func memberName(m *etcd.Member) string { return cmp.Or(m.Name, m.ID.String()) }

// lowestVersion that members answered with.
func (o *observation) lowestVersion() string {
	lowest := ""
	for i := range o.survey.Members {
		if v := o.survey.Members[i].Status.Version; v != "" && (lowest == "" || compareVersions(v, lowest) < 0) {
			lowest = v
		}
	}
	return lowest
}

// compareVersions compares versions such as 3.6.16 by their numbers.
func compareVersions(a, b string) int {
	numbers := func(v string) []int {
		v, _, _ = strings.Cut(v, "-")
		var list []int
		for part := range strings.SplitSeq(v, ".") {
			n, _ := strconv.Atoi(part) // what is no number counts as 0
			list = append(list, n)
		}
		return list
	}
	return cmp.Or(slices.Compare(numbers(a), numbers(b)), cmp.Compare(a, b))
}

func (o *observation) available() v1alpha1.Condition {
	c := v1alpha1.Condition{Type: v1alpha1.ConditionAvailable, Status: v1alpha1.False}
	voters, serving, unreachable := 0, 0, 0
	for i := range o.survey.Members {
		m := &o.survey.Members[i]
		if m.Learner {
			continue
		}
		voters++
		switch {
		case o.serves(m):
			serving++
		case !m.Answered && m.Fault.Unreachable():
			unreachable++
		}
	}
	leader := o.leader()
	switch {
	case o.problem != nil:
		c.Status, c.Reason, c.Message = v1alpha1.Unknown, o.problem.reason, o.problem.message
	case o.answering() == 0:
		o.silence(&c)
	case leader != nil && serving >= quorum(voters):
		c.Status, c.Reason = v1alpha1.True, "QuorumServes"
		c.Message = fmt.Sprintf("%d of %d members serve, %s leads", serving, voters, memberName(&leader.Member))
	case leader != nil && serving > 0 && serving+unreachable >= quorum(voters):
		// A member follows a leader only as long as that one has a quorum.
		c.Status, c.Reason = v1alpha1.True, "QuorumServes"
		c.Message = fmt.Sprintf("%s leads a quorum, of which only %d of %d members can be asked from here", memberName(&leader.Member), serving, voters)
	case serving >= quorum(voters):
		c.Reason, c.Message = "NoLeader", "the members do not agree on a leader: look into their logs"
	default:
		c.Reason = "QuorumLost"
		c.Message = fmt.Sprintf("cluster %s has lost its quorum: %d of %d members serve, %d are needed: %s",
			o.cluster.Name, serving, voters, quorum(voters), o.sickList())
	}
	return c
}

// silence says why no member of the cluster answers. Only where nothing listens is
// it known that the cluster does not serve.
func (o *observation) silence(c *v1alpha1.Condition) {
	if len(o.survey.Strangers) > 0 {
		c.Status, c.Reason, c.Message = v1alpha1.Unknown, string(etcd.FaultOtherCluster), o.strangers()
		return
	}
	faults := o.faults()
	c.Status, c.Reason = v1alpha1.Unknown, "Unreachable"
	if kind := sameKind(faults); kind != "" {
		c.Reason = string(kind)
	}
	if c.Reason == string(etcd.FaultRefused) {
		c.Status, c.Reason = v1alpha1.False, "AllMembersDown"
	}
	c.Message = fmt.Sprintf("no member of cluster %s can be asked: %s", o.cluster.Name, grouped(faults))
}

// faults are those of the members and of the endpoints given, each endpoint once.
func (o *observation) faults() []*etcd.Fault {
	all := slices.Clone(o.survey.Deaf)
	for i := range o.survey.Members {
		f := o.survey.Members[i].Fault
		if f != nil && !slices.ContainsFunc(all, func(known *etcd.Fault) bool { return known.Endpoint == f.Endpoint }) {
			all = append(all, f)
		}
	}
	return all
}

func sameKind(faults []*etcd.Fault) etcd.FaultKind {
	for _, f := range faults {
		if f.Kind != faults[0].Kind {
			return ""
		}
	}
	if len(faults) == 0 {
		return ""
	}
	return faults[0].Kind
}

// grouped says what is wrong once for all the endpoints that have it.
func grouped(faults []*etcd.Fault) string {
	var texts []string
	where := map[string][]string{}
	for _, f := range faults {
		text := f.Cause + ": " + f.Next
		if where[text] == nil {
			texts = append(texts, text)
		}
		where[text] = append(where[text], f.Endpoint)
	}
	for i, text := range texts {
		texts[i] = strings.Join(where[text], ", ") + ": " + text
	}
	return strings.Join(texts, "; ")
}

func (o *observation) strangers() string {
	texts := make([]string, 0, len(o.survey.Strangers))
	for _, s := range o.survey.Strangers {
		texts = append(texts, fmt.Sprintf("%s answers for the etcd cluster %s", s.Endpoint, s.ClusterID))
	}
	return fmt.Sprintf("%s, and cluster %s is %s: correct spec.import.endpoints, or, if its etcd was made anew, delete the object and import it again",
		strings.Join(texts, ", "), o.cluster.Name, cmp.Or(o.cluster.Status.ClusterID, o.survey.ClusterID.String()))
}

func (o *observation) degraded() v1alpha1.Condition {
	c := v1alpha1.Condition{Type: v1alpha1.ConditionDegraded, Status: v1alpha1.True}
	available := o.available()
	alarms := o.survey.RaisedAlarms()
	members, expected := len(o.survey.Members), int(o.cluster.Spec.Replicas)
	switch {
	case available.Status != v1alpha1.True:
		c.Reason, c.Message = available.Reason, available.Message
	case len(o.survey.Strangers) > 0:
		c.Reason, c.Message = string(etcd.FaultOtherCluster), o.strangers()
	case len(alarms) > 0:
		c.Reason, c.Message = "AlarmRaised", o.alarmText(alarms)
	case o.survey.Login != nil:
		c.Reason, c.Message = string(o.survey.Login.Kind), fmt.Sprintf("cluster %s: %s", o.cluster.Name, o.survey.Login)
	case len(o.sick()) > 0:
		c.Reason, c.Message = "MembersDown", o.sickList()
		if kind := sameKind(o.sick()); kind != "" && kind != etcd.FaultRefused {
			c.Reason = string(kind)
		}
	case members < expected:
		c.Reason = "MembersMissing"
		c.Message = fmt.Sprintf("cluster %s has %d members, and %d are expected: add the missing ones, or set spec.replicas", o.cluster.Name, members, expected)
	default:
		c.Status, c.Reason, c.Message = v1alpha1.False, "AllHealthy", allHealthy(members)
		if len(o.survey.Deaf) > 0 {
			c.Message += "; of spec.import.endpoints, " + grouped(o.survey.Deaf)
		}
	}
	return c
}

// sick says what is wrong with each member that is not healthy.
func (o *observation) sick() []*etcd.Fault {
	var faults []*etcd.Fault
	for i := range o.survey.Members {
		if m := &o.survey.Members[i]; !o.healthy(m) {
			faults = append(faults, o.whySick(m))
		}
	}
	return faults
}

func (o *observation) sickList() string {
	var texts []string
	for i := range o.survey.Members {
		if m := &o.survey.Members[i]; !o.healthy(m) {
			texts = append(texts, "member "+memberName(&m.Member)+": "+o.whySick(m).String())
		}
	}
	return strings.Join(texts, "; ")
}

func (*observation) whySick(m *etcd.MemberAnswer) *etcd.Fault {
	f := &etcd.Fault{Kind: "MembersDown", Endpoint: m.Endpoint}
	switch {
	case m.Fault != nil:
		return m.Fault
	case m.Status.Leader == 0:
		f.Cause, f.Next = "it knows no leader", "see whether it reaches the other members"
	case len(m.Status.Errors) > 0:
		f.Cause, f.Next = strings.Join(m.Status.Errors, ", "), "clear what raised it, then disarm the alarm"
	default:
		f.Cause, f.Next = "it is thousands of entries behind", "look at its disk and processor"
	}
	return f
}

func (o *observation) alarmText(alarms []etcd.Alarm) string {
	texts := make([]string, 0, len(alarms))
	for _, a := range alarms {
		texts = append(texts, a.Type+" on "+o.nameOf(a.Member))
	}
	return "etcd has raised " + strings.Join(texts, ", ") + ": clear the cause, then disarm the alarm with etcdctl"
}

func (o *observation) nameOf(id etcd.ID) string {
	for i := range o.survey.Members {
		if o.survey.Members[i].ID == id {
			return memberName(&o.survey.Members[i].Member)
		}
	}
	return id.String()
}

// view is what the members answer, as for a cluster that Quorate runs.
func (o *observation) view() v1alpha1.ClusterView {
	v := v1alpha1.ClusterView{
		Namespace: o.cluster.Namespace, Cluster: o.cluster.Name, AskedAt: v1alpha1.NewMicroTime(o.askedAt),
		ClusterID: o.cluster.Status.ClusterID, Members: []v1alpha1.MemberView{},
	}
	if o.answering() > 0 {
		v.ClusterID = o.survey.ClusterID.String()
	}
	switch available, degraded := o.available(), o.degraded(); {
	case available.Status == v1alpha1.Unknown:
		v.State, v.Message = v1alpha1.StateUnknown, available.Message
	case available.Status != v1alpha1.True:
		v.State, v.Message = v1alpha1.StateUnavailable, available.Message
	case degraded.Status == v1alpha1.True:
		v.State, v.Message = v1alpha1.StateDegraded, degraded.Message
	default:
		v.State = v1alpha1.StateHealthy
	}
	if l := o.leader(); l != nil {
		v.Leader = memberName(&l.Member)
	}
	for i := range o.survey.Members {
		v.Members = append(v.Members, o.viewMember(&o.survey.Members[i]))
	}
	for _, a := range o.survey.RaisedAlarms() {
		v.Alarms = append(v.Alarms, v1alpha1.AlarmView{Type: a.Type, Member: o.nameOf(a.Member)})
	}
	return v
}

func (o *observation) viewMember(m *etcd.MemberAnswer) v1alpha1.MemberView {
	v := v1alpha1.MemberView{
		Name: memberName(&m.Member), ID: m.ID.String(), Endpoint: m.Endpoint, Healthy: o.healthy(m), Answered: m.Answered,
	}
	if !v.Healthy {
		f := o.whySick(m)
		v.Message = f.Cause + ": " + f.Next
	}
	if !m.Answered {
		return v
	}
	a := &m.Status
	v.Role = roleOf(a)
	v.Version, v.DBSize, v.DBSizeInUse, v.DBQuota, v.Revision = a.Version, a.DBSize, a.DBSizeInUse, a.DBQuota, a.Revision
	v.RaftTerm, v.RaftIndex, v.RaftAppliedIndex = a.Term, a.Index, a.AppliedIndex
	v.LatencyMilliseconds = float64(m.Took) / float64(time.Millisecond)
	return v
}
