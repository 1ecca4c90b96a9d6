package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// keyDigits are those of a key's number, so that keys sort by it.
const keyDigits = 9

// namespaceDigits are those of a namespace's number.
const namespaceDigits = 5

// podsPath stands before the namespace where the load is like that of Kubernetes.
const podsPath = "registry/pods/"

// shortestKey is a key without padding: prefix, namespace, number.
func (s *Spec) shortestKey() int {
	n := len(s.Prefix)
	if n == 0 {
		n = len(newPrefixForm)
	}
	if s.kubernetes() {
		n += len(podsPath)
	}
	return n + namespaceDigits + len("/k") + keyDigits
}

// space is one namespace.
type space struct {
	prefix []byte
	// revisions of keys as last seen, for transactions that compare; nil where none do.
	revisions []atomic.Int64
	// next of the keys in sequence.
	next atomic.Int64
	// acknowledged writes, and those of the keys that single watchers look at.
	acknowledged atomic.Int64
	watched      map[int]*atomic.Int64
}

// client sends requests, one at a time.
type client struct {
	s     *session
	id    int
	space *space
	shard *shard
	conn  *grpc.ClientConn
	rand  *rand.Rand
	pick  *picker

	// started is when the request under way began, in nanoseconds since the epoch; 0
	// for none, expired when it has been given up.
	started atomic.Int64
	// mu keeps cancel from being exchanged while it is about to be called.
	mu     sync.Mutex
	ctx    context.Context //nolint:containedctx // serves many requests, see expire
	cancel context.CancelFunc

	key, end []byte
	wire     encoded
	unread   unread
	revision revisionOf

	leases  []int64
	keeper  pb.Lease_LeaseKeepAliveClient
	churn   []string
	created int
	// due is when the request under way was.
	due int64
}

// expired marks a request that has been given up.
const expired = -1

func newClient(s *session, id int) *client {
	c := &client{s: s, id: id, space: &s.spaces[id%len(s.spaces)], shard: &s.rec.shards[id%len(s.rec.shards)], conn: s.conns[id%len(s.conns)]}
	c.rand = newRand(s.spec.Seed, uint64(id)) //nolint:gosec // not negative
	c.pick = newPicker(s.spec.Skew, s.spec.Keys, &c.space.next, c.rand)
	c.renew()
	return c
}

// renew makes a new context after the last was cancelled.
func (c *client) renew() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ctx, c.cancel = context.WithCancel(c.s.calls)
	c.keeper = nil // its stream went with the context
}

// expire gives the request under way up if it began before the time given. A timer
// for each request would cost more than it.
func (c *client) expire(before int64) {
	began := c.started.Load()
	if began <= 0 || began >= before {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.started.CompareAndSwap(began, expired) {
		c.cancel()
	}
}

// attempt sends one request, within the timeout.
func (c *client) attempt(run runner) (conflict bool, err error) {
	c.started.Store(max(c.s.rec.now(), 1))
	conflict, err = run(c)
	if c.started.Swap(0) == expired {
		c.renew()
		if err != nil {
			err = errTimeout
		}
	}
	return conflict, err
}

// do sends one request that was due at a time, and records what came of it.
func (c *client) do(op int, due int64) error {
	began := c.s.rec.now()
	c.due = due
	run := c.s.runs[op]
	conflict, err := c.attempt(run)
	if err != nil && tokenRefused(err) && c.s.logInAgain(c.conn) == nil {
		conflict, err = c.attempt(run)
	}
	end := c.s.rec.now()
	v := sample{op: op, due: due, began: began, end: end, conflict: conflict}
	switch {
	case err != nil && c.s.calls.Err() != nil:
		v.class = classUnfinished // left out, a stall that made somebody end the load would look like none
	case err != nil:
		v.class = classOf(err)
		if due >= c.s.rec.from {
			c.s.rec.texts.add(err)
		}
	}
	c.s.rec.last.Store(end)
	c.s.rec.record(c.shard, v)
	return err
}

// keyOf writes the key with that number into buf.
func (c *client) keyOf(buf []byte, number int) []byte {
	return c.s.appendKey(buf[:0], c.space, number)
}

// appendKey appends a key, padded to its size. The size follows from its number, so
// that a key is the same each time.
func (s *session) appendKey(buf []byte, sp *space, number int) []byte {
	buf = append(buf, sp.prefix...)
	buf = append(buf, 'k')
	buf = appendDigits(buf, number, keyDigits)
	size := s.spec.KeySize.Min
	if s.spec.KeySize.Kind != Fixed {
		const keyStream = 1 << 62
		size = s.spec.KeySize.draw(newRand(s.spec.Seed, keyStream+uint64(number))) //nolint:gosec // not negative
	}
	for len(buf) < size {
		buf = append(buf, 'x')
	}
	return buf
}

func appendDigits(buf []byte, number, digits int) []byte {
	from := len(buf)
	for range digits {
		buf = append(buf, '0')
	}
	for i := len(buf) - 1; i >= from && number > 0; i-- {
		buf[i] = byte('0' + number%10)
		number /= 10
	}
	return buf
}

// stamp stands in the first bytes of values that watchers see: whose run wrote it,
// and when it was due.
const stampSize = 16

// value is the next one: bytes of the session's pool, which do not compress. Where
// watchers look, it begins with a stamp.
func (c *client) value() []byte {
	size := c.s.spec.ValueSize.draw(c.rand)
	at := c.rand.IntN(len(c.s.pool) - size + 1)
	v := c.s.pool[at : at+size]
	if c.s.spec.Watchers == 0 {
		return v
	}
	if size < stampSize {
		v = c.s.pool[at : at+stampSize]
	}
	stamped := make([]byte, len(v))
	copy(stamped, v)
	binary.LittleEndian.PutUint64(stamped, c.s.instance)
	binary.LittleEndian.PutUint64(stamped[8:], uint64(c.due)) //nolint:gosec // read back as it was
	return stamped
}

// stampOf reads when a value of this run was due.
func (s *session) stampOf(value []byte) (due int64, ok bool) {
	if len(value) < stampSize || binary.LittleEndian.Uint64(value) != s.instance {
		return 0, false
	}
	return int64(binary.LittleEndian.Uint64(value[8:])), true //nolint:gosec // as it was written
}

// wrote notes an acknowledged write, of a key with a number or -1.
func (c *client) wrote(number int, revision int64) {
	if c.s.spec.Watchers > 0 && c.due >= c.s.rec.from {
		c.space.acknowledged.Add(1)
		if n := c.space.watched[number]; n != nil {
			n.Add(1)
		}
	}
	if number >= 0 && c.space.revisions != nil {
		c.space.revisions[number].Store(revision)
	}
}

// runner sends one request of a kind; conflict is a condition that did not hold.
type runner func(c *client) (conflict bool, err error)

func runnerOf(op Operation) (runner, error) {
	switch op {
	case Put:
		return (*client).doPut, nil
	case Delete:
		return (*client).doDelete, nil
	case Range:
		return (*client).doRange, nil
	case RangeSerializable:
		return (*client).doSerializable, nil
	case RangeStream:
		return (*client).doStream, nil
	case CAS, KubeUpdate:
		return (*client).doCAS, nil
	case Txn:
		return (*client).doTxn, nil
	case LeaseGrant:
		return (*client).doGrant, nil
	case LeaseKeepAlive:
		return (*client).doKeepAlive, nil
	case LeaseRevoke:
		return (*client).doRevoke, nil
	case KubeList:
		return (*client).doList, nil
	case KubeGet:
		return (*client).doGet, nil
	case KubeCreate:
		return (*client).doCreate, nil
	case KubeDelete:
		return (*client).doRemove, nil
	}
	return nil, errors.New("there is no operation " + strconv.Quote(string(op)))
}
