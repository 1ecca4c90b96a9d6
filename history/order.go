package history

import (
	"cmp"
	"fmt"
	"slices"
)

// fact is a revision that somebody knew at a time.
type fact struct {
	at, rev int64
	op      int32 // -1: a watch
}

// writes says whether the operation was acknowledged to have changed something.
func (o *Operation) writes() bool {
	if o.Outcome != OK {
		return false
	}
	switch o.Kind {
	case Put:
		return true
	case Delete, Txn:
		branch := o.branch()
		for i := range branch {
			if branch[i].Kind == Put || branch[i].Kind == Delete && i < len(o.Results) && o.Results[i].Deleted > 0 {
				return true
			}
		}
	default:
	}
	return false
}

// isKV says whether it asks for keys.
func (o *Operation) isKV() bool {
	switch o.Kind {
	case Put, Delete, Range, Txn:
		return true
	default:
		return false
	}
}

// order compares the order of revisions with that of time, without looking at what
// was written: who is called after a revision was known gets no older one.
func (c *checker) order() {
	facts, sightings := c.facts()
	c.seen = newFirstSeen(sightings)
	slices.SortFunc(facts, func(a, b fact) int { return cmp.Compare(a.at, b.at) })
	calls := make([]int32, len(c.h.Operations))
	for i := range calls {
		calls[i] = index(i)
	}
	ops := c.h.Operations
	slices.SortFunc(calls, func(a, b int32) int { return cmp.Compare(ops[a].Call, ops[b].Call) })
	c.known = make([]int64, len(ops))
	judgeMembers := c.neverRestarted()
	members := map[string]int64{}
	highest, next := c.h.Meta.StartRevision, 0
	compacted := int64(0)
	for _, i := range calls {
		o := &ops[i]
		for ; next < len(facts) && facts[next].at < o.Call; next++ {
			f := facts[next]
			highest = max(highest, f.rev)
			switch {
			case f.op < 0:
			case ops[f.op].Kind == Compact:
				compacted = max(compacted, f.rev)
			case judgeMembers && ops[f.op].isKV() && ops[f.op].Endpoint != "":
				members[ops[f.op].Endpoint] = max(members[ops[f.op].Endpoint], f.rev)
			}
		}
		c.known[i] = highest
		switch {
		case o.Outcome != OK || o.Revision == 0:
		case o.isKV():
			c.orderOf(i, members[o.Endpoint])
			c.readsCompacted(i, compacted)
		case o.Kind == LeaseGrant || o.Kind == LeaseRevoke:
			c.orderOfLease(i)
		}
	}
	c.byRevision = map[int64][]int32{}
	for i := range ops {
		if o := &ops[i]; o.writes() {
			c.byRevision[o.Revision] = append(c.byRevision[o.Revision], index(i))
		}
	}
}

// readsCompacted: what was compacted before a linearizable call can't be read by it.
func (c *checker) readsCompacted(i int32, compacted int64) {
	o := &c.h.Operations[i]
	if o.Serializable {
		return // a member may be behind
	}
	branch := o.branch()
	for j := range branch {
		if q := &branch[j]; q.Kind == Range && q.Revision > 0 && q.Revision < compacted {
			c.violate(Violation{
				Rule: StaleRead, Revision: q.Revision, Operations: append([]int{int(i)}, c.compaction(compacted, o.Call)...),
				Title:    fmt.Sprintf("%s was answered when all before revision %d was compacted", q, compacted),
				Evidence: []string{c.says(i), c.knower(compacted, o.Call)},
			})
		}
	}
}

// compaction finds the call that compacted up to a revision before a time.
func (c *checker) compaction(rev, before int64) []int {
	if c.enough(StaleRead) {
		return nil
	}
	for i := range c.h.Operations {
		if o := &c.h.Operations[i]; o.Kind == Compact && o.Outcome == OK && o.Revision == rev && o.Return < before {
			return []int{i}
		}
	}
	return nil
}

// orderOfLease: grants and revocations are agreed upon as writes are. An excerpt has
// those of before its start revision, too.
func (c *checker) orderOfLease(i int32) {
	o := &c.h.Operations[i]
	if o.Revision >= c.known[i] || c.known[i] == c.h.Meta.StartRevision {
		return
	}
	c.violate(Violation{
		Rule: RevisionOrder, Revision: o.Revision, Operations: c.withKnower(i),
		Title:    fmt.Sprintf("a %s was answered at revision %d when revision %d was known before it was called", o.Kind, o.Revision, c.known[i]),
		Evidence: []string{c.says(i), c.knower(c.known[i], o.Call)},
	})
}

func (c *checker) orderOf(i int32, member int64) {
	o := &c.h.Operations[i]
	switch {
	case o.writes() && o.Revision <= c.known[i]:
		c.violate(Violation{
			Rule: RevisionOrder, Revision: o.Revision, Operations: c.withKnower(i),
			Title:    fmt.Sprintf("a write got revision %d when revision %d was known before it was called", o.Revision, c.known[i]),
			Evidence: []string{c.says(i), c.knower(c.known[i], o.Call)},
		})
	case !o.Serializable && !o.writes() && o.Revision < c.known[i]:
		c.violate(Violation{
			Rule: StaleRead, Revision: o.Revision, Operations: c.withKnower(i),
			Title:    fmt.Sprintf("a linearizable read was answered at revision %d when revision %d was known before it was called", o.Revision, c.known[i]),
			Evidence: []string{c.says(i), c.knower(c.known[i], o.Call)},
		})
	case o.Serializable && o.Revision < member:
		c.violate(Violation{
			Rule: RevisionBack, Revision: o.Revision, Operations: c.withMember(i, member),
			Title:    fmt.Sprintf("%s went back from revision %d to %d", o.Endpoint, member, o.Revision),
			Evidence: []string{c.says(i), fmt.Sprintf("%s had answered at revision %d before, and no restart is recorded", o.Endpoint, member)},
		})
	}
}

// facts are all revisions that were seen; a watch sees those it was told of.
func (c *checker) facts() ([]fact, []sighting) {
	facts := make([]fact, 0, len(c.h.Operations))
	var sightings []sighting
	for i := range c.h.Operations {
		if o := &c.h.Operations[i]; o.Outcome == OK && o.Revision > 0 { // what is compacted was, too
			facts = append(facts, fact{o.Return, o.Revision, index(i)})
			sightings = append(sightings, sighting{o.Revision, o.Return})
		}
	}
	for i := range c.h.Watches {
		for j := range c.h.Watches[i].Responses {
			r := &c.h.Watches[i].Responses[j]
			rev := r.Revision
			for k := range r.Events {
				rev = max(rev, r.Events[k].KV.ModRevision)
			}
			facts = append(facts, fact{r.At, rev, -1})
			sightings = append(sightings, sighting{rev, r.At})
		}
	}
	return facts, sightings
}

// neverRestarted: a member that was restarted may come back with what it had on
// disk, and a serializable read may show it.
func (c *checker) neverRestarted() bool {
	for _, d := range c.h.Meta.Disturbances {
		switch d.Kind {
		case "pause", "leader-move", "partition", "delay":
		default:
			return false
		}
	}
	return true
}

// enough: there are so many of one that nobody reads more, and a search through the
// whole history is not worth its time.
func (c *checker) enough(rules ...Rule) bool {
	return slices.ContainsFunc(rules, func(r Rule) bool { return c.report.Counts[r] >= 4*c.o.PerRule })
}

// knower says who knew a revision before a time.
func (c *checker) knower(rev, before int64) string {
	if c.enough(RevisionOrder, StaleRead) {
		return ""
	}
	if i := c.whoKnew(rev, before); i >= 0 {
		return c.says(index(i))
	}
	for i := range c.h.Watches {
		for j := range c.h.Watches[i].Responses {
			r := &c.h.Watches[i].Responses[j]
			if r.At < before && (r.Revision == rev || len(r.Events) > 0 && r.Events[len(r.Events)-1].KV.ModRevision == rev) {
				return c.watchSays(i, j, nil) + fmt.Sprintf(", had told revision %d before", rev)
			}
		}
	}
	return fmt.Sprintf("the history began at revision %d", c.h.Meta.StartRevision)
}

func (c *checker) whoKnew(rev, before int64) int {
	if c.enough(RevisionOrder, StaleRead) {
		return -1
	}
	for i := range c.h.Operations {
		if o := &c.h.Operations[i]; o.Outcome == OK && o.Revision == rev && o.Return < before {
			return i
		}
	}
	return -1
}

// withMember adds the operation that the same member answered before, and later.
func (c *checker) withMember(i int32, rev int64) []int {
	o := &c.h.Operations[i]
	for j := range c.h.Operations {
		if c.enough(RevisionBack) {
			break
		}
		if p := &c.h.Operations[j]; p.Endpoint == o.Endpoint && p.Outcome == OK && p.Revision == rev && p.Return < o.Call && p.isKV() {
			return []int{int(i), j}
		}
	}
	return []int{int(i)}
}

func (c *checker) withKnower(i int32) []int {
	if j := c.whoKnew(c.known[i], c.h.Operations[i].Call); j >= 0 {
		return []int{int(i), j}
	}
	return []int{int(i)}
}
