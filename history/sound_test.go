package history_test

import (
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/history/historytest"
)

// knowLess are ways to know less of what happened, which makes nothing wrong.
var knowLess = []struct {
	name string
	do   func(h *history.History, seed uint64)
}{
	{"no watch", func(h *history.History, _ uint64) { h.Watches = nil }},
	{"no truth watch", func(h *history.History, _ uint64) { h.Watches = h.Watches[1:] }},
	{"the truth watch alone", func(h *history.History, _ uint64) { h.Watches = h.Watches[:1] }},
	{"watches of some keys alone", func(h *history.History, _ uint64) {
		h.Watches = slices.DeleteFunc(h.Watches, func(w history.Watch) bool { return w.Key == historytest.Prefix })
	}},
	{"the truth watch ends in the middle", func(h *history.History, _ uint64) {
		h.Watches = h.Watches[:1]
		h.Watches[0].Responses = h.Watches[0].Responses[:len(h.Watches[0].Responses)/2]
	}},
	{"the truth watch has a gap", func(h *history.History, seed uint64) {
		first := h.Watches[0]
		n := len(first.Responses)
		second := first
		second.ID, second.StartRevision = 1001, 0
		second.Responses = first.Responses[n/2+int(seed%20):]
		first.Responses = first.Responses[:n/2]
		h.Watches = append([]history.Watch{first, second}, h.Watches[len(h.Watches)-2:]...)
	}},
	{"reads were not recorded", func(h *history.History, _ uint64) {
		h.Operations = slices.DeleteFunc(h.Operations, func(o history.Operation) bool { return o.Kind == history.Range })
	}},
	{"answers were lost", func(h *history.History, seed uint64) {
		for i := range h.Operations {
			if o := &h.Operations[i]; (uint64(i)+seed)%7 == 0 && o.Kind != history.LeaseGrant && o.Outcome == history.OK {
				forget(o)
			}
		}
	}},
	{"answers were lost, and there is no watch", func(h *history.History, seed uint64) {
		h.Watches = nil
		for i := range h.Operations {
			if o := &h.Operations[i]; (uint64(i)+seed)%5 == 0 && o.Kind != history.LeaseGrant && o.Outcome == history.OK {
				forget(o)
			}
		}
	}},
	{"the recorder died", func(h *history.History, seed uint64) {
		h.Torn = "the file ends in the middle"
		end := h.Operations[len(h.Operations)*2/3].Return
		if end == history.Never {
			end = h.Operations[len(h.Operations)*2/3].Call
		}
		h.Operations = slices.DeleteFunc(h.Operations, func(o history.Operation) bool {
			return o.Return > end && (o.Outcome != history.Unknown || o.Call > end)
		})
		h.Hashes = nil
		for i := range h.Watches {
			h.Watches[i].Responses = slices.DeleteFunc(h.Watches[i].Responses, func(r history.WatchResponse) bool { return r.At > end-int64(seed) })
		}
	}},
}

func forget(o *history.Operation) {
	o.Outcome, o.Return, o.Results, o.Revision, o.Succeeded = history.Unknown, history.Never, nil, 0, false
	if o.Kind == history.LeaseRenew || o.Kind == history.LeaseTTL {
		o.TTL = 0
	}
}

// TestKnowingLess: a correct history of which less is known is not found broken.
func TestKnowingLess(t *testing.T) {
	seeds := uint64(8)
	if n, err := strconv.ParseUint(os.Getenv("QUORATE_SEEDS"), 10, 32); err == nil {
		seeds = n
	}
	for _, less := range knowLess {
		t.Run(less.name, func(t *testing.T) {
			for seed := range seeds {
				h := historytest.Generate(seed+1000, 1200+int(seed%5)*500, 1+int(seed%20))
				less.do(h, seed)
				r := check(t, h, history.Options{NoExcerpts: true})
				if !r.OK {
					t.Fatalf("seed %d was found broken:\n%s", seed, said(r))
				}
			}
		})
	}
	for seed := range seeds {
		h := historytest.Generate(seed+math.MaxInt32, 2000, 1+int(seed%40))
		if r := check(t, h, history.Options{NoExcerpts: true}); !r.OK {
			t.Fatalf("seed %d was found broken:\n%s", seed, said(r))
		}
	}
}

// TestBareBeginning: etcd may leave the previous values out of what opens a watch; it
// is noted, and breaks no promise. Later they must be there.
func TestBareBeginning(t *testing.T) {
	noted := 0
	for seed := range uint64(40) {
		h := historytest.Generate(seed, 1500, 8)
		for i := range h.Watches {
			w := &h.Watches[i]
			n := slices.IndexFunc(w.Responses, func(r history.WatchResponse) bool { return len(r.Events) > 0 && r.Events[0].PrevKV != nil })
			if !w.PrevKV || w.Truth || n < 0 {
				continue
			}
			// As if it had begun there.
			w.Responses = w.Responses[n:]
			n, w.StartRevision = 0, w.Responses[0].Events[0].KV.ModRevision
			w.Responses[n].Events[0].PrevKV = nil
			r := check(t, h, history.Options{})
			if !r.OK {
				t.Fatalf("seed %d: %s", seed, said(r))
			}
			// It may have been compacted, too, which says nothing of how it began.
			if slices.ContainsFunc(r.Notes, func(s string) bool { return strings.Contains(s, "1 in all") }) {
				noted++
			}
			break
		}
	}
	if noted == 0 {
		t.Fatal("nothing was noted")
	}
}
