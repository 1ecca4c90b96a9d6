package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Usage is what a certificate is for.
type Usage string

// The usages.
const (
	// Server certificates are shown to clients. They allow client authentication as
	// well: etcd's HTTP gateway uses its own server certificate to call itself.
	Server Usage = "Server"
	// Peer certificates are shown and asked for among members. Etcd compares their
	// names with the address that a connection comes from.
	Peer Usage = "Peer"
	// Client certificates only authenticate clients.
	Client Usage = "Client"
)

func (u Usage) extended() []x509.ExtKeyUsage {
	switch u {
	case Server, Peer:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	case Client:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	default:
		return nil
	}
}

// Request is what a signer grants.
type Request struct {
	// Usage is Server, Peer or Client.
	Usage Usage
	// CommonName has at most 64 bytes. To etcd, a client's is its user name.
	CommonName string
	// Organization may be empty.
	Organization string
	// Hosts are the IP addresses and DNS names that the certificate names, in any
	// order; doubles are dropped. Server and Peer need one at least.
	Hosts []string
	// URIs are further names that the certificate carries, such as that of an agent's
	// host. None by default.
	URIs []*url.URL
	// Validity from Now on; cut short where the issuer ends earlier.
	Validity time.Duration
	// Now by the signer's clock.
	Now time.Time
}

// Bundle is a signed certificate with what is needed to use it.
type Bundle struct {
	// Certificate is the leaf followed by the intermediates (PEM): tls.crt.
	Certificate []byte
	// CA holds the roots to trust (PEM): ca.crt.
	CA []byte
}

// Sign grants a certificate to whoever made the request csrPEM. Only the public
// key is taken from it, once its signature has proven that the sender holds the
// private one. The certificate begins five minutes before req.Now and never ends
// after its issuers. ErrRequest, or ErrCA when the CA has expired.
func (ca *CA) Sign(csrPEM []byte, req Request) (Bundle, error) {
	if len(req.Usage.extended()) == 0 {
		return Bundle{}, refuse(req, "usage %q is unknown; use Server, Peer or Client", req.Usage)
	}
	if req.CommonName == "" || len(req.CommonName) > maxCommonName {
		return Bundle{}, refuse(req, "a common name has 1 to %d bytes", maxCommonName)
	}
	if req.Usage != Client && len(req.Hosts) == 0 {
		return Bundle{}, refuse(req, "it names no host; a %s certificate needs the address that it is reached at", req.Usage)
	}
	if req.Validity <= 0 {
		return Bundle{}, refuse(req, "validity is %s; it must be positive", req.Validity)
	}
	pub, err := publicKeyOf(csrPEM, req)
	if err != nil {
		return Bundle{}, err
	}
	if err = ca.checkTime(req.Now); err != nil {
		return Bundle{}, err
	}
	leaf, err := ca.issue(pub, req)
	if err != nil {
		return Bundle{}, err
	}
	for _, usage := range req.Usage.extended() {
		if _, err := leaf.Verify(ca.verifyOptions(usage, req.Now)); err != nil {
			return Bundle{}, refuse(req, "CA %s may not sign it: %v", nameOf(ca.cert), err)
		}
	}
	return Bundle{
		Certificate: encodeCertificates(append([]*x509.Certificate{leaf}, ca.chain...)...),
		CA:          ca.Roots(),
	}, nil
}

func refuse(req Request, format string, args ...any) error {
	return fmt.Errorf("sign a certificate for %q: %w: %s", req.CommonName, ErrRequest, fmt.Sprintf(format, args...))
}

func publicKeyOf(csrPEM []byte, req Request) (crypto.PublicKey, error) {
	block, _ := pem.Decode(csrPEM)
	if block == nil || block.Type != typeRequest {
		return nil, refuse(req, "the request is not a PEM block of type %s", typeRequest)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, refuse(req, "the request can't be read: %v", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, refuse(req, "the request is not signed with its own key: %v", err)
	}
	if weak := weakKey(csr.PublicKey); weak != "" {
		return nil, refuse(req, "%s", weak)
	}
	return csr.PublicKey, nil
}

// issue signs without asking what the CA may do.
func (ca *CA) issue(pub crypto.PublicKey, req Request) (*x509.Certificate, error) {
	ips, names, err := sortHosts(req.Hosts)
	if err != nil {
		return nil, refuse(req, "%v", err)
	}
	notBefore, notAfter := req.Now.Add(-backdate), req.Now.Add(req.Validity)
	for _, c := range append([]*x509.Certificate{ca.cert}, ca.chain...) {
		if c.NotAfter.Before(notAfter) {
			notAfter = c.NotAfter
		}
		if c.NotBefore.After(notBefore) {
			notBefore = c.NotBefore
		}
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: req.CommonName},
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           req.Usage.extended(),
		BasicConstraintsValid: true,
		IPAddresses:           ips,
		DNSNames:              names,
		URIs:                  req.URIs,
	}
	if req.Organization != "" {
		template.Subject.Organization = []string{req.Organization}
	}
	if _, ok := pub.(*rsa.PublicKey); ok {
		template.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, pub, ca.key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate for %q with CA %s: %w", req.CommonName, nameOf(ca.cert), err)
	}
	return x509.ParseCertificate(der)
}

// sortHosts tells IP addresses from DNS names, and drops doubles.
func sortHosts(hosts []string) (ips []net.IP, names []string, err error) {
	var addrs []netip.Addr
	for _, host := range hosts {
		bare := strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
		if addr, perr := netip.ParseAddr(bare); perr == nil {
			if addr.Zone() != "" {
				return nil, nil, fmt.Errorf("host %q has a zone, which a certificate can't name; use an address without one", host)
			}
			if addr = addr.Unmap(); !slices.Contains(addrs, addr) {
				addrs = append(addrs, addr)
				ips = append(ips, addr.AsSlice())
			}
			continue
		}
		name := strings.ToLower(strings.TrimSuffix(host, "."))
		if !validName(name) {
			return nil, nil, fmt.Errorf("host %q is neither an IP address nor a DNS name; give it without scheme and port", host)
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return ips, names, nil
}

// validName accepts DNS names, with a wildcard as the first label at most.
func validName(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	labels := strings.Split(name, ".")
	// A last label of digits alone would be a mistyped IP address.
	if strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		return false
	}
	for i, label := range labels {
		if i == 0 && label == "*" && len(labels) > 2 {
			continue
		}
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' {
				return false
			}
		}
	}
	return true
}
