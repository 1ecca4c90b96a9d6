package preflight_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/hosts/preflight"
	"github.com/quorate/quorate/test/etcdlab"
	"github.com/quorate/quorate/test/netlab"
	"github.com/quorate/quorate/test/powerfs"
)

// child prints the verdict of open-files, where the test binary is run again under
// another limit.
const child = "QUORATE_TEST_OPEN_FILES"

func TestMain(m *testing.M) {
	etcdlab.ActAsEtcd()
	if os.Getenv(child) != "" {
		c := find(preflight.Run(context.Background(), &preflight.Machine{}, preflight.Options{Dir: os.TempDir(), Light: true}), preflight.OpenFiles)
		fmt.Print(c.Verdict, " ", c.Value)
		return
	}
	os.Exit(m.Run())
}

func find(list []v1alpha1.HostCheck, name string) v1alpha1.HostCheck {
	i := slices.IndexFunc(list, func(c v1alpha1.HostCheck) bool { return c.Name == name })
	if i < 0 {
		return v1alpha1.HostCheck{}
	}
	return list[i]
}

// expect finds a check, and fails unless its verdict is the one wanted, with a message
// and a fix where that is not Pass.
func expect(t *testing.T, list []v1alpha1.HostCheck, name string, want v1alpha1.Verdict) v1alpha1.HostCheck {
	t.Helper()
	c := find(list, name)
	t.Logf("%-16s %-8s %s [%s] %s: %s", c.Name, c.Verdict, c.Value, c.Threshold, c.Message, c.Fix)
	if c.Verdict != want {
		t.Errorf("%s: %s, want %s", name, c.Verdict, want)
	}
	if pass := c.Verdict == v1alpha1.VerdictPass; pass != (c.Message == "" && c.Fix == "") {
		t.Errorf("%s is %s with message %q and fix %q", name, c.Verdict, c.Message, c.Fix)
	}
	return c
}

func run(t *testing.T, o preflight.Options) []v1alpha1.HostCheck {
	t.Helper()
	return preflight.Run(t.Context(), &preflight.Machine{}, o)
}

// TestThisMachine: nothing fails on the machine that the tests run on, it takes the
// time it promises, and nothing is left.
func TestThisMachine(t *testing.T) {
	dir := t.TempDir()
	if kind := fsKind(t, dir); kind == unix.TMPFS_MAGIC {
		t.Skip("the tests' directories lie in memory here, which a check rightly calls unfit")
	}
	for name, light := range map[string]bool{"light": true, "full": false} {
		began := time.Now()
		list := run(t, preflight.Options{Dir: filepath.Join(dir, "members", "to", "be"), Address: "127.0.0.1", Light: light})
		took := time.Since(began)
		t.Logf("%s: %s", name, took)
		for _, c := range list {
			t.Logf("%-16s %-8s %s [%s] %s", c.Name, c.Verdict, c.Value, c.Threshold, c.Message)
		}
		if failing := preflight.Failing(list); len(failing) > 0 {
			t.Errorf("%s: it fails: %s", name, preflight.Why(failing))
		}
		if took > 8*time.Second {
			t.Errorf("%s: it took %s", name, took)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
}

func fsKind(t *testing.T, dir string) int64 {
	t.Helper()
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	return s.Type
}

// mount mounts a tmpfs with those options for the test's time.
func mount(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("no tmpfs can be mounted here (it needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

func TestTmpfs(t *testing.T) {
	dir := mount(t, "size=16g")
	list := run(t, preflight.Options{Dir: dir, Light: true})
	if c := expect(t, list, preflight.DiskKind, v1alpha1.VerdictFail); !strings.Contains(c.Message, "memory") {
		t.Errorf("it says %q", c.Message)
	}
	expect(t, list, preflight.DiskSpace, v1alpha1.VerdictPass)
	if cond := preflight.Condition(list, false); cond.Status != v1alpha1.False || cond.Reason != "DiskKind" {
		t.Errorf("the condition is %+v", cond)
	}
	list = run(t, preflight.Options{Dir: dir, Light: true, Ephemeral: true})
	expect(t, list, preflight.DiskKind, v1alpha1.VerdictWarn)
	if v := preflight.Verdict(list); v == v1alpha1.VerdictFail {
		t.Errorf("what is meant to be lost is unfit in memory: %s", preflight.Why(preflight.Failing(list)))
	}
}

// TestFullDisk: the disk is full, to the last page.
func TestFullDisk(t *testing.T) {
	dir := mount(t, "size=1m")
	if err := os.WriteFile(filepath.Join(dir, "full"), make([]byte, 1<<20), 0o600); err != nil && !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	list := run(t, preflight.Options{Dir: dir})
	expect(t, list, preflight.DiskSpace, v1alpha1.VerdictFail)
	if c := expect(t, list, preflight.FsyncLatency, v1alpha1.VerdictFail); !strings.Contains(c.Value, "full") {
		t.Errorf("it says %q", c.Value)
	}
	expect(t, list, preflight.DiskThroughput, v1alpha1.VerdictUnknown)
	if left, _ := filepath.Glob(filepath.Join(dir, ".quorate*")); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
}

// TestInodes: there is space, and no inode.
func TestInodes(t *testing.T) {
	dir := mount(t, "size=16g,nr_inodes=40")
	expect(t, run(t, preflight.Options{Dir: dir, Light: true}), preflight.DiskInodes, v1alpha1.VerdictFail)
	for i := 0; ; i++ {
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o600); errors.Is(err, syscall.ENOSPC) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	list := run(t, preflight.Options{Dir: dir, Light: true})
	if c := expect(t, list, preflight.DiskInodes, v1alpha1.VerdictFail); !strings.HasPrefix(c.Value, "0 free") {
		t.Errorf("it says %q", c.Value)
	}
	expect(t, list, preflight.DiskSpace, v1alpha1.VerdictPass)
	expect(t, list, preflight.FsyncLatency, v1alpha1.VerdictFail)
}

// slowDisk is a disk whose syncs take what wait says.
func slowDisk(t *testing.T, wait func() time.Duration) string {
	t.Helper()
	base := t.TempDir()
	dir := filepath.Join(base, "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := powerfs.Mount(dir, filepath.Join(base, "files"), powerfs.Options{BeforeSync: func(string) error {
		time.Sleep(wait())
		return nil
	}})
	if err != nil {
		t.Skipf("no such disk can be made here: %v", err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestSlowDisk: syncs that take 200 ms fail, those of 25 ms are warned of, and the
// checks end in time.
func TestSlowDisk(t *testing.T) {
	var wait atomic.Int64
	dir := slowDisk(t, func() time.Duration { return time.Duration(wait.Load()) })
	for _, tc := range []struct {
		wait time.Duration
		want v1alpha1.Verdict
	}{{25 * time.Millisecond, v1alpha1.VerdictWarn}, {200 * time.Millisecond, v1alpha1.VerdictFail}} {
		wait.Store(int64(tc.wait))
		began := time.Now()
		list := run(t, preflight.Options{Dir: dir})
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("it took %s", took)
		}
		expect(t, list, preflight.FsyncLatency, tc.want)
		expect(t, list, preflight.DiskKind, v1alpha1.VerdictWarn)
	}
}

// TestOneBadMoment: a disk that hung once, and is fast again, is not unfit.
func TestOneBadMoment(t *testing.T) {
	var syncs atomic.Int32
	dir := slowDisk(t, func() time.Duration {
		if syncs.Add(1) < 6 {
			return 300 * time.Millisecond
		}
		return 0
	})
	if c := find(run(t, preflight.Options{Dir: dir}), preflight.FsyncLatency); c.Verdict == v1alpha1.VerdictFail {
		t.Errorf("it fails with %s", c.Value)
	}
}

// TestHangingDisk: a disk that never answers fails within the time of all checks, and
// is not asked again while it hangs.
func TestHangingDisk(t *testing.T) {
	release := make(chan struct{})
	var syncs atomic.Int32
	dir := slowDisk(t, func() time.Duration {
		syncs.Add(1)
		<-release
		return 0
	})
	m := &preflight.Machine{}
	for range 6 {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		began := time.Now()
		list := preflight.Run(ctx, m, preflight.Options{Dir: dir})
		cancel()
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("it took %s", took)
		}
		expect(t, list, preflight.FsyncLatency, v1alpha1.VerdictFail)
	}
	if n := syncs.Load(); n > 4 {
		t.Errorf("%d syncs hang", n)
	}
	close(release)
}

// TestOpenFiles runs under other limits.
func TestOpenFiles(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for limit, want := range map[int]v1alpha1.Verdict{512: v1alpha1.VerdictFail, 4096: v1alpha1.VerdictWarn} {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", fmt.Sprintf("ulimit -n %d && exec %s", limit, self))
		cmd.Env = append(os.Environ(), child+"=1")
		out, err := cmd.CombinedOutput()
		if text := fmt.Sprintf("%s %d", want, limit); err != nil || string(out) != text {
			t.Errorf("it says %q, %v; want %q", out, err, text)
		}
	}
}

// TestPorts: a port that something listens on is told with who it is.
func TestPorts(t *testing.T) {
	var listen net.ListenConfig
	ln, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at, err := netip.ParseAddrPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	port := int(at.Port())
	o := preflight.Options{Dir: t.TempDir(), Address: "127.0.0.1", FirstPort: port, Light: true}
	c := expect(t, run(t, o), preflight.Ports, v1alpha1.VerdictWarn)
	if !strings.Contains(c.Value, fmt.Sprintf("%d (", port)) || !strings.Contains(c.Value, fmt.Sprintf("pid %d", os.Getpid())) {
		t.Errorf("it says %q", c.Value)
	}
	o.Address = "127.0.0.2"
	expect(t, run(t, o), preflight.Ports, v1alpha1.VerdictPass)
	if err = ln.Close(); err != nil {
		t.Fatal(err)
	}
	six, err := listen.Listen(t.Context(), "tcp", net.JoinHostPort("::", strconv.Itoa(port)))
	if err != nil {
		t.Skipf("no IPv6: %v", err)
	}
	expect(t, run(t, o), preflight.Ports, v1alpha1.VerdictWarn)
	if err := six.Close(); err != nil {
		t.Fatal(err)
	}
	expect(t, run(t, o), preflight.Ports, v1alpha1.VerdictPass)
}

// TestEtcds: a real etcd is found with its directory; it is Quorate's where that lies
// below the members' directory, and another's elsewhere.
func TestEtcds(t *testing.T) {
	c := etcdlab.New(t, etcdlab.Options{Members: 1}).Ready()
	all, err := (&preflight.Machine{}).Etcds()
	if err != nil {
		t.Fatal(err)
	}
	pid := c.Members[0].PID()
	i := slices.IndexFunc(all, func(e preflight.Etcd) bool { return e.PID == pid })
	if i < 0 || all[i].DataDir == "" || all[i].Device == 0 {
		t.Fatalf("etcd with pid %d is not found: %+v", pid, all)
	}
	client, err := netip.ParseAddrPort(strings.TrimPrefix(c.Members[0].Client, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	foreign := preflight.Options{Dir: t.TempDir(), Address: client.Addr().String(), FirstPort: int(client.Port()), Light: true}
	list := run(t, foreign)
	expect(t, list, preflight.OtherEtcd, v1alpha1.VerdictWarn)
	expect(t, list, preflight.DiskShared, v1alpha1.VerdictWarn)
	if p := expect(t, list, preflight.Ports, v1alpha1.VerdictWarn); !strings.Contains(p.Value, fmt.Sprintf("etcd, pid %d", pid)) {
		t.Errorf("it says %q", p.Value)
	}
	own := foreign
	own.Dir = filepath.Dir(all[i].DataDir)
	if p := find(run(t, own), preflight.Ports); p.Verdict != v1alpha1.VerdictPass || p.Value != "a member's" {
		t.Errorf("its own: %+v", p)
	}
}

// TestPeers: round trips over real packets, to ports that are closed.
func TestPeers(t *testing.T) {
	if err := netlab.Available(); err != nil {
		t.Skip(err)
	}
	lab, err := netlab.New(netlab.Options{Hosts: []netlab.HostSpec{{Name: "a"}, {Name: "b"}, {Name: "c"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	}()
	b, c := lab.Host("b").Addr.String(), lab.Host("c").Addr.String()
	on := &onHost{host: lab.Host("a")}
	peers := func(want v1alpha1.Verdict, said ...string) {
		t.Helper()
		got := expect(t, preflight.Run(t.Context(), on, preflight.Options{Dir: t.TempDir(), Light: true, Peers: []string{b, c}}), preflight.PeerRoundTrips, want)
		for _, s := range said {
			if !strings.Contains(got.Message+got.Value, s) {
				t.Errorf("%q is not said: %+v", s, got)
			}
		}
	}
	peers(v1alpha1.VerdictPass, b, c)
	delay := func(d time.Duration) {
		t.Helper()
		if err := lab.Delay([]string{"c"}, d); err != nil {
			t.Fatal(err)
		}
	}
	delay(25 * time.Millisecond)
	peers(v1alpha1.VerdictPass, c)
	delay(70 * time.Millisecond)
	peers(v1alpha1.VerdictWarn, c)
	delay(200 * time.Millisecond)
	peers(v1alpha1.VerdictFail, c)
	delay(0)
	if err := lab.Partition([]string{"a"}, []string{"c"}); err != nil {
		t.Fatal(err)
	}
	peers(v1alpha1.VerdictUnknown, c, "nothing comes back")
}

// onHost is this machine, on a host of a netlab.
type onHost struct {
	preflight.Machine

	host *netlab.Host
}

func (o *onHost) Connect(ctx context.Context, address string) (took time.Duration, err error) {
	err = o.host.Do(func() (err error) {
		took, err = o.Machine.Connect(ctx, address)
		return err
	})
	return took, err
}
