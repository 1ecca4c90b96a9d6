package bucket

import (
	"context"
	"crypto/md5" //nolint:gosec // it is what stores compare bytes with, not a protection against forgery
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
)

// reader reads an object, and reads on where a connection broke.
type reader struct {
	ctx   context.Context
	b     *front
	full  string
	tries *tries

	body    io.ReadCloser
	limited io.Reader
	off     int64
	left    int64 // -1 until the first answer tells
	version string
	md5     string
	hash    hash.Hash
	err     error
}

// open asks from off on until it gets an answer.
func (r *reader) open() error {
	for {
		p, err := r.b.d.get(r.ctx, r.full, r.off, r.left, r.version)
		if err == nil && r.left >= 0 && p.size != r.left && r.body != nil {
			err = errors.Join(corrupt("it has another size than before: it was replaced while it was read"), p.body.Close())
		}
		if err == nil {
			if r.body == nil && p.md5 != "" {
				r.md5, r.hash = p.md5, md5.New() //nolint:gosec // see above
			}
			r.body, r.left, r.version = p.body, p.size, p.version
			r.limited = LimitReader(r.ctx, r.body, r.b.s.download)
			return nil
		}
		if err = r.tries.failed(r.ctx, err); err != nil {
			return err
		}
	}
}

func (r *reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	for len(p) > 0 {
		if r.left == 0 {
			r.err = r.end()
			return 0, r.err
		}
		n, err := r.limited.Read(p[:min(int64(len(p)), r.left)])
		if n > 0 {
			r.off += int64(n)
			r.left -= int64(n)
			r.tries.progressed()
			if r.hash != nil {
				_, _ = r.hash.Write(p[:n]) // a hash takes all
			}
			// An error comes again, or is mended by the next call.
			return n, nil
		}
		if err != nil {
			if r.err = r.again(err); r.err != nil {
				return 0, r.err
			}
		}
	}
	return 0, nil
}

// again opens the object where it broke.
func (r *reader) again(err error) error {
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%d bytes are missing: %w", r.left, io.ErrUnexpectedEOF)
	}
	_ = r.body.Close() // it is broken already
	if err = r.tries.failed(r.ctx, err); err != nil {
		return err
	}
	return r.open()
}

// end is io.EOF if the bytes are those that were stored.
func (r *reader) end() error {
	if r.hash != nil {
		if got := hex.EncodeToString(r.hash.Sum(nil)); got != r.md5 {
			return r.b.s.fail(r.ctx, "get", r.tries.object, corrupt("its MD5 is %s, and was %s when it was stored", got, r.md5))
		}
	}
	return io.EOF
}

func (r *reader) Close() error { return r.body.Close() }
