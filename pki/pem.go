package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
)

const (
	typeCertificate = "CERTIFICATE"
	typeRequest     = "CERTIFICATE REQUEST"
	typeKey         = "PRIVATE KEY"

	minRSABits = 2048
	// maxCommonName is X.520's ub-common-name, which some verifiers enforce.
	maxCommonName = 64
)

// NewKey makes an ECDSA P-256 private key: PKCS#8 in PEM.
func NewKey() (keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a private key: %w", err)
	}
	return encodeKey(key)
}

// NewRequest makes a certificate request (PEM), signed with the key. Its common
// name is what a client asks to be called; the certificates of members get theirs
// from who signs them.
func NewRequest(keyPEM []byte, commonName string) (csrPEM []byte, err error) {
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: commonName},
	}, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate request for %q: %w", commonName, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: typeRequest, Bytes: der}), nil
}

// RequestedName is the common name that a request (PEM) asks for; empty when it has
// none or can't be read, which signing it then tells.
func RequestedName(csrPEM []byte) string {
	block, _ := pem.Decode(csrPEM)
	if block == nil || block.Type != typeRequest {
		return ""
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return ""
	}
	return csr.Subject.CommonName
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: typeKey, Bytes: der}), nil
}

func encodeCertificates(certs ...*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, c := range certs {
		out.Write(pem.EncodeToMemory(&pem.Block{Type: typeCertificate, Bytes: c.Raw}))
	}
	return out.Bytes()
}

// parseKey reads the first private key of a PEM text: PKCS#8, PKCS#1 or SEC1, of
// kind ECDSA, RSA or Ed25519. Blocks of other kinds, such as the EC PARAMETERS
// that openssl writes first, are passed over.
func parseKey(keyPEM []byte) (crypto.Signer, error) {
	for rest := keyPEM; ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			return nil, fmt.Errorf("private key: %w: no PEM block with a private key; give the key as PEM (PKCS#8, PKCS#1 or SEC1)", ErrPEM)
		}
		var key any
		var err error
		switch block.Type {
		case typeKey:
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			if block.Headers["DEK-Info"] != "" {
				return nil, errEncryptedKey()
			}
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			if block.Headers["DEK-Info"] != "" {
				return nil, errEncryptedKey()
			}
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, errEncryptedKey()
		default:
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("private key: %w: %w", ErrPEM, err)
		}
		switch k := key.(type) {
		case *ecdsa.PrivateKey:
			return k, nil
		case *rsa.PrivateKey:
			return k, nil
		case ed25519.PrivateKey:
			return k, nil
		default:
			return nil, fmt.Errorf("private key: %w: its kind is %T; use ECDSA, RSA or Ed25519", ErrPEM, key)
		}
	}
}

func errEncryptedKey() error {
	return fmt.Errorf("private key: %w: it is encrypted with a passphrase; give it without one (openssl pkey -in key.pem)", ErrPEM)
}

// parseCertificates reads every certificate of a PEM text, in order.
func parseCertificates(what string, certPEM []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := certPEM; ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			break
		}
		if block.Type != typeCertificate {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: certificate %d: %w", what, ErrPEM, len(certs)+1, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s: %w: no PEM block with a certificate", what, ErrPEM)
	}
	return certs, nil
}

func samePublicKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// weakKey says what is wrong with a public key, or nothing.
func weakKey(pub crypto.PublicKey) string {
	switch k := pub.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
		if e, ok := k.(*ecdsa.PublicKey); ok && e.Curve.Params().BitSize < 256 {
			return fmt.Sprintf("its key is ECDSA of %d bits; use P-256 or larger", e.Curve.Params().BitSize)
		}
		return ""
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSABits {
			return fmt.Sprintf("its key is RSA of %d bits; use %d or more", k.N.BitLen(), minRSABits)
		}
		return ""
	default:
		return fmt.Sprintf("its key is of kind %T; use ECDSA, RSA or Ed25519", pub)
	}
}

func selfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}
