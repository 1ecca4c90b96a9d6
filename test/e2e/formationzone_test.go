package e2e_test

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// zone is a name server that a person edits.
type zone struct {
	t       *testing.T
	mu      sync.Mutex
	records []dns.RR
}

func newZone(t *testing.T, at netip.AddrPort) *zone {
	t.Helper()
	z := &zone{t: t}
	for _, network := range []string{"udp", "tcp"} {
		up := make(chan struct{})
		s := &dns.Server{Addr: at.String(), Net: network, Handler: z, NotifyStartedFunc: func() { close(up) }}
		failed := make(chan error, 1)
		go func() { failed <- s.ListenAndServe() }()
		select {
		case <-up:
		case err := <-failed:
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return z
}

// set replaces all records with those lines that keep lets pass.
func (z *zone) set(lines []string, keep func(string) bool) {
	z.t.Helper()
	var records []dns.RR
	for _, line := range lines {
		if keep != nil && !keep(line) {
			continue
		}
		rr, err := dns.NewRR(line)
		must(z.t, err)
		records = append(records, rr)
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.records = records
}

func (z *zone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	m := new(dns.Msg)
	m.SetReply(q)
	m.Authoritative = true
	m.Rcode = dns.RcodeNameError
	for _, rr := range z.records {
		if dns.CanonicalName(rr.Header().Name) != dns.CanonicalName(q.Question[0].Name) {
			continue
		}
		m.Rcode = dns.RcodeSuccess
		if rr.Header().Rrtype == q.Question[0].Qtype {
			m.Answer = append(m.Answer, rr)
		}
	}
	_ = w.WriteMsg(m)
}
