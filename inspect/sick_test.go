package inspect_test

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/inspect"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/test/etcdlab"
	"github.com/quorate/quorate/test/freeport"
)

// TestHealthy: nothing worth a warning is said of a healthy cluster, and looking at
// it leaves revision, term and even the raft log as they were.
func TestHealthy(t *testing.T) {
	t.Parallel()
	ca := etcdlab.NewAuthority(t)
	l := newLab(t, labOptions{Members: 3, CA: ca, ClientCerts: true}).ready()
	cert, key := ca.Issue(t, pki.Client, "root", nil)
	before := position(t, l, l.Members[0])
	r := look(t, inspect.Options{Endpoints: l.URLs(l.Members[1]), CA: ca.Roots(), Certificate: cert, Key: key})
	if r.State != v1alpha1.StateHealthy {
		t.Errorf("it is %s: %s", r.State, r.Summary)
	}
	if w := r.Worst(); w == inspect.Critical || w == inspect.Warning {
		t.Errorf("the worst finding is %s, want none above info", w)
	}
	after := position(t, l, l.Members[0])
	if before.Revision != after.Revision || before.Term != after.Term || before.Index != after.Index {
		t.Errorf("revision, term and index were %d, %d, %d and are %d, %d, %d",
			before.Revision, before.Term, before.Index, after.Revision, after.Term, after.Index)
	}
	if n := len(r.Observation.Members); n != 3 {
		t.Errorf("%d members were found by one endpoint, want 3", n)
	}
	for _, m := range r.Observation.Members {
		if !m.Answers() || m.Linearizable.Reads < 10 || m.Clock == nil || m.Metrics == nil || len(m.Certificates) == 0 || !m.WantsCertificate {
			t.Errorf("%s was not wholly seen: %+v", m.Label(), m)
		}
	}
}

func TestMemberDown(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{Members: 3}).ready()
	l.Members[2].Kill()
	l.ready(l.Members[:2]...)
	r := look(t, inspect.Options{Endpoints: l.URLs(l.Members[0])})
	f := finding(t, r, "member-down")
	if r.State != v1alpha1.StateDegraded || r.Findings[0].ID != "member-down" || f.Severity != inspect.Critical {
		t.Errorf("it is %s, first %s, and the member is %s", r.State, r.Findings[0].ID, f.Severity)
	}
	if !strings.Contains(strings.Join(f.Evidence, "\n"), "one more loss stops all writes") || !strings.Contains(f.Title, "m3 (") {
		t.Errorf("evidence %q of %q", f.Evidence, f.Title)
	}
	if !strings.Contains(strings.Join(f.Commands, "\n"), "etcdctl --endpoints="+l.Members[0].Client) {
		t.Errorf("no command to copy: %q", f.Commands)
	}
}

func TestNoQuorum(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{Members: 3}).ready()
	l.Members[1].Kill()
	l.Members[2].Kill()
	c := l.client(l.Members[0])
	l.until("without a leader", func(ctx context.Context) error {
		st, err := c.Status(ctx, l.Members[0].Client)
		if err == nil && st.Leader != 0 {
			return context.DeadlineExceeded
		}
		return err
	})
	r := look(t, inspect.Options{Endpoints: l.URLs()})
	if r.State != v1alpha1.StateUnavailable || r.Findings[0].ID != "no-quorum" || r.Worst() != inspect.Critical {
		t.Errorf("it is %s, first %s", r.State, r.Findings[0].ID)
	}
	finding(t, r, "member-down")
	if m := r.Observation.Members[0]; m.Serializable.Reads == 0 {
		t.Errorf("no serializable read was answered: %+v", m.Serializable)
	}
}

func TestAllDown(t *testing.T) {
	t.Parallel()
	r := look(t, inspect.Options{Endpoints: []string{"http://127.0.0.1:1", "127.0.0.1:2"}})
	if r.State != v1alpha1.StateUnknown || r.Worst() != inspect.Critical {
		t.Errorf("it is %s, %s", r.State, r.Worst())
	}
	finding(t, r, "member-down")
}

// TestBlackHole: members and endpoints that never answer do not use up the time of
// the others, whether they were named or are found by the list.
func TestBlackHole(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{Members: 3, Edit: advertising(fullQueue(t))}).ready()
	r := look(t, inspect.Options{Endpoints: []string{l.Members[0].Client, blackHole(t), fullQueue(t), "http://nowhere.invalid:2379"}})
	for _, id := range []string{"member-hangs", "member-silent", "member-name"} {
		if f := finding(t, r, id); !strings.Contains(strings.Join(f.Evidence, "\n"), "the cluster lists no member with this URL") {
			t.Errorf("%s: %q", id, f.Evidence)
		}
	}
	// Its peers are connected to the member that advertises a black hole.
	if f := finding(t, r, "not-reachable-from-here"); !strings.Contains(f.Subject, "m3") {
		t.Errorf("subject %q", f.Subject)
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
	seen := 0
	for _, m := range r.Observation.Members {
		if m.Answers() && m.Linearizable.Reads > 0 {
			seen++
		}
	}
	if seen != 2 {
		t.Errorf("%d members were wholly seen, want 2", seen)
	}
}

// TestAllBlackHoles: the time that is given is enough for that, and no more is used.
func TestAllBlackHoles(t *testing.T) {
	t.Parallel()
	began := time.Now()
	r := look(t, inspect.Options{Endpoints: []string{fullQueue(t), fullQueue(t), blackHole(t)}, User: "root", Password: "x", Timeout: 2 * time.Second})
	if took := time.Since(began); took > 4*time.Second { // the queues are filled first
		t.Errorf("it took %s", took)
	}
	if r.State != v1alpha1.StateUnknown {
		t.Errorf("it is %s", r.State)
	}
}

func TestPausedMember(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{Members: 3}).ready()
	pause(t, l.Members[2])
	l.ready(l.Members[:2]...)
	r := look(t, inspect.Options{Endpoints: l.URLs(l.Members[0])})
	f := finding(t, r, "member-hangs")
	if !strings.Contains(f.Title, "m3") || r.State != v1alpha1.StateDegraded {
		t.Errorf("%s: %s", r.State, f.Title)
	}
}

func TestNoSpace(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{Members: 1, Flags: []string{"--quota-backend-bytes=2097152"}}).ready()
	c := l.client(l.Members[0])
	value := strings.Repeat("x", 100<<10)
	l.until("full", func(ctx context.Context) error {
		for range 100 {
			if _, err := c.Put(ctx, "k", value); err != nil && strings.Contains(err.Error(), "space exceeded") {
				return nil
			}
		}
		return context.DeadlineExceeded
	})
	r := look(t, inspect.Options{Endpoints: l.URLs()})
	f := finding(t, r, "alarm-nospace")
	if r.State != v1alpha1.StateDegraded || r.Findings[0].ID != f.ID || f.Subject != "m1" {
		t.Errorf("it is %s, first %s, of %s", r.State, r.Findings[0].ID, f.Subject)
	}
	commands := strings.Join(f.Commands, "\n")
	for _, want := range []string{"compact ", " defrag", " alarm disarm"} {
		if !strings.Contains(commands, want) {
			t.Errorf("no %q among the commands %q", want, f.Commands)
		}
	}
}

func TestQuota(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{Members: 1, Flags: []string{"--quota-backend-bytes=16777216"}}).ready()
	c := l.client(l.Members[0])
	// Small steps: the size is told only when a batch is committed, and several writes
	// may go into one.
	value := strings.Repeat("x", 1<<18)
	l.until("nearly full", func(ctx context.Context) error {
		if _, err := c.Put(ctx, "k", value); err != nil {
			return err
		}
		st, err := c.Status(ctx, l.Members[0].Client)
		if err == nil && st.DbSize < 13500000 {
			return context.DeadlineExceeded
		}
		return err
	})
	r := look(t, inspect.Options{Endpoints: l.URLs()})
	f := finding(t, r, "quota")
	if f.Severity == inspect.Info || !strings.Contains(strings.Join(f.Evidence, "\n"), "quota 16.0 MiB (from its status)") {
		t.Errorf("%s: %q", f.Severity, f.Evidence)
	}
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	ca, other := etcdlab.NewAuthority(t), etcdlab.NewAuthority(t)
	days := func(age, validity int) func(*pki.Request) {
		return func(r *pki.Request) {
			r.Now = time.Now().Add(-time.Duration(age) * 24 * time.Hour)
			r.Validity = time.Duration(validity) * 24 * time.Hour
		}
	}
	cert, key := ca.Issue(t, pki.Client, "root", nil)
	old, oldKey := ca.Issue(t, pki.Client, "root", days(100, 99))
	strange, strangeKey := other.Issue(t, pki.Client, "root", nil)
	for _, tc := range []struct {
		name   string
		server func(*pki.Request)
		o      inspect.Options
		id     string
		worst  inspect.Severity
		state  v1alpha1.ClusterState
	}{
		{"ends in 20 days", days(100, 120), inspect.Options{CA: ca.Roots(), Certificate: cert, Key: key}, "certificate-expiry", inspect.Warning, v1alpha1.StateHealthy},
		{"ends in 5 days", days(100, 105), inspect.Options{CA: ca.Roots(), Certificate: cert, Key: key}, "certificate-expiry", inspect.Critical, v1alpha1.StateHealthy},
		{"expired", days(100, 99), inspect.Options{CA: ca.Roots(), Certificate: cert, Key: key}, "tls-expired", inspect.Critical, v1alpha1.StateUnknown},
		{"other names", func(r *pki.Request) { r.Hosts = []string{"db.example"} }, inspect.Options{CA: ca.Roots(), Certificate: cert, Key: key}, "tls-name", inspect.Critical, v1alpha1.StateUnknown},
		{"wrong CA", nil, inspect.Options{CA: other.Roots(), Certificate: cert, Key: key}, "tls-unknown-ca", inspect.Critical, v1alpha1.StateUnknown},
		{"no client certificate", nil, inspect.Options{CA: ca.Roots()}, "client-certificate-wanted", inspect.Critical, v1alpha1.StateUnknown},
		{"client certificate of a stranger", nil, inspect.Options{CA: ca.Roots(), Certificate: strange, Key: strangeKey}, "client-certificate-refused", inspect.Critical, v1alpha1.StateUnknown},
		{"client certificate expired", nil, inspect.Options{CA: ca.Roots(), Certificate: old, Key: oldKey}, "client-certificate-expiry", inspect.Critical, v1alpha1.StateUnknown},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, labOptions{Members: 1, CA: ca, ClientCerts: true, Server: tc.server})
			l.listening(l.Members[0])
			tc.o.Endpoints = l.URLs()
			r := look(t, tc.o)
			finding(t, r, tc.id)
			if r.Worst() != tc.worst || r.State != tc.state {
				t.Errorf("it is %s with %s, want %s with %s", r.State, r.Worst(), tc.state, tc.worst)
			}
		})
	}
	t.Run("plain text asked of TLS", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, labOptions{Members: 1, CA: ca, ClientCerts: true})
		l.listening(l.Members[0])
		r := look(t, inspect.Options{Endpoints: []string{strings.Replace(l.Members[0].Client, "https", "http", 1)}})
		if f := finding(t, r, "tls-mismatch"); !strings.Contains(f.Title, "wants TLS") {
			t.Error(f.Title)
		}
	})
	t.Run("TLS asked of plain text", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, labOptions{Members: 1})
		l.listening(l.Members[0])
		r := look(t, inspect.Options{Endpoints: []string{strings.Replace(l.Members[0].Client, "http", "https", 1)}, CA: ca.Roots()})
		if f := finding(t, r, "tls-mismatch"); !strings.Contains(f.Title, "speaks plain text") {
			t.Error(f.Title)
		}
	})
}

// withAuth turns authentication on, with a user who may read nothing.
func withAuth(l *lab) {
	l.t.Helper()
	c := l.client(l.Members[0])
	l.must("add a guest", func(ctx context.Context) error {
		_, err := c.UserAdd(ctx, "guest", "guest")
		return err
	})
	l.EnableAuth("secret")
}

func TestAuth(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{Members: 1}).ready()
	withAuth(l)
	for _, tc := range []struct {
		name, user, password, id string
		state                    v1alpha1.ClusterState
	}{
		{"right", "root", "secret", "", v1alpha1.StateHealthy},
		{"wrong password", "root", "wrong", "login-failed", v1alpha1.StateUnknown},
		{"no user", "", "", "login-wanted", v1alpha1.StateUnknown},
		{"a guest", "guest", "guest", "login-denied", v1alpha1.StateHealthy},
	} {
		t.Run(tc.name, func(t *testing.T) {
			// To check a password takes seconds under the race detector.
			r := look(t, inspect.Options{Endpoints: l.URLs(), User: tc.user, Password: tc.password, Timeout: 20 * time.Second})
			if r.State != tc.state {
				t.Errorf("it is %s: %s, want %s", r.State, r.Summary, tc.state)
			}
			if tc.id != "" {
				finding(t, r, tc.id)
			} else if w := r.Worst(); w == inspect.Critical || w == inspect.Warning {
				t.Errorf("the worst finding is %s", w)
			}
		})
	}
}

func TestMembership(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{Members: 1}).ready()
	c := l.client(l.Members[0])
	learner := l.Joining("l1")
	l.must("add a learner", func(ctx context.Context) error {
		_, err := c.MemberAddAsLearner(ctx, []string{learner.Peer})
		return err
	})
	r := look(t, inspect.Options{Endpoints: l.URLs()})
	if f := finding(t, r, "never-started"); f.Severity != inspect.Warning || !strings.Contains(f.Commands[0], "member remove ") {
		t.Errorf("%s %q", f.Severity, f.Commands)
	}
	learner.Start()
	lc := l.client(learner)
	l.until("learning", func(ctx context.Context) error {
		_, err := lc.Get(ctx, "x", clientv3.WithSerializable())
		return err
	})
	r = look(t, inspect.Options{Endpoints: l.URLs()})
	if f := finding(t, r, "learner"); !strings.Contains(f.Subject, "l1") {
		t.Errorf("subject %q", f.Subject)
	}
	finding(t, r, "member-count")
	if r.State != v1alpha1.StateHealthy {
		t.Errorf("it is %s: %s", r.State, r.Summary)
	}
	// A learner alone does not tell whether there is a quorum.
	r = look(t, inspect.Options{Endpoints: []string{learner.Client}})
	finding(t, r, "only-learners")
	if r.State != v1alpha1.StateUnknown {
		t.Errorf("by the learner it is %s: %s", r.State, r.Summary)
	}
}

// TestVoterNeverStarted: two voters of which one never came have no quorum.
func TestVoterNeverStarted(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{Members: 1}).ready()
	c := l.client(l.Members[0])
	peer := "http://" + freeport.Address(t)
	l.must("add a member", func(ctx context.Context) error {
		_, err := c.MemberAdd(ctx, []string{peer})
		return err
	})
	l.until("without a leader", func(ctx context.Context) error {
		if _, err := c.Get(ctx, "x"); err == nil {
			return context.DeadlineExceeded
		}
		return nil
	})
	r := look(t, inspect.Options{Endpoints: l.URLs()})
	if f := finding(t, r, "never-started"); f.Severity != inspect.Critical || r.State != v1alpha1.StateUnavailable {
		t.Errorf("%s, the cluster is %s", f.Severity, r.State)
	}
}

func TestDifferentClusters(t *testing.T) {
	t.Parallel()
	a := newLab(t, labOptions{Members: 1}).ready()
	b := newLab(t, labOptions{Members: 1}).ready()
	r := look(t, inspect.Options{Endpoints: append(a.URLs(), b.URLs()...)})
	f := finding(t, r, "different-clusters")
	if f.Severity != inspect.Critical || len(f.Evidence) != 2 || r.State != v1alpha1.StateDegraded {
		t.Errorf("%s, %q, the cluster is %s", f.Severity, f.Evidence, r.State)
	}
}

// TestHistory: thousands of revisions that nobody compacts, and after compacting, a
// file that holds little.
func TestHistory(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{Members: 1, Flags: []string{"--unsafe-no-fsync"}}).ready()
	c := l.client(l.Members[0])
	ops := make([]clientv3.Op, 0, 100)
	for i := range 100 {
		ops = append(ops, clientv3.OpPut("key"+string(rune('a'+i%26))+string(rune('a'+i/26)), strings.Repeat("x", 1<<10)))
	}
	const txns = 10_100
	l.must("write", func(ctx context.Context) error {
		for range 900 {
			if _, err := c.Txn(ctx).Then(ops...).Commit(); err != nil {
				return err
			}
		}
		return nil
	})
	l.must("revisions", func(ctx context.Context) error {
		var group errgroup.Group
		const writers = 20
		for range writers {
			group.Go(func() error {
				for range txns / writers {
					if _, err := c.Put(ctx, "n", "1"); err != nil {
						return err
					}
				}
				return nil
			})
		}
		return group.Wait()
	})
	r := look(t, inspect.Options{Endpoints: l.URLs()})
	f := finding(t, r, "compaction")
	if f.Severity != inspect.Warning || !strings.Contains(f.Title, "never compacted") {
		t.Errorf("%s: %s", f.Severity, f.Title)
	}
	l.must("compact", func(ctx context.Context) error {
		_, err := c.Compact(ctx, 11_000, clientv3.WithCompactPhysical())
		return err
	})
	r = look(t, inspect.Options{Endpoints: l.URLs()})
	if got := r.Observation.Members[0].CompactRevision; got == nil || *got != 11_000 {
		t.Errorf("the compact revision is %v, want 11000", got)
	}
	if f = finding(t, r, "fragmented"); f.Severity != inspect.Warning || !strings.Contains(f.Commands[0], " defrag") {
		t.Errorf("%s %q", f.Severity, f.Commands)
	}
}

// TestUnderLoad: while much is written, growth is told, and members that are only a
// moment apart are not called different.
func TestUnderLoad(t *testing.T) {
	t.Parallel()
	l := newLab(t, labOptions{Members: 3, Flags: []string{"--unsafe-no-fsync"}}).ready()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	c := l.client(l.Members[0])
	go func() {
		value := strings.Repeat("x", 16<<10)
		n := 0
		for ctx.Err() == nil {
			if _, err := c.Put(ctx, strconv.Itoa(n), value); err == nil {
				n++
			}
		}
		done <- n
	}()
	r := look(t, inspect.Options{Endpoints: l.URLs()})
	cancel()
	if n := <-done; n < 100 {
		t.Skipf("only %d writes went through: this machine is too slow now", n)
	}
	f := finding(t, r, "quota-forecast")
	if !strings.Contains(f.Evidence[0], "a burst looks the same") {
		t.Errorf("%q", f.Evidence)
	}
	for _, f := range r.Findings {
		if f.ID == "revision-differs" || f.ID == "lag" || f.ID == "different-clusters" {
			t.Errorf("%s: %q", f.ID, f.Evidence)
		}
	}
}
