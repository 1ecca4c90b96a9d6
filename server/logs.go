package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

// memberLog reads a member's log through the agent of its host.
func (s *Server) memberLog(w *response, r *http.Request, _ caller) error {
	opts, err := logOptions(r)
	if err != nil {
		return err
	}
	return s.passOn(w, r, wire.Request{Kind: wire.RequestLog, Log: opts}, "text/plain; charset=utf-8")
}

// memberMetrics reads the metrics of a member's etcd through the agent of its host:
// they are served on the host's loopback alone.
func (s *Server) memberMetrics(w *response, r *http.Request, _ caller) error {
	return s.passOn(w, r, wire.Request{Kind: wire.RequestMetrics}, "text/plain; version=0.0.4; charset=utf-8")
}

// passOn asks the agent about the member of the request's path, and passes on what
// it answers as it comes.
func (s *Server) passOn(w *response, r *http.Request, req wire.Request, contentType string) error {
	key, err := pathKey(r, v1alpha1.KindMember)
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
	req.Member = wire.Member{Namespace: m.Namespace, Name: m.Name, UID: m.UID}
	answer, err := s.hub.open(ctx, m.Spec.Host, req)
	if err != nil {
		return err
	}
	closed := context.AfterFunc(ctx, func() { _ = answer.Close() }) // a pipe closes without error
	defer closed()
	defer func() { _ = answer.Close() }()
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(http.StatusOK)
	if err := w.flush(); err != nil {
		return err
	}
	return pump(w, answer)
}

// killMember has the agent kill a member's etcd, where faults are allowed, and
// records who asked for it.
func (s *Server) killMember(w *response, r *http.Request, c caller) error {
	key, err := pathKey(r, v1alpha1.KindMember)
	if err != nil {
		return err
	}
	var m v1alpha1.EtcdMember
	if err = s.opts.Store.Get(r.Context(), key, &m); err != nil {
		return err
	}
	var host v1alpha1.EtcdHost
	if err = s.opts.Store.Get(r.Context(), store.Key{Name: m.Spec.Host}, &host); err != nil {
		return err
	}
	if !host.Status.FaultsAllowed {
		return forbidden("members on host %q are not broken on purpose: start its agent with --allow-faults where that may be", host.Name)
	}
	answer, err := s.hub.open(r.Context(), m.Spec.Host, wire.Request{
		Kind: wire.RequestKill, Member: wire.Member{Namespace: m.Namespace, Name: m.Name, UID: m.UID},
	})
	if err != nil {
		return err
	}
	// What the agent says of it is all that can get lost now.
	var killed wire.Killed
	err = errors.Join(json.NewDecoder(io.LimitReader(answer, maxLogin)).Decode(&killed), answer.Close())
	s.opts.Events.Record(r.Context(), store.About(&m, store.Event{
		Time: time.Now(), Type: store.Warning, Reason: "MemberKilled", Source: "server",
		Message: fmt.Sprintf("its etcd, pid %d on host %s, was killed as %s asked for", killed.PID, host.Name, c.name),
	}))
	if err != nil {
		return unavailable("the agent of host %q killed the etcd of member %s, and broke off its answer: %v", host.Name, key, err)
	}
	return w.json(http.StatusOK, killed)
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
