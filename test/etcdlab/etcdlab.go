// Package etcdlab starts clusters of real etcd processes for tests.
//
//	func TestMain(m *testing.M) { etcdlab.Main(m) }
//
//	l := etcdlab.New(t, etcdlab.Options{Members: 3}).Ready()
//	l.Members[0].Kill()
//	c := l.Members[1].Dial()
//
// Every member is a process of its own: killed, paused and started again as a test
// likes, and gone when the test ends, be it by a panic. If the test fails, it shows
// the end of each log. What one package alone does with a cluster stays with its tests.
package etcdlab

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/etcdmain"

	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/test/freeport"
	"github.com/quorate/quorate/test/netlab"
)

// Patience bounds what a test waits for.
const Patience = 60 * time.Second

// Main is a TestMain that makes the test binary act as etcd too.
func Main(m *testing.M) {
	ActAsEtcd()
	os.Exit(m.Run())
}

// ActAsEtcd is for a TestMain that does more than Main: called under the name etcd, the
// process is etcd, and does not come back.
func ActAsEtcd() {
	if filepath.Base(os.Args[0]) == "etcd" {
		etcdmain.Main(os.Args)
		os.Exit(0)
	}
}

// Options say what to start; without any it is one member of the etcd that this module
// is built with.
type Options struct {
	// Members are how many there are.
	Members int
	// Binary of etcd; the test binary itself, as Main makes it, when empty.
	Binary string
	// Flags of every member, after those that all labs give: the last one counts.
	Flags []string
	// Hosts of a network where the members run, in place of this machine.
	Hosts []*netlab.Host
	// CA has clients use TLS; with ClientCerts they show a certificate of it too.
	CA          *Authority
	ClientCerts bool
	// Server changes the certificate that the members show to clients.
	Server func(*pki.Request)
	// Peers has the members use TLS among themselves.
	Peers *Authority
	// Edit changes the members before they are started.
	Edit func(members []*Member)
}

// Cluster is a number of members.
type Cluster struct {
	Members []*Member
	// Dir holds the certificates of TLS: ca.crt, server.crt and server.key.
	Dir string
	// User and Password of clients, if they need any.
	User, Password string
	// TLS of clients; nil without.
	TLS *tls.Config
	// Connect is how clients reach the members; nil: from their hosts.
	Connect func(ctx context.Context, address string) (net.Conn, error)

	tb      testing.TB
	options Options
	flags   []string
}

// New starts a cluster, which ends with the test. Ready waits for it.
func New(tb testing.TB, o Options) *Cluster {
	tb.Helper()
	c := &Cluster{tb: tb, options: o, Dir: tb.TempDir()}
	if c.options.Binary == "" {
		c.options.Binary = self(tb, c.Dir)
	}
	c.flags = c.tlsFlags()
	for i := range max(o.Members, 1) {
		m := c.member(fmt.Sprintf("m%d", i+1))
		if i < len(o.Hosts) {
			m.Host = o.Hosts[i]
			m.Client, m.Peer = c.urls(m.Host.Addr.String()+":2379", m.Host.Addr.String()+":2380")
		}
		c.Members = append(c.Members, m)
	}
	if o.Edit != nil {
		o.Edit(c.Members)
	}
	initial := []string{"--initial-cluster=" + initialCluster(c.Members), "--initial-cluster-token=" + c.Dir}
	for _, m := range c.Members {
		m.initial = initial
		m.Start()
	}
	return c
}

// Joining is a member for a running cluster: add its Peer, then start it.
func (c *Cluster) Joining(name string) *Member {
	c.tb.Helper()
	m := c.member(name)
	m.initial = []string{"--initial-cluster=" + initialCluster(slices.Concat(c.Members, []*Member{m})), "--initial-cluster-state=existing"}
	return m
}

// Ready waits until the members serve; all of them when none is named.
func (c *Cluster) Ready(members ...*Member) *Cluster {
	c.tb.Helper()
	if len(members) == 0 {
		members = c.Members
	}
	for _, m := range members {
		m.Ready()
	}
	return c
}

// EnableAuth makes a user root with a password and turns authentication on. From now on
// root asks.
func (c *Cluster) EnableAuth(password string) {
	c.tb.Helper()
	ctx, cancel := context.WithTimeout(c.tb.Context(), Patience)
	defer cancel()
	client := c.Members[0].Dial()
	for _, step := range []func() error{
		func() error { _, err := client.UserAdd(ctx, "root", password); return err },
		func() error { _, err := client.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := client.AuthEnable(ctx); return err },
		client.Close,
	} {
		if err := step(); err != nil {
			c.tb.Fatalf("turn authentication on: %v", err)
		}
	}
	c.User, c.Password = "root", password
}

// URLs are the clients' endpoints of the members; of all when none is named.
func (c *Cluster) URLs(members ...*Member) []string {
	if len(members) == 0 {
		members = c.Members
	}
	list := make([]string, 0, len(members))
	for _, m := range members {
		list = append(list, m.Client)
	}
	return list
}

// Until tries again until it works.
func Until(tb testing.TB, what string, try func(ctx context.Context) error) {
	tb.Helper()
	deadline := time.Now().Add(Patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ctx, cancel := context.WithTimeout(tb.Context(), 3*time.Second)
		err := try(ctx)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("not within %s: %s: %v", Patience, what, err)
		}
		<-tick.C
	}
}

// member is one that is not started yet, with addresses of its own.
func (c *Cluster) member(name string) *Member {
	c.tb.Helper()
	home := filepath.Join(c.tb.TempDir(), name)
	if err := os.Mkdir(home, 0o700); err != nil {
		c.tb.Fatal(err)
	}
	m := &Member{cluster: c, Name: name, Binary: c.options.Binary, Home: home, Dir: filepath.Join(home, "data"), LogFile: filepath.Join(home, "log")}
	m.Client, m.Peer = c.urls(freeport.Address(c.tb), freeport.Address(c.tb))
	m.flags = append(m.flags, c.flags...)
	if ca := c.options.Peers; ca != nil {
		ca.Write(c.tb, home, "peer", pki.Peer, nil)
		write(c.tb, home, "ca.crt", ca.Roots())
		m.flags = append(
			m.flags, "--peer-client-cert-auth", "--peer-trusted-ca-file="+filepath.Join(home, "ca.crt"),
			"--peer-cert-file="+filepath.Join(home, "peer.crt"), "--peer-key-file="+filepath.Join(home, "peer.key"),
		)
	}
	c.tb.Cleanup(func() {
		m.Kill()
		if text := m.Log(); c.tb.Failed() && text != "" {
			c.tb.Logf("the end of %s's log:\n%s", name, text[max(0, len(text)-1500):])
		}
	})
	return m
}

// urls of a member's addresses.
func (c *Cluster) urls(client, peer string) (clientURL, peerURL string) {
	scheme := map[bool]string{false: "http://", true: "https://"}
	return scheme[c.options.CA != nil] + client, scheme[c.options.Peers != nil] + peer
}

// tlsFlags write what the members show to clients, and say where it is.
func (c *Cluster) tlsFlags() []string {
	c.tb.Helper()
	ca := c.options.CA
	if ca == nil {
		return nil
	}
	c.TLS = ca.ClientTLS(c.tb)
	ca.Write(c.tb, c.Dir, "server", pki.Server, c.options.Server)
	write(c.tb, c.Dir, "ca.crt", ca.Roots())
	flags := []string{"--cert-file=" + filepath.Join(c.Dir, "server.crt"), "--key-file=" + filepath.Join(c.Dir, "server.key")}
	if c.options.ClientCerts {
		flags = append(flags, "--client-cert-auth", "--trusted-ca-file="+filepath.Join(c.Dir, "ca.crt"))
	}
	return flags
}
