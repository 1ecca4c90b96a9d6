package fleet

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/store"
)

// Keys of a TLS Secret, as Kubernetes names them.
const (
	secretCert = "tls.crt"
	secretKey  = "tls.key"
	secretCA   = "ca.crt"
)

const (
	// caValidity outlives the hardware; a CA is rotated on purpose, not by surprise.
	caValidity = 10 * 365 * 24 * time.Hour
	// clientValidity of the certificate that Quorate itself uses. It lives in memory.
	clientValidity = 24 * time.Hour
)

// SecretAuthority keeps each cluster's CA in a Secret and signs with it. CA keys
// never leave the store. It implements Authority and Credentials.
type SecretAuthority struct {
	store store.Store
	now   func() time.Time

	mu      sync.Mutex
	clients map[v1alpha1.UID]client
}

type client struct {
	config *tls.Config
	until  time.Time
}

// NewSecretAuthority returns an authority.
func NewSecretAuthority(s store.Store) *SecretAuthority {
	return &SecretAuthority{store: s, now: time.Now, clients: map[v1alpha1.UID]client{}}
}

// CheckCA implements Authority.
func (a *SecretAuthority) CheckCA(ctx context.Context, c *v1alpha1.EtcdCluster) error {
	if c.Spec.TLS.Mode != v1alpha1.TLSCASecret {
		return nil
	}
	_, err := a.load(ctx, c)
	return err
}

// EnsureCA implements Authority.
func (a *SecretAuthority) EnsureCA(ctx context.Context, c *v1alpha1.EtcdCluster) error {
	switch c.Spec.TLS.Mode {
	case v1alpha1.TLSDisabled, v1alpha1.TLSFiles:
		return nil
	case v1alpha1.TLSCASecret:
		_, err := a.load(ctx, c)
		return err
	case v1alpha1.TLSGenerated:
	}
	_, err := a.load(ctx, c)
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	cert, key, err := pki.NewCA("Quorate CA of "+c.Namespace+"/"+c.Name, caValidity, a.now())
	if err != nil {
		return err
	}
	secret := &v1alpha1.Secret{Type: v1alpha1.SecretTypeTLS, Data: map[string][]byte{secretCert: cert, secretKey: key, secretCA: cert}}
	secret.Namespace, secret.Name = c.Namespace, generatedCA(c)
	secret.Labels = map[string]string{v1alpha1.LabelCluster: c.Name}
	secret.OwnerReferences = []v1alpha1.OwnerReference{owner(c)}
	err = a.store.Create(ctx, secret)
	if errors.Is(err, store.ErrExists) {
		_, err = a.load(ctx, c)
	}
	return err
}

// RemoveCA implements Authority.
func (a *SecretAuthority) RemoveCA(ctx context.Context, c *v1alpha1.EtcdCluster) error {
	if c.Spec.TLS.Mode != v1alpha1.TLSGenerated {
		return nil
	}
	secret := &v1alpha1.Secret{}
	err := a.store.Get(ctx, store.Key{Namespace: c.Namespace, Name: generatedCA(c)}, secret)
	if errors.Is(err, store.ErrNotFound) || err == nil && !owned(secret, c) {
		return nil
	}
	if err != nil {
		return err
	}
	return a.store.Delete(ctx, v1alpha1.KindSecret, store.KeyOf(secret), store.Preconditions{UID: secret.UID})
}

func generatedCA(c *v1alpha1.EtcdCluster) string { return c.Name + "-ca" }

func owner(c *v1alpha1.EtcdCluster) v1alpha1.OwnerReference {
	return v1alpha1.OwnerReference{APIVersion: v1alpha1.KindCluster.APIVersion, Kind: v1alpha1.KindCluster.Kind, Name: c.Name, UID: c.UID}
}

func owned(o v1alpha1.Object, c *v1alpha1.EtcdCluster) bool {
	return slices.ContainsFunc(o.GetOwnerReferences(), func(r v1alpha1.OwnerReference) bool { return r.UID == c.UID })
}

// load reads the CA of a cluster.
func (a *SecretAuthority) load(ctx context.Context, c *v1alpha1.EtcdCluster) (*pki.CA, error) {
	name := generatedCA(c)
	if c.Spec.TLS.Mode == v1alpha1.TLSCASecret {
		name = c.Spec.TLS.CASecretRef
	}
	secret := &v1alpha1.Secret{}
	if err := a.store.Get(ctx, store.Key{Namespace: c.Namespace, Name: name}, secret); err != nil {
		if errors.Is(err, store.ErrNotFound) && c.Spec.TLS.Mode == v1alpha1.TLSCASecret {
			return nil, fmt.Errorf("cluster %s names the CA Secret %s, which does not exist in namespace %s: apply a Secret of type %s with tls.crt, tls.key and ca.crt: %w",
				c.Name, name, c.Namespace, v1alpha1.SecretTypeTLS, store.ErrInvalid)
		}
		return nil, err
	}
	if c.Spec.TLS.Mode == v1alpha1.TLSGenerated && !owned(secret, c) {
		return nil, fmt.Errorf("secret %s/%s is in the way: it has the name of the CA of cluster %s but belongs to something else: delete or rename it: %w",
			c.Namespace, name, c.Name, store.ErrInvalid)
	}
	roots := secret.Data[secretCA]
	if len(roots) == 0 {
		roots = secret.Data[secretCert]
	}
	ca, err := pki.LoadCA(secret.Data[secretCert], secret.Data[secretKey], roots)
	if err != nil {
		return nil, fmt.Errorf("CA of cluster %s in Secret %s/%s: %w", c.Name, c.Namespace, name, err)
	}
	return ca, nil
}

// SignMember signs a request that a member's host has made. The names in the
// certificate are those of the member and its host, whatever the request says.
func (a *SecretAuthority) SignMember(ctx context.Context, m *v1alpha1.EtcdMember, host *v1alpha1.EtcdHost, usage pki.Usage, csr []byte) (pki.Bundle, error) {
	cluster := &v1alpha1.EtcdCluster{}
	if err := a.store.Get(ctx, store.Key{Namespace: m.Namespace, Name: m.Spec.ClusterName}, cluster); err != nil {
		return pki.Bundle{}, err
	}
	if usage != pki.Server && usage != pki.Peer {
		return pki.Bundle{}, fmt.Errorf("sign for member %s: usage %q is not for members: %w", m.Name, usage, store.ErrInvalid)
	}
	ca, err := a.load(ctx, cluster)
	if err != nil {
		return pki.Bundle{}, err
	}
	validity, err := time.ParseDuration(cluster.Spec.TLS.LeafValidity)
	if err != nil {
		return pki.Bundle{}, fmt.Errorf("sign for member %s: leafValidity: %w", m.Name, err)
	}
	return ca.Sign(csr, pki.Request{
		Usage: usage, CommonName: m.Name, Hosts: append(MemberHosts(m, host, usage), dnsNames(cluster, m)...), Validity: validity, Now: a.now(),
	})
}

// MemberHosts are the names that a member's certificate must carry.
func MemberHosts(m *v1alpha1.EtcdMember, host *v1alpha1.EtcdHost, usage pki.Usage) []string {
	hosts := append([]string{host.Spec.Address, m.Name, "localhost", "127.0.0.1", "::1"}, host.Spec.Names...)
	if usage == pki.Server {
		hosts = append(hosts, m.Spec.TLS.ExtraSANs...)
	}
	return hosts
}

// SignClient signs a client's request and returns where to use the certificate. The
// client chooses its name, which etcd takes for its user where roles are enabled: who
// may ask for this may do all that Quorate can.
func (a *SecretAuthority) SignClient(ctx context.Context, c *v1alpha1.EtcdCluster, csr []byte, ttl time.Duration) (pki.Bundle, []string, error) {
	if c.Observed() {
		return pki.Bundle{}, nil, fmt.Errorf("cluster %s is observed only: Quorate has no CA of it to sign with; use the credentials in the Secret %s: %w",
			c.Name, c.Spec.Import.CredentialsSecretRef, store.ErrInvalid)
	}
	if c.Spec.TLS.Mode == v1alpha1.TLSDisabled {
		return pki.Bundle{}, c.Status.Endpoints, nil
	}
	if c.Spec.TLS.Mode == v1alpha1.TLSFiles {
		return pki.Bundle{}, nil, fmt.Errorf("cluster %s uses certificates from files (tls.mode Files): Quorate has no CA to sign with; use your own client certificate: %w",
			c.Name, store.ErrInvalid)
	}
	ca, err := a.load(ctx, c)
	if err != nil {
		return pki.Bundle{}, nil, err
	}
	bundle, err := ca.Sign(csr, pki.Request{Usage: pki.Client, CommonName: cmp.Or(pki.RequestedName(csr), "quorate-client"), Validity: ttl, Now: a.now()})
	return bundle, c.Status.Endpoints, err
}

// ClientTLS implements Credentials.
func (a *SecretAuthority) ClientTLS(ctx context.Context, c *v1alpha1.EtcdCluster) (*tls.Config, error) {
	if c.Spec.TLS.Mode == v1alpha1.TLSDisabled {
		return nil, nil //nolint:nilnil // no TLS is an answer
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	if known, ok := a.clients[c.UID]; ok && now.Before(known.until) {
		return known.config, nil
	}
	config, err := a.newClient(ctx, c, now)
	if err != nil {
		return nil, err
	}
	a.clients[c.UID] = client{config: config, until: now.Add(clientValidity / 2)}
	return config, nil
}

func (a *SecretAuthority) newClient(ctx context.Context, c *v1alpha1.EtcdCluster, now time.Time) (*tls.Config, error) {
	if c.Spec.TLS.Mode == v1alpha1.TLSFiles {
		secret := &v1alpha1.Secret{}
		if err := a.store.Get(ctx, store.Key{Namespace: c.Namespace, Name: c.Spec.TLS.ClientSecretRef}, secret); err != nil {
			return nil, fmt.Errorf("cluster %s (tls.mode Files) needs tls.clientSecretRef, a Secret with the client certificate that Quorate uses: %w", c.Name, err)
		}
		return pki.ClientTLS(secret.Data[secretCert], secret.Data[secretKey], secret.Data[secretCA])
	}
	ca, err := a.load(ctx, c)
	if err != nil {
		return nil, err
	}
	key, err := pki.NewKey()
	if err != nil {
		return nil, err
	}
	csr, err := pki.NewRequest(key, "quorate-server")
	if err != nil {
		return nil, err
	}
	bundle, err := ca.Sign(csr, pki.Request{Usage: pki.Client, CommonName: "quorate-server", Validity: clientValidity, Now: now})
	if err != nil {
		return nil, err
	}
	return pki.ClientTLS(bundle.Certificate, key, bundle.CA)
}

// Forget implements Credentials.
func (a *SecretAuthority) Forget(c *v1alpha1.EtcdCluster) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.clients, c.UID)
}
