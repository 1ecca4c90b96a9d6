package etcdlab

import (
	"cmp"
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/quorate/quorate/test/netlab"
)

// Member is one etcd, with the addresses that it keeps over restarts.
type Member struct {
	Name string
	// Client and Peer are the URLs where clients and members reach it.
	Client, Peer string
	// Listen is its client URL where Client only leads there, and Advertised what it
	// says of it where that is something else again.
	Listen, Advertised string
	// Binary that is run.
	Binary string
	// Home is its working directory, and Dir where it keeps its data.
	Home, Dir string
	// LogFile is what all its runs have said.
	LogFile string
	// Flags are its own and come last, and Env adds to its environment: a PATH.
	Flags, Env []string
	// Host where it runs; nil: here.
	Host *netlab.Host

	cluster *Cluster
	// flags of TLS, and those of its first start.
	flags, initial []string

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
	// from is where the log of the present run begins.
	from int64
}

// Start runs the member, from the test's own goroutine.
func (m *Member) Start() {
	m.cluster.tb.Helper()
	if err := m.TryStart(); err != nil {
		m.cluster.tb.Fatalf("%s: %v", m.Name, err)
	}
}

// TryStart runs the member.
func (m *Member) TryStart() (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	log, err := os.OpenFile(m.LogFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	info, err := log.Stat()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(context.WithoutCancel(m.cluster.tb.Context()), m.Binary, m.args()...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = m.Home, log, log
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, m.Env...)
	begin := cmd.Start
	if m.Host != nil {
		begin = func() error { return m.Host.Start(cmd) } // the network ends it
	} else {
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	}
	if err = begin(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // a test looks at what it left
		close(exited)
	}()
	m.cmd, m.exited, m.from = cmd, exited, info.Size()
	return nil
}

func (m *Member) args() []string {
	listen := cmp.Or(m.Listen, m.Client)
	return slices.Concat([]string{
		"--name=" + m.Name, "--data-dir=" + m.Dir, "--listen-client-urls=" + listen, "--advertise-client-urls=" + cmp.Or(m.Advertised, listen),
		"--listen-peer-urls=" + m.Peer, "--initial-advertise-peer-urls=" + m.Peer,
		"--heartbeat-interval=50", "--election-timeout=500", "--logger=zap", "--log-level=warn",
		"--bcrypt-cost=4", // a login takes seconds in a slow test binary otherwise
	}, m.initial, m.flags, m.cluster.options.Flags, m.Flags)
}

// Kill is kill -9, and waits until the process is gone.
func (m *Member) Kill() { m.end(syscall.SIGKILL) }

// Stop ends the member as systemd does: what it has is written.
func (m *Member) Stop() { m.end(syscall.SIGTERM) }

func (m *Member) end(s syscall.Signal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd != nil {
		_ = m.cmd.Process.Signal(s) // it may have ended
		<-m.exited
	}
}

// Restart is a crash.
func (m *Member) Restart() {
	m.cluster.tb.Helper()
	m.Kill()
	m.Start()
}

// Signal its process.
func (m *Member) Signal(s syscall.Signal) error {
	m.mu.Lock()
	process := m.cmd.Process
	m.mu.Unlock()
	return process.Signal(s)
}

// PID of the process that was started last.
func (m *Member) PID() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cmd.Process.Pid
}

// Exited is closed when the process that was started last is gone.
func (m *Member) Exited() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.exited
}

// Log is what the member has said since it was started last.
func (m *Member) Log() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	text, err := os.ReadFile(m.LogFile)
	if err != nil {
		return "" // it was never started
	}
	return string(text[m.from:])
}

// Ready waits until the member answers a linearizable read.
func (m *Member) Ready() {
	m.cluster.tb.Helper()
	Until(m.cluster.tb, m.Name+" serves", m.Ask)
}

// Ask reads linearizably, with a new client each time: one that met a member while it
// was starting may back off for longer than a test waits.
func (m *Member) Ask(ctx context.Context) error {
	c, err := m.TryDial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_, err = c.Get(ctx, "ready")
	return err
}

// Dial makes a client of this member alone, which ends with the test.
func (m *Member) Dial() *clientv3.Client {
	m.cluster.tb.Helper()
	c, err := m.TryDial()
	if err != nil {
		m.cluster.tb.Fatalf("a client of %s: %v", m.Name, err)
	}
	m.cluster.tb.Cleanup(func() { _ = c.Close() })
	return c
}

// fast makes dialling again after a crash quick.
var fast = backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.2, MaxDelay: 300 * time.Millisecond}

// TryDial makes a client that the caller closes. It fails where the user can't log in.
func (m *Member) TryDial() (*clientv3.Client, error) {
	c := m.cluster
	cfg := clientv3.Config{
		Endpoints: []string{m.Client}, Username: c.User, Password: c.Password, TLS: c.TLS, Logger: zap.NewNop(), DialTimeout: 5 * time.Second,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{Backoff: fast, MinConnectTimeout: time.Second})},
	}
	if connect := c.Connect; connect != nil {
		cfg.DialOptions = append(cfg.DialOptions, grpc.WithContextDialer(connect))
	} else if m.Host != nil && m.Listen == "" {
		cfg.DialOptions = append(cfg.DialOptions, grpc.WithContextDialer(m.Host.Dial))
	}
	return clientv3.New(cfg)
}

// initialCluster names members for etcd's flag.
func initialCluster(members []*Member) string {
	parts := make([]string, 0, len(members))
	for _, m := range members {
		parts = append(parts, m.Name+"="+m.Peer)
	}
	return strings.Join(parts, ",")
}
