package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/process"
)

// Launch says how a process is started again as it was.
type Launch struct {
	Path string   `json:"path"`
	Args []string `json:"args"`
	// Env is its whole environment.
	Env []string `json:"env"`
	Dir string   `json:"dir"`
	// User, Group and Groups it runs as.
	User   uint32   `json:"user"`
	Group  uint32   `json:"group"`
	Groups []uint32 `json:"groups,omitempty"`
	// Network is the inode of its network namespace, Files its limit of open files.
	Network uint64      `json:"network"`
	Files   unix.Rlimit `json:"files"`
	// Cgroups it is in, see cgroupsOf.
	Cgroups map[string]string `json:"cgroups,omitempty"`
	// Out and Err are the files it writes to, where they are files: for whoever starts
	// it without having them open.
	Out string `json:"out,omitempty"`
	Err string `json:"err,omitempty"`
}

// The files that a successor gets from the process before it, by their place in
// hold.files: its output goes where it went before.
const (
	fileOut = iota
	fileErr
	fileNetwork
	launchFiles
)

// settled is how long a process that was started again must live to count as started.
const settled = 300 * time.Millisecond

// deathPatience is how long a process may take to end by SIGTERM before it is killed:
// etcd takes a moment to hand over its leadership.
const deathPatience = 20 * time.Second

// prepareAway reads all that is needed to start the process again.
func prepareAway(h *hold) error {
	p, err := target(h.Disturbance)
	if err != nil {
		return err
	}
	h.Target = p.ID
	if p.Keeper != "" {
		return fmt.Errorf("process %d is looked after by %s, which starts it again by itself: leave that to it", p.PID, p.Keeper)
	}
	if h.Launch, err = launchOf(p); err != nil {
		return fmt.Errorf("process %d can't be started again from here: %w", p.PID, err)
	}
	return h.takeFiles()
}

func launchOf(p *Process) (*Launch, error) {
	dir := fmt.Sprintf("/proc/%d/", p.PID)
	for _, ns := range []string{"mnt", "pid", "user"} {
		own, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			return nil, err
		}
		if its, err := os.Readlink(dir + "ns/" + ns); err != nil || its != own {
			return nil, errors.Join(err, errors.New("it lives in a container: leave that to what supervises it"))
		}
	}
	l := &Launch{Args: p.Args, Cgroups: cgroupsOf(dir)}
	var err error
	if l.Path, err = os.Readlink(dir + "exe"); err != nil {
		return nil, err
	}
	if strings.HasSuffix(l.Path, " (deleted)") {
		return nil, fmt.Errorf("its program was replaced or removed: %s", l.Path)
	}
	if l.Dir, err = os.Readlink(dir + "cwd"); err != nil {
		return nil, err
	}
	if l.Env, err = readStrings(dir + "environ"); err != nil {
		return nil, err
	}
	if l.Network, err = inode(dir + "ns/net"); err != nil {
		return nil, err
	}
	if err = unix.Prlimit(p.PID, unix.RLIMIT_NOFILE, nil, &l.Files); err != nil {
		return nil, fmt.Errorf("read its limit of open files: %w", err)
	}
	l.Out, l.Err = plainFile(dir+"fd/1"), plainFile(dir+"fd/2")
	status, err := read(dir + "status")
	if err != nil {
		return nil, err
	}
	return l, l.runAs(statusFields(status))
}

// runAs reads from /proc/PID/status as whom a process runs.
func (l *Launch) runAs(status map[string][]string) error {
	const effective = 1
	ids := func(list []string) []uint32 {
		var found []uint32
		for _, text := range list {
			if id, err := strconv.ParseUint(text, 10, 32); err == nil {
				found = append(found, uint32(id))
			}
		}
		return found
	}
	users, groups := ids(status["Uid"]), ids(status["Gid"])
	if len(users) <= effective || len(groups) <= effective {
		return errors.New("its user is not known")
	}
	l.User, l.Group, l.Groups = users[effective], groups[effective], ids(status["Groups"])
	return nil
}

// plainFile is the path of an open file; empty for pipes and the like.
func plainFile(link string) string {
	path, err := os.Readlink(link)
	if err != nil {
		return ""
	}
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	return path
}

// output is where the successor writes to: the file that was taken over, or opened by
// its path, or nothing.
func (h *hold) output(at int, path string) *os.File {
	if at < len(h.files) && h.files[at] != nil {
		return h.files[at]
	}
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0) //nolint:gosec // where the process wrote to before
	if err != nil {
		return nil
	}
	return f
}

// takeFiles takes hold of where the process writes to, and of its network namespace,
// which may live by it alone.
func (h *hold) takeFiles() error {
	h.files = make([]*os.File, launchFiles)
	pidfd, err := unix.PidfdOpen(h.Target.PID, 0)
	if err != nil {
		return fmt.Errorf("process %d: %w", h.Target.PID, err)
	}
	defer unix.Close(pidfd) //nolint:errcheck // nothing is written through a pidfd
	for at, its := range map[int]int{fileOut: 1, fileErr: 2} {
		// Closed, or not ours to take: then the successor's goes nowhere.
		if fd, getErr := unix.PidfdGetfd(pidfd, its, 0); getErr == nil {
			h.files[at] = os.NewFile(uintptr(fd), "output")
		}
	}
	own, err := inode("/proc/self/ns/net")
	if err != nil || own == h.Launch.Network {
		return err
	}
	h.files[fileNetwork], err = os.Open(fmt.Sprintf("/proc/%d/ns/net", h.Target.PID))
	return err
}

func beginKill(ctx context.Context, h *hold) error { return h.takeAway(ctx, syscall.SIGKILL) }

func beginRestart(ctx context.Context, h *hold) error { return h.takeAway(ctx, syscall.SIGTERM) }

func (h *hold) takeAway(ctx context.Context, sig syscall.Signal) error {
	if err := tell(h.Target, sig); err != nil {
		return err
	}
	h.signalled = true
	return awaitEnd(ctx, h.Target)
}

func killOnce(ctx context.Context, _ Options, d Disturbance) error {
	return once(ctx, d, syscall.SIGKILL)
}

func terminateOnce(ctx context.Context, _ Options, d Disturbance) error {
	return once(ctx, d, syscall.SIGTERM)
}

func once(ctx context.Context, d Disturbance, sig syscall.Signal) error {
	p, err := target(d)
	if err != nil {
		return err
	}
	if err = tell(p.ID, sig); err != nil {
		return err
	}
	return awaitEnd(ctx, p.ID)
}

func tell(id process.ID, sig syscall.Signal) error {
	if err := id.Signal(sig); err != nil {
		return fmt.Errorf("end process %d: %w", id.PID, err)
	}
	return nil
}

// awaitEnd returns when a process has ended that was told to; one that takes too long is
// killed.
func awaitEnd(ctx context.Context, id process.ID) error {
	patient, cancel := context.WithTimeout(ctx, deathPatience)
	defer cancel()
	err := id.Wait(patient)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if err = id.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, process.ErrGone) {
		return fmt.Errorf("kill process %d: %w", id.PID, err)
	}
	return id.Wait(ctx)
}

// endAway starts the process again, in the holder.
func endAway(ctx context.Context, h *hold) error {
	if !h.signalled {
		return nil
	}
	return undoAway(ctx, h)
}

// undoAway starts the process again if nobody has, in whatever process comes to do it.
func undoAway(ctx context.Context, h *hold) error {
	// If it lives it was never told to end, or it is about to: nobody alive knows.
	patient, cancel := context.WithTimeout(ctx, deathPatience)
	defer cancel()
	if err := h.Target.Wait(patient); err != nil {
		return ctx.Err()
	}
	if pid, err := twin(h.Launch); err != nil || pid != 0 {
		return err // its supervisor was there first
	}
	cmd := &exec.Cmd{
		Path: h.Launch.Path, Args: h.Launch.Args, Env: h.Launch.Env, Dir: h.Launch.Dir,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if out := h.output(fileOut, h.Launch.Out); out != nil {
		cmd.Stdout = out
	}
	if errs := h.output(fileErr, h.Launch.Err); errs != nil {
		cmd.Stderr = errs
	}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: h.Launch.User, Gid: h.Launch.Group, Groups: h.Launch.Groups}
	}
	if err := startIn(h.output(fileNetwork, ""), h.Launch.Network, cmd); err != nil {
		return fmt.Errorf("start %s again: %w", strings.Join(h.Launch.Args, " "), err)
	}
	// What it may use, as before, where this user may say so.
	_ = unix.Prlimit(cmd.Process.Pid, unix.RLIMIT_NOFILE, &h.Launch.Files, nil)
	rejoin(cmd.Process.Pid, h.Launch.Cgroups)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	lived := time.NewTimer(settled)
	defer lived.Stop()
	select {
	case err := <-ended:
		return fmt.Errorf("start %s again: it ended at once: %w", strings.Join(h.Launch.Args, " "), err)
	case <-lived.C:
		return nil
	}
}

// twin finds a process that is already what is to be started: same program, arguments
// and directory.
func twin(l *Launch) (int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join("/proc", entry.Name())
		args, err := readStrings(filepath.Join(dir, "cmdline"))
		if err != nil || !slices.Equal(args, l.Args) {
			continue
		}
		exe, err := os.Readlink(filepath.Join(dir, "exe"))
		if err != nil || exe != l.Path {
			continue // a zombie has none
		}
		ns, err := inode(filepath.Join(dir, "ns", "net"))
		if cwd, cwdErr := os.Readlink(filepath.Join(dir, "cwd")); err == nil && cwdErr == nil && cwd == l.Dir && ns == l.Network {
			return pid, nil
		}
	}
	return 0, nil
}

// startIn starts a command in a network namespace: that of the file, or, without one,
// the one with that inode.
func startIn(ns *os.File, network uint64, cmd *exec.Cmd) (err error) {
	own, err := inode("/proc/self/ns/net")
	if err != nil {
		return err
	}
	if own == network {
		return cmd.Start()
	}
	if ns == nil {
		if ns, err = findNetwork(network); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, ns.Close()) }()
	}
	return elsewhere(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter its network namespace: %w", err)
		}
		return cmd.Start()
	})
}

func findNetwork(network uint64) (*os.File, error) {
	for _, pattern := range []string{"/run/netns/*", "/proc/[0-9]*/ns/net"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			if its, err := inode(path); err == nil && its == network {
				return os.Open(path) //nolint:gosec // a namespace, by its inode
			}
		}
	}
	return nil, errors.New("its network namespace is gone")
}
