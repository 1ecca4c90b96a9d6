package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/backup/catalog/catalogtest"
)

// noon is the present of most tests.
var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

var prod = catalog.Lineage{Cluster: catalog.Cluster{Namespace: "default", Name: "prod"}, ClusterID: 0xcdf818194e3a8c32, Epoch: 1}

// point is a manifest with all that is required.
func point(ref catalog.Ref) catalog.Point {
	return catalog.Point{
		Namespace: ref.Namespace, Name: ref.Name, ClusterID: ref.ClusterID, Epoch: ref.Epoch, Nonce: ref.Nonce,
		Source:      catalog.Source{MemberID: 0x8e9e05c52164694d, MemberName: "prod-1", Role: "learner"},
		EtcdVersion: "3.6.5", StorageVersion: "3.6.0",
		Revision: ref.Revision, CompactRevision: ref.Revision / 2, RaftIndex: uint64(ref.Revision) + 10, RaftTerm: 2,
		Started: ref.Time.Add(123 * time.Millisecond), Ended: ref.Time.Add(3 * time.Second),
		Object: catalog.DataFile(catalog.CompressionZstd, true), DBSize: 376 << 20, StoredSize: 40 << 20,
		DBSHA256: strings.Repeat("ab", 32), StoredSHA256: strings.Repeat("cd", 32),
		HashKV:      catalog.HashKV{Hash: 4_000_000_000, Revision: ref.Revision, CompactRevision: ref.Revision / 2},
		Counts:      catalog.Counts{Keys: 100, Revisions: 200, Leases: 3},
		AuthEnabled: true, Compression: catalog.CompressionZstd,
		Encryption: &catalog.Encryption{Method: catalog.EncryptionAge, Recipients: []string{"SHA256:x"}},
		Tool:       "v0.1.0", Policy: "default/hourly",
	}
}

func proof(ref catalog.Ref, at time.Time, result catalog.Result) catalog.Proof {
	p := catalog.Proof{
		Point: ref.ID(), StoredSHA256: strings.Repeat("cd", 32), Result: result,
		Started: at.Add(-time.Minute), Ended: at,
		Counts:    catalog.Counts{Keys: 100, Revisions: 200, Leases: 3},
		Durations: catalog.ProofDurations{Download: 1.5, Restore: 2, Start: 0.2, Hash: 0.7},
		Bytes:     40 << 20, PeakMemory: 90 << 20, EtcdVersion: "3.7.3", Where: "host-1", Tool: "v0.1.0",
	}
	if result == catalog.ResultFailed {
		p.Reason = "100 keys expected and 99 found"
	}
	return p
}

// hourly is the n-th point of a lineage, an hour after the one before.
func hourly(l catalog.Lineage, n int) catalog.Ref {
	return catalog.Ref{
		Lineage: l, Time: noon.Add(-1000 * time.Hour).Add(time.Duration(n) * time.Hour),
		Revision: int64(990 + n), Nonce: fmt.Sprintf("%08x", n),
	}
}

// entry is a point as Read would tell it.
func entry(ref catalog.Ref, state catalog.State, results ...catalog.Result) catalog.Entry {
	e := catalog.Entry{Ref: ref, Dir: fmt.Sprint(ref), State: state, Modified: ref.Time.Add(time.Minute)}
	p := point(ref)
	switch state {
	case catalog.Complete:
		e.Point = &p
	case catalog.Damaged:
		e.Err = catalog.ErrDamaged
	case catalog.Newer:
		e.Err = catalog.ErrNewer
	case catalog.Unknown:
		e.Err = errors.New("503")
	case catalog.Partial:
	}
	for i, r := range results { // newest first
		proof := proof(ref, ref.Time.Add(time.Hour-time.Duration(i)*time.Minute), r)
		e.Proofs = append(e.Proofs, catalog.ProofEntry{Name: fmt.Sprint(ref, i), Time: proof.Ended, Proof: &proof})
	}
	return e
}

// store puts an entry into a store, as it would have been written at its time.
func store(tb require.TestingT, m *catalogtest.Memory, layout catalog.Layout, e catalog.Entry) {
	dir, dirErr := layout.Dir(e.Ref)
	require.NoError(tb, dirErr)
	p := point(e.Ref)
	m.Set(dir+p.Object, nil, p.StoredSize, e.Modified)
	for _, pe := range e.Proofs {
		doc, err := catalog.EncodeProof(*pe.Proof)
		require.NoError(tb, err)
		m.Set(dir+"proof-"+pe.Time.UTC().Format("20060102T150405.000000000Z")+".json", doc, int64(len(doc)), e.Modified)
	}
	if e.State == catalog.Partial {
		return
	}
	data, err := catalog.EncodePoint(p)
	require.NoError(tb, err)
	if e.State == catalog.Damaged {
		data[len(data)/2] ^= 1
	}
	if e.State == catalog.Newer {
		data = []byte(strings.Replace(string(data), "point/1.", "point/2.", 1))
	}
	m.Set(dir+"point.json", data, int64(len(data)), e.Modified)
}

// odd are names that have troubled others.
var odd = []string{
	"prod", "prod-eu", "prod-1", "pro", "prod-", "prod.eu", "", ".", "..", "/", "prod/eu", "a/../b", "PROD", "Prod", "_", "__", "_2e", "_clock",
	"v1", "e0001", "full", "point.json", "日本語", "\x00\u00ff\u2028<&>", "\ufffd", "a b", "%2e%2e", ".hidden", "ends.", `back\slash`, "\n",
	strings.Repeat("x", 199), strings.Repeat("x", 200), strings.Repeat("x", 201), strings.Repeat("x", 253), strings.Repeat(".", 60),
}

// anyEntries are up to n points of clusters with confusable names, in any order: reset
// revisions, equal times and revisions, clocks that went back or run ahead.
func anyEntries(r *rand.Rand, n int) []catalog.Entry {
	var lineages []catalog.Lineage
	for range 1 + n/400 + r.IntN(1+n/100) {
		lineages = append(lineages, catalog.Lineage{
			Cluster:   catalog.Cluster{Namespace: odd[r.IntN(3)], Name: odd[r.IntN(len(odd))]},
			ClusterID: catalog.ID(1 + r.IntN(3)), Epoch: uint32(1 + r.IntN(3)),
		})
	}
	states := []catalog.State{catalog.Partial, catalog.Damaged, catalog.Newer, catalog.Unknown}
	seen := map[string]bool{}
	var entries []catalog.Entry
	// Some lineages have nothing proven, some nothing failed.
	proven, failed := r.Float64(), r.Float64()*r.Float64()
	spread := []time.Duration{time.Minute, time.Hour, 24 * time.Hour, 10 * 24 * time.Hour}[r.IntN(4)]
	for i := range n {
		ref := catalog.Ref{Lineage: lineages[r.IntN(len(lineages))], Revision: int64(1 + r.IntN(n+1)), Nonce: fmt.Sprintf("%08x", r.IntN(1000))}
		ref.Time = noon.Add(-time.Duration(i) * spread / 2).Add(time.Duration(r.Int64N(int64(spread))))
		switch r.IntN(20) {
		case 0: // a clock that was wrong
			ref.Time = ref.Time.Add(time.Duration(r.Int64N(int64(2000*time.Hour))) - 1000*time.Hour)
		case 1:
			ref.Time = noon
		default: // revisions grow with time, mostly
			ref.Revision = int64(n - i + 1)
		}
		ref.Time = ref.Time.Truncate(time.Second)
		if id := ref.String(); seen[id] {
			continue
		}
		seen[ref.String()] = true
		state := catalog.Complete
		if r.IntN(10) == 0 {
			state = states[r.IntN(len(states))]
		}
		var results []catalog.Result
		for r.IntN(3) > 0 && len(results) < 3 {
			if r.Float64() < failed {
				results = append(results, catalog.ResultFailed)
			} else if r.Float64() < proven {
				results = append(results, catalog.Verified)
			}
		}
		e := entry(ref, state, results...)
		if r.IntN(30) == 0 && len(e.Proofs) > 0 {
			e.Proofs[0].Proof, e.Proofs[0].Err = nil, []error{catalog.ErrDamaged, catalog.ErrNewer}[r.IntN(2)]
		}
		entries = append(entries, e)
	}
	r.Shuffle(len(entries), func(a, b int) { entries[a], entries[b] = entries[b], entries[a] })
	return entries
}

// anyPolicy is a random policy, the empty one now and then.
func anyPolicy(r *rand.Rand) catalog.Policy {
	some := func() int { return max(0, r.IntN(16)-8) }
	p := catalog.Policy{
		KeepLast: some(), Hourly: some(), Daily: some(), Weekly: some(), Monthly: some(), Yearly: some(),
		KeepWithin: time.Hour * time.Duration(max(0, r.IntN(200)-100)),
		AwaitProof: time.Hour * time.Duration(max(0, r.IntN(48)-24)),
	}
	if r.IntN(3) == 0 {
		p = catalog.Policy{KeepLast: 1}
	}
	for _, zone := range []string{"Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe"} {
		if r.IntN(4) == 0 {
			if z, err := time.LoadLocation(zone); err == nil {
				p.Zone = z
			}
		}
	}
	return p
}

func read(tb testing.TB, m *catalogtest.Memory, layout catalog.Layout, clusters ...catalog.Cluster) *catalog.Catalog {
	tb.Helper()
	cat, err := catalog.Read(context.Background(), m, layout, catalog.ReadOptions{Filter: catalog.Filter{Clusters: clusters}})
	require.NoError(tb, err)
	return cat
}
