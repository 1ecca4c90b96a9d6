// Package dns knows the DNS records that the members and clients of clusters of mode
// DNS find each other by, and is a name server that answers for nothing else.
package dns

import (
	"cmp"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd/srv"
)

// Records are what the zone of a cluster's domain must have.
type Records struct {
	// Cluster as NAMESPACE/NAME, and its Domain.
	Cluster string `json:"cluster"`
	Domain  string `json:"domain"`
	// Services are the SRV records: those of peers, then those of clients.
	Services []srv.Service `json:"services"`
	// Hosts are the members' own names with their addresses.
	Hosts []srv.Target `json:"hosts"`
	// Missing are members that have no address yet, since they are not prepared.
	Missing []string `json:"missing,omitempty"`
	// TTL in seconds.
	TTL int `json:"ttl"`
}

// ForCluster returns the records of a cluster of mode DNS; nil of any other.
func ForCluster(c *v1alpha1.EtcdCluster, members []*v1alpha1.EtcdMember) (*Records, error) {
	d := c.Spec.Formation.DNS
	if d == nil || c.Spec.Formation.Mode != v1alpha1.FormationDNS {
		return nil, nil //nolint:nilnil // no records is an answer
	}
	secure := c.Spec.TLS.Mode != v1alpha1.TLSDisabled
	r := &Records{Cluster: c.Namespace + "/" + c.Name, Domain: d.Domain, TTL: srv.TTL}
	peers := srv.Service{Name: srv.ServerName(d, secure)}
	clients := srv.Service{Name: srv.ClientName(d, secure)}
	members = slices.SortedFunc(slices.Values(members), func(a, b *v1alpha1.EtcdMember) int {
		return cmp.Or(cmp.Compare(len(a.Name), len(b.Name)), cmp.Compare(a.Name, b.Name))
	})
	for _, m := range members {
		if m.Status.PeerURL == "" || m.Status.ClientURL == "" {
			r.Missing = append(r.Missing, m.Name)
			continue
		}
		peer, err := target(m.Name, m.Status.PeerURL, d.Domain)
		if err != nil {
			return nil, err
		}
		client, err := target(m.Name, m.Status.ClientURL, d.Domain)
		if err != nil {
			return nil, err
		}
		peers.Targets, clients.Targets = append(peers.Targets, peer), append(clients.Targets, client)
		r.Hosts = append(r.Hosts, peer)
	}
	r.Services = []srv.Service{peers, clients}
	return r, nil
}

func target(member, rawURL, domain string) (srv.Target, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return srv.Target{}, fmt.Errorf("URL of member %s: %w", member, err)
	}
	addr, err := netip.ParseAddrPort(u.Host)
	if err != nil {
		return srv.Target{}, fmt.Errorf("URL %s of member %s: %w", rawURL, member, err)
	}
	return srv.Target{Member: member, Host: srv.HostName(member, domain), Address: addr.Addr().Unmap().String(), Port: addr.Port()}, nil
}

// String is the records as a zone file has them.
func (r *Records) String() string {
	var b strings.Builder
	for _, s := range r.Services {
		for _, line := range s.Lines() {
			b.WriteString(line + "\n")
		}
	}
	for _, h := range r.Hosts {
		b.WriteString(h.AddressLine() + "\n")
	}
	return b.String()
}
