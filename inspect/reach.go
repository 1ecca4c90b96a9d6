package inspect

import (
	"cmp"
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
	"time"

	"github.com/quorate/quorate/etcd"
)

// maxBody bounds what is read of an answer.
const maxBody = 8 << 20

// line is a plain HTTP connection to one member. It tells why a member can't be
// asked, which gRPC's errors blur, and sees its certificate and clock on the way.
type line struct {
	// target has no TLS where the endpoint is not https.
	target  etcd.Target
	host    string
	address string
	client  *http.Client
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
	if u.Scheme != "https" {
		cfg = nil
	}
	l := &line{target: etcd.Target{Endpoint: endpoint, TLS: cfg}, host: u.Hostname(), address: u.Host, ready: make(chan net.Conn, 1)}
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
		return nil, err
	}
	l.seen(func() { l.connected = time.Since(began) })
	if l.target.TLS == nil {
		return raw, nil
	}
	conn := tls.Client(raw, l.handshake())
	if err = conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // The handshake's error says more.
		return nil, err
	}
	return conn, nil
}

// handshake is done as etcd's client does it, and remembers the certificates even of
// a member that it then refuses to talk to.
func (l *line) handshake() *tls.Config {
	cfg := l.target.TLS.Clone()
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
	if err != nil {
		r = l.failed(ctx, err)
	}
	l.seen(func() { r.ConnectMilliseconds = milliseconds(l.connected) })
	var version struct {
		Server string `json:"etcdserver"`
	}
	// A listener for gRPC alone answers no HTTP: what it is shows when it is asked.
	if err == nil && (json.Unmarshal(body, &version) != nil || version.Server == "") {
		r.Cause, r.Text = etcd.FaultNotEtcd, "its /version is not etcd's"
	}
	return r
}

// failed says why a member could not be asked over HTTP.
func (l *line) failed(ctx context.Context, err error) Reach {
	// The request that an error belongs to is known.
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	r := Reach{Cause: etcd.FaultOf(l.target, err).Kind, Text: err.Error()}
	if r.Cause == etcd.FaultCall || r.Cause == etcd.FaultNotEtcd {
		// Who is greeted in the other language often just closes the connection.
		f := etcd.Diagnose(ctx, l.target, err)
		if f.Kind == etcd.FaultSpeaksTLS || f.Kind == etcd.FaultPlain {
			r.Cause, r.Text = f.Kind, f.Cause
		}
	}
	return r
}

// get fetches a path and notes the clock.
func (l *line) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(l.target.Endpoint, "/")+path, http.NoBody)
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
		return nil, fmt.Errorf("HTTP status %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	return body, nil
}

// callReach says what a call on a connection ended with. The member and the call
// are known, so only what they met is told.
func callReach(target etcd.Target, err error) *Reach {
	return &Reach{Cause: etcd.FaultOf(target, err).Kind, Text: cmp.Or(errors.Unwrap(err), err).Error()}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
