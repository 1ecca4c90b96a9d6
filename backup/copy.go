package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/catalog"
)

const (
	// tellEvery is how many bytes lie between two tellings of progress.
	tellEvery = 4 << 20
	// resumeTime is how old data may be that a copy which was broken off has left, so that
	// it needs no second upload. A manifest that comes later than half of
	// catalog.LeftoverAge is refused.
	resumeTime = catalog.LeftoverAge / 4
)

// StageReadBack is when what was copied is read back from the store that it went to.
const StageReadBack Stage = "read back"

// ErrInTheWay says that under the name of a copy lies something else.
var ErrInTheWay = errors.New("something else lies there")

// Copier brings backups of one store to another: what that one has missed. Several may
// work at the same time.
type Copier struct {
	from   bucket.Bucket
	source []catalog.Entry
	to     Destination
	// cache saves fetching the manifests there again for each copy.
	cache catalog.Cache
}

// NewCopier takes what the store that is copied from holds: all entries of the clusters
// whose backups will be copied, since they say which of them came before which.
func NewCopier(from bucket.Bucket, source []catalog.Entry, to Destination) *Copier {
	return &Copier{from: from, source: source, to: to}
}

// Copy brings a backup to the other store as it is, compressed and encrypted. One that is
// there already is left alone, in whichever epoch, and false is returned.
//
// The manifest comes last, and only once the data was read back from there as the bytes
// that it speaks of. So a copy that was broken off is no backup, and the next one goes on
// with the data that it has left. Nothing is written over but such data, and only with
// what it was. An object lock is counted from now on, not from when the backup was taken.
//
// Its proofs stay behind: they say that it could be restored from the store they lie in,
// and nobody has tried it from the other one.
//
// Errors: ErrOptions for a backup that is not complete, ErrPacked for one whose data is
// not what its manifest says, ErrInTheWay, catalog.ErrEpoch, and those of the buckets.
func (c *Copier) Copy(ctx context.Context, entry *catalog.Entry, tell func(Progress)) (copied bool, err error) {
	if entry.State != catalog.Complete {
		return false, fmt.Errorf("copy %s: it is %s: %w", entry.Ref, entry.State, errors.Join(entry.Err, ErrOptions))
	}
	if tell == nil {
		tell = func(Progress) {}
	}
	p, err := c.point(ctx, entry)
	if err != nil || p == nil {
		return false, err
	}
	put := c.to.put(0, time.Now())
	if p.LockedUntil = nil; !put.RetainUntil.IsZero() {
		p.LockedUntil = &put.RetainUntil
	}
	if err = c.data(ctx, entry, p, put, tell); err != nil {
		return false, fmt.Errorf("copy %s to %s: %w", entry.Ref, c.to.Bucket, err)
	}
	tell(Progress{Stage: StageCommit, Of: c.to.Name})
	if err = catalog.WritePoint(ctx, objects{bucket: c.to.Bucket, put: put}, catalog.Layout{}, *p); err != nil {
		return false, fmt.Errorf("copy to %s: %w", c.to.Bucket, err)
	}
	return true, nil
}

// point is the manifest of the copy, without its lock; nil if the backup is there.
func (c *Copier) point(ctx context.Context, entry *catalog.Entry) (*catalog.Point, error) {
	there, err := ReadCatalog(ctx, c.to.Bucket, catalog.ReadOptions{
		Filter: catalog.Filter{Clusters: []catalog.Cluster{entry.Ref.Cluster}, ClusterID: entry.Ref.ClusterID},
		Cache:  &c.cache,
	})
	if err != nil {
		return nil, err
	}
	for i := range there.Entries {
		e := &there.Entries[i]
		switch {
		case !e.Ref.SameBackup(entry.Ref) || e.State == catalog.Partial:
		case e.State == catalog.Complete:
			return nil, nil //nolint:nilnil // nothing is to be copied
		default:
			return nil, fmt.Errorf("copy %s: %s has it, and there it is %s: %w: %w: look at it, and delete %s there to copy it anew", entry.Ref, c.to.Bucket, e.State, ErrInTheWay, e.Err, e.Dir)
		}
	}
	p := *entry.Point
	if p.Epoch, err = catalog.EpochThere(entry, c.source, there.Entries); err != nil {
		return nil, fmt.Errorf("copy %s to %s: %w", entry.Ref, c.to.Bucket, err)
	}
	if p.Epoch != entry.Ref.Epoch {
		p.EpochReason = "" // it tells the other store's numbers
	}
	return &p, nil
}

// data brings the data there, unless an earlier copy did, and reads it back.
func (c *Copier) data(ctx context.Context, entry *catalog.Entry, p *catalog.Point, put bucket.PutOptions, tell func(Progress)) error {
	name, err := catalog.Layout{}.File(p.Ref(), p.Object)
	if err != nil {
		return err
	}
	there, err := c.left(ctx, name, p, put, tell)
	if there || err != nil {
		return err
	}
	if err = c.upload(ctx, entry, name, put, tell); err != nil {
		return err
	}
	sum, err := c.sumThere(ctx, name, p.StoredSize, tell)
	if err != nil {
		return err
	}
	if sum != p.StoredSHA256 {
		return fmt.Errorf("%w: %s was stored, and read back it has SHA-256 %s, not %s: copy it again", bucket.ErrCorrupt, name, sum, p.StoredSHA256)
	}
	return nil
}

// left says whether an earlier copy has left the data there, so that it needs no upload:
// as it is, lately, and locked as long.
func (c *Copier) left(ctx context.Context, name string, p *catalog.Point, put bucket.PutOptions, tell func(Progress)) (bool, error) {
	info, err := c.to.Bucket.Stat(ctx, name)
	if errors.Is(err, bucket.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	sum, err := c.sumThere(ctx, name, info.Size, tell)
	switch {
	case err != nil:
		return false, err
	case sum != p.StoredSHA256:
		return false, fmt.Errorf("%w: %s has SHA-256 %s and no manifest, and the backup's is %s: `quorate backup prune` deletes such leftovers after %s; copy it again then", ErrInTheWay, name, sum, p.StoredSHA256, catalog.LeftoverAge)
	case !put.RetainUntil.IsZero() && info.RetainUntil.Before(put.RetainUntil.Add(-resumeTime)):
		return false, nil
	}
	return time.Since(info.Modified) < resumeTime, nil
}

// upload streams the data from one store to the other.
func (c *Copier) upload(ctx context.Context, entry *catalog.Entry, name string, put bucket.PutOptions, tell func(Progress)) (err error) {
	r, err := c.from.Get(ctx, entry.Dir+entry.Point.Object)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	sum := sha256.New()
	put.Size = entry.Point.StoredSize
	body := &checked{
		from: io.TeeReader(&telling{Reader: r, tell: func(n int64) {
			tell(Progress{Stage: StageUpload, Of: c.to.Name, Done: n, Total: put.Size})
		}}, sum),
		sum: func() string { return hex.EncodeToString(sum.Sum(nil)) }, want: entry.Point.StoredSHA256,
	}
	_, err = c.to.Bucket.Put(ctx, name, body, put)
	return err
}

// sumThere is the SHA-256 of an object in the store that is copied to.
func (c *Copier) sumThere(ctx context.Context, name string, size int64, tell func(Progress)) (sum string, err error) {
	r, err := c.to.Bucket.Get(ctx, name)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	hash := sha256.New()
	_, err = io.Copy(hash, &telling{Reader: r, tell: func(n int64) {
		tell(Progress{Stage: StageReadBack, Of: c.to.Name, Done: n, Total: size})
	}})
	return hex.EncodeToString(hash.Sum(nil)), err
}

// checked fails at its end where the bytes are not those that were wanted, so that
// nobody stores them.
type checked struct {
	from io.Reader
	sum  func() string
	want string
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	if errors.Is(err, io.EOF) {
		if got := c.sum(); got != c.want {
			return n, fmt.Errorf("%w: it has SHA-256 %s, and its manifest says %s", ErrPacked, got, c.want)
		}
	}
	return n, err
}

// telling tells how many bytes were read.
type telling struct {
	io.Reader
	tell    func(n int64)
	n, told int64
}

func (t *telling) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	t.n += int64(n)
	if t.n-t.told >= tellEvery || errors.Is(err, io.EOF) {
		t.told = t.n
		t.tell(t.n)
	}
	return n, err
}
