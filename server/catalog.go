package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/quorate/quorate/release"
	"github.com/quorate/quorate/store/remote/wire"
)

// Catalog serves the releases of a release.Catalog. Spool is a directory for
// uploads on their way; empty means the system's for temporary files.
type Catalog struct {
	Releases *release.Catalog
	Spool    string
}

var _ Releases = (*Catalog)(nil)

// List implements Releases.
func (c *Catalog) List(context.Context) ([]wire.Release, error) {
	list, err := c.Releases.List()
	if err != nil {
		return nil, err
	}
	out := make([]wire.Release, len(list))
	for i, r := range list {
		out[i] = wireRelease(r)
	}
	return out, nil
}

// Open implements Releases.
func (c *Catalog) Open(ctx context.Context, digest string) (io.ReadCloser, int64, error) {
	f, _, err := c.Releases.OpenExecutable(ctx, digest)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("release %s: %w", digest, err), f.Close())
	}
	return f, info.Size(), nil
}

// Add implements Releases. The archive is spooled first: nothing is unpacked before
// its digest is known.
func (c *Catalog) Add(ctx context.Context, archive io.Reader, version, sha256 string) (_ wire.Release, err error) {
	dir, err := os.MkdirTemp(c.Spool, "quorate-upload-")
	if err != nil {
		return wire.Release{}, fmt.Errorf("take the upload: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }() //nolint:gosec // it was just made here
	path := filepath.Join(dir, "etcd.tar.gz")
	if err = spool(path, archive); err != nil {
		return wire.Release{}, err
	}
	r, err := c.Releases.AddArchive(ctx, path, release.AddOptions{Version: version, ArchiveDigest: sha256, Source: "uploaded"})
	if err != nil {
		return wire.Release{}, err
	}
	return wireRelease(r), nil
}

func spool(path string, from io.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // within a directory just made
	if err != nil {
		return fmt.Errorf("take the upload: %w", err)
	}
	_, err = io.Copy(f, from)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("take the upload: %w", err)
	}
	return nil
}

func wireRelease(r release.Release) wire.Release {
	return wire.Release{Version: r.Version, Digest: r.Digest, Platform: r.Platform, Source: r.Source, Added: r.Added}
}
