package bucket

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/quorate/quorate/internal/backoff"
)

// Retry says how transient faults are repeated: answers 5xx and 429, connections that
// break or stand still, bytes that were damaged on the way. What is denied, missing or
// full is not repeated.
type Retry struct {
	// Attempts at one request, with the first.
	Attempts int
	// Min is waited after the first, each further wait is twice as long up to Max; up to
	// half of a wait is taken off at random.
	Min, Max time.Duration
	// Total bounds the time after which no further attempt begins.
	Total time.Duration
}

// DefaultRetry gives a store one to two minutes to come back.
var DefaultRetry = Retry{Attempts: 10, Min: 500 * time.Millisecond, Max: 30 * time.Second, Total: 5 * time.Minute}

// Attempt is one that failed.
type Attempt struct {
	Op, Store, Object string
	// Number is 1 for the first.
	Number int
	// Err is why.
	Err error
	// Wait is how long until the next one; meaningless if Final.
	Wait time.Duration
	// Final is the last one.
	Final bool
}

// session is what the drivers of one store share.
type session struct {
	store     string
	identity  string
	secrets   []string
	retry     Retry
	log       *slog.Logger
	onAttempt func(Attempt)
	classify  func(error) verdict
	upload    *rate.Limiter
	download  *rate.Limiter
	skew      skewNote
}

// do calls fn until it succeeds, fails for good, or was tried often and long enough.
func (s *session) do(ctx context.Context, op, object string, fn func(context.Context) error) error {
	t := s.begin(op, object)
	for {
		err := fn(ctx)
		if err == nil {
			return nil
		}
		if err = t.failed(ctx, err); err != nil {
			return err
		}
	}
}

// tries counts the attempts at one thing.
type tries struct {
	s          *session
	op, object string
	number     int
	start      time.Time
	backoff    backoff.Backoff
}

func (s *session) begin(op, object string) *tries {
	return &tries{s: s, op: op, object: object, start: time.Now(), backoff: backoff.Backoff{Min: s.retry.Min, Max: s.retry.Max, Jitter: 0.5}}
}

// progressed starts the count anew.
func (t *tries) progressed() {
	t.number, t.start = 0, time.Now()
	t.backoff.Reset()
}

// failed waits before the next attempt, or returns the error to give up with.
func (t *tries) failed(ctx context.Context, err error) error {
	t.number++
	v, err := t.s.meaning(ctx, err)
	wait := t.backoff.Next()
	elapsed := time.Since(t.start)
	final := !v.transient || t.number >= t.s.retry.Attempts || elapsed+wait > t.s.retry.Total
	if v.kind != nil && (v.transient || t.number > 1) {
		t.s.tell(ctx, Attempt{Op: t.op, Store: t.s.store, Object: t.object, Number: t.number, Err: t.s.redact(err), Wait: wait, Final: final})
	}
	if !final {
		if backoff.Sleep(ctx, wait) == nil {
			return nil
		}
		v, err = verdict{}, context.Cause(ctx)
	}
	return t.s.errorOf(t.op, t.object, err, v, t.number, elapsed)
}

func (s *session) tell(ctx context.Context, a Attempt) {
	if s.onAttempt != nil {
		s.onAttempt(a)
	}
	s.log.LogAttrs(ctx, slog.LevelWarn, "an attempt at the object store failed",
		slog.String("op", a.Op), slog.String("store", a.Store), slog.String("object", a.Object), slog.Int("attempt", a.Number),
		slog.Duration("wait", a.Wait), slog.Bool("final", a.Final), slog.Any("error", a.Err))
}

// judge says what an error means.
func (s *session) judge(err error) verdict {
	if j, ok := errors.AsType[*judged](err); ok {
		return j.verdict
	}
	if _, ok := errors.AsType[*bodyError](err); ok {
		return verdict{}
	}
	if errors.Is(err, errName) {
		return verdict{kind: ErrRefused}
	}
	v := s.classify(err)
	if errors.Is(v.kind, ErrDenied) || errors.Is(v.kind, ErrClockSkew) {
		if skew := s.skew.last(); skew.Abs() > maxSkew || errors.Is(v.kind, ErrClockSkew) {
			return verdict{kind: ErrClockSkew, skew: skew, hint: "set this machine's clock, for example with NTP"}
		}
		if s.identity != "" { // a directory has none
			v.hint = strings.TrimPrefix(v.hint+"; asked as "+s.identity, "; ")
		}
	}
	return v
}

// errorOf is what a caller gets. An *Error stays what it is: it may be that of another part,
// which ended this one.
func (s *session) errorOf(op, object string, err error, v verdict, attempts int, elapsed time.Duration) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{
		Op: op, Store: s.store, Object: object, Kind: v.kind, Cause: s.redact(err),
		Hint: v.hint, Until: v.until, Skew: v.skew, Attempts: attempts, Elapsed: elapsed,
	}
}

// meaning judges an error. What broke because ctx ended is not the store's fault.
func (s *session) meaning(ctx context.Context, err error) (verdict, error) {
	if ctx.Err() == nil {
		return s.judge(err), err
	}
	if !errors.Is(err, ctx.Err()) {
		err = context.Cause(ctx)
	}
	return verdict{}, err
}

// fail wraps an error that is not repeated.
func (s *session) fail(ctx context.Context, op, object string, err error) error {
	v, err := s.meaning(ctx, err)
	return s.errorOf(op, object, err, v, 1, 0)
}

// redact strikes secrets out of what a library says. Only then the chain of causes is cut.
func (s *session) redact(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if !slices.ContainsFunc(s.secrets, func(secret string) bool { return strings.Contains(text, secret) }) {
		return err
	}
	for _, secret := range s.secrets {
		text = strings.ReplaceAll(text, secret, "(secret)")
	}
	return errors.New(text)
}
