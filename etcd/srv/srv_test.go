package srv

import (
	"strings"
	"testing"

	"github.com/quorate/quorate/api/v1alpha1"
)

// TestCompare: records fit only if they name every founding member, and nothing else.
func TestCompare(t *testing.T) {
	t.Parallel()
	d := &v1alpha1.DNSSpec{Domain: "example.com"}
	want, secure, err := Targets([]v1alpha1.Peer{{Name: "a", URL: "https://10.0.0.1:2380"}, {Name: "b", URL: "https://[fd00::2]:2380"}}, d.Domain)
	if err != nil || !secure {
		t.Fatal(err)
	}
	a := seen{host: "a.example.com", port: 2380, addrs: []string{"10.0.0.1"}}
	b := seen{host: "b.example.com", port: 2380, addrs: []string{"fd00:0::2"}}
	other := seen{host: "c.example.com", port: 2380, addrs: []string{"10.0.0.3"}}
	port, moved, nowhere := a, a, a
	port.port, moved.addrs, nowhere.addrs = 2381, []string{"10.0.0.7"}, nil
	alias := seen{host: "db1.example.org", port: 2380, addrs: []string{"10.0.0.9", "10.0.0.1"}}
	for name, c := range map[string]struct {
		records, stray []seen
		reason         string
		says           []string
	}{
		"right":       {[]seen{b, a}, nil, "", nil},
		"other names": {[]seen{b, alias}, nil, "", nil},
		"none": {nil, nil, ReasonMissing, []string{
			"_etcd-server-ssl._tcp.example.com. 60 IN SRV 0 0 2380 a.example.com.", "a.example.com. 60 IN A 10.0.0.1", "b.example.com. 60 IN AAAA fd00::2",
		}},
		"half":       {[]seen{a}, nil, ReasonIncomplete, []string{"for 1 of 2 members", "2380 b.example.com."}},
		"extra":      {[]seen{a, b, other}, nil, ReasonWrong, []string{"c.example.com:2380 (10.0.0.3) is no founding member"}},
		"port":       {[]seen{port, b}, nil, ReasonWrong, []string{"has the port 2381, and a listens on 2380"}},
		"address":    {[]seen{moved, b}, nil, ReasonWrong, []string{"has the address 10.0.0.7, and a is at 10.0.0.1"}},
		"no address": {[]seen{nowhere, b}, nil, ReasonWrong, []string{"a.example.com"}},
		"twice":      {[]seen{a, b, alias}, nil, ReasonWrong, []string{"db1.example.org"}},
		"both":       {[]seen{a, b}, []seen{a}, ReasonWrong, []string{"_etcd-server._tcp.example.com names a.example.com:2380", "one more member"}},
	} {
		got := compare(ServerName(d, true), want, c.records, ServerName(d, false), c.stray)
		if c.reason == "" {
			if got != nil {
				t.Errorf("%s: %+v", name, got)
			}
			continue
		}
		if got == nil || got.Reason != c.reason {
			t.Errorf("%s: %+v, want %s", name, got, c.reason)
			continue
		}
		for _, s := range c.says {
			if !strings.Contains(got.Message, s) {
				t.Errorf("%s: no %q in %s", name, s, got.Message)
			}
		}
	}
	named := &v1alpha1.DNSSpec{Domain: "example.com", ServiceName: "blue"}
	if got := ServerName(named, true) + " " + ClientName(named, false); got != "_etcd-server-ssl-blue._tcp.example.com _etcd-client-blue._tcp.example.com" {
		t.Error(got)
	}
}
