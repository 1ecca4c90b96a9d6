package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// EtcdBackupPolicy says which clusters are backed up, when, to where, and how long
// their backups are kept. Each backup is restored before it counts as one.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=etcdbackuppolicies,shortName=qebp,categories=quorate
// +kubebuilder:printcolumn:name="Schedule",type=string,JSONPath=`.status.schedule`
// +kubebuilder:printcolumn:name="Clusters",type=integer,JSONPath=`.status.clusters`
// +kubebuilder:printcolumn:name="Fresh",type=string,JSONPath=`.status.conditions[?(@.type=="Fresh")].status`
// +kubebuilder:printcolumn:name="Proven",type=string,JSONPath=`.status.conditions[?(@.type=="Proven")].status`
// +kubebuilder:printcolumn:name="Next",type=string,JSONPath=`.status.nextRunAt`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 63",message="the name is limited to 63 characters: its backups carry it as a label"
type EtcdBackupPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   EtcdBackupPolicySpec   `json:"spec"`
	Status EtcdBackupPolicyStatus `json:"status,omitempty"`
}

// EtcdBackupPolicyList is a list of policies.
//
// +kubebuilder:object:root=true
type EtcdBackupPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []EtcdBackupPolicy `json:"items"`
}

// EtcdBackupPolicySpec is what a person asks of a policy. The rules ask has() also of
// what has a default: the API server runs them on bare defaults too.
//
// +kubebuilder:validation:XValidation:rule="has(self.clusterName) != has(self.selector)",message="give clusterName or selector, and not both: a policy without either would back up nothing",fieldPath=".clusterName"
// +kubebuilder:validation:XValidation:rule="!has(self.encryption) || has(self.encryption.identitySecretRef) || (has(self.proof.mode) && self.proof.mode == 'Never')",message="a proof restores what was stored, and needs encryption.identitySecretRef for that: give it, or say proof.mode: Never with a reason",fieldPath=".encryption"
// +kubebuilder:validation:XValidation:rule="!has(self.staleAfter) || has(self.schedule.cron) || duration(self.staleAfter) >= duration(has(self.schedule.interval) ? self.schedule.interval : '1h')",message="staleAfter is shorter than the interval: every backup would be stale before the next one",fieldPath=".staleAfter"
type EtcdBackupPolicySpec struct {
	// ClusterName is the EtcdCluster in the same namespace that is backed up.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=48
	ClusterName string `json:"clusterName,omitempty"`

	// Selector backs up every EtcdCluster of the namespace that it matches, those of
	// tomorrow included.
	//
	// +optional
	Selector *ClusterSelector `json:"selector,omitempty"`

	// Schedule says when a backup is taken.
	//
	// +kubebuilder:default={}
	Schedule BackupSchedule `json:"schedule,omitempty"`

	// Destinations are the stores that every backup goes to. Two in different regions
	// outlive the loss of one.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +listType=map
	// +listMapKey=name
	Destinations []BackupDestination `json:"destinations"`

	// Retention says which backups are kept in each destination; of this policy's own,
	// others are never touched. Left out, they are the last of each of 24 hours, 7 days,
	// 5 weeks and 6 months: an hour is what a mistake of today costs, and half a year is
	// what one that nobody noticed does. An empty block, {}, keeps everything.
	//
	// +kubebuilder:default={hourly: 24, daily: 7, weekly: 5, monthly: 6}
	Retention BackupRetention `json:"retention,omitempty"`

	// Encryption of what is stored. Without it, whoever reads the store reads the data.
	//
	// +optional
	Encryption *BackupEncryption `json:"encryption,omitempty"`

	// Proof restores each backup from each destination into a scratch etcd of this
	// server and compares it.
	//
	// +kubebuilder:default={}
	Proof BackupProof `json:"proof,omitempty"`

	// StaleAfter is the age, as a Go duration, above which the newest backup of a cluster
	// is too old (RPO): it shows in condition Fresh. Default: three intervals, or three
	// times the longest pause of cron. Why: one run may fail and its repetition run late
	// before anybody has to be woken.
	//
	// +optional
	// +kubebuilder:validation:Pattern=`^([0-9]{1,6}(\.[0-9]{1,3})?(ms|s|m|h))+$`
	// +kubebuilder:validation:MaxLength=20
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="staleAfter must be above zero"
	StaleAfter string `json:"staleAfter,omitempty"`

	// Compression is Fastest, Default or Better. Default: Fastest. Why: it keeps up with
	// disks and networks on one core, and the others save some hundredths.
	//
	// +kubebuilder:default=Fastest
	Compression BackupCompression `json:"compression,omitempty"`

	// Suspended takes no more backups on schedule; those that there are stay, and none is
	// pruned. Default: false. Why: a policy that was declared is meant to be followed.
	//
	// +kubebuilder:default=false
	Suspended bool `json:"suspended,omitempty"`

	// WithoutLeader takes the member that has applied the most where the cluster has no
	// leader. Default: false. Why: nobody can say then how far behind that member is.
	//
	// +kubebuilder:default=false
	WithoutLeader bool `json:"withoutLeader,omitempty"`
}

// ClusterSelector chooses clusters by their labels.
type ClusterSelector struct {
	// MatchLabels are labels that a cluster must all have. None chooses every cluster of
	// the namespace.
	//
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	MatchLabels map[string]string `json:"matchLabels,omitempty"`
}

// Matches reports whether a cluster with these labels is chosen.
func (s *ClusterSelector) Matches(labels map[string]string) bool {
	for key, value := range s.MatchLabels {
		if got, ok := labels[key]; !ok || got != value {
			return false
		}
	}
	return true
}

// BackupSchedule is when backups are taken.
//
// +kubebuilder:validation:XValidation:rule="!has(self.interval) || !has(self.cron)",message="give interval or cron, and not both",fieldPath=".cron"
// +kubebuilder:validation:XValidation:rule="!has(self.jitter) || has(self.cron)",message="jitter is for cron: with an interval each cluster has its own moment anyway",fieldPath=".jitter"
type BackupSchedule struct {
	// Interval between two backups of a cluster, as a Go duration of at least a minute.
	// Each cluster has its own moment in it, always the same, so that not all begin at
	// once. Default: 1h, where there is no cron. Why: it bounds what a disaster costs to
	// an hour of writes, at a load that a follower does not notice.
	//
	// +optional
	// +kubebuilder:validation:Pattern=`^([0-9]{1,6}(\.[0-9]{1,3})?(ms|s|m|h))+$`
	// +kubebuilder:validation:MaxLength=20
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1m') && duration(self) <= duration('8760h')",message="the interval must be at least 1m, since a backup must be over before the next one, and at most 8760h"
	Interval string `json:"interval,omitempty"`

	// Cron is five fields: minute, hour, day of the month, month, day of the week, such
	// as "0 */6 * * *"; or @hourly, @daily, @weekly, @monthly, @yearly.
	//
	// +optional
	// +kubebuilder:validation:Pattern=`^(@(hourly|daily|midnight|weekly|monthly|yearly|annually)|\S+( +\S+){4})$`
	// +kubebuilder:validation:MaxLength=100
	Cron string `json:"cron,omitempty"`

	// TimeZone of cron, and of where days begin for retention, such as Europe/Berlin.
	// Default: UTC. Why: it has no hour that comes twice or never.
	//
	// +kubebuilder:default=UTC
	// +kubebuilder:validation:MaxLength=64
	TimeZone string `json:"timeZone,omitempty"`

	// Jitter is how far at most a cluster's run is put off behind the time of cron, as a
	// Go duration; each cluster by its own part of it, always the same. Default: 1m, with
	// cron. Why: a thousand clusters would begin in the same second.
	//
	// +optional
	// +kubebuilder:validation:Pattern=`^([0-9]{1,6}(\.[0-9]{1,3})?(ms|s|m|h))+$`
	// +kubebuilder:validation:MaxLength=20
	Jitter string `json:"jitter,omitempty"`
}

// CredentialsFrom says where credentials come from that no Secret gives.
//
// +kubebuilder:validation:Enum=Environment;Instance
type CredentialsFrom string

// The sources of credentials beside a Secret.
const (
	// CredentialsEnvironment takes them from the environment of the server.
	CredentialsEnvironment CredentialsFrom = "Environment"
	// CredentialsInstance takes the identity that the cloud gives to the server's machine.
	CredentialsInstance CredentialsFrom = "Instance"
)

// BackupDestination is a store that backups go to.
//
// +kubebuilder:validation:XValidation:rule="!has(self.compliance) || !self.compliance || has(self.lockFor)",message="compliance is a property of the lock: give lockFor too",fieldPath=".compliance"
// +kubebuilder:validation:XValidation:rule="!has(self.lockFor) || self.url.startsWith('s3://')",message="lockFor needs a store with object lock: only s3:// has one here",fieldPath=".lockFor"
type BackupDestination struct {
	// Name of it in status, metrics and messages.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name"`

	// URL of the store: file:///directory, s3://bucket/prefix?region=…, cos://, oss://,
	// gs:// or azblob://container/prefix?account=…; never with credentials. A directory is
	// one of the server's machine, and must be there.
	//
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="self.matches('^(file|s3|cos|oss|gs|azblob)://')",message="write it as file:///directory, s3://, cos://, oss://, gs:// or azblob://bucket/prefix?key=value"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[a-z0-9]+://[^/?]*@')",message="it has credentials: put them into a Secret and name that in credentialsSecretRef, since URLs end up in logs"
	URL string `json:"url"`

	// CredentialsSecretRef names a Secret of type Opaque in the same namespace, whose keys
	// are named as in the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3,
	// and so on. file:// needs none.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	CredentialsSecretRef string `json:"credentialsSecretRef,omitempty"`

	// CredentialsFrom is Environment or Instance, where no Secret is named. Default:
	// Environment. Why: it is what every tool of the clouds looks at first.
	//
	// +kubebuilder:default=Environment
	CredentialsFrom CredentialsFrom `json:"credentialsFrom,omitempty"`

	// UploadRate bounds the upload in bytes per second, such as 50Mi. Default: as fast as
	// it goes. Why: the member is done with before the upload, whose time costs nothing.
	//
	// +optional
	// +kubebuilder:validation:Pattern=`^[1-9][0-9]{0,11}(k|Ki|Mi?|Gi?)?$`
	// +kubebuilder:validation:MaxLength=14
	UploadRate string `json:"uploadRate,omitempty"`

	// LockFor keeps every object from being deleted by anybody for that long, as a Go
	// duration, by the store's object lock. Default: no lock. Why: what is locked costs
	// until then, whatever retention says.
	//
	// +optional
	// +kubebuilder:validation:Pattern=`^([0-9]{1,6}(\.[0-9]{1,3})?(ms|s|m|h))+$`
	// +kubebuilder:validation:MaxLength=20
	LockFor string `json:"lockFor,omitempty"`

	// Compliance has nobody shorten the lock, not even the account's owner. Default:
	// false. Why: a wrong lockFor could not be taken back.
	//
	// +kubebuilder:default=false
	Compliance bool `json:"compliance,omitempty"`

	// Retention for this destination, in place of the policy's.
	//
	// +optional
	Retention *BackupRetention `json:"retention,omitempty"`
}

// UploadBytes is the upload rate in bytes per second; 0 where it is not bounded.
func (d *BackupDestination) UploadBytes() (int64, error) {
	if d.UploadRate == "" {
		return 0, nil
	}
	q, err := resource.ParseQuantity(d.UploadRate)
	return q.Value(), err
}

// BackupRetention says which backups are kept: those that any rule keeps. The newest
// proven one of a cluster is kept whatever the rules say.
type BackupRetention struct {
	// KeepLast keeps that many of the newest.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	KeepLast int32 `json:"keepLast,omitempty"`
	// KeepWithin keeps all that are at most so old, as a Go duration.
	//
	// +optional
	// +kubebuilder:validation:Pattern=`^([0-9]{1,6}(\.[0-9]{1,3})?(ms|s|m|h))+$`
	// +kubebuilder:validation:MaxLength=20
	KeepWithin string `json:"keepWithin,omitempty"`
	// Hourly keeps the last of each of so many hours that have one.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	Hourly int32 `json:"hourly,omitempty"`
	// Daily keeps the last of each of so many days that have one.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	Daily int32 `json:"daily,omitempty"`
	// Weekly keeps the last of each of so many weeks that have one; weeks begin on Monday.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	Weekly int32 `json:"weekly,omitempty"`
	// Monthly keeps the last of each of so many months that have one.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	Monthly int32 `json:"monthly,omitempty"`
	// Yearly keeps the last of each of so many years that have one.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	Yearly int32 `json:"yearly,omitempty"`
}

// BackupEncryption is how backups are encrypted, with age.
type BackupEncryption struct {
	// Recipients, such as age1…: whoever has the identity of one opens the backups.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=2500
	// +kubebuilder:validation:items:Pattern=`^age1[a-z0-9]+$`
	// +listType=set
	Recipients []string `json:"recipients"`

	// IdentitySecretRef names a Secret of type Opaque in the same namespace with an age
	// identity of one recipient under the key identity, which proofs open the backup with.
	// Keep another one elsewhere: this one is lost with the server.
	//
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	IdentitySecretRef string `json:"identitySecretRef,omitempty"`
}

// ProofMode says whether backups are proven.
//
// +kubebuilder:validation:Enum=Always;Never
type ProofMode string

// The modes of proof.
const (
	ProofAlways ProofMode = "Always"
	ProofNever  ProofMode = "Never"
)

// BackupProof says whether backups are proven.
//
// +kubebuilder:validation:XValidation:rule="!has(self.mode) || self.mode != 'Never' || (has(self.reason) && size(self.reason) > 0)",message="mode Never needs a reason: backups that nobody has restored are what fails in a disaster",fieldPath=".reason"
type BackupProof struct {
	// Mode is Always or Never. Default: Always. Why: a backup that was never restored is
	// a hope.
	//
	// +kubebuilder:default=Always
	Mode ProofMode `json:"mode,omitempty"`
	// Reason for Never, in a sentence; it is shown wherever Proven is.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=300
	Reason string `json:"reason,omitempty"`
}

// Wanted reports whether backups are to be proven.
func (p BackupProof) Wanted() bool { return p.Mode != ProofNever }

// BackupCompression is how hard backups are compressed.
//
// +kubebuilder:validation:Enum=Fastest;Default;Better
type BackupCompression string

// The levels of compression.
const (
	CompressionFastest BackupCompression = "Fastest"
	CompressionDefault BackupCompression = "Default"
	CompressionBetter  BackupCompression = "Better"
)

// EtcdBackupPolicyStatus is what is known of a policy's backups. It can always be made
// anew from the EtcdBackups and the stores.
type EtcdBackupPolicyStatus struct {
	// ObservedGeneration is the generation of the spec this status speaks of.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Schedule in words, for tables.
	Schedule string `json:"schedule,omitempty"`
	// Clusters that the policy backs up.
	Clusters int32 `json:"clusters,omitempty"`
	// Fresh ones have a backup in every destination that is young enough, and Stale ones
	// do not.
	Fresh int32 `json:"fresh,omitempty"`
	Stale int32 `json:"stale,omitempty"`
	// Unproven ones have no proven backup in some destination that is young enough.
	Unproven int32 `json:"unproven,omitempty"`
	// Failed ones are those whose last backup failed, wholly or for a destination, or
	// that may not be backed up.
	Failed int32 `json:"failed,omitempty"`
	// Attention are up to 20 clusters in which something is wrong, the worst first.
	//
	// +optional
	// +listType=map
	// +listMapKey=cluster
	// +kubebuilder:validation:MaxItems=20
	Attention []ClusterAttention `json:"attention,omitempty"`
	// LastRunAt is when the latest backup began.
	//
	// +optional
	LastRunAt *metav1.Time `json:"lastRunAt,omitempty"`
	// NextRunAt is when the next one is due.
	//
	// +optional
	NextRunAt *metav1.Time `json:"nextRunAt,omitempty"`
	// Conditions: Ready, Fresh, Proven.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ClusterAttention is what is wrong with the backups of a cluster.
type ClusterAttention struct {
	// Cluster by name.
	Cluster string `json:"cluster"`
	// Reason as a CamelCase word.
	Reason string `json:"reason"`
	// Message says what is wrong and what to do.
	Message string `json:"message"`
}
