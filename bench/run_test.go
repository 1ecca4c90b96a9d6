package bench_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/bench"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/test/etcdlab"
	"github.com/quorate/quorate/test/freeport"
)

// TestWorkloads: every operation runs on a real etcd without an error.
func TestWorkloads(t *testing.T) {
	nodes := cluster(t, 1)
	all := make([]string, 0, len(bench.Operations))
	for _, op := range bench.Operations {
		all = append(all, string(op))
	}
	s := load(strings.Join(all, ","), nodes...)
	s.Namespaces, s.Watchers, s.PageSize, s.RangeKeys = 2, 2, 100, 10
	s.Skew = bench.Skew{Kind: bench.Zipf, Exponent: 1.1}
	s.ValueSize = bench.Sizes{Kind: bench.LogNormal, Mean: 200, Deviation: 0.5}
	r := mustRun(t, s, bench.Options{})
	if len(r.Operations) != len(bench.Operations) {
		t.Errorf("%d operations, want %d", len(r.Operations), len(bench.Operations))
	}
	for _, m := range r.Operations {
		if m.Count == 0 || m.Errors.Total() > 0 {
			t.Errorf("%s: %d answered, errors %+v %v", m.Name, m.Count, m.Errors, r.ErrorTexts)
		}
	}
	if w := r.Watch; w == nil || w.Expected == 0 || w.Missing > 0 || w.Delivered < w.Expected {
		t.Errorf("watch %+v", w)
	}
	if len(r.Servers) != 1 || r.Servers[0].Fsync.Count == 0 || r.Servers[0].CPUSeconds <= 0 || !r.Servers[0].Leader || !r.Servers[0].Local {
		t.Errorf("servers %+v", r.Servers)
	}
	if r.Client.CPUSeconds <= 0 || r.Client.Sent == 0 || r.Client.Received == 0 || r.Bottleneck.Limit == "" {
		t.Errorf("client %+v, bottleneck %+v", r.Client, r.Bottleneck)
	}
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var again bench.Result
	if err := json.Unmarshal(raw, &again); err != nil || again.Total.Count != r.Total.Count {
		t.Errorf("read again: %v", err)
	}
}

// TestWatchKeys: watchers of single keys get all events of theirs.
func TestWatchKeys(t *testing.T) {
	nodes := cluster(t, 1)
	s := load("put", nodes...)
	s.Watchers, s.WatchScope, s.Keys = 5, bench.WatchKey, 20
	w := mustRun(t, s, bench.Options{}).Watch
	if w.Expected == 0 || w.Delivered != w.Expected || w.Latency.P50 <= 0 {
		t.Errorf("%+v", w)
	}
}

// TestStall: a second in which etcd is stopped shows in the p99.9 of an open loop;
// in a closed one it is a request for each client.
func TestStall(t *testing.T) {
	nodes := cluster(t, 1)
	stall := func(s bench.Spec) *bench.Result {
		t.Helper()
		var once atomic.Bool
		return mustRun(t, s, bench.Options{Progress: func(p bench.Progress) {
			if p.Phase != bench.PhaseRun || once.Swap(true) {
				return
			}
			if err := nodes[0].Signal(syscall.SIGSTOP); err != nil {
				t.Error(err)
			}
			time.AfterFunc(time.Second, func() { _ = nodes[0].Signal(syscall.SIGCONT) })
		}})
	}
	s := load("put", nodes...)
	s.Duration, s.Clients = bench.Duration(6*time.Second), 2
	closed := stall(s)
	s.Loop, s.Rate = bench.Open, 200
	open := stall(s)
	if open.Total.Latency.P999 < 800 || open.Total.Latency.P99 < 500 {
		t.Errorf("open loop: %+v", open.Total.Latency)
	}
	if closed.Total.Latency.P99 > 500 || closed.Total.Latency.Max < 800 {
		t.Errorf("closed loop: %+v", closed.Total.Latency)
	}
	t.Logf("p99.9: open loop %.0f ms, closed loop %.1f ms of %d requests", open.Total.Latency.P999, closed.Total.Latency.P999, closed.Total.Count)
}

// TestDrops: what an open loop can't send is an error.
func TestDrops(t *testing.T) {
	nodes := cluster(t, 1)
	s := load("put", nodes...)
	s.Loop, s.Rate, s.MaxInFlight, s.Duration = bench.Open, 500, 5, bench.Duration(3*time.Second)
	var once atomic.Bool
	r := mustRun(t, s, bench.Options{Progress: func(p bench.Progress) {
		if p.Phase == bench.PhaseRun && !once.Swap(true) {
			_ = nodes[0].Signal(syscall.SIGSTOP)
			time.AfterFunc(500*time.Millisecond, func() { _ = nodes[0].Signal(syscall.SIGCONT) })
		}
	}})
	if r.Total.Errors.Dropped < 100 || r.Client.MaxInFlight > 5 || r.Total.Errors.Total() != r.Total.Errors.Dropped {
		t.Errorf("errors %+v, at most %d in flight", r.Total.Errors, r.Client.MaxInFlight)
	}
	if due := r.Total.Count + r.Total.Errors.Total(); due < 1300 || due > 1700 {
		t.Errorf("%d requests were due in 3 s at 500 a second", due)
	}
}

// TestTimeouts: a cluster without quorum gives timeouts of the client when it is
// asked impatiently, and of the server else. Requests go on to be counted.
func TestTimeouts(t *testing.T) {
	nodes := cluster(t, 2)
	s := load("put", nodes[0])
	s.Timeout, s.Duration, s.NoServers = bench.Duration(500*time.Millisecond), bench.Duration(3*time.Second), true
	run := func(s bench.Spec) *bench.Result {
		t.Helper()
		var once atomic.Bool
		r, err := bench.Run(t.Context(), s, bench.Options{Progress: func(p bench.Progress) {
			switch {
			case p.Phase == bench.PhaseRun && !once.Swap(true):
				_ = nodes[1].Signal(syscall.SIGSTOP)
			case p.Phase == bench.PhaseCleanup:
				_ = nodes[1].Signal(syscall.SIGCONT)
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		if n := countKeys(t, nodes[0].Client, r.Cleanup.Prefix); n > 0 {
			t.Errorf("%d keys are left", n)
		}
		return r
	}
	r := run(s)
	if r.Total.Errors.ClientTimeouts == 0 || r.Total.Count == 0 {
		t.Errorf("%+v %v", r.Total.Errors, r.ErrorTexts)
	}
	nodes[0].Ready()
	s.Timeout, s.Duration = bench.Duration(20*time.Second), bench.Duration(4*time.Second)
	if r = run(s); r.Total.Errors.ServerTimeouts+r.Total.Errors.Unavailable == 0 || r.Total.Errors.ClientTimeouts > 0 {
		t.Errorf("%+v %v", r.Total.Errors, r.ErrorTexts)
	}
}

// TestInterrupted: an interrupted run tells what ran, and leaves no key.
func TestInterrupted(t *testing.T) {
	nodes := cluster(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := load("mixed", nodes...)
	s.Duration = bench.Duration(time.Hour)
	r, err := bench.Run(ctx, s, bench.Options{Progress: func(p bench.Progress) {
		if p.Phase == bench.PhaseRun {
			cancel()
		}
	}})
	if err != nil || !r.Interrupted || r.Total.Count == 0 || r.Seconds > 30 || r.Total.Errors.Total() > 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if n := countKeys(t, nodes[0].Client, r.Cleanup.Prefix); n > 0 {
		t.Errorf("%d keys are left", n)
	}
}

// TestAbandoned: cleaning up ends when it is told to, and says that keys are left.
func TestAbandoned(t *testing.T) {
	nodes := cluster(t, 1)
	s := load("range", nodes...)
	s.Keys = 20000
	abandon := make(chan struct{})
	var once sync.Once
	r, err := bench.Run(t.Context(), s, bench.Options{Abandon: abandon, Progress: func(p bench.Progress) {
		if p.Phase == bench.PhaseCleanup {
			once.Do(func() { close(abandon) })
		}
	}})
	if err != nil || !strings.Contains(r.Cleanup.Error, "deleting them was abandoned: delete them with etcdctl del --prefix "+r.Cleanup.Prefix) {
		t.Fatalf("%+v %v", r, err)
	}
	if n := countKeys(t, nodes[0].Client, r.Cleanup.Prefix); n == 0 {
		t.Error("no key is left")
	}
}

// TestTotalRampAndWarmUp: a run ends after so many requests, and what came before the
// measurement is not in it.
func TestTotalRampAndWarmUp(t *testing.T) {
	nodes := cluster(t, 1)
	s := load("put", nodes...)
	s.Duration, s.Total, s.Ramp, s.WarmUp = 0, 321, bench.Duration(200*time.Millisecond), bench.Duration(200*time.Millisecond)
	s.Arrivals, s.Prefix = bench.Constant, "/mine/"
	r := mustRun(t, s, bench.Options{})
	if r.Total.Count != 321 || r.Cleanup.Prefix != "/mine/" {
		t.Errorf("%d requests, prefix %s", r.Total.Count, r.Cleanup.Prefix)
	}
}

// TestForeignKeys: a prefix that holds keys is refused, and they are left alone.
func TestForeignKeys(t *testing.T) {
	nodes := cluster(t, 1)
	c := nodes[0].Dial()
	if _, err := c.Put(t.Context(), "/theirs/x", "y"); err != nil {
		t.Fatal(err)
	}
	s := load("put", nodes...)
	s.Prefix = "/theirs/"
	if _, err := bench.Run(t.Context(), s, bench.Options{}); !errors.Is(err, bench.ErrForeign) {
		t.Errorf("got %v", err)
	}
	if n := countKeys(t, nodes[0].Client, "/theirs/"); n != 1 {
		t.Errorf("%d keys", n)
	}
	s.Prefix, s.Keep = "/kept/", true
	s.Total = 50
	if r := mustRun(t, s, bench.Options{}); !r.Cleanup.Kept || countKeys(t, nodes[0].Client, "/kept/") == 0 {
		t.Errorf("%+v", r.Cleanup)
	}
}

// TestSecured: TLS with client certificates, and a user whose token is taken away in
// the middle.
func TestSecured(t *testing.T) {
	ca := etcdlab.NewAuthority(t)
	l := etcdlab.New(t, etcdlab.Options{CA: ca, ClientCerts: true, Flags: []string{"--auth-token-ttl=1"}}).Ready()
	l.EnableAuth("secret")
	cert, key := ca.Issue(t, pki.Client, "test", nil)
	s := load("put", l.Members...)
	s.CA, s.Certificate, s.Key, s.User, s.Password = ca.Roots(), cert, key, "root", "secret"
	s.Loop, s.Rate, s.Arrivals, s.Duration = bench.Open, 0.7, bench.Constant, bench.Duration(5*time.Second)
	r, err := bench.Run(t.Context(), s, bench.Options{})
	if err != nil || r.Total.Count == 0 || r.Total.Errors.Total() > 0 || r.Cleanup.Error != "" {
		t.Fatalf("%+v %v", r, err)
	}
	if r.Spec.Password != "" || r.Spec.Key != nil {
		t.Error("the result holds secrets")
	}
	if len(r.Servers) != 1 || r.Servers[0].Unread != "" {
		t.Errorf("servers %+v", r.Servers)
	}
	s.Password = "wrong"
	if _, err = bench.Run(t.Context(), s, bench.Options{}); err == nil || !strings.Contains(err.Error(), "no endpoint can be used") {
		t.Errorf("a wrong password: %v", err)
	}
}

// TestMembers: a dead endpoint is named and left out, members that are not among the
// endpoints are observed, and a stream of an old etcd is refused.
func TestMembers(t *testing.T) {
	nodes := cluster(t, 3)
	s := load("range", nodes[0])
	s.Endpoints = append(s.Endpoints, "http://"+freeport.Address(t))
	r := mustRun(t, s, bench.Options{})
	if len(r.Servers) != 3 || !slices.ContainsFunc(r.Notes, func(n string) bool { return strings.Contains(n, "is not used") }) {
		t.Errorf("servers %d, notes %q", len(r.Servers), r.Notes)
	}
	leaders := 0
	for _, u := range r.Servers {
		if u.Leader {
			leaders++
		}
	}
	if leaders != 1 {
		t.Errorf("%d leaders", leaders)
	}
	members, notes, err := bench.Look(t.Context(), s)
	if err != nil || len(members) != 1 || len(notes) != 1 {
		t.Errorf("%+v %q %v", members, notes, err)
	}
}

func TestOldEtcd(t *testing.T) {
	binary, err := etcdlab.Built("3.5.35")
	if err != nil {
		t.Skip(err)
	}
	n := etcdlab.New(t, etcdlab.Options{Binary: binary}).Ready().Members[0]
	if _, err = bench.Run(t.Context(), load("range-stream", n), bench.Options{}); !errors.Is(err, bench.ErrSpec) || !strings.Contains(err.Error(), "wants 3.7") {
		t.Errorf("got %v", err)
	}
	if r := mustRun(t, load("kubernetes", n), bench.Options{}); r.Total.Errors.Total() > 0 {
		t.Errorf("%+v %v", r.Total.Errors, r.ErrorTexts)
	}
}

// TestFindMax finds a rate, and that a goal no cluster keeps is kept by none.
func TestFindMax(t *testing.T) {
	nodes := cluster(t, 1)
	s := load("range-serializable", nodes...)
	g := bench.DefaultGoal()
	g.Step, g.From, g.P99, g.Within = bench.Duration(time.Second), 20, bench.Duration(time.Minute), 0.5
	var tried atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	k, err := bench.FindMax(ctx, s, g, bench.Options{Progress: func(p bench.Progress) {
		if p.Phase == bench.PhaseStep && tried.Add(1) == 2 {
			cancel()
		}
	}})
	if err != nil || !k.Interrupted || k.Rate < 20 || k.Best == nil || len(k.Steps) != 2 || k.Cleanup.Error != "" {
		t.Fatalf("%+v %v", k, err)
	}
	g.P99, g.From = bench.Duration(time.Millisecond), 2
	s = load("put", nodes...)
	s.ValueSize = bench.Sizes{Kind: bench.Fixed, Min: 1 << 20}
	if k, err = bench.FindMax(t.Context(), s, g, bench.Options{}); err != nil || k.Rate != 0 || k.Broken == nil || k.Steps[0].Why == "" {
		t.Fatalf("%+v %v", k, err)
	}
}

func TestRunMatrix(t *testing.T) {
	nodes := cluster(t, 1)
	s := load("put", nodes...)
	m, err := bench.RunMatrix(t.Context(), s, []bench.Cell{{1, 20}, {2, 40}}, 10, bench.Options{})
	if err != nil || len(m.Rows) != 2 || m.Rows[0].Clients != 2 || m.Rows[1].Clients != 4 || m.Rows[1].Result.Client.MaxInFlight != 8 {
		t.Fatalf("%+v %v", m, err)
	}
}
