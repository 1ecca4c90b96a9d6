package historytest

import (
	"errors"
	"fmt"
	"slices"

	"github.com/quorate/quorate/history"
)

// Bug is one way to break a promise.
type Bug struct {
	// Name says what is planted.
	Name string
	// Rule that finds it.
	Rule history.Rule
	// plant edits a correct history.
	plant func(h *history.History) error
}

// Plant edits a history made by Generate so that it shows the bug. It fails where
// the history has no place for it.
func Plant(h *history.History, b Bug) error {
	if err := b.plant(h); err != nil {
		return fmt.Errorf("plant %s: %w", b.Name, err)
	}
	return nil
}

var errNoPlace = errors.New("the history has no place for it: generate a longer one")

// Bugs are at least one for each rule.
var Bugs = []Bug{
	{"a write that is acknowledged and never there", history.LostWrite, lostAtTheEnd},
	{"a write that was seen and is gone", history.LostWrite, lostAfterSeen},
	{"a read with another value", history.WrongValue, readOther},
	{"an event with another value", history.WrongValue, eventOther},
	{"a read with another version", history.WrongVersion, versionOf},
	{"an event with another create revision", history.WrongVersion, createOf},
	{"an answer with the revision of another", history.WrongVersion, answeredOtherRevision},
	{"a linearizable read of old data", history.StaleRead, stale},
	{"a read of what is written later", history.FutureRead, future},
	{"a count that is one too high", history.WrongRead, miscount},
	{"an old revision read other than it was", history.WrongRead, rewriteHistory},
	{"one put that happens twice", history.DuplicateWrite, duplicate},
	{"an unanswered put that happens twice", history.DuplicateWrite, duplicateUnknown},
	{"a put by nobody", history.PhantomWrite, phantomPut},
	{"a deletion by nobody", history.PhantomWrite, phantomDelete},
	{"a refused put that happens", history.RefusedWrite, refused},
	{"half a transaction", history.SplitTxn, half},
	{"an unanswered transaction in the wrong branch", history.SplitTxn, wrongBranch},
	{"conditions that did not hold", history.TxnOutcome, outcome},
	{"two writes with each other's revisions", history.RevisionOrder, backwards},
	{"one revision for two writes", history.RevisionOrder, sameRevision},
	{"a member that goes back", history.RevisionBack, back},
	{"one unanswered deletion that deletes twice", history.NotLinearizable, deletesTwice},
	{"events out of order", history.WatchOrder, disorder},
	{"an event twice", history.WatchDuplicate, twice},
	{"an event left out", history.WatchMissing, leftOut},
	{"an event left out of the truth alone", history.WatchMissing, leftOutOfTruth},
	{"a revision in two messages", history.WatchSplit, split},
	{"a gap behind a resumed watch", history.WatchResume, gap},
	{"progress ahead of events", history.WatchProgress, ahead},
	{"progress past an event that never comes", history.WatchProgress, past},
	{"another previous value", history.WatchPrevKV, otherPrevious},
	{"no previous value", history.WatchPrevKV, noPrevious},
	{"an update told as new", history.WatchCreate, told},
	{"a put in a watch without puts", history.WatchFilter, unfiltered},
	{"an event that never was", history.WatchPhantom, neverWas},
	{"a lease that ends early", history.LeaseEarly, early},
	{"a lease that is over early", history.LeaseEarly, earlyTTL},
	{"a key that outlives its lease", history.LeaseKeyStays, stays},
	{"a key attached to a lease that is over", history.LeaseAttach, attachOver},
	{"an event with another lease", history.LeaseAttach, attachOther},
	{"a lease that is renewed when it is revoked", history.LeaseBack, renewed},
	{"a member with other data", history.HashDiffers, hash},
}

// tail appends to a history: what happens next, seen by all watches.
type tail struct {
	h    *history.History
	rev  int64
	at   int64
	live map[string]history.KeyValue
}

func newTail(h *history.History) *tail {
	t := &tail{h: h, live: map[string]history.KeyValue{}}
	for i := range h.Operations {
		o := &h.Operations[i]
		t.at = max(t.at, o.Call)
		if o.Return != history.Never {
			t.at = max(t.at, o.Return)
		}
		t.rev = max(t.rev, o.Revision)
	}
	for i := range h.Watches {
		w := &h.Watches[i]
		for j := range w.Responses {
			t.at, t.rev = max(t.at, w.Responses[j].At), max(t.rev, w.Responses[j].Revision)
			for k := range w.Responses[j].Events {
				if e := &w.Responses[j].Events[k]; w.Truth && e.Deleted {
					delete(t.live, e.KV.Key)
				} else if w.Truth {
					t.live[e.KV.Key] = e.KV
				}
			}
		}
	}
	t.at += 1000
	return t
}

// op appends an operation that takes a while.
func (t *tail) op(o history.Operation) {
	o.Client, o.Call, o.Return = 900, t.at, t.at+100
	if o.Outcome == "" {
		o.Outcome = history.OK
	}
	if o.Outcome == history.Unknown {
		o.Return = history.Never
	}
	t.at += 200
	t.h.Operations = append(t.h.Operations, o)
}

// put is the next revision's put of a key, as an event.
func (t *tail) put(key, value string, lease int64) history.Event {
	kv := history.KeyValue{Key: key, Value: value, Version: 1, CreateRevision: t.rev, ModRevision: t.rev, Lease: lease}
	e := history.Event{Create: true}
	if old, ok := t.live[key]; ok {
		kv.Version, kv.CreateRevision = old.Version+1, old.CreateRevision
		e.Create, e.PrevKV = false, &old
	}
	e.KV = kv
	t.live[key] = kv
	return e
}

func (t *tail) remove() history.Event {
	e := history.Event{Deleted: true, KV: history.KeyValue{Key: planted, ModRevision: t.rev}}
	if old, ok := t.live[planted]; ok {
		e.PrevKV = &old
	}
	delete(t.live, planted)
	return e
}

// seen delivers events of one revision to all watches that are for them.
func (t *tail) seen(events ...history.Event) {
	for i := range t.h.Watches {
		w := &t.h.Watches[i]
		if w.Responses[len(w.Responses)-1].Canceled {
			continue
		}
		var r history.WatchResponse
		for _, e := range events {
			if e.KV.Key < w.Key || w.End != "" && e.KV.Key >= w.End || w.End == "" && e.KV.Key != w.Key || w.NoPut && !e.Deleted || w.NoDelete && e.Deleted {
				continue
			}
			if !w.PrevKV {
				e.PrevKV = nil
			}
			r.Events = append(r.Events, e)
		}
		if len(r.Events) > 0 {
			r.At, r.Revision = t.at, t.rev
			w.Responses = append(w.Responses, r)
		}
	}
	t.at += 50
}

// told lets all watches say that everything so far was delivered.
func (t *tail) told() {
	t.rev++
	for i := range t.h.Watches {
		w := &t.h.Watches[i]
		if !w.Responses[len(w.Responses)-1].Canceled {
			w.Responses = append(w.Responses, history.WatchResponse{At: t.at, Revision: t.rev, Progress: true})
		}
	}
	t.at += 50
}

func putting(key, value string, rev int64) history.Operation {
	return history.Operation{Kind: history.Put, Then: []history.Request{{Kind: history.Put, Key: key, Value: value}}, Results: []history.Result{{}}, Revision: rev}
}

func reading(rev int64, kvs ...history.KeyValue) history.Operation {
	return history.Operation{
		Kind: history.Range, Then: []history.Request{{Kind: history.Range, Key: planted}}, Revision: rev,
		Results: []history.Result{{KVs: kvs, Count: int64(len(kvs))}},
	}
}

// planted is a key that the generator does not use.
const planted = Prefix + "k00000p"

func lostAtTheEnd(h *history.History) error {
	t := newTail(h)
	t.rev++
	t.op(putting(planted, "lost", t.rev))
	t.told()
	t.op(reading(t.rev))
	return nil
}

func lostAfterSeen(h *history.History) error {
	t := newTail(h)
	t.rev++
	t.op(putting(planted, "gone", t.rev))
	e := t.put(planted, "gone", 0)
	t.seen(e)
	t.op(reading(t.rev, e.KV))
	t.told()
	t.op(reading(t.rev))
	return nil
}

// pick is the operation in the middle of those that fit.
func pick(h *history.History, fits func(o *history.Operation) bool) (*history.Operation, error) {
	var all []int
	for i := range h.Operations {
		if h.Operations[i].Outcome == history.OK && fits(&h.Operations[i]) {
			all = append(all, i)
		}
	}
	if len(all) == 0 {
		return nil, errNoPlace
	}
	return &h.Operations[all[len(all)/2]], nil
}

func isGet(o *history.Operation) bool {
	return o.Kind == history.Range && !o.Serializable && o.Then[0].End == "" && o.Then[0].Revision == 0
}

// readOne is a linearizable read of one key that found it.
func readOne(h *history.History) (*history.Operation, error) {
	return pick(h, func(o *history.Operation) bool { return isGet(o) && len(o.Results[0].KVs) == 1 })
}

func readOther(h *history.History) error {
	o, err := readOne(h)
	if err == nil {
		o.Results[0].KVs[0].Value = "damaged"
	}
	return err
}

func versionOf(h *history.History) error {
	o, err := readOne(h)
	if err == nil {
		o.Results[0].KVs[0].Version++
	}
	return err
}

func answeredOtherRevision(h *history.History) error {
	t := newTail(h)
	t.rev++
	o := putting(planted, "moved", t.rev+1)
	t.op(o)
	t.seen(t.put(planted, "moved", 0))
	t.rev += 2
	t.told()
	return nil
}

func stale(h *history.History) error {
	for i := len(h.Operations) / 2; i < len(h.Operations); i++ {
		o := &h.Operations[i]
		if o.Outcome != history.OK || !isGet(o) || len(o.Results[0].KVs) != 1 || o.Results[0].KVs[0].Version < 2 {
			continue
		}
		now := o.Results[0].KVs[0]
		old, ok := before(h, now)
		if !ok || !slices.ContainsFunc(h.Operations, func(w history.Operation) bool {
			return w.Outcome == history.OK && w.Return < o.Call && w.Revision >= now.ModRevision && w.Kind == history.Put
		}) {
			continue
		}
		o.Results[0].KVs = []history.KeyValue{old}
		o.Revision = now.ModRevision - 1
		return nil
	}
	return errNoPlace
}

// before is what a key held before, by the truth.
func before(h *history.History, now history.KeyValue) (history.KeyValue, bool) {
	var found history.KeyValue
	for _, e := range truth(h) {
		if e.KV.Key == now.Key && e.KV.ModRevision < now.ModRevision && !e.Deleted {
			found = e.KV
		}
	}
	return found, found.Key != "" && found.Version == now.Version-1
}

func truth(h *history.History) []*history.Event {
	var all []*history.Event
	for i := range h.Watches {
		if !h.Watches[i].Truth {
			continue
		}
		for j := range h.Watches[i].Responses {
			for k := range h.Watches[i].Responses[j].Events {
				all = append(all, &h.Watches[i].Responses[j].Events[k])
			}
		}
	}
	return all
}

func future(h *history.History) error {
	o, err := readOne(h)
	if err != nil {
		return err
	}
	key := o.Then[0].Key
	t := newTail(h)
	t.rev++
	t.op(putting(key, "tomorrow", t.rev))
	e := t.put(key, "tomorrow", 0)
	t.seen(e)
	t.told()
	o, _ = readOne(h) // operations may have moved
	o.Results[0].KVs[0] = e.KV
	return nil
}

func miscount(h *history.History) error {
	o, err := pick(h, func(o *history.Operation) bool {
		return o.Kind == history.Range && o.Then[0].End != "" && o.Then[0].Limit == 0
	})
	if err == nil {
		o.Results[0].Count++
	}
	return err
}

func rewriteHistory(h *history.History) error {
	o, err := pick(h, func(o *history.Operation) bool {
		return o.Kind == history.Range && o.Then[0].Revision > 0 && len(o.Results[0].KVs) > 0 && o.Then[0].Limit == 0
	})
	if err == nil {
		o.Results[0].KVs = o.Results[0].KVs[1:]
		o.Results[0].Count--
	}
	return err
}

func duplicate(h *history.History) error {
	t := newTail(h)
	t.rev++
	t.op(putting(planted, "again", t.rev))
	t.seen(t.put(planted, "again", 0))
	t.rev++
	t.seen(t.put(planted, "again", 0))
	t.told()
	return nil
}

func duplicateUnknown(h *history.History) error {
	t := newTail(h)
	o := putting(planted, "again", 0)
	o.Outcome, o.Results = history.Unknown, nil
	t.op(o)
	for range 2 {
		t.rev++
		t.seen(t.put(planted, "again", 0))
	}
	t.told()
	return nil
}

func phantomPut(h *history.History) error {
	t := newTail(h)
	t.rev++
	t.seen(t.put(planted, "nobody's", 0))
	t.told()
	return nil
}

func phantomDelete(h *history.History) error {
	t := newTail(h)
	t.rev++
	t.op(putting(planted, "short-lived", t.rev))
	t.seen(t.put(planted, "short-lived", 0))
	t.rev++
	t.seen(t.remove())
	t.told()
	return nil
}

func refused(h *history.History) error {
	t := newTail(h)
	o := putting(planted, "refused", 0)
	o.Outcome, o.Error, o.Results = history.Failed, "etcdserver: too many requests", nil
	t.op(o)
	t.rev++
	t.seen(t.put(planted, "refused", 0))
	t.told()
	return nil
}

func half(h *history.History) error {
	t := newTail(h)
	t.rev++
	t.op(history.Operation{
		Kind: history.Txn, Succeeded: true, Revision: t.rev, Results: []history.Result{{}, {}},
		Then: []history.Request{{Kind: history.Put, Key: planted, Value: "one"}, {Kind: history.Put, Key: planted + "q", Value: "other"}},
	})
	t.seen(t.put(planted, "one", 0))
	t.told()
	return nil
}

func wrongBranch(h *history.History) error {
	t := newTail(h)
	t.op(history.Operation{
		Kind: history.Txn, Outcome: history.Unknown,
		If:   []history.Condition{{Key: planted, Field: history.FieldVersion, Op: "=", Number: 0}},
		Then: []history.Request{{Kind: history.Put, Key: planted, Value: "then"}},
		Else: []history.Request{{Kind: history.Put, Key: planted, Value: "else"}},
	})
	t.rev++
	t.seen(t.put(planted, "else", 0))
	t.told()
	return nil
}

func outcome(h *history.History) error {
	t := newTail(h)
	t.op(history.Operation{
		Kind: history.Txn, Succeeded: true, Revision: t.rev, Results: []history.Result{{}},
		If:   []history.Condition{{Key: planted, Field: history.FieldVersion, Op: ">", Number: 0}},
		Then: []history.Request{{Kind: history.Range, Key: planted}},
	})
	return nil
}

func backwards(h *history.History) error {
	t := newTail(h)
	t.rev++
	t.op(putting(planted, "first", t.rev+1))
	t.op(putting(planted+"q", "second", t.rev))
	t.seen(t.put(planted+"q", "second", 0))
	t.rev++
	t.seen(t.put(planted, "first", 0))
	t.told()
	return nil
}

func sameRevision(h *history.History) error {
	t := newTail(h)
	t.rev++
	t.op(putting(planted, "first", t.rev))
	t.op(putting(planted+"q", "second", t.rev))
	t.seen(t.put(planted, "first", 0), t.put(planted+"q", "second", 0))
	t.told()
	return nil
}

func back(h *history.History) error {
	t := newTail(h)
	for _, rev := range []int64{t.rev, t.rev - 1} {
		o := reading(rev)
		o.Serializable, o.Endpoint = true, "m1"
		t.op(o)
	}
	return nil
}

func deletesTwice(h *history.History) error {
	t := newTail(h)
	t.rev++
	t.op(putting(planted, "one", t.rev))
	t.seen(t.put(planted, "one", 0))
	o := history.Operation{Kind: history.Delete, Outcome: history.Unknown, Then: []history.Request{{Kind: history.Delete, Key: planted}}}
	t.op(o)
	t.rev++
	t.seen(t.remove())
	t.rev++
	t.op(putting(planted, "two", t.rev))
	t.seen(t.put(planted, "two", 0))
	t.rev++
	t.seen(t.remove())
	t.told()
	t.op(reading(t.rev))
	return nil
}
