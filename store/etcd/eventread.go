package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/internal/backoff"
	"github.com/quorate/quorate/store"
)

func wanted(e store.Event, opts store.EventOptions) bool {
	return (opts.Namespace == "" || e.Namespace == opts.Namespace) &&
		(opts.Cluster == "" || e.Cluster == opts.Cluster) &&
		(opts.Kind == "" || e.Kind == opts.Kind) &&
		(opts.Name == "" || e.Name == opts.Name)
}

// Events implements store.EventReader: the newest 10,000, less those that opts
// leave out.
func (s *Store) Events(ctx context.Context, opts store.EventOptions) ([]store.Event, error) {
	kept, _, err := s.EventsAt(ctx, opts)
	return kept, err
}

// EventsAt implements store.EventLog.
func (s *Store) EventsAt(ctx context.Context, opts store.EventOptions) ([]store.Event, string, error) {
	list, revision, err := s.eventsWhere(ctx, func(*mvccpb.KeyValue) bool { return true })
	if err != nil {
		return nil, "", err
	}
	kept := make([]store.Event, 0, len(list))
	for _, e := range list[max(0, len(list)-s.events.limit):] {
		if wanted(e, opts) {
			kept = append(kept, e)
		}
	}
	return kept, s.placeAt(revision), nil
}

// eventsWhere returns the events that are wanted, oldest first, and the revision
// they are of.
func (s *Store) eventsWhere(ctx context.Context, want func(*mvccpb.KeyValue) bool) ([]store.Event, int64, error) {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	var list []store.Event
	revision, err := s.scanPrefix(ctx, eventsPrefix, func(kv *mvccpb.KeyValue) error {
		if !want(kv) {
			return nil
		}
		e, err := s.decodeEvent(kv)
		if err != nil {
			s.log.WarnContext(ctx, "event passed over", slog.Any("error", err))
			return nil
		}
		list = append(list, e)
		return nil
	}, func() { list = nil })
	if err != nil {
		return nil, 0, fmt.Errorf("read the events: %w", err)
	}
	return list, revision, nil
}

// WatchEvents implements store.EventReader. A repeat comes again, with its count
// and under a new ID.
func (s *Store) WatchEvents(ctx context.Context, opts store.EventOptions) <-chan store.Event {
	// What this process records after this call has a later revision, and a later ID.
	revision := s.Revision()
	return s.watchEvents(ctx, opts, place{id: s.placeAt(revision), revision: revision})
}

func (s *Store) watchEvents(ctx context.Context, opts store.EventOptions, from place) <-chan store.Event {
	w := &eventWatch{store: s, opts: opts, out: make(chan store.Event), next: from.revision + 1, lastID: from.id}
	s.spawn(ctx, w.run)
	return w.out
}

type eventWatch struct {
	store *Store
	opts  store.EventOptions
	out   chan store.Event
	// next is the first revision that was not looked at.
	next int64
	// lastID is of the newest event that was delivered or need not be.
	lastID string
}

func (w *eventWatch) run(ctx context.Context) {
	defer close(w.out)
	retry := backoff.Backoff{Min: watchRetryMin, Max: watchRetryMax, Jitter: 0.5}
	for {
		err := w.follow(ctx)
		switch {
		case errors.Is(err, rpctypes.ErrCompacted):
			err = w.catchUp(ctx, func(kv *mvccpb.KeyValue) bool { return kv.ModRevision >= w.next })
		case errors.Is(err, store.ErrStale):
			// Its revisions have begun again, and its events go on in time.
			err = w.catchUp(ctx, func(kv *mvccpb.KeyValue) bool { return string(kv.Key) > eventsPrefix+w.lastID })
		}
		if err == nil {
			retry.Reset()
		}
		if backoff.Sleep(ctx, retry.Next()) != nil {
			return
		}
	}
}

// catchUp delivers what stands now, where the changes themselves can no longer be had.
func (w *eventWatch) catchUp(ctx context.Context, missed func(*mvccpb.KeyValue) bool) error {
	list, revision, err := w.store.eventsWhere(ctx, missed)
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := w.send(ctx, e); err != nil {
			return err
		}
	}
	w.next = revision + 1
	return nil
}

func (w *eventWatch) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	changes := w.store.watches.Watch(ctx, eventsPrefix, clientv3.WithPrefix(), clientv3.WithRev(w.next),
		clientv3.WithFilterDelete(), clientv3.WithProgressNotify())
	for resp := range changes {
		if err := resp.Err(); err != nil {
			return err
		}
		if resp.Header.GetRevision() < w.next-1 {
			return store.ErrStale
		}
		for _, change := range resp.Events {
			e, err := w.store.decodeEvent(change.Kv)
			if err != nil {
				continue
			}
			if err := w.send(ctx, e); err != nil {
				return err
			}
		}
		w.next = resp.Header.GetRevision() + 1
	}
	return ctx.Err()
}

func (w *eventWatch) send(ctx context.Context, e store.Event) error {
	w.lastID = max(w.lastID, e.ID)
	if !wanted(e, w.opts) {
		return nil
	}
	select {
	case w.out <- e:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
