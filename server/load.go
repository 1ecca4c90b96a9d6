package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

// maxLoad bounds the specification of a load, in bytes: it goes to the agent in one
// message.
const maxLoad = 256 << 10

// driveLoad has the agent of a host drive a load, where loads are allowed, and passes
// on what its worker writes. An event says who asked for it.
func (s *Server) driveLoad(w *response, r *http.Request, c caller) error {
	key, err := pathKey(r, v1alpha1.KindHost)
	if err != nil {
		return err
	}
	var host v1alpha1.EtcdHost
	if err = s.opts.Store.Get(r.Context(), key, &host); err != nil {
		return err
	}
	spec, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLoad))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return wire.Failure(http.StatusRequestEntityTooLarge, wire.ReasonTooLarge, fmt.Sprintf("the specification of a load has more than %d bytes", maxLoad))
	}
	if err != nil {
		return err
	}
	if !json.Valid(spec) {
		return badRequest("the body is no JSON: give the specification of a load, as `quorate bench worker` reads it")
	}
	ctx, cancel := streamContext(r.Context())
	defer cancel()
	w.endless()
	answer, err := s.hub.open(ctx, host.Name, wire.Request{Kind: wire.RequestLoad, Load: spec})
	if err != nil {
		return err
	}
	closed := context.AfterFunc(ctx, func() { _ = answer.Close() }) // a pipe closes without error
	defer closed()
	defer func() { _ = answer.Close() }()
	s.opts.Events.Record(r.Context(), store.About(&host, store.Event{
		Time: time.Now(), Type: store.Normal, Reason: "LoadDriven", Source: "server",
		Message: fmt.Sprintf("a load is driven from this host as %s asked for", c.name),
	}))
	w.Header().Set("Content-Type", "application/jsonl")
	w.WriteHeader(http.StatusOK)
	if err = w.flush(); err != nil {
		return err
	}
	return pump(w, answer)
}
