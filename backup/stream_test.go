package backup

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
)

// TestHashing has every byte read and hashed once, however they come, and the end or an
// error only after them.
func TestHashing(t *testing.T) {
	t.Parallel()
	data := make([]byte, 3*spoolBuffer+12345)
	r := rand.New(rand.NewPCG(5, 6))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	broken := errors.New("the spool is broken")
	for name, from := range map[string]io.Reader{
		"whole":                 bytes.NewReader(data),
		"in halves":             iotest.HalfReader(bytes.NewReader(data)),
		"its end with its data": iotest.DataErrReader(bytes.NewReader(data)),
		"broken behind it":      io.MultiReader(bytes.NewReader(data), iotest.ErrReader(broken)),
	} {
		sum := sha256.New()
		h := newHashing(from, sum)
		var got bytes.Buffer
		buf := make([]byte, 100_001)
		var err error
		for err == nil {
			var n int
			n, err = h.Read(buf)
			got.Write(buf[:n])
		}
		want := io.EOF
		if name == "broken behind it" {
			want = broken
		}
		if !errors.Is(err, want) || !bytes.Equal(got.Bytes(), data) || [sha256.Size]byte(sum.Sum(nil)) != sha256.Sum256(data) {
			t.Errorf("%s: %d of %d bytes, %v; the hash is of them: %v", name, got.Len(), len(data), err, [sha256.Size]byte(sum.Sum(nil)) == sha256.Sum256(data))
		}
		if n, again := h.Read(buf); n != 0 || !errors.Is(again, want) {
			t.Errorf("%s: then %d bytes and %v", name, n, again)
		}
	}
}

// TestPackerFails: what packs says why it stops, to the stream too, so that it stops as well.
func TestPackerFails(t *testing.T) {
	t.Parallel()
	s, err := NewSpool(t.TempDir(), 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err = os.Mkdir(filepath.Join(s.Dir(), packedFile), 0o700); err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 1)
	k := startPacker(t.Context(), s, packing{level: zstd.SpeedFastest}, func(err error) { told <- err })
	if _, err = k.wait(t.Context()); !errors.Is(err, os.ErrExist) || !errors.Is(<-told, os.ErrExist) || !errors.Is(k.failed(), os.ErrExist) {
		t.Errorf("%v, and later %v", err, k.failed())
	}
	k.stop()
}
