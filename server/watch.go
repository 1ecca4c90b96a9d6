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
		return stream(s, w, ctx.Done(), keys, func(k store.Key) (string, any) {
			if namespace != "" && k.Namespace != namespace {
				return "", nil
			}
			return wire.EventDirty, wire.Key(k)
		})
	}
	keys := s.opts.Store.Watch(ctx, kind, namespace)
	return stream(s, w, ctx.Done(), keys, func(k store.Key) (string, any) {
		if c.scope != all && k.Name != c.host {
			return "", nil
		}
		return wire.EventDirty, wire.Key(k)
	})
}

// stream writes an event for each value of in, and heartbeats between them, until
// in closes or done does. What encode names "" is left out. An error means that
// the client is gone.
func stream[T any](s *Server, w *response, done <-chan struct{}, in <-chan T, encode func(T) (string, any)) error {
	w.endless()
	w.Header().Set("Content-Type", wire.ContentTypeStream)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
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
			event, data := encode(v)
			if event == "" {
				continue
			}
			if err := wire.WriteMessage(w, event, data); err != nil {
				return err
			}
		}
		if err := w.flush(); err != nil {
			return err
		}
	}
}
