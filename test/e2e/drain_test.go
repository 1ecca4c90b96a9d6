package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/internal/version"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/test/fleetlab"
	"github.com/quorate/quorate/test/netlab"
)

// scribe writes to one cluster all the time, a little.
type scribe struct {
	cluster string
	client  *clientv3.Client

	mu sync.Mutex
	// written are the keys whose puts were acknowledged, and failed what others met.
	written, failed []string
}

func (s *scribe) write(ctx context.Context) {
	every := time.NewTicker(300 * time.Millisecond)
	defer every.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		key := fmt.Sprintf("key-%05d", n)
		put, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, err := s.client.Put(put, key, s.cluster)
		cancel()
		if ctx.Err() != nil {
			return
		}
		s.mu.Lock()
		if err == nil {
			s.written = append(s.written, key)
		} else {
			s.failed = append(s.failed, err.Error())
		}
		s.mu.Unlock()
	}
}

// move is what one cluster went through while a host was drained, until etcd had removed
// the member that was there.
type move struct {
	cluster  string
	from, to time.Time
	leaders  int
	removed  string
}

// movesOf reads the moves of clusters from the tasks that were finished since, in the
// order in which they began.
func movesOf(ctx context.Context, t *testing.T, l *fleetlab.Lab, since time.Time) []move {
	t.Helper()
	objects, err := l.Client.List(ctx, v1alpha1.KindTask, store.ListOptions{Namespace: fleetlab.Namespace})
	must(t, err)
	by := map[string]*move{}
	for _, o := range objects {
		task, ok := o.(*v1alpha1.EtcdTask)
		if !ok || task.Status.FinishedAt == nil || task.Status.FinishedAt.Time.Before(since) || task.Status.Phase != v1alpha1.TaskSucceeded {
			continue
		}
		m := by[task.Spec.ClusterName]
		if m == nil {
			m = &move{cluster: task.Spec.ClusterName, from: task.Status.FinishedAt.Time}
			by[m.cluster] = m
		}
		if task.Status.FinishedAt.Time.Before(m.from) {
			m.from = task.Status.FinishedAt.Time
		}
		switch task.Spec.Action {
		case v1alpha1.ActionMoveLeader:
			m.leaders++
		case v1alpha1.ActionRemoveMember:
			// The task that deletes it is finished a moment after the member is gone, which
			// is when the next cluster may begin.
			m.removed, m.to = task.Spec.Member, task.Status.FinishedAt.Time
		default:
		}
	}
	var moves []move
	for _, m := range by {
		if m.removed != "" {
			moves = append(moves, *m)
		}
	}
	slices.SortFunc(moves, func(a, b move) int { return a.from.Compare(b.from) })
	return moves
}

// TestDrainOnNetlab: ten real clusters on five hosts, each a machine of its own with its own
// agent. One host is drained while every cluster is written to: it is emptied in order, one
// cluster at a time, and nobody notices more than the changes of leader that were planned.
func TestDrainOnNetlab(t *testing.T) {
	const clusters, host = 10, "h1"
	var hosts []netlab.HostSpec
	for i := range 5 {
		hosts = append(hosts, netlab.HostSpec{Name: fmt.Sprintf("h%d", i+1), Zone: "z"})
	}
	l := fleetlab.New(t, hosts)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	check := false
	var names []string
	for i := range clusters {
		c := &v1alpha1.EtcdCluster{Spec: v1alpha1.EtcdClusterSpec{Version: version.Etcd(), Replicas: 3}}
		c.Name = fmt.Sprintf("c%d", i)
		c.Spec.Placement.Spread = v1alpha1.SpreadRequired
		c.Spec.Etcd.InitialCorruptCheck = &check
		// Thirty members share this machine's cores with everything else.
		c.Spec.Etcd.HeartbeatInterval, c.Spec.Etcd.ElectionTimeout = "500ms", "5s"
		l.Create(c)
		l.Healthy(c.Name)
		names = append(names, c.Name)
	}
	var scribes []*scribe
	var writing sync.WaitGroup
	for _, name := range names {
		s := &scribe{cluster: name, client: l.Dial(name)}
		scribes = append(scribes, s)
		writing.Go(func() { s.write(ctx) })
	}
	var want []string
	for _, name := range names {
		if slices.ContainsFunc(l.Members(name), func(m *v1alpha1.EtcdMember) bool { return m.Spec.Host == host }) {
			want = append(want, name)
		}
	}
	before := map[string]time.Time{}
	for _, name := range names {
		before[name] = degradedSince(t, l, name)
	}

	began := time.Now()
	must(t, store.Mutate(ctx, l.Client, store.Key{Name: host}, &v1alpha1.EtcdHost{}, func(h *v1alpha1.EtcdHost) (bool, error) {
		h.Spec.Drain = true
		return true, nil
	}))
	l.Eventually(func(ctx context.Context) error {
		objects, err := l.Client.List(ctx, v1alpha1.KindMember, store.ListOptions{Namespace: fleetlab.Namespace})
		if err != nil {
			return err
		}
		for _, o := range objects {
			if m, ok := o.(*v1alpha1.EtcdMember); ok && m.Spec.Host == host {
				p := v1alpha1.FindCondition(l.Cluster(m.Spec.ClusterName).Status.Conditions, v1alpha1.ConditionProgressing) //nolint:contextcheck // the lab has the test's
				return fmt.Errorf("%s is still on %s: %+v", m.Name, host, p)
			}
		}
		return nil
	})
	took := time.Since(began)
	l.Healthy(names...)

	cancel()
	writing.Wait()
	moves := movesOf(t.Context(), t, l, began)
	var got []string
	for i, m := range moves {
		got = append(got, m.cluster)
		if i > 0 && m.from.Before(moves[i-1].to) {
			t.Errorf("%s began to move at %s, before %s was done at %s", m.cluster, m.from, moves[i-1].cluster, moves[i-1].to)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("from %s went %v, want %v", host, got, want)
	}
	for _, name := range names {
		if is := degradedSince(t, l, name); !is.Equal(before[name]) {
			t.Errorf("cluster %s was degraded meanwhile: the condition last changed at %s, and before at %s", name, is, before[name])
		}
	}
	acknowledged, failures := 0, 0
	for _, s := range scribes {
		i := slices.IndexFunc(moves, func(m move) bool { return m.cluster == s.cluster })
		allowed := 0
		if i >= 0 {
			allowed = 2
		}
		if len(s.failed) > allowed {
			t.Errorf("%d writes to %s failed, want at most %d: %v", len(s.failed), s.cluster, allowed, s.failed)
		}
		acknowledged, failures = acknowledged+len(s.written), failures+len(s.failed)
		s.complete(t)
	}
	t.Logf("%d clusters left %s one after the other in %.1f s; of %d writes %d failed, and all that were acknowledged are there",
		len(moves), host, took.Seconds(), acknowledged+failures, failures)
}

// complete looks for all that was acknowledged.
func (s *scribe) complete(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, err := s.client.Get(ctx, "key-", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	must(t, err)
	there := map[string]bool{}
	for _, kv := range r.Kvs {
		there[string(kv.Key)] = true
	}
	for _, key := range s.written {
		if !there[key] {
			t.Errorf("%s has lost %s, which was acknowledged", s.cluster, key)
		}
	}
	if len(s.written) == 0 {
		t.Errorf("nothing was written to %s: the test misses its aim", s.cluster)
	}
}

// degradedSince is when the condition last changed, which it has to be False at.
func degradedSince(t *testing.T, l *fleetlab.Lab, cluster string) time.Time {
	t.Helper()
	c := v1alpha1.FindCondition(l.Cluster(cluster).Status.Conditions, v1alpha1.ConditionDegraded)
	if c == nil || c.Status != v1alpha1.False {
		t.Fatalf("cluster %s: %+v", cluster, c)
	}
	return c.LastTransitionTime.Time
}
