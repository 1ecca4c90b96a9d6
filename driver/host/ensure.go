package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"reflect"
	"syscall"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/datadir"
	"github.com/quorate/quorate/driver/host/supervisor"
	"github.com/quorate/quorate/etcd"
)

// Ensure implements driver.Driver. A member whose spec says Stopped is only
// observed: Stop stops it.
func (d *Driver) Ensure(ctx context.Context, m *v1alpha1.EtcdMember) (v1alpha1.EtcdMemberStatus, error) {
	if err := named(m); err != nil {
		return v1alpha1.EtcdMemberStatus{}, err
	}
	h := d.home(m)
	defer d.lock(h)()
	if m.Spec.Run == v1alpha1.RunStopped {
		return d.observe(m, h), nil
	}
	if d.missing(m, d.look(h)) != "" {
		// A new home would hide the one that is missing.
		return d.observe(m, h), nil
	}
	p, note, err := d.prepare(ctx, m, h)
	if err != nil && !errors.As(err, &note.problem) {
		note.problem = &problem{reason: ReasonNotPrepared, message: err.Error()}
	}
	if note.problem == nil && formedFromBackup(m) {
		note.problem = d.afterRestore(ctx, m, h)
	}
	if m.Spec.Run == v1alpha1.RunRunning && note.problem == nil {
		note.formation = d.records(ctx, m, h)
	}
	if m.Spec.Run == v1alpha1.RunRunning {
		// What is running already is kept running whatever keeps it from being prepared
		// anew: an unreachable signer or a release that is gone must not cost a member.
		if err := d.run(ctx, m, h, p, note.problem == nil && note.formation == nil); err != nil && note.problem == nil {
			errors.As(err, &note.problem)
		}
	}
	d.remember(h, note)
	if err := ctx.Err(); err != nil {
		return v1alpha1.EtcdMemberStatus{}, err
	}
	return d.observe(m, h), nil
}

// remember keeps how the preparation went, for Observe.
func (d *Driver) remember(h supervisor.Home, note prepareNote) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.notes[string(h)] = note
}

func (d *Driver) noteOf(h supervisor.Home) prepareNote {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.notes[string(h)]
}

// run gives the order to run, if the member is prepared for it, and sees that a
// supervisor is there to obey. The error is a *problem.
func (d *Driver) run(ctx context.Context, m *v1alpha1.EtcdMember, h supervisor.Home, p prepared, ready bool) error {
	changed := false
	if ready {
		if err := d.keepMark(m, h); err != nil {
			return problemf(ReasonHomeCorrupt, "%v; put the file back from a copy, or let the member be replaced", err)
		}
		order, err := d.order(m, h, p)
		if err != nil {
			return problemf(ReasonConfigurationInvalid, "%v", err)
		}
		if changed, err = h.WriteOrder(order); err != nil {
			return notWritable(string(h), err)
		}
	} else if o, _ := h.ReadOrder(); o == nil || o.Run != v1alpha1.RunRunning {
		return nil // it was not to run before either
	}
	held, err := h.Held()
	if err != nil {
		return notWritable(string(h), err)
	}
	if !held {
		return d.spawn(ctx, h)
	}
	if changed {
		d.nudge(ctx, h)
	}
	d.keepApart(ctx, h)
	return nil
}

// nudge makes the supervisor read its order at once. Without it, it does so within
// a second.
func (d *Driver) nudge(ctx context.Context, h supervisor.Home) {
	state, err := h.ReadState()
	if err != nil {
		return
	}
	if err := state.Supervisor.Signal(syscall.SIGHUP); err != nil {
		d.log.DebugContext(ctx, "signal the supervisor", slog.Any("error", err))
	}
}

// order is what the supervisor is to do for the member's spec.
func (d *Driver) order(m *v1alpha1.EtcdMember, h supervisor.Home, p prepared) (*supervisor.Order, error) {
	ca, err := writeDiscoveryCA(m, h)
	if err != nil {
		return nil, err
	}
	args, err := etcd.Flags(m.Spec.Release.Version, etcd.MemberFlags{
		Name: m.Name, DataDir: h.DataDir(), Address: d.opts.Address, Ports: p.ports, TLS: p.tls,
		Bootstrap: m.Spec.Bootstrap, DiscoveryCA: ca, Config: m.Spec.Etcd, LogFile: p.logs.Etcd,
	})
	if err != nil {
		return nil, err
	}
	o := idleOrder(m, h, v1alpha1.RunRunning, p.logs)
	o.Formation = d.formationOrder(m)
	o.ConfigHash = v1alpha1.MemberConfigHash(&m.Spec)
	o.Digest, o.Executable, o.Args = m.Spec.Release.Digest, p.executable, args
	o.Class, o.Resources = m.Spec.Class, m.Spec.Resources
	if m.Status.Mark != nil {
		o.Mark = *m.Status.Mark
	}
	if err = joinedByRestore(m, h, o); err != nil {
		return nil, err
	}
	before, err := h.ReadOrder()
	if err != nil {
		return o, nil //nolint:nilerr // none, or unreadable: it is replaced
	}
	o.StopGraceSeconds = before.StopGraceSeconds
	// A mark that has only moved on is kept in the identity file; it is not worth a
	// new order.
	mark := o.Mark
	o.Mark = before.Mark
	if !sameOrder(o, before) {
		o.Mark = mark
	}
	return o, nil
}

// keepMark puts the position that the object remembers into the identity file.
func (d *Driver) keepMark(m *v1alpha1.EtcdMember, h supervisor.Home) error {
	mark := m.Status.Mark
	if mark == nil || mark.Term < 0 || mark.Index < 0 {
		return nil
	}
	id, err := h.LoadIdentity()
	if err != nil {
		return err
	}
	if !id.Advance(uint64(mark.Term), uint64(mark.Index)) {
		return nil
	}
	return h.ChangeIdentity(string(m.UID), m.Name, func(id *datadir.Identity) bool {
		return id.Advance(uint64(mark.Term), uint64(mark.Index)) //nolint:gosec // not negative
	})
}

// stopOrder turns whatever order stands into one to stop.
func (d *Driver) stopOrder(m *v1alpha1.EtcdMember, h supervisor.Home) error {
	o, err := h.ReadOrder()
	switch {
	case err == nil:
		// A home that was moved is that of this place from now on.
		o.Run, o.DataDir = v1alpha1.RunStopped, h.DataDir()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, supervisor.ErrCorrupt):
		o = idleOrder(m, h, v1alpha1.RunStopped, h.LogsFor(m.Name, m.Spec.Etcd.Logging))
	default:
		return fmt.Errorf("stop the member: %w", err)
	}
	_, err = h.WriteOrder(o)
	return err
}

// sameOrder compares what a supervisor would see.
func sameOrder(a, b *supervisor.Order) bool {
	// Quantities that mean the same may be written in different ways.
	x, y := *a, *b
	same := v1alpha1.Equal(x.Resources, y.Resources)
	x.Resources, y.Resources = v1alpha1.Resources{}, v1alpha1.Resources{}
	return same && reflect.DeepEqual(x, y)
}
