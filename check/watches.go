package check

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/history/record"
	"github.com/quorate/quorate/internal/backoff"
)

// How watches live.
const (
	// watchAsk is how often long watches ask for progress.
	watchAsk = 2 * time.Second
	// watchRest is how long is waited before a watch that broke is opened again.
	watchRest = 200 * time.Millisecond
	// longestWander is how long a watch from an old revision lasts at most.
	longestWander = 3 * time.Second
)

// follower is a watch of the whole prefix at one endpoint, opened again whenever it
// breaks with the revision behind the last it saw.
type follower struct {
	run    *run
	client *record.Client

	mu      sync.Mutex
	next    int64
	changed chan struct{}
}

func (r *run) newFollower(c *record.Client) *follower {
	return &follower{run: r, client: c, next: r.plan.StartRevision + 1, changed: make(chan struct{})}
}

func (f *follower) follow(ctx context.Context) {
	for ctx.Err() == nil {
		w := history.Watch{Key: f.run.opts.Prefix, End: f.run.end, StartRevision: f.start(), Progress: true, PrevKV: true}
		err := f.client.Watch(ctx, w, record.WatchOptions{Ask: watchAsk, Seen: f.heard})
		f.run.watchEnded(ctx, err)
		if errors.Is(err, record.ErrCompacted) {
			f.skip()
		}
		_ = backoff.Sleep(ctx, watchRest) // the loop asks ctx
	}
}

func (f *follower) start() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.next
}

func (f *follower) heard(r *history.WatchResponse) {
	if len(r.Events) > 0 && !r.Fragment {
		f.run.meter.events(len(r.Events))
		f.at(r.Events[len(r.Events)-1].KV.ModRevision)
	}
	if r.CompactRevision > 0 {
		f.at(r.CompactRevision)
	}
}

func (f *follower) at(revision int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if revision >= f.next {
		f.next = revision + 1
		close(f.changed)
		f.changed = make(chan struct{})
	}
}

// skip goes on where the truth is: what was before is compacted.
func (f *follower) skip() {
	if revision, _ := f.run.truth.Delivered(); revision > 0 {
		f.at(revision)
	}
}

// wait waits until everything up to a revision was seen.
func (f *follower) wait(ctx context.Context, revision int64) error {
	for {
		f.mu.Lock()
		next, changed := f.next, f.changed
		f.mu.Unlock()
		if next > revision {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("its watch is at revision %d and has not delivered %d: %w", next-1, revision, ctx.Err())
		case <-changed:
		}
	}
}

// filtered keeps a watch that wants only some of the events of some of the keys.
func (r *run) filtered(ctx context.Context, c *record.Client, n int) {
	from := r.plan.StartRevision + 1
	for ctx.Err() == nil {
		w := history.Watch{Key: r.key(0), End: r.key(r.opts.Keys / 2), StartRevision: from, NoPut: n%2 == 0, NoDelete: n%2 == 1, PrevKV: n%2 == 0, Progress: true}
		err := c.Watch(ctx, w, record.WatchOptions{Ask: watchAsk, Seen: func(resp *history.WatchResponse) {
			r.meter.events(len(resp.Events))
			if len(resp.Events) > 0 && !resp.Fragment {
				from = resp.Events[len(resp.Events)-1].KV.ModRevision + 1
			}
			from = max(from, resp.CompactRevision+1)
		}})
		r.watchEnded(ctx, err)
		_ = backoff.Sleep(ctx, watchRest) // the loop asks ctx
	}
}

// wander opens short watches at revisions of the past and on keys of all sorts.
func (r *run) wander(ctx context.Context, clients []*record.Client, n int) {
	rng := rand.New(rand.NewPCG(r.opts.Seed, ^uint64(n))) //nolint:gosec // traffic needs no secrecy, and is to be the same again
	for ctx.Err() == nil {
		w := history.Watch{
			Key: r.key(rng.IntN(r.opts.Keys)), StartRevision: r.someRevision(rng),
			PrevKV: rng.IntN(2) == 0, Progress: rng.IntN(2) == 0, NoDelete: rng.IntN(5) == 0, NoPut: rng.IntN(5) == 0,
		}
		if rng.IntN(3) > 0 {
			w.End = r.end
		}
		if rng.IntN(4) == 0 {
			w.StartRevision = 0
		}
		o := record.WatchOptions{Fragment: rng.IntN(2) == 0, Seen: func(resp *history.WatchResponse) { r.meter.events(len(resp.Events)) }}
		if rng.IntN(2) == 0 {
			o.Ask = watchRest
		}
		short, cancel := context.WithTimeout(ctx, time.Duration(rng.Int64N(int64(longestWander))))
		err := clients[rng.IntN(len(clients))].Watch(short, w, o)
		cancel()
		r.watchEnded(short, err)
		_ = backoff.Sleep(ctx, watchRest) // the loop asks ctx
	}
}

// watchEnded logs what ended a watch, unless it was this side.
func (r *run) watchEnded(ctx context.Context, err error) {
	r.meter.watchEnded()
	if ctx.Err() == nil {
		r.log.DebugContext(ctx, "a watch ended", attrError(err))
	}
}

// someRevision is one of the past, most often of late.
func (r *run) someRevision(rng *rand.Rand) int64 {
	first, last := r.plan.StartRevision+1, r.revision.Load()
	if last <= first {
		return first
	}
	if at := r.compacted.Load(); at > 0 && rng.IntN(4) == 0 {
		return at
	}
	span := last - first + 1
	if rng.IntN(2) == 0 {
		span = min(span, lately)
	}
	return last - rng.Int64N(span)
}

// lately is how many revisions are the recent past.
const lately = 50

// stragglers are the followers that are not at a revision when ctx ends.
func stragglers(ctx context.Context, followers []*follower, revision int64) []string {
	var mu sync.Mutex
	var late []string
	var wg sync.WaitGroup
	for _, f := range followers {
		wg.Go(func() {
			if err := f.wait(ctx, revision); err != nil {
				mu.Lock()
				defer mu.Unlock()
				late = append(late, f.client.Endpoint()+": "+strings.TrimSuffix(err.Error(), ": "+ctx.Err().Error()))
			}
		})
	}
	wg.Wait()
	slices.Sort(late)
	return late
}
