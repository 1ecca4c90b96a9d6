package release

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
)

const (
	sumsFile    = "SHA256SUMS"
	maxSumsSize = 1 << 20
)

// AddURL adds the release in an archive on a mirror: http, https or file. Its
// SHA-256 must be known: from opts.ArchiveDigest, or from a file SHA256SUMS that
// lies beside it.
func (c *Catalog) AddURL(ctx context.Context, rawURL string, opts AddOptions) (_ Release, err error) {
	if err = opts.complete(); err != nil {
		return Release{}, err
	}
	from, err := url.Parse(rawURL)
	if err != nil {
		return Release{}, fmt.Errorf("add a release: %w", redactedError(err))
	}
	source := from.Redacted()
	ctx, cancel := context.WithTimeout(ctx, opts.Timeout)
	defer cancel()
	if opts.ArchiveDigest == "" {
		opts.ArchiveDigest, err = mirrorDigest(ctx, from)
		if err != nil {
			return Release{}, fmt.Errorf("add a release from %s: %w", source, err)
		}
	}
	f, err := os.CreateTemp(c.dir, stagePrefix)
	if err != nil {
		return Release{}, fmt.Errorf("add a release from %s: %w", source, err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	if err := download(ctx, from, f, opts.MaxSize); err != nil {
		return Release{}, fmt.Errorf("add a release from %s: %w", source, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return Release{}, fmt.Errorf("add a release from %s: %w", source, err)
	}
	return c.addArchive(ctx, source, f, opts)
}

// mirrorDigest finds the archive's digest in the SHA256SUMS beside it.
func mirrorDigest(ctx context.Context, archive *url.URL) (string, error) {
	sums := *archive
	sums.Path, sums.RawPath = path.Join(path.Dir(archive.Path), sumsFile), ""
	var text bytes.Buffer
	if err := download(ctx, &sums, &text, maxSumsSize); err != nil {
		return "", fmt.Errorf("%w: give the SHA-256 of the archive, or put a file %s beside it: %w", ErrDigest, sumsFile, err)
	}
	name := path.Base(archive.Path)
	for lines := bufio.NewScanner(&text); lines.Scan(); {
		// "<hex>  <name>", the name with a star where it was read as binary.
		fields := strings.Fields(lines.Text())
		if len(fields) == 2 && strings.TrimPrefix(strings.TrimPrefix(fields[1], "*"), "./") == name {
			return normalDigest(sumsFile, fields[0])
		}
	}
	return "", fmt.Errorf("%w: %s names no %s; give the SHA-256 of the archive", ErrDigest, sums.Redacted(), name)
}

func download(ctx context.Context, from *url.URL, w io.Writer, maxSize int64) error {
	body, err := fetch(ctx, from)
	if err != nil {
		return redactedError(err)
	}
	defer func() { _ = body.Close() }() // only read
	if err := copyContext(ctx, w, limit(body, maxSize)); err != nil {
		return fmt.Errorf("download: %w", err)
	}
	return nil
}

func fetch(ctx context.Context, from *url.URL) (io.ReadCloser, error) {
	switch from.Scheme {
	case "file":
		return os.Open(filepath.FromSlash(from.Path)) //nolint:gosec // a person names the mirror
	case "http", "https":
	default:
		return nil, fmt.Errorf("%w: scheme %q; use http, https or file", ErrUnsuitable, from.Scheme)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("%s answers %s", from.Redacted(), resp.Status), resp.Body.Close())
	}
	return resp.Body, nil
}

// redactedError drops the URL from an error, since it may hold a password. The
// caller names the URL without it.
func redactedError(err error) error {
	if uerr, ok := errors.AsType[*url.Error](err); ok {
		return uerr.Err
	}
	return err
}
