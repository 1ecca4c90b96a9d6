package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/internal/version"
	"github.com/quorate/quorate/release"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

// catalog gives the releases of a directory the shapes that others want.
type catalog struct {
	*release.Catalog
}

// openCatalog opens a directory of releases and adds the etcd that is linked into
// this binary, which is this very file under another name.
func openCatalog(ctx context.Context, dir string, opts release.Options) (catalog, error) {
	c, err := release.Open(dir, opts)
	if err != nil {
		return catalog{}, err
	}
	if _, err := c.AddBuiltin(ctx, version.Etcd(), "/proc/self/exe"); err != nil {
		return catalog{}, fmt.Errorf("unpack the built-in etcd %s: %w", version.Etcd(), err)
	}
	return catalog{c}, nil
}

// Resolve implements fleet.Releases.
func (c catalog) Resolve(version, platform string) (v1alpha1.ReleaseRef, error) {
	r, err := c.Catalog.Resolve(version, platform)
	if err != nil {
		return v1alpha1.ReleaseRef{}, err
	}
	return v1alpha1.ReleaseRef{Version: r.Version, Digest: r.Digest}, nil
}

func wireRelease(r release.Release) wire.Release {
	return wire.Release{Version: r.Version, Digest: r.Digest, Platform: r.Platform, Source: r.Source, Added: r.Added}
}

// served is the catalog as the API shows it.
type served struct{ catalog }

// List implements server.Releases.
func (s served) List(context.Context) ([]wire.Release, error) {
	list, err := s.Catalog.List()
	if err != nil {
		return nil, err
	}
	out := make([]wire.Release, 0, len(list))
	for _, r := range list {
		out = append(out, wireRelease(r))
	}
	return out, nil
}

// Open implements server.Releases.
func (s served) Open(ctx context.Context, digest string) (io.ReadCloser, int64, error) {
	path, err := s.Path(ctx, digest)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", store.ErrNotFound, err)
	}
	f, err := os.Open(path) //nolint:gosec // the catalog names its own files
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// Add implements server.Releases.
func (s served) Add(ctx context.Context, archive io.Reader, version, sha256 string) (wire.Release, error) {
	f, err := os.CreateTemp("", "quorate-release-*.tar.gz")
	if err != nil {
		return wire.Release{}, err
	}
	defer func() {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}()
	if _, err = io.Copy(f, archive); err != nil {
		return wire.Release{}, fmt.Errorf("receive the archive: %w", err)
	}
	r, err := s.AddArchive(ctx, f.Name(), release.AddOptions{Version: version, ArchiveDigest: sha256})
	if err != nil {
		return wire.Release{}, fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	return wireRelease(r), nil
}

// fetching finds releases in the host's own directory, and asks the server for
// those that are missing.
type fetching struct {
	catalog
	remote interface {
		OpenRelease(ctx context.Context, digest string) (io.ReadCloser, error)
	}
}

// Path implements the host driver's Releases.
func (f fetching) Path(ctx context.Context, ref v1alpha1.ReleaseRef) (string, error) {
	path, err := f.Catalog.Path(ctx, ref.Digest)
	if err == nil || !errors.Is(err, release.ErrNotFound) {
		return path, err
	}
	r, err := f.remote.OpenRelease(ctx, ref.Digest)
	if err != nil {
		return "", fmt.Errorf("fetch etcd %s from the server: %w", ref.Version, err)
	}
	_, err = f.AddFrom(ctx, ref.Digest, ref.Version, r)
	if closeErr := r.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return "", fmt.Errorf("fetch etcd %s from the server: %w", ref.Version, err)
	}
	return f.Catalog.Path(ctx, ref.Digest)
}
