package server_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/servertest"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// log plays the log of a member: what is written to it is read by one reader.
type log struct {
	*io.PipeReader

	once   sync.Once
	closed chan struct{}
}

func newLog() (*log, *io.PipeWriter) {
	r, w := io.Pipe()
	return &log{PipeReader: r, closed: make(chan struct{})}, w
}

func (l *log) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.PipeReader.Close()
}

// agent runs the agent's side for h1 until stop.
func agent(t *testing.T, f *servertest.Fixture, handle remote.Handler) (stop func()) {
	t.Helper()
	c := f.Client(t, server.RoleAgent, "h1", remote.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Serve(ctx, "h1", handle)
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	eventually(t, "the agent is connected", func() bool { return f.Hosts.Connected("h1") })
	return stop
}

func withMember(t *testing.T) (*servertest.Fixture, *remote.Client, store.Key) {
	t.Helper()
	f := servertest.New(t, nil)
	m := servertest.Member("prod", "m", "h1")
	f.Create(t, m)
	return f, f.Client(t, server.RoleViewer, "", remote.Options{}), store.KeyOf(m)
}

func ended(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(15 * time.Second):
		t.Fatalf("not within 15 s: %s", what)
	}
}

func TestLog(t *testing.T) {
	f, viewer, key := withMember(t)
	got := make(chan remote.Request, 1)
	agent(t, f, func(_ context.Context, req remote.Request) (io.ReadCloser, error) {
		got <- req
		return io.NopCloser(strings.NewReader("one\ntwo\n")), nil
	})
	r, err := viewer.Logs(t.Context(), key, remote.LogOptions{Source: "error", Tail: 7})
	fine(t, "Logs", err)
	text, err := io.ReadAll(r)
	if err != nil || string(text) != "one\ntwo\n" {
		t.Fatalf("read %q, %v", text, err)
	}
	fine(t, "Close", r.Close())
	req := <-got
	if req.Kind != remote.RequestLog || req.Member.Name != "m" || req.Member.Namespace != "prod" || req.Member.UID == "" ||
		req.Log != (remote.LogOptions{Source: "error", Tail: 7}) {
		t.Fatalf("asked %+v", req)
	}
	if f.Server.Calls() != 0 {
		t.Fatal("the call is still there")
	}
	if _, err := viewer.Logs(t.Context(), store.Key{Namespace: "prod", Name: "none"}, remote.LogOptions{}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the log of a member there is none of: %v", err)
	}
	if _, err := viewer.Logs(t.Context(), key, remote.LogOptions{Source: "passwd"}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("an unknown source: %v", err)
	}
}

// TestFollow: lines come as they are written, and a reader that goes away ends the
// agent's reading, though nothing is being written.
func TestFollow(t *testing.T) {
	f, viewer, key := withMember(t)
	l, w := newLog()
	agent(t, f, func(context.Context, remote.Request) (io.ReadCloser, error) { return l, nil })
	r, err := viewer.Logs(t.Context(), key, remote.LogOptions{Tail: -1, Follow: true})
	fine(t, "Logs", err)
	for _, line := range []string{"one\n", "two\n"} {
		_, err := io.WriteString(w, line)
		fine(t, "write", err)
		buf := make([]byte, len(line))
		if _, err := io.ReadFull(r, buf); err != nil || string(buf) != line {
			t.Fatalf("read %q, %v", buf, err)
		}
	}
	fine(t, "Close", r.Close())
	ended(t, "the agent stops reading the log", l.closed)
}

// TestFollowCancelled: as TestFollow, by the reader's context.
func TestFollowCancelled(t *testing.T) {
	f, viewer, key := withMember(t)
	l, _ := newLog()
	agent(t, f, func(context.Context, remote.Request) (io.ReadCloser, error) { return l, nil })
	ctx, cancel := context.WithCancel(t.Context())
	r, err := viewer.Logs(ctx, key, remote.LogOptions{Follow: true})
	fine(t, "Logs", err)
	cancel()
	if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
	_ = r.Close()
	ended(t, "the agent stops reading the log", l.closed)
}

// TestAgentGone: what is cut short never looks complete.
func TestAgentGone(t *testing.T) {
	f, viewer, key := withMember(t)
	l, w := newLog()
	stop := agent(t, f, func(context.Context, remote.Request) (io.ReadCloser, error) { return l, nil })
	r, err := viewer.Logs(t.Context(), key, remote.LogOptions{Follow: true})
	fine(t, "Logs", err)
	_, err = io.WriteString(w, "one\n")
	fine(t, "write", err)
	buf := make([]byte, 4)
	_, err = io.ReadFull(r, buf)
	fine(t, "read", err)
	stop()
	rest, err := io.ReadAll(r)
	if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), `host "h1" broke off`) || len(rest) > 0 {
		t.Fatalf("read %q, %v", rest, err)
	}
	eventually(t, "the agent counts as gone", func() bool { return !f.Hosts.Connected("h1") })
	_, err = viewer.Logs(t.Context(), key, remote.LogOptions{})
	if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), `no agent is connected for host "h1"`) {
		t.Fatalf("without an agent: %v", err)
	}
}

// TestServerGone: an agent whose server is gone stops reading a log, though
// nothing is being written, and serves again once there is a server.
func TestServerGone(t *testing.T) {
	f, viewer, key := withMember(t)
	l, _ := newLog()
	logs := make(chan io.ReadCloser, 2)
	logs <- l
	logs <- io.NopCloser(strings.NewReader("again\n"))
	agent(t, f, func(context.Context, remote.Request) (io.ReadCloser, error) { return <-logs, nil })
	r, err := viewer.Logs(t.Context(), key, remote.LogOptions{Follow: true})
	fine(t, "Logs", err)
	f.HTTP.CloseClientConnections()
	ended(t, "the agent stops reading the log", l.closed)
	if _, err := io.ReadAll(r); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("the reader saw %v", err)
	}
	_ = r.Close()
	var text []byte
	eventually(t, "the agent is back", func() bool {
		again, err := viewer.Logs(t.Context(), key, remote.LogOptions{})
		if err != nil {
			return false
		}
		defer func() { _ = again.Close() }()
		text, err = io.ReadAll(again)
		return err == nil
	})
	if string(text) != "again\n" {
		t.Fatalf("read %q", text)
	}
}

func TestAgentErrors(t *testing.T) {
	f, viewer, key := withMember(t)
	l, w := newLog()
	agent(t, f, func(_ context.Context, req remote.Request) (io.ReadCloser, error) {
		if req.Log.Source == "error" {
			return nil, errors.New("there is no such file\nreally")
		}
		return l, nil
	})
	_, err := viewer.Logs(t.Context(), key, remote.LogOptions{Source: "error"})
	if err == nil || !strings.Contains(err.Error(), "there is no such file") || !strings.Contains(err.Error(), "h1") {
		t.Fatalf("an agent's error: %v", err)
	}
	r, err := viewer.Logs(t.Context(), key, remote.LogOptions{})
	fine(t, "Logs", err)
	go func() {
		_, _ = io.WriteString(w, "one\n")
		_ = w.CloseWithError(errors.New("the disk\nis gone"))
	}()
	text, err := io.ReadAll(r)
	if err == nil || !strings.Contains(err.Error(), "the disk is gone") || string(text) != "one\n" {
		t.Fatalf("read %q, %v", text, err)
	}
}

// TestSilentAgent: an agent that takes a request and never answers costs the
// reader a bounded time.
func TestSilentAgent(t *testing.T) {
	f, viewer, key := withMember(t)
	f.Server.SetAnswerTime(100 * time.Millisecond)
	agent(t, f, func(ctx context.Context, _ remote.Request) (io.ReadCloser, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	_, err := viewer.Logs(t.Context(), key, remote.LogOptions{})
	if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "did not answer within 100ms") {
		t.Fatalf("Logs: %v", err)
	}
}

// TestForeignAnswer: no one else can answer for a host.
func TestForeignAnswer(t *testing.T) {
	f, viewer, key := withMember(t)
	ids := make(chan string, 1)
	l, w := newLog()
	agent(t, f, func(ctx context.Context, req remote.Request) (io.ReadCloser, error) {
		ids <- req.ID
		<-ctx.Done()
		return l, ctx.Err()
	})
	go func() { _ = w.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := viewer.Logs(ctx, key, remote.LogOptions{})
		failed <- err
	}()
	id := <-ids
	intruder := f.Token(t, server.RoleAgent, "h2")
	if resp, _ := ask(t, f, intruder, "POST", "/agents/h1/responses/"+id, "forged"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("by h1's path: %s", resp.Status)
	}
	if resp, _ := ask(t, f, intruder, "POST", "/agents/h2/responses/"+id, "forged"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("by its own path: %s", resp.Status)
	}
	if resp, _ := ask(t, f, intruder, "GET", "/agents/h1/requests", ""); resp.StatusCode != http.StatusForbidden {
		t.Errorf("listening in: %s", resp.Status)
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Fatalf("Logs: %v", err)
	}
}

// TestLastSeen: only what an agent sends counts.
func TestLastSeen(t *testing.T) {
	f := servertest.New(t, nil)
	began := time.Now()
	if !f.Hosts.LastSeen("h1").IsZero() {
		t.Fatal("seen before it came")
	}
	stop := agent(t, f, func(context.Context, remote.Request) (io.ReadCloser, error) { return nil, errors.New("no") })
	if seen := f.Hosts.LastSeen("h1"); seen.Before(began) {
		t.Fatalf("last seen %v", seen)
	}
	first := f.Hosts.LastSeen("h1")
	eventually(t, "a heartbeat comes", func() bool { return f.Hosts.LastSeen("h1").After(first) })
	stop()
	eventually(t, "the agent counts as gone", func() bool { return !f.Hosts.Connected("h1") })
	viewer := f.Token(t, server.RoleViewer, "")
	last := f.Hosts.LastSeen("h1")
	ask(t, f, viewer, "GET", "/agents/h1/requests", "")
	if f.Hosts.LastSeen("h1") != last {
		t.Fatal("a viewer counted as an agent")
	}
}
