package preflight

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Etcds looks through /proc. What another user's process hides is left empty.
func (*Machine) Etcds() ([]Etcd, error) {
	all, err := pids()
	if err != nil {
		return nil, err
	}
	var list []Etcd
	for _, pid := range all {
		if e, ok := etcdOf(pid); ok {
			list = append(list, e)
		}
	}
	return list, nil
}

// etcdOf is the etcd of that pid, if it is one.
func etcdOf(pid int) (Etcd, bool) {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	raw, err := os.ReadFile(filepath.Join(proc, "cmdline")) //nolint:gosec // below /proc
	if err != nil || len(raw) == 0 {
		return Etcd{}, false // gone, or the kernel's
	}
	args := strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00")
	if filepath.Base(args[0]) != "etcd" {
		return Etcd{}, false
	}
	e := Etcd{PID: pid, DataDir: dataDirOf(args, environ(proc))}
	if e.DataDir != "" && !filepath.IsAbs(e.DataDir) {
		cwd, unseen := os.Readlink(filepath.Join(proc, "cwd"))
		if unseen != nil {
			e.DataDir = ""
			return e, true
		}
		e.DataDir = filepath.Join(cwd, e.DataDir)
	}
	if e.DataDir != "" {
		// As that process sees it: it may live in a container.
		if e.Device, err = deviceOf(filepath.Join(proc, "root", e.DataDir)); err != nil {
			e.Device = 0
		}
	}
	return e, true
}

func environ(proc string) []string {
	raw, err := os.ReadFile(filepath.Join(proc, "environ")) //nolint:gosec // below /proc
	if err != nil {
		return nil // another user's
	}
	return strings.Split(string(raw), "\x00")
}

// dataDirOf is the data directory that an etcd was given, by flag or variable; empty
// for one that has a configuration file, which may name it.
func dataDirOf(args, env []string) string {
	flag := func(name string) (string, bool) {
		for i, a := range args {
			a = strings.TrimLeft(a, "-")
			if v, ok := strings.CutPrefix(a, name+"="); ok {
				return v, true
			}
			if a == name && i+1 < len(args) && strings.HasPrefix(args[i], "-") {
				return args[i+1], true
			}
		}
		variable := "ETCD_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_")) + "="
		for _, e := range env {
			if v, ok := strings.CutPrefix(e, variable); ok && v != "" {
				return v, true
			}
		}
		return "", false
	}
	if _, ok := flag("config-file"); ok {
		return ""
	}
	if dir, ok := flag("data-dir"); ok {
		return dir
	}
	name, ok := flag("name")
	if !ok {
		name = "default"
	}
	return name + ".etcd"
}

// Listeners binds a socket to each address without listening on it. That fails where
// somebody listens, and keeps nobody from it: both sockets may be used anew.
func (m *Machine) Listeners(at []netip.AddrPort) ([]Listener, error) {
	var list []Listener
	for _, a := range at {
		taken, err := isTaken(a)
		if err != nil {
			return nil, err
		}
		if taken {
			l := Listener{Port: a.Port()}
			l.PID, l.Name = m.owner(a)
			list = append(list, l)
		}
	}
	return list, nil
}

func isTaken(at netip.AddrPort) (bool, error) {
	family, to := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()})
	if a := at.Addr().Unmap(); a.Is4() {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Port: int(at.Port()), Addr: a.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("a socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }() // it was only tried
	if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return false, fmt.Errorf("a socket: %w", err)
	}
	switch err = unix.Bind(fd, to); {
	case err == nil, errors.Is(err, unix.EADDRNOTAVAIL): // that it is not ours is said elsewhere
		return false, nil
	case errors.Is(err, unix.EADDRINUSE):
		return true, nil
	default:
		return false, fmt.Errorf("bind to %s: %w", at, err)
	}
}

// owner finds who listens there, if that can be seen.
func (m *Machine) owner(at netip.AddrPort) (pid int, name string) {
	const looks = 3 // while sockets come and go, the kernel may leave one out
	for range looks {
		for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
			raw, _ := m.ReadFile(table) // without IPv6 there is one only
			for line := range strings.Lines(string(raw)) {
				has, inode, ok := listening(line)
				if !ok || has.Port() != at.Port() {
					continue
				}
				if a := has.Addr().Unmap(); a == at.Addr().Unmap() || a.IsUnspecified() || at.Addr().IsUnspecified() {
					return holder("socket:[" + inode + "]")
				}
			}
		}
	}
	return 0, ""
}

// listening reads a line of /proc/net/tcp.
func listening(line string) (at netip.AddrPort, inode string, ok bool) {
	const listen = "0A"
	fields := strings.Fields(line)
	if len(fields) < 10 || fields[3] != listen {
		return at, "", false
	}
	host, port, _ := strings.Cut(fields[1], ":")
	n, err := strconv.ParseUint(port, 16, 16)
	addr, ok := hexAddress(host)
	if err != nil || !ok {
		return at, "", false
	}
	return netip.AddrPortFrom(addr, uint16(n)), fields[9], true
}

// hexAddress reads an address as the kernel writes it: in words of four bytes, each
// with its last byte first, as the CPUs that Quorate is built for have them.
func hexAddress(text string) (netip.Addr, bool) {
	raw := make([]byte, len(text)/2)
	if _, err := fmt.Sscanf(text, "%x", &raw); err != nil || len(raw)%4 != 0 {
		return netip.Addr{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		slices.Reverse(raw[i : i+4])
	}
	return netip.AddrFromSlice(raw)
}

// holder is the process that has a socket, if it can be seen.
func holder(socket string) (pid int, name string) {
	all, _ := pids() // without them nobody is named
	for _, pid := range all {
		proc := filepath.Join("/proc", strconv.Itoa(pid))
		fds, err := os.ReadDir(filepath.Join(proc, "fd"))
		if err != nil {
			continue // gone, or another user's
		}
		for _, fd := range fds {
			if to, err := os.Readlink(filepath.Join(proc, "fd", fd.Name())); err != nil || to != socket {
				continue
			}
			raw, _ := os.ReadFile(filepath.Join(proc, "comm")) //nolint:gosec // below /proc; one that is gone has no name
			return pid, strings.TrimSpace(string(raw))
		}
	}
	return 0, ""
}
