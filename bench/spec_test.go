package bench

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestBadSpecs(t *testing.T) {
	for want, edit := range map[string]func(*Spec){
		"no endpoint was given":             func(s *Spec) { s.Endpoints = nil },
		`endpoint "ftp://x"`:                func(s *Spec) { s.Endpoints = []string{"ftp://x"} },
		"the loop is":                       func(s *Spec) { s.Loop = "half" },
		"an open loop has a rate":           func(s *Spec) { s.Loop = Open },
		"a rate belongs to an open loop":    func(s *Spec) { s.Rate = 5 },
		"arrivals are":                      func(s *Spec) { s.Arrivals = "late" },
		"in flight":                         func(s *Spec) { s.Loop, s.Rate, s.MaxInFlight = Open, 1, -1 },
		"namespaces: give":                  func(s *Spec) { s.Namespaces = -1 },
		"clients: give":                     func(s *Spec) { s.Clients = 1e6 },
		"are more than":                     func(s *Spec) { s.Clients, s.Namespaces = 1e5, 10 },
		"connections: give":                 func(s *Spec) { s.Connections = 1e6 },
		"is negative":                       func(s *Spec) { s.Ramp = -1 },
		"31 days":                           func(s *Spec) { s.Duration = Duration(1000 * time.Hour) },
		"the timeout is":                    func(s *Spec) { s.Timeout = 1 },
		"keys: give":                        func(s *Spec) { s.Keys = 1e9 },
		"a range reads":                     func(s *Spec) { s.Mix, s.RangeKeys = []Share{{Range, 1}}, 1e6 },
		"etcd takes 1 to 128":               func(s *Spec) { s.TxnOps = 129 },
		"it takes a key for each":           func(s *Spec) { s.Mix, s.Keys, s.TxnOps = []Share{{Txn, 1}}, 3, 4 },
		"a page of":                         func(s *Spec) { s.PageSize = -1 },
		"watchers: give":                    func(s *Spec) { s.Watchers = -1 },
		"the scope of watchers":             func(s *Spec) { s.WatchScope = "all" },
		"a lease of":                        func(s *Spec) { s.LeaseTTL = 1 },
		"keys on a lease":                   func(s *Spec) { s.LeaseKeys = 500 },
		"a slice of":                        func(s *Spec) { s.Slice = 1 },
		"name one that is this run's own":   func(s *Spec) { s.Prefix = "//" },
		"so that it covers no neighbour":    func(s *Spec) { s.Prefix = "/a" },
		"longer than 256":                   func(s *Spec) { s.Prefix = strings.Repeat("a", 300) + "/" },
		"watchers of single keys":           func(s *Spec) { s.Watchers, s.WatchScope, s.Keys = 5, WatchKey, 4 },
		"is unknown, of no weight or twice": func(s *Spec) { s.Mix = []Share{{Put, 1}, {Put, 1}} },
		"a key of 50 bytes: give 54":        func(s *Spec) { s.Mix, s.KeySize = Mixes["kubernetes"], Sizes{Kind: Fixed, Min: 50} },
		"a key of 10 bytes":                 func(s *Spec) { s.KeySize = Sizes{Kind: Fixed, Min: 10} },
		"a value of 2000000 bytes":          func(s *Spec) { s.ValueSize = Sizes{Kind: Fixed, Min: 2e6} },
		"the value size is of kind":         func(s *Spec) { s.ValueSize = Sizes{Kind: "big", Min: 1} },
		"the list of value sizes is empty":  func(s *Spec) { s.ValueSize = Sizes{Kind: Listed} },
		"the exponent of zipf":              func(s *Spec) { s.Skew = Skew{Kind: Zipf, Exponent: 1} },
		"hot keys are a share of":           func(s *Spec) { s.Skew = Skew{Kind: HotSet, Share: 2} },
		"the skew is":                       func(s *Spec) { s.Skew = Skew{Kind: "odd"} },
	} {
		s := Default()
		s.Endpoints = []string{"127.0.0.1"}
		edit(&s)
		err := s.Complete()
		if !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestComplete(t *testing.T) {
	s := Spec{Endpoints: []string{"a", "https://b:1", "a:2379", " "}, Workload: "kubernetes", Mix: Mixes["kubernetes"], Clients: 250}
	if err := s.Complete(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"http://a:2379", "https://b:1"}, s.Endpoints); diff != "" {
		t.Error(diff)
	}
	if s.Connections != 3 || s.Watchers != 1 || s.Loop != Closed || s.Seed == 0 || s.Duration == 0 || !s.preloads() {
		t.Errorf("%+v", s)
	}
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseSpec(raw)
	if diff := cmp.Diff(s, again); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	if _, err := ParseSpec([]byte(`{"duration":"1x"}`)); !errors.Is(err, ErrSpec) {
		t.Errorf("got %v", err)
	}
	if _, err := ParseSpec([]byte(`{"surprise":1}`)); !errors.Is(err, ErrSpec) {
		t.Errorf("got %v", err)
	}
	w := Default()
	w.Endpoints, w.Watchers, w.ValueSize = []string{"a"}, 1, Sizes{Kind: Fixed, Min: 1}
	if err := w.Complete(); err != nil || w.ValueSize.Min < stampSize {
		t.Errorf("values of %d bytes can't hold a stamp, %v", w.ValueSize.Min, err)
	}
}

func TestParseMix(t *testing.T) {
	got, err := ParseMix("put=30, range=60,txn")
	if diff := cmp.Diff([]Share{{Put, 30}, {Range, 60}, {Txn, 1}}, got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	for _, bad := range []string{"", "put=0", "put=x", "pull=1", "put=1,put=2", "put=-1"} {
		if _, err := ParseMix(bad); !errors.Is(err, ErrSpec) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for name, mix := range Mixes {
		for _, s := range mix {
			if _, err := runnerOf(s.Operation); err != nil || s.Weight <= 0 {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestParseMatrix(t *testing.T) {
	got, err := ParseMatrix(OperatorsMatrix)
	if diff := cmp.Diff([]Cell{{1, 3000}, {1, 4000}, {1, 5000}, {4, 4000}, {8, 8000}}, got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	for _, bad := range []string{"", "3", "0x1", "1x", "ax1"} {
		if _, err := ParseMatrix(bad); !errors.Is(err, ErrSpec) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestSizes(t *testing.T) {
	r := newRand(1, 1)
	for text, bounds := range map[string][2]int{
		"256": {256, 256}, "100-200": {100, 200}, "4K": {4096, 4096}, "1,5,9": {1, 9},
		"normal:1000:100": {500, 1500}, "lognormal:1000:0.2": {300, 3000},
	} {
		s, err := ParseSizes(text)
		if err != nil {
			t.Fatal(err)
		}
		if err = s.check("value", 0, maxValue); err != nil {
			t.Fatal(err)
		}
		if again, err := ParseSizes(s.String()); err != nil || again.Kind != s.Kind {
			t.Errorf("%s: %q %v", text, s, err)
		}
		sum := 0
		for range 1000 {
			n := s.draw(r)
			sum += n
			if n < bounds[0] || n > bounds[1] || n > s.largest() {
				t.Fatalf("%s: drew %d", text, n)
			}
		}
		if mean := sum / 1000; strings.Contains(text, "normal") && (mean < 900 || mean > 1150) {
			t.Errorf("%s: mean %d", text, mean)
		}
	}
	for _, bad := range []string{"", "x", "-5", "9-3", "normal:5", "lognormal:x:1", "odd:1:1", "1,x", "1-x", "9999999M", "normal:1:-1"} {
		if _, err := ParseSizes(bad); !errors.Is(err, ErrSpec) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestSkew(t *testing.T) {
	const keys, draws = 1000, 20000
	for text, check := range map[string]func(hits []int) bool{
		"uniform":     func(h []int) bool { return h[0] < 60 && h[999] > 2 },
		"sequential":  func(h []int) bool { return h[0] == 20 && h[999] == 20 },
		"zipf":        func(h []int) bool { return h[0] > 10*max(h[100], 1) },
		"zipf:2":      func(h []int) bool { return h[0] > draws/2 },
		"hot":         func(h []int) bool { return sum(h[:10]) > draws*88/100 && sum(h[:10]) < draws*92/100 },
		"hot:0.5:0.5": func(h []int) bool { return sum(h[:500]) > draws*48/100 && sum(h[:500]) < draws*52/100 },
		"hot:1:0.1":   func(h []int) bool { return h[999] > 2 },
	} {
		s, err := ParseSkew(text)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseSkew(s.String()); err != nil || again != s {
			t.Errorf("%s: %v %v", text, again, err)
		}
		var sp space
		r := newRand(1, 2)
		p := newPicker(s, keys, &sp.next, r)
		hits := make([]int, keys)
		for range draws {
			hits[p.draw(r)]++
		}
		if !check(hits) {
			t.Errorf("%s: %v…", text, hits[:20])
		}
	}
	for _, bad := range []string{"", "odd", "zipf:1", "zipf:x", "zipf:1.1:2", "hot:0.1", "hot:2:1", "uniform:1"} {
		if _, err := ParseSkew(bad); !errors.Is(err, ErrSpec) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func sum(v []int) int {
	n := 0
	for _, x := range v {
		n += x
	}
	return n
}

func TestMixer(t *testing.T) {
	m := newMixer([]Share{{Put, 3}, {Range, 1}}, map[Operation]int{Put: 0, Range: 1})
	r := newRand(1, 3)
	hits := make([]int, 2)
	for range 10000 {
		hits[m.draw(r)]++
	}
	if hits[0] < 7300 || hits[0] > 7700 {
		t.Errorf("%v", hits)
	}
}

// TestKeys: keys sort by number, have their size, and are the same each time.
func TestKeys(t *testing.T) {
	s := &session{spec: Default()}
	s.spec.KeySize = Sizes{Kind: Within, Min: 30, Max: 90}
	sp := &space{prefix: []byte("/p/00001/")}
	last := ""
	for n := range 300 {
		k := string(s.appendKey(nil, sp, n))
		if k <= last || len(k) < 30 || len(k) > 90 || k != string(s.appendKey(nil, sp, n)) {
			t.Fatalf("%q after %q", k, last)
		}
		last = k
	}
}

func TestPrefixEnd(t *testing.T) {
	for prefix, want := range map[string]string{"/a/": "/a0", "a\xff": "b", "\xff": "\x00"} {
		if got := string(prefixEnd([]byte(prefix))); got != want {
			t.Errorf("%q: got %q, want %q", prefix, got, want)
		}
	}
}

func TestLoopback(t *testing.T) {
	for endpoint, want := range map[string]bool{
		"http://127.0.0.1:2379": true, "https://localhost:1": true, "http://[::1]:1": true, "http://10.0.0.1:2379": false, "https://etcd.example.com:2379": false,
	} {
		if Loopback(endpoint) != want {
			t.Errorf("%s: want %t", endpoint, want)
		}
	}
}
