package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// EtcdHost is a machine that runs members, looked after by an agent.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=etcdhosts,scope=Cluster,shortName=qeh,categories=quorate
// +kubebuilder:printcolumn:name="Address",type=string,JSONPath=`.spec.address`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Platform",type=string,JSONPath=`.status.platform`
// +kubebuilder:printcolumn:name="Agent",type=string,JSONPath=`.status.agentVersion`
// +kubebuilder:printcolumn:name="Undeclared",type=integer,JSONPath=`.status.undeclaredCount`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type EtcdHost struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   EtcdHostSpec   `json:"spec"`
	Status EtcdHostStatus `json:"status,omitempty"`
}

// EtcdHostList is a list of hosts.
//
// +kubebuilder:object:root=true
type EtcdHostList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []EtcdHost `json:"items"`
}

// EtcdHostSpec is what a person says of a host.
//
// +kubebuilder:validation:XValidation:rule="isIP(self.address)",message="address must be an IP address such as 10.0.0.7: etcd listens on addresses, not on names; put DNS names under names",fieldPath=".address"
type EtcdHostSpec struct {
	// Address is the IP address that members listen on and are reached at. It has no
	// default: a wrong guess would form a cluster that no one else can reach.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Address string `json:"address"`
	// Names are DNS names of the host, added to its members' certificates.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=16
	Names []string `json:"names,omitempty"`
	// Zone the host stands in.
	//
	// +optional
	Zone string `json:"zone,omitempty"`
	// Unschedulable keeps new members away. Default: false. Why: a host is added to
	// be used.
	//
	// +kubebuilder:default=false
	Unschedulable bool `json:"unschedulable,omitempty"`
}

// EtcdHostStatus is what the host's agent last reported.
type EtcdHostStatus struct {
	// Platform is GOOS/GOARCH.
	Platform string `json:"platform,omitempty"`
	// AgentVersion is the agent's Quorate version.
	AgentVersion string `json:"agentVersion,omitempty"`
	// BootID changes when the host boots.
	BootID string `json:"bootID,omitempty"`
	// FaultsAllowed says that the agent breaks members on purpose when an admin asks
	// for it: it was started with --allow-faults, or by `quorate up`.
	FaultsAllowed bool `json:"faultsAllowed,omitempty"`
	// UndeclaredCount is the length of Undeclared.
	UndeclaredCount int64 `json:"undeclaredCount,omitempty"`
	// Undeclared are members found on the host that no object declares. They are
	// reported, and never touched.
	//
	// +optional
	Undeclared []UndeclaredMember `json:"undeclared,omitempty"`
	// Conditions: Ready.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// UndeclaredMember is a member on a host without an object.
type UndeclaredMember struct {
	// Name it had, with its namespace.
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// UID its object had.
	UID string `json:"uid"`
	// Home is its directory on the host.
	Home string `json:"home"`
	// PID of its etcd, or 0 when none runs.
	PID int64 `json:"pid,omitempty"`
}
