package place

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/quorate/quorate/api/v1alpha1"
)

// Reasons of suggestions beside the codes of refusals.
const (
	SuggestSharedHost  = "SharedHost"
	SuggestUnevenZones = "UnevenZones"
	SuggestLeaders     = "LeadersPileUp"
)

// mostSuggestions are as many as a person reads before they act on the first.
const mostSuggestions = 20

// mostTries are as many hosts as are emptied in thought: in a large fleet in which nothing
// can be better, the answer must still come soon.
const mostTries = 50

// leaderGap is how many more leaders than another a host must have for one to be moved.
const leaderGap = 2

// score is how bad a placement is, the gravest first: rules broken, members of a cluster
// beyond the first on a host, and unevenness over zones.
type score [3]int

func (s score) less(o score) bool { return slices.Compare(s[:], o[:]) < 0 }

func scoreOf(hosts []Host, clusters []Request) score {
	return score{len(Check(hosts, clusters...)), sharingOf(hosts), unevenOf(hosts, clusters)}
}

func sharingOf(hosts []Host) int {
	n := 0
	for i := range hosts {
		seen := map[string]bool{}
		for _, m := range hosts[i].Members {
			if seen[m.Cluster] {
				n++
			}
			seen[m.Cluster] = true
		}
	}
	return n
}

// unevenOf adds up the squares of the members per zone of the clusters that name no counts:
// the least is the most even.
func unevenOf(hosts []Host, clusters []Request) int {
	even := map[string]bool{}
	for i := range clusters {
		even[clusters[i].Cluster] = !slices.ContainsFunc(clusters[i].Placement.Zones, func(z v1alpha1.ZonePlacement) bool { return z.Members != nil })
	}
	type at struct{ cluster, zone string }
	count := map[at]int{}
	for i := range hosts {
		for _, m := range hosts[i].Members {
			if even[m.Cluster] {
				count[at{m.Cluster, hosts[i].Zone}]++
			}
		}
	}
	sum := 0
	for _, n := range count {
		sum += n * n
	}
	return sum
}

// problem is why a host might be emptied for once.
type problem struct{ host, reason, cluster, evidence string }

// Suggest says what would make the fleet's placement better: hosts to be emptied once, so that
// their members come to where they would be placed today, or, where no host is, leaders to be
// handed on. Each
// suggestion makes it strictly better if those before it were carried out; what breaks a
// rule and no suggestion mends is told beside.
func Suggest(hosts []Host, clusters []Request) v1alpha1.Rebalance {
	hosts = sortHosts(hosts)
	r := v1alpha1.Rebalance{Suggestions: []v1alpha1.Suggestion{}}
	requests := map[string]*Request{}
	for i := range clusters {
		requests[clusters[i].Cluster] = &clusters[i]
	}
	before := scoreOf(hosts, clusters)
	tried := map[string]bool{}
	for len(r.Suggestions) < mostSuggestions {
		p, after, moves := improvement(hosts, clusters, requests, before, tried)
		if after == nil {
			break
		}
		now := scoreOf(after, clusters)
		s := v1alpha1.Suggestion{
			Reason: p.reason, From: p.host, Evidence: p.evidence, Gain: gain(before, now, moves),
			Commands: []string{"quorate host drain " + p.host + " --wait", "quorate host uncordon " + p.host},
		}
		if slices.ContainsFunc(hosts, func(h Host) bool { return h.Name == p.host && h.Cordoned }) {
			s.Commands = append(s.Commands, "quorate host cordon "+p.host) // as it was found
		}
		s.Namespace, s.Cluster, _ = strings.Cut(p.cluster, "/")
		r.Suggestions = append(r.Suggestions, s)
		hosts, before = after, now
	}
	for _, v := range Check(hosts, clusters...) {
		r.Wrong = append(r.Wrong, v.Text)
	}
	if len(r.Suggestions) == 0 {
		// Members that move change who leads, and their IDs: first things first.
		r.Suggestions = suggestLeaders(hosts, requests)
	}
	return r
}

// improvement finds the gravest problem that emptying a host makes better. A host is
// emptied for one suggestion only.
func improvement(hosts []Host, clusters []Request, requests map[string]*Request, before score, tried map[string]bool) (problem, []Host, []string) {
	for _, p := range problems(hosts, clusters) {
		if tried[p.host] || len(tried) == mostTries {
			continue
		}
		tried[p.host] = true
		after, moves := emptied(hosts, requests, p.host)
		if after != nil && scoreOf(after, clusters).less(before) {
			return p, after, moves
		}
	}
	return problem{}, nil, nil
}

// problems are the hosts on which something is not as it should be, the gravest first.
func problems(hosts []Host, clusters []Request) []problem {
	var found []problem
	for _, v := range Check(hosts, clusters...) {
		if v.Host != "" {
			found = append(found, problem{v.Host, v.Reason, v.Cluster, v.Text})
			continue
		}
		// A zone's share: any host there may be emptied.
		for i := range hosts {
			if v.Cluster != "" && hosts[i].on(v.Cluster) > 0 {
				found = append(found, problem{hosts[i].Name, v.Reason, v.Cluster, v.Text})
			}
		}
	}
	for i := range hosts {
		found = append(found, sharers(&hosts[i])...)
	}
	on, zones := standingOn(hosts), zonesOfPools(hosts)
	for i := range clusters {
		found = append(found, crowded(on[clusters[i].Cluster], zones[pool(clusters[i].Placement.Pool)], &clusters[i])...)
	}
	byName := map[string]*Host{}
	for i := range hosts {
		byName[hosts[i].Name] = &hosts[i]
	}
	return slices.DeleteFunc(found, func(p problem) bool {
		h := byName[p.host]
		return h == nil || h.Draining || h.Silent
	})
}

func sharers(h *Host) []problem {
	byCluster := map[string][]string{}
	for _, m := range h.Members {
		byCluster[m.Cluster] = append(byCluster[m.Cluster], m.Name)
	}
	var found []problem
	for _, cluster := range slices.Sorted(maps.Keys(byCluster)) {
		if names := byCluster[cluster]; len(names) > 1 {
			slices.Sort(names)
			found = append(found, problem{
				h.Name, SuggestSharedHost, cluster,
				fmt.Sprintf("%s of cluster %s share host %s", strings.Join(names, " and "), cluster, h.Name),
			})
		}
	}
	return found
}

// zonesOfPools are the zones in which each pool has hosts.
func zonesOfPools(hosts []Host) map[string]map[string]bool {
	zones := map[string]map[string]bool{}
	for i := range hosts {
		name := pool(hosts[i].Pool)
		if zones[name] == nil {
			zones[name] = map[string]bool{}
		}
		zones[name][hosts[i].Zone] = true
	}
	return zones
}

// crowded are the hosts, of those that a cluster has members on, in the zones that have two
// members more of it than another zone of its pool.
func crowded(hosts []Host, zones map[string]bool, r *Request) []problem {
	z := zonesOf(hosts, r)
	least := -1
	for zone := range zones {
		if _, named := z.named[zone]; (z.named == nil || named) && (least < 0 || z.have[zone] < least) {
			least = z.have[zone]
		}
	}
	var found []problem
	for i := range hosts {
		h := &hosts[i]
		if n := z.have[h.Zone]; least >= 0 && n > least+1 && h.on(r.Cluster) > 0 {
			found = append(found, problem{
				h.Name, SuggestUnevenZones, r.Cluster,
				fmt.Sprintf("cluster %s has %d members in zone %s, and another zone of its pool has %d", r.Cluster, n, cmp.Or(h.Zone, "(none)"), least),
			})
		}
	}
	return found
}

// emptied is the fleet after a host was drained and let in again, and who went where; nil
// where not every member has somewhere to go.
func emptied(hosts []Host, requests map[string]*Request, name string) (after []Host, moves []string) {
	after = slices.Clone(hosts)
	at := slices.IndexFunc(after, func(h Host) bool { return h.Name == name })
	after[at].Draining = true
	// The order in which the fleet empties a host.
	rank := map[v1alpha1.ServiceClass]int{v1alpha1.ClassBestEffort: 0, v1alpha1.ClassBurstable: 1, v1alpha1.ClassGuaranteed: 2}
	members := slices.Clone(after[at].Members)
	slices.SortStableFunc(members, func(a, b Member) int {
		return cmp.Or(cmp.Compare(rank[class(a.Class)], rank[class(b.Class)]), cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Name, b.Name))
	})
	for _, m := range members {
		r := requests[m.Cluster]
		if r == nil {
			return nil, nil
		}
		c := Choose(after, r)
		if c.Host == nil {
			return nil, nil
		}
		stand(after, c.Host.Name, m)
		after[at].Members = slices.DeleteFunc(slices.Clone(after[at].Members), func(o Member) bool { return o.Cluster == m.Cluster && o.Name == m.Name })
		moves = append(moves, m.Name+" to "+c.Host.Name)
	}
	after[at].Draining = false
	return after, moves
}

func gain(before, after score, moves []string) string {
	var parts []string
	for i, what := range []string{"rules broken", "members beside another of their cluster", "unevenness over zones (sum of squares)"} {
		if before[i] != after[i] {
			parts = append(parts, fmt.Sprintf("%s: %d instead of %d", what, after[i], before[i]))
		}
	}
	const shown = 5
	n := len(moves)
	if n > shown {
		moves = append(slices.Clone(moves[:shown]), fmt.Sprintf("and %d more", n-shown))
	}
	return fmt.Sprintf("%s; %d %s (%s)", strings.Join(parts, ", "), n, plural(n, "member moves", "members move"), strings.Join(moves, ", "))
}

// suggestLeaders hands on leaders of hosts that lead more clusters than others do, to hosts in
// the leader zones of the cluster: from elsewhere the fleet would fetch them back.
func suggestLeaders(hosts []Host, requests map[string]*Request) []v1alpha1.Suggestion {
	leads := map[string]int{}
	where := map[string][]*Host{}
	for i := range hosts {
		for _, m := range hosts[i].Members {
			if m.Leads {
				leads[hosts[i].Name]++
			}
			where[m.Cluster] = append(where[m.Cluster], &hosts[i])
		}
	}
	found := []v1alpha1.Suggestion{}
	for i := range hosts {
		from := &hosts[i]
		for _, m := range from.Members {
			if !m.Leads || len(found) == mostSuggestions {
				continue
			}
			var zones []string
			if r := requests[m.Cluster]; r != nil {
				zones = r.Placement.LeaderZones
			}
			to, member := fewestLeaders(where[m.Cluster], leads, m.Cluster, zones)
			if to == nil || leads[to.Name]+leaderGap > leads[from.Name] {
				continue
			}
			s := v1alpha1.Suggestion{
				Reason: SuggestLeaders, Member: m.Name, From: from.Name, To: to.Name,
				Evidence: fmt.Sprintf("host %s leads %d clusters, and host %s, which has %s of cluster %s, leads %d", from.Name, leads[from.Name], to.Name, member.Name, m.Cluster, leads[to.Name]),
				Gain:     fmt.Sprintf("%s leads %d clusters and %s %d", from.Name, leads[from.Name]-1, to.Name, leads[to.Name]+1),
			}
			s.Namespace, s.Cluster, _ = strings.Cut(m.Cluster, "/")
			s.Commands = []string{fmt.Sprintf("quorate etcdctl -n %s -c %s move-leader %s", s.Namespace, s.Cluster, member.ID)}
			leads[from.Name]--
			leads[to.Name]++
			found = append(found, s)
		}
	}
	return found
}

// fewestLeaders is the host with the fewest leaders among those of a cluster on which a
// member could lead.
func fewestLeaders(on []*Host, leads map[string]int, cluster string, zones []string) (*Host, *Member) {
	var best *Host
	var member *Member
	for _, h := range on {
		i := slices.IndexFunc(h.Members, func(m Member) bool { return m.Cluster == cluster && !m.Leads && m.ID != "" && !m.Leaving })
		mayLead := len(zones) == 0 || slices.Contains(zones, h.Zone)
		if i >= 0 && mayLead && !h.Silent && !h.Draining && !h.Cordoned && (best == nil || leads[h.Name] < leads[best.Name]) {
			best, member = h, &h.Members[i]
		}
	}
	return best, member
}
