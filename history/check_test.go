package history_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/history/historytest"
)

func check(t *testing.T, h *history.History, o history.Options) *history.Report {
	t.Helper()
	r, err := history.Check(t.Context(), h, o)
	require.NoError(t, err)
	return r
}

// said is a report in words.
func said(r *history.Report) string {
	var b strings.Builder
	for _, v := range r.Violations {
		b.WriteString(string(v.Rule) + ": " + v.Title + "\n\t" + strings.Join(v.Evidence, "\n\t") + "\n")
	}
	return b.String()
}

func TestCleanHistories(t *testing.T) {
	for seed := range uint64(50) {
		h := historytest.Generate(seed, 1500, 1+int(seed%16))
		r := check(t, h, history.Options{})
		if !r.OK {
			t.Fatalf("seed %d is clean, and was found broken:\n%s", seed, said(r))
		}
		if len(r.Skipped) > 0 {
			t.Errorf("seed %d: %s", seed, r.Skipped)
		}
	}
}

// TestPlantedBugs: each is found by its rule, whatever else is found with it.
func TestPlantedBugs(t *testing.T) {
	found := map[history.Rule]bool{}
	for _, bug := range historytest.Bugs {
		t.Run(bug.Name, func(t *testing.T) {
			for seed := range uint64(3) {
				h := historytest.Generate(100+seed, 3000, 8)
				require.NoError(t, historytest.Plant(h, bug))
				r := check(t, h, history.Options{NoExcerpts: true})
				if r.OK || r.Counts[bug.Rule] == 0 {
					t.Errorf("seed %d: %s was not found; found were:\n%s", seed, bug.Rule, said(r))
					continue
				}
				if len(r.Counts) > 1 && testing.Verbose() {
					t.Logf("seed %d: %v", seed, r.Counts)
				}
			}
		})
		found[bug.Rule] = true
	}
	for _, rule := range history.Rules() {
		require.True(t, found[rule], "no bug is planted for %s", rule)
		require.NotEmpty(t, rule.Meaning(), rule)
	}
}

// TestExcerpts: an excerpt is small, and shows what the whole shows.
func TestExcerpts(t *testing.T) {
	for _, bug := range historytest.Bugs {
		t.Run(bug.Name, func(t *testing.T) {
			h := historytest.Generate(7, 3000, 8)
			require.NoError(t, historytest.Plant(h, bug))
			r := check(t, h, history.Options{PerRule: 1})
			for _, v := range r.Violations {
				if v.Rule != bug.Rule {
					continue
				}
				require.NotNil(t, v.Excerpt, v.Title)
				events := 0
				for _, w := range v.Excerpt.Watches {
					for _, resp := range w.Responses {
						events += len(resp.Events)
					}
				}
				t.Logf("%d operations, %d watches with %d events, %d keys: %s", len(v.Excerpt.Operations), len(v.Excerpt.Watches), events, len(v.Excerpt.Initial), v.Title)
				require.LessOrEqual(t, len(v.Excerpt.Operations), 64)
				again := check(t, v.Excerpt, history.Options{NoExcerpts: true})
				require.NotZero(t, again.Counts[v.Rule])
			}
		})
	}
}
