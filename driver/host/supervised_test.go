package host_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver"
	"github.com/quorate/quorate/driver/drivertest"
	"github.com/quorate/quorate/driver/host/supervisor"
	"github.com/quorate/quorate/internal/process"
)

func isPhase(phase v1alpha1.MemberPhase) func(v1alpha1.EtcdMemberStatus) bool {
	return func(s v1alpha1.EtcdMemberStatus) bool { return s.Phase == phase }
}

func homeOf(p *place, m *v1alpha1.EtcdMember) supervisor.Home {
	return supervisor.Home(p.driver.Home(m))
}

func stopNow(t *testing.T, p *place, m *v1alpha1.EtcdMember) v1alpha1.StopProof {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), drivertest.Wait)
	defer cancel()
	proof, err := p.driver.Stop(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	return proof
}

// TestSupervisorKilled: etcd does not notice, and is adopted.
func TestSupervisorKilled(t *testing.T) {
	t.Parallel()
	p := open(t)
	m := newMember("adopted")
	drivertest.Start(t, p.Harness, m)
	before := *m.Status.Process
	kill(t, before.SupervisorPID)

	s, err := p.driver.Observe(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	if s.Phase != v1alpha1.MemberRunning || s.Process.PID != before.PID || !strings.Contains(s.Message, "without its supervisor") || s.StopProof != nil {
		t.Errorf("without a supervisor: %s, %q, %+v, proof %v", s.Phase, s.Message, s.Process, s.StopProof)
	}
	p.reopen(t) // the agent was killed too
	drivertest.Ensure(t, p.driver, m)
	drivertest.Until(t, p.driver, m, "adopted", func(s v1alpha1.EtcdMemberStatus) bool {
		return s.Phase == v1alpha1.MemberRunning && s.Process.SupervisorPID != 0
	})
	if m.Status.Process.PID != before.PID || m.Status.Process.SupervisorPID == before.SupervisorPID {
		t.Errorf("before %+v, after %+v", before, m.Status.Process)
	}
	if m.Status.Process.Restarts != 0 || m.Status.Process.ConfigHash != before.ConfigHash {
		t.Errorf("adoption counted as a restart: %+v", m.Status.Process)
	}
	// The adopted one is watched: killed, it comes back.
	kill(t, before.PID)
	drivertest.Until(t, p.driver, m, "restarted", func(s v1alpha1.EtcdMemberStatus) bool {
		return s.Phase == v1alpha1.MemberRunning && s.Process.PID != before.PID
	})
	if m.Status.LastExit == nil || m.Status.LastExit.Code != -1 {
		t.Errorf("last exit %+v", m.Status.LastExit)
	}
}

// TestKilledBetweenForkAndNote: the state names no process, but there is one.
func TestKilledBetweenForkAndNote(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(t *testing.T, h supervisor.Home){
		"intent only": func(t *testing.T, h supervisor.Home) {
			t.Helper()
			s, err := h.ReadState()
			if err != nil {
				t.Fatal(err)
			}
			s.Intent = &supervisor.Intent{BootID: s.Process.ID.BootID, At: time.Now(), ConfigHash: s.Process.ConfigHash, Digest: s.Process.Digest}
			s.Process = nil
			raw, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(h.StateFile(), raw, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"state missing": func(t *testing.T, h supervisor.Home) {
			t.Helper()
			if err := os.Remove(h.StateFile()); err != nil {
				t.Fatal(err)
			}
		},
		"state half written": func(t *testing.T, h supervisor.Home) {
			t.Helper()
			if err := os.WriteFile(h.StateFile(), []byte(`{"phase":"Sto`), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := open(t)
			m := newMember("forked")
			drivertest.Start(t, p.Harness, m)
			before := *m.Status.Process
			kill(t, before.SupervisorPID)
			damage(t, homeOf(p, m))
			s, err := p.driver.Observe(t.Context(), m)
			if err != nil {
				t.Fatal(err)
			}
			if s.Process == nil || s.Process.PID != before.PID || s.StopProof != nil {
				t.Errorf("observed without a state: %+v, proof %v", s.Process, s.StopProof)
			}
			if where, err := p.driver.Data(m).Retire(t.Context()); !errors.Is(err, driver.ErrNotStopped) {
				t.Fatalf("retired while etcd runs: %s, %v", where, err)
			}
			drivertest.Ensure(t, p.driver, m)
			drivertest.Until(t, p.driver, m, "adopted", func(s v1alpha1.EtcdMemberStatus) bool {
				return s.Phase == v1alpha1.MemberRunning && s.Process.SupervisorPID != 0
			})
			if m.Status.Process.PID != before.PID || m.Status.Process.ConfigHash != before.ConfigHash {
				t.Errorf("before %+v, after %+v", before, m.Status.Process)
			}
			kill(t, m.Status.Process.SupervisorPID)
			damage2(t, homeOf(p, m))
			if proof := stopNow(t, p, m); proof.PID != before.PID {
				t.Errorf("proof %+v of pid %d", proof, before.PID)
			}
			if (process.ID{PID: int(before.PID)}).Alive() {
				t.Error("it lives")
			}
		})
	}
}

// damage2 loses the order too: a stop needs none.
func damage2(t *testing.T, h supervisor.Home) {
	t.Helper()
	if err := os.WriteFile(h.OrderFile(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestEverythingKilled is a power loss without the power.
func TestEverythingKilled(t *testing.T) {
	t.Parallel()
	p := open(t)
	m := newMember("all")
	drivertest.Start(t, p.Harness, m)
	before := *m.Status.Process
	kill(t, before.SupervisorPID)
	kill(t, before.PID)
	s, err := p.driver.Observe(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	if s.Phase == v1alpha1.MemberRunning || s.StopProof != nil || v1alpha1.IsTrue(s.Conditions, v1alpha1.ConditionRunning) {
		t.Errorf("after the kill: %s, proof %v", s.Phase, s.StopProof)
	}
	p.reopen(t)
	drivertest.Ensure(t, p.driver, m)
	drivertest.Running(t, p.Harness, m)
	if m.Status.Process.PID == before.PID || m.Status.LastExit == nil {
		t.Errorf("after: %+v, last exit %v", m.Status.Process, m.Status.LastExit)
	}
	// The same without starting again: stop finds out.
	kill(t, m.Status.Process.SupervisorPID)
	kill(t, m.Status.Process.PID)
	if proof := stopNow(t, p, m); proof.PID != m.Status.Process.PID || !strings.Contains(proof.Evidence, "no supervisor watched") {
		t.Errorf("proof %+v", proof)
	}
}

// TestSigtermEndsBoth: whoever ends the supervisor politely ends etcd, with proof.
func TestSigtermEndsBoth(t *testing.T) {
	t.Parallel()
	p := open(t)
	m := newMember("term")
	drivertest.Start(t, p.Harness, m)
	pid := m.Status.Process.PID
	id, err := process.Identify(int(m.Status.Process.SupervisorPID))
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	drivertest.Until(t, p.driver, m, "stopped", isPhase(v1alpha1.MemberStopped))
	proof := m.Status.StopProof
	if proof == nil || proof.PID != pid || !strings.HasPrefix(proof.Evidence, "reaped by its supervisor") {
		t.Fatalf("proof %+v", proof)
	}
	if _, err := process.Identify(int(pid)); !errors.Is(err, process.ErrGone) {
		t.Errorf("etcd lives on: %v", err)
	}
	drivertest.Ensure(t, p.driver, m)
	drivertest.Running(t, p.Harness, m)
}

// TestStubbornEtcdIsKilled: the grace ends in SIGKILL.
func TestStubbornEtcdIsKilled(t *testing.T) {
	t.Parallel()
	p := open(t)
	m := newMember("stubborn")
	drivertest.Start(t, p.Harness, m)
	h := homeOf(p, m)
	o, err := h.ReadOrder()
	if err != nil {
		t.Fatal(err)
	}
	o.StopGraceSeconds = 1
	if _, err = h.WriteOrder(o); err != nil {
		t.Fatal(err)
	}
	id, err := process.Identify(int(m.Status.Process.PID))
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Signal(syscall.SIGSTOP); err != nil { // it can't answer SIGTERM
		t.Fatal(err)
	}
	if proof := stopNow(t, p, m); !strings.Contains(proof.Evidence, "killed") {
		t.Errorf("proof %+v", proof)
	}
}

// TestHostileEnvironment: nothing of the parent's environment reaches etcd.
func TestHostileEnvironment(t *testing.T) { //nolint:paralleltest // it changes the environment
	for _, v := range []string{"ETCD_NAME", "ETCD_FORCE_NEW_CLUSTER", "GOGC", "GODEBUG"} {
		t.Setenv(v, map[string]string{"ETCD_NAME": "evil", "ETCD_FORCE_NEW_CLUSTER": "true", "GOGC": "1000", "GODEBUG": "madvdontneed=1"}[v])
	}
	p := open(t)
	m := newMember("clean")
	drivertest.Start(t, p.Harness, m)
	for _, pid := range []int64{m.Status.Process.PID, m.Status.Process.SupervisorPID} {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil {
			t.Fatal(err)
		}
		for v := range strings.SplitSeq(strings.Trim(string(raw), "\x00"), "\x00") {
			if !strings.HasPrefix(v, "PATH=") {
				t.Errorf("process %d has %s", pid, v)
			}
		}
	}
	// Sessions of their own: what ends a terminal or a group does not reach them.
	for _, pid := range []int{int(m.Status.Process.PID), int(m.Status.Process.SupervisorPID)} {
		if group, err := syscall.Getpgid(pid); err != nil || group != pid {
			t.Errorf("process %d is in group %d (%v)", pid, group, err)
		}
	}
	// And no descriptor but the three and its own: the lock is not inherited.
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", m.Status.Process.PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && target == homeOf(p, m).LockFile() {
			t.Errorf("etcd holds the supervisor's lock as %s", fd)
		}
	}
}

// TestCrashLoop: the message is what etcd said.
func TestCrashLoop(t *testing.T) {
	t.Parallel()
	p := open(t)
	m := newMember("loop")
	drivertest.Prepare(t, p.driver, m)
	thief := listen(t, m.Status.Ports.Client)
	m.Spec.Run = v1alpha1.RunRunning
	drivertest.Ensure(t, p.driver, m)
	drivertest.Until(t, p.driver, m, "crash loop", isPhase(v1alpha1.MemberCrashLoop))
	if !strings.Contains(m.Status.Message, "address already in use") || !strings.Contains(m.Status.LastExit.Message, "bind: address already in use") {
		t.Errorf("message %q, last exit %+v", m.Status.Message, m.Status.LastExit)
	}
	if m.Status.LastExit.Code == 0 || v1alpha1.IsTrue(m.Status.Conditions, v1alpha1.ConditionRunning) {
		t.Errorf("last exit %+v", m.Status.LastExit)
	}
	errorLog, err := os.ReadFile(filepath.Join(homeOf(p, m).LogDir(), "loop.error.log"))
	if err != nil || !strings.Contains(string(errorLog), "address already in use") {
		t.Errorf("error log: %v, %.300s", err, errorLog)
	}
	if err := thief.Close(); err != nil {
		t.Fatal(err)
	}
	// A change of the configuration is tried at once, however long the wait was.
	m.Spec.Etcd.MaxTxnOps = 77
	drivertest.Ensure(t, p.driver, m)
	drivertest.Running(t, p.Harness, m)
	stopNow(t, p, m)
}

// TestSupervisorIsSmall: it costs little, and nothing while nothing happens.
func TestSupervisorIsSmall(t *testing.T) { //nolint:paralleltest // it measures
	p := open(t)
	m := newMember("small")
	drivertest.Start(t, p.Harness, m)
	pid := m.Status.Process.SupervisorPID
	before := cpuTicks(t, pid)
	const watch = 3 * time.Second
	deadline := time.NewTimer(watch)
	<-deadline.C
	if used := cpuTicks(t, pid) - before; used > 2 {
		t.Errorf("%d ticks of 10 ms in %s", used, watch)
	}
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if anon, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, err := strconv.Atoi(strings.Fields(anon)[0])
			t.Logf("RssAnon %d kB", kb)
			if limit := 20 << 10; err != nil || kb > limit && !raceEnabled {
				t.Errorf("RssAnon %d kB, limit %d (%v)", kb, limit, err)
			}
		}
	}
}

func cpuTicks(t *testing.T, pid int64) int {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	fields := strings.Fields(rest)
	total := 0
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
	return total
}

// TestStateHealsItself: a state that someone spoils is written anew.
func TestStateHealsItself(t *testing.T) {
	t.Parallel()
	p := open(t)
	m := newMember("heal")
	drivertest.Start(t, p.Harness, m)
	pid := m.Status.Process.PID
	if err := os.WriteFile(homeOf(p, m).StateFile(), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	drivertest.Eventually(t, func() (bool, string) {
		s, err := homeOf(p, m).ReadState()
		return err == nil && int64(s.Process.ID.PID) == pid, fmt.Sprint(err)
	})
}

// TestSupervisorThatFails: its own message reaches the member, and it is not
// started over and over.
func TestSupervisorThatFails(t *testing.T) {
	t.Parallel()
	p := open(t)
	script := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho started\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	p.opts.Executable = script
	p.reopen(t)
	m := newMember("broken")
	drivertest.Prepare(t, p.driver, m)
	m.Spec.Run = v1alpha1.RunRunning
	drivertest.Eventually(t, func() (bool, string) {
		drivertest.Ensure(t, p.driver, m)
		c := v1alpha1.FindCondition(m.Status.Conditions, v1alpha1.ConditionPrepared)
		return strings.Contains(c.Message, "exit status 3") && strings.Contains(c.Message, "supervisor.log"), c.Message
	})
	for range 20 {
		drivertest.Ensure(t, p.driver, m)
	}
	raw, err := os.ReadFile(homeOf(p, m).SupervisorLog())
	if n := strings.Count(string(raw), "started"); err != nil || n == 0 || n > 3 {
		t.Errorf("started %d times, %v", n, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if proof, err := p.driver.Stop(ctx, m); err != nil || proof.Evidence == "" {
		t.Errorf("it never started an etcd: %+v, %v", proof, err)
	}
}

// TestStrangeProcessKeepsTheProofAway: files that say stopped are not enough.
func TestStrangeProcessKeepsTheProofAway(t *testing.T) {
	t.Parallel()
	p := open(t)
	m := newMember("strange")
	drivertest.Start(t, p.Harness, m)
	stopNow(t, p, m)
	o, err := homeOf(p, m).ReadOrder()
	if err != nil {
		t.Fatal(err)
	}
	// Someone starts it by hand.
	cmd := exec.CommandContext(t.Context(), o.Executable, o.Args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	drivertest.Eventually(t, func() (bool, string) {
		_, ok, err := supervisor.Scan(o.DataDir)
		return ok, fmt.Sprint("not found: ", err)
	})
	if proof, err := p.driver.Stop(t.Context(), m); !errors.Is(err, driver.ErrNotStopped) || !strings.Contains(err.Error(), strconv.Itoa(cmd.Process.Pid)) {
		t.Errorf("%+v, %v", proof, err)
	}
	if where, err := p.driver.Data(m).Retire(t.Context()); !errors.Is(err, driver.ErrNotStopped) {
		t.Errorf("retired: %q, %v", where, err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	stopNow(t, p, m)
}
