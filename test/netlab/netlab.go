// Package netlab makes a network of hosts on one machine, for tests: each host is a
// network namespace with an address of its own, and all are joined by a router, which
// is one more namespace. The machine's own network is not touched.
//
// Every packet between two hosts passes the router, so partitions and delays are rules
// in that one place: Partition, PartitionZones, Isolate and Heal drop by nftables,
// Delay holds packets back in a queue that this process serves.
//
//	lab, err := netlab.New(netlab.Options{Hosts: []netlab.HostSpec{
//		{Name: "a", Zone: "east"}, {Name: "b", Zone: "west"}, {Name: "client"},
//	}})
//	defer lab.Close()
//	cmd := exec.CommandContext(ctx, "etcd", "--listen-client-urls=http://"+lab.Host("a").Addr.String()+":2379", …)
//	err = lab.Host("a").Start(cmd)
//	err = lab.Partition([]string{"a"}, []string{"b"})
//
// Namespaces carry the process ID and start time of who made them in their names. Close
// removes them with every process inside. After a kill -9 of their maker they and their
// processes stay until the next New or Sweep on this machine.
//
// It needs root. Labs may live at the same time, in one process or several, with the
// same addresses.
package netlab

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/process"
)

// Options say which hosts a lab has.
type Options struct {
	// Hosts have names of their own: lower-case letters, digits and dashes.
	Hosts []HostSpec
	// Log takes what goes wrong later; nil: nowhere.
	Log *slog.Logger
}

// HostSpec asks for one host.
type HostSpec struct {
	Name string
	// Zone is free text; hosts without one are in the zone "".
	Zone string
}

// Host is one machine of a lab.
type Host struct {
	Name, Zone string
	// Addr is where it is reached by the others: 10.64.<zone>.<odd number>.
	Addr netip.Addr

	lab *Lab
	ns  *namespace
}

// Lab is a network of hosts. Its methods may be called at the same time.
type Lab struct {
	log    *slog.Logger
	router *namespace
	hosts  []*Host

	mu sync.Mutex // one change of rules or queues at a time
	// nft speaks to the router's nftables.
	nft    *nftables.Conn
	cut    *nftables.Set
	table  *nftables.Table
	chain  *nftables.Chain
	delays []*delay
	closed bool
}

// Limits of the addresses 10.64.zone.host/31.
const (
	maxZones = 256
	maxHosts = 128
)

var goodName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// labs numbers the labs of this process.
var labs atomic.Int64

// Available says why no lab can be made here; nil if one can.
func Available() error {
	if os.Geteuid() != 0 {
		return errors.New("a lab of network namespaces needs root: run it with sudo")
	}
	if _, err := os.Stat("/proc/self/ns/net"); err != nil {
		return fmt.Errorf("this kernel has no network namespaces: %w", err)
	}
	return nil
}

// New makes a lab, after it has removed those whose makers are dead.
func New(o Options) (lab *Lab, err error) {
	if err = Available(); err != nil {
		return nil, err
	}
	if err = check(o.Hosts); err != nil {
		return nil, err
	}
	if err = Sweep(); err != nil {
		return nil, fmt.Errorf("remove the labs of dead processes: %w", err)
	}
	self, err := process.Identify(os.Getpid())
	if err != nil {
		return nil, err
	}
	lab = &Lab{log: o.Log}
	if lab.log == nil {
		lab.log = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lab.Close())
			lab = nil
		}
	}()
	base := fmt.Sprintf("%s%d-%d-%d-", prefix, self.PID, self.StartTicks, labs.Add(1))
	if lab.router, err = newNamespace(base + "router"); err != nil {
		return lab, err
	}
	if err = lab.router.do(forward); err != nil {
		return lab, err
	}
	var zones []string
	for _, spec := range o.Hosts {
		if !slices.Contains(zones, spec.Zone) {
			zones = append(zones, spec.Zone)
		}
	}
	count := make([]int, len(zones))
	for _, spec := range o.Hosts {
		zone := slices.Index(zones, spec.Zone)
		host := &Host{Name: spec.Name, Zone: spec.Zone, lab: lab}
		host.Addr = netip.AddrFrom4([4]byte{10, 64, byte(zone), byte(2*count[zone] + 1)})
		count[zone]++
		if host.ns, err = newNamespace(base + "host-" + spec.Name); err != nil {
			return lab, err
		}
		lab.hosts = append(lab.hosts, host)
		if err = lab.join(host, len(lab.hosts)); err != nil {
			return lab, fmt.Errorf("join host %s to the router: %w", spec.Name, err)
		}
	}
	return lab, lab.rules()
}

func check(hosts []HostSpec) error {
	zones := map[string]int{}
	seen := map[string]bool{}
	for _, h := range hosts {
		switch {
		case !goodName.MatchString(h.Name):
			return fmt.Errorf("host %q: a name is up to 32 lower-case letters, digits and dashes", h.Name)
		case seen[h.Name]:
			return fmt.Errorf("host %q is there twice: give each a name of its own", h.Name)
		}
		seen[h.Name] = true
		if zones[h.Zone]++; zones[h.Zone] > maxHosts || len(zones) > maxZones {
			return fmt.Errorf("host %q is one too many: a lab has %d zones of %d hosts at most", h.Name, maxZones, maxHosts)
		}
	}
	if len(hosts) == 0 {
		return errors.New("a lab needs a host")
	}
	return nil
}

// forward makes the namespace it runs in a router.
func forward() error {
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o600); err != nil {
		return fmt.Errorf("make the router forward: %w", err)
	}
	return nil
}

// join lays a cable between a host and the router.
func (l *Lab) join(h *Host, number int) error {
	router, err := netlink.NewHandleAt(l.router.handle, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer router.Close()
	host, err := netlink.NewHandleAt(h.ns.handle, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer host.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = fmt.Sprintf("host%d", number)
	err = router.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(h.ns.handle)})
	if err != nil {
		return fmt.Errorf("make the cable: %w", err)
	}
	gateway := h.Addr.Prev()
	if err = address(router, attrs.Name, gateway); err != nil {
		return err
	}
	if err = address(host, "eth0", h.Addr); err != nil {
		return err
	}
	if err = address(host, "lo", netip.Addr{}); err != nil {
		return err
	}
	return host.RouteAdd(&netlink.Route{Gw: gateway.AsSlice()})
}

// address gives a link an address, if any, and sets it up.
func address(h *netlink.Handle, name string, addr netip.Addr) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	if addr.IsValid() {
		parsed, parseErr := netlink.ParseAddr(netip.PrefixFrom(addr, 31).String())
		if parseErr != nil {
			return parseErr
		}
		parsed.Flags = unix.IFA_F_NODAD
		if err = h.AddrAdd(link, parsed); err != nil {
			return fmt.Errorf("give %s the address %s: %w", name, addr, err)
		}
	}
	if err = h.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// Hosts are all hosts, in the order they were asked for.
func (l *Lab) Hosts() []*Host { return slices.Clone(l.hosts) }

// Host is the host of that name; nil if there is none.
func (l *Lab) Host(name string) *Host {
	for _, h := range l.hosts {
		if h.Name == name {
			return h
		}
	}
	return nil
}

// Zone lists the names of the hosts in a zone.
func (l *Lab) Zone(name string) []string {
	var names []string
	for _, h := range l.hosts {
		if h.Zone == name {
			names = append(names, h.Name)
		}
	}
	return names
}

// NetNS is the path of the router's namespace: rules there meet every packet between
// hosts, in the hook forward.
func (l *Lab) NetNS() string { return l.router.path() }

// Close kills what runs on the hosts and removes the lab. It may be called again.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	var errs error
	for _, d := range l.delays {
		errs = errors.Join(errs, d.close())
	}
	l.delays = nil
	all := make([]*namespace, 0, len(l.hosts)+1)
	for _, h := range l.hosts {
		all = append(all, h.ns)
	}
	if l.router != nil {
		all = append(all, l.router)
	}
	for _, ns := range all {
		errs = errors.Join(errs, ns.handle.Close(), remove(ns.name))
		ns.handle = netns.None()
	}
	if l.nft != nil {
		errs = errors.Join(errs, l.nft.CloseLasting())
	}
	return errs
}
