package record_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/quorate/quorate/history/record"
	"github.com/quorate/quorate/test/etcdlab"
)

// TestMain makes the test binary act as etcd too.
func TestMain(m *testing.M) { etcdlab.Main(m) }

// patience bounds what a test waits for.
const patience = etcdlab.Patience

// node is a cluster of one member.
type node struct {
	*etcdlab.Member
	t *testing.T
}

// newNode starts an etcd, which ends with the test.
func newNode(t *testing.T, flags ...string) *node {
	t.Helper()
	return &node{etcdlab.New(t, etcdlab.Options{Flags: flags}).Ready().Members[0], t}
}

func (n *node) signal(s syscall.Signal) {
	n.t.Helper()
	if err := n.Signal(s); err != nil {
		n.t.Fatal(err)
	}
}

// until tries again until it works.
func (n *node) until(what string, try func(ctx context.Context) bool) {
	n.t.Helper()
	etcdlab.Until(n.t, what, func(ctx context.Context) error {
		if !try(ctx) {
			return errors.New("not yet")
		}
		return nil
	})
}

func dial(t *testing.T, r *record.Recorder, n *node) *record.Client {
	t.Helper()
	c, err := r.Dial(t.Context(), record.Target{Endpoint: n.Client})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// silent takes connections and never says a word.
func silent(t *testing.T) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return "http://" + ln.Addr().String()
}

func joined(list []string) string { return strings.Join(list, " ") }
