package remote

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

// Client is a store.Store, a store.Recorder and a store.EventReader.
var (
	_ store.Store       = (*Client)(nil)
	_ store.Recorder    = (*Client)(nil)
	_ store.EventReader = (*Client)(nil)
)

const (
	// requestTime bounds a request whose context has no deadline.
	requestTime = 30 * time.Second
	// silence is how long a stream may say nothing before it is taken for dead.
	silence = 3*wire.Heartbeat + 5*time.Second
	// aliveEvery is how often an agent says that it lives.
	aliveEvery = 5 * time.Second
)

// Options of a Client.
type Options struct {
	// Logger. Default: none.
	Logger *slog.Logger
	// Seen remembers the store's position. Default: in memory.
	Seen PositionStore
	// Transport carries the requests instead of TCP, such as one that calls a server
	// in this process. May be nil.
	Transport http.RoundTripper
	// Certificate is what the client shows of itself instead of a token, asked for at
	// each connection; nil where it has none.
	Certificate func() (*tls.Certificate, error)
	// Roots are those to know the server by, asked for at each connection, in place of
	// the CA of the Config; a nil pool means the system's. May be nil.
	Roots func() (*x509.CertPool, error)
	// Anonymous lets the client have no token: all it can do then is Login.
	Anonymous bool
}

// Client talks to one server. It is safe for concurrent use.
type Client struct {
	base  *url.URL
	token string
	// instance names this client to the server where it shows a certificate.
	instance string
	http     *http.Client
	log      *slog.Logger
	seen     PositionStore
	dryRun   bool
	// silence is the constant, or what a test puts here.
	silence time.Duration
}

// New makes a client. It does not connect yet.
func New(cfg Config, o Options) (*Client, error) {
	base, err := url.Parse(cfg.Server)
	if err != nil || base.Host == "" || (base.Scheme != "http" && base.Scheme != "https") {
		return nil, fmt.Errorf("the server's URL is %q: give one such as http://127.0.0.1:7379 or https://quorate.example.com:7379", cfg.Server)
	}
	if base.Scheme == "http" && !isLoopback(base.Hostname()) {
		return nil, fmt.Errorf("%s would send the token across the network in the clear: use https, and --tls-cert-file and --tls-key-file at the server", cfg.Server)
	}
	if cfg.Token == "" && !o.Anonymous && o.Certificate == nil {
		return nil, fmt.Errorf("there is no token for the server %s: take one that the server made", cfg.Server)
	}
	if o.Transport == nil {
		if o.Transport, err = dialling(cfg, o); err != nil {
			return nil, err
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Seen == nil {
		o.Seen = &MemoryPosition{}
	}
	instance := ""
	if o.Certificate != nil {
		instance = rand.Text()
	}
	return &Client{
		instance: instance, base: base, token: cfg.Token, log: o.Logger, seen: o.Seen, silence: silence,
		http: &http.Client{
			Transport: o.Transport,
			// A redirect would carry the token to where nobody sent it.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// dialling is the transport by TCP.
func dialling(cfg Config, o Options) (http.RoundTripper, error) {
	if o.Roots != nil {
		return fresh(func() *http.Transport { return transport(showing(trusting(cfg.hostname(), o.Roots), o)) }), nil
	}
	pem, err := cfg.roots()
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(pem) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("the server's CA holds no certificate: give it in PEM")
		}
	}
	return fresh(func() *http.Transport { return transport(showing(config, o)) }), nil
}

// showing adds the client's own certificate to a TLS configuration. It is shown to any
// server that asks: one that does not know its CA says so better than a client that
// came without.
func showing(config *tls.Config, o Options) *tls.Config {
	if o.Certificate != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return o.Certificate() }
	}
	return config
}

// transport speaks HTTP/1.1, since a stream that hangs must not hold up others.
func transport(config *tls.Config) *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer(&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}),
		TLSClientConfig:     config,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 32,
		IdleConnTimeout:     90 * time.Second,
	}
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// DryRun returns a client whose changes are checked by the server in every way,
// and not made.
func (c *Client) DryRun() *Client {
	dry := *c
	dry.dryRun = true
	return &dry
}

// Reconnect has all that is sent from now on use new connections, such as when the
// client's certificate is another. What is under way goes on.
func (c *Client) Reconnect() {
	if r, ok := c.http.Transport.(*renewing); ok {
		r.renew()
	}
}

// Close closes connections that are idle.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Server is the URL of the server.
func (c *Client) Server() string { return strings.TrimSuffix(c.base.String(), "/") }

// bounded gives ctx a deadline if it has none.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, requestTime)
}
