package history_test

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/history/historytest"
)

// edit is one way to damage a record by hand, and the rules of which one must tell.
type edit struct {
	name string
	do   func(h *history.History) bool // false: there is no place for it
	want []history.Rule
}

// anyOp edits the operation in the middle of those that fit.
func anyOp(fits func(o *history.Operation) bool, do func(o *history.Operation)) func(h *history.History) bool {
	return func(h *history.History) bool {
		o := middle(h, fits)
		if o == nil {
			return false
		}
		do(o)
		return true
	}
}

func middle(h *history.History, fits func(o *history.Operation) bool) *history.Operation {
	var all []*history.Operation
	for i := range h.Operations {
		if fits(&h.Operations[i]) {
			all = append(all, &h.Operations[i])
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[len(all)/2]
}

func answered(kind history.Kind) func(o *history.Operation) bool {
	return func(o *history.Operation) bool {
		return o.Kind == kind && o.Outcome == history.OK && (kind != history.Range || !o.Serializable && o.Then[0].Revision == 0)
	}
}

func both(a, b func(o *history.Operation) bool) func(o *history.Operation) bool {
	return func(o *history.Operation) bool { return a(o) && b(o) }
}

func found(o *history.Operation) bool { return len(o.Results) > 0 && len(o.Results[0].KVs) > 0 }

// anyEvent edits an event in the middle of a watch.
func anyEvent(watch func(w *history.Watch) bool, fits func(r *history.WatchResponse, e int) bool, do func(w *history.Watch, r, e int)) func(h *history.History) bool {
	return func(h *history.History) bool {
		for i := range h.Watches {
			w := &h.Watches[i]
			if !watch(w) {
				continue
			}
			var all [][2]int
			for r := range w.Responses {
				for e := range w.Responses[r].Events {
					if fits(&w.Responses[r], e) {
						all = append(all, [2]int{r, e})
					}
				}
			}
			if len(all) == 0 {
				continue
			}
			at := all[len(all)/2]
			do(w, at[0], at[1])
			return true
		}
		return false
	}
}

func follows(w *history.Watch) bool { return !w.Truth && w.PrevKV && len(w.Responses) > 10 }
func truth(w *history.Watch) bool   { return w.Truth }

func isPut(r *history.WatchResponse, e int) bool { return !r.Events[e].Deleted }
func isUpdate(r *history.WatchResponse, e int) bool {
	return !r.Events[e].Deleted && r.Events[e].KV.Version > 1
}
func isDelete(r *history.WatchResponse, e int) bool { return r.Events[e].Deleted }
func ofSeveral(r *history.WatchResponse, e int) bool {
	return e+1 < len(r.Events) && r.Events[e].KV.ModRevision == r.Events[e+1].KV.ModRevision
}
func event(w *history.Watch, r, e int) *history.Event { return &w.Responses[r].Events[e] }

func cutEvent(w *history.Watch, r, e int) {
	w.Responses[r].Events = slices.Delete(slices.Clone(w.Responses[r].Events), e, e+1)
	if len(w.Responses[r].Events) == 0 {
		w.Responses = slices.Delete(w.Responses, r, r+1)
	}
}

func lastEvent(w *history.Watch) (r, e int) {
	for r = len(w.Responses) - 1; r >= 0; r-- {
		if n := len(w.Responses[r].Events); n > 0 {
			return r, n - 1
		}
	}
	return -1, -1
}

// afterEnd is later than all that happened.
func afterEnd(h *history.History) (at, rev int64) {
	for i := range h.Operations {
		o := &h.Operations[i]
		if o.Return != history.Never {
			at = max(at, o.Return)
		}
	}
	for i := range h.Watches {
		for _, r := range h.Watches[i].Responses {
			at, rev = max(at, r.At), max(rev, r.Revision)
		}
	}
	return at + int64(time.Second), rev
}

func add(h *history.History, o history.Operation) {
	at, rev := afterEnd(h)
	o.Client, o.Endpoint, o.Outcome = 1, "m1", history.OK
	o.Call, o.Return = at, at+int64(time.Millisecond)
	if o.Revision == 0 {
		o.Revision = rev
	}
	h.Operations = append(h.Operations, o)
}

func rangeOf(key, end string, at int64) []history.Request {
	return []history.Request{{Kind: history.Range, Key: key, End: end, Revision: at}}
}

var edits = []edit{
	{"two events swapped across watches", func(h *history.History) bool {
		var a, b *history.Event
		for i := range h.Watches {
			if w := &h.Watches[i]; follows(w) {
				for r := 5; r < len(w.Responses) && (a == nil || b == nil); r++ {
					if len(w.Responses[r].Events) == 0 {
						continue
					}
					if a == nil {
						a = &w.Responses[r].Events[0]
						break
					}
					if e := &w.Responses[r].Events[0]; e.KV.ModRevision > a.KV.ModRevision+20 {
						b = e
					}
				}
			}
		}
		if a == nil || b == nil {
			return false
		}
		*a, *b = *b, *a
		return true
	}, []history.Rule{history.WatchOrder, history.WatchDuplicate}},
	{"event of a txn twice in one message", anyEvent(follows, ofSeveral, func(w *history.Watch, r, e int) {
		w.Responses[r].Events = slices.Insert(slices.Clone(w.Responses[r].Events), e, w.Responses[r].Events[e])
	}), []history.Rule{history.WatchDuplicate}},
	{"the last event alone left out", anyEventOf(follows, func(w *history.Watch) { r, e := lastEvent(w); cutEvent(w, r, e) }), []history.Rule{history.WatchProgress, history.WatchMissing}},
	{"the last event of the truth left out", anyEventOf(truth, func(w *history.Watch) { r, e := lastEvent(w); cutEvent(w, r, e) }), []history.Rule{history.WatchProgress, history.LostWrite, history.WatchMissing}},
	{"one of several events of a revision left out", anyEvent(follows, ofSeveral, cutEvent), []history.Rule{history.WatchMissing}},
	{"one of several events left out of the truth", anyEvent(truth, ofSeveral, cutEvent), []history.Rule{history.WatchMissing, history.SplitTxn}},
	{"progress too high in the middle", anyEventOf(follows, func(w *history.Watch) {
		for r := len(w.Responses) / 2; r < len(w.Responses); r++ {
			if w.Responses[r].Progress {
				w.Responses[r].Revision += 50
				return
			}
		}
	}), []history.Rule{history.WatchProgress, history.RevisionOrder, history.StaleRead}},
	{"another create revision before", anyEvent(follows, isUpdate, func(w *history.Watch, r, e int) {
		p := *event(w, r, e).PrevKV
		p.CreateRevision--
		event(w, r, e).PrevKV = &p
	}), []history.Rule{history.WatchPrevKV}},
	{"another previous value of a delete", anyEvent(follows, isDelete, func(w *history.Watch, r, e int) {
		p := *event(w, r, e).PrevKV
		p.Value = "other"
		event(w, r, e).PrevKV = &p
	}), []history.Rule{history.WatchPrevKV}},
	{"another version of an event", anyEvent(follows, isPut, func(w *history.Watch, r, e int) { event(w, r, e).KV.Version++ }), []history.Rule{history.WrongVersion}},
	{"another version of an event of the truth", anyEvent(truth, isPut, func(w *history.Watch, r, e int) { event(w, r, e).KV.Version++ }), []history.Rule{history.WrongVersion}},
	{"another lease of an event", anyEvent(follows, isPut, func(w *history.Watch, r, e int) { event(w, r, e).KV.Lease = 77 }), []history.Rule{history.LeaseAttach}},
	{"a delete told as new", anyEvent(follows, isDelete, func(w *history.Watch, r, e int) { event(w, r, e).Create = true }), []history.Rule{history.WatchCreate}},
	{"a put told as a delete", anyEvent(follows, isUpdate, func(w *history.Watch, r, e int) {
		event(w, r, e).Deleted = true
		event(w, r, e).KV = history.KeyValue{Key: event(w, r, e).KV.Key, ModRevision: event(w, r, e).KV.ModRevision}
	}), []history.Rule{history.WatchPhantom}},
	{"an event from before a watch from now on", func(h *history.History) bool {
		for i := range h.Watches {
			w := &h.Watches[i]
			if w.StartRevision != 0 || w.End == "" || len(w.Responses) < 3 || !w.Responses[0].Created {
				continue
			}
			for _, r := range h.Watches[0].Responses {
				for _, e := range r.Events {
					if e.KV.ModRevision == w.Responses[0].Revision && e.KV.Key >= w.Key && e.KV.Key < w.End || e.KV.ModRevision < w.Responses[0].Revision && e.KV.ModRevision > w.Responses[0].Revision-9 && e.KV.Key >= w.Key && e.KV.Key < w.End {
						w.Responses[1].Events = append([]history.Event{e}, w.Responses[1].Events...)
						return true
					}
				}
			}
		}
		return false
	}, []history.Rule{history.WatchResume}},
	{"a delete that counts one more", anyOp(both(answered(history.Delete), func(o *history.Operation) bool { return o.Results[0].Deleted > 0 }), func(o *history.Operation) { o.Results[0].Deleted++ }), []history.Rule{history.WrongRead}},
	{"a delete that counts nothing", anyOp(both(answered(history.Delete), func(o *history.Operation) bool { return o.Results[0].Deleted > 0 }), func(o *history.Operation) { o.Results[0].Deleted = 0 }), []history.Rule{history.WrongRead, history.PhantomWrite}},
	{"a delete of nothing that counts one", anyOp(both(answered(history.Delete), func(o *history.Operation) bool { return o.Results[0].Deleted == 0 }), func(o *history.Operation) { o.Results[0].Deleted = 1 }), []history.Rule{history.WrongRead, history.RevisionOrder}},
	{"a count too low", anyOp(both(answered(history.Range), found), func(o *history.Operation) { o.Results[0].Count-- }), []history.Rule{history.WrongRead}},
	{"more where there is no more", anyOp(both(answered(history.Range), found), func(o *history.Operation) { o.Results[0].More = !o.Results[0].More }), []history.Rule{history.WrongRead}},
	{"a limit that is passed", anyOp(both(answered(history.Range), func(o *history.Operation) bool { return found(o) && len(o.Results[0].KVs) > 1 }), func(o *history.Operation) {
		o.Then[0].Limit = int64(len(o.Results[0].KVs) - 1)
		o.Results[0].More = true
	}), []history.Rule{history.WrongRead}},
	{"a limit that is not reached", anyOp(both(answered(history.Range), func(o *history.Operation) bool { return found(o) && o.Results[0].More }), func(o *history.Operation) {
		o.Results[0].KVs = o.Results[0].KVs[:len(o.Results[0].KVs)-1]
	}), []history.Rule{history.WrongRead, history.StaleRead, history.LostWrite}},
	{"a range out of order", anyOp(both(answered(history.Range), func(o *history.Operation) bool { return found(o) && len(o.Results[0].KVs) > 1 }), func(o *history.Operation) {
		kvs := slices.Clone(o.Results[0].KVs)
		kvs[0], kvs[1] = kvs[1], kvs[0]
		o.Results[0].KVs = kvs
	}), []history.Rule{history.WrongRead}},
	{"a key read with another mod revision", anyOp(both(answered(history.Range), found), func(o *history.Operation) {
		o.Results[0].KVs = slices.Clone(o.Results[0].KVs)
		o.Results[0].KVs[0].ModRevision--
	}), []history.Rule{history.WrongRead, history.StaleRead, history.LostWrite, history.WrongVersion, history.PhantomWrite, history.DuplicateWrite}},
	{"a key read with another create revision", anyOp(both(answered(history.Range), found), func(o *history.Operation) {
		o.Results[0].KVs = slices.Clone(o.Results[0].KVs)
		o.Results[0].KVs[0].CreateRevision--
	}), []history.Rule{history.WrongVersion}},
	{"a key read with another lease", anyOp(both(answered(history.Range), found), func(o *history.Operation) {
		o.Results[0].KVs = slices.Clone(o.Results[0].KVs)
		o.Results[0].KVs[0].Lease = 5
	}), []history.Rule{history.LeaseAttach}},
	{"a serializable read from the future", anyOp(func(o *history.Operation) bool { return o.Serializable && o.Outcome == history.OK && o.Revision > 500 }, func(o *history.Operation) { o.Revision += 100 }), []history.Rule{history.WrongRead, history.RevisionOrder, history.RevisionBack}},
	{"a serializable read of another past", anyOp(func(o *history.Operation) bool {
		return o.Serializable && o.Outcome == history.OK && found(o) && o.Revision == o.Results[0].KVs[0].ModRevision || o.Serializable && found(o) && o.Results[0].KVs[0].Version > 1
	}, func(o *history.Operation) { o.Revision = o.Results[0].KVs[0].ModRevision - 1 }), []history.Rule{history.WrongRead, history.FutureRead, history.RevisionBack}},
	{"a linearizable read one revision late", func(h *history.History) bool {
		slices.SortFunc(h.Operations, func(a, b history.Operation) int { return cmp.Compare(a.Return, b.Return) })
		for i := range h.Operations {
			o := &h.Operations[i]
			if answered(history.Range)(o) && o.Revision > 400 && i > 0 {
				for j := range i {
					if p := &h.Operations[j]; p.Outcome == history.OK && p.Return < o.Call && p.Revision == o.Revision && p.Kind == history.Put {
						o.Revision--
						return true
					}
				}
			}
		}
		return false
	}, []history.Rule{history.StaleRead}},
	{"a txn in the other branch", anyOp(func(o *history.Operation) bool {
		return o.Kind == history.Txn && o.Outcome == history.OK && !o.Succeeded && len(o.Else) == 2 && len(o.Then) == 2 && len(o.If) > 0 && o.Else[0].Kind == history.Range
	}, func(o *history.Operation) { o.Succeeded = true; o.Results = []history.Result{{}, {}} }), []history.Rule{history.TxnOutcome}},
	{"a txn that reads its own put with another count", anyOp(func(o *history.Operation) bool {
		return o.Kind == history.Txn && o.Outcome == history.OK && len(o.If) == 0 && len(o.Then) == 3
	}, func(o *history.Operation) { o.Results[2].Count = 7 }), []history.Rule{history.WrongRead}},
	{"a txn that does not read its own put", anyOp(func(o *history.Operation) bool {
		return o.Kind == history.Txn && o.Outcome == history.OK && len(o.If) == 0 && len(o.Then) == 3
	}, func(o *history.Operation) { o.Results[2] = history.Result{} }), []history.Rule{history.WrongRead, history.LostWrite, history.StaleRead}},
	{"a put that gets the revision before", anyOp(answered(history.Put), func(o *history.Operation) { o.Revision-- }), []history.Rule{history.WrongVersion, history.RevisionOrder}},
	{"a put that gets revision 0", anyOp(answered(history.Put), func(o *history.Operation) { o.Revision = 0 }), []history.Rule{history.WrongVersion, history.RevisionOrder}},
	{"a refused put that happened", anyOp(answered(history.Put), func(o *history.Operation) {
		o.Outcome, o.Error, o.Results, o.Revision = history.Failed, "etcdserver: too many requests", nil, 0
	}), []history.Rule{history.RefusedWrite}},
	{"a refused txn that happened", anyOp(both(answered(history.Txn), func(o *history.Operation) bool { return o.Succeeded && o.Then[0].Kind == history.Put }), func(o *history.Operation) {
		o.Outcome, o.Error, o.Results, o.Revision, o.Succeeded = history.Failed, "etcdserver: too many requests", nil, 0, false
	}), []history.Rule{history.RefusedWrite}},
	{"a refused delete that happened", anyOp(both(answered(history.Delete), func(o *history.Operation) bool { return o.Results[0].Deleted > 0 && o.Then[0].End == "" }), func(o *history.Operation) {
		o.Outcome, o.Error, o.Results, o.Revision = history.Failed, "etcdserver: too many requests", nil, 0
	}), []history.Rule{history.RefusedWrite}},
	{"an operation that is not in the record", func(h *history.History) bool {
		i := slices.IndexFunc(h.Operations[500:], func(o history.Operation) bool { return answered(history.Put)(&o) })
		h.Operations = slices.Delete(h.Operations, 500+i, 501+i)
		return true
	}, []history.Rule{history.PhantomWrite}},
	{"a read at a compacted revision", func(h *history.History) bool {
		at, rev := afterEnd(h)
		h.Operations = append(h.Operations, history.Operation{Client: 1, Endpoint: "m1", Outcome: history.OK, Kind: history.Compact, Call: at, Return: at + 1, Revision: rev})
		held := heldAt(h, rev-40)
		add(h, history.Operation{Kind: history.Range, Then: rangeOf(historytest.Prefix+"k00001", "", rev-40), Results: []history.Result{held}})
		return true
	}, []history.Rule{history.StaleRead}},
	{"a read of a revision to come", func(h *history.History) bool {
		_, rev := afterEnd(h)
		held := heldAt(h, rev)
		add(h, history.Operation{Kind: history.Range, Then: rangeOf(historytest.Prefix+"k00001", "", rev+40), Results: []history.Result{held}})
		return true
	}, []history.Rule{history.WrongRead}},
	{"a lease granted twice", func(h *history.History) bool {
		add(h, history.Operation{Kind: history.LeaseGrant, Lease: 99, TTL: 60})
		add(h, history.Operation{Kind: history.LeaseGrant, Lease: 99, TTL: 60})
		return true
	}, []history.Rule{history.LeaseEarly}},
	{"a lease renewed that is revoked", func(h *history.History) bool {
		add(h, history.Operation{Kind: history.LeaseGrant, Lease: 99, TTL: 60})
		add(h, history.Operation{Kind: history.LeaseRevoke, Lease: 99})
		add(h, history.Operation{Kind: history.LeaseRenew, Lease: 99, TTL: 60})
		return true
	}, []history.Rule{history.LeaseBack}},
	{"a lease renewed that is over", func(h *history.History) bool {
		earlyBy(-time.Second)(h)
		add(h, history.Operation{Kind: history.LeaseRenew, Lease: 99, TTL: 10})
		return true
	}, []history.Rule{history.LeaseBack}},
	{"a renewal that is told that the lease is over too early", func(h *history.History) bool {
		add(h, history.Operation{Kind: history.LeaseGrant, Lease: 99, TTL: 60})
		add(h, history.Operation{Kind: history.LeaseRenew, Lease: 99, TTL: -1})
		return true
	}, []history.Rule{history.LeaseEarly}},
	{"a put with a lease that is revoked", func(h *history.History) bool {
		add(h, history.Operation{Kind: history.LeaseGrant, Lease: 99, TTL: 60})
		add(h, history.Operation{Kind: history.LeaseRevoke, Lease: 99})
		putWith(h, 99)
		return true
	}, []history.Rule{history.LeaseAttach}},
	{"a txn that puts with a lease that is revoked", func(h *history.History) bool {
		add(h, history.Operation{Kind: history.LeaseGrant, Lease: 99, TTL: 60})
		add(h, history.Operation{Kind: history.LeaseRevoke, Lease: 99})
		putWith(h, 99)
		o := &h.Operations[len(h.Operations)-1]
		o.Kind, o.Succeeded = history.Txn, true
		return true
	}, []history.Rule{history.LeaseAttach}},
	{"an unanswered put with a lease that is revoked", func(h *history.History) bool {
		add(h, history.Operation{Kind: history.LeaseGrant, Lease: 99, TTL: 60})
		add(h, history.Operation{Kind: history.LeaseRevoke, Lease: 99})
		putWith(h, 99)
		forget(&h.Operations[len(h.Operations)-1])
		return true
	}, []history.Rule{history.LeaseAttach}},
	{"a put with a lease before it is granted", func(h *history.History) bool {
		putWith(h, 99)
		add(h, history.Operation{Kind: history.LeaseGrant, Lease: 99, TTL: 60})
		return true
	}, []history.Rule{history.LeaseAttach}},
	{"a key that stays behind its revoked lease", func(h *history.History) bool {
		add(h, history.Operation{Kind: history.LeaseGrant, Lease: 99, TTL: 60})
		putWith(h, 99)
		add(h, history.Operation{Kind: history.LeaseRevoke, Lease: 99})
		return true
	}, []history.Rule{history.LeaseKeyStays}},
	{"a lease granted at an older revision", func(h *history.History) bool {
		_, rev := afterEnd(h)
		add(h, history.Operation{Kind: history.LeaseGrant, Lease: 99, TTL: 60, Revision: rev - 5})
		return true
	}, []history.Rule{history.RevisionOrder}},
	{"a lease that ends a little early", earlyBy(20 * time.Millisecond), []history.Rule{history.LeaseEarly}},
	{"a hash that differs", func(h *history.History) bool { h.Hashes[2].Hash++; return true }, []history.Rule{history.HashDiffers}},
	{"a put with another previous value", anyOp(func(o *history.Operation) bool {
		return o.Kind == history.Put && o.Outcome == history.OK && o.Then[0].PrevKV && found(o)
	}, func(o *history.Operation) {
		o.Results = []history.Result{{KVs: []history.KeyValue{o.Results[0].KVs[0]}}}
		o.Results[0].KVs[0].Value = "other"
	}), []history.Rule{history.WrongValue}},
	{"a put without the previous value it asked for", anyOp(func(o *history.Operation) bool {
		return o.Kind == history.Put && o.Outcome == history.OK && o.Then[0].PrevKV && found(o)
	}, func(o *history.Operation) { o.Results = []history.Result{{}} }), []history.Rule{history.WrongRead, history.LostWrite, history.StaleRead}},
	{"a deletion of a range with another previous value", anyOp(both(answered(history.Delete), func(o *history.Operation) bool { return len(o.Results[0].KVs) > 0 }), func(o *history.Operation) {
		o.Results[0].KVs = slices.Clone(o.Results[0].KVs)
		o.Results[0].KVs[0].Version++
	}), []history.Rule{history.WrongVersion}},
	{"a deletion of a range that counts one more", anyOp(both(answered(history.Delete), func(o *history.Operation) bool { return o.Then[0].End != "" && o.Results[0].Deleted > 0 }), func(o *history.Operation) { o.Results[0].Deleted++ }), []history.Rule{history.WrongRead}},
	{"the last write of a client, and all that was seen of it", func(h *history.History) bool {
		last := map[int]*history.Operation{}
		for i := range h.Operations {
			if o := &h.Operations[i]; answered(history.Put)(o) && (last[o.Client] == nil || last[o.Client].Call < o.Call) {
				last[o.Client] = o
			}
		}
		rev := last[3].Revision
		for i := range h.Watches {
			for r := range h.Watches[i].Responses {
				resp := &h.Watches[i].Responses[r]
				resp.Events = slices.DeleteFunc(slices.Clone(resp.Events), func(e history.Event) bool { return e.KV.ModRevision == rev })
			}
		}
		return true
	}, []history.Rule{history.LostWrite}},
	{"a serializable read of the same revision with an older value", anyOp(func(o *history.Operation) bool {
		return o.Serializable && found(o) && o.Results[0].KVs[0].Version > 1
	}, func(o *history.Operation) {
		o.Results = []history.Result{{Count: 1, KVs: slices.Clone(o.Results[0].KVs)}}
		o.Results[0].KVs[0].Version--
		o.Results[0].KVs[0].ModRevision--
	}), []history.Rule{history.WrongRead, history.PhantomWrite, history.WrongVersion}},
	{"a key left behind by a lease that is over", func(h *history.History) bool {
		earlyBy(-time.Second)(h)
		_, rev := afterEnd(h)
		key := fmt.Sprintf("%szz%d", historytest.Prefix, rev-1)
		add(h, history.Operation{Kind: history.Range, Then: rangeOf(key, "", 0), Results: []history.Result{{Count: 1, KVs: []history.KeyValue{{Key: key, Value: key, Version: 1, CreateRevision: rev - 1, ModRevision: rev - 1, Lease: 99}}}}})
		return true
	}, []history.Rule{history.WrongRead, history.StaleRead}},
	{"a lease of two keys that takes one", func(h *history.History) bool {
		add(h, history.Operation{Kind: history.LeaseGrant, Lease: 99, TTL: 1})
		putWith(h, 99)
		putWith(h, 99)
		at, rev := afterEnd(h)
		for i := range h.Watches {
			if w := &h.Watches[i]; w.Key == historytest.Prefix && !w.NoDelete && len(w.Responses) > 3 {
				e := history.Event{Deleted: true, KV: history.KeyValue{Key: fmt.Sprintf("%szz%d", historytest.Prefix, rev), ModRevision: rev + 1}}
				if w.PrevKV {
					e.PrevKV = &history.KeyValue{Key: e.KV.Key, Value: e.KV.Key, Version: 1, CreateRevision: rev, ModRevision: rev, Lease: 99}
				}
				w.Responses = append(w.Responses, history.WatchResponse{At: at + int64(time.Minute), Revision: rev + 1, Events: []history.Event{e}})
			}
		}
		return true
	}, []history.Rule{history.PhantomWrite}},
	{"an unanswered put that happens twice", func(h *history.History) bool {
		putWith(h, 0)
		forget(&h.Operations[len(h.Operations)-1])
		for i := range h.Watches {
			w := &h.Watches[i]
			r := w.Responses[len(w.Responses)-1]
			if len(r.Events) != 1 || w.Key != historytest.Prefix {
				continue
			}
			e := r.Events[0]
			before := e.KV
			e.Create, e.KV.ModRevision, e.KV.Version = false, e.KV.ModRevision+1, 2
			if w.PrevKV {
				e.PrevKV = &before
			}
			w.Responses = append(w.Responses, history.WatchResponse{At: r.At + 5, Revision: r.Revision + 1, Events: []history.Event{e}})
		}
		return true
	}, []history.Rule{history.DuplicateWrite}},
	{"an unanswered put that happens before it is called", func(h *history.History) bool {
		putWith(h, 0)
		o := &h.Operations[len(h.Operations)-1]
		forget(o)
		o.Call += int64(time.Minute)
		return true
	}, []history.Rule{history.FutureRead, history.RevisionOrder}},
	{"two writes of one revision, the liar first in the file", func(h *history.History) bool {
		o := middle(h, answered(history.Put))
		lie := *o
		lie.Client, lie.Call, lie.Return = 600, o.Call+1, o.Return
		lie.Then = []history.Request{{Kind: history.Put, Key: historytest.Prefix + "k00003", Value: "the lie"}}
		h.Operations = append([]history.Operation{lie}, h.Operations...)
		return true
	}, []history.Rule{history.RevisionOrder}},
	{"every member at the end with another hash", func(h *history.History) bool {
		for i := range h.Hashes {
			h.Hashes[i].Hash += uint32(i)
		}
		return true
	}, []history.Rule{history.HashDiffers}},
	{"compacted beyond what there is", func(h *history.History) bool {
		o := middle(h, answered(history.Put))
		h.Operations = append(h.Operations, history.Operation{Client: 77, Kind: history.Compact, Outcome: history.OK, Call: o.Call - 10, Return: o.Call - 5, Revision: o.Revision + 30})
		return true
	}, []history.Rule{history.RevisionOrder}},
}

func anyEventOf(watch func(w *history.Watch) bool, do func(w *history.Watch)) func(h *history.History) bool {
	return func(h *history.History) bool {
		i := slices.IndexFunc(h.Watches, func(w history.Watch) bool { return watch(&w) })
		do(&h.Watches[i])
		return true
	}
}

// heldAt is what a read of k00001 must find at a revision, by the truth watch.
func heldAt(h *history.History, rev int64) history.Result {
	key := historytest.Prefix + "k00001"
	var res history.Result
	for _, r := range h.Watches[0].Responses {
		for _, e := range r.Events {
			switch {
			case e.KV.Key != key || e.KV.ModRevision > rev:
			case e.Deleted:
				res = history.Result{}
			default:
				res = history.Result{KVs: []history.KeyValue{e.KV}, Count: 1}
			}
		}
	}
	return res
}

// putWith adds a put of a new key, as all watches of everything see it.
func putWith(h *history.History, lease int64) {
	_, rev := afterEnd(h)
	rev++
	key := fmt.Sprintf("%szz%d", historytest.Prefix, rev)
	add(h, history.Operation{Kind: history.Put, Revision: rev, Then: []history.Request{{Kind: history.Put, Key: key, Value: key, Lease: lease}}, Results: []history.Result{{}}})
	at := h.Operations[len(h.Operations)-1].Return
	for i := range h.Watches {
		if w := &h.Watches[i]; w.Key == historytest.Prefix && !w.NoPut && len(w.Responses) > 3 {
			w.Responses = append(w.Responses, history.WatchResponse{At: at, Revision: rev, Events: []history.Event{{Create: true, KV: history.KeyValue{Key: key, Value: key, Version: 1, CreateRevision: rev, ModRevision: rev, Lease: lease}}}})
		}
	}
}

// earlyBy appends a lease whose key goes too early.
func earlyBy(d time.Duration) func(h *history.History) bool {
	return func(h *history.History) bool {
		add(h, history.Operation{Kind: history.LeaseGrant, Lease: 99, TTL: 10})
		granted := h.Operations[len(h.Operations)-1].Call
		putWith(h, 99)
		_, rev := afterEnd(h)
		for i := range h.Watches {
			if w := &h.Watches[i]; w.Key == historytest.Prefix && !w.NoDelete && len(w.Responses) > 3 {
				e := history.Event{Deleted: true, KV: history.KeyValue{Key: fmt.Sprintf("%szz%d", historytest.Prefix, rev), ModRevision: rev + 1}}
				if w.PrevKV {
					e.PrevKV = &history.KeyValue{Key: e.KV.Key, Value: e.KV.Key, Version: 1, CreateRevision: rev, ModRevision: rev, Lease: 99}
				}
				w.Responses = append(w.Responses, history.WatchResponse{At: granted + int64(10*time.Second-d), Revision: rev + 1, Events: []history.Event{e}})
			}
		}
		return true
	}
}

// TestEdits: a correct history that was edited by hand is found broken by the rule
// that says why, also when it was written to a file and read back.
func TestEdits(t *testing.T) {
	for _, e := range edits {
		t.Run(e.name, func(t *testing.T) {
			placed := 0
			for seed := range uint64(2) {
				h := historytest.Generate(300+seed, 2000, 8)
				if !e.do(h) {
					continue
				}
				placed++
				got, err := history.Read(bytes.NewReader(written(t, h)))
				if err != nil {
					t.Logf("seed %d: refused: %v", seed, err)
					continue
				}
				r := check(t, got, history.Options{PerRule: 2, NoExcerpts: seed > 0 || !testing.Verbose()})
				told := slices.ContainsFunc(e.want, func(rule history.Rule) bool { return r.Counts[rule] > 0 })
				if !told {
					t.Errorf("seed %d: none of %v was found, but:\n%s%v", seed, e.want, said(r), r.Skipped)
				}
				if testing.Verbose() && seed == 0 {
					for _, v := range r.Violations {
						size := "no excerpt"
						if v.Excerpt != nil {
							size = fmt.Sprintf("%d operations, %d watches, %d keys", len(v.Excerpt.Operations), len(v.Excerpt.Watches), len(v.Excerpt.Initial))
						}
						t.Logf("%s: %s (%s)", v.Rule, v.Title, size)
					}
				}
				if dir := os.Getenv("QUORATE_EDITS"); dir != "" && seed == 0 {
					require.NoError(t, os.WriteFile(dir+"/"+e.name+".zst", written(t, h), 0o600))
				}
			}
			require.NotZero(t, placed)
		})
	}
}
