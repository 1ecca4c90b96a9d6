package remote

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/wire"
)

// clockAsks is how often the server is asked for its time: the quickest answer tells it
// best, and the first may have to connect.
const clockAsks = 4

// ClockOffset is how far this machine's clock is ahead of the server's, negative behind
// it, and within how much that is known: half of the quickest round trip.
func (c *Client) ClockOffset(ctx context.Context) (offset, within time.Duration, err error) {
	for range clockAsks {
		var v wire.Version
		began := time.Now()
		if err = c.call(ctx, http.MethodGet, wire.PathVersion, nil, nil, &v); err != nil {
			break // what was learned before it counts
		}
		half := time.Since(began) / 2
		if v.Time.IsZero() {
			return 0, 0, fmt.Errorf("%w: the server at %s is older than this agent and does not tell its time: upgrade it", store.ErrUnavailable, c.Server())
		}
		if within == 0 || half < within {
			// By the wall clock, which is what is asked about.
			offset, within = began.Round(0).Add(half).Sub(v.Time), half
		}
	}
	if within > 0 {
		return offset, within, nil
	}
	return 0, 0, err
}
