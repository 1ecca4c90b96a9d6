package fleet_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/store"
)

// sharedStore is a memStore for several goroutines, that can be away.
type sharedStore struct {
	mu   sync.Mutex
	mem  *memStore
	away bool
}

func (s *sharedStore) lock() (unlock func(), err error) {
	s.mu.Lock()
	if s.away {
		s.mu.Unlock()
		return nil, store.ErrUnavailable
	}
	return s.mu.Unlock, nil
}

func (s *sharedStore) Get(ctx context.Context, key store.Key, obj v1alpha1.Object) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return s.mem.Get(ctx, key, obj)
}

func (s *sharedStore) List(ctx context.Context, kind v1alpha1.Kind, o store.ListOptions) ([]v1alpha1.Object, error) {
	unlock, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	return s.mem.List(ctx, kind, o)
}

func (s *sharedStore) Create(ctx context.Context, obj v1alpha1.Object) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	obj.SetCreationTimestamp(v1alpha1.Now())
	return s.mem.Create(ctx, obj)
}

func (s *sharedStore) Update(ctx context.Context, obj v1alpha1.Object) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return s.mem.Update(ctx, obj)
}

func (s *sharedStore) UpdateStatus(ctx context.Context, obj v1alpha1.Object) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return s.mem.UpdateStatus(ctx, obj)
}

func (s *sharedStore) Delete(ctx context.Context, kind v1alpha1.Kind, key store.Key, pre store.Preconditions) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return s.mem.Delete(ctx, kind, key, pre)
}

// Watch tells every key again and again: more than a store would, and never less.
func (s *sharedStore) Watch(ctx context.Context, kind v1alpha1.Kind, _ string) <-chan store.Key {
	out := make(chan store.Key)
	go func() {
		defer close(out)
		for {
			objects, _ := s.List(ctx, kind, store.ListOptions{})
			for _, o := range objects {
				select {
				case out <- store.KeyOf(o):
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-time.After(20 * time.Second):
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// vault is stores without clusters: what is taken is there.
type vault struct {
	mu sync.Mutex
	// points by URL and cluster.
	points map[string][]*fleet.HeldBackup
	// takes is how long a backup takes, now the clock of the stores.
	takes time.Duration
	now   func() time.Time
	// refuse, reject, untried and away decide what goes wrong; nil is nothing.
	refuse  func(o fleet.BackupOrder) error
	down    map[string]error
	rotten  map[string]bool
	untried int

	active, most int
	busy         map[string]bool
	orders       []fleet.BackupOrder
	taken        map[string]int
	proofs       int
	prunes       []fleet.BackupPruning
	reads        int
	faults       []string
	next         int
}

func newVault() *vault {
	return &vault{points: map[string][]*fleet.HeldBackup{}, busy: map[string]bool{}, taken: map[string]int{}, down: map[string]error{}, rotten: map[string]bool{}, takes: 10 * time.Second, now: time.Now}
}

// handOver tells the race detector what the test knows: who is asleep touches nothing.
func (v *vault) handOver() {
	v.mu.Lock()
	defer v.mu.Unlock()
}

func place(url string, of fleet.BackupsOf) string {
	return url + " " + of.Namespace + "/" + of.Cluster + "/" + of.ClusterID.String()
}

func (v *vault) fault(format string, args ...any) {
	v.faults = append(v.faults, fmt.Sprintf(format, args...))
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Take implements fleet.Backups.
func (v *vault) Take(ctx context.Context, o fleet.BackupOrder) (fleet.BackupTaken, error) {
	v.mu.Lock()
	if v.busy[o.Cluster] {
		v.fault("two backups of %s at once", o.Cluster)
	}
	v.busy[o.Cluster] = true
	v.active++
	v.most = max(v.most, v.active)
	v.orders = append(v.orders, o)
	refuse, began, takes := v.refuse, v.now(), v.takes
	v.mu.Unlock()
	defer func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.busy, o.Cluster)
		v.active--
	}()
	o.Progress("it is being read")
	if err := wait(ctx, takes); err != nil {
		return fleet.BackupTaken{}, err
	}
	if refuse != nil {
		if err := refuse(o); err != nil {
			return fleet.BackupTaken{}, err
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.next++
	t := fleet.BackupTaken{Source: v1alpha1.BackupSource{Member: "m2", Role: "follower"}, ClusterID: o.ClusterID, Revision: int64(v.next), DBSize: 20, StoredSize: 10, Keys: 5, Took: takes}
	any := false
	for _, s := range o.Stores {
		w := fleet.BackupWritten{Store: s.Name, Err: v.down[s.URL]}
		if w.Err == nil {
			w.PointID, w.Dir = fmt.Sprint("point-", v.next), "v1/"
			at := place(s.URL, o.BackupsOf)
			v.points[at] = append(v.points[at], &fleet.HeldBackup{PointID: w.PointID, At: began, StoredSize: 10, Took: takes})
			any = true
		}
		t.Written = append(t.Written, w)
	}
	if !any {
		return fleet.BackupTaken{}, errors.New("no destination has it")
	}
	v.taken[o.Cluster]++
	return t, nil
}

// Prove implements fleet.Backups.
func (v *vault) Prove(ctx context.Context, o fleet.BackupTrial) (fleet.BackupVerdict, error) {
	v.mu.Lock()
	takes := v.takes
	v.mu.Unlock()
	if err := wait(ctx, takes); err != nil {
		return fleet.BackupVerdict{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.proofs++
	if v.untried > 0 {
		v.untried--
		return fleet.BackupVerdict{}, errors.New("the scratch disk is full")
	}
	for _, p := range v.points[place(o.Store.URL, o.BackupsOf)] {
		if p.PointID != o.PointID {
			continue
		}
		if v.rotten[o.Store.URL] {
			return fleet.BackupVerdict{Reason: "keys: 4 in the restored etcd, 5 in the manifest", At: v.now(), Took: time.Second}, nil
		}
		p.ProofAt, p.RestoreTook = v.now(), time.Second
		return fleet.BackupVerdict{Verified: true, At: v.now(), Took: time.Second}, nil
	}
	return fleet.BackupVerdict{}, errors.New("it is not there")
}

// Prune implements fleet.Backups: it keeps the last three.
func (v *vault) Prune(_ context.Context, o fleet.BackupPruning) (fleet.BackupPruned, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	at := place(o.Store.URL, o.BackupsOf)
	const keep = 3
	n := max(0, len(v.points[at])-keep)
	if o.DryRun {
		return fleet.BackupPruned{Deleted: n, Holdings: v.holds(at)}, nil
	}
	v.prunes = append(v.prunes, o)
	if v.busy[o.Cluster] {
		v.fault("%s is pruned while it is backed up", o.Cluster)
	}
	v.points[at] = v.points[at][n:]
	return fleet.BackupPruned{Deleted: n, Holdings: v.holds(at)}, nil
}

// Holds implements fleet.Backups.
func (v *vault) Holds(_ context.Context, of fleet.BackupsOf, in fleet.BackupStore) (fleet.BackupHoldings, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.reads++
	if err := v.down[in.URL]; err != nil {
		return fleet.BackupHoldings{}, err
	}
	return v.holds(place(in.URL, of)), nil
}

func (v *vault) holds(at string) fleet.BackupHoldings {
	h := fleet.BackupHoldings{Points: len(v.points[at])}
	for _, p := range v.points[at] {
		one := *p
		if one.Succeeds(h.Newest, v.now()) {
			h.Newest = &one
		}
		if !one.ProofAt.IsZero() && one.Succeeds(h.Proven, v.now()) {
			h.Proven = &one
		}
	}
	return h
}

type noCredentials struct{}

func (noCredentials) ClientTLS(context.Context, *v1alpha1.EtcdCluster) (*tls.Config, error) {
	return nil, nil //nolint:nilnil // no TLS is an answer
}
func (noCredentials) Forget(*v1alpha1.EtcdCluster) {}

// backupWorld is a server that backs clusters up, without clusters and stores.
type backupWorld struct {
	t      *testing.T
	store  *sharedStore
	vault  *vault
	mu     sync.Mutex
	events []string
	// ahead is how far the clock of the server is.
	ahead  time.Duration
	server string
	stop   func()
	c      *fleet.BackupController
}

func newBackupWorld(t *testing.T) *backupWorld {
	t.Helper()
	return &backupWorld{t: t, store: &sharedStore{mem: newMemStore()}, vault: newVault(), server: "here"}
}

func (w *backupWorld) Record(_ context.Context, e store.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, string(e.Type)+" "+e.Reason+" "+e.Name)
}

func (w *backupWorld) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.ahead)
}

func (w *backupWorld) setClock(ahead time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ahead = ahead
}

// start is a new server process; what the one before knew is gone.
func (w *backupWorld) start() {
	w.t.Helper()
	var err error
	w.vault.now = w.now
	w.c, err = fleet.NewBackupController(fleet.BackupOptions{
		Store: w.store, Backups: w.vault, Credentials: noCredentials{}, Recorder: w, Logger: slog.New(slog.DiscardHandler),
		Server: w.server, Now: w.now,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	watch := func(kind v1alpha1.Kind) fleet.Source {
		return func(ctx context.Context) <-chan store.Key { return w.store.Watch(ctx, kind, "") }
	}
	var wg sync.WaitGroup
	for _, r := range []*fleet.Runner{
		{Name: "policy", Reconcile: w.c.ReconcilePolicy, Workers: 2, Timeout: time.Hour, Sources: []fleet.Source{watch(v1alpha1.KindBackupPolicy)}},
		{Name: "backup", Reconcile: w.c.ReconcileBackup, Workers: 2, Timeout: 100 * time.Hour, Sources: []fleet.Source{watch(v1alpha1.KindBackup)}},
	} {
		r.Logger = slog.New(slog.DiscardHandler)
		wg.Go(func() { r.Run(ctx) })
	}
	w.stop = func() {
		cancel()
		wg.Wait()
	}
}

// kill stops the process without last words.
func (w *backupWorld) kill() {
	w.store.mu.Lock()
	w.store.away = true
	w.store.mu.Unlock()
	w.stop()
	w.store.mu.Lock()
	w.store.away = false
	w.store.mu.Unlock()
}

// sleep lets time pass, and then waits until nobody has anything to do at that moment:
// between two sleeps the vault is the test's alone.
func (w *backupWorld) sleep(d time.Duration) {
	w.vault.handOver()
	time.Sleep(d)
	synctest.Wait()
	w.vault.handOver()
}

func (w *backupWorld) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// cluster makes one that Quorate runs.
func (w *backupWorld) cluster(name string, change ...func(*v1alpha1.EtcdCluster)) *v1alpha1.EtcdCluster {
	w.t.Helper()
	c := &v1alpha1.EtcdCluster{Spec: v1alpha1.EtcdClusterSpec{Version: "3.7.3", Replicas: 3}}
	c.Namespace, c.Name, c.Labels = "default", name, map[string]string{"backup": "yes"}
	c.Status.ClusterID, c.Status.Endpoints = etcd.ID(len(name)+1000).String(), []string{"http://127.0.0.1:1"}
	for _, f := range change {
		f(c)
	}
	w.must(w.store.Create(w.t.Context(), c))
	return c
}

// policy makes one for all clusters with the label.
func (w *backupWorld) policy(change ...func(*v1alpha1.EtcdBackupPolicySpec)) {
	w.t.Helper()
	p := &v1alpha1.EtcdBackupPolicy{Spec: v1alpha1.EtcdBackupPolicySpec{
		Selector: &v1alpha1.ClusterSelector{MatchLabels: map[string]string{"backup": "yes"}},
		Schedule: v1alpha1.BackupSchedule{TimeZone: "UTC"},
		Destinations: []v1alpha1.BackupDestination{
			{Name: "near", URL: "file:///near"}, {Name: "far", URL: "file:///far", Retention: &v1alpha1.BackupRetention{Yearly: 1}},
		},
		Retention: v1alpha1.BackupRetention{Hourly: 24}, Proof: v1alpha1.BackupProof{Mode: v1alpha1.ProofAlways},
	}}
	p.Namespace, p.Name = "default", "hourly"
	for _, f := range change {
		f(&p.Spec)
	}
	w.must(w.store.Create(w.t.Context(), p))
}

func (w *backupWorld) edit(change func(*v1alpha1.EtcdBackupPolicySpec)) {
	w.t.Helper()
	w.must(store.Mutate(w.t.Context(), w.store, store.Key{Namespace: "default", Name: "hourly"}, &v1alpha1.EtcdBackupPolicy{}, func(p *v1alpha1.EtcdBackupPolicy) (bool, error) {
		change(&p.Spec)
		return true, nil
	}))
}

func (w *backupWorld) status() v1alpha1.EtcdBackupPolicyStatus {
	w.t.Helper()
	p := &v1alpha1.EtcdBackupPolicy{}
	w.must(w.store.Get(w.t.Context(), store.Key{Namespace: "default", Name: "hourly"}, p))
	return p.Status
}

// order makes a backup by hand.
func (w *backupWorld) order(name, cluster string, change ...func(*v1alpha1.EtcdBackupSpec)) {
	w.t.Helper()
	b := &v1alpha1.EtcdBackup{Spec: v1alpha1.EtcdBackupSpec{ClusterName: cluster, PolicyName: "hourly", Reason: v1alpha1.BackupManual}}
	b.Namespace, b.Name = "default", name
	for _, f := range change {
		f(&b.Spec)
	}
	w.must(w.store.Create(w.t.Context(), b))
}

func (w *backupWorld) backup(name string) v1alpha1.EtcdBackupStatus {
	w.t.Helper()
	b := &v1alpha1.EtcdBackup{}
	w.must(w.store.Get(w.t.Context(), store.Key{Namespace: "default", Name: name}, b))
	return b.Status
}

// records of a cluster, oldest first.
func (w *backupWorld) records(cluster string) []*v1alpha1.EtcdBackup {
	w.t.Helper()
	objects, err := w.store.List(w.t.Context(), v1alpha1.KindBackup, store.ListOptions{})
	w.must(err)
	var out []*v1alpha1.EtcdBackup
	for _, o := range objects {
		if b, ok := o.(*v1alpha1.EtcdBackup); ok && b.Spec.ClusterName == cluster {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b *v1alpha1.EtcdBackup) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	return out
}

// told reports whether an event was recorded that begins so.
func (w *backupWorld) told(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.events, func(e string) bool { return strings.HasPrefix(e, text) })
}

func (w *backupWorld) condition(list []v1alpha1.Condition, kind string) v1alpha1.Condition {
	c := v1alpha1.FindCondition(list, kind)
	if c == nil {
		return v1alpha1.Condition{}
	}
	return *c
}

// check is what must hold at the end of every test.
func (w *backupWorld) check() {
	w.t.Helper()
	w.vault.mu.Lock()
	defer w.vault.mu.Unlock()
	for _, f := range w.vault.faults {
		w.t.Error(f)
	}
	if w.vault.most > 2 {
		w.t.Errorf("%d backups ran at once", w.vault.most)
	}
}

var discard = slog.New(slog.DiscardHandler)
