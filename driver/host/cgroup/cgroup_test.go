package cgroup_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/host/cgroup"
)

// open makes groups on this machine that are gone when the test ends.
func open(t *testing.T, name string) *cgroup.Groups {
	t.Helper()
	g := cgroup.Open(t.Context(), cgroup.Options{Name: fmt.Sprintf("%s%d", name, os.Getpid()), Dir: t.TempDir()})
	t.Cleanup(g.Close)
	if !strings.HasPrefix(g.String(), "v1: cpu, memory") {
		t.Skipf("SKIPPED: it looks at version 1 of control groups with CPU and memory, as root; here: %s (%s)", g, g.Why())
	}
	return g
}

// sleeper is a process that ends with the test.
func sleeper(t *testing.T) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	return cmd.Process.Pid
}

func member(class v1alpha1.ServiceClass) cgroup.Member {
	return cgroup.Member{Name: "default.m.1", Class: class, Resources: v1alpha1.Resources{CPU: resource.MustParse("500m"), Memory: resource.MustParse("256Mi")}}
}

func read(t *testing.T, elem ...string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(raw))
}

func TestPlace(t *testing.T) {
	t.Parallel()
	g, pid := open(t, "place"), sleeper(t)
	// Going below what a process began with takes CAP_SYS_RESOURCE.
	mayLower := os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte("-1"), 0) == nil
	for _, c := range []struct {
		class                 v1alpha1.ServiceClass
		classFile, classValue string
		shares, limit, oom    string
	}{
		{v1alpha1.ClassBestEffort, "cpu.shares", "102", "512", "1073741824", "700"},
		{v1alpha1.ClassGuaranteed, "cpu.shares", "65536", "512", "", "-900"},
		{v1alpha1.ClassBurstable, "cpu.shares", "8192", "512", "", "-300"},
	} {
		// The same process moves from class to class while it runs.
		m := member(c.class)
		if err := g.Place(m, pid); err != nil {
			t.Fatal(err)
		}
		for _, controller := range []string{"cpu", "memory"} {
			if got := read(t, g.Group(controller, m), "cgroup.procs"); got != strconv.Itoa(pid) {
				t.Errorf("%s: the group %s holds %q, want %d", c.class, controller, got, pid)
			}
		}
		cpu := g.Group("cpu", m)
		if got := read(t, filepath.Dir(cpu), c.classFile); got != c.classValue {
			t.Errorf("%s: %s=%s, want %s", c.class, c.classFile, got, c.classValue)
		}
		if got := read(t, cpu, "cpu.shares"); got != c.shares {
			t.Errorf("%s: %s shares", c.class, got)
		}
		limit := read(t, g.Group("memory", m), "memory.limit_in_bytes")
		if c.limit != "" && limit != c.limit || c.limit == "" && len(limit) < len("9223372036854771712") {
			t.Errorf("%s: memory limit %s, want %q", c.class, limit, c.limit)
		}
		if !mayLower && c.oom[0] == '-' {
			c.oom = "0"
		}
		if got := read(t, "/proc", strconv.Itoa(pid), "oom_score_adj"); got != c.oom {
			t.Errorf("%s: OOM score %s, want %s", c.class, got, c.oom)
		}
		for _, other := range []v1alpha1.ServiceClass{v1alpha1.ClassGuaranteed, v1alpha1.ClassBurstable, v1alpha1.ClassBestEffort} {
			if _, err := os.Stat(g.Group("cpu", member(other))); (err == nil) != (other == c.class) {
				t.Errorf("%s: the group of %s: %v", c.class, other, err)
			}
		}
	}
}

// TestGuard: what BestEffort members are limited to comes and goes with Guaranteed ones,
// and they share it.
func TestGuard(t *testing.T) {
	t.Parallel()
	g := open(t, "guard")
	one, two := member(v1alpha1.ClassBestEffort), member(v1alpha1.ClassBestEffort)
	two.Name = "default.n.2"
	if err := g.Place(one, sleeper(t)); err != nil {
		t.Fatal(err)
	}
	class := filepath.Dir(g.Group("cpu", one))
	look := func() (quota, writes string) {
		t.Helper()
		if _, err := os.Stat(filepath.Join(class, "cpu.idle")); err == nil {
			if idle := read(t, class, "cpu.idle"); (idle == "1") != (read(t, class, "cpu.cfs_quota_us") != "-1") {
				t.Errorf("the class is idle: %s", idle)
			}
		}
		quota = read(t, class, "cpu.cfs_quota_us")
		if blkio := g.Group("blkio", one); blkio != "" {
			writes = strings.TrimSpace(read(t, blkio, "blkio.throttle.write_iops_device"))
		}
		return quota, writes
	}
	if quota, writes := look(); quota != "-1" || writes != "" {
		t.Errorf("without Guaranteed members: quota %s, writes %q", quota, writes)
	}
	if err := g.Guard(true); err != nil {
		t.Fatal(err)
	}
	want := strconv.Itoa(int(cgroup.BestEffortCPUs() * 100000))
	quota, writes := look()
	if quota != want || g.Group("blkio", one) != "" && !strings.HasSuffix(writes, " "+strconv.Itoa(cgroup.BestEffortWrites)) {
		t.Errorf("with Guaranteed members: quota %s, want %s; writes %q", quota, want, writes)
	}
	if err := g.Place(two, sleeper(t)); err != nil {
		t.Fatal(err)
	}
	if _, writes := look(); g.Group("blkio", one) != "" && !strings.HasSuffix(writes, " "+strconv.Itoa(cgroup.BestEffortWrites/2)) {
		t.Errorf("of two members, one may do %q writes", writes)
	}
	if err := g.Guard(false); err != nil {
		t.Fatal(err)
	}
	if quota, writes := look(); quota != "-1" || writes != "" {
		t.Errorf("without Guaranteed members again: quota %s, writes %q", quota, writes)
	}
}

// TestSweep: groups that hold a process stay, also those of other agents.
func TestSweep(t *testing.T) {
	t.Parallel()
	g, other := open(t, "sweep"), open(t, "swept")
	used, left := member(v1alpha1.ClassBurstable), member(v1alpha1.ClassBurstable)
	used.Name, left.Name = "default.used.1", "default.left.1"
	if err := other.Place(used, sleeper(t)); err != nil {
		t.Fatal(err)
	}
	if err := other.Place(left); err != nil {
		t.Fatal(err)
	}
	g.Sweep()
	if _, err := os.Stat(other.Group("cpu", used)); err != nil {
		t.Errorf("a group in use is gone: %v", err)
	}
	if _, err := os.Stat(other.Group("cpu", left)); err == nil {
		t.Error("a group that holds nothing is left")
	}
	// And what was swept away is made again.
	if err := other.Place(left, sleeper(t)); err != nil {
		t.Error(err)
	}
}

// TestNone: without groups members run as they are.
func TestNone(t *testing.T) {
	t.Parallel()
	var none *cgroup.Groups
	pid := sleeper(t)
	if err := errorsOf(none.Place(member(v1alpha1.ClassGuaranteed), pid), none.Guard(true)); err != nil {
		t.Error(err)
	}
	if none.String() != "none" {
		t.Errorf("it says %q", none)
	}
	proc := t.TempDir()
	if err := os.MkdirAll(filepath.Join(proc, "self"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"mountinfo", "cgroup"} {
		if err := os.WriteFile(filepath.Join(proc, "self", file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	g := cgroup.Open(t.Context(), cgroup.Options{Name: "x", Dir: proc, Proc: proc})
	if !strings.HasPrefix(g.String(), "none") || g.Why() == "" {
		t.Errorf("without mounts it says %q, because %q", g, g.Why())
	}
	if err := g.Place(member(v1alpha1.ClassBestEffort), pid); err != nil {
		t.Error(err)
	}
	stat := strings.Fields(read(t, "/proc", strconv.Itoa(pid), "stat"))
	if nice := stat[18]; nice != "19" {
		t.Errorf("a BestEffort process has nice %s, want 19 where there are no groups", nice)
	}
}

func errorsOf(all ...error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}

// TestVersion2 looks at what is written on a directory that looks like version 2, since
// kernels have their controllers in one version only.
func TestVersion2(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	own := filepath.Join(root, "system.slice/quorate-agent.service")
	proc := filepath.Join(root, "proc")
	for file, text := range map[string]string{
		filepath.Join(root, "system.slice/cgroup.controllers"):     "cpuset cpu io memory pids\n",
		filepath.Join(root, "system.slice/cgroup.procs"):           "",
		filepath.Join(root, "system.slice/cgroup.subtree_control"): "",
		filepath.Join(own, "cgroup.procs"):                         "",
		filepath.Join(own, "cgroup.type"):                          "domain\n",
		filepath.Join(proc, "self/mountinfo"):                      "30 1 0:26 / " + root + " rw - cgroup2 cgroup2 rw\n",
		filepath.Join(proc, "self/cgroup"):                         "0::/system.slice/quorate-agent.service\n",
	} {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// The kernel makes a group's files with its directory.
	for _, class := range []string{"guaranteed", "burstable", "besteffort"} {
		for _, dir := range []string{"quorate-x-" + class, "quorate-x-" + class + "/default.m.1"} {
			for _, file := range []string{"cgroup.subtree_control", "cgroup.procs", "cpu.weight", "cpu.idle", "cpu.max", "memory.max", "memory.low", "io.max", "io.weight"} {
				path := filepath.Join(root, "system.slice", dir, file)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	g := cgroup.Open(t.Context(), cgroup.Options{Name: "x", Dir: t.TempDir(), Proc: proc})
	if g.String() != "v2: cpu, memory, io" {
		t.Fatalf("it says %q, because %q", g, g.Why())
	}
	if err := g.Guard(true); err != nil {
		t.Fatal(err)
	}
	m := member(v1alpha1.ClassBestEffort)
	if err := g.Place(m); err != nil {
		t.Fatal(err)
	}
	dir := g.Group("cpu", m)
	for file, want := range map[string]string{
		filepath.Join(dir, "memory.max"):                           "1073741824",
		filepath.Join(dir, "cpu.weight"):                           "50",
		filepath.Join(filepath.Dir(dir), "cpu.idle"):               "1",
		filepath.Join(filepath.Dir(dir), "cpu.max"):                fmt.Sprintf("%d 100000", int(cgroup.BestEffortCPUs()*100000)),
		filepath.Join(root, "system.slice/cgroup.subtree_control"): "+memory", // the latest of them
	} {
		if got := read(t, file); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
}
