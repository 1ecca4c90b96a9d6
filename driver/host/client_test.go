package host_test

import (
	"testing"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/drivertest"
	"github.com/quorate/quorate/etcd"
)

// TestKeep: an object that may be old changes nothing, but what runs is kept.
func TestKeep(t *testing.T) {
	t.Parallel()
	p := open(t)
	m := newMember("keep")
	if s, err := p.driver.Keep(t.Context(), m); err != nil || s.Phase != v1alpha1.MemberPending {
		t.Errorf("a member that is not there: %s, %v", s.Phase, err)
	}
	drivertest.Start(t, p.Harness, m)
	before := *m.Status.Process
	kill(t, before.SupervisorPID)
	old := m.DeepCopy()
	old.Spec.Run, old.Spec.Etcd.MaxTxnOps = v1alpha1.RunStopped, 99
	drivertest.Eventually(t, func() (bool, string) {
		s, err := p.driver.Keep(t.Context(), old)
		if err != nil || s.Process == nil {
			t.Fatalf("keep: %+v, %v", s, err)
		}
		return s.Process.PID == before.PID && s.Process.SupervisorPID != 0, s.Message
	})
	stopNow(t, p, m)
	if s, err := p.driver.Keep(t.Context(), m); err != nil || s.Phase != v1alpha1.MemberStopped {
		t.Errorf("a stopped member: %s, %v", s.Phase, err)
	}
}

// TestClientTLS: the host reaches its members with their own certificates.
func TestClientTLS(t *testing.T) {
	t.Parallel()
	p, _ := openTLS(t)
	m := p.Member("reach")
	drivertest.Start(t, p.Harness, m)
	cfg, err := p.driver.ClientTLS(m)
	if err != nil {
		t.Fatal(err)
	}
	pool := etcd.NewPool()
	defer pool.Close() //nolint:errcheck // the test is over
	if s, err := pool.Status(t.Context(), etcd.Target{Endpoint: m.Status.ClientURL, TLS: cfg}); err != nil || s.MemberID == 0 {
		t.Errorf("status %+v, %v", s, err)
	}
	if cfg, err := p.driver.ClientTLS(newMember("plain")); cfg != nil || err != nil {
		t.Errorf("plain text has TLS: %v, %v", cfg, err)
	}
}
