package fleet

import (
	"context"
	"io"
	"time"

	"github.com/quorate/quorate/etcd"
)

// Restores finds backups and reads them. The same engine implements Backups.
type Restores interface {
	// Find says which backup is meant. Where none is, or several could be, the error is
	// ErrHopeless, and says which there are.
	Find(ctx context.Context, o BackupSought) (BackupFound, error)
	// Prove is that of Backups.
	Prove(ctx context.Context, o BackupTrial) (BackupVerdict, error)
	// Open reads a backup as etcd streams a snapshot: the database, and its hash behind.
	// Size is in bytes, 0 where it is not known before. What is read whole without an error
	// is what was stored.
	Open(ctx context.Context, o BackupTrial) (db io.ReadCloser, size int64, err error)
	// Bump says how far the revision of a restored cluster must move on, so that it is
	// above whatever clients have seen; known is the newest that is known, or 0.
	Bump(revision, known int64) (by int64, why string)
}

// BackupSought is a backup to find.
type BackupSought struct {
	// BackupsOf; ClusterID 0 takes that of the only one there was.
	BackupsOf

	// Prefer is the cluster as it is now: where a point is not named by its ID, and several
	// clusters had the name, its backups are meant.
	Prefer etcd.ID
	Store  BackupStore
	// Point is an ID, v1alpha1.PointLatest or v1alpha1.PointLatestProven.
	Point string
	// NotAfter leaves out what was begun later; zero leaves out nothing.
	NotAfter time.Time
	// Object is the key of a snapshot that is in no catalog, in place of all that but
	// Store. It is read whole, and checked.
	Object string
	// Identity opens what is encrypted.
	Identity string
	Progress func(text string)
}

// BackupFound is a backup.
type BackupFound struct {
	PointID string
	// Of whom it is; zero for an object.
	Of      BackupsOf
	TakenAt time.Time
	// ProvenAt is when its newest proof found it right; zero where none has. Failed is what
	// that found wrong otherwise.
	ProvenAt time.Time
	Failed   string
	// EtcdVersion of the member it was taken from; a minor version where only that is known.
	EtcdVersion string
	Revision    int64
	// DBSize in bytes, and Keys that are alive.
	DBSize, Keys int64
}
