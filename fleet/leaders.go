package fleet

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// What keeps leadership from going to and fro.
const (
	// leaderSettled is how long leadership must have stayed where it was moved for the
	// move to count as one that held.
	leaderSettled = 20 * time.Second
	// leaderBackoff is how long the next move waits after one that did not hold; it
	// doubles with each, up to leaderBackoffMax.
	leaderBackoff    = 10 * time.Second
	leaderBackoffMax = 30 * time.Minute
	// scatterEvery is how seldom the leadership of one cluster is moved only to spread
	// leaders over hosts: each move costs its clients some milliseconds.
	scatterEvery = 10 * time.Minute
	// scatterTurn is how long one cluster may take to move its leadership before another
	// may: leaders are counted anew in between, so that two don't flee to the same host.
	scatterTurn = 5 * time.Second
	// scatterGap is how many leaders more a host must have than another for one to go.
	scatterGap = 2
	// scatterAfter is how long leaders are only counted after the start of the server: of
	// clusters that were not looked at yet nobody knows who leads.
	scatterAfter = time.Minute
	// leaderLag is how many entries a member may be behind and still be given leadership.
	leaderLag = 1000
)

// Leading is what is known of leadership beyond what the members say now.
type Leading struct {
	// NotBefore is when leadership may next be moved into the leader zones: after a move
	// that did not hold it waits.
	NotBefore time.Time
	// Avoid is the member that leadership was moved to and did not stay with.
	Avoid string
	// OnHost counts the clusters that each host of this one's members leads.
	OnHost map[string]int
	// Scatter says that this cluster may now move its leadership to spread leaders.
	Scatter bool
}

// planLeader hands leadership to a member in the leader zones, and to one on a host with
// fewer leaders. The first goes before steps that are held: a cluster with a sick member
// is the one whose leader has just moved to where it should not be.
func planLeader(s *State, p *v1alpha1.Plan) {
	leader := s.leader()
	if leader == nil || len(p.Steps) > 0 && p.Held == "" {
		return
	}
	if s.leaderMisplaced(leader) {
		s.planLeaderHome(leader, p)
		return
	}
	if !s.Leading.Scatter || len(p.Steps) > 0 || s.healthyCount() != len(s.Members) {
		return
	}
	from := leader.Object.Spec.Host
	to := s.leaderCandidate(leader, func(m *MemberState) bool {
		h := s.host(m.Object.Spec.Host)
		return h != nil && !h.Object.Away() && s.Leading.OnHost[from]-s.Leading.OnHost[m.Object.Spec.Host] >= scatterGap
	})
	if to == nil {
		return
	}
	p.Steps = append(p.Steps, moveLeaderStep(to, fmt.Sprintf("host %s leads %d clusters and host %s leads %d",
		from, s.Leading.OnHost[from], to.Object.Spec.Host, s.Leading.OnHost[to.Object.Spec.Host]), "every member is healthy"))
}

func (s *State) planLeaderHome(leader *MemberState, p *v1alpha1.Plan) {
	zones := s.Cluster.Spec.Placement.LeaderZones
	where := fmt.Sprintf("the leader %s stands in zone %q, and placement.leaderZones is %s", leader.Object.Name, s.zoneOf(leader), strings.Join(zones, ", "))
	to := s.leaderCandidate(leader, nil)
	switch {
	case to == nil && !slices.ContainsFunc(s.Members, func(m MemberState) bool { return s.mayLead(&m) }):
		// The notes on placement say that nobody stands there.
	case to == nil:
		p.Notes = append(p.Notes, where+": no member there is healthy and near the end of the log, so leadership stays")
	case s.ReadAt.Before(s.Leading.NotBefore):
		p.Notes = append(p.Notes, fmt.Sprintf("%s: leadership did not stay with %s when it was moved, so the next move waits until %s",
			where, s.Leading.Avoid, s.Leading.NotBefore.UTC().Format(time.RFC3339)))
	default:
		step := moveLeaderStep(to, where, to.Object.Name+" is healthy and near the end of the log")
		p.Steps, p.Held, p.HeldReason = append([]v1alpha1.PlanStep{step}, p.Steps...), "", ""
	}
}

func moveLeaderStep(to *MemberState, reason, precondition string) v1alpha1.PlanStep {
	return v1alpha1.PlanStep{
		Action: v1alpha1.ActionMoveLeader, Member: to.Object.Name, MemberID: to.Object.Spec.MemberID,
		Reason: reason, Precondition: precondition,
		Impact: "writes wait for one change of leader, a few milliseconds",
	}
}

// leaderMisplaced reports whether leadership is known to be where it should not be.
func (s *State) leaderMisplaced(leader *MemberState) bool {
	return !s.mayLead(leader) && s.host(leader.Object.Spec.Host) != nil
}

// mayLead reports whether the member stands in a zone that the leader is kept in.
func (s *State) mayLead(m *MemberState) bool {
	zones := s.Cluster.Spec.Placement.LeaderZones
	return len(zones) == 0 || slices.Contains(zones, s.zoneOf(m))
}

func (s *State) zoneOf(m *MemberState) string {
	if h := s.host(m.Object.Spec.Host); h != nil {
		return h.Object.Spec.Zone
	}
	return ""
}

// leaderCandidate is the member to hand leadership to: in the leader zones, healthy, near
// the end of the log, on a host that stays and has few leaders. One that leadership did
// not stay with comes last.
func (s *State) leaderCandidate(leader *MemberState, ok func(*MemberState) bool) *MemberState {
	end, _ := s.answer(leader)
	type key struct{ avoided, away, leaders int }
	var best *MemberState
	var bestKey key
	for i := range s.Members {
		m := &s.Members[i]
		a, answers := s.answer(m)
		if m == leader || m.Object.Name == leader.Object.Name || !answers || !s.healthy(m) || !s.mayLead(m) ||
			a.Index+leaderLag < end.Index || m.Object.Spec.MemberID == "" || m.Object.DeletionTimestamp != nil {
			continue
		}
		if ok != nil && !ok(m) {
			continue
		}
		k := key{leaders: s.Leading.OnHost[m.Object.Spec.Host]}
		if m.Object.Name == s.Leading.Avoid {
			k.avoided = 1
		}
		if h := s.host(m.Object.Spec.Host); h != nil && h.Object.Away() {
			k.away = 1
		}
		if best == nil || cmp.Or(cmp.Compare(k.avoided, bestKey.avoided), cmp.Compare(k.away, bestKey.away), cmp.Compare(k.leaders, bestKey.leaders)) < 0 {
			best, bestKey = m, k
		}
	}
	return best
}

// leaderBook remembers who leads where, and when leadership was moved, for as long as the
// process lives: lost, it costs a move that could have waited.
type leaderBook struct {
	mu       sync.Mutex
	clusters map[store.Key]*leaderRecord
	// begun is when the first cluster was looked at.
	begun time.Time
	// turn is the cluster that may move its leadership to spread leaders, until then.
	turn      store.Key
	turnUntil time.Time
}

// leaderRecord is what is remembered of one cluster.
type leaderRecord struct {
	// host that leads it.
	host string
	// movedAt, target and its process are the latest move, and underway says that its end
	// was not seen yet. home says that leadership was last seen where it should be.
	movedAt  time.Time
	target   string
	process  string
	underway bool
	home     bool
	// bounces are the moves in a row that did not hold.
	bounces   int
	notBefore time.Time
}

func newLeaderBook() *leaderBook {
	return &leaderBook{clusters: map[store.Key]*leaderRecord{}}
}

// known is what observe has found out before; it notes nothing, so that who only asks for
// a plan has no part in what is decided.
func (b *leaderBook) known(key store.Key) Leading {
	b.mu.Lock()
	defer b.mu.Unlock()
	rec := b.clusters[key]
	if rec == nil {
		return Leading{}
	}
	l := Leading{NotBefore: rec.notBefore}
	if rec.bounces > 0 {
		l.Avoid = rec.target
	}
	return l
}

// observe notes where leadership is, and says what the plan has to know.
func (b *leaderBook) observe(s *State, now time.Time) Leading {
	leader := s.leader()
	if leader == nil {
		return Leading{}
	}
	key := store.KeyOf(s.Cluster)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.begun.IsZero() {
		b.begun = now
	}
	rec := b.record(key)
	rec.host = leader.Object.Spec.Host
	switch misplaced := s.leaderMisplaced(leader); {
	case !misplaced:
		rec.home, rec.underway = true, false
		if now.Sub(rec.movedAt) > leaderSettled {
			rec.bounces = 0
		}
	case rec.home:
		rec.home = false
		rec.bounced(now)
	}
	if rec.bounces > 0 && processOf(s.member(rec.target)) != rec.process {
		// Its process ended: leadership was lost with it, and did not bounce.
		rec.bounces, rec.notBefore = 0, time.Time{}
	}
	l := Leading{NotBefore: rec.notBefore, OnHost: map[string]int{}}
	if rec.bounces > 0 {
		l.Avoid = rec.target
	}
	for _, other := range b.clusters {
		l.OnHost[other.host]++
	}
	l.Scatter = b.offer(s, key, rec, l.OnHost, now)
	return l
}

// bounced counts a move that did not hold.
func (r *leaderRecord) bounced(now time.Time) {
	if r.movedAt.IsZero() || now.Sub(r.movedAt) > leaderSettled {
		r.bounces, r.notBefore = 0, time.Time{}
		return
	}
	r.bounces++
	wait := leaderBackoff
	for range r.bounces - 1 {
		wait = min(2*wait, leaderBackoffMax)
	}
	r.notBefore = now.Add(wait)
}

// offer gives the turn to spread leaders to one cluster at a time.
func (b *leaderBook) offer(s *State, key store.Key, rec *leaderRecord, onHost map[string]int, now time.Time) bool {
	if now.Sub(b.begun) < scatterAfter || now.Before(b.turnUntil) && b.turn != key || now.Sub(rec.movedAt) < scatterEvery {
		return false
	}
	uneven := slices.ContainsFunc(s.Members, func(m MemberState) bool {
		return onHost[rec.host]-onHost[m.Object.Spec.Host] >= scatterGap
	})
	if !uneven {
		return false
	}
	if b.turn != key || !now.Before(b.turnUntil) {
		b.turn, b.turnUntil = key, now.Add(scatterTurn)
	}
	return true
}

// moved notes that leadership was asked to move.
func (b *leaderBook) moved(s *State, target string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	rec := b.record(store.KeyOf(s.Cluster))
	if rec.underway {
		rec.bounced(now) // the move before did not even arrive
	}
	rec.movedAt, rec.target, rec.underway, rec.home = now, target, true, false
	rec.process = processOf(s.member(target))
}

// processOf names a member's etcd process, as its host last reported it.
func processOf(m *MemberState) string {
	if m == nil || m.Object.Status.Process == nil {
		return ""
	}
	return fmt.Sprintf("%d at %s", m.Object.Status.Process.PID, m.Object.Status.Process.StartedAt)
}

func (b *leaderBook) record(key store.Key) *leaderRecord {
	rec := b.clusters[key]
	if rec == nil {
		rec = &leaderRecord{}
		b.clusters[key] = rec
	}
	return rec
}

// forget drops a cluster that is gone.
func (b *leaderBook) forget(key store.Key) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.clusters, key)
}
