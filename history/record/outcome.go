package record

import (
	"context"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/quorate/quorate/history"
)

// tooMany is what etcd says before it proposes anything. The other refusal of its
// kind, a full database, may come after the change was made.
const tooMany = "etcdserver: too many requests"

// outcome of a call that ended with an error.
func outcome(err error, sent bool) history.Outcome {
	if !sent {
		return history.Failed
	}
	s, ok := status.FromError(err)
	if !ok {
		return history.Unknown
	}
	switch s.Code() {
	case codes.InvalidArgument, codes.OutOfRange, codes.NotFound, codes.FailedPrecondition,
		codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented:
		// etcd answers these before it has changed anything: what was asked is malformed,
		// compacted, in the future, of a lease that is not there, or not allowed.
		return history.Failed
	case codes.ResourceExhausted:
		if strings.Contains(s.Message(), tooMany) {
			return history.Failed
		}
	default:
	}
	return history.Unknown
}

// errorText is an error without the wrapping of gRPC.
func errorText(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}

// sentKey is where a call's context holds whether it was sent.
type sentKey struct{}

// noteSent returns a context whose call sets sent once its request is on its way.
func noteSent(ctx context.Context) (_ context.Context, sent *atomic.Bool) {
	sent = &atomic.Bool{}
	return context.WithValue(ctx, sentKey{}, sent), sent
}

// sentHandler hears from the transport that a request was handed over to it. What
// never was has not happened, whatever the error says.
type sentHandler struct{}

// TagRPC implements stats.Handler.
func (sentHandler) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements stats.Handler.
func (sentHandler) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.OutPayload); !ok {
		return
	}
	if sent, ok := ctx.Value(sentKey{}).(*atomic.Bool); ok {
		sent.Store(true)
	}
}

// TagConn implements stats.Handler.
func (sentHandler) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (sentHandler) HandleConn(context.Context, stats.ConnStats) {}
