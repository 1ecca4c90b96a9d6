package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"
)

// Format is the version of the file format that this package writes.
const Format = 1

// MaxLine is how long a line of a file may be, in bytes.
const MaxLine = 64 << 20

// maxWindow bounds what a file can make the reader allocate.
const maxWindow = 64 << 20

// flushEvery is how much a crash of the recorder may lose.
const flushEvery = 500 * time.Millisecond

// ErrFormat marks a file that is no history, or one of another format.
var ErrFormat = errors.New("not a history of this format")

// line is one line of a file behind the first, which is the Meta: exactly one of
// its fields is set.
type line struct {
	Operation   *Operation    `json:"op,omitempty"`
	Watch       *Watch        `json:"watch,omitempty"`
	Response    *responseLine `json:"response,omitempty"`
	Hash        *Hash         `json:"hash,omitempty"`
	Initial     *KeyValue     `json:"initial,omitempty"`
	Disturbance *Disturbance  `json:"disturbance,omitempty"`
}

type responseLine struct {
	Watch int `json:"id"`
	WatchResponse
}

// Writer appends to a history file while the history is made. All methods may be
// called at the same time. What was appended more than half a second ago survives a
// crash of the process; a file without Close is read as torn.
type Writer struct {
	mu      sync.Mutex
	z       *zstd.Encoder
	buf     bytes.Buffer
	enc     *json.Encoder
	flushed time.Time
	err     error
}

// NewWriter begins a file with the meta, whose Format is set to the one written.
// The caller closes the Writer, then w.
func NewWriter(w io.Writer, meta Meta) (*Writer, error) {
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("compress the history: %w", err)
	}
	hw := &Writer{z: z, flushed: time.Now()}
	hw.enc = json.NewEncoder(&hw.buf)
	hw.enc.SetEscapeHTML(false)
	meta.Format = Format
	if err = hw.append(&meta); err != nil {
		return nil, err
	}
	return hw, hw.Flush()
}

// Operation appends one call, when it has returned or was given up.
func (w *Writer) Operation(o *Operation) error {
	if s, bad := notText(o); bad {
		return fmt.Errorf("record %s: %q is not UTF-8, which a history can't hold: use keys and values that are text", o.Kind, s)
	}
	return w.append(line{Operation: o})
}

// Watch appends a watch, before its first response. Its Responses are not written.
func (w *Writer) Watch(watch Watch) error {
	watch.Responses = nil
	return w.append(line{Watch: &watch})
}

// Response appends a response to the watch of that ID.
func (w *Writer) Response(watch int, r *WatchResponse) error {
	return w.append(line{Response: &responseLine{watch, *r}})
}

// Hash appends a member's hash.
func (w *Writer) Hash(h Hash) error { return w.append(line{Hash: &h}) }

// Disturbance appends what was done to the cluster; it is read back into the Meta.
func (w *Writer) Disturbance(d Disturbance) error { return w.append(line{Disturbance: &d}) }

func (w *Writer) append(v any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	w.buf.Reset()
	if err := w.enc.Encode(v); err != nil { // this line only
		return fmt.Errorf("record a line of the history: %w", err)
	}
	if _, err := w.z.Write(w.buf.Bytes()); err != nil {
		return w.failed(err)
	}
	if time.Since(w.flushed) < flushEvery {
		return nil
	}
	return w.flush()
}

// Flush hands everything to the underlying writer.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	return w.flush()
}

func (w *Writer) flush() error {
	w.flushed = time.Now()
	if err := w.z.Flush(); err != nil {
		return w.failed(err)
	}
	return nil
}

func (w *Writer) failed(err error) error {
	w.err = fmt.Errorf("write the history: %w; is the disk full?", err)
	return w.err
}

// Close ends the file; without it the file is torn.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.z.Close()
	if w.err != nil {
		return w.err
	}
	if err != nil {
		return w.failed(err)
	}
	w.err = errors.New("write the history: it is closed")
	return nil
}

// notText finds a key or value that JSON would not give back as it was.
func notText(o *Operation) (string, bool) {
	for _, branch := range [][]Request{o.Then, o.Else} {
		for i := range branch {
			for _, s := range []string{branch[i].Key, branch[i].End, branch[i].Value} {
				if !utf8.ValidString(s) {
					return s, true
				}
			}
		}
	}
	for i := range o.If {
		if !utf8.ValidString(o.If[i].Key) {
			return o.If[i].Key, true
		}
		if !utf8.ValidString(o.If[i].Value) {
			return o.If[i].Value, true
		}
	}
	return "", false
}

// Write writes a whole history: zstd-compressed lines of JSON, the first of which
// is the Meta.
func Write(w io.Writer, h *History) error {
	meta := h.Meta
	meta.Disturbances = nil // on lines of their own, as a recorder writes them
	hw, err := NewWriter(w, meta)
	if err != nil {
		return err
	}
	for i := range h.Meta.Disturbances {
		err = errors.Join(err, hw.append(line{Disturbance: &h.Meta.Disturbances[i]}))
	}
	for i := range h.Initial {
		err = errors.Join(err, hw.append(line{Initial: &h.Initial[i]}))
	}
	for i := range h.Operations {
		if err != nil {
			break
		}
		err = hw.Operation(&h.Operations[i])
	}
	for i := range h.Watches {
		if err != nil {
			break
		}
		if err = hw.Watch(h.Watches[i]); err != nil {
			break
		}
		for j := range h.Watches[i].Responses {
			err = errors.Join(err, hw.Response(h.Watches[i].ID, &h.Watches[i].Responses[j]))
		}
	}
	for _, hash := range h.Hashes {
		err = errors.Join(err, hw.Hash(hash))
	}
	if err != nil {
		return errors.Join(err, hw.Close())
	}
	return hw.Close()
}

// Read reads a history. A file whose end is missing is read up to there, and Torn
// says so; anything else that is wrong is an error that names the line. Errors wrap
// ErrFormat where the file is no history at all.
func Read(r io.Reader) (*History, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, fmt.Errorf("read the history: %w", err)
	}
	defer z.Close()
	return readLines(z)
}

// readLines splits the lines off, and has them parsed by several at a time.
func readLines(r io.Reader) (*History, error) {
	s := &scanner{r: bufio.NewReaderSize(r, 1<<20)}
	first, err := s.next()
	switch {
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%w: the file is empty", ErrFormat)
	case errors.Is(err, zstd.ErrMagicMismatch):
		return nil, fmt.Errorf("%w: the file is not compressed with zstd", ErrFormat)
	case err != nil && len(first) == 0:
		return nil, fmt.Errorf("%w: line 1 can't be read: %w", ErrFormat, err)
	}
	p := &parser{h: &History{}, watches: map[int]int{}, seen: interner{}}
	var format struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(first, &format); err != nil {
		return nil, fmt.Errorf("%w: line 1 is no meta: %w", ErrFormat, err)
	}
	if format.Format != Format {
		return nil, fmt.Errorf("%w: line 1 says format %d, and this version reads format %d: take the version of quorate that wrote it", ErrFormat, format.Format, Format)
	}
	if err := strict(first, &p.h.Meta); err != nil {
		return nil, fmt.Errorf("%w: line 1 is no meta: %w", ErrFormat, err)
	}
	if err := p.rest(s); err != nil {
		return nil, err
	}
	return p.h, nil
}

// scanner yields lines.
type scanner struct {
	r    *bufio.Reader
	line int
}

var errLong = fmt.Errorf("it is longer than %d MiB", MaxLine>>20)

// next yields one line without its end; with an error, what there is of it.
func (s *scanner) next() ([]byte, error) {
	s.line++
	var long []byte
	for {
		part, err := s.r.ReadSlice('\n')
		if len(long)+len(part) > MaxLine {
			return nil, errLong
		}
		switch {
		case err == nil && long == nil:
			return part[:len(part)-1], nil
		case err == nil:
			return append(long, part[:len(part)-1]...), nil
		case errors.Is(err, bufio.ErrBufferFull):
			long = append(long, part...)
		default:
			return append(long, part...), err
		}
	}
}
