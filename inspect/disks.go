package inspect

import "fmt"

// Thresholds of disks, in milliseconds: what etcd's manual recommends for the 99th
// percentile, and from where on it hurts whoever writes.
const (
	fsyncSlow  = 10
	fsyncBad   = 100
	commitSlow = 25
	commitBad  = 250
	// fewSyncs: a 99th percentile of fewer says nothing.
	fewSyncs = 100
)

// disks: how long do fsync and commit take? Only /metrics tells. What is recent
// counts; the whole life of the process counts where that alone is known, and then
// only when it is bad.
func disks(o *Observation) []Finding {
	var found []Finding
	for _, m := range o.answering() {
		if m.Metrics == nil {
			continue
		}
		fsync := diskJudge(m.Metrics.RecentFsync, m.Metrics.Fsync, fsyncSlow, fsyncBad)
		commit := diskJudge(m.Metrics.RecentCommit, m.Metrics.Commit, commitSlow, commitBad)
		severity := fsync
		if severity == "" || commit != "" && ranks[commit] < ranks[severity] {
			severity = commit
		}
		if severity == "" {
			continue
		}
		found = append(found, Finding{
			ID: "slow-disk", Severity: severity, Subject: m.Label(),
			Title: "The disk of " + m.Label() + " is slow",
			Evidence: []string{
				"fsync of the WAL: " + quantiles(o, m.Metrics.Fsync, m.Metrics.RecentFsync),
				"commit of the backend: " + quantiles(o, m.Metrics.Commit, m.Metrics.RecentCommit),
				fmt.Sprintf("etcd recommends less than %d ms for fsync and %d ms for commit", fsyncSlow, commitSlow),
			},
			Why:      "Every write waits for the fsync of a quorum. A disk that is slower than the heartbeat costs elections.",
			Fix:      "Give etcd a disk of its own, an SSD with power-loss protection; don't share it with logs, images or other databases.",
			Commands: []string{"fio --name=wal --rw=write --ioengine=sync --fdatasync=1 --bs=2300 --size=22m --directory=/var/lib/etcd-fio   # on its host, on the same disk"},
		})
	}
	return found
}

// diskJudge is how bad a percentile is.
func diskJudge(recent, all Quantile, slow, bad float64) Severity {
	switch {
	case recent.Count >= fewSyncs && recent.P99Milliseconds > slow:
		return Warning
	case all.Count >= fewSyncs && all.P99Milliseconds > bad:
		return Warning
	case all.Count >= fewSyncs && all.P99Milliseconds > slow:
		return Info
	}
	return ""
}

func quantiles(o *Observation, all, recent Quantile) string {
	text := fmt.Sprintf("99 %% below %.1f ms (%d since it started)", all.P99Milliseconds, all.Count)
	if recent.Count >= fewSyncs {
		text += fmt.Sprintf("; below %.1f ms (%d within the last %.1f s)", recent.P99Milliseconds, recent.Count, o.SampledSeconds)
	}
	return text
}
