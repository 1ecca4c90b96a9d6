// Package build builds the program that people run, for tests that start it as they do.
package build

import (
	"os"
	"os/exec"
	"testing"
)

// Quorate builds quorate into the file at path; the go command does next to nothing where
// nothing has changed. It says of itself that it is of that version, where one is given.
func Quorate(tb testing.TB, path, version string) {
	tb.Helper()
	flags := "-s -w"
	if version != "" {
		flags += " -X github.com/quorate/quorate/internal/version.version=" + version
	}
	cmd := exec.CommandContext(tb.Context(), "go", "build", "-trimpath", "-ldflags", flags, "-o", path, "github.com/quorate/quorate/cmd/quorate")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("build quorate %s: %v\n%s", version, err, out)
	}
}
