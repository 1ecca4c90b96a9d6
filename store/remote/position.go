package remote

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/quorate/quorate/internal/atomicfile"
	"github.com/quorate/quorate/store"
)

// PositionStore remembers the furthest position of a store that was seen. It is
// safe for concurrent use.
type PositionStore interface {
	// Seen returns the furthest position seen; the zero Position when there is none.
	Seen() store.Position
	// Observe remembers p if it is further than what was seen. It returns
	// store.ErrStale when p is of an older epoch or of another store. A lower revision
	// is no error: of two answers on their way, the older may arrive last. Other
	// errors mean that p was remembered, and could not be made durable.
	Observe(p store.Position) error
}

// MemoryPosition remembers for as long as the process lives. The zero value has
// seen nothing.
type MemoryPosition struct {
	mu   sync.Mutex
	seen store.Position
}

// Seen implements PositionStore.
func (m *MemoryPosition) Seen() store.Position {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen
}

// Observe implements PositionStore.
func (m *MemoryPosition) Observe(p store.Position) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.advance(p)
	return err
}

// advance moves seen to p if that is further, and reports whether the epoch is a
// new one. The lock is held.
func (m *MemoryPosition) advance(p store.Position) (newEpoch bool, err error) {
	newer := p
	newer.Revision = max(p.Revision, m.seen.Revision)
	if err := newer.Check(m.seen); err != nil {
		return false, err
	}
	if p.Epoch != m.seen.Epoch || p.EpochID != m.seen.EpochID {
		m.seen = p
		return true, nil
	}
	m.seen = newer
	return false, nil
}

// saveEvery spaces out the writes of a PositionFile.
const saveEvery = time.Second

// PositionFile remembers in a file as well, so that a restart forgets at most what
// was seen in the last second.
type PositionFile struct {
	MemoryPosition

	path  string
	saved store.Position
	// tried is when a write was last tried.
	tried time.Time
	now   func() time.Time
}

// FilePosition opens the file at path, which need not exist yet. A damaged file is
// an error: what it held can't be guessed.
func FilePosition(path string) (*PositionFile, error) {
	f := &PositionFile{path: path, now: time.Now}
	raw, err := os.ReadFile(path) //nolint:gosec // the caller names its own file
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the store's last seen position: %w", err)
	}
	if err := json.Unmarshal(raw, &f.seen); err != nil || f.seen.Epoch < 1 || f.seen.EpochID == "" {
		return nil, fmt.Errorf("%s is damaged: it holds the last seen position of the fleet's store, which guards against an old copy of it: "+
			"make sure that the server's store is the newest there is, then remove the file", path)
	}
	f.saved = f.seen
	return f, nil
}

// Observe implements PositionStore. A new epoch is made durable at once, and a
// revision at most once a second.
func (f *PositionFile) Observe(p store.Position) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	newEpoch, err := f.advance(p)
	if err != nil {
		return err
	}
	now := f.now()
	if f.seen == f.saved || (!newEpoch && now.Sub(f.tried) < saveEvery) {
		return nil
	}
	f.tried = now
	return f.save()
}

// Flush makes what was seen durable.
func (f *PositionFile) Flush() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen == f.saved {
		return nil
	}
	return f.save()
}

func (f *PositionFile) save() error {
	raw, err := json.Marshal(f.seen)
	if err == nil {
		err = atomicfile.Write(f.path, append(raw, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("remember the store's position: %w", err)
	}
	f.saved = f.seen
	return nil
}
