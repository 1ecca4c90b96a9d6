package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

// Limits of a request.
const (
	maxBody     = 4 << 20
	maxHeader   = 64 << 10
	maxUpload   = 1 << 30
	headerTime  = 10 * time.Second
	idleTime    = 2 * time.Minute
	requestTime = 30 * time.Second
	// stallTime is how long a client may take to send or to accept a piece of a
	// body before it is cut off.
	stallTime    = 30 * time.Second
	shutdownTime = 5 * time.Second
)

// Validator knows what a valid object is.
type Validator interface {
	// Decode reads one object of the kind from JSON, strictly: a field that the kind
	// does not have is an error.
	Decode(kind v1alpha1.Kind, data []byte) (v1alpha1.Object, error)
	// Read is Decode without that strictness: what the kind does not have is dropped.
	// An agent may be newer than its server.
	Read(kind v1alpha1.Kind, data []byte) (v1alpha1.Object, error)
	// Default fills in what was left out.
	Default(obj v1alpha1.Object) error
	// Validate checks obj; old is what it replaces, or nil.
	Validate(ctx context.Context, obj, old v1alpha1.Object) error
}

// Events are recorded and read again.
type Events interface {
	store.Recorder
	store.EventLog
}

// Fleet knows what would be done to a cluster.
type Fleet interface {
	// Plan returns the plan of the cluster at key as stored or, when proposed is not
	// nil, as it would be with that spec. A proposed cluster need not exist.
	Plan(ctx context.Context, key store.Key, proposed *v1alpha1.EtcdCluster) (v1alpha1.Plan, error)
	// View asks the members of the cluster at key what they are at this moment.
	View(ctx context.Context, key store.Key) (v1alpha1.ClusterView, error)
	// Placement says where the members of the cluster at key stand and would come, as
	// stored or as proposed. A proposed cluster need not exist.
	Placement(ctx context.Context, key store.Key, proposed *v1alpha1.EtcdCluster) (v1alpha1.Placement, error)
	// Rebalance says what would place the fleet's members better.
	Rebalance(ctx context.Context) (v1alpha1.Rebalance, error)
	// Usage adds up what members ask for and use. ErrInvalid for an unknown grouping.
	Usage(ctx context.Context, by string) (v1alpha1.Usage, error)
	// Accept lets the cluster at key go on after a restore. ErrConflict when the plan
	// is no longer the one that token names.
	Accept(ctx context.Context, key store.Key, token string) error
}

// Certificates signs what members and clients ask for.
type Certificates interface {
	SignMember(ctx context.Context, m *v1alpha1.EtcdMember, host *v1alpha1.EtcdHost, usage pki.Usage, csr []byte) (pki.Bundle, error)
	SignClient(ctx context.Context, c *v1alpha1.EtcdCluster, csr []byte, ttl time.Duration) (bundle pki.Bundle, endpoints []string, err error)
}

// Releases holds the etcd releases that members run.
type Releases interface {
	List(ctx context.Context) ([]wire.Release, error)
	// Open reads the executable with that digest and returns its size in bytes.
	Open(ctx context.Context, digest string) (io.ReadCloser, int64, error)
	// Add takes an archive as upstream publishes it; version and sha256 (of the
	// archive, in hex) are checked where they are not empty.
	Add(ctx context.Context, archive io.Reader, version, sha256 string) (wire.Release, error)
}

// Options of a Server. All fields are required unless they say otherwise.
type Options struct {
	Store  store.Store
	Events Events
	// Position returns how far the store has come. It never goes back while the
	// process lives.
	Position  func() store.Position
	Validator Validator
	// Admit checks what the schema can't know, such as whether a release exists. Old
	// is nil for a creation, obj is nil for a deletion. May be nil.
	Admit func(ctx context.Context, obj, old v1alpha1.Object) error
	Fleet Fleet
	// Restores previews restores. May be nil.
	Restores     Restores
	Certificates Certificates
	Releases     Releases
	// Snapshot writes a backup of the store.
	Snapshot func(ctx context.Context, w io.Writer) error
	// RestoreData opens the backup that the member is to be formed from: a snapshot as etcd
	// sends it, decompressed, and its size in bytes, 0 or less where that is not known.
	// Reading ends with ctx. May be nil: there is no way to backups then.
	RestoreData func(ctx context.Context, m *v1alpha1.EtcdMember) (io.ReadCloser, int64, error)
	// RotateKey replaces the key that seals Secrets, and returns how many were sealed
	// anew. May be nil.
	RotateKey func(ctx context.Context) (int, error)
	// Console makes what answers every request whose path is not the API's own; it is
	// given the API to call in this process. May be nil: such paths are not found then.
	Console func(api http.Handler) http.Handler
	// Front returns what the API is known by to those who reach it over TLS. May be nil:
	// no agent can join then.
	Front func() Front
	// AgentValidity is how long the certificates of agents last. Default: AgentValidity.
	AgentValidity time.Duration
	// Hosts is told of connected agents. Default: one of the server's own.
	Hosts *Hosts
	// Version of Quorate.
	Version string
	// Heartbeat of silent streams. Default: wire.Heartbeat.
	Heartbeat time.Duration
	// Logger. Default: none.
	Logger *slog.Logger
	// Registerer of metrics. Default: none.
	Registerer prometheus.Registerer
	// Gatherer of what /metrics tells. May be nil: there are no metrics then.
	Gatherer prometheus.Gatherer
}

// Server serves the API.
type Server struct {
	opts    Options
	log     *slog.Logger
	handler http.Handler
	tokens  *authenticator
	bound   *bindings
	hub     *hub
	metrics *metrics
	// identities tells agents by their certificates; audit records who was refused, and
	// live what agents have open.
	identities *identities
	audit      *audit
	live       *live
	// document makes the API's own description, once.
	document func() ([]byte, error)
	// console is nil where there is none; segments are what it leaves to the API.
	console  http.Handler
	segments map[string]bool
	// wrong holds the log-ins that wait, for wrongTime, because their code was wrong.
	wrong     chan struct{}
	wrongTime time.Duration
	// stall, head and patience are stallTime, headerTime and requestTime, or what a
	// test puts here.
	stall, head, patience time.Duration
	run                   sync.Once
}

// New makes a server. It serves nothing yet.
func New(o Options) (*Server, error) {
	missing := o.Store == nil || o.Events == nil || o.Position == nil || o.Validator == nil ||
		o.Fleet == nil || o.Certificates == nil || o.Releases == nil || o.Snapshot == nil
	if missing {
		return nil, errors.New("server: an option is missing: Store, Events, Position, Validator, Fleet, Certificates, Releases and Snapshot are required")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Hosts == nil {
		o.Hosts = NewHosts()
	}
	if o.AgentValidity <= 0 {
		o.AgentValidity = AgentValidity
	}
	if o.Heartbeat <= 0 {
		o.Heartbeat = wire.Heartbeat
	}
	m, err := newMetrics(o.Registerer, o.Hosts)
	if err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	s := &Server{
		opts: o, log: o.Logger, metrics: m, stall: stallTime, head: headerTime, patience: requestTime,
		tokens: newAuthenticator(o.Store), bound: newBindings(), hub: newHub(o.Hosts),
		wrong: make(chan struct{}, maxWrong), wrongTime: wrongTime,
		identities: &identities{store: o.Store, now: time.Now, validity: o.AgentValidity}, audit: newAudit(o), live: newLive(),
	}
	s.tokens.changed = s.secretChanged
	s.document = sync.OnceValues(func() ([]byte, error) { return buildDocument(s.routes()) })
	s.handler = s.build()
	if o.Console != nil {
		s.mount(o.Console(s.handler))
	}
	return s, nil
}

// Handler is the API, and the console if there is one, without a listener. Run must be running beside it, or agents
// are told of no member.
func (s *Server) Handler() http.Handler { return s.handler }

// Run keeps the caches fresh until ctx ends. Serve calls it; calling it again does
// nothing.
func (s *Server) Run(ctx context.Context) {
	s.run.Do(func() {
		var wg sync.WaitGroup
		wg.Go(func() { s.tokens.run(ctx) })
		wg.Go(func() { s.bound.run(ctx, s.opts.Store, s.log) })
		wg.Go(func() { s.sweepAll(ctx) })
		wg.Wait()
	})
}

// stopping is the key under which a request finds the context of Serve.
type stopping struct{}

// Serve serves the API on ln, which it closes, until ctx ends. Requests in flight
// are then given a few seconds; streams end at once, for their readers come back.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	running, stop := context.WithCancel(ctx)
	defer stop()
	go s.Run(running)
	detached := context.WithoutCancel(ctx)
	hs := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: s.head,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context {
			return context.WithValue(detached, stopping{}, running)
		},
	}
	failed := make(chan error, 1)
	go func() { failed <- hs.Serve(ln) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve the API on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(detached, shutdownTime)
	defer cancel()
	if err := hs.Shutdown(bounded); err != nil {
		return errors.Join(fmt.Errorf("serve the API on %s: requests were cut off: %w", ln.Addr(), err), hs.Close())
	}
	return nil
}

// streamContext is the context of a request that has no end of its own: it ends
// with the client and with the server.
func streamContext(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	running, ok := ctx.Value(stopping{}).(context.Context)
	if !ok {
		return ctx, cancel
	}
	release := context.AfterFunc(running, cancel)
	return ctx, func() {
		release()
		cancel()
	}
}
