package app

import (
	"strings"
	"testing"
	"time"
)

func TestQuantileOf(t *testing.T) {
	const head = "# TYPE etcd_disk_wal_fsync_duration_seconds histogram\n"
	bucket := func(le, n string) string {
		return "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"" + le + "\"} " + n + "\n"
	}
	rest := func(n string) string {
		return "etcd_disk_wal_fsync_duration_seconds_sum 1\netcd_disk_wal_fsync_duration_seconds_count " + n + "\n"
	}
	for _, tc := range []struct {
		name, text string
		want       time.Duration
		ok         bool
	}{
		{"in the first bucket", head + bucket("0.001", "100") + bucket("0.002", "100") + bucket("+Inf", "100") + rest("100"), 990 * time.Microsecond, true},
		{"between two bounds", head + bucket("0.001", "98") + bucket("0.002", "100") + bucket("+Inf", "100") + rest("100"), 1500 * time.Microsecond, true},
		{"beyond the last bound", head + bucket("0.001", "0") + bucket("0.002", "0") + bucket("+Inf", "100") + rest("100"), 2 * time.Millisecond, true},
		{"nothing was written yet", head + bucket("0.001", "0") + bucket("+Inf", "0") + rest("0"), 0, false},
		{"another metric", "# TYPE a counter\na 1\n", 0, false},
		{"no metrics", "<html>", 0, false},
		{"cut off", head + bucket("0.001", "1")[:20], 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, ok := quantileOf(strings.NewReader(tc.text), fsyncMetric, 0.99)
			if ok != tc.ok || got.Round(time.Microsecond) != tc.want {
				t.Errorf("got %s %t, want %s %t", got, ok, tc.want, tc.ok)
			}
		})
	}
}
