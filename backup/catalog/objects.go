package catalog

import (
	"context"
	"errors"
	"time"
)

// Errors of this package, wrapped with the object and the cause. Test with errors.Is.
var (
	// ErrName: a name, a root or a point can't be turned into the name of an object.
	ErrName = errors.New("no object can be named so")
	// ErrDamaged: a document was altered, cut off, or is not what its name says.
	ErrDamaged = errors.New("damaged")
	// ErrNewer: a document has a format of a newer Quorate, which this one can't read.
	ErrNewer = errors.New("written by a newer Quorate")
	// ErrIncomplete: a point's data is not in the store as its manifest describes it.
	ErrIncomplete = errors.New("the point is incomplete")
	// ErrEpoch: a point of another store has no place among the epochs of this one.
	ErrEpoch = errors.New("this store counts the cluster's epochs otherwise")
	// ErrPolicy: a retention policy, or what it is applied to, makes no sense.
	ErrPolicy = errors.New("the retention can't be applied")

	// ErrNotFound: there is no such object. Objects wrap it.
	ErrNotFound = errors.New("no such object")
	// ErrLocked: the store keeps an object for now, whoever asks. Objects wrap it.
	ErrLocked = errors.New("the object is locked")
)

// Object is one line of a store's listing.
type Object struct {
	// Name is the full name, with slashes.
	Name string
	// Size is in bytes.
	Size int64
	// Modified is when it was written, by the store's clock.
	Modified time.Time
}

// Objects is the part of an object store that a catalog needs. Its methods may be
// called from several goroutines at once.
type Objects interface {
	// List calls each for all objects whose names begin with prefix, at any depth, in
	// any order, and each one at a time. Prefix ends with a slash. It stops at the
	// first error of each and returns it. Nothing to list is no error.
	List(ctx context.Context, prefix string, each func(Object) error) error
	// Get reads a small object. It wraps ErrNotFound when there is none.
	Get(ctx context.Context, name string) ([]byte, error)
	// Put writes a small object, as a whole or not at all.
	Put(ctx context.Context, name string, data []byte) error
	// Delete removes an object. It wraps ErrLocked when the store refuses since the
	// object is locked; that there is none may be an error that wraps ErrNotFound.
	Delete(ctx context.Context, name string) error
}
