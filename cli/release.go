package cli

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/release"
	"github.com/quorate/quorate/store/remote"
)

func releaseCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "release",
		Short: "List and add the etcd releases that clusters can run",
		Long: `The server keeps etcd releases by version and by the SHA-256 of the etcd
executable. Members are pinned to a digest, and fetch what they need from it.`,
		Example: `  quorate release list
  quorate release add etcd-v3.6.16-linux-amd64.tar.gz`,
		Args: cobra.ArbitraryArgs,
		RunE: runGroup,
	}
	cmd.AddCommand(releaseListCommand(e), releaseAddCommand(e))
	return cmd
}

func releaseListCommand(e *env) *cobra.Command {
	var output string
	forms := []string{outTable, outJSON, outYAML}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the etcd releases that the server has",
		Long:  `List the etcd releases that the server has, newest version first.`,
		Example: `  quorate release list
  quorate release list -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(cmd, output, forms...); err != nil {
				return err
			}
			c, err := e.connect()
			if err != nil {
				return err
			}
			ctx, cancel := call(cmd.Context())
			defer cancel()
			list, err := c.Releases(ctx)
			if err != nil {
				return err
			}
			if output != outTable {
				return e.printValue(output, list)
			}
			g := grid{header: []string{"version", "platform", "digest", "added", "source"}}
			for _, r := range list {
				g.add(r.Version, r.Platform, r.Digest, age(r.Added, time.Now()), r.Source)
			}
			return g.write(e.Out, 0)
		},
	}
	outputFlag(cmd, &output, forms...)
	return cmd
}

type releaseAddOptions struct {
	version string
	sha256  string
	dryRun  bool
}

func releaseAddCommand(e *env) *cobra.Command {
	var o releaseAddOptions
	cmd := &cobra.Command{
		Use:   "add FILE|DIRECTORY|URL",
		Short: "Give the server another etcd release",
		Long: `Give the server an etcd release: an archive as upstream publishes it, a directory
with the executables, a single etcd executable, or an archive on a mirror. A mirror
needs --sha256, unless a file SHA256SUMS lies beside the archive.

The release is checked here first: its etcd is run to ask for its version.`,
		Example: `  quorate release add etcd-v3.6.16-linux-amd64.tar.gz --sha256 <64 hex digits>
  quorate release add /opt/etcd/bin --version 3.5.35 --dry-run
  quorate release add https://mirror.example.com/etcd/v3.6.16/etcd-v3.6.16-linux-amd64.tar.gz`,
		Args: argsBetween(1, 1, "FILE, DIRECTORY or URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.sha256 = strings.TrimPrefix(strings.ToLower(o.sha256), "sha256:"); o.sha256 != "" && !hexDigest.MatchString(o.sha256) {
				return usagef(cmd, "--sha256 is %q: give 64 hex digits", o.sha256)
			}
			return e.addRelease(cmd.Context(), args[0], o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.version, "version", "", "version that it must be")
	f.StringVar(&o.sha256, "sha256", "", "SHA-256 that the archive must have; of a directory or executable: the etcd in it")
	f.BoolVar(&o.dryRun, "dry-run", false, "only check it here, and say what would be added")
	return cmd
}

var hexDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)

func (e *env) addRelease(ctx context.Context, from string, o releaseAddOptions) (err error) {
	log, err := e.logger(slog.LevelWarn, e.Err)
	if err != nil {
		return err
	}
	var c *remote.Client
	if !o.dryRun {
		if c, err = e.connect(); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "quorate-release-")
	if err != nil {
		return fmt.Errorf("add a release: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	catalog, err := release.Open(dir, release.Options{Logger: log})
	if err != nil {
		return err
	}
	done := e.slowly("checking the release in " + from)
	r, err := checkRelease(ctx, catalog, from, o)
	done()
	if err != nil {
		return err
	}
	if o.dryRun {
		e.printf("etcd %s (%s, %s) would be added (dry run)\n", r.Version, r.Platform, r.Digest)
		return nil
	}
	done = e.slowly("sending etcd " + r.Version + " to the server")
	added, err := uploadRelease(ctx, c, catalog, r)
	done()
	if err != nil {
		return fmt.Errorf("add etcd %s: %w", r.Version, err)
	}
	e.printf("etcd %s (%s, %s) added\n", added.Version, added.Platform, added.Digest)
	return nil
}

// checkRelease adds a release to a catalog of its own, which runs all checks.
func checkRelease(ctx context.Context, catalog *release.Catalog, from string, o releaseAddOptions) (release.Release, error) {
	opts := release.AddOptions{Version: o.version, ArchiveDigest: o.sha256}
	if scheme, _, ok := strings.Cut(from, "://"); ok && scheme != "" {
		return catalog.AddURL(ctx, from, opts)
	}
	if strings.HasSuffix(from, ".tar.gz") || strings.HasSuffix(from, ".tgz") {
		return catalog.AddArchive(ctx, from, opts)
	}
	opts.ArchiveDigest = ""
	if o.sha256 != "" {
		opts.Digest = "sha256:" + o.sha256
	}
	return catalog.AddDirectory(ctx, from, opts)
}

// uploadRelease packs what was checked and sends it.
func uploadRelease(ctx context.Context, c *remote.Client, catalog *release.Catalog, r release.Release) (remote.Release, error) {
	path, err := catalog.Path(ctx, r.Digest)
	if err != nil {
		return remote.Release{}, err
	}
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(pack(writer, filepath.Dir(path))) }()
	added, err := c.UploadRelease(ctx, reader, r.Version, "")
	return added, errors.Join(err, reader.Close())
}

// pack writes the executables of a directory as upstream does.
func pack(w io.Writer, dir string) error {
	zip, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(zip)
	for _, name := range []string{nameEtcd, nameEtcdctl, nameEtcdutl} {
		if err := packFile(archive, filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return errors.Join(archive.Close(), zip.Close())
}

func packFile(archive *tar.Writer, path string) (err error) {
	f, err := os.Open(path) //nolint:gosec // in a directory of our own
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	err = archive.WriteHeader(&tar.Header{Name: "etcd/" + filepath.Base(path), Mode: 0o755, Size: info.Size(), Typeflag: tar.TypeReg, ModTime: info.ModTime()})
	if err != nil {
		return err
	}
	_, err = io.Copy(archive, f)
	return err
}
