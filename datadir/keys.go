package datadir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"

	"go.etcd.io/etcd/server/v3/lease/leasepb"
	"google.golang.org/protobuf/proto"
)

// KeyRange is a range of keys: From included, To excluded. No To is no end, and
// the zero range is all keys.
type KeyRange struct {
	From, To []byte
}

// Prefix is the range of the keys that begin with prefix.
func Prefix(prefix string) KeyRange {
	to := []byte(prefix)
	for i := len(to) - 1; i >= 0; i-- {
		if to[i] < 0xff {
			to[i]++
			return KeyRange{From: []byte(prefix), To: to[:i+1]}
		}
	}
	return KeyRange{From: []byte(prefix)}
}

// Single is the range of one key.
func Single(key string) KeyRange { return KeyRange{From: []byte(key), To: []byte(key + "\x00")} }

func (r KeyRange) holds(key []byte) bool {
	return bytes.Compare(key, r.From) >= 0 && (len(r.To) == 0 || bytes.Compare(key, r.To) < 0)
}

// Walk calls visit with every record of a revision and all later ones that is left in
// the database, in the order of revisions, placeholders of --bump-revision among them;
// 0 has all. It ends early, without an error, when visit returns fs.SkipAll.
func (db *DB) Walk(ctx context.Context, from int64, visit func(Change) error) error {
	return db.changes(ctx, walk{from: formatRevision(max(from, 0))}, visit)
}

// History calls visit with the records that are left of one key, in the order of
// revisions. It reads the whole database: there is no index by key.
func (db *DB) History(ctx context.Context, key string, visit func(Change) error) error {
	return db.changes(ctx, walk{}, func(c Change) error {
		if c.Placeholder() || string(c.Key) != key {
			return nil
		}
		return visit(c)
	})
}

// Keys calls visit with the keys of a range that were there at a revision, 0 being
// the newest: the one modified last comes first, not the one that sorts first. It
// needs some 20 bytes of memory for each key of the range that was ever there.
// ErrCompacted and ErrFutureRevision are as etcd's. It ends early, without an error,
// when visit returns fs.SkipAll.
func (db *DB) Keys(ctx context.Context, revision int64, r KeyRange, visit func(Change) error) error {
	revision, err := db.at(revision)
	if err != nil {
		return err
	}
	seen := newKeySet()
	return db.changes(ctx, walk{order: descending, to: formatRevision(revision + 1)}, func(c Change) error {
		if c.Placeholder() || !r.holds(c.Key) || !seen.add(c.Key) || c.Deleted {
			return nil
		}
		return visit(c)
	})
}

// at holds a revision that is asked for against those that can be told.
func (db *DB) at(revision int64) (int64, error) {
	switch current, compacted := db.info.Revision, db.info.CompactRevision(); {
	case revision == 0:
		return current, nil
	case revision < compacted:
		return 0, fmt.Errorf("%s: revision %d: %w: the oldest is %d", db.info.Path, revision, ErrCompacted, compacted)
	case revision > current:
		return 0, fmt.Errorf("%s: revision %d: %w: the newest is %d", db.info.Path, revision, ErrFutureRevision, current)
	}
	return revision, nil
}

// changes walks over the key bucket.
func (db *DB) changes(ctx context.Context, w walk, visit func(Change) error) error {
	w.visit = func(key, value []byte, _ bool) error {
		c, err := parseChange(key, value)
		if err != nil {
			return err
		}
		return visit(c)
	}
	return db.named(db.scan(ctx, keyBucket, w))
}

// named adds the file to the errors of this package, takes fs.SkipAll for a wish,
// and leaves what is the caller's own alone.
func (db *DB) named(err error) error {
	switch {
	case errors.Is(err, fs.SkipAll):
		return nil
	case errors.Is(err, ErrStructure), errors.Is(err, ErrTruncated):
		return fmt.Errorf("%s: %w", db.info.Path, err)
	}
	return err
}

// Lease is a lease with the keys that hang on it.
type Lease struct {
	ID int64
	// TTL is what was granted, and Remaining what a leader noted last of it; 0 where
	// none was noted. Both in seconds.
	TTL, Remaining int64
	// Keys in no certain order.
	Keys []string
}

// Leases calls visit with every lease, by ID. The keys that hang on leases are kept
// in memory meanwhile. It ends early, without an error, when visit returns
// fs.SkipAll.
func (db *DB) Leases(ctx context.Context, visit func(Lease) error) error {
	attached := map[int64][]string{}
	if db.info.Leases > 0 {
		err := db.Keys(ctx, 0, KeyRange{}, func(c Change) error {
			if c.Lease != 0 {
				attached[c.Lease] = append(attached[c.Lease], string(c.Key))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return db.named(db.scan(ctx, leaseBucket, walk{visit: func(key, value []byte, _ bool) error {
		l, err := parseLease(key, value)
		if err != nil {
			return err
		}
		l.Keys = attached[l.ID]
		return visit(l)
	}}))
}

func parseLease(key, value []byte) (Lease, error) {
	id, err := number(key)
	if err != nil {
		return Lease{}, fmt.Errorf("lease ID: %w", err)
	}
	var l leasepb.Lease
	if err := proto.Unmarshal(value, &l); err != nil || l.GetID() != int64(id) { //nolint:gosec // IDs have no sign
		return Lease{}, fmt.Errorf("%w: lease %x can't be decoded", ErrStructure, id)
	}
	return Lease{ID: l.GetID(), TTL: l.GetTTL(), Remaining: l.GetRemainingTTL()}, nil
}

// KVHash is etcd's hash of the keys up to a revision. Hashes are only worth
// comparing at equal Revision and equal CompactRevision.
type KVHash struct {
	Hash     uint32
	Revision int64
	// CompactRevision is -1 when nothing was ever compacted, as etcd says it.
	CompactRevision int64
}

// HashKV computes what Maintenance.HashKV of an etcd started on this database
// answers at a revision, 0 being the newest. The two differ at one point: asked for
// a revision to which it has compacted since it was started, an etcd gives the hash
// it took then, with the CompactRevision of the compaction before.
//
// It reads the database twice once it was compacted, and needs some 20 bytes of
// memory for each key and a bit for each record up to the compaction.
// ErrCompacted and ErrFutureRevision are as etcd's.
func (db *DB) HashKV(ctx context.Context, revision int64) (KVHash, error) {
	revision, err := db.at(revision)
	if err != nil {
		return KVHash{}, err
	}
	h := newHasher(revision, db.info.CompactRevision())
	if h.choosy() {
		err = db.changes(ctx, walk{order: descending, to: formatRevision(revision + 1)}, func(c Change) error {
			h.choose(&c, h.seen.add(c.Key) && !c.Deleted)
			return nil
		})
		if err != nil {
			return KVHash{}, err
		}
	}
	sum, err := h.hash(ctx, db)
	return sum, db.named(err)
}

// hasher makes a KVHash. Where the keys were compacted it is choosy: not all records up
// to the compaction are hashed, and a first pass, from the newest on, says which.
type hasher struct {
	revision, compacted int64
	sum                 uint32
	// records are those up to the compaction, numbered from the newest on, and marks
	// those of them that are the newest of their key at the revision, and no tombstones.
	records uint64
	marks   bitmap
	seen    *keySet
	// none says that no key at all is there at the revision: etcd then hashes every
	// record that it has.
	none bool
}

func newHasher(revision, compacted int64) *hasher {
	h := &hasher{revision: revision, compacted: compacted, none: true, sum: crc32.Update(0, castagnoli, []byte(keyBucket))}
	if compacted > 0 {
		h.seen = newKeySet()
	} else {
		h.compacted = -1
	}
	return h
}

func (h *hasher) choosy() bool { return h.seen != nil }

// choose takes a record of the first pass. Live says that it is the newest of its key
// and no tombstone.
func (h *hasher) choose(c *Change, live bool) {
	if live {
		h.none = false
	}
	if c.Revision > h.compacted {
		return
	}
	if h.records%64 == 0 {
		h.marks = append(h.marks, 0)
	}
	if live {
		h.marks.set(h.records)
	}
	h.records++
}

// add takes a record of the last pass, from the oldest on.
func (h *hasher) add(main int64, deleted bool, key, value []byte) {
	if main <= h.compacted {
		h.records--
		if !h.none && !h.marks.has(h.records) {
			return
		}
		// Etcds before 3.5.16 deleted a tombstone at the very revision compacted to.
		if main == h.compacted && deleted {
			return
		}
	}
	h.sum = crc32.Update(h.sum, castagnoli, key)
	h.sum = crc32.Update(h.sum, castagnoli, value)
}

func (h *hasher) told() KVHash {
	return KVHash{Hash: h.sum, Revision: h.revision, CompactRevision: h.compacted}
}

// hash makes the last pass.
func (h *hasher) hash(ctx context.Context, db *DB) (KVHash, error) {
	h.seen = nil // which is large, and over
	err := db.scan(ctx, keyBucket, walk{to: formatRevision(h.revision + 1), visit: func(key, value []byte, _ bool) error {
		main, _, deleted, err := parseRevision(key)
		if err == nil {
			h.add(main, deleted, key, value)
		}
		return err
	}})
	if err != nil {
		return KVHash{}, err
	}
	return h.told(), nil
}
