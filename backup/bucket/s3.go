package bucket

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// s3 speaks to S3 by minio-go itself and not by objstore, which needs the size beforehand or
// hundreds of megabytes, knows no object lock and leaves stale uploads behind.
type s3 struct {
	core   minio.Core
	bucket string
	s      *session
	// parts is the size of a part in bytes.
	parts int64
}

// md5Header keeps the MD5 of an object that was stored by one request.
const md5Header = "X-Amz-Meta-Quorate-Md5"

func openS3(c Config, creds resolved, rt http.RoundTripper, s *session) (driver, error) {
	endpoint, region := c.Endpoint, c.Region
	if endpoint == "" {
		endpoint = "s3." + region + ".amazonaws.com"
		if strings.HasPrefix(region, "cn-") {
			endpoint += ".cn"
		}
	}
	if region == "" {
		region = "us-east-1"
	}
	// Auto puts the bucket into the host's name for the large providers, and else into the path.
	lookup := minio.BucketLookupAuto
	if c.PathStyle {
		lookup = minio.BucketLookupPath
	}
	provider := credentials.NewStaticV4(creds.values[awsKey], creds.values[awsSecret], creds.values[awsToken])
	if creds.instance {
		provider = credentials.New(&credentials.IAM{Client: &http.Client{Timeout: 30 * time.Second}, Region: region})
	}
	client, err := minio.New(endpoint, &minio.Options{
		Creds: provider, Secure: !c.Insecure, Region: region, Transport: rt, BucketLookup: lookup,
		// What is repeated is decided, counted and told here.
		MaxRetries: 1,
	})
	if err != nil {
		return nil, err
	}
	client.SetAppInfo("quorate", "v1")
	return &s3{core: minio.Core{Client: client}, bucket: c.Bucket, s: s, parts: partSize}, nil
}

func (d *s3) get(ctx context.Context, name string, off, length int64, version string) (piece, error) {
	if length == 0 {
		info, err := d.stat(ctx, name)
		if err == nil {
			_, err = clamp(info.Size, off, 0)
		}
		return piece{body: http.NoBody, version: version}, err
	}
	var o minio.GetObjectOptions
	var err error
	switch {
	case length > 0:
		err = o.SetRange(off, off+length-1)
	case off > 0:
		err = o.SetRange(off, 0)
	}
	if err == nil && version != "" {
		err = o.SetMatchETag(version)
	}
	if err != nil {
		return piece{}, refused("%w", err)
	}
	body, info, header, err := d.core.GetObject(ctx, d.bucket, name, o)
	if e, ok := errors.AsType[minio.ErrorResponse](err); ok && e.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return d.get(ctx, name, off, 0, version) // which tells the size, or that the range begins at the end
	}
	if err != nil {
		return piece{}, err
	}
	p := piece{body: body, size: info.Size, version: info.ETag}
	if off == 0 && length < 0 {
		p.md5 = header.Get(md5Header)
	}
	return p, nil
}

func (d *s3) stat(ctx context.Context, name string) (Info, error) {
	info, err := d.head(ctx, name)
	if err != nil {
		return Info{}, err
	}
	return Info{Size: info.Size, Modified: info.LastModified, RetainUntil: lockOf(info)}, nil
}

// head tells a bucket that is missing from an object that is: an answer to HEAD has no body
// that would say so.
func (d *s3) head(ctx context.Context, name string) (minio.ObjectInfo, error) {
	info, err := d.core.StatObject(ctx, d.bucket, name, minio.StatObjectOptions{})
	if e, ok := errors.AsType[minio.ErrorResponse](err); ok && e.StatusCode == http.StatusNotFound {
		if there, bucketErr := d.core.BucketExists(ctx, d.bucket); bucketErr == nil && !there {
			return info, minio.ErrorResponse{Code: "NoSuchBucket", StatusCode: http.StatusNotFound, Message: "The specified bucket does not exist"}
		}
	}
	return info, err
}

// lockOf is when an object lock ends; zero without one.
func lockOf(info minio.ObjectInfo) time.Time {
	until, err := time.Parse(time.RFC3339, info.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date"))
	if err != nil {
		return time.Time{}
	}
	return until
}

func (d *s3) list(ctx context.Context, prefix, after string, fn func(Info) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the goroutine that lists
	if prefix != "" {
		prefix += "/"
	}
	o := minio.ListObjectsOptions{Prefix: prefix, Recursive: true, StartAfter: after}
	for object := range d.core.Client.ListObjects(ctx, d.bucket, o) {
		if object.Err != nil {
			return object.Err
		}
		if err := fn(Info{Name: object.Key, Size: object.Size, Modified: object.LastModified}); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// remove deletes an object. Where there is object lock there are versions, and to delete
// means to put a marker over them: that succeeds for a locked object and hides it, so the
// lock is asked for beforehand. Once it has ended, the version itself is deleted, or it would
// be paid for forever.
func (d *s3) remove(ctx context.Context, name string) error {
	info, err := d.head(ctx, name)
	if err != nil {
		return err
	}
	var o minio.RemoveObjectOptions
	until := lockOf(info)
	if time.Until(until) > 0 {
		return locked(until)
	}
	if strings.EqualFold(info.Metadata.Get("X-Amz-Object-Lock-Legal-Hold"), "ON") {
		return &judged{errors.New("it is under a legal hold"), verdict{kind: ErrLocked, hint: "whoever put the hold on it can take it away"}}
	}
	if !until.IsZero() {
		o.VersionID = info.VersionID
	}
	err = d.core.RemoveObject(ctx, d.bucket, name, o)
	if err != nil && errors.Is(classifyHTTP(err).kind, ErrLocked) {
		return locked(until)
	}
	return err
}

func locked(until time.Time) error {
	return &judged{errors.New("an object lock keeps it"), verdict{kind: ErrLocked, until: until, hint: "it can be deleted afterwards"}}
}

func (d *s3) abortStale(ctx context.Context, prefix string, before time.Time) (int, error) {
	if prefix != "" {
		prefix += "/"
	}
	n, keyMarker, idMarker := 0, "", ""
	for {
		page, err := d.core.ListMultipartUploads(ctx, d.bucket, prefix, keyMarker, idMarker, "", 1000)
		if err != nil {
			return n, err
		}
		for _, upload := range page.Uploads {
			if upload.Initiated.After(before) || !strings.HasPrefix(upload.Key, prefix) {
				continue
			}
			err = d.core.AbortMultipartUpload(ctx, d.bucket, upload.Key, upload.UploadID)
			if e, ok := errors.AsType[minio.ErrorResponse](err); ok && e.Code == "NoSuchUpload" {
				continue // it ended by itself
			}
			if err != nil {
				return n, fmt.Errorf("%s: %w", path.Base(upload.Key), err)
			}
			n++
		}
		if !page.IsTruncated || (page.NextKeyMarker == keyMarker && page.NextUploadIDMarker == idMarker) {
			return n, nil
		}
		keyMarker, idMarker = page.NextKeyMarker, page.NextUploadIDMarker
	}
}

func (d *s3) close() error { return nil }
