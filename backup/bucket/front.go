package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// front is the Bucket before a driver: it checks names, puts the prefix before them, reads on
// where a connection broke, and says what failed.
type front struct {
	config Config
	prefix string
	s      *session
	d      driver
}

var _ Bucket = (*front)(nil)

func (b *front) String() string { return b.config.String() }

func (b *front) Close() error { return b.d.close() }

func (b *front) Sub(prefix string) (Bucket, error) {
	if err := checkName(prefix); err != nil {
		return nil, b.s.errorOf("open", join(b.prefix, prefix), err, verdict{kind: ErrRefused}, 1, 0)
	}
	sub := *b
	sub.config, sub.prefix = b.config.sub(prefix), join(b.prefix, prefix)
	return &sub, nil
}

// full is the name with the prefix, also when it is refused, for the error.
func (b *front) full(name string) (string, error) {
	full := join(b.prefix, name)
	if err := checkName(name); err != nil {
		return full, err
	}
	return full, checkName(full)
}

func (b *front) Put(ctx context.Context, name string, body io.Reader, o PutOptions) (Info, error) {
	full, err := b.full(name)
	if err != nil {
		return Info{}, b.s.fail(ctx, "put", full, err)
	}
	if b.config.Provider != S3 && !o.RetainUntil.IsZero() {
		err = &judged{fmt.Errorf("%s has no object lock here: %w", b.config.Provider, errors.ErrUnsupported), verdict{kind: ErrRefused}}
		return Info{}, b.s.fail(ctx, "put", full, err)
	}
	if !o.RetainUntil.IsZero() && time.Until(o.RetainUntil) <= 0 {
		return Info{}, b.s.fail(ctx, "put", full, refused("a lock until %s is over already", o.RetainUntil.UTC().Format(time.RFC3339)))
	}
	src := newSource(ctx, body, o.Size)
	info, err := b.d.put(ctx, full, src, o)
	if src.err != nil {
		// Whatever became of it, this is why.
		err = src.err
	}
	if err == nil && info.Size != src.n {
		err = corrupt("%d bytes were sent, and the store has %d", src.n, info.Size)
	}
	if err != nil {
		return Info{}, b.s.fail(ctx, "put", full, err)
	}
	info.Name = name
	return info, nil
}

func (b *front) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return b.GetRange(ctx, name, 0, -1)
}

func (b *front) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	full, err := b.full(name)
	if err == nil && off < 0 {
		err = refused("the range begins at %d", off)
	}
	if err != nil {
		return nil, b.s.fail(ctx, "get", full, err)
	}
	if length < 0 {
		length = -1
	}
	r := &reader{ctx: ctx, b: b, full: full, off: off, left: length, tries: b.s.begin("get", full)}
	if err = r.open(); err != nil {
		return nil, err
	}
	return r, nil
}

func (b *front) Stat(ctx context.Context, name string) (info Info, err error) {
	full, err := b.full(name)
	if err != nil {
		return Info{}, b.s.fail(ctx, "stat", full, err)
	}
	err = b.s.do(ctx, "stat", full, func(ctx context.Context) error {
		info, err = b.d.stat(ctx, full)
		return err
	})
	info.Name = name
	return info, err
}

// callbackError is what the caller's fn returned.
type callbackError struct{ error }

func (b *front) List(ctx context.Context, prefix string, fn func(Info) error) error {
	full := b.prefix
	if prefix != "" {
		var err error
		if full, err = b.full(prefix); err != nil {
			return b.s.fail(ctx, "list", full, err)
		}
	}
	cut, after := "", ""
	if b.prefix != "" {
		cut = b.prefix + "/"
	}
	t := b.s.begin("list", full)
	for {
		err := b.d.list(ctx, full, after, func(info Info) error {
			t.progressed()
			after = info.Name
			name, below := strings.CutPrefix(info.Name, cut)
			if wrong := checkName(name); wrong != nil || !below {
				return nil //nolint:nilerr // somebody else's
			}
			info.Name = name
			if failed := fn(info); failed != nil {
				return &callbackError{failed}
			}
			return nil
		})
		if err == nil {
			return nil
		}
		if callback, ok := errors.AsType[*callbackError](err); ok {
			return callback.error
		}
		if err = t.failed(ctx, err); err != nil {
			return err
		}
	}
}

func (b *front) Delete(ctx context.Context, name string) error {
	full, err := b.full(name)
	if err != nil {
		return b.s.fail(ctx, "delete", full, err)
	}
	err = b.s.do(ctx, "delete", full, func(ctx context.Context) error { return b.d.remove(ctx, full) })
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

func (b *front) AbortStale(ctx context.Context, olderThan time.Duration) (n int, err error) {
	before := time.Now().Add(-olderThan)
	err = b.s.do(ctx, "abort-stale", b.prefix, func(ctx context.Context) error {
		done, failed := b.d.abortStale(ctx, b.prefix, before)
		n += done
		return failed
	})
	return n, err
}

// source is what is to be stored. It notes how long it is, and why it could not be read.
type source struct {
	ctx  context.Context
	r    io.Reader
	want int64
	n    int64
	err  error
	// seeker is nil if it can't be read again.
	seeker io.Seeker
	start  int64
}

func newSource(ctx context.Context, r io.Reader, want int64) *source {
	s := &source{ctx: ctx, r: r, want: want}
	if seeker, ok := r.(io.Seeker); ok {
		// A pipe in an *os.File has the method, but can't.
		if start, err := seeker.Seek(0, io.SeekCurrent); err == nil {
			s.seeker, s.start = seeker, start
		}
	}
	return s
}

func (s *source) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	n, err := s.r.Read(p)
	s.n += int64(n)
	switch {
	case s.want > 0 && s.n > s.want:
		err = fmt.Errorf("it is longer than the %d bytes it was said to have", s.want)
	case errors.Is(err, io.EOF) && s.want > 0 && s.n < s.want:
		err = fmt.Errorf("it ended after %d of %d bytes: %w", s.n, s.want, io.ErrUnexpectedEOF)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = &bodyError{err}
		return n, s.err
	}
	return n, err
}

// file is the whole of the body if it is a file that has its owner to itself, and else nil.
func (s *source) file() *os.File {
	f, ok := s.r.(*os.File)
	if !ok || s.seeker == nil || s.start != 0 || s.n != 0 {
		return nil
	}
	stat, err := f.Stat()
	if err != nil || stat.Mode() != 0o600 || stat.Size() != s.want {
		return nil
	}
	return f
}

// rewind begins anew.
func (s *source) rewind() error {
	if s.err != nil {
		return s.err
	}
	if _, err := s.seeker.Seek(s.start, io.SeekStart); err != nil {
		s.err = &bodyError{err}
		return s.err
	}
	s.n = 0
	return nil
}

// length is how much a seeker still gives.
func (s *source) length() (int64, error) {
	end, err := s.seeker.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, &bodyError{err}
	}
	return end - s.start, s.rewind()
}
