package place_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/fleet/place"
)

// BenchmarkTenThousandMembers is what a person or a plan waits for, on 1,000 hosts with
// 10,000 members.
func BenchmarkTenThousandMembers(b *testing.B) {
	l := &lab{}
	for i := range 1000 {
		l.hosts = append(l.hosts, place.Host{Name: fmt.Sprintf("h%04d", i), Zone: string(rune('a' + i%3)), Capacity: place.Amounts{CPU: 64_000, Memory: 256 << 30}})
	}
	for i := range 2000 {
		r := place.Request{Cluster: fmt.Sprintf("ns/c%04d", i), Replicas: 5, Class: v1alpha1.ClassBurstable, Requests: place.Amounts{CPU: 500, Memory: 1 << 30}}
		l.clusters = append(l.clusters, r)
		for j := range 5 {
			// Every tenth cluster stands as nobody would place it today.
			at := (i*5 + j*3) % 1000
			if i%10 == 0 {
				at = (i * 5) % 1000
			}
			l.hosts[at].Members = append(l.hosts[at].Members, place.Member{Name: fmt.Sprintf("%s-%d", r.Cluster, j), Cluster: r.Cluster, Class: r.Class, Requests: r.Requests})
		}
	}
	for what, do := range map[string]func(){
		"place":     func() { place.Place(l.hosts, &place.Request{Cluster: "ns/new", Replicas: 7}, strconv.Itoa) },
		"rebalance": func() { place.Suggest(l.hosts, l.clusters) },
		"check":     func() { place.Check(l.hosts, l.clusters...) },
		"usage":     func() { _, _ = place.Use(l.hosts, "class") },
	} {
		b.Run(what, func(b *testing.B) {
			for b.Loop() {
				do()
			}
		})
	}
}
