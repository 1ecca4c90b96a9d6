package place

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/quorate/quorate/api/v1alpha1"
)

// What usage is grouped by.
const (
	ByHost  = "host"
	ByClass = "class"
	ByZone  = "zone"
	ByPool  = "pool"
	// ByLabel and ByHostLabel go before a key: a label of clusters, or of hosts.
	ByLabel     = "label="
	ByHostLabel = "host-label="
)

// group adds up one row.
type group struct {
	row                 v1alpha1.UsageRow
	requested, best     Amounts
	capacity, used      Amounts
	noCapacity, notUsed [3]bool
}

func (g *group) member(m *Member) {
	g.row.Members++
	if class(m.Class) == v1alpha1.ClassBestEffort {
		g.best = g.best.plus(m.Requests)
	} else {
		g.requested = g.requested.plus(m.Requests)
	}
}

func (g *group) host(h *Host) {
	g.row.Hosts++
	g.capacity = g.capacity.plus(h.Capacity)
	for i, v := range h.Capacity.list() {
		g.noCapacity[i] = g.noCapacity[i] || v == 0
	}
	// Without members there is nothing to use.
	g.uses(h.Used, len(h.Members) == 0)
	for i := range h.Members {
		g.member(&h.Members[i])
	}
}

func (g *group) uses(a Amounts, nothing bool) {
	if nothing {
		return
	}
	g.used = g.used.plus(a)
	silent := false
	for i, v := range a.list() {
		g.notUsed[i] = g.notUsed[i] || v == 0
		silent = silent || v == 0
	}
	if silent {
		g.row.Unknown++
	}
}

// known leaves out what is not known of each.
func known(a Amounts, unknown [3]bool) Amounts {
	v := a.list()
	for i := range v {
		if unknown[i] {
			v[i] = 0
		}
	}
	return Amounts{v[0], v[1], v[2]}
}

func (g *group) finish(name string, capacity bool) v1alpha1.UsageRow {
	r := g.row
	r.Name, r.Requested, r.BestEffort = name, g.requested.Resources(), g.best.Resources()
	r.Used = known(g.used, g.notUsed).Resources()
	if capacity {
		r.Capacity = known(g.capacity, g.noCapacity).Resources()
	}
	return r
}

// Use adds up what members ask for and use. By is one of the constants above; hosts without
// members count, too.
func Use(hosts []Host, by string) (v1alpha1.Usage, error) {
	u := v1alpha1.Usage{By: by, Rows: []v1alpha1.UsageRow{}}
	ofHost, ofMember, err := grouping(by)
	if err != nil {
		return u, err
	}
	rows := map[string]*group{}
	row := func(name string) *group {
		if rows[name] == nil {
			rows[name] = &group{}
		}
		return rows[name]
	}
	total := &group{}
	for i := range hosts {
		h := &hosts[i]
		total.host(h)
		if ofHost != nil {
			row(ofHost(h)).host(h)
			continue
		}
		for j := range h.Members {
			g := row(ofMember(&h.Members[j]))
			g.member(&h.Members[j])
			g.uses(h.Members[j].Used, false)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		u.Rows = append(u.Rows, rows[name].finish(name, ofHost != nil))
	}
	u.Total = total.finish("", true)
	return u, nil
}

func grouping(by string) (ofHost func(*Host) string, ofMember func(*Member) string, err error) {
	switch {
	case by == ByHost:
		return func(h *Host) string { return h.Name }, nil, nil
	case by == ByZone:
		return func(h *Host) string { return h.Zone }, nil, nil
	case by == ByPool:
		return func(h *Host) string { return pool(h.Pool) }, nil, nil
	case by == ByClass:
		return nil, func(m *Member) string { return string(class(m.Class)) }, nil
	case strings.HasPrefix(by, ByLabel) && by != ByLabel:
		return nil, func(m *Member) string { return m.Labels[strings.TrimPrefix(by, ByLabel)] }, nil
	case strings.HasPrefix(by, ByHostLabel) && by != ByHostLabel:
		return func(h *Host) string { return h.Labels[strings.TrimPrefix(by, ByHostLabel)] }, nil, nil
	}
	return nil, nil, fmt.Errorf("usage by %q: use host, class, zone, pool, label=KEY or host-label=KEY", by)
}
