// Package fleetlab runs a whole fleet for tests: a real server and real agents, each on a
// host of its own (package netlab), with the binary that people run.
//
//	l := fleetlab.New(t, []netlab.HostSpec{{Name: "a1", Zone: "a"}, {Name: "b1", Zone: "b"}})
//	l.Create(&v1alpha1.EtcdCluster{…})
//	l.Healthy("lab")
//	c := l.Dial("lab")
//
// Everything ends with the test. If it fails, the ends of all logs are shown.
package fleetlab

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/app"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
	"github.com/quorate/quorate/test/build"
	"github.com/quorate/quorate/test/etcdlab"
	"github.com/quorate/quorate/test/netlab"
	"github.com/quorate/quorate/test/slow"
)

// Patience bounds what a test waits for.
const Patience = 3 * time.Minute

// Namespace of the clusters.
const Namespace = "default"

// controlHost is the host that the server runs on.
const controlHost = "control"

// Lab is a fleet.
type Lab struct {
	// Net is the network; its host "control" is the server's.
	Net *netlab.Lab
	// Client is an admin's.
	Client *remote.Client
	// Dir holds the data directory of each host, by its name.
	Dir string

	tb      testing.TB
	binary  string
	url     string
	roots   []byte
	control *netlab.Host
}

// New starts a server, and an agent on every host that is asked for. It skips the test
// where no network can be made, and unless slow tests were asked for.
func New(tb testing.TB, hosts []netlab.HostSpec) *Lab {
	tb.Helper()
	slow.Only(tb)
	if err := netlab.Available(); err != nil {
		tb.Skip(err)
	}
	l := &Lab{tb: tb, Dir: tb.TempDir()}
	l.binary = filepath.Join(l.Dir, "quorate")
	build.Quorate(tb, l.binary, "")
	net, err := netlab.New(netlab.Options{Hosts: append([]netlab.HostSpec{{Name: controlHost, Zone: controlHost}}, hosts...)})
	l.must(err)
	tb.Cleanup(func() {
		if err := net.Close(); err != nil {
			tb.Errorf("end the network: %v", err)
		}
	})
	tb.Cleanup(l.showLogs)
	l.Net, l.control = net, net.Host(controlHost)
	l.startServer()
	for _, h := range hosts {
		l.startAgent(h.Name)
	}
	for _, h := range hosts {
		l.Eventually(func(ctx context.Context) error {
			host := &v1alpha1.EtcdHost{}
			if err := l.Client.Get(ctx, store.Key{Name: h.Name}, host); err != nil {
				return err
			}
			if !v1alpha1.IsTrue(host.Status.Conditions, v1alpha1.ConditionReady) {
				return fmt.Errorf("host %s is not ready: %+v", h.Name, host.Status.Conditions)
			}
			return nil
		})
	}
	return l
}

func (l *Lab) must(err error) {
	l.tb.Helper()
	if err != nil {
		l.tb.Fatal(err)
	}
}

func (l *Lab) write(name string, content []byte) string {
	l.tb.Helper()
	path := filepath.Join(l.Dir, name)
	l.must(os.WriteFile(path, content, 0o600))
	return path
}

func (l *Lab) startServer() {
	l.tb.Helper()
	authority := etcdlab.NewAuthority(l.tb)
	addr := l.control.Addr.String()
	cert, key := authority.Issue(l.tb, pki.Server, "quorate", func(r *pki.Request) { r.Hosts = append(r.Hosts, addr) })
	l.roots = authority.Roots()
	l.write("ca.crt", l.roots)
	home := filepath.Join(l.Dir, controlHost)
	l.url = "https://" + addr + ":7379"
	l.start(controlHost, "server", "--data-dir", home, "--listen", addr+":7379",
		"--tls-cert-file", l.write("server.crt", cert), "--tls-key-file", l.write("server.key", key))
	config, err := pki.ClientTLS(nil, nil, l.roots)
	l.must(err)
	transport := &http.Transport{DialContext: l.control.DialContext, TLSClientConfig: config, MaxIdleConnsPerHost: 32}
	l.tb.Cleanup(transport.CloseIdleConnections)
	l.Eventually(func(ctx context.Context) error {
		known, err := remote.LoadConfig(app.ClientConfigFile(home))
		if err != nil {
			return err
		}
		l.Client, err = remote.New(remote.Config{Server: l.url, Token: known.Token}, remote.Options{Transport: transport})
		if err != nil {
			return err
		}
		_, err = l.Client.Version(ctx)
		return err
	})
}

func (l *Lab) startAgent(host string) {
	l.tb.Helper()
	h := l.Net.Host(host)
	token, err := server.ResetToken(l.tb.Context(), l.Client, "agent-"+host, server.RoleAgent, host)
	l.must(err)
	l.start(host, "agent", "--data-dir", filepath.Join(l.Dir, host), "--server", l.url, "--ca-file", filepath.Join(l.Dir, "ca.crt"),
		"--token-file", l.write(host+".token", []byte(token)), "--host", host, "--address", h.Addr.String(), "--zone", h.Zone, "--allow-faults")
}

// start starts a command of the binary on a host.
func (l *Lab) start(host string, args ...string) {
	l.tb.Helper()
	log, err := os.OpenFile(filepath.Join(l.Dir, host+".log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	l.must(err)
	cmd := exec.Command(l.binary, args...) //nolint:noctx // it is ended below
	cmd.Stdout, cmd.Stderr = log, log
	l.must(l.Net.Host(host).Start(cmd))
	l.must(log.Close())
	l.tb.Cleanup(func() { l.stop(cmd) })
}

func (l *Lab) stop(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
}

// Eventually asks until the answer is no error, and fails with the last one.
func (l *Lab) Eventually(ask func(ctx context.Context) error) {
	l.tb.Helper()
	ctx, cancel := context.WithTimeout(l.tb.Context(), Patience)
	defer cancel()
	every := time.NewTicker(50 * time.Millisecond)
	defer every.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			l.tb.Fatalf("not within %s: %v", Patience, err)
		}
	}
}

// Create defaults a cluster and creates it in Namespace.
func (l *Lab) Create(c *v1alpha1.EtcdCluster) {
	l.tb.Helper()
	c.Namespace = Namespace
	v1alpha1.SetType(c, v1alpha1.KindCluster.Kind, v1alpha1.KindCluster.APIVersion)
	l.must(schema.Default(c))
	l.must(l.Client.Create(l.tb.Context(), c))
}

// Cluster reads a cluster.
func (l *Lab) Cluster(name string) *v1alpha1.EtcdCluster {
	l.tb.Helper()
	c := &v1alpha1.EtcdCluster{}
	l.must(l.Client.Get(l.tb.Context(), store.Key{Namespace: Namespace, Name: name}, c))
	return c
}

// Members lists a cluster's members.
func (l *Lab) Members(cluster string) []*v1alpha1.EtcdMember {
	l.tb.Helper()
	objects, err := l.Client.List(l.tb.Context(), v1alpha1.KindMember, store.ListOptions{
		Namespace: Namespace, Labels: map[string]string{v1alpha1.LabelCluster: cluster},
	})
	l.must(err)
	members := make([]*v1alpha1.EtcdMember, 0, len(objects))
	for _, o := range objects {
		if m, ok := o.(*v1alpha1.EtcdMember); ok {
			members = append(members, m)
		}
	}
	return members
}

// Healthy waits until all members that are wanted serve.
func (l *Lab) Healthy(clusters ...string) {
	l.tb.Helper()
	for _, name := range clusters {
		l.Eventually(func(ctx context.Context) error {
			v, err := l.Client.View(ctx, store.Key{Namespace: Namespace, Name: name})
			if err == nil && v.State != v1alpha1.StateHealthy {
				err = fmt.Errorf("cluster %s is %s: %s", name, v.State, v.Message)
			}
			return err
		})
	}
}

// showLogs shows the end of each log of a test that failed.
func (l *Lab) showLogs() {
	if !l.tb.Failed() {
		return
	}
	logs, _ := filepath.Glob(filepath.Join(l.Dir, "*.log")) // the pattern is right
	for _, path := range logs {
		text, _ := os.ReadFile(path)
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		l.tb.Logf("end of %s:\n%s", filepath.Base(path), strings.Join(lines[max(len(lines)-12, 0):], "\n"))
	}
}
