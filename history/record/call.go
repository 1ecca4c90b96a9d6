package record

import (
	"context"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/quorate/quorate/history"
)

// over is the TTL of a lease that is over, whichever way etcd says it.
const over = -1

// ErrOperation says that an operation is none that can be asked.
var ErrOperation = errors.New("no such operation")

// Do asks what op says (Kind, If, Then, Else, Serializable; Lease and TTL of a
// lease; Revision to compact to), records it, and returns it with what came of it.
// Whether it went well is in its Outcome.
func (c *Client) Do(ctx context.Context, op history.Operation) history.Operation {
	ctx, sent := noteSent(ctx)
	op.Client, op.Endpoint = c.id, c.endpoint
	op.Call = c.rec.Now()
	err := c.ask(ctx, &op)
	op.Return = c.rec.Now()
	op.Outcome = history.OK
	if err != nil {
		op.Outcome, op.Error = outcome(err, sent.Load()), errorText(err)
	}
	if op.Outcome == history.Unknown {
		op.Return = history.Never
	}
	c.rec.done(&op)
	return op
}

// Put writes a key, attached to a lease unless that is 0.
func (c *Client) Put(ctx context.Context, key, value string, lease int64) history.Operation {
	return c.Do(ctx, history.Operation{Kind: history.Put, Then: []history.Request{{Kind: history.Put, Key: key, Value: value, Lease: lease}}})
}

// Get reads a key, or all from key to end, as of now.
func (c *Client) Get(ctx context.Context, key, end string) history.Operation {
	return c.Do(ctx, history.Operation{Kind: history.Range, Then: []history.Request{{Kind: history.Range, Key: key, End: end}}})
}

// Delete removes a key, or all from key to end.
func (c *Client) Delete(ctx context.Context, key, end string) history.Operation {
	return c.Do(ctx, history.Operation{Kind: history.Delete, Then: []history.Request{{Kind: history.Delete, Key: key, End: end}}})
}

func (c *Client) ask(ctx context.Context, op *history.Operation) error {
	switch op.Kind {
	case history.Put, history.Delete, history.Range:
		if len(op.Then) != 1 || op.Then[0].Kind != op.Kind {
			return fmt.Errorf("%w: a %s wants one request of its kind", ErrOperation, op.Kind)
		}
		return c.one(ctx, op)
	case history.Txn:
		return c.txn(ctx, op)
	case history.LeaseGrant, history.LeaseRevoke, history.LeaseRenew, history.LeaseTTL:
		return c.ofLease(ctx, op)
	case history.Compact:
		_, err := c.kv.Compact(ctx, &pb.CompactionRequest{Revision: op.Revision})
		return err
	default:
		return fmt.Errorf("%w: %q", ErrOperation, op.Kind)
	}
}

// one asks a put, a delete or a range.
func (c *Client) one(ctx context.Context, op *history.Operation) error {
	q := &op.Then[0]
	switch q.Kind {
	case history.Put:
		r, err := c.kv.Put(ctx, putRequest(q))
		if err != nil {
			return err
		}
		op.Revision, op.Results = r.GetHeader().GetRevision(), []history.Result{putResult(r)}
	case history.Delete:
		r, err := c.kv.DeleteRange(ctx, deleteRequest(q))
		if err != nil {
			return err
		}
		op.Revision, op.Results = r.GetHeader().GetRevision(), []history.Result{deleteResult(r)}
	default:
		req := rangeRequest(q)
		req.Serializable = op.Serializable
		r, err := c.kv.Range(ctx, req)
		if err != nil {
			return err
		}
		op.Revision, op.Results = r.GetHeader().GetRevision(), []history.Result{rangeResult(r)}
	}
	return nil
}

func (c *Client) txn(ctx context.Context, op *history.Operation) error {
	req := &pb.TxnRequest{}
	for i := range op.If {
		cmp, err := compare(&op.If[i])
		if err != nil {
			return err
		}
		req.Compare = append(req.Compare, cmp)
	}
	var err error
	if req.Success, err = requests(op.Then); err != nil {
		return err
	}
	if req.Failure, err = requests(op.Else); err != nil {
		return err
	}
	r, err := c.kv.Txn(ctx, req)
	if err != nil {
		return err
	}
	op.Revision, op.Succeeded = r.GetHeader().GetRevision(), r.GetSucceeded()
	for _, one := range r.GetResponses() {
		switch {
		case one.GetResponsePut() != nil:
			op.Results = append(op.Results, putResult(one.GetResponsePut()))
		case one.GetResponseDeleteRange() != nil:
			op.Results = append(op.Results, deleteResult(one.GetResponseDeleteRange()))
		default:
			op.Results = append(op.Results, rangeResult(one.GetResponseRange()))
		}
	}
	return nil
}

func (c *Client) ofLease(ctx context.Context, op *history.Operation) error {
	switch op.Kind {
	case history.LeaseGrant:
		// The caller names the ID, so that a grant without an answer is known by it.
		r, err := c.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: op.Lease, TTL: op.TTL})
		if err != nil {
			return err
		}
		op.Lease, op.TTL, op.Revision = r.GetID(), r.GetTTL(), r.GetHeader().GetRevision()
	case history.LeaseRevoke:
		r, err := c.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: op.Lease})
		if err != nil {
			return err
		}
		op.Revision = r.GetHeader().GetRevision()
	case history.LeaseRenew:
		return c.renew(ctx, op)
	default:
		r, err := c.lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: op.Lease})
		if err != nil {
			return err
		}
		op.TTL, op.Revision = r.GetTTL(), r.GetHeader().GetRevision()
	}
	return nil
}

// renew asks once on a stream of its own.
func (c *Client) renew(ctx context.Context, op *history.Operation) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.lease.LeaseKeepAlive(ctx)
	if err != nil {
		return err
	}
	if err = stream.Send(&pb.LeaseKeepAliveRequest{ID: op.Lease}); err != nil {
		return err
	}
	r, err := stream.Recv()
	if err != nil {
		return err
	}
	op.TTL, op.Revision = r.GetTTL(), r.GetHeader().GetRevision()
	if op.TTL <= 0 {
		op.TTL = over
	}
	return nil
}
