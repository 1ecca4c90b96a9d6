package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/internal/version"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/release"
	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/store"
	storeetcd "github.com/quorate/quorate/store/etcd"
	"github.com/quorate/quorate/store/remote"
)

// DefaultListen is where a server listens unless told otherwise.
const DefaultListen = "127.0.0.1:7379"

// adminToken is the token of the server's own user.
const adminToken = "admin"

// ServerOptions say how a server runs.
type ServerOptions struct {
	// DataDir holds everything the server keeps.
	DataDir string
	// Listen is the API's address; DefaultListen by default.
	Listen string
	// TLSCertFile and TLSKeyFile serve the API with TLS: required unless Listen is a
	// loopback address.
	TLSCertFile, TLSKeyFile string
	// TLSCAFile holds the roots in PEM that agents are told to trust; by default what the
	// last certificate in TLSCertFile says.
	TLSCAFile string
	// TLSSelfMade serves the API with a certificate of a CA of the server's own, which is
	// made in DataDir and renewed by itself. TLSNames are further DNS names and addresses
	// for it, beside that of Listen.
	TLSSelfMade bool
	TLSNames    []string
	// AgentValidity is how long agents' certificates last; server.AgentValidity by
	// default.
	AgentValidity time.Duration
	// StoreEndpoints keep the fleet's store in an etcd that runs elsewhere.
	StoreEndpoints []string
	// StoreCAFile, StoreCertFile, StoreKeyFile, StoreUser and StorePasswordFile are
	// how it is reached.
	StoreCAFile, StoreCertFile, StoreKeyFile, StoreUser, StorePasswordFile string
	// SealingKeyFile holds the keys that seal Secrets; by default server/sealing.key
	// in DataDir.
	SealingKeyFile string
	// DiscoveryListen serves the discovery service of clusters of mode Discovery; none by
	// default. DiscoveryURL is where members reach it; https:// and DiscoveryListen by
	// default.
	DiscoveryListen, DiscoveryURL string
	// DNSListen answers for the domains of clusters of mode DNS; none by default.
	DNSListen string
	Logger    *slog.Logger
}

// Server is the control plane of a fleet.
type Server struct {
	opts     ServerOptions
	paths    paths
	store    *storeetcd.Store
	epoch    storeetcd.Epoch
	pool     *etcd.Pool
	api      *server.Server
	listener net.Listener
	clusters *fleet.ClusterController
	backups  *fleet.BackupController
	restores *fleet.RestoreController
	hosts    *server.Hosts
	client   remote.Config
	meetings *meetings
	// front is how the API proves itself; nil without TLS.
	front *front
	// ending is closed when Run is about to end.
	ending chan struct{}
}

// NewServer opens the store and the API's listener. Close it, or Run it.
func NewServer(ctx context.Context, opts ServerOptions) (_ *Server, err error) {
	if opts.Listen == "" {
		opts.Listen = DefaultListen
	}
	s := &Server{opts: opts, paths: paths(opts.DataDir), hosts: server.NewHosts(), pool: etcd.NewPool(), ending: make(chan struct{})}
	if opts.SealingKeyFile == "" {
		s.opts.SealingKeyFile = s.paths.sealingKey()
	}
	if err = os.MkdirAll(s.paths.server(), 0o700); err != nil {
		return nil, fmt.Errorf("the server needs its data directory: %w: choose another with --data-dir", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err = s.listen(ctx); err != nil {
		return nil, err
	}
	releases, err := openCatalog(ctx, s.paths.releases(), release.Options{Logger: opts.Logger})
	if err != nil {
		return nil, err
	}
	if err = s.openStore(ctx); err != nil {
		return nil, err
	}
	if s.meetings, err = openMeetings(ctx, opts, s.store); err != nil {
		return nil, err
	}
	if err = s.compose(releases); err != nil {
		return nil, err
	}
	return s, s.writeClient(ctx)
}

func (s *Server) listen(ctx context.Context) (err error) {
	var config *tls.Config
	if s.opts.TLSSelfMade || s.opts.TLSCertFile != "" || s.opts.TLSKeyFile != "" {
		if s.front, err = openFront(s.opts, s.paths.tls()); err != nil {
			return err
		}
		config = s.front.config(func(ctx context.Context) (*x509.CertPool, error) { return s.api.AgentRoots(ctx) }) //nolint:contextcheck // each handshake has its own
	}
	s.listener, err = server.Listen(ctx, s.opts.Listen, config)
	return err
}

// openStore opens the fleet's store. A keyring is made only where there never was
// a store: with a new one, an old store's Secrets could not be opened.
func (s *Server) openStore(ctx context.Context) error {
	keys, err := storeetcd.OpenKeyring(s.opts.SealingKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		if _, statErr := os.Stat(s.paths.marker()); statErr == nil {
			return fmt.Errorf("the sealing key %s is gone, and without it the store's Secrets can't be opened: put it back from where you keep a copy: %w",
				s.opts.SealingKeyFile, err)
		}
		keys, err = storeetcd.CreateKeyring(s.opts.SealingKeyFile, time.Now())
	}
	if err != nil {
		return err
	}
	o := storeetcd.Options{
		Keyring: keys, MarkerFile: s.paths.marker(), SpoolDir: s.paths.server(), Version: version.Version(), Logger: s.opts.Logger,
	}
	if len(s.opts.StoreEndpoints) == 0 {
		o.Dir = s.paths.store()
	} else {
		o.Endpoints, o.Username = s.opts.StoreEndpoints, s.opts.StoreUser
		if o.TLS, o.Password, err = s.storeCredentials(); err != nil {
			return err
		}
	}
	if s.store, err = storeetcd.Open(ctx, o); err != nil {
		return err
	}
	s.epoch, err = s.store.Epoch(ctx)
	return err
}

func (s *Server) storeCredentials() (config *tls.Config, password string, err error) {
	read := func(file string) []byte {
		if file == "" || err != nil {
			return nil
		}
		var raw []byte
		raw, err = os.ReadFile(file) //nolint:gosec // the operator names the file
		return raw
	}
	ca, cert, key, pass := read(s.opts.StoreCAFile), read(s.opts.StoreCertFile), read(s.opts.StoreKeyFile), read(s.opts.StorePasswordFile)
	if err != nil {
		return nil, "", fmt.Errorf("credentials of the store: %w", err)
	}
	if ca != nil || cert != nil {
		if config, err = pki.ClientTLS(cert, key, ca); err != nil {
			return nil, "", fmt.Errorf("credentials of the store: %w", err)
		}
	}
	for len(pass) > 0 && (pass[len(pass)-1] == '\n' || pass[len(pass)-1] == '\r') {
		pass = pass[:len(pass)-1]
	}
	return config, string(pass), nil
}

func (s *Server) compose(releases catalog) (err error) {
	authority := fleet.NewSecretAuthority(s.store)
	s.clusters = fleet.NewClusterController(fleet.Options{
		Store: s.store, Etcd: fleet.NewProber(s.pool, authority), Authority: authority, Releases: releases,
		Recorder: s.store, Logger: s.opts.Logger, Meeting: s.meetings.meeting(),
	})
	metrics := prometheus.NewRegistry()
	if err = s.composeBackups(authority, releases, metrics); err != nil {
		return err
	}
	var noConsole error
	s.api, err = server.New(server.Options{
		Store: s.store, Events: s.store, Position: s.position, Validator: server.Schema{},
		Admit:    admission{store: s.store, releases: releases}.admit,
		Restores: s.restores,
		Fleet:    s.clusters, Certificates: authority, Releases: &server.Catalog{Releases: releases.Catalog, Spool: s.paths.server()},
		Snapshot: func(ctx context.Context, w io.Writer) error {
			_, snapErr := s.store.Snapshot(ctx, w)
			return snapErr
		},
		RotateKey:   s.store.RotateKey,
		RestoreData: s.restores.Open,
		Hosts:       s.hosts, Version: version.Version(), Logger: s.opts.Logger,
		Front: s.known, AgentValidity: s.opts.AgentValidity,
		Console:    s.console(&noConsole),
		Registerer: metrics, Gatherer: metrics,
	})
	return errors.Join(err, noConsole)
}

// known is what the API is known by over TLS.
func (s *Server) known() server.Front {
	if s.front == nil {
		return server.Front{}
	}
	return s.front.known()
}

// position of the store. Its epoch was read when it was opened, and only a restore
// changes it, which needs the store closed.
func (s *Server) position() store.Position {
	return store.Position{Epoch: s.epoch.Number, EpochID: s.epoch.ID, Revision: s.store.Revision()}
}

// writeClient makes sure that the server's own user can reach it.
func (s *Server) writeClient(ctx context.Context) error {
	file := ClientConfigFile(s.opts.DataDir)
	s.client = remote.Config{Server: s.URL()}
	token, err := server.EnsureToken(ctx, s.store, adminToken, server.RoleAdmin, "")
	if err != nil {
		return err
	}
	if token == "" {
		if known, loadErr := remote.LoadConfig(file); loadErr == nil {
			token = known.Token
		}
	}
	if token == "" {
		// The file is gone: whoever can write here may make a new token.
		if token, err = server.ResetToken(ctx, s.store, adminToken, server.RoleAdmin, ""); err != nil {
			return err
		}
	}
	s.client.Token = token
	if s.front != nil {
		s.client.CAFile = s.front.trustFile()
	}
	return s.client.Save(file)
}

// URL of the API, as it is reached from this machine.
func (s *Server) URL() string {
	scheme, addr := "http", s.listener.Addr().String()
	if s.front != nil {
		scheme = "https"
	}
	if tcp, ok := s.listener.Addr().(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(tcp.Port))
	}
	return scheme + "://" + addr
}

// Run serves until ctx ends, and closes the server.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(ctx, func() { close(s.ending) })
	var wg sync.WaitGroup
	clusters := fleet.Runner{
		Name: "cluster", Reconcile: s.clusters.Reconcile, Workers: 8, Logger: s.opts.Logger,
		Sources: []fleet.Source{s.watch(v1alpha1.KindCluster), s.clustersOfMembers, s.clustersOfHosts, s.clustersOfRestores},
	}
	hostController := fleet.HostController{
		Store: s.store, Recorder: s.store, Logger: s.opts.Logger, LastSeen: s.hosts.LastSeen, Now: time.Now,
	}
	hosts := fleet.Runner{
		Name: "host", Reconcile: hostController.Reconcile, Workers: 2, Logger: s.opts.Logger,
		Sources: []fleet.Source{hostController.Anew(s.watch(v1alpha1.KindHost))},
	}
	wg.Go(func() { clusters.Run(ctx) })
	wg.Go(func() { hosts.Run(ctx) })
	wg.Go(func() { s.importedRunner().Run(ctx) })
	wg.Go(func() { s.policyRunner().Run(ctx) })
	wg.Go(func() { s.backupRunner().Run(ctx) })
	wg.Go(func() { s.restoreRunner().Run(ctx) })
	failed := make(chan error, 2)
	wg.Go(func() {
		failed <- s.api.Serve(ctx, s.listener)
		cancel()
	})
	wg.Go(func() {
		failed <- s.meetings.run(ctx, s.opts.Logger)
		cancel()
	})
	var err error
	select {
	case <-s.store.Failed():
		err = fmt.Errorf("the store failed: %w", s.store.Failure())
	case <-ctx.Done():
	}
	cancel()
	wg.Wait()
	return errors.Join(err, <-failed, <-failed, s.Close())
}

func (s *Server) watch(kind v1alpha1.Kind) fleet.Source {
	return func(ctx context.Context) <-chan store.Key { return s.store.Watch(ctx, kind, "") }
}

// clustersOfMembers yields the cluster of each member that changes.
func (s *Server) clustersOfMembers(ctx context.Context) <-chan store.Key {
	out := make(chan store.Key)
	go func() {
		defer close(out)
		for key := range s.store.Watch(ctx, v1alpha1.KindMember, "") {
			cluster := store.Key{Namespace: key.Namespace, Name: clusterOf(key.Name)}
			select {
			case out <- cluster:
			case <-ctx.Done():
			}
		}
	}()
	return out
}

// clusterOf is the cluster that a member's name begins with: the object may be
// gone when its key comes.
func clusterOf(member string) string {
	for i := len(member) - 1; i > 0; i-- {
		if member[i] == '-' {
			return member[:i]
		}
	}
	return member
}

// clustersOfRestores yields the cluster of each restore that changes.
func (s *Server) clustersOfRestores(ctx context.Context) <-chan store.Key {
	out := make(chan store.Key)
	go func() {
		defer close(out)
		for key := range s.store.Watch(ctx, v1alpha1.KindRestore, "") {
			r := &v1alpha1.EtcdRestore{}
			if s.store.Get(ctx, key, r) != nil {
				continue // a cluster that waits for it looks again by itself
			}
			select {
			case out <- store.Key{Namespace: key.Namespace, Name: r.Spec.ClusterName}:
			case <-ctx.Done():
			}
		}
	}()
	return out
}

// clustersOfHosts yields every cluster when a host changes: one that waits for a
// host must not wait for its next turn.
func (s *Server) clustersOfHosts(ctx context.Context) <-chan store.Key {
	out := make(chan store.Key)
	go func() {
		defer close(out)
		for range s.store.Watch(ctx, v1alpha1.KindHost, "") {
			clusters, err := s.store.List(ctx, v1alpha1.KindCluster, store.ListOptions{})
			if err != nil {
				continue
			}
			for _, c := range clusters {
				select {
				case out <- store.KeyOf(c):
				case <-ctx.Done():
				}
			}
		}
	}()
	return out
}

// Close lets go of everything; a second call does nothing.
func (s *Server) Close() error {
	var errs []error
	if s.listener != nil {
		if err := s.listener.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	errs = append(errs, s.meetings.close(), s.pool.Close())
	if s.store != nil {
		errs = append(errs, s.store.Close())
		s.store = nil
	}
	return errors.Join(errs...)
}

// RunServer runs a server until ctx ends. Ready is told the API's URL once it can
// be used.
func RunServer(ctx context.Context, opts ServerOptions, ready func(url string)) error {
	s, err := NewServer(ctx, opts)
	if err != nil {
		return err
	}
	if ready != nil {
		ready(s.URL())
	}
	return s.Run(ctx)
}
