package etcd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/store"
)

// TestDiskFull fills the disk under a store: it answers that it is unavailable and
// why, ends in time, and holds every acknowledged write once there is space again.
func TestDiskFull(t *testing.T) {
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=160m"); err != nil {
		t.Skipf("no small disk to fill: mounting a tmpfs takes root (%v)", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(disk, unix.MNT_DETACH)) })
	h := newHome(t)
	h.dir = filepath.Join(disk, "store")
	s, err := Open(t.Context(), h.options(t))
	must(t, err)
	mustCreate(t, s, newCluster("a"))

	ballast := filepath.Join(disk, "ballast")
	f, err := os.Create(ballast)
	must(t, err)
	for err == nil {
		_, err = f.Write(make([]byte, 64<<10))
	}
	_ = f.Close()
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	// Etcd has a file's worth of log and some pages in hand, so some writes still go
	// through; those count.
	blob := strings.Repeat("x", 256<<10)
	written := 0
	for ; err == nil || written == 0; written++ {
		if err = s.Create(t.Context(), newSecret(fmt.Sprint("s", written), map[string]string{"k": blob})); err != nil {
			break
		}
		if written > 2000 {
			t.Fatalf("500 MiB fitted")
		}
	}
	if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "no space left") {
		t.Fatalf("Create on a full disk: %v", err)
	}
	<-s.Failed()
	if cause := s.Failure(); cause == nil || !strings.Contains(cause.Error(), h.dir) {
		t.Fatalf("Failure: %v", cause)
	}
	begin := time.Now()
	if err := s.Create(t.Context(), newCluster("b")); !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("Create after the failure: %v", err)
	}
	if err := s.Close(); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Fatalf("Close: %v", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Fatalf("a failed store took %s to answer and to close", took)
	}

	// This process still holds the files, so the next one's view of them is a copy.
	must(t, os.Remove(ballast))
	again := h
	again.dir = filepath.Join(t.TempDir(), "store")
	must(t, os.CopyFS(again.dir, os.DirFS(h.dir)))
	s = again.open(t)
	for i := range written {
		if got := value(t, s, fmt.Sprint("s", i), "k"); got != blob {
			t.Fatalf("secret %d was acknowledged and is gone", i)
		}
	}
}
