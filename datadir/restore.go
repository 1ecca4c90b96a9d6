package datadir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/atomicfile"
)

const (
	// partialMark ends the name of a restore under way: <dir>.partial. The data
	// directory grows below it, so that it never looks like one itself.
	partialMark = ".partial"
	partialData = "data"
	partialLock = "lock"
	// spareBytes is what a restore needs beside the database: etcd's first file of the
	// log is 64 MB, and it makes the next one at once.
	spareBytes = 160 << 20
)

// RestoreOptions say what is restored, to where, and as which member.
type RestoreOptions struct {
	// Snapshot is read once and to its end: the bytes of a snapshot, decompressed. Nil
	// has the file at Path read.
	Snapshot io.Reader
	// Size of what Snapshot gives, in bytes, if it is known: it is compared with the
	// free space beforehand.
	Size int64
	// Path of a snapshot; the one to name in messages where Snapshot is given.
	Path string
	// AllowNoHash takes a database without the hash behind it.
	AllowNoHash bool

	// Dir is the data directory to make. It must not exist or be empty.
	Dir string
	// Name of the member, one of InitialCluster.
	Name string
	// InitialCluster are the peer URLs of each member by its name. All are voters.
	InitialCluster map[string][]string
	// Token of the new cluster; a fresh random one when empty. Restores with equal
	// InitialCluster and Token make members of one cluster. A token that was used
	// before makes a cluster with the IDs of that one: two of them would talk to
	// each other.
	Token string

	// BumpRevision is added to the revision, and everything up to there is marked as
	// compacted; 0 keeps the revision. Why: clients that have seen newer revisions
	// than the snapshot's would wait for them, and miss all changes until then; so they
	// are told that their revision is compacted, and list again.
	BumpRevision int64
	// DisarmCorrupt removes CORRUPT alarms. By default they stay, since the
	// snapshot may be that of the member with the wrong data: etcd then answers reads
	// only, until somebody has looked and disarmed the alarm. NOSPACE alarms are always
	// removed.
	DisarmCorrupt bool
	// DisableAuth has the new cluster ask nobody for a password, for a copy that only
	// its owner reaches; users and roles stay.
	DisableAuth bool
}

// Restored is what a restore made.
type Restored struct {
	// Dir is the data directory.
	Dir string
	// ClusterID and MemberID are etcd's, and Token the one they come from.
	ClusterID, MemberID uint64
	Token               string
	// Source is what the snapshot said of itself: its Revision is the one before the
	// bump, its Members those of the old cluster. SHA256 is that of its database, in
	// hex, and Verified says that it agrees with the hash behind it.
	Source   Info
	SHA256   string
	Verified bool
	// Revision is the one that the new cluster begins at.
	Revision int64
	// Disarmed and Kept are the alarms of the snapshot that were removed and that
	// still stand.
	Disarmed, Kept []Alarm
	// Bytes of the snapshot, its hash among them.
	Bytes int64
	Took  time.Duration
}

// Restore makes the data directory of one member of a new cluster from a snapshot.
// The data is written once; its hash is computed meanwhile. One whose hash agrees is
// what etcd sent, and its records are not looked at; one without is checked as
// CheckSnapshot does. Keys, leases, users and
// roles are the snapshot's; members, removed members and raft's position are not.
// An etcd of the minor version that the snapshot came from, or of a newer one that
// could be its upgrade, starts on it.
//
// It is made in <Dir>.partial, synced, and renamed at the end: whenever the process
// or the machine stops, Dir is whole or not there. What a killed restore left is
// removed by the next one to the same Dir; a failed one leaves nothing.
//
// Errors: ErrRestore when the options or the place make it impossible, before
// anything is written; those of CheckSnapshot; the context's, which is not asked
// while Snapshot blocks; and those of reading and writing.
func Restore(ctx context.Context, o RestoreOptions) (Restored, error) {
	start := time.Now()
	cluster, err := o.cluster()
	if err != nil {
		return Restored{}, err
	}
	src, size, closeSrc, err := o.open(ctx)
	if err != nil {
		return Restored{}, err
	}
	defer closeSrc()
	place, err := newPlace(o.Dir, size)
	if err != nil {
		return Restored{}, err
	}
	done, err := o.restore(ctx, src, cluster, place)
	if err == nil {
		err = place.commit()
	}
	if err != nil {
		return Restored{}, errors.Join(fmt.Errorf("restore %s: %w", o.source(), err), place.discard())
	}
	done.Dir, done.Took = o.Dir, time.Since(start)
	return done, nil
}

// restore fills the place.
func (o *RestoreOptions) restore(ctx context.Context, src io.Reader, cluster *membership.RaftCluster, place *place) (Restored, error) {
	snap := filepath.Join(place.data(), "member", "snap")
	if err := os.MkdirAll(snap, 0o700); err != nil {
		return Restored{}, err
	}
	done, err := o.copyDatabase(ctx, src, filepath.Join(snap, "db"))
	if err != nil {
		return Restored{}, err
	}
	if o.BumpRevision > math.MaxInt64-1-done.Source.Revision {
		return Restored{}, fmt.Errorf("revision %d can't be bumped by %d: %w: the sum is no revision any more", done.Source.Revision, o.BumpRevision, ErrRestore)
	}
	member := memberNamed(cluster, o.Name)
	done.ClusterID, done.MemberID, done.Token = uint64(cluster.ID()), uint64(member.ID), o.Token
	done.Revision = done.Source.Revision + o.BumpRevision
	for _, alarm := range done.Source.Alarms {
		if o.disarms(alarm) {
			done.Disarmed = append(done.Disarmed, alarm)
		} else {
			done.Kept = append(done.Kept, alarm)
		}
	}
	if err = ctx.Err(); err != nil {
		return Restored{}, err
	}
	founding, err := writeLog(place.data(), cluster, member)
	if err != nil {
		return Restored{}, err
	}
	if err := o.rewrite(filepath.Join(snap, "db"), cluster, founding, done.Revision); err != nil {
		return Restored{}, err
	}
	return done, ctx.Err()
}

func (o *RestoreOptions) disarms(a Alarm) bool {
	return a.Name == "NOSPACE" || (o.DisarmCorrupt && a.Name == "CORRUPT")
}

// source is how messages name the snapshot.
func (o *RestoreOptions) source() string {
	if o.Path == "" {
		return "the snapshot"
	}
	return o.Path
}

// cluster is the new cluster, and fills in the token.
func (o *RestoreOptions) cluster() (*membership.RaftCluster, error) {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%s: %w: %w", o.source(), ErrRestore, fmt.Errorf(format, args...))
	}
	switch {
	case o.Dir == "":
		return nil, refuse("no data directory is named")
	case o.Snapshot == nil && o.Path == "":
		return nil, refuse("no snapshot is named")
	case o.BumpRevision < 0:
		return nil, refuse("the revision can't be bumped by %d: it never goes back", o.BumpRevision)
	case len(o.InitialCluster[o.Name]) == 0:
		return nil, refuse("the initial cluster has no peer URL for member %q", o.Name)
	}
	urls := types.URLsMap{}
	var seen []string
	for name, list := range o.InitialCluster {
		parsed, err := types.NewURLs(list)
		if err != nil {
			return nil, refuse("peer URLs of member %q: %w", name, err)
		}
		urls[name] = parsed
		for _, u := range parsed.StringSlice() {
			if slices.Contains(seen, u) {
				return nil, refuse("the initial cluster has the peer URL %s twice", u)
			}
			seen = append(seen, u)
		}
	}
	if o.Token == "" {
		o.Token = rand.Text()
	}
	cluster, err := membership.NewClusterFromURLsMap(quiet(), o.Token, urls)
	if err != nil {
		return nil, refuse("%w", err)
	}
	return cluster, nil
}

// open is the snapshot and its size, -1 where it is not known.
func (o *RestoreOptions) open(ctx context.Context) (src io.Reader, size int64, closeSrc func(), err error) {
	if o.Snapshot != nil {
		size = o.Size
		if size == 0 {
			size = -1
		}
		return o.Snapshot, size, func() {}, nil
	}
	file, err := openLocked(ctx, o.Path)
	if err != nil {
		return nil, 0, nil, err
	}
	stat, err := file.Stat()
	if err != nil {
		return nil, 0, nil, errors.Join(err, file.Close())
	}
	// A file that is too short for what it says of itself needs no copy to be refused.
	if _, err := openPages(file, stat.Size()); err != nil {
		return nil, 0, nil, errors.Join(fmt.Errorf("restore %s: %w", o.Path, err), file.Close())
	}
	return file, stat.Size(), func() { _ = file.Close() }, nil // read-only handle
}

// place is where a data directory is made: a directory beside it, locked while the
// restore goes on.
type place struct {
	dir, partial string
	// above is the directory that was there already, furthest down the path.
	above string
	lock  *os.File
}

// newPlace refuses what must not be touched, and then makes the directory for the
// restore under way.
func newPlace(dir string, size int64) (*place, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("restore to %s: %w", dir, err)
	}
	parent := filepath.Dir(dir)
	p := &place{dir: dir, partial: dir + partialMark, above: parent}
	for _, err = os.Stat(p.above); errors.Is(err, fs.ErrNotExist) && p.above != "/"; _, err = os.Stat(p.above) {
		p.above = filepath.Dir(p.above)
	}
	if err := checkTarget(dir, parent); err != nil {
		return nil, err
	}
	if err := checkSpace(p.above, size); err != nil {
		return nil, fmt.Errorf("restore to %s: %w", dir, err)
	}
	if err := p.take(); err != nil {
		p.removeParents()
		return nil, fmt.Errorf("restore to %s: %w", dir, err)
	}
	return p, nil
}

// removeParents removes the directories on the path that were not there before, as
// long as they are empty.
func (p *place) removeParents() {
	for d := filepath.Dir(p.dir); d != p.above && os.Remove(d) == nil; {
		d = filepath.Dir(d)
	}
}

// checkTarget refuses a directory that holds something, and one that nothing can
// be renamed to.
func checkTarget(dir, parent string) error {
	var here, above unix.Stat_t
	err := unix.Lstat(dir, &here)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("restore to %s: %w", dir, err)
	case here.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("%s: %w: it is not a directory; name one that doesn't exist", dir, ErrRestore)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("restore to %s: %w", dir, err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s: %w: it holds %s; name a directory that doesn't exist, or retire this one first", dir, ErrRestore, entries[0].Name())
	}
	if err := unix.Lstat(parent, &above); err != nil {
		return fmt.Errorf("restore to %s: %w", dir, err)
	}
	if here.Dev != above.Dev {
		return fmt.Errorf("%s: %w: a file system is mounted there, and a restore ends in a rename; name a directory within it", dir, ErrRestore)
	}
	return nil
}

func checkSpace(parent string, size int64) error {
	var disk unix.Statfs_t
	if err := unix.Statfs(parent, &disk); err != nil {
		return fmt.Errorf("free space of %s: %w", parent, err)
	}
	need := uint64(max(size, 0)) + spareBytes
	free := disk.Bavail * uint64(disk.Bsize) //nolint:gosec // not negative
	if free < need {
		return fmt.Errorf("%s: %w: %d MiB are free, and %d MiB are needed; make room, or name a directory on another disk", parent, ErrRestore, free>>20, need>>20)
	}
	return nil
}

// take makes the directory of the restore under way. One that a killed restore
// left is emptied; it is known by its lock, which nobody holds.
func (p *place) take() error {
	err := os.MkdirAll(filepath.Dir(p.partial), 0o700)
	if err != nil {
		return err
	}
	err = os.Mkdir(p.partial, 0o700)
	left := errors.Is(err, fs.ErrExist)
	if err != nil && !left {
		return err
	}
	path := filepath.Join(p.partial, partialLock)
	if left {
		if err = p.checkLeft(path); err != nil {
			return err
		}
	}
	p.lock, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // beside the caller's directory
	if err != nil {
		return err
	}
	if err = unix.Flock(int(p.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		err = fmt.Errorf("%s: %w: another restore to the same directory is under way: %w", p.partial, ErrRestore, err)
		return errors.Join(err, p.lock.Close())
	}
	// The one that held the lock a moment ago may have removed the file since.
	held, err := p.lock.Stat()
	if err == nil {
		var there fs.FileInfo
		if there, err = os.Lstat(path); err == nil && !os.SameFile(held, there) {
			err = fs.ErrNotExist
		}
	}
	if err == nil {
		err = os.RemoveAll(p.data())
	}
	if err != nil {
		return errors.Join(err, p.lock.Close())
	}
	return nil
}

// checkLeft refuses a directory that no restore has made.
func (p *place) checkLeft(lock string) error {
	entries, err := os.ReadDir(p.partial)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != partialLock && e.Name() != partialData {
			return fmt.Errorf("%s: %w: it is no restore that was broken off, it holds %s; move it away", p.partial, ErrRestore, e.Name())
		}
	}
	if _, err := os.Lstat(lock); len(entries) > 0 && err != nil {
		return fmt.Errorf("%s: %w: it is no restore that was broken off: %w; move it away", p.partial, ErrRestore, err)
	}
	return nil
}

func (p *place) data() string { return filepath.Join(p.partial, partialData) }

// commit makes what was written durable and renames it. The files are synced
// already.
func (p *place) commit() error {
	member := filepath.Join(p.data(), "member")
	for _, dir := range []string{filepath.Join(member, "snap"), filepath.Join(member, "wal"), member, p.data()} {
		if err := atomicfile.SyncDir(dir); err != nil {
			return err
		}
	}
	// Only an empty directory can be removed so.
	if err := os.Remove(p.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s was empty and is not any more: %w", ErrRestore, p.dir, err)
	}
	if err := renameNew(p.data(), p.dir); err != nil {
		return err
	}
	if err := atomicfile.SyncDir(filepath.Dir(p.dir)); err != nil {
		return err
	}
	return p.discard()
}

// discard removes the directory of the restore under way.
func (p *place) discard() error {
	err := errors.Join(os.RemoveAll(p.data()), os.RemoveAll(p.partial), closeOnce(p.lock))
	p.removeParents()
	return err
}

func closeOnce(f *os.File) error {
	if err := f.Close(); !errors.Is(err, fs.ErrClosed) {
		return err
	}
	return nil
}
