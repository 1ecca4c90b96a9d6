package bucket

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// What can be wrong with a store. Every *Error is one of them, unless its ctx ended or
// its body could not be read.
var (
	// ErrNotFound: there is no object of this name.
	ErrNotFound = errors.New("not found")
	// ErrNoBucket: the store answers, but has no such bucket, container or directory.
	ErrNoBucket = errors.New("no such bucket")
	// ErrDenied: the credentials are missing, wrong, or not allowed to do this.
	ErrDenied = errors.New("denied")
	// ErrLocked: an object lock keeps the object; Error.Until says how long.
	ErrLocked = errors.New("locked")
	// ErrNoSpace: the store is full, or a quota is.
	ErrNoSpace = errors.New("no space left")
	// ErrUnavailable: the store could not be reached or did not do it, however often it
	// was asked; Error.Attempts says how often.
	ErrUnavailable = errors.New("unavailable")
	// ErrClockSkew: the clocks differ too much for a signature to count; Error.Skew says
	// by how much.
	ErrClockSkew = errors.New("clocks differ")
	// ErrCorrupt: the bytes are not those that were stored.
	ErrCorrupt = errors.New("corrupt")
	// ErrRefused: the store takes the request for a wrong one; to repeat it does not help.
	ErrRefused = errors.New("refused")

	// errName is part of ErrRefused, from this side of the wire.
	errName = errors.New("the name can't be used")
)

// Error says what failed, where, why, and what to do next.
type Error struct {
	// Op is put, get, stat, list, delete, abort-stale or open.
	Op string
	// Store is the bucket's URL, without credentials.
	Store string
	// Object is the name; empty when the whole bucket is meant.
	Object string
	// Kind is one of the sentinels; nil if ctx ended or the body could not be read.
	Kind error
	// Cause is what the store or the system said. Secrets are struck out of it.
	Cause error
	// Hint is the next step, or empty.
	Hint string
	// Attempts are how often it was tried, and Elapsed how long that took.
	Attempts int
	Elapsed  time.Duration
	// Until is when a lock ends, for ErrLocked; zero if that is unknown or never.
	Until time.Time
	// Skew is how much this machine's clock is ahead of the store's, negative if it is
	// behind; for ErrClockSkew.
	Skew time.Duration
}

// Error is one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Object != "" {
		b.WriteString(" " + e.Object)
	}
	b.WriteString(" in " + e.Store + ": ")
	if e.Kind != nil {
		b.WriteString(e.Kind.Error())
		switch {
		case errors.Is(e.Kind, ErrLocked) && !e.Until.IsZero():
			b.WriteString(" until " + e.Until.UTC().Format(time.RFC3339))
		case errors.Is(e.Kind, ErrClockSkew) && e.Skew >= 0:
			fmt.Fprintf(&b, ", this machine's is %s ahead", e.Skew.Round(time.Second))
		case errors.Is(e.Kind, ErrClockSkew):
			fmt.Fprintf(&b, ", this machine's is %s behind", (-e.Skew).Round(time.Second))
		}
		if e.Attempts > 1 {
			fmt.Fprintf(&b, " after %d attempts in %s", e.Attempts, e.Elapsed.Round(100*time.Millisecond))
		}
		if e.Cause != nil {
			b.WriteString(": ")
		}
	}
	if e.Cause != nil {
		b.WriteString(oneLine(e.Cause.Error()))
	}
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// oneLine makes a sentence of what libraries print as a page with rules.
func oneLine(text string) string {
	words := slices.DeleteFunc(strings.Fields(text), func(word string) bool { return strings.Trim(word, "-") == "" })
	return strings.TrimRight(strings.Join(words, " "), ".")
}

// Unwrap gives the sentinel and the cause.
func (e *Error) Unwrap() []error {
	var errs []error
	for _, err := range []error{e.Kind, e.Cause} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// verdict is what an error of a store means.
type verdict struct {
	kind      error
	transient bool
	hint      string
	until     time.Time
	skew      time.Duration
}

// bodyError marks that what was to be stored could not be read: the store is not to blame,
// and to repeat it is of no use.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return "read what is to be stored: " + e.err.Error() }
func (e *bodyError) Unwrap() error { return e.err }

// judged is an error whose meaning is known where it arises.
type judged struct {
	error
	verdict verdict
}

func (e *judged) Unwrap() error { return e.error }

// corrupt is an error of kind ErrCorrupt.
func corrupt(format string, args ...any) error {
	return &judged{fmt.Errorf(format, args...), verdict{kind: ErrCorrupt}}
}

// refused is an error of kind ErrRefused.
func refused(format string, args ...any) error {
	return &judged{fmt.Errorf(format, args...), verdict{kind: ErrRefused}}
}
