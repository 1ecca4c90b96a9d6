package history

import (
	"cmp"
	"context"
	"slices"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
)

const (
	windowOps  = 96
	windowKeys = 256 // keys of a range that is looked at
	windowOpen = 12  // unanswered calls that may account for a deletion
)

// windower has porcupine look for an order of the calls in windows. A window is a
// run of revisions: its calls are those that were answered there, it begins with the
// state that the replay had there, and of the unanswered calls it has those that
// happened there, or may have. So a window of a linearizable history is linearizable.
type windower struct {
	*checker
	calls  []int32 // linearizable calls by revision
	happen map[int64][]int32
	base   []keyState // at the window's begin
	next   int        // first change that is not in base

	revs   []int64 // of the window
	groups [][]change
	reads  []int // behind so many revisions
	tried  int
}

// windowCall is a call in a window.
type windowCall struct {
	op    *Operation
	rev   int64 // of what is known to have happened or been read there; 0: unknown
	lapse bool  // the end of a lease
	end   bool  // all of the window's revisions have been
}

// windowState is the keyspace behind so many of the window's revisions: what the
// last one did, and the state before.
type windowState struct {
	at    int
	reads int // that were made behind the last one
	set   []windowKey
	below *windowState
}

type windowKey struct {
	key int32
	keyState
}

// checkWindows looks for what the replay can't conclude: whether unanswered calls,
// each happening once at most, explain everything together.
func (c *checker) checkWindows() {
	if c.o.Windows < 0 {
		return
	}
	w := &windower{checker: c, happen: map[int64][]int32{}, base: make([]keyState, len(c.keys))}
	w.prepare()
	deadline, cancel := context.WithTimeout(c.ctx, c.o.WindowTime)
	defer cancel()
	total := (len(w.calls) + windowOps - 1) / windowOps
	step := max(1, (total+c.o.Windows-1)/c.o.Windows)
	for i := 0; i < total; i += step {
		if deadline.Err() != nil {
			c.note("porcupine looked at %d of %d windows in its time", w.tried, total)
			break
		}
		w.window(deadline, i*windowOps, min((i+1)*windowOps, len(w.calls)))
	}
	if missed := w.tried - c.report.Stats.WindowsChecked; missed > 0 {
		c.note("%d of %d windows were too hard for porcupine, beyond the truth watch, or hold what is reported already", missed, w.tried)
	}
}

func (w *windower) prepare() {
	for i := range w.h.Operations {
		if o := &w.h.Operations[i]; o.Outcome == OK && o.isKV() && !o.Serializable && o.Revision > 0 {
			w.calls = append(w.calls, index(i))
		}
	}
	slices.SortFunc(w.calls, func(a, b int32) int {
		x, y := &w.h.Operations[a], &w.h.Operations[b]
		if x.Revision == y.Revision && x.writes() != y.writes() { // what is read there comes behind what made it
			return map[bool]int{true: -1, false: 1}[x.writes()]
		}
		return cmp.Compare(x.Revision, y.Revision)
	})
	for op, rev := range w.applied {
		if w.h.Operations[op].Outcome == Unknown {
			w.happen[rev] = append(w.happen[rev], op)
		}
	}
	for i := range w.h.Initial {
		kv := &w.h.Initial[i]
		w.base[w.keyID[kv.Key]] = keyState{live: true, val: kv.Value, mod: kv.ModRevision, create: kv.CreateRevision, version: kv.Version, lease: kv.Lease}
	}
}

// window looks at the calls from..to (exclusive).
func (w *windower) window(deadline context.Context, from, to int) {
	first := &w.h.Operations[w.calls[from]]
	start := first.Revision // changes up to here are the base
	if first.writes() {
		start--
	}
	for ; w.next < len(w.changes) && w.changes[w.next].rev <= start; w.next++ {
		ch := &w.changes[w.next]
		w.base[ch.key] = keyOf(ch)
	}
	last := w.h.Operations[w.calls[to-1]].Revision
	w.tried++
	w.revs, w.groups = w.revs[:0], w.groups[:0]
	for i := w.next; i < len(w.changes) && w.changes[i].rev <= last; {
		j := i
		for j < len(w.changes) && w.changes[j].rev == w.changes[i].rev {
			j++
		}
		w.revs, w.groups = append(w.revs, w.changes[i].rev), append(w.groups, w.changes[i:j])
		i = j
	}
	if !w.covered.all(w.h.Meta.StartRevision+1, last) || !w.intact(start, last) {
		return
	}
	calls, ok := w.gather(from, to)
	if !ok {
		return
	}
	left := time.Second
	if d, has := deadline.Deadline(); has {
		left = min(left, max(time.Until(d), time.Millisecond))
	}
	switch porcupine.CheckOperationsTimeout(w.model(), calls, left) {
	case porcupine.Ok:
		w.report.Stats.WindowsChecked++
		w.report.Stats.Windows++
	case porcupine.Illegal:
		w.report.Stats.WindowsChecked++
		w.illegal(from, to, calls)
	case porcupine.Unknown:
	}
}

func keyOf(ch *change) keyState {
	if ch.deleted {
		return keyState{last: ch.rev}
	}
	return keyState{live: true, val: ch.val, mod: ch.rev, create: ch.create, version: ch.version, lease: ch.lease, last: ch.rev}
}

// intact: nothing in the window is reported already.
func (w *windower) intact(from, to int64) bool {
	for rev := range w.broken {
		if rev >= from && rev <= to {
			return false
		}
	}
	return true
}

// gather lists the window's calls; false if there are too many to try all orders.
func (w *windower) gather(from, to int) ([]porcupine.Operation, bool) {
	var calls []porcupine.Operation
	w.reads = append(w.reads[:0], make([]int, len(w.revs)+1)...)
	add := func(i int32, rev int64) {
		o := &w.h.Operations[i]
		if o.Outcome == OK && !o.writes() {
			w.reads[w.behind(rev)]++
		}
		calls = append(calls, porcupine.Operation{ClientId: len(calls), Input: windowCall{op: o, rev: rev}, Call: o.Call, Return: o.Return})
	}
	for _, i := range w.calls[from:to] {
		o := &w.h.Operations[i]
		if !o.writes() && !w.small(o) {
			continue // leaving a read out makes nothing wrong
		}
		if o.writes() && !w.small(o) {
			return nil, false
		}
		add(i, o.Revision)
	}
	candidates := map[int32]bool{}
	for g, rev := range w.revs {
		switch {
		case len(w.byRevision[rev]) > 0:
		case len(w.happen[rev]) == 1:
			if !w.small(&w.h.Operations[w.happen[rev][0]]) {
				return nil, false
			}
			add(w.happen[rev][0], rev)
		default:
			if w.lapses[rev] {
				calls = append(calls, porcupine.Operation{Input: windowCall{rev: rev, lapse: true}, Return: Never})
			}
			puts := slices.ContainsFunc(w.groups[g], func(ch change) bool { return !ch.deleted })
			if puts || !w.candidates(w.groups[g], candidates) && !w.lapses[rev] {
				return nil, false // the replay has told it, or it was made by a call in no record
			}
		}
	}
	if len(candidates) > windowOpen {
		return nil, false
	}
	for i := range candidates {
		add(i, 0)
	}
	calls = append(calls, porcupine.Operation{Input: windowCall{end: true}, Return: Never})
	return calls, true
}

// small: its ranges are short enough to be looked at.
func (w *windower) small(o *Operation) bool {
	for _, branch := range [2][]Request{o.Then, o.Else} {
		for i := range branch {
			if from, to := w.bounds(branch[i].Key, branch[i].End); to-from > windowKeys {
				return false
			}
		}
	}
	return true
}

// candidates adds unanswered calls that may have made a deletion; false if there is
// none.
func (w *windower) candidates(group []change, to map[int32]bool) bool {
	found := false
	for _, list := range [2][]int32{w.deletesOf[group[0].key], w.deletes} {
		for _, i := range list {
			if len(to) > windowOpen {
				return found
			}
			if _, done := w.applied[i]; !done && w.known[i] < group[0].rev && w.deletesKey(i, group[0].key) {
				to[i] = true
				found = true
			}
		}
	}
	return found
}

func (w *windower) model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return &windowState{} },
		Step: func(state, input, _ any) (bool, any) {
			s, isState := state.(*windowState)
			call, isCall := input.(windowCall)
			if !isState || !isCall {
				return false, state
			}
			return w.step(s, call)
		},
		// What a revision did is always the same: it is compared with what was seen.
		Equal: func(a, b any) bool { return whereabouts(a) == whereabouts(b) },
		Hash:  func(a any) uint64 { at := whereabouts(a); return uint64(at[0])<<32 + uint64(at[1]) }, //nolint:gosec // small numbers
	}
}

// whereabouts is all that tells one state from another.
func whereabouts(state any) [2]int {
	if s, ok := state.(*windowState); ok {
		return [2]int{s.at, s.reads}
	}
	return [2]int{-1, -1}
}

// behind is how many of the window's revisions there were at a revision.
func (w *windower) behind(rev int64) int {
	return sort.Search(len(w.revs), func(i int) bool { return w.revs[i] > rev })
}

// begins: the next revision is that one, and all that was read before it has been.
func (w *windower) begins(s *windowState, rev int64) bool {
	return s.at < len(w.revs) && w.revs[s.at] == rev && s.reads == w.reads[s.at]
}

func (w *windower) step(s *windowState, call windowCall) (bool, any) {
	switch {
	case call.end:
		return s.at == len(w.revs), s
	case call.lapse:
		if s.at == len(w.revs) || w.revs[s.at] > call.rev {
			return true, s // an unanswered call did it instead
		}
		if !w.begins(s, call.rev) {
			return false, s
		}
		var done []windowKey
		for _, ch := range w.groups[s.at] {
			done = append(done, windowKey{ch.key, keyState{}})
		}
		return true, s.after(done)
	case call.rev == 0:
		if s.at < len(w.revs) && w.begins(s, w.revs[s.at]) {
			if done := w.perform(s, call.op, w.hold(s, call.op), w.revs[s.at], false); w.asSeen(s.at, done) {
				return true, s.after(done)
			}
		}
		return true, s // it does not happen
	case call.op.Outcome == Unknown || call.op.writes():
		if !w.begins(s, call.rev) {
			return false, s
		}
		held := w.hold(s, call.op)
		answered := call.op.Outcome == OK
		if answered && call.op.Kind == Txn && held != call.op.Succeeded {
			return false, s
		}
		done := w.perform(s, call.op, held, call.rev, answered)
		return done != nil && w.asSeen(s.at, done), s.after(done)
	default:
		if s.at != w.behind(call.rev) || call.op.Kind == Txn && w.hold(s, call.op) != call.op.Succeeded {
			return false, s
		}
		read := *s
		read.reads++
		return w.perform(s, call.op, call.op.Succeeded || call.op.Kind != Txn, 0, true) != nil, &read
	}
}

func (s *windowState) after(done []windowKey) *windowState {
	return &windowState{at: s.at + 1, set: done, below: s}
}

// asSeen compares what a call does with what was seen at that revision.
func (w *windower) asSeen(at int, done []windowKey) bool {
	group := w.groups[at]
	if len(done) != len(group) {
		return false
	}
	for i := range group {
		k := slices.IndexFunc(done, func(d windowKey) bool { return d.key == group[i].key })
		if k < 0 || done[k].live == group[i].deleted || done[k].live && done[k].val != group[i].val {
			return false
		}
	}
	return true
}

// key is what a key holds in a state.
func (w *windower) key(s *windowState, own []windowKey, key int32) *keyState {
	for i := range own {
		if own[i].key == key {
			return &own[i].keyState
		}
	}
	for ; s != nil; s = s.below {
		for i := range s.set {
			if s.set[i].key == key {
				return &s.set[i].keyState
			}
		}
	}
	return &w.base[key]
}

func (w *windower) hold(s *windowState, o *Operation) bool {
	for i := range o.If {
		d := &o.If[i]
		k := w.key(s, nil, w.keyID[d.Key])
		way := 0
		switch d.Field {
		case FieldValue:
			if !k.live {
				return false
			}
			way = cmp.Compare(k.val, d.Value)
		case FieldVersion:
			way = cmp.Compare(k.version, d.Number)
		case FieldCreate:
			way = cmp.Compare(k.create, d.Number)
		case FieldMod:
			way = cmp.Compare(k.mod, d.Number)
		case FieldLease:
			way = cmp.Compare(k.lease, d.Number)
		}
		if held := map[string]bool{"=": way == 0, "!=": way != 0, "<": way < 0, ">": way > 0}[d.Op]; !held {
			return false
		}
	}
	return true
}

// perform does what a call asks for. It is nil where the answers differ from those
// that were given.
func (w *windower) perform(s *windowState, o *Operation, held bool, rev int64, answered bool) []windowKey {
	branch := o.Then
	if o.Kind == Txn && !held {
		branch = o.Else
	}
	done := []windowKey{}
	for i := range branch {
		q := &branch[i]
		from, to := w.bounds(q.Key, q.End)
		var found []KeyValue
		for k := from; k < to; k++ {
			if st := w.key(s, done, index(k)); st.live {
				found = append(found, KeyValue{Key: w.keys[k], Value: st.val, Version: st.version, CreateRevision: st.create, ModRevision: st.mod, Lease: st.lease})
			}
		}
		if answered && i < len(o.Results) && !told(q, &o.Results[i], found) {
			return nil
		}
		switch q.Kind {
		case Put:
			st := keyState{live: true, val: q.Value, mod: rev, create: rev, version: 1, lease: q.Lease}
			if len(found) > 0 {
				st.create, st.version = found[0].CreateRevision, found[0].Version+1
			}
			done = append(done, windowKey{w.keyID[q.Key], st})
		case Delete:
			for j := range found {
				done = append(done, windowKey{w.keyID[found[j].Key], keyState{}})
			}
		default:
		}
	}
	return done
}

// told compares an answer with what there is.
func told(q *Request, r *Result, found []KeyValue) bool {
	switch q.Kind {
	case Put:
		return !q.PrevKV || slices.Equal(r.KVs, found)
	case Delete:
		return r.Deleted == int64(len(found)) && (!q.PrevKV || slices.Equal(r.KVs, found))
	default:
	}
	if q.Revision > 0 {
		return true // an old state, which is no question of order
	}
	n := int64(len(found))
	if q.Limit > 0 && n > q.Limit {
		return r.Count == n && r.More && slices.Equal(r.KVs, found[:q.Limit])
	}
	return r.Count == n && !r.More && slices.Equal(r.KVs, found)
}

func (w *windower) illegal(from, to int, calls []porcupine.Operation) {
	v := Violation{Rule: NotLinearizable, Revision: w.h.Operations[w.calls[to-1]].Revision}
	open := 0
	for i := range calls {
		call, ok := calls[i].Input.(windowCall)
		if ok && call.op != nil && call.op.Outcome == Unknown {
			open++
			v.Evidence = append(v.Evidence, "unanswered: "+call.op.String())
		}
	}
	v.Title = "no order explains the calls of revisions " + span{w.h.Operations[w.calls[from]].Revision, v.Revision}.String()
	for _, i := range w.calls[from:to] {
		v.Operations = append(v.Operations, int(i))
	}
	for g, rev := range w.revs {
		if len(w.byRevision[rev]) == 0 && len(w.happen[rev]) == 0 && !w.lapses[rev] {
			e := Event{Deleted: w.groups[g][0].deleted, KV: KeyValue{Key: w.keys[w.groups[g][0].key], ModRevision: rev}}
			v.Evidence = append(v.Evidence, "to be explained: "+e.String())
		}
	}
	w.violate(v)
}
