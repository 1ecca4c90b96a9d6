package v1alpha1

import "k8s.io/apimachinery/pkg/api/resource"

// Resources are amounts of what members need and hosts have. A zero quantity says
// nothing.
//
// +kubebuilder:validation:XValidation:rule="(!has(self.cpu) || quantity(string(self.cpu)).compareTo(quantity('0')) >= 0) && (!has(self.memory) || quantity(string(self.memory)).compareTo(quantity('0')) >= 0) && (!has(self.disk) || quantity(string(self.disk)).compareTo(quantity('0')) >= 0)",message="an amount can't be below zero"
type Resources struct {
	// CPU in cores, such as 500m.
	//
	// +optional
	CPU resource.Quantity `json:"cpu,omitzero"`
	// Memory in bytes, such as 2Gi.
	//
	// +optional
	Memory resource.Quantity `json:"memory,omitzero"`
	// Disk in bytes, such as 20Gi.
	//
	// +optional
	Disk resource.Quantity `json:"disk,omitzero"`
}

// MemberResources are what each member of a cluster asks for.
//
// +kubebuilder:validation:XValidation:rule="(!has(self.cpu) || quantity(string(self.cpu)).isGreaterThan(quantity('0'))) && (!has(self.memory) || quantity(string(self.memory)).isGreaterThan(quantity('0'))) && (!has(self.disk) || quantity(string(self.disk)).isGreaterThan(quantity('0')))",message="a member needs more than nothing: give amounts above zero"
type MemberResources struct {
	// CPU in cores. Default: 100m. Why: a small etcd at rest takes less; one that
	// matters says what it needs.
	//
	// +kubebuilder:default="100m"
	CPU resource.Quantity `json:"cpu,omitzero"`
	// Memory in bytes. Default: 256Mi. Why: a small etcd takes less; a database of
	// 8Gi may take as much.
	//
	// +kubebuilder:default="256Mi"
	Memory resource.Quantity `json:"memory,omitzero"`
	// Disk in bytes. Default: 1Gi. Why: a small database, its log and its snapshots; one
	// that may grow to its quota needs two and a half times that.
	//
	// +kubebuilder:default="1Gi"
	Disk resource.Quantity `json:"disk,omitzero"`
}

// ServiceClass is what a cluster may count on when its hosts are busy.
//
// +kubebuilder:validation:Enum=Guaranteed;Burstable;BestEffort
// +kubebuilder:validation:MaxLength=16
type ServiceClass string

// The service classes.
const (
	// ClassGuaranteed: what its members ask for is theirs alone, no member of another
	// Guaranteed or Burstable cluster shares their hosts, and they go before all others
	// there.
	ClassGuaranteed ServiceClass = "Guaranteed"
	// ClassBurstable: what its members ask for is set aside, and they may use more where
	// there is more.
	ClassBurstable ServiceClass = "Burstable"
	// ClassBestEffort: its members take what others leave, of which more is promised
	// than there is.
	ClassBestEffort ServiceClass = "BestEffort"
)

// SpreadRule says what happens where members can't be spread.
//
// +kubebuilder:validation:Enum=Required;Preferred
type SpreadRule string

// The spread rules.
const (
	// SpreadRequired: a member waits rather than share a host with one of its cluster.
	SpreadRequired SpreadRule = "Required"
	// SpreadPreferred: members share a host where there are too few.
	SpreadPreferred SpreadRule = "Preferred"
)

// PlacementSpec says where a cluster's members may stand. Changing it moves nobody:
// `quorate place` says what would be better, and draining a host moves its members.
//
// +kubebuilder:validation:XValidation:rule="!has(self.leaderZones) || !has(self.zones) || self.leaderZones.all(z, self.zones.exists(x, x.name == z))",message="each of leaderZones must be one of zones",fieldPath=".leaderZones"
type PlacementSpec struct {
	// Pool of hosts to choose from. Default: default. Why: it is the pool of every host
	// that was given no other.
	//
	// +kubebuilder:default=default
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`
	Pool string `json:"pool,omitempty"`
	// HostLabels that a host must have, all of them. Default: none. Why: the pool is
	// choice enough for most.
	//
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	HostLabels map[string]string `json:"hostLabels,omitempty"`
	// Zones that members may stand in. Default: those of the hosts in the pool, spread
	// evenly. Why: one that is lost then takes as few members as can be.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=9
	// +listType=map
	// +listMapKey=name
	Zones []ZonePlacement `json:"zones,omitempty"`
	// LeaderZones are the zones that the leader is kept in: found elsewhere, leadership
	// is handed to a healthy member in one of them. Default: every zone. Why: all are
	// equally near unless somebody knows better.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=9
	// +kubebuilder:validation:items:MaxLength=63
	// +listType=set
	LeaderZones []string `json:"leaderZones,omitempty"`
	// Spread is Required or Preferred: whether two members of the cluster may share a
	// host. Default: Preferred. Why: a cluster on one machine is how everybody begins;
	// the plan says when members share one.
	//
	// +kubebuilder:default=Preferred
	Spread SpreadRule `json:"spread,omitempty"`
	// Dedicated keeps every member of other clusters away from the hosts, BestEffort
	// ones too. Default: false. Why: what a Guaranteed cluster leaves idle can be lent.
	//
	// +kubebuilder:default=false
	Dedicated bool `json:"dedicated,omitempty"`
}

// ZonePlacement is a zone's share of a cluster.
type ZonePlacement struct {
	// Name of the zone, as hosts have it.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// Members that stand there. Default: an even share. Why: it is what loses least
	// with a zone.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9
	Members *int32 `json:"members,omitempty"`
}

// FormationMode is how the members of a new cluster find each other.
//
// +kubebuilder:validation:Enum=Static;Sequential;Discovery;DNS
// +kubebuilder:validation:MaxLength=16
type FormationMode string

// The ways of formation.
const (
	// FormationStatic: every founding member is told of all the others.
	FormationStatic FormationMode = "Static"
	// FormationSequential: one member founds the cluster, the others join it one after
	// the other, as learners first.
	FormationSequential FormationMode = "Sequential"
	// FormationDiscovery: members meet at an etcd discovery service.
	FormationDiscovery FormationMode = "Discovery"
	// FormationDNS: members find each other by SRV records.
	FormationDNS FormationMode = "DNS"
)

// FormationSpec is how a new cluster is formed; it means nothing afterwards.
//
// +kubebuilder:validation:XValidation:rule="!has(self.mode) || self.mode != 'DNS' || has(self.dns)",message="mode DNS needs dns.domain: the domain whose SRV records name the members",fieldPath=".dns"
// +kubebuilder:validation:XValidation:rule="!has(self.dns) || (has(self.mode) && self.mode == 'DNS')",message="dns belongs to mode DNS alone",fieldPath=".dns"
// +kubebuilder:validation:XValidation:rule="!has(self.discovery) || (has(self.mode) && self.mode == 'Discovery')",message="discovery belongs to mode Discovery alone",fieldPath=".discovery"
type FormationSpec struct {
	// Mode is Static, Sequential, Discovery (etcd 3.6 and later) or DNS. Default:
	// Static. Why: it needs nothing beside the members, and all of them agree on the
	// cluster before any serves.
	//
	// +kubebuilder:default=Static
	Mode FormationMode `json:"mode,omitempty"`
	// Discovery service to meet at. Default: Quorate's own. Why: it is there.
	//
	// +optional
	Discovery *DiscoverySpec `json:"discovery,omitempty"`
	// DNS records to find each other by.
	//
	// +optional
	DNS *DNSSpec `json:"dns,omitempty"`
}

// DiscoverySpec is an etcd discovery service of version 3.
type DiscoverySpec struct {
	// Endpoints are client URLs of the etcd that is the service.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=9
	// +kubebuilder:validation:items:MaxLength=300
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^https?://([A-Za-z0-9._-]+|[[][0-9A-Fa-f:.]+[]]):[0-9]{1,5}$')",message="write it as a client URL, https://HOST:PORT, without a path"
	// +listType=set
	Endpoints []string `json:"endpoints"`
	// Token under which the size of the cluster was put there
	// (/_etcd/registry/TOKEN/_config/size).
	//
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9._-]{1,128}$`
	Token string `json:"token"`
	// CASecretRef names a Secret in the cluster's namespace with the ca.crt that the
	// service's certificate is checked by. Default: the host's own roots. Why: a public
	// service has a public certificate.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	CASecretRef string `json:"caSecretRef,omitempty"`
}

// DNSSpec names SRV records.
type DNSSpec struct {
	// Domain that has the records, such as etcd.example.com: those of
	// _etcd-server-ssl._tcp with TLS, of _etcd-server._tcp without.
	//
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?[.])+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`
	// +kubebuilder:validation:MaxLength=200
	Domain string `json:"domain"`
	// ServiceName is appended to the service, as etcd's --discovery-srv-name does:
	// _etcd-server-ssl-NAME._tcp. Default: none. Why: a domain of its own for each
	// cluster is clearer.
	//
	// +optional
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$`
	ServiceName string `json:"serviceName,omitempty"`
}
