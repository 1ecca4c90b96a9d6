package historytest

import (
	"slices"
	"time"

	"github.com/quorate/quorate/history"
)

// spot is an event of a watch.
type spot struct {
	w    *history.Watch
	r, e int
}

func (s spot) response() *history.WatchResponse { return &s.w.Responses[s.r] }
func (s spot) event() *history.Event            { return &s.w.Responses[s.r].Events[s.e] }

// drop removes the event, and its response if that is empty then.
func (s spot) drop() {
	r := s.response()
	r.Events = slices.Delete(slices.Clone(r.Events), s.e, s.e+1)
	if len(r.Events) == 0 {
		s.w.Responses = slices.Delete(s.w.Responses, s.r, s.r+1)
	}
}

// pickEvent is the event in the middle of those that fit, in a watch that does.
func pickEvent(h *history.History, watch func(w *history.Watch) bool, fits func(s spot) bool) (spot, error) {
	for i := range h.Watches {
		w := &h.Watches[i]
		if !watch(w) {
			continue
		}
		var all []spot
		for r := range w.Responses {
			for e := range w.Responses[r].Events {
				if s := (spot{w, r, e}); fits(s) {
					all = append(all, s)
				}
			}
		}
		if len(all) > 0 {
			return all[len(all)/2], nil
		}
	}
	return spot{}, errNoPlace
}

// follower is a watch of everything that is not the truth.
func follower(w *history.Watch) bool {
	return !w.Truth && w.End != "" && w.Key == Prefix && !w.NoPut && !w.NoDelete && len(w.Responses) > 3
}

func isTruth(w *history.Watch) bool { return w.Truth }

func isPut(s spot) bool { return !s.event().Deleted }

func update(s spot) bool { return isPut(s) && s.event().KV.Version > 1 }

func inMiddle(s spot) bool { return s.r > 2 && s.r < len(s.w.Responses)-3 }

func eventOther(h *history.History) error {
	s, err := pickEvent(h, follower, isPut)
	if err == nil {
		s.event().KV.Value = "damaged"
	}
	return err
}

func createOf(h *history.History) error {
	s, err := pickEvent(h, follower, update)
	if err == nil {
		s.event().KV.CreateRevision--
	}
	return err
}

func disorder(h *history.History) error {
	s, err := pickEvent(h, follower, func(s spot) bool {
		return inMiddle(s) && len(s.w.Responses[s.r-1].Events) > 0
	})
	if err != nil {
		return err
	}
	before := &s.w.Responses[s.r-1]
	before.Events, s.response().Events = s.response().Events, before.Events
	before.At, before.Revision = s.response().At, s.response().Revision
	return nil
}

func twice(h *history.History) error {
	s, err := pickEvent(h, follower, inMiddle)
	if err != nil {
		return err
	}
	again := *s.response()
	s.w.Responses = slices.Insert(s.w.Responses, s.r+1, again)
	return nil
}

func leftOut(h *history.History) error {
	s, err := pickEvent(h, follower, inMiddle)
	if err == nil {
		s.drop()
	}
	return err
}

func leftOutOfTruth(h *history.History) error {
	s, err := pickEvent(h, isTruth, inMiddle)
	if err == nil {
		s.drop()
	}
	return err
}

func split(h *history.History) error {
	s, err := pickEvent(h, follower, func(s spot) bool {
		return s.e > 0 && s.response().Events[s.e-1].KV.ModRevision == s.event().KV.ModRevision
	})
	if err != nil {
		return err
	}
	r := *s.response()
	rest := r
	rest.Events = slices.Clone(r.Events[s.e:])
	s.response().Events = r.Events[:s.e]
	s.w.Responses = slices.Insert(s.w.Responses, s.r+1, rest)
	return nil
}

func gap(h *history.History) error {
	for i := range h.Watches {
		w := &h.Watches[i]
		if w.Truth || w.StartRevision <= firstRevision+1 || len(w.Responses) < 5 {
			continue
		}
		w.Responses = slices.Delete(w.Responses, 1, 2)
		return nil
	}
	return errNoPlace
}

func ahead(h *history.History) error {
	s, err := pickEvent(h, follower, inMiddle)
	if err != nil {
		return err
	}
	r := s.response()
	s.w.Responses = slices.Insert(s.w.Responses, s.r, history.WatchResponse{At: r.At, Revision: r.Revision, Progress: true})
	return nil
}

func past(h *history.History) error {
	t := newTail(h)
	t.rev++
	t.op(putting(planted, "unseen", t.rev))
	t.seen(t.put(planted, "unseen", 0))
	t.told()
	for i := range h.Watches {
		if w := &h.Watches[i]; follower(w) {
			w.Responses = slices.Delete(w.Responses, len(w.Responses)-2, len(w.Responses)-1)
			return nil
		}
	}
	return errNoPlace
}

func withPrevious(w *history.Watch) bool { return follower(w) && w.PrevKV }

func hasPrevious(s spot) bool { return s.event().PrevKV != nil }

func otherPrevious(h *history.History) error {
	s, err := pickEvent(h, withPrevious, hasPrevious)
	if err == nil {
		s.event().PrevKV.Value = "damaged"
	}
	return err
}

func noPrevious(h *history.History) error {
	t := newTail(h)
	for _, value := range []string{"one", "two"} {
		t.rev++
		t.op(putting(planted, value, t.rev))
		t.seen(t.put(planted, value, 0))
	}
	for i := range h.Watches {
		if w := &h.Watches[i]; withPrevious(w) {
			w.Responses[len(w.Responses)-1].Events[0].PrevKV = nil
			return nil
		}
	}
	return errNoPlace
}

func told(h *history.History) error {
	s, err := pickEvent(h, follower, update)
	if err == nil {
		s.event().Create = true
	}
	return err
}

func unfiltered(h *history.History) error {
	for i := range h.Watches {
		if w := &h.Watches[i]; follower(w) {
			w.NoPut = true
			return nil
		}
	}
	return errNoPlace
}

func neverWas(h *history.History) error {
	t := newTail(h)
	t.rev++
	for i := range h.Watches {
		if w := &h.Watches[i]; follower(w) {
			w.Responses = append(w.Responses, history.WatchResponse{At: t.at, Revision: t.rev, Events: []history.Event{t.put(planted, "never", 0)}})
			break
		}
	}
	t.told()
	return nil
}

// granted appends a lease.
func (t *tail) granted() int64 {
	const id, ttl = 0xbad1ea5e, 60
	t.op(history.Operation{Kind: history.LeaseGrant, Lease: id, TTL: ttl, Revision: t.rev})
	return id
}

func (t *tail) leased(value string, lease int64) {
	t.rev++
	o := putting(planted, value, t.rev)
	o.Then[0].Lease = lease
	t.op(o)
	t.seen(t.put(planted, value, lease))
}

func early(h *history.History) error {
	t := newTail(h)
	id := t.granted()
	t.leased("held", id)
	t.at += 59 * int64(time.Second)
	t.rev++
	t.seen(t.remove())
	t.told()
	return nil
}

func earlyTTL(h *history.History) error {
	t := newTail(h)
	id := t.granted()
	t.at += 10 * int64(time.Second)
	t.op(history.Operation{Kind: history.LeaseRenew, Lease: id, TTL: 60, Revision: t.rev})
	t.at += 55 * int64(time.Second)
	t.op(history.Operation{Kind: history.LeaseTTL, Lease: id, TTL: -1, Revision: t.rev})
	return nil
}

func stays(h *history.History) error {
	t := newTail(h)
	id := t.granted()
	t.leased("held", id)
	t.op(history.Operation{Kind: history.LeaseRevoke, Lease: id, Revision: t.rev})
	t.told()
	return nil
}

func attachOver(h *history.History) error {
	t := newTail(h)
	id := t.granted()
	t.op(history.Operation{Kind: history.LeaseRevoke, Lease: id, Revision: t.rev})
	t.leased("late", id)
	t.told()
	return nil
}

func renewed(h *history.History) error {
	t := newTail(h)
	id := t.granted()
	t.op(history.Operation{Kind: history.LeaseRevoke, Lease: id, Revision: t.rev})
	t.op(history.Operation{Kind: history.LeaseRenew, Lease: id, TTL: 1, Revision: t.rev})
	t.told()
	return nil
}

func attachOther(h *history.History) error {
	s, err := pickEvent(h, follower, func(s spot) bool { return s.event().KV.Lease != 0 })
	if err == nil {
		s.event().KV.Lease++
	}
	return err
}

func hash(h *history.History) error {
	if len(h.Hashes) == 0 {
		return errNoPlace
	}
	h.Hashes[len(h.Hashes)-1].Hash++
	return nil
}
