package check

import (
	"context"
	"time"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/internal/backoff"
)

// How leases live.
const (
	// longestTTL in seconds; etcd raises what is too short for it.
	longestTTL = 4
	// mostRenewals before a lease is left to itself.
	mostRenewals = 4
	// renewalsPerTTL is how often a lease is renewed in its time.
	renewalsPerTTL = 3
	// ttlAsked is how often it is asked for the rest of a TTL.
	ttlAsked = 500 * time.Millisecond
	// longAfter is how many TTLs a lease that does not expire is watched.
	longAfter = 5
)

// leases lives through one lease after another until ctx is done: granted, given
// keys, renewed or not, then revoked or left to expire.
func (s *session) leases(ctx context.Context) {
	for ctx.Err() == nil && !s.run.spent() {
		s.lease(ctx)
		_ = backoff.Sleep(ctx, time.Duration(s.rng.Int64N(int64(time.Second)))) // the loop asks ctx
	}
}

func (s *session) lease(ctx context.Context) {
	id := s.rng.Int64() >> 1
	if id == 0 {
		return // the members would choose one
	}
	s.run.granted(id)
	op := s.do(ctx, history.Operation{Kind: history.LeaseGrant, Lease: id, TTL: 1 + s.rng.Int64N(longestTTL)})
	if op.Outcome != history.OK {
		return
	}
	ttl := time.Duration(op.TTL) * time.Second
	for range 1 + s.rng.IntN(mostInOne) {
		s.do(ctx, one(history.Request{Kind: history.Put, Key: s.anyKey(), Value: s.value(), Lease: id, PrevKV: s.flip()}))
	}
	for range s.rng.IntN(mostRenewals + 1) {
		if backoff.Sleep(ctx, ttl/renewalsPerTTL) != nil {
			return
		}
		s.do(ctx, history.Operation{Kind: history.LeaseRenew, Lease: id})
	}
	if s.flip() {
		if backoff.Sleep(ctx, time.Duration(s.rng.Int64N(int64(ttl)))) == nil {
			if op = s.do(ctx, history.Operation{Kind: history.LeaseRevoke, Lease: id}); op.Outcome == history.OK {
				s.run.settled(id)
			}
		}
		return
	}
	s.expire(ctx, id, ttl)
}

// expire asks for the rest of a lease until nothing is left.
func (s *session) expire(ctx context.Context, id int64, ttl time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, longAfter*ttl)
	defer cancel()
	for backoff.Sleep(ctx, ttlAsked) == nil {
		op := s.do(ctx, history.Operation{Kind: history.LeaseTTL, Lease: id})
		if op.Outcome == history.OK && op.TTL < 0 {
			s.run.settled(id)
			return
		}
	}
}
