// Package dirty holds what has changed until someone looks: each value once,
// however often it changed and however slow the reader is.
package dirty

import (
	"context"
	"sync"
)

// Set is a set of values waiting to be read, in the order in which they were
// first added. It is safe for concurrent use.
type Set[T comparable] struct {
	mu    sync.Mutex
	order []T
	has   map[T]struct{}
	wake  chan struct{}
}

// New returns an empty set.
func New[T comparable]() *Set[T] {
	return &Set[T]{has: map[T]struct{}{}, wake: make(chan struct{}, 1)}
}

// Add puts v into the set unless it is waiting already. It never blocks.
func (s *Set[T]) Add(v T) {
	s.mu.Lock()
	if _, ok := s.has[v]; !ok {
		s.has[v] = struct{}{}
		s.order = append(s.order, v)
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default: // the reader has been told
	}
}

// take removes all that waits.
func (s *Set[T]) take() []T {
	s.mu.Lock()
	defer s.mu.Unlock()
	order := s.order
	s.order = nil
	return order
}

// begin marks v as being read, so that a change from now on adds it again. What
// waits to be handed over still counts as waiting.
func (s *Set[T]) begin(v T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.has, v)
}

// Drain hands the values to out as they are added, until ctx ends. There may be
// one reader only.
func (s *Set[T]) Drain(ctx context.Context, out chan<- T) {
	for {
		for _, v := range s.take() {
			s.begin(v)
			select {
			case out <- v:
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return
		}
	}
}
