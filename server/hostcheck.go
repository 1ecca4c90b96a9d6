package server

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/hosts/preflight"
	"github.com/quorate/quorate/store/remote/wire"
)

const (
	// maxPeers that a host is checked with.
	maxPeers = 16
	// maxChecks bounds an agent's answer, in bytes.
	maxChecks = 1 << 20
)

// checkHost has the agent of a host check it, and answers with what it found.
func (s *Server) checkHost(w *response, r *http.Request, _ caller) error {
	key, err := pathKey(r, v1alpha1.KindHost)
	if err != nil {
		return err
	}
	var body wire.CheckHost
	if err = readJSON(w, r, &body); err != nil {
		return err
	}
	if len(body.Peers) > maxPeers {
		return badRequest("peers has %d addresses: give at most %d", len(body.Peers), maxPeers)
	}
	for _, p := range body.Peers {
		if _, err = preflight.WithPort(p); err != nil {
			return badRequest("peers: %v", err)
		}
	}
	var host v1alpha1.EtcdHost
	if err = s.opts.Store.Get(r.Context(), key, &host); err != nil {
		return err
	}
	answer, err := s.hub.open(r.Context(), host.Name, wire.Request{Kind: wire.RequestCheck, Peers: body.Peers})
	if err != nil {
		return err
	}
	raw, err := io.ReadAll(io.LimitReader(answer, maxChecks))
	if closed := answer.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	var found v1alpha1.HostPreflight
	if err = json.Unmarshal(raw, &found); err != nil {
		return fmt.Errorf("the agent of host %s answered with something else than checks: %w", host.Name, err)
	}
	return w.json(http.StatusOK, found)
}
