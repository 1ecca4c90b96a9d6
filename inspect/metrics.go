package inspect

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Names of the metrics that are read.
const (
	metricQuota     = "etcd_server_quota_backend_bytes"
	metricStarted   = "process_start_time_seconds"
	metricCompacted = "etcd_debugging_mvcc_db_compaction_last"
	metricFsync     = "etcd_disk_wal_fsync_duration_seconds"
	metricCommit    = "etcd_disk_backend_commit_duration_seconds"
	metricPeers     = "etcd_network_active_peers"
)

type families map[string]*dto.MetricFamily

func parseMetrics(text []byte) (families, error) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	parsed, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read /metrics: %w", err)
	}
	return parsed, nil
}

// metricsOf takes what is examined from two looks at /metrics; later may be nil.
func metricsOf(first, later families) *Metrics {
	latest := later
	if latest == nil {
		latest = first
	}
	m := &Metrics{
		QuotaBytes:  int64(latest.value(metricQuota)),
		StartedAt:   seconds(latest.value(metricStarted)),
		CompactedAt: seconds(latest.value(metricCompacted)),
		Fsync:       quantile(latest.histogram(metricFsync), nil),
		Commit:      quantile(latest.histogram(metricCommit), nil),
		Peers:       latest.peers(),
	}
	if later != nil {
		m.RecentFsync = quantile(later.histogram(metricFsync), first.histogram(metricFsync))
		m.RecentCommit = quantile(later.histogram(metricCommit), first.histogram(metricCommit))
	}
	return m
}

func seconds(v float64) time.Time {
	if v <= 0 {
		return time.Time{}
	}
	return time.Unix(int64(v), 0).UTC()
}

func (f families) value(name string) float64 {
	for _, m := range f[name].GetMetric() {
		if g := m.GetGauge(); g != nil {
			return g.GetValue()
		}
	}
	return 0
}

func (f families) histogram(name string) *dto.Histogram {
	for _, m := range f[name].GetMetric() {
		return m.GetHistogram()
	}
	return nil
}

// peers tells by ID which peers the member is connected to. 3.4 and later know it.
func (f families) peers() map[string]bool {
	var connected map[string]bool
	for _, m := range f[metricPeers].GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() != "Remote" {
				continue
			}
			id, err := strconv.ParseUint(l.GetValue(), 16, 64)
			if err != nil {
				continue
			}
			if connected == nil {
				connected = map[string]bool{}
			}
			connected[strconv.FormatUint(id, 16)] = m.GetGauge().GetValue() > 0
		}
	}
	return connected
}

// quantile is the 99th percentile of what came to a histogram since before, which
// may be nil, within the bucket that it falls in.
func quantile(now, before *dto.Histogram) Quantile {
	const share = 0.99
	total := now.GetSampleCount() - min(before.GetSampleCount(), now.GetSampleCount())
	if total == 0 {
		return Quantile{}
	}
	earlier := map[float64]uint64{}
	for _, b := range before.GetBucket() {
		earlier[b.GetUpperBound()] = b.GetCumulativeCount()
	}
	rank := share * float64(total)
	var below, from float64
	for _, b := range now.GetBucket() {
		count := float64(b.GetCumulativeCount() - min(earlier[b.GetUpperBound()], b.GetCumulativeCount()))
		if count >= rank {
			to := b.GetUpperBound()
			if math.IsInf(to, 1) {
				to = from
			}
			within := 1.0
			if count > below {
				within = (rank - below) / (count - below)
			}
			return Quantile{Count: total, P99Milliseconds: (from + (to-from)*within) * 1000}
		}
		below, from = count, b.GetUpperBound()
	}
	return Quantile{Count: total, P99Milliseconds: from * 1000}
}
