package nspawn_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/quorate/quorate/internal/process"
	"github.com/quorate/quorate/test/netlab"
	"github.com/quorate/quorate/test/nspawn"
	"github.com/quorate/quorate/test/slow"
)

// envHold makes this binary hold a machine until it is killed.
const envHold = "QUORATE_TEST_HOLD_MACHINE"

const patience = 60 * time.Second

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestMachineBootsRunsAndReboots(t *testing.T) {
	m := nspawn.New(t, nspawn.Options{Name: "alpha"})
	if got := m.MustRun("hostname"); got != "alpha\n" {
		t.Errorf("its hostname is %q, want alpha", got)
	}
	if got := m.MustRun("cat", "/proc/1/comm"); got != "systemd\n" {
		t.Errorf("its init is %q, want systemd", got)
	}
	file := filepath.Join(t.TempDir(), "hello")
	if err := os.WriteFile(file, []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.Copy(file, "/opt/deep/hello", 0o640)
	if got := m.MustRun("stat", "-c", "%a %U", "/opt/deep/hello"); got != "640 root\n" {
		t.Errorf("what was copied is %q, want 640 root", got)
	}
	unit := "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
	if err := os.WriteFile(filepath.Join(m.Root, "etc/systemd/system/sleeper.service"), []byte(unit), 0o600); err != nil {
		t.Fatal(err)
	}
	m.MustRun("systemctl", "daemon-reload")
	m.MustRun("systemctl", "enable", "--now", "sleeper")
	before := m.MustRun("cat", "/proc/1/stat")

	m.Reboot()
	if after := m.MustRun("cat", "/proc/1/stat"); after == before {
		t.Error("its init is the same after a reboot")
	}
	if got := m.MustRun("systemctl", "is-active", "sleeper"); got != "active\n" {
		t.Errorf("an enabled unit is %q after a reboot, want active", got)
	}
	if got := m.MustRun("cat", "/opt/deep/hello"); got != "hello\n" {
		t.Errorf("a file is %q after a reboot", got)
	}

	m.Poweroff()
	if m.Running() {
		t.Error("it runs after it was powered off")
	}
	if _, err := m.Run(within(t), "true"); !errors.Is(err, process.ErrGone) {
		t.Errorf("a command on a machine that is off gives %v, want ErrGone", err)
	}
	m.Start()
	m.Cut()
	m.Start()
	if got := m.MustRun("systemctl", "is-active", "sleeper"); got != "active\n" {
		t.Errorf("an enabled unit is %q after a power cut, want active", got)
	}
}

// Two machines have groups of their own: with the names that nspawn chooses by itself,
// stopping a unit on one would kill that of the other.
func TestMachinesAreApart(t *testing.T) {
	a, b := nspawn.New(t, nspawn.Options{Name: "a"}), nspawn.New(t, nspawn.Options{Name: "b"})
	for _, m := range []*nspawn.Machine{a, b} {
		m.MustRun("systemd-run", "--unit", "twin", "sleep", "infinity")
	}
	a.MustRun("systemctl", "kill", "--signal", "KILL", "twin")
	if got := b.MustRun("systemctl", "is-active", "twin"); got != "active\n" {
		t.Errorf("the unit of b is %q after that of a was killed", got)
	}
	if a.HostKey == b.HostKey {
		t.Error("two machines have one host key")
	}
	if a.MustRun("cat", "/etc/machine-id") == b.MustRun("cat", "/etc/machine-id") {
		t.Error("two machines have one machine ID")
	}
	// They reach each other, and this process both.
	banner := func(r io.Reader) string {
		line, err := bufio.NewReader(r).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return line
	}
	script := fmt.Sprintf("exec 3<>/dev/tcp/%s/22; head -n 1 <&3", b.Addr)
	if got := a.MustRun("bash", "-c", script); !strings.HasPrefix(got, "SSH-2.0") {
		t.Errorf("a hears %q from b's sshd", got)
	}
	for _, m := range []*nspawn.Machine{a, b} {
		conn, err := m.Dial(within(t), 22)
		if err != nil {
			t.Fatal(err)
		}
		if got := banner(conn); !strings.HasPrefix(got, "SSH-2.0") {
			t.Errorf("%s's sshd says %q", m.Name, got)
		}
		_ = conn.Close()
	}
}

func TestMachineOnANetlabHost(t *testing.T) {
	slow.Only(t)
	if err := nspawn.Available(); err != nil {
		t.Skip("SKIPPED:", err)
	}
	lab, err := netlab.New(netlab.Options{Hosts: []netlab.HostSpec{{Name: "a"}, {Name: "b"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if closeErr := lab.Close(); closeErr != nil {
			t.Error(closeErr)
		}
	})
	m := nspawn.New(t, nspawn.Options{Name: "a", Host: lab.Host("a")})
	from := lab.Host("b")
	dial := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		conn, dialErr := from.DialContext(ctx, "tcp", net.JoinHostPort(m.Addr.String(), "22"))
		if dialErr == nil {
			_ = conn.Close()
		}
		return dialErr
	}
	if err = dial(); err != nil {
		t.Fatalf("the other host does not reach it: %v", err)
	}
	m.Reboot()
	if err = dial(); err != nil {
		t.Fatalf("the other host does not reach it after a reboot: %v", err)
	}
	if err = lab.Isolate("a"); err != nil {
		t.Fatal(err)
	}
	if err = dial(); err == nil {
		t.Error("it is reached though the lab cut it off")
	}
}

// The bridge and the directory of a machine are gone with the test that made it.
func TestMachineLeavesNothing(t *testing.T) {
	slow.Only(t)
	var dir string
	t.Run("machine", func(t *testing.T) {
		dir = filepath.Dir(nspawn.New(t, nspawn.Options{}).Root)
	})
	gone(t, dir)
}

// gone checks that nothing is left of the machine in dir.
func gone(t *testing.T, dir string) {
	t.Helper()
	name := filepath.Base(dir)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", dir, err)
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range commands {
		if line, readErr := os.ReadFile(file); readErr == nil && strings.Contains(string(line), name) {
			t.Errorf("a process of %s is left: %q", name, line)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), name) {
		t.Errorf("a mount of %s is left", name)
	}
	if _, err = os.Stat(filepath.Join("/sys/fs/cgroup/systemd", name)); err == nil {
		t.Errorf("the control group of %s is left", name)
	}
	pid, err := strconv.Atoi(strings.Split(name, "-")[2])
	if err != nil {
		t.Fatal(err)
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, "qn"+strconv.FormatInt(int64(pid), 36)+".") {
			t.Errorf("the bridge %s is left", l.Attrs().Name)
		}
	}
}

// What a killed test leaves is removed by the next.
func TestSweep(t *testing.T) {
	slow.Only(t)
	if err := nspawn.Available(); err != nil {
		t.Skip("SKIPPED:", err)
	}
	cmd := exec.CommandContext(within(t), os.Args[0], "-test.run=^TestHold$", "-test.v")
	cmd.Env = append(os.Environ(), envHold+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err = cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var dir string
	lines := bufio.NewScanner(out)
	for dir == "" && lines.Scan() {
		_, dir, _ = strings.Cut(lines.Text(), "holding ")
	}
	if err = cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if dir == "" {
		t.Fatal("the other process made no machine")
	}
	if _, err = os.Stat(dir); err != nil {
		t.Fatalf("nothing is left of a killed test, so that there is nothing to sweep: %v", err)
	}
	if err = nspawn.Sweep(); err != nil {
		t.Fatal(err)
	}
	gone(t, dir)
}

// TestHold is the process that TestSweep kills.
func TestHold(t *testing.T) {
	if os.Getenv(envHold) == "" {
		t.Skip("only for TestSweep")
	}
	m := nspawn.New(t, nspawn.Options{})
	fmt.Println("holding " + filepath.Dir(m.Root))
	_, _ = io.Copy(io.Discard, os.Stdin)
	<-t.Context().Done()
}
