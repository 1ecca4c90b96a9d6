package host

import (
	"context"
	"log/slog"
	"time"

	"github.com/quorate/quorate/driver/host/supervisor"
	"github.com/quorate/quorate/internal/backoff"
	"github.com/quorate/quorate/internal/process"
)

// ReasonSupervisorFailed says that the supervisor can't be started, or ends at
// once.
const ReasonSupervisorFailed = "SupervisorFailed"

// spawned is the latest supervisor of a home that this driver started.
type spawned struct {
	id      process.ID
	started time.Time
	// ended is closed after failure was set; failure is nil after a good end.
	ended   chan struct{}
	failure error

	failures int
	again    time.Time
	backoff  backoff.Backoff
}

// settled is how long a supervisor must have lived for its failure to be a first
// one.
const settled = 10 * time.Second

// spawn starts the home's supervisor, unless one was started just now. One that
// fails is started anew at once, and one that keeps failing ever more seldom.
func (d *Driver) spawn(ctx context.Context, h supervisor.Home) error {
	d.mu.Lock()
	sp := d.spawned[string(h)]
	if sp == nil {
		sp = &spawned{backoff: backoff.Backoff{Min: time.Second, Max: 30 * time.Second}}
	}
	d.mu.Unlock()
	if sp.id.Alive() {
		return nil
	}
	if err := sp.delay(ctx); err != nil {
		return problemf(ReasonSupervisorFailed, "the member's supervisor failed: %v; see %s", err, d.launcher.log(h))
	}
	next := &spawned{started: time.Now(), ended: make(chan struct{}), failures: sp.failures, backoff: sp.backoff}
	l, err := d.launcher.launch(ctx, h)
	if err != nil {
		return problemf(ReasonSupervisorFailed, "the member's supervisor can't be started: %v", err)
	}
	next.id = l.id
	d.mu.Lock()
	d.spawned[string(h)] = next
	d.mu.Unlock()
	d.log.InfoContext(ctx, "started a supervisor", slog.String("home", string(h)), slog.Int("pid", l.id.PID), slog.String("as", string(d.launcher.supervision())))
	watching := context.WithoutCancel(ctx) // it outlives whoever asked for it
	go func() {
		next.failure = l.wait(watching)
		close(next.ended)
	}()
	return nil
}

// delay returns why the home's next supervisor has to wait. Calls for one home do
// not overlap.
func (sp *spawned) delay(ctx context.Context) error {
	if sp.ended == nil {
		return nil // there was none
	}
	select {
	case <-sp.ended: // at once, since it is not alive
	case <-ctx.Done():
		return ctx.Err()
	}
	now := time.Now()
	if sp.failure == nil || now.Sub(sp.started) > settled {
		sp.failures = 0
		sp.backoff.Reset()
		return nil
	}
	if sp.again.IsZero() {
		sp.failures++
		sp.again = now
		if sp.failures > 1 {
			sp.again = now.Add(sp.backoff.Next())
		}
	}
	if now.Before(sp.again) {
		return sp.failure
	}
	return nil
}

// starting reports whether a supervisor of this driver's lives, which may not have
// come to take its lock yet.
func (d *Driver) starting(h supervisor.Home) bool {
	d.mu.Lock()
	sp := d.spawned[string(h)]
	d.mu.Unlock()
	return sp != nil && sp.id.Alive()
}
