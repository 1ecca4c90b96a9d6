package bench

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"golang.org/x/perf/benchmath"
)

// ErrCompare says that results can't be compared.
var ErrCompare = errors.New("the results can't be compared")

// Comparison of results with a baseline.
type Comparison struct {
	Base string `json:"base"`
	With string `json:"with"`
	// Samples say what was compared: "runs", or "slices" of one run's time series.
	Samples string   `json:"samples"`
	Metrics []Change `json:"metrics"`
	// Warnings: the loads differ, samples are few.
	Warnings []string `json:"warnings,omitempty"`
}

// Change of one metric.
type Change struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
	// Medians of the samples, and N of each side.
	Base  float64 `json:"base"`
	With  float64 `json:"with"`
	NBase int     `json:"nBase"`
	NWith int     `json:"nWith"`
	// Delta as a share of the base: 0.1 is 10 % more. It is 0 where base is.
	Delta float64 `json:"delta"`
	// P of Mann and Whitney's test: how probable so large a difference is if nothing
	// changed. 1 where there are too few samples to tell.
	P           float64 `json:"p"`
	Significant bool    `json:"significant"`
	// HigherIsBetter, and whether it is Worse, which needs significance.
	HigherIsBetter bool `json:"higherIsBetter"`
	Worse          bool `json:"worse"`
}

// Series of one side of a comparison: a name and its runs.
type Series struct {
	Name string
	Runs []*Result
}

// enoughRuns of each side make their own samples: with fewer, the test can't tell.
const enoughRuns = 4

// Compare says what changed from base to with. With four runs of each side or more,
// runs are the samples; with fewer, the slices of their time series are, which are
// not quite independent of each other: what a cluster does lasts for longer than a
// second, so that a small change may look sure.
func Compare(base, with Series) (*Comparison, error) {
	if len(base.Runs) == 0 || len(with.Runs) == 0 {
		return nil, fmt.Errorf("%w: a side has no run", ErrCompare)
	}
	c := &Comparison{Base: base.Name, With: with.Name, Samples: "slices"}
	if len(base.Runs) >= enoughRuns && len(with.Runs) >= enoughRuns {
		c.Samples = "runs"
	}
	for _, r := range slices.Concat(base.Runs, with.Runs) {
		for _, d := range differences(&base.Runs[0].Spec, &r.Spec) {
			c.warn("the loads differ: " + d)
		}
	}
	for _, side := range []Series{base, with} {
		if slices.ContainsFunc(side.Runs, func(r *Result) bool { return r.Interrupted }) {
			c.warn(side.Name + " was ended before its time")
		}
	}
	for _, m := range metrics {
		if c.Samples == "slices" && m.slice == nil {
			continue
		}
		change, warnings := m.compare(base.Runs, with.Runs, c.Samples == "runs")
		c.Metrics = append(c.Metrics, change)
		for _, w := range warnings {
			c.Warnings = append(c.Warnings, m.name+": "+w)
		}
	}
	return c, nil
}

// warn once.
func (c *Comparison) warn(text string) {
	if !slices.Contains(c.Warnings, text) {
		c.Warnings = append(c.Warnings, text)
	}
}

// differences of two loads that bear on what they measure.
func differences(a, b *Spec) []string {
	var list []string
	for _, d := range []struct {
		what string
		a, b any
	}{
		{"loop", a.Loop, b.Loop},
		{"rate", a.Rate, b.Rate},
		{"workload", mixText(a.Mix), mixText(b.Mix)},
		{"namespaces", a.Namespaces, b.Namespaces},
		{"clients", a.clients(), b.clients()},
		{"connections", a.Connections, b.Connections},
		{"key size", a.KeySize.String(), b.KeySize.String()},
		{"value size", a.ValueSize.String(), b.ValueSize.String()},
		{"skew", a.Skew.String(), b.Skew.String()},
		{"keys", a.Keys, b.Keys},
		{"keys of a range", a.RangeKeys, b.RangeKeys},
		{"operations of a transaction", a.TxnOps, b.TxnOps},
		{"keys of a page", a.PageSize, b.PageSize},
		{"watchers", a.Watchers * a.Namespaces, b.Watchers * b.Namespaces},
		{"timeout", a.Timeout, b.Timeout},
		{"slice", a.Slice, b.Slice},
	} {
		if d.a != d.b {
			list = append(list, fmt.Sprintf("%s is %v and %v", d.what, d.a, d.b))
		}
	}
	return list
}

func mixText(mix []Share) string { return fmt.Sprint(mix) }

// unitTime is that of latencies.
const unitTime = "ms"

// metric is one that is compared.
type metric struct {
	name, unit string
	higher     bool
	run        func(*Result) float64
	// slice is nil where slices do not tell.
	slice func(Slice) float64
}

var metrics = []metric{
	{"throughput", "op/s", true, func(r *Result) float64 { return r.Total.OpsPerSecond }, func(s Slice) float64 { return s.OpsPerSecond }},
	{"p50", unitTime, false, func(r *Result) float64 { return r.Total.Latency.P50 }, func(s Slice) float64 { return s.P50 }},
	{"p99", unitTime, false, func(r *Result) float64 { return r.Total.Latency.P99 }, func(s Slice) float64 { return s.P99 }},
	{"max", unitTime, false, func(r *Result) float64 { return r.Total.Latency.Max }, func(s Slice) float64 { return s.Max }},
	{"errors", "%", false, func(r *Result) float64 { return 100 * r.Total.ErrorRate() }, func(s Slice) float64 {
		if s.Count+s.Errors == 0 {
			return 0
		}
		return 100 * float64(s.Errors) / float64(s.Count+s.Errors)
	}},
	{"p99.9", unitTime, false, func(r *Result) float64 { return r.Total.Latency.P999 }, nil},
	{"client CPU", "µs/op", false, func(r *Result) float64 { return r.Client.CPUPerRequest }, nil},
}

func (m *metric) values(runs []*Result, whole bool) []float64 {
	var list []float64
	for _, r := range runs {
		if whole {
			list = append(list, m.run(r))
			continue
		}
		for _, s := range r.Series {
			// A last slice that was cut short is no fair sample. One in which nothing was
			// answered has no latency, and a throughput of zero.
			if s.Seconds >= r.Spec.Slice.Std().Seconds()/2 && (m.higher || s.Count+s.Errors > 0 && (m.unit != unitTime || s.Max > 0)) {
				list = append(list, m.slice(s))
			}
		}
	}
	return list
}

func (m *metric) compare(base, with []*Result, whole bool) (Change, []string) {
	ch := Change{Name: m.name, Unit: m.unit, HigherIsBetter: m.higher, P: 1}
	a, b := m.values(base, whole), m.values(with, whole)
	ch.NBase, ch.NWith = len(a), len(b)
	if len(a) == 0 || len(b) == 0 {
		return ch, []string{"there are no samples"}
	}
	const confidence = 0.95
	left, right := benchmath.NewSample(a, &benchmath.DefaultThresholds), benchmath.NewSample(b, &benchmath.DefaultThresholds)
	ch.Base = benchmath.AssumeNothing.Summary(left, confidence).Center
	ch.With = benchmath.AssumeNothing.Summary(right, confidence).Center
	if ch.Base != 0 {
		ch.Delta = ch.With/ch.Base - 1
	}
	if slices.Max(a) == slices.Min(b) && slices.Min(a) == slices.Max(b) {
		return ch, nil // all are equal, which the test refuses
	}
	test := benchmath.AssumeNothing.Compare(left, right)
	var warnings []string
	for _, w := range test.Warnings {
		warnings = append(warnings, w.Error())
	}
	if !math.IsNaN(test.P) && len(a) >= enoughRuns && len(b) >= enoughRuns {
		ch.P = test.P
		ch.Significant = test.P <= test.Alpha && ch.Base != ch.With
	}
	ch.Worse = ch.Significant && (ch.With < ch.Base) == m.higher
	return ch, warnings
}

// WorseThan lists what is worse by more than a share, 0.1 being 10 %. What was zero
// before and is not any more is worse by any share.
func (c *Comparison) WorseThan(share float64) []Change {
	var list []Change
	for _, m := range c.Metrics {
		if m.Worse && (m.Base == 0 || math.Abs(m.Delta) > share) {
			list = append(list, m)
		}
	}
	return list
}
