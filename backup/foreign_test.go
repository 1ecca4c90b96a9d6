package backup_test

import (
	"bytes"
	"compress/gzip"
	"compress/lzw"
	"compress/zlib"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/datadir"
	"github.com/quorate/quorate/test/etcdlab"
	"github.com/quorate/quorate/test/s3lab"
)

var update = flag.Bool("update", false, "make the files in testdata/foreign anew, from an etcd that is started for that")

// suffixes of etcd-backup-restore, and how it packs: these are the calls that it makes.
var suffixes = map[string]func(io.Writer) io.WriteCloser{
	"":      func(w io.Writer) io.WriteCloser { return unpackedWriter{w} },
	".gz":   func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
	".Z":    func(w io.Writer) io.WriteCloser { return lzw.NewWriter(w, lzw.LSB, 8) },
	".zlib": func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) },
}

type unpackedWriter struct{ io.Writer }

func (unpackedWriter) Close() error { return nil }

// zstdWriter is no way of etcd-backup-restore, but of `zstd`, and of ours.
func zstdWriter(w io.Writer) io.WriteCloser {
	enc, err := zstd.NewWriter(w)
	if err != nil {
		panic(err)
	}
	return enc
}

func packed(t *testing.T, content []byte, with func(io.Writer) io.WriteCloser) []byte {
	t.Helper()
	var b bytes.Buffer
	w := with(&b)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// snapshotOf is what etcd sends: a database and its SHA-256.
func snapshotOf(t *testing.T, c *clientv3.Client) []byte {
	t.Helper()
	r, err := c.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

const (
	foreignDir  = "testdata/foreign"
	foreignKeys = 40
)

// TestForeignFiles restores full snapshots as etcd-backup-restore stores them, and has an
// etcd serve what is in them: from a file, and as objects of a store.
func TestForeignFiles(t *testing.T) {
	t.Parallel()
	if *update {
		makeForeign(t)
	}
	dir, err := filepath.Abs(foreignDir)
	if err != nil {
		t.Fatal(err)
	}
	store := open(t, bucket.Config{Provider: bucket.File, Prefix: dir}, bucket.Credentials{})
	for suffix := range suffixes {
		t.Run("suffix "+suffix, func(t *testing.T) {
			t.Parallel()
			name := foreignFile(t, suffix)
			for what, o := range map[string]backup.Origin{
				"file":   {File: filepath.Join(dir, name)},
				"object": {Bucket: store, Object: name},
			} {
				c := restore(t, o)
				r, err := c.Get(t.Context(), "", clientv3.WithFromKey())
				if err != nil {
					t.Fatal(err)
				}
				if len(r.Kvs) != foreignKeys || r.Header.Revision != foreignKeys+1 {
					t.Fatalf("%s: %d keys at revision %d", what, len(r.Kvs), r.Header.Revision)
				}
				for i, kv := range r.Kvs {
					if string(kv.Key) != foreignKey(i) || string(kv.Value) != fmt.Sprint("value ", i) || kv.ModRevision != int64(i+2) {
						t.Errorf("%s: %q=%q at %d", what, kv.Key, kv.Value, kv.ModRevision)
					}
				}
			}
		})
	}
}

func foreignKey(i int) string { return fmt.Sprintf("/foreign/%02d", i) }

// foreignFile is the one file with a suffix.
func foreignFile(t *testing.T, suffix string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(foreignDir, "v2", "Full-*"+suffix))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		if filepath.Ext(f) == suffix {
			return "v2/" + filepath.Base(f)
		}
	}
	t.Fatalf("%s has no full snapshot with the suffix %q", foreignDir, suffix)
	return ""
}

// makeForeign makes the files anew.
func makeForeign(t *testing.T) {
	t.Helper()
	c := etcdlab.New(t, etcdlab.Options{}).Ready().Members[0].Dial()
	var at int64
	for i := range foreignKeys {
		r, err := c.Put(t.Context(), foreignKey(i), fmt.Sprint("value ", i))
		if err != nil {
			t.Fatal(err)
		}
		at = r.Header.Revision
	}
	raw := snapshotOf(t, c)
	for suffix, with := range suffixes {
		file := fmt.Sprintf("Full-%08d-%08d-%d%s", 0, at, 1700000000, suffix)
		if err := os.WriteFile(filepath.Join(foreignDir, "v2", file), packed(t, raw, with), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// delta is what etcd-backup-restore stores between full snapshots: events and their hash.
var delta = []byte(`[{"etcdEvent":{"kv":{"key":"L2E=","create_revision":2,"mod_revision":2,"version":1,"value":"MQ=="}},"time":"2026-11-21T12:00:00Z"}]01234567890123456789012345678901`)

// TestForeignRefused has each way of packing cut short, altered and continued, in a store
// and as a file.
func TestForeignRefused(t *testing.T) {
	t.Parallel()
	c := etcdlab.New(t, etcdlab.Options{}).Ready().Members[0].Dial()
	fill(t, c, 100)
	raw := snapshotOf(t, c)
	ways := map[string]func(io.Writer) io.WriteCloser{".zst": zstdWriter}
	maps.Copy(ways, suffixes)
	store := directory(t)
	try := func(t *testing.T, name string, content []byte, classes ...error) {
		t.Helper()
		if _, err := store.Put(t.Context(), name, bytes.NewReader(content), bucket.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), filepath.Base(name))
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, o := range []backup.Origin{{Bucket: store, Object: name}, {File: file}} {
			dir := filepath.Join(t.TempDir(), "data")
			_, err := backup.Restore(t.Context(), backup.RestoreOptions{
				Origin: o, Members: []backup.RestoreMember{{Name: "a", Dir: dir}}, InitialCluster: map[string][]string{"a": {"http://127.0.0.1:2380"}},
			})
			if len(classes) == 0 {
				if err != nil {
					t.Errorf("%s: %v", o, err)
				}
				continue
			}
			known := false
			for _, class := range classes {
				known = known || errors.Is(err, class)
			}
			if !known {
				t.Errorf("%s: %v", o, err)
			}
			if _, statErr := os.Stat(dir); !errors.Is(statErr, os.ErrNotExist) {
				t.Errorf("%s left a data directory: %v", o, statErr)
			}
		}
	}
	cut := []error{backup.ErrPacked, datadir.ErrTruncated, datadir.ErrAltered, datadir.ErrNoHash}
	for suffix, with := range ways {
		t.Run("as"+suffix, func(t *testing.T) {
			t.Parallel()
			whole := packed(t, raw, with)
			base := "v2" + suffix + "/Full-00000000-00000200-1700000000"
			try(t, base, whole)
			for _, missing := range []int{1, 4, 8, 9, 32, 33, 512, len(whole) / 2, len(whole) - 40} {
				try(t, fmt.Sprint(base, "-short-", missing), whole[:len(whole)-missing], cut...)
			}
			// Its writer ends the packing also where the stream of etcd broke.
			for _, missing := range []int{1, 31, 32, 33, 4096, 4096 + 32, len(raw) / 2} {
				try(t, fmt.Sprint(base, "-broken-", missing), packed(t, raw[:len(raw)-missing], with), cut...)
			}
			// Every way of packing must show a bit, or the hash does.
			for at := range 8 {
				altered := bytes.Clone(whole)
				altered[len(altered)*(2*at+1)/16] ^= 0x10
				try(t, fmt.Sprint(base, "-altered-", at), altered, append(cut, datadir.ErrStructure)...)
			}
			try(t, base+"-more", append(bytes.Clone(whole), "more"...), append(cut, datadir.ErrNotDatabase)...)
			try(t, base+"-delta", packed(t, delta, with), backup.ErrDelta)
			try(t, strings.Replace(base, "Full-", "Incr-", 1), whole, backup.ErrDelta)
			try(t, base+"-other", packed(t, bytes.Repeat([]byte("xhello"), 2000), with), datadir.ErrNotDatabase)
			// Little that unpacks to much is refused by how it begins: its end is not asked for.
			much := packed(t, make([]byte, 16<<20), with)
			try(t, base+"-bomb", much[:len(much)/2], datadir.ErrNotDatabase)
		})
	}
	// Zeros are no database, and begin as what is packed with lzw does.
	try(t, "zeros", make([]byte, 9000), datadir.ErrNotDatabase)
	try(t, "nothing", nil, datadir.ErrEmpty)
}

// TestForeignOfStores restores objects of others out of an S3 store, and tells a store
// that fails from an object that is damaged.
func TestForeignOfStores(t *testing.T) {
	t.Parallel()
	lab := s3lab.New(t, s3lab.Options{})
	lab.Make("theirs")
	c := etcdlab.New(t, etcdlab.Options{}).Ready().Members[0].Dial()
	fill(t, c, 100)
	want, raw := dump(t, c), snapshotOf(t, c)
	config := lab.Config("theirs")
	all := open(t, config, s3lab.Credentials())
	mine, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	sealed := func(w io.Writer) io.WriteCloser {
		out, sealErr := age.Encrypt(w, mine.Recipient())
		if sealErr != nil {
			t.Fatal(sealErr)
		}
		return out
	}
	name := "shoot--dev--main/etcd-main/v2/Full-00000000-00000200-1700000000"
	for suffix, content := range map[string][]byte{".gz": packed(t, raw, suffixes[".gz"]), ".gz.final": packed(t, raw, suffixes[".gz"]), ".age": packed(t, packed(t, raw, zstdWriter), sealed)} {
		if _, err = all.Put(t.Context(), name+suffix, bytes.NewReader(content), bucket.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		c, object, parseErr := bucket.ParseObject("s3://theirs/" + name + suffix + "?" + strings.SplitN(config.String(), "?", 2)[1])
		if parseErr != nil {
			t.Fatal(parseErr)
		}
		o := backup.Origin{Bucket: open(t, c, s3lab.Credentials()), Object: object}
		if suffix == ".age" {
			if _, err = backup.Fetch(t.Context(), o, t.TempDir(), 1); !errors.Is(err, backup.ErrNoIdentity) {
				t.Errorf("without an identity: %v", err)
			}
			o.Identities = []age.Identity{mine}
		}
		if got := dump(t, restore(t, o)); got != want {
			t.Errorf("restored from %s:\n%s\nwant\n%s", o, head(got), head(want))
		}
	}
	gone := backup.Origin{Bucket: all, Object: name + ".zlib"}
	if _, err = backup.Fetch(t.Context(), gone, t.TempDir(), 1); !errors.Is(err, bucket.ErrNotFound) {
		t.Errorf("what is not there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = backup.Fetch(ctx, backup.Origin{Bucket: all, Object: name + ".gz"}, t.TempDir(), 1); !errors.Is(err, context.Canceled) || errors.Is(err, backup.ErrPacked) {
		t.Errorf("when it was ended: %v", err)
	}
}

// TestForeignReplaced has the object replaced between two members: they would be two
// clusters' data under one name.
func TestForeignReplaced(t *testing.T) {
	t.Parallel()
	store := directory(t)
	c := etcdlab.New(t, etcdlab.Options{}).Ready().Members[0].Dial()
	put := func() {
		if _, err := c.Put(t.Context(), "n", "1"); err != nil {
			t.Error(err)
		}
		if _, err := store.Put(t.Context(), "nightly.db", bytes.NewReader(snapshotOf(t, c)), bucket.PutOptions{}); err != nil {
			t.Error(err)
		}
	}
	put()
	peers := map[string][]string{"a": {"http://127.0.0.1:2380"}, "b": {"http://127.0.0.1:2381"}}
	o := backup.RestoreOptions{Origin: backup.Origin{Bucket: store, Object: "nightly.db"}, InitialCluster: peers}
	for name := range peers {
		o.Members = append(o.Members, backup.RestoreMember{Name: name, Dir: filepath.Join(t.TempDir(), name)})
	}
	if _, err := backup.Restore(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	for i := range o.Members {
		o.Members[i].Dir += "-again"
	}
	var once sync.Once
	o.Progress = func(p backup.Progress) {
		if p.Done > 0 { // the first member has read it
			once.Do(put)
		}
	}
	made, err := backup.Restore(t.Context(), o)
	if !errors.Is(err, backup.ErrReplaced) || len(made) != 1 {
		t.Errorf("%d members were made: %v", len(made), err)
	}
}

// open is a bucket for the time of a test.
func open(t *testing.T, c bucket.Config, as bucket.Credentials) bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(t.Context(), c, bucket.Options{Credentials: as})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// TestIsDelta knows them by their names alone.
func TestIsDelta(t *testing.T) {
	for name, want := range map[string]bool{
		"Incr-00000002-00000040-1700000000.gz": true, "v1/Backup-1700000000/Incr-00000002-00000040-1700000000": true,
		"v2/Full-00000000-00000040-1700000000.gz": false, "Incr-/nightly.db": false, "": false,
	} {
		if got := backup.IsDelta(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

// TestFiles restores what etcdctl saves, and what others pack with gzip.
func TestFiles(t *testing.T) {
	t.Parallel()
	l := etcdlab.New(t, etcdlab.Options{}).Ready()
	c := l.Members[0].Dial()
	fill(t, c, 100)
	want := dump(t, c)
	r, err := c.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	if _, err = w.Write(raw); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"saved.db": raw, "Full-00000000-00000200-1700000000.gz": zipped.Bytes()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
			if got := dump(t, restore(t, backup.Origin{File: file})); got != want {
				t.Errorf("restored:\n%s\nwant\n%s", head(got), head(want))
			}
		})
	}
}
