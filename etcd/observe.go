package etcd

import (
	"context"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// What a member says to a call that it does not carry out. They tell causes apart
// where a text would have to be searched.
var (
	// ErrLoginWanted: authentication is on, and no user was named.
	ErrLoginWanted = errors.New("etcd wants a user name and a password")
	// ErrLoginFailed: the name or the password is wrong.
	ErrLoginFailed = errors.New("etcd does not know this user name and password")
	// ErrTokenRefused: the login has lapsed, or users were changed since.
	ErrTokenRefused = errors.New("etcd does not take this login any more")
	// ErrNoAuth: authentication is off, so nobody can log in.
	ErrNoAuth = errors.New("authentication is off in this cluster")
	// ErrNoUser: authentication is on, and the client certificate names no user.
	ErrNoUser = errors.New("etcd has no user of the client certificate's name")
	// ErrDenied: the user may not do this.
	ErrDenied = errors.New("permission denied")
	// ErrCompacted: the history of that revision was compacted away.
	ErrCompacted = errors.New("the revision was compacted")
	// ErrNoLeader: the member follows no leader.
	ErrNoLeader = errors.New("the member knows no leader")
	// ErrLearner: a learner does not answer this.
	ErrLearner = errors.New("a learner does not answer this")
)

// Observer asks one member without writing anything: no call of it enters the raft
// log, save Login. That is why alarms are read from Status: etcd's own list of
// alarms is a raft entry, as AuthStatus is.
type Observer struct {
	target Target
	client *clientv3.Client
	token  string
}

// Observe connects to a member in the background. Close it.
func Observe(target Target) (*Observer, error) { return observe(target) }

func observe(target Target, more ...grpc.DialOption) (*Observer, error) {
	// Who logs in by itself writes: Login is called where it is meant.
	c, err := dial(1, more, Target{Endpoint: target.Endpoint, TLS: target.TLS})
	if err != nil {
		return nil, err
	}
	return &Observer{target: target, client: c}, nil
}

// Close ends the connection.
func (o *Observer) Close() error { return o.client.Close() }

// UseToken makes later calls with the token of a login.
func (o *Observer) UseToken(token string) { o.token = token }

func (o *Observer) outgoing(ctx context.Context) context.Context {
	if o.token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, o.token)
}

// Login exchanges a name and a password for a token, which every member of the
// cluster takes. It is an entry of the raft log, as every client's login is, and
// changes no data.
func (o *Observer) Login(ctx context.Context, name, password string) (string, error) {
	r, err := pb.NewAuthClient(o.client.ActiveConnection()).Authenticate(ctx, &pb.AuthenticateRequest{Name: name, Password: password})
	if err != nil {
		return "", o.failed("log in at", err)
	}
	return r.GetToken(), nil
}

// Status asks the member what it is.
func (o *Observer) Status(ctx context.Context) (Status, error) {
	r, err := pb.NewMaintenanceClient(o.client.ActiveConnection()).Status(o.outgoing(ctx), &pb.StatusRequest{})
	if err != nil {
		return Status{}, o.failed("status of", err)
	}
	return statusOf(r), nil
}

// LocalMembers lists the members as this one knows them, which needs no leader.
func (o *Observer) LocalMembers(ctx context.Context) ([]Member, error) {
	r, err := pb.NewClusterClient(o.client.ActiveConnection()).MemberList(o.outgoing(ctx), &pb.MemberListRequest{Linearizable: false})
	if err != nil {
		return nil, o.failed("members from", err)
	}
	return membersOf((*clientv3.MemberListResponse)(r)), nil
}

// Read says how one small read is done.
type Read struct {
	// Key that is read; it need not exist.
	Key string
	// Revision to read at; 0 is the latest.
	Revision int64
	// Serializable reads are answered from the member's own data, without a quorum.
	// Others fail at once at a member that knows no leader.
	Serializable bool
}

// Read reads one key and forgets what it holds.
func (o *Observer) Read(ctx context.Context, read Read) error {
	ctx = o.outgoing(ctx)
	if !read.Serializable {
		ctx = clientv3.WithRequireLeader(ctx)
	}
	_, err := pb.NewKVClient(o.client.ActiveConnection()).Range(ctx, &pb.RangeRequest{
		Key: []byte(read.Key), Revision: read.Revision, Serializable: read.Serializable, KeysOnly: true, Limit: 1,
	})
	if err != nil {
		return o.failed("read from", err)
	}
	return nil
}

// failed makes an error that errors.Is tells apart by what the member meant.
func (o *Observer) failed(what string, err error) error {
	told := rpctypes.Error(err)
	for _, known := range []struct{ from, to error }{
		{rpctypes.ErrUserEmpty, ErrLoginWanted},
		{rpctypes.ErrAuthFailed, ErrLoginFailed},
		{rpctypes.ErrInvalidAuthToken, ErrTokenRefused},
		{rpctypes.ErrAuthOldRevision, ErrTokenRefused},
		{rpctypes.ErrAuthNotEnabled, ErrNoAuth},
		{rpctypes.ErrPermissionDenied, ErrDenied},
		// A certificate's name stands for a user.
		{rpctypes.ErrUserNotFound, ErrNoUser},
		{rpctypes.ErrCompacted, ErrCompacted},
		{rpctypes.ErrNoLeader, ErrNoLeader},
		{rpctypes.Error(rpctypes.ErrGRPCNotSupportedForLearner), ErrLearner},
	} {
		if errors.Is(told, known.from) {
			return fmt.Errorf("%s %s: %w", what, o.target.Endpoint, known.to)
		}
	}
	return callError(what, o.target, err)
}
