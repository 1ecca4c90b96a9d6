// Package release keeps etcd releases by version and by the SHA-256 of the etcd
// executable.
//
// A member is pinned to the digest of what it runs. The catalog therefore never
// replaces or removes a release by itself, and gives out an executable only after
// it has seen that its content still has its digest.
//
// On disk, a release is the directory sha256-<hex>, which appears as a whole or not
// at all: etcd, perhaps etcdctl and etcdutl, and release.json.
package release

import "errors"

// Errors of this package, wrapped with the release and the cause. Test with
// errors.Is.
var (
	// ErrNotFound: the catalog has no such release.
	ErrNotFound = errors.New("no such release")
	// ErrDigest: content doesn't have the digest it should have.
	ErrDigest = errors.New("the digest doesn't match")
	// ErrVersion: an executable is not of the version it should be.
	ErrVersion = errors.New("the version doesn't match")
	// ErrUnsuitable: what was given is no etcd release.
	ErrUnsuitable = errors.New("not an etcd release")
	// ErrTooLarge: more was given than a release can have.
	ErrTooLarge = errors.New("too large")
	// ErrInUse: a release can't be removed, since members run it.
	ErrInUse = errors.New("in use")
)
