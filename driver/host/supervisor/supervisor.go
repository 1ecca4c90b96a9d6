// Package supervisor keeps one member's etcd running. It is the whole of the
// command `quorate member`: one process per member, of few megabytes, that
// outlives the agent, and that the agent talks to through the files of the
// member's home alone.
//
// What it promises: etcd starts only with the environment, the arguments and the
// executable that the order names; never while another etcd of the member may
// run; never on a data directory that the law of package datadir refuses. etcd
// outlives its supervisor's sudden death, and the next supervisor adopts it. When
// it stops etcd it leaves a proof.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/internal/atomicfile"
	"github.com/quorate/quorate/internal/process"
)

const (
	tick = time.Second
	// judgeEvery is how often a refused data directory is looked at again.
	judgeEvery = 5 * time.Second
	// intentWait is how long the child of a supervisor that died while starting it
	// may take to show itself.
	intentWait = 500 * time.Millisecond
)

// Reasons of a State, beside those of the data-directory law.
const (
	ReasonOrderUnreadable = "OrderUnreadable"
	ReasonStateNotSaved   = "StateNotSaved"
	ReasonExited          = "Exited"
	ReasonStopping        = "Stopping"
	ReasonUnknownConfig   = "ConfigurationUnknown"
)

// ErrReplaced says that another directory was put in the place of the home.
var ErrReplaced = errors.New("the home was replaced under its supervisor")

// Run supervises the member whose home it is given, until ctx ends or the order
// says so; both stop etcd, leave the proof in the state, and return nil. ErrHeld
// if the member has a supervisor already. SIGHUP makes it read its order at once.
func Run(ctx context.Context, home string, logger *slog.Logger) error {
	defer debug.SetGCPercent(debug.SetGCPercent(20))
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)

	h := Home(home)
	lock, err := h.lock(ctx)
	if err != nil {
		return err
	}
	s := &supervisor{home: h, lock: lock, log: logger, ended: make(chan exit, 1)}
	defer func() {
		s.errors.close()
		if err := lock.Release(); err != nil {
			logger.WarnContext(ctx, "release the home", slog.Any("error", err))
		}
	}()
	if err := s.takeOver(ctx); err != nil {
		return fmt.Errorf("take over %s: %w", home, err)
	}
	return s.loop(ctx, hup)
}

type supervisor struct {
	home Home
	lock *Lock
	log  *slog.Logger

	order      *Order
	orderErr   error
	orderStamp stamp

	state      State
	saved      []byte
	savedStamp stamp
	saveErr    error

	child     *child
	ended     chan exit
	stopping  bool
	nextStart time.Time
	judgeAt   time.Time
	learnAt   time.Time
	idsKnown  bool
	errors    errorLog
}

// loop is the only goroutine that touches the supervisor's fields.
func (s *supervisor) loop(ctx context.Context, hup <-chan os.Signal) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	done := ctx.Done()
	// What must be done to stop is done after ctx has ended.
	ctx = context.WithoutCancel(ctx)
	for {
		select {
		case <-done:
			s.stopping, done = true, nil
			s.log.InfoContext(ctx, "asked to end")
		case <-hup:
			s.orderStamp = stamp{}
		case e := <-s.ended:
			s.onExit(ctx, e)
		case <-timer.C:
		}
		finished, err := s.step(ctx, time.Now())
		if finished || err != nil {
			return err
		}
		timer.Reset(s.untilNext(time.Now()))
	}
}

// untilNext is the time to the next thing that is due.
func (s *supervisor) untilNext(now time.Time) time.Duration {
	d := tick
	if s.child == nil && s.nextStart.After(now) {
		d = min(d, s.nextStart.Sub(now))
	}
	if s.child != nil && s.child.killAt.After(now) {
		d = min(d, s.child.killAt.Sub(now))
	}
	return max(d, time.Millisecond)
}

// step does what is due, and reports whether the supervisor's work is over.
func (s *supervisor) step(ctx context.Context, now time.Time) (bool, error) {
	if !s.lock.Holds(s.home) {
		// Its files are another home's, which may have a supervisor. What runs is left
		// running: whoever supervises that home adopts it.
		return true, fmt.Errorf("%w: %s is not the directory that was locked", ErrReplaced, s.home)
	}
	s.reloadOrder(ctx)
	s.followFormation()
	s.errors.poll(ctx, s.log, s.order, &s.state.ErrorLog)
	s.followFormation()
	stop := s.stopping || s.order != nil && s.order.Run != v1alpha1.RunRunning
	switch {
	case s.child != nil && stop:
		s.terminate(ctx, now, "stop")
	case s.child != nil && s.orderErr == nil && s.order != nil && s.child.ConfigHash != s.order.ConfigHash:
		s.terminate(ctx, now, "configuration change")
	case s.child != nil && s.checkFormation(ctx, now):
	case s.child != nil && s.child.why != "":
		s.terminate(ctx, now, s.child.why)
	case s.child != nil:
		s.describeRunning(ctx, now)
	case stop:
		return true, s.finish(ctx)
	case s.orderErr != nil:
		s.set(v1alpha1.MemberFailed, ReasonOrderUnreadable, s.orderErr.Error())
	case !now.Before(s.nextStart):
		s.start(ctx, now)
	}
	s.save(ctx)
	return false, nil
}

// stamp tells one version of a file from another without reading it.
type stamp struct {
	ino, size, mtime int64
}

func stampOf(path string) stamp {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return stamp{}
	}
	return stamp{ino: int64(st.Ino), size: st.Size, mtime: st.Mtim.Nano()} //nolint:gosec // only compared
}

// reloadOrder reads the order if its file has changed. An order that can't be read
// leaves the earlier one in force: etcd is not stopped for it.
func (s *supervisor) reloadOrder(ctx context.Context) {
	now := stampOf(s.home.OrderFile())
	if now == s.orderStamp && now != (stamp{}) {
		return
	}
	order, err := s.home.ReadOrder()
	if err == nil {
		err = s.home.fits(order)
	}
	if err != nil {
		if s.orderErr == nil {
			s.log.ErrorContext(ctx, "read the order", slog.Any("error", err))
		}
		s.orderErr = fmt.Errorf("the order can't be read: %w; it is written anew when the agent next looks after the member", err)
		s.orderStamp = now
		return
	}
	if s.order != nil && s.order.ConfigHash != order.ConfigHash {
		// What made it crash may be just what was changed.
		s.state.Crashes, s.nextStart = 0, time.Time{}
	}
	s.order, s.orderErr, s.orderStamp = order, nil, now
	s.judgeAt = time.Time{}
	if s.state.Phase == v1alpha1.MemberRefused {
		s.nextStart = time.Time{}
	}
}

func (s *supervisor) set(phase v1alpha1.MemberPhase, reason, message string) {
	s.state.Phase, s.state.Reason, s.state.Message = phase, reason, message
}

// save writes the state where it differs from what was last written, or where
// someone else has touched the file.
func (s *supervisor) save(ctx context.Context) {
	raw, err := encode(&s.state)
	if err == nil && string(raw) == string(s.saved) && stampOf(s.home.StateFile()) == s.savedStamp {
		return
	}
	if err == nil {
		err = atomicfile.Write(s.home.StateFile(), raw, 0o600)
	}
	if err != nil && s.saveErr == nil {
		s.log.ErrorContext(ctx, "save the state", slog.Any("error", err))
	}
	if s.saveErr = err; err == nil {
		s.saved, s.savedStamp = raw, stampOf(s.home.StateFile())
	}
}

// takeOver finds out what an earlier supervisor left behind.
func (s *supervisor) takeOver(ctx context.Context) error {
	self, err := process.Identify(os.Getpid())
	if err != nil {
		return err
	}
	s.reloadOrder(ctx)
	state, err := s.home.ReadState()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		state = &State{}
	case errors.Is(err, ErrCorrupt):
		s.log.ErrorContext(ctx, "the state of the earlier supervisor is lost", slog.Any("error", err))
		state = &State{Intent: &Intent{BootID: self.BootID}} // anything may have been begun
	case err != nil:
		return err
	}
	order, _ := s.home.ReadOrder()
	if err := s.home.CopyOf(order, state); err != nil {
		return err
	}
	s.state = *state
	s.state.Supervisor = self
	if s.state.Phase == "" || s.state.Phase == v1alpha1.MemberStopped {
		s.set(v1alpha1.MemberStarting, "", "")
	}
	if err := s.adopt(ctx); err != nil {
		return err
	}
	s.save(ctx)
	return s.saveErr
}

// adopt takes over the etcd that runs, if one does: the one the state names, or
// one that was started without a chance to note it.
func (s *supervisor) adopt(ctx context.Context) error {
	if p := s.state.Process; p != nil && p.ID.Alive() {
		p.Adopted = true
		s.watch(ctx, p)
		return nil
	}
	wait := time.Duration(0)
	if i := s.state.Intent; i != nil && i.BootID == s.state.Supervisor.BootID {
		wait = intentWait
	}
	found, ok, err := scanAgain(ctx, s.dataDir(), wait)
	if err != nil {
		return err
	}
	if ok {
		p := found.asProcess(s.order, s.state.Intent)
		s.state.StopProof = nil
		s.watch(ctx, p)
		return nil
	}
	if p := s.state.Process; p != nil {
		evidence := fmt.Sprintf("gone: pid %d of this boot ended while no supervisor watched, and no process runs on the data directory", p.ID.PID)
		if p.ID.BootID != s.state.Supervisor.BootID {
			evidence = fmt.Sprintf("gone: pid %d ended with an earlier boot of the host", p.ID.PID)
		}
		now := time.Now()
		s.state.Ended = &Ended{ID: p.ID, At: now, Evidence: evidence}
		s.state.LastExit = &v1alpha1.ExitStatus{At: v1alpha1.NewTime(now), Code: -1, Message: "it ended while no supervisor watched"}
	}
	s.state.Process, s.state.Intent = nil, nil
	s.learn(ctx)
	return nil
}

func (s *supervisor) dataDir() string {
	if s.order != nil {
		return s.order.DataDir
	}
	return s.home.DataDir()
}

// finish leaves the proof. Without it saved, the stop counts for nothing.
func (s *supervisor) finish(ctx context.Context) error {
	proof := &v1alpha1.StopProof{At: v1alpha1.Now()}
	switch ended := s.state.Ended; {
	case ended != nil:
		proof.PID, proof.Evidence = int64(ended.ID.PID), ended.Evidence
		proof.At = v1alpha1.NewTime(ended.At)
	case s.startedOnce():
		proof.Evidence = "gone: no process runs on the data directory"
	default:
		proof.Evidence = EvidenceNeverStarted
	}
	s.state.StopProof = proof
	s.set(v1alpha1.MemberStopped, "", "")
	if s.stopping && s.order != nil && s.order.Run == v1alpha1.RunRunning {
		s.state.Message = "the supervisor was asked to end"
	}
	s.save(ctx)
	if s.saveErr != nil {
		return fmt.Errorf("etcd has ended, but the proof could not be saved: %w", s.saveErr)
	}
	s.log.InfoContext(ctx, "stopped", slog.String("evidence", proof.Evidence))
	return nil
}

// EvidenceNeverStarted is the proof's evidence of a member that never ran.
const EvidenceNeverStarted = "never started"
