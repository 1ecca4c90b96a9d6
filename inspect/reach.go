package inspect

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/quorate/quorate/etcd"
)

// maxBody bounds what is read of an answer.
const maxBody = 8 << 20

// line is a plain HTTP connection to one member. It tells why a member can't be
// asked, which gRPC's errors blur, and sees its certificate and clock on the way.
type line struct {
	endpoint string
	https    bool
	host     string
	address  string
	tls      *tls.Config
	client   *http.Client
	// ready is the connection that reach has made, for the HTTP client to use.
	ready chan net.Conn

	// The HTTP client may connect anew in the background.
	mu sync.Mutex
	// What was seen when it connected.
	connected    time.Duration
	certificates []*x509.Certificate
	wanted       bool
	clock        bounds
}

// bounds of a clock's offset in seconds.
type bounds struct {
	low, high float64
	known     bool
}

// narrow takes what one answer's Date says: it was cut to whole seconds at some
// moment between asking and hearing.
func (b *bounds) narrow(date, asked, heard time.Time) {
	low := date.Sub(heard).Seconds()
	high := date.Add(time.Second).Sub(asked).Seconds()
	if !b.known {
		b.low, b.high, b.known = low, high, true
		return
	}
	// A clock that was set meanwhile leaves nothing in common: the latest counts.
	if l, h := max(b.low, low), min(b.high, high); l <= h {
		b.low, b.high = l, h
	} else {
		b.low, b.high = low, high
	}
}

func (b *bounds) clock() *Clock {
	if !b.known {
		return nil
	}
	const half = 2
	return &Clock{OffsetSeconds: (b.low + b.high) / half, MarginSeconds: (b.high - b.low) / half}
}

func newLine(endpoint string, cfg *tls.Config) (*line, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, fmt.Errorf("endpoint %q: %w: give a URL such as https://10.0.0.1:2379", endpoint, err)
	}
	l := &line{
		endpoint: endpoint, https: u.Scheme == "https", host: u.Hostname(), address: u.Host, tls: cfg,
		ready: make(chan net.Conn, 1),
	}
	connect := func(ctx context.Context, _, _ string) (net.Conn, error) {
		select {
		case conn := <-l.ready:
			return conn, nil
		default:
			return l.connect(ctx)
		}
	}
	transport := &http.Transport{DialContext: connect, DialTLSContext: connect, MaxIdleConnsPerHost: 1, DisableCompression: true}
	l.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return l, nil
}

func (l *line) close() {
	l.client.CloseIdleConnections()
	select {
	case conn := <-l.ready:
		_ = conn.Close() // Nothing was said on it.
	default:
	}
}

// seen runs f on what was seen, alone.
func (l *line) seen(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

// connect dials, and shakes hands where the endpoint is https.
func (l *line) connect(ctx context.Context) (net.Conn, error) {
	began := time.Now()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.address)
	if err != nil {
		return nil, &stageError{stage: stageConnect, err: err}
	}
	l.seen(func() { l.connected = time.Since(began) })
	if !l.https {
		return raw, nil
	}
	conn := tls.Client(raw, l.handshake())
	if err = conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // The handshake's error says more.
		return nil, &stageError{stage: stageTLS, err: err}
	}
	return conn, nil
}

// handshake is done as etcd's client does it, and remembers the certificates even of
// a member that it then refuses to talk to.
func (l *line) handshake() *tls.Config {
	cfg := l.tls.Clone()
	cfg.ServerName = l.host
	cfg.NextProtos = nil
	cfg.InsecureSkipVerify = true // VerifyConnection does it, after it has looked
	cfg.VerifyConnection = func(s tls.ConnectionState) error {
		l.seen(func() { l.certificates = s.PeerCertificates })
		return verify(s.PeerCertificates, cfg.RootCAs, l.host, time.Now())
	}
	shown := cfg.Certificates
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		l.seen(func() { l.wanted = true })
		if len(shown) > 0 {
			return &shown[0], nil
		}
		return &tls.Certificate{}, nil
	}
	return cfg
}

// verify checks a chain as crypto/tls does, but the time before the name, so that
// the more urgent of two faults is told.
func verify(certs []*x509.Certificate, roots *x509.CertPool, host string, now time.Time) error {
	if len(certs) == 0 {
		return errors.New("no certificate was shown")
	}
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: now}
	for _, c := range certs[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := certs[0].Verify(opts); err != nil {
		return err
	}
	return certs[0].VerifyHostname(host)
}

// Stages of a connection.
const (
	stageConnect = "connect"
	stageTLS     = "handshake"
)

// stageError says how far a connection got.
type stageError struct {
	stage string
	err   error
}

// Error implements error.
func (e *stageError) Error() string { return e.err.Error() }

// Unwrap implements errors.Unwrap.
func (e *stageError) Unwrap() error { return e.err }

// reach connects and asks for the version, and says what was in the way. What took
// too long is told by how far it got, so the connection is not left to the HTTP client.
func (l *line) reach(ctx context.Context) Reach {
	conn, err := l.connect(ctx)
	var body []byte
	if err == nil {
		l.ready <- conn
		body, err = l.get(ctx, "/version")
	}
	r := Reach{Cause: Answered}
	l.seen(func() { r.ConnectMilliseconds = milliseconds(l.connected) })
	if err != nil {
		l.seen(func() { r.Cause, r.Text = l.cause(err), l.text(err) })
		return r
	}
	var version struct {
		Server string `json:"etcdserver"`
	}
	// A listener for gRPC alone answers no HTTP: what it is shows when it is asked.
	if json.Unmarshal(body, &version) != nil || version.Server == "" {
		r.Cause, r.Text = NotEtcd, "its /version is not etcd's"
	}
	return r
}

// get fetches a path and notes the clock.
func (l *line) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(l.endpoint, "/")+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	asked := time.Now()
	resp, err := l.client.Do(req)
	if err != nil {
		return nil, err
	}
	heard := time.Now()
	defer func() { _ = resp.Body.Close() }() // It was only read.
	// How long the connection took widens the bounds, and does no harm else.
	if date, bad := http.ParseTime(resp.Header.Get("Date")); bad == nil {
		l.seen(func() { l.clock.narrow(date, asked, heard) })
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, &httpError{status: resp.StatusCode, body: string(body)}
	}
	return body, nil
}

// httpError is an answer that is none.
type httpError struct {
	status int
	body   string
}

// Error implements error.
func (e *httpError) Error() string {
	return fmt.Sprintf("HTTP status %d %s", e.status, http.StatusText(e.status))
}

// cause tells the reasons apart.
func (l *line) cause(err error) Cause {
	if at, ok := errors.AsType[*stageError](err); ok && at.stage == stageConnect {
		return connectCause(at)
	}
	if answer, ok := errors.AsType[*httpError](err); ok {
		if !l.https && strings.Contains(answer.body, "HTTPS server") {
			return SpeaksTLS
		}
		return NotEtcd
	}
	if cause := certificateCause(err); cause != Failed {
		return cause
	}
	text := err.Error()
	switch {
	case isTimeout(err):
		return Hangs
	case strings.Contains(text, "remote error: tls") && l.wanted && len(l.tls.Certificates) == 0:
		return CertificateWanted
	case strings.Contains(text, "remote error: tls") && l.wanted:
		return CertificateRefused
	case strings.Contains(text, "malformed HTTP response"):
		return NotEtcd
	}
	return Failed
}

func connectCause(err error) Cause {
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return NoName
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return NoRoute
	case isTimeout(err):
		return Silent
	}
	return Failed
}

func certificateCause(err error) Cause {
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return SpeaksPlain
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return UnknownCA
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return WrongName
	}
	if bad, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if bad.Reason == x509.Expired {
			return Expired
		}
		return BadCertificate
	}
	return Failed
}

func isTimeout(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// text is the heart of an error: the request it belongs to is known.
func (*line) text(err error) string {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	return err.Error()
}

// speaksTLS tries whether a listener that said nothing to plain HTTP wants TLS.
func speaksTLS(ctx context.Context, endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil {
		return false
	}
	// No more than a greeting is exchanged, so nothing has to be verified.
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true} //nolint:gosec // see above
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return false
	}
	defer func() { _ = raw.Close() }() // Nothing was said on it.
	err = tls.Client(raw, cfg).HandshakeContext(ctx)
	return err == nil || strings.Contains(err.Error(), "remote error: tls")
}

// speaksPlain tries whether a listener that broke off the handshake answers plain
// HTTP: etcd without TLS just closes the connection.
func speaksPlain(ctx context.Context, endpoint string) bool {
	rest, _ := strings.CutPrefix(endpoint, "https")
	l, err := newLine("http"+rest, nil)
	if err != nil {
		return false
	}
	defer l.close()
	_, err = l.get(ctx, "/version")
	if answer, ok := errors.AsType[*httpError](err); ok {
		return !strings.Contains(answer.body, "HTTPS server")
	}
	return err == nil
}

// callReach classifies what a call on a connection ended with.
func callReach(err error) *Reach {
	cause := Failed
	for _, known := range []struct {
		is    error
		cause Cause
	}{
		{etcd.ErrLoginWanted, LoginWanted},
		{etcd.ErrLoginFailed, LoginFailed},
		{etcd.ErrNoAuth, NoAuth},
		{etcd.ErrDenied, Denied},
		{etcd.ErrNoLeader, NoLeader},
		{etcd.ErrRefused, Refused},
	} {
		if errors.Is(err, known.is) {
			return &Reach{Cause: known.cause, Text: known.is.Error()}
		}
	}
	if isTimeout(err) || strings.Contains(err.Error(), "deadline exceeded") || strings.Contains(err.Error(), "request timed out") {
		cause = Hangs
	}
	return &Reach{Cause: cause, Text: err.Error()}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
