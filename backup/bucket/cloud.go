package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"cloud.google.com/go/storage"
	"github.com/thanos-io/objstore"
	"golang.org/x/sync/errgroup"
	"google.golang.org/api/iterator"
)

// cloud is a store that objstore speaks to.
type cloud struct {
	s *session
	// use gives the library's bucket, whose requests end with ctx.
	use func(ctx context.Context) (objstore.Bucket, error)
	// streams: it takes a body whose size nobody knows.
	streams bool
	// collects: it removes unfinished uploads by itself.
	collects bool
	spool    string
	// gcs lists with sizes and times, which objstore leaves out.
	gcs *storage.BucketHandle
	end func() error
}

// sized tells the libraries of COS and OSS how long a body is.
type sized struct {
	io.Reader
	size int64
}

func (s sized) ObjectSize() (int64, error) { return s.size, nil }
func (s sized) Size() int64                { return s.size }

func (c *cloud) put(ctx context.Context, name string, body *source, o PutOptions) (Info, error) {
	from := body
	if body.seeker == nil && !c.streams {
		file, err := c.spooled(body)
		if err != nil {
			return Info{}, err
		}
		defer func() { _ = file.Close() }() // it was removed already
		from = newSource(ctx, file, 0)
	}
	t := c.s.begin("put", name)
	for {
		err := c.upload(ctx, name, from, o)
		if err == nil {
			break
		}
		if from.err != nil {
			return Info{}, from.err
		}
		if from.seeker == nil {
			return Info{}, c.s.fail(ctx, "put", name, err)
		}
		if err = t.failed(ctx, err); err != nil {
			return Info{}, err
		}
	}
	var info Info
	err := c.s.do(ctx, "put", name, func(ctx context.Context) (err error) {
		info, err = c.stat(ctx, name)
		return err
	})
	return info, err
}

func (c *cloud) upload(ctx context.Context, name string, from *source, o PutOptions) error {
	// A failed upload ends what it started.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	bkt, err := c.use(ctx)
	if err != nil {
		return err
	}
	limited := LimitReader(ctx, from, c.s.upload)
	if from.seeker != nil {
		size, sizeErr := from.length()
		if sizeErr != nil {
			return sizeErr
		}
		limited = sized{limited, size}
	}
	if o.ContentType == "" {
		o.ContentType = "application/octet-stream"
	}
	return bkt.Upload(ctx, name, limited, objstore.WithContentType(o.ContentType))
}

// spooled puts a body into a file that has no name any more.
func (c *cloud) spooled(body io.Reader) (*os.File, error) {
	f, err := os.CreateTemp(c.spool, "quorate-upload-*")
	if err != nil {
		return nil, &judged{fmt.Errorf("keep what is to be stored: %w", err), classifyFile(err)}
	}
	err = os.Remove(f.Name())
	if err == nil {
		_, err = io.Copy(struct{ io.Writer }{f}, body)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(&judged{fmt.Errorf("keep what is to be stored: %w", err), classifyFile(err)}, f.Close())
	}
	return f, nil
}

func (c *cloud) get(ctx context.Context, name string, off, length int64, version string) (piece, error) {
	bkt, err := c.use(ctx)
	if err != nil {
		return piece{}, err
	}
	attributes, err := bkt.Attributes(ctx, name)
	if err != nil {
		return piece{}, err
	}
	p := piece{body: http.NoBody, version: fmt.Sprint(attributes.Size, attributes.LastModified.UnixNano())}
	if version != "" && p.version != version {
		return piece{}, corrupt("it was replaced while it was read")
	}
	if p.size, err = clamp(attributes.Size, off, length); err != nil || p.size == 0 {
		return p, err
	}
	// Ranges are always whole ones: objstore's OSS takes one without an end for everything.
	if p.size != attributes.Size {
		p.body, err = bkt.GetRange(ctx, name, off, p.size)
		return p, err
	}
	if p.body, err = bkt.Get(ctx, name); err != nil {
		return piece{}, err
	}
	// A longer one that took its place after it was asked about would be cut.
	if size, sizeErr := objstore.TryToGetSize(p.body); sizeErr == nil && size >= 0 && size != p.size {
		return piece{}, errors.Join(corrupt("it was replaced while it was read"), p.body.Close())
	}
	return p, nil
}

func (c *cloud) stat(ctx context.Context, name string) (Info, error) {
	bkt, err := c.use(ctx)
	if err != nil {
		return Info{}, err
	}
	attributes, err := bkt.Attributes(ctx, name)
	return Info{Size: attributes.Size, Modified: attributes.LastModified}, err
}

// statBatch is how many objects are asked for at once while a list is read.
const statBatch = 16

func (c *cloud) list(ctx context.Context, prefix, after string, fn func(Info) error) error {
	if c.gcs != nil {
		return c.listGCS(ctx, prefix, after, fn)
	}
	bkt, err := c.use(ctx)
	if err != nil {
		return err
	}
	var names []string
	err = bkt.Iter(ctx, prefix, func(name string) error {
		if after != "" && name <= after {
			return nil
		}
		names = append(names, name)
		if len(names) < statBatch {
			return nil
		}
		batch := names
		names = nil
		return c.statAll(ctx, batch, fn)
	}, objstore.WithRecursiveIter())
	if err != nil {
		return err
	}
	return c.statAll(ctx, names, fn)
}

// statAll completes a list, since objstore lists names only. A wrong age would have an upload
// that goes on taken for one that was left.
func (c *cloud) statAll(ctx context.Context, names []string, fn func(Info) error) error {
	infos := make([]Info, len(names))
	g, gctx := errgroup.WithContext(ctx)
	for i, name := range names {
		g.Go(func() error {
			info, err := c.stat(gctx, name)
			if err != nil {
				if errors.Is(classifyHTTP(err).kind, ErrNotFound) {
					return nil // deleted in the meantime
				}
				return err
			}
			info.Name = name
			infos[i] = info
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, info := range infos {
		if info.Name == "" {
			continue
		}
		if err := fn(info); err != nil {
			return err
		}
	}
	return nil
}

func (c *cloud) listGCS(ctx context.Context, prefix, after string, fn func(Info) error) error {
	if prefix != "" {
		prefix += "/"
	}
	query := &storage.Query{Prefix: prefix, StartOffset: after}
	if err := query.SetAttrSelection([]string{"Name", "Size", "Updated"}); err != nil {
		return err
	}
	objects := c.gcs.Objects(ctx, query)
	for {
		object, err := objects.Next()
		if errors.Is(err, iterator.Done) {
			return nil
		}
		if err != nil {
			return err
		}
		if object.Name == after {
			continue // StartOffset is the first one, not the one before it
		}
		if err = fn(Info{Name: object.Name, Size: object.Size, Modified: object.Updated}); err != nil {
			return err
		}
	}
}

func (c *cloud) remove(ctx context.Context, name string) error {
	bkt, err := c.use(ctx)
	if err != nil {
		return err
	}
	return bkt.Delete(ctx, name)
}

func (c *cloud) abortStale(context.Context, string, time.Time) (int, error) {
	if c.collects {
		return 0, nil
	}
	return 0, &judged{
		fmt.Errorf("unfinished uploads can't be listed: %w", errors.ErrUnsupported),
		verdict{kind: ErrRefused, hint: "give the bucket a lifecycle rule that ends incomplete multipart uploads after a day"},
	}
}

func (c *cloud) close() error { return c.end() }
