package cli

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/quorate/quorate/check"
	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/inspect"
)

var verdictColours = map[check.Verdict]string{check.Holds: green, check.Violated: red, check.Undecided: yellow}

// progressText is one line about a run under way.
func progressText(p check.Progress) string {
	text := fmt.Sprintf("%s: %s, %d operations", p.Phase, p.Elapsed.Round(time.Second), p.Operations)
	if p.PerSecond > 0 {
		text += fmt.Sprintf(", %.0f/s", p.PerSecond)
	}
	if p.Failed > 0 {
		text += fmt.Sprintf(", %d refused", p.Failed)
	}
	if p.Unknown > 0 {
		text += fmt.Sprintf(", %d without an answer", p.Unknown)
	}
	if p.Disturbance != "" {
		text += ", under way: " + p.Disturbance
	}
	return text
}

// printChecked writes a value as it was asked for.
func (e *env) printChecked(form string, v any, table func()) error {
	if form != outTable {
		return e.printValue(form, v)
	}
	table()
	return nil
}

// printCheckPlan says what would be done.
func (e *env) printCheckPlan(form string, p *check.Plan) error {
	return e.printChecked(form, p, func() {
		e.printf("%s\n", e.painted(bold, "nothing was done: this would be"))
		e.printCheckMembers(p.Members)
		e.reportLine("prefix", fmt.Sprintf("%s, empty at revision %d", p.Prefix, p.StartRevision))
		rate := "as fast as it goes"
		if p.Rate > 0 {
			rate = fmt.Sprintf("%.6g operations a second", p.Rate)
		}
		traffic := fmt.Sprintf("%d clients, %s, for %s", p.Clients, rate, seconds(p.Seconds))
		if n := cmp.Or(p.Operations, p.Limit); n > 0 {
			traffic += fmt.Sprintf(" or %d operations", n)
		}
		e.reportLine("load", fmt.Sprintf("%s, on %d keys with values of %d bytes, seed %d", traffic, p.Keys, p.ValueSize, p.Seed))
		if p.Memory > 0 {
			e.reportLine("memory", "about "+inspect.Size(p.Memory)+" at most")
		}
		e.reportLine("mix", p.Mix.String())
		if p.AllowCompact {
			e.reportLine("past", "the cluster is compacted now and then: everyone on it loses the past")
		}
		if len(p.Disturbances) > 0 {
			e.reportLine("harm", fmt.Sprintf("%s, in turn, with a rest of %s before each", strings.Join(p.Disturbances, ", "), seconds(p.EverySeconds)))
		}
		e.reportLine("hash", p.Hash)
		after := "all keys below the prefix are deleted"
		if p.Keep {
			after = "what was written is left there"
		}
		e.reportLine("after", after)
		e.reportLine("file", p.History)
		for _, n := range p.Notes {
			e.reportLine("note", n)
		}
	})
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Millisecond).String()
}

func (e *env) printCheckMembers(members []check.Member) {
	g := grid{header: []string{"member", "endpoint", "role", "version", "db size"}}
	for _, m := range members {
		role := "follower"
		switch {
		case m.Learner:
			role = "learner"
		case m.Leader:
			role = "leader"
		}
		g.add(m.Label(), m.Endpoint, role, m.Version, inspect.Size(m.DBSize))
	}
	_ = g.write(e.Out, 0) // As with printf: a reader that has gone away is no failure.
	e.printf("\n")
}

func (e *env) printVerdict(v check.Verdict, text string) {
	e.printf("%s: %s\n", e.painted(bold+verdictColours[v], string(v)), text)
}

// printResult writes the result of a run for people.
func (e *env) printResult(r *check.Result) {
	e.printVerdict(r.Verdict, r.Summary)
	e.printCheckMembers(r.Members)
	s := r.Stats
	e.reportLine("asked", fmt.Sprintf("%d answered, %d refused, %d without an answer, %.0f a second; the longest time without a write was %s",
		s.OK, s.Failed, s.Unknown, s.PerSecond, seconds(s.LongestWriteGapSeconds)))
	watched := fmt.Sprintf("%d watches saw %d events", s.Watches, s.WatchEvents)
	if s.TruthResumed > 0 {
		watched += "; the one that all is held against went on at another member " + times(s.TruthResumed)
	}
	e.reportLine("watch", watched)
	e.reportLine("hash", r.Hash)
	for i, d := range r.Disturbances {
		name := ""
		if i == 0 {
			name = "harm"
		}
		e.reportLine(name, strings.TrimSpace(fmt.Sprintf("%s %s", d.Kind, d.Target))+fmt.Sprintf(", from %s to %s", moment(d.From), moment(d.To)))
	}
	for _, n := range r.Notes {
		e.reportLine("note", n)
	}
	e.printReported(r.Report)
	if r.History != "" {
		e.reportLine("file", r.History+": judge it again with")
		e.printf("%s%s\n", strings.Repeat(" ", reportColumn+2), e.painted(cyan, e.called()+" check history "+quoted(r.History)))
	}
	e.printViolations(r.Report)
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// moment is a time of the history.
func moment(ns int64) string {
	return fmt.Sprintf("%.1f s", time.Duration(ns).Seconds())
}

// printJudgement writes what is said of a file for people.
func (e *env) printJudgement(j judgement) {
	text := "no promise was broken"
	if j.Verdict == check.Undecided {
		text = "the cluster took no write at the end; until then no promise was broken"
	}
	if n := broken(j.Report); n > 0 {
		text = plural(n, "promise was broken", "promises were broken")
	}
	e.printVerdict(j.Verdict, text)
	e.reportLine("file", j.File)
	about := "prefix " + j.Meta.Prefix
	if j.Meta.Name != "" {
		about = j.Meta.Name + ", " + about
	}
	e.reportLine("of", about+", begun "+j.Meta.StartedAt)
	if len(j.Meta.Members) > 0 {
		e.reportLine("on", strings.Join(j.Meta.Members, ", "))
	}
	e.printReported(j.Report)
	e.printViolations(j.Report)
}

// broken is how many promises were.
func broken(r *history.Report) int {
	n := 0
	for _, c := range r.Counts {
		n += c
	}
	return n
}

// printReported says what was judged, and what not.
func (e *env) printReported(r *history.Report) {
	s := r.Stats
	e.reportLine("judged", fmt.Sprintf("%d operations, %d changes at %d revisions, %d watches with %d events, %d hashes, in %s",
		s.Operations, s.Changes, s.Revisions, s.Watches, s.WatchEvents, s.Hashes, seconds(s.Seconds)))
	for _, text := range r.Skipped {
		e.reportLine("open", text)
	}
	for _, text := range r.Notes {
		e.reportLine("note", text)
	}
}

// printViolations writes each with its evidence and a picture.
func (e *env) printViolations(r *history.Report) {
	for i := range r.Violations {
		v := &r.Violations[i]
		e.printf("\n%s\n", e.painted(bold+red, "✗ "+string(v.Rule))+"  "+e.painted(bold, e.folded(v.Title, len(v.Rule)+4)))
		for i, line := range v.Evidence {
			name := ""
			if i == 0 {
				name = "seen"
			}
			e.reportLine(name, line)
		}
		e.reportLine("why", v.Meaning)
		e.printPicture(v)
	}
	described := map[history.Rule]int{}
	for i := range r.Violations {
		described[r.Violations[i].Rule]++
	}
	for _, rule := range history.Rules() {
		if more := r.Counts[rule] - described[rule]; more > 0 {
			e.printf("\n%s\n", e.painted(dim, fmt.Sprintf("%s of %s", plural(more, "more violation", "more violations"), rule)))
		}
	}
}
