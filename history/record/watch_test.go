package record_test

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/history/record"
)

// watchUntil watches until enough responses came, and returns what was recorded.
func watchUntil(t *testing.T, n *node, w history.Watch, o record.WatchOptions, enough func(*history.WatchResponse) bool) (history.Watch, error) {
	t.Helper()
	rec := record.New(record.Options{})
	c := dial(t, rec, n)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	o.Seen = func(r *history.WatchResponse) {
		if enough(r) {
			cancel()
		}
	}
	err := c.Watch(ctx, w, o)
	h := rec.History(history.Meta{})
	if len(h.Watches) != 1 {
		t.Fatalf("%d watches were recorded", len(h.Watches))
	}
	return h.Watches[0], err
}

// TestWatch: events, filters, previous values, progress and compaction as etcd
// tells them.
func TestWatch(t *testing.T) {
	n := newNode(t)
	c := dial(t, record.New(record.Options{}), n)
	ctx := t.Context()
	want(t, c.Put(ctx, "/w/a", "1", 0), history.OK)
	want(t, c.Put(ctx, "/w/a", "2", 0), history.OK)
	want(t, c.Delete(ctx, "/w/a", ""), history.OK)

	last := func(r *history.WatchResponse) bool {
		return len(r.Events) > 0 && r.Events[len(r.Events)-1].KV.ModRevision == 4
	}
	all, _ := watchUntil(t, n, history.Watch{Key: "/w/", End: "/w0", StartRevision: 2, PrevKV: true}, record.WatchOptions{Fragment: true}, last)
	one := history.KeyValue{Key: "/w/a", Value: "1", Version: 1, CreateRevision: 2, ModRevision: 2}
	two := history.KeyValue{Key: "/w/a", Value: "2", Version: 2, CreateRevision: 2, ModRevision: 3}
	var events []history.Event
	for _, r := range all.Responses {
		events = append(events, r.Events...)
	}
	if diff := cmp.Diff([]history.Event{
		{Create: true, KV: one}, {KV: two, PrevKV: &one}, {Deleted: true, KV: history.KeyValue{Key: "/w/a", ModRevision: 4}, PrevKV: &two},
	}, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if !all.Responses[0].Created || all.Endpoint != n.Client || all.StartRevision != 2 {
		t.Errorf("the watch: %+v", all)
	}

	deleted, _ := watchUntil(t, n, history.Watch{Key: "/w/", End: "/w0", StartRevision: 2, NoPut: true}, record.WatchOptions{}, last)
	if r := deleted.Responses[len(deleted.Responses)-1]; len(r.Events) != 1 || !r.Events[0].Deleted {
		t.Errorf("without puts: %+v", r)
	}

	progress, _ := watchUntil(t, n, history.Watch{Key: "/none"}, record.WatchOptions{Ask: 20 * time.Millisecond}, func(r *history.WatchResponse) bool { return r.Progress })
	if r := progress.Responses[len(progress.Responses)-1]; r.Revision != 4 || len(r.Events) != 0 {
		t.Errorf("progress: %+v", r)
	}

	want(t, c.Do(ctx, history.Operation{Kind: history.Compact, Revision: 4}), history.OK)
	late, err := watchUntil(t, n, history.Watch{Key: "/w/a", StartRevision: 2}, record.WatchOptions{}, func(*history.WatchResponse) bool { return false })
	if r := late.Responses[len(late.Responses)-1]; !errors.Is(err, record.ErrCompacted) || !r.Canceled || r.CompactRevision != 4 {
		t.Errorf("%v, %+v", err, r)
	}
}

// TestTruthGoesOn: the truth watch loses nothing and tells nothing twice while its
// endpoint is killed, held still and started again.
func TestTruthGoesOn(t *testing.T) {
	n := newNode(t)
	rec := record.New(record.Options{})
	c := dial(t, rec, n)
	truth := rec.Truth([]*record.Client{dial(t, rec, n), dial(t, rec, n)}, "/t/", "/t0", 2)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- truth.Run(ctx) }()
	revision := int64(0)
	write := func(values int) {
		t.Helper()
		for i := range values {
			op := want(t, c.Put(ctx, "/t/a", fmt.Sprintf("%d-%d", revision, i), 0), history.OK)
			revision = op.Revision
		}
		wait, stop := context.WithTimeout(ctx, patience)
		defer stop()
		if err := truth.Wait(wait, revision); err != nil {
			t.Fatal(err)
		}
	}
	write(20)
	n.Kill()
	n.Start()
	n.until("back", func(ctx context.Context) bool { return c.Get(ctx, "/t/a", "").Outcome == history.OK })
	write(20)
	n.signal(syscall.SIGSTOP)
	n.until("given up", func(context.Context) bool { _, resumed := truth.Delivered(); return resumed >= 2 })
	n.signal(syscall.SIGCONT)
	n.until("back", func(ctx context.Context) bool { return c.Get(ctx, "/t/a", "").Outcome == history.OK })
	write(20)
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
	next := int64(2)
	for _, r := range rec.History(history.Meta{}).Watches[0].Responses {
		for _, e := range r.Events {
			if e.KV.ModRevision != next {
				t.Fatalf("revision %d came where %d was to", e.KV.ModRevision, next)
			}
			next++
		}
	}
	if next != revision+1 {
		t.Errorf("it ends at %d, and %d was written", next-1, revision)
	}
}

// TestTruthHasAHole: what was compacted before it was seen is told.
func TestTruthHasAHole(t *testing.T) {
	n := newNode(t)
	rec := record.New(record.Options{})
	c := dial(t, rec, n)
	ctx := t.Context()
	for range 5 {
		want(t, c.Put(ctx, "/t/a", "1", 0), history.OK)
	}
	want(t, c.Do(ctx, history.Operation{Kind: history.Compact, Revision: 5}), history.OK)
	truth := rec.Truth([]*record.Client{c}, "/t/", "/t0", 2)
	if err := truth.Run(ctx); !errors.Is(err, record.ErrCompacted) {
		t.Errorf("it ended with %v", err)
	}
	if err := truth.Wait(ctx, 5); !errors.Is(err, record.ErrCompacted) {
		t.Errorf("waiting ended with %v", err)
	}
}
