package host_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver"
	"github.com/quorate/quorate/driver/drivertest"
	"github.com/quorate/quorate/driver/host"
	"github.com/quorate/quorate/driver/host/supervisor"
)

// elsewhere is a driver on another directory.
func elsewhere(t *testing.T, p *place, dir string) *place {
	t.Helper()
	q := *p
	q.dir, q.opts.Dir = dir, dir
	q.reopen(t)
	return &q
}

// TestCopiedHome starts an agent's driver on a copy of a directory whose member runs: it
// neither starts nor stops anything, and says why.
func TestCopiedHome(t *testing.T) {
	t.Parallel()
	p := open(t)
	m := newMember("copied")
	drivertest.Start(t, p.Harness, m)
	running := *m.Status.Process
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(copied, os.DirFS(p.dir)); err != nil {
		t.Fatal(err)
	}
	q := elsewhere(t, p, copied)

	if err := q.driver.KeepAll(t.Context()); !errors.Is(err, supervisor.ErrCopied) {
		t.Errorf("keep: %v", err)
	}
	s, err := q.driver.Ensure(t.Context(), m)
	c := v1alpha1.FindCondition(s.Conditions, v1alpha1.ConditionRunning)
	if err != nil || c == nil || c.Status != v1alpha1.Unknown || c.Reason != host.ReasonHomeCopied || !strings.Contains(s.Message, p.dir) || s.StopProof != nil {
		t.Errorf("ensure: %+v, %+v, %v", c, s, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if proof, stopErr := q.driver.Stop(ctx, m); !errors.Is(stopErr, driver.ErrNotStopped) || ctx.Err() != nil {
		t.Errorf("stop: %+v, %v; it is to refuse at once", proof, stopErr)
	}
	if where, retireErr := q.driver.Data(m).Retire(t.Context()); retireErr == nil {
		t.Errorf("retired to %s", where)
	}
	// Its supervisor refuses too, whoever starts it, and also once the copy's order is its own.
	home := supervisor.Home(q.driver.Home(m))
	for _, own := range []bool{false, true} {
		if own {
			o, readErr := home.ReadOrder()
			if readErr != nil {
				t.Fatal(readErr)
			}
			o.DataDir, o.Run = home.DataDir(), v1alpha1.RunStopped
			if _, writeErr := home.WriteOrder(o); writeErr != nil {
				t.Fatal(writeErr)
			}
		}
		if runErr := supervisor.Run(t.Context(), string(home), p.opts.Logger); !errors.Is(runErr, supervisor.ErrCopied) {
			t.Errorf("supervisor, own order %v: %v", own, runErr)
		}
	}
	after, err := p.driver.Observe(t.Context(), m)
	if err != nil || after.Process == nil || after.Process.PID != running.PID || after.Process.SupervisorPID != running.SupervisorPID {
		t.Errorf("the original: %+v, %v; it ran as %+v", after.Process, err, running)
	}
	stopNow(t, p, m)
}

// TestMovedHome moves the directory of a member that runs: the next agent adopts it, and
// starts it from the new place.
func TestMovedHome(t *testing.T) {
	t.Parallel()
	p := open(t)
	m := newMember("moved")
	drivertest.Start(t, p.Harness, m)
	running := *m.Status.Process
	kill(t, running.SupervisorPID)
	moved := filepath.Join(t.TempDir(), "moved")
	if err := os.Rename(p.dir, moved); err != nil {
		t.Fatal(err)
	}
	q := elsewhere(t, p, moved)
	settled := func(pid func(int64) bool) {
		t.Helper()
		drivertest.Eventually(t, func() (bool, string) {
			s, err := q.driver.Ensure(t.Context(), m)
			return err == nil && s.Phase == v1alpha1.MemberRunning && s.Process.SupervisorPID != 0 && pid(s.Process.PID), s.Message
		})
	}
	settled(func(pid int64) bool { return pid == running.PID })
	kill(t, running.PID)
	settled(func(pid int64) bool { return pid != running.PID })
	stopNow(t, q, m)
}
