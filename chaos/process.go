package chaos

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/process"
)

// Process is an etcd that runs on this machine.
type Process struct {
	process.ID
	// Args are its arguments, the program's name first.
	Args []string
	// User it runs as.
	User int
	// Keeper is who is known to start it again when it ends: a unit of systemd, or
	// Quorate's supervisor. Empty if nobody is known.
	Keeper string
}

// ErrNoProcess says that no process on this machine listens there.
var ErrNoProcess = errors.New("no process of this machine listens there: members on other machines can't be killed, paused or restarted from here")

// ProcessAt finds the etcd that listens at an endpoint, ADDRESS:PORT or a URL with a
// numeric address or localhost; in the network namespace of that path, or without one in
// this process's own, then in all others. An error that wraps ErrNoProcess if there is
// none; other errors if it is no etcd, or not this user's.
func ProcessAt(endpoint, netns string) (*Process, error) {
	addr, port, err := splitEndpoint(endpoint)
	if err != nil {
		return nil, err
	}
	spaces, err := spacesOf(netns)
	if err != nil {
		return nil, err
	}
	var found []int
	for i, s := range spaces {
		found = append(found, s.listeners(addr, port)...)
		if i == 0 && netns == "" && (len(found) > 0 || addr.IsLoopback()) {
			break // in the own namespace; the loopback addresses of others are not meant
		}
	}
	slices.Sort(found)
	found = slices.Compact(found)
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%s: %w", endpoint, ErrNoProcess)
	case 1:
		return inspect(found[0])
	}
	return nil, fmt.Errorf("%s: processes %v listen there, each in its network namespace: say which namespace", endpoint, found)
}

// splitEndpoint reads ADDRESS:PORT or a URL.
func splitEndpoint(endpoint string) (netip.Addr, uint16, error) {
	host := endpoint
	if strings.Contains(endpoint, "://") {
		u, err := url.Parse(endpoint)
		if err != nil {
			return netip.Addr{}, 0, fmt.Errorf("endpoint %q: %w", endpoint, err)
		}
		host = u.Host
	}
	if port, ok := strings.CutPrefix(host, "localhost:"); ok {
		host = "127.0.0.1:" + port
	}
	at, err := netip.ParseAddrPort(host)
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf("endpoint %q is no ADDRESS:PORT with a numeric address: %w", endpoint, err)
	}
	return at.Addr().Unmap(), at.Port(), nil
}

// space is a network namespace, and the processes in it.
type space struct{ pids []int }

// spacesOf lists the namespaces to look in, this process's own first.
func spacesOf(path string) ([]space, error) {
	own, err := inode("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	only := uint64(0)
	if path != "" {
		if only, err = inode(path); err != nil {
			return nil, fmt.Errorf("the network namespace: %w", err)
		}
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	by := map[uint64]*space{own: {}}
	order := []uint64{own}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		ns, err := inode("/proc/" + entry.Name() + "/ns/net")
		if err != nil || only != 0 && ns != only {
			continue // another user's, or it ended
		}
		if by[ns] == nil {
			by[ns] = &space{}
			order = append(order, ns)
		}
		by[ns].pids = append(by[ns].pids, pid)
	}
	spaces := make([]space, 0, len(order))
	for _, ns := range order {
		spaces = append(spaces, *by[ns])
	}
	return spaces, nil
}

// listeners finds who listens at an address, or at all addresses, in a namespace that has
// this address: who listens at all addresses is not who is meant by another machine's.
func (s space) listeners(addr netip.Addr, port uint16) []int {
	if !s.has(addr) {
		return nil
	}
	sockets := map[string]bool{}
	for _, pid := range s.pids {
		dir := fmt.Sprintf("/proc/%d/net/", pid)
		tcp, err := read(dir + "tcp")
		if err != nil {
			continue // it ended: ask the next one
		}
		tcp6, _ := read(dir + "tcp6") // IPv6 may be off
		listening(sockets, append(tcp, tcp6...), addr, port)
		break
	}
	var found []int
	if len(sockets) == 0 {
		return nil
	}
	for _, pid := range s.pids {
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // another user's, or it ended
		}
		for _, entry := range entries {
			if link, err := os.Readlink(filepath.Join(dir, entry.Name())); err == nil && sockets[link] {
				found = append(found, pid)
				break
			}
		}
	}
	return found
}

// has says whether an address is the namespace's own.
func (s space) has(addr netip.Addr) bool {
	addr = addr.WithZone("")
	for _, pid := range s.pids {
		dir := fmt.Sprintf("/proc/%d/net/", pid)
		routes, err := read(dir + "fib_trie")
		if err != nil {
			continue // it ended: ask the next one
		}
		six, _ := read(dir + "if_inet6") // IPv6 may be off
		return slices.ContainsFunc(ownAddresses(routes, six), func(p netip.Prefix) bool { return p.Contains(addr) })
	}
	return false
}

// ownAddresses reads the addresses of a network namespace from /proc/net/fib_trie and
// /proc/net/if_inet6.
func ownAddresses(routes, six []byte) []netip.Prefix {
	var own []netip.Prefix
	var last netip.Addr
	for line := range bytes.Lines(routes) {
		f := strings.Fields(string(line))
		switch {
		case len(f) == 2 && f[0] == "|--":
			last, _ = netip.ParseAddr(f[1]) // invalid: no prefix is made of it
		case len(f) == 3 && f[1] == "host" && f[2] == "LOCAL":
			if p, err := netip.ParsePrefix(last.String() + f[0]); err == nil {
				own = append(own, p)
			}
		}
	}
	for line := range bytes.Lines(six) {
		f := strings.Fields(string(line))
		if len(f) == 0 {
			continue
		}
		raw, err := hex.DecodeString(f[0])
		if addr, ok := netip.AddrFromSlice(raw); err == nil && ok {
			own = append(own, netip.PrefixFrom(addr, addr.BitLen()))
		}
	}
	return own
}

// listening adds the sockets of /proc/net/tcp that listen there, as /proc/PID/fd names
// them.
func listening(sockets map[string]bool, table []byte, addr netip.Addr, port uint16) {
	const local, state, inode = 1, 3, 9
	for line := range bytes.Lines(table) {
		f := strings.Fields(string(line))
		if len(f) <= inode || f[state] != "0A" {
			continue
		}
		at, atPort, ok := parseLocal(f[local])
		if ok && atPort == port && (at.IsUnspecified() || at == addr) {
			sockets["socket:["+f[inode]+"]"] = true
		}
	}
}

// parseLocal reads ADDRESS:PORT as the kernel prints it: in hexadecimal, the address as
// words in the machine's own order.
func parseLocal(s string) (netip.Addr, uint16, bool) {
	text, portText, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(text)
	port, portErr := strconv.ParseUint(portText, 16, 16)
	if err != nil || portErr != nil || len(raw)%4 != 0 {
		return netip.Addr{}, 0, false
	}
	if littleEndian {
		for word := range slices.Chunk(raw, 4) {
			slices.Reverse(word)
		}
	}
	addr, ok := netip.AddrFromSlice(raw)
	return addr.Unmap(), uint16(port), ok
}

// target is the process that a disturbance is done to.
func target(d Disturbance) (*Process, error) {
	if d.Process.PID == 0 {
		return ProcessAt(d.Endpoint, d.NetNS)
	}
	if !d.Process.Alive() {
		return nil, fmt.Errorf("process %d has ended", d.Process.PID)
	}
	return inspect(d.Process.PID)
}

// inspect reads what a process is, and refuses what is not to be disturbed.
func inspect(pid int) (*Process, error) {
	if pid <= 1 || pid == os.Getpid() {
		return nil, fmt.Errorf("process %d is not to be disturbed", pid)
	}
	id, err := process.Identify(pid)
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	p := &Process{ID: id}
	dir := fmt.Sprintf("/proc/%d/", pid)
	if p.Args, err = readStrings(dir + "cmdline"); err != nil {
		return nil, err
	}
	status, err := read(dir + "status")
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	fields := statusFields(status)
	p.User = number(fields["Uid"], 1) // the effective one
	if user := os.Geteuid(); user != 0 && p.User != user {
		return nil, fmt.Errorf("process %d belongs to user %d: run it as that user, or as root", pid, p.User)
	}
	exe, err := os.Readlink(dir + "exe")
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	if !isEtcd(exe) && (len(p.Args) == 0 || !isEtcd(p.Args[0])) {
		return nil, fmt.Errorf("process %d is no etcd but %s: it is not disturbed", pid, exe)
	}
	p.Keeper = keeperOf(dir)
	return p, nil
}

// keeperOf says who looks after a process, by its directory in /proc. The parent is no
// sign of it: a supervisor that was itself restarted is nobody's parent.
func keeperOf(dir string) string {
	if _, err := os.Stat(dir + "cwd/member.json"); err == nil {
		return "Quorate's supervisor"
	}
	for _, path := range cgroupsOf(dir) {
		if unit := filepath.Base(path); strings.HasSuffix(unit, ".service") {
			return "systemd's unit " + unit
		}
	}
	return ""
}

func isEtcd(path string) bool {
	return filepath.Base(strings.TrimSuffix(path, " (deleted)")) == "etcd"
}

// read reads a file of the kernel's, or of the ledger.
func read(file string) ([]byte, error) { return os.ReadFile(file) } //nolint:gosec // none is a stranger's to name

func readStrings(file string) ([]string, error) {
	raw, err := read(file)
	if err != nil {
		return nil, err
	}
	if len(raw) == 0 {
		return nil, nil
	}
	return strings.Split(strings.TrimSuffix(string(raw), "\x00"), "\x00"), nil
}

// statusFields reads /proc/PID/status.
func statusFields(status []byte) map[string][]string {
	fields := map[string][]string{}
	for line := range bytes.Lines(status) {
		name, value, _ := strings.Cut(string(line), ":")
		fields[name] = strings.Fields(value)
	}
	return fields
}

// number is one of a list of them; -1 if there is none.
func number(list []string, i int) int {
	if i >= len(list) {
		return -1
	}
	n, err := strconv.Atoi(list[i])
	if err != nil {
		return -1
	}
	return n
}

// inode tells namespaces and files apart.
func inode(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}
