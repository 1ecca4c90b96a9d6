package server

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

// Lifetimes of client certificates.
const (
	defaultClientTTL = 24 * time.Hour
	maxClientTTL     = 365 * 24 * time.Hour
)

func (s *Server) plan(w *response, r *http.Request, _ caller) error {
	key, err := pathKey(r, v1alpha1.KindCluster)
	if err != nil {
		return err
	}
	p, err := s.opts.Fleet.Plan(r.Context(), key, nil)
	if err != nil {
		return err
	}
	return w.json(http.StatusOK, p)
}

func (s *Server) view(w *response, r *http.Request, _ caller) error {
	key, err := pathKey(r, v1alpha1.KindCluster)
	if err != nil {
		return err
	}
	v, err := s.opts.Fleet.View(r.Context(), key)
	if err != nil {
		return err
	}
	return w.json(http.StatusOK, v)
}

// planProposed plans for a cluster as it would be, after the checks that writing
// it would make.
func (s *Server) planProposed(w *response, r *http.Request, _ caller) error {
	key, proposed, err := s.readProposed(w, r)
	if err != nil {
		return err
	}
	p, err := s.opts.Fleet.Plan(r.Context(), key, proposed)
	if err != nil {
		return err
	}
	return w.json(http.StatusOK, p)
}

// readProposed reads a cluster as it would be, and checks it as if it were written.
func (s *Server) readProposed(w *response, r *http.Request) (store.Key, *v1alpha1.EtcdCluster, error) {
	key, err := pathKey(r, v1alpha1.KindCluster)
	if err != nil {
		return key, nil, err
	}
	obj, err := s.readObject(w, r, v1alpha1.KindCluster)
	if err != nil {
		return key, nil, err
	}
	proposed, ok := obj.(*v1alpha1.EtcdCluster)
	if !ok {
		return key, nil, badRequest("the body is not an EtcdCluster")
	}
	var old v1alpha1.Object
	stored := &v1alpha1.EtcdCluster{}
	switch err = s.opts.Store.Get(r.Context(), key, stored); {
	case err == nil:
		old = stored
	case !errors.Is(err, store.ErrNotFound):
		return key, nil, err
	}
	return key, proposed, s.check(r.Context(), proposed, old)
}

func (s *Server) accept(w *response, r *http.Request, _ caller) error {
	key, err := pathKey(r, v1alpha1.KindCluster)
	if err != nil {
		return err
	}
	var body wire.Accept
	if err := readJSON(w, r, &body); err != nil {
		return err
	}
	if body.Token == "" {
		return badRequest("token is missing: accept names the plan that was read, by the token that stands in it")
	}
	if err := s.opts.Fleet.Accept(r.Context(), key, body.Token); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) memberCertificate(w *response, r *http.Request, c caller) error {
	key, err := pathKey(r, v1alpha1.KindMember)
	if err != nil {
		return err
	}
	var body wire.MemberCSR
	if err = readJSON(w, r, &body); err != nil {
		return err
	}
	usage, err := memberUsage(body.Usage)
	if err != nil {
		return err
	}
	m, err := s.memberOf(r.Context(), c, key)
	if err != nil {
		return err
	}
	host := &v1alpha1.EtcdHost{}
	if err = s.opts.Store.Get(r.Context(), store.Key{Name: m.Spec.Host}, host); err != nil {
		return err
	}
	b, err := s.opts.Certificates.SignMember(r.Context(), m, host, usage, []byte(body.CSR))
	if err != nil {
		return err
	}
	return w.json(http.StatusOK, wire.Certificate{Certificate: string(b.Certificate), CA: string(b.CA)})
}

// memberUsage reads the usage of a member's certificate. Members get no client
// certificates: those name users.
func memberUsage(text string) (pki.Usage, error) {
	for _, u := range []pki.Usage{pki.Server, pki.Peer} {
		if strings.EqualFold(text, string(u)) {
			return u, nil
		}
	}
	return "", badRequest("usage is %q: a member asks for %s or %s", text, pki.Server, pki.Peer)
}

func (s *Server) clientCertificate(w *response, r *http.Request, _ caller) error {
	key, err := pathKey(r, v1alpha1.KindCluster)
	if err != nil {
		return err
	}
	var body wire.ClientCSR
	if err = readJSON(w, r, &body); err != nil {
		return err
	}
	ttl := defaultClientTTL
	if body.TTLSeconds != 0 {
		if body.TTLSeconds < 0 || body.TTLSeconds > int64(maxClientTTL/time.Second) {
			return badRequest("ttlSeconds is %d: give 1 to %d (a year)", body.TTLSeconds, int64(maxClientTTL/time.Second))
		}
		ttl = time.Duration(body.TTLSeconds) * time.Second
	}
	cluster := &v1alpha1.EtcdCluster{}
	if err = s.opts.Store.Get(r.Context(), key, cluster); err != nil {
		return err
	}
	b, endpoints, err := s.opts.Certificates.SignClient(r.Context(), cluster, []byte(body.CSR), ttl)
	if err != nil {
		return err
	}
	return w.json(http.StatusOK, wire.Certificate{Certificate: string(b.Certificate), CA: string(b.CA), Endpoints: endpoints})
}

func (s *Server) version(w *response, _ *http.Request, _ caller) error {
	return w.json(http.StatusOK, wire.Version{Version: s.opts.Version, Time: time.Now().UTC()})
}
