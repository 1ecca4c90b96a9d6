package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/chaos"
	"github.com/quorate/quorate/test/etcdlab"
	"github.com/quorate/quorate/test/netlab"
)

// netCluster is a cluster with a host for each member.
type netCluster struct {
	lab     *netlab.Lab
	names   []string
	clients map[string]*clientv3.Client
	options chaos.Options
}

func newNetCluster(t *testing.T) *netCluster {
	t.Helper()
	if err := netlab.Available(); err != nil {
		t.Skip(err)
	}
	names := []string{"a", "b", "c"} // in the order of the hosts
	var hosts []netlab.HostSpec
	for _, name := range names {
		hosts = append(hosts, netlab.HostSpec{Name: name})
	}
	lab, err := netlab.New(netlab.Options{Hosts: hosts})
	must(t, err)
	t.Cleanup(func() {
		if closeErr := lab.Close(); closeErr != nil {
			t.Error(closeErr)
		}
	})
	n := &netCluster{lab: lab, names: names, clients: map[string]*clientv3.Client{}, options: chaos.Options{Command: holdCommand(), Dir: filepath.Join(t.TempDir(), "ledger")}}
	for i, m := range etcdlab.New(t, etcdlab.Options{Members: len(names), Hosts: lab.Hosts()}).Ready().Members {
		n.clients[names[i]] = m.Dial()
	}
	return n
}

func (n *netCluster) until(t *testing.T, what string, try func(ctx context.Context) error) {
	t.Helper()
	// A try asks several members, each with a timeout of its own.
	etcdlab.Until(t, what, func(context.Context) error { return try(t.Context()) }) //nolint:contextcheck // see above
}

func (n *netCluster) put(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := n.clients[name].Put(ctx, "key", name)
	return err
}

// leader as a member knows it: an index into the members; -1 if there is none.
func (n *netCluster) leader(ctx context.Context, t *testing.T, name string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	st, err := n.clients[name].Status(ctx, n.clients[name].Endpoints()[0])
	must(t, err)
	for i, m := range n.names {
		if n.id(ctx, t, m) == st.Leader {
			return i
		}
	}
	return -1
}

func (n *netCluster) id(ctx context.Context, t *testing.T, name string) uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	st, err := n.clients[name].Status(ctx, n.clients[name].Endpoints()[0])
	must(t, err)
	return st.Header.MemberId
}

// isolate cuts the peer port of a member off from those of the others, on the router.
func (n *netCluster) isolate(name string, lasts time.Duration) chaos.Disturbance {
	var others []netip.Addr
	for _, h := range n.lab.Hosts() {
		if h.Name != name {
			others = append(others, h.Addr)
		}
	}
	return chaos.Disturbance{
		Kind: chaos.Partition, NetNS: n.lab.NetNS(), For: lasts, Ports: []uint16{2380},
		Cuts: chaos.Between([]netip.Addr{n.lab.Host(name).Addr}, others),
	}
}

// tables lists the tables of ours that are on the router.
func (n *netCluster) tables(t *testing.T) []string {
	t.Helper()
	ns, err := os.Open(n.lab.NetNS())
	must(t, err)
	defer func() { _ = ns.Close() }()
	conn, err := nftables.New(nftables.WithNetNSFd(int(ns.Fd())))
	must(t, err)
	all, err := conn.ListTables()
	must(t, err)
	var names []string
	for _, table := range all {
		if table.Name != "quorate-lab" {
			names = append(names, table.Name)
		}
	}
	return names
}

func TestPartitionOfTheLeader(t *testing.T) {
	n := newNetCluster(t)
	old := n.leader(t.Context(), t, "a")
	name := n.names[old]
	r, err := chaos.Start(t.Context(), n.options, n.isolate(name, 6*time.Second))
	must(t, err)
	if tables := n.tables(t); len(tables) != 1 {
		t.Errorf("tables: %v", tables)
	}
	other := n.names[(old+1)%3]
	n.until(t, "led by another", func(ctx context.Context) error {
		if now := n.leader(ctx, t, other); now == old || now < 0 {
			return errors.New("nobody else leads")
		}
		return n.put(ctx, other)
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err = n.clients[name].Put(ctx, "key", "lost"); err == nil {
		t.Error("the old leader took a write alone")
	}
	must(t, r.Wait(t.Context()))
	if late := time.Since(r.Record.Deadline); late > 2*time.Second {
		t.Errorf("it ended %s late", late)
	}
	if tables := n.tables(t); len(tables) != 0 {
		t.Errorf("tables that are left: %v", tables)
	}
	n.until(t, "written through "+name, func(ctx context.Context) error { return n.put(ctx, name) })
}

// reaches says whether a connection comes about: at last where it should, which may take
// its time on a busy machine, soon where it should not.
func reaches(ctx context.Context, from *netlab.Host, to netip.AddrPort, should bool) bool {
	within := 700 * time.Millisecond
	if should {
		within = patience
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	conn, err := from.Dial(ctx, to.String())
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}

func TestPartitionGoesWithItsHolder(t *testing.T) {
	n := newNetCluster(t)
	a, b := n.lab.Host("a"), n.lab.Host("b")
	d := n.isolate("a", 4*time.Second)
	check := func(what string, peers bool) {
		t.Helper()
		if got := reaches(t.Context(), b, netip.AddrPortFrom(a.Addr, 2380), peers); got != peers {
			t.Errorf("%s: the peer port is reached: %v", what, got)
		}
		if !reaches(t.Context(), b, netip.AddrPortFrom(a.Addr, 2379), true) {
			t.Errorf("%s: the client port is cut too", what)
		}
	}
	for name, tc := range map[string]struct {
		signal syscall.Signal
		// held is whether the cut is there after the signal.
		held bool
	}{
		"killed": {syscall.SIGKILL, false},
		// The kernel's timeouts end the cuts, though their holder can't.
		"stopped": {syscall.SIGSTOP, true},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := chaos.Start(t.Context(), n.options, d)
			must(t, err)
			check("in force", false)
			must(t, r.Record.Holder.Signal(tc.signal))
			if tc.held {
				check("holder signalled", false)
				n.until(t, "healed", func(ctx context.Context) error {
					if !reaches(ctx, b, netip.AddrPortFrom(a.Addr, 2380), false) {
						return errors.New("cut")
					}
					return nil
				})
				if late := time.Since(r.Record.Deadline); late > 4*time.Second { // after 5 s it would be killed
					t.Errorf("it healed %s late", late)
				}
			}
			if err = r.Wait(t.Context()); !errors.Is(err, chaos.ErrHolderKilled) {
				t.Errorf("waiting says %v", err)
			}
			check("over", true)
			if tables := n.tables(t); len(tables) != 0 {
				t.Errorf("tables that are left: %v", tables)
			}
		})
	}
}

func TestPartitionOneWayAndOnAHost(t *testing.T) {
	n := newNetCluster(t)
	a, b, c := n.lab.Host("a"), n.lab.Host("b"), n.lab.Host("c")
	// On the host itself, where the other end is another machine.
	r, err := chaos.Start(t.Context(), n.options, chaos.Disturbance{
		Kind: chaos.Partition, NetNS: a.NetNS(), For: time.Minute, Cuts: []chaos.Cut{{From: a.Addr, To: b.Addr, OneWay: true}},
	})
	must(t, err)
	client := func(h *netlab.Host) netip.AddrPort { return netip.AddrPortFrom(h.Addr, 2379) }
	if reaches(t.Context(), a, client(b), false) || !reaches(t.Context(), a, client(c), true) || !reaches(t.Context(), c, client(b), true) {
		t.Error("a alone is to be cut off, from b alone")
	}
	must(t, r.End(t.Context()))
	if !reaches(t.Context(), a, client(b), true) {
		t.Error("it is cut still")
	}
	_, err = chaos.Start(t.Context(), n.options, chaos.Disturbance{
		Kind: chaos.Partition, NetNS: a.NetNS(), For: time.Minute, Cuts: []chaos.Cut{{From: b.Addr, To: c.Addr}},
	})
	if err == nil || !strings.Contains(err.Error(), "passes here") {
		t.Errorf("a partition of others: %v", err)
	}
}

func TestProcessesOnHosts(t *testing.T) {
	n := newNetCluster(t)
	b := n.lab.Host("b")
	d := chaos.Disturbance{Kind: chaos.Kill, Endpoint: fmt.Sprintf("http://%s:2379", b.Addr), NetNS: b.NetNS(), For: 500 * time.Millisecond, Again: true}
	before, err := chaos.ProcessAt(d.Endpoint, d.NetNS)
	must(t, err)
	if _, err = chaos.ProcessAt(d.Endpoint, n.lab.Host("a").NetNS()); !errors.Is(err, chaos.ErrNoProcess) {
		t.Errorf("on another host: %v", err)
	}
	r, err := chaos.Start(t.Context(), n.options, d)
	must(t, err)
	must(t, r.Wait(t.Context()))
	n.until(t, "started again where it was", func(context.Context) error {
		after, err := chaos.ProcessAt(d.Endpoint, d.NetNS)
		if err == nil && after.PID == before.PID {
			return errors.New("it is the same")
		}
		return err
	})
	n.until(t, "written", func(ctx context.Context) error { return n.put(ctx, "b") })
}

func TestProbe(t *testing.T) {
	for _, c := range chaos.Probe() {
		if c.Name == "" || c.For == "" {
			t.Errorf("%+v says too little", c)
		}
		t.Logf("%-22s %s", c.Name, c.Missing)
	}
	for _, k := range chaos.Kinds() {
		if k.Name == "" || k.Summary == "" || k.Undone == "" {
			t.Errorf("%+v says too little", k)
		}
		t.Logf("%-12s %v", k.Name, k.Available())
	}
}

func TestPartitionOfIPv6(t *testing.T) {
	if err := netlab.Available(); err != nil {
		t.Skip(err)
	}
	lab, err := netlab.New(netlab.Options{Hosts: []netlab.HostSpec{{Name: "a"}}})
	must(t, err)
	t.Cleanup(func() {
		if closeErr := lab.Close(); closeErr != nil {
			t.Error(closeErr)
		}
	})
	host := lab.Host("a")
	one, other := netip.MustParseAddr("fd00::a"), netip.MustParseAddr("fd00::b")
	var cut, spared net.Listener
	must(t, host.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		must(t, err)
		for _, a := range []netip.Addr{one, other} {
			must(t, netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(128, 128)}, Flags: unix.IFA_F_NODAD}))
		}
		for _, ln := range []*net.Listener{&cut, &spared} {
			if *ln, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp6", "[fd00::b]:0"); err != nil {
				return err
			}
		}
		return nil
	}))
	reached := func(ln net.Listener, should bool) (ok bool) {
		within := 700 * time.Millisecond
		if should {
			within = patience
		}
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		must(t, host.Do(func() error {
			conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: one.AsSlice()}}).DialContext(ctx, "tcp6", ln.Addr().String())
			if ok = err == nil; ok {
				_ = conn.Close()
			}
			return nil
		}))
		return ok
	}
	port := netip.MustParseAddrPort(cut.Addr().String()).Port()
	for _, d := range []chaos.Disturbance{
		{Cuts: chaos.Between([]netip.Addr{one}, []netip.Addr{other}), Ports: []uint16{port}},
		{Cuts: append(chaos.Between([]netip.Addr{one}, []netip.Addr{other}), chaos.Between([]netip.Addr{host.Addr}, []netip.Addr{host.Addr.Prev()})...)},
	} {
		d.Kind, d.NetNS, d.For = chaos.Partition, host.NetNS(), time.Minute
		r, err := chaos.Start(t.Context(), chaos.Options{Dir: t.TempDir(), Command: holdCommand()}, d)
		must(t, err)
		if reached(cut, false) {
			t.Errorf("it is not cut: %+v", d)
		}
		if narrow := len(d.Ports) > 0; reached(spared, narrow) != narrow {
			t.Errorf("the other port: %+v", d)
		}
		must(t, r.End(t.Context()))
		if !reached(cut, true) {
			t.Errorf("it did not heal: %+v", d)
		}
	}
}
