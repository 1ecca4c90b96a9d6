package backups

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/test/etcdlab"
)

const (
	password = "secret"
	// behind is how far compactions stay behind the newest revision.
	behind = 400
)

// counted by QUORATE_BACKUPS, since each takes a second or two.
func counted(t *testing.T) int {
	t.Helper()
	if text := os.Getenv("QUORATE_BACKUPS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("QUORATE_BACKUPS is %q", text)
		}
		return n
	}
	return 4
}

// grants are the leases that clients were given, and when.
type grants struct {
	mu  sync.Mutex
	all map[int64]*grant
}

type grant struct {
	ttl              int64
	asked, answered  time.Time
	revoking, ending time.Time
}

// traffic is what a load does: puts, large transactions, ranges of deletes, leases that
// come and go.
func traffic(ctx context.Context, c *clientv3.Client, g *grants, done *atomic.Int64) {
	var mine []int64
	for ctx.Err() == nil {
		callCtx, cancel := context.WithTimeout(ctx, 5*time.Second)
		n := rand.IntN(5000)
		name := fmt.Sprintf("/app/%04d", n)
		var err error
		switch rand.IntN(12) {
		case 0:
			_, err = c.Delete(callCtx, name)
		case 1:
			_, err = c.Delete(callCtx, fmt.Sprintf("/app/%03d", n/10), clientv3.WithPrefix())
		case 2:
			ops := make([]clientv3.Op, 0, 100)
			for i := range 100 {
				ops = append(ops, clientv3.OpPut(fmt.Sprintf("/txn/%03d/%d", n%50, i), strconv.Itoa(n)))
			}
			_, err = c.Txn(callCtx).Then(ops...).Commit()
		case 3:
			ttl := int64(600 + rand.IntN(600))
			asked := time.Now()
			var r *clientv3.LeaseGrantResponse
			if r, err = c.Grant(callCtx, ttl); err == nil {
				g.mu.Lock()
				g.all[int64(r.ID)] = &grant{ttl: ttl, asked: asked, answered: time.Now()}
				g.mu.Unlock()
				mine = append(mine, int64(r.ID))
			}
		case 4:
			if len(mine) > 0 {
				_, err = c.Put(callCtx, fmt.Sprintf("/leased/%04d", n), "held", clientv3.WithLease(clientv3.LeaseID(mine[rand.IntN(len(mine))])))
			}
		case 5:
			if len(mine) > 3 {
				id := mine[0]
				mine = mine[1:]
				g.mu.Lock()
				g.all[id].revoking = time.Now()
				g.mu.Unlock()
				if _, err = c.Revoke(callCtx, clientv3.LeaseID(id)); err == nil {
					g.mu.Lock()
					g.all[id].ending = time.Now()
					g.mu.Unlock()
				}
			}
		default:
			_, err = c.Put(callCtx, name, strings.Repeat(strconv.Itoa(n), 20))
		}
		cancel()
		if err == nil {
			done.Add(1)
		}
	}
}

// trouble compacts, and moves the leader.
func trouble(ctx context.Context, l *etcdlab.Cluster, c *clientv3.Client) {
	for i := 0; ctx.Err() == nil; i++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(300 * time.Millisecond): // how often there is trouble
		}
		callCtx, cancel := context.WithTimeout(ctx, 5*time.Second)
		if r, err := c.Get(callCtx, "x"); err == nil && r.Header.Revision > behind {
			_, _ = c.Compact(callCtx, r.Header.Revision-behind) // one that is refused is no trouble
		}
		if i%5 == 4 {
			moveLeader(callCtx, l, c)
		}
		cancel()
	}
}

func moveLeader(ctx context.Context, l *etcdlab.Cluster, c *clientv3.Client) {
	status, err := c.Status(ctx, l.Members[0].Client)
	if err != nil {
		return
	}
	members, err := c.MemberList(ctx)
	if err != nil {
		return
	}
	for _, m := range members.Members {
		if m.ID != status.Leader {
			for _, at := range l.Members {
				if lc, err := at.TryDial(); err == nil {
					_, err = lc.MoveLeader(ctx, m.ID)
					_ = lc.Close()
					if err == nil {
						return
					}
				}
			}
		}
	}
}

// shot is a backup that was taken, and what the source said of it.
type shot struct {
	point      *catalog.Point
	before     time.Time
	after      time.Time
	hash       uint32
	compacted  int64
	fromMember string
}

// TestBackupsUnderLoad takes backups at random moments, some by processes that are
// killed on the way; then each is restored and asked with etcdctl.
func TestBackupsUnderLoad(t *testing.T) {
	l := etcdlab.New(t, etcdlab.Options{Members: 3}).Ready()
	l.EnableAuth(password)
	root := l.Members[0].Dial()
	addUser(t, root)
	ctx, stop := context.WithCancel(t.Context())
	tr := watchAll(ctx, l.Members[1].Dial())
	g := &grants{all: map[int64]*grant{}}
	var writes atomic.Int64
	var working sync.WaitGroup
	for i := range 6 {
		c := l.Members[i%3].Dial()
		working.Go(func() { traffic(ctx, c, g, &writes) })
	}
	working.Go(func() { trouble(ctx, l, root) })

	store := t.TempDir()
	s := spec{Endpoints: l.URLs(), User: "root", Password: password, Store: store, Spool: t.TempDir()}
	n := counted(t)
	shots := make([]shot, 0, n)
	killed := 0
	for len(shots) < n {
		if len(shots)%3 == 2 && killed <= len(shots) {
			killed++
			killOne(t, s)
		}
		time.Sleep(time.Duration(rand.IntN(400)) * time.Millisecond) // a random moment is what is asked for
		shots = append(shots, shoot(t, s, l, root))
	}
	checkRemains(t, s, shots)
	last := shots[len(shots)-1].point.Revision
	want := make([]map[string]key, len(shots))
	for i, sh := range shots {
		want[i] = tr.at(t, sh.point.Revision)
	}
	stop()
	working.Wait()
	compared := 0
	for i, sh := range shots {
		t.Run(fmt.Sprintf("r%d", sh.point.Revision), func(t *testing.T) {
			if compare(t, store, sh, want[i], g) {
				compared++
			}
		})
	}
	t.Logf("%d backups up to revision %d, %d writes, %d processes killed on the way, %d hashes compared", len(shots), last, writes.Load(), killed, compared)
	if compared == 0 {
		t.Error("no hash could be compared")
	}
}

func addUser(t *testing.T, c *clientv3.Client) {
	t.Helper()
	for _, err := range []error{
		second(c.RoleAdd(t.Context(), "app")),
		second(c.RoleGrantPermission(t.Context(), "app", "/app/", "/app0", clientv3.PermissionType(clientv3.PermReadWrite))),
		second(c.UserAdd(t.Context(), "app", "app's")), second(c.UserGrantRole(t.Context(), "app", "app")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// killOne lets a process begin a backup, and kills it at a random moment.
func killOne(t *testing.T, s spec) {
	t.Helper()
	cmd := takeApart(t, s)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Duration(20+rand.IntN(400)) * time.Millisecond) // so is the moment of its death
	_ = cmd.Process.Kill()                                          // it may have ended before
	_ = cmd.Wait()
}

// shoot takes one backup, and asks the source for its hash while it still knows.
func shoot(t *testing.T, s spec, l *etcdlab.Cluster, c *clientv3.Client) shot {
	t.Helper()
	before := time.Now()
	taken, err := s.take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sh := shot{point: taken.Written[0].Point, before: before, after: time.Now(), fromMember: taken.Source.Name}
	for _, m := range l.Members {
		if m.Name != sh.fromMember {
			continue
		}
		h, err := c.HashKV(t.Context(), m.Client, sh.point.Revision)
		if err != nil {
			t.Logf("hash at revision %d: %v", sh.point.Revision, err)
			continue
		}
		sh.hash, sh.compacted = h.Hash, h.CompactRevision
	}
	return sh
}

// checkRemains finds nothing of the killed ones but leftovers that are no backups, and
// no spool.
func checkRemains(t *testing.T, s spec, shots []shot) {
	t.Helper()
	cat, err := backup.ReadCatalog(t.Context(), open(t, s.Store), catalog.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	complete := 0
	for _, e := range cat.Entries {
		switch e.State {
		case catalog.Complete:
			complete++
			if e.Ref.Epoch != 1 {
				t.Errorf("%s begins another epoch: %s", e.Ref, e.Point.EpochReason)
			}
		case catalog.Partial:
		default:
			t.Errorf("%s is %s: %v", e.Ref, e.State, e.Err)
		}
	}
	if complete < len(shots) {
		t.Errorf("%d backups are complete, %d were taken", complete, len(shots))
	}
	left, err := os.ReadDir(s.Spool)
	if err != nil {
		t.Fatal(err)
	}
	if err = backup.SweepSpools(s.Spool); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadDir(s.Spool); err != nil || len(after) > 0 {
		t.Errorf("the spool held %v and holds %v, %v", left, after, err)
	}
}

// compare restores a backup and asks it. It reports whether the hash could be compared.
func compare(t *testing.T, store string, sh shot, want map[string]key, g *grants) bool {
	t.Helper()
	b := open(t, store)
	r := restored(t, backup.Origin{Bucket: b, Entry: entry(t, b, sh.point.Ref())}, "")
	r.User, r.Password = "root", password
	r.Ready()
	at := r.Members[0].Client
	root := "root:" + password
	got := map[string]key{}
	var kvs struct {
		Kvs []struct {
			Key, Value     []byte
			CreateRevision int64 `json:"create_revision"`
			ModRevision    int64 `json:"mod_revision"`
			Version, Lease int64
		}
	}
	decode(t, etcdctl(t, at, root, "get", "", "--from-key"), &kvs)
	for _, kv := range kvs.Kvs {
		got[string(kv.Key)] = key{string(kv.Value), kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease}
	}
	if d := differences(got, want); len(d) > 0 {
		t.Errorf("%d keys restored, %d wanted: %s", len(got), len(want), strings.Join(d, "; "))
	}
	if n := sh.point.Counts.Keys; n != int64(len(want)) {
		t.Errorf("the manifest says %d keys, want %d", n, len(want))
	}
	compareLeases(t, at, root, sh, want, g)
	var own struct{ Count int64 }
	decode(t, etcdctl(t, at, "app:app's", "get", "/app/", "--prefix", "--limit", "1"), &own)
	if own.Count == 0 {
		t.Error("user app sees no keys of its own")
	}
	if sh.compacted == 0 || sh.compacted > sh.point.Revision {
		return false
	}
	return compareHash(t, r.Members[0], sh)
}

// compareHash compacts the restored etcd as the source was, and compares.
func compareHash(t *testing.T, m *etcdlab.Member, sh shot) bool {
	t.Helper()
	c := m.Dial()
	if sh.compacted > sh.point.CompactRevision {
		if _, err := c.Compact(t.Context(), sh.compacted, clientv3.WithCompactPhysical()); err != nil {
			t.Fatal(err)
		}
	}
	h, err := c.HashKV(t.Context(), m.Client, sh.point.Revision)
	if err != nil {
		t.Fatal(err)
	}
	if h.CompactRevision != sh.compacted {
		t.Errorf("compacted at %d, want %d", h.CompactRevision, sh.compacted)
	}
	if h.Hash != sh.hash {
		t.Errorf("the hash is %d, the source's was %d", h.Hash, sh.hash)
	}
	return true
}

// compareLeases wants those that were surely there, and none that surely were not,
// with all of their keys.
func compareLeases(t *testing.T, at, root string, sh shot, want map[string]key, g *grants) {
	t.Helper()
	var list struct{ Leases []struct{ ID int64 } }
	decode(t, etcdctl(t, at, root, "lease", "list"), &list)
	there := map[int64]bool{}
	keys := map[int64][]string{}
	for name, k := range want {
		keys[k.lease] = append(keys[k.lease], name)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, lease := range list.Leases {
		there[lease.ID] = true
		was := g.all[lease.ID]
		if was == nil {
			continue // its client was never answered
		}
		if was.asked.After(sh.after) || !was.ending.IsZero() && was.ending.Before(sh.before) {
			t.Errorf("lease %x was granted after the backup, or revoked before", lease.ID)
		}
		var one struct {
			Granted int64 `json:"granted-ttl"`
			Keys    [][]byte
		}
		decode(t, etcdctl(t, at, root, "lease", "timetolive", strconv.FormatInt(lease.ID, 16), "--keys"), &one)
		names := make([]string, 0, len(one.Keys))
		for _, k := range one.Keys {
			names = append(names, string(k))
		}
		slices.Sort(names)
		slices.Sort(keys[lease.ID])
		if !slices.Equal(names, keys[lease.ID]) || one.Granted != was.ttl {
			t.Errorf("lease %x of %d s holds %v, want %d s and %v", lease.ID, one.Granted, names, was.ttl, keys[lease.ID])
		}
	}
	for id, was := range g.all {
		surely := was.answered.Before(sh.before) && (was.revoking.IsZero() || was.revoking.After(sh.after))
		if surely && !there[id] {
			t.Errorf("lease %x is missing", id)
		}
	}
}

func decode(t *testing.T, raw []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatal(errors.Join(err, fmt.Errorf("%.200s", raw)))
	}
}
