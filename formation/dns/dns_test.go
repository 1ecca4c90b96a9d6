package dns_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/formation/dns"
	"github.com/quorate/quorate/store/memory"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func cluster(name, domain, service string, secure bool) *v1alpha1.EtcdCluster {
	c := &v1alpha1.EtcdCluster{}
	c.Namespace, c.Name = "default", name
	c.Spec.Formation = v1alpha1.FormationSpec{Mode: v1alpha1.FormationDNS, DNS: &v1alpha1.DNSSpec{Domain: domain, ServiceName: service}}
	c.Spec.TLS.Mode = v1alpha1.TLSGenerated
	if !secure {
		c.Spec.TLS.Mode = v1alpha1.TLSDisabled
	}
	return c
}

func member(cluster string, n int, address string) *v1alpha1.EtcdMember {
	m := &v1alpha1.EtcdMember{Spec: v1alpha1.EtcdMemberSpec{ClusterName: cluster}}
	m.Namespace, m.Name = "default", fmt.Sprintf("%s-%d", cluster, n)
	m.Labels = map[string]string{v1alpha1.LabelCluster: cluster}
	m.Status.PeerURL, m.Status.ClientURL = "https://"+net.JoinHostPort(address, "2380"), "https://"+net.JoinHostPort(address, "2379")
	return m
}

// serve runs a name server over these clusters and their members.
func serve(t *testing.T, objects ...v1alpha1.Object) *dns.Server {
	t.Helper()
	s := memory.New(memory.Options{})
	for _, o := range objects {
		if m, ok := o.(*v1alpha1.EtcdMember); ok {
			status := m.Status
			must(t, s.Create(t.Context(), m))
			m.Status = status
			must(t, s.UpdateStatus(t.Context(), m))
			continue
		}
		must(t, s.Create(t.Context(), o))
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	server, err := dns.Listen(ctx, "127.0.0.1:0", s, nil)
	must(t, err)
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return server
}

func ask(t *testing.T, s *dns.Server, network, name string, kind uint16) *mdns.Msg {
	t.Helper()
	m := new(mdns.Msg)
	m.SetQuestion(name, kind)
	c := mdns.Client{Net: network}
	answer, _, err := c.ExchangeContext(t.Context(), m, s.Addr().String())
	must(t, err)
	return answer
}

// TestAnswers: SRV records of peers and clients, addresses of both families, and the
// right kind of no.
func TestAnswers(t *testing.T) {
	s := serve(t,
		cluster("a", "etcd.example.com", "", true), member("a", 1, "10.0.0.1"), member("a", 2, "fd00::2"),
		cluster("b", "etcd.example.com", "blue", false), member("b", 1, "10.0.0.9"),
		&v1alpha1.EtcdCluster{ObjectMeta: v1alpha1.ObjectMeta{Namespace: "default", Name: "static"}},
	)
	for _, c := range []struct {
		name string
		kind uint16
		code int
		has  []string
	}{
		{"_etcd-server-ssl._tcp.etcd.example.com.", mdns.TypeSRV, mdns.RcodeSuccess, []string{"2380 a-1.etcd.example.com.", "2380 a-2.etcd.example.com."}},
		{"_ETCD-server-SSL._tcp.etcd.Example.com.", mdns.TypeSRV, mdns.RcodeSuccess, []string{"2380 a-1.etcd.example.com.", "2380 a-2.etcd.example.com."}},
		{"_etcd-client-ssl._tcp.etcd.example.com.", mdns.TypeSRV, mdns.RcodeSuccess, []string{"2379 a-1.etcd.example.com.", "2379 a-2.etcd.example.com."}},
		{"_etcd-server-blue._tcp.etcd.example.com.", mdns.TypeSRV, mdns.RcodeSuccess, []string{"2380 b-1.etcd.example.com."}},
		{"_etcd-server._tcp.etcd.example.com.", mdns.TypeSRV, mdns.RcodeNameError, nil},
		{"a-1.etcd.example.com.", mdns.TypeA, mdns.RcodeSuccess, []string{"10.0.0.1"}},
		{"a-1.etcd.example.com.", mdns.TypeAAAA, mdns.RcodeSuccess, nil},
		{"a-2.etcd.example.com.", mdns.TypeAAAA, mdns.RcodeSuccess, []string{"fd00::2"}},
		{"_tcp.etcd.example.com.", mdns.TypeA, mdns.RcodeSuccess, nil},
		{"etcd.example.com.", mdns.TypeSOA, mdns.RcodeSuccess, []string{"ns.etcd.example.com."}},
		{"etcd.example.com.", mdns.TypeNS, mdns.RcodeSuccess, []string{"ns.etcd.example.com."}},
		{"a-9.etcd.example.com.", mdns.TypeA, mdns.RcodeNameError, nil},
		{"example.com.", mdns.TypeSOA, mdns.RcodeRefused, nil},
		{"www.example.org.", mdns.TypeA, mdns.RcodeRefused, nil},
		{".", mdns.TypeNS, mdns.RcodeRefused, nil},
		{"xetcd.example.com.", mdns.TypeA, mdns.RcodeRefused, nil},
	} {
		for _, network := range []string{"udp", "tcp"} {
			got := ask(t, s, network, c.name, c.kind)
			lines := make([]string, 0, len(got.Answer))
			for _, rr := range got.Answer {
				lines = append(lines, rr.String())
			}
			text := strings.Join(lines, "\n")
			if got.Rcode != c.code || len(got.Answer) != len(c.has) {
				t.Errorf("%s %s: %s, %d answers", network, c.name, mdns.RcodeToString[got.Rcode], len(got.Answer))
			}
			for _, want := range c.has {
				if !strings.Contains(text, want) {
					t.Errorf("%s %s: no %q in %s", network, c.name, want, text)
				}
			}
			if (got.Rcode != mdns.RcodeRefused) != got.Authoritative || got.RecursionAvailable {
				t.Errorf("%s %s: authoritative %t, recursion %t", network, c.name, got.Authoritative, got.RecursionAvailable)
			}
		}
	}
}

// TestLargeAnswer: what does not fit into a packet is cut, and had by TCP.
func TestLargeAnswer(t *testing.T) {
	name := strings.Repeat("long", 14)
	domain := strings.Repeat("x", 60) + ".example.com"
	objects := []v1alpha1.Object{cluster(name, domain, "", true)}
	for n := range 9 {
		objects = append(objects, member(name, n+1, fmt.Sprintf("10.0.0.%d", n+1)))
	}
	s := serve(t, objects...)
	question := "_etcd-server-ssl._tcp." + domain + "."
	// The client takes packets of no more than 512 bytes, and fails on a larger one.
	if got := ask(t, s, "udp", question, mdns.TypeSRV); !got.Truncated {
		t.Errorf("by UDP: %d answers, truncated %t", len(got.Answer), got.Truncated)
	}
	if got := ask(t, s, "tcp", question, mdns.TypeSRV); got.Truncated || len(got.Answer) != 9 || len(got.Extra) != 9 {
		t.Errorf("by TCP: %d answers, truncated %t", len(got.Answer), got.Truncated)
	}
}

// TestZoneFile: the printed lines are what a name server reads, and what this one says.
func TestZoneFile(t *testing.T) {
	c := cluster("a", "etcd.example.com", "", true)
	waiting := member("a", 3, "10.0.0.3")
	waiting.Status = v1alpha1.EtcdMemberStatus{}
	members := []*v1alpha1.EtcdMember{member("a", 10, "fd00::10"), member("a", 1, "10.0.0.1"), waiting}
	r, err := dns.ForCluster(c, members)
	must(t, err)
	if len(r.Missing) != 1 || r.Missing[0] != "a-3" {
		t.Errorf("missing: %v", r.Missing)
	}
	s := serve(t, c, members[0], members[1])
	parser := mdns.NewZoneParser(strings.NewReader(r.String()), "", "")
	n := 0
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		n++
		got := ask(t, s, "tcp", rr.Header().Name, rr.Header().Rrtype)
		found := false
		for _, a := range got.Answer {
			found = found || mdns.IsDuplicate(a, rr)
		}
		if !found {
			t.Errorf("%s: the server says %v", rr, got.Answer)
		}
	}
	if err := parser.Err(); err != nil || n != 6 {
		t.Errorf("%d records, %v, in\n%s", n, err, r)
	}
	if r, err := dns.ForCluster(&v1alpha1.EtcdCluster{}, nil); r != nil || err != nil {
		t.Errorf("a cluster without DNS: %v %v", r, err)
	}
}

// TestOneBadClusterSilencesNobody: what one host reports of its member costs that
// cluster its records, and no other.
func TestOneBadClusterSilencesNobody(t *testing.T) {
	bad := member("bad", 1, "10.0.0.3")
	bad.Status.PeerURL = "https://no-address:2380"
	none := cluster("none", "", "", true)
	none.Spec.Formation.DNS = nil
	s := serve(t,
		cluster("bad", "bad.example.com", "", true), bad, none,
		cluster("good", "good.example.com", "", true), member("good", 1, "10.0.0.4"),
	)
	if a := ask(t, s, "udp", "good-1.good.example.com.", mdns.TypeA); a.Rcode != mdns.RcodeSuccess || len(a.Answer) != 1 {
		t.Errorf("the other cluster's name: %s", a)
	}
}
