package catalog

import "fmt"

// Position is how far a cluster's data had got: read from the backup itself.
type Position struct {
	Revision int64
	// RaftTerm and RaftIndex are 0 if they are not known.
	RaftTerm  uint64
	RaftIndex uint64
}

// NextEpoch says which epoch a new backup belongs to, given the points there are; those
// of another cluster or cluster ID are passed over. If reason is not empty, the epoch
// is new because the data was reset, such as by a restore that kept the cluster ID.
//
// A reset is told by a revision, term or index below what the epoch has already had,
// and never by a clock. It can't be told from a member that lags behind the one of the
// backup before: take no backup from such a member, and one at a time of each cluster.
// Otherwise there is an epoch too many, by which more is kept and nothing is lost. The
// other mistake would be worse: new points with lower revisions would be pruned as the
// oldest.
func NextEpoch(entries []Entry, of Cluster, id ID, at Position) (epoch uint32, reason string) {
	var top Position
	for i := range entries {
		e := &entries[i]
		if e.Ref.Cluster != of || e.Ref.ClusterID != id || e.Ref.Epoch < epoch {
			continue
		}
		if e.Ref.Epoch > epoch {
			epoch, top = e.Ref.Epoch, Position{}
		}
		// The name tells the revision of what has no manifest, or a broken one.
		top.Revision = max(top.Revision, e.Ref.Revision)
		if e.Point != nil {
			top.RaftTerm = max(top.RaftTerm, e.Point.RaftTerm)
			top.RaftIndex = max(top.RaftIndex, e.Point.RaftIndex)
		}
	}
	switch {
	case epoch == 0:
		return 1, ""
	case at.Revision < top.Revision:
		return epoch + 1, fmt.Sprintf("revision %d is below %d, which epoch %d had", at.Revision, top.Revision, epoch)
	case at.RaftTerm != 0 && at.RaftTerm < top.RaftTerm:
		return epoch + 1, fmt.Sprintf("raft term %d is below %d, which epoch %d had", at.RaftTerm, top.RaftTerm, epoch)
	case at.RaftIndex != 0 && at.RaftIndex < top.RaftIndex:
		return epoch + 1, fmt.Sprintf("raft index %d is below %d, which epoch %d had", at.RaftIndex, top.RaftIndex, epoch)
	}
	return epoch, ""
}
