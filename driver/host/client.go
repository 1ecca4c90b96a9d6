package host

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/quorate/quorate/api/v1alpha1"
)

// ClientTLS is how the member's etcd is reached from its own host: with the
// member's server certificate, which allows client authentication. The files are
// read anew for each connection, since certificates are renewed. Nil without TLS.
func (d *Driver) ClientTLS(m *v1alpha1.EtcdMember) (*tls.Config, error) {
	dir := tlsDir(m, d.home(m))
	if dir == "" {
		return nil, nil //nolint:nilnil // no TLS is an answer
	}
	paths := tlsPaths(dir)
	roots, err := os.ReadFile(paths.CA)
	if err != nil {
		return nil, fmt.Errorf("reach member %s: %w", m.Name, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		return nil, fmt.Errorf("reach member %s: %s holds no certificate", m.Name, paths.CA)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		RootCAs:    pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(paths.ServerCert, paths.ServerKey)
			if err != nil {
				return nil, fmt.Errorf("reach member %s: %w", m.Name, err)
			}
			return &cert, nil
		},
	}, nil
}

// Keep makes sure that the member goes on as it was last told to, whatever its
// object says: its supervisor is started again if it has died. It is for objects
// that may be older than what runs.
func (d *Driver) Keep(ctx context.Context, m *v1alpha1.EtcdMember) (v1alpha1.EtcdMemberStatus, error) {
	if err := named(m); err != nil {
		return v1alpha1.EtcdMemberStatus{}, err
	}
	h := d.home(m)
	defer d.lock(h)()
	order, err := h.ReadOrder()
	switch {
	case errors.Is(err, os.ErrNotExist):
		return d.observe(m, h), nil
	case err != nil:
		return d.observe(m, h), nil
	case order.Run == v1alpha1.RunRunning:
		held, err := h.Held()
		if err == nil && !held {
			err = d.spawn(ctx, h)
		}
		if err != nil {
			return v1alpha1.EtcdMemberStatus{}, err
		}
	}
	return d.observe(m, h), nil
}
