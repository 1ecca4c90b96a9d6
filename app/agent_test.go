package app_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/app"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/internal/version"
	"github.com/quorate/quorate/release"
	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/servertest"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
	"github.com/quorate/quorate/test/etcdlab"
)

// cutOnce gives half of raw and then breaks, the first time.
type cutOnce struct {
	raw   []byte
	tries atomic.Int32
}

func (c *cutOnce) open(context.Context, *v1alpha1.EtcdMember) (io.ReadCloser, int64, error) {
	size := int64(len(c.raw))
	if c.tries.Add(1) == 1 {
		return io.NopCloser(io.MultiReader(bytes.NewReader(c.raw[:size/2]), broken{})), size, nil
	}
	return io.NopCloser(bytes.NewReader(c.raw)), size, nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("the bucket is gone") }

// TestAgentRestores: an agent makes a member's data from what the server sends, also
// after that broke off, and its etcd has the keys.
func TestAgentRestores(t *testing.T) {
	t.Parallel()
	old := etcdlab.New(t, etcdlab.Options{Members: 1}).Ready().Members[0].Dial()
	_, err := old.Put(t.Context(), "kept", "in a backup")
	must(t, err)
	snapshot, err := old.Snapshot(t.Context())
	must(t, err)
	raw, err := io.ReadAll(snapshot)
	must(t, errors.Join(err, snapshot.Close()))
	source := &cutOnce{raw: raw}
	f := servertest.New(t, func(o *server.Options) { o.RestoreData = source.open })

	dir := t.TempDir()
	releases, err := release.Open(dir+"/releases", release.Options{})
	must(t, err)
	builtin, err := releases.AddBuiltin(t.Context(), version.Etcd(), "/proc/self/exe")
	must(t, err)
	m := servertest.Member("prod", "m", "h")
	m.Spec.Release = v1alpha1.ReleaseRef{Version: builtin.Version, Digest: builtin.Digest}
	m.Spec.TLS.Mode, m.Spec.Run, m.Spec.RestoreName = v1alpha1.TLSDisabled, v1alpha1.RunPrepared, "back"
	f.Create(t, m)
	token := f.Token(t, server.RoleAgent, "h")
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		ended := app.RunAgent(ctx, app.AgentOptions{
			DataDir: dir, Host: "h", Address: "127.0.0.1", FirstPort: 22379, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
			Client: remote.Config{Server: f.URL, Token: token},
		})
		if ended != nil && ctx.Err() == nil {
			t.Errorf("the agent ended: %v", ended)
		}
	})
	defer func() { stop(); running.Wait() }()

	until(t, f, m, v1alpha1.ConditionPrepared)
	change(t, f, m, func(m *v1alpha1.EtcdMember) {
		m.Spec.Ports = m.Status.Ports
		m.Spec.Bootstrap = &v1alpha1.Bootstrap{
			State: v1alpha1.BootstrapRestored, Token: "t", InitialCluster: []v1alpha1.Peer{{Name: m.Name, URL: m.Status.PeerURL}},
		}
	})
	until(t, f, m, v1alpha1.ConditionRestored)
	if n := source.tries.Load(); n != 2 {
		t.Errorf("the snapshot was asked for %d times", n)
	}
	change(t, f, m, func(m *v1alpha1.EtcdMember) { m.Spec.Run = v1alpha1.RunRunning })
	until(t, f, m, v1alpha1.ConditionRunning)
	c, err := etcd.Dial(etcd.Target{Endpoint: m.Status.ClientURL})
	must(t, err)
	etcdlab.Until(t, "the key of the backup", func(ctx context.Context) error {
		r, failed := c.Get(ctx, "kept")
		if failed == nil && (len(r.Kvs) != 1 || string(r.Kvs[0].Value) != "in a backup") {
			t.Errorf("read %v", r.Kvs)
		}
		return failed
	})
	must(t, c.Close())
	reasons := map[string]int{}
	events, err := f.Store.Events(t.Context(), store.EventOptions{Namespace: "prod"})
	must(t, err)
	for _, e := range events {
		reasons[e.Reason]++
	}
	if reasons["RestoreStarted"] != 1 || reasons["RestoreFailed"] != 1 || reasons["RestoreCompleted"] != 1 {
		t.Errorf("events %v", reasons)
	}
	must(t, f.Store.Delete(t.Context(), v1alpha1.KindMember, store.KeyOf(m), store.Preconditions{UID: m.UID}))
	etcdlab.Until(t, "the end of the member", func(ctx context.Context) error {
		if err := f.Store.Get(ctx, store.KeyOf(m), &v1alpha1.EtcdMember{}); !errors.Is(err, store.ErrNotFound) {
			return errors.Join(err, errors.New("it is there"))
		}
		return nil
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until waits for a condition of m, which is read into it.
func until(t *testing.T, f *servertest.Fixture, m *v1alpha1.EtcdMember, condition string) {
	t.Helper()
	etcdlab.Until(t, condition, func(ctx context.Context) error {
		if err := f.Store.Get(ctx, store.KeyOf(m), m); err != nil {
			return err
		}
		if !v1alpha1.IsTrue(m.Status.Conditions, condition) {
			return errors.New(m.Status.Message)
		}
		return nil
	})
}

func change(t *testing.T, f *servertest.Fixture, m *v1alpha1.EtcdMember, do func(*v1alpha1.EtcdMember)) {
	t.Helper()
	must(t, store.Mutate(t.Context(), f.Store, store.KeyOf(m), m, func(m *v1alpha1.EtcdMember) (bool, error) { do(m); return true, nil }))
}
