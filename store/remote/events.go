package remote

import (
	"context"
	"encoding/json"
	"errors"
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
	events, _, err := c.EventsAt(ctx, opts)
	return events, err
}

// EventsAt implements store.EventLog.
func (c *Client) EventsAt(ctx context.Context, opts store.EventOptions) (events []store.Event, after string, err error) {
	var list wire.List[store.Event]
	if err := c.call(ctx, http.MethodGet, wire.PathEvents, eventQuery(opts), nil, &list); err != nil {
		return nil, "", err
	}
	return list.Items, list.After, nil
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
// stands is told afterwards.
func (c *Client) WatchEvents(ctx context.Context, opts store.EventOptions) <-chan store.Event {
	return c.watchEvents(ctx, opts, "")
}

// WatchEventsAfter yields the events behind the ID of one, or behind a list of
// EventsAt. Where the server no longer keeps all of them, it goes on with those that
// it has.
func (c *Client) WatchEventsAfter(ctx context.Context, opts store.EventOptions, after string) <-chan store.Event {
	return c.watchEvents(ctx, opts, after)
}

func (c *Client) watchEvents(ctx context.Context, opts store.EventOptions, after string) <-chan store.Event {
	query := eventQuery(opts)
	query.Set("watch", "true")
	w := &eventWatch{client: c, opts: opts, query: query, out: make(chan store.Event)}
	w.at(after)
	go func() {
		defer close(w.out)
		c.follow(ctx, feed{path: wire.PathEvents, query: query, opened: w.opened, message: w.message, broke: w.broke})
	}()
	return w.out
}

// eventWatch is one reader's view of events over all streams that it takes.
type eventWatch struct {
	client *Client
	opts   store.EventOptions
	query  url.Values
	out    chan store.Event
	// after is the place behind what was delivered, or empty.
	after string
}

// at remembers the place from which the next stream goes on.
func (w *eventWatch) at(id string) {
	w.after = id
	if id != "" {
		w.query.Set("after", id)
	}
}

func (w *eventWatch) opened(context.Context) error { return nil }

// broke delivers what the server still has once it has no stream from where this
// one was.
func (w *eventWatch) broke(ctx context.Context, err error) {
	if !errors.Is(err, store.ErrGone) && !errors.Is(err, store.ErrInvalid) {
		return
	}
	w.client.log.WarnContext(ctx, "events may have been missed: the server no longer keeps all since the last one seen", slog.Any("error", err))
	events, after, err := w.client.EventsAt(ctx, w.opts)
	if err != nil {
		return // the next stream is refused as this one was
	}
	for _, e := range events {
		if e.ID > w.after && w.yield(ctx, e) != nil {
			return
		}
	}
	w.at(after)
}

func (w *eventWatch) message(ctx context.Context, m wire.Message) error {
	if m.Event != wire.EventRecorded {
		if m.Event == "" && m.ID != "" {
			w.at(m.ID)
		}
		return nil
	}
	var e store.Event
	if err := json.Unmarshal(m.Data, &e); err != nil {
		return fmt.Errorf("the stream of events holds %q, which is none: %w", m.Data, err)
	}
	if err := w.yield(ctx, e); err != nil {
		return err
	}
	if m.ID != "" {
		w.at(m.ID)
	}
	return nil
}

func (w *eventWatch) yield(ctx context.Context, e store.Event) error {
	select {
	case w.out <- e:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
