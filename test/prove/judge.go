package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/test/load"
)

// The judges: pure functions that say what falls short, or nil.

// atMost judges a figure by its limit.
func atMost[T cmp.Ordered](what string, got, limit T) error {
	if got > limit {
		return fmt.Errorf("%s is %v, and at most %v is promised", what, got, limit)
	}
	return nil
}

// judgeLost: no acknowledged write may be lost.
func judgeLost(lost []load.Record) error {
	if len(lost) == 0 {
		return nil
	}
	first := lost[0]
	return fmt.Errorf("%d acknowledged writes are lost: the first is %s, acknowledged at %s with revision %d",
		len(lost), first.Key, first.Acked.Format(time.TimeOnly), first.Revision)
}

// judgeLoad: the load must have been what it was meant to be, or nothing was shown.
func judgeLoad(s load.Summary) error {
	const share = 0.95
	if s.Rate < share*loadRate {
		return fmt.Errorf("only %.0f writes a second were begun, and %d were meant", s.Rate, loadRate)
	}
	if s.Acked == 0 {
		return errors.New("no write was acknowledged at all")
	}
	return nil
}

// judgeLeft: nothing may be left.
func judgeLeft(left []proc) error {
	if len(left) == 0 {
		return nil
	}
	names := make([]string, 0, len(left))
	for _, p := range left {
		names = append(names, p.String())
	}
	return fmt.Errorf("%d processes are left: %s", len(left), strings.Join(names, ", "))
}

// samePids: no etcd but those named may be another process than before.
func samePids(before, after sight, but ...string) error {
	var errs []error
	for _, name := range names(before, after) {
		if b, a := before[name], after[name]; !slices.Contains(but, name) && (b.pid != a.pid || b.process != a.process || b.pid == 0) {
			errs = append(errs, fmt.Errorf("the etcd of %s was pid %d and is pid %d", name, b.pid, a.pid))
		}
	}
	return errors.Join(errs...)
}

// otherPids: every etcd must be another process than before.
func otherPids(before, after sight) error {
	var errs []error
	for _, name := range names(before, after) {
		if b, a := before[name], after[name]; b.pid == a.pid || a.pid == 0 {
			errs = append(errs, fmt.Errorf("the etcd of %s was pid %d and is pid %d: it was not restarted", name, b.pid, a.pid))
		}
	}
	return errors.Join(errs...)
}

// sameEtcd: what runs must be what ran, by version, digest, and the file itself.
func sameEtcd(before, after sight) error {
	var errs []error
	for _, name := range names(before, after) {
		b, a := before[name], after[name]
		for _, v := range [][3]string{
			{"version", b.version, a.version}, {"pinned digest", b.digest, a.digest}, {"executable", b.exe, a.exe}, {"member ID", b.memberID, a.memberID},
		} {
			if v[1] != v[2] || v[1] == "" {
				errs = append(errs, fmt.Errorf("the %s of %s was %q and is %q", v[0], name, v[1], v[2]))
			}
		}
		if a.exe != a.digest {
			errs = append(errs, fmt.Errorf("%s runs a file with digest %s, and its release has %s", name, a.exe, a.digest))
		}
	}
	return errors.Join(errs...)
}

func names(sights ...sight) []string {
	all := map[string]bool{}
	for _, s := range sights {
		for name := range s {
			all[name] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// sameFiles: every file that was there must be there, unchanged.
func sameFiles(before, after map[string]string) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(before)) {
		switch now, ok := after[name]; {
		case !ok:
			errs = append(errs, fmt.Errorf("%s is gone", name))
		case now != before[name]:
			errs = append(errs, fmt.Errorf("%s was changed", name))
		}
	}
	return errors.Join(errs...)
}

// contains: a text must hold all of these.
func contains(what, text string, wanted ...string) error {
	var errs []error
	for _, w := range wanted {
		if !strings.Contains(text, w) {
			errs = append(errs, fmt.Errorf("%s does not say %q: %s", what, w, tail(text, 600)))
		}
	}
	return errors.Join(errs...)
}
