package remote

import (
	"context"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
)

// conn tells when it was closed, by either side. The transport itself doesn't: a
// request whose body is idle lasts until its next byte, though the server is long
// gone.
type conn struct {
	net.Conn

	once   sync.Once
	closed chan struct{}
}

// Close closes the connection.
func (c *conn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// renewing is a transport that can be exchanged for a fresh one, without connections.
type renewing struct {
	build func() *http.Transport

	mu  sync.Mutex
	now *http.Transport
}

func fresh(build func() *http.Transport) *renewing { return &renewing{build: build, now: build()} }

// RoundTrip implements http.RoundTripper.
func (r *renewing) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	t := r.now
	r.mu.Unlock()
	return t.RoundTrip(req)
}

// CloseIdleConnections is what http.Client asks for.
func (r *renewing) CloseIdleConnections() {
	r.mu.Lock()
	t := r.now
	r.mu.Unlock()
	t.CloseIdleConnections()
}

func (r *renewing) renew() {
	next := r.build()
	r.mu.Lock()
	old := r.now
	r.now = next
	r.mu.Unlock()
	old.CloseIdleConnections()
}

func dialer(d *net.Dialer) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &conn{Conn: c, closed: make(chan struct{})}, nil
	}
}

// onHangUp returns a context for one request; lost is called when the request's
// connection closes before that context ends.
func onHangUp(ctx context.Context, lost func()) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		plain := info.Conn
		if wrapped, ok := plain.(interface{ NetConn() net.Conn }); ok {
			plain = wrapped.NetConn()
		}
		c, ok := plain.(*conn)
		if !ok {
			return
		}
		go func() {
			select {
			case <-c.closed:
				lost()
			case <-ctx.Done():
			}
		}()
	}})
}
