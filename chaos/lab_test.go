package chaos_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"go.uber.org/zap"

	"github.com/quorate/quorate/chaos"
	"github.com/quorate/quorate/internal/process"

	"github.com/quorate/quorate/test/freeport"
)

// envStart makes this binary start the disturbance it is given, say so, and live on.
const envStart = "QUORATE_TEST_START_CHAOS"

// TestMain makes the test binary act as etcd, as a holder and as a starter too.
func TestMain(m *testing.M) {
	switch {
	case filepath.Base(os.Args[0]) == "etcd":
		etcdmain.Main(os.Args)
		os.Exit(0)
	case len(os.Args) == 3 && os.Args[1] == "chaos" && os.Args[2] == "hold":
		if err := chaos.Hold(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case os.Getenv(envStart) != "":
		os.Exit(start())
	}
	os.Exit(m.Run())
}

func start() int {
	var o struct {
		Dir         string
		Disturbance chaos.Disturbance
	}
	err := json.Unmarshal([]byte(os.Getenv(envStart)), &o)
	if err == nil {
		var r *chaos.Running
		if r, err = chaos.Start(context.Background(), chaos.Options{Dir: o.Dir, Command: holdCommand()}, o.Disturbance); err == nil {
			fmt.Println(r.Record.ID)
			select {}
		}
	}
	fmt.Println("error:", err)
	return 1
}

// holdCommand makes this binary a holder.
func holdCommand() []string {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	return []string{self, "chaos", "hold"}
}

const patience = 60 * time.Second

// lab is a cluster of real etcd processes, and a ledger.
type lab struct {
	t       *testing.T
	ledger  string
	members []*node
}

type node struct {
	name, client, peer, dir string
	cmd                     *exec.Cmd
	log                     string
	// done is closed when the process that the test started was reaped.
	done chan struct{}
}

func newLab(t *testing.T, members int) *lab {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	binary := filepath.Join(t.TempDir(), "etcd")
	must(t, os.Symlink(self, binary))
	l := &lab{t: t, ledger: filepath.Join(t.TempDir(), "ledger")}
	var initial []string
	for i := range members {
		n := &node{name: fmt.Sprintf("m%d", i+1), client: "http://" + freeport.Address(t), peer: "http://" + freeport.Address(t), dir: t.TempDir(), done: make(chan struct{})}
		initial = append(initial, n.name+"="+n.peer)
		l.members = append(l.members, n)
	}
	for _, n := range l.members {
		n.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), binary,
			"--name="+n.name, "--data-dir="+filepath.Join(n.dir, "data"), "--listen-client-urls="+n.client, "--advertise-client-urls="+n.client,
			"--listen-peer-urls="+n.peer, "--initial-advertise-peer-urls="+n.peer, "--initial-cluster="+strings.Join(initial, ","),
			"--initial-cluster-token="+t.Name(), "--heartbeat-interval=50", "--election-timeout=500", "--log-level=warn")
		n.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "MARK=of " + n.name}
		n.cmd.Dir = n.dir
		n.log = filepath.Join(n.dir, "log")
		f, err := os.OpenFile(n.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		must(t, err)
		n.cmd.Stdout, n.cmd.Stderr = f, f
		must(t, n.cmd.Start())
		must(t, f.Close())
		go func() {
			_ = n.cmd.Wait()
			close(n.done)
		}()
		t.Cleanup(func() { n.stop(t) })
	}
	t.Cleanup(l.checkLedger)
	for _, n := range l.members {
		l.until("ready at "+n.name, func(ctx context.Context) error { return l.put(ctx, n) })
	}
	return l
}

// stop ends the member, whoever started it last.
func (n *node) stop(t *testing.T) {
	t.Helper()
	_ = n.cmd.Process.Kill() // it may have ended
	<-n.done
	if p, err := chaos.ProcessAt(n.client, ""); err == nil {
		_ = p.Signal(syscall.SIGKILL)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		_ = p.Wait(ctx)
	}
	if raw, err := os.ReadFile(n.log); t.Failed() && err == nil {
		t.Logf("%s:\n%s", n.name, raw[max(0, len(raw)-1500):])
	}
}

// checkLedger says if anything is left.
func (l *lab) checkLedger() {
	entries, err := os.ReadDir(l.ledger)
	if err != nil {
		return
	}
	for _, e := range entries {
		l.t.Errorf("%s is left in the ledger", e.Name())
	}
}

func (l *lab) options() chaos.Options {
	return chaos.Options{Dir: l.ledger, Command: holdCommand(), Log: slog.New(slog.NewTextHandler(l.t.Output(), nil))}
}

func (l *lab) start(d chaos.Disturbance) *chaos.Running {
	l.t.Helper()
	r, err := chaos.Start(l.t.Context(), l.options(), d)
	if err != nil {
		l.t.Fatal(err)
	}
	return r
}

// starter starts a disturbance in a process of its own, and returns that process and
// the disturbance's record.
func (l *lab) starter(d chaos.Disturbance) (*exec.Cmd, chaos.Record) {
	l.t.Helper()
	raw, err := json.Marshal(map[string]any{"Dir": l.ledger, "Disturbance": d})
	must(l.t, err)
	self, err := os.Executable()
	must(l.t, err)
	cmd := exec.CommandContext(l.t.Context(), self)
	cmd.Env = append(os.Environ(), envStart+"="+string(raw))
	cmd.Stderr = l.t.Output()
	out, err := cmd.StdoutPipe()
	must(l.t, err)
	must(l.t, cmd.Start())
	l.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	id, err := bufio.NewReader(out).ReadString('\n')
	must(l.t, err)
	return cmd, l.record(strings.TrimSpace(id))
}

func (l *lab) record(id string) chaos.Record {
	l.t.Helper()
	records, err := chaos.List(l.ledger)
	must(l.t, err)
	for _, r := range records {
		if r.ID == id {
			return r
		}
	}
	l.t.Fatalf("%q is not in the ledger", id)
	return chaos.Record{}
}

func (l *lab) put(ctx context.Context, n *node) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c := l.client(n.client)
	defer func() { _ = c.Close() }()
	_, err := c.Put(ctx, "key", n.name)
	return err
}

func (l *lab) client(endpoint string) *clientv3.Client {
	l.t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop(), DialTimeout: 2 * time.Second})
	must(l.t, err)
	return c
}

// until tries again until it works.
func (l *lab) until(what string, try func(ctx context.Context) error) {
	l.t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try(l.t.Context())
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("not %s within %s: %v", what, patience, err)
		}
		<-tick.C
	}
}

// states counts the threads of a process by their state.
func states(t *testing.T, pid int) map[string]int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	must(t, err)
	count := map[string]int{}
	for _, file := range files {
		if raw, err := os.ReadFile(file); err == nil {
			count[string(raw[bytes.LastIndexByte(raw, ')')+2])]++
		}
	}
	return count
}

func stopped(t *testing.T, pid int) bool {
	t.Helper()
	s := states(t, pid)
	return len(s) == 1 && s["t"] > 0
}

// gone waits until a process has ended.
func (l *lab) gone(who ...process.ID) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	for _, id := range who {
		if err := id.Wait(ctx); err != nil {
			l.t.Errorf("process %d lives on: %v", id.PID, err)
		}
	}
}

// successor is the process that listens where the member's did, when it is another one.
func (l *lab) successor(n *node) (p *chaos.Process) {
	l.t.Helper()
	l.until("started again", func(context.Context) (err error) {
		p, err = chaos.ProcessAt(n.client, "")
		if err == nil && p.PID == n.cmd.Process.Pid {
			return fmt.Errorf("process %d is there still", p.PID)
		}
		return err
	})
	return p
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
