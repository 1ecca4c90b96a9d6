package main

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// benchmarkSaid is the output of etcd's benchmark 3.6.8, shortened.
const benchmarkSaid = `
Summary:
  Total:	4.2443 secs.
  Slowest:	0.1644 secs.
  Fastest:	0.0010 secs.
  Average:	0.0135 secs.
  Stddev:	0.0129 secs.
  Requests/sec:	4712.1762

Response time histogram:
  0.0010 [1]	|
  0.1644 [64]	|

Latency distribution:
  10% in 0.0051 secs.
  50% in 0.0102 secs.
  95% in 0.0307 secs.
  99% in 0.0650 secs.
  99.9% in 1.551e-01 secs.
`

func TestParseBenchmark(t *testing.T) {
	got, err := parseBenchmark([]byte(benchmarkSaid))
	if err != nil {
		t.Fatal(err)
	}
	want := sample{throughput: 4712.1762, slowest: 164.4, p50: 10.2, p99: 65, p999: 155.1}
	for name, v := range want {
		if math.Abs(got[name]-v) > 1e-9*v {
			t.Errorf("%s: %v, want %v", name, got[name], v)
		}
	}
	for name, said := range map[string]string{
		"does not tell its p99.9": strings.Replace(benchmarkSaid, "99.9% in", "99.8% in", 1),
		"met errors: [3] timeout": benchmarkSaid + "\nError distribution:\n  [3] timeout\n",
		"does not tell":           "",
	} {
		if _, err := parseBenchmark([]byte(said)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestMedianInterval(t *testing.T) {
	for _, tc := range []struct {
		n               int
		low, high, conf float64
	}{
		{5, 1, 5, 0.9375},
		{6, 1, 6, 0.96875},
		{9, 2, 8, 0.9609375},
		{20, 6, 15, 0.95861},
	} {
		var values []float64
		for i := tc.n; i > 0; i-- {
			values = append(values, float64(i))
		}
		low, high, conf := medianInterval(values)
		if low != tc.low || high != tc.high || math.Abs(conf-tc.conf) > 1e-4 {
			t.Errorf("of 1 to %d: %v to %v (%v), want %v to %v (%v)", tc.n, low, high, conf, tc.low, tc.high, tc.conf)
		}
	}
}

func TestQuantile(t *testing.T) {
	values := []float64{4, 1, 3, 2}
	for q, want := range map[float64]float64{0: 1, 0.25: 1.75, 0.5: 2.5, 1: 4} {
		if got := quantile(values, q); got != want {
			t.Errorf("%v: %v, want %v", q, got, want)
		}
	}
	if diff := cmp.Diff([]float64{4, 1, 3, 2}, values); diff != "" {
		t.Errorf("the values were changed: %s", diff)
	}
}

// TestJudge shows that each goal can be missed.
func TestJudge(t *testing.T) {
	closed, stall := closedLoop(), benchStall().metrics
	for _, tc := range []struct {
		name         string
		metrics      []metric
		ours, theirs sample
		missed       []string
	}{
		{"equal", closed, sample{throughput: 100, cpuTime: 30}, sample{throughput: 100, cpuTime: 30}, nil},
		{"slower", closed, sample{throughput: 94, cpuTime: 30}, sample{throughput: 100, cpuTime: 30}, []string{throughput}},
		{"always a little slower", closed, sample{throughput: 99, cpuTime: 30}, sample{throughput: 100, cpuTime: 30}, []string{throughput}},
		{"dearer", closed, sample{throughput: 120, cpuTime: 31}, sample{throughput: 100, cpuTime: 30}, []string{cpuTime}},
		{"the stall shows", stall, sample{p999: 980}, sample{p999: 12}, nil},
		{"the stall does not show", stall, sample{p999: 12}, sample{p999: 12}, []string{p999}},
		{"it shows in both", stall, sample{p999: 980}, sample{p999: 980}, []string{p999}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &report{}
			for range minPairs {
				r.Pairs = append(r.Pairs, pairOf{tc.ours, tc.theirs})
			}
			r.judge(tc.metrics)
			var missed []string
			for _, m := range r.Metrics {
				if !m.OK {
					missed = append(missed, m.Name)
				}
			}
			if diff := cmp.Diff(tc.missed, missed); diff != "" || r.OK != (len(tc.missed) == 0) {
				t.Errorf("missed (-want +got):\n%s\nOK: %v", diff, r.OK)
			}
			var table bytes.Buffer
			if err := r.table(&table); err != nil || strings.Count(table.String(), "MISSED") != len(tc.missed) {
				t.Errorf("%v:\n%s", err, table.String())
			}
		})
	}
}

func TestUsage(t *testing.T) {
	for _, tc := range []struct {
		args []string
		code int
		said string
	}{
		{[]string{"list"}, 0, "bench-stall"},
		{nil, 2, "usage: perf"},
		{[]string{"nothing"}, 2, `there is no comparison "nothing"`},
		{[]string{"-pairs", "4", "bench-put"}, 2, "4 pairs are too few"},
		{[]string{"-nothing"}, 2, "flag provided but not defined"},
	} {
		var out bytes.Buffer
		if code := run(t.Context(), tc.args, &out, &out); code != tc.code || !strings.Contains(out.String(), tc.said) {
			t.Errorf("%q: %d\n%s", tc.args, code, out.String())
		}
	}
}
