package place_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/fleet/place"
)

var classes = []v1alpha1.ServiceClass{v1alpha1.ClassGuaranteed, v1alpha1.ClassBurstable, v1alpha1.ClassBestEffort}

func named(r *place.Request) func(int) string {
	return func(i int) string { return fmt.Sprintf("%s-new-%d", r.Cluster, i) }
}

// drawHost is a host with whatever members, rules kept or not.
func drawHost(t *rapid.T, name string) place.Host {
	h := place.Host{
		Name: name, Zone: rapid.SampledFrom([]string{"a", "b", "c", ""}).Draw(t, "zone"),
		Pool:   rapid.SampledFrom([]string{"", "default", "default", "other"}).Draw(t, "pool"),
		Labels: map[string]string{"disk": rapid.SampledFrom([]string{"ssd", "ssd", "hdd"}).Draw(t, "disk")},
		Capacity: place.Amounts{
			CPU: rapid.SampledFrom([]int64{0, 3, 6}).Draw(t, "cpu"), Memory: rapid.SampledFrom([]int64{0, 4, 8}).Draw(t, "memory"),
		},
		Overcommit: rapid.SampledFrom([]int64{0, 100, 150}).Draw(t, "overcommit"),
	}
	switch rapid.IntRange(0, 11).Draw(t, "state") {
	case 0:
		h.Cordoned = true
	case 1:
		h.Draining = true
	case 2:
		h.Silent = true
	case 3:
		h.Unfit = "it fails fsync-latency"
	case 4:
		h.NoRelease = "there is no etcd for its platform"
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "members") {
		cluster := rapid.IntRange(0, 3).Draw(t, "cluster")
		m := place.Member{
			Name: fmt.Sprintf("%s-m%d", name, i), Cluster: fmt.Sprintf("ns/c%d", cluster), Class: classes[cluster%3],
			Requests: place.Amounts{CPU: int64(cluster), Memory: 1}, Dedicated: rapid.IntRange(0, 9).Draw(t, "dedicated") == 0,
		}
		if rapid.IntRange(0, 9).Draw(t, "port") == 0 {
			m.Ports[0] = 2379
		}
		h.Members = append(h.Members, m)
	}
	return h
}

func drawRequest(t *rapid.T) *place.Request {
	r := &place.Request{
		Cluster: "ns/c1", Class: rapid.SampledFrom(classes).Draw(t, "class"), Replicas: rapid.IntRange(1, 5).Draw(t, "replicas"),
		Requests: place.Amounts{CPU: rapid.Int64Range(0, 2).Draw(t, "asks cpu"), Memory: rapid.Int64Range(1, 3).Draw(t, "asks memory")},
	}
	p := &r.Placement
	p.Dedicated = rapid.IntRange(0, 5).Draw(t, "dedicated") == 0
	p.Spread = rapid.SampledFrom([]v1alpha1.SpreadRule{"", v1alpha1.SpreadPreferred, v1alpha1.SpreadRequired}).Draw(t, "spread")
	if rapid.IntRange(0, 3).Draw(t, "labels") == 0 {
		p.HostLabels = map[string]string{"disk": "ssd"}
	}
	if rapid.IntRange(0, 5).Draw(t, "ports") == 0 {
		r.Ports = [3]int32{2379, 0, 0}
	}
	if rapid.Bool().Draw(t, "zones") {
		for _, zone := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 3, rapid.ID).Draw(t, "named") {
			z := v1alpha1.ZonePlacement{Name: zone}
			if rapid.Bool().Draw(t, "counted") {
				n := int32(rapid.IntRange(0, 3).Draw(t, "count"))
				z.Members = &n
			}
			p.Zones = append(p.Zones, z)
		}
	}
	return r
}

// allowed says in its own words whether the cluster may have new members on those hosts.
func allowed(hosts []place.Host, r *place.Request, to []int) bool {
	count, zone := make([]int, len(hosts)), map[string]int{}
	for i, h := range hosts {
		for _, m := range h.Members {
			if m.Cluster == r.Cluster && !h.Draining {
				zone[h.Zone]++
			}
		}
		count[i] = 0
	}
	for _, i := range to {
		count[i]++
		zone[hosts[i].Zone]++
	}
	for i, h := range hosts {
		if count[i] > 0 && !allowedOn(&h, r, count[i]) {
			return false
		}
	}
	if len(r.Placement.Zones) == 0 || len(to) == 0 {
		return true
	}
	sum, restHas, uncounted := 0, 0, false
	counted := map[string]int{}
	for _, z := range r.Placement.Zones {
		if z.Members == nil {
			uncounted = true
			counted[z.Name] = -1
			restHas += zone[z.Name]
		} else {
			sum += int(*z.Members)
			counted[z.Name] = int(*z.Members)
		}
	}
	rest := r.Replicas - sum
	if rest < 0 || rest > 0 && !uncounted {
		return false
	}
	for _, i := range to {
		n, ok := counted[hosts[i].Zone]
		if !ok || n >= 0 && zone[hosts[i].Zone] > n || n < 0 && restHas > rest {
			return false
		}
	}
	return true
}

func allowedOn(h *place.Host, r *place.Request, added int) bool {
	inPool := h.Pool == "default" || h.Pool == ""
	if !inPool || h.Cordoned || h.Draining || h.Silent || h.Unfit != "" || h.NoRelease != "" {
		return false
	}
	if r.Placement.HostLabels != nil && h.Labels["disk"] != "ssd" {
		return false
	}
	if r.Ports[0] != 0 && added > 1 {
		return false
	}
	own := added
	var reserved, best [2]int64
	put := func(m *place.Member) {
		to := &reserved
		if m.Class == v1alpha1.ClassBestEffort {
			to = &best
		}
		to[0] += m.Requests.CPU
		to[1] += m.Requests.Memory
	}
	for range added {
		put(&place.Member{Class: r.Class, Requests: r.Requests})
	}
	for i := range h.Members {
		m := &h.Members[i]
		put(m)
		if r.Ports[0] != 0 && m.Ports[0] == r.Ports[0] {
			return false
		}
		if m.Cluster == r.Cluster {
			own++
			continue
		}
		exclusive := m.Class == v1alpha1.ClassGuaranteed && r.Class != v1alpha1.ClassBestEffort ||
			r.Class == v1alpha1.ClassGuaranteed && m.Class != v1alpha1.ClassBestEffort
		if m.Dedicated || r.Placement.Dedicated || exclusive {
			return false
		}
	}
	if r.Placement.Spread == v1alpha1.SpreadRequired && own > 1 {
		return false
	}
	percent := h.Overcommit
	if percent == 0 {
		percent = 200
	}
	asks := [2]int64{r.Requests.CPU, r.Requests.Memory}
	for i, has := range [2]int64{h.Capacity.CPU, h.Capacity.Memory} {
		if has == 0 || asks[i] == 0 {
			continue
		}
		if r.Class != v1alpha1.ClassBestEffort && reserved[i] > has || best[i]*100 > max(has-reserved[i], 0)*percent {
			return false
		}
	}
	return true
}

// most is how many members, up to the limit, can be placed at all, and the least sum of
// squares of the zones' members with that many. It tries everything.
func most(hosts []place.Host, r *place.Request, limit int) (n, evenest int) {
	for k := limit; k >= 0; k-- {
		evenest = -1
		try(hosts, r, k, 0, nil, &evenest)
		if evenest >= 0 {
			return k, evenest
		}
	}
	return 0, 0
}

// try puts k more members on hosts from the given one on: the members are alike, so their
// order does not matter.
func try(hosts []place.Host, r *place.Request, k, from int, to []int, evenest *int) {
	if k == 0 {
		if !allowed(hosts, r, to) {
			return
		}
		if sum := unevenness(hosts, r, to); *evenest < 0 || sum < *evenest {
			*evenest = sum
		}
		return
	}
	for i := from; i < len(hosts); i++ {
		try(hosts, r, k-1, i, append(to, i), evenest)
	}
}

func unevenness(hosts []place.Host, r *place.Request, to []int) int {
	zone := map[string]int{}
	for _, h := range hosts {
		for _, m := range h.Members {
			if m.Cluster == r.Cluster && !h.Draining {
				zone[h.Zone]++
			}
		}
	}
	for _, i := range to {
		zone[hosts[i].Zone]++
	}
	sum := 0
	for _, n := range zone {
		sum += n * n
	}
	return sum
}

func chosen(p *v1alpha1.Placement) (to []string) {
	for _, m := range p.Members {
		if !m.Standing {
			to = append(to, m.Host)
		}
	}
	return to
}

func indexes(hosts []place.Host, names []string) (to []int) {
	for _, name := range names {
		to = append(to, slices.IndexFunc(hosts, func(h place.Host) bool { return h.Name == name }))
	}
	return to
}

// TestPlaceFindsWhatExists: against every possible assignment, Place breaks no rule, places
// as many members as can be placed at all, and spreads them as evenly over zones as
// can be. It answers the same in whatever order hosts come, and one host more never costs
// a place.
func TestPlaceFindsWhatExists(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var hosts []place.Host
		for i := range rapid.IntRange(0, 5).Draw(t, "hosts") {
			hosts = append(hosts, drawHost(t, fmt.Sprintf("h%d", i)))
		}
		r := drawRequest(t)
		before := fmt.Sprint(hosts)
		p := place.Place(hosts, r, named(r))
		if fmt.Sprint(hosts) != before {
			t.Fatal("the hosts were changed")
		}
		to := indexes(hosts, chosen(&p))
		if !allowed(hosts, r, to) {
			t.Fatalf("placed on %v, which the rules forbid", chosen(&p))
		}
		staying := 0
		for _, h := range hosts {
			for _, m := range h.Members {
				if m.Cluster == r.Cluster && !h.Draining {
					staying++
				}
			}
		}
		missing := max(r.Replicas-staying, 0)
		can, evenest := most(hosts, r, missing)
		if len(to) != can || p.Missing != missing-can {
			t.Fatalf("placed %d of %d (%s), and %d can be", len(to), missing, p.Held, can)
		}
		if (p.Missing > 0) != (p.Held != "" && p.HeldReason != "") {
			t.Fatalf("%d are missing: held %q (%s)", p.Missing, p.Held, p.HeldReason)
		}
		if got := unevenness(hosts, r, to); can > 0 && got != evenest {
			t.Fatalf("zones are less even (%d) than they can be (%d)", got, evenest)
		}
		shuffled := rapid.Permutation(hosts).Draw(t, "order")
		if again := place.Place(shuffled, r, named(r)); fmt.Sprint(again) != fmt.Sprint(p) {
			t.Fatalf("in another order:\n%v\n%v", p, again)
		}
		if more := place.Place(append(slices.Clone(hosts), drawHost(t, "more")), r, named(r)); drawnAway(&more, &p) {
			t.Fatalf("one host more costs a place: %d are missing, not %d", more.Missing, p.Missing)
		}
	})
}

// drawnAway reports whether fewer members have a place than before.
func drawnAway(more, before *v1alpha1.Placement) bool { return more.Missing > before.Missing }

// TestEveryRefusalIsTrue: each host that is refused for one more member may indeed not have
// it, and each that is not may.
func TestEveryRefusalIsTrue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var hosts []place.Host
		for i := range rapid.IntRange(1, 5).Draw(t, "hosts") {
			hosts = append(hosts, drawHost(t, fmt.Sprintf("h%d", i)))
		}
		r := drawRequest(t)
		c := place.Choose(hosts, r)
		for i, h := range hosts {
			at := slices.IndexFunc(c.Refused, func(x v1alpha1.RefusedHost) bool { return x.Host == h.Name })
			refused := at >= 0 || c.HeldReason == place.HeldZones
			if may := allowed(hosts, r, []int{i}); may == refused {
				t.Fatalf("%s: refused %t, and it may take the member: %t (%v)", h.Name, refused, may, c.Refused)
			}
			if at >= 0 && (c.Refused[at].Reason == "" || c.Refused[at].Message == "") {
				t.Fatalf("%s is refused without a reason", h.Name)
			}
		}
	})
}

// lab is a fleet in which clusters come and go.
type lab struct {
	hosts    []place.Host
	clusters []place.Request
	next     int
}

func (l *lab) add(host string, m place.Member) {
	i := slices.IndexFunc(l.hosts, func(h place.Host) bool { return h.Name == host })
	l.hosts[i].Members = append(l.hosts[i].Members, m)
}

// place puts the missing members of a cluster, as a plan would: all of them or none.
func (l *lab) place(r *place.Request) bool {
	p := place.Place(l.hosts, r, func(int) string { l.next++; return fmt.Sprintf("%s-%d", r.Cluster, l.next) })
	if p.Missing > 0 {
		return false
	}
	for _, m := range p.Members {
		if !m.Standing {
			l.add(m.Host, place.Member{
				Name: m.Member, Cluster: r.Cluster, Class: r.Class, Requests: r.Requests, Dedicated: r.Placement.Dedicated,
			})
		}
	}
	return true
}

// move empties a draining host as far as it can be: for each member first a new one, then
// the old one goes.
func (l *lab) move(host string) (moved, stayed int) {
	i := slices.IndexFunc(l.hosts, func(h place.Host) bool { return h.Name == host })
	l.hosts[i].Draining = true
	for _, m := range slices.Clone(l.hosts[i].Members) {
		r := &l.clusters[slices.IndexFunc(l.clusters, func(r place.Request) bool { return r.Cluster == m.Cluster })]
		c := place.Choose(l.hosts, r)
		if c.Host == nil {
			stayed++
			continue
		}
		l.next++
		fresh := m
		fresh.Name = fmt.Sprintf("%s-%d", r.Cluster, l.next)
		l.add(c.Host.Name, fresh)
		l.hosts[i].Members = slices.DeleteFunc(l.hosts[i].Members, func(o place.Member) bool { return o.Name == m.Name })
		moved++
	}
	return moved, stayed
}

// TestRulesHoldAfterAnyHistory: after any sequence of placements, drains and removals, the
// fleet breaks no rule, judged by Check, which knows nothing of how members were placed.
func TestRulesHoldAfterAnyHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &lab{}
		for i := range rapid.IntRange(1, 12).Draw(t, "hosts") {
			l.hosts = append(l.hosts, place.Host{
				Name: fmt.Sprintf("h%02d", i), Zone: string(rune('a' + i%3)),
				Capacity: place.Amounts{CPU: 4000, Memory: 8, Disk: rapid.SampledFrom([]int64{0, 50}).Draw(t, "disk")},
			})
		}
		for i := range rapid.IntRange(1, 25).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
				l.move(rapid.SampledFrom(l.hosts).Draw(t, "drain").Name)
			case 1:
				at := rapid.IntRange(0, len(l.hosts)-1).Draw(t, "undrain")
				l.hosts[at].Draining = false
			case 2:
				if len(l.clusters) > 0 {
					gone := rapid.SampledFrom(l.clusters).Draw(t, "gone").Cluster
					for i := range l.hosts {
						l.hosts[i].Members = slices.DeleteFunc(l.hosts[i].Members, func(m place.Member) bool { return m.Cluster == gone })
					}
					l.clusters = slices.DeleteFunc(l.clusters, func(r place.Request) bool { return r.Cluster == gone })
				}
			default:
				r := drawRequest(t)
				r.Cluster, r.Ports, r.Placement.HostLabels = fmt.Sprintf("ns/n%d", i), [3]int32{}, nil
				r.Requests.CPU *= 700
				if l.place(r) {
					l.clusters = append(l.clusters, *r)
				}
			}
			if wrong := place.Check(l.hosts, l.clusters...); len(wrong) > 0 {
				t.Fatalf("after step %d: %v", i, wrong)
			}
		}
	})
}

// TestFortyHosts: 100 clusters of all classes and of 1 to 7 members on 40 hosts in 4 zones.
func TestFortyHosts(t *testing.T) {
	l := &lab{}
	for i := range 40 {
		h := place.Host{
			Name: fmt.Sprintf("db%02d", i), Zone: string(rune('a' + i%4)),
			Capacity: place.Amounts{CPU: 16_000, Memory: 64 << 30, Disk: 1 << 40},
		}
		if i < 16 {
			h.Pool = "gold"
		}
		l.hosts = append(l.hosts, h)
	}
	sizes := []int{3, 1, 5, 3, 7, 3, 2, 4, 6, 3}
	for i := range 100 {
		r := place.Request{
			Cluster: fmt.Sprintf("team/c%02d", i), Replicas: sizes[i%10], Class: v1alpha1.ClassBestEffort,
			Requests: place.Amounts{CPU: 500, Memory: 2 << 30, Disk: 20 << 30},
		}
		switch {
		case i%20 == 0 || i%20 == 5:
			r.Class, r.Placement.Pool, r.Replicas = v1alpha1.ClassGuaranteed, "gold", 1+i%20/5
			r.Requests = place.Amounts{CPU: 8000, Memory: 32 << 30, Disk: 200 << 30}
			r.Placement.Spread = v1alpha1.SpreadRequired
		case i%2 == 0:
			r.Class, r.Requests.CPU = v1alpha1.ClassBurstable, 1000
		case i%3 == 0:
			r.Placement.Pool = "gold"
		}
		if !l.place(&r) {
			t.Fatalf("%s has no place: %s", r.Cluster, place.Choose(l.hosts, &r).Held)
		}
		l.clusters = append(l.clusters, r)
	}
	checkForty(t, l)
	for _, host := range []string{"db03", "db17", "db20", "db39"} {
		moved, stayed := l.move(host)
		t.Logf("drained %s: %d members moved, %d had nowhere to go", host, moved, stayed)
		if stayed > 0 || moved == 0 {
			t.Errorf("%s: %d members stayed, %d moved", host, stayed, moved)
		}
		checkForty(t, l)
	}
}

func checkForty(t *testing.T, l *lab) {
	t.Helper()
	for _, v := range place.Check(l.hosts, l.clusters...) {
		t.Error(v.Text)
	}
	for i := range l.clusters {
		r := &l.clusters[i]
		zones, onHost := map[string]int{}, 0
		for _, h := range l.hosts {
			n := 0
			for _, m := range h.Members {
				if m.Cluster == r.Cluster {
					zones[h.Zone]++
					n++
				}
			}
			onHost = max(onHost, n)
		}
		most, least := 0, r.Replicas
		for _, zone := range []string{"a", "b", "c", "d"} {
			most, least = max(most, zones[zone]), min(least, zones[zone])
		}
		if most-least > 1 || onHost > 1 {
			t.Errorf("%s (%d members): zones %v, up to %d on one host", r.Cluster, r.Replicas, zones, onHost)
		}
	}
	for _, what := range []struct {
		pool  string
		class v1alpha1.ServiceClass
		// bound is how much more than the mean the fullest host may have.
		bound float64
	}{{"", v1alpha1.ClassBurstable, 1.25}, {"", v1alpha1.ClassBestEffort, 1.4}, {"gold", v1alpha1.ClassBestEffort, 1.8}} {
		var top, sum float64
		hosts := 0
		for _, h := range l.hosts {
			if h.Pool != what.pool || h.Draining {
				continue
			}
			var asked int64
			for _, m := range h.Members {
				if m.Class == what.class {
					asked += m.Requests.CPU
				}
			}
			hosts++
			sum += float64(asked)
			top = max(top, float64(asked))
		}
		mean := sum / float64(hosts)
		t.Logf("pool %q, %s: fullest host %.1f cores of 16, mean %.1f, ratio %.2f", what.pool, what.class, top/1000, mean/1000, top/mean)
		if top > what.bound*mean {
			t.Errorf("pool %q, %s: the fullest host has %.2f times the mean, more than %.1f", what.pool, what.class, top/mean, what.bound)
		}
	}
}

// TestWords: what a person reads.
func TestWords(t *testing.T) {
	two, one := int32(2), int32(1)
	host := func(name, zone string, cpu int64, members ...place.Member) place.Host {
		return place.Host{Name: name, Zone: zone, Capacity: place.Amounts{CPU: cpu}, Members: members}
	}
	burst := func(name, cluster string, cpu int64) place.Member {
		return place.Member{Name: name, Cluster: cluster, Class: v1alpha1.ClassBurstable, Requests: place.Amounts{CPU: cpu}}
	}
	gold := place.Member{Name: "g-1", Cluster: "ns/g", Class: v1alpha1.ClassGuaranteed}
	ask := place.Request{Cluster: "ns/c", Replicas: 3, Requests: place.Amounts{CPU: 500}}
	with := func(change func(*place.Request)) *place.Request { r := ask; change(&r); return &r }
	same := func(*place.Request) {}
	for name, tc := range map[string]struct {
		hosts []place.Host
		r     *place.Request
		want  string
	}{
		"no host": {nil, with(same), "NoHost: no host has joined: start `quorate agent` on one"},
		"most room": {
			[]place.Host{host("x", "a", 1000, burst("c-1", "ns/c", 500)), host("y", "b", 1000, burst("o", "ns/o", 400)), host("z", "b", 4000)},
			with(same),
			"z: zone b has 0 of 3 members, the fewest; of its 2 hosts that can take it z has most room: 87 % of cpu stay free",
		},
		"counts too high": {
			[]place.Host{host("x", "a", 0)},
			with(func(r *place.Request) {
				r.Placement.Zones = []v1alpha1.ZonePlacement{{Name: "a", Members: &two}, {Name: "b", Members: &two}}
			}),
			"ZonesDoNotFit: placement.zones asks for 4 members (a 2, b 2), and the cluster has 3: make the counts add up to replicas",
		},
		"a zone without hosts": {
			[]place.Host{host("x", "a", 0, burst("c-1", "ns/c", 1), burst("c-2", "ns/c", 1))},
			with(func(r *place.Request) {
				r.Placement.Zones = []v1alpha1.ZonePlacement{{Name: "a", Members: &two}, {Name: "b", Members: &one}}
			}),
			"NoHost: x: zone a is to have 2 members, and has 2; zone b has no host in pool default",
		},
		"full": {
			[]place.Host{host("x", "", 1000, burst("o", "ns/o", 800))},
			with(same),
			"NoCapacity: x: cpu: 200m of 1 cores are left, and a member asks for 500m",
		},
		"classes": {
			[]place.Host{host("x", "", 0, gold)},
			with(same),
			"NoCapacity: x: g-1 of cluster ns/g (Guaranteed) stands there, and a Burstable cluster does not share a host with it",
		},
		"spread": {
			[]place.Host{host("x", "", 0, burst("c-1", "ns/c", 1))},
			with(func(r *place.Request) { r.Placement.Spread = v1alpha1.SpreadRequired }),
			"SpreadRequired: x: a member of the cluster stands there, and spread is Required",
		},
		"many": {
			[]place.Host{
				host("x", "", 100), host("y", "", 100), {Name: "v", Pool: "gold"}, {Name: "w", Cordoned: true}, {Name: "u", Unfit: "it fails swap"},
			},
			with(same),
			"NoCapacity: 5 hosts: 2 full, 1 in another pool, 1 cordoned, 1 unfit",
		},
	} {
		c := place.Choose(tc.hosts, tc.r)
		got := c.HeldReason + ": " + c.Held
		if c.Host != nil {
			got = c.Host.Name + ": " + c.Reason
		}
		if got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, tc.want)
		}
	}
}

// TestNotes: what shared hosts and zones mean is said, and nothing where there is nothing to
// say.
func TestNotes(t *testing.T) {
	member := func(n int) place.Member { return place.Member{Name: fmt.Sprintf("c-%d", n), Cluster: "ns/c"} }
	r := &place.Request{Cluster: "ns/c", Replicas: 3, Placement: v1alpha1.PlacementSpec{LeaderZones: []string{"a", ""}}}
	for _, tc := range []struct {
		hosts []place.Host
		want  string
	}{
		{ // the one on a draining host votes until another has taken its place
			[]place.Host{{Name: "x", Zone: "a", Members: []place.Member{member(1)}}, {Name: "y", Zone: "b", Draining: true, Members: []place.Member{member(2)}}, {Name: "z", Zone: "c", Members: []place.Member{member(3)}}},
			"",
		},
		{
			[]place.Host{{Name: "x", Zone: "c", Members: []place.Member{member(1)}}, {Name: "y", Zone: "d", Members: []place.Member{member(2)}}, {Name: "z", Zone: "e", Members: []place.Member{member(3)}}},
			"placement.leaderZones is a, , and no member stands there: whoever etcd elects leads",
		},
		{[]place.Host{{Name: "x", Members: []place.Member{member(1), member(2), member(3)}}}, "c-1 and c-2 and c-3 share host x: the whole cluster is lost with it"},
		{[]place.Host{{Name: "x", Zone: "a", Members: []place.Member{member(1)}}, {Name: "y", Zone: "b", Members: []place.Member{member(2)}}, {Name: "z", Zone: "c", Members: []place.Member{member(3)}}}, ""},
		{
			[]place.Host{{Name: "x", Zone: "a", Members: []place.Member{member(1)}}, {Name: "y", Zone: "b", Members: []place.Member{member(2)}}, {Name: "z", Zone: "b", Members: []place.Member{member(3)}}},
			"zone b holds 2 of 3 members: the quorum is lost with the zone; it takes three zones to survive the loss of any",
		},
		{[]place.Host{{Name: "x", Members: []place.Member{member(1)}}}, ""},
	} {
		if got := strings.Join(place.Notes(tc.hosts, r), "\n"); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}
