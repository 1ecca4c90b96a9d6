package etcd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/internal/atomicfile"
	"github.com/quorate/quorate/store"
)

// Epoch is one life of a store: from when it was made, or restored, to the next
// restore.
type Epoch struct {
	// Number grows with each restore; the first is 1.
	Number int64 `json:"number"`
	// ID is random, in hex.
	ID string `json:"id"`
	// RestoredAt is when it began by a restore; nil for the first.
	RestoredAt *time.Time `json:"restoredAt,omitempty"`
}

// Epoch returns the store's epoch, read anew.
func (s *Store) Epoch(ctx context.Context) (Epoch, error) {
	ctx, cancel := s.deadline(ctx)
	defer cancel()
	return s.loadEpoch(ctx)
}

// Revision is the newest revision of the store that this process has seen.
func (s *Store) Revision() int64 { return s.revision.Load() }

// Position is where the store stands, read anew.
func (s *Store) Position(ctx context.Context) (store.Position, error) {
	epoch, err := s.Epoch(ctx)
	if err != nil {
		return store.Position{}, err
	}
	return store.Position{Epoch: epoch.Number, EpochID: epoch.ID, Revision: s.Revision()}, nil
}

// position is Position as known without asking.
func (s *Store) position() store.Position {
	return store.Position{Epoch: s.epoch.Number, EpochID: s.epoch.ID, Revision: s.Revision()}
}

func (s *Store) loadEpoch(ctx context.Context) (Epoch, error) {
	resp, err := s.client.Get(ctx, epochKey)
	if err != nil {
		return Epoch{}, fmt.Errorf("read the store's epoch: %w", s.fail(err))
	}
	s.saw(resp.Header.GetRevision())
	if len(resp.Kvs) == 0 {
		return Epoch{}, fmt.Errorf("the store's epoch: %w", store.ErrNotFound)
	}
	return decodeEpoch(resp.Kvs[0].Value)
}

// firstEpoch begins a new store, or finds that another server has just done so.
func (s *Store) firstEpoch(ctx context.Context) (Epoch, error) {
	epoch, err := newEpoch(1)
	if err != nil {
		return Epoch{}, err
	}
	raw, err := json.Marshal(epoch)
	if err != nil {
		return Epoch{}, fmt.Errorf("encode the epoch: %w", err)
	}
	resp, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(epochKey), "=", 0)).
		Then(clientv3.OpPut(epochKey, string(raw))).
		Else(clientv3.OpGet(epochKey)).
		Commit()
	if err != nil {
		return Epoch{}, fmt.Errorf("write the store's epoch: %w", s.fail(err))
	}
	s.saw(resp.Header.GetRevision())
	if resp.Succeeded {
		return epoch, nil
	}
	return decodeEpoch(resp.Responses[0].GetResponseRange().Kvs[0].Value)
}

func newEpoch(number int64) (Epoch, error) {
	raw := make([]byte, 8)
	if _, err := rand.Read(raw); err != nil {
		return Epoch{}, fmt.Errorf("new epoch: %w", err)
	}
	return Epoch{Number: number, ID: hex.EncodeToString(raw)}, nil
}

func decodeEpoch(raw []byte) (Epoch, error) {
	var epoch Epoch
	if err := json.Unmarshal(raw, &epoch); err != nil || epoch.Number < 1 || epoch.ID == "" {
		return Epoch{}, fmt.Errorf("%w: what stands at %s is no epoch: %s", ErrCorrupt, epochKey, restoreHint)
	}
	return epoch, nil
}

// readMarker returns the position remembered at path, or nil where there is none.
func readMarker(path string) (*store.Position, error) {
	if path == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(path) //nolint:gosec // the caller names its own file
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the store's marker: %w", err)
	}
	var p store.Position
	if err := json.Unmarshal(raw, &p); err != nil || p.Epoch < 1 {
		return nil, fmt.Errorf("the store's marker %s can't be read: check that the store is the newest there is, and remove that file", path)
	}
	return &p, nil
}

func writeMarker(path string, p store.Position) error {
	if path == "" {
		return nil
	}
	raw, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode the store's marker: %w", err)
	}
	if err := atomicfile.Write(path, append(raw, '\n'), 0o600); err != nil {
		return fmt.Errorf("the store's marker: %w", err)
	}
	return nil
}
