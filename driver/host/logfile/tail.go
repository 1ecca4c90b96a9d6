package logfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/quorate/quorate/internal/backoff"
)

// Tail returns where the last n lines of the log begin, over rotated files too.
// Negative n means all of them.
func Tail(path string, n int) (Cursor, error) {
	files, err := Files(path)
	if err != nil || len(files) == 0 {
		return Cursor{}, err
	}
	if n < 0 {
		return start(files[0])
	}
	for _, name := range slices.Backward(files) {
		at, missing, err := tailFile(name, n)
		if err != nil {
			return Cursor{}, err
		}
		if missing == 0 {
			return at, nil
		}
		n = missing
	}
	return start(files[0])
}

func start(name string) (Cursor, error) {
	inode, _, err := stat(name)
	if err != nil {
		return Cursor{}, fmt.Errorf("tail of log: %w", err)
	}
	return Cursor{Inode: inode}, nil
}

// tailFile finds the last n lines of one file, and how many it lacks.
func tailFile(name string, n int) (at Cursor, missing int, err error) {
	f, err := os.Open(name) //nolint:gosec // a log file of the member
	if err != nil {
		return at, n, fmt.Errorf("tail of log: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return at, n, fmt.Errorf("tail of log: %w", err)
	}
	at = Cursor{Inode: inodeOf(info), Offset: info.Size()}
	if n == 0 {
		return at, 0, nil
	}
	end := info.Size()
	buf := make([]byte, 64<<10)
	for end > 0 {
		begin := max(0, end-int64(len(buf)))
		chunk := buf[:end-begin]
		if _, err := f.ReadAt(chunk, begin); err != nil && !errors.Is(err, io.EOF) {
			return at, n, fmt.Errorf("tail of log: %w", err)
		}
		for i := bytes.LastIndexByte(chunk, '\n'); i >= 0; i = bytes.LastIndexByte(chunk[:i], '\n') {
			lineStart := begin + int64(i) + 1
			if lineStart == info.Size() {
				continue // the newline that ends the last line
			}
			at.Offset = lineStart
			if n--; n == 0 {
				return at, 0, nil
			}
		}
		end = begin
	}
	if info.Size() > 0 {
		at.Offset = 0
		n--
	}
	return at, n, nil
}

// poll is how often a followed log is looked at.
const poll = 200 * time.Millisecond

// Open streams the log from the cursor to its end or, if follow is set, until ctx
// ends. Closing the stream ends it too, and may be done while it is read.
func Open(ctx context.Context, path string, at Cursor, follow bool) io.ReadCloser {
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	go func() {
		defer cancel()
		w.CloseWithError(copyLog(ctx, w, NewReader(path, at), follow))
	}()
	return &stream{PipeReader: r, cancel: cancel}
}

type stream struct {
	*io.PipeReader
	cancel context.CancelFunc
}

// Close ends the stream.
func (s *stream) Close() error {
	s.cancel()
	return s.PipeReader.Close()
}

// copyLog returns nil at the end of the log, and when ctx ends.
func copyLog(ctx context.Context, w *io.PipeWriter, r *Reader, follow bool) (err error) {
	defer func() { err = errors.Join(err, r.Close()) }()
	// A reader that has stalled must not outlive the context.
	stop := context.AfterFunc(ctx, func() { w.CloseWithError(nil) })
	defer stop()
	buf := make([]byte, 32<<10)
	for ctx.Err() == nil {
		n, err := r.Read(buf)
		if n > 0 {
			if _, gone := w.Write(buf[:n]); gone != nil {
				return nil // the reader has closed, or the context has ended
			}
			continue
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
		if !follow || backoff.Sleep(ctx, poll) != nil {
			return nil
		}
	}
	return nil
}
