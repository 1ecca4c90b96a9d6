package netlab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/process"
)

// Where namespaces have their names, as `ip netns` has them, and how ours begin:
// prefix, process ID, start time in ticks, number of the lab, dash, what it is.
const (
	directory = "/run/netns"
	prefix    = "quorate-lab-"
)

// namespace is a network namespace with a name.
type namespace struct {
	name   string
	handle netns.NsHandle
}

func (n *namespace) path() string { return filepath.Join(directory, n.name) }

// newNamespace makes one on a thread that is thrown away if it can't be put back.
func newNamespace(name string) (*namespace, error) {
	ns := &namespace{name: name}
	err := onThread(func() error {
		handle, err := netns.NewNamed(name)
		ns.handle = handle
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make the network namespace %s: %w", name, err)
	}
	return ns, nil
}

// do runs f on a thread that is in the namespace. What f starts on other goroutines
// is not.
func (n *namespace) do(f func() error) error {
	return onThread(func() error {
		if err := netns.Set(n.handle); err != nil {
			return fmt.Errorf("enter the network namespace %s: %w", n.name, err)
		}
		return f()
	})
}

// onThread runs f, which may change the thread's network namespace.
func onThread(f func() error) error {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("read the own network namespace: %w", err)
	}
	err = f()
	back := netns.Set(home)
	err = errors.Join(err, back, home.Close())
	if back == nil {
		runtime.UnlockOSThread()
	} // else it stays locked: the runtime ends the thread with the goroutine
	return err
}

// Sweep removes the labs whose makers are dead, with the processes that still run in
// them. New calls it.
func Sweep() error {
	entries, err := os.ReadDir(directory)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	boot, err := process.BootID()
	if err != nil {
		return err
	}
	var errs error
	for _, entry := range entries {
		owner, ok := ownerOf(entry.Name())
		owner.BootID = boot
		if ok && !owner.Alive() {
			errs = errors.Join(errs, remove(entry.Name()))
		}
	}
	return errs
}

// ownerOf reads who made a namespace from its name.
func ownerOf(name string) (process.ID, bool) {
	rest, ours := strings.CutPrefix(name, prefix)
	parts := strings.SplitN(rest, "-", 3)
	if !ours || len(parts) != 3 {
		return process.ID{}, false
	}
	pid, err := strconv.Atoi(parts[0])
	if err != nil {
		return process.ID{}, false
	}
	ticks, err := strconv.ParseUint(parts[1], 10, 64)
	return process.ID{PID: pid, StartTicks: ticks}, err == nil
}

// remove kills the processes in a namespace and takes its name away; with the last
// process and the name the namespace itself goes, and its cables.
func remove(name string) error {
	path := filepath.Join(directory, name)
	errs := killAll(path)
	// Not mounted: its maker died between making the file and mounting on it, or
	// another process sweeps too.
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		errs = errors.Join(errs, fmt.Errorf("unmount %s: %w", path, err))
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = errors.Join(errs, err)
	}
	return errs
}

// rounds of killing: what is being forked meanwhile is met in the next.
const rounds = 10

// killAll ends every process in a namespace, and returns when they are gone.
func killAll(path string) error {
	home, err := inode("/proc/self/ns/net")
	if err != nil {
		return err
	}
	inside, err := inode(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	root, err := inode("/proc/1/ns/net")
	if inside == home || err == nil && inside == root {
		return fmt.Errorf("%s is this process's own network namespace, which no lab is", path)
	}
	for range rounds {
		found, err := processesIn(inside)
		if err != nil || len(found) == 0 {
			return err
		}
		for _, id := range found {
			if err = id.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, process.ErrGone) {
				return fmt.Errorf("kill process %d in %s: %w", id.PID, path, err)
			}
		}
		for _, id := range found {
			awaitEnd(id)
		}
	}
	return fmt.Errorf("processes in %s do not end, though killed: see `ip netns pids %s`", path, filepath.Base(path))
}

// patience with a process that was killed, in milliseconds; one in the middle of a write
// to a slow disk takes its time.
const patience = 10_000

// awaitEnd waits until a process that was killed has ended.
func awaitEnd(id process.ID) {
	fd, err := unix.PidfdOpen(id.PID, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd) //nolint:errcheck // nothing is written through a pidfd
	if !id.Alive() {
		return
	}
	for {
		_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, patience)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// processesIn lists the processes in a namespace.
func processesIn(inside uint64) ([]process.ID, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []process.ID
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		id, err := process.Identify(pid)
		if err != nil {
			continue // it ended
		}
		if ns, err := inode(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil && ns == inside {
			found = append(found, id)
		}
	}
	return found, nil
}

// inode tells namespaces apart.
func inode(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}
