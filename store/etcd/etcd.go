// Package etcd keeps the fleet's objects in etcd: one that runs inside this
// process, without a listener, or one that is reached over the network.
//
// An object stands at /quorate/objects/<plural>/<namespace>/<name> as JSON; its
// resourceVersion is the key's modification revision, and every write is a
// transaction that compares it. Secrets are sealed with a Keyring, so that neither
// the files nor a backup of them tell any. Events expire by etcd's leases.
//
// The store knows its own age: an epoch that each restore makes anew, and a marker
// file that tells a first start from a store whose files are gone. A store that
// existed is never silently begun again empty.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/store"
)

var (
	_ store.Store    = (*Store)(nil)
	_ store.Recorder = (*Store)(nil)
	_ store.EventLog = (*Store)(nil)
)

// requestTimeout bounds a request whose context has no deadline: some calls of
// etcd's client would otherwise wait for ever.
const requestTimeout = 30 * time.Second

// Options say where the store is. Either Dir or Endpoints is set.
type Options struct {
	// Dir is the data directory of an etcd that runs in this process. It is made if
	// it is missing. Beside it stands Dir+".lock", held while the store is open.
	Dir string

	// Endpoints are client URLs of an etcd that runs elsewhere.
	Endpoints []string
	// TLS towards Endpoints, or nil.
	TLS *tls.Config
	// Username and Password towards Endpoints, or empty.
	Username string
	Password string

	// Keyring seals Secrets. Required.
	Keyring *Keyring

	// MarkerFile remembers the store's position outside the store. Where it exists, a
	// store that is empty, another or older is refused. Empty means that nothing is
	// remembered, which is right only for stores that may be thrown away.
	MarkerFile string

	// SpoolDir is where Snapshot puts a temporary file the size of the store; empty
	// means the system's directory for temporary files.
	SpoolDir string
	// Version of quorate, for the manifest of snapshots.
	Version string

	// Logger takes what the store and its etcd have to say; nil means slog.Default.
	Logger *slog.Logger
	// Now tells the time; nil means time.Now.
	Now func() time.Time
}

// Store is a fleet store in etcd. It is safe for concurrent use.
type Store struct {
	opts    Options
	log     *slog.Logger
	now     func() time.Time
	keyring *Keyring
	client  *clientv3.Client
	server  *embedded // nil when the etcd is elsewhere

	revision atomic.Int64
	epoch    Epoch
	events   recorder
	decoded  decoded

	// watches is what Watch follows; tests put a breakable one here.
	watches clientv3.Watcher

	// life ends when the store is closed.
	life context.Context // the lifetime of the store's own goroutines
	end  context.CancelFunc
	once sync.Once
	err  error

	// spawning keeps new goroutines from being added while they are waited for.
	spawning sync.Mutex
	tasks    sync.WaitGroup

	rotating sync.Mutex
}

// Open opens the store, making a new one where none ever was.
//
// It fails when another process has Dir open, when the files are missing, damaged
// or older than the marker says, or when Endpoints can't be reached before ctx ends
// (store.ErrUnavailable). Nothing is changed then.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if (opts.Dir == "") == (len(opts.Endpoints) == 0) {
		return nil, errors.New("open the store: give either a data directory or endpoints")
	}
	if opts.Keyring == nil {
		return nil, errors.New("open the store: a keyring is required")
	}
	s := newStore(ctx, opts)
	if err := s.connect(ctx); err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	if err := s.begin(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open the store: %w", err), s.shut())
	}
	return s, nil
}

func newStore(ctx context.Context, opts Options) *Store {
	s := &Store{opts: opts, log: opts.Logger, now: opts.Now, keyring: opts.Keyring}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.events.limit = maxEvents
	// The store outlives the context it was opened with; Close ends it.
	s.life, s.end = context.WithCancel(context.WithoutCancel(ctx))
	return s
}

func (s *Store) connect(ctx context.Context) error {
	if s.opts.Dir == "" {
		client, err := dial(s.opts)
		if err != nil {
			return err
		}
		s.use(client)
		return nil
	}
	seen, err := readMarker(s.opts.MarkerFile)
	if err != nil {
		return err
	}
	server, err := startEmbedded(ctx, s.opts.Dir, seen != nil, s.log)
	if err != nil {
		return err
	}
	s.server = server
	s.use(server.client())
	return nil
}

func (s *Store) use(client *clientv3.Client) {
	client.KV = prompt{client.KV}
	s.client, s.watches = client, client
}

// begin finds the epoch, or makes the first, and holds it against the marker.
func (s *Store) begin(ctx context.Context) error {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	seen, err := readMarker(s.opts.MarkerFile)
	if err != nil {
		return err
	}
	epoch, err := s.loadEpoch(ctx)
	if errors.Is(err, store.ErrNotFound) && seen == nil {
		epoch, err = s.firstEpoch(ctx)
	}
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: it is empty, but %s says that it was at epoch %d: %s",
			ErrStoreLost, s.opts.MarkerFile, seen.Epoch, restoreHint)
	}
	if err != nil {
		return err
	}
	s.epoch = epoch
	if seen != nil {
		if err := s.position().Check(*seen); err != nil {
			return fmt.Errorf("%w (remembered in %s)", err, s.opts.MarkerFile)
		}
	}
	return writeMarker(s.opts.MarkerFile, s.position())
}

// Close ends every watch and stops the etcd if it runs in this process. It waits
// for at most some seconds; after a Failure it returns it, and the data directory
// may stay locked until the process ends. Closing again does nothing.
func (s *Store) Close() error {
	s.once.Do(func() {
		err := s.remember()
		s.err = errors.Join(s.Failure(), err, s.shut())
	})
	return s.err
}

// remember puts the position into the marker, unless the files have failed.
func (s *Store) remember() error {
	if s.Failure() == nil {
		return writeMarker(s.opts.MarkerFile, s.position())
	}
	return nil
}

func (s *Store) shut() error {
	s.spawning.Lock()
	s.end()
	s.spawning.Unlock()
	s.tasks.Wait()
	err := s.client.Close()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	if s.server != nil {
		err = errors.Join(err, s.server.stop())
	}
	return err
}

// Failed is closed when the etcd in this process could not go on, for instance
// because its disk was full. The store answers ErrUnavailable from then on, and
// Failure says why: close it, end the process, and start it again. Failed is nil for
// an etcd that runs elsewhere.
func (s *Store) Failed() <-chan struct{} {
	if s.server == nil {
		return nil
	}
	return s.server.broken.Done()
}

// Failure is why the etcd in this process could not go on, or nil.
func (s *Store) Failure() error {
	if s.server == nil {
		return nil
	}
	return s.server.failure()
}

// deadline bounds a request, also by the life of the store.
func (s *Store) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	timeout := requestTimeout
	if until, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(until))
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	stop := context.AfterFunc(s.life, cancel)
	if s.server == nil {
		return ctx, func() { stop(); cancel() }
	}
	// An etcd that could not go on would never answer.
	spare := context.AfterFunc(s.server.broken, cancel)
	return ctx, func() { spare(); stop(); cancel() }
}

// spawn runs fn until it returns; Close ends its context and waits for it.
func (s *Store) spawn(ctx context.Context, fn func(ctx context.Context)) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.life, cancel) //nolint:contextcheck // it is bound to both
	run := func() {
		defer cancel()
		defer stop()
		fn(ctx)
	}
	s.spawning.Lock()
	defer s.spawning.Unlock()
	if s.life.Err() != nil {
		// Its context has ended, so it only cleans up.
		cancel()
		go run()
		return
	}
	s.tasks.Go(run)
}

// saw keeps the newest revision seen.
func (s *Store) saw(revision int64) {
	for {
		old := s.revision.Load()
		if revision <= old || s.revision.CompareAndSwap(old, revision) {
			return
		}
	}
}
