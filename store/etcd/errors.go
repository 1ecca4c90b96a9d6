package etcd

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/quorate/quorate/store"
)

// Errors of opening a store. Test with errors.Is.
var (
	// ErrInUse: another process has the store's data directory open.
	ErrInUse = errors.New("in use by another quorate server")
	// ErrStoreLost: there was a store, and its files are missing.
	ErrStoreLost = errors.New("the store's data is gone")
	// ErrCorrupt: the store's files are damaged.
	ErrCorrupt = errors.New("the store's files are damaged")
)

const restoreHint = "put its data directory back, or restore a backup with `quorate server restore`"

// mapError turns an error of etcd into one of package store.
func mapError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled),
		errors.Is(err, clientv3.ErrNoAvailableEndpoints):
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	case errors.Is(err, rpctypes.ErrRequestTooLarge), errors.Is(err, rpctypes.ErrGRPCRequestTooLarge):
		return fmt.Errorf("%w: the object is larger than etcd takes in one request (1.5 MiB): split it", store.ErrInvalid)
	case errors.Is(err, rpctypes.ErrNoSpace), errors.Is(err, rpctypes.ErrGRPCNoSpace):
		return fmt.Errorf("%w: its database has reached its quota: compact and defragment it, then disarm its alarm: %w", store.ErrUnavailable, err)
	}
	switch code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.ResourceExhausted:
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	case codes.PermissionDenied, codes.Unauthenticated:
		return fmt.Errorf("%w: %w", store.ErrForbidden, err)
	default:
		return err
	}
}

// code is err's gRPC code, whether it comes from the network or from etcd's client.
func code(err error) codes.Code {
	if own, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		return own.Code()
	}
	return status.Code(err)
}

// fail maps an error of a request, with the reason where the etcd in this process
// has failed.
func (s *Store) fail(err error) error {
	err = mapError(err)
	if cause := s.Failure(); cause != nil && errors.Is(err, store.ErrUnavailable) {
		return fmt.Errorf("%w (%w)", err, cause)
	}
	if s.life.Err() != nil && errors.Is(err, store.ErrUnavailable) {
		return fmt.Errorf("%w: it is closed", store.ErrUnavailable)
	}
	return err
}
