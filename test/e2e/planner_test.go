package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/host"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/internal/version"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/release"
	"github.com/quorate/quorate/store"
	storeetcd "github.com/quorate/quorate/store/etcd"
)

var errCrash = errors.New("the controller died here")

// dyingStore fails every call once a number of writes have been made, as a
// controller that dies there would leave it.
type dyingStore struct {
	store.Store
	writesLeft atomic.Int64
	dead       atomic.Bool
}

func (s *dyingStore) write() error {
	if s.dead.Load() || s.writesLeft.Add(-1) < 0 {
		s.dead.Store(true)
		return errCrash
	}
	return nil
}

func (s *dyingStore) Get(ctx context.Context, key store.Key, obj v1alpha1.Object) error {
	if s.dead.Load() {
		return errCrash
	}
	return s.Store.Get(ctx, key, obj)
}

func (s *dyingStore) Create(ctx context.Context, obj v1alpha1.Object) error {
	if err := s.write(); err != nil {
		return err
	}
	return s.Store.Create(ctx, obj)
}

func (s *dyingStore) Update(ctx context.Context, obj v1alpha1.Object) error {
	if err := s.write(); err != nil {
		return err
	}
	return s.Store.Update(ctx, obj)
}

func (s *dyingStore) UpdateStatus(ctx context.Context, obj v1alpha1.Object) error {
	if err := s.write(); err != nil {
		return err
	}
	return s.Store.UpdateStatus(ctx, obj)
}

func (s *dyingStore) Delete(ctx context.Context, kind v1alpha1.Kind, key store.Key, pre store.Preconditions) error {
	if err := s.write(); err != nil {
		return err
	}
	return s.Store.Delete(ctx, kind, key, pre)
}

// lateEtcd hands out answers late and out of order: for each member now the newest,
// now one of those before.
type lateEtcd struct {
	fleet.Etcd
	mu     sync.Mutex
	random *rand.Rand
	past   map[string][]fleet.Probe
	late   int
}

func (e *lateEtcd) Probe(ctx context.Context, c *v1alpha1.EtcdCluster, members []*v1alpha1.EtcdMember) (map[string]fleet.Probe, []etcd.Alarm, error) {
	probes, alarms, err := e.Etcd.Probe(ctx, c, members)
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, p := range probes {
		past := slices.Concat(e.past[name], []fleet.Probe{p})
		if len(past) > 20 {
			past = past[1:]
		}
		e.past[name] = past
		if e.random.IntN(2) == 0 {
			probes[name] = past[e.random.IntN(len(past))]
			e.late++
		}
	}
	return probes, alarms, err
}

// lab is a fleet of one host in this process, with real etcd processes.
type lab struct {
	t         *testing.T
	store     *storeetcd.Store
	authority *fleet.SecretAuthority
	releases  releases
	driver    *host.Driver
	etcd      *lateEtcd
	log       *slog.Logger
	faults    []string
}

type releases struct{ *release.Catalog }

func (r releases) Resolve(v, platform string) (v1alpha1.ReleaseRef, error) {
	found, err := r.Catalog.Resolve(v, platform)
	return v1alpha1.ReleaseRef{Version: found.Version, Digest: found.Digest}, err
}

func (r releases) Path(ctx context.Context, ref v1alpha1.ReleaseRef) (string, error) {
	return r.Catalog.Path(ctx, ref.Digest)
}

// Sign implements host.Signer.
func (l *lab) Sign(ctx context.Context, m *v1alpha1.EtcdMember, usage pki.Usage, csr []byte) (pki.Bundle, error) {
	h := &v1alpha1.EtcdHost{}
	if err := l.store.Get(ctx, store.Key{Name: m.Spec.Host}, h); err != nil {
		return pki.Bundle{}, err
	}
	return l.authority.SignMember(ctx, m, h, usage, csr)
}

func newLab(t *testing.T) *lab {
	t.Helper()
	dir := t.TempDir()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	keys, err := storeetcd.CreateKeyring(filepath.Join(dir, "key"), time.Now())
	must(t, err)
	st, err := storeetcd.Open(t.Context(), storeetcd.Options{Dir: filepath.Join(dir, "store"), Keyring: keys, Logger: log})
	must(t, err)
	t.Cleanup(func() { _ = st.Close() })
	catalog, err := release.Open(filepath.Join(dir, "releases"), release.Options{})
	must(t, err)
	_, err = catalog.AddBuiltin(t.Context(), version.Etcd(), "/proc/self/exe")
	must(t, err)
	l := &lab{t: t, store: st, authority: fleet.NewSecretAuthority(st), releases: releases{catalog}, log: log}
	l.driver, err = host.New(host.Options{Dir: dir, Address: "127.0.0.1", Releases: l.releases, Signer: l, Logger: log})
	must(t, err)
	pool := etcd.NewPool()
	t.Cleanup(func() { _ = pool.Close() })
	l.etcd = &lateEtcd{
		Etcd: fleet.NewProber(pool, l.authority), past: map[string][]fleet.Probe{}, random: rand.New(rand.NewPCG(1, 2)),
	}
	h := &v1alpha1.EtcdHost{Spec: v1alpha1.EtcdHostSpec{Address: "127.0.0.1"}}
	h.Name = "h"
	must(t, st.Create(t.Context(), h))
	h.Status.Platform = release.HostPlatform()
	v1alpha1.SetCondition(&h.Status.Conditions, v1alpha1.Condition{Type: v1alpha1.ConditionReady, Status: v1alpha1.True, Reason: "AgentReports"})
	must(t, st.UpdateStatus(t.Context(), h))
	t.Cleanup(func() { l.stopAll() })
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// stopAll leaves no process behind, whatever state the test ended in.
func (l *lab) stopAll() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	found, err := l.driver.List(ctx)
	if err != nil {
		l.t.Errorf("list what runs: %v", err)
	}
	for _, f := range found {
		m := &v1alpha1.EtcdMember{}
		m.Namespace, m.Name, m.UID = f.Namespace, f.Name, f.UID
		if _, err := l.driver.Stop(ctx, m); err != nil {
			l.t.Errorf("stop %s: %v", f.Name, err)
		}
	}
}

var labKey = store.Key{Namespace: "default", Name: "lab"}

// runCluster lives as one controller that dies before its nth write, and returns
// whether it did before ctx ended or done said so.
func (l *lab) runCluster(ctx context.Context, writes int64, done func() bool) (died bool) {
	s := &dyingStore{Store: l.store}
	s.writesLeft.Store(writes)
	c := fleet.NewClusterController(fleet.Options{
		Store: s, Etcd: l.etcd, Authority: l.authority, Releases: l.releases, Recorder: l.store, Logger: l.log,
		Busy: 20 * time.Millisecond, Idle: 100 * time.Millisecond,
	})
	for ctx.Err() == nil {
		again, _ := c.Reconcile(ctx, labKey)
		if s.dead.Load() {
			return true
		}
		l.oneTask(ctx)
		if done() {
			return false
		}
		select {
		case <-ctx.Done():
		case <-time.After(min(max(again, 5*time.Millisecond), 50*time.Millisecond)):
		}
	}
	return false
}

// oneTask is the law: one mutation at a time.
func (l *lab) oneTask(ctx context.Context) {
	tasks, err := l.store.List(ctx, v1alpha1.KindTask, store.ListOptions{})
	if err != nil {
		return
	}
	var open []string
	for _, o := range tasks {
		if t, ok := o.(*v1alpha1.EtcdTask); ok && !t.Finished() {
			open = append(open, t.Name)
		}
	}
	if len(open) > 1 {
		l.faults = append(l.faults, "unfinished tasks: "+strings.Join(open, ", "))
	}
}

// watchQuorum counts live etcd processes until ctx ends, and returns the fewest.
func (l *lab) watchQuorum(ctx context.Context) <-chan int {
	out := make(chan int, 1)
	go func() {
		fewest := 99
		for ctx.Err() == nil {
			if found, err := l.driver.List(ctx); err == nil {
				alive := 0
				for _, f := range found {
					if f.PID > 0 {
						alive++
					}
				}
				fewest = min(fewest, alive)
			}
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
		out <- fewest
	}()
	return out
}

func (l *lab) cluster(ctx context.Context) *v1alpha1.EtcdCluster {
	c := &v1alpha1.EtcdCluster{}
	if err := l.store.Get(ctx, labKey, c); err != nil {
		return nil
	}
	return c
}

func (l *lab) edit(change func(*v1alpha1.EtcdClusterSpec)) {
	must(l.t, store.Mutate(l.t.Context(), l.store, labKey, &v1alpha1.EtcdCluster{}, func(c *v1alpha1.EtcdCluster) (bool, error) {
		change(&c.Spec)
		return true, nil
	}))
}

// running reports whether all members run the wanted configuration and serve.
func (l *lab) running(ctx context.Context) bool {
	c := l.cluster(ctx)
	if c == nil || !v1alpha1.IsTrue(c.Status.Conditions, v1alpha1.ConditionAvailable) || c.Status.Ready != fmt.Sprintf("%d/%d", c.Spec.Replicas, c.Spec.Replicas) {
		return false
	}
	objects, err := l.store.List(ctx, v1alpha1.KindMember, store.ListOptions{})
	if err != nil || len(objects) != int(c.Spec.Replicas) {
		return false
	}
	for _, o := range objects {
		m, ok := o.(*v1alpha1.EtcdMember)
		if !ok || m.Spec.MemberID == "" || m.Status.Process == nil || m.Status.Process.ConfigHash != fleet.WantedHash(c, m) {
			return false
		}
	}
	open, err := l.store.List(ctx, v1alpha1.KindTask, store.ListOptions{})
	for _, o := range open {
		if t, ok := o.(*v1alpha1.EtcdTask); ok && !t.Finished() {
			return false
		}
	}
	return err == nil
}

// TestPlannerOnRealEtcd: with real processes, answers that come late and out of
// order, and a controller that dies before ever later writes, a cluster is formed,
// changed, suspended, resumed and deleted; there is never more than one mutation
// under way, and a change never takes more than one process down.
func TestPlannerOnRealEtcd(t *testing.T) {
	l := newLab(t)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	members := fleet.NewMemberController(fleet.MemberOptions{
		Store: l.store, Driver: l.driver, Recorder: l.store, Logger: l.log, Host: "h", Source: "agent/h", Interval: 100 * time.Millisecond,
	})
	runner := fleet.Runner{
		Name: "member", Reconcile: members.Reconcile, Workers: 3, MaxDelay: time.Second, Logger: l.log,
		Sources: []fleet.Source{func(ctx context.Context) <-chan store.Key { return l.store.Watch(ctx, v1alpha1.KindMember, "") }},
	}
	agentCtx, stopAgent := context.WithCancel(ctx)
	agentDone := make(chan struct{})
	go func() { runner.Run(agentCtx); close(agentDone) }()
	defer func() { stopAgent(); <-agentDone }()

	check := false
	c := &v1alpha1.EtcdCluster{Spec: v1alpha1.EtcdClusterSpec{Version: version.Etcd(), Replicas: 3}}
	c.Namespace, c.Name = labKey.Namespace, labKey.Name
	c.Spec.Etcd.InitialCorruptCheck = &check
	c.Spec.Etcd.HeartbeatInterval, c.Spec.Etcd.ElectionTimeout = "20ms", "200ms"
	v1alpha1.SetType(c, v1alpha1.KindCluster.Kind, v1alpha1.KindCluster.APIVersion)
	must(t, schema.Default(c))
	must(t, l.store.Create(ctx, c))

	n := int64(100)
	phases := []struct {
		name   string
		start  func()
		done   func() bool
		fewest int
	}{
		{"form", func() {}, func() bool { return l.running(ctx) }, 0},
		{"change", func() { n++; l.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Etcd.SnapshotCount = 10000 + n }) }, func() bool { return l.running(ctx) }, 2},
		{"change again", func() { n++; l.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Etcd.SnapshotCount = 10000 + n }) }, func() bool { return l.running(ctx) }, 2},
		{"suspend", func() { l.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Suspended = true }) }, func() bool {
			c := l.cluster(ctx)
			return c != nil && v1alpha1.IsTrue(c.Status.Conditions, v1alpha1.ConditionSuspended)
		}, 0},
		{"resume", func() { l.edit(func(s *v1alpha1.EtcdClusterSpec) { s.Suspended = false }) }, func() bool { return l.running(ctx) }, 0},
		{"delete", func() {
			c := l.cluster(ctx)
			must(t, l.store.Delete(ctx, v1alpha1.KindCluster, labKey, store.Preconditions{UID: c.UID}))
		}, func() bool { return l.cluster(ctx) == nil }, 0},
	}
	for _, ph := range phases {
		ph.start()
		watchCtx, stopWatch := context.WithCancel(ctx)
		fewest := l.watchQuorum(watchCtx)
		crashes := 0
		// Each controller lives one write longer than the one before, so that the
		// deaths fall on all sides of each act.
		for writes := int64(0); ; writes = (writes + 1) % 9 {
			if !l.runCluster(ctx, writes, ph.done) {
				break
			}
			crashes++
		}
		stopWatch()
		least := <-fewest
		if ctx.Err() != nil {
			t.Fatalf("%s: not done in time: %+v", ph.name, l.cluster(context.Background()))
		}
		if least < ph.fewest {
			t.Errorf("%s: only %d processes were alive at a moment, want %d", ph.name, least, ph.fewest)
		}
		t.Logf("%s: done after %d deaths of the controller, at least %d processes alive", ph.name, crashes, least)
		if crashes < 5 {
			t.Errorf("%s: only %d crash points were met: the test misses its aim", ph.name, crashes)
		}
	}
	if len(l.faults) > 0 {
		t.Error(strings.Join(l.faults, "\n"))
	}
	if l.etcd.late < 20 {
		t.Errorf("only %d answers were late: the test misses its aim", l.etcd.late)
	}
	t.Logf("%d answers were handed out late", l.etcd.late)
}
