package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

// Reasons for which an agent, or who plays one, is refused. They are those of the
// events.
const (
	reasonUnknownToken       = "JoinTokenUnknown"
	reasonExpiredToken       = "JoinTokenExpired"
	reasonReusedToken        = "JoinTokenReused"
	reasonForeignToken       = "JoinTokenOfAnotherHost"
	reasonForeignCertificate = "AgentCertificateForeign"
	reasonExpiredCertificate = "AgentCertificateExpired"
	reasonRevokedCertificate = "AgentCertificateRevoked"
	reasonForeignHost        = "AgentOfAnotherHost"
	reasonNotAllowed         = "AgentNotAllowed"
	reasonSecondAgent        = "AgentTwice"
)

// deniedError is a refusal that is to be audited.
type deniedError struct {
	// host whose token or certificate it was; empty where none is known.
	host string
	// reason is one word; text says what happened, and fix what to do.
	reason, text, fix string
	// code of the answer; 401 where it is 0.
	code int
}

func deny(host, reason, format string, args ...any) *deniedError {
	return &deniedError{host: host, reason: reason, text: fmt.Sprintf(format, args...)}
}

// advise adds what to do.
func (e *deniedError) advise(format string, args ...any) *deniedError {
	e.fix = fmt.Sprintf(format, args...)
	return e
}

// as sets the code of the answer.
func (e *deniedError) as(code int) *deniedError {
	e.code = code
	return e
}

// Error says what happened, and what to do.
func (e *deniedError) Error() string {
	if e.fix == "" {
		return e.text
	}
	return e.text + ": " + e.fix
}

// status is how it travels.
func (e *deniedError) status() *wire.Status {
	reason := wire.ReasonUnauthorized
	switch e.code {
	case http.StatusForbidden:
		reason = wire.ReasonForbidden
	case http.StatusServiceUnavailable:
		reason = wire.ReasonUnavailable
	}
	return wire.Failure(cmp.Or(e.code, http.StatusUnauthorized), reason, e.Error())
}

// Bounds of the audit: whoever tries in a loop must not fill the store or the log.
const (
	// auditEvery is how often the same refusal is recorded; what comes between is
	// counted and told with the next.
	auditEvery = time.Minute
	// auditBurst is how many different ones are recorded in that time.
	auditBurst = 30
)

// audit records who was refused: as a Warning of the host, or of the namespace of the
// tokens where there is no such host, and in the log.
type audit struct {
	store    store.Store
	recorder store.Recorder
	log      *slog.Logger
	now      func() time.Time

	mu   sync.Mutex
	seen map[refusal]*tally
	// began is when the window began in which others are counted, and fresh how many
	// refusals were recorded in it. Missed are those that were not recorded at all.
	began  time.Time
	fresh  int
	missed int64
}

// refusal is what makes two of them the same.
type refusal struct{ host, reason, from string }

// tally counts a refusal since it was recorded last.
type tally struct {
	at    time.Time
	count int64
}

func newAudit(o Options) *audit {
	return &audit{store: o.Store, recorder: o.Events, log: o.Logger, now: time.Now, seen: map[refusal]*tally{}}
}

// audited records the refusals that are worth it. An agent that looks for a member which
// is on another host by now is none: it looks after every home that it finds.
func (s *Server) audited(r *http.Request, rt route, err error) {
	d, ok := errors.AsType[*deniedError](err)
	if !ok || (d.reason == reasonForeignHost && rt.resource == "etcdmembers" && rt.verb == verbGet) {
		return
	}
	s.audit.denied(r, d)
}

// denied records a refusal.
func (a *audit) denied(r *http.Request, d *deniedError) {
	from := remoteIP(r)
	more, missed, ok := a.admit(refusal{d.host, d.reason, from})
	if !ok {
		return
	}
	ctx := context.WithoutCancel(r.Context())
	a.log.WarnContext(ctx, "refused", slog.String("reason", d.reason), slog.String("host", d.host), slog.String("remote", r.RemoteAddr),
		slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.String("why", d.text), slog.Int64("more", more), slog.Int64("missed", missed))
	e := store.Event{Type: store.Warning, Reason: d.reason, Source: "server", Time: a.now(), Count: 1 + more, Message: "refused from " + from + ": " + d.text}
	if missed > 0 {
		e.Message += fmt.Sprintf(" (besides, %d other refusals were not recorded)", missed)
	}
	e.Kind, e.Namespace, e.Name = "Namespace", TokenNamespace, TokenNamespace
	host := &v1alpha1.EtcdHost{}
	if d.host != "" && a.store.Get(ctx, store.Key{Name: d.host}, host) == nil {
		e = store.About(host, e)
	}
	a.recorder.Record(ctx, e)
}

// admit reports whether a refusal is to be recorded, with how many like it came since
// the last that was, and how many others never were.
func (a *audit) admit(what refusal) (more, missed int64, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	if now.Sub(a.began) >= auditEvery {
		a.began, a.fresh = now, 0
		for k, t := range a.seen {
			if now.Sub(t.at) >= 2*auditEvery && t.count == 0 {
				delete(a.seen, k)
			}
		}
	}
	t := a.seen[what]
	if t != nil && now.Sub(t.at) < auditEvery {
		t.count++
		return 0, 0, false
	}
	if a.fresh >= auditBurst {
		a.missed++
		return 0, 0, false
	}
	a.fresh++
	if t == nil {
		// The map is bounded: what falls out is only told apart anew.
		if len(a.seen) >= 100*auditBurst {
			clear(a.seen)
		}
		t = &tally{}
		a.seen[what] = t
	}
	more, missed = t.count, a.missed
	t.at, t.count, a.missed = now, 0, 0
	return more, missed, true
}
