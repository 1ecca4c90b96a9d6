package datadir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/quorate/quorate/internal/atomicfile"
)

// Mark is a raft position that a member is known to have reached for good: a term
// and a committed index. Neither goes back in the life of a member. The index of
// the last entry would: entries not yet committed can be overwritten.
type Mark struct {
	Term  uint64 `json:"term"`
	Index uint64 `json:"index"`
}

// Rest is how the log stood when the member was last seen stopped. Until it is
// started again, nothing may be missing from that.
type Rest struct {
	Term      uint64 `json:"term"`
	Vote      uint64 `json:"vote"`
	LastIndex uint64 `json:"lastIndex"`
}

// Identity is who a member is, kept in a file beside its data directory, so that
// the directory can be held against it.
type Identity struct {
	// MemberUID is the UID of its object.
	MemberUID string `json:"memberUID"`
	// Name of the member.
	Name string `json:"name"`
	// ClusterID and MemberID are etcd's, in hex; empty until it is seen to have
	// joined.
	ClusterID string `json:"clusterID,omitempty"`
	MemberID  string `json:"memberID,omitempty"`
	// Restore stands from before the data directory is made from a backup; nil where it
	// is not. ClusterID and MemberID are then those that the directory has when it is
	// whole.
	Restore *RestoreNote `json:"restore,omitempty"`
	// StartedOnce stands from before its etcd was first started.
	StartedOnce bool `json:"startedOnce"`
	// Mark is the furthest position known.
	Mark     Mark      `json:"mark"`
	MarkedAt time.Time `json:"markedAt,omitzero"`
	// Rest stands from a seen stop to the next start.
	Rest *Rest `json:"rest,omitempty"`
}

// RestoreNote says that a data directory is made from a backup, or was.
type RestoreNote struct {
	// Name of what is restored, for people.
	Name string `json:"name"`
	// Token of the cluster that is formed from it.
	Token   string    `json:"token"`
	BegunAt time.Time `json:"begunAt"`
	// DoneAt is when the directory was whole; zero until then.
	DoneAt time.Time `json:"doneAt,omitzero"`
	// Revision that the cluster begins at, once it is done.
	Revision int64 `json:"revision,omitempty"`
}

// Done reports whether the directory was made.
func (r *RestoreNote) Done() bool { return r != nil && !r.DoneAt.IsZero() }

// LoadIdentity reads an identity file. The error is fs.ErrNotExist when there is
// none, and ErrIdentity when it can't be understood: it is not guessed at, since it
// alone may know that a directory has been lost.
func LoadIdentity(path string) (Identity, error) {
	var id Identity
	raw, err := os.ReadFile(path) //nolint:gosec // the caller names its own file
	if errors.Is(err, fs.ErrNotExist) {
		return id, fmt.Errorf("identity: %w", err)
	}
	if err != nil {
		return id, fmt.Errorf("identity: %w", err)
	}
	if err := json.Unmarshal(raw, &id); err != nil {
		return Identity{}, fmt.Errorf("%s: %w: %w", path, ErrIdentity, err)
	}
	for _, hex := range []string{id.ClusterID, id.MemberID} {
		if _, err := parseID(hex); err != nil {
			return Identity{}, fmt.Errorf("%s: %w: %w", path, ErrIdentity, err)
		}
	}
	if id.MemberUID == "" {
		return Identity{}, fmt.Errorf("%s: %w: it names no member", path, ErrIdentity)
	}
	return id, nil
}

// Save writes the identity to path, readable by its owner only. After a crash the
// old one or the new one is there.
func (id Identity) Save(path string) error {
	raw, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the identity of %s: %w", id.Name, err)
	}
	return atomicfile.Write(path, append(raw, '\n'), 0o600)
}

// Advance moves the mark to term and index where they are further, and reports
// whether it moved. The index must be a committed one: what etcd's status calls
// raftIndex, or the Commit of a Tail.
func (id *Identity) Advance(term, index uint64) bool {
	if term <= id.Mark.Term && index <= id.Mark.Index {
		return false
	}
	id.Mark = Mark{Term: max(term, id.Mark.Term), Index: max(index, id.Mark.Index)}
	id.MarkedAt = time.Now().UTC()
	return true
}

// Restoring records that the data directory is about to be made from a backup, for the
// member of these IDs. Save before anything is written: from then on an empty directory
// is refused, so that no etcd ever forms an empty cluster in place of the restored one.
func (id *Identity) Restoring(note RestoreNote, clusterID, memberID uint64) {
	id.Restore = &note
	id.ClusterID, id.MemberID = FormatID(clusterID), FormatID(memberID)
}

// Starting records that etcd is about to be started. Save before starting it.
func (id *Identity) Starting() {
	id.StartedOnce, id.Rest = true, nil
}

// RecordStop reads the log of the stopped member in dataDir and records what it
// says: the IDs it joined with, and how far it goes. It must only be called when
// no etcd of the member runs; save the identity afterwards. An empty log, or one
// that the law refuses, changes nothing. Errors are those of ReadTail.
//
// The log is flushed to disk first. Why: etcd may have been killed before it did
// so itself, and what is recorded here must still be there after a power loss.
func (id *Identity) RecordStop(dataDir string) (Tail, error) {
	if err := flushLog(dataDir); err != nil {
		return Tail{Dir: dataDir}, err
	}
	tail, err := ReadTail(dataDir)
	if err != nil || tail.Empty || Judge(tail, id.Expectation()).State != OK {
		return tail, err
	}
	id.ClusterID = FormatID(tail.ClusterID)
	id.MemberID = FormatID(tail.MemberID)
	mark := tail.Mark()
	id.Advance(mark.Term, mark.Index)
	id.Rest = &Rest{Term: tail.Term, Vote: tail.Vote, LastIndex: tail.LastIndex}
	return tail, nil
}

// Expectation is what the identity demands of the data directory.
func (id Identity) Expectation() Expectation {
	cluster, _ := parseID(id.ClusterID)
	member, _ := parseID(id.MemberID)
	return Expectation{
		Joined: id.MemberID != "" || id.Restore != nil, Started: id.StartedOnce,
		ClusterID: cluster, MemberID: member, Mark: id.Mark, Rest: id.Rest,
	}
}

// FormatID writes an ID of etcd's as etcd does: hex without leading zeros.
func FormatID(id uint64) string { return strconv.FormatUint(id, 16) }

// parseID reads an ID of etcd's in hex; empty is 0.
func parseID(hex string) (uint64, error) {
	if hex == "" {
		return 0, nil
	}
	id, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("ID %q is not a hexadecimal number of 64 bits", hex)
	}
	return id, nil
}
