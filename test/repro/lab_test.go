package repro_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
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
	"google.golang.org/grpc/backoff"

	"github.com/quorate/quorate/test/freeport"
	"github.com/quorate/quorate/test/netlab"
)

// patience bounds what a test waits for.
const patience = 60 * time.Second

// fast makes dialling again after a crash quick.
var fast = backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.2, MaxDelay: 300 * time.Millisecond}

// lab is a cluster of real etcd processes of one release.
type lab struct {
	t       *testing.T
	members []*member
	// user that asks from now on, if any.
	user string
}

// member is one etcd, with the addresses that it keeps over restarts.
type member struct {
	lab          *lab
	name, dir    string
	client, peer string
	// host where it runs; nil: this one.
	host   *netlab.Host
	binary string
	args   []string
	cmd    *exec.Cmd
	exited chan struct{}
	log    logBuffer
}

// labOptions say what to start.
type labOptions struct {
	release string
	members int
	// dirs are the data directories; empty ones by default.
	dirs []string
	// hosts of a network where members run, in place of this one.
	hosts []*netlab.Host
	// auth turns authentication on, and has root ask.
	auth bool
	// flags as etcd 3.5 has them.
	flags []string
}

// password of all users.
const password = "secret"

// linked is the release that this module is built with: the test itself is it.
const linked = "3.7.3"

// binaryOf is the etcd of a release, which the makefile builds.
func binaryOf(t *testing.T, release string) string {
	t.Helper()
	if release == linked {
		return self(t)
	}
	path, err := filepath.Abs(filepath.Join("..", "..", ".cache", "etcd", release, "etcd"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err = os.Stat(path); err != nil {
		t.Fatalf("etcd %s is not built: %v: run make .cache/etcd/%s/etcd", release, err, release)
	}
	return path
}

// newLab starts a cluster and waits until each member serves.
func newLab(t *testing.T, o labOptions) *lab {
	t.Helper()
	l := &lab{t: t}
	binary := binaryOf(t, o.release)
	initial := make([]string, 0, o.members)
	for i := range max(o.members, 1) {
		m := &member{lab: l, name: "m" + strconv.Itoa(i+1), binary: binary}
		m.client, m.peer = "http://"+freeport.Address(t), "http://"+freeport.Address(t)
		listen := m.client
		if i < len(o.hosts) {
			m.host = o.hosts[i]
			listen, m.peer = fmt.Sprintf("http://%s:2379", m.host.Addr), fmt.Sprintf("http://%s:2380", m.host.Addr)
			m.client = "http://" + forward(t, m.host)
		}
		if i < len(o.dirs) {
			m.dir = o.dirs[i]
		} else {
			m.dir = filepath.Join(t.TempDir(), "data")
		}
		l.members = append(l.members, m)
		initial = append(initial, m.name+"="+m.peer)
		m.args = append(m.args, "--listen-client-urls="+listen, "--advertise-client-urls="+listen)
	}
	t.Cleanup(func() {
		for _, m := range l.members {
			if t.Failed() && os.Getenv("QUORATE_REPRO_LOGS") != "" {
				t.Logf("the end of %s's log:\n%s", m.name, tail(m.text()))
			}
		}
	})
	for _, m := range l.members {
		m.args = append(m.args,
			"--name="+m.name, "--data-dir="+m.dir, "--listen-peer-urls="+m.peer, "--initial-advertise-peer-urls="+m.peer,
			"--initial-cluster="+strings.Join(initial, ","), "--initial-cluster-state=new",
			"--initial-cluster-token="+t.Name(), "--logger=zap", "--log-level=info",
		)
		if o.members <= 1 {
			// Nobody else could be elected where the machine is busy.
			m.args = append(m.args, "--heartbeat-interval=50", "--election-timeout=500")
		}
		m.args = append(m.args, flagsOf(o.release, o.flags)...)
		m.start()
	}
	for _, m := range l.members {
		m.ready()
	}
	return l
}

// start runs the member until it is killed, or the test ends.
func (m *member) start() {
	t := m.lab.t
	t.Helper()
	m.log.mu.Lock()
	m.log.from = m.log.buf.Len()
	m.log.mu.Unlock()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), m.binary, m.args...)
	cmd.Stderr, cmd.Stdout = &m.log, &m.log
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	begin := cmd.Start
	if m.host != nil {
		begin = func() error { return m.host.Start(cmd) } // the network ends it
	} else {
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	}
	if err := begin(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed
		close(exited)
	}()
	m.cmd, m.exited = cmd, exited
	t.Cleanup(m.kill)
}

// kill is kill -9, and waits until the process is gone.
func (m *member) kill() {
	if m.cmd != nil {
		_ = m.cmd.Process.Kill() // it may have ended
		<-m.exited
		m.cmd = nil
	}
}

// restart is a crash.
func (m *member) restart() {
	m.lab.t.Helper()
	m.kill()
	m.start()
}

// ready waits until the member answers a linearizable read.
func (m *member) ready() {
	m.lab.t.Helper()
	m.lab.until(m.name+" serves", func(ctx context.Context) error {
		return m.ask(ctx)
	})
}

// ask reads linearizably, with a new client each time: one that met a member while it
// was starting may back off.
func (m *member) ask(ctx context.Context) error {
	c, err := m.connect()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_, err = c.Get(ctx, "ready")
	return err
}

// dial makes a client of this member alone; the caller closes it.
func (m *member) dial() *clientv3.Client {
	m.lab.t.Helper()
	c, err := m.connect()
	if err != nil {
		m.lab.t.Fatal(err)
	}
	return c
}

// connect fails where the user can't log in.
func (m *member) connect() (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints: []string{m.client}, Logger: zap.NewNop(), DialTimeout: 5 * time.Second,
		Username: m.lab.user, Password: password,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{Backoff: fast, MinConnectTimeout: time.Second})},
	})
}

// until tries again until it works.
func (l *lab) until(what string, try func(ctx context.Context) error) {
	l.t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ctx, cancel := context.WithTimeout(l.t.Context(), 3*time.Second)
		err := try(ctx)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("not within %s: %s: %v", patience, what, err)
		}
		<-tick.C
	}
}

// logBuffer is what a member says, while it says it.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
	// from is where the present run begins.
	from int
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// text is what the member has said since it was started last.
func (m *member) text() string {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	return string(m.log.buf.Bytes()[m.log.from:])
}

func tail(s string) string { return s[max(0, len(s)-3000):] }

// flagsOf are flags of etcd 3.5 as a release has them.
func flagsOf(release string, flags []string) []string {
	if release != linked {
		return flags
	}
	list := make([]string, 0, len(flags))
	for _, f := range flags {
		if f == sharedBufferOff {
			f = "--feature-gates=TxnModeWriteWithSharedBuffer=false"
		}
		list = append(list, strings.Replace(f, "--experimental-", "--", 1))
	}
	return list
}

// TestMain makes the test binary act as the etcd that it is built with.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "etcd" {
		etcdmain.Main(os.Args)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "etcd")
	if err = os.Symlink(path, name); err != nil {
		t.Fatal(err)
	}
	return name
}

// forward gives a host's etcd an address here. It is dialled from the host itself,
// so that no partition cuts it.
func forward(t *testing.T, h *netlab.Host) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = in.Close() }()
				out, err := h.Dial(context.WithoutCancel(t.Context()), h.Addr.String()+":2379")
				if err != nil {
					return
				}
				go func() {
					_, _ = io.Copy(out, in) // it ends with either of them
					_ = out.Close()
				}()
				_, _ = io.Copy(in, out)
				_ = out.Close()
			}()
		}
	}()
	return ln.Addr().String()
}
