package record

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/history"
)

// ErrCanceled says that etcd ended a watch.
var ErrCanceled = errors.New("etcd canceled the watch")

// ErrCompacted says that what a watch wants is compacted.
var ErrCompacted = errors.New("what it wants is compacted")

// WatchOptions say how a watch is kept, beside what it watches.
type WatchOptions struct {
	// Seen is called with each response after it was recorded; it must not block.
	Seen func(*history.WatchResponse)
	// Ask has the client ask for a progress notification so often; 0 for never.
	Ask time.Duration
	// Fragment lets etcd split what is larger than a request may be.
	Fragment bool
}

// Watch opens a watch (Key, End, StartRevision, PrevKV, NoPut, NoDelete, Progress),
// and records what it delivers until ctx is done, etcd cancels it (ErrCanceled,
// ErrCompacted), or the stream breaks. It never resumes: that is a new watch, with a
// new start revision, whose promises hold anew.
func (c *Client) Watch(ctx context.Context, w history.Watch, o WatchOptions) error {
	w.Endpoint = c.endpoint
	opened := c.rec.opened(w)
	return c.stream(ctx, opened, o, func(r *history.WatchResponse) {
		c.rec.heard(opened, r)
		if o.Seen != nil {
			o.Seen(r)
		}
	})
}

// stream opens a watch and hands over its responses until it ends.
func (c *Client) stream(ctx context.Context, w *history.Watch, o WatchOptions, got func(*history.WatchResponse)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// A member without a leader ends the stream rather than to be silent.
	stream, err := c.watch.Watch(clientv3.WithRequireLeader(ctx))
	if err != nil {
		return fmt.Errorf("watch %s at %s: %w", w.Key, c.endpoint, err)
	}
	if err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: createRequest(w, o)}}); err != nil {
		return fmt.Errorf("watch %s at %s: %w", w.Key, c.endpoint, err)
	}
	asked := make(chan struct{})
	defer func() { cancel(); <-asked }()
	go func() {
		defer close(asked)
		askProgress(ctx, stream, o.Ask)
	}()
	for {
		r, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("watch %s at %s: %w", w.Key, c.endpoint, err)
		}
		resp := watchResponse(r)
		resp.At = c.rec.Now()
		got(resp)
		switch {
		case resp.CompactRevision > 0:
			return fmt.Errorf("watch %s at %s: %w up to %d", w.Key, c.endpoint, ErrCompacted, resp.CompactRevision)
		case resp.Canceled:
			return fmt.Errorf("watch %s at %s: %w: %s", w.Key, c.endpoint, ErrCanceled, resp.Error)
		}
	}
}

// askProgress asks for progress from time to time. Only it sends on the stream.
func askProgress(ctx context.Context, stream pb.Watch_WatchClient, every time.Duration) {
	if every <= 0 {
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
		if err != nil {
			return // whoever receives hears why
		}
	}
}

func createRequest(w *history.Watch, o WatchOptions) *pb.WatchCreateRequest {
	req := &pb.WatchCreateRequest{
		Key: []byte(w.Key), RangeEnd: bytesOf(w.End), StartRevision: w.StartRevision,
		PrevKv: w.PrevKV, ProgressNotify: w.Progress, Fragment: o.Fragment,
	}
	if w.NoPut {
		req.Filters = append(req.Filters, pb.WatchCreateRequest_NOPUT)
	}
	if w.NoDelete {
		req.Filters = append(req.Filters, pb.WatchCreateRequest_NODELETE)
	}
	return req
}

func watchResponse(r *pb.WatchResponse) *history.WatchResponse {
	out := &history.WatchResponse{
		Revision: r.GetHeader().GetRevision(), Created: r.GetCreated(), Fragment: r.GetFragment(),
		Canceled: r.GetCanceled(), CompactRevision: r.GetCompactRevision(), Error: r.GetCancelReason(),
	}
	out.Progress = len(r.GetEvents()) == 0 && !out.Created && !out.Canceled && out.CompactRevision == 0
	for _, e := range r.GetEvents() {
		out.Events = append(out.Events, event(e))
	}
	return out
}

func event(e *mvccpb.Event) history.Event {
	kv := e.GetKv()
	out := history.Event{Deleted: e.GetType() == mvccpb.Event_DELETE, KV: keyValue(kv)}
	out.Create = !out.Deleted && kv.GetCreateRevision() == kv.GetModRevision()
	if prev := e.GetPrevKv(); prev != nil {
		p := keyValue(prev)
		out.PrevKV = &p
	}
	return out
}
