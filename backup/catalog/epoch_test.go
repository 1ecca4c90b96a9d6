package catalog_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/quorate/quorate/backup/catalog"
)

func TestNextEpoch(t *testing.T) {
	at := func(revision int64, term, index uint64) catalog.Position {
		return catalog.Position{Revision: revision, RaftTerm: term, RaftIndex: index}
	}
	one := entry(hourly(prod, 10), catalog.Complete) // revision 1000, index 1010, term 2
	second := prod
	second.Epoch = 2
	two := entry(hourly(second, -900), catalog.Complete) // revision 90, index 100
	other := prod
	other.Name = "prod-eu"
	recreated := prod
	recreated.ClusterID++
	broken := entry(hourly(prod, 20), catalog.Damaged) // revision 1010
	clockBack := entry(hourly(prod, 9), catalog.Complete)
	clockBack.Ref.Time = noon.AddDate(5, 0, 0) // older data, later time

	for _, tc := range []struct {
		name   string
		points []catalog.Entry
		at     catalog.Position
		epoch  uint32
		reason string
	}{
		{"the first", nil, at(5, 1, 5), 1, ""},
		{"only others", []catalog.Entry{entry(hourly(other, 10), catalog.Complete), entry(hourly(recreated, 10), catalog.Complete)}, at(5, 1, 5), 1, ""},
		{"further", []catalog.Entry{one}, at(1001, 2, 1011), 1, ""},
		{"unchanged", []catalog.Entry{one}, at(1000, 2, 1010), 1, ""},
		{"revision back", []catalog.Entry{one}, at(999, 3, 2000), 2, "revision 999 is below 1000, which epoch 1 had"},
		{"term back", []catalog.Entry{one}, at(5000, 1, 2000), 2, "raft term 1 is below 2, which epoch 1 had"},
		{"index back, as after a bumped revision", []catalog.Entry{one}, at(1_000_001_000, 2, 8), 2, "raft index 8 is below 1010, which epoch 1 had"},
		{"term and index not known", []catalog.Entry{one}, at(1001, 0, 0), 1, ""},
		{"in the second epoch", []catalog.Entry{two, one}, at(95, 2, 110), 2, ""},
		{"back again", []catalog.Entry{one, two}, at(80, 2, 110), 3, "revision 80 is below 90, which epoch 2 had"},
		{"a broken manifest counts by its name", []catalog.Entry{one, broken}, at(1005, 2, 1020), 2, "revision 1005 is below 1010, which epoch 1 had"},
		{"the clock went back", []catalog.Entry{clockBack, one}, at(1001, 2, 1011), 1, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			epoch, reason := catalog.NextEpoch(tc.points, prod.Cluster, prod.ClusterID, tc.at)
			require.Equal(t, tc.epoch, epoch)
			require.Equal(t, tc.reason, reason)
		})
	}
}

// backupOf is the i-th backup of a cluster, i hours after the first, in an epoch of a store.
func backupOf(i int, epoch uint32, revision int64, term, index uint64) catalog.Entry {
	ref := hourly(prod, i)
	ref.Epoch, ref.Revision = epoch, revision
	e := entry(ref, catalog.Complete)
	e.Point.RaftTerm, e.Point.RaftIndex = term, index
	return e
}

func TestEpochThere(t *testing.T) {
	// Revisions 10 and 200 are from before a reset, 50 to 60 from after it.
	ten, twoHundred := backupOf(1, 1, 10, 5, 100), backupOf(2, 1, 200, 5, 400)
	fifty, fiftyFive, sixty := backupOf(3, 2, 50, 2, 10), backupOf(4, 2, 55, 2, 15), backupOf(5, 2, 60, 2, 20)
	source := []catalog.Entry{ten, twoHundred, fifty, fiftyFive, sixty}
	of := func(epoch uint32, e catalog.Entry) catalog.Entry {
		e.Ref.Epoch = epoch
		p := *e.Point
		p.Epoch = epoch
		e.Point = &p
		return e
	}
	unlike := func(e catalog.Entry, change func(*catalog.Entry)) catalog.Entry {
		p := *e.Point
		e.Point = &p
		change(&e)
		return e
	}
	elsewhere := unlike(of(1, sixty), func(e *catalog.Entry) { e.Ref.Name = "prod-eu" }) // later, in an epoch before
	recreated := unlike(of(1, sixty), func(e *catalog.Entry) { e.Ref.ClusterID++ })
	leftover := of(1, entry(sixty.Ref, catalog.Complete))
	leftover.State, leftover.Point = catalog.Partial, nil
	damaged := of(1, twoHundred)
	damaged.State, damaged.Point = catalog.Damaged, nil
	skewed := unlike(backupOf(0, 1, 300, 5, 500), func(*catalog.Entry) {}) // newer than 200, by a clock that went back
	bumped := backupOf(6, 1, 1_000_000, 2, 30)                             // after a reset with a bumped revision, which only its index tells
	earlier, idle := backupOf(0, 2, 5, 2, 1), backupOf(4, 2, 60, 2, 20)
	for _, tc := range []struct {
		name   string
		point  catalog.Entry
		source []catalog.Entry
		target []catalog.Entry
		want   uint32 // 0 where it is refused
	}{
		{"nothing is there", fifty, source, nil, 2},
		{"only others are there", fifty, source, []catalog.Entry{elsewhere, recreated, leftover}, 2},
		{"it was missed", fiftyFive, source, []catalog.Entry{ten, twoHundred, fifty, sixty}, 2},
		{"an epoch was missed", twoHundred, source, []catalog.Entry{fifty, sixty}, 1},
		{"the newest was missed", sixty, source, []catalog.Entry{ten, twoHundred}, 2},
		{"the other began after the reset", fiftyFive, source, []catalog.Entry{of(1, fifty), of(1, sixty)}, 1},
		{"and has nothing older", fifty, source, []catalog.Entry{of(1, fiftyFive), of(1, sixty)}, 1},
		{"and what was before has no place", twoHundred, source, []catalog.Entry{of(1, fifty), of(1, sixty)}, 0},
		{"unless no revision tells", ten, source, []catalog.Entry{unlike(of(1, fifty), func(e *catalog.Entry) { e.Point.RaftTerm, e.Point.RaftIndex = 0, 0 })}, 1},
		{"the term tells", ten, source, []catalog.Entry{unlike(of(1, fifty), func(e *catalog.Entry) { e.Point.RaftIndex = 0 })}, 0},
		{"the index tells", ten, source, []catalog.Entry{unlike(of(1, fifty), func(e *catalog.Entry) { e.Point.RaftTerm = 0 })}, 0},
		{"the other saw no reset", twoHundred, source, []catalog.Entry{of(1, ten), of(1, unlike(fifty, func(e *catalog.Entry) { e.Point.RaftTerm, e.Point.RaftIndex = 0, 0 }))}, 0},
		{"the other split an epoch", fiftyFive, source, []catalog.Entry{of(3, fifty), of(4, sixty)}, 3},
		{"the nearest counts", sixty, source, []catalog.Entry{of(3, fifty), of(4, fiftyFive)}, 4},
		{"only there, before, and behind", sixty, []catalog.Entry{sixty}, []catalog.Entry{of(2, fifty)}, 2},
		{"only there, before, and ahead", sixty, []catalog.Entry{sixty}, []catalog.Entry{of(2, twoHundred)}, 0},
		{"only there, later, and ahead", ten, []catalog.Entry{ten}, []catalog.Entry{of(1, unlike(twoHundred, func(*catalog.Entry) {}))}, 1},
		{"only there, later, and behind", twoHundred, []catalog.Entry{twoHundred}, []catalog.Entry{of(1, fifty)}, 0},
		{"only there, later, in an epoch before", fifty, []catalog.Entry{fifty}, []catalog.Entry{of(1, sixty)}, 0},
		{"only there, before, in an epoch after", fifty, []catalog.Entry{fifty}, []catalog.Entry{of(3, ten)}, 0},
		{"only there, at the same time", fifty, []catalog.Entry{fifty}, []catalog.Entry{unlike(of(3, fifty), func(e *catalog.Entry) { e.Ref.Nonce = "0badcafe" })}, 2},
		{"a damaged one stands in the way, too", fifty, []catalog.Entry{of(1, fifty)}, []catalog.Entry{damaged}, 2},
		{"a clock went back, and both have it", skewed, append([]catalog.Entry{skewed}, source...), []catalog.Entry{ten, twoHundred}, 1},
		{"a clock went back, and only it is here", skewed, []catalog.Entry{skewed}, []catalog.Entry{twoHundred}, 0},
		{"a clock went back with the reset", earlier, []catalog.Entry{ten, earlier}, []catalog.Entry{ten}, 2},
		{"another one at the same time", fifty, []catalog.Entry{fifty}, []catalog.Entry{unlike(of(1, fifty), func(e *catalog.Entry) { e.Ref.Nonce = "0badcafe" })}, 2},
		{"the nearest after it counts", fifty, source, []catalog.Entry{of(3, fiftyFive), of(4, sixty)}, 3},
		{"nothing was written since", sixty, []catalog.Entry{sixty}, []catalog.Entry{idle}, 2},
		{"a bumped revision", twoHundred, source, []catalog.Entry{bumped}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := catalog.EpochThere(&tc.point, tc.source, tc.target)
			if tc.want == 0 {
				require.ErrorIs(t, err, catalog.ErrEpoch)
				require.ErrorContains(t, err, "copy it to another prefix or bucket")
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
}

// TestCopiesKeepOrder has two stores back a cluster up, each missing some, while it is
// reset now and then, and copies what one lacks, in any order: there, too, epochs never
// go back, and nothing in an epoch is behind what came before it. Without a reset nothing
// is refused.
func TestCopiesKeepOrder(t *testing.T) {
	copied, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		at, resets := catalog.Position{Revision: 1, RaftTerm: 1, RaftIndex: 1}, 0
		mayReset := rapid.Bool().Draw(t, "reset")
		stores := make([][]catalog.Entry, 2)
		for i := range rapid.IntRange(1, 15).Draw(t, "backups") {
			switch grown := rapid.IntRange(0, 30).Draw(t, "grown"); {
			case mayReset && rapid.IntRange(0, 4).Draw(t, "resets") == 0:
				at = catalog.Position{Revision: at.Revision + int64(rapid.IntRange(-50, 50).Draw(t, "to")), RaftTerm: 1, RaftIndex: uint64(rapid.IntRange(1, 20).Draw(t, "index"))}
				at.Revision = max(at.Revision, 1)
				resets++
			default:
				at.Revision, at.RaftIndex = at.Revision+int64(grown), at.RaftIndex+uint64(grown)
				at.RaftTerm += uint64(rapid.IntRange(0, 1).Draw(t, "elected"))
			}
			for s := range stores {
				if rapid.IntRange(0, 2).Draw(t, fmt.Sprint("store ", s)) > 0 {
					epoch, _ := catalog.NextEpoch(stores[s], prod.Cluster, prod.ClusterID, at)
					stores[s] = append(stores[s], backupOf(i, epoch, at.Revision, at.RaftTerm, at.RaftIndex))
				}
			}
		}
		requireOrder(t, stores[1])
		for _, p := range rapid.Permutation(stores[0]).Draw(t, "order") {
			if slices.ContainsFunc(stores[1], func(e catalog.Entry) bool { return e.Ref.SameBackup(p.Ref) }) {
				continue
			}
			epoch, err := catalog.EpochThere(&p, stores[0], stores[1])
			if err != nil {
				require.ErrorIs(t, err, catalog.ErrEpoch)
				require.NotZero(t, resets)
				refused++
				continue
			}
			copied++
			point := *p.Point
			p.Ref.Epoch, point.Epoch, p.Point = epoch, epoch, &point
			stores[1] = append(stores[1], p)
			requireOrder(t, stores[1])
		}
	})
	require.Positive(t, copied)
	t.Logf("%d copied, %d refused", copied, refused)
}

// requireOrder looks at each pair, in the order in which they were taken.
func requireOrder(t require.TestingT, entries []catalog.Entry) {
	for i := range entries {
		for j := range entries {
			a, b := &entries[i], &entries[j]
			if !a.Ref.Time.Before(b.Ref.Time) {
				continue
			}
			require.LessOrEqual(t, a.Ref.Epoch, b.Ref.Epoch, "%s, %s", a.Ref, b.Ref)
			if a.Ref.Epoch == b.Ref.Epoch {
				require.LessOrEqual(t, a.Ref.Revision, b.Ref.Revision, "%s, %s", a.Ref, b.Ref)
				require.LessOrEqual(t, a.Point.RaftTerm, b.Point.RaftTerm, "%s, %s", a.Ref, b.Ref)
				require.LessOrEqual(t, a.Point.RaftIndex, b.Point.RaftIndex, "%s, %s", a.Ref, b.Ref)
			}
		}
	}
}

// TestSameBackup: epochs are no part of it, nor is how a time is written down.
func TestSameBackup(t *testing.T) {
	a := hourly(prod, 1)
	b := a
	b.Epoch, b.Time = 7, b.Time.In(time.FixedZone("east", 3600))
	require.True(t, a.SameBackup(b))
	for _, change := range []func(*catalog.Ref){
		func(r *catalog.Ref) { r.Name = "other" }, func(r *catalog.Ref) { r.ClusterID++ }, func(r *catalog.Ref) { r.Revision++ },
		func(r *catalog.Ref) { r.Nonce = "ffffffff" }, func(r *catalog.Ref) { r.Time = r.Time.Add(time.Second) },
	} {
		c := a
		change(&c)
		require.False(t, a.SameBackup(c), c)
	}
}
