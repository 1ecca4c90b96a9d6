package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/fleet/place"
)

// State is everything a plan is made from.
type State struct {
	// ReadAt is when the objects were read, before any probe was sent.
	ReadAt time.Time
	// Cluster as it is wanted.
	Cluster *v1alpha1.EtcdCluster
	// Members that exist, by number; those that a restore replaces are Former.
	Members []MemberState
	Former  []MemberState
	// Left are those that etcd has removed from the cluster, and that are still to go.
	Left []MemberState
	// Roster is etcd's own list of its members, as its quorum knew them after the objects
	// were read; nil where nothing depends on it, or it could not be read: RosterError then
	// says why.
	Roster      []etcd.Member
	RosterError string
	// Turn says why members are not moved off their draining hosts now: others go first.
	// Empty when they may be.
	Turn string
	// Restore that the cluster names; nil where it names none, or there is none of that
	// name.
	Restore *v1alpha1.EtcdRestore
	// Hosts that exist, by name.
	Hosts []HostState
	// LastNumber is the highest member number ever used.
	LastNumber int64
	// Release that the cluster's version means on each platform.
	Releases map[string]v1alpha1.ReleaseRef
	// CAProblem is why the cluster's CA can't be used, or empty.
	CAProblem string
	// FormationProblem is why founding members could not find each other, or empty.
	FormationProblem string
	// Leading is what is known of leadership beyond the members' answers.
	Leading Leading
	// Alarms raised in etcd; nil when they could not be read.
	Alarms []etcd.Alarm
}

// MemberState is one member as wanted and as seen.
type MemberState struct {
	Object *v1alpha1.EtcdMember
	// HostReady: its host's agent reports, so its status is current and its spec is
	// carried out.
	HostReady bool
	// Probe is the latest answer of its etcd, or nil.
	Probe *Probe
}

// HostState is one host.
type HostState struct {
	Object *v1alpha1.EtcdHost
	Ready  bool
	// Bound are the members of other clusters that it has, where a host is to be chosen.
	Bound []place.Member
}

// Probe is the answer of one member's etcd.
type Probe struct {
	// SentAt is when it was asked, by the controller's clock.
	SentAt time.Time
	// Took is how long the answer took.
	Took time.Duration
	// Err is why there is no answer, or empty.
	Err string
	// Status it answered.
	Status etcd.Status
}

// answer returns the member's status if it is known and newer than the objects.
func (s *State) answer(m *MemberState) (etcd.Status, bool) {
	if m.Probe == nil || m.Probe.Err != "" || m.Probe.SentAt.Before(s.ReadAt) {
		return etcd.Status{}, false
	}
	return m.Probe.Status, true
}

// healthy reports whether a member serves and knows of no alarm.
func (s *State) healthy(m *MemberState) bool {
	a, ok := s.answer(m)
	return ok && len(a.Errors) == 0 && s.serves(m)
}

// serves reports whether a member is a working part of the quorum: it answers,
// follows a leader, votes, and is the member it is recorded to be. An alarm does
// not take that away: a new configuration may be what cures it.
func (s *State) serves(m *MemberState) bool {
	a, ok := s.answer(m)
	if !ok || a.Leader == 0 || a.Learner {
		return false
	}
	// A backlog of applies means reads would be old and a restart slow.
	const backlog = 5000
	if a.Index > a.AppliedIndex+backlog {
		return false
	}
	return m.Object.Spec.MemberID == "" || m.Object.Spec.MemberID == a.MemberID.String()
}

// answering counts the voters whose etcd answers, whether it serves or not.
func (s *State) answering() int {
	n := 0
	for i := range s.Members {
		if _, ok := s.answer(&s.Members[i]); ok && s.votes(&s.Members[i]) {
			n++
		}
	}
	return n
}

// leaderless reports whether no member knows a leader and none is to be expected:
// too few answer to elect one, or they have not managed to for a minute.
func (s *State) leaderless() bool {
	for i := range s.Members {
		if a, ok := s.answer(&s.Members[i]); ok && a.Leader != 0 {
			return false
		}
	}
	if s.answering() < quorum(s.voters()) {
		return true
	}
	const election = time.Minute
	c := v1alpha1.FindCondition(s.Cluster.Status.Conditions, v1alpha1.ConditionAvailable)
	return c != nil && c.Status == v1alpha1.False && s.ReadAt.Sub(c.LastTransitionTime.Time) > election
}

// corrupt reports whether etcd has raised the alarm that members' data differ.
func (s *State) corrupt() bool {
	return slices.ContainsFunc(s.Alarms, func(a etcd.Alarm) bool { return a.Type == "CORRUPT" })
}

// whyUnhealthy says in words what is wrong with a member.
func (s *State) whyUnhealthy(m *MemberState) string {
	st := &m.Object.Status
	a, ok := s.answer(m)
	switch {
	case st.Phase == v1alpha1.MemberRefused || st.Phase == v1alpha1.MemberCrashLoop || st.Phase == v1alpha1.MemberFailed:
		return fmt.Sprintf("%s: %s", st.Phase, st.Message)
	case !m.HostReady:
		return fmt.Sprintf("the agent of host %s does not report, and its etcd %s", m.Object.Spec.Host, m.silence(s))
	case !ok:
		return "its etcd " + m.silence(s)
	case len(a.Errors) > 0:
		return strings.Join(a.Errors, ", ")
	case a.Leader == 0:
		return "it knows no leader"
	case a.Learner:
		return "it is a learner"
	case m.Object.Spec.MemberID != "" && m.Object.Spec.MemberID != a.MemberID.String():
		return fmt.Sprintf("member %s answers at its address, but it is %s", a.MemberID, m.Object.Spec.MemberID)
	}
	return fmt.Sprintf("it has applied %d of %d entries", a.AppliedIndex, a.Index)
}

func (m *MemberState) silence(s *State) string {
	switch {
	case m.Object.Status.ClientURL == "":
		return "has no address yet"
	case m.Probe == nil || m.Probe.SentAt.Before(s.ReadAt):
		return "has not been asked yet"
	case m.Probe.Err != "":
		return "does not answer: " + m.Probe.Err
	}
	return "answers"
}

// silentHosts are the hosts of members whose agents don't report, by name; not those that
// the server, just started, still waits for.
func (s *State) silentHosts() []string {
	var silent []string
	for i := range s.Members {
		if m := &s.Members[i]; !m.HostReady && m.Object.Spec.Host != "" && !s.awaited(m.Object.Spec.Host) {
			silent = append(silent, m.Object.Spec.Host)
		}
	}
	slices.Sort(silent)
	return slices.Compact(silent)
}

// awaited reports whether the host's agent may still find the server, which was just started.
func (s *State) awaited(name string) bool {
	h := s.host(name)
	if h == nil {
		return false
	}
	c := v1alpha1.FindCondition(h.Object.Status.Conditions, v1alpha1.ConditionReady)
	return c != nil && c.Reason == ReasonAgentAwaited
}

// leader returns the member that the healthy ones agree leads, or nil.
func (s *State) leader() *MemberState {
	var id etcd.ID
	for i := range s.Members {
		a, ok := s.answer(&s.Members[i])
		if !ok || a.Leader == 0 || !s.votes(&s.Members[i]) {
			continue
		}
		if id != 0 && id != a.Leader {
			return nil
		}
		id = a.Leader
	}
	if id == 0 {
		return nil
	}
	for i := range s.Members {
		if a, ok := s.answer(&s.Members[i]); ok && a.MemberID == id {
			return &s.Members[i]
		}
	}
	return nil
}

// healthyCount counts the healthy members.
func (s *State) healthyCount() int {
	n := 0
	for i := range s.Members {
		if s.healthy(&s.Members[i]) {
			n++
		}
	}
	return n
}

// member of that name, one that was replaced or removed included.
func (s *State) member(name string) *MemberState {
	for _, list := range [][]MemberState{s.Members, s.Former, s.Left} {
		for i := range list {
			if list[i].Object.Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

func (s *State) host(name string) *HostState {
	for i := range s.Hosts {
		if s.Hosts[i].Object.Name == name {
			return &s.Hosts[i]
		}
	}
	return nil
}

// formed reports whether the cluster has begun to exist: a member was told how to
// bootstrap.
func (s *State) formed() bool {
	return slices.ContainsFunc(s.Members, func(m MemberState) bool { return told(&m) })
}

// quorum is the number of members that must be up for n voters to decide.
func quorum(n int) int { return n/2 + 1 }

// memberNumber is the number at the end of a member's name, or 0.
func memberNumber(cluster, name string) int64 {
	rest, ok := strings.CutPrefix(name, cluster+"-")
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(rest, 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

func sortMembers(cluster string, members []MemberState) {
	slices.SortFunc(members, func(a, b MemberState) int {
		return cmp.Or(
			cmp.Compare(memberNumber(cluster, a.Object.Name), memberNumber(cluster, b.Object.Name)),
			cmp.Compare(a.Object.Name, b.Object.Name),
		)
	})
}
