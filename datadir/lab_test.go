package datadir

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/lease/leasepb"
	"google.golang.org/protobuf/proto"

	"github.com/quorate/quorate/test/etcdlab"
)

// TestMain makes the test binary act as etcd too, and as the process of a restore
// that TestRestoreKilled kills.
func TestMain(m *testing.M) {
	etcdlab.ActAsEtcd()
	if dir := os.Getenv(killedDir); dir != "" {
		restoreToBeKilled(dir)
		return
	}
	os.Exit(m.Run())
}

// versions are the etcds that snapshots are taken from and restored to; "" is the
// one of this module.
var versions = []string{"3.5.35", "3.6.16", ""}

// lab is one member of that version.
func lab(t *testing.T, version string) *etcdlab.Cluster {
	t.Helper()
	return unready(t, version, etcdlab.Options{}).Ready()
}

func unready(t *testing.T, version string, o etcdlab.Options) *etcdlab.Cluster {
	t.Helper()
	if version != "" {
		binary, err := etcdlab.Built(version)
		if err != nil {
			t.Skip(err)
		}
		o.Binary = binary
	}
	return etcdlab.New(t, o)
}

func must[T any](tb testing.TB) func(T, error) T {
	tb.Helper()
	return func(v T, err error) T {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return v
	}
}

// churn makes n random changes of all kinds: puts, deletes, ranges, transactions
// with several changes, leased keys.
func churn(t *testing.T, c *clientv3.Client, r *rand.Rand, leases []clientv3.LeaseID, n int) {
	t.Helper()
	ctx := t.Context()
	key := func() string { return fmt.Sprintf("/k/%03d", r.IntN(300)) }
	for range n {
		var err error
		switch r.IntN(10) {
		case 0:
			_, err = c.Delete(ctx, key())
		case 1:
			_, err = c.Delete(ctx, fmt.Sprintf("/k/%02d", r.IntN(30)), clientv3.WithPrefix())
		case 2:
			a := r.IntN(100)
			_, err = c.Txn(ctx).Then(
				clientv3.OpPut(fmt.Sprintf("/k/%03d", a), "t"), clientv3.OpDelete(fmt.Sprintf("/k/%03d", 100+a)),
				clientv3.OpPut(fmt.Sprintf("/t/%03d", a), "x", clientv3.WithLease(leases[r.IntN(len(leases))])),
				clientv3.OpDelete(fmt.Sprintf("/k/2%d", r.IntN(10)), clientv3.WithPrefix()),
			).Commit()
		case 3:
			_, err = c.Put(ctx, key(), "leased", clientv3.WithLease(leases[r.IntN(len(leases))]))
		default:
			_, err = c.Put(ctx, key(), strings.Repeat("v", r.IntN(400)))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func grant(t *testing.T, c *clientv3.Client, n int) []clientv3.LeaseID {
	t.Helper()
	var ids []clientv3.LeaseID
	for i := range n {
		ids = append(ids, must[*clientv3.LeaseGrantResponse](t)(c.Grant(t.Context(), int64(3600+i))).ID)
	}
	return ids
}

func revisionOf(t *testing.T, c *clientv3.Client) int64 {
	t.Helper()
	return must[*clientv3.GetResponse](t)(c.Get(t.Context(), "x")).Header.Revision
}

// save takes a snapshot as etcdctl does.
func save(t *testing.T, c *clientv3.Client) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "snapshot.db")
	src := must[io.ReadCloser](t)(c.Snapshot(t.Context()))
	raw := must[[]byte](t)(io.ReadAll(src))
	if err := errors.Join(src.Close(), os.WriteFile(path, raw, 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(tb testing.TB, path string) *DB {
	tb.Helper()
	db, err := OpenDB(tb.Context(), path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	return db
}

// pair is a key as etcd and the file must agree on it.
type pair struct {
	Key, Value                    string
	Created, Mod, Version, Leased int64
}

// served are all keys that etcd has at a revision.
func served(t *testing.T, c *clientv3.Client, revision int64) []pair {
	t.Helper()
	var list []pair
	for _, kv := range must[*clientv3.GetResponse](t)(c.Get(t.Context(), "", clientv3.WithRev(revision), clientv3.WithPrefix())).Kvs {
		list = append(list, pair{string(kv.Key), string(kv.Value), kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease})
	}
	return list
}

// stored are all keys that the file has at a revision.
func stored(t *testing.T, db *DB, revision int64, r KeyRange) []pair {
	t.Helper()
	var list []pair
	err := db.Keys(t.Context(), revision, r, func(c Change) error {
		list = append(list, pair{string(c.Key), string(c.Value), c.Created, c.Revision, c.Version, c.Lease})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(list, func(a, b pair) int { return strings.Compare(a.Key, b.Key) })
	return list
}

func sameHash(t *testing.T, c *clientv3.Client, db *DB, revision int64) {
	t.Helper()
	want, err := c.HashKV(t.Context(), c.Endpoints()[0], revision)
	if err != nil {
		t.Fatal(err)
	}
	got, err := db.HashKV(t.Context(), revision)
	if err != nil {
		t.Fatal(err)
	}
	if got.Hash != want.Hash || got.CompactRevision != want.CompactRevision || (want.HashRevision != 0 && got.Revision != want.HashRevision) {
		t.Errorf("at %d: the file gives %+v, etcd %d at %d compacted %d", revision, got, want.Hash, want.HashRevision, want.CompactRevision)
	}
}

// synthetic writes a database of etcd's shape with bbolt: n keys, then half of them
// again, some deleted, some leased. It is quick, and equal at each call.
func synthetic(tb testing.TB, n, valueBytes int) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true, NoFreelistSync: true})
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	r := rand.New(rand.NewPCG(1, 2))
	revision := int64(1)
	value := make([]byte, valueBytes)
	batch := func(lo, hi, step int, version int64) error {
		return db.Update(func(tx *bbolt.Tx) error {
			b, berr := tx.CreateBucketIfNotExists([]byte(keyBucket))
			if berr != nil {
				return berr
			}
			b.FillPercent = 0.9
			for i := lo; i < hi; i += step {
				revision++
				for j := range value {
					value[j] = byte(r.Uint32())
				}
				created := revision
				if version > 1 {
					created = int64(i + 2)
				}
				kv := &mvccpb.KeyValue{Key: fmt.Appendf(nil, "/registry/pods/%09d", i), Value: value, CreateRevision: created, ModRevision: revision, Version: version, Lease: int64(i % 3)}
				rev := formatRevision(revision)
				if version > 1 && i%10 == 0 {
					kv, rev = &mvccpb.KeyValue{Key: kv.Key}, append(rev, tombstoneMark)
				}
				raw, merr := proto.Marshal(kv)
				if merr != nil {
					return merr
				}
				if berr = b.Put(rev, raw); berr != nil {
					return berr
				}
			}
			return nil
		})
	}
	for lo := 0; lo < n; lo += 50_000 {
		err = errors.Join(err, batch(lo, min(n, lo+50_000), 1, 1))
	}
	for lo := 0; lo < n; lo += 50_000 {
		err = errors.Join(err, batch(lo, min(n, lo+50_000), 5, 2))
	}
	err = errors.Join(err, db.Update(syntheticRest))
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

func syntheticRest(tx *bbolt.Tx) error {
	put := func(bucket string, key, value []byte) error {
		b, err := tx.CreateBucketIfNotExists([]byte(bucket))
		if err != nil {
			return err
		}
		return b.Put(key, value)
	}
	member, err := json.Marshal(map[string]any{"id": 10, "name": "old", "peerURLs": []string{"http://old:2380"}})
	for id := range uint64(3) {
		raw, err2 := proto.Marshal(&leasepb.Lease{ID: int64(id), TTL: 60})
		err = errors.Join(err, err2, put(leaseBucket, binary.BigEndian.AppendUint64(nil, id), raw))
	}
	return errors.Join(
		err, put(metaBucket, []byte("consistent_index"), formatNumber(77)), put(metaBucket, []byte("term"), formatNumber(3)),
		put(membersBucket, []byte("a"), member), put(removedMembersBucket, []byte("b"), []byte("removed")),
		put(clusterBucket, []byte("clusterVersion"), []byte("3.5.0")), put(authBucket, []byte("authRevision"), formatNumber(1)),
	)
}

// sealed is the snapshot of a database: its pages in use and their hash.
func sealed(tb testing.TB, db string) []byte {
	tb.Helper()
	raw, err := os.ReadFile(db)
	if err != nil {
		tb.Fatal(err)
	}
	f, err := os.Open(db)
	if err != nil {
		tb.Fatal(err)
	}
	p, err := newPager(f)
	if err = errors.Join(err, f.Close()); err != nil {
		tb.Fatal(err)
	}
	return seal(raw[:p.size()])
}

func seal(db []byte) []byte {
	h := NewSnapshotHash()
	_, _ = h.Write(db)
	_, all, _ := h.sums()
	return append(slices.Clip(db), all[:]...)
}
