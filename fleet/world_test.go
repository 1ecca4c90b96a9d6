package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/store"
)

// world is a fleet of one cluster in which everything happens only when told to:
// agents, processes, elections, the clock, and the controller.
type world struct {
	store   *memStore
	clock   time.Time
	procs   map[string]*proc
	control *fleet.ClusterController
	// delayed answers of probes, handed out instead of new ones.
	delayed map[string]fleet.Probe
	delay   bool
	// broken configurations keep a process from serving.
	broken map[string]bool
	faults []string
	moves  int
	events []string
	// disturbed counts what happened to members by no act of Quorate's; orderedAt is
	// its value when a member's present configuration was ordered.
	disturbed int
	orderedAt map[string]order
	// crashIn, when positive, lets the controller die before that write from now on.
	crashIn int
	// silent are the hosts whose agents are away.
	silent map[string]bool

	restoreWorld
	memberWorld
}

type order struct {
	hash      string
	disturbed int
	serving   bool
}

type proc struct {
	hash    string
	booting bool
	// token of the cluster that it is of, and the revision that it is at.
	token    string
	revision int64
}

const digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000"

type noAuthority struct{}

func (noAuthority) CheckCA(context.Context, *v1alpha1.EtcdCluster) error  { return nil }
func (noAuthority) EnsureCA(context.Context, *v1alpha1.EtcdCluster) error { return nil }
func (noAuthority) RemoveCA(context.Context, *v1alpha1.EtcdCluster) error { return nil }

type oneRelease struct{}

func (oneRelease) Resolve(version, _ string) (v1alpha1.ReleaseRef, error) {
	return v1alpha1.ReleaseRef{Version: version, Digest: digest}, nil
}

func (w *world) Record(_ context.Context, e store.Event) {
	w.events = append(w.events, e.Reason+" "+e.Name+": "+e.Message)
}

func newWorld(replicas, hosts int) *world {
	w := &world{
		store: newMemStore(), clock: time.Unix(1_000_000, 0), procs: map[string]*proc{}, delayed: map[string]fleet.Probe{}, broken: map[string]bool{},
		orderedAt: map[string]order{}, silent: map[string]bool{}, restoreWorld: newRestoreWorld(), memberWorld: newMemberWorld(),
	}
	w.restart()
	ctx := context.Background()
	for i := range hosts {
		h := &v1alpha1.EtcdHost{Spec: v1alpha1.EtcdHostSpec{Address: fmt.Sprintf("10.0.0.%d", i+1)}}
		h.Name = fmt.Sprintf("host-%d", i)
		h.Status.Platform = "linux/amd64"
		v1alpha1.SetCondition(&h.Status.Conditions, v1alpha1.Condition{Type: v1alpha1.ConditionReady, Status: v1alpha1.True, Reason: "AgentReports"})
		w.must(w.store.Create(ctx, h))
	}
	c := &v1alpha1.EtcdCluster{Spec: v1alpha1.EtcdClusterSpec{Version: "3.7.3", Replicas: int32(replicas), DeletionPolicy: v1alpha1.DeletionRetain}}
	c.Namespace, c.Name = "default", "c"
	w.must(w.store.Create(ctx, c))
	return w
}

func (w *world) must(err error) {
	if err != nil {
		w.faults = append(w.faults, err.Error())
	}
}

// restart is a new controller: nothing of the old one is left but the store.
func (w *world) restart() {
	w.store.revive()
	w.control = fleet.NewClusterController(fleet.Options{
		Store: w.store, Etcd: w, Authority: noAuthority{}, Releases: oneRelease{}, Recorder: w,
		Logger: slog.New(slog.DiscardHandler), Now: w.now,
	})
	w.restartRestores()
}

func (w *world) now() time.Time {
	w.clock = w.clock.Add(time.Millisecond)
	return w.clock
}

func (w *world) cluster() *v1alpha1.EtcdCluster {
	c := &v1alpha1.EtcdCluster{}
	if err := w.store.get(store.Key{Namespace: "default", Name: "c"}, c); err != nil {
		return nil
	}
	return c
}

func (w *world) members() []*v1alpha1.EtcdMember {
	objects, _ := w.store.list(v1alpha1.KindMember, store.ListOptions{})
	var out []*v1alpha1.EtcdMember
	for _, o := range objects {
		m, _ := o.(*v1alpha1.EtcdMember)
		out = append(out, m)
	}
	return out
}

// serving lists the members that are up and part of a quorum.
func (w *world) serving() []string {
	e := w.ensemble()
	if e == nil || !e.Serves() {
		return nil
	}
	var up []string
	for _, m := range w.members() {
		if is, learner := e.Has(peerURL(m.Name)); is && !learner && w.isUp(m.Name) {
			up = append(up, m.Name)
		}
	}
	return up
}

// elect is etcd choosing a leader where it can.
func (w *world) elect() {
	for _, e := range w.ensembles {
		e.Serves()
	}
}

// leads reports whether some member leads.
func (w *world) leads() bool {
	e := w.ensemble()
	return e != nil && e.Leader() != ""
}

// Probe implements fleet.Etcd.
func (w *world) Probe(_ context.Context, _ *v1alpha1.EtcdCluster, members []*v1alpha1.EtcdMember) (map[string]fleet.Probe, []etcd.Alarm, error) {
	if w.probed != nil {
		w.probed()
	}
	out := map[string]fleet.Probe{}
	for _, m := range members {
		if m.Status.ClientURL == "" || m.Spec.Bootstrap == nil {
			continue
		}
		p := fleet.Probe{SentAt: w.now()}
		switch proc := w.procs[m.Name]; {
		case proc == nil || proc.booting || w.broken[proc.hash]:
			p.Err = "connection refused"
		default:
			st, err := w.ensembles[proc.token].Status(peerURL(m.Name))
			if p.Status = st; err != nil {
				p.Err = err.Error()
			}
			p.Status.Revision = proc.revision
		}
		if w.delay {
			if old, ok := w.delayed[m.Name]; ok {
				out[m.Name] = old
			}
		} else {
			out[m.Name] = p
		}
		w.delayed[m.Name] = p
	}
	return out, nil, nil
}

// MoveLeader implements fleet.Etcd.
func (w *world) MoveLeader(_ context.Context, _ *v1alpha1.EtcdCluster, leader *v1alpha1.EtcdMember, to etcd.ID) error {
	err := errors.New("connection refused")
	if e := w.ensembleOf(leader); e != nil {
		if err = e.MoveLeader(peerURL(leader.Name), to); err == nil {
			w.moves++
		}
	}
	return err
}

// Forget implements fleet.Etcd.
func (w *world) Forget(*v1alpha1.EtcdCluster) {}

// agent lets the agent of a member look at it once.
func (w *world) agent(m *v1alpha1.EtcdMember) {
	ctx := context.Background()
	if w.silent[m.Spec.Host] {
		return
	}
	if m.DeletionTimestamp != nil {
		delete(w.procs, m.Name)
		w.checkRetired(m)
		v1alpha1.RemoveFinalizer(m, v1alpha1.FinalizerMember)
		w.must(w.store.Update(ctx, m))
		w.elect()
		return
	}
	p := w.procs[m.Name]
	hash := v1alpha1.MemberConfigHash(&m.Spec)
	st := &m.Status
	st.ObservedGeneration = m.Generation
	switch m.Spec.Run {
	case v1alpha1.RunPrepared:
		st.Phase = v1alpha1.MemberPrepared
		if st.Ports = m.Spec.Ports; st.Ports.Client == 0 {
			w.port += 10
			st.Ports = v1alpha1.Ports{Client: w.port + 1, Peer: w.port + 2, Metrics: w.port + 3}
		}
		st.ClientURL, st.PeerURL = "https://"+m.Name+":1", peerURL(m.Name)
		v1alpha1.SetCondition(&st.Conditions, v1alpha1.Condition{Type: v1alpha1.ConditionPrepared, Status: v1alpha1.True, Reason: "Prepared"})
		w.makeData(m)
	case v1alpha1.RunStopped:
		delete(w.procs, m.Name)
		st.Phase, st.Process = v1alpha1.MemberStopped, nil
		st.StopProof = &v1alpha1.StopProof{Evidence: "reaped"}
	case v1alpha1.RunRunning:
		w.bringUp(m, p, hash)
		st.StopProof = nil
		if w.procs[m.Name] == nil {
			// Its law refused it, or etcd has ended at once.
			st.Process, st.Phase, st.Message = nil, v1alpha1.MemberCrashLoop, "etcd ends at once"
			if w.refused[m.Name] {
				st.Phase = v1alpha1.MemberRefused
			}
			w.must(w.store.UpdateStatus(ctx, m))
			return
		}
		st.Process = &v1alpha1.ProcessStatus{PID: 1, ConfigHash: w.procs[m.Name].hash}
		st.Phase = v1alpha1.MemberRunning
	}
	w.must(w.store.UpdateStatus(ctx, m))
	w.elect()
}

func (w *world) bringUp(m *v1alpha1.EtcdMember, p *proc, hash string) {
	switch {
	case p == nil:
		w.begin(m, hash)
	case p.hash != hash:
		if !w.mayTakeDown(m.Name, p) {
			return
		}
		w.begin(m, hash)
	default:
		p.booting = false
		if e := w.ensembles[p.token]; !w.slow && e.Serves() {
			e.CatchUp(peerURL(m.Name))
		}
	}
}

// mayTakeDown is the law: a serving member is taken down by Quorate only while the
// others keep a quorum, where there are others enough to. The agent looks just
// before it acts, since another member may have died after the restart was
// ordered; but where nothing has happened since, the order itself was wrong.
func (w *world) mayTakeDown(name string, p *proc) bool {
	replicas, _ := w.ensembles[p.token].Voters()
	before := w.serving()
	if replicas < 3 || !slices.Contains(before, name) {
		return true
	}
	if len(before)-1 >= replicas/2+1 {
		return true
	}
	if o := w.orderedAt[name]; o.disturbed == w.disturbed && o.serving {
		w.faults = append(w.faults, fmt.Sprintf("restarting %s would leave %d of %d members serving (it runs %s)", name, len(before)-1, replicas, p.hash))
	}
	return false
}

// noteOrders remembers when each member's configuration was ordered.
func (w *world) noteOrders() {
	for _, m := range w.members() {
		if hash := v1alpha1.MemberConfigHash(&m.Spec); w.orderedAt[m.Name].hash != hash {
			w.orderedAt[m.Name] = order{hash: hash, disturbed: w.disturbed, serving: w.leads() && slices.Contains(w.serving(), m.Name)}
		}
	}
}

// checkOneTask is the law: one mutation at a time.
func (w *world) checkOneTask() {
	objects, _ := w.store.list(v1alpha1.KindTask, store.ListOptions{})
	var open []string
	for _, o := range objects {
		if t, _ := o.(*v1alpha1.EtcdTask); !t.Finished() {
			open = append(open, t.Name)
		}
	}
	if len(open) > 1 {
		w.faults = append(w.faults, "unfinished tasks: "+strings.Join(open, ", "))
	}
}

func (w *world) reconcile() {
	w.working("reconcile", func(ctx context.Context) error {
		_, err := w.control.Reconcile(ctx, store.Key{Namespace: "default", Name: "c"})
		return err
	})
	w.noteOrders()
	w.checkOneTask()
}

// working lets a controller do something, and die in it when its time has come.
func (w *world) working(what string, do func(ctx context.Context) error) {
	if w.crashIn > 0 {
		w.store.dieBeforeWrite(w.crashIn - 1)
		w.crashIn = 0
		defer w.store.revive()
	}
	err := do(context.Background())
	if err != nil && !errors.Is(err, errCrash) && !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrExists) && !errors.Is(err, store.ErrNotFound) {
		w.faults = append(w.faults, what+": "+err.Error())
	}
	if w.store.dead() {
		w.restart()
	}
	w.checkTold()
}

// edit changes the cluster's spec as a person would.
func (w *world) edit(change func(*v1alpha1.EtcdClusterSpec)) {
	c := w.cluster()
	if c == nil {
		return
	}
	change(&c.Spec)
	w.disturbed++ // Resuming and suspending take members up and down in groups.
	w.must(w.store.Update(context.Background(), c))
}

// settle lets everything happen in turn, without faults, until nothing changes.
func (w *world) settle() bool {
	w.delay, w.crashIn, w.unmakeable = false, 0, false
	w.refuse, w.lossy, w.slow = false, false, false
	clear(w.refused)
	clear(w.broken)
	for host := range w.silent {
		w.setHost(host, true)
	}
	for range 1000 {
		before := w.store.rv
		w.clock = w.clock.Add(time.Second)
		for range 3 {
			w.reconcile()
			w.restoreAll()
			for _, m := range w.members() {
				w.agent(m)
			}
			w.elect()
		}
		if w.store.rv == before || w.onlyStatusWrites(before) {
			if w.asWanted() {
				return true
			}
		}
	}
	return false
}

// onlyStatusWrites: the simulated agents rewrite equal statuses each time.
func (w *world) onlyStatusWrites(before int) bool { return w.store.rv-before <= 3*len(w.members()) }

// asWanted reports whether what is matches what is asked for.
func (w *world) asWanted() bool {
	c := w.cluster()
	if c == nil {
		return len(w.procs) == 0 && len(w.members()) == 0
	}
	if c.DeletionTimestamp != nil {
		return false
	}
	members := w.members()
	if c.Spec.Suspended {
		return len(w.procs) == 0
	}
	if w.openRestores() > 0 {
		return false
	}
	if len(members) != int(c.Spec.Replicas) || len(w.serving()) != len(members) {
		return false
	}
	for _, m := range members {
		if p := w.procs[m.Name]; p == nil || p.hash != fleet.WantedHash(c, m) || m.Spec.MemberID == "" || m.Spec.RestoreName != c.Spec.RestoreName {
			return false
		}
	}
	return v1alpha1.IsTrue(c.Status.Conditions, v1alpha1.ConditionAvailable) && w.settled(c) == ""
}

func (w *world) fail(t interface {
	Helper()
	Fatalf(format string, args ...any)
},
) {
	t.Helper()
	if len(w.faults) > 0 {
		t.Fatalf("%s\nevents:\n%s", strings.Join(w.faults, "\n"), strings.Join(w.events, "\n"))
	}
}
