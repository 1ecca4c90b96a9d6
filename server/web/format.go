package web

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
)

// bytesText writes a size for people: three digits and a unit of 1024.
func bytesText(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	f, unit := float64(n)/1024, 0
	for f >= 1023.95 && unit < len(units)-1 {
		f, unit = f/1024, unit+1
	}
	digits := 1
	if f >= 100 || f == math.Trunc(f) {
		digits = 0
	}
	return strconv.FormatFloat(f, 'f', digits, 64) + " " + units[unit]
}

// numberText sets thousands apart with a thin space, which every language reads.
func numberText(n any) string {
	text := fmt.Sprint(n)
	sign := ""
	if strings.HasPrefix(text, "-") {
		sign, text = "-", text[1:]
	}
	if len(text) <= 4 {
		return sign + text
	}
	var b strings.Builder
	for i, digit := range text {
		if i > 0 && (len(text)-i)%3 == 0 {
			b.WriteRune('\u202f')
		}
		b.WriteRune(digit)
	}
	return sign + b.String()
}

// millisText writes a duration given in milliseconds.
func millisText(ms float64) string {
	switch {
	case ms >= 10_000:
		return strconv.FormatFloat(ms/1000, 'f', 1, 64) + " s"
	case ms >= 100:
		return strconv.FormatFloat(ms, 'f', 0, 64) + " ms"
	}
	return strconv.FormatFloat(ms, 'f', 1, 64) + " ms"
}

// timeOf reads the kinds of time that objects and events carry.
func timeOf(at any) time.Time {
	switch t := at.(type) {
	case time.Time:
		return t
	case v1alpha1.Time:
		return t.Time
	case *v1alpha1.Time:
		if t != nil {
			return t.Time
		}
	case v1alpha1.MicroTime:
		return t.Time
	case *v1alpha1.MicroTime:
		if t != nil {
			return t.Time
		}
	}
	return time.Time{}
}

// age says how long ago something was, in its largest unit.
func (c catalog) age(at any, now time.Time) string {
	t := timeOf(at)
	if t.IsZero() {
		return c.word("age", "never")
	}
	return c.span(now.Sub(t))
}

// phrase is the age within words of its own: how long ago, or for how long.
func (c catalog) phrase(key string, at any, now time.Time) (string, error) {
	age := c.age(at, now)
	if timeOf(at).IsZero() {
		return age, nil
	}
	return c.text(key, age)
}

// until says in how long something will be, and when.
func (c catalog) until(at any, now time.Time) (string, error) {
	t := timeOf(at)
	return c.text("age.until", c.span(t.Sub(now)), t.UTC().Format("2006-01-02 15:04"))
}

// span writes a length of time in its largest unit.
func (c catalog) span(d time.Duration) string {
	d = max(d, 0)
	value, unit := int(d/time.Second), "s"
	switch {
	case d >= 48*time.Hour:
		value, unit = int(d/(24*time.Hour)), "d"
	case d >= 2*time.Hour:
		value, unit = int(d/time.Hour), "h"
	case d >= 2*time.Minute:
		value, unit = int(d/time.Minute), "min"
	}
	text, err := c.text("age."+unit, value)
	if err != nil {
		return d.String()
	}
	return text
}

// stampText is the exact time, for titles and machines.
func stampText(at any) string {
	t := timeOf(at)
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// clockText is the time of day, with the day unless it is today's. All times that
// the console writes are UTC, as in logs and on the command line, so that what is
// on one page can be compared with another and with what somebody else sees.
func clockText(at any, now time.Time) string {
	t := timeOf(at).UTC()
	now = now.UTC()
	switch {
	case t.IsZero():
		return ""
	case t.Year() != now.Year():
		return t.Format("2006-01-02 15:04:05")
	case t.YearDay() != now.YearDay():
		return t.Format("01-02 15:04:05")
	}
	return t.Format(time.TimeOnly)
}

// signals are the names that people know of what the kernel's words stand for.
var signals = map[string]string{
	"killed": "SIGKILL", "terminated": "SIGTERM", "interrupt": "SIGINT", "quit": "SIGQUIT", "aborted": "SIGABRT", "hangup": "SIGHUP",
	"segmentation fault": "SIGSEGV", "bus error": "SIGBUS", "illegal instruction": "SIGILL", "floating point exception": "SIGFPE",
}

// signalText names a signal the same in every language.
func signalText(text string) string {
	if name, ok := signals[text]; ok {
		return name
	}
	return text
}

// shortText cuts a long text, such as a digest, in its middle.
func shortText(text string, most int) string {
	runes := []rune(text)
	if len(runes) <= most || most < 5 {
		return text
	}
	head := (most - 1) * 2 / 3
	return string(runes[:head]) + "…" + string(runes[len(runes)-(most-1-head):])
}

// share is a part of a whole in percent with one decimal, for the width of a bar.
func share(part, whole int64) string {
	if whole <= 0 || part <= 0 {
		return "0"
	}
	return strconv.FormatFloat(min(100, 100*float64(part)/float64(whole)), 'f', 1, 64)
}
