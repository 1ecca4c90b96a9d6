package place

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/quorate/quorate/api/v1alpha1"
)

// Place chooses hosts for the missing members of a cluster, one after the other, and
// says where those stand that there are. Names returns the name of the ith missing
// member. Hosts are not changed.
func Place(hosts []Host, r *Request, names func(i int) string) v1alpha1.Placement {
	namespace, cluster, _ := strings.Cut(r.Cluster, "/")
	p := v1alpha1.Placement{Namespace: namespace, Cluster: cluster, Members: []v1alpha1.PlacedMember{}}
	hosts = slices.Clone(hosts)
	staying := 0
	for i := range hosts {
		for _, m := range hosts[i].Members {
			if m.Cluster != r.Cluster {
				continue
			}
			p.Members = append(p.Members, v1alpha1.PlacedMember{
				Member: m.Name, Host: hosts[i].Name, Zone: hosts[i].Zone, Standing: true, Leaving: hosts[i].Draining || m.Leaving,
			})
		}
		staying += hosts[i].staying(r.Cluster)
	}
	slices.SortFunc(p.Members, func(a, b v1alpha1.PlacedMember) int { return strings.Compare(a.Member, b.Member) })
	missing := max(r.Replicas-staying, 0)
	for i := range missing {
		c := Choose(hosts, r)
		if c.Host == nil {
			p.Missing, p.HeldReason, p.Held, p.Refused = missing-i, c.HeldReason, c.Held, c.Refused
			break
		}
		name := names(i)
		p.Members = append(p.Members, v1alpha1.PlacedMember{Member: name, Host: c.Host.Name, Zone: c.Host.Zone, Reason: c.Reason})
		stand(hosts, c.Host.Name, r.member(name))
	}
	if p.Missing == 0 {
		p.Refused = Choose(hosts, r).Refused
	}
	p.Notes = Notes(hosts, r)
	return p
}

// stand adds a member to a host of a list that is the caller's own; the members of the
// hosts may be others'.
func stand(hosts []Host, host string, m Member) {
	for i := range hosts {
		if hosts[i].Name == host {
			hosts[i].Members = append(slices.Clip(hosts[i].Members), m)
			return
		}
	}
}

// Notes say what a person should know of where a cluster's members stand. Those on
// draining hosts are not counted once there are enough without them; until then they vote.
func Notes(hosts []Host, r *Request) []string {
	staying := 0
	for i := range hosts {
		staying += hosts[i].staying(r.Cluster)
	}
	byZone, all := map[string]int{}, 0
	var notes []string
	shared := map[string][]string{}
	zones := map[string]bool{}
	for i := range hosts {
		h := &hosts[i]
		if pool(h.Pool) == pool(r.Placement.Pool) && h.Zone != "" {
			zones[h.Zone] = true
		}
		for _, m := range h.Members {
			if m.Cluster == r.Cluster && !m.Leaving && (!h.Draining || staying < r.Replicas) {
				shared[h.Name] = append(shared[h.Name], m.Name)
				byZone[h.Zone]++
				all++
			}
		}
	}
	notes = append(notes, leaderless(byZone, all, r)...)
	if all < 2 {
		return notes
	}
	for _, host := range slices.Sorted(maps.Keys(shared)) {
		if names := shared[host]; len(names) > 1 {
			slices.Sort(names)
			notes = append(notes, fmt.Sprintf("%s share host %s: %s", strings.Join(names, " and "), host, lost(len(names), all, "it")))
		}
	}
	for _, zone := range slices.Sorted(maps.Keys(byZone)) {
		n := byZone[zone]
		// Where there is only one zone, nobody is to be told that it holds all.
		if zone == "" || len(zones) < 2 || all-n >= all/2+1 {
			continue
		}
		text := fmt.Sprintf("zone %s holds %d of %d members: %s", zone, n, all, lost(n, all, "the zone"))
		if len(byZone) == 2 && (len(zones) == 2 || len(r.Placement.Zones) == 2) {
			text += "; it takes three zones to survive the loss of any"
		}
		notes = append(notes, text)
	}
	return notes
}

// leaderless says that leaderZones can't be kept: no member stands in one of them.
func leaderless(byZone map[string]int, all int, r *Request) []string {
	zones := r.Placement.LeaderZones
	if len(zones) == 0 || all < r.Replicas || slices.ContainsFunc(zones, func(z string) bool { return byZone[z] > 0 }) {
		return nil
	}
	return []string{fmt.Sprintf("placement.leaderZones is %s, and no member stands there: whoever etcd elects leads", strings.Join(zones, ", "))}
}

// lost says what is left of a cluster when n of its members go at once.
func lost(n, all int, with string) string {
	switch {
	case n == all:
		return "the whole cluster is lost with " + with
	case all-n < all/2+1:
		return "the quorum is lost with " + with
	}
	return fmt.Sprintf("%d of %d members are lost with %s", n, all, with)
}
