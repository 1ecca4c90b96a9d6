package v1alpha1

// Plan is what the fleet would do to bring a cluster to its spec, from what was
// last seen. It is the contract: what runs is its first step, then a new plan is
// made.
//
// +kubebuilder:object:generate=false
type Plan struct {
	// Namespace and Cluster it is for.
	Namespace string `json:"namespace"`
	Cluster   string `json:"cluster"`
	// Generation of the cluster's spec.
	Generation int64 `json:"generation"`
	// Steps in order; none when the cluster is as wanted.
	Steps []PlanStep `json:"steps"`
	// Notes are what a person should know of the cluster's shape, whatever the steps:
	// what an even number of members means, or that members share a host.
	Notes []string `json:"notes,omitempty"`
	// Held says why the first step is not being taken now; empty when it is.
	Held string `json:"held,omitempty"`
	// HeldReason is Held as a CamelCase word, for conditions and events.
	HeldReason string `json:"heldReason,omitempty"`
	// Refused are the hosts that the next member can't come to, where that is why the
	// plan is held.
	Refused []RefusedHost `json:"refused,omitempty"`
	// Token names the plan's contents: accepting a plan names what was read.
	Token string `json:"token,omitempty"`
}

// PlanStep is one mutating step.
//
// +kubebuilder:object:generate=false
type PlanStep struct {
	// Action to take.
	Action TaskAction `json:"action"`
	// Member it is taken on.
	Member string `json:"member"`
	// MemberID is etcd's, where it has one.
	MemberID string `json:"memberID,omitempty"`
	// ConfigHash the member is to run with, for UpdateMember.
	ConfigHash string `json:"configHash,omitempty"`
	// Reason in a sentence.
	Reason string `json:"reason"`
	// Precondition in a sentence: what must hold before it is taken.
	Precondition string `json:"precondition,omitempty"`
	// Impact in a sentence: what clients notice.
	Impact string `json:"impact,omitempty"`
}
