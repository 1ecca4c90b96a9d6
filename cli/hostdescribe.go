package cli

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// hostTable is what `quorate host list` shows.
func hostTable(hosts []*v1alpha1.EtcdHost, on map[string][]*v1alpha1.EtcdMember) grid {
	g := grid{header: []string{"name", "address", "zone", "pool", "ready", "fit", "members", "scheduling", "agent", "age"}}
	for _, h := range hosts {
		g.add(h.Name, h.Spec.Address, h.Spec.Zone, h.Spec.Pool, conditionStatus(h, v1alpha1.ConditionReady), conditionStatus(h, v1alpha1.ConditionFit),
			strconv.Itoa(len(on[h.Name])), scheduling(h), h.Status.AgentVersion, age(h.CreationTimestamp.Time, time.Now()))
	}
	return g
}

// scheduling says whether new members may come to a host.
func scheduling(h *v1alpha1.EtcdHost) string {
	switch {
	case h.Spec.Drain:
		return "draining"
	case h.Spec.Unschedulable:
		return "cordoned"
	}
	return "enabled"
}

func conditionStatus(h *v1alpha1.EtcdHost, name string) string {
	if c := v1alpha1.FindCondition(h.Status.Conditions, name); c != nil {
		return string(c.Status)
	}
	return string(v1alpha1.Unknown)
}

// describeHost shows what a person asks of a host, in place of its bare fields.
func (e *env) describeHost(ctx context.Context, c *remote.Client, h *v1alpha1.EtcdHost) error {
	line := func(name, value string) {
		if value != "" {
			e.printf("%-12s%s\n", name+":", value)
		}
	}
	line("Address", h.Spec.Address)
	line("Names", strings.Join(h.Spec.Names, ", "))
	line("Zone", h.Spec.Zone)
	line("Pool", h.Spec.Pool)
	line("Scheduling", scheduling(h))
	line("Platform", h.Status.Platform)
	line("Agent", h.Status.AgentVersion)
	line("Boot ID", h.Status.BootID)
	line("Supervisor", string(h.Status.Supervision))
	line("Cgroups", h.Status.Cgroups)
	if h.Status.FaultsAllowed {
		line("Faults", "allowed (the agent runs with --allow-faults, or by `quorate up`)")
	}
	if err := e.describeCapacity(h); err != nil {
		return err
	}
	if err := e.describeChecks(h); err != nil {
		return err
	}
	if err := e.describeOn(ctx, c, h); err != nil {
		return err
	}
	return e.describeUndeclared(h)
}

// describeCapacity shows what a host has, may promise, and uses.
func (e *env) describeCapacity(h *v1alpha1.EtcdHost) error {
	offers := h.Offers()
	if h.Status.Capacity == nil && h.Spec.Capacity == nil && h.Status.Used == nil {
		return nil
	}
	e.heading("Capacity")
	has, used := &v1alpha1.Resources{}, &v1alpha1.Resources{}
	if h.Status.Capacity != nil {
		has = h.Status.Capacity
	}
	if h.Status.Used != nil {
		used = h.Status.Used
	}
	g := grid{header: []string{"", "machine", "offered", "used now"}}
	for _, r := range []struct {
		name            string
		has, gives, now amount
	}{
		{"cpu", &has.CPU, &offers.CPU, &used.CPU}, {"memory", &has.Memory, &offers.Memory, &used.Memory}, {"disk", &has.Disk, &offers.Disk, &used.Disk},
	} {
		g.add(r.name, quantity(r.has), quantity(r.gives), quantity(r.now))
	}
	err := e.indented(func(in *env) error { return g.write(in.Out, 0) })
	e.printf("  BestEffort members may be promised %d %% of what the others leave\n", h.Spec.OvercommitPercent)
	return err
}

// amount is of CPU, memory or disk.
type amount interface {
	IsZero() bool
	String() string
}

// quantity is an amount as people read it; empty where it is not known.
func quantity(q amount) string {
	if q.IsZero() {
		return ""
	}
	return q.String()
}

// describeChecks shows what the latest checks of a host found.
func (e *env) describeChecks(h *v1alpha1.EtcdHost) error {
	e.heading("Preflight")
	if h.Status.Preflight == nil || len(h.Status.Preflight.Checks) == 0 {
		e.printf("  not checked yet\n")
		return nil
	}
	e.printf("  checked %s ago\n", age(h.Status.Preflight.At.Time, time.Now()))
	g := grid{header: []string{"check", "verdict", "value", "threshold"}}
	for _, c := range h.Status.Preflight.Checks {
		g.add(c.Name, string(c.Verdict), c.Value, c.Threshold)
	}
	if err := e.indented(func(in *env) error { return g.write(in.Out, 0) }); err != nil {
		return err
	}
	for _, c := range h.Status.Preflight.Checks {
		if c.Verdict != v1alpha1.VerdictPass && c.Message != "" {
			e.printf("  %s: %s\n", c.Name, c.Message)
			if c.Fix != "" {
				e.printf("    fix: %s\n", c.Fix)
			}
		}
	}
	return nil
}

// describeOn shows the members of a host.
func (e *env) describeOn(ctx context.Context, c *remote.Client, h *v1alpha1.EtcdHost) error {
	members, err := membersOn(ctx, c, h.Name)
	if err != nil {
		return err
	}
	e.heading("Members")
	if len(members) == 0 {
		e.printf("  none\n")
		return nil
	}
	slices.SortFunc(members, func(a, b *v1alpha1.EtcdMember) int {
		return strings.Compare(store.KeyOf(a).String(), store.KeyOf(b).String())
	})
	g := grid{header: []string{"namespace", "name", "cluster", "class", "phase", "version", "cpu", "memory", "disk"}}
	for _, m := range members {
		r := m.Spec.Resources
		g.add(m.Namespace, m.Name, m.Spec.ClusterName, string(m.Spec.Class), string(m.Status.Phase), m.Spec.Release.Version, quantity(&r.CPU), quantity(&r.Memory), quantity(&r.Disk))
	}
	return e.indented(func(in *env) error { return g.write(in.Out, 0) })
}

func (e *env) describeUndeclared(h *v1alpha1.EtcdHost) error {
	if len(h.Status.Undeclared) == 0 {
		return nil
	}
	e.heading("Undeclared")
	g := grid{header: []string{"namespace", "name", "pid", "home"}}
	for _, u := range h.Status.Undeclared {
		pid := ""
		if u.PID > 0 {
			pid = strconv.FormatInt(u.PID, 10)
		}
		g.add(u.Namespace, u.Name, pid, u.Home)
	}
	return e.indented(func(in *env) error { return g.write(in.Out, 0) })
}
