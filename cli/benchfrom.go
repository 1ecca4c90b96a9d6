package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/bench"
	"github.com/quorate/quorate/store/remote"
)

// maxWorkerLine bounds a line of a worker: its result has the histograms.
const maxWorkerLine = 64 << 20

// crew is a load that several hosts drive.
type crew struct {
	client *remote.Client
	hosts  []string
	// show is told where the load stands.
	show func(bench.Progress)

	mu     sync.Mutex
	latest map[string]bench.Progress
	noted  []string
}

// benchFrom has the agents of hosts drive the load, each its share, and merges what
// they measured.
func (e *env) benchFrom(ctx context.Context, ready *prepared, hosts []string) (*bench.Result, error) {
	client, err := e.connect()
	if err != nil {
		return nil, err
	}
	parts, err := ready.spec.Split(hosts, time.Now())
	if err != nil {
		return nil, err
	}
	c := &crew{client: client, hosts: hosts, show: ready.options.Progress, latest: map[string]bench.Progress{}}
	results := make([]*bench.Result, len(hosts))
	errs := make([]error, len(hosts))
	// One that fails ends the others: a part of a load is none.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for i, host := range hosts {
		wg.Go(func() {
			if results[i], errs[i] = c.drive(ctx, host, parts[i]); errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	// The one that failed by itself says why; the others were only ended.
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return nil, err
		}
	}
	if err = errors.Join(errs...); err != nil {
		return nil, err
	}
	r, err := bench.Merge(results)
	if err != nil {
		return nil, err
	}
	r.Notes = append(r.Notes, lateStarts(hosts, results)...)
	return r, nil
}

// drive has one host drive its part.
func (c *crew) drive(ctx context.Context, host string, part bench.Spec) (*bench.Result, error) {
	raw, err := json.Marshal(part) //nolint:gosec // the worker has to log in
	if err != nil {
		return nil, err
	}
	answer, err := c.client.Load(ctx, host, raw)
	if err != nil {
		return nil, fmt.Errorf("drive the load from host %s: %w", host, err)
	}
	defer func() { _ = answer.Close() }() // it was read to its end
	scan := bufio.NewScanner(answer)
	scan.Buffer(nil, maxWorkerLine)
	for scan.Scan() {
		var line workerLine
		if err = json.Unmarshal(scan.Bytes(), &line); err != nil {
			return nil, fmt.Errorf("the worker on host %s wrote %.80q, which this version can't read: %w", host, scan.Text(), err)
		}
		switch {
		case line.Error != "":
			return nil, fmt.Errorf("the worker on host %s: %s", host, line.Error)
		case line.Result != nil:
			line.Result.Hosts = []string{host}
			return line.Result, nil
		case line.Progress != nil:
			c.progress(host, *line.Progress)
		}
	}
	if err = scan.Err(); err == nil {
		err = errors.New("it ended without a result: look at the agent's log")
	}
	return nil, fmt.Errorf("the worker on host %s: %w", host, err)
}

// progress shows all hosts together, once the last of them runs.
func (c *crew) progress(host string, p bench.Progress) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.Phase == bench.PhaseNote {
		if !slices.Contains(c.noted, p.Note) { // all hosts see the same cluster
			c.noted = append(c.noted, p.Note)
			c.show(p)
		}
		return
	}
	c.latest[host] = p
	sum := bench.Progress{Phase: p.Phase, Done: p.Done, Of: p.Of, Note: p.Note}
	for _, other := range c.latest {
		if other.Phase != bench.PhaseRun {
			sum = other
			sum.Note = strings.TrimSpace("host " + host + " " + other.Note)
			c.show(sum)
			return
		}
		sum.Step.OpsPerSecond += other.Step.OpsPerSecond
		sum.Step.Errors += other.Step.Errors
		sum.Step.InFlight += other.Step.InFlight
		// Percentiles can't be added: the worst host's are shown until the end.
		sum.Step.P50, sum.Step.P99, sum.Step.Max = max(sum.Step.P50, other.Step.P50), max(sum.Step.P99, other.Step.P99), max(sum.Step.Max, other.Step.Max)
	}
	c.show(sum)
}

// lateStarts names hosts that began later than the first by more than a slice can
// hide.
func lateStarts(hosts []string, results []*bench.Result) []string {
	const apart = time.Second
	first := slices.MinFunc(results, func(a, b *bench.Result) int { return a.StartedAt.Compare(b.StartedAt) })
	var notes []string
	for i, r := range results {
		if late := r.StartedAt.Sub(first.StartedAt); late > apart {
			notes = append(notes, fmt.Sprintf("host %s began %.1f s after the first: its clock is off, or it was slow to write its keys", hosts[i], late.Seconds()))
		}
	}
	return notes
}
