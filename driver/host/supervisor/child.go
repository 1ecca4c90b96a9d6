package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/internal/process"
)

const (
	// steady is how long etcd must have run for its next exit to be a first one.
	steady = time.Minute
	// loopAfter is the number of exits, one soon after the other, that make a crash loop.
	loopAfter = 3
	// loopUp is how long etcd must run to be out of a crash loop.
	loopUp = 5 * time.Second

	backoffMin = time.Second
	backoffMax = 30 * time.Second
)

// child is the etcd that runs.
type child struct {
	*Process
	// why it is being ended by us; empty if it is not.
	why    string
	killAt time.Time
	killed bool
}

// exit is the end of an etcd.
type exit struct {
	code   int32
	signal string
	// evidence of the end, for the proof.
	evidence string
	err      error
}

// start obeys the law, notes what it is about to do, and does it.
func (s *supervisor) start(ctx context.Context, now time.Time) {
	if now.Before(s.judgeAt) || s.formationRefused(ctx, now) {
		return
	}
	verdict := s.judge()
	s.state.Data = &verdict
	if verdict.Refused {
		s.judgeAt = now.Add(judgeEvery)
		if s.state.Phase != v1alpha1.MemberRefused || s.state.Reason != verdict.Reason {
			s.log.ErrorContext(ctx, "the data directory is refused", slog.String("reason", verdict.Reason), slog.String("cause", verdict.Message))
		}
		s.set(v1alpha1.MemberRefused, verdict.Reason, verdict.Message)
		return
	}
	if err := s.begin(ctx, now); err != nil {
		s.nextStart = now.Add(backoffMin)
		s.set(v1alpha1.MemberFailed, ReasonStateNotSaved, "etcd is not started: "+err.Error()+"; make room or writable on the disk of the member's home")
		return
	}
	if err := s.spawn(ctx, now); err != nil {
		s.state.Intent = nil
		s.crashed(now, &v1alpha1.ExitStatus{At: v1alpha1.NewTime(now), Code: -1, Message: err.Error()})
		s.log.ErrorContext(ctx, "start etcd", slog.Any("error", err))
	}
}

// begin makes the intent durable: a supervisor that comes after this one's death
// knows that there may be an etcd to look for.
func (s *supervisor) begin(ctx context.Context, now time.Time) error {
	if err := s.recordStart(); err != nil {
		return err
	}
	s.state.StopProof = nil
	s.state.Intent = &Intent{BootID: s.state.Supervisor.BootID, At: now, ConfigHash: s.order.ConfigHash, Digest: s.order.Digest}
	if s.state.Crashes < loopAfter {
		s.set(v1alpha1.MemberStarting, "", "")
	}
	s.save(ctx)
	return s.saveErr
}

func (s *supervisor) spawn(ctx context.Context, now time.Time) error {
	o := s.order
	stderr, err := openStderr(o.Logs.Stderr)
	if err != nil {
		return err
	}
	defer stderr.Close() //nolint:errcheck // the child has its own descriptor
	s.errors.begin(stderr)
	cmd := &exec.Cmd{
		Path:   o.Executable,
		Args:   append([]string{"etcd"}, o.Args...),
		Dir:    string(s.home),
		Env:    cleanEnvironment(),
		Stdout: stderr, Stderr: stderr,
		// A session of its own: what is sent to the supervisor's group, or the end of
		// its terminal, does not reach etcd.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err = cmd.Start(); err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	id, err := process.Identify(cmd.Process.Pid)
	if err != nil {
		// It has ended already: the reaper below tells how.
		id = process.ID{PID: cmd.Process.Pid, BootID: s.state.Supervisor.BootID}
	}
	if s.state.Ended != nil {
		s.state.Restarts++
		if !s.state.Ended.Asked {
			s.state.CrashRestarts++
		}
	}
	p := &Process{ID: id, StartedAt: now, ConfigHash: o.ConfigHash, Digest: o.Digest}
	s.adoptState(p)
	go func() { s.ended <- reaped(cmd.Wait(), cmd.ProcessState) }()
	s.log.InfoContext(ctx, "started etcd", slog.Int("pid", id.PID), slog.String("config_hash", o.ConfigHash))
	debug.FreeOSMemory()
	return nil
}

// cleanEnvironment keeps ETCD_* and Go's own variables away from etcd.
func cleanEnvironment() []string {
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
}

func (s *supervisor) adoptState(p *Process) {
	s.child = &child{Process: p}
	s.state.Process, s.state.Intent = p, nil
	s.describe(time.Now())
}

// watch waits for an etcd that is not a child.
func (s *supervisor) watch(ctx context.Context, p *Process) {
	s.adoptState(p)
	ctx = context.WithoutCancel(ctx)
	go func() {
		err := p.ID.Wait(ctx)
		s.ended <- exit{code: -1, err: err, evidence: fmt.Sprintf("gone: pidfd of pid %d signalled its end", p.ID.PID)}
	}()
	s.log.InfoContext(ctx, "adopted etcd", slog.Int("pid", p.ID.PID), slog.String("config_hash", p.ConfigHash))
}

func reaped(err error, ps *os.ProcessState) exit {
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		return exit{code: -1, err: err}
	}
	e := exit{code: int32(ps.ExitCode())} //nolint:gosec // -1 to 255
	e.evidence = fmt.Sprintf("reaped by its supervisor, exit code %d", e.code)
	if ws, ok := ps.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.signal = ws.Signal().String()
		e.evidence = "reaped by its supervisor, ended by signal: " + e.signal
	}
	return e
}

// describeRunning keeps the state true while etcd runs, and learns its IDs.
func (s *supervisor) describeRunning(ctx context.Context, now time.Time) {
	s.describe(now)
	if now.Sub(s.child.StartedAt) >= steady {
		s.state.Crashes = 0
	}
	if !s.identityKnown() && !now.Before(s.learnAt) {
		s.learn(ctx)
		// Early on the log is short and the IDs matter; later each look costs.
		if now.Sub(s.child.StartedAt) > steady {
			s.learnAt = now.Add(steady)
		}
	}
}

func (s *supervisor) describe(now time.Time) {
	switch {
	case s.child.ConfigHash == "":
		s.set(v1alpha1.MemberStarting, ReasonUnknownConfig, fmt.Sprintf("etcd (pid %d) was found running with arguments that are not the ordered ones", s.child.ID.PID))
	case s.state.Crashes >= loopAfter && now.Sub(s.child.StartedAt) < loopUp:
		// Out of the loop only once it has run for a while.
	default:
		s.set(v1alpha1.MemberRunning, "", "")
		if s.orderErr != nil {
			s.state.Reason, s.state.Message = ReasonOrderUnreadable, s.orderErr.Error()
		}
	}
}

// terminate asks etcd to end, and ends it when its grace is over.
func (s *supervisor) terminate(ctx context.Context, now time.Time, why string) {
	c := s.child
	if c.why == "" {
		c.why, c.killAt = why, now.Add(s.order.stopGrace())
		s.log.InfoContext(ctx, "stopping etcd", slog.Int("pid", c.ID.PID), slog.String("why", why))
		s.set(v1alpha1.MemberStarting, ReasonStopping, "etcd is being stopped: "+why)
		s.signal(ctx, syscall.SIGTERM)
		return
	}
	if !now.Before(c.killAt) && !c.killed {
		c.killed = true
		s.log.WarnContext(ctx, "etcd did not stop in time and is killed", slog.Int("pid", c.ID.PID))
		s.signal(ctx, syscall.SIGKILL)
	}
}

func (s *supervisor) signal(ctx context.Context, sig syscall.Signal) {
	if err := s.child.ID.Signal(sig); err != nil && !errors.Is(err, process.ErrGone) {
		s.log.ErrorContext(ctx, "signal etcd", slog.String("signal", sig.String()), slog.Any("error", err))
	}
}

// onExit notes the end of etcd and decides when the next may begin.
func (s *supervisor) onExit(ctx context.Context, e exit) {
	now := time.Now()
	c := s.child
	if e.err != nil && c.ID.Alive() {
		// It could not be waited for. It is not known to have ended.
		s.log.ErrorContext(ctx, "wait for etcd", slog.Any("error", e.err))
		s.watchAgain(ctx, c)
		return
	}
	if e.evidence == "" {
		e.evidence = fmt.Sprintf("gone: pid %d is not running", c.ID.PID)
	}
	s.child = nil
	s.errors.poll(ctx, s.log, s.order, &s.state.ErrorLog)
	s.followFormation()
	last := &v1alpha1.ExitStatus{At: v1alpha1.NewTime(now), Code: e.code, Signal: e.signal, Message: s.errors.cause(e, c.why)}
	s.state.Process = nil
	s.state.Ended = &Ended{ID: c.ID, At: now, Evidence: e.evidence, Asked: c.why != ""}
	s.learn(ctx)
	if c.why != "" {
		s.state.LastExit = last
		s.nextStart = now
		s.set(v1alpha1.MemberStarting, "", "")
		s.log.InfoContext(ctx, "etcd has stopped", slog.Int("pid", c.ID.PID), slog.String("evidence", e.evidence))
	} else {
		if now.Sub(c.StartedAt) >= steady {
			s.state.Crashes = 0
		}
		if s.state.LastExit = last; s.endedForGood(ctx, now) {
			s.nextStart = now
		} else {
			s.crashed(now, last)
		}
		s.log.ErrorContext(ctx, "etcd has ended by itself", slog.Int("pid", c.ID.PID), slog.Int("code", int(e.code)),
			slog.String("signal", e.signal), slog.String("cause", last.Message))
	}
	s.save(ctx)
}

func (s *supervisor) watchAgain(ctx context.Context, c *child) {
	go func() {
		timer := time.NewTimer(tick)
		defer timer.Stop()
		<-timer.C
		s.ended <- exit{code: -1, err: c.ID.Wait(ctx)}
	}()
}

// crashed counts an unwanted exit: the first is answered at once, later ones ever
// more slowly.
func (s *supervisor) crashed(now time.Time, last *v1alpha1.ExitStatus) {
	s.state.LastExit = last
	s.state.Crashes++
	wait := crashDelay(s.state.Crashes)
	s.nextStart = now.Add(wait)
	phase := v1alpha1.MemberStarting
	if s.state.Crashes >= loopAfter {
		phase = v1alpha1.MemberCrashLoop
	}
	how := fmt.Sprintf("exit code %d", last.Code)
	if last.Signal != "" {
		how = "signal: " + last.Signal
	}
	s.set(phase, ReasonExited, fmt.Sprintf("etcd ended (%s): %s; it is started again in %s", how, last.Message, wait))
}

// crashDelay is the wait after the n-th exit in a row.
func crashDelay(n int) time.Duration {
	if n <= 1 {
		return 0
	}
	// Beyond some shifts the delay is at its maximum anyway.
	return min(backoffMin<<min(n-2, 10), backoffMax)
}
