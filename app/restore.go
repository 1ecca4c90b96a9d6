package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	storeetcd "github.com/quorate/quorate/store/etcd"
)

// ServerRestoreOptions say what the store is restored from.
type ServerRestoreOptions struct {
	// DataDir of the server.
	DataDir string
	// Archive that `quorate server backup` wrote.
	Archive string
	// SealingKeyFile that opens its Secrets, where server/sealing.key in DataDir does
	// not; its keys are added to those there.
	SealingKeyFile string
	Logger         *slog.Logger
}

// Restored is what a restore found, with the directory it moved aside.
type Restored struct {
	storeetcd.Restored
	// Aside is where the damaged store went, or empty where there was none.
	Aside string
}

// RestoreServer puts the fleet's store back from a backup. A store that is there
// is moved aside, never removed. No server may be running.
func RestoreServer(ctx context.Context, opts ServerRestoreOptions) (Restored, error) {
	p := paths(opts.DataDir)
	var out Restored
	if up, err := readUp(p); err == nil && up.Process.Alive() {
		return out, fmt.Errorf("`quorate up` runs on %s with pid %d: stop it first", opts.DataDir, up.Process.PID)
	}
	f, err := os.Open(opts.Archive)
	if err != nil {
		return out, fmt.Errorf("restore the server: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	if err = os.MkdirAll(p.server(), 0o700); err != nil {
		return out, fmt.Errorf("restore the server: %w", err)
	}
	if err = unused(p.store() + ".lock"); err != nil {
		return out, err
	}
	entries, err := os.ReadDir(p.store())
	if err == nil && len(entries) > 0 {
		out.Aside = p.store() + ".before-restore-" + time.Now().UTC().Format("20060102T150405Z")
		if err = os.Rename(p.store(), out.Aside); err != nil {
			return out, fmt.Errorf("move the old store aside: %w", err)
		}
	}
	if err = useKeys(p, opts.SealingKeyFile); err == nil {
		out.Restored, err = storeetcd.Restore(ctx, storeetcd.RestoreOptions{
			Archive: f, Dir: p.store(), MarkerFile: p.marker(), Keyring: p.sealingKey(), Logger: opts.Logger,
		})
	}
	if errors.Is(err, storeetcd.ErrNoKey) {
		if old, _ := filepath.Glob(p.sealingKey() + ".until-*"); len(old) > 0 {
			err = fmt.Errorf("%w: keyrings of earlier times are here, try them with --sealing-key-file: %s", err, strings.Join(old, ", "))
		}
	}
	if now, readErr := os.ReadDir(p.store()); err != nil && out.Aside != "" && (readErr != nil || len(now) == 0) {
		// Nothing was restored: what was there before is better than nothing.
		if readErr == nil {
			err = errors.Join(err, os.Remove(p.store()))
		}
		return Restored{}, errors.Join(err, os.Rename(out.Aside, p.store()))
	}
	return out, err
}

// useKeys lets the server open what the keyring at file opens, which may be a copy
// from elsewhere or of an earlier time.
func useKeys(p paths, file string) error {
	if file == "" || file == p.sealingKey() {
		return nil
	}
	return storeetcd.MergeKeyring(p.sealingKey(), file)
}

// unused reports whether no server holds the lock of a store.
func unused(lock string) error {
	f, err := os.OpenFile(lock, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // below our own directory
	if err != nil {
		return fmt.Errorf("restore the server: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		err = fmt.Errorf("restore the server: %w: stop it first", storeetcd.ErrInUse)
	}
	return errors.Join(err, f.Close())
}
