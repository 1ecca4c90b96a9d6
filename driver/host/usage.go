package host

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/host/supervisor"
	"github.com/quorate/quorate/internal/process"
)

// usageWindow is what CPU is averaged over, how often a disk is looked through, and how
// often what is reported may change.
const usageWindow = time.Minute

// What is in use is reported anew when it differs by more than a quarter, and by more
// than these: less says nothing about where there is room.
const (
	usageStep   = 0.25
	usageCPU    = 20       // thousandths of a core
	usageMemory = 16 << 20 // bytes
	usageDisk   = 16 << 20 // bytes
)

// usage of one member.
type usage struct {
	// ticks of CPU by process, as last seen, and those of all processes since the first
	// look, with the time.
	ticks   map[process.ID]uint64
	total   uint64
	history []cpuSample
	disk    int64
	diskAt  time.Time
	// reported is nil before a whole window was seen.
	reported   *v1alpha1.Resources
	reportedAt time.Time
}

type cpuSample struct {
	at    time.Time
	ticks uint64
}

// Sample looks at what the members of the host use. It is to be called every few
// seconds; what it finds is in Observe's status, and in Used.
func (d *Driver) Sample(ctx context.Context) error {
	entries, err := os.ReadDir(d.membersDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	seen := map[string]bool{}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		h := supervisor.Home(filepath.Join(d.membersDir(), e.Name()))
		state, err := h.ReadState()
		if err != nil {
			continue
		}
		seen[string(h)] = true
		d.mu.Lock()
		u := d.usage[string(h)]
		if u == nil {
			u = &usage{ticks: map[process.ID]uint64{}}
			d.usage[string(h)] = u
		}
		d.mu.Unlock()
		next := u.sample(h, state, time.Now(), d.usageWindow())
		d.mu.Lock()
		d.usage[string(h)] = next
		d.mu.Unlock()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for h := range d.usage {
		if !seen[h] {
			delete(d.usage, h)
		}
	}
	return nil
}

// Used is what the members of the host use together, in the same coarse steps; nil before
// that is known.
func (d *Driver) Used() *v1alpha1.Resources {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all *v1alpha1.Resources
	for _, u := range d.usage {
		if u.reported == nil {
			continue
		}
		if all == nil {
			all = &v1alpha1.Resources{}
		}
		all.CPU.Add(u.reported.CPU)
		all.Memory.Add(u.reported.Memory)
		all.Disk.Add(u.reported.Disk)
	}
	return all
}

func (d *Driver) usedBy(h supervisor.Home) *v1alpha1.Resources {
	d.mu.Lock()
	defer d.mu.Unlock()
	if u := d.usage[string(h)]; u != nil && u.reported != nil {
		return u.reported.DeepCopy()
	}
	return nil
}

func (d *Driver) usageWindow() time.Duration {
	if d.opts.UsageWindow > 0 {
		return d.opts.UsageWindow
	}
	return usageWindow
}

// sample returns the usage with one more look at it.
func (u *usage) sample(h supervisor.Home, state *supervisor.State, now time.Time, window time.Duration) *usage {
	next := *u
	next.ticks = map[process.ID]uint64{}
	var memory int64
	ids := []process.ID{state.Supervisor}
	if state.Process != nil {
		ids = append(ids, state.Process.ID)
	}
	for _, id := range ids {
		if !id.Alive() {
			continue
		}
		ticks, rss := processUsage(id.PID)
		next.ticks[id] = ticks
		memory += rss
		if before, known := u.ticks[id]; known && ticks >= before {
			next.total += ticks - before
		}
	}
	next.history = append(append([]cpuSample{}, u.history...), cpuSample{now, next.total})
	for len(next.history) > 2 && now.Sub(next.history[1].at) >= window {
		next.history = next.history[1:]
	}
	if now.Sub(next.diskAt) >= window {
		next.disk, next.diskAt = diskUsage(string(h)), now
	}
	first := next.history[0]
	if now.Sub(first.at) < window || now.Sub(next.reportedAt) < window {
		return &next
	}
	const ticksPerSecond = 100 // the kernel's USER_HZ
	milli := float64(next.total-first.ticks) / ticksPerSecond / now.Sub(first.at).Seconds() * 1000
	was := v1alpha1.Resources{}
	if next.reported != nil {
		was = *next.reported
	}
	is := v1alpha1.NewResources(
		coarse(was.CPU.MilliValue(), int64(math.Round(milli)), usageCPU, 1),
		coarse(was.Memory.Value(), memory, usageMemory, 1<<20),
		coarse(was.Disk.Value(), next.disk, usageDisk, 1<<20),
	)
	if next.reported == nil || !v1alpha1.Equal(was, is) {
		next.reported, next.reportedAt = &is, now
	}
	return &next
}

// coarse returns was, or is in two digits of the unit where the two differ by more than
// a step.
func coarse(was, is, step, unit int64) int64 {
	if math.Abs(float64(is-was)) <= max(usageStep*float64(was), float64(step)) {
		return was
	}
	in := float64(is) / float64(unit)
	scale := 1.0
	for in/scale >= 100 {
		scale *= 10
	}
	return int64(math.Round(in/scale)*scale) * unit
}

// processUsage returns the ticks of CPU that a process has used, and its resident bytes.
func processUsage(pid int) (ticks uint64, rss int64) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0
	}
	// The command's name may hold spaces and brackets: fields are counted from its end.
	fields := bytes.Fields(raw[bytes.LastIndexByte(raw, ')')+1:])
	const utime, stime, pages = 11, 12, 21
	if len(fields) <= pages {
		return 0, 0
	}
	user, _ := strconv.ParseUint(string(fields[utime]), 10, 64)
	system, _ := strconv.ParseUint(string(fields[stime]), 10, 64)
	resident, _ := strconv.ParseInt(string(fields[pages]), 10, 64)
	return user + system, resident * int64(os.Getpagesize())
}

// diskUsage returns the bytes that the files below dir take on disk. What vanishes
// meanwhile counts for nothing.
func diskUsage(dir string) int64 {
	var total int64
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what can't be read is not counted
		}
		info, err := e.Info()
		if err != nil {
			return nil //nolint:nilerr // it is gone
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			const block = 512
			total += st.Blocks * block
		}
		return nil
	})
	return total
}
