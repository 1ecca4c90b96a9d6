package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver"
	"github.com/quorate/quorate/store"
)

// MemberOptions are what a MemberController works with.
type MemberOptions struct {
	Store    store.Store
	Driver   driver.Driver
	Recorder store.Recorder
	Logger   *slog.Logger
	// Host whose members it looks after; empty for all.
	Host string
	// Source names it in events.
	Source string
	// MayRestart is asked just before a serving member is restarted with another
	// configuration: another member may have died since the fleet ordered it. An
	// error holds the restart back. Nil allows all.
	MayRestart func(ctx context.Context, m *v1alpha1.EtcdMember) error
	// MayCome is asked before a member that is new on this host is prepared, and says why
	// it may not come; nil if it may. It must not block. Nil takes all.
	MayCome func(m *v1alpha1.EtcdMember) *Refusal
	// Snapshots opens what a member whose bootstrap is Restored is restored from: a
	// snapshot as etcd sends it, decompressed, and its size in bytes, 0 or less where that
	// is not known. Reading ends with ctx. Nil where there is no way to backups.
	Snapshots func(ctx context.Context, m *v1alpha1.EtcdMember) (io.ReadCloser, int64, error)
	// Interval between two looks at a member at rest. Default 2 s.
	Interval time.Duration
}

// MemberController carries out the specs of members through a driver, and reports
// what it sees. It runs where the driver runs: in a host's agent, or in the
// operator.
type MemberController struct {
	opts     MemberOptions
	restores *restores
}

// NewMemberController returns a controller.
func NewMemberController(opts MemberOptions) *MemberController {
	if opts.Interval == 0 {
		opts.Interval = 2 * time.Second
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &MemberController{opts: opts, restores: newRestores()}
}

// stopWait is how long one look at a member waits for the proof of its stop. The
// order to stop stands, and the member is looked at again at once; so a stop that
// can't finish does not keep the host's other members waiting.
const stopWait = 5 * time.Second

// driverStop asks for the proof of a member's stop, and waits a while for it.
func (c *MemberController) driverStop(ctx context.Context, m *v1alpha1.EtcdMember) (v1alpha1.StopProof, error) {
	ctx, cancel := context.WithTimeout(ctx, stopWait)
	defer cancel()
	return c.opts.Driver.Stop(ctx, m)
}

// Keeper is the ability of a driver to keep a member as it was last told to be,
// whatever its object says.
type Keeper interface {
	Keep(ctx context.Context, m *v1alpha1.EtcdMember) (v1alpha1.EtcdMemberStatus, error)
}

// Reconcile brings one member towards its spec and reports it.
func (c *MemberController) Reconcile(ctx context.Context, key store.Key) (time.Duration, error) {
	m := &v1alpha1.EtcdMember{}
	err := c.opts.Store.Get(ctx, key, m)
	if errors.Is(err, store.ErrNotFound) {
		// What it may have left running is not ours to judge: List reports it.
		return 0, c.endRestore(ctx, key, nil)
	}
	if err == nil {
		err = c.endRestore(ctx, key, m)
	}
	if err != nil {
		return 0, err
	}
	if c.opts.Host != "" && m.Spec.Host != c.opts.Host {
		return 0, nil
	}
	_, restored := m.Annotations[v1alpha1.AnnotationRestored]
	var seen v1alpha1.EtcdMemberStatus
	switch {
	case restored:
		seen, err = c.keep(ctx, m)
	case m.DeletionTimestamp != nil:
		return c.remove(ctx, m)
	case m.Spec.Run == v1alpha1.RunStopped:
		seen, err = c.stop(ctx, m)
	default:
		if seen, err = c.ensure(ctx, m); err == nil {
			c.restoreStep(m, &seen)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("member %s: %w", key, err)
	}
	again := c.opts.Interval
	if seen.Phase != v1alpha1.MemberRunning && seen.Phase != v1alpha1.MemberStopped && seen.Phase != v1alpha1.MemberPrepared {
		again = min(again, 200*time.Millisecond)
	}
	if seen.Phase == v1alpha1.MemberRestoring {
		again = min(c.opts.Interval, restoringLook)
	}
	return again, c.report(ctx, m, seen)
}

func (c *MemberController) ensure(ctx context.Context, m *v1alpha1.EtcdMember) (v1alpha1.EtcdMemberStatus, error) {
	if seen, err := c.turnedAway(ctx, m); seen != nil || err != nil {
		return orNothing(seen), err
	}
	if c.opts.MayRestart == nil || m.Spec.Run != v1alpha1.RunRunning {
		return c.opts.Driver.Ensure(ctx, m)
	}
	seen, err := c.opts.Driver.Observe(ctx, m)
	if err != nil || seen.Process == nil || seen.Process.ConfigHash == v1alpha1.MemberConfigHash(&m.Spec) {
		return c.opts.Driver.Ensure(ctx, m)
	}
	if why := c.opts.MayRestart(ctx, m); why != nil {
		if seen, err = c.keep(ctx, m); err != nil {
			return seen, err
		}
		seen.Message = "its restart with the new configuration is held back: " + why.Error()
		return seen, nil
	}
	return c.opts.Driver.Ensure(ctx, m)
}

// keep holds a member as it is while its object may be older than what runs.
func (c *MemberController) keep(ctx context.Context, m *v1alpha1.EtcdMember) (v1alpha1.EtcdMemberStatus, error) {
	if k, ok := c.opts.Driver.(Keeper); ok {
		return k.Keep(ctx, m)
	}
	return c.opts.Driver.Observe(ctx, m)
}

func (c *MemberController) stop(ctx context.Context, m *v1alpha1.EtcdMember) (v1alpha1.EtcdMemberStatus, error) {
	proof, err := c.driverStop(ctx, m)
	if errors.Is(err, driver.ErrNotStopped) {
		// The order to stop stands. What keeps it is told, and asked for again.
		seen, observeErr := c.opts.Driver.Observe(ctx, m)
		if seen.Message == "" {
			seen.Message = err.Error()
		}
		return seen, observeErr
	}
	if err != nil {
		return v1alpha1.EtcdMemberStatus{}, err
	}
	seen, err := c.opts.Driver.Observe(ctx, m)
	if err != nil {
		return seen, err
	}
	seen.StopProof = &proof
	return seen, nil
}

// remove stops a deleted member, retires its data, and lets its object go: in this
// order, so that whoever sees the object gone knows that the process is.
func (c *MemberController) remove(ctx context.Context, m *v1alpha1.EtcdMember) (time.Duration, error) {
	if !v1alpha1.HasFinalizer(m, v1alpha1.FinalizerMember) {
		return 0, nil
	}
	proof, err := c.driverStop(ctx, m)
	if err != nil {
		return 0, fmt.Errorf("delete member %s: %w", m.Name, err)
	}
	went, err := c.opts.Driver.Data(m).Retire(ctx)
	if err != nil {
		return 0, fmt.Errorf("delete member %s: %w", m.Name, err)
	}
	message := "stopped: " + proof.Evidence
	if went != "" {
		message += "; its data was retired to " + went
	}
	// Before the object goes: an agent's events about members that are not there are refused,
	// and nothing else says where the data went.
	c.opts.Recorder.Record(ctx, store.About(m, store.Event{Type: store.Normal, Reason: "MemberDeleted", Message: message, Source: c.opts.Source}))
	err = store.Mutate(ctx, c.opts.Store, store.KeyOf(m), &v1alpha1.EtcdMember{}, func(o *v1alpha1.EtcdMember) (bool, error) {
		return o.UID == m.UID && v1alpha1.RemoveFinalizer(o, v1alpha1.FinalizerMember), nil
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return 0, err
	}
	return 0, nil
}

// report writes the status if it differs in more than a mark's last digits.
func (c *MemberController) report(ctx context.Context, m *v1alpha1.EtcdMember, seen v1alpha1.EtcdMemberStatus) error {
	seen.ObservedGeneration = m.Generation
	for i := range seen.Conditions {
		seen.Conditions[i].ObservedGeneration = m.Generation
	}
	if v1alpha1.Equal(m.Status, nextStatus(m.Status, seen)) {
		// By far the most frequent case, and it was read a moment ago.
		return nil
	}
	var before v1alpha1.EtcdMemberStatus
	changed := false
	err := store.MutateStatus(ctx, c.opts.Store, store.KeyOf(m), &v1alpha1.EtcdMember{}, func(o *v1alpha1.EtcdMember) (bool, error) {
		if o.UID != m.UID {
			return false, nil
		}
		before = *o.Status.DeepCopy()
		o.Status = nextStatus(before, seen)
		changed = !v1alpha1.Equal(before, o.Status)
		return changed, nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err == nil && changed {
		c.tell(ctx, m, &before, &seen)
	}
	return err
}

// nextStatus is what is seen, with the transition times and the mark of before.
func nextStatus(before, seen v1alpha1.EtcdMemberStatus) v1alpha1.EtcdMemberStatus {
	next := seen
	next.Conditions = before.DeepCopy().Conditions
	for _, cond := range seen.Conditions {
		v1alpha1.SetCondition(&next.Conditions, cond)
	}
	next.Mark = bucket(before.Mark, seen.Mark)
	return next
}

// bucket keeps the reported mark until the new one is of another term or a
// thousand entries further: status is not a stream of numbers.
func bucket(was, is *v1alpha1.RaftMark) *v1alpha1.RaftMark {
	const step = 1000
	switch {
	case is == nil:
		return was
	case was == nil, is.Term != was.Term, is.Index/step != was.Index/step:
		return is
	}
	return was
}

// supervisedStop begins the message of an exit that was asked for.
const supervisedStop = "it was stopped"

// tell records what people want to know of a member.
func (c *MemberController) tell(ctx context.Context, m *v1alpha1.EtcdMember, was, is *v1alpha1.EtcdMemberStatus) {
	record := func(t store.EventType, reason, message string) {
		c.opts.Recorder.Record(ctx, store.About(m, store.Event{Type: t, Reason: reason, Message: message, Source: c.opts.Source}))
	}
	if is.Process != nil && (was.Process == nil || was.Process.PID != is.Process.PID) {
		if is.LastExit != nil && was.LastExit != nil && !is.LastExit.At.Equal(&was.LastExit.At) || was.LastExit == nil && is.LastExit != nil {
			if strings.HasPrefix(is.LastExit.Message, supervisedStop) {
				record(store.Normal, "EtcdStopped", exitText(is.LastExit))
			} else {
				record(store.Warning, "EtcdExited", exitText(is.LastExit))
			}
		}
		record(store.Normal, "EtcdStarted", fmt.Sprintf("pid %d", is.Process.PID))
	}
	if was.Phase == is.Phase {
		return
	}
	switch is.Phase {
	case v1alpha1.MemberRefused:
		record(store.Warning, whyRefused(is), is.Message)
	case v1alpha1.MemberCrashLoop:
		record(store.Warning, "CrashLoop", is.Message)
	case v1alpha1.MemberFailed:
		record(store.Warning, "Failed", is.Message)
	case v1alpha1.MemberStopped:
		if is.StopProof != nil {
			record(store.Normal, "EtcdStopped", is.StopProof.Evidence)
		}
	case v1alpha1.MemberPending, v1alpha1.MemberPrepared, v1alpha1.MemberRestoring, v1alpha1.MemberStarting, v1alpha1.MemberRunning:
	}
}

// whyRefused names the event: a directory that is not the member's asks for other things
// than a cluster that it does not become part of.
func whyRefused(is *v1alpha1.EtcdMemberStatus) string {
	if c := v1alpha1.FindCondition(is.Conditions, v1alpha1.ConditionFormed); c != nil && c.Status == v1alpha1.False && c.Message == is.Message {
		return "FormationRefused"
	}
	return "DataDirectoryRefused"
}

func exitText(e *v1alpha1.ExitStatus) string {
	text := fmt.Sprintf("exit code %d", e.Code)
	if e.Signal != "" {
		text = "ended by signal " + e.Signal
	}
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}
