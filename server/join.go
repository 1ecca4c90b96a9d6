package server

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

// Join tokens are Secrets of which the store holds the SHA-256 only. Each is good for
// one host, for a while, and for one key.
const (
	// LabelJoinToken is "true" on each.
	LabelJoinToken = "quorate.io/join-token" //nolint:gosec // the name of a label

	joinTokenPrefix = "join-"
	defaultJoinTTL  = time.Hour
	maxJoinTTL      = 7 * 24 * time.Hour
	// keepJoinTokens is how long one that is over stays, so that whoever comes with it is
	// told what became of it.
	keepJoinTokens = 24 * time.Hour
	// maxJoin bounds what is read of a stranger who joins, in bytes.
	maxJoin = 16 << 10
)

// Further fields of a join token's Secret.
const (
	joinUsedBy   = "usedBy"
	joinUsedAt   = "usedAt"
	joinUsedFrom = "usedFrom"
)

// Front is what those who reach the API over TLS know it by.
type Front struct {
	// Pin is the SHA-256, in hex, of the public key of the last certificate in the chain
	// that the API shows.
	Pin string
	// CA holds the roots in PEM that agents are to trust; empty for those of their
	// systems.
	CA []byte
}

// createJoinToken makes a token by which the agent of one host may join.
func (s *Server) createJoinToken(w *response, r *http.Request, _ caller) error {
	host := r.PathValue("name")
	if err := checkName(host); err != nil {
		return err
	}
	dry, err := dryRun(r)
	if err != nil {
		return err
	}
	var body wire.JoinTokenRequest
	if r.ContentLength != 0 {
		if err = readJSON(w, r, &body); err != nil {
			return err
		}
	}
	ttl := defaultJoinTTL
	if body.TTLSeconds != 0 {
		if body.TTLSeconds < 0 || body.TTLSeconds > int64(maxJoinTTL/time.Second) {
			return badRequest("ttlSeconds is %d: give 1 to %d (a week)", body.TTLSeconds, int64(maxJoinTTL/time.Second))
		}
		ttl = time.Duration(body.TTLSeconds) * time.Second
	}
	front, err := s.front()
	if err != nil {
		return err
	}
	parts := newJoinToken(front.Pin)
	expires := s.tokens.now().UTC().Truncate(time.Second).Add(ttl)
	answer := wire.JoinToken{Host: host, ExpiresAt: expires}
	if !dry {
		s.sweep(r.Context())
		if err = s.opts.Store.Create(r.Context(), joinTokenSecret(parts, host, expires)); err != nil {
			return err
		}
		answer.Token = parts.String()
	}
	w.Header().Set("Cache-Control", "no-store")
	return w.json(http.StatusCreated, answer)
}

// front is what the API is known by, where it speaks TLS.
func (s *Server) front() (Front, error) {
	var front Front
	if s.opts.Front != nil {
		front = s.opts.Front()
	}
	if front.Pin == "" {
		return front, wire.Failure(http.StatusConflict, wire.ReasonConflict,
			"this server has no TLS, and agents join by certificates: start it with --tls-self-made, or with --tls-cert-file and --tls-key-file")
	}
	return front, nil
}

func newJoinToken(pin string) wire.JoinTokenParts {
	raw := make([]byte, 8+32)
	_, _ = rand.Read(raw) // never fails
	return wire.JoinTokenParts{ID: hex.EncodeToString(raw[:8]), Secret: hex.EncodeToString(raw[8:]), Pin: pin}
}

func joinTokenSecret(parts wire.JoinTokenParts, host string, expires time.Time) *v1alpha1.Secret {
	s := &v1alpha1.Secret{Type: "quorate.io/join-token", Data: map[string][]byte{
		tokenHash: []byte(parts.Hash()), tokenHost: []byte(host), tokenExpires: []byte(expires.Format(time.RFC3339)),
	}}
	v1alpha1.SetType(s, v1alpha1.KindSecret.Kind, v1alpha1.KindSecret.APIVersion)
	s.Namespace, s.Name = TokenNamespace, joinTokenPrefix+parts.ID
	s.Labels = map[string]string{LabelJoinToken: "true"}
	return s
}

// join gives an agent its first certificate, for a join token. It is asked by strangers.
func (s *Server) join(w *response, r *http.Request, _ caller) error {
	ctx := r.Context()
	// A connection without deadlines, as in tests, has none to set.
	_ = w.control.SetReadDeadline(time.Now().Add(min(s.head, s.patience)))
	r.Body = http.MaxBytesReader(w, r.Body, maxJoin)
	var body wire.Join
	if r.ContentLength != 0 {
		if err := readJSON(w, r, &body); err != nil {
			if statusOf(err).Code != http.StatusRequestEntityTooLarge {
				// The connection of that ends by itself, after its answer could be read.
				w.hangUp()
			}
			return err
		}
	}
	if body.Token == "" {
		w.hangUp()
		return unauthorized("no token was sent")
	}
	w.endless()
	host := r.PathValue("host")
	if err := checkName(host); err != nil {
		return err
	}
	front, err := s.front()
	if err != nil {
		return err
	}
	key, err := pki.RequestKeyHash([]byte(body.CSR))
	if err != nil {
		return err
	}
	if err = s.useJoinToken(ctx, r, host, body.Token, key); err == nil {
		return s.giveCertificate(ctx, w, host, body.CSR, front)
	}
	if d, ok := errors.AsType[*deniedError](err); ok && d.reason == reasonUnknownToken {
		return s.wrongCode(ctx, err)
	}
	return err
}

// giveCertificate signs for a host whose record holds the key of the request.
func (s *Server) giveCertificate(ctx context.Context, w *response, host, csr string, front Front) error {
	b, until, err := s.identities.sign(ctx, host, []byte(csr))
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return w.json(http.StatusCreated, wire.AgentCertificate{
		Host: host, Certificate: string(b.Certificate), CA: string(b.CA), ServerCA: string(front.CA), NotAfter: until,
	})
}

// useJoinToken uses a token up for a key, and records the key for the host. The same
// token with the same key is taken again within its life: the answer may have been
// lost.
func (s *Server) useJoinToken(ctx context.Context, r *http.Request, host, text, key string) error {
	parts, ok := wire.ParseJoinToken(text)
	if !ok {
		return deny("", reasonUnknownToken, "what was sent to join as host %q is no join token", host).advise("make one with `quorate host token %s`", host)
	}
	var usedAt time.Time
	secret := &v1alpha1.Secret{}
	err := store.Mutate(ctx, s.opts.Store, store.Key{Namespace: TokenNamespace, Name: joinTokenPrefix + parts.ID}, secret, func(t *v1alpha1.Secret) (bool, error) {
		usedAt = s.tokens.now().UTC()
		return s.mayJoin(t, parts, host, key, remoteIP(r), &usedAt)
	})
	if errors.Is(err, store.ErrNotFound) {
		return deny("", reasonUnknownToken, "the join token that was sent for host %q is not known here", host).advise("make one with `quorate host token %s`", host)
	}
	if err != nil {
		return err
	}
	return s.record(ctx, host, key, parts.ID, usedAt)
}

// mayJoin judges a join token, and marks one that was not used as used by the key. Of
// two at once, one finds the mark of the other.
func (s *Server) mayJoin(t *v1alpha1.Secret, parts wire.JoinTokenParts, host, key, from string, usedAt *time.Time) (bool, error) {
	again := func(d *deniedError) *deniedError { return d.advise("make another with `quorate host token %s`", host) }
	sent := []byte(parts.Hash())
	if subtle.ConstantTimeCompare(sent, t.Data[tokenHash]) != 1 || t.Labels[LabelJoinToken] != "true" || t.DeletionTimestamp != nil {
		return false, again(deny("", reasonUnknownToken, "the join token that was sent for host %q is not known here", host))
	}
	if of := string(t.Data[tokenHost]); of != host {
		return false, deny(of, reasonForeignToken, "the join token was made for host %q, and was used to join as host %q", of, host).
			advise("start the agent with --host %s, or make a token with `quorate host token %s`", of, host)
	}
	expires, err := time.Parse(time.RFC3339, string(t.Data[tokenExpires]))
	if err != nil || !s.tokens.now().Before(expires) {
		return false, again(deny(host, reasonExpiredToken, "the join token of host %q expired on %s", host, t.Data[tokenExpires]))
	}
	used := string(t.Data[joinUsedBy])
	if used == key {
		*usedAt, err = time.Parse(time.RFC3339Nano, string(t.Data[joinUsedAt]))
		return false, err
	}
	if used != "" {
		return false, deny(host, reasonReusedToken, "the join token of host %q was used on %s from %s, with another key", host, t.Data[joinUsedAt], t.Data[joinUsedFrom]).
			advise("if that was not you, remove the host (`quorate host remove %s`); then make another token with `quorate host token %s`", host, host)
	}
	t.Data[joinUsedBy], t.Data[joinUsedAt], t.Data[joinUsedFrom] = []byte(key), []byte(usedAt.Format(time.RFC3339Nano)), []byte(from)
	return true, nil
}

// record makes the key the only one of the host, unless a later join has done so.
func (s *Server) record(ctx context.Context, host, key, token string, usedAt time.Time) error {
	superseded := deny(host, reasonReusedToken, "the host %q has joined with another token since", host).advise("make another with `quorate host token %s`", host)
	fresh := func(r *v1alpha1.Secret) {
		r.Type, r.Labels = "quorate.io/joined-host", map[string]string{LabelJoined: "true"}
		r.Data = map[string][]byte{
			recordHost: []byte(host), recordKey: []byte(key), recordToken: []byte(token), recordJoined: []byte(usedAt.Format(time.RFC3339Nano)),
		}
	}
	for {
		record := &v1alpha1.Secret{}
		v1alpha1.SetType(record, v1alpha1.KindSecret.Kind, v1alpha1.KindSecret.APIVersion)
		record.Namespace, record.Name = TokenNamespace, recordName(host)
		err := store.Mutate(ctx, s.opts.Store, store.KeyOf(record), record, func(r *v1alpha1.Secret) (bool, error) {
			if string(r.Data[recordToken]) == token {
				if string(r.Data[recordKey]) != key && string(r.Data[recordNext]) != key {
					return false, superseded
				}
				return false, nil
			}
			before, err := time.Parse(time.RFC3339Nano, string(r.Data[recordJoined]))
			if err == nil && before.After(usedAt) {
				return false, superseded
			}
			fresh(r)
			return true, nil
		})
		if errors.Is(err, store.ErrNotFound) {
			fresh(record)
			err = s.opts.Store.Create(ctx, record)
		}
		if !errors.Is(err, store.ErrExists) || ctx.Err() != nil {
			return err
		}
	}
}

// renew gives an agent that has joined its next certificate. The one before goes on to
// count until the next is used: the answer may be lost.
func (s *Server) renew(w *response, r *http.Request, c caller) error {
	host, err := pathHost(r, c)
	if err != nil {
		return err
	}
	var body wire.Renewal
	if err = readJSON(w, r, &body); err != nil {
		return err
	}
	if c.key == "" {
		return forbidden("%s did not show a certificate, and only who has joined can renew: join with a token of `quorate host token %s`", c.who(), host)
	}
	front, err := s.front()
	if err != nil {
		return err
	}
	key, err := pki.RequestKeyHash([]byte(body.CSR))
	if err != nil {
		return err
	}
	err = store.Mutate(r.Context(), s.opts.Store, store.Key{Namespace: TokenNamespace, Name: recordName(host)}, &v1alpha1.Secret{}, func(rec *v1alpha1.Secret) (bool, error) {
		if string(rec.Data[recordKey]) != c.key {
			return false, deny(host, reasonRevokedCertificate, "the certificate of host %q is void: the host has joined anew, or has a newer certificate", host)
		}
		if key == c.key || string(rec.Data[recordNext]) == key {
			return false, nil
		}
		rec.Data[recordNext] = []byte(key)
		return true, nil
	})
	if err != nil {
		return err
	}
	return s.giveCertificate(r.Context(), w, host, body.CSR, front)
}

// remoteIP is where a request comes from, without its port.
func remoteIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
