package fleet

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"

	"github.com/quorate/quorate/store"
)

// Source yields the keys of objects to look at. The channel closes when ctx ends.
type Source func(ctx context.Context) <-chan store.Key

// Runner calls a reconciler for every key that comes, never twice at once for the
// same key, and again after a failure with growing delays.
type Runner struct {
	// Name of it, for the log.
	Name string
	// Reconcile looks at one object; see ClusterController.Reconcile.
	Reconcile func(ctx context.Context, key store.Key) (time.Duration, error)
	// Sources of keys.
	Sources []Source
	// Workers that reconcile at the same time.
	Workers int
	// MaxDelay after repeated failures. Default 10 s.
	MaxDelay time.Duration
	// Timeout of one reconciliation. Default 30 s.
	Timeout time.Duration
	Logger  *slog.Logger
}

// Run works until ctx ends, and returns when the last reconciliation has.
func (r *Runner) Run(ctx context.Context) {
	maxDelay, timeout := r.MaxDelay, r.Timeout
	if maxDelay == 0 {
		maxDelay = 10 * time.Second
	}
	if timeout == 0 {
		timeout = 30 * time.Second
	}
	queue := workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[store.Key](20*time.Millisecond, maxDelay))
	var wg sync.WaitGroup
	for _, source := range r.Sources {
		wg.Go(func() {
			for key := range source(ctx) {
				queue.Add(key)
			}
		})
	}
	for range max(r.Workers, 1) {
		wg.Go(func() {
			for r.next(ctx, queue, timeout) {
			}
		})
	}
	<-ctx.Done()
	queue.ShutDown()
	wg.Wait()
}

func (r *Runner) next(ctx context.Context, queue workqueue.TypedRateLimitingInterface[store.Key], timeout time.Duration) bool {
	key, shutdown := queue.Get()
	if shutdown {
		return false
	}
	defer queue.Done(key)
	callCtx, cancel := context.WithTimeout(ctx, timeout)
	again, err := r.Reconcile(callCtx, key)
	cancel()
	switch {
	case ctx.Err() != nil:
		return false
	case err != nil:
		r.Logger.DebugContext(ctx, "reconcile again", slog.String("controller", r.Name), slog.String("key", key.String()), slog.Any("error", err))
		queue.AddRateLimited(key)
	default:
		queue.Forget(key)
		if again > 0 {
			queue.AddAfter(key, again)
		}
	}
	return true
}
