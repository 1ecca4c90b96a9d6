package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestArrivals: constant ones keep their distance, random ones their mean, and in a
// ramp half as many are due.
func TestArrivals(t *testing.T) {
	s := Default()
	s.Loop, s.Rate, s.Seed, s.Arrivals = Open, 1000, 5, Constant
	a := newArrivals(&s, 100)
	for i := range 1000 {
		if got, want := a.next(), int64(100+(i+1)*int(time.Millisecond)); max(got-want, want-got) > 1 {
			t.Fatalf("request %d is due at %d, want %d", i, got, want)
		}
	}
	due := func(s *Spec, until time.Duration) int {
		a := newArrivals(s, 0)
		last := int64(0)
		for n := 0; ; n++ {
			at := a.next()
			if at < last {
				t.Fatalf("%d is due after %d", at, last)
			}
			if at > int64(until) {
				return n
			}
			last = at
		}
	}
	s.Arrivals = Poisson
	if n := due(&s, 10*time.Second); n < 9700 || n > 10300 {
		t.Errorf("%d were due in 10 s at 1000 a second", n)
	}
	s.Ramp, s.Arrivals = Duration(10*time.Second), Constant
	if n := due(&s, 10*time.Second); n < 4999 || n > 5001 {
		t.Errorf("%d were due in a ramp to 1000 a second, want 5000", n)
	}
	if n := due(&s, 5*time.Second); n < 1249 || n > 1251 {
		t.Errorf("%d were due in the first half of it, want 1250", n)
	}
	if n := due(&s, 20*time.Second); n < 14999 || n > 15001 {
		t.Errorf("%d were due with 10 s after it, want 15000", n)
	}
}

// TestPoisson: the distances of random arrivals are as long as their standard
// deviation, as those of a Poisson process are.
func TestPoisson(t *testing.T) {
	s := Default()
	s.Rate, s.Seed = 100, 9
	a := newArrivals(&s, 0)
	last, sum, squares := int64(0), 0.0, 0.0
	const n = 20000
	for range n {
		at := a.next()
		d := float64(at-last) / 1e6
		last, sum, squares = at, sum+d, squares+d*d
	}
	mean := sum / n
	if dev := math.Sqrt(squares/n - mean*mean); mean < 9.7 || mean > 10.3 || dev < 9.5 || dev > 10.5 {
		t.Errorf("mean %.2f ms, deviation %.2f ms", mean, dev)
	}
}

func TestClassOf(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want class
	}{
		{nil, classNone},
		{errTimeout, classClientTimeout},
		{context.DeadlineExceeded, classClientTimeout},
		{status.Error(codes.DeadlineExceeded, "context deadline exceeded"), classClientTimeout},
		{rpctypes.ErrGRPCTimeout, classServerTimeout},
		{rpctypes.ErrGRPCTimeoutDueToLeaderFail, classServerTimeout},
		{rpctypes.ErrGRPCTimeoutWaitAppliedIndex, classServerTimeout},
		{rpctypes.ErrGRPCDeadlineExceeded, classServerTimeout},
		{rpctypes.ErrGRPCNoLeader, classUnavailable},
		{rpctypes.ErrGRPCLeaderChanged, classUnavailable},
		{status.Error(codes.Unavailable, "connection refused"), classUnavailable},
		{rpctypes.ErrGRPCRequestTooManyRequests, classTooMany},
		{rpctypes.ErrGRPCNoSpace, classNoSpace},
		{rpctypes.ErrGRPCPermissionDenied, classOther},
		{errors.New("odd"), classOther},
	} {
		if got := classOf(tc.err); got != tc.want {
			t.Errorf("%v: class %d, want %d", tc.err, got, tc.want)
		}
	}
}

func TestErrorTexts(t *testing.T) {
	var texts errorTexts
	for i := range 2 * mostTexts {
		texts.add(fmt.Errorf("error %d", i))
		texts.add(errors.New("often"))
	}
	list := texts.list()
	if len(list) != mostTexts+1 || list[0].Text != "often" || list[0].Count != 2*mostTexts {
		t.Errorf("%d: %+v", len(list), list[0])
	}
}

// resultOf makes a result from latencies in milliseconds, as one host would.
func resultOf(t *testing.T, host string, latencies []float64, failed int) *Result {
	t.Helper()
	rec := newRecorder(1, true, false)
	rec.epoch = time.Now()
	c := newCollector(rec, 1, true, false, true)
	for i, l := range latencies {
		ns := int64(l * 1e6)
		v := sample{due: 1, began: 1 + ns/10, end: 1 + ns}
		if i < failed {
			v.class = classServerTimeout
		}
		rec.record(&rec.shards[i%len(rec.shards)], v)
		if i == len(latencies)/2 {
			if _, err := c.cut(int64(time.Second)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.finish(2 * int64(time.Second)); err != nil {
		t.Fatal(err)
	}
	r := &Result{Format: Format, Spec: Default(), Seconds: 2, Hosts: []string{host}, Series: c.series, StartedAt: time.Unix(100, 0)}
	r.Spec.Loop, r.Spec.Rate = Open, 100
	all := cell{hist: newHistogram()}
	c.total.sum(&all)
	var err error
	if r.Total, err = measureOf("all", &all, 2); err != nil {
		t.Fatal(err)
	}
	put, err := measureOf("put", &c.total.ops[0], 2)
	if err != nil {
		t.Fatal(err)
	}
	r.Operations = []Measure{put}
	lag := latencyOf(c.total.lag)
	r.Client = ClientUsage{CPUSeconds: 1, Cores: 2, Lag: &lag}
	r.ErrorTexts = []ErrorText{{"gone", int64(failed)}}
	return r
}

// TestMerge: merged results are what one recorder of all requests would have had.
func TestMerge(t *testing.T) {
	r := newRand(3, 3)
	draw := func(n int, scale float64) []float64 {
		list := make([]float64, n)
		for i := range list {
			list[i] = scale * (1 + r.ExpFloat64())
		}
		return list
	}
	a, b := draw(1000, 2), draw(500, 20)
	merged, err := Merge([]*Result{resultOf(t, "one", a, 3), resultOf(t, "two", b, 0)})
	if err != nil {
		t.Fatal(err)
	}
	want := resultOf(t, "both", slices.Concat(a, b), 3)
	if merged.Total.Latency != want.Total.Latency || merged.Total.Count != want.Total.Count || merged.Total.Errors != want.Total.Errors {
		t.Errorf("got %+v\nwant %+v", merged.Total, want.Total)
	}
	if merged.Operations[0].Latency != want.Operations[0].Latency || len(merged.Series) != 2 || merged.Spec.Rate != 200 || merged.Client.Cores != 4 {
		t.Errorf("%+v", merged)
	}
	if s := merged.Series[0]; s.Count == 0 || s.P99 < s.P50 || s.P50 <= 0 || s.Max < s.P99 || len(s.Histogram) == 0 {
		t.Errorf("%+v", s)
	}
	if strings.Join(merged.Hosts, " ") != "one two" || merged.ErrorTexts[0].Count != 3 {
		t.Errorf("%+v", merged)
	}
	if _, err = Merge(nil); !errors.Is(err, ErrMerge) {
		t.Errorf("got %v", err)
	}
	other := resultOf(t, "x", a, 0)
	other.Spec.Loop = Closed
	if _, err = Merge([]*Result{want, other}); !errors.Is(err, ErrMerge) {
		t.Errorf("got %v", err)
	}
	other.Spec.Loop, other.Total.Histogram = Open, []byte("no histogram")
	if _, err = Merge([]*Result{want, other}); !errors.Is(err, ErrMerge) {
		t.Errorf("got %v", err)
	}
	// Without the slices' own histograms their percentiles are left out.
	for i := range want.Series {
		want.Series[i].Histogram = nil
	}
	again, err := Merge([]*Result{want, want})
	if err != nil || again.Series[0].P99 != 0 || again.Series[0].Count != 2*want.Series[0].Count {
		t.Errorf("%+v %v", again.Series, err)
	}
}

// TestLongest: what is longer than the histogram's end counts as its end.
func TestLongest(t *testing.T) {
	h := newHistogram()
	observe(h, int64(time.Hour))
	observe(h, -5)
	if l := latencyOf(h); l.Max < 59_900 || l.Max > 60_100 || l.Min > 0.01 {
		t.Errorf("%+v", l)
	}
}

func TestBottleneck(t *testing.T) {
	base := func() *Result {
		r := &Result{Spec: Default(), Seconds: 10, Total: Measure{Count: 10000, OpsPerSecond: 1000, Latency: Latency{Mean: 8}}}
		r.Client = ClientUsage{Cores: 4, CPUSeconds: 5, HostCPU: 0.3}
		r.Servers = []ServerUsage{{Name: "m1", Leader: true, Seconds: 10, CPUSeconds: 10, Cores: 4}}
		return r
	}
	for _, tc := range []struct {
		name string
		edit func(*Result)
		want Limit
		says string
	}{
		{"nothing, closed", func(*Result) {}, LimitClients, "8 clients / 8.00 ms"},
		{"nothing, open", func(r *Result) { r.Spec.Loop = Open }, LimitNone, "10000 were answered"},
		{"client", func(r *Result) { r.Client.CPUSeconds = 39 }, LimitClientCPU, "3.90 of 4 cores"},
		{"host", func(r *Result) { r.Client.HostCPU, r.Servers[0].Local = 0.97, true }, LimitHostCPU, "members on the same host used 1.00"},
		{"late", func(r *Result) { r.Client.Lag, r.Total.Latency.P99 = &Latency{P99: 50}, 100 }, LimitClientCPU, "began 50.0 ms late"},
		{"a little late", func(r *Result) { r.Client.Lag, r.Total.Latency.P99 = &Latency{P99: 20}, 100 }, LimitClients, ""},
		{"server", func(r *Result) { r.Servers[0].CPUSeconds = 38 }, LimitServerCPU, "3.80 of 4 cores"},
		{"cores unknown", func(r *Result) { r.Servers[0].CPUSeconds, r.Servers[0].Cores = 38, 0 }, LimitClients, ""},
		{"fsync", func(r *Result) { r.Servers[0].Fsync = Timing{Busy: 0.9, Mean: 3, P99: 20} }, LimitFsync, "90 % of the time"},
		{"commit over fsync", func(r *Result) { r.Servers[0].Fsync.Busy, r.Servers[0].Commit.Busy = 0.6, 0.8 }, LimitCommit, "80 %"},
		{"apply", func(r *Result) { r.Servers[0].Apply.Busy = 0.95 }, LimitApply, "95 %"},
		{"network", func(r *Result) { r.Client.LinkBytes, r.Client.Sent = 1e6, 9.5e6 }, LimitNetwork, "of 1 MB/s"},
		{"queue", func(r *Result) { r.Total.Errors.TooManyRequests, r.Client.CPUSeconds = 5, 40 }, LimitQueue, "5 of 10005"},
		{"space", func(r *Result) { r.Total.Errors.NoSpace, r.Total.Errors.TooManyRequests = 1, 5 }, LimitSpace, "1 of 10006"},
		{"unavailable", func(r *Result) { r.Total.Errors.Unavailable = 500 }, LimitErrors, "500 of 10500"},
		{"few errors", func(r *Result) { r.Total.Errors.Unavailable = 5 }, LimitClients, ""},
		{"drops", func(r *Result) { r.Total.Errors.Dropped = 5 }, LimitInFlight, "5 of 10005"},
		{"drops of a slow disk", func(r *Result) { r.Total.Errors.Dropped, r.Servers[0].Fsync.Busy = 5, 0.9 }, LimitFsync, "90 %"},
	} {
		r := base()
		tc.edit(r)
		f := Bottleneck(r)
		if f.Limit != tc.want || !strings.Contains(strings.Join(f.Evidence, "\n"), tc.says) || f.Summary == "" || f.Advice == "" {
			t.Errorf("%s: %+v, want %s", tc.name, f, tc.want)
		}
	}
	r := base()
	r.Client.CPUSeconds, r.Servers[0].Fsync.Busy = 39, 0.9
	if f := Bottleneck(r); f.Limit != LimitClientCPU || len(f.Others) != 1 || f.Others[0].Limit != LimitFsync {
		t.Errorf("%+v", f)
	}
}

func TestCompare(t *testing.T) {
	run := func(seed uint64, level float64, slices int) *Result {
		r := newRand(seed, 0)
		out := &Result{Format: Format, Spec: Default(), Seconds: float64(slices)}
		for i := range slices {
			v := level * (1 + 0.02*r.NormFloat64())
			out.Series = append(out.Series, Slice{At: float64(i + 1), Seconds: 1, Count: int64(v), OpsPerSecond: v, P50: 1e4 / v, P99: 2e4 / v, Max: 5e4 / v})
		}
		out.Series = append(out.Series, Slice{Seconds: 0.01, Count: 1, OpsPerSecond: 1}) // cut short
		out.Total = Measure{Count: 1000, OpsPerSecond: level * (1 + 0.02*r.NormFloat64()), Latency: Latency{P50: 1e4 / level, P99: 2e4 / level, P999: 3, Max: 5e4 / level}}
		return out
	}
	side := func(name string, runs ...*Result) Series { return Series{name, runs} }
	of := func(c *Comparison, name string) Change {
		return c.Metrics[slices.IndexFunc(c.Metrics, func(m Change) bool { return m.Name == name })]
	}
	same, err := Compare(side("a", run(1, 1000, 30)), side("b", run(2, 1000, 30)))
	if err != nil || same.Samples != "slices" || len(same.WorseThan(0)) > 0 || of(same, "throughput").Significant {
		t.Errorf("the same: %+v %v", same, err)
	}
	slower, err := Compare(side("a", run(1, 1000, 30)), side("b", run(2, 850, 30)))
	if err != nil {
		t.Fatal(err)
	}
	m := of(slower, "throughput")
	if !m.Significant || !m.Worse || m.Delta > -0.1 || m.Delta < -0.2 || m.NBase != 30 || len(slower.WorseThan(0.1)) == 0 || len(slower.WorseThan(0.3)) > 0 {
		t.Errorf("slower: %+v", m)
	}
	faster, err := Compare(side("a", run(1, 1000, 30)), side("b", run(2, 1200, 30)))
	if m = of(faster, "p99"); err != nil || !m.Significant || m.Worse || m.Delta >= 0 {
		t.Errorf("faster: %+v %v", m, err)
	}
	few, err := Compare(side("a", run(1, 1000, 2)), side("b", run(2, 500, 2)))
	if err != nil || of(few, "throughput").Significant {
		t.Errorf("two slices tell nothing: %+v %v", few, err)
	}
	runs, err := Compare(side("a", run(1, 1000, 1), run(2, 1000, 1), run(3, 1000, 1), run(4, 1000, 1)), side("b", run(5, 800, 1), run(6, 800, 1), run(7, 800, 1), run(8, 800, 1)))
	if err != nil || runs.Samples != "runs" || !of(runs, "throughput").Worse || of(runs, "throughput").NBase != 4 {
		t.Errorf("runs: %+v %v", runs, err)
	}
	other := run(9, 1000, 30)
	other.Spec.Clients = 99
	if c, otherErr := Compare(side("a", run(1, 1000, 30)), side("b", other)); otherErr != nil || len(c.Warnings) == 0 || !strings.Contains(c.Warnings[0], "clients") {
		t.Errorf("%+v %v", c, otherErr)
	}
	if _, err = Compare(side("a"), side("b", other)); !errors.Is(err, ErrCompare) {
		t.Errorf("got %v", err)
	}
	failing := run(2, 1000, 30)
	for i := range failing.Series {
		failing.Series[i].Errors = int64(i)
	}
	if c, err := Compare(side("a", run(1, 1000, 30)), side("b", failing)); err != nil || len(c.WorseThan(10)) != 1 {
		t.Errorf("errors from none: %+v %v", c, err)
	}
}

const metricsText = `# HELP process_cpu_seconds_total CPU
process_cpu_seconds_total %d
process_start_time_seconds 1.7e9
process_resident_memory_bytes 1e+08
go_sched_gomaxprocs_threads 4
etcd_network_peer_sent_bytes_total{To="a"} %d
etcd_network_peer_sent_bytes_total{To="b"} 5
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.001"} %d
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.002"} %d
etcd_disk_wal_fsync_duration_seconds_bucket{le="+Inf"} %d
etcd_disk_wal_fsync_duration_seconds_sum %g
etcd_disk_wal_fsync_duration_seconds_count %d
etcd_server_apply_duration_seconds_sum{op="Put",success="true",version="v3"} 1
odd{x="} y"} 5 1234
`

func TestReading(t *testing.T) {
	first, err := parseReading(strings.NewReader(fmt.Sprintf(metricsText, 10, 100, 0, 0, 0, 0.0, 0)))
	if err != nil {
		t.Fatal(err)
	}
	last, err := parseReading(strings.NewReader(fmt.Sprintf(metricsText, 18, 300, 100, 200, 200, 0.3, 200)))
	if err != nil {
		t.Fatal(err)
	}
	last.at = first.at.Add(10 * time.Second)
	var u ServerUsage
	u.fill(first, last)
	if u.CPUSeconds != 8 || u.Cores != 4 || u.PeerSent != 200 || u.CoresUsed() != 0.8 || u.Seconds != 10 {
		t.Errorf("%+v", u)
	}
	if f := u.Fsync; f.Count != 200 || f.Mean != 1.5 || f.P50 != 1 || f.P99 < 1.97 || f.P99 > 1.99 || f.Busy != 0.03 {
		t.Errorf("%+v", f)
	}
	if u.Apply.Count != 0 {
		t.Errorf("%+v", u.Apply)
	}
	if _, err = parseReading(strings.NewReader("<html>")); err == nil {
		t.Error("a page without metrics is taken for one")
	}
}

func TestHostCPU(t *testing.T) {
	a := readHostCPU()
	if a.all <= 0 || a.busy <= 0 || a.busy > a.all {
		t.Errorf("%+v", a)
	}
	if got := (hostCPU{30, 200}).since(hostCPU{10, 100}); got != 0.2 {
		t.Errorf("got %g", got)
	}
	if got := a.since(a); got != -1 {
		t.Errorf("no time passed: got %g", got)
	}
}

func TestJudge(t *testing.T) {
	g := DefaultGoal()
	run := func(p99 float64, failed int64, seconds float64) *Result {
		r := &Result{Spec: Default(), Seconds: seconds, Total: Measure{Count: 10000 - failed, Latency: Latency{P99: p99}, Errors: ErrorCounts{Other: failed}}}
		r.Spec.Duration = Duration(10 * time.Second)
		r.Total.OpsPerSecond = float64(r.Total.Count) / seconds
		return r
	}
	for _, tc := range []struct {
		r      *Result
		why    string
		narrow bool
	}{
		{run(10, 0, 10), "", true},
		{run(60, 0, 10), "p99 60.0 ms is more than 50ms", true},
		{run(600, 0, 10), "p99 600.0 ms", false},
		{run(10, 20, 10), "0.20 % failed", true},
		{run(10, 2000, 10), "20.00 % failed", false},
		{run(10, 0, 15), "667 a second were answered of 1000", false},
	} {
		if why, narrow := judge(tc.r, g); !strings.HasPrefix(why, tc.why) || (tc.why == "") != (why == "") || narrow != tc.narrow {
			t.Errorf("%q, %t: want %q, %t", why, narrow, tc.why, tc.narrow)
		}
	}
	for _, edit := range []func(*Goal){
		func(g *Goal) { g.P99 = 0 }, func(g *Goal) { g.Errors = 1 }, func(g *Goal) { g.Step = 1 }, func(g *Goal) { g.From = 0 }, func(g *Goal) { g.Within = 0 },
	} {
		bad := g
		edit(&bad)
		if err := bad.check(); !errors.Is(err, ErrSpec) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// TestLatencyCountsFromDue: a request that was sent late took long, however soon it was
// answered then.
func TestLatencyCountsFromDue(t *testing.T) {
	const took = 100 // of which the first tenth passed before it was sent
	l := resultOf(t, "one", []float64{took}, 0).Total.Latency
	if l.Max < took-1 || l.P50 < took-1 {
		t.Errorf("%+v, want %d ms", l, took)
	}
}
