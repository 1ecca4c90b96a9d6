package etcd

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/quorate/quorate/store"
)

const (
	archiveFormat = 1
	manifestName  = "manifest.json"
	databaseName  = "store.db"
	// sectorSize and the hash behind the last sector: how etcd marks a whole snapshot.
	sectorSize = 512
)

// Manifest says what a backup of the store holds.
type Manifest struct {
	// Format of the archive, 1.
	Format int `json:"format"`
	// Epoch and Revision of the store, read from the backup itself.
	Epoch    Epoch `json:"epoch"`
	Revision int64 `json:"revision"`
	// SHA256 of the database in the archive, in hex, and its size in bytes.
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
	// Created is when the backup was made.
	Created time.Time `json:"created"`
	// QuorateVersion that made it.
	QuorateVersion string `json:"quorateVersion,omitempty"`
	// ObjectCounts by plural.
	ObjectCounts map[string]int `json:"objectCounts"`
}

// Snapshot writes a backup of the store to w, as a tar archive of manifest.json and
// store.db. Secrets in it are sealed and the sealing key is not in it: keep the
// keyring's file too, elsewhere. The database is spooled to Options.SpoolDir and
// checked before anything is written to w.
func (s *Store) Snapshot(ctx context.Context, w io.Writer) (Manifest, error) {
	// A linearizable read: a member that lags behind it must not be taken for the store.
	at, err := s.Position(ctx)
	if err != nil {
		return Manifest{}, fmt.Errorf("back up the store: %w", err)
	}
	spool, err := os.CreateTemp(s.opts.SpoolDir, "quorate-store-*.db")
	if err != nil {
		return Manifest{}, fmt.Errorf("back up the store: %w", err)
	}
	m, err := s.spool(ctx, spool, at)
	if err == nil {
		err = writeArchive(w, m, spool)
	}
	if err = errors.Join(err, spool.Close(), os.Remove(spool.Name())); err != nil {
		return Manifest{}, fmt.Errorf("back up the store: %w", err)
	}
	return m, nil
}

// spool fetches the database and describes it.
func (s *Store) spool(ctx context.Context, spool *os.File, at store.Position) (Manifest, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	src, err := s.client.Snapshot(ctx)
	if err != nil {
		return Manifest{}, s.fail(err)
	}
	sum := sha256.New()
	size, err := io.Copy(io.MultiWriter(spool, sum), src)
	if err = errors.Join(err, src.Close()); err != nil {
		return Manifest{}, fmt.Errorf("fetch the database: %w", s.fail(err))
	}
	if err = checkTrailer(spool, size); err != nil {
		return Manifest{}, err
	}
	c, err := inspect(spool.Name())
	if err != nil {
		return Manifest{}, err
	}
	got := store.Position{Epoch: c.epoch.Number, EpochID: c.epoch.ID, Revision: c.revision}
	if err := got.Check(at); err != nil {
		return Manifest{}, fmt.Errorf("the member of etcd that answered lags behind: try again: %w", err)
	}
	return Manifest{
		Format: archiveFormat, Epoch: c.epoch, Revision: c.revision, SHA256: hex.EncodeToString(sum.Sum(nil)),
		Size: size, Created: s.now().UTC(), QuorateVersion: s.opts.Version, ObjectCounts: c.objects,
	}, nil
}

// checkTrailer holds a snapshot against the hash that etcd puts behind it.
func checkTrailer(file *os.File, size int64) error {
	broken := fmt.Errorf("%w: the snapshot was cut off", ErrCorrupt)
	if size%sectorSize != sha256.Size {
		return broken
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(file, 0, size-sha256.Size)); err != nil {
		return fmt.Errorf("check the snapshot: %w", err)
	}
	trailer := make([]byte, sha256.Size)
	if _, err := file.ReadAt(trailer, size-sha256.Size); err != nil {
		return fmt.Errorf("check the snapshot: %w", err)
	}
	if !bytes.Equal(trailer, sum.Sum(nil)) {
		return broken
	}
	return nil
}

func writeArchive(w io.Writer, m Manifest, db *os.File) error {
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the manifest: %w", err)
	}
	archive := tar.NewWriter(w)
	for _, file := range []struct {
		name string
		size int64
		data io.Reader
	}{
		{manifestName, int64(len(raw)), bytes.NewReader(raw)},
		{databaseName, m.Size, io.NewSectionReader(db, 0, m.Size)},
	} {
		header := &tar.Header{Name: file.name, Mode: 0o600, Size: file.size, ModTime: m.Created, Format: tar.FormatPAX}
		if err := archive.WriteHeader(header); err != nil {
			return fmt.Errorf("write the archive: %w", err)
		}
		if _, err := io.Copy(archive, file.data); err != nil {
			return fmt.Errorf("write the archive: %w", err)
		}
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	return nil
}

// readArchive writes the database of an archive to path, and checks that it is what
// the manifest says.
func readArchive(r io.Reader, path string) (Manifest, error) {
	archive := tar.NewReader(r)
	m, err := readManifest(archive)
	if err != nil {
		return m, err
	}
	header, err := archive.Next()
	if err != nil || header.Name != databaseName {
		return m, fmt.Errorf("%w: the backup holds no %s behind its manifest: use another backup", ErrCorrupt, databaseName)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // beside the caller's own directory
	if err != nil {
		return m, fmt.Errorf("unpack the backup: %w", err)
	}
	sum := sha256.New()
	size, err := io.Copy(io.MultiWriter(file, sum), io.LimitReader(archive, m.Size+1))
	if err = errors.Join(err, file.Close()); err != nil {
		return m, fmt.Errorf("unpack the backup: %w", err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); size != m.Size || got != m.SHA256 {
		return m, fmt.Errorf("%w: the database in the backup has %d bytes and SHA-256 %s, and its manifest says %d and %s: use another backup",
			ErrCorrupt, size, got, m.Size, m.SHA256)
	}
	return m, nil
}

func readManifest(archive *tar.Reader) (Manifest, error) {
	const limit = 1 << 20
	var m Manifest
	header, err := archive.Next()
	if err != nil || header.Name != manifestName {
		return m, fmt.Errorf("%w: this is no backup of a quorate store (it does not begin with %s): give a file made by `quorate server backup`", ErrCorrupt, manifestName)
	}
	if err := json.NewDecoder(io.LimitReader(archive, limit)).Decode(&m); err != nil {
		return m, fmt.Errorf("%w: the backup's %s can't be read: %w: use another backup", ErrCorrupt, manifestName, err)
	}
	if m.Format != archiveFormat {
		return m, fmt.Errorf("the backup has format %d, and this version reads %d: restore it with quorate %s", m.Format, archiveFormat, m.QuorateVersion)
	}
	return m, nil
}
