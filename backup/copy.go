package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/catalog"
)

// tellEvery is how many bytes lie between two tellings of progress.
const tellEvery = 4 << 20

// Copy brings a backup as it is to another store, with the proofs that it has. The
// manifest comes last, and only if the bytes that were read are those it speaks of. One
// that is there already is left alone, and false is returned.
func Copy(ctx context.Context, from bucket.Bucket, entry *catalog.Entry, to Destination, tell func(Progress)) (copied bool, err error) {
	if entry.State != catalog.Complete {
		return false, fmt.Errorf("copy %s: it is %s: %w", entry.Ref, entry.State, errors.Join(entry.Err, ErrOptions))
	}
	if tell == nil {
		tell = func(Progress) {}
	}
	store := objects{bucket: to.Bucket, put: to.put(0, entry.Point.Started)}
	there, err := catalog.Read(ctx, store, catalog.Layout{}, catalog.ReadOptions{
		Filter: catalog.Filter{Clusters: []catalog.Cluster{entry.Ref.Cluster}, ClusterID: entry.Ref.ClusterID},
	})
	if err != nil {
		return false, err
	}
	for i := range there.Entries {
		if e := &there.Entries[i]; e.Ref.Compare(entry.Ref) == 0 && e.State == catalog.Complete {
			return false, nil
		}
	}
	if err = copyData(ctx, from, entry, to, tell); err != nil {
		return false, fmt.Errorf("copy %s to %s: %w", entry.Ref, to.Bucket, err)
	}
	p := *entry.Point
	if p.LockedUntil = nil; !store.put.RetainUntil.IsZero() {
		p.LockedUntil = &store.put.RetainUntil
	}
	if err = catalog.WritePoint(ctx, store, catalog.Layout{}, p); err != nil {
		return false, fmt.Errorf("copy to %s: %w", to.Bucket, err)
	}
	for _, p := range entry.Proofs {
		// A proof of these very bytes; those of the copy itself may follow.
		if p.Proof != nil {
			if err = catalog.WriteProof(ctx, store, catalog.Layout{}, entry.Ref, *p.Proof); err != nil {
				return true, fmt.Errorf("copy to %s: %w", to.Bucket, err)
			}
		}
	}
	return true, nil
}

func copyData(ctx context.Context, from bucket.Bucket, entry *catalog.Entry, to Destination, tell func(Progress)) (err error) {
	name := entry.Dir + entry.Point.Object
	r, err := from.Get(ctx, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	sum := sha256.New()
	body := &checked{
		from: io.TeeReader(&telling{Reader: r, tell: func(n int64) {
			tell(Progress{Stage: StageUpload, Of: to.Name, Done: n, Total: entry.Point.StoredSize})
		}}, sum),
		sum: func() string { return hex.EncodeToString(sum.Sum(nil)) }, want: entry.Point.StoredSHA256,
	}
	_, err = to.Bucket.Put(ctx, name, body, to.put(entry.Point.StoredSize, entry.Point.Started))
	return err
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
