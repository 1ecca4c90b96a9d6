package remote_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/servertest"
	"github.com/quorate/quorate/store/remote"
	"github.com/quorate/quorate/store/storetest"
)

// TestConformance reaches a store through the API, over a line that is really cut.
func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		t.Helper()
		f := servertest.New(t, nil)
		cut := newLine(t, strings.TrimPrefix(f.URL, "http://"))
		token := f.Token(t, server.RoleAdmin, "")
		return storetest.Harness{
			Store: f.ClientAt(t, "http://"+cut.Addr().String(), token, remote.Options{}),
			Other: f.ClientAt(t, f.URL, token, remote.Options{}), Disconnect: cut.disconnect,
		}
	})
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
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	p := &line{Listener: l, target: target}
	t.Cleanup(func() {
		p.disconnect()
		_ = l.Close()
	})
	go p.serve(t.Context())
	return p
}

func (p *line) serve(ctx context.Context) {
	for {
		in, err := p.Accept()
		if err != nil {
			return
		}
		out, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.target)
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
