package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// EtcdBackup is one backup of one cluster: the order, and the record of what came of
// it. The backup itself lies in the stores: deleting the object deletes no backup.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=etcdbackups,shortName=qeb,categories=quorate
// +kubebuilder:printcolumn:name="Cluster",type=string,JSONPath=`.spec.clusterName`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Revision",type=integer,JSONPath=`.status.revision`
// +kubebuilder:printcolumn:name="Size",type=integer,JSONPath=`.status.dbSize`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.spec.reason`
// +kubebuilder:printcolumn:name="Policy",type=string,JSONPath=`.spec.policyName`,priority=1
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.message`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type EtcdBackup struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   EtcdBackupSpec   `json:"spec"`
	Status EtcdBackupStatus `json:"status,omitempty"`
}

// EtcdBackupList is a list of backups.
//
// +kubebuilder:object:root=true
type EtcdBackupList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []EtcdBackup `json:"items"`
}

// BackupReason is why a backup is taken.
//
// +kubebuilder:validation:Enum=Scheduled;Manual
type BackupReason string

// The reasons.
const (
	// BackupScheduled: its policy's schedule says so.
	BackupScheduled BackupReason = "Scheduled"
	// BackupManual: a person says so.
	BackupManual BackupReason = "Manual"
)

// EtcdBackupSpec is the order; it never changes.
//
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="the order of a backup never changes: apply one under another name"
// +kubebuilder:validation:XValidation:rule="has(self.policyName) != has(self.destinations)",message="give policyName, whose destinations are then used, or destinations, and not both",fieldPath=".destinations"
// +kubebuilder:validation:XValidation:rule="!has(self.policyName) || !has(self.encryption)",message="with policyName the policy says how the backup is encrypted: leave it out",fieldPath=".encryption"
// +kubebuilder:validation:XValidation:rule="!has(self.encryption) || has(self.encryption.identitySecretRef) || (has(self.proof) && has(self.proof.mode) && self.proof.mode == 'Never')",message="a proof restores what was stored, and needs encryption.identitySecretRef for that: give it, or say proof.mode: Never with a reason",fieldPath=".encryption"
// +kubebuilder:validation:XValidation:rule="!has(self.destinations) || self.destinations.all(d, !has(d.retention))",message="a backup without a policy is kept until a person deletes it: retention has no effect here, leave it out",fieldPath=".destinations"
type EtcdBackupSpec struct {
	// ClusterName is the EtcdCluster in the same namespace.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=48
	ClusterName string `json:"clusterName"`

	// ClusterUID tells the cluster from another one of the same name: the backup fails if
	// that is there. Schedules set it.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	ClusterUID string `json:"clusterUID,omitempty"`

	// PolicyName is an EtcdBackupPolicy in the same namespace: its destinations,
	// encryption, compression and retention are used, whether or not it selects the
	// cluster.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	PolicyName string `json:"policyName,omitempty"`

	// Destinations are the stores the backup goes to, where no policy is named.
	//
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +listType=map
	// +listMapKey=name
	Destinations []BackupDestination `json:"destinations,omitempty"`

	// Encryption of what is stored, where no policy is named.
	//
	// +optional
	Encryption *BackupEncryption `json:"encryption,omitempty"`

	// Reason is Scheduled or Manual. Default: Manual. Why: schedules say that it is theirs.
	//
	// +kubebuilder:default=Manual
	Reason BackupReason `json:"reason,omitempty"`

	// Member to take it from, by name or by etcd's ID in hex. Default: a learner, then a
	// follower, then the leader; never one that is behind. Why: it spares the clients.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Member string `json:"member,omitempty"`

	// Proof of it. Default: that of the policy; Always without one. Why: a backup that
	// was never restored is a hope.
	//
	// +optional
	Proof *BackupProof `json:"proof,omitempty"`
}

// BackupPhase is how far a backup is.
type BackupPhase string

// The phases of a backup.
const (
	// BackupPending: it waits for its turn.
	BackupPending BackupPhase = "Pending"
	// BackupRunning: it is being taken.
	BackupRunning BackupPhase = "Running"
	// BackupProving: it is stored, and being restored to prove it.
	BackupProving BackupPhase = "Proving"
	// BackupVerified: it was restored from every destination that has it, and is right.
	BackupVerified BackupPhase = "Verified"
	// BackupTaken: it is stored, and nobody has restored it.
	BackupTaken BackupPhase = "Taken"
	// BackupFailed: no destination has it, or one gave back something else.
	BackupFailed BackupPhase = "Failed"
)

// EtcdBackupStatus is what came of a backup.
type EtcdBackupStatus struct {
	// Phase is Pending, Running, Proving, Verified, Taken or Failed.
	Phase BackupPhase `json:"phase,omitempty"`
	// Message says what is going on, or what came of it.
	Message string `json:"message,omitempty"`
	// StartedAt is when it began, and FinishedAt when it ended, its proof included.
	//
	// +optional
	StartedAt *metav1.Time `json:"startedAt,omitempty"`
	// +optional
	FinishedAt *metav1.Time `json:"finishedAt,omitempty"`
	// TookMilliseconds is how long it took until it was stored everywhere.
	TookMilliseconds int64 `json:"tookMilliseconds,omitempty"`
	// Server that takes it, and RenewedAt when it last said so.
	Server string `json:"server,omitempty"`
	// +optional
	RenewedAt *metav1.Time `json:"renewedAt,omitempty"`
	// Source is the member it was taken from.
	//
	// +optional
	Source *BackupSource `json:"source,omitempty"`
	// ClusterID is etcd's, in hex, and EtcdVersion what the member said it runs.
	ClusterID   string `json:"clusterID,omitempty"`
	EtcdVersion string `json:"etcdVersion,omitempty"`
	// Revision that the backup holds.
	Revision int64 `json:"revision,omitempty"`
	// DBSize of the database and StoredSize of what is stored of it, in bytes.
	DBSize     int64 `json:"dbSize,omitempty"`
	StoredSize int64 `json:"storedSize,omitempty"`
	// Keys that are alive in it.
	Keys int64 `json:"keys,omitempty"`
	// Destinations are what came of each.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	Destinations []BackupDestinationStatus `json:"destinations,omitempty"`
	// Conditions: Progressing, Degraded, Verified.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// BackupSource is the member a backup was taken from.
type BackupSource struct {
	// Member by name.
	Member string `json:"member"`
	// Role is leader, follower or learner.
	Role string `json:"role,omitempty"`
	// Why it and not another, in a sentence.
	Why string `json:"why,omitempty"`
}

// BackupDestinationStatus is what came of one destination.
type BackupDestinationStatus struct {
	// Name of the destination.
	Name string `json:"name"`
	// PointID is the backup's name there, and Dir where it lies.
	PointID string `json:"pointID,omitempty"`
	Dir     string `json:"dir,omitempty"`
	// Error says why it is not there, or not proven.
	Error string `json:"error,omitempty"`
	// Proven: it was restored from there and is right.
	Proven bool `json:"proven"`
	// ProofAt is when it was tried.
	//
	// +optional
	ProofAt *metav1.Time `json:"proofAt,omitempty"`
	// RestoreMilliseconds is how long the restore took, the download and the start of
	// etcd included (RTO).
	RestoreMilliseconds int64 `json:"restoreMilliseconds,omitempty"`
}

// Finished reports whether the backup needs no more work.
func (b *EtcdBackup) Finished() bool {
	switch b.Status.Phase {
	case BackupVerified, BackupTaken, BackupFailed:
		return true
	default:
		return false
	}
}
