package inspect

import (
	"fmt"
	"math"
)

// clockOff is what a clock may be off for sure before it is told.
const clockOff = 1.0

// clocks: do the members' hosts and this machine agree on the time? It is taken
// from the Date of HTTP answers, which has whole seconds: the margin says so.
func clocks(o *Observation) []Finding {
	var found []Finding
	asked, off := 0, 0
	for _, m := range o.of() {
		if m.Clock == nil {
			continue
		}
		asked++
		if math.Abs(m.Clock.OffsetSeconds)-m.Clock.MarginSeconds <= clockOff {
			continue
		}
		off++
		direction := "ahead of"
		if m.Clock.OffsetSeconds < 0 {
			direction = "behind"
		}
		found = append(found, Finding{
			ID: "clock", Severity: Warning, Subject: m.Label(),
			Title:    fmt.Sprintf("The clock of %s is %.1f s %s this machine's", m.Label(), math.Abs(m.Clock.OffsetSeconds), direction),
			Evidence: []string{fmt.Sprintf("offset %+.1f s, give or take %.1f s, from the Date of its HTTP answers", m.Clock.OffsetSeconds, m.Clock.MarginSeconds)},
			Why:      "Raft does not need clocks, but certificates, tokens, leases' deadlines after a change of the leader, and everyone who reads logs do.",
			Fix:      "Turn on time synchronisation on both hosts.",
			Commands: []string{"timedatectl status   # on its host, and here", "chronyc tracking   # where chrony runs"},
		})
	}
	if off > 1 && off == asked {
		for i := range found {
			found[i].Evidence = append(found[i].Evidence, "all members are off, so it may be this machine's clock that is wrong")
		}
	}
	return found
}
