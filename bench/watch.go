package bench

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// watching are the watchers of a load. Those of one connection share a stream, as
// etcd's client does it.
type watching struct {
	s       *session
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	streams []*watchStream

	delivered, undetermined, reconnects atomic.Int64
	// heard is told when a stream has brought something.
	heard chan struct{}
}

// watchStream is one stream with its watchers.
type watchStream struct {
	w        *watching
	conn     *grpc.ClientConn
	shard    *shard
	watchers []*watcher
	// ready is closed when all have been created the first time.
	ready chan struct{}
	fault atomic.Pointer[error]
}

// watcher is one watch: its index in the stream is its ID.
type watcher struct {
	key, end []byte
	// next revision that it wants.
	next atomic.Int64
}

// startWatching creates all watchers, and waits until etcd says that they are there.
func (s *session) startWatching(ctx context.Context) error { //nolint:contextcheck // watchers outlive ctx, see session.calls
	w := &watching{s: s, heard: make(chan struct{}, 1)}
	run, cancel := context.WithCancel(s.calls)
	w.cancel = cancel
	w.streams = make([]*watchStream, min(len(s.conns), s.spec.Watchers*s.spec.Namespaces))
	for i := range w.streams {
		w.streams[i] = &watchStream{w: w, conn: s.conns[i], shard: &s.rec.shards[i%len(s.rec.shards)], ready: make(chan struct{})}
	}
	n := 0
	for i := range s.spaces {
		sp := &s.spaces[i]
		for k := range s.spec.Watchers {
			one := &watcher{key: bytes.Clone(sp.prefix), end: prefixEnd(sp.prefix)}
			if s.spec.WatchScope == WatchKey {
				one = &watcher{key: s.appendKey(nil, sp, s.watchedKey(k))}
			}
			stream := w.streams[n%len(w.streams)]
			stream.watchers = append(stream.watchers, one)
			n++
		}
	}
	s.watching = w
	for _, st := range w.streams {
		w.wg.Go(func() { st.follow(run) })
	}
	late := time.NewTimer(connectTime + s.spec.Timeout.Std())
	defer late.Stop()
	for _, st := range w.streams {
		select {
		case <-st.ready:
		case <-late.C:
			err := fmt.Errorf("%d watchers could not be created in time", n)
			if f := st.fault.Load(); f != nil {
				err = fmt.Errorf("%w: %w", err, *f)
			}
			w.end()
			return err
		case <-ctx.Done():
			w.end()
			return ctx.Err()
		}
	}
	return nil
}

func (w *watching) end() {
	w.cancel()
	w.wg.Wait()
}

// follow keeps the stream open, and resumes behind the last event where it breaks.
func (st *watchStream) follow(ctx context.Context) {
	for first := true; ctx.Err() == nil; first = false {
		if !first {
			st.w.reconnects.Add(1)
			wait(ctx, 100*time.Millisecond)
		}
		if err := st.once(ctx, first); err != nil {
			st.fault.Store(&err)
		}
	}
}

func (st *watchStream) once(ctx context.Context, first bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewWatchClient(st.conn).Watch(ctx)
	if err != nil {
		return err
	}
	go func() { // answers come while requests are still sent
		for i := range st.watchers {
			v := st.watchers[i]
			create := &pb.WatchCreateRequest{Key: v.key, RangeEnd: v.end, StartRevision: v.next.Load(), WatchId: int64(i + 1)}
			if stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}) != nil {
				return // Recv says why
			}
		}
	}()
	created := 0
	for {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		at := st.w.s.rec.now()
		id := r.GetWatchId() - 1
		if r.GetCanceled() && id >= 0 && id < int64(len(st.watchers)) && r.GetCompactRevision() > 0 {
			// What was compacted away is missing, and counted so; it goes on behind.
			st.watchers[id].next.Store(max(st.watchers[id].next.Load(), r.GetCompactRevision()))
		}
		if r.GetCanceled() || id < 0 || id >= int64(len(st.watchers)) {
			return fmt.Errorf("the watch was cancelled by etcd: %s", r.GetCancelReason())
		}
		if r.GetCreated() {
			st.watchers[id].next.CompareAndSwap(0, r.GetHeader().GetRevision()+1)
			created++
			if first && created == len(st.watchers) {
				close(st.ready)
				first = false
			}
			continue
		}
		st.take(st.watchers[id], r, at)
	}
}

func (st *watchStream) take(v *watcher, r *pb.WatchResponse, at int64) {
	events := r.GetEvents()
	if len(events) == 0 {
		return
	}
	w := st.w
	for _, e := range events {
		due, ok := w.s.stampOf(e.GetKv().GetValue())
		if !ok {
			w.undetermined.Add(1)
			continue
		}
		if due >= w.s.rec.from {
			w.delivered.Add(1)
		}
		w.s.rec.delivered(st.shard, due, at)
	}
	v.next.Store(events[len(events)-1].GetKv().GetModRevision() + 1)
	select {
	case w.heard <- struct{}{}:
	default:
	}
}

// expected events of the acknowledged writes.
func (w *watching) expected() int64 {
	sum := int64(0)
	for i := range w.s.spaces {
		sp := &w.s.spaces[i]
		if w.s.spec.WatchScope == WatchPrefix {
			sum += sp.acknowledged.Load() * int64(w.s.spec.Watchers)
			continue
		}
		for _, n := range sp.watched {
			sum += n.Load()
		}
	}
	return sum
}

// settle waits until all events have come, or none has for a timeout.
func (w *watching) settle(ctx context.Context) {
	late := time.NewTimer(w.s.spec.Timeout.Std())
	defer late.Stop()
	for w.delivered.Load() < w.expected() {
		select {
		case <-w.heard:
			late.Reset(w.s.spec.Timeout.Std())
		case <-late.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (w *watching) measure(c *cell, seconds float64) (*WatchMeasure, error) {
	m := &WatchMeasure{
		Watchers: w.s.spec.Watchers * w.s.spec.Namespaces, Expected: w.expected(), Delivered: w.delivered.Load(),
		Undetermined: w.undetermined.Load(), Reconnects: w.reconnects.Load(), Latency: latencyOf(c.hist),
	}
	m.Missing = max(m.Expected-m.Delivered, 0)
	m.PerSecond = float64(m.Delivered) / seconds
	var err error
	m.Histogram, err = encode(c.hist)
	return m, err
}
