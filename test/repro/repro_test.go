// Package repro_test finds etcd's published bugs again: real processes of an old
// release are brought to the bug by a fixed recipe, their clients' history is
// recorded, and history.Check has to name what went wrong. Releases in which the bug
// is fixed go through the same recipe and have to pass. docs/bugs.md is the list.
package repro_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/history/record"
)

// prefix is what the recipes write, and nobody else; it ends before prefixEnd.
const (
	prefix    = "/repro/"
	prefixEnd = "/repro0"
)

// fresh are the newest releases.
var fresh = []string{"3.5.35", "3.6.16", linked}

// recipe brings an etcd to a bug, if it has it.
type recipe struct {
	// issue in github.com/etcd-io/etcd.
	issue string
	// broken are releases that have the bug.
	broken []string
	// rules that have to be named, all of them.
	rules []history.Rule
	run   func(s *stage)
	// without is the same without the step that the bug is about, for fresh releases
	// that still have it.
	without func(s *stage)
}

var recipes = []recipe{
	{issue: "13766", broken: []string{"3.5.2"}, rules: []history.Rule{history.HashDiffers, history.StaleRead}, run: crashWhileApplying},
	{issue: "14370", broken: []string{"3.5.2"}, rules: []history.Rule{history.LostWrite}, run: powerLossWhileSyncing},
	{issue: "14571", broken: []string{"3.5.5"}, rules: []history.Rule{history.HashDiffers}, run: permissionsInSnapshot},
	{issue: "14685", broken: []string{"3.5.5"}, rules: []history.Rule{history.DuplicateWrite}, run: crashAfterDefrag},
	{issue: "15220", broken: []string{"3.5.7"}, rules: []history.Rule{history.WatchProgress}, run: progressAhead},
	{issue: "15271", broken: []string{"3.5.7"}, rules: []history.Rule{history.WatchDuplicate}, run: watchOverSnapshot},
	{issue: "17529", broken: []string{"3.5.12"}, rules: []history.Rule{history.WatchMissing}, run: starvedWatch},
	{issue: "17780", broken: []string{"3.5.12"}, rules: []history.Rule{history.RevisionOrder}, run: crashAfterCompaction},
	{issue: "18089", broken: []string{"3.5.12"}, rules: []history.Rule{history.WatchResume}, run: compactOnDelete},
	{
		issue: "18667", broken: []string{"3.5.12", "3.5.35", "3.6.16"}, rules: []history.Rule{history.RefusedWrite, history.HashDiffers},
		run: compactedReadInTxn, without: readInTxn,
	},
	{issue: "19179", broken: []string{"3.5.16"}, rules: []history.Rule{history.WatchResume}, run: compactOnDeleteAndCrash},
	{issue: "20221", broken: []string{"3.5.21"}, rules: []history.Rule{history.WatchResume}, run: watchAheadOfSnapshot},
}

func TestRepro(t *testing.T) {
	enabled(t)
	for _, r := range recipes {
		t.Run(r.issue, func(t *testing.T) {
			for _, release := range r.broken {
				t.Run("found in "+release, func(t *testing.T) { wants(t, play(t, release, r.run), r.rules...) })
			}
			for _, release := range fresh {
				if slices.Contains(r.broken, release) {
					t.Run("not without it in "+release, func(t *testing.T) { passes(t, play(t, release, r.without)) })
				} else {
					t.Run("not in "+release, func(t *testing.T) { passes(t, play(t, release, r.run)) })
				}
			}
		})
	}
}

// enabled skips a test that was not asked for.
func enabled(t *testing.T) {
	t.Helper()
	if os.Getenv("QUORATE_REPRO") == "" {
		t.Skip("it runs releases of etcd that have to be built first, as make repro does")
	}
}

// wants the rules to be broken.
func wants(t *testing.T, r *history.Report, rules ...history.Rule) {
	t.Helper()
	for _, rule := range rules {
		if r.Counts[rule] == 0 {
			t.Errorf("the checker does not name %s, only %v", rule, r.Counts)
		}
	}
}

// passes if no rule is broken, and all could be judged.
func passes(t *testing.T, r *history.Report) {
	t.Helper()
	if !r.OK || len(r.Counts) > 0 {
		t.Errorf("the checker names %v where nothing is wrong", r.Counts)
	}
	if len(r.Skipped) > 0 {
		t.Errorf("not all could be judged: %q", r.Skipped)
	}
}

// play runs a recipe on a release and returns the verdict.
func play(t *testing.T, release string, run func(*stage)) *history.Report {
	t.Helper()
	s := newStage(t, release)
	run(s)
	return s.judge()
}

// stage is where a recipe is played: one cluster, and all that its clients saw.
type stage struct {
	t       *testing.T
	release string
	ctx     context.Context //nolint:containedctx // it lives as long as the test
	*lab
	rec   *record.Recorder
	start int64
	truth *record.Truth
	// more ends watches that the recorder does not keep, and returns them.
	more []func() history.Watch
	// values are unique.
	values int
	// stop ends the truth watch.
	stop func()
}

func newStage(t *testing.T, release string) *stage {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	return &stage{t: t, release: release, ctx: ctx}
}

// cluster starts the members, and the watch over the whole prefix from its first
// revision on, which is kept at the last member, or where it can be.
func (s *stage) cluster(o labOptions) {
	s.t.Helper()
	o.release = s.release
	s.lab = newLab(s.t, o)
	if o.auth {
		s.EnableAuth(password)
	}
	s.rec = record.New(record.Options{})
	var clients []*record.Client
	for _, m := range s.Members {
		clients = append(clients, s.client(m))
	}
	r, err := clients[0].Etcd().Get(s.ctx, prefix)
	if err != nil {
		s.t.Fatal(err)
	}
	s.start = r.Header.Revision
	slices.Reverse(clients)
	s.truth = s.rec.Truth(clients, prefix, prefixEnd, s.start+1)
	ctx, cancel := context.WithCancel(s.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.truth.Run(ctx) // what it has not seen shows in the history
	}()
	s.stop = func() { cancel(); <-done }
	s.t.Cleanup(s.stop)
}

// each step has to work.
func (s *stage) each(steps ...func() error) {
	s.t.Helper()
	for _, step := range steps {
		if err := step(); err != nil {
			s.t.Fatal(err)
		}
	}
}

// client of one member, with an ID of its own in the history.
func (s *stage) client(m *member) *record.Client {
	s.t.Helper()
	var c *record.Client
	// A login takes long where the machine is busy.
	s.until("a client of "+m.Name, func(ctx context.Context) (err error) {
		c, err = s.rec.Dial(ctx, record.Target{Endpoint: m.Client, User: s.User, Password: password})
		return err
	})
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

// value that was not written before.
func (s *stage) value() string {
	s.values++
	return fmt.Sprint("v", s.values)
}

// put writes a value that was not written before, and has to work.
func (s *stage) put(c *record.Client, key string) int64 {
	s.t.Helper()
	return s.did(c.Put(s.ctx, prefix+key, s.value(), 0))
}

func (s *stage) remove(c *record.Client, key string) int64 {
	s.t.Helper()
	return s.did(c.Delete(s.ctx, prefix+key, ""))
}

// compact what the watch over everything has delivered.
func (s *stage) compact(c *record.Client, revision int64) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if err := s.truth.Wait(ctx, revision); err != nil {
		s.t.Fatalf("the watch over everything did not come to revision %d: %v", revision, err)
	}
	s.did(c.Do(s.ctx, history.Operation{Kind: history.Compact, Revision: revision}))
}

// read everything, linearizably.
func (s *stage) read(c *record.Client) int64 {
	s.t.Helper()
	return s.did(c.Get(s.ctx, prefix, prefixEnd))
}

// did returns the revision of what has to have worked.
func (s *stage) did(op history.Operation) int64 {
	s.t.Helper()
	if op.Outcome != history.OK {
		s.t.Fatalf("%s at %s: %s: %s", op.Kind, op.Endpoint, op.Outcome, op.Error)
	}
	return op.Revision
}

// watch keeps a watch on the prefix from a revision on, until it has delivered a write
// that is made for it, and so has delivered what came before.
func (s *stage) watch(c *record.Client, from int64) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	created, sentinel := make(chan struct{}), make(chan int64, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		last := int64(0)
		_ = c.Watch(ctx, history.Watch{Key: prefix, End: prefixEnd, StartRevision: from}, record.WatchOptions{
			Seen: func(r *history.WatchResponse) {
				if r.Created {
					close(created)
				}
				if last == 0 {
					select {
					case last = <-sentinel:
					case <-ctx.Done():
					}
				}
				if n := len(r.Events); n > 0 && r.Events[n-1].KV.ModRevision >= last {
					cancel()
				}
			},
		})
	}()
	select {
	case <-created:
		sentinel <- s.put(s.client(s.Members[0]), "sentinel")
	case <-ctx.Done():
	}
	<-done
	if ctx.Err() != context.Canceled {
		s.t.Fatalf("the watch from %d did not end: %v", from, ctx.Err())
	}
}

// logged waits until a member's log has the text.
func (s *stage) logged(m *member, text string) {
	s.t.Helper()
	s.until(m.Name+" logs "+text, func(context.Context) error {
		if !strings.Contains(m.Log(), text) {
			return fmt.Errorf("%q is not in the log", text)
		}
		return nil
	})
}

// judge ends the recording, and has the history checked.
func (s *stage) judge() *history.Report {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, 3*time.Second)
	// Where it can't have seen the last revision, the bug is the reason.
	_ = s.truth.Wait(ctx, s.read(s.client(s.Members[len(s.Members)-1])))
	cancel()
	hashes := s.hashes()
	s.stop()
	meta := history.Meta{Name: s.t.Name(), Prefix: prefix, StartRevision: s.start, StartedAt: s.rec.Began().Format(time.RFC3339Nano)}
	for _, m := range s.Members {
		meta.Members = append(meta.Members, m.Name+" "+s.release)
	}
	h := s.rec.History(meta)
	h.Hashes = hashes
	for _, end := range s.more {
		h.Watches = append(h.Watches, end())
	}
	keep(s.t, h)
	return check(s.t, h)
}

// hashes of all members at the newest revision that each has.
func (s *stage) hashes() []history.Hash {
	s.t.Helper()
	revision := int64(0)
	for _, m := range s.Members {
		if r := s.read(s.client(m)); revision == 0 || r < revision {
			revision = r
		}
	}
	list := make([]history.Hash, 0, len(s.Members))
	for _, m := range s.Members {
		c := s.client(m)
		r, err := etcdserverpb.NewMaintenanceClient(c.Etcd().ActiveConnection()).HashKV(s.ctx, &etcdserverpb.HashKVRequest{Revision: revision})
		if err != nil {
			s.t.Fatalf("hash of %s at %d: %v", m.Name, revision, err)
		}
		list = append(list, history.Hash{
			Member: m.Name, Revision: revision, CompactRevision: r.GetCompactRevision(), Hash: r.GetHash(), At: s.rec.Now(),
		})
	}
	return list
}
