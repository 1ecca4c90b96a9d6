package bucket_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/bucket/buckettest"
	"github.com/quorate/quorate/test/s3lab"
)

// fast repeats without much waiting.
var fast = bucket.Retry{Attempts: 8, Min: 5 * time.Millisecond, Max: 50 * time.Millisecond, Total: 20 * time.Second}

func open(t *testing.T, c bucket.Config, o bucket.Options) bucket.Bucket {
	t.Helper()
	if o.Retry.Attempts == 0 {
		o.Retry = fast
	}
	b, err := bucket.Open(t.Context(), c, o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDirectory(t *testing.T) {
	buckettest.Run(t, func(t *testing.T) bucket.Bucket {
		t.Helper()
		return open(t, bucket.Config{Provider: bucket.File, Prefix: t.TempDir()}, bucket.Options{})
	})
}

// TestS3 is below a prefix; the tests with faults are in whole buckets.
func TestS3(t *testing.T) {
	lab := s3lab.New(t, s3lab.Options{})
	n := 0
	buckettest.Run(t, func(t *testing.T) bucket.Bucket {
		t.Helper()
		n++
		name := fmt.Sprintf("conformance-%d", n)
		lab.Make(name)
		c := lab.Config(name)
		c.Prefix = "some/where"
		t.Cleanup(func() {
			if left := lab.Uploads(name); len(left) > 0 {
				t.Errorf("uploads are left behind: %q", left)
			}
		})
		return open(t, c, bucket.Options{Credentials: s3lab.Credentials()})
	})
}
