package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/quorate/quorate/internal/backoff"
	"github.com/quorate/quorate/internal/process"
)

// Found is an etcd found by its command line.
type Found struct {
	ID         process.ID
	Executable string
	Args       []string
	StartedAt  time.Time
}

// Scan looks through all processes for the etcd that runs on a data directory.
// It needs no file of the home, and takes some milliseconds.
func Scan(dataDir string) (Found, bool, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return Found{}, false, fmt.Errorf("look for an etcd of %s: %w", dataDir, err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		args, err := commandLine(pid)
		if err != nil {
			return Found{}, false, fmt.Errorf("look for an etcd of %s: %w", dataDir, err)
		}
		if len(args) == 0 || filepath.Base(args[0]) != "etcd" || !hasDataDir(args[1:], dataDir) {
			continue
		}
		id, err := process.Identify(pid)
		if err != nil {
			continue // it has just ended
		}
		exe, _ := os.Readlink("/proc/" + e.Name() + "/exe")
		found := Found{ID: id, Args: args[1:], Executable: strings.TrimSuffix(exe, " (deleted)"), StartedAt: startTime(id)}
		return found, true, nil
	}
	return Found{}, false, nil
}

// scanAgain repeats a scan for a moment: a child that was forked by a supervisor
// killed at once shows its own command line only after its exec.
func scanAgain(ctx context.Context, dataDir string, d time.Duration) (Found, bool, error) {
	deadline := time.Now().Add(d)
	for {
		found, ok, err := Scan(dataDir)
		if ok || err != nil || time.Now().After(deadline) {
			return found, ok, err
		}
		if err := backoff.Sleep(ctx, 50*time.Millisecond); err != nil {
			return Found{}, false, err
		}
	}
}

// asProcess tells with which configuration a found etcd runs: the order's, the
// intent's, or none that is known.
func (f Found) asProcess(o *Order, intent *Intent) *Process {
	p := &Process{ID: f.ID, StartedAt: f.StartedAt, Adopted: true}
	switch {
	case o != nil && o.Executable == f.Executable && slices.Equal(o.Args, f.Args):
		p.ConfigHash, p.Digest = o.ConfigHash, o.Digest
	case intent != nil && intent.BootID == f.ID.BootID:
		p.ConfigHash, p.Digest = intent.ConfigHash, intent.Digest
	}
	return p
}

// FindProcess returns the etcd of an order by scanning, or nil. It is for a home
// whose state can't be read.
func FindProcess(o *Order) (*Process, error) {
	found, ok, err := Scan(o.DataDir)
	if err != nil || !ok {
		return nil, err
	}
	return found.asProcess(o, nil), nil
}

// commandLine returns a process's arguments: none if it has ended, or runs no
// program. That it can't be read does not mean that it is not there.
func commandLine(pid int) ([]string, error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return nil, nil
	}
	if err != nil || len(raw) == 0 {
		return nil, err
	}
	return strings.Split(string(bytes.TrimSuffix(raw, []byte{0})), "\x00"), nil
}

func hasDataDir(args []string, dataDir string) bool {
	for dir := range dataDirs(args) {
		if dir == dataDir {
			return true
		}
	}
	return false
}

// dataDirs are the data directories in an etcd's arguments.
func dataDirs(args []string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i, a := range args {
			name, dir, ok := strings.Cut(a, "=")
			if name != "--data-dir" && name != "-data-dir" {
				continue
			}
			if !ok && i+1 < len(args) {
				dir, ok = args[i+1], true
			}
			if ok && !yield(dir) {
				return
			}
		}
	}
}

// startTime is when a process was started, to the tick.
func startTime(id process.ID) time.Time {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}
	}
	for line := range strings.Lines(string(raw)) {
		if at, ok := strings.CutPrefix(line, "btime "); ok {
			boot, err := strconv.ParseInt(strings.TrimSpace(at), 10, 64)
			if err != nil {
				return time.Time{}
			}
			// The kernel shows user space 100 ticks a second on every platform.
			const tick = 10 * time.Millisecond
			return time.Unix(boot, 0).Add(time.Duration(id.StartTicks) * tick) //nolint:gosec // ticks since boot are few
		}
	}
	return time.Time{}
}
