package server_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/servertest"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

func TestListen(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", "[::]:0", ":0", "192.0.2.1:0"} {
		_, err := server.Listen(t.Context(), addr, nil)
		if err == nil || !strings.Contains(err.Error(), "--tls-cert-file") || !strings.Contains(err.Error(), "--tls-key-file") {
			t.Errorf("%s without TLS: %v", addr, err)
		}
	}
	if _, err := server.Listen(t.Context(), "nonsense", nil); err == nil || !strings.Contains(err.Error(), "HOST:PORT") {
		t.Errorf("nonsense: %v", err)
	}
	for _, addr := range []string{"127.0.0.1:0", "localhost:0", "127.0.0.2:0"} {
		ln, err := server.Listen(t.Context(), addr, nil)
		fine(t, addr, err)
		if tcp, ok := ln.Addr().(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() {
			t.Errorf("%s listens on %s", addr, ln.Addr())
		}
		if _, err := server.Listen(t.Context(), ln.Addr().String(), nil); err == nil || !strings.Contains(err.Error(), "--listen") {
			t.Errorf("a port in use: %v", err)
		}
		_ = ln.Close()
	}
	ln, err := server.Listen(t.Context(), "0.0.0.0:0", &tls.Config{MinVersion: tls.VersionTLS10})
	fine(t, "with TLS", err)
	_ = ln.Close()
}

// TestTLS: the API over TLS, with a CA of its own, and nothing below 1.2.
func TestTLS(t *testing.T) {
	f := servertest.New(t, nil)
	caPEM, config := certificate(t)
	ln, err := server.Listen(t.Context(), "127.0.0.1:0", config)
	fine(t, "listen", err)
	serve(t, f, ln)
	url := "https://" + ln.Addr().String()
	token := f.Token(t, server.RoleAdmin, "")
	c, err := remote.New(remote.Config{Server: url, Token: token, CA: string(caPEM)}, remote.Options{})
	fine(t, "make a client", err)
	defer c.Close()
	v, err := c.Version(t.Context())
	if err != nil || v != "v0.0.0-test" {
		t.Fatalf("Version: %q, %v", v, err)
	}
	if _, err = f.ClientAt(t, url, token, remote.Options{}).Version(t.Context()); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Fatalf("without the CA: %v", err)
	}
	_, err = tls.Dial("tcp", ln.Addr().String(), &tls.Config{MaxVersion: tls.VersionTLS11, InsecureSkipVerify: true}) //nolint:noctx // it must be refused
	if err == nil {
		t.Fatal("TLS 1.1 was spoken")
	}
}

func certificate(t *testing.T) (caPEM []byte, config *tls.Config) {
	t.Helper()
	now := time.Now()
	caPEM, caKey, err := pki.NewCA("test", time.Hour, now)
	fine(t, "make a CA", err)
	ca, err := pki.LoadCA(caPEM, caKey, nil)
	fine(t, "load the CA", err)
	key, err := pki.NewKey()
	fine(t, "make a key", err)
	csr, err := pki.NewRequest(key, "server")
	fine(t, "make a request", err)
	b, err := ca.Sign(csr, pki.Request{Usage: pki.Server, CommonName: "server", Hosts: []string{"127.0.0.1"}, Validity: time.Hour, Now: now})
	fine(t, "sign", err)
	pair, err := tls.X509KeyPair(b.Certificate, key)
	fine(t, "load the pair", err)
	return caPEM, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
}

// serve runs the fixture's server on ln; stop ends it and returns its error.
func serve(t *testing.T, f *servertest.Fixture, ln net.Listener) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- f.Server.Serve(ctx, ln) }()
	var err error
	done := false
	stop = func() error {
		if !done {
			cancel()
			err, done = <-served, true
		}
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}

// TestShutdown: streams end with the server, and don't hold it up.
func TestShutdown(t *testing.T) {
	f := servertest.New(t, nil)
	ln, err := server.Listen(t.Context(), "127.0.0.1:0", nil)
	fine(t, "listen", err)
	stop := serve(t, f, ln)
	c := f.ClientAt(t, "http://"+ln.Addr().String(), f.Token(t, server.RoleAdmin, ""), remote.Options{})
	f.Create(t, servertest.Cluster("prod", "c"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	<-c.Watch(ctx, v1alpha1.KindCluster, "")
	began := time.Now()
	fine(t, "stop", stop())
	if took := time.Since(began); took > 3*time.Second {
		t.Fatalf("stopping took %s", took)
	}
	_, err = c.Version(t.Context())
	if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "is `quorate up` or `quorate server` running?") ||
		!strings.Contains(err.Error(), ln.Addr().String()) {
		t.Fatalf("after the end: %v", err)
	}
}

// endless plays a release that has no end that matters.
type endless struct{ servertest.Releases }

func (endless) Open(context.Context, string) (io.ReadCloser, int64, error) {
	const size = 1 << 40
	return io.NopCloser(io.LimitReader(zeros{}, size)), size, nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestSlowReader: a client that doesn't read is cut off by the server.
func TestSlowReader(t *testing.T) {
	f := servertest.New(t, func(o *server.Options) { o.Releases = endless{} })
	f.Server.SetStall(200 * time.Millisecond)
	conn := dial(t, f)
	_, err := fmt.Fprintf(conn, "GET /releases/%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n",
		servertest.Digest, f.Token(t, server.RoleViewer, ""))
	fine(t, "ask", err)
	eventually(t, "the server takes the request", func() bool { return f.Active() == 1 })
	// The server must give up by itself, while nothing is read here: what it left in
	// the buffers then ends early.
	eventually(t, "the server gives up", func() bool { return f.Active() == 0 })
	fine(t, "set a deadline", conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	fine(t, "read the head", err)
	n, err := io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK || n == 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%s, %d bytes came, %v", resp.Status, n, err)
	}
}

// TestSlowSender: a client that sends nothing of what it promised is cut off.
func TestSlowSender(t *testing.T) {
	f := servertest.New(t, nil)
	f.Server.SetStall(200 * time.Millisecond)
	conn := dial(t, f)
	_, err := fmt.Fprintf(conn, "POST /releases HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nAuthorization: Bearer %s\r\n\r\nab", f.Token(t, server.RoleAdmin, ""))
	fine(t, "ask", err)
	fine(t, "set a deadline", conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	fine(t, "read the answer", err)
	_ = resp.Body.Close()
	if resp.StatusCode < 400 || !resp.Close {
		t.Fatalf("%s, close %t", resp.Status, resp.Close)
	}
}

func dial(t *testing.T, f *servertest.Fixture) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(f.URL, "http://"))
	fine(t, "dial", err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
