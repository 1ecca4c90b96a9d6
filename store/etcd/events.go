package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/store"
)

const (
	// eventTTL is how long an event is kept.
	eventTTL = 7 * 24 * time.Hour
	// leaseShare is how long one lease is given to new events, so that there are few.
	leaseShare = time.Hour
	// foldWithin is how soon a repeat is counted rather than kept beside the first.
	foldWithin = 10 * time.Minute
	// maxEvents bounds what is kept; trimSlack more may stand until they are trimmed.
	maxEvents = 10_000
	trimSlack = 100

	recordTimeout = 2 * time.Second
)

// recorder is what Record remembers between events.
type recorder struct {
	mu     sync.Mutex
	limit  int
	loaded bool
	// count is at least how many events there are.
	count  int
	recent map[happening]occurrence
	lastID int64
	lease  clientv3.LeaseID
	// leased is when lease was granted.
	leased time.Time
}

// happening is what makes one event a repeat of another.
type happening struct {
	kind, namespace, name, reason, message string
}

type occurrence struct {
	key      string
	revision int64
	count    int64
	at       time.Time
}

func happeningOf(e store.Event) happening {
	return happening{e.Kind, e.Namespace, e.Name, e.Reason, e.Message}
}

// eventKey sorts by time. The random end keeps two servers apart.
func eventKey(nanos int64, tail uint32) string {
	return fmt.Sprintf("%s%016x-%08x", eventsPrefix, nanos, tail)
}

// Record implements store.Recorder. It takes at most two seconds, also when ctx has
// ended: what happens at the end is worth keeping.
func (s *Store) Record(ctx context.Context, e store.Event) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	if err := s.record(bounded, e); err != nil {
		s.log.WarnContext(ctx, "event dropped",
			slog.String("reason", e.Reason), slog.String("kind", e.Kind), slog.String("namespace", e.Namespace),
			slog.String("name", e.Name), slog.String("message", e.Message), slog.Any("error", err))
	}
}

func (s *Store) record(ctx context.Context, e store.Event) error {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	r := &s.events
	r.mu.Lock()
	defer r.mu.Unlock()
	now := s.now()
	if err := s.loadEvents(ctx, now); err != nil {
		return err
	}
	if e.Time.IsZero() {
		e.Time = now
	}
	e.Time = e.Time.UTC()
	e.Count = max(e.Count, 1)
	what := happeningOf(e)
	before, repeated := r.recent[what]
	repeated = repeated && now.Sub(before.at) <= foldWithin
	r.lastID = max(r.lastID+1, now.UnixNano())
	key := eventKey(r.lastID, rand.Uint32()) //nolint:gosec // apart, not secret
	e.ID = key[len(eventsPrefix):]
	done, err := s.putEvent(ctx, key, e, before, repeated)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		r.lease = 0
		done, err = s.putEvent(ctx, key, e, before, repeated)
	}
	if err != nil {
		return s.fail(err)
	}
	done.at = now
	r.remember(what, done)
	return s.trimEvents(ctx)
}

// putEvent writes an event; where it repeats another that still stands, in its place
// and with the counts added.
func (s *Store) putEvent(ctx context.Context, key string, e store.Event, before occurrence, repeated bool) (occurrence, error) {
	lease, err := s.eventLease(ctx)
	if err != nil {
		return occurrence{}, err
	}
	own := e.Count
	alone, err := putOp(key, e, own, lease)
	if err != nil {
		return occurrence{}, err
	}
	folded, err := putOp(key, e, before.count+own, lease)
	if err != nil {
		return occurrence{}, err
	}
	txn := s.client.Txn(ctx)
	if repeated {
		txn = txn.If(clientv3.Compare(clientv3.ModRevision(before.key), "=", before.revision)).
			Then(clientv3.OpDelete(before.key), folded).
			Else(alone)
	} else {
		txn = txn.Then(alone)
	}
	resp, err := txn.Commit()
	if err != nil {
		return occurrence{}, err
	}
	s.saw(resp.Header.GetRevision())
	done := occurrence{key: key, revision: resp.Header.GetRevision(), count: own}
	if repeated && resp.Succeeded {
		done.count += before.count
	} else {
		s.events.count++
	}
	return done, nil
}

func putOp(key string, e store.Event, count int64, lease clientv3.LeaseID) (clientv3.Op, error) {
	e.Count = count
	raw, err := json.Marshal(e)
	if err != nil {
		return clientv3.Op{}, fmt.Errorf("encode the event: %w", err)
	}
	return clientv3.OpPut(key, string(raw), clientv3.WithLease(lease)), nil
}

// eventLease is the lease for events of this hour.
func (s *Store) eventLease(ctx context.Context) (clientv3.LeaseID, error) {
	r, now := &s.events, s.now()
	if r.lease != 0 && now.Sub(r.leased) < leaseShare {
		return r.lease, nil
	}
	resp, err := s.client.Grant(ctx, int64((eventTTL + leaseShare).Seconds()))
	if err != nil {
		return 0, fmt.Errorf("lease for events: %w", err)
	}
	r.lease, r.leased = resp.ID, now
	return r.lease, nil
}

// loadEvents counts the events there are, and reads those that a new one could
// repeat, once.
func (s *Store) loadEvents(ctx context.Context, now time.Time) error {
	r := &s.events
	if r.loaded {
		return nil
	}
	if err := s.countEvents(ctx); err != nil {
		return err
	}
	since := eventKey(now.Add(-foldWithin).UnixNano(), 0)
	resp, err := s.client.Get(ctx, since, clientv3.WithRange(clientv3.GetPrefixRangeEnd(eventsPrefix)))
	if err != nil {
		return s.fail(err)
	}
	r.recent = map[happening]occurrence{}
	for _, kv := range resp.Kvs {
		e, err := s.decodeEvent(kv)
		if err != nil {
			continue
		}
		r.recent[happeningOf(e)] = occurrence{key: string(kv.Key), revision: kv.ModRevision, count: e.Count, at: e.Time}
	}
	r.loaded = true
	return nil
}

func (s *Store) countEvents(ctx context.Context) error {
	resp, err := s.client.Get(ctx, eventsPrefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return s.fail(err)
	}
	s.events.count = int(resp.Count)
	return nil
}

// remember keeps what the next event could repeat, and forgets the rest from time
// to time.
func (r *recorder) remember(what happening, o occurrence) {
	const many = 1000
	if len(r.recent) >= many {
		for k, old := range r.recent {
			if o.at.Sub(old.at) > foldWithin {
				delete(r.recent, k)
			}
		}
	}
	// Thousands of different events in ten minutes: what could be folded is less
	// important than what it would cost to know.
	if len(r.recent) >= 4*many {
		clear(r.recent)
	}
	r.recent[what] = o
}

// trimEvents removes the oldest events beyond the limit.
func (s *Store) trimEvents(ctx context.Context) error {
	r := &s.events
	if r.count <= r.limit+trimSlack {
		return nil
	}
	// Leases have removed some in the meantime.
	if err := s.countEvents(ctx); err != nil {
		return err
	}
	excess := r.count - r.limit
	if excess <= 0 {
		return nil
	}
	resp, err := s.client.Get(ctx, eventsPrefix, clientv3.WithPrefix(), clientv3.WithKeysOnly(),
		clientv3.WithLimit(int64(excess)), clientv3.WithSort(clientv3.SortByKey, clientv3.SortAscend))
	if err != nil || len(resp.Kvs) == 0 {
		return s.fail(err)
	}
	newest := string(resp.Kvs[len(resp.Kvs)-1].Key)
	gone, err := s.client.Delete(ctx, eventsPrefix, clientv3.WithRange(newest+"\x00"))
	if err != nil {
		return s.fail(err)
	}
	s.saw(gone.Header.GetRevision())
	r.count -= int(gone.Deleted)
	return nil
}

func (s *Store) decodeEvent(kv *mvccpb.KeyValue) (store.Event, error) {
	var e store.Event
	if err := json.Unmarshal(kv.Value, &e); err != nil {
		return e, fmt.Errorf("the event at %s can't be read: %w", kv.Key, err)
	}
	e.ID = s.placeID(string(kv.Key[len(eventsPrefix):]), kv.ModRevision)
	return e, nil
}
