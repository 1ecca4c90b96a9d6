package app

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/internal/atomicfile"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/server"
)

const (
	// frontCAValidity outlives the hardware: those who know the server know it by this CA.
	frontCAValidity = 10 * 365 * 24 * time.Hour
	// frontValidity of the certificate below it, which is made anew when a third of it is
	// left.
	frontValidity = 365 * 24 * time.Hour
	// frontLook is how often it is looked whether there is another certificate by now.
	frontLook = 10 * time.Second
)

// front is how the API proves itself: with files that a person keeps, or with a CA of
// the server's own. Certificates are taken up as they change.
type front struct {
	log *slog.Logger
	now func() time.Time
	// certFile, keyFile and caFile are a person's.
	certFile, keyFile, caFile string
	// dir holds the server's own CA, and names what its certificate is for; empty where a
	// person keeps the files.
	dir   string
	names []string

	mu     sync.Mutex
	cert   *tls.Certificate
	ca     []byte
	stamp  string
	looked time.Time
}

// openFront finds, or makes, the certificate of the API.
func openFront(o ServerOptions, dir string) (*front, error) {
	f := &front{log: o.Logger, now: time.Now, certFile: o.TLSCertFile, keyFile: o.TLSKeyFile, caFile: o.TLSCAFile}
	if o.TLSSelfMade {
		if o.TLSCertFile != "" || o.TLSKeyFile != "" {
			return nil, errors.New("--tls-self-made and --tls-cert-file were both given: the API has one certificate, so leave one of them out")
		}
		host, _, err := net.SplitHostPort(o.Listen)
		if err != nil {
			return nil, fmt.Errorf("listen on %q: %w: give an address as HOST:PORT, such as 10.0.0.2:7379", o.Listen, err)
		}
		f.dir = dir
		if f.names, err = frontNames(host, o.TLSNames); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f, f.look()
}

// frontNames are the names and addresses by which the API may be called.
func frontNames(host string, more []string) ([]string, error) {
	names := []string{"localhost", "127.0.0.1", "::1"}
	ip, err := netip.ParseAddr(host)
	switch {
	case host != "" && (err != nil || !ip.IsUnspecified()):
		names = append(names, host)
	default:
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			return nil, fmt.Errorf("the addresses of this machine, for the API's certificate: %w: listen on one of them", err)
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
				names = append(names, n.IP.String())
			}
		}
		if name, err := os.Hostname(); err == nil {
			names = append(names, name)
		}
	}
	names = append(names, more...)
	slices.Sort(names)
	return slices.Compact(names), nil
}

// config is the TLS of the API. Agents are asked for the certificates that roots know;
// what they show is judged by request, so that it can be said what is wrong with it.
func (f *front) config(roots func(ctx context.Context) (*x509.CertPool, error)) *tls.Config {
	base := &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, ClientAuth: tls.RequestClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.certificate() },
	}
	asking := base.Clone()
	asking.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		pool, err := roots(hello.Context())
		if err != nil {
			return nil, err
		}
		// A browser offers what a person has from these only.
		c := base.Clone()
		c.ClientCAs = pool
		return c, nil
	}
	return asking
}

// certificate is the one of this moment.
func (f *front) certificate() (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.now().Sub(f.looked) >= frontLook {
		if err := f.look(); err != nil {
			// The one that is there goes on: half-written files are not the last word.
			f.log.Warn("the API's certificate was not taken up", slog.Any("error", err))
		}
	}
	return f.cert, nil
}

// look takes the certificate up if it is another by now.
func (f *front) look() error {
	f.looked = f.now()
	if f.dir != "" {
		return f.lookOwn()
	}
	stamp := stampOf(f.certFile) + stampOf(f.keyFile) + stampOf(f.caFile)
	if f.cert != nil && stamp == f.stamp {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(f.certFile, f.keyFile)
	if err != nil {
		return fmt.Errorf("the API's certificate (--tls-cert-file, --tls-key-file): %w", err)
	}
	var ca []byte
	if f.caFile != "" {
		if ca, err = os.ReadFile(f.caFile); err == nil {
			_, err = pki.Certificates(ca)
		}
		if err != nil {
			return fmt.Errorf("the API's CA (--tls-ca-file): %w", err)
		}
	}
	f.cert, f.ca, f.stamp = &pair, ca, stamp
	return nil
}

// stampOf changes when the file does.
func stampOf(path string) string {
	if path == "" {
		return ""
	}
	info, err := os.Stat(path)
	if err != nil {
		return path + " " + err.Error()
	}
	return fmt.Sprintf("%s %d %d;", path, info.ModTime().UnixNano(), info.Size())
}

// trustFile names the file with the roots by which this machine's user knows the API.
func (f *front) trustFile() string {
	switch {
	case f.dir != "":
		return filepath.Join(f.dir, "ca.crt")
	case f.caFile != "":
		return f.caFile
	}
	return f.certFile
}

// known is what agents know the API by.
func (f *front) known() server.Front {
	cert, err := f.certificate()
	if err != nil || len(cert.Certificate) == 0 {
		return server.Front{}
	}
	last, err := x509.ParseCertificate(cert.Certificate[len(cert.Certificate)-1])
	if err != nil {
		return server.Front{}
	}
	known := server.Front{Pin: pki.PublicKeyHash(last)}
	f.mu.Lock()
	known.CA = f.ca
	f.mu.Unlock()
	if len(known.CA) > 0 {
		return known
	}
	// What the roots of every system know needs no telling, and may change.
	if _, err = last.Verify(x509.VerifyOptions{KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		known.CA = pki.EncodeCertificate(last)
	}
	return known
}

// lookOwn makes the server's own CA and certificate where they are missing, and the
// certificate anew where it does not do any more.
func (f *front) lookOwn() error {
	fail := func(err error) error {
		return fmt.Errorf("the API's own certificate in %s (--tls-self-made): %w", f.dir, err)
	}
	if f.cert != nil && f.lasts(f.cert.Leaf) {
		return nil
	}
	caCert, caKey, err := f.ownCA()
	if err != nil {
		return fail(err)
	}
	path := filepath.Join(f.dir, "server.pem")
	if raw, readErr := os.ReadFile(path); readErr == nil { //nolint:gosec // below our own directory
		if pair, pairErr := tls.X509KeyPair(raw, raw); pairErr == nil && f.lasts(pair.Leaf) && bytes.HasSuffix(raw, caCert) {
			f.cert, f.ca = &pair, caCert
			return nil
		}
	}
	raw, err := f.issue(caCert, caKey)
	if err != nil {
		return fail(err)
	}
	pair, err := tls.X509KeyPair(raw, raw)
	if err != nil {
		return fail(err)
	}
	if err = atomicfile.Write(path, raw, 0o600); err != nil {
		return fail(err)
	}
	f.cert, f.ca = &pair, caCert
	return nil
}

// lasts reports whether a certificate is good for a while, and for all names.
func (f *front) lasts(leaf *x509.Certificate) bool {
	now := f.now()
	if leaf == nil || now.Before(leaf.NotBefore) || leaf.NotAfter.Sub(now) < frontValidity/3 {
		return false
	}
	for _, name := range f.names {
		// A name with a wildcard is held against one that it stands for.
		if leaf.VerifyHostname(strings.Replace(name, "*", "any", 1)) != nil {
			return false
		}
	}
	return true
}

// issue makes a key and a certificate: PEM of both, and of the CA, which is shown too.
func (f *front) issue(caCert, caKey []byte) ([]byte, error) {
	ca, err := pki.LoadCA(caCert, caKey, nil)
	if err != nil {
		return nil, err
	}
	key, err := pki.NewKey()
	if err != nil {
		return nil, err
	}
	csr, err := pki.NewRequest(key, "")
	if err != nil {
		return nil, err
	}
	b, err := ca.Sign(csr, pki.Request{
		Usage: pki.Server, CommonName: "quorate server", Hosts: f.names, Validity: frontValidity, Now: f.now(),
	})
	if err != nil {
		return nil, fmt.Errorf("%w: check --listen and --tls-names", err)
	}
	return slices.Concat(key, b.Certificate, caCert), nil
}

// ownCA reads the server's own CA, or makes it. Its key comes to the disk first: a
// certificate without its key would be in the way.
func (f *front) ownCA() (cert, key []byte, err error) {
	certFile, keyFile := filepath.Join(f.dir, "ca.crt"), filepath.Join(f.dir, "ca.key")
	cert, err = os.ReadFile(certFile) //nolint:gosec // below our own directory
	if err == nil {
		key, err = os.ReadFile(keyFile) //nolint:gosec // below our own directory
		return cert, key, err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	name, err := os.Hostname()
	if err != nil || len(name) > 40 {
		name = "this machine"
	}
	if cert, key, err = pki.NewCA("Quorate server on "+name, frontCAValidity, f.now()); err != nil {
		return nil, nil, err
	}
	if err = os.MkdirAll(f.dir, 0o700); err != nil {
		return nil, nil, err
	}
	if err = atomicfile.Write(keyFile, key, 0o600); err != nil {
		return nil, nil, err
	}
	return cert, key, atomicfile.Write(certFile, cert, 0o644)
}
