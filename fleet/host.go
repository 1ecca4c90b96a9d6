package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// HostPatience is how long an agent may be silent before its host counts as not
// ready. Its channel to the server beats every few seconds.
const HostPatience = 15 * time.Second

// ReasonAgentAwaited is that of a host which was ready when the server went down, for as
// long as its agent may need to find the server again: nothing is to be done on the host, but
// nothing that it reported before counts as what is now, either.
const ReasonAgentAwaited = "AgentAwaited"

// HostController keeps the Ready condition of hosts: whether their agents report.
type HostController struct {
	Store    store.Store
	Recorder store.Recorder
	Logger   *slog.Logger
	// LastSeen returns when the host's agent was last heard of; zero for never.
	LastSeen func(host string) time.Time
	// Now is the clock.
	Now func() time.Time

	// written remembers what stands in the store, so that it is not asked each time.
	written sync.Map
	// begun is when the first host was looked at, in nanoseconds since 1970.
	begun atomic.Int64
}

// lastWritten is a Ready condition as it was last written, and when.
type lastWritten struct {
	status, reason string
	at             time.Time
}

// Anew is a source that has each host it yields read anew: what was written to one that
// was deleted says nothing of another of its name.
func (c *HostController) Anew(from Source) Source {
	return func(ctx context.Context) <-chan store.Key {
		out := make(chan store.Key)
		go func() {
			defer close(out)
			for key := range from(ctx) {
				c.written.Delete(key)
				select {
				case out <- key:
				case <-ctx.Done():
				}
			}
		}()
		return out
	}
}

// Reconcile sets the condition of one host.
func (c *HostController) Reconcile(ctx context.Context, key store.Key) (time.Duration, error) {
	// Short, so that a host that has just joined is used at once.
	const again = 300 * time.Millisecond
	seen, now := c.LastSeen(key.Name), c.Now()
	c.begun.CompareAndSwap(0, now.UnixNano())
	young := seen.IsZero() && now.UnixNano()-c.begun.Load() <= int64(HostPatience)
	cond := v1alpha1.Condition{Type: v1alpha1.ConditionReady, Status: v1alpha1.True, Reason: "AgentReports", Message: "the agent reports"}
	if now.Sub(seen) > HostPatience {
		cond.Status, cond.Reason = v1alpha1.Unknown, "AgentSilent"
		cond.Message = "the agent has not reported since this server started: is `quorate agent` running on the host?"
		if !seen.IsZero() {
			cond.Message = fmt.Sprintf("the agent has not reported since %s: is `quorate agent` running on the host, and can it reach this server?",
				seen.UTC().Format(time.RFC3339))
		}
	}
	const recheck = 30 * time.Second
	if was, ok := c.written.Load(key); ok {
		if last, ok := was.(lastWritten); ok && last.status == string(cond.Status) && (young || last.reason == cond.Reason) && now.Sub(last.at) < recheck {
			return again, nil
		}
	}
	host := &v1alpha1.EtcdHost{}
	changed := false
	err := store.MutateStatus(ctx, c.Store, key, host, func(h *v1alpha1.EtcdHost) (bool, error) {
		was := v1alpha1.FindCondition(h.Status.Conditions, v1alpha1.ConditionReady)
		awaited := was != nil && was.Reason == ReasonAgentAwaited
		if young && was != nil && (awaited || was.Status == v1alpha1.True) {
			cond.Reason, cond.Message = ReasonAgentAwaited, "this server has just been started, and waits for the agent"
		}
		changed = was == nil || was.Status != cond.Status || awaited && cond.Reason != ReasonAgentAwaited
		if cond.Reason == ReasonAgentAwaited || awaited && cond.Status == v1alpha1.True {
			changed = false // a restart of the server is no news of the host
		}
		if cond.Status == v1alpha1.True && h.Status.Platform == "" {
			// It has been heard of, but has not said yet what it is.
			return false, nil
		}
		return v1alpha1.SetCondition(&h.Status.Conditions, cond), nil
	})
	if errors.Is(err, store.ErrNotFound) {
		c.written.Delete(key)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if host.Status.Platform != "" {
		c.written.Store(key, lastWritten{string(cond.Status), cond.Reason, now})
	}
	if changed && host.Status.Platform != "" {
		e := store.Event{Type: store.Normal, Reason: cond.Reason, Message: cond.Message, Source: "fleet"}
		if cond.Status != v1alpha1.True {
			e.Type = store.Warning
		}
		c.Recorder.Record(ctx, store.About(host, e))
	}
	return again, nil
}
