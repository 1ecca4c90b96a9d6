// Package backoff spaces out attempts that fail.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff doubles from Min to Max. The zero value does not wait.
type Backoff struct {
	// Min is the delay after the first failure.
	Min time.Duration
	// Max is the longest delay.
	Max time.Duration
	// Jitter is the share of each delay, 0 to 1, that is random.
	Jitter float64

	next time.Duration
}

// Next returns the delay before the next attempt and doubles the one after it.
func (b *Backoff) Next() time.Duration {
	if b.next < b.Min {
		b.next = b.Min
	}
	d := b.next
	b.next = min(2*b.next, b.Max)
	if b.Jitter > 0 && d > 0 {
		d -= time.Duration(b.Jitter * rand.Float64() * float64(d)) //nolint:gosec // spacing needs no secrecy
	}
	return d
}

// Reset begins again at Min.
func (b *Backoff) Reset() { b.next = 0 }

// Sleep waits for d, or until ctx ends, whose error it then returns.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
