package remote

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/quorate/quorate/pki"
)

// pinned is a TLS configuration that knows the server at host by the hash of a public key in
// the chain that it shows: that of the server's own certificate, or of a CA above it.
func pinned(host, pin string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does it, by the pin
		VerifyConnection: func(state tls.ConnectionState) error {
			for _, c := range state.PeerCertificates {
				if pki.PublicKeyHash(c) == pin {
					roots := x509.NewCertPool()
					roots.AddCert(c)
					return verify(state, host, roots)
				}
			}
			return fmt.Errorf("the server's certificate (%s) is not the one that the join token names: someone stands in between, or the certificate has changed since: make another token", subject(state))
		},
	}
}

// trusting is a TLS configuration that knows the server at host by what roots returns at the
// time; nil means the system's.
func trusting(host string, roots func() (*x509.CertPool, error)) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does it, by the roots of the moment
		VerifyConnection: func(state tls.ConnectionState) error {
			pool, err := roots()
			if err != nil {
				return err
			}
			return verify(state, host, pool)
		},
	}
}

// verify checks the server's certificate as crypto/tls does. Host is what was dialled:
// the state has no name where that is an address.
func verify(state tls.ConnectionState, host string, roots *x509.CertPool) error {
	if len(state.PeerCertificates) == 0 || host == "" {
		return errors.New("the server showed no certificate, or its URL names no host")
	}
	between := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: between})
	if err != nil {
		return fmt.Errorf("the server's certificate (%s): %w", subject(state), err)
	}
	return nil
}

func subject(state tls.ConnectionState) string {
	if len(state.PeerCertificates) == 0 {
		return "none"
	}
	return state.PeerCertificates[0].Subject.String()
}
