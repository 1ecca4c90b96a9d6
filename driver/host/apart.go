package host

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/host/supervisor"
)

// apart is how a member is kept apart from the others.
type apart struct {
	class     v1alpha1.ServiceClass
	resources v1alpha1.Resources
	// pids that were given it: children inherit it, others do not.
	pids []int
	// said is the latest trouble that was told of.
	said string
}

// keepApart gives the member's processes their share of the host, where it has changed or
// they are others. A change needs no restart. What can't be given is told in the log: a
// member that runs without its share is better than one that does not run.
func (d *Driver) keepApart(ctx context.Context, h supervisor.Home) {
	o, err := h.ReadOrder()
	if err != nil {
		return
	}
	state, err := h.ReadState()
	if err != nil {
		return
	}
	d.countOthers()
	now := &apart{class: o.Class, resources: o.Resources}
	if state.Supervisor.Alive() {
		now.pids = append(now.pids, state.Supervisor.PID)
	}
	if p := state.Process; p != nil && p.ID.Alive() {
		now.pids = append(now.pids, p.ID.PID)
	}
	d.mu.Lock()
	before := d.apart[string(h)]
	d.mu.Unlock()
	if before != nil && before.class == now.class && slices.Equal(before.pids, now.pids) && v1alpha1.Equal(before.resources, now.resources) {
		return
	}
	if before != nil {
		now.said = before.said
	}
	said := ""
	if err := d.launcher.keepApart(ctx, h, o, now.pids); err != nil {
		said = err.Error()
	}
	if said != "" && said != now.said {
		d.log.WarnContext(ctx, "a member is not kept apart as its class says", slog.String("home", string(h)), slog.String("class", string(o.Class)), slog.String("cause", said))
	}
	now.said = said
	d.mu.Lock()
	d.apart[string(h)] = now
	d.mu.Unlock()
	d.guard(ctx)
}

// countOthers counts the members that ran before this driver did, once.
func (d *Driver) countOthers() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.counted {
		return
	}
	d.counted = true
	entries, _ := os.ReadDir(d.membersDir())
	for _, e := range entries {
		h := supervisor.Home(filepath.Join(d.membersDir(), e.Name()))
		if o, err := h.ReadOrder(); err == nil && o.Run == v1alpha1.RunRunning && d.apart[string(h)] == nil {
			d.apart[string(h)] = &apart{class: o.Class}
		}
	}
}

// together forgets how a member that has stopped was kept apart.
func (d *Driver) together(ctx context.Context, h supervisor.Home) {
	d.countOthers()
	d.mu.Lock()
	delete(d.apart, string(h))
	delete(d.usage, string(h))
	d.mu.Unlock()
	d.guard(ctx)
}

// guard limits BestEffort members while a Guaranteed one runs on the host.
func (d *Driver) guard(ctx context.Context) {
	guaranteed := false
	d.mu.Lock()
	for _, a := range d.apart {
		guaranteed = guaranteed || a.class == v1alpha1.ClassGuaranteed
	}
	d.mu.Unlock()
	if err := d.launcher.guard(ctx, guaranteed); err != nil {
		d.log.WarnContext(ctx, "BestEffort members are not limited for the sake of Guaranteed ones", slog.Any("cause", err))
	}
}

// Supervision says who starts the supervisors of members again.
func (d *Driver) Supervision() v1alpha1.Supervision { return d.launcher.supervision() }

// Cgroups says what the service classes are kept apart with, as EtcdHost's status does.
func (d *Driver) Cgroups() string {
	if d.opts.Systemd != nil {
		return d.opts.Systemd.Cgroups()
	}
	return d.opts.Groups.String()
}
