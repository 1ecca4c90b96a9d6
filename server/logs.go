package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

// memberLog reads a member's log through the agent of its host.
func (s *Server) memberLog(w *response, r *http.Request, _ caller) error {
	key, err := pathKey(r, v1alpha1.KindMember)
	if err != nil {
		return err
	}
	opts, err := logOptions(r)
	if err != nil {
		return err
	}
	var m v1alpha1.EtcdMember
	if err = s.opts.Store.Get(r.Context(), key, &m); err != nil {
		return err
	}
	ctx, cancel := streamContext(r.Context())
	defer cancel()
	w.endless()
	log, err := s.hub.open(ctx, m.Spec.Host, wire.Request{
		Kind: wire.RequestLog, Log: opts, Member: wire.Member{Namespace: m.Namespace, Name: m.Name, UID: m.UID},
	})
	if err != nil {
		return err
	}
	closed := context.AfterFunc(ctx, func() { _ = log.Close() }) // a pipe closes without error
	defer closed()
	defer func() { _ = log.Close() }()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusOK)
	if err := w.flush(); err != nil {
		return err
	}
	return pump(w, log)
}

// pump copies in to w, piece by piece as they come.
func pump(w *response, in io.Reader) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			if _, gone := w.Write(buf[:n]); gone != nil {
				return gone
			}
			if gone := w.flush(); gone != nil {
				return gone
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func logOptions(r *http.Request) (wire.LogOptions, error) {
	q := r.URL.Query()
	opts := wire.LogOptions{Source: q.Get("source"), Tail: -1}
	switch opts.Source {
	case "", "etcd", "error", "supervisor":
	default:
		return opts, badRequest("source is %q: use etcd, error or supervisor", opts.Source)
	}
	if text := q.Get("tail"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			return opts, badRequest("tail is %q: give a number of lines, or -1 for all", text)
		}
		opts.Tail = n
	}
	switch q.Get("follow") {
	case "", "false":
	case "true":
		opts.Follow = true
	default:
		return opts, badRequest("follow is %q: use true or false", q.Get("follow"))
	}
	return opts, nil
}

// memberOf reads the member of a request's path, which the caller must own.
func (s *Server) memberOf(ctx context.Context, c caller, key store.Key) (*v1alpha1.EtcdMember, error) {
	m := &v1alpha1.EtcdMember{}
	if err := s.opts.Store.Get(ctx, key, m); err != nil {
		return nil, err
	}
	return m, ownsObject(c, v1alpha1.KindMember, m)
}
