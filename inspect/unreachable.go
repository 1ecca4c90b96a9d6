package inspect

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/quorate/quorate/etcd"
)

// trouble is what is said of a cause.
type trouble struct {
	id, title, why, fix string
	commands            []string
	// ours: the fault lies in how it was asked, so all members share one finding.
	ours bool
}

const (
	whyDown   = "Every member that is down brings the cluster nearer to losing its quorum, and its data falls behind."
	whyVerify = "Clients refuse to talk to a member whose certificate they can't verify, so for them it is down."
	onHost    = "systemctl status etcd; journalctl -u etcd -n 50   # on its host"
)

var notValidNow = trouble{
	id: "tls-expired", title: "its certificate is not valid now", why: whyVerify,
	fix: "Have a certificate issued anew and put it in its place: etcd reads it again by itself, without a restart. Look at the clocks, too, if the dates seem right.",
}

var troubles = map[etcd.FaultKind]trouble{
	etcd.FaultRefused: {
		id: "member-down", title: "nothing listens there", why: whyDown,
		fix:      "The host answers, so etcd itself is not running: start it, and read in its log why it ended. If its data is lost, remove the member and add it again.",
		commands: []string{onHost},
	},
	etcd.FaultNoRoute: {
		id: "member-down", title: "there is no way to its host", why: whyDown,
		fix:      "Its host is off, or the network does not lead there: bring it back, or replace the member when it is gone for good.",
		commands: []string{onHost},
	},
	etcd.FaultBlackHole: {
		id: "member-silent", title: "nothing comes back, not even a refusal", why: whyDown,
		fix: "Its host is off, or a firewall drops the packets between here and there. Try from another member's host: if it answers there, only the way from here is closed.",
	},
	etcd.FaultSilent: {
		id: "member-hangs", title: "it takes the connection and then says nothing", why: whyDown,
		fix:      "Something accepts connections and does not serve them: an etcd that hangs on its disk or is paused, or a proxy without anything behind it. Look at the process and its disk, and restart it.",
		commands: []string{onHost, "iostat -x 1 5   # on its host: is the disk busy without doing anything?"},
	},
	etcd.FaultNoName: {
		id: "member-name", title: "the name of its host is not known here", why: "Clients find a member by its name; without it they can't connect.",
		fix: "Put the name into DNS or /etc/hosts, or correct the URL: the member's own with `--advertise-client-urls`, the one given here with `--endpoints`.",
	},
	etcd.FaultUnknownAuthority: {
		id: "tls-unknown-ca", title: "its certificate was signed by a CA that is not trusted here", why: whyVerify, ours: true,
		fix: "Give the CA that signed the members' certificates with --cacert. If that is the one you gave, the member was given a certificate of another CA: have it issued anew.",
	},
	etcd.FaultExpired: notValidNow, etcd.FaultNotYetValid: notValidNow,
	etcd.FaultWrongName: {
		id: "tls-name", title: "its certificate names other hosts", why: whyVerify,
		fix: "Ask it by a name that the certificate has, or have the certificate issued anew with this one among its subject alternative names.",
	},
	etcd.FaultBadCertificate: {
		id: "tls-certificate", title: "its certificate can't be used", why: whyVerify,
		fix: "Have it issued anew as a server's certificate (extendedKeyUsage serverAuth and clientAuth), with its whole chain.",
	},
	etcd.FaultPlain: {
		id: "tls-mismatch", title: "it was asked with TLS, and speaks plain text", why: "A client that uses the wrong one never gets an answer.", ours: true,
		fix: "Ask it with http:// instead of https://. If it should use TLS, start it with --cert-file and --key-file.",
	},
	etcd.FaultSpeaksTLS: {
		id: "tls-mismatch", title: "it was asked in plain text, and wants TLS", why: "A client that uses the wrong one never gets an answer.", ours: true,
		fix: "Ask it with https:// and --cacert, and with --cert and --key where it wants a client certificate.",
	},
	etcd.FaultClientWanted: {
		id: "client-certificate-wanted", title: "it wants a client certificate, and none was given", why: "Without one nothing can be asked, so its state is unknown.", ours: true,
		fix: "Give one that its CA (--trusted-ca-file) has signed with --cert and --key.",
	},
	etcd.FaultClientRefused: {
		id: "client-certificate-refused", title: "it does not take this client certificate", why: "Without one that it takes nothing can be asked, so its state is unknown.", ours: true,
		fix:      "Give one that the members' --trusted-ca-file has signed, that is not expired, and that may be used by clients (extendedKeyUsage clientAuth). The member's log says which of these it is.",
		commands: []string{"journalctl -u etcd -n 20 | grep 'rejected connection'   # on its host"},
	},
	etcd.FaultNotEtcd: {
		id: "not-etcd", title: "something else than etcd answers there", why: "Whatever it is, it is not a member.",
		fix: "Give client URLs (usually port 2379), not peer URLs (2380) or metrics URLs.",
	},
	etcd.FaultLoginWanted: {
		id: "login-wanted", title: "authentication is on, and no user was named", why: "What the cluster does not tell strangers stays unknown.", ours: true,
		fix: "Give --user NAME and the password in QUORATE_ETCD_PASSWORD. A user that may read is enough: doctor writes nothing.",
	},
	etcd.FaultLoginFailed: {
		id: "login-failed", title: "the user name or the password is wrong", why: "Without a login nothing can be asked, so its state is unknown.", ours: true,
		fix: "Look at --user and at QUORATE_ETCD_PASSWORD. Someone who is root can set the password anew.",
	},
	etcd.FaultDenied: {
		id: "login-denied", title: "this user may not ask for it", why: "What it may not see stays unknown.", ours: true,
		fix: "Name a user with the role root, or grant this one to read.",
	},
	etcd.FaultCall: {
		id: "member-failed", title: "it could not be asked", why: whyDown,
		fix: "The error says what happened; its log may say more.", commands: []string{onHost},
	},
}

// unreachable: who could not be asked, and why? Each cause has another remedy.
func unreachable(o *Observation) []Finding {
	shared := map[etcd.FaultKind][]*Member{}
	var causes []etcd.FaultKind
	var found []Finding
	for i := range o.Members {
		m := &o.Members[i]
		if m.Answers() || m.Reach.Cause == NoURL {
			continue
		}
		if o.Login != nil && o.Login.Cause != Answered && m.Reach.Cause == etcd.FaultLoginWanted {
			continue // The failed login is told once.
		}
		t, ok := troubles[m.Reach.Cause]
		if ok && t.ours {
			if shared[m.Reach.Cause] == nil {
				causes = append(causes, m.Reach.Cause)
			}
			shared[m.Reach.Cause] = append(shared[m.Reach.Cause], m)
			continue
		}
		if o.aliveElsewhere(m) {
			found = append(found, o.closedFromHere(m))
			continue
		}
		found = append(found, o.down(m))
	}
	for _, cause := range causes {
		found = append(found, o.sharedTrouble(cause, shared[cause]))
	}
	return found
}

// sharedTrouble is one finding for all members that share a cause.
func (o *Observation) sharedTrouble(cause etcd.FaultKind, members []*Member) Finding {
	t := troubles[cause]
	f := Finding{
		ID: t.id, Severity: o.lossOf(members[0]), Subject: members[0].Label(), Why: t.why, Fix: t.fix, Commands: t.commands, degrades: true,
		Title: members[0].Label() + ": " + t.title,
	}
	if len(members) > 1 {
		f.Subject = cluster
		f.Title = plural(len(members), "endpoint", "endpoints") + ": " + t.title
	}
	for _, m := range members {
		f.Evidence = append(f.Evidence, o.reachEvidence(m)...)
	}
	return f
}

// down is the finding for one member that can't be asked.
func (o *Observation) down(m *Member) Finding {
	t, ok := troubles[m.Reach.Cause]
	if !ok {
		t = troubles[etcd.FaultCall]
	}
	f := Finding{
		ID: t.id, Severity: o.lossOf(m), Subject: m.Label(), Title: m.Label() + ": " + t.title,
		Evidence: o.reachEvidence(m), Why: t.why, Fix: t.fix, Commands: slices.Clone(t.commands), degrades: true,
	}
	voters, quorum, up := o.tally()
	if up > 0 && m.Listed && !m.Learner {
		left := fmt.Sprintf("%d of %d voters are left; a quorum is %d", up, voters, quorum)
		if up == quorum {
			left += ", so one more loss stops all writes"
		}
		f.Evidence = append(f.Evidence, left)
	}
	if m.Reach.Cause == etcd.FaultBlackHole {
		f.Commands = append(f.Commands, "curl -sv --max-time 3 "+m.Endpoint+"/version   # from the host of another member")
	}
	if m.Listed && o.serves() && (m.Reach.Cause == etcd.FaultRefused || m.Reach.Cause == etcd.FaultNoRoute) {
		f.Commands = append(f.Commands, o.command("member remove "+m.ID, o.answering()...)+"   # only when its data is lost; then `member add`")
	}
	if !m.Listed && o.ClusterID != "" {
		f.Evidence = append(f.Evidence, "the cluster lists no member with this URL")
		f.Severity = Warning
	}
	return f
}

// lossOf is how bad it is to be without a member.
func (o *Observation) lossOf(m *Member) Severity {
	_, quorum, up := o.tally()
	if m.Learner && o.serves() || o.serves() && up > quorum {
		return Warning
	}
	return Critical
}

func (o *Observation) reachEvidence(m *Member) []string {
	text := m.Reach.Text
	if text == "" {
		text = string(m.Reach.Cause)
	}
	list := []string{m.Endpoint + ": " + text}
	if len(m.Certificates) > 0 {
		c := m.Certificates[0]
		list = append(list, fmt.Sprintf("its certificate: %s, issued by %s, for %s, valid from %s to %s", c.Subject, c.Issuer, orNone(c.Hosts), day(c.NotBefore), day(c.NotAfter)))
	}
	if !m.Given {
		list = append(list, "it was not among --endpoints: its URL comes from the member list")
	}
	if connected, known := o.peersOf(m); known && !connected {
		list = append(list, "the other members are not connected to it either")
	}
	return list
}

func orNone(hosts []string) string {
	if len(hosts) == 0 {
		return "no host at all"
	}
	return andList(hosts)
}

// peersOf tells whether other members are connected to this one, where they say.
func (o *Observation) peersOf(m *Member) (connected, known bool) {
	for _, other := range o.answering() {
		if other.Metrics == nil || m.ID == "" {
			continue
		}
		if up, ok := other.Metrics.Peers[m.ID]; ok {
			known = true
			connected = connected || up
		}
	}
	return connected, known
}

// aliveElsewhere says that only the way from here is closed: its peers talk to it,
// it advertises an address that leads back to whoever asks, or the cluster serves
// though too few are reachable.
func (o *Observation) aliveElsewhere(m *Member) bool {
	switch m.Reach.Cause {
	case etcd.FaultRefused, etcd.FaultBlackHole, etcd.FaultNoRoute, etcd.FaultNoName, etcd.FaultCall:
	default:
		return false
	}
	if m.Given || !m.Listed {
		return false
	}
	if connected, known := o.peersOf(m); known {
		return connected
	}
	if o.serves() && selfOnly(m.Endpoint) && !slices.ContainsFunc(o.Endpoints, selfOnly) {
		return true
	}
	_, quorum, up := o.tally()
	return o.serves() && up < quorum && m.Reach.Cause != etcd.FaultRefused
}

// selfOnly says that a URL leads to whoever uses it.
func selfOnly(raw string) bool {
	u, err := url.Parse(raw)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return strings.EqualFold(u.Hostname(), "localhost") || ip != nil && (ip.IsLoopback() || ip.IsUnspecified())
}

func (o *Observation) closedFromHere(m *Member) Finding {
	f := Finding{
		ID: "not-reachable-from-here", Severity: Warning, Subject: m.Label(),
		Title:    m.Label() + ": it can't be asked from here, and seems to run",
		Evidence: o.reachEvidence(m),
		Why:      "Whether this member is well stays unknown, and clients that run where this runs can't use it either.",
		Fix:      "Run doctor where the members' client URLs can be reached, or name an endpoint that leads to it with --endpoints.",
	}
	if connected, known := o.peersOf(m); known && connected {
		f.Evidence = append(f.Evidence, "its peers are connected to it")
	} else if o.serves() {
		_, quorum, up := o.tally()
		f.Evidence = append(f.Evidence, fmt.Sprintf("the cluster serves, which takes %d voters, and %d of them can be asked from here", quorum, up))
	}
	if selfOnly(m.Endpoint) {
		f.Fix = "It advertises an address that leads to whoever uses it: start it with an --advertise-client-urls that others can reach."
	}
	return f
}

// logins: what the given user may not see.
func logins(o *Observation) []Finding {
	var found []Finding
	if o.Login != nil && o.Login.Cause != Answered {
		t := troubles[etcd.FaultLoginFailed]
		if o.Login.Cause != etcd.FaultLoginFailed {
			t = trouble{id: "login-failed", title: "the login was not answered", why: "A login takes a quorum. Without it, what the cluster does not tell strangers stays unknown.", fix: "Look at the other findings first; if there are none, give more time with --timeout."}
		}
		f := Finding{
			ID: t.id, Severity: Critical, Subject: "user " + o.User, Title: "Logging in as " + o.User + ": " + t.title,
			Evidence: []string{o.Login.Text}, Why: t.why, Fix: t.fix,
		}
		if o.Login.Cause == etcd.FaultLoginFailed {
			f.Commands = []string{o.etcdctl + " user passwd " + o.User + "   # as a user with the role root"}
		}
		if o.Login.Cause == etcd.FaultNoAuth {
			f = Finding{
				ID: "login-needless", Severity: Info, Subject: "user " + o.User, Title: "Authentication is off: the user and the password were not needed",
				Evidence: []string{o.Login.Text}, Why: "Anyone who can connect may read and write.", Fix: "Leave --user out, or turn authentication on.",
				Commands: []string{o.command("auth enable", o.answering()...) + "   # once the user root exists"},
			}
		}
		found = append(found, f)
	}
	if o.Login != nil && o.Login.Cause != Answered && o.Login.Cause != etcd.FaultNoAuth {
		return found
	}
	for _, cause := range []etcd.FaultKind{etcd.FaultLoginWanted, etcd.FaultDenied} {
		var who []string
		for _, m := range o.answering() {
			if m.Serializable != nil && m.Serializable.Failed != nil && m.Serializable.Failed.Cause == cause {
				who = append(who, m.Label())
			}
		}
		if len(who) == 0 {
			continue
		}
		t := troubles[cause]
		found = append(found, Finding{
			ID: t.id, Severity: Info, Subject: cluster, Title: "Reading: " + t.title,
			Evidence: []string{"at " + andList(who), "what the members say of themselves was seen; the oldest revision kept was not"},
			Why:      t.why, Fix: t.fix,
		})
	}
	return found
}
