package history

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"time"
)

// lateNote is from when on it is worth to know that a lease lived longer.
const lateNote = 5 * time.Second

// lease is all that was asked of one lease.
type lease struct {
	grants, renews, revokes, asked []int32
	lapses                         []int64 // revisions at which all its keys went
}

func (c *checker) readLeases() {
	c.leases, c.lapses = map[int64]*lease{}, map[int64]bool{}
	for i := range c.h.Operations {
		o := &c.h.Operations[i]
		if o.Lease == 0 || o.isKV() || o.Kind == Compact || o.Outcome == Failed {
			continue
		}
		l := c.leases[o.Lease]
		if l == nil {
			l = &lease{}
			c.leases[o.Lease] = l
		}
		switch o.Kind {
		case LeaseGrant:
			l.grants = append(l.grants, index(i))
		case LeaseRenew:
			l.renews = append(l.renews, index(i))
		case LeaseRevoke:
			l.revokes = append(l.revokes, index(i))
		case LeaseTTL:
			l.asked = append(l.asked, index(i))
		default:
		}
	}
	c.readCompactions()
}

// readCompactions finds the highest revision that may have been compacted.
func (c *checker) readCompactions() {
	for i := range c.h.Operations {
		if o := &c.h.Operations[i]; o.Kind == Compact && o.Outcome != Failed {
			c.compacted = max(c.compacted, o.Revision)
		}
	}
	for i := range c.h.Watches {
		for j := range c.h.Watches[i].Responses {
			c.compacted = max(c.compacted, c.h.Watches[i].Responses[j].CompactRevision)
		}
	}
	last := int64(0)
	for _, h := range c.h.Hashes {
		last = max(last, h.CompactRevision)
		c.compactSet = true
	}
	c.compacted = max(c.compacted, last)
}

// lapsed: the deleted keys are all those of one lease, which is given back; 0 if
// they are not.
func (r *replayer) lapsed(rev int64, from, to int) int64 {
	id := r.state[r.changes[from].key].lease
	if id == 0 {
		return 0
	}
	for i := from; i < to; i++ {
		if r.state[r.changes[i].key].lease != id {
			return 0
		}
	}
	if r.covered.has(rev) && len(r.attached[id]) != to-from {
		return 0
	}
	return id
}

// ended judges a deletion that a lease or an unanswered call accounts for.
func (r *replayer) ended(rev int64, from, to int) bool {
	id := r.lapsed(rev, from, to)
	if id != 0 {
		r.lapses[rev] = true
	}
	if r.unknownDeleted(rev, from, to) { // or the lease: nothing is concluded from its time
		return true
	}
	if l := r.leases[id]; l != nil && r.h.Torn == "" {
		l.lapses = append(l.lapses, rev)
	}
	return id != 0
}

// revoked: no key of a revoked lease stays.
func (r *replayer) revoked(op int32) {
	o := &r.h.Operations[op]
	l := r.leases[o.Lease]
	if l == nil || len(l.grants) > 1 { // granted again
		return
	}
	for key := range r.attached[o.Lease] {
		if !r.certain(key, o.Revision) {
			continue
		}
		v := Violation{
			Rule: LeaseKeyStays, Revision: o.Revision, Operations: []int{int(op)},
			Title:    fmt.Sprintf("lease %x was revoked by revision %d, and %s is still there", o.Lease, o.Revision, r.keys[key]),
			Evidence: []string{r.says(op), "by the replay: " + r.holding(key)},
		}
		r.violate(v)
		return
	}
}

// checkLeases holds the end of each lease against its time to live.
func (c *checker) checkLeases() {
	ids := make([]int64, 0, len(c.leases))
	for id := range c.leases {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	late := time.Duration(0)
	calls := c.lastCalls()
	for _, id := range ids {
		l := c.leases[id]
		for _, rev := range l.lapses {
			c.lapse(id, l, rev)
			late = max(late, c.lateness(l, rev, calls))
		}
		for _, list := range [2][]int32{l.asked, l.renews} {
			for _, i := range list {
				if o := &c.h.Operations[i]; o.Outcome == OK && o.TTL < 0 { // 0 is less than a second
					c.gone(id, l, i)
				}
			}
		}
		c.back(id, l)
		c.grantedAgain(id, l)
	}
	if late > lateNote {
		c.report.Notes = append(c.report.Notes, fmt.Sprintf("a lease lived %s longer than its time to live, which etcd does not rule out: a new leader lets all leases begin anew", late.Round(time.Millisecond)))
	}
	c.checkAttached()
}

// promised is until when a lease must live by what was answered before a time, and
// the operation that says so.
func (c *checker) promised(l *lease, before int64) (until int64, by int32) {
	by = -1
	for _, list := range [2][]int32{l.grants, l.renews} {
		for _, i := range list {
			o := &c.h.Operations[i]
			if o.Outcome != OK || o.TTL <= 0 || o.Call >= before {
				continue
			}
			ttl := o.TTL * int64(time.Second)
			if end := o.Call + ttl - ttl/1000; end > until { // clocks differ by less than that
				until, by = end, i
			}
		}
	}
	return until, by
}

// endedBy: somebody may have revoked it before that time.
func (c *checker) endedBy(l *lease, before int64) bool {
	return slices.ContainsFunc(l.revokes, func(i int32) bool { return c.h.Operations[i].Call < before })
}

func (c *checker) lapse(id int64, l *lease, rev int64) {
	seen := c.seen.time(rev)
	until, by := c.promised(l, seen)
	if by < 0 || seen >= until || len(l.grants) > 1 || c.endedBy(l, seen) {
		return
	}
	c.violate(Violation{
		Rule: LeaseEarly, Revision: rev, Operations: []int{int(by)},
		Title: fmt.Sprintf("the keys of lease %x went at revision %d, before its time to live had passed", id, rev),
		Evidence: []string{
			c.says(by), fmt.Sprintf("revision %d was seen at %s; the lease had to live until %s", rev, at(seen), at(until)), "nobody revoked it",
		},
	})
}

func (c *checker) gone(id int64, l *lease, i int32) {
	o := &c.h.Operations[i]
	until, by := c.promised(l, o.Call)
	if by < 0 || o.Return >= until || len(l.grants) > 1 || c.endedBy(l, o.Return) || c.h.Operations[by].Return > o.Call {
		return
	}
	c.violate(Violation{
		Rule: LeaseEarly, Revision: o.Revision, Operations: []int{int(i), int(by)},
		Title:    fmt.Sprintf("lease %x was over at %s, before its time to live had passed", id, at(o.Return)),
		Evidence: []string{c.says(i), c.says(by), fmt.Sprintf("the lease had to live until %s, and nobody revoked it", at(until))},
	})
}

// back: who renews a lease that is over is told so. A renewal is answered by a leader
// that has made sure that it is one; how long a lease has left, by any that thinks so.
func (c *checker) back(id int64, l *lease) {
	if len(l.grants) > 1 { // granted again
		return
	}
	for _, i := range l.renews {
		o := &c.h.Operations[i]
		if o.Outcome != OK || o.TTL <= 0 {
			continue
		}
		by, over := c.overBefore(l, o.Call, c.known[i])
		if over == "" {
			continue
		}
		c.violate(Violation{
			Rule: LeaseBack, Revision: o.Revision, Operations: append([]int{int(i)}, by...),
			Title:    fmt.Sprintf("lease %x was renewed at %s, when it was over", id, at(o.Call)),
			Evidence: []string{c.says(i), over},
		})
	}
}

// overBefore says why a lease was over before a time at which a revision was known, and
// which operation says so; nothing if that is not sure.
func (c *checker) overBefore(l *lease, before, known int64) (by []int, why string) {
	for _, k := range l.revokes {
		if r := &c.h.Operations[k]; r.Outcome == OK && r.Return < before {
			return []int{int(k)}, c.says(k)
		}
	}
	for _, rev := range l.lapses {
		if rev <= known {
			return nil, fmt.Sprintf("its keys went at revision %d", rev)
		}
	}
	return nil, ""
}

// grantedAgain: a lease that lives is not granted a second time.
func (c *checker) grantedAgain(id int64, l *lease) {
	for _, i := range l.grants {
		o := &c.h.Operations[i]
		if o.Outcome != OK {
			continue
		}
		others := &lease{renews: l.renews, grants: slices.DeleteFunc(slices.Clone(l.grants), func(k int32) bool { return k == i || c.h.Operations[k].Return >= o.Call })}
		until, by := c.promised(others, o.Call)
		if by < 0 || o.Return >= until || c.h.Operations[by].Return >= o.Call || c.endedBy(l, o.Return) {
			continue
		}
		c.violate(Violation{
			Rule: LeaseEarly, Revision: o.Revision, Operations: []int{int(i), int(by)},
			Title:    fmt.Sprintf("lease %x was granted again at %s, before its time to live had passed", id, at(o.Return)),
			Evidence: []string{c.says(i), c.says(by), fmt.Sprintf("the lease had to live until %s, and nobody revoked it", at(until))},
		})
	}
}

// lateness is how much longer than it had to a lease lived for sure.
func (c *checker) lateness(l *lease, rev int64, calls []sighting) time.Duration {
	var until int64
	for _, list := range [2][]int32{l.grants, l.renews} {
		for _, i := range list {
			o := &c.h.Operations[i]
			if o.Return == Never {
				return 0
			}
			until = max(until, o.Return+o.TTL*int64(time.Second))
		}
	}
	i := sort.Search(len(calls), func(i int) bool { return calls[i].rev >= rev })
	if until == 0 || i == 0 || calls[i-1].at < until {
		return 0
	}
	return time.Duration(calls[i-1].at - until)
}

// lastCalls tells for each revision when the last linearizable call began that was
// answered at it or below: a later revision came after that.
func (c *checker) lastCalls() []sighting {
	var calls []sighting
	for i := range c.h.Operations {
		if o := &c.h.Operations[i]; o.Outcome == OK && o.isKV() && !o.Serializable && o.Revision > 0 {
			calls = append(calls, sighting{o.Revision, o.Call})
		}
	}
	slices.SortFunc(calls, func(a, b sighting) int { return cmp.Compare(a.rev, b.rev) })
	for i := 1; i < len(calls); i++ {
		calls[i].at = max(calls[i].at, calls[i-1].at)
	}
	return calls
}

// checkAttached: nothing is attached to a lease that is over, or not granted yet.
func (c *checker) checkAttached() {
	for i := range c.h.Operations {
		o := &c.h.Operations[i]
		rev, happened := c.applied[index(i)]
		if !happened || o.Outcome == Failed {
			continue
		}
		for _, branch := range [2][]Request{o.Then, o.Else} {
			for j := range branch {
				q := &branch[j]
				if q.Kind != Put || q.Lease == 0 {
					continue
				}
				if k := c.find(rev, c.keyID[q.Key]); k >= 0 && c.changes[k].lease == q.Lease && c.changes[k].val == q.Value {
					c.attach(index(i), q, rev)
				}
			}
		}
	}
}

// attach judges a put that happened at a revision.
func (c *checker) attach(i int32, q *Request, rev int64) {
	o, l := &c.h.Operations[i], c.leases[q.Lease]
	if l == nil || len(l.grants) != 1 {
		return
	}
	was, over := "was over", ""
	for _, k := range l.revokes {
		if by := &c.h.Operations[k]; by.Outcome == OK && (by.Return < o.Call || by.Revision > 0 && by.Revision < rev) {
			over = c.says(k)
		}
	}
	for _, lapsed := range l.lapses {
		if lapsed < rev {
			over = fmt.Sprintf("its keys went at revision %d", lapsed)
		}
	}
	if by := &c.h.Operations[l.grants[0]]; by.Outcome == OK && by.Revision >= rev {
		was, over = "was not granted yet", c.says(l.grants[0])
	}
	if over == "" {
		return
	}
	c.violate(Violation{
		Rule: LeaseAttach, Revision: rev, Operations: []int{int(i)},
		Title:    fmt.Sprintf("%s happened at revision %d, when its lease %s", q, rev, was),
		Evidence: []string{c.says(i), over},
	})
}
