// Package srv says which DNS records the founding members of a cluster find each other
// by, and compares them with those that a host sees.
package srv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
)

// Reasons of a Wrong.
const (
	// ReasonMissing: there is no record at all.
	ReasonMissing = "SRVRecordsMissing"
	// ReasonIncomplete: some members have no record.
	ReasonIncomplete = "SRVRecordsIncomplete"
	// ReasonWrong: a record names what is no member, or a member wrongly.
	ReasonWrong = "SRVRecordsWrong"
	// ReasonLookupFailed: the host's resolver gives no answer.
	ReasonLookupFailed = "SRVLookupFailed"
)

// TTL of the records, in seconds. Why so short: they are read once by each member, and a
// wrong one that was corrected should not be remembered for long.
const TTL = 60

// patience is for all questions of one check.
const patience = 4 * time.Second

// Wrong is what keeps members from finding each other.
type Wrong struct {
	// Reason in one word, and Message with the lines to put into the zone.
	Reason  string
	Message string
}

// Target is one member in the zone.
type Target struct {
	// Member and Host, which is fully qualified without the last dot.
	Member string `json:"member"`
	Host   string `json:"host"`
	// Address is an IP address.
	Address string `json:"address"`
	// Port of the service.
	Port uint16 `json:"port"`
}

// Service is the set of SRV records of one name.
type Service struct {
	// Name such as _etcd-server-ssl._tcp.example.com, without the last dot.
	Name    string   `json:"name"`
	Targets []Target `json:"targets"`
}

// HostName is the name that a member has in the domain.
func HostName(member, domain string) string { return member + "." + domain }

// ServerName is the name of the records that peers find each other by.
func ServerName(d *v1alpha1.DNSSpec, secure bool) string {
	return serviceName("etcd-server", d, secure)
}

// ClientName is the name of the records that clients find members by.
func ClientName(d *v1alpha1.DNSSpec, secure bool) string {
	return serviceName("etcd-client", d, secure)
}

func serviceName(service string, d *v1alpha1.DNSSpec, secure bool) string {
	return "_" + plainService(service, d, secure) + "._tcp." + d.Domain
}

func plainService(service string, d *v1alpha1.DNSSpec, secure bool) string {
	if secure {
		service += "-ssl"
	}
	if d.ServiceName != "" {
		service += "-" + d.ServiceName
	}
	return service
}

// Targets are the members of a list as the zone of the domain names them. The error
// names a URL that can't be understood.
func Targets(peers []v1alpha1.Peer, domain string) (targets []Target, secure bool, err error) {
	for _, p := range peers {
		u, err := url.Parse(p.URL)
		if err != nil {
			return nil, false, fmt.Errorf("URL %q of member %s: %w", p.URL, p.Name, err)
		}
		addr, err := netip.ParseAddrPort(u.Host)
		if err != nil {
			return nil, false, fmt.Errorf("URL %q of member %s: %w", p.URL, p.Name, err)
		}
		secure = u.Scheme == "https"
		targets = append(targets, Target{Member: p.Name, Host: HostName(p.Name, domain), Address: addr.Addr().Unmap().String(), Port: addr.Port()})
	}
	return targets, secure, nil
}

// Lines are the service's records as a zone file has them.
func (s Service) Lines() []string {
	lines := make([]string, 0, len(s.Targets))
	for _, t := range s.Targets {
		lines = append(lines, t.SRVLine(s.Name))
	}
	return lines
}

// SRVLine is the target's SRV record under a name.
func (t Target) SRVLine(name string) string {
	return fmt.Sprintf("%s. %d IN SRV 0 0 %d %s.", name, TTL, t.Port, t.Host)
}

// AddressLine is the target's A or AAAA record.
func (t Target) AddressLine() string {
	kind := "A"
	if strings.Contains(t.Address, ":") {
		kind = "AAAA"
	}
	return fmt.Sprintf("%s. %d IN %s %s", t.Host, TTL, kind, t.Address)
}

// seen is a record as the host sees it.
type seen struct {
	host  string
	port  uint16
	addrs []string
	err   error
}

// Check compares the records that the host's own resolver gives with the founding
// members that they must name; nil where they fit. It asks as etcd does, and takes at
// most a few seconds.
func Check(ctx context.Context, b *v1alpha1.Bootstrap) *Wrong {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	want, secure, err := Targets(b.InitialCluster, b.DNS.Domain)
	if err != nil {
		return &Wrong{ReasonWrong, err.Error()}
	}
	// etcd's own resolver is Go's: it must see what etcd will.
	r := &net.Resolver{PreferGo: true}
	name := ServerName(b.DNS, secure)
	records, err := look(ctx, r, plainService("etcd-server", b.DNS, secure), b.DNS.Domain)
	if err != nil {
		return &Wrong{ReasonLookupFailed, fmt.Sprintf("the records of %s can't be looked up from this host: %v; see its /etc/resolv.conf, and that the domain %s is served; it is tried again", name, err, b.DNS.Domain)}
	}
	// etcd takes the records of both schemes for members.
	other := ServerName(b.DNS, !secure)
	stray, err := look(ctx, r, plainService("etcd-server", b.DNS, !secure), b.DNS.Domain)
	if err != nil {
		return &Wrong{ReasonLookupFailed, fmt.Sprintf("the records of %s can't be looked up from this host: %v; it is tried again", other, err)}
	}
	return compare(name, want, records, other, stray)
}

func look(ctx context.Context, r *net.Resolver, service, domain string) ([]seen, error) {
	_, found, err := r.LookupSRV(ctx, service, "tcp", domain)
	var dnsErr *net.DNSError
	if errors.As(err, &dnsErr) && dnsErr.IsNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all := make([]seen, 0, len(found))
	for _, f := range found {
		s := seen{host: strings.TrimSuffix(f.Target, "."), port: f.Port}
		s.addrs, s.err = r.LookupHost(ctx, f.Target)
		all = append(all, s)
	}
	return all, nil
}

// compare says what is wrong with the records of a name. It is pure.
func compare(name string, want []Target, records []seen, other string, stray []seen) *Wrong {
	var missing []Target
	used := map[int]bool{}
	for _, t := range want {
		i := slices.IndexFunc(records, func(s seen) bool { return s.is(t) })
		if i < 0 {
			missing = append(missing, t)
			continue
		}
		used[i] = true
	}
	var wrong []string
	for i, s := range records {
		if !used[i] {
			wrong = append(wrong, s.wrongly(want))
		}
	}
	for _, s := range stray {
		wrong = append(wrong, fmt.Sprintf("%s names %s: etcd would take it for one more member, so remove the record", other, net.JoinHostPort(s.host, strconv.Itoa(int(s.port)))))
	}
	if len(missing) == 0 && len(wrong) == 0 {
		return nil
	}
	w := &Wrong{Reason: ReasonWrong}
	switch {
	case len(records) == 0 && len(stray) == 0:
		w.Reason, w.Message = ReasonMissing, "this host finds no record of "+name
	case len(wrong) == 0:
		w.Reason = ReasonIncomplete
		w.Message = fmt.Sprintf("this host finds records of %s for %d of %d members", name, len(want)-len(missing), len(want))
	default:
		w.Message = "this host finds records of " + name + " that name no founding member: " + strings.Join(wrong, "; ")
	}
	if len(missing) > 0 {
		lines := make([]string, 0, 2*len(missing))
		for _, t := range missing {
			lines = append(lines, t.SRVLine(name), t.AddressLine())
		}
		w.Message += "; these lines are missing from the zone: " + strings.Join(lines, " | ")
	}
	w.Message += "; etcd is started once the records fit"
	return w
}

// is reports whether a record leads to the member.
func (s seen) is(t Target) bool {
	return s.port == t.Port && slices.ContainsFunc(s.addrs, func(a string) bool { return sameAddress(a, t.Address) })
}

func sameAddress(a, b string) bool {
	x, err := netip.ParseAddr(a)
	y, err2 := netip.ParseAddr(b)
	return err == nil && err2 == nil && x.Unmap() == y.Unmap()
}

// wrongly says what is wrong with a record that leads to no member.
func (s seen) wrongly(want []Target) string {
	at := net.JoinHostPort(s.host, strconv.Itoa(int(s.port)))
	if s.err != nil {
		return fmt.Sprintf("%s has no address: %v", at, s.err)
	}
	for _, t := range want {
		sameHost := strings.EqualFold(s.host, t.Host)
		switch here := slices.ContainsFunc(s.addrs, func(a string) bool { return sameAddress(a, t.Address) }); {
		case sameHost && !here:
			return fmt.Sprintf("%s has the address %s, and %s is at %s", s.host, strings.Join(s.addrs, ", "), t.Member, t.Address)
		case sameHost && s.port != t.Port, here && s.port != t.Port && len(want) == 1:
			return fmt.Sprintf("%s has the port %d, and %s listens on %d", s.host, s.port, t.Member, t.Port)
		}
	}
	return fmt.Sprintf("%s (%s) is no founding member: remove the record", at, strings.Join(s.addrs, ", "))
}
