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

// EpochThere says which epoch a point of one store belongs to in another one, which has
// not got it: given source, the entries of the store it lies in, and target, those of
// the other. Mostly it is the same. But each store counts from the backups that it has:
// one that got its first backup after a reset calls 1 what the other one calls 2.
//
// It is the epoch of the point's neighbour, in the source's order, among the points that
// both have. It wraps ErrEpoch where the point would not be between those before and
// those after it in the target: the newest would not be the newest any more, and others
// would be pruned in its place. Points that only the target has are before or after it by
// their times.
func EpochThere(point *Entry, source, target []Entry) (uint32, error) {
	epoch := point.Ref.Epoch
	here, there := byBackup(source, point.Ref), byBackup(target, point.Ref)
	var nearest *Entry
	for backup, s := range here {
		t := there[backup]
		if t == nil || s.Ref.Epoch != point.Ref.Epoch {
			continue
		}
		if nearest == nil || nearer(s.Ref, nearest.Ref, point.Ref) {
			nearest, epoch = s, t.Ref.Epoch
		}
	}
	for i := range target {
		t := &target[i]
		if there[t.Ref.backup()] != t {
			continue
		}
		order, inOne := t.Ref.Time.Compare(point.Ref.Time), false
		if s := here[t.Ref.backup()]; s != nil {
			order, inOne = s.Ref.Compare(point.Ref), s.Ref.Epoch == point.Ref.Epoch
		}
		fits := true
		switch {
		case order < 0:
			fits = t.Ref.Epoch < epoch || t.Ref.Epoch == epoch && (inOne || !point.behind(t))
		case order > 0:
			fits = t.Ref.Epoch > epoch || t.Ref.Epoch == epoch && (inOne || !t.behind(point))
		}
		if !fits {
			return 0, fmt.Errorf("%w: it would be of epoch %d there, beside %s of epoch %d: copy it to another prefix or bucket, where it has epochs of its own", ErrEpoch, epoch, t.Ref.ID(), t.Ref.Epoch)
		}
	}
	return epoch, nil
}

// byBackup has those points of one cluster that are a backup, or were one.
func byBackup(entries []Entry, of Ref) map[Ref]*Entry {
	found := map[Ref]*Entry{}
	for i := range entries {
		if e := &entries[i]; e.State != Partial && e.Ref.Cluster == of.Cluster && e.Ref.ClusterID == of.ClusterID {
			found[e.Ref.backup()] = e
		}
	}
	return found
}

// nearer says whether a is a better neighbour of ref than b, all of one lineage: the
// next one before it, else the next one after it.
func nearer(a, b, ref Ref) bool {
	switch aBefore, bBefore := a.compareAge(ref) < 0, b.compareAge(ref) < 0; {
	case aBefore != bBefore:
		return aBefore
	case aBefore:
		return a.compareAge(b) > 0
	}
	return a.compareAge(b) < 0
}

// behind says whether e's data had not got as far as the other's.
func (e *Entry) behind(other *Entry) bool {
	if e.Ref.Revision < other.Ref.Revision {
		return true
	}
	if e.Point == nil || other.Point == nil {
		return false
	}
	term, index := e.Point.RaftTerm, e.Point.RaftIndex
	return term != 0 && term < other.Point.RaftTerm || index != 0 && index < other.Point.RaftIndex
}
