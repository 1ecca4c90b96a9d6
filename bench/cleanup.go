package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// cleanTime bounds cleaning up.
const cleanTime = 10 * time.Minute

// close deletes what the session wrote, and ends its connections. It does so also
// when ctx has ended.
func (s *session) close(ctx context.Context) Cleanup {
	defer s.hangUp()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
	defer cancel()
	go func() {
		select {
		case <-s.opts.Abandon:
			cancel()
		case <-ctx.Done():
		}
	}()
	out := Cleanup{Prefix: s.spec.Prefix, Kept: s.spec.Keep}
	for _, id := range s.granted {
		err := s.callOnce(ctx, s.conns[0], pb.Lease_LeaseRevoke_FullMethodName, &pb.LeaseRevokeRequest{ID: id}, &pb.LeaseRevokeResponse{})
		if err != nil {
			break // they end by themselves, within their TTL
		}
		out.Revoked++
	}
	defer s.unmark(ctx)
	if s.spec.Keep {
		s.markKept(ctx)
		return out
	}
	err := s.deleteKeys(ctx, &out)
	if err == nil {
		s.unmark(ctx)
	}
	if err == nil {
		err = s.deleteRest(ctx, &out)
	}
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		err = errors.New("deleting them was abandoned")
	}
	if err != nil {
		out.Error = fmt.Sprintf("keys are left below %s: %v: delete them with etcdctl del --prefix %s", s.spec.Prefix, err, s.spec.Prefix)
	}
	return out
}

// deleteKeys deletes the numbered keys by ranges of a hundred: one delete of all
// would hold up everybody's writes until it is through.
func (s *session) deleteKeys(ctx context.Context, out *Cleanup) error {
	began, all := time.Now(), float64(s.spec.Keys*s.spec.Namespaces)
	s.opts.Progress(Progress{Phase: PhaseCleanup, Of: all})
	for i := range s.spaces {
		sp := &s.spaces[i]
		for from := 0; from < s.spec.Keys; from += batchKeys {
			key := appendDigits(append(bytes.Clone(sp.prefix), 'k'), from, keyDigits)
			end := appendDigits(append(bytes.Clone(sp.prefix), 'k'), min(from+batchKeys, s.spec.Keys), keyDigits)
			n, err := s.deleteRange(ctx, key, end)
			if err != nil {
				return err
			}
			out.Deleted += n
			if time.Since(began) > progressEvery {
				began = time.Now()
				s.opts.Progress(Progress{Phase: PhaseCleanup, Done: float64(i*s.spec.Keys + from), Of: all})
			}
		}
	}
	return nil
}

// deleteRest deletes what else lies below the prefix.
func (s *session) deleteRest(ctx context.Context, out *Cleanup) error {
	end := prefixEnd([]byte(s.spec.Prefix))
	for {
		var page pb.RangeResponse
		request := &pb.RangeRequest{Key: []byte(s.spec.Prefix), RangeEnd: end, Limit: batchKeys, KeysOnly: true, Serializable: false}
		if err := s.callOnce(ctx, s.conns[0], pb.KV_Range_FullMethodName, request, &page); err != nil {
			return err
		}
		kvs := page.GetKvs()
		if len(kvs) == 0 {
			return nil
		}
		n, err := s.deleteRange(ctx, kvs[0].GetKey(), append(bytes.Clone(kvs[len(kvs)-1].GetKey()), 0))
		if err != nil {
			return err
		}
		out.Deleted += n
	}
}

func (s *session) deleteRange(ctx context.Context, key, end []byte) (int64, error) {
	const enough = 10
	for tries := 0; ; tries++ {
		var answer pb.DeleteRangeResponse
		err := s.callOnce(ctx, s.conns[tries%len(s.conns)], pb.KV_DeleteRange_FullMethodName, &pb.DeleteRangeRequest{Key: key, RangeEnd: end}, &answer)
		if err == nil {
			return answer.GetDeleted(), nil
		}
		if tries == enough || ctx.Err() != nil {
			return 0, err
		}
		wait(ctx, time.Duration(tries+1)*200*time.Millisecond)
	}
}
