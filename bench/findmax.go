package bench

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"
)

// Goal of FindMax: what a rate must keep to.
type Goal struct {
	// P99 latency at most, and the share of requests that may fail, 0 to 1.
	P99    Duration `json:"p99"`
	Errors float64  `json:"errors"`
	// Step is how long each rate is measured.
	Step Duration `json:"step"`
	// From is the first rate, and Within how close the limit is found, as a share.
	From   float64 `json:"from"`
	Within float64 `json:"within"`
}

// DefaultGoal is a p99 of 50 ms and one error in a thousand.
func DefaultGoal() Goal {
	return Goal{P99: Duration(50 * time.Millisecond), Errors: 0.001, Step: Duration(10 * time.Second), From: 500, Within: 0.05}
}

func (g *Goal) check() error {
	switch {
	case g.P99 < Duration(time.Millisecond) || g.P99 > Duration(time.Minute):
		return fmt.Errorf("%w: a p99 of %s: give 1ms to 1m", ErrSpec, g.P99)
	case !(g.Errors >= 0 && g.Errors < 1):
		return fmt.Errorf("%w: an error rate of %g: give 0%% to 99%%", ErrSpec, g.Errors)
	case g.Step < Duration(time.Second) || g.Step > Duration(time.Hour):
		return fmt.Errorf("%w: steps of %s: give 1s to 1h", ErrSpec, g.Step)
	case !(g.From > 0 && g.From <= 1e6):
		return fmt.Errorf("%w: a first rate of %g: give 1 to 1000000", ErrSpec, g.From)
	case !(g.Within >= 0.01 && g.Within <= 0.5):
		return fmt.Errorf("%w: found within %g: give 1%% to 50%%", ErrSpec, g.Within)
	}
	return nil
}

// Step of FindMax is one rate that was tried.
type Step struct {
	Rate         float64 `json:"rate"`
	OpsPerSecond float64 `json:"opsPerSecond"`
	P50          float64 `json:"p50"`
	P99          float64 `json:"p99"`
	Max          float64 `json:"max"`
	ErrorRate    float64 `json:"errorRate"`
	// Kept the goal; Why not, if not.
	Kept bool   `json:"kept"`
	Why  string `json:"why,omitempty"`
	// Limit that the run at this rate met.
	Limit Limit `json:"limit"`
}

// Knee is the highest rate that keeps to a goal.
type Knee struct {
	Goal Goal `json:"goal"`
	// Rate is the highest that was kept, 0 if none; Beyond the lowest that was not, 0
	// if all were.
	Rate   float64 `json:"rate"`
	Beyond float64 `json:"beyond"`
	Steps  []Step  `json:"steps"`
	// Best is the run at Rate, Broken the one at Beyond.
	Best   *Result `json:"best,omitempty"`
	Broken *Result `json:"broken,omitempty"`
	// Interrupted: it was ended before the limit was found.
	Interrupted bool    `json:"interrupted,omitempty"`
	Cleanup     Cleanup `json:"cleanup"`
}

// FindMax looks for the highest rate of an open loop that keeps to a goal: it doubles
// the rate until one fails, then halves the gap. A rate that fails narrowly is tried
// once more: one hiccup is no limit. The spec's loop, rate, duration, ramp and
// warm-up are not used.
func FindMax(ctx context.Context, spec Spec, goal Goal, o Options) (*Knee, error) {
	spec = spec.Clone()
	if err := goal.check(); err != nil {
		return nil, err
	}
	const rampShare, warmShare = 10, 5
	spec.Loop, spec.Rate, spec.Total = Open, goal.From, 0
	spec.Duration, spec.Ramp, spec.WarmUp = goal.Step, goal.Step/rampShare, goal.Step/warmShare
	if err := spec.Complete(); err != nil {
		return nil, err
	}
	s, err := open(ctx, spec, o)
	if err != nil {
		return nil, err
	}
	f := &finder{s: s, knee: &Knee{Goal: goal}}
	err = f.find(ctx)
	f.knee.Cleanup = s.close(ctx)
	for _, r := range []*Result{f.knee.Best, f.knee.Broken} {
		if r != nil {
			r.Cleanup = f.knee.Cleanup
		}
	}
	f.knee.Interrupted = ctx.Err() != nil
	if err != nil && (!f.knee.Interrupted || len(f.knee.Steps) == 0) {
		return nil, err
	}
	return f.knee, nil
}

type finder struct {
	s    *session
	knee *Knee
}

func (f *finder) find(ctx context.Context) error {
	const mostRate = 1e6
	k := f.knee
	for rate := k.Goal.From; ctx.Err() == nil; {
		kept, err := f.try(ctx, rate)
		if err != nil {
			return err
		}
		switch {
		case kept && k.Beyond == 0:
			rate = min(2*rate, mostRate)
			if k.Rate == mostRate {
				return nil
			}
			continue
		case k.Rate == 0 && k.Beyond <= 1:
			return nil // not even one a second
		case k.Rate > 0 && k.Beyond/k.Rate <= 1+k.Goal.Within:
			return nil
		}
		rate = math.Round((k.Rate + k.Beyond) / 2)
		if rate <= k.Rate || rate >= k.Beyond {
			return nil
		}
	}
	return nil
}

// try runs one rate, and a second time if it failed narrowly.
func (f *finder) try(ctx context.Context, rate float64) (bool, error) {
	for again := 0; ; again++ {
		f.s.spec.Rate = rate
		f.s.spec.Seed++ // else each rate would meet the same chances
		f.s.opts.Progress(Progress{Phase: PhaseTry, Done: rate})
		r, err := f.s.run(ctx)
		if err != nil {
			return false, err
		}
		if r.Interrupted {
			return false, nil
		}
		why, narrow := judge(r, f.knee.Goal)
		f.knee.Steps = append(f.knee.Steps, Step{
			Rate: rate, OpsPerSecond: r.Total.OpsPerSecond, P50: r.Total.Latency.P50, P99: r.Total.Latency.P99, Max: r.Total.Latency.Max,
			ErrorRate: r.Total.ErrorRate(), Kept: why == "", Why: why, Limit: r.Bottleneck.Limit,
		})
		note := fmt.Sprintf("%.0f a second: p99 %.1f ms, kept", rate, r.Total.Latency.P99)
		if why != "" {
			note = fmt.Sprintf("%.0f a second: %s", rate, why)
		}
		f.s.opts.Progress(Progress{Phase: PhaseStep, Done: rate, Note: note})
		switch {
		case why == "":
			f.knee.Rate, f.knee.Best = rate, r
			return true, nil
		case narrow && again == 0:
			continue
		}
		f.knee.Beyond, f.knee.Broken = rate, r
		return false, nil
	}
}

// Phases of FindMax: a rate that is tried, and one that was.
const (
	PhaseTry  = "try"
	PhaseStep = "rate"
)

// judge says why a run missed the goal; empty where it did not. Narrow is less than
// three times the limit.
func judge(r *Result, g Goal) (why string, narrow bool) {
	const narrowly, carried = 3, 0.95
	narrow = true
	var reasons []string
	limit := g.P99.Std().Seconds() * 1000
	if p99 := r.Total.Latency.P99; p99 > limit {
		reasons = append(reasons, fmt.Sprintf("p99 %.1f ms is more than %s", p99, g.P99))
		narrow = narrow && p99 < narrowly*limit
	}
	if rate := r.Total.ErrorRate(); rate > g.Errors {
		reasons = append(reasons, fmt.Sprintf("%.2f %% failed, more than %.2f %%", 100*rate, 100*g.Errors))
		narrow = narrow && rate < narrowly*g.Errors
	}
	// Arrivals are random: what was due is counted, rather than taken from the rate.
	due := float64(r.Total.Count+r.Total.Errors.Total()) / r.Spec.Duration.Std().Seconds()
	if got := r.Total.OpsPerSecond; got < carried*due {
		reasons = append(reasons, fmt.Sprintf("%.0f a second were answered of %.0f", got, due))
		narrow = false
	}
	return strings.Join(reasons, "; "), narrow
}
