package record_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/etcdmain"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/history/record"

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

// node is a cluster of one member: a real etcd process.
type node struct {
	t            *testing.T
	client, peer string
	dir, binary  string
	flags        []string
	cmd          *exec.Cmd
	log          bytes.Buffer
}

// newNode starts an etcd, which ends with the test.
func newNode(t *testing.T, flags ...string) *node {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: t.TempDir(), binary: filepath.Join(t.TempDir(), "etcd"), flags: flags, client: "http://" + freeport.Address(t), peer: "http://" + freeport.Address(t)}
	if err = os.Symlink(self, n.binary); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.kill()
		if t.Failed() {
			t.Logf("etcd:\n%s", n.log.String()[max(0, n.log.Len()-1500):])
		}
	})
	n.start()
	return n
}

func (n *node) start() {
	n.t.Helper()
	n.cmd = exec.CommandContext(context.WithoutCancel(n.t.Context()), n.binary, append([]string{
		"--name=m1", "--data-dir=" + n.dir, "--listen-client-urls=" + n.client, "--advertise-client-urls=" + n.client,
		"--listen-peer-urls=" + n.peer, "--initial-advertise-peer-urls=" + n.peer, "--initial-cluster=m1=" + n.peer,
		"--heartbeat-interval=50", "--election-timeout=500", "--log-level=warn",
	}, n.flags...)...)
	n.cmd.Stdout, n.cmd.Stderr, n.cmd.Env = &n.log, &n.log, []string{"PATH=" + os.Getenv("PATH")}
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.until("ready", func(ctx context.Context) bool {
		c := dial(n.t, record.New(record.Options{}), n) //nolint:contextcheck // it lives as long as the test
		return c.Get(ctx, "ready", "").Outcome == history.OK
	})
}

func (n *node) kill() {
	if n.cmd != nil {
		_ = n.cmd.Process.Kill() // it may have ended
		_ = n.cmd.Wait()
		n.cmd = nil
	}
}

func (n *node) signal(s syscall.Signal) {
	n.t.Helper()
	if err := n.cmd.Process.Signal(s); err != nil {
		n.t.Fatal(err)
	}
}

// until tries again until it works.
func (n *node) until(what string, try func(ctx context.Context) bool) {
	n.t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ctx, cancel := context.WithTimeout(n.t.Context(), 3*time.Second)
		ok := try(ctx)
		cancel()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("not %s within %s", what, patience)
		}
		<-tick.C
	}
}

func dial(t *testing.T, r *record.Recorder, n *node) *record.Client {
	t.Helper()
	c, err := r.Dial(t.Context(), record.Target{Endpoint: n.client})
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
