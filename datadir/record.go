package datadir

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Record types of etcd's write-ahead log, the same in 3.5, 3.6 and 3.7.
const (
	metadataRecord = 1
	entryRecord    = 2
	stateRecord    = 3
	crcRecord      = 4
	snapshotRecord = 5
)

const (
	frameBytes  = 8
	sectorBytes = 512
	// headBytes of a record's data are kept. All that is asked of an entry comes
	// before its payload, within 40 bytes.
	headBytes = 256
	// Protobuf wire types.
	wireVarint = 0
	wireBytes  = 2
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	// errTorn: the last record was being written when the host went down. Etcd cuts
	// it off.
	errTorn = errors.New("torn record")
	errWire = errors.New("malformed record")
)

// record is one record of the log, without the payload.
type record struct {
	kind uint64
	crc  uint32
	// head is the beginning of the data, valid until the next record.
	head []byte
	// size of the data in bytes.
	size int64
}

// scanner reads the records of one file of the log, one after the other, in
// constant memory: a record's data passes through the checksum and is dropped.
type scanner struct {
	src  *bufio.Reader
	size int64
	// off is where the last valid record ended.
	off int64
	// sum is the running checksum over all data so far.
	sum uint32
	// seeded says that the record with the checksum's beginning has been read.
	seeded bool
	win    window
	frame  [frameBytes]byte
	head   [headBytes]byte
	buf    [4096]byte
}

func newScanner(r io.Reader, size int64) *scanner {
	return &scanner{src: bufio.NewReaderSize(r, 64<<10), size: size}
}

// next reads a record. io.EOF at the end or where the preallocated zeros begin,
// errTorn for a record cut short by a crash, ErrUnreadable for damage.
func (s *scanner) next() (record, error) {
	switch _, err := io.ReadFull(s.src, s.frame[:]); {
	case errors.Is(err, io.EOF):
		return record{}, io.EOF
	case errors.Is(err, io.ErrUnexpectedEOF):
		return record{}, errTorn
	case err != nil:
		return record{}, err
	}
	length := binary.LittleEndian.Uint64(s.frame[:])
	if length == 0 {
		return record{}, io.EOF
	}
	// The lower 56 bits are the size; the top bit says that the padding stands in
	// the three lowest bits of the top byte.
	body := int64(length &^ (uint64(0xff) << 56)) //nolint:gosec // 56 bits fit
	pad := int64(0)
	if length>>63 == 1 {
		pad = int64(length >> 56 & 7)
	}
	if body > s.size-s.off-frameBytes-pad {
		return record{}, errTorn
	}
	s.win = window{src: s.src, left: body + pad, pos: s.off + frameBytes, zero: true}
	w := &s.win
	before := s.sum
	rec, err := s.body(w, body)
	if err == nil {
		err = s.verify(rec)
	}
	if err == nil {
		err = w.skip(pad, s.buf[:])
	}
	if err != nil {
		s.sum = before
		return record{}, s.damage(w, err)
	}
	s.off += frameBytes + body + pad
	return rec, nil
}

// damage tells a torn record from a damaged one as etcd does: a torn one has a
// disk sector that was never written.
func (s *scanner) damage(w *window, cause error) error {
	if !errors.Is(cause, errWire) {
		if errors.Is(cause, io.EOF) || errors.Is(cause, io.ErrUnexpectedEOF) {
			return errTorn
		}
		return cause
	}
	if err := w.skip(w.left, s.buf[:]); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	if w.finish() {
		return errTorn
	}
	return fmt.Errorf("%w: at byte %d: %w", ErrUnreadable, s.off, cause)
}

// body reads the protobuf message walpb.Record: type = 1, crc = 2, data = 3.
func (s *scanner) body(w *window, size int64) (record, error) {
	var rec record
	end := w.left - size
	for w.left > end {
		tag, err := w.uvarint(end)
		if err != nil {
			return rec, err
		}
		switch tag {
		case 1<<3 | wireVarint:
			rec.kind, err = w.uvarint(end)
		case 2<<3 | wireVarint:
			var v uint64
			v, err = w.uvarint(end)
			rec.crc = uint32(v) //nolint:gosec // the field is 32 bits wide
		case 3<<3 | wireBytes:
			err = s.data(w, end, &rec)
		default:
			err = fmt.Errorf("%w: unknown field %d", errWire, tag>>3)
		}
		if err != nil {
			return rec, err
		}
	}
	return rec, nil
}

func (s *scanner) data(w *window, end int64, rec *record) error {
	n, err := w.uvarint(end)
	if err != nil {
		return err
	}
	if n > uint64(w.left-end) || rec.size > 0 { //nolint:gosec // left is never below end
		return fmt.Errorf("%w: data of %d bytes in a shorter record", errWire, n)
	}
	rec.size = int64(n) //nolint:gosec // bounded above
	for left := rec.size; left > 0; {
		chunk := s.buf[:min(left, int64(len(s.buf)))]
		if err := w.read(chunk); err != nil {
			return err
		}
		s.sum = crc32.Update(s.sum, castagnoli, chunk)
		if kept := len(rec.head); kept < headBytes {
			rec.head = s.head[:kept+copy(s.head[kept:], chunk)]
		}
		left -= int64(len(chunk))
	}
	return nil
}

// verify checks the record against the running checksum. The one of type crc
// begins a file with the checksum that the previous one ended with.
func (s *scanner) verify(rec record) error {
	if rec.kind == crcRecord {
		if s.seeded && rec.crc != s.sum {
			return fmt.Errorf("%w: checksum %x does not continue %x", errWire, rec.crc, s.sum)
		}
		s.sum, s.seeded = rec.crc, true
		return nil
	}
	if rec.crc != s.sum {
		return fmt.Errorf("%w: checksum is %x, computed %x", errWire, rec.crc, s.sum)
	}
	if rec.kind < metadataRecord || rec.kind > snapshotRecord {
		return fmt.Errorf("%w: unknown type %d", errWire, rec.kind)
	}
	return nil
}

// window reads the bytes of one record, and notes sectors that hold only zeros.
type window struct {
	src  *bufio.Reader
	left int64
	// pos is the offset in the file.
	pos int64
	// zero says that the current sector has shown nothing but zeros so far, some of
	// which are counted in seen; torn that an earlier one was all zeros.
	zero bool
	seen int
	torn bool
	one  [1]byte
}

func (w *window) read(p []byte) error {
	if int64(len(p)) > w.left {
		return fmt.Errorf("%w: it ends early", errWire)
	}
	n, err := io.ReadFull(w.src, p)
	w.note(p[:n])
	w.left -= int64(n)
	return err
}

func (w *window) note(p []byte) {
	for len(p) > 0 {
		n := min(len(p), int(sectorBytes-w.pos%sectorBytes))
		for _, b := range p[:n] {
			if b != 0 {
				w.zero = false
				break
			}
		}
		w.seen += n
		w.pos += int64(n)
		if w.pos%sectorBytes == 0 {
			w.torn = w.torn || w.zero
			w.zero, w.seen = true, 0
		}
		p = p[n:]
	}
}

// finish reports whether any sector of the record was all zeros.
func (w *window) finish() bool { return w.torn || (w.zero && w.seen > 0) }

func (w *window) skip(n int64, buf []byte) error {
	for n > 0 {
		chunk := buf[:min(n, int64(len(buf)))]
		if err := w.read(chunk); err != nil {
			return err
		}
		n -= int64(len(chunk))
	}
	return nil
}

// uvarint reads a number that ends before end bytes are left.
func (w *window) uvarint(end int64) (uint64, error) {
	var v uint64
	for shift := uint(0); shift < 64; shift += 7 {
		if w.left <= end {
			return 0, fmt.Errorf("%w: a number ends early", errWire)
		}
		if err := w.read(w.one[:]); err != nil {
			return 0, err
		}
		v |= uint64(w.one[0]&0x7f) << shift
		if w.one[0] < 0x80 {
			return v, nil
		}
	}
	return 0, fmt.Errorf("%w: a number has more than 64 bits", errWire)
}

// fields reads the leading varint fields 1 to 3 of a protobuf message: all that
// etcd's metadata, raft's entry and hard state, and a snapshot's record are asked
// for. It stops at the first field of another kind. Absent fields are 0.
func fields(head []byte) (out [4]uint64, err error) {
	for len(head) > 0 {
		tag, n := binary.Uvarint(head)
		if n <= 0 || tag>>3 < 1 || tag>>3 > 3 || tag&7 != wireVarint {
			return out, nil
		}
		v, m := binary.Uvarint(head[n:])
		if m <= 0 {
			return out, fmt.Errorf("%w: field %d can't be read", errWire, tag>>3)
		}
		out[tag>>3] = v
		head = head[n+m:]
	}
	return out, nil
}
