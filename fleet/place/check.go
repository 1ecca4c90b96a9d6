package place

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/quorate/quorate/api/v1alpha1"
)

// Violation is a rule that a fleet breaks.
type Violation struct {
	// Reason is the code for which such a member would be refused.
	Reason string
	// Host on which, and Cluster whose rule it is, as namespace/name; one of them may be
	// empty.
	Host, Cluster string
	// Member that would be refused if it came now; empty where it is the host as a whole.
	Member string
	// Text says it in a sentence.
	Text string
}

// Check says which rules the fleet breaks: classes, dedicated hosts and room, and of the
// clusters that are given, pools, labels, zones, their counts, and the spread. Members may stand
// where they would not come to today: labels and classes change, and nobody is moved
// for that.
func Check(hosts []Host, clusters ...Request) []Violation {
	var found []Violation
	for i := range hosts {
		found = append(found, checkCompany(&hosts[i])...)
		found = append(found, checkRoom(&hosts[i])...)
	}
	on := standingOn(hosts)
	for i := range clusters {
		found = append(found, checkCluster(on[clusters[i].Cluster], &clusters[i])...)
	}
	return found
}

// standingOn are the hosts that each cluster has members on: a fleet has many hosts, and a
// cluster stands on few.
func standingOn(hosts []Host) map[string][]Host {
	on := map[string][]Host{}
	for i := range hosts {
		for j := range hosts[i].Members {
			cluster := hosts[i].Members[j].Cluster
			if list := on[cluster]; len(list) == 0 || list[len(list)-1].Name != hosts[i].Name {
				on[cluster] = append(list, hosts[i])
			}
		}
	}
	return on
}

// checkCompany looks for clusters on one host that may not share it.
func checkCompany(h *Host) []Violation {
	var found []Violation
	told := map[string]bool{}
	for i := range h.Members {
		for j := range h.Members {
			m, o := &h.Members[i], &h.Members[j]
			if m.Cluster == o.Cluster || !m.Dedicated && together(class(m.Class), class(o.Class)) || told[m.Cluster+" "+o.Cluster] {
				continue
			}
			v := Violation{Host: h.Name, Cluster: m.Cluster, Member: m.Name}
			switch {
			case m.Dedicated:
				v.Reason, v.Text = RefusedDedicated, fmt.Sprintf("host %s: cluster %s is dedicated, and %s of cluster %s stands there too", h.Name, m.Cluster, o.Name, o.Cluster)
			case class(m.Class) == v1alpha1.ClassGuaranteed && !together(class(m.Class), class(o.Class)) && !o.Dedicated:
				v.Reason, v.Text = RefusedClass, fmt.Sprintf("host %s: %s of cluster %s is Guaranteed, and %s of cluster %s (%s) stands there too",
					h.Name, m.Name, m.Cluster, o.Name, o.Cluster, class(o.Class))
			default:
				continue
			}
			told[m.Cluster+" "+o.Cluster], told[o.Cluster+" "+m.Cluster] = true, true
			found = append(found, v)
		}
	}
	return found
}

// checkRoom looks for hosts of which more is promised than may be.
func checkRoom(h *Host) []Violation {
	var found []Violation
	reserved, bestEffort := h.promised()
	for i, has := range h.Capacity.list() {
		res, best := reserved.list()[i], bestEffort.list()[i]
		if has == 0 {
			continue
		}
		if res > has {
			found = append(found, Violation{Reason: RefusedFull, Host: h.Name, Text: fmt.Sprintf("host %s: %s of %s is set aside, and it has %s",
				h.Name, amount(i, res), amountNames[i], amount(i, has))})
		}
		if allowed := h.lent(has, res); best > allowed {
			found = append(found, Violation{Reason: RefusedFull, Host: h.Name, Text: fmt.Sprintf("host %s: BestEffort members ask for %s of %s, and may have %s: %d %% of what the others leave",
				h.Name, amount(i, best), amountNames[i], amount(i, allowed), h.overcommit())})
		}
	}
	return found
}

// checkCluster looks for members that stand where their cluster's placement does not
// allow, among the hosts that it has members on. Those on draining hosts are on their way.
func checkCluster(hosts []Host, r *Request) []Violation {
	var found []Violation
	z := zonesOf(hosts, r)
	if z.wrong != "" {
		found = append(found, Violation{Reason: HeldZones, Cluster: r.Cluster, Text: "cluster " + r.Cluster + ": " + z.wrong})
	}
	for i := range hosts {
		h := &hosts[i]
		own := h.on(r.Cluster)
		if own == 0 || h.Draining {
			continue
		}
		at := slices.IndexFunc(h.Members, func(m Member) bool { return m.Cluster == r.Cluster })
		v := Violation{Host: h.Name, Cluster: r.Cluster, Member: h.Members[at].Name}
		if code, text := refuseUnasked(h, r, &z); code != "" {
			v.Reason, v.Text = code, fmt.Sprintf("%s of cluster %s stands on host %s: %s", v.Member, r.Cluster, h.Name, text)
			found = append(found, v)
		}
		if r.Placement.Spread == v1alpha1.SpreadRequired && own > 1 {
			v.Reason, v.Text = RefusedSpread, fmt.Sprintf("%d members of cluster %s share host %s, and its spread is Required", own, r.Cluster, h.Name)
			found = append(found, v)
		}
	}
	for _, name := range z.names {
		if count := z.named[name]; count >= 0 && z.have[name] > count {
			found = append(found, Violation{
				Reason: RefusedShare, Cluster: r.Cluster,
				Text: fmt.Sprintf("cluster %s has %d members in zone %s, and is to have %d", r.Cluster, z.have[name], name, count),
			})
		}
	}
	return found
}

// sortHosts by name, so that equal fleets give equal answers however they are listed.
func sortHosts(hosts []Host) []Host {
	list := slices.Clone(hosts)
	slices.SortFunc(list, func(a, b Host) int { return cmp.Compare(a.Name, b.Name) })
	return list
}
