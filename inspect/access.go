package inspect

import (
	"net/url"
	"strings"

	"github.com/quorate/quorate/etcd"
)

// access: who can get in?
func access(o *Observation) []Finding {
	var plainClient, plainPeer, open []string
	local := true
	for _, m := range o.of() {
		for _, u := range append(m.ClientURLs, m.Endpoint) {
			if strings.HasPrefix(u, "http://") && !contains(plainClient, u) {
				plainClient = append(plainClient, u)
				local = local && selfOnly(u)
			}
		}
		if m.Answers() && strings.HasPrefix(m.Endpoint, "https://") && !m.WantsCertificate {
			open = append(open, m.Label())
		}
	}
	found := o.plain(plainClient, local)
	localPeers := true
	for _, m := range o.of() {
		for _, u := range m.PeerURLs {
			if strings.HasPrefix(u, "http://") {
				plainPeer = append(plainPeer, u)
				localPeers = localPeers && selfOnly(u)
			}
		}
	}
	if len(plainPeer) > 0 {
		f := Finding{
			ID: "plain-peers", Severity: Warning, Subject: cluster,
			Title:    "The members talk to each other in plain text",
			Evidence: []string{"peer URLs: " + andList(plainPeer)},
			Why:      "Peer ports know no user and no password: whoever reaches them can read the hashes of all data, take part in raft, and listen to all that is replicated.",
			Fix:      "Give the members peer certificates and --peer-client-cert-auth, change the peer URLs to https one member at a time, and let nobody else reach these ports.",
			Commands: []string{o.command("member update ID --peer-urls=https://HOST:2380", o.voting()...)},
		}
		if localPeers {
			f.Severity = Info
		}
		found = append(found, f)
	}
	noLogin := o.Login == nil && o.ClientCertificate == nil && !authMayBeOn(o) && len(o.answering()) > 0
	if len(open) > 0 && (noLogin || o.Login != nil && o.Login.Cause == etcd.FaultNoAuth) {
		found = append(found, Finding{
			ID: "open-to-all", Severity: Info, Subject: cluster,
			Title:    "Anyone who can connect may read and write",
			Evidence: []string{"no client certificate is asked for by " + andList(open), "a read without a user name was answered"},
			Why:      "Neither a certificate nor a password keeps strangers out; TLS alone only hides what is said.",
			Fix:      "Start the members with --client-cert-auth and --trusted-ca-file, or turn authentication on.",
		})
	}
	return found
}

func contains(list []string, s string) bool {
	for _, have := range list {
		if sameURL(have, s) {
			return true
		}
	}
	return false
}

// plain tells client URLs without TLS.
func (o *Observation) plain(urls []string, local bool) []Finding {
	if len(urls) == 0 {
		return nil
	}
	f := Finding{
		ID: "plain-clients", Severity: Warning, Subject: cluster,
		Title:    "Clients talk to it in plain text",
		Evidence: []string{"client URLs: " + andList(urls)},
		Why:      "Whoever listens on the way sees keys, values and passwords, and nobody can tell whether it is the right server that answers.",
		Fix:      "Start the members with --cert-file, --key-file, --client-cert-auth and --trusted-ca-file, and change the URLs to https.",
	}
	if local {
		f.Severity = Info
		f.Evidence = append(f.Evidence, "they can be reached from this machine only")
	}
	if !authMayBeOn(o) && (o.Login == nil || o.Login.Cause == etcd.FaultNoAuth) && len(o.answering()) > 0 {
		f.Evidence = append(f.Evidence, "authentication is off: a read without a user name was answered")
	}
	if u, err := url.Parse(urls[0]); err == nil {
		f.Commands = []string{"ss -tlnp 'sport = :" + u.Port() + "'   # on its host: who can reach it?"}
	}
	return []Finding{f}
}
