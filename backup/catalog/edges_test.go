package catalog_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/backup/catalog/catalogtest"
)

// What stands here are the edges of rules: an age that is just reached, a document that
// vanishes between two looks, an epoch beside another one.

// aged is a point that was taken so long before noon.
func aged(i int, age time.Duration, state catalog.State, results ...catalog.Result) catalog.Entry {
	ref := hourly(prod, i)
	ref.Time = noon.Add(-age)
	e := entry(ref, state, results...)
	e.Modified = ref.Time
	return e
}

// unreadable has the i-th proof of an entry damaged.
func unreadable(e catalog.Entry, i int) catalog.Entry {
	e.Proofs[i].Proof, e.Proofs[i].Err = nil, catalog.ErrDamaged
	return e
}

func TestAgesJustReached(t *testing.T) {
	newest := aged(900, 0, complete, verified)
	for _, tc := range []struct {
		name   string
		policy catalog.Policy
		rule   catalog.Rule
		age    time.Duration
		entry  func(age time.Duration) catalog.Entry
	}{
		{"within", catalog.Policy{KeepWithin: time.Hour}, catalog.KeepWithin, time.Hour, func(d time.Duration) catalog.Entry { return aged(1, d, complete, verified) }},
		{"awaits proof", catalog.Policy{KeepLast: 1, AwaitProof: time.Hour}, catalog.KeepAwaitsProof, time.Hour, func(d time.Duration) catalog.Entry { return aged(1, d, complete) }},
		{"leftover", catalog.Policy{KeepLast: 1}, catalog.KeepUnfinished, catalog.LeftoverAge, func(d time.Duration) catalog.Entry { return aged(1, d, catalog.Partial) }},
		{"damaged", catalog.Policy{KeepLast: 1}, catalog.KeepDamaged, catalog.DamagedAge, func(d time.Duration) catalog.Entry { return aged(1, d, catalog.Damaged) }},
		{"damaged, touched lately", catalog.Policy{KeepLast: 1}, catalog.KeepDamaged, catalog.DamagedAge, func(d time.Duration) catalog.Entry {
			e := aged(1, 10*catalog.DamagedAge, catalog.Damaged)
			e.Modified = noon.Add(-d)
			return e
		}},
		{"damaged, within", catalog.Policy{KeepWithin: 90 * 24 * time.Hour}, catalog.KeepWithin, 90 * 24 * time.Hour, func(d time.Duration) catalog.Entry { return aged(1, d, catalog.Damaged) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			require.Equal(t, []catalog.Rule{tc.rule}, kept(t, tc.policy, catalog.Situation{}, newest, tc.entry(tc.age))[n(1)])
			require.NotContains(t, kept(t, tc.policy, catalog.Situation{}, newest, tc.entry(tc.age+time.Second)), n(1))
		})
	}
}

// TestZones: no zone is UTC, wherever Quorate runs; and a zone's hours may begin at half
// past one of UTC's.
func TestZones(t *testing.T) {
	kolkata, err := time.LoadLocation("Asia/Kolkata")
	require.NoError(t, err)
	was := time.Local
	time.Local = kolkata
	defer func() { time.Local = was }()
	days := []catalog.Entry{at(t, "2026-11-19T18:00:00Z", 1), at(t, "2026-11-19T19:00:00Z", 2), at(t, "2026-11-20T10:00:00Z", 3)}
	got := kept(t, catalog.Policy{Daily: 9}, catalog.Situation{}, days...)
	require.NotContains(t, got, n(1), "the same day in UTC, and not in Kolkata")
	require.Contains(t, got, n(2))

	hours := []catalog.Entry{at(t, "2026-11-20T04:45:00Z", 1), at(t, "2026-11-20T05:15:00Z", 2), at(t, "2026-11-20T05:45:00Z", 3)}
	got = kept(t, catalog.Policy{Hourly: 9, Zone: kolkata}, catalog.Situation{}, hours...)
	require.NotContains(t, got, n(1), "10:15 and 10:45 are of one hour")
	require.Contains(t, got, n(2))
}

// TestLeftoversOfNothing: an upload that was never a point is a leftover, even if there
// is nothing else; and proofs alone are no data.
func TestLeftoversOfNothing(t *testing.T) {
	upload := entry(hourly(prod, 1), catalog.Partial)
	upload.Dir, upload.Objects = "d/", []catalog.Object{{Name: "d/snapshot.db.zst"}}
	require.Empty(t, kept(t, catalog.Policy{KeepLast: 1}, catalog.Situation{}, upload))
	proofs := entry(hourly(prod, 1), catalog.Partial, verified)
	proofs.Dir, proofs.Objects = "d/", []catalog.Object{{Name: "d/proof-x.json"}}
	require.Empty(t, kept(t, catalog.Policy{KeepLast: 1}, catalog.Situation{}, proofs))
}

// TestAllReasons: what is kept says every rule that keeps it.
func TestAllReasons(t *testing.T) {
	held := entry(hourly(prod, 1), complete, verified)
	until := noon.Add(time.Hour)
	held.Point.LockedUntil = &until
	got := kept(t, catalog.Policy{KeepLast: 1}, catalog.Situation{Needed: func(*catalog.Entry) bool { return true }}, held)
	require.Equal(t, []catalog.Rule{catalog.KeepNewest, catalog.KeepNewestProven, catalog.KeepLast, catalog.KeepLocked, catalog.KeepNeeded}, got[n(1)])
}

// TestOnceProven: what was verified once is trusted more than what may have been, though
// one of its proofs is damaged.
func TestOnceProven(t *testing.T) {
	once := unreadable(entry(hourly(prod, 1), complete, bad, verified, verified), 2)
	maybe := unreadable(entry(hourly(prod, 2), complete, bad, verified), 1)
	got := kept(t, catalog.Policy{KeepLast: 1}, catalog.Situation{}, once, maybe, entry(hourly(prod, 3), complete))
	require.Equal(t, []catalog.Rule{catalog.KeepNewestProven}, got[n(1)])
	require.NotContains(t, got, n(2))
}

// pruneCase is a store, what is decided about it, and what happens between.
type pruneCase struct {
	name     string
	entries  []catalog.Entry
	keep     []string // nonces
	between  func(t *testing.T, m *catalogtest.Memory)
	opts     catalog.PruneOptions
	want     map[string]catalog.Outcome
	wantsErr error
}

func remove(e catalog.Entry, file string) func(*testing.T, *catalogtest.Memory) {
	return func(t *testing.T, m *catalogtest.Memory) {
		t.Helper()
		require.NoError(t, m.Delete(t.Context(), objectOf(t, e, file)))
	}
}

func objectOf(t *testing.T, e catalog.Entry, file string) string {
	t.Helper()
	dir, err := catalog.Layout{}.Dir(e.Ref)
	require.NoError(t, err)
	if file == "" { // the newest proof
		file = "proof-" + e.Proofs[0].Time.UTC().Format("20060102T150405.000000000Z") + ".json"
	}
	return dir + file
}

func damage(e catalog.Entry, file string) func(*testing.T, *catalogtest.Memory) {
	return func(t *testing.T, m *catalogtest.Memory) {
		t.Helper()
		m.Set(objectOf(t, e, file), []byte("{"), 1, noon)
	}
}

var errStore = errors.New("503")

func refuse(op catalogtest.Op, e catalog.Entry, file string) func(*testing.T, *catalogtest.Memory) {
	return func(t *testing.T, m *catalogtest.Memory) {
		t.Helper()
		name := objectOf(t, e, file)
		m.Before = func(o catalogtest.Op, at string) error {
			if o == op && at == name {
				return errStore
			}
			return nil
		}
	}
}

func TestPruneEdges(t *testing.T) {
	second := prod
	second.Epoch = 2
	inSecond := func(i int, results ...catalog.Result) catalog.Entry {
		ref := hourly(second, i)
		return entry(ref, complete, results...)
	}
	p := func(i int, results ...catalog.Result) catalog.Entry {
		return entry(hourly(prod, i), complete, results...)
	}
	damaged := func(i int) catalog.Entry { return entry(hourly(prod, i), catalog.Damaged) }
	partial := func(i int, results ...catalog.Result) catalog.Entry {
		return entry(hourly(prod, i), catalog.Partial, results...)
	}
	exactly := aged(1, catalog.LeftoverAge, catalog.Partial)
	deleted, spared, not, would := catalog.Deleted, catalog.Spared, catalog.NotDeleted, catalog.WouldDelete
	for _, tc := range []pruneCase{
		{
			name: "another epoch guards nothing", entries: []catalog.Entry{p(0, verified), p(1, verified), inSecond(2, verified), inSecond(3, verified)},
			keep: []string{n(3)}, want: map[string]catalog.Outcome{n(0): deleted, n(1): spared, n(2): deleted},
		},
		{
			name: "nor when it is read anew", entries: []catalog.Entry{p(0, verified), p(1, verified), inSecond(2, verified)},
			keep: []string{n(1), n(2)}, between: remove(p(1, verified), "point.json"), want: map[string]catalog.Outcome{n(0): spared},
		},
		{
			name: "a damaged one goes beside a newer proven", entries: []catalog.Entry{damaged(0), p(1, verified)},
			keep: []string{n(1)}, want: map[string]catalog.Outcome{n(0): deleted},
		},
		{
			name: "not beside one that is not proven", entries: []catalog.Entry{damaged(0), p(1)},
			keep: []string{n(1)}, want: map[string]catalog.Outcome{n(0): spared},
		},
		{
			name: "not beside one that failed meanwhile", entries: []catalog.Entry{damaged(0), p(1, verified)}, keep: []string{n(1)},
			between: func(t *testing.T, m *catalogtest.Memory) {
				t.Helper()
				require.NoError(t, catalog.WriteProof(t.Context(), m, catalog.Layout{}, hourly(prod, 1), proof(hourly(prod, 1), noon, bad)))
			},
			want: map[string]catalog.Outcome{n(0): spared},
		},
		{
			name: "not beside a proven one that is older", entries: []catalog.Entry{p(0, verified), damaged(1), p(2)},
			keep: []string{n(0), n(2)}, want: map[string]catalog.Outcome{n(1): spared},
		},
		{
			name: "a leftover that is newer than every point", entries: []catalog.Entry{p(0, verified), partial(1, verified)},
			keep: []string{n(0)}, want: map[string]catalog.Outcome{n(1): deleted},
		},
		{
			name: "what lost its manifest is not stronger", entries: []catalog.Entry{p(0, bad, verified), p(1, verified), p(2)},
			keep: []string{n(1), n(2)}, between: remove(p(1, verified), "point.json"), want: map[string]catalog.Outcome{n(0): spared},
		},
		{
			name: "its manifest can't be fetched", entries: []catalog.Entry{p(0, verified), p(1, verified)}, keep: []string{n(1)},
			between: refuse(catalogtest.Get, p(0), "point.json"), want: map[string]catalog.Outcome{n(0): not}, wantsErr: errStore,
		},
		{
			name: "its proof can't be fetched", entries: []catalog.Entry{p(0, verified), p(1, verified)}, keep: []string{n(1)},
			between: refuse(catalogtest.Get, p(0, verified), ""), want: map[string]catalog.Outcome{n(0): not}, wantsErr: errStore,
		},
		{
			name: "it was proven once more", entries: []catalog.Entry{p(0, verified), p(1, verified)}, keep: []string{n(1)},
			between: func(t *testing.T, m *catalogtest.Memory) {
				t.Helper()
				require.NoError(t, catalog.WriteProof(t.Context(), m, catalog.Layout{}, hourly(prod, 0), proof(hourly(prod, 0), noon, verified)))
			},
			want: map[string]catalog.Outcome{n(0): spared},
		},
		{
			name: "the proof that failed is damaged", entries: []catalog.Entry{p(0, bad, verified), p(1, verified)}, keep: []string{n(1)},
			between: damage(p(0, bad, verified), ""), want: map[string]catalog.Outcome{n(0): spared},
		},
		{
			name: "the proof that verified it once is damaged", entries: []catalog.Entry{p(0, bad, verified), p(1, verified)}, keep: []string{n(1)},
			between: func(t *testing.T, m *catalogtest.Memory) {
				t.Helper()
				e := p(0, bad, verified)
				e.Proofs = e.Proofs[1:]
				damage(e, "")(t, m)
			},
			want: map[string]catalog.Outcome{n(0): spared},
		},
		{
			name: "somebody else deletes it, too", entries: []catalog.Entry{p(0, verified), p(1, verified)}, keep: []string{n(1)},
			between: func(t *testing.T, m *catalogtest.Memory) {
				t.Helper()
				gone := objectOf(t, p(0), "snapshot.db.zst.age")
				m.Before = func(op catalogtest.Op, name string) error {
					if op == catalogtest.Delete && name == gone {
						m.Before = nil
						return m.Delete(context.Background(), gone)
					}
					return nil
				}
			},
			want: map[string]catalog.Outcome{n(0): deleted},
		},
		{
			name: "a leftover of just that age", entries: []catalog.Entry{exactly}, opts: catalog.PruneOptions{DryRun: true, Now: noon},
			want: map[string]catalog.Outcome{n(1): spared},
		},
		{
			name: "a leftover of a second more", entries: []catalog.Entry{exactly}, opts: catalog.PruneOptions{DryRun: true, Now: noon.Add(time.Second)},
			want: map[string]catalog.Outcome{n(1): would},
		},
		{
			name: "the store's clock is not its newest object", entries: []catalog.Entry{aged(1, time.Hour, catalog.Partial)},
			between: func(t *testing.T, m *catalogtest.Memory) {
				t.Helper()
				for i := range 50 {
					m.Set(fmt.Sprint("v1/_clock/", i), nil, 0, noon.AddDate(1, 0, 0))
				}
			},
			want: map[string]catalog.Outcome{n(1): spared},
		},
		{
			name: "the store does not list its clock", entries: []catalog.Entry{aged(1, 100*time.Hour, catalog.Partial)},
			between: func(t *testing.T, m *catalogtest.Memory) {
				t.Helper()
				m.Before = func(op catalogtest.Op, name string) error {
					if op == catalogtest.List && name == "v1/_clock/" {
						return m.Delete(context.Background(), name+"now")
					}
					return nil
				}
			},
			want: map[string]catalog.Outcome{n(1): not}, wantsErr: catalog.ErrNotFound,
		},
	} {
		t.Run(tc.name, func(t *testing.T) { runPrune(t, &tc) })
	}
}

func runPrune(t *testing.T, tc *pruneCase) {
	t.Helper()
	m := newMemory()
	for _, e := range tc.entries {
		store(t, m, catalog.Layout{}, e)
	}
	decisions := everything(read(t, m, catalog.Layout{}).Entries)
	for i := range decisions {
		decisions[i].Keep = slices.Contains(tc.keep, decisions[i].Entry.Ref.Nonce)
	}
	if tc.between != nil {
		tc.between(t, m)
	}
	done, err := catalog.Prune(t.Context(), m, catalog.Layout{}, decisions, tc.opts)
	require.ErrorIs(t, err, tc.wantsErr)
	require.Equal(t, tc.want, outcomes(done))
}

// TestPruneInOrder deletes the oldest first, in whatever order decisions come; and one
// that was ended before it began does nothing.
func TestPruneInOrder(t *testing.T) {
	m := newMemory()
	for i := range 9 {
		store(t, m, catalog.Layout{}, entry(hourly(prod, i), complete, verified))
	}
	store(t, m, catalog.Layout{}, entry(hourly(prod, 9), catalog.Partial)) // whose age is asked of the store's clock
	decisions := everything(read(t, m, catalog.Layout{}).Entries)
	decisions[8].Keep = true
	slices.Reverse(decisions)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done, err := catalog.Prune(ctx, m, catalog.Layout{}, decisions, catalog.PruneOptions{})
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, done.Steps)
	var order []string
	m.Before = func(op catalogtest.Op, name string) error {
		if dir, ok := strings.CutSuffix(name, "/point.json"); ok && op == catalogtest.Delete {
			order = append(order, dir[len(dir)-8:])
		}
		return nil
	}
	_, err = catalog.Prune(t.Context(), m, catalog.Layout{}, decisions, catalog.PruneOptions{})
	require.NoError(t, err)
	require.Equal(t, []string{n(0), n(1), n(2), n(3), n(4), n(5), n(6), n(7)}, order)
	require.Contains(t, m.Names(), "v1/_clock/now")
	require.Zero(t, read(t, m, catalog.Layout{}).Foreign, "the clock is ours")
}

// TestPruneTakesLong: the store's clock goes on while a prune does.
func TestPruneTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &catalogtest.Memory{}
		now := time.Now().UTC().Truncate(time.Second)
		for i, age := range []time.Duration{30 * time.Hour, 23 * time.Hour} {
			ref := hourly(prod, i)
			ref.Time = now.Add(-age)
			e := entry(ref, catalog.Partial)
			e.Modified = ref.Time
			store(t, m, catalog.Layout{}, e)
		}
		m.Before = func(op catalogtest.Op, _ string) error {
			if op == catalogtest.Delete {
				time.Sleep(2 * time.Hour)
			}
			return nil
		}
		done, err := catalog.Prune(t.Context(), m, catalog.Layout{}, everything(read(t, m, catalog.Layout{}).Entries), catalog.PruneOptions{})
		require.NoError(t, err)
		require.Equal(t, map[string]catalog.Outcome{n(0): catalog.Deleted, n(1): catalog.Deleted}, outcomes(done))
	})
}

func TestReadEdges(t *testing.T) {
	m, e := newMemory(), entry(hourly(prod, 1), complete, verified)
	store(t, m, catalog.Layout{}, e)
	once := read(t, m, catalog.Layout{}, prod.Cluster).Entries[0]
	twice := read(t, m, catalog.Layout{}, prod.Cluster, prod.Cluster).Entries[0]
	require.Equal(t, once.Bytes(), twice.Bytes(), "a cluster that is asked for twice is listed once")

	for i, file := range []string{"point.a", "point.json", "snapshot.db.zst.age"} { // the first, one between, the last
		name := objectOf(t, e, file)
		c, at := m.Clone(), noon.Add(time.Duration(i)*time.Hour)
		doc, _ := c.Get(t.Context(), name) // the first is not there yet
		c.Set(name, doc, int64(len(doc)), at)
		require.Equal(t, at, read(t, c, catalog.Layout{}).Entries[0].Modified, "the newest of its objects")
	}

	// A document that was written anew is fetched anew.
	cache := &catalog.Cache{}
	verdict := func() catalog.Verdict {
		cat, err := catalog.Read(t.Context(), m, catalog.Layout{}, catalog.ReadOptions{Cache: cache})
		require.NoError(t, err)
		return cat.Entries[0].Verdict()
	}
	require.Equal(t, catalog.Proven, verdict())
	name := objectOf(t, e, "")
	doc, err := m.Get(t.Context(), name)
	require.NoError(t, err)
	broken := []byte(strings.Replace(string(doc), "Verified", "Verifies", 1))
	m.Set(name, broken, int64(len(broken)), noon.Add(time.Hour))
	require.Equal(t, catalog.Unclear, verdict(), "the same size at another time")
	m.Set(name, doc, int64(len(doc)), noon.Add(time.Hour))
	require.Equal(t, catalog.Proven, verdict())
	m.Set(name, broken[:20], 20, noon.Add(time.Hour))
	require.Equal(t, catalog.Unclear, verdict(), "another size at the same time")

	// Larger data than was stored is not what was stored.
	m.Set(objectOf(t, e, "snapshot.db.zst.age"), nil, point(e.Ref).StoredSize+1, noon)
	require.Equal(t, catalog.Damaged, read(t, m, catalog.Layout{}).Entries[0].State)

	for i := range 30 {
		m.Set(fmt.Sprint("v1/stray/", i), nil, 1, noon)
	}
	cat := read(t, m, catalog.Layout{})
	require.Equal(t, 30, cat.Foreign)
	require.Len(t, cat.Examples, 10)
}

func TestEpochsOfAnyOrder(t *testing.T) {
	older, newer := entry(hourly(prod, 10), complete), entry(hourly(prod, 20), complete)
	newer.Point.RaftTerm = 3
	for _, tc := range []struct {
		at   catalog.Position
		want uint32
	}{
		{catalog.Position{Revision: 1005}, 2},
		{catalog.Position{Revision: 1011, RaftTerm: 3, RaftIndex: 1015}, 2},
		{catalog.Position{Revision: 1011, RaftTerm: 2, RaftIndex: 1021}, 2},
		{catalog.Position{Revision: 1010, RaftTerm: 3, RaftIndex: 1020}, 1},
	} {
		for _, points := range [][]catalog.Entry{{older, newer}, {newer, older}} {
			got, _ := catalog.NextEpoch(points, prod.Cluster, prod.ClusterID, tc.at)
			require.Equal(t, tc.want, got, tc.at)
		}
	}
}

func TestNamesAtTheirEdges(t *testing.T) {
	ref := hourly(prod, 1)
	dir, err := catalog.Layout{}.Dir(ref)
	require.NoError(t, err)
	// The longest name of a file fills up the longest name of an object.
	for longer, fits := range map[int]bool{0: true, 1: false} {
		ref := ref
		room := 850 - 64 - len(dir) + len(ref.Name) + longer
		parts := make([]string, 0, 4)
		for room > 200 { // an element of 200, the underscore and the slash behind it
			parts, room = append(parts, strings.Repeat("x", 200)), room-202
		}
		ref.Name = strings.Join(append(parts, strings.Repeat("x", room)), "")
		_, refused := catalog.Layout{}.Dir(ref)
		require.Equal(t, fits, refused == nil, refused)
	}
	file := "proof-" + strings.Repeat("x", 64-len("proof-"))
	name, err := catalog.Layout{}.File(ref, file)
	require.NoError(t, err)
	_, got, ok := catalog.Layout{}.Parse(name)
	require.True(t, ok)
	require.Equal(t, file, got)

	ref.Revision = 0
	_, err = catalog.Layout{}.Dir(ref)
	require.NoError(t, err)
	ref.Nonce = "0000000g"
	_, err = catalog.Layout{}.Dir(ref)
	require.ErrorIs(t, err, catalog.ErrName)

	// Go reads a comma for the point of a fraction.
	m, e := newMemory(), entry(hourly(prod, 1), complete, verified)
	store(t, m, catalog.Layout{}, e)
	name = objectOf(t, e, "")
	doc, err := m.Get(t.Context(), name)
	require.NoError(t, err)
	require.NoError(t, m.Delete(t.Context(), name))
	m.Set(path.Dir(name)+"/"+strings.Replace(path.Base(name), ".000000000Z", ",000000000Z", 1), doc, int64(len(doc)), noon)
	require.Equal(t, catalog.Unproven, read(t, m, catalog.Layout{}).Entries[0].Verdict())
}

func TestWriteEdges(t *testing.T) {
	m, p := newMemory(), point(hourly(prod, 1))
	dir, err := catalog.Layout{}.Dir(p.Ref())
	require.NoError(t, err)
	m.Set(dir+p.Object, nil, p.StoredSize+1, noon)
	require.ErrorIs(t, catalog.WritePoint(t.Context(), m, catalog.Layout{}, p), catalog.ErrIncomplete)
	require.NotContains(t, m.Names(), dir+"point.json")

	// A store that keeps something else than it was given.
	m.Set(dir+p.Object, nil, p.StoredSize, noon)
	m.Before = func(op catalogtest.Op, name string) error {
		if op == catalogtest.Get {
			m.Set(name, []byte("{"), 1, noon)
		}
		return nil
	}
	require.ErrorIs(t, catalog.WritePoint(t.Context(), m, catalog.Layout{}, p), catalog.ErrIncomplete)
	m.Before = nil

	m.Set(dir+p.Object, nil, p.StoredSize, noon.Add(-catalog.LeftoverAge/2))
	require.NoError(t, catalog.WritePoint(t.Context(), m, catalog.Layout{}, p))
	of := proof(p.Ref(), noon.In(time.FixedZone("east", 3600)), verified)
	of.Point = ""
	require.NoError(t, catalog.WriteProof(t.Context(), m, catalog.Layout{}, p.Ref(), of))
	got := read(t, m, catalog.Layout{}).Entries[0]
	require.Equal(t, catalog.Proven, got.Verdict())
	require.Equal(t, time.UTC, got.Proofs[0].Proof.Ended.Location())
}

func TestDocumentEdges(t *testing.T) {
	var id catalog.ID
	require.NoError(t, id.UnmarshalText([]byte("cdf818194e3a8c32")))
	for _, text := range []string{"CDF818194E3A8C32", "cdf8", "0cdf818194e3a8c32", "+df818194e3a8c32", ""} {
		require.Error(t, id.UnmarshalText([]byte(text)), text)
	}
	for _, change := range []func(*catalog.Counts){
		func(c *catalog.Counts) { c.Keys = -1 }, func(c *catalog.Counts) { c.Revisions = -1 }, func(c *catalog.Counts) { c.Leases = -1 },
	} {
		p := point(hourly(prod, 1))
		change(&p.Counts)
		_, err := catalog.EncodePoint(p)
		require.ErrorContains(t, err, "its counts are negative")
	}
	of := proof(hourly(prod, 1), noon, verified)
	of.Point = strings.Replace(of.Point, "-r0", "-r00", 1)
	_, err := catalog.EncodeProof(of)
	require.ErrorContains(t, err, "the point it proved is")
	doc, err := catalog.EncodePoint(point(hourly(prod, 1)))
	require.NoError(t, err)
	body, _, ok := strings.Cut(string(doc), ",\n  \"checksum\": \"sha256:")
	require.True(t, ok)
	signed := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return text + hex.EncodeToString(sum[:]) + "\"\n}\n"
	}
	for name, text := range map[string]string{
		"its sum under another name": signed(body + ",\n  \"checksun\": \"sha256:"),
		"too short for a sum":        "{\n  \"format\": \"quorate-backup-point/1.0\"\n}\n",
		"a space before it":          " " + string(doc),
		"a minor that is no number":  strings.Replace(string(doc), "point/1.0", "point/1.x", 1),
		"no minor":                   strings.Replace(string(doc), "point/1.0", "point/1", 1),
		"the major 0":                strings.Replace(string(doc), "point/1.0", "point/0.9", 1),
		"another kind":               strings.Replace(string(doc), "quorate-backup-point/", "quorate-backup-proof/", 1),
	} {
		_, err := catalog.DecodePoint([]byte(text))
		require.ErrorIs(t, err, catalog.ErrDamaged, name)
	}
}
