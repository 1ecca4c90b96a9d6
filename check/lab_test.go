package check_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/quorate/quorate/check"

	"github.com/quorate/quorate/test/freeport"
)

// TestMain makes the test binary act as etcd too.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "etcd" {
		etcdmain.Main(os.Args)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// patience bounds what a test waits for.
const patience = 60 * time.Second

// lab is a cluster of real etcd processes.
type lab struct {
	t       *testing.T
	members []*node
	binary  string
	flags   []string
	// dial reaches the members; nil where the machine itself does.
	dial func(ctx context.Context, address string) (net.Conn, error)
}

// node is one member.
type node struct {
	name, client, peer, dir string
	// run starts its process elsewhere than here; nil for here.
	run func(*exec.Cmd) error

	mu  sync.Mutex
	cmd *exec.Cmd
	log bytes.Buffer
}

// newLab starts a cluster, which ends with the test; the test itself is its binary
// where none is given.
func newLab(t *testing.T, members int, binary string) *lab {
	t.Helper()
	nodes := make([]*node, 0, members)
	for range members {
		nodes = append(nodes, &node{client: "http://" + freeport.Address(t), peer: "http://" + freeport.Address(t)})
	}
	return (&lab{t: t, binary: binary}).up(nodes)
}

// up starts the members.
func (l *lab) up(nodes []*node) *lab {
	l.t.Helper()
	t := l.t
	if l.binary == "" {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		l.binary = filepath.Join(t.TempDir(), "etcd")
		if err = os.Symlink(self, l.binary); err != nil {
			t.Fatal(err)
		}
	}
	l.members = nodes
	initial := make([]string, 0, len(nodes))
	for i, n := range nodes {
		n.name, n.dir = fmt.Sprintf("m%d", i+1), t.TempDir()
		initial = append(initial, n.name+"="+n.peer)
	}
	l.flags = []string{"--initial-cluster=" + strings.Join(initial, ","), "--initial-cluster-token=" + t.Name() + strconv.FormatInt(time.Now().UnixNano(), 10)}
	for _, n := range nodes {
		t.Cleanup(func() {
			n.kill()
			if t.Failed() {
				t.Logf("%s:\n%s", n.name, n.log.String()[max(0, n.log.Len()-1500):])
			}
		})
		if err := l.start(n); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range nodes {
		l.until("ready at "+n.name, func(ctx context.Context) error {
			_, err := l.client(n).Get(ctx, "ready")
			return err
		})
	}
	return l
}

func (l *lab) start(n *node) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cmd = exec.CommandContext(context.WithoutCancel(l.t.Context()), l.binary, append([]string{
		"--name=" + n.name, "--data-dir=" + n.dir, "--listen-client-urls=" + n.client, "--advertise-client-urls=" + n.client,
		"--listen-peer-urls=" + n.peer, "--initial-advertise-peer-urls=" + n.peer,
		"--heartbeat-interval=50", "--election-timeout=500", "--logger=zap", "--log-level=warn",
	}, l.flags...)...)
	n.cmd.Stdout, n.cmd.Stderr, n.cmd.Env = &n.log, &n.log, []string{"PATH=" + os.Getenv("PATH")}
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if n.run != nil {
		return n.run(n.cmd)
	}
	return n.cmd.Start()
}

func (n *node) kill() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd != nil {
		_ = n.cmd.Process.Kill() // it may have ended
		_ = n.cmd.Wait()
		n.cmd = nil
	}
}

// until tries again until it works.
func (l *lab) until(what string, try func(ctx context.Context) error) {
	l.t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		ctx, cancel := context.WithTimeout(l.t.Context(), 3*time.Second)
		err := try(ctx)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("not %s within %s: %v", what, patience, err)
		}
		<-tick.C
	}
}

func (l *lab) client(n *node) *clientv3.Client {
	l.t.Helper()
	cfg := clientv3.Config{Endpoints: []string{n.client}, Logger: zap.NewNop(), DialTimeout: 5 * time.Second}
	if l.dial != nil {
		cfg.DialOptions = append(cfg.DialOptions, grpc.WithContextDialer(l.dial))
	}
	c, err := clientv3.New(cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (l *lab) urls() []string {
	list := make([]string, 0, len(l.members))
	for _, n := range l.members {
		list = append(list, n.client)
	}
	return list
}

// killer kills one member after another with SIGKILL, and starts each again.
type killer struct {
	l    *lab
	down time.Duration
	next int
}

func (k *killer) Kind() string { return "kill" }

func (k *killer) Disturb(ctx context.Context) (string, error) {
	n := k.l.members[k.next%len(k.l.members)]
	k.next++
	n.kill()
	timer := time.NewTimer(k.down)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return n.name, k.l.start(n) //nolint:contextcheck // what is started outlives the disturbance
}

// pauser holds one member after another still.
type pauser struct {
	l    *lab
	held time.Duration
	next int
}

func (p *pauser) Kind() string { return "pause" }

func (p *pauser) Disturb(ctx context.Context) (string, error) {
	n := p.l.members[p.next%len(p.l.members)]
	p.next++
	n.mu.Lock()
	process := n.cmd.Process
	n.mu.Unlock()
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		return "", err
	}
	timer := time.NewTimer(p.held)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return n.name, process.Signal(syscall.SIGCONT)
}

// run checks, and says on failure what came of it.
func run(t *testing.T, o check.Options) *check.Result {
	t.Helper()
	o.File = cmp.Or(o.File, filepath.Join(t.TempDir(), "history.zst"))
	r, err := check.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %s; %d watches, %d events, %.0f op/s, gap %.1f s, hash %s, %v", r.Verdict, r.Summary, r.Stats.Watches, r.Stats.WatchEvents,
		r.Stats.PerSecond, r.Stats.LongestWriteGapSeconds, r.Hash, r.Stats.Kinds)
	for _, n := range r.Notes {
		t.Logf("note: %s", n)
	}
	for _, v := range r.Report.Violations {
		t.Logf("%s: %s\n  %s", v.Rule, v.Title, strings.Join(v.Evidence, "\n  "))
	}
	return r
}

// left is how many keys of the prefix are there.
func (l *lab) left(prefix string) int64 {
	l.t.Helper()
	var n int64
	l.until("read", func(ctx context.Context) error {
		r, err := l.client(l.members[0]).Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err == nil {
			n = r.Count
		}
		return err
	})
	return n
}
