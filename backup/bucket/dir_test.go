package bucket_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/bucket/buckettest"
)

func directory(t *testing.T, path string) bucket.Bucket {
	t.Helper()
	return open(t, bucket.Config{Provider: bucket.File, Prefix: path}, bucket.Options{})
}

// files are all paths below a directory, sorted.
func files(t *testing.T, root string) []string {
	t.Helper()
	var found []string
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, _ fs.DirEntry, err error) error {
		found = append(found, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestDirectoryMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "unmounted")
	_, err := bucket.Open(t.Context(), bucket.Config{Provider: bucket.File, Prefix: path}, bucket.Options{})
	want(t, err, bucket.ErrNoBucket, "mkdir", path)
	if _, err = os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it was made: %v", err)
	}
	if err = os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = bucket.Open(t.Context(), bucket.Config{Provider: bucket.File, Prefix: path}, bucket.Options{})
	want(t, err, bucket.ErrNoBucket)
}

// TestDirectoryYield: a file that is yielded is the object from then on, and one that can't
// be is copied.
func TestDirectoryYield(t *testing.T) {
	data := buckettest.Bytes(300_000)
	for _, tc := range []struct {
		name   string
		gone   bool
		mode   os.FileMode
		offset int64
		opts   bucket.PutOptions
		limit  int64
		linked bool
	}{
		{"yielded", false, 0o600, 0, bucket.PutOptions{Yield: true, Size: 300_000}, 0, true},
		{"not yielded", false, 0o600, 0, bucket.PutOptions{Size: 300_000}, 0, false},
		{"of unknown size", false, 0o600, 0, bucket.PutOptions{Yield: true}, 0, false},
		{"that others may read", false, 0o644, 0, bucket.PutOptions{Yield: true, Size: 300_000}, 0, false},
		{"read in part", false, 0o600, 1000, bucket.PutOptions{Yield: true, Size: 299_000}, 0, false},
		{"at a limited rate", false, 0o600, 0, bucket.PutOptions{Yield: true, Size: 300_000}, 100 << 20, false},
		{"that has no name any more", true, 0o600, 0, bucket.PutOptions{Yield: true, Size: 300_000}, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root, path := t.TempDir(), filepath.Join(t.TempDir(), "file")
			b := open(t, bucket.Config{Provider: bucket.File, Prefix: root}, bucket.Options{UploadRate: tc.limit})
			if err := os.WriteFile(path, data, tc.mode); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = f.Close() })
			if tc.gone {
				if err = os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
			if _, err = f.Seek(tc.offset, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			info, err := b.Put(t.Context(), "a/b", f, tc.opts)
			if err != nil || info.Size != int64(len(data))-tc.offset {
				t.Fatalf("%+v, %v", info, err)
			}
			own, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			stored, err := os.Stat(filepath.Join(root, "a", "b"))
			if err != nil || os.SameFile(own, stored) != tc.linked || stored.Mode() != 0o600 {
				t.Errorf("the same file: %v, want %v; mode %v, %v", os.SameFile(own, stored), tc.linked, stored.Mode(), err)
			}
			if err = os.Remove(path); err != nil && !tc.gone {
				t.Fatal(err)
			}
			if got := buckettest.Read(t, b, "a/b"); !bytes.Equal(got, data[tc.offset:]) {
				t.Error("it has other bytes")
			}
			if got := files(t, root); !slices.Equal(got, []string{".", "a", "a/b"}) {
				t.Errorf("left: %q", got)
			}
		})
	}
}

func TestDirectoryModes(t *testing.T) {
	root := t.TempDir()
	b := directory(t, root)
	buckettest.Put(t, b, "a/b/c", []byte("x"))
	for path, mode := range map[string]fs.FileMode{"a": 0o700, "a/b": 0o700, "a/b/c": 0o600} {
		stat, err := os.Stat(filepath.Join(root, path))
		if err != nil || stat.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v, want %v", path, stat.Mode(), err, mode)
		}
	}
	if err := b.Delete(t.Context(), "a/b/c"); err != nil {
		t.Fatal(err)
	}
	if got := files(t, root); !slices.Equal(got, []string{"."}) {
		t.Errorf("left: %q", got)
	}
}

// TestDirectoryLinks: what lies outside is neither read nor written.
func TestDirectoryLinks(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(root, "out")); err != nil {
		t.Fatal(err)
	}
	b := directory(t, root)
	if _, err := b.Put(t.Context(), "out/x", strings.NewReader("x"), bucket.PutOptions{}); err == nil {
		t.Error("it was written outside")
	}
	if _, err := b.Get(t.Context(), "out/secret"); err == nil {
		t.Error("it was read outside")
	}
	if got := files(t, outside); !slices.Equal(got, []string{".", "secret"}) {
		t.Errorf("outside are %q", got)
	}
}

func TestDirectoryNamesCollide(t *testing.T) {
	b := directory(t, t.TempDir())
	buckettest.Put(t, b, "a/b", nil)
	for _, name := range []string{"a", "a/b/c"} {
		_, err := b.Put(t.Context(), name, strings.NewReader("x"), bucket.PutOptions{})
		want(t, err, bucket.ErrRefused)
	}
	if got := buckettest.Names(t, b, ""); !slices.Equal(got, []string{"a/b"}) {
		t.Errorf("there are %q", got)
	}
}

// TestDirectoryLeftovers: the partial file of a process that was killed is not seen, and is
// removed when it is old.
func TestDirectoryLeftovers(t *testing.T) {
	root := t.TempDir()
	b := directory(t, root)
	buckettest.Put(t, b, "a/x", nil)
	for name, age := range map[string]time.Duration{".partial-OLD": 2 * time.Hour, ".partial-YOUNG": 0, ".other": 2 * time.Hour} {
		path := filepath.Join(root, "a", name)
		at := time.Now().Add(-age)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	if got := buckettest.Names(t, b, ""); !slices.Equal(got, []string{"a/x"}) {
		t.Errorf("listed: %q", got)
	}
	if n, err := b.AbortStale(t.Context(), time.Hour); n != 1 || err != nil {
		t.Errorf("%d, %v, want 1", n, err)
	}
	if got := files(t, root); !slices.Equal(got, []string{".", "a", "a/.other", "a/.partial-YOUNG", "a/x"}) {
		t.Errorf("left: %q", got)
	}
}

func TestDirectoryFull(t *testing.T) {
	root := t.TempDir()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("a small file system can't be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	b := directory(t, root)
	buckettest.Put(t, b, "older", buckettest.Bytes(1<<20))
	_, err := b.Put(t.Context(), "large", bytes.NewReader(buckettest.Bytes(8<<20)), bucket.PutOptions{})
	want(t, err, bucket.ErrNoSpace, "free some space")
	if got := files(t, root); !slices.Equal(got, []string{".", "older"}) {
		t.Errorf("left: %q", got)
	}
	if got := buckettest.Read(t, b, "older"); !bytes.Equal(got, buckettest.Bytes(1<<20)) {
		t.Error("what was there is damaged")
	}
	buckettest.Put(t, b, "small", buckettest.Bytes(1<<20))
}

func TestDirectoryReadOnly(t *testing.T) {
	root := t.TempDir()
	b := directory(t, root)
	buckettest.Put(t, b, "x", []byte("x"))
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	if err := unix.Mount(root, root, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("it can't be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	if err := unix.Mount("", root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	b = directory(t, root)
	_, err := b.Put(t.Context(), "y", strings.NewReader("y"), bucket.PutOptions{})
	want(t, err, bucket.ErrDenied, "only be read")
	if strings.Contains(err.Error(), "asked as") {
		t.Errorf("nobody logs in to a directory: %v", err)
	}
	want(t, b.Delete(t.Context(), "x"), bucket.ErrDenied)
	if got := string(buckettest.Read(t, b, "x")); got != "x" {
		t.Errorf("it holds %q", got)
	}
}

func TestDirectoryHasNoLock(t *testing.T) {
	b := directory(t, t.TempDir())
	_, err := b.Put(t.Context(), "x", strings.NewReader("x"), bucket.PutOptions{RetainUntil: time.Now().Add(time.Hour)})
	want(t, err, bucket.ErrRefused, "no object lock")
	if !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%v", err)
	}
}

func TestRates(t *testing.T) {
	b := open(t, bucket.Config{Provider: bucket.File, Prefix: t.TempDir()}, bucket.Options{UploadRate: 4 << 20, DownloadRate: 8 << 20})
	data := buckettest.Bytes(2 << 20)
	start := time.Now()
	buckettest.Put(t, b, "x", data)
	if took := time.Since(start); took < 400*time.Millisecond || took > 3*time.Second {
		t.Errorf("2 MiB up at 4 MiB/s took %s", took)
	}
	start = time.Now()
	if got := buckettest.Read(t, b, "x"); !bytes.Equal(got, data) {
		t.Error("other bytes came back")
	}
	if took := time.Since(start); took < 150*time.Millisecond || took > 2*time.Second {
		t.Errorf("2 MiB down at 8 MiB/s took %s", took)
	}
	// Without a rate nothing is waited for, and a nil limiter is one.
	if n, err := io.Copy(io.Discard, bucket.LimitReader(t.Context(), bytes.NewReader(data), bucket.NewLimiter(0))); n != int64(len(data)) || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}
