package logfile

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/natefinch/lumberjack.v2"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func rotate(t *testing.T, path string, at time.Time) {
	t.Helper()
	to := strings.TrimSuffix(path, ".log") + "-" + at.UTC().Format(backupTime) + ".log"
	if err := os.Rename(path, to); err != nil {
		t.Fatal(err)
	}
}

func readAll(t *testing.T, r io.Reader) string {
	t.Helper()
	raw, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestFilesAreThoseOfTheLogOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "prod-0.log")
	for _, name := range []string{
		"prod-0.log", "prod-0-2026-01-02T03-04-05.000.log", "prod-0-2025-12-31T03-04-05.000.log",
		"prod-0-1.log", "prod-0-canary.log", "prod-0.error.log", "prod-0.error-2026-01-02T03-04-05.000.log",
	} {
		write(t, filepath.Join(dir, name), "x\n")
	}
	got, err := Files(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		got[i] = filepath.Base(got[i])
	}
	want := []string{"prod-0-2025-12-31T03-04-05.000.log", "prod-0-2026-01-02T03-04-05.000.log", "prod-0.log"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if none, err := Files(filepath.Join(dir, "missing", "a.log")); err != nil || none != nil {
		t.Errorf("files of a log in a missing directory: %v, %v", none, err)
	}
}

func TestReaderGoesOnOverRotations(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "m.log")
	r := NewReader(path, Cursor{})
	if got := readAll(t, r); got != "" {
		t.Fatalf("read %q of a log not yet begun", got)
	}
	write(t, path, "one\n")
	if got := readAll(t, r); got != "one\n" {
		t.Fatalf("read %q", got)
	}
	// Two rotations, with lines before, between and after, while nobody reads.
	write(t, path, "two\n")
	rotate(t, path, time.Unix(1000, 0))
	write(t, path, "three\n")
	rotate(t, path, time.Unix(2000, 0))
	if got := readAll(t, r); got != "two\nthree\n" {
		t.Fatalf("read %q", got)
	}
	at := r.Cursor()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, path, "four\n")
	// Another reader resumes where that one was.
	r = NewReader(path, at)
	if got := readAll(t, r); got != "four\n" {
		t.Fatalf("resumed with %q", got)
	}
	// Truncated in place: the log begins again.
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	write(t, path, "5\n")
	if got := readAll(t, r); got != "5\n" {
		t.Fatalf("after truncation read %q", got)
	}
}

func TestReaderWhoseFileIsGone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "m.log")
	write(t, path, "left\n")
	r := NewReader(path, Cursor{Inode: 1, Offset: 99})
	if got := readAll(t, r); got != "left\n" {
		t.Errorf("read %q", got)
	}
}

func TestTail(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "m.log")
	long := strings.Repeat("x", 100_000)
	write(t, path, "1\n2\n3\n")
	rotate(t, path, time.Unix(1000, 0))
	write(t, path, "4\n"+long+"\n6")
	for n, want := range map[int]string{
		0: "", 1: "6", 2: long + "\n6", 3: "4\n" + long + "\n6", 4: "3\n4\n" + long + "\n6",
		6: "1\n2\n3\n4\n" + long + "\n6", 50: "1\n2\n3\n4\n" + long + "\n6", -1: "1\n2\n3\n4\n" + long + "\n6",
	} {
		at, err := Tail(path, n)
		if err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, Open(t.Context(), path, at, false)); got != want {
			t.Errorf("tail %d: %.40q, want %.40q", n, got, want)
		}
	}
}

func TestFollowAcrossLumberjack(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "m.log")
	out := &lumberjack.Logger{Filename: path, MaxSize: 1, MaxBackups: 3}
	defer out.Close() //nolint:errcheck // the test is over
	if _, err := out.Write([]byte("old\n")); err != nil {
		t.Fatal(err)
	}
	at, err := Tail(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream := Open(ctx, path, at, true)
	const lines = 2500 // of 1 KiB: two rotations
	go func() {
		for i := range lines {
			_, _ = fmt.Fprintf(out, "%04d%s\n", i, strings.Repeat(".", 1019))
		}
	}()
	s := bufio.NewScanner(stream)
	for i := range lines {
		if !s.Scan() || !strings.HasPrefix(s.Text(), fmt.Sprintf("%04d.", i)) {
			t.Fatalf("line %d is %.20q (%v)", i, s.Text(), s.Err())
		}
	}
	cancel()
	if s.Scan() {
		t.Errorf("a line after the end of the context: %.20q", s.Text())
	}
	if err := s.Err(); err != nil {
		t.Errorf("the stream ended with %v", err)
	}
	if err := stream.Close(); err != nil {
		t.Error(err)
	}
}
