package fleet_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/fleet"
)

func schedule(t *testing.T, s v1alpha1.BackupSchedule) *fleet.BackupSchedule {
	t.Helper()
	if s.TimeZone == "" {
		s.TimeZone = "UTC"
	}
	out, err := fleet.NewBackupSchedule(s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func at(text string) time.Time {
	when, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return when
}

// TestIntervals: a cluster has its own moment in the interval, and the same each time;
// what was missed is one run.
func TestIntervals(t *testing.T) {
	for _, interval := range []string{"", "1m", "90m", "24h", "8760h"} {
		s := schedule(t, v1alpha1.BackupSchedule{Interval: interval})
		step := time.Hour
		if interval != "" {
			step, _ = time.ParseDuration(interval)
		}
		moments := map[time.Duration]bool{}
		for i := range 50 {
			who := fmt.Sprint("default/c", i)
			last := at("2026-11-21T12:00:00Z")
			next := s.Next(who, last)
			if gap := next.Sub(last); gap < step/2 || gap >= step/2+step {
				t.Fatalf("%s: the next after %s is %s", interval, last, next)
			}
			moments[next.Sub(last)] = true
			for range 5 {
				after := s.Next(who, next)
				// A backup that begins a little late moves nothing.
				if late := s.Next(who, next.Add(step/4)); after.Sub(next) != step || !late.Equal(after) {
					t.Fatalf("%s: after %s comes %s, and if it was late %s", interval, next, after, late)
				}
				next = after
			}
			// After a year of silence the next is long ago, and the one after it is not.
			old := s.Next(who, last.AddDate(-1, 0, 0).Add(-step))
			if old.After(last) {
				t.Errorf("%s: a run that was missed is due at %s", interval, old)
			}
			if again := s.Next(who, last); !again.After(last) {
				t.Errorf("%s: once it was made up for, the next is due at %s", interval, again)
			}
		}
		if len(moments) < 40 {
			t.Errorf("%s: 50 clusters share %d moments", interval, len(moments))
		}
		if s.StaleAfter() != 3*step {
			t.Errorf("%s: stale after %s", interval, s.StaleAfter())
		}
	}
}

func TestCron(t *testing.T) {
	none := v1alpha1.BackupSchedule{Cron: "30 2 * * *", Jitter: "0s", TimeZone: "Europe/Berlin"}
	s := schedule(t, none)
	for last, want := range map[string]string{
		"2026-11-21T12:00:00Z": "2026-11-22T01:30:00Z",
		"2026-11-22T01:30:00Z": "2026-11-23T01:30:00Z",
		// The night in which that hour is left out, and the one in which it comes twice.
		"2026-03-28T12:00:00Z": "2026-03-30T00:30:00Z",
		"2026-10-24T12:00:00Z": "2026-10-25T00:30:00Z",
	} {
		if got := s.Next("a", at(last)); !got.Equal(at(want)) {
			t.Errorf("after %s comes %s, not %s", last, got.UTC().Format(time.RFC3339), want)
		}
	}
	if s.String() != "30 2 * * * Europe/Berlin" {
		t.Error(s)
	}
	// Each is put off by its own part, and never by more than the jitter.
	none.Jitter = ""
	s = schedule(t, none)
	seen := map[time.Time]bool{}
	for i := range 50 {
		next := s.Next(fmt.Sprint("c", i), at("2026-11-21T12:00:00Z"))
		if off := next.Sub(at("2026-11-22T01:30:00Z")); off < 0 || off >= time.Minute {
			t.Errorf("it is put off by %s", off)
		}
		if again := s.Next(fmt.Sprint("c", i), next); again.Sub(next) != 24*time.Hour {
			t.Errorf("the next day it is %s later", again.Sub(next))
		}
		seen[next] = true
	}
	if len(seen) < 40 {
		t.Errorf("50 clusters share %d moments", len(seen))
	}
	for cron, want := range map[string]time.Duration{
		"@daily": 72 * time.Hour, "0 */6 * * *": 18 * time.Hour, "* 9-17 * * 1-5": 3 * (63*time.Hour + time.Minute),
		"0 0 1 * *": 3 * 31 * 24 * time.Hour,
	} {
		if got := schedule(t, v1alpha1.BackupSchedule{Cron: cron}).StaleAfter(); got != want {
			t.Errorf("%s: stale after %s, not %s", cron, got, want)
		}
	}
}

func TestSchedulesRefused(t *testing.T) {
	for want, s := range map[string]v1alpha1.BackupSchedule{
		"at least 1m":    {Interval: "0s", TimeZone: "UTC"},
		"not a duration": {Interval: "1d", TimeZone: "UTC"},
		"never comes":    {Cron: "0 0 30 2 *", TimeZone: "UTC"},
		"use interval":   {Cron: "@every 1s", TimeZone: "UTC"},
		"give minute":    {Cron: "61 * * * *", TimeZone: "UTC"},
		"no time zone":   {Cron: "@daily", TimeZone: "Mars/Phobos"},
		"Europe/Berlin":  {Cron: "@daily", TimeZone: "Local"},
		"no duration":    {Cron: "@daily", TimeZone: "UTC", Jitter: "soon"},
	} {
		if _, err := fleet.NewBackupSchedule(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, and not %q", s, err, want)
		}
	}
}
