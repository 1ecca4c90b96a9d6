package preflight

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
)

const (
	// portsOfMember: client, peer and metrics, one behind the other.
	portsOfMember = 3
	// maxPeers bounds how many are connected to at once.
	maxPeers = 16
	// connects to each peer; the fastest counts, since what delays one is not the way.
	connects    = 3
	connectTime = 1500 * time.Millisecond
	// maxAsk is the largest error of a reading that says anything.
	maxAsk = 500 * time.Millisecond
)

func checkOffset(ctx context.Context, x *exam) result {
	got, err := x.opts.ServerTime(ctx)
	if err != nil {
		return result{verdict: v1alpha1.VerdictUnknown, message: fmt.Sprintf("the server could not be asked for its time: %v", err), fix: "see that the server can be reached from this host"}
	}
	off := got.Offset.Abs()
	r := result{verdict: v1alpha1.VerdictPass, value: fmt.Sprintf("%s from the server's, within %s", short(got.Offset), short(max(got.Error, time.Microsecond)))}
	side := "ahead of"
	if got.Offset < 0 {
		side = "behind"
	}
	// Judged by what is certain: a slow way to the server is no wrong clock.
	certain := off - got.Error
	const fix = "set the clock, and keep it by NTP (`timedatectl set-ntp true`, or chrony) on this host and on the server's"
	switch {
	case certain > clockFail:
		r.verdict, r.fix = v1alpha1.VerdictFail, fix
		r.message = fmt.Sprintf("the clock of this host is %s %s the server's: certificates may not be valid yet or any more, leases and logs can't be told apart by their times", short(off), side)
	case certain > clockWarn:
		r.verdict, r.fix = v1alpha1.VerdictWarn, fix
		r.message = fmt.Sprintf("the clock of this host is %s %s the server's", short(off), side)
	case got.Error > maxAsk:
		r.verdict, r.fix = v1alpha1.VerdictUnknown, "see why the server answers slowly"
		r.message = fmt.Sprintf("the server answers so slowly that its time is known to %s only", short(got.Error))
	}
	return r
}

func checkSync(_ context.Context, x *exam) result {
	c, err := x.probe.Clock()
	if err != nil {
		return result{verdict: v1alpha1.VerdictUnknown, message: fmt.Sprintf("the kernel does not tell how it keeps time: %v", err), fix: "look at `timedatectl` or `chronyc tracking` on the machine"}
	}
	if !c.Synchronised {
		return result{
			verdict: v1alpha1.VerdictWarn, value: "not synchronised",
			message: "the kernel knows of nothing that keeps its clock right, so it drifts",
			fix:     "run chrony (with rtcsync) or systemd-timesyncd; where the hypervisor keeps the clock, nothing is to be done",
		}
	}
	return result{verdict: v1alpha1.VerdictPass, value: "synchronised, within " + short(c.MaxError)}
}

// trip is what the connections to one peer took.
type trip struct {
	peer string
	took time.Duration
	err  error
}

func checkPeers(ctx context.Context, x *exam) result {
	peers := x.opts.Peers[:min(len(x.opts.Peers), maxPeers)]
	trips := make([]trip, len(peers))
	var wg sync.WaitGroup
	for i, peer := range peers {
		wg.Go(func() { trips[i] = roundTrip(ctx, x.probe, peer) })
	}
	wg.Wait()
	return judgePeers(&x.opts, trips)
}

// WithPort is the address of a peer with its port, 2380 where it names none.
func WithPort(peer string) (string, error) {
	if addr, err := netip.ParseAddr(peer); err == nil {
		return net.JoinHostPort(addr.String(), peerPort), nil
	}
	host, port, err := net.SplitHostPort(peer)
	if err != nil {
		host, port = peer, peerPort
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return "", fmt.Errorf("%q is no address: write ADDRESS or ADDRESS:PORT, such as 10.0.0.8 or [fd00::8]:2380", peer)
	}
	return net.JoinHostPort(host, port), nil
}

func roundTrip(ctx context.Context, p Probe, peer string) trip {
	t := trip{peer: peer}
	address, err := WithPort(peer)
	if err != nil {
		t.err = err
		return t
	}
	for range connects {
		one, cancel := context.WithTimeout(ctx, connectTime)
		took, err := p.Connect(one, address)
		cancel()
		if err != nil {
			t.err = err
			break // a second try would only take as long again
		}
		if t.took == 0 || took < t.took {
			t.took = took
		}
	}
	if t.took > 0 {
		t.err = nil
	}
	return t
}

func judgePeers(o *Options, trips []trip) result {
	slices.SortStableFunc(trips, func(a, b trip) int { return -cmp.Compare(a.took, b.took) })
	var texts, silent, far []string
	r := result{verdict: v1alpha1.VerdictPass}
	for _, t := range trips {
		if t.err != nil {
			silent = append(silent, t.peer)
			texts = append(texts, t.peer+" silent")
			continue
		}
		texts = append(texts, t.peer+" "+short(t.took))
		if t.took > o.peerWarn() {
			far = append(far, t.peer)
		}
	}
	r.value = listed(texts, 4)
	worst := trips[0].took
	switch {
	case worst > o.peerFail():
		r.verdict = v1alpha1.VerdictFail
		r.message = fmt.Sprintf("a round trip to %s takes %s: members would take leaders for dead that are not, with an election timeout of %s", listed(far, 3), short(worst), short(o.Election))
		r.fix = fmt.Sprintf("choose hosts that are nearer, or set etcd.heartbeatInterval to %s and etcd.electionTimeout to %s at least", short(worst), short(10*worst))
	case len(silent) > 0:
		r.verdict = v1alpha1.VerdictUnknown
		r.message = fmt.Sprintf("nothing comes back from %s: %v", listed(silent, 3), firstError(trips))
		r.fix = "see that it is up, and that firewalls let the members' ports through (2379, 2380 and on) both ways"
	case worst > o.peerWarn():
		r.verdict = v1alpha1.VerdictWarn
		r.message = fmt.Sprintf("a round trip to %s takes %s of the %s between two heartbeats", listed(far, 3), short(worst), short(o.Heartbeat))
		r.fix = fmt.Sprintf("set etcd.heartbeatInterval to %s and etcd.electionTimeout to %s or more for clusters that stand that far apart", short(max(2*worst, o.Heartbeat)), short(max(20*worst, o.Election)))
	}
	return r
}

func firstError(trips []trip) error {
	for _, t := range trips {
		switch {
		case errors.Is(t.err, context.DeadlineExceeded):
			return fmt.Errorf("no answer within %s", short(connectTime))
		case t.err != nil:
			return t.err
		}
	}
	return nil
}

func checkAddress(_ context.Context, x *exam) result {
	r := result{verdict: v1alpha1.VerdictPass, value: x.opts.Address}
	fail := func(format string, args ...any) result {
		r.verdict, r.message = v1alpha1.VerdictFail, fmt.Sprintf(format, args...)
		r.fix = "give the address that other hosts reach this one at, with --address of `quorate agent` or in spec.address of its EtcdHost"
		return r
	}
	want, err := netip.ParseAddr(x.opts.Address)
	if err != nil {
		return fail("%s is no IP address", x.opts.Address)
	}
	if want.IsUnspecified() {
		return fail("%s is every address, and none that another host could reach", want)
	}
	have, err := x.probe.Addresses()
	if err != nil {
		return unread("the addresses of this machine", err)
	}
	if want.IsLoopback() {
		r.verdict = v1alpha1.VerdictWarn
		r.message = want.String() + " is reached from this machine alone: members on other hosts can't join those here"
		r.fix = "for clusters on several hosts, give the address that they reach this one at"
		return r
	}
	if !slices.Contains(have, want.Unmap().WithZone("")) {
		texts := make([]string, 0, len(have))
		for _, a := range have {
			if !a.IsLoopback() && !a.IsLinkLocalUnicast() {
				texts = append(texts, a.String())
			}
		}
		return fail("%s is not an address of this machine, which has %s", want, cmp.Or(listed(texts, 4), "none but loopback"))
	}
	return r
}

// wanted is where a member listens: clients and peers come to the host's address, metrics
// are asked for on loopback.
func (o *Options) wanted() []netip.AddrPort {
	address, err := netip.ParseAddr(o.Address)
	if err != nil {
		address = netip.IPv4Unspecified()
	}
	first := uint16(o.FirstPort) //nolint:gosec // a port
	return []netip.AddrPort{
		netip.AddrPortFrom(address, first), netip.AddrPortFrom(address, first+1),
		netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), first+portsOfMember-1),
	}
}

func checkPorts(_ context.Context, x *exam) result {
	found, err := x.probe.Listeners(x.opts.wanted())
	if err != nil {
		return result{verdict: v1alpha1.VerdictUnknown, message: fmt.Sprintf("the ports can't be looked at: %v", err), fix: "look at `ss -ltnp` on the machine"}
	}
	var taken []string
	mine := 0
	for _, l := range found {
		if slices.ContainsFunc(x.etcds, func(e Etcd) bool { return e.PID == l.PID && x.ours(e.DataDir) }) {
			mine++
			continue
		}
		who := "a process that can't be told"
		if l.PID != 0 {
			who = fmt.Sprintf("%s, pid %d", l.Name, l.PID)
		}
		taken = append(taken, fmt.Sprintf("%d (%s)", l.Port, who))
	}
	switch {
	case len(taken) > 0:
		return result{
			verdict: v1alpha1.VerdictWarn, value: "taken: " + listed(taken, 3),
			message: "other programs have the ports that etcd's clients and firewalls expect: members get the next free ones",
			fix:     "stop what listens there, or open the members' ports (`quorate get members -o wide`) in your firewalls",
		}
	case mine > 0:
		return result{verdict: v1alpha1.VerdictPass, value: "a member's"}
	}
	return result{verdict: v1alpha1.VerdictPass, value: "free"}
}

func checkOthers(_ context.Context, x *exam) result {
	if x.etcdsErr != nil {
		return unread("/proc", x.etcdsErr)
	}
	others := x.foreign()
	if len(others) == 0 {
		return result{verdict: v1alpha1.VerdictPass, value: "none"}
	}
	texts := make([]string, 0, len(others))
	for _, e := range others {
		texts = append(texts, fmt.Sprintf("pid %d (%s)", e.PID, cmp.Or(e.DataDir, "its data directory can't be told")))
	}
	return result{
		verdict: v1alpha1.VerdictWarn, value: strconv.Itoa(len(others)) + " running",
		message: "etcd that is no member of this agent runs here, and takes CPU, memory and disk that placement does not know of: " + listed(texts, 2),
		fix:     "look after it with `quorate import`, move it elsewhere, or say in spec.capacity of the EtcdHost what is left",
	}
}
