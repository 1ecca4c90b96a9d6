package datadir

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

const (
	// copyChunk is what is read, hashed and written at once, and copyChunks how many
	// of them there are. Why so small: for a large write Linux takes large pages, which
	// virtual machines that give free memory back to their host have to ask it for again;
	// that cost twice the time of all the rest.
	copyChunk  = 64 << 10
	copyChunks = 16
	// flushEvery is after how many bytes the kernel is told to begin writing, so that
	// the sync at the end has little left to do.
	flushEvery = 16 << 20
	// foundingTerm is raft's term in which the members of a new cluster were added.
	foundingTerm = 1
)

// quiet is a logger for etcd's code that tells nothing, and panics where etcd's
// would end the process.
func quiet() *zap.Logger {
	return zap.NewNop().WithOptions(zap.WithFatalHook(zapcore.WriteThenPanic))
}

// guard turns panics of etcd's code, and faults within a mapped file, into errors.
func guard(what string, do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("%s: %v", what, cause)
		}
	}()
	if err = do(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// copyDatabase writes the database of a snapshot to path, hashing it on the way,
// and checks it. The file is not synced yet.
func (o *RestoreOptions) copyDatabase(ctx context.Context, src io.Reader, path string) (done Restored, err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // in the new directory
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	sums, err := copyHashed(ctx, file, src)
	if err != nil {
		return done, err
	}
	if _, err = openPages(file, sums.size); err != nil {
		return done, err
	}
	done.Bytes = sums.size
	if done.SHA256, done.Verified, err = judgeHash(file, sums, CheckOptions{AllowNoHash: o.AllowNoHash}); err != nil {
		return done, err
	}
	info, pages, err := checkContent(ctx, file, contents{records: !done.Verified})
	if err != nil {
		return done, err
	}
	done.Source = info.Info
	done.Source.Path = o.Path
	if err = file.Truncate(info.Size); err != nil {
		return done, err
	}
	return done, pages.forgetFree(file)
}

// forgetFree has a database whose list of free pages is left out say that none is
// free. Why: bbolt would read all pages when it opens the file, to find those that
// are free, and keep what it has read mapped. They are checked already. The
// transaction that follows leaves the list out again, so that etcd finds them.
func (p *pager) forgetFree(file *os.File) error {
	if p.freelist != noFreelist {
		return nil
	}
	list := make([]byte, p.pageSize)
	le := binary.LittleEndian
	le.PutUint64(list, p.pages)
	le.PutUint16(list[8:], freelistPage)
	meta := p.meta
	le.PutUint64(meta[32:], p.pages)
	le.PutUint64(meta[40:], p.pages+1)
	le.PutUint64(meta[56:], metaSum(meta[:]))
	_, err := file.WriteAt(list, p.size())
	for page := range int64(2) {
		if err == nil {
			_, err = file.WriteAt(meta[:], page*p.pageSize+pageHeader)
		}
	}
	return err
}

// fill reads until b is full or src ends. io.ReadFull makes of an end in the middle what a
// source says whose own end is missing.
func fill(src io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var more int
		more, err = src.Read(b[n:])
		n += more
	}
	return n, err
}

// copyHashed writes everything from src to file. Hashing has a core of its own.
func copyHashed(ctx context.Context, file *os.File, src io.Reader) (*SnapshotHash, error) {
	sums := NewSnapshotHash()
	free, full := make(chan []byte, copyChunks), make(chan []byte, copyChunks)
	for range copyChunks {
		free <- make([]byte, copyChunk)
	}
	hashed := make(chan struct{})
	go func() {
		defer close(hashed)
		for b := range full {
			_, _ = sums.Write(b)
			free <- b[:copyChunk]
		}
	}()
	err := func() error {
		defer close(full)
		var written, flushed int64
		for {
			if err := ctx.Err(); err != nil {
				return err
			}
			b := <-free
			n, readErr := fill(src, b)
			if _, err := file.Write(b[:n]); err != nil {
				return err
			}
			full <- b[:n]
			written += int64(n)
			switch {
			case readErr == io.EOF: //nolint:errorlint // as readers give it; one that wraps another is no end
				return nil
			case readErr != nil:
				return fmt.Errorf("read: %w", readErr)
			}
			if written-flushed >= flushEvery {
				// A file system that can't is asked once more by the sync.
				_ = unix.SyncFileRange(int(file.Fd()), flushed, written-flushed, unix.SYNC_FILE_RANGE_WRITE)
				flushed = written
			}
		}
	}()
	<-hashed
	return sums, err
}

// position is where raft stands when a cluster has been founded.
type position struct {
	index uint64
	state *raftpb.ConfState
}

// memberNamed is the member of that name; the options were held to have it.
func memberNamed(cluster *membership.RaftCluster, name string) *membership.Member {
	for _, m := range cluster.Members() {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// writeLog makes the write-ahead log of a member of a cluster just founded, as if
// each member had been added by an entry of its own, and the snapshot of raft that
// goes with it.
func writeLog(dataDir string, cluster *membership.RaftCluster, self *membership.Member) (at position, err error) {
	ids := cluster.MemberIDs()
	entries := make([]*raftpb.Entry, len(ids))
	at = position{index: uint64(len(ids)), state: &raftpb.ConfState{}}
	for i, id := range ids {
		var added, change []byte
		if added, err = json.Marshal(cluster.Member(id)); err != nil {
			return at, fmt.Errorf("encode member %s: %w", id, err)
		}
		change, err = proto.Marshal(&raftpb.ConfChange{Type: raftpb.ConfChangeAddNode.Enum(), NodeId: new(uint64(id)), Context: added})
		if err != nil {
			return at, fmt.Errorf("encode member %s: %w", id, err)
		}
		entries[i] = &raftpb.Entry{
			Type: raftpb.EntryConfChange.Enum(), Term: new(uint64(foundingTerm)), Index: new(uint64(i + 1)), Data: change,
		}
		at.state.Voters = append(at.state.Voters, uint64(id))
	}
	metadata, err := proto.Marshal(&etcdserverpb.Metadata{NodeID: new(uint64(self.ID)), ClusterID: new(uint64(cluster.ID()))})
	if err != nil {
		return at, fmt.Errorf("encode the member's identity: %w", err)
	}
	return at, guard("write the log", func() (err error) {
		log, err := wal.Create(quiet(), walDir(dataDir), metadata)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, log.Close()) }()
		hard := &raftpb.HardState{Term: new(uint64(foundingTerm)), Vote: new(at.state.Voters[0]), Commit: new(at.index)}
		if err = log.Save(hard, entries); err != nil {
			return err
		}
		// Etcd reads the members from here where the database has none.
		err = snap.New(quiet(), filepath.Join(dataDir, "member", "snap")).SaveSnap(&raftpb.Snapshot{
			Data:     etcdserver.GetMembershipInfoInV2Format(quiet(), cluster),
			Metadata: &raftpb.SnapshotMetadata{Index: new(at.index), Term: new(uint64(foundingTerm)), ConfState: at.state},
		})
		if err != nil {
			return err
		}
		return log.SaveSnapshot(&walpb.Snapshot{Index: new(at.index), Term: new(uint64(foundingTerm)), ConfState: at.state})
	})
}

// rewrite makes the database that of the new cluster, in one transaction, which
// syncs all of the file.
func (o *RestoreOptions) rewrite(path string, cluster *membership.RaftCluster, at position, revision int64) error {
	return guard("rewrite the database", func() (err error) {
		// Etcd leaves out the list of free pages as well.
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, db.Close()) }()
		return db.Update(func(tx *bbolt.Tx) error {
			if err := rewriteMembers(tx, cluster); err != nil {
				return err
			}
			if err := o.disarm(tx); err != nil {
				return err
			}
			if auth := tx.Bucket([]byte(authBucket)); auth != nil && o.DisableAuth {
				if err := auth.Put([]byte("authEnabled"), []byte{0}); err != nil {
					return err
				}
			}
			if err := rewriteMeta(tx.Bucket([]byte(metaBucket)), at); err != nil || o.BumpRevision == 0 {
				return err
			}
			if err := tx.Bucket([]byte(keyBucket)).Put(formatRevision(revision), []byte{}); err != nil {
				return err
			}
			return tx.Bucket([]byte(metaBucket)).Put([]byte("scheduledCompactRev"), formatRevision(revision))
		})
	})
}

func rewriteMembers(tx *bbolt.Tx, cluster *membership.RaftCluster) error {
	for _, name := range []string{membersBucket, removedMembersBucket} {
		if tx.Bucket([]byte(name)) != nil {
			if err := tx.DeleteBucket([]byte(name)); err != nil {
				return err
			}
		}
		if _, err := tx.CreateBucket([]byte(name)); err != nil {
			return err
		}
	}
	for _, m := range cluster.Members() {
		raw, err := json.Marshal(m)
		if err != nil {
			return err
		}
		if err := tx.Bucket([]byte(membersBucket)).Put([]byte(m.ID.String()), raw); err != nil {
			return err
		}
	}
	return nil
}

// disarm removes alarms; they stand in the keys of their bucket.
func (o *RestoreOptions) disarm(tx *bbolt.Tx) error {
	b := tx.Bucket([]byte(alarmBucket))
	if b == nil {
		return nil
	}
	var gone [][]byte
	err := b.ForEach(func(key, _ []byte) error {
		var a etcdserverpb.AlarmMember
		if err := proto.Unmarshal(key, &a); err != nil {
			return err
		}
		if o.disarms(Alarm{Name: a.GetAlarm().String()}) {
			gone = append(gone, key)
		}
		return nil
	})
	for _, key := range gone {
		err = errors.Join(err, b.Delete(key))
	}
	return err
}

func rewriteMeta(meta *bbolt.Bucket, at position) error {
	state, err := json.Marshal(at.state)
	if err != nil {
		return err
	}
	for _, field := range []struct {
		name  string
		value []byte
	}{
		{"consistent_index", formatNumber(at.index)},
		{"term", formatNumber(foundingTerm)},
		{"confState", state},
	} {
		if err := meta.Put([]byte(field.name), field.value); err != nil {
			return err
		}
	}
	return nil
}
