package bucket

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	// maxSkew is how far clocks may be apart before S3 and the others refuse a signature:
	// they say 5 to 15 minutes.
	maxSkew = 5 * time.Minute
	// defaultStall is how long a connection may stand still. Completing a large upload takes
	// S3 minutes in which it says little.
	defaultStall = 2 * time.Minute
)

// skewNote is how far ahead this clock was when a store last refused something.
type skewNote struct{ nanoseconds atomic.Int64 }

func (n *skewNote) last() time.Duration { return time.Duration(n.nanoseconds.Load()) }

// skewWatch notes the store's clock.
type skewWatch struct {
	base http.RoundTripper
	note *skewNote
}

func (w *skewWatch) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := w.base.RoundTrip(req)
	if err == nil && res.StatusCode >= http.StatusBadRequest {
		if date, parseErr := http.ParseTime(res.Header.Get("Date")); parseErr == nil {
			w.note.nanoseconds.Store(int64(time.Since(date)))
		}
	}
	return res, err
}

// newTransport never waits forever: a connection that stands still is given up.
func newTransport(ca []byte, stall time.Duration) (*http.Transport, error) {
	var roots *x509.CertPool
	if len(ca) > 0 {
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(ca) {
			return nil, errors.New("ca: no certificate in PEM form is in it")
		}
	}
	dialer := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &stallConn{conn, stall}, nil
		},
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout:   min(15*time.Second, stall),
		ResponseHeaderTimeout: stall,
		ExpectContinueTimeout: time.Second,
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       min(time.Minute, stall),
		// Objects are returned as they were stored.
		DisableCompression: true,
		WriteBufferSize:    128 << 10,
		ReadBufferSize:     128 << 10,
	}, nil
}

// stallConn is closed by its deadline if it moves nothing for a while. A write moves the
// deadline of reading too, since an answer comes only after a request was sent, and that
// takes long if the rate is limited.
type stallConn struct {
	net.Conn
	stall time.Duration
}

func (c *stallConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *stallConn) Write(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
