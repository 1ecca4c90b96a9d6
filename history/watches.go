package history

import (
	"fmt"
	"slices"
)

// watchCheck is one watch under examination.
type watchCheck struct {
	*checker
	w        int // index
	watch    *Watch
	got      []uint64 // bits by change: delivered
	prev     []int32  // by change: the one of the same key before it, or -1
	initial  map[string]*KeyValue
	last     int64 // highest revision delivered
	lastAt   int   // response that delivered it
	first    int64 // lowest
	created  int64 // revision at which it was told to begin; 0 if it was not
	progress int64 // revision up to which everything was said to be delivered
	next     int   // change behind the last one found
}

// checkWatches holds what each watch delivered against all that was changed.
func (c *checker) checkWatches() {
	if len(c.h.Watches) == 0 {
		return
	}
	prev := make([]int32, len(c.changes))
	last := make([]int32, len(c.keys))
	for i := range last {
		last[i] = -1
	}
	for i := range c.changes {
		key := c.changes[i].key
		prev[i] = last[key]
		last[key] = int32(i)
	}
	initial := map[string]*KeyValue{}
	for i := range c.h.Initial {
		initial[c.h.Initial[i].Key] = &c.h.Initial[i]
	}
	for i := range c.h.Watches {
		if c.ctx.Err() != nil {
			return
		}
		w := &watchCheck{checker: c, w: i, watch: &c.h.Watches[i], prev: prev, initial: initial, got: make([]uint64, len(c.changes)/64+1)}
		for j := range w.watch.Responses {
			r := &w.watch.Responses[j]
			for k := range r.Events {
				w.event(j, &r.Events[k])
			}
			if r.Created {
				w.created = r.Revision
			}
			if r.Progress {
				w.progress = max(w.progress, r.Revision)
			}
		}
		w.missing()
	}
}

func (w *watchCheck) violate(rule Rule, rev int64, title string, evidence ...string) {
	w.checker.violate(Violation{
		Rule: rule, Revision: rev, Watches: []int{w.watch.ID},
		Title: fmt.Sprintf("watch %d %s", w.watch.ID, title), Evidence: evidence,
	})
}

func (w *watchCheck) event(j int, e *Event) {
	rev, says := e.KV.ModRevision, w.watchSays
	switch {
	case !inRange(e.KV.Key, w.watch.Key, w.watch.End):
		w.violate(WatchFilter, rev, fmt.Sprintf("delivered %s, which is outside its range", e), says(w.w, j, e))
		return
	case w.watch.NoPut && !e.Deleted || w.watch.NoDelete && e.Deleted:
		w.violate(WatchFilter, rev, fmt.Sprintf("delivered %s, which it was asked to leave out", e), says(w.w, j, e))
		return
	case rev < w.watch.StartRevision:
		w.violate(WatchResume, rev, fmt.Sprintf("began at revision %d and delivered %s", w.watch.StartRevision, e), says(w.w, j, e))
		return
	case w.watch.StartRevision == 0 && rev <= w.created:
		w.violate(WatchResume, rev, fmt.Sprintf("began behind revision %d and delivered %s", w.created, e), says(w.w, j, e))
		return
	}
	i := w.locate(rev, w.keyID[e.KV.Key])
	had := i >= 0 && w.got[i/64]&(1<<(i%64)) != 0
	switch {
	case had:
		w.violate(WatchDuplicate, rev, fmt.Sprintf("delivered %s twice", e), says(w.w, j, e))
		return
	case rev <= w.progress:
		w.violate(WatchProgress, rev, fmt.Sprintf("delivered %s when it had said that all so far was delivered", e), says(w.w, j, e), fmt.Sprintf("it had said that all up to revision %d was delivered", w.progress))
	case rev < w.last:
		w.violate(WatchOrder, rev, fmt.Sprintf("delivered %s behind a later one", e), says(w.w, j, e), says(w.w, w.lastAt, nil)+fmt.Sprintf(" delivered revision %d", w.last))
	case rev == w.last && j != w.lastAt && !w.watch.Responses[j-1].Fragment:
		w.violate(WatchSplit, rev, fmt.Sprintf("delivered the events of revision %d in several messages", rev), says(w.w, w.lastAt, nil), says(w.w, j, e))
	}
	if w.first == 0 || rev < w.first {
		w.first = rev
	}
	if rev >= w.last {
		w.last, w.lastAt = rev, j
	}
	if i < 0 {
		w.stranger(j, e)
		return
	}
	w.got[i/64] |= 1 << (i % 64)
	w.content(i, j, e)
}

// locate finds a change; most are the next one.
func (w *watchCheck) locate(rev int64, key int32) int {
	for n := w.next; n < len(w.changes) && n < w.next+4; n++ {
		if w.changes[n].rev == rev && w.changes[n].key == key {
			w.next = n + 1
			return n
		}
	}
	i := w.find(rev, key)
	if i >= 0 {
		w.next = i + 1
	}
	return i
}

func (w *watchCheck) stranger(j int, e *Event) {
	if w.h.Torn != "" && !w.covered.has(e.KV.ModRevision) {
		return
	}
	if e.KV.ModRevision <= w.h.Meta.StartRevision {
		return
	}
	w.violate(WatchPhantom, e.KV.ModRevision, fmt.Sprintf("delivered %s, which never was", e), w.watchSays(w.w, j, e))
}

// content compares an event with the change.
func (w *watchCheck) content(i, j int, e *Event) {
	ch := &w.changes[i]
	says := w.watchSays(w.w, j, e)
	sure := w.sureBefore(i)
	switch {
	case ch.deleted != e.Deleted:
		w.violate(WatchPhantom, ch.rev, fmt.Sprintf("delivered %s, where the key was changed otherwise", e), says)
	case e.Deleted && e.Create:
		w.violate(WatchCreate, ch.rev, fmt.Sprintf("delivered %s as new", e), says)
	case e.Deleted:
	case e.KV.Value != ch.val:
		w.violate(WrongValue, ch.rev, fmt.Sprintf("delivered %s, which was written with %s", e, clipped(ch.val)), append([]string{says}, w.askedBy(ch)...)...)
	case e.KV.Lease != ch.lease:
		w.violate(LeaseAttach, ch.rev, fmt.Sprintf("delivered %s with lease %x, where lease %x was asked for", e, e.KV.Lease, ch.lease), append([]string{says}, w.askedBy(ch)...)...)
	case sure && (e.KV.Version != ch.version || e.KV.CreateRevision != ch.create):
		w.violate(WrongVersion, ch.rev, fmt.Sprintf("delivered %s created at %d, which has version %d and was created at %d", e, e.KV.CreateRevision, ch.version, ch.create), says)
	case sure && e.Create != (ch.create == ch.rev):
		w.violate(WatchCreate, ch.rev, fmt.Sprintf("delivered %s as new: %v, where it is %v", e, e.Create, ch.create == ch.rev), says)
	}
	if ch.op >= 0 && w.h.Operations[ch.op].Call > w.watch.Responses[j].At {
		w.violate(FutureRead, ch.rev, fmt.Sprintf("delivered %s before it was written", e), says, w.says(ch.op))
	}
	if sure && (w.watch.PrevKV || e.PrevKV != nil) {
		w.previous(i, j, e)
	}
}

func (w *watchCheck) askedBy(ch *change) []string {
	if ch.op < 0 {
		return nil
	}
	return []string{w.says(ch.op)}
}

// sureBefore: nothing can have happened to the key unseen between this change and
// the one before.
func (w *watchCheck) sureBefore(i int) bool {
	from := w.h.Meta.StartRevision
	if p := w.prev[i]; p >= 0 {
		from = w.changes[p].rev
	}
	return w.covered.all(from+1, w.changes[i].rev-1)
}

func (w *watchCheck) previous(i, j int, e *Event) {
	var want *KeyValue
	if p := w.prev[i]; p >= 0 {
		if ch := &w.changes[p]; !ch.deleted {
			want = &KeyValue{Key: e.KV.Key, Value: ch.val, Version: ch.version, CreateRevision: ch.create, ModRevision: ch.rev, Lease: ch.lease}
		}
	} else {
		want = w.initial[e.KV.Key]
	}
	rev := w.changes[i].rev
	switch {
	case want == nil && e.PrevKV == nil, want != nil && e.PrevKV != nil && *want == *e.PrevKV:
	case e.PrevKV == nil && (!w.compactSet || w.compacted >= rev):
		w.skippedDeletes++
	case e.PrevKV == nil && w.opening(j):
		w.barePrev++
	case e.PrevKV == nil:
		w.violate(WatchPrevKV, rev, fmt.Sprintf("delivered %s without the value before it, %s", e, want), w.watchSays(w.w, j, e))
	case want == nil:
		w.violate(WatchPrevKV, rev, fmt.Sprintf("delivered %s with the value before it, %s, where there was none", e, e.PrevKV), w.watchSays(w.w, j, e))
	default:
		w.violate(WatchPrevKV, rev, fmt.Sprintf("delivered %s with the value before it %s, where it was %s", e, e.PrevKV, want), w.watchSays(w.w, j, e))
	}
}

// opening: the response is the first of the watch with events. etcd, up to 3.7.3 at
// least, begins a watch before it notes that previous values are wanted
// (server/etcdserver/api/v3rpc/watch.go, recvLoop): what happens in between comes
// without them.
func (w *watchCheck) opening(j int) bool {
	return !slices.ContainsFunc(w.watch.Responses[:j], func(r WatchResponse) bool { return len(r.Events) > 0 })
}

// missing finds what the watch had to deliver and did not.
func (w *watchCheck) missing() {
	reach := w.watch.reach()
	if reach.from == 0 {
		return
	}
	from, to := w.bounds(w.watch.Key, w.watch.End)
	for i := range w.changes {
		ch := &w.changes[i]
		if ch.rev < reach.from || int(ch.key) < from || int(ch.key) >= to || w.got[i/64]&(1<<(i%64)) != 0 {
			continue
		}
		if ch.rev > reach.to {
			return
		}
		if ch.deleted && w.watch.NoDelete || !ch.deleted && w.watch.NoPut {
			continue
		}
		w.missed(ch)
	}
}

func (w *watchCheck) missed(ch *change) {
	e := Event{Deleted: ch.deleted, KV: KeyValue{Key: w.keys[ch.key], Value: ch.val, ModRevision: ch.rev, Version: ch.version}}
	evidence := append([]string{fmt.Sprintf("it delivered revisions %d to %d, and said that all up to %d was delivered", w.first, w.last, max(w.progress, w.last))}, w.askedBy(ch)...)
	rule := WatchMissing
	switch {
	case !ch.observed() && ch.op >= 0:
		w.checker.violate(Violation{
			Rule: LostWrite, Revision: ch.rev, Operations: []int{int(ch.op)}, Watches: []int{w.watch.ID}, Evidence: evidence,
			Title: fmt.Sprintf("%s was acknowledged at revision %d and is not there: watch %d did not see it", &e, ch.rev, w.watch.ID),
		})
		return
	case ch.rev > w.last:
		rule = WatchProgress
	case ch.rev < w.first && w.watch.StartRevision > 0 && !w.watch.Truth:
		rule = WatchResume
	}
	w.violate(rule, ch.rev, fmt.Sprintf("did not deliver %s", &e), evidence...)
}
