package etcd

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"regexp"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// FaultKind is why an endpoint gave no answer, in a word for conditions.
type FaultKind string

// The kinds of faults.
const (
	FaultRefused          FaultKind = "ConnectionRefused"
	FaultBlackHole        FaultKind = "NoAnswer"
	FaultSilent           FaultKind = "NotResponding"
	FaultNoRoute          FaultKind = "NoRoute"
	FaultNoName           FaultKind = "NameNotFound"
	FaultUnknownAuthority FaultKind = "CertificateUnknownAuthority"
	FaultExpired          FaultKind = "CertificateExpired"
	FaultNotYetValid      FaultKind = "CertificateNotYetValid"
	FaultWrongName        FaultKind = "CertificateNameMismatch"
	FaultBadCertificate   FaultKind = "CertificateInvalid"
	FaultClientWanted     FaultKind = "ClientCertificateRequired"
	FaultClientRefused    FaultKind = "ClientCertificateRefused"
	FaultPlain            FaultKind = "NotTLS"
	FaultSpeaksTLS        FaultKind = "TLSRequired"
	FaultNotEtcd          FaultKind = "NotEtcd"
	FaultLoginWanted      FaultKind = "LoginRequired"
	FaultLoginFailed      FaultKind = "LoginFailed"
	FaultNoAuth           FaultKind = "AuthenticationOff"
	FaultDenied           FaultKind = "PermissionDenied"
	FaultNoLeader         FaultKind = "NoLeader"
	FaultOtherCluster     FaultKind = "OtherCluster"
	FaultCall             FaultKind = "CallFailed"
)

// Fault says why an endpoint can't be asked. Its text is the same as long as its
// cause is: it has no ports and times in it, so that it can stand in a status.
type Fault struct {
	Kind     FaultKind
	Endpoint string
	// Cause in words, and Next, what a person can do.
	Cause string
	Next  string
}

// String is object, cause and next step.
func (f *Fault) String() string {
	return f.Endpoint + ": " + f.Cause + ": " + f.Next
}

// Unreachable reports whether the fault leaves open if the member runs: it can't
// be told from a broken network. A refused connection can.
func (f *Fault) Unreachable() bool { return f.Kind != FaultRefused }

// diagnosis is one attempt to find out why a call failed.
type diagnosis struct {
	endpoint string
	host     string
	address  string
	https    bool
	tls      *tls.Config
}

func (d *diagnosis) fault(kind FaultKind, cause, next string) *Fault {
	return &Fault{Kind: kind, Endpoint: d.endpoint, Cause: cause, Next: next}
}

func newDiagnosis(target Target) *diagnosis {
	d := &diagnosis{endpoint: target.Endpoint, tls: target.TLS}
	if u, err := url.Parse(target.Endpoint); err == nil {
		d.host, d.address, d.https = u.Hostname(), u.Host, u.Scheme == "https"
	}
	return d
}

// FaultOf says what the error of a connection, of HTTP or of a call tells by itself:
// FaultCall where that is nothing.
func FaultOf(target Target, err error) *Fault {
	d := newDiagnosis(target)
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" || errors.Is(err, ErrRefused) {
		return d.ofDial(err)
	}
	return cmp.Or(d.ofAnswer(err), d.ofTLS(err), d.ofCall(err))
}

// Diagnose finds out why a call at an endpoint failed. What the member did not say
// itself is tried once more, slowly and layer by layer, within ctx: gRPC's texts
// differ from one attempt to the next.
func Diagnose(ctx context.Context, target Target, err error) *Fault {
	d := newDiagnosis(target)
	if d.address == "" {
		return d.fault(FaultNoName, "it is no URL", "write it as https://HOST:PORT")
	}
	if f := d.ofAnswer(err); f != nil {
		return f
	}
	if f := d.connect(ctx); f != nil {
		return f
	}
	return d.ofCall(err)
}

// ofAnswer speaks of a call that the member understood and did not carry out; nil
// if that is not the matter.
func (d *diagnosis) ofAnswer(err error) *Fault {
	switch {
	case errors.Is(err, ErrLoginWanted):
		return d.fault(FaultLoginWanted, "authentication is on, and no user is given",
			"give username and password of a user; it needs no role")
	case errors.Is(err, ErrLoginFailed):
		return d.fault(FaultLoginFailed, "etcd does not know the user with this password",
			"put the right username and password in place")
	case errors.Is(err, ErrNoAuth):
		return d.fault(FaultNoAuth, "authentication is off, so nobody can log in", "leave username and password out")
	case errors.Is(err, ErrDenied), errors.Is(err, ErrNoUser):
		return d.fault(FaultDenied, "the user may not ask for the cluster's status",
			"let the user read it; etcd itself wants no role for that, so look at what stands in front of etcd")
	case errors.Is(err, ErrNoLeader):
		return d.fault(FaultNoLeader, "it knows no leader", "see whether it reaches the other members")
	}
	return nil
}

var (
	// otherProtocol is in errors of gRPC and HTTP at what does not speak it.
	otherProtocol = regexp.MustCompile(`HTTP status|content-type|frame too large|error reading server preface|malformed HTTP`)
	// timedOut is in errors that have lost their type on the way.
	timedOut = regexp.MustCompile(`(?i)deadline ?exceeded|request timed out`)
	// ofClient are the alerts that may mean the client's certificate.
	ofClient = regexp.MustCompile(`remote error: tls: ([a-z ]*certificate[a-z ]*|handshake failure|access denied|error decrypting message)`)
)

// ofCall speaks of a call that failed although the connection is good.
func (d *diagnosis) ofCall(err error) *Fault {
	text := err.Error()
	switch {
	case status.Code(err) == codes.Unimplemented, otherProtocol.MatchString(text):
		return d.notEtcd()
	case isTimeout(err), timedOut.MatchString(text):
		return d.silent()
	}
	if i := strings.LastIndex(text, "desc = "); i >= 0 {
		text = text[i+len("desc = "):]
	}
	return d.fault(FaultCall, fmt.Sprintf("the call failed: %.200s", text), "look into the member's log")
}

func (d *diagnosis) notEtcd() *Fault {
	return d.fault(FaultNotEtcd, "what answers there is not an etcd",
		"check host and port: clients connect to 2379 as a rule, and 2380 is for the members among themselves")
}

func (d *diagnosis) silent() *Fault {
	return d.fault(FaultSilent, "it takes connections, but does not answer",
		"see whether the process hangs, its disk stalls, or something in between swallows what is sent")
}

// connect goes through the layers, and returns what is wrong with the first that
// is; nil when a connection can be made.
func (d *diagnosis) connect(ctx context.Context) *Fault {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", d.address)
	if err != nil {
		return d.ofDial(err)
	}
	defer func() { _ = conn.Close() }() // only tried
	if d.https {
		return d.handshake(ctx, conn)
	}
	first, err := greet(ctx, conn)
	switch {
	case len(first) > 0 && !bytes.HasPrefix(first, []byte("HTTP/1")):
		return nil
	case d.speaksTLS(ctx):
		return d.fault(FaultSpeaksTLS, "it speaks TLS, and the URL says http", "write https:// and give the CA (ca.crt, --cacert)")
	case isTimeout(err):
		return d.silent()
	}
	return d.notEtcd()
}

func (d *diagnosis) plain() *Fault {
	return d.fault(FaultPlain, "it does not speak TLS, and the URL says https", "write http://, if it is meant to be without TLS")
}

func (d *diagnosis) ofDial(err error) *Fault {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		cause := "the name " + d.host + " is not known"
		if dns.IsTimeout {
			cause = "the name server does not answer for " + d.host
		}
		return d.fault(FaultNoName, cause, "correct the name, or use an IP address")
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, ErrRefused):
		return d.fault(FaultRefused, "connection refused, nothing listens there", "start the member, or correct host and port")
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return d.fault(FaultNoRoute, "there is no route to "+d.host, "see whether the host is up and its network is reachable from here")
	case isTimeout(err):
		return d.fault(FaultBlackHole, "no answer at all", "see whether the host is up, and whether a firewall drops what is sent to it")
	}
	return d.fault(FaultCall, "the connection failed: "+lastPart(err), "see whether the host is up and its network is reachable from here")
}

// handshake makes a TLS connection as the client does. A server that wants another
// client certificate says so only to the first read behind the handshake.
func (d *diagnosis) handshake(ctx context.Context, conn net.Conn) *Fault {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if d.tls != nil {
		cfg = d.tls.Clone()
	}
	if cfg.ServerName == "" {
		cfg.ServerName = d.host
	}
	cfg.NextProtos = []string{"h2"}
	secure := tls.Client(conn, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		if errors.Is(err, io.EOF) && d.speaksPlain(ctx) {
			return d.plain()
		}
		return d.ofHandshake(err)
	}
	first, err := greet(ctx, secure)
	switch {
	case bytes.HasPrefix(first, []byte("HTTP/1")):
		return d.notEtcd()
	case len(first) > 0:
		return nil
	case isTimeout(err):
		return d.silent()
	}
	return d.ofHandshake(err)
}

func (d *diagnosis) ofHandshake(err error) *Fault {
	return cmp.Or(d.ofTLS(err), d.fault(FaultCall, "the TLS handshake failed: "+lastPart(err), "look into the member's log"))
}

// ofTLS tells apart what TLS refuses; nil if that is not the matter.
func (d *diagnosis) ofTLS(err error) *Fault {
	if f := d.ofCertificate(err); f != nil {
		return f
	}
	if alert := ofClient.FindStringSubmatch(err.Error()); alert != nil {
		if d.tls == nil || len(d.tls.Certificates) == 0 {
			return d.fault(FaultClientWanted, "it wants a client certificate ("+alert[1]+")", "give tls.crt and tls.key (--cert, --key)")
		}
		return d.fault(FaultClientRefused, "it refuses the client certificate ("+alert[1]+")",
			"give one that is valid and signed by the CA that the member trusts (tls.crt, tls.key; --cert, --key)")
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return d.plain()
	}
	if isTimeout(err) {
		return d.silent()
	}
	return nil
}

// ofCertificate tells why the server's certificate is not trusted; nil if that is
// not the matter.
func (d *diagnosis) ofCertificate(err error) *Fault {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		issuer := ""
		if v, ok := errors.AsType[*tls.CertificateVerificationError](err); ok && len(v.UnverifiedCertificates) > 0 {
			issuer = fmt.Sprintf(" (its issuer is %q)", v.UnverifiedCertificates[0].Issuer.String())
		}
		return d.fault(FaultUnknownAuthority, "its certificate is signed by an authority that is not trusted"+issuer,
			"give the CA that signed it (ca.crt, --cacert)")
	}
	if name, ok := errors.AsType[x509.HostnameError](err); ok {
		return d.fault(FaultWrongName, "its certificate is not for "+name.Host+", only for "+namesOf(name.Certificate),
			"use one of these names in the URL, or say it in serverName (--server-name)")
	}
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	switch {
	case !ok:
		return nil
	case invalid.Reason == x509.Expired && time.Now().Before(invalid.Cert.NotBefore):
		return d.fault(FaultNotYetValid, "its certificate is not valid before "+stamp(invalid.Cert.NotBefore), "compare the clocks of both hosts")
	case invalid.Reason == x509.Expired:
		return expired(d.endpoint, invalid.Cert)
	}
	return d.fault(FaultBadCertificate, "its certificate is not good: "+invalid.Error(), "have it issued anew")
}

// expired speaks of a server's certificate that has run out.
func expired(endpoint string, cert *x509.Certificate) *Fault {
	return &Fault{
		Kind: FaultExpired, Endpoint: endpoint, Cause: "its certificate expired at " + stamp(cert.NotAfter),
		Next: "renew it; etcd reads the new file without a restart",
	}
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func namesOf(c *x509.Certificate) string {
	names := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "no name at all"
	}
	return strings.Join(names, ", ")
}

// greet begins HTTP/2 as a gRPC client does, and returns the first bytes of the
// answer.
func greet(ctx context.Context, conn net.Conn) ([]byte, error) {
	deadline := time.Now().Add(500 * time.Millisecond)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	// The preface of HTTP/2 with empty settings.
	if _, err := conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")); err != nil {
		return nil, err
	}
	first := make([]byte, 64)
	n, err := conn.Read(first)
	return first[:n], err
}

// speaksTLS reports whether a server takes a TLS handshake. Nothing is sent over it.
func (d *diagnosis) speaksTLS(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", d.address)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()                                                             // only tried
	secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}) //nolint:gosec // only asked whether it is TLS
	err = secure.HandshakeContext(ctx)
	return err == nil || strings.Contains(err.Error(), "remote error: tls")
}

// speaksPlain reports whether a server answers HTTP/2 without TLS.
func (d *diagnosis) speaksPlain(ctx context.Context) bool {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", d.address)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }() // only tried
	first, _ := greet(ctx, conn)        // silence is an answer
	return len(first) > 0
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// lastPart is the cause at the end of an error's text, without the addresses
// before it.
func lastPart(err error) string {
	text := err.Error()
	return text[strings.LastIndex(text, ": ")+1:]
}
