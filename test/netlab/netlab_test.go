package netlab_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/test/etcdlab"
	"github.com/quorate/quorate/test/netlab"
)

// envHold makes this binary hold a lab until it is killed.
const envHold = "QUORATE_TEST_HOLD_LAB"

func TestMain(m *testing.M) {
	etcdlab.ActAsEtcd()
	if os.Getenv(envHold) != "" {
		os.Exit(hold())
	}
	os.Exit(m.Run())
}

// hold makes a lab with a process in it, says so, and waits for its death.
func hold() int {
	lab, err := netlab.New(netlab.Options{Hosts: []netlab.HostSpec{{Name: "a"}, {Name: "b"}}})
	if err == nil {
		err = lab.Delay([]string{"a"}, time.Second)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	cmd := exec.CommandContext(context.Background(), "sleep", "600")
	if err = lab.Host("a").Start(cmd); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(lab.NetNS(), lab.Host("a").NetNS(), cmd.Process.Pid)
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

const patience = 60 * time.Second

func newLab(t *testing.T, hosts ...netlab.HostSpec) *netlab.Lab {
	t.Helper()
	if err := netlab.Available(); err != nil {
		t.Skip(err)
	}
	lab, err := netlab.New(netlab.Options{Hosts: hosts, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	return lab
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// echo answers on a host what it is sent, and returns its address.
func echo(t *testing.T, h *netlab.Host) string {
	t.Helper()
	ln, err := h.Listen(t.Context(), h.Addr.String()+":0")
	must(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			}()
		}
	}()
	return ln.Addr().String()
}

// reaches says whether a connection from a host comes about: at last where it should,
// which may take its time on a busy machine, soon where it should not.
func reaches(t *testing.T, from *netlab.Host, address string, should bool) bool {
	t.Helper()
	within := 700 * time.Millisecond
	if should {
		within = patience
	}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	conn, err := from.DialContext(ctx, "tcp", address)
	if err != nil {
		if late := net.Error(nil); !errors.As(err, &late) || !late.Timeout() {
			t.Fatalf("%s dials %s: %v", from.Name, address, err)
		}
		return false
	}
	_ = conn.Close()
	return true
}

func TestHostsReachEachOtherUnlessCutOff(t *testing.T) {
	lab := newLab(t, netlab.HostSpec{Name: "a", Zone: "east"}, netlab.HostSpec{Name: "b", Zone: "west"}, netlab.HostSpec{Name: "c", Zone: "west"})
	addresses := map[string]string{}
	for _, h := range lab.Hosts() {
		addresses[h.Name] = echo(t, h)
	}
	// want lists the pairs that are cut.
	check := func(what string, want ...string) {
		t.Helper()
		for _, from := range lab.Hosts() {
			for _, to := range lab.Hosts() {
				pair := from.Name + to.Name
				cut := slices.Contains(want, pair)
				if got := reaches(t, from, addresses[to.Name], !cut); got == cut {
					t.Errorf("%s: %s to %s: reached: %v", what, from.Name, to.Name, got)
				}
			}
		}
	}
	check("at first")
	must(t, lab.PartitionZones("east", "west"))
	check("zones", "ab", "ac", "ba", "ca")
	must(t, lab.Heal())
	check("healed")
	must(t, lab.Isolate("c"))
	check("isolated", "ac", "bc", "ca", "cb")
	must(t, lab.Heal())
	must(t, lab.Drop([]string{"a"}, []string{"b"}))
	// A connection needs both ways.
	check("one way", "ab", "ba")
	must(t, lab.Heal())
	for what, err := range map[string]error{
		"no host":   lab.Isolate("x"),
		"no zone":   lab.PartitionZones("east", "north"),
		"too long":  lab.Delay([]string{"a"}, time.Hour),
		"no others": lab.DelayZones("east", "north", time.Second),
	} {
		if err == nil {
			t.Errorf("%s: it was taken", what)
		}
	}
	// This machine's own network knows nothing of it.
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addresses["a"]); err == nil {
		_ = conn.Close()
		t.Errorf("%s is reached from outside the lab", addresses["a"])
	}
}

func TestBadOptionsAreRefused(t *testing.T) {
	if err := netlab.Available(); err != nil {
		t.Skip(err)
	}
	for _, hosts := range [][]netlab.HostSpec{nil, {{Name: "A"}}, {{Name: "a"}, {Name: "a"}}, {{Name: "../x"}}} {
		if lab, err := netlab.New(netlab.Options{Hosts: hosts}); err == nil {
			_ = lab.Close()
			t.Errorf("%v was taken", hosts)
		}
	}
}

// roundTrips measures n echoes, and returns the median.
func roundTrips(t *testing.T, from *netlab.Host, address string, n int) time.Duration {
	t.Helper()
	conn, err := from.DialContext(t.Context(), "tcp", address)
	must(t, err)
	defer func() { _ = conn.Close() }()
	took := make([]time.Duration, 0, n)
	buf := make([]byte, 1)
	for range n {
		began := time.Now()
		_, err = conn.Write([]byte{1})
		must(t, err)
		_, err = io.ReadFull(conn, buf)
		must(t, err)
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[n/2]
}

func TestDelay(t *testing.T) {
	lab := newLab(t, netlab.HostSpec{Name: "a"}, netlab.HostSpec{Name: "b"}, netlab.HostSpec{Name: "c"})
	toB, toC := echo(t, lab.Host("b")), echo(t, lab.Host("c"))
	a := lab.Host("a")
	check := func(what, address string, least, most time.Duration) {
		t.Helper()
		got := roundTrips(t, a, address, 9)
		t.Logf("%s: %s", what, got)
		if got < least || got > most {
			t.Errorf("%s: a round trip took %s: want %s to %s", what, got, least, most)
		}
	}
	const tolerance = 25 * time.Millisecond // of a machine with other work
	check("undelayed", toB, 0, tolerance)
	must(t, lab.Delay([]string{"b"}, 50*time.Millisecond))
	check("b by 50 ms", toB, 50*time.Millisecond, 50*time.Millisecond+tolerance)
	check("c", toC, 0, tolerance)
	must(t, lab.DelayBetween([]string{"a"}, []string{"b"}, 20*time.Millisecond))
	check("20 ms each way", toB, 40*time.Millisecond, 40*time.Millisecond+tolerance)
	must(t, lab.Delay([]string{"a", "b", "c"}, 0))
	check("no more", toB, 0, tolerance)
	// Nothing is lost or reordered under load.
	must(t, lab.DelayBetween([]string{"a"}, []string{"b"}, 20*time.Millisecond))
	conn, err := a.DialContext(t.Context(), "tcp", toB)
	must(t, err)
	defer func() { _ = conn.Close() }()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() { _, _ = conn.Write(sent) }()
	got := make([]byte, len(sent))
	must(t, conn.SetReadDeadline(time.Now().Add(patience)))
	if _, err = io.ReadFull(conn, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("1 MiB came back altered or not at all: %v", err)
	}
}

func TestTwoLabsAtOnce(t *testing.T) {
	one, other := newLab(t, netlab.HostSpec{Name: "a"}, netlab.HostSpec{Name: "b"}), newLab(t, netlab.HostSpec{Name: "a"}, netlab.HostSpec{Name: "b"})
	if one.Host("a").Addr != other.Host("a").Addr {
		t.Errorf("addresses differ: %s and %s", one.Host("a").Addr, other.Host("a").Addr)
	}
	must(t, one.Isolate("a"))
	if reaches(t, one.Host("b"), echo(t, one.Host("a")), false) {
		t.Error("a is not isolated in its own lab")
	}
	if !reaches(t, other.Host("b"), echo(t, other.Host("a")), true) {
		t.Error("a is isolated in the other lab")
	}
	must(t, one.Close())
	if !reaches(t, other.Host("b"), echo(t, other.Host("a")), true) {
		t.Error("a lab went with another one")
	}
}

func TestSweepRemovesTheLabOfADeadProcess(t *testing.T) {
	if err := netlab.Available(); err != nil {
		t.Skip(err)
	}
	self, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), envHold+"=1")
	stdin, err := cmd.StdinPipe()
	must(t, err)
	defer func() { _ = stdin.Close() }()
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var router, host string
	var pid int
	line, err := bufio.NewReader(stdout).ReadString('\n')
	must(t, err)
	if _, err = fmt.Sscan(line, &router, &host, &pid); err != nil {
		t.Fatalf("it says %q: %v", line, err)
	}
	must(t, netlab.Sweep())
	if _, err = os.Stat(router); err != nil {
		t.Errorf("the lab of a living process was swept: %v", err)
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	if err = syscall.Kill(pid, 0); err != nil {
		t.Errorf("the process in the lab ended by itself: %v", err)
	}
	must(t, netlab.Sweep())
	for _, path := range []string{router, host} {
		if _, err = os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	if raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.HasPrefix(string(raw), "sleep") {
		t.Errorf("process %d is left", pid)
	}
}

func TestEtcdInAPartition(t *testing.T) {
	lab := newLab(t, netlab.HostSpec{Name: "a", Zone: "east"}, netlab.HostSpec{Name: "b", Zone: "west"}, netlab.HostSpec{Name: "c", Zone: "west"})
	members := etcdlab.New(t, etcdlab.Options{Members: 3, Hosts: lab.Hosts()}).Members
	clients := map[*etcdlab.Member]*clientv3.Client{}
	put := func(ctx context.Context, m *etcdlab.Member) error {
		_, err := clients[m].Put(ctx, "key", m.Host.Name)
		return err
	}
	written := func(through ...*etcdlab.Member) {
		t.Helper()
		for _, m := range through {
			etcdlab.Until(t, "written through "+m.Host.Name, func(ctx context.Context) error { return put(ctx, m) })
		}
	}
	for _, m := range members {
		clients[m] = m.Dial()
	}
	written(members...)
	must(t, lab.PartitionZones("east", "west"))
	written(members[1:]...)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := put(ctx, members[0]); err == nil {
		t.Error("the minority took a write")
	}
	must(t, lab.Heal())
	written(members[0])
}
