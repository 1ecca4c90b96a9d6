package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/fleet"
	placing "github.com/quorate/quorate/fleet/place"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/memory"
)

// staleStore lists the members of the whole fleet as they were at first, for as many lists
// as it is told; and it runs before the first one that is not.
type staleStore struct {
	store.Store

	mu    sync.Mutex
	stale int
	old   []v1alpha1.Object
}

func (s *staleStore) List(ctx context.Context, kind v1alpha1.Kind, opts store.ListOptions) ([]v1alpha1.Object, error) {
	if kind.Kind != v1alpha1.KindMember.Kind || opts.Labels != nil {
		return s.Store.List(ctx, kind, opts)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stale > 0 {
		s.stale--
		return s.old, nil
	}
	return s.Store.List(ctx, kind, opts)
}

// noEtcd answers nothing: the clusters of these tests are never started.
type noEtcd struct{ fleet.Etcd }

func (noEtcd) Probe(context.Context, *v1alpha1.EtcdCluster, []*v1alpha1.EtcdMember) (map[string]fleet.Probe, []etcd.Alarm, error) {
	return nil, nil, nil
}
func (noEtcd) Forget(*v1alpha1.EtcdCluster) {}

type placingLab struct {
	t       *testing.T
	store   *staleStore
	control *fleet.ClusterController
}

func newPlacingLab(t *testing.T) *placingLab {
	t.Helper()
	st := &staleStore{Store: memory.New(memory.Options{})}
	return &placingLab{t: t, store: st, control: fleet.NewClusterController(fleet.Options{
		Store: st, Etcd: noEtcd{}, Authority: noAuthority{}, Releases: oneRelease{}, Recorder: noRecorder{}, Logger: slog.New(slog.DiscardHandler),
	})}
}

type noRecorder struct{}

func (noRecorder) Record(context.Context, store.Event) {}

func (l *placingLab) fine(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// host that offers as many cores.
func (l *placingLab) host(name, cores string, change func(*v1alpha1.EtcdHost)) {
	l.t.Helper()
	h := &v1alpha1.EtcdHost{Spec: v1alpha1.EtcdHostSpec{Address: "10.0.0.1", Capacity: &v1alpha1.Resources{CPU: resource.MustParse(cores)}}}
	h.Name = name
	h.Status.Platform = "linux/amd64"
	v1alpha1.SetCondition(&h.Status.Conditions, v1alpha1.Condition{Type: v1alpha1.ConditionReady, Status: v1alpha1.True, Reason: "AgentReports"})
	if change != nil {
		change(h)
	}
	l.fine(l.store.Create(l.t.Context(), h))
}

func (l *placingLab) cluster(name string, replicas int32, change func(*v1alpha1.EtcdClusterSpec)) store.Key {
	l.t.Helper()
	c := &v1alpha1.EtcdCluster{Spec: v1alpha1.EtcdClusterSpec{
		Version: "3.7.3", Replicas: replicas, Class: v1alpha1.ClassBurstable, DeletionPolicy: v1alpha1.DeletionRetain,
		Resources: v1alpha1.MemberResources{CPU: resource.MustParse("1")},
	}}
	c.Namespace, c.Name = "default", name
	if change != nil {
		change(&c.Spec)
	}
	l.fine(l.store.Create(l.t.Context(), c))
	return store.KeyOf(c)
}

// all reconciles every cluster at once, as often as it takes to create what can be.
func (l *placingLab) all(keys []store.Key) {
	l.t.Helper()
	var wg sync.WaitGroup
	for _, key := range keys {
		wg.Go(func() {
			for range 12 {
				_, err := l.control.Reconcile(l.t.Context(), key)
				if err != nil && !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrExists) {
					l.t.Errorf("%s: %v", key, err)
				}
			}
		})
	}
	wg.Wait()
}

func (l *placingLab) members() []*v1alpha1.EtcdMember {
	l.t.Helper()
	objects, err := l.store.Store.List(l.t.Context(), v1alpha1.KindMember, store.ListOptions{})
	l.fine(err)
	var list []*v1alpha1.EtcdMember
	for _, o := range objects {
		if m, ok := o.(*v1alpha1.EtcdMember); ok {
			list = append(list, m)
		}
	}
	return list
}

// TestPlacingAtOnce: of clusters that are placed at the same moment by different workers, no
// two take the last room of a host, also while lists of members are old.
func TestPlacingAtOnce(t *testing.T) {
	for _, stale := range []int{0, 1000} {
		t.Run(fmt.Sprintf("%d stale lists", stale), func(t *testing.T) {
			l := newPlacingLab(t)
			l.host("db1", "3", nil)
			l.host("db2", "2", nil)
			l.store.stale = stale
			var keys []store.Key
			for i := range 12 {
				keys = append(keys, l.cluster(fmt.Sprintf("c%02d", i), 1, nil))
			}
			l.all(keys)
			on := map[string]int{}
			for _, m := range l.members() {
				on[m.Spec.Host]++
			}
			if on["db1"] != 3 || on["db2"] != 2 {
				t.Errorf("db1 has room for 3 members and db2 for 2: they have %v", on)
			}
		})
	}
}

// TestPlacingExclusive: two Guaranteed clusters that are placed at the same moment never
// share a host.
func TestPlacingExclusive(t *testing.T) {
	l := newPlacingLab(t)
	for i := range 4 {
		l.host(fmt.Sprintf("db%d", i), "8", nil)
	}
	l.store.stale = 1000
	var keys []store.Key
	for i := range 6 {
		keys = append(keys, l.cluster(fmt.Sprintf("g%d", i), 2, func(s *v1alpha1.EtcdClusterSpec) { s.Class = v1alpha1.ClassGuaranteed }))
	}
	l.all(keys)
	owner := map[string]string{}
	for _, m := range l.members() {
		if had := owner[m.Spec.Host]; had != "" && had != m.Spec.ClusterName {
			t.Errorf("%s has members of %s and %s", m.Spec.Host, had, m.Spec.ClusterName)
		}
		owner[m.Spec.Host] = m.Spec.ClusterName
	}
	if len(owner) != 4 {
		t.Errorf("%d of 4 hosts were used: %v", len(owner), owner)
	}
}

// TestPlacingFreshHost: a host that was cordoned after it was listed is not taken.
func TestPlacingFreshHost(t *testing.T) {
	l := newPlacingLab(t)
	l.host("db1", "8", nil)
	key := l.cluster("c", 1, nil)
	l.store.Store = &cordonedAfterList{Store: l.store.Store}
	if _, err := l.control.Reconcile(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if n := len(l.members()); n != 0 {
		t.Errorf("%d members were created on a cordoned host", n)
	}
}

// cordonedAfterList cordons every host as soon as it was listed, and lists it as it was.
type cordonedAfterList struct {
	store.Store

	old []v1alpha1.Object
}

func (s *cordonedAfterList) List(ctx context.Context, kind v1alpha1.Kind, opts store.ListOptions) ([]v1alpha1.Object, error) {
	if kind.Kind != v1alpha1.KindHost.Kind {
		return s.Store.List(ctx, kind, opts)
	}
	if s.old != nil {
		return s.old, nil
	}
	list, err := s.Store.List(ctx, kind, opts)
	s.old = list
	for _, o := range list {
		err = errors.Join(err, store.Mutate(ctx, s.Store, store.KeyOf(o), &v1alpha1.EtcdHost{}, func(h *v1alpha1.EtcdHost) (bool, error) {
			h.Spec.Unschedulable = true
			return true, nil
		}))
	}
	return list, err
}

// TestHeldForWantOfAHost: the plan names every host with its reason, and the condition says
// it in short.
func TestHeldForWantOfAHost(t *testing.T) {
	l := newPlacingLab(t)
	for i := range 8 {
		l.host(fmt.Sprintf("gold%d", i), "8", func(h *v1alpha1.EtcdHost) { h.Spec.Pool = "gold" })
	}
	for i := range 3 {
		l.host(fmt.Sprintf("small%d", i), "500m", nil)
	}
	l.host("sick", "8", func(h *v1alpha1.EtcdHost) {
		v1alpha1.SetCondition(&h.Status.Conditions, v1alpha1.Condition{Type: v1alpha1.ConditionFit, Status: v1alpha1.False, Reason: "ChecksFailed", Message: "swap is on"})
		h.Status.Preflight = &v1alpha1.HostPreflight{Checks: []v1alpha1.HostCheck{{Name: "swap", Verdict: v1alpha1.VerdictFail, Value: "2Gi in use", Threshold: "none"}}}
	})
	key := l.cluster("c", 3, nil)
	if _, err := l.control.Reconcile(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	p, err := l.control.Plan(t.Context(), key, nil)
	l.fine(err)
	if p.HeldReason != fleet.HeldNoCapacity || len(p.Refused) != 12 {
		t.Errorf("held %s, %d hosts refused: %s", p.HeldReason, len(p.Refused), p.Held)
	}
	said := map[string]string{}
	for _, r := range p.Refused {
		said[r.Host] = r.Reason + ": " + r.Message
	}
	for host, want := range map[string]string{
		"gold3":  "OtherPool: it is in pool gold, and the cluster asks for pool default",
		"small1": "Full: cpu: 500m of 500m cores are left, and a member asks for 1",
		"sick":   "Unfit: it fails swap (2Gi in use, none): `quorate host check sick` says what to do",
	} {
		if said[host] != want {
			t.Errorf("%s: %q, want %q", host, said[host], want)
		}
	}
	c := &v1alpha1.EtcdCluster{}
	l.fine(l.store.Get(t.Context(), key, c))
	cond := v1alpha1.FindCondition(c.Status.Conditions, v1alpha1.ConditionProgressing)
	const short = "12 hosts: 8 in another pool, 3 full, 1 unfit"
	if cond == nil || cond.Reason != fleet.HeldNoCapacity || !strings.HasPrefix(cond.Message, short) {
		t.Errorf("the condition is %+v, want %q", cond, short)
	}
}

// TestPlacement: what is asked for is what would be done, for stored and for proposed
// clusters, and it changes nothing.
func TestPlacement(t *testing.T) {
	l := newPlacingLab(t)
	for i := range 3 {
		l.host(fmt.Sprintf("db%d", i), "8", func(h *v1alpha1.EtcdHost) { h.Spec.Zone = string(rune('a' + i)) })
	}
	key := l.cluster("c", 3, nil)
	p, err := l.control.Placement(t.Context(), key, nil)
	l.fine(err)
	if len(l.members()) != 0 {
		t.Fatal("asking has created members")
	}
	for range 3 {
		_, err = l.control.Reconcile(t.Context(), key)
		l.fine(err)
	}
	for _, m := range l.members() {
		found := false
		for _, q := range p.Members {
			found = found || q.Member == m.Name && q.Host == m.Spec.Host && q.Reason != "" && !q.Standing
		}
		if !found {
			t.Errorf("%s was created on %s, and the placement said %+v", m.Name, m.Spec.Host, p.Members)
		}
	}
	proposed := &v1alpha1.EtcdCluster{}
	l.fine(l.store.Get(t.Context(), key, proposed))
	proposed.Name, proposed.Spec.Placement.Pool = "other", "gold"
	p, err = l.control.Placement(t.Context(), store.Key{Namespace: "default", Name: "other"}, proposed)
	l.fine(err)
	if p.Missing != 3 || p.HeldReason != placing.HeldNoHost {
		t.Errorf("%+v", p)
	}
	if _, err = l.control.Placement(t.Context(), store.Key{Namespace: "default", Name: "nowhere"}, nil); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("of a cluster that does not exist: %v", err)
	}
	u, err := l.control.Usage(t.Context(), "zone")
	l.fine(err)
	if len(u.Rows) != 3 || u.Total.Members != 3 || u.Total.Requested.CPU.String() != "3" || u.Total.Capacity.CPU.String() != "24" || !u.Total.Used.CPU.IsZero() || u.Total.Unknown != 3 {
		t.Errorf("%+v", u)
	}
	if _, err = l.control.Usage(t.Context(), "colour"); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("by colour: %v", err)
	}
}

// lookedAtStore has somebody read the whole fleet just before a member is stored.
type lookedAtStore struct {
	store.Store

	look func(context.Context)
}

func (s *lookedAtStore) Create(ctx context.Context, obj v1alpha1.Object) error {
	if _, ok := obj.(*v1alpha1.EtcdMember); ok {
		s.look(ctx)
	}
	return s.Store.Create(ctx, obj)
}

// TestPlacingWhileOthersLook: who reads the fleet while a member is being created does not
// have it forgotten.
func TestPlacingWhileOthersLook(t *testing.T) {
	l := newPlacingLab(t)
	l.host("db1", "1", nil)
	first, second := l.cluster("c1", 1, nil), l.cluster("c2", 1, nil)
	l.store.stale = 1000
	l.store.Store = &lookedAtStore{Store: l.store.Store, look: func(ctx context.Context) {
		_, err := l.control.Usage(ctx, placing.ByHost)
		l.fine(err)
	}}
	for _, key := range []store.Key{first, second, second} {
		_, err := l.control.Reconcile(t.Context(), key)
		l.fine(err)
	}
	if n := len(l.members()); n != 1 {
		t.Errorf("%d members were created where there is room for one", n)
	}
}
