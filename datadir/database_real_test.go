package datadir

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestFileEqualsEtcd reads snapshots of real etcds and asks the etcds the same:
// keys at several revisions, hashes, leases, members.
func TestFileEqualsEtcd(t *testing.T) {
	t.Parallel()
	for _, version := range versions {
		t.Run("etcd-"+version, func(t *testing.T) {
			t.Parallel()
			l := lab(t, version)
			c := l.Members[0].Dial()
			r := rand.New(rand.NewPCG(7, uint64(len(version))))

			fresh := open(t, save(t, c))
			if got := fresh.Info().Revision; got != 1 {
				t.Errorf("a new database is at revision %d", got)
			}
			sameHash(t, c, fresh, 0)

			leases := grant(t, c, 5)
			churn(t, c, r, leases, 400)
			first := revisionOf(t, c)
			compare(t, c, open(t, save(t, c)), []int64{1, 2, first / 3, first - 1, first})

			must[*clientv3.CompactResponse](t)(c.Compact(t.Context(), first-150, clientv3.WithCompactPhysical()))
			churn(t, c, r, leases, 200)
			second := revisionOf(t, c)
			compare(t, c, open(t, save(t, c)), []int64{first - 149, first - 100, second - 10, second})

			// Compacted to a tombstone, which newer etcds keep and older ones delete.
			must[*clientv3.PutResponse](t)(c.Put(t.Context(), "/k/gone", "x"))
			gone := must[*clientv3.DeleteResponse](t)(c.Delete(t.Context(), "/k/gone")).Header.Revision
			must[*clientv3.CompactResponse](t)(c.Compact(t.Context(), gone, clientv3.WithCompactPhysical()))
			db := open(t, save(t, c))
			compareKeys(t, c, db, []int64{gone})
			must[*clientv3.PutResponse](t)(c.Put(t.Context(), "/k/after", "x"))
			compare(t, c, open(t, save(t, c)), []int64{gone + 1})

			// Everything gone.
			must[*clientv3.DeleteResponse](t)(c.Delete(t.Context(), "", clientv3.WithPrefix()))
			compare(t, c, open(t, save(t, c)), []int64{0})

			last := revisionOf(t, c)
			must[*clientv3.CompactResponse](t)(c.Compact(t.Context(), last, clientv3.WithCompactPhysical()))
			db = open(t, save(t, c))
			if got := db.Info().Revision; got != last {
				t.Errorf("the revision is %d where all is compacted at %d", got, last)
			}
			var too *KVHash
			for _, at := range []int64{last - 1, last + 1} {
				want := map[bool]error{true: ErrCompacted, false: ErrFutureRevision}[at < last]
				if h, err := db.HashKV(t.Context(), at); !errors.Is(err, want) {
					too = &h
					t.Errorf("at %d: %v, %v; want %v", at, too, err, want)
				}
				if err := db.Keys(t.Context(), at, KeyRange{}, func(Change) error { return nil }); !errors.Is(err, want) {
					t.Errorf("keys at %d: %v, want %v", at, err, want)
				}
			}
		})
	}
}

func compare(t *testing.T, c *clientv3.Client, db *DB, revisions []int64) {
	t.Helper()
	compareKeys(t, c, db, revisions)
	for _, at := range append(revisions, 0) {
		sameHash(t, c, db, at)
	}
}

func compareKeys(t *testing.T, c *clientv3.Client, db *DB, revisions []int64) {
	t.Helper()
	ctx := t.Context()
	for _, at := range revisions {
		if diff := cmp.Diff(served(t, c, at), stored(t, db, at, KeyRange{})); diff != "" {
			t.Errorf("keys at %d: -etcd +file:\n%s", at, diff)
		}
	}
	want := served(t, c, 0)
	want = slices.DeleteFunc(want, func(p pair) bool { return !strings.HasPrefix(p.Key, "/k/1") })
	if diff := cmp.Diff(want, stored(t, db, 0, Prefix("/k/1"))); diff != "" {
		t.Errorf("keys with a prefix: -etcd +file:\n%s", diff)
	}
	info, err := CheckSnapshot(ctx, db.Info().Path, CheckOptions{HashKV: true})
	if err != nil {
		t.Fatal(err)
	}
	if want := must[KVHash](t)(db.HashKV(ctx, 0)); info.HashKV != want {
		t.Errorf("the check hashes to %+v, want %+v", info.HashKV, want)
	}
	if !info.Verified || info.Keys != int64(len(served(t, c, 0))) || info.Revision != revisionOf(t, c) {
		t.Errorf("check says %+v; etcd has %d keys at revision %d", info, len(want), revisionOf(t, c))
	}
	ids := must[*clientv3.LeaseLeasesResponse](t)(c.Leases(ctx)).Leases
	var got int
	err = db.Leases(ctx, func(l Lease) error {
		got++
		live := must[*clientv3.LeaseTimeToLiveResponse](t)(c.TimeToLive(ctx, clientv3.LeaseID(l.ID), clientv3.WithAttachedKeys()))
		var keys []string
		for _, k := range live.Keys {
			keys = append(keys, string(k))
		}
		slices.Sort(keys)
		slices.Sort(l.Keys)
		if live.GrantedTTL != l.TTL || !slices.Equal(keys, l.Keys) {
			t.Errorf("lease %x: etcd has %d s and %v, the file %d s and %v", l.ID, live.GrantedTTL, keys, l.TTL, l.Keys)
		}
		return nil
	})
	if err != nil || got != len(ids) || info.Leases != got {
		t.Errorf("leases: %d of %d in the file, %d counted: %v", got, len(ids), info.Leases, err)
	}
	members := must[*clientv3.MemberListResponse](t)(c.MemberList(ctx)).Members
	if len(info.Members) != len(members) || info.Members[0].ID != members[0].ID || info.Members[0].Name != members[0].Name ||
		!slices.Equal(info.Members[0].PeerURLs, members[0].PeerURLs) || !slices.Equal(info.Members[0].ClientURLs, members[0].ClientURLs) {
		t.Errorf("members %+v, want %+v", info.Members, members)
	}
}

// TestHistoryAndWalk reads every revision and those of one key.
func TestHistoryAndWalk(t *testing.T) {
	t.Parallel()
	l := lab(t, "")
	c := l.Members[0].Dial()
	churn(t, c, rand.New(rand.NewPCG(3, 3)), grant(t, c, 2), 200)
	events := must[[]*clientv3.Event](t)(watched(t, c))
	db := open(t, save(t, c))
	var n int
	err := db.Walk(t.Context(), 0, func(ch Change) error {
		e := events[n]
		if string(e.Kv.Key) != string(ch.Key) || e.Kv.ModRevision != ch.Revision || (e.Type == clientv3.EventTypeDelete) != ch.Deleted {
			t.Fatalf("change %d: %+v, want %v", n, ch, e)
		}
		n++
		return nil
	})
	if err != nil || n != len(events) {
		t.Fatalf("%d changes of %d: %v", n, len(events), err)
	}
	key := string(events[len(events)-1].Kv.Key)
	var want, got []int64
	for _, e := range events {
		if string(e.Kv.Key) == key {
			want = append(want, e.Kv.ModRevision)
		}
	}
	err = db.History(t.Context(), key, func(ch Change) error {
		got = append(got, ch.Revision)
		return nil
	})
	if err != nil || !slices.Equal(want, got) {
		t.Errorf("history of %s: %v, want %v: %v", key, got, want, err)
	}
	n = 0
	err = db.Walk(t.Context(), 0, func(Change) error { n++; return fs.SkipAll })
	if err != nil || n != 1 {
		t.Errorf("ended after %d: %v", n, err)
	}
	from := events[len(events)/2].Kv.ModRevision
	n = 0
	err = db.Walk(t.Context(), from, func(ch Change) error {
		if n++; ch.Revision < from || (n == 1 && ch.Revision != from) {
			t.Errorf("change %d from %d on is of %d", n, from, ch.Revision)
		}
		return nil
	})
	if late := slices.IndexFunc(events, func(e *clientv3.Event) bool { return e.Kv.ModRevision >= from }); err != nil || n != len(events)-late {
		t.Errorf("%d changes from %d on, want %d: %v", n, from, len(events)-late, err)
	}
	mine := errors.New("mine")
	if err = db.Keys(t.Context(), 0, KeyRange{}, func(Change) error { return mine }); !errors.Is(err, mine) {
		t.Errorf("the visitor's error is %v", err)
	}
}

// watched are all events of the cluster's life.
func watched(t *testing.T, c *clientv3.Client) ([]*clientv3.Event, error) {
	t.Helper()
	now := revisionOf(t, c)
	var events []*clientv3.Event
	for r := range c.Watch(t.Context(), "", clientv3.WithPrefix(), clientv3.WithRev(1)) {
		events = append(events, r.Events...)
		if r.Err() != nil || events[len(events)-1].Kv.ModRevision >= now {
			return events, r.Err()
		}
	}
	return nil, errors.New("the watch ended")
}

// TestOpenInUse asks for the database of a running etcd.
func TestOpenInUse(t *testing.T) {
	t.Parallel()
	l := lab(t, "")
	path := filepath.Join(l.Members[0].Dir, "member", "snap", "db")
	start := time.Now()
	_, err := OpenDB(t.Context(), path)
	if took := time.Since(start); !errors.Is(err, ErrInUse) || took > 2*time.Second {
		t.Errorf("opened after %s: %v", took, err)
	}
	if _, err = CheckSnapshot(t.Context(), path, CheckOptions{AllowNoHash: true}); !errors.Is(err, ErrInUse) {
		t.Errorf("checked: %v", err)
	}
	l.Members[0].Stop()
	info, err := CheckSnapshot(t.Context(), path, CheckOptions{AllowNoHash: true})
	if err != nil || info.Verified || len(info.SHA256) != 64 {
		t.Errorf("after it has stopped: %+v, %v", info, err)
	}
	if _, err = CheckSnapshot(t.Context(), path, CheckOptions{}); !errors.Is(err, ErrNoHash) {
		t.Errorf("without a hash: %v", err)
	}
	// Reading needs no permission to write, and changes nothing.
	if err = os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	open(t, path)
}
