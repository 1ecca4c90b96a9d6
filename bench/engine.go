package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorate/quorate/internal/version"
)

// progressEvery is how often a run says where it stands.
const progressEvery = 2 * time.Second

// Run runs one load and returns what came of it. When ctx ends, the load ends, too,
// and the result tells of what ran. An error means that there is no result: ErrSpec
// and ErrForeign say that nothing was written.
func Run(ctx context.Context, spec Spec, o Options) (*Result, error) {
	spec = spec.Clone()
	if err := spec.Complete(); err != nil {
		return nil, err
	}
	s, err := open(ctx, spec, o)
	if err != nil {
		return nil, err
	}
	result, err := s.run(ctx)
	cleanup := s.close(ctx)
	if err != nil {
		return nil, err
	}
	result.Cleanup = cleanup
	return result, nil
}

// load is one load of a session while it runs.
type load struct {
	s   *session
	rec *recorder
	// clients that the sweeper looks after; those of an open loop come one by one.
	mu      sync.Mutex
	clients []*client
	wg      sync.WaitGroup
	// until is when no more is sent, in nanoseconds since the epoch.
	until int64
	// stop is closed when no more is to be sent.
	stop chan struct{}
	// done is closed when nothing is under way any more.
	done chan struct{}
}

// run runs the load of s.spec.
func (s *session) run(ctx context.Context) (*Result, error) {
	if err := s.chooseOps(); err != nil {
		return nil, err
	}
	isOpen := s.spec.Loop == Open
	calls, endCalls := context.WithCancel(context.WithoutCancel(ctx))
	defer endCalls()
	s.reset(ctx, calls)
	if s.spec.Watchers > 0 {
		if err := s.startWatching(ctx); err != nil {
			return nil, err
		}
		defer s.watching.end()
	}
	observer := s.newObserver(ctx)
	defer observer.abandon()
	start := s.rec.now()
	s.rec.from = start + int64(s.spec.Ramp+s.spec.WarmUp)
	l := &load{s: s, rec: s.rec, until: math.MaxInt64, stop: make(chan struct{}), done: make(chan struct{})}
	if s.spec.Duration > 0 {
		l.until = s.rec.from + int64(s.spec.Duration)
	}
	go l.sweep(calls)
	if isOpen {
		go l.open(start) //nolint:contextcheck // requests outlive ctx, see session.calls
	} else {
		go l.closed(start) //nolint:contextcheck // requests outlive ctx, see session.calls
	}
	c := newCollector(s.rec, len(s.ops), isOpen, s.spec.Watchers > 0, s.spec.SliceHistograms)
	err := l.follow(ctx, c, func() { observer.begin(calls) })
	close(l.stop)
	interrupted := ctx.Err() != nil
	if drainErr := l.drain(interrupted, endCalls); drainErr != nil {
		s.notes = append(s.notes, drainErr.Error())
	}
	if err != nil {
		return nil, err
	}
	var used ClientUsage
	observer.used(&used)
	if s.spec.Watchers > 0 {
		s.watching.settle(ctx)
	}
	end := s.rec.last.Load()
	if !interrupted && l.until < math.MaxInt64 {
		end = max(end, l.until)
	}
	if err = c.finish(max(end, c.begun)); err != nil {
		return nil, err
	}
	s.keepLeases(l.clients)
	r, err := s.result(c, used)
	if err != nil {
		return nil, err
	}
	r.Interrupted = interrupted
	observer.finish(ctx, r)
	r.Bottleneck = Bottleneck(r)
	return r, nil
}

// reset makes ready for another load of the session.
func (s *session) reset(ctx, calls context.Context) {
	s.generation++
	for i := range s.spaces {
		s.spaces[i].acknowledged.Store(0)
		for _, n := range s.spaces[i].watched {
			n.Store(0)
		}
	}
	s.rec = newRecorder(len(s.ops), s.spec.Loop == Open, s.spec.Watchers > 0)
	s.calls = calls
	s.left.Store(math.MaxInt64)
	if s.spec.Total > 0 {
		s.left.Store(s.spec.Total)
	}
	if !s.spec.StartAt.IsZero() {
		wait(ctx, time.Until(s.spec.StartAt))
	}
	s.rec.epoch = time.Now()
}

// chooseOps numbers the operations of the mix.
func (s *session) chooseOps() error {
	s.ops, s.runs = nil, nil
	index := map[Operation]int{}
	for _, op := range Operations {
		if !s.spec.has(op) {
			continue
		}
		run, err := runnerOf(op)
		if err != nil {
			return err
		}
		index[op] = len(s.ops)
		s.ops, s.runs = append(s.ops, op), append(s.runs, run)
	}
	s.mix = newMixer(s.spec.Mix, index)
	return nil
}

// more reports whether another request is to be sent at a time, and counts it.
func (l *load) more(now int64) bool {
	if now >= l.until {
		return false
	}
	select {
	case <-l.stop:
		return false
	default:
	}
	return l.s.spec.Total == 0 || now < l.rec.from || l.s.left.Add(-1) >= 0
}

// closed runs the clients of a closed loop.
func (l *load) closed(start int64) {
	defer close(l.done)
	n := l.s.spec.clients()
	l.rec.peak = int64(n)
	l.mu.Lock()
	for i := range n {
		l.clients = append(l.clients, newClient(l.s, i))
	}
	l.mu.Unlock()
	ramp := int64(l.s.spec.Ramp)
	for i, c := range l.clients {
		l.wg.Go(func() {
			l.waitUntil(start + ramp*int64(i)/int64(n))
			l.cycle(c)
		})
	}
	l.wg.Wait()
}

// cycle is the life of a client of a closed loop. After a request that failed at
// once it waits a moment: a cluster that is down is not to be asked a million times.
func (l *load) cycle(c *client) {
	const pause = 10 * time.Millisecond
	l.rec.inFlight.Add(1)
	defer l.rec.inFlight.Add(-1)
	for {
		now := l.rec.now()
		if !l.more(now) {
			return
		}
		if err := c.do(l.s.mix.draw(c.rand), now); err != nil && l.rec.now()-now < int64(pause) {
			l.waitUntil(l.rec.now() + int64(pause))
		}
	}
}

// waitUntil waits for a time since the epoch, or for the end of the load.
func (l *load) waitUntil(at int64) {
	d := at - l.rec.now()
	if d <= 0 {
		return
	}
	t := time.NewTimer(time.Duration(d))
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.stop:
	}
}

// arrivals are when the requests of an open loop are due.
type arrivals struct {
	rate     float64 // a nanosecond
	constant bool
	rand     *rand.Rand
	start    float64
	ramp     float64
	// work is how many requests were due until now, as a fraction: where the rate
	// rises, time is found from it.
	work float64
}

func newArrivals(s *Spec, start int64) *arrivals {
	const arrivalStream = 1 << 60
	return &arrivals{
		rate: s.Rate / 1e9, constant: s.Arrivals == Constant, rand: newRand(s.Seed, arrivalStream), start: float64(start), ramp: float64(s.Ramp),
	}
}

// next is when the next request is due. While the load ramps up, the rate grows
// evenly: after t of a ramp of T, rate·t²/2T requests were due.
func (a *arrivals) next() int64 {
	if a.constant {
		a.work++
	} else {
		a.work += a.rand.ExpFloat64()
	}
	t := a.work/a.rate + a.ramp/2
	if inRamp := a.rate * a.ramp / 2; a.work < inRamp {
		t = math.Sqrt(2 * a.ramp * a.work / a.rate)
	}
	return int64(a.start + t)
}

// crew are the clients of an open loop that wait for work, of one namespace. The one
// that waits for the shortest time is taken first, so that few are there.
type crew struct {
	mu        sync.Mutex
	idle      []*hand
	dismissed bool
}

// hand is a client that is told when its next request was due.
type hand struct {
	client *client
	due    chan int64
}

// open sends requests when they are due, whatever becomes of them.
func (l *load) open(start int64) {
	defer close(l.done)
	a := newArrivals(&l.s.spec, start)
	crews := make([]crew, l.s.spec.Namespaces)
	most := int64(l.s.spec.MaxInFlight)
	draw := newRand(l.s.spec.Seed, 1<<59)
	var started atomic.Int64
	for i := 0; ; i++ {
		due := a.next()
		l.waitUntil(min(due, l.until))
		if !l.more(due) {
			break
		}
		if l.rec.inFlight.Load() >= most {
			shard := &l.rec.shards[i%len(l.rec.shards)]
			l.rec.record(shard, sample{op: l.s.mix.draw(draw), due: due, class: classDropped})
			continue
		}
		l.rec.peak = max(l.rec.peak, l.rec.inFlight.Add(1))
		ns := i % len(crews)
		if h := crews[ns].take(); h != nil {
			h.due <- due
			continue
		}
		id := int(started.Add(1)-1)*len(crews) + ns
		h := &hand{client: newClient(l.s, id), due: make(chan int64, 1)}
		l.mu.Lock()
		l.clients = append(l.clients, h.client)
		l.mu.Unlock()
		h.due <- due
		l.wg.Go(func() { l.serve(&crews[ns], h) })
	}
	for i := range crews {
		crews[i].dismiss()
	}
	l.wg.Wait()
}

// serve is the life of a client of an open loop.
func (l *load) serve(c *crew, h *hand) {
	for due := range h.due {
		_ = h.client.do(l.s.mix.draw(h.client.rand), due) // it was recorded
		l.rec.inFlight.Add(-1)
		if !c.put(h) {
			return
		}
	}
}

func (c *crew) take() *hand {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.idle) == 0 {
		return nil
	}
	h := c.idle[len(c.idle)-1]
	c.idle = c.idle[:len(c.idle)-1]
	return h
}

// put gives a hand back, unless all have been dismissed.
func (c *crew) put(h *hand) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.dismissed {
		c.idle = append(c.idle, h)
	}
	return !c.dismissed
}

// dismiss ends those that wait, and each of the others after its request.
func (c *crew) dismiss() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.idle {
		close(h.due)
	}
	c.idle, c.dismissed = nil, true
}

// sweep gives requests up whose time is over.
func (l *load) sweep(ctx context.Context) {
	timeout := l.s.spec.Timeout.Std()
	const share, least, most = 50, time.Millisecond, 50 * time.Millisecond
	tick := time.NewTicker(min(max(timeout/share, least), most))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		before := l.rec.now() - int64(timeout)
		l.mu.Lock()
		clients := l.clients
		l.mu.Unlock()
		for _, c := range clients {
			c.expire(before)
		}
	}
}

// follow makes the series and tells of progress until the load is over.
func (l *load) follow(ctx context.Context, c *collector, begins func()) error {
	s := l.s
	if s.spec.Ramp > 0 {
		s.opts.Progress(Progress{Phase: PhaseRamp, Of: s.spec.Ramp.Std().Seconds()})
	} else if s.spec.WarmUp > 0 {
		s.opts.Progress(Progress{Phase: PhaseWarmUp, Of: s.spec.WarmUp.Std().Seconds()})
	}
	select {
	case <-time.After(time.Duration(max(l.rec.from-l.rec.now(), 0))):
	case <-ctx.Done():
		return fmt.Errorf("it was ended before anything was measured: %w", ctx.Err())
	case <-l.done:
	}
	begins()
	c.begun = l.rec.from
	tick := time.NewTicker(s.spec.Slice.Std())
	defer tick.Stop()
	told := l.rec.now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.done:
			return nil
		case <-tick.C:
		}
		now := l.rec.now()
		if now >= l.until {
			// What ends soon belongs to the last slice, which ends with the last request.
			select {
			case <-l.done:
				return nil
			case <-ctx.Done():
				return nil
			case <-tick.C:
				now = l.rec.now()
			}
		}
		step, err := c.cut(now)
		if err != nil {
			return err
		}
		if now-told >= int64(progressEvery)-int64(s.spec.Slice)/2 {
			told = now
			s.opts.Progress(Progress{Phase: PhaseRun, Done: step.At, Of: s.spec.Duration.Std().Seconds(), Step: step})
		}
	}
}

// drainTime is how long an interrupted load waits for what is under way.
const drainTime = 2 * time.Second

// drain waits for the requests under way. Those of an interrupted load that take
// long are ended, and count as unfinished.
func (l *load) drain(interrupted bool, endCalls func()) error {
	limit := l.s.spec.Timeout.Std() + drainTime
	if interrupted {
		limit = min(limit, drainTime)
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-l.done:
		return nil
	case <-t.C:
	}
	left := l.rec.inFlight.Load()
	endCalls()
	<-l.done
	return fmt.Errorf("%d requests under way were ended, and count as errors (unfinished)", left)
}

// keepLeases remembers the leases that clients still hold.
func (s *session) keepLeases(clients []*client) {
	for _, c := range clients {
		s.granted = append(s.granted, c.leases...)
		c.cancel()
	}
}

// result makes the result of what was collected.
func (s *session) result(c *collector, used ClientUsage) (*Result, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	end := max(c.begun, s.rec.from)
	r := &Result{
		Format: Format, Spec: s.spec.WithoutSecrets(), StartedAt: s.rec.epoch.Add(time.Duration(s.rec.from)).UTC(), Seconds: seconds(end - s.rec.from),
		Hosts: []string{host}, Series: c.series, Notes: slices.Clone(s.notes), ErrorTexts: s.rec.texts.list(),
		Client: used, Versions: Versions{Quorate: version.Version(), Go: runtime.Version(), Etcd: s.etcdVersions()},
	}
	if r.Seconds <= 0 {
		return nil, errors.New("nothing was measured: let it run for longer than ramp and warm-up")
	}
	all := cell{hist: newHistogram()}
	c.total.sum(&all)
	if r.Total, err = measureOf("all", &all, r.Seconds); err != nil {
		return nil, err
	}
	for i, op := range s.ops {
		m, measureErr := measureOf(string(op), &c.total.ops[i], r.Seconds)
		if measureErr != nil {
			return nil, measureErr
		}
		r.Operations = append(r.Operations, m)
	}
	if n := r.Total.Count + r.Total.Errors.Total() - r.Total.Errors.Dropped; n > 0 {
		r.Client.CPUPerRequest = r.Client.CPUSeconds * 1e6 / float64(n)
	}
	if c.total.lag != nil {
		lag := latencyOf(c.total.lag)
		r.Client.Lag = &lag
	}
	r.Client.MaxInFlight = s.rec.peak
	if s.watching != nil {
		r.Watch, err = s.watching.measure(&c.total.rest, r.Seconds)
	}
	return r, err
}

func measureOf(name string, c *cell, seconds float64) (Measure, error) {
	m := Measure{Name: name, Count: c.count, Conflicts: c.conflicts, Errors: countsOf(&c.errors)}
	return m, m.measure(c.hist, seconds)
}

func (s *session) etcdVersions() []string {
	var list []string
	for _, m := range s.members {
		if v := m.status.GetVersion(); !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	slices.Sort(list)
	return list
}
