package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/quorate/quorate/bench"
	"github.com/quorate/quorate/chaos"
	"github.com/quorate/quorate/check"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/internal/backoff"
)

const (
	// defaultDisturbance is how long one lasts.
	defaultDisturbance = 2 * time.Second
	// recovery is how long members may take to be back before the next disturbance.
	recovery = 20 * time.Second
	// settling is how long members may take to be well before the traffic.
	settling = 10 * time.Second
	// undoing bounds the end of a disturbance.
	undoing = 20 * time.Second
	// oneAnswer bounds one look at a member.
	oneAnswer = 2 * time.Second
	// lookAgain is the rest between two looks.
	lookAgain = 200 * time.Millisecond
	// fewestToLead is how many members there must be for another to lead.
	fewestToLead = 2
)

// readDisturb checks the flags about disturbances.
func readDisturb(cmd *cobra.Command, o *checkOptions) error {
	for _, name := range o.disturb {
		if !slices.Contains(chaos.Names(), name) {
			return usagef(cmd, "--disturb has %q: use %s", name, strings.Join(chaos.Names(), ", "))
		}
	}
	f := cmd.Flags()
	for _, name := range []string{"every", "for", "start-again", "allow-outage"} {
		if len(o.disturb) == 0 && f.Changed(name) {
			return usagef(cmd, "--%s goes with --disturb", name)
		}
	}
	if o.length > chaos.MaxFor || o.length < chaos.MinFor {
		return usagef(cmd, "--for is %s: give %s to %s", o.length, chaos.MinFor, chaos.MaxFor)
	}
	return nil
}

// disturber does one kind of harm to members of this machine, one after another.
type disturber struct {
	opts *checkOptions
	kind string
	// members that it may be done to, out of all voters that answer.
	members, all []check.Member
	// away are the other members: learners, and those that are not reached.
	away []check.Member
	// missing is a voter that is not reached; empty for none.
	missing string
	// cluster is its ID.
	cluster string
	next    int
}

func (o *checkOptions) disturbers() []*disturber {
	list := make([]*disturber, 0, len(o.disturb))
	for _, kind := range o.disturb {
		list = append(list, &disturber{opts: o, kind: kind})
	}
	return list
}

// Kind implements check.Disturber.
func (d *disturber) Kind() string { return d.kind }

// of says whom it is done to.
func (d *disturber) of(p *check.Plan) {
	d.cluster, d.all = p.Cluster, p.Voters()
	d.members = d.all
	d.away = slices.DeleteFunc(slices.Clone(p.Members), func(m check.Member) bool { return !m.Learner })
	d.away = append(d.away, p.Missing...)
	for _, m := range p.Missing {
		if !m.Learner {
			d.missing = m.Label()
		}
	}
}

// calm refuses what would be an outage, unless that is meant.
func (d *disturber) calm() error {
	if d.opts.outage {
		return nil
	}
	if d.missing != "" {
		return fmt.Errorf("--disturb %s: member %s is not reached from here, and nothing more is disturbed while one is away: start it, name an endpoint at which it answers, or give --allow-outage",
			d.kind, d.missing)
	}
	n := len(d.all)
	if quorum := n/2 + 1; d.kind != chaos.LeaderMove && n-1 < quorum {
		return fmt.Errorf("--disturb %s: a cluster with %s takes no write while one is away: take one of at least 3, or give --allow-outage if an outage is what is wanted",
			d.kind, plural(n, "voter", "voters"))
	}
	return nil
}

// possible says before the traffic why a disturbance can't be made, and leaves those
// members that it can be made to.
func (d *disturber) possible() error {
	for _, k := range chaos.Kinds() {
		if err := k.Available(); k.Name == d.kind && err != nil {
			return fmt.Errorf("--disturb %s: %w", d.kind, err)
		}
	}
	if d.kind == chaos.LeaderMove {
		if len(d.members) < fewestToLead {
			return fmt.Errorf("--disturb %s: there is nobody else to lead: take a cluster of at least %d members", d.kind, fewestToLead)
		}
		return nil
	}
	here, err := localAddresses()
	if err != nil {
		return err
	}
	var why error
	local := slices.DeleteFunc(slices.Clone(d.members), func(m check.Member) bool {
		var bad error
		if d.kind == chaos.Partition {
			bad = d.separable(m, here)
		} else {
			_, bad = chaos.ProcessAt(m.Endpoint, "")
		}
		why = errors.Join(why, bad)
		return bad != nil
	})
	if len(local) == 0 {
		return fmt.Errorf("--disturb %s: %w", d.kind, why)
	}
	d.members = local
	return nil
}

// separable says why a member can't be cut off from here: rules of this machine drop
// only what passes through it.
func (d *disturber) separable(m check.Member, here []netip.Addr) error {
	cuts, _, err := d.isolate(m)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(cuts, func(c chaos.Cut) bool { return slices.Contains(here, c.From) }) {
		return fmt.Errorf("%s has no address of this machine, so it can't be cut off from here", m.Label())
	}
	for _, c := range cuts {
		if slices.Contains(here, c.From) && slices.Contains(here, c.To) {
			return fmt.Errorf("%s and %s are both addresses of this machine, and what it sends to itself comes from neither but the receiver's: members on one machine can't be cut off from each other, unless each has a network namespace",
				c.From, c.To)
		}
	}
	return nil
}

func localAddresses() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list the addresses of this machine: %w", err)
	}
	var out []netip.Addr
	for _, a := range list {
		if prefix, bad := netip.ParsePrefix(a.String()); bad == nil {
			out = append(out, prefix.Addr())
		}
	}
	return out, nil
}

// Disturb implements check.Disturber. While a member is away nothing is done: two
// away at once are no disturbance but an outage. For the same reason it waits for others
// on this machine that disturb the same cluster.
func (d *disturber) Disturb(ctx context.Context) (target string, err error) {
	done, err := chaos.Turn(ctx, "", d.cluster)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, done()) }()
	if err = d.ready(ctx, recovery); err != nil {
		return "", err
	}
	spec, target, err := d.aim(d.next)
	if err != nil {
		return "", err
	}
	d.next++
	running, err := chaos.Start(ctx, chaos.Options{Client: d.client, Log: d.opts.opts.Logger}, spec)
	if err != nil {
		return "", err
	}
	if err = running.Wait(ctx); ctx.Err() == nil {
		return target, err
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoing)
	defer cancel()
	return target, running.End(end)
}

// ready waits until all members answer and have the same leader.
func (d *disturber) ready(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	pool := etcd.NewPool()
	defer func() { _ = pool.Close() }() // Nothing was written on it.
	for {
		why := d.sick(ctx, pool)
		if why == "" {
			return nil
		}
		if backoff.Sleep(ctx, lookAgain) != nil {
			return fmt.Errorf("%s, and nothing more is disturbed while a member is away or ill: if nothing starts it again, use --start-again; `quorate chaos list` says whether it is disturbed", why)
		}
	}
}

// sick says which member does not answer, has no leader or another than the others, or
// reports an alarm; empty if all is well.
func (d *disturber) sick(ctx context.Context, pool *etcd.Pool) string {
	leader := etcd.ID(0)
	for _, m := range d.all {
		st, err := d.status(ctx, pool, m)
		switch {
		case err != nil && strings.Contains(err.Error(), nobodyAsks):
			continue // it answers, and tells its state to users only
		case err != nil:
			d.opts.opts.Logger.DebugContext(ctx, "not ready to be disturbed", slog.String("member", m.Label()), slog.Any("error", err))
			return m.Label() + " does not answer"
		case st.MemberID.String() != m.ID:
			return "another member answers where " + m.Label() + " did"
		case st.Leader == 0:
			return m.Label() + " has no leader"
		case leader != 0 && st.Leader != leader:
			return m.Label() + " has another leader than the others"
		case len(st.Errors) > 0:
			return m.Label() + " reports " + strings.Join(st.Errors, ", ")
		}
		leader = st.Leader
	}
	return ""
}

// nobodyAsks is what a member with authentication says to who has not logged in.
const nobodyAsks = "etcdserver: user name is empty"

// status asks one member, as a user only where that is wanted: a login is an entry of
// the raft log.
func (d *disturber) status(ctx context.Context, pool *etcd.Pool, m check.Member) (etcd.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, oneAnswer)
	defer cancel()
	st, err := pool.Status(ctx, etcd.Target{Endpoint: m.Endpoint, TLS: d.opts.opts.TLS})
	if err == nil || d.opts.opts.User == "" || !strings.Contains(err.Error(), nobodyAsks) {
		return st, err
	}
	c, err := d.client(m.Endpoint)
	if err != nil {
		return st, err
	}
	defer func() { _ = c.Close() }() // Nothing was written on it.
	r, err := c.Status(ctx, m.Endpoint)
	if err != nil {
		return st, err
	}
	return etcd.Status{MemberID: etcd.ID(r.Header.GetMemberId()), Leader: etcd.ID(r.Leader), Errors: r.Errors}, nil
}

// client connects to a member for what is done by etcd's API.
func (d *disturber) client(endpoint string) (*clientv3.Client, error) {
	o := &d.opts.opts
	cfg := clientv3.Config{
		Endpoints: []string{endpoint}, TLS: o.TLS, Username: o.User, Password: o.Password, DialTimeout: oneAnswer, Logger: zap.NewNop(),
	}
	if o.TLS != nil && o.TLS.ServerName != "" {
		cfg.DialOptions = append(cfg.DialOptions, grpc.WithAuthority(o.TLS.ServerName))
	}
	return clientv3.New(cfg)
}

// aim makes the disturbance of the n-th member.
func (d *disturber) aim(n int) (spec chaos.Disturbance, target string, err error) {
	m := d.members[n%len(d.members)]
	spec = chaos.Disturbance{Kind: d.kind, For: d.opts.length, Cluster: d.cluster}
	switch d.kind {
	case chaos.LeaderMove:
		spec.For = 0
		for _, one := range d.members {
			spec.Endpoints = append(spec.Endpoints, one.Endpoint)
		}
		return spec, "to another", nil
	case chaos.Partition:
		spec.Cuts, spec.Ports, err = d.isolate(m)
	default:
		spec.Endpoint, spec.Again = m.Endpoint, d.opts.startAgain
	}
	return spec, m.Label(), err
}

// isolate cuts the peer addresses of one member off from those of all others.
func (d *disturber) isolate(target check.Member) (cuts []chaos.Cut, ports []uint16, err error) {
	var own, others []netip.Addr
	for _, m := range slices.Concat(d.all, d.away) {
		for _, u := range m.PeerURLs {
			parsed, err := url.Parse(u)
			if err != nil {
				return nil, nil, fmt.Errorf("the peer URL of %s: %w", m.Label(), err)
			}
			at, err := netip.ParseAddrPort(parsed.Host)
			if err != nil {
				return nil, nil, fmt.Errorf("the peer URL of %s is %s, which has a name in it: only addresses can be cut off", m.Label(), u)
			}
			ports = append(ports, at.Port())
			if m.ID == target.ID {
				own = append(own, at.Addr())
			} else {
				others = append(others, at.Addr())
			}
		}
	}
	if len(own) == 0 || len(others) == 0 {
		return nil, nil, errors.New("there is nobody to be cut off from: take a cluster of at least two members")
	}
	for _, a := range own {
		if slices.Contains(others, a) {
			return nil, nil, fmt.Errorf("members share the address %s, so none can be cut off: give each its own", a)
		}
	}
	slices.Sort(ports)
	return chaos.Between(own, others), slices.Compact(ports), nil
}

// harm says to a person what is about to be done.
func (*env) harm(p *check.Plan) string {
	var what []string
	if len(p.Disturbances) > 0 {
		what = append(what, "Members of this cluster are disturbed while it is used: "+strings.Join(p.Disturbances, ", ")+".")
	}
	if p.AllowCompact {
		what = append(what, "The cluster is compacted: everyone on it loses the past.")
	}
	if len(what) == 0 {
		what = append(what, "This puts a load on a cluster that is not only this machine's, which its other users will feel.")
	}
	names := make([]string, 0, len(p.Members))
	for _, m := range p.Members {
		names = append(names, m.Label()+" ("+m.Endpoint+")")
	}
	return strings.Join(what, " ") + "\nMembers: " + strings.Join(names, ", ")
}

// agreed has a person agree to what others would feel.
func (e *env) agreed(cmd *cobra.Command, o *checkOptions, p *check.Plan) error {
	harms := len(p.Disturbances) > 0 || p.AllowCompact
	afar := slices.ContainsFunc(p.Members, func(m check.Member) bool { return !bench.Loopback(m.Endpoint) })
	switch {
	case o.yes || !harms && !afar:
		return nil
	case harms:
		return e.confirm(cmd, e.harm(p), "disturb")
	}
	return e.confirm(cmd, e.harm(p), "load")
}
