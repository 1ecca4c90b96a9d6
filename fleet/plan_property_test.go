package fleet_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

// TestAnyHistoryConverges: whatever happens in whatever order — edits, crashes of
// members and of the controller at any write, delayed and reordered answers —
// there are never two mutations at once, never less than a quorum by Quorate's
// act, and in the end everything is as wanted. So it is with restores in place, deleted
// half-way or not, and with names of restores that mean none; and with hosts that are
// drained, and not any more, and lost: no voter is removed unless the others are a healthy
// quorum, no learner promoted that is not in step, no removed member started.
func TestAnyHistoryConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		replicas := rapid.SampledFrom([]int{1, 2, 3, 4, 5, 7}).Draw(t, "replicas")
		hosts := rapid.IntRange(1, 5).Draw(t, "hosts")
		w := newWorld(replicas, hosts)
		if rapid.Bool().Draw(t, "sequential") {
			w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Formation.Mode = v1alpha1.FormationSequential })
		}
		aHost := func() string { return fmt.Sprintf("host-%d", rapid.IntRange(0, hosts-1).Draw(t, "host")) }
		steps := rapid.IntRange(10, 150).Draw(t, "steps")
		deleted := false
		if rapid.IntRange(0, 3).Draw(t, "begins") == 0 {
			w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.RestoreName = "r-0" })
			w.restore("r-0", false)
		}
		for i := range steps {
			w.clock = w.clock.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
			members := w.members()
			switch rapid.IntRange(0, 44).Draw(t, "what") {
			case 20:
				if len(w.listRestores()) < 4 {
					w.restore(fmt.Sprint("r-", 1+i), rapid.IntRange(0, 3).Draw(t, "in place") > 0)
				}
			case 21:
				if all := w.listRestores(); len(all) > 0 && rapid.Bool().Draw(t, "drops") {
					w.dropRestore(all[rapid.IntRange(0, len(all)-1).Draw(t, "restore")].Name)
				}
			case 22:
				host := aHost()
				w.setHost(host, w.silent[host])
			case 29, 30:
				w.drain(aHost(), true)
			case 31:
				w.drain(aHost(), false)
			case 32:
				w.lose(aHost())
			case 33:
				w.hitch(rapid.IntRange(0, hitches-1).Draw(t, "hitch"))
			case 23:
				w.unmakeable = !w.unmakeable
			case 24:
				if rapid.IntRange(0, 3).Draw(t, "really") == 0 {
					w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.RestoreName = "nowhere" })
				}
			case 25, 26, 27, 28:
				if all := w.listRestores(); len(all) > 0 {
					w.restoreOne(all[rapid.IntRange(0, len(all)-1).Draw(t, "restore")].Name)
				}
			case 0:
				w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Etcd.SnapshotCount = int64(1000 + i) })
			case 1:
				w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Suspended = !s.Suspended })
			case 2:
				w.delay = !w.delay
			case 3:
				w.crashIn = rapid.IntRange(1, 7).Draw(t, "writes")
			case 4:
				w.restart()
			case 5:
				if len(members) > 0 {
					delete(w.procs, members[rapid.IntRange(0, len(members)-1).Draw(t, "victim")].Name)
					w.disturbed++
					w.elect()
				}
			case 6:
				if !deleted && rapid.IntRange(0, 9).Draw(t, "really") == 0 {
					deleted = true
					c := w.cluster()
					w.must(w.store.Delete(context.Background(), v1alpha1.KindCluster, store.KeyOf(c), store.Preconditions{UID: c.UID}))
				}
			case 7:
				for _, m := range members {
					if p := w.procs[m.Name]; p != nil && rapid.Bool().Draw(t, "breaks") {
						w.broken[p.hash] = true
						w.disturbed++
					}
				}
				w.elect()
			case 8, 9, 10, 11, 12, 34, 35, 36:
				if len(members) > 0 {
					w.agent(members[rapid.IntRange(0, len(members)-1).Draw(t, "agent")])
				}
			default:
				w.reconcile()
			}
			w.fail(t)
		}
		w.restart()
		w.unstick()
		w.spare(hosts)
		if !w.settle() {
			w.fail(t)
			t.Fatalf("did not settle (%s): serving %v, cluster %+v\nrestores %+v\nevents:\n%s", w.settled(w.cluster()), w.serving(), w.cluster(), w.listRestores(), strings.Join(w.events, "\n"))
		}
		w.fail(t)
	})
}

// phase is something that is asked of a cluster.
type phase struct {
	name string
	edit func(w *world)
}

func deleteCluster(w *world) {
	c := w.cluster()
	w.must(w.store.Delete(context.Background(), v1alpha1.KindCluster, store.KeyOf(c), store.Preconditions{UID: c.UID}))
}

// TestEveryCrashPoint: controllers that die before their nth write, for every n there is
// in forming, changing, suspending, resuming, restoring and deleting a cluster, are
// followed by ones that finish.
func TestEveryCrashPoint(t *testing.T) {
	restore := phase{"restore in place", func(w *world) { w.restore("undo", true) }}
	for _, phases := range [][]phase{
		{
			{"form", func(*world) {}},
			{"change", func(w *world) { w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Etcd.SnapshotCount = 5000 }) }},
			{"suspend", func(w *world) { w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Suspended = true }) }},
			{"resume", func(w *world) { w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Suspended = false }) }},
			restore,
			{"delete", deleteCluster},
		},
		{
			{"form one after the other", func(w *world) {
				w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Formation.Mode = v1alpha1.FormationSequential })
			}},
			{"drain", func(w *world) { w.drain("host-0", true) }},
			{"drain another, and change the configuration", func(w *world) {
				w.drain("host-0", false)
				w.drain("host-1", true)
				w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Etcd.SnapshotCount = 5000 })
			}},
			{"undrain half-way", func(w *world) {
				w.drain("host-2", true)
				w.runUntilCrash(25)
				w.store.revive()
				w.drain("host-2", false)
			}},
			restore,
		},
		{
			{"form from a backup", func(w *world) {
				w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.RestoreName = "first" })
				w.restore("first", false, func(s *v1alpha1.EtcdRestoreSpec) { s.Source.Point = v1alpha1.PointLatest })
			}},
			restore,
			{"delete while it is restored", func(w *world) {
				w.restore("again", true)
				w.runUntilCrash(40)
				w.store.revive()
				deleteCluster(w)
			}},
		},
	} {
		for upTo := range phases {
			crashAtEach(t, phases[:upTo], phases[upTo])
		}
	}
}

func crashAtEach(t *testing.T, before []phase, last phase) {
	t.Helper()
	crashes := 0
	for n := 0; ; n++ {
		w := newWorld(3, 4)
		for _, ph := range before {
			ph.edit(w)
			if !w.settle() {
				t.Fatalf("%s did not settle without crashes:\n%s", ph.name, strings.Join(w.events, "\n"))
			}
		}
		last.edit(w)
		died := w.runUntilCrash(n)
		w.restart()
		if !w.settle() {
			w.fail(t)
			t.Fatalf("%s: after a crash before write %d it did not settle:\n%s", last.name, n, strings.Join(w.events, "\n"))
		}
		w.fail(t)
		if !died {
			break
		}
		crashes++
	}
	if crashes < 3 {
		t.Errorf("%s: only %d crash points were met: the test misses its aim", last.name, crashes)
	}
	t.Logf("%s: %d crash points", last.name, crashes)
}

// runUntilCrash goes on until a controller dies before its nth write; false if all was
// done before.
func (w *world) runUntilCrash(n int) bool {
	writes := n
	ctx := context.Background()
	live := func(do func() (time.Duration, error)) bool {
		w.store.dieBeforeWrite(writes)
		_, _ = do()
		if w.store.dead() {
			return false
		}
		writes = w.store.dieIn
		w.store.revive()
		w.checkTold()
		return true
	}
	for range 200 {
		if !live(func() (time.Duration, error) {
			return w.control.Reconcile(ctx, store.Key{Namespace: "default", Name: "c"})
		}) {
			return true
		}
		w.checkOneTask()
		for _, r := range w.listRestores() {
			if !live(func() (time.Duration, error) { return w.restores.Reconcile(ctx, store.KeyOf(r)) }) {
				return true
			}
		}
		for _, m := range w.members() {
			w.agent(m)
		}
		w.elect()
	}
	return false
}

// TestRollingChange: each member is restarted once, leadership moves once.
func TestRollingChange(t *testing.T) {
	for _, replicas := range []int{1, 3, 5} {
		t.Run(strconv.Itoa(replicas), func(t *testing.T) {
			w := newWorld(replicas, 3)
			if !w.settle() {
				t.Fatal("not formed")
			}
			w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Etcd.SnapshotCount = 5000 })
			if !w.settle() {
				t.Fatal("not changed")
			}
			w.fail(t)
			if want := min(replicas-1, 1); w.moves != want {
				t.Errorf("leadership moved %d times, want %d", w.moves, want)
			}
		})
	}
}
