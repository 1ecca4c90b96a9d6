package fleet

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
)

// zoned is a cluster whose members stand one on a host, in the zones given; the one of
// that number leads.
func zoned(now time.Time, leads int, leaderZones []string, zones ...string) *State {
	c := &v1alpha1.EtcdCluster{Spec: v1alpha1.EtcdClusterSpec{Version: "3.7.3", Replicas: int32(len(zones))}}
	c.Namespace, c.Name = "default", "c"
	c.Spec.Placement.LeaderZones = leaderZones
	s := &State{Cluster: c, ReadAt: now}
	for i, zone := range zones {
		h := &v1alpha1.EtcdHost{Spec: v1alpha1.EtcdHostSpec{Zone: zone}}
		h.Name = fmt.Sprint("h", i)
		s.Hosts = append(s.Hosts, HostState{Object: h, Ready: true})
		m := &v1alpha1.EtcdMember{Spec: v1alpha1.EtcdMemberSpec{
			ClusterName: "c", Host: h.Name, Run: v1alpha1.RunRunning, MemberID: etcd.ID(i + 1).String(), Bootstrap: &v1alpha1.Bootstrap{},
		}}
		m.Namespace, m.Name = "default", fmt.Sprint("c-", i)
		m.Status.ClientURL = "https://" + m.Name + ":1"
		m.Spec = WantedSpec(c, m)
		m.Status.Process = &v1alpha1.ProcessStatus{PID: 1, ConfigHash: v1alpha1.MemberConfigHash(&m.Spec)}
		s.Members = append(s.Members, MemberState{Object: m, HostReady: true, Probe: &Probe{
			SentAt: now, Status: etcd.Status{MemberID: etcd.ID(i + 1), Leader: etcd.ID(leads + 1), Index: 5000, AppliedIndex: 5000},
		}})
	}
	return s
}

// silence makes members give no answer.
func (s *State) silence(members ...int) *State {
	for _, i := range members {
		s.Members[i].Probe = &Probe{SentAt: s.ReadAt, Err: "connection refused"}
	}
	return s
}

func firstMove(p v1alpha1.Plan) string {
	if len(p.Steps) == 0 || p.Held != "" || p.Steps[0].Action != v1alpha1.ActionMoveLeader {
		return ""
	}
	return p.Steps[0].Member
}

func TestLeaderZones(t *testing.T) {
	now := time.Unix(1000, 0)
	near := []string{"a", "b"}
	for name, c := range map[string]struct {
		s    *State
		to   string
		note string
	}{
		"in a leader zone":          {zoned(now, 0, near, "a", "b", "c"), "", ""},
		"no zone named":             {zoned(now, 2, nil, "a", "b", "c"), "", ""},
		"in a distant zone":         {zoned(now, 2, near, "a", "b", "c"), "c-0", ""},
		"beside a sick member":      {zoned(now, 2, near, "a", "b", "c").silence(0), "c-1", ""},
		"nobody healthy where near": {zoned(now, 4, near, "a", "b", "c", "c", "c").silence(0, 1), "", "leadership stays"},
		"a host that nobody knows":  {func() *State { s := zoned(now, 2, near, "a", "b", "c"); s.Hosts = s.Hosts[:2]; return s }(), "", ""},
		"a learner there": {func() *State {
			s := zoned(now, 2, near, "a", "b", "c")
			s.Members[0].Probe.Status.Learner = true
			return s
		}(), "c-1", ""},
		"far behind there": {func() *State {
			s := zoned(now, 2, near, "a", "b", "c")
			s.Members[0].Probe.Status.Index, s.Members[0].Probe.Status.AppliedIndex = 3000, 3000
			return s
		}(), "c-1", ""},
		"a host that is drained there": {func() *State {
			s := zoned(now, 2, near, "a", "b", "c")
			s.Hosts[0].Object.Spec.Drain = true
			return s
		}(), "c-1", ""},
		"before an update that waits": {func() *State {
			s := zoned(now, 4, near, "a", "a", "b", "b", "c").silence(0)
			s.Members[0].HostReady = false
			s.Cluster.Spec.Etcd.SnapshotCount = 77
			return s
		}(), "c-1", ""},
		"suspended": {func() *State {
			s := zoned(now, 2, near, "a", "b", "c")
			s.Cluster.Spec.Suspended = true
			return s
		}(), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := Plan(c.s)
			if got := firstMove(p); got != c.to {
				t.Errorf("leadership goes to %q, not %q: %+v", got, c.to, p)
			}
			if notes := strings.Join(p.Notes, "\n"); c.note != "" && !strings.Contains(notes, c.note) {
				t.Errorf("the notes are %q", notes)
			}
		})
	}
}

// TestLeaderBook: a move that did not hold is followed by longer and longer waits and by
// another target; one that held is forgotten.
func TestLeaderBook(t *testing.T) {
	now := time.Unix(1000, 0)
	b := newLeaderBook()
	pid := int64(1)
	look := func(leads int) string {
		s := zoned(now, leads, []string{"a", "b"}, "a", "b", "c")
		for i := range s.Members {
			s.Members[i].Object.Status.Process.PID = pid
		}
		s.Leading = b.observe(s, now)
		to := firstMove(Plan(s))
		if to != "" {
			b.moved(s, to, now)
		}
		return to
	}
	after := func(d time.Duration) { now = now.Add(d) }
	if to := look(2); to != "c-0" {
		t.Fatalf("at first it goes to %q", to)
	}
	// It stays a minute, then the leader is lost: at once again.
	after(time.Second)
	look(0)
	after(time.Minute)
	if to := look(2); to != "c-0" {
		t.Fatalf("after a minute it goes to %q", to)
	}
	// It comes back within seconds: it waits, and then goes elsewhere.
	wait := leaderBackoff
	avoid := "c-0"
	for round := range 5 {
		after(time.Second)
		look(0)
		after(time.Second)
		if to := look(2); to != "" {
			t.Fatalf("round %d: it goes to %q at once", round, to)
		}
		after(wait - 100*time.Millisecond)
		if to := look(2); to != "" {
			t.Fatalf("round %d: it goes to %q before %s are over", round, to, wait)
		}
		after(200 * time.Millisecond)
		to := look(2)
		if to == "" || to == avoid {
			t.Fatalf("round %d: after %s it goes to %q", round, wait, to)
		}
		avoid = to
		wait *= 2
	}
	// That its process ended explains it: at once again.
	after(time.Second)
	look(0)
	after(time.Second)
	if to := look(2); to != "" {
		t.Fatalf("it goes to %q at once", to)
	}
	pid++
	if to := look(2); to == "" {
		t.Fatal("a leader that was lost is taken for a move that did not hold")
	}
	after(time.Second)
	look(1)
	after(leaderSettled)
	look(1)
	if to := look(2); to == "" {
		t.Fatal("a move that held is not forgotten")
	}
}

// TestScatterLeaders: whatever the places of members and leaders, spreading leaders ends,
// moves each cluster's leadership once at most, and leaves no host with two more than
// another that it shares a cluster with — unless that cluster has moved already.
func TestScatterLeaders(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hosts := rapid.IntRange(3, 8).Draw(t, "hosts")
		type place struct {
			on    []int
			leads int
		}
		places := map[string]*place{}
		var names []string
		for i := range rapid.IntRange(1, 25).Draw(t, "clusters") {
			first := rapid.IntRange(0, hosts-1).Draw(t, "first")
			name := fmt.Sprintf("c%02d", i)
			places[name] = &place{on: []int{first, (first + 1) % hosts, (first + 2) % hosts}}
			names = append(names, name)
		}
		b := newLeaderBook()
		now := time.Unix(1000, 0)
		moves := map[string]int{}
		for range 60 * len(names) {
			name := names[rapid.IntRange(0, len(names)-1).Draw(t, "next")]
			pl := places[name]
			now = now.Add(4 * time.Second)
			s := zoned(now, pl.leads, nil, "z", "z", "z")
			s.Cluster.Name = name
			for i, h := range pl.on {
				s.Members[i].Object.Spec.Host = fmt.Sprint("h", h)
			}
			s.Leading = b.observe(s, now)
			if to := firstMove(Plan(s)); to != "" {
				b.moved(s, to, now)
				_, _ = fmt.Sscanf(to, "c-%d", &pl.leads)
				moves[name]++
			}
			if now.Sub(time.Unix(1000, 0)) > scatterEvery {
				break
			}
		}
		for name, n := range moves {
			if n > 1 {
				t.Fatalf("leadership of %s moved %d times", name, n)
			}
		}
	})
}

// TestScatterLeadersEvens: ten clusters on the same three hosts, all led by the first.
func TestScatterLeadersEvens(t *testing.T) {
	b := newLeaderBook()
	now := time.Unix(1000, 0)
	leads := make([]int, 10)
	for range 20 {
		for i := range leads {
			now = now.Add(700 * time.Millisecond)
			s := zoned(now, leads[i], nil, "z", "z", "z")
			s.Cluster.Name = fmt.Sprint("c", i)
			s.Leading = b.observe(s, now)
			if to := firstMove(Plan(s)); to != "" {
				b.moved(s, to, now)
				_, _ = fmt.Sscanf(to, "c-%d", &leads[i])
			}
		}
	}
	count := map[int]int{}
	for _, l := range leads {
		count[l]++
	}
	for h := range 3 {
		if count[h] < 3 || count[h] > 4 {
			t.Fatalf("ten leaders on three hosts: %v", count)
		}
	}
}

// TestScatterWaitsAfterStart: until all clusters were looked at, leaders are only counted; and
// none is sent to a host that is to be emptied.
func TestScatterWaitsAfterStart(t *testing.T) {
	b := newLeaderBook()
	now := time.Unix(1000, 0)
	look := func(name string, drain bool) string {
		now = now.Add(time.Second)
		s := zoned(now, 0, nil, "z", "z")
		s.Cluster.Name = name
		s.Hosts[1].Object.Spec.Drain = drain
		s.Leading = b.observe(s, now)
		return firstMove(planLeaderOnly(s))
	}
	for _, name := range []string{"a", "b", "d"} {
		if to := look(name, false); to != "" {
			t.Fatalf("%s is moved to %s right after the start", name, to)
		}
	}
	now = now.Add(scatterAfter)
	if to := look("a", true); to != "" {
		t.Fatalf("sent to %s, whose host is to be emptied", to)
	}
	if to := look("a", false); to != "c-1" {
		t.Fatalf("three leaders on one host, and the first goes to %q", to)
	}
}

func planLeaderOnly(s *State) v1alpha1.Plan {
	var p v1alpha1.Plan
	planLeader(s, &p)
	return p
}

// TestElectingText: what is told while the members settle is what was done.
func TestElectingText(t *testing.T) {
	for action, want := range map[v1alpha1.TaskAction]string{
		v1alpha1.ActionPromoteMember: "c-1 becomes a voter",
		v1alpha1.ActionRemoveMember:  "c-1 leaves the cluster",
		v1alpha1.ActionMoveLeader:    "leadership is moving to c-1",
	} {
		if got := electingText(&v1alpha1.EtcdTask{Spec: v1alpha1.EtcdTaskSpec{Action: action, Member: "c-1"}}); got != want {
			t.Errorf("%s: %q", action, got)
		}
	}
}

// TestDeletingIsNotDegraded: members of a cluster that is being deleted go down as asked.
func TestDeletingIsNotDegraded(t *testing.T) {
	now := time.Unix(1000, 0)
	s := zoned(now, 0, nil, "a", "b", "c").silence(0, 1)
	if c := degradedCondition(s); c.Status != v1alpha1.True {
		t.Fatalf("two of three are down, and it is %s", c.Status)
	}
	gone := v1alpha1.NewTime(now)
	s.Cluster.DeletionTimestamp = &gone
	if c := degradedCondition(s); c.Status != v1alpha1.False || c.Reason != "Deleting" {
		t.Fatalf("%+v", c)
	}
}
