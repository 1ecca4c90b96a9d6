package cli

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	storeetcd "github.com/quorate/quorate/store/etcd"
)

// Names in a backup of the store.
const (
	backupManifest = "manifest.json"
	backupDatabase = "store.db"
)

// maxManifest bounds a manifest, in bytes.
const maxManifest = 1 << 20

var errBackup = errors.New("the backup is not whole")

// saveBackup writes a backup beside its place, checks it, and renames it there.
func saveBackup(file string, from io.ReadCloser) (m storeetcd.Manifest, err error) {
	defer func() { err = errors.Join(err, from.Close()) }()
	dir := filepath.Dir(file)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(file)+".*.partial") // made for its owner alone
	if err != nil {
		return m, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	_, err = io.Copy(tmp, from)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return m, err
	}
	if m, err = checkBackup(tmp.Name()); err != nil {
		return m, err
	}
	if err = os.Rename(tmp.Name(), file); err != nil {
		return m, err
	}
	return m, syncDir(dir)
}

// passBackup copies a backup and checks it as it goes by.
func passBackup(to io.Writer, from io.ReadCloser) (m storeetcd.Manifest, err error) {
	defer func() { err = errors.Join(err, from.Close()) }()
	through := io.TeeReader(from, to)
	if m, err = verifyBackup(through); err != nil {
		return m, err
	}
	// What pads the archive's end belongs to it too.
	_, err = io.Copy(io.Discard, through)
	return m, err
}

func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // where a person wants the file
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// checkBackup reads a backup to its end and compares it with its manifest.
func checkBackup(file string) (m storeetcd.Manifest, err error) {
	f, err := os.Open(file) //nolint:gosec // the file that a person named
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if m, err = verifyBackup(f); err != nil {
		return m, fmt.Errorf("%s: %w: take another backup", file, err)
	}
	return m, nil
}

func verifyBackup(r io.Reader) (m storeetcd.Manifest, err error) {
	var sum string
	var size int64
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return m, fmt.Errorf("%w: %w", errBackup, err)
		}
		switch h.Name {
		case backupManifest:
			if err = json.NewDecoder(io.LimitReader(archive, maxManifest)).Decode(&m); err != nil {
				return m, fmt.Errorf("%w: its manifest: %w", errBackup, err)
			}
		case backupDatabase:
			hash := sha256.New()
			if size, err = io.Copy(hash, archive); err != nil { //nolint:gosec // it is hashed, not kept, and tar does not compress
				return m, fmt.Errorf("%w: %w", errBackup, err)
			}
			sum = hex.EncodeToString(hash.Sum(nil))
		}
	}
	switch {
	case m.SHA256 == "":
		return m, fmt.Errorf("%w: it has no manifest", errBackup)
	case sum != m.SHA256 || size != m.Size:
		return m, fmt.Errorf("%w: its database has %d bytes with SHA-256 %s, and the manifest says %d and %s", errBackup, size, sum, m.Size, m.SHA256)
	}
	return m, nil
}
