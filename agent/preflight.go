package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/hosts/preflight"
	"github.com/quorate/quorate/internal/backoff"
	"github.com/quorate/quorate/store"
)

// Preflight checks the host.
type Preflight interface {
	// Check makes all checks, with round trips to peers; light ones spare the disk.
	Check(ctx context.Context, peers []string, light bool) []v1alpha1.HostCheck
	// Capacity is what the machine has to give; what can't be told is 0.
	Capacity(ctx context.Context) v1alpha1.Resources
}

// How often the host is checked.
const (
	checkEvery = 10 * time.Minute
	// checkFresh is how old the checks may be when a new member comes.
	checkFresh = time.Minute
	// checkAgain is how soon they are made again for a member that waits, after some failed.
	checkAgain = 10 * time.Second
	// tellEvery is how often they are reported where no verdict has changed.
	tellEvery = time.Hour
	// tellAgain is how soon what could not be reported is tried again.
	tellAgain = 5 * time.Second
)

// fitness is what the agent knows of its host.
type fitness struct {
	// one check at a time: they measure the same disk.
	one sync.Mutex
	// wanted wakes who makes the checks; it holds one wish.
	wanted chan struct{}

	mu sync.Mutex
	// at is when the checks were made; zero before the first.
	at     time.Time
	checks []v1alpha1.HostCheck
	// came are the members that were taken: they are not asked for again.
	came map[v1alpha1.UID]bool
}

func newFitness() *fitness {
	return &fitness{wanted: make(chan struct{}, 1), came: map[v1alpha1.UID]bool{}}
}

// keepChecking checks the host from time to time, and when a new member waits for it.
func (a *Agent) keepChecking(ctx context.Context) {
	if backoff.Sleep(ctx, a.opts.PreflightAfter) != nil {
		return
	}
	told := time.Time{}
	due := true
	for {
		if due {
			a.examine(ctx, nil)
		}
		next := time.Duration(float64(checkEvery) * (0.9 + 0.2*rand.Float64())) //nolint:gosec // jitter
		if err := a.tell(ctx, time.Since(told) > tellEvery); err != nil {
			next = tellAgain
			a.opts.Logger.DebugContext(ctx, "to be tried again", slog.String("what", "report the checks"), slog.Any("error", err))
		} else if time.Since(told) > tellEvery {
			told = time.Now()
		}
		due = a.awaitCheck(ctx, next)
		if ctx.Err() != nil {
			return
		}
	}
}

// awaitCheck waits until checks are due, or for a while; it reports which.
func (a *Agent) awaitCheck(ctx context.Context, while time.Duration) bool {
	timer := time.NewTimer(while)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-a.fit.wanted:
		return true
	case <-timer.C:
		return while != tellAgain
	}
}

// examine makes the checks. With peers they are for who asked alone.
func (a *Agent) examine(ctx context.Context, peers []string) []v1alpha1.HostCheck {
	a.fit.one.Lock()
	defer a.fit.one.Unlock()
	list := a.opts.Preflight.Check(ctx, peers, a.membersRun(ctx))
	if ctx.Err() != nil {
		return list // cut short: they say nothing of the host
	}
	kept := slices.DeleteFunc(slices.Clone(list), func(c v1alpha1.HostCheck) bool { return c.Name == preflight.PeerRoundTrips })
	a.fit.mu.Lock()
	defer a.fit.mu.Unlock()
	a.fit.at, a.fit.checks = time.Now(), kept
	select {
	case <-a.fit.wanted: // it was wished for meanwhile, and is there
	default:
	}
	return list
}

// membersRun reports whether any member uses the disk. When in doubt, one does.
func (a *Agent) membersRun(ctx context.Context) bool {
	found, err := a.opts.Driver.List(ctx)
	if err != nil {
		return true
	}
	for _, f := range found {
		if f.PID > 0 {
			return true
		}
	}
	return false
}

// tell reports the checks and the capacity: when a verdict has changed, or all.
func (a *Agent) tell(ctx context.Context, all bool) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	a.fit.mu.Lock()
	at, list := a.fit.at, slices.Clone(a.fit.checks)
	a.fit.mu.Unlock()
	if at.IsZero() {
		return nil
	}
	cond := preflight.Condition(list, a.opts.AllowUnfit)
	capacity := a.opts.Preflight.Capacity(ctx)
	host := &v1alpha1.EtcdHost{}
	var before *v1alpha1.Condition
	err := store.MutateStatus(ctx, a.opts.Store, store.Key{Name: a.opts.Host}, host, func(h *v1alpha1.EtcdHost) (bool, error) {
		was := h.Status.DeepCopy()
		before = v1alpha1.FindCondition(was.Conditions, v1alpha1.ConditionFit)
		h.Status.Capacity = &capacity
		if all || before == nil || was.Preflight == nil || !sameVerdicts(was.Preflight.Checks, list) {
			h.Status.Preflight = &v1alpha1.HostPreflight{At: v1alpha1.NewTime(at), Checks: list}
			cond.ObservedGeneration = h.Generation
			v1alpha1.SetCondition(&h.Status.Conditions, cond)
		}
		return !v1alpha1.Equal(*was, h.Status), nil
	})
	if err != nil {
		return err
	}
	a.tellFit(ctx, host, before, &cond)
	return nil
}

// sameVerdicts: what is only a little faster or slower is no news.
func sameVerdicts(a, b []v1alpha1.HostCheck) bool {
	return slices.EqualFunc(a, b, func(x, y v1alpha1.HostCheck) bool { return x.Name == y.Name && x.Verdict == y.Verdict })
}

// tellFit records that the host has become fit, or is not any more.
func (a *Agent) tellFit(ctx context.Context, host *v1alpha1.EtcdHost, was, is *v1alpha1.Condition) {
	if was != nil && was.Status == is.Status && was.Reason == is.Reason {
		return
	}
	e := store.Event{Type: store.Warning, Reason: "HostUnfit", Message: is.Message, Source: "agent/" + a.opts.Host}
	switch {
	case is.Status == v1alpha1.Unknown:
		e.Reason = "HostNotChecked"
	case is.Status == v1alpha1.True && is.Reason == preflight.ReasonFit && was == nil:
		return // as it should be
	case is.Status == v1alpha1.True && is.Reason == preflight.ReasonFit:
		e.Type, e.Reason, e.Message = store.Normal, "HostFit", "no check fails"
	}
	a.opts.Recorder.Record(ctx, store.About(host, e))
	if e.Type == store.Warning {
		a.opts.Logger.WarnContext(ctx, "this host is not fit for etcd by its checks", slog.String("host", a.opts.Host), slog.String("why", e.Message))
	}
}

// mayCome says why a member that is new on the host may not come: the checks are older
// than a minute, or one fails. It asks for new ones then.
func (a *Agent) mayCome(m *v1alpha1.EtcdMember) *fleet.Refusal {
	a.fit.mu.Lock()
	defer a.fit.mu.Unlock()
	if a.fit.came[m.UID] {
		return nil
	}
	age := time.Since(a.fit.at)
	if a.fit.at.IsZero() || age > checkFresh {
		a.wish()
		return &fleet.Refusal{
			Reason:  fleet.ReasonHostNotChecked,
			Message: fmt.Sprintf("host %s is being checked before the member comes to it, which takes a few seconds", a.opts.Host),
		}
	}
	failing := preflight.Failing(a.fit.checks)
	if len(failing) == 0 {
		a.fit.came[m.UID] = true
		return nil
	}
	if age > checkAgain {
		a.wish()
	}
	return &fleet.Refusal{
		Reason:  fleet.ReasonHostUnfit,
		Message: fmt.Sprintf("host %s is unfit: %s; `quorate host check %s` looks again", a.opts.Host, preflight.Why(failing), a.opts.Host),
	}
}

// wish asks for checks, unless somebody has.
func (a *Agent) wish() {
	select {
	case a.fit.wanted <- struct{}{}:
	default:
	}
}

// check answers a request for checks, and reports them.
func (a *Agent) check(ctx context.Context, peers []string) (io.ReadCloser, error) {
	if a.opts.Preflight == nil {
		return nil, fmt.Errorf("%w: the agent of host %s makes no checks", store.ErrInvalid, a.opts.Host)
	}
	list := a.examine(ctx, peers)
	if err := a.tell(ctx, true); err != nil {
		a.opts.Logger.WarnContext(ctx, "the checks could not be reported", slog.Any("error", err))
	}
	raw, err := json.Marshal(v1alpha1.HostPreflight{At: v1alpha1.Now(), Checks: list})
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(raw)), nil
}
