package history_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/history/historytest"
)

// legal are strange things that etcd may do, and clients may see.
var legal = []struct {
	name string
	do   func(h *history.History)
}{
	{"a lease that lives far longer, as when leaders change", func(h *history.History) { earlyBy(-30 * time.Second)(h) }},
	{"a lease that has more time left than it was granted", func(h *history.History) {
		add(h, history.Operation{Kind: history.LeaseGrant, Lease: 99, TTL: 5})
		add(h, history.Operation{Kind: history.LeaseTTL, Lease: 99, TTL: 6})
	}},
	{"a lease granted again when it is over", func(h *history.History) {
		earlyBy(-time.Second)(h)
		add(h, history.Operation{Kind: history.LeaseGrant, Lease: 99, TTL: 5})
		add(h, history.Operation{Kind: history.LeaseRenew, Lease: 99, TTL: 5})
		putWith(h, 99)
	}},
	{"a lease granted again when no answer came", func(h *history.History) {
		add(h, history.Operation{Kind: history.LeaseGrant, Lease: 99, TTL: 5})
		o := &h.Operations[len(h.Operations)-1]
		o.Outcome, o.Return = history.Unknown, history.Never
		add(h, history.Operation{Kind: history.LeaseGrant, Lease: 99, TTL: 5})
	}},
	{"a renewal while the lease is revoked", func(h *history.History) {
		add(h, history.Operation{Kind: history.LeaseGrant, Lease: 99, TTL: 60})
		add(h, history.Operation{Kind: history.LeaseRevoke, Lease: 99})
		revoked := h.Operations[len(h.Operations)-1]
		add(h, history.Operation{Kind: history.LeaseRenew, Lease: 99, TTL: 60})
		h.Operations[len(h.Operations)-1].Call = revoked.Call
		add(h, history.Operation{Kind: history.LeaseRenew, Lease: 99, TTL: -1})
		h.Operations[len(h.Operations)-1].Call = revoked.Call
	}},
	{"a revoked lease that another member still counts", func(h *history.History) {
		add(h, history.Operation{Kind: history.LeaseGrant, Lease: 99, TTL: 60})
		add(h, history.Operation{Kind: history.LeaseRevoke, Lease: 99})
		add(h, history.Operation{Kind: history.LeaseTTL, Lease: 99, TTL: 58})
	}},
	{"reads of what is compacted, at a member that is behind, and at its edge", func(h *history.History) {
		_, rev := afterEnd(h)
		key := historytest.Prefix + "k00001"
		add(h, history.Operation{Kind: history.Compact, Revision: rev - 10})
		compacted := h.Operations[len(h.Operations)-1]
		add(h, history.Operation{Kind: history.Range, Then: rangeOf(key, "", rev-10), Results: []history.Result{heldAt(h, rev-10)}})
		add(h, history.Operation{Kind: history.Range, Serializable: true, Then: rangeOf(key, "", rev-20), Results: []history.Result{heldAt(h, rev-20)}})
		add(h, history.Operation{Kind: history.Range, Then: rangeOf(key, "", rev-20), Results: []history.Result{heldAt(h, rev-20)}})
		h.Operations[len(h.Operations)-1].Call = compacted.Call
	}},
	{"a truth watch that goes on at another member, a little before where it broke", func(h *history.History) {
		first := h.Watches[0]
		n := len(first.Responses) / 2
		second := first
		second.ID, second.Endpoint = 1001, "m3"
		second.Responses = slices.Clone(first.Responses[n-3:])
		second.StartRevision = second.Responses[0].Events[0].KV.ModRevision
		first.Responses = first.Responses[:n]
		h.Watches = append([]history.Watch{first, second}, h.Watches[1:]...)
	}},
	{"progress that is told twice, and of old", func(h *history.History) {
		w := &h.Watches[1]
		for r := 5; r < len(w.Responses); r += 7 {
			w.Responses = slices.Insert(w.Responses, r, history.WatchResponse{At: w.Responses[r-1].At, Revision: w.Responses[r-1].Revision - 2, Progress: true})
		}
	}},
	{"a revision in marked fragments", func(h *history.History) {
		w := &h.Watches[1]
		for r := len(w.Responses) - 1; r > 0; r-- {
			if one := w.Responses[r]; len(one.Events) > 1 {
				rest := one
				rest.Events = one.Events[1:]
				w.Responses[r].Events, w.Responses[r].Fragment = one.Events[:1], true
				w.Responses = slices.Insert(w.Responses, r+1, rest)
			}
		}
	}},
	{"a watch that ends in the middle of a revision", func(h *history.History) {
		w := &h.Watches[1]
		for r := len(w.Responses) / 2; ; r++ {
			if n := len(w.Responses[r].Events); n > 1 && w.Responses[r].Events[n-2].KV.ModRevision == w.Responses[r].Events[n-1].KV.ModRevision {
				w.Responses[r].Events, w.Responses[r].Fragment = w.Responses[r].Events[:n-1], true
				w.Responses = w.Responses[:r+1]
				return
			}
		}
	}},
	{"two unanswered puts of one value that both happen", func(h *history.History) {
		for range 2 {
			putWith(h, 0)
			o := &h.Operations[len(h.Operations)-1]
			forget(o)
		}
		a, b := &h.Operations[len(h.Operations)-2], &h.Operations[len(h.Operations)-1]
		b.Then = a.Then
		for i := range h.Watches {
			w := &h.Watches[i]
			r := &w.Responses[len(w.Responses)-1]
			if len(r.Events) == 1 && strings.HasPrefix(r.Events[0].KV.Key, historytest.Prefix+"zz") {
				before := w.Responses[len(w.Responses)-2].Events[0].KV
				e := &r.Events[0]
				e.Create, e.KV.Key, e.KV.Value, e.KV.Version, e.KV.CreateRevision = false, before.Key, before.Value, 2, before.CreateRevision
				if w.PrevKV {
					e.PrevKV = &before
				}
			}
		}
	}},
	{"transactions of nothing", func(h *history.History) {
		add(h, history.Operation{Kind: history.Txn, Succeeded: true})
		add(h, history.Operation{Kind: history.Txn, If: []history.Condition{{Key: historytest.Prefix + "nobody", Field: history.FieldMod, Op: "!=", Number: 0}}})
	}},
	{"ranges of nothing, and from behind their end", func(h *history.History) {
		add(h, history.Operation{Kind: history.Range, Then: rangeOf(historytest.Prefix+"x", historytest.Prefix+"y", 0), Results: []history.Result{{}}})
		add(h, history.Operation{Kind: history.Range, Then: rangeOf(historytest.Prefix+"k1", historytest.Prefix+"k", 0), Results: []history.Result{{}}})
		add(h, history.Operation{Kind: history.Delete, Then: []history.Request{{Kind: history.Delete, Key: historytest.Prefix + "x", End: historytest.Prefix + "y"}}, Results: []history.Result{{}}})
	}},
	{"a delete of nothing, and revisions of others in between", func(h *history.History) {
		_, rev := afterEnd(h)
		add(h, history.Operation{Kind: history.Delete, Revision: rev + 1, Then: []history.Request{{Kind: history.Delete, Key: historytest.Prefix + "nobody"}}, Results: []history.Result{{}}})
		add(h, history.Operation{Kind: history.Compact, Revision: rev + 2})
	}},
	{"clients that give up at a time", func(h *history.History) {
		for i := range h.Operations {
			if o := &h.Operations[i]; o.Outcome == history.Unknown {
				o.Return = o.Call + 1000
			}
		}
	}},
	{"lines in any order", func(h *history.History) {
		slices.Reverse(h.Operations)
		slices.Reverse(h.Watches)
	}},
	{"refused calls of all kinds", func(h *history.History) {
		for i := range h.Operations {
			o := h.Operations[i]
			if i%10 == 0 && o.Call > 0 {
				o.Client, o.Outcome, o.Error, o.Results, o.Revision, o.Succeeded = 500+i, history.Failed, "etcdserver: too many requests", nil, 0, false
				for _, branch := range []*[]history.Request{&o.Then, &o.Else} {
					*branch = slices.Clone(*branch)
					for j := range *branch {
						if (*branch)[j].Kind == history.Put {
							(*branch)[j].Value += "refused"
						}
					}
				}
				h.Operations = append(h.Operations, o)
			}
		}
	}},
}

// TestLegal: none of it is found broken.
func TestLegal(t *testing.T) {
	for _, l := range legal {
		t.Run(l.name, func(t *testing.T) {
			for seed := range uint64(2) {
				h := historytest.Generate(700+seed, 2000, 2+int(seed)*5)
				l.do(h)
				got, err := history.Read(bytes.NewReader(written(t, h)))
				require.NoError(t, err)
				r := check(t, got, history.Options{NoExcerpts: true})
				if !r.OK {
					t.Fatalf("seed %d was found broken:\n%s", seed, said(r))
				}
			}
		})
	}
}
