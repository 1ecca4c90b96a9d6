package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/quorate/quorate/pki"
)

// dialer makes connections. They are gRPC's own: etcd's client would try again what
// failed, and hide it, and it costs CPU that the load is not about.
type dialer struct {
	tls      *tls.Config
	user     string
	password string
	traffic  traffic

	login sync.Mutex
	token atomic.Pointer[string]
}

// traffic counts the bytes of all connections.
type traffic struct{ sent, received atomic.Int64 }

type countedConn struct {
	net.Conn

	traffic *traffic
}

// Read counts what came.
func (c countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.traffic.received.Add(int64(n))
	return n, err
}

// Write counts what went.
func (c countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.traffic.sent.Add(int64(n))
	return n, err
}

func newDialer(s *Spec) (*dialer, error) {
	d := &dialer{user: s.User, password: s.Password}
	if len(s.CA) > 0 {
		cfg, err := pki.ClientTLS(s.Certificate, s.Key, s.CA)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSpec, err)
		}
		d.tls = cfg
		d.tls.ServerName = s.ServerName
		return d, nil
	}
	d.tls = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: s.ServerName}
	if len(s.Certificate) == 0 && len(s.Key) == 0 {
		return d, nil
	}
	pair, err := tls.X509KeyPair(s.Certificate, s.Key)
	if err != nil {
		return nil, fmt.Errorf("%w: client certificate: %w: give the certificate and its own key (PEM)", ErrSpec, err)
	}
	d.tls.Certificates = []tls.Certificate{pair}
	return d, nil
}

// dial makes a connection to one endpoint. It connects when it is first used.
func (d *dialer) dial(endpoint string) (*grpc.ClientConn, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, fmt.Errorf("endpoint %q: %w", endpoint, err)
	}
	creds := insecure.NewCredentials()
	if u.Scheme == "https" {
		creds = credentials.NewTLS(d.tls)
	}
	// A fixed window keeps gRPC from measuring the line by pings of its own.
	const window, answer = 1 << 20, 512 << 20
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithNoProxy(),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(answer), grpc.ForceCodecV2(newCodec())),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}, MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			conn, dialErr := (&net.Dialer{}).DialContext(ctx, "tcp", address)
			if dialErr != nil {
				return nil, dialErr
			}
			return countedConn{conn, &d.traffic}, nil
		}),
	}
	if d.user != "" {
		options = append(options, grpc.WithPerRPCCredentials(d))
	}
	c, err := grpc.NewClient("passthrough:///"+u.Host, options...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", endpoint, err)
	}
	return c, nil
}

// GetRequestMetadata gives each call the token of the user.
func (d *dialer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	t := d.token.Load()
	if t == nil {
		return nil, nil
	}
	return map[string]string{rpctypes.TokenFieldNameGRPC: *t}, nil
}

// RequireTransportSecurity is false: etcd's users exist without TLS, too.
func (*dialer) RequireTransportSecurity() bool { return false }

// logIn gets a token, unless another than the refused one is there already.
func (d *dialer) logIn(ctx context.Context, c *grpc.ClientConn, refused *string) error {
	if d.user == "" {
		return nil
	}
	d.login.Lock()
	defer d.login.Unlock()
	if d.token.Load() != refused {
		return nil
	}
	d.token.Store(nil)
	r, err := pb.NewAuthClient(c).Authenticate(ctx, &pb.AuthenticateRequest{Name: d.user, Password: d.password})
	if err != nil {
		if errors.Is(rpctypes.Error(err), rpctypes.ErrAuthNotEnabled) {
			return nil // no token is wanted then
		}
		return fmt.Errorf("log in as %s: %w", d.user, err)
	}
	d.token.Store(&r.Token)
	return nil
}

// tokenRefused reports whether another login may help.
func tokenRefused(err error) bool {
	e := rpctypes.Error(err)
	return errors.Is(e, rpctypes.ErrInvalidAuthToken) || errors.Is(e, rpctypes.ErrAuthOldRevision)
}
