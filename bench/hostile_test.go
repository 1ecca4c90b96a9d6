package bench_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/bench"
)

// TestNotNumbers: what is no number, or overflows, is refused, too: every comparison
// with NaN is false.
func TestNotNumbers(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	for want, edit := range map[string]func(*bench.Spec){
		"an open loop has a rate":      func(s *bench.Spec) { s.Loop, s.Rate = bench.Open, nan },
		"of no weight":                 func(s *bench.Spec) { s.Mix[0].Weight = nan },
		"of no weight or twice there":  func(s *bench.Spec) { s.Mix[0].Weight = math.Inf(1) },
		"value size is NaN: give 0 to": func(s *bench.Spec) { s.ValueSize = bench.Sizes{Kind: bench.LogNormal, Mean: 100, Deviation: nan} },
		"value size is +Inf":           func(s *bench.Spec) { s.ValueSize = bench.Sizes{Kind: bench.Normal, Mean: 100, Deviation: math.Inf(1)} },
		"a key of 0 bytes":             func(s *bench.Spec) { s.KeySize = bench.Sizes{Kind: bench.Fixed} },
		"watchers: give at most":       func(s *bench.Spec) { s.Namespaces, s.Watchers = 16, 1<<60 },
		"a ramp":                       func(s *bench.Spec) { s.Ramp = math.MaxInt64 },
		"a warm-up":                    func(s *bench.Spec) { s.WarmUp = math.MaxInt64 },
		"which all runs share":         func(s *bench.Spec) { s.Prefix = "/quorate-bench/" },
		"log in with --user":           func(s *bench.Spec) { s.Endpoints = []string{"http://me:secret@127.0.0.1:1"} },
	} {
		s := bench.Default()
		s.Endpoints = []string{"127.0.0.1:1"}
		edit(&s)
		if err := s.Complete(); !errors.Is(err, bench.ErrSpec) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	for want, edit := range map[string]func(*bench.Goal){
		"an error rate of NaN": func(g *bench.Goal) { g.Errors = nan },
		"a first rate of NaN":  func(g *bench.Goal) { g.From = nan },
		"found within NaN":     func(g *bench.Goal) { g.Within = nan },
	} {
		g, s := bench.DefaultGoal(), bench.Default()
		s.Endpoints = []string{"127.0.0.1:1"}
		edit(&g)
		if _, err := bench.FindMax(t.Context(), s, g, bench.Options{}); !errors.Is(err, bench.ErrSpec) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

// TestStallEndedByHand: a load that is ended while the cluster stalls tells of the
// stall: what was under way counts, with the time that it had waited.
func TestStallEndedByHand(t *testing.T) {
	t.Parallel()
	n := cluster(t, 1)[0]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := load("put", n)
	s.Loop, s.Rate, s.Arrivals, s.Duration = bench.Open, 200, bench.Constant, bench.Duration(time.Minute)
	var once atomic.Bool
	r, err := bench.Run(ctx, s, bench.Options{Progress: func(p bench.Progress) {
		switch {
		case p.Phase == bench.PhaseRun && !once.Swap(true):
			_ = n.Signal(syscall.SIGSTOP) // the figures tell whether it worked
			time.AfterFunc(time.Second, cancel)
		case p.Phase == bench.PhaseCleanup:
			_ = n.Signal(syscall.SIGCONT)
		}
	}})
	_ = n.Signal(syscall.SIGCONT)
	if err != nil {
		t.Fatal(err)
	}
	inSeries, histogram := int64(0), int64(0)
	for _, sl := range r.Series {
		inSeries += sl.Errors
	}
	if h, decodeErr := bench.Decode(r.Total.Histogram); decodeErr == nil {
		histogram = h.TotalCount()
	}
	e := r.Total.Errors
	if !r.Interrupted || e.Unfinished < 100 || e.Total() != e.Unfinished || inSeries != e.Unfinished || histogram != r.Total.Count+e.Unfinished {
		t.Errorf("interrupted %v, errors %+v, %d in the series; %d answered, %d in the histogram", r.Interrupted, e, inSeries, r.Total.Count, histogram)
	}
	if r.Total.Latency.Max < 2500 || r.Total.Latency.P99 < 2000 {
		t.Errorf("a stall of a second, and two of waiting for its end: %+v", r.Total.Latency)
	}
}

// TestNoQuorum: members that answer, and have no quorum, are said to be so.
func TestNoQuorum(t *testing.T) {
	t.Parallel()
	nodes := cluster(t, 3)
	for _, n := range nodes[1:] {
		if err := n.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = n.Signal(syscall.SIGCONT) }()
	}
	s := load("put", nodes[0])
	s.Timeout = bench.Duration(500 * time.Millisecond)
	if _, err := bench.Run(t.Context(), s, bench.Options{}); !errors.Is(err, bench.ErrNobody) || !strings.Contains(err.Error(), "reads through a quorum fail") {
		t.Errorf("got %v", err)
	}
}

// TestMatrixBreaks: cells that were measured are kept when the cluster ends before the
// others.
func TestMatrixBreaks(t *testing.T) {
	t.Parallel()
	n := cluster(t, 1)[0]
	s := load("put", n)
	cells := []bench.Cell{{Namespaces: 1, Clients: 1}, {Namespaces: 1, Clients: 2}}
	m, err := bench.RunMatrix(t.Context(), s, cells, 1, bench.Options{Progress: func(p bench.Progress) {
		if p.Phase == bench.PhaseCell && p.Done == 2 {
			_ = n.Signal(syscall.SIGKILL) // the matrix tells whether it worked
		}
	}})
	if err != nil || len(m.Rows) != 1 || m.Rows[0].Result.Total.Count == 0 || !strings.Contains(m.Error, "1 namespaces × 2 clients") {
		t.Errorf("%+v, %v", m, err)
	}
	s.Keep, s.Prefix = true, "/x/"
	if _, err = bench.MatrixSpecs(&s, cells, 1); !errors.Is(err, bench.ErrSpec) {
		t.Errorf("cells in each other's way: %v", err)
	}
}

// TestMergedTotal: the number of requests that was asked for is that of all hosts.
func TestMergedTotal(t *testing.T) {
	t.Parallel()
	one := &bench.Result{Format: bench.Format, Seconds: 1, Spec: bench.Spec{Loop: bench.Closed, Total: 50, Clients: 2}}
	other := *one
	r, err := bench.Merge([]*bench.Result{one, &other})
	if err != nil || r.Spec.Total != 100 || r.Spec.Clients != 4 {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestCompareDifferentLoads: whatever makes two loads differ is said, of all runs.
func TestCompareDifferentLoads(t *testing.T) {
	t.Parallel()
	base := func() *bench.Result {
		r := &bench.Result{Format: bench.Format, Seconds: 1, Spec: bench.Default()}
		r.Series = []bench.Slice{{Seconds: 1, Count: 1}}
		return r
	}
	for want, edit := range map[string]func(*bench.Result){
		"skew is uniform and zipf:1.2": func(r *bench.Result) { r.Spec.Skew = bench.Skew{Kind: bench.Zipf, Exponent: 1.2} },
		"key size is 64 and 100":       func(r *bench.Result) { r.Spec.KeySize.Min = 100 },
		"namespaces is 1 and 2":        func(r *bench.Result) { r.Spec.Namespaces, r.Spec.Clients = 2, 4 },
		"keys of a range is 1 and 5":   func(r *bench.Result) { r.Spec.RangeKeys = 5 },
		"watchers is 0 and 3":          func(r *bench.Result) { r.Spec.Watchers = 3 },
		"was ended before its time":    func(r *bench.Result) { r.Interrupted = true },
	} {
		second := base()
		edit(second)
		c, err := bench.Compare(bench.Series{Name: "a", Runs: []*bench.Result{base()}}, bench.Series{Name: "b", Runs: []*bench.Result{base(), second}})
		if err != nil || !strings.Contains(strings.Join(c.Warnings, "\n"), want) {
			t.Errorf("no %q in %q, %v", want, c.Warnings, err)
		}
	}
}

// TestCompareStalls: a second in which nothing was answered is one of no throughput,
// and of no latency.
func TestCompareStalls(t *testing.T) {
	t.Parallel()
	run := func(stalled bool) bench.Series {
		r := &bench.Result{Format: bench.Format, Seconds: 20, Spec: bench.Default()}
		for i := range 20 {
			s := bench.Slice{Seconds: 1, Count: 100, OpsPerSecond: 100, P50: 5, P99: 5, Max: 5}
			if stalled && i%4 != 0 {
				s = bench.Slice{Seconds: 1}
			}
			r.Series = append(r.Series, s)
		}
		return bench.Series{Name: "x", Runs: []*bench.Result{r}}
	}
	c, err := bench.Compare(run(false), run(true))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range c.Metrics {
		switch m.Name {
		case "throughput":
			if !m.Worse || m.With != 0 || m.NWith != 20 {
				t.Errorf("%+v", m)
			}
		case "p99":
			if m.With != 5 || m.NWith != 5 {
				t.Errorf("%+v", m)
			}
		}
	}
}
