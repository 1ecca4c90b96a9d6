// Package pki makes and checks the certificates of clusters: their CAs, the
// requests that members' hosts make, and the certificates that the server signs.
//
// A private key is made where it is used and never travels. A request proves
// that its sender holds the key and gives nothing else: names, usages and
// validity are decided by who signs.
package pki

import "errors"

// Errors of this package, wrapped with what is wrong and what to do about it.
// Test with errors.Is.
var (
	// ErrCA: a CA can't be used to sign.
	ErrCA = errors.New("the CA can't be used")
	// ErrRequest: a certificate request can't be granted.
	ErrRequest = errors.New("the certificate request can't be granted")
	// ErrLeaf: a member's or client's certificate doesn't serve its purpose.
	ErrLeaf = errors.New("the certificate can't be used")
	// ErrPEM: no certificate or key could be read from the text.
	ErrPEM = errors.New("not readable")
)
