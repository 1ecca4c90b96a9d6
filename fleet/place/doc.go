// Package place chooses hosts for members. It is pure: equal fleets and equal requests
// give equal answers, and nothing is read or written. What the fields of a cluster mean
// stands in api/v1alpha1, at PlacementSpec.
//
// # Which hosts come into question
//
// A host is refused by the first of these that it fails, in this order: it is in the
// cluster's pool; it has the labels; it stands in one of the zones, where zones are named;
// it is neither cordoned nor draining; its agent reports; its checks found it fit; there
// is a release for its platform; its zone's share is not used up; the classes allow it; the
// spread allows it; no member there has the ports that the cluster asks for; it has room.
//
// # Classes
//
// A host with a member of a Guaranteed cluster takes no member of another Guaranteed or
// of a Burstable cluster, and a host with such a member takes none of a Guaranteed one.
// BestEffort members may be on any host, save that a dedicated cluster shares with nobody,
// neither as the first on the host nor as the second. Members of one cluster never stand
// in each other's way here.
//
// # Room
//
// For CPU, memory and disk each: what Guaranteed and Burstable members ask for is at most
// the capacity, and what BestEffort members ask for is at most OvercommitPercent of what
// the others leave. Both must hold afterwards, so a Burstable member is refused where
// it would leave too little to the BestEffort ones that are there. An amount that is not
// known of a host does not limit it.
//
// # Zones, then hosts, then room
//
// A zone with a count takes that many; zones without one share the rest. Where
// no zone is named, all zones of the pool's hosts share. The next member goes to the zone
// with the fewest members among those in which some host can take it, there to the host with
// the fewest members of its cluster, and among these to the one with the most room left: the
// least promised share of its scarcest amount. Members, then names decide what is left.
// Spread over zones goes before spread over hosts: a zone with one host may get two members
// while another zone has a host without any. Hosts without a zone count as one zone.
//
// A member on a draining host, or one that is leaving its cluster, counts for nothing but the room and the class of its host: its
// replacement goes where it would go if the leaving one had never been.
//
// # Why one member at a time is enough
//
// The members of a cluster ask for the same, so a placement is only how many of them each
// host has: at most what its room and the spread allow, at most each zone's share, and at
// most the rest for all zones without a count. These limits are nested, and of nested
// limits none is missed by taking one member at a time from wherever there is some left:
// a choice that leaves a later member without a place does not exist, unless there is none
// at all. The property tests hold this against all possible assignments.
//
// # What it does not do
//
// It moves nobody by itself: members stay where they are when labels, counts or classes
// change. Check says which rules the fleet breaks, and Rebalance what would mend it. Whether a
// plan waits until every member has a place is up to who asks.
package place
