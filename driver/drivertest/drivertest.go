// Package drivertest is what every driver must do, as tests on real etcd
// processes. An implementation calls Run from a test of its own.
package drivertest

import (
	"context"
	"crypto/tls"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver"
	"github.com/quorate/quorate/etcd"
)

// Wait is how long the suite waits for what a driver brings about by itself.
const Wait = 40 * time.Second

// Harness is one driver with a place of its own.
type Harness struct {
	Driver driver.Driver
	// Member makes a new member object of that name, with a UID of its own, that the
	// driver can run: run Prepared, release, TLS and tuning set, ports and bootstrap
	// not. Short timeouts make the suite fast.
	Member func(name string) *v1alpha1.EtcdMember
	// Kill ends a process at once, with no chance to say anything (SIGKILL).
	Kill func(t *testing.T, pid int64)
	// TLS is what a client of the member shows and trusts; nil for plain text.
	TLS func(m *v1alpha1.EtcdMember) *tls.Config
}

// Run runs the suite; open makes a new Harness for each test.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(t *testing.T, h Harness)
	}{
		{"unknown", testUnknown},
		{"prepare", testPrepare},
		{"run", testRun},
		{"configuration", testConfiguration},
		{"kill", testKill},
		{"stop", testStop},
		{"retire", testRetire},
		{"restore", testRestore},
		{"restore without data", testRestoredDataLost},
		{"logs", testLogs},
		{"list", testList},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
	}
}

// Prepare brings m to Prepared and records in its spec what the fleet would: the
// chosen ports, and a bootstrap as the only member.
func Prepare(t *testing.T, d driver.Driver, m *v1alpha1.EtcdMember) {
	t.Helper()
	m.Spec.Run = v1alpha1.RunPrepared
	Ensure(t, d, m)
	if c := v1alpha1.FindCondition(m.Status.Conditions, v1alpha1.ConditionPrepared); c == nil || c.Status != v1alpha1.True {
		t.Fatalf("not prepared: %+v", m.Status.Conditions)
	}
	m.Spec.Ports = m.Status.Ports
	m.Spec.Bootstrap = &v1alpha1.Bootstrap{
		State: v1alpha1.BootstrapNew, Token: "token-" + string(m.UID),
		InitialCluster: []v1alpha1.Peer{{Name: m.Name, URL: m.Status.PeerURL}},
	}
}

// Ensure calls Ensure once, and keeps the status in m.
func Ensure(t *testing.T, d driver.Driver, m *v1alpha1.EtcdMember) {
	t.Helper()
	s, err := d.Ensure(t.Context(), m)
	if err != nil {
		t.Fatalf("ensure %s: %v", m.Name, err)
	}
	m.Status = s
}

// Until observes m until ok is satisfied with its status, which m keeps.
func Until(t *testing.T, d driver.Driver, m *v1alpha1.EtcdMember, what string, ok func(v1alpha1.EtcdMemberStatus) bool) {
	t.Helper()
	Eventually(t, func() (bool, string) {
		s, err := d.Observe(t.Context(), m)
		if err != nil {
			return false, what + ": " + err.Error()
		}
		m.Status = s
		return ok(s), what + ": phase " + string(s.Phase) + ": " + s.Message
	})
}

// Eventually asks until the answer is yes, and fails with the last text after Wait.
func Eventually(t *testing.T, ask func() (bool, string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Wait)
	defer cancel()
	every := time.NewTicker(20 * time.Millisecond)
	defer every.Stop()
	for {
		ok, text := ask()
		if ok {
			return
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			t.Fatalf("not within %s: %s", Wait, text)
		}
	}
}

// Start prepares and runs m until its etcd answers. Its end is seen to.
func Start(t *testing.T, h Harness, m *v1alpha1.EtcdMember) {
	t.Helper()
	if m.Spec.Bootstrap == nil {
		Prepare(t, h.Driver, m)
	}
	t.Cleanup(func() { stop(t, h, m) })
	m.Spec.Run = v1alpha1.RunRunning
	Ensure(t, h.Driver, m)
	Running(t, h, m)
}

// Running waits until m runs with its configuration and answers.
func Running(t *testing.T, h Harness, m *v1alpha1.EtcdMember) {
	t.Helper()
	Until(t, h.Driver, m, "running", isRunning)
	put(t, h, m, "drivertest/ready", "yes")
}

func isRunning(s v1alpha1.EtcdMemberStatus) bool { return s.Phase == v1alpha1.MemberRunning }

func stop(t *testing.T, h Harness, m *v1alpha1.EtcdMember) v1alpha1.StopProof {
	t.Helper()
	// Clean-ups come after the test's context has ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), Wait)
	defer cancel()
	proof, err := h.Driver.Stop(ctx, m)
	if err != nil {
		t.Fatalf("stop %s: %v", m.Name, err)
	}
	return proof
}

func client(t *testing.T, h Harness, m *v1alpha1.EtcdMember) *clientv3.Client {
	t.Helper()
	target := etcd.Target{Endpoint: m.Status.ClientURL}
	if h.TLS != nil {
		target.TLS = h.TLS(m)
	}
	c, err := etcd.Dial(target)
	if err != nil {
		t.Fatalf("dial %s: %v", m.Name, err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func put(t *testing.T, h Harness, m *v1alpha1.EtcdMember, key, value string) {
	t.Helper()
	c := client(t, h, m)
	Eventually(t, func() (bool, string) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := c.Put(ctx, key, value)
		if err != nil {
			return false, "put: " + err.Error()
		}
		return true, ""
	})
}

func get(t *testing.T, h Harness, m *v1alpha1.EtcdMember, key string) string {
	t.Helper()
	c := client(t, h, m)
	var value string
	Eventually(t, func() (bool, string) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		r, err := c.Get(ctx, key)
		if err != nil {
			return false, "get: " + err.Error()
		}
		if len(r.Kvs) == 1 {
			value = string(r.Kvs[0].Value)
		}
		return true, ""
	})
	return value
}
