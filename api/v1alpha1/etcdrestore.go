package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// EtcdRestore forms a cluster from a backup: a new one, or in place an existing one,
// whose members are then stopped and their data renamed aside. It is the order, and the
// record of what came of it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=etcdrestores,shortName=qer,categories=quorate
// +kubebuilder:printcolumn:name="Cluster",type=string,JSONPath=`.spec.clusterName`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Point",type=string,JSONPath=`.status.point.id`
// +kubebuilder:printcolumn:name="Taken",type=date,JSONPath=`.status.point.takenAt`
// +kubebuilder:printcolumn:name="Lost",type=integer,JSONPath=`.status.lostRevisions`
// +kubebuilder:printcolumn:name="In Place",type=boolean,JSONPath=`.spec.inPlace`,priority=1
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.message`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 63",message="the name is limited to 63 characters: members carry it"
type EtcdRestore struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   EtcdRestoreSpec   `json:"spec"`
	Status EtcdRestoreStatus `json:"status,omitempty"`
}

// EtcdRestoreList is a list of restores.
//
// +kubebuilder:object:root=true
type EtcdRestoreList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []EtcdRestore `json:"items"`
}

// EtcdRestoreSpec is the order; it never changes.
//
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="the order of a restore never changes: apply one under another name"
// +kubebuilder:validation:XValidation:rule="!has(self.proof) || !has(self.proof.mode) || self.proof.mode != 'Never' || !has(self.source.object)",message="a snapshot that is in no catalog has no proof to be skipped: leave proof out",fieldPath=".proof"
type EtcdRestoreSpec struct {
	// ClusterName is the EtcdCluster in the same namespace that is formed from the backup.
	// A new one says so itself: its spec.restoreName is the name of this restore.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=48
	ClusterName string `json:"clusterName"`

	// InPlace allows that the cluster exists and holds data: its members are stopped,
	// their data is renamed aside, and new members take their places. What was written
	// since the backup is then in the renamed data alone. Default: false. Why: a wrong
	// name must not cost a cluster.
	//
	// +kubebuilder:default=false
	InPlace bool `json:"inPlace,omitempty"`

	// Source is the backup.
	Source RestoreSource `json:"source"`

	// BumpRevision is added to the revision, so that it is above whatever clients have
	// seen; 0 keeps it. Default: as much as is needed and a million more, where the
	// cluster's revision is known, else a thousand million. Why: clients that wait for a
	// newer revision than there is would miss every change until then.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000000000
	BumpRevision *int64 `json:"bumpRevision,omitempty"`

	// DisarmCorrupt removes a CORRUPT alarm that is in the backup. Default: false. Why:
	// the backup may be that of the member with the wrong data: look first.
	//
	// +kubebuilder:default=false
	DisarmCorrupt bool `json:"disarmCorrupt,omitempty"`

	// Proof: before anything is touched, a backup that nobody has restored yet is restored
	// into a scratch etcd. Default: mode Always. Why: a backup that was never restored is a
	// hope, and the data that is there may be all there is.
	//
	// +optional
	Proof *BackupProof `json:"proof,omitempty"`
}

// Words that stand for a backup, in RestoreSource.Point.
const (
	// PointLatest is the newest backup, PointLatestProven the newest that was restored and
	// is right.
	PointLatest       = "latest"
	PointLatestProven = "latest-proven"
)

// RestoreSource says which backup is meant: by its EtcdBackup; by a policy, in whose
// destinations it lies; or by a store, which is enough where nothing else is left.
//
// +kubebuilder:validation:XValidation:rule="(has(self.backupName) ? 1 : 0) + (has(self.policyName) ? 1 : 0) + (has(self.destination) ? 1 : 0) == 1",message="give one of backupName, policyName and destination"
// +kubebuilder:validation:XValidation:rule="!has(self.object) || has(self.destination)",message="object is a snapshot in the store of destination: give that",fieldPath=".object"
// +kubebuilder:validation:XValidation:rule="!has(self.object) || (!has(self.point) && !has(self.notAfter) && !has(self.clusterName) && !has(self.clusterID))",message="object is a snapshot that is in no catalog: leave point, notAfter, clusterName and clusterID out",fieldPath=".object"
// +kubebuilder:validation:XValidation:rule="!has(self.backupName) || (!has(self.point) && !has(self.notAfter) && !has(self.clusterName) && !has(self.clusterID))",message="backupName names one backup: leave point, notAfter, clusterName and clusterID out",fieldPath=".backupName"
// +kubebuilder:validation:XValidation:rule="!has(self.destinationName) || !has(self.destination)",message="destinationName chooses among those of the policy or the backup: leave it out",fieldPath=".destinationName"
// +kubebuilder:validation:XValidation:rule="!has(self.identitySecretRef) || has(self.destination)",message="the policy or the backup says what opens it: leave identitySecretRef out",fieldPath=".identitySecretRef"
// +kubebuilder:validation:XValidation:rule="!has(self.notAfter) || !has(self.point) || self.point in ['latest', 'latest-proven']",message="notAfter is for latest and latest-proven: an ID names one backup",fieldPath=".notAfter"
type RestoreSource struct {
	// BackupName is an EtcdBackup in the same namespace.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	BackupName string `json:"backupName,omitempty"`

	// PolicyName is an EtcdBackupPolicy in the same namespace.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	PolicyName string `json:"policyName,omitempty"`

	// Destination is the store itself.
	//
	// +optional
	Destination *BackupDestination `json:"destination,omitempty"`

	// DestinationName is the destination to read from. Default: the first in which the
	// backup is proven, else the first that has it. Why: any of them gives the same bytes.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	DestinationName string `json:"destinationName,omitempty"`

	// ClusterName is the cluster that was backed up, as NAME or NAMESPACE/NAME. Default:
	// the cluster that is formed.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=127
	ClusterName string `json:"clusterName,omitempty"`

	// ClusterID is etcd's ID of it in hex, where several had the name.
	//
	// +optional
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{1,16}$`
	ClusterID string `json:"clusterID,omitempty"`

	// Point is the ID of a backup, as `quorate backup list` shows it, or latest, or
	// latest-proven. Default: latest-proven. Why: it is known to be restorable.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Point string `json:"point,omitempty"`

	// NotAfter leaves out backups that were begun later.
	//
	// +optional
	NotAfter *metav1.Time `json:"notAfter,omitempty"`

	// Object is the key of a snapshot that etcdctl saved, or of a full snapshot of
	// etcd-backup-restore, in the store of destination.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Object string `json:"object,omitempty"`

	// IdentitySecretRef names a Secret of type Opaque in the same namespace with an age
	// identity under the key identity, which opens encrypted backups in destination.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	IdentitySecretRef string `json:"identitySecretRef,omitempty"`
}

// RestorePhase is how far a restore is.
type RestorePhase string

// The phases of a restore.
const (
	// RestorePending: something it needs is missing, or it waits for its turn.
	RestorePending RestorePhase = "Pending"
	// RestoreChecking: the backup is being restored into a scratch etcd; nothing has been
	// touched.
	RestoreChecking RestorePhase = "Checking"
	// RestoreRunning: the cluster is being formed from it.
	RestoreRunning RestorePhase = "Restoring"
	// RestoreCompleted: every member serves the restored data.
	RestoreCompleted RestorePhase = "Completed"
	// RestoreFailed: nothing was touched.
	RestoreFailed RestorePhase = "Failed"
)

// EtcdRestoreStatus is what came of a restore.
type EtcdRestoreStatus struct {
	// Phase is Pending, Checking, Restoring, Completed or Failed.
	Phase RestorePhase `json:"phase,omitempty"`
	// Message says what is going on, or what came of it.
	Message string `json:"message,omitempty"`
	// StartedAt is when the first member was touched, FinishedAt when all served.
	//
	// +optional
	StartedAt *metav1.Time `json:"startedAt,omitempty"`
	// +optional
	FinishedAt *metav1.Time `json:"finishedAt,omitempty"`
	// TookMilliseconds from one to the other.
	TookMilliseconds int64 `json:"tookMilliseconds,omitempty"`
	// Point is the backup that is restored.
	//
	// +optional
	Point *RestorePoint `json:"point,omitempty"`
	// LastRevision is the newest revision that the cluster is known to have had; 0 where
	// that is not known.
	LastRevision int64 `json:"lastRevision,omitempty"`
	// LostRevisions is how many of those are newer than the backup; 0 where they can't be
	// compared, since the cluster was formed anew since.
	LostRevisions int64 `json:"lostRevisions,omitempty"`
	// BumpRevision is added to the backup's revision, and BumpReason says why so much.
	BumpRevision int64  `json:"bumpRevision,omitempty"`
	BumpReason   string `json:"bumpReason,omitempty"`
	// Revision that the cluster begins with.
	Revision int64 `json:"revision,omitempty"`
	// Token of the new cluster, and ClusterID once it is there, in hex.
	Token     string `json:"token,omitempty"`
	ClusterID string `json:"clusterID,omitempty"`
	// Places are where members stood whose places new ones take.
	//
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Places []RestorePlace `json:"places,omitempty"`
	// Conditions: Progressing, Degraded.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// RestorePoint is a backup as the store has it.
type RestorePoint struct {
	// ID of it; the object's key for a snapshot that is in no catalog.
	ID string `json:"id"`
	// Destination it is read from.
	Destination string `json:"destination,omitempty"`
	// Cluster that was backed up, as NAMESPACE/NAME, and its ClusterID in hex.
	Cluster   string `json:"cluster,omitempty"`
	ClusterID string `json:"clusterID,omitempty"`
	// TakenAt is when it was begun.
	//
	// +optional
	TakenAt *metav1.Time `json:"takenAt,omitempty"`
	// ProvenAt is when it was last restored and found right.
	//
	// +optional
	ProvenAt *metav1.Time `json:"provenAt,omitempty"`
	// EtcdVersion of the member it was taken from.
	EtcdVersion string `json:"etcdVersion,omitempty"`
	// Revision that it holds, its DBSize in bytes, and its Keys.
	Revision int64 `json:"revision,omitempty"`
	DBSize   int64 `json:"dbSize,omitempty"`
	Keys     int64 `json:"keys,omitempty"`
}

// RestorePlace is where a member stood.
type RestorePlace struct {
	// Member that stood there.
	Member string `json:"member"`
	// Host it was on, and the Ports it had.
	Host  string `json:"host"`
	Ports Ports  `json:"ports,omitempty"`
}

// Finished reports whether the restore needs no more work.
func (r *EtcdRestore) Finished() bool {
	return r.Status.Phase == RestoreCompleted || r.Status.Phase == RestoreFailed
}
