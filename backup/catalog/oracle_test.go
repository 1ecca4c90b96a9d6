package catalog_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/quorate/quorate/backup/catalog"
)

// The oracle says of each point alone whether it is wanted, from the words of the
// documentation, by comparing it with all others: no sorting, no walking, no counters,
// and calendars by formatted text. It is slow.

type oracle struct {
	policy catalog.Policy
	keys   map[string][]string // bucket of each point, by rule
	points []catalog.Entry     // of one lineage
}

// trusted says how far a point is, from 0 to 3.
func trusted(e catalog.Entry) int {
	damaged := 0
	for i, p := range e.Proofs {
		if p.Proof != nil && p.Proof.Result == catalog.Verified {
			if i == 0 {
				return 3
			}
			return 2
		}
		if p.Proof == nil {
			damaged = 1
		}
	}
	return damaged
}

func newer(a, b catalog.Entry) bool {
	if a.Ref.Revision != b.Ref.Revision {
		return a.Ref.Revision > b.Ref.Revision
	}
	if !a.Ref.Time.Equal(b.Ref.Time) {
		return a.Ref.Time.After(b.Ref.Time)
	}
	return a.Ref.Nonce > b.Ref.Nonce
}

func countable(e catalog.Entry) bool {
	return e.State == catalog.Complete && !e.Ref.Time.After(noon)
}

func failed(e catalog.Entry) bool {
	return len(e.Proofs) > 0 && e.Proofs[0].Proof != nil && e.Proofs[0].Proof.Result == catalog.ResultFailed
}

func newOracle(policy catalog.Policy, points []catalog.Entry) *oracle {
	o := &oracle{policy: policy, points: points, keys: map[string][]string{}}
	zone := policy.Zone
	if zone == nil {
		zone = time.UTC
	}
	for _, e := range points {
		at := e.Ref.Time.In(zone)
		begin := at
		for begin.Minute() != 0 {
			begin = begin.Add(-time.Minute)
		}
		y, w := at.ISOWeek()
		for rule, key := range map[string]string{
			"last":    fmt.Sprintf("%019d %s %s", e.Ref.Revision, e.Ref.Time.Format(time.RFC3339), e.Ref.Nonce),
			"hourly":  begin.UTC().Format("2006-01-02T15:04"),
			"daily":   at.Format("2006-01-02"),
			"weekly":  fmt.Sprintf("%04d-%02d", y, w),
			"monthly": at.Format("2006-01"),
			"yearly":  at.Format("2006"),
		} {
			o.keys[rule] = append(o.keys[rule], key)
		}
	}
	return o
}

func (o *oracle) ruleWants(i int, rule string, n int) bool {
	e := o.points[i]
	if n == 0 || !countable(e) || failed(e) {
		return false
	}
	proven := trusted(e) == 3
	keys := o.keys[rule]
	provenKeys, otherKeys := map[string]bool{}, map[string]bool{}
	for j, f := range o.points {
		if j == i || !countable(f) || failed(f) {
			continue
		}
		fProven := trusted(f) == 3
		if keys[j] == keys[i] && (fProven && !proven || fProven == proven && newer(f, e)) {
			return false // it has a better representative
		}
		if keys[j] > keys[i] {
			if fProven {
				provenKeys[keys[j]] = true
			} else {
				otherKeys[keys[j]] = true
			}
		}
	}
	others := 0
	for k := range otherKeys {
		if !provenKeys[k] {
			others++
		}
	}
	return len(provenKeys) < n && (proven || others < n)
}

func (o *oracle) wants(i int) bool {
	e, p := o.points[i], o.policy
	age := noon.Sub(e.Ref.Time)
	newestOfAll, best, provenAfter, anyComplete := true, true, false, false
	for j, f := range o.points {
		if !countable(f) {
			continue
		}
		anyComplete = true
		if newer(f, e) && trusted(f) == 3 {
			provenAfter = true
		}
		if j != i && newer(f, e) {
			newestOfAll = false
		}
		if j != i && (trusted(f) > trusted(e) || trusted(f) == trusted(e) && newer(f, e)) {
			best = false
		}
	}
	for _, pe := range e.Proofs {
		if pe.Err == catalog.ErrNewer { //nolint:errorlint // the test put it there
			return true
		}
	}
	switch {
	case p == catalog.Policy{Zone: p.Zone, AwaitProof: p.AwaitProof}, e.State == catalog.Newer, e.State == catalog.Unknown, age < 0:
		return true
	case e.State == catalog.Partial:
		return age <= 24*time.Hour || noon.Sub(e.Modified) <= 24*time.Hour // none of the tests' has data
	case e.State == catalog.Damaged:
		return age <= 30*24*time.Hour || p.KeepWithin > 0 && age <= p.KeepWithin || !provenAfter
	case newestOfAll && anyComplete, best && anyComplete:
		return true
	case p.KeepWithin > 0 && age <= p.KeepWithin, len(e.Proofs) == 0 && p.AwaitProof > 0 && age <= p.AwaitProof:
		return true
	}
	return o.ruleWants(i, "last", p.KeepLast) || o.ruleWants(i, "hourly", p.Hourly) || o.ruleWants(i, "daily", p.Daily) ||
		o.ruleWants(i, "weekly", p.Weekly) || o.ruleWants(i, "monthly", p.Monthly) || o.ruleWants(i, "yearly", p.Yearly)
}

// checkDecisions compares Decide with the oracle and returns how many points go.
func checkDecisions(t require.TestingT, policy catalog.Policy, entries []catalog.Entry) (deleted int) {
	decisions, err := policy.Decide(entries, catalog.Situation{Now: noon})
	require.NoError(t, err)
	require.Len(t, decisions, len(entries))
	decided := map[string]catalog.Decision{}
	for _, d := range decisions {
		decided[d.Entry.Ref.String()] = d
		require.NotEmpty(t, d.Reasons)
	}
	lineages := map[catalog.Lineage][]catalog.Entry{}
	for _, e := range entries {
		lineages[e.Ref.Lineage] = append(lineages[e.Ref.Lineage], e)
	}
	for _, points := range lineages {
		o := newOracle(policy, points)
		for i, e := range points {
			d := decided[e.Ref.String()]
			if want := o.wants(i); d.Keep != want {
				require.Fail(t, "not as wanted", "%s %s %s %s: wanted %t, kept %t: %v\n%+v", e.Ref, e.State, e.Verdict(), noon.Sub(e.Ref.Time), want, d.Keep, d.Reasons, policy)
			}
			if !d.Keep {
				deleted++
			}
		}
	}
	return deleted
}

func TestDecideAsWanted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		entries := anyEntries(r, rapid.IntRange(0, 300).Draw(t, "points"))
		policy := anyPolicy(r)
		checkDecisions(t, policy, entries)

		first, err := policy.Decide(entries, catalog.Situation{Now: noon})
		require.NoError(t, err)
		r.Shuffle(len(entries), func(a, b int) { entries[a], entries[b] = entries[b], entries[a] })
		second, err := policy.Decide(entries, catalog.Situation{Now: noon})
		require.NoError(t, err)
		require.Equal(t, first, second, "the order of entries matters")

		// What was kept is still wanted when the rest is gone, or partly gone.
		var left []catalog.Entry
		kept := map[string]bool{}
		for _, d := range first {
			kept[d.Entry.Ref.String()] = d.Keep
			if d.Keep || r.IntN(2) == 0 {
				left = append(left, d.Entry)
			}
		}
		again, err := policy.Decide(left, catalog.Situation{Now: noon})
		require.NoError(t, err)
		for _, d := range again {
			if want := kept[d.Entry.Ref.String()]; d.Keep != want && d.Entry.State != catalog.Damaged {
				require.Fail(t, "pruning again differs", "%s: %t, then %t: %v", d.Entry.Ref, want, d.Keep, d.Reasons)
			}
		}
	})
}

// TestDecideTenThousand does it with 10,000 points a time, in lineages of some hundreds.
func TestDecideTenThousand(t *testing.T) {
	total, deleted := 0, 0
	for seed := range uint64(4) {
		r := rand.New(rand.NewPCG(seed, 1))
		entries := anyEntries(r, 10_000)
		policy := anyPolicy(r)
		policy.KeepLast++ // never the empty one
		deleted += checkDecisions(t, policy, entries)
		total += len(entries)
	}
	t.Logf("%d of %d points deleted, each as the oracle wants it", deleted, total)
	require.Greater(t, deleted, total/10)
	require.Less(t, deleted, total)
}

// TestOracleCanFail shows that a decision against what is wanted is noticed.
func TestOracleCanFail(t *testing.T) {
	entries := []catalog.Entry{entry(hourly(prod, 1), catalog.Complete), entry(hourly(prod, 2), catalog.Complete), entry(hourly(prod, 3), catalog.Complete)}
	o := newOracle(catalog.Policy{KeepLast: 2}, entries)
	require.Equal(t, []bool{false, true, true}, []bool{o.wants(0), o.wants(1), o.wants(2)})
}
