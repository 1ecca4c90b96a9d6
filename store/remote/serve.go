package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/internal/backoff"
	"github.com/quorate/quorate/store/remote/wire"
)

// Request is what a server asks of an agent.
type Request = wire.Request

// Kinds of a Request.
const (
	RequestLog     = wire.RequestLog
	RequestMetrics = wire.RequestMetrics
	RequestKill    = wire.RequestKill
	RequestLoad    = wire.RequestLoad
	RequestCheck   = wire.RequestCheck
)

// Handler answers a request of a server. Its context ends when the answer is no
// longer wanted, upon which reading must end too.
type Handler = func(ctx context.Context, req Request) (io.ReadCloser, error)

// maxAnswers bounds how many requests an agent answers at a time.
const maxAnswers = 32

// Serve is the agent's side of the channel: it holds a stream open on which the
// server asks, answers by handle, and tells the server that the host's agent
// lives. It reconnects by itself and returns when ctx ends, after the last answer.
func (c *Client) Serve(ctx context.Context, host string, handle Handler) {
	a := &answering{client: c, host: host, handle: handle, slots: make(chan struct{}, maxAnswers)}
	a.wg.Go(func() { c.sayAlive(ctx, host) })
	c.follow(ctx, feed{
		path:    wire.AgentPath(host, "requests"),
		opened:  func(context.Context) error { return nil },
		message: func(_ context.Context, m wire.Message) error { return a.message(ctx, m) },
	})
	a.wg.Wait()
}

// sayAlive sends heartbeats. That a stream stands is no sign of life: the server
// can't tell it from one whose reader is gone.
func (c *Client) sayAlive(ctx context.Context, host string) {
	for {
		beat, cancel := context.WithTimeout(ctx, aliveEvery)
		err := c.call(beat, http.MethodPost, wire.AgentPath(host, "heartbeat"), nil, nil, nil)
		cancel()
		if err != nil && ctx.Err() == nil {
			c.log.DebugContext(ctx, "heartbeat not sent", slog.Any("error", err))
		}
		if backoff.Sleep(ctx, aliveEvery) != nil {
			return
		}
	}
}

// answering is what Serve has under way.
type answering struct {
	client *Client
	host   string
	handle Handler
	slots  chan struct{}
	wg     sync.WaitGroup
}

// message takes a request. Its answer is a request of its own, so it may outlive
// the stream.
func (a *answering) message(ctx context.Context, m wire.Message) error {
	if m.Event != wire.EventRequest {
		return nil
	}
	var req Request
	if err := json.Unmarshal(m.Data, &req); err != nil || req.ID == "" {
		return fmt.Errorf("the agent's channel holds %q, which is no request", m.Data)
	}
	select {
	case a.slots <- struct{}{}:
	default:
		a.wg.Go(func() { a.refuse(ctx, req, fmt.Errorf("it answers %d requests already: end some of them", maxAnswers)) })
		return nil
	}
	a.wg.Go(func() {
		defer func() { <-a.slots }()
		a.answer(ctx, req)
	})
	return nil
}

func (a *answering) answer(ctx context.Context, req Request) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out, err := a.handle(ctx, req)
	if err != nil {
		a.refuse(ctx, req, err)
		return
	}
	trailer := http.Header{wire.TrailerError: nil}
	body := &upload{in: out, trailer: trailer}
	defer func() { _ = body.Close() }() // reading it has told all there is to tell
	// An idle log must not outlive its reader: the transport waits for its next line.
	defer context.AfterFunc(ctx, func() { _ = body.Close() })()
	resp, err := a.client.do(onHangUp(ctx, cancel), request{
		method: http.MethodPost, path: wire.AgentPath(a.host, "responses", req.ID), body: body, trailer: trailer,
	})
	if err != nil {
		a.client.log.DebugContext(ctx, "answer not taken", slog.String("request", req.ID), slog.Any("error", err))
		return
	}
	_ = resp.Body.Close() // it is empty
}

// refuse answers with an error.
func (a *answering) refuse(ctx context.Context, req Request, cause error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	text := cause.Error()
	const limit = 2 << 10
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "…"
	}
	query := url.Values{"error": {text}}
	if _, reason, ok := wire.CodeOf(cause); ok {
		query.Set("reason", reason)
	}
	err := a.client.call(ctx, http.MethodPost, wire.AgentPath(a.host, "responses", req.ID), query, nil, nil)
	if err != nil {
		a.client.log.DebugContext(ctx, "answer not taken", slog.String("request", req.ID), slog.Any("error", err))
	}
}

// upload is an answer on its way. If reading it fails, the trailer says so, since
// the body could only be cut off.
type upload struct {
	in      io.ReadCloser
	trailer http.Header
	once    sync.Once
	err     error
}

// Read reads the answer.
func (u *upload) Read(p []byte) (int, error) {
	n, err := u.in.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		text := strings.Join(strings.Fields(err.Error()), " ")
		u.trailer.Set(wire.TrailerError, text)
		err = io.EOF
	}
	return n, err
}

// Close ends the answer; the transport and its maker may both do so.
func (u *upload) Close() error {
	u.once.Do(func() { u.err = u.in.Close() })
	return u.err
}
