package bucket_test

import (
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/test/s3lab"
)

// watchHeap says how much more was in use at most than at the beginning, in bytes.
func watchHeap(t *testing.T, do func()) uint64 {
	t.Helper()
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	defer debug.SetGCPercent(debug.SetGCPercent(20)) // so that it is what is held, not what was let go of
	done, peak := make(chan struct{}), make(chan uint64)
	go func() {
		most := before.HeapAlloc
		for {
			select {
			case <-done:
				peak <- most
				return
			case <-time.After(5 * time.Millisecond):
				runtime.ReadMemStats(&now)
				most = max(most, now.HeapAlloc)
			}
		}
	}()
	do()
	close(done)
	return <-peak - before.HeapAlloc
}

// TestMemory stores and reads much more than may be kept, of a size that nobody knows; a GiB
// of it with QUORATE_BUCKET_MIB=1024.
func TestMemory(t *testing.T) {
	mib := int64(128)
	if v, err := strconv.ParseInt(os.Getenv("QUORATE_BUCKET_MIB"), 10, 64); err == nil {
		mib = v
	}
	for name, open := range map[string]func(t *testing.T) bucket.Bucket{
		"s3": func(t *testing.T) bucket.Bucket {
			t.Helper()
			lab := s3lab.New(t, s3lab.Options{})
			lab.Make("memory")
			c := lab.Config("memory")
			c.Endpoint = lab.Address
			return open(t, c, bucket.Options{Credentials: s3lab.Credentials()})
		},
		"directory": func(t *testing.T) bucket.Bucket {
			t.Helper()
			return directory(t, t.TempDir())
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			body := struct{ io.Reader }{io.LimitReader(rand.NewChaCha8([32]byte{}), mib<<20)}
			start := time.Now()
			held := watchHeap(t, func() {
				if info, err := b.Put(t.Context(), "x", body, bucket.PutOptions{}); err != nil || info.Size != mib<<20 {
					t.Errorf("put: %+v, %v", info, err)
				}
			})
			up := time.Since(start)
			start = time.Now()
			read := watchHeap(t, func() {
				r, err := b.Get(t.Context(), "x")
				if err != nil {
					t.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, struct{ io.Reader }{r}); n != mib<<20 || err != nil {
					t.Errorf("get: %d, %v", n, err)
				}
				_ = r.Close() // all was read
			})
			down := time.Since(start)
			t.Logf("%d MiB: up %.0f MiB/s with %d KiB held, down %.0f MiB/s with %d KiB held",
				mib, float64(mib)/up.Seconds(), held>>10, float64(mib)/down.Seconds(), read>>10)
			if held > 34<<20 || read > 8<<20 {
				t.Errorf("%d KiB and %d KiB were held", held>>10, read>>10)
			}
		})
	}
}
