package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

const (
	// lookEvery is how often the members are asked while a cluster recovers.
	lookEvery = 100 * time.Millisecond
	// lookTime bounds one look: a member that was killed must not hold up the rest.
	lookTime = 2 * time.Second
	// recoveryTime is when a recovery is no longer waited for.
	recoveryTime = time.Minute
	// afterwards is how long the picture goes on once all is well.
	afterwards = time.Second
)

// breakable reports whether the leader may be killed to see the cluster heal: only
// on hosts whose agents were told so.
func breakable(ctx context.Context, v *visit, leader *v1alpha1.MemberView) bool {
	if leader == nil || leader.Host == "" || leader.PID == 0 {
		return false
	}
	host := &v1alpha1.EtcdHost{}
	return v.api.Get(ctx, store.Key{Name: leader.Host}, host) == nil && host.Status.FaultsAllowed
}

// sight is what was seen of the members at one moment of a recovery.
type sight struct {
	// At is when it was asked, in milliseconds since the kill.
	At      int64         `json:"at"`
	Members []sightMember `json:"members,omitempty"`
	// Marks were reached at this moment.
	Marks []mark `json:"marks,omitempty"`
	// Failed is why nothing more comes.
	Failed string `json:"failed,omitempty"`
	// Done: all is as before.
	Done bool `json:"done,omitempty"`
}

type sightMember struct {
	Name string `json:"name"`
	// State is leader, up, idle (it answers, and follows nobody) or down.
	State string `json:"state"`
}

// mark is one step of a recovery.
type mark struct {
	// Step is killed, lost, elected, serving, back or healthy.
	Step   string `json:"step"`
	At     int64  `json:"at"`
	Member string `json:"member,omitempty"`
	Term   uint64 `json:"term,omitempty"`
}

// killLeader kills the leader's etcd and streams what becomes of the cluster, a
// line of JSON for each look. It is a POST that streams, and not an event stream
// that something else has begun, so that there is nothing to keep between requests:
// when the page goes, the looking ends.
func (c *console) killLeader(v *visit) error {
	ctx, cancel := c.streaming(v.r.Context())
	defer cancel()
	ctx, cancelTime := context.WithTimeout(ctx, recoveryTime)
	defer cancelTime()
	key := v.key()
	before, err := v.api.View(ctx, key)
	if err != nil {
		return err
	}
	flush := lifted(v)
	v.Header().Set("Content-Type", "application/x-ndjson")
	v.Header().Set("X-Accel-Buffering", "no")
	v.WriteHeader(http.StatusOK)
	out := func(s sight) error {
		raw, err := json.Marshal(s)
		if err != nil {
			return err
		}
		return c.say(v, flush, string(raw)+"\n")
	}
	if before.Leader == "" {
		text, wordErr := c.pages.words[v.look.Lang].text("recovery.noLeader")
		_ = out(sight{Failed: text}) // who has gone does not read why
		return wordErr
	}
	r := newRecovery(&before)
	began := time.Now()
	if err := v.api.KillMember(ctx, store.Key{Namespace: key.Namespace, Name: before.Leader}); err != nil {
		_ = out(sight{Failed: err.Error()}) // who has gone does not read why
		return nil
	}
	first := sight{Members: sightOf(&before), Marks: []mark{{Step: "killed", Member: before.Leader, Term: r.term}}}
	if out(first) != nil {
		return nil // who has gone does not read why
	}
	c.watchRecovery(ctx, v.api, key, began, r, out)
	return nil
}

// watchRecovery looks until all is healthy, the reader goes or time is up.
func (c *console) watchRecovery(ctx context.Context, api *remote.Client, key store.Key, began time.Time, r *recovery, out func(sight) error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	views := looks(ctx, api, key, began)
	var healthy time.Time
	for l := range views {
		r.date(&l.view)
		s := sight{At: l.at, Members: sightOf(&l.view), Marks: r.see(&l.view, l.at)}
		if r.healed && healthy.IsZero() {
			healthy = time.Now()
		}
		s.Done = r.healed && time.Since(healthy) > afterwards
		if out(s) != nil || s.Done {
			return
		}
	}
	if ctx.Err() != nil && !r.healed {
		_ = out(sight{At: time.Since(began).Milliseconds(), Failed: fmt.Sprint(context.Cause(ctx))}) // who has gone does not read why
	}
}

// taken is a view with when it was asked for.
type taken struct {
	at   int64
	view v1alpha1.ClusterView
}

// looks yields views in the order in which they were asked for, at a steady pace. A
// view waits for a member that does not answer, so several are under way at a time.
func looks(ctx context.Context, api *remote.Client, key store.Key, began time.Time) <-chan taken {
	const underWay = int(lookTime/lookEvery) + 1
	asked, out := make(chan chan *taken, underWay), make(chan taken)
	go func() {
		defer close(asked)
		ticker := time.NewTicker(lookEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			answer := make(chan *taken, 1)
			go func() { answer <- lookOnce(ctx, api, key, time.Since(began)) }()
			select {
			case asked <- answer:
			case <-ctx.Done():
				return
			}
		}
	}()
	go func() {
		defer close(out)
		for answer := range asked {
			t := <-answer
			if t == nil {
				continue
			}
			select {
			case out <- *t:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// lookOnce is one look; nil when the server did not answer.
func lookOnce(ctx context.Context, api *remote.Client, key store.Key, at time.Duration) *taken {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	view, err := api.View(ctx, key)
	if err != nil {
		return nil
	}
	return &taken{at.Milliseconds(), view}
}

func sightOf(v *v1alpha1.ClusterView) []sightMember {
	list := make([]sightMember, 0, len(v.Members))
	for i := range v.Members {
		m := &v.Members[i]
		state := "down"
		switch {
		case m.Answered && m.Role == v1alpha1.RoleLeader:
			state = "leader"
		case m.Healthy && v.Leader != "":
			state = "up"
		case m.Answered:
			state = "idle"
		}
		list = append(list, sightMember{m.Name, state})
	}
	return list
}

// recovery knows which steps have been seen.
type recovery struct {
	// killed is the leader that was, and term the one it led in.
	killed string
	term   uint64
	pid    int64
	seen   map[string]bool
	healed bool
}

func newRecovery(before *v1alpha1.ClusterView) *recovery {
	r := &recovery{killed: before.Leader, seen: map[string]bool{}}
	for i := range before.Members {
		if m := &before.Members[i]; m.Name == before.Leader {
			r.term, r.pid = m.RaftTerm, m.PID
		}
	}
	return r
}

// date takes back an answer of the killed member that came long after it was asked
// for: it was still down at the moment that the view is of.
func (r *recovery) date(v *v1alpha1.ClusterView) {
	const late = float64(lookEvery) * 1.5 / float64(time.Millisecond)
	for i := range v.Members {
		if m := &v.Members[i]; m.Name == r.killed && m.Answered && m.LatencyMilliseconds > late {
			m.Answered, m.Healthy, m.Role = false, false, ""
			v.State = v1alpha1.StateDegraded
		}
	}
}

// see returns the steps that a view shows for the first time. A later step that is
// seen first says that the ones before were too quick to be seen alone; only the
// killed member may be back before or after the others have a leader.
func (r *recovery) see(v *v1alpha1.ClusterView, at int64) []mark {
	var leader, killed *v1alpha1.MemberView
	healthy, voters := 0, 0
	for i := range v.Members {
		m := &v.Members[i]
		if m.Role == v1alpha1.RoleLeader && m.Answered {
			leader = m
		}
		if m.Name == r.killed {
			killed = m
		}
		if m.Role == v1alpha1.RoleLearner {
			continue
		}
		voters++
		if m.Healthy {
			healthy++
		}
	}
	elected := leader != nil && (leader.Name != r.killed || leader.RaftTerm > r.term)
	var marks []mark
	reached := func(step string, now bool, m mark) bool {
		if !now || r.seen[step] {
			return r.seen[step]
		}
		r.seen[step] = true
		m.Step, m.At = step, at
		marks = append(marks, m)
		return true
	}
	if !reached("lost", elected || killed == nil || !killed.Answered, mark{Member: r.killed}) {
		return marks
	}
	back := reached("back", killed != nil && killed.Answered, mark{Member: r.killed})
	if !reached("elected", elected, nameOf(leader)) || !reached("serving", healthy >= quorumOf(voters), mark{}) || !back {
		return marks
	}
	r.healed = reached("healthy", v.State == v1alpha1.StateHealthy, mark{})
	return marks
}

func nameOf(m *v1alpha1.MemberView) mark {
	if m == nil {
		return mark{}
	}
	return mark{Member: m.Name, Term: m.RaftTerm}
}
