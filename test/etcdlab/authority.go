package etcdlab

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/quorate/quorate/pki"
)

// Authority is a CA for tests.
type Authority struct{ ca *pki.CA }

// NewAuthority is one that has been valid for a while, and stays so.
func NewAuthority(tb testing.TB) *Authority {
	tb.Helper()
	return NewAuthorityFor(tb, 1000*24*time.Hour, time.Now().Add(-200*24*time.Hour))
}

// NewAuthorityFor is one that is valid for so long.
func NewAuthorityFor(tb testing.TB, validity time.Duration, from time.Time) *Authority {
	tb.Helper()
	cert, key, err := pki.NewCA("test CA", validity, from)
	if err != nil {
		tb.Fatal(err)
	}
	ca, err := pki.LoadCA(cert, key, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return &Authority{ca}
}

// Roots are what to trust, in PEM.
func (a *Authority) Roots() []byte { return a.ca.Roots() }

// Issue makes a certificate for a year and its key, in PEM; of this machine, unless it
// is a client's. Edit changes what is asked for.
func (a *Authority) Issue(tb testing.TB, usage pki.Usage, name string, edit func(*pki.Request)) (cert, key []byte) {
	tb.Helper()
	key, err := pki.NewKey()
	if err != nil {
		tb.Fatal(err)
	}
	csr, err := pki.NewRequest(key, name)
	if err != nil {
		tb.Fatal(err)
	}
	req := pki.Request{Usage: usage, CommonName: name, Validity: 365 * 24 * time.Hour, Now: time.Now()}
	if usage != pki.Client {
		req.Hosts = []string{"127.0.0.1", "localhost"}
	}
	if edit != nil {
		edit(&req)
	}
	b, err := a.ca.Sign(csr, req)
	if err != nil {
		tb.Fatal(err)
	}
	return b.Certificate, key
}

// Write issues a certificate and puts it in a directory, as NAME.crt and NAME.key; etcd
// reads both again for each connection.
func (a *Authority) Write(tb testing.TB, dir, name string, usage pki.Usage, edit func(*pki.Request)) {
	tb.Helper()
	cert, key := a.Issue(tb, usage, name, edit)
	write(tb, dir, name+".crt", cert)
	write(tb, dir, name+".key", key)
}

// ClientTLS is for a client that is root.
func (a *Authority) ClientTLS(tb testing.TB) *tls.Config {
	tb.Helper()
	cert, key := a.Issue(tb, pki.Client, "root", nil)
	cfg, err := pki.ClientTLS(cert, key, a.Roots())
	if err != nil {
		tb.Fatal(err)
	}
	return cfg
}

// write replaces a file at once.
func write(tb testing.TB, dir, name string, data []byte) {
	tb.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		tb.Fatal(err)
	}
}
