// Package discovery is an etcd discovery service of version 3 that holds nothing else:
// the few requests that a founding member makes are answered from Secrets of the
// fleet's store, one per token, and everything else is refused.
package discovery

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

const (
	// Namespace is where the Secrets live.
	Namespace = "quorate-system"
	// LabelToken is "true" on the Secret of each token.
	LabelToken = "quorate.io/discovery-token" //nolint:gosec // the name of a label

	// DefaultTTL is how long a token is good for unless it is told otherwise.
	DefaultTTL = 24 * time.Hour
	// MaxSize is the largest cluster that meets here.
	MaxSize = 9

	namePrefix = "discovery-"
	tokenBytes = 16
)

// Fields of a token's Secret.
const (
	fieldToken   = "token"
	fieldSize    = "size"
	fieldExpires = "expires"
	fieldCluster = "cluster"
	fieldMembers = "members"
)

// ErrUnknown says that there is no such token: it was never made, has expired, or was
// deleted.
var ErrUnknown = errors.New("unknown discovery token")

// ErrFull says that as many members as a token is for have registered with it.
var ErrFull = errors.New("as many members as the token is for have registered")

// Token is one meeting of founding members.
type Token struct {
	// Name of its Secret.
	Name string `json:"name"`
	// Token is 128 bits in hex, which nobody can guess.
	Token string `json:"token"`
	// Size is how many members meet.
	Size int `json:"size"`
	// Cluster that it was made for, as NAMESPACE/NAME; empty for one that a person asked
	// for.
	Cluster string    `json:"cluster,omitempty"`
	Expires time.Time `json:"expires"`
	// Members that have registered, in the order in which they did.
	Members []Registration `json:"members,omitempty"`
}

// Registration is a member that has come.
type Registration struct {
	// ID is the member's, in hex.
	ID string `json:"id"`
	// Value is NAME=PEERURL, several joined by commas.
	Value string `json:"value"`
}

// revision counts as a store's does: the size is its first entry.
func (t *Token) revision() int64 { return firstRevision + int64(len(t.Members)) }

// firstRevision is that of the size.
const firstRevision = 2

// New makes a token for a cluster of that size.
func New(ctx context.Context, s store.Store, size int, ttl time.Duration, now time.Time) (*Token, error) {
	secret := make([]byte, tokenBytes)
	_, _ = rand.Read(secret) // never fails
	t := &Token{Token: hex.EncodeToString(secret), Size: size, Expires: now.Add(ttl).UTC().Truncate(time.Second)}
	return t, create(ctx, s, t)
}

func create(ctx context.Context, s store.Store, t *Token) error {
	if t.Size < 1 || t.Size > MaxSize {
		return fmt.Errorf("a discovery token for %d members: %w: a cluster has 1 to %d", t.Size, store.ErrInvalid, MaxSize)
	}
	t.Name = nameOf(t.Token)
	secret := &v1alpha1.Secret{}
	v1alpha1.SetType(secret, v1alpha1.KindSecret.Kind, v1alpha1.KindSecret.APIVersion)
	secret.Namespace, secret.Name = Namespace, t.Name
	secret.Labels = map[string]string{LabelToken: "true"}
	if err := t.into(secret); err != nil {
		return err
	}
	return s.Create(ctx, secret)
}

// nameOf is the name of a token's Secret: who may list names learns no token.
func nameOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return namePrefix + hex.EncodeToString(sum[:8])
}

func keyOf(name string) store.Key { return store.Key{Namespace: Namespace, Name: name} }

func (t *Token) into(s *v1alpha1.Secret) error {
	members, err := json.Marshal(t.Members)
	if err != nil {
		return fmt.Errorf("discovery token %s: %w", t.Name, err)
	}
	s.Data = map[string][]byte{
		fieldToken: []byte(t.Token), fieldSize: []byte(strconv.Itoa(t.Size)), fieldCluster: []byte(t.Cluster),
		fieldExpires: []byte(t.Expires.UTC().Format(time.RFC3339)), fieldMembers: members,
	}
	return nil
}

func fromSecret(s *v1alpha1.Secret) (*Token, error) {
	if s.Labels[LabelToken] != "true" {
		return nil, ErrUnknown
	}
	t := &Token{Name: s.Name, Token: string(s.Data[fieldToken]), Cluster: string(s.Data[fieldCluster])}
	var err error
	if t.Size, err = strconv.Atoi(string(s.Data[fieldSize])); err == nil {
		t.Expires, err = time.Parse(time.RFC3339, string(s.Data[fieldExpires]))
	}
	if err == nil {
		err = json.Unmarshal(s.Data[fieldMembers], &t.Members)
	}
	if err != nil {
		return nil, fmt.Errorf("the Secret %s/%s is no discovery token that can be read: %w: delete it, and make a new token", Namespace, s.Name, err)
	}
	return t, nil
}

// load finds a token by itself. One that has expired is ErrUnknown.
func load(ctx context.Context, s store.Store, token string, now time.Time) (*Token, error) {
	secret := &v1alpha1.Secret{}
	err := s.Get(ctx, keyOf(nameOf(token)), secret)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrInvalid) {
		return nil, ErrUnknown
	}
	if err != nil {
		return nil, err
	}
	return matching(secret, token, now)
}

func matching(secret *v1alpha1.Secret, token string, now time.Time) (*Token, error) {
	t, err := fromSecret(secret)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare([]byte(t.Token), []byte(token)) != 1 || !now.Before(t.Expires) {
		return nil, ErrUnknown
	}
	return t, nil
}

// List returns the tokens there are, expired ones too, by name. They can only be read
// by who may read Secrets.
func List(ctx context.Context, s store.Store) ([]*Token, error) {
	objects, err := s.List(ctx, v1alpha1.KindSecret, store.ListOptions{
		Namespace: Namespace, NamePrefix: namePrefix, Labels: map[string]string{LabelToken: "true"},
	})
	if err != nil {
		return nil, err
	}
	var all []*Token
	for _, o := range objects {
		secret, ok := o.(*v1alpha1.Secret)
		if !ok {
			continue
		}
		t, err := fromSecret(secret)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b *Token) int { return a.Expires.Compare(b.Expires) })
	return all, nil
}

// Delete removes a token, found by itself or by the name of its Secret. ErrUnknown
// where there is none.
func Delete(ctx context.Context, s store.Store, tokenOrName string) error {
	for _, name := range []string{tokenOrName, nameOf(tokenOrName)} {
		secret := &v1alpha1.Secret{}
		err := s.Get(ctx, keyOf(name), secret)
		if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrInvalid) {
			continue
		}
		if err != nil {
			return err
		}
		if secret.Labels[LabelToken] != "true" {
			continue
		}
		return s.Delete(ctx, v1alpha1.KindSecret, keyOf(name), store.Preconditions{UID: secret.UID})
	}
	return fmt.Errorf("%w %q: see `quorate discovery list`", ErrUnknown, tokenOrName)
}
