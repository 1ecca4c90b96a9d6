package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/internal/backoff"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

// Sessions and the codes that begin them are Secrets beside the tokens, of which
// the store holds the SHA-256 only. Each ends by itself, and with the token in
// whose name it was made.
const (
	// LabelSession is "true" on each session, which has LabelToken too.
	LabelSession = "quorate.io/session"
	// LabelCode is "true" on each one-time log-in code.
	LabelCode = "quorate.io/login-code"

	sessionPrefix = "session-"
	codePrefix    = "login-"

	sessionTime = 12 * time.Hour
	codeTime    = 15 * time.Minute
	maxCodeTime = time.Hour
	// keepSessions bounds the sessions, and the codes, of one token: the oldest go.
	keepSessions = 100
	sweepEvery   = 10 * time.Minute

	// maxLogin bounds what is read of a stranger, in bytes.
	maxLogin = 4 << 10
	// wrongTime is how long a wrong code waits for its answer, and maxWrong how many
	// do at a time. A right one never waits.
	wrongTime = time.Second
	maxWrong  = 64
)

// Further fields of the Secret of a session or code.
const (
	tokenExpires = "expiresAt"
	// tokenOwner names the token in whose name it was made, and tokenOwnerHash is
	// that token's hash at the time: a token that was reset is another.
	tokenOwner     = "owner"
	tokenOwnerHash = "ownerSHA256"
)

// sessionOf completes the caller of a session's Secret, or says why the session is
// over.
func (a *authenticator) sessionOf(ctx context.Context, c caller, s *v1alpha1.Secret) (caller, error) {
	expires, err := a.good(ctx, s)
	if err != nil {
		return caller{}, err
	}
	c.name, c.expires = string(s.Data[tokenOwner]), expires
	return c, nil
}

// good returns when a session or code ends, or an error if it has, by itself or
// with its owner.
func (a *authenticator) good(ctx context.Context, s *v1alpha1.Secret) (time.Time, error) {
	expires, err := time.Parse(time.RFC3339, string(s.Data[tokenExpires]))
	if err != nil || !a.now().Before(expires) {
		return time.Time{}, unknownToken()
	}
	var owner v1alpha1.Secret
	err = a.store.Get(ctx, store.Key{Namespace: TokenNamespace, Name: string(s.Data[tokenOwner])}, &owner)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return time.Time{}, unknownToken()
	case err != nil:
		return time.Time{}, fmt.Errorf("look up the token: %w", err)
	case string(owner.Data[tokenHash]) != string(s.Data[tokenOwnerHash]) || owner.Labels[LabelToken] != "true" ||
		owner.DeletionTimestamp != nil || string(owner.Data[tokenRole]) != string(s.Data[tokenRole]):
		return time.Time{}, unknownToken()
	}
	return expires, nil
}

// owned is a Secret in the name of c's token, known by plain until it expires.
func owned(c caller, name, plain string, expires time.Time) *v1alpha1.Secret {
	s := tokenSecret(name, plain, c.role)
	s.Data[tokenExpires] = []byte(expires.Format(time.RFC3339))
	// For people who list Secrets; the labels are what counts.
	s.Type = "quorate.io/session"
	if strings.HasPrefix(name, codePrefix) {
		s.Type = "quorate.io/login-code"
	}
	s.Data[tokenOwner], s.Data[tokenOwnerHash] = []byte(c.name), []byte(c.hash)
	return s
}

// createLink makes a one-time log-in code for the caller's own role.
func (s *Server) createLink(w *response, r *http.Request, c caller) error {
	var body wire.LinkRequest
	if r.ContentLength != 0 {
		if err := readJSON(w, r, &body); err != nil {
			return err
		}
	}
	ttl := codeTime
	if body.TTLSeconds != 0 {
		if body.TTLSeconds < 0 || body.TTLSeconds > int64(maxCodeTime/time.Second) {
			return badRequest("ttlSeconds is %d: give 1 to %d (an hour)", body.TTLSeconds, int64(maxCodeTime/time.Second))
		}
		ttl = time.Duration(body.TTLSeconds) * time.Second
	}
	if c.session() {
		return forbidden("a session can't make log-in links, or it could outlive its %s: use the token %q itself, as `quorate console` does", sessionTime, c.name)
	}
	s.sweep(r.Context())
	code := rand.Text()
	expires := s.tokens.now().UTC().Truncate(time.Second).Add(ttl)
	secret := owned(c, codeName(code), code, expires)
	secret.Labels = map[string]string{LabelCode: "true"}
	if err := s.opts.Store.Create(r.Context(), secret); err != nil {
		return err
	}
	return w.json(http.StatusCreated, wire.LoginLink{Code: code, Path: "/login?code=" + code, ExpiresAt: expires})
}

// codeName is the name of a code's Secret: found by what is known of the code, and
// telling nothing of it.
func codeName(code string) string {
	sum := sha256.Sum256([]byte("name of " + code))
	return codePrefix + hex.EncodeToString(sum[:16])
}

// logIn is the only thing that a stranger may ask for: a session for a one-time
// code.
func (s *Server) logIn(w *response, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), requestTime)
	defer cancel()
	// A connection without deadlines, as in tests, has none to set.
	_ = w.control.SetReadDeadline(time.Now().Add(min(s.head, s.patience)))
	r.Body = http.MaxBytesReader(w, r.Body, maxLogin)
	var body wire.Login
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Code == "" {
		w.hangUp()
		return unauthorized("no token was sent")
	}
	w.endless()
	c, err := s.redeem(ctx, body.Code)
	if err != nil && statusOf(err).Code == http.StatusUnauthorized {
		return s.wrongCode(ctx, err)
	}
	if err != nil {
		return err
	}
	return s.beginSession(ctx, w, c)
}

// wrongCode holds up those who guess.
func (s *Server) wrongCode(ctx context.Context, err error) error {
	select {
	case s.wrong <- struct{}{}:
		defer func() { <-s.wrong }()
		_ = backoff.Sleep(ctx, s.wrongTime) // who hangs up has guessed wrong all the same
		return err
	default:
		return wire.Failure(http.StatusTooManyRequests, wire.ReasonTooMany, "too many wrong log-in codes at a time: try again in a minute")
	}
}

// redeem takes a code, once, and returns in whose name the session is.
func (s *Server) redeem(ctx context.Context, code string) (caller, error) {
	var secret v1alpha1.Secret
	key := store.Key{Namespace: TokenNamespace, Name: codeName(code)}
	err := s.opts.Store.Get(ctx, key, &secret)
	if errors.Is(err, store.ErrNotFound) {
		return caller{}, unknownToken()
	}
	if err != nil {
		return caller{}, fmt.Errorf("look up the log-in code: %w", err)
	}
	if !isKnownBy(&secret, sha256.Sum256([]byte(code))) || secret.Labels[LabelCode] != "true" {
		return caller{}, unknownToken()
	}
	if _, err = s.tokens.good(ctx, &secret); err != nil {
		return caller{}, err
	}
	// Whoever removes it has it: of two at once, one finds it gone or changed.
	err = s.opts.Store.Delete(ctx, v1alpha1.KindSecret, key, store.Preconditions{UID: secret.UID, ResourceVersion: secret.ResourceVersion})
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrConflict) {
		return caller{}, unknownToken()
	}
	if err != nil {
		return caller{}, fmt.Errorf("take the log-in code: %w", err)
	}
	return caller{
		name: string(secret.Data[tokenOwner]), role: Role(secret.Data[tokenRole]), hash: string(secret.Data[tokenOwnerHash]),
	}, nil
}

// exchange begins a session in the name of the caller's token.
func (s *Server) exchange(w *response, r *http.Request, c caller) error {
	var body wire.Login
	if r.ContentLength != 0 {
		if err := readJSON(w, r, &body); err != nil {
			return err
		}
	}
	if body.Code != "" {
		return badRequest("both a token and a log-in code were sent: send the code without a token, or the token alone")
	}
	if c.session() {
		return forbidden("a session can't begin another, or it could outlive its %s: log in again, or use the token %q itself", sessionTime, c.name)
	}
	return s.beginSession(r.Context(), w, c)
}

func (s *Server) beginSession(ctx context.Context, w *response, c caller) error {
	s.sweep(ctx)
	name := sessionPrefix + strings.ToLower(rand.Text())
	plain := newPlain(name)
	expires := s.tokens.now().UTC().Truncate(time.Second).Add(sessionTime)
	secret := owned(c, name, plain, expires)
	secret.Labels = map[string]string{LabelToken: "true", LabelSession: "true"}
	if err := s.opts.Store.Create(ctx, secret); err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return w.json(http.StatusCreated, wire.Session{Token: plain, Name: c.name, Role: string(c.role), ExpiresAt: expires})
}

func (s *Server) whoAmI(w *response, _ *http.Request, c caller) error {
	return w.json(http.StatusOK, wire.Session{Name: c.name, Role: string(c.role), ExpiresAt: c.expires})
}

// logOut ends the session that asks for it.
func (s *Server) logOut(w *response, r *http.Request, c caller) error {
	if !c.session() {
		return badRequest("the token %q is no session: revoke it by deleting the Secret %s/%s", c.name, TokenNamespace, c.token)
	}
	var secret v1alpha1.Secret
	key := store.Key{Namespace: TokenNamespace, Name: c.token}
	err := s.opts.Store.Get(r.Context(), key, &secret)
	if err == nil {
		err = s.opts.Store.Delete(r.Context(), v1alpha1.KindSecret, key, store.Preconditions{UID: secret.UID})
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	// Without waiting for the watch: who logs out sees it at once.
	s.tokens.forget(c.token)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// sweepAll removes what is over from time to time, until ctx ends.
func (s *Server) sweepAll(ctx context.Context) {
	for backoff.Sleep(ctx, sweepEvery) == nil {
		bounded, cancel := context.WithTimeout(ctx, requestTime)
		s.sweep(bounded)
		cancel()
	}
}

// sweep removes the sessions and codes that are over, and the oldest of those that
// are too many. What fails is left to the next sweep.
func (s *Server) sweep(ctx context.Context) {
	for _, label := range []string{LabelSession, LabelCode, LabelJoinToken} {
		objs, err := s.opts.Store.List(ctx, v1alpha1.KindSecret, store.ListOptions{
			Namespace: TokenNamespace, Labels: map[string]string{label: "true"},
		})
		if err != nil {
			s.log.WarnContext(ctx, "sessions not swept", slog.Any("error", err))
			return
		}
		gone := over(objs, s.tokens.now())
		if label == LabelJoinToken {
			gone = overSince(objs, s.tokens.now().Add(-keepJoinTokens))
		}
		for _, secret := range gone {
			err := s.opts.Store.Delete(ctx, v1alpha1.KindSecret, store.KeyOf(secret), store.Preconditions{UID: secret.UID})
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				s.log.WarnContext(ctx, "session not swept", slog.String("name", secret.Name), slog.Any("error", err))
			}
		}
	}
}

// overSince returns those that had expired at that time.
func overSince(objs []v1alpha1.Object, at time.Time) []*v1alpha1.Secret {
	var found []*v1alpha1.Secret
	for _, obj := range objs {
		secret, ok := obj.(*v1alpha1.Secret)
		if !ok {
			continue
		}
		if expires, err := time.Parse(time.RFC3339, string(secret.Data[tokenExpires])); err != nil || expires.Before(at) {
			found = append(found, secret)
		}
	}
	return found
}

// over returns those that have expired, and those beyond the newest keepSessions
// of their owner.
func over(objs []v1alpha1.Object, now time.Time) []*v1alpha1.Secret {
	var found []*v1alpha1.Secret
	live := map[string][]*v1alpha1.Secret{}
	for _, obj := range objs {
		secret, ok := obj.(*v1alpha1.Secret)
		if !ok {
			continue
		}
		expires, err := time.Parse(time.RFC3339, string(secret.Data[tokenExpires]))
		if err != nil || !now.Before(expires) {
			found = append(found, secret)
			continue
		}
		owner := string(secret.Data[tokenOwner])
		live[owner] = append(live[owner], secret)
	}
	for _, list := range live {
		slices.SortFunc(list, func(a, b *v1alpha1.Secret) int {
			return cmp.Compare(string(a.Data[tokenExpires]), string(b.Data[tokenExpires]))
		})
		found = append(found, list[:max(0, len(list)-keepSessions+1)]...)
	}
	return found
}
