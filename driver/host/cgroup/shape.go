package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/api/v1alpha1"
)

// setting is one file of a group. An optional one is left out where the kernel does not
// know it.
type setting struct {
	file, value string
	optional    bool
}

// Weights of the classes among each other, and against all else on the host, in CPUs'
// shares of version 1: a process in no group has 1024. BestEffort has a tenth of that;
// beside Guaranteed members it has what the kernel gives at the least, and is idle where
// it knows that: whoever else wants a CPU has it at once.
const (
	sharesGuaranteed = 65536
	sharesBurstable  = 8192
	sharesBestEffort = 102
	sharesLeast      = 2
)

// BestEffortCPUs is how many CPUs BestEffort members may use together while Guaranteed
// ones are on the host: half, so that a burst of theirs finds a CPU at once rather than
// in the next slice of time.
func BestEffortCPUs() float64 { return max(float64(runtime.NumCPU())/2, 0.5) }

// What BestEffort members may write together to the disk while Guaranteed ones are on
// the host: what a few small etcds need, and far below what even a slow disk takes.
const (
	// BestEffortWrites are writes a second.
	BestEffortWrites = 200
	// BestEffortBytes are bytes a second.
	BestEffortBytes = 16 << 20
	// However many they are, each may write as much as an etcd needs to keep its lease
	// of leadership.
	leastWrites, leastBytes = 20, 1 << 20
)

// BestEffortMemory is a BestEffort member's limit: four times what it asks for, which is
// room for a database that has grown, and at least half a GiB, in which every etcd starts.
func BestEffortMemory(request int64) int64 { return max(4*request, 512<<20) }

const cpuPeriod = 100000 // microseconds

// classSettings of a class's group.
func (g *Groups) classSettings(controller string, class v1alpha1.ServiceClass) []setting {
	shares := sharesBurstable
	if class == v1alpha1.ClassGuaranteed {
		shares = sharesGuaranteed
	}
	switch {
	case controller == "cpu" && class == v1alpha1.ClassBestEffort:
		return nil // guard has them
	case controller == "cpu" && g.version == 1:
		return []setting{{"cpu.shares", strconv.Itoa(shares), false}}
	case controller == "cpu":
		return []setting{{"cpu.weight", strconv.Itoa(weight(shares)), false}}
	case controller == "blkio":
		return []setting{{"blkio.bfq.weight", strconv.Itoa(ioWeight(class)), true}, {"blkio.weight", strconv.Itoa(ioWeight(class)), true}}
	case controller == "io":
		return []setting{{"io.weight", "default " + strconv.Itoa(ioWeight(class)), true}, {"io.bfq.weight", strconv.Itoa(ioWeight(class)), true}, {"io.prio.class", ioClass(class), true}}
	}
	return nil
}

// guard is what BestEffort members are limited to, or not.
func (g *Groups) guard(controller string) []setting {
	quota := int(BestEffortCPUs() * cpuPeriod)
	switch {
	case controller == "cpu" && g.version == 1:
		// A group that is idle refuses shares, and one that was has those of a process.
		if !g.guarded {
			return []setting{{"cpu.idle", "0", true}, {"cpu.shares", strconv.Itoa(sharesBestEffort), false}, {"cpu.cfs_quota_us", "-1", false}}
		}
		return []setting{
			{"cpu.shares", strconv.Itoa(sharesLeast), true},
			{"cpu.idle", "1", true},
			{"cpu.cfs_period_us", strconv.Itoa(cpuPeriod), false},
			{"cpu.cfs_quota_us", strconv.Itoa(quota), false},
		}
	case controller == "cpu":
		if !g.guarded {
			return []setting{{"cpu.idle", "0", true}, {"cpu.weight", strconv.Itoa(weight(sharesBestEffort)), false}, {"cpu.max", fmt.Sprintf("max %d", cpuPeriod), false}}
		}
		return []setting{
			{"cpu.weight", strconv.Itoa(weight(sharesLeast)), true},
			{"cpu.idle", "1", true},
			{"cpu.max", fmt.Sprintf("%d %d", quota, cpuPeriod), false},
		}
	case controller == "io":
		limit := fmt.Sprintf("%s wiops=%d wbps=%d", g.disk, BestEffortWrites, BestEffortBytes)
		if !g.guarded {
			limit = g.disk + " wiops=max wbps=max"
		}
		if g.disk == "" {
			return nil
		}
		return []setting{{"io.max", limit, true}}
	}
	return nil
}

// memberSettings of a member's own group.
func (g *Groups) memberSettings(controller string, m Member) []setting {
	memory := m.Resources.Memory.Value()
	switch {
	case controller == "cpu":
		shares := Shares(m.Resources)
		if g.version == 1 {
			return []setting{{"cpu.shares", strconv.Itoa(shares), false}}
		}
		return []setting{{"cpu.weight", strconv.Itoa(weight(shares)), false}}
	case controller == "memory" && g.version == 1:
		limit, soft := int64(-1), int64(-1)
		if m.Class == v1alpha1.ClassBestEffort {
			limit = BestEffortMemory(memory)
			soft = memory
		}
		if soft == 0 {
			soft = -1
		}
		return []setting{{"memory.limit_in_bytes", strconv.FormatInt(limit, 10), false}, {"memory.soft_limit_in_bytes", strconv.FormatInt(soft, 10), true}}
	case controller == "memory":
		limit, low := "max", "0"
		if m.Class == v1alpha1.ClassBestEffort {
			limit = strconv.FormatInt(BestEffortMemory(memory), 10)
		} else {
			low = strconv.FormatInt(memory, 10)
		}
		return []setting{{"memory.max", limit, false}, {"memory.low", low, true}}
	}
	return nil
}

// Shares of a member among those of its class, by the CPU it asks for: 1024 for each
// core, and no less than a tenth of one.
func Shares(r v1alpha1.Resources) int {
	return min(max(int(r.CPU.MilliValue()*1024/1000), 102), 262144)
}

// weight of version 2 for shares of version 1: 100 for 1024.
func weight(shares int) int {
	return min(max(int(math.Round(float64(shares)*100/1024)), 1), 10000)
}

// ioWeight of a class's disk access, from 1 to 1000.
func ioWeight(c v1alpha1.ServiceClass) int {
	switch c {
	case v1alpha1.ClassGuaranteed:
		return 1000
	case v1alpha1.ClassBestEffort:
		return 10
	default:
		return 200
	}
}

func ioClass(c v1alpha1.ServiceClass) string {
	if c == v1alpha1.ClassBestEffort {
		return "restrict-to-be"
	}
	return "no-change"
}

// OOMScore of a class: whom the kernel ends first when the host's memory is used up.
func OOMScore(c v1alpha1.ServiceClass) int {
	switch classOr(c) {
	case v1alpha1.ClassGuaranteed:
		return -900
	case v1alpha1.ClassBestEffort:
		return 700
	default:
		return -300
	}
}

// Nice of a class's processes where there are no groups for CPUs.
func nice(c v1alpha1.ServiceClass) int {
	switch c {
	case v1alpha1.ClassGuaranteed:
		return -10
	case v1alpha1.ClassBestEffort:
		return 19
	default:
		return 0
	}
}

// ioPriority of a class as the kernel has it: level 0 to 7 of class 2, best effort.
// Never idle: what waits for an idle write keeps the file system's journal, and with it
// everybody, waiting.
func ioPriority(c v1alpha1.ServiceClass) int {
	const shift, bestEffort = 13, 2
	level := map[v1alpha1.ServiceClass]int{v1alpha1.ClassGuaranteed: 0, v1alpha1.ClassBurstable: 4, v1alpha1.ClassBestEffort: 7}[classOr(c)]
	return bestEffort<<shift | level
}

// tune sets what belongs to processes and not to groups. All of it is inherited.
func (g *Groups) tune(class v1alpha1.ServiceClass, pid int) error {
	score := filepath.Join("/proc", strconv.Itoa(pid), "oom_score_adj")
	err := write(score, strconv.Itoa(OOMScore(class)))
	if errors.Is(err, fs.ErrPermission) {
		// Going below what it began with takes a right that containers seldom have.
		err = write(score, "0")
	}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		err = nil // it has ended, or belongs to somebody else
	}
	tasks, _ := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "task"))
	for _, t := range tasks {
		tid, convErr := strconv.Atoi(t.Name())
		if convErr != nil {
			continue
		}
		const whoProcess = 1
		_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, uintptr(tid), uintptr(ioPriority(class)))
		if g.bases["cpu"] == "" {
			_ = unix.Setpriority(unix.PRIO_PROCESS, tid, nice(class))
		}
	}
	return err
}

func writeAll(dir string, all []setting) error {
	var errs []error
	for _, s := range all {
		err := write(filepath.Join(dir, s.file), s.value)
		if err != nil && s.optional {
			continue
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// write changes a file of the kernel; it makes none.
func write(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0) //nolint:gosec // a group's
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// move puts a process into a group. One that has ended needs none.
func move(dir string, pid int) error {
	err := write(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid))
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// Weights are what systemd is told of a member, in its own units.
type Weights struct {
	Class v1alpha1.ServiceClass
	// CPU and IO from 1 to 10000.
	CPU, IO int
	// MemoryLow is kept for it, MemoryMax is its limit, in bytes; 0 for none.
	MemoryLow, MemoryMax int64
	OOMScore             int
	// IOLevel is 0 to 7, 0 coming first.
	IOLevel int
}

// WeightsOf a member: those of its group and its class in one, since a unit can't change
// its slice while it runs.
func WeightsOf(class v1alpha1.ServiceClass, r v1alpha1.Resources) Weights {
	class = classOr(class)
	w := Weights{Class: class, IO: ioWeight(class), OOMScore: OOMScore(class), IOLevel: ioPriority(class) & 7}
	cpu := weight(Shares(r))
	switch class {
	case v1alpha1.ClassGuaranteed:
		w.CPU = min(max(20*cpu, 1000), 10000)
	case v1alpha1.ClassBestEffort:
		w.CPU = 1
	default:
		w.CPU = min(max(2*cpu, 50), 1000)
	}
	if class == v1alpha1.ClassBestEffort {
		w.MemoryMax = BestEffortMemory(r.Memory.Value())
	} else {
		w.MemoryLow = r.Memory.Value()
	}
	return w
}

// Tune sets what belongs to processes and not to groups; nothing for those of others.
func Tune(class v1alpha1.ServiceClass, weighed bool, pids ...int) error {
	g := &Groups{bases: map[string]string{}}
	if weighed {
		g.bases["cpu"] = "weighed elsewhere"
	}
	var errs []error
	for _, pid := range pids {
		errs = append(errs, g.tune(classOr(class), pid))
	}
	return errors.Join(errs...)
}
