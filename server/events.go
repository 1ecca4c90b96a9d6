package server

import (
	"cmp"
	"net/http"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

func (s *Server) events(w *response, r *http.Request, _ caller) error {
	q := r.URL.Query()
	opts := store.EventOptions{
		Namespace: q.Get("namespace"), Cluster: q.Get("cluster"), Kind: q.Get("kind"), Name: q.Get("name"),
	}
	if watching(r) {
		return s.watchEvents(w, r, opts)
	}
	events, after, err := s.opts.Events.EventsAt(r.Context(), opts)
	if err != nil {
		return err
	}
	if events == nil {
		events = []store.Event{}
	}
	return w.json(http.StatusOK, wire.List[store.Event]{Kind: "EventList", APIVersion: "v1", Items: events, After: after})
}

// watchEvents streams what is recorded behind the ID that the client names, or from
// now on. Each message carries the ID to go on from, as does the beginning.
func (s *Server) watchEvents(w *response, r *http.Request, opts store.EventOptions) error {
	ctx, cancel := streamContext(r.Context())
	defer cancel()
	// A browser that comes back has both: the path it was given, and how far it got.
	after := cmp.Or(r.Header.Get(wire.HeaderLastEventID), r.URL.Query().Get("after"))
	if after == "" {
		var err error
		if after, err = s.opts.Events.LastEvent(ctx); err != nil {
			return err
		}
	}
	events, err := s.opts.Events.WatchEventsAfter(ctx, opts, after)
	if err != nil {
		return err
	}
	s.begin(w)
	if err := wire.WriteID(w, after); err != nil {
		return err
	}
	return stream(s, w, ctx.Done(), events, func(e store.Event) message {
		return message{id: e.ID, event: wire.EventRecorded, data: e}
	})
}

// recordEvent takes an event. An agent speaks of its host and its members only,
// and under its own name.
func (s *Server) recordEvent(w *response, r *http.Request, c caller) error {
	var e store.Event
	if err := readJSON(w, r, &e); err != nil {
		return err
	}
	if e.Kind == "" || e.Reason == "" {
		return badRequest("an event needs a kind and a reason")
	}
	if err := checkName(e.Name); err != nil {
		return err
	}
	if e.Type != store.Normal && e.Type != store.Warning {
		return badRequest("type is %q: use %s or %s", e.Type, store.Normal, store.Warning)
	}
	e.ID, e.Count = "", 0
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	if c.scope != all {
		if err := s.ownsEvent(r, c, &e); err != nil {
			return err
		}
	}
	s.opts.Events.Record(r.Context(), e)
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// ownsEvent holds an agent's event against what is bound to its host, and says
// itself which cluster it concerns.
func (s *Server) ownsEvent(r *http.Request, c caller, e *store.Event) error {
	e.Source = "agent/" + c.host
	switch e.Kind {
	case v1alpha1.KindHost.Kind:
		e.Namespace, e.Cluster = "", ""
		return c.owns(e.Name, "EtcdHost "+e.Name)
	case v1alpha1.KindMember.Kind:
		if err := checkNamespace(e.Namespace); err != nil {
			return err
		}
		m, err := s.memberOf(r.Context(), c, store.Key{Namespace: e.Namespace, Name: e.Name})
		if err != nil {
			return err
		}
		e.Cluster = m.Spec.ClusterName
		return nil
	default:
		return forbidden("%s may record events about its host and its members only, not about %s: that needs a token with the role admin", c.who(), e.Kind)
	}
}
