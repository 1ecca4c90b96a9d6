package record_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/history/record"

	"github.com/quorate/quorate/test/freeport"
)

// want fails the test unless an operation ended as it should.
func want(t *testing.T, op history.Operation, outcome history.Outcome) history.Operation {
	t.Helper()
	if op.Outcome != outcome {
		t.Fatalf("%s is %s (%s), want %s", op.Kind, op.Outcome, op.Error, outcome)
	}
	if (op.Return == history.Never) != (outcome == history.Unknown) || op.Call > op.Return {
		t.Errorf("%s lasts from %d to %d", op.Kind, op.Call, op.Return)
	}
	return op
}

// TestWhatIsRecorded: answers are recorded as etcd gave them.
func TestWhatIsRecorded(t *testing.T) {
	n := newNode(t)
	rec := record.New(record.Options{})
	c := dial(t, rec, n)
	ctx := t.Context()
	put := want(t, c.Put(ctx, "/a", "1", 0), history.OK)
	if put.Revision != 2 || put.Endpoint != n.Client || put.Client != c.ID() {
		t.Errorf("put: %+v", put)
	}
	again := want(t, c.Do(ctx, history.Operation{Kind: history.Put, Then: []history.Request{{Kind: history.Put, Key: "/a", Value: "2", PrevKV: true}}}), history.OK)
	first := history.KeyValue{Key: "/a", Value: "1", Version: 1, CreateRevision: 2, ModRevision: 2}
	if diff := cmp.Diff([]history.Result{{KVs: []history.KeyValue{first}}}, again.Results); diff != "" {
		t.Errorf("put with what was before (-want +got):\n%s", diff)
	}
	want(t, c.Put(ctx, "/b", "3", 0), history.OK)
	got := want(t, c.Do(ctx, history.Operation{Kind: history.Range, Then: []history.Request{{Kind: history.Range, Key: "/a", End: "/c", Limit: 1}}}), history.OK)
	second := history.KeyValue{Key: "/a", Value: "2", Version: 2, CreateRevision: 2, ModRevision: 3}
	if diff := cmp.Diff([]history.Result{{KVs: []history.KeyValue{second}, Count: 2, More: true}}, got.Results); diff != "" {
		t.Errorf("range with a limit (-want +got):\n%s", diff)
	}
	old := want(t, c.Do(ctx, history.Operation{Kind: history.Range, Serializable: true, Then: []history.Request{{Kind: history.Range, Key: "/a", Revision: 2}}}), history.OK)
	if diff := cmp.Diff([]history.Result{{KVs: []history.KeyValue{first}, Count: 1}}, old.Results); diff != "" || old.Revision != 4 {
		t.Errorf("read at revision 2, answered at %d (-want +got):\n%s", old.Revision, diff)
	}
	txn := history.Operation{
		Kind: history.Txn,
		If: []history.Condition{
			{Key: "/a", Field: history.FieldValue, Op: "=", Value: "2"},
			{Key: "/a", Field: history.FieldVersion, Op: ">", Number: 1},
			{Key: "/a", Field: history.FieldMod, Op: "<", Number: 4},
			{Key: "/a", Field: history.FieldCreate, Op: "=", Number: 2},
			{Key: "/a", Field: history.FieldLease, Op: "!=", Number: 7},
		},
		Then: []history.Request{
			{Kind: history.Range, Key: "/a"}, {Kind: history.Put, Key: "/c", Value: "4"}, {Kind: history.Delete, Key: "/a", End: "/c", PrevKV: true},
		},
		Else: []history.Request{{Kind: history.Range, Key: "/b"}},
	}
	done := want(t, c.Do(ctx, txn), history.OK)
	third := history.KeyValue{Key: "/b", Value: "3", Version: 1, CreateRevision: 4, ModRevision: 4}
	if diff := cmp.Diff([]history.Result{{KVs: []history.KeyValue{second}, Count: 1}, {}, {KVs: []history.KeyValue{second, third}, Deleted: 2}}, done.Results); diff != "" || !done.Succeeded || done.Revision != 5 {
		t.Errorf("transaction: succeeded %v at %d (-want +got):\n%s", done.Succeeded, done.Revision, diff)
	}
	if failed := want(t, c.Do(ctx, txn), history.OK); failed.Succeeded || len(failed.Results) != 1 || failed.Results[0].Count != 0 {
		t.Errorf("transaction whose conditions don't hold: %+v", failed)
	}
	h := rec.History(history.Meta{Prefix: "/"})
	if len(h.Operations) != 7 || rec.Operations() != 7 {
		t.Errorf("%d operations are in the history, want 7", len(h.Operations))
	}
}

// TestLeases: granted by the ID that was asked for, renewed, asked for, over.
func TestLeases(t *testing.T) {
	n := newNode(t)
	c := dial(t, record.New(record.Options{}), n)
	ctx := t.Context()
	lease := func(kind history.Kind) history.Operation {
		return c.Do(ctx, history.Operation{Kind: kind, Lease: 77, TTL: 50})
	}
	if op := want(t, lease(history.LeaseGrant), history.OK); op.Lease != 77 || op.TTL != 50 {
		t.Errorf("granted: %+v", op)
	}
	if op := want(t, lease(history.LeaseGrant), history.Failed); op.Error != "etcdserver: lease already exists" {
		t.Errorf("granted again: %q", op.Error)
	}
	want(t, c.Put(ctx, "/l", "1", 77), history.OK)
	if op := want(t, lease(history.LeaseRenew), history.OK); op.TTL != 50 {
		t.Errorf("renewed to %d", op.TTL)
	}
	if op := want(t, lease(history.LeaseTTL), history.OK); op.TTL < 45 || op.TTL > 50 {
		t.Errorf("%d are left", op.TTL)
	}
	want(t, lease(history.LeaseRevoke), history.OK)
	want(t, lease(history.LeaseRevoke), history.Failed)
	if op := want(t, lease(history.LeaseTTL), history.OK); op.TTL != -1 {
		t.Errorf("after its end %d are left", op.TTL)
	}
	if op := want(t, lease(history.LeaseRenew), history.OK); op.TTL != -1 {
		t.Errorf("after its end it was renewed to %d", op.TTL)
	}
	want(t, c.Put(ctx, "/l", "2", 77), history.Failed)
	if got := want(t, c.Get(ctx, "/l", ""), history.OK); got.Results[0].Count != 0 {
		t.Errorf("its key is still there: %+v", got.Results)
	}
}

// TestOutcomes: what was surely refused failed; all else is unknown.
func TestOutcomes(t *testing.T) {
	n := newNode(t)
	c := dial(t, record.New(record.Options{}), n)
	ctx := t.Context()
	for _, key := range []string{"/a", "/b", "/c"} {
		want(t, c.Put(ctx, key, "1", 0), history.OK)
	}
	want(t, c.Do(ctx, history.Operation{Kind: history.Compact, Revision: 3}), history.OK)
	at := func(revision int64) history.Operation {
		return history.Operation{Kind: history.Range, Then: []history.Request{{Kind: history.Range, Key: "/a", Revision: revision}}}
	}
	twice := history.Request{Kind: history.Put, Key: "/a", Value: "2"}
	for what, op := range map[string]history.Operation{
		"compacted": at(2), "in the future": at(1000), "compacted again": {Kind: history.Compact, Revision: 3},
		"a key twice": {Kind: history.Txn, Then: []history.Request{twice, twice}},
		"no key":      {Kind: history.Put, Then: []history.Request{{Kind: history.Put}}},
		"too large":   {Kind: history.Put, Then: []history.Request{{Kind: history.Put, Key: "/a", Value: string(make([]byte, 1800<<10))}}},
		"no kind":     {Kind: "nothing"},
	} {
		if got := c.Do(ctx, op); got.Outcome != history.Failed || got.Error == "" {
			t.Errorf("%s is %s %q", what, got.Outcome, got.Error)
		}
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	want(t, c.Put(gone, "/a", "3", 0), history.Failed)

	// A member that stands still has the request, and may yet carry it out.
	n.signal(syscall.SIGSTOP)
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	want(t, c.Put(short, "/late", "4", 0), history.Unknown)
	cancel()
	n.signal(syscall.SIGCONT)
	n.until("carried out", func(ctx context.Context) bool {
		got := c.Get(ctx, "/a", "")
		return got.Outcome == history.OK && got.Results[0].Count == 1
	})

	// A connection that breaks under a request leaves it open; where there is none,
	// nothing was sent.
	n.signal(syscall.SIGSTOP)
	broken := make(chan history.Operation)
	go func() {
		long, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		broken <- c.Put(long, "/broken", "5", 0)
	}()
	n.until("on its way", func(context.Context) bool { return c.Etcd().ActiveConnection().GetState().String() == "READY" })
	n.Kill()
	if op := <-broken; op.Outcome == history.OK {
		t.Errorf("a killed member answered: %+v", op)
	}
	n.until("refused", func(ctx context.Context) bool { return c.Put(ctx, "/down", "6", 0).Outcome == history.Failed })
}

// TestNobodyAnswers: what never left is known not to have happened.
func TestNobodyAnswers(t *testing.T) {
	rec := record.New(record.Options{})
	for _, endpoint := range []string{"http://" + freeport.Address(t), silent(t)} {
		c, err := rec.Dial(t.Context(), record.Target{Endpoint: endpoint})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		want(t, c.Put(ctx, "/a", "1", 0), history.Failed)
		cancel()
		_ = c.Close()
	}
}

// TestNoSpaceIsUnknown: etcd may say so of a put that it has carried out.
func TestNoSpaceIsUnknown(t *testing.T) {
	n := newNode(t, "--quota-backend-bytes=100000")
	c := dial(t, record.New(record.Options{}), n)
	value := string(bytes.Repeat([]byte("x"), 30000))
	var op history.Operation
	n.until("full", func(ctx context.Context) bool {
		op = c.Put(ctx, "/a", value, 0)
		return op.Outcome != history.OK
	})
	if want(t, op, history.Unknown); op.Error != "etcdserver: mvcc: database space exceeded" {
		t.Errorf("it ended with %q", op.Error)
	}
}

// memory keeps what a log gets.
type memory struct {
	kinds chan string
	fail  error
}

func (m *memory) Operation(op *history.Operation) error { m.kinds <- string(op.Kind); return m.fail }
func (m *memory) Watch(history.Watch) error             { m.kinds <- "watch"; return nil }
func (m *memory) Response(int, *history.WatchResponse) error {
	m.kinds <- "response"
	return nil
}

// TestLog: everything goes to the log at once, and its error is kept.
func TestLog(t *testing.T) {
	n := newNode(t)
	log := &memory{kinds: make(chan string, 100), fail: errors.New("full")}
	rec := record.New(record.Options{Log: log, Forget: true})
	c := dial(t, rec, n)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- c.Watch(ctx, history.Watch{Key: "/"}, record.WatchOptions{}) }()
	got := []string{<-log.kinds, <-log.kinds}
	c.Get(ctx, "/", "")
	got = append(got, <-log.kinds)
	cancel()
	if err := <-ended; err == nil {
		t.Error("a watch ended without a word")
	}
	if want := []string{"watch", "response", "range"}; !slices.Equal(got, want) {
		t.Errorf("the log got %s, want %s", joined(got), joined(want))
	}
	if err := rec.Err(); !errors.Is(err, log.fail) {
		t.Errorf("the error of the log is %v", err)
	}
	if h := rec.History(history.Meta{}); len(h.Operations) != 0 || len(h.Watches) != 0 {
		t.Errorf("%d operations and %d watches were kept", len(h.Operations), len(h.Watches))
	}
}

// BenchmarkRecord is what recording adds to a call: one that is refused here and now.
func BenchmarkRecord(b *testing.B) {
	op := history.Operation{
		Kind: "nothing", Then: []history.Request{{Kind: history.Put, Key: "/quorate-check/k/00001", Value: "c1-1-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}},
	}
	for _, file := range []bool{false, true} {
		b.Run(map[bool]string{false: "memory", true: "memory and file"}[file], func(b *testing.B) {
			o := record.Options{}
			if file {
				w, err := history.NewWriter(io.Discard, history.Meta{Prefix: "/"})
				if err != nil {
					b.Fatal(err)
				}
				o.Log = w
			}
			c, err := record.New(o).Dial(b.Context(), record.Target{Endpoint: "http://127.0.0.1:1"})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = c.Close() })
			b.ReportAllocs()
			for b.Loop() {
				c.Do(b.Context(), op)
			}
		})
	}
}
