package check

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/history/record"
	"github.com/quorate/quorate/internal/backoff"
)

// How a run ends.
const (
	// calmly is how long an interrupted run waits for members to catch up.
	calmly = 10 * time.Second
	// tryAgain is how long is waited between two attempts.
	tryAgain = 200 * time.Millisecond
	// atOnce is how many keys are read and deleted at once in the clean-up.
	atOnce = 100
	// cleanTime bounds the clean-up.
	cleanTime = 20 * time.Second
)

// final is how the traffic ended.
type final struct {
	// revision of the last write, which everyone is to see; 0 when nobody took it.
	revision int64
	hashes   []history.Hash
	hash     string
}

// finish writes one last time, waits until all have seen it, and reads everything
// from everyone.
func (r *run) finish(ctx context.Context, c *crew, interrupted bool) final {
	patience := r.opts.Patience
	if interrupted {
		patience = min(patience, calmly)
	}
	waitCtx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	f := final{hash: r.plan.Hash}
	if f.revision = r.lastWrite(waitCtx, c.last); f.revision == 0 {
		f.hash = "skipped: the cluster took no write at the end"
		return f
	}
	if err := r.truth.Wait(waitCtx, f.revision); err != nil {
		at, _ := r.truth.Delivered()
		r.note(fmt.Sprintf("the watch that all is held against is at revision %d, and not at %d: what is behind it is judged by less", at, f.revision))
	}
	for _, text := range stragglers(waitCtx, c.followers, f.revision) {
		r.note("not caught up within " + patience.String() + ": " + text)
	}
	r.readAll(ctx, c.last)
	if r.plan.hashes() {
		f.hashes, f.hash = r.hashAll(ctx, c.last, f.revision)
	}
	return f
}

// lastWrite is the revision of a write that the cluster took; 0 when it took none
// in time.
func (r *run) lastWrite(ctx context.Context, s *session) int64 {
	for {
		op := s.do(ctx, one(history.Request{Kind: history.Put, Key: r.opts.Prefix + lastKey, Value: s.value()}))
		if op.Outcome == history.OK {
			return op.Revision
		}
		if backoff.Sleep(ctx, tryAgain) != nil {
			r.note("the cluster took no write at the end: " + op.Error)
			return 0
		}
	}
}

// readAll reads the prefix at each endpoint, as all agree and as it has it itself.
func (r *run) readAll(ctx context.Context, s *session) {
	ctx, cancel := context.WithTimeout(ctx, calmly)
	defer cancel()
	for _, c := range s.clients {
		for _, serializable := range []bool{false, true} {
			op := one(history.Request{Kind: history.Range, Key: r.opts.Prefix, End: r.end})
			op.Serializable = serializable
			if op = r.insist(ctx, c, op); op.Outcome != history.OK {
				r.note(fmt.Sprintf("%s gave no last answer: %s", c.Endpoint(), op.Error))
				break
			}
		}
	}
}

// insist asks one endpoint until it answers or ctx is done.
func (r *run) insist(ctx context.Context, c *record.Client, op history.Operation) history.Operation {
	for {
		call, cancel := context.WithTimeout(ctx, r.opts.Timeout)
		got := c.Do(call, op)
		cancel()
		r.meter.count(&got)
		if got.Outcome == history.OK || backoff.Sleep(ctx, tryAgain) != nil {
			return got
		}
	}
}

// hashAll asks every voter for the hash of its data at one revision.
func (r *run) hashAll(ctx context.Context, s *session, revision int64) ([]history.Hash, string) {
	ctx, cancel := context.WithTimeout(ctx, calmly)
	defer cancel()
	var hashes []history.Hash
	var missing []string
	for i, m := range r.plan.Voters() {
		resp, err := r.hash(ctx, s.clients[i].Etcd(), m.Endpoint, revision)
		if err != nil {
			missing = append(missing, fmt.Sprintf("%s: %v", m.Label(), err))
			continue
		}
		h := history.Hash{Member: m.Label(), Revision: revision, CompactRevision: resp.CompactRevision, Hash: resp.Hash, At: r.rec.Now()}
		hashes = append(hashes, h)
		r.file.hash(h)
	}
	switch {
	case len(hashes) == 0:
		return nil, "skipped: " + strings.Join(missing, "; ")
	case len(missing) > 0:
		return hashes, fmt.Sprintf("of %d members; not of %s", len(hashes), strings.Join(missing, "; "))
	}
	return hashes, fmt.Sprintf("of %d members at revision %d", len(hashes), revision)
}

// hash asks one member until it has reached the revision.
func (*run) hash(ctx context.Context, c *clientv3.Client, endpoint string, revision int64) (*clientv3.HashKVResponse, error) {
	for {
		resp, err := c.HashKV(ctx, endpoint, revision)
		if !errors.Is(err, rpctypes.ErrFutureRev) || backoff.Sleep(ctx, tryAgain) != nil {
			return resp, err
		}
	}
}

// cleanUp removes what was written, and nothing else, and says whether it is gone.
func (r *run) cleanUp(ctx context.Context, c *crew) bool {
	if r.opts.Keep {
		return false
	}
	r.enter("cleaning up")
	ctx, cancel := context.WithTimeout(ctx, cleanTime)
	defer cancel()
	var err error
	for _, client := range c.last.clients {
		if err = r.cleanUpAt(ctx, client.Etcd()); err == nil {
			return true
		}
		r.log.DebugContext(ctx, "not cleaned up", slog.String("endpoint", client.Endpoint()), attrError(err))
	}
	r.note(fmt.Sprintf("what was written is still there (%v): %s", err, r.remedy()))
	return false
}

func (r *run) cleanUpAt(ctx context.Context, c *clientv3.Client) error {
	r.mu.Lock()
	ids := append([]int64(nil), r.ids...)
	r.mu.Unlock()
	for _, id := range ids {
		call, cancel := context.WithTimeout(ctx, r.opts.Timeout)
		_, err := c.Revoke(call, clientv3.LeaseID(id))
		cancel()
		if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return fmt.Errorf("revoke a lease: %w", err)
		}
		r.settled(id)
	}
	for {
		done, err := r.deleteSome(ctx, c)
		if done || err != nil {
			return err
		}
	}
}

// deleteSome deletes from the first key of the prefix to the last of a few.
func (r *run) deleteSome(ctx context.Context, c *clientv3.Client) (done bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	got, err := c.Get(ctx, r.opts.Prefix, clientv3.WithRange(r.end), clientv3.WithKeysOnly(), clientv3.WithLimit(atOnce))
	if err != nil {
		return false, fmt.Errorf("read what is left: %w", err)
	}
	if len(got.Kvs) == 0 {
		return true, nil
	}
	first, last := string(got.Kvs[0].GetKey()), string(got.Kvs[len(got.Kvs)-1].GetKey())
	if !strings.HasPrefix(first, r.opts.Prefix) || !strings.HasPrefix(last, r.opts.Prefix) {
		return false, fmt.Errorf("etcd gave keys from %q to %q for the prefix %s: nothing was deleted", first, last, r.opts.Prefix)
	}
	if _, err = c.Delete(ctx, first, clientv3.WithRange(last+"\x00")); err != nil {
		return false, fmt.Errorf("delete what was written: %w", err)
	}
	return !got.More, nil
}

// judge checks the history and sums up.
func (r *run) judge(ctx context.Context, f final) (*Result, error) {
	meta := r.plan.meta(r.rec.Began())
	r.mu.Lock()
	meta.Disturbances = r.disturbances
	r.mu.Unlock()
	h := r.rec.History(meta)
	h.Hashes = f.hashes
	report, err := history.Check(ctx, h, history.Options{Logger: r.opts.Logger})
	if err != nil {
		return nil, err
	}
	if err = r.rec.Err(); err != nil {
		r.note("the file of the history is not complete: " + err.Error())
	}
	res := &Result{
		Verdict: Holds, Prefix: r.plan.Prefix, StartRevision: r.plan.StartRevision, EndRevision: r.revision.Load(), Members: r.plan.Members,
		Seed: r.opts.Seed, Stats: r.meter.now(), Disturbances: meta.Disturbances, Hash: f.hash, History: r.opts.File, Report: report,
	}
	_, res.Stats.TruthResumed = r.truth.Delivered()
	r.mu.Lock()
	res.Notes = r.notes
	r.mu.Unlock()
	switch {
	case !report.OK:
		res.Verdict = Violated
	case f.revision == 0 || res.Stats.Writes == 0:
		res.Verdict = Undecided
	}
	res.Summary = res.summary()
	return res, nil
}

func (r *Result) summary() string {
	s := &r.Stats
	did := fmt.Sprintf("%d operations in %.1f s on %d members, %d of them without an answer", s.Operations, s.Seconds, len(r.Members), s.Unknown)
	switch r.Verdict {
	case Violated:
		n := 0
		for _, c := range r.Report.Counts {
			n += c
		}
		if n == 1 {
			return "one promise was broken: " + did
		}
		return fmt.Sprintf("%d promises were broken: %s", n, did)
	case Undecided:
		return "the cluster took no write at the end; until then no promise was broken: " + did
	default:
		return "no promise was broken: " + did
	}
}
