package server

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

// An agent that has joined proves its host by a certificate of the agents' CA. A
// certificate counts only while the record of its host holds its key: removing the
// host, or joining anew, voids it.
const (
	// agentsCA is the Secret of the agents' CA.
	agentsCA = "agents-ca"
	// recordPrefix begins the Secrets that hold which keys stand for a host.
	recordPrefix = "joined-"
	// LabelJoined is "true" on each record.
	LabelJoined = "quorate.io/joined"

	// secretCert and secretKey are its fields, as Kubernetes names them.
	secretCert, secretKey = "tls.crt", "tls.key"

	agentsCAValidity = 10 * 365 * 24 * time.Hour
	// AgentValidity is how long an agent's certificate lasts. The agent asks for the
	// next one when two thirds are over.
	AgentValidity = 90 * 24 * time.Hour

	// agentScheme and agentAuthority make the name of a host in a certificate:
	// quorate://agents/HOST.
	agentScheme, agentAuthority = "quorate", "agents"
	maxName                     = 253
	maxAgentCN                  = 64

	// beforeTime is how long the key before counts once the next was used.
	beforeTime = 5 * time.Minute
)

// Fields of a record. A key is named by the hash of its public half.
const (
	recordHost = "host"
	// recordKey stands for the host.
	recordKey = "key"
	// recordNext does too, and becomes the only one when it is used first: the answer
	// with its certificate may have been lost.
	recordNext = "next"
	// recordBefore was the key before that, which counts for a little while: connections
	// were made with it.
	recordBefore, recordUntil = "before", "beforeUntil"
	// recordToken is the ID of the join token, and recordJoined when it was used.
	recordToken  = "joinToken"
	recordJoined = "joinedAt"
)

// recordName is the name of the Secret with the record of a host.
func recordName(host string) string {
	if name := recordPrefix + host; len(name) <= maxName {
		return name
	}
	sum := sha256.Sum256([]byte(host))
	return recordPrefix + hex.EncodeToString(sum[:])
}

// agentURI names a host in certificates.
func agentURI(host string) *url.URL {
	return &url.URL{Scheme: agentScheme, Host: agentAuthority, Path: "/" + host}
}

// hostOfCertificate is the host that a certificate names; empty where it names none, or
// more than one.
func hostOfCertificate(c *x509.Certificate) string {
	if len(c.URIs) != 1 || c.URIs[0].Scheme != agentScheme || c.URIs[0].Host != agentAuthority {
		return ""
	}
	host := strings.TrimPrefix(c.URIs[0].Path, "/")
	if checkName(host) != nil {
		return ""
	}
	return host
}

// identities signs the certificates of agents, and tells hosts by them.
type identities struct {
	store store.Store
	now   func() time.Time
	// validity of certificates; AgentValidity, or what a test puts here.
	validity time.Duration

	mu sync.Mutex
	ca *pki.CA
}

// authority returns the agents' CA, which is made when it is asked for first.
func (a *identities) authority(ctx context.Context) (*pki.CA, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ca != nil {
		return a.ca, nil
	}
	key := store.Key{Namespace: TokenNamespace, Name: agentsCA}
	secret := &v1alpha1.Secret{}
	err := a.store.Get(ctx, key, secret)
	if errors.Is(err, store.ErrNotFound) {
		if err = a.create(ctx, key); err == nil {
			err = a.store.Get(ctx, key, secret)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the agents' CA: %w", err)
	}
	ca, err := pki.LoadCA(secret.Data[secretCert], secret.Data[secretKey], secret.Data[secretCert])
	if err != nil {
		return nil, fmt.Errorf("the agents' CA in Secret %s: %w", key, err)
	}
	a.ca = ca
	return ca, nil
}

func (a *identities) create(ctx context.Context, key store.Key) error {
	cert, private, err := pki.NewCA("Quorate agents", agentsCAValidity, a.now())
	if err != nil {
		return err
	}
	secret := &v1alpha1.Secret{Type: v1alpha1.SecretTypeTLS, Data: map[string][]byte{secretCert: cert, secretKey: private}}
	v1alpha1.SetType(secret, v1alpha1.KindSecret.Kind, v1alpha1.KindSecret.APIVersion)
	secret.Namespace, secret.Name = key.Namespace, key.Name
	if err = a.store.Create(ctx, secret); errors.Is(err, store.ErrExists) {
		return nil // another server was first
	}
	return err
}

// forget has the CA read anew: its Secret has changed.
func (a *identities) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ca = nil
}

// sign signs a request for the agent of a host.
func (a *identities) sign(ctx context.Context, host string, csr []byte) (pki.Bundle, time.Time, error) {
	ca, err := a.authority(ctx)
	if err != nil {
		return pki.Bundle{}, time.Time{}, err
	}
	name := "agent of " + host
	if len(name) > maxAgentCN {
		name = name[:maxAgentCN]
	}
	b, err := ca.Sign(csr, pki.Request{
		Usage: pki.Client, CommonName: name, Organization: "quorate:agents",
		URIs: []*url.URL{agentURI(host)}, Validity: a.validity, Now: a.now(),
	})
	if err != nil {
		return b, time.Time{}, err
	}
	info, err := pki.Inspect(b.Certificate)
	return b, info.NotAfter, err
}

// verify tells the host that a chain of certificates names, once it was found to be
// signed by the agents' CA and valid now.
func (a *identities) verify(ctx context.Context, chain []*x509.Certificate) (string, error) {
	ca, err := a.authority(ctx)
	if err != nil {
		return "", err
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.Roots())
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	leaf, now := chain[0], a.now()
	claimed := hostOfCertificate(leaf)
	if _, err = leaf.Verify(x509.VerifyOptions{
		// Whose it is comes before whether it is still good: a stranger's is a stranger's.
		Roots: roots, Intermediates: between, CurrentTime: leaf.NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return "", &deniedError{
			reason: reasonForeignCertificate, text: fmt.Sprintf("the certificate %q was not signed by this server's CA for agents (issuer %q)", leaf.Subject, leaf.Issuer),
			fix: "join the host to this server, with the token that `quorate host token NAME` prints",
		}
	}
	switch {
	case claimed == "":
		return "", &deniedError{reason: reasonForeignCertificate, text: fmt.Sprintf("the certificate %q names no host", leaf.Subject), fix: "join the host anew (`quorate host token NAME`)"}
	case now.After(leaf.NotAfter):
		return "", &deniedError{
			host: claimed, reason: reasonExpiredCertificate,
			text: fmt.Sprintf("the certificate of host %q expired on %s", claimed, leaf.NotAfter.UTC().Format(time.RFC3339)),
			fix:  "join the host anew (`quorate host token " + claimed + "`)",
		}
	case now.Before(leaf.NotBefore):
		return "", &deniedError{
			host: claimed, reason: reasonExpiredCertificate,
			text: fmt.Sprintf("the certificate of host %q is not valid before %s", claimed, leaf.NotBefore.UTC().Format(time.RFC3339)),
			fix:  "set the clocks of the host and of the server",
		}
	}
	return claimed, nil
}

// recorded holds the key of a host's certificate against its record. The first use of
// the next key makes it the host's, and the one before ends soon after.
func (a *identities) recorded(ctx context.Context, host, key string) error {
	revoked := func(why string) error {
		return &deniedError{
			host: host, reason: reasonRevokedCertificate, text: fmt.Sprintf("the certificate of host %q is void: %s", host, why),
			fix: "if the machine is to come back, join it anew (`quorate host token " + host + "`)",
		}
	}
	record := &v1alpha1.Secret{}
	err := store.Mutate(ctx, a.store, store.Key{Namespace: TokenNamespace, Name: recordName(host)}, record, func(s *v1alpha1.Secret) (bool, error) {
		if s.Labels[LabelJoined] != "true" || string(s.Data[recordHost]) != host || s.DeletionTimestamp != nil {
			return false, revoked("the host was removed")
		}
		switch key {
		case string(s.Data[recordKey]):
			return false, nil
		case string(s.Data[recordNext]):
			s.Data[recordBefore], s.Data[recordUntil] = s.Data[recordKey], []byte(a.now().UTC().Add(beforeTime).Format(time.RFC3339))
			s.Data[recordKey] = []byte(key)
			delete(s.Data, recordNext)
			return true, nil
		case string(s.Data[recordBefore]):
			if until, err := time.Parse(time.RFC3339, string(s.Data[recordUntil])); err == nil && a.now().Before(until) {
				return false, nil
			}
		}
		return false, revoked("the host has joined anew, or has a newer certificate")
	})
	if errors.Is(err, store.ErrNotFound) {
		return revoked("the host was removed")
	}
	return err
}

// identifyAgent tells an agent by the certificate that it shows.
func (s *Server) identifyAgent(ctx context.Context, r *http.Request) (caller, error) {
	chain := r.TLS.PeerCertificates
	c, err := s.tokens.recall(sha256.Sum256(chain[0].Raw), func() (caller, time.Time, error) {
		host, err := s.identities.verify(ctx, chain)
		if err != nil {
			return caller{}, time.Time{}, err
		}
		key := pki.PublicKeyHash(chain[0])
		if err = s.identities.recorded(ctx, host, key); err != nil {
			return caller{}, time.Time{}, err
		}
		return caller{token: recordName(host), name: "host/" + host, role: RoleAgent, host: host, key: key}, chain[0].NotAfter, nil
	})
	if err != nil {
		if denied, ok := errors.AsType[*deniedError](err); ok {
			s.audit.denied(r, denied)
		}
		return caller{}, err
	}
	// It is told later: asking for what is another host's is the graver matter.
	if c.beside = s.onlyAgent(r, c.host); c.beside == nil {
		s.opts.Hosts.saw(c.host)
	}
	return c, nil
}

// stands refuses a second agent of a host, unless what it asks for is another host's,
// which the route itself refuses. To make the host's object changes nothing that is there.
func (c caller) stands(r *http.Request, rt route) error {
	named := r.PathValue("host")
	if rt.resource == "etcdhosts" {
		named = r.PathValue("name")
	}
	makes := rt.resource == "etcdhosts" && rt.verb == verbCreate
	if c.beside == nil || makes || named != "" && named != c.host {
		return nil
	}
	return c.beside
}

// onlyAgent refuses an agent beside the one that stands for the host, as where a machine
// or a data directory was copied. It may come back when the other is gone.
func (s *Server) onlyAgent(r *http.Request, host string) error {
	other := s.opts.Hosts.other(host, r.Header.Get(wire.HeaderInstance))
	if other == nil {
		return nil
	}
	return deny(host, reasonSecondAgent, "a second agent shows the certificate of host %q, and the one at %s is connected", host, other.from).
		as(http.StatusServiceUnavailable).
		advise("end one of the two; if its machine is a copy, remove agent/ and members/ from its data directory, and join it under a name of its own")
}

// AgentRoots are the roots that the certificates of agents are signed by.
func (s *Server) AgentRoots(ctx context.Context) (*x509.CertPool, error) {
	ca, err := s.identities.authority(ctx)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.Roots())
	return roots, nil
}

// void takes from a host all that stands for it: its record, and the tokens by which it
// could join.
func (a *identities) void(ctx context.Context, host string) error {
	keys := []store.Key{{Namespace: TokenNamespace, Name: recordName(host)}}
	tokens, err := a.store.List(ctx, v1alpha1.KindSecret, store.ListOptions{Namespace: TokenNamespace, Labels: map[string]string{LabelJoinToken: "true"}})
	if err != nil {
		return fmt.Errorf("void the certificate of host %s: %w", host, err)
	}
	for _, obj := range tokens {
		if s, ok := obj.(*v1alpha1.Secret); ok && string(s.Data[tokenHost]) == host {
			keys = append(keys, store.KeyOf(s))
		}
	}
	for _, key := range keys {
		s := &v1alpha1.Secret{}
		err := a.store.Get(ctx, key, s)
		if err == nil {
			err = a.store.Delete(ctx, v1alpha1.KindSecret, key, store.Preconditions{UID: s.UID})
		}
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("void the certificate of host %s: %w", host, err)
		}
	}
	return nil
}
