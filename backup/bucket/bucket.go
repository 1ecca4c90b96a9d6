package bucket

import (
	"context"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bucket is a place for objects. Its methods may be called at the same time. What
// fails returns an *Error, which is one of the sentinels of this package.
type Bucket interface {
	// Put stores what body gives under name, in place of what was there. Nobody sees
	// a part of it: a body that ends early, an error or a ctx that ends leaves what was
	// there before. The stored size is compared afterwards, and the checksum where the
	// store tells one: of two that put another body under one name at the same time, one may
	// find the other's there, which is ErrCorrupt. No name may be a directory of another one.
	//
	// Transient faults are repeated. A body that is an io.Seeker is read again from where
	// it stood; S3 repeats single parts, of any body. For COS and OSS a body that is none
	// is put into a temporary file first.
	Put(ctx context.Context, name string, body io.Reader, o PutOptions) (Info, error)
	// Get reads an object. A connection that breaks is taken up again where it broke;
	// io.EOF comes only after every byte that the store said there are. The reader lives
	// no longer than ctx.
	Get(ctx context.Context, name string) (io.ReadCloser, error)
	// GetRange reads length bytes from off on, or to the end if length is negative. A
	// range may end behind the object's end and is then shorter; off must not.
	GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error)
	// Stat says how large an object is and since when it is there.
	Stat(ctx context.Context, name string) (Info, error)
	// List calls fn for every object below the directory prefix, in any depth; "" is
	// all. A prefix is made of whole elements: prod does not list prod-eu. Objects whose
	// names Put would refuse are left out. There is no order. An error of fn ends the list
	// and is returned as it is.
	List(ctx context.Context, prefix string, fn func(Info) error) error
	// Delete removes an object; that it is not there is no error. An object that is kept
	// by a lock stays, also in the lists: ErrLocked.
	Delete(ctx context.Context, name string) error
	// AbortStale removes what uploads left behind that began longer than olderThan ago and
	// never ended, and says how many those were. GCS and Azure do that by themselves within
	// a week. For COS and OSS it is errors.ErrUnsupported: they need a lifecycle rule.
	AbortStale(ctx context.Context, olderThan time.Duration) (int, error)
	// Sub is the part of the bucket below prefix, which is left out of its names.
	Sub(prefix string) (Bucket, error)
	// String is the bucket's URL, without credentials.
	String() string
	// Close lets go of connections. It is called once, for the bucket that Open returned.
	Close() error
}

// Info says what a store knows of an object.
type Info struct {
	// Name as it was given to Put.
	Name string
	// Size in bytes.
	Size int64
	// Modified is when it was stored, by the store's clock.
	Modified time.Time
	// RetainUntil is when a lock lets go of it; zero without a lock. Stat tells it, List
	// does not.
	RetainUntil time.Time
}

// PutOptions say how an object is stored.
type PutOptions struct {
	// Size of the body in bytes if it is known, else 0. A body of another length is
	// refused. On S3 a body over 78 GiB must say it, since parts are limited to 10,000.
	Size int64
	// Yield says that the body is an *os.File to which nobody writes any more: a directory
	// on its file system takes the file itself in place of a copy.
	Yield bool
	// ContentType; application/octet-stream when empty.
	ContentType string
	// RetainUntil locks the object until then, on S3 with object lock.
	RetainUntil time.Time
	// Compliance has nobody shorten the lock; without it, whoever has the permission to
	// bypass governance may.
	Compliance bool
}

// maxName is what S3 and GCS allow, in bytes, with the prefix.
const maxName = 1024

// checkName refuses names that a store or a file system could take for another one.
func checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: it is empty", errName)
	case len(name) > maxName:
		return fmt.Errorf("%w: it has %d bytes, more than %d", errName, len(name), maxName)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: %q is not UTF-8", errName, name)
	case strings.HasPrefix(name, "/"):
		return fmt.Errorf("%w: %q begins with a slash", errName, name)
	case path.Clean(name) != name:
		return fmt.Errorf("%w: %q has empty or dotted elements", errName, name)
	case strings.ContainsFunc(name, func(r rune) bool { return r == '\\' || unicode.IsControl(r) }):
		return fmt.Errorf("%w: %q has a backslash or control characters", errName, name)
	}
	for element := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(element, ".") {
			return fmt.Errorf("%w: %q has an element that begins with a dot", errName, name)
		}
		if len(element) > 255 {
			return fmt.Errorf("%w: an element has %d bytes, more than 255", errName, len(element))
		}
	}
	return nil
}

// join puts a prefix, which may be empty, before a name.
func join(prefix, name string) string {
	if prefix == "" || name == "" {
		return prefix + name
	}
	return prefix + "/" + name
}
