package main

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// minPairs give an interval that is worth its name: the range of five ratios holds
// the true median in 15 of 16 cases.
const minPairs = 5

// confidence that an interval has at least.
const confidence = 0.93

// metric is one figure of a run.
type metric struct {
	name, unit string
	// goal judges what was measured; nil: it is only told.
	goal *goal
}

// goal says what is good enough.
type goal struct {
	text string
	met  func(m *measured) bool
}

// report is all of a comparison, also as JSON.
type report struct {
	Name    string `json:"name"`
	Claim   string `json:"claim"`
	Peer    string `json:"peer"`
	Machine string `json:"machine"`
	// Versions of both sides, of etcd and of Go.
	Versions []string  `json:"versions"`
	At       time.Time `json:"at"`
	// Confidence of the intervals.
	Confidence float64    `json:"confidence"`
	Pairs      []pairOf   `json:"pairs"`
	Metrics    []measured `json:"metrics"`
	// OK: all goals were met.
	OK bool `json:"ok"`
}

// pairOf is what two runs measured, one behind the other.
type pairOf struct {
	Ours   sample `json:"quorate"`
	Theirs sample `json:"peer"`
}

// measured is one metric over all pairs.
type measured struct {
	Name   string `json:"name"`
	Unit   string `json:"unit"`
	Ours   spread `json:"quorate"`
	Theirs spread `json:"peer"`
	// Ratio is the median of ours / theirs within the pairs, and lies between Low and
	// High with the report's Confidence; 0 where theirs is.
	Ratio float64 `json:"ratio"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
	Goal  string  `json:"goal,omitempty"`
	OK    bool    `json:"ok"`
}

// spread of the runs of one side.
type spread struct {
	Median float64 `json:"median"`
	Q1     float64 `json:"q1"`
	Q3     float64 `json:"q3"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func newReport(c *comparison, b *built) *report {
	return &report{
		Name: c.name, Claim: c.claim, Peer: c.peer.name, Machine: machine(), At: time.Now().UTC(),
		Versions: []string{"quorate " + b.version, c.peer.module + " " + c.peer.version, "etcd " + b.etcdVersion, runtime.Version()},
	}
}

func machine() string {
	cpu := runtime.GOARCH
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				cpu = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d cores (%s)", runtime.NumCPU(), cpu)
}

// judge sums the pairs up.
func (r *report) judge(metrics []metric) {
	r.OK, r.Metrics = true, nil
	for _, m := range metrics {
		var ours, theirs, ratios []float64
		for _, p := range r.Pairs {
			ours, theirs = append(ours, p.Ours[m.name]), append(theirs, p.Theirs[m.name])
			if p.Theirs[m.name] != 0 {
				ratios = append(ratios, p.Ours[m.name]/p.Theirs[m.name])
			}
		}
		one := measured{Name: m.name, Unit: m.unit, Ours: spreadOf(ours), Theirs: spreadOf(theirs), OK: true}
		if len(ratios) == len(r.Pairs) {
			one.Ratio = quantile(ratios, 0.5)
			one.Low, one.High, r.Confidence = medianInterval(ratios)
		}
		if m.goal != nil {
			one.Goal, one.OK = m.goal.text, m.goal.met(&one)
			r.OK = r.OK && one.OK
		}
		r.Metrics = append(r.Metrics, one)
	}
}

func spreadOf(values []float64) spread {
	return spread{
		Median: quantile(values, 0.5), Q1: quantile(values, 0.25), Q3: quantile(values, 0.75),
		Min: slices.Min(values), Max: slices.Max(values),
	}
}

// quantile between neighbours, as most programs do it.
func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	low := int(math.Floor(at))
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}

// medianInterval holds the median of what the values were drawn from, whatever its
// distribution: it lies between the k-th smallest and the k-th largest unless chance
// has put fewer than k of all on one side. Where even the range is not sure enough,
// it is the range, with the confidence that it has.
func medianInterval(values []float64) (low, high, sure float64) {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	below := 0.0 // chance that fewer than k are on one side
	k := 0
	for i := range n / 2 {
		more := below + binomial(n, i)
		if k > 0 && 1-2*more < confidence {
			break
		}
		below, k = more, i+1
	}
	return sorted[k-1], sorted[n-k], 1 - 2*below
}

// binomial is the chance of k heads in n throws.
func binomial(n, k int) float64 {
	c := 1.0
	for i := range k {
		c = c * float64(n-i) / float64(i+1)
	}
	return c * math.Pow(0.5, float64(n))
}
