package bucket

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// dir keeps objects as files. All paths are below root, symbolic links included.
type dir struct {
	root *os.Root
	s    *session
}

// partial files are named so; names of objects never begin with a dot.
const partial = ".partial-"

func openDir(root string, s *session) (driver, error) {
	r, err := os.OpenRoot(root)
	switch {
	// OpenRoot says in words that it is a file.
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), err != nil && strings.HasSuffix(err.Error(), "not a directory"):
		return nil, &judged{err, verdict{kind: ErrNoBucket, hint: "make the directory, or mount it: mkdir -m 0700 " + root}}
	case err != nil:
		return nil, err
	}
	return &dir{r, s}, nil
}

func classifyFile(err error) verdict {
	switch {
	// OpenRoot says in words that it is a file.
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR):
		return verdict{kind: ErrNotFound}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return verdict{kind: ErrNoSpace, hint: "free some space, or give another directory"}
	case errors.Is(err, fs.ErrPermission):
		return verdict{kind: ErrDenied, hint: "give the directory to the user that runs this"}
	case errors.Is(err, syscall.EROFS):
		return verdict{kind: ErrDenied, hint: "the file system can only be read: look into the system's log for why"}
	case errors.Is(err, syscall.ESTALE), errors.Is(err, syscall.EIO):
		return verdict{kind: ErrUnavailable, hint: "look into the system's log for what is wrong with the disk or the mount"}
	default:
		return verdict{kind: ErrUnavailable}
	}
}

func (d *dir) put(ctx context.Context, name string, body *source, o PutOptions) (info Info, err error) {
	f, tmp, err := d.fill(ctx, name, body, o)
	if err != nil {
		return Info{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, closed(f.Close()), d.root.Remove(tmp))
		}
	}()
	if err = f.Sync(); err != nil {
		return Info{}, err
	}
	stat, err := f.Stat()
	if err != nil {
		return Info{}, err
	}
	if stat.Size() != body.n {
		return Info{}, corrupt("%d bytes were written, and the file has %d", body.n, stat.Size())
	}
	if err = f.Close(); err != nil {
		return Info{}, err
	}
	if err = context.Cause(ctx); err != nil {
		return Info{}, err
	}
	if err = d.root.Rename(tmp, name); err != nil {
		if errors.Is(err, syscall.EISDIR) || errors.Is(err, fs.ErrExist) {
			err = refused("it is the directory of other objects: %w", err)
		}
		return Info{}, err
	}
	return Info{Size: stat.Size(), Modified: stat.ModTime()}, d.syncUp(path.Dir(name))
}

// fill makes the partial file of a name, with all of the body in it. A file that is
// yielded is taken as it is where that can be; else it is copied.
func (d *dir) fill(ctx context.Context, name string, body *source, o PutOptions) (f *os.File, tmp string, err error) {
	if from := body.file(); from != nil && o.Yield && d.s.upload == nil {
		f, tmp, err = d.create(name, func(tmp string) (*os.File, error) { return d.link(from, tmp) })
		if err == nil {
			body.n = o.Size
			return f, tmp, nil
		}
	}
	f, tmp, err = d.create(name, func(tmp string) (*os.File, error) {
		return d.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	})
	if err != nil {
		return nil, "", err
	}
	if _, err = io.CopyBuffer(struct{ io.Writer }{f}, LimitReader(ctx, body, d.s.upload), make([]byte, 64<<10)); err != nil {
		return nil, "", errors.Join(err, f.Close(), d.root.Remove(tmp))
	}
	return f, tmp, nil
}

// link gives a file another name. It fails for one of another file system.
func (d *dir) link(from *os.File, tmp string) (f *os.File, err error) {
	parent, err := d.root.Open(path.Dir(tmp))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, parent.Close()) }()
	opened := "/proc/self/fd/" + strconv.Itoa(int(from.Fd()))
	if err = unix.Linkat(unix.AT_FDCWD, opened, int(parent.Fd()), path.Base(tmp), unix.AT_SYMLINK_FOLLOW); err != nil {
		return nil, err
	}
	if f, err = d.root.OpenFile(tmp, os.O_RDWR, 0); err != nil {
		return nil, errors.Join(err, d.root.Remove(tmp))
	}
	return f, nil
}

// madeMeanwhile reports whether somebody else has made the directory, or a part of its
// way: os.Root can tell its own attempt's EEXIST instead of looking what is there.
func (d *dir) madeMeanwhile(parent string) bool {
	info, err := d.root.Stat(parent)
	return errors.Is(err, fs.ErrNotExist) || err == nil && info.IsDir()
}

// create makes the partial file beside the name. Delete may take away a directory that is
// empty between the two steps: then it is made again.
func (d *dir) create(name string, open func(tmp string) (*os.File, error)) (f *os.File, tmp string, err error) {
	parent := path.Dir(name)
	for range 100 {
		err = d.root.MkdirAll(parent, 0o700)
		if errors.Is(err, fs.ErrExist) && d.madeMeanwhile(parent) {
			err = nil
		}
		if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, fs.ErrExist) {
			return nil, "", refused("a directory on its way is an object: %w", err)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, "", err
		}
		tmp = path.Join(parent, partial+rand.Text())
		f, err = open(tmp)
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return f, tmp, err
}

// syncUp makes the entries of a directory and of those above it durable. All of them, since
// it costs little beside the file and nobody has to know which one is new.
func (d *dir) syncUp(name string) error {
	for ; ; name = path.Dir(name) {
		f, err := d.root.Open(name)
		if err != nil {
			return err
		}
		if err = f.Sync(); err != nil {
			return errors.Join(err, f.Close())
		}
		if err = f.Close(); err != nil || name == "." {
			return err
		}
	}
}

func (d *dir) get(_ context.Context, name string, off, length int64, version string) (piece, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return piece{}, err
	}
	p, err := pieceOf(f, off, length)
	if err == nil && version != "" && p.version != version {
		err = corrupt("it was replaced while it was read")
	}
	if err != nil {
		return piece{}, errors.Join(err, f.Close())
	}
	return p, nil
}

func pieceOf(f *os.File, off, length int64) (piece, error) {
	stat, err := f.Stat()
	if err != nil {
		return piece{}, err
	}
	if !stat.Mode().IsRegular() {
		return piece{}, fs.ErrNotExist
	}
	size, err := clamp(stat.Size(), off, length)
	if err != nil {
		return piece{}, err
	}
	if _, err = f.Seek(off, io.SeekStart); err != nil {
		return piece{}, err
	}
	return piece{body: f, size: size, version: fmt.Sprint(stat.Size(), stat.ModTime().UnixNano())}, nil
}

// clamp says how much of a range there is.
func clamp(size, off, length int64) (int64, error) {
	if off > size {
		return 0, refused("the range begins at %d, and the object has %d bytes", off, size)
	}
	if length < 0 || length > size-off {
		return size - off, nil
	}
	return length, nil
}

func (d *dir) stat(_ context.Context, name string) (Info, error) {
	stat, err := d.root.Stat(name)
	if err != nil {
		return Info{}, err
	}
	if !stat.Mode().IsRegular() {
		return Info{}, fs.ErrNotExist
	}
	return Info{Size: stat.Size(), Modified: stat.ModTime()}, nil
}

func (d *dir) list(ctx context.Context, prefix, _ string, fn func(Info) error) error {
	return d.walk(prefix, func(name string, entry fs.DirEntry) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if name == prefix || strings.HasPrefix(path.Base(name), ".") {
			return nil
		}
		stat, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) || (err == nil && !stat.Mode().IsRegular()) {
			return nil
		}
		if err != nil {
			return err
		}
		return fn(Info{Name: name, Size: stat.Size(), Modified: stat.ModTime()})
	})
}

// walk calls fn for what is no directory. What vanishes while it walks is no error.
func (d *dir) walk(prefix string, fn func(string, fs.DirEntry) error) error {
	start := prefix
	if start == "" {
		start = "."
	}
	return fs.WalkDir(d.root.FS(), start, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case entry.IsDir():
			return nil
		}
		return fn(name, entry)
	})
}

func (d *dir) remove(_ context.Context, name string) error {
	// Remove would take an empty directory too.
	if stat, err := d.root.Lstat(name); err != nil || stat.IsDir() {
		return errors.Join(err, fs.ErrNotExist)
	}
	if err := d.root.Remove(name); err != nil {
		return err
	}
	parent := path.Dir(name)
	for ; parent != "."; parent = path.Dir(parent) {
		if d.root.Remove(parent) != nil {
			break // it is not empty
		}
	}
	if err := d.syncUp(parent); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (d *dir) abortStale(ctx context.Context, prefix string, before time.Time) (n int, err error) {
	err = d.walk(prefix, func(name string, entry fs.DirEntry) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !strings.HasPrefix(path.Base(name), partial) {
			return nil
		}
		stat, gone := entry.Info()
		if gone != nil || stat.ModTime().After(before) {
			return nil //nolint:nilerr // its upload ended
		}
		if failed := d.root.Remove(name); failed != nil && !errors.Is(failed, fs.ErrNotExist) {
			return failed
		}
		n++
		return nil
	})
	return n, err
}

func (d *dir) close() error { return d.root.Close() }

// closed lets pass that a file was closed before.
func closed(err error) error {
	if errors.Is(err, fs.ErrClosed) {
		return nil
	}
	return err
}
