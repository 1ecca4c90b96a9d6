// Package store holds the fleet's objects. Store is the interface that hides
// where they are; storetest is the suite that every implementation passes.
package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/quorate/quorate/api/v1alpha1"
)

// Errors that a Store returns, wrapped with the object's key. Test with errors.Is.
var (
	// ErrNotFound: no object has that key.
	ErrNotFound = errors.New("not found")
	// ErrExists: Create found an object with that key.
	ErrExists = errors.New("already exists")
	// ErrConflict: the UID or resourceVersion is not the stored one. Read, decide
	// again, and write again.
	ErrConflict = errors.New("the object has changed since it was read")
	// ErrInvalid: the object is not valid; the text says where and why.
	ErrInvalid = errors.New("invalid")
	// ErrForbidden: the caller may not do that.
	ErrForbidden = errors.New("forbidden")
	// ErrGone: what was asked to go on from is no longer kept. Read everything anew.
	ErrGone = errors.New("no longer kept")
	// ErrUnavailable: the store could not be reached or has no quorum. What was
	// asked may or may not have happened.
	ErrUnavailable = errors.New("the store is unavailable")
)

// Key names an object. Namespace is empty for kinds that have none.
type Key struct {
	Namespace string
	Name      string
}

// String is namespace/name, or the name alone.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Name
	}
	return k.Namespace + "/" + k.Name
}

// KeyOf returns an object's key.
func KeyOf(obj v1alpha1.Object) Key {
	return Key{Namespace: obj.GetNamespace(), Name: obj.GetName()}
}

// ListOptions narrow a List. The zero value lists everything.
type ListOptions struct {
	// Namespace, or empty for all.
	Namespace string
	// NamePrefix that the names begin with. With it a store need not read the rest:
	// what a cluster owns is named after it.
	NamePrefix string
	// Labels that an object must carry.
	Labels map[string]string
}

// Preconditions guard a Delete.
type Preconditions struct {
	// UID the object must have. Required.
	UID v1alpha1.UID
	// ResourceVersion the object must have, or empty for any.
	ResourceVersion string
}

// Store holds objects.
//
// ResourceVersion is opaque and compared for equality only. UID, resourceVersion,
// creationTimestamp, deletionTimestamp and generation are the store's to set.
// Every method takes a deadline from ctx and returns ErrUnavailable when it cannot
// tell in time.
type Store interface {
	// Get reads the newest state of an object into obj. It is linearizable.
	Get(ctx context.Context, key Key, obj v1alpha1.Object) error

	// List returns the objects of a kind by namespace and name. It may be stale.
	List(ctx context.Context, kind v1alpha1.Kind, opts ListOptions) ([]v1alpha1.Object, error)

	// Create stores a new object and fills in what the store sets. Status is kept as
	// given. ErrExists when the key is taken, also by an object being deleted.
	Create(ctx context.Context, obj v1alpha1.Object) error

	// Update stores obj's spec and metadata; its status is ignored. UID and
	// resourceVersion must be the stored ones (ErrConflict). Generation grows when
	// the spec changes. Removing the last finalizer of an object that is being
	// deleted removes it. Obj holds the stored state afterwards.
	Update(ctx context.Context, obj v1alpha1.Object) error

	// UpdateStatus stores obj's status alone. UID and resourceVersion must be the
	// stored ones (ErrConflict). Writing an equal status writes nothing.
	UpdateStatus(ctx context.Context, obj v1alpha1.Object) error

	// Delete removes an object, or marks it with a deletionTimestamp while it has
	// finalizers. Deleting an object already marked changes nothing.
	Delete(ctx context.Context, kind v1alpha1.Kind, key Key, pre Preconditions) error

	// Watch yields keys that may have changed: first every key there is, then each
	// key after a change of it, also of those that vanished. Changes of one key in
	// quick succession may come as one. It resumes by itself after disconnection and
	// compaction, losing nothing; a slow reader costs memory for at most each key
	// once. The channel closes when ctx ends.
	Watch(ctx context.Context, kind v1alpha1.Kind, namespace string) <-chan Key
}

// Error adds the operation and the object to an error of a Store.
func Error(op string, kind v1alpha1.Kind, key Key, err error) error {
	return fmt.Errorf("%s %s %s: %w", op, kind.Plural, key, err)
}

// Mutate reads the object at key into obj, calls change, and updates it, again
// from the start on ErrConflict. Change returns false to leave it as it is.
func Mutate[T v1alpha1.Object](ctx context.Context, s Store, key Key, obj T, change func(T) (bool, error)) error {
	return retry(ctx, s, key, obj, change, s.Update)
}

// MutateStatus is Mutate for the status alone.
func MutateStatus[T v1alpha1.Object](ctx context.Context, s Store, key Key, obj T, change func(T) (bool, error)) error {
	return retry(ctx, s, key, obj, change, s.UpdateStatus)
}

func retry[T v1alpha1.Object](ctx context.Context, s Store, key Key, obj T, change func(T) (bool, error), write func(context.Context, v1alpha1.Object) error) error {
	for {
		if err := s.Get(ctx, key, obj); err != nil {
			return err
		}
		dirty, err := change(obj)
		if err != nil || !dirty {
			return err
		}
		err = write(ctx, obj)
		if !errors.Is(err, ErrConflict) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
