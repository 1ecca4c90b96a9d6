package drivertest

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver"
)

// testUnknown: a member that was never seen is pending, and provably not running.
func testUnknown(t *testing.T, h Harness) {
	t.Helper()
	m := h.Member("unknown")
	s, err := h.Driver.Observe(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	if s.Phase != v1alpha1.MemberPending || s.Process != nil || v1alpha1.IsTrue(s.Conditions, v1alpha1.ConditionRunning) {
		t.Errorf("a member that was never prepared: %+v", s)
	}
	if _, err := h.Driver.Logs(t.Context(), m, driver.LogOptions{}); err == nil {
		t.Error("it has a log")
	}
	if proof := stop(t, h, m); proof.PID != 0 || proof.Evidence == "" {
		t.Errorf("proof of a member that never ran: %+v", proof)
	}
	if where, err := h.Driver.Data(m).Retire(t.Context()); err != nil || where != "" {
		t.Errorf("retire of what is not there: %q, %v", where, err)
	}
}

// testPrepare: preparing is idempotent, starts nothing, and ports stay.
func testPrepare(t *testing.T, h Harness) {
	t.Helper()
	m := h.Member("prepared")
	m.Generation = 7
	Prepare(t, h.Driver, m)
	first := m.Status
	if first.Phase != v1alpha1.MemberPrepared || first.Process != nil || first.ObservedGeneration != 7 {
		t.Errorf("prepared: phase %s, process %v, generation %d", first.Phase, first.Process, first.ObservedGeneration)
	}
	if p := first.Ports; p.Client == 0 || p.Peer == 0 || p.Client == p.Peer {
		t.Errorf("ports %+v", p)
	}
	if first.ClientURL == "" || first.PeerURL == "" || first.DataDir == "" {
		t.Errorf("addresses missing: %+v", first)
	}
	Ensure(t, h.Driver, m)
	if diff := cmp.Diff(first.Ports, m.Status.Ports); diff != "" {
		t.Errorf("ports moved (-first +second):\n%s", diff)
	}
	if diff := cmp.Diff(first.Conditions, m.Status.Conditions); diff != "" {
		t.Errorf("conditions moved though nothing happened:\n%s", diff)
	}
	other := h.Member("neighbour")
	Prepare(t, h.Driver, other)
	if other.Status.ClientURL == first.ClientURL || other.Status.PeerURL == first.PeerURL {
		t.Errorf("two members share %s or %s", first.ClientURL, first.PeerURL)
	}
	if proof := stop(t, h, m); proof.PID != 0 {
		t.Errorf("proof of a prepared member names pid %d", proof.PID)
	}
}

// testRun: ensuring again changes nothing.
func testRun(t *testing.T, h Harness) {
	t.Helper()
	m := h.Member("run")
	Start(t, h, m)
	p := m.Status.Process
	if p == nil || p.PID == 0 || p.ConfigHash != v1alpha1.MemberConfigHash(&m.Spec) || p.Digest != m.Spec.Release.Digest {
		t.Fatalf("process %+v, spec hash %s", p, v1alpha1.MemberConfigHash(&m.Spec))
	}
	if m.Status.StopProof != nil {
		t.Errorf("a running member has a proof of stop: %+v", m.Status.StopProof)
	}
	for _, condition := range []string{v1alpha1.ConditionPrepared, v1alpha1.ConditionRunning, v1alpha1.ConditionDataDirectory, v1alpha1.ConditionCertificates} {
		if !v1alpha1.IsTrue(m.Status.Conditions, condition) {
			t.Errorf("condition %s: %+v", condition, v1alpha1.FindCondition(m.Status.Conditions, condition))
		}
	}
	for range 3 {
		Ensure(t, h.Driver, m)
	}
	// Preparing a member that runs does not stop it.
	m.Spec.Run = v1alpha1.RunPrepared
	Ensure(t, h.Driver, m)
	m.Spec.Run = v1alpha1.RunRunning
	Ensure(t, h.Driver, m)
	if m.Status.Process == nil || m.Status.Process.PID != p.PID {
		t.Errorf("pid %d became %+v", p.PID, m.Status.Process)
	}
}

// testConfiguration: another configuration means another process, with the data.
func testConfiguration(t *testing.T, h Harness) {
	t.Helper()
	m := h.Member("config")
	Start(t, h, m)
	before := *m.Status.Process
	put(t, h, m, "kept", "over a restart")
	m.Spec.Etcd.MaxTxnOps = 77
	Ensure(t, h.Driver, m)
	if m.Status.Phase == v1alpha1.MemberRunning && m.Status.Process.ConfigHash != v1alpha1.MemberConfigHash(&m.Spec) {
		t.Error("said to be running while it runs with the earlier configuration")
	}
	Running(t, h, m)
	if m.Status.Process.PID == before.PID || m.Status.Process.ConfigHash == before.ConfigHash {
		t.Errorf("process %+v, before %+v", m.Status.Process, before)
	}
	if got := get(t, h, m, "kept"); got != "over a restart" {
		t.Errorf("read %q", got)
	}
}

// testKill: a process that is killed comes back by itself.
func testKill(t *testing.T, h Harness) {
	t.Helper()
	m := h.Member("kill")
	Start(t, h, m)
	put(t, h, m, "kept", "over a kill")
	before := m.Status.Process.PID
	h.Kill(t, before)
	Until(t, h.Driver, m, "another process", func(s v1alpha1.EtcdMemberStatus) bool {
		return isRunning(s) && s.Process.PID != before
	})
	if m.Status.Process.Restarts < 1 || m.Status.LastExit == nil {
		t.Errorf("restarts %d, last exit %+v", m.Status.Process.Restarts, m.Status.LastExit)
	}
	if got := get(t, h, m, "kept"); got != "over a kill" {
		t.Errorf("read %q", got)
	}
}

// testStop: stop leaves a proof and the data; running again takes the proof back.
func testStop(t *testing.T, h Harness) {
	t.Helper()
	m := h.Member("stop")
	Start(t, h, m)
	put(t, h, m, "kept", "over a stop")
	pid := m.Status.Process.PID
	short, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Driver.Stop(short, m); !errors.Is(err, driver.ErrNotStopped) {
		t.Errorf("stop with a context that has ended: %v", err)
	}
	m.Spec.Run = v1alpha1.RunStopped
	proof := stop(t, h, m)
	if proof.PID != pid || proof.Evidence == "" || proof.At.IsZero() {
		t.Errorf("proof %+v of pid %d", proof, pid)
	}
	if again := stop(t, h, m); again.PID != pid {
		t.Errorf("proof asked for again: %+v", again)
	}
	Ensure(t, h.Driver, m)
	if m.Status.Phase != v1alpha1.MemberStopped || m.Status.StopProof == nil || m.Status.Process != nil {
		t.Errorf("stopped: %+v", m.Status)
	}
	if v1alpha1.IsTrue(m.Status.Conditions, v1alpha1.ConditionRunning) {
		t.Error("stopped, and said to be running")
	}
	m.Spec.Run = v1alpha1.RunRunning
	Ensure(t, h.Driver, m)
	Running(t, h, m)
	if m.Status.StopProof != nil {
		t.Errorf("it runs, and its proof of stop stands: %+v", m.Status.StopProof)
	}
	if got := get(t, h, m, "kept"); got != "over a stop" {
		t.Errorf("read %q", got)
	}
}

// testRetire: data goes aside, whole, and only after a stop.
func testRetire(t *testing.T, h Harness) {
	t.Helper()
	m := h.Member("retire")
	Start(t, h, m)
	if where, err := h.Driver.Data(m).Retire(t.Context()); !errors.Is(err, driver.ErrNotStopped) {
		t.Fatalf("retire of a running member: %q, %v", where, err)
	}
	stop(t, h, m)
	where, err := h.Driver.Data(m).Retire(t.Context())
	if err != nil || where == "" {
		t.Fatalf("retire: %q, %v", where, err)
	}
	if _, err := os.Stat(where); err != nil {
		t.Errorf("where it went: %v", err)
	}
	if _, err := os.Stat(m.Status.DataDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data directory is still there: %v", err)
	}
	if where, err := h.Driver.Data(m).Retire(t.Context()); err != nil || where != "" {
		t.Errorf("retire again: %q, %v", where, err)
	}
	if s, err := h.Driver.Observe(t.Context(), m); err != nil || s.Phase != v1alpha1.MemberPending {
		t.Errorf("after retiring: %s, %v", s.Phase, err)
	}
}

// testLogs: the last lines, and those to come.
func testLogs(t *testing.T, h Harness) {
	t.Helper()
	m := h.Member("logs")
	Start(t, h, m)
	all := readLog(t, h, m, driver.LogOptions{Tail: -1})
	if !strings.Contains(all, "ready to serve client requests") {
		t.Errorf("the log does not say that etcd serves: %.300s", all)
	}
	if three := readLog(t, h, m, driver.LogOptions{Tail: 3}); strings.Count(three, "\n") != 3 {
		t.Errorf("three lines: %q", three)
	}
	if _, err := h.Driver.Logs(t.Context(), m, driver.LogOptions{Source: "nowhere"}); err == nil {
		t.Error("a source that does not exist has a log")
	}

	ctx, cancel := context.WithTimeout(t.Context(), Wait)
	defer cancel()
	follow, err := h.Driver.Logs(ctx, m, driver.LogOptions{Tail: 0, Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer follow.Close() //nolint:errcheck // reading only
	h.Kill(t, m.Status.Process.PID)
	lines := bufio.NewScanner(follow)
	lines.Buffer(nil, 1<<20)
	seen := false
	for !seen && lines.Scan() {
		seen = strings.Contains(lines.Text(), "ready to serve client requests")
	}
	if !seen {
		t.Fatalf("the followed log ended without the restart: %v", lines.Err())
	}
	cancel()
	ended := make(chan struct{})
	go func() { defer close(ended); _, _ = io.Copy(io.Discard, follow) }()
	select {
	case <-ended:
	case <-time.After(Wait):
		t.Error("the followed log does not end with its context")
	}
}

func readLog(t *testing.T, h Harness, m *v1alpha1.EtcdMember, opts driver.LogOptions) string {
	t.Helper()
	r, err := h.Driver.Logs(t.Context(), m, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // reading only
	raw, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// testList: members are found by what lies there, whether declared or not.
func testList(t *testing.T, h Harness) {
	t.Helper()
	lister, ok := h.Driver.(driver.Lister)
	if !ok {
		t.Skip("this driver can't list what it finds")
	}
	m := h.Member("listed")
	Start(t, h, m)
	idle := h.Member("idle")
	Prepare(t, h.Driver, idle)
	found, err := lister.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pids := map[v1alpha1.UID]int64{}
	for _, f := range found {
		pids[f.UID] = f.PID
		if f.Home == "" || f.Namespace != m.Namespace {
			t.Errorf("found %+v", f)
		}
	}
	if want := map[v1alpha1.UID]int64{m.UID: m.Status.Process.PID, idle.UID: 0}; !cmp.Equal(want, pids) {
		t.Errorf("found %v, want %v", pids, want)
	}
}
