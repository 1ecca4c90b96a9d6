package release

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/quorate/quorate/internal/atomicfile"
)

// defaultMaxSize bounds an executable, a download and an unpacked archive.
const defaultMaxSize = 1 << 30

// AddOptions say what an added release must be.
type AddOptions struct {
	// Version it must answer with; empty for any. Required for the release of
	// another platform, which can't be asked.
	Version string
	// Digest that the etcd executable must have; empty for any.
	Digest string
	// ArchiveDigest that the archive must have: required by AddURL, unless the mirror
	// has a SHA256SUMS beside it.
	ArchiveDigest string
	// MaxSize in bytes of the download and of what is unpacked. Default: 1 GiB.
	MaxSize int64
	// Source to note. Default: the path or URL it came from.
	Source string
	// Timeout of a download. Default: 10 minutes.
	Timeout time.Duration
}

func (o *AddOptions) complete() (err error) {
	if o.MaxSize <= 0 {
		o.MaxSize = defaultMaxSize
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Minute
	}
	if o.Version != "" {
		o.Version, err = normalVersion(o.Version)
	}
	if o.Digest != "" && err == nil {
		o.Digest, err = normalDigest("digest", o.Digest)
	}
	if o.ArchiveDigest != "" && err == nil {
		o.ArchiveDigest, err = normalDigest("archive digest", o.ArchiveDigest)
	}
	return err
}

// stage is a release that is being put together, out of sight.
type stage struct {
	dir     string
	digests map[string]string
	size    int64
	// installed says that the directory has become a release.
	installed bool
}

// add makes a stage, has it filled, and makes a release of it. Whatever fails,
// nothing of it stays.
func (c *Catalog) add(ctx context.Context, source string, opts AddOptions, fill func(*stage) error) (Release, error) {
	source = cmp.Or(opts.Source, source)
	dir, err := os.MkdirTemp(c.dir, stagePrefix)
	if err != nil {
		return Release{}, fmt.Errorf("add a release: %w", err)
	}
	st := &stage{dir: dir, digests: map[string]string{}}
	defer func() {
		if st.installed {
			return
		}
		if rerr := os.RemoveAll(dir); rerr != nil {
			c.log.WarnContext(ctx, "remove a stage", slog.String("path", dir), slog.Any("error", rerr))
		}
	}()
	if err = fill(st); err != nil {
		return Release{}, fmt.Errorf("add a release from %s: %w", source, err)
	}
	r, err := c.describe(ctx, st, source, opts)
	if err != nil {
		return Release{}, fmt.Errorf("add a release from %s: %w", source, err)
	}
	return c.install(ctx, st, r)
}

// put copies one executable into the stage, hashing it on the way.
func (st *stage) put(ctx context.Context, name string, src io.Reader, maxSize int64) (err error) {
	if _, twice := st.digests[name]; twice {
		return fmt.Errorf("%w: it holds %s twice", ErrUnsuitable, name)
	}
	f, err := os.OpenFile(filepath.Join(st.dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // one of three names, in the stage
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close())
	}()
	in := newHashing(limit(src, maxSize))
	if err := copyContext(ctx, f, in); err != nil {
		return fmt.Errorf("copy %s: %w", name, err)
	}
	if in.n == 0 {
		return fmt.Errorf("%w: %s is empty", ErrUnsuitable, name)
	}
	if err := f.Chmod(0o555); err != nil {
		return err
	}
	st.digests[name] = in.digest()
	if name == executable {
		st.size = in.n
	}
	return nil
}

// describe checks what is staged against the options and asks it for its version.
func (c *Catalog) describe(ctx context.Context, st *stage, source string, opts AddOptions) (Release, error) {
	digest, ok := st.digests[executable]
	if !ok {
		return Release{}, fmt.Errorf("%w: there is no executable called etcd in it", ErrUnsuitable)
	}
	if opts.Digest != "" && digest != opts.Digest {
		return Release{}, fmt.Errorf("%w: etcd has %s, wanted %s; nothing was added", ErrDigest, digest, opts.Digest)
	}
	path := filepath.Join(st.dir, executable)
	r := Release{
		Digest: digest, Source: source, Added: time.Now().UTC(), Size: st.size,
		Platform: platformOf(path),
	}
	for _, tool := range tools {
		if d, ok := st.digests[tool]; ok {
			if r.Tools == nil {
				r.Tools = map[string]string{}
			}
			r.Tools[tool] = d
		}
	}
	// Known already: it has been asked before.
	if known, err := c.Get(digest); err == nil && (opts.Version == "" || known.Version == opts.Version) {
		r.Version, r.Platform = known.Version, known.Platform
		return r, nil
	}
	if r.Platform != HostPlatform() {
		if opts.Version == "" {
			return Release{}, fmt.Errorf("%w: it is for %s and can't be asked for its version on %s; give the version", ErrUnsuitable, r.Platform, HostPlatform())
		}
		r.Version = opts.Version
		return r, nil
	}
	version, err := askVersion(ctx, path)
	if err != nil {
		return Release{}, err
	}
	if opts.Version != "" && version != opts.Version {
		return Release{}, fmt.Errorf("%w: the executable says that it is %s, wanted %s; nothing was added", ErrVersion, version, opts.Version)
	}
	r.Version = version
	return r, nil
}

// install makes the stage durable and visible. A release with that digest that is
// there already stays as it is, unless its content was changed: then it is renamed
// out of sight.
func (c *Catalog) install(ctx context.Context, st *stage, r Release) (Release, error) {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return Release{}, fmt.Errorf("add release %s: %w", r.Digest, err)
	}
	unlock, err := c.lock()
	if err != nil {
		return Release{}, err
	}
	defer unlock()
	if known, err := c.Get(r.Digest); err == nil {
		_, perr := c.Path(ctx, r.Digest)
		if perr == nil {
			return known, nil
		}
		if ctx.Err() != nil {
			return Release{}, perr
		}
		c.log.WarnContext(ctx, "a damaged release is replaced", slog.String("digest", r.Digest), slog.Any("error", perr))
	}
	if err := atomicfile.Write(filepath.Join(st.dir, recordFile), append(raw, '\n'), 0o644); err != nil {
		return Release{}, err
	}
	if err := st.sync(); err != nil {
		return Release{}, err
	}
	target := filepath.Join(c.dir, dirName(r.Digest))
	if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
		if _, err := c.moveAside(r.Digest); err != nil {
			return Release{}, fmt.Errorf("add release %s: %w", r.Digest, err)
		}
	}
	if err := os.Rename(st.dir, target); err != nil {
		return Release{}, fmt.Errorf("add release %s: %w", r.Digest, err)
	}
	st.installed = true
	if err := atomicfile.SyncDir(c.dir); err != nil {
		return Release{}, err
	}
	c.log.InfoContext(ctx, "added a release", slog.String("version", r.Version), slog.String("digest", r.Digest), slog.String("source", r.Source))
	return r, nil
}

// sync makes the staged files durable.
func (st *stage) sync() error {
	for _, name := range slices.Concat([]string{executable}, tools) {
		if _, ok := st.digests[name]; !ok {
			continue
		}
		f, err := os.Open(filepath.Join(st.dir, name)) //nolint:gosec // one of three names, in the stage
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	if err := os.Chmod(st.dir, 0o755); err != nil { //nolint:gosec // executables are no secret
		return err
	}
	return atomicfile.SyncDir(st.dir)
}
