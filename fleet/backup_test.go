package fleet_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/store"
)

// bubble runs a test of backups with a clock of its own.
func bubble(t *testing.T, test func(w *backupWorld)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newBackupWorld(t)
		defer func() {
			if w.stop != nil {
				w.stop()
			}
			w.check()
		}()
		test(w)
	})
}

// TestBackupsOnSchedule: each cluster is backed up each hour, proven and pruned in each
// destination, and never two of one cluster, nor more than two in all, at once.
func TestBackupsOnSchedule(t *testing.T) {
	bubble(t, func(w *backupWorld) {
		t := w.t
		for i := range 6 {
			w.cluster(fmt.Sprint("c", i))
		}
		w.cluster("other", func(c *v1alpha1.EtcdCluster) { c.Labels = nil })
		w.policy()
		w.start()
		w.sleep(24 * time.Hour)
		for i := range 6 {
			name := fmt.Sprint("c", i)
			if n := w.vault.taken[name]; n < 23 || n > 26 {
				t.Errorf("%s was backed up %d times in a day", name, n)
			}
			if n := len(w.records(name)); n < 10 || n > 12 {
				t.Errorf("%s has %d records", name, n)
			}
		}
		if w.vault.taken["other"] > 0 {
			t.Error("a cluster was backed up that nobody named")
		}
		st := w.status()
		if st.Clusters != 6 || st.Fresh != 6 || st.Stale+st.Unproven+st.Failed != 0 || len(st.Attention) > 0 || st.LastRunAt == nil || st.NextRunAt == nil {
			t.Errorf("the status is %+v", st)
		}
		for _, kind := range []string{v1alpha1.ConditionReady, v1alpha1.ConditionFresh, v1alpha1.ConditionProven} {
			if c := w.condition(st.Conditions, kind); c.Status != v1alpha1.True {
				t.Errorf("%+v", c)
			}
		}
		last := w.records("c0")
		b := last[len(last)-2].Status
		if b.Phase != v1alpha1.BackupVerified || len(b.Destinations) != 2 || !b.Destinations[1].Proven || b.Destinations[0].RestoreMilliseconds != 1000 || b.Source.Member != "m2" {
			t.Errorf("a record says %+v", b)
		}
		if got := w.vault.orders[0]; got.Policy != "default/hourly" || got.ClusterID == 0 || len(got.Stores) != 2 {
			t.Errorf("the order was %+v", got)
		}
		far := 0
		for _, p := range w.vault.prunes {
			if p.Policy != "default/hourly" || p.ClusterID == 0 || p.AwaitProof == 0 || p.Zone != time.UTC {
				t.Fatalf("pruned by %+v", p)
			}
			if p.Retention.Yearly == 1 && p.Store.Name == "far" {
				far++
			}
		}
		if want := len(w.vault.orders); len(w.vault.prunes) < 2*want-12 || far < want-6 {
			t.Errorf("%d backups, %d prunings, %d by the rules of their destination", want, len(w.vault.prunes), far)
		}
		w.stop()
		w.stop = nil
	})
}

// TestMissedBackups: what was missed while the server was away is made up for by one
// backup of each cluster, at once.
func TestMissedBackups(t *testing.T) {
	for name, schedule := range map[string]v1alpha1.BackupSchedule{
		"interval": {TimeZone: "UTC", Interval: "1h"}, "cron": {TimeZone: "UTC", Cron: "5 * * * *", Jitter: "1m"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(w *backupWorld) {
				t := w.t
				w.cluster("a")
				w.cluster("b")
				w.policy(func(p *v1alpha1.EtcdBackupPolicySpec) { p.Schedule = schedule })
				w.start()
				w.sleep(3 * time.Hour)
				w.stop()
				before := w.vault.taken["a"]
				w.sleep(50*time.Hour + 31*time.Minute)
				w.start()
				w.sleep(3 * time.Minute)
				if n := w.vault.taken["a"] - before; n != 1 {
					t.Errorf("%d backups were taken for those that were missed", n)
				}
				w.sleep(90 * time.Minute)
				if n := w.vault.taken["a"] - before; n > 3 || n < 2 {
					t.Errorf("%d backups were taken 93 minutes after the server came back", n)
				}
			})
		})
	}
}

// TestServerDiesDuringBackups: a backup that a dead server has left is marked failed, by
// the next server in its place at once, by another one once it is silent for long; and
// taken anew soon. A proof goes on.
func TestServerDiesDuringBackups(t *testing.T) {
	for _, tc := range []struct {
		name, next string
		during     v1alpha1.BackupPhase
		phase      v1alpha1.BackupPhase
		within     time.Duration
	}{
		{"taking", "here", v1alpha1.BackupRunning, v1alpha1.BackupFailed, 30 * time.Second},
		{"taking, another server", "there", v1alpha1.BackupRunning, v1alpha1.BackupFailed, 4 * time.Minute},
		{"proving", "here", v1alpha1.BackupProving, v1alpha1.BackupVerified, 90 * time.Second},
		{"proving, another server", "there", v1alpha1.BackupProving, v1alpha1.BackupVerified, 5 * time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble(t, func(w *backupWorld) {
				t := w.t
				w.cluster("a")
				w.policy()
				w.start()
				first := w.until("a", tc.during)
				w.kill()
				if st := w.backup(first.Name); st.Phase != first.Status.Phase {
					t.Fatalf("the dead server has written %s", st.Phase)
				}
				w.server = tc.next
				w.start()
				w.sleep(tc.within)
				if st := w.backup(first.Name); st.Phase != tc.phase || st.FinishedAt == nil {
					t.Errorf("%s later it is %s: %s", tc.within, st.Phase, st.Message)
				}
				w.sleep(3 * time.Minute)
				if n := w.vault.taken["a"]; n != 1 {
					t.Errorf("%d backups are there", n)
				}
				if w.status().Fresh != 1 {
					t.Errorf("%+v", w.status())
				}
			})
		})
	}
}

// until waits until the first record of a cluster is in a phase.
func (w *backupWorld) until(cluster string, phase v1alpha1.BackupPhase) *v1alpha1.EtcdBackup {
	w.t.Helper()
	for range 300 {
		w.sleep(time.Second)
		if all := w.records(cluster); len(all) > 0 && all[0].Status.Phase == phase {
			return all[0]
		}
	}
	w.t.Fatalf("no backup of %s is %s", cluster, phase)
	return nil
}

// TestServerStopsDuringBackup: an orderly stop is told at once.
func TestServerStopsDuringBackup(t *testing.T) {
	bubble(t, func(w *backupWorld) {
		t := w.t
		w.cluster("a")
		w.policy()
		w.start()
		w.until("a", v1alpha1.BackupRunning)
		w.stop()
		if st := w.records("a")[0].Status; st.Phase != v1alpha1.BackupFailed || !strings.Contains(st.Message, "Quorate was stopped") {
			t.Errorf("%s: %s", st.Phase, st.Message)
		}
		w.stop = nil
	})
}

// TestClockJumps: backups go on whatever becomes of the clock.
func TestClockJumps(t *testing.T) {
	for _, jump := range []time.Duration{365 * 24 * time.Hour, -365 * 24 * time.Hour, 20 * time.Minute, -20 * time.Minute} {
		t.Run(jump.String(), func(t *testing.T) {
			bubble(t, func(w *backupWorld) {
				t := w.t
				w.cluster("a")
				w.policy()
				w.start()
				w.sleep(150 * time.Minute)
				for _, ahead := range []time.Duration{jump, 0} {
					before := w.vault.taken["a"]
					w.setClock(ahead)
					w.sleep(5 * time.Hour)
					if n := w.vault.taken["a"] - before; n < 4 || n > 7 {
						t.Errorf("with the clock %s ahead, %d backups were taken in 5 h", ahead, n)
					}
				}
				if st := w.status(); st.Fresh != 1 {
					t.Errorf("in the end: %+v", st)
				}
			})
		})
	}
}

// TestFailuresAreRepeated with growing waits, are told, and end with the first success.
func TestFailuresAreRepeated(t *testing.T) {
	bubble(t, func(w *backupWorld) {
		t := w.t
		w.cluster("a")
		w.policy()
		w.vault.refuse = func(fleet.BackupOrder) error {
			return errors.New("no member is fit to be backed up: m1: it is 9000 entries behind")
		}
		w.start()
		w.sleep(time.Hour)
		n := len(w.vault.orders)
		if n < 5 || n > 8 {
			t.Errorf("%d times in an hour", n)
		}
		st := w.status()
		if st.Failed != 1 || st.Stale != 1 || len(st.Attention) != 1 || !strings.Contains(st.Attention[0].Message, "9000 entries behind") {
			t.Errorf("the status is %+v", st)
		}
		if c := w.condition(st.Conditions, v1alpha1.ConditionFresh); c.Status != v1alpha1.False || !strings.Contains(c.Message, "9000 entries behind") {
			t.Errorf("%+v", c)
		}
		if !w.told("Warning BackupFailed a-") || !w.told("Warning Stale hourly") {
			t.Errorf("the events are %q", w.events)
		}
		if len(w.vault.prunes) > 0 {
			t.Error("a failed backup has pruned")
		}
		w.vault.refuse = nil
		w.sleep(35 * time.Minute)
		if st = w.status(); st.Failed != 0 || st.Fresh != 1 || w.vault.taken["a"] == 0 {
			t.Errorf("afterwards the status is %+v", st)
		}
		if !w.told("Normal BackupVerified a-") || !w.told("Normal AllFresh hourly") {
			t.Errorf("the events are %q", w.events)
		}
	})
}

// TestOneDestinationIsDown: the backup counts where it is, and the other one is stale.
func TestOneDestinationIsDown(t *testing.T) {
	bubble(t, func(w *backupWorld) {
		t := w.t
		w.cluster("a")
		w.policy()
		w.vault.down["file:///far"] = errors.New("far is away")
		w.start()
		w.sleep(5 * time.Hour)
		if n := len(w.vault.orders); n > 8 {
			t.Errorf("%d backups in 5 h: one store that is away has others written again and again", n)
		}
		records := w.records("a")
		b := records[len(records)-1].Status
		if b.Phase != v1alpha1.BackupVerified || !v1alpha1.IsTrue(b.Conditions, v1alpha1.ConditionDegraded) || b.Destinations[1].Error != "far is away" {
			t.Errorf("%+v", b)
		}
		st := w.status()
		if st.Stale != 1 || st.Failed != 1 || !strings.Contains(st.Attention[0].Message, "far") {
			t.Errorf("%+v", st)
		}
		if c := w.condition(st.Conditions, v1alpha1.ConditionReady); c.Reason != "DestinationUnreadable" {
			t.Errorf("%+v", c)
		}
		for _, p := range w.vault.prunes {
			if p.Store.Name != "near" {
				t.Error("a store was pruned that has no new backup")
			}
		}
		delete(w.vault.down, "file:///far")
		w.sleep(2 * time.Hour)
		if st = w.status(); st.Fresh != 1 || st.Failed != 0 || w.condition(st.Conditions, v1alpha1.ConditionReady).Status != v1alpha1.True {
			t.Errorf("%+v", st)
		}
	})
}

// TestProofs: what fails a proof is no backup, what can't be tried is tried again, and
// who wants none has to live without the condition.
func TestProofs(t *testing.T) {
	bubble(t, func(w *backupWorld) {
		t := w.t
		w.cluster("a")
		w.policy()
		w.vault.rotten["file:///far"] = true
		w.start()
		w.sleep(30 * time.Second)
		w.sleep(30 * time.Second)
		b := w.records("a")[0].Status
		if b.Phase != v1alpha1.BackupFailed || !strings.Contains(b.Message, "5 in the manifest") || w.condition(b.Conditions, v1alpha1.ConditionVerified).Status != v1alpha1.False {
			t.Errorf("%+v", b)
		}
		if len(w.vault.prunes) > 0 {
			t.Error("a backup that can't be trusted has pruned")
		}
		w.vault.rotten = map[string]bool{}
		w.vault.untried = 2
		w.sleep(10 * time.Minute)
		records := w.records("a")
		if b = records[len(records)-1].Status; b.Phase != v1alpha1.BackupVerified {
			t.Errorf("%+v", b)
		}
		w.vault.untried = 1000
		w.sleep(4 * time.Hour)
		records = w.records("a")
		b = records[len(records)-1].Status
		if b.Phase != v1alpha1.BackupTaken || w.condition(b.Conditions, v1alpha1.ConditionVerified).Status != v1alpha1.Unknown || !strings.Contains(b.Message, "scratch disk is full") {
			t.Errorf("%+v", b)
		}
		if st := w.status(); st.Fresh != 1 || st.Unproven != 1 || w.condition(st.Conditions, v1alpha1.ConditionProven).Status != v1alpha1.False {
			t.Errorf("%+v", st)
		}
		w.edit(func(p *v1alpha1.EtcdBackupPolicySpec) {
			p.Proof = v1alpha1.BackupProof{Mode: v1alpha1.ProofNever, Reason: "it is a toy"}
		})
		before := w.vault.proofs
		w.sleep(2 * time.Hour)
		if w.vault.proofs != before {
			t.Error("a proof was tried that nobody wants")
		}
		if c := w.condition(w.status().Conditions, v1alpha1.ConditionProven); c.Status != v1alpha1.False || c.Reason != "NotWanted" || !strings.Contains(c.Message, "a toy") {
			t.Errorf("%+v", c)
		}
	})
}

// TestNotAllowed: a cluster that others run is backed up only once they allow it.
func TestNotAllowed(t *testing.T) {
	bubble(t, func(w *backupWorld) {
		t := w.t
		c := w.cluster("theirs", func(c *v1alpha1.EtcdCluster) {
			c.Spec.Management, c.Spec.Import = v1alpha1.ManagementObserve, &v1alpha1.ImportSpec{Endpoints: []string{"http://127.0.0.1:1"}}
		})
		w.policy()
		w.order("by-hand", "theirs")
		w.start()
		w.sleep(2 * time.Hour)
		if len(w.vault.orders) > 0 || len(w.records("theirs")) != 1 {
			t.Errorf("%d backups were taken", len(w.vault.orders))
		}
		if st := w.backup("by-hand"); st.Phase != v1alpha1.BackupFailed || !strings.Contains(st.Message, "spec.import.maintain") {
			t.Errorf("%+v", st)
		}
		st := w.status()
		if st.Failed != 1 || len(st.Attention) != 1 || st.Attention[0].Reason != "NotAllowed" || !strings.Contains(st.Attention[0].Message, "spec.import.maintain") {
			t.Errorf("%+v", st)
		}
		w.must(store.Mutate(t.Context(), w.store, store.KeyOf(c), c, func(c *v1alpha1.EtcdCluster) (bool, error) {
			c.Spec.Import.Maintain = []v1alpha1.Maintenance{v1alpha1.MaintainBackup}
			return true, nil
		}))
		w.sleep(35 * time.Minute)
		if st = w.status(); st.Fresh != 1 || st.Failed != 0 || w.vault.taken["theirs"] == 0 {
			t.Errorf("%+v", st)
		}
		if got := w.vault.orders[0].Access.Endpoints; len(got) != 1 || got[0] != "http://127.0.0.1:1" {
			t.Errorf("it was asked at %v", got)
		}
	})
}

// TestHeldBack: what must not be backed up or pruned now is not.
func TestHeldBack(t *testing.T) {
	bubble(t, func(w *backupWorld) {
		t := w.t
		w.cluster("stopped", func(c *v1alpha1.EtcdCluster) { c.Spec.Suspended = true })
		w.cluster("new", func(c *v1alpha1.EtcdCluster) { c.Status = v1alpha1.EtcdClusterStatus{} })
		w.cluster("restored", func(c *v1alpha1.EtcdCluster) { c.Annotations = map[string]string{v1alpha1.AnnotationRestored: "2"} })
		w.policy()
		w.order("of-nothing", "gone")
		w.order("another", "restored", func(s *v1alpha1.EtcdBackupSpec) { s.ClusterUID = "of long ago" })
		w.order("no-policy", "restored", func(s *v1alpha1.EtcdBackupSpec) { s.PolicyName = "gone" })
		w.start()
		w.sleep(3 * time.Hour)
		if w.vault.taken["stopped"]+w.vault.taken["new"] > 0 || w.vault.taken["restored"] == 0 {
			t.Errorf("taken: %v", w.vault.taken)
		}
		if len(w.vault.prunes) > 0 {
			t.Error("backups of a cluster were pruned that is held after a restore")
		}
		for name, want := range map[string]string{"of-nothing": "no EtcdCluster gone", "another": "made anew", "no-policy": "no EtcdBackupPolicy gone"} {
			if st := w.backup(name); st.Phase != v1alpha1.BackupFailed || !strings.Contains(st.Message, want) {
				t.Errorf("%s: %s: %s", name, st.Phase, st.Message)
			}
		}
		w.edit(func(p *v1alpha1.EtcdBackupPolicySpec) { p.Suspended = true })
		w.sleep(time.Minute)
		before := len(w.vault.orders)
		w.order("by-hand", "restored")
		w.sleep(3 * time.Hour)
		if n := len(w.vault.orders) - before; n != 1 || w.backup("by-hand").Phase != v1alpha1.BackupVerified {
			t.Errorf("with the policy suspended %d backups were taken, by hand: %+v", n, w.backup("by-hand"))
		}
		if st := w.status(); st.NextRunAt != nil || w.condition(st.Conditions, v1alpha1.ConditionReady).Reason != "Suspended" {
			t.Errorf("%+v", st)
		}
	})
}

// TestRecordsAreLost: what the stores have is enough to go on, and nothing is taken that
// is there.
func TestRecordsAreLost(t *testing.T) {
	bubble(t, func(w *backupWorld) {
		t := w.t
		w.cluster("a")
		w.policy()
		w.start()
		w.sleep(90 * time.Minute)
		w.stop()
		for _, b := range w.records("a") {
			w.must(w.store.Delete(t.Context(), v1alpha1.KindBackup, store.KeyOf(b), store.Preconditions{UID: b.UID}))
		}
		before := w.vault.taken["a"]
		w.start()
		w.sleep(time.Minute)
		if st := w.status(); st.Fresh != 1 || st.Unproven != 0 || w.vault.taken["a"] != before && st.LastRunAt == nil {
			t.Errorf("%+v, %d more", st, w.vault.taken["a"]-before)
		}
		w.sleep(2 * time.Hour)
		if n := w.vault.taken["a"] - before; n < 1 || n > 3 {
			t.Errorf("%d backups in the two hours after", n)
		}
	})
}

// TestClusterIsRestored: with its data replaced, a cluster has no backup any more, and
// gets one at once.
func TestClusterIsRestored(t *testing.T) {
	bubble(t, func(w *backupWorld) {
		t := w.t
		c := w.cluster("a")
		w.policy(func(p *v1alpha1.EtcdBackupPolicySpec) { p.Schedule.Interval = "24h" })
		w.start()
		w.sleep(10 * time.Minute)
		if w.vault.taken["a"] != 1 || w.status().Fresh != 1 {
			t.Fatalf("%+v", w.status())
		}
		w.must(store.MutateStatus(t.Context(), w.store, store.KeyOf(c), c, func(c *v1alpha1.EtcdCluster) (bool, error) {
			c.Status.ClusterID = "beef"
			return true, nil
		}))
		w.sleep(10 * time.Minute)
		if got := w.vault.orders[len(w.vault.orders)-1]; w.vault.taken["a"] != 2 || got.ClusterID.String() != "beef" || w.status().Fresh != 1 {
			t.Errorf("%d backups, the last of cluster ID %s: %+v", w.vault.taken["a"], got.ClusterID, w.status())
		}
	})
}

// TestDeletedBackup: deleting the record of a running backup ends it, and deletes
// nothing in a store.
func TestDeletedBackup(t *testing.T) {
	bubble(t, func(w *backupWorld) {
		t := w.t
		w.cluster("a")
		w.policy(func(p *v1alpha1.EtcdBackupPolicySpec) { p.Suspended = true })
		w.order("done", "a")
		w.start()
		w.sleep(time.Minute)
		w.vault.takes = time.Hour
		w.order("long", "a")
		w.sleep(time.Minute)
		for _, name := range []string{"done", "long"} {
			b := &v1alpha1.EtcdBackup{}
			w.must(w.store.Get(t.Context(), store.Key{Namespace: "default", Name: name}, b))
			w.must(w.store.Delete(t.Context(), v1alpha1.KindBackup, store.KeyOf(b), store.Preconditions{UID: b.UID}))
		}
		w.sleep(time.Minute)
		w.vault.takes = time.Second
		w.order("next", "a")
		w.sleep(time.Minute)
		if st := w.backup("next"); st.Phase != v1alpha1.BackupVerified {
			t.Errorf("%+v", st)
		}
		points := 0
		for _, p := range w.vault.points {
			points += len(p)
		}
		if points != 4 {
			t.Errorf("%d backups are in the stores", points)
		}
	})
}

// TestBackupStorms has servers die, clocks jump, stores fail, and people order and delete
// backups, at random: of a cluster there are never two at once, nothing is pruned while
// it is backed up, and in the end all is fresh.
func TestBackupStorms(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			bubble(t, func(w *backupWorld) {
				t := w.t
				random := rand.New(rand.NewPCG(seed, 1))
				for i := range 4 {
					w.cluster(fmt.Sprint("c", i))
				}
				w.policy()
				w.start()
				for i := range 40 {
					w.sleep(time.Duration(random.Int64N(int64(25 * time.Minute))))
					w.storm(random, i)
				}
				w.vault.mu.Lock()
				w.vault.refuse, w.vault.down, w.vault.rotten, w.vault.untried, w.vault.takes = nil, map[string]error{}, map[string]bool{}, 0, 10*time.Second
				w.vault.mu.Unlock()
				w.setClock(0)
				w.sleep(4 * time.Hour)
				if st := w.status(); st.Clusters != 4 || st.Fresh != 4 || st.Unproven != 0 {
					t.Errorf("in the end: %+v", st)
				}
			})
		})
	}
}

func (w *backupWorld) storm(random *rand.Rand, i int) {
	name := fmt.Sprint("c", random.IntN(4))
	switch random.IntN(9) {
	case 0:
		w.kill()
		w.start()
	case 1:
		w.stop()
		w.sleep(time.Duration(random.Int64N(int64(5 * time.Hour))))
		w.start()
	case 2:
		w.setClock(time.Duration(random.Int64N(int64(48*time.Hour)) - int64(24*time.Hour)))
	case 3, 4:
		w.order(fmt.Sprint("by-hand-", i), name)
	case 5:
		for _, b := range w.records(name) {
			w.must(w.store.Delete(w.t.Context(), v1alpha1.KindBackup, store.KeyOf(b), store.Preconditions{UID: b.UID}))
		}
	default:
		w.vault.mu.Lock()
		defer w.vault.mu.Unlock()
		w.vault.down = map[string]error{}
		if random.IntN(2) == 0 {
			w.vault.down["file:///far"] = errors.New("far is away")
		}
		w.vault.rotten = map[string]bool{"file:///near": random.IntN(4) == 0}
		w.vault.untried = random.IntN(6)
		w.vault.takes = time.Duration(random.Int64N(int64(20 * time.Minute)))
		w.vault.refuse = nil
		if random.IntN(3) == 0 {
			w.vault.refuse = func(fleet.BackupOrder) error { return errors.New("the member hung up") }
		}
	}
}

// TestBackupMetrics: what is known is told, also after a restart, and what is gone is not.
func TestBackupMetrics(t *testing.T) {
	bubble(t, func(w *backupWorld) {
		t := w.t
		w.cluster("a")
		w.policy()
		w.start()
		w.sleep(time.Hour)
		w.stop()
		w.vault.down["file:///near"] = errors.New("near is away")
		reg := prometheus.NewRegistry()
		c, err := fleet.NewBackupController(fleet.BackupOptions{Store: w.store, Backups: w.vault, Credentials: noCredentials{}, Recorder: w, Logger: discard, Server: "here", Registerer: reg})
		w.must(err)
		key := store.Key{Namespace: "default", Name: "hourly"}
		_, err = c.ReconcilePolicy(t.Context(), key)
		w.must(err)
		got := gathered(t, reg)
		for _, name := range []string{
			"quorate_backup_last_success_timestamp_seconds", "quorate_backup_last_proven_timestamp_seconds", "quorate_backup_size_bytes",
			"quorate_backup_duration_seconds", "quorate_backup_restore_seconds", "quorate_backup_points", "quorate_backup_failures_total",
		} {
			if got[name] != 2 {
				t.Errorf("%s has %d series, and there are 2 destinations", name, got[name])
			}
		}
		p := &v1alpha1.EtcdBackupPolicy{}
		w.must(w.store.Get(t.Context(), key, p))
		w.must(w.store.Delete(t.Context(), v1alpha1.KindBackupPolicy, key, store.Preconditions{UID: p.UID}))
		_, err = c.ReconcilePolicy(t.Context(), key)
		w.must(err)
		if got = gathered(t, reg); len(got) > 0 {
			t.Errorf("of a policy that is gone there is %v", got)
		}
		w.stop = nil
	})
}

func gathered(t *testing.T, from prometheus.Gatherer) map[string]int {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	n := map[string]int{}
	for _, f := range families {
		n[f.GetName()] = len(f.GetMetric())
	}
	return n
}
