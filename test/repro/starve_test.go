package repro_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/history/record"
)

// starvedWatch reads a watch slower than it is written to, and has compacted what it
// has not read yet. It has to be told so; in a stream that is full, it was moved on
// instead (#17529).
func starvedWatch(s *stage) {
	s.cluster(labOptions{})
	m := s.Members[0]
	c := s.client(m)
	// The reader takes one response for each token.
	tokens := make(chan struct{})
	created := make(chan struct{})
	seen := make(chan int64, 1000)
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	ended := make(chan error, 1)
	slow := s.client(m)
	go func() {
		ended <- slow.Watch(ctx, history.Watch{Key: prefix, End: prefixEnd, StartRevision: s.start + 1}, record.WatchOptions{
			Seen: func(r *history.WatchResponse) {
				if r.Created {
					close(created)
				}
				if n := len(r.Events); n > 0 {
					seen <- r.Events[n-1].KV.ModRevision
				}
				<-tokens
			},
		})
	}()
	<-created
	last := int64(0)
	for i := range 400 {
		// Large enough for one response to be all that is on its way.
		last = s.did(c.Put(s.ctx, prefix+fmt.Sprint("k", i%10), s.value()+strings.Repeat(".", 20<<10), 0))
	}
	s.metric(m, "etcd_debugging_mvcc_slow_watcher_total", func(n int) bool { return n > 0 })
	s.compact(c, last)
	// The first places that become free are taken by what was waiting, one after the
	// other, and each time the stream is full again when etcd looks at the watch.
	tick := time.NewTicker(400 * time.Millisecond) // it looks every 100 ms
	defer tick.Stop()
	for range 10 {
		select {
		case tokens <- struct{}{}:
		case err := <-ended:
			s.ended(err)
			return
		}
		<-tick.C
	}
	close(tokens)
	last = s.put(c, "last")
	for {
		select {
		case err := <-ended:
			s.ended(err)
			return
		case r := <-seen:
			if r == last {
				return
			}
		}
	}
}

// ended is how a watch ends that was told.
func (s *stage) ended(err error) {
	s.t.Helper()
	if !errors.Is(err, record.ErrCompacted) {
		s.t.Fatalf("the watch ended: %v", err)
	}
}
