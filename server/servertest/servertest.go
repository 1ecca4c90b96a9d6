// Package servertest runs the API on a store of its own, for tests of the server
// and of its clients.
package servertest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/etcd"
	"github.com/quorate/quorate/store/remote"
	"github.com/quorate/quorate/store/remote/wire"
)

// Fixture is a running API.
type Fixture struct {
	// URL of the API.
	URL string
	// Store behind it.
	Store *etcd.Store
	// Server and its listener.
	Server *server.Server
	HTTP   *httptest.Server
	Hosts  *server.Hosts
	// Fleet and the other engines are played.
	Fleet *Fleet

	active atomic.Int64

	mu       sync.Mutex
	position *store.Position
	tokens   int
}

// New starts an API on a new store and ends it with t. Tweak may change the
// options, or be nil.
func New(tb testing.TB, tweak func(*server.Options)) *Fixture {
	tb.Helper()
	dir := tb.TempDir()
	keys, err := etcd.CreateKeyring(filepath.Join(dir, "keyring.json"), time.Now())
	if err != nil {
		tb.Fatalf("make a keyring: %v", err)
	}
	log := slog.New(slog.DiscardHandler)
	st, err := etcd.Open(tb.Context(), etcd.Options{Dir: filepath.Join(dir, "store"), Keyring: keys, SpoolDir: dir, Logger: log})
	if err != nil {
		tb.Fatalf("open the store: %v", err)
	}
	tb.Cleanup(func() {
		if err = st.Close(); err != nil {
			tb.Errorf("close the store: %v", err)
		}
	})
	epoch, err := st.Epoch(tb.Context())
	if err != nil {
		tb.Fatalf("read the epoch: %v", err)
	}
	f := &Fixture{Store: st, Hosts: server.NewHosts(), Fleet: &Fleet{}}
	opts := server.Options{
		Store: st, Events: st, Validator: server.Schema{}, Fleet: f.Fleet, Certificates: Certificates{}, Releases: Releases{},
		Hosts: f.Hosts, Version: "v0.0.0-test", Logger: log,
		Position: func() store.Position {
			return f.at(store.Position{Epoch: epoch.Number, EpochID: epoch.ID, Revision: st.Revision()})
		},
		Snapshot: func(ctx context.Context, w io.Writer) error {
			_, failed := st.Snapshot(ctx, w)
			return failed
		},
	}
	if tweak != nil {
		tweak(&opts)
	}
	if f.Server, err = server.New(opts); err != nil {
		tb.Fatalf("make the server: %v", err)
	}
	ctx, stop := context.WithCancel(tb.Context())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		f.Server.Run(ctx)
	}()
	handler := f.Server.Handler()
	f.HTTP = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.active.Add(1)
		defer f.active.Add(-1)
		handler.ServeHTTP(w, r)
	}))
	f.URL = f.HTTP.URL
	tb.Cleanup(func() {
		stop()
		<-stopped
		f.HTTP.CloseClientConnections()
		f.HTTP.Close()
	})
	return f
}

// Active is how many requests the API is answering.
func (f *Fixture) Active() int64 { return f.active.Load() }

// at is the position the API claims.
func (f *Fixture) at(real store.Position) store.Position {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.position != nil {
		return *f.position
	}
	return real
}

// Claim makes the API claim a position; nil lets it be truthful again.
func (f *Fixture) Claim(p *store.Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.position = p
}

// Token makes a token.
func (f *Fixture) Token(tb testing.TB, role server.Role, host string) string {
	tb.Helper()
	f.mu.Lock()
	f.tokens++
	name := fmt.Sprintf("%s-%d", role, f.tokens)
	f.mu.Unlock()
	plain, err := server.EnsureToken(tb.Context(), f.Store, name, role, host)
	if err != nil {
		tb.Fatalf("make the token %s: %v", name, err)
	}
	return plain
}

// Client makes a client with a token of its own.
func (f *Fixture) Client(tb testing.TB, role server.Role, host string, opts remote.Options) *remote.Client {
	tb.Helper()
	return f.ClientAt(tb, f.URL, f.Token(tb, role, host), opts)
}

// ClientAt makes a client that reaches the API by another way.
func (f *Fixture) ClientAt(tb testing.TB, url, token string, opts remote.Options) *remote.Client {
	tb.Helper()
	c, err := remote.New(remote.Config{Server: url, Token: token}, opts)
	if err != nil {
		tb.Fatalf("make a client: %v", err)
	}
	tb.Cleanup(c.Close)
	return c
}

// Cluster is a valid cluster.
func Cluster(namespace, name string) *v1alpha1.EtcdCluster {
	c := &v1alpha1.EtcdCluster{}
	c.Namespace, c.Name = namespace, name
	c.Spec.Version = "3.7.3"
	return c
}

// Member is a valid member.
func Member(namespace, name, host string) *v1alpha1.EtcdMember {
	m := &v1alpha1.EtcdMember{}
	m.Namespace, m.Name, m.Finalizers = namespace, name, []string{v1alpha1.FinalizerMember}
	m.Spec.ClusterName, m.Spec.Host = "c", host
	m.Spec.Release = v1alpha1.ReleaseRef{Version: "3.7.3", Digest: Digest}
	return m
}

// Host is a valid host.
func Host(name string) *v1alpha1.EtcdHost {
	h := &v1alpha1.EtcdHost{}
	h.Name, h.Spec.Address = name, "127.0.0.1"
	return h
}

// Create stores objects.
func (f *Fixture) Create(tb testing.TB, objs ...v1alpha1.Object) {
	tb.Helper()
	for _, obj := range objs {
		if err := (server.Schema{}).Default(obj); err != nil {
			tb.Fatalf("default: %v", err)
		}
		if err := f.Store.Create(tb.Context(), obj); err != nil {
			tb.Fatalf("create: %v", err)
		}
	}
}

// Fleet plays the fleet.
type Fleet struct {
	mu       sync.Mutex
	accepted []string
}

// PlanToken names the only plan there is.
const PlanToken = "f00d"

// Plan plans one step, on the name of the cluster's release.
func (*Fleet) Plan(_ context.Context, key store.Key, proposed *v1alpha1.EtcdCluster) (v1alpha1.Plan, error) {
	p := v1alpha1.Plan{Namespace: key.Namespace, Cluster: key.Name, Token: PlanToken}
	if proposed != nil {
		p.Steps = []v1alpha1.PlanStep{{Action: v1alpha1.ActionCreateMember, Member: key.Name + "-0", Reason: proposed.Spec.Version}}
	}
	return p, nil
}

// View shows one member that answers.
func (*Fleet) View(_ context.Context, key store.Key) (v1alpha1.ClusterView, error) {
	return v1alpha1.ClusterView{
		Namespace: key.Namespace, Cluster: key.Name, AskedAt: v1alpha1.MicroTime{Time: time.Now()},
		State: v1alpha1.StateHealthy, Leader: key.Name + "-0",
		Members: []v1alpha1.MemberView{{Name: key.Name + "-0", Healthy: true, Answered: true, Role: v1alpha1.RoleLeader}},
	}, nil
}

// Placement places one member, on a host named after the cluster's release.
func (*Fleet) Placement(_ context.Context, key store.Key, proposed *v1alpha1.EtcdCluster) (v1alpha1.Placement, error) {
	p := v1alpha1.Placement{Namespace: key.Namespace, Cluster: key.Name, Members: []v1alpha1.PlacedMember{}}
	if proposed != nil {
		p.Members = append(p.Members, v1alpha1.PlacedMember{Member: key.Name + "-1", Host: "host-" + proposed.Spec.Version, Reason: "it is the only one"})
	}
	return p, nil
}

// Rebalance suggests nothing.
func (*Fleet) Rebalance(context.Context) (v1alpha1.Rebalance, error) {
	return v1alpha1.Rebalance{Suggestions: []v1alpha1.Suggestion{}}, nil
}

// Usage is of one host without capacity.
func (*Fleet) Usage(_ context.Context, by string) (v1alpha1.Usage, error) {
	if by != "host" {
		return v1alpha1.Usage{}, fmt.Errorf("usage by %q: %w", by, store.ErrInvalid)
	}
	row := v1alpha1.UsageRow{Name: "host-1", Hosts: 1, Members: 2, Requested: v1alpha1.NewResources(500, 1<<30, 0)}
	return v1alpha1.Usage{By: by, Rows: []v1alpha1.UsageRow{row}, Total: row}, nil
}

// Accept takes PlanToken.
func (f *Fleet) Accept(_ context.Context, key store.Key, token string) error {
	if token != PlanToken {
		return fmt.Errorf("the plan of %s: %w: read it again", key, store.ErrConflict)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.accepted = append(f.accepted, key.String())
	return nil
}

// Accepted lists the clusters whose plans were accepted.
func (f *Fleet) Accepted() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.accepted...)
}

// Certificates plays a CA that says what it was asked.
type Certificates struct{}

// SignMember says what it was asked.
func (Certificates) SignMember(_ context.Context, m *v1alpha1.EtcdMember, h *v1alpha1.EtcdHost, usage pki.Usage, csr []byte) (pki.Bundle, error) {
	return pki.Bundle{Certificate: fmt.Appendf(nil, "%s of %s at %s for %s", usage, m.Name, h.Spec.Address, csr), CA: []byte("ca")}, nil
}

// SignClient says what it was asked.
func (Certificates) SignClient(_ context.Context, c *v1alpha1.EtcdCluster, csr []byte, ttl time.Duration) (pki.Bundle, []string, error) {
	return pki.Bundle{Certificate: fmt.Appendf(nil, "client of %s for %s, %s", c.Name, csr, ttl), CA: []byte("ca")}, []string{"https://127.0.0.1:2379"}, nil
}

// Digest of the only release there is.
const Digest = "sha256:0000000000000000000000000000000000000000000000000000000000000001"

// Releases plays a catalog of one release.
type Releases struct{}

// List lists it.
func (Releases) List(context.Context) ([]wire.Release, error) {
	return []wire.Release{{Version: "3.7.3", Digest: Digest, Platform: "linux/amd64"}}, nil
}

// Open reads it.
func (Releases) Open(_ context.Context, digest string) (io.ReadCloser, int64, error) {
	if digest != Digest {
		return nil, 0, fmt.Errorf("release %s: %w", digest, store.ErrNotFound)
	}
	text := []byte("an executable")
	return io.NopCloser(bytes.NewReader(text)), int64(len(text)), nil
}

// Add says how much it was given.
func (Releases) Add(_ context.Context, archive io.Reader, version, _ string) (wire.Release, error) {
	n, err := io.Copy(io.Discard, archive)
	return wire.Release{Version: version, Digest: Digest, Source: fmt.Sprintf("%d bytes", n)}, err
}
