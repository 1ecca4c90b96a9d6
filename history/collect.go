package history

import (
	"cmp"
	"slices"
	"sort"
)

// Who says that a change was made.
const (
	byTruth uint8 = 1 << iota
	byWatch
	byAnswer
	byRead
	byReads   // more than one
	dropped   // it was not made: who says so lies
	completed // nobody saw it; it follows from what was asked for
)

// change is what one revision did to one key.
type change struct {
	rev     int64
	key     int32
	op      int32 // who asked for it; -1: nobody is known
	said    uint8
	deleted bool
	val     string
	lease   int64
	// As whoever saw it first told; after the replay, as they must be.
	version, create int64
	// asked is the last call that still saw it.
	asked int64
}

// place of a change.
type place struct {
	rev int64
	key int32
}

// written is a value, which is written once.
type written struct {
	key int32
	val string
}

func (w *change) observed() bool { return w.said&(byTruth|byWatch|byRead) != 0 }

// collect brings together everything that anybody says was changed, by revision.
func (c *checker) collect() {
	c.collectKeys()
	c.collectWriters()
	c.cover()
	c.changeAt = make(map[place]int32, len(c.byRevision))
	for i := range c.h.Watches {
		if c.isTruth(&c.h.Watches[i]) {
			c.collectWatch(&c.h.Watches[i], byTruth)
		}
	}
	for i := range c.h.Operations {
		c.collectAnswer(index(i))
	}
	for i := range c.h.Watches {
		if !c.isTruth(&c.h.Watches[i]) {
			c.collectWatch(&c.h.Watches[i], byWatch)
		}
	}
	for i := range c.h.Operations {
		c.collectReads(index(i))
	}
	c.changeAt = nil
	c.sortChanges()
}

func (c *checker) sortChanges() {
	slices.SortFunc(c.changes, func(a, b change) int { return cmp.Or(cmp.Compare(a.rev, b.rev), cmp.Compare(a.key, b.key)) })
}

// find is the index of a change, or -1.
func (c *checker) find(rev int64, key int32) int {
	i := sort.Search(len(c.changes), func(i int) bool {
		w := &c.changes[i]
		return w.rev > rev || w.rev == rev && w.key >= key
	})
	if i < len(c.changes) && c.changes[i].rev == rev && c.changes[i].key == key {
		return i
	}
	return -1
}

func (c *checker) collectKeys() {
	c.keyID = map[string]int32{}
	see := func(key string) {
		if _, ok := c.keyID[key]; !ok {
			c.keyID[key] = 0
			c.keys = append(c.keys, key)
		}
	}
	for i := range c.h.Initial {
		see(c.h.Initial[i].Key)
	}
	for i := range c.h.Operations {
		o := &c.h.Operations[i]
		for j := range o.If {
			see(o.If[j].Key)
		}
		for _, branch := range [2][]Request{o.Then, o.Else} {
			for j := range branch {
				if branch[j].End == "" {
					see(branch[j].Key)
				}
			}
		}
		for j := range o.Results {
			for k := range o.Results[j].KVs {
				see(o.Results[j].KVs[k].Key)
			}
		}
	}
	for i := range c.h.Watches {
		for j := range c.h.Watches[i].Responses {
			r := &c.h.Watches[i].Responses[j]
			for k := range r.Events {
				see(r.Events[k].KV.Key)
			}
		}
	}
	slices.Sort(c.keys)
	for i, key := range c.keys {
		c.keyID[key] = index(i)
	}
}

// bounds are the keys of a range, as indexes from and to (exclusive).
func (c *checker) bounds(key, end string) (from, to int) {
	from = sort.SearchStrings(c.keys, key)
	switch end {
	case "":
		if from < len(c.keys) && c.keys[from] == key {
			return from, from + 1
		}
		return from, from
	case "\x00":
		return from, len(c.keys)
	default:
		return from, max(from, sort.SearchStrings(c.keys, end))
	}
}

func inRange(key, from, end string) bool {
	switch end {
	case "":
		return key == from
	case "\x00":
		return key >= from
	default:
		return key >= from && key < end
	}
}

func (c *checker) collectWriters() {
	c.writers = make(map[written][]int32, len(c.h.Operations)/2)
	room := make([]int32, 0, len(c.h.Operations))
	for i := range c.h.Operations {
		o := &c.h.Operations[i]
		if o.Kind != Put && o.Kind != Txn {
			continue
		}
		for _, branch := range [2][]Request{o.Then, o.Else} {
			for j := range branch {
				if branch[j].Kind != Put {
					continue
				}
				w := written{c.keyID[branch[j].Key], branch[j].Value}
				if has := c.writers[w]; has == nil && len(room) < cap(room) {
					room = append(room, index(i))
					c.writers[w] = room[len(room)-1 : len(room) : len(room)]
				} else if len(has) == 0 || has[len(has)-1] != index(i) {
					if len(has) == 1 {
						c.writtenAgain++
					}
					c.writers[w] = append(has, index(i))
				}
			}
		}
	}
}

// isTruth says whether a watch tells everything between two revisions.
func (c *checker) isTruth(w *Watch) bool {
	if !w.Truth || w.NoPut || w.NoDelete {
		return false
	}
	prefix := c.h.Meta.Prefix
	if prefix == "" {
		return w.Key <= "\x00" && w.End == "\x00"
	}
	end := prefixEnd(prefix)
	return inRange(prefix, w.Key, w.End) && (w.End == "\x00" || end != "\x00" && w.End >= end)
}

// prefixEnd is the first key behind a prefix.
func prefixEnd(prefix string) string {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			return prefix[:i] + string([]byte{prefix[i] + 1})
		}
	}
	return "\x00"
}

// reach is what a watch must have delivered: from its start to the last revision
// that it delivered whole or said to have delivered.
func (w *Watch) reach() span {
	s := span{from: w.StartRevision}
	for i := range w.Responses {
		r := &w.Responses[i]
		if s.from == 0 {
			switch {
			case r.Created && r.Revision > 0:
				s.from = r.Revision + 1
			case len(r.Events) > 0:
				s.from = r.Events[0].KV.ModRevision
			case r.Progress:
				s.from = r.Revision + 1
			}
		}
		if r.Progress {
			s.to = max(s.to, r.Revision)
		}
		for j := range r.Events {
			rev := r.Events[j].KV.ModRevision
			if r.Fragment && rev == r.Events[len(r.Events)-1].KV.ModRevision {
				rev-- // the rest of it follows
			}
			s.to = max(s.to, rev)
		}
	}
	return s
}

func (c *checker) cover() {
	var all []span
	for i := range c.h.Watches {
		w := &c.h.Watches[i]
		if !c.isTruth(w) {
			continue
		}
		s := w.reach()
		if s.from > 0 && s.to >= s.from {
			all = append(all, s)
		}
	}
	c.covered = merged(all)
}

func (c *checker) claim(rev int64, key int32, by uint8) (w *change, isNew bool) {
	at := place{rev, key}
	if i, ok := c.changeAt[at]; ok {
		w = &c.changes[i]
	} else {
		c.changeAt[at] = index(len(c.changes))
		c.changes = append(c.changes, change{rev: rev, key: key, op: -1})
		w, isNew = &c.changes[len(c.changes)-1], true
	}
	if by == byRead && w.said&byRead != 0 {
		by = byReads
	}
	w.said |= by
	return w, isNew
}

func (c *checker) collectWatch(w *Watch, by uint8) {
	for i := range w.Responses {
		for j := range w.Responses[i].Events {
			e := &w.Responses[i].Events[j]
			ch, isNew := c.claim(e.KV.ModRevision, c.keyID[e.KV.Key], by)
			if isNew {
				ch.deleted, ch.val, ch.lease = e.Deleted, e.KV.Value, e.KV.Lease
			}
			if ch.version == 0 && !e.Deleted {
				ch.version, ch.create = e.KV.Version, e.KV.CreateRevision
			}
		}
	}
}

// collectAnswer takes what an acknowledged write says. What was asked for counts:
// whoever saw another value there is wrong.
func (c *checker) collectAnswer(i int32) {
	o := &c.h.Operations[i]
	if !o.writes() {
		return
	}
	branch := o.branch()
	for j := range branch {
		q := &branch[j]
		deleted := q.Kind == Delete && q.End == "" && j < len(o.Results) && o.Results[j].Deleted > 0
		if q.Kind != Put && !deleted {
			continue
		}
		ch, _ := c.claim(o.Revision, c.keyID[q.Key], byAnswer)
		if ch.op >= 0 {
			continue // two writes at one revision, which the replay tells
		}
		ch.op = i
		ch.deleted, ch.val, ch.lease = deleted, q.Value, q.Lease
	}
}

func (c *checker) collectReads(i int32) {
	o := &c.h.Operations[i]
	if o.Outcome != OK || o.Kind != Range && o.Kind != Txn {
		return
	}
	branch := o.branch()
	for j := range o.Results {
		if j >= len(branch) || branch[j].Kind != Range {
			continue
		}
		for k := range o.Results[j].KVs {
			kv := &o.Results[j].KVs[k]
			if kv.ModRevision <= c.h.Meta.StartRevision {
				continue
			}
			ch, isNew := c.claim(kv.ModRevision, c.keyID[kv.Key], byRead)
			if isNew {
				ch.val, ch.lease = kv.Value, kv.Lease
			}
			if ch.version == 0 && !ch.deleted {
				ch.version, ch.create = kv.Version, kv.CreateRevision
			}
			if !o.Serializable && branch[j].Revision == 0 {
				ch.asked = max(ch.asked, o.Call)
			}
		}
	}
}
