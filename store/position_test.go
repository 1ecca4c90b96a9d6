package store_test

import (
	"errors"
	"testing"

	"github.com/quorate/quorate/store"
)

func TestPositionCheck(t *testing.T) {
	seen := store.Position{Epoch: 5, EpochID: "a", Revision: 100}
	tests := map[string]struct {
		now   store.Position
		seen  store.Position
		stale bool
	}{
		"nothing seen":      {store.Position{Epoch: 1, EpochID: "x", Revision: 1}, store.Position{}, false},
		"the same":          {seen, seen, false},
		"newer revision":    {store.Position{Epoch: 5, EpochID: "a", Revision: 101}, seen, false},
		"older revision":    {store.Position{Epoch: 5, EpochID: "a", Revision: 99}, seen, true},
		"another store":     {store.Position{Epoch: 5, EpochID: "b", Revision: 200}, seen, true},
		"older epoch":       {store.Position{Epoch: 4, EpochID: "a", Revision: 200}, seen, true},
		"restored":          {store.Position{Epoch: 6, EpochID: "b", Revision: 200}, seen, false},
		"restored to older": {store.Position{Epoch: 6, EpochID: "b", Revision: 2}, seen, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := tt.now.Check(tt.seen)
			if errors.Is(err, store.ErrStale) != tt.stale || (err != nil) != tt.stale {
				t.Fatalf("Check: %v, want stale %v", err, tt.stale)
			}
		})
	}
}
