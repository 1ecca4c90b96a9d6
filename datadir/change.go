package datadir

import (
	"encoding/binary"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	// revBytes is the length of a revision in the key bucket; a tombstone has one
	// byte more.
	revBytes      = 17
	tombstoneMark = 't'
)

// Change is one record of the key bucket: a key as it was put at a revision, or
// its deletion. The slices are only valid during the call that hands it out.
type Change struct {
	// Revision is the main revision, and Sub the place within its transaction.
	Revision, Sub int64
	// Deleted says that the key was deleted: only Key stands then.
	Deleted    bool
	Key, Value []byte
	// Created is the revision at which the key came to be, and Version how often it
	// was put since.
	Created, Version int64
	// Lease is the ID of the lease that the key hangs on; 0 is none.
	Lease int64

	mod   int64
	empty bool
}

// Placeholder reports whether this is the empty record by which a restore with
// --bump-revision moves the revision on. No client ever sees it.
func (c Change) Placeholder() bool { return c.empty }

// parseRevision reads a key of the key bucket.
func parseRevision(raw []byte) (main, sub int64, deleted bool, err error) {
	deleted = len(raw) == revBytes+1 && raw[revBytes] == tombstoneMark
	if (len(raw) != revBytes && !deleted) || raw[8] != '_' {
		return 0, 0, false, fmt.Errorf("%w: %x in the key bucket is not a revision", ErrStructure, raw[:min(len(raw), 32)])
	}
	m, s := binary.BigEndian.Uint64(raw), binary.BigEndian.Uint64(raw[9:])
	if m > math.MaxInt64 || s > math.MaxInt64 {
		return 0, 0, false, fmt.Errorf("%w: %x in the key bucket is a negative revision", ErrStructure, raw)
	}
	return int64(m), int64(s), deleted, nil
}

// formatRevision is the reverse of parseRevision, for what is no deletion.
func formatRevision(main int64) []byte {
	raw := make([]byte, revBytes)
	binary.BigEndian.PutUint64(raw, uint64(main)) //nolint:gosec // revisions are positive
	raw[8] = '_'
	return raw
}

// parseChange reads a record of the key bucket without copying.
func parseChange(key, value []byte) (c Change, err error) {
	c.Revision, c.Sub, c.Deleted, err = parseRevision(key)
	if err != nil {
		return c, err
	}
	c.empty = len(value) == 0 && !c.Deleted
	for rest := value; len(rest) > 0; {
		num, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return c, c.undecodable()
		}
		rest = rest[n:]
		switch kind {
		case protowire.VarintType:
			var v uint64
			if v, n = protowire.ConsumeVarint(rest); n >= 0 {
				c.setNumber(num, int64(v)) //nolint:gosec // the wire has no sign
			}
		case protowire.BytesType:
			var v []byte
			if v, n = protowire.ConsumeBytes(rest); n >= 0 {
				c.setBytes(num, v)
			}
		default:
			n = protowire.ConsumeFieldValue(num, kind, rest)
		}
		if n < 0 {
			return c, c.undecodable()
		}
		rest = rest[n:]
	}
	return c, nil
}

func (c *Change) setNumber(num protowire.Number, v int64) {
	switch num {
	case 2:
		c.Created = v
	case 3:
		c.mod = v
	case 4:
		c.Version = v
	case 6:
		c.Lease = v
	default: // a field of a newer etcd
	}
}

func (c *Change) setBytes(num protowire.Number, v []byte) {
	switch num {
	case 1:
		c.Key = v
	case 5:
		c.Value = v
	default: // a field of a newer etcd
	}
}

func (c *Change) undecodable() error {
	return fmt.Errorf("%w: the record at revision %d/%d can't be decoded", ErrStructure, c.Revision, c.Sub)
}

// check holds a record to what etcd writes.
func (c *Change) check() error {
	switch {
	case c.Revision < 1:
		return fmt.Errorf("%w: a record at revision %d", ErrStructure, c.Revision)
	case c.empty:
		return nil
	case len(c.Key) == 0:
		return fmt.Errorf("%w: the record at revision %d/%d has no key", ErrStructure, c.Revision, c.Sub)
	case c.Deleted:
		return nil
	case c.mod != c.Revision || c.Created < 1 || c.Created > c.mod || c.Version < 1:
		return fmt.Errorf("%w: the record at revision %d/%d says that key %.80q was created at %d and modified at %d, in version %d",
			ErrStructure, c.Revision, c.Sub, c.Key, c.Created, c.mod, c.Version)
	}
	return nil
}
