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
	if len(l.grants) > 1 { // granted again
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
		for _, i := range l.asked {
			if o := &c.h.Operations[i]; o.Outcome == OK && o.TTL < 0 { // 0 is less than a second
				c.gone(id, l, i)
			}
		}
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

// checkAttached: nothing is attached to a lease that is over.
func (c *checker) checkAttached() {
	for i := range c.h.Operations {
		o := &c.h.Operations[i]
		if !o.writes() {
			continue
		}
		branch := o.branch()
		for j := range branch {
			if q := &branch[j]; q.Kind == Put && q.Lease != 0 {
				c.attach(index(i), q)
			}
		}
	}
}

func (c *checker) attach(i int32, q *Request) {
	o, l := &c.h.Operations[i], c.leases[q.Lease]
	if l == nil || len(l.grants) != 1 {
		return
	}
	over := ""
	for _, k := range l.revokes {
		if by := &c.h.Operations[k]; by.Outcome == OK && by.Return < o.Call {
			over = c.says(k)
		}
	}
	for _, rev := range l.lapses {
		if rev < o.Revision {
			over = fmt.Sprintf("its keys went at revision %d", rev)
		}
	}
	if over == "" {
		return
	}
	c.violate(Violation{
		Rule: LeaseAttach, Revision: o.Revision, Operations: []int{int(i)},
		Title:    fmt.Sprintf("%s was acknowledged at revision %d, when its lease was over", q, o.Revision),
		Evidence: []string{c.says(i), over},
	})
}
