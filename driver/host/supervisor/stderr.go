package supervisor

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	stderrMax  = 1 << 20
	stderrKeep = 2
)

// openStderr opens the file that a crash of etcd prints to, rotated when large.
// It is only ever appended to, so that what the last crash said stays.
func openStderr(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("make the log directory: %w; set logging.errorDir to one that can be written", err)
	}
	if err := RotatePlain(path, stderrMax, stderrKeep); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640) //nolint:gosec // logs may be read by the group
	if err != nil {
		return nil, fmt.Errorf("open etcd's stderr: %w; set logging.errorDir to a directory that can be written", err)
	}
	return f, nil
}

// RotatePlain renames path to path.1, path.1 to path.2 and so on up to keep, if
// path is larger than limit bytes.
func RotatePlain(path string, limit int64, keep int) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() <= limit {
		return nil
	}
	if err != nil {
		return fmt.Errorf("rotate %s: %w", path, err)
	}
	for i := keep; i >= 1; i-- {
		from := path
		if i > 1 {
			from = fmt.Sprintf("%s.%d", path, i-1)
		}
		if err := os.Rename(from, fmt.Sprintf("%s.%d", path, i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("rotate %s: %w", path, err)
		}
	}
	return nil
}

// readFrom returns what was appended to a file since offset, at most its last
// limit bytes.
func readFrom(path string, offset, limit int64) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // a log file of the member
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	offset = max(offset, info.Size()-limit)
	return io.ReadAll(io.NewSectionReader(f, offset, info.Size()-offset))
}
