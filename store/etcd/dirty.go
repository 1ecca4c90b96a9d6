package etcd

import (
	"context"
	"sync"

	"github.com/quorate/quorate/store"
)

// dirty holds the keys that a reader has yet to be told of, each once, in the
// order in which they first changed.
type dirty struct {
	mu      sync.Mutex
	queue   []store.Key
	pending map[store.Key]bool
	// more has room for one signal: there is something to deliver.
	more chan struct{}
}

func newDirty() *dirty {
	return &dirty{pending: map[store.Key]bool{}, more: make(chan struct{}, 1)}
}

func (d *dirty) add(key store.Key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pending[key] {
		return
	}
	d.pending[key] = true
	d.queue = append(d.queue, key)
	select {
	case d.more <- struct{}{}:
	default:
	}
}

// take removes the first key, before it is delivered: a change that comes while
// the reader takes it is a new one, which the reader may not have seen.
func (d *dirty) take() (store.Key, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queue) == 0 {
		d.queue = nil
		return store.Key{}, false
	}
	key := d.queue[0]
	d.queue = d.queue[1:]
	delete(d.pending, key)
	return key, true
}

// deliver sends keys until ctx ends.
func (d *dirty) deliver(ctx context.Context, out chan<- store.Key) {
	for {
		key, ok := d.take()
		if !ok {
			select {
			case <-d.more:
				continue
			case <-ctx.Done():
				return
			}
		}
		select {
		case out <- key:
		case <-ctx.Done():
			return
		}
	}
}
