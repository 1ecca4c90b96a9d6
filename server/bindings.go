package server

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/internal/backoff"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote/dirty"
)

// bindings knows which member is bound to which host, and tells the watches of
// agents of theirs: one watch and one read per change serve all of them.
type bindings struct {
	mu sync.Mutex
	// hosts by member.
	hosts map[store.Key]string
	// watches by host.
	watches map[string]map[*dirty.Set[store.Key]]struct{}
}

func newBindings() *bindings {
	return &bindings{hosts: map[store.Key]string{}, watches: map[string]map[*dirty.Set[store.Key]]struct{}{}}
}

// run follows the members until ctx ends.
func (b *bindings) run(ctx context.Context, st store.Store, log *slog.Logger) {
	wait := backoff.Backoff{Min: 50 * time.Millisecond, Max: 5 * time.Second, Jitter: 0.5}
	for key := range st.Watch(ctx, v1alpha1.KindMember, "") {
		for {
			host, err := hostOf(ctx, st, key)
			if err == nil {
				wait.Reset()
				b.changed(key, host)
				break
			}
			log.WarnContext(ctx, "member not read, trying again", slog.String("member", key.String()), slog.Any("error", err))
			if backoff.Sleep(ctx, wait.Next()) != nil {
				return
			}
		}
	}
}

// hostOf returns the member's host, or "" when it is gone.
func hostOf(ctx context.Context, st store.Store, key store.Key) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	var m v1alpha1.EtcdMember
	err := st.Get(ctx, key, &m)
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	return m.Spec.Host, err
}

// changed tells the watches of the host that the member is bound to, and of the
// one that it was bound to before.
func (b *bindings) changed(key store.Key, host string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.hosts[key]
	if host == "" {
		delete(b.hosts, key)
	} else {
		b.hosts[key] = host
	}
	for set := range b.watches[host] {
		set.Add(key)
	}
	if before != host {
		for set := range b.watches[before] {
			set.Add(key)
		}
	}
}

// subscribe returns a set that begins with the members bound to the host, and is
// told of their changes until unsubscribe.
func (b *bindings) subscribe(host string) *dirty.Set[store.Key] {
	b.mu.Lock()
	defer b.mu.Unlock()
	set := dirty.New[store.Key]()
	for key, bound := range b.hosts {
		if bound == host {
			set.Add(key)
		}
	}
	if b.watches[host] == nil {
		b.watches[host] = map[*dirty.Set[store.Key]]struct{}{}
	}
	b.watches[host][set] = struct{}{}
	return set
}

func (b *bindings) unsubscribe(host string, set *dirty.Set[store.Key]) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.watches[host], set)
	if len(b.watches[host]) == 0 {
		delete(b.watches, host)
	}
}
