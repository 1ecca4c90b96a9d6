// Package logfile reads a log across the rotations that its writer makes: the
// file name.ext is renamed to name-<time>.ext, and a new name.ext begun.
package logfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// backupTime is how lumberjack, and so etcd, names rotated files.
const backupTime = "2006-01-02T15-04-05.000"

// Cursor is a position in a log that outlives rotation. The zero Cursor is the
// beginning of the current file.
type Cursor struct {
	// Inode of the file; 0 for the current one.
	Inode uint64 `json:"inode"`
	// Offset in bytes.
	Offset int64 `json:"offset"`
}

// Files lists the files that hold the log at path, oldest first, ending with path
// itself. Files that do not exist are left out.
func Files(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the files of log %s: %w", path, err)
	}
	base := filepath.Base(path)
	ext := filepath.Ext(base)
	prefix := strings.TrimSuffix(base, ext) + "-"
	var files []string
	current := false
	for _, e := range entries {
		if e.Name() == base {
			current = true
			continue
		}
		stamp, ok := strings.CutPrefix(e.Name(), prefix)
		if !ok {
			continue
		}
		if stamp, ok = strings.CutSuffix(stamp, ext); !ok {
			continue
		}
		// Another log's name may begin alike: only a time makes it a backup.
		if _, err := time.Parse(backupTime, stamp); err == nil {
			files = append(files, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	slices.Sort(files)
	if current {
		files = append(files, path)
	}
	return files, nil
}

// Reader reads a log forward. It is not safe for concurrent use.
type Reader struct {
	path string
	at   Cursor
	file *os.File
}

// NewReader begins at the cursor. If the cursor's file is gone by rotation, the
// oldest one that is left comes first.
func NewReader(path string, at Cursor) *Reader { return &Reader{path: path, at: at} }

// Cursor is the position after what was last read.
func (r *Reader) Cursor() Cursor { return r.at }

// Close closes the file that is open.
func (r *Reader) Close() error {
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	return err
}

// Read reads on, over into newer files. At the end of the newest it returns
// io.EOF; it may be called again, and goes on when the log has grown.
func (r *Reader) Read(p []byte) (int, error) {
	for {
		if r.file == nil {
			if err := r.open(); err != nil {
				return 0, err
			}
		}
		n, err := r.file.Read(p)
		if n > 0 {
			r.at.Offset += int64(n)
			return n, nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, fmt.Errorf("read log %s: %w", r.path, err)
		}
		moved, err := r.next()
		if err != nil {
			return 0, err
		}
		if !moved {
			return 0, io.EOF
		}
	}
}

// open opens the file that the cursor names.
func (r *Reader) open() error {
	files, err := Files(r.path)
	if err != nil {
		return err
	}
	if r.at.Inode == 0 {
		return r.openAt(r.path, r.at.Offset)
	}
	for _, name := range files {
		if inode, _, err := stat(name); err == nil && inode == r.at.Inode {
			return r.openAt(name, r.at.Offset)
		}
	}
	if len(files) == 0 {
		return io.EOF
	}
	return r.openAt(files[0], 0)
}

func (r *Reader) openAt(name string, offset int64) error {
	f, err := os.Open(name) //nolint:gosec // a log file of the member
	if errors.Is(err, fs.ErrNotExist) {
		return io.EOF
	}
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open log: %w", err), f.Close())
	}
	if offset > info.Size() {
		offset = 0 // truncated under us, or another file with the same inode
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return errors.Join(fmt.Errorf("open log: %w", err), f.Close())
	}
	r.file, r.at = f, Cursor{Inode: inodeOf(info), Offset: offset}
	return nil
}

// next moves on from a file that has been read to its end, and reports whether
// there may be more to read.
func (r *Reader) next() (bool, error) {
	inode, size, err := stat(r.path)
	if err == nil && inode == r.at.Inode {
		if size < r.at.Offset {
			return true, r.reopen(r.path)
		}
		return false, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("read log: %w", err)
	}
	// Rotated. The writer may have added lines before it did: look once more.
	if info, statErr := r.file.Stat(); statErr == nil && info.Size() > r.at.Offset {
		return true, nil
	}
	files, err := Files(r.path)
	if err != nil || len(files) == 0 {
		return false, err
	}
	following := 0
	for i, name := range files {
		if inode, _, err := stat(name); err == nil && inode == r.at.Inode {
			following = i + 1
		}
	}
	if following == len(files) {
		return false, nil // renamed, and the new file not yet begun
	}
	return true, r.reopen(files[following])
}

func (r *Reader) reopen(name string) error {
	if err := r.Close(); err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	return r.openAt(name, 0)
}

func stat(name string) (inode uint64, size int64, err error) {
	info, err := os.Stat(name)
	if err != nil {
		return 0, 0, err
	}
	return inodeOf(info), info.Size(), nil
}

func inodeOf(info fs.FileInfo) uint64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Ino
	}
	return 0
}
