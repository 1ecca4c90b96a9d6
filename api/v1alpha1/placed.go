package v1alpha1

import "k8s.io/apimachinery/pkg/api/resource"

// NewResources makes amounts of thousandths of a core, bytes of memory and bytes of
// disk. What is 0 or less says nothing.
func NewResources(milliCPU, memory, disk int64) Resources {
	var r Resources
	if milliCPU > 0 {
		r.CPU = *resource.NewMilliQuantity(milliCPU, resource.DecimalSI)
	}
	if memory > 0 {
		r.Memory = *resource.NewQuantity(memory, resource.BinarySI)
	}
	if disk > 0 {
		r.Disk = *resource.NewQuantity(disk, resource.BinarySI)
	}
	return r
}

// Placement is where the members of a cluster stand and would stand, and why. It is
// worked out when it is asked for, and keeps nothing free.
//
// +kubebuilder:object:generate=false
type Placement struct {
	// Namespace and Cluster it is for.
	Namespace string `json:"namespace"`
	Cluster   string `json:"cluster"`
	// Members that stand, then those that a host was chosen for.
	Members []PlacedMember `json:"members"`
	// Missing is how many members no host could be found for.
	Missing int `json:"missing,omitempty"`
	// Held says in short why no host could be found for those that are missing.
	Held string `json:"held,omitempty"`
	// HeldReason is Held as a CamelCase word.
	HeldReason string `json:"heldReason,omitempty"`
	// Refused are the hosts that the next member can't come to, by name. Where every
	// member has a place, these are the hosts that one more could not come to.
	Refused []RefusedHost `json:"refused,omitempty"`
	// Notes are what a person should know of it: that members share a host, or that one
	// zone holds a majority.
	Notes []string `json:"notes,omitempty"`
}

// PlacedMember is a member and its host.
//
// +kubebuilder:object:generate=false
type PlacedMember struct {
	// Member by name.
	Member string `json:"member"`
	// Host it stands on, or would.
	Host string `json:"host"`
	// Zone of the host; empty where it has none.
	Zone string `json:"zone,omitempty"`
	// Standing: it is there already, and stays unless its host is drained.
	Standing bool `json:"standing,omitempty"`
	// Leaving: its host is being drained, and another member takes its place.
	Leaving bool `json:"leaving,omitempty"`
	// Reason for the zone and the host, in sentences; empty for a standing member.
	Reason string `json:"reason,omitempty"`
}

// RefusedHost is a host that a member can't come to.
//
// +kubebuilder:object:generate=false
type RefusedHost struct {
	// Host by name.
	Host string `json:"host"`
	// Reason is a CamelCase word, such as Full.
	Reason string `json:"reason"`
	// Message says it in a sentence.
	Message string `json:"message"`
}

// Suggestion is a change that would make the fleet's placement better.
//
// +kubebuilder:object:generate=false
type Suggestion struct {
	// Reason is a CamelCase word, such as SharedHost.
	Reason string `json:"reason"`
	// Namespace and Cluster it is about; empty where it is about a host alone.
	Namespace string `json:"namespace,omitempty"`
	Cluster   string `json:"cluster,omitempty"`
	// Member it would move, and the host it stands on; empty where none is moved.
	Member string `json:"member,omitempty"`
	From   string `json:"from,omitempty"`
	// To is the host that the member would come to.
	To string `json:"to,omitempty"`
	// Evidence is what was seen, in a sentence.
	Evidence string `json:"evidence"`
	// Gain is what is better afterwards, in a sentence.
	Gain string `json:"gain"`
	// Commands that do it, in their order.
	Commands []string `json:"commands"`
}

// Rebalance is what could be better in a fleet.
//
// +kubebuilder:object:generate=false
type Rebalance struct {
	// Suggestions, the gravest first.
	Suggestions []Suggestion `json:"suggestions"`
	// Wrong is what breaks a rule and no move can mend, in sentences.
	Wrong []string `json:"wrong,omitempty"`
}

// Usage is what members ask for and use, against what hosts have.
//
// +kubebuilder:object:generate=false
type Usage struct {
	// By is what the rows stand for: host, class, zone, pool, label=KEY (of clusters) or
	// host-label=KEY.
	By string `json:"by"`
	// Rows by name.
	Rows []UsageRow `json:"rows"`
	// Total of the fleet.
	Total UsageRow `json:"total"`
}

// UsageRow is a group of members, and the hosts that they stand on.
//
// +kubebuilder:object:generate=false
type UsageRow struct {
	// Name of the host, class, zone, pool or label value; empty for what has none.
	Name string `json:"name"`
	// Hosts in the group; 0 where members are grouped and not hosts: by class, and by a
	// label of clusters.
	Hosts int `json:"hosts,omitempty"`
	// Members in the group.
	Members int `json:"members"`
	// Requested by members of the classes Guaranteed and Burstable: it is set aside.
	Requested Resources `json:"requested,omitzero"`
	// BestEffort is what members of that class ask for: it is promised, not set aside.
	BestEffort Resources `json:"bestEffort,omitzero"`
	// Capacity of the hosts, where hosts are grouped. What is missing is not known of each
	// of them.
	Capacity Resources `json:"capacity,omitzero"`
	// Used now. What is missing is not known of each of them.
	Used Resources `json:"used,omitzero"`
	// Unknown are the hosts, or the members where members are grouped, that do not report
	// all that is used: why some of Used is missing.
	Unknown int `json:"unknown,omitempty"`
}
