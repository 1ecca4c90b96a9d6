package place

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/quorate/quorate/api/v1alpha1"
)

// best chooses among the hosts that can take the next member, and says why.
func best(fit []*Host, r *Request, z *zones) (*Host, string) {
	list := rank(fit, r)
	// The zones by their best host: list has that first.
	var names []string
	for _, c := range list {
		if !slices.Contains(names, c.host.Zone) {
			names = append(names, c.host.Zone)
		}
	}
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(z.have[a], z.have[b]) })
	zone := names[0]
	list = slices.DeleteFunc(list, func(c candidate) bool { return c.host.Zone != zone })
	why := hostReason(list, r)
	if reason := zoneReason(zone, names, z); reason != "" {
		why = reason + "; " + why
	}
	return list[0].host, why
}

func zoneReason(zone string, names []string, z *zones) string {
	called := "zone " + zone
	if zone == "" {
		called = "the group of hosts without a zone"
	}
	_, count := z.left(zone)
	switch {
	case count >= 0:
		return fmt.Sprintf("%s is to have %d of the %d members, and has %d", called, count, z.replicas, z.have[zone])
	case len(names) == 1 && zone == "" && len(z.hosts) == 1:
		return ""
	case len(names) == 1 && len(z.hosts) == 1:
		return called + " is the only one"
	case len(names) == 1:
		return called + " is the only one with a host that can take it"
	case z.have[names[1]] == z.have[zone]:
		return fmt.Sprintf("%s has %d of %d members, and none has fewer", called, z.have[zone], z.replicas)
	}
	return fmt.Sprintf("%s has %d of %d members, the fewest", called, z.have[zone], z.replicas)
}

// candidate is a host with what it is compared by.
type candidate struct {
	host *Host
	own  int
	// share of its scarcest amount that would be promised, in thousandths; 0 where the
	// room of some host is not known, since that can't be compared.
	share    int64
	scarcest string
	// comparable: the room of every host is known.
	comparable bool
}

// rank sorts the hosts by how well they suit the next member, whatever their zone.
func rank(fit []*Host, r *Request) []candidate {
	list := make([]candidate, 0, len(fit))
	comparable := true
	for _, h := range fit {
		c := candidate{host: h, own: h.on(r.Cluster)}
		c.share, c.scarcest, c.comparable = share(h, r)
		comparable = comparable && c.comparable
		list = append(list, c)
	}
	for i := range list {
		if list[i].comparable = comparable; !comparable {
			list[i].share = 0
		}
	}
	slices.SortFunc(list, func(a, b candidate) int {
		return cmp.Or(
			cmp.Compare(a.own, b.own), cmp.Compare(a.share, b.share),
			cmp.Compare(len(a.host.Members), len(b.host.Members)), cmp.Compare(a.host.Name, b.host.Name),
		)
	})
	return list
}

// hostReason says why the first of a zone's hosts comes first.
func hostReason(list []candidate, r *Request) string {
	first := list[0]
	if len(list) == 1 {
		return first.host.Name + " is the only host there that can take it" + sharing(first.own)
	}
	second := list[1]
	why := fmt.Sprintf("of its %d hosts that can take it ", len(list))
	switch {
	case second.own > first.own && first.own == 0:
		return why + "only " + first.host.Name + " has no member of the cluster"
	case second.own > first.own:
		return fmt.Sprintf("%s%s has the fewest members of the cluster: %d", why, first.host.Name, first.own)
	case second.share > first.share:
		why += fmt.Sprintf("%s has most room: %d %% of %s stay free", first.host.Name, max(1000-first.share, 0)/10, lendable(r)+first.scarcest)
	case len(second.host.Members) > len(first.host.Members):
		why += fmt.Sprintf("%s has the fewest members: %d", first.host.Name, len(first.host.Members))
	default:
		why += first.host.Name + " is the first by name of those with as much room"
	}
	return why + sharing(first.own)
}

func lendable(r *Request) string {
	if class(r.Class) == v1alpha1.ClassBestEffort {
		return "what BestEffort members may ask for in "
	}
	return ""
}

func sharing(own int) string {
	if own == 0 {
		return ""
	}
	return fmt.Sprintf(", though %d of the cluster %s there", own, plural(own, "stands", "stand"))
}

// words say in short what a host was refused for.
var words = map[string]string{
	RefusedPool: "in another pool", RefusedLabels: "without the labels", RefusedZone: "in other zones", RefusedCordoned: "cordoned",
	RefusedDraining: "draining", RefusedSilent: "not ready", RefusedUnfit: "unfit", RefusedRelease: "without a release for the platform",
	RefusedShare: "in zones that have their share", RefusedClass: "with classes that do not share", RefusedDedicated: "dedicated",
	RefusedSpread: "with a member of the cluster", RefusedPort: "whose ports are taken", RefusedFull: "full",
}

// fewHosts are so few that each is named where the others are only counted.
const fewHosts = 3

// held sums up why no host can take a member.
func held(refused []v1alpha1.RefusedHost, z *zones) (reason, text string) {
	if len(refused) == 0 {
		return HeldNoHost, "no host has joined: start `quorate agent` on one"
	}
	furthest, counts := "", map[string]int{}
	for _, r := range refused {
		counts[r.Reason]++
		if refusalOrder[r.Reason] > refusalOrder[furthest] {
			furthest = r.Reason
		}
	}
	switch furthest {
	case RefusedFull, RefusedClass, RefusedDedicated:
		reason = HeldNoCapacity
	case RefusedSpread:
		reason = HeldSpread
	case RefusedRelease:
		reason = HeldNoRelease
	default:
		reason = HeldNoHost
	}
	return reason, heldText(refused, counts) + z.empty()
}

func heldText(refused []v1alpha1.RefusedHost, counts map[string]int) string {
	if len(refused) <= fewHosts {
		texts := make([]string, 0, len(refused))
		for _, r := range refused {
			texts = append(texts, r.Host+": "+r.Message)
		}
		return strings.Join(texts, "; ")
	}
	codes := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(refusalOrder[a], refusalOrder[b]), cmp.Compare(a, b))
	})
	parts := make([]string, 0, len(codes))
	for _, code := range codes {
		parts = append(parts, fmt.Sprintf("%d %s", counts[code], words[code]))
	}
	return fmt.Sprintf("%d hosts: %s", len(refused), strings.Join(parts, ", "))
}

// empty names the zones that members are to come to and that have no host.
func (z *zones) empty() string {
	var none []string
	for _, name := range z.names {
		if ok, _ := z.left(name); ok && z.hosts[name] == 0 {
			none = append(none, name)
		}
	}
	if len(none) == 0 {
		return ""
	}
	return fmt.Sprintf("; %s %s no host in pool %s", plural(len(none), "zone", "the zones")+" "+strings.Join(none, ", "), plural(len(none), "has", "have"), z.pool)
}
