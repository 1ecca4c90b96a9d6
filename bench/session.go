package bench

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"github.com/quorate/quorate/etcd"
)

// ErrForeign says that the prefix holds keys that are not of this run.
var ErrForeign = errors.New("the prefix is not empty")

// ErrNobody says that no endpoint can take the load.
var ErrNobody = errors.New("no endpoint can be used")

// newPrefixForm is what a prefix looks like that a run makes for itself.
const newPrefixForm = runsBelow + "00000000/"

// runsBelow is where all prefixes lie that runs make for themselves.
const runsBelow = "/quorate-bench/"

// Options of a run beside its Spec.
type Options struct {
	// Progress hears what goes on, each two seconds and at every change of phase; nil
	// for nobody. It must not block.
	Progress func(Progress)
	// Abandon ends cleaning up when it is closed: keys are left then.
	Abandon <-chan struct{}
	Logger  *slog.Logger
}

// Phases of a run.
const (
	PhaseConnect = "connect"
	PhaseLoad    = "load keys"
	PhaseRamp    = "ramp"
	PhaseWarmUp  = "warm-up"
	PhaseRun     = "run"
	PhaseDrain   = "drain"
	PhaseCleanup = "clean up"
	// PhaseNote is something that whoever waits should know at once.
	PhaseNote = "note"
)

// Progress is where a run stands.
type Progress struct {
	Phase string `json:"phase"`
	// Done and Of are seconds of a run, or keys.
	Done float64 `json:"done"`
	Of   float64 `json:"of,omitempty"`
	// Step is the latest of the series while it runs.
	Step Slice `json:"step,omitzero"`
	// Note is what else is to be said.
	Note string `json:"note,omitempty"`
}

// member is an endpoint that is used.
type member struct {
	endpoint string
	status   *pb.StatusResponse
}

// session is a connected load: its connections and its keys. One session may run
// several loads, one after another.
type session struct {
	spec   Spec
	opts   Options
	dialer *dialer
	conns  []*grpc.ClientConn
	// members that are used, notes about those that are not.
	members []member
	notes   []string
	spaces  []space
	pool    []byte
	// instance marks the values of this run.
	instance uint64

	// Of the load that runs now, which is number generation.
	generation int

	rec  *recorder
	runs []runner
	ops  []Operation
	mix  *mixer
	// calls is the context of all requests; it outlives the end of the load.
	calls context.Context //nolint:containedctx // ended by its own cancel, after the last request
	left  atomic.Int64

	// granted leases are revoked at the end.
	granted  []int64
	watching *watching
	marker   marker
}

// poolSize is that of the bytes that values are cut from.
const poolSize = 4 << 20

// open connects, checks that the prefix is free, and writes the keys that are to be
// read. The spec must be complete.
func open(ctx context.Context, spec Spec, o Options) (*session, error) {
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &session{spec: spec, opts: o}
	var err error
	if s.dialer, err = newDialer(&spec); err != nil {
		return nil, err
	}
	o.Progress(Progress{Phase: PhaseConnect, Note: strings.Join(spec.Endpoints, ", ")})
	if err = s.connect(ctx); err != nil {
		s.hangUp()
		return nil, err
	}
	if err = s.claim(ctx); err != nil {
		s.hangUp()
		return nil, err
	}
	s.lookBack(ctx)
	s.mark(ctx)
	s.prepare()
	if s.spec.preloads() {
		if err = s.preload(ctx); err != nil {
			s.close(ctx)
			return nil, err
		}
	}
	return s, nil
}

// Member is an endpoint as a plan shows it.
type Member struct {
	Endpoint string `json:"endpoint"`
	ID       string `json:"id"`
	Version  string `json:"version"`
	Leader   bool   `json:"leader"`
	DBSize   int64  `json:"dbSize"`
}

// Look connects as a run would, and writes nothing. Notes are about endpoints that a
// run would not use.
func Look(ctx context.Context, spec Spec) (members []Member, notes []string, err error) {
	spec = spec.Clone()
	if err = spec.Complete(); err != nil {
		return nil, nil, err
	}
	s := &session{spec: spec, opts: Options{Progress: func(Progress) {}}}
	if s.dialer, err = newDialer(&spec); err != nil {
		return nil, nil, err
	}
	defer s.hangUp()
	if err = s.connect(ctx); err != nil {
		return nil, nil, err
	}
	for _, m := range s.members {
		id := m.status.GetHeader().GetMemberId()
		members = append(members, Member{
			Endpoint: m.endpoint, ID: etcd.ID(id).String(), Version: m.status.GetVersion(), Leader: m.status.GetLeader() == id, DBSize: m.status.GetDbSize(),
		})
	}
	return members, s.notes, nil
}

func (s *session) hangUp() {
	for _, c := range s.conns {
		_ = c.Close() // nobody waits for its answers
	}
}

// connectTime bounds how long an endpoint may take to answer at first.
const connectTime = 5 * time.Second

// connect finds out which endpoints serve, and connects to those.
func (s *session) connect(ctx context.Context) error {
	type answer struct {
		member

		conn *grpc.ClientConn
		err  error
	}
	answers := make([]answer, len(s.spec.Endpoints))
	var wg sync.WaitGroup
	for i, e := range s.spec.Endpoints {
		wg.Go(func() {
			a := &answers[i]
			a.endpoint = e
			if a.conn, a.err = s.dialer.dial(e); a.err == nil {
				a.status, a.err = s.greet(ctx, e, a.conn)
			}
		})
	}
	wg.Wait()
	var first error
	for _, a := range answers {
		if a.conn != nil {
			_ = a.conn.Close() // those of the load are made below
		}
		switch {
		case a.err != nil:
			first = errors.Join(first, fmt.Errorf("%s: %w", a.endpoint, a.err))
			s.notes = append(s.notes, fmt.Sprintf("%s is not used: %v", a.endpoint, a.err))
		case a.status.GetIsLearner():
			s.notes = append(s.notes, a.endpoint+" is not used: it is a learner, which serves no load")
		default:
			s.members = append(s.members, a.member)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(s.members) == 0 {
		return fmt.Errorf("%w: %w", ErrNobody, cmpErr(first, errors.New(strings.Join(s.notes, "; "))))
	}
	for _, m := range s.members[1:] {
		if m.status.GetHeader().GetClusterId() != s.members[0].status.GetHeader().GetClusterId() {
			return fmt.Errorf("%w: %s and %s are of different clusters", ErrSpec, s.members[0].endpoint, m.endpoint)
		}
	}
	if err := s.checkVersions(); err != nil {
		return err
	}
	for i := range s.spec.Connections {
		c, err := s.dialer.dial(s.members[i%len(s.members)].endpoint)
		if err != nil {
			return err
		}
		c.Connect()
		s.conns = append(s.conns, c)
	}
	return s.settle(ctx)
}

// settle waits until all connections are made, so that no request pays for one. A
// member that takes no more of them is met by the load itself.
func (s *session) settle(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	for _, c := range s.conns {
		for st := c.GetState(); st != connectivity.Ready && c.WaitForStateChange(waiting, st); st = c.GetState() {
			if st == connectivity.Idle {
				c.Connect()
			}
		}
	}
	return ctx.Err()
}

func cmpErr(err, or error) error {
	if err != nil {
		return err
	}
	return or
}

// greet logs in and asks a member what it is.
func (s *session) greet(ctx context.Context, endpoint string, c *grpc.ClientConn) (*pb.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	err := s.dialer.logIn(ctx, c, nil)
	var st *pb.StatusResponse
	if err == nil {
		st, err = pb.NewMaintenanceClient(c).Status(ctx, &pb.StatusRequest{})
	}
	if err == nil {
		return st, nil
	}
	target := etcd.Target{Endpoint: endpoint}
	if strings.HasPrefix(endpoint, "https:") {
		target.TLS = s.dialer.tls
	}
	asking, stop := context.WithTimeout(context.WithoutCancel(ctx), connectTime)
	defer stop()
	return nil, errors.New(etcd.Diagnose(asking, target, err).String())
}

// checkVersions refuses what a member is too old for.
func (s *session) checkVersions() error {
	if !s.spec.has(RangeStream) {
		return nil
	}
	for _, m := range s.members {
		v := m.status.GetVersion()
		var major, minor int
		if _, err := fmt.Sscanf(v, "%d.%d", &major, &minor); err != nil || major < 3 || major == 3 && minor < 7 {
			return fmt.Errorf("%w: %s runs etcd %s, and range-stream wants 3.7 or later: use range there", ErrSpec, m.endpoint, v)
		}
	}
	return nil
}

// logInAgain gets a new token after one was refused.
func (s *session) logInAgain(c *grpc.ClientConn) error {
	if s.dialer.user == "" {
		return errors.New("no user")
	}
	ctx, cancel := context.WithTimeout(s.calls, connectTime)
	defer cancel()
	return s.dialer.logIn(ctx, c, s.dialer.token.Load())
}

// claim chooses the prefix, and checks that no key lies below it.
func (s *session) claim(ctx context.Context) error {
	own := make([]byte, 12)
	if _, err := rand.Read(own); err != nil {
		return fmt.Errorf("choose a prefix: %w", err)
	}
	if s.spec.Prefix == "" {
		s.spec.Prefix = runsBelow + hex.EncodeToString(own[:4]) + "/"
	}
	s.instance = binary.LittleEndian.Uint64(own[4:])
	ctx, cancel := context.WithTimeout(ctx, s.spec.Timeout.Std())
	defer cancel()
	r, err := pb.NewKVClient(s.conns[0]).Range(ctx, &pb.RangeRequest{
		Key: []byte(s.spec.Prefix), RangeEnd: prefixEnd([]byte(s.spec.Prefix)), CountOnly: true,
	})
	if err != nil {
		switch classOf(err) {
		case classClientTimeout, classServerTimeout, classUnavailable:
			return fmt.Errorf("%w: %s answers, and reads through a quorum fail (%s): quorate doctor says what the cluster lacks", ErrNobody, s.members[0].endpoint, status.Convert(err).Message())
		default:
			return fmt.Errorf("look whether %s is free: %w", s.spec.Prefix, plain(err))
		}
	}
	if r.GetCount() > 0 {
		return fmt.Errorf("%w: %d keys lie below %s: choose another with --prefix, or leave it out", ErrForeign, r.GetCount(), s.spec.Prefix)
	}
	return nil
}

// plain is an error of a call without gRPC's own words, and with what to do where that
// is known.
func plain(err error) error {
	st, ok := status.FromError(err)
	switch {
	case !ok:
		return err
	case st.Code() == codes.PermissionDenied:
		return fmt.Errorf("%s: give a user who may read and write there with --user", st.Message())
	}
	return errors.New(st.Message())
}

// prepare makes what all loads of the session share.
func (s *session) prepare() {
	s.pool = make([]byte, poolSize+s.spec.ValueSize.largest())
	const poolStream = 1 << 63
	r := newRand(s.spec.Seed, poolStream)
	for i := 0; i+8 <= len(s.pool); i += 8 {
		binary.LittleEndian.PutUint64(s.pool[i:], r.Uint64())
	}
	s.spaces = make([]space, s.spec.Namespaces)
	for i := range s.spaces {
		sp := &s.spaces[i]
		prefix := s.spec.Prefix
		if s.spec.kubernetes() {
			prefix += podsPath
		}
		sp.prefix = append(appendDigits([]byte(prefix), i, namespaceDigits), '/')
		if s.spec.has(CAS, KubeUpdate) {
			sp.revisions = make([]atomic.Int64, s.spec.Keys)
		}
		if s.spec.WatchScope == WatchKey {
			sp.watched = map[int]*atomic.Int64{}
			for w := range s.spec.Watchers {
				sp.watched[s.watchedKey(w)] = &atomic.Int64{}
			}
		}
	}
}

// watchedKey is the number of the key that a watcher of one key looks at.
func (s *session) watchedKey(watcher int) int { return watcher * s.spec.Keys / s.spec.Watchers }

// loaders write keys at once, in batches.
const (
	loaders    = 8
	batchKeys  = 100
	batchBytes = 512 << 10
)

// batch of keys to write or delete.
type batch struct{ space, from, to int }

// preload writes all keys.
func (s *session) preload(ctx context.Context) error {
	per := max(1, min(batchKeys, batchBytes/max(1, s.spec.ValueSize.largest())))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	batches := make(chan batch)
	var done atomic.Int64
	var wg sync.WaitGroup
	for i := range loaders {
		wg.Go(func() {
			c := &client{s: s, conn: s.conns[i%len(s.conns)], rand: newRand(s.spec.Seed, 1<<61+uint64(i))} //nolint:gosec // small
			for b := range batches {
				if err := s.writeBatch(ctx, c, b); err != nil {
					cancel(fmt.Errorf("write the keys to read: %w", err))
				}
				done.Add(int64(b.to - b.from))
			}
		})
	}
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	all := float64(s.spec.Keys * s.spec.Namespaces)
	s.opts.Progress(Progress{Phase: PhaseLoad, Of: all})
feed:
	for ns := range s.spec.Namespaces {
		for k := 0; k < s.spec.Keys; {
			b := batch{ns, k, min(k+per, s.spec.Keys)}
			select {
			case batches <- b:
				k = b.to
			case <-tick.C:
				s.opts.Progress(Progress{Phase: PhaseLoad, Done: float64(done.Load()), Of: all})
			case <-ctx.Done():
				break feed
			}
		}
	}
	close(batches)
	wg.Wait()
	return context.Cause(ctx)
}

// writeBatch writes keys in one transaction. One that was overtaken by a change of
// leader is tried again: it is not measured, and writes the same.
func (s *session) writeBatch(ctx context.Context, c *client, b batch) error {
	c.space = &s.spaces[b.space]
	t := &pb.TxnRequest{}
	for k := b.from; k < b.to; k++ {
		t.Success = append(t.Success, requestPut(c.keyOf(nil, k), c.value(), 0))
	}
	for tries := 0; ; tries++ {
		var answer pb.TxnResponse
		err := s.callOnce(ctx, c.conn, pb.KV_Txn_FullMethodName, t, &answer)
		if err == nil {
			if c.space.revisions != nil {
				for k := b.from; k < b.to; k++ {
					c.space.revisions[k].Store(answer.GetHeader().GetRevision())
				}
			}
			return nil
		}
		const enough = 5
		if tries == enough || ctx.Err() != nil || !slices.Contains([]class{classUnavailable, classServerTimeout, classTooMany, classClientTimeout}, classOf(err)) {
			return err
		}
		wait(ctx, time.Duration(tries+1)*100*time.Millisecond)
	}
}

// callOnce makes one call within the timeout of the spec.
func (s *session) callOnce(ctx context.Context, c *grpc.ClientConn, method string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, s.spec.Timeout.Std())
	defer cancel()
	return c.Invoke(ctx, method, in, out)
}

// wait for a time, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
