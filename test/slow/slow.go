// Package slow marks the tests that take too long for every change: what boots machines,
// forms whole fleets, or repeats with more members what shorter tests show. They run with
// make check-slow and with the prove targets.
package slow

import (
	"os"
	"testing"
)

// Variable is what the environment says to have them run.
const Variable = "QUORATE_SLOW"

// Only skips the test unless slow ones were asked for.
func Only(tb testing.TB) {
	tb.Helper()
	if os.Getenv(Variable) == "" {
		tb.Skip("SKIPPED: it takes long: make check-slow runs it, or " + Variable + "=1")
	}
}
