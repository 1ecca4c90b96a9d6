package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// EtcdTask is one mutating step on a cluster: the intent is written before the
// act. Tasks of a cluster are numbered; at most one is unfinished.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=etcdtasks,shortName=qet,categories=quorate
// +kubebuilder:printcolumn:name="Cluster",type=string,JSONPath=`.spec.clusterName`
// +kubebuilder:printcolumn:name="Action",type=string,JSONPath=`.spec.action`
// +kubebuilder:printcolumn:name="Member",type=string,JSONPath=`.spec.member`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.spec.reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type EtcdTask struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   EtcdTaskSpec   `json:"spec"`
	Status EtcdTaskStatus `json:"status,omitempty"`
}

// EtcdTaskList is a list of tasks.
//
// +kubebuilder:object:root=true
type EtcdTaskList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []EtcdTask `json:"items"`
}

// TaskAction is what a task does.
//
// +kubebuilder:validation:Enum=CreateMember;RestoreMember;AddMember;PromoteMember;RemoveMember;StartMember;UpdateMember;MoveLeader;StopMember;DeleteMember
type TaskAction string

// The actions.
const (
	// ActionCreateMember declares a member, which its host then prepares.
	ActionCreateMember TaskAction = "CreateMember"
	// ActionRestoreMember makes a member's data from a backup.
	ActionRestoreMember TaskAction = "RestoreMember"
	// ActionAddMember makes a prepared member part of a cluster that serves, as a
	// learner: etcd is told of it, and it is started.
	ActionAddMember TaskAction = "AddMember"
	// ActionPromoteMember makes a learner that has caught up a voter.
	ActionPromoteMember TaskAction = "PromoteMember"
	// ActionRemoveMember takes a member out of the cluster: etcd is told, and the
	// member is then only good to be deleted.
	ActionRemoveMember TaskAction = "RemoveMember"
	// ActionStartMember starts a prepared or stopped member.
	ActionStartMember TaskAction = "StartMember"
	// ActionUpdateMember restarts a member with the cluster's configuration.
	ActionUpdateMember TaskAction = "UpdateMember"
	// ActionMoveLeader hands leadership to a member.
	ActionMoveLeader TaskAction = "MoveLeader"
	// ActionStopMember stops a member and keeps its data.
	ActionStopMember TaskAction = "StopMember"
	// ActionDeleteMember stops a member, retires its data and forgets it.
	ActionDeleteMember TaskAction = "DeleteMember"
)

// EtcdTaskSpec is the intent; it never changes.
//
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a task's intent never changes"
type EtcdTaskSpec struct {
	// ClusterName is the EtcdCluster in the same namespace.
	ClusterName string `json:"clusterName"`
	// ClusterUID tells the cluster from a later one of the same name.
	ClusterUID string `json:"clusterUID"`
	// Number orders the tasks of a cluster.
	//
	// +kubebuilder:validation:Minimum=1
	Number int64 `json:"number"`
	// Action to take.
	Action TaskAction `json:"action"`
	// Member it is taken on, by name.
	Member string `json:"member"`
	// MemberID is etcd's ID of it in hex, where it has one: the act is void if the
	// name has come to mean another member.
	//
	// +optional
	MemberID string `json:"memberID,omitempty"`
	// ConfigHash the member is to run with, for UpdateMember.
	//
	// +optional
	ConfigHash string `json:"configHash,omitempty"`
	// Reason in a sentence.
	Reason string `json:"reason"`
}

// TaskPhase is how far a task is.
type TaskPhase string

// The task phases. A task without one has not begun.
const (
	// TaskActing: the act may have been taken.
	TaskActing TaskPhase = "Acting"
	// TaskSucceeded: its effect was seen.
	TaskSucceeded TaskPhase = "Succeeded"
	// TaskAbandoned: it is no longer wanted, or its preconditions are gone.
	TaskAbandoned TaskPhase = "Abandoned"
)

// EtcdTaskStatus is how far a task is.
type EtcdTaskStatus struct {
	// Phase is empty, Acting, Succeeded or Abandoned.
	Phase TaskPhase `json:"phase,omitempty"`
	// Message says what was seen, or why it was abandoned.
	Message string `json:"message,omitempty"`
	// ActedAt is when the act was first taken.
	//
	// +optional
	ActedAt *metav1.MicroTime `json:"actedAt,omitempty"`
	// FinishedAt is when it succeeded or was abandoned.
	//
	// +optional
	FinishedAt *metav1.MicroTime `json:"finishedAt,omitempty"`
	// Conditions: Progressing, Degraded.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Finished reports whether the task needs no more work.
func (t *EtcdTask) Finished() bool {
	return t.Status.Phase == TaskSucceeded || t.Status.Phase == TaskAbandoned
}
