package datadir

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// step is what a log is made of: entries by term and index, a state, a snapshot.
type step struct {
	term, vote, commit uint64
	entries            []uint64
	payload            int
	snapshot           uint64
}

// makeLog writes a log with etcd's own code and returns the data directory.
func makeLog(tb testing.TB, steps ...step) string {
	tb.Helper()
	dir := tb.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "member"), 0o700); err != nil {
		tb.Fatal(err)
	}
	meta, err := proto.Marshal(&etcdserverpb.Metadata{NodeID: new(uint64(0xa)), ClusterID: new(uint64(0xc))})
	if err != nil {
		tb.Fatal(err)
	}
	w, err := wal.Create(nil, walDir(dir), meta)
	if err != nil {
		tb.Fatal(err)
	}
	for _, s := range steps {
		var ents []*raftpb.Entry
		for _, index := range s.entries {
			ents = append(ents, &raftpb.Entry{Term: new(s.term), Index: new(index), Data: bytes.Repeat([]byte{0xfe}, s.payload)})
		}
		if s.snapshot > 0 {
			err := w.SaveSnapshot(&walpb.Snapshot{Index: new(s.snapshot), Term: new(s.term), ConfState: &raftpb.ConfState{Voters: []uint64{0xa}}})
			if err != nil {
				tb.Fatal(err)
			}
		}
		state := &raftpb.HardState{Term: new(s.term), Vote: new(s.vote), Commit: new(s.commit)}
		if err := w.Save(state, ents); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return dir
}

func upTo(from, to uint64) []uint64 {
	var out []uint64
	for i := from; i <= to; i++ {
		out = append(out, i)
	}
	return out
}

func smallSegments(t *testing.T, size int64) {
	t.Helper()
	old := wal.SegmentSizeBytes
	wal.SegmentSizeBytes = size
	t.Cleanup(func() { wal.SegmentSizeBytes = old })
}

func mustRead(tb testing.TB, dir string) Tail {
	tb.Helper()
	tail, err := ReadTail(dir)
	if err != nil {
		tb.Fatal(err)
	}
	return tail
}

func TestReadTail(t *testing.T) {
	for name, tc := range map[string]struct {
		steps []step
		want  Tail
	}{
		"just created":      {nil, Tail{}},
		"entries":           {[]step{{term: 2, vote: 0xa, commit: 9, entries: upTo(1, 10), payload: 10}}, Tail{Term: 2, Vote: 0xa, Commit: 9, LastIndex: 10}},
		"overwritten":       {[]step{{term: 2, commit: 5, entries: upTo(1, 10)}, {term: 3, vote: 1, commit: 6, entries: upTo(6, 7)}}, Tail{Term: 3, Vote: 1, Commit: 6, LastIndex: 7}},
		"snapshot received": {[]step{{term: 2, commit: 5, entries: upTo(1, 10)}, {term: 4, commit: 500, snapshot: 500}}, Tail{Term: 4, Commit: 500, LastIndex: 500}},
		"snapshot taken":    {[]step{{term: 2, commit: 9, entries: upTo(1, 10)}, {term: 2, commit: 10, snapshot: 8}}, Tail{Term: 2, Commit: 10, LastIndex: 10}},
		"empty payload":     {[]step{{term: 1, commit: 1, entries: upTo(1, 3), payload: 0}}, Tail{Term: 1, Commit: 1, LastIndex: 3}},
		"large payload":     {[]step{{term: 1, commit: 1, entries: upTo(1, 3), payload: 3 << 20}}, Tail{Term: 1, Commit: 1, LastIndex: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := makeLog(t, tc.steps...)
			tc.want.Dir, tc.want.ClusterID, tc.want.MemberID = dir, 0xc, 0xa
			if got := mustRead(t, dir); got != tc.want {
				t.Fatalf("got  %+v\nwant %+v", got, tc.want)
			}
		})
	}
}

func TestReadTailAcrossFiles(t *testing.T) {
	smallSegments(t, 4096)
	// The entries are so large that each second Save cuts a new file, which then
	// holds metadata and state and not one entry.
	dir := makeLog(t,
		step{term: 1, commit: 1, entries: upTo(1, 3), payload: 2000},
		step{term: 1, commit: 2, entries: upTo(4, 5), payload: 2000},
		step{term: 1, commit: 3, entries: upTo(6, 8), payload: 2000},
		step{term: 1, commit: 4, entries: upTo(9, 9), payload: 2000})
	names, err := logFiles(dir)
	if err != nil || len(names) != 3 {
		t.Fatalf("the log has files %v, %v; the test wants three", names, err)
	}
	want := Tail{Dir: dir, ClusterID: 0xc, MemberID: 0xa, Term: 1, Commit: 4, LastIndex: 9}
	if got := mustRead(t, dir); got != want {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}

	t.Run("damage in the file before is seen", func(t *testing.T) {
		bad := copyDir(t, dir)
		flip(t, filepath.Join(walDir(bad), names[1]), 3000)
		if _, err := ReadTail(bad); !errors.Is(err, ErrUnreadable) {
			t.Fatalf("got %v, want ErrUnreadable", err)
		}
	})
	t.Run("a file that is not the last may not be cut short", func(t *testing.T) {
		bad := copyDir(t, dir)
		truncate(t, filepath.Join(walDir(bad), names[1]), 3001)
		if _, err := ReadTail(bad); !errors.Is(err, ErrUnreadable) {
			t.Fatalf("got %v, want ErrUnreadable", err)
		}
	})
	t.Run("a gap is seen", func(t *testing.T) {
		bad := copyDir(t, dir)
		if err := os.Remove(filepath.Join(walDir(bad), names[1])); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadTail(bad); !errors.Is(err, ErrUnreadable) {
			t.Fatalf("got %v, want ErrUnreadable", err)
		}
	})
	t.Run("purged files are not missed", func(t *testing.T) {
		purged := copyDir(t, dir)
		for _, name := range names[:2] {
			if err := os.Remove(filepath.Join(walDir(purged), name)); err != nil {
				t.Fatal(err)
			}
		}
		if got := mustRead(t, purged); got.LastIndex != 9 || got.Term != 1 {
			t.Fatalf("got %+v", got)
		}
	})
}

// TestReadTailTruncatedAnywhere cuts a log at every byte: what is read is always
// what was whole before the cut, never more, and never damage.
func TestReadTailTruncatedAnywhere(t *testing.T) {
	dir := makeLog(t, step{term: 1, commit: 1, entries: upTo(1, 3), payload: 20}, step{term: 2, commit: 3, entries: upTo(4, 6), payload: 30})
	path := filepath.Join(walDir(dir), "0000000000000000-0000000000000000.wal")
	raw, end := readLog(t, path)
	var last Tail
	for cut := range end + 1 {
		if err := os.WriteFile(path, raw[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadTail(dir)
		if err != nil {
			if errors.Is(err, ErrUnreadable) && last == (Tail{}) {
				continue // the beginning, with the IDs, is not whole yet
			}
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if got.LastIndex < last.LastIndex || got.Term < last.Term || got.Commit < last.Commit {
			t.Fatalf("cut at %d: %+v after %+v", cut, got, last)
		}
		last = got
	}
	if last.LastIndex != 6 || last.Torn {
		t.Fatalf("the whole log reads as %+v", last)
	}
}

func TestReadTailTornSector(t *testing.T) {
	dir := makeLog(t, step{term: 1, commit: 1, entries: upTo(1, 3), payload: 100}, step{term: 1, commit: 3, entries: upTo(4, 4), payload: 5000})
	path := filepath.Join(walDir(dir), "0000000000000000-0000000000000000.wal")
	raw, _ := readLog(t, path)
	torn := slices.Clone(raw)
	clear(torn[2048:2560])
	if err := os.WriteFile(path, torn, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := mustRead(t, dir); got.LastIndex != 3 || !got.Torn {
		t.Fatalf("got %+v, want index 3 and torn", got)
	}
	// The same sector overwritten with something else is damage.
	raw[2100] ^= 1
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadTail(dir); !errors.Is(err, ErrUnreadable) {
		t.Fatalf("got %v, want ErrUnreadable", err)
	}
}

func TestReadTailWithoutLog(t *testing.T) {
	for name, tc := range map[string]struct {
		files []string
		want  error
	}{
		"empty":                 {nil, nil},
		"file system root":      {[]string{"lost+found/x"}, nil},
		"stopped before a log":  {[]string{"member/snap/.touch", "member/wal/0.tmp", "member/wal.tmp/x"}, nil},
		"not a database":        {[]string{"member/snap/db"}, ErrForeign},
		"foreign file":          {[]string{"PG_VERSION"}, ErrForeign},
		"foreign file below":    {[]string{"member/notes.txt"}, ErrForeign},
		"log removed":           {[]string{"member/snap/0000000000000002-0000000000000005.snap"}, ErrForeign},
		"log file renamed":      {[]string{"member/wal/old.wal"}, ErrForeign},
		"file for a directory":  {[]string{"member"}, ErrForeign},
		"file for the log":      {[]string{"member/wal"}, ErrForeign},
		"file for the snapshot": {[]string{"member/snap"}, ErrForeign},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, f := range tc.files {
				write(t, filepath.Join(dir, f), "x")
			}
			tail, err := ReadTail(dir)
			if !errors.Is(err, tc.want) || (tc.want == nil && !tail.Empty) {
				t.Fatalf("got %+v, %v; want %v", tail, err, tc.want)
			}
			verdict, err := Check(dir, Expectation{})
			if err != nil {
				t.Fatal(err)
			}
			if tc.want == nil && verdict.State != Fresh || tc.want != nil && verdict.Reason != ReasonForeign {
				t.Fatalf("verdict %+v", verdict)
			}
		})
	}
	t.Run("missing", func(t *testing.T) {
		if tail, err := ReadTail(filepath.Join(t.TempDir(), "none")); err != nil || !tail.Empty {
			t.Fatalf("got %+v, %v", tail, err)
		}
	})
	t.Run("not allowed to read", func(t *testing.T) {
		if os.Geteuid() == 0 {
			t.Skip("root reads everything")
		}
		dir := makeLog(t)
		if err := os.Chmod(walDir(dir), 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(walDir(dir), 0o700) })
		if _, err := Check(dir, Expectation{}); err == nil {
			t.Fatal("no error")
		}
	})
}

// TestReadTailInConstantMemory reads a log of 60 MB.
func TestReadTailInConstantMemory(t *testing.T) {
	dir := makeLog(t, step{term: 1, commit: 1, entries: upTo(1, 30), payload: 2 << 20})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	tail := mustRead(t, dir)
	runtime.ReadMemStats(&after)
	if tail.LastIndex != 30 {
		t.Fatalf("got %+v", tail)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Fatalf("reading allocated %d bytes in all", grown)
	}
}

func BenchmarkReadTail(b *testing.B) {
	dir := makeLog(b, step{term: 1, commit: 1, entries: upTo(1, 200_000), payload: 250})
	for b.Loop() {
		mustRead(b, dir)
	}
}

// FuzzScanner feeds damaged logs: the scanner ends in one of its three errors, and
// reads nothing beyond the damage that etcd would not have read.
func FuzzScanner(f *testing.F) {
	dir := makeLog(f, step{term: 1, commit: 1, entries: upTo(1, 3), payload: 20}, step{term: 2, commit: 2, snapshot: 2, entries: upTo(4, 5), payload: 700})
	raw, end := readLog(f, filepath.Join(walDir(dir), "0000000000000000-0000000000000000.wal"))
	f.Add(raw[:end])
	f.Add(raw[:end+64])
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		bad := slices.Clone(raw[:end+64])
		for range 1 + r.IntN(3) {
			bad[r.IntN(end)] ^= byte(1 << r.IntN(8))
		}
		f.Add(bad[:end-r.IntN(100)])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newScanner(bytes.NewReader(data), int64(len(data)))
		seg := segment{}
		for {
			rec, err := s.next()
			if err == nil {
				_ = seg.add(rec)
				continue
			}
			if !errors.Is(err, io.EOF) && !errors.Is(err, errTorn) && !errors.Is(err, ErrUnreadable) {
				t.Fatalf("unexpected error %v", err)
			}
			if s.off > int64(len(data)) {
				t.Fatalf("read %d of %d bytes", s.off, len(data))
			}
			return
		}
	})
}

// TestEveryFlippedBitIsSeen flips each bit of the records: none changes what is
// read without being noticed.
func TestEveryFlippedBitIsSeen(t *testing.T) {
	dir := makeLog(t, step{term: 1, vote: 3, commit: 2, entries: upTo(1, 2), payload: 20})
	path := filepath.Join(walDir(dir), "0000000000000000-0000000000000000.wal")
	raw, end := readLog(t, path)
	whole := mustRead(t, dir)
	for bit := range end * 8 {
		bad := slices.Clone(raw[:end])
		bad[bit/8] ^= 1 << (bit % 8)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ReadTail(dir)
		if err != nil {
			if !errors.Is(err, ErrUnreadable) {
				t.Fatalf("bit %d: %v", bit, err)
			}
			continue
		}
		got.Torn = false
		if got.LastIndex > whole.LastIndex || got.Term > whole.Term || got.Commit > whole.Commit || got.MemberID != whole.MemberID || got.ClusterID != whole.ClusterID {
			t.Fatalf("bit %d: read %+v instead of %+v", bit, got, whole)
		}
	}
}

// readLog returns a log file and the length of its records.
func readLog(tb testing.TB, path string) (raw []byte, end int) {
	tb.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	s := newScanner(bytes.NewReader(raw), int64(len(raw)))
	for err == nil {
		_, err = s.next()
	}
	if !errors.Is(err, io.EOF) {
		tb.Fatal(err)
	}
	return raw, int(s.off)
}

func flip(t *testing.T, path string, at int) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw[at] ^= 0x10
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}
