package app

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/internal/version"
	"github.com/quorate/quorate/release"
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

// executable is the path of a release's etcd.
func (c catalog) executable(ctx context.Context, digest string) (string, error) {
	return c.Path(ctx, digest)
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
