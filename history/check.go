package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// Defaults of Options.
const (
	DefaultPerRule       = 5
	DefaultWindows       = 20000
	DefaultWindowSeconds = 10
)

// Options of a check; the zero value is fit for use.
type Options struct {
	// PerRule is how many violations of one rule are described; the others are
	// counted. DefaultPerRule if 0.
	PerRule int
	// NoExcerpts leaves the excerpts out, which take a while to make.
	NoExcerpts bool
	// Windows is how many windows porcupine looks at, evenly spread; DefaultWindows
	// if 0, none if negative.
	Windows int
	// WindowTime bounds all of porcupine's work; DefaultWindowSeconds if 0.
	WindowTime time.Duration
	Logger     *slog.Logger
}

// Report is the verdict on a history.
type Report struct {
	// OK: no promise was found broken. What could not be judged stands in Skipped.
	OK         bool        `json:"ok"`
	Violations []Violation `json:"violations,omitempty"`
	// Counts of all violations by rule, also of those that are not described.
	Counts map[Rule]int `json:"counts,omitempty"`
	Stats  Stats        `json:"stats"`
	// Skipped is what could not be judged, and why.
	Skipped []string `json:"skipped,omitempty"`
	// Notes are worth to know and break no promise.
	Notes []string `json:"notes,omitempty"`
}

// Stats are the sizes of what was checked.
type Stats struct {
	Operations int `json:"operations"`
	Unknown    int `json:"unknown"`
	Failed     int `json:"failed"`
	// Revisions of the prefix, and the changes in them.
	Revisions   int `json:"revisions"`
	Changes     int `json:"changes"`
	Reads       int `json:"reads"`
	Watches     int `json:"watches"`
	WatchEvents int `json:"watchEvents"`
	Hashes      int `json:"hashes"`
	// Windows that porcupine found linearizable, out of those it looked at.
	Windows        int     `json:"windows"`
	WindowsChecked int     `json:"windowsChecked"`
	Seconds        float64 `json:"seconds"`
}

// Violation is one promise that was broken.
type Violation struct {
	Rule  Rule   `json:"rule"`
	Title string `json:"title"`
	// Evidence are single facts: who said what, and when.
	Evidence []string `json:"evidence,omitempty"`
	// Operations are indexes into History.Operations, the one that lies first.
	Operations []int `json:"operations,omitempty"`
	// Watches are IDs of watches.
	Watches []int `json:"watches,omitempty"`
	// Revision it is about; 0 for none.
	Revision int64 `json:"revision,omitempty"`
	// Meaning says what it is worth, and where to look.
	Meaning string `json:"meaning"`
	// Excerpt is a small part of the history that breaks the same promise in the
	// same way; nil if there is none smaller. Marked and MarkedWatches are the
	// operations (indexes) and watches (IDs) of the violation in it.
	Excerpt       *History `json:"excerpt,omitempty"`
	Marked        []int    `json:"marked,omitempty"`
	MarkedWatches []int    `json:"markedWatches,omitempty"`
}

// ErrIncomplete marks a check that was ended before it was done.
var ErrIncomplete = errors.New("the check was not finished")

// Check says whether the history keeps what etcd promises. It reports no violation
// that is not one; what it can't judge stands in Skipped. The error is that of ctx.
func Check(ctx context.Context, h *History, o Options) (*Report, error) {
	began := time.Now()
	c := newChecker(ctx, h, o)
	if err := c.run(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	if !o.NoExcerpts {
		c.excerpts()
	}
	r := c.report
	slices.SortStableFunc(r.Violations, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(slices.Index(Rules(), a.Rule), slices.Index(Rules(), b.Rule)), cmp.Compare(a.Revision, b.Revision))
	})
	r.OK = len(r.Violations) == 0
	r.Stats.Seconds = time.Since(began).Seconds()
	return r, nil
}

// checker is one run of Check.
type checker struct {
	ctx    context.Context //nolint:containedctx // it lives as long as the call of Check
	h      *History
	o      Options
	report *Report
	titles map[string]bool // of all violations
	broken map[int64]bool  // revisions of all violations

	keys  []string
	keyID map[string]int32

	known      []int64 // by operation: the highest revision known to anyone before it was called
	writers    map[written][]int32
	byRevision map[int64][]int32 // operations acknowledged to have written at a revision
	applied    map[int32]int64   // revision at which an operation happened
	covered    spans             // revisions of which the truth watches tell everything
	seen       firstSeen
	changes    []change // sorted by revision and key
	changeAt   map[place]int32
	compacted  int64 // the highest revision that may have been compacted
	compactSet bool  // compacted is all there was
	leases     map[int64]*lease
	explains   map[int32]int64   // revision of a deletion that an unanswered call accounts for
	lapses     map[int64]bool    // revisions that may be the end of a lease
	deletesOf  map[int32][]int32 // unanswered calls that may delete one key
	leasesOf   map[int32][]int32 // those that may attach it to a lease
	deletes    []int32           // and those that may delete a range

	skippedReads, skippedDeletes int
	writtenAgain                 int // values that more than one call writes
	barePrev                     int // events that opened a watch without the previous value
}

func newChecker(ctx context.Context, h *History, o Options) *checker {
	o.PerRule = cmp.Or(o.PerRule, DefaultPerRule)
	o.Windows = cmp.Or(o.Windows, DefaultWindows)
	o.WindowTime = cmp.Or(o.WindowTime, DefaultWindowSeconds*time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &checker{ctx: ctx, h: h, o: o, report: &Report{Counts: map[Rule]int{}}, titles: map[string]bool{}, broken: map[int64]bool{}}
}

func (c *checker) run() error {
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"count", c.count},
		{"order of revisions", c.order},
		{"collect changes", c.collect},
		{"leases", c.readLeases},
		{"replay", c.replay},
		{"watches", c.checkWatches},
		{"lease times", c.checkLeases},
		{"hashes", c.checkHashes},
		{"windows", c.checkWindows},
	} {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		began := time.Now()
		step.do()
		c.o.Logger.DebugContext(c.ctx, "checked", slog.String("step", step.name), slog.Duration("took", time.Since(began)))
	}
	c.conclude()
	return c.ctx.Err()
}

// violate notes a broken promise.
func (c *checker) violate(v Violation) {
	key := string(v.Rule) + " " + v.Title
	if c.titles[key] {
		return
	}
	c.titles[key] = true
	if v.Revision > 0 {
		c.broken[v.Revision] = true
	}
	c.report.Counts[v.Rule]++
	if c.report.Counts[v.Rule] > c.o.PerRule {
		return
	}
	v.Meaning = v.Rule.Meaning()
	c.report.Violations = append(c.report.Violations, v)
}

func (c *checker) skip(format string, args ...any) {
	c.report.Skipped = append(c.report.Skipped, fmt.Sprintf(format, args...))
}

func (c *checker) note(format string, args ...any) {
	c.report.Notes = append(c.report.Notes, fmt.Sprintf(format, args...))
}

func (c *checker) count() {
	s := &c.report.Stats
	s.Operations, s.Watches, s.Hashes = len(c.h.Operations), len(c.h.Watches), len(c.h.Hashes)
	for i := range c.h.Operations {
		switch c.h.Operations[i].Outcome {
		case Unknown:
			s.Unknown++
		case Failed:
			s.Failed++
		case OK:
		}
	}
	for i := range c.h.Watches {
		for j := range c.h.Watches[i].Responses {
			s.WatchEvents += len(c.h.Watches[i].Responses[j].Events)
		}
	}
}

// conclude says what was left out.
func (c *checker) conclude() {
	if len(c.h.Operations) == 0 {
		c.skip("there are no operations: nothing that a client asked was judged")
	}
	if c.h.Torn != "" {
		c.skip("%s; what was under way then is in no record, so writes that nobody asked for are not judged", c.h.Torn)
	}
	if len(c.covered) == 0 && len(c.changes) > 0 {
		c.skip("there is no truth watch: changes that nobody saw are judged by what acknowledged writes and reads say alone")
	} else if last := c.lastChange(); last > c.covered.end() {
		c.skip("the truth watches end at revision %d and the history at %d: between them only what acknowledged writes and reads say is judged", c.covered.end(), last)
	}
	if c.skippedReads > 0 {
		c.skip("%d reads differ from what is known, where a change may have been made that no truth watch told", c.skippedReads)
	}
	if c.writtenAgain > 0 {
		c.note("more than one call writes the same value to the same key, %d times: whose a change is can't be told for sure then, and who records should write each value once", c.writtenAgain)
	}
	if c.barePrev > 0 {
		c.note("events that opened a watch came without the previous values that were asked for, %d in all: etcd (3.7.3 and before) begins a watch before it notes that they are wanted, so what happens in between comes without them", c.barePrev)
	}
	if c.skippedDeletes > 0 {
		c.skip("%d events miss the previous value, which may have been compacted", c.skippedDeletes)
	}
}

func (c *checker) lastChange() int64 {
	if len(c.changes) == 0 {
		return 0
	}
	return c.changes[len(c.changes)-1].rev
}

// checkHashes: equal revisions have equal hashes.
func (c *checker) checkHashes() {
	type at struct{ rev, compact int64 }
	first := map[at]int{}
	compared := map[string]bool{} // by member
	for i, h := range c.h.Hashes {
		key := at{h.Revision, h.CompactRevision}
		j, ok := first[key]
		if !ok {
			first[key] = i
			continue
		}
		other := c.h.Hashes[j]
		if other.Member != h.Member {
			compared[other.Member], compared[h.Member] = true, true
		}
		if other.Hash != h.Hash {
			c.violate(Violation{
				Rule: HashDiffers, Revision: h.Revision,
				Title: fmt.Sprintf("members %s and %s have different data at revision %d", other.Member, h.Member, h.Revision),
				Evidence: []string{
					fmt.Sprintf("%s: hash %08x at revision %d, compacted at %d", other.Member, other.Hash, other.Revision, other.CompactRevision),
					fmt.Sprintf("%s: hash %08x at revision %d, compacted at %d", h.Member, h.Hash, h.Revision, h.CompactRevision),
				},
			})
		}
	}
	c.uncompared(compared)
}

// uncompared says whose hash was held against no other's.
func (c *checker) uncompared(compared map[string]bool) {
	of := map[string]bool{}
	for _, h := range c.h.Hashes {
		of[h.Member] = true
	}
	switch members := len(c.h.Meta.Members); {
	case len(of) == 0 && members > 1 && len(c.h.Operations) > 0:
		c.note("there are no hashes: whether the members hold the same data was judged by what they answered alone")
	case len(of) < members:
		c.note("there are hashes of %d of %d members", len(of), members)
	}
	for _, h := range c.h.Hashes {
		if len(of) > 1 && !compared[h.Member] {
			compared[h.Member] = true // once is enough
			c.note("the hash of %s at revision %d, compacted at %d, was compared with none: no other member's is of the same revisions", h.Member, h.Revision, h.CompactRevision)
		}
	}
}
