package host

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/host/supervisor"
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
	if err := d.keep(ctx, h); err != nil {
		return v1alpha1.EtcdMemberStatus{}, err
	}
	return d.observe(m, h), nil
}

// KeepAll does what Keep does for every home there is. It needs no object, so
// members come back after a boot of the host while the server is away.
func (d *Driver) KeepAll(ctx context.Context) error {
	found, err := d.List(ctx)
	if err != nil {
		return err
	}
	errs := make([]error, 0, len(found))
	for _, f := range found {
		h := supervisor.Home(f.Home)
		unlock := d.lock(h)
		errs = append(errs, d.keep(ctx, h))
		unlock()
	}
	return errors.Join(errs...)
}

// keep starts the home's supervisor if its last order is to run and it has none.
func (d *Driver) keep(ctx context.Context, h supervisor.Home) error {
	order, err := h.ReadOrder()
	if err != nil || order.Run != v1alpha1.RunRunning {
		return nil //nolint:nilerr // an order that can't be read is reported where the member is looked at
	}
	state, _ := h.ReadState()
	if err = h.CopyOf(order, state); err != nil {
		return err
	}
	held, err := h.Held()
	if err != nil {
		return err
	}
	if !held {
		return d.spawn(ctx, h)
	}
	d.keepApart(ctx, h)
	return nil
}
