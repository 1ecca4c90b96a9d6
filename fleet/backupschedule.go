package fleet

import (
	"errors"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/quorate/quorate/api/v1alpha1"
)

const (
	// defaultInterval and defaultJitter are those that the API tells.
	defaultInterval = time.Hour
	defaultJitter   = time.Minute
	// staleRuns is how many runs may be missed before a backup is stale.
	staleRuns = 3
)

var errSchedule = errors.New("the schedule can't be followed")

// BackupSchedule is when a policy's backups are due.
type BackupSchedule struct {
	interval time.Duration
	cron     cron.Schedule
	jitter   time.Duration
	zone     *time.Location
	text     string
	pause    func() time.Duration
}

// NewBackupSchedule reads a schedule; the error says what is wrong with it.
func NewBackupSchedule(s v1alpha1.BackupSchedule) (*BackupSchedule, error) {
	zone, err := time.LoadLocation(s.TimeZone)
	if err != nil || s.TimeZone == "Local" {
		return nil, fmt.Errorf("%w: there is no time zone %q: use UTC, or a name such as Europe/Berlin", errSchedule, s.TimeZone)
	}
	out := &BackupSchedule{zone: zone}
	if s.Cron == "" {
		out.interval, err = durationOr(s.Interval, defaultInterval)
		if err != nil || out.interval < time.Minute {
			return nil, fmt.Errorf("%w: the interval %q is not a duration of at least 1m", errSchedule, s.Interval)
		}
		out.text = "every " + shortDuration(out.interval)
		out.pause = func() time.Duration { return out.interval }
		return out, nil
	}
	if out.cron, err = cron.ParseStandard(s.Cron); err != nil {
		return nil, fmt.Errorf("%w: cron %q: %w: give minute, hour, day of the month, month, day of the week", errSchedule, s.Cron, err)
	}
	if _, constant := out.cron.(cron.ConstantDelaySchedule); constant {
		return nil, fmt.Errorf("%w: cron %q: use interval for that", errSchedule, s.Cron)
	}
	if inZone, ok := out.cron.(*cron.SpecSchedule); ok {
		inZone.Location = zone
	}
	if out.cron.Next(someDay).IsZero() {
		return nil, fmt.Errorf("%w: cron %q never comes", errSchedule, s.Cron)
	}
	if out.jitter, err = durationOr(s.Jitter, defaultJitter); err != nil {
		return nil, fmt.Errorf("%w: the jitter %q is no duration", errSchedule, s.Jitter)
	}
	out.text = s.Cron
	if zone != time.UTC {
		out.text += " " + zone.String()
	}
	out.pause = sync.OnceValue(func() time.Duration { return longestPause(out.cron) })
	return out, nil
}

// someDay is where the pauses of a cron schedule are looked at: any day would do.
var someDay = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// longestPause looks at more than a week, and at 40 runs.
func longestPause(s cron.Schedule) time.Duration {
	const week, runs = 9 * 24 * time.Hour, 40
	longest := time.Duration(0)
	at := s.Next(someDay)
	for n := 0; n < runs || at.Sub(someDay) < week; n++ {
		next := s.Next(at)
		if next.IsZero() {
			// It comes once in several years.
			return max(longest, 366*24*time.Hour)
		}
		longest = max(longest, next.Sub(at))
		at = next
	}
	return longest
}

// String is the schedule for tables.
func (s *BackupSchedule) String() string { return s.text }

// Zone in which days begin.
func (s *BackupSchedule) Zone() *time.Location { return s.zone }

// StaleAfter is the age above which a backup is stale by default.
func (s *BackupSchedule) StaleAfter() time.Duration { return staleRuns * s.pause() }

// part is the cluster's own part of a span of time, always the same.
func part(who string, of time.Duration) time.Duration {
	if of <= 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(who))                  // a hash never fails
	return time.Duration(h.Sum64() % uint64(of)) //nolint:gosec // less than of
}

// Next is when a cluster is due again whose last backup began at that time. Runs that
// were missed since make one together: it is a time in the past then.
func (s *BackupSchedule) Next(who string, last time.Time) time.Time {
	if s.cron != nil {
		offset := part(who, s.jitter)
		next := s.cron.Next(last.Add(-offset))
		if next.IsZero() {
			// It comes once in several years, and not in the next five.
			return last.AddDate(5, 0, 0)
		}
		return next.Add(offset)
	}
	// The moments are whole intervals since 1970 and the cluster's part of one. A backup
	// that was taken between two of them, by hand or late, stands for the nearest.
	phase := part(who, s.interval).Nanoseconds()
	step := s.interval.Nanoseconds()
	after := last.Add(s.interval/2).UnixNano() - phase
	n := after / step
	if after%step > 0 {
		n++
	}
	return time.Unix(0, n*step+phase).UTC()
}

func durationOr(text string, otherwise time.Duration) (time.Duration, error) {
	if text == "" {
		return otherwise, nil
	}
	return time.ParseDuration(text)
}

// shortDuration is a duration without zero parts: 1h rather than 1h0m0s.
func shortDuration(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if len(text) > len(zero) && text[len(text)-len(zero):] == zero {
			text = text[:len(text)-2]
		}
	}
	return text
}
