package datadir

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

// sentinels are the ways in which a snapshot is refused.
var sentinels = []error{ErrEmpty, ErrTruncated, ErrAltered, ErrNotDatabase, ErrNotEtcd, ErrStructure, ErrNoHash}

func checkBytes(tb testing.TB, raw []byte, o CheckOptions) (SnapshotInfo, error) {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "snapshot.db")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		tb.Fatal(err)
	}
	info, err := CheckSnapshot(tb.Context(), path, o)
	if err != nil && !strings.Contains(err.Error(), path) {
		tb.Errorf("the message names no file: %v", err)
	}
	return info, err
}

func TestCheckSnapshot(t *testing.T) {
	t.Parallel()
	raw := sealed(t, synthetic(t, 2000, 100))
	db := raw[:len(raw)-hashBytes]
	other := filepath.Join(t.TempDir(), "other")
	b, err := bbolt.Open(other, 0o600, nil)
	if err == nil {
		err = errors.Join(b.Update(func(tx *bbolt.Tx) error {
			_, cerr := tx.CreateBucket([]byte("kubelet"))
			return cerr
		}), b.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	flip := func(at int) []byte {
		c := bytes.Clone(raw)
		c[at] ^= 1
		return c
	}
	bothMeta := bytes.Clone(db)
	bothMeta[20+pageHeader], bothMeta[4096+20+pageHeader] = bothMeta[20+pageHeader]^1, bothMeta[4096+20+pageHeader]^1
	newVersion := bytes.Clone(db)
	newVersion[4+pageHeader], newVersion[4096+4+pageHeader] = 3, 3
	for _, tc := range []struct {
		name string
		raw  []byte
		o    CheckOptions
		want error
		says string
	}{
		{"whole", raw, CheckOptions{}, nil, ""},
		{"no byte", nil, CheckOptions{}, ErrEmpty, "take another"},
		{"one byte", raw[:1], CheckOptions{}, ErrTruncated, "1 bytes"},
		{"within the first page", raw[:79], CheckOptions{}, ErrTruncated, ""},
		{"one page", raw[:4096], CheckOptions{}, ErrTruncated, "4096 bytes"},
		{"half", raw[:len(raw)/2], CheckOptions{}, ErrTruncated, "copy it again"},
		{"half, in whole pages", raw[:len(db)/8192*4096], CheckOptions{AllowNoHash: true}, ErrTruncated, "pages of 4096 bytes"},
		{"half, as if with a hash", raw[:len(db)/8192*4096+hashBytes], CheckOptions{}, ErrTruncated, ""},
		{"half of the hash", raw[:len(raw)-16], CheckOptions{AllowNoHash: true}, ErrTruncated, "16 of the 32 bytes"},
		{"no hash", db, CheckOptions{}, ErrNoHash, "snapshot save"},
		{"no hash, allowed", db, CheckOptions{AllowNoHash: true}, nil, ""},
		{"a page more", append(bytes.Clone(db), make([]byte, 4096)...), CheckOptions{AllowNoHash: true}, nil, ""},
		{"a byte more", append(bytes.Clone(raw), 0), CheckOptions{AllowNoHash: true}, ErrAltered, "33 bytes follow"},
		{"a bit in the hash", flip(len(raw) - 1), CheckOptions{}, ErrAltered, "SHA-256"},
		{"a bit in a value", flip(len(raw) / 2), CheckOptions{}, ErrAltered, "SHA-256"},
		{"both meta pages", bothMeta, CheckOptions{AllowNoHash: true}, ErrStructure, "checksum of the meta page"},
		{"another version of bbolt", newVersion, CheckOptions{}, ErrNotDatabase, "version 3"},
		{"text", []byte(strings.Repeat("hello, world\n", 5000)), CheckOptions{}, ErrNotDatabase, "decompressed and decrypted"},
		{"short text", []byte("hello"), CheckOptions{}, ErrNotDatabase, ""},
		{"zstd", append([]byte{0x28, 0xb5, 0x2f, 0xfd}, make([]byte, 9000)...), CheckOptions{AllowNoHash: true}, ErrNotDatabase, ""},
		{"zeros", make([]byte, 65536), CheckOptions{AllowNoHash: true}, ErrNotDatabase, ""},
		{"another program's", sealed(t, other), CheckOptions{}, ErrNotEtcd, `no bucket "key"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			info, err := checkBytes(t, tc.raw, tc.o)
			if !errors.Is(err, tc.want) || (err != nil && !strings.Contains(err.Error(), tc.says)) {
				t.Fatalf("got %v, want %v saying %q", err, tc.want, tc.says)
			}
			if tc.want == nil && (info.Keys != 1800 || info.Records != 2400 || info.Revision != 2401 || info.Verified == tc.o.AllowNoHash || info.ClusterVersion != "3.5.0" || info.Term != 3) {
				t.Errorf("%+v", info)
			}
		})
	}
	dir := t.TempDir()
	if _, err := CheckSnapshot(t.Context(), dir, CheckOptions{}); !errors.Is(err, ErrNotDatabase) || !strings.Contains(err.Error(), "member/snap/db") {
		t.Errorf("a directory: %v", err)
	}
	if _, err := CheckSnapshot(t.Context(), filepath.Join(dir, "none"), CheckOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	path := filepath.Join(dir, "snapshot.db")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := CheckSnapshot(ctx, path, CheckOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("without time: %v", err)
	}
}

// TestEveryTruncation cuts a snapshot at offsets of all kinds: none is taken for a
// whole one, and only the cut that takes just the hash isn't known as one.
func TestEveryTruncation(t *testing.T) {
	t.Parallel()
	raw := sealed(t, synthetic(t, 400, 50))
	path := filepath.Join(t.TempDir(), "snapshot.db")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	for cut := len(raw) - 1; cut > 0; cut-- {
		if cut%512 > 40 && cut%97 != 0 {
			continue
		}
		if err := os.Truncate(path, int64(cut)); err != nil {
			t.Fatal(err)
		}
		want := ErrTruncated
		if cut == len(raw)-hashBytes {
			want = ErrNoHash
		}
		if _, err := CheckSnapshot(t.Context(), path, CheckOptions{}); !errors.Is(err, want) {
			t.Fatalf("cut at %d of %d: %v", cut, len(raw), err)
		}
		if _, err := OpenDB(t.Context(), path); cut < len(raw)-hashBytes && !errors.Is(err, ErrTruncated) {
			t.Fatalf("opened, cut at %d of %d: %v", cut, len(raw), err)
		}
	}
}

// TestBitFlips turns over random bits. A snapshot with its hash is refused each time.
// Without, what is refused is refused by name, nothing panics, and whatever bbolt's
// own check finds in the pages of keys is found.
func TestBitFlips(t *testing.T) {
	t.Parallel()
	raw := sealed(t, synthetic(t, 400, 50))
	r := rand.New(rand.NewPCG(9, 9))
	path := filepath.Join(t.TempDir(), "snapshot.db")
	var found int
	for range 3000 {
		damaged := bytes.Clone(raw)
		damaged[r.IntN(len(raw))] ^= 1 << r.IntN(8)
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := CheckSnapshot(t.Context(), path, CheckOptions{})
		if !oneOf(err, sentinels) {
			t.Fatalf("a flipped bit: %v", err)
		}
		if err = os.Truncate(path, int64(len(raw)-hashBytes)); err != nil {
			t.Fatal(err)
		}
		_, err = CheckSnapshot(t.Context(), path, CheckOptions{AllowNoHash: true})
		if err != nil {
			found++
			if !oneOf(err, sentinels) {
				t.Fatalf("a flipped bit: %v", err)
			}
			continue
		}
		if err = boltCheck(path); err != nil {
			t.Fatalf("bbolt finds what the check doesn't: %v", err)
		}
	}
	t.Logf("%d of 3000 bits are found without a hash", found)
}

func oneOf(err error, list []error) bool {
	for _, e := range list {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// boltCheck is what etcdutl snapshot status asks bbolt.
func boltCheck(path string) error {
	return guard("bbolt's check", func() (err error) {
		db, err := bbolt.Open(path, 0o400, &bbolt.Options{ReadOnly: true})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
		return db.View(func(tx *bbolt.Tx) error {
			var errs []error
			for err := range tx.Check() {
				errs = append(errs, err)
			}
			return errors.Join(errs...)
		})
	})
}

// FuzzCheckSnapshot damages a small snapshot in many places at once, with a hash
// that fits and without one: nothing may panic or hang, and each refusal has a name.
func FuzzCheckSnapshot(f *testing.F) {
	raw := sealed(f, synthetic(f, 60, 20))
	db := raw[:len(raw)-hashBytes]
	f.Add(uint32(0), []byte{1}, uint32(0))
	f.Add(uint32(8200), []byte{0xff, 0xff, 0xff}, uint32(17))
	f.Add(uint32(16), []byte{}, uint32(4096))
	f.Add(uint32(12300), []byte{0, 0, 0, 0, 0, 0, 0, 0, 1}, uint32(0))
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, cut uint32) {
		damaged := bytes.Clone(db)
		start := int(at) % len(damaged)
		for i, b := range patch {
			damaged[(start+i*37)%len(damaged)] ^= b
		}
		same := bytes.Equal(damaged, db)
		damaged = damaged[:len(damaged)-int(cut)%len(damaged)]
		for _, tc := range []struct {
			raw     []byte
			o       CheckOptions
			refused bool
		}{
			{append(bytes.Clone(damaged), raw[len(db):]...), CheckOptions{}, !same || len(damaged) < len(db)},
			{seal(damaged), CheckOptions{}, len(damaged) < len(db) && same},
			{damaged, CheckOptions{AllowNoHash: true}, len(damaged) < len(db) && same},
		} {
			_, err := checkBytes(t, tc.raw, tc.o)
			if tc.refused && err == nil {
				t.Fatalf("%d bytes of %d are taken for a snapshot", len(tc.raw), len(raw))
			}
			if err != nil && !oneOf(err, sentinels) {
				t.Fatalf("refused without a name: %v", err)
			}
		}
		path := filepath.Join(t.TempDir(), "db")
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		opened, err := OpenDB(t.Context(), path)
		if err != nil {
			return
		}
		defer func() { _ = opened.Close() }()
		_, e1 := opened.HashKV(t.Context(), 0)
		e2 := opened.Leases(t.Context(), func(Lease) error { return nil })
		if err = errors.Join(e1, e2); err != nil && !oneOf(err, sentinels) {
			t.Fatal(err)
		}
	})
}
