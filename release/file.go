package release

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"os"
	"syscall"
)

// chunk is how much is copied or hashed between two looks at the context.
const chunk = 1 << 20

// fileID tells whether a file may have changed since it was looked at.
type fileID struct {
	Dev   uint64 `json:"dev"`
	Inode uint64 `json:"inode"`
	Size  int64  `json:"size"`
	// MTime and CTime in nanoseconds since 1970.
	MTime int64 `json:"mtime"`
	CTime int64 `json:"ctime"`
}

// identify is of regular files only.
func identify(f *os.File) (fileID, error) {
	info, err := f.Stat()
	if err != nil {
		return fileID{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() {
		return fileID{}, fmt.Errorf("%s: %w: it is not a regular file", f.Name(), ErrUnsuitable)
	}
	return fileID{
		Dev: st.Dev, Inode: st.Ino, Size: info.Size(),
		MTime: st.Mtim.Nano(), CTime: st.Ctim.Nano(),
	}, nil
}

func hashFile(ctx context.Context, f *os.File) (string, error) {
	h := sha256.New()
	if err := copyContext(ctx, h, f); err != nil {
		return "", fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return digestOf(h.Sum(nil)), nil
}

func copyContext(ctx context.Context, w io.Writer, r io.Reader) error {
	buf := make([]byte, chunk)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return werr
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// limited reads up to limit bytes, and fails where there are more.
type limited struct {
	r     io.Reader
	left  int64
	limit int64
}

func limit(r io.Reader, n int64) *limited { return &limited{r: r, left: n, limit: n} }

func (l *limited) Read(p []byte) (int, error) {
	if int64(len(p)) > l.left+1 {
		p = p[:l.left+1]
	}
	n, err := l.r.Read(p)
	l.left -= int64(n)
	if l.left < 0 {
		return n, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, l.limit)
	}
	return n, err
}

// hashing counts and hashes what is read through it.
type hashing struct {
	r io.Reader
	h hash.Hash
	n int64
}

func newHashing(r io.Reader) *hashing { return &hashing{r: r, h: sha256.New()} }

func (h *hashing) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.n += int64(n)
	h.h.Write(p[:n])
	return n, err
}

func (h *hashing) digest() string { return digestOf(h.h.Sum(nil)) }
