package catalog_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/quorate/quorate/backup/catalog"
)

const (
	complete = catalog.Complete
	verified = catalog.Verified
	bad      = catalog.ResultFailed
)

// kept are the IDs' numbers (the nonces) of what is kept, with the rules.
func kept(tb testing.TB, p catalog.Policy, s catalog.Situation, entries ...catalog.Entry) map[string][]catalog.Rule {
	tb.Helper()
	if s.Now.IsZero() {
		s.Now = noon
	}
	decisions, err := p.Decide(entries, s)
	require.NoError(tb, err)
	got := map[string][]catalog.Rule{}
	for _, d := range decisions {
		if !d.Keep {
			require.Len(tb, d.Reasons, 1)
			continue
		}
		for _, r := range d.Reasons {
			require.NotEmpty(tb, r.Text)
			got[d.Entry.Ref.Nonce] = append(got[d.Entry.Ref.Nonce], r.Rule)
		}
	}
	return got
}

func n(i int) string { return fmt.Sprintf("%08x", i) }

func TestKeepLast(t *testing.T) {
	var entries []catalog.Entry
	for i := range 20 { // revisions 990 to 1009: as text, 1000 sorts before 990
		entries = append(entries, entry(hourly(prod, i), complete, verified))
	}
	got := kept(t, catalog.Policy{KeepLast: 3}, catalog.Situation{}, entries...)
	require.Equal(t, map[string][]catalog.Rule{
		n(17): {catalog.KeepLast}, n(18): {catalog.KeepLast},
		n(19): {catalog.KeepNewest, catalog.KeepNewestProven, catalog.KeepLast},
	}, got)
}

func TestEmptyPolicyKeepsEverything(t *testing.T) {
	old := hourly(prod, -20000)
	got := kept(t, catalog.Policy{Zone: time.UTC, AwaitProof: time.Hour}, catalog.Situation{},
		entry(old, catalog.Partial), entry(hourly(prod, -20001), complete, bad), entry(hourly(prod, -20002), catalog.Damaged), entry(hourly(prod, 1), complete, verified))
	require.Len(t, got, 4)
}

func TestUnprovenDontCountAsProven(t *testing.T) {
	e := []catalog.Entry{
		entry(hourly(prod, 0), complete, verified),
		entry(hourly(prod, 1), complete, verified),
		entry(hourly(prod, 2), complete, verified),
		entry(hourly(prod, 3), complete, bad, verified),
		entry(hourly(prod, 4), complete),
		entry(hourly(prod, 5), complete),
		entry(hourly(prod, 6), complete, bad),
		entry(hourly(prod, 7), complete),
		entry(hourly(prod, 8), complete, bad),
	}
	got := kept(t, catalog.Policy{KeepLast: 2}, catalog.Situation{}, e...)
	require.Equal(t, map[string][]catalog.Rule{
		n(1): {catalog.KeepLast}, n(2): {catalog.KeepNewestProven, catalog.KeepLast}, // the two proven
		n(5): {catalog.KeepLast}, n(7): {catalog.KeepLast}, // beside them
		n(8): {catalog.KeepNewest},
	}, got)

	// In one bucket the proven is preferred, though others are newer.
	for i := range e {
		e[i].Ref.Time = noon.Add(-3 * time.Hour).Add(time.Duration(i) * time.Minute)
	}
	got = kept(t, catalog.Policy{Daily: 5}, catalog.Situation{}, e...)
	require.Equal(t, map[string][]catalog.Rule{n(2): {catalog.KeepNewestProven, catalog.KeepDaily}, n(8): {catalog.KeepNewest}}, got)

	// One that waits for its proof is kept if asked for, one that failed is not.
	got = kept(t, catalog.Policy{Daily: 5, AwaitProof: 6 * time.Hour}, catalog.Situation{}, e...)
	require.Equal(t, []catalog.Rule{catalog.KeepAwaitsProof}, got[n(4)])
	require.NotContains(t, got, n(6))
}

func TestNothingProven(t *testing.T) {
	got := kept(t, catalog.Policy{KeepLast: 1}, catalog.Situation{},
		entry(hourly(prod, 0), complete, bad, verified), entry(hourly(prod, 1), complete, bad, bad, verified),
		entry(hourly(prod, 2), complete, bad), entry(hourly(prod, 3), complete), entry(hourly(prod, 4), complete))
	require.Equal(t, map[string][]catalog.Rule{n(1): {catalog.KeepNewestProven}, n(4): {catalog.KeepNewest, catalog.KeepLast}}, got)

	rotten := entry(hourly(prod, 0), complete, verified)
	rotten.Proofs[0].Proof, rotten.Proofs[0].Err = nil, catalog.ErrDamaged
	got = kept(t, catalog.Policy{KeepLast: 1}, catalog.Situation{}, rotten, entry(hourly(prod, 1), complete), entry(hourly(prod, 2), complete))
	require.Equal(t, map[string][]catalog.Rule{n(0): {catalog.KeepNewestProven}, n(2): {catalog.KeepNewest, catalog.KeepLast}}, got)
}

// TestLineagesAreApart: equal names, other IDs, epochs, namespaces.
func TestLineagesAreApart(t *testing.T) {
	lineages := []catalog.Lineage{prod, prod, prod, prod, prod, prod}
	lineages[1].Name = "prod-eu"
	lineages[2].ClusterID++
	lineages[3].Epoch++
	lineages[4].Namespace = "prod"
	lineages[5].Epoch += 2
	var entries []catalog.Entry
	for i, l := range lineages {
		for j := range 3 {
			ref := hourly(l, 10*i+j)
			ref.Revision = int64(1 + 100*(5-i) + j) // later lineages have lower revisions
			entries = append(entries, entry(ref, complete, verified))
		}
	}
	got := kept(t, catalog.Policy{KeepLast: 1}, catalog.Situation{}, entries...)
	require.Len(t, got, 6)
	for i := range lineages {
		require.Contains(t, got, n(10*i+2))
	}
}

func TestSpecialPoints(t *testing.T) {
	held := entry(hourly(prod, 1), complete, verified)
	until := noon.Add(time.Hour)
	held.Point.LockedUntil = &until
	expired := entry(hourly(prod, 2), complete, verified)
	before := noon.Add(-time.Hour)
	expired.Point.LockedUntil = &before
	unread := entry(hourly(prod, 3), complete, verified)
	unread.Proofs[0].Proof, unread.Proofs[0].Err = nil, catalog.ErrNewer
	future := entry(hourly(prod, 1001), complete, verified)
	got := kept(t, catalog.Policy{KeepLast: 1}, catalog.Situation{
		Needed: func(e *catalog.Entry) bool { return e.Ref.Nonce == n(4) },
		Locked: func(e *catalog.Entry) bool { return e.Ref.Nonce == n(5) },
	}, held, expired, unread, future,
		entry(hourly(prod, 4), complete, bad), entry(hourly(prod, 5), complete, bad),
		entry(hourly(prod, 6), catalog.Newer), entry(hourly(prod, 7), catalog.Unknown),
		entry(hourly(prod, 8), complete, verified), entry(hourly(prod, 9), complete, verified))
	require.Equal(t, map[string][]catalog.Rule{
		n(1): {catalog.KeepLocked}, n(3): {catalog.KeepUnknown}, n(4): {catalog.KeepNeeded}, n(5): {catalog.KeepLocked},
		n(6): {catalog.KeepUnknown}, n(7): {catalog.KeepUnknown},
		n(9):    {catalog.KeepNewest, catalog.KeepNewestProven, catalog.KeepLast}, // not the place of the future one
		n(1001): {catalog.KeepFuture},
	}, got)
}

func TestLeftovers(t *testing.T) {
	now := catalog.Situation{Busy: func(r catalog.Ref) bool { return r.Nonce == n(3) }}
	p := catalog.Policy{KeepLast: 1}
	oldName := entry(hourly(prod, 2), catalog.Partial)
	oldName.Modified = noon.Add(-23 * time.Hour) // uploaded slowly
	newName := entry(hourly(prod, 990), catalog.Partial)
	newName.Modified = noon.Add(-48 * time.Hour)
	got := kept(t, p, now, entry(hourly(prod, 1), catalog.Partial), oldName, newName, entry(hourly(prod, 3), catalog.Partial), entry(hourly(prod, 5), complete))
	require.Equal(t, map[string][]catalog.Rule{
		n(2): {catalog.KeepUnfinished}, n(990): {catalog.KeepUnfinished}, n(3): {catalog.KeepUnfinished},
		n(5): {catalog.KeepNewest, catalog.KeepLast},
	}, got)

	// Somebody deleted all manifests.
	lost := entry(hourly(prod, 1), catalog.Partial, verified)
	lost.Dir = "d/"
	lost.Objects = []catalog.Object{{Name: "d/proof-x.json"}, {Name: "d/snapshot.db.zst"}}
	require.Equal(t, map[string][]catalog.Rule{n(1): {catalog.KeepLastData}}, kept(t, p, now, lost))
	require.NotContains(t, kept(t, p, now, lost, entry(hourly(prod, 5), complete)), n(1))
}

func TestDamagedPoints(t *testing.T) {
	p := catalog.Policy{KeepLast: 1}
	old, young, proven := entry(hourly(prod, 1), catalog.Damaged), entry(hourly(prod, 500), catalog.Damaged), entry(hourly(prod, 600), complete, verified)
	require.Len(t, kept(t, p, catalog.Situation{}, old, young), 2, "nothing better")
	require.Len(t, kept(t, p, catalog.Situation{}, old, entry(hourly(prod, 600), complete)), 2, "nothing proven")
	require.Equal(t, []catalog.Rule{catalog.KeepDamaged}, kept(t, p, catalog.Situation{}, old, young, proven)[n(500)])
	require.NotContains(t, kept(t, p, catalog.Situation{}, old, young, proven), n(1))
	require.Len(t, kept(t, catalog.Policy{KeepWithin: 2000 * time.Hour}, catalog.Situation{}, old, proven), 2)
}

// at is a proven point at a time of Berlin's clocks.
func at(tb testing.TB, text string, i int) catalog.Entry {
	tb.Helper()
	t, err := time.Parse(time.RFC3339, text)
	require.NoError(tb, err)
	ref := hourly(prod, i)
	ref.Time = t.UTC()
	return entry(ref, complete, verified)
}

func TestCalendars(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	for _, tc := range []struct {
		name   string
		policy catalog.Policy
		times  []string
		kept   []int
	}{
		{"an hour is repeated", catalog.Policy{Hourly: 3}, []string{"2026-10-25T01:59:59+02:00", "2026-10-25T02:30:00+02:00", "2026-10-25T02:10:00+01:00", "2026-10-25T02:50:00+01:00"}, []int{0, 1, 3}},
		{"a day of 25 hours", catalog.Policy{Daily: 2}, []string{"2026-10-24T23:59:59+02:00", "2026-10-25T00:00:00+02:00", "2026-10-25T23:59:59+01:00"}, []int{0, 2}},
		{"an hour is left out", catalog.Policy{Hourly: 2}, []string{"2026-03-29T01:59:59+01:00", "2026-03-29T03:00:00+02:00"}, []int{0, 1}},
		{"midnight of the zone, not of UTC", catalog.Policy{Daily: 2}, []string{"2026-07-01T23:30:00+02:00", "2026-07-02T00:30:00+02:00", "2026-07-02T02:30:00+02:00"}, []int{0, 2}},
		{"ends of months", catalog.Policy{Monthly: 3}, []string{"2028-01-31T12:00:00+01:00", "2028-02-29T23:00:00+01:00", "2028-02-29T23:59:59+01:00", "2028-03-01T00:00:00+01:00"}, []int{0, 2, 3}},
		{"weeks across a year", catalog.Policy{Weekly: 2}, []string{"2026-12-27T23:00:00+01:00", "2026-12-28T00:00:00+01:00", "2027-01-03T23:00:00+01:00"}, []int{0, 2}},
		{"years", catalog.Policy{Yearly: 2}, []string{"2025-12-31T23:59:59+01:00", "2026-01-01T00:00:00+01:00", "2026-06-01T00:00:00+02:00"}, []int{0, 2}},
		{"empty days don't count", catalog.Policy{Daily: 2}, []string{"2024-01-01T00:00:00+01:00", "2024-01-02T00:00:00+01:00", "2026-01-01T00:00:00+01:00"}, []int{1, 2}},
		{"equal times", catalog.Policy{KeepLast: 2}, []string{"2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"}, []int{1, 2}},
		{"before 1970", catalog.Policy{Weekly: 9}, []string{"1969-12-28T12:00:00Z", "1969-12-29T12:00:00Z", "1970-01-04T12:00:00Z", "1970-01-05T12:00:00Z"}, []int{0, 2, 3}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.policy.Zone = berlin
			var entries []catalog.Entry
			for i, text := range tc.times {
				entries = append(entries, at(t, text, i))
			}
			got := kept(t, tc.policy, catalog.Situation{Now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}, entries...)
			require.Len(t, got, len(tc.kept))
			for _, i := range tc.kept {
				require.Contains(t, got, n(i))
			}
		})
	}
}

func TestRefusedPolicies(t *testing.T) {
	_, err := catalog.Policy{Daily: -1}.Decide(nil, catalog.Situation{Now: noon})
	require.ErrorIs(t, err, catalog.ErrPolicy)
	require.ErrorContains(t, err, "keep daily is negative")
	_, err = catalog.Policy{}.Decide(nil, catalog.Situation{})
	require.ErrorIs(t, err, catalog.ErrPolicy)
	e := entry(hourly(prod, 1), complete)
	_, err = catalog.Policy{KeepLast: 1}.Decide([]catalog.Entry{e, entry(hourly(prod, 2), complete), e}, catalog.Situation{Now: noon})
	require.ErrorIs(t, err, catalog.ErrPolicy)
	require.ErrorContains(t, err, "is there twice")
}

// TestYear backs up every hour and prunes after each, with backups that fail, proofs
// that fail or don't happen, and clocks that jump. At each moment, every one of the
// newest n days (hours, weeks, months) that ever had a proven point still has one.
func TestYear(t *testing.T) {
	simulate(t, rand.New(rand.NewPCG(1, 2)), catalog.Policy{KeepLast: 5, Hourly: 24, Daily: 14, Weekly: 8, Monthly: 12}, 365*24, 24)
}

func TestMonths(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		simulate(t, r, anyPolicy(r), rapid.IntRange(1, 700).Draw(t, "hours"), 7)
	})
}

func simulate(t require.TestingT, r *rand.Rand, policy catalog.Policy, hours, every int) {
	start := noon.AddDate(-1, 0, 0)
	zone := policy.Zone
	if zone == nil {
		zone = time.UTC
	}
	broken := r.Float64() / 2 // up to all of them are not proven
	var store, ever []catalog.Entry
	for h := range hours {
		now := start.Add(time.Duration(h) * time.Hour)
		if r.Float64() < broken/4 {
			continue
		}
		ref := hourly(prod, h)
		ref.Revision = int64(1 + h/2) // half of the time, nothing was written
		ref.Time = now
		if r.IntN(200) == 0 {
			ref.Time = ref.Time.Add(-time.Duration(r.IntN(100*3600)) * time.Second)
		}
		state, results := catalog.Complete, []catalog.Result{verified}
		switch luck := r.Float64(); {
		case luck < broken/8:
			state = catalog.Partial
		case luck < broken:
			results = []catalog.Result{bad}
		case luck < 2*broken:
			results = nil
		}
		e := entry(ref, state, results...)
		e.Modified = now
		store, ever = append(store, e), append(ever, e)

		decisions, err := policy.Decide(store, catalog.Situation{Now: now.Add(time.Minute)})
		require.NoError(t, err)
		store = store[:0]
		for _, d := range decisions {
			if d.Keep {
				store = append(store, d.Entry)
			}
		}
		if h%every == 0 || h == hours-1 {
			promises(t, policy, zone, ever, store)
		}
	}
}

// promises compares the buckets of all there ever was with those of what is left.
func promises(t require.TestingT, policy catalog.Policy, zone *time.Location, ever, left []catalog.Entry) {
	for format, n := range map[string]int{"2006-01-02T15 -0700": policy.Hourly, "2006-01-02": policy.Daily, "2006-01": policy.Monthly, "2006": policy.Yearly} {
		if zone != time.UTC && policy.Hourly == n && format[len(format)-1] == '0' {
			continue // text doesn't sort the hour that is repeated; the oracle does
		}
		want, got := provenBuckets(ever, zone, format), provenBuckets(left, zone, format)
		require.Subset(t, got, want[max(0, len(want)-n):], "%s of %+v", format, policy)
	}
	if !policy.Empty() && policy.KeepWithin == 0 && policy.AwaitProof == 0 {
		// Two for each that is promised, what awaits its day to be a leftover, and two.
		most := 2*(policy.KeepLast+policy.Hourly+policy.Daily+policy.Weekly+policy.Monthly+policy.Yearly) + 26 + 2
		require.LessOrEqual(t, len(left), most)
	}
}

func provenBuckets(entries []catalog.Entry, zone *time.Location, format string) []string {
	var all []string
	for _, e := range entries {
		if e.Verdict() == catalog.Proven {
			all = append(all, e.Ref.Time.In(zone).Format(format))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func BenchmarkDecide10k(b *testing.B) {
	entries := anyEntries(rand.New(rand.NewPCG(1, 1)), 10_000)
	policy := catalog.Policy{KeepLast: 5, Hourly: 24, Daily: 14, Weekly: 8, Monthly: 12}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := policy.Decide(entries, catalog.Situation{Now: noon}); err != nil {
			b.Fatal(err)
		}
	}
}
