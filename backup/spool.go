package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/bytesize"
)

// Names in a spool directory.
const (
	spoolPrefix = "quorate-spool-"
	spoolLock   = "lock"
	spoolFile   = "snapshot.db"
)

// spoolMaking is how long at most a spool is being made: one that has no file by then
// belongs to nobody.
const spoolMaking = time.Hour

// spoolCheck is how many bytes are written between two looks at the disk.
const spoolCheck = 8 << 20

var (
	// ErrSpoolFull says that the spool's disk has less room than the backup needs.
	ErrSpoolFull = errors.New("the spool's disk is full")
	errSpoolOver = errors.New("the spool is closed")
)

// Spool is a directory of one backup, made for its owner alone, and the file in it
// that the snapshot goes to. Why a file: what the stores take slowly would hold the
// member's read transaction and make its database grow. Readers may follow the
// writer. A process that is killed leaves a directory whose lock is free, which the
// next one sweeps.
type Spool struct {
	dir   string
	lock  *os.File
	file  *os.File
	floor int64

	mu      sync.Mutex
	grown   *sync.Cond
	written int64
	looked  int64
	done    bool
	failed  error
}

// NewSpool makes a spool below dir, after it has swept what dead processes left
// there. Floor is how many bytes stay free on its disk; need is how large the
// snapshot is expected to be. The error is ErrSpoolFull where they don't fit.
func NewSpool(dir string, floor, need int64) (_ *Spool, err error) {
	if err = os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	if err = SweepSpools(dir); err != nil {
		return nil, err
	}
	free, err := freeBytes(dir)
	if err != nil {
		return nil, err
	}
	if free-need < floor {
		return nil, fmt.Errorf("%s: %w: %s are needed, %s are free and %s stay free: name another disk with --spool-dir",
			dir, ErrSpoolFull, bytesize.Text(need), bytesize.Text(free), bytesize.Text(floor))
	}
	own, err := os.MkdirTemp(dir, spoolPrefix)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	s := &Spool{dir: own, floor: floor}
	s.grown = sync.NewCond(&s.mu)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.lock, err = os.OpenFile(filepath.Join(own, spoolLock), os.O_RDWR|os.O_CREATE, 0o600); err != nil { //nolint:gosec // our own directory
		return nil, fmt.Errorf("spool: %w", err)
	}
	if err = unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("lock the spool %s: %w", own, err)
	}
	if s.file, err = os.OpenFile(s.Path(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	return s, nil
}

// Path of the spooled file.
func (s *Spool) Path() string { return filepath.Join(s.dir, spoolFile) }

// Dir is the spool's own directory.
func (s *Spool) Dir() string { return s.dir }

// Size is how much was written so far.
func (s *Spool) Size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.written
}

// Write appends to the spooled file and wakes its readers.
func (s *Spool) Write(p []byte) (int, error) {
	if s.looked <= 0 {
		free, err := freeBytes(s.dir)
		if err == nil && free < s.floor {
			err = fmt.Errorf("%s: %w: %s are free and %s stay free: name another disk with --spool-dir", s.dir, ErrSpoolFull, bytesize.Text(free), bytesize.Text(s.floor))
		}
		if err != nil {
			return 0, err
		}
		s.looked = spoolCheck
	}
	n, err := s.file.Write(p)
	s.looked -= int64(n)
	if errors.Is(err, unix.ENOSPC) {
		err = fmt.Errorf("%s: %w: %w", s.dir, ErrSpoolFull, err)
	}
	s.mu.Lock()
	s.written += int64(n)
	s.mu.Unlock()
	s.grown.Broadcast()
	return n, err
}

// End says that the snapshot is whole, or why it is not: readers then see its end,
// or that error.
func (s *Spool) End(cause error) {
	s.mu.Lock()
	if !s.done {
		s.done, s.failed = true, cause
	}
	s.mu.Unlock()
	s.grown.Broadcast()
}

// Close ends all readers and removes the spool.
func (s *Spool) Close() error {
	s.End(errSpoolOver)
	var errs []error
	for _, f := range []*os.File{s.file, s.lock} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// Follow opens the spooled file from its beginning; reads wait for the writer until
// ctx ends.
func (s *Spool) Follow(ctx context.Context) (io.ReadCloser, error) {
	f, err := os.Open(s.Path())
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	wake := func() {
		// Under the lock: a reader between its look at ctx and its wait would miss it.
		s.mu.Lock()
		defer s.mu.Unlock()
		s.grown.Broadcast()
	}
	return &follower{spool: s, file: f, ctx: ctx, stop: context.AfterFunc(ctx, wake)}, nil
}

type follower struct {
	spool *Spool
	file  *os.File
	at    int64
	ctx   context.Context //nolint:containedctx // it bounds each Read, which has no room for one
	stop  func() bool
}

func (f *follower) Read(p []byte) (int, error) {
	s := f.spool
	s.mu.Lock()
	for s.written <= f.at && !s.done && f.ctx.Err() == nil {
		s.grown.Wait()
	}
	written, failed := s.written, s.failed
	s.mu.Unlock()
	switch {
	case f.ctx.Err() != nil:
		return 0, context.Cause(f.ctx)
	case failed != nil:
		return 0, failed
	case written <= f.at:
		return 0, io.EOF
	}
	n, err := f.file.Read(p[:min(int64(len(p)), written-f.at)])
	f.at += int64(n)
	return n, err
}

func (f *follower) Close() error {
	f.stop()
	return f.file.Close()
}

// SweepSpools removes the spools below dir whose process is gone.
func SweepSpools(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep spools: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), spoolPrefix) {
			errs = append(errs, sweepSpool(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// sweepSpool leaves a young directory without a spooled file alone, lock and all: it is
// being made, and whoever makes it is about to lock it.
func sweepSpool(dir string) error {
	_, err := os.Lstat(filepath.Join(dir, spoolFile))
	if made, dirErr := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		switch {
		case errors.Is(dirErr, fs.ErrNotExist), dirErr == nil && time.Since(made.ModTime()) < spoolMaking:
			return nil
		case dirErr != nil:
			return fmt.Errorf("sweep spools: %w", dirErr)
		}
	}
	lock, err := os.OpenFile(filepath.Join(dir, spoolLock), os.O_RDWR, 0) //nolint:gosec // below our own directory
	if errors.Is(err, fs.ErrNotExist) {
		return os.RemoveAll(dir) // its process died before it could lock it
	}
	if err != nil {
		return fmt.Errorf("sweep spools: %w", err)
	}
	defer lock.Close() //nolint:errcheck // nothing was written
	if err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil // its process lives
	}
	return os.RemoveAll(dir)
}

// freeBytes is what others than root may still write below dir.
func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil //nolint:gosec // disks are smaller than 8 EiB
}
