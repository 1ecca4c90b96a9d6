package inspect_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/inspect"
	"github.com/quorate/quorate/pki"
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
	// binary that is run; this test by default.
	binary string
	token  string
	ca     *authority
	// peers signs the certificates that members show each other.
	peers *authority
	flags []string
}

// node is one member.
type node struct {
	name, client, peer string
	advertised, binary string
	dir, peerDir       string
	cmd                *exec.Cmd
	log                bytes.Buffer
}

type labOptions struct {
	members int
	binary  string
	// binaries are those of the single members, where they differ.
	binaries []string
	// advertise is what the last member says its client URL is, and listen the
	// address where it really is.
	advertise, listen string
	// dir is where the first member keeps its data.
	dir string
	// peers makes the members use TLS among themselves.
	peers *authority
	// ca makes it use TLS between clients and members; clientCerts demands theirs.
	ca          *authority
	clientCerts bool
	server      func(*pki.Request)
	flags       []string
	// started are the members that are started; all when it is 0.
	started int
}

func newLab(t *testing.T, o labOptions) *lab {
	t.Helper()
	l := &lab{t: t, binary: o.binary, ca: o.ca, peers: o.peers, flags: o.flags, token: t.Name() + strconv.FormatInt(time.Now().UnixNano(), 10)}
	if l.binary == "" {
		l.binary = selfAsEtcd(t)
	}
	scheme := "http"
	if o.ca != nil {
		scheme = "https"
		cert, key := o.ca.issue(t, pki.Server, "server", o.server)
		dir := t.TempDir()
		l.flags = append(l.flags, "--cert-file="+write(t, dir, "s.crt", cert), "--key-file="+write(t, dir, "s.key", key))
		if o.clientCerts {
			l.flags = append(l.flags, "--client-cert-auth", "--trusted-ca-file="+write(t, dir, "ca.crt", o.ca.roots()))
		}
	}
	peerScheme := "http"
	if o.peers != nil {
		peerScheme = "https"
	}
	for i := range o.members {
		l.members = append(l.members, &node{
			name: fmt.Sprintf("m%d", i+1), dir: t.TempDir(),
			client: scheme + "://" + freeport.Address(t), peer: peerScheme + "://" + freeport.Address(t),
		})
	}
	l.members[0].dir = cmp.Or(o.dir, l.members[0].dir)
	if o.listen != "" {
		l.members[len(l.members)-1].client = scheme + "://" + o.listen
	}
	if o.advertise != "" {
		l.members[len(l.members)-1].advertised = o.advertise
	}
	for i, b := range o.binaries {
		l.members[i].binary = b
	}
	started := l.members
	if o.started > 0 {
		started = l.members[:o.started]
	}
	for _, n := range started {
		l.start(n, "--initial-cluster="+l.initial(l.members...), "--initial-cluster-state=new", "--initial-cluster-token="+l.token)
	}
	return l
}

// peerFlags has a member show a certificate of its own to the others.
func (l *lab) peerFlags(n *node) []string {
	l.t.Helper()
	if l.peers == nil {
		return nil
	}
	if n.peerDir == "" {
		n.peerDir = l.t.TempDir()
		write(l.t, n.peerDir, "ca.crt", l.peers.roots())
		l.certify(n, l.peers)
	}
	file := func(name string) string { return filepath.Join(n.peerDir, name) }
	return []string{
		"--peer-client-cert-auth", "--peer-trusted-ca-file=" + file("ca.crt"),
		"--peer-cert-file=" + file("peer.crt"), "--peer-key-file=" + file("peer.key"),
	}
}

// certify puts a certificate in a member's place; etcd reads it for each connection.
func (l *lab) certify(n *node, by *authority) {
	l.t.Helper()
	cert, key := by.issue(l.t, pki.Peer, n.name, nil)
	write(l.t, n.peerDir, "peer.crt", cert)
	write(l.t, n.peerDir, "peer.key", key)
}

func (l *lab) initial(members ...*node) string {
	parts := make([]string, 0, len(members))
	for _, n := range members {
		parts = append(parts, n.name+"="+n.peer)
	}
	return strings.Join(parts, ",")
}

// start runs a member, which ends with the test.
func (l *lab) start(n *node, more ...string) {
	l.t.Helper()
	args := append([]string{
		"--name=" + n.name, "--data-dir=" + n.dir, "--listen-client-urls=" + n.client, "--advertise-client-urls=" + cmp.Or(n.advertised, n.client),
		"--listen-peer-urls=" + n.peer, "--initial-advertise-peer-urls=" + n.peer, "--heartbeat-interval=50", "--election-timeout=500",
		"--logger=zap", "--log-level=warn",
	}, l.flags...)
	args = append(args, l.peerFlags(n)...)
	binary := cmp.Or(n.binary, l.binary)
	cmd := exec.CommandContext(context.WithoutCancel(l.t.Context()), binary, append(args, more...)...)
	cmd.Stderr, cmd.Stdout = &n.log, &n.log
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	n.cmd = cmd
	l.t.Cleanup(func() {
		n.stop()
		if l.t.Failed() {
			l.t.Logf("%s:\n%s", n.name, tail(n.log.String()))
		}
	})
}

func tail(s string) string { return s[max(0, len(s)-1500):] }

func (n *node) stop() {
	if n.cmd != nil {
		_ = n.cmd.Process.Kill() // it may have ended
		_ = n.cmd.Wait()
		n.cmd = nil
	}
}

// end stops a member as systemd does: what it has is written.
func (n *node) end(t *testing.T) {
	t.Helper()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = n.cmd.Wait() // it ends with the signal
	n.cmd = nil
}

// ready waits until the cluster serves at all the nodes.
func (l *lab) ready(nodes ...*node) *lab {
	l.t.Helper()
	if len(nodes) == 0 {
		nodes = l.members
	}
	for _, n := range nodes {
		l.until("ready at "+n.name, func(ctx context.Context) error {
			// Each try with a client of its own: one that met a member while it was
			// starting may back off for longer than is waited here.
			_, err := l.client(n).Get(ctx, "ready")
			return err
		})
	}
	return l
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
	return l.clientAs(n, "", "")
}

func (l *lab) clientAs(n *node, user, password string) *clientv3.Client {
	l.t.Helper()
	cfg := clientv3.Config{Endpoints: []string{n.client}, Username: user, Password: password, Logger: zap.NewNop(), DialTimeout: 5 * time.Second}
	if l.ca != nil {
		cfg.TLS = l.ca.clientTLS(l.t)
	}
	c, err := clientv3.New(cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = c.Close() })
	return c
}

// must runs a call on the cluster.
func (l *lab) must(what string, do func(ctx context.Context) error) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 20*time.Second)
	defer cancel()
	if err := do(ctx); err != nil {
		l.t.Fatalf("%s: %v", what, err)
	}
}

func (l *lab) urls(nodes ...*node) []string {
	if len(nodes) == 0 {
		nodes = l.members
	}
	list := make([]string, 0, len(nodes))
	for _, n := range nodes {
		list = append(list, n.client)
	}
	return list
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

// selfAsEtcd is this test binary under the name etcd.
func selfAsEtcd(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "etcd")
	if err = os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func write(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// authority is a CA for tests.
type authority struct {
	ca   *pki.CA
	cert []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	return newAuthorityFor(t, 1000*24*time.Hour, time.Now().Add(-200*24*time.Hour))
}

func newAuthorityFor(t *testing.T, validity time.Duration, from time.Time) *authority {
	t.Helper()
	cert, key, err := pki.NewCA("test CA", validity, from)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := pki.LoadCA(cert, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{ca: ca, cert: cert}
}

func (a *authority) roots() []byte { return a.ca.Roots() }

// issue makes a certificate and its key.
func (a *authority) issue(t *testing.T, usage pki.Usage, name string, edit func(*pki.Request)) (cert, key []byte) {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.NewRequest(key, name)
	if err != nil {
		t.Fatal(err)
	}
	req := pki.Request{Usage: usage, CommonName: name, Validity: 365 * 24 * time.Hour, Now: time.Now()}
	if usage != pki.Client {
		req.Hosts = []string{"127.0.0.1", "localhost"}
	}
	if edit != nil {
		edit(&req)
	}
	b, err := a.ca.Sign(csr, req)
	if err != nil {
		t.Fatal(err)
	}
	return b.Certificate, key
}

func (a *authority) clientTLS(t *testing.T) *tls.Config {
	t.Helper()
	cert, key := a.issue(t, pki.Client, "root", nil)
	cfg, err := pki.ClientTLS(cert, key, a.roots())
	if err != nil {
		t.Fatal(err)
	}
	return cfg
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
	target := etcd.Target{Endpoint: n.client}
	if l.ca != nil {
		target.TLS = l.ca.clientTLS(t)
	}
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
	_, address, _ := strings.Cut(n.client, "://")
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
	if err := n.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
}
