package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestFaultOf: each error tells its own fault, however it is wrapped on its way.
func TestFaultOf(t *testing.T) {
	dial := func(err error) error {
		return &url.Error{Op: "Get", URL: "u", Err: &net.OpError{Op: "dial", Net: "tcp", Err: err}}
	}
	handshake := func(err error) error { return &tls.CertificateVerificationError{Err: err} }
	alert := func(text string) error {
		return &url.Error{Op: "Get", URL: "u", Err: &net.OpError{Op: "remote error", Err: errors.New("tls: " + text)}}
	}
	cert := func(from, to time.Duration) *x509.Certificate {
		return &x509.Certificate{NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to)}
	}
	plain, shown := Target{Endpoint: "https://h:2379"}, Target{Endpoint: "https://h:2379", TLS: &tls.Config{Certificates: make([]tls.Certificate, 1)}}
	call := func(err error) error { return (&Observer{target: plain}).failed("status of", err) }
	for _, tc := range []struct {
		want   FaultKind
		target Target
		err    error
	}{
		{FaultRefused, plain, dial(os.NewSyscallError("connect", syscall.ECONNREFUSED))},
		{FaultRefused, plain, call(status.Error(codes.Unavailable, "connection error: dial tcp h:2379: connect: connection refused"))},
		{FaultNoRoute, plain, dial(os.NewSyscallError("connect", syscall.EHOSTUNREACH))},
		{FaultBlackHole, plain, dial(os.ErrDeadlineExceeded)},
		{FaultNoName, plain, dial(&net.DNSError{Err: "no such host", Name: "h"})},
		{FaultNoName, plain, dial(&net.DNSError{Err: "timeout", Name: "h", IsTimeout: true})},
		{FaultCall, plain, dial(errors.New("something new"))},
		{FaultUnknownAuthority, plain, handshake(x509.UnknownAuthorityError{})},
		{FaultExpired, plain, handshake(x509.CertificateInvalidError{Reason: x509.Expired, Cert: cert(-2, -1)})},
		{FaultNotYetValid, plain, handshake(x509.CertificateInvalidError{Reason: x509.Expired, Cert: cert(time.Hour, 2*time.Hour)})},
		{FaultBadCertificate, plain, x509.CertificateInvalidError{Reason: x509.IncompatibleUsage, Cert: cert(0, 1)}},
		{FaultWrongName, plain, x509.HostnameError{Host: "h", Certificate: cert(0, 1)}},
		{FaultPlain, plain, tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}},
		{FaultClientWanted, plain, alert("certificate required")},
		{FaultClientWanted, plain, alert("bad certificate")},
		{FaultClientRefused, shown, alert("unknown certificate authority")},
		{FaultClientRefused, shown, alert("expired certificate")},
		{FaultCall, plain, alert("protocol version not supported")},
		{FaultSilent, plain, &url.Error{Op: "Get", URL: "u", Err: context.DeadlineExceeded}},
		{FaultSilent, plain, &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}},
		{FaultSilent, plain, call(status.Error(codes.DeadlineExceeded, "context deadline exceeded"))},
		{FaultSilent, plain, call(rpctypes.ErrGRPCTimeout)},
		{FaultNotEtcd, plain, errors.New(`malformed HTTP response "\x00"`)},
		{FaultNotEtcd, plain, call(status.Error(codes.Unimplemented, "unknown service"))},
		{FaultNotEtcd, plain, call(status.Error(codes.Unavailable, "unexpected HTTP status code received from server: 404"))},
		{FaultLoginWanted, plain, call(rpctypes.ErrGRPCUserEmpty)},
		{FaultLoginFailed, plain, call(rpctypes.ErrGRPCAuthFailed)},
		{FaultNoAuth, plain, call(rpctypes.ErrGRPCAuthNotEnabled)},
		{FaultDenied, plain, call(rpctypes.ErrGRPCPermissionDenied)},
		{FaultNoLeader, plain, call(rpctypes.ErrGRPCNoLeader)},
		{FaultCall, plain, io.EOF},
	} {
		if f := FaultOf(tc.target, fmt.Errorf("asked: %w", tc.err)); f.Kind != tc.want || f.Endpoint != plain.Endpoint || f.Cause == "" || f.Next == "" {
			t.Errorf("%v: got %s (%s), want %s", tc.err, f.Kind, f, tc.want)
		}
	}
}
