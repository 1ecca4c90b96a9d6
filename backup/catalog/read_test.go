package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/backup/catalog/catalogtest"
)

func TestReadStates(t *testing.T) {
	m, layout := &catalogtest.Memory{}, catalog.Layout{}
	for i, state := range []catalog.State{catalog.Complete, catalog.Partial, catalog.Damaged, catalog.Newer} {
		store(t, m, layout, entry(hourly(prod, i), state, bad, verified))
	}
	gone, short, moved := entry(hourly(prod, 4), complete, verified), entry(hourly(prod, 5), complete), entry(hourly(prod, 6), complete, verified)
	for _, e := range []catalog.Entry{gone, short, moved} {
		store(t, m, layout, e)
	}
	goneDir, err := layout.Dir(gone.Ref)
	require.NoError(t, err)
	require.NoError(t, m.Delete(t.Context(), goneDir+"snapshot.db.zst.age"))
	shortDir, err := layout.Dir(short.Ref)
	require.NoError(t, err)
	m.Set(shortDir+"snapshot.db.zst.age", nil, 5, noon)
	// Somebody copies a point of prod to prod-eu.
	movedDir, err := layout.Dir(moved.Ref)
	require.NoError(t, err)
	data, err := m.Get(t.Context(), movedDir+"point.json")
	require.NoError(t, err)
	m.Set(strings.Replace(movedDir, "/prod/", "/prod-eu/", 1)+"point.json", data, int64(len(data)), noon)
	// And things that are none of ours.
	for _, name := range []string{"README.md", "v1/README.md", "v1/default/prod/x", "v2/default/prod/x", shortDir + "NOTES.txt"} {
		m.Set(name, []byte("x"), 1, noon)
	}

	cat := read(t, m, layout)
	require.Equal(t, 3, cat.Foreign, cat.Examples)
	var got []string
	for _, e := range cat.Entries {
		text := fmt.Sprintf("%s %s %s %s %d", e.Ref.Name, e.Ref.Nonce, e.State, e.Verdict(), len(e.Proofs))
		if e.Err != nil {
			text += ": " + e.Err.Error()
		}
		got = append(got, text)
	}
	for i, want := range []string{
		"prod 00000000 Complete Failed 2",
		"prod 00000001 Partial Failed 2",
		"prod 00000002 Damaged Failed 2: v1/default/prod/cdf818194e3a8c32/e0001/full/20261010T220000Z-r0000000000000000992-00000002/point.json: damaged: ",
		"prod 00000003 Newer Failed 2: v1/default/prod/cdf818194e3a8c32/e0001/full/20261010T230000Z-r0000000000000000993-00000003/point.json: written by a newer Quorate: it has format quorate-backup-point/2.0",
		"prod 00000004 Damaged Unclear 1: damaged: its data v1/default/prod/cdf818194e3a8c32/e0001/full/20261011T000000Z-r0000000000000000994-00000004/snapshot.db.zst.age is not in the store",
		"prod 00000005 Damaged Unproven 0: damaged: its data v1/default/prod/cdf818194e3a8c32/e0001/full/20261011T010000Z-r0000000000000000995-00000005/snapshot.db.zst.age has 5 bytes and was stored with 41943040",
		"prod 00000006 Complete Proven 1",
		"prod-eu 00000006 Damaged Unproven 0: damaged: it lies at v1/default/prod-eu/",
	} {
		require.True(t, strings.HasPrefix(got[i], want), "%s\n%s", got[i], want)
	}
	require.Len(t, got, 8)

	require.Len(t, read(t, m, layout, prod.Cluster).Entries, 7)
	require.Len(t, read(t, m, layout, catalog.Cluster{Namespace: "default", Name: "prod-eu"}).Entries, 1)
	require.Empty(t, read(t, m, layout, catalog.Cluster{Namespace: "default", Name: "pro"}).Entries)
	cat, err = catalog.Read(t.Context(), m, layout, catalog.ReadOptions{Filter: catalog.Filter{ClusterID: 7}})
	require.NoError(t, err)
	require.Empty(t, cat.Entries)
}

func TestReadFinds(t *testing.T) {
	m, layout := &catalogtest.Memory{}, catalog.Layout{}
	again := prod
	again.Epoch = 2
	for i := range 3 {
		store(t, m, layout, entry(hourly(prod, 8+i), complete, verified))
		store(t, m, layout, entry(hourly(again, i), complete))
	}
	cat := read(t, m, layout)
	lineages := cat.Lineages()
	require.Len(t, lineages, 2)
	require.Equal(t, int64(1000), catalog.NewestProven(lineages[0]).Ref.Revision)
	require.Equal(t, int64(992), catalog.Newest(lineages[1]).Ref.Revision)
	require.Nil(t, catalog.NewestProven(lineages[1]))
	require.Len(t, cat.Find(n(9)), 1)
	require.Equal(t, cat.Find(n(9)), cat.Find(hourly(prod, 9).ID()))
	require.Empty(t, cat.Find(""))
}

// TestProofsOfOthers: a proof proves only what it is of.
func TestProofsOfOthers(t *testing.T) {
	for name, change := range map[string]func(*catalog.Proof){
		"is of the point": func(p *catalog.Proof) { p.Point = hourly(prod, 2).ID() },
		"of data with":    func(p *catalog.Proof) { p.StoredSHA256 = strings.Repeat("00", 32) },
		"it ended at":     func(p *catalog.Proof) { p.Ended = p.Ended.Add(1) },
	} {
		m, layout := &catalogtest.Memory{}, catalog.Layout{}
		e := entry(hourly(prod, 1), complete, verified)
		change(e.Proofs[0].Proof)
		store(t, m, layout, e)
		got := read(t, m, layout).Entries[0]
		require.Equal(t, catalog.Unclear, got.Verdict())
		require.ErrorIs(t, got.Proofs[0].Err, catalog.ErrDamaged)
		require.ErrorContains(t, got.Proofs[0].Err, name)
	}
}

// TestReadFailures: what can't be fetched is unknown, and kept; all else is read.
func TestReadFailures(t *testing.T) {
	m, layout := &catalogtest.Memory{}, catalog.Layout{}
	for i := range 5 {
		store(t, m, layout, entry(hourly(prod, i), complete, verified))
	}
	unavailable := errors.New("503 slow down")
	m.Before = func(op catalogtest.Op, name string) error {
		switch {
		case op != catalogtest.Get:
		case strings.Contains(name, n(1)+"/point"):
			return unavailable
		case strings.Contains(name, n(2)+"/proof"):
			return unavailable
		case strings.Contains(name, n(3)+"/point"):
			return catalog.ErrNotFound
		}
		return nil
	}
	cat := read(t, m, layout)
	require.Equal(t, catalog.Unknown, cat.Entries[1].State)
	require.ErrorIs(t, cat.Entries[1].Err, unavailable)
	require.Equal(t, catalog.Unclear, cat.Entries[2].Verdict())
	require.Equal(t, catalog.Unknown, cat.Entries[3].State)
	require.ErrorContains(t, cat.Entries[3].Err, "was deleted while the catalog was read")
	require.Len(t, kept(t, catalog.Policy{KeepLast: 1}, catalog.Situation{}, cat.Entries...), 4)

	m.Before = func(op catalogtest.Op, _ string) error {
		if op == catalogtest.List {
			return unavailable
		}
		return nil
	}
	_, err := catalog.Read(t.Context(), m, layout, catalog.ReadOptions{})
	require.ErrorIs(t, err, unavailable)

	ctx, cancel := context.WithCancel(t.Context())
	m.Before = func(op catalogtest.Op, _ string) error {
		if op == catalogtest.Get {
			cancel()
			return ctx.Err()
		}
		return nil
	}
	_, err = catalog.Read(ctx, m, layout, catalog.ReadOptions{})
	require.ErrorIs(t, err, context.Canceled)
}

func TestHugeDocumentsAreNotFetched(t *testing.T) {
	m, layout := &catalogtest.Memory{}, catalog.Layout{}
	e := entry(hourly(prod, 1), complete)
	store(t, m, layout, e)
	dir, err := layout.Dir(e.Ref)
	require.NoError(t, err)
	m.Set(dir+"point.json", nil, 1<<40, noon)
	m.Before = func(op catalogtest.Op, _ string) error { require.NotEqual(t, catalogtest.Get, op); return nil }
	require.Equal(t, catalog.Damaged, read(t, m, layout).Entries[0].State)
}

// TestReadTenThousand measures in the time of a store that takes 20 ms for each
// document: no more than 64 at once, and some seconds.
func TestReadTenThousand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cache catalog.Cache
		m, layout := &catalogtest.Memory{Latency: 20 * time.Millisecond}, catalog.Layout{}
		for i := range 10_000 {
			store(t, m, layout, entry(hourly(prod, i), complete, verified))
		}
		var gets, most atomic.Int64
		m.Before = func(op catalogtest.Op, _ string) error {
			if op == catalogtest.Get {
				gets.Add(1)
			}
			return nil
		}
		started := time.Now()
		cat, err := catalog.Read(t.Context(), &counting{Memory: m, most: &most}, layout, catalog.ReadOptions{Cache: &cache})
		require.NoError(t, err)
		require.Len(t, cat.Entries, 10_000)
		took := time.Since(started)
		t.Logf("%d documents in %s, %d at once", gets.Load(), took, most.Load())
		require.EqualValues(t, 20_000, gets.Load())
		require.EqualValues(t, 64, most.Load())
		require.Less(t, took, 8*time.Second)

		store(t, m, layout, entry(hourly(prod, 10_000), complete, verified))
		again, err := catalog.Read(t.Context(), m, layout, catalog.ReadOptions{Cache: &cache})
		require.NoError(t, err)
		require.EqualValues(t, 20_002, gets.Load(), "the cache")
		require.Equal(t, cat.Entries, again.Entries[:10_000])
	})
}

// counting sees how many documents are fetched at once.
type counting struct {
	*catalogtest.Memory
	now  atomic.Int64
	most *atomic.Int64
}

func (c *counting) Get(ctx context.Context, name string) ([]byte, error) {
	now := c.now.Add(1)
	defer c.now.Add(-1)
	for {
		most := c.most.Load()
		if now <= most || c.most.CompareAndSwap(most, now) {
			return c.Memory.Get(ctx, name)
		}
	}
}

func TestWritePoint(t *testing.T) {
	now := noon
	m, layout := &catalogtest.Memory{Now: func() time.Time { return now }}, catalog.Layout{}
	p := point(hourly(prod, 1))
	dir, err := layout.Dir(p.Ref())
	require.NoError(t, err)
	write := func() error { return catalog.WritePoint(t.Context(), m, layout, p) }

	require.ErrorIs(t, write(), catalog.ErrIncomplete)
	m.Set(dir+p.Object, nil, p.StoredSize-1, now)
	require.ErrorIs(t, write(), catalog.ErrIncomplete)
	require.ErrorIs(t, catalog.WriteProof(t.Context(), m, layout, p.Ref(), proof(p.Ref(), noon, verified)), catalog.ErrNotFound)
	require.Len(t, m.Names(), 1, "no manifest or proof was written")

	// A pruner that takes the data for a leftover in between.
	m.Set(dir+p.Object, nil, p.StoredSize, now)
	m.Before = func(op catalogtest.Op, _ string) error {
		if op == catalogtest.Put {
			return m.Delete(t.Context(), dir+p.Object)
		}
		return nil
	}
	require.ErrorIs(t, write(), catalog.ErrIncomplete)
	m.Before = nil

	// Data that is so old that one may be about to.
	m.Set(dir+p.Object, nil, p.StoredSize, now.Add(-13*time.Hour))
	require.ErrorIs(t, write(), catalog.ErrIncomplete)
	require.NotContains(t, m.Names(), dir+"point.json")

	m.Set(dir+p.Object, nil, p.StoredSize, now.Add(-11*time.Hour))
	require.NoError(t, write())
	require.NoError(t, catalog.WriteProof(t.Context(), m, layout, p.Ref(), proof(p.Ref(), noon.Add(-time.Hour), verified)))
	require.NoError(t, catalog.WriteProof(t.Context(), m, layout, p.Ref(), proof(p.Ref(), noon, bad)))
	got := read(t, m, layout).Entries
	require.Len(t, got, 1)
	require.Equal(t, catalog.Failed, got[0].Verdict())
	require.Len(t, got[0].Proofs, 2)
	require.Equal(t, p.Revision, got[0].Point.Revision)
}

func BenchmarkRead10k(b *testing.B) {
	m, layout := &catalogtest.Memory{}, catalog.Layout{}
	for _, e := range anyEntries(rand.New(rand.NewPCG(1, 1)), 10_000) {
		for i := range e.Proofs {
			if e.Proofs[i].Proof == nil {
				e.Proofs = nil
				break
			}
		}
		store(b, m, layout, e)
	}
	b.ReportAllocs()
	for b.Loop() {
		read(b, m, layout)
	}
}
