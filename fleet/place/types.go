package place

import (
	"cmp"

	"github.com/quorate/quorate/api/v1alpha1"
)

// Amounts are of thousandths of a core, and of bytes. As a capacity, 0 is not known and
// limits nothing.
type Amounts struct{ CPU, Memory, Disk int64 }

// AmountsOf reads amounts of the API.
func AmountsOf(r v1alpha1.Resources) Amounts {
	return Amounts{CPU: r.CPU.MilliValue(), Memory: r.Memory.Value(), Disk: r.Disk.Value()}
}

// Resources are the amounts as the API has them.
func (a Amounts) Resources() v1alpha1.Resources {
	return v1alpha1.NewResources(a.CPU, a.Memory, a.Disk)
}

func (a Amounts) plus(b Amounts) Amounts {
	return Amounts{a.CPU + b.CPU, a.Memory + b.Memory, a.Disk + b.Disk}
}

func (a Amounts) list() [3]int64 { return [3]int64{a.CPU, a.Memory, a.Disk} }

// amountNames are the names of what list returns.
var amountNames = [3]string{"cpu", "memory", "disk"}

// Host is a machine as placement sees it.
type Host struct {
	Name   string
	Zone   string
	Pool   string
	Labels map[string]string
	// Cordoned or Draining hosts take nobody.
	Cordoned, Draining bool
	// Silent: its agent does not report.
	Silent bool
	// Unfit is why its checks found it unfit, in a sentence; empty when they did not.
	Unfit string
	// NoRelease says that its platform has no release of what the request wants; empty
	// when there is one.
	NoRelease string
	Capacity  Amounts
	// Used is what its members use now; 0 is not known.
	Used Amounts
	// Overcommit is the percentage that BestEffort members may ask for of what others
	// leave. 0 means 200.
	Overcommit int64
	// Members bound to it, of all clusters.
	Members []Member
}

// Member is what stands on a host.
type Member struct {
	Name string
	// Cluster it belongs to, as namespace/name.
	Cluster   string
	Class     v1alpha1.ServiceClass
	Requests  Amounts
	Dedicated bool
	// Leaving: it is about to be removed from its cluster, and another takes its place.
	Leaving bool
	// Leads: it is its cluster's leader. ID is etcd's, in hex, where it is known.
	Leads bool
	ID    string
	// Ports it listens on, or will; 0 where its host is yet to choose.
	Ports [3]int32
	// Used is what it uses now; 0 is not known.
	Used Amounts
	// Labels of its cluster.
	Labels map[string]string
}

// Request is a cluster that members are to be placed for.
type Request struct {
	// Cluster as namespace/name.
	Cluster   string
	Class     v1alpha1.ServiceClass
	Requests  Amounts
	Placement v1alpha1.PlacementSpec
	// Replicas it wants.
	Replicas int
	// Ports that each member is to listen on; 0 lets the host choose.
	Ports [3]int32
}

// Codes of refusals.
const (
	// RefusedPool: the host is in another pool.
	RefusedPool = "OtherPool"
	// RefusedLabels: it lacks a label that is asked for.
	RefusedLabels = "LabelMissing"
	// RefusedZone: its zone is not one of those that are named.
	RefusedZone = "OtherZone"
	// RefusedCordoned and RefusedDraining: a person keeps members away.
	RefusedCordoned = "Cordoned"
	RefusedDraining = "Draining"
	// RefusedSilent: its agent does not report.
	RefusedSilent = "NotReady"
	// RefusedUnfit: it fails a check.
	RefusedUnfit = "Unfit"
	// RefusedRelease: there is no release for its platform.
	RefusedRelease = "NoRelease"
	// RefusedShare: its zone has all the members that it is to have.
	RefusedShare = "ZoneShare"
	// RefusedClass: a Guaranteed cluster shares with no other Guaranteed or Burstable one.
	RefusedClass = "ClassExclusive"
	// RefusedDedicated: the host is another cluster's own, or must be this one's own.
	RefusedDedicated = "Dedicated"
	// RefusedSpread: a member of the cluster is there, and spread is Required.
	RefusedSpread = "SpreadRequired"
	// RefusedPort: a member there has a port that the cluster asks for.
	RefusedPort = "PortTaken"
	// RefusedFull: it has no room.
	RefusedFull = "Full"
)

// refusalOrder is how far a host came, by what it was refused for.
var refusalOrder = map[string]int{
	RefusedPool: 1, RefusedLabels: 2, RefusedZone: 3, RefusedCordoned: 4, RefusedDraining: 4, RefusedSilent: 5, RefusedUnfit: 6,
	RefusedRelease: 7, RefusedShare: 8, RefusedClass: 9, RefusedDedicated: 9, RefusedSpread: 10, RefusedPort: 11, RefusedFull: 12,
}

// Reasons for which no host is found.
const (
	HeldNoHost     = "NoHost"
	HeldNoRelease  = "ReleaseNotFound"
	HeldNoCapacity = "NoCapacity"
	HeldSpread     = "SpreadRequired"
	HeldZones      = "ZonesDoNotFit"
)

// Choice is a host for one member, or why there is none.
type Choice struct {
	// Host that was chosen; nil where none can take it.
	Host *Host
	// Reason for zone and host in words.
	Reason string
	// Refused hosts by name, whether one was chosen or not.
	Refused []v1alpha1.RefusedHost
	// HeldReason is why there is none, as a word, and Held in short.
	HeldReason, Held string
}

func pool(name string) string { return cmp.Or(name, "default") }

func class(c v1alpha1.ServiceClass) v1alpha1.ServiceClass {
	return cmp.Or(c, v1alpha1.ClassBurstable)
}

func (h *Host) overcommit() int64 { return cmp.Or(h.Overcommit, 200) }

// on counts the members of a cluster on the host.
func (h *Host) on(cluster string) int {
	n := 0
	for i := range h.Members {
		if h.Members[i].Cluster == cluster {
			n++
		}
	}
	return n
}

// staying counts the members of a cluster that are there to stay.
func (h *Host) staying(cluster string) int {
	n := 0
	for i := range h.Members {
		if m := &h.Members[i]; m.Cluster == cluster && !m.Leaving && !h.Draining {
			n++
		}
	}
	return n
}

// promised is what the members ask for: those for whom it is set aside, and BestEffort.
func (h *Host) promised() (reserved, bestEffort Amounts) {
	for i := range h.Members {
		if m := &h.Members[i]; class(m.Class) == v1alpha1.ClassBestEffort {
			bestEffort = bestEffort.plus(m.Requests)
		} else {
			reserved = reserved.plus(m.Requests)
		}
	}
	return reserved, bestEffort
}

// member that the request asks for, as it would stand.
func (r *Request) member(name string) Member {
	return Member{
		Name: name, Cluster: r.Cluster, Class: class(r.Class), Requests: r.Requests, Dedicated: r.Placement.Dedicated,
		Ports: r.Ports,
	}
}
