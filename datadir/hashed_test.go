package datadir

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// TestCheckHashed gives the check a hash that was made elsewhere: it is held to the file
// and to what stands behind the database, and the file is judged as without it.
func TestCheckHashed(t *testing.T) {
	t.Parallel()
	raw := sealed(t, synthetic(t, 500, 50))
	path := filepath.Join(t.TempDir(), "snapshot.db")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	want, err := CheckSnapshot(t.Context(), path, CheckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(raw)
	flipped[len(raw)/2] ^= 1
	lost := errors.New("the hash is lost")
	for _, tc := range []struct {
		name   string
		hashed []byte
		failed error
		want   error
	}{
		{"the same bytes", raw, nil, nil},
		{"another byte", flipped, nil, ErrAltered},
		{"fewer bytes", raw[:len(raw)-diskSector], nil, ErrAltered},
		{"no bytes", nil, nil, ErrAltered},
		{"no hash", raw, lost, lost},
	} {
		h := NewSnapshotHash()
		// In parts of all lengths, since the last of them holds the hash behind it.
		for r := bytes.NewReader(tc.hashed); r.Len() > 0; {
			if _, err = io.CopyN(h, r, 1+rand.Int64N(200)); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
		}
		got, err := CheckSnapshot(t.Context(), path, CheckOptions{Hash: func(context.Context) (*SnapshotHash, error) { return h, tc.failed }})
		if !errors.Is(err, tc.want) || (tc.want == nil && (!got.Verified || got.SHA256 != want.SHA256 || got.Keys != want.Keys || got.Records != want.Records)) {
			t.Errorf("%s: %+v, %v, want %v", tc.name, got, err, tc.want)
		}
	}
}

// TestCheckHashKV has the check compute what HashKV does, whatever compaction was asked
// for and carried out.
func TestCheckHashKV(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name                string
		scheduled, finished int64
	}{
		{"never compacted", 0, 0},
		{"a compaction under way", 300, 0},
		{"another one under way", 300, 1},
		{"a compaction to the newest", 601, 0},
	} {
		file := synthetic(t, 500, 50)
		b, err := bbolt.Open(file, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = errors.Join(b.Update(func(tx *bbolt.Tx) error {
			meta := tx.Bucket([]byte(metaBucket))
			if tc.scheduled == 0 {
				return nil
			}
			put := meta.Put([]byte("scheduledCompactRev"), formatRevision(tc.scheduled))
			if tc.finished > 0 {
				put = errors.Join(put, meta.Put([]byte("finishedCompactRev"), formatRevision(tc.finished)))
			}
			return put
		}), b.Close())
		if err != nil {
			t.Fatal(err)
		}
		db, err := OpenDB(t.Context(), file)
		if err != nil {
			t.Fatal(err)
		}
		want, err := db.HashKV(t.Context(), 0)
		if err = errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		plain, err := CheckSnapshot(t.Context(), file, CheckOptions{AllowNoHash: true})
		if err != nil {
			t.Fatal(err)
		}
		got, err := CheckSnapshot(t.Context(), file, CheckOptions{AllowNoHash: true, HashKV: true})
		if err != nil || got.HashKV != want || want.Hash == 0 {
			t.Errorf("%s: %+v, %v, want %+v", tc.name, got.HashKV, err, want)
		}
		if got.Keys != plain.Keys || got.Records != plain.Records || got.Keys == 0 {
			t.Errorf("%s: %d keys and %d records with the hash, %d and %d without", tc.name, got.Keys, got.Records, plain.Keys, plain.Records)
		}
		if plain.HashKV != (KVHash{}) {
			t.Errorf("%s: a hash that nobody asked for: %+v", tc.name, plain.HashKV)
		}
	}
}

// TestAhead reads pages in every order, and always what lies there.
func TestAhead(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	const page = 4096
	data := make([]byte, 100*page+77)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	counted := &countedReads{ReaderAt: bytes.NewReader(data)}
	a := &ahead{from: counted}
	at, asked := int64(0), 0
	for range 20_000 {
		switch r.IntN(20) {
		case 0:
			at = r.Int64N(int64(len(data)))
		case 1, 2, 3, 4:
			at -= page
		default:
			at += page
		}
		if at < 0 || at > int64(len(data)) {
			at = r.Int64N(100) * page
		}
		got, direct := make([]byte, page*(1+r.IntN(2))), make([]byte, 2*page)
		direct = direct[:len(got)]
		n, err := a.ReadAt(got, at)
		m, want := bytes.NewReader(data).ReadAt(direct, at)
		asked++
		if n != m || !errors.Is(err, want) || !bytes.Equal(got[:n], direct[:m]) {
			t.Fatalf("%d bytes at %d: %d and %v, want %d and %v", len(got), at, n, err, m, want)
		}
	}
	if counted.n > asked/2 {
		t.Errorf("%d reads for %d pages, most of which were neighbours", counted.n, asked)
	}
}

type countedReads struct {
	io.ReaderAt
	n int
}

func (c *countedReads) ReadAt(p []byte, off int64) (int, error) {
	c.n++
	return c.ReaderAt.ReadAt(p, off)
}
