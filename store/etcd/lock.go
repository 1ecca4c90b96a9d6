package etcd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lockFile is held by the process that has a data directory open. It stands beside
// the directory, so that it holds while the directory is restored and renamed.
type lockFile struct {
	file *os.File
}

// lock takes the lock of a data directory. ErrInUse, with the holder's pid.
func lock(dir string) (*lockFile, error) {
	path := dir + ".lock"
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // the caller names its own directory
	if err != nil {
		return nil, fmt.Errorf("lock the store: %w", err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		holder, _ := io.ReadAll(io.LimitReader(file, 32)) // only to help: the lock itself has said no
		return nil, errors.Join(inUse(dir, strings.TrimSpace(string(holder))), file.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
	}
	l := &lockFile{file: file}
	if err := errors.Join(file.Truncate(0), writePID(file)); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), l.release())
	}
	return l, nil
}

func inUse(dir, pid string) error {
	if pid == "" {
		return fmt.Errorf("the data directory %s is %w: stop that one first, or give another directory", dir, ErrInUse)
	}
	return fmt.Errorf("the data directory %s is %w (pid %s): stop that one first, or give another directory", dir, ErrInUse, pid)
}

func writePID(file *os.File) error {
	_, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// release lets another process have the directory. The file stays: removing it
// would let two processes lock two files of one name.
func (l *lockFile) release() error {
	return l.file.Close()
}
