package fleet_test

import (
	"context"
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
// act, and in the end everything is as wanted.
func TestAnyHistoryConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		replicas := rapid.SampledFrom([]int{1, 2, 3, 4, 5, 7}).Draw(t, "replicas")
		w := newWorld(replicas, rapid.IntRange(1, 3).Draw(t, "hosts"))
		steps := rapid.IntRange(10, 150).Draw(t, "steps")
		deleted := false
		for i := range steps {
			w.clock = w.clock.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
			members := w.members()
			switch rapid.IntRange(0, 19).Draw(t, "what") {
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
			case 8, 9, 10, 11, 12:
				if len(members) > 0 {
					w.agent(members[rapid.IntRange(0, len(members)-1).Draw(t, "agent")])
				}
			default:
				w.reconcile()
			}
			w.fail(t)
		}
		w.restart()
		if !w.settle() {
			t.Fatalf("did not settle: serving %v, cluster %+v\nevents:\n%s", w.serving(), w.cluster(), strings.Join(w.events, "\n"))
		}
		w.fail(t)
	})
}

// TestEveryCrashPoint: a controller that dies before its nth write, for every n
// there is in forming, changing, suspending, resuming and deleting a cluster, is
// followed by one that finishes.
func TestEveryCrashPoint(t *testing.T) {
	phases := []struct {
		name string
		edit func(w *world)
	}{
		{"form", func(*world) {}},
		{"change", func(w *world) { w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Etcd.SnapshotCount = 5000 }) }},
		{"suspend", func(w *world) { w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Suspended = true }) }},
		{"resume", func(w *world) { w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Suspended = false }) }},
		{"delete", func(w *world) {
			c := w.cluster()
			w.must(w.store.Delete(context.Background(), v1alpha1.KindCluster, store.KeyOf(c), store.Preconditions{UID: c.UID}))
		}},
	}
	for upTo := range phases {
		crashes := 0
		for n := 0; ; n++ {
			w := newWorld(3, 3)
			for _, ph := range phases[:upTo] {
				ph.edit(w)
				if !w.settle() {
					t.Fatalf("%s did not settle without crashes:\n%s", ph.name, strings.Join(w.events, "\n"))
				}
			}
			phases[upTo].edit(w)
			died := w.runUntilCrash(n)
			w.restart()
			if !w.settle() {
				t.Fatalf("%s: after a crash before write %d it did not settle:\n%s", phases[upTo].name, n, strings.Join(w.events, "\n"))
			}
			w.fail(t)
			if !died {
				break
			}
			crashes++
		}
		if crashes < 3 {
			t.Errorf("%s: only %d crash points were met: the test misses its aim", phases[upTo].name, crashes)
		}
		t.Logf("%s: %d crash points", phases[upTo].name, crashes)
	}
}

// runUntilCrash goes on until the controller dies before its nth write; false if
// all was done before.
func (w *world) runUntilCrash(n int) bool {
	writes := n
	for range 200 {
		w.store.dieBeforeWrite(writes)
		_, _ = w.control.Reconcile(context.Background(), store.Key{Namespace: "default", Name: "c"})
		if w.store.dead() {
			return true
		}
		writes = w.store.dieIn
		w.store.revive()
		w.checkOneTask()
		for _, m := range w.members() {
			w.agent(m)
		}
		w.elect()
		if w.asWanted() {
			// Two more rounds, in which what is left over is written.
			if writes > n-1 && n > 60 {
				return false
			}
		}
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
