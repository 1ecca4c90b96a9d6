// Package etcd is a thin layer on etcd's client: pooled connections to single
// members, and the few calls that observe and steer a cluster. Every call takes a
// deadline from its context, since clientv3 connects in the background and some
// calls never return by themselves on a dead endpoint.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ID is a member's or cluster's ID. Its text is hex without leading zeros, as
// etcdctl prints it.
type ID uint64

// String is the ID in hex.
func (id ID) String() string { return strconv.FormatUint(uint64(id), 16) }

// ParseID reads an ID from hex; empty gives 0.
func ParseID(s string) (ID, error) {
	if s == "" {
		return 0, nil
	}
	v, err := strconv.ParseUint(s, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("etcd ID %q is not a hexadecimal number of at most 16 digits", s)
	}
	return ID(v), nil
}

// Target is one member to talk to.
type Target struct {
	// Endpoint is its client URL.
	Endpoint string
	// TLS for https endpoints. Configurations are compared by pointer: keep one for
	// as long as it is valid.
	TLS *tls.Config
}

// Status is what a member says of itself.
type Status struct {
	ClusterID    ID
	MemberID     ID
	Leader       ID
	Term         uint64
	Index        uint64
	AppliedIndex uint64
	Revision     int64
	DBSize       int64
	DBSizeInUse  int64
	// DBQuota is the size at which it stops taking writes; 0 before 3.6, which does
	// not tell.
	DBQuota int64
	Version string
	Learner bool
	// Errors that the member reports, such as NOSPACE.
	Errors []string
}

// Member is a member as the cluster lists it.
type Member struct {
	ID         ID
	Name       string
	PeerURLs   []string
	ClientURLs []string
	Learner    bool
}

// Alarm raised by a member.
type Alarm struct {
	Member ID
	// Type is NOSPACE or CORRUPT.
	Type string
}

// How a member's status spells an alarm. A member of 0 is left out, and
// so are spaces, at random, since it is the debug form of a protobuf message.
var (
	alarmType   = regexp.MustCompile(`alarm:\s*(NOSPACE|CORRUPT)`)
	alarmMember = regexp.MustCompile(`memberID:\s*(\d+)`)
)

// Alarms are those among the errors. Etcd's own list of them is an entry of the raft
// log.
func (s Status) Alarms() []Alarm {
	var alarms []Alarm
	for _, text := range s.Errors {
		if kind := alarmType.FindStringSubmatch(text); kind != nil {
			a := Alarm{Type: kind[1]}
			if m := alarmMember.FindStringSubmatch(text); m != nil {
				id, _ := strconv.ParseUint(m[1], 10, 64) // digits
				a.Member = ID(id)
			}
			alarms = append(alarms, a)
		}
	}
	return alarms
}

// Pool keeps one connection to each target, and drops those unused for a while.
type Pool struct {
	mu    sync.Mutex
	conns map[Target]*clientv3.Client
	used  map[Target]time.Time
	swept time.Time
}

// unused is how long a connection is kept without being asked for.
const unused = 5 * time.Minute

// sweep drops what nobody asks for any more: members that were deleted.
func (p *Pool) sweep(now time.Time) {
	if now.Sub(p.swept) < time.Minute {
		return
	}
	p.swept = now
	for target, c := range p.conns {
		if now.Sub(p.used[target]) > unused {
			_ = c.Close() // Nobody reads from it any more.
			delete(p.conns, target)
			delete(p.used, target)
		}
	}
}

// NewPool returns an empty pool.
func NewPool() *Pool {
	return &Pool{conns: map[Target]*clientv3.Client{}, used: map[Target]time.Time{}}
}

// Close closes every connection.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	errs := make([]error, 0, len(p.conns))
	for target, c := range p.conns {
		errs = append(errs, c.Close())
		delete(p.conns, target)
	}
	return errors.Join(errs...)
}

// Forget closes the connections to an endpoint.
func (p *Pool) Forget(endpoint string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for target, c := range p.conns {
		if target.Endpoint == endpoint {
			_ = c.Close() // Nobody reads from it any more.
			delete(p.conns, target)
		}
	}
}

// Client returns the pooled client of a target.
func (p *Pool) Client(target Target) (*clientv3.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.used[target] = now
	p.sweep(now)
	if c, ok := p.conns[target]; ok {
		return c, nil
	}
	// Another configuration for the same endpoint means that the old one has expired.
	for old, c := range p.conns {
		if old.Endpoint == target.Endpoint {
			_ = c.Close() // Nobody reads from it any more.
			delete(p.conns, old)
		}
	}
	c, err := Dial(target)
	if err != nil {
		return nil, err
	}
	p.conns[target] = c
	return c, nil
}

// Dial returns a client of one member. It connects in the background: errors of
// the connection come from the calls made on it.
func Dial(targets ...Target) (*clientv3.Client, error) { return dial(0, nil, targets...) }

// dial lets a call be tried so often; 0 is the client's own choice, which tries one
// whose token is refused over and over until its time is up.
func dial(tries uint, more []grpc.DialOption, targets ...Target) (*clientv3.Client, error) {
	if len(targets) == 0 {
		return nil, errors.New("dial etcd: no endpoint")
	}
	endpoints := make([]string, 0, len(targets))
	for _, t := range targets {
		endpoints = append(endpoints, t.Endpoint)
	}
	options := []grpc.DialOption{
		// A member that comes back is to be seen within a second, not after gRPC's
		// two minutes.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		}),
	}
	if t := targets[0].TLS; t != nil && t.ServerName != "" {
		// The client would look for the URL's host in the certificate all the same.
		options = append(options, grpc.WithAuthority(t.ServerName))
	}
	c, err := clientv3.New(clientv3.Config{
		Endpoints:            endpoints,
		TLS:                  targets[0].TLS,
		MaxUnaryRetries:      tries,
		DialTimeout:          2 * time.Second,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		Logger:               zap.NewNop(),
		DialOptions:          append(options, more...),
	})
	if err != nil {
		return nil, fmt.Errorf("dial etcd at %s: %w", strings.Join(endpoints, ","), err)
	}
	return c, nil
}

// Status asks one member what it is. It uses the pooled connection, where
// clientv3.Status would dial anew each time.
func (p *Pool) Status(ctx context.Context, target Target) (Status, error) {
	c, err := p.Client(target)
	if err != nil {
		return Status{}, err
	}
	r, err := pb.NewMaintenanceClient(c.ActiveConnection()).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		return Status{}, callError("status of", target, err)
	}
	return statusOf(r), nil
}

func statusOf(r *pb.StatusResponse) Status {
	return Status{
		ClusterID: ID(r.GetHeader().GetClusterId()), MemberID: ID(r.GetHeader().GetMemberId()),
		Leader: ID(r.GetLeader()), Term: r.GetRaftTerm(), Index: r.GetRaftIndex(), AppliedIndex: r.GetRaftAppliedIndex(),
		Revision: r.GetHeader().GetRevision(), DBSize: r.GetDbSize(), DBSizeInUse: r.GetDbSizeInUse(), DBQuota: r.GetDbSizeQuota(),
		Version: r.GetVersion(), Learner: r.GetIsLearner(), Errors: r.GetErrors(),
	}
}

// Members lists the cluster's members, linearizably.
func (p *Pool) Members(ctx context.Context, target Target) ([]Member, error) {
	c, err := p.Client(target)
	if err != nil {
		return nil, err
	}
	r, err := c.MemberList(ctx)
	if err != nil {
		return nil, callError("members from", target, err)
	}
	return membersOf(r), nil
}

func membersOf(r *clientv3.MemberListResponse) []Member {
	members := make([]Member, 0, len(r.Members))
	for _, m := range r.Members {
		members = append(members, Member{
			ID: ID(m.GetID()), Name: m.GetName(), PeerURLs: m.GetPeerURLs(), ClientURLs: m.GetClientURLs(), Learner: m.GetIsLearner(),
		})
	}
	return members
}

// LocalMembers lists the members as the target knows them, which needs no leader.
func (p *Pool) LocalMembers(ctx context.Context, target Target) ([]Member, error) {
	c, err := p.Client(target)
	if err != nil {
		return nil, err
	}
	r, err := c.MemberList(ctx, clientv3.WithSerializable())
	if err != nil {
		return nil, callError("members from", target, err)
	}
	return membersOf(r), nil
}

// Alarms lists the alarms raised in the cluster.
func (p *Pool) Alarms(ctx context.Context, target Target) ([]Alarm, error) {
	c, err := p.Client(target)
	if err != nil {
		return nil, err
	}
	r, err := c.AlarmList(ctx)
	if err != nil {
		return nil, callError("alarms from", target, err)
	}
	alarms := make([]Alarm, 0, len(r.Alarms))
	for _, a := range r.Alarms {
		alarms = append(alarms, Alarm{Member: ID(a.GetMemberID()), Type: a.GetAlarm().String()})
	}
	return alarms, nil
}

// MoveLeader asks the leader to hand leadership to the member with that ID.
func (p *Pool) MoveLeader(ctx context.Context, leader Target, to ID) error {
	c, err := p.Client(leader)
	if err != nil {
		return err
	}
	if _, err := c.MoveLeader(ctx, uint64(to)); err != nil {
		return callError("move leader to "+to.String()+" by", leader, err)
	}
	return nil
}

// ErrRefused says that nothing listens at an endpoint. It is an answer, unlike
// silence.
var ErrRefused = errors.New("connection refused")

func callError(what string, target Target, err error) error {
	if strings.Contains(err.Error(), ErrRefused.Error()) {
		return fmt.Errorf("%s %s: %w: %w", what, target.Endpoint, ErrRefused, err)
	}
	// Codes tell more than gRPC's wrapping: "connection refused" is in the message.
	if s, ok := status.FromError(err); ok && s.Code() != codes.Unknown {
		return fmt.Errorf("%s %s: %s: %w", what, target.Endpoint, strings.ToLower(s.Code().String()), err)
	}
	return fmt.Errorf("%s %s: %w", what, target.Endpoint, err)
}
