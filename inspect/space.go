package inspect

import (
	"fmt"
	"slices"
	"time"
)

// Thresholds of space.
const (
	quotaWarning  = 0.80
	quotaCritical = 0.95
	// defaultQuota is etcd's own.
	defaultQuota = 2 << 30
	// fragmentsWaste: less is not worth the pause of a defragmentation.
	fragmentsWaste = 64 << 20
	fragmentsShare = 0.5
	// Growth is told only when it is more than a few requests, lasts long enough to
	// be seen, and would fill the quota soon.
	growthLeast   = 256 << 10
	growthSeconds = 1.5
	growthHorizon = 24 * time.Hour
	// sizesApart: less is the ordinary difference of free pages.
	sizesApart = 64 << 20
	sizesRatio = 2
)

// quota of a member, and where it is known from; empty for an assumption.
func (m *Member) quota() (bytes int64, from string) {
	if m.Answers() && m.Latest().DBQuota > 0 {
		return m.Latest().DBQuota, "from its status"
	}
	if m.Metrics != nil && m.Metrics.QuotaBytes > 0 {
		return m.Metrics.QuotaBytes, "from its metrics"
	}
	return defaultQuota, ""
}

func (*Observation) quotaOf(m *Member) string {
	bytes, from := m.quota()
	if from == "" {
		return Size(bytes) + " (assumed: it is etcd's default, and this member does not tell)"
	}
	return Size(bytes) + " (" + from + ")"
}

// space: how full is the quota?
func space(o *Observation) []Finding {
	var found []Finding
	for _, m := range o.answering() {
		st := m.Latest()
		if slices.ContainsFunc(st.Alarms, func(a Alarm) bool { return a.Type == "NOSPACE" && a.Member == m.ID }) {
			continue // The alarm says more.
		}
		quota, _ := m.quota()
		used := float64(st.DBSize) / float64(quota)
		if used < quotaWarning {
			continue
		}
		severity := Warning
		if used >= quotaCritical {
			severity = Critical
		}
		f := Finding{
			ID: "quota", Severity: severity, Subject: m.Label(), degrades: severity == Critical,
			Title: fmt.Sprintf("%s: %.0f %% of the quota are used", m.Label(), used*100),
			Evidence: []string{
				fmt.Sprintf("database %s, of which %s are in use; quota %s", Size(st.DBSize), Size(st.DBSizeInUse), o.quotaOf(m)),
			},
			Why: "At 100 % the first member raises the alarm NOSPACE, and the whole cluster refuses writes.",
			Fix: "Compact old history and defragment, one member at a time. If most of it is in use, raise --quota-backend-bytes on every member (8 GiB is what etcd suggests at most), or delete keys.",
		}
		f.Commands = append(f.Commands, o.command(fmt.Sprintf("compact %d", st.Revision), m), o.command("defrag", m))
		found = append(found, f)
	}
	return found
}

// forecast: when would the quota be full if it went on like this? The sample is
// short, so only growth that is fast is told, and over how long it was measured.
func forecast(o *Observation) []Finding {
	var worst *Finding
	soonest := growthHorizon
	for _, m := range o.answering() {
		if m.Later == nil {
			continue
		}
		seconds := m.Later.At.Sub(m.Status.At).Seconds()
		grown := m.Later.DBSizeInUse - m.Status.DBSizeInUse
		if seconds < growthSeconds || grown < growthLeast {
			continue
		}
		quota, _ := m.quota()
		rate := float64(grown) / seconds
		left := time.Duration(max(float64(quota-m.Later.DBSizeInUse)/rate, 0) * float64(time.Second))
		if left >= soonest {
			continue
		}
		soonest = left
		worst = &Finding{
			ID: "quota-forecast", Severity: Warning, Subject: m.Label(),
			Title: fmt.Sprintf("At this rate the quota of %s is full in %s", m.Label(), span(left)),
			Evidence: []string{
				fmt.Sprintf("what is in use grew by %s within %.1f s: a burst looks the same", Size(grown), seconds),
				fmt.Sprintf("%s in use, quota %s", Size(m.Later.DBSizeInUse), o.quotaOf(m)),
			},
			Why:      "When the quota is full, the whole cluster refuses writes.",
			Fix:      "Run it again in a few minutes: if it still grows, find out who writes, and turn on auto-compaction, since old versions of a key count too.",
			Commands: []string{o.command("watch --prefix '' -w fields | grep '\"Key\"'", m) + "   # who writes what; Ctrl-C ends it"},
		}
	}
	if worst == nil {
		return nil
	}
	return []Finding{*worst}
}

// fragmentation: how much of the file holds nothing?
func fragmentation(o *Observation) []Finding {
	var found []Finding
	for _, m := range o.answering() {
		st := m.Latest()
		waste := st.DBSize - st.DBSizeInUse
		if waste < fragmentsWaste || float64(st.DBSizeInUse) >= fragmentsShare*float64(st.DBSize) {
			continue
		}
		found = append(found, Finding{
			ID: "fragmented", Severity: Warning, Subject: m.Label(),
			Title:    fmt.Sprintf("%s: %.0f %% of its database file hold nothing", m.Label(), 100*float64(waste)/float64(st.DBSize)),
			Evidence: []string{fmt.Sprintf("file %s, in use %s: %s could be given back", Size(st.DBSize), Size(st.DBSizeInUse), Size(waste))},
			Why:      "The quota counts the file, not what is in use. Compaction frees pages within the file; only a defragmentation makes the file smaller.",
			Fix:      "Defragment it when little is going on. It does not serve meanwhile (about a second for each 100 MiB): never more than one member at a time, the leader last.",
			Commands: []string{o.command("defrag", m)},
		})
	}
	return found
}

// sizes: the same data should take about the same space everywhere.
func sizes(o *Observation) []Finding {
	var least, most *Member
	for _, m := range o.answering() {
		if least == nil || m.Latest().DBSizeInUse < least.Latest().DBSizeInUse {
			least = m
		}
		if most == nil || m.Latest().DBSizeInUse > most.Latest().DBSizeInUse {
			most = m
		}
	}
	if least == nil {
		return nil
	}
	low, high := least.Latest().DBSizeInUse, most.Latest().DBSizeInUse
	if high-low < sizesApart || high < sizesRatio*low {
		return nil
	}
	return []Finding{{
		ID: "sizes-differ", Severity: Warning, Subject: cluster,
		Title: "The members hold very different amounts of data",
		Evidence: []string{
			fmt.Sprintf("%s: %s in use", most.Label(), Size(high)),
			fmt.Sprintf("%s: %s in use", least.Label(), Size(low)),
		},
		Why:      "All members apply the same log. One that holds far more has not compacted, or does not follow; one that holds far less may have lost data.",
		Fix:      "Compare the members at one revision. Their hashes must be equal; if they are not, replace the one that differs.",
		Commands: []string{o.command("endpoint hashkv -w table", o.answering()...) + "   # slows writes down while it runs"},
	}}
}
