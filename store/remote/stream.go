package remote

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/quorate/quorate/internal/backoff"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

var errSilent = errors.New("the stream fell silent")

// feed is an event stream and what is done with it. The contexts that are passed
// on end with the stream, and an error breaks it.
type feed struct {
	path  string
	query url.Values
	// opened is called each time the stream stands, before its first message.
	opened  func(context.Context) error
	message func(context.Context, wire.Message) error
	// broke is told why a stream ended, or did not begin; may be nil.
	broke func(context.Context, error)
}

// follow keeps an event stream open until ctx ends, however often it breaks.
func (c *Client) follow(ctx context.Context, f feed) {
	wait := backoff.Backoff{Min: 100 * time.Millisecond, Max: 5 * time.Second, Jitter: 0.5}
	for {
		began := time.Now()
		err := c.readStream(ctx, f)
		if ctx.Err() != nil {
			return
		}
		if f.broke != nil {
			f.broke(ctx, err)
		}
		if time.Since(began) > 10*time.Second {
			wait.Reset()
		}
		d := wait.Next()
		level := slog.LevelInfo
		if errors.Is(err, store.ErrStale) || errors.Is(err, store.ErrForbidden) {
			level = slog.LevelError
		}
		c.log.Log(ctx, level, "stream broke, opening it again", slog.String("path", f.path), slog.Any("error", err), slog.Duration("in", d))
		if backoff.Sleep(ctx, d) != nil {
			return
		}
	}
}

// readStream reads one stream to its end.
func (c *Client) readStream(ctx context.Context, f feed) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(c.silence, func() { cancel(errSilent) })
	defer watchdog.Stop()
	before := c.seen.Seen()
	resp, err := c.do(ctx, request{method: http.MethodGet, path: f.path, query: f.query})
	if err != nil {
		return orCause(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }() // it was read to its end, or is of no use
	if err := f.opened(ctx); err != nil {
		return err
	}
	for m, err := range wire.Messages(resp.Body) {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		if err != nil {
			return err
		}
		watchdog.Reset(c.silence)
		if pos, ok := wire.ParsePositionComment(m.Comment); ok {
			if err := c.observe(ctx, pos, before); err != nil {
				return err
			}
		}
		if m.Event == "" && m.ID == "" {
			continue
		}
		if err := f.message(ctx, m); err != nil {
			return err
		}
	}
	return errors.New("the server ended it")
}

// orCause is why ctx was ended, if it was, and err otherwise.
func orCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}
