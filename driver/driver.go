// Package driver runs members. Driver is the interface that hides where;
// drivertest is the suite that every implementation passes.
package driver

import (
	"context"
	"errors"
	"io"

	"github.com/quorate/quorate/api/v1alpha1"
)

// Errors that a Driver returns. Test with errors.Is.
var (
	// ErrNotStopped: it could not be proven that no etcd of the member runs. It is
	// not an answer: ask again.
	ErrNotStopped = errors.New("not proven to be stopped")
	// ErrNotRestorable: the member's data can't be made from a backup, and asking again
	// does not help.
	ErrNotRestorable = errors.New("can't be restored into")
)

// Driver runs members at one place. All methods are idempotent, may be called
// again after a crash at any point, and are safe for concurrent use on different
// members.
type Driver interface {
	// Ensure brings the member towards its spec (prepared, or running with the
	// wanted configuration) without waiting for etcd to be healthy, and returns what
	// it sees. It never stops a member other than to start it again with another
	// configuration. What keeps it from its aim stands in the returned conditions; an
	// error means that what it sees could not be told.
	Ensure(ctx context.Context, m *v1alpha1.EtcdMember) (v1alpha1.EtcdMemberStatus, error)

	// Observe returns what it sees of the member, and changes nothing.
	Observe(ctx context.Context, m *v1alpha1.EtcdMember) (v1alpha1.EtcdMemberStatus, error)

	// Stop stops the member's etcd and returns the proof, or ErrNotStopped.
	Stop(ctx context.Context, m *v1alpha1.EtcdMember) (v1alpha1.StopProof, error)

	// Data gives access to the member's data, beside its disk.
	Data(m *v1alpha1.EtcdMember) Data

	// Logs reads the member's log.
	Logs(ctx context.Context, m *v1alpha1.EtcdMember, opts LogOptions) (io.ReadCloser, error)
}

// Data is the data of one member.
type Data interface {
	// Retire renames the member's home aside once it is proven stopped, and returns
	// where it went. Retiring what is gone already succeeds with an empty path.
	Retire(ctx context.Context) (string, error)

	// Restore makes the data of a prepared member whose bootstrap is Restored, before its
	// etcd is first started. One that was made already for this bootstrap's token is left
	// as it is, and from is not read. It takes as long as from does; Ensure, Observe and
	// Stop of the member answer meanwhile, and a second Restore fails. One that failed, or
	// was killed at any point, leaves nothing that could be taken for the member's data,
	// and is begun anew by the next.
	//
	// Errors: ErrNotRestorable when the member has ever been started, or other data is in
	// its place; the context's, which is not asked while from.Reader blocks; what the
	// Reader returned; and those of the snapshot and of the disk.
	Restore(ctx context.Context, from Snapshot) error
}

// Snapshot is what a member is restored from.
type Snapshot struct {
	// Reader gives a snapshot as etcd sends it, with the hash behind the database,
	// decompressed and decrypted. It is read once, to its end.
	Reader io.Reader
	// Size in bytes, if it is known: what ends before or after it is refused. 0 or less
	// where it is not.
	Size int64
	// Name for messages.
	Name string
	// Progress is told how many bytes have been read, after each piece; may be nil.
	Progress func(done int64)
}

// LogSource is which of a member's logs to read.
type LogSource string

// The log sources.
const (
	LogEtcd       LogSource = "etcd"
	LogError      LogSource = "error"
	LogSupervisor LogSource = "supervisor"
)

// LogOptions choose what of a log is read.
type LogOptions struct {
	// Source; empty means LogEtcd.
	Source LogSource
	// Tail is how many of the last lines to begin with; negative means all.
	Tail int
	// Follow goes on until the context ends.
	Follow bool
}

// Found is a member that a driver finds at its place, declared or not.
type Found struct {
	Namespace string
	Name      string
	UID       v1alpha1.UID
	Home      string
	// PID of its etcd, or 0 when none runs.
	PID int64
}

// Lister is the ability to find members that no object may declare.
type Lister interface {
	List(ctx context.Context) ([]Found, error)
}
