package web

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

const (
	// settle is how long changes are gathered before a page is told of them.
	settle = 200 * time.Millisecond
	// beat is how often a silent stream says that it lives.
	beat = 10 * time.Second
)

// streaming is the context of a stream: it ends with its reader and with the
// server.
func (c *console) streaming(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if c.opts.Done == nil {
		return ctx, cancel
	}
	go func() {
		select {
		case <-c.opts.Done:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// stream is the one event stream of a page. "changed" says that what the page
// shows may look different, "event" carries a row for its list of events. What
// the page is about stands in the query: a namespace with a cluster, or nothing
// for the fleet.
func (c *console) stream(v *visit) error {
	ctx, cancel := c.streaming(v.r.Context())
	defer cancel()
	q := v.r.URL.Query()
	namespace := q.Get("namespace")
	opts := store.EventOptions{Namespace: namespace, Cluster: q.Get("cluster"), Kind: q.Get("kind"), Name: q.Get("name")}
	// What the visitor may not read must end the stream here, not repeat in it.
	if _, err := v.api.WhoAmI(ctx); err != nil {
		return err
	}
	changed := make(chan struct{}, 1)
	for _, kind := range []v1alpha1.Kind{v1alpha1.KindCluster, v1alpha1.KindMember, v1alpha1.KindTask, v1alpha1.KindHost} {
		if kind.Namespaced || namespace == "" {
			go notice(v.api.Watch(ctx, kind, namespaceOf(kind, namespace)), changed)
		}
	}
	events := v.api.WatchEvents(ctx, opts)

	flush := lifted(v)
	v.Header().Set("Content-Type", "text/event-stream")
	v.Header().Set("X-Accel-Buffering", "no")
	v.WriteHeader(http.StatusOK)
	if err := c.say(v, flush, ": hello\n\n"); err != nil {
		return nil // who has gone does not read why
	}
	c.relay(ctx, v, flush, changed, events)
	return nil
}

func namespaceOf(kind v1alpha1.Kind, namespace string) string {
	if !kind.Namespaced {
		return ""
	}
	return namespace
}

// notice folds keys into one note that something changed.
func notice(keys <-chan store.Key, changed chan<- struct{}) {
	for range keys {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
}

// relay writes until the reader or the server has gone.
func (c *console) relay(ctx context.Context, v *visit, flush func() error, changed <-chan struct{}, events <-chan store.Event) {
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	var due <-chan time.Time
	for {
		var text string
		select {
		case <-ctx.Done():
			return
		case <-changed:
			if due == nil {
				due = time.After(settle)
			}
			continue
		case <-due:
			due = nil
			text = "event: changed\ndata: {}\n\n"
		case e, ok := <-events:
			if !ok {
				return
			}
			html, err := c.pages.text(v.look.Lang, "activity/event", e)
			if err != nil {
				c.log.WarnContext(ctx, "event not shown", slog.Any("error", err))
				continue
			}
			text = message("event", html)
		case <-ticker.C:
			text = ": alive\n\n"
		}
		if c.say(v, flush, text) != nil {
			return
		}
	}
}

func (*console) say(v *visit, flush func() error, text string) error {
	if _, err := v.Write([]byte(text)); err != nil {
		return err
	}
	return flush()
}

// message is one server-sent event; every line of its data is marked as such.
func message(event string, data []byte) string {
	var text strings.Builder
	text.WriteString("event: " + event + "\n")
	for _, line := range splitLines(data) {
		text.WriteString("data: " + line + "\n")
	}
	text.WriteString("\n")
	return text.String()
}

// splitLines splits at what the stream takes for the end of a line.
func splitLines(data []byte) []string {
	var lines []string
	line := make([]byte, 0, len(data))
	for _, b := range data {
		if b == '\n' || b == '\r' {
			lines = append(lines, string(line))
			line = line[:0]
			continue
		}
		line = append(line, b)
	}
	return append(lines, string(line))
}
