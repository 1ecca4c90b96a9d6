package host_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/bench"
	"github.com/quorate/quorate/driver/drivertest"
	"github.com/quorate/quorate/driver/host"
	"github.com/quorate/quorate/driver/host/cgroup"
)

const (
	neighbourRounds   = 8
	controlRounds     = 2
	neighbourPhase    = 5 * time.Second
	neighbourRate     = 200
	neighbourLimit    = 1.5
	neighbourElection = "1s"
)

// TestNeighbours measures what a BestEffort cluster that saturates CPU and disk does to a
// Guaranteed one on the same host: nothing that a client would call one. The control, in
// which nobody is kept apart, shows that the harm is real.
func TestNeighbours(t *testing.T) {
	if os.Getenv("QUORATE_NEIGHBOURS") == "" {
		t.Skip("SKIPPED: it needs a quiet machine for two minutes: set QUORATE_NEIGHBOURS=1")
	}
	rounds := neighbourRounds
	if n, err := strconv.Atoi(os.Getenv("QUORATE_NEIGHBOURS")); err == nil && n > 1 {
		rounds = n
	}
	harm := neighbours(t, nil, controlRounds)
	t.Logf("control, nobody kept apart: %s", harm)
	groups := cgroup.Open(t.Context(), cgroup.Options{Name: fmt.Sprintf("neighbours%d", os.Getpid()), Dir: t.TempDir()})
	t.Cleanup(groups.Close)
	if !strings.Contains(groups.String(), "cpu") {
		t.Skipf("SKIPPED: no control groups for CPU on this machine: %s (%s)", groups, groups.Why())
	}
	apart := neighbours(t, groups, rounds)
	t.Logf("kept apart by %s: %s", groups, apart)
	if low, high := slices.Min(apart.solo), slices.Max(apart.solo); high > 4*low {
		t.Errorf("no verdict: the p99 alone went from %.1f to %.1f ms, so that somebody else keeps the machine busy: end that, and measure again", low, high)
	}
	if apart.elections > 0 {
		t.Errorf("%d elections among the Guaranteed members", apart.elections)
	}
	if apart.p99 > neighbourLimit {
		t.Errorf("p99 beside a saturating BestEffort cluster is %.2f× that alone, more than %.1f×", apart.p99, neighbourLimit)
	}
	if apart.failed > 0 {
		t.Errorf("%d requests failed", apart.failed)
	}
	if harm.p99 < 2*neighbourLimit && harm.elections == 0 {
		t.Errorf("the control shows no harm (p99 %.2f×): the load saturates nothing, and the result above means nothing", harm.p99)
	}
	fmt.Printf("neighbours: p99 %.2f× solo (p50 %.2f×), %d elections, by %s; without classes p99 %.1f×, %d elections\n",
		apart.p99, apart.p50, apart.elections, groups, harm.p99, harm.elections)
}

// effect of a neighbour: medians of the ratios of rounds.
type effect struct {
	p50, p99  float64
	solo      []float64 // p99 in ms
	beside    []float64
	elections int
	failed    int64
	burned    int64
}

func (e effect) String() string {
	return fmt.Sprintf("p50 %.2f×, p99 %.2f×, %d elections, %d failed, the neighbour did %d writes; p99 alone %.1f ms, beside %.1f ms",
		e.p50, e.p99, e.elections, e.failed, e.burned, e.solo, e.beside)
}

// neighbours runs rounds of a load on a Guaranteed cluster, alone and beside a saturating
// one.
func neighbours(t *testing.T, groups *cgroup.Groups, rounds int) effect {
	t.Helper()
	dir := t.TempDir()
	d, err := host.New(host.Options{
		Dir: dir, Address: "127.0.0.1", FirstPort: 22379, Groups: groups,
		Executable: "/proc/self/exe", Releases: releases{dir: t.TempDir()}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	good := runCluster(t, d, "good", 3, v1alpha1.ClassGuaranteed)
	bad := runCluster(t, d, "bad", 1, v1alpha1.ClassBestEffort)
	var e effect
	var p50s, p99s []float64
	before := term(t, good)
	measure(t, good, 3*time.Second, &e) // warm
	for range rounds {
		alone := measure(t, good, neighbourPhase, &e)
		stop := saturate(t, groups, bad[0])
		beside := measure(t, good, neighbourPhase, &e)
		e.burned += stop()
		p50s, p99s = append(p50s, beside.P50/alone.P50), append(p99s, beside.P99/alone.P99)
		e.solo, e.beside = append(e.solo, alone.P99), append(e.beside, beside.P99)
	}
	e.elections = term(t, good) - before
	e.p50, e.p99 = middle(p50s), middle(p99s)
	return e
}

func middle(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

// measure is an open load of puts: what is late counts from when it was due.
func measure(t *testing.T, members []*v1alpha1.EtcdMember, length time.Duration, e *effect) bench.Latency {
	t.Helper()
	s := bench.Default()
	s.Loop, s.Rate, s.Arrivals = bench.Open, neighbourRate, bench.Poisson
	s.Duration, s.WarmUp, s.Keys, s.Clients, s.NoServers = bench.Duration(length), bench.Duration(time.Second), 1000, 8, true
	s.Timeout = bench.Duration(10 * time.Second)
	for _, m := range members {
		s.Endpoints = append(s.Endpoints, m.Status.ClientURL)
	}
	r, err := bench.Run(t.Context(), s, bench.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e.failed += r.Total.Errors.Total()
	return r.Total.Latency
}

// term is the highest one of the members: each election makes it higher.
func term(t *testing.T, members []*v1alpha1.EtcdMember) int {
	t.Helper()
	var highest uint64
	for _, m := range members {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{m.Status.ClientURL}, Logger: zap.NewNop(), DialTimeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		s, err := c.Status(ctx, m.Status.ClientURL)
		cancel()
		_ = c.Close()
		if err != nil {
			t.Fatal(err)
		}
		highest = max(highest, s.RaftTerm)
	}
	return int(highest)
}

// saturate has a process in the member's groups burn all CPUs and write as fast as the
// member takes it, and returns how to end it: with the writes that were done.
func saturate(t *testing.T, groups *cgroup.Groups, m *v1alpha1.EtcdMember) (stop func() int64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "saturate", m.Status.ClientURL)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := groups.Place(cgroup.Member{Name: memberHome(m), Class: m.Spec.Class, Resources: m.Spec.Resources}, cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatal("the neighbour did not begin")
	}
	return func() int64 {
		_ = in.Close()
		lines.Scan()
		n, _ := strconv.ParseInt(lines.Text(), 10, 64)
		_ = cmd.Wait()
		return n
	}
}

func memberHome(m *v1alpha1.EtcdMember) string {
	return filepath.Base(filepath.Dir(m.Status.DataDir))
}

// saturateMain is the process that saturate starts: it ends when its input does.
func saturateMain(url string) {
	ctx, cancel := context.WithCancel(context.Background())
	for range 2 * runtime.NumCPU() {
		go func() {
			for n := uint64(1); ctx.Err() == nil; n++ {
				for range 1 << 20 {
					n = n*6364136223846793005 + 1442695040888963407
				}
			}
		}()
	}
	s := bench.Default()
	s.Endpoints, s.Clients, s.Keys, s.NoServers = []string{url}, 64, 500, true
	s.ValueSize = bench.Sizes{Kind: bench.Fixed, Min: 32 << 10}
	s.Duration, s.Timeout, s.Keep = bench.Duration(time.Hour), bench.Duration(20*time.Second), true
	done := make(chan int64)
	go func() {
		r, err := bench.Run(ctx, s, bench.Options{})
		if err != nil {
			done <- 0 // it was given so little that nothing came of it
			return
		}
		done <- r.Total.Count
	}()
	fmt.Println("begun")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	cancel()
	fmt.Println(<-done)
}

// runCluster forms a cluster through the driver and waits until it serves.
func runCluster(t *testing.T, d *host.Driver, name string, n int, class v1alpha1.ServiceClass) []*v1alpha1.EtcdMember {
	t.Helper()
	members := make([]*v1alpha1.EtcdMember, n)
	var peers []v1alpha1.Peer
	for i := range members {
		m := &v1alpha1.EtcdMember{}
		m.Namespace, m.Name = "test", fmt.Sprintf("%s-%d", name, i)
		m.UID = v1alpha1.UID(fmt.Sprintf("%08x", time.Now().UnixNano()&0xffffffff))
		m.Spec.Release = v1alpha1.ReleaseRef{Version: "3.7.3", Digest: "sha256:" + strings.Repeat("a", 64)}
		m.Spec.TLS.Mode = v1alpha1.TLSDisabled
		m.Spec.Etcd = v1alpha1.EtcdConfig{HeartbeatInterval: "100ms", ElectionTimeout: neighbourElection, QuotaBackend: resource.MustParse("8Gi")}
		m.Spec.Class = class
		m.Spec.Resources = v1alpha1.Resources{CPU: resource.MustParse("500m"), Memory: resource.MustParse("512Mi"), Disk: resource.MustParse("1Gi")}
		drivertest.Ensure(t, d, m)
		peers = append(peers, v1alpha1.Peer{Name: m.Name, URL: m.Status.PeerURL})
		members[i] = m
	}
	for _, m := range members {
		m.Spec.Ports = m.Status.Ports
		m.Spec.Bootstrap = &v1alpha1.Bootstrap{State: v1alpha1.BootstrapNew, Token: name, InitialCluster: peers}
		m.Spec.Run = v1alpha1.RunRunning
		t.Cleanup(func() { stopMember(t, d, m) })
		drivertest.Ensure(t, d, m)
	}
	for _, m := range members {
		drivertest.Until(t, d, m, "running", func(s v1alpha1.EtcdMemberStatus) bool { return s.Phase == v1alpha1.MemberRunning })
		drivertest.Ensure(t, d, m) // gives its etcd, too, its share
	}
	term(t, members)
	return members
}

func stopMember(t *testing.T, d *host.Driver, m *v1alpha1.EtcdMember) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), drivertest.Wait)
	defer cancel()
	if _, err := d.Stop(ctx, m); err != nil {
		t.Errorf("stop %s: %v", m.Name, err)
	}
}
