package history

import (
	"fmt"
	"maps"
	"slices"
)

// keyState is what one key holds while the history is replayed.
type keyState struct {
	live                 bool
	val                  string
	mod, create, version int64
	lease                int64
	// vague: version and create revision may be others, by changes that nobody told.
	vague bool
	// last is the revision of the last change, also if that was a deletion.
	last int64
	// by is the change that made it so; -1 for none.
	by int32
}

// task is something to judge when the replay has passed a revision: a whole
// operation that changed nothing, or one range at an old revision.
type task struct {
	rev     int64
	op      int32
	request int32 // -1: all but the ranges at old revisions
}

// effect is what an operation must do to a key.
type effect struct {
	key     int32
	deleted bool
	val     string
	lease   int64
	found   bool
}

// replayer goes through all revisions once, and judges everything at its revision.
type replayer struct {
	*checker
	state    []keyState
	live     fenwick
	next     []int32 // by change: the next one of the same key, or -1
	attached map[int64]map[int32]bool
	extra    []change // changes that nobody saw
	effects  []effect
}

func (c *checker) newReplayer() *replayer {
	r := &replayer{
		checker: c, state: make([]keyState, len(c.keys)), live: make(fenwick, len(c.keys)+1),
		attached: map[int64]map[int32]bool{},
	}
	for i := range r.state {
		r.state[i].last, r.state[i].by = c.h.Meta.StartRevision, -1
	}
	for i := range c.h.Initial {
		kv := &c.h.Initial[i]
		r.put(c.keyID[kv.Key], keyState{live: true, val: kv.Value, mod: kv.ModRevision, create: kv.CreateRevision, version: kv.Version, lease: kv.Lease, last: c.h.Meta.StartRevision, by: -1})
	}
	return r
}

// openDeletes finds the unanswered calls that may have deleted something.
func (c *checker) openDeletes() {
	c.deletesOf, c.leasesOf = map[int32][]int32{}, map[int32][]int32{}
	for i := range c.h.Operations {
		o := &c.h.Operations[i]
		if o.Outcome != Unknown {
			continue
		}
		for _, branch := range [2][]Request{o.Then, o.Else} {
			for j := range branch {
				switch {
				case branch[j].Kind == Put && branch[j].Lease != 0:
					key := c.keyID[branch[j].Key]
					c.leasesOf[key] = append(c.leasesOf[key], index(i))
				case branch[j].Kind != Delete:
				case branch[j].End == "":
					key := c.keyID[branch[j].Key]
					c.deletesOf[key] = append(c.deletesOf[key], index(i))
				default:
					c.deletes = append(c.deletes, index(i))
				}
			}
		}
	}
}

// deletesKey says whether an operation asks for the key's deletion, in any branch.
func (c *checker) deletesKey(op, key int32) bool {
	o := &c.h.Operations[op]
	for _, branch := range [2][]Request{o.Then, o.Else} {
		for j := range branch {
			if branch[j].Kind == Delete && inRange(c.keys[key], branch[j].Key, branch[j].End) {
				return true
			}
		}
	}
	return false
}

// put sets a key, and keeps count of what lives and what is attached to leases.
func (r *replayer) put(key int32, to keyState) {
	old := &r.state[key]
	if old.live != to.live {
		r.live.add(int(key), map[bool]int32{true: 1, false: -1}[to.live])
	}
	if old.lease != to.lease {
		if old.lease != 0 {
			delete(r.attached[old.lease], key)
		}
		if to.lease != 0 {
			if r.attached[to.lease] == nil {
				r.attached[to.lease] = map[int32]bool{}
			}
			r.attached[to.lease][key] = true
		}
	}
	*old = to
}

// certain says whether nothing can have happened to the key unseen, up to rev.
func (r *replayer) certain(key int32, rev int64) bool {
	return r.covered.all(r.state[key].last+1, rev)
}

func (c *checker) tasks() []task {
	var tasks []task
	for i := range c.h.Operations {
		o := &c.h.Operations[i]
		if o.Outcome != OK {
			continue
		}
		if o.Kind == LeaseRevoke && o.Revision > 0 {
			tasks = append(tasks, task{o.Revision, index(i), -1})
		}
		if !o.isKV() {
			continue
		}
		wrote := o.writes()
		if !wrote {
			tasks = append(tasks, task{o.Revision, index(i), -1})
		}
		branch := o.branch()
		for j := range min(len(branch), len(o.Results)) {
			if q := &branch[j]; q.Kind == Range && q.Revision > 0 && q.Revision >= c.h.Meta.StartRevision {
				tasks = append(tasks, task{q.Revision, index(i), index(j)})
			}
		}
	}
	slices.SortStableFunc(tasks, func(a, b task) int {
		switch {
		case a.rev < b.rev:
			return -1
		case a.rev > b.rev:
			return 1
		default:
			return 0
		}
	})
	return tasks
}

// replay applies revision after revision to an empty prefix.
func (c *checker) replay() {
	c.applied, c.explains = map[int32]int64{}, map[int32]int64{}
	c.openDeletes()
	r := c.newReplayer()
	r.link()
	tasks := c.tasks()
	acked := slices.Sorted(maps.Keys(c.byRevision))
	for i, n := 0, len(c.changes); i < n || len(acked) > 0; {
		rev := int64(Never)
		if i < n {
			rev = c.changes[i].rev
		}
		if len(acked) > 0 && acked[0] <= rev {
			rev = acked[0]
			acked = acked[1:]
		}
		for len(tasks) > 0 && tasks[0].rev < rev {
			r.do(tasks[0])
			tasks = tasks[1:]
		}
		j := i
		for j < n && c.changes[j].rev == rev {
			j++
		}
		r.group(rev, i, j)
		i = j
		if c.report.Stats.Revisions++; c.report.Stats.Revisions%4096 == 0 && c.ctx.Err() != nil {
			return
		}
	}
	for _, t := range tasks {
		r.do(t)
	}
	c.changes = slices.DeleteFunc(append(c.changes, r.extra...), func(w change) bool { return w.said&dropped != 0 })
	c.sortChanges()
	c.report.Stats.Changes = len(c.changes)
}

// link notes for each change the next one of its key.
func (r *replayer) link() {
	r.next = make([]int32, len(r.changes))
	last := make([]int32, len(r.keys))
	for i := range last {
		last[i] = -1
	}
	for i := len(r.changes) - 1; i >= 0; i-- {
		key := r.changes[i].key
		r.next[i] = last[key]
		last[key] = index(i)
	}
}

// group judges and applies the changes from..to (exclusive), all of one revision.
func (r *replayer) group(rev int64, from, to int) {
	if rev <= r.h.Meta.StartRevision {
		for i := from; i < to; i++ {
			r.changes[i].said |= dropped
		}
		return
	}
	acked := r.byRevision[rev]
	switch {
	case len(acked) > 0:
		r.sameRevision(rev, acked)
		real := r.likeliest(acked, from, to)
		r.answered(real, rev, from, to)
		for _, op := range acked {
			if op != real {
				r.impostor(op, rev)
			}
		}
	default:
		r.unanswered(rev, from, to)
	}
	for i := from; i < to; i++ {
		r.apply(index(i))
	}
}

func (r *replayer) sameRevision(rev int64, acked []int32) {
	if len(acked) < 2 {
		return
	}
	v := Violation{Rule: RevisionOrder, Revision: rev, Title: fmt.Sprintf("%d writes got the same revision %d", len(acked), rev)}
	for _, i := range acked {
		v.Operations = append(v.Operations, int(i))
		v.Evidence = append(v.Evidence, r.says(i))
	}
	r.violate(v)
}

// apply makes one change part of the state.
func (r *replayer) apply(i int32) {
	w := &r.changes[i]
	if w.said&dropped != 0 {
		return
	}
	s := &r.state[w.key]
	sure := r.certain(w.key, w.rev-1)
	if w.deleted {
		if !s.live && sure && w.said&completed == 0 && w.op < 0 {
			r.phantom(i)
			if w.said&dropped != 0 {
				return
			}
		}
		w.version, w.create, w.lease, w.val = 0, 0, 0, ""
		r.put(w.key, keyState{last: w.rev, by: i})
		return
	}
	version, create := int64(1), w.rev
	if s.live {
		version, create = s.version+1, s.create
	}
	vague := !sure || s.live && s.vague
	switch {
	case w.version == 0: // nobody told
		w.version, w.create = version, create
	case vague: // what was told first is believed
		vague = false
	default: // who told it otherwise is judged where it was told
		w.version, w.create = version, create
	}
	r.put(w.key, keyState{live: true, val: w.val, mod: w.rev, create: w.create, version: w.version, lease: w.lease, vague: vague, last: w.rev, by: i})
}

// happened says whether the next change of the key shows that this one was made,
// which was answered for and which no truth watch told.
func (r *replayer) happened(i int32) bool {
	w := &r.changes[i]
	if w.said&(byWatch|byRead) != 0 {
		return true
	}
	n := r.next[i]
	if n < 0 || r.changes[n].deleted || r.changes[n].version == 0 {
		return false
	}
	return r.nextVersion(w.key, w.deleted) == r.changes[n].version && r.versionWithout(w.key) != r.changes[n].version
}

// nextVersion is what the next put of a key gets after one more change.
func (r *replayer) nextVersion(key int32, deleted bool) int64 {
	if deleted {
		return 1
	}
	return r.versionWithout(key) + 1
}

func (r *replayer) versionWithout(key int32) int64 {
	if s := &r.state[key]; s.live {
		return s.version + 1
	}
	return 1
}
