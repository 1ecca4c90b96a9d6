package backups

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/test/etcdlab"
)

// bigSize is how large the database is made, in MiB: QUORATE_BIG_MIB for real ones.
func bigSize(t *testing.T) int {
	t.Helper()
	text := os.Getenv("QUORATE_BIG_MIB")
	if text == "" {
		return 64
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("QUORATE_BIG_MIB is %q", text)
	}
	return n
}

// maxMemory of a process that takes a backup, whatever the size of the database.
const maxMemory = 150 << 20

// TestBig takes, proves and restores a large database, and says what that costs.
func TestBig(t *testing.T) {
	size := bigSize(t)
	l := etcdlab.New(t, etcdlab.Options{Flags: []string{"--quota-backend-bytes=8589934592"}}).Ready()
	c := l.Members[0].Dial()
	value := make([]byte, 512<<10)
	for i := range 2 * size {
		_, _ = rand.Read(value[:len(value)/2]) // it never fails, and half of it compresses
		if _, err := c.Put(t.Context(), fmt.Sprintf("/big/%06d", i), string(value)); err != nil {
			t.Fatal(err)
		}
	}
	store := open(t, t.TempDir())
	s := spec{Endpoints: l.URLs(), Store: store.String()[len("file://"):], Spool: t.TempDir()}
	cmd := takeApart(t, s)
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	took := time.Since(began)
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		t.Fatal("the system does not say what a process has used")
	}
	peak := usage.Maxrss << 10
	cat, err := backup.ReadCatalog(t.Context(), store, catalog.ReadOptions{})
	if err != nil || len(cat.Entries) != 1 {
		t.Fatalf("the store holds %+v, %v", cat, err)
	}
	e := &cat.Entries[0]
	if want := int64(size) << 20; e.Point.DBSize < want {
		t.Errorf("the database has %d bytes, want %d", e.Point.DBSize, want)
	}
	if peak > maxMemory && !raceEnabled {
		t.Errorf("the backup took %d MB of memory, and %d are allowed", peak>>20, maxMemory>>20)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	proof, err := backup.Prove(t.Context(), e, backup.ProveOptions{
		Bucket: store, ScratchDir: t.TempDir(), Etcd: backup.EtcdCommand{Path: self, Name: "etcd", Version: "3.7.3"},
	})
	if err != nil || proof.Result != catalog.Verified {
		t.Fatalf("proof: %+v, %v", proof, err)
	}
	began = time.Now()
	_, err = backup.Restore(t.Context(), backup.RestoreOptions{
		Origin:  backup.Origin{Bucket: store, Entry: e},
		Members: []backup.RestoreMember{{Name: "a", Dir: filepath.Join(t.TempDir(), "a")}}, InitialCluster: map[string][]string{"a": {"http://127.0.0.1:2380"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	mb := float64(e.Point.DBSize) / 1e6
	d := proof.Durations
	t.Logf("%.0f MB, stored as %.0f MB: backup %.1f s (%.0f MB/s) with %d MB of memory; proof: download %.1f s, restore %.1f s, start %.1f s, compare %.1f s, etcd's memory %d MB; restore %.1f s",
		mb, float64(e.Point.StoredSize)/1e6, took.Seconds(), mb/took.Seconds(), peak>>20, d.Download, d.Restore, d.Start, d.Hash, proof.PeakMemory>>20, time.Since(began).Seconds())
}
