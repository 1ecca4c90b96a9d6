package record

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/internal/backoff"
)

// How a truth watch is kept alive.
const (
	// truthAsk is how often it asks for progress, which is its sign of life.
	truthAsk = time.Second
	// truthSilence is how long it bears silence before it goes to another endpoint.
	truthSilence = 4 * time.Second
	// truthPause is how long it waits between two attempts that both failed.
	truthPause = 100 * time.Millisecond
)

// Truth is one watch over a whole prefix, from its first revision on. Where a stream
// breaks, the watch goes on at the next endpoint with the revision behind the last
// that was delivered whole, so that its events are all there were.
type Truth struct {
	rec     *Recorder
	clients []*Client
	w       *history.Watch

	mu sync.Mutex
	// next is the first revision that is still to come; delivered, all up to which
	// is known to have been delivered.
	next, delivered int64
	resumed         int
	broken          error
	// held are fragments of a revision that is not whole yet.
	held []history.WatchResponse
	// changed is closed and replaced when delivered moves or it breaks.
	changed chan struct{}
}

// Truth makes a truth watch from key to end. Run keeps it.
func (r *Recorder) Truth(clients []*Client, key, end string, from int64) *Truth {
	t := &Truth{rec: r, clients: clients, next: from, delivered: from - 1, changed: make(chan struct{})}
	w := history.Watch{Key: key, End: end, StartRevision: from, PrevKV: true, Truth: true}
	if len(clients) > 0 {
		w.Endpoint = clients[0].endpoint
	}
	t.w = r.opened(w)
	return t
}

// Run keeps the watch until ctx is done, or until what it wants is compacted, which
// is an error: the history then has a hole.
func (t *Truth) Run(ctx context.Context) error {
	for i := 0; ctx.Err() == nil; i++ {
		before := t.start()
		err := t.stretch(ctx, t.clients[i%len(t.clients)])
		if errors.Is(err, ErrCompacted) {
			t.mu.Lock()
			t.broken = err
			t.wake()
			t.mu.Unlock()
			return err
		}
		if done(ctx) {
			break
		}
		t.mu.Lock()
		t.resumed++
		t.held = nil
		moved := t.next > before
		t.mu.Unlock()
		if !moved {
			_ = backoff.Sleep(ctx, truthPause) // the loop asks ctx
		}
	}
	return nil
}

func done(ctx context.Context) bool { return ctx.Err() != nil }

// stretch watches at one endpoint until that ends or is silent for too long.
func (t *Truth) stretch(ctx context.Context, c *Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(truthSilence, cancel)
	defer silence.Stop()
	w := *t.w
	w.StartRevision = t.start()
	return c.stream(ctx, &w, WatchOptions{Ask: truthAsk}, func(r *history.WatchResponse) {
		silence.Reset(truthSilence)
		t.heard(r)
	})
}

func (t *Truth) start() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.next
}

// heard records events, and what ends the watch for good. Progress of one endpoint
// says nothing of another's, and would only confuse.
func (t *Truth) heard(r *history.WatchResponse) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case r.Fragment:
		t.held = append(t.held, *r)
		return
	case r.CompactRevision > 0:
		t.rec.heard(t.w, r)
	case len(r.Events) > 0:
		for i := range t.held {
			t.rec.heard(t.w, &t.held[i])
		}
		t.held = nil
		t.rec.heard(t.w, r)
		last := r.Events[len(r.Events)-1].KV.ModRevision
		t.next, t.delivered = last+1, max(t.delivered, last)
		t.wake()
	case r.Progress && r.Revision > t.delivered:
		t.delivered = r.Revision
		t.wake()
	}
}

func (t *Truth) wake() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// Delivered is the revision up to which all was delivered, and how often the watch
// had to go on elsewhere.
func (t *Truth) Delivered() (revision int64, resumed int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.delivered, t.resumed
}

// Wait waits until all up to a revision was delivered.
func (t *Truth) Wait(ctx context.Context, revision int64) error {
	for {
		t.mu.Lock()
		changed, delivered, broken := t.changed, t.delivered, t.broken
		t.mu.Unlock()
		switch {
		case delivered >= revision:
			return nil
		case broken != nil:
			return broken
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
