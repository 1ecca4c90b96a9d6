package history

import (
	"fmt"
	"slices"
	"strings"
)

// holds evaluates a condition as etcd does; sure is false where an unseen change
// may have made it otherwise.
func (r *replayer) holds(d *Condition, rev int64) (held, sure bool) {
	key := r.keyID[d.Key]
	s := &r.state[key]
	sure = r.certain(key, rev) && (!s.vague || d.Field != FieldVersion && d.Field != FieldCreate)
	var number int64
	switch d.Field {
	case FieldValue:
		if !s.live { // a value never equals that of no key, nor differs from it
			return false, sure
		}
		switch {
		case s.val == d.Value:
			return d.Op == "=", sure
		case s.val < d.Value:
			return d.Op == "<" || d.Op == "!=", sure
		default:
			return d.Op == ">" || d.Op == "!=", sure
		}
	case FieldVersion:
		number = s.version
	case FieldCreate:
		number = s.create
	case FieldMod:
		number = s.mod
	case FieldLease:
		number = s.lease
	}
	switch d.Op {
	case "=":
		return number == d.Number, sure
	case "!=":
		return number != d.Number, sure
	case "<":
		return number < d.Number, sure
	default:
		return number > d.Number, sure
	}
}

// hold evaluates all conditions.
func (r *replayer) hold(conditions []Condition, rev int64) (held, sure bool) {
	held, sure = true, true
	for i := range conditions {
		h, s := r.holds(&conditions[i], rev)
		if s && !h {
			return false, true
		}
		held, sure = held && h, sure && s
	}
	return held, sure
}

// work fills in what a branch must do to the state.
func (r *replayer) work(branch []Request) {
	r.effects = r.effects[:0]
	for i := range branch {
		r.step(&branch[i])
	}
}

func (r *replayer) step(q *Request) {
	switch q.Kind {
	case Put:
		r.effects = append(r.effects, effect{key: r.keyID[q.Key], val: q.Value, lease: q.Lease})
	case Delete:
		from, to := r.bounds(q.Key, q.End)
		for k := from; k < to; k++ {
			if r.state[k].live && !slices.ContainsFunc(r.effects, func(e effect) bool { return e.key == index(k) && e.deleted }) {
				r.effects = append(r.effects, effect{key: index(k), deleted: true})
			}
		}
	default:
	}
}

// answered judges a revision that an operation was told to be its own.
func (r *replayer) answered(op int32, rev int64, from, to int) {
	o := &r.h.Operations[op]
	if o.Kind == Txn {
		r.outcome(op, rev-1)
	}
	branch := o.branch()
	r.effects = r.effects[:0]
	for i := range branch {
		if i < len(o.Results) {
			r.result(op, i, rev-1)
		}
		r.step(&branch[i])
	}
	r.applied[op] = rev
	r.compare(op, rev, from, to)
}

// likeliest is the write that did most of what was seen at a revision, of those that
// were told it.
func (r *replayer) likeliest(acked []int32, from, to int) int32 {
	best, most := acked[0], -1
	for _, op := range acked {
		n := 0
		for _, q := range r.h.Operations[op].branch() {
			for i := from; i < to && len(acked) > 1; i++ {
				w := &r.changes[i]
				if w.observed() && inRange(r.keys[w.key], q.Key, q.End) && (q.Kind == Put && !w.deleted && q.Value == w.val || q.Kind == Delete && w.deleted) {
					n++
				}
			}
		}
		if n > most {
			best, most = op, n
		}
	}
	return best
}

// impostor judges a write that was told the revision of another.
func (r *replayer) impostor(op int32, rev int64) {
	o := &r.h.Operations[op]
	if o.Kind == Txn {
		r.outcome(op, rev-1)
	}
	if !r.covered.has(rev) || r.enough(LostWrite, WrongVersion) {
		return
	}
	for _, q := range o.branch() {
		if q.Kind != Put {
			continue
		}
		i := r.find(rev, r.keyID[q.Key])
		if i < 0 || r.changes[i].op != op || r.changes[i].observed() || r.elsewhere(op, rev) >= 0 {
			return // whoever saw it, or the other there, is judged
		}
		r.violate(Violation{
			Rule: LostWrite, Revision: rev, Operations: []int{int(op)},
			Title: fmt.Sprintf("%s was acknowledged at revision %d and is not there", short(o), rev),
			Evidence: []string{
				r.says(op),
				fmt.Sprintf("the truth watch tells everything of revision %d, and not %s", rev, q.Key),
			},
		})
		return
	}
}

// compare holds what an operation must have done against what was seen.
func (r *replayer) compare(op int32, rev int64, from, to int) {
	for i := from; i < to; i++ {
		w := &r.changes[i]
		e := slices.IndexFunc(r.effects, func(e effect) bool { return e.key == w.key })
		switch {
		case e < 0 && w.op >= 0 && w.op != op: // of another write that was told the same revision
			if w.said&byTruth == 0 && r.covered.has(rev) {
				w.said |= dropped
			}
		case e < 0 || r.effects[e].deleted != w.deleted:
			if e >= 0 {
				r.effects[e].found = true
			}
			r.stranger(index(i), op)
		default:
			r.effects[e].found = r.effects[e].deleted || w.said&byTruth != 0 || !r.covered.has(rev) || r.happened(index(i))
			if !r.effects[e].found {
				w.said |= dropped
			}
			w.op = op
			if !w.deleted {
				r.sameWrite(index(i), &r.effects[e])
			}
			if r.effects[e].deleted && w.said&byTruth == 0 && r.covered.has(rev) && !r.happened(index(i)) {
				r.effects[e].found, w.said = false, w.said|dropped
			}
		}
	}
	r.missing(op, rev)
}

// sameWrite: what was seen is what was asked for.
func (r *replayer) sameWrite(i int32, e *effect) {
	w := &r.changes[i]
	w.val, w.lease = e.val, e.lease // others who told otherwise are judged where they did
}

// missing judges what an operation must have done and nobody saw.
func (r *replayer) missing(op int32, rev int64) {
	var lost []string
	for i := range r.effects {
		e := &r.effects[i]
		if e.found {
			continue
		}
		if e.deleted && !r.certain(e.key, rev-1) { // it may have been gone before
			r.put(e.key, keyState{last: rev, by: -1})
			continue
		}
		if !r.covered.has(rev) { // nobody could see it
			r.extra = append(r.extra, change{rev: rev, key: e.key, op: op, said: completed, deleted: e.deleted, val: e.val, lease: e.lease})
			r.applyExtra(len(r.extra)-1, e)
			continue
		}
		lost = append(lost, r.keys[e.key])
	}
	if len(lost) == 0 {
		return
	}
	o := &r.h.Operations[op]
	v := Violation{Rule: LostWrite, Revision: rev, Operations: []int{int(op)}, Evidence: []string{
		r.says(op),
		fmt.Sprintf("the truth watch tells everything of revision %d, and not %s", rev, keyList(lost)),
	}}
	if elsewhere := r.elsewhere(op, rev); elsewhere >= 0 {
		w := &r.changes[elsewhere]
		v.Rule, v.Title = WrongVersion, fmt.Sprintf("%s was told revision %d, and happened at revision %d", short(o), rev, w.rev)
		r.violate(v)
		return
	}
	if len(lost) < len(r.effects) {
		v.Rule, v.Title = SplitTxn, fmt.Sprintf("%s at revision %d happened in part: %s is missing", short(o), rev, keyList(lost))
	} else {
		v.Title = fmt.Sprintf("%s was acknowledged at revision %d and is not there", short(o), rev)
	}
	r.violate(v)
}

// elsewhere finds a change with the operation's value at another revision.
func (r *replayer) elsewhere(op int32, rev int64) int {
	if r.enough(LostWrite, WrongVersion) {
		return -1
	}
	for _, q := range r.h.Operations[op].branch() {
		if q.Kind != Put || q.Value == "" {
			continue
		}
		key := r.keyID[q.Key]
		for i := range r.changes {
			if w := &r.changes[i]; w.key == key && w.rev != rev && !w.deleted && w.val == q.Value && w.said&byTruth != 0 {
				return i
			}
		}
	}
	return -1
}

func (r *replayer) applyExtra(i int, e *effect) {
	w := &r.extra[i]
	if e.deleted {
		r.put(e.key, keyState{last: w.rev, by: -1})
		return
	}
	s := &r.state[e.key]
	w.version, w.create = 1, w.rev
	if s.live {
		w.version, w.create = s.version+1, s.create
	}
	r.put(e.key, keyState{live: true, val: e.val, mod: w.rev, create: w.create, version: w.version, lease: e.lease, vague: true, last: w.rev, by: -1})
}

// stranger is a change at the revision of an operation that did not ask for it.
func (r *replayer) stranger(i, op int32) {
	w, o := &r.changes[i], &r.h.Operations[op]
	if w.op == op { // it says so itself, and where nothing was there that is told already
		return
	}
	if w.said&byTruth == 0 && r.covered.has(w.rev) {
		w.said |= dropped
		return
	}
	other := o.Else
	if o.Kind == Txn && !o.Succeeded {
		other = o.Then
	}
	for j := range other {
		q := &other[j]
		if o.Kind == Txn && inRange(r.keys[w.key], q.Key, q.End) && (q.Kind == Put && !w.deleted && q.Value == w.val || q.Kind == Delete && w.deleted) {
			r.violate(Violation{
				Rule: SplitTxn, Revision: w.rev, Operations: []int{int(op)},
				Title:    fmt.Sprintf("%s at revision %d did what its other branch asks for: %s", short(o), w.rev, r.changed(w)),
				Evidence: []string{r.says(op)},
			})
			return
		}
	}
	r.blame(i)
}

// unanswered judges a revision that no operation was told to be its own.
func (r *replayer) unanswered(rev int64, from, to int) {
	op := index(-1)
	puts := false
	for i := from; i < to && op < 0; i++ {
		w := &r.changes[i]
		if w.deleted {
			continue
		}
		puts = true
		for _, candidate := range r.writers[written{w.key, w.val}] {
			if r.h.Operations[candidate].Outcome == Unknown && (op < 0 || !r.mayHappen(op, rev)) {
				op = candidate
			}
		}
	}
	switch {
	case op >= 0:
		r.unknownHappened(op, rev, from, to)
		return
	case !puts && r.ended(rev, from, to):
		return
	}
	for i := from; i < to; i++ {
		r.blame(index(i))
	}
}

// mayHappen: the unanswered call was made before the revision, and has not happened yet.
func (r *replayer) mayHappen(op int32, rev int64) bool {
	_, happened := r.applied[op]
	return !happened && r.known[op] < rev
}

// unknownHappened judges an operation without an answer whose value was seen.
func (r *replayer) unknownHappened(op int32, rev int64, from, to int) {
	o := &r.h.Operations[op]
	if before, twice := r.applied[op]; twice && before != rev {
		r.violate(Violation{
			Rule: DuplicateWrite, Revision: rev, Operations: []int{int(op)},
			Title:    fmt.Sprintf("%s happened at revision %d and again at revision %d", short(o), before, rev),
			Evidence: []string{r.says(op), "its values are written by nobody else"},
		})
	}
	r.applied[op] = rev
	if r.known[op] >= rev {
		r.violate(Violation{
			Rule: RevisionOrder, Revision: rev, Operations: []int{int(op)},
			Title:    fmt.Sprintf("%s happened at revision %d, when revision %d was known before it was called", short(o), rev, r.known[op]),
			Evidence: []string{r.says(op), r.knower(r.known[op], o.Call)},
		})
	}
	branch, then := o.Then, true
	if o.Kind == Txn && !r.contains(o.Then, from, to) {
		branch, then = o.Else, false
	}
	if held, sure := r.hold(o.If, rev-1); sure && held != then && o.Kind == Txn {
		r.violate(Violation{
			Rule: SplitTxn, Revision: rev, Operations: []int{int(op)},
			Title:    fmt.Sprintf("%s at revision %d took the branch that its conditions forbid", short(o), rev),
			Evidence: []string{r.says(op), r.conditionsSay(o.If)},
		})
	}
	r.work(branch)
	r.compare(op, rev, from, to)
}

// contains says whether one of the changes is a put of the branch.
func (r *replayer) contains(branch []Request, from, to int) bool {
	for i := from; i < to; i++ {
		for j := range branch {
			w := &r.changes[i]
			if q := &branch[j]; q.Kind == Put && !w.deleted && r.keys[w.key] == q.Key && w.val == q.Value {
				return true
			}
		}
	}
	return false
}

// unknownDeleted looks for an operation without an answer that would have deleted
// just these keys.
func (r *replayer) unknownDeleted(rev int64, from, to int) bool {
	for _, list := range [][]int32{r.deletesOf[r.changes[from].key], r.deletes} {
		for _, op := range list {
			o := &r.h.Operations[op]
			if _, elsewhere := r.applied[op]; elsewhere || r.known[op] >= rev {
				continue
			}
			held, sure := r.hold(o.If, rev-1)
			for b, branch := range [2][]Request{o.Then, o.Else} {
				if o.Kind == Txn && sure && held != (b == 0) {
					continue
				}
				r.work(branch)
				if len(r.effects) > 0 && r.exactly(from, to) {
					r.explains[op] = rev
					return true // another may do as well: nothing is concluded from which one it was
				}
			}
		}
	}
	return false
}

// exactly: the effects are the changes seen, or more where not all could be seen.
func (r *replayer) exactly(from, to int) bool {
	if r.covered.has(r.changes[from].rev) && len(r.effects) != to-from {
		return false
	}
	for i := from; i < to; i++ {
		key := r.changes[i].key
		if !slices.ContainsFunc(r.effects, func(e effect) bool { return e.key == key && e.deleted }) {
			return false
		}
	}
	return !slices.ContainsFunc(r.effects, func(e effect) bool { return !e.deleted })
}

// blame judges a change that no operation at its revision accounts for.
func (r *replayer) blame(i int32) {
	w := &r.changes[i]
	if w.said&byTruth == 0 && r.covered.has(w.rev) { // who told it lies, and is judged there
		w.said |= dropped
		return
	}
	if !w.deleted {
		for _, op := range r.writers[written{w.key, w.val}] {
			if r.blamed(w, op) {
				return
			}
		}
	}
	r.phantom(i)
}

// blamed judges a change whose value an operation wrote that was answered otherwise.
func (r *replayer) blamed(w *change, op int32) bool {
	o := &r.h.Operations[op]
	v := Violation{Revision: w.rev, Operations: []int{int(op)}, Evidence: []string{r.says(op), "seen: " + r.changed(w)}}
	switch o.Outcome {
	case Failed:
		v.Rule, v.Title = RefusedWrite, fmt.Sprintf("%s was refused, and happened at revision %d", short(o), w.rev)
	case OK:
		if !r.toldTwice(w, o) {
			v.Rule, v.Title = WrongVersion, fmt.Sprintf("%s was told revision %d, and happened at revision %d", short(o), o.Revision, w.rev)
		} else {
			v.Rule, v.Title = DuplicateWrite, fmt.Sprintf("%s happened at revision %d and at revision %d", short(o), min(o.Revision, w.rev), max(o.Revision, w.rev))
		}
	case Unknown:
		return false
	}
	w.op = op
	r.violate(v)
	return true
}

// toldTwice: the operation's own change was seen at its own revision, too.
func (r *replayer) toldTwice(w *change, o *Operation) bool {
	i := r.find(o.Revision, w.key)
	return i >= 0 && r.changes[i].observed()
}

// phantom judges a change that nobody asked for.
func (r *replayer) phantom(i int32) {
	w := &r.changes[i]
	if r.h.Torn != "" || w.deleted && !r.certain(w.key, w.rev-1) {
		return
	}
	if n := r.next[i]; n >= 0 && w.said&byRead == 0 && !r.changes[n].deleted && r.changes[n].version != 0 {
		if r.changes[n].version == r.versionWithout(w.key) && r.nextVersion(w.key, w.deleted) != r.changes[n].version {
			w.said |= dropped // what follows shows that it was not made
			return
		}
	}
	if op := r.refusedDelete(w); op >= 0 {
		o := &r.h.Operations[op]
		w.op = op
		r.violate(Violation{
			Rule: RefusedWrite, Revision: w.rev, Operations: []int{int(op)},
			Title:    fmt.Sprintf("%s was refused, and %s was deleted at revision %d by nobody else", short(o), r.keys[w.key], w.rev),
			Evidence: []string{r.says(op), "seen: " + r.changed(w)},
		})
		return
	}
	title := fmt.Sprintf("%s was written at revision %d by nobody", r.keys[w.key], w.rev)
	if w.deleted {
		title = fmt.Sprintf("%s was deleted at revision %d by nobody", r.keys[w.key], w.rev)
	}
	r.violate(Violation{Rule: PhantomWrite, Revision: w.rev, Title: title, Evidence: []string{
		"seen: " + r.changed(w), "no call that was answered, refused or left open accounts for it, and no lease",
	}})
}

// refusedDelete finds the last call before a deletion by nobody that asked for it and was
// refused; -1 if there is none.
func (r *replayer) refusedDelete(w *change) int32 {
	last := index(-1)
	if !w.deleted || r.enough(RefusedWrite) {
		return last
	}
	for i := range r.h.Operations {
		o := &r.h.Operations[i]
		if o.Outcome == Failed && r.known[i] < w.rev && o.Call < r.seen.time(w.rev) && r.deletesKey(index(i), w.key) &&
			(last < 0 || o.Call > r.h.Operations[last].Call) {
			last = index(i)
		}
	}
	return last
}

// outcome: a transaction tells whether its conditions held.
func (r *replayer) outcome(op int32, rev int64) {
	o := &r.h.Operations[op]
	held, sure := r.hold(o.If, rev)
	if !sure || held == o.Succeeded {
		return
	}
	r.violate(Violation{
		Rule: TxnOutcome, Revision: o.Revision, Operations: []int{int(op)},
		Title:    fmt.Sprintf("%s at revision %d says that its conditions held: %v, where it is %v", short(o), o.Revision, o.Succeeded, held),
		Evidence: []string{r.says(op), r.conditionsSay(o.If)},
	})
}

func (r *replayer) conditionsSay(conditions []Condition) string {
	held := make([]string, len(conditions))
	for i := range conditions {
		held[i] = r.holding(r.keyID[conditions[i].Key])
	}
	return "before it: " + strings.Join(held, ", ")
}

// holding says what a key holds by the replay.
func (r *replayer) holding(key int32) string {
	s := &r.state[key]
	if !s.live {
		return r.keys[key] + " is not there"
	}
	kv := KeyValue{Key: r.keys[key], Value: s.val, ModRevision: s.mod, Version: s.version}
	return kv.String()
}

func (r *replayer) changed(w *change) string {
	e := Event{Deleted: w.deleted, KV: KeyValue{Key: r.keys[w.key], Value: w.val, ModRevision: w.rev, Version: w.version}}
	return e.String()
}

const shownKeys = 3

func keyList(keys []string) string {
	if len(keys) > shownKeys {
		return fmt.Sprintf("%s, %s and %d more", keys[0], keys[1], len(keys)-2)
	}
	return strings.Join(keys, ", ")
}

// short names an operation in a title, which must stay the same in an excerpt.
func short(o *Operation) string {
	switch {
	case o.Kind != Txn && len(o.Then) == 1:
		return o.Then[0].String()
	default:
		for _, q := range append(slices.Clone(o.branch()), o.Then...) {
			if q.Kind == Put {
				return "the txn with " + q.String()
			}
		}
		return "the txn of " + requests(o.Then)
	}
}
