package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

// recordTime bounds how long recording an event may hold up its caller.
const recordTime = 5 * time.Second

// Record implements store.Recorder.
func (c *Client) Record(ctx context.Context, e store.Event) {
	if c.dryRun {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, recordTime)
	defer cancel()
	if err := c.call(ctx, http.MethodPost, wire.PathEvents, nil, e, nil); err != nil {
		c.log.WarnContext(ctx, "event dropped", slog.String("reason", e.Reason), slog.String("kind", e.Kind),
			slog.String("name", e.Name), slog.String("event", e.Message), slog.Any("error", err))
	}
}

// Events implements store.EventReader.
func (c *Client) Events(ctx context.Context, opts store.EventOptions) ([]store.Event, error) {
	var list wire.List[store.Event]
	if err := c.call(ctx, http.MethodGet, wire.PathEvents, eventQuery(opts), nil, &list); err != nil {
		return nil, err
	}
	return list.Items, nil
}

func eventQuery(opts store.EventOptions) url.Values {
	query := url.Values{}
	for name, value := range map[string]string{
		"namespace": opts.Namespace, "cluster": opts.Cluster, "kind": opts.Kind, "name": opts.Name,
	} {
		if value != "" {
			query.Set(name, value)
		}
	}
	return query
}

// WatchEvents implements store.EventReader. What is recorded while no stream
// stands is read afterwards.
func (c *Client) WatchEvents(ctx context.Context, opts store.EventOptions) <-chan store.Event {
	w := &eventWatch{client: c, opts: opts, out: make(chan store.Event)}
	query := eventQuery(opts)
	query.Set("watch", "true")
	go func() {
		defer close(w.out)
		c.follow(ctx, feed{path: wire.PathEvents, query: query, opened: w.opened, message: w.message})
	}()
	return w.out
}

// eventWatch is one reader's view of events over all streams that it takes.
type eventWatch struct {
	client *Client
	opts   store.EventOptions
	out    chan store.Event
	// begun is set once a stream has stood: what was recorded before is not wanted.
	begun bool
	// last is the greatest ID seen.
	last string
	// replayed are those that were listed, and may come by the stream as well.
	replayed map[string]bool
}

func (w *eventWatch) opened(ctx context.Context) error {
	events, err := w.client.Events(ctx, w.opts)
	if err != nil {
		return err
	}
	last := w.last
	w.replayed = map[string]bool{}
	for _, e := range events {
		if !w.begun {
			w.last = max(w.last, e.ID)
			continue
		}
		if e.ID <= last {
			continue
		}
		w.replayed[e.ID] = true
		if err := w.yield(ctx, e); err != nil {
			return err
		}
	}
	w.begun = true
	return nil
}

func (w *eventWatch) message(ctx context.Context, m wire.Message) error {
	if m.Event != wire.EventRecorded {
		return nil
	}
	var e store.Event
	if err := json.Unmarshal(m.Data, &e); err != nil {
		return fmt.Errorf("the stream of events holds %q, which is none: %w", m.Data, err)
	}
	if w.replayed[e.ID] {
		return nil
	}
	return w.yield(ctx, e)
}

func (w *eventWatch) yield(ctx context.Context, e store.Event) error {
	select {
	case w.out <- e:
		w.last = max(w.last, e.ID)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
