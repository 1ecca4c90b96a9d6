package host_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/drivertest"
	"github.com/quorate/quorate/driver/host"
	"github.com/quorate/quorate/driver/host/supervisor"
	"github.com/quorate/quorate/formation/discovery"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/store/memory"
	"github.com/quorate/quorate/test/etcdlab"
	"github.com/quorate/quorate/test/freeport"
)

// current is the etcd that this test binary is.
const current = "3.7.3"

// oneRelease is the etcd of one version.
type oneRelease string

func (r oneRelease) Path(context.Context, v1alpha1.ReleaseRef) (string, error) { return string(r), nil }

// forming is a place where etcds of one version are started that may never form a
// cluster.
type forming struct {
	*place
	t       *testing.T
	version string
	// binary of that version; empty for the test binary.
	binary string
}

// openForming waits for a second only for what may pass by itself.
func openForming(t *testing.T, version string) *forming {
	t.Helper()
	p := open(t)
	f := &forming{place: p, t: t, version: version}
	p.opts.FormationPatience = 1200 * time.Millisecond
	if version != current {
		f.binary = etcdlab.Older(t, version)
		p.opts.Releases = oneRelease(f.binary)
	}
	p.reopen(t)
	return f
}

func (f *forming) member(name string) *v1alpha1.EtcdMember {
	f.t.Helper()
	m := newMember(name)
	m.Spec.Release.Version = f.version
	drivertest.Prepare(f.t, f.driver, m)
	f.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(f.t.Context()), drivertest.Wait)
		defer cancel()
		if _, err := f.driver.Stop(ctx, m); err != nil {
			f.t.Errorf("stop %s: %v", name, err)
		}
	})
	return m
}

func (f *forming) start(m *v1alpha1.EtcdMember) {
	f.t.Helper()
	m.Spec.Run = v1alpha1.RunRunning
	drivertest.Ensure(f.t, f.driver, m)
}

// refused waits until the member is refused for a reason, and sees that nothing of it
// is started again.
func (f *forming) refused(m *v1alpha1.EtcdMember, reason string) {
	f.t.Helper()
	drivertest.Until(f.t, f.driver, m, "refused", func(s v1alpha1.EtcdMemberStatus) bool {
		return s.Phase == v1alpha1.MemberRefused && s.Process == nil
	})
	c := v1alpha1.FindCondition(m.Status.Conditions, v1alpha1.ConditionFormed)
	if c == nil || c.Status != v1alpha1.False || c.Reason != reason {
		f.t.Fatalf("condition %+v, want False for %s", c, reason)
	}
	if len(c.Message) < 60 || m.Status.Message != c.Message {
		f.t.Errorf("the condition says %q, and the member %q", c.Message, m.Status.Message)
	}
	f.t.Logf("%s: %s", c.Reason, c.Message)
	// A supervisor that would start it again does so within a second or two.
	at := time.Now()
	drivertest.Eventually(f.t, func() (bool, string) {
		drivertest.Ensure(f.t, f.driver, m)
		if m.Status.Process != nil || m.Status.Phase != v1alpha1.MemberRefused {
			f.t.Fatalf("it was started again: %s: %s", m.Status.Phase, m.Status.Message)
		}
		return time.Since(at) > 2500*time.Millisecond, "it stays stopped"
	})
	state, err := homeOf(f.place, m).ReadState()
	if err != nil {
		f.t.Fatal(err)
	}
	if state.Restarts > 1 {
		f.t.Errorf("it was restarted %d times before it was refused", state.Restarts)
	}
}

// forms waits until the member serves.
func (f *forming) forms(m *v1alpha1.EtcdMember) {
	f.t.Helper()
	drivertest.Ensure(f.t, f.driver, m)
	drivertest.Running(f.t, f.Harness, m)
	drivertest.Until(f.t, f.driver, m, "formed", func(s v1alpha1.EtcdMemberStatus) bool {
		return v1alpha1.IsTrue(s.Conditions, v1alpha1.ConditionFormed)
	})
}

// alone is a list of founding members that fits.
func alone(m *v1alpha1.EtcdMember, token string) *v1alpha1.Bootstrap {
	return &v1alpha1.Bootstrap{
		State: v1alpha1.BootstrapNew, Token: token, InitialCluster: []v1alpha1.Peer{{Name: m.Name, URL: m.Status.PeerURL}},
	}
}

// everyVersion runs a test on the etcd of each minor from the lowest on.
func everyVersion(t *testing.T, from string, run func(t *testing.T, f *forming)) {
	t.Helper()
	versions := []string{"3.5.35", "3.6.16", current}
	for _, v := range versions[slices.Index(versions, from):] {
		t.Run(v, func(t *testing.T) {
			t.Parallel()
			run(t, openForming(t, v))
		})
	}
}

// running is another cluster of one member.
func (f *forming) running() *etcdlab.Cluster {
	f.t.Helper()
	return etcdlab.New(f.t, etcdlab.Options{Binary: f.binary}).Ready()
}

// TestFormationWrongList: what etcd ends over by itself, since its list of members is
// wrong, it is not started with again; with a right list it is.
func TestFormationWrongList(t *testing.T) {
	t.Parallel()
	everyVersion(t, "3.5.35", func(t *testing.T, f *forming) {
		t.Helper()
		elsewhere := "http://" + freeport.Address(t)
		for _, c := range []struct {
			name, reason string
			list         func(m *v1alpha1.EtcdMember) []v1alpha1.Peer
		}{
			{"absent", supervisor.ReasonWrongInitialCluster, func(*v1alpha1.EtcdMember) []v1alpha1.Peer {
				return []v1alpha1.Peer{{Name: "other", URL: elsewhere}}
			}},
			{"url", supervisor.ReasonPeerURLMismatch, func(m *v1alpha1.EtcdMember) []v1alpha1.Peer {
				return []v1alpha1.Peer{{Name: m.Name, URL: elsewhere}}
			}},
			{"double", supervisor.ReasonWrongInitialCluster, func(m *v1alpha1.EtcdMember) []v1alpha1.Peer {
				return []v1alpha1.Peer{{Name: m.Name, URL: m.Status.PeerURL}, {Name: "other", URL: m.Status.PeerURL}}
			}},
		} {
			m := f.member("list-" + c.name)
			m.Spec.Bootstrap.InitialCluster = c.list(m)
			f.start(m)
			f.refused(m, c.reason)
			m.Spec.Bootstrap = alone(m, "right-"+c.name)
			f.forms(m)
		}
	})
}

// TestFormationExistingWrong: a member that is told of a running cluster which does not
// know it, or is told of the wrong members, ends refused.
func TestFormationExistingWrong(t *testing.T) {
	t.Parallel()
	everyVersion(t, "3.5.35", func(t *testing.T, f *forming) {
		t.Helper()
		other := f.running()
		m := f.member("joiner")
		m.Spec.Bootstrap = &v1alpha1.Bootstrap{State: v1alpha1.BootstrapExisting, Token: "t", InitialCluster: []v1alpha1.Peer{
			{Name: "m1", URL: other.Members[0].Peer}, {Name: m.Name, URL: m.Status.PeerURL},
		}}
		f.start(m)
		f.refused(m, supervisor.ReasonWrongInitialCluster)
		// Added, it joins with the same list once it is asked to try again.
		add(t, other, m)
		m.Spec.RestartedAt = &v1alpha1.Time{Time: time.Now()}
		drivertest.Ensure(t, f.driver, m)
		drivertest.Until(t, f.driver, m, "formed", func(s v1alpha1.EtcdMemberStatus) bool {
			return v1alpha1.IsTrue(s.Conditions, v1alpha1.ConditionFormed)
		})
	})
}

func add(t *testing.T, c *etcdlab.Cluster, m *v1alpha1.EtcdMember) {
	t.Helper()
	client := c.Members[0].Dial()
	drivertest.Eventually(t, func() (bool, string) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := client.MemberAddAsLearner(ctx, []string{m.Status.PeerURL})
		return err == nil, fmt.Sprint(err)
	})
}

// TestFormationNoPeersToJoin: where nobody of the running cluster answers, a member that
// is to join it is stopped after a while, and joins when it is restarted.
func TestFormationNoPeersToJoin(t *testing.T) {
	t.Parallel()
	everyVersion(t, "3.5.35", func(t *testing.T, f *forming) {
		t.Helper()
		m := f.member("lonely")
		m.Spec.Bootstrap = &v1alpha1.Bootstrap{State: v1alpha1.BootstrapExisting, Token: "t", InitialCluster: []v1alpha1.Peer{
			{Name: "m1", URL: "http://" + freeport.Address(t)}, {Name: m.Name, URL: m.Status.PeerURL},
		}}
		f.start(m)
		drivertest.Until(t, f.driver, m, "refused", isPhase(v1alpha1.MemberRefused))
		if c := v1alpha1.FindCondition(m.Status.Conditions, v1alpha1.ConditionFormed); c.Reason != supervisor.ReasonPeersUnreachable || m.Status.Process != nil {
			t.Errorf("condition %+v, process %+v", c, m.Status.Process)
		}
	})
}

// TestFormationClusterIDMismatch: a member that founds a cluster at the addresses of one
// that runs already would try for ever. What it left does not keep it from another
// cluster, and is kept.
func TestFormationClusterIDMismatch(t *testing.T) {
	t.Parallel()
	everyVersion(t, "3.5.35", func(t *testing.T, f *forming) {
		t.Helper()
		other := f.running()
		m := f.member("stranger")
		m.Spec.Bootstrap.InitialCluster = append(m.Spec.Bootstrap.InitialCluster, v1alpha1.Peer{Name: "m1", URL: other.Members[0].Peer})
		f.start(m)
		f.refused(m, supervisor.ReasonClusterIDMismatch)
		m.Spec.Bootstrap = alone(m, "fresh")
		f.forms(m)
		kept, err := filepath.Glob(filepath.Join(f.dir, "retired", "data.retired-*", "member", "wal"))
		if err != nil || len(kept) != 1 {
			t.Errorf("the directory of the failed formation is not kept: %v %v", kept, err)
		}
	})
}

// TestFormationBootstrappedBefore: founding a running cluster once more ends refused.
func TestFormationBootstrappedBefore(t *testing.T) {
	t.Parallel()
	everyVersion(t, "3.5.35", func(t *testing.T, f *forming) {
		t.Helper()
		a, b, c := f.member("again-1"), f.member("again-2"), f.member("again-3")
		list := []v1alpha1.Peer{{Name: a.Name, URL: a.Status.PeerURL}, {Name: b.Name, URL: b.Status.PeerURL}, {Name: c.Name, URL: c.Status.PeerURL}}
		boot := &v1alpha1.Bootstrap{State: v1alpha1.BootstrapNew, Token: "again", InitialCluster: list}
		for _, m := range []*v1alpha1.EtcdMember{a, b, c} {
			m.Spec.Bootstrap = boot
			f.start(m)
		}
		for _, m := range []*v1alpha1.EtcdMember{a, b, c} {
			f.forms(m)
		}
		// Its object was lost and made again under the same name and ports: a new home.
		ctx, cancel := context.WithTimeout(t.Context(), drivertest.Wait)
		defer cancel()
		if _, err := f.driver.Stop(ctx, c); err != nil {
			t.Fatal(err)
		}
		again := newMember(c.Name)
		again.Spec.Release.Version, again.Spec.Ports = f.version, c.Status.Ports
		if _, err := f.driver.Data(c).Retire(ctx); err != nil {
			t.Fatal(err)
		}
		drivertest.Prepare(t, f.driver, again)
		t.Cleanup(func() { stopNowLate(t, f, again) })
		again.Spec.Bootstrap = boot
		f.start(again)
		f.refused(again, supervisor.ReasonAlreadyBootstrapped)
	})
}

func stopNowLate(t *testing.T, f *forming, m *v1alpha1.EtcdMember) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), drivertest.Wait)
	defer cancel()
	if _, err := f.driver.Stop(ctx, m); err != nil {
		t.Errorf("stop %s: %v", m.Name, err)
	}
}

// TestFormationSlowPeers: nothing is wrong with a member whose peers are late.
func TestFormationSlowPeers(t *testing.T) {
	t.Parallel()
	everyVersion(t, "3.5.35", func(t *testing.T, f *forming) {
		t.Helper()
		a, b := f.member("early"), f.member("late")
		list := []v1alpha1.Peer{{Name: a.Name, URL: a.Status.PeerURL}, {Name: b.Name, URL: b.Status.PeerURL}}
		boot := &v1alpha1.Bootstrap{State: v1alpha1.BootstrapNew, Token: "slow", InitialCluster: list}
		a.Spec.Bootstrap, b.Spec.Bootstrap = boot, boot
		f.start(a)
		began := time.Now()
		drivertest.Eventually(t, func() (bool, string) {
			drivertest.Ensure(t, f.driver, a)
			if a.Status.Phase == v1alpha1.MemberRefused {
				t.Fatal(a.Status.Message)
			}
			return time.Since(began) > 4*f.opts.FormationPatience, ""
		})
		c := v1alpha1.FindCondition(a.Status.Conditions, v1alpha1.ConditionFormed)
		if c == nil || c.Reason != host.ReasonForming || !strings.Contains(c.Message, "late") || a.Status.Process == nil {
			t.Errorf("while it waits: %+v, process %+v", c, a.Status.Process)
		}
		f.start(b)
		f.forms(a)
		f.forms(b)
		if a.Status.Process.Restarts != 0 {
			t.Errorf("the early member was restarted %d times", a.Status.Process.Restarts)
		}
	})
}

// meeting is a discovery service of Quorate's own.
type meeting struct {
	*memory.Store
	at discovery.Where
}

func meet(t *testing.T) *meeting {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &meeting{Store: memory.New(memory.Options{})}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s, err := discovery.Open(ctx, discovery.Options{Store: m.Store, URL: "https://" + l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if ended := <-done; ended != nil {
			t.Error(ended)
		}
	})
	if m.at, err = discovery.Find(ctx, m.Store); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *meeting) token(t *testing.T, size int) *v1alpha1.DiscoveryBootstrap {
	t.Helper()
	token, err := discovery.New(t.Context(), m.Store, size, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &v1alpha1.DiscoveryBootstrap{Endpoints: []string{m.at.URL}, Token: token.Token, CA: m.at.CA}
}

// TestFormationDiscoveryWrong: every way in which a discovery service can't help ends in
// a condition that says which, and in a stopped process; the right token heals it.
func TestFormationDiscoveryWrong(t *testing.T) {
	t.Parallel()
	everyVersion(t, "3.6.16", func(t *testing.T, f *forming) {
		t.Helper()
		s := meet(t)
		full := s.token(t, 1)
		first := f.member("first")
		first.Spec.Bootstrap.Discovery = full
		f.start(first)
		f.forms(first)
		unknown := &v1alpha1.DiscoveryBootstrap{Endpoints: full.Endpoints, Token: strings.Repeat("0", 32), CA: full.CA}
		nobody := &v1alpha1.DiscoveryBootstrap{Endpoints: []string{"https://" + freeport.Address(t)}, Token: full.Token, CA: full.CA}
		stranger := &v1alpha1.DiscoveryBootstrap{Endpoints: full.Endpoints, Token: full.Token, CA: meet(t).at.CA}
		for _, c := range []struct {
			name, reason string
			at           *v1alpha1.DiscoveryBootstrap
		}{
			{"unknown", supervisor.ReasonDiscoveryTokenUnknown, unknown},
			{"full", supervisor.ReasonDiscoveryFull, full},
			{"nobody", supervisor.ReasonDiscoveryUnreachable, nobody},
			{"stranger", supervisor.ReasonDiscoveryUnreachable, stranger},
		} {
			m := f.member(c.name)
			m.Spec.Bootstrap.Discovery = c.at
			f.start(m)
			f.refused(m, c.reason)
			m.Spec.Bootstrap.Discovery = s.token(t, 1)
			f.forms(m)
		}
	})
}

// TestFormationExternalDiscovery: an etcd that somebody else runs is a discovery service
// too; a size there that is none ends in a condition.
func TestFormationExternalDiscovery(t *testing.T) {
	t.Parallel()
	everyVersion(t, "3.6.16", func(t *testing.T, f *forming) {
		t.Helper()
		service := etcdlab.New(t, etcdlab.Options{}).Ready()
		client := service.Members[0].Dial()
		size := func(token, n string) {
			if _, err := client.Put(t.Context(), "/_etcd/registry/"+token+"/_config/size", n); err != nil {
				t.Fatal(err)
			}
		}
		size("bad", "three")
		size("good", "2")
		m := f.member("bad-size")
		m.Spec.Bootstrap.Discovery = &v1alpha1.DiscoveryBootstrap{Endpoints: []string{service.Members[0].Client}, Token: "bad"}
		f.start(m)
		f.refused(m, supervisor.ReasonDiscoverySizeWrong)

		a, b := f.member("ext-a"), f.member("ext-b")
		for _, m := range []*v1alpha1.EtcdMember{a, b} {
			m.Spec.Bootstrap.Discovery = &v1alpha1.DiscoveryBootstrap{Endpoints: []string{service.Members[0].Client}, Token: "good"}
			f.start(m)
		}
		f.forms(a)
		f.forms(b)
		got, err := client.Get(t.Context(), "/_etcd/registry/good/members", clientv3.WithPrefix())
		if err != nil || len(got.Kvs) != 2 {
			t.Errorf("%d members have registered, %v", len(got.Kvs), err)
		}
	})
}

// TestFormationSurvivesTheSupervisor: a refusal is told, and stands, after the
// supervisor was killed.
func TestFormationSurvivesTheSupervisor(t *testing.T) {
	t.Parallel()
	f := openForming(t, current)
	m := f.member("refused")
	m.Spec.Bootstrap.InitialCluster = []v1alpha1.Peer{{Name: "other", URL: "http://127.0.0.1:1"}}
	f.start(m)
	f.refused(m, supervisor.ReasonWrongInitialCluster)
	state, err := homeOf(f.place, m).ReadState()
	if err != nil {
		t.Fatal(err)
	}
	kill(t, int64(state.Supervisor.PID))
	f.reopen(t)
	drivertest.Eventually(t, func() (bool, string) {
		drivertest.Ensure(t, f.driver, m)
		now, err := homeOf(f.place, m).ReadState()
		return err == nil && now.Supervisor.PID != state.Supervisor.PID && m.Status.Phase == v1alpha1.MemberRefused, "no new supervisor"
	})
	f.refused(m, supervisor.ReasonWrongInitialCluster)
	if _, err := os.Stat(filepath.Join(f.driver.Home(m), "data", "member", "wal")); err == nil {
		t.Error("etcd made a log")
	}
}

// TestFormationClockOff: a certificate that is not valid yet by the host's clock keeps a
// member from being started at all, and says so; one of a peer, by whose clock it is
// valid, ends the waiting for that peer.
func TestFormationClockOff(t *testing.T) {
	t.Parallel()
	p, s := openTLS(t)
	p.opts.FormationPatience = 6 * time.Second
	p.reopen(t)
	s.ahead = 30 * time.Minute
	m := p.Member("behind")
	m.Spec.Run = v1alpha1.RunRunning
	drivertest.Ensure(t, p.driver, m)
	c := v1alpha1.FindCondition(m.Status.Conditions, v1alpha1.ConditionPrepared)
	if c == nil || c.Reason != host.ReasonCertificateInvalid || !strings.Contains(c.Message, "clock") || m.Status.Process != nil {
		t.Errorf("with a clock that is behind: %+v, process %+v", c, m.Status.Process)
	}
	s.ahead = 0

	f := &forming{place: p, t: t, version: current}
	good := p.Member("on-time")
	drivertest.Prepare(t, f.driver, good)
	t.Cleanup(func() { stopNowLate(t, f, good) })
	peer := "https://" + freeport.Address(t)
	good.Spec.Bootstrap.InitialCluster = append(good.Spec.Bootstrap.InitialCluster, v1alpha1.Peer{Name: "late", URL: peer})
	lateClock(t, p, s, good, peer)
	f.start(good)
	f.refused(good, supervisor.ReasonCertificateNotValid)
}

// lateClock runs an etcd at a peer URL whose certificate has expired by everyone else's
// clock.
func lateClock(t *testing.T, p *place, s *signer, other *v1alpha1.EtcdMember, peer string) {
	t.Helper()
	dir := t.TempDir()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.NewRequest(key, "late")
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.ca.Sign(csr, pki.Request{Usage: pki.Peer, CommonName: "late", Hosts: []string{"127.0.0.1"}, Validity: time.Minute, Now: time.Now().Add(-3 * time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{"ca.crt": b.CA, "peer.crt": b.Certificate, "peer.key": key} {
		if err = os.WriteFile(filepath.Join(dir, name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	binary, err := p.opts.Releases.Path(t.Context(), other.Spec.Release)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Args = []string{
		"etcd", "--name=late", "--data-dir=" + filepath.Join(dir, "data"), "--listen-client-urls=http://127.0.0.1:0", "--advertise-client-urls=http://127.0.0.1:1",
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster-token=" + other.Spec.Bootstrap.Token,
		"--initial-cluster=" + other.Name + "=" + other.Status.PeerURL + ",late=" + peer,
		"--peer-cert-file=" + filepath.Join(dir, "peer.crt"), "--peer-key-file=" + filepath.Join(dir, "peer.key"), "--peer-trusted-ca-file=" + filepath.Join(dir, "ca.crt"),
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
}
