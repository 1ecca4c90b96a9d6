package bucket

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // S3 compares bytes with it; SHA-256 signs them
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"
)

const (
	// partSize times partBuffers is what an upload keeps in memory: 24 MiB. A part is kept
	// until it is stored, so it can be sent again whatever the body is.
	partSize    = 8 << 20
	partBuffers = 3
	// maxParts is S3's.
	maxParts = 10_000
	// abortPatience is for cleaning up after ctx has ended.
	abortPatience = 30 * time.Second
)

// digest is what a request says of its bytes, so that the store refuses others.
type digest struct {
	md5    [md5.Size]byte
	sha256 [sha256.Size]byte
}

func digestOf(data []byte) digest {
	return digest{md5.Sum(data), sha256.Sum256(data)} //nolint:gosec // see the import
}

func (d digest) md5Base64() string { return base64.StdEncoding.EncodeToString(d.md5[:]) }
func (d digest) md5Hex() string    { return hex.EncodeToString(d.md5[:]) }
func (d digest) sha256Hex() string { return hex.EncodeToString(d.sha256[:]) }

func (d *s3) put(ctx context.Context, name string, body *source, o PutOptions) (Info, error) {
	parts := d.parts
	if o.Size > parts*maxParts {
		// Never in practice: that is more than etcd can hold.
		parts = (o.Size/maxParts + 1<<20) &^ (1<<20 - 1)
	}
	first, last, err := readFirst(body, parts, o.Size)
	if err != nil {
		return Info{}, err
	}
	if last {
		return d.putWhole(ctx, name, first, o)
	}
	return d.putParts(ctx, name, first, body, o)
}

// readFirst reads a part, or all if it is less. It takes the memory of a whole part only if
// there is so much.
func readFirst(body io.Reader, size, hint int64) (data []byte, last bool, err error) {
	const little = 256 << 10
	data = make([]byte, min(max(hint, little), size))
	for have := 0; ; {
		n, err := io.ReadFull(body, data[have:])
		have += n
		if err != nil {
			return data[:have], true, ended(body, err)
		}
		if int64(have) == size {
			return data, false, nil
		}
		// A whole part at once: it becomes one of the buffers.
		whole := make([]byte, size)
		copy(whole, data)
		data = whole
	}
}

// ended lets the end of body pass, told apart from one that failed with the same error.
func ended(body io.Reader, err error) error {
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	if _, again := body.Read(nil); again != nil && !errors.Is(again, io.EOF) {
		return again
	}
	return nil
}

func headers(o PutOptions) minio.PutObjectOptions {
	m := minio.PutObjectOptions{ContentType: o.ContentType, DisableContentSha256: true}
	if !o.RetainUntil.IsZero() {
		m.RetainUntilDate, m.Mode = o.RetainUntil.UTC(), minio.Governance
		if o.Compliance {
			m.Mode = minio.Compliance
		}
	}
	return m
}

// onlyReader hides that it could be read again, so that the library does not.
type onlyReader struct{ io.Reader }

func (d *s3) body(ctx context.Context, data []byte) io.Reader {
	return onlyReader{LimitReader(ctx, bytes.NewReader(data), d.s.upload)}
}

func (d *s3) putWhole(ctx context.Context, name string, data []byte, o PutOptions) (info Info, err error) {
	sum := digestOf(data)
	m := headers(o)
	m.UserMetadata = map[string]string{md5Header: sum.md5Hex()}
	var up minio.UploadInfo
	err = d.s.do(ctx, "put", name, func(ctx context.Context) error {
		up, err = d.core.PutObject(ctx, d.bucket, name, d.body(ctx, data), int64(len(data)), sum.md5Base64(), sum.sha256Hex(), m)
		return err
	})
	if err != nil {
		return Info{}, err
	}
	return d.compare(ctx, name, up.ETag == sum.md5Hex(), sum.md5Hex(), o)
}

// putParts stores the body in parts, of which two are sent while the next one is read.
func (d *s3) putParts(ctx context.Context, name string, first []byte, body *source, o PutOptions) (info Info, err error) {
	var id string
	err = d.s.do(ctx, "put", name, func(ctx context.Context) error {
		id, err = d.core.NewMultipartUpload(ctx, d.bucket, name, headers(o))
		return err
	})
	if err != nil {
		return Info{}, err
	}
	defer func() {
		if err != nil {
			d.abort(ctx, name, id)
		}
	}()
	u := &upload{d: d, name: name, id: id, sums: map[int]digest{}, etags: map[int]string{}}
	if err = u.send(ctx, first, body); err != nil {
		return Info{}, err
	}
	if err = u.complete(ctx); err != nil {
		return Info{}, err
	}
	return d.compare(ctx, name, u.plain(), u.etag(), o)
}

// abort removes the parts, even if ctx has ended. A part that was broken off may still arrive
// and bring the upload back, so it is looked after.
func (d *s3) abort(ctx context.Context, name, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortPatience)
	defer cancel()
	err := d.s.do(ctx, "abort", name, func(ctx context.Context) error {
		err := d.core.AbortMultipartUpload(ctx, d.bucket, name, id)
		if err == nil {
			_, err = d.core.ListObjectParts(ctx, d.bucket, name, id, 0, 1)
		}
		if err == nil {
			return &judged{errors.New("parts are still there"), verdict{kind: ErrUnavailable, transient: true}}
		}
		if e, ok := errors.AsType[minio.ErrorResponse](err); ok && e.Code == "NoSuchUpload" {
			return nil
		}
		return err
	})
	if err != nil {
		d.s.log.LogAttrs(ctx, slog.LevelWarn, "an unfinished upload stays in the store until its stale ones are removed", slog.Any("error", err))
	}
}

// upload is one in parts.
type upload struct {
	d        *s3
	name, id string
	// count of the parts; their numbers begin with 1.
	count int
	mu    sync.Mutex
	sums  map[int]digest
	etags map[int]string
}

func (u *upload) send(ctx context.Context, first []byte, body io.Reader) error {
	g, gctx := errgroup.WithContext(ctx)
	free := make(chan []byte, partBuffers)
	for range partBuffers - 1 {
		free <- nil // made when it is needed
	}
	data := first
	for len(data) > 0 {
		if u.count == maxParts {
			_ = g.Wait() // it is given up anyway
			return refused("it has more than %d parts of %d bytes: say its size beforehand", maxParts, cap(first))
		}
		u.count++
		part, number := data, u.count
		g.Go(func() error {
			if err := u.part(gctx, number, part); err != nil {
				return err
			}
			free <- part
			return nil
		})
		var err error
		if data, err = next(gctx, free, body, cap(first)); err != nil {
			// What a part failed with ended gctx, and comes first. Parts under way are waited for
			// and not broken off: they could arrive after the upload was aborted.
			if failed := g.Wait(); failed != nil && !errors.Is(failed, context.Canceled) {
				return failed
			}
			return err
		}
	}
	return g.Wait()
}

// next reads a part into a buffer that is free; nothing at the end of body.
func next(ctx context.Context, free chan []byte, body io.Reader, size int) ([]byte, error) {
	var buf []byte
	select {
	case buf = <-free:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if buf == nil {
		buf = make([]byte, size)
	}
	n, err := io.ReadFull(body, buf[:size])
	if err != nil {
		err = ended(body, err)
	}
	return buf[:n], err
}

func (u *upload) part(ctx context.Context, number int, data []byte) error {
	d, sum := u.d, digestOf(data)
	return d.s.do(ctx, "put", u.name, func(ctx context.Context) error {
		stored, err := d.core.PutObjectPart(ctx, d.bucket, u.name, u.id, number, d.body(ctx, data), int64(len(data)),
			minio.PutObjectPartOptions{Md5Base64: sum.md5Base64(), Sha256Hex: sum.sha256Hex(), DisableContentSha256: true})
		if err == nil {
			u.mu.Lock()
			u.sums[number], u.etags[number] = sum, stored.ETag
			u.mu.Unlock()
		}
		return err
	})
}

// complete makes the parts an object. If the answer to it is lost, the upload is gone at the
// next attempt, and the object tells whether it is this one.
func (u *upload) complete(ctx context.Context) error {
	parts := make([]minio.CompletePart, u.count)
	for i := range parts {
		parts[i] = minio.CompletePart{PartNumber: i + 1, ETag: u.etags[i+1]}
	}
	d, attempt := u.d, 0
	return d.s.do(ctx, "put", u.name, func(ctx context.Context) error {
		attempt++
		_, err := d.core.CompleteMultipartUpload(ctx, d.bucket, u.name, u.id, parts, minio.PutObjectOptions{})
		if e, ok := errors.AsType[minio.ErrorResponse](err); ok && e.Code == "NoSuchUpload" && attempt > 1 {
			if info, statErr := d.head(ctx, u.name); statErr == nil && info.ETag == u.etag() {
				return nil
			}
		}
		return err
	})
}

// plain is true if the store's ETags are MD5s, so that the whole one can be compared too.
// Where keys of its own encrypt the objects they are not.
func (u *upload) plain() bool {
	for number, sum := range u.sums {
		if u.etags[number] != sum.md5Hex() {
			return false
		}
	}
	return true
}

// etag is what S3 makes of the MD5s of parts.
func (u *upload) etag() string {
	all := md5.New() //nolint:gosec // see the import
	for i := range u.count {
		sum := u.sums[i+1]
		_, _ = all.Write(sum.md5[:]) // a hash takes all
	}
	return fmt.Sprintf("%x-%d", all.Sum(nil), u.count)
}

// compare asks what is stored now.
func (d *s3) compare(ctx context.Context, name string, plain bool, etag string, o PutOptions) (info Info, err error) {
	err = d.s.do(ctx, "put", name, func(ctx context.Context) error {
		stored, failed := d.head(ctx, name)
		if failed != nil {
			return failed
		}
		if plain && stored.ETag != etag {
			return corrupt("%s was stored, and the store has the ETag %s: it was damaged, or replaced by somebody at the same time", etag, stored.ETag)
		}
		info = Info{Size: stored.Size, Modified: stored.LastModified, RetainUntil: lockOf(stored)}
		if !o.RetainUntil.IsZero() && info.RetainUntil.Before(o.RetainUntil.Truncate(time.Second)) {
			return refused("the store has no lock on it: its bucket has no object lock, or it hides locks from these credentials")
		}
		return nil
	})
	return info, err
}
