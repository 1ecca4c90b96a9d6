package etcd

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/quorate/quorate/store"
)

// clock is moved by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func openWithClock(t *testing.T, h home, c *clock) *Store {
	t.Helper()
	opts := h.options(t)
	opts.Now = c.Now
	return open(t, opts)
}

func happened(name, reason, message string) store.Event {
	return store.Event{Type: store.Normal, Kind: "EtcdMember", Namespace: "prod", Name: name, Cluster: "a", Reason: reason, Message: message, Source: "test"}
}

func told(t *testing.T, s *Store, opts store.EventOptions) []string {
	t.Helper()
	list, err := s.Events(t.Context(), opts)
	if err != nil {
		t.Fatalf("Events: %v", err)
	}
	out := []string{}
	for i, e := range list {
		if e.ID == "" || e.Time.IsZero() || (i > 0 && e.ID <= list[i-1].ID) {
			t.Fatalf("event %d is out of order or has no time: %+v", i, e)
		}
		out = append(out, fmt.Sprintf("%s %s x%d", e.Name, e.Message, e.Count))
	}
	return out
}

func TestEventsFold(t *testing.T) {
	ctx := t.Context()
	h, c := newHome(t), &clock{now: time.Now()}
	s := openWithClock(t, h, c)
	check := func(what string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, told(t, s, store.EventOptions{})); diff != "" {
			t.Fatalf("%s:\n%s", what, diff)
		}
	}
	s.Record(ctx, happened("m1", "Started", "one"))
	s.Record(ctx, happened("m2", "Started", "one"))
	c.advance(time.Minute)
	s.Record(ctx, happened("m1", "Started", "one"))
	check("a repeat moves behind what came since", "m2 one x1", "m1 one x2")
	c.advance(foldWithin)
	s.Record(ctx, happened("m1", "Started", "one"))
	check("a repeat of a repeat counts from the last", "m2 one x1", "m1 one x3")
	c.advance(foldWithin + time.Second)
	s.Record(ctx, happened("m1", "Started", "one"))
	check("too late to be a repeat", "m2 one x1", "m1 one x3", "m1 one x1")
	s.Record(ctx, happened("m1", "Started", "two"))
	check("another message", "m2 one x1", "m1 one x3", "m1 one x1", "m1 two x1")

	// A new process goes on counting.
	closeStore(t, s)
	c.advance(time.Second)
	s = openWithClock(t, h, c)
	s.Record(ctx, happened("m1", "Started", "two"))
	check("after a restart", "m2 one x1", "m1 one x3", "m1 one x1", "m1 two x2")
}

func TestEventsNarrowed(t *testing.T) {
	s := newHome(t).open(t)
	other := happened("m9", "Started", "other cluster")
	other.Cluster = "b"
	far := happened("m1", "Started", "other namespace")
	far.Namespace = "dev"
	cluster := happened("a", "Created", "the cluster")
	cluster.Kind = "EtcdCluster"
	for _, e := range []store.Event{happened("m1", "Started", "one"), other, far, cluster} {
		s.Record(t.Context(), e)
	}
	for _, tt := range []struct {
		opts store.EventOptions
		want []string
	}{
		{store.EventOptions{}, []string{"m1 one x1", "m9 other cluster x1", "m1 other namespace x1", "a the cluster x1"}},
		{store.EventOptions{Namespace: "prod"}, []string{"m1 one x1", "m9 other cluster x1", "a the cluster x1"}},
		{store.EventOptions{Namespace: "prod", Cluster: "a"}, []string{"m1 one x1", "a the cluster x1"}},
		{store.EventOptions{Kind: "EtcdCluster", Name: "a"}, []string{"a the cluster x1"}},
		{store.EventOptions{Name: "none"}, []string{}},
	} {
		if diff := cmp.Diff(tt.want, told(t, s, tt.opts)); diff != "" {
			t.Errorf("%+v:\n%s", tt.opts, diff)
		}
	}
}

func TestEventsAreBounded(t *testing.T) {
	h := newHome(t)
	s := h.open(t)
	s.events.limit = 50
	const more = 50 + 3*trimSlack
	for i := range more {
		s.Record(t.Context(), happened("m", "Tick", strconv.Itoa(i)))
	}
	got := told(t, s, store.EventOptions{})
	if len(got) != 50 || got[49] != fmt.Sprintf("m %d x1", more-1) || got[0] != fmt.Sprintf("m %d x1", more-50) {
		t.Fatalf("%d events, from %q to %q", len(got), got[0], got[len(got)-1])
	}
	all, _, err := s.eventsWhere(t.Context(), func(*mvccpb.KeyValue) bool { return true })
	if err != nil || len(all) > 50+trimSlack {
		t.Fatalf("%d events are stored, %v", len(all), err)
	}
	if s.events.count != len(all) {
		t.Fatalf("%d events are stored, and %d were counted", len(all), s.events.count)
	}
}

func TestEventsShareLeases(t *testing.T) {
	c := &clock{now: time.Now()}
	s := openWithClock(t, newHome(t), c)
	leases := func() int {
		t.Helper()
		resp, err := s.client.Leases(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range resp.Leases {
			ttl, err := s.client.TimeToLive(t.Context(), l.ID)
			if err != nil || ttl.GrantedTTL < int64(eventTTL.Seconds()) {
				t.Fatalf("a lease for %d s, %v", ttl.GrantedTTL, err)
			}
		}
		return len(resp.Leases)
	}
	for i := range 10 {
		s.Record(t.Context(), happened("m", "Tick", strconv.Itoa(i)))
		c.advance(time.Minute)
	}
	if n := leases(); n != 1 {
		t.Fatalf("%d leases for ten events in ten minutes", n)
	}
	c.advance(time.Hour)
	s.Record(t.Context(), happened("m", "Tick", "later"))
	if n := leases(); n != 2 {
		t.Fatalf("%d leases an hour later", n)
	}
	// A lease that is gone takes its events with it, and the next event needs another.
	resp, err := s.client.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range resp.Leases {
		if _, err := s.client.Revoke(t.Context(), l.ID); err != nil {
			t.Fatal(err)
		}
	}
	s.Record(t.Context(), happened("m", "Tick", "later"))
	if diff := cmp.Diff([]string{"m later x1"}, told(t, s, store.EventOptions{})); diff != "" {
		t.Fatalf("after the leases were gone:\n%s", diff)
	}
}

func TestRecordAfterTheContextEnded(t *testing.T) {
	s := newHome(t).open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Record(ctx, happened("m", "Stopped", "last words"))
	if diff := cmp.Diff([]string{"m last words x1"}, told(t, s, store.EventOptions{})); diff != "" {
		t.Fatal(diff)
	}
}

func nextEvent(t *testing.T, events <-chan store.Event) string {
	t.Helper()
	timer := time.NewTimer(20 * time.Second)
	defer timer.Stop()
	select {
	case e := <-events:
		return fmt.Sprintf("%s x%d", e.Message, e.Count)
	case <-timer.C:
		t.Fatalf("no event came")
		return ""
	}
}

func TestWatchEvents(t *testing.T) {
	s := newHome(t).open(t)
	b := &breakable{Watcher: s.watches}
	s.watches = b
	s.Record(t.Context(), happened("m", "Tick", "before"))
	ctx, cancel := context.WithCancel(t.Context())
	events := s.WatchEvents(ctx, store.EventOptions{Cluster: "a"})
	other := happened("x", "Tick", "another cluster")
	other.Cluster = "b"
	s.Record(t.Context(), other)
	s.Record(t.Context(), happened("m", "Tick", "one"))
	if got := nextEvent(t, events); got != "one x1" {
		t.Fatalf("got %q", got)
	}
	reconnect := b.disconnect()
	s.Record(t.Context(), happened("m", "Tick", "in the gap"))
	s.Record(t.Context(), happened("m", "Tick", "one"))
	s.compact(t)
	reconnect()
	for _, want := range []string{"in the gap x1", "one x2"} {
		if got := nextEvent(t, events); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	s.Record(t.Context(), happened("m", "Tick", "after"))
	if got := nextEvent(t, events); got != "after x1" {
		t.Fatalf("got %q", got)
	}
	cancel()
	for range events {
		t.Fatalf("an event came after the end")
	}
}
