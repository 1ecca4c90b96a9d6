package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// EtcdHost is a machine that runs members, looked after by an agent.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=etcdhosts,scope=Cluster,shortName=qeh,categories=quorate
// +kubebuilder:printcolumn:name="Address",type=string,JSONPath=`.spec.address`
// +kubebuilder:printcolumn:name="Zone",type=string,JSONPath=`.spec.zone`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Fit",type=string,JSONPath=`.status.conditions[?(@.type=="Fit")].status`
// +kubebuilder:printcolumn:name="Platform",type=string,JSONPath=`.status.platform`
// +kubebuilder:printcolumn:name="Agent",type=string,JSONPath=`.status.agentVersion`
// +kubebuilder:printcolumn:name="Undeclared",type=integer,JSONPath=`.status.undeclaredCount`
// +kubebuilder:printcolumn:name="Pool",type=string,JSONPath=`.spec.pool`,priority=1
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
	// Zone the host stands in: what fails together, such as a room or an availability
	// zone.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Zone string `json:"zone,omitempty"`
	// Pool that the host belongs to: clusters are placed on the hosts of one pool.
	// Default: default. Why: one pool is enough until some machines are kept for some
	// clusters.
	//
	// +kubebuilder:default=default
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`
	Pool string `json:"pool,omitempty"`
	// Unschedulable keeps new members away. Default: false. Why: a host is added to
	// be used.
	//
	// +kubebuilder:default=false
	Unschedulable bool `json:"unschedulable,omitempty"`
	// Drain keeps new members away, and moves those that are there to other hosts, one
	// cluster at a time: a new member joins as a learner and is promoted before the old
	// one is removed. Default: false. Why: a host is added to be used.
	//
	// +kubebuilder:default=false
	Drain bool `json:"drain,omitempty"`
	// Capacity is what the host may promise to members. Default: what its agent
	// reports in status.capacity. Why: a machine that does nothing else has all of it
	// to give.
	//
	// +optional
	Capacity *Resources `json:"capacity,omitempty"`
	// OvercommitPercent is how much may be promised to BestEffort members, of what the
	// others leave of the capacity. Default: 200. Why: members seldom need all that
	// they asked for at the same moment, and BestEffort ones give way when they do.
	//
	// +kubebuilder:default=200
	// +kubebuilder:validation:Minimum=100
	// +kubebuilder:validation:Maximum=2000
	OvercommitPercent int32 `json:"overcommitPercent,omitempty"`
}

// Away reports whether no new member may come to the host.
func (h *EtcdHost) Away() bool { return h.Spec.Unschedulable || h.Spec.Drain }

// Offers is the capacity that members of the host are placed by: what its spec says, and
// what its agent reports where that says nothing. Zero quantities are not known.
func (h *EtcdHost) Offers() Resources {
	var r Resources
	if h.Status.Capacity != nil {
		r = *h.Status.Capacity.DeepCopy()
	}
	if own := h.Spec.Capacity; own != nil {
		for _, q := range []struct{ from, to *resource.Quantity }{{&own.CPU, &r.CPU}, {&own.Memory, &r.Memory}, {&own.Disk, &r.Disk}} {
			if !q.from.IsZero() {
				*q.to = q.from.DeepCopy()
			}
		}
	}
	return r
}

// Supervision is who starts the supervisors of a host's members again.
//
// +kubebuilder:validation:Enum=Systemd;Session
type Supervision string

// The ways of supervision.
const (
	// SupervisionSystemd: each supervisor is a systemd unit of its own.
	SupervisionSystemd Supervision = "Systemd"
	// SupervisionSession: each supervisor has a session of its own, and the agent
	// starts it again.
	SupervisionSession Supervision = "Session"
)

// Verdict of a check.
//
// +kubebuilder:validation:Enum=Pass;Warn;Fail;Unknown
type Verdict string

// The verdicts. Unknown is never Pass.
const (
	VerdictPass    Verdict = "Pass"
	VerdictWarn    Verdict = "Warn"
	VerdictFail    Verdict = "Fail"
	VerdictUnknown Verdict = "Unknown"
)

// HostCheck is what one check of a host found.
type HostCheck struct {
	// Name of the check, such as fsync-latency.
	Name string `json:"name"`
	// Verdict is Pass, Warn, Fail or Unknown. A host with one that is Fail gets no new
	// members.
	Verdict Verdict `json:"verdict"`
	// Value that was seen, such as "p99 2 ms".
	Value string `json:"value,omitempty"`
	// Threshold it was held against, such as "p99 at most 10 ms".
	Threshold string `json:"threshold,omitempty"`
	// Message says in a sentence what the value means for etcd; empty with Pass.
	Message string `json:"message,omitempty"`
	// Fix is what a person does about it; empty with Pass.
	Fix string `json:"fix,omitempty"`
}

// HostPreflight is what the checks of a host found.
type HostPreflight struct {
	// At is when they were made, by the host's clock.
	At metav1.Time `json:"at,omitempty"`
	// Checks by name.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	Checks []HostCheck `json:"checks,omitempty"`
}

// EtcdHostStatus is what the host's agent last reported.
type EtcdHostStatus struct {
	// Platform is GOOS/GOARCH.
	Platform string `json:"platform,omitempty"`
	// AgentVersion is the agent's Quorate version.
	AgentVersion string `json:"agentVersion,omitempty"`
	// BootID changes when the host boots.
	BootID string `json:"bootID,omitempty"`
	// Supervision is Systemd or Session: who starts supervisors again.
	Supervision Supervision `json:"supervision,omitempty"`
	// Cgroups is what the service classes are kept apart with: "v2", "v1" or "none",
	// and the controllers in use, such as "v1: cpu, memory, blkio".
	Cgroups string `json:"cgroups,omitempty"`
	// Capacity of the machine: all its CPUs, its memory, and the size of the disk that
	// holds the members.
	//
	// +optional
	Capacity *Resources `json:"capacity,omitempty"`
	// Used is what the members of the host use now, in coarse steps: CPU over the last
	// minute, resident memory, and their homes on disk.
	//
	// +optional
	Used *Resources `json:"used,omitempty"`
	// Preflight is what the latest checks of the host found.
	//
	// +optional
	Preflight *HostPreflight `json:"preflight,omitempty"`
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
	// Conditions: Ready, Fit.
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
