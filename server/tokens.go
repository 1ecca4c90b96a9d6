package server

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// Tokens are Secrets, of which the store holds the SHA-256 only.
const (
	// TokenNamespace is where they live.
	TokenNamespace = "quorate-system"
	// LabelToken is "true" on each.
	LabelToken = "quorate.io/token" //nolint:gosec // the name of a label

	tokenPrefix = "quorate"
	// tokenFresh bounds how long a token that was revoked unseen, while the store
	// could not be watched, may still be taken.
	tokenFresh = time.Minute
)

// Fields of a token's Secret.
const (
	tokenRole = "role"
	tokenHost = "host"
	tokenHash = "sha256"
)

// EnsureToken makes sure that there is a token of that name, with that role and,
// for RoleAgent, for that host. It returns the token when it made it, which is the
// only time it is known, and an empty string when it was there. A token of that
// name with another role or host is ErrExists.
func EnsureToken(ctx context.Context, st store.Store, name string, role Role, host string) (string, error) {
	plain, s, err := newToken(name, role, host)
	if err != nil {
		return "", err
	}
	err = st.Create(ctx, s)
	if err == nil {
		return plain, nil
	}
	if !errors.Is(err, store.ErrExists) {
		return "", err
	}
	if err := st.Get(ctx, store.KeyOf(s), s); err != nil {
		return "", err
	}
	if Role(s.Data[tokenRole]) != role || string(s.Data[tokenHost]) != host || s.Labels[LabelToken] != "true" {
		return "", fmt.Errorf("token %s: %w with another role or host: choose another name, or delete the Secret %s/%s",
			name, store.ErrExists, TokenNamespace, name)
	}
	return "", nil
}

// ResetToken replaces the token of that name with a new one, or makes it, and
// returns it. The one before is void from then on.
func ResetToken(ctx context.Context, st store.Store, name string, role Role, host string) (string, error) {
	plain, fresh, err := newToken(name, role, host)
	if err != nil {
		return "", err
	}
	for {
		err := store.Mutate(ctx, st, store.KeyOf(fresh), &v1alpha1.Secret{}, func(s *v1alpha1.Secret) (bool, error) {
			s.Labels, s.Data = fresh.Labels, fresh.Data
			return true, nil
		})
		if errors.Is(err, store.ErrNotFound) {
			err = st.Create(ctx, fresh)
		}
		if errors.Is(err, store.ErrExists) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return "", err
		}
		return plain, nil
	}
}

func newToken(name string, role Role, host string) (string, *v1alpha1.Secret, error) {
	if err := checkName(name); err != nil {
		return "", nil, err
	}
	if strings.HasPrefix(name, sessionPrefix) || strings.HasPrefix(name, codePrefix) {
		return "", nil, fmt.Errorf("token %s: %w: names that begin with %s or %s are those of log-ins: choose another", name, store.ErrInvalid, sessionPrefix, codePrefix)
	}
	if err := checkRole(role, host); err != nil {
		return "", nil, fmt.Errorf("token %s: %w: %w", name, store.ErrInvalid, err)
	}
	plain := newPlain(name)
	s := tokenSecret(name, plain, role)
	s.Labels = map[string]string{LabelToken: "true"}
	if host != "" {
		s.Data[tokenHost] = []byte(host)
	}
	return plain, s, nil
}

// newPlain makes the text of a token of that name.
func newPlain(name string) string {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	return tokenPrefix + "_" + name + "_" + hex.EncodeToString(secret)
}

// tokenSecret is the Secret of what is known by plain.
func tokenSecret(name, plain string, role Role) *v1alpha1.Secret {
	s := &v1alpha1.Secret{Data: map[string][]byte{tokenRole: []byte(role), tokenHash: []byte(hashOf(plain))}}
	v1alpha1.SetType(s, v1alpha1.KindSecret.Kind, v1alpha1.KindSecret.APIVersion)
	s.Namespace, s.Name = TokenNamespace, name
	return s
}

func hashOf(plain string) string {
	sum := sha256.Sum256([]byte(plain))
	return hex.EncodeToString(sum[:])
}

func checkRole(role Role, host string) error {
	switch role {
	case RoleAdmin, RoleViewer:
		if host != "" {
			return fmt.Errorf("the role %s has no host", role)
		}
		return nil
	case RoleAgent:
		if checkName(host) != nil {
			return fmt.Errorf("the role agent needs the name of an EtcdHost, and %q is none", host)
		}
		return nil
	default:
		return fmt.Errorf("there is no role %q: use admin, viewer or agent", role)
	}
}

// authenticator tells callers by their tokens. What it has found it remembers
// while a watch of the Secrets tells it what to forget.
type authenticator struct {
	store store.Store
	now   func() time.Time
	// changed is told the name of each Secret that may have changed, once what was known
	// of it is forgotten; may be nil.
	changed func(name string)

	mu sync.Mutex
	// known is nil while no watch runs.
	known map[[sha256.Size]byte]knownToken
	// changes counts what the watch has said, so that nothing read before a change is
	// remembered after it.
	changes uint64
}

type knownToken struct {
	caller caller
	until  time.Time
}

func newAuthenticator(st store.Store) *authenticator { return &authenticator{store: st, now: time.Now} }

// run keeps what is remembered fresh until ctx ends.
func (a *authenticator) run(ctx context.Context) {
	keys := a.store.Watch(ctx, v1alpha1.KindSecret, TokenNamespace)
	a.mu.Lock()
	a.known = map[[sha256.Size]byte]knownToken{}
	a.mu.Unlock()
	for key := range keys {
		a.forget(key.Name)
		if a.changed != nil {
			a.changed(key.Name)
		}
	}
	a.mu.Lock()
	a.known = nil
	a.mu.Unlock()
}

func (a *authenticator) forget(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.changes++
	for sum, k := range a.known {
		if k.caller.token == name || k.caller.name == name {
			delete(a.known, sum)
		}
	}
}

// authenticate returns who sent the header Authorization.
func (a *authenticator) authenticate(ctx context.Context, header string) (caller, error) {
	scheme, plain, _ := strings.Cut(header, " ")
	if header == "" {
		return caller{}, unauthorized("no token was sent")
	}
	prefix, rest, _ := strings.Cut(plain, "_")
	name, _, ok := strings.Cut(rest, "_")
	if !strings.EqualFold(scheme, "Bearer") || prefix != tokenPrefix || !ok || checkName(name) != nil {
		return caller{}, unauthorized("what was sent is no token")
	}
	sum := sha256.Sum256([]byte(plain))
	return a.recall(sum, func() (caller, time.Time, error) {
		c, err := a.look(ctx, name, sum)
		return c, c.expires, err
	})
}

// recall returns the caller who is known by sum, or who look finds, and until when; the
// zero time means for long.
func (a *authenticator) recall(sum [sha256.Size]byte, look func() (caller, time.Time, error)) (caller, error) {
	a.mu.Lock()
	k, found := a.known[sum]
	changes := a.changes
	a.mu.Unlock()
	if found && a.now().Before(k.until) {
		return k.caller, nil
	}
	c, until, err := look()
	if err != nil {
		return caller{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known != nil && a.changes == changes {
		k = knownToken{c, a.now().Add(tokenFresh)}
		if !until.IsZero() && until.Before(k.until) {
			k.until = until
		}
		a.known[sum] = k
	}
	return c, nil
}

// look reads the token's Secret.
func (a *authenticator) look(ctx context.Context, name string, sum [sha256.Size]byte) (caller, error) {
	wrong := unknownToken()
	var s v1alpha1.Secret
	err := a.store.Get(ctx, store.Key{Namespace: TokenNamespace, Name: name}, &s)
	if errors.Is(err, store.ErrNotFound) {
		return caller{}, wrong
	}
	if err != nil {
		return caller{}, fmt.Errorf("look up the token: %w", err)
	}
	if !isKnownBy(&s, sum) || s.Labels[LabelToken] != "true" {
		return caller{}, wrong
	}
	c := caller{token: name, name: name, role: Role(s.Data[tokenRole]), host: string(s.Data[tokenHost]), hash: string(s.Data[tokenHash])}
	if s.Labels[LabelSession] == "true" {
		if c, err = a.sessionOf(ctx, c, &s); err != nil {
			return caller{}, err
		}
	}
	if err := checkRole(c.role, c.host); err != nil {
		return caller{}, unauthorized(fmt.Sprintf("the Secret of the token %q is broken: %v", name, err))
	}
	return c, nil
}

// isKnownBy reports whether a Secret is that of the text with that sum.
func isKnownBy(s *v1alpha1.Secret, sum [sha256.Size]byte) bool {
	want, err := hex.DecodeString(string(s.Data[tokenHash]))
	return err == nil && subtle.ConstantTimeCompare(want, sum[:]) == 1 && s.DeletionTimestamp == nil
}

// unknownToken has the same text for all causes, so that it tells nothing of what
// exists.
func unknownToken() error {
	return unauthorized("the token is not known here, or was revoked")
}
