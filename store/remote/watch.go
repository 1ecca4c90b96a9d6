package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/dirty"
	"github.com/quorate/quorate/store/remote/wire"
)

// pruneAt is how many keys a watch remembers before it asks which of them are gone.
const pruneAt = 4096

// Watch implements store.Store.
func (c *Client) Watch(ctx context.Context, kind v1alpha1.Kind, namespace string) <-chan store.Key {
	out := make(chan store.Key)
	w := &watch{
		client: c, kind: kind, namespace: namespace,
		changed: dirty.New[store.Key](), known: map[store.Key]struct{}{}, limit: pruneAt,
	}
	go func() {
		defer close(out)
		var wg sync.WaitGroup
		wg.Go(func() {
			c.follow(ctx, feed{
				path:  wire.KindPath(kind, namespace),
				query: url.Values{"watch": {"true"}}, opened: w.opened, message: w.message,
			})
		})
		w.changed.Drain(ctx, out)
		wg.Wait()
	}()
	return out
}

// watch is one reader's view of a kind over all streams that it takes. Its methods
// are called one at a time.
type watch struct {
	client    *Client
	kind      v1alpha1.Kind
	namespace string
	changed   *dirty.Set[store.Key]
	// known are the keys that the reader was told of and that may still exist: what
	// vanishes while no stream stands is among them.
	known map[store.Key]struct{}
	limit int
}

// opened makes up for what happened while no stream stood. The server begins each
// stream with all keys that exist, so only those that vanished could be missed.
func (w *watch) opened(context.Context) error {
	for key := range w.known {
		w.changed.Add(key)
	}
	return nil
}

func (w *watch) message(ctx context.Context, m wire.Message) error {
	if m.Event != wire.EventDirty {
		return nil
	}
	var k wire.Key
	if err := json.Unmarshal(m.Data, &k); err != nil || k.Name == "" {
		return fmt.Errorf("the stream of %s holds %q, which is no key", w.kind.Plural, m.Data)
	}
	key := store.Key(k)
	w.known[key] = struct{}{}
	w.changed.Add(key)
	if len(w.known) > w.limit {
		w.prune(ctx)
	}
	return nil
}

// prune forgets the keys of objects that are gone. While it runs no message is
// read, so what is made meanwhile is told of afterwards.
func (w *watch) prune(ctx context.Context) {
	w.limit *= 2 // also when the server can't say
	objs, err := w.client.List(ctx, w.kind, store.ListOptions{Namespace: w.namespace})
	if err != nil {
		w.client.log.DebugContext(ctx, "watch not pruned", slog.Any("error", err))
		return
	}
	listed := make(map[store.Key]struct{}, len(objs))
	for _, obj := range objs {
		listed[store.KeyOf(obj)] = struct{}{}
	}
	for key := range w.known {
		if _, ok := listed[key]; ok {
			continue
		}
		// A list may be stale; what Get does not find is gone.
		if err := w.client.Get(ctx, key, w.kind.New()); errors.Is(err, store.ErrNotFound) {
			delete(w.known, key)
		}
	}
	w.limit = max(pruneAt, 2*len(w.known))
}
