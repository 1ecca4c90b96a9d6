package host_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/datadir"
	"github.com/quorate/quorate/driver/drivertest"
	"github.com/quorate/quorate/etcd"
)

// joined runs a member, writes to it, notes its IDs as the fleet would, and stops
// it.
func joined(t *testing.T, p *place, name string) *v1alpha1.EtcdMember {
	t.Helper()
	m := newMember(name)
	drivertest.Start(t, p.Harness, m)
	writeKeys(t, m, 20)
	pool := etcd.NewPool()
	defer pool.Close() //nolint:errcheck // the test is over
	s, err := pool.Status(t.Context(), etcd.Target{Endpoint: m.Status.ClientURL})
	if err != nil {
		t.Fatal(err)
	}
	m.Spec.MemberID, m.Spec.ClusterID = s.MemberID.String(), s.ClusterID.String()
	stopNow(t, p, m)
	return m
}

func writeKeys(t *testing.T, m *v1alpha1.EtcdMember, n int) {
	t.Helper()
	c, err := etcd.Dial(etcd.Target{Endpoint: m.Status.ClientURL})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // the test is over
	for range n {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := c.Put(ctx, "key", "value", clientv3.WithPrevKV())
		cancel()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestTheLaw: the three directories that a joined member must not start on, and
// that it starts again once its own is back.
func TestTheLaw(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		// replace puts another directory in the place of data, which was moved to own.
		replace func(t *testing.T, p *place, data, own string)
		reason  datadir.Reason
	}{
		"empty": {func(t *testing.T, _ *place, data, _ string) {
			t.Helper()
			if err := os.Mkdir(data, 0o700); err != nil {
				t.Fatal(err)
			}
		}, datadir.ReasonEmpty},
		"missing": {func(*testing.T, *place, string, string) {}, datadir.ReasonEmpty},
		"foreign": {func(t *testing.T, p *place, data, _ string) {
			t.Helper()
			other := joined(t, p, "other")
			copyDir(t, homeOf(p, other).DataDir(), data)
		}, datadir.ReasonForeign},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := open(t)
			m := joined(t, p, "law")
			data := homeOf(p, m).DataDir()
			own := filepath.Join(t.TempDir(), "own")
			move(t, data, own)
			c.replace(t, p, data, own)
			refusedThenHealed(t, p, m, c.reason, own)
		})
	}
}

// TestTheLawRolledBack: an older copy of the member's own directory.
func TestTheLawRolledBack(t *testing.T) {
	t.Parallel()
	p := open(t)
	m := joined(t, p, "older")
	data := homeOf(p, m).DataDir()
	older := filepath.Join(t.TempDir(), "older")
	copyDir(t, data, older)
	m.Spec.Run = v1alpha1.RunRunning
	drivertest.Ensure(t, p.driver, m)
	drivertest.Running(t, p.Harness, m)
	writeKeys(t, m, 20)
	stopNow(t, p, m)
	own := filepath.Join(t.TempDir(), "own")
	move(t, data, own)
	copyDir(t, older, data)
	refusedThenHealed(t, p, m, datadir.ReasonRolledBack, own)
}

// TestTheLawKnowsMarks: a mark that only the object remembers is enough.
func TestTheLawKnowsMarks(t *testing.T) {
	t.Parallel()
	p := open(t)
	m := joined(t, p, "marked")
	if err := os.Remove(homeOf(p, m).IdentityFile()); err != nil {
		t.Fatal(err)
	}
	m.Status.Mark = &v1alpha1.RaftMark{Term: 2, Index: 1_000_000}
	m.Spec.Run = v1alpha1.RunRunning
	drivertest.Ensure(t, p.driver, m)
	drivertest.Until(t, p.driver, m, "refused", isPhase(v1alpha1.MemberRefused))
	if c := v1alpha1.FindCondition(m.Status.Conditions, v1alpha1.ConditionDataDirectory); c.Reason != string(datadir.ReasonRolledBack) {
		t.Errorf("%+v", c)
	}
}

func refusedThenHealed(t *testing.T, p *place, m *v1alpha1.EtcdMember, reason datadir.Reason, own string) {
	t.Helper()
	m.Spec.Run = v1alpha1.RunRunning
	drivertest.Ensure(t, p.driver, m)
	drivertest.Until(t, p.driver, m, "refused", isPhase(v1alpha1.MemberRefused))
	c := v1alpha1.FindCondition(m.Status.Conditions, v1alpha1.ConditionDataDirectory)
	if c.Status != v1alpha1.False || c.Reason != string(reason) {
		t.Errorf("condition %+v, want %s", c, reason)
	}
	data := homeOf(p, m).DataDir()
	if !strings.Contains(m.Status.Message, data) || !strings.Contains(m.Status.Message, "Quorate deletes nothing") {
		t.Errorf("message %q", m.Status.Message)
	}
	if m.Status.Process != nil {
		t.Errorf("a process runs: %+v", m.Status.Process)
	}
	// Whatever lay there still does, and putting the right one back heals.
	if _, err := os.Stat(data); err == nil {
		move(t, data, filepath.Join(t.TempDir(), "refused"))
	}
	move(t, own, data)
	drivertest.Running(t, p.Harness, m)
	if !v1alpha1.IsTrue(m.Status.Conditions, v1alpha1.ConditionDataDirectory) {
		t.Errorf("%+v", m.Status.Conditions)
	}
}

// TestIdentityIsLearnedWhileRunning: a member killed together with everything, soon
// after it was formed, is still known by its IDs.
func TestIdentityIsLearnedWhileRunning(t *testing.T) {
	t.Parallel()
	p := open(t)
	m := newMember("learned")
	drivertest.Start(t, p.Harness, m)
	h := homeOf(p, m)
	drivertest.Eventually(t, func() (bool, string) {
		id, err := h.LoadIdentity()
		return err == nil && id.MemberID != "" && id.StartedOnce, "identity not learned"
	})
	kill(t, m.Status.Process.SupervisorPID)
	kill(t, m.Status.Process.PID)
	move(t, h.DataDir(), filepath.Join(t.TempDir(), "gone"))
	drivertest.Ensure(t, p.driver, m)
	drivertest.Until(t, p.driver, m, "refused", isPhase(v1alpha1.MemberRefused))
}

// TestMark: a reported position is kept once a later one has come.
func TestMark(t *testing.T) {
	t.Parallel()
	p := open(t)
	m := newMember("mark")
	drivertest.Prepare(t, p.driver, m)
	h := homeOf(p, m)
	if err := p.driver.Mark(m, 3, 100); err != nil {
		t.Fatal(err)
	}
	if id, err := h.LoadIdentity(); err != nil || id.Mark.Index != 0 {
		t.Errorf("believed at once: %+v, %v", id.Mark, err)
	}
	drivertest.Eventually(t, func() (bool, string) {
		if err := p.driver.Mark(m, 3, 200); err != nil {
			return false, err.Error()
		}
		id, err := h.LoadIdentity()
		return err == nil && id.Mark == datadir.Mark{Term: 3, Index: 100}, "mark not kept"
	})
	s, err := p.driver.Observe(t.Context(), m)
	if err != nil || s.Mark == nil || *s.Mark != (v1alpha1.RaftMark{Term: 3, Index: 100}) {
		t.Errorf("status has %+v, %v", s.Mark, err)
	}
}

// TestIdentityUnreadable: it is not guessed at.
func TestIdentityUnreadable(t *testing.T) {
	t.Parallel()
	p := open(t)
	m := joined(t, p, "garbled")
	if err := os.WriteFile(homeOf(p, m).IdentityFile(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.Spec.Run = v1alpha1.RunRunning
	drivertest.Ensure(t, p.driver, m)
	drivertest.Until(t, p.driver, m, "refused", func(s v1alpha1.EtcdMemberStatus) bool {
		return s.Phase == v1alpha1.MemberRefused || s.Phase == v1alpha1.MemberStopped
	})
	if c := v1alpha1.FindCondition(m.Status.Conditions, v1alpha1.ConditionDataDirectory); c.Status != v1alpha1.False {
		t.Errorf("%+v", c)
	}
	if m.Status.Process != nil {
		t.Error("it was started")
	}
}

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}
