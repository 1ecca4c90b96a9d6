package bench

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// recorder takes what every request took. Clients share a few shards, each with a
// histogram for every operation, since one takes 140 kB; at the end of a slice all
// are exchanged for empty ones and summed up.
type recorder struct {
	shards []shard
	texts  errorTexts
	// epoch is what all times count from, and from where measuring begins, both in
	// nanoseconds since epoch.
	epoch time.Time
	from  int64
	// inFlight requests, and the most there were, which the loop alone writes.
	inFlight atomic.Int64
	peak     int64
	// unmeasured requests of ramp and warm-up.
	unmeasured atomic.Int64
	last       atomic.Int64
}

// shard is what some of the clients share.
type shard struct {
	mu   sync.Mutex
	ops  []cell
	lag  *hdr.Histogram
	rest cell // deliveries of watches
	_    [64]byte
}

// cell counts one operation.
type cell struct {
	hist      *hdr.Histogram
	count     int64
	conflicts int64
	errors    [classes]int64
}

func newRecorder(ops int, open, watch bool) *recorder {
	const mostShards = 8
	r := &recorder{shards: make([]shard, min(2*runtime.GOMAXPROCS(0), mostShards))}
	for i := range r.shards {
		s := &r.shards[i]
		s.ops = make([]cell, ops)
		for o := range s.ops {
			s.ops[o].hist = newHistogram()
		}
		if open {
			s.lag = newHistogram()
		}
		if watch {
			s.rest.hist = newHistogram()
		}
	}
	return r
}

// now is nanoseconds since the epoch.
func (r *recorder) now() int64 { return int64(time.Since(r.epoch)) }

// sample is one request: when it was due, began and ended.
type sample struct {
	op              int
	due, began, end int64
	class           class
	conflict        bool
}

// record takes a sample of a client of shard s.
func (r *recorder) record(s *shard, v sample) {
	if v.due < r.from {
		r.unmeasured.Add(1)
		return
	}
	s.mu.Lock()
	c := &s.ops[v.op]
	if v.class == classNone {
		c.count++
		if v.conflict {
			c.conflicts++
		}
	} else {
		c.errors[v.class]++
	}
	if v.class != classDropped { // one that was never sent has no latency
		observe(c.hist, v.end-v.due)
		if s.lag != nil {
			observe(s.lag, v.began-v.due)
		}
	}
	s.mu.Unlock()
}

// delivered takes an event that a watcher got.
func (r *recorder) delivered(s *shard, due, at int64) {
	if due < r.from {
		return
	}
	s.mu.Lock()
	s.rest.count++
	observe(s.rest.hist, at-due)
	s.mu.Unlock()
}

// observe records nanoseconds. What is beyond the histogram's end counts as its end.
func observe(h *hdr.Histogram, ns int64) {
	_ = h.RecordValue(min(max((ns+500)/1000, 1), histogramMax)) // within its bounds
}

// tally is what was recorded in some time.
type tally struct {
	ops  []cell
	lag  *hdr.Histogram
	rest cell
}

func newTally(ops int, open, watch bool) *tally {
	t := &tally{ops: make([]cell, ops)}
	for i := range t.ops {
		t.ops[i].hist = newHistogram()
	}
	if open {
		t.lag = newHistogram()
	}
	if watch {
		t.rest.hist = newHistogram()
	}
	return t
}

func (c *cell) take(from *cell) {
	c.count += from.count
	c.conflicts += from.conflicts
	for i, n := range from.errors {
		c.errors[i] += n
	}
	from.count, from.conflicts, from.errors = 0, 0, [classes]int64{}
	takeHistogram(c.hist, from.hist)
}

func takeHistogram(to, from *hdr.Histogram) {
	if from == nil || from.TotalCount() == 0 {
		return
	}
	to.Merge(from) // both have the same bounds: nothing is dropped
	from.Reset()
}

// take moves all that was recorded into t.
func (r *recorder) take(t *tally) {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		for o := range s.ops {
			t.ops[o].take(&s.ops[o])
		}
		takeHistogram(t.lag, s.lag)
		if s.rest.hist != nil {
			t.rest.take(&s.rest)
		}
		s.mu.Unlock()
	}
}

// add moves the later tally into t.
func (t *tally) add(later *tally) {
	for o := range t.ops {
		t.ops[o].take(&later.ops[o])
	}
	takeHistogram(t.lag, later.lag)
	if t.rest.hist != nil {
		t.rest.take(&later.rest)
	}
}

// sum is over all operations, into a cell with an empty histogram.
func (t *tally) sum(into *cell) {
	for o := range t.ops {
		c := &t.ops[o]
		into.count += c.count
		into.conflicts += c.conflicts
		for i, n := range c.errors {
			into.errors[i] += n
		}
		if c.hist.TotalCount() > 0 {
			into.hist.Merge(c.hist)
		}
	}
}

// collector makes the time series.
type collector struct {
	r      *recorder
	total  *tally
	series []Slice
	begun  int64
	// step holds the latest slice until it is added to the total.
	step *tally
	sum  cell
	keep bool
}

func newCollector(r *recorder, ops int, open, watch, keep bool) *collector {
	return &collector{
		r: r, total: newTally(ops, open, watch), step: newTally(ops, open, watch), sum: cell{hist: newHistogram()}, keep: keep, begun: r.from,
	}
}

// cut ends a slice at the time given, in nanoseconds since the epoch.
func (c *collector) cut(now int64) (Slice, error) {
	c.r.take(c.step)
	c.sum.hist.Reset()
	c.sum.count, c.sum.errors = 0, [classes]int64{}
	c.step.sum(&c.sum)
	v := c.sum.hist.ValueAtPercentilesSlice([]float64{50, 99})
	s := Slice{
		At: seconds(now - c.r.from), Seconds: seconds(now - c.begun), Count: c.sum.count, Errors: countsOf(&c.sum.errors).Total(),
		P50: float64(v[0]) / 1000, P99: float64(v[1]) / 1000, Max: float64(c.sum.hist.Max()) / 1000, InFlight: c.r.inFlight.Load(),
	}
	if s.Seconds > 0 {
		s.OpsPerSecond = float64(s.Count) / s.Seconds
	}
	c.begun = now
	var err error
	if c.keep {
		s.Histogram, err = encode(c.sum.hist)
	}
	c.total.add(c.step)
	c.series = append(c.series, s)
	return s, err
}

// finish ends the last slice; one that nothing happened in is left out.
func (c *collector) finish(end int64) error {
	last, err := c.cut(end)
	if n := len(c.series); err == nil && n > 1 && last.Count+last.Errors == 0 && last.Seconds < c.series[n-2].Seconds/2 {
		c.series = c.series[:n-1]
	}
	return err
}

func seconds(ns int64) float64 { return float64(ns) / 1e9 }
