package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// ErrStranger says that an endpoint is none of the cluster's.
var ErrStranger = errors.New("the cluster has no such endpoint")

// Snapshot streams the member's database, with the SHA-256 of all of it behind it,
// to w: some 32 KiB a write. It holds a read transaction of the member's database
// for as long as it lasts, so a slow w makes the member's file grow.
func (o *Observer) Snapshot(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithCancel(o.outgoing(ctx))
	defer cancel() // a stream that is not read to its end would hold the transaction
	stream, err := pb.NewMaintenanceClient(o.client.ActiveConnection()).Snapshot(ctx, &pb.SnapshotRequest{})
	if err != nil {
		return o.failed("snapshot of", err)
	}
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return o.failed("snapshot of", err)
		}
		if _, err = w.Write(part.GetBlob()); err != nil {
			return fmt.Errorf("snapshot of %s: %w", o.target.Endpoint, err)
		}
	}
}

// Snapshot streams the database of the member at an endpoint that the latest survey
// has found; see Observer.Snapshot. It has a connection of its own.
func (s *Surveyor) Snapshot(ctx context.Context, endpoint string, w io.Writer) (err error) {
	s.mu.Lock()
	l := s.lines[endpoint]
	if l == nil || !slices.Contains(s.endpoints(), endpoint) {
		s.mu.Unlock()
		return fmt.Errorf("snapshot of %s: %w", endpoint, ErrStranger)
	}
	target, token := l.target, s.token()
	s.mu.Unlock()
	o, err := Observe(target)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	o.UseToken(token)
	return o.Snapshot(ctx, w)
}
