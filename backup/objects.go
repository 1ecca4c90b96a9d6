package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/catalog"
)

// maxSmall bounds what is read as a small object, in bytes.
const maxSmall = 8 << 20

// objects is a bucket as the catalog sees it.
type objects struct {
	bucket bucket.Bucket
	// put is how manifests and proofs are stored.
	put bucket.PutOptions
}

func (o objects) List(ctx context.Context, prefix string, each func(catalog.Object) error) error {
	return o.bucket.List(ctx, strings.TrimSuffix(prefix, "/"), func(i bucket.Info) error {
		return each(catalog.Object{Name: i.Name, Size: i.Size, Modified: i.Modified})
	})
}

func (o objects) Get(ctx context.Context, name string) (data []byte, err error) {
	r, err := o.bucket.Get(ctx, name)
	if err != nil {
		return nil, classed(err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if data, err = io.ReadAll(io.LimitReader(r, maxSmall+1)); err != nil {
		return nil, err
	}
	if len(data) > maxSmall {
		return nil, fmt.Errorf("%s: %w: it has more than %d bytes", name, catalog.ErrDamaged, maxSmall)
	}
	return data, nil
}

func (o objects) Put(ctx context.Context, name string, data []byte) error {
	opts := o.put
	opts.Size, opts.ContentType = int64(len(data)), "application/json"
	_, err := o.bucket.Put(ctx, name, bytes.NewReader(data), opts)
	return err
}

func (o objects) Delete(ctx context.Context, name string) error {
	return classed(o.bucket.Delete(ctx, name))
}

// classed gives an error of a bucket the class that the catalog looks for.
func classed(err error) error {
	switch {
	case errors.Is(err, bucket.ErrNotFound):
		return fmt.Errorf("%w: %w", catalog.ErrNotFound, err)
	case errors.Is(err, bucket.ErrLocked):
		return fmt.Errorf("%w: %w", catalog.ErrLocked, err)
	}
	return err
}
