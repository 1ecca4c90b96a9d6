package release

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	stagePrefix = ".stage-"
	asidePrefix = ".aside-"
	lockFile    = ".lock"
	// staleAfter is how old what an interrupted addition left must be to be removed
	// when a catalog is opened: longer than any addition takes.
	staleAfter = 24 * time.Hour
)

// Options of a catalog.
type Options struct {
	// Logger; nil logs nothing.
	Logger *slog.Logger
}

// Catalog is a directory of releases. It is safe for concurrent use, also by
// several processes.
type Catalog struct {
	dir string
	log *slog.Logger

	// mu guards verified: executables whose content has been seen to have their
	// digest, by digest.
	mu       sync.Mutex
	verified map[string]fileID
}

// Open opens the catalog in dir, and makes the directory if there is none.
func Open(dir string, opts Options) (*Catalog, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open the releases: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // executables are no secret, and members may run as another user
		return nil, fmt.Errorf("open the releases: %w; name a directory that can be written", err)
	}
	c := &Catalog{dir: dir, log: opts.Logger, verified: map[string]fileID{}}
	return c, c.sweep(time.Now())
}

// sweep removes what interrupted additions left long ago. These were never visible
// as releases.
func (c *Catalog) sweep(now time.Time) error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("open the releases: %w", err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), stagePrefix) {
			continue
		}
		info, err := e.Info()
		if err != nil || now.Sub(info.ModTime()) < staleAfter {
			continue
		}
		if err := os.RemoveAll(filepath.Join(c.dir, e.Name())); err != nil {
			c.log.Warn("remove an interrupted addition", slog.String("path", e.Name()), slog.Any("error", err))
		}
	}
	return nil
}

// List returns the releases, newest version first, and among equal versions those
// added last. What can't be read is logged and left out.
func (c *Catalog) List() ([]Release, error) {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, fmt.Errorf("list the releases: %w", err)
	}
	var out []Release
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), dirPrefix) {
			continue
		}
		r, err := c.read(e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			c.log.Warn("a release can't be read", slog.String("directory", e.Name()), slog.Any("error", err))
			continue
		}
		out = append(out, r)
	}
	slices.SortFunc(out, newestFirst)
	return out, nil
}

func (c *Catalog) read(name string) (Release, error) {
	dir := filepath.Join(c.dir, name)
	raw, err := os.ReadFile(filepath.Join(dir, recordFile)) //nolint:gosec // within the catalog
	if err != nil {
		return Release{}, err
	}
	return decodeRecord(raw, dir)
}

// Get returns the release with a digest, without looking at its content.
func (c *Catalog) Get(digest string) (Release, error) {
	if !ValidDigest(digest) {
		return Release{}, fmt.Errorf("release %q: %w: a digest is sha256: and 64 hex digits", digest, ErrNotFound)
	}
	r, err := c.read(dirName(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return r, fmt.Errorf("release %s: %w in %s; add it with 'quorate release add'", digest, ErrNotFound, c.dir)
	}
	if err != nil {
		return r, fmt.Errorf("release %s: %w", digest, err)
	}
	return r, nil
}

// Resolve returns the release of a version for a platform: the one added last,
// where there are several. An empty platform is this host's. ErrNotFound says what
// there is.
func (c *Catalog) Resolve(version, platform string) (Release, error) {
	if platform == "" {
		platform = HostPlatform()
	}
	all, err := c.List()
	if err != nil {
		return Release{}, err
	}
	version = strings.TrimPrefix(version, "v")
	var there []string
	for _, r := range all {
		if r.Version == version && r.Platform == platform {
			return r, nil
		}
		there = append(there, r.Version+" ("+r.Platform+")")
	}
	have := "the catalog is empty"
	if len(there) > 0 {
		have = "there is " + strings.Join(slices.Compact(there), ", ")
	}
	return Release{}, fmt.Errorf("etcd %s for %s: %w: %s; add it with 'quorate release add'", version, platform, ErrNotFound, have)
}

// Path returns the path of an etcd executable after it has seen that its content
// has the digest. ErrNotFound, or ErrDigest naming both digests: what has changed
// is never run. A content once seen is not read again while the file's inode, size
// and times stay the same.
func (c *Catalog) Path(ctx context.Context, digest string) (string, error) {
	f, _, err := c.OpenExecutable(ctx, digest)
	if err != nil {
		return "", err
	}
	path := f.Name()
	return path, f.Close()
}

// OpenExecutable opens an etcd executable for reading, to send it to another host
// for instance, after the checks of Path. The caller closes it.
func (c *Catalog) OpenExecutable(ctx context.Context, digest string) (*os.File, Release, error) {
	r, err := c.Get(digest)
	if err != nil {
		return nil, r, err
	}
	path := filepath.Join(c.dir, dirName(digest), executable)
	// A link would let the content change without the file.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0) //nolint:gosec // within the catalog
	if err != nil {
		return nil, r, fmt.Errorf("release %s: %w; add it again with 'quorate release add'", digest, err)
	}
	if err := c.verify(ctx, f, digest); err != nil {
		return nil, r, errors.Join(err, f.Close())
	}
	return f, r, nil
}

// verify compares the content of an open executable with the digest, and leaves
// the file at its beginning.
func (c *Catalog) verify(ctx context.Context, f *os.File, digest string) error {
	id, err := identify(f)
	if err != nil {
		return err
	}
	c.mu.Lock()
	known := c.verified[digest] == id
	c.mu.Unlock()
	if known {
		return nil
	}
	got, err := hashFile(ctx, f)
	if err != nil {
		return fmt.Errorf("release %s: %w", digest, err)
	}
	if got != digest {
		return fmt.Errorf("release %s: %w: %s now has digest %s, so it is not run; find out who changed it, and add the release again with 'quorate release add'", digest, ErrDigest, f.Name(), got)
	}
	if after, err := identify(f); err != nil || after != id {
		return errors.Join(err, fmt.Errorf("release %s: %w: %s changed while it was read", digest, ErrDigest, f.Name()))
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("release %s: %w", digest, err)
	}
	c.mu.Lock()
	c.verified[digest] = id
	c.mu.Unlock()
	return nil
}

// Remove removes a release. InUse returns who runs it: unless that is nobody,
// Remove returns ErrInUse with their names.
func (c *Catalog) Remove(digest string, inUse func(Release) ([]string, error)) error {
	r, err := c.Get(digest)
	if err != nil {
		return err
	}
	users, err := inUse(r)
	if err != nil {
		return fmt.Errorf("remove release %s: find out who runs it: %w", digest, err)
	}
	if len(users) > 0 {
		return fmt.Errorf("remove release %s (%s): %w by %s; move them to another release first", digest, r.Version, ErrInUse, strings.Join(users, ", "))
	}
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	aside, err := c.moveAside(digest)
	if err != nil {
		return fmt.Errorf("remove release %s: %w", digest, err)
	}
	if err := os.RemoveAll(aside); err != nil {
		return fmt.Errorf("remove release %s: %w", digest, err)
	}
	return nil
}

// moveAside renames a release out of sight. Whoever runs it goes on.
func (c *Catalog) moveAside(digest string) (string, error) {
	aside, err := os.MkdirTemp(c.dir, asidePrefix)
	if err != nil {
		return "", err
	}
	return aside, os.Rename(filepath.Join(c.dir, dirName(digest)), filepath.Join(aside, dirName(digest)))
}

// lock serialises changes of the catalog's directory among processes.
func (c *Catalog) lock() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(c.dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the releases: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the releases: %w", err), f.Close())
	}
	return func() { _ = f.Close() }, nil // closing unlocks
}
