// Package catalogtest has an object store in memory, for tests of what uses a catalog.
package catalogtest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/backup/catalog"
)

// Op is a call of a store.
type Op string

// The calls.
const (
	List   Op = "list"
	Get    Op = "get"
	Put    Op = "put"
	Delete Op = "delete"
)

// Memory is an object store in memory. The zero value is empty and ready.
type Memory struct {
	// Now is the store's clock, time.Now if nil.
	Now func() time.Time
	// Latency is how long each Get takes.
	Latency time.Duration
	// Before, if not nil, is called before each call, without a lock. Its error is the
	// call's.
	Before func(op Op, name string) error

	mu      sync.Mutex
	objects map[string]stored
}

type stored struct {
	data     []byte
	size     int64
	modified time.Time
}

var _ catalog.Objects = (*Memory)(nil)

// List implements catalog.Objects.
func (m *Memory) List(ctx context.Context, prefix string, each func(catalog.Object) error) error {
	if err := m.before(ctx, List, prefix); err != nil {
		return err
	}
	if !strings.HasSuffix(prefix, "/") {
		return fmt.Errorf("prefix %q does not end with a slash", prefix)
	}
	for _, o := range m.list(prefix) {
		if err := each(o); err != nil {
			return err
		}
	}
	return nil
}

// Get implements catalog.Objects.
func (m *Memory) Get(ctx context.Context, name string) ([]byte, error) {
	if err := m.before(ctx, Get, name); err != nil {
		return nil, err
	}
	if m.Latency > 0 {
		t := time.NewTimer(m.Latency)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.objects[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, catalog.ErrNotFound)
	}
	return bytes.Clone(o.data), nil
}

// Put implements catalog.Objects.
func (m *Memory) Put(ctx context.Context, name string, data []byte) error {
	if err := m.before(ctx, Put, name); err != nil {
		return err
	}
	now := time.Now
	if m.Now != nil {
		now = m.Now
	}
	m.Set(name, data, int64(len(data)), now())
	return nil
}

// Delete implements catalog.Objects.
func (m *Memory) Delete(ctx context.Context, name string) error {
	if err := m.before(ctx, Delete, name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.objects[name]; !ok {
		return fmt.Errorf("%s: %w", name, catalog.ErrNotFound)
	}
	delete(m.objects, name)
	return nil
}

// Set puts an object there as it should be listed. Its size may differ from its data:
// backups of gigabytes need no memory.
func (m *Memory) Set(name string, data []byte, size int64, modified time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.objects == nil {
		m.objects = map[string]stored{}
	}
	m.objects[name] = stored{bytes.Clone(data), size, modified}
}

// Names are those of all objects, sorted.
func (m *Memory) Names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.objects))
}

// Clone is a store with the same objects and clock.
func (m *Memory) Clone() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &Memory{Now: m.Now, Latency: m.Latency, objects: maps.Clone(m.objects)}
}

func (m *Memory) list(prefix string) []catalog.Object {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []catalog.Object
	for name, o := range m.objects {
		if strings.HasPrefix(name, prefix) {
			found = append(found, catalog.Object{Name: name, Size: o.size, Modified: o.modified})
		}
	}
	return found
}

func (m *Memory) before(ctx context.Context, op Op, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.Before != nil {
		return m.Before(op, name)
	}
	return nil
}
