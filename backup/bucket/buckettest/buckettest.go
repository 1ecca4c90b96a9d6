// Package buckettest asks of a bucket what bucket.Bucket promises.
package buckettest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quorate/quorate/backup/bucket"
)

// Large is more than what any store takes in one part here, in bytes.
const Large = 20<<20 + 123

// Run runs the suite. Make gives an empty bucket; each test gets another one.
func Run(t *testing.T, open func(t *testing.T) bucket.Bucket) {
	t.Helper()
	for _, tc := range []struct {
		name string
		run  func(*testing.T, bucket.Bucket)
	}{
		{"what is stored is read", testRoundTrip},
		{"ranges", testRanges},
		{"the newer one counts", testReplace},
		{"missing", testMissing},
		{"names that are refused", testNames},
		{"lists", testList},
		{"a long list", testLongList},
		{"a list that is ended", testListEnds},
		{"parts of it", testSub},
		{"deleting", testDelete},
		{"a body that fails", testBodyFails},
		{"a body of another length", testBodyLength},
		{"a body that is not at its beginning", testBodyOffset},
		{"a context that ends", testCancelled},
		{"many at once", testParallel},
		{"what is left behind", testAbortStale},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := open(t)
			t.Cleanup(func() {
				if err := b.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			tc.run(t, b)
		})
	}
}

// Bytes are n of them, the same for the same n.
func Bytes(n int) []byte {
	data := make([]byte, n)
	source := rand.NewChaCha8(sha256.Sum256([]byte(strconv.Itoa(n))))
	_, _ = source.Read(data) // it never fails
	return data
}

// Put stores data.
func Put(t *testing.T, b bucket.Bucket, name string, data []byte) bucket.Info {
	t.Helper()
	info, err := b.Put(t.Context(), name, bytes.NewReader(data), bucket.PutOptions{})
	if err != nil {
		t.Fatalf("put %s: %v", name, err)
	}
	return info
}

// Read reads an object.
func Read(t *testing.T, b bucket.Bucket, name string) []byte {
	t.Helper()
	data, err := read(t.Context(), b, name, 0, -1)
	if err != nil {
		t.Fatalf("get %s: %v", name, err)
	}
	return data
}

func read(ctx context.Context, b bucket.Bucket, name string, off, length int64) ([]byte, error) {
	r, err := b.GetRange(ctx, name, off, length)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

// Names lists what is below a prefix, sorted.
func Names(t *testing.T, b bucket.Bucket, prefix string) []string {
	t.Helper()
	var names []string
	err := b.List(t.Context(), prefix, func(info bucket.Info) error {
		names = append(names, info.Name)
		return nil
	})
	if err != nil {
		t.Fatalf("list %q: %v", prefix, err)
	}
	slices.Sort(names)
	return names
}

func testRoundTrip(t *testing.T, b bucket.Bucket) {
	t.Helper()
	for _, n := range []int{0, 1, 1000, 256 << 10, 256<<10 + 1, 8<<20 - 1, 8 << 20, 8<<20 + 1, Large} {
		data := Bytes(n)
		for kind, body := range map[string]io.Reader{
			"seekable": bytes.NewReader(data),
			"a pipe":   iotest.HalfReader(bytes.NewReader(data)),
		} {
			name := fmt.Sprintf("round/%d", n)
			before := time.Now().Add(-2 * time.Second)
			info, err := b.Put(t.Context(), name, body, bucket.PutOptions{Size: int64(n)})
			if err != nil {
				t.Fatalf("put %d bytes, %s: %v", n, kind, err)
			}
			if info.Name != name || info.Size != int64(n) {
				t.Errorf("put %d bytes, %s: %+v", n, kind, info)
			}
			if info.Modified.Before(before) || info.Modified.After(time.Now().Add(2*time.Second)) {
				t.Errorf("put %d bytes, %s: modified at %s", n, kind, info.Modified)
			}
			if stat, err := b.Stat(t.Context(), name); err != nil || !cmp.Equal(stat, info) {
				t.Errorf("stat after put of %d bytes: %+v, %v, want %+v", n, stat, err, info)
			}
			if got := Read(t, b, name); !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %s: %d other bytes came back", n, kind, len(got))
			}
		}
	}
}

func testRanges(t *testing.T, b bucket.Bucket) {
	t.Helper()
	data := Bytes(1000)
	Put(t, b, "a/ranges", data)
	for _, tc := range []struct{ off, length, want int64 }{
		{0, -1, 1000},
		{0, 1000, 1000},
		{0, 1, 1},
		{0, 0, 0},
		{0, 2000, 1000},
		{10, -1, 990},
		{10, 5, 5},
		{999, 1, 1},
		{999, 2, 1},
		{500, 500, 500},
		{500, 501, 500},
		{1000, -1, 0},
		{1000, 7, 0},
		{1000, 0, 0},
	} {
		got, err := read(t.Context(), b, "a/ranges", tc.off, tc.length)
		if err != nil || !bytes.Equal(got, data[tc.off:tc.off+tc.want]) {
			t.Errorf("range %d+%d: %d bytes, %v, want %d", tc.off, tc.length, len(got), err, tc.want)
		}
	}
	for _, off := range []int64{-1, 1001} {
		if _, err := read(t.Context(), b, "a/ranges", off, 1); !errors.Is(err, bucket.ErrRefused) {
			t.Errorf("range from %d on: %v, want ErrRefused", off, err)
		}
	}
}

func testReplace(t *testing.T, b bucket.Bucket) {
	t.Helper()
	Put(t, b, "same", Bytes(100))
	Put(t, b, "same", Bytes(50))
	if got := Read(t, b, "same"); !bytes.Equal(got, Bytes(50)) {
		t.Errorf("%d bytes came back", len(got))
	}
	if names := Names(t, b, ""); len(names) != 1 {
		t.Errorf("it is listed as %q", names)
	}
}

func testMissing(t *testing.T, b bucket.Bucket) {
	t.Helper()
	Put(t, b, "dir/there", nil)
	for _, name := range []string{"missing", "dir/missing", "no/such/dir/missing", "dir"} {
		_, err := b.Stat(t.Context(), name)
		check(t, "stat", name, err)
		_, err = read(t.Context(), b, name, 0, -1)
		check(t, "get", name, err)
		if err = b.Delete(t.Context(), name); err != nil {
			t.Errorf("delete %s: %v", name, err)
		}
	}
	if names := Names(t, b, "missing"); len(names) != 0 {
		t.Errorf("listed: %q", names)
	}
	if got := Names(t, b, ""); !slices.Equal(got, []string{"dir/there"}) {
		t.Errorf("listed: %q", got)
	}
}

func check(t *testing.T, op, name string, err error) {
	t.Helper()
	e, ok := errors.AsType[*bucket.Error](err)
	if !ok || !errors.Is(err, bucket.ErrNotFound) || e.Op != op || !strings.HasSuffix(e.Object, name) {
		t.Errorf("%s %s: %v, want ErrNotFound", op, name, err)
	}
}

func testNames(t *testing.T, b bucket.Bucket) {
	t.Helper()
	for _, name := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/..", "./a", ".a", "a/.b", `a\b`, "a\x00b", "a\nb", "a\xff",
		strings.Repeat("a", 256), strings.Repeat("abcd/", 250) + "a",
	} {
		_, err := b.Put(t.Context(), name, strings.NewReader("x"), bucket.PutOptions{})
		_, statErr := b.Stat(t.Context(), name)
		_, getErr := b.Get(t.Context(), name)
		for op, err := range map[string]error{"put": err, "stat": statErr, "get": getErr, "delete": b.Delete(t.Context(), name)} {
			if !errors.Is(err, bucket.ErrRefused) {
				t.Errorf("%s %q: %v, want ErrRefused", op, name, err)
			}
		}
	}
	if names := Names(t, b, ""); len(names) != 0 {
		t.Errorf("something was stored: %q", names)
	}
	good := []string{"a", "a-b", "a b/ü+&?#%20=:@", "x.y/..z.", strings.Repeat("n", 250)}
	good = slices.DeleteFunc(good, func(name string) bool { return strings.Contains(name, "/.") })
	for _, name := range good {
		Put(t, b, name, []byte(name))
		if got := string(Read(t, b, name)); got != name {
			t.Errorf("%q holds %q", name, got)
		}
	}
	slices.Sort(good)
	if diff := cmp.Diff(good, Names(t, b, "")); diff != "" {
		t.Errorf("listed, -want +got:\n%s", diff)
	}
}

func testList(t *testing.T, b bucket.Bucket) {
	t.Helper()
	for _, name := range []string{"prod/a/1", "prod/a/2", "prod/b", "prod-eu/a", "prod.x/a", "zprod"} {
		Put(t, b, name, []byte(name))
	}
	for prefix, want := range map[string][]string{
		"":        {"prod-eu/a", "prod.x/a", "prod/a/1", "prod/a/2", "prod/b", "zprod"},
		"prod":    {"prod/a/1", "prod/a/2", "prod/b"},
		"prod/a":  {"prod/a/1", "prod/a/2"},
		"prod/b":  nil,
		"pro":     nil,
		"prod-eu": {"prod-eu/a"},
	} {
		if diff := cmp.Diff(want, Names(t, b, prefix)); diff != "" {
			t.Errorf("list %q, -want +got:\n%s", prefix, diff)
		}
	}
	err := b.List(t.Context(), "", func(info bucket.Info) error {
		stat, err := b.Stat(t.Context(), info.Name)
		if err != nil || stat.Size != info.Size || !stat.Modified.Truncate(time.Second).Equal(info.Modified.Truncate(time.Second)) {
			t.Errorf("listed as %+v, stat says %+v, %v", info, stat, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for _, prefix := range []string{"/", "prod/", "..", "a//b"} {
		if err = b.List(t.Context(), prefix, nil); !errors.Is(err, bucket.ErrRefused) {
			t.Errorf("list %q: %v, want ErrRefused", prefix, err)
		}
	}
}

// testLongList has more objects than a page holds.
func testLongList(t *testing.T, b bucket.Bucket) {
	t.Helper()
	const n = 1100
	work := make(chan int)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := range work {
				if _, err := b.Put(t.Context(), fmt.Sprintf("long/%d/%04d", i%7, i), strings.NewReader("x"), bucket.PutOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	wg.Wait()
	if names := slices.Compact(Names(t, b, "long")); len(names) != n {
		t.Errorf("%d of %d are listed", len(names), n)
	}
}

func testListEnds(t *testing.T, b bucket.Bucket) {
	t.Helper()
	for i := range 5 {
		Put(t, b, fmt.Sprint("n", i), nil)
	}
	enough := errors.New("enough")
	n := 0
	err := b.List(t.Context(), "", func(bucket.Info) error {
		n++
		return enough
	})
	if err != enough || n != 1 { //nolint:errorlint // it is promised to come back as it is
		t.Errorf("after %d: %v", n, err)
	}
}

func testSub(t *testing.T, b bucket.Bucket) {
	t.Helper()
	sub, err := b.Sub("one/two")
	if err != nil {
		t.Fatal(err)
	}
	Put(t, sub, "x/y", []byte("in"))
	Put(t, b, "one/twofold", []byte("out"))
	if got := Names(t, sub, ""); !slices.Equal(got, []string{"x/y"}) {
		t.Errorf("below it are %q", got)
	}
	if got := Names(t, sub, "x"); !slices.Equal(got, []string{"x/y"}) {
		t.Errorf("below x are %q", got)
	}
	if got := string(Read(t, b, "one/two/x/y")); got != "in" {
		t.Errorf("it holds %q", got)
	}
	deeper, err := sub.Sub("x")
	if err != nil {
		t.Fatal(err)
	}
	if got := string(Read(t, deeper, "y")); got != "in" {
		t.Errorf("deeper it holds %q", got)
	}
	if !strings.Contains(deeper.String(), "one/two/x") {
		t.Errorf("it is called %s", deeper)
	}
	for _, prefix := range []string{"", "..", "/a", "a/../.."} {
		if _, err = b.Sub(prefix); !errors.Is(err, bucket.ErrRefused) {
			t.Errorf("sub %q: %v, want ErrRefused", prefix, err)
		}
	}
}

func testDelete(t *testing.T, b bucket.Bucket) {
	t.Helper()
	for _, name := range []string{"d/e/f/1", "d/e/2"} {
		Put(t, b, name, nil)
	}
	for range 2 {
		if err := b.Delete(t.Context(), "d/e/f/1"); err != nil {
			t.Errorf("delete: %v", err)
		}
		if got := Names(t, b, ""); !slices.Equal(got, []string{"d/e/2"}) {
			t.Errorf("afterwards there are %q", got)
		}
	}
	if err := b.Delete(t.Context(), "d/e/2"); err != nil {
		t.Errorf("delete: %v", err)
	}
	Put(t, b, "d/e/f/1", []byte("again"))
	if got := string(Read(t, b, "d/e/f/1")); got != "again" {
		t.Errorf("it holds %q", got)
	}
}

func testBodyFails(t *testing.T, b bucket.Bucket) {
	t.Helper()
	Put(t, b, "kept", []byte("before"))
	broken := errors.New("the disk is gone")
	for _, cause := range []error{broken, io.ErrUnexpectedEOF} {
		for _, n := range []int{0, 100, 8 << 20, Large} {
			for _, name := range []string{"kept", "new"} {
				body := io.MultiReader(bytes.NewReader(Bytes(n)), iotest.ErrReader(cause))
				start := time.Now()
				_, err := b.Put(t.Context(), name, body, bucket.PutOptions{})
				e, ok := errors.AsType[*bucket.Error](err)
				if !errors.Is(err, cause) || !ok || e.Kind != nil {
					t.Errorf("after %d bytes: %v, want that the body is to blame", n, err)
				}
				if took := time.Since(start); took > 10*time.Second {
					t.Errorf("after %d bytes it took %s: it was repeated", n, took)
				}
			}
		}
	}
	if got := Names(t, b, ""); !slices.Equal(got, []string{"kept"}) {
		t.Errorf("afterwards there are %q", got)
	}
	if got := string(Read(t, b, "kept")); got != "before" {
		t.Errorf("what was there holds %q", got)
	}
}

func testBodyLength(t *testing.T, b bucket.Bucket) {
	t.Helper()
	for _, n := range []int{10, Large} {
		for _, said := range []int{n - 1, n + 1} {
			for _, body := range []io.Reader{bytes.NewReader(Bytes(n)), io.MultiReader(bytes.NewReader(Bytes(n)))} {
				if _, err := b.Put(t.Context(), "x", body, bucket.PutOptions{Size: int64(said)}); err == nil {
					t.Errorf("%d bytes that should be %d were stored", n, said)
				}
			}
		}
	}
	if names := Names(t, b, ""); len(names) != 0 {
		t.Errorf("afterwards there are %q", names)
	}
}

func testBodyOffset(t *testing.T, b bucket.Bucket) {
	t.Helper()
	r := strings.NewReader("0123456789")
	if _, err := r.Seek(4, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Put(t.Context(), "rest", r, bucket.PutOptions{Size: 6}); err != nil {
		t.Fatal(err)
	}
	if got := string(Read(t, b, "rest")); got != "456789" {
		t.Errorf("it holds %q", got)
	}
}

// endless is a body that ends a context after n bytes.
type endless struct {
	n      int
	cancel context.CancelFunc
}

func (e *endless) Read(p []byte) (int, error) {
	if e.n -= len(p); e.n < 0 {
		e.cancel()
	}
	return len(p), nil
}

func testCancelled(t *testing.T, b bucket.Bucket) {
	t.Helper()
	Put(t, b, "there", Bytes(100))
	for _, n := range []int{0, 1 << 20, Large} {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := b.Put(ctx, "x", &endless{n, cancel}, bucket.PutOptions{})
		if !errors.Is(err, context.Canceled) || errors.Is(err, bucket.ErrUnavailable) {
			t.Errorf("put: %v, want context.Canceled alone", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, statErr := b.Stat(ctx, "there")
	_, getErr := read(ctx, b, "there", 0, -1)
	for op, err := range map[string]error{
		"stat": statErr, "get": getErr,
		"list": b.List(ctx, "", func(bucket.Info) error { return nil }),
	} {
		if err != nil && !errors.Is(err, context.Canceled) || errors.Is(err, bucket.ErrUnavailable) {
			t.Errorf("%s: %v, want context.Canceled alone", op, err)
		}
	}
	if got := Names(t, b, ""); !slices.Equal(got, []string{"there"}) {
		t.Errorf("afterwards there are %q", got)
	}
}

// testParallel has writers replace an object while others read it: each read is one of the
// bodies as a whole, or an error that says it was replaced; and so is what a writer finds.
func testParallel(t *testing.T, b bucket.Bucket) {
	t.Helper()
	var bodies [][]byte
	for i := range 4 {
		bodies = append(bodies, bytes.Repeat([]byte{byte('a' + i)}, 1000*(i+1)))
	}
	Put(t, b, "p/shared", bodies[0])
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 10 {
				_, putErr := b.Put(t.Context(), "p/shared", bytes.NewReader(bodies[(i+n)%len(bodies)]), bucket.PutOptions{})
				if putErr != nil && !errors.Is(putErr, bucket.ErrCorrupt) {
					t.Errorf("put: %v", putErr)
				}
				own := fmt.Sprintf("p/own/%d", i)
				if _, ownErr := b.Put(t.Context(), own, strings.NewReader(own), bucket.PutOptions{}); ownErr != nil {
					t.Errorf("put: %v", ownErr)
				}
				data, err := read(t.Context(), b, "p/shared", 0, -1)
				replaced := errors.Is(err, bucket.ErrCorrupt)
				if !replaced && (err != nil || !slices.ContainsFunc(bodies, func(body []byte) bool { return bytes.Equal(body, data) })) {
					t.Errorf("get: %d bytes, %v", len(data), err)
				}
				if err = b.Delete(t.Context(), own); err != nil {
					t.Errorf("delete: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if got := Names(t, b, ""); !slices.Equal(got, []string{"p/shared"}) {
		t.Errorf("afterwards there are %q", got)
	}
}

func testAbortStale(t *testing.T, b bucket.Bucket) {
	t.Helper()
	n, err := b.AbortStale(t.Context(), 0)
	if errors.Is(err, errors.ErrUnsupported) {
		return // it says so, which is all that can be asked of it
	}
	if err != nil || n != 0 {
		t.Errorf("in an empty bucket: %d, %v", n, err)
	}
}
