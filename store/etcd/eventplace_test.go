package etcd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/store"
)

// TestWatchEventsAfter: a reader that goes on from any event sees all behind it,
// once, also when their history was compacted, and when the clock went back.
func TestWatchEventsAfter(t *testing.T) {
	c := &clock{now: time.Now()}
	s := openWithClock(t, newHome(t), c)
	ctx := t.Context()
	empty, err := s.LastEvent(ctx)
	if err != nil {
		t.Fatalf("LastEvent: %v", err)
	}
	for i := range 5 {
		s.Record(ctx, happened("m", "Tick", strconv.Itoa(i)))
	}
	list, end, err := s.EventsAt(ctx, store.EventOptions{})
	if err != nil || len(list) != 5 {
		t.Fatalf("EventsAt: %d events, %v", len(list), err)
	}
	s.Record(ctx, happened("m", "Tick", "5"))
	check := func(what string) {
		t.Helper()
		places := []string{empty}
		for _, e := range list {
			places = append(places, e.ID)
		}
		for i, after := range append(places, end) {
			watching, stop := context.WithCancel(ctx)
			events, failed := s.WatchEventsAfter(watching, store.EventOptions{}, after)
			if failed != nil {
				t.Fatalf("%s: after %d: %v", what, i, failed)
			}
			for want := min(i, 5); want < 6; want++ {
				if got := nextEvent(t, events); got != fmt.Sprintf("%d x1", want) {
					t.Fatalf("%s: after %d: got %q, want %d", what, i, got, want)
				}
			}
			select {
			case e := <-events:
				t.Fatalf("%s: after %d: got %q as well", what, i, e.Message)
			default:
			}
			stop()
		}
	}
	check("from the history")
	s.compact(t)
	check("from what stands")
	// Two servers' clocks differ: what is recorded last may have the lower ID.
	c.advance(-time.Minute)
	late := newRecorder(t, s)
	_, end, err = s.EventsAt(ctx, store.EventOptions{})
	if err != nil {
		t.Fatalf("EventsAt: %v", err)
	}
	late("behind its time")
	events, err := s.WatchEventsAfter(ctx, store.EventOptions{}, end)
	if err != nil {
		t.Fatalf("WatchEventsAfter: %v", err)
	}
	if got := nextEvent(t, events); got != "behind its time x1" {
		t.Fatalf("got %q", got)
	}
}

// newRecorder records as another server would, whose clock is s's at this moment.
func newRecorder(t *testing.T, s *Store) func(message string) {
	t.Helper()
	s.events.mu.Lock()
	s.events.lastID = 0
	s.events.mu.Unlock()
	return func(message string) { s.Record(t.Context(), happened("m", "Tick", message)) }
}

// TestEventsGone: who comes back too late is told, rather than left with a gap.
func TestEventsGone(t *testing.T) {
	c := &clock{now: time.Now()}
	s := openWithClock(t, newHome(t), c)
	s.events.limit = 50
	ctx := t.Context()
	s.Record(ctx, happened("m", "Tick", "first"))
	list, end, err := s.EventsAt(ctx, store.EventOptions{})
	if err != nil || len(list) != 1 {
		t.Fatalf("EventsAt: %d events, %v", len(list), err)
	}
	after := func(id string) error {
		watching, stop := context.WithCancel(ctx)
		defer stop()
		_, failed := s.WatchEventsAfter(watching, store.EventOptions{}, id)
		return failed
	}
	for i := range 40 {
		s.Record(ctx, happened("m", "Tick", strconv.Itoa(i)))
	}
	for _, id := range []string{list[0].ID, end} {
		if err = after(id); err != nil {
			t.Fatalf("while all are kept: %v", err)
		}
	}
	for i := range trimSlack + 50 {
		s.Record(ctx, happened("m", "Tick", "more "+strconv.Itoa(i)))
	}
	for _, id := range []string{list[0].ID, end} {
		if err = after(id); !errors.Is(err, store.ErrGone) || !strings.Contains(err.Error(), "list the events anew") {
			t.Fatalf("after some were removed: %v", err)
		}
	}
	last, err := s.LastEvent(ctx)
	if err != nil {
		t.Fatalf("LastEvent: %v", err)
	}
	if err = after(last); err != nil {
		t.Fatalf("from now on: %v", err)
	}
	c.advance(eventTTL + time.Minute)
	if err = after(last); !errors.Is(err, store.ErrGone) {
		t.Fatalf("after a week: %v", err)
	}
	from, err := parsePlace(last)
	if err != nil {
		t.Fatalf("parsePlace: %v", err)
	}
	other := strings.Replace(last, fmt.Sprintf("-%x-%x", from.epoch, from.revision), fmt.Sprintf("-%x-%x", from.epoch+1, from.revision), 1)
	if err = after(other); !errors.Is(err, store.ErrGone) {
		t.Fatalf("of another epoch: %v", err)
	}
	for _, id := range []string{"", "x", "1-2-3", "1-2-3-4-5", "1-2-3-x", last + " ", "-" + last} {
		if err = after(id); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("after %q: %v", id, err)
		}
	}
}
