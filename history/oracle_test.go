package history_test

import (
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/history/historytest"
)

// TestOracle: on small histories, half of them scrambled, the checker and porcupine
// alone come to the same verdict. The truth watch tells what happened, but not when:
// the oracle does not know that either.
func TestOracle(t *testing.T) {
	broken := 0
	seeds := uint64(100)
	if n, err := strconv.ParseUint(os.Getenv("QUORATE_ORACLE"), 10, 32); err == nil {
		seeds = n
	}
	for seed := range seeds {
		h := historytest.GenerateSmall(seed, 24+int(seed%17), 2+int(seed%4))
		for i := range h.Watches[0].Responses {
			h.Watches[0].Responses[i].At = history.Never - 1
		}
		edit := "nothing"
		if seed%2 == 1 {
			edit = historytest.Scramble(h, seed)
		}
		want, err := historytest.Linearizable(h)
		require.NoError(t, err, "seed %d", seed)
		if !want {
			broken++
		}
		r := check(t, h, history.Options{NoExcerpts: true})
		if r.OK != want {
			t.Errorf("seed %d, scrambled: %s: the oracle says linearizable: %v, the checker says:\n%s%v", seed, edit, want, said(r), r.Skipped)
		}
	}
	require.Greater(t, broken, 30, "the oracle must find histories broken, or it shows nothing")
	t.Logf("oracle: histories=%d broken=%d", seeds, broken)
}
