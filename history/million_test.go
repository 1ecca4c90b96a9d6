package history_test

import (
	"bufio"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/history/historytest"
)

// The limits that a million operations are held to.
const (
	millionSeconds = 60
	millionMiB     = 4096
)

// TestMillion writes, reads and checks a history of a million operations. It runs on
// demand: QUORATE_MILLION=1, or how many operations instead of 1. The peak of memory
// is that of the whole process, making the history included.
func TestMillion(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("QUORATE_MILLION"))
	if err != nil || n < 1 {
		t.Skip("QUORATE_MILLION is not set")
	}
	if n == 1 {
		n = 1_000_000
	}
	file := filepath.Join(t.TempDir(), "history.zst")
	start := time.Now()
	generate(t, file, n)
	generated := time.Since(start)
	runtime.GC()
	made := cpuSeconds(t)
	start = time.Now()
	h := load(t, file)
	read := time.Since(start)
	r := check(t, h, history.Options{})
	total := time.Since(start)
	var use syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &use))
	stat, err := os.Stat(file)
	require.NoError(t, err)
	t.Logf("million: operations=%d revisions=%d events=%d windows=%d seconds=%.1f (read %.1f, check %.1f) cpu=%.1f maxrss=%d MiB file=%d MiB made in %.1f s",
		r.Stats.Operations, r.Stats.Revisions, r.Stats.WatchEvents, r.Stats.WindowsChecked, total.Seconds(), read.Seconds(), r.Stats.Seconds, cpuSeconds(t)-made, use.Maxrss>>10, stat.Size()>>20, generated.Seconds())
	require.True(t, r.OK, said(r))
	require.Empty(t, r.Skipped)
	require.Less(t, total.Seconds(), float64(millionSeconds))
	require.Less(t, use.Maxrss>>10, int64(millionMiB))
}

// cpuSeconds is what this process has used.
func cpuSeconds(t *testing.T) float64 {
	t.Helper()
	var use syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &use))
	return time.Duration(use.Utime.Nano() + use.Stime.Nano()).Seconds()
}

func generate(t *testing.T, file string, n int) {
	t.Helper()
	f, err := os.Create(file)
	require.NoError(t, err)
	w := bufio.NewWriter(f)
	require.NoError(t, history.Write(w, historytest.Generate(1, n, 50)))
	require.NoError(t, w.Flush())
	require.NoError(t, f.Close())
}

func load(t *testing.T, file string) *history.History {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	h, err := history.Read(f)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return h
}

func BenchmarkCheck(b *testing.B) {
	const n = 100_000
	h := historytest.Generate(1, n, 50)
	b.ReportAllocs()
	for b.Loop() {
		r, err := history.Check(b.Context(), h, history.Options{})
		if err != nil || !r.OK {
			b.Fatal(err, r)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/operation")
}
