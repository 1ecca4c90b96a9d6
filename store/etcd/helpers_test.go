package etcd

import (
	"context"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// home is a place for a store: its directory, its marker and its keyring.
type home struct {
	dir, marker, keyring string
}

func newHome(t *testing.T) home {
	t.Helper()
	at := t.TempDir()
	h := home{filepath.Join(at, "store"), filepath.Join(at, "store.epoch"), filepath.Join(at, "keyring.json")}
	if _, err := CreateKeyring(h.keyring, time.Now()); err != nil {
		t.Fatalf("CreateKeyring: %v", err)
	}
	return h
}

func (h home) options(t *testing.T) Options {
	t.Helper()
	k, err := OpenKeyring(h.keyring)
	if err != nil {
		t.Fatalf("OpenKeyring: %v", err)
	}
	return Options{
		Dir: h.dir, MarkerFile: h.marker, Keyring: k, SpoolDir: filepath.Dir(h.dir),
		Logger: slog.New(slog.DiscardHandler), Version: "v0.0.0-test",
	}
}

func (h home) open(t *testing.T) *Store {
	t.Helper()
	return open(t, h.options(t))
}

func open(t *testing.T, opts Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { closeStore(t, s) })
	return s
}

func closeStore(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func (s *Store) compact(t *testing.T) {
	t.Helper()
	if _, err := s.client.Compact(t.Context(), s.Revision(), clientv3.WithCompactPhysical()); err != nil {
		t.Fatalf("Compact: %v", err)
	}
}

// breakable is a watcher that can be cut off.
type breakable struct {
	clientv3.Watcher

	mu     sync.Mutex
	broken bool
	cancel []context.CancelFunc
}

func (b *breakable) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken {
		closed := make(chan clientv3.WatchResponse)
		close(closed)
		return closed
	}
	ctx, cancel := context.WithCancel(ctx)
	b.cancel = append(b.cancel, cancel)
	return b.Watcher.Watch(ctx, key, opts...)
}

func (b *breakable) disconnect() (reconnect func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.broken = true
	for _, cancel := range b.cancel {
		cancel()
	}
	b.cancel = nil
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.broken = false
	}
}

// remote starts an etcd with a listener and returns its address.
func remote(t *testing.T) string {
	t.Helper()
	cfg := config(t.TempDir(), zap.NewNop())
	cfg.ListenClientUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatalf("start etcd: %v", err)
	}
	t.Cleanup(e.Close)
	<-e.Server.ReadyNotify()
	return e.Clients[0].Addr().String()
}

// line is a TCP proxy that can be cut.
type line struct {
	net.Listener
	target string

	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

func newLine(t *testing.T, target string) *line {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	p := &line{Listener: l, target: target}
	t.Cleanup(func() { p.disconnect(); _ = l.Close() })
	go p.serve(t.Context())
	return p
}

func (p *line) serve(ctx context.Context) {
	for {
		in, err := p.Accept()
		if err != nil {
			return
		}
		out, err := new(net.Dialer).DialContext(ctx, "tcp", p.target)
		if err != nil {
			_ = in.Close()
			continue
		}
		p.mu.Lock()
		if p.cut {
			_, _ = in.Close(), out.Close()
		} else {
			p.conns = append(p.conns, in, out)
			go pipe(in, out)
			go pipe(out, in)
		}
		p.mu.Unlock()
	}
}

func pipe(to, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			_, _ = to.Close(), from.Close()
			return
		}
	}
}

func (p *line) disconnect() (reconnect func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.cut = false
	}
}

func newSecret(name string, data map[string]string) *v1alpha1.Secret {
	s := &v1alpha1.Secret{StringData: data}
	s.Namespace, s.Name = "prod", name
	return s
}

func newCluster(name string) *v1alpha1.EtcdCluster {
	c := &v1alpha1.EtcdCluster{}
	c.Namespace, c.Name = "prod", name
	c.Spec.Version = "3.7.3"
	return c
}

func mustCreate(t *testing.T, s *Store, objs ...v1alpha1.Object) {
	t.Helper()
	for _, obj := range objs {
		if err := s.Create(t.Context(), obj); err != nil {
			t.Fatalf("Create: %v", err)
		}
	}
}

// value reads one value of a Secret.
func value(t *testing.T, s *Store, name, field string) string {
	t.Helper()
	got := &v1alpha1.Secret{}
	if err := s.Get(t.Context(), store.Key{Namespace: "prod", Name: name}, got); err != nil {
		t.Fatalf("Get: %v", err)
	}
	return string(got.Data[field])
}

func withRevision(revision int64) clientv3.OpOption {
	return func(op *clientv3.Op) {
		clientv3.WithPrefix()(op)
		clientv3.WithRev(revision)(op)
	}
}
