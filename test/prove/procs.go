package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/process"
)

// ticksPerSecond is the unit of times in /proc on Linux.
const ticksPerSecond = 100

// proc is a process that has to do with a directory.
type proc struct {
	process.ID
	args []string
	exe  string
}

func (p proc) String() string {
	return fmt.Sprintf("pid %d (%s)", p.PID, tail(strings.Join(p.args, " "), 120))
}

// below finds every process whose arguments, working directory or executable name a
// path in dir.
func below(dir string) ([]proc, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []proc
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		p, err := inspect(pid)
		if err != nil {
			continue // it ended meanwhile, or is not ours to look at
		}
		cwd, _ := os.Readlink(filepath.Join("/proc", entry.Name(), "cwd")) // none has none
		if p.concerns(dir, cwd) {
			found = append(found, p)
		}
	}
	return found, nil
}

func inspect(pid int) (proc, error) {
	id, err := process.Identify(pid)
	if err != nil {
		return proc{}, err
	}
	at := filepath.Join("/proc", strconv.Itoa(pid))
	raw, err := os.ReadFile(filepath.Join(at, "cmdline"))
	if err != nil {
		return proc{}, err
	}
	p := proc{ID: id}
	for arg := range bytes.SplitSeq(bytes.TrimRight(raw, "\x00"), []byte{0}) {
		p.args = append(p.args, string(arg))
	}
	p.exe, _ = os.Readlink(filepath.Join(at, "exe")) // a kernel thread has none
	return p, nil
}

func (p proc) concerns(dir, cwd string) bool {
	if within(cwd, dir) || within(p.exe, dir) {
		return true
	}
	return slices.ContainsFunc(p.args, func(arg string) bool {
		i := strings.Index(arg, dir)
		return i >= 0 && (len(arg) == i+len(dir) || strings.ContainsRune("/ '\"", rune(arg[i+len(dir)])))
	})
}

func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// runsFrom reports whether the process runs an executable that lies in dir. All that
// items start does, and nothing that others start: only such processes are killed.
func (p proc) runsFrom(dir string) bool { return within(p.exe, dir) }

// killBelow kills every process that runs from dir, until there is none.
func killBelow(ctx context.Context, dir string) error {
	for {
		procs, err := below(dir)
		procs = slices.DeleteFunc(procs, func(p proc) bool { return !p.runsFrom(dir) })
		if err != nil || len(procs) == 0 {
			return err
		}
		for _, p := range procs {
			if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, process.ErrGone) {
				return fmt.Errorf("kill %s: %w", p, err)
			}
		}
		for _, p := range procs {
			if err := p.Wait(ctx); err != nil {
				return fmt.Errorf("%s does not end: %w", p, err)
			}
		}
	}
}

// kill9 kills a pid that was read from the cluster, after making sure that it runs
// from dir. It returns when it was signalled, and when it was seen to be gone.
func kill9(ctx context.Context, pid int64, dir string) (signalled, gone time.Time, err error) {
	p, err := inspect(int(pid))
	if err != nil {
		return signalled, gone, fmt.Errorf("kill -9 %d: %w", pid, err)
	}
	if !p.runsFrom(dir) {
		return signalled, gone, fmt.Errorf("%s does not run from %s: not killed", p, dir)
	}
	signalled = time.Now()
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return signalled, gone, fmt.Errorf("kill -9 %s: %w", p, err)
	}
	if err := p.Wait(ctx); err != nil {
		return signalled, gone, fmt.Errorf("%s does not end: %w", p, err)
	}
	return signalled, time.Now(), nil
}

// age is how long ago a process was started.
func (p proc) age() (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, err
	}
	return time.Duration(now.Nano()) - time.Duration(p.StartTicks)*time.Second/ticksPerSecond, nil
}

// usage is what a process takes.
type usage struct {
	// rss and anon are in bytes.
	rss, anon int64
	// cpu time used so far.
	cpu time.Duration
}

func usageOf(pid int64) (usage, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return usage{}, err
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, err
	}
	u, err := parseUsage(string(status), string(stat))
	if err != nil {
		return u, fmt.Errorf("/proc/%d can't be understood: %w", pid, err)
	}
	return u, nil
}

// parseUsage reads the files status and stat of a process.
func parseUsage(status, stat string) (usage, error) {
	var u usage
	for line := range strings.Lines(status) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[2] != "kB" {
			continue
		}
		n, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return u, err
		}
		switch fields[0] {
		case "VmRSS:":
			u.rss = n << 10
		case "RssAnon:":
			u.anon = n << 10
		}
	}
	if u.rss == 0 || u.anon == 0 {
		return u, errors.New("it names no memory")
	}
	// The command's name may hold spaces: fields are counted from its end.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	const utime, stime = 11, 12
	if len(fields) <= stime {
		return u, errors.New("it names no CPU time")
	}
	for _, f := range fields[utime : stime+1] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return u, err
		}
		u.cpu += time.Duration(n) * time.Second / ticksPerSecond
	}
	return u, nil
}
