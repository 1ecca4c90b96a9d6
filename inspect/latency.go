package inspect

import "fmt"

// Thresholds of latency, in milliseconds. A linearizable read takes a round trip to
// the leader and one from it to a quorum.
const (
	medianSlow = 100
	medianBad  = 1000
	worstSlow  = 500
	// fewReads say nothing about a median, unless they are few since each was slow.
	fewReads = 5
)

// latency: how long do small reads take?
func latency(o *Observation) []Finding {
	var found []Finding
	for _, m := range o.answering() {
		l := m.Linearizable
		kind := "linearizable"
		if !l.tells() {
			l, kind = m.Serializable, "serializable"
		}
		if !l.tells() {
			continue
		}
		f := Finding{
			ID: "slow-reads", Severity: Warning, Subject: m.Label(),
			Why: "A read that waits is a write that waits longer. It comes from the network to the leader, an overloaded member, or a slow disk.",
			Fix: "Compare the members: if serializable reads are fast and linearizable ones are slow, look at the network between the members; if both are slow, at the member itself or the way to it.",
		}
		switch {
		case l.MedianMilliseconds > medianSlow:
			f.Title = fmt.Sprintf("%s answers slowly: half of the %s reads take more than %.0f ms", m.Label(), kind, l.MedianMilliseconds)
			if l.MedianMilliseconds > medianBad {
				f.Severity = Critical
			}
		case l.WorstMilliseconds > worstSlow:
			f.Severity = Info
			f.Title = fmt.Sprintf("%s took %.0f ms for one of the reads", m.Label(), l.WorstMilliseconds)
		default:
			continue
		}
		f.Evidence = append(latencyEvidence(m), fmt.Sprintf("connecting took %.1f ms", m.Reach.ConnectMilliseconds),
			fmt.Sprintf("told from a median of %d ms or a worst of %d ms on", medianSlow, worstSlow))
		f.Commands = []string{o.command("check perf --load=s", m) + "   # writes for a minute: not on a busy cluster"}
		found = append(found, f)
	}
	return found
}

// tells says that there is something to judge by: enough reads, or fewer that took
// most of the time there was.
func (l *Latency) tells() bool {
	return l != nil && (l.Reads >= fewReads || float64(l.Reads)*l.MedianMilliseconds > worstSlow)
}

func latencyEvidence(m *Member) []string {
	var list []string
	for _, l := range []struct {
		kind string
		*Latency
	}{{"linearizable", m.Linearizable}, {"serializable", m.Serializable}} {
		if l.Latency != nil && l.Reads > 0 {
			list = append(list, fmt.Sprintf("%d %s reads: median %.1f ms, worst %.1f ms", l.Reads, l.kind, l.MedianMilliseconds, l.WorstMilliseconds))
		}
	}
	return list
}
