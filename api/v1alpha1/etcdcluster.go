package v1alpha1

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// EtcdCluster is one etcd cluster as a person wants it to be.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=etcdclusters,shortName=qec,categories=quorate
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.ready`
// +kubebuilder:printcolumn:name="Quorum",type=string,JSONPath=`.status.conditions[?(@.type=="Available")].status`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.version`
// +kubebuilder:printcolumn:name="Leader",type=string,JSONPath=`.status.leader`
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.summary`
// +kubebuilder:printcolumn:name="Management",type=string,JSONPath=`.spec.management`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 48",message="the name is limited to 48 characters: members append a number to it"
type EtcdCluster struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   EtcdClusterSpec   `json:"spec"`
	Status EtcdClusterStatus `json:"status,omitempty"`
}

// EtcdClusterList is a list of clusters.
//
// +kubebuilder:object:root=true
type EtcdClusterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []EtcdCluster `json:"items"`
}

// DeletionPolicy says what becomes of member data when its object is deleted.
//
// +kubebuilder:validation:Enum=Retain;Delete
type DeletionPolicy string

// The deletion policies. Neither removes data at once.
const (
	// DeletionRetain renames the data aside and keeps it until a person removes it.
	DeletionRetain DeletionPolicy = "Retain"
	// DeletionDelete renames the data aside and collects it after retainFor.
	DeletionDelete DeletionPolicy = "Delete"
)

// Management is what Quorate does with a cluster.
//
// +kubebuilder:validation:Enum=Manage;Observe
// +kubebuilder:validation:MaxLength=16
type Management string

// The ways of management.
const (
	// ManagementManage: Quorate runs the members.
	ManagementManage Management = "Manage"
	// ManagementObserve: the cluster is run by others; Quorate only asks it what it is.
	ManagementObserve Management = "Observe"
)

// EtcdClusterSpec is what a person asks of a cluster.
//
// +kubebuilder:validation:XValidation:rule="(has(self.management) ? self.management : 'Manage') == (has(oldSelf.management) ? oldSelf.management : 'Manage')",message="management can't be changed on an existing cluster: delete the object (an observed etcd is not touched by that) and create it anew",fieldPath=".management"
// +kubebuilder:validation:XValidation:rule="(has(self.management) && self.management == 'Observe') || self.replicas == oldSelf.replicas",message="replicas can't be changed on an existing cluster: scaling is not part of this release",fieldPath=".replicas"
// +kubebuilder:validation:XValidation:rule="(has(self.management) && self.management == 'Observe') || (has(self.version) ? self.version : \"\") == (has(oldSelf.version) ? oldSelf.version : \"\")",message="version can't be changed on an existing cluster: upgrades are not part of this release",fieldPath=".version"
// +kubebuilder:validation:XValidation:rule="(has(self.management) && self.management == 'Observe') || (has(self.version) && size(self.version) > 0)",message="version is required: say which etcd release the members run, such as 3.7.3",fieldPath=".version"
// +kubebuilder:validation:XValidation:rule="(has(self.management) && self.management == 'Observe') || !has(self.version) || !self.version.matches('^3[.](4|[89]|[1-9][0-9]+)[.][0-9]+$')",message="Quorate runs etcd 3.5, 3.6 and 3.7: choose one of their versions; a cluster of another one can be observed (`quorate import`)",fieldPath=".version"
// +kubebuilder:validation:XValidation:rule="!has(self.management) || self.management != 'Observe' || has(self.import)",message="management Observe needs import.endpoints: the client URLs at which the cluster is asked",fieldPath=".import"
// +kubebuilder:validation:XValidation:rule="(has(self.management) && self.management == 'Observe') || !has(self.import)",message="import is for clusters that others run: set management: Observe, or leave import out",fieldPath=".import"
// +kubebuilder:validation:XValidation:rule="!has(self.management) || self.management != 'Observe' || !has(self.suspended) || !self.suspended",message="an observed cluster can't be suspended: Quorate does not run its members; stop them where they run",fieldPath=".suspended"
// +kubebuilder:validation:XValidation:rule="!has(self.management) || self.management != 'Observe' || !has(self.restoreName)",message="an observed cluster can't be restored: Quorate does not run its members; make data directories with `quorate restore`, or restore into a cluster of another name",fieldPath=".restoreName"
// +kubebuilder:validation:XValidation:rule="!has(self.management) || self.management != 'Observe' || !has(self.restartedAt)",message="an observed cluster can't be restarted: Quorate does not run its members; restart them where they run",fieldPath=".restartedAt"
// +kubebuilder:validation:XValidation:rule="!has(self.management) || self.management != 'Observe' || !has(self.deletionPolicy) || self.deletionPolicy == 'Retain'",message="deletionPolicy has no effect on an observed cluster: deleting the object only forgets it; leave it out",fieldPath=".deletionPolicy"
// +kubebuilder:validation:XValidation:rule="!has(self.management) || self.management != 'Observe' || !has(self.ports)",message="ports can't be set on an observed cluster: its members listen where they were told to; leave it out",fieldPath=".ports"
// +kubebuilder:validation:XValidation:rule="!has(self.management) || self.management != 'Observe' || ((!has(self.tls.mode) || self.tls.mode == 'Generated') && (!has(self.tls.leafValidity) || self.tls.leafValidity == '8760h') && !has(self.tls.caSecretRef) && !has(self.tls.filesDir) && !has(self.tls.clientSecretRef) && !has(self.tls.extraSANs))",message="tls is how Quorate makes certificates, and it makes none for an observed cluster: leave it out, and name the Secret with ca.crt, tls.crt and tls.key in import.credentialsSecretRef",fieldPath=".tls"
// +kubebuilder:validation:XValidation:rule="!has(self.management) || self.management != 'Observe' || ((!has(self.etcd.quotaBackend) || string(self.etcd.quotaBackend).matches('^8Gi$')) && (!has(self.etcd.maxRequest) || string(self.etcd.maxRequest).matches('^1536Ki$')) && (!has(self.etcd.maxTxnOps) || self.etcd.maxTxnOps == 128) && (!has(self.etcd.snapshotCount) || self.etcd.snapshotCount == 10000) && (!has(self.etcd.heartbeatInterval) || self.etcd.heartbeatInterval == '100ms') && (!has(self.etcd.electionTimeout) || self.etcd.electionTimeout == '1s') && (!has(self.etcd.initialCorruptCheck) || self.etcd.initialCorruptCheck))",message="etcd can't be tuned on an observed cluster: Quorate does not start its members; leave it out",fieldPath=".etcd"
// +kubebuilder:validation:XValidation:rule="!has(self.management) || self.management != 'Observe' || ((!has(self.etcd.autoCompaction.mode) || self.etcd.autoCompaction.mode == 'Periodic') && (!has(self.etcd.autoCompaction.retention) || self.etcd.autoCompaction.retention == '5m') && (!has(self.etcd.logging.level) || self.etcd.logging.level == 'info') && (!has(self.etcd.logging.maxSize) || self.etcd.logging.maxSize == 64) && (!has(self.etcd.logging.maxBackups) || self.etcd.logging.maxBackups == 4) && !has(self.etcd.logging.dir) && !has(self.etcd.logging.errorDir))",message="compaction and logging can't be set on an observed cluster: Quorate does not start its members; leave them out",fieldPath=".etcd"
// +kubebuilder:validation:XValidation:rule="self.tls.mode == oldSelf.tls.mode && (has(self.tls.caSecretRef) ? self.tls.caSecretRef : \"\") == (has(oldSelf.tls.caSecretRef) ? oldSelf.tls.caSecretRef : \"\")",message="tls.mode and tls.caSecretRef can't be changed on an existing cluster: its members would stop trusting each other half-way",fieldPath=".tls"
// +kubebuilder:validation:XValidation:rule="self.?ports.?client.orValue(0) == oldSelf.?ports.?client.orValue(0) && self.?ports.?peer.orValue(0) == oldSelf.?ports.?peer.orValue(0) && self.?ports.?metrics.orValue(0) == oldSelf.?ports.?metrics.orValue(0)",message="ports can't be changed on an existing cluster: peers know each other by them",fieldPath=".ports"
// +kubebuilder:validation:XValidation:rule="!has(self.formation.mode) || self.formation.mode != 'Discovery' || !has(self.version) || !self.version.matches('^3[.]5[.]')",message="formation mode Discovery needs etcd 3.6 or later: 3.5 knows only the discovery of version 2, which is gone; use Static, Sequential or DNS",fieldPath=".formation.mode"
// +kubebuilder:validation:XValidation:rule="(has(self.formation.mode) ? self.formation.mode : 'Static') == (has(oldSelf.formation.mode) ? oldSelf.formation.mode : 'Static')",message="formation can't be changed on an existing cluster: it says how it was formed",fieldPath=".formation.mode"
type EtcdClusterSpec struct {
	// Version is the etcd release that members run, such as 3.7.3. It has no
	// default: a cluster's version is a decision, and must not follow the version
	// of Quorate that happened to read the file. With management Observe it may be
	// left out: status.version says what the members answer.
	//
	// +optional
	// +kubebuilder:validation:Pattern=`^3\.([4-9]|[1-9][0-9])\.[0-9]+$`
	// +kubebuilder:validation:MaxLength=16
	Version string `json:"version,omitempty"`

	// Management is Manage, where Quorate runs the members, or Observe, where others
	// do: then Quorate asks the cluster what it is, and never writes to it. Default:
	// Manage. Why: a cluster that is declared is meant to be run.
	//
	// +kubebuilder:default=Manage
	Management Management `json:"management,omitempty"`

	// Import says how a cluster that others run is reached.
	//
	// +optional
	Import *ImportSpec `json:"import,omitempty"`

	// Replicas is the number of members. With management Observe it is how many are
	// expected to be there, and may be changed. Default: 3. Why: three members are
	// the fewest that keep serving when one is lost.
	//
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=9
	Replicas int32 `json:"replicas,omitempty"`

	// RestoreName is the EtcdRestore in the same namespace that the cluster is formed from,
	// in place of nothing. On a cluster that has members it is set by an EtcdRestore with
	// inPlace, and stays. Default: none. Why: a cluster begins empty.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	RestoreName string `json:"restoreName,omitempty"`

	// Suspended stops every member and keeps its data; false starts them again.
	// Default: false. Why: a cluster that was declared is meant to serve.
	//
	// +kubebuilder:default=false
	Suspended bool `json:"suspended,omitempty"`

	// DeletionPolicy says what becomes of the members' data when the cluster is
	// deleted. Retain renames it aside and keeps it until a person removes it;
	// Delete renames it aside and collects it after retainFor. Default: Retain.
	// Why: a deletion made by mistake must not cost the data.
	//
	// +kubebuilder:default=Retain
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`

	// RetainFor is how long retired data is kept under deletionPolicy Delete, as a
	// Go duration. Default: 168h. Why: a week lets a mistake made on a Friday be
	// found on the Monday after the next.
	//
	// +kubebuilder:default="168h"
	// +kubebuilder:validation:Pattern=`^([0-9]{1,6}(\.[0-9]{1,3})?(ms|s|m|h))+$`
	// +kubebuilder:validation:MaxLength=20
	RetainFor string `json:"retainFor,omitempty"`

	// RestartedAt, when changed, restarts the members one at a time.
	//
	// +optional
	RestartedAt *metav1.Time `json:"restartedAt,omitempty"`

	// Class is Guaranteed, Burstable or BestEffort: what the members may count on when
	// their hosts are busy. Default: Burstable. Why: what they ask for is set aside, and
	// hosts can still be shared.
	//
	// +kubebuilder:default=Burstable
	Class ServiceClass `json:"class,omitempty"`

	// Resources that each member asks for: what its host sets aside.
	//
	// +kubebuilder:default={}
	Resources MemberResources `json:"resources,omitempty"`

	// Placement says which hosts the members may stand on.
	//
	// +kubebuilder:default={}
	Placement PlacementSpec `json:"placement,omitempty"`

	// Formation is how the members of a new cluster find each other. One that is made
	// from a backup is formed as with mode Static, whatever this says.
	//
	// +kubebuilder:default={}
	Formation FormationSpec `json:"formation,omitempty"`

	// Ports that each member listens on. Default: the first free ones from 2379,
	// 2380 and 2381 upwards in tens. Why: they are etcd's own where a host runs one
	// member, and several members can share a host.
	//
	// +optional
	Ports *Ports `json:"ports,omitempty"`

	// TLS says how members and clients prove who they are.
	//
	// +kubebuilder:default={}
	TLS TLSSpec `json:"tls,omitempty"`

	// Etcd tunes the members; a change restarts them one at a time.
	//
	// +kubebuilder:default={}
	Etcd EtcdConfig `json:"etcd,omitempty"`
}

// ImportSpec is how a cluster that others run is reached.
type ImportSpec struct {
	// Endpoints are client URLs of the cluster. One that answers is enough: the
	// others are found through it, and asked at the URLs that they advertise.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=300
	// +kubebuilder:validation:items:XValidation:rule="self.matches('^https?://([A-Za-z0-9._-]+|[[][0-9A-Fa-f:.]+[]]):[0-9]{1,5}$')",message="write it as a client URL, https://HOST:PORT, without a path"
	// +listType=set
	Endpoints []string `json:"endpoints"`

	// CredentialsSecretRef names a Secret of type Opaque in the cluster's namespace
	// with what is needed of ca.crt, tls.crt, tls.key, username and password.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	CredentialsSecretRef string `json:"credentialsSecretRef,omitempty"`

	// ServerName is the name to look for in the members' certificates, where they
	// carry another one than the URL.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	ServerName string `json:"serverName,omitempty"`

	// Maintain lists what Quorate may do to the cluster beyond asking it what it is:
	// Backup, which streams a snapshot of a member whenever a backup policy or an
	// EtcdBackup says so. Default: nothing. Why: a cluster that others run is theirs; a
	// snapshot holds every key in it, and costs a member disk and network.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=8
	// +listType=set
	Maintain []Maintenance `json:"maintain,omitempty"`
}

// Maintenance is something that Quorate may do to a cluster that others run.
//
// +kubebuilder:validation:Enum=Backup
type Maintenance string

// MaintainBackup allows that snapshots of its members are taken.
const MaintainBackup Maintenance = "Backup"

// Allows reports whether Quorate may do that to the cluster: to one that it runs it may
// do all.
func (c *EtcdCluster) Allows(m Maintenance) bool {
	return !c.Observed() || c.Spec.Import != nil && slices.Contains(c.Spec.Import.Maintain, m)
}

// Observed reports whether others run the cluster: Quorate never writes to it.
func (c *EtcdCluster) Observed() bool { return c.Spec.Management == ManagementObserve }

// Ports are TCP ports of a member; 0 lets the host choose a free one.
type Ports struct {
	// Client is where clients connect.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	Client int32 `json:"client,omitempty"`
	// Peer is where the other members connect.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	Peer int32 `json:"peer,omitempty"`
	// Metrics serves /metrics and /health without TLS, on loopback only.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	Metrics int32 `json:"metrics,omitempty"`
}

// TLSMode says where a cluster's certificates come from.
//
// +kubebuilder:validation:Enum=Generated;CASecret;Files;Disabled
type TLSMode string

// The TLS modes.
const (
	// TLSGenerated makes a CA for this cluster alone.
	TLSGenerated TLSMode = "Generated"
	// TLSCASecret signs with the CA (root or intermediate) of a Secret.
	TLSCASecret TLSMode = "CASecret"
	// TLSFiles uses certificate files that lie on each host.
	TLSFiles TLSMode = "Files"
	// TLSDisabled serves plain text.
	TLSDisabled TLSMode = "Disabled"
)

// TLSSpec is how a cluster's certificates are made.
//
// +kubebuilder:validation:XValidation:rule="!has(self.mode) || self.mode != 'CASecret' || (has(self.caSecretRef) && size(self.caSecretRef) > 0)",message="mode CASecret needs caSecretRef: the name of a kubernetes.io/tls Secret with the CA's tls.crt and tls.key",fieldPath=".caSecretRef"
// +kubebuilder:validation:XValidation:rule="!has(self.leafValidity) || duration(self.leafValidity) > duration('0s')",message="leafValidity must be above zero: a certificate that is never valid serves no one",fieldPath=".leafValidity"
// +kubebuilder:validation:XValidation:rule="!has(self.mode) || self.mode != 'Files' || (has(self.filesDir) && self.filesDir.startsWith('/'))",message="mode Files needs filesDir: the absolute directory on each host that holds ca.crt, server.crt, server.key, peer.crt and peer.key",fieldPath=".filesDir"
type TLSSpec struct {
	// Mode is Generated (a CA for this cluster alone), CASecret (your CA, root or
	// intermediate, in a Secret), Files (certificates that lie on the hosts) or
	// Disabled. Default: Generated. Why: whoever reaches an etcd without TLS owns
	// everything in it, so safety is what needs no configuration.
	//
	// +kubebuilder:default=Generated
	Mode TLSMode `json:"mode,omitempty"`

	// CASecretRef names a Secret of type kubernetes.io/tls in the cluster's
	// namespace: tls.crt (an intermediate is followed by its chain), tls.key, and
	// ca.crt with the roots to trust where tls.crt is not itself a root.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	CASecretRef string `json:"caSecretRef,omitempty"`

	// FilesDir is the directory on each host for mode Files.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	FilesDir string `json:"filesDir,omitempty"`

	// ClientSecretRef names a Secret (tls.crt, tls.key, ca.crt) that Quorate itself
	// uses as a client in mode Files.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	ClientSecretRef string `json:"clientSecretRef,omitempty"`

	// ExtraSANs are host names and IP addresses added to the server certificates.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=32
	ExtraSANs []string `json:"extraSANs,omitempty"`

	// LeafValidity is how long a member's certificate lives, as a Go duration; it
	// is renewed after two thirds of that. Default: 8760h. Why: a year outlives
	// every planned absence of Quorate, and etcd reloads renewed ones without a
	// restart.
	//
	// +kubebuilder:default="8760h"
	// +kubebuilder:validation:Pattern=`^([0-9]{1,6}(\.[0-9]{1,3})?(ms|s|m|h))+$`
	// +kubebuilder:validation:MaxLength=20
	LeafValidity string `json:"leafValidity,omitempty"`
}

// CompactionMode is how etcd drops old revisions by itself.
//
// +kubebuilder:validation:Enum=Periodic;Revision;Disabled
type CompactionMode string

// The compaction modes.
const (
	CompactionPeriodic CompactionMode = "Periodic"
	CompactionRevision CompactionMode = "Revision"
	CompactionDisabled CompactionMode = "Disabled"
)

// AutoCompaction is when a cluster drops old revisions.
//
// +kubebuilder:validation:XValidation:rule="!has(self.mode) || !has(self.retention) || self.mode != 'Revision' || self.retention.matches('^[1-9][0-9]*$')",message="with mode Revision, retention is a number of revisions such as 10000",fieldPath=".retention"
// +kubebuilder:validation:XValidation:rule="!has(self.mode) || !has(self.retention) || self.mode != 'Periodic' || (self.retention.matches('^([0-9]{1,6}(ms|s|m|h))+$') && duration(self.retention) > duration('0s'))",message="with mode Periodic, retention is a duration above zero such as 5m",fieldPath=".retention"
type AutoCompaction struct {
	// Mode is Periodic, Revision or Disabled. Default: Periodic. Why: etcd's own default
	// is off, and then the database only grows until writes are refused.
	//
	// +kubebuilder:default=Periodic
	Mode CompactionMode `json:"mode,omitempty"`

	// Retention is a duration for Periodic and a number of revisions for Revision.
	// Default: 5m. Why: it is what operators of etcd set, and what kube-apiserver
	// does by itself.
	//
	// +kubebuilder:default="5m"
	// +kubebuilder:validation:MaxLength=20
	Retention string `json:"retention,omitempty"`
}

// EtcdConfig tunes etcd; Quorate turns it into the flags of the member's version.
// The rules ask has() although every field has a default: the API server also runs
// them on the bare default of the block, {}. They look at a size before they count
// with it: 1e999999999 is one that takes hours to compare.
//
// +kubebuilder:validation:XValidation:rule="!has(self.quotaBackend) || (string(self.quotaBackend).matches('^[0-9]{1,15}(([.][0-9]{1,3})?(k|Ki|Mi?|Gi?|Ti?|Pi?|Ei?))?$') && quantity(string(self.quotaBackend)).isGreaterThan(quantity('0')))",message="quotaBackend must be a whole number of bytes above zero, such as 8Gi: 0 would mean etcd's 2Gi, and m means thousandths",fieldPath=".quotaBackend"
// +kubebuilder:validation:XValidation:rule="!has(self.quotaBackend) || !string(self.quotaBackend).matches('^[0-9]{1,15}(([.][0-9]{1,3})?(k|Ki|Mi?|Gi?|Ti?|Pi?|Ei?))?$') || quantity(string(self.quotaBackend)).compareTo(quantity('100Gi')) <= 0",message="quotaBackend above 100Gi is beyond what etcd has been run with",fieldPath=".quotaBackend"
// +kubebuilder:validation:XValidation:rule="!has(self.maxRequest) || (string(self.maxRequest).matches('^[0-9]{1,15}(([.][0-9]{1,3})?(k|Ki|Mi?|Gi?|Ti?|Pi?|Ei?))?$') && quantity(string(self.maxRequest)).isGreaterThan(quantity('0')))",message="maxRequest must be a whole number of bytes above zero, such as 1536Ki: m means thousandths",fieldPath=".maxRequest"
// +kubebuilder:validation:XValidation:rule="!has(self.maxRequest) || !string(self.maxRequest).matches('^[0-9]{1,15}(([.][0-9]{1,3})?(k|Ki|Mi?|Gi?|Ti?|Pi?|Ei?))?$') || quantity(string(self.maxRequest)).compareTo(quantity('10Mi')) <= 0",message="maxRequest must be at most 10Mi: larger requests starve heartbeats",fieldPath=".maxRequest"
// +kubebuilder:validation:XValidation:rule="!has(self.electionTimeout) || !has(self.heartbeatInterval) || duration(self.electionTimeout).getMilliseconds() >= duration(self.heartbeatInterval).getMilliseconds() * 5",message="electionTimeout must be at least five heartbeatIntervals: etcd refuses less",fieldPath=".electionTimeout"
// +kubebuilder:validation:XValidation:rule="!has(self.electionTimeout) || duration(self.electionTimeout) <= duration('50s')",message="electionTimeout must be at most 50s: etcd refuses more",fieldPath=".electionTimeout"
type EtcdConfig struct {
	// QuotaBackend is the database size at which etcd stops taking writes. Default:
	// 8Gi. Why: etcd's own 2Gi is reached by a middle-sized Kubernetes, and 8Gi is
	// the most its maintainers recommend.
	//
	// +kubebuilder:default="8Gi"
	QuotaBackend resource.Quantity `json:"quotaBackend,omitzero"`

	// MaxRequest is the largest request a client may send. Default: 1536Ki. Why:
	// etcd's own default; larger ones starve heartbeats.
	//
	// +kubebuilder:default="1536Ki"
	MaxRequest resource.Quantity `json:"maxRequest,omitzero"`

	// MaxTxnOps is how many operations a transaction may hold. Default: 128. Why:
	// etcd's own default.
	//
	// +kubebuilder:default=128
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	MaxTxnOps int32 `json:"maxTxnOps,omitempty"`

	// SnapshotCount is how many committed entries lie between two raft snapshots.
	// Default: 10000. Why: etcd's own default since 3.6; more costs memory.
	//
	// +kubebuilder:default=10000
	// +kubebuilder:validation:Minimum=10
	SnapshotCount int64 `json:"snapshotCount,omitempty"`

	// HeartbeatInterval is how often the leader speaks. Default: 100ms. Why: etcd's
	// own default, right inside one site.
	//
	// +kubebuilder:default="100ms"
	// +kubebuilder:validation:Pattern=`^[1-9][0-9]*(ms|s)$`
	// +kubebuilder:validation:MaxLength=8
	HeartbeatInterval string `json:"heartbeatInterval,omitempty"`

	// ElectionTimeout is the silence after which followers elect a leader. Default:
	// 1s. Why: etcd's own default, ten heartbeats.
	//
	// +kubebuilder:default="1s"
	// +kubebuilder:validation:Pattern=`^[1-9][0-9]*(ms|s)$`
	// +kubebuilder:validation:MaxLength=8
	ElectionTimeout string `json:"electionTimeout,omitempty"`

	// InitialCorruptCheck has a member compare its data with its peers' before it
	// serves. Default: true. Why: a member whose data differs must not answer. When
	// all members start at once, each waits about seven seconds for the others.
	//
	// +kubebuilder:default=true
	InitialCorruptCheck *bool `json:"initialCorruptCheck,omitempty"`

	// AutoCompaction drops old revisions.
	//
	// +kubebuilder:default={}
	AutoCompaction AutoCompaction `json:"autoCompaction,omitempty"`

	// Logging says where members write their logs, and how much is kept.
	//
	// +kubebuilder:default={}
	Logging Logging `json:"logging,omitempty"`
}

// LogLevel is the least severe line that etcd writes.
//
// +kubebuilder:validation:Enum=debug;info;warn;error
type LogLevel string

// Logging is where a member's logs go. Lines of etcd are JSON, one each.
type Logging struct {
	// Dir holds <member>.log on the host. Default: the log directory in the member's
	// own home. Why: it needs no rights beyond those the member has.
	//
	// +optional
	// +kubebuilder:validation:Pattern=`^/.*`
	Dir string `json:"dir,omitempty"`

	// ErrorDir holds <member>.error.log, with etcd's lines of level error and worse,
	// and <member>.stderr.log, with what a crash prints. Default: the same as dir.
	// Why: one place to look in.
	//
	// +optional
	// +kubebuilder:validation:Pattern=`^/.*`
	ErrorDir string `json:"errorDir,omitempty"`

	// Level is debug, info, warn or error. Default: info. Why: etcd's own default;
	// elections and slow requests are written at it.
	//
	// +kubebuilder:default=info
	Level LogLevel `json:"level,omitempty"`

	// MaxSize of one file in MiB before it is rotated. Default: 64. Why: small
	// enough to open, large enough to hold a bad night.
	//
	// +kubebuilder:default=64
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4096
	MaxSize int32 `json:"maxSize,omitempty"`

	// MaxBackups is how many rotated files are kept. Default: 4. Why: with maxSize
	// it bounds what a member's log can take of the disk that its data needs.
	//
	// +kubebuilder:default=4
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	MaxBackups int32 `json:"maxBackups,omitempty"`
}

// EtcdClusterStatus is what was last seen; it can always be made anew.
type EtcdClusterStatus struct {
	// ObservedGeneration is the generation of the spec this status speaks of.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Ready is "healthy/wanted" members, such as 3/3.
	Ready string `json:"ready,omitempty"`
	// Leader is the name of the leading member, or empty.
	Leader string `json:"leader,omitempty"`
	// Version is the lowest that members answered with; the spec's before one has.
	Version string `json:"version,omitempty"`
	// ClusterID is etcd's, in hex. That of an observed cluster is kept as first seen.
	ClusterID string `json:"clusterID,omitempty"`
	// Summary is one line for tables.
	Summary string `json:"summary,omitempty"`
	// Endpoints are the client URLs of the members.
	//
	// +optional
	// +listType=set
	Endpoints []string `json:"endpoints,omitempty"`
	// Conditions: Available, Progressing, Degraded, Suspended.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
