package datadir

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"
)

// big is a snapshot of some 400 MB with 1 M keys, made once and left in the
// directory for temporary files; QUORATE_BENCH_KEYS makes one with as many small
// values.
func big(tb testing.TB) string {
	tb.Helper()
	keys, value := 1_000_000, 240
	if n, err := strconv.Atoi(os.Getenv("QUORATE_BENCH_KEYS")); err == nil {
		keys, value = n, 16
	}
	path := filepath.Join(os.TempDir(), "quorate-datadir-bench-"+strconv.Itoa(keys)+".db")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if err := os.WriteFile(path, sealed(tb, synthetic(tb, keys, value)), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// status is a size that the kernel tells of this process, in bytes.
func status(tb testing.TB, field string) int64 {
	tb.Helper()
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		tb.Fatal(err)
	}
	for line := range bytes.Lines(raw) {
		if rest, ok := bytes.CutPrefix(line, []byte(field+":")); ok {
			kb, err := strconv.ParseInt(string(bytes.Fields(rest)[0]), 10, 64)
			if err != nil {
				tb.Fatal(err)
			}
			return kb << 10
		}
	}
	tb.Fatalf("no %s", field)
	return 0
}

// grown is by how much the process grows at most while it does something, all that
// is mapped counted.
func grown(tb testing.TB, do func()) int64 {
	tb.Helper()
	debug.FreeOSMemory()
	before := status(tb, "VmRSS")
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0o600); err != nil {
		tb.Skip(err)
	}
	do()
	return status(tb, "VmHWM") - before
}

func reading(b *testing.B, do func(b *testing.B, path string)) {
	b.Helper()
	path := big(b)
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(info.Size())
	var most int64
	for b.Loop() {
		most = max(most, grown(b, func() { do(b, path) }))
	}
	b.ReportMetric(float64(most)/1e6, "MB-grown")
}

func BenchmarkCheckSnapshot(b *testing.B) {
	reading(b, func(b *testing.B, path string) {
		b.Helper()
		if _, err := CheckSnapshot(b.Context(), path, CheckOptions{}); err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkEtcdutlStatus is etcdutl's look at the same file.
func BenchmarkEtcdutlStatus(b *testing.B) {
	reading(b, func(b *testing.B, path string) {
		b.Helper()
		if _, err := snapshot.NewV3(zap.NewNop()).Status(path); err != nil {
			b.Fatal(err)
		}
	})
}

func BenchmarkHashKV(b *testing.B) {
	reading(b, func(b *testing.B, path string) {
		b.Helper()
		if _, err := open(b, path).HashKV(b.Context(), 0); err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkHashKVCompacted has half of the records before a compaction that was not
// carried out yet.
func BenchmarkHashKVCompacted(b *testing.B) {
	reading(b, func(b *testing.B, path string) {
		b.Helper()
		db := open(b, path)
		db.info.ScheduledCompact = db.info.Revision / 2
		if _, err := db.HashKV(b.Context(), 0); err != nil {
			b.Fatal(err)
		}
	})
}

func BenchmarkKeys(b *testing.B) {
	reading(b, func(b *testing.B, path string) {
		b.Helper()
		var n int
		if err := open(b, path).Keys(b.Context(), 0, KeyRange{}, func(Change) error { n++; return nil }); err != nil || n == 0 {
			b.Fatal(n, err)
		}
	})
}

func BenchmarkWalk(b *testing.B) {
	reading(b, func(b *testing.B, path string) {
		b.Helper()
		if err := open(b, path).Walk(b.Context(), 0, func(Change) error { return nil }); err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkRestore takes turns with etcdutl, so that what else the machine does
// hits both.
func BenchmarkRestore(b *testing.B) {
	path := big(b)
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(info.Size())
	home := b.TempDir()
	var ours, theirs time.Duration
	var most, most2 int64
	for b.Loop() {
		dir := filepath.Join(home, "ours")
		most = max(most, grown(b, func() {
			start := time.Now()
			_, err = Restore(b.Context(), RestoreOptions{Path: path, Dir: dir, Name: "a", InitialCluster: map[string][]string{"a": {"http://127.0.0.1:2380"}}})
			ours += time.Since(start)
		}))
		if err != nil {
			b.Fatal(err)
		}
		if err = os.RemoveAll(dir); err != nil {
			b.Fatal(err)
		}
		dir = filepath.Join(home, "theirs")
		most2 = max(most2, grown(b, func() {
			start := time.Now()
			err = snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
				SnapshotPath: path, Name: "a", OutputDataDir: dir, PeerURLs: []string{"http://127.0.0.1:2380"},
				InitialCluster: "a=http://127.0.0.1:2380", InitialClusterToken: "t",
			})
			theirs += time.Since(start)
		}))
		if err != nil {
			b.Fatal(err)
		}
		if err = os.RemoveAll(dir); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(ours.Seconds()/float64(b.N), "s-ours")
	b.ReportMetric(theirs.Seconds()/float64(b.N), "s-etcdutl")
	b.ReportMetric(theirs.Seconds()/ours.Seconds(), "x-etcdutl")
	b.ReportMetric(float64(most)/1e6, "MB-grown-ours")
	b.ReportMetric(float64(most2)/1e6, "MB-grown-etcdutl")
}
