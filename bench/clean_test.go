package bench_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/quorate/quorate/bench"
)

// keeper is a client for what a test puts and looks at itself.
func keeper(t *testing.T, url string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, Logger: zap.NewNop(), DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// killed is what a load leaves that is killed while it runs and whose mark has ended,
// and the number of its keys.
func killed(t *testing.T, c *clientv3.Client, s bench.Spec) (prefix string, keys int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	abandon := make(chan struct{})
	close(abandon) // what is written stays
	r, err := bench.Run(ctx, s, bench.Options{Abandon: abandon})
	if err != nil {
		t.Fatal(err)
	}
	prefix = r.Cleanup.Prefix
	if mark, err := c.Get(t.Context(), prefix+"run"); err != nil || mark.Count != 0 {
		t.Fatalf("an abandoned run left its mark: %v, %v", mark, err)
	}
	return prefix, countKeys(t, s.Endpoints[0], prefix)
}

func put(t *testing.T, c *clientv3.Client, key string, o ...clientv3.OpOption) {
	t.Helper()
	if _, err := c.Put(t.Context(), key, "theirs", o...); err != nil {
		t.Fatal(err)
	}
}

// TestClean: what killed loads have left goes, with its leases; what is anybody
// else's, or of a load that goes on, or was kept, stays.
func TestClean(t *testing.T) {
	t.Parallel()
	n := cluster(t, 1)[0]
	c := keeper(t, n.Client)
	type left struct {
		prefix string
		keys   int64
	}
	var runs []left
	for _, mix := range []string{"range", "kubernetes", "lease"} {
		prefix, keys := killed(t, c, load(mix, n))
		if keys == 0 {
			t.Fatalf("%s left nothing", mix)
		}
		runs = append(runs, left{prefix, keys})
	}
	kept := load("range", n)
	kept.Keep = true
	k, err := bench.Run(t.Context(), kept, bench.Options{})
	if err != nil {
		t.Fatal(err)
	}
	theirs := []string{
		"/quorate-benc", "/quorate-bench", "/quorate-bench0", "/quorate-bench/", "/quorate-bench/x", "/quorate-bench/mine/00000/k000000000", "/registry/pods/00000/k000000000",
		runs[0].prefix + "notes", runs[0].prefix + "00000/k1", runs[0].prefix + "00000/k000000000/more", runs[0].prefix + "00000/z000000000",
		runs[0].prefix + "registry/secrets/00000/k000000000", "/quorate-bench/123456789/00000/k000000000", "/quorate-bench/ABCDEF00/00000/k000000000",
	}
	for _, key := range theirs {
		put(t, c, key)
	}
	// A lease that holds a key of theirs, too, is theirs.
	shared, err := c.Grant(t.Context(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	put(t, c, runs[0].prefix+"00000/k000000299", clientv3.WithLease(shared.ID))
	put(t, c, "/theirs", clientv3.WithLease(shared.ID))
	theirs = append(theirs, "/theirs")

	runs[0].keys = countKeys(t, n.Client, runs[0].prefix) - 5

	// A load that goes on, of two hosts, of which one marks itself no more.
	const hosts = "/quorate-bench/0badcafe/"
	mark, err := c.Grant(t.Context(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	put(t, c, hosts+"0/run", clientv3.WithLease(mark.ID))
	going := []string{hosts + "0/run", hosts + "0/00000/k000000000", hosts + "1/00000/k000000000"}
	for _, key := range going[1:] {
		put(t, c, key)
	}

	o := bench.CleanOptions{Quiet: time.Second}
	found, err := bench.Clean(t.Context(), load("put", n), o)
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]bench.LeftRun{}
	for _, r := range found {
		by[r.Prefix] = r
	}
	for i, r := range runs {
		others := int64(0)
		if i == 0 {
			others = 5
		}
		if got := by[r.prefix]; got.State != bench.Left || got.Keys != r.keys || got.Bytes < r.keys*64 || got.Others != others {
			t.Errorf("left by %s, %d keys: %+v", r.prefix, r.keys, got)
		}
	}
	if by[runs[2].prefix].Leases == 0 {
		t.Errorf("the leases of a load were not seen: %+v", by[runs[2].prefix])
	}
	for prefix, state := range map[string]string{
		k.Cleanup.Prefix: bench.Kept, hosts + "0/": bench.Running, hosts + "1/": bench.Running, "/quorate-bench/mine/": bench.Foreign, "/quorate-bench/x": bench.Foreign,
	} {
		if by[prefix].State != state {
			t.Errorf("%s is %+v, want %s", prefix, by[prefix], state)
		}
	}
	all := countKeys(t, n.Client, "/")

	asked := 0
	o.Agree = func([]bench.LeftRun) error { asked++; return nil }
	cleaned, err := bench.Clean(t.Context(), load("put", n), o)
	if err != nil || asked != 1 {
		t.Fatalf("asked %d times, %v", asked, err)
	}
	deleted, revoked := int64(0), 0
	for _, r := range cleaned {
		deleted, revoked = deleted+r.Deleted, revoked+r.Revoked
	}
	want := runs[0].keys + runs[1].keys + runs[2].keys
	if now := countKeys(t, n.Client, "/"); deleted != want || now != all-want || revoked == 0 {
		t.Errorf("deleted %d of %d, %d of %d keys are there, %d leases were revoked", deleted, want, now, all, revoked)
	}
	for _, key := range append(theirs, going...) {
		if r, getErr := c.Get(t.Context(), key); getErr != nil || r.Count != 1 {
			t.Errorf("%s is gone: %v", key, getErr)
		}
	}
	if left, lookErr := c.TimeToLive(t.Context(), shared.ID); lookErr != nil || left.TTL <= 0 {
		t.Errorf("a lease of others was revoked: %+v, %v", left, lookErr)
	}
	o.Kept = true
	if _, err = bench.Clean(t.Context(), load("put", n), o); err != nil || countKeys(t, n.Client, k.Cleanup.Prefix) != 0 {
		t.Errorf("what was kept is there still: %v", err)
	}
}

// TestCleanRace: a load that marks itself after it was looked at keeps its keys, and
// so does one without a mark whose keys change.
func TestCleanRace(t *testing.T) {
	t.Parallel()
	n := cluster(t, 1)[0]
	c := keeper(t, n.Client)
	const prefix = "/quorate-bench/12345678/"
	put(t, c, prefix+"00000/k000000001")
	_, err := bench.Clean(t.Context(), load("put", n), bench.CleanOptions{Quiet: time.Second, Agree: func([]bench.LeftRun) error {
		_, err := c.Put(t.Context(), prefix+"run", "")
		return err
	}})
	if err == nil || !strings.Contains(err.Error(), "has marked itself") || countKeys(t, n.Client, prefix) != 2 {
		t.Errorf("it was deleted under the load: %v", err)
	}
	if _, err = c.Delete(t.Context(), prefix+"run"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	written := make(chan struct{})
	go func() {
		defer close(written)
		for ctx.Err() == nil {
			_, _ = c.Put(ctx, prefix+"00000/k000000001", "") // it ends with ctx
		}
	}()
	runs, err := bench.Clean(t.Context(), load("put", n), bench.CleanOptions{Quiet: time.Second, Agree: func([]bench.LeftRun) error { return nil }})
	cancel()
	<-written
	if err != nil || len(runs) != 1 || runs[0].State != bench.Running || countKeys(t, n.Client, prefix) != 1 {
		t.Errorf("keys that change: %+v, %v", runs, err)
	}
}

// TestMark: a run marks itself while it lasts, and says what earlier ones have left.
func TestMark(t *testing.T) {
	t.Parallel()
	n := cluster(t, 1)[0]
	c := keeper(t, n.Client)
	const old = "/quorate-bench/12345678/"
	for i := range 3 {
		put(t, c, fmt.Sprintf("%s00000/k%09d", old, i))
	}
	seen := make(chan *pb.LeaseTimeToLiveResponse, 1)
	var told []string
	s := load("put", n)
	r := mustRun(t, s, bench.Options{Progress: func(p bench.Progress) {
		switch p.Phase {
		case bench.PhaseNote:
			told = append(told, p.Note)
		case bench.PhaseCleanup:
			marks, err := c.Get(t.Context(), "/quorate-bench/", clientv3.WithPrefix())
			if err != nil {
				t.Error(err)
				return
			}
			for _, kv := range marks.Kvs {
				if strings.HasSuffix(string(kv.Key), "/run") && len(seen) == 0 {
					left, err := c.TimeToLive(t.Context(), clientv3.LeaseID(kv.Lease))
					if err != nil {
						t.Error(err)
						return
					}
					seen <- &pb.LeaseTimeToLiveResponse{TTL: left.TTL}
				}
			}
		}
	}})
	select {
	case ttl := <-seen:
		if ttl.GetTTL() < 30 || ttl.GetTTL() > 60 {
			t.Errorf("the mark of a run lasts %d s", ttl.GetTTL())
		}
	default:
		t.Error("a run did not mark itself")
	}
	const want = "3 keys below /quorate-bench/ are left from 1 earlier runs that were killed"
	if len(told) != 1 || !strings.Contains(told[0], want) || !strings.Contains(strings.Join(r.Notes, "\n"), want) {
		t.Errorf("told %q, notes %q", told, r.Notes)
	}
}
