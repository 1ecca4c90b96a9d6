package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// While a run lasts, a key with a lease says so: runKey below its prefix. It ends with
// the run, or within markerTTL seconds of one that was killed, and whoever cleans up
// leaves runs alone that have one. keptKey says that keys were left on purpose.
const (
	runKey      = "run"
	keptKey     = "kept"
	markerTTL   = 60
	markerEvery = 10 * time.Second
)

// marker keeps the lease of a run's own key.
type marker struct {
	lease  int64
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// mark says in the cluster that the run goes on. One that can't be marked runs all the
// same, and says so.
func (s *session) mark(ctx context.Context) {
	if err := s.putMarker(ctx); err != nil {
		s.note("this run could not be marked as going on (%v): don't run bench clean meanwhile", err)
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.marker.cancel = cancel
	s.marker.wg.Go(func() {
		tick := time.NewTicker(markerEvery)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-run.Done():
				return
			case <-tick.C:
			}
			if !s.renewMarker(run, i) && run.Err() == nil {
				_ = s.putMarker(run) // the next turn tries again
			}
		}
	})
}

// putMarker grants a lease and writes the key.
func (s *session) putMarker(ctx context.Context) error {
	var granted pb.LeaseGrantResponse
	if err := s.callOnce(ctx, s.conns[0], pb.Lease_LeaseGrant_FullMethodName, &pb.LeaseGrantRequest{TTL: markerTTL}, &granted); err != nil {
		return err
	}
	s.marker.lease = granted.GetID()
	put := &pb.PutRequest{Key: []byte(s.spec.Prefix + runKey), Value: whose(), Lease: granted.GetID()}
	return s.callOnce(ctx, s.conns[0], pb.KV_Put_FullMethodName, put, &pb.PutResponse{})
}

// whose says who runs a load, for people.
func whose() []byte {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	raw, err := json.Marshal(map[string]any{"host": host, "pid": os.Getpid(), "startedAt": time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return nil
	}
	return raw
}

// renewMarker reports false where the lease has ended: an answer that fails says
// nothing.
func (s *session) renewMarker(ctx context.Context, turn int) bool {
	if s.marker.lease == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, s.spec.Timeout.Std())
	defer cancel()
	stream, err := pb.NewLeaseClient(s.conns[turn%len(s.conns)]).LeaseKeepAlive(ctx)
	if err != nil {
		return true
	}
	if err = stream.Send(&pb.LeaseKeepAliveRequest{ID: s.marker.lease}); err != nil {
		return true
	}
	answer, err := stream.Recv()
	return err != nil || answer.GetTTL() > 0
}

// unmark ends the lease, and the key with it. It does so also after cleaning up was
// abandoned, so that another may clean up.
func (s *session) unmark(ctx context.Context) {
	if s.marker.cancel == nil {
		return
	}
	s.marker.cancel()
	s.marker.wg.Wait()
	s.marker.cancel = nil
	if s.marker.lease != 0 {
		// It ends by itself where this fails.
		_ = s.callOnce(context.WithoutCancel(ctx), s.conns[0], pb.Lease_LeaseRevoke_FullMethodName, &pb.LeaseRevokeRequest{ID: s.marker.lease}, &pb.LeaseRevokeResponse{})
	}
}

// markKept says that the keys are left on purpose.
func (s *session) markKept(ctx context.Context) {
	if !strings.HasPrefix(s.spec.Prefix, runsBelow) {
		return // nobody looks there
	}
	err := s.callOnce(ctx, s.conns[0], pb.KV_Put_FullMethodName, &pb.PutRequest{Key: []byte(s.spec.Prefix + keptKey), Value: whose()}, &pb.PutResponse{})
	if err != nil {
		s.note("the keys could not be marked as kept: bench clean takes them for leftovers: %v", err)
	}
}

// lookBack notes what earlier runs have left, and who else loads the cluster. Who may
// not look there is not told.
func (s *session) lookBack(ctx context.Context) {
	runs, err := (&sweep{s: s}).find(ctx)
	if err != nil {
		return
	}
	left, keys := 0, int64(0)
	for _, r := range runs {
		switch {
		case r.Prefix == s.spec.Prefix, r.State == Kept, r.State == Foreign, siblings(r.Prefix, s.spec.Prefix):
		case r.State == Running:
			s.tell(fmt.Sprintf("another load runs on this cluster, or was killed within the last %d s: %s", markerTTL, r.Prefix))
		default:
			left, keys = left+1, keys+r.Keys
		}
	}
	if left > 0 {
		s.tell(fmt.Sprintf("%d keys below %s are left from %d earlier runs that were killed: delete them with quorate bench clean", keys, runsBelow, left))
	}
}

func (s *session) tell(text string) {
	s.note("%s", text)
	s.opts.Progress(Progress{Phase: PhaseNote, Note: text})
}
