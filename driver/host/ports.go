package host

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/host/supervisor"
	"github.com/quorate/quorate/internal/atomicfile"
)

const (
	firstPort = 2379
	portStep  = 10
)

// choosePorts returns the member's ports, chosen once and then kept: peers know
// the member by them.
func (d *Driver) choosePorts(ctx context.Context, m *v1alpha1.EtcdMember, h supervisor.Home) (p v1alpha1.Ports, err error) {
	d.ports.Lock()
	defer d.ports.Unlock()
	unlock, err := flock(filepath.Join(d.dir, "ports.lock"))
	if err != nil {
		return p, notWritable(d.dir, err)
	}
	defer func() { err = errors.Join(err, unlock()) }()

	have, err := readPorts(h)
	switch {
	case err == nil && satisfies(have, m.Spec.Ports):
		for _, port := range []int32{have.Client, have.Peer, have.Metrics} {
			d.reserve(port) // for as long as its etcd is not there to hold it
		}
		return have, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return p, problemf(ReasonHomeCorrupt, "%v; put the file back, or remove it if the member never ran", err)
	}
	taken, err := d.takenPorts(h)
	if err != nil {
		return p, err
	}
	if p, err = d.freePorts(ctx, m.Spec.Ports, have, taken); err != nil {
		return p, err
	}
	raw, err := json.Marshal(p)
	if err != nil {
		return p, err
	}
	if err := atomicfile.Write(h.PortsFile(), append(raw, '\n'), 0o600); err != nil {
		return p, notWritable(string(h), err)
	}
	return p, nil
}

// satisfies reports whether the ports chosen are those wanted, where any are.
func satisfies(have, want v1alpha1.Ports) bool {
	same := func(h, w int32) bool { return h != 0 && (w == 0 || w == h) }
	return same(have.Client, want.Client) && same(have.Peer, want.Peer) && same(have.Metrics, want.Metrics)
}

func readPorts(h supervisor.Home) (v1alpha1.Ports, error) {
	var p v1alpha1.Ports
	raw, err := os.ReadFile(h.PortsFile())
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		return v1alpha1.Ports{}, fmt.Errorf("%w: %s: %w", supervisor.ErrCorrupt, h.PortsFile(), err)
	}
	if p.Client <= 0 || p.Peer <= 0 || p.Metrics <= 0 {
		return v1alpha1.Ports{}, fmt.Errorf("%w: %s lacks a port", supervisor.ErrCorrupt, h.PortsFile())
	}
	return p, nil
}

// takenPorts are those of the other homes, whether their members run or not, with
// the home that has each.
func (d *Driver) takenPorts(own supervisor.Home) (map[int32]string, error) {
	taken := map[int32]string{}
	entries, err := os.ReadDir(d.membersDir())
	if err != nil {
		return nil, notWritable(d.membersDir(), err)
	}
	for _, e := range entries {
		h := supervisor.Home(filepath.Join(d.membersDir(), e.Name()))
		if h == own {
			continue
		}
		p, err := readPorts(h)
		if err != nil {
			continue // none yet; one that can't be read is reported by its own member
		}
		for _, port := range []int32{p.Client, p.Peer, p.Metrics} {
			taken[port] = e.Name()
		}
	}
	return taken, nil
}

// freePorts tests the wanted ports, and fills the rest with the first free ones.
func (d *Driver) freePorts(ctx context.Context, want, have v1alpha1.Ports, taken map[int32]string) (v1alpha1.Ports, error) {
	none := v1alpha1.Ports{}
	// Of ports chosen before, only those are given up that are now wanted otherwise.
	want.Client = cmp.Or(want.Client, have.Client)
	want.Peer = cmp.Or(want.Peer, have.Peer)
	want.Metrics = cmp.Or(want.Metrics, have.Metrics)
	wanted := map[int32]bool{}
	for _, w := range []struct {
		field         string
		port, present int32
		address       string
	}{
		{"client", want.Client, have.Client, d.opts.Address},
		{"peer", want.Peer, have.Peer, d.opts.Address},
		{"metrics", want.Metrics, have.Metrics, "127.0.0.1"},
	} {
		if w.port == 0 {
			continue
		}
		if wanted[w.port] {
			return none, problemf(ReasonPortInUse, "port %d is wanted twice: give client, peer and metrics a port each in spec.ports", w.port)
		}
		wanted[w.port] = true
		if home := taken[w.port]; home != "" {
			return none, problemf(ReasonPortInUse, "%s port %d belongs to the member of home %s on this host; choose another in spec.ports, or leave it out to have one chosen", w.field, w.port, home)
		}
		if w.port == w.present {
			continue // this member's own, which may be running on it
		}
		if err := bind(ctx, w.address, w.port); err != nil {
			return none, portProblem(w.field, w.address, w.port, err)
		}
	}
	for port := range wanted {
		d.reserve(port) // it is free: whoever else prepares on it learns so by binding
	}
	limit := ephemeral()
	places := max((limit-2-firstPort)/portStep, 1)
	for i := range places {
		base := firstPort + (max(d.opts.FirstPort-firstPort, 0)/portStep+i)%places*portStep
		p, ok, err := d.tryFrom(ctx, base, want, func(port int32) bool { return wanted[port] || taken[port] != "" })
		if err != nil || ok {
			return p, err
		}
	}
	return none, problemf(ReasonPortInUse, "no three free ports are left from %d up to %d on %s; free some, or name them in spec.ports", firstPort, limit, d.opts.Address)
}

// tryFrom fills the ports not wanted with those from base on, if all are free.
func (d *Driver) tryFrom(ctx context.Context, base int32, p v1alpha1.Ports, taken func(int32) bool) (v1alpha1.Ports, bool, error) {
	var fresh []int32
	for _, f := range []struct {
		into    *int32
		port    int32
		address string
	}{{&p.Client, base, d.opts.Address}, {&p.Peer, base + 1, d.opts.Address}, {&p.Metrics, base + 2, "127.0.0.1"}} {
		if *f.into != 0 {
			continue
		}
		if taken(f.port) || !d.reserve(f.port) {
			d.unreserve(fresh...)
			return v1alpha1.Ports{}, false, nil
		}
		*f.into, fresh = f.port, append(fresh, f.port)
		if err := bind(ctx, f.address, f.port); err != nil {
			d.unreserve(fresh...)
			if errors.Is(err, syscall.EADDRINUSE) {
				return v1alpha1.Ports{}, false, nil
			}
			return v1alpha1.Ports{}, false, portProblem("etcd", f.address, f.port, err)
		}
	}
	return p, true, nil
}

func portProblem(field, address string, port int32, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return problemf(ReasonPortInUse, "%s port %d on %s is in use by another process (`ss -ltnp 'sport = :%d'` shows which); stop it, or choose another in spec.ports", field, port, address, port)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return problemf(ReasonAddressNotLocal, "%s is not an address of this host; set the EtcdHost's spec.address to one that is", address)
	default:
		return problemf(ReasonPortInUse, "%s port %d on %s can't be listened on: %v; choose another in spec.ports", field, port, address, err)
	}
}

func bind(ctx context.Context, address string, port int32) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(int(port))))
	if err != nil {
		return err
	}
	return l.Close()
}

// ephemeral is the first port that the kernel gives to outgoing connections, which
// could take a member's port while it is down.
func ephemeral() int32 {
	const usual = 32768
	raw, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return usual
	}
	low, _, _ := strings.Cut(strings.TrimSpace(string(raw)), "\t")
	v, err := strconv.ParseInt(strings.TrimSpace(low), 10, 32)
	if err != nil || v <= firstPort+portStep {
		return usual
	}
	return int32(v)
}

// flock holds a lock file against other processes.
func flock(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // a file of the driver's directory
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f.Close, nil
}
