package store

import (
	"errors"
	"fmt"
)

// ErrStale says that a store is older than what was already seen of it: it was
// put back from a copy without `quorate server restore`, or it is another store.
var ErrStale = errors.New("the store is older than the one seen before")

// Position says how far a store has come. Agents remember the furthest one they
// have seen and refuse a store that stands behind it.
type Position struct {
	// Epoch grows with each restore of the store; the first is 1.
	Epoch int64 `json:"epoch"`
	// EpochID is random, and tells two stores of the same epoch apart.
	EpochID string `json:"epochID"`
	// Revision grows with each write within an epoch.
	Revision int64 `json:"revision"`
}

// Check returns ErrStale when p stands behind seen, the furthest position that was
// seen before: an older epoch, another store of the same epoch, or an older
// revision of the same one. The zero value of seen accepts everything.
func (p Position) Check(seen Position) error {
	switch {
	case seen == Position{}:
		return nil
	case p.Epoch < seen.Epoch:
		return fmt.Errorf("%w: it is at epoch %d, and epoch %d was seen: start the newer store, or make a new epoch with `quorate server restore`",
			ErrStale, p.Epoch, seen.Epoch)
	case p.Epoch > seen.Epoch:
		return nil
	case p.EpochID != seen.EpochID:
		return fmt.Errorf("%w: epoch %d is known as %s and this one is %s, so it is another store: connect to the right one, or begin a new epoch of this one with `quorate server restore`",
			ErrStale, p.Epoch, seen.EpochID, p.EpochID)
	case p.Revision < seen.Revision:
		return fmt.Errorf("%w: it is at revision %d of epoch %d, and revision %d was seen: its files were rolled back, so put the newer ones back or use `quorate server restore`",
			ErrStale, p.Revision, p.Epoch, seen.Revision)
	}
	return nil
}
