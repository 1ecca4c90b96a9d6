package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/backup/catalog/catalogtest"
)

func decide(tb require.TestingT, p catalog.Policy, entries []catalog.Entry) []catalog.Decision {
	decisions, err := p.Decide(entries, catalog.Situation{Now: noon})
	require.NoError(tb, err)
	return decisions
}

// everything is what a broken or hostile decider says.
func everything(entries []catalog.Entry) []catalog.Decision {
	var all []catalog.Decision
	for _, e := range entries {
		all = append(all, catalog.Decision{Entry: e})
	}
	return all
}

func newMemory() *catalogtest.Memory {
	return &catalogtest.Memory{Now: func() time.Time { return noon }}
}

// nonces are those of the points with a manifest.
func nonces(m *catalogtest.Memory) []string {
	var all []string
	for _, name := range m.Names() {
		if dir, ok := strings.CutSuffix(name, "/point.json"); ok {
			all = append(all, dir[len(dir)-8:])
		}
	}
	slices.Sort(all)
	return all
}

func outcomes(p *catalog.Pruned) map[string]catalog.Outcome {
	got := map[string]catalog.Outcome{}
	for _, s := range p.Steps {
		got[s.Ref.Nonce] = s.Outcome
	}
	return got
}

func TestPruneOrder(t *testing.T) {
	m, layout := newMemory(), catalog.Layout{}
	for i := range 4 {
		store(t, m, layout, entry(hourly(prod, i), complete, verified))
	}
	dir, err := layout.Dir(hourly(prod, 0))
	require.NoError(t, err)
	m.Set(dir+"point.index", nil, 7, noon)
	m.Set(dir+"NOTES.txt", nil, 7, noon)
	var calls []string
	m.Before = func(op catalogtest.Op, name string) error {
		if op == catalogtest.Delete {
			calls = append(calls, strings.TrimPrefix(name, dir))
		}
		return nil
	}
	decisions := decide(t, catalog.Policy{KeepLast: 3}, read(t, m, layout).Entries)

	dry, err := catalog.Prune(t.Context(), m, layout, decisions, catalog.PruneOptions{DryRun: true, Now: noon})
	require.NoError(t, err)
	require.Equal(t, map[string]catalog.Outcome{n(0): catalog.WouldDelete}, outcomes(dry))
	require.Empty(t, calls)

	var told []catalog.PruneStep
	done, err := catalog.Prune(t.Context(), m, layout, decisions, catalog.PruneOptions{Progress: func(s catalog.PruneStep) { told = append(told, s) }})
	require.NoError(t, err)
	require.Equal(t, done.Steps, told)
	require.Equal(t, []string{"point.json", "point.index", "snapshot.db.zst.age", "proof-20261010T210000.000000000Z.json"}, calls)
	require.Equal(t, 4, done.Steps[0].Objects)
	require.Equal(t, dry.Steps[0].Bytes, done.Steps[0].Bytes)
	count, size := done.Count(catalog.Deleted)
	require.Equal(t, 1, count)
	require.Greater(t, size, int64(40<<20))
	require.Contains(t, m.Names(), dir+"NOTES.txt", "a person's file stays")

	again, err := catalog.Prune(t.Context(), m, layout, decisions, catalog.PruneOptions{})
	require.NoError(t, err)
	require.Equal(t, catalog.Deleted, again.Steps[0].Outcome)
	require.Zero(t, again.Steps[0].Objects)
}

// TestPruneSpares: what came since the decision is seen.
func TestPruneSpares(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*catalogtest.Memory, catalog.Layout)
		want   map[string]catalog.Outcome
	}{
		{"nothing", func(*catalogtest.Memory, catalog.Layout) {}, map[string]catalog.Outcome{n(0): catalog.Deleted, n(1): catalog.Deleted, n(2): catalog.Deleted}},
		{"the proven one fails", func(m *catalogtest.Memory, l catalog.Layout) {
			require.NoError(t, catalog.WriteProof(t.Context(), m, l, hourly(prod, 3), proof(hourly(prod, 3), noon, bad)))
		}, map[string]catalog.Outcome{n(0): catalog.Deleted, n(1): catalog.Spared, n(2): catalog.Deleted}},
		{"the proven one is deleted", func(m *catalogtest.Memory, l catalog.Layout) {
			name, err := l.Manifest(hourly(prod, 3))
			require.NoError(t, err)
			require.NoError(t, m.Delete(t.Context(), name))
		}, map[string]catalog.Outcome{n(0): catalog.Deleted, n(1): catalog.Spared, n(2): catalog.Deleted}},
		{"the proven one's data is deleted", func(m *catalogtest.Memory, l catalog.Layout) {
			name, err := l.File(hourly(prod, 3), "snapshot.db.zst.age")
			require.NoError(t, err)
			require.NoError(t, m.Delete(t.Context(), name))
		}, map[string]catalog.Outcome{n(0): catalog.Deleted, n(1): catalog.Spared, n(2): catalog.Deleted}},
		{"a victim is proven", func(m *catalogtest.Memory, l catalog.Layout) {
			require.NoError(t, catalog.WriteProof(t.Context(), m, l, hourly(prod, 2), proof(hourly(prod, 2), noon, verified)))
		}, map[string]catalog.Outcome{n(0): catalog.Deleted, n(1): catalog.Deleted, n(2): catalog.Spared}},
		{"a newer is proven, and the proven fails", func(m *catalogtest.Memory, l catalog.Layout) {
			store(t, m, l, entry(hourly(prod, 5), complete, verified))
			require.NoError(t, catalog.WriteProof(t.Context(), m, l, hourly(prod, 3), proof(hourly(prod, 3), noon, bad)))
		}, map[string]catalog.Outcome{n(0): catalog.Deleted, n(1): catalog.Deleted, n(2): catalog.Deleted}},
		{"the newest is deleted", func(m *catalogtest.Memory, l catalog.Layout) {
			name, err := l.Manifest(hourly(prod, 4))
			require.NoError(t, err)
			require.NoError(t, m.Delete(t.Context(), name))
		}, map[string]catalog.Outcome{n(0): catalog.Deleted, n(1): catalog.Deleted, n(2): catalog.Deleted}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, layout := newMemory(), catalog.Layout{}
			for i, results := range [][]catalog.Result{{verified}, {verified}, {bad}, {verified}, {}} {
				store(t, m, layout, entry(hourly(prod, i), complete, results...))
			}
			decisions := decide(t, catalog.Policy{KeepLast: 1}, read(t, m, layout).Entries)
			tc.change(m, layout)
			done, err := catalog.Prune(t.Context(), m, layout, decisions, catalog.PruneOptions{})
			require.NoError(t, err)
			require.Equal(t, tc.want, outcomes(done))
			for _, s := range done.Steps {
				require.NotEmpty(t, s.Why)
			}
		})
	}
}

func TestPruneLeftovers(t *testing.T) {
	m, layout := newMemory(), catalog.Layout{}
	store(t, m, layout, entry(hourly(prod, 9), complete, verified))
	for i := range 3 {
		store(t, m, layout, entry(hourly(prod, i), catalog.Partial))
	}
	decisions := decide(t, catalog.Policy{KeepLast: 1}, read(t, m, layout).Entries)
	// The writer of 1 finishes after all, 2 is uploaded to once more.
	done := point(hourly(prod, 1))
	data, err := catalog.EncodePoint(done)
	require.NoError(t, err)
	name, err := layout.Manifest(done.Ref())
	require.NoError(t, err)
	require.NoError(t, m.Put(t.Context(), name, data))
	name, err = layout.File(hourly(prod, 2), "snapshot.db")
	require.NoError(t, err)
	require.NoError(t, m.Put(t.Context(), name, nil))
	want := map[string]catalog.Outcome{n(0): catalog.Deleted, n(1): catalog.Spared, n(2): catalog.Spared}
	for id, busy := range map[string]bool{"busy": true, "not": false} {
		c := m.Clone()
		want[n(0)] = catalog.Deleted
		if busy {
			want[n(0)] = catalog.Spared
		}
		pruned, pruneErr := catalog.Prune(t.Context(), c, layout, decisions, catalog.PruneOptions{Busy: func(catalog.Ref) bool { return busy }})
		require.NoError(t, pruneErr)
		require.Equal(t, want, outcomes(pruned), id)
	}

	// By the store's clock it is yesterday.
	c := m.Clone()
	c.Now = func() time.Time { return hourly(prod, 0).Time.Add(20 * time.Hour) }
	got, err := catalog.Prune(t.Context(), c, layout, decisions, catalog.PruneOptions{})
	require.NoError(t, err)
	require.Equal(t, catalog.Spared, outcomes(got)[n(0)])

	// The store doesn't tell.
	denied := errors.New("denied")
	c = m.Clone()
	c.Before = func(op catalogtest.Op, _ string) error {
		if op == catalogtest.Put {
			return denied
		}
		return nil
	}
	got, err = catalog.Prune(t.Context(), c, layout, decisions, catalog.PruneOptions{})
	require.ErrorIs(t, err, denied)
	require.Equal(t, catalog.NotDeleted, outcomes(got)[n(0)])
}

// TestPruneLastData: all manifests of a lineage vanish between decision and deletion.
func TestPruneLastData(t *testing.T) {
	m, layout := newMemory(), catalog.Layout{}
	for i := range 3 {
		store(t, m, layout, entry(hourly(prod, i), complete, verified))
	}
	decisions := decide(t, catalog.Policy{KeepLast: 1}, read(t, m, layout).Entries)
	for _, name := range m.Names() {
		if strings.HasSuffix(name, "/point.json") {
			require.NoError(t, m.Delete(t.Context(), name))
		}
	}
	before := m.Names()
	done, err := catalog.Prune(t.Context(), m, layout, decisions, catalog.PruneOptions{})
	require.NoError(t, err)
	require.Equal(t, map[string]catalog.Outcome{n(0): catalog.Spared, n(1): catalog.Spared}, outcomes(done))
	require.Equal(t, before, m.Names())

	_, err = catalog.Prune(t.Context(), m, layout, decisions, catalog.PruneOptions{DryRun: true})
	require.ErrorIs(t, err, catalog.ErrPolicy)
}

func TestPruneGoesOn(t *testing.T) {
	m, layout := newMemory(), catalog.Layout{}
	for i := range 6 {
		store(t, m, layout, entry(hourly(prod, i), complete, verified))
	}
	unavailable := errors.New("503")
	m.Before = func(op catalogtest.Op, name string) error {
		if op == catalogtest.Delete && strings.Contains(name, n(1)+"/point") {
			return fmt.Errorf("until tomorrow: %w", catalog.ErrLocked)
		}
		if op == catalogtest.Delete && strings.Contains(name, n(2)+"/snap") || op == catalogtest.List && strings.Contains(name, n(3)) {
			return unavailable
		}
		return nil
	}
	decisions := decide(t, catalog.Policy{KeepLast: 1}, read(t, m, layout).Entries)
	done, err := catalog.Prune(t.Context(), m, layout, decisions, catalog.PruneOptions{})
	require.ErrorIs(t, err, unavailable)
	require.NotErrorIs(t, err, catalog.ErrLocked)
	require.Equal(t, map[string]catalog.Outcome{
		n(0): catalog.Deleted, n(1): catalog.Locked, n(2): catalog.NotDeleted, n(3): catalog.NotDeleted, n(4): catalog.Deleted,
	}, outcomes(done))
	require.Equal(t, []string{n(1), n(3), n(5)}, nonces(m))

	m.Before = nil
	_, err = catalog.Prune(t.Context(), m, layout, decide(t, catalog.Policy{KeepLast: 1}, read(t, m, layout).Entries), catalog.PruneOptions{})
	require.NoError(t, err)
	require.Len(t, m.Names(), 3+1, "one point, and the clock: %s", m.Names())

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = catalog.Prune(ctx, m, layout, decisions, catalog.PruneOptions{})
	require.ErrorIs(t, err, context.Canceled)
}

var errKilled = errors.New("killed")

// TestPruneKilled kills a prune at each of its calls, and the resumed one too.
func TestPruneKilled(t *testing.T) {
	layout := catalog.Layout{}
	policy := catalog.Policy{KeepLast: 2, Weekly: 2}
	origin := newMemory()
	other := prod
	other.Name = "prod-eu"
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 12 {
		for _, l := range []catalog.Lineage{prod, other} {
			results := [][]catalog.Result{nil, {verified}, {bad}, {bad, verified}}[r.IntN(4)]
			store(t, origin, layout, entry(hourly(l, i*40), []catalog.State{complete, complete, complete, catalog.Partial, catalog.Damaged}[r.IntN(5)], results...))
		}
	}
	run := func(m *catalogtest.Memory, killAt int) (calls int) {
		var mu sync.Mutex
		m.Before = func(catalogtest.Op, string) error {
			mu.Lock()
			defer mu.Unlock()
			calls++
			if calls > killAt {
				return errKilled
			}
			return nil
		}
		cat, err := catalog.Read(t.Context(), m, layout, catalog.ReadOptions{})
		if err != nil {
			require.ErrorIs(t, err, errKilled)
			return calls
		}
		_, err = catalog.Prune(t.Context(), m, layout, decide(t, policy, cat.Entries), catalog.PruneOptions{Parallel: 1})
		if calls <= killAt {
			require.NoError(t, err)
		}
		return calls
	}
	undisturbed := origin.Clone()
	total := run(undisturbed, 1<<30)
	want := undisturbed.Names()
	require.Greater(t, len(origin.Names())-len(want), 20)
	for killAt := range total {
		m := origin.Clone()
		run(m, killAt)
		for _, name := range want {
			if !strings.Contains(name, "_clock") {
				require.Contains(t, m.Names(), name)
			}
		}
		run(m, (killAt*7)%total) // once more
		run(m, 1<<30)
		require.Equal(t, want, m.Names(), "killed at call %d", killAt)
	}
	t.Logf("killed at each of %d calls", total)
}

// TestPruneNeverTheLast lets several pruners, whose decisions are arbitrary, work at
// once. The newest complete and the strongest point of each lineage stay.
func TestPruneNeverTheLast(t *testing.T) {
	layout := catalog.Layout{}
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		m := newMemory()
		entries := anyEntries(r, rapid.IntRange(1, 40).Draw(t, "points"))
		for _, e := range entries {
			e.Proofs = slices.DeleteFunc(e.Proofs, func(p catalog.ProofEntry) bool { return p.Proof == nil })
			if _, err := layout.Dir(e.Ref); err != nil {
				continue
			}
			if e.State != catalog.Unknown {
				store(t, m, layout, e)
			}
		}
		cat, err := catalog.Read(context.Background(), m, layout, catalog.ReadOptions{})
		require.NoError(t, err)
		var wg sync.WaitGroup
		for range 4 {
			decisions := everything(cat.Entries)
			for i := range decisions {
				decisions[i].Keep = r.IntN(3) == 0
			}
			wg.Go(func() {
				_, _ = catalog.Prune(context.Background(), m, layout, decisions, catalog.PruneOptions{})
			})
		}
		wg.Wait()
		after, err := catalog.Read(context.Background(), m, layout, catalog.ReadOptions{})
		require.NoError(t, err)
		left := map[string]catalog.Entry{}
		for _, e := range after.Entries {
			left[e.Ref.String()] = e
		}
		for _, e := range cat.Entries {
			if e.State == catalog.Newer {
				require.Equal(t, e.Objects, left[e.Ref.String()].Objects, "what can't be read is not touched")
			}
		}
		for _, l := range cat.Lineages() {
			newest := catalog.Newest(l)
			if newest == nil {
				continue
			}
			require.Equal(t, catalog.Complete, left[newest.Ref.String()].State, "the newest of %s", newest.Ref.Lineage)
			if proven := catalog.NewestProven(l); proven != nil {
				e := left[proven.Ref.String()]
				require.Equal(t, catalog.Proven, e.Verdict(), "the newest proven of %s", proven.Ref.Lineage)
			}
		}
	})
}

// TestPruneBesideFailingProofs writes a failing proof of the strongest point at each
// call of a prune. At most the deletion under way comes through after that.
func TestPruneBesideFailingProofs(t *testing.T) {
	layout := catalog.Layout{}
	origin := newMemory()
	for i := range 6 {
		store(t, origin, layout, entry(hourly(prod, i), complete, verified))
	}
	decisions := decide(t, catalog.Policy{KeepLast: 1}, read(t, origin, layout).Entries)
	for failAt := range 1000 {
		m := origin.Clone()
		var mu sync.Mutex // a lineage that is read anew is read by many at once
		calls, looked := 0, 0
		m.Before = func(op catalogtest.Op, name string) error {
			mu.Lock()
			defer mu.Unlock()
			if calls++; calls == failAt+1 {
				p := proof(hourly(prod, 5), noon, bad)
				data, err := catalog.EncodeProof(p)
				require.NoError(t, err)
				file, err := layout.File(hourly(prod, 5), "proof-"+noon.Format("20060102T150405.000000000Z")+".json")
				require.NoError(t, err)
				m.Set(file, data, int64(len(data)), noon)
			}
			if op == catalogtest.List && strings.HasSuffix(name, n(5)+"/") {
				looked = calls
			}
			return nil
		}
		_, err := catalog.Prune(t.Context(), m, layout, decisions, catalog.PruneOptions{})
		require.NoError(t, err)
		if calls <= failAt {
			return
		}
		// 4 is the strongest then. What is older may go beside it.
		require.Contains(t, nonces(m), n(5))
		if !slices.Contains(nonces(m), n(4)) {
			require.Greater(t, failAt+1, looked, "the proof was there when the guards were looked at")
		}
	}
	require.Fail(t, "it never ends")
}

// TestStoreToStore goes all the way: names of all kinds, written, read, decided, pruned;
// then what the oracle wants is there, what it doesn't is gone, and what is others' is
// untouched.
func TestStoreToStore(t *testing.T) {
	layout, err := catalog.NewLayout("backups")
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		m := newMemory()
		var entries []catalog.Entry
		for _, e := range anyEntries(r, rapid.IntRange(0, 200).Draw(t, "points")) {
			e.Proofs = slices.DeleteFunc(e.Proofs, func(p catalog.ProofEntry) bool { return p.Proof == nil })
			_, err := layout.Dir(e.Ref)
			if err != nil || e.State == catalog.Unknown || e.State == catalog.Partial {
				continue
			}
			store(t, m, layout, e)
			entries = append(entries, e)
		}
		foreign := []string{"backups/v1/README", "backups/v2/default/prod/x", "other/v1/x", "backups/v1/default/prod/y/e0001/full/z/point.json"}
		for _, name := range foreign {
			m.Set(name, nil, 1, noon)
		}
		policy := anyPolicy(r)
		cat, err := catalog.Read(context.Background(), m, layout, catalog.ReadOptions{})
		require.NoError(t, err)
		require.Len(t, cat.Entries, len(entries))
		require.Equal(t, 2, cat.Foreign)
		decisions := decide(t, policy, cat.Entries)
		reasons := map[string][]catalog.Reason{}
		for _, d := range decisions {
			reasons[d.Entry.Ref.String()] = d.Reasons
		}
		done, err := catalog.Prune(context.Background(), m, layout, decisions, catalog.PruneOptions{})
		require.NoError(t, err)
		for _, s := range done.Steps {
			require.Equal(t, catalog.Deleted, s.Outcome, "%s: %s", s.Ref, s.Why)
		}
		names := m.Names()
		require.Subset(t, names, foreign)
		lineages := map[catalog.Lineage][]catalog.Entry{}
		for _, e := range entries {
			lineages[e.Ref.Lineage] = append(lineages[e.Ref.Lineage], e)
		}
		for _, points := range lineages {
			o := newOracle(policy, points)
			for i, e := range points {
				name, err := layout.Manifest(e.Ref)
				require.NoError(t, err)
				_, there := slices.BinarySearch(names, name)
				require.Equal(t, o.wants(i), there, "%s %s %s: %v\n%+v", e.Ref, e.State, e.Verdict(), reasons[e.Ref.String()], policy)
			}
		}
	})
}
