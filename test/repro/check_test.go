package repro_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quorate/quorate/history"
)

// keep writes the raw history to QUORATE_REPRO_HISTORIES, if that is set.
func keep(t *testing.T, h *history.History) {
	t.Helper()
	dir := os.Getenv("QUORATE_REPRO_HISTORIES")
	if dir == "" {
		return
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	name := strings.NewReplacer("/", "-", " ", "-").Replace(strings.TrimPrefix(t.Name(), "TestRepro/"))
	f, err := os.Create(filepath.Join(dir, name+".history.zst"))
	if err != nil {
		t.Fatal(err)
	}
	if err = history.Write(f, h); err != nil {
		t.Fatal(err)
	}
	if err = f.Close(); err != nil {
		t.Fatal(err)
	}
}

// check a history, and log what is wrong with it.
func check(t *testing.T, h *history.History) *history.Report {
	t.Helper()
	r, err := history.Check(t.Context(), h, history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range r.Violations {
		t.Logf("%s: %s\n  %s", v.Rule, v.Title, strings.Join(v.Evidence, "\n  "))
	}
	for _, s := range r.Skipped {
		t.Log("not judged: ", s)
	}
	t.Logf("%d operations, %d of them unknown, %d watches with %d events", r.Stats.Operations, r.Stats.Unknown, r.Stats.Watches, r.Stats.WatchEvents)
	return r
}
