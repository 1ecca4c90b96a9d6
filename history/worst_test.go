package history_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/history/historytest"
)

// TestThoroughlyBroken: a history in which nearly everything is wrong is judged in
// seconds, and its report stays short.
func TestThoroughlyBroken(t *testing.T) {
	h := historytest.Generate(5, 30_000, 20)
	for i := range h.Operations {
		o := &h.Operations[i]
		if o.Outcome == history.OK && i%3 == 0 {
			o.Revision -= int64(i % 50)
		}
		for j := range o.Results {
			for k := range o.Results[j].KVs {
				o.Results[j].KVs[k].Version += int64(i % 2)
			}
		}
	}
	for i := range h.Watches {
		for j := range h.Watches[i].Responses {
			if r := &h.Watches[i].Responses[j]; j%5 == 0 && len(r.Events) > 0 {
				r.Events = r.Events[1:]
			}
		}
	}
	r := check(t, h, history.Options{PerRule: 3, NoExcerpts: true})
	require.False(t, r.OK)
	for _, rule := range []history.Rule{history.StaleRead, history.RevisionOrder, history.WrongVersion, history.WatchMissing} {
		require.Greater(t, r.Counts[rule], 100, rule)
	}
	require.Less(t, len(r.Violations), 3*len(history.Rules())+1)
	t.Logf("%.1f s, %v", r.Stats.Seconds, r.Counts)
}
