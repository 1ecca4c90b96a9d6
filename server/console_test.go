package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/servertest"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// withConsole starts an API with a console that says what it is asked, and returns
// what calls the API in this process.
func withConsole(t *testing.T) (*servertest.Fixture, http.RoundTripper) {
	t.Helper()
	var in http.RoundTripper
	f := servertest.New(t, func(o *server.Options) {
		o.Console = func(api http.Handler) http.Handler {
			in = server.InProcess(api)
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				text, err := io.ReadAll(r.Body)
				if err != nil {
					http.Error(w, err.Error(), http.StatusRequestTimeout)
					return
				}
				_, _ = fmt.Fprintf(w, "console %s %s %d", r.Method, r.URL.Path, len(text))
			})
		}
	})
	return f, in
}

func TestConsolePaths(t *testing.T) {
	f, _ := withConsole(t)
	admin := f.Token(t, server.RoleAdmin, "")
	for path, console := range map[string]bool{
		"/": true, "/login": true, "/fleet/prod/c": true, "/static/app.js": true, "/versions": true, "/apiary": true,
		"/docs": true, "/docs/docs.js": true, "/openapi.json": true,
		"/version": false, "/version/x": false, "/api": false, "/api/v1/secrets": false, "/apis/none": false, "/events": false, "/releases/x": false,
		"/sessions": false, "/sessions/current": false, "/backup": false, "/sealingkey/rotate": false, "/agents/x": false,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.URL+path, nil)
		fine(t, "make the request", err)
		resp, err := http.DefaultTransport.RoundTrip(req)
		fine(t, "ask", err)
		text, err := io.ReadAll(resp.Body)
		fine(t, "read", err)
		_ = resp.Body.Close()
		if got := strings.HasPrefix(string(text), "console GET "+path); got != console || (!console && resp.StatusCode != http.StatusUnauthorized) {
			t.Errorf("%s: %s %s", path, resp.Status, text)
		}
	}
	// With a token the API's description is the API's own.
	if resp, _ := ask(t, f, admin, "GET", "/version", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("the API: %s", resp.Status)
	}
}

// TestConsoleBodies: the console's bodies have the limits of the API's.
func TestConsoleBodies(t *testing.T) {
	f, _ := withConsole(t)
	f.Server.SetStall(200 * time.Millisecond)
	for size, want := range map[int]int{1 << 20: http.StatusOK, 5 << 20: http.StatusRequestTimeout} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.URL+"/form", strings.NewReader(strings.Repeat("a", size)))
		fine(t, "make the request", err)
		resp, err := http.DefaultTransport.RoundTrip(req)
		fine(t, "ask", err)
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%d bytes: %s", size, resp.Status)
		}
	}
	conn := dial(t, f)
	_, err := io.WriteString(conn, "POST /form HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nab")
	fine(t, "ask", err)
	fine(t, "set a deadline", conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	head := make([]byte, 12)
	if _, err = io.ReadFull(conn, head); err != nil || string(head) != "HTTP/1.1 408" {
		t.Fatalf("a slow sender got %q, %v", head, err)
	}
}

// TestInProcess: the client works in this process as over the network, streams
// included, and nothing of a request is left once its reader is gone.
func TestInProcess(t *testing.T) {
	f, in := withConsole(t)
	ctx := t.Context()
	c, err := remote.New(remote.Config{Server: "http://127.0.0.1", Token: f.Token(t, server.RoleAdmin, "")}, remote.Options{Transport: in})
	fine(t, "make a client", err)
	cluster := servertest.Cluster("prod", "c")
	fine(t, "create", c.Create(ctx, cluster))
	fine(t, "get", c.Get(ctx, store.KeyOf(cluster), &v1alpha1.EtcdCluster{}))
	if err = c.Get(ctx, store.Key{Namespace: "prod", Name: "none"}, &v1alpha1.EtcdCluster{}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("get nothing: %v", err)
	}
	if _, err = c.WithToken("other").Version(ctx); !errors.Is(err, store.ErrForbidden) {
		t.Errorf("another token: %v", err)
	}

	watching, stop := context.WithCancel(ctx)
	keys := c.Watch(watching, v1alpha1.KindCluster, "")
	if key := <-keys; key.Name != "c" {
		t.Fatalf("the watch told of %s", key)
	}
	fine(t, "create", c.Create(ctx, servertest.Cluster("prod", "d")))
	if key := <-keys; key.Name != "d" {
		t.Fatalf("the watch told of %s", key)
	}
	stop()
	for range keys {
		continue // until it closes
	}

	m := servertest.Member("prod", "m", "h1")
	f.Create(t, m)
	l, w := newLog()
	agent(t, f, func(_ context.Context, req remote.Request) (io.ReadCloser, error) {
		if req.Log.Follow {
			return l, nil
		}
		broken, in := io.Pipe()
		go func() {
			_, _ = io.WriteString(in, "one\n")
			_ = in.CloseWithError(errors.New("the disk is gone"))
		}()
		return broken, nil
	})
	r, err := c.Logs(ctx, store.KeyOf(m), remote.LogOptions{Follow: true})
	fine(t, "Logs", err)
	_, err = io.WriteString(w, "one\n")
	fine(t, "write", err)
	buf := make([]byte, 4)
	if _, err = io.ReadFull(r, buf); err != nil || string(buf) != "one\n" {
		t.Fatalf("read %q, %v", buf, err)
	}
	fine(t, "Close", r.Close())
	ended(t, "the agent stops reading the log", l.closed)
	eventually(t, "the call is gone", func() bool { return f.Server.Calls() == 0 })

	// What broke off never looks whole.
	r, err = c.Logs(ctx, store.KeyOf(m), remote.LogOptions{})
	fine(t, "Logs", err)
	if text, err := io.ReadAll(r); err == nil || !strings.Contains(err.Error(), "the disk is gone") || string(text) != "one\n" {
		t.Fatalf("read %q, %v", text, err)
	}
	fine(t, "Close", r.Close())
}

// TestInProcessCancel: a caller that gives up does not wait for the handler, and the
// handler is told.
func TestInProcessCancel(t *testing.T) {
	told := make(chan struct{})
	in := server.InProcess(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		close(told)
	}))
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://x/", nil)
	fine(t, "make the request", err)
	time.AfterFunc(20*time.Millisecond, cancel)
	resp, err := in.RoundTrip(req)
	if err == nil {
		_ = resp.Body.Close()
	}
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("RoundTrip: %v", err)
	}
	ended(t, "the handler is told", told)
}

// TestInProcessGivesUp: a handler that breaks off by a panic, as net/http lets it,
// breaks the answer off, and not the process.
func TestInProcessGivesUp(t *testing.T) {
	in := server.InProcess(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		panic(http.ErrAbortHandler)
	}))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/", nil)
	fine(t, "make the request", err)
	resp, err := in.RoundTrip(req)
	fine(t, "RoundTrip", err)
	text, err := io.ReadAll(resp.Body)
	if string(text) != "half" || err == nil || errors.Is(err, io.EOF) {
		t.Fatalf("read %q, %v", text, err)
	}
	_ = resp.Body.Close()
}
