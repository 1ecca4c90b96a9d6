package catalog

import (
	"fmt"
	"slices"
	"time"
)

const (
	// LeftoverAge is how long ago the last change of a point without a manifest must
	// be until it is a leftover. An upload of one object may take hours; that a writer
	// needs a day between its data and its manifest is not expected.
	LeftoverAge = 24 * time.Hour
	// DamagedAge is how long a damaged point is left for a person to look at.
	DamagedAge = 30 * 24 * time.Hour
)

// Decide says for each entry whether it is kept, in the order of Ref.Compare. It is a
// pure function, and the order of entries doesn't matter. They must be all entries of
// their lineages in one store. It wraps ErrPolicy for a policy that is not valid, a
// Situation without Now, and entries that are given twice.
//
// Whatever the policy, these are kept: of each lineage the newest Complete point and
// the newest Proven one (if there is none, the newest that was proven once, or whose
// proof is damaged); what is locked, needed, dated in the future or can't be judged. A
// point without manifest is deleted when it and its time are older than LeftoverAge;
// a damaged one when it is older than DamagedAge, there is a newer Proven point and
// KeepWithin doesn't keep it.
func (p Policy) Decide(entries []Entry, s Situation) ([]Decision, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if s.Now.IsZero() {
		return nil, fmt.Errorf("%w: the present time is not given", ErrPolicy)
	}
	decisions := make([]Decision, len(entries))
	for i, e := range entries {
		decisions[i].Entry = e
	}
	slices.SortFunc(decisions, func(a, b Decision) int { return a.Entry.Ref.Compare(b.Entry.Ref) })
	from := 0
	for i := range decisions {
		ref := decisions[i].Entry.Ref
		if i+1 < len(decisions) {
			next := decisions[i+1].Entry.Ref
			if next.Compare(ref) == 0 {
				return nil, fmt.Errorf("%w: %s is there twice; apply it to one store at a time", ErrPolicy, ref)
			}
			if next.Lineage == ref.Lineage {
				continue
			}
		}
		decideLineage(p, s, decisions[from:i+1])
		from = i + 1
	}
	return decisions, nil
}

// lineage is what decides about the points of one lineage, oldest first.
type lineage struct {
	policy Policy
	s      Situation
	points []Decision
	// complete are indexes of the points that the rules look at, newest first.
	complete []int
	proven   int // the newest Proven point, -1 if there is none
}

func decideLineage(p Policy, s Situation, points []Decision) {
	l := lineage{policy: p, s: s, points: points, proven: -1}
	for i := range slices.Backward(points) {
		e := &points[i].Entry
		// What is dated in the future is kept, but takes nobody's place: it would be
		// the newest of every bucket until then.
		if e.State == Complete && !e.Ref.Time.After(s.Now) {
			l.complete = append(l.complete, i)
			if l.proven < 0 && e.Verdict() == Proven {
				l.proven = i
			}
		}
	}
	if p.Empty() {
		for i := range points {
			l.keep(i, KeepAll, "the policy has no rule, so nothing is deleted")
		}
	}
	l.guard()
	l.rules()
	for i := range points {
		l.special(i)
	}
	for i := range points {
		d := &points[i]
		d.Keep = len(d.Reasons) > 0
		if !d.Keep {
			d.Reasons = []Reason{l.drop(&d.Entry)}
		}
	}
}

func (l *lineage) keep(i int, rule Rule, text string) {
	l.points[i].Reasons = append(l.points[i].Reasons, Reason{Rule: rule, Text: text})
}

// guard keeps what no policy may give up.
func (l *lineage) guard() {
	if len(l.complete) == 0 {
		return
	}
	l.keep(l.complete[0], KeepNewest, "the newest of its lineage")
	best := l.complete[0]
	for _, i := range l.complete {
		if l.points[i].Entry.stronger(&l.points[best].Entry) {
			best = i
		}
	}
	switch l.points[best].Entry.rank() {
	case rankProven:
		l.keep(best, KeepNewestProven, "the newest proven of its lineage")
	case rankOnce:
		l.keep(best, KeepNewestProven, "no point of its lineage is proven now, and this is the newest that once was")
	case rankUnclear:
		l.keep(best, KeepNewestProven, "no point of its lineage is known to be proven, and this is the newest that may be")
	}
}

// rules applies the policy to complete points.
func (l *lineage) rules() {
	p := l.policy
	for _, i := range l.complete {
		e := &l.points[i].Entry
		age := l.s.Now.Sub(e.Ref.Time)
		if p.KeepWithin > 0 && age <= p.KeepWithin {
			l.keep(i, KeepWithin, fmt.Sprintf("%s old, at most %s", round(age), p.KeepWithin))
		}
		if p.AwaitProof > 0 && age <= p.AwaitProof && e.Verdict() == Unproven {
			l.keep(i, KeepAwaitsProof, fmt.Sprintf("no proof yet, and %s of %s to wait are over", round(age), p.AwaitProof))
		}
	}
	zone := p.Zone
	if zone == nil {
		zone = time.UTC
	}
	// A number of its own for each point, the newest having the highest.
	l.count(KeepLast, p.KeepLast, func(i int, _ time.Time) int64 { return int64(i) })
	for _, c := range []struct {
		rule Rule
		n    int
		of   func(time.Time) int64
	}{
		{KeepHourly, p.Hourly, hour},
		{KeepDaily, p.Daily, day},
		{KeepWeekly, p.Weekly, week},
		{KeepMonthly, p.Monthly, month},
		{KeepYearly, p.Yearly, year},
	} {
		l.count(c.rule, c.n, func(_ int, at time.Time) int64 { return c.of(at.In(zone)) })
	}
}

// count applies a rule that keeps n buckets. Bucket numbers grow with time.
func (l *lineage) count(rule Rule, n int, bucketOf func(i int, at time.Time) int64) {
	if n == 0 {
		return
	}
	kept := map[int64]int{}
	for _, i := range l.complete {
		e := &l.points[i].Entry
		verdict := e.Verdict()
		if verdict == Failed {
			continue
		}
		bucket := bucketOf(i, e.Ref.Time)
		// Newest first: the first of a bucket stays, unless a proven one follows.
		if has, ok := kept[bucket]; !ok || verdict == Proven && l.points[has].Entry.Verdict() != Proven {
			kept[bucket] = i
		}
	}
	buckets := make([]int64, 0, len(kept))
	for b := range kept {
		buckets = append(buckets, b)
	}
	slices.Sort(buckets)
	proven, unproven := 0, 0
	for _, b := range slices.Backward(buckets) {
		i := kept[b]
		if l.points[i].Entry.Verdict() == Proven {
			proven++
			l.keep(i, rule, fmt.Sprintf("proven, %d of %d", proven, n))
		} else if unproven < n {
			unproven++
			l.keep(i, rule, fmt.Sprintf("not proven, %d of at most %d beside proven ones", unproven, n))
		}
		if proven == n {
			return
		}
	}
}

// special keeps points for what they are, whatever the policy.
func (l *lineage) special(i int) {
	e := &l.points[i].Entry
	now := l.s.Now
	if err := e.undecidable(); err != nil {
		l.keep(i, KeepUnknown, err.Error())
	}
	if e.Ref.Time.After(now) {
		l.keep(i, KeepFuture, fmt.Sprintf("dated %s ahead: a clock is wrong", round(e.Ref.Time.Sub(now))))
	}
	if e.Point != nil && e.Point.LockedUntil != nil && e.Point.LockedUntil.After(now) {
		l.keep(i, KeepLocked, "locked until "+e.Point.LockedUntil.UTC().Format(time.RFC3339))
	} else if l.s.Locked != nil && l.s.Locked(e) {
		l.keep(i, KeepLocked, "locked or held")
	}
	if l.s.Needed != nil && l.s.Needed(e) {
		l.keep(i, KeepNeeded, "something depends on it")
	}
	age := now.Sub(e.Ref.Time)
	switch {
	case e.State == Partial:
		l.partial(i, min(age, now.Sub(e.Modified)))
	case e.State != Damaged:
	case l.policy.KeepWithin > 0 && age <= l.policy.KeepWithin:
		l.keep(i, KeepWithin, fmt.Sprintf("%s old, at most %s", round(age), l.policy.KeepWithin))
	case age <= DamagedAge || now.Sub(e.Modified) <= DamagedAge:
		l.keep(i, KeepDamaged, fmt.Sprintf("left for a person to look at until it is %s old", DamagedAge))
	case l.proven < i:
		l.keep(i, KeepDamaged, "left for a person to look at, since no newer point is proven")
	}
}

// partial keeps a point without manifest. Its age is since the later of its time and
// its last change.
func (l *lineage) partial(i int, age time.Duration) {
	e := &l.points[i].Entry
	switch {
	case l.s.Busy != nil && l.s.Busy(e.Ref):
		l.keep(i, KeepUnfinished, "being written")
	case age <= LeftoverAge:
		l.keep(i, KeepUnfinished, fmt.Sprintf("no manifest, and the last change was %s ago", round(age)))
	case len(l.complete) == 0 && len(e.Proofs) > 0 && e.hasData():
		// With a proof it was a point once. If somebody deleted the manifests, this is
		// all there is.
		l.keep(i, KeepLastData, "no manifest, but data and a proof, and its lineage has no complete point")
	}
}

// drop says why nothing keeps an entry.
func (l *lineage) drop(e *Entry) Reason {
	age := round(l.s.Now.Sub(e.Ref.Time))
	if e.State == Partial {
		return Reason{DropLeftover, fmt.Sprintf("no manifest, and the last change was %s ago", round(l.s.Now.Sub(e.Modified)))}
	}
	if e.State == Damaged {
		return Reason{DropDamaged, fmt.Sprintf("%s old, and a newer point is proven: %v", age, e.Err)}
	}
	return Reason{DropUnwanted, fmt.Sprintf("%s old, %s, and no rule keeps it", age, e.Verdict())}
}

func round(d time.Duration) time.Duration { return d.Round(time.Second) }

// The numbers of buckets, of times in their zone. They grow with time.

// hour is when the hour began, and not its number: a change of clocks repeats numbers.
func hour(t time.Time) int64 {
	return t.Unix() - int64(t.Minute())*60 - int64(t.Second())
}

// day is the days since 1970 on the zone's calendar.
func day(t time.Time) int64 {
	y, m, d := t.Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() / 86400
}

// week is the day of the week's Monday.
func week(t time.Time) int64 {
	return day(t) - int64(t.Weekday()+6)%7
}

func month(t time.Time) int64 { return int64(t.Year())*12 + int64(t.Month()) }

func year(t time.Time) int64 { return int64(t.Year()) }
