package host_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver"
	"github.com/quorate/quorate/driver/drivertest"
	"github.com/quorate/quorate/driver/host"
	"github.com/quorate/quorate/internal/process"
)

// TestHomeMissing: an agent with another data directory proves nothing of a member
// that runs in the first, makes no home for it, and forgets nothing of it.
func TestHomeMissing(t *testing.T) {
	t.Parallel()
	p := open(t)
	m := newMember("elsewhere")
	drivertest.Start(t, p.Harness, m)
	m.Spec.MemberID = "abc"
	opts := p.opts
	opts.Dir = filepath.Join(t.TempDir(), "other")
	other, err := host.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, run := range []v1alpha1.RunPolicy{v1alpha1.RunRunning, v1alpha1.RunStopped} {
		m.Spec.Run = run
		s, err := other.Ensure(t.Context(), m)
		if err != nil || s.Phase != v1alpha1.MemberFailed || s.StopProof != nil || s.Process == nil || s.ClientURL == "" {
			t.Errorf("%s: %+v, %v", run, s, err)
		}
	}
	if _, err := other.Stop(t.Context(), m); !errors.Is(err, driver.ErrNotStopped) {
		t.Errorf("stop: %v", err)
	}
	if _, err := os.Stat(other.Home(m)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a home was made: %v", err)
	}
	stopNow(t, p, m)
	if _, err := p.driver.Data(m).Retire(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Once retired, it is known to be gone.
	if _, err := p.driver.Stop(t.Context(), m); err != nil {
		t.Errorf("stop after retiring: %v", err)
	}
}

// TestHomeReplaced: a supervisor under which the home is replaced leaves at once,
// and touches neither etcd nor the other directory.
func TestHomeReplaced(t *testing.T) {
	t.Parallel()
	p := open(t)
	m := newMember("replaced")
	drivertest.Start(t, p.Harness, m)
	before := *m.Status.Process
	supervisor, etcd := identify(t, before.SupervisorPID), identify(t, before.PID)
	home := p.driver.Home(m)
	aside := home + ".aside"
	if err := os.Rename(home, aside); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	drivertest.Eventually(t, func() (bool, string) {
		return !supervisor.Alive(), "the supervisor stays in a home that is not the one it locked"
	})
	if !etcd.Alive() {
		t.Error("etcd was stopped")
	}
	if entries, err := os.ReadDir(home); err != nil || len(entries) > 0 {
		t.Errorf("the other directory holds %v, %v", entries, err)
	}
	if err := errors.Join(os.Remove(home), os.Rename(aside, home)); err != nil {
		t.Fatal(err)
	}
	drivertest.Eventually(t, func() (bool, string) {
		s, err := p.driver.Ensure(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		return s.Process != nil && s.Process.PID == before.PID && s.Process.SupervisorPID != 0, "not adopted: " + s.Message
	})
	stopNow(t, p, m)
}

// TestKeepAll: members come back as they were last told, without any object.
func TestKeepAll(t *testing.T) {
	t.Parallel()
	p := open(t)
	runs, rests := newMember("runs"), newMember("rests")
	for _, m := range []*v1alpha1.EtcdMember{runs, rests} {
		drivertest.Start(t, p.Harness, m)
	}
	stopNow(t, p, rests)
	before := *runs.Status.Process
	kill(t, before.SupervisorPID)
	kill(t, before.PID)
	p.reopen(t)
	if err := p.driver.KeepAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	drivertest.Eventually(t, func() (bool, string) {
		s, err := p.driver.Observe(t.Context(), runs)
		return err == nil && s.Process != nil && s.Process.PID != before.PID, "it does not run: " + s.Message
	})
	if s, err := p.driver.Observe(t.Context(), rests); err != nil || s.Process != nil {
		t.Errorf("a member that was told to stop: %+v, %v", s, err)
	}
	stopNow(t, p, runs)
}

func identify(t *testing.T, pid int64) process.ID {
	t.Helper()
	id, err := process.Identify(int(pid))
	if err != nil {
		t.Fatal(err)
	}
	return id
}
