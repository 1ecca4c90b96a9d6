package discovery

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/store"
)

// ServiceSecret is the Secret with the service's CA, its key, and the URL it was last
// served at.
const ServiceSecret = "discovery-service"

// Fields of the service's Secret.
const (
	fieldCA    = "ca.crt"
	fieldCAKey = "ca.key"
	fieldKey   = "key"
	fieldURL   = "url"
)

const (
	caValidity   = 10 * 365 * 24 * time.Hour
	leafValidity = 30 * 24 * time.Hour
)

// Where says how members reach the service.
type Where struct {
	// URL of the service, and CA in PEM that its certificate is checked by.
	URL string `json:"url"`
	CA  string `json:"ca"`
}

// Find returns where the server's discovery service is. ErrNotFound of package store
// where the server has never had one.
func Find(ctx context.Context, s store.Store) (Where, error) {
	secret := &v1alpha1.Secret{}
	if err := s.Get(ctx, keyOf(ServiceSecret), secret); err != nil {
		return Where{}, err
	}
	return Where{URL: string(secret.Data[fieldURL]), CA: string(secret.Data[fieldCA])}, nil
}

// identity is the service's CA with the certificate that it serves. Why a CA of its
// own: members hold it for as long as they look for each other, and the certificate
// of the API may be anybody's.
type identity struct {
	ca    *pki.CA
	roots []byte
	key   []byte
	host  string
	now   func() time.Time

	mu     sync.Mutex
	served *tls.Certificate
	until  time.Time
}

// openIdentity reads the service's Secret, or makes it, and notes the URL there.
func openIdentity(ctx context.Context, s store.Store, url, host string, now func() time.Time) (*identity, error) {
	secret := &v1alpha1.Secret{}
	err := s.Get(ctx, keyOf(ServiceSecret), secret)
	if errors.Is(err, store.ErrNotFound) {
		cert, key, caErr := pki.NewCA("Quorate discovery service", caValidity, now())
		if caErr != nil {
			return nil, caErr
		}
		v1alpha1.SetType(secret, v1alpha1.KindSecret.Kind, v1alpha1.KindSecret.APIVersion)
		secret.Namespace, secret.Name = Namespace, ServiceSecret
		secret.Data = map[string][]byte{fieldCA: cert, fieldCAKey: key, fieldKey: newKey(), fieldURL: []byte(url)}
		if err = s.Create(ctx, secret); errors.Is(err, store.ErrExists) {
			err = s.Get(ctx, keyOf(ServiceSecret), secret)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the Secret of the discovery service: %w", err)
	}
	if string(secret.Data[fieldURL]) != url {
		err = store.Mutate(ctx, s, keyOf(ServiceSecret), secret, func(secret *v1alpha1.Secret) (bool, error) {
			secret.Data[fieldURL] = []byte(url)
			return true, nil
		})
		if err != nil {
			return nil, fmt.Errorf("the Secret of the discovery service: %w", err)
		}
	}
	ca, err := pki.LoadCA(secret.Data[fieldCA], secret.Data[fieldCAKey], secret.Data[fieldCA])
	if err != nil || len(secret.Data[fieldKey]) == 0 {
		return nil, fmt.Errorf("the Secret %s/%s can't be used: %w: delete it, and clusters that are being formed through the service with it", Namespace, ServiceSecret, errors.Join(err, store.ErrInvalid))
	}
	id := &identity{ca: ca, roots: ca.Roots(), key: secret.Data[fieldKey], host: host, now: now}
	_, err = id.certificate()
	return id, err
}

// certificate that is served, made anew when half of its time is over.
func (id *identity) certificate() (*tls.Certificate, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	now := id.now()
	if id.served != nil && now.Before(id.until) {
		return id.served, nil
	}
	key, err := pki.NewKey()
	if err != nil {
		return nil, err
	}
	csr, err := pki.NewRequest(key, "discovery")
	if err != nil {
		return nil, err
	}
	b, err := id.ca.Sign(csr, pki.Request{Usage: pki.Server, CommonName: "discovery", Hosts: []string{id.host}, Validity: leafValidity, Now: now})
	if err != nil {
		return nil, fmt.Errorf("certificate of the discovery service: %w", err)
	}
	cert, err := tls.X509KeyPair(b.Certificate, key)
	if err != nil {
		return nil, fmt.Errorf("certificate of the discovery service: %w", err)
	}
	id.served, id.until = &cert, now.Add(leafValidity/2)
	return id.served, nil
}

func (id *identity) tls() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return id.certificate() },
	}
}
