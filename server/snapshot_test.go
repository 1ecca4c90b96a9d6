package server_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/servertest"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
	"github.com/quorate/quorate/store/remote/wire"
)

// archive plays the backups.
type archive struct {
	// body and size are what the next reader gets, or err.
	body io.Reader
	size int64
	err  error

	opened, closed atomic.Int32
	// ended is closed when the context of the latest reading ends.
	ended chan struct{}
	of    string
}

func (a *archive) open(ctx context.Context, m *v1alpha1.EtcdMember) (io.ReadCloser, int64, error) {
	a.opened.Add(1)
	a.of = m.Name + " " + m.Spec.RestoreName
	ended := make(chan struct{})
	a.ended = ended
	context.AfterFunc(ctx, func() { close(ended) })
	if a.err != nil {
		return nil, 0, a.err
	}
	return archived{a.body, a}, a.size, nil
}

type archived struct {
	io.Reader

	from *archive
}

func (a archived) Close() error {
	a.from.closed.Add(1)
	return nil
}

// waiting is a member on h1 that waits for its data.
func waiting(name string) *v1alpha1.EtcdMember {
	m := servertest.Member("prod", name, "h1")
	m.Spec.Run, m.Spec.RestoreName = v1alpha1.RunPrepared, "back"
	m.Spec.Bootstrap = &v1alpha1.Bootstrap{
		State: v1alpha1.BootstrapRestored, Token: "t", InitialCluster: []v1alpha1.Peer{{Name: name, URL: "http://127.0.0.1:1"}},
	}
	return m
}

func withArchive(t *testing.T) (*servertest.Fixture, *archive) {
	t.Helper()
	a := &archive{}
	return servertest.New(t, func(o *server.Options) { o.RestoreData = a.open }), a
}

func TestRestoreData(t *testing.T) {
	f, a := withArchive(t)
	f.Create(t, waiting("m"))
	key := store.Key{Namespace: "prod", Name: "m"}
	agent := f.Client(t, server.RoleAgent, "h1", remote.Options{})
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for name, size := range map[string]int64{"known": int64(len(data)), "unknown": 0} {
		a.body, a.size = bytes.NewReader(data), size
		r, told, err := agent.RestoreData(t.Context(), key)
		fine(t, "RestoreData", err)
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, data) || a.of != "m back" {
			t.Errorf("size %s: %d bytes for %q, %v", name, len(got), a.of, err)
		}
		if told != size && (size != 0 || told != -1) {
			t.Errorf("size %s: told %d", name, told)
		}
		fine(t, "Close", r.Close())
		<-a.ended
	}
	if opened, closed := a.opened.Load(), a.closed.Load(); opened != 2 || closed != 2 {
		t.Errorf("%d opened, %d closed", opened, closed)
	}
	a.err = errors.New("the bucket is gone")
	if _, _, err := agent.RestoreData(t.Context(), key); err == nil || !strings.Contains(err.Error(), "the bucket is gone") {
		t.Errorf("a backup that can't be read: %v", err)
	}
}

// TestRestoreDataIsForItsAgent: a backup holds every key, so that nobody else's agent
// and no viewer reads it, and its own only while the member waits for it.
func TestRestoreDataIsForItsAgent(t *testing.T) {
	f, a := withArchive(t)
	f.Create(t, waiting("m"))
	key := store.Key{Namespace: "prod", Name: "m"}
	for name, c := range map[string]*remote.Client{
		"the agent of another host": f.Client(t, server.RoleAgent, "h2", remote.Options{}),
		"a viewer":                  f.Client(t, server.RoleViewer, "", remote.Options{}),
	} {
		_, _, err := c.RestoreData(t.Context(), key)
		refused(t, name, err)
	}
	own := f.Client(t, server.RoleAgent, "h1", remote.Options{})
	if _, _, err := own.RestoreData(t.Context(), store.Key{Namespace: "prod", Name: "none"}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a member there is none of: %v", err)
	}
	for name, change := range map[string]func(m *v1alpha1.EtcdMember){
		"no-bootstrap":  func(m *v1alpha1.EtcdMember) { m.Spec.Bootstrap = nil },
		"a-new-cluster": func(m *v1alpha1.EtcdMember) { m.Spec.Bootstrap.State = v1alpha1.BootstrapNew },
		"it-runs":       func(m *v1alpha1.EtcdMember) { m.Spec.Run = v1alpha1.RunRunning },
		"it-stops":      func(m *v1alpha1.EtcdMember) { m.Spec.Run = v1alpha1.RunStopped },
		"it-has-joined": func(m *v1alpha1.EtcdMember) { m.Spec.MemberID = "a" },
		"it-was-restored": func(m *v1alpha1.EtcdMember) {
			v1alpha1.SetCondition(&m.Status.Conditions, v1alpha1.Condition{Type: v1alpha1.ConditionRestored, Status: v1alpha1.True, Reason: "Restored"})
		},
		"a-process": func(m *v1alpha1.EtcdMember) { m.Status.Process = &v1alpha1.ProcessStatus{PID: 1} },
	} {
		m := waiting(name)
		change(m)
		status := m.Status
		f.Create(t, m)
		m.Status = status
		fine(t, "update the status", f.Store.UpdateStatus(t.Context(), m))
		if _, _, err := own.RestoreData(t.Context(), store.KeyOf(m)); !errors.Is(err, store.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	gone := waiting("gone")
	f.Create(t, gone)
	fine(t, "delete", f.Store.Delete(t.Context(), v1alpha1.KindMember, store.KeyOf(gone), store.Preconditions{UID: gone.UID}))
	if _, _, err := own.RestoreData(t.Context(), store.KeyOf(gone)); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a member that is being deleted: %v", err)
	}
	if n := a.opened.Load(); n > 0 {
		t.Errorf("%d backups were opened", n)
	}
	without := servertest.New(t, nil)
	without.Create(t, waiting("m"))
	if _, _, err := without.Client(t, server.RoleAgent, "h1", remote.Options{}).RestoreData(t.Context(), key); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a server without backups: %v", err)
	}
}

// TestRestoreDataBroken: what breaks off never ends well, whoever reads it.
func TestRestoreDataBroken(t *testing.T) {
	f, a := withArchive(t)
	f.Create(t, waiting("m"))
	agent := f.Client(t, server.RoleAgent, "h1", remote.Options{})
	token := f.Token(t, server.RoleAgent, "h1")
	half := bytes.Repeat([]byte("x"), 1<<20)
	for name, c := range map[string]struct {
		size int64
		end  error
	}{
		"size known":          {2 << 20, errors.New("the bucket is gone")},
		"size unknown":        {0, errors.New("the bucket is gone")},
		"short":               {2 << 20, io.EOF},
		"broken like an end":  {0, io.ErrUnexpectedEOF},
		"broken at the start": {2 << 20, nil},
	} {
		set := func() {
			a.size = c.size
			a.body = io.MultiReader(bytes.NewReader(half), iotest.ErrReader(c.end))
			if c.end == nil {
				a.body = iotest.ErrReader(errors.New("the bucket is gone"))
			}
		}
		set()
		r, _, err := agent.RestoreData(t.Context(), store.Key{Namespace: "prod", Name: "m"})
		fine(t, "RestoreData", err)
		if n, err := io.Copy(io.Discard, r); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
		fine(t, "Close", r.Close())
		// Without the client that knows how a server fails, over the network and in this
		// process.
		for way, transport := range map[string]http.RoundTripper{"plain": http.DefaultTransport, "in process": server.InProcess(f.Server.Handler())} {
			set()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.URL+wire.ObjectPath(v1alpha1.KindMember, "prod", "m", "snapshot"), nil)
			fine(t, "make the request", err)
			req.Header.Set("Authorization", "Bearer "+token)
			resp, err := transport.RoundTrip(req)
			fine(t, way, err)
			if n, err := io.Copy(io.Discard, resp.Body); err == nil || resp.StatusCode != http.StatusOK {
				t.Errorf("%s, %s: %s, %d bytes and a good end", name, way, resp.Status, n)
			}
			_ = resp.Body.Close()
		}
	}
	if opened, closed := a.opened.Load(), a.closed.Load(); opened != closed {
		t.Errorf("%d opened, %d closed", opened, closed)
	}
}

// TestRestoreDataHangUp: what an agent no longer reads is no longer read for it.
func TestRestoreDataHangUp(t *testing.T) {
	f, a := withArchive(t)
	f.Create(t, waiting("m"))
	a.body = zeros{}
	r, size, err := f.Client(t, server.RoleAgent, "h1", remote.Options{}).RestoreData(t.Context(), store.Key{Namespace: "prod", Name: "m"})
	fine(t, "RestoreData", err)
	if _, err := io.ReadFull(r, make([]byte, 1<<20)); err != nil || size != -1 {
		t.Fatalf("read: %v; size %d", err, size)
	}
	fine(t, "Close", r.Close())
	ended(t, "the reading", a.ended)
	eventually(t, "the backup is closed", func() bool { return a.closed.Load() == 1 })
}
