package history_test

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/history/historytest"
)

// brokenReport has a violation of many kinds of mark.
func brokenReport(t *testing.T, names ...string) *history.Report {
	t.Helper()
	all := &history.Report{Counts: map[history.Rule]int{}}
	for _, bug := range historytest.Bugs {
		if len(names) > 0 && !strings.Contains(strings.Join(names, "|"), bug.Name) {
			continue
		}
		h := historytest.Generate(11, 1500, 5)
		require.NoError(t, historytest.Plant(h, bug))
		r := check(t, h, history.Options{PerRule: 1})
		all.Stats, all.Notes = r.Stats, r.Notes
		for _, v := range r.Violations {
			if v.Rule == bug.Rule {
				all.Violations = append(all.Violations, v)
				all.Counts[v.Rule]++
			}
		}
	}
	return all
}

func TestTimeline(t *testing.T) {
	for _, v := range brokenReport(t).Violations {
		text := history.Timeline(&v)
		if os.Getenv("QUORATE_SHOW") != "" {
			t.Logf("%s: %s\n%s", v.Rule, v.Title, text)
		}
		if v.Rule == history.HashDiffers {
			continue // nobody did anything
		}
		require.NotEmpty(t, text, v.Title)
		for line := range strings.Lines(text) {
			require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSuffix(line, "\n")), 100, line)
		}
		if len(v.Marked) > 0 {
			require.Contains(t, text, "▶", v.Title)
			require.Contains(t, text, "┣", v.Title)
		}
	}
	require.Empty(t, history.Timeline(&history.Violation{}))
}

// TestPage writes the page to look at, if QUORATE_PAGE names a file.
func TestPage(t *testing.T) {
	r := brokenReport(t)
	var page bytes.Buffer
	require.NoError(t, history.WritePage(&page, "a planted <history>", r))
	text := page.String()
	for _, v := range r.Violations {
		require.Contains(t, text, string(v.Rule))
	}
	require.Contains(t, text, "a planted &lt;history&gt;")
	for _, elsewhere := range []string{"http://", "https://", "<script", "url("} {
		require.NotContains(t, text, elsewhere)
	}
	page.Reset()
	require.NoError(t, history.WritePage(&page, "clean", check(t, historytest.Generate(1, 500, 3), history.Options{})))
	require.Contains(t, page.String(), "was kept")
	if file := os.Getenv("QUORATE_PAGE"); file != "" {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	}
}
