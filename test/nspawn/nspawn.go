// Package nspawn boots real Debian machines with systemd for tests: systemd-nspawn
// containers that have an init, a journal, sshd and a network address of their own, and
// that reboot and lose power as machines do.
//
//	m := nspawn.New(t, nspawn.Options{Name: "a"})
//	m.Copy("bin/quorate", "/usr/local/bin/quorate", 0o755)
//	out, err := m.Run(ctx, "systemctl", "is-active", "ssh")
//	m.Reboot()
//
// The Debian comes from `make nspawn-base`; a machine's root is an overlay on it, so that
// one boots in half a second. The machines of one process are on one bridge, with this
// machine, or each stands where a netlab host stands, when the network itself is tested.
//
// It needs root, else the test is skipped. What a machine is made of carries the process
// ID and start time of its maker in its name. It is gone when the test ends; after a kill
// -9 of the maker it stays until the next New or Sweep on this machine.
package nspawn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/process"
	"github.com/quorate/quorate/test/netlab"
	"github.com/quorate/quorate/test/slow"
)

// Patience bounds a boot, a shutdown and what New does.
const Patience = 90 * time.Second

// Options say what to boot.
type Options struct {
	// Name is its hostname: lower-case letters, digits and dashes, 32 at most. "host" if
	// empty.
	Name string
	// Host is where it stands in a netlab: its address and its network are that host's. On
	// the bridge of this process if nil.
	Host *netlab.Host
	// AuthorizedKeys let in root by SSH: the text of an authorized_keys file.
	AuthorizedKeys string
	// Binds are files and directories of this machine that it sees, read-only: the path
	// there by the path here.
	Binds map[string]string
	// Stopped leaves it off, so that the test may write into Root first; Start boots it.
	Stopped bool
}

// Machine is one Debian. Its methods may be called at the same time, those that turn it on
// and off excepted.
type Machine struct {
	// Name is its hostname.
	Name string
	// Addr is where it is reached; sshd listens at port 22.
	Addr netip.Addr
	// Root is its root directory, seen from here, without what it mounts over it (/run and
	// /tmp). Copy is for a machine that runs.
	Root string
	// HostKey is its SSH host key, as a line of known_hosts has it after the address.
	HostKey string

	tb   testing.TB
	opts Options
	dir  string // all that belongs to it; its base is the name of the machine
	net  *bridge

	mu     sync.Mutex
	leader process.ID    // its init, while it runs
	boots  int           // how often it has come up
	off    chan struct{} // closed when it is off
	event  chan struct{} // closed and made anew with each change of the above
	closed bool
}

// Available says why no machine can be booted here; nil if one can.
func Available() error {
	if os.Geteuid() != 0 {
		return errors.New("a machine with systemd needs root: run it with sudo")
	}
	for _, tool := range []string{"systemd-nspawn", "nsenter", "ssh-keygen"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is missing: apt-get install systemd-container openssh-client", tool)
		}
	}
	_, err := base()
	return err
}

// base is the directory of the Debian.
func base() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err = os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
	}
	found, err := filepath.EvalSymlinks(filepath.Join(dir, ".cache", "nspawn", "base"))
	if err != nil {
		return "", errors.New("there is no Debian to boot: run `make nspawn-base` first")
	}
	return found, nil
}

// New boots a machine that lives as long as the test. It skips the test where no machine
// can be booted, and unless slow tests were asked for.
func New(tb testing.TB, o Options) *Machine {
	tb.Helper()
	slow.Only(tb)
	if err := Available(); err != nil {
		tb.Skip("SKIPPED:", err)
	}
	if o.Name == "" {
		o.Name = "host"
	}
	m, err := newMachine(tb, o)
	if m != nil {
		tb.Cleanup(m.close)
	}
	if err != nil {
		tb.Fatalf("make the machine %s: %v", o.Name, err)
	}
	if !o.Stopped {
		m.Start()
	}
	return m
}

// Start boots it and waits until systemd has started all there is to start.
func (m *Machine) Start() {
	m.tb.Helper()
	m.mu.Lock()
	if m.off != nil {
		select {
		case <-m.off:
		default:
			m.mu.Unlock()
			m.tb.Fatalf("%s is on already", m.Name)
		}
	}
	boots := m.boots
	m.off = make(chan struct{})
	m.mu.Unlock()
	go m.power(m.off)
	m.awaitBoot(boots + 1)
}

// Reboot shuts it down in order and boots it again.
func (m *Machine) Reboot() {
	m.tb.Helper()
	m.mu.Lock()
	boots := m.boots
	m.mu.Unlock()
	m.control("reboot")
	m.awaitBoot(boots + 1)
}

// Poweroff shuts it down in order.
func (m *Machine) Poweroff() {
	m.tb.Helper()
	m.control("poweroff")
	m.awaitOff()
}

// Cut takes the power away: no process of it gets to do anything more. What it had
// written stays, even what was not synced, since this machine lives on.
func (m *Machine) Cut() {
	m.tb.Helper()
	m.mu.Lock()
	leader := m.leader
	m.mu.Unlock()
	if err := leader.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, process.ErrGone) {
		m.tb.Fatalf("cut the power of %s: %v", m.Name, err)
	}
	m.awaitOff()
}

// Gateway is this machine's address on the bridge: where servers of the test are reached
// from the machine. Not valid for a machine of a netlab.
func (m *Machine) Gateway() netip.Addr {
	if m.net == nil {
		return netip.Addr{}
	}
	return m.net.addr
}

// Running says whether it is on.
func (m *Machine) Running() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leader.PID != 0
}

// control has systemd shut it down; the answer may be lost on the way.
func (m *Machine) control(verb string) {
	m.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	cmd, err := m.Command(ctx, "systemctl", "--no-block", verb)
	if err == nil {
		var exit *exec.ExitError
		if err = cmd.Run(); errors.As(err, &exit) {
			err = nil
		}
	}
	if err != nil {
		m.tb.Fatalf("systemctl %s on %s: %v", verb, m.Name, err)
	}
}

// awaitOff waits until its last process is gone.
func (m *Machine) awaitOff() {
	m.tb.Helper()
	m.mu.Lock()
	off := m.off
	m.mu.Unlock()
	if off == nil {
		return
	}
	select {
	case <-off:
	case <-time.After(Patience):
		m.tb.Fatalf("%s is not off after %s; its console ends with:\n%s", m.Name, Patience, m.Console())
	}
}

// awaitBoot waits for the boot of that number, and for systemd to have started all.
func (m *Machine) awaitBoot(number int) {
	m.tb.Helper()
	limit := time.NewTimer(Patience)
	defer limit.Stop()
	for {
		m.mu.Lock()
		boots, event, off := m.boots, m.event, m.off
		m.mu.Unlock()
		if boots >= number {
			break
		}
		select {
		case <-event:
		case <-off:
			m.tb.Fatalf("%s went off while it booted; its console ends with:\n%s", m.Name, m.Console())
		case <-limit.C:
			m.tb.Fatalf("%s did not boot in %s; its console ends with:\n%s", m.Name, Patience, m.Console())
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	out, err := m.Run(ctx, "systemctl", "is-system-running", "--wait")
	if state := strings.TrimSpace(string(out)); err != nil && state != "degraded" {
		m.tb.Fatalf("%s came up %q (%v); its console ends with:\n%s", m.Name, state, err, m.Console())
	}
}

// Command is a command on the machine, as root, outside of its units: it ends when ctx
// does. ErrGone if the machine is off.
func (m *Machine) Command(ctx context.Context, argv ...string) (*exec.Cmd, error) {
	m.mu.Lock()
	leader := m.leader
	m.mu.Unlock()
	if leader.PID == 0 {
		return nil, fmt.Errorf("%s is off: %w", m.Name, process.ErrGone)
	}
	// nsenter waits for the command, in a process namespace where a kill of nsenter does
	// not reach it: setpriv has it end with nsenter.
	args := append([]string{
		"--target", strconv.Itoa(leader.PID), "--all", "--wd=/", "--",
		"/usr/bin/setpriv", "--pdeathsig", "KILL", "--",
	}, argv...)
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "USER=root", "LANG=C.UTF-8"}
	return cmd, nil
}

// Run runs a command on the machine and returns what it printed to its output. The error
// holds what it printed to its error output.
func (m *Machine) Run(ctx context.Context, argv ...string) ([]byte, error) {
	cmd, err := m.Command(ctx, argv...)
	if err != nil {
		return nil, err
	}
	return output(cmd, argv)
}

func output(cmd *exec.Cmd, argv []string) ([]byte, error) {
	var stderr bytes.Buffer
	if cmd.Stderr == nil {
		cmd.Stderr = &stderr
	}
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, err
}

// MustRun is Run that fails the test.
func (m *Machine) MustRun(argv ...string) string {
	m.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	out, err := m.Run(ctx, argv...)
	if err != nil {
		m.tb.Fatalf("on %s: %v\n%s", m.Name, err, out)
	}
	return string(out)
}

// Copy puts a file of this machine there, with its directories; root owns it.
func (m *Machine) Copy(src, dst string, mode os.FileMode) {
	m.tb.Helper()
	file, err := os.Open(src)
	if err != nil {
		m.tb.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // it was only read
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	argv := []string{"install", "-D", "-m", fmt.Sprintf("%04o", mode.Perm()), "/dev/stdin", dst}
	cmd, err := m.Command(ctx, argv...)
	if err == nil {
		cmd.Stdin = file
		_, err = output(cmd, argv)
	}
	if err != nil {
		m.tb.Fatalf("copy %s to %s: %v", src, m.Name, err)
	}
}

// CopyDir puts what is in a directory of this machine into one there; root owns it, and
// modes stay.
func (m *Machine) CopyDir(src, dst string) {
	m.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	m.MustRun("mkdir", "-p", dst)
	cmd, err := m.Command(ctx, "tar", "-x", "--no-same-owner", "-p", "-C", dst)
	if err != nil {
		m.tb.Fatal(err)
	}
	pack := exec.CommandContext(ctx, "tar", "-c", "-C", src, ".")
	if cmd.Stdin, err = pack.StdoutPipe(); err == nil {
		err = pack.Start()
	}
	if err == nil {
		_, err = output(cmd, []string{"tar", "-x"})
		err = errors.Join(err, pack.Wait())
	}
	if err != nil {
		m.tb.Fatalf("copy %s to %s: %v", src, m.Name, err)
	}
}

// Dial connects to a port of the machine, from where this process is, or, for a machine
// of a netlab, from the machine itself.
func (m *Machine) Dial(ctx context.Context, port int) (net.Conn, error) {
	address := net.JoinHostPort(m.Addr.String(), strconv.Itoa(port))
	if m.opts.Host != nil {
		return m.opts.Host.DialContext(ctx, "tcp", address)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}

// Console is the end of what it printed to its console.
func (m *Machine) Console() string {
	raw, err := os.ReadFile(filepath.Join(m.dir, "console"))
	if err != nil {
		return err.Error()
	}
	const end = 4 << 10
	return string(raw[max(0, len(raw)-end):])
}

// power runs the machine until it is off; a reboot ends nspawn too.
func (m *Machine) power(off chan struct{}) {
	defer close(off)
	for {
		rebooted, err := m.boot()
		m.mu.Lock()
		m.leader = process.ID{}
		m.changed()
		closed := m.closed
		m.mu.Unlock()
		if err != nil && !closed {
			m.tb.Errorf("run %s: %v", m.Name, err)
		}
		if !rebooted || closed || err != nil {
			return
		}
	}
}

// changed tells those who wait; m.mu is held.
func (m *Machine) changed() {
	close(m.event)
	m.event = make(chan struct{})
}

// boot runs nspawn until the machine goes off, or is to boot again.
func (m *Machine) boot() (again bool, err error) {
	console, err := os.OpenFile(filepath.Join(m.dir, "console"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return false, err
	}
	defer console.Close() //nolint:errcheck // it is a log
	// Where nspawn says that its init runs and has booted: an address of its own for each
	// boot, since what an earlier one said late must not be believed.
	address := filepath.Join(m.dir, "notify")
	if err = os.Remove(address); err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return false, err
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		m.listen(notify)
	}()
	defer func() {
		err = errors.Join(err, notify.Close())
		<-heard
	}()
	cmd := m.nspawn()
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+address)
	cmd.Stdout, cmd.Stderr = console, console
	if err = cmd.Start(); err != nil {
		return false, err
	}
	err = cmd.Wait()
	const rebooted = 133 // what nspawn exits with where it may not make a unit anew
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode() == rebooted, nil
	}
	return false, err
}

// nspawn is the command that runs the machine, in control groups of its own: nspawn names
// those of its container by the group it is in, so that two of them would share theirs.
func (m *Machine) nspawn() *exec.Cmd {
	name := filepath.Base(m.dir)
	enter := `for g in $1; do mkdir -p "$g" && echo $$ > "$g/cgroup.procs" || exit 1; done; shift; exec "$@"`
	args := []string{
		"-c", enter, "sh", strings.Join(m.groups(), " "),
		"systemd-nspawn", "--boot", "--register=no", "--keep-unit", "--notify-ready=yes",
		"--machine=" + name, "--hostname=" + m.Name, "--directory=" + m.Root,
		"--console=read-only", "--link-journal=no", "--resolv-conf=off", "--timezone=off",
	}
	if m.opts.Host != nil {
		args = append(args, "--network-namespace-path="+m.opts.Host.NetNS())
	} else {
		args = append(args, "--network-bridge="+m.net.name)
	}
	for there, here := range m.opts.Binds {
		args = append(args, "--bind-ro="+here+":"+there)
	}
	cmd := exec.CommandContext(context.Background(), "sh", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is for the test
	return cmd
}

// listen hears what nspawn says until its socket is closed.
func (m *Machine) listen(notify *net.UnixConn) {
	buffer := make([]byte, 4<<10)
	var leader process.ID
	for {
		n, err := notify.Read(buffer)
		if err != nil {
			return
		}
		for line := range strings.SplitSeq(string(buffer[:n]), "\n") {
			key, value, _ := strings.Cut(line, "=")
			switch key {
			case "X_NSPAWN_LEADER_PID":
				pid, err := strconv.Atoi(value)
				if err != nil {
					continue
				}
				if leader, err = process.Identify(pid); err != nil {
					continue
				}
				m.mu.Lock()
				m.leader = leader
				m.changed()
				m.mu.Unlock()
			case "READY":
				m.mu.Lock()
				m.boots++
				m.changed()
				m.mu.Unlock()
			}
		}
	}
}

// close turns the machine off and removes all of it.
func (m *Machine) close() {
	m.tb.Helper()
	if m.tb.Failed() {
		m.tb.Logf("the console of %s ends with:\n%s", m.Name, m.Console())
		m.logJournal()
	}
	m.mu.Lock()
	m.closed = true
	off := m.off
	m.mu.Unlock()
	errs := kill(m.dir)
	if off != nil {
		select {
		case <-off:
		case <-time.After(Patience):
			errs = errors.Join(errs, fmt.Errorf("it is not off %s after its processes were killed", Patience))
		}
	}
	errs = errors.Join(errs, remove(m.dir))
	if m.net != nil {
		errs = errors.Join(errs, m.net.leave())
	}
	if errs != nil {
		m.tb.Errorf("remove the machine %s: %v", m.Name, errs)
	}
}

func (m *Machine) logJournal() {
	if !m.Running() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := m.Run(ctx, "journalctl", "--no-pager", "--lines=60")
	m.tb.Logf("the journal of %s ends with (%v):\n%s", m.Name, err, out)
}
