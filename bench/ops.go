package bench

import (
	"bytes"
	"errors"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func (c *client) doPut() (bool, error) {
	n := c.pick.draw(c.rand)
	c.key = c.keyOf(c.key, n)
	c.wire.put(c.key, c.value())
	var answer any = &c.unread
	if c.space.revisions != nil {
		answer = &c.revision
	}
	if err := c.invoke(pb.KV_Put_FullMethodName, answer); err != nil {
		return false, err
	}
	c.wrote(n, c.revision.revision)
	return false, nil
}

// invoke sends the encoded request.
func (c *client) invoke(method string, answer any) error {
	err := c.conn.Invoke(c.ctx, method, &c.wire, answer)
	if err != nil {
		c.wire.wire = nil // gRPC may still be writing it
	}
	return err
}

func (c *client) doDelete() (bool, error) {
	n := c.pick.draw(c.rand)
	c.key = c.keyOf(c.key, n)
	var answer pb.DeleteRangeResponse
	if err := c.conn.Invoke(c.ctx, pb.KV_DeleteRange_FullMethodName, &pb.DeleteRangeRequest{Key: c.key}, &answer); err != nil {
		return false, err
	}
	if c.space.revisions != nil {
		c.space.revisions[n].Store(0)
	}
	return answer.GetDeleted() == 0, nil
}

// aim sets key and end to the next keys of a range.
func (c *client) aim() {
	n := min(c.pick.draw(c.rand), c.s.spec.Keys-c.s.spec.RangeKeys)
	c.key, c.end = c.keyOf(c.key, n), c.end[:0]
	if c.s.spec.RangeKeys > 1 {
		// The end is narrow: with a limit alone, etcd would count all keys behind it.
		c.end = appendDigits(append(append(c.end, c.space.prefix...), 'k'), n+c.s.spec.RangeKeys, keyDigits)
	}
}

func (c *client) doRange() (bool, error) {
	c.aim()
	c.wire.read(c.key, c.end, false)
	return false, c.invoke(pb.KV_Range_FullMethodName, &c.unread)
}

func (c *client) doSerializable() (bool, error) {
	c.aim()
	c.wire.read(c.key, c.end, true)
	return false, c.invoke(pb.KV_Range_FullMethodName, &c.unread)
}

func (c *client) doStream() (bool, error) {
	c.aim()
	stream, err := pb.NewKVClient(c.conn).RangeStream(c.ctx, &pb.RangeRequest{Key: c.key, RangeEnd: c.end})
	if err != nil {
		return false, err
	}
	for {
		if _, err = stream.Recv(); errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
}

// compare that a key is as it was at a revision; 0 where it was not there.
func compare(key []byte, revision int64) *pb.Compare {
	return &pb.Compare{
		Key: key, Target: pb.Compare_MOD, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_ModRevision{ModRevision: revision},
	}
}

func requestPut(key, value []byte, lease int64) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: value, Lease: lease}}}
}

func requestRange(key []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}
}

func requestDelete(key []byte) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key}}}
}

func (c *client) txn(t *pb.TxnRequest) (*pb.TxnResponse, error) {
	var answer pb.TxnResponse
	if err := c.conn.Invoke(c.ctx, pb.KV_Txn_FullMethodName, t, &answer); err != nil {
		return nil, err
	}
	return &answer, nil
}

// doCAS writes a key if it is at the revision last seen here, and else reads it.
func (c *client) doCAS() (bool, error) {
	n := c.pick.draw(c.rand)
	c.key = c.keyOf(c.key, n)
	known := &c.space.revisions[n]
	answer, err := c.txn(&pb.TxnRequest{
		Compare: []*pb.Compare{compare(c.key, known.Load())},
		Success: []*pb.RequestOp{requestPut(c.key, c.value(), 0)},
		Failure: []*pb.RequestOp{requestRange(c.key)},
	})
	if err != nil {
		return false, err
	}
	if answer.GetSucceeded() {
		c.wrote(n, answer.GetHeader().GetRevision())
		return false, nil
	}
	now := int64(0)
	if r := answer.GetResponses(); len(r) == 1 && len(r[0].GetResponseRange().GetKvs()) == 1 {
		now = r[0].GetResponseRange().GetKvs()[0].GetModRevision()
	}
	known.Store(now)
	return true, nil
}

// doTxn writes every second of some neighbouring keys, and reads the others.
func (c *client) doTxn() (bool, error) {
	n := min(c.pick.draw(c.rand), c.s.spec.Keys-c.s.spec.TxnOps)
	t := &pb.TxnRequest{Success: make([]*pb.RequestOp, 0, c.s.spec.TxnOps)}
	for i := range c.s.spec.TxnOps {
		key := c.keyOf(nil, n+i)
		if i%2 == 0 {
			t.Success = append(t.Success, requestPut(key, c.value(), 0))
		} else {
			t.Success = append(t.Success, requestRange(key))
		}
	}
	answer, err := c.txn(t)
	if err != nil {
		return false, err
	}
	for i := 0; i < c.s.spec.TxnOps; i += 2 {
		c.wrote(n+i, answer.GetHeader().GetRevision())
	}
	return false, nil
}

// mostLeases that a client holds; the oldest goes where a mix only grants.
const mostLeases = 1000

func (c *client) doGrant() (bool, error) {
	var granted pb.LeaseGrantResponse
	if err := c.conn.Invoke(c.ctx, pb.Lease_LeaseGrant_FullMethodName, &pb.LeaseGrantRequest{TTL: c.s.spec.LeaseTTL}, &granted); err != nil {
		return false, err
	}
	id := granted.GetID()
	c.leases = append(c.leases, id)
	if len(c.leases) > mostLeases {
		c.leases = c.leases[1:] // it ends with its TTL
	}
	if c.s.spec.LeaseKeys == 0 {
		return false, nil
	}
	t := &pb.TxnRequest{}
	for i := range c.s.spec.LeaseKeys {
		key := c.ownKey("l", i)
		t.Success = append(t.Success, requestPut(key, c.value(), id))
	}
	answer, err := c.txn(t)
	if err != nil {
		return false, err
	}
	for range c.s.spec.LeaseKeys {
		c.wrote(-1, answer.GetHeader().GetRevision())
	}
	return false, nil
}

// ownKey is one that no other client writes.
func (c *client) ownKey(kind string, number int) []byte {
	key := append(bytes.Clone(c.space.prefix), kind...)
	key = append(appendDigits(key, c.s.generation, 3), '-')
	key = appendDigits(key, c.id, 6)
	key = append(key, '-')
	return appendDigits(key, number, keyDigits)
}

// doKeepAlive renews a lease; where there is none yet, it grants one first.
func (c *client) doKeepAlive() (bool, error) {
	if len(c.leases) == 0 {
		if _, err := c.doGrant(); err != nil {
			return false, err
		}
	}
	if c.keeper == nil {
		stream, err := pb.NewLeaseClient(c.conn).LeaseKeepAlive(c.ctx)
		if err != nil {
			return false, err
		}
		c.keeper = stream
	}
	i := c.rand.IntN(len(c.leases))
	if err := c.keeper.Send(&pb.LeaseKeepAliveRequest{ID: c.leases[i]}); err != nil {
		return false, c.lostKeeper(err)
	}
	answer, err := c.keeper.Recv()
	if err != nil {
		return false, c.lostKeeper(err)
	}
	if answer.GetTTL() <= 0 { // it has ended
		c.leases = append(c.leases[:i], c.leases[i+1:]...)
		return true, nil
	}
	return false, nil
}

// lostKeeper finds out why the stream broke: Send says only that it did.
func (c *client) lostKeeper(err error) error {
	if errors.Is(err, io.EOF) {
		if _, recvErr := c.keeper.Recv(); recvErr != nil {
			err = recvErr
		}
	}
	c.keeper = nil
	return err
}

func (c *client) doRevoke() (bool, error) {
	if len(c.leases) == 0 {
		if _, err := c.doGrant(); err != nil {
			return false, err
		}
	}
	id := c.leases[0]
	c.leases = c.leases[1:]
	var answer pb.LeaseRevokeResponse
	return false, c.conn.Invoke(c.ctx, pb.Lease_LeaseRevoke_FullMethodName, &pb.LeaseRevokeRequest{ID: id}, &answer)
}

func (c *client) doGet() (bool, error) {
	c.key = c.keyOf(c.key, c.pick.draw(c.rand))
	c.wire.read(c.key, nil, false)
	return false, c.invoke(pb.KV_Range_FullMethodName, &c.unread)
}

// doList reads the namespace in pages, all at the revision of the first.
func (c *client) doList() (bool, error) {
	end := prefixEnd(c.space.prefix)
	key := bytes.Clone(c.space.prefix)
	revision := int64(0)
	for {
		var page pb.RangeResponse
		request := &pb.RangeRequest{Key: key, RangeEnd: end, Limit: int64(c.s.spec.PageSize), Revision: revision}
		if err := c.conn.Invoke(c.ctx, pb.KV_Range_FullMethodName, request, &page); err != nil {
			return false, err
		}
		kvs := page.GetKvs()
		if !page.GetMore() || len(kvs) == 0 {
			return false, nil
		}
		key = append(bytes.Clone(kvs[len(kvs)-1].GetKey()), 0)
		if revision == 0 {
			revision = page.GetHeader().GetRevision()
		}
	}
}

// mostChurn is how many objects of its own a client has at a time.
const mostChurn = 100

func (c *client) doCreate() (bool, error) {
	if len(c.churn) >= mostChurn {
		if _, err := c.doRemove(); err != nil {
			return false, err
		}
	}
	key := c.ownKey("n", c.created)
	c.created++
	answer, err := c.txn(&pb.TxnRequest{
		Compare: []*pb.Compare{compare(key, 0)},
		Success: []*pb.RequestOp{requestPut(key, c.value(), 0)},
	})
	if err != nil {
		return false, err
	}
	if !answer.GetSucceeded() {
		return true, nil
	}
	c.wrote(-1, answer.GetHeader().GetRevision())
	c.churn = append(c.churn, string(key))
	return false, nil
}

// doRemove reads its oldest object, and deletes it if it is unchanged.
func (c *client) doRemove() (bool, error) {
	if len(c.churn) == 0 {
		if _, err := c.doCreate(); err != nil {
			return false, err
		}
	}
	if len(c.churn) == 0 {
		return true, nil
	}
	key := []byte(c.churn[0])
	c.churn = c.churn[1:]
	var found pb.RangeResponse
	if err := c.conn.Invoke(c.ctx, pb.KV_Range_FullMethodName, &pb.RangeRequest{Key: key}, &found); err != nil {
		return false, err
	}
	kvs := found.GetKvs()
	if len(kvs) == 0 {
		return true, nil
	}
	answer, err := c.txn(&pb.TxnRequest{
		Compare: []*pb.Compare{compare(key, kvs[0].GetModRevision())},
		Success: []*pb.RequestOp{requestDelete(key)},
		Failure: []*pb.RequestOp{requestRange(key)},
	})
	if err != nil {
		return false, err
	}
	return !answer.GetSucceeded(), nil
}

// prefixEnd is the key behind all that begin with a prefix.
func prefixEnd(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return []byte{0}
}
