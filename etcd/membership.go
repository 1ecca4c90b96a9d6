package etcd

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// AddLearner makes whoever serves peers at that URL a member that does not vote. One that
// is a member already, learner or voter, is left as it is: the call may be repeated.
//
// Etcd refuses it while a member is down or has just been started ("unhealthy cluster"),
// while a learner is there ("too many learner members in cluster"), and while a member
// that was added has never started ("not enough started members"). All of these pass.
func (p *Pool) AddLearner(ctx context.Context, target Target, peerURL string) error {
	return p.change(target, "add "+peerURL+" to the members through", rpctypes.ErrPeerURLExist, func(c *clientv3.Client) error {
		_, err := c.MemberAddAsLearner(ctx, []string{peerURL})
		return err
	})
}

// Promote makes a learner a voter; one that votes already is left as it is. Etcd only asks
// how far the learner's log once was, not whether it is alive: ask that before.
func (p *Pool) Promote(ctx context.Context, target Target, id ID) error {
	return p.change(target, "promote "+id.String()+" through", rpctypes.ErrMemberNotLearner, func(c *clientv3.Client) error {
		_, err := c.MemberPromote(ctx, uint64(id))
		return err
	})
}

// Remove takes a member out of the cluster for good; one that is gone already is no error.
func (p *Pool) Remove(ctx context.Context, target Target, id ID) error {
	return p.change(target, "remove "+id.String()+" through", rpctypes.ErrMemberNotFound, func(c *clientv3.Client) error {
		_, err := c.MemberRemove(ctx, uint64(id))
		return err
	})
}

// change makes one change of the members; done is etcd's word for one that was made before.
func (p *Pool) change(target Target, what string, done error, call func(*clientv3.Client) error) error {
	c, err := p.Client(target)
	if err != nil {
		return err
	}
	if err = call(c); err == nil || errors.Is(err, done) {
		return nil
	}
	return callError(what, target, err)
}
