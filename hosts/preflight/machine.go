package preflight

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// errHangs: an earlier measurement of the disk has not ended yet.
var errHangs = errors.New("an earlier sync has not ended yet")

// Machine is the machine that this process runs on. The zero value is ready.
type Machine struct {
	// hanging counts calls that wait for a disk which does not answer: none is added.
	hanging atomic.Int32
}

var _ Probe = (*Machine)(nil)

// ReadFile reads a file.
func (*Machine) ReadFile(name string) ([]byte, error) { return os.ReadFile(name) } //nolint:gosec // the names are the package's own

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// CPUs that this process may use.
func (*Machine) CPUs() int { return runtime.NumCPU() }

// OpenFiles is the hard limit: etcd raises its own to it, as every Go program does.
func (*Machine) OpenFiles() (uint64, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, err
	}
	return l.Max, nil
}

// Clock asks the kernel.
func (*Machine) Clock() (Clock, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return Clock{}, err
	}
	return Clock{Synchronised: state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, MaxError: time.Duration(t.Maxerror) * time.Microsecond}, nil
}

// Addresses of all interfaces.
func (*Machine) Addresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var list []netip.Addr
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			list = append(list, p.Addr().Unmap())
		}
	}
	return list, nil
}

// Connect connects by TCP, and closes at once.
func (*Machine) Connect(ctx context.Context, address string) (time.Duration, error) {
	var d net.Dialer
	began := time.Now()
	conn, err := d.DialContext(ctx, "tcp", address)
	took := time.Since(began)
	if err == nil {
		return took, conn.Close()
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return took, nil // the peer's kernel answered, which is as far
	}
	return 0, err
}

// Filesystem describes that of dir.
func (m *Machine) Filesystem(ctx context.Context, dir string) (f Filesystem, err error) {
	// A network filesystem whose server is gone keeps who asks for ever.
	err = m.bounded(ctx, func() (err error) {
		f, err = filesystem(dir)
		return err
	})
	if err != nil {
		return Filesystem{}, err
	}
	return f, nil
}

// bounded does what a disk may keep for ever, and gives up waiting when ctx ends.
func (m *Machine) bounded(ctx context.Context, do func() error) error {
	const most = 4
	if m.hanging.Add(1) > most {
		m.hanging.Add(-1)
		return errHangs
	}
	done := make(chan error, 1)
	go func() {
		defer m.hanging.Add(-1)
		done <- do()
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// existing is the nearest directory to dir that is there.
func existing(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for {
		st, err := os.Stat(dir)
		switch {
		case err == nil && st.IsDir():
			return filepath.EvalSymlinks(dir)
		case err == nil:
			return "", fmt.Errorf("%s is not a directory", dir)
		case !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir):
			return "", err
		}
		dir = filepath.Dir(dir)
	}
}

func filesystem(dir string) (Filesystem, error) {
	dir, err := existing(dir)
	if err != nil {
		return Filesystem{}, err
	}
	var s unix.Statfs_t
	if err = unix.Statfs(dir, &s); err != nil {
		return Filesystem{}, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	f := Filesystem{
		Dir: dir, FreeInodes: s.Ffree, Inodes: s.Files,
		Free: int64(s.Bavail) * s.Bsize, Size: int64(s.Blocks-s.Bfree+s.Bavail) * s.Bsize, //nolint:gosec // sizes of disks are far below 2^63
	}
	if f.Device, err = deviceOf(dir); err != nil {
		return Filesystem{}, err
	}
	if f.Root, err = deviceOf("/"); err != nil {
		return Filesystem{}, err
	}
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Filesystem{}, err
	}
	f.Kind, f.Source = mountOf(string(raw), dir)
	f.Rotational = rotational(f.Device)
	return f, nil
}

func deviceOf(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Dev, nil
}

// mountOf finds the mount of a directory, as mountinfo has it: that with the longest
// mount point above it, and the last of those.
func mountOf(mountinfo, dir string) (kind, source string) {
	longest := -1
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		fields, rest := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(rest) < 2 {
			continue
		}
		at := unescaped(fields[4])
		if at != "/" && dir != at && !strings.HasPrefix(dir, at+"/") || len(at) < longest {
			continue
		}
		longest, kind, source = len(at), rest[0], unescaped(rest[1])
	}
	return kind, source
}

// unescaped reads a name as the kernel writes it: a space is \040.
func unescaped(name string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(name)
}

// rotational asks the kernel. Of a virtual disk it says that it turns unless the
// hypervisor told otherwise, which is no knowledge.
func rotational(device uint64) bool {
	at, err := filepath.EvalSymlinks(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(device), unix.Minor(device)))
	if err != nil {
		return false // not a disk, such as btrfs' own numbers
	}
	for _, dir := range []string{at, filepath.Dir(at)} { // a partition's queue is its disk's
		raw, err := os.ReadFile(filepath.Join(dir, "queue", "rotational")) //nolint:gosec // below /sys
		if err != nil {
			continue
		}
		return strings.TrimSpace(string(raw)) == "1" && !virtualDisk(filepath.Base(dir))
	}
	return false
}

func virtualDisk(name string) bool {
	for _, p := range []string{"vd", "xvd", "nbd", "loop", "zd", "rbd", "ram"} {
		if rest, ok := strings.CutPrefix(name, p); ok && rest != "" {
			return true
		}
	}
	return false
}

// pids of all processes that can be seen.
func pids() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var list []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			list = append(list, pid)
		}
	}
	return list, nil
}
