package etcd

import (
	"context"
	"log/slog"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/internal/backoff"
	"github.com/quorate/quorate/store"
)

// Between attempts to watch again.
const (
	watchRetryMin = 50 * time.Millisecond
	watchRetryMax = 5 * time.Second
)

// Watch implements store.Store.
//
// It lists the keys and follows the changes from that revision on. When it can't
// go on from where it was, be it for compaction, a lost connection or a restore of
// the store, it lists again: every key there is then, and every key that it had
// known and is gone, may have changed.
func (s *Store) Watch(ctx context.Context, kind v1alpha1.Kind, namespace string) <-chan store.Key {
	w := &watch{
		store: s, kind: kind, prefix: prefixOf(kind, namespace),
		known: map[string]bool{}, dirty: newDirty(), out: make(chan store.Key),
	}
	s.spawn(ctx, w.run)
	return w.out
}

type watch struct {
	store  *Store
	kind   v1alpha1.Kind
	prefix string
	// known are the keys that exist as far as the reader was told.
	known map[string]bool
	dirty *dirty
	out   chan store.Key
}

func (w *watch) run(ctx context.Context) {
	defer close(w.out)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.dirty.deliver(ctx, w.out)
	}()
	retry := backoff.Backoff{Min: watchRetryMin, Max: watchRetryMax, Jitter: 0.5}
	for ctx.Err() == nil {
		revision, err := w.relist(ctx)
		if err == nil {
			retry.Reset()
			err = w.follow(ctx, revision+1)
		}
		if backoff.Sleep(ctx, retry.Next()) != nil {
			break
		}
		w.store.log.DebugContext(ctx, "watch begins again", slog.String("kind", w.kind.Kind), slog.Any("error", err))
	}
	<-done
}

// relist marks every key there is, and every known one that is gone.
func (w *watch) relist(ctx context.Context) (int64, error) {
	ctx, cancel := w.store.deadline(ctx)
	defer cancel()
	now := map[string]bool{}
	revision, err := w.store.scanPrefix(ctx, w.prefix, func(kv *mvccpb.KeyValue) error {
		now[string(kv.Key)] = true
		return nil
	}, func() { clear(now) }, clientv3.WithKeysOnly())
	if err != nil {
		return 0, err
	}
	for key := range now {
		w.mark(key)
	}
	for key := range w.known {
		if !now[key] {
			w.mark(key)
		}
	}
	w.known = now
	return revision, nil
}

// follow marks what changes from a revision on, until it no longer can.
func (w *watch) follow(ctx context.Context, from int64) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	events := w.store.watches.Watch(ctx, w.prefix, clientv3.WithPrefix(), clientv3.WithRev(from), clientv3.WithProgressNotify())
	last := from - 1
	for resp := range events {
		if err := resp.Err(); err != nil {
			return err
		}
		if resp.Canceled {
			return nil
		}
		// Etcd has gone back: it was replaced by an older one. What it says from here
		// on is no continuation of what was listed.
		if resp.Header.GetRevision() < last {
			return store.ErrStale
		}
		last = resp.Header.GetRevision()
		w.store.saw(last)
		for _, e := range resp.Events {
			key := string(e.Kv.Key)
			if e.Type == clientv3.EventTypeDelete {
				delete(w.known, key)
			} else {
				w.known[key] = true
			}
			w.mark(key)
		}
	}
	return ctx.Err()
}

func (w *watch) mark(raw string) {
	key, err := keyFrom(w.kind, raw)
	if err == nil {
		w.dirty.add(key)
	}
}
