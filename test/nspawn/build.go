package nspawn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/process"
)

// Where machines lie, each in a directory that is named by its maker: prefix, process ID,
// start time in ticks, number of the machine. The lock keeps makers of several processes
// apart.
const (
	home   = "/var/tmp/quorate-nspawn"
	prefix = "quorate-nspawn-"
	lock   = "/run/lock/quorate-nspawn"
)

// Where the hierarchies of control groups are, and nspawn's own notes of machines.
const (
	groupsV1 = "/sys/fs/cgroup/systemd"
	groups   = "/sys/fs/cgroup"
	notes    = "/run/systemd/nspawn"
)

var goodName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// machines numbers those of this process.
var machines atomic.Int64

// newMachine makes a machine that is off. What it has made is removed by close, in case of
// an error too.
func newMachine(tb testing.TB, o Options) (*Machine, error) {
	tb.Helper()
	if !goodName.MatchString(o.Name) {
		return nil, fmt.Errorf("a name is up to 32 lower-case letters, digits and dashes, which %q is not", o.Name)
	}
	lower, err := base()
	if err != nil {
		return nil, err
	}
	unlock, err := exclusive()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err = sweep(); err != nil {
		return nil, fmt.Errorf("remove the machines of dead processes: %w", err)
	}
	self, err := process.Identify(os.Getpid())
	if err != nil {
		return nil, err
	}
	m := &Machine{Name: o.Name, tb: tb, opts: o, event: make(chan struct{})}
	m.dir = filepath.Join(home, fmt.Sprintf("%s%d-%d-%d", prefix, self.PID, self.StartTicks, machines.Add(1)))
	m.Root = filepath.Join(m.dir, "root")
	for _, dir := range []string{m.Root, filepath.Join(m.dir, "upper"), filepath.Join(m.dir, "work"), filepath.Join(m.dir, "groups")} {
		if err = os.MkdirAll(dir, 0o755); err != nil {
			return m, err
		}
	}
	layers := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", lower, m.dir, m.dir)
	if err = unix.Mount("overlay", m.Root, "overlay", 0, layers); err != nil {
		return m, fmt.Errorf("lay the machine's root over %s: %w", lower, err)
	}
	if !unified(groups) {
		// The unified hierarchy is mounted nowhere on many machines that have the first one.
		if err = unix.Mount("cgroup2", filepath.Join(m.dir, "groups"), "cgroup2", 0, ""); err != nil {
			return m, fmt.Errorf("mount the control groups: %w", err)
		}
	}
	if o.Host != nil {
		m.Addr = o.Host.Addr
	} else if m.net, m.Addr, err = join(self); err != nil {
		return m, fmt.Errorf("join the bridge: %w", err)
	}
	return m, m.personal()
}

// personal writes what makes this machine differ from others.
func (m *Machine) personal() error {
	files := map[string]string{
		"etc/hostname": m.Name + "\n",
		"etc/hosts":    fmt.Sprintf("127.0.0.1 localhost\n%s %s\n", m.Addr, m.Name),
	}
	if m.net != nil {
		files["etc/systemd/network/10-host0.network"] = fmt.Sprintf(
			"[Match]\nName=host0\n\n[Network]\nAddress=%s/24\nGateway=%s\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n", m.Addr, m.net.addr)
	}
	if m.opts.AuthorizedKeys != "" {
		files["root/.ssh/authorized_keys"] = m.opts.AuthorizedKeys
	}
	for name, content := range files {
		path := filepath.Join(m.Root, name)
		dirMode, mode := os.FileMode(0o755), os.FileMode(0o644)
		if strings.Contains(name, ".ssh") {
			dirMode, mode = 0o700, 0o600
		}
		if err := os.MkdirAll(filepath.Dir(path), dirMode); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			return err
		}
	}
	if m.net != nil {
		// As `systemctl enable systemd-networkd` does it.
		for unit, wants := range map[string]string{
			"systemd-networkd.service":             "multi-user.target.wants",
			"systemd-networkd-wait-online.service": "network-online.target.wants",
		} {
			dir := filepath.Join(m.Root, "etc/systemd/system", wants)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			if err := os.Symlink("/lib/systemd/system/"+unit, filepath.Join(dir, unit)); err != nil && !errors.Is(err, os.ErrExist) {
				return err
			}
		}
	}
	key := filepath.Join(m.Root, "etc/ssh/ssh_host_ed25519_key")
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", m.Name, "-f", key).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make a host key: %w: %s", err, bytes.TrimSpace(out))
	}
	line, err := os.ReadFile(key + ".pub")
	if err != nil {
		return err
	}
	fields := strings.Fields(string(line))
	m.HostKey = strings.Join(fields[:2], " ")
	return nil
}

// groups are the control groups of the machine, one in each hierarchy.
func (m *Machine) groups() []string { return groupsOf(m.dir) }

func groupsOf(dir string) []string {
	name := filepath.Base(dir)
	if unified(groups) {
		return []string{filepath.Join(groups, name)}
	}
	list := []string{filepath.Join(dir, "groups", name)}
	if _, err := os.Stat(groupsV1); err == nil {
		list = append(list, filepath.Join(groupsV1, name))
	}
	return list
}

// unified says whether the unified hierarchy of control groups is mounted there.
func unified(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// exclusive keeps other makers out until it is called.
func exclusive() (unlock func(), err error) {
	file, err := os.OpenFile(lock, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err = unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() { _ = file.Close() }, nil
}

// Sweep removes the machines whose makers are dead. New calls it.
func Sweep() error {
	unlock, err := exclusive()
	if err != nil {
		return err
	}
	defer unlock()
	return sweep()
}

func sweep() error {
	boot, err := process.BootID()
	if err != nil {
		return err
	}
	dead := func(pid, ticks string, base int) bool {
		p, err1 := strconv.ParseInt(pid, base, 64)
		s, err2 := strconv.ParseUint(ticks, base, 64)
		return err1 == nil && err2 == nil && !process.ID{PID: int(p), StartTicks: s, BootID: boot}.Alive()
	}
	entries, err := os.ReadDir(home)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var errs error
	for _, entry := range entries {
		rest, ours := strings.CutPrefix(entry.Name(), prefix)
		parts := strings.Split(rest, "-")
		if ours && len(parts) == 3 && dead(parts[0], parts[1], 10) {
			errs = errors.Join(errs, remove(filepath.Join(home, entry.Name())))
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		return errors.Join(errs, err)
	}
	for _, link := range links {
		rest, ours := strings.CutPrefix(link.Attrs().Name, bridgePrefix)
		pid, ticks, two := strings.Cut(rest, ".")
		if ours && two && link.Type() == "bridge" && dead(pid, ticks, nameBase) {
			errs = errors.Join(errs, netlink.LinkDel(link))
		}
	}
	return errs
}

// kill ends every process in the control groups of a machine, nspawn's own among them, and
// returns when they are gone.
func kill(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	for ctx.Err() == nil {
		var found []process.ID
		for _, group := range groupsOf(dir) {
			err := filepath.WalkDir(group, func(path string, _ fs.DirEntry, err error) error {
				if err != nil || filepath.Base(path) != "cgroup.procs" {
					return ignoreGone(err)
				}
				raw, err := os.ReadFile(path)
				for line := range strings.FieldsSeq(string(raw)) {
					pid, convErr := strconv.Atoi(line)
					if id, idErr := process.Identify(pid); convErr == nil && idErr == nil {
						found = append(found, id)
					}
				}
				return ignoreGone(err)
			})
			if err != nil {
				return err
			}
		}
		if len(found) == 0 {
			return nil
		}
		for _, id := range found {
			if err := id.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, process.ErrGone) {
				return fmt.Errorf("kill process %d: %w", id.PID, err)
			}
		}
		for _, id := range found {
			if err := id.Wait(ctx); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// ignoreGone takes an error away that says that a group or its processes are gone.
func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.EOPNOTSUPP) {
		return nil
	}
	return err
}

// remove kills the machine in a directory, if it runs, and removes all of it.
func remove(dir string) error {
	if err := kill(dir); err != nil {
		return err
	}
	var errs error
	for _, group := range groupsOf(dir) {
		errs = errors.Join(errs, removeGroup(group))
	}
	for _, mounted := range []string{"groups", "root"} {
		path := filepath.Join(dir, mounted)
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return errors.Join(errs, fmt.Errorf("unmount %s: %w", path, err))
		}
	}
	name := filepath.Base(dir)
	for _, note := range []string{"propagate", "unix-export"} {
		path := filepath.Join(notes, note, name)
		_ = unix.Unmount(path, unix.MNT_DETACH) // it may never have been mounted
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = errors.Join(errs, err)
		}
	}
	return errors.Join(errs, os.RemoveAll(dir))
}

// removeGroup removes a control group with those below it, as soon as their processes,
// which were killed, are gone from it.
func removeGroup(path string) error {
	const step, steps = 20 * time.Millisecond, 250
	var err error
	for range steps {
		entries, readErr := os.ReadDir(path)
		if errors.Is(readErr, os.ErrNotExist) {
			return nil
		}
		if readErr != nil {
			return readErr
		}
		for _, entry := range entries {
			if entry.IsDir() {
				if err = removeGroup(filepath.Join(path, entry.Name())); err != nil {
					return err
				}
			}
		}
		err = unix.Rmdir(path)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			break
		}
		<-time.After(step) // the kernel tells nobody when a group is empty in the first hierarchy
	}
	return fmt.Errorf("remove the control group %s: %w", path, err)
}

// bridge joins the machines of this process with each other and with this machine.
type bridge struct {
	name string
	addr netip.Addr
	next netip.Addr // what the next machine gets
	used int
}

// The name of a bridge tells its maker: process ID and start time. It has 15 letters at
// most.
const (
	bridgePrefix = "qn"
	nameBase     = 36
)

var (
	bridging sync.Mutex
	shared   *bridge
)

// join gives out an address on the bridge of this process. exclusive is held.
func join(self process.ID) (*bridge, netip.Addr, error) {
	bridging.Lock()
	defer bridging.Unlock()
	if shared == nil {
		made, err := newBridge(self)
		if err != nil {
			return nil, netip.Addr{}, err
		}
		shared = made
	}
	addr := shared.next
	if addr.As4()[3] == 255 {
		return nil, addr, errors.New("253 machines at the same time are the most")
	}
	shared.next = addr.Next()
	shared.used++
	return shared, addr, nil
}

// newBridge takes the first network 10.65.N.0/24 that no link of this machine is in.
func newBridge(self process.ID) (*bridge, error) {
	taken, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, err
	}
	inUse := func(network netip.Prefix) bool {
		for _, a := range taken {
			if addr, ok := netip.AddrFromSlice(a.IP.To4()); ok && network.Contains(addr) {
				return true
			}
		}
		return false
	}
	for n := range 256 {
		addr := netip.AddrFrom4([4]byte{10, 65, byte(n), 1})
		if inUse(netip.PrefixFrom(addr, 24)) {
			continue
		}
		b := &bridge{addr: addr, next: addr.Next()}
		b.name = bridgePrefix + strconv.FormatInt(int64(self.PID), nameBase) + "." + strconv.FormatUint(self.StartTicks, nameBase)
		attrs := netlink.NewLinkAttrs()
		attrs.Name = b.name
		link := &netlink.Bridge{LinkAttrs: attrs}
		if err = netlink.LinkAdd(link); err != nil {
			return nil, fmt.Errorf("make the bridge %s: %w", b.name, err)
		}
		parsed, err := netlink.ParseAddr(addr.String() + "/24")
		if err == nil {
			err = netlink.AddrAdd(link, parsed)
		}
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err != nil {
			return nil, errors.Join(err, netlink.LinkDel(link))
		}
		return b, nil
	}
	return nil, errors.New("each network 10.65.0.0/24 to 10.65.255.0/24 is in use: remove what has them, see `ip address`")
}

// leave removes the bridge after its last machine.
func (b *bridge) leave() error {
	bridging.Lock()
	defer bridging.Unlock()
	if b.used--; b.used > 0 {
		return nil
	}
	if shared == b {
		shared = nil
	}
	link, err := netlink.LinkByName(b.name)
	if err != nil {
		return err
	}
	return netlink.LinkDel(link)
}
