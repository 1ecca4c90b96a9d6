package discovery

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	mvccpb "go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// maxWatches of one stream; a member begins one.
const maxWatches = 4

// Watch implements pb.WatchServer: the members of one token, as they come.
func (s *Service) Watch(stream pb.Watch_WatchServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	w := &watching{service: s, out: make(chan *pb.WatchResponse), ends: map[int64]context.CancelFunc{}}
	failed := make(chan error, 1)
	go func() { failed <- w.receive(ctx, stream) }()
	for {
		select {
		case resp := <-w.out:
			if err := stream.Send(resp); err != nil {
				return err
			}
		case err := <-failed:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// watching is one stream with its watches.
type watching struct {
	service *Service
	out     chan *pb.WatchResponse
	// begun counts the watches, and ends has those that go on. Only receive uses them.
	begun int64
	ends  map[int64]context.CancelFunc
}

func (w *watching) receive(ctx context.Context, stream pb.Watch_WatchServer) error {
	for {
		req, err := stream.Recv()
		if err != nil {
			return err
		}
		switch r := req.GetRequestUnion().(type) {
		case *pb.WatchRequest_CreateRequest:
			err = w.create(ctx, r.CreateRequest)
		case *pb.WatchRequest_CancelRequest:
			id := r.CancelRequest.GetWatchId()
			if end := w.ends[id]; end != nil {
				end()
				delete(w.ends, id)
				err = w.send(ctx, &pb.WatchResponse{Header: header(1), WatchId: id, Canceled: true})
			}
		default:
			err = refused()
		}
		if err != nil {
			return err
		}
	}
}

func (w *watching) send(ctx context.Context, r *pb.WatchResponse) error {
	select {
	case w.out <- r:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *watching) create(ctx context.Context, r *pb.WatchCreateRequest) error {
	p, ok := parseRange(r.GetKey(), r.GetRangeEnd())
	if !ok || p.size || r.GetPrevKv() || len(r.GetFilters()) > 0 || r.GetWatchId() != 0 {
		return refused()
	}
	if len(w.ends) >= maxWatches {
		return status.Errorf(codes.ResourceExhausted, "a member needs one watch, and this stream has %d", maxWatches)
	}
	// Each watch asks the store, and a stream may begin and cancel any number of them.
	if err := w.service.admit(ctx); err != nil {
		return err
	}
	id := w.begun
	w.begun++
	t, err := load(ctx, w.service.opts.Store, p.token, w.service.opts.Now())
	switch {
	case errors.Is(err, ErrUnknown):
		return refused()
	case err != nil:
		return w.service.unavailable(ctx, err)
	}
	if err := w.send(ctx, &pb.WatchResponse{Header: header(t.revision()), WatchId: id, Created: true}); err != nil {
		return err
	}
	from := r.GetStartRevision()
	if from <= 0 {
		from = t.revision() + 1
	}
	ctx, w.ends[id] = context.WithCancel(ctx)
	go w.follow(ctx, id, p.token, from)
	return nil
}

// follow sends the members that come from a revision on.
func (w *watching) follow(ctx context.Context, id int64, token string, from int64) {
	s := w.service
	timer := time.NewTimer(askAgain)
	defer timer.Stop()
	for {
		// Asked for before the token is read: who comes in between is not missed.
		next := s.next(token)
		t, err := load(ctx, s.opts.Store, token, s.opts.Now())
		if errors.Is(err, ErrUnknown) {
			_ = w.send(ctx, &pb.WatchResponse{
				Header: header(1), WatchId: id, Canceled: true, CancelReason: "there is no such discovery token any more: it has expired or was deleted",
			})
			return
		}
		if err == nil {
			var events []*mvccpb.Event
			for _, kv := range t.keys(from) {
				events = append(events, &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: kv})
			}
			if len(events) > 0 {
				from = t.revision() + 1
				if w.send(ctx, &pb.WatchResponse{Header: header(t.revision()), WatchId: id, Events: events}) != nil {
					return
				}
			}
		}
		timer.Reset(askAgain)
		select {
		case <-ctx.Done():
			return
		case <-next:
		case <-timer.C:
		}
	}
}
