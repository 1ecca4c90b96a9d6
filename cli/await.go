package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// lookEvery is how often an object is looked at even when nothing says that it has
// changed.
const lookEvery = 3 * time.Second

// defaultTimeout of commands that wait.
const defaultTimeout = 5 * time.Minute

// goal decides about what was seen of an object, nil when it is gone: whether that
// was waited for, and otherwise what is missing.
type goal func(obj v1alpha1.Object) (reached bool, missing string, err error)

// await looks at an object until it has reached the goal. It goes on while the
// server can't be reached; errTimedOut says what was missing in the end.
func await(ctx context.Context, c *remote.Client, t target, timeout time.Duration, tell func(string), reached goal) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errTimedOut)
	defer cancel()
	changes := c.Watch(ctx, t.kind, t.key.Namespace)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	missing := "it was not seen"
	for {
		obj, err := look(ctx, c, t)
		switch {
		case err == nil:
			var ok bool
			if ok, missing, err = reached(obj); ok || err != nil {
				return err
			}
		case ctx.Err() != nil: // what was missing before stands
		case errors.Is(err, store.ErrUnavailable):
			missing = err.Error()
		default:
			return err
		}
		tell(t.String() + ": " + missing)
		if !nextChange(ctx, changes, tick.C, t.key) {
			break
		}
	}
	if errors.Is(context.Cause(ctx), errTimedOut) {
		return fmt.Errorf("%w after %s waiting for %s: %s", errTimedOut, timeout, t, missing)
	}
	return context.Cause(ctx)
}

// nextChange returns when the object may have changed; false when ctx has ended.
func nextChange(ctx context.Context, changes <-chan store.Key, tick <-chan time.Time, key store.Key) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick:
			return true
		case changed, ok := <-changes:
			if !ok {
				changes = nil
				continue
			}
			if changed == key {
				return true
			}
		}
	}
}

// look reads an object; nil when there is none.
func look(ctx context.Context, c *remote.Client, t target) (v1alpha1.Object, error) {
	ctx, cancel := call(ctx)
	defer cancel()
	obj := t.kind.New()
	err := c.Get(ctx, t.key, obj)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil //nolint:nilnil // that it is gone is an answer
	}
	if err != nil {
		return nil, err
	}
	return obj, nil
}

// awaitCluster waits for a cluster to reach a goal, showing progress.
func (e *env) awaitCluster(ctx context.Context, c *remote.Client, cluster *v1alpha1.EtcdCluster, timeout time.Duration, reached func(*v1alpha1.EtcdCluster) (bool, string)) error {
	p := newProgress(e)
	defer p.done()
	t := target{v1alpha1.KindCluster, store.KeyOf(cluster)}
	return await(ctx, c, t, timeout, p.step, func(obj v1alpha1.Object) (bool, string, error) {
		got, ok := obj.(*v1alpha1.EtcdCluster)
		if !ok || got.UID != cluster.UID {
			return false, "", named(t, store.ErrNotFound)
		}
		if got.Status.ObservedGeneration < cluster.Generation {
			return false, "waiting for the fleet to see the change", nil
		}
		ok, missing := reached(got)
		return ok, missing, nil
	})
}

// settled reports whether a cluster serves with all its members, and nothing is
// left to do.
func settled(c *v1alpha1.EtcdCluster) (bool, string) {
	moving := v1alpha1.FindCondition(c.Status.Conditions, v1alpha1.ConditionProgressing)
	available := v1alpha1.FindCondition(c.Status.Conditions, v1alpha1.ConditionAvailable)
	switch {
	case moving == nil || available == nil:
		return false, "waiting for the fleet to look at it"
	case moving.Status == v1alpha1.True || moving.Reason != "AsWanted":
		return false, c.Status.Ready + " members healthy; " + moving.Message
	case available.Status != v1alpha1.True:
		return false, available.Message
	case c.Status.Ready != fmt.Sprintf("%d/%d", c.Spec.Replicas, c.Spec.Replicas):
		return false, c.Status.Ready + " members healthy"
	}
	return true, ""
}

// stopped reports whether every member of a suspended cluster is stopped.
func stopped(c *v1alpha1.EtcdCluster) (bool, string) {
	s := v1alpha1.FindCondition(c.Status.Conditions, v1alpha1.ConditionSuspended)
	switch {
	case s == nil:
		return false, "waiting for the fleet to look at it"
	case s.Status != v1alpha1.True:
		return false, s.Message
	}
	return true, ""
}
