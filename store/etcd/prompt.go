package etcd

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// prompt fails a call whose context has ended before it began. The client of an
// embedded server calls it directly, and the server may answer all the same.
type prompt struct {
	clientv3.KV
}

// Get implements clientv3.KV.
func (p prompt) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return p.KV.Get(ctx, key, opts...)
}

// Delete implements clientv3.KV.
func (p prompt) Delete(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.DeleteResponse, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return p.KV.Delete(ctx, key, opts...)
}

// Do implements clientv3.KV.
func (p prompt) Do(ctx context.Context, op clientv3.Op) (clientv3.OpResponse, error) {
	if err := ctx.Err(); err != nil {
		return clientv3.OpResponse{}, err
	}
	return p.KV.Do(ctx, op)
}

// Txn implements clientv3.KV.
func (p prompt) Txn(ctx context.Context) clientv3.Txn {
	return promptTxn{p.KV.Txn(ctx), ctx}
}

type promptTxn struct {
	clientv3.Txn
	ctx context.Context //nolint:containedctx // a Txn is one call, spread over methods
}

func (t promptTxn) If(cs ...clientv3.Cmp) clientv3.Txn { return promptTxn{t.Txn.If(cs...), t.ctx} }

func (t promptTxn) Then(ops ...clientv3.Op) clientv3.Txn { return promptTxn{t.Txn.Then(ops...), t.ctx} }

func (t promptTxn) Else(ops ...clientv3.Op) clientv3.Txn { return promptTxn{t.Txn.Else(ops...), t.ctx} }

// Commit implements clientv3.Txn.
func (t promptTxn) Commit() (*clientv3.TxnResponse, error) {
	if err := t.ctx.Err(); err != nil {
		return nil, err
	}
	return t.Txn.Commit()
}
