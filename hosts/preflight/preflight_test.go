package preflight_test

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/hosts/preflight"
)

// played is a machine as a test says that it is; what is not said is as it should be.
type played struct {
	files     map[string]string
	fs        preflight.Filesystem
	fsErr     error
	clock     preflight.Clock
	clockErr  error
	limit     uint64
	cpus      int
	addresses []netip.Addr
	listeners []preflight.Listener
	etcds     []preflight.Etcd
	appends   func(l preflight.Load) ([]time.Duration, error)

	mu     sync.Mutex
	bytes  int
	loads  []preflight.Load
	called int
}

func good() *played {
	const disk = 64 << 30
	return &played{
		files: map[string]string{
			"/proc/meminfo": "MemTotal:       16384000 kB\nMemFree:         1000 kB\n",
			"/proc/swaps":   "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n",
			"/sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
			"/proc/sys/kernel/osrelease":                  "6.1.0-18-amd64\n",
		},
		fs:    preflight.Filesystem{Dir: "/var/lib/quorate", Kind: "ext4", Source: "/dev/sdb1", Free: disk / 2, Size: disk, FreeInodes: 1e6, Inodes: 2e6, Device: 2, Root: 1},
		clock: preflight.Clock{Synchronised: true, MaxError: time.Millisecond},
		limit: 1 << 20, cpus: 4, addresses: []netip.Addr{netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("127.0.0.1")},
	}
}

func (p *played) ReadFile(name string) ([]byte, error) {
	text, ok := p.files[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return []byte(text), nil
}

func (p *played) Filesystem(context.Context, string) (preflight.Filesystem, error) {
	return p.fs, p.fsErr
}

func (p *played) Clock() (preflight.Clock, error)  { return p.clock, p.clockErr }
func (p *played) OpenFiles() (uint64, error)       { return p.limit, nil }
func (p *played) CPUs() int                        { return p.cpus }
func (p *played) Addresses() ([]netip.Addr, error) { return p.addresses, nil }

func (p *played) Listeners([]netip.AddrPort) ([]preflight.Listener, error) { return p.listeners, nil }
func (p *played) Etcds() ([]preflight.Etcd, error)                         { return p.etcds, nil }
func (p *played) Connect(context.Context, string) (time.Duration, error) {
	return time.Millisecond, nil
}

func (p *played) Append(_ context.Context, _ string, l preflight.Load) ([]time.Duration, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.called++
	p.bytes += l.Count * l.Size
	p.loads = append(p.loads, l)
	if p.appends != nil {
		return p.appends(l)
	}
	times := make([]time.Duration, l.Count)
	for i := range times {
		times[i] = time.Millisecond
	}
	return times, nil
}

var options = preflight.Options{Dir: "/var/lib/quorate/members", Address: "10.0.0.7", Peers: []string{"10.0.0.8"}}

func offset(off, within time.Duration) func(context.Context) (preflight.Reading, error) {
	return func(context.Context) (preflight.Reading, error) {
		return preflight.Reading{Offset: off, Error: within}, nil
	}
}

// TestGoodMachine: all pass on a machine as it should be, and nothing else is said of it.
func TestGoodMachine(t *testing.T) {
	p, o := good(), options
	o.ServerTime = offset(time.Millisecond, time.Millisecond)
	list := preflight.Run(t.Context(), p, o)
	if len(list) != 18 {
		t.Errorf("%d checks were made", len(list))
	}
	for _, c := range list {
		if c.Verdict != v1alpha1.VerdictPass || c.Value == "" || c.Message != "" || c.Fix != "" || c.Threshold == "" && c.Name != preflight.Kernel {
			t.Errorf("%+v", c)
		}
	}
	if c := preflight.Condition(list, false); c.Status != v1alpha1.True || c.Reason != preflight.ReasonFit || c.Message != "" {
		t.Errorf("the condition is %+v", c)
	}
	if p.bytes > 64<<20 {
		t.Errorf("%d bytes were asked for", p.bytes)
	}
	light := good()
	o.Light = true
	preflight.Run(t.Context(), light, o)
	if light.bytes > 4<<20 || light.loads[0].Pause == 0 {
		t.Errorf("a light one asks for %d bytes, with pauses %v", light.bytes, light.loads)
	}
}

func TestVerdicts(t *testing.T) {
	const (
		pass, warn, fail, unknown = v1alpha1.VerdictPass, v1alpha1.VerdictWarn, v1alpha1.VerdictFail, v1alpha1.VerdictUnknown
		dir                       = "/var/lib/quorate/members/default.a-1.0a1b2c3d/data"
	)
	slow := func(d time.Duration, of int) func(preflight.Load) ([]time.Duration, error) {
		return func(preflight.Load) ([]time.Duration, error) {
			times := make([]time.Duration, 100)
			for i := range times {
				if times[i] = time.Millisecond; i < of {
					times[i] = d
				}
			}
			return times, nil
		}
	}
	listen := func(pid int) []preflight.Listener { return []preflight.Listener{{Port: 2380, PID: pid, Name: "x"}} }
	for _, tc := range []struct {
		name, check string
		want        v1alpha1.Verdict
		change      func(p *played, o *preflight.Options)
	}{
		{"one slow of 100", preflight.FsyncLatency, pass, func(p *played, _ *preflight.Options) { p.appends = slow(time.Second, 1) }},
		{"two slow of 100", preflight.FsyncLatency, fail, func(p *played, _ *preflight.Options) { p.appends = slow(time.Second, 2) }},
		{"a slow disk", preflight.FsyncLatency, warn, func(p *played, _ *preflight.Options) { p.appends = slow(11*time.Millisecond, 100) }},
		{"no right to write", preflight.FsyncLatency, unknown, func(p *played, _ *preflight.Options) {
			p.appends = func(preflight.Load) ([]time.Duration, error) {
				return nil, &fs.PathError{Op: "open", Path: "x", Err: syscall.EACCES}
			}
		}},
		{"a quota", preflight.FsyncLatency, fail, func(p *played, _ *preflight.Options) {
			p.appends = func(preflight.Load) ([]time.Duration, error) { return nil, syscall.EDQUOT }
		}},
		{"read-only", preflight.FsyncLatency, fail, func(p *played, _ *preflight.Options) {
			p.appends = func(preflight.Load) ([]time.Duration, error) { return nil, syscall.EROFS }
		}},
		{"5 MB/s", preflight.DiskThroughput, warn, func(p *played, _ *preflight.Options) { p.appends = slow(200*time.Millisecond, 100) }},
		{"an old disk", preflight.DiskThroughput, fail, func(p *played, _ *preflight.Options) {
			p.appends = func(preflight.Load) ([]time.Duration, error) { return []time.Duration{2 * time.Second}, nil }
		}},
		{"little space", preflight.DiskSpace, warn, func(p *played, _ *preflight.Options) { p.fs.Free = 3 << 30 }},
		{"no space", preflight.DiskSpace, fail, func(p *played, _ *preflight.Options) { p.fs.Free = 1 << 29 }},
		{"no filesystem", preflight.DiskSpace, unknown, func(p *played, _ *preflight.Options) { p.fsErr = errors.New("stale file handle") }},
		{"few inodes", preflight.DiskInodes, warn, func(p *played, _ *preflight.Options) { p.fs.FreeInodes = 1000 }},
		{"btrfs has none", preflight.DiskInodes, pass, func(p *played, _ *preflight.Options) { p.fs.Inodes, p.fs.FreeInodes = 0, 0 }},
		{"nfs", preflight.DiskKind, fail, func(p *played, _ *preflight.Options) { p.fs.Kind = "nfs4" }},
		{"cephfs by fuse", preflight.DiskKind, fail, func(p *played, _ *preflight.Options) { p.fs.Kind = "fuse.ceph" }},
		{"some fuse", preflight.DiskKind, warn, func(p *played, _ *preflight.Options) { p.fs.Kind = "fuse.encfs" }},
		{"overlay", preflight.DiskKind, warn, func(p *played, _ *preflight.Options) { p.fs.Kind = "overlay" }},
		{"a disk that turns", preflight.DiskKind, warn, func(p *played, _ *preflight.Options) { p.fs.Rotational = true }},
		{"an unknown mount", preflight.DiskKind, unknown, func(p *played, _ *preflight.Options) { p.fs.Kind = "" }},
		{"the root's disk", preflight.DiskShared, warn, func(p *played, _ *preflight.Options) { p.fs.Root = p.fs.Device }},
		{"another's etcd on it", preflight.DiskShared, warn, func(p *played, _ *preflight.Options) {
			p.etcds = []preflight.Etcd{{PID: 7, DataDir: "/var/lib/etcd", Device: 2}}
		}},
		{"own members on it", preflight.DiskShared, pass, func(p *played, _ *preflight.Options) {
			p.etcds = []preflight.Etcd{{PID: 7, DataDir: dir, Device: 2}}
		}},
		{"0.9 s ahead", preflight.ClockOffset, warn, func(_ *played, o *preflight.Options) { o.ServerTime = offset(900*time.Millisecond, time.Millisecond) }},
		{"2 s ahead", preflight.ClockOffset, fail, func(_ *played, o *preflight.Options) { o.ServerTime = offset(2*time.Second, time.Millisecond) }},
		{"2 s behind", preflight.ClockOffset, fail, func(_ *played, o *preflight.Options) { o.ServerTime = offset(-2*time.Second, time.Millisecond) }},
		{"perhaps 2 s ahead", preflight.ClockOffset, unknown, func(_ *played, o *preflight.Options) { o.ServerTime = offset(2*time.Second, 2*time.Second) }},
		{"no server", preflight.ClockOffset, unknown, func(_ *played, o *preflight.Options) {
			o.ServerTime = func(context.Context) (preflight.Reading, error) { return preflight.Reading{}, errors.New("refused") }
		}},
		{"nobody keeps the clock", preflight.ClockSync, warn, func(p *played, _ *preflight.Options) { p.clock.Synchronised = false }},
		{"a container that may not ask", preflight.ClockSync, unknown, func(p *played, _ *preflight.Options) { p.clockErr = syscall.EPERM }},
		{"another's address", preflight.Address, fail, func(_ *played, o *preflight.Options) { o.Address = "10.0.0.9" }},
		{"every address", preflight.Address, fail, func(_ *played, o *preflight.Options) { o.Address = "0.0.0.0" }},
		{"loopback", preflight.Address, warn, func(_ *played, o *preflight.Options) { o.Address = "127.0.0.1" }},
		{"a name", preflight.Address, fail, func(_ *played, o *preflight.Options) { o.Address = "db1" }},
		{"a port taken", preflight.Ports, warn, func(p *played, _ *preflight.Options) { p.listeners = listen(7) }},
		{"a port that somebody has", preflight.Ports, warn, func(p *played, _ *preflight.Options) { p.listeners = listen(0) }},
		{"a member's", preflight.Ports, pass, func(p *played, _ *preflight.Options) {
			p.listeners, p.etcds = listen(7), []preflight.Etcd{{PID: 7, DataDir: dir}}
		}},
		{"an etcd of others", preflight.OtherEtcd, warn, func(p *played, _ *preflight.Options) {
			p.etcds = []preflight.Etcd{{PID: 7, DataDir: "/var/lib/quorate-2/x"}}
		}},
		{"an etcd that hides", preflight.OtherEtcd, warn, func(p *played, _ *preflight.Options) { p.etcds = []preflight.Etcd{{PID: 7}} }},
		{"a member", preflight.OtherEtcd, pass, func(p *played, _ *preflight.Options) { p.etcds = []preflight.Etcd{{PID: 7, DataDir: dir}} }},
		{"files", preflight.OpenFiles, warn, func(p *played, _ *preflight.Options) { p.limit = 4096 }},
		{"no limit", preflight.OpenFiles, pass, func(p *played, _ *preflight.Options) { p.limit = ^uint64(0) }},
		{"one CPU", preflight.CPUs, warn, func(p *played, _ *preflight.Options) { p.cpus = 1 }},
		{"half a CPU of a container", preflight.CPUs, warn, func(p *played, _ *preflight.Options) { p.files["/sys/fs/cgroup/cpu.max"] = "50000 100000\n" }},
		{"a container without a limit", preflight.CPUs, pass, func(p *played, _ *preflight.Options) { p.files["/sys/fs/cgroup/cpu.max"] = "max 100000\n" }},
		{"an old container's CPU", preflight.CPUs, warn, func(p *played, _ *preflight.Options) {
			p.files["/sys/fs/cgroup/cpu/cpu.cfs_quota_us"], p.files["/sys/fs/cgroup/cpu/cpu.cfs_period_us"] = "100000\n", "100000\n"
		}},
		{"an old machine's CPUs", preflight.CPUs, pass, func(p *played, _ *preflight.Options) {
			p.files["/sys/fs/cgroup/cpu/cpu.cfs_quota_us"], p.files["/sys/fs/cgroup/cpu/cpu.cfs_period_us"] = "-1\n", "100000\n"
		}},
		{"1 GiB", preflight.Memory, warn, func(p *played, _ *preflight.Options) { p.files["/proc/meminfo"] = "MemTotal:        1000000 kB\n" }},
		{"a small container", preflight.Memory, fail, func(p *played, _ *preflight.Options) { p.files["/sys/fs/cgroup/memory.max"] = "134217728\n" }},
		{"no container", preflight.Memory, pass, func(p *played, _ *preflight.Options) {
			p.files["/sys/fs/cgroup/memory/memory.limit_in_bytes"] = "9223372036854771712\n"
		}},
		{"another meminfo", preflight.Memory, unknown, func(p *played, _ *preflight.Options) { p.files["/proc/meminfo"] = "MemFree: 1 kB\n" }},
		{"a swap partition", preflight.Swap, warn, func(p *played, _ *preflight.Options) {
			p.files["/proc/swaps"] += "/dev/dm-1                               partition\t999420\t\t0\t\t-2\n"
		}},
		{"a swap file", preflight.Swap, warn, func(p *played, _ *preflight.Options) {
			p.files["/proc/swaps"] += "/swap.img                               file\t\t4194300\t\t10240\t\t-2\n"
		}},
		{"zram", preflight.Swap, pass, func(p *played, _ *preflight.Options) {
			p.files["/proc/swaps"] += "/dev/zram0                              partition\t8388604\t\t0\t\t100\n"
		}},
		{"no /proc/swaps", preflight.Swap, unknown, func(p *played, _ *preflight.Options) { delete(p.files, "/proc/swaps") }},
		{"huge pages", preflight.HugePages, warn, func(p *played, _ *preflight.Options) {
			p.files["/sys/kernel/mm/transparent_hugepage/enabled"] = "[always] madvise never\n"
		}},
		{"a kernel without", preflight.HugePages, pass, func(p *played, _ *preflight.Options) {
			delete(p.files, "/sys/kernel/mm/transparent_hugepage/enabled")
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, o := good(), options
			tc.change(p, &o)
			expect(t, preflight.Run(t.Context(), p, o), tc.check, tc.want)
		})
	}
}

// TestMeasuredTwice: only what is bad is measured again.
func TestMeasuredTwice(t *testing.T) {
	p := good()
	p.appends = func(preflight.Load) ([]time.Duration, error) {
		if p.called == 1 {
			return []time.Duration{time.Second}, nil
		}
		return []time.Duration{2 * time.Millisecond}, nil
	}
	list := preflight.Run(t.Context(), p, options)
	expect(t, list, preflight.FsyncLatency, v1alpha1.VerdictPass)
	if p.called != 3 {
		t.Errorf("the disk was measured %d times", p.called)
	}
}

// TestCondition: the reason names what fails, in the form that conditions have.
func TestCondition(t *testing.T) {
	p := good()
	p.fs.Kind, p.fs.Free = "tmpfs", 0
	list := preflight.Run(t.Context(), p, options)
	c := preflight.Condition(list, false)
	if c.Status != v1alpha1.False || c.Reason != "DiskSpace,DiskKind" || !strings.Contains(c.Message, "lies in memory") || !strings.Contains(c.Message, "--data-dir") {
		t.Errorf("%+v", c)
	}
	if !regexp.MustCompile(`^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$`).MatchString(c.Reason) {
		t.Errorf("no reason of a condition: %q", c.Reason)
	}
	if c = preflight.Condition(list, true); c.Status != v1alpha1.True || c.Reason != preflight.ReasonAllowed || !strings.Contains(c.Message, "lies in memory") {
		t.Errorf("where it is allowed: %+v", c)
	}
	p = good()
	p.fsErr = os.ErrPermission
	list = preflight.Run(t.Context(), p, options)
	if c = preflight.Condition(list, false); c.Status != v1alpha1.Unknown || c.Reason != "DiskSpace,DiskInodes,DiskKind" || preflight.Verdict(list) != v1alpha1.VerdictUnknown {
		t.Errorf("what can't be looked at: %+v", c)
	}
	p = good()
	p.clockErr = syscall.EPERM
	if c = preflight.Condition(preflight.Run(t.Context(), p, options), false); c.Status != v1alpha1.True {
		t.Errorf("what nobody needs can't be looked at: %+v", c)
	}
}

func TestCapacity(t *testing.T) {
	p := good()
	r := preflight.Capacity(t.Context(), p, "/x")
	if r.CPU.String() != "4" || r.Memory.Value() != 16000<<20 || r.Disk.Value() > p.fs.Size || r.Disk.Value() < p.fs.Size-100<<20 {
		t.Errorf("%s %s %s", r.CPU.String(), r.Memory.String(), r.Disk.String())
	}
	p.files["/sys/fs/cgroup/cpu.max"], p.files["/sys/fs/cgroup/memory.max"] = "150000 100000", "1073741824"
	if r = preflight.Capacity(t.Context(), p, "/x"); r.CPU.String() != "1500m" || r.Memory.String() != "1Gi" {
		t.Errorf("in a container: %s %s", r.CPU.String(), r.Memory.String())
	}
	p.fsErr = os.ErrPermission
	delete(p.files, "/proc/meminfo")
	if r = preflight.Capacity(t.Context(), p, "/x"); !r.Disk.IsZero() || !r.Memory.IsZero() {
		t.Errorf("unknown: %s %s", r.Memory.String(), r.Disk.String())
	}
}

func TestWithPort(t *testing.T) {
	for peer, want := range map[string]string{
		"10.0.0.8": "10.0.0.8:2380", "10.0.0.8:22": "10.0.0.8:22", "fd00::8": "[fd00::8]:2380", "[fd00::8]:22": "[fd00::8]:22", "db1": "db1:2380", "db1:22": "db1:22",
	} {
		if got, err := preflight.WithPort(peer); got != want || err != nil {
			t.Errorf("%s: %q, %v", peer, got, err)
		}
	}
	for _, peer := range []string{"", ":22", "db1:0", "db1:70000", "db1:x"} {
		if got, err := preflight.WithPort(peer); err == nil {
			t.Errorf("%q is taken, as %s", peer, got)
		}
	}
}
