package datadir

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/bits"
)

// The layout of a bbolt file: pages of one size, the first two of which are meta
// pages. Bbolt's own reader maps the file, takes memory for all it has touched,
// and panics or faults on a damaged one; this one reads a page at a time and
// believes nothing.
const (
	pageHeader   = 16
	elementBytes = 16
	metaBytes    = 64
	bucketHeader = 16

	metaMagic   = 0xED0CDAED
	metaVersion = 2

	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10
	bucketFlag   = 0x01

	// noFreelist stands where the list of free pages is left out, as etcd does.
	noFreelist = ^uint64(0)
	// manyFree says that the number of free pages stands before them.
	manyFree = 0xFFFF

	minPageBytes = 512
	maxPageBytes = 1 << 20
	// maxPages keeps every offset far from overflowing.
	maxPages = 1 << 40
	// maxDepth bounds a tree: two keys a page lead to more pages than fit a disk.
	maxDepth = 48
	// ctxEvery is after how many pages the context is asked.
	ctxEvery = 64
)

// pager reads the pages of a bbolt file. It has no state of its own beside the
// chosen meta page, so that several walks may share it.
type pager struct {
	file     io.ReaderAt
	pageSize int64
	// pages is the number of pages in use or free: bbolt's high-water mark.
	pages    uint64
	root     uint64
	freelist uint64
	txid     uint64
	// meta is the page that all this comes from.
	meta [metaBytes]byte
}

// size is where the last page ends.
func (p *pager) size() int64 { return int64(p.pages) * p.pageSize } //nolint:gosec // parseMeta bounds both

// newPager chooses the newest valid meta page. ErrNotDatabase when the file was
// never bbolt's, ErrStructure when both meta pages are damaged; the caller says
// whether the file is shorter than it should be.
func newPager(file io.ReaderAt) (*pager, error) {
	first, err := readMeta(file, 0)
	if err == nil {
		if second, err2 := readMeta(file, first.pageSize); err2 == nil && second.pageSize == first.pageSize && second.txid > first.txid {
			return second, nil
		}
		return first, nil
	}
	// The first one is damaged: the second stands after one page of unknown size.
	for size := int64(minPageBytes); size <= maxPageBytes; size *= 2 {
		second, err2 := readMeta(file, size)
		if err2 == nil && second.pageSize == size {
			return second, nil
		}
		if errors.Is(err2, ErrStructure) && !errors.Is(err, ErrStructure) {
			err = err2
		}
	}
	return nil, err
}

// readMeta reads the meta page at off.
func readMeta(file io.ReaderAt, off int64) (*pager, error) {
	var buf [pageHeader + metaBytes]byte
	if n, err := file.ReadAt(buf[:], off); n < len(buf) {
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return nil, err
		case off == 0 && beginsMeta(buf[:n]):
			return nil, fmt.Errorf("%w: it has %d bytes", ErrTruncated, n)
		}
		return nil, ErrNotDatabase
	}
	meta := buf[pageHeader:]
	le := binary.LittleEndian
	if le.Uint32(meta) != metaMagic {
		return nil, ErrNotDatabase
	}
	if v := le.Uint32(meta[4:]); v != metaVersion {
		return nil, fmt.Errorf("%w: it is in version %d of bbolt's format, and only %d is known", ErrNotDatabase, v, metaVersion)
	}
	if metaSum(meta) != le.Uint64(meta[56:]) {
		return nil, fmt.Errorf("%w: the checksum of the meta page at byte %d differs", ErrStructure, off)
	}
	size := le.Uint32(meta[8:])
	p := &pager{
		file: file, pageSize: int64(size), root: le.Uint64(meta[16:]), freelist: le.Uint64(meta[32:]),
		pages: le.Uint64(meta[40:]), txid: le.Uint64(meta[48:]), meta: [metaBytes]byte(meta),
	}
	if size < minPageBytes || size > maxPageBytes || bits.OnesCount32(size) != 1 || p.pages < 2 || p.pages > maxPages {
		return nil, fmt.Errorf("%w: the meta page at byte %d tells of %d pages of %d bytes", ErrStructure, off, p.pages, size)
	}
	return p, nil
}

// metaSum is the checksum of a meta page, which stands in its last field.
func metaSum(meta []byte) uint64 {
	sum := fnv.New64a()
	_, _ = sum.Write(meta[:metaBytes-8]) // never fails
	return sum.Sum64()
}

// beginsMeta reports whether so few bytes are the beginning of a meta page: page 0,
// of the type 4.
func beginsMeta(head []byte) bool {
	begin := []byte{0, 0, 0, 0, 0, 0, 0, 0, 4, 0}
	n := min(len(head), len(begin))
	return bytes.Equal(head[:n], begin[:n])
}

// bitmap is a set of page numbers.
type bitmap []uint64

func newBitmap(n uint64) bitmap { return make(bitmap, n/64+1) }

func (b bitmap) has(i uint64) bool { return b[i/64]&(1<<(i%64)) != 0 }
func (b bitmap) set(i uint64)      { b[i/64] |= 1 << (i % 64) }

// bucket is where a bucket's tree begins: at a page, or within the value that
// names it when it is small.
type bucket struct {
	root   uint64
	inline []byte
}

// order is the direction of a walk.
type order bool

const (
	ascending  order = false
	descending order = true
)

// walk is one pass over the keys of a bucket.
type walk struct {
	order order
	// from and to bound the keys, to excluded; nil is no bound.
	from, to []byte
	// visit gets each key with its value, both only valid during the call. nested is
	// true where the value is a bucket.
	visit func(key, value []byte, nested bool) error
	// reached, if not nil, gets each page; one that was there before is an error.
	reached bitmap
}

// walker is a walk under way, with a page in memory for each level of the tree.
type walker struct {
	walk
	*pager
	ctx   context.Context //nolint:containedctx // it lives as long as one walk
	bufs  [maxDepth][]byte
	pages int
}

// run walks over a bucket. Errors are those of visit, of the context, of reading,
// and ErrStructure.
func (p *pager) run(ctx context.Context, b bucket, w walk) error {
	own := *p
	own.file = &ahead{from: p.file}
	walker := &walker{walk: w, pager: &own, ctx: ctx}
	if b.root == 0 {
		if err := checkElements(b.inline, 0); err != nil {
			return err
		}
		return walker.leaf(b.inline, 0, nil, nil)
	}
	return walker.page(b.root, 0, nil, nil)
}

// aheadBytes are read at once where pages are asked for in their order in the file.
const aheadBytes = 64 << 10

// ahead reads on where it was asked for neighbours, in either direction: a walk in the
// order of keys comes by many leaves in that of the file, and a read of a single page
// costs more than its bytes. It is for one walk.
type ahead struct {
	from io.ReaderAt
	// buf is what lies at start in the file, and low and high are the ends of what was
	// read last.
	buf              []byte
	start, low, high int64
}

// ReadAt reads as io.ReaderAt does.
func (a *ahead) ReadAt(p []byte, off int64) (int, error) {
	end := off + int64(len(p))
	inside := func() bool { return off >= a.start && end <= a.start+int64(len(a.buf)) }
	if up, down := off == a.high, end == a.low; (up || down) && len(p) < aheadBytes && !inside() {
		at := off
		if down {
			at = max(0, end-aheadBytes)
		}
		if a.buf == nil {
			a.buf = make([]byte, aheadBytes)
		}
		n, err := a.from.ReadAt(a.buf[:aheadBytes], at)
		if a.start, a.buf = at, a.buf[:n]; err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
	}
	if a.low, a.high = off, end; inside() {
		return copy(p, a.buf[off-a.start:]), nil
	}
	return a.from.ReadAt(p, off)
}

// page walks over the tree below a page, whose keys must lie in [low, high).
func (w *walker) page(id uint64, depth int, low, high []byte) error {
	if w.pages++; w.pages%ctxEvery == 1 {
		if err := w.ctx.Err(); err != nil {
			return err
		}
	}
	if depth == maxDepth {
		return fmt.Errorf("%w: the tree at page %d is deeper than %d", ErrStructure, id, maxDepth)
	}
	buf, err := w.read(id, w.bufs[depth])
	if err != nil {
		return err
	}
	w.bufs[depth] = buf
	if w.reached != nil {
		for i := range uint64(len(buf)) / uint64(w.pageSize) { //nolint:gosec // positive
			if w.reached.has(id + i) {
				return fmt.Errorf("%w: page %d is referred to twice", ErrStructure, id+i)
			}
			w.reached.set(id + i)
		}
	}
	if err := checkElements(buf, id); err != nil {
		return err
	}
	if isBranch(buf) {
		return w.branch(buf, depth, low, high)
	}
	return w.leaf(buf, id, low, high)
}

func (w *walker) branch(buf []byte, depth int, low, high []byte) error {
	n := count(buf)
	for at := range n {
		i := at
		if w.order == descending {
			i = n - 1 - at
		}
		key, child := branchElement(buf, i)
		next := high
		if i+1 < n {
			next, _ = branchElement(buf, i+1)
		}
		if err := within(key, low, high, child); err != nil {
			return err
		}
		if i > 0 && w.to != nil && bytes.Compare(key, w.to) >= 0 {
			continue
		}
		if i+1 < n && w.from != nil && bytes.Compare(next, w.from) <= 0 {
			continue
		}
		if err := w.page(child, depth+1, key, next); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) leaf(buf []byte, id uint64, low, high []byte) error {
	n := count(buf)
	for at := range n {
		i := at
		if w.order == descending {
			i = n - 1 - at
		}
		key, value, nested := leafElement(buf, i)
		if i == 0 || i == n-1 {
			if err := within(key, low, high, id); err != nil {
				return err
			}
		}
		if (w.from != nil && bytes.Compare(key, w.from) < 0) || (w.to != nil && bytes.Compare(key, w.to) >= 0) {
			continue
		}
		if err := w.visit(key, value, nested); err != nil {
			return err
		}
	}
	return nil
}

// read reads a page of a tree with what overflows from it.
func (p *pager) read(id uint64, buf []byte) ([]byte, error) {
	buf, err := p.readAny(id, buf)
	if err != nil {
		return nil, err
	}
	if kind := flags(buf); kind != branchPage && kind != leafPage {
		return nil, fmt.Errorf("%w: page %d should be of a tree and has the type %#x", ErrStructure, id, kind)
	}
	return buf, nil
}

func (p *pager) readAny(id uint64, buf []byte) ([]byte, error) {
	if id < 2 || id >= p.pages {
		return nil, fmt.Errorf("%w: page %d is referred to, and there are %d", ErrStructure, id, p.pages)
	}
	if int64(cap(buf)) < p.pageSize {
		buf = make([]byte, p.pageSize)
	}
	buf = buf[:p.pageSize]
	off := int64(id) * p.pageSize //nolint:gosec // below pages
	if err := p.fill(buf, off); err != nil {
		return nil, err
	}
	if self := binary.LittleEndian.Uint64(buf); self != id {
		return nil, fmt.Errorf("%w: page %d says that it is %d", ErrStructure, id, self)
	}
	overflow := uint64(binary.LittleEndian.Uint32(buf[12:]))
	if overflow == 0 {
		return buf, nil
	}
	if overflow >= p.pages-id {
		return nil, fmt.Errorf("%w: page %d goes on for %d pages, and there are %d", ErrStructure, id, overflow, p.pages)
	}
	all := (int64(overflow) + 1) * p.pageSize //nolint:gosec // 32 bits
	if int64(cap(buf)) < all {
		buf = append(make([]byte, 0, all), buf...)
	}
	buf = buf[:all]
	return buf, p.fill(buf[p.pageSize:], off+p.pageSize)
}

func (p *pager) fill(buf []byte, off int64) error {
	n, err := p.file.ReadAt(buf, off)
	switch {
	case n == len(buf):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return fmt.Errorf("%w: it ends at byte %d, within a page", ErrTruncated, off+int64(n))
	default:
		return err
	}
}

func flags(page []byte) uint16  { return binary.LittleEndian.Uint16(page[8:]) }
func count(page []byte) int     { return int(binary.LittleEndian.Uint16(page[10:])) }
func isBranch(page []byte) bool { return flags(page) == branchPage }

// branchElement is the first key below a child, and the child. The page has passed
// checkElements.
func branchElement(page []byte, i int) (key []byte, child uint64) {
	at := pageHeader + i*elementBytes
	e := page[at : at+elementBytes]
	from := at + int(binary.LittleEndian.Uint32(e))
	return page[from : from+int(binary.LittleEndian.Uint32(e[4:]))], binary.LittleEndian.Uint64(e[8:])
}

func leafElement(page []byte, i int) (key, value []byte, nested bool) {
	at := pageHeader + i*elementBytes
	e := page[at : at+elementBytes]
	from := at + int(binary.LittleEndian.Uint32(e[4:]))
	mid := from + int(binary.LittleEndian.Uint32(e[8:]))
	return page[from:mid], page[mid : mid+int(binary.LittleEndian.Uint32(e[12:]))], binary.LittleEndian.Uint32(e)&bucketFlag != 0
}

// checkElements holds a page to what the accessors rely on: every element lies
// within it, and its keys grow.
func checkElements(page []byte, id uint64) error {
	if len(page) < pageHeader {
		return fmt.Errorf("%w: a bucket within page %d is too short", ErrStructure, id)
	}
	n, branch := count(page), isBranch(page)
	if !branch && flags(page) != leafPage {
		return fmt.Errorf("%w: page %d should be of a tree and has the type %#x", ErrStructure, id, flags(page))
	}
	if end := pageHeader + n*elementBytes; end > len(page) || (branch && n == 0) {
		return fmt.Errorf("%w: page %d of %d bytes tells of %d elements", ErrStructure, id, len(page), n)
	}
	var last []byte
	for i := range n {
		at := pageHeader + i*elementBytes
		e := page[at : at+elementBytes]
		from, size := uint64(binary.LittleEndian.Uint32(e)), uint64(binary.LittleEndian.Uint32(e[4:]))
		if !branch {
			from, size = size, uint64(binary.LittleEndian.Uint32(e[8:]))+uint64(binary.LittleEndian.Uint32(e[12:]))
		}
		if uint64(at)+from+size > uint64(len(page)) {
			return fmt.Errorf("%w: element %d of page %d reaches beyond its end", ErrStructure, i, id)
		}
		var key []byte
		if branch {
			key, _ = branchElement(page, i)
		} else {
			key, _, _ = leafElement(page, i)
		}
		if i > 0 && bytes.Compare(last, key) >= 0 {
			return fmt.Errorf("%w: the keys of page %d are out of order at element %d", ErrStructure, id, i)
		}
		last = key
	}
	return nil
}

func within(key, low, high []byte, id uint64) error {
	if bytes.Compare(key, low) < 0 || (high != nil && bytes.Compare(key, high) >= 0) {
		return fmt.Errorf("%w: page %d has a key that belongs to another page", ErrStructure, id)
	}
	return nil
}

// buckets lists the buckets in the root of the file.
func (p *pager) buckets(ctx context.Context, reached bitmap) (map[string]bucket, error) {
	found := map[string]bucket{}
	err := p.run(ctx, bucket{root: p.root}, walk{reached: reached, visit: func(key, value []byte, nested bool) error {
		if !nested {
			return fmt.Errorf("%w: the root holds %.40q, which is not a bucket", ErrStructure, key)
		}
		b, err := parseBucket(value)
		found[string(key)] = b
		return err
	}})
	return found, err
}

func parseBucket(value []byte) (bucket, error) {
	if len(value) < bucketHeader {
		return bucket{}, fmt.Errorf("%w: a bucket's header has %d bytes", ErrStructure, len(value))
	}
	b := bucket{root: binary.LittleEndian.Uint64(value)}
	if b.root == 0 {
		b.inline = bytes.Clone(value[bucketHeader:])
	}
	return b, nil
}

// checkFree holds the list of free pages, where there is one, against the pages
// that are in use. Why: who writes to the file next takes a page from the list.
func (p *pager) checkFree(reached bitmap) error {
	if p.freelist == noFreelist {
		return nil
	}
	buf, err := p.readAny(p.freelist, nil)
	if err != nil {
		return fmt.Errorf("the list of free pages: %w", err)
	}
	ids := buf[pageHeader:]
	n := uint64(count(buf)) //nolint:gosec // 16 bits
	if n == manyFree {
		n = binary.LittleEndian.Uint64(ids)
		ids = ids[8:]
	}
	if flags(buf) != freelistPage || n > uint64(len(ids)/8) {
		return fmt.Errorf("%w: page %d is no list of free pages", ErrStructure, p.freelist)
	}
	for i := range uint64(len(buf)) / uint64(p.pageSize) { //nolint:gosec // positive
		if reached.has(p.freelist + i) {
			return fmt.Errorf("%w: page %d is referred to twice", ErrStructure, p.freelist+i)
		}
		reached.set(p.freelist + i)
	}
	for i := range n {
		id := binary.LittleEndian.Uint64(ids[i*8:])
		if id < 2 || id >= p.pages {
			return fmt.Errorf("%w: page %d is called free, and there are %d", ErrStructure, id, p.pages)
		}
		if reached.has(id) {
			return fmt.Errorf("%w: page %d is in use and called free", ErrStructure, id)
		}
	}
	return nil
}
