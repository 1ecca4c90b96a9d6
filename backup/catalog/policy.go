package catalog

import (
	"fmt"
	"time"
)

// Policy says which points are wanted. It is applied to each lineage on its own. A point
// is kept if any rule keeps it; a policy without a rule keeps everything, leftovers too.
//
// The rules that count (KeepLast to Yearly) count as follows. Points are put into
// buckets: the hours, days and so on in which there are points, or, for KeepLast, a
// bucket each. A bucket gives its newest Proven point; if it has none, the newest that
// was not tried or whose proof can't be read. Buckets with Proven points are taken from
// the newest on until there are n of them. Buckets without one don't count towards n;
// of those that are met on the way the n newest are kept besides. So a month of proofs
// that did not happen pushes out no proven point, and where nothing is ever proven the
// rules hold for the unproven points. Points whose newest proof failed are in no bucket.
//
// Empty hours and days don't count: a cluster that was not backed up for a year still
// has its last seven days of backups under Daily 7.
type Policy struct {
	// KeepLast keeps the n newest points.
	KeepLast int
	// KeepWithin keeps every point that is at most so old, failed ones as well.
	KeepWithin time.Duration
	// Hourly to Yearly keep one point for each of the n newest buckets that have any.
	// Weeks begin on Monday.
	Hourly, Daily, Weekly, Monthly, Yearly int
	// Zone is where days begin, UTC if nil. An hour that a change of clocks repeats is
	// two hours.
	Zone *time.Location
	// AwaitProof keeps points so old that have no proof yet, so that none is deleted
	// while its proof waits for its turn. It is no rule: alone it deletes nothing.
	AwaitProof time.Duration
}

// Empty says whether the policy has no rule, and so keeps everything.
func (p Policy) Empty() bool {
	p.Zone, p.AwaitProof = nil, 0
	return p == Policy{}
}

// Validate wraps ErrPolicy if a number is negative.
func (p Policy) Validate() error {
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"last", int64(p.KeepLast)},
		{"within", int64(p.KeepWithin)},
		{"hourly", int64(p.Hourly)},
		{"daily", int64(p.Daily)},
		{"weekly", int64(p.Weekly)},
		{"monthly", int64(p.Monthly)},
		{"yearly", int64(p.Yearly)},
		{"wait for proof", int64(p.AwaitProof)},
	} {
		if f.value < 0 {
			return fmt.Errorf("%w: keep %s is negative; give 0 to go without it", ErrPolicy, f.name)
		}
	}
	return nil
}

// Situation is what Decide needs to know beside the policy and the points.
type Situation struct {
	// Now is compared with the times of points. It must not be zero.
	Now time.Time
	// Needed, if not nil, says whether something else depends on a point, such as a
	// journal that begins with it.
	Needed func(*Entry) bool
	// Locked, if not nil, says whether a point is locked or held, beyond what its
	// manifest says.
	Locked func(*Entry) bool
	// Busy, if not nil, says whether a point is known to be being written.
	Busy func(Ref) bool
}

// Rule is what keeps a point, or deletes it.
type Rule string

// The rules that keep.
const (
	KeepAll          Rule = "everything"        // the policy is empty
	KeepLast         Rule = "last"              // by number
	KeepWithin       Rule = "within"            // by age
	KeepHourly       Rule = "hourly"            //
	KeepDaily        Rule = "daily"             //
	KeepWeekly       Rule = "weekly"            //
	KeepMonthly      Rule = "monthly"           //
	KeepYearly       Rule = "yearly"            //
	KeepNewest       Rule = "newest"            // of its lineage
	KeepNewestProven Rule = "newest proven"     // of its lineage, or what comes nearest to it
	KeepAwaitsProof  Rule = "awaits proof"      //
	KeepFuture       Rule = "in the future"     // its time is later than now: a clock is wrong
	KeepLocked       Rule = "locked"            //
	KeepNeeded       Rule = "needed"            // something depends on it
	KeepUnknown      Rule = "can't be judged"   // not fetched, or newer than this Quorate
	KeepUnfinished   Rule = "may be in writing" // no manifest yet
	KeepLastData     Rule = "last data"         // without a manifest, but its lineage has nothing better
	KeepDamaged      Rule = "to be looked at"   // damaged, and a person may want to know why
)

// The rules that delete.
const (
	DropUnwanted Rule = "unwanted" // no rule keeps it
	DropLeftover Rule = "leftover" // without a manifest, and nobody writes it any more
	DropDamaged  Rule = "damaged"  // for long, and there is a newer proven point
)

// Reason is why a point is kept or deleted.
type Reason struct {
	Rule Rule
	// Text says more, with figures.
	Text string
}

// Decision is what becomes of a point.
type Decision struct {
	Entry Entry
	Keep  bool
	// Reasons are all that keep it, or the one for which it is deleted.
	Reasons []Reason
}
