package datadir

import (
	"errors"
	"fmt"
)

// Expectation is what is known of a member before its directory is looked at.
type Expectation struct {
	// Joined says that the member's object or its identity file knows it to have
	// joined its cluster.
	Joined bool
	// Started says that an etcd was started on this directory before, though it was
	// never seen to have joined.
	Started bool
	// ClusterID and MemberID are etcd's; 0 where unknown.
	ClusterID, MemberID uint64
	// Mark is the furthest position known.
	Mark Mark
	// Rest is how the log stood at the last seen stop, if nothing ran since.
	Rest *Rest
}

// Merge returns the stricter of two expectations: what either knows, with IDs
// taken from e where both have them.
func (e Expectation) Merge(other Expectation) Expectation {
	e.Joined = e.Joined || other.Joined
	e.Started = e.Started || other.Started
	if e.ClusterID == 0 {
		e.ClusterID = other.ClusterID
	}
	if e.MemberID == 0 {
		e.MemberID = other.MemberID
	}
	e.Mark = Mark{Term: max(e.Mark.Term, other.Mark.Term), Index: max(e.Mark.Index, other.Mark.Index)}
	if e.Rest == nil {
		e.Rest = other.Rest
	}
	return e
}

// State is the decision on a directory.
type State string

// The decisions.
const (
	// OK: the directory is the member's own.
	OK State = "OK"
	// Fresh: it is empty and the member never joined, so it may bootstrap.
	Fresh State = "Fresh"
	// Refused: etcd must not be started on it.
	Refused State = "Refused"
)

// Reason is why a directory is refused.
type Reason string

// The reasons.
const (
	ReasonEmpty      Reason = "Empty"
	ReasonForeign    Reason = "Foreign"
	ReasonRolledBack Reason = "RolledBack"
	ReasonUnreadable Reason = "Unreadable"
)

// Verdict is the decision on a directory, with its reasons.
type Verdict struct {
	State State
	// Reason and Message are empty unless State is Refused. Message is one or two
	// sentences: the directory, what was found, what was expected, and what to do.
	Reason  Reason
	Message string
	// Tail is what was found, as far as it could be read.
	Tail Tail
}

const nextStep = "Put the member's own directory back, or let the member be replaced under a new member ID; Quorate deletes nothing"

// Check reads dataDir and decides whether the member may start on it. An error
// means that it could not be told, because reading failed: the member must not
// start, and asking again may help.
func Check(dataDir string, want Expectation) (Verdict, error) {
	tail, err := ReadTail(dataDir)
	switch {
	case err == nil:
		return Judge(tail, want), nil
	case errors.Is(err, ErrForeign):
		return refused(tail, ReasonForeign, "%v", err), nil
	case errors.Is(err, ErrUnreadable):
		return refused(tail, ReasonUnreadable, "%v", err), nil
	default:
		return Verdict{Tail: tail}, fmt.Errorf("check data directory %s: %w", dataDir, err)
	}
}

// Judge decides whether a member of which want is known may start on a directory
// whose log ends in tail. It is a pure function.
func Judge(tail Tail, want Expectation) Verdict {
	switch {
	case tail.Empty && want.Joined:
		return refused(tail, ReasonEmpty, "the data directory %s is empty, but the member has joined its cluster%s; started on it, it would break promises that it gave as a voter",
			tail.Dir, identified(want))
	case tail.Empty:
		return Verdict{State: Fresh, Tail: tail}
	}
	if (want.ClusterID != 0 && want.ClusterID != tail.ClusterID) || (want.MemberID != 0 && want.MemberID != tail.MemberID) {
		return refused(tail, ReasonForeign, "the data directory %s belongs to member %x of cluster %x, not to this member%s",
			tail.Dir, tail.MemberID, tail.ClusterID, identified(want))
	}
	if !want.Joined && !want.Started && want.MemberID == 0 {
		return refused(tail, ReasonForeign, "the data directory %s holds member %x of cluster %x, but no etcd was ever started here for this member",
			tail.Dir, tail.MemberID, tail.ClusterID)
	}
	if tail.Term < want.Mark.Term || tail.LastIndex < want.Mark.Index {
		return refused(tail, ReasonRolledBack, "the data directory %s ends at term %d, index %d, but the member has been seen at term %d, index %d: it is an older copy",
			tail.Dir, tail.Term, tail.LastIndex, want.Mark.Term, want.Mark.Index)
	}
	if r := want.Rest; r != nil && (tail.Term < r.Term || tail.LastIndex < r.LastIndex || (tail.Term == r.Term && r.Vote != 0 && tail.Vote != r.Vote)) {
		return refused(tail, ReasonRolledBack, "the data directory %s ends at term %d, index %d, vote %x, but the member was stopped at term %d, index %d, vote %x and not started since: it is an older copy",
			tail.Dir, tail.Term, tail.LastIndex, tail.Vote, r.Term, r.LastIndex, r.Vote)
	}
	return Verdict{State: OK, Tail: tail}
}

func refused(tail Tail, reason Reason, format string, args ...any) Verdict {
	return Verdict{State: Refused, Reason: reason, Tail: tail, Message: fmt.Sprintf(format, args...) + ". " + nextStep + "."}
}

func identified(want Expectation) string {
	switch {
	case want.MemberID != 0 && want.ClusterID != 0:
		return fmt.Sprintf(" (member %x of cluster %x)", want.MemberID, want.ClusterID)
	case want.MemberID != 0:
		return fmt.Sprintf(" (member %x)", want.MemberID)
	default:
		return ""
	}
}
