package release

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/quorate/quorate/internal/atomicfile"
	"github.com/quorate/quorate/internal/version"
)

// builtinFile remembers which executable was last added by AddBuiltin.
const builtinFile = "builtin.json"

type builtin struct {
	File   fileID `json:"file"`
	Digest string `json:"digest"`
}

// AddBuiltin adds the etcd that is linked into an executable of Quorate, normally
// /proc/self/exe: a copy of it, which acts as etcd under that name. EtcdVersion is
// what it must say it is; empty for any. The file is read again only when it has
// changed since the last time.
func (c *Catalog) AddBuiltin(ctx context.Context, etcdVersion, executablePath string) (Release, error) {
	opts := AddOptions{Version: etcdVersion}
	if err := opts.complete(); err != nil {
		return Release{}, fmt.Errorf("add the built-in etcd: %w", err)
	}
	f, err := os.Open(executablePath) //nolint:gosec // the caller names its own executable
	if err != nil {
		return Release{}, fmt.Errorf("add the built-in etcd: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	id, err := identify(f)
	if err != nil {
		return Release{}, fmt.Errorf("add the built-in etcd: %w", err)
	}
	if r, known := c.recall(id); known && (opts.Version == "" || r.Version == opts.Version) {
		return r, nil
	}
	r, err := c.add(ctx, "built in, quorate "+version.Version(), opts, func(st *stage) error {
		return st.put(ctx, executable, f, opts.MaxSize)
	})
	if err != nil {
		return Release{}, err
	}
	raw, err := json.Marshal(builtin{File: id, Digest: r.Digest})
	if err == nil {
		err = atomicfile.Write(filepath.Join(c.dir, builtinFile), append(raw, '\n'), 0o600)
	}
	if err != nil {
		// It only saves time.
		c.log.WarnContext(ctx, "remember the built-in etcd", slog.Any("error", err))
	}
	return r, nil
}

// recall returns the release that was made of a file, if it is remembered.
func (c *Catalog) recall(id fileID) (Release, bool) {
	raw, err := os.ReadFile(filepath.Join(c.dir, builtinFile))
	if err != nil {
		return Release{}, false
	}
	var last builtin
	if json.Unmarshal(raw, &last) != nil || last.File != id {
		return Release{}, false
	}
	r, err := c.Get(last.Digest)
	return r, err == nil
}

// AddDirectory adds the etcd in a directory, with the etcdctl and etcdutl beside
// it, or a single etcd executable whatever its name.
func (c *Catalog) AddDirectory(ctx context.Context, from string, opts AddOptions) (Release, error) {
	if err := opts.complete(); err != nil {
		return Release{}, err
	}
	info, err := os.Stat(from)
	if err != nil {
		return Release{}, fmt.Errorf("add a release: %w", err)
	}
	return c.add(ctx, from, opts, func(st *stage) error {
		if !info.IsDir() {
			return putFile(ctx, st, executable, from, opts.MaxSize)
		}
		for _, name := range slices.Concat([]string{executable}, tools) {
			err := putFile(ctx, st, name, filepath.Join(from, name), opts.MaxSize)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	})
}

func putFile(ctx context.Context, st *stage, name, from string, maxSize int64) error {
	f, err := os.Open(from) //nolint:gosec // what a person asked to add
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	if _, err := identify(f); err != nil {
		return err
	}
	return st.put(ctx, name, f, maxSize)
}

// AddFrom adds an etcd executable of a digest and version that both must match, as
// sent from another host's catalog.
func (c *Catalog) AddFrom(ctx context.Context, digest, etcdVersion string, r io.Reader) (Release, error) {
	opts := AddOptions{Digest: digest, Version: etcdVersion}
	if err := opts.complete(); err != nil {
		return Release{}, err
	}
	if opts.Digest == "" {
		return Release{}, fmt.Errorf("add a release: %w: its digest is not given", ErrUnsuitable)
	}
	return c.add(ctx, "another catalog", opts, func(st *stage) error {
		return st.put(ctx, executable, r, opts.MaxSize)
	})
}

// AddArchive adds the release in an archive as upstream publishes them:
// etcd-vX.Y.Z-linux-amd64.tar.gz.
func (c *Catalog) AddArchive(ctx context.Context, file string, opts AddOptions) (Release, error) {
	if err := opts.complete(); err != nil {
		return Release{}, err
	}
	f, err := os.Open(file) //nolint:gosec // what a person asked to add
	if err != nil {
		return Release{}, fmt.Errorf("add a release: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	return c.addArchive(ctx, file, f, opts)
}

func (c *Catalog) addArchive(ctx context.Context, source string, f *os.File, opts AddOptions) (Release, error) {
	return c.add(ctx, source, opts, func(st *stage) error {
		if _, err := identify(f); err != nil {
			return err
		}
		// The digest comes first: nothing is unpacked of what is not what was meant.
		if opts.ArchiveDigest != "" {
			got, err := hashFile(ctx, f)
			if err != nil {
				return err
			}
			if got != opts.ArchiveDigest {
				return fmt.Errorf("%w: the archive has %s, wanted %s; nothing was added", ErrDigest, got, opts.ArchiveDigest)
			}
			if _, err := f.Seek(0, io.SeekStart); err != nil {
				return err
			}
		}
		return unpack(ctx, st, f, opts.MaxSize)
	})
}

// unpack takes etcd, etcdctl and etcdutl from a gzipped tar archive. Links, devices
// and paths that lead elsewhere condemn the whole archive: upstream's have none.
func unpack(ctx context.Context, st *stage, r io.Reader, maxSize int64) error {
	zipped, err := gzip.NewReader(bufio.NewReaderSize(r, chunk))
	if err != nil {
		return fmt.Errorf("%w: not a .tar.gz archive: %w", ErrUnsuitable, err)
	}
	bounded := limit(zipped, maxSize)
	archive := tar.NewReader(bounded)
	for {
		head, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: read the archive: %w", ErrUnsuitable, err)
		}
		if err := safeEntry(head); err != nil {
			return err
		}
		name := path.Base(head.Name)
		wanted := name == executable || slices.Contains(tools, name)
		// In upstream's archives they stand in one directory at the top.
		if head.Typeflag != tar.TypeReg || !wanted || strings.Count(path.Clean(head.Name), "/") > 1 {
			continue
		}
		if err := st.put(ctx, name, archive, maxSize); err != nil {
			return err
		}
	}
	// Up to the end, so that a checksum that doesn't match is seen.
	if err := copyContext(ctx, io.Discard, bounded); err != nil {
		return fmt.Errorf("%w: read the archive: %w", ErrUnsuitable, err)
	}
	return nil
}

func safeEntry(head *tar.Header) error {
	switch head.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeXGlobalHeader:
	default:
		return fmt.Errorf("%w: %q in the archive is neither a file nor a directory", ErrUnsuitable, head.Name)
	}
	if path.IsAbs(head.Name) || slices.Contains(strings.Split(head.Name, "/"), "..") || strings.ContainsAny(head.Name, "\\\x00") {
		return fmt.Errorf("%w: %q in the archive leads out of it", ErrUnsuitable, head.Name)
	}
	return nil
}
