package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// The promises of the idle footprint.
const (
	supervisorAnon = 20 << 20
	quorateRSS     = 150 << 20
	helpTime       = 100 * time.Millisecond
	helpRuns       = 15
	idleFor        = 60 * time.Second
	// idleCPU is what is not measurable: 1 % of a core.
	idleCPU = idleFor / 100
)

func proveFootprint(ctx context.Context, e *env) (string, error) {
	u, err := e.fresh(ctx)
	if err != nil {
		return "", err
	}
	s, err := u.settle(ctx)
	if err != nil {
		return "", err
	}
	if err = pause(ctx, idleFor); err != nil {
		return "", err
	}
	before, err := usages(u, s)
	if err != nil {
		return "", err
	}
	if err = pause(ctx, idleFor); err != nil {
		return "", err
	}
	after, err := usages(u, s)
	if err != nil {
		return "", err
	}
	help, err := e.helpTook(ctx, u.bin)
	if err != nil {
		return "", err
	}
	return judgeFootprint(before, after, help)
}

// footprint is that of `up` and of its supervisors.
type footprint struct {
	quorate     usage
	supervisors []usage
}

func usages(u *up, s sight) (footprint, error) {
	var f footprint
	var err error
	if f.quorate, err = usageOf(u.pid()); err != nil {
		return f, err
	}
	for _, name := range names(s) {
		one, err := usageOf(s[name].supervisor)
		if err != nil {
			return f, err
		}
		f.supervisors = append(f.supervisors, one)
	}
	return f, nil
}

// judgeFootprint judges what was used between two looks, idleFor apart.
func judgeFootprint(before, after footprint, help time.Duration) (string, error) {
	var anon int64
	var cpu time.Duration
	for i, s := range after.supervisors {
		anon = max(anon, s.anon)
		cpu = max(cpu, s.cpu-before.supervisors[i].cpu)
	}
	q := after.quorate
	text := fmt.Sprintf("a supervisor at most %.1f MB RssAnon (limit 20) and %d ms CPU in %.0f s (limit %d); server with agent %.1f MB RSS (limit 150; %.1f MB of it RssAnon), %d ms CPU in %.0f s; quorate --help %d ms, median of %d (limit 100)",
		mb(anon), cpu.Milliseconds(), idleFor.Seconds(), idleCPU.Milliseconds(), mb(q.rss), mb(q.anon),
		(q.cpu - before.quorate.cpu).Milliseconds(), idleFor.Seconds(), help.Milliseconds(), helpRuns)
	return text, errors.Join(
		atMost("a supervisor's RssAnon in bytes", anon, supervisorAnon),
		atMost("a supervisor's CPU", cpu, idleCPU),
		atMost("the RSS of server and agent in bytes", q.rss, quorateRSS),
		atMost("quorate --help", help, helpTime),
	)
}

func mb(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// helpTook is the median.
func (e *env) helpTook(ctx context.Context, bin string) (time.Duration, error) {
	took := make([]time.Duration, 0, helpRuns)
	for range helpRuns {
		began := time.Now()
		if _, err := output(command(ctx, e.dir, nil, bin, "--help")); err != nil {
			return 0, err
		}
		took = append(took, time.Since(began))
	}
	return median(took), nil
}

func median(all []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}
