package inspect

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/quorate/quorate/etcd"
)

// When a certificate is to be renewed. One that is made for a short time is not told
// from the day it is made: a third of its life counts for it, and a twelfth.
const (
	expiryWarning  = 30 * 24 * time.Hour
	expiryCritical = 7 * 24 * time.Hour
	shareWarning   = 3
	shareCritical  = 12
)

// certificates: which are about to end, and where is none? One that keeps a member
// from being asked at all is told there.
func certificates(o *Observation) []Finding {
	found := o.ownCertificates()
	authorities := map[string]bool{}
	for i := range o.Members {
		m := &o.Members[i]
		for n, c := range m.Certificates {
			if n == 0 {
				if m.Reach.Cause != etcd.FaultExpired && m.Reach.Cause != etcd.FaultNotYetValid {
					found = append(found, o.ending(c, "certificate-expiry", m.Label(), "the certificate of "+m.Label(), renewServer)...)
				}
				continue
			}
			if key := c.Subject + c.NotAfter.String(); !authorities[key] {
				authorities[key] = true
				found = append(found, o.ending(c, "ca-expiry", cluster, "the intermediate CA "+c.Subject, renewCA)...)
			}
		}
	}
	return append(found, o.namesMissing()...)
}

const (
	renewServer = "Have it issued anew and put it in its place: etcd reads it again by itself for the next connection, without a restart."
	renewClient = "Have it issued anew, and give it to whoever uses this one."
	renewCA     = "Have a new CA made, trust both on every member and client (a rolling restart: etcd never reads its CA files again), issue all certificates anew, then drop the old one."
)

// ownCertificates are those that were given: the client's and the trusted roots.
func (o *Observation) ownCertificates() []Finding {
	var found []Finding
	if c := o.ClientCertificate; c != nil {
		found = append(found, o.ending(*c, "client-certificate-expiry", "client", "the client certificate "+c.Subject, renewClient)...)
	}
	for _, c := range o.Roots {
		found = append(found, o.ending(c, "ca-expiry", cluster, "the CA "+c.Subject, renewCA)...)
	}
	return found
}

// ending says how soon a certificate is over.
func (o *Observation) ending(c Certificate, id, subject, what, fix string) []Finding {
	left, life := c.NotAfter.Sub(o.AskedAt), c.NotAfter.Sub(c.NotBefore)
	f := Finding{
		ID: id, Severity: Warning, Subject: subject,
		Evidence: []string{fmt.Sprintf("%s, issued by %s, valid from %s to %s", c.Subject, c.Issuer, day(c.NotBefore), day(c.NotAfter))},
		Why:      "The moment it ends, connections that need it fail, all at once.",
		Fix:      fix,
	}
	switch {
	case o.AskedAt.Before(c.NotBefore):
		f.Severity, f.Title = Critical, upper(what)+" is not valid before "+day(c.NotBefore)
		f.Fix = "Look at the clock of this machine first. If it is right, wait, or have the certificate issued anew."
	case left <= 0:
		f.Severity, f.Title = Critical, fmt.Sprintf("%s expired %s ago", upper(what), span(left))
	case left <= min(expiryCritical, life/shareCritical):
		f.Severity, f.Title = Critical, fmt.Sprintf("%s ends in %s", upper(what), span(left))
	case left <= min(expiryWarning, life/shareWarning):
		f.Title = fmt.Sprintf("%s ends in %s", upper(what), span(left))
	default:
		return nil
	}
	if id == "certificate-expiry" {
		f.Commands = []string{"openssl s_client -connect " + hostOf(subject) + " </dev/null 2>/dev/null | openssl x509 -noout -subject -dates   # shows the one in use"}
	}
	return []Finding{f}
}

// hostOf takes host and port out of a label.
func hostOf(label string) string {
	_, rest, ok := strings.Cut(label, "://")
	if !ok {
		return label
	}
	return strings.TrimRight(rest, ")/")
}

// namesMissing are advertised URLs that the certificate does not name: clients that
// follow the member list can't verify them, even where this endpoint works.
func (o *Observation) namesMissing() []Finding {
	var found []Finding
	for _, m := range o.answering() {
		if len(m.Certificates) == 0 {
			continue
		}
		for _, raw := range m.ClientURLs {
			u, err := url.Parse(raw)
			if err != nil || u.Scheme != "https" || names(m.Certificates[0], u.Hostname()) {
				continue
			}
			found = append(found, Finding{
				ID: "tls-name", Severity: Warning, Subject: m.Label(),
				Title:    fmt.Sprintf("The certificate of %s does not name the address that it advertises", m.Label()),
				Evidence: []string{fmt.Sprintf("advertised: %s; the certificate is for %s", raw, orNone(m.Certificates[0].Hosts))},
				Why:      "Clients that discover the members by the member list refuse to connect to it.",
				Fix:      "Have the certificate issued anew with this name among its subject alternative names, or correct --advertise-client-urls.",
			})
		}
	}
	return found
}

// names tells whether a certificate is for a host; wildcards stand for one label.
func names(c Certificate, host string) bool {
	for _, h := range c.Hosts {
		if strings.EqualFold(h, host) {
			return true
		}
		if ip := net.ParseIP(host); ip != nil && ip.Equal(net.ParseIP(h)) {
			return true
		}
		if rest, ok := strings.CutPrefix(h, "*."); ok {
			if _, tail, cut := strings.Cut(host, "."); cut && strings.EqualFold(tail, rest) {
				return true
			}
		}
	}
	return false
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
