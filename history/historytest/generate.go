// Package historytest makes histories: correct ones of any size from a small etcd of
// its own, and broken ones from those. It shares no code with the checker.
package historytest

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"sort"
	"time"

	"github.com/quorate/quorate/history"
)

// Prefix of all generated histories.
const Prefix = "/check/"

// wantedSpan is how long a generated history lasts, so that leases of seconds end
// in it.
const wantedSpan = 20 * time.Second

// Generate makes a correct history of n operations by so many clients (at least
// one), the same for the same seed: puts, deletes, ranges, transactions, leases,
// compactions, old and serializable reads, refusals and calls without an answer,
// seen by watches of several kinds, beside others who write elsewhere.
func Generate(seed uint64, n, clients int) *history.History {
	s := newSimulation(seed, n, max(clients, 1))
	s.run(n)
	return s.finish()
}

// version is what a key held from one revision on.
type version struct {
	rev, create, version, lease int64
	val                         string
	deleted                     bool
}

// record is one change in the log of the simulated cluster.
type record struct {
	rev, at int64
	key     int
	prev    *version
	version
}

type leaseState struct {
	id, ttl, expires int64
	keys             map[int]bool
}

// pending is a call on its way, or the end of a lease.
type pending struct {
	at     int64
	client int
	op     *history.Operation // nil: the client begins
	late   bool               // its client has given up
	lease  int64
	apply  bool
	order  int
}

type queue []*pending

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(*pending)) } //nolint:errcheck,forcetypeassert // only pendings are pushed
func (q *queue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

type simulation struct {
	rnd     *rand.Rand
	h       *history.History
	keys    []string
	store   [][]version
	log     []record
	rev     int64
	compact int64
	now     int64
	mean    int64 // of a call's way to the cluster
	leases  map[int64]*leaseState
	open    []int64 // leases that clients use
	members []string
	applied []int64
	values  int
	queue   queue
	order   int
	small   bool // keys and transactions alone
}

const firstRevision = 7

func newSimulation(seed uint64, n, clients int) *simulation {
	s := &simulation{
		rnd: rand.New(rand.NewPCG(seed, 4)), //nolint:gosec // the same for the same seed
		h:   &history.History{}, rev: firstRevision,
		leases: map[int64]*leaseState{}, members: []string{"m1", "m2", "m3"}, applied: []int64{firstRevision, firstRevision, firstRevision},
	}
	s.mean = max(int64(wantedSpan)*int64(clients)/int64(max(n, 1))/3, int64(20*time.Microsecond))
	for i := range min(max(n/20, 8), 2000) {
		s.keys = append(s.keys, fmt.Sprintf("%sk%05d", Prefix, i))
	}
	s.store = make([][]version, len(s.keys))
	s.h.Meta = history.Meta{Format: history.Format, Name: fmt.Sprintf("generated from seed %d", seed), Prefix: Prefix, StartRevision: firstRevision, Members: s.members}
	s.h.Operations = make([]history.Operation, 0, n)
	for i := range clients {
		s.push(&pending{at: s.some(), client: i})
	}
	return s
}

func (s *simulation) push(p *pending) {
	s.order++
	p.order = s.order
	heap.Push(&s.queue, p)
}

// some is a random span of time around the mean.
func (s *simulation) some() int64 {
	return 1 + int64(s.rnd.ExpFloat64()*float64(s.mean))
}

func (s *simulation) run(n int) {
	asked := 0
	for len(s.queue) > 0 {
		p, _ := heap.Pop(&s.queue).(*pending)
		if p.lease != 0 {
			s.now = p.at
			s.expire(p.lease)
			continue
		}
		if p.op == nil {
			if asked < n {
				asked++
				s.call(p)
			}
			continue
		}
		s.now = p.at
		if p.apply {
			s.do(p.op)
		}
		s.answer(p)
	}
}

// call sends a new operation on its way.
func (s *simulation) call(p *pending) {
	o := s.choose()
	o.Client, o.Call, o.Outcome, o.Return = p.client, p.at, history.OK, 0
	o.Endpoint = s.members[s.rnd.IntN(len(s.members))]
	sent := &pending{at: p.at + s.some(), client: p.client, op: o, apply: true}
	changes := o.Kind == history.Put || o.Kind == history.Delete || o.Kind == history.Txn || o.Kind == history.LeaseRenew || o.Kind == history.LeaseRevoke
	switch luck := s.rnd.IntN(100); {
	case !changes:
	case luck < 1:
		o.Outcome, o.Error, sent.apply = history.Failed, "etcdserver: too many requests", false
	case luck < 3:
		o.Outcome, o.Error, o.Return = history.Unknown, "context deadline exceeded", history.Never
		sent.apply = luck == 1
		if s.rnd.IntN(2) == 0 { // it arrives long after its client has given up
			sent.late = true
			s.push(&pending{at: sent.at + s.some(), client: p.client})
			sent.at += 40 * s.some()
		}
	}
	s.push(sent)
}

// answer records an operation, and lets its client go on.
func (s *simulation) answer(p *pending) {
	o := p.op
	switch o.Outcome {
	case history.Unknown:
		// What it was told, it was not told.
		o.Results, o.Revision, o.Succeeded = nil, 0, false
		if o.Kind == history.LeaseRenew {
			o.TTL = 0
		}
	default:
		o.Return = s.now + s.some()
	}
	s.h.Operations = append(s.h.Operations, *o)
	if p.late {
		return
	}
	next := s.now
	if o.Outcome != history.Unknown {
		next = o.Return
	}
	s.push(&pending{at: next + s.some(), client: p.client})
}

func (s *simulation) value() string {
	s.values++
	return fmt.Sprintf("v%07d", s.values)
}

func (s *simulation) key() int {
	if s.rnd.IntN(3) == 0 { // some keys are hot
		return s.rnd.IntN(max(len(s.keys)/10, 1))
	}
	return s.rnd.IntN(len(s.keys))
}

// some keys in a row, as a range's bounds.
func (s *simulation) row() (key, end string) {
	if s.rnd.IntN(40) == 0 && len(s.keys) < 100 {
		return Prefix, "/check0"
	}
	from := s.key()
	to := from + 1 + s.rnd.IntN(8)
	if to >= len(s.keys) {
		return s.keys[from], "/check0"
	}
	return s.keys[from], s.keys[to]
}

func (s *simulation) choose() *history.Operation {
	one := func(kind history.Kind, q history.Request) *history.Operation {
		q.Kind = kind
		return &history.Operation{Kind: kind, Then: []history.Request{q}}
	}
	key := s.keys[s.key()]
	luck := s.rnd.IntN(1000)
	if s.small {
		switch {
		case luck >= 300 && luck < 340, luck >= 540 && luck < 600, luck >= 690 && luck < 720, luck >= 930:
			luck = 400 // a plain read instead
		case luck < 60 || luck >= 720 && luck < 740:
			luck += 60 // previous values are not asked for
		}
	}
	switch {
	case luck < 300:
		return one(history.Put, history.Request{Key: key, Value: s.value(), PrevKV: luck < 60})
	case luck < 340:
		return one(history.Put, history.Request{Key: key, Value: s.value(), Lease: s.lease()})
	case luck < 540:
		return one(history.Range, history.Request{Key: key})
	case luck < 600:
		o := one(history.Range, history.Request{Key: key})
		o.Serializable = true
		return o
	case luck < 690:
		q := history.Request{Limit: int64(max(s.rnd.IntN(10)-5, 0))}
		q.Key, q.End = s.row()
		return one(history.Range, q)
	case luck < 720:
		q := history.Request{Revision: s.oldRevision()}
		q.Key, q.End = s.row()
		return one(history.Range, q)
	case luck < 780:
		return one(history.Delete, history.Request{Key: key, PrevKV: luck < 740})
	case luck < 790:
		q := history.Request{}
		q.Key, q.End = s.row()
		return one(history.Delete, q)
	case luck < 930:
		return s.txn()
	default:
		return s.leaseOrCompact(luck)
	}
}

func (s *simulation) leaseOrCompact(luck int) *history.Operation {
	switch {
	case luck < 945 || len(s.open) == 0 && luck < 999:
		return &history.Operation{Kind: history.LeaseGrant, TTL: int64(1 + s.rnd.IntN(4))}
	case luck < 985:
		return &history.Operation{Kind: history.LeaseRenew, Lease: s.lease()}
	case luck < 992:
		return &history.Operation{Kind: history.LeaseTTL, Lease: s.lease()}
	case luck < 998:
		return &history.Operation{Kind: history.LeaseRevoke, Lease: s.lease()}
	default:
		return &history.Operation{Kind: history.Compact, Revision: max(s.compact+1, s.rev-int64(10+s.rnd.IntN(200)))}
	}
}

// lease is one that is thought to live, or 0.
func (s *simulation) lease() int64 {
	if len(s.open) == 0 {
		return 0
	}
	return s.open[s.rnd.IntN(len(s.open))]
}

func (s *simulation) oldRevision() int64 {
	low := max(s.compact, firstRevision)
	return low + s.rnd.Int64N(s.rev-low+1)
}

func (s *simulation) txn() *history.Operation {
	o := &history.Operation{Kind: history.Txn}
	a, b := s.key(), s.key()
	for b == a {
		b = (b + 1) % len(s.keys)
	}
	put := func(k int) history.Request {
		return history.Request{Kind: history.Put, Key: s.keys[k], Value: s.value()}
	}
	get := func(k int) history.Request { return history.Request{Kind: history.Range, Key: s.keys[k]} }
	was := version{}
	if v := s.latest(a); v != nil && s.rnd.IntN(10) > 0 {
		was = *v
	}
	switch s.rnd.IntN(6) {
	case 0: // compare and swap
		o.If = []history.Condition{{Key: s.keys[a], Field: history.FieldMod, Op: "=", Number: was.rev}}
		o.Then, o.Else = []history.Request{put(a)}, []history.Request{get(a)}
	case 1: // create
		o.If = []history.Condition{{Key: s.keys[a], Field: history.FieldCreate, Op: "=", Number: 0}}
		o.Then, o.Else = []history.Request{put(a), put(b)}, []history.Request{put(b), get(a)}
	case 2: // by value
		o.If = []history.Condition{{Key: s.keys[a], Field: history.FieldValue, Op: "=", Value: was.val}, {Key: s.keys[b], Field: history.FieldVersion, Op: ">", Number: 0}}
		o.Then, o.Else = []history.Request{put(b), {Kind: history.Delete, Key: s.keys[a]}}, []history.Request{get(a), get(b)}
	case 3: // several at once, read back
		o.Then = []history.Request{put(a), put(b), get(a)}
	case 4: // read only
		o.Then = []history.Request{get(a), get(b)}
	default:
		o.If = []history.Condition{{Key: s.keys[a], Field: history.FieldLease, Op: "!=", Number: 0}, {Key: s.keys[b], Field: history.FieldVersion, Op: "<", Number: 4}}
		o.Then, o.Else = []history.Request{{Kind: history.Delete, Key: s.keys[a]}, put(b)}, []history.Request{{Kind: history.Delete, Key: s.keys[b]}, get(a)}
	}
	return o
}

// latest is what a key holds, or nil.
func (s *simulation) latest(k int) *version {
	if vs := s.store[k]; len(vs) > 0 && !vs[len(vs)-1].deleted {
		return &vs[len(vs)-1]
	}
	return nil
}

// held is what a key held at a revision, or nil.
func (s *simulation) held(k int, rev int64) *version {
	vs := s.store[k]
	i := sort.Search(len(vs), func(i int) bool { return vs[i].rev > rev }) - 1
	if i < 0 || vs[i].deleted {
		return nil
	}
	return &vs[i]
}

func (s *simulation) index(key string) int { return sort.SearchStrings(s.keys, key) }

func (s *simulation) bounds(q *history.Request) (from, to int) {
	from = s.index(q.Key)
	if q.End == "" {
		return from, from + 1
	}
	return from, s.index(q.End)
}

// do lets an operation happen.
func (s *simulation) do(o *history.Operation) {
	switch o.Kind {
	case history.LeaseGrant, history.LeaseRenew, history.LeaseTTL, history.LeaseRevoke, history.Compact:
		s.doLease(o)
		return
	default:
	}
	m := int(o.Endpoint[1] - '1')
	branch := o.Then
	if o.Kind == history.Txn {
		o.Succeeded = s.holds(o.If)
		if !o.Succeeded {
			branch = o.Else
		}
	}
	if o.Serializable {
		s.applied[m] += s.rnd.Int64N(s.rev - s.applied[m] + 1)
		o.Revision = s.applied[m]
		o.Results = []history.Result{s.read(&branch[0], o.Revision)}
		return
	}
	if !s.small && s.rnd.IntN(30) == 0 { // somebody writes elsewhere
		s.rev += 1 + s.rnd.Int64N(3)
	}
	for i := range branch {
		if q := &branch[i]; q.Kind == history.Put && q.Lease != 0 && s.leases[q.Lease] == nil || q.Kind == history.Range && q.Revision > 0 && q.Revision < s.compact {
			if o.Outcome == history.OK {
				o.Outcome, o.Error = history.Failed, "etcdserver: requested lease not found, or revision compacted"
			}
			return
		}
	}
	before := len(s.log)
	for i := range branch {
		o.Results = append(o.Results, s.request(&branch[i], before))
	}
	if len(s.log) > before {
		s.rev++
	}
	o.Revision, s.applied[m] = s.rev, s.rev
}

func (s *simulation) request(q *history.Request, before int) history.Result {
	rev := s.rev
	if len(s.log) > before {
		rev++ // it sees its own changes
	}
	var res history.Result
	switch q.Kind {
	case history.Put:
		k := s.index(q.Key)
		if v := s.latest(k); v != nil && q.PrevKV {
			res.KVs = []history.KeyValue{s.kv(k, v)}
		}
		s.set(k, version{val: q.Value, lease: q.Lease})
	case history.Delete:
		from, to := s.bounds(q)
		for k := from; k < to; k++ {
			v := s.latest(k)
			if v == nil {
				continue
			}
			res.Deleted++
			if q.PrevKV {
				res.KVs = append(res.KVs, s.kv(k, v))
			}
			s.set(k, version{deleted: true})
		}
	default:
		if q.Revision > 0 {
			rev = q.Revision
		}
		res = s.read(q, rev)
	}
	return res
}

func (s *simulation) kv(k int, v *version) history.KeyValue {
	return history.KeyValue{Key: s.keys[k], Value: v.val, Version: v.version, CreateRevision: v.create, ModRevision: v.rev, Lease: v.lease}
}

func (s *simulation) read(q *history.Request, rev int64) history.Result {
	var res history.Result
	from, to := s.bounds(q)
	for k := from; k < to; k++ {
		v := s.held(k, rev)
		if v == nil {
			continue
		}
		res.Count++
		if q.Limit > 0 && res.Count > q.Limit {
			res.More = true
			continue
		}
		res.KVs = append(res.KVs, s.kv(k, v))
	}
	return res
}

// set makes a change at the next revision.
func (s *simulation) set(k int, v version) {
	v.rev = s.rev + 1
	r := record{rev: v.rev, at: s.now, key: k}
	if old := s.latest(k); old != nil {
		was := *old
		r.prev = &was
		if l := s.leases[old.lease]; l != nil {
			delete(l.keys, k)
		}
	}
	if !v.deleted {
		v.version, v.create = 1, v.rev
		if r.prev != nil {
			v.version, v.create = r.prev.version+1, r.prev.create
		}
		if l := s.leases[v.lease]; l != nil {
			l.keys[k] = true
		}
	}
	r.version = v
	s.store[k] = append(s.store[k], v)
	s.log = append(s.log, r)
}

func (s *simulation) holds(conditions []history.Condition) bool {
	for _, d := range conditions {
		v := s.latest(s.index(d.Key))
		if d.Field == history.FieldValue {
			if v == nil || !compare(d.Op, v.val, d.Value) {
				return false
			}
			continue
		}
		if v == nil {
			v = &version{}
		}
		number := map[history.Field]int64{history.FieldVersion: v.version, history.FieldCreate: v.create, history.FieldMod: v.rev, history.FieldLease: v.lease}[d.Field]
		if !compare(d.Op, number, d.Number) {
			return false
		}
	}
	return true
}

func compare[T string | int64](op string, a, b T) bool {
	switch op {
	case "=":
		return a == b
	case "!=":
		return a != b
	case "<":
		return a < b
	default:
		return a > b
	}
}
