package place

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/quorate/quorate/api/v1alpha1"
)

// Choose finds the host for the next member of a cluster. Hosts are not changed.
func Choose(hosts []Host, r *Request) Choice {
	z := zonesOf(hosts, r)
	if z.wrong != "" {
		return Choice{HeldReason: HeldZones, Held: z.wrong}
	}
	var c Choice
	var fit []*Host
	for i := range hosts {
		h := &hosts[i]
		code, text := refuse(h, r, &z)
		if code == "" {
			fit = append(fit, h)
			continue
		}
		c.Refused = append(c.Refused, v1alpha1.RefusedHost{Host: h.Name, Reason: code, Message: text})
	}
	slices.SortStableFunc(c.Refused, func(a, b v1alpha1.RefusedHost) int { return cmp.Compare(a.Host, b.Host) })
	if len(fit) == 0 {
		c.HeldReason, c.Held = held(c.Refused, &z)
		return c
	}
	c.Host, c.Reason = best(fit, r, &z)
	return c
}

// Fits says why the host can't take a member of the cluster, as code and sentence; both
// are empty where it can.
func Fits(hosts []Host, name string, r *Request) (code, text string) {
	z := zonesOf(hosts, r)
	if z.wrong != "" {
		return HeldZones, z.wrong
	}
	i := slices.IndexFunc(hosts, func(h Host) bool { return h.Name == name })
	if i < 0 {
		return HeldNoHost, "there is no host " + name
	}
	return refuse(&hosts[i], r, &z)
}

// zones is how many members of a cluster each zone has, and may have.
type zones struct {
	// named are the zones to choose from; nil for all. The value is the count, or -1
	// for an even share.
	named map[string]int
	names []string
	// have counts the members that stay, by zone.
	have map[string]int
	// rest is what the zones without a count may have together, and restHave what they
	// have.
	rest, restHave int
	// hosts counts the pool's hosts by zone.
	hosts    map[string]int
	replicas int
	pool     string
	// wrong is why the counts can't be met, whatever hosts there are.
	wrong string
}

func zonesOf(hosts []Host, r *Request) zones {
	z := zones{have: map[string]int{}, hosts: map[string]int{}, replicas: r.Replicas, pool: pool(r.Placement.Pool)}
	for i := range hosts {
		h := &hosts[i]
		if pool(h.Pool) == z.pool {
			z.hosts[h.Zone]++
		}
		z.have[h.Zone] += h.staying(r.Cluster)
	}
	if len(r.Placement.Zones) == 0 {
		return z
	}
	z.named = map[string]int{}
	sum, shared := 0, false
	var counts []string
	for _, zone := range r.Placement.Zones {
		z.names = append(z.names, zone.Name)
		if zone.Members == nil {
			z.named[zone.Name] = -1
			z.restHave += z.have[zone.Name]
			shared = true
			continue
		}
		z.named[zone.Name] = int(*zone.Members)
		sum += int(*zone.Members)
		counts = append(counts, fmt.Sprintf("%s %d", zone.Name, *zone.Members))
	}
	z.rest = r.Replicas - sum
	switch {
	case sum > r.Replicas:
		z.wrong = fmt.Sprintf("placement.zones asks for %d members (%s), and the cluster has %d: make the counts add up to replicas",
			sum, strings.Join(counts, ", "), r.Replicas)
	case sum < r.Replicas && !shared:
		z.wrong = fmt.Sprintf("placement.zones has places for %d members (%s), and the cluster has %d: raise a count, or leave one out for the rest",
			sum, strings.Join(counts, ", "), r.Replicas)
	}
	return z
}

// left reports whether the zone may have another member, and what it is to have where
// that is counted.
func (z *zones) left(zone string) (bool, int) {
	count, named := z.named[zone]
	switch {
	case !named:
		return true, -1
	case count < 0:
		return z.restHave < z.rest, -1
	}
	return z.have[zone] < count, count
}

// refuse says why a host can't take the next member, as code and sentence.
func refuse(h *Host, r *Request, z *zones) (code, text string) {
	if code, text = refuseUnasked(h, r, z); code != "" {
		return code, text
	}
	switch {
	case h.Cordoned && !h.Draining:
		return RefusedCordoned, "it is cordoned: `quorate host uncordon " + h.Name + "` lets it have members again"
	case h.Draining:
		return RefusedDraining, "it is being drained: its members go elsewhere"
	case h.Silent:
		return RefusedSilent, "its agent does not report"
	case h.Unfit != "":
		return RefusedUnfit, h.Unfit
	case h.NoRelease != "":
		return RefusedRelease, h.NoRelease
	}
	if ok, count := z.left(h.Zone); !ok {
		if count < 0 {
			return RefusedShare, fmt.Sprintf("the zones without a count are to have %d members together, and have them", z.rest)
		}
		return RefusedShare, fmt.Sprintf("zone %s is to have %d members, and has %d", h.Zone, count, z.have[h.Zone])
	}
	if code, text = refuseCompany(h, r); code != "" {
		return code, text
	}
	if r.Placement.Spread == v1alpha1.SpreadRequired && h.on(r.Cluster) > 0 {
		return RefusedSpread, "a member of the cluster stands there, and spread is Required"
	}
	for i := range h.Members {
		for _, port := range r.Ports {
			if m := &h.Members[i]; port != 0 && slices.Contains(m.Ports[:], port) {
				return RefusedPort, fmt.Sprintf("port %d, which spec.ports asks for, is that of %s of cluster %s there", port, m.Name, m.Cluster)
			}
		}
	}
	if text = full(h, r); text != "" {
		return RefusedFull, text
	}
	return "", ""
}

// refuseUnasked refuses a host that the cluster does not ask for.
func refuseUnasked(h *Host, r *Request, z *zones) (code, text string) {
	if pool(h.Pool) != z.pool {
		return RefusedPool, fmt.Sprintf("it is in pool %s, and the cluster asks for pool %s", pool(h.Pool), z.pool)
	}
	var lacks []string
	for k, v := range r.Placement.HostLabels {
		if have, ok := h.Labels[k]; !ok || have != v {
			lacks = append(lacks, k+"="+v)
		}
	}
	if len(lacks) > 0 {
		slices.Sort(lacks)
		return RefusedLabels, "it lacks " + plural(len(lacks), "the label ", "the labels ") + strings.Join(lacks, ", ")
	}
	if _, named := z.named[h.Zone]; z.named != nil && !named {
		where := "it is in zone " + h.Zone
		if h.Zone == "" {
			where = "it has no zone"
		}
		return RefusedZone, where + ", and the cluster asks for " + plural(len(z.names), "zone ", "the zones ") + strings.Join(z.names, ", ")
	}
	return "", ""
}

func plural(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}

// refuseCompany refuses a host for who stands there.
func refuseCompany(h *Host, r *Request) (code, text string) {
	own := class(r.Class)
	for i := range h.Members {
		m := &h.Members[i]
		if m.Cluster == r.Cluster {
			continue
		}
		other := class(m.Class)
		switch {
		case m.Dedicated:
			return RefusedDedicated, fmt.Sprintf("it belongs to cluster %s alone, whose placement is dedicated", m.Cluster)
		case r.Placement.Dedicated:
			return RefusedDedicated, fmt.Sprintf("the cluster's placement is dedicated, and %s of cluster %s stands there", m.Name, m.Cluster)
		case !together(own, other):
			return RefusedClass, fmt.Sprintf("%s of cluster %s (%s) stands there, and a %s cluster does not share a host with it", m.Name, m.Cluster, other, own)
		}
	}
	return "", ""
}

// together reports whether members of different clusters may share a host by their classes.
func together(a, b v1alpha1.ServiceClass) bool {
	if a == v1alpha1.ClassBestEffort || b == v1alpha1.ClassBestEffort {
		return true
	}
	return a != v1alpha1.ClassGuaranteed && b != v1alpha1.ClassGuaranteed
}

// full says why another member does not fit, or nothing.
func full(h *Host, r *Request) string {
	reserved, bestEffort := h.promised()
	own := class(r.Class) == v1alpha1.ClassBestEffort
	if own {
		bestEffort = bestEffort.plus(r.Requests)
	} else {
		reserved = reserved.plus(r.Requests)
	}
	capacity, ask := h.Capacity.list(), r.Requests.list()
	res, best := reserved.list(), bestEffort.list()
	for i, has := range capacity {
		if has == 0 {
			continue
		}
		if !own && ask[i] > 0 && res[i] > has {
			return fmt.Sprintf("%s: %s of %s %s left, and a member asks for %s", amountNames[i], amount(i, max(has-res[i]+ask[i], 0)), amount(i, has), isAre(i), amount(i, ask[i]))
		}
		if allowed := h.lent(has, res[i]); best[i] > allowed && ask[i] > 0 {
			if own {
				return fmt.Sprintf("%s: BestEffort members may ask for %d %% of what others leave, %s, have %s, and this one asks for %s",
					amountNames[i], h.overcommit(), amount(i, allowed), amount(i, best[i]-ask[i]), amount(i, ask[i]))
			}
			return fmt.Sprintf("%s: the BestEffort members there ask for %s, and with this one may have only %s", amountNames[i], amount(i, best[i]), amount(i, allowed))
		}
	}
	return ""
}

func isAre(i int) string {
	if i == 0 {
		return "cores are"
	}
	return "is"
}

// lent is what BestEffort members may ask for of an amount.
func (h *Host) lent(capacity, reserved int64) int64 {
	free := max(capacity-reserved, 0)
	// Divided first where the product would not fit: capacities are bytes, percentages
	// at most thousands.
	return free/100*h.overcommit() + free%100*h.overcommit()/100
}

// amount writes the ith amount as the API has it.
func amount(i int, v int64) string {
	var a [3]int64
	a[i] = v
	r := v1alpha1.NewResources(a[0], a[1], a[2])
	return [3]string{r.CPU.String(), r.Memory.String(), r.Disk.String()}[i]
}

// share is the greatest part of a known amount that would be promised, in thousandths, and
// which amount that is; known is false where none is.
func share(h *Host, r *Request) (thousandths int64, name string, known bool) {
	reserved, bestEffort := h.promised()
	own := class(r.Class) == v1alpha1.ClassBestEffort
	thousandths = -1
	for i, has := range h.Capacity.list() {
		if has == 0 {
			continue
		}
		promised, of := reserved.list()[i], has
		if own {
			promised, of = bestEffort.list()[i], h.lent(has, promised)
		}
		promised += r.Requests.list()[i]
		part := int64(1000)
		if of > 0 {
			part = int64(float64(promised) / float64(of) * 1000)
		}
		if part > thousandths {
			thousandths, name, known = part, amountNames[i], true
		}
	}
	return thousandths, name, known
}
