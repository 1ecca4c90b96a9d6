package server

import (
	"cmp"
	"net/http"

	"github.com/quorate/quorate/api/v1alpha1"
)

func (s *Server) placement(w *response, r *http.Request, _ caller) error {
	key, err := pathKey(r, v1alpha1.KindCluster)
	if err != nil {
		return err
	}
	p, err := s.opts.Fleet.Placement(r.Context(), key, nil)
	if err != nil {
		return err
	}
	return w.json(http.StatusOK, p)
}

// placementProposed places a cluster as it would be, after the checks that writing it
// would make.
func (s *Server) placementProposed(w *response, r *http.Request, _ caller) error {
	key, proposed, err := s.readProposed(w, r)
	if err != nil {
		return err
	}
	p, err := s.opts.Fleet.Placement(r.Context(), key, proposed)
	if err != nil {
		return err
	}
	return w.json(http.StatusOK, p)
}

func (s *Server) rebalance(w *response, r *http.Request, _ caller) error {
	b, err := s.opts.Fleet.Rebalance(r.Context())
	if err != nil {
		return err
	}
	return w.json(http.StatusOK, b)
}

func (s *Server) usage(w *response, r *http.Request, _ caller) error {
	u, err := s.opts.Fleet.Usage(r.Context(), cmp.Or(r.URL.Query().Get("by"), "host"))
	if err != nil {
		return err
	}
	return w.json(http.StatusOK, u)
}
