package preflight

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/backoff"
)

// leftover begins the names of the files that are written: a process that was killed
// may have left one, which the next run removes.
const leftover = ".quorate-preflight-"

// Append writes as etcd's log does: into space that was set aside, piece by piece.
func (m *Machine) Append(ctx context.Context, dir string, l Load) (times []time.Duration, err error) {
	a := &appending{load: l}
	// Not less important than others: a thread that was made so would have to end, and
	// with it the processes that it started and that are to go with their starter.
	if err = m.bounded(ctx, func() error { return a.run(ctx, dir) }); err != nil {
		return nil, err
	}
	return a.times, nil
}

// appending is one run of Append.
type appending struct {
	load  Load
	times []time.Duration
}

func (a *appending) run(ctx context.Context, dir string) (err error) {
	dir, err = existing(dir)
	if err != nil {
		return err
	}
	sweep(dir)
	f, err := os.CreateTemp(dir, leftover+"*")
	if err != nil {
		return err
	}
	// By name, and not a nameless one: some filesystems don't sync those.
	defer func() {
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	}()
	// Not every filesystem can set space aside; where it can't, etcd does without too.
	fd, size := int(f.Fd()), int64(a.load.Count*a.load.Size)
	if err = unix.Fallocate(fd, 0, 0, size); err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
	}
	if err = f.Sync(); err != nil {
		return err
	}
	return a.pieces(ctx, f)
}

func (a *appending) pieces(ctx context.Context, f *os.File) error {
	piece := []byte(strings.Repeat("quorate preflight ", a.load.Size/18+1)[:a.load.Size])
	began := time.Now()
	for i := range a.load.Count {
		if ctx.Err() != nil || i >= a.load.Least && time.Since(began) > a.load.For {
			break
		}
		at := time.Now()
		if _, err := f.WriteAt(piece, int64(i*a.load.Size)); err != nil {
			return err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
		a.times = append(a.times, time.Since(at))
		if a.load.Pause > 0 && backoff.Sleep(ctx, a.load.Pause) != nil {
			break
		}
	}
	if len(a.times) == 0 {
		return fmt.Errorf("nothing was measured: %w", ctx.Err())
	}
	return nil
}

// sweep removes what killed runs have left. What can't be removed is left to the next.
func sweep(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, leftover+"*")) // the pattern is right
	for _, name := range left {
		const old = time.Minute
		if st, err := os.Stat(name); err == nil && time.Since(st.ModTime()) > old {
			_ = os.Remove(name)
		}
	}
}
