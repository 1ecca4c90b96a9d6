package server

import (
	"errors"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/quorate/quorate/store/remote/wire"
)

var (
	digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
	hashForm   = regexp.MustCompile(`^([0-9a-f]{64})?$`)
)

func (s *Server) listReleases(w *response, r *http.Request, _ caller) error {
	releases, err := s.opts.Releases.List(r.Context())
	if err != nil {
		return err
	}
	if releases == nil {
		releases = []wire.Release{}
	}
	return w.json(http.StatusOK, wire.List[wire.Release]{Kind: "ReleaseList", APIVersion: "v1", Items: releases})
}

// readRelease sends an executable.
func (s *Server) readRelease(w *response, r *http.Request, _ caller) (err error) {
	digest := r.PathValue("digest")
	if !digestForm.MatchString(digest) {
		return badRequest("%q is not a digest: give sha256: and 64 hex digits", digest)
	}
	w.endless()
	body, size, err := s.opts.Releases.Open(r.Context(), digest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	_, err = io.Copy(w, body)
	return err
}

// addRelease takes an archive.
func (s *Server) addRelease(w *response, r *http.Request, _ caller) error {
	q := r.URL.Query()
	hash := q.Get("sha256")
	if !hashForm.MatchString(hash) {
		return badRequest("sha256 is %q: give the 64 hex digits of the archive's SHA-256, or leave it out", hash)
	}
	body := http.MaxBytesReader(w, r.Body, maxUpload)
	added, err := s.opts.Releases.Add(r.Context(), &patient{body, w.control, w.stall}, q.Get("version"), hash)
	if err != nil {
		w.hangUp()
		return err
	}
	return w.json(http.StatusCreated, added)
}

// patient reads a long body, whose sender gets a fresh while for each piece.
type patient struct {
	in      io.Reader
	control *http.ResponseController
	stall   time.Duration
}

func (p *patient) Read(b []byte) (int, error) {
	// A connection without deadlines, as in tests, has none to set.
	_ = p.control.SetReadDeadline(time.Now().Add(p.stall))
	n, err := p.in.Read(b)
	// After any other end the deadline stays: the rest isn't waited for.
	if errors.Is(err, io.EOF) {
		_ = p.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// backup sends a backup of the store.
func (s *Server) backup(w *response, r *http.Request, _ caller) error {
	w.endless()
	w.Header().Set("Content-Type", "application/x-tar")
	return s.opts.Snapshot(r.Context(), w)
}

// rotateKey seals every Secret with a new key.
func (s *Server) rotateKey(w *response, r *http.Request, _ caller) error {
	w.endless()
	if s.opts.RotateKey == nil {
		return badRequest("this server's store has no sealing key of its own")
	}
	n, err := s.opts.RotateKey(r.Context())
	if err != nil {
		return err
	}
	return w.json(http.StatusOK, wire.KeyRotated{Secrets: n})
}
