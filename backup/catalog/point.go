package catalog

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Compressions of a point's data.
const (
	CompressionNone = "none"
	CompressionZstd = "zstd"
)

// EncryptionAge is the one method of encryption.
const EncryptionAge = "age"

// Point is the manifest of a backup: what it holds and how to check it. It is written
// once, after the data, and never changed.
type Point struct {
	// Format is quorate-backup-point/<major>.<minor>. EncodePoint sets it.
	Format string `json:"format"`

	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	ClusterID ID     `json:"clusterID"`
	// Epoch begins at 1; NextEpoch says which. EpochReason says why it was begun, if
	// this point began it.
	Epoch       uint32 `json:"epoch"`
	EpochReason string `json:"epochReason,omitempty"`
	// Nonce is that of the Ref: eight hexadecimal digits.
	Nonce string `json:"nonce"`

	// Source is the member that the snapshot was taken from.
	Source Source `json:"source"`
	// EtcdVersion is what that member said it runs, StorageVersion what the data is
	// for; empty when etcd does not say (3.5).
	EtcdVersion    string `json:"etcdVersion"`
	StorageVersion string `json:"storageVersion,omitempty"`

	// Revision and CompactRevision are read from the data, not asked for beside it.
	Revision        int64 `json:"revision"`
	CompactRevision int64 `json:"compactRevision"`
	// RaftIndex and RaftTerm are what the leader had applied before the data was read, and
	// its term; 0 if there was no leader.
	RaftIndex uint64 `json:"raftIndex"`
	RaftTerm  uint64 `json:"raftTerm"`

	// Started and Ended are the begin and end of taking it, by the clock of whoever
	// took it. Started in whole seconds is the time in the point's name.
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`

	// Object is the file of the data in the point's directory, such as snapshot.db.zst.
	Object string `json:"object"`
	// DBSize and StoredSize are bytes of the database file and of the stored object;
	// the SHA-256 are 64 hexadecimal digits each.
	DBSize       int64  `json:"dbSize"`
	StoredSize   int64  `json:"storedSize"`
	DBSHA256     string `json:"dbSHA256"`
	StoredSHA256 string `json:"storedSHA256"`

	HashKV HashKV `json:"hashKV"`
	Counts Counts `json:"counts"`
	// AuthEnabled: a restore asks for users and passwords as the source did.
	AuthEnabled bool `json:"authEnabled"`

	// Compression is none or zstd, Encryption nil for data that is not encrypted.
	Compression string      `json:"compression"`
	Encryption  *Encryption `json:"encryption,omitempty"`

	// Chain is reserved for incremental backups: what this point lets a journal begin
	// with.
	Chain *Chain `json:"chain,omitempty"`

	// LockedUntil is set when the objects were written with an object lock.
	LockedUntil *time.Time `json:"lockedUntil,omitempty"`

	// Tool is the version of Quorate that wrote it, Policy the namespace/name of the
	// policy that asked for it, empty when a person did.
	Tool   string `json:"tool"`
	Policy string `json:"policy,omitempty"`
}

// Source is the member a snapshot came from.
type Source struct {
	MemberID   ID     `json:"memberID"`
	MemberName string `json:"memberName"`
	// Role is leader, follower or learner.
	Role string `json:"role"`
}

// HashKV is etcd's hash of all keys up to a revision. It says the same on members that
// were compacted at the same revision.
type HashKV struct {
	Hash            uint32 `json:"hash"`
	Revision        int64  `json:"revision"`
	CompactRevision int64  `json:"compactRevision"`
}

// Counts are what a database holds: living keys, revisions of keys, leases.
type Counts struct {
	Keys      int64 `json:"keys"`
	Revisions int64 `json:"revisions"`
	Leases    int64 `json:"leases"`
}

// Encryption says how to find the identity that opens the data. It holds no key.
type Encryption struct {
	// Method is age.
	Method string `json:"method"`
	// Recipients are fingerprints, not the recipients themselves.
	Recipients []string `json:"recipients"`
}

// Chain names the journal that can begin at this point.
type Chain struct {
	ID string `json:"id"`
}

// Ref is the place of the point.
func (p *Point) Ref() Ref {
	return Ref{
		Lineage: Lineage{
			Cluster:   Cluster{Namespace: p.Namespace, Name: p.Name},
			ClusterID: p.ClusterID,
			Epoch:     p.Epoch,
		},
		Time:     p.Started.UTC().Truncate(time.Second),
		Revision: p.Revision,
		Nonce:    p.Nonce,
	}
}

// DataFile is the usual value of Point.Object: snapshot.db, with .zst if compressed and
// .age if encrypted.
func DataFile(compression string, encrypted bool) string {
	file := dataPrefix + "db"
	if compression == CompressionZstd {
		file += ".zst"
	}
	if encrypted {
		file += ".age"
	}
	return file
}

// EncodePoint writes a manifest, with its format and checksum. It wraps ErrName if the
// point can't have a name, or if a field that readers need is missing.
func EncodePoint(p Point) ([]byte, error) {
	p.Format = formatOf(pointKind)
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("manifest of %s: %w: %w", p.Ref(), ErrName, err)
	}
	return encode(p)
}

// DecodePoint reads a manifest. Fields it doesn't know are passed over. It wraps
// ErrDamaged, or ErrNewer for a format with a newer major version.
func DecodePoint(data []byte) (*Point, error) {
	var p Point
	if err := decode(data, pointKind, &p); err != nil {
		return nil, err
	}
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return &p, nil
}

// check says what a manifest lacks.
func (p *Point) check() error {
	if err := p.Ref().check(); err != nil {
		return err
	}
	switch {
	case !strings.HasPrefix(p.Object, dataPrefix) || !ownFile(p.Object):
		return fmt.Errorf("its object %q does not begin with %s", p.Object, dataPrefix)
	case p.DBSize <= 0 || p.StoredSize <= 0:
		return fmt.Errorf("its sizes are %d and %d bytes", p.DBSize, p.StoredSize)
	case !isSHA256(p.DBSHA256) || !isSHA256(p.StoredSHA256):
		return fmt.Errorf("its SHA-256 are %q and %q", p.DBSHA256, p.StoredSHA256)
	case p.Compression == "":
		return errors.New("it does not say how its object is compressed")
	case p.Counts.Keys < 0 || p.Counts.Revisions < 0 || p.Counts.Leases < 0:
		return fmt.Errorf("its counts are negative: %+v", p.Counts)
	}
	return nil
}

func isSHA256(s string) bool { return len(s) == 64 && isHex(s) }
