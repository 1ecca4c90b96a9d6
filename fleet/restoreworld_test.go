package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/store"
)

// archive is stores with backups that nobody has to make.
type archive struct {
	// held backups by the URL of the store, and down those that don't answer.
	held map[string][]fleet.BackupFound
	down map[string]error
	// verdict of a proof; nil finds everything right.
	verdict func(fleet.BackupTrial) (fleet.BackupVerdict, error)

	mu             sync.Mutex // stores are asked side by side
	sought         []fleet.BackupSought
	proofs, opened []fleet.BackupTrial
}

// archiveRevision is that of the backup in archiveURL.
const (
	archiveURL      = "file:///archive"
	archiveRevision = 500
	servedRevision  = 600
)

func newArchive() *archive {
	return &archive{
		held: map[string][]fleet.BackupFound{archiveURL: {{
			PointID: "point-1", Of: fleet.BackupsOf{Namespace: "default", Cluster: "c", ClusterID: 99},
			TakenAt: time.Unix(900_000, 0), ProvenAt: time.Unix(900_100, 0), EtcdVersion: "3.7.3", Revision: archiveRevision, DBSize: 4 << 20, Keys: 5,
		}}},
		down: map[string]error{},
	}
}

// Find implements fleet.Restores.
func (a *archive) Find(_ context.Context, o fleet.BackupSought) (fleet.BackupFound, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sought = append(a.sought, o)
	if err := a.down[o.Store.URL]; err != nil {
		return fleet.BackupFound{}, err
	}
	var best *fleet.BackupFound
	ids := map[etcd.ID]bool{}
	for _, f := range a.held[o.Store.URL] {
		ids[f.Of.ClusterID] = true
		switch {
		case o.Object != "" && f.PointID == o.Object:
			return f, nil
		case o.Object != "", o.ClusterID != 0 && f.Of.ClusterID != o.ClusterID, !o.NotAfter.IsZero() && f.TakenAt.After(o.NotAfter):
		case o.Point == v1alpha1.PointLatest, o.Point == v1alpha1.PointLatestProven:
			if (o.Point == v1alpha1.PointLatest || !f.ProvenAt.IsZero()) && (best == nil || f.TakenAt.After(best.TakenAt)) {
				best = &f
			}
		case o.Point == f.PointID:
			best = &f
		}
	}
	if o.ClusterID == 0 && len(ids) > 1 {
		return fleet.BackupFound{}, fmt.Errorf("there are those of %d clusters; say source.clusterID (%w)", len(ids), fleet.ErrHopeless)
	}
	if best == nil {
		return fleet.BackupFound{}, fmt.Errorf("there is no such backup (%w)", fleet.ErrHopeless)
	}
	return *best, nil
}

// Prove implements fleet.Restores.
func (a *archive) Prove(_ context.Context, o fleet.BackupTrial) (fleet.BackupVerdict, error) {
	a.proofs = append(a.proofs, o)
	if a.verdict != nil {
		return a.verdict(o)
	}
	return fleet.BackupVerdict{Verified: true, At: time.Unix(950_000, 0)}, nil
}

// Open implements fleet.Restores.
func (a *archive) Open(_ context.Context, o fleet.BackupTrial) (io.ReadCloser, int64, error) {
	a.opened = append(a.opened, o)
	const data = "database"
	return io.NopCloser(strings.NewReader(data)), int64(len(data)), nil
}

// Bump implements fleet.Restores.
func (*archive) Bump(revision, known int64) (int64, string) {
	const margin, unknown = 1_000_000, 1_000_000_000
	if known == 0 {
		return unknown, "nobody knows"
	}
	return max(known-revision, 0) + margin, "it is known"
}

// restoreWorld is what a world needs for restores.
type restoreWorld struct {
	archive  *archive
	restores *fleet.RestoreController
	// data that members have, by their UIDs: the token it was made for. Made counts the
	// looks that an agent needs for it; unmakeable keeps it from being made.
	data       map[v1alpha1.UID]string
	made       map[v1alpha1.UID]int
	unmakeable bool
	// told is what was last asked of each member, and tokens what stood for each token.
	told     map[v1alpha1.UID]told
	tokens   map[string]string
	founders map[string]v1alpha1.UID
	port     int32
	ordered  int
	// probed is called when members are asked.
	probed func()
}

type told struct {
	run     v1alpha1.RunPolicy
	deleted bool
	token   string
	hash    string
}

func newRestoreWorld() restoreWorld {
	return restoreWorld{
		archive: newArchive(), data: map[v1alpha1.UID]string{}, made: map[v1alpha1.UID]int{}, told: map[v1alpha1.UID]told{},
		tokens: map[string]string{}, founders: map[string]v1alpha1.UID{},
	}
}

func (w *world) restartRestores() {
	settings, err := fleet.NewBackupController(fleet.BackupOptions{
		Store: w.store, Backups: newVault(), Credentials: noCredentials{}, Recorder: w, Logger: slog.New(slog.DiscardHandler), Now: w.now,
	})
	w.must(err)
	w.restores = fleet.NewRestoreController(fleet.RestoreOptions{
		Store: w.store, Restores: w.archive, Settings: settings, Clusters: w.control, Recorder: w, Logger: slog.New(slog.DiscardHandler), Now: w.now,
	})
}

// restore applies an EtcdRestore of the cluster.
func (w *world) restore(name string, inPlace bool, change ...func(*v1alpha1.EtcdRestoreSpec)) *v1alpha1.EtcdRestore {
	r := &v1alpha1.EtcdRestore{Spec: v1alpha1.EtcdRestoreSpec{
		ClusterName: "c", InPlace: inPlace,
		Source: v1alpha1.RestoreSource{Destination: &v1alpha1.BackupDestination{Name: "archive", URL: archiveURL}},
	}}
	r.Namespace, r.Name = "default", name
	for _, f := range change {
		f(&r.Spec)
	}
	w.must(w.store.Create(context.Background(), r))
	return r
}

func (w *world) listRestores() []*v1alpha1.EtcdRestore {
	objects, _ := w.store.list(v1alpha1.KindRestore, store.ListOptions{})
	var out []*v1alpha1.EtcdRestore
	for _, o := range objects {
		r, _ := o.(*v1alpha1.EtcdRestore)
		out = append(out, r)
	}
	return out
}

func (w *world) restored(name string) *v1alpha1.EtcdRestore {
	r := &v1alpha1.EtcdRestore{}
	if err := w.store.get(store.Key{Namespace: "default", Name: name}, r); err != nil {
		return nil
	}
	return r
}

func (w *world) dropRestore(name string) {
	r := w.restored(name)
	w.must(w.store.Delete(context.Background(), v1alpha1.KindRestore, store.KeyOf(r), store.Preconditions{UID: r.UID}))
}

func (w *world) openRestores() int {
	n := 0
	for _, r := range w.listRestores() {
		if !r.Finished() {
			n++
		}
	}
	return n
}

// restoreOne brings one restore further, and restoreAll each.
func (w *world) restoreOne(name string) {
	w.working("restore "+name, func(ctx context.Context) error {
		_, err := w.restores.Reconcile(ctx, store.Key{Namespace: "default", Name: name})
		return err
	})
}

func (w *world) restoreAll() {
	for _, r := range w.listRestores() {
		w.restoreOne(r.Name)
	}
}

// setHost says whether the agent of a host is there.
func (w *world) setHost(name string, ready bool) {
	status := v1alpha1.True
	if delete(w.silent, name); !ready {
		w.silent[name], status = true, v1alpha1.Unknown
	}
	w.must(store.MutateStatus(context.Background(), w.store, store.Key{Name: name}, &v1alpha1.EtcdHost{}, func(h *v1alpha1.EtcdHost) (bool, error) {
		return v1alpha1.SetCondition(&h.Status.Conditions, v1alpha1.Condition{
			Type: v1alpha1.ConditionReady, Status: status, Reason: "Test", LastTransitionTime: v1alpha1.NewTime(w.clock),
		}), nil
	}))
}

// makeData is the agent making a member's data from the backup, in three looks.
func (w *world) makeData(m *v1alpha1.EtcdMember) {
	b := m.Spec.Bootstrap
	if b == nil || b.State != v1alpha1.BootstrapRestored || w.data[m.UID] != "" {
		return
	}
	const looks = 3
	c := v1alpha1.Condition{Type: v1alpha1.ConditionRestored, Status: v1alpha1.False, Reason: "Restoring", Message: "its data is being made"}
	m.Status.Phase = v1alpha1.MemberRestoring
	db, _, err := w.restores.Open(context.Background(), m)
	if err == nil {
		err = db.Close()
	}
	if w.unmakeable {
		err = errors.New("no space left on device")
	}
	if w.made[m.UID]++; err != nil {
		w.made[m.UID], c.Message = 0, err.Error()
	}
	if w.made[m.UID] >= looks {
		w.data[m.UID] = b.Token
		m.Status.Phase = v1alpha1.MemberPrepared
		c.Status, c.Reason, c.Message = v1alpha1.True, "Restored", "its data is there"
	}
	v1alpha1.SetCondition(&m.Status.Conditions, c)
}

// begin starts a process, and is the law: none without the data it is to have, and never
// two clusters at once.
func (w *world) begin(m *v1alpha1.EtcdMember, hash string) {
	b := m.Spec.Bootstrap
	for name, p := range w.procs {
		if p.token != b.Token {
			w.faults = append(w.faults, fmt.Sprintf("%s of %s is started while %s of %s runs", m.Name, b.Token, name, p.token))
		}
	}
	revision := int64(servedRevision)
	if b.State == v1alpha1.BootstrapRestored {
		revision = archiveRevision + b.BumpRevision
		if w.data[m.UID] != b.Token {
			w.faults = append(w.faults, m.Name+" is started without its data")
			return
		}
	}
	// One that was removed, or that its host refuses, is no fault: it does not come up.
	if err := w.join(m); err != nil || w.refused[m.Name] {
		delete(w.procs, m.Name)
		return
	}
	w.procs[m.Name] = &proc{hash: hash, booting: true, token: b.Token, revision: revision}
}

// checkRetired is the law: no former member's data is renamed aside while another one
// of them is not proven to be stopped.
func (w *world) checkRetired(m *v1alpha1.EtcdMember) {
	c := w.cluster()
	if c == nil || c.DeletionTimestamp != nil {
		return
	}
	if m.Spec.RestoreName == c.Spec.RestoreName {
		if e := w.ensembleOf(m); e != nil {
			if is, _ := e.Has(peerURL(m.Name)); is {
				w.faults = append(w.faults, fmt.Sprintf("the data of %s is renamed aside while it is a member", m.Name))
			}
		}
		return
	}
	for _, other := range w.members() {
		if w.procs[other.Name] != nil {
			w.faults = append(w.faults, fmt.Sprintf("the data of %s is renamed aside while %s runs", m.Name, other.Name))
		}
	}
}

// accepted is the restore that the cluster names, if it is being carried out.
func (w *world) accepted(c *v1alpha1.EtcdCluster) *v1alpha1.EtcdRestore {
	r := w.restored(c.Spec.RestoreName)
	if r == nil || r.Spec.ClusterName != c.Name || r.Status.Phase != v1alpha1.RestoreRunning || r.Status.Token != "quorate-"+string(c.UID)+"-"+string(r.UID) {
		return nil
	}
	return r
}

// checkTold is the law about what members are told: see judgeTold. It runs after each
// thing that a controller has done.
func (w *world) checkTold() {
	now := map[v1alpha1.UID]told{}
	c := w.cluster()
	for _, m := range w.members() {
		t := told{run: m.Spec.Run, deleted: m.DeletionTimestamp != nil, hash: v1alpha1.MemberConfigHash(&m.Spec)}
		if m.Spec.Bootstrap != nil {
			t.token = m.Spec.Bootstrap.Token
			w.checkToken(m)
		}
		name := string(m.OwnerReferences[0].UID) + "/" + m.Name
		if uid, used := w.names[name]; used && uid != m.UID {
			w.faults = append(w.faults, m.Name+" is the name of two members")
		}
		w.names[name] = m.UID
		was, known := w.told[m.UID]
		if now[m.UID] = t; known && was == t {
			continue
		}
		w.ordered++
		if c == nil || c.DeletionTimestamp != nil {
			continue
		}
		if wrong := w.judgeTold(c, m, was, t, known); wrong != "" {
			w.faults = append(w.faults, fmt.Sprintf("%s: %s: it was %+v and is %+v", m.Name, wrong, was, t))
		}
	}
	w.told = now
}

// judgeTold says what is wrong about a change of what a member is told. A former member
// is stopped, and deleted once all of them are proven to be stopped, by a restore in place
// that was accepted, and by nothing else. A new one is made when there are no former ones,
// and started once all have their data.
func (w *world) judgeTold(c *v1alpha1.EtcdCluster, m *v1alpha1.EtcdMember, was, is told, known bool) string {
	r := w.accepted(c)
	former, up := 0, false
	for _, o := range w.members() {
		if o.Spec.RestoreName != c.Spec.RestoreName {
			former++
		}
		up = up || o.Spec.MemberID != ""
	}
	replaced := r != nil && r.Spec.InPlace && m.Spec.RestoreName != c.Spec.RestoreName
	switch {
	case is.deleted && !was.deleted:
		if replaced {
			return w.someRunning(c)
		}
		if e := w.ensembleOf(m); e != nil {
			if is, _ := e.Has(peerURL(m.Name)); is {
				return "it is deleted while it is a member, and no restore replaces it"
			}
		}
		return ""
	case is.run == v1alpha1.RunStopped && was.run != v1alpha1.RunStopped:
		if !replaced && !c.Spec.Suspended {
			return "it is stopped, and no restore replaces it"
		}
		return ""
	case former > 0:
		return "something is done to a member while there are former ones"
	case c.Spec.RestoreName != "" && r == nil && !up:
		return "the cluster goes on being formed, and its restore is not carried out"
	case is.run == v1alpha1.RunRunning && was.run != v1alpha1.RunRunning && w.wasRemoved(m):
		return "it is started, and was removed from the cluster"
	case is.run == v1alpha1.RunRunning && was.run != v1alpha1.RunRunning && m.Spec.Bootstrap.State == v1alpha1.BootstrapRestored && m.Spec.MemberID == "":
		return w.someWithoutData(m)
	case !known && len(w.procs) > 0 && (m.Spec.Bootstrap == nil || m.Spec.Bootstrap.State != v1alpha1.BootstrapExisting):
		return "it is new, and processes run"
	}
	return ""
}

func (w *world) wasRemoved(m *v1alpha1.EtcdMember) bool {
	e := w.ensembleOf(m)
	return e != nil && e.Removed(peerURL(m.Name))
}

func (w *world) someRunning(c *v1alpha1.EtcdCluster) string {
	for _, o := range w.members() {
		stopped := o.Spec.Run == v1alpha1.RunStopped && o.Status.StopProof != nil && w.procs[o.Name] == nil
		if o.Spec.RestoreName != c.Spec.RestoreName && o.DeletionTimestamp == nil && !stopped {
			return "it is deleted, and " + o.Name + " is not proven to be stopped"
		}
	}
	return ""
}

func (w *world) someWithoutData(m *v1alpha1.EtcdMember) string {
	founders := 0
	for _, o := range w.members() {
		if o.Spec.Bootstrap != nil && o.Spec.Bootstrap.State == v1alpha1.BootstrapExisting {
			continue
		}
		if founders++; w.data[o.UID] != m.Spec.Bootstrap.Token {
			return "it is started, and " + o.Name + " has no data"
		}
	}
	if founders != len(m.Spec.Bootstrap.InitialCluster) {
		return "it is started, and not all members are there"
	}
	return ""
}

// checkToken is the law: a token stands for one cluster of the same members, and never
// for another one.
func (w *world) checkToken(m *v1alpha1.EtcdMember) {
	b := m.Spec.Bootstrap
	if b.State == v1alpha1.BootstrapExisting {
		return
	}
	peers := fmt.Sprint(b.State, b.InitialCluster)
	if was, used := w.tokens[b.Token]; used && was != peers {
		w.faults = append(w.faults, fmt.Sprintf("token %s stands for %s and for %s", b.Token, was, peers))
	}
	w.tokens[b.Token] = peers
	key := b.Token + " " + m.Name
	if was, used := w.founders[key]; used && was != m.UID {
		w.faults = append(w.faults, "token "+key+" stands for two members")
	}
	w.founders[key] = m.UID
}

// unstick does what a person has to do for a cluster whose restore is gone half-way, or
// never was: they have it restored in place.
func (w *world) unstick() {
	c := w.cluster()
	if c == nil || c.DeletionTimestamp != nil || c.Spec.RestoreName == "" || w.accepted(c) != nil {
		return
	}
	for _, r := range w.listRestores() {
		if !r.Finished() && r.Spec.InPlace {
			return
		}
	}
	up, same := false, true
	for _, m := range w.members() {
		up, same = up || m.Spec.MemberID != "", same && m.Spec.RestoreName == c.Spec.RestoreName
	}
	if !up || !same {
		w.restore("last", true)
	}
}
