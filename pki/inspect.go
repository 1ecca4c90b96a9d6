package pki

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Info describes a certificate.
type Info struct {
	// Subject and Issuer are distinguished names, such as "CN=db-0,O=quorate".
	Subject string `json:"subject"`
	Issuer  string `json:"issuer"`
	// CommonName of the subject.
	CommonName string `json:"commonName"`
	// NotBefore and NotAfter bound its validity, in UTC.
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	// DNSNames and IPs are the hosts that it names.
	DNSNames []string `json:"dnsNames,omitempty"`
	IPs      []string `json:"ips,omitempty"`
	// Usages are its extended key usages, such as serverAuth.
	Usages []string `json:"usages,omitempty"`
	// Serial number in hex.
	Serial string `json:"serial"`
	// Fingerprint is the SHA-256 of the certificate in hex.
	Fingerprint string `json:"fingerprint"`
	// IsCA says that it may sign certificates.
	IsCA bool `json:"isCA,omitempty"`
}

// Inspect describes the first certificate of a PEM text. ErrPEM when there is none.
func Inspect(certPEM []byte) (Info, error) {
	certs, err := parseCertificates("certificate", certPEM)
	if err != nil {
		return Info{}, err
	}
	return infoOf(certs[0]), nil
}

func infoOf(c *x509.Certificate) Info {
	sum := sha256.Sum256(c.Raw)
	info := Info{
		Subject: c.Subject.String(), Issuer: c.Issuer.String(), CommonName: c.Subject.CommonName,
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(),
		DNSNames: slices.Clone(c.DNSNames), Serial: c.SerialNumber.Text(16),
		Fingerprint: hex.EncodeToString(sum[:]), IsCA: c.IsCA,
	}
	for _, ip := range c.IPAddresses {
		info.IPs = append(info.IPs, ip.String())
	}
	for _, usage := range c.ExtKeyUsage {
		info.Usages = append(info.Usages, usageName(usage))
	}
	return info
}

func usageName(u x509.ExtKeyUsage) string {
	switch u {
	case x509.ExtKeyUsageAny:
		return "any"
	case x509.ExtKeyUsageServerAuth:
		return "serverAuth"
	case x509.ExtKeyUsageClientAuth:
		return "clientAuth"
	default:
		return fmt.Sprintf("usage-%d", u)
	}
}

// NeedsRenewal reports that two thirds of the certificate's life are over, or
// that it can't be read.
func NeedsRenewal(certPEM []byte, now time.Time) bool {
	certs, err := parseCertificates("certificate", certPEM)
	if err != nil {
		return true
	}
	life := certs[0].NotAfter.Sub(certs[0].NotBefore)
	return !now.Before(certs[0].NotBefore.Add(life / 3 * 2))
}

// VerifyLeaf checks that a certificate serves its usage at all the hosts: its key
// matches, it is valid now, names each host and leads to the roots of the bundle.
// Hosts may be empty for clients. ErrLeaf or ErrPEM says what doesn't fit.
func VerifyLeaf(bundle Bundle, keyPEM []byte, hosts []string, usage Usage, now time.Time) error {
	certs, err := parseCertificates("certificate", bundle.Certificate)
	if err != nil {
		return err
	}
	roots, err := parseCertificates("ca.crt", bundle.CA)
	if err != nil {
		return err
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return err
	}
	leaf := certs[0]
	fail := func(format string, args ...any) error {
		return fmt.Errorf("certificate %s: %w: %s", nameOf(leaf), ErrLeaf, fmt.Sprintf(format, args...))
	}
	switch {
	case len(usage.extended()) == 0:
		return fail("usage %q is unknown; use Server, Peer or Client", usage)
	case !samePublicKey(leaf.PublicKey, key.Public()):
		return fail("the private key is not the one it was issued for")
	case now.After(leaf.NotAfter):
		return fail("it expired on %s", date(leaf.NotAfter))
	case now.Before(leaf.NotBefore):
		return fail("it is not valid before %s; check the clock of this host", date(leaf.NotBefore))
	}
	for _, host := range hosts {
		if err := leaf.VerifyHostname(strings.Trim(host, "[]")); err != nil {
			return fail("it does not name %s, but %s", host, named(leaf))
		}
	}
	opts := x509.VerifyOptions{
		Roots: poolOf(roots), Intermediates: poolOf(certs[1:]), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	if _, err := leaf.Verify(opts); err != nil {
		return fail("it was signed by another CA than those in ca.crt, or its chain is incomplete: issued by %s (%v)", leaf.Issuer, err)
	}
	for _, want := range usage.extended() {
		opts.KeyUsages = []x509.ExtKeyUsage{want}
		if _, err := leaf.Verify(opts); err != nil {
			return fail("it lacks %s (extendedKeyUsage), which a %s certificate needs", usageName(want), usage)
		}
	}
	return nil
}

func named(c *x509.Certificate) string {
	all := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		return "no host at all"
	}
	return strings.Join(all, ", ")
}

// ClientTLS makes the TLS configuration of a client that shows a certificate and
// trusts the roots in caPEM alone. CertPEM and keyPEM may both be empty for a
// client that shows none. ErrPEM when a text can't be read.
func ClientTLS(certPEM, keyPEM, caPEM []byte) (*tls.Config, error) {
	roots, err := parseCertificates("ca.crt", caPEM)
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: poolOf(roots)}
	if len(bytes.TrimSpace(certPEM)) == 0 && len(bytes.TrimSpace(keyPEM)) == 0 {
		return cfg, nil
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("client certificate: %w: %w", ErrPEM, err)
	}
	cfg.Certificates = []tls.Certificate{pair}
	return cfg, nil
}
