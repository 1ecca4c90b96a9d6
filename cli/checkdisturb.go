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
	for _, name := range []string{"every", "for", "start-again"} {
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
	// members that it may be done to, out of all.
	members, all []check.Member
	next         int
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
// away at once are no disturbance but an outage.
func (d *disturber) Disturb(ctx context.Context) (target string, err error) {
	if err = d.ready(ctx); err != nil {
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

// ready waits until all members answer and have a leader.
func (d *disturber) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, recovery)
	defer cancel()
	pool := etcd.NewPool()
	defer func() { _ = pool.Close() }() // Nothing was written on it.
	for {
		missing := d.missing(ctx, pool)
		if missing == "" {
			return nil
		}
		if backoff.Sleep(ctx, lookAgain) != nil {
			return fmt.Errorf("%s does not answer, and nothing more is disturbed while a member is away: if nothing starts it again, use --start-again", missing)
		}
	}
}

// missing is a member that does not answer or knows no leader; empty for none.
func (d *disturber) missing(ctx context.Context, pool *etcd.Pool) string {
	for _, m := range d.all {
		call, cancel := context.WithTimeout(ctx, oneAnswer)
		st, err := pool.Status(call, etcd.Target{Endpoint: m.Endpoint, TLS: d.opts.opts.TLS})
		cancel()
		if err != nil && strings.Contains(err.Error(), "etcdserver: user name is empty") {
			continue // it answers, and tells its state to users only
		}
		if err != nil || st.Leader == 0 {
			d.opts.opts.Logger.DebugContext(ctx, "not ready to be disturbed", slog.String("member", m.Label()), slog.Any("error", err))
			return m.Label()
		}
	}
	return ""
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
	spec = chaos.Disturbance{Kind: d.kind, For: d.opts.length}
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
	for _, m := range d.all {
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
	names := make([]string, 0, len(p.Members))
	for _, m := range p.Members {
		names = append(names, m.Label()+" ("+m.Endpoint+")")
	}
	return strings.Join(what, " ") + "\nMembers: " + strings.Join(names, ", ")
}
