package history

import (
	"fmt"
	"slices"
)

// do judges what is to be judged at a revision that the replay has passed.
func (r *replayer) do(t task) {
	o := &r.h.Operations[t.op]
	switch {
	case o.Kind == LeaseRevoke:
		r.revoked(t.op)
	case t.rev < r.h.Meta.StartRevision:
	case t.request >= 0:
		r.ranged(t.op, int(t.request), t.rev, nil)
	default:
		r.effects = r.effects[:0]
		if o.Kind == Txn {
			r.outcome(t.op, t.rev)
		}
		branch := o.branch()
		for i := range min(len(branch), len(o.Results)) {
			r.result(t.op, i, t.rev)
		}
	}
}

// result judges one result of an operation against the state, which is that at rev,
// and against what the operation itself has done before.
func (r *replayer) result(op int32, i int, rev int64) {
	o := &r.h.Operations[op]
	q, res := &o.branch()[i], &o.Results[i]
	switch q.Kind {
	case Range:
		r.report.Stats.Reads++
		if q.Revision > 0 {
			if q.Revision > o.Revision {
				r.violate(Violation{
					Rule: WrongRead, Revision: q.Revision, Operations: []int{int(op)},
					Title:    fmt.Sprintf("%s was answered at revision %d, before there was such a revision", q, o.Revision),
					Evidence: []string{r.says(op)},
				})
			}
			return // judged at its own revision
		}
		r.ranged(op, i, rev, r.effects)
	case Delete:
		r.deleted(op, i, rev)
	case Put:
		if q.PrevKV {
			r.list(op, i, rev, r.expected(q.Key, "", r.effects), res.KVs)
		}
	default:
	}
}

func (r *replayer) deleted(op int32, i int, rev int64) {
	o := &r.h.Operations[op]
	q, res := &o.branch()[i], &o.Results[i]
	want := r.expected(q.Key, q.End, r.effects)
	if q.PrevKV {
		r.list(op, i, rev, want, res.KVs)
	}
	if int64(len(want)) == res.Deleted {
		return
	}
	from, to := r.bounds(q.Key, q.End)
	for k := from; k < to; k++ {
		if r.mayDiffer(index(k), rev) {
			r.skippedReads++
			return
		}
	}
	v := Violation{
		Rule: WrongRead, Revision: o.Revision, Operations: []int{int(op)},
		Title:    fmt.Sprintf("%s at revision %d says that it deleted %d, and there were %d", q, o.Revision, res.Deleted, len(want)),
		Evidence: []string{r.says(op)},
	}
	if len(want) > 0 {
		v.Evidence = append(v.Evidence, "by the replay: "+want[0].String())
	}
	r.violate(v)
}

// ranged judges the result of a range. Most are right, and are found to be so
// without the expected list being made.
func (r *replayer) ranged(op int32, i int, rev int64, own []effect) {
	o := &r.h.Operations[op]
	q, res := &o.branch()[i], &o.Results[i]
	from, to := r.bounds(q.Key, q.End)
	count := r.live.below(to) - r.live.below(from)
	overlaps := slices.ContainsFunc(own, func(e effect) bool { return int(e.key) >= from && int(e.key) < to })
	if !overlaps && r.right(q, res, from, count) {
		return
	}
	want := r.expected(q.Key, q.End, own)
	if !overlaps && rev < o.Revision && q.Revision == 0 {
		rev = o.Revision - 1
	}
	r.numberOwn(op, want)
	all := int64(len(want))
	more := q.Limit > 0 && all > q.Limit
	judged := r.list(op, i, rev, want, res.KVs)
	if judged {
		return
	}
	if n := int64(len(res.KVs)); q.Limit > 0 && n > q.Limit {
		r.violate(Violation{
			Rule: WrongRead, Revision: rev, Operations: []int{int(op)},
			Title:    fmt.Sprintf("%s at revision %d found %d keys", q, rev, n),
			Evidence: []string{r.says(op)},
		})
		return
	}
	if all == res.Count && res.More == more {
		return
	}
	for k := from; k < to; k++ {
		if r.mayDiffer(index(k), rev) {
			r.skippedReads++
			return
		}
	}
	r.violate(Violation{
		Rule: WrongRead, Revision: rev, Operations: []int{int(op)},
		Title:    fmt.Sprintf("%s at revision %d counts %d (more: %v) where there are %d (more: %v)", q, rev, res.Count, res.More, all, more),
		Evidence: []string{r.says(op)},
	})
}

// numberOwn: a range behind a put of its own transaction sees it, with the revision
// that the transaction gets.
func (r *replayer) numberOwn(op int32, want []KeyValue) {
	for i := range want {
		if want[i].ModRevision != ownRevision {
			continue
		}
		want[i].ModRevision = r.h.Operations[op].Revision
		if want[i].CreateRevision == ownRevision {
			want[i].CreateRevision = want[i].ModRevision
		}
	}
}

// ownRevision stands for the revision of the transaction under way.
const ownRevision = -1

// right compares a result with the state.
func (r *replayer) right(q *Request, res *Result, from int, count int64) bool {
	if res.Count != count || res.More != (q.Limit > 0 && count > q.Limit) {
		return false
	}
	n := count
	if q.Limit > 0 {
		n = min(n, q.Limit)
	}
	if int64(len(res.KVs)) != n {
		return false
	}
	last := index(-1)
	for j := range res.KVs {
		kv := &res.KVs[j]
		key, ok := r.keyID[kv.Key]
		if !ok || key <= last || !inRange(kv.Key, q.Key, q.End) || !r.same(key, kv) {
			return false
		}
		last = key
	}
	return n == 0 || r.live.below(int(last)+1)-r.live.below(from) == n
}

func (r *replayer) same(key int32, kv *KeyValue) bool {
	s := &r.state[key]
	return s.live && kv.ModRevision == s.mod && kv.Version == s.version && kv.CreateRevision == s.create && kv.Lease == s.lease && kv.Value == s.val
}

func (r *replayer) kv(key int) KeyValue {
	s := &r.state[key]
	return KeyValue{Key: r.keys[key], Value: s.val, Version: s.version, CreateRevision: s.create, ModRevision: s.mod, Lease: s.lease}
}

// expected lists a range, with an operation's own effects so far.
func (r *replayer) expected(key, end string, own []effect) []KeyValue {
	var want []KeyValue
	from, to := r.bounds(key, end)
	for k := from; k < to; k++ {
		e := slices.IndexFunc(own, func(e effect) bool { return int(e.key) == k })
		switch {
		case e < 0 && r.state[k].live:
			want = append(want, r.kv(k))
		case e >= 0 && !own[e].deleted:
			kv := KeyValue{Key: r.keys[k], Value: own[e].val, Version: 1, CreateRevision: ownRevision, ModRevision: ownRevision, Lease: own[e].lease}
			if r.state[k].live {
				kv.Version, kv.CreateRevision = r.state[k].version+1, r.state[k].create
			}
			want = append(want, kv)
		}
	}
	return want
}

// mayDiffer: something may have happened to the key that nobody told.
func (r *replayer) mayDiffer(key int32, rev int64) bool { return !r.certain(key, rev) }

// list compares what was read with what there was. It says whether it found a
// difference, which it has then reported or put down as one that can't be judged.
func (r *replayer) list(op int32, i int, rev int64, want, got []KeyValue) bool {
	q := &r.h.Operations[op].branch()[i]
	differs := false
	a, b := 0, 0
	last := ""
	for a < len(want) || b < len(got) {
		switch {
		case b < len(got) && (b > 0 && got[b].Key <= last || !inRange(got[b].Key, q.Key, q.End)):
			r.violate(Violation{
				Rule: WrongRead, Revision: rev, Operations: []int{int(op)},
				Title:    fmt.Sprintf("%s at revision %d has %s out of its order or range", q, rev, got[b].Key),
				Evidence: []string{r.says(op)},
			})
			return true
		case b == len(got) || a < len(want) && want[a].Key < got[b].Key:
			if b == len(got) && q.Limit > 0 && int64(max(a, len(got))) >= q.Limit {
				return differs // behind the limit, or pushed out by another, which is judged
			}
			r.differs(op, rev, &want[a], nil)
			differs = true
			a++
		case a == len(want) || got[b].Key < want[a].Key:
			r.differs(op, rev, nil, &got[b])
			differs, last = true, got[b].Key
			b++
		default:
			if want[a] != got[b] {
				r.differs(op, rev, &want[a], &got[b])
				differs = true
			}
			last = got[b].Key
			a++
			b++
		}
	}
	return differs
}

// differs judges one key that was read other than it was.
func (r *replayer) differs(op int32, rev int64, want, got *KeyValue) {
	o := &r.h.Operations[op]
	var key int32
	if want != nil {
		key = r.keyID[want.Key]
	} else {
		key = r.keyID[got.Key]
	}
	s := &r.state[key]
	v := Violation{Rule: WrongRead, Revision: rev, Operations: []int{int(op)}, Evidence: []string{r.says(op), fmt.Sprintf("at revision %d by the replay: %s", rev, r.holding(key))}}
	by := index(-1)
	if s.by >= 0 {
		by = r.changes[s.by].op
	}
	if by >= 0 && by != op {
		v.Operations = append(v.Operations, int(by))
		v.Evidence = append(v.Evidence, r.says(by))
	}
	name := r.keys[key]
	switch {
	case want != nil && got != nil && want.ModRevision == got.ModRevision:
		mayHaveBeen := s.vague
		if o.writes() && want.ModRevision == o.Revision { // its own
			mayHaveBeen = !r.certain(key, rev) || s.live && s.vague
		}
		if mayHaveBeen && want.Value == got.Value && want.Lease == got.Lease {
			r.skippedReads++
			return
		}
		r.sameRevisionDiffers(&v, want, got)
	case got != nil && r.early(&v, key, o, got):
	case !r.certain(key, rev) && !r.surelyOlder(key, rev, want, got):
		r.skippedReads++
		return
	case want == nil:
		v.Title = fmt.Sprintf("%s was read at revision %d where it was not", got, rev)
	case by >= 0 && r.h.Operations[by].Outcome == OK && (got == nil || got.ModRevision < want.ModRevision) && !o.Serializable && r.currentRead(o):
		r.older(&v, o, by, s)
		v.Title = fmt.Sprintf("%s was acknowledged, and a read at revision %d found %s", want, rev, orNothing(got))
	case got == nil:
		v.Title = fmt.Sprintf("%s was not read at revision %d where it was", want, rev)
	default:
		v.Title = fmt.Sprintf("%s was read as %s at revision %d, where it was %s", name, got, rev, want)
	}
	r.violate(v)
}

func orNothing(kv *KeyValue) string {
	if kv == nil {
		return "nothing"
	}
	return kv.String()
}

// currentRead: it was made for the latest state, not for an old revision.
func (r *replayer) currentRead(o *Operation) bool {
	return !slices.ContainsFunc(o.branch(), func(q Request) bool { return q.Revision > 0 })
}

// older tells a write that is gone from one that a read missed: whether anybody
// could read it later.
func (r *replayer) older(v *Violation, o *Operation, by int32, s *keyState) {
	if r.h.Operations[by].Return >= o.Call {
		return // under way together: only the revision says that it must be there
	}
	v.Rule = StaleRead
	if r.changes[s.by].asked < o.Call && !r.builtUpon(s) {
		v.Rule = LostWrite
		v.Evidence = append(v.Evidence, "nobody has read it since")
	}
}

// builtUpon: the next put of the key counts this one, so that it is not lost.
func (r *replayer) builtUpon(s *keyState) bool {
	n := r.next[s.by]
	return n >= 0 && !r.changes[n].deleted && r.changes[n].version == s.version+1
}

func (r *replayer) sameRevisionDiffers(v *Violation, want, got *KeyValue) {
	switch {
	case want.Value != got.Value:
		v.Rule, v.Title = WrongValue, fmt.Sprintf("%s was read with value %s, and was written with %s", want.Key, clipped(got.Value), want)
	case want.Lease != got.Lease:
		v.Rule, v.Title = LeaseAttach, fmt.Sprintf("%s was read with lease %x, and has lease %x", want, got.Lease, want.Lease)
	default:
		v.Rule = WrongVersion
		v.Title = fmt.Sprintf("%s was read with version %d and create revision %d, and has version %d and create revision %d", want.Key, got.Version, got.CreateRevision, want.Version, want.CreateRevision)
	}
}

// early: what was read had not been asked for yet.
func (r *replayer) early(v *Violation, key int32, o *Operation, got *KeyValue) bool {
	by := r.writers[written{key, got.Value}]
	if len(by) != 1 || r.h.Operations[by[0]].Call <= o.Return {
		return false
	}
	v.Rule, v.Title = FutureRead, fmt.Sprintf("%s was read before it was written", got)
	v.Evidence = append(v.Evidence, r.says(by[0]))
	v.Operations = append(v.Operations, int(by[0]))
	return true
}

// surelyOlder: even if changes were made that nobody told, a key never goes back.
func (r *replayer) surelyOlder(key int32, rev int64, want, got *KeyValue) bool {
	switch {
	case want == nil:
		return false
	case got != nil:
		return got.ModRevision < want.ModRevision
	default:
		return !r.mayVanish(key, rev)
	}
}

// mayVanish: a deletion that nobody told may have been made.
func (r *replayer) mayVanish(key int32, rev int64) bool {
	if r.h.Torn != "" || r.state[key].lease != 0 {
		return true
	}
	for _, list := range [2][]int32{r.deletesOf[key], r.leasesOf[key]} {
		for _, op := range list {
			if r.known[op] < rev {
				return true
			}
		}
	}
	for _, op := range r.deletes {
		if r.known[op] < rev && r.deletesKey(op, key) {
			return true
		}
	}
	return false
}
