package datadir

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// The buckets of etcd's database.
const (
	keyBucket            = "key"
	metaBucket           = "meta"
	leaseBucket          = "lease"
	alarmBucket          = "alarm"
	clusterBucket        = "cluster"
	membersBucket        = "members"
	removedMembersBucket = "members_removed"
	authBucket           = "auth"
	usersBucket          = "authUsers"
	rolesBucket          = "authRoles"
)

// lockRetry is how often a lock is asked for within lockWait.
const lockRetry = 10 * time.Millisecond

// Member is a member as the database has it.
type Member struct {
	ID         uint64
	Name       string
	PeerURLs   []string
	ClientURLs []string
	Learner    bool
}

// Alarm is one that a member has raised: "NOSPACE" or "CORRUPT".
type Alarm struct {
	MemberID uint64
	Name     string
}

// Info is what a database says of itself, apart from its keys. What older etcds
// don't write is empty or 0.
type Info struct {
	// Path of the file, and Size of the database in it in bytes, without the hash
	// behind a snapshot.
	Path string
	Size int64
	// Revision is the one that an etcd started on it reports: the highest of any
	// record, be it a tombstone or the placeholder of --bump-revision, or the compacted
	// one where that is higher; 1 in a new database.
	Revision int64
	// ScheduledCompact and FinishedCompact are the revisions of the last compaction
	// asked for, and of the last one that was carried out.
	ScheduledCompact, FinishedCompact int64
	// ConsistentIndex and Term are the raft position that was applied last. Term is
	// written from 3.5 on.
	ConsistentIndex, Term uint64
	// StorageVersion is "3.6" or newer, and empty before 3.6.
	StorageVersion string
	// ClusterVersion is the version that all members spoke, like "3.5.0".
	ClusterVersion string
	// Members by ID, and those that were removed.
	Members        []Member
	RemovedMembers []uint64
	Alarms         []Alarm
	// Leases, Users and Roles are how many there are.
	Leases, Users, Roles int
	AuthEnabled          bool
	AuthRevision         uint64
}

// CompactRevision is the revision below which an etcd started on the database
// answers that it is compacted; 0 when it never was.
func (i Info) CompactRevision() int64 { return max(i.ScheduledCompact, i.FinishedCompact) }

// DB reads etcd's database, or a snapshot of one, without a server: page by page,
// without mapping it, in memory that doesn't grow with its size. Its methods may be
// used at the same time. It holds a shared lock on the file, so that no etcd starts
// on it meanwhile. What it reads is checked for structure; only CheckSnapshot
// compares the hash.
type DB struct {
	file    *os.File
	pager   *pager
	buckets map[string]bucket
	info    Info
}

// OpenDB opens the database at path: a data directory's member/snap/db, or a
// snapshot with or without its hash. Errors are fs.ErrNotExist, ErrInUse when a
// process writes to it, and those of CheckSnapshot, save ErrAltered and ErrNoHash.
func OpenDB(ctx context.Context, path string) (*DB, error) {
	file, err := openLocked(ctx, path)
	if err != nil {
		return nil, err
	}
	db, err := newDB(ctx, file, nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), file.Close())
	}
	return db, nil
}

// newDB reads what a locked file says of itself. Pages that it meets are set in
// reached, unless that is nil.
func newDB(ctx context.Context, file *os.File, reached func(*pager) bitmap) (*DB, error) {
	stat, err := file.Stat()
	if err != nil {
		return nil, err
	}
	p, err := openPages(file, stat.Size())
	if err != nil {
		return nil, err
	}
	var marks bitmap
	if reached != nil {
		marks = reached(p)
	}
	db := &DB{file: file, pager: p, info: Info{Path: file.Name(), Size: p.size(), Revision: 1}}
	if db.buckets, err = p.buckets(ctx, marks); err != nil {
		return nil, err
	}
	for _, name := range []string{keyBucket, metaBucket} {
		if _, ok := db.buckets[name]; !ok {
			return nil, fmt.Errorf("%w: it has no bucket %q; name a snapshot, or member/snap/db of a data directory", ErrNotEtcd, name)
		}
	}
	if err := db.readInfo(ctx, marks); err != nil {
		return nil, err
	}
	return db, nil
}

// openPages tells a file that is no database from one that is cut short.
func openPages(file *os.File, size int64) (*pager, error) {
	if size == 0 {
		return nil, fmt.Errorf("%w; whatever wrote it has failed: take another snapshot", ErrEmpty)
	}
	p, err := newPager(file)
	switch {
	case errors.Is(err, ErrNotDatabase):
		return nil, fmt.Errorf("%w; name a snapshot that etcdctl or Quorate has saved, decompressed and decrypted", err)
	case err != nil:
		return nil, fmt.Errorf("%w; take another one", err)
	case size < p.size():
		return nil, fmt.Errorf("%w: it has %d bytes, and its %d pages of %d bytes need %d; use another one, or copy it again",
			ErrTruncated, size, p.pages, p.pageSize, p.size())
	}
	return p, nil
}

// openLocked opens a file to read, with the shared lock that keeps bbolt from
// opening it for writing.
func openLocked(ctx context.Context, path string) (*os.File, error) {
	// Asked before it is opened: to open a pipe would wait for who writes to it.
	stat, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("open the database: %w", err)
	case stat.IsDir():
		return nil, fmt.Errorf("%s: %w: it is a directory; name a snapshot, or member/snap/db of a data directory", path, ErrNotDatabase)
	case !stat.Mode().IsRegular():
		return nil, fmt.Errorf("%s: %w: it is not a regular file; save it to one", path, ErrNotDatabase)
	}
	file, err := os.Open(path) //nolint:gosec // the caller names its own file
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	if err := lockShared(ctx, file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func lockShared(ctx context.Context, file *os.File) error {
	deadline := time.NewTimer(lockWait)
	defer deadline.Stop()
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("lock %s: %w", file.Name(), err)
		}
		retry := time.NewTimer(lockRetry)
		select {
		case <-retry.C:
		case <-deadline.C:
			retry.Stop()
			return fmt.Errorf("%s: %w; stop that etcd, or read a snapshot of it", file.Name(), ErrInUse)
		case <-ctx.Done():
			retry.Stop()
			return ctx.Err()
		}
	}
}

// Close lets go of the file.
func (db *DB) Close() error { return db.file.Close() }

// Info returns what the database says of itself.
func (db *DB) Info() Info { return db.info }

// scan walks over a bucket that need not be there and holds no buckets.
func (db *DB) scan(ctx context.Context, name string, w walk) error {
	b, ok := db.buckets[name]
	if !ok {
		return nil
	}
	visit := w.visit
	w.visit = func(key, value []byte, nested bool) error {
		if nested {
			return fmt.Errorf("%w: the bucket %q holds another one, %.40q", ErrStructure, name, key)
		}
		return visit(key, value, false)
	}
	return db.pager.run(ctx, b, w)
}

// readInfo reads the small buckets; the key bucket is only asked for its end.
func (db *DB) readInfo(ctx context.Context, reached bitmap) error {
	i := &db.info
	for _, part := range []struct {
		bucket string
		read   func(key, value []byte) error
	}{
		{metaBucket, i.readMeta},
		{clusterBucket, i.readCluster},
		{membersBucket, i.readMember},
		{removedMembersBucket, i.readRemoved},
		{alarmBucket, i.readAlarm},
		{leaseBucket, func(key, value []byte) error {
			i.Leases++
			_, err := parseLease(key, value)
			return err
		}},
		{authBucket, i.readAuth},
		{usersBucket, func(_, _ []byte) error { i.Users++; return nil }},
		{rolesBucket, func(_, _ []byte) error { i.Roles++; return nil }},
	} {
		err := db.scan(ctx, part.bucket, walk{reached: reached, visit: func(key, value []byte, _ bool) error {
			return part.read(key, value)
		}})
		if err != nil {
			return fmt.Errorf("bucket %q: %w", part.bucket, err)
		}
	}
	i.Revision = max(i.Revision, i.CompactRevision())
	err := db.scan(ctx, keyBucket, walk{order: descending, visit: func(key, _ []byte, _ bool) error {
		main, _, _, err := parseRevision(key)
		i.Revision = max(i.Revision, main)
		return errors.Join(err, fs.SkipAll)
	}})
	if err != nil && !onlySkip(err) {
		return fmt.Errorf("bucket %q: %w", keyBucket, err)
	}
	return nil
}

// onlySkip tells a walk that was ended from one that failed.
func onlySkip(err error) bool {
	return errors.Is(err, fs.SkipAll) && !errors.Is(err, ErrStructure)
}

func (i *Info) readMeta(key, value []byte) (err error) {
	switch string(key) {
	case "consistent_index":
		i.ConsistentIndex, err = number(value)
	case "term":
		i.Term, err = number(value)
	case "scheduledCompactRev":
		i.ScheduledCompact, _, _, err = parseRevision(value)
	case "finishedCompactRev":
		i.FinishedCompact, _, _, err = parseRevision(value)
	case "storageVersion":
		// Etcd writes "3.6.0"; the last number says nothing.
		i.StorageVersion = minor(string(value))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// minor cuts a version to its first two numbers.
func minor(version string) string {
	dots := 0
	for at, c := range version {
		if c == '.' {
			if dots++; dots == 2 {
				return version[:at]
			}
		}
	}
	return version
}

func number(raw []byte) (uint64, error) {
	if len(raw) != 8 {
		return 0, fmt.Errorf("%w: %x is not a number of 64 bits", ErrStructure, raw[:min(len(raw), 32)])
	}
	return binary.BigEndian.Uint64(raw), nil
}

func (i *Info) readCluster(key, value []byte) error {
	if string(key) == "clusterVersion" {
		i.ClusterVersion = string(value)
	}
	return nil
}

// memberRecord is etcd's JSON of a member.
type memberRecord struct {
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs"`
	IsLearner  bool     `json:"isLearner"`
}

func (i *Info) readMember(key, value []byte) error {
	id, err := memberID(key)
	if err != nil {
		return err
	}
	var m memberRecord
	if err := json.Unmarshal(value, &m); err != nil {
		return fmt.Errorf("%w: member %s: %w", ErrStructure, key, err)
	}
	i.Members = append(i.Members, Member{ID: id, Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, Learner: m.IsLearner})
	return nil
}

func (i *Info) readRemoved(key, _ []byte) error {
	id, err := memberID(key)
	i.RemovedMembers = append(i.RemovedMembers, id)
	return err
}

func memberID(key []byte) (uint64, error) {
	id, err := strconv.ParseUint(string(key), 16, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: %.40q is not a member ID", ErrStructure, key)
	}
	return id, nil
}

func (i *Info) readAlarm(key, _ []byte) error {
	var a etcdserverpb.AlarmMember
	if err := proto.Unmarshal(key, &a); err != nil {
		return fmt.Errorf("%w: alarm %x: %w", ErrStructure, key[:min(len(key), 32)], err)
	}
	i.Alarms = append(i.Alarms, Alarm{MemberID: a.GetMemberID(), Name: a.GetAlarm().String()})
	return nil
}

func (i *Info) readAuth(key, value []byte) (err error) {
	switch string(key) {
	case "authEnabled":
		i.AuthEnabled = len(value) == 1 && value[0] == 1
	case "authRevision":
		i.AuthRevision, err = number(value)
	}
	return err
}

func formatNumber(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
