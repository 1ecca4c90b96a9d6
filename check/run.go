package check

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/time/rate"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/history/record"
	"github.com/quorate/quorate/internal/backoff"
)

// progressEvery is how often progress is told.
const progressEvery = 2 * time.Second

// run is one run under way.
type run struct {
	opts    Options
	plan    *Plan
	log     *slog.Logger
	end     string
	targets []record.Target
	rec     *record.Recorder
	file    *file
	meter   *meter
	limit   *rate.Limiter
	truth   *record.Truth
	// shared are the connections by target, where there is a user.
	shared map[int]*record.Client

	// calls ends when the run is given up: what is under way is not waited for then.
	calls context.Context //nolint:containedctx // it is no call's own, it is the end of all calls

	// telling is held while progress is told.
	telling sync.Mutex

	// revision is the highest that anyone heard of; left, how many operations may
	// still be begun.
	revision atomic.Int64
	left     atomic.Int64
	// deleted is the revision of a late deletion, compacted that of the last compaction:
	// etcd has erred at both.
	deleted   atomic.Int64
	compacted atomic.Int64

	mu           sync.Mutex
	notes        []string
	ids          []int64 // of leases
	disturbances []history.Disturbance
	current      string
	phase        string
}

// Run makes traffic, records it and judges it. ErrOptions, ErrNobody and ErrNotEmpty
// are errors from before anything was done. When ctx ends, traffic ends early, and
// what was seen until then is judged. With ErrRecord there is a Result too.
func Run(ctx context.Context, o Options) (*Result, error) {
	plan, err := Prepare(ctx, o)
	if err != nil {
		return nil, err
	}
	return plan.Run(ctx)
}

// Run does what was planned; see the function Run.
func (p *Plan) Run(ctx context.Context) (*Result, error) {
	began := time.Now()
	f, err := createFile(p, began)
	if err != nil {
		return nil, err
	}
	r := &run{
		opts: p.opts, plan: p, log: p.opts.Logger, end: clientv3.GetPrefixRangeEnd(p.Prefix), targets: p.targets(),
		file: f, meter: newMeter(), shared: map[int]*record.Client{}, limit: rate.NewLimiter(rate.Limit(p.opts.Rate), max(1, int(p.opts.Rate/100))),
	}
	if r.opts.Rate < 0 {
		r.limit.SetLimit(rate.Inf)
	}
	r.rec = record.New(record.Options{Log: f.log(), Began: began})
	r.revision.Store(p.StartRevision)
	r.left.Store(int64(p.Limit))
	r.notes = slices.Clone(p.Notes)
	result, err := r.all(ctx)
	bad := errors.Join(r.rec.Err(), f.close())
	switch {
	case err != nil && r.rec.Operations() == 0:
		return nil, errors.Join(err, f.discard())
	case err != nil:
		return nil, errors.Join(err, bad)
	case bad != nil:
		return result, fmt.Errorf("%w: %s: %w", ErrRecord, p.History, bad)
	}
	return result, nil
}

// life is a context that outlives ctx, until the run is given up.
func (r *run) life(ctx context.Context) (context.Context, context.CancelFunc) {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		select {
		case <-life.Done():
			return
		case <-ctx.Done():
		}
		select {
		case <-life.Done():
		case <-r.opts.Abandon:
			cancel()
		}
	}()
	return life, cancel
}

// abandoned says what is left of a run that was given up; nil if it was not.
func (r *run) abandoned(life context.Context, cleaned bool) error {
	if life.Err() == nil {
		return nil
	}
	var left []string
	if r.opts.File != "" {
		left = append(left, fmt.Sprintf("what was seen is in %s: `quorate check history` judges it", r.opts.File))
	}
	if !cleaned && !r.opts.Keep {
		left = append(left, "what was written is still there: "+r.remedy())
	}
	return errors.Join(ErrAbandoned, errors.New(strings.Join(left, "\n")))
}

// remedy says how to remove what was written.
func (r *run) remedy() string {
	return fmt.Sprintf("remove it with `quorate check clean --prefix %s`, and the flags that name the cluster", r.opts.Prefix)
}

// all has the phases of a run.
func (r *run) all(ctx context.Context) (*Result, error) {
	dial, cancel := context.WithTimeout(ctx, askTime)
	crew, err := r.hire(dial)
	cancel()
	defer crew.close()
	if err != nil {
		return nil, err
	}
	life, stop := r.life(ctx)
	defer stop()
	r.calls = life
	// Watches outlive the traffic: they are to see all of it.
	watchCtx, stopWatches := context.WithCancel(life)
	defer stopWatches()
	watching := crew.watch(watchCtx)
	told := r.tell(watchCtx)

	r.enter("traffic")
	r.meter.start()
	r.traffic(ctx, crew)
	r.meter.stop()
	interrupted := ctx.Err() != nil
	if interrupted {
		r.note(fmt.Sprintf("the traffic was ended early, after %s", time.Since(r.rec.Began()).Round(time.Millisecond)))
	}

	if r.opts.Operations == 0 && r.left.Load() <= 0 {
		r.note(fmt.Sprintf("the traffic was ended after %d operations, since more are not kept in memory: ask for more by their number", r.plan.Limit))
	}

	r.enter("catching up")
	final := r.finish(life, crew, interrupted)
	stopWatches()
	watching.Wait()
	told.Wait()
	cleaned := r.cleanUp(life, crew)
	if err = r.abandoned(life, cleaned); err != nil {
		return nil, err
	}
	r.enter("judging")
	result, err := r.judge(life, final)
	if left := r.abandoned(life, cleaned); err != nil && left != nil {
		return nil, left
	}
	return result, err
}

// crew are all clients of a run.
type crew struct {
	run       *run
	sessions  []*session
	leasers   []*session
	last      *session // what is written and read at the end
	truth     []*record.Client
	wanderers []*record.Client
	followers []*follower
	filtered  []*record.Client
}

// hire makes the clients; it returns those that there are, also with an error.
func (r *run) hire(ctx context.Context) (*crew, error) {
	c := &crew{run: r}
	n := 0
	var errs []error
	some := func(count int) (list []*session) {
		for range count {
			s, err := r.newSession(ctx, n)
			n++
			if err != nil {
				errs = append(errs, err)
				continue
			}
			list = append(list, s)
		}
		return list
	}
	c.sessions, c.leasers = some(r.opts.Clients), some(max(1, r.opts.Clients/clientsPerLeaser))
	last := some(1)
	if len(last) > 0 {
		c.last = last[0]
	}
	for i := range r.targets {
		for _, to := range []*[]*record.Client{&c.truth, &c.wanderers, &c.filtered, nil} {
			one, err := r.client(ctx, i)
			switch {
			case err != nil:
				errs = append(errs, err)
			case to == nil:
				c.followers = append(c.followers, r.newFollower(one))
			default:
				*to = append(*to, one)
			}
		}
	}
	r.truth = r.rec.Truth(c.truth, r.opts.Prefix, r.end, r.plan.StartRevision+1)
	return c, errors.Join(errs...)
}

// client connects to a target. A login costs a member so much that with a user all
// share one connection.
func (r *run) client(ctx context.Context, target int) (*record.Client, error) {
	if r.opts.User == "" {
		return r.rec.Dial(ctx, r.targets[target])
	}
	if c := r.shared[target]; c != nil {
		return c.Twin(), nil
	}
	c, err := r.rec.Dial(ctx, r.targets[target])
	if err == nil {
		r.shared[target] = c
	}
	return c, err
}

func (c *crew) close() {
	sessions := slices.Concat(c.sessions, c.leasers)
	if c.last != nil {
		sessions = append(sessions, c.last)
	}
	for _, s := range sessions {
		_ = s.close() // All that was asked has been answered or given up.
	}
	for _, one := range slices.Concat(c.truth, c.wanderers, c.filtered) {
		_ = one.Close() // As above.
	}
	for _, f := range c.followers {
		_ = f.client.Close() // As above.
	}
}

// watch begins all watches.
func (c *crew) watch(ctx context.Context) *sync.WaitGroup {
	var wg sync.WaitGroup
	r := c.run
	wg.Go(func() {
		if err := r.truth.Run(ctx); err != nil {
			r.note("the watch that all is held against has a hole: " + err.Error())
		}
	})
	for _, f := range c.followers {
		wg.Go(func() { f.follow(ctx) })
	}
	for i, one := range c.filtered {
		wg.Go(func() { r.filtered(ctx, one, i) })
	}
	for i := range c.wanderers {
		wg.Go(func() { r.wander(ctx, c.wanderers, i) })
	}
	return &wg
}

// traffic goes on until its time is over, all operations are spent, or ctx is done.
func (r *run) traffic(ctx context.Context, c *crew) {
	ctx, cancel := context.WithTimeout(ctx, r.opts.Duration)
	defer cancel()
	var clients, others sync.WaitGroup
	choose := r.opts.Mix.chooser()
	for _, s := range c.sessions {
		clients.Go(func() { s.traffic(ctx, choose) })
	}
	for _, s := range c.leasers {
		others.Go(func() { s.leases(ctx) })
	}
	if len(r.opts.Disturbers) > 0 {
		others.Go(func() { r.disturb(ctx) })
	}
	if r.opts.AllowCompact {
		others.Go(func() { r.compact(ctx, c.last) })
	}
	clients.Wait()
	cancel()
	others.Wait()
}

// disturb lets the disturbers take turns.
func (r *run) disturb(ctx context.Context) {
	for i := 0; backoff.Sleep(ctx, r.opts.Every) == nil; i++ {
		d := r.opts.Disturbers[i%len(r.opts.Disturbers)]
		r.setCurrent(d.Kind())
		done := history.Disturbance{Kind: d.Kind(), From: r.rec.Now()}
		target, err := d.Disturb(ctx)
		done.Target, done.To = target, r.rec.Now()
		r.setCurrent("")
		if err != nil {
			if ctx.Err() == nil {
				r.note(fmt.Sprintf("the disturbance %s was not made: %v", d.Kind(), err))
			}
			if target == "" {
				continue
			}
		}
		r.mu.Lock()
		r.disturbances = append(r.disturbances, done)
		r.mu.Unlock()
		r.file.disturbance(done)
	}
}

// compact forgets what the truth has seen, now and then.
func (r *run) compact(ctx context.Context, s *session) {
	for backoff.Sleep(ctx, r.opts.CompactEvery/2+time.Duration(s.rng.Int64N(int64(r.opts.CompactEvery)))) == nil {
		seen, _ := r.truth.Delivered()
		if seen <= r.plan.StartRevision {
			continue
		}
		revision := seen - s.rng.Int64N(min(lately, seen-r.plan.StartRevision))
		if at := r.deleted.Load(); at > r.compacted.Load() && at <= seen && s.flip() {
			revision = at
		}
		if op := s.do(ctx, history.Operation{Kind: history.Compact, Revision: revision}); op.Outcome == history.OK {
			r.compacted.Store(revision)
		}
	}
}

// spend takes one operation from those that are left.
func (r *run) spend() bool { return r.left.Add(-1) >= 0 }

func (r *run) spent() bool { return r.left.Load() <= 0 }

// heard notes a revision that the cluster has reached.
func (r *run) heard(revision int64) {
	for {
		old := r.revision.Load()
		if revision <= old || r.revision.CompareAndSwap(old, revision) {
			return
		}
	}
}

// granted notes a lease that may be alive at the end.
func (r *run) granted(id int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ids = append(r.ids, id)
}

// settled takes a lease off the list: it is over.
func (r *run) settled(id int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ids = slices.DeleteFunc(r.ids, func(other int64) bool { return other == id })
}

func (r *run) note(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.notes, text) {
		r.notes = append(r.notes, text)
	}
}

func (r *run) setCurrent(kind string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current = kind
}

func (r *run) enter(phase string) {
	r.mu.Lock()
	r.phase = phase
	r.mu.Unlock()
	r.report(0)
}

// report tells how far it is. One at a time: whoever hears it need not be ready for
// more.
func (r *run) report(perSecond float64) {
	r.telling.Lock()
	defer r.telling.Unlock()
	r.opts.Progress(r.progress(perSecond))
}

func (r *run) progress(perSecond float64) Progress {
	s := r.meter.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	return Progress{
		Phase: r.phase, Elapsed: time.Since(r.rec.Began()), Operations: s.Operations, Unknown: s.Unknown, Failed: s.Failed,
		PerSecond: perSecond, Disturbance: r.current,
	}
}

// tell reports progress until ctx is done.
func (r *run) tell(ctx context.Context) *sync.WaitGroup {
	var wg sync.WaitGroup
	wg.Go(func() {
		before := 0
		for backoff.Sleep(ctx, progressEvery) == nil {
			n := r.meter.now().Operations
			r.report(float64(n-before) / progressEvery.Seconds())
			before = n
		}
	})
	return &wg
}
