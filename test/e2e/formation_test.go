package e2e_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd/srv"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/formation/discovery"
	"github.com/quorate/quorate/formation/dns"
	"github.com/quorate/quorate/internal/version"
	"github.com/quorate/quorate/release"
	"github.com/quorate/quorate/test/etcdlab"
	"github.com/quorate/quorate/test/slow"
)

// formationLab is a lab with a discovery service and, once asked for, a name server.
type formationLab struct {
	*lab
	meeting *discovery.Service
}

// newFormationLab has the etcd of one version.
func newFormationLab(t *testing.T, v string) *formationLab {
	t.Helper()
	l := &formationLab{lab: newLab(t)}
	if v != version.Etcd() {
		_, err := l.releases.AddDirectory(t.Context(), etcdlab.Older(t, v), release.AddOptions{Version: v})
		must(t, err)
	}
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	l.meeting, err = discovery.Open(ctx, discovery.Options{Store: l.store, URL: "https://" + listener.Addr().String(), Logger: l.log})
	must(t, err)
	l.serve(cancel, func() error { return l.meeting.Serve(ctx, listener) })
	l.runAgent()
	return l
}

// serve runs what ends with the test, once cancel was called.
func (l *formationLab) serve(cancel context.CancelFunc, run func() error) {
	done := make(chan error, 1)
	go func() { done <- run() }()
	l.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Error(err)
		}
	})
}

// nameServer answers for the lab's clusters at an address of this process's own.
func (l *formationLab) nameServer(at netip.AddrPort) {
	l.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(l.t.Context()))
	s, err := dns.Listen(ctx, at.String(), l.store, l.log)
	must(l.t, err)
	l.serve(cancel, func() error { return s.Serve(ctx) })
}

// declare makes the cluster's object.
func (l *formationLab) declare(ctx context.Context, v string, size int, f v1alpha1.FormationSpec) {
	l.t.Helper()
	check := false
	c := &v1alpha1.EtcdCluster{Spec: v1alpha1.EtcdClusterSpec{Version: v, Replicas: int32(size), Formation: f}}
	c.Namespace, c.Name = labKey.Namespace, labKey.Name
	c.Spec.Etcd.InitialCorruptCheck = &check
	c.Spec.Etcd.HeartbeatInterval, c.Spec.Etcd.ElectionTimeout = "50ms", "500ms"
	v1alpha1.SetType(c, v1alpha1.KindCluster.Kind, v1alpha1.KindCluster.APIVersion)
	must(l.t, schema.Default(c))
	must(l.t, l.store.Create(ctx, c))
}

// until runs the cluster's controller until done says so.
func (l *formationLab) until(ctx context.Context, what string, done func() bool) {
	l.t.Helper()
	c := fleet.NewClusterController(fleet.Options{
		Store: l.store, Etcd: l.etcd.Etcd, Authority: l.authority, Releases: l.releases, Recorder: l.store, Logger: l.log,
		Meeting: l.meeting, Busy: 50 * time.Millisecond, Idle: 200 * time.Millisecond,
	})
	for !done() {
		again, err := c.Reconcile(ctx, labKey)
		if err != nil && ctx.Err() == nil {
			l.t.Logf("%s: %v", what, err)
		}
		select {
		case <-ctx.Done():
			l.explain(context.WithoutCancel(ctx))
			l.t.Fatalf("%s: not in time", what)
		case <-time.After(min(max(again, 20*time.Millisecond), 200*time.Millisecond)):
		}
	}
}

func (l *formationLab) explain(ctx context.Context) {
	l.t.Logf("cluster: %+v", l.cluster(ctx).Status)
	for _, m := range l.members(ctx) {
		l.t.Logf("%s: %s: %s %+v", m.Name, m.Status.Phase, m.Status.Message, m.Status.Conditions)
	}
}

func (l *formationLab) members(ctx context.Context) []*v1alpha1.EtcdMember {
	l.t.Helper()
	members, err := dns.MembersOf(ctx, l.store, l.cluster(ctx))
	must(l.t, err)
	return members
}

// proveCluster writes and reads through every member, and compares what the objects
// say of the members with what etcd says.
func (l *formationLab) proveCluster(ctx context.Context, size int, value string) {
	l.t.Helper()
	config, err := l.authority.ClientTLS(ctx, l.cluster(ctx))
	must(l.t, err)
	members := l.members(ctx)
	if len(members) != size {
		l.t.Fatalf("%d members, want %d", len(members), size)
	}
	for i, m := range members {
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{m.Status.ClientURL}, TLS: config, DialTimeout: 5 * time.Second})
		must(l.t, err)
		if i == 0 {
			_, err = client.Put(ctx, "formation", value)
			must(l.t, err)
		}
		got, err := client.Get(ctx, "formation")
		must(l.t, err)
		if len(got.Kvs) != 1 || string(got.Kvs[0].Value) != value {
			l.t.Errorf("%s reads %v", m.Name, got.Kvs)
		}
		list, err := client.MemberList(ctx)
		must(l.t, err)
		found := false
		for _, e := range list.Members {
			if strconv.FormatUint(e.ID, 16) == m.Spec.MemberID {
				found = e.Name == m.Name && !e.IsLearner
			}
		}
		if !found || len(list.Members) != size || strconv.FormatUint(list.Header.ClusterId, 16) != m.Spec.ClusterID {
			l.t.Errorf("%s is recorded as %s of %s, and etcd says %v of %x", m.Name, m.Spec.MemberID, m.Spec.ClusterID, list.Members, list.Header.ClusterId)
		}
		if c := v1alpha1.FindCondition(m.Status.Conditions, v1alpha1.ConditionFormed); c == nil || c.Status != v1alpha1.True {
			l.t.Errorf("%s: condition Formed is %+v", m.Name, c)
		}
		_ = client.Close()
	}
}

// proveWay looks at what each etcd was told: a cluster that was formed in another way than
// it was asked for serves just as well.
func (l *formationLab) proveWay(ctx context.Context, mode v1alpha1.FormationMode) {
	l.t.Helper()
	for i, m := range l.members(ctx) {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", m.Status.Process.PID))
		must(l.t, err)
		told := func(flag string) bool { return strings.Contains(string(raw), "\x00--"+flag) }
		want := map[string]bool{
			"discovery-token=":               mode == v1alpha1.FormationDiscovery,
			"discovery-srv=":                 mode == v1alpha1.FormationDNS,
			"initial-cluster=":               mode == v1alpha1.FormationStatic || mode == v1alpha1.FormationSequential,
			"initial-cluster-state=existing": mode == v1alpha1.FormationSequential && i > 0,
		}
		for flag, is := range want {
			if told(flag) != is {
				l.t.Errorf("%s was told --%s: %v, want %v with %s: %q", m.Name, flag, !is, is, mode, raw)
			}
		}
	}
}

// formAndRestart forms a cluster, proves it, restarts every member and proves it again:
// how it was formed no longer matters then.
func (l *formationLab) formAndRestart(v string, size int, f v1alpha1.FormationSpec) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 4*time.Minute)
	defer cancel()
	began := time.Now()
	l.declare(ctx, v, size, f)
	l.until(ctx, "form", func() bool { return l.running(ctx) })
	formed := time.Since(began)
	l.proveWay(ctx, f.Mode)
	l.proveCluster(ctx, size, "first")
	l.edit(func(s *v1alpha1.EtcdClusterSpec) {
		s.RestartedAt = &v1alpha1.Time{Time: time.Now().Truncate(time.Second)}
	})
	l.until(ctx, "restart", func() bool { return l.running(ctx) })
	l.proveCluster(ctx, size, "second")
	for _, m := range l.members(ctx) {
		if m.Status.Process.Restarts != 1 {
			l.t.Errorf("%s was restarted %d times, want once", m.Name, m.Status.Process.Restarts)
		}
	}
	l.t.Logf("%s, %d members, etcd %s: formed in %.1f s, every member restarted by %.1f s", f.Mode, size, v, formed.Seconds(), time.Since(began).Seconds())
}

// formationVersions are those that the test runs on: all only where older ones are built.
func formationVersions() []string {
	if os.Getenv("QUORATE_ETCD_RELEASES") == "" {
		return []string{version.Etcd()}
	}
	return []string{"3.5.35", "3.6.16", version.Etcd()}
}

// TestFormation: clusters of 1, 3 and 5 members are formed in each of the four ways on
// each minor of etcd, with TLS; the members are those that the objects name, and are
// what they were after a restart of each.
func TestFormation(t *testing.T) {
	for _, mode := range []v1alpha1.FormationMode{v1alpha1.FormationStatic, v1alpha1.FormationSequential, v1alpha1.FormationDiscovery, v1alpha1.FormationDNS} {
		t.Run(string(mode), func(t *testing.T) {
			var at netip.AddrPort
			if mode == v1alpha1.FormationDNS {
				var here bool
				if at, here = ownResolver(t); !here {
					return
				}
			}
			for _, v := range formationVersions() {
				if mode == v1alpha1.FormationDiscovery && strings.HasPrefix(v, "3.5.") {
					continue // TestFormationRefused says why
				}
				for _, size := range []int{1, 3, 5} {
					t.Run(fmt.Sprintf("%s/%d", v, size), func(t *testing.T) {
						if size > 3 {
							slow.Only(t)
						}
						l := newFormationLab(t, v)
						f := v1alpha1.FormationSpec{Mode: mode}
						if mode == v1alpha1.FormationDNS {
							l.nameServer(at)
							f.DNS = &v1alpha1.DNSSpec{Domain: fmt.Sprintf("c%d-%s.quorate.test", size, strings.ReplaceAll(v, ".", "-"))}
							if size == 3 {
								f.DNS.ServiceName = "named"
							}
						}
						l.formAndRestart(v, size, f)
					})
				}
			}
		})
	}
}

// resolverVariable holds the address of the name server that a test process of its own
// mount namespace asks.
const resolverVariable = "QUORATE_TEST_RESOLVER"

// ownResolver has the rest of the test run in a process that alone asks a name server at
// the address it returns; here is false in the process that only waits for that one.
// Go's resolver, which etcd uses, can't be led elsewhere but by /etc/resolv.conf.
func ownResolver(t *testing.T) (at netip.AddrPort, here bool) {
	t.Helper()
	if known := os.Getenv(resolverVariable); known != "" {
		at = netip.MustParseAddrPort(known)
		file := filepath.Join(t.TempDir(), "resolv.conf")
		must(t, os.WriteFile(file, fmt.Appendf(nil, "nameserver %s\noptions timeout:1 attempts:2\n", at.Addr()), 0o644))
		if err := syscall.Mount(file, "/etc/resolv.conf", "", syscall.MS_BIND, ""); err != nil {
			t.Fatalf("mount a resolv.conf of the test's own: %v", err)
		}
		return at, true
	}
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("an /etc/resolv.conf of the test's own needs Linux and root")
	}
	// An address that nobody else listens on: loopback has plenty.
	pid := os.Getpid()
	at = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 53, byte(pid >> 8), byte(pid)}), 53)
	self, err := os.Executable()
	must(t, err)
	parts := strings.Split(t.Name(), "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run="+strings.Join(parts, "/"), "-test.v", "-test.timeout=20m")
	cmd.Env = append(os.Environ(), resolverVariable+"="+at.String())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	out, err := cmd.CombinedOutput()
	t.Logf("in a mount namespace of its own:\n%s", out)
	if err != nil {
		t.Errorf("in a mount namespace of its own: %v", err)
	}
	if !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Error("the test did not run in its mount namespace")
	}
	return at, false
}

// TestFormationDNSWrong: no member is started while the records are missing, half there,
// too many or wrong; the condition says which lines belong into the zone, and with them
// the cluster forms by itself.
func TestFormationDNSWrong(t *testing.T) {
	at, here := ownResolver(t)
	if !here {
		return
	}
	for _, v := range formationVersions() {
		t.Run(v, func(t *testing.T) {
			l := newFormationLab(t, v)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			zone := newZone(t, at)
			domain := "wrong.quorate.test"
			l.declare(ctx, v, 3, v1alpha1.FormationSpec{Mode: v1alpha1.FormationDNS, DNS: &v1alpha1.DNSSpec{Domain: domain}})
			formed := func(m *v1alpha1.EtcdMember) *v1alpha1.Condition {
				return v1alpha1.FindCondition(m.Status.Conditions, v1alpha1.ConditionFormed)
			}
			// refused waits until all three say so for that reason, and none has been started.
			refused := func(reason string, says ...string) {
				t.Helper()
				l.until(ctx, reason, func() bool {
					members := l.members(ctx)
					for _, m := range members {
						if m.Status.Process != nil || m.Status.LastExit != nil {
							t.Fatalf("%s: %s was started", reason, m.Name)
						}
						c := formed(m)
						if c == nil || c.Reason != reason || m.Status.Phase != v1alpha1.MemberRefused {
							return false
						}
						for _, s := range says {
							if !strings.Contains(c.Message, s) {
								return false
							}
						}
					}
					return len(members) == 3
				})
				t.Logf("%s: %s", reason, formed(l.members(ctx)[0]).Message)
			}
			refused(srv.ReasonMissing, "_etcd-server-ssl._tcp."+domain+". 60 IN SRV 0 0 ", "lab-3."+domain+". 60 IN A 127.0.0.1")
			r, err := dns.ForCluster(l.cluster(ctx), l.members(ctx))
			must(t, err)
			lines := strings.Split(strings.TrimSpace(r.String()), "\n")
			zone.set(lines, func(line string) bool { return !strings.Contains(line, "lab-2."+domain) })
			refused(srv.ReasonIncomplete, "2 of 3 members", "lab-2."+domain+". 60 IN A 127.0.0.1")
			zone.set(append(lines, "_etcd-server-ssl._tcp."+domain+". 60 IN SRV 0 0 1 lab-1."+domain+"."), nil)
			refused(srv.ReasonWrong, "lab-1."+domain+" has the port 1")
			zone.set(append(lines, "_etcd-server._tcp."+domain+". 60 IN SRV 0 0 1 lab-1."+domain+"."), nil)
			refused(srv.ReasonWrong, "one more member")
			var moved []string
			for _, line := range lines {
				moved = append(moved, strings.Replace(line, "lab-3."+domain+". 60 IN A 127.0.0.1", "lab-3."+domain+". 60 IN A 127.0.0.9", 1))
			}
			zone.set(moved, nil)
			refused(srv.ReasonWrong, "lab-3."+domain+" has the address 127.0.0.9")
			zone.set(lines, nil)
			l.until(ctx, "form", func() bool { return l.running(ctx) })
			l.proveCluster(ctx, 3, "healed")
		})
	}
}

// TestFormationRefused: what can't be formed is refused or held, with the reason.
func TestFormationRefused(t *testing.T) {
	c := &v1alpha1.EtcdCluster{Spec: v1alpha1.EtcdClusterSpec{Version: "3.5.35", Replicas: 3, Formation: v1alpha1.FormationSpec{Mode: v1alpha1.FormationDiscovery}}}
	c.Namespace, c.Name = labKey.Namespace, labKey.Name
	v1alpha1.SetType(c, v1alpha1.KindCluster.Kind, v1alpha1.KindCluster.APIVersion)
	must(t, schema.Default(c))
	if err := schema.Validate(t.Context(), c, nil); err == nil || !strings.Contains(err.Error(), "needs etcd 3.6 or later") {
		t.Errorf("discovery on 3.5: %v", err)
	}
	l := newFormationLab(t, version.Etcd())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	l.declare(ctx, version.Etcd(), 1, v1alpha1.FormationSpec{Mode: v1alpha1.FormationDiscovery})
	plan, err := fleet.NewClusterController(fleet.Options{
		Store: l.store, Etcd: l.etcd.Etcd, Authority: l.authority, Releases: l.releases, Recorder: l.store, Logger: l.log,
	}).Plan(ctx, labKey, nil)
	must(t, err)
	if plan.HeldReason != fleet.HeldFormation || !strings.Contains(plan.Held, "--discovery-listen") {
		t.Errorf("held for %q: %s", plan.HeldReason, plan.Held)
	}

	// Two clusters can't have the same SRV records; under another service name they can.
	first, later := c.DeepCopy(), c.DeepCopy()
	first.Name, later.Name = "first", "later"
	for _, o := range []*v1alpha1.EtcdCluster{first, later} {
		o.Spec.Version = version.Etcd()
		o.Spec.Formation = v1alpha1.FormationSpec{Mode: v1alpha1.FormationDNS, DNS: &v1alpha1.DNSSpec{Domain: "shared.quorate.test"}}
	}
	must(t, l.store.Create(ctx, first))
	controller := fleet.NewClusterController(fleet.Options{
		Store: l.store, Etcd: l.etcd.Etcd, Authority: l.authority, Releases: l.releases, Recorder: l.store, Logger: l.log,
	})
	key := labKey
	key.Name = later.Name
	plan, err = controller.Plan(ctx, key, later)
	must(t, err)
	if plan.HeldReason != fleet.HeldFormation || !strings.Contains(plan.Held, "default/first has the same SRV records") {
		t.Errorf("the same records: held for %q: %s", plan.HeldReason, plan.Held)
	}
	later.Spec.Formation.DNS.ServiceName = "blue"
	if plan, err = controller.Plan(ctx, key, later); err != nil || plan.HeldReason == fleet.HeldFormation {
		t.Errorf("another service name: %v, held for %q: %s", err, plan.HeldReason, plan.Held)
	}
}

// TestFormationWrong: members of a cluster whose discovery token nobody knows end stopped,
// with the reason in the cluster's plan and status; once the token is there, a restart of
// the cluster, which is what the message asks for, forms it.
func TestFormationWrong(t *testing.T) {
	for _, v := range formationVersions() {
		if strings.HasPrefix(v, "3.5.") {
			continue
		}
		t.Run(v, func(t *testing.T) {
			l := newFormationLab(t, v)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			service := etcdlab.New(t, etcdlab.Options{}).Ready()
			l.declare(ctx, v, 3, v1alpha1.FormationSpec{Mode: v1alpha1.FormationDiscovery, Discovery: &v1alpha1.DiscoverySpec{
				Endpoints: []string{service.Members[0].Client}, Token: "orders",
			}})
			l.until(ctx, "refuse", func() bool {
				members := l.members(ctx)
				for _, m := range members {
					c := v1alpha1.FindCondition(m.Status.Conditions, v1alpha1.ConditionFormed)
					if m.Status.Phase != v1alpha1.MemberRefused || m.Status.Process != nil || c == nil || c.Reason != "DiscoveryTokenUnknown" {
						return false
					}
				}
				return len(members) == 3
			})
			t.Logf("the cluster: %+v", l.cluster(ctx).Status.Conditions)
			_, err := service.Members[0].Dial().Put(ctx, "/_etcd/registry/orders/_config/size", "3")
			must(t, err)
			l.edit(func(s *v1alpha1.EtcdClusterSpec) {
				s.RestartedAt = &v1alpha1.Time{Time: time.Now().Truncate(time.Second)}
			})
			l.until(ctx, "form", func() bool { return l.running(ctx) })
			l.proveCluster(ctx, 3, "healed")
		})
	}
}
