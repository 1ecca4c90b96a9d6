package etcd

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/store"
)

// place is where in the events a reader is: behind all of a revision, within one
// epoch of the store. Its ID begins with the time, so that IDs sort as events do.
type place struct {
	id       string
	at       time.Time
	epoch    int64
	revision int64
}

func (s *Store) placeID(key string, revision int64) string {
	return fmt.Sprintf("%s-%x-%x", key, s.epoch.Number, revision)
}

// placeAt is the ID of the place behind all of a revision, as of now.
func (s *Store) placeAt(revision int64) string {
	return s.placeID(eventKey(s.now().UnixNano(), math.MaxUint32)[len(eventsPrefix):], revision)
}

// parsePlace is the inverse of placeID.
func parsePlace(id string) (place, error) {
	invalid := fmt.Errorf("%w: %q is not the ID of an event: give one that the server told, or list the events anew", store.ErrInvalid, id)
	const parts = 4 // time, a random number, epoch, revision
	fields := strings.Split(id, "-")
	if len(fields) != parts {
		return place{}, invalid
	}
	var n [parts]int64
	for i, field := range fields {
		var err error
		if n[i], err = strconv.ParseInt(field, 16, 64); err != nil || n[i] < 0 {
			return place{}, invalid
		}
	}
	return place{id: id, at: time.Unix(0, n[0]), epoch: n[2], revision: n[3]}, nil
}

// LastEvent implements store.EventLog.
func (s *Store) LastEvent(ctx context.Context) (string, error) {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	resp, err := s.client.Get(ctx, eventsPrefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return "", fmt.Errorf("read the events: %w", s.fail(err))
	}
	s.saw(resp.Header.GetRevision())
	return s.placeAt(resp.Header.GetRevision()), nil
}

// WatchEventsAfter implements store.EventLog.
func (s *Store) WatchEventsAfter(ctx context.Context, opts store.EventOptions, after string) (<-chan store.Event, error) {
	from, err := parsePlace(after)
	if err != nil {
		return nil, err
	}
	if err := s.stillKept(ctx, from); err != nil {
		return nil, err
	}
	return s.watchEvents(ctx, opts, from), nil
}

// stillKept returns store.ErrGone when an event behind the place may have been
// removed: with an earlier epoch, for its age, or to make room. The oldest are
// removed first, so that all behind a place are there while an older one is.
func (s *Store) stillKept(ctx context.Context, from place) error {
	if from.epoch != s.epoch.Number {
		return fmt.Errorf("%w: the events behind %s are of epoch %d of the store, and it was restored since: list the events anew", store.ErrGone, from.id, from.epoch)
	}
	if s.now().Sub(from.at) > eventTTL {
		return fmt.Errorf("%w: the events behind %s are older than %s: list the events anew", store.ErrGone, from.id, eventTTL)
	}
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	resp, err := s.client.Get(ctx, eventsPrefix, clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(1))
	if err != nil {
		return fmt.Errorf("read the events: %w", s.fail(err))
	}
	s.saw(resp.Header.GetRevision())
	full := resp.Count >= int64(s.events.limit)
	if full && string(resp.Kvs[0].Key) > eventsPrefix+from.id && resp.Kvs[0].ModRevision > from.revision {
		return fmt.Errorf("%w: more than %d events were recorded behind %s: list the events anew", store.ErrGone, s.events.limit, from.id)
	}
	return nil
}
