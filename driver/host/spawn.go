package host

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/quorate/quorate/driver/host/supervisor"
	"github.com/quorate/quorate/internal/backoff"
	"github.com/quorate/quorate/internal/process"
)

const (
	supervisorLogMax  = 1 << 20
	supervisorLogKeep = 2
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
		return problemf(ReasonSupervisorFailed, "the member's supervisor failed: %v; see %s", err, h.SupervisorLog())
	}
	next := &spawned{started: time.Now(), ended: make(chan struct{}), failures: sp.failures, backoff: sp.backoff}
	cmd, err := d.startSupervisor(h)
	if err != nil {
		return problemf(ReasonSupervisorFailed, "the member's supervisor can't be started: %v", err)
	}
	// One that has ended already has no ID, and is not alive either.
	next.id, _ = process.Identify(cmd.Process.Pid)
	d.mu.Lock()
	d.spawned[string(h)] = next
	d.mu.Unlock()
	d.log.InfoContext(ctx, "started a supervisor", slog.String("home", string(h)), slog.Int("pid", cmd.Process.Pid))
	go func() {
		// Reaped so that it leaves no zombie.
		next.failure = cmd.Wait()
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

// startSupervisor starts it detached: in a session of its own, with nothing of
// this process but the log file.
func (d *Driver) startSupervisor(h supervisor.Home) (cmd *exec.Cmd, err error) {
	if err = supervisor.RotatePlain(h.SupervisorLog(), supervisorLogMax, supervisorLogKeep); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(h.SupervisorLog(), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	args := append([]string{"quorate"}, d.opts.Command...)
	cmd = &exec.Cmd{
		Path: d.opts.Executable, Args: append(args, "--home", string(h)),
		Dir: string(h), Stdout: log, Stderr: log,
		Env:         []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	return cmd, cmd.Start()
}

// starting reports whether a supervisor of this driver's lives, which may not have
// come to take its lock yet.
func (d *Driver) starting(h supervisor.Home) bool {
	d.mu.Lock()
	sp := d.spawned[string(h)]
	d.mu.Unlock()
	return sp != nil && sp.id.Alive()
}
