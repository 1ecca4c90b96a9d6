package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// EtcdMember is one etcd process with one disk and one identity. The fleet
// writes its spec; who runs it (agent or operator) writes its status.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=etcdmembers,shortName=qem,categories=quorate
// +kubebuilder:printcolumn:name="Cluster",type=string,JSONPath=`.spec.clusterName`
// +kubebuilder:printcolumn:name="Host",type=string,JSONPath=`.spec.host`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.spec.release.version`
// +kubebuilder:printcolumn:name="Client URL",type=string,JSONPath=`.status.clientURL`
// +kubebuilder:printcolumn:name="PID",type=integer,JSONPath=`.status.process.pid`
// +kubebuilder:printcolumn:name="Crashes",type=integer,JSONPath=`.status.process.crashes`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type EtcdMember struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   EtcdMemberSpec   `json:"spec"`
	Status EtcdMemberStatus `json:"status,omitempty"`
}

// EtcdMemberList is a list of members.
//
// +kubebuilder:object:root=true
type EtcdMemberList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []EtcdMember `json:"items"`
}

// RunPolicy is how far a member is to be brought.
//
// +kubebuilder:validation:Enum=Prepared;Running;Stopped
type RunPolicy string

// The run policies.
const (
	// RunPrepared makes the home, ports, release and certificates ready, and starts nothing.
	RunPrepared RunPolicy = "Prepared"
	// RunRunning keeps etcd running.
	RunRunning RunPolicy = "Running"
	// RunStopped stops etcd, with proof, and keeps its data.
	RunStopped RunPolicy = "Stopped"
)

// EtcdMemberSpec is what the fleet wants of a member. What is in flight stands
// here, never in status.
//
// +kubebuilder:validation:XValidation:rule="self.clusterName == oldSelf.clusterName && self.host == oldSelf.host && (has(self.restoreName) ? self.restoreName : \"\") == (has(oldSelf.restoreName) ? oldSelf.restoreName : \"\")",message="a member never changes its cluster, its host or where its data comes from: it is replaced"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.memberID) || (has(self.memberID) && self.memberID == oldSelf.memberID)",message="a member that has joined keeps its ID for good"
type EtcdMemberSpec struct {
	// ClusterName is the EtcdCluster in the same namespace.
	//
	// +kubebuilder:validation:MinLength=1
	ClusterName string `json:"clusterName"`
	// Host is the EtcdHost that runs the member.
	//
	// +kubebuilder:validation:MinLength=1
	Host string `json:"host"`
	// Run is how far the member is to be brought. Default: Prepared. Why: a member
	// joins nothing until the fleet has seen that it can.
	//
	// +kubebuilder:default=Prepared
	Run RunPolicy `json:"run,omitempty"`
	// Release is the etcd the member runs, pinned by digest.
	Release ReleaseRef `json:"release"`
	// Ports; 0 lets the host choose. Once prepared, the chosen ones stand here.
	//
	// +optional
	Ports Ports `json:"ports,omitempty"`
	// Bootstrap is how the member first joins; unused afterwards.
	//
	// +optional
	Bootstrap *Bootstrap `json:"bootstrap,omitempty"`
	// RestoreName is the EtcdRestore that the member's data comes from; empty for members
	// of a cluster that began without data.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=63
	RestoreName string `json:"restoreName,omitempty"`
	// MemberID is etcd's ID of the member in hex, recorded once it has joined. From
	// then on an empty, foreign or rolled-back data directory is refused.
	//
	// +optional
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{1,16}$`
	MemberID string `json:"memberID,omitempty"`
	// ClusterID is etcd's ID of the cluster in hex, recorded with MemberID.
	//
	// +optional
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{1,16}$`
	ClusterID string `json:"clusterID,omitempty"`
	// Leaving says that etcd was, or is about to be, told to remove the member from its
	// cluster. Such a member is not started again while the others can do without it.
	//
	// +optional
	Leaving bool `json:"leaving,omitempty"`
	// TLS and Etcd are the cluster's, copied when this member's turn has come.
	//
	// +kubebuilder:default={}
	TLS TLSSpec `json:"tls,omitempty"`
	// Etcd tunes the member.
	//
	// +kubebuilder:default={}
	Etcd EtcdConfig `json:"etcd,omitempty"`
	// Class and Resources are the cluster's: how the host keeps the member apart from
	// the others. A change needs no restart.
	//
	// +optional
	Class ServiceClass `json:"class,omitempty"`
	// Resources that the member asks for.
	//
	// +optional
	Resources Resources `json:"resources,omitempty"`
	// RestartedAt, when changed, restarts the process.
	//
	// +optional
	RestartedAt *metav1.Time `json:"restartedAt,omitempty"`
	// DeletionPolicy is the cluster's. Default: Retain. Why: as for the cluster.
	//
	// +kubebuilder:default=Retain
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`
	// RetainFor is the cluster's. Default: 168h. Why: as for the cluster.
	//
	// +kubebuilder:default="168h"
	RetainFor string `json:"retainFor,omitempty"`
}

// ReleaseRef pins an etcd release.
type ReleaseRef struct {
	// Version such as 3.7.3.
	Version string `json:"version"`
	// Digest is "sha256:" and the hex digest of the etcd executable.
	//
	// +kubebuilder:validation:Pattern=`^sha256:[0-9a-f]{64}$`
	Digest string `json:"digest"`
}

// BootstrapState is etcd's initial-cluster-state, or that there is a data directory
// before etcd is first started.
//
// +kubebuilder:validation:Enum=New;Existing;Restored
type BootstrapState string

// The bootstrap states.
const (
	BootstrapNew      BootstrapState = "New"
	BootstrapExisting BootstrapState = "Existing"
	// BootstrapRestored: the data directory is made from a backup, and etcd is never
	// started without it.
	BootstrapRestored BootstrapState = "Restored"
)

// Bootstrap is how a member first joins its cluster.
type Bootstrap struct {
	// State is New, Existing or Restored.
	State BootstrapState `json:"state"`
	// Token is etcd's initial-cluster-token: fresh for each cluster formed.
	Token string `json:"token"`
	// InitialCluster lists all founding members, this one included, by name.
	//
	// +listType=map
	// +listMapKey=name
	InitialCluster []Peer `json:"initialCluster"`
	// Discovery service that the founding members meet at, instead of being told of
	// each other. With it, InitialCluster holds the member alone.
	//
	// +optional
	Discovery *DiscoveryBootstrap `json:"discovery,omitempty"`
	// DNS records that the founding members find each other by. InitialCluster says what
	// the records must name.
	//
	// +optional
	DNS *DNSSpec `json:"dns,omitempty"`
	// BumpRevision is added to the revision of what is restored.
	//
	// +optional
	BumpRevision int64 `json:"bumpRevision,omitempty"`
	// DisarmCorrupt removes a CORRUPT alarm from what is restored.
	//
	// +optional
	DisarmCorrupt bool `json:"disarmCorrupt,omitempty"`
}

// DiscoveryBootstrap is where founding members meet.
type DiscoveryBootstrap struct {
	// Endpoints are client URLs of the discovery service.
	//
	// +listType=set
	Endpoints []string `json:"endpoints"`
	// Token names the cluster there.
	Token string `json:"token"`
	// CA that the service's certificate is checked by, in PEM; empty for the host's own
	// roots.
	//
	// +optional
	CA string `json:"ca,omitempty"`
}

// Peer is a member as its peers know it.
type Peer struct {
	// Name of the EtcdMember.
	Name string `json:"name"`
	// URL it listens on for peers.
	URL string `json:"url"`
}

// MemberPhase sums up a member.
type MemberPhase string

// The member phases.
const (
	MemberPending   MemberPhase = "Pending"
	MemberPrepared  MemberPhase = "Prepared"
	MemberRestoring MemberPhase = "Restoring"
	MemberStarting  MemberPhase = "Starting"
	MemberRunning   MemberPhase = "Running"
	MemberCrashLoop MemberPhase = "CrashLoop"
	MemberRefused   MemberPhase = "Refused"
	MemberStopped   MemberPhase = "Stopped"
	MemberFailed    MemberPhase = "Failed"
)

// EtcdMemberStatus is what the member's host last reported.
type EtcdMemberStatus struct {
	// ObservedGeneration is the generation of the spec this status speaks of.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Phase sums up the member.
	Phase MemberPhase `json:"phase,omitempty"`
	// Message says why, in a sentence, when the phase is not the wanted one.
	Message string `json:"message,omitempty"`
	// ClientURL is where clients connect.
	ClientURL string `json:"clientURL,omitempty"`
	// PeerURL is where peers connect.
	PeerURL string `json:"peerURL,omitempty"`
	// MetricsURL serves /metrics and /health in plain text.
	MetricsURL string `json:"metricsURL,omitempty"`
	// Ports chosen by the host.
	Ports Ports `json:"ports,omitempty"`
	// DataDir is the directory of etcd's data on the host.
	DataDir string `json:"dataDir,omitempty"`
	// LogFile is etcd's log on the host.
	LogFile string `json:"logFile,omitempty"`
	// Process is the etcd that runs, if one does.
	//
	// +optional
	Process *ProcessStatus `json:"process,omitempty"`
	// LastExit is how the latest etcd ended.
	//
	// +optional
	LastExit *ExitStatus `json:"lastExit,omitempty"`
	// StopProof stands while no etcd of this member can be running.
	//
	// +optional
	StopProof *StopProof `json:"stopProof,omitempty"`
	// Used is what the member uses now, in coarse steps: CPU over the last minute,
	// resident memory, and its home on disk.
	//
	// +optional
	Used *Resources `json:"used,omitempty"`
	// Mark is a raft position the member is known to have reached.
	//
	// +optional
	Mark *RaftMark `json:"mark,omitempty"`
	// Conditions: Prepared, Restored, Running, DataDirectory, Certificates, Formed.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ProcessStatus is a running etcd.
type ProcessStatus struct {
	// PID on its host.
	PID int64 `json:"pid,omitempty"`
	// StartedAt by the host's clock.
	StartedAt metav1.Time `json:"startedAt,omitempty"`
	// ConfigHash is MemberConfigHash of the spec it was started with.
	ConfigHash string `json:"configHash,omitempty"`
	// Digest of the executable it runs.
	Digest string `json:"digest,omitempty"`
	// Restarts since the supervisor first started it, for whatever reason.
	Restarts int64 `json:"restarts,omitempty"`
	// Crashes are those restarts that followed an end which nobody asked for.
	//
	// +optional
	Crashes int64 `json:"crashes"`
	// SupervisorPID is its supervisor's.
	SupervisorPID int64 `json:"supervisorPID,omitempty"`
}

// ExitStatus is how an etcd ended.
type ExitStatus struct {
	// At by the host's clock.
	At metav1.Time `json:"at,omitempty"`
	// Code is the exit code, or -1 where it was killed or not seen.
	Code int32 `json:"code"`
	// Signal that ended it, such as "killed".
	Signal string `json:"signal,omitempty"`
	// Message is the last thing it said of the cause.
	Message string `json:"message,omitempty"`
}

// StopProof says how it is known that no etcd of a member runs.
type StopProof struct {
	// At by the host's clock.
	At metav1.Time `json:"at,omitempty"`
	// PID that ended, or 0 if none was ever started.
	PID int64 `json:"pid,omitempty"`
	// Evidence in words: reaped by the supervisor, gone with an earlier boot, never started.
	Evidence string `json:"evidence"`
}

// RaftMark is a position in the raft log.
type RaftMark struct {
	Term  int64 `json:"term"`
	Index int64 `json:"index"`
}
