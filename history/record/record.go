// Package record makes a history: clients that note what they ask of etcd, when,
// and what came of it.
//
// Each client has one connection to one endpoint and never asks twice by itself:
// a second attempt behind the caller's back would make one recorded call two
// changes. What is not known to have been refused is unknown. Refused is what etcd
// answers before it has changed anything, and what never left this process, which
// the transport itself tells.
package record

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/quorate/quorate/history"
)

// Log takes what is recorded at once, as a history.Writer does. Its methods are
// called at the same time; responses of one watch come in order, after the watch.
type Log interface {
	Operation(op *history.Operation) error
	Watch(w history.Watch) error
	Response(watch int, r *history.WatchResponse) error
}

// Options of a recorder.
type Options struct {
	// Log gets everything as it happens; nil for none.
	Log Log
	// Forget keeps nothing in memory: only the log has it.
	Forget bool
	// Began is when the history does, by the monotonic clock too; now where it is zero.
	Began time.Time
}

// Recorder collects what its clients see. It is safe for concurrent use.
type Recorder struct {
	began time.Time
	opts  Options

	mu         sync.Mutex
	operations []history.Operation
	watches    []*history.Watch
	// count of operations, and the last ID of a client or watch.
	count, ids int
	// failed is the first error of the log.
	failed error
}

// New returns a recorder.
func New(o Options) *Recorder {
	r := &Recorder{began: o.Began, opts: o}
	if r.began.IsZero() {
		r.began = time.Now()
	}
	return r
}

// Began is the wall clock that all times count from.
func (r *Recorder) Began() time.Time { return r.began }

// Now is the time in nanoseconds since the history began, by the monotonic clock.
func (r *Recorder) Now() int64 { return int64(time.Since(r.began)) }

// Err is the first error of the log: something is missing in it.
func (r *Recorder) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// Operations is how many were recorded.
func (r *Recorder) Operations() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

// History is what was recorded until now, in the order in which it ended.
func (r *Recorder) History(meta history.Meta) *history.History {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := &history.History{Meta: meta, Operations: append([]history.Operation(nil), r.operations...)}
	for _, w := range r.watches {
		c := *w
		c.Responses = append([]history.WatchResponse(nil), w.Responses...)
		h.Watches = append(h.Watches, c)
	}
	return h
}

// done notes a call that is over.
func (r *Recorder) done(op *history.Operation) {
	r.mu.Lock()
	r.count++
	if !r.opts.Forget {
		r.operations = append(r.operations, *op)
	}
	r.mu.Unlock()
	if r.opts.Log != nil {
		r.logged(r.opts.Log.Operation(op))
	}
}

// opened notes a watch and gives it its ID.
func (r *Recorder) opened(w history.Watch) *history.Watch {
	r.mu.Lock()
	r.ids++
	w.ID, w.Responses = r.ids, nil
	if w.Client == 0 {
		w.Client = w.ID
	}
	if !r.opts.Forget {
		r.watches = append(r.watches, &w)
	}
	r.mu.Unlock()
	if r.opts.Log != nil {
		header := w
		header.Responses = nil
		r.logged(r.opts.Log.Watch(header))
	}
	return &w
}

// heard notes a response of a watch.
func (r *Recorder) heard(w *history.Watch, resp *history.WatchResponse) {
	if !r.opts.Forget {
		r.mu.Lock()
		w.Responses = append(w.Responses, *resp)
		r.mu.Unlock()
	}
	if r.opts.Log != nil {
		r.logged(r.opts.Log.Response(w.ID, resp))
	}
}

func (r *Recorder) logged(err error) {
	if err == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		r.failed = err
	}
}

// Target is an endpoint, and how it is reached.
type Target struct {
	// Endpoint is a client URL.
	Endpoint string
	// TLS for https endpoints.
	TLS *tls.Config
	// User and Password log in where User is not empty.
	User     string
	Password string
	// Dial connects to HOST:PORT by another way than the machine's own; nil for that.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// Client asks one endpoint and records it. It is safe for concurrent use, but what
// is recorded under its ID then overlaps.
type Client struct {
	rec      *Recorder
	id       int
	endpoint string

	etcd  *clientv3.Client
	kv    pb.KVClient
	lease pb.LeaseClient
	watch pb.WatchClient
}

// Dial returns a client of one endpoint, with an ID of its own. It connects in the
// background; ctx bounds the login alone, where there is a user. The error is that of
// the options or of a login that was refused.
func (r *Recorder) Dial(ctx context.Context, t Target) (*Client, error) {
	options := []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithStatsHandler(sentHandler{}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)),
	}
	if t.TLS != nil && t.TLS.ServerName != "" {
		// The client would look for the URL's host in the certificate all the same.
		options = append(options, grpc.WithAuthority(t.TLS.ServerName))
	}
	if t.Dial != nil {
		options = append(options, grpc.WithContextDialer(t.Dial))
	}
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{t.Endpoint}, TLS: t.TLS, Username: t.User, Password: t.Password,
		MaxUnaryRetries: 1, // the first attempt is the only one
		DialTimeout:     2 * time.Second, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
		Logger: zap.NewNop(), DialOptions: options,
	})
	if err != nil {
		return nil, fmt.Errorf("dial etcd at %s: %w", t.Endpoint, err)
	}
	if t.User != "" {
		// The first call would come without a token and be refused. Whoever is down now
		// is asked for one when it is back.
		_, err = pb.NewKVClient(c.ActiveConnection()).Range(ctx, &pb.RangeRequest{Key: []byte("/"), CountOnly: true, Serializable: true})
		if errors.Is(rpctypes.Error(err), rpctypes.ErrAuthFailed) {
			return nil, errors.Join(fmt.Errorf("log in at %s as %s: etcd does not know the user with this password", t.Endpoint, t.User), c.Close())
		}
	}
	conn := c.ActiveConnection()
	return &Client{
		rec: r, id: r.id(), endpoint: t.Endpoint,
		etcd: c, kv: pb.NewKVClient(conn), lease: pb.NewLeaseClient(conn), watch: pb.NewWatchClient(conn),
	}, nil
}

func (r *Recorder) id() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ids++
	return r.ids
}

// Twin returns another client, with an ID of its own, on the same connection.
func (c *Client) Twin() *Client {
	twin := *c
	twin.id = c.rec.id()
	return &twin
}

// Under returns this client recording under the ID of another: the two are one, which
// asks at one endpoint at a time.
func (c *Client) Under(other *Client) *Client {
	under := *c
	under.id = other.id
	return &under
}

// ID under which it records.
func (c *Client) ID() int { return c.id }

// Endpoint that it asks.
func (c *Client) Endpoint() string { return c.endpoint }

// Etcd is the connection, for what is not to be recorded. It tries each call once.
func (c *Client) Etcd() *clientv3.Client { return c.etcd }

// Close ends the connection, also under its twins.
func (c *Client) Close() error { return c.etcd.Close() }
