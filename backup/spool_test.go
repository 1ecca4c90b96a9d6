package backup_test

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
	"time"

	"github.com/quorate/quorate/backup"
)

func spool(t *testing.T, dir string) *backup.Spool {
	t.Helper()
	s, err := backup.NewSpool(dir, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// TestFollow has a reader behind the writer see every byte, and the writer's end.
func TestFollow(t *testing.T) {
	t.Parallel()
	s := spool(t, t.TempDir())
	r, err := s.Follow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	go func() {
		for i := range 1000 {
			part := bytes.Repeat([]byte{byte(i)}, i)
			want.Write(part)
			if _, failed := s.Write(part); failed != nil {
				t.Error(failed)
			}
		}
		s.End(nil)
	}()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("read %d bytes and %v, want %d", len(got), err, want.Len())
	}
}

// TestFollowEnds has a reader end with the writer's failure, and with its own context.
func TestFollowEnds(t *testing.T) {
	t.Parallel()
	s := spool(t, t.TempDir())
	broken := errors.New("the member went away")
	ctx, cancel := context.WithCancel(t.Context())
	first, err := s.Follow(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, failed := io.ReadAll(first)
		ended <- failed
	}()
	cancel()
	if err = <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the reader ended with %v", err)
	}
	second, err := s.Follow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.End(broken)
	if _, err = io.ReadAll(second); !errors.Is(err, broken) {
		t.Errorf("the reader ended with %v", err)
	}
}

// TestSweep removes what dead processes left, and nothing else.
func TestSweep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	alive := spool(t, dir)
	for name, files := range map[string][]string{"quorate-spool-dead": {"lock", "snapshot.db"}, "quorate-spool-young": nil, "quorate-spool-locking": {"lock"}, "quorate-spool-old": nil, "quorate-spool-older": {"lock"}, "other": {"lock"}} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if err := os.WriteFile(filepath.Join(dir, name, f), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range []string{"quorate-spool-old", "quorate-spool-older"} {
		made := time.Now().Add(-2 * time.Hour)
		if err := os.Chtimes(filepath.Join(dir, name), made, made); err != nil {
			t.Fatal(err)
		}
	}
	if err := backup.SweepSpools(dir); err != nil {
		t.Fatal(err)
	}
	for name, stays := range map[string]bool{"quorate-spool-dead": false, "quorate-spool-young": true, "quorate-spool-locking": true, "quorate-spool-old": false, "quorate-spool-older": false, "other": true, filepath.Base(alive.Dir()): true} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != stays {
			t.Errorf("%s: %v, want it to stay: %v", name, err, stays)
		}
	}
}

// TestSpoolFull refuses before anything is written.
func TestSpoolFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := backup.NewSpool(dir, 256<<20, math.MaxInt64/2)
	if !errors.Is(err, backup.ErrSpoolFull) || !strings.Contains(err.Error(), ": 4194304.0 TiB are needed, ") || !strings.Contains(err.Error(), " and 256.0 MiB stay free: name another disk") {
		t.Errorf("a snapshot of 4 EiB: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
