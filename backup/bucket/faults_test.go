package bucket_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/bucket/buckettest"
	"github.com/quorate/quorate/test/s3lab"
)

// faulty is a bucket of a lab whose proxy disturbs it. What must not be printed is looked for
// in every error.
type faulty struct {
	lab      *s3lab.Lab
	name     string
	attempts atomic.Int64
	bucket.Bucket
}

func newFaulty(t *testing.T, lab *s3lab.Lab, name string, o bucket.Options) *faulty {
	t.Helper()
	lab.Proxy.Heal()
	lab.Make(name)
	f := &faulty{lab: lab, name: name}
	o.Credentials = s3lab.Credentials()
	o.OnAttempt = func(bucket.Attempt) { f.attempts.Add(1) }
	f.Bucket = open(t, lab.Config(name), o)
	return f
}

// clean fails if anything but these objects can be seen, or an upload was left.
func (f *faulty) clean(t *testing.T, want ...string) {
	t.Helper()
	f.lab.Proxy.Heal()
	if got := f.lab.Keys(f.name); !slices.Equal(got, want) {
		t.Errorf("there are %q, want %q", got, want)
	}
	if left := f.lab.Uploads(f.name); len(left) > 0 {
		t.Errorf("uploads are left: %q", left)
	}
}

// want checks that an error is precise: the sentinel, the store, the object, and words.
func want(t *testing.T, err, kind error, words ...string) {
	t.Helper()
	_ = precise(t, err, kind, words...) // it was all checked
}

// precise is want, for more to be checked.
func precise(t *testing.T, err, kind error, words ...string) *bucket.Error {
	t.Helper()
	e, ok := errors.AsType[*bucket.Error](err)
	if !ok || !errors.Is(err, kind) {
		t.Fatalf("%v, want %v", err, kind)
	}
	for _, word := range append(words, e.Store, e.Object) {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not say %q", err, word)
		}
	}
	if strings.Contains(err.Error(), s3lab.Secret) || strings.Contains(fmt.Sprintf("%#v", e), s3lab.Secret) {
		t.Errorf("%q has the secret", err)
	}
	t.Log(err)
	return e
}

// pipe is a body that can be read once.
func pipe(data []byte) io.Reader { return iotest.HalfReader(bytes.NewReader(data)) }

func TestTransientFaults(t *testing.T) {
	lab := s3lab.New(t, s3lab.Options{})
	small, large := buckettest.Bytes(1000), buckettest.Bytes(buckettest.Large)
	for i, tc := range []struct {
		name  string
		fault s3lab.Fault
	}{
		{"503 for a third", s3lab.Fault{Share: 0.33, Status: 503, Code: "SlowDown"}},
		{"500 for a third", s3lab.Fault{Share: 0.33, Status: 500, Code: "InternalError"}},
		{"429 for a third", s3lab.Fault{Share: 0.33, Status: 429, Code: "TooManyRequests"}},
		{"uploads are cut", s3lab.Fault{Match: s3lab.Method("PUT", ""), Times: 4, CutRequest: 500}},
		{"a part is cut", s3lab.Fault{Match: s3lab.Method("PUT", "partNumber=2"), Times: 3, CutRequest: 5 << 20}},
		{"bytes of an upload are damaged", s3lab.Fault{Match: s3lab.Method("PUT", ""), Times: 4, FlipRequest: 77}},
		{"downloads are cut", s3lab.Fault{Match: s3lab.Method("GET", ""), Times: 5, CutResponse: 300}},
		{"large downloads are cut", s3lab.Fault{Match: s3lab.Method("GET", "large"), Times: 6, CutResponse: 3 << 20}},
		{"answers are lost", s3lab.Fault{Match: s3lab.Method("PUT", ""), Times: 3, DropResponse: true}},
		{"the answer to the end is lost", s3lab.Fault{Match: func(r *http.Request) bool {
			return r.Method == http.MethodPost && r.URL.Query().Has("uploadId")
		}, Times: 1, DropResponse: true}},
		{"everything stands still at times", s3lab.Fault{Share: 0.2, Freeze: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFaulty(t, lab, fmt.Sprintf("transient-%d", i), bucket.Options{Stall: time.Second})
			lab.Proxy.Add(tc.fault)
			for name, data := range map[string][]byte{"small": small, "large": large} {
				if _, err := f.Put(t.Context(), name, pipe(data), bucket.PutOptions{}); err != nil {
					t.Fatalf("put %s: %v", name, err)
				}
				if got := buckettest.Read(t, f, name); !bytes.Equal(got, data) {
					t.Errorf("%s: %d other bytes came back", name, len(got))
				}
			}
			if got := buckettest.Names(t, f, ""); !slices.Equal(got, []string{"large", "small"}) {
				t.Errorf("listed: %q", got)
			}
			if met := lab.Proxy.Heal(); met == 0 || f.attempts.Load() == 0 {
				t.Errorf("the fault met %d requests, and %d attempts were told", met, f.attempts.Load())
			}
			f.clean(t, "large", "small")
		})
	}
}

func TestLastingFaults(t *testing.T) {
	lab := s3lab.New(t, s3lab.Options{})
	few := bucket.Retry{Attempts: 3, Min: time.Millisecond, Max: 5 * time.Millisecond, Total: time.Minute}
	large := buckettest.Bytes(buckettest.Large)
	for i, tc := range []struct {
		name  string
		fault s3lab.Fault
		kind  error
		words []string
		stall time.Duration
	}{
		{"503", s3lab.Fault{Status: 503, Code: "SlowDown"}, bucket.ErrUnavailable, []string{"after 3 attempts", "by the fault proxy"}, 0},
		{"uploads are cut", s3lab.Fault{Match: s3lab.Method("PUT", ""), CutRequest: 500}, bucket.ErrUnavailable, []string{"after 3 attempts"}, 0},
		{"damaged uploads", s3lab.Fault{Match: s3lab.Method("PUT", ""), FlipRequest: 500}, bucket.ErrCorrupt, []string{"after 3 attempts"}, 0},
		{"a part fails", s3lab.Fault{Match: s3lab.Method("PUT", "partNumber=2"), Status: 500}, bucket.ErrUnavailable, []string{"after 3 attempts"}, 0},
		{"the end fails", s3lab.Fault{Match: s3lab.Method("POST", "uploadId="), Status: 500}, bucket.ErrUnavailable, []string{"after 3 attempts"}, 0},
		{"it stands still", s3lab.Fault{Match: s3lab.Method("PUT", ""), Freeze: true}, bucket.ErrUnavailable, []string{"after 3 attempts", "timeout"}, 200 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFaulty(t, lab, fmt.Sprintf("lasting-%d", i), bucket.Options{Retry: few, Stall: tc.stall})
			buckettest.Put(t, f, "kept", []byte("before"))
			// Only what is asked of the object: the clean-up after it goes through.
			match := tc.fault.Match
			tc.fault.Match = func(r *http.Request) bool { return r.Method != http.MethodDelete && (match == nil || match(r)) }
			if match == nil {
				tc.fault.Match = s3lab.Method("POST", "")
			}
			lab.Proxy.Add(tc.fault)
			_, err := f.Put(t.Context(), "kept", pipe(large), bucket.PutOptions{})
			want(t, err, tc.kind, tc.words...)
			f.clean(t, "kept")
			if got := string(buckettest.Read(t, f, "kept")); got != "before" {
				t.Errorf("what was there holds %q", got)
			}
		})
	}
}

func TestDownloadFaults(t *testing.T) {
	lab := s3lab.New(t, s3lab.Options{})
	f := newFaulty(t, lab, "downloads", bucket.Options{Retry: bucket.Retry{Attempts: 3, Min: time.Millisecond, Max: time.Millisecond, Total: time.Minute}})
	buckettest.Put(t, f, "small", buckettest.Bytes(1000))

	t.Run("a bit flips on the way", func(t *testing.T) {
		lab.Proxy.Add(s3lab.Fault{Match: s3lab.Method("GET", "small"), FlipResponse: 500})
		defer lab.Proxy.Heal()
		want(t, readError(t, f, "small"), bucket.ErrCorrupt, "MD5")
	})
	t.Run("a bit flips in the store", func(t *testing.T) {
		path := filepath.Join(lab.Root, "downloads", "small")
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		data[500] ^= 1
		if err = os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		want(t, readError(t, f, "small"), bucket.ErrCorrupt, "MD5")
	})
	t.Run("it breaks off again and again", func(t *testing.T) {
		buckettest.Put(t, f, "large", buckettest.Bytes(buckettest.Large))
		lab.Proxy.Add(s3lab.Fault{Match: s3lab.Method("GET", "large"), Times: 1, CutResponse: 1 << 20}, s3lab.Fault{Match: s3lab.Method("GET", "large"), Status: 503})
		defer lab.Proxy.Heal()
		want(t, readError(t, f, "large"), bucket.ErrUnavailable, "after 3 attempts")
	})
	t.Run("it is replaced while it is read", func(t *testing.T) {
		r, err := f.Get(t.Context(), "large")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = r.Close() }()
		if _, err = io.CopyN(io.Discard, r, 100); err != nil {
			t.Fatal(err)
		}
		_ = r.Close()
		buckettest.Put(t, f, "large", buckettest.Bytes(buckettest.Large-1))
		again, err := f.Get(t.Context(), "large")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = again.Close() }()
		lab.Proxy.Add(s3lab.Fault{Match: s3lab.Method("GET", "large"), Times: 1, CutResponse: 1 << 20})
		third, err := f.Get(t.Context(), "large")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = third.Close() }()
		buckettest.Put(t, f, "large", buckettest.Bytes(buckettest.Large))
		_, err = io.Copy(io.Discard, third)
		want(t, err, bucket.ErrCorrupt, "replaced")
	})
}

func readError(t *testing.T, b bucket.Bucket, name string) error {
	t.Helper()
	r, err := b.Get(t.Context(), name)
	if err != nil {
		return err
	}
	_, err = io.ReadAll(r)
	return errors.Join(err, r.Close())
}

func TestCancelledUploadIsAborted(t *testing.T) {
	lab := s3lab.New(t, s3lab.Options{})
	f := newFaulty(t, lab, "cancelled", bucket.Options{})
	lab.Proxy.Add(s3lab.Fault{Match: s3lab.Method("PUT", "partNumber"), BytesPerSecond: 1 << 20})
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := f.Put(ctx, "x", pipe(buckettest.Bytes(buckettest.Large)), bucket.PutOptions{})
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, bucket.ErrUnavailable) {
		t.Errorf("%v, want context.DeadlineExceeded alone", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %s to end", took)
	}
	f.clean(t)
}

func TestStaleUploads(t *testing.T) {
	lab := s3lab.New(t, s3lab.Options{})
	f := newFaulty(t, lab, "stale", bucket.Options{})
	core := minio.Core{Client: lab.Admin}
	for _, key := range []string{"mine/a", "mine/a", "mine/b/c", "mine-too/a", "other/a"} {
		if _, err := core.NewMultipartUpload(t.Context(), "stale", key, minio.PutObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	sub, err := f.Sub("mine")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := sub.AbortStale(t.Context(), time.Hour); n != 0 || err != nil {
		t.Errorf("of the young ones: %d, %v", n, err)
	}
	if n, err := sub.AbortStale(t.Context(), -time.Minute); n != 3 || err != nil {
		t.Errorf("%d, %v, want 3", n, err)
	}
	if got := lab.Uploads("stale"); !slices.Equal(got, []string{"mine-too/a", "other/a"}) {
		t.Errorf("there are still %q", got)
	}
}

func TestDenied(t *testing.T) {
	lab := s3lab.New(t, s3lab.Options{})
	lab.Make("denied")
	revoke := lab.User("AKUSER", "user-secret")
	lab.Own("denied", "AKUSER")
	asked := func(key, secret string) bucket.Bucket {
		return open(t, lab.Config("denied"), bucket.Options{Credentials: s3lab.UserCredentials(key, secret)})
	}
	b := asked("AKUSER", "user-secret")
	buckettest.Put(t, b, "x", nil)

	_, err := asked("AKUSER", "wrong-secret").Put(t.Context(), "y", strings.NewReader("y"), bucket.PutOptions{})
	e := precise(t, err, bucket.ErrDenied, "AKUSER", "secret is not that of the key")
	if e.Attempts != 1 || strings.Contains(err.Error(), "wrong-secret") {
		t.Errorf("%d attempts: %v", e.Attempts, err)
	}
	_, err = asked("AKNOBODY", "any-secret").Put(t.Context(), "y", strings.NewReader("y"), bucket.PutOptions{})
	want(t, err, bucket.ErrDenied, "AKNOBODY")

	lab.User("AKOTHER", "other-secret")
	_, err = asked("AKOTHER", "other-secret").Put(t.Context(), "y", strings.NewReader("y"), bucket.PutOptions{})
	want(t, err, bucket.ErrDenied, "AKOTHER", "permission")

	// A large upload whose credentials are revoked in its middle.
	revoked := &after{Reader: pipe(buckettest.Bytes(buckettest.Large)), n: 12 << 20, do: revoke}
	_, err = b.Put(t.Context(), "large", revoked, bucket.PutOptions{})
	want(t, err, bucket.ErrDenied, "AKUSER", "revoked")
	_, err = b.Stat(t.Context(), "x")
	want(t, err, bucket.ErrDenied)
	err = b.List(t.Context(), "", func(bucket.Info) error { return nil })
	want(t, err, bucket.ErrDenied, "AKUSER")
	want(t, b.Delete(t.Context(), "x"), bucket.ErrDenied)
	if got := lab.Keys("denied"); !slices.Equal(got, []string{"x"}) {
		t.Errorf("there are %q", got)
	}
}

// after does something once n bytes were read.
type after struct {
	io.Reader
	n  int
	do func()
}

func (a *after) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if a.n -= n; a.n < 0 && a.do != nil {
		a.do()
		a.do = nil
	}
	return n, err
}

func TestNoBucket(t *testing.T) {
	lab := s3lab.New(t, s3lab.Options{})
	b := open(t, lab.Config("nobody-made-it"), bucket.Options{Credentials: s3lab.Credentials()})
	_, err := b.Put(t.Context(), "x", strings.NewReader("x"), bucket.PutOptions{})
	want(t, err, bucket.ErrNoBucket, "make the bucket")
	_, err = b.Stat(t.Context(), "x")
	want(t, err, bucket.ErrNoBucket)
	_, err = b.Get(t.Context(), "x")
	want(t, err, bucket.ErrNoBucket)
	want(t, b.List(t.Context(), "", nil), bucket.ErrNoBucket)
	want(t, b.Delete(t.Context(), "x"), bucket.ErrNoBucket)
}

func TestNobodyAnswers(t *testing.T) {
	c := bucket.Config{Provider: bucket.S3, Bucket: "bucket", Endpoint: s3lab.Unused(t), Insecure: true}
	b := open(t, c, bucket.Options{Credentials: s3lab.Credentials()})
	_, err := b.Stat(t.Context(), "x")
	want(t, err, bucket.ErrUnavailable, "after 8 attempts", "connection refused")
}

func TestClockSkew(t *testing.T) {
	lab := s3lab.New(t, s3lab.Options{})
	for _, skew := range []time.Duration{time.Hour, -time.Hour} {
		f := newFaulty(t, lab, "skew"+strconv.FormatBool(skew > 0), bucket.Options{})
		lab.Proxy.Add(s3lab.Fault{Skew: skew})
		_, err := f.Put(t.Context(), "x", strings.NewReader("x"), bucket.PutOptions{})
		// The Date of an answer has whole seconds.
		words := " ahead"
		if skew < 0 {
			words = " behind"
		}
		e := precise(t, err, bucket.ErrClockSkew, words, "NTP")
		if (e.Skew-skew).Abs() > 5*time.Second || e.Attempts != 1 {
			t.Errorf("skew %s after %d attempts", e.Skew, e.Attempts)
		}
		_, err = f.Stat(t.Context(), "x")
		want(t, err, bucket.ErrClockSkew, words)
		f.clean(t)
	}
}

func TestDiskFull(t *testing.T) {
	lab := s3lab.New(t, s3lab.Options{TmpfsBytes: 30 << 20})
	f := newFaulty(t, lab, "full", bucket.Options{})
	buckettest.Put(t, f, "older", buckettest.Bytes(1<<20))
	_, err := f.Put(t.Context(), "large", pipe(buckettest.Bytes(40<<20)), bucket.PutOptions{})
	want(t, err, bucket.ErrNoSpace)
	f.clean(t, "older")
	if got := buckettest.Read(t, f, "older"); !bytes.Equal(got, buckettest.Bytes(1<<20)) {
		t.Error("what was there is damaged")
	}
}

func TestObjectLock(t *testing.T) {
	lab := s3lab.New(t, s3lab.Options{})
	lab.MakeLocking("locking")
	lab.Make("plain")
	b := open(t, lab.Config("locking"), bucket.Options{Credentials: s3lab.Credentials()})
	for i, compliance := range []bool{false, true} {
		for _, n := range []int{100, buckettest.Large} {
			name := fmt.Sprintf("locked-%d-%d", i, n)
			until := time.Now().Add(time.Hour).Truncate(time.Second)
			info, err := b.Put(t.Context(), name, pipe(buckettest.Bytes(n)), bucket.PutOptions{RetainUntil: until, Compliance: compliance})
			if err != nil {
				t.Fatal(err)
			}
			if !info.RetainUntil.Equal(until) {
				t.Errorf("%s is locked until %s, want %s", name, info.RetainUntil, until)
			}
			e := precise(t, b.Delete(t.Context(), name), bucket.ErrLocked, until.UTC().Format(time.RFC3339))
			if !e.Until.Equal(until) {
				t.Errorf("until %s, want %s", e.Until, until)
			}
			if got := buckettest.Read(t, b, name); !bytes.Equal(got, buckettest.Bytes(n)) {
				t.Errorf("%s is damaged", name)
			}
		}
	}
	until := time.Now().Add(3 * time.Second)
	if _, err := b.Put(t.Context(), "short", strings.NewReader("x"), bucket.PutOptions{RetainUntil: until}); err != nil {
		t.Fatal(err)
	}
	want(t, b.Delete(t.Context(), "short"), bucket.ErrLocked)
	time.Sleep(time.Until(until) + 1500*time.Millisecond)
	if err := b.Delete(t.Context(), "short"); err != nil {
		t.Errorf("after its lock: %v", err)
	}
	versions := 0
	for object := range lab.Admin.ListObjects(t.Context(), "locking", minio.ListObjectsOptions{Prefix: "short", WithVersions: true, Recursive: true}) {
		t.Logf("%+v", object)
		versions++
	}
	if versions > 0 {
		t.Errorf("%d versions are still paid for", versions)
	}

	plain := open(t, lab.Config("plain"), bucket.Options{Credentials: s3lab.Credentials()})
	_, err := plain.Put(t.Context(), "x", strings.NewReader("x"), bucket.PutOptions{RetainUntil: time.Now().Add(time.Hour)})
	want(t, err, bucket.ErrRefused, "has no object lock")
	_, err = plain.Put(t.Context(), "x", strings.NewReader("x"), bucket.PutOptions{RetainUntil: time.Now().Add(-time.Hour)})
	want(t, err, bucket.ErrRefused, "over already")
}
