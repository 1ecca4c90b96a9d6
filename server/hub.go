package server

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/quorate/quorate/store/remote/wire"
)

// answerTime is how long an agent may take to begin its answer.
const answerTime = 15 * time.Second

// hub asks agents, over the channels they hold open, and hands their answers to
// those who wait for them.
type hub struct {
	hosts  *Hosts
	answer time.Duration

	mu    sync.Mutex
	calls map[string]*call
}

// call is a request to an agent that is being answered.
type call struct {
	host string
	// ctx ends when the answer is no longer wanted.
	ctx context.Context //nolint:containedctx // a call is the meeting of two requests: its context is the asker's
	// began receives nil when the answer begins, or why there is none.
	began chan error
	in    *io.PipeWriter
}

func newHub(hosts *Hosts) *hub {
	return &hub{hosts: hosts, answer: answerTime, calls: map[string]*call{}}
}

// open asks the agent of the host and returns its answer as it comes. Closing it,
// or the end of ctx, tells the agent to stop.
func (h *hub) open(ctx context.Context, host string, req wire.Request) (io.ReadCloser, error) {
	conn := h.hosts.newest(host)
	if conn == nil {
		return nil, unavailable("no agent is connected for host %q: start `quorate agent` there, or look at its log", host)
	}
	ctx, cancel := context.WithCancel(ctx)
	out, in := io.Pipe()
	c := &call{host: host, ctx: ctx, began: make(chan error, 1), in: in}
	req.ID = rand.Text()
	h.mu.Lock()
	h.calls[req.ID] = c
	h.mu.Unlock()
	answer := &answer{PipeReader: out, end: func() {
		cancel()
		h.take(req.ID, host)
	}}
	if err := h.await(c, conn, req); err != nil {
		return nil, errors.Join(err, answer.Close())
	}
	return answer, nil
}

// await sends the request and waits for its answer to begin.
func (h *hub) await(c *call, conn *agentConn, req wire.Request) error {
	late := time.NewTimer(h.answer)
	defer late.Stop()
	requests := conn.requests
	for {
		select {
		case requests <- req:
			requests = nil // sent once
		case err := <-c.began:
			return err
		case <-conn.done:
			return unavailable("the agent of host %q went away before it answered: try again when it is back", c.host)
		case <-late.C:
			return unavailable("the agent of host %q did not answer within %s: look at its log", c.host, h.answer)
		case <-c.ctx.Done():
			return c.ctx.Err()
		}
	}
}

// take removes a call of the host: it can be answered once only.
func (h *hub) take(id, host string) *call {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.calls[id]
	if c == nil || c.host != host {
		return nil
	}
	delete(h.calls, id)
	return c
}

// answer is what an agent sends, until it is closed.
type answer struct {
	*io.PipeReader

	end func()
}

// Close ends the call.
func (a *answer) Close() error {
	a.end()
	return a.PipeReader.Close()
}

// agentRequests is the channel by which an agent is asked.
func (s *Server) agentRequests(w *response, r *http.Request, c caller) error {
	host, err := pathHost(r, c)
	if err != nil {
		return err
	}
	ctx, cancel := streamContext(r.Context())
	defer cancel()
	s.opts.Hosts.saw(host)
	conn := s.opts.Hosts.connect(host, r.Header.Get(wire.HeaderInstance), remoteIP(r))
	defer s.opts.Hosts.disconnect(host, conn)
	s.begin(w)
	return stream(s, w, ctx.Done(), conn.requests, func(req wire.Request) message {
		return message{event: wire.EventRequest, data: req}
	})
}

// agentHeartbeat says that an agent lives.
func (s *Server) agentHeartbeat(w *response, r *http.Request, c caller) error {
	host, err := pathHost(r, c)
	if err != nil {
		return err
	}
	s.opts.Hosts.saw(host)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// agentResponse takes an agent's answer and hands it to who asked. It lasts as
// long as both want it to.
func (s *Server) agentResponse(w *response, r *http.Request, c caller) error {
	host, err := pathHost(r, c)
	if err != nil {
		return err
	}
	found := s.hub.take(r.PathValue("id"), host)
	if found == nil {
		w.hangUp()
		return wire.Failure(http.StatusNotFound, wire.ReasonNotFound, "no one waits for this answer any more")
	}
	if text := r.URL.Query().Get("error"); text != "" {
		reason := r.URL.Query().Get("reason")
		code, ok := wire.CodeOfReason(reason)
		if !ok || reason == wire.ReasonUnauthorized {
			code, reason = http.StatusInternalServerError, wire.ReasonInternal
		}
		found.began <- wire.Failure(code, reason, "the agent of host "+host+": "+text)
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	w.endless()
	// Once the answer is unwanted, the rest of an endless body isn't waited for.
	stop := context.AfterFunc(found.ctx, w.stopReading)
	found.began <- nil
	_, err = io.Copy(found.in, r.Body)
	if !stop() || err != nil {
		w.hangUp()
	}
	if err == nil {
		if text := r.Trailer.Get(wire.TrailerError); text != "" {
			err = errors.New(text)
		}
	}
	if err != nil {
		err = unavailable("the agent of host %q broke off: %v", host, err)
	}
	_ = found.in.CloseWithError(err) // never fails
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// pathHost reads the host from a request's path, which must be the caller's own.
func pathHost(r *http.Request, c caller) (string, error) {
	host := r.PathValue("host")
	if err := checkName(host); err != nil {
		return "", err
	}
	return host, c.owns(host, "the channel")
}
