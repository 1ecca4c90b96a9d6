package inspect

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/quorate/quorate/etcd"
)

const (
	// probeKey is read, and never written by anyone.
	probeKey = "quorate.io/doctor"
	// reads of each kind at each member.
	reads = 20
)

// sample times reads at all members that answer, and looks at them a second time.
// It returns how long lay between.
func (g *gatherer) sample(ctx context.Context, cluster string) float64 {
	var asked []*subject
	for _, s := range g.subjects {
		if s.Status != nil && s.ClusterID == cluster {
			asked = append(asked, s)
		}
	}
	if len(asked) == 0 {
		return 0
	}
	began := time.Now()
	window := g.unit * forSample
	g.each(asked, func(s *subject) {
		s.first = g.metrics(ctx, s)
		g.timeReads(ctx, s, window)
		g.lookAgain(ctx, s)
	})
	if s := oneToProbe(asked); s != nil {
		s.CompactRevision = g.compactRevision(ctx, s)
	}
	return time.Since(began).Seconds()
}

// metrics reads /metrics; nil where the client URL does not serve them.
func (g *gatherer) metrics(ctx context.Context, s *subject) families {
	ctx, cancel := g.within(ctx, forStatus)
	defer cancel()
	text, err := s.line.get(ctx, "/metrics")
	if err != nil {
		g.opts.Logger.LogAttrs(ctx, slog.LevelDebug, "no metrics", slog.String("endpoint", s.Endpoint), slog.Any("error", err))
		return nil
	}
	found, err := parseMetrics(text)
	if err != nil {
		g.opts.Logger.LogAttrs(ctx, slog.LevelDebug, "no metrics", slog.String("endpoint", s.Endpoint), slog.Any("error", err))
		return nil
	}
	return found
}

// timeReads spreads small reads of both kinds over the window.
func (g *gatherer) timeReads(ctx context.Context, s *subject, window time.Duration) {
	tick := time.NewTicker(window / reads)
	defer tick.Stop()
	local := &timing{read: etcd.Read{Key: probeKey, Serializable: true}}
	strict := &timing{read: etcd.Read{Key: probeKey}}
	if s.Learner {
		strict = nil // It answers serializable reads only.
	}
	end := time.Now().Add(window)
	for range reads {
		local.once(ctx, g, s)
		if strict != nil {
			strict.once(ctx, g, s)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		if ctx.Err() != nil || time.Now().After(end) {
			break
		}
	}
	s.Serializable = local.latency()
	if strict != nil {
		s.Linearizable = strict.latency()
	}
}

// timing collects how long reads of one kind took.
type timing struct {
	read   etcd.Read
	took   []time.Duration
	failed *Reach
}

// once reads once. Who did not answer in time is not asked again: the whole has a
// deadline.
func (t *timing) once(ctx context.Context, g *gatherer, s *subject) {
	if t.failed != nil && t.failed.Cause == etcd.FaultSilent {
		return
	}
	ctx, cancel := g.within(ctx, forStatus)
	defer cancel()
	began := time.Now()
	err := s.observer.Read(ctx, t.read)
	if readable(err) {
		t.took = append(t.took, time.Since(began))
	}
	if err != nil && t.failed == nil {
		t.failed = callReach(s.line.target, err)
	}
}

func (t *timing) latency() *Latency {
	l := &Latency{Reads: len(t.took), Failed: t.failed}
	if len(t.took) > 0 {
		slices.Sort(t.took)
		l.MedianMilliseconds = milliseconds(t.took[len(t.took)/2])
		l.WorstMilliseconds = milliseconds(t.took[len(t.took)-1])
	}
	return l
}

// lookAgain asks for status, clock and metrics a second time.
func (g *gatherer) lookAgain(ctx context.Context, s *subject) {
	if s.first != nil {
		if later := g.metrics(ctx, s); later != nil {
			s.Metrics = metricsOf(s.first, later)
		} else {
			s.Metrics = metricsOf(s.first, nil)
		}
	}
	ctx, cancel := g.within(ctx, forStatus)
	defer cancel()
	if _, err := s.line.get(ctx, "/version"); err != nil { // It notes the clock once more.
		g.opts.Logger.LogAttrs(ctx, slog.LevelDebug, "the clock was seen once", slog.String("endpoint", s.Endpoint), slog.Any("error", err))
	}
	if st, err := s.observer.Status(ctx); err == nil {
		s.Later = statusOf(st)
	}
}

// oneToProbe is the leader, or another that answers reads.
func oneToProbe(asked []*subject) *subject {
	var one *subject
	for _, s := range asked {
		if s.Serializable == nil || s.Serializable.Failed != nil {
			continue
		}
		if one == nil || s.Latest().Leader == s.ID {
			one = s
		}
	}
	return one
}

// compactRevision finds the oldest revision that can be read, by halving: a read
// below it is refused. It takes as many reads as the revision has bits, each of a
// key that does not exist. Nil when it can't be found out.
func (g *gatherer) compactRevision(ctx context.Context, s *subject) *int64 {
	ctx, cancel := g.within(ctx, forStatus)
	defer cancel()
	compacted := func(revision int64) (bool, error) {
		err := s.observer.Read(ctx, etcd.Read{Key: probeKey, Serializable: true, Revision: revision})
		if errors.Is(err, etcd.ErrCompacted) {
			return true, nil
		}
		return false, err
	}
	found, err := oldest(s.Latest().Revision, compacted)
	if err != nil {
		g.opts.Logger.LogAttrs(ctx, slog.LevelDebug, "compact revision not found", slog.String("endpoint", s.Endpoint), slog.Any("error", err))
		return nil
	}
	return &found
}

// oldest is the smallest revision up to the current one that is not compacted; 0
// when none is.
func oldest(current int64, compacted func(revision int64) (bool, error)) (int64, error) {
	gone, err := compacted(1)
	if err != nil {
		return 0, err
	}
	if !gone {
		return 0, nil
	}
	low, high := int64(1), current // low is compacted, high is not
	for high-low > 1 {
		middle := low + (high-low)/2
		gone, err = compacted(middle)
		switch {
		case err != nil:
			return 0, err
		case gone:
			low = middle
		default:
			high = middle
		}
	}
	return high, nil
}
