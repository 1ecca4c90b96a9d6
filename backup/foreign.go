package backup

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/lzw"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/quorate/quorate/datadir"
)

// ErrDelta says that a file or an object holds changes only.
var ErrDelta = errors.New("it is a delta of etcd-backup-restore, which holds only what changed since the full snapshot before it: name that full snapshot (Full-…)")

// IsDelta says by its name whether a file or an object is a delta of etcd-backup-restore.
func IsDelta(name string) bool { return strings.HasPrefix(path.Base(name), "Incr-") }

// sniffBytes are looked at to tell what a snapshot is packed with.
const sniffBytes = 256

// How files begin.
var (
	beginsGzip  = []byte{0x1f, 0x8b}
	beginsZstd  = []byte{0x28, 0xb5, 0x2f, 0xfd}
	beginsAge   = []byte("age-encryption.org/v1\n")
	beginsDelta = []byte(`[{"`) // a JSON array of events
)

const (
	deflated  = 0x78 // zlib's first byte, for the window that every writer takes
	zlibCheck = 31   // divides zlib's first two bytes
	lzwWidth  = 8    // bits of a literal, as etcd-backup-restore has it

	// Bbolt's mark stands behind the header of the first page.
	boltMarkAt = 16
	boltMark   = 0xED0CDAED

	// Its pages have so many bytes, and metaBytes hold the marks of both meta pages.
	minPage   = 512
	maxPage   = 1 << 20
	metaBytes = maxPage + boltMarkAt + 4
)

// foreign is a snapshot that others stored, unpacked. Its end is believed only where what
// it was packed with says that it ended, and nothing follows.
type foreign struct {
	io.Reader
	stored *source
	rest   *bufio.Reader
	close  []func() error
}

// openForeign unpacks what was stored as its first bytes say, and says whether anything
// was to be unpacked. It closes stored.
func openForeign(stored io.ReadCloser, identities []age.Identity) (_ *foreign, packed bool, err error) {
	f := &foreign{stored: &source{Reader: stored}, close: []func() error{stored.Close}}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	f.rest = bufio.NewReaderSize(f.stored, 1<<20)
	head, err := f.peek(f.rest)
	if err != nil {
		return f, false, err
	}
	if bytes.HasPrefix(head, beginsAge) {
		opened, openErr := age.Decrypt(f.rest, identities...)
		if noMatch := (*age.NoIdentityMatchError)(nil); errors.As(openErr, &noMatch) || len(identities) == 0 {
			return f, true, fmt.Errorf("%w: it was encrypted with age: give the identity file of one of its recipients", ErrNoIdentity)
		}
		if openErr != nil {
			return f, true, f.blame(openErr)
		}
		packed, f.rest = true, bufio.NewReaderSize(opened, 1<<20)
		if head, err = f.peek(f.rest); err != nil {
			return f, true, err
		}
	}
	plain, err := f.unpack(head)
	if err != nil {
		return f, true, f.blame(err)
	}
	packed = packed || !plain
	whole := bufio.NewReaderSize(f.Reader, metaBytes)
	f.Reader = whole
	// An error comes again with the first read.
	head, _ = whole.Peek(metaBytes)
	switch {
	case bytes.HasPrefix(head, beginsDelta):
		return f, packed, ErrDelta
	case len(head) == metaBytes && !hasMeta(head):
		return f, packed, fmt.Errorf("%w; name a snapshot that etcdctl or Quorate has saved", datadir.ErrNotDatabase)
	}
	return f, packed, nil
}

// hasMeta says whether one of the two meta pages can be there: the second one stands
// after one page of unknown size. What has none is refused before it is written to a
// disk, since little that is packed can be much that is not.
func hasMeta(head []byte) bool {
	found := isBolt(head)
	for size := minPage; !found && size <= maxPage; size *= 2 {
		found = isBolt(head[size:])
	}
	return found
}

// peek is how r begins; what is shorter gives less.
func (f *foreign) peek(r *bufio.Reader) ([]byte, error) {
	head, err := r.Peek(sniffBytes)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, f.blame(err)
	}
	return head, nil
}

// unpack sets the reader for what the head tells. Plain says that nothing is packed.
func (f *foreign) unpack(head []byte) (plain bool, err error) {
	switch {
	case bytes.HasPrefix(head, beginsGzip):
		f.Reader, err = gzip.NewReader(f.rest)
	case bytes.HasPrefix(head, beginsZstd):
		var dec *zstd.Decoder
		dec, err = zstd.NewReader(f.rest, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err == nil {
			f.Reader = dec
			f.close = append(f.close, func() error {
				dec.Close()
				return nil
			})
		}
	case len(head) > 1 && head[0] == deflated && binary.BigEndian.Uint16(head)%zlibCheck == 0:
		f.Reader, err = zlib.NewReader(f.rest)
	case isLZW(head):
		f.Reader = lzw.NewReader(f.rest, lzw.LSB, lzwWidth)
	default:
		f.Reader = f.rest
		return true, nil
	}
	return false, err
}

// isLZW tries it, since what is packed so has no mark of its own: it begins with a
// database, or a delta, once it is unpacked.
func isLZW(head []byte) bool {
	if isBolt(head) {
		return false
	}
	begin := make([]byte, boltMarkAt+4)
	n, _ := io.ReadFull(lzw.NewReader(bytes.NewReader(head), lzw.LSB, lzwWidth), begin) // the head ends where it ends
	return isBolt(begin[:n]) || bytes.HasPrefix(begin[:n], beginsDelta)
}

func isBolt(head []byte) bool {
	return len(head) >= boltMarkAt+4 && binary.LittleEndian.Uint32(head[boltMarkAt:]) == boltMark
}

// blame says whether an error of unpacking is damage, or the store's.
func (f *foreign) blame(err error) error {
	if f.stored.err == nil && errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: its end is missing: copy it again, or name another one", ErrPacked)
	}
	return f.stored.blame(err)
}

// Read tells damage from a store that fails.
func (f *foreign) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	switch {
	case err == nil:
		return n, nil
	case !errors.Is(err, io.EOF):
		return n, f.blame(err)
	}
	// The store's own check comes only with its last byte; and lzw and zlib end where
	// they say they do, whatever follows.
	switch _, more := f.rest.Peek(1); {
	case more == nil:
		return n, fmt.Errorf("%w: more follows where it ends: copy it again, or name another one", ErrPacked)
	case !errors.Is(more, io.EOF):
		return n, f.blame(more)
	}
	return n, err
}

func (f *foreign) Close() error {
	errs := make([]error, 0, len(f.close))
	for _, c := range f.close {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}
