package datadir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/quorate/quorate/test/freeport"
)

// etcd is a real one-member cluster within the test.
type etcd struct {
	*embed.Etcd
	client *clientv3.Client
	stop   func()
}

func freeURL(t *testing.T) url.URL {
	t.Helper()
	return url.URL{Scheme: "http", Host: freeport.Address(t)}
}

func startEtcd(t *testing.T, dir string) *etcd {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir, cfg.Name, cfg.LogLevel = dir, "db-0", "fatal"
	peer, client := freeURL(t), freeURL(t)
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.InitialClusterToken = dir
	cfg.SnapshotCount = 50
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(e.Close)
	t.Cleanup(stop)
	select {
	case <-e.Server.ReadyNotify():
	case err = <-e.Err():
		t.Fatal(err)
	case <-time.After(30 * time.Second):
		t.Fatal("etcd is not ready after 30 s")
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{client.String()}, DialTimeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &etcd{e, c, stop}
}

// put writes n keys and returns where raft stands afterwards.
func (e *etcd) put(t *testing.T, n int) Mark {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for i := range n {
		if _, err := e.client.Put(ctx, fmt.Sprintf("key-%d", i), "value"); err != nil {
			t.Fatal(err)
		}
	}
	status, err := e.client.Status(ctx, e.client.Endpoints()[0])
	if err != nil {
		t.Fatal(err)
	}
	return Mark{Term: status.RaftTerm, Index: status.RaftIndex}
}

// check is Check with what an identity file expects.
func check(t *testing.T, dir string, id Identity) Verdict {
	t.Helper()
	v, err := Check(dir, id.Expectation())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func wantVerdict(t *testing.T, v Verdict, state State, reason Reason) {
	t.Helper()
	if v.State != state || v.Reason != reason {
		t.Fatalf("verdict %s %s (%s), want %s %s", v.State, v.Reason, v.Message, state, reason)
	}
}

// TestTheLawOnARealMember walks a member of real etcd through its life: first
// start, stop, going on, and each way of losing its directory.
func TestTheLawOnARealMember(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "data")
	id := Identity{MemberUID: "u-1", Name: "db-0"}
	wantVerdict(t, check(t, dir, id), Fresh, "")

	id.Starting()
	e := startEtcd(t, dir)
	mark := e.put(t, 30)
	memberID, clusterID := uint64(e.Server.MemberID()), uint64(e.Server.Cluster().ID())

	// While it runs, the log can be read, and a copy is whole or torn at its end.
	tail := mustRead(t, dir)
	if tail.MemberID != memberID || tail.ClusterID != clusterID || tail.Term != mark.Term || tail.LastIndex < mark.Index {
		t.Fatalf("running: %+v; etcd says member %x of %x at %+v", tail, memberID, clusterID, mark)
	}
	older := copyDir(t, dir)
	wantVerdict(t, check(t, older, id), OK, "")
	e.put(t, 200) // beyond snapshots
	e.stop()

	stopped, err := id.RecordStop(dir)
	if err != nil {
		t.Fatal(err)
	}
	if id.MemberID != FormatID(memberID) || id.ClusterID != FormatID(clusterID) || id.Rest == nil || id.Rest.LastIndex != stopped.LastIndex {
		t.Fatalf("recorded %+v of %+v", id, stopped)
	}
	wantVerdict(t, check(t, dir, id), OK, "")
	wantVerdict(t, check(t, older, id), Refused, ReasonRolledBack)
	wantVerdict(t, check(t, filepath.Join(base, "empty"), id), Refused, ReasonEmpty)

	last := copyDir(t, dir)
	id.Starting()
	e = startEtcd(t, dir)
	mark = e.put(t, 5)
	id.Advance(mark.Term, mark.Index)
	e.stop()
	wantVerdict(t, check(t, dir, id), OK, "")
	wantVerdict(t, check(t, last, id), Refused, ReasonRolledBack)

	other := filepath.Join(base, "other")
	e = startEtcd(t, other)
	e.put(t, 1)
	e.stop()
	wantVerdict(t, check(t, other, id), Refused, ReasonForeign)
	before := id
	if _, err := id.RecordStop(other); err != nil || id != before {
		t.Fatalf("a foreign log changed the identity to %+v, %v", id, err)
	}
}

// TestRealLogCutShort truncates the log of a real member: a cut behind the mark is
// a roll-back, and a member that was never seen further goes on.
func TestRealLogCutShort(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	e := startEtcd(t, dir)
	mark := e.put(t, 30)
	e.stop()
	names, err := logFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(walDir(dir), names[len(names)-1])
	raw, end := readLog(t, path)
	seen := Identity{MemberUID: "u-1", StartedOnce: true, Mark: mark}
	for _, cut := range []int{end - 1, end - 100, end / 2} {
		if err := os.WriteFile(path, raw[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		v := check(t, dir, seen)
		short := v.Tail.LastIndex < mark.Index
		if short != (v.Reason == ReasonRolledBack) {
			t.Fatalf("cut at %d of %d: %+v with mark %+v", cut, end, v, mark)
		}
		wantVerdict(t, check(t, dir, Identity{MemberUID: "u-1", StartedOnce: true}), OK, "")
		if cut == end/2 && !short {
			t.Fatalf("half of the log is gone unseen: %+v", v)
		}
	}
	// Etcd itself goes on from what is left of such a log, without a word: that is
	// what the mark is for.
	if _, err := ReadTail(dir); err != nil {
		t.Fatal(err)
	}
	// In what a record holds: a length that is wrong can look like a log that was cut.
	at := bytes.Index(raw[end/2:end], []byte("value"))
	if at < 0 {
		t.Fatal("the second half of the log holds no value")
	}
	raw[end/2+at] ^= 0xff
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, check(t, dir, seen), Refused, ReasonUnreadable)
}

// TestLogGoneDatabaseThere removes the log of a real member and leaves its
// database: nothing may bootstrap on that, even if it never joined.
func TestLogGoneDatabaseThere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	e := startEtcd(t, dir)
	e.put(t, 1)
	e.stop()
	if err := os.RemoveAll(walDir(dir)); err != nil {
		t.Fatal(err)
	}
	v := check(t, dir, Identity{MemberUID: "u-1", StartedOnce: true})
	wantVerdict(t, v, Refused, ReasonForeign)
	if !strings.Contains(v.Message, "has applied one up to index") {
		t.Fatalf("the message doesn't say why: %s", v.Message)
	}
	db := filepath.Join(dir, "member", "snap", "db")
	for _, size := range []int64{20 << 10, 9000, 5000, 100} {
		truncate(t, db, size)
		wantVerdict(t, check(t, dir, Identity{MemberUID: "u-1"}), Refused, ReasonForeign)
	}
	truncate(t, db, 0)
	wantVerdict(t, check(t, dir, Identity{MemberUID: "u-1"}), Fresh, "")
}

// TestStartBrokenOffBeforeTheLog is a first start that ended after etcd made its
// database and before it made its log.
func TestStartBrokenOffBeforeTheLog(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "member/wal.tmp/0.tmp"), "")
	if err := os.MkdirAll(filepath.Join(dir, "member", "snap"), 0o700); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(filepath.Join(dir, "member", "snap", "db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err = tx.CreateBucket([]byte("meta"))
		return err
	})
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, check(t, dir, Identity{MemberUID: "u-1", StartedOnce: true}), Fresh, "")
	wantVerdict(t, check(t, dir, Identity{MemberUID: "u-1", MemberID: "a"}), Refused, ReasonEmpty)
}

// TestReadingChangesNothing compares the directory before and after.
func TestReadingChangesNothing(t *testing.T) {
	dir := makeLog(t, step{term: 1, commit: 1, entries: upTo(1, 3), payload: 100})
	path := filepath.Join(walDir(dir), "0000000000000000-0000000000000000.wal")
	truncate(t, path, 400) // torn
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Etcd's lock on the log doesn't keep anyone from reading, and no lock is taken:
	// read-only permissions are enough.
	if err = os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	if tail := mustRead(t, dir); !tail.Torn {
		t.Fatalf("got %+v, want torn", tail)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Fatalf("the log changed: %v", err)
	}
	names, err := os.ReadDir(walDir(dir))
	if err != nil || len(names) != 1 {
		t.Fatalf("the directory holds %v, %v", names, errors.Join(err))
	}
}
