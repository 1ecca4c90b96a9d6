package fleet_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/drivertest"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/fleet"
	placement "github.com/quorate/quorate/fleet/place"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/memory"
	"github.com/quorate/quorate/test/slow"
)

// memoryEtcd reaches the clusters of a driver in memory.
type memoryEtcd struct{ driver *drivertest.Memory }

// Probe implements fleet.Etcd.
func (e memoryEtcd) Probe(_ context.Context, _ *v1alpha1.EtcdCluster, members []*v1alpha1.EtcdMember) (map[string]fleet.Probe, []etcd.Alarm, error) {
	answers := map[string]fleet.Probe{}
	for _, m := range members {
		if m.Spec.Bootstrap == nil || m.Status.ClientURL == "" {
			continue
		}
		p := fleet.Probe{SentAt: time.Now()}
		status, err := e.driver.Status(m)
		if p.Status = status; err != nil {
			p.Err = err.Error()
		}
		answers[m.Name] = p
	}
	return answers, nil, nil
}

// Members implements fleet.Etcd.
func (e memoryEtcd) Members(_ context.Context, _ *v1alpha1.EtcdCluster, via []*v1alpha1.EtcdMember) (members []etcd.Member, err error) {
	err = errors.New("no member answers")
	for _, m := range via {
		if err = e.driver.Through(m, func(c *drivertest.Ensemble, _ string) error {
			members, err = c.Members()
			return err
		}); err == nil {
			return members, nil
		}
	}
	return nil, err
}

// AddLearner implements fleet.Etcd.
func (e memoryEtcd) AddLearner(_ context.Context, _ *v1alpha1.EtcdCluster, via *v1alpha1.EtcdMember, url string) error {
	return e.driver.Through(via, func(c *drivertest.Ensemble, _ string) error { return c.AddLearner(url) })
}

// Promote implements fleet.Etcd.
func (e memoryEtcd) Promote(_ context.Context, _ *v1alpha1.EtcdCluster, via *v1alpha1.EtcdMember, id etcd.ID) error {
	return e.driver.Through(via, func(c *drivertest.Ensemble, _ string) error { return c.Promote(id) })
}

// Remove implements fleet.Etcd.
func (e memoryEtcd) Remove(_ context.Context, _ *v1alpha1.EtcdCluster, via *v1alpha1.EtcdMember, id etcd.ID) error {
	return e.driver.Through(via, func(c *drivertest.Ensemble, _ string) error { return c.Remove(id) })
}

// MoveLeader implements fleet.Etcd.
func (e memoryEtcd) MoveLeader(_ context.Context, _ *v1alpha1.EtcdCluster, leader *v1alpha1.EtcdMember, to etcd.ID) error {
	return e.driver.Through(leader, func(c *drivertest.Ensemble, url string) error { return c.MoveLeader(url, to) })
}

// Forget implements fleet.Etcd.
func (memoryEtcd) Forget(*v1alpha1.EtcdCluster) {}

// crowd is a fleet of many clusters without a process: the real controllers over a store
// and a driver in memory.
type crowd struct {
	t      *testing.T
	store  *memory.Store
	driver *drivertest.Memory

	mu     sync.Mutex
	faults []string
	// left is, by host, the clusters whose members have left it, in order.
	left map[string][]string
	// most clusters that were on their way off one host at a moment.
	most int
}

func newCrowd(t *testing.T) *crowd {
	t.Helper()
	c := &crowd{t: t, store: memory.New(memory.Options{}), left: map[string][]string{}}
	c.driver = drivertest.NewMemory(func(host string) string { return host + ".example" })
	log := slog.New(slog.DiscardHandler)
	clusters := fleet.NewClusterController(fleet.Options{
		Store: c.store, Etcd: memoryEtcd{c.driver}, Authority: noAuthority{}, Releases: oneRelease{}, Recorder: c,
		Logger: log, Busy: 20 * time.Millisecond, Idle: 200 * time.Millisecond,
	})
	members := fleet.NewMemberController(fleet.MemberOptions{
		Store: c.store, Driver: c.driver, Recorder: c, Logger: log, Source: "agent", Interval: 20 * time.Millisecond,
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	watch := func(kind v1alpha1.Kind) fleet.Source {
		return func(ctx context.Context) <-chan store.Key { return c.store.Watch(ctx, kind, "") }
	}
	clustersOfMembers := func(ctx context.Context) <-chan store.Key {
		out := make(chan store.Key)
		go func() {
			defer close(out)
			for key := range c.store.Watch(ctx, v1alpha1.KindMember, "") {
				select {
				case out <- store.Key{Namespace: key.Namespace, Name: key.Name[:strings.LastIndex(key.Name, "-")]}:
				case <-ctx.Done():
				}
			}
		}()
		return out
	}
	for _, r := range []*fleet.Runner{
		{Name: "cluster", Reconcile: clusters.Reconcile, Workers: 8, Logger: log, Sources: []fleet.Source{watch(v1alpha1.KindCluster), clustersOfMembers}},
		{Name: "member", Reconcile: members.Reconcile, Workers: 8, Logger: log, Sources: []fleet.Source{watch(v1alpha1.KindMember)}},
	} {
		wg.Go(func() { r.Run(ctx) })
	}
	wg.Go(func() {
		for range c.store.Watch(ctx, v1alpha1.KindMember, "") {
			c.look(ctx)
		}
	})
	wg.Go(func() {
		for key := range c.store.Watch(ctx, v1alpha1.KindCluster, "") {
			c.judge(ctx, key)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return c
}

// Record implements store.Recorder, and notes who leaves which host.
func (c *crowd) Record(_ context.Context, e store.Event) {
	name, why, _ := strings.Cut(e.Message, ": its host ")
	host, _, drained := strings.Cut(why, " is being drained")
	if e.Reason != string(v1alpha1.ActionRemoveMember) || !drained {
		return
	}
	cluster := e.Namespace + "/" + name[:strings.LastIndex(name, "-")]
	c.mu.Lock()
	defer c.mu.Unlock()
	if left := c.left[host]; !slices.Contains(left, cluster) {
		c.left[host] = append(left, cluster)
	}
}

func (c *crowd) fault(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if text := fmt.Sprintf(format, args...); !slices.Contains(c.faults, text) {
		c.faults = append(c.faults, text)
	}
}

// judge is the law about each cluster: once it is healthy, it stays so.
func (c *crowd) judge(ctx context.Context, key store.Key) {
	o := &v1alpha1.EtcdCluster{}
	if c.store.Get(ctx, key, o) != nil {
		return
	}
	if d := v1alpha1.FindCondition(o.Status.Conditions, v1alpha1.ConditionDegraded); d != nil && d.Status == v1alpha1.True && o.Labels["formed"] != "" {
		c.fault("%s is degraded: %s", key, d.Message)
	}
	if a := v1alpha1.FindCondition(o.Status.Conditions, v1alpha1.ConditionAvailable); a != nil && a.Status != v1alpha1.True && o.Labels["formed"] != "" {
		c.fault("%s is not available: %s", key, a.Message)
	}
}

func list[T any](ctx context.Context, c *crowd, kind v1alpha1.Kind) []T {
	objects, err := c.store.List(ctx, kind, store.ListOptions{})
	if err != nil {
		return nil
	}
	var all []T
	for _, o := range objects {
		if x, ok := o.(T); ok {
			all = append(all, x)
		}
	}
	return all
}

func clusterOf(m *v1alpha1.EtcdMember) string { return m.Namespace + "/" + m.Spec.ClusterName }

// look counts who is on the way off which draining host.
func (c *crowd) look(ctx context.Context) {
	replicas := map[string]int{}
	for _, o := range list[*v1alpha1.EtcdCluster](ctx, c, v1alpha1.KindCluster) {
		replicas[store.KeyOf(o).String()] = int(o.Spec.Replicas)
	}
	there, here := map[string]int{}, map[string]map[string]bool{}
	leaving := map[string]bool{}
	for _, m := range list[*v1alpha1.EtcdMember](ctx, c, v1alpha1.KindMember) {
		cluster := clusterOf(m)
		there[cluster]++
		leaving[cluster] = leaving[cluster] || m.Spec.Leaving || m.DeletionTimestamp != nil
		if here[m.Spec.Host] == nil {
			here[m.Spec.Host] = map[string]bool{}
		}
		here[m.Spec.Host][cluster] = true
	}
	for _, h := range list[*v1alpha1.EtcdHost](ctx, c, v1alpha1.KindHost) {
		if !h.Spec.Drain {
			continue
		}
		var moving []string
		for cluster := range here[h.Name] {
			if there[cluster] > replicas[cluster] || leaving[cluster] {
				moving = append(moving, cluster)
			}
		}
		c.mu.Lock()
		c.most = max(c.most, len(moving))
		c.mu.Unlock()
		if len(moving) > 1 {
			c.fault("off host %s are moving at once: %v", h.Name, moving)
		}
	}
}

func (c *crowd) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *crowd) addHost(i int) {
	h := &v1alpha1.EtcdHost{Spec: v1alpha1.EtcdHostSpec{
		Address: fmt.Sprintf("10.0.0.%d", i+1), Zone: fmt.Sprintf("zone-%d", i%4),
		Capacity: &v1alpha1.Resources{CPU: resource.MustParse("8"), Memory: resource.MustParse("16Gi"), Disk: resource.MustParse("100Gi")},
	}}
	h.Name = fmt.Sprintf("host-%02d", i)
	v1alpha1.SetType(h, v1alpha1.KindHost.Kind, v1alpha1.KindHost.APIVersion)
	c.must(schema.Default(h))
	c.must(c.store.Create(c.t.Context(), h))
	h.Status.Platform = "linux/amd64"
	v1alpha1.SetCondition(&h.Status.Conditions, v1alpha1.Condition{Type: v1alpha1.ConditionReady, Status: v1alpha1.True, Reason: "AgentReports"})
	c.must(c.store.UpdateStatus(c.t.Context(), h))
}

func (c *crowd) addCluster(i int, class v1alpha1.ServiceClass, replicas int32, mode v1alpha1.FormationMode) {
	o := &v1alpha1.EtcdCluster{Spec: v1alpha1.EtcdClusterSpec{Version: "3.7.3", Replicas: replicas, Class: class}}
	o.Namespace, o.Name = fmt.Sprintf("team-%d", i%3), fmt.Sprintf("c%02d", i)
	o.Spec.Formation.Mode = mode
	v1alpha1.SetType(o, v1alpha1.KindCluster.Kind, v1alpha1.KindCluster.APIVersion)
	c.must(schema.Default(o))
	c.must(c.store.Create(c.t.Context(), o))
}

// await waits until what holds; the store tells when there is something to look at.
func (c *crowd) await(what string, holds func() string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		why := holds()
		if why == "" {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			c.t.Fatalf("%s: %s\n%s", what, why, strings.Join(c.faults, "\n"))
		}
	}
}

// healthy says which clusters are not at rest with all their members.
func (c *crowd) healthy() string {
	there := map[string]int{}
	for _, m := range list[*v1alpha1.EtcdMember](c.t.Context(), c, v1alpha1.KindMember) {
		there[clusterOf(m)]++
	}
	var not []string
	for _, o := range list[*v1alpha1.EtcdCluster](c.t.Context(), c, v1alpha1.KindCluster) {
		if n := there[store.KeyOf(o).String()]; o.Status.Summary != "Healthy" || n != int(o.Spec.Replicas) {
			p := v1alpha1.FindCondition(o.Status.Conditions, v1alpha1.ConditionProgressing)
			not = append(not, fmt.Sprintf("%s: %s, %d of %d members, %+v", store.KeyOf(o), o.Status.Summary, n, o.Spec.Replicas, p))
		}
	}
	if len(not) == 0 {
		return ""
	}
	return fmt.Sprintf("%d are not healthy, such as %s", len(not), not[0])
}

func (c *crowd) edit(host string, change func(*v1alpha1.EtcdHostSpec)) {
	c.t.Helper()
	c.must(store.Mutate(c.t.Context(), c.store, store.Key{Name: host}, &v1alpha1.EtcdHost{}, func(h *v1alpha1.EtcdHost) (bool, error) {
		change(&h.Spec)
		return true, nil
	}))
}

// check holds the fleet against the rules of placement.
func (c *crowd) check(when string) {
	c.t.Helper()
	clusters := map[string]*v1alpha1.EtcdCluster{}
	var requests []placement.Request
	for _, o := range list[*v1alpha1.EtcdCluster](c.t.Context(), c, v1alpha1.KindCluster) {
		clusters[store.KeyOf(o).String()] = o
		requests = append(requests, placement.Request{
			Cluster: store.KeyOf(o).String(), Class: o.Spec.Class, Requests: placement.AmountsOf(v1alpha1.Resources(o.Spec.Resources)),
			Placement: o.Spec.Placement, Replicas: int(o.Spec.Replicas),
		})
	}
	on := map[string][]placement.Member{}
	for _, m := range list[*v1alpha1.EtcdMember](c.t.Context(), c, v1alpha1.KindMember) {
		on[m.Spec.Host] = append(on[m.Spec.Host], placement.Member{
			Name: m.Name, Cluster: clusterOf(m), Class: clusters[clusterOf(m)].Spec.Class, Requests: placement.AmountsOf(m.Spec.Resources),
		})
	}
	var hosts []placement.Host
	for _, h := range list[*v1alpha1.EtcdHost](c.t.Context(), c, v1alpha1.KindHost) {
		hosts = append(hosts, placement.Host{
			Name: h.Name, Zone: h.Spec.Zone, Pool: h.Spec.Pool, Capacity: placement.AmountsOf(h.Offers()), Overcommit: int64(h.Spec.OvercommitPercent),
			Members: on[h.Name],
		})
	}
	for _, v := range placement.Check(hosts, requests...) {
		c.t.Errorf("%s: %s", when, v.Text)
	}
}

// TestFleetDrains: 100 clusters of all classes on 40 hosts, through the real controllers. Hosts
// are drained one after the other: each is emptied in order, one cluster at a time; no
// cluster is ever degraded or without a quorum, and the rules of placement hold.
func TestFleetDrains(t *testing.T) {
	slow.Only(t)
	const hosts, spare, clusters = 40, 4, 100
	began := time.Now()
	c := newCrowd(t)
	for i := range hosts {
		c.addHost(i)
		if i >= hosts-spare {
			c.edit(fmt.Sprintf("host-%02d", i), func(h *v1alpha1.EtcdHostSpec) { h.Unschedulable = true })
		}
	}
	const guaranteed = 4
	for i := range clusters {
		class, replicas, mode := v1alpha1.ClassBurstable, int32(3), v1alpha1.FormationStatic
		switch {
		case i < guaranteed:
			class = v1alpha1.ClassGuaranteed
		case i%4 == 0:
			class = v1alpha1.ClassBestEffort
		}
		switch i % 10 {
		case 7:
			replicas = 1
		case 8, 9:
			replicas = 5
		}
		if i%5 == 0 {
			mode = v1alpha1.FormationSequential
		}
		c.addCluster(i, class, replicas, mode)
		if i == guaranteed-1 {
			c.await("the first are formed", c.healthy)
		}
	}
	c.await("all are formed", c.healthy)
	formed := time.Since(began)
	c.check("formed")
	for _, o := range list[*v1alpha1.EtcdCluster](t.Context(), c, v1alpha1.KindCluster) {
		c.must(store.Mutate(t.Context(), c.store, store.KeyOf(o), &v1alpha1.EtcdCluster{}, func(o *v1alpha1.EtcdCluster) (bool, error) {
			o.Labels = map[string]string{"formed": "yes"}
			return true, nil
		}))
	}
	for i := hosts - spare; i < hosts; i++ {
		c.edit(fmt.Sprintf("host-%02d", i), func(h *v1alpha1.EtcdHostSpec) { h.Unschedulable = false })
	}
	moves := 0
	for _, host := range c.victims() {
		var want []string
		byKey := map[string]*v1alpha1.EtcdCluster{}
		for _, o := range list[*v1alpha1.EtcdCluster](t.Context(), c, v1alpha1.KindCluster) {
			byKey[store.KeyOf(o).String()] = o
		}
		for _, m := range list[*v1alpha1.EtcdMember](t.Context(), c, v1alpha1.KindMember) {
			if m.Spec.Host == host {
				want = append(want, clusterOf(m))
			}
		}
		rank := map[v1alpha1.ServiceClass]int{v1alpha1.ClassBestEffort: 0, v1alpha1.ClassBurstable: 1, v1alpha1.ClassGuaranteed: 2}
		slices.SortFunc(want, func(a, b string) int {
			return cmp.Or(cmp.Compare(rank[byKey[a].Spec.Class], rank[byKey[b].Spec.Class]), strings.Compare(byKey[a].Namespace, byKey[b].Namespace), strings.Compare(a, b))
		})
		want = slices.Compact(want)
		moves += len(want)
		c.edit(host, func(h *v1alpha1.EtcdHostSpec) { h.Drain = true })
		c.await(host+" is empty", func() string {
			for _, m := range list[*v1alpha1.EtcdMember](t.Context(), c, v1alpha1.KindMember) {
				if m.Spec.Host == host {
					return m.Name + " is there"
				}
			}
			return c.healthy()
		})
		c.mu.Lock()
		if got := c.left[host]; !slices.Equal(got, want) {
			t.Errorf("from %s went\n%v, want\n%v", host, got, want)
		}
		c.mu.Unlock()
		c.check(host + " is drained")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, fault := range c.faults {
		t.Error(fault)
	}
	for _, lost := range c.driver.QuorumLost() {
		t.Error(lost)
	}
	if moves < 8 || c.most == 0 {
		t.Errorf("only %d members were moved: the test misses its aim", moves)
	}
	t.Logf("%d clusters were formed on %d hosts in %.1f s; 4 hosts were drained of %d members in %.1f s, at most %d cluster at a time", clusters, hosts,
		formed.Seconds(), moves, (time.Since(began) - formed).Seconds(), c.most)
}

// victims are four hosts to drain: one with a Guaranteed member, and those with most.
func (c *crowd) victims() []string {
	on := map[string]int{}
	guaranteed := ""
	for _, m := range list[*v1alpha1.EtcdMember](c.t.Context(), c, v1alpha1.KindMember) {
		on[m.Spec.Host]++
		if m.Spec.Class == v1alpha1.ClassGuaranteed {
			guaranteed = m.Spec.Host
		}
	}
	var names []string
	for name := range on {
		if name != guaranteed {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(on[b], on[a]), strings.Compare(a, b)) })
	return append([]string{guaranteed}, names[:3]...)
}
