package repro_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/test/powerfs"
)

// TestDurability takes the power from a majority that acknowledges writes before
// they are durable (--unsafe-no-fsync): the checker has to find the writes that are
// gone. The same etcd that syncs loses none.
func TestDurability(t *testing.T) {
	enabled(t)
	for _, release := range fresh {
		t.Run("lost in "+release+" without syncing", func(t *testing.T) {
			wants(t, powerLoss(t, release, "--unsafe-no-fsync"), history.LostWrite)
		})
		t.Run("kept by "+release, func(t *testing.T) {
			passes(t, powerLoss(t, release))
		})
	}
}

// powerLoss runs traffic on three members, each with a disk of its own, and takes
// the power from two of them and the third's process. The two come back, and the
// traffic goes on.
func powerLoss(t *testing.T, release string, flags ...string) *history.Report {
	t.Helper()
	s := newStage(t, release)
	disks, dirs := disks(t, 3, powerfs.Options{})
	s.cluster(labOptions{members: 3, dirs: dirs})
	// The members join and elect durably; only then the flags get their say.
	for _, m := range s.Members {
		m.Flags = append(m.Flags, flags...)
		m.Restart()
	}
	for _, m := range s.Members {
		m.Ready()
	}
	s.traffic(200)
	for i, m := range s.Members {
		m.Kill()
		if i < 2 {
			lost, err := disks[i].PowerLoss()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s lost %+v", m.Name, lost)
		}
	}
	s.Members = s.Members[:2]
	for _, m := range s.Members {
		m.Start()
	}
	for _, m := range s.Members {
		m.Ready()
	}
	s.traffic(50)
	return s.judge()
}

// traffic puts and reads at every member at once, so often each.
func (s *stage) traffic(count int) {
	s.t.Helper()
	var all sync.WaitGroup
	for i, m := range s.Members {
		// Every client has its own values.
		base := s.values
		s.values += count
		c := s.client(m)
		all.Go(func() {
			for n := range count {
				ctx, cancel := context.WithTimeout(s.ctx, 5*time.Second)
				key := prefix + "k" + strconv.Itoa((n+i)%10)
				if n%4 == 3 {
					c.Get(ctx, key, "")
				} else {
					c.Put(ctx, key, "v"+strconv.Itoa(base+n+1), 0)
				}
				cancel()
			}
		})
	}
	all.Wait()
}

// disks that can lose power, and where they are mounted.
func disks(t *testing.T, count int, o powerfs.Options) (list []*powerfs.Disk, dirs []string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("a disk that loses power is mounted by FUSE, which needs root")
	}
	for range count {
		dir := filepath.Join(t.TempDir(), "disk")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		d, err := powerfs.Mount(dir, t.TempDir(), o)
		if err != nil {
			t.Fatal(err)
		}
		// It ends behind the members, which are started later.
		t.Cleanup(func() {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
		list, dirs = append(list, d), append(dirs, filepath.Join(dir, "data"))
	}
	return list, dirs
}

// powerLossWhileSyncing puts while the disk is busy with the WAL, and takes the power
// before that is done. Nothing may be acknowledged in between (#14370).
func powerLossWhileSyncing(s *stage) {
	disk := &slowDisk{}
	list, dirs := disks(s.t, 1, powerfs.Options{BeforeSync: disk.sync})
	s.cluster(labOptions{dirs: dirs})
	m := s.Members[0]
	c := s.client(m)
	s.put(c, "a")
	s.put(c, "b")
	s.read(c) // it comes behind the sync of the last put
	disk.hold()
	ctx, cancel := context.WithTimeout(s.ctx, 2*time.Second)
	c.Put(ctx, prefix+"a", s.value(), 0) // whatever comes of it
	cancel()
	_ = m.Signal(syscall.SIGKILL) // it ends when the disk answers
	disk.fail()
	m.Kill()
	if _, err := list[0].PowerLoss(); err != nil {
		s.t.Fatal(err)
	}
	disk.work()
	m.Start()
	m.Ready()
	c = s.client(m)
	s.read(c)
	s.put(c, "b")
	s.read(c)
}

// slowDisk holds the syncs of the WAL, and fails them, when it is told to.
type slowDisk struct {
	mu   sync.Mutex
	held chan struct{} // nil: it works; closed: it fails
}

var errNoPower = errors.New("the power is gone")

func (d *slowDisk) sync(path string) error {
	d.mu.Lock()
	held := d.held
	d.mu.Unlock()
	if held == nil {
		return nil
	}
	if strings.HasSuffix(path, ".wal") {
		<-held
	}
	return errNoPower
}

func (d *slowDisk) hold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = make(chan struct{})
}

func (d *slowDisk) fail() {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.held)
}

func (d *slowDisk) work() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = nil
}
