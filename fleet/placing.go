package fleet

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/fleet/place"
	"github.com/quorate/quorate/store"
)

// Reasons for which no host is found.
const (
	HeldNoHost     = place.HeldNoHost
	HeldNoRelease  = place.HeldNoRelease
	HeldNoCapacity = place.HeldNoCapacity
	HeldSpread     = place.HeldSpread
	HeldZones      = place.HeldZones
)

// refusal is why no host was chosen.
type refusal struct {
	reason, text string
	hosts        []v1alpha1.RefusedHost
}

// needsHosts reports whether a plan is held for want of what hosts offer, which only changes when
// a person or another cluster makes it. That there is no host is not such a reason: one may
// just be joining.
func needsHosts(reason string) bool {
	return reason == HeldNoCapacity || reason == HeldSpread || reason == HeldZones
}

// holdUnplaced holds a plan for want of a host.
func holdUnplaced(p *v1alpha1.Plan, why *refusal) {
	if p.Held == "" {
		p.Refused = why.hosts
	}
	hold(p, why.reason, why.text)
}

// place chooses a host for the next member of the cluster. Planned counts, by host, the
// members that the plan creates before it.
func (s *State) place(planned map[string]int) (*HostState, refusal) {
	r := requestOf(s.Cluster)
	c := place.Choose(s.placeHosts(&r, planned), &r)
	if c.Host == nil {
		return nil, refusal{c.HeldReason, c.Held, c.Refused}
	}
	return s.host(c.Host.Name), refusal{}
}

// fits reports whether the next member may come to that host.
func (s *State) fits(host string, planned map[string]int) bool {
	r := requestOf(s.Cluster)
	code, _ := place.Fits(s.placeHosts(&r, planned), host, &r)
	return code == ""
}

// placementNotes are what a person should know of where the members stand.
func (s *State) placementNotes() []string {
	r := requestOf(s.Cluster)
	return place.Notes(s.placeHosts(&r, nil), &r)
}

// placeHosts are the hosts as placement sees them, with the members of this cluster as they
// were read last.
func (s *State) placeHosts(r *place.Request, planned map[string]int) []place.Host {
	hosts := make([]place.Host, len(s.Hosts))
	at := make(map[string]int, len(s.Hosts))
	for i := range s.Hosts {
		h := s.Hosts[i].Object
		hosts[i] = placeHost(h, s.Hosts[i].Ready)
		hosts[i].Members = slices.Clip(s.Hosts[i].Bound)
		if s.Releases[h.Status.Platform].Digest == "" {
			hosts[i].NoRelease = fmt.Sprintf("there is no etcd %s for its platform (%s): add it with `quorate release add`",
				s.Cluster.Spec.Version, orElse(h.Status.Platform, "not reported yet"))
		}
		at[h.Name] = i
	}
	for n, list := range [][]MemberState{s.Members, s.Former, s.Left} {
		for j := range list {
			if i, ok := at[list[j].Object.Spec.Host]; ok {
				m := placeMember(list[j].Object, s.Cluster)
				m.Leaving = m.Leaving || n > 0
				hosts[i].Members = append(hosts[i].Members, m)
			}
		}
	}
	for _, host := range slices.Sorted(maps.Keys(planned)) {
		if i, ok := at[host]; ok {
			for range planned[host] {
				hosts[i].Members = append(hosts[i].Members, place.Member{
					Name: "the next member", Cluster: r.Cluster, Class: r.Class, Requests: r.Requests,
					Dedicated: r.Placement.Dedicated, Ports: r.Ports,
				})
			}
		}
	}
	return hosts
}

func placeHost(h *v1alpha1.EtcdHost, ready bool) place.Host {
	p := place.Host{
		Name: h.Name, Zone: h.Spec.Zone, Pool: h.Spec.Pool, Labels: h.Labels,
		Cordoned: h.Spec.Unschedulable, Draining: h.Spec.Drain, Silent: !ready,
		Unfit: unfit(h), Capacity: place.AmountsOf(h.Offers()), Overcommit: int64(h.Spec.OvercommitPercent),
	}
	if h.Status.Used != nil {
		p.Used = place.AmountsOf(*h.Status.Used)
	}
	return p
}

// unfit says which checks a host fails; empty where it fails none, and where nobody has
// checked it yet.
func unfit(h *v1alpha1.EtcdHost) string {
	c := v1alpha1.FindCondition(h.Status.Conditions, v1alpha1.ConditionFit)
	if c == nil || c.Status != v1alpha1.False {
		return ""
	}
	var failed []string
	if h.Status.Preflight != nil {
		for _, check := range h.Status.Preflight.Checks {
			if check.Verdict == v1alpha1.VerdictFail {
				text := check.Name
				if check.Value != "" {
					text += " (" + check.Value + orElse(", "+check.Threshold, "") + ")"
				}
				failed = append(failed, text)
			}
		}
	}
	if len(failed) == 0 {
		return "its checks say that it is unfit: " + orElse(c.Message, c.Reason)
	}
	return "it fails " + strings.Join(failed, ", ") + ": `quorate host check " + h.Name + "` says what to do"
}

func portsOf(p *v1alpha1.Ports) [3]int32 {
	if p == nil {
		return [3]int32{}
	}
	return [3]int32{p.Client, p.Peer, p.Metrics}
}

// clusterName names a cluster as placement does.
func clusterName(namespace, name string) string { return namespace + "/" + name }

func requestOf(c *v1alpha1.EtcdCluster) place.Request {
	return place.Request{
		Cluster: clusterName(c.Namespace, c.Name), Class: c.Spec.Class, Requests: place.AmountsOf(v1alpha1.Resources(c.Spec.Resources)),
		Placement: c.Spec.Placement, Replicas: int(c.Spec.Replicas), Ports: portsOf(c.Spec.Ports),
	}
}

// placeMember is a member as placement sees it. Its cluster says what it asks for; where
// that is not known, the member does.
func placeMember(m *v1alpha1.EtcdMember, c *v1alpha1.EtcdCluster) place.Member {
	p := place.Member{
		Name: m.Name, Cluster: clusterName(m.Namespace, m.Spec.ClusterName), Class: m.Spec.Class,
		Requests: place.AmountsOf(m.Spec.Resources), ID: m.Spec.MemberID, Leaving: m.Spec.Leaving || m.DeletionTimestamp != nil, Ports: portsOf(&m.Spec.Ports),
	}
	for i, port := range portsOf(&m.Status.Ports) {
		p.Ports[i] = cmp.Or(p.Ports[i], port)
	}
	if m.Status.Used != nil {
		p.Used = place.AmountsOf(*m.Status.Used)
	}
	if c != nil {
		p.Class, p.Requests = c.Spec.Class, place.AmountsOf(v1alpha1.Resources(c.Spec.Resources))
		p.Dedicated, p.Leads, p.Labels = c.Spec.Placement.Dedicated, c.Status.Leader == m.Name, c.Labels
	}
	return p
}

// creations are the members that this controller has created and a list may not show yet.
// Without them, two clusters that are placed one after the other might both take the last
// room of a host.
type creations struct {
	// placing is held from when hosts are read until the member that was placed by them
	// is created.
	placing sync.Mutex

	mu     sync.Mutex
	recent map[store.Key]bool
}

func newCreations() *creations { return &creations{recent: map[store.Key]bool{}} }

func (c *creations) add(key store.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recent[key] = true
}

// unlisted returns the keys that the list lacks, and forgets the others.
func (c *creations) unlisted(list []*v1alpha1.EtcdMember) []store.Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range list {
		delete(c.recent, store.KeyOf(m))
	}
	return slices.Collect(maps.Keys(c.recent))
}

func (c *creations) forget(key store.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.recent, key)
}

// observeAllHosts reads every host with the members that it has.
func (c *ClusterController) observeAllHosts(ctx context.Context, s *State) error {
	f, err := c.readFleet(ctx)
	if err != nil {
		return err
	}
	bound := f.bound(clusterName(s.Cluster.Namespace, s.Cluster.Name))
	for _, h := range f.hosts {
		c.addHost(s, h, bound[h.Name])
	}
	for m := range s.everyMember {
		h := s.host(m.Object.Spec.Host)
		m.HostReady = h != nil && h.Ready
	}
	return nil
}

// placeAndCreate chooses a host by what the fleet is now, and creates the member that make
// returns for it. Of two clusters that are placed at the same moment, the second sees the
// first one's member.
func (c *ClusterController) placeAndCreate(ctx context.Context, s *State, member string, make func(*HostState, *v1alpha1.Ports) *v1alpha1.EtcdMember) error {
	c.created.placing.Lock()
	defer c.created.placing.Unlock()
	now := *s
	now.Hosts = nil
	if err := c.observeAllHosts(ctx, &now); err != nil {
		return err
	}
	host, ports, why := now.placeNext(0, nil)
	if host == nil {
		return fmt.Errorf("place %s: %s: %w", member, why.text, errHeld)
	}
	// A list may be stale: a host that was cordoned a moment ago is not to be taken.
	fresh := &v1alpha1.EtcdHost{}
	if err := c.opts.Store.Get(ctx, store.Key{Name: host.Object.Name}, fresh); err != nil {
		return err
	}
	host.Object, host.Ready = fresh, v1alpha1.IsTrue(fresh.Status.Conditions, v1alpha1.ConditionReady)
	if !now.fits(fresh.Name, nil) {
		return fmt.Errorf("place %s: host %s has changed while it was chosen: %w", member, fresh.Name, errHeld)
	}
	m := make(host, ports)
	err := c.opts.Store.Create(ctx, m)
	// Only now: whoever reads the fleet meanwhile, to plan, would find that there is no such
	// member and forget it. What failed may have been stored all the same.
	c.created.add(store.KeyOf(m))
	return err
}
