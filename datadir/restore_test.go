package datadir

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"go.etcd.io/bbolt"
)

// readOnce gives what it has and then an error.
func readOnce(raw []byte, err error) io.Reader {
	return io.MultiReader(bytes.NewReader(raw), iotest.ErrReader(err))
}

// TestRestoreRefusals has each refusal, and that nothing is left of it.
func TestRestoreRefusals(t *testing.T) {
	t.Parallel()
	raw := sealed(t, synthetic(t, 500, 100))
	altered := bytes.Clone(raw)
	altered[len(raw)/2] ^= 4
	broken := errors.New("the store is gone")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tc := range []struct {
		name string
		edit func(t *testing.T, o *RestoreOptions)
		ctx  context.Context //nolint:containedctx // a row of the table
		want error
		says string
	}{
		{"no directory", func(_ *testing.T, o *RestoreOptions) { o.Dir = "" }, nil, ErrRestore, "no data directory"},
		{"no snapshot", func(_ *testing.T, o *RestoreOptions) { o.Snapshot, o.Path = nil, "" }, nil, ErrRestore, "no snapshot"},
		{"a missing file", func(t *testing.T, o *RestoreOptions) {
			t.Helper()
			o.Snapshot, o.Path = nil, filepath.Join(t.TempDir(), "none")
		}, nil, os.ErrNotExist, "none"},
		{"not a member", func(_ *testing.T, o *RestoreOptions) { o.Name = "z" }, nil, ErrRestore, `member "z"`},
		{"no cluster", func(_ *testing.T, o *RestoreOptions) { o.InitialCluster = nil }, nil, ErrRestore, "no peer URL"},
		{"no URL", func(_ *testing.T, o *RestoreOptions) { o.InitialCluster["b"] = []string{"nonsense"} }, nil, ErrRestore, `member "b"`},
		{"one URL twice", func(_ *testing.T, o *RestoreOptions) { o.InitialCluster["b"] = o.InitialCluster["a"] }, nil, ErrRestore, "twice"},
		{"a bump backwards", func(_ *testing.T, o *RestoreOptions) { o.BumpRevision = -1 }, nil, ErrRestore, "never goes back"},
		{"a bump too far", func(_ *testing.T, o *RestoreOptions) { o.BumpRevision = math.MaxInt64 }, nil, ErrRestore, "no revision any more"},
		{"no room", func(_ *testing.T, o *RestoreOptions) { o.Size = 1 << 60 }, nil, ErrRestore, "MiB are free"},
		{"a directory with data", func(t *testing.T, o *RestoreOptions) {
			t.Helper()
			write(t, filepath.Join(o.Dir, "member/wal/x"), "")
		}, nil, ErrRestore, "it holds member"},
		{"a file", func(t *testing.T, o *RestoreOptions) { t.Helper(); write(t, o.Dir, "") }, nil, ErrRestore, "not a directory"},
		{"a directory that looks like a restore", func(t *testing.T, o *RestoreOptions) {
			t.Helper()
			write(t, filepath.Join(o.Dir+partialMark, "mine"), "")
		}, nil, ErrRestore, "it holds mine"},
		{"no byte", func(_ *testing.T, o *RestoreOptions) { o.Snapshot = bytes.NewReader(nil) }, nil, ErrEmpty, ""},
		{"altered, into new directories", func(_ *testing.T, o *RestoreOptions) {
			o.Snapshot, o.Dir = bytes.NewReader(altered), filepath.Join(o.Dir, "a", "b")
		}, nil, ErrAltered, ""},
		{"half", func(_ *testing.T, o *RestoreOptions) { o.Snapshot = bytes.NewReader(raw[:len(raw)/2]) }, nil, ErrTruncated, "from the store"},
		{"altered", func(_ *testing.T, o *RestoreOptions) { o.Snapshot = bytes.NewReader(altered) }, nil, ErrAltered, "SHA-256"},
		{"no hash", func(_ *testing.T, o *RestoreOptions) { o.Snapshot = bytes.NewReader(raw[:len(raw)-hashBytes]) }, nil, ErrNoHash, ""},
		{"foreign", func(_ *testing.T, o *RestoreOptions) { o.Snapshot = strings.NewReader(strings.Repeat("x", 9999)) }, nil, ErrNotDatabase, ""},
		{"a stream that breaks off", func(_ *testing.T, o *RestoreOptions) { o.Snapshot = readOnce(raw[:20000], broken) }, nil, broken, ""},
		{"a stream that says its end is missing", func(_ *testing.T, o *RestoreOptions) { o.Snapshot = readOnce(raw, io.ErrUnexpectedEOF) }, nil, io.ErrUnexpectedEOF, ""},
		{"no time", func(*testing.T, *RestoreOptions) {}, cancelled, context.Canceled, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			home := t.TempDir()
			o := restoreOptions(home)
			o.Path, o.Snapshot, o.BumpRevision = "from the store", bytes.NewReader(raw), 0
			dir := o.Dir
			tc.edit(t, &o)
			before := tree(t, home)
			ctx := t.Context()
			if tc.ctx != nil {
				ctx = tc.ctx
			}
			_, err := Restore(ctx, o)
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("got %v, want %v saying %q", err, tc.want, tc.says)
			}
			if after := tree(t, home); after != before {
				t.Errorf("there was\n%s\nand now there is\n%s", before, after)
			}
			if o.Dir == dir && tc.want != ErrRestore { //nolint:errorlint // the table's own value
				o = restoreOptions(home)
				o.Snapshot = bytes.NewReader(raw)
				if _, err = Restore(t.Context(), o); err != nil {
					t.Errorf("afterwards: %v", err)
				}
			}
		})
	}
}

// tree lists all that is below a directory.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var list strings.Builder
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		list.WriteString(path + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list.String()
}

// TestRestoreTwoAtOnce starts a restore while another one to the same directory is
// under way.
func TestRestoreTwoAtOnce(t *testing.T) {
	t.Parallel()
	raw := sealed(t, synthetic(t, 500, 100))
	home := t.TempDir()
	first, second := restoreOptions(home), restoreOptions(home)
	pipe, feed := io.Pipe()
	first.Snapshot, second.Snapshot = pipe, bytes.NewReader(raw)
	done := make(chan error)
	go func() {
		_, err := Restore(t.Context(), first)
		done <- err
	}()
	if _, err := feed.Write(raw[:5000]); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), second); !errors.Is(err, ErrRestore) || !strings.Contains(err.Error(), "under way") {
		t.Errorf("the second one: %v", err)
	}
	_, err := feed.Write(raw[5000:])
	if err = errors.Join(err, feed.Close(), <-done); err != nil {
		t.Error(err)
	}
}

// TestRestoreKinds restores databases of other makes: with a list of free pages,
// with another size of pages, without the buckets and fields of newer etcds, and
// into a directory that is there and empty.
func TestRestoreKinds(t *testing.T) {
	t.Parallel()
	plain := synthetic(t, 300, 100)
	for _, tc := range []struct {
		name    string
		options bbolt.Options
		old     bool
	}{
		{"as etcd", bbolt.Options{NoFreelistSync: true}, false},
		{"with a list of free pages", bbolt.Options{}, false},
		{"large pages", bbolt.Options{NoFreelistSync: true, PageSize: 16384}, false},
		{"of etcd 3.3", bbolt.Options{}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			home := t.TempDir()
			o := restoreOptions(home)
			if err := errors.Join(convert(plain, filepath.Join(home, "db"), tc.options, tc.old), os.Mkdir(o.Dir, 0o700)); err != nil {
				t.Fatal(err)
			}
			raw := sealed(t, filepath.Join(home, "db"))
			info, err := checkBytes(t, raw, CheckOptions{})
			if err != nil || info.Keys != 270 || info.Revision != 361 {
				t.Fatalf("%+v, %v", info, err)
			}
			if err = os.WriteFile(o.Path, raw, 0o600); err != nil {
				t.Fatal(err)
			}
			done, err := Restore(t.Context(), o)
			if err != nil || done.Revision != 366 || done.Source.Revision != 361 || done.Bytes != int64(len(raw)) || done.Source.Path != o.Path {
				t.Fatalf("%+v, %v", done, err)
			}
			path := filepath.Join(o.Dir, "member", "snap", "db")
			if err = boltCheck(path); err != nil {
				t.Errorf("bbolt's check: %v", err)
			}
			info, err = CheckSnapshot(t.Context(), path, CheckOptions{AllowNoHash: true})
			if err != nil || info.Keys != 270 || info.Records != 361 || info.Revision != 366 || info.ScheduledCompact != 366 ||
				len(info.Members) != 2 || len(info.RemovedMembers) != 0 || info.ConsistentIndex != 2 {
				t.Errorf("%+v, %v", info, err)
			}
			if p := open(t, path).pager; p.freelist != noFreelist {
				t.Errorf("the list of free pages is at %d", p.freelist)
			}
			stat, err := os.Stat(o.Dir)
			if err != nil || stat.Mode().Perm() != 0o700 {
				t.Errorf("%v, %v", stat, err)
			}
		})
	}
}

// convert copies a database into one of another make, twice over so that pages
// become free.
func convert(from, to string, options bbolt.Options, old bool) (err error) {
	src, err := bbolt.Open(from, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	dst, err := bbolt.Open(to, 0o600, &options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	copyAll := func(name []byte, b *bbolt.Bucket) error {
		for range 2 {
			uerr := dst.Update(func(tx *bbolt.Tx) error {
				if tx.Bucket(name) != nil {
					if derr := tx.DeleteBucket(name); derr != nil {
						return derr
					}
				}
				out, cerr := tx.CreateBucket(name)
				if cerr != nil {
					return cerr
				}
				return b.ForEach(func(k, v []byte) error {
					if old && string(k) == "term" {
						return nil
					}
					return out.Put(k, v)
				})
			})
			if uerr != nil {
				return uerr
			}
		}
		return nil
	}
	return src.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			if old && string(name) != keyBucket && string(name) != metaBucket {
				return nil
			}
			return copyAll(name, b)
		})
	})
}

// TestKeyRanges has the ends of prefixes and the memory of keys.
func TestKeyRanges(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		r      KeyRange
		in     []string
		beyond []string
	}{
		{KeyRange{}, []string{"a", "\xff\xff"}, nil},
		{Prefix(""), []string{"a", "\xff\xff"}, nil},
		{Prefix("a/"), []string{"a/", "a/b", "a/\xff"}, []string{"a", "a0", "b"}},
		{Prefix("a\xff"), []string{"a\xff", "a\xffz"}, []string{"a", "b"}},
		{Prefix("\xff"), []string{"\xff", "\xff\xff"}, []string{"a"}},
		{Single("a"), []string{"a"}, []string{"a\x00", "b", ""}},
	} {
		for _, k := range tc.in {
			if !tc.r.holds([]byte(k)) {
				t.Errorf("%q is not in %q", k, tc.r)
			}
		}
		for _, k := range tc.beyond {
			if tc.r.holds([]byte(k)) {
				t.Errorf("%q is in %q", k, tc.r)
			}
		}
	}
	set, twin := newKeySet(), map[string]bool{}
	for i := range 300_000 {
		key := strings.Repeat("k", i%7) + string(rune(i*7919%200_000))
		if set.add([]byte(key)) == twin[key] {
			t.Fatalf("%q: seen before is %v", key, twin[key])
		}
		twin[key] = true
	}
}
