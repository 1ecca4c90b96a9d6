package e2e_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/test/freeport"
)

// foreign is an etcd cluster that Quorate did not make.
type foreign struct {
	t       *testing.T
	binary  string
	dir     string
	https   bool
	mutual  bool
	ca      *pki.CA
	caPEM   []byte
	members []*foreignMember

	advertise string
	args      []string
}

type foreignMember struct {
	name   string
	client string
	peer   string
	cmd    *exec.Cmd
	log    *bytes.Buffer
}

type foreignOptions struct {
	// Binary of etcd; this test's own etcd when empty.
	Binary  string
	Members int
	// TLS serves https, and Mutual wants client certificates too.
	TLS, Mutual bool
	// Names in the servers' certificates; 127.0.0.1 when empty.
	Names []string
	// Validity of the servers' certificates; a day when 0.
	Validity time.Duration
	// Advertise is the client URL that every member tells others, instead of its own.
	Advertise string
	// Args are further arguments.
	Args []string
}

// startForeign starts an etcd cluster and waits until it serves.
func startForeign(t *testing.T, o foreignOptions) *foreign {
	t.Helper()
	f := &foreign{t: t, binary: o.Binary, dir: t.TempDir(), https: o.TLS || o.Mutual, mutual: o.Mutual, advertise: o.Advertise, args: o.Args}
	if f.binary == "" {
		self, err := os.Executable()
		must(t, err)
		f.binary = filepath.Join(f.dir, "etcd")
		must(t, os.Symlink(self, f.binary))
	}
	if f.https {
		certPEM, keyPEM, err := pki.NewCA("foreign", 24*time.Hour, time.Now())
		must(t, err)
		f.ca, err = pki.LoadCA(certPEM, keyPEM, certPEM)
		must(t, err)
		f.caPEM = certPEM
		must(t, os.WriteFile(filepath.Join(f.dir, "ca.crt"), certPEM, 0o600))
		f.certify(o.Names, o.Validity)
	}
	scheme := "http"
	if f.https {
		scheme = "https"
	}
	for i := range o.Members {
		f.members = append(f.members, &foreignMember{
			name: fmt.Sprintf("m%d", i+1), client: scheme + "://" + freeport.Address(t), peer: "http://" + freeport.Address(t),
		})
	}
	t.Cleanup(func() {
		for i := range f.members {
			f.kill(i)
		}
	})
	for i := range f.members {
		f.start(i)
	}
	f.awaitServing()
	return f
}

// certify makes the servers' certificate anew; etcd reads it for the next connection.
func (f *foreign) certify(names []string, validity time.Duration) {
	f.t.Helper()
	if len(names) == 0 {
		names = []string{"127.0.0.1"}
	}
	if validity == 0 {
		validity = 24 * time.Hour
	}
	cert, key := f.sign(pki.Server, "server", names, validity)
	for name, data := range map[string][]byte{"server.crt": cert, "server.key": key} {
		path := filepath.Join(f.dir, name)
		must(f.t, os.WriteFile(path+".new", data, 0o600))
		must(f.t, os.Rename(path+".new", path))
	}
}

func (f *foreign) sign(usage pki.Usage, name string, hosts []string, validity time.Duration) (cert, key []byte) {
	f.t.Helper()
	key, err := pki.NewKey()
	must(f.t, err)
	csr, err := pki.NewRequest(key, name)
	must(f.t, err)
	b, err := f.ca.Sign(csr, pki.Request{Usage: usage, CommonName: name, Hosts: hosts, Validity: validity, Now: time.Now()})
	must(f.t, err)
	return b.Certificate, key
}

func (f *foreign) start(i int) {
	f.t.Helper()
	m := f.members[i]
	var initial []string
	for _, o := range f.members {
		initial = append(initial, o.name+"="+o.peer)
	}
	args := []string{
		"--name", m.name, "--data-dir", filepath.Join(f.dir, m.name),
		"--listen-client-urls", m.client, "--advertise-client-urls", cmp.Or(f.advertise, m.client),
		"--listen-peer-urls", m.peer, "--initial-advertise-peer-urls", m.peer,
		"--initial-cluster", strings.Join(initial, ","), "--initial-cluster-token", f.dir,
		"--bcrypt-cost", "4", // a login takes seconds in a slow test binary otherwise
	}
	if f.https {
		args = append(args, "--cert-file", filepath.Join(f.dir, "server.crt"), "--key-file", filepath.Join(f.dir, "server.key"))
	}
	if f.mutual {
		args = append(args, "--client-cert-auth", "--trusted-ca-file", filepath.Join(f.dir, "ca.crt"))
	}
	args = append(args, f.args...)
	m.log = &bytes.Buffer{}
	m.cmd = exec.CommandContext(context.WithoutCancel(f.t.Context()), f.binary, args...)
	m.cmd.Stderr, m.cmd.Stdout = m.log, m.log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(f.t, m.cmd.Start())
}

func (f *foreign) kill(i int) {
	if cmd := f.members[i].cmd; cmd != nil {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		f.members[i].cmd = nil
	}
}

func (f *foreign) signal(i int, s syscall.Signal) {
	f.t.Helper()
	must(f.t, f.members[i].cmd.Process.Signal(s))
}

func (f *foreign) endpoints() []string {
	var all []string
	for _, m := range f.members {
		all = append(all, m.client)
	}
	return all
}

// client is one that may do everything.
func (f *foreign) client(user, password string) *clientv3.Client {
	f.t.Helper()
	c, err := f.dial(user, password)
	must(f.t, err)
	return c
}

func (f *foreign) dial(user, password string) (*clientv3.Client, error) {
	cfg := clientv3.Config{
		Endpoints: f.endpoints(), DialTimeout: 5 * time.Second, Username: user, Password: password, Logger: zap.NewNop(),
	}
	if f.https {
		cert, key := f.sign(pki.Client, "root", nil, time.Hour)
		var err error
		if cfg.TLS, err = pki.ClientTLS(cert, key, f.caPEM); err != nil {
			return nil, err
		}
		// The servers may carry names of no use.
		pool := cfg.TLS.RootCAs
		cfg.TLS = &tls.Config{Certificates: cfg.TLS.Certificates, RootCAs: pool, InsecureSkipVerify: true}
	}
	return clientv3.New(cfg)
}

func (f *foreign) awaitServing() {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 30*time.Second)
	defer cancel()
	c := f.client("", "")
	defer func() { _ = c.Close() }()
	for {
		callCtx, cancelCall := context.WithTimeout(ctx, time.Second)
		_, err := c.Get(callCtx, "x")
		cancelCall()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			f.t.Fatalf("the foreign cluster does not serve: %v\n%s", err, f.members[0].log)
		}
	}
}

// authOn makes root and a user without any role, and turns authentication on.
func (f *foreign) authOn(user, password string) {
	f.t.Helper()
	c := f.client("", "")
	defer func() { _ = c.Close() }()
	ctx := f.t.Context()
	_, err := c.UserAdd(ctx, "root", "root")
	must(f.t, err)
	_, err = c.UserGrantRole(ctx, "root", "root")
	must(f.t, err)
	_, err = c.UserAdd(ctx, user, password)
	must(f.t, err)
	_, err = c.AuthEnable(ctx)
	must(f.t, err)
}

// position is the revision and the raft index of the first member.
func (f *foreign) position(user, password string) (revision int64, index uint64) {
	f.t.Helper()
	c := f.client(user, password)
	defer func() { _ = c.Close() }()
	st, err := c.Status(f.t.Context(), f.members[0].client)
	must(f.t, err)
	return st.Header.GetRevision(), st.RaftIndex
}
