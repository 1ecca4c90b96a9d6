package discovery

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	mvccpb "go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

const (
	// maxMessage is far more than any registration takes.
	maxMessage = 64 << 10
	// maxStreams of one connection; a member uses two.
	maxStreams = 32
	// perSecond and burst of requests from one address. A member makes five; nine
	// members may come from behind one address.
	perSecond = 20
	burst     = 100
	// maxAddresses are remembered at once.
	maxAddresses = 4096
	// askAgain is how often a waiting member's token is looked at even if nothing was
	// heard of it: another server may have taken the registration.
	askAgain = 2 * time.Second
	// sweepEvery is how often tokens that have expired are removed.
	sweepEvery = 10 * time.Minute
)

// Options of a Service.
type Options struct {
	Store store.Store
	// URL that members reach the service at, such as https://10.0.0.2:7382.
	URL    string
	Logger *slog.Logger
	// Now is the clock; time.Now by default.
	Now func() time.Time
}

// Service is the discovery service. It implements fleet.Meeting.
type Service struct {
	pb.UnimplementedKVServer
	pb.UnimplementedWatchServer

	opts Options
	id   *identity

	mu      sync.Mutex // guards the two maps
	waiting map[string]chan struct{}
	callers map[string]*rate.Limiter
}

// Open makes the service ready, and its CA and key where there are none yet.
func Open(ctx context.Context, opts Options) (*Service, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	u, err := url.Parse(opts.URL)
	if err != nil || u.Scheme != "https" || u.Port() == "" || u.Path != "" {
		return nil, fmt.Errorf("the discovery service's URL %q is not of the form https://HOST:PORT", opts.URL)
	}
	if ip := net.ParseIP(u.Hostname()); ip != nil && ip.IsUnspecified() {
		return nil, fmt.Errorf("the discovery service's URL %q names no address that members can reach: give the server's own with --discovery-url", opts.URL)
	}
	id, err := openIdentity(ctx, opts.Store, opts.URL, u.Hostname(), opts.Now)
	if err != nil {
		return nil, err
	}
	return &Service{opts: opts, id: id, waiting: map[string]chan struct{}{}, callers: map[string]*rate.Limiter{}}, nil
}

// Open implements fleet.Meeting: the token of a cluster is made of its UID and of the
// service's key, so that all members are told the same, whatever happens in between.
func (s *Service) Open(ctx context.Context, c *v1alpha1.EtcdCluster) (*v1alpha1.DiscoveryBootstrap, error) {
	mac := hmac.New(sha256.New, s.id.key)
	mac.Write([]byte(c.UID))
	t := &Token{
		Token: hex.EncodeToString(mac.Sum(nil)[:tokenBytes]), Size: int(c.Spec.Replicas),
		Cluster: c.Namespace + "/" + c.Name, Expires: s.opts.Now().Add(DefaultTTL).UTC().Truncate(time.Second),
	}
	err := create(ctx, s.opts.Store, t)
	if errors.Is(err, store.ErrExists) {
		err = store.Mutate(ctx, s.opts.Store, keyOf(nameOf(t.Token)), &v1alpha1.Secret{}, t.prolong)
	}
	if err != nil {
		return nil, err
	}
	return &v1alpha1.DiscoveryBootstrap{Endpoints: []string{s.opts.URL}, Token: t.Token, CA: string(s.id.roots)}, nil
}

// prolong keeps the token of a cluster that is there already: a formation that takes
// long, or begins anew, must not lose it.
func (t *Token) prolong(secret *v1alpha1.Secret) (bool, error) {
	have, err := fromSecret(secret)
	if err != nil {
		return false, err
	}
	if have.Size != t.Size && len(have.Members) > 0 {
		return false, fmt.Errorf("members of cluster %s met already as a cluster of %d, and it now wants %d: delete the cluster and make it anew", t.Cluster, have.Size, t.Size)
	}
	if have.Size == t.Size && t.Expires.Sub(have.Expires) < DefaultTTL/2 {
		return false, nil
	}
	have.Size, have.Expires = t.Size, t.Expires
	return true, have.into(secret)
}

// Serve answers members until ctx ends, and closes the listener.
func (s *Service) Serve(ctx context.Context, l net.Listener) error {
	srv := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(s.id.tls())),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxConcurrentStreams(maxStreams), grpc.ConnectionTimeout(10*time.Second),
		// etcd asks every 2 s whether the service is there.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: time.Minute, Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if err := s.admit(ctx); err != nil {
				return nil, err
			}
			return next(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, st grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error { //nolint:contextcheck // a stream has its own
			if err := s.admit(st.Context()); err != nil {
				return err
			}
			return next(srv, st)
		}),
	)
	pb.RegisterKVServer(srv, s)
	pb.RegisterWatchServer(srv, s)
	var wg sync.WaitGroup
	sweeping, stop := context.WithCancel(ctx)
	wg.Go(func() { s.sweep(sweeping) })
	// Members that wait for others hold their streams: they come again elsewhere or later.
	unhook := context.AfterFunc(ctx, srv.Stop)
	err := srv.Serve(l)
	unhook()
	stop()
	wg.Wait()
	if ctx.Err() != nil || errors.Is(err, grpc.ErrServerStopped) {
		return nil //nolint:nilerr // it was asked to end
	}
	return fmt.Errorf("discovery service: %w", err)
}

// admit keeps one address from taking more than members need.
func (s *Service) admit(ctx context.Context) error {
	host := "unknown"
	if p, ok := peer.FromContext(ctx); ok {
		if h, _, err := net.SplitHostPort(p.Addr.String()); err == nil {
			host = h
		}
	}
	s.mu.Lock()
	l := s.callers[host]
	if l == nil {
		if len(s.callers) >= maxAddresses {
			clear(s.callers)
		}
		l = rate.NewLimiter(perSecond, burst)
		s.callers[host] = l
	}
	s.mu.Unlock()
	if !l.Allow() {
		return status.Error(codes.ResourceExhausted, "too many requests from this address: try again in a second")
	}
	return nil
}

// sweep removes tokens a day after they have expired; they are not answered before.
func (s *Service) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := s.sweepOnce(ctx); err != nil && ctx.Err() == nil {
			s.opts.Logger.WarnContext(ctx, "remove expired discovery tokens", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *Service) sweepOnce(ctx context.Context) error {
	tokens, err := List(ctx, s.opts.Store)
	if err != nil {
		return err
	}
	for _, t := range tokens {
		if s.opts.Now().Before(t.Expires) {
			continue
		}
		if err := Delete(ctx, s.opts.Store, t.Name); err != nil && !errors.Is(err, ErrUnknown) && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrConflict) {
			return err
		}
		s.opts.Logger.InfoContext(ctx, "discovery token has expired", slog.String("secret", t.Name), slog.Int("registered", len(t.Members)), slog.Int("size", t.Size))
	}
	return nil
}

// Range implements pb.KVServer: the size of a cluster, or the members that have come.
func (s *Service) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	p, err := checkRange(r)
	if err != nil {
		return nil, err
	}
	t, err := load(ctx, s.opts.Store, p.token, s.opts.Now())
	if errors.Is(err, ErrUnknown) {
		// As an etcd without such a key: a member then says that the size is not found.
		return &pb.RangeResponse{Header: header(1)}, nil
	}
	if err != nil {
		return nil, s.unavailable(ctx, err)
	}
	resp := &pb.RangeResponse{Header: header(t.revision())}
	if p.size {
		resp.Kvs = []*mvccpb.KeyValue{{
			Key: r.GetKey(), Value: fmt.Append(nil, t.Size), CreateRevision: firstRevision, ModRevision: firstRevision, Version: 1,
		}}
	} else {
		resp.Kvs = t.keys(0)
	}
	resp.Count = int64(len(resp.Kvs))
	return resp, nil
}

// keys are the registrations from a revision on.
func (t *Token) keys(from int64) []*mvccpb.KeyValue {
	var kvs []*mvccpb.KeyValue
	for i, m := range t.Members {
		if rev := firstRevision + 1 + int64(i); rev >= from {
			kvs = append(kvs, &mvccpb.KeyValue{
				Key: []byte(root + t.Token + "/members/" + m.ID), Value: []byte(m.Value), CreateRevision: rev, ModRevision: rev, Version: 1,
			})
		}
	}
	return kvs
}

func header(revision int64) *pb.ResponseHeader { return &pb.ResponseHeader{Revision: revision} }

// Put implements pb.KVServer: a member registers itself.
func (s *Service) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	p, err := checkPut(r)
	if err != nil {
		return nil, err
	}
	var t *Token
	err = store.Mutate(ctx, s.opts.Store, keyOf(nameOf(p.token)), &v1alpha1.Secret{}, func(secret *v1alpha1.Secret) (bool, error) {
		var loadErr error
		if t, loadErr = matching(secret, p.token, s.opts.Now()); loadErr != nil {
			return false, loadErr
		}
		added, full := t.register(p.id, string(r.GetValue()))
		if full != nil || !added {
			return false, full
		}
		return true, t.into(secret)
	})
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, ErrUnknown):
		return nil, status.Error(codes.NotFound, "there is no such discovery token: it was never made, has expired or was deleted")
	case errors.Is(err, ErrFull):
		// Not an error: a member that is told one tries for ever, whereas one that does not
		// find itself among the first ends with "cluster is full".
		s.opts.Logger.WarnContext(ctx, "one member too many for a discovery token", slog.String("token", short(p.token)), slog.String("member", string(r.GetValue())))
		return &pb.PutResponse{Header: header(t.revision())}, nil
	case errors.Is(err, store.ErrInvalid):
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	case err != nil:
		return nil, s.unavailable(ctx, err)
	}
	s.opts.Logger.InfoContext(ctx, "registered a founding member", slog.String("token", short(p.token)),
		slog.String("member", string(r.GetValue())), slog.Int("registered", len(t.Members)), slog.Int("size", t.Size))
	s.wake(p.token)
	return &pb.PutResponse{Header: header(t.revision())}, nil
}

// register adds a member; the same one may come again.
func (t *Token) register(id, value string) (added bool, err error) {
	for _, m := range t.Members {
		if m.ID != id {
			continue
		}
		if m.Value != value {
			return false, fmt.Errorf("member %s has registered as %s already: %w", id, m.Value, store.ErrInvalid)
		}
		return false, nil
	}
	if len(t.Members) >= t.Size {
		return false, ErrFull
	}
	t.Members = append(t.Members, Registration{ID: id, Value: value})
	return true, nil
}

func (s *Service) unavailable(ctx context.Context, err error) error {
	s.opts.Logger.WarnContext(ctx, "a discovery token could not be read or written", slog.Any("error", err))
	return status.Error(codes.Unavailable, "the discovery service can't reach its store: try again")
}

// wake tells those who wait for members of a token that one has come.
func (s *Service) wake(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.waiting[token]; c != nil {
		close(c)
		delete(s.waiting, token)
	}
}

// next is closed when the next member of a token comes.
func (s *Service) next(token string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.waiting[token]
	if c == nil {
		c = make(chan struct{})
		s.waiting[token] = c
	}
	return c
}

// newKey is what the tokens of clusters are made with.
func newKey() []byte {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	return key
}
