package history

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// excerptTime bounds the making of all excerpts.
const excerptTime = 10 * time.Second

// excerptOps is from how many operations on an excerpt is no help.
const excerptOps = 2000

// excerpts makes for each violation a part of the history, as small as can be found,
// that shows the same violation and none that the whole does not show.
func (c *checker) excerpts() {
	deadline, cancel := context.WithTimeout(c.ctx, excerptTime)
	defer cancel()
	for i := range c.report.Violations {
		v := &c.report.Violations[i]
		s := &shrinker{checker: c, v: v, deadline: deadline}
		if bare := s.bare(); s.shows(bare) {
			v.Excerpt = s.smaller(bare)
		}
		for _, try := range []struct {
			around  int
			others  bool // the revisions of all operations involved, not of the first alone
			project bool // on the keys involved
		}{{2, false, false}, {8, false, false}, {2, true, true}, {2, true, false}, {32, false, false}, {32, true, false}, {128, true, false}} {
			if v.Excerpt != nil {
				break
			}
			h := s.cut(try.around, try.others)
			if try.project {
				s.project(h)
			}
			if len(h.Operations) > excerptOps || deadline.Err() != nil {
				continue
			}
			if s.shows(h) {
				v.Excerpt = s.smaller(h)
				break
			}
		}
		if v.Excerpt == nil && len(c.h.Operations) <= excerptOps/4 {
			whole := *c.h
			if s.shows(&whole) {
				v.Excerpt = s.smaller(&whole)
			}
		}
		v.Marked, v.MarkedWatches = s.marked, s.markedWatches
	}
}

// shrinker makes the excerpt of one violation.
type shrinker struct {
	*checker
	v        *Violation
	deadline context.Context //nolint:containedctx // it lives as long as one excerpt is made

	marked, markedWatches []int
}

// shows says whether a part shows the violation, and no other than the whole does.
func (s *shrinker) shows(h *History) bool {
	o := Options{NoExcerpts: true, PerRule: 1000, WindowTime: time.Second, Windows: -1}
	if s.v.Rule == NotLinearizable {
		o.Windows = 0
	}
	r, err := Check(s.deadline, h, o)
	if err != nil {
		return false
	}
	found := -1
	for i := range r.Violations {
		v := &r.Violations[i]
		switch {
		case v.Rule == s.v.Rule && (v.Title == s.v.Title || v.Rule == NotLinearizable):
			found = i
		case !s.titles[string(v.Rule)+" "+v.Title]:
			return false
		}
	}
	if found >= 0 {
		s.marked, s.markedWatches = r.Violations[found].Operations, r.Violations[found].Watches
	}
	return found >= 0
}

// bare is the operations of the violation alone, on top of what there was.
func (s *shrinker) bare() *History {
	h := &History{Meta: s.h.Meta, Torn: s.h.Torn, Initial: s.initial(s.v.Revision)}
	h.Meta.StartRevision = s.v.Revision
	for _, i := range s.v.Operations {
		h.Operations = append(h.Operations, s.h.Operations[i])
	}
	return h
}

// extent is the revisions that the violation is about, with some around them.
func (s *shrinker) extent(around int, others bool) (from, to int64) {
	from, to = s.v.Revision, s.v.Revision
	see := func(rev int64) {
		if rev > 0 {
			if from == 0 {
				from = rev
			}
			from, to = min(from, rev), max(to, rev)
		}
	}
	for n, i := range s.v.Operations {
		o := &s.h.Operations[i]
		if o.Kind == Compact || n > 0 && !others {
			continue
		}
		see(o.Revision)
		see(s.applied[index(i)])
		for j := range o.Results {
			see(o.request(j).Revision)
		}
	}
	low, _ := slices.BinarySearchFunc(s.changes, from, func(w change, rev int64) int { return cmp.Compare(w.rev, rev) })
	high, _ := slices.BinarySearchFunc(s.changes, to+1, func(w change, rev int64) int { return cmp.Compare(w.rev, rev) })
	if len(s.changes) > 0 {
		low, high = max(0, low-around), min(len(s.changes)-1, high+around)
		from, to = min(from, s.changes[low].rev), max(to, s.changes[high].rev)
	}
	return max(from-1, s.h.Meta.StartRevision), to
}

// cut takes what happened at the violation's revisions, on top of what there was.
func (s *shrinker) cut(around int, others bool) *History {
	from, to := s.extent(around, others)
	h := &History{Meta: s.h.Meta, Torn: s.h.Torn}
	h.Meta.StartRevision = from
	h.Initial = s.initial(from)
	if s.v.Rule == HashDiffers {
		for _, hash := range s.h.Hashes {
			if hash.Revision == s.v.Revision {
				h.Hashes = append(h.Hashes, hash)
			}
		}
		return h
	}
	h.Hashes = s.h.Hashes
	involved := map[int]bool{}
	for _, i := range s.v.Operations {
		involved[i] = true
	}
	for i := range s.h.Operations {
		if o := &s.h.Operations[i]; involved[i] && (!o.writes() || o.Revision > from) || s.belongs(index(i), o, from, to) {
			h.Operations = append(h.Operations, *o)
		}
	}
	for i := range s.h.Watches {
		if w, ok := s.cutWatch(&s.h.Watches[i], from, to); ok {
			h.Watches = append(h.Watches, w)
		}
	}
	return h
}

func (s *shrinker) belongs(i int32, o *Operation, from, to int64) bool {
	switch {
	case o.Kind == Compact:
		return false
	case !o.isKV():
		return o.Outcome == OK && (o.Revision > from && o.Revision <= to || s.leaseInvolved(o.Lease))
	case o.Outcome == OK && o.writes():
		return o.Revision > from && o.Revision <= to
	case o.Outcome == OK:
		if slices.ContainsFunc(o.branch(), func(q Request) bool { return q.Revision > 0 && q.Revision < from }) {
			return false
		}
		return o.Revision >= from && o.Revision <= to
	case o.Outcome == Unknown:
		if rev, happened := s.applied[i]; happened {
			return rev > from && rev <= to
		}
		return s.explains[i] > from && s.explains[i] <= to || s.v.Rule == NotLinearizable && s.known[i] < to && s.known[i] >= from
	default:
		return false
	}
}

// leaseInvolved: the violation is about that lease.
func (s *shrinker) leaseInvolved(id int64) bool {
	return slices.ContainsFunc(s.v.Operations, func(i int) bool {
		o := &s.h.Operations[i]
		return o.Lease == id || slices.ContainsFunc(o.Then, func(q Request) bool { return q.Lease == id })
	})
}

// initial is what the prefix held at a revision.
func (s *shrinker) initial(rev int64) []KeyValue {
	last := map[string]KeyValue{}
	for _, kv := range s.h.Initial {
		last[kv.Key] = kv
	}
	for i := range s.changes {
		w := &s.changes[i]
		if w.rev > rev {
			break
		}
		key := s.keys[w.key]
		if w.deleted {
			delete(last, key)
			continue
		}
		last[key] = KeyValue{Key: key, Value: w.val, Version: w.version, CreateRevision: w.create, ModRevision: w.rev, Lease: w.lease}
	}
	all := make([]KeyValue, 0, len(last))
	for _, kv := range last {
		all = append(all, kv)
	}
	slices.SortFunc(all, func(a, b KeyValue) int { return cmp.Compare(a.Key, b.Key) })
	return all
}

// cutWatch keeps what a watch told of the revisions behind from, up to to, and the
// next message, which shows that it went on.
func (s *shrinker) cutWatch(w *Watch, from, to int64) (Watch, bool) {
	out := *w
	out.Responses = nil
	reach := w.reach()
	if reach.from == 0 || reach.to <= from {
		return out, false
	}
	if reach.from <= from+1 {
		out.StartRevision = from + 1
	}
	past := false
	for _, r := range w.Responses {
		events := slices.DeleteFunc(slices.Clone(r.Events), func(e Event) bool { return e.KV.ModRevision <= from || e.KV.ModRevision > to })
		switch {
		case len(events) > 0:
		case r.Progress && r.Revision > from && !past:
			past = r.Revision > to
		case r.Created && reach.from > from+1:
		default:
			continue
		}
		r.Events = events
		out.Responses = append(out.Responses, r)
	}
	return out, len(out.Responses) > 0
}

// smaller leaves out what it can: first all about some keys, then single things.
func (s *shrinker) smaller(h *History) *History {
	keys := keysOf(h)
	for range 2 {
		h = s.without(h, len(keys), func(h *History, drop func(i int) bool) {
			dropKeys(h, func(key string) bool {
				i, has := slices.BinarySearch(keys, key)
				return has && drop(i)
			})
		})
		keys = keysOf(h)
	}
	h = s.without(h, len(h.Watches), func(h *History, drop func(i int) bool) { h.Watches = kept(h.Watches, drop) })
	h = s.without(h, len(h.Hashes), func(h *History, drop func(i int) bool) { h.Hashes = kept(h.Hashes, drop) })
	h = s.without(h, len(h.Operations), dropOperations)
	h = s.without(h, len(h.Initial), func(h *History, drop func(i int) bool) { h.Initial = kept(h.Initial, drop) })
	for i := range h.Watches {
		h = s.without(h, len(h.Watches[i].Responses), func(h *History, drop func(i int) bool) {
			h.Watches = slices.Clone(h.Watches)
			h.Watches[i].Responses = kept(h.Watches[i].Responses, drop)
		})
	}
	h = s.without(h, len(h.Operations), dropOperations)
	h.Meta.Disturbances = nil
	if !s.shows(h) { // the rule asks for what was done to the cluster
		h.Meta.Disturbances = s.h.Meta.Disturbances
		s.shows(h)
	}
	return h
}

// project leaves out all keys but those that the violation's operations name.
func (s *shrinker) project(h *History) {
	named := map[string]bool{}
	for _, i := range s.v.Operations {
		for _, key := range keysOf(&History{Operations: s.h.Operations[i : i+1]}) {
			named[key] = true
		}
	}
	dropKeys(h, func(key string) bool { return !named[key] })
}

// keysOf are all keys that a history names, in order.
func keysOf(h *History) []string {
	c := &checker{h: h}
	c.collectKeys()
	return c.keys
}

// dropKeys leaves out all that has to do with some keys.
func dropKeys(h *History, drop func(key string) bool) {
	h.Initial = kept(h.Initial, func(i int) bool { return drop(h.Initial[i].Key) })
	touched := make([]bool, len(h.Operations))
	for i := range h.Operations {
		o := &h.Operations[i]
		touched[i] = slices.ContainsFunc(o.If, func(d Condition) bool { return drop(d.Key) }) ||
			slices.ContainsFunc(o.Then, func(q Request) bool { return drop(q.Key) }) ||
			slices.ContainsFunc(o.Else, func(q Request) bool { return drop(q.Key) }) ||
			slices.ContainsFunc(o.Results, func(r Result) bool {
				return slices.ContainsFunc(r.KVs, func(kv KeyValue) bool { return drop(kv.Key) })
			})
	}
	dropOperations(h, func(i int) bool { return touched[i] })
	h.Watches = slices.Clone(h.Watches)
	for i := range h.Watches {
		h.Watches[i].Responses = withoutEvents(h.Watches[i].Responses, func(e Event) bool { return drop(e.KV.Key) })
	}
}

// withoutEvents leaves events out, and the messages that are empty then.
func withoutEvents(all []WatchResponse, drop func(e Event) bool) []WatchResponse {
	var out []WatchResponse
	for _, r := range all {
		had := len(r.Events)
		r.Events = slices.DeleteFunc(slices.Clone(r.Events), drop)
		if len(r.Events) > 0 || had == 0 {
			out = append(out, r)
		}
	}
	return out
}

func kept[T any](all []T, drop func(i int) bool) []T {
	var out []T
	for i := range all {
		if !drop(i) {
			out = append(out, all[i])
		}
	}
	return out
}

// dropOperations leaves operations out, with all that was seen of them.
func dropOperations(h *History, drop func(i int) bool) {
	gone := map[int64]bool{}
	for i := range h.Operations {
		if drop(i) && h.Operations[i].writes() {
			gone[h.Operations[i].Revision] = true
		}
	}
	h.Operations = kept(h.Operations, drop)
	if len(gone) == 0 {
		return
	}
	h.Watches = slices.Clone(h.Watches)
	for i := range h.Watches {
		h.Watches[i].Responses = withoutEvents(h.Watches[i].Responses, func(e Event) bool { return gone[e.KV.ModRevision] })
	}
}

// without tries to leave out ever smaller runs of n things, from the last to the
// first, which is the truth watch.
func (s *shrinker) without(h *History, n int, cut func(h *History, drop func(i int) bool)) *History {
	for size := n; size > 0; size /= 2 {
		for from := n - size; from >= 0; from -= size {
			if s.deadline.Err() != nil {
				return h
			}
			part := *h
			cut(&part, func(i int) bool { return i >= from && i < from+size })
			if s.shows(&part) {
				h = &part
				n -= size
			}
		}
	}
	return h
}
