package check_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/check"
)

// TestClean: what killed runs have left is deleted, and nothing else.
func TestClean(t *testing.T) {
	l := newLab(t, 1, "")
	c := l.Members[0].Dial()
	put := func(keys ...string) {
		t.Helper()
		for _, key := range keys {
			if _, err := c.Put(t.Context(), key, "1"); err != nil {
				t.Fatal(err)
			}
		}
	}
	const left, busy, named, foreign = "/quorate-check/0123456789abcdef/", "/quorate-check/fedcba9876543210/", "/quorate-check/mine/", "/mine/"
	for n := range 250 {
		put(fmt.Sprintf("%sk/%05d", left, n))
	}
	put(left+"z/end", busy+"k/00001", named+"k/00001", foreign+"k/00001", foreign+"somebody's", "/quorate-check/alone", "/quorate-check0", "/quorate-checked/k/00001", "/other")
	o, quiet := check.Options{Endpoints: l.URLs()}, check.CleanOptions{Quiet: 300 * time.Millisecond}

	dry := quiet
	dry.DryRun = true
	found, err := check.Clean(t.Context(), o, dry)
	if err != nil || len(found) != 3 || found[0].Prefix != left || found[0].Keys != 251 || found[0].Deleted != 0 || found[0].Kept != "" {
		t.Errorf("what would be done: %+v, %v", found, err)
	}
	ctx, stop := context.WithCancel(t.Context())
	writes := make(chan struct{})
	go func() {
		defer close(writes)
		for ctx.Err() == nil {
			_, _ = c.Put(ctx, busy+"k/00001", "2") // it is ended at the end
		}
	}()
	found, err = check.Clean(t.Context(), o, quiet)
	stop()
	<-writes
	if err != nil || len(found) != 3 || found[0].Deleted != 251 || found[1].Prefix != busy || !strings.Contains(found[1].Kept, "its run goes on") ||
		found[2].Prefix != named || !strings.Contains(found[2].Kept, "name it") {
		t.Errorf("it found %+v, %v", found, err)
	}
	for prefix, want := range map[string]int64{left: 0, busy: 1, named: 1, foreign: 2, "/quorate-check": 5, "/other": 1} {
		if n := l.left(prefix); n != want {
			t.Errorf("%d keys are left below %s, want %d", n, prefix, want)
		}
	}

	one := quiet
	one.Prefix = foreign
	if found, err = check.Clean(t.Context(), o, one); err != nil || len(found) != 1 || found[0].Deleted != 0 || !strings.Contains(found[0].Kept, "no key of a check") || l.left(foreign) != 2 {
		t.Errorf("what is somebody's: %+v, %v", found, err)
	}
	one.Prefix = named
	if found, err = check.Clean(t.Context(), o, one); err != nil || len(found) != 1 || found[0].Deleted != 1 || l.left(named) != 0 {
		t.Errorf("by its name: %+v, %v", found, err)
	}
	if found, err = check.Clean(t.Context(), o, one); err != nil || len(found) != 0 {
		t.Errorf("when it is gone: %+v, %v", found, err)
	}
	one.Prefix = "/"
	if _, err = check.Clean(t.Context(), o, one); !errors.Is(err, check.ErrOptions) {
		t.Errorf("everything: %v", err)
	}
	l.Members[0].Kill()
	if _, err = check.Clean(t.Context(), o, quiet); !errors.Is(err, check.ErrNobody) {
		t.Errorf("nobody: %v", err)
	}
}

// TestRecordBreaks: a record that can't be written takes nothing from the verdict.
func TestRecordBreaks(t *testing.T) {
	l := newLab(t, 1, "")
	plan, err := check.Prepare(t.Context(), check.Options{Endpoints: l.URLs(), Duration: 2 * time.Second, File: filepath.Join(t.TempDir(), "broken.zst")})
	if err != nil {
		t.Fatal(err)
	}
	check.BreakRecord(t)
	r, err := plan.Run(t.Context())
	if !errors.Is(err, check.ErrRecord) || r == nil || r.Verdict != check.Holds || r.Stats.Writes == 0 {
		t.Errorf("%+v, %v", r, err)
	}
	for _, v := range r.Report.Violations {
		t.Errorf("%s: %s: %q", v.Rule, v.Title, v.Evidence)
	}
	if n := l.left(plan.Prefix); n != 0 {
		t.Errorf("%d keys are left", n)
	}
}

// TestAbandon: who has no patience with the end of a run is told what is left.
func TestAbandon(t *testing.T) {
	l := newLab(t, 1, "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	again := make(chan struct{})
	file := filepath.Join(t.TempDir(), "abandoned.zst")
	var asked time.Time
	r, err := check.Run(ctx, check.Options{
		Endpoints: l.URLs(), Duration: time.Hour, Timeout: time.Hour, Patience: time.Hour, File: file, Prefix: "/left/", Abandon: again,
		Progress: func(p check.Progress) {
			if p.Operations > 0 && asked.IsZero() {
				asked = time.Now()
				l.Members[0].Kill()
				cancel()
				close(again)
			}
		},
	})
	if !errors.Is(err, check.ErrAbandoned) || r != nil || time.Since(asked) > 10*time.Second {
		t.Fatalf("%+v, %v after %s", r, err, time.Since(asked))
	}
	for _, want := range []string{file, "quorate check clean --prefix /left/"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
	if _, err = os.Stat(file); err != nil {
		t.Error(err)
	}
}

// TestLimit: what is kept in memory is bounded, unless it is asked for.
func TestLimit(t *testing.T) {
	l := newLab(t, 1, "")
	for what, tc := range map[string]struct {
		opts   check.Options
		note   string
		memory int64
	}{
		"a short run":         {check.Options{}, "", 1 << 27},
		"a long one":          {check.Options{Duration: 24 * time.Hour}, "before its time", 5 << 30},
		"values that are big": {check.Options{ValueSize: 1 << 20, Duration: 24 * time.Hour}, "before its time", 8 << 30},
		"many operations":     {check.Options{Operations: 50_000_000, Rate: -1}, "GiB of memory", 1 << 40},
	} {
		tc.opts.Endpoints = l.URLs()
		p, err := check.Prepare(t.Context(), tc.opts)
		if err != nil {
			t.Fatal(err)
		}
		if notes := strings.Join(p.Notes, "\n"); (notes == "") != (tc.note == "") || !strings.Contains(notes, tc.note) || p.Memory <= 0 || p.Memory > tc.memory || p.Limit <= 0 {
			t.Errorf("%s: %q, %d bytes for %d operations", what, notes, p.Memory, p.Limit)
		}
	}
	check.KeepAtMost(t, 100)
	r := run(t, check.Options{Endpoints: l.URLs(), Duration: time.Hour})
	if n := strings.Join(r.Notes, "\n"); r.Verdict != check.Holds || !strings.Contains(n, "ended after 100 operations") {
		t.Errorf("%s: %q", r.Verdict, n)
	}
}

// TestMissing: a member that is not reached is known to whoever disturbs.
func TestMissing(t *testing.T) {
	l := newLab(t, 3, "")
	l.Members[2].Kill()
	p, err := check.Prepare(t.Context(), check.Options{Endpoints: l.URLs()[:1]})
	if err != nil || len(p.Missing) != 1 || p.Missing[0].Name != "m3" || len(p.Missing[0].PeerURLs) != 1 || p.Cluster == "" || len(p.Members) != 2 {
		t.Errorf("%+v, %v", p, err)
	}
}
