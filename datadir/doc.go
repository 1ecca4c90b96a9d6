// Package datadir is what Quorate does with a member's data while no etcd runs on
// it: it reads how far the write-ahead log goes, decides whether a member may
// start on a directory, and renames directories aside.
//
// The law: a member that has joined never starts on an empty, foreign or
// rolled-back directory. It has acknowledged entries and cast votes; started
// without them it would vote again, and a majority could lose what it had
// confirmed. Such a member is replaced under a new ID instead.
//
// Nothing here writes into a data directory, takes a lock in it or deletes from
// it. Collect removes directories that Retire renamed aside, once their time is
// over, and is the only function of Quorate that deletes data.
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
)
