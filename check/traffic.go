package check

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/history/record"
	"github.com/quorate/quorate/internal/backoff"
)

// How sessions choose.
const (
	// strayShare of the operations go to another endpoint than the session's own.
	strayShare = 0.2
	// wideShare of reads and deletes go over several keys.
	wideShare = 0.3
	// staleShare of the conditions can't hold, so that both branches are taken.
	staleShare = 0.3
	// most keys in one transaction or range, and the largest limit.
	mostInOne = 4
	// refusal begins what etcd itself says.
	refusal = "etcdserver:"
	// restWhenDown is how long a session waits after an endpoint did not take its call.
	restWhenDown = 50 * time.Millisecond
	// leastPatience and spread of what an impatient call waits for its answer.
	leastPatience  = 200 * time.Microsecond
	patienceSpread = 5 * time.Millisecond
)

// session is one client: it does one thing at a time, at any of the endpoints.
type session struct {
	run     *run
	clients []*record.Client
	home    int
	rng     *rand.Rand
	written int
	// seen is what it last heard of each key.
	seen map[string]history.KeyValue
}

func (r *run) newSession(ctx context.Context, n int) (*session, error) {
	s := &session{
		run: r, home: n % len(r.targets), seen: map[string]history.KeyValue{},
		rng: rand.New(rand.NewPCG(r.opts.Seed, uint64(n))), //nolint:gosec // traffic needs no secrecy, and is to be the same again
	}
	for i := range r.targets {
		c, err := r.client(ctx, i)
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		if i > 0 {
			c = c.Under(s.clients[0])
		}
		s.clients = append(s.clients, c)
	}
	return s, nil
}

func (s *session) close() error {
	var errs []error
	for _, c := range s.clients {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// traffic goes on until ctx is done or all operations are spent. What was begun is
// ended: a call that is cut off would only be one more that nobody knows of.
func (s *session) traffic(ctx context.Context, choose chooser) {
	for ctx.Err() == nil && s.run.limit.Wait(ctx) == nil && s.run.spend() {
		choose.pick(s.rng.IntN(choose.sum)).do(s, ctx)
	}
}

// do asks one endpoint and remembers what it hears. Whoever does not answer is left
// for the next.
func (s *session) do(ctx context.Context, op history.Operation) history.Operation {
	op = s.within(ctx, s.run.opts.Timeout, op)
	if op.Outcome == history.OK || strings.HasPrefix(op.Error, refusal) {
		return op
	}
	s.home = (s.home + 1) % len(s.clients)
	if op.Outcome == history.Failed {
		_ = backoff.Sleep(ctx, restWhenDown) // when ctx is done the session ends anyway
	}
	return op
}

func (s *session) within(ctx context.Context, timeout time.Duration, op history.Operation) history.Operation {
	c := s.clients[s.home]
	if s.rng.Float64() < strayShare {
		c = s.clients[s.rng.IntN(len(s.clients))]
	}
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	defer context.AfterFunc(s.run.calls, cancel)() //nolint:contextcheck // it ends with either
	op = c.Do(call, op)
	s.run.meter.count(&op)
	s.learn(&op)
	return op
}

// learn keeps what an answer says of keys.
func (s *session) learn(op *history.Operation) {
	if op.Outcome != history.OK {
		return
	}
	s.run.heard(op.Revision)
	if op.Kind == history.Delete && op.Results[0].Deleted > 0 {
		s.run.deleted.Store(op.Revision)
	}
	if op.Kind == history.Put {
		q := op.Then[0]
		s.seen[q.Key] = history.KeyValue{Key: q.Key, Value: q.Value, ModRevision: op.Revision, Lease: q.Lease}
	}
	if op.Kind != history.Range || op.Then[0].Revision != 0 {
		return
	}
	for _, r := range op.Results {
		for _, kv := range r.KVs {
			s.seen[kv.Key] = kv
		}
	}
}

// key by its number; they sort as their numbers do.
func (r *run) key(n int) string { return fmt.Sprintf("%sk/%05d", r.opts.Prefix, n) }

func (s *session) anyKey() string { return s.run.key(s.rng.IntN(s.run.opts.Keys)) }

// someKeys is a range of one key or a few.
func (s *session) someKeys() (key, end string) {
	n := s.rng.IntN(s.run.opts.Keys)
	if s.rng.Float64() < wideShare {
		end = s.run.key(n + 1 + s.rng.IntN(mostInOne))
	}
	return s.run.key(n), end
}

// value that nobody has written before, nor will.
func (s *session) value() string {
	s.written++
	v := fmt.Sprintf("c%d-%d", s.clients[0].ID(), s.written)
	if fill := s.run.opts.ValueSize - len(v) - 1; fill > 0 {
		v += "-" + strings.Repeat("x", fill)
	}
	return v
}

func (s *session) flip() bool { return s.rng.IntN(2) == 0 }

func (s *session) put(ctx context.Context) {
	s.do(ctx, one(history.Request{Kind: history.Put, Key: s.anyKey(), Value: s.value(), PrevKV: s.flip()}))
}

// one is an operation of one request.
func one(q history.Request) history.Operation {
	return history.Operation{Kind: q.Kind, Then: []history.Request{q}}
}

func (s *session) remove(ctx context.Context) {
	key, end := s.someKeys()
	s.do(ctx, one(history.Request{Kind: history.Delete, Key: key, End: end, PrevKV: s.flip()}))
}

func (s *session) get(ctx context.Context) {
	s.do(ctx, one(history.Request{Kind: history.Range, Key: s.anyKey()}))
}

func (s *session) list(ctx context.Context) {
	q := history.Request{Kind: history.Range, Key: s.run.key(0), End: s.run.end}
	if s.flip() {
		q.Key, q.End = s.anyKey(), s.anyKey()
		if q.Key >= q.End {
			q.Key, q.End = q.End, q.Key+"\x00"
		}
	}
	if s.flip() {
		q.Limit = int64(1 + s.rng.IntN(mostInOne))
	}
	s.do(ctx, one(q))
}

func (s *session) serializable(ctx context.Context) {
	key, end := s.someKeys()
	op := one(history.Request{Kind: history.Range, Key: key, End: end})
	op.Serializable = true
	s.do(ctx, op)
}

func (s *session) old(ctx context.Context) {
	key, end := s.someKeys()
	op := one(history.Request{Kind: history.Range, Key: key, End: end, Revision: s.run.someRevision(s.rng)})
	op.Serializable = s.flip()
	s.do(ctx, op)
}

// swap writes a key if it is as this session last saw it, and reads it else.
func (s *session) swap(ctx context.Context) {
	key := s.anyKey()
	op := history.Operation{
		Kind: history.Txn, If: []history.Condition{s.condition(key)},
		Then: []history.Request{{Kind: history.Put, Key: key, Value: s.value(), PrevKV: s.flip()}},
		Else: []history.Request{{Kind: history.Range, Key: key}},
	}
	if s.rng.Float64() < wideShare {
		op.Then[0] = history.Request{Kind: history.Delete, Key: key, PrevKV: s.flip()}
	}
	op = s.do(ctx, op)
	if op.Outcome != history.OK {
		return
	}
	if !op.Succeeded {
		delete(s.seen, key)
		for _, kv := range op.Results[0].KVs {
			s.seen[key] = kv
		}
		return
	}
	if q := op.Then[0]; q.Kind == history.Put {
		s.seen[key] = history.KeyValue{Key: key, Value: q.Value, ModRevision: op.Revision}
	} else {
		delete(s.seen, key)
	}
}

// condition on a key that holds if nobody has written it since, most of the time.
func (s *session) condition(key string) history.Condition {
	kv, known := s.seen[key]
	stale := s.rng.Float64() < staleShare
	switch {
	case !known && stale:
		return history.Condition{Key: key, Field: history.FieldVersion, Op: ">", Number: int64(s.rng.IntN(mostInOne))}
	case !known:
		return history.Condition{Key: key, Field: history.FieldCreate, Op: "=", Number: 0}
	case stale && s.flip():
		return history.Condition{Key: key, Field: history.FieldLease, Op: "!=", Number: 0}
	case stale:
		return history.Condition{Key: key, Field: history.FieldMod, Op: "<", Number: kv.ModRevision}
	case s.flip():
		return history.Condition{Key: key, Field: history.FieldValue, Op: "=", Value: kv.Value}
	default:
		return history.Condition{Key: key, Field: history.FieldMod, Op: "=", Number: kv.ModRevision}
	}
}

// several changes and reads different keys at one revision.
func (s *session) several(ctx context.Context) {
	op := history.Operation{Kind: history.Txn}
	keys := s.rng.Perm(s.run.opts.Keys)[:min(s.run.opts.Keys, 2+s.rng.IntN(mostInOne))]
	if s.flip() {
		op.If = append(op.If, s.condition(s.run.key(keys[0])))
	}
	for _, n := range keys {
		op.Then = append(op.Then, s.request(s.run.key(n)))
	}
	for _, n := range keys[:len(keys)/2] {
		op.Else = append(op.Else, s.request(s.run.key(n)))
	}
	s.do(ctx, op)
}

func (s *session) request(key string) history.Request {
	switch s.rng.IntN(mostInOne) {
	case 0:
		return history.Request{Kind: history.Range, Key: key}
	case 1:
		return history.Request{Kind: history.Delete, Key: key, PrevKV: s.flip()}
	default:
		return history.Request{Kind: history.Put, Key: key, Value: s.value(), PrevKV: s.flip()}
	}
}

// past writes a key and reads another as it was, at one revision.
func (s *session) past(ctx context.Context) {
	read := history.Request{Kind: history.Range, Key: s.anyKey(), Revision: s.run.someRevision(s.rng)}
	write := history.Request{Kind: history.Put, Key: s.anyKey(), Value: s.value(), PrevKV: s.flip()}
	op := history.Operation{Kind: history.Txn, Then: []history.Request{write, read}}
	if s.flip() {
		op.If = append(op.If, s.condition(write.Key))
		op.Else = append(op.Else, read)
	}
	s.do(ctx, op)
}

// impatient writes and gives up too early: it may have happened, or not.
func (s *session) impatient(ctx context.Context) {
	q := history.Request{Kind: history.Put, Key: s.anyKey(), Value: s.value()}
	if s.rng.Float64() < wideShare {
		q = history.Request{Kind: history.Delete, Key: q.Key}
	}
	s.within(ctx, leastPatience+time.Duration(s.rng.Int64N(int64(patienceSpread))), one(q))
}
