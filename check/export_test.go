package check

import (
	"io"
	"os"
	"testing"
)

// BreakRecord makes histories go to a file that takes no more after its beginning, for
// one test.
func BreakRecord(t *testing.T) {
	t.Helper()
	was := openFile
	openFile = func(string, int, os.FileMode) (*os.File, error) {
		out, in, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		go func() {
			_, _ = io.CopyN(io.Discard, out, 100) // the head of the history
			_ = out.Close()                       // what is written next fails
		}()
		return in, nil
	}
	t.Cleanup(func() { openFile = was })
}

// KeepAtMost ends traffic after so many operations, for one test.
func KeepAtMost(t *testing.T, n int) {
	t.Helper()
	was := mostOperations
	mostOperations = n
	t.Cleanup(func() { mostOperations = was })
}
