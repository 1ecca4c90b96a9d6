// Package webtest plays a fleet with a cluster in every state behind a real API and
// its console: what pages look like then is asked by tests of their text and by
// those that take pictures. Real clusters are rarely as sick as a test needs them.
package webtest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/servertest"
	"github.com/quorate/quorate/server/web"
	"github.com/quorate/quorate/store"
)

// Case is a cluster, what its members answer and what is planned for it.
type Case struct {
	Cluster *v1alpha1.EtcdCluster
	View    v1alpha1.ClusterView
	Plan    v1alpha1.Plan
	// Deleting: its deletion was asked for.
	Deleting bool
}

// Path of the cluster's page.
func (c *Case) Path() string { return "/clusters/" + c.Cluster.Namespace + "/" + c.Cluster.Name }

// LongName is as long as a cluster's name may be.
const LongName = "orders-and-payments-of-the-north-european-region"

// Sizes of databases.
const (
	quota  = 8 << 30
	filled = quota + 4096
	common = 3<<30 + 700<<20
)

// Cases are a cluster in each state, with alarms, with long names, and of each size.
func Cases() []*Case {
	return []*Case{
		degraded(), unavailable(), full(), corrupt(),
		stopped(), unknown(), leaving(),
		serving("one", 1), serving("five", 5), learning(), named(), restored(),
	}
}

// New is an API with its console and the cases; none is stored when empty is set.
func New(tb testing.TB, empty bool) *servertest.Fixture {
	tb.Helper()
	p := played{Fleet: &servertest.Fleet{}, cases: map[store.Key]*Case{}}
	f := servertest.New(tb, func(o *server.Options) {
		o.Fleet = p
		o.Console = func(api http.Handler) http.Handler {
			h, err := web.New(web.Options{Transport: server.InProcess(api), Version: o.Version})
			if err != nil {
				tb.Fatalf("make the console: %v", err)
			}
			return h
		}
	})
	if empty {
		return f
	}
	for _, c := range Cases() {
		p.cases[store.KeyOf(c.Cluster)] = c
		f.Create(tb, c.Cluster)
		if c.Deleting {
			if err := f.Store.Delete(tb.Context(), v1alpha1.KindCluster, store.KeyOf(c.Cluster), store.Preconditions{UID: c.Cluster.UID}); err != nil {
				tb.Fatalf("delete %s: %v", c.Cluster.Name, err)
			}
		}
	}
	f.Create(tb, hosts()...)
	f.Create(tb, crashing())
	f.Create(tb, tasks()...)
	events(tb, f)
	return f
}

// played answers for the cases.
type played struct {
	*servertest.Fleet

	cases map[store.Key]*Case
}

// View says what the case's members answer.
func (p played) View(ctx context.Context, key store.Key) (v1alpha1.ClusterView, error) {
	c, ok := p.cases[key]
	if !ok {
		return p.Fleet.View(ctx, key)
	}
	view := c.View
	view.AskedAt = v1alpha1.MicroTime{Time: time.Now()}
	return view, nil
}

// Plan says what is planned for the case.
func (p played) Plan(ctx context.Context, key store.Key, proposed *v1alpha1.EtcdCluster) (v1alpha1.Plan, error) {
	if c, ok := p.cases[key]; ok && proposed == nil {
		return c.Plan, nil
	}
	return p.Fleet.Plan(ctx, key, proposed)
}

// serving is a healthy cluster of n members that the second leads.
func serving(name string, n int) *Case {
	c := servertest.Cluster("default", name)
	c.Spec.Replicas = int32(n) //nolint:gosec // a handful
	c.Status.Version, c.Status.Ready = "3.7.3", fmt.Sprintf("%d/%d", n, n)
	s := &Case{Cluster: c, View: v1alpha1.ClusterView{Namespace: c.Namespace, Cluster: name, State: v1alpha1.StateHealthy}}
	for i := range n {
		m := v1alpha1.MemberView{
			Name: fmt.Sprintf("%s-%d", name, i+1), Host: fmt.Sprintf("rack-%d", i+1), Endpoint: fmt.Sprintf("https://10.0.0.%d:2379", i+1),
			Phase: v1alpha1.MemberRunning, Healthy: true, Answered: true, Role: v1alpha1.RoleFollower, Version: "3.7.3", PID: int64(4000 + i),
			DBSize: common, DBSizeInUse: common / 2, DBQuota: quota, Revision: 4_812_907, RaftTerm: 14, RaftIndex: 5_400_321, RaftAppliedIndex: 5_400_319,
			LatencyMilliseconds: 1.4 + float64(i),
		}
		if i == min(1, n-1) {
			m.Role, s.View.Leader, c.Status.Leader = v1alpha1.RoleLeader, m.Name, m.Name
		}
		s.View.Members = append(s.View.Members, m)
		c.Status.Endpoints = append(c.Status.Endpoints, m.Endpoint)
	}
	s.condition(v1alpha1.ConditionAvailable, true, "QuorumServes", fmt.Sprintf("%d of %d members serve", n, n))
	return s
}

func (c *Case) condition(kind string, holds bool, reason, message string) {
	status := v1alpha1.False
	if holds {
		status = v1alpha1.True
	}
	v1alpha1.SetCondition(&c.Cluster.Status.Conditions, v1alpha1.Condition{
		Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: v1alpha1.NewTime(time.Now().Add(-3 * time.Hour)),
	})
}

// lose takes the answer of a member away.
func (c *Case) lose(i int, phase v1alpha1.MemberPhase, why string) {
	m := &c.View.Members[i]
	if c.View.Leader == m.Name {
		c.View.Leader, c.Cluster.Status.Leader = "", ""
	}
	c.View.Members[i] = v1alpha1.MemberView{Name: m.Name, Host: m.Host, Endpoint: m.Endpoint, Phase: phase, Message: why}
}

func degraded() *Case {
	c := serving("degraded", 3)
	c.lose(2, v1alpha1.MemberCrashLoop, "its etcd ended 6 times within 2 minutes: open /var/lib/quorate/members/default/degraded-3/data/member/wal: no space left on device")
	c.View.State, c.View.Message = v1alpha1.StateDegraded, "degraded-3: "+c.View.Members[2].Message
	c.Cluster.Status.Ready = "2/3"
	c.condition(v1alpha1.ConditionDegraded, true, "MembersDown", c.View.Message)
	c.Plan.Held = "degraded-3 is not healthy, and another member may not be restarted meanwhile: quorum would hang on one member"
	c.Plan.Steps = []v1alpha1.PlanStep{
		{Action: v1alpha1.ActionUpdateMember, Member: "degraded-1", Reason: "its configuration differs from the cluster's spec: snapshotCount 10000 becomes 25000", Precondition: "all other members are healthy", Impact: "clients of this member connect to another"},
		{Action: v1alpha1.ActionMoveLeader, Member: "degraded-2", Reason: "the leader is restarted last", Impact: "no leader for the time of an election"},
	}
	return c
}

func unavailable() *Case {
	c := serving("unavailable", 3)
	c.lose(1, v1alpha1.MemberRunning, "its etcd does not answer: connection refused")
	c.lose(2, v1alpha1.MemberRunning, "its etcd does not answer: context deadline exceeded")
	m := &c.View.Members[0]
	m.Role, m.Healthy, m.Message = "", false, "it follows no leader"
	c.View.State, c.View.Message = v1alpha1.StateUnavailable, "0 of 3 members are healthy, and 2 are needed"
	c.Cluster.Status.Ready = "0/3"
	c.condition(v1alpha1.ConditionAvailable, false, "NoQuorum", c.View.Message)
	return c
}

// full has reached its quota.
func full() *Case {
	c := serving("full", 3)
	for i := range c.View.Members {
		m := &c.View.Members[i]
		m.DBSize, m.DBSizeInUse, m.Healthy, m.Message = filled, filled-8192, false, "it knows of the alarm NOSPACE"
	}
	c.View.State, c.View.Message = v1alpha1.StateUnavailable, "the alarm NOSPACE stands: writes are refused"
	c.View.Alarms = []v1alpha1.AlarmView{{Type: "NOSPACE", Member: "full-1"}}
	c.Cluster.Status.Ready = "0/3"
	c.condition(v1alpha1.ConditionAvailable, false, "Alarm", c.View.Message)
	return c
}

func corrupt() *Case {
	c := serving("corrupt", 3)
	c.View.Members[2].Healthy, c.View.Members[2].Message = false, "it knows of the alarm CORRUPT"
	c.View.State, c.View.Message = v1alpha1.StateUnavailable, "the alarm CORRUPT stands: corrupt-3's data differ"
	c.View.Alarms = []v1alpha1.AlarmView{{Type: "CORRUPT", Member: "corrupt-3"}}
	c.condition(v1alpha1.ConditionAvailable, false, "Alarm", c.View.Message)
	return c
}

func stopped() *Case {
	c := serving("stopped", 3)
	for i := range c.View.Members {
		c.lose(i, v1alpha1.MemberStopped, "")
	}
	c.Cluster.Spec.Suspended, c.Cluster.Status.Ready = true, "0/3"
	c.View.State = v1alpha1.StateStopped
	c.condition(v1alpha1.ConditionAvailable, false, "Suspended", "every member is stopped, as spec.suspended asks")
	c.condition(v1alpha1.ConditionSuspended, true, "AsAsked", "every member is stopped")
	return c
}

// unknown has not been asked yet.
func unknown() *Case {
	c := serving("unknown", 3)
	c.View.Members, c.View.Leader, c.View.State = nil, "", v1alpha1.StateUnknown
	c.Cluster.Status = v1alpha1.EtcdClusterStatus{}
	return c
}

func leaving() *Case {
	c := stopped()
	was := c.Cluster.Name
	c.Cluster.Name, c.Cluster.Spec.Suspended, c.Deleting = "leaving", false, true
	c.Cluster.Finalizers = []string{v1alpha1.FinalizerCluster}
	c.View.Cluster = c.Cluster.Name
	for i := range c.View.Members {
		c.View.Members[i].Name = strings.Replace(c.View.Members[i].Name, was, c.Cluster.Name, 1)
	}
	return c
}

// learning has seven members, of which the last learns.
func learning() *Case {
	c := serving("seven", 7)
	c.View.Members[6].Role, c.View.Members[6].Healthy = v1alpha1.RoleLearner, true
	return c
}

// named has the longest names there may be, and is only observed.
func named() *Case {
	c := serving(LongName, 3)
	c.Cluster.Namespace = "customer-" + strings.Repeat("x", 40)
	c.View.Namespace = c.Cluster.Namespace
	c.Cluster.Spec.Management = v1alpha1.ManagementObserve
	c.Cluster.Spec.Import = &v1alpha1.ImportSpec{Endpoints: c.Cluster.Status.Endpoints}
	c.Cluster.Status.Endpoints = nil
	for i := range c.View.Members {
		m := &c.View.Members[i]
		m.Endpoint = fmt.Sprintf("https://%s-%d.etcd.internal.example.com:2379", LongName, i+1)
		c.Cluster.Status.Endpoints = append(c.Cluster.Status.Endpoints, m.Endpoint)
	}
	return c
}

func restored() *Case {
	c := serving("restored", 3)
	c.Cluster.Annotations = map[string]string{v1alpha1.AnnotationRestored: "2"}
	c.Plan.Token, c.Plan.Held = servertest.PlanToken, "the fleet's store was restored: accept this plan first"
	return c
}

func hosts() []v1alpha1.Object {
	var all []v1alpha1.Object
	for i, ready := range []v1alpha1.Condition{{Status: v1alpha1.True}, {Status: v1alpha1.False}, {Status: v1alpha1.Unknown}} {
		h := servertest.Host(fmt.Sprintf("rack-%d", i+1))
		h.Spec.Zone, h.Spec.Unschedulable = "north-1", i == 1
		h.Status.Platform, h.Status.AgentVersion, h.Status.BootID = "linux/amd64", "v0.1.0", "7c1f6a52-97a2-4e2a-8d4b-5d0c2fdb1c11"
		ready.Type, ready.Reason, ready.Message, ready.LastTransitionTime = v1alpha1.ConditionReady, "Reported", "its data directory has 1.2 GiB left", v1alpha1.Now()
		h.Status.Conditions = []v1alpha1.Condition{ready}
		all = append(all, h)
	}
	return all
}

// crashing is a member with all that a member can tell.
func crashing() *v1alpha1.EtcdMember {
	m := servertest.Member("default", "degraded-3", "rack-3")
	m.Spec.ClusterName, m.Spec.MemberID = "degraded", "8e9e05c52164694d"
	m.Status.Phase, m.Status.Message = v1alpha1.MemberCrashLoop, "its etcd ended 6 times within 2 minutes"
	m.Status.ClientURL, m.Status.PeerURL = "https://10.0.0.3:2379", "https://10.0.0.3:2380"
	m.Status.DataDir, m.Status.LogFile = "/var/lib/quorate/members/default/degraded-3/data", "/var/lib/quorate/members/default/degraded-3/log/etcd.log"
	m.Status.Process = &v1alpha1.ProcessStatus{PID: 4002, Restarts: 6, Crashes: 6, StartedAt: v1alpha1.NewTime(time.Now().Add(-5 * time.Second))}
	m.Status.LastExit = &v1alpha1.ExitStatus{Signal: "killed", At: v1alpha1.NewTime(time.Now().Add(-9 * time.Second))}
	return m
}

func tasks() []v1alpha1.Object {
	var all []v1alpha1.Object
	for i, phase := range []v1alpha1.TaskPhase{v1alpha1.TaskActing, v1alpha1.TaskSucceeded, v1alpha1.TaskAbandoned} {
		t := &v1alpha1.EtcdTask{}
		t.Namespace, t.Name, t.Labels = "default", fmt.Sprintf("degraded-step-%d", i+1), map[string]string{v1alpha1.LabelCluster: "degraded"}
		t.Spec = v1alpha1.EtcdTaskSpec{
			ClusterName: "degraded", ClusterUID: "u", Number: int64(i + 1), Action: v1alpha1.ActionStartMember, Member: "degraded-3",
			Reason: "its etcd is meant to run: the one that is there does not answer and follows no leader",
		}
		t.Status.Phase = phase
		all = append(all, t)
	}
	return all
}

// events are one of today, one of another day and one of another year.
func events(tb testing.TB, f *servertest.Fixture) {
	tb.Helper()
	for i, ago := range []time.Duration{400 * 24 * time.Hour, 30 * time.Hour, 0} {
		f.Store.Record(tb.Context(), store.Event{
			Time: time.Now().Add(-ago), Type: store.Warning, Kind: "EtcdMember", Namespace: "default", Name: "degraded-3", Cluster: "degraded",
			Reason: "EtcdExited", Message: fmt.Sprintf("it ended by signal killed, as it did %d times before", i), Count: int64(i + 1),
		})
	}
	f.Store.Record(tb.Context(), store.Event{
		Time: time.Now(), Type: store.Normal, Kind: "EtcdTask", Namespace: "default", Name: "degraded-step-1", Cluster: "degraded", Reason: "StartMember", Message: "degraded-3: it is meant to run",
	})
}
