package place_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/fleet/place"
)

// badness is how bad a placement is, in the test's own words: rules broken, members beside
// another of their cluster, and squares of members per zone.
func badness(hosts []place.Host, clusters []place.Request) [3]int {
	b := [3]int{len(place.Check(hosts, clusters...))}
	zones := map[string]int{}
	for _, h := range hosts {
		on := map[string]int{}
		for _, m := range h.Members {
			on[m.Cluster]++
			zones[m.Cluster+h.Zone]++
		}
		for _, n := range on {
			b[1] += n - 1
		}
	}
	for _, n := range zones {
		b[2] += n * n
	}
	return b
}

// TestSuggestionsImprove: carried out in their order as a person would, with the fleet's order
// of moving, each suggestion leaves the fleet strictly better; and a fleet placed by the rules on
// hosts that were always there gets none that moves members.
func TestSuggestionsImprove(t *testing.T) {
	some := false
	rapid.Check(t, func(t *rapid.T) {
		l := &lab{}
		for i := range rapid.IntRange(2, 8).Draw(t, "hosts") {
			l.hosts = append(l.hosts, place.Host{Name: fmt.Sprintf("h%d", i), Zone: string(rune('a' + i%3)), Capacity: place.Amounts{CPU: 6}})
		}
		for i := range rapid.IntRange(1, 6).Draw(t, "clusters") {
			r := place.Request{
				Cluster: fmt.Sprintf("ns/c%d", i), Replicas: rapid.SampledFrom([]int{1, 3, 3, 5}).Draw(t, "replicas"),
				Class: rapid.SampledFrom(classes).Draw(t, "class"), Requests: place.Amounts{CPU: 1},
			}
			l.clusters = append(l.clusters, r)
			// Members stand anywhere: the fleet was otherwise when they came.
			for j := range r.Replicas {
				l.add(rapid.SampledFrom(l.hosts).Draw(t, "on").Name, place.Member{
					Name: fmt.Sprintf("%s-%d", r.Cluster, j), Cluster: r.Cluster, Class: r.Class, Requests: r.Requests,
				})
			}
		}
		s := place.Suggest(l.hosts, l.clusters)
		before := badness(l.hosts, l.clusters)
		for _, one := range s.Suggestions {
			some = true
			if one.Evidence == "" || one.Gain == "" || len(one.Commands) == 0 {
				t.Fatalf("%+v lacks something", one)
			}
			host := strings.Fields(one.Commands[0])[3]
			i := slices.IndexFunc(l.hosts, func(h place.Host) bool { return h.Name == host })
			order := map[v1alpha1.ServiceClass]int{v1alpha1.ClassBurstable: 1, v1alpha1.ClassGuaranteed: 2}
			slices.SortFunc(l.hosts[i].Members, func(a, b place.Member) int {
				return cmp.Or(cmp.Compare(order[a.Class], order[b.Class]), cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Name, b.Name))
			})
			if _, stayed := l.move(host); stayed > 0 {
				t.Fatalf("%s: %d members had nowhere to go", host, stayed)
			}
			l.hosts[i].Draining = false
			after := badness(l.hosts, l.clusters)
			if slices.Compare(after[:], before[:]) >= 0 {
				t.Fatalf("%s: %v became %v", one.Evidence, before, after)
			}
			before = after
		}
		if len(place.Check(l.hosts, l.clusters...)) != len(s.Wrong) {
			t.Fatalf("%d rules are broken in the end, and %v was told", before[0], s.Wrong)
		}
	})
	if !some {
		t.Error("nothing was ever suggested")
	}
}

// TestSuggestions: what a person reads.
func TestSuggestions(t *testing.T) {
	member := func(name string, class v1alpha1.ServiceClass) place.Member {
		cluster, _, _ := strings.Cut(name, "-")
		return place.Member{Name: name, Cluster: "ns/" + cluster, Class: class, ID: "1" + name[len(name)-1:]}
	}
	c := func(n int) place.Member { return member(fmt.Sprintf("c-%d", n), v1alpha1.ClassBurstable) }
	leads := func(m place.Member) place.Member { m.Leads = true; return m }
	r := place.Request{Cluster: "ns/c", Replicas: 3}
	gold := place.Request{Cluster: "ns/g", Class: v1alpha1.ClassGuaranteed, Replicas: 1}
	for name, tc := range map[string]struct {
		hosts    []place.Host
		clusters []place.Request
		want     []string
		wrong    int
	}{
		"as it should be":          {[]place.Host{{Name: "a", Members: []place.Member{c(1)}}, {Name: "b", Members: []place.Member{c(2)}}, {Name: "d", Members: []place.Member{c(3)}}}, []place.Request{r}, nil, 0},
		"one host is all there is": {[]place.Host{{Name: "a", Members: []place.Member{c(1), c(2), c(3)}}}, []place.Request{r}, nil, 0},
		"shared, with hosts to spare": {
			[]place.Host{{Name: "a", Members: []place.Member{c(1), c(2), c(3)}}, {Name: "b"}, {Name: "d"}, {Name: "e"}},
			[]place.Request{r},
			[]string{"SharedHost a: c-1 and c-2 and c-3 of cluster ns/c share host a; members beside another of their cluster: 0 instead of 2; 3 members move (c-1 to b, c-2 to d, c-3 to e)"},
			0,
		},
		"a class that changed": {
			[]place.Host{{Name: "a", Members: []place.Member{c(1), member("g-1", v1alpha1.ClassGuaranteed)}}, {Name: "b", Members: []place.Member{c(2)}}, {Name: "d", Members: []place.Member{c(3)}}, {Name: "e"}, {Name: "f"}},
			[]place.Request{r, gold},
			[]string{"ClassExclusive a: host a: g-1 of cluster ns/g is Guaranteed, and c-1 of cluster ns/c (Burstable) stands there too; rules broken: 0 instead of 1; 2 members move (c-1 to e, g-1 to f)"},
			0,
		},
		"a class that changed, and no room": {
			[]place.Host{{Name: "a", Members: []place.Member{c(1), member("g-1", v1alpha1.ClassGuaranteed)}}}, []place.Request{r, gold}, nil, 1,
		},
		"leaders": {
			[]place.Host{
				{Name: "a", Members: []place.Member{leads(c(1)), leads(member("k-1", "")), leads(member("m-1", ""))}},
				{Name: "b", Members: []place.Member{c(2), member("k-2", "")}},
				{Name: "d", Members: []place.Member{c(3), member("m-2", "")}},
			},
			[]place.Request{r},
			[]string{"LeadersPileUp a: host a leads 3 clusters, and host b, which has c-2 of cluster ns/c, leads 0; a leads 2 clusters and b 1", "LeadersPileUp a: host a leads 2 clusters, and host d, which has m-2 of cluster ns/m, leads 0; a leads 1 clusters and d 1"},
			0,
		},
	} {
		got := place.Suggest(tc.hosts, tc.clusters)
		var texts []string
		for _, s := range got.Suggestions {
			texts = append(texts, fmt.Sprintf("%s %s: %s; %s", s.Reason, s.From, s.Evidence, s.Gain))
		}
		if !slices.Equal(texts, tc.want) || len(got.Wrong) != tc.wrong {
			t.Errorf("%s:\n got %q, wrong %q\nwant %q", name, texts, got.Wrong, tc.want)
		}
	}
}

// TestUse: rows add up, and what is not known of each is left out rather than counted as
// nothing.
func TestUse(t *testing.T) {
	gib := int64(1 << 30)
	m := func(class v1alpha1.ServiceClass, team string, used int64) place.Member {
		return place.Member{Name: "x", Cluster: "ns/x", Class: class, Requests: place.Amounts{CPU: 500, Memory: gib}, Used: place.Amounts{CPU: used}, Labels: map[string]string{"team": team}}
	}
	hosts := []place.Host{
		{Name: "db1", Zone: "a", Capacity: place.Amounts{CPU: 4000, Memory: 8 * gib}, Used: place.Amounts{CPU: 300, Memory: gib, Disk: gib}, Members: []place.Member{m(v1alpha1.ClassGuaranteed, "pay", 200), m(v1alpha1.ClassBestEffort, "pay", 100)}},
		{Name: "db2", Zone: "a", Capacity: place.Amounts{CPU: 4000}, Members: []place.Member{m("", "web", 0)}},
		{Name: "db3", Zone: "b", Capacity: place.Amounts{CPU: 4000, Memory: 8 * gib}},
	}
	for by, want := range map[string]string{
		"host":       "db1 1 2 500m/4 of 1Gi/8Gi lent 500m used 300m,1Gi unknown 0; db2 1 1 500m/4 of 1Gi/0 lent 0 used 0,0 unknown 1; db3 1 0 0/4 of 0/8Gi lent 0 used 0,0 unknown 0; ",
		"zone":       "a 2 3 1/8 of 2Gi/0 lent 500m used 0,0 unknown 1; b 1 0 0/4 of 0/8Gi lent 0 used 0,0 unknown 0; ",
		"class":      "BestEffort 0 1 0/0 of 0/0 lent 500m used 100m,0 unknown 1; Burstable 0 1 500m/0 of 1Gi/0 lent 0 used 0,0 unknown 1; Guaranteed 0 1 500m/0 of 1Gi/0 lent 0 used 200m,0 unknown 1; ",
		"label=team": "pay 0 2 500m/0 of 1Gi/0 lent 500m used 300m,0 unknown 2; web 0 1 500m/0 of 1Gi/0 lent 0 used 0,0 unknown 1; ",
		"pool":       "default 3 3 1/12 of 2Gi/0 lent 500m used 0,0 unknown 1; ",
	} {
		u, err := place.Use(hosts, by)
		if err != nil {
			t.Fatal(err)
		}
		var rows strings.Builder
		for _, r := range u.Rows {
			fmt.Fprintf(&rows, "%s %d %d %s/%s of %s/%s lent %s used %s,%s unknown %d; ", r.Name, r.Hosts, r.Members, r.Requested.CPU.String(), r.Capacity.CPU.String(),
				r.Requested.Memory.String(), r.Capacity.Memory.String(), r.BestEffort.CPU.String(), r.Used.CPU.String(), r.Used.Memory.String(), r.Unknown)
		}
		if got := rows.String(); got != want {
			t.Errorf("by %s:\n got %s\nwant %s", by, got, want)
		}
		if u.Total.Members != 3 || u.Total.Hosts != 3 {
			t.Errorf("by %s: the total is %+v", by, u.Total)
		}
	}
	for _, by := range []string{"", "label=", "colour"} {
		if _, err := place.Use(hosts, by); err == nil {
			t.Errorf("by %q: no error", by)
		}
	}
}

// TestSuggestLeadersKeepsZones: leadership is not to be handed to where the fleet would fetch
// it back from, and a host that was cordoned stays so.
func TestSuggestLeadersKeepsZones(t *testing.T) {
	lead := func(cluster string) place.Member {
		return place.Member{Name: cluster + "-1", Cluster: "ns/" + cluster, ID: "1", Leads: true}
	}
	follow := func(cluster string) place.Member {
		return place.Member{Name: cluster + "-2", Cluster: "ns/" + cluster, ID: "2"}
	}
	hosts := []place.Host{
		{Name: "near", Zone: "a", Members: []place.Member{lead("c"), lead("d")}},
		{Name: "far", Zone: "z", Members: []place.Member{follow("c"), follow("d")}},
	}
	clusters := []place.Request{{Cluster: "ns/c", Replicas: 2}, {Cluster: "ns/d", Replicas: 2}}
	if s := place.Suggest(hosts, clusters).Suggestions; len(s) != 1 {
		t.Fatalf("%d suggestions where both hosts may lead: %+v", len(s), s)
	}
	for i := range clusters {
		clusters[i].Placement.LeaderZones = []string{"a"}
	}
	if s := place.Suggest(hosts, clusters).Suggestions; len(s) != 0 {
		t.Fatalf("leadership is to go out of the leader zones: %+v", s)
	}
	shared := []place.Host{{Name: "x", Cordoned: true, Members: []place.Member{lead("c"), follow("c")}}, {Name: "y"}, {Name: "z"}}
	s := place.Suggest(shared, clusters[:1]).Suggestions
	if len(s) != 1 || s[0].Commands[len(s[0].Commands)-1] != "quorate host cordon x" {
		t.Fatalf("a host that was cordoned is let in for good: %+v", s)
	}
}
