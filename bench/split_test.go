package bench

import (
	"errors"
	"testing"
	"time"
)

func TestSplit(t *testing.T) {
	now := time.Now()
	whole := Spec{Endpoints: []string{"http://127.0.0.1:1"}, Loop: Open, Rate: 100, Clients: 7, Connections: 5, Total: 1001}
	parts, err := whole.Split([]string{"a", "b", "c"}, now)
	if err != nil {
		t.Fatal(err)
	}
	clients, connections, total, rate := 0, 0, int64(0), 0.0
	prefixes, seeds := map[string]bool{}, map[uint64]bool{}
	for i, p := range parts {
		if err = p.Complete(); err != nil {
			t.Errorf("part %d: %v", i, err)
		}
		clients, connections, total, rate = clients+p.Clients, connections+p.Connections, total+p.Total, rate+p.Rate
		prefixes[p.Prefix], seeds[p.Seed] = true, true
		if !p.StartAt.Equal(parts[0].StartAt) || p.StartAt.Before(now.Add(time.Second)) || !p.SliceHistograms || p.NoServers != (i > 0) {
			t.Errorf("part %d: %+v", i, p)
		}
	}
	if clients != 7 || connections != 5 || total != 1001 || rate < 99.9 || rate > 100.1 || len(prefixes) != 3 || len(seeds) != 3 {
		t.Errorf("%d clients, %d connections, %d requests, %g a second, %v", clients, connections, total, rate, prefixes)
	}
	if _, err = whole.Split(make([]string, 8), now); !errors.Is(err, ErrSpec) {
		t.Errorf("more hosts than clients: %v", err)
	}
	if _, err = whole.Split(nil, now); !errors.Is(err, ErrSpec) {
		t.Errorf("no host: %v", err)
	}
	few := whole.Clone()
	few.Total = 2
	if _, err = few.Split([]string{"a", "b", "c"}, now); !errors.Is(err, ErrSpec) {
		t.Errorf("fewer requests than hosts: %v", err)
	}
	reads := whole.Clone()
	reads.Mix, reads.Keys = Mixes["range"], 50_000
	parts, err = reads.Split([]string{"a"}, now)
	if err != nil || parts[0].StartAt.Before(now.Add(10*time.Second)) {
		t.Errorf("the keys have to be written first: %v, %v", parts, err)
	}
}
