package fleet_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// forget takes the records of a cluster's backups away: a process that keeps its objects
// in memory begins so.
func (w *backupWorld) forget(cluster string) {
	w.t.Helper()
	for _, b := range w.records(cluster) {
		w.must(w.store.Delete(w.t.Context(), v1alpha1.KindBackup, store.KeyOf(b), store.Preconditions{UID: b.UID}))
	}
}

// TestStartWithoutRecords: what is not due yet is not taken again, also while one of the
// stores can't say what it has. Where none can, nothing is known, and a backup is due.
func TestStartWithoutRecords(t *testing.T) {
	for _, tc := range []struct {
		name  string
		down  []string
		again bool
	}{
		{"all are read", nil, false},
		{"one is away", []string{"file:///far"}, false},
		{"all are away", []string{"file:///near", "file:///far"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble(t, func(w *backupWorld) {
				w.cluster("a")
				w.policy(func(p *v1alpha1.EtcdBackupPolicySpec) { p.Schedule.Interval = "24h" })
				w.start()
				w.sleep(10 * time.Minute)
				if n := w.vault.taken["a"]; n != 1 {
					w.t.Fatalf("%d backups to begin with", n)
				}
				for range 3 {
					w.stop()
					w.forget("a")
					w.vault.mu.Lock()
					for _, url := range tc.down {
						w.vault.down[url] = errors.New("it is away")
					}
					w.vault.mu.Unlock()
					w.start()
					w.sleep(5 * time.Minute)
				}
				if tried := len(w.records("a")) > 0; tried != tc.again || !tc.again && w.vault.taken["a"] != 1 {
					w.t.Errorf("after three starts %d were taken, and one was ordered: %v", w.vault.taken["a"], tried)
				}
			})
		})
	}
}

// TestOutlook tells what would be done, and does nothing.
func TestOutlook(t *testing.T) {
	bubble(t, func(w *backupWorld) {
		key := store.Key{Namespace: "default", Name: "hourly"}
		w.cluster("a")
		w.cluster("stopped", func(c *v1alpha1.EtcdCluster) { c.Spec.Suspended = true })
		w.policy()
		w.start()
		w.sleep(6 * time.Hour)
		w.vault.mu.Lock()
		w.vault.down["file:///far"] = errors.New("far is away")
		taken, prunes := w.vault.taken["a"], len(w.vault.prunes)
		w.vault.mu.Unlock()
		w.stop()
		w.start()
		got, err := w.c.Outlook(w.t.Context(), key)
		w.must(err)
		if len(got) != 2 || got[0].Cluster.Name != "a" || got[0].Refused != "" || len(got[0].Destinations) != 2 {
			w.t.Fatalf("%+v", got)
		}
		if in := got[0].Due.Sub(w.now()); in <= 0 || in > 90*time.Minute {
			w.t.Errorf("the next one is due in %s", in)
		}
		near, far := got[0].Destinations[0], got[0].Destinations[1]
		if near.Problem != "" || near.Holdings.Points != 3 || near.Holdings.Newest == nil || near.WouldDelete.Deleted != 0 {
			w.t.Errorf("near: %+v", near)
		}
		if !strings.Contains(far.Problem, "far is away") {
			w.t.Errorf("far: %+v", far)
		}
		if !strings.Contains(got[1].Refused, "is suspended") || !got[1].Due.IsZero() {
			w.t.Errorf("stopped: %+v", got[1])
		}
		if w.vault.taken["a"] != taken || len(w.vault.prunes) != prunes {
			w.t.Errorf("%d backups and %d prunings came of it", w.vault.taken["a"]-taken, len(w.vault.prunes)-prunes)
		}
		w.edit(func(p *v1alpha1.EtcdBackupPolicySpec) { p.Suspended = true })
		got, err = w.c.Outlook(w.t.Context(), key)
		w.must(err)
		if !got[0].Due.IsZero() {
			w.t.Errorf("suspended: %+v", got[0])
		}
	})
}
