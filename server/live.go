package server

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/quorate/quorate/store"
)

// live is what agents have open: it ends when the certificate is void, and not only
// with the next request.
type live struct {
	mu   sync.Mutex
	open map[string]map[*opened]struct{}
}

// opened is a request without an end of its own.
type opened struct {
	caller caller
	end    func()
}

func newLive() *live { return &live{open: map[string]map[*opened]struct{}{}} }

// add returns a context that ends when the caller's certificate is void. Done must be
// called at the request's own end.
func (l *live) add(ctx context.Context, c caller, w *response) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancel(ctx)
	o := &opened{caller: c, end: func() {
		cancel()
		w.stopReading()
	}}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[c.token] == nil {
		l.open[c.token] = map[*opened]struct{}{}
	}
	l.open[c.token][o] = struct{}{}
	return ctx, func() {
		cancel()
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.open[c.token], o)
		if len(l.open[c.token]) == 0 {
			delete(l.open, c.token)
		}
	}
}

// of returns what stands open under the Secret of that name.
func (l *live) of(name string) []*opened {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*opened
	for o := range l.open[name] {
		all = append(all, o)
	}
	return all
}

// secretChanged is told of each Secret among the tokens that may have changed.
func (s *Server) secretChanged(name string) {
	if name == agentsCA {
		s.identities.forget()
		return
	}
	if len(s.live.of(name)) > 0 {
		go s.recheck(name)
	}
}

// recheck ends what agents have open whose certificate is void by now.
func (s *Server) recheck(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), requestTime) //nolint:forbidigo // it belongs to no request
	defer cancel()
	judged := map[string]error{}
	for _, o := range s.live.of(name) {
		err, known := judged[o.caller.key]
		if !known {
			err = s.identities.recorded(ctx, o.caller.host, o.caller.key)
			judged[o.caller.key] = err
		}
		if _, void := errors.AsType[*deniedError](err); void {
			o.end()
			continue
		}
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			s.log.WarnContext(ctx, "the record of a host was not read: what its agent has open goes on", slog.String("host", o.caller.host), slog.Any("error", err))
		}
	}
}
