package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/drivertest"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/store"
)

// memberWorld is what a world needs for members that join and leave.
type memberWorld struct {
	// ensembles by the token that they were founded with.
	ensembles map[string]*drivertest.Ensemble
	// refuse lets etcd find itself unhealthy, as it does within 5 s of a start, and lossy
	// lets answers to changes get lost that were made.
	refuse, lossy bool
	// slow keeps learners from catching up; refused are members whose hosts refuse them.
	slow    bool
	refused map[string]bool
	// names that members of a cluster had, with their UIDs: none comes twice.
	names map[string]v1alpha1.UID
	// added and removed count what was done.
	added, removed, promoted int
}

func newMemberWorld() memberWorld {
	return memberWorld{ensembles: map[string]*drivertest.Ensemble{}, refused: map[string]bool{}, names: map[string]v1alpha1.UID{}}
}

func peerURL(member string) string { return "https://" + member + ":2" }

func memberAt(url string) string {
	return strings.TrimSuffix(strings.TrimPrefix(url, "https://"), ":2")
}

// isUp reports whether a member's process answers.
func (w *world) isUp(name string) bool {
	p := w.procs[name]
	return p != nil && !p.booting && !w.broken[p.hash]
}

// ensemble is the cluster that the objects speak of, or nil.
func (w *world) ensemble() *drivertest.Ensemble {
	for _, m := range w.members() {
		if p := w.procs[m.Name]; p != nil {
			return w.ensembles[p.token]
		}
	}
	return nil
}

// ensembleOf is the one that the member is or was told to be of.
func (w *world) ensembleOf(m *v1alpha1.EtcdMember) *drivertest.Ensemble {
	if m.Spec.Bootstrap == nil {
		return nil
	}
	return w.ensembles[m.Spec.Bootstrap.Token]
}

// join is etcd starting: it finds its place among the members, or ends.
func (w *world) join(m *v1alpha1.EtcdMember) error {
	b := m.Spec.Bootstrap
	e := w.ensembles[b.Token]
	if e == nil {
		if b.State == v1alpha1.BootstrapExisting {
			return errors.New("there is no cluster to join")
		}
		e = drivertest.NewEnsemble(b.Token, b.InitialCluster, func(url string) bool {
			p := w.procs[memberAt(url)]
			return p != nil && p.token == b.Token && w.isUp(memberAt(url))
		})
		w.ensembles[b.Token] = e
	}
	return e.Start(m.Name, peerURL(m.Name))
}

// call is one request that changes the members: it may be refused, and its answer may get
// lost.
func (w *world) call(via *v1alpha1.EtcdMember, do func(e *drivertest.Ensemble) error) error {
	e := w.ensembleOf(via)
	switch {
	case e == nil || !w.isUp(via.Name):
		return errors.New("connection refused")
	case w.refuse:
		return drivertest.ErrUnhealthy
	}
	err := do(e)
	if err == nil && w.lossy {
		w.lossy = false
		return errors.New("context deadline exceeded")
	}
	return err
}

// Members implements fleet.Etcd.
func (w *world) Members(_ context.Context, _ *v1alpha1.EtcdCluster, via []*v1alpha1.EtcdMember) ([]etcd.Member, error) {
	for _, m := range via {
		if e := w.ensembleOf(m); e != nil && w.isUp(m.Name) {
			return e.Members()
		}
	}
	return nil, errors.New("connection refused")
}

// AddLearner implements fleet.Etcd.
func (w *world) AddLearner(_ context.Context, _ *v1alpha1.EtcdCluster, via *v1alpha1.EtcdMember, url string) error {
	return w.call(via, func(e *drivertest.Ensemble) error {
		w.added++
		return e.AddLearner(url)
	})
}

// Promote implements fleet.Etcd, and is the law: etcd promotes the dead, Quorate does not.
func (w *world) Promote(_ context.Context, _ *v1alpha1.EtcdCluster, via *v1alpha1.EtcdMember, id etcd.ID) error {
	return w.call(via, func(e *drivertest.Ensemble) error {
		all, up := e.Voters()
		members, _ := e.Members()
		for _, m := range members {
			if m.ID == id && m.Learner && (!e.Up(m.PeerURLs[0]) || !e.InSync(m.PeerURLs[0]) || up < all) {
				w.faults = append(w.faults, fmt.Sprintf("%s is promoted: up %v, in sync %v, %d of %d voters are up", m.Name, e.Up(m.PeerURLs[0]), e.InSync(m.PeerURLs[0]), up, all))
			}
		}
		w.promoted++
		return e.Promote(id)
	})
}

// Remove implements fleet.Etcd, and is the law: a voter goes only when the others are a
// healthy quorum, and as many as are wanted.
func (w *world) Remove(_ context.Context, c *v1alpha1.EtcdCluster, via *v1alpha1.EtcdMember, id etcd.ID) error {
	return w.call(via, func(e *drivertest.Ensemble) error {
		members, _ := e.Members()
		others, up := 0, 0
		voter := ""
		for _, m := range members {
			switch {
			case m.ID == id && !m.Learner:
				voter = m.Name
			case !m.Learner:
				others++
				if e.Up(m.PeerURLs[0]) {
					up++
				}
			}
		}
		if voter != "" && (up < others || others < int(c.Spec.Replicas)) {
			w.faults = append(w.faults, fmt.Sprintf("%s is removed while %d of %d others are up, of %d wanted", voter, up, others, c.Spec.Replicas))
		}
		if voter != "" && e.Leader() == peerURL(voter) {
			w.faults = append(w.faults, voter+" leads and is removed")
		}
		err := e.Remove(id)
		for _, m := range members {
			if m.ID == id && err == nil {
				w.removed++
				delete(w.procs, memberAt(m.PeerURLs[0])) // etcd ends by itself
			}
		}
		return err
	})
}

// drain says whether a host is to be emptied.
func (w *world) drain(host string, drain bool) {
	w.must(store.Mutate(context.Background(), w.store, store.Key{Name: host}, &v1alpha1.EtcdHost{}, func(h *v1alpha1.EtcdHost) (bool, error) {
		h.Spec.Drain = drain
		return true, nil
	}))
}

func (w *world) draining(host string) bool {
	h := &v1alpha1.EtcdHost{}
	w.must(w.store.get(store.Key{Name: host}, h))
	return h.Spec.Drain
}

// settled says what is wrong with who the members are; empty if nothing is.
func (w *world) settled(c *v1alpha1.EtcdCluster) string {
	e := w.ensemble()
	if e == nil {
		return "no cluster"
	}
	objects, _ := w.store.list(v1alpha1.KindTask, store.ListOptions{})
	for _, o := range objects {
		if t, _ := o.(*v1alpha1.EtcdTask); !t.Finished() {
			return "unfinished task " + t.Name
		}
	}
	if all, up := e.Voters(); all != int(c.Spec.Replicas) || up != all {
		return fmt.Sprintf("%d voters, %d of them up", all, up)
	}
	if members, _ := e.Members(); len(members) != int(c.Spec.Replicas) {
		return fmt.Sprintf("%d members", len(members))
	}
	for _, m := range w.members() {
		switch is, learner := e.Has(peerURL(m.Name)); {
		case !is || learner:
			return m.Name + " is no voter"
		case w.draining(m.Spec.Host):
			return m.Name + " stands on a draining host"
		case m.Spec.Leaving:
			return m.Name + " is said to leave"
		}
	}
	return ""
}

// lose takes a machine away, with all that runs on it.
func (w *world) lose(host string) {
	w.setHost(host, false)
	for _, m := range w.members() {
		if m.Spec.Host == host {
			delete(w.procs, m.Name)
			w.disturbed++
		}
	}
	w.elect()
}

// refuseLearner has the host of a learner refuse it from now on.
func (w *world) refuseLearner() {
	e := w.ensemble()
	for _, m := range w.members() {
		if e == nil {
			return
		}
		if _, learner := e.Has(peerURL(m.Name)); learner {
			w.refused[m.Name] = true
			delete(w.procs, m.Name)
		}
	}
}

// spare lets at least one host take members.
func (w *world) spare(hosts int) {
	for i := range hosts {
		if !w.draining(fmt.Sprintf("host-%d", i)) {
			return
		}
	}
	w.drain("host-0", false)
}

// hitches are the things that may come in the way of a member that joins.
const hitches = 5

func (w *world) hitch(n int) {
	switch n {
	case 0:
		w.refuse = !w.refuse
	case 1:
		w.lossy = true
	case 2:
		w.slow = !w.slow
	case 3:
		w.clock = w.clock.Add(2 * time.Minute)
	default:
		w.refuseLearner()
	}
}

// TestAnyDrainConverges is TestAnyHistoryConverges for clusters that serve, whose hosts
// are drained, and not any more, lost and found, in any order, with crashes of the
// controller at any write and whatever etcd may say.
func TestAnyDrainConverges(t *testing.T) {
	added, promoted, removed := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		hosts := rapid.IntRange(2, 6).Draw(t, "hosts")
		w := newWorld(rapid.SampledFrom([]int{1, 2, 3, 4, 5}).Draw(t, "replicas"), hosts)
		if rapid.Bool().Draw(t, "sequential") {
			w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Formation.Mode = v1alpha1.FormationSequential })
		}
		if !w.settle() {
			w.fail(t)
			t.Fatalf("was not formed: %s\n%s", w.settled(w.cluster()), strings.Join(w.events, "\n"))
		}
		aHost := func() string { return fmt.Sprintf("host-%d", rapid.IntRange(0, hosts-1).Draw(t, "host")) }
		for i := range rapid.IntRange(20, 150).Draw(t, "steps") {
			w.clock = w.clock.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
			switch rapid.IntRange(0, 47).Draw(t, "what") {
			case 0, 1, 2:
				w.drain(aHost(), true)
			case 3:
				w.drain(aHost(), false)
			case 4:
				w.lose(aHost())
			case 5, 6:
				host := aHost()
				w.setHost(host, w.silent[host])
			case 7, 8:
				w.hitch(rapid.IntRange(0, hitches-1).Draw(t, "hitch"))
			case 9, 10, 11:
				w.crashIn = rapid.IntRange(1, 7).Draw(t, "writes")
			case 12:
				w.delay = !w.delay
			case 13:
				w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Etcd.SnapshotCount = int64(1000 + i) })
			case 14:
				w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Suspended = !s.Suspended })
			case 15:
				all := w.members()
				delete(w.procs, all[rapid.IntRange(0, len(all)-1).Draw(t, "victim")].Name)
				w.disturbed++
				w.elect()
			case 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26:
				for _, m := range w.members() {
					w.agent(m)
				}
			default:
				w.reconcile()
			}
			w.fail(t)
		}
		w.restart()
		w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Suspended = false })
		w.spare(hosts)
		if !w.settle() {
			w.fail(t)
			p, err := w.control.Plan(context.Background(), store.Key{Namespace: "default", Name: "c"}, nil)
			t.Fatalf("did not settle: %s, plan %+v %v\nevents:\n%s", w.settled(w.cluster()), p, err, strings.Join(w.events, "\n"))
		}
		w.fail(t)
		added, promoted, removed = added+w.added, promoted+w.promoted, removed+w.removed
	})
	t.Logf("%d learners were added, %d promoted, %d members removed", added, promoted, removed)
	if enough := 20; !t.Failed() && min(added, promoted, removed) < enough {
		t.Error("too few members joined and left: the test misses its aim")
	}
}

// untilAdded drains a host until etcd has been told of the member that is to come, and the
// answer got lost.
func untilAdded(t *testing.T, w *world) *v1alpha1.EtcdMember {
	t.Helper()
	if !w.settle() {
		t.Fatal("was not formed")
	}
	w.drain("host-0", true)
	for range 100 {
		w.lossy = w.added == 0
		w.reconcile()
		for _, m := range w.members() {
			w.agent(m)
		}
		if w.added > 0 {
			all := w.members()
			m := all[len(all)-1]
			if len(m.Spec.Bootstrap.InitialCluster) > 0 {
				t.Fatalf("%s was told, though the answer got lost", m.Name)
			}
			return m
		}
	}
	t.Fatal("no learner was added")
	return nil
}

// TestAddedUnseenIsNotForgotten: etcd was told of a member, and nobody knows. While etcd
// can't be asked, that member is not deleted: etcd would list one that there is not.
func TestAddedUnseenIsNotForgotten(t *testing.T) {
	w := newWorld(3, 4)
	m := untilAdded(t, w)
	w.restart()
	w.drain("host-0", false) // it is not needed any more
	for _, host := range []string{"host-0", "host-1", "host-2", "host-3"} {
		w.lose(host)
	}
	for range 20 {
		w.clock = w.clock.Add(10 * time.Second)
		w.reconcile()
		if now := w.members(); now[len(now)-1].Name != m.Name || now[len(now)-1].DeletionTimestamp != nil {
			t.Fatalf("%s is deleted, and etcd lists it:\n%s", m.Name, strings.Join(w.events, "\n"))
		}
	}
	if !w.settle() {
		t.Fatalf("did not settle: %s\n%s", w.settled(w.cluster()), strings.Join(w.events, "\n"))
	}
	w.fail(t)
}

// TestLearnerWantedAgain: a learner that was about to be removed, and was stopped with its
// cluster, is started again when it is wanted again.
func TestLearnerWantedAgain(t *testing.T) {
	w := newWorld(3, 4)
	m := untilAdded(t, w)
	w.restart()
	for range 20 {
		w.slow = true // it does not catch up
		w.reconcile()
		for _, m := range w.members() {
			w.agent(m)
		}
	}
	w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Suspended = true })
	for range 20 {
		w.reconcile()
		for _, m := range w.members() {
			w.agent(m)
		}
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(store.Mutate(context.Background(), w.store, store.KeyOf(m), &v1alpha1.EtcdMember{}, func(m *v1alpha1.EtcdMember) (bool, error) {
		if m.Spec.Run != v1alpha1.RunStopped {
			t.Fatalf("%s is not stopped with its cluster: %+v", m.Name, m.Spec)
		}
		m.Spec.Leaving = true // as a removal leaves it that was broken off
		return true, nil
	}))
	w.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Suspended = false })
	if !w.settle() {
		t.Fatalf("did not settle: %s\n%s", w.settled(w.cluster()), strings.Join(w.events, "\n"))
	}
	w.fail(t)
}
