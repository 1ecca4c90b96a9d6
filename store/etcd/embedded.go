package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"

	"github.com/quorate/quorate/store"
)

const (
	memberName = "quorate"
	// peerURL is the member's address in its own list of members. Nothing listens
	// on it and nobody dials it.
	peerURL = "http://localhost:2380"

	// A member alone elects itself after one to two election timeouts.
	tickMs     = 50
	electionMs = 250

	quotaBytes = 8 << 30
	// No follower ever needs old raft entries, and they stand in memory.
	snapshotCount   = 2000
	catchUpEntries  = 100
	compactionKeeps = "1h"

	startTimeout = 60 * time.Second
	stopTimeout  = 10 * time.Second
	// failedTimeout is how long an etcd that could not go on is waited for: it is most
	// likely stuck.
	failedTimeout = time.Second
)

// embedded is an etcd of one member in this process, without a listener.
type embedded struct {
	dir   string
	etcd  *embed.Etcd
	lock  *lockFile
	ready atomic.Bool

	// broken ends when etcd could not go on.
	broken context.Context // what requests are bounded by
	ended  context.CancelFunc
	mu     sync.Mutex
	cause  error
}

func newEmbedded(ctx context.Context, dir string) *embedded {
	e := &embedded{dir: dir}
	e.broken, e.ended = context.WithCancel(context.WithoutCancel(ctx))
	return e
}

// startEmbedded takes the lock of dir, checks its files, and starts an etcd on it,
// beginning a new store unless one is known to have been there.
func startEmbedded(ctx context.Context, dir string, known bool, log *slog.Logger) (*embedded, error) {
	if err := os.MkdirAll(parent(dir), 0o700); err != nil {
		return nil, fmt.Errorf("the data directory: %w", err)
	}
	l, err := lock(dir)
	if err != nil {
		return nil, err
	}
	e, err := launch(ctx, dir, known, log)
	if err != nil {
		return nil, errors.Join(err, l.release())
	}
	e.lock = l
	return e, nil
}

// launch is startEmbedded for who has the lock.
func launch(ctx context.Context, dir string, known bool, log *slog.Logger) (*embedded, error) {
	if err := preflight(dir, known); err != nil {
		return nil, err
	}
	e := newEmbedded(ctx, dir)
	if err := e.start(newZap(ctx, log, &e.ready, e.halt)); err != nil {
		return nil, fmt.Errorf("start the store's etcd on %s: %w: if its files are damaged, %s", dir, err, restoreHint)
	}
	if err := e.waitReady(ctx); err != nil {
		return nil, errors.Join(err, e.stop())
	}
	e.ready.Store(true)
	return e, nil
}

func config(dir string, log *zap.Logger) *embed.Config {
	cfg := embed.NewConfig()
	cfg.Name = memberName
	cfg.Dir = dir
	cfg.InitialCluster = memberName + "=" + peerURL
	cfg.ListenPeerUrls, cfg.ListenClientUrls, cfg.ListenMetricsUrls = nil, nil, nil
	cfg.TickMs, cfg.ElectionMs = tickMs, electionMs
	cfg.QuotaBackendBytes = quotaBytes
	cfg.SnapshotCount, cfg.SnapshotCatchUpEntries = snapshotCount, catchUpEntries
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, compactionKeeps
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(log)
	return cfg
}

func (e *embedded) start(log *zap.Logger) error {
	return e.guard(func() (err error) {
		e.etcd, err = embed.StartEtcd(config(e.dir, log))
		return err
	})
}

// guard runs fn in a goroutine of its own, since what etcd can't bear ends that
// goroutine, and damaged files can make it panic. Both are returned as errors.
func (e *embedded) guard(fn func() error) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("%w: %v", ErrCorrupt, p)
			}
		}()
		debug.SetPanicOnFault(true)
		err = fn()
	}()
	<-done
	if err == nil {
		err = e.failure()
	}
	return err
}

func (e *embedded) waitReady(ctx context.Context) error {
	timer := time.NewTimer(startTimeout)
	defer timer.Stop()
	select {
	case <-e.etcd.Server.ReadyNotify():
		return nil
	case <-e.broken.Done():
		return e.failure()
	case <-e.etcd.Server.StopNotify():
		return fmt.Errorf("the store's etcd on %s stopped while starting: see the log", e.dir)
	case <-timer.C:
		return fmt.Errorf("%w: its etcd on %s was not ready after %s: is the disk too slow?", store.ErrUnavailable, e.dir, startTimeout)
	case <-ctx.Done():
		return fmt.Errorf("%w: its etcd on %s was still starting: %w", store.ErrUnavailable, e.dir, ctx.Err())
	}
}

func (e *embedded) client() *clientv3.Client { return v3client.New(e.etcd.Server) }

// halt keeps the first thing that etcd could not bear.
func (e *embedded) halt(message string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cause != nil {
		return
	}
	e.cause = fmt.Errorf("its etcd on %s could not go on: %s: check the disk's space, rights and health, then start quorate again", e.dir, message)
	e.ended()
}

func (e *embedded) failure() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cause
}

// stop stops etcd and lets go of the directory.
func (e *embedded) stop() error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.etcd.Close()
	}()
	timeout := stopTimeout
	if e.failure() != nil {
		timeout = failedTimeout
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		// The lock stays held until the process ends: what still runs may still write.
		return fmt.Errorf("the store's etcd on %s did not stop within %s: end this process", e.dir, timeout)
	}
	if e.lock == nil {
		return nil
	}
	return e.lock.release()
}
