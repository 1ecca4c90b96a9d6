package bench_test

import (
	"bytes"
	"context"
	"fmt"
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

	"github.com/quorate/quorate/bench"
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

// node is one real etcd.
type node struct {
	name, client, peer, dir string
	flags                   []string
	cmd                     *exec.Cmd
	log                     bytes.Buffer
}

// cluster starts members, which end with the test, and waits until they serve.
func cluster(t *testing.T, members int) []*node {
	t.Helper()
	nodes := make([]*node, members)
	initial := make([]string, members)
	for i := range nodes {
		n := &node{name: fmt.Sprintf("m%d", i+1), client: "http://" + freeport.Address(t), peer: "http://" + freeport.Address(t), dir: t.TempDir()}
		nodes[i], initial[i] = n, n.name+"="+n.peer
	}
	binary := selfAsEtcd(t)
	for _, n := range nodes {
		n.start(t, binary, strings.Join(initial, ","))
	}
	for _, n := range nodes {
		ready(t, n.client)
	}
	return nodes
}

func (n *node) start(t *testing.T, binary, initial string) {
	t.Helper()
	args := append([]string{
		"--name=" + n.name, "--data-dir=" + n.dir, "--listen-client-urls=" + n.client, "--advertise-client-urls=" + n.client,
		"--listen-peer-urls=" + n.peer, "--initial-advertise-peer-urls=" + n.peer, "--initial-cluster=" + initial,
		"--heartbeat-interval=50", "--election-timeout=500", "--logger=zap", "--log-level=warn",
	}, n.flags...)
	n.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), binary, args...)
	n.cmd.Stderr, n.cmd.Stdout = &n.log, &n.log
	n.cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = n.cmd.Process.Kill() // it may have ended
		_ = n.cmd.Wait()
		if t.Failed() {
			text := n.log.String()
			t.Logf("%s:\n%s", n.name, text[max(0, len(text)-1500):])
		}
	})
}

// ready waits until a write works there.
func ready(t *testing.T, url string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		// Each try has a client of its own: one that met a member while it was starting
		// may back off for longer than is waited here.
		c := dial(t, url)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		_, err := c.Get(ctx, "ready")
		cancel()
		_ = c.Close()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not serve within %s: %v", url, patience, err)
		}
		<-tick.C
	}
}

func dial(t *testing.T, url string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, Logger: zap.NewNop(), DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// countKeys below a prefix.
func countKeys(t *testing.T, url, prefix string) int64 {
	t.Helper()
	c := dial(t, url)
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r, err := c.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	return r.Count
}

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

// load is a small one on some members.
func load(mix string, nodes ...*node) bench.Spec {
	s := bench.Default()
	s.Workload = mix
	s.Mix, _ = bench.ParseMix(mix) // the run refuses one without
	s.Duration, s.Keys, s.Clients, s.Seed = bench.Duration(time.Second), 300, 4, 7
	s.Timeout = bench.Duration(5 * time.Second)
	for _, n := range nodes {
		s.Endpoints = append(s.Endpoints, n.client)
	}
	return s
}

// mustRun runs a load, and checks what holds of every one: time and counts fit, no
// key is left.
func mustRun(t *testing.T, s bench.Spec, o bench.Options) *bench.Result {
	t.Helper()
	r, err := bench.Run(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	sum, failed := int64(0), int64(0)
	for _, m := range r.Operations {
		sum, failed = sum+m.Count, failed+m.Errors.Total()
		h, err := bench.Decode(m.Histogram)
		if err != nil || h.TotalCount() != m.Count+m.Errors.Total()-m.Errors.Dropped {
			t.Errorf("%s: the histogram holds %d of %d requests, %v", m.Name, h.TotalCount(), m.Count+m.Errors.Total(), err)
		}
	}
	inSeries := int64(0)
	for _, s := range r.Series {
		inSeries += s.Count
	}
	if sum != r.Total.Count || failed != r.Total.Errors.Total() || inSeries != r.Total.Count {
		t.Errorf("operations %d, series %d, total %d; errors %d of %d", sum, inSeries, r.Total.Count, failed, r.Total.Errors.Total())
	}
	if !s.Keep {
		if n := countKeys(t, s.Endpoints[0], r.Cleanup.Prefix); n > 0 || r.Cleanup.Error != "" {
			t.Errorf("%d keys are left below %s: %s", n, r.Cleanup.Prefix, r.Cleanup.Error)
		}
	}
	return r
}

// authority issues certificates for tests.
func authority(t *testing.T) (roots []byte, issue func(pki.Usage) (cert, key []byte)) {
	t.Helper()
	cert, key, err := pki.NewCA("test CA", 24*time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ca, err := pki.LoadCA(cert, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	return ca.Roots(), func(usage pki.Usage) ([]byte, []byte) {
		private, err := pki.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		csr, err := pki.NewRequest(private, "test")
		if err != nil {
			t.Fatal(err)
		}
		req := pki.Request{Usage: usage, CommonName: "test", Validity: time.Hour, Now: time.Now()}
		if usage != pki.Client {
			req.Hosts = []string{"127.0.0.1", "localhost"}
		}
		b, err := ca.Sign(csr, req)
		if err != nil {
			t.Fatal(err)
		}
		return b.Certificate, private
	}
}
