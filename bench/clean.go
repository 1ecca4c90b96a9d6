package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/status"
)

// States of what lies below the prefixes of runs.
const (
	// Left by a run that was killed.
	Left = "left"
	// Running says that the run marks itself, or that its keys change.
	Running = "running"
	// Kept on purpose.
	Kept = "kept"
	// Foreign prefixes are of no run.
	Foreign = "foreign"
)

// LeftRun is what lies below the prefix of one run.
type LeftRun struct {
	Prefix string `json:"prefix"`
	State  string `json:"state"`
	// Keys that have the shape of a run's own, and their Bytes with their values; Others
	// have not, and are never deleted.
	Keys   int64 `json:"keys"`
	Bytes  int64 `json:"bytes"`
	Others int64 `json:"others,omitempty"`
	// Leases that hold keys of the run, and no others.
	Leases int `json:"leases,omitempty"`
	// By is who ran it, as far as it said so.
	By string `json:"by,omitempty"`
	// TTL of its mark in seconds: after a kill it counts as running for so long.
	TTL int64 `json:"ttl,omitempty"`
	// Deleted keys, Revoked leases.
	Deleted int64 `json:"deleted"`
	Revoked int   `json:"revoked,omitempty"`

	leases   []int64
	revision int64
	// single key rather than a prefix.
	single bool
}

// CleanOptions say what Clean does.
type CleanOptions struct {
	Options
	// Agree is asked before anything is deleted; nil for a dry run.
	Agree func([]LeftRun) error
	// Kept deletes what was kept on purpose, too.
	Kept bool
	// Quiet is how long the keys of a run without a mark must stay as they are.
	Quiet time.Duration
}

// ownPrefix is what a run's prefix looks like; --from puts the number of the host
// behind it. ownRest is what a key of a run looks like behind it.
var (
	ownPrefix = regexp.MustCompile(`^/quorate-bench/[0-9a-f]{1,8}/([0-9]{1,4}/)?`)
	ownRest   = regexp.MustCompile(`^(run|kept|(registry/pods/)?[0-9]{5}/(k[0-9]{9}x*|[ln][0-9]{3,}-[0-9]{6,}-[0-9]{9,}))$`)
)

// ownKey reports the prefix of the run that a key is of; empty where its shape is not
// that of a run's key.
func ownKey(key []byte) string {
	prefix := ownPrefix.Find(key)
	if prefix == nil || !ownRest.Match(key[len(prefix):]) {
		return ""
	}
	return string(prefix)
}

// siblings are runs of several hosts that drive one load.
func siblings(a, b string) bool {
	depth := strings.Count(runsBelow, "/") + 1
	top := func(prefix string) string { return strings.Join(strings.SplitAfter(prefix, "/")[:depth], "") }
	return strings.Count(a, "/") >= depth && strings.Count(b, "/") >= depth && top(a) == top(b)
}

// Clean deletes what runs have left that were killed. It looks below the prefix that
// all runs share, and nowhere else, and deletes single keys that have the shape of a
// run's, each page in a transaction that fails if the run has marked itself meanwhile.
func Clean(ctx context.Context, spec Spec, o CleanOptions) ([]LeftRun, error) {
	spec = spec.Clone()
	if err := spec.Complete(); err != nil {
		return nil, err
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	s := &session{spec: spec, opts: o.Options}
	var err error
	if s.dialer, err = newDialer(&spec); err != nil {
		return nil, err
	}
	defer s.hangUp()
	if err = s.connect(ctx); err != nil {
		return nil, err
	}
	w := &sweep{s: s, details: true, kept: o.Kept}
	runs, err := w.look(ctx, o.Quiet)
	if err != nil {
		return nil, fmt.Errorf("look below %s: %w", runsBelow, plain(err))
	}
	if o.Agree == nil || !slices.ContainsFunc(runs, w.takes) {
		return runs, nil
	}
	if err = o.Agree(runs); err != nil {
		return runs, err
	}
	for i := range runs {
		if w.takes(runs[i]) {
			if err = w.clean(ctx, &runs[i]); err != nil {
				return runs, fmt.Errorf("delete what is below %s: %w: run it again, it goes on where it was", runs[i].Prefix, plain(err))
			}
		}
	}
	return runs, nil
}

// sweep looks at what runs have left.
type sweep struct {
	s       *session
	details bool
	kept    bool
}

func (w *sweep) takes(r LeftRun) bool {
	return r.Keys > 0 && (r.State == Left || w.kept && r.State == Kept)
}

// look twice: a run that is of an older version, or could not mark itself, is told by
// its keys, which change.
func (w *sweep) look(ctx context.Context, quiet time.Duration) ([]LeftRun, error) {
	before, err := w.find(ctx)
	if err != nil || !slices.ContainsFunc(before, w.takes) {
		return before, err
	}
	wait(ctx, quiet)
	runs, err := w.find(ctx)
	if err != nil {
		return nil, err
	}
	for i := range runs {
		r := &runs[i]
		same := func(o LeftRun) bool { return o.Prefix == r.Prefix && o.Keys == r.Keys && o.revision == r.revision }
		if r.State == Left && !slices.ContainsFunc(before, same) {
			r.State = Running
		}
	}
	spreadRunning(runs)
	return runs, nil
}

// spreadRunning: where one host of several still drives a load, the load goes on.
func spreadRunning(runs []LeftRun) {
	for i := range runs {
		if runs[i].State == Left && slices.ContainsFunc(runs, func(o LeftRun) bool { return o.State == Running && siblings(o.Prefix, runs[i].Prefix) }) {
			runs[i].State = Running
		}
	}
}

// find lists the runs. Without details it jumps from run to run and counts; with
// them it reads each key, without which bytes and leases can't be told.
func (w *sweep) find(ctx context.Context) ([]LeftRun, error) {
	var runs []LeftRun
	end := prefixEnd([]byte(runsBelow))
	for key := []byte(runsBelow); key != nil; {
		page, err := w.page(ctx, key, end, 1, true)
		if err != nil {
			return nil, err
		}
		if len(page.GetKvs()) == 0 {
			break
		}
		r := LeftRun{Prefix: string(ownPrefix.Find(page.GetKvs()[0].GetKey())), State: Left}
		if r.Prefix == "" {
			// What others put there ends at its next slash.
			name := string(page.GetKvs()[0].GetKey())
			first, _, below := strings.Cut(strings.TrimPrefix(name, runsBelow), "/")
			r.Prefix, r.State, r.single = runsBelow+first, Foreign, !below
			if below {
				r.Prefix += "/"
			}
		}
		from := page.GetKvs()[0].GetKey()
		if key, err = w.inspect(ctx, &r, from); err != nil {
			return nil, err
		}
		runs = append(runs, r)
	}
	spreadRunning(runs)
	return runs, nil
}

// inspect fills in what is known of a run, and returns the key behind it.
func (w *sweep) inspect(ctx context.Context, r *LeftRun, from []byte) ([]byte, error) {
	end := prefixEnd([]byte(r.Prefix))
	if r.single {
		r.Others = 1
		return append(bytes.Clone(from), 0), nil
	}
	if err := w.marks(ctx, r); err != nil {
		return nil, err
	}
	if !w.details || r.State == Foreign {
		var counted pb.RangeResponse
		request := &pb.RangeRequest{Key: from, RangeEnd: end, CountOnly: true}
		if err := w.s.callOnce(ctx, w.s.conns[0], pb.KV_Range_FullMethodName, request, &counted); err != nil {
			return nil, err
		}
		if r.State == Foreign {
			r.Others = counted.GetCount()
		} else {
			r.Keys = counted.GetCount()
		}
		return end, nil
	}
	held := map[int64]bool{}
	err := w.each(ctx, from, end, false, func(page *pb.RangeResponse) error {
		for _, kv := range page.GetKvs() {
			// The run of a single host does not own what looks like that of several.
			if ownKey(kv.GetKey()) != r.Prefix {
				r.Others++
				continue
			}
			r.revision = max(r.revision, kv.GetModRevision())
			r.Keys++
			r.Bytes += int64(len(kv.GetKey()) + len(kv.GetValue()))
			if id := kv.GetLease(); id != 0 && !held[id] {
				held[id] = true
				r.leases = append(r.leases, id)
			}
		}
		return nil
	})
	r.Leases = len(r.leases)
	if r.Keys == 0 && r.State == Left {
		r.State = Foreign
	}
	return end, err
}

// marks reads what the run says of itself.
func (w *sweep) marks(ctx context.Context, r *LeftRun) error {
	for _, m := range []struct{ key, state string }{{keptKey, Kept}, {runKey, Running}} {
		var answer pb.RangeResponse
		if err := w.s.callOnce(ctx, w.s.conns[0], pb.KV_Range_FullMethodName, &pb.RangeRequest{Key: []byte(r.Prefix + m.key)}, &answer); err != nil {
			return err
		}
		if len(answer.GetKvs()) == 0 || r.State == Foreign {
			continue
		}
		kv := answer.GetKvs()[0]
		r.State, r.By = m.state, string(kv.GetValue()[:min(len(kv.GetValue()), 200)])
		if m.state == Running && kv.GetLease() != 0 {
			var left pb.LeaseTimeToLiveResponse
			if err := w.s.callOnce(ctx, w.s.conns[0], pb.Lease_LeaseTimeToLive_FullMethodName, &pb.LeaseTimeToLiveRequest{ID: kv.GetLease()}, &left); err == nil {
				r.TTL = max(left.GetTTL(), 0)
			}
		}
	}
	return nil
}

func (w *sweep) page(ctx context.Context, key, end []byte, limit int64, keysOnly bool) (*pb.RangeResponse, error) {
	var page pb.RangeResponse
	request := &pb.RangeRequest{Key: key, RangeEnd: end, Limit: limit, KeysOnly: keysOnly}
	err := w.s.callOnce(ctx, w.s.conns[0], pb.KV_Range_FullMethodName, request, &page)
	return &page, err
}

// pageBytes is how much a page should hold: the next has fewer keys where the last
// was larger.
const pageBytes = 1 << 20

// each hands all pages of a range over. Between two it rests for as long as the last
// took, so that others are served.
func (w *sweep) each(ctx context.Context, key, end []byte, keysOnly bool, take func(*pb.RangeResponse) error) error {
	limit := int64(1)
	if keysOnly {
		limit = batchKeys
	}
	for {
		began := time.Now()
		page, err := w.page(ctx, key, end, limit, keysOnly)
		kvs := page.GetKvs()
		if err == nil && len(kvs) > 0 {
			err = take(page)
		}
		if err != nil || !page.GetMore() || len(kvs) == 0 {
			return err
		}
		key = append(bytes.Clone(kvs[len(kvs)-1].GetKey()), 0)
		size := int64(0)
		for _, kv := range kvs {
			size += int64(len(kv.GetKey()) + len(kv.GetValue()))
		}
		limit = min(batchKeys, max(1, min(4*limit, pageBytes*int64(len(kvs))/max(size, 1))))
		wait(ctx, time.Since(began))
	}
}

// errMarked is a run that goes on after all.
var errMarked = errors.New("the run has marked itself as going on meanwhile")

// clean deletes the keys of a run, then revokes its leases.
func (w *sweep) clean(ctx context.Context, r *LeftRun) error {
	w.s.opts.Progress(Progress{Phase: PhaseCleanup, Of: float64(r.Keys), Note: r.Prefix})
	told := time.Now()
	prefix := []byte(r.Prefix)
	err := w.each(ctx, prefix, prefixEnd(prefix), true, func(page *pb.RangeResponse) error {
		var keys [][]byte
		for _, kv := range page.GetKvs() {
			if ownKey(kv.GetKey()) == r.Prefix {
				keys = append(keys, kv.GetKey())
			}
		}
		if time.Since(told) > progressEvery {
			told = time.Now()
			w.s.opts.Progress(Progress{Phase: PhaseCleanup, Done: float64(r.Deleted), Of: float64(r.Keys), Note: r.Prefix})
		}
		return w.deleteKeys(ctx, r, keys)
	})
	if err != nil {
		return err
	}
	for _, id := range r.leases {
		if err = w.revoke(ctx, r, id); err != nil {
			return err
		}
	}
	return nil
}

// deleteKeys deletes single keys in one transaction, or in smaller ones where the
// cluster allows fewer operations in one.
func (w *sweep) deleteKeys(ctx context.Context, r *LeftRun, keys [][]byte) error {
	if len(keys) == 0 {
		return nil
	}
	t := &pb.TxnRequest{Compare: []*pb.Compare{{
		Key: []byte(r.Prefix + runKey), Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 0},
	}}}
	for _, key := range keys {
		t.Success = append(t.Success, requestDelete(key))
	}
	var answer pb.TxnResponse
	err := w.s.callOnce(ctx, w.s.conns[0], pb.KV_Txn_FullMethodName, t, &answer)
	if err != nil && len(keys) > 1 && strings.Contains(status.Convert(err).Message(), "too many operations") {
		half := len(keys) / 2
		return errors.Join(w.deleteKeys(ctx, r, keys[:half]), w.deleteKeys(ctx, r, keys[half:]))
	}
	if err != nil {
		return err
	}
	if !answer.GetSucceeded() {
		return errMarked
	}
	for _, one := range answer.GetResponses() {
		r.Deleted += one.GetResponseDeleteRange().GetDeleted()
	}
	return nil
}

// revoke ends a lease that held keys of the run, if it holds none by now: one that
// holds others' keys is theirs.
func (w *sweep) revoke(ctx context.Context, r *LeftRun, id int64) error {
	var left pb.LeaseTimeToLiveResponse
	request := &pb.LeaseTimeToLiveRequest{ID: id, Keys: true}
	if err := w.s.callOnce(ctx, w.s.conns[0], pb.Lease_LeaseTimeToLive_FullMethodName, request, &left); err != nil {
		return err
	}
	if left.GetTTL() <= 0 || len(left.GetKeys()) > 0 {
		return nil
	}
	if err := w.s.callOnce(ctx, w.s.conns[0], pb.Lease_LeaseRevoke_FullMethodName, &pb.LeaseRevokeRequest{ID: id}, &pb.LeaseRevokeResponse{}); err != nil {
		return err
	}
	r.Revoked++
	return nil
}
