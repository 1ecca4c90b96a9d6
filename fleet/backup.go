package fleet

import (
	"context"
	"errors"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
)

// ErrHopeless marks an error of Backups that the next attempt would give too: somebody
// has to do something first.
var ErrHopeless = errors.New("to try it again does not help")

// Backups is what takes, proves and prunes backups, and reads what a store holds. The
// store is the truth: what the fleet remembers of backups is only a copy of it.
type Backups interface {
	// Take backs a cluster up into its stores. Where at least one has it, there is no
	// error, and what came of each stands in the answer.
	Take(ctx context.Context, o BackupOrder) (BackupTaken, error)
	// Prove restores one backup as it lies in a store, and compares it. An error says
	// that this could not be tried, and nothing about the backup.
	Prove(ctx context.Context, o BackupTrial) (BackupVerdict, error)
	// Prune deletes of one policy's backups of one cluster in one store what the rules
	// do not keep, and tells what is left. The holdings are told with an error too, as
	// far as they are known.
	Prune(ctx context.Context, o BackupPruning) (BackupPruned, error)
	// Holds tells what a store has of a cluster.
	Holds(ctx context.Context, of BackupsOf, in BackupStore) (BackupHoldings, error)
}

// BackupsOf says whose backups are meant: those of a cluster by name and by etcd's ID,
// so that those of a cluster that was made anew under the name are others.
type BackupsOf struct {
	Namespace, Cluster string
	ClusterID          etcd.ID
}

// BackupStore is a destination with all that is needed to reach it.
type BackupStore struct {
	// Name of the destination, and URL of the store.
	Name, URL string
	// Credentials by their names; nil takes those that From says.
	Credentials map[string]string
	From        v1alpha1.CredentialsFrom
	// UploadRate in bytes per second; 0 is unbounded.
	UploadRate int64
	// LockFor locks the objects; 0 does not.
	LockFor    time.Duration
	Compliance bool
}

// BackupOrder is a backup to take.
type BackupOrder struct {
	BackupsOf

	// Access to the cluster.
	Access etcd.Access
	// Member by name or ID; empty leaves the choice.
	Member        string
	WithoutLeader bool
	Stores        []BackupStore
	// Recipients it is encrypted for; none leaves it unencrypted.
	Recipients  []string
	Compression v1alpha1.BackupCompression
	// Policy that asks for it, as namespace/name; empty for none.
	Policy string
	// Progress is told in words how far it is.
	Progress func(text string)
}

// BackupTaken is a backup that was taken.
type BackupTaken struct {
	Source      v1alpha1.BackupSource
	ClusterID   etcd.ID
	EtcdVersion string
	Revision    int64
	// DBSize and StoredSize are in bytes.
	DBSize, StoredSize int64
	Keys               int64
	Took               time.Duration
	Written            []BackupWritten
}

// BackupWritten is what came of one store.
type BackupWritten struct {
	Store string
	// PointID and Dir are where it lies; empty with Err.
	PointID, Dir string
	Err          error
}

// BackupTrial is a backup to prove.
type BackupTrial struct {
	BackupsOf

	Store   BackupStore
	PointID string
	// Object is the key of a snapshot that is in no catalog, in place of PointID; Prove
	// knows none.
	Object string
	// Identity opens what is encrypted: an age identity, as in its file.
	Identity string
	Progress func(text string)
}

// BackupVerdict is what a proof found.
type BackupVerdict struct {
	Verified bool
	// Reason says what differs where it is not verified.
	Reason string
	At     time.Time
	// Took is how long the restore took until etcd served.
	Took time.Duration
}

// BackupPruning says what is kept.
type BackupPruning struct {
	BackupsOf

	Store BackupStore
	// Policy whose backups these rules are for, as namespace/name: those that others took
	// stay, whatever the rules say.
	Policy    string
	Retention v1alpha1.BackupRetention
	// Zone in which days begin.
	Zone *time.Location
	// AwaitProof keeps what has no proof yet for so long.
	AwaitProof time.Duration
	// DryRun only tells what would be deleted.
	DryRun bool
}

// BackupPruned is what pruning did.
type BackupPruned struct {
	// Deleted backups and their Bytes, in a dry run those that would be; Locked ones that
	// a lock keeps.
	Deleted int
	Bytes   int64
	Locked  int
	// PointIDs of those that were deleted, or would be.
	PointIDs []string
	// Holdings are what is left.
	Holdings BackupHoldings
}

// BackupHoldings are what a store has of a cluster.
type BackupHoldings struct {
	// Points is how many backups there are.
	Points int
	// Newest of them (see HeldBackup.Succeeds), and Proven, the newest that is proven; nil
	// where there is none.
	Newest, Proven *HeldBackup
}

// HeldBackup is one backup in a store.
type HeldBackup struct {
	PointID string
	// Policy that asked for it, as namespace/name; empty for none.
	Policy string
	// At is when it began.
	At         time.Time
	StoredSize int64
	// Took is how long it took to take.
	Took time.Duration
	// ProofAt is when it was proven, and RestoreTook how long the restore took then.
	ProofAt     time.Time
	RestoreTook time.Duration
}

// Succeeds reports whether h is to be taken for newer than other, which may be nil. One
// that is dated in the future is older than all that are not: a clock was wrong, and it
// must not hide what was taken since.
func (h *HeldBackup) Succeeds(other *HeldBackup, now time.Time) bool {
	if other == nil {
		return true
	}
	limit := now.Add(clockSlack)
	if wrong, otherWrong := h.At.After(limit), other.At.After(limit); wrong != otherWrong {
		return otherWrong
	}
	return !h.At.Before(other.At)
}
