package datadir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Tail is how far the write-ahead log in a data directory goes.
type Tail struct {
	// Dir is the data directory.
	Dir string
	// Empty says that there is no log; all that follows is then 0.
	Empty bool
	// ClusterID and MemberID are etcd's IDs.
	ClusterID, MemberID uint64
	// Term, Vote and Commit are raft's hard state. Term and Commit never go back in
	// the life of a member.
	Term, Vote, Commit uint64
	// LastIndex is the index of the last entry of the raft log, committed or not. It
	// may go back when a new leader overwrites entries that were not committed.
	LastIndex uint64
	// Torn says that the log ends in a record that a crash cut short. Etcd removes it
	// when it starts.
	Torn bool
}

// Mark returns the position that the member can't fall behind any more: its term
// and commit index.
func (t Tail) Mark() Mark { return Mark{Term: t.Term, Index: t.Commit} }

// ReadTail reads the end of the log in dataDir/member/wal, without writing or
// taking a lock, in constant memory. It reads the last file of the log, and
// earlier ones only where the last holds no entry.
//
// A missing or empty directory, and one without a log in which nothing stands
// that etcd would not have made before it, is Empty. ErrForeign: other files are
// there. ErrUnreadable: the log is damaged. Other errors are those of reading.
func ReadTail(dataDir string) (Tail, error) {
	tail := Tail{Dir: dataDir}
	names, err := logFiles(dataDir)
	if err != nil {
		return tail, err
	}
	if len(names) == 0 {
		tail.Empty = true
		return tail, checkLeftovers(dataDir)
	}
	var last segment
	for i, name := range slices.Backward(names) {
		seg, err := readSegment(filepath.Join(walDir(dataDir), name), i == len(names)-1)
		if err != nil {
			return tail, err
		}
		if i == len(names)-1 {
			last = seg
		} else if err := last.continueFrom(seg, name); err != nil {
			return tail, err
		}
		if last.complete() {
			break
		}
	}
	if !last.metadata {
		return tail, fmt.Errorf("%s: %w: it names no member", walDir(dataDir), ErrUnreadable)
	}
	if !last.entries {
		// The files before were purged; etcd puts the next index into the name.
		last.lastIndex = max(last.lastIndex, last.firstIndex-min(1, last.firstIndex))
	}
	tail.ClusterID, tail.MemberID = last.clusterID, last.memberID
	tail.Term, tail.Vote, tail.Commit = last.term, last.vote, last.commit
	tail.LastIndex, tail.Torn = last.lastIndex, last.torn
	return tail, nil
}

func walDir(dataDir string) string { return filepath.Join(dataDir, "member", "wal") }

// logFiles lists the files of the log in order: none where there is no log.
func logFiles(dataDir string) ([]string, error) {
	entries, err := os.ReadDir(walDir(dataDir))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, unix.ENOTDIR):
		return nil, fmt.Errorf("%s: %w: a file stands where a directory should: %w", dataDir, ErrForeign, err)
	case err != nil:
		return nil, fmt.Errorf("read the write-ahead log: %w", err)
	}
	var names []string
	var lastSeq uint64
	for _, e := range entries {
		seq, _, err := parseName(e.Name())
		if err != nil {
			continue // etcd passes over it as well
		}
		if len(names) > 0 && seq != lastSeq+1 {
			return nil, fmt.Errorf("%s: %w: the file before %s is missing", walDir(dataDir), ErrUnreadable, e.Name())
		}
		lastSeq = seq
		names = append(names, e.Name())
	}
	return names, nil
}

func parseName(name string) (seq, index uint64, err error) {
	if len(name) != len("0000000000000000-0000000000000000.wal") {
		return 0, 0, fmt.Errorf("%q: %w", name, fs.ErrInvalid)
	}
	_, err = fmt.Sscanf(name, "%016x-%016x.wal", &seq, &index)
	return seq, index, err
}

// flushLog makes the last file of the log durable as it stands.
func flushLog(dataDir string) error {
	names, err := logFiles(dataDir)
	if err != nil || len(names) == 0 {
		return err
	}
	f, err := os.Open(filepath.Join(walDir(dataDir), names[len(names)-1]))
	if err != nil {
		return fmt.Errorf("flush the write-ahead log: %w", err)
	}
	return errors.Join(f.Sync(), f.Close())
}

// leftovers are, in a directory without a log, the names of what etcd makes before
// its log, and of what file systems put into their root. Snapshot files are not
// among them: they would mean that a log has been applied.
var leftovers = []struct {
	dir   string
	names []string
}{
	{".", []string{"member", "lost+found", ".touch"}},
	{"member", []string{"snap", "wal", "wal.tmp", ".touch"}},
	{"member/wal", []string{"0.tmp", "1.tmp", ".touch"}},
	{"member/snap", []string{"db", "tmp", ".touch"}},
}

// checkLeftovers tells a directory in which nothing ever ran from one that holds
// something, in a data directory without a log.
func checkLeftovers(dataDir string) error {
	for _, l := range leftovers {
		path := filepath.Join(dataDir, filepath.FromSlash(l.dir))
		entries, err := os.ReadDir(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case errors.Is(err, unix.ENOTDIR):
			return fmt.Errorf("%s: %w: %s is not a directory", dataDir, ErrForeign, path)
		case err != nil:
			return fmt.Errorf("read the data directory: %w", err)
		}
		for _, e := range entries {
			if !slices.Contains(l.names, e.Name()) {
				return fmt.Errorf("%s: %w: there is no write-ahead log, but %s", dataDir, ErrForeign, filepath.Join(path, e.Name()))
			}
		}
	}
	db := filepath.Join(dataDir, "member", "snap", "db")
	index, err := appliedIndex(db)
	if err != nil {
		return fmt.Errorf("%s: %w: there is no write-ahead log, but a database: %w", dataDir, ErrForeign, err)
	}
	if index > 0 {
		return fmt.Errorf("%s: %w: there is no write-ahead log, but %s has applied one up to index %d", dataDir, ErrForeign, db, index)
	}
	return nil
}

// segment is what one file of the log, and those read before it, say.
type segment struct {
	metadata, state, entries bool

	clusterID, memberID uint64
	term, vote, commit  uint64
	lastIndex           uint64
	firstIndex          uint64
	torn                bool
	// startSum and endSum are the checksums that the file begins and ends with.
	startSum, endSum uint32
}

func (s *segment) complete() bool { return s.metadata && s.state && s.entries }

// continueFrom adds what an earlier file says to what the later ones left open.
func (s *segment) continueFrom(earlier segment, name string) error {
	switch {
	case s.metadata && earlier.metadata && (s.clusterID != earlier.clusterID || s.memberID != earlier.memberID):
		return fmt.Errorf("%w: file %s belongs to another member than the next", ErrUnreadable, name)
	case s.startSum != 0 && s.startSum != earlier.endSum:
		return fmt.Errorf("%w: the checksum of file %s doesn't lead to the next", ErrUnreadable, name)
	}
	if !s.metadata {
		s.metadata, s.clusterID, s.memberID = earlier.metadata, earlier.clusterID, earlier.memberID
	}
	if !s.state {
		s.state, s.term, s.vote, s.commit = earlier.state, earlier.term, earlier.vote, earlier.commit
	}
	if !s.entries {
		s.entries, s.firstIndex = earlier.entries, earlier.firstIndex
		s.lastIndex = max(s.lastIndex, earlier.lastIndex)
	}
	s.startSum = earlier.startSum
	return nil
}

// readSegment reads a file of the log. Only the last one may end torn.
func readSegment(path string, isLast bool) (seg segment, err error) {
	_, seg.firstIndex, err = parseName(filepath.Base(path))
	if err != nil {
		return seg, err
	}
	f, err := os.Open(path) //nolint:gosec // a file of the caller's data directory
	if err != nil {
		return seg, fmt.Errorf("read the write-ahead log: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return seg, fmt.Errorf("read the write-ahead log: %w", err)
	}
	s := newScanner(f, info.Size())
	for first := true; ; first = false {
		var rec record
		rec, err = s.next()
		if err != nil {
			break
		}
		if first && rec.kind == crcRecord {
			seg.startSum = rec.crc
		}
		if err = seg.add(rec); err != nil {
			return seg, fmt.Errorf("%s: %w: at byte %d: %w", path, ErrUnreadable, s.off, err)
		}
	}
	seg.endSum = s.sum
	switch {
	case errors.Is(err, io.EOF):
		return seg, nil
	case errors.Is(err, errTorn) && isLast:
		seg.torn = true
		return seg, nil
	case errors.Is(err, errTorn):
		return seg, fmt.Errorf("%s: %w: it is cut short at byte %d, and is not the last file", path, ErrUnreadable, s.off)
	default:
		return seg, fmt.Errorf("%s: %w", path, err)
	}
}

func (s *segment) add(rec record) error {
	if rec.kind == crcRecord {
		return nil
	}
	v, err := fields(rec.head)
	if err != nil {
		return err
	}
	switch rec.kind {
	case metadataRecord:
		if s.metadata && (s.memberID != v[1] || s.clusterID != v[2]) {
			return fmt.Errorf("%w: two members in one log", errWire)
		}
		s.metadata, s.memberID, s.clusterID = true, v[1], v[2]
	case stateRecord:
		s.state, s.term, s.vote, s.commit = true, v[1], v[2], v[3]
	case entryRecord:
		// Fields: type, term, index. A later entry replaces all from its index on.
		if v[3] == 0 {
			return fmt.Errorf("%w: an entry without an index", errWire)
		}
		s.entries, s.lastIndex = true, v[3]
	case snapshotRecord:
		s.lastIndex = max(s.lastIndex, v[1])
	}
	return nil
}
