package preflight

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/internal/bytesize"
)

// unread is the result of a check whose file can't be read or understood.
func unread(name string, err error) result {
	return result{verdict: v1alpha1.VerdictUnknown, message: fmt.Sprintf("%s can't be read: %v", name, err), fix: "look at " + name + " on the machine"}
}

func checkOpenFiles(_ context.Context, x *exam) result {
	n, err := x.probe.OpenFiles()
	if err != nil {
		return unread("the limit of open files", err)
	}
	r := result{verdict: v1alpha1.VerdictPass, value: strconv.FormatUint(n, 10)}
	const fix = "raise the hard limit of the agent (LimitNOFILE in its systemd unit, `ulimit -Hn` in a shell)"
	switch {
	case n > math.MaxInt64/2:
		r.value = "unlimited"
	case n < filesFail:
		r.verdict, r.fix = v1alpha1.VerdictFail, fix
		r.message = fmt.Sprintf("a process may open %d files: each client is one, and etcd turns away those beyond", n)
	case n < filesWarn:
		r.verdict, r.fix = v1alpha1.VerdictWarn, fix
		r.message = fmt.Sprintf("a process may open %d files: each client is one, and etcd's own unit asks for %d", n, filesWarn)
	}
	return r
}

func checkCPUs(_ context.Context, x *exam) result {
	milli := milliCPUs(x.probe)
	r := result{verdict: v1alpha1.VerdictPass, value: strconv.FormatFloat(float64(milli)/1000, 'f', -1, 64)}
	if milli < cpusWarn*1000 {
		r.verdict = v1alpha1.VerdictWarn
		r.message = "there is less than " + strconv.Itoa(cpusWarn) + " CPUs for etcd and all else: a busy moment delays heartbeats"
		r.fix = "give the machine more CPUs"
	}
	return r
}

func checkMemory(_ context.Context, x *exam) result {
	n, err := memoryOf(x.probe)
	if err != nil {
		return unread("/proc/meminfo", err)
	}
	r := result{verdict: v1alpha1.VerdictPass, value: bytesize.Text(n)}
	const fix = "give the machine more memory"
	switch {
	case n < memoryFail:
		r.verdict, r.fix = v1alpha1.VerdictFail, fix
		r.message = fmt.Sprintf("the machine has %s of memory, and a member asks for %s at least", r.value, bytesize.Text(memoryFail))
	case n < memoryWarn:
		r.verdict, r.fix = v1alpha1.VerdictWarn, fix
		r.message = fmt.Sprintf("the machine has %s of memory: a database that grows to its quota of 2 GiB does not fit", r.value)
	}
	return r
}

func checkSwap(_ context.Context, x *exam) result {
	const name = "/proc/swaps"
	raw, err := x.probe.ReadFile(name)
	if err != nil {
		return unread(name, err)
	}
	var on []string
	compressed := 0
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for lines.Scan() {
		area, _, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		area, _, _ = strings.Cut(area, "\t")
		switch {
		case !strings.HasPrefix(area, "/"): // the header
		case strings.HasPrefix(area, "/dev/zram"):
			compressed++
		default:
			on = append(on, area)
		}
	}
	switch {
	case len(on) > 0:
		return result{
			verdict: v1alpha1.VerdictWarn, value: "on: " + listed(on, 2),
			message: "the kernel may put etcd's memory on a disk: what it needs then comes back in milliseconds, and heartbeats wait",
			fix:     "turn it off with `swapoff -a`, and take it out of /etc/fstab",
		}
	case compressed > 0:
		return result{verdict: v1alpha1.VerdictPass, value: "compressed memory (zram) alone"}
	}
	return result{verdict: v1alpha1.VerdictPass, value: "off"}
}

func checkHugePages(_ context.Context, x *exam) result {
	const name = "/sys/kernel/mm/transparent_hugepage/enabled"
	raw, err := x.probe.ReadFile(name)
	if isMissing(err) {
		return result{verdict: v1alpha1.VerdictPass, value: "not in this kernel"}
	}
	if err != nil {
		return unread(name, err)
	}
	_, rest, _ := strings.Cut(string(raw), "[")
	chosen, _, ok := strings.Cut(rest, "]")
	switch {
	case !ok:
		return unread(name, fmt.Errorf("it says %q", strings.TrimSpace(string(raw))))
	case chosen == "always":
		return result{
			verdict: v1alpha1.VerdictWarn, value: chosen,
			message: "the kernel makes huge pages of etcd's memory: it takes more than it uses, and stops while pages are put together",
			fix:     "`echo madvise > " + name + "`, and transparent_hugepage=madvise on the kernel's command line",
		}
	}
	return result{verdict: v1alpha1.VerdictPass, value: chosen}
}

// checkKernel only tells; where something is not told, it is left out.
func checkKernel(_ context.Context, x *exam) result {
	var parts []string
	if raw, err := x.probe.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		parts = append(parts, "Linux "+strings.TrimSpace(string(raw)))
	}
	if raw, err := x.probe.ReadFile("/sys/class/dmi/id/product_name"); err == nil && len(bytes.TrimSpace(raw)) > 0 {
		parts = append(parts, strings.TrimSpace(string(raw)))
	}
	if raw, err := x.probe.ReadFile("/proc/cpuinfo"); err == nil && hypervisor(raw) {
		parts = append(parts, "virtual")
	}
	if len(parts) == 0 {
		return result{verdict: v1alpha1.VerdictUnknown, message: "the kernel does not say which it is", fix: "look at `uname -a` on the machine"}
	}
	return result{verdict: v1alpha1.VerdictPass, value: strings.Join(parts, ", ")}
}

// hypervisor reports whether the CPU says that a hypervisor shows it.
func hypervisor(cpuinfo []byte) bool {
	for line := range bytes.Lines(cpuinfo) {
		if name, flags, _ := strings.Cut(string(line), ":"); strings.TrimSpace(name) == "flags" {
			return strings.Contains(flags+" ", " hypervisor ") || strings.HasSuffix(strings.TrimSpace(flags), " hypervisor")
		}
	}
	return false
}

// Capacity is what the machine has to give: its CPUs and memory, or less where a
// container is held to less, and the size of the disk of dir. What can't be told is 0.
func Capacity(ctx context.Context, p Probe, dir string) v1alpha1.Resources {
	memory, err := memoryOf(p)
	if err != nil {
		memory = 0
	}
	var disk int64
	if f, err := p.Filesystem(ctx, dir); err == nil {
		disk = f.Size
	}
	// Whole units: what is reported changes only with the machine.
	disk -= disk % (100 * mib)
	return v1alpha1.NewResources(milliCPUs(p), memory-memory%mib, disk)
}

// milliCPUs are the CPUs in thousandths. A container's share stands in its own root
// group; the root group of a machine has none.
func milliCPUs(p Probe) int64 {
	n := int64(p.CPUs()) * 1000
	if raw, err := p.ReadFile("/sys/fs/cgroup/cpu.max"); err == nil {
		quota, period, _ := strings.Cut(strings.TrimSpace(string(raw)), " ")
		n = min(n, share(quota, period, n))
	}
	quota, err := p.ReadFile("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
	period, err2 := p.ReadFile("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
	if err == nil && err2 == nil {
		n = min(n, share(strings.TrimSpace(string(quota)), strings.TrimSpace(string(period)), n))
	}
	return n
}

// share is a quota of a period in thousandths of a CPU, or all.
func share(quota, period string, all int64) int64 {
	q, err := strconv.ParseInt(quota, 10, 64)
	p, err2 := strconv.ParseInt(period, 10, 64)
	if err != nil || err2 != nil || q <= 0 || p <= 0 { // "max", or -1
		return all
	}
	return max(q*1000/p, 1)
}

func memoryOf(p Probe) (int64, error) {
	const name = "/proc/meminfo"
	raw, err := p.ReadFile(name)
	if err != nil {
		return 0, err
	}
	var total int64
	for line := range bytes.Lines(raw) {
		if rest, ok := strings.CutPrefix(string(line), "MemTotal:"); ok {
			text, _ := strings.CutSuffix(strings.TrimSpace(rest), " kB")
			total, err = strconv.ParseInt(strings.TrimSpace(text), 10, 64)
			total *= kib
			break
		}
	}
	if err != nil || total <= 0 {
		return 0, fmt.Errorf("it has no MemTotal: %q", firstLine(raw))
	}
	for _, limit := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if raw, err := p.ReadFile(limit); err == nil {
			if v, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64); err == nil && v > 0 {
				total = min(total, v)
			}
		}
	}
	return total, nil
}

func firstLine(raw []byte) string {
	line, _, _ := bytes.Cut(raw, []byte("\n"))
	return string(line)
}
