package v1alpha1

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Labels, annotations and finalizers.
const (
	// LabelCluster carries the EtcdCluster's name on what belongs to it.
	LabelCluster = "quorate.io/cluster"
	// LabelBackupPolicy carries the EtcdBackupPolicy's name on the backups it made.
	LabelBackupPolicy = "quorate.io/backup-policy"
	// FinalizerCluster holds an EtcdCluster until its members are gone.
	FinalizerCluster = "quorate.io/cluster"
	// FinalizerMember holds an EtcdMember until its process is proven stopped and
	// its data retired.
	FinalizerMember = "quorate.io/member"
	// AnnotationRestored holds a cluster and its members still after the fleet's
	// store was restored, until a person has accepted the cluster's plan. Its value
	// is the epoch of the restore.
	AnnotationRestored = "quorate.io/restored"
	// AnnotationImportedFor marks a Secret that was made by importing the cluster of
	// that name: it goes with it.
	AnnotationImportedFor = "quorate.io/imported-for"
	// AnnotationLastApplied holds the file as it was last applied, as JSON.
	AnnotationLastApplied = "quorate.io/last-applied-configuration"
	// AnnotationAppliedFrom says which exported file was applied last, and which
	// generation that made: the same file may be edited and applied again.
	AnnotationAppliedFrom = "quorate.io/applied-from"
	// AnnotationSSHTarget is the ssh:// address that a host was added by.
	AnnotationSSHTarget = "quorate.io/ssh-target"
	// AnnotationSSHHostKey is the key that the machine had then, in the form of
	// authorized_keys: it must have the same one ever after.
	AnnotationSSHHostKey = "quorate.io/ssh-host-key"
)

// Condition types.
const (
	// ConditionAvailable: a quorum serves linearizable reads and writes.
	ConditionAvailable = "Available"
	// ConditionProgressing: a change is under way, or is held up.
	ConditionProgressing = "Progressing"
	// ConditionDegraded: fewer members are healthy than wanted, an alarm is raised, or
	// nobody looks after a member.
	ConditionDegraded = "Degraded"
	// ConditionSuspended: every member is stopped as asked.
	ConditionSuspended = "Suspended"

	// ConditionPrepared: the member can be started.
	ConditionPrepared = "Prepared"
	// ConditionRestored: the member's data directory was made from the backup.
	ConditionRestored = "Restored"
	// ConditionRunning: the member's etcd runs with the wanted configuration.
	ConditionRunning = "Running"
	// ConditionDataDirectory: the data directory is the member's own and not rolled back.
	ConditionDataDirectory = "DataDirectory"
	// ConditionCertificates: the certificates are valid.
	ConditionCertificates = "Certificates"

	// ConditionReady: the host's agent reports; a backup policy is followed.
	ConditionReady = "Ready"

	// ConditionFit: the host passes the checks that etcd needs of it.
	ConditionFit = "Fit"
	// ConditionFormed: the member has become part of its cluster.
	ConditionFormed = "Formed"

	// ConditionFresh: every cluster of a policy has a backup that is young enough.
	ConditionFresh = "Fresh"
	// ConditionProven: every cluster of a policy has a proven one that is.
	ConditionProven = "Proven"
	// ConditionVerified: the backup was restored, and is right.
	ConditionVerified = "Verified"
)

// Condition statuses.
const (
	True    = metav1.ConditionTrue
	False   = metav1.ConditionFalse
	Unknown = metav1.ConditionUnknown
)

// SetCondition sets a condition, moving its transition time only when its status
// changes. It reports whether anything changed.
func SetCondition(list *[]Condition, c Condition) bool {
	return meta.SetStatusCondition(list, c)
}

// FindCondition returns the condition of that type, or nil.
func FindCondition(list []Condition, conditionType string) *Condition {
	return meta.FindStatusCondition(list, conditionType)
}

// IsTrue reports whether the condition of that type is True; absent is not.
func IsTrue(list []Condition, conditionType string) bool {
	return meta.IsStatusConditionTrue(list, conditionType)
}

// Equal compares two values as Kubernetes does: equal quantities and times are
// equal however they are written, and nil equals empty.
func Equal(a, b any) bool { return equality.Semantic.DeepEqual(a, b) }

// Now is the time as objects keep it, to the second.
func Now() Time { return NewTime(time.Now()) }

// NewTime is t as objects keep it, to the second: what was written and read again
// is equal to it.
func NewTime(t time.Time) Time { return metav1.NewTime(t.Truncate(time.Second)) }

// NewMicroTime is t as tasks keep it.
func NewMicroTime(t time.Time) MicroTime { return metav1.NewMicroTime(t) }

// HasFinalizer reports whether obj holds the finalizer.
func HasFinalizer(obj Object, finalizer string) bool {
	return slices.Contains(obj.GetFinalizers(), finalizer)
}

// RemoveFinalizer takes the finalizer off obj and reports whether it was there.
func RemoveFinalizer(obj Object, finalizer string) bool {
	before := obj.GetFinalizers()
	after := slices.DeleteFunc(slices.Clone(before), func(f string) bool { return f == finalizer })
	obj.SetFinalizers(after)
	return len(after) != len(before)
}

// MemberConfigHash names the configuration an etcd process runs with: it changes
// exactly when the process must be restarted to follow the spec.
func MemberConfigHash(s *EtcdMemberSpec) string {
	var restartedAt string
	if s.RestartedAt != nil {
		restartedAt = s.RestartedAt.UTC().Format(time.RFC3339)
	}
	tls := s.TLS
	// Certificates are reissued without a restart: etcd reloads them.
	tls.ExtraSANs, tls.LeafValidity, tls.ClientSecretRef = nil, "", ""
	// A struct of strings, numbers and slices marshals without error.
	raw, _ := json.Marshal(struct {
		Release     ReleaseRef
		Ports       Ports
		TLS         TLSSpec
		Etcd        EtcdConfig
		RestartedAt string
	}{s.Release, s.Ports, tls, canonical(s.Etcd), restartedAt})
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:8])
}

// canonical writes what means the same in the same way: 8Gi and 8589934592, 1s and
// 1000ms.
func canonical(c EtcdConfig) EtcdConfig {
	c.QuotaBackend = *resource.NewQuantity(c.QuotaBackend.Value(), resource.BinarySI)
	c.MaxRequest = *resource.NewQuantity(c.MaxRequest.Value(), resource.BinarySI)
	for _, d := range []*string{&c.HeartbeatInterval, &c.ElectionTimeout} {
		if parsed, err := time.ParseDuration(*d); err == nil {
			*d = parsed.String()
		}
	}
	return c
}

func gvk(kind, apiVersion string) schema.GroupVersionKind {
	return schema.FromAPIVersionAndKind(apiVersion, kind)
}
