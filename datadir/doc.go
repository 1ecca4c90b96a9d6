// Package datadir is what Quorate does with a member's data while no etcd runs on
// it: it reads how far the write-ahead log goes, decides whether a member may
// start on a directory, and renames directories aside; it checks snapshots, reads
// what is in a database, and restores one into a new directory.
//
// The law: a member that has joined never starts on an empty, foreign or
// rolled-back directory. It has acknowledged entries and cast votes; started
// without them it would vote again, and a majority could lose what it had
// confirmed. Such a member is replaced under a new ID instead.
//
// Nothing here writes into a data directory that is there or deletes from it. The
// only lock that is taken in one is the shared lock of OpenDB and CheckSnapshot on
// the database. Collect removes directories that Retire renamed aside, once their
// time is over, and is the only function of Quorate that deletes data.
package datadir

import "errors"

// Errors of this package, wrapped with the directory and the cause. Test with
// errors.Is.
var (
	// ErrForeign: the directory holds files, but not those of an etcd member.
	ErrForeign = errors.New("not an etcd data directory")
	// ErrUnreadable: the write-ahead log is damaged where a crash can't have
	// damaged it.
	ErrUnreadable = errors.New("the write-ahead log can't be read")
	// ErrIdentity: an identity file is there and can't be understood.
	ErrIdentity = errors.New("the identity file can't be read")
	// ErrRetire: a directory can't be renamed aside.
	ErrRetire = errors.New("can't be retired")

	// ErrEmpty: the file has no byte.
	ErrEmpty = errors.New("it is empty")
	// ErrTruncated: the end of a database or a snapshot is missing.
	ErrTruncated = errors.New("it is cut short")
	// ErrAltered: a snapshot is not what etcd sent.
	ErrAltered = errors.New("it was altered since etcd sent it")
	// ErrNotDatabase: the file was never one of bbolt.
	ErrNotDatabase = errors.New("it is not a database of etcd")
	// ErrNotEtcd: it is a database of bbolt, and not one of etcd.
	ErrNotEtcd = errors.New("it is a bbolt database, but not etcd's")
	// ErrStructure: pages or records of a database contradict each other.
	ErrStructure = errors.New("its structure is broken")
	// ErrNoHash: no hash stands behind a database, so that nothing proves that it is
	// what etcd wrote.
	ErrNoHash = errors.New("it has no hash that could be checked")
	// ErrInUse: a process has the database open for writing.
	ErrInUse = errors.New("an etcd has it open")
	// ErrCompacted: a revision can't be told any more.
	ErrCompacted = errors.New("it has been compacted")
	// ErrFutureRevision: a revision is not reached yet.
	ErrFutureRevision = errors.New("it lies in the future")
	// ErrRestore: a restore is refused before it wrote anything.
	ErrRestore = errors.New("can't be restored")
)
