package datadir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/atomicfile"
)

const (
	retiredMark   = ".retired-"
	retiredRecord = ".json"
	timestamp     = "20060102T150405Z"
	forever       = "forever"
	// maxNames bounds the search for a name that is free.
	maxNames = 1000
)

// Retirement is why a directory is renamed aside and how long it is kept.
type Retirement struct {
	// Reason in words.
	Reason string
	// KeepFor is how long Collect leaves it alone; 0 or less means for ever.
	KeepFor time.Duration
}

// retired is the file beside a retired directory, named like it with ".json".
type retired struct {
	// Directory is its name within the same parent.
	Directory string    `json:"directory"`
	From      string    `json:"from"`
	At        time.Time `json:"at"`
	Reason    string    `json:"reason"`
	// KeepUntil is a time in RFC 3339, or "forever".
	KeepUntil string `json:"keepUntil"`
}

// Retire renames the directory at path to into/<its name>.retired-<time> and
// returns where it went. It copies and deletes nothing: path and into must be on
// one file system. Why stands in a file beside it. Retiring what is gone already
// returns an empty path and no error. ErrRetire when it is not a directory.
func Retire(path string, now time.Time, into string, why Retirement) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("retire: %w", err)
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("retire: %w", err)
	case !info.IsDir():
		return "", fmt.Errorf("%s: %w: it is not a directory; name the directory itself, not a link to it", path, ErrRetire)
	}
	if err := os.MkdirAll(into, 0o700); err != nil {
		return "", fmt.Errorf("retire %s: %w", path, err)
	}
	record := retired{From: path, At: now.UTC(), Reason: why.Reason, KeepUntil: forever}
	if why.KeepFor > 0 {
		record.KeepUntil = now.Add(why.KeepFor).UTC().Format(time.RFC3339)
	}
	stem := filepath.Base(path) + retiredMark + now.UTC().Format(timestamp)
	for i := range maxNames {
		record.Directory = stem
		if i > 0 {
			record.Directory = fmt.Sprintf("%s-%d", stem, i)
		}
		target, err := retireAs(path, into, record)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		return target, err
	}
	return "", fmt.Errorf("%s: %w: %s holds %d directories of that name and second", path, ErrRetire, into, maxNames)
}

// retireAs writes the record first. Why: a record of a directory that was not
// renamed says nothing wrong, whereas a renamed directory without one would be
// kept without a word of where it came from.
func retireAs(path, into string, record retired) (string, error) {
	target := filepath.Join(into, record.Directory)
	for _, taken := range []string{target, target + retiredRecord} {
		_, err := os.Lstat(taken)
		switch {
		case err == nil:
			return "", fs.ErrExist
		case !errors.Is(err, fs.ErrNotExist):
			return "", fmt.Errorf("retire %s: %w", path, err)
		}
	}
	raw, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		return "", fmt.Errorf("retire %s: %w", path, err)
	}
	if err := atomicfile.Write(target+retiredRecord, append(raw, '\n'), 0o600); err != nil {
		return "", fmt.Errorf("retire %s: %w", path, err)
	}
	if err := renameNew(path, target); err != nil {
		err = errors.Join(err, os.Remove(target+retiredRecord))
		if errors.Is(err, unix.EXDEV) {
			return "", fmt.Errorf("%s: %w: %s is on another file system, and data is never copied to retire it; keep both on one", path, ErrRetire, into)
		}
		return "", fmt.Errorf("retire %s: %w", path, err)
	}
	return target, errors.Join(atomicfile.SyncDir(filepath.Dir(path)), atomicfile.SyncDir(into))
}

// renameNew renames without replacing anything.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		// The file system can't: the caller has seen that the name was free.
		return os.Rename(from, to)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// Collect removes the retired directories in into whose time is over at now, and
// returns their paths. It removes only what a valid record beside it names, and
// follows no symbolic link. A missing into holds nothing. What could not be
// removed is left for the next time and reported in the error.
func Collect(into string, now time.Time) ([]string, error) {
	root, err := os.OpenRoot(into)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("collect: %w", err)
	}
	defer func() { _ = root.Close() }() // read-only handle
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("collect: %w", err)
	}
	var removed []string
	var errs []error
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), retiredRecord)
		if !ok || !e.Type().IsRegular() || !due(root, name, now) {
			continue
		}
		gone, err := collectOne(root, name)
		if err != nil {
			errs = append(errs, fmt.Errorf("collect %s: %w", filepath.Join(into, name), err))
		}
		if gone {
			removed = append(removed, filepath.Join(into, name))
		}
	}
	if len(removed) > 0 {
		errs = append(errs, atomicfile.SyncDir(into))
	}
	return removed, errors.Join(errs...)
}

// due reports whether the record of name is valid, names it, and its time is over.
func due(root *os.Root, name string, now time.Time) bool {
	if !strings.Contains(name, retiredMark) {
		return false
	}
	raw, err := root.ReadFile(name + retiredRecord)
	if err != nil {
		return false
	}
	var record retired
	if json.Unmarshal(raw, &record) != nil || record.Directory != name || record.At.IsZero() {
		return false
	}
	until, err := time.Parse(time.RFC3339, record.KeepUntil)
	return err == nil && !until.Before(record.At.Truncate(time.Second)) && now.After(until)
}

// collectOne removes the directory, then its record, so that a removal that was
// interrupted is finished the next time.
func collectOne(root *os.Root, name string) (gone bool, err error) {
	info, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, root.Remove(name + retiredRecord)
	case err != nil:
		return false, err
	case !info.IsDir():
		return false, fmt.Errorf("%w: it is not a directory any more; look at it and remove it by hand", ErrRetire)
	}
	if err := root.RemoveAll(name); err != nil {
		return false, err
	}
	return true, root.Remove(name + retiredRecord)
}
