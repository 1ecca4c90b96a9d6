package pki

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
)

// PublicKeyHash is the SHA-256, in hex, of a certificate's public key (its
// SubjectPublicKeyInfo): a certificate that is renewed with the same key keeps it.
func PublicKeyHash(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// RequestKeyHash is PublicKeyHash of the certificates that a request (PEM) is for.
// ErrRequest when it can't be read, or is not signed with its own key.
func RequestKeyHash(csrPEM []byte) (string, error) {
	block, _ := pem.Decode(csrPEM)
	if block == nil || block.Type != typeRequest {
		return "", fmt.Errorf("%w: the request is not a PEM block of type %s", ErrRequest, typeRequest)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("%w: the request can't be read: %w", ErrRequest, err)
	}
	if err := csr.CheckSignature(); err != nil {
		return "", fmt.Errorf("%w: the request is not signed with its own key: %w", ErrRequest, err)
	}
	if weak := weakKey(csr.PublicKey); weak != "" {
		return "", fmt.Errorf("%w: %s", ErrRequest, weak)
	}
	sum := sha256.Sum256(csr.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:]), nil
}

// Certificates reads every certificate of a PEM text, in order. ErrPEM when there is
// none.
func Certificates(certPEM []byte) ([]*x509.Certificate, error) {
	return parseCertificates("certificates", certPEM)
}

// EncodeCertificate writes certificates as PEM.
func EncodeCertificate(certs ...*x509.Certificate) []byte { return encodeCertificates(certs...) }
