package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/app"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
	"github.com/quorate/quorate/test/etcdlab"
)

// startServer runs a server with TLS of its own, and returns its admin's client.
func startServer(t *testing.T, validity time.Duration) (url string, admin *remote.Client) {
	t.Helper()
	dir := t.TempDir()
	srv, err := app.NewServer(t.Context(), app.ServerOptions{
		DataDir: dir, Listen: "127.0.0.1:0", TLSSelfMade: true, AgentValidity: validity, Logger: slog.New(slog.DiscardHandler),
	})
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err = <-ended; err != nil {
			t.Errorf("the server ended: %v", err)
		}
	})
	cfg, err := remote.LoadConfig(app.ClientConfigFile(dir))
	must(t, err)
	admin, err = remote.New(cfg, remote.Options{})
	must(t, err)
	t.Cleanup(admin.Close)
	return srv.URL(), admin
}

// startAgent runs an agent; stop ends it and returns its error.
func startAgent(t *testing.T, dir, server, token string) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	var err error
	running.Go(func() {
		err = app.RunAgent(ctx, app.AgentOptions{
			DataDir: dir, Host: "h1", Address: "127.0.0.1", FirstPort: 23379, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
			Client: remote.Config{Server: server}, JoinToken: token,
		})
	})
	stop = func() error {
		cancel()
		running.Wait()
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}

func untilReady(t *testing.T, admin *remote.Client) {
	t.Helper()
	etcdlab.Until(t, "the host to be ready", func(ctx context.Context) error {
		h := &v1alpha1.EtcdHost{}
		if err := admin.Get(ctx, store.Key{Name: "h1"}, h); err != nil {
			return err
		}
		if !v1alpha1.IsTrue(h.Status.Conditions, v1alpha1.ConditionReady) {
			return errors.New("it is not ready")
		}
		return nil
	})
}

// kept is what an agent that has joined keeps.
func kept(dir string) (cert, key string, err error) {
	var f struct{ Certificate, Key string }
	raw, err := os.ReadFile(filepath.Join(dir, "agent", "identity.json"))
	if err == nil {
		err = json.Unmarshal(raw, &f)
	}
	return f.Certificate, f.Key, err
}

// TestAgentRenews: an agent renews its certificate in time, with a new key each time,
// and nobody takes that for an attack.
func TestAgentRenews(t *testing.T) {
	t.Parallel()
	const validity = 6 * time.Second
	server, admin := startServer(t, validity)
	token, _, err := admin.CreateJoinToken(t.Context(), "h1", 0)
	must(t, err)
	dir := t.TempDir()
	stop := startAgent(t, dir, server, token)
	untilReady(t, admin)
	keys := map[string]bool{}
	etcdlab.Until(t, "three renewals", func(context.Context) error {
		_, key, failed := kept(dir)
		if failed != nil {
			return failed
		}
		keys[key] = true
		if len(keys) < 4 {
			return fmt.Errorf("it had %d keys", len(keys))
		}
		return nil
	})
	// Long past the end of the first certificate it still reports.
	h := &v1alpha1.EtcdHost{}
	must(t, admin.Get(t.Context(), store.Key{Name: "h1"}, h))
	if !v1alpha1.IsTrue(h.Status.Conditions, v1alpha1.ConditionReady) {
		t.Errorf("the host is not ready: %+v", h.Status.Conditions)
	}
	must(t, stop())
	events, err := admin.Events(t.Context(), store.EventOptions{})
	must(t, err)
	for _, e := range events {
		if e.Source == "server" {
			t.Errorf("recorded %s: %s", e.Reason, e.Message)
		}
	}
	// Once it has run out, it says so, and a new token helps.
	cert, _, err := kept(dir)
	must(t, err)
	info, err := pki.Inspect([]byte(cert))
	must(t, err)
	etcdlab.Until(t, "the certificate to expire", func(context.Context) error {
		if left := time.Until(info.NotAfter); left > 0 {
			return fmt.Errorf("in %s", left)
		}
		return nil
	})
	ended := make(chan error, 1)
	late := app.AgentOptions{
		DataDir: dir, Host: "h1", Address: "127.0.0.1", FirstPort: 23379, Logger: slog.New(slog.DiscardHandler), Client: remote.Config{Server: server},
	}
	go func() { ended <- app.RunAgent(t.Context(), late) }()
	if err = <-ended; !errors.Is(err, store.ErrForbidden) || !strings.Contains(err.Error(), `the certificate of host "h1" expired on`) {
		t.Fatalf("with an expired certificate: %v", err)
	}
	token, _, err = admin.CreateJoinToken(t.Context(), "h1", 0)
	must(t, err)
	stop = startAgent(t, dir, server, token)
	etcdlab.Until(t, "the agent to join anew", func(context.Context) error {
		cert, _, err := kept(dir)
		if err != nil {
			return err
		}
		info, err := pki.Inspect([]byte(cert))
		if err == nil && time.Now().After(info.NotAfter) {
			err = errors.New("it has the old certificate")
		}
		return err
	})
	_ = stop() // it may be in the midst of its first report
}

// lossy passes connections on, and loses the answers to what the client says after its
// first words: in TLS 1.3, the answer to the first request.
type lossy struct {
	to   string
	lose atomic.Bool
	lost atomic.Int32
}

func (l *lossy) serve(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a test's
	must(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go l.pass(c)
		}
	}()
	return ln.Addr().String()
}

func (l *lossy) pass(c net.Conn) {
	defer func() { _ = c.Close() }()
	s, err := net.Dial("tcp", l.to) //nolint:noctx // a test's
	if err != nil {
		return
	}
	defer func() { _ = s.Close() }()
	var spoken atomic.Int32
	losing := l.lose.Load()
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := c.Read(buf)
			if err != nil {
				_ = s.Close()
				return
			}
			spoken.Add(1)
			if _, err = s.Write(buf[:n]); err != nil {
				return
			}
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := s.Read(buf)
		if err != nil {
			return
		}
		if losing && spoken.Load() > 1 && bytes.Contains(buf[:n], []byte{0x17, 0x03, 0x03}) && n > 600 {
			l.lost.Add(1)
			return // the certificate is in it
		}
		if losing && spoken.Load() > 1 {
			continue // a session ticket
		}
		if _, err = io.Copy(c, bytes.NewReader(buf[:n])); err != nil {
			return
		}
	}
}

// TestJoinAnswerLost: the server has signed, and the agent never learns of it; it tries
// again, also after a restart, with the same token and key.
func TestJoinAnswerLost(t *testing.T) {
	t.Parallel()
	server, admin := startServer(t, 0)
	u, err := url.Parse(server)
	must(t, err)
	l := &lossy{to: u.Host}
	l.lose.Store(true)
	through := "https://" + l.serve(t)
	token, _, err := admin.CreateJoinToken(t.Context(), "h1", 0)
	must(t, err)
	dir := t.TempDir()
	stop := startAgent(t, dir, through, token)
	etcdlab.Until(t, "an answer to be lost", func(context.Context) error {
		if l.lost.Load() == 0 {
			return errors.New("none was")
		}
		return nil
	})
	record := &v1alpha1.Secret{}
	etcdlab.Until(t, "the server to have signed", func(ctx context.Context) error {
		return admin.Get(ctx, store.Key{Namespace: "quorate-system", Name: "joined-h1"}, record)
	})
	if err := stop(); err == nil {
		t.Fatal("the agent has joined without an answer")
	}
	if _, _, err := kept(dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("it has a certificate: %v", err)
	}
	l.lose.Store(false)
	stop = startAgent(t, dir, through, token)
	untilReady(t, admin)
	must(t, stop())
	again := &v1alpha1.Secret{}
	must(t, admin.Get(t.Context(), store.KeyOf(record), again))
	if again.ResourceVersion != record.ResourceVersion {
		t.Error("it joined with another key")
	}
	if _, err := os.Stat(filepath.Join(dir, "agent", "joining.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the key to join with is still there: %v", err)
	}
}
