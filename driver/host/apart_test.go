package host_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/drivertest"
	"github.com/quorate/quorate/driver/host/cgroup"
)

// openApart makes a place whose members are kept apart.
func openApart(t *testing.T, name string) (*place, *cgroup.Groups) {
	t.Helper()
	g := cgroup.Open(t.Context(), cgroup.Options{Name: fmt.Sprintf("%s%d", name, os.Getpid()), Dir: t.TempDir()})
	t.Cleanup(g.Close)
	if !strings.HasPrefix(g.String(), "v1: cpu, memory") {
		t.Skipf("SKIPPED: it looks at version 1 of control groups with CPU and memory, as root; here: %s (%s)", g, g.Why())
	}
	p := open(t)
	p.opts.Groups = g
	p.reopen(t)
	return p, g
}

func classed(name string, class v1alpha1.ServiceClass) *v1alpha1.EtcdMember {
	m := newMember(name)
	m.Spec.Class = class
	m.Spec.Resources = v1alpha1.Resources{CPU: resource.MustParse("1"), Memory: resource.MustParse("1Gi"), Disk: resource.MustParse("1Gi")}
	return m
}

func groupOf(m *v1alpha1.EtcdMember) cgroup.Member {
	return cgroup.Member{Name: filepath.Base(filepath.Dir(m.Status.DataDir)), Class: m.Spec.Class, Resources: m.Spec.Resources}
}

// inGroup fails unless both processes of the member are in its group of that class.
func inGroup(t *testing.T, g *cgroup.Groups, m *v1alpha1.EtcdMember) {
	t.Helper()
	for _, controller := range []string{"cpu", "memory"} {
		raw, err := os.ReadFile(filepath.Join(g.Group(controller, groupOf(m)), "cgroup.procs"))
		if err != nil {
			t.Errorf("%s: %v", m.Spec.Class, err)
		}
		pids := strings.Fields(string(raw))
		for _, pid := range []int64{m.Status.Process.PID, m.Status.Process.SupervisorPID} {
			if !strings.Contains(" "+strings.Join(pids, " ")+" ", " "+strconv.FormatInt(pid, 10)+" ") {
				t.Errorf("%s: process %d is not in the group of %s, which holds %s", m.Spec.Class, pid, controller, pids)
			}
		}
	}
}

// TestClassChanges: etcd is born in its group, moves with its class while it runs, and is
// born there again by whichever supervisor.
func TestClassChanges(t *testing.T) {
	t.Parallel()
	p, g := openApart(t, "classes")
	m := classed("moves", v1alpha1.ClassBurstable)
	drivertest.Start(t, p.Harness, m)
	pid, config := m.Status.Process.PID, m.Status.Process.ConfigHash
	inGroup(t, g, m)

	m.Spec.Class = v1alpha1.ClassBestEffort
	drivertest.Ensure(t, p.driver, m)
	inGroup(t, g, m)
	limit, err := os.ReadFile(filepath.Join(g.Group("memory", groupOf(m)), "memory.limit_in_bytes"))
	if got := strings.TrimSpace(string(limit)); err != nil || got != strconv.Itoa(4<<30) {
		t.Errorf("a BestEffort member that asks for 1Gi is limited to %s (%v)", got, err)
	}
	m.Spec.Resources.Memory = resource.MustParse("2Gi")
	drivertest.Ensure(t, p.driver, m)
	limit, err = os.ReadFile(filepath.Join(g.Group("memory", groupOf(m)), "memory.limit_in_bytes"))
	if got := strings.TrimSpace(string(limit)); err != nil || got != strconv.Itoa(8<<30) {
		t.Errorf("one that asks for 2Gi is limited to %s (%v)", got, err)
	}
	m.Spec.Class = v1alpha1.ClassGuaranteed
	drivertest.Ensure(t, p.driver, m)
	inGroup(t, g, m)
	if m.Status.Process.PID != pid || m.Status.Process.ConfigHash != config || m.Status.Process.Restarts != 0 {
		t.Errorf("a change of class restarted etcd: %+v", m.Status.Process)
	}

	// One that is started again by its supervisor is born there.
	kill(t, pid)
	drivertest.Until(t, p.driver, m, "restarted", func(s v1alpha1.EtcdMemberStatus) bool {
		return s.Phase == v1alpha1.MemberRunning && s.Process.PID != pid
	})
	inGroup(t, g, m)
	// And a supervisor that an agent starts is put there, too.
	kill(t, m.Status.Process.SupervisorPID)
	p.reopen(t)
	drivertest.Ensure(t, p.driver, m)
	drivertest.Until(t, p.driver, m, "adopted", func(s v1alpha1.EtcdMemberStatus) bool {
		return s.Phase == v1alpha1.MemberRunning && s.Process.SupervisorPID != 0
	})
	inGroup(t, g, m)

	stopNow(t, p, m)
	m.Spec.Run = v1alpha1.RunStopped
	dir := g.Group("cpu", groupOf(m))
	if _, err := p.driver.Data(m).Retire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("the group of a member that is gone is left: %s", dir)
	}
}

// TestGuarded: BestEffort members are limited while a Guaranteed one runs on the host,
// also by an agent that found it running.
func TestGuarded(t *testing.T) {
	t.Parallel()
	p, g := openApart(t, "guarded")
	low, high := classed("low", v1alpha1.ClassBestEffort), classed("high", v1alpha1.ClassGuaranteed)
	drivertest.Start(t, p.Harness, low)
	quota := func(want bool, when string) {
		t.Helper()
		raw, err := os.ReadFile(filepath.Join(filepath.Dir(g.Group("cpu", groupOf(low))), "cpu.cfs_quota_us"))
		if got := strings.TrimSpace(string(raw)); err != nil || (got != "-1") != want {
			t.Errorf("%s: the quota of BestEffort members is %s (%v)", when, got, err)
		}
	}
	quota(false, "alone")
	drivertest.Start(t, p.Harness, high)
	drivertest.Ensure(t, p.driver, high)
	quota(true, "beside a Guaranteed one")
	if err := g.Guard(false); err != nil {
		t.Fatal(err)
	}
	p.reopen(t)
	drivertest.Ensure(t, p.driver, low)
	quota(true, "after the agent was restarted")
	stopNow(t, p, high)
	quota(false, "after the Guaranteed one was stopped")
}

// TestUsage: what a member uses is seen, and reported in steps.
func TestUsage(t *testing.T) {
	t.Parallel()
	p := open(t)
	p.opts.UsageWindow = 300 * time.Millisecond
	p.reopen(t)
	m := newMember("used")
	drivertest.Start(t, p.Harness, m)
	if m.Status.Used != nil || p.driver.Used() != nil {
		t.Errorf("used before it was looked at: %v", m.Status.Used)
	}
	drivertest.Eventually(t, func() (bool, string) {
		if err := p.driver.Sample(t.Context()); err != nil {
			t.Fatal(err)
		}
		drivertest.Ensure(t, p.driver, m)
		u := m.Status.Used
		return u != nil && u.Memory.Value() > 10<<20 && u.Disk.Value() > 50<<20, fmt.Sprint(u)
	})
	// The log of an etcd takes 64 MB from the start, and this test binary does not fit
	// into a few.
	if u := m.Status.Used; u.Memory.Value()%(1<<20) != 0 || u.Disk.Value() > 200<<20 {
		t.Errorf("memory %s, disk %s", u.Memory.String(), u.Disk.String())
	}
	if all := p.driver.Used(); all == nil || !v1alpha1.Equal(*all, *m.Status.Used) {
		t.Errorf("the host uses %v, its one member %v", all, m.Status.Used)
	}
	// A member that rests is reported once: the status does not move with each look.
	before := m.Status.Used.DeepCopy()
	changes := 0
	for range 20 {
		if err := p.driver.Sample(t.Context()); err != nil {
			t.Fatal(err)
		}
		drivertest.Ensure(t, p.driver, m)
		if !v1alpha1.Equal(before.Memory, m.Status.Used.Memory) {
			changes++
			before = m.Status.Used.DeepCopy()
		}
	}
	if changes > 1 {
		t.Errorf("the memory of a member at rest was reported anew %d times", changes)
	}
	stopNow(t, p, m)
	drivertest.Eventually(t, func() (bool, string) {
		if err := p.driver.Sample(t.Context()); err != nil {
			t.Fatal(err)
		}
		u := p.driver.Used()
		return u == nil || u.Memory.Value() == 0, fmt.Sprint(u)
	})
}
