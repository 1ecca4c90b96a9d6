package inspect

import (
	"fmt"
	"time"
)

// Thresholds of history.
const (
	// keptRevisions: fewer are no burden, whether they are compacted or not.
	keptRevisions = 10_000
	// compactionAge: whoever compacts at all does so at least daily.
	compactionAge = 24 * time.Hour
)

// compaction: is old history ever given up? The oldest revision is found by reading,
// since etcd tells nobody; when it was last moved, only /metrics says.
func compaction(o *Observation) []Finding {
	for _, m := range o.answering() {
		if m.CompactRevision == nil {
			continue
		}
		st := m.Latest()
		kept := st.Revision - *m.CompactRevision
		if kept < keptRevisions {
			return nil
		}
		f := Finding{
			ID: "compaction", Severity: Warning, Subject: cluster,
			Evidence: []string{fmt.Sprintf("revision %d, and the oldest that can be read is %d: %d revisions are kept", st.Revision, max(*m.CompactRevision, 1), kept)},
			Why:      "Every change of a key is kept until it is compacted, so the database only grows, until its quota is full. etcd does not compact by itself unless it is told to.",
			Fix: "Start every member with --auto-compaction-mode=periodic --auto-compaction-retention=1h, or have an application do it (Kubernetes' API server does, every 5 minutes). " +
				"Compact once by hand now, and defragment afterwards.",
			Commands: []string{o.command(fmt.Sprintf("compact %d", st.Revision), m), o.command("defrag", m)},
		}
		switch last, known := lastCompaction(m, o.AskedAt); {
		case *m.CompactRevision == 0:
			f.Title = fmt.Sprintf("It was never compacted, and keeps %d revisions", kept)
		case known && last > compactionAge:
			f.Title = fmt.Sprintf("It was not compacted for %s, and keeps %d revisions", span(last), kept)
			f.Evidence = append(f.Evidence, fmt.Sprintf("%s: no compaction for at least %s (from its metrics)", m.Label(), span(last)))
		default:
			return nil
		}
		return []Finding{f}
	}
	return nil
}

// lastCompaction is for how long there was none, as far as its metrics go back.
func lastCompaction(m *Member, now time.Time) (time.Duration, bool) {
	switch {
	case m.Metrics == nil:
		return 0, false
	case !m.Metrics.CompactedAt.IsZero():
		return now.Sub(m.Metrics.CompactedAt), true
	case !m.Metrics.StartedAt.IsZero():
		return now.Sub(m.Metrics.StartedAt), true
	}
	return 0, false
}
