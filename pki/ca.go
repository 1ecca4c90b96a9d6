package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"time"
)

// backdate is how far certificates begin in the past, for hosts whose clocks are
// behind the signer's.
const backdate = 5 * time.Minute

// CA signs the certificates of members and clients. It is safe for concurrent use.
type CA struct {
	cert *x509.Certificate
	key  crypto.Signer
	// chain is what stands between cert and the roots, itself included; empty
	// where cert is a root.
	chain []*x509.Certificate
	roots []*x509.Certificate
}

// NewCA makes a root CA (ECDSA P-256, self-signed) that can sign leaf
// certificates only. Its validity begins five minutes before now.
func NewCA(name string, validity time.Duration, now time.Time) (certPEM, keyPEM []byte, err error) {
	switch {
	case name == "" || len(name) > maxCommonName:
		return nil, nil, fmt.Errorf("make CA %q: %w: a name has 1 to %d bytes", name, ErrCA, maxCommonName)
	case validity <= 0:
		return nil, nil, fmt.Errorf("make CA %s: %w: validity is %s; it must be positive", name, ErrCA, validity)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make CA %s: %w", name, err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(validity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("make CA %s: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("make CA %s: %w", name, err)
	}
	keyPEM, err = encodeKey(key)
	if err != nil {
		return nil, nil, err
	}
	return encodeCertificates(cert), keyPEM, nil
}

// LoadCA reads a CA: certPEM is a root, or an intermediate followed by the chain
// above it; keyPEM its key (ECDSA, RSA or Ed25519; PKCS#8, PKCS#1 or SEC1);
// rootsPEM the roots that are to be trusted, which may be empty where certPEM
// holds the root. ErrCA or ErrPEM says what doesn't fit and what to do.
//
// A CA that loads is known to work now: a certificate signed with it verifies up
// to the roots for servers and for clients.
func LoadCA(certPEM, keyPEM, rootsPEM []byte) (*CA, error) {
	certs, err := parseCertificates("tls.crt", certPEM)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("tls.key: %w", err)
	}
	ca := &CA{cert: certs[0], key: key}
	if err := ca.checkSelf(); err != nil {
		return nil, err
	}
	if err := ca.findRoots(certs, rootsPEM); err != nil {
		return nil, err
	}
	if err := ca.checkChain(time.Now()); err != nil {
		return nil, err
	}
	return ca, nil
}

// Info describes the certificate that signs.
func (ca *CA) Info() Info { return infoOf(ca.cert) }

// Roots returns the trusted roots (PEM): the ca.crt of members and clients.
func (ca *CA) Roots() []byte { return encodeCertificates(ca.roots...) }

func (ca *CA) errorf(format string, args ...any) error {
	return fmt.Errorf("CA %s: %w: %s", nameOf(ca.cert), ErrCA, fmt.Sprintf(format, args...))
}

// checkSelf checks what the certificate and the key say of themselves.
func (ca *CA) checkSelf() error {
	c := ca.cert
	switch {
	case !samePublicKey(c.PublicKey, ca.key.Public()):
		return ca.errorf("tls.key is not the key of the first certificate in tls.crt; put the signing CA first and give its own key")
	case !c.BasicConstraintsValid || !c.IsCA:
		return ca.errorf("the first certificate in tls.crt is not a CA (basicConstraints CA:TRUE is missing); give a CA's certificate, not a server's")
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return ca.errorf("its keyUsage doesn't allow to sign certificates; have it issued again with keyCertSign")
	}
	if weak := weakKey(c.PublicKey); weak != "" {
		return ca.errorf("%s", weak)
	}
	return nil
}

// findRoots sorts the certificates into the chain and the roots to trust.
func (ca *CA) findRoots(certs []*x509.Certificate, rootsPEM []byte) error {
	for _, c := range certs {
		if !selfSigned(c) {
			ca.chain = append(ca.chain, c)
		}
	}
	if len(bytes.TrimSpace(rootsPEM)) > 0 {
		roots, err := parseCertificates("ca.crt", rootsPEM)
		if err != nil {
			return err
		}
		ca.roots = roots
		if selfSigned(ca.cert) {
			// A root in tls.crt has nothing above it, whatever follows in the file.
			ca.chain = nil
		}
		return nil
	}
	for _, c := range certs {
		if selfSigned(c) {
			ca.roots = append(ca.roots, c)
		}
	}
	if len(ca.roots) == 0 {
		return ca.errorf("it was issued by %s, and the root is neither in tls.crt nor in ca.crt; put the roots to trust into ca.crt", ca.cert.Issuer)
	}
	if selfSigned(ca.cert) {
		ca.chain = nil
		ca.roots = []*x509.Certificate{ca.cert}
	}
	return nil
}

// checkChain checks validity, the path to the roots, its lengths and, by signing
// a certificate for the purpose, whatever else a verifier looks at.
func (ca *CA) checkChain(now time.Time) error {
	if err := ca.checkTime(now); err != nil {
		return err
	}
	chains, err := ca.cert.Verify(x509.VerifyOptions{
		Roots: poolOf(ca.roots), Intermediates: poolOf(ca.chain), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return ca.errorf("tls.crt doesn't lead to the roots in ca.crt (%v); put the whole chain into tls.crt, signing CA first, and its root into ca.crt", err)
	}
	if name := tooLong(chains); name != "" {
		return ca.errorf("the path length of %s doesn't allow certificates below it; have %s issued again with a larger pathlen", name, nameOf(ca.cert))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("check CA: %w", err)
	}
	leaf, err := ca.issue(key.Public(), Request{Usage: Server, CommonName: "check", Validity: time.Hour, Now: now})
	if err != nil {
		return err
	}
	for _, usage := range Server.extended() {
		if _, err := leaf.Verify(ca.verifyOptions(usage, now)); err != nil {
			return ca.errorf("certificates that it signs are not accepted for %s (%v); have it issued without limits on extendedKeyUsage", usageName(usage), err)
		}
	}
	return nil
}

// checkTime checks that the signing certificate and all above it are valid now.
func (ca *CA) checkTime(now time.Time) error {
	for _, c := range append([]*x509.Certificate{ca.cert}, ca.chain...) {
		switch {
		case now.After(c.NotAfter):
			return ca.errorf("%s expired on %s; give a renewed CA", nameOf(c), date(c.NotAfter))
		case now.Before(c.NotBefore):
			return ca.errorf("%s is not valid before %s; check the clock of this host", nameOf(c), date(c.NotBefore))
		}
	}
	return nil
}

func (ca *CA) verifyOptions(usage x509.ExtKeyUsage, now time.Time) x509.VerifyOptions {
	return x509.VerifyOptions{
		Roots: poolOf(ca.roots), Intermediates: poolOf(ca.chain), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{usage},
	}
}

// tooLong returns the name of a CA whose path length forbids a leaf below the
// first certificate of the chains, or nothing if one chain allows it.
func tooLong(chains [][]*x509.Certificate) string {
	name := ""
	for _, chain := range chains {
		bad := ""
		for i, c := range chain {
			// i CAs stand between c and the leaf.
			if c.MaxPathLen >= 0 && (c.MaxPathLen > 0 || c.MaxPathLenZero) && c.MaxPathLen < i {
				bad = nameOf(c)
			}
		}
		if bad == "" {
			return ""
		}
		name = bad
	}
	return name
}

func poolOf(certs []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool
}

func nameOf(c *x509.Certificate) string {
	if c.Subject.CommonName != "" {
		return c.Subject.CommonName
	}
	return c.Subject.String()
}

func date(t time.Time) string { return t.UTC().Format(time.RFC3339) }
