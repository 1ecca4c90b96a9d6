package server

import (
	"net/http"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

// watch streams the keys of a kind that may have changed.
func (s *Server) watch(w *response, r *http.Request, c caller, kind v1alpha1.Kind, namespace string) error {
	ctx, cancel := streamContext(r.Context())
	defer cancel()
	if c.scope != all && kind.Kind == v1alpha1.KindMember.Kind {
		set := s.bound.subscribe(c.host)
		defer s.bound.unsubscribe(c.host, set)
		keys := make(chan store.Key)
		go set.Drain(ctx, keys)
		s.begin(w)
		return stream(s, w, ctx.Done(), keys, func(k store.Key) message {
			if namespace != "" && k.Namespace != namespace {
				return message{}
			}
			return message{event: wire.EventDirty, data: wire.Key(k)}
		})
	}
	keys := s.opts.Store.Watch(ctx, kind, namespace)
	s.begin(w)
	return stream(s, w, ctx.Done(), keys, func(k store.Key) message {
		if c.scope != all && k.Name != c.host {
			return message{}
		}
		return message{event: wire.EventDirty, data: wire.Key(k)}
	})
}

// message is one event of a stream, with the ID to go on from if there is one.
type message struct {
	id, event string
	data      any
}

// begin begins a stream.
func (s *Server) begin(w *response) {
	w.endless()
	w.Header().Set("Content-Type", wire.ContentTypeStream)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
}

// stream writes a message for each value of in, and heartbeats between them, until
// in closes or done does. A message without an event is left out. An error means
// that the client is gone.
func stream[T any](s *Server, w *response, done <-chan struct{}, in <-chan T, encode func(T) message) error {
	// The first heartbeat comes at once: it tells that the stream stands.
	beat := time.NewTimer(0)
	defer beat.Stop()
	for {
		select {
		case <-done:
			return nil
		case <-beat.C:
			if err := wire.WriteComment(w, wire.PositionComment(s.opts.Position())); err != nil {
				return err
			}
			beat.Reset(s.opts.Heartbeat)
		case v, ok := <-in:
			if !ok {
				return nil
			}
			m := encode(v)
			if m.event == "" {
				continue
			}
			if err := wire.WriteMessageID(w, m.id, m.event, m.data); err != nil {
				return err
			}
		}
		if err := w.flush(); err != nil {
			return err
		}
	}
}
