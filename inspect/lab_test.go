package inspect_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/inspect"
	"github.com/quorate/quorate/test/etcdlab"
)

// TestMain makes the test binary act as etcd too.
func TestMain(m *testing.M) { etcdlab.Main(m) }

// lab is a cluster of real etcd processes.
type lab struct {
	*etcdlab.Cluster
	t *testing.T
}

type (
	node       = etcdlab.Member
	labOptions = etcdlab.Options
)

func newLab(t *testing.T, o labOptions) *lab {
	t.Helper()
	return &lab{etcdlab.New(t, o), t}
}

// advertising has the last member say that its client URL is another.
func advertising(url string) func([]*node) {
	return func(members []*node) { members[len(members)-1].Advertised = url }
}

// behind has the last member listen at an address, and say that its client URL is
// another.
func behind(address, url string) func([]*node) {
	return func(members []*node) {
		advertising(url)(members)
		members[len(members)-1].Client = "http://" + address
	}
}

// ready waits until the cluster serves at all the nodes.
func (l *lab) ready(nodes ...*node) *lab {
	l.t.Helper()
	l.Ready(nodes...)
	return l
}

// until tries again until it works.
func (l *lab) until(what string, try func(ctx context.Context) error) {
	l.t.Helper()
	etcdlab.Until(l.t, what, try)
}

func (l *lab) client(n *node) *clientv3.Client {
	l.t.Helper()
	return n.Dial()
}

// must runs a call on the cluster.
func (l *lab) must(what string, do func(ctx context.Context) error) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), etcdlab.Patience)
	defer cancel()
	if err := do(ctx); err != nil {
		l.t.Fatalf("%s: %v", what, err)
	}
}

// look inspects, and checks that it did not take longer than it may.
func look(t *testing.T, o inspect.Options) *inspect.Report {
	t.Helper()
	began := time.Now()
	r, err := inspect.Inspect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > inspect.DefaultTimeout {
		t.Errorf("it took %s, more than %s", took, inspect.DefaultTimeout)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		t.Logf("%s: %s", r.State, r.Summary)
		for _, f := range r.Findings {
			t.Logf("%s %s: %s\n  %s\n  %s", f.Severity, f.ID, f.Title, strings.Join(f.Evidence, "\n  "), strings.Join(f.Commands, "\n  "))
		}
	})
	return r
}

// finding is the one with that ID, which must be there.
func finding(t *testing.T, r *inspect.Report, id string) inspect.Finding {
	t.Helper()
	i := slices.IndexFunc(r.Findings, func(f inspect.Finding) bool { return f.ID == id })
	if i < 0 {
		t.Fatalf("%s was not found", id)
	}
	return r.Findings[i]
}

// blackHole listens, and neither takes a connection out of its queue nor answers.
func blackHole(t *testing.T) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return "http://" + ln.Addr().String()
}

// fullQueue listens with a queue that is full: the kernel drops what else comes, as a
// firewall does.
func fullQueue(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err = unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	bound, ok := name.(*unix.SockaddrInet4)
	if !ok {
		t.Fatalf("bound to %T", name)
	}
	address := fmt.Sprintf("127.0.0.1:%d", bound.Port)
	for range 4 {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		cancel()
		if err != nil {
			return "http://" + address
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Fatal("the queue never filled")
	return ""
}

// position of a member, which looking must not change.
func position(t *testing.T, l *lab, n *node) etcd.Status {
	t.Helper()
	pool := etcd.NewPool()
	defer func() { _ = pool.Close() }()
	target := etcd.Target{Endpoint: n.Client, TLS: l.TLS}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	st, err := pool.Status(ctx, target)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// listening waits until a member takes connections, whatever it thinks of them.
func (l *lab) listening(n *node) {
	l.t.Helper()
	_, address, _ := strings.Cut(n.Client, "://")
	l.until("listening", func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
}

// pause stops a process without ending it.
func pause(t *testing.T, n *node) {
	t.Helper()
	if err := n.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
}
