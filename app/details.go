package app

import (
	"context"
	"io"
	"log/slog"
	"math"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

const (
	// detailsTime bounds what `up` asks for its table: it must not make the first look
	// at a cluster wait.
	detailsTime = time.Second
	// maxMetrics bounds the metrics of a member that are read, in bytes.
	maxMetrics = 16 << 20
	// fsyncMetric is how long etcd's writes to its log take to reach the disk.
	fsyncMetric = "etcd_disk_wal_fsync_duration_seconds"
)

// UpDetails are what is told of a cluster that is up, as far as it could be had at
// once.
type UpDetails struct {
	// View is what the members answer; nil if they were not asked in time.
	View *v1alpha1.ClusterView
	// FsyncP99 by the member's name: 99 of 100 writes to the log were on disk so soon.
	FsyncP99 map[string]time.Duration
	// ConsoleURL logs one browser in, once, until ConsoleUntil; empty if there is none.
	ConsoleURL   string
	ConsoleUntil time.Time
}

// details asks for them, all at once. What fails is left out.
func (u *upRun) details(ctx context.Context, members []*v1alpha1.EtcdMember) UpDetails {
	d := UpDetails{FsyncP99: map[string]time.Duration{}}
	admin, err := remote.New(u.srv.client, remote.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return d
	}
	defer admin.Close()
	ctx, cancel := context.WithTimeout(ctx, detailsTime)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	wg.Go(func() {
		if v, err := admin.View(ctx, u.key()); err == nil {
			mu.Lock()
			defer mu.Unlock()
			d.View = &v
		}
	})
	wg.Go(func() {
		if l, err := admin.LoginLink(ctx, 0); err == nil {
			mu.Lock()
			defer mu.Unlock()
			d.ConsoleURL, d.ConsoleUntil = admin.Server()+l.Path, l.ExpiresAt
		}
	})
	for _, m := range members {
		wg.Go(func() {
			metrics, err := admin.MemberMetrics(ctx, store.KeyOf(m))
			if err != nil {
				return
			}
			defer metrics.Close() //nolint:errcheck // what was wanted of it has been read
			if p99, ok := quantileOf(io.LimitReader(metrics, maxMetrics), fsyncMetric, 0.99); ok {
				mu.Lock()
				defer mu.Unlock()
				d.FsyncP99[m.Name] = p99
			}
		})
	}
	wg.Wait()
	return d
}

// quantileOf reads metrics as Prometheus' text, and estimates a quantile of a
// histogram of seconds as Prometheus does; false when it has none.
func quantileOf(metrics io.Reader, name string, quantile float64) (time.Duration, bool) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(metrics)
	if err != nil || families[name] == nil || len(families[name].GetMetric()) == 0 {
		return 0, false
	}
	return histogramQuantile(families[name].GetMetric()[0].GetHistogram(), quantile)
}

func histogramQuantile(h *dto.Histogram, quantile float64) (time.Duration, bool) {
	total := float64(h.GetSampleCount())
	if total == 0 {
		return 0, false
	}
	rank := quantile * total
	below, lower := 0.0, 0.0
	for _, b := range h.GetBucket() {
		count, upper := float64(b.GetCumulativeCount()), b.GetUpperBound()
		if count < rank {
			below, lower = count, upper
			continue
		}
		if math.IsInf(upper, 1) || count == below { // beyond the last bound nothing finer is known
			return seconds(lower), true
		}
		return seconds(lower + (upper-lower)*(rank-below)/(count-below)), true
	}
	return seconds(lower), true
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
