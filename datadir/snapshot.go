package datadir

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"time"
)

const (
	// hashBytes of SHA-256 stand behind the database in a snapshot.
	hashBytes = sha256.Size
	// diskSector divides the size of every database, and not that of a snapshot.
	diskSector = 512
	// hashChunk is what is read at once to hash a file.
	hashChunk = 1 << 20
)

// CheckOptions say what a snapshot may lack.
type CheckOptions struct {
	// AllowNoHash takes a database without the hash behind it, as one copied from a
	// data directory is: whether its content is what etcd wrote can't be known then.
	AllowNoHash bool
	// Hash tells the hash of all bytes of the file, where the caller makes it while it
	// reads them for something else; it may wait for that until the context ends. It is
	// asked beside the walk over the file. Nil has the file read once more.
	Hash func(ctx context.Context) (*SnapshotHash, error)
	// HashKV has SnapshotInfo.HashKV computed in the same pass.
	HashKV bool
}

// SnapshotInfo is what a whole snapshot holds.
type SnapshotInfo struct {
	Info
	// SHA256 of the database in hex, without the hash behind it. Verified says that
	// this hash was there and agrees.
	SHA256   string
	Verified bool
	// Keys are those that are there at Revision, and Records what is left of all
	// revisions.
	Keys, Records int64
	// HashKV is what DB.HashKV computes at Revision, if it was asked for.
	HashKV KVHash
	// Took is how long the check was.
	Took time.Duration
}

// CheckSnapshot reads the whole file at path and says whether it is a snapshot as
// Maintenance.Snapshot sends it and etcdctl saves it, of any etcd 3: complete, equal
// to its SHA-256, of sound structure, and with records that etcd can have written.
// It needs some 20 bytes of memory for each key where a compaction was under way, and
// with HashKV what DB.HashKV needs.
//
// Errors: fs.ErrNotExist, ErrInUse, ErrEmpty, ErrTruncated, ErrAltered,
// ErrNotDatabase, ErrNotEtcd, ErrStructure, and ErrNoHash unless the options allow
// it. The message names the file, what was found, and the next step.
func CheckSnapshot(ctx context.Context, path string, o CheckOptions) (SnapshotInfo, error) {
	start := time.Now()
	file, err := openLocked(ctx, path)
	if err != nil {
		return SnapshotInfo{}, err
	}
	defer func() { _ = file.Close() }() // read-only handle
	info, err := checkFile(ctx, file, o)
	if err != nil {
		return SnapshotInfo{}, fmt.Errorf("%s: %w", path, err)
	}
	info.Took = time.Since(start)
	return info, nil
}

// checkFile checks an open snapshot: its hash and, beside that, what it holds.
func checkFile(ctx context.Context, file *os.File, o CheckOptions) (SnapshotInfo, error) {
	stat, err := file.Stat()
	if err != nil {
		return SnapshotInfo{}, err
	}
	if _, err = openPages(file, stat.Size()); err != nil {
		return SnapshotInfo{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var info SnapshotInfo
	var contentErr error
	var walking sync.WaitGroup
	walking.Go(func() { info, _, contentErr = checkContent(ctx, file, contents{records: true, hash: o.HashKV}) })
	var sums *SnapshotHash
	if o.Hash == nil {
		sums, err = hashFile(ctx, file)
	} else if sums, err = o.Hash(ctx); err == nil && sums.size != stat.Size() {
		err = fmt.Errorf("%w: %d bytes of it were hashed, and it has %d; use another one, or copy it again", ErrAltered, sums.size, stat.Size())
	}
	var sum string
	var verified bool
	if err == nil {
		sum, verified, err = judgeHash(file, sums, o)
	}
	if err != nil {
		// What the content looks like doesn't matter any more.
		cancel()
	}
	walking.Wait()
	if err = cmp.Or(err, contentErr); err != nil {
		return SnapshotInfo{}, err
	}
	info.SHA256, info.Verified = sum, verified
	return info, nil
}

// judgeHash compares the hash behind the database.
func judgeHash(file *os.File, sums *SnapshotHash, o CheckOptions) (sum string, verified bool, err error) {
	p, err := newPager(file)
	if err != nil {
		return "", false, err
	}
	without, all, last := sums.sums()
	switch extra := sums.size - p.size(); {
	case sums.size%diskSector == hashBytes && without == last:
		return hex.EncodeToString(without[:]), true, nil
	case sums.size%diskSector == hashBytes:
		return "", false, fmt.Errorf("%w: its SHA-256 is %x, and %x stands behind it; use another one, or copy it again", ErrAltered, without, last)
	case extra > 0 && extra < hashBytes:
		return "", false, fmt.Errorf("%w: only %d of the %d bytes of the hash behind it are there; use another one, or copy it again", ErrTruncated, extra, hashBytes)
	case extra%p.pageSize != 0:
		return "", false, fmt.Errorf("%w: %d bytes follow its %d pages that are neither a hash nor pages; use another one, or copy it again", ErrAltered, extra, p.pages)
	case !o.AllowNoHash:
		return "", false, fmt.Errorf("%w: it seems to be copied from a data directory, or its end is missing; take a snapshot with etcdctl snapshot save or quorate backup, or allow a database without a hash", ErrNoHash)
	}
	return hex.EncodeToString(all[:]), false, nil
}

// contents says what is made of the records while the structure is checked: whether
// they are looked at and counted, and, if they are, whether they are hashed.
type contents struct{ records, hash bool }

// checkContent walks over everything in the file: once, or twice over the key bucket
// where it was compacted and is hashed.
func checkContent(ctx context.Context, file *os.File, what contents) (SnapshotInfo, *pager, error) {
	var reached bitmap
	db, err := newDB(ctx, file, func(p *pager) bitmap {
		reached = newBitmap(p.pages)
		return reached
	})
	if err != nil {
		return SnapshotInfo{}, nil, err
	}
	info := SnapshotInfo{Info: db.info}
	if err = info.read(ctx, db, what, reached); err != nil {
		return SnapshotInfo{}, nil, fmt.Errorf("bucket %q: %w", keyBucket, err)
	}
	for name, b := range db.buckets {
		if known(name) {
			continue
		}
		if err := db.pager.checkUnknown(ctx, b, reached, 0); err != nil {
			return SnapshotInfo{}, nil, fmt.Errorf("bucket %.40q: %w", name, err)
		}
	}
	return info, db.pager, db.pager.checkFree(reached)
}

// read walks over the key bucket.
func (i *SnapshotInfo) read(ctx context.Context, db *DB, what contents, reached bitmap) error {
	w := walk{order: descending, reached: reached}
	if !what.records {
		w.visit = func(_, _ []byte, _ bool) error { return nil }
		return db.scan(ctx, keyBucket, w)
	}
	settled := i.FinishedCompact == i.ScheduledCompact
	var seen *keySet
	if !settled {
		seen = newKeySet()
	}
	var hash *hasher
	if what.hash {
		hash = newHasher(i.Revision, i.CompactRevision())
		if hash.choosy() {
			seen = hash.seen
		} else {
			// Nothing asks for the newest first: never compacted is settled too.
			w.order = ascending
		}
	}
	w.visit = func(key, value []byte, _ bool) error {
		c, err := parseChange(key, value)
		if err == nil {
			err = c.check()
		}
		if err != nil {
			return err
		}
		// The first sight of a key says whether it is there.
		first := seen != nil && seen.add(c.Key)
		i.count(&c, settled, first)
		switch {
		case hash == nil:
		case hash.choosy():
			hash.choose(&c, first && !c.Deleted)
		default:
			hash.add(c.Revision, c.Deleted, key, value)
		}
		return nil
	}
	err := db.scan(ctx, keyBucket, w)
	if err != nil || hash == nil {
		return err
	}
	if !hash.choosy() {
		i.HashKV = hash.told()
		return nil
	}
	i.HashKV, err = hash.hash(ctx, db)
	return err
}

// count counts a record.
//
// No key need be remembered where no compaction is under way: up to its revision
// there is one record for each key that was there then, and after it a key comes by a
// record that created it and goes by a tombstone.
func (i *SnapshotInfo) count(c *Change, settled, first bool) {
	compacted := i.FinishedCompact
	i.Records++
	switch {
	case c.Placeholder():
	case !settled:
		if first && !c.Deleted {
			i.Keys++
		}
	case c.Deleted && c.Revision > compacted:
		i.Keys--
	case !c.Deleted && (c.Revision <= compacted || c.Created == c.Revision):
		i.Keys++
	}
}

// known reports whether readInfo or checkContent reads the bucket.
func known(name string) bool {
	switch name {
	case keyBucket, metaBucket, leaseBucket, alarmBucket, clusterBucket, membersBucket, removedMembersBucket, authBucket, usersBucket, rolesBucket:
		return true
	}
	return false
}

// checkUnknown walks over a bucket that is not etcd's, and over those within it.
func (p *pager) checkUnknown(ctx context.Context, b bucket, reached bitmap, depth int) error {
	if depth == maxDepth {
		return fmt.Errorf("%w: buckets lie %d deep in each other", ErrStructure, depth)
	}
	return p.run(ctx, b, walk{reached: reached, visit: func(_, value []byte, nested bool) error {
		if !nested {
			return nil
		}
		inner, err := parseBucket(value)
		if err != nil {
			return err
		}
		return p.checkUnknown(ctx, inner, reached, depth+1)
	}})
}

// SnapshotHash hashes all bytes of a snapshot, in their order, and keeps apart the last
// of them, which may be the hash of all before.
type SnapshotHash struct {
	sum  hash.Hash
	tail []byte
	size int64
}

// NewSnapshotHash returns one that has seen nothing yet.
func NewSnapshotHash() *SnapshotHash {
	return &SnapshotHash{sum: sha256.New(), tail: make([]byte, 0, 2*hashBytes)}
}

// Write never fails.
func (t *SnapshotHash) Write(p []byte) (int, error) {
	n := len(p)
	t.size += int64(n)
	if n >= hashBytes {
		_, _ = t.sum.Write(t.tail)
		_, _ = t.sum.Write(p[:n-hashBytes])
		t.tail = append(t.tail[:0], p[n-hashBytes:]...)
		return n, nil
	}
	t.tail = append(t.tail, p...)
	if over := len(t.tail) - hashBytes; over > 0 {
		_, _ = t.sum.Write(t.tail[:over])
		t.tail = t.tail[:copy(t.tail, t.tail[over:])]
	}
	return n, nil
}

// sums are the hash of all but the last bytes, that of everything, and those last
// bytes. Nothing can be written afterwards.
func (t *SnapshotHash) sums() (without, all, last [hashBytes]byte) {
	t.sum.Sum(without[:0])
	_, _ = t.sum.Write(t.tail)
	t.sum.Sum(all[:0])
	copy(last[:], t.tail)
	return without, all, last
}

func hashFile(ctx context.Context, file *os.File) (*SnapshotHash, error) {
	sums := NewSnapshotHash()
	buf := make([]byte, hashChunk)
	for off := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := file.ReadAt(buf, off)
		_, _ = sums.Write(buf[:n])
		off += int64(n)
		switch {
		case errors.Is(err, io.EOF):
			return sums, nil
		case err != nil:
			return nil, err
		}
	}
}
