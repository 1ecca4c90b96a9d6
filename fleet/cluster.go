package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/fleet/place"
	"github.com/quorate/quorate/store"
)

// Etcd observes and steers the etcd of clusters.
type Etcd interface {
	// Probe asks every member that has an address, all at once, and returns within
	// ctx's deadline whatever answers there are, by member name. Answers carry the
	// time they were asked for.
	Probe(ctx context.Context, c *v1alpha1.EtcdCluster, members []*v1alpha1.EtcdMember) (map[string]Probe, []etcd.Alarm, error)
	// Members lists who the members are, as a quorum knows it, asked through one of the
	// given ones: the first that answers.
	Members(ctx context.Context, c *v1alpha1.EtcdCluster, via []*v1alpha1.EtcdMember) ([]etcd.Member, error)
	// AddLearner, Promote and Remove change who the members are; see etcd.Pool. What was
	// done before is no error.
	AddLearner(ctx context.Context, c *v1alpha1.EtcdCluster, via *v1alpha1.EtcdMember, peerURL string) error
	Promote(ctx context.Context, c *v1alpha1.EtcdCluster, via *v1alpha1.EtcdMember, id etcd.ID) error
	Remove(ctx context.Context, c *v1alpha1.EtcdCluster, via *v1alpha1.EtcdMember, id etcd.ID) error
	// MoveLeader hands leadership from the leader to the member with that ID.
	MoveLeader(ctx context.Context, c *v1alpha1.EtcdCluster, leader *v1alpha1.EtcdMember, to etcd.ID) error
	// Forget drops what is kept of a cluster: connections and certificates.
	Forget(c *v1alpha1.EtcdCluster)
}

// Authority makes the certificates of a cluster.
type Authority interface {
	// CheckCA says why the CA that the cluster names can't be used; nil where one is
	// yet to be made.
	CheckCA(ctx context.Context, c *v1alpha1.EtcdCluster) error
	// EnsureCA makes the cluster's CA if it has none yet.
	EnsureCA(ctx context.Context, c *v1alpha1.EtcdCluster) error
	// RemoveCA removes a CA that EnsureCA has made.
	RemoveCA(ctx context.Context, c *v1alpha1.EtcdCluster) error
}

// Releases finds etcd releases.
type Releases interface {
	// Resolve returns the release of a version for a platform (GOOS/GOARCH).
	Resolve(version, platform string) (v1alpha1.ReleaseRef, error)
}

// Options of a ClusterController.
type Options struct {
	Store     store.Store
	Etcd      Etcd
	Authority Authority
	Releases  Releases
	// Meeting is where members of clusters of mode Discovery meet; nil where this server
	// has no discovery service.
	Meeting  Meeting
	Recorder store.Recorder
	Logger   *slog.Logger
	// Now is the clock; time.Now by default.
	Now func() time.Time
	// Idle is how often a cluster at rest is looked at. Default 5 s.
	Idle time.Duration
	// Busy is how often a cluster under change is looked at. Default 200 ms.
	Busy time.Duration
}

// keepTasks is how many finished tasks of a cluster are kept as its history.
const keepTasks = 30

// ClusterController brings clusters to their specs.
type ClusterController struct {
	opts    Options
	imports *imports
	leaders *leaderBook
	created *creations
	turns   *turns
}

// NewClusterController returns a controller.
func NewClusterController(opts Options) *ClusterController {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Idle == 0 {
		opts.Idle = 5 * time.Second
	}
	if opts.Busy == 0 {
		opts.Busy = 200 * time.Millisecond
	}
	return &ClusterController{opts: opts, imports: newImports(opts.Store, opts.Now), leaders: newLeaderBook(), created: newCreations(), turns: newTurns()}
}

// Reconcile looks at one cluster and takes at most one step. It returns when to
// look again; 0 means only when something changes. Clusters that are only observed
// are ReconcileImported's.
func (c *ClusterController) Reconcile(ctx context.Context, key store.Key) (time.Duration, error) {
	cluster := &v1alpha1.EtcdCluster{}
	if err := c.opts.Store.Get(ctx, key, cluster); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			c.leaders.forget(key)
			return 0, nil
		}
		return 0, err
	}
	if cluster.Observed() {
		return 0, nil
	}
	if cluster.DeletionTimestamp == nil && !v1alpha1.HasFinalizer(cluster, v1alpha1.FinalizerCluster) {
		cluster.Finalizers = append(cluster.Finalizers, v1alpha1.FinalizerCluster)
		if err := c.opts.Store.Update(ctx, cluster); err != nil {
			return 0, err
		}
	}
	if cluster.DeletionTimestamp != nil && !v1alpha1.HasFinalizer(cluster, v1alpha1.FinalizerCluster) {
		return 0, nil
	}
	s, tasks, err := c.observe(ctx, cluster)
	if err != nil {
		return 0, err
	}
	s.Leading = c.leaders.observe(s, c.opts.Now())
	if err = c.record(ctx, s); err != nil {
		return 0, err
	}
	progress, err := c.advance(ctx, s, tasks)
	if statusErr := c.writeStatus(ctx, s, progress); statusErr != nil {
		err = errors.Join(err, statusErr)
	}
	if err != nil {
		return 0, err
	}
	return progress.again, nil
}

// Plan returns the plan of a stored cluster; with a proposed one, that of the
// cluster as if the proposal had been applied.
func (c *ClusterController) Plan(ctx context.Context, key store.Key, proposed *v1alpha1.EtcdCluster) (v1alpha1.Plan, error) {
	cluster := &v1alpha1.EtcdCluster{}
	err := c.opts.Store.Get(ctx, key, cluster)
	switch {
	case errors.Is(err, store.ErrNotFound) && proposed != nil:
		cluster = proposed.DeepCopy()
	case err != nil:
		return v1alpha1.Plan{}, err
	case proposed != nil:
		cluster.Spec = *proposed.Spec.DeepCopy()
	}
	if cluster.Observed() {
		return planImported(cluster), nil
	}
	s, _, err := c.observe(ctx, cluster)
	if err != nil {
		return v1alpha1.Plan{}, err
	}
	s.Leading = c.leaders.known(key)
	return Plan(s), nil
}

// Look returns the cluster with its status as it is now, rather than as it was
// last written: after a restart of the server that may be long ago.
func (c *ClusterController) Look(ctx context.Context, key store.Key) (*v1alpha1.EtcdCluster, error) {
	cluster := &v1alpha1.EtcdCluster{}
	if err := c.opts.Store.Get(ctx, key, cluster); err != nil {
		return nil, err
	}
	if cluster.Observed() {
		o, err := c.imports.observe(ctx, cluster)
		if err != nil {
			return nil, err
		}
		setImportedStatus(&o, &cluster.Status)
		return cluster, nil
	}
	s, tasks, err := c.observe(ctx, cluster)
	if err != nil {
		return nil, err
	}
	s.Leading = c.leaders.known(key)
	p := progress{plan: Plan(s), task: tasks.open}
	if p.task != nil {
		p.waiting = waitingFor(s, p.task)
	}
	setStatus(s, p, &cluster.Status)
	return cluster, nil
}

// taskList is what is known of a cluster's tasks.
type taskList struct {
	open     *v1alpha1.EtcdTask
	last     int64
	finished []*v1alpha1.EtcdTask
}

// observe reads the objects, then probes: in this order, so that an answer is
// never older than the status it is read with.
func (c *ClusterController) observe(ctx context.Context, cluster *v1alpha1.EtcdCluster) (*State, taskList, error) {
	s := &State{Cluster: cluster, Releases: map[string]v1alpha1.ReleaseRef{}}
	var tasks taskList
	mine := store.ListOptions{
		Namespace: cluster.Namespace, NamePrefix: cluster.Name + "-",
		Labels: map[string]string{v1alpha1.LabelCluster: cluster.Name},
	}
	objects, err := c.opts.Store.List(ctx, v1alpha1.KindTask, mine)
	if err != nil {
		return nil, tasks, err
	}
	tasks.open, tasks.last, tasks.finished = tasksOf(objects)
	for _, o := range objects {
		// Of members that are gone, the tasks that created them know the numbers.
		if t, ok := o.(*v1alpha1.EtcdTask); ok && createdOne(t) && t.Spec.ClusterUID == string(cluster.UID) {
			s.LastNumber = max(s.LastNumber, memberNumber(cluster.Name, t.Spec.Member))
		}
	}
	var members []*v1alpha1.EtcdMember
	objects, err = c.opts.Store.List(ctx, v1alpha1.KindMember, mine)
	if err != nil {
		return nil, tasks, err
	}
	for _, o := range objects {
		// List may be stale, and a stale status must not be taken for the newest.
		m := &v1alpha1.EtcdMember{}
		err = c.opts.Store.Get(ctx, store.KeyOf(o), m)
		if errors.Is(err, store.ErrNotFound) || err == nil && m.Spec.ClusterName != cluster.Name {
			continue
		}
		if err != nil {
			return nil, tasks, err
		}
		members = append(members, m)
		s.LastNumber = max(s.LastNumber, memberNumber(cluster.Name, m.Name))
		s.Members = append(s.Members, MemberState{Object: m})
	}
	if err = c.observeRestore(ctx, s); err != nil {
		return nil, tasks, err
	}
	if err = c.observeHosts(ctx, s); err != nil {
		return nil, tasks, err
	}
	if !s.formed() {
		if caErr := c.opts.Authority.CheckCA(ctx, cluster); caErr != nil {
			s.CAProblem = caErr.Error()
		}
		s.FormationProblem = c.formationProblem(ctx, cluster)
	}
	sortMembers(cluster.Name, s.Members)
	sortMembers(cluster.Name, s.Former)
	s.ReadAt = c.opts.Now()
	c.probe(ctx, s, members)
	return s, tasks, c.observeMembership(ctx, s, tasks.open)
}

func (c *ClusterController) probe(ctx context.Context, s *State, members []*v1alpha1.EtcdMember) {
	const patience = 2 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	probes, alarms, err := c.opts.Etcd.Probe(ctx, s.Cluster, members)
	if err != nil {
		// Without certificates nothing can be asked; members then count as unknown.
		c.opts.Logger.WarnContext(ctx, "members could not be asked", slog.String("cluster", s.Cluster.Name), slog.Any("error", err))
		return
	}
	s.Alarms = alarms
	for m := range s.everyMember {
		if p, ok := probes[m.Object.Name]; ok {
			m.Probe = &p
		}
	}
}

// observeHosts reads the hosts of the cluster's members; all hosts, and the
// members of other clusters that they have, only where one is to be chosen: a fleet has
// many.
func (c *ClusterController) observeHosts(ctx context.Context, s *State) error {
	if s.placing() {
		return c.observeAllHosts(ctx, s)
	}
	for m := range s.everyMember {
		if s.host(m.Object.Spec.Host) == nil {
			h := &v1alpha1.EtcdHost{}
			err := c.opts.Store.Get(ctx, store.Key{Name: m.Object.Spec.Host}, h)
			if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrInvalid) {
				continue
			}
			if err != nil {
				return err
			}
			c.addHost(s, h, nil)
		}
		h := s.host(m.Object.Spec.Host)
		m.HostReady = h.Ready
	}
	return nil
}

// placing reports whether hosts are to be chosen.
func (s *State) placing() bool {
	return s.Cluster.DeletionTimestamp == nil && !s.Cluster.Spec.Suspended && len(s.Former) == 0 && !s.formed() && len(s.Members) < int(s.Cluster.Spec.Replicas)
}

func (c *ClusterController) addHost(s *State, h *v1alpha1.EtcdHost, bound []place.Member) {
	s.Hosts = append(s.Hosts, HostState{
		Object: h, Ready: v1alpha1.IsTrue(h.Status.Conditions, v1alpha1.ConditionReady), Bound: bound,
	})
	platform := h.Status.Platform
	if _, known := s.Releases[platform]; known || platform == "" {
		return
	}
	// An unknown version leaves the platform out; the plan says so when it needs it.
	if ref, err := c.opts.Releases.Resolve(s.Cluster.Spec.Version, platform); err == nil {
		s.Releases[platform] = ref
	}
}

// record writes down what has been learnt and must not be forgotten: the identity
// of a member that has joined. From then on its host refuses to start it on an
// empty or foreign directory. It also passes on settings that need no restart.
func (c *ClusterController) record(ctx context.Context, s *State) error {
	for i := range s.Members {
		m := &s.Members[i]
		obj := m.Object.DeepCopy()
		dirty := false
		if a, ok := s.answer(m); ok && obj.Spec.MemberID == "" && a.Leader != 0 && a.MemberID != 0 &&
			obj.Status.Process != nil && obj.Status.Phase == v1alpha1.MemberRunning && !s.otherCluster(a.ClusterID) {
			obj.Spec.MemberID, obj.Spec.ClusterID = a.MemberID.String(), a.ClusterID.String()
			dirty = true
		}
		if held(s.Cluster) || s.Cluster.DeletionTimestamp != nil || obj.DeletionTimestamp != nil {
			continue
		}
		if obj.Spec.Leaving && s.stays(m) {
			obj.Spec.Leaving = false
			dirty = true
		}
		if WantedHash(s.Cluster, obj) == v1alpha1.MemberConfigHash(&obj.Spec) {
			wanted := WantedSpec(s.Cluster, obj)
			if !v1alpha1.Equal(wanted, obj.Spec) {
				obj.Spec = wanted
				dirty = true
			}
		}
		if !dirty {
			continue
		}
		if err := c.opts.Store.Update(ctx, obj); err != nil {
			return fmt.Errorf("record %s: %w", obj.Name, err)
		}
		m.Object = obj
	}
	return nil
}

// otherCluster reports whether another member is recorded under another cluster ID.
func (s *State) otherCluster(id etcd.ID) bool {
	for i := range s.Members {
		if known := s.Members[i].Object.Spec.ClusterID; known != "" && known != id.String() {
			return true
		}
	}
	return false
}

func held(c *v1alpha1.EtcdCluster) bool {
	_, ok := c.Annotations[v1alpha1.AnnotationRestored]
	return ok
}

// progress is how far a reconciliation came.
type progress struct {
	plan v1alpha1.Plan
	// task under way after it, or nil.
	task *v1alpha1.EtcdTask
	// waiting is what it waits for.
	waiting string
	again   time.Duration
}

// advance works on the unfinished task, or begins the plan's first step.
func (c *ClusterController) advance(ctx context.Context, s *State, tasks taskList) (progress, error) {
	p := progress{plan: Plan(s), task: tasks.open, again: c.opts.Idle}
	if t := tasks.open; t != nil {
		v := judge(s, t, c.opts.Now())
		if v.phase != "" {
			p.task, p.again = nil, time.Millisecond
			return p, c.finish(ctx, s, t, v)
		}
		p.again = c.opts.Busy
		if p.waiting = waitingFor(s, t); p.waiting != "" {
			return p, nil
		}
		if ok, why := wanted(t, &p.plan); !ok {
			p.task, p.again = nil, c.opts.Busy
			return p, c.finish(ctx, s, t, verdict{v1alpha1.TaskAbandoned, why})
		}
		return p, c.take(ctx, s, t, &p)
	}
	if len(p.plan.Steps) == 0 {
		if !s.Cluster.Spec.Suspended && s.healthyCount() < int(s.Cluster.Spec.Replicas) {
			// What a member recovers from by itself is worth seeing soon.
			p.again = min(p.again, 2*c.opts.Busy)
		}
		return p, c.tidy(ctx, s, tasks)
	}
	p.again = c.opts.Busy
	if p.plan.Held != "" {
		p.waiting = p.plan.Held
		if needsHosts(p.plan.HeldReason) {
			// To look for a host is to read the whole fleet.
			p.again = c.opts.Idle
		}
		if p.plan.HeldReason == HeldTurn {
			// A fleet may have many that wait, and each move takes seconds.
			p.again = min(4*c.opts.Busy, c.opts.Idle)
		}
		return p, nil
	}
	if err := c.opts.Authority.EnsureCA(ctx, s.Cluster); err != nil {
		p.plan.HeldReason, p.plan.Held, p.waiting = HeldCA, err.Error(), err.Error()
		p.again = c.opts.Idle
		return p, nil //nolint:nilerr // the plan is held, and says why
	}
	t := newTask(s, p.plan.Steps[0], tasks.last+1)
	if err := c.opts.Store.Create(ctx, t); err != nil {
		return p, fmt.Errorf("record the intent %s: %w", t.Name, err)
	}
	p.task = t
	return p, c.take(ctx, s, t, &p)
}

// take performs the act of a task whose intent stands in the store.
func (c *ClusterController) take(ctx context.Context, s *State, t *v1alpha1.EtcdTask, p *progress) error {
	err := c.act(ctx, s, t)
	if errors.Is(err, errHeld) {
		p.waiting = err.Error()
		return nil
	}
	if err != nil && t.Spec.Action != v1alpha1.ActionMoveLeader {
		return fmt.Errorf("%s %s: %w", t.Spec.Action, t.Spec.Member, err)
	}
	if err != nil {
		// The request may have reached etcd all the same: what happened is seen next time.
		p.waiting = err.Error()
	}
	c.opts.Recorder.Record(ctx, store.About(t, store.Event{
		Type: store.Normal, Reason: string(t.Spec.Action), Source: "fleet",
		Message: fmt.Sprintf("%s: %s", t.Spec.Member, t.Spec.Reason),
	}))
	switch t.Spec.Action {
	case v1alpha1.ActionCreateMember:
		// The act is its own effect.
		p.task, p.again = nil, time.Millisecond
		return c.finish(ctx, s, t, verdict{v1alpha1.TaskSucceeded, "declared"})
	case v1alpha1.ActionRestoreMember:
		p.task, p.again = nil, time.Millisecond
		return c.finish(ctx, s, t, verdict{v1alpha1.TaskSucceeded, "told to be restored"})
	case v1alpha1.ActionStartMember:
		p.task, p.again = nil, time.Millisecond
		return c.finish(ctx, s, t, verdict{v1alpha1.TaskSucceeded, "told to run"})
	case v1alpha1.ActionAddMember:
		p.task, p.again = nil, time.Millisecond
		return c.finish(ctx, s, t, verdict{v1alpha1.TaskSucceeded, "a learner of the cluster, and told to run"})
	case v1alpha1.ActionUpdateMember, v1alpha1.ActionMoveLeader, v1alpha1.ActionStopMember, v1alpha1.ActionDeleteMember,
		v1alpha1.ActionPromoteMember, v1alpha1.ActionRemoveMember:
	}
	now := v1alpha1.NewMicroTime(c.opts.Now())
	t.Status.Phase, t.Status.ActedAt = v1alpha1.TaskActing, &now
	p.again = c.opts.Busy / 4
	return c.opts.Store.UpdateStatus(ctx, t)
}

func (c *ClusterController) finish(ctx context.Context, s *State, t *v1alpha1.EtcdTask, v verdict) error {
	now := v1alpha1.NewMicroTime(c.opts.Now())
	t.Status.Phase, t.Status.Message, t.Status.FinishedAt = v.phase, v.message, &now
	if err := c.opts.Store.UpdateStatus(ctx, t); err != nil {
		return fmt.Errorf("finish task %s: %w", t.Name, err)
	}
	e := store.Event{
		Type: store.Normal, Reason: string(t.Spec.Action) + string(v.phase), Source: "fleet",
		Message: fmt.Sprintf("%s: %s", t.Spec.Member, v.message),
	}
	if v.phase == v1alpha1.TaskAbandoned {
		e.Type = store.Warning
	}
	switch t.Spec.Action {
	case v1alpha1.ActionCreateMember, v1alpha1.ActionRestoreMember, v1alpha1.ActionStartMember:
		// Their first event says it all.
	default:
		c.opts.Recorder.Record(ctx, store.About(t, e))
	}
	c.opts.Logger.InfoContext(ctx, "task finished", slog.String("cluster", s.Cluster.Name), slog.String("task", t.Name),
		slog.String("action", string(t.Spec.Action)), slog.String("member", t.Spec.Member), slog.String("phase", string(v.phase)),
		slog.String("message", v.message))
	return nil
}

// tidy runs when nothing is left to do: it drops the oldest history, and lets a
// deleted cluster go.
func (c *ClusterController) tidy(ctx context.Context, s *State, tasks taskList) error {
	if s.Cluster.DeletionTimestamp != nil {
		for _, t := range tasks.finished {
			if err := c.drop(ctx, t); err != nil {
				return err
			}
		}
		if err := c.opts.Authority.RemoveCA(ctx, s.Cluster); err != nil {
			return err
		}
		c.opts.Etcd.Forget(s.Cluster)
		obj := s.Cluster.DeepCopy()
		v1alpha1.RemoveFinalizer(obj, v1alpha1.FinalizerCluster)
		return c.opts.Store.Update(ctx, obj)
	}
	// The newest task stays: its number is what the next one is counted from.
	// So does the newest that created a member: its name must not come twice.
	newest := len(tasks.finished) - 1
	for newest >= 0 && !createdOne(tasks.finished[newest]) {
		newest--
	}
	for i := range len(tasks.finished) - keepTasks {
		if i == newest {
			continue
		}
		if err := c.drop(ctx, tasks.finished[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c *ClusterController) drop(ctx context.Context, t *v1alpha1.EtcdTask) error {
	err := c.opts.Store.Delete(ctx, v1alpha1.KindTask, store.KeyOf(t), store.Preconditions{UID: t.UID})
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// Accept lets a cluster that is held after a restore of the store go on. The
// token must be that of the plan as it is now: a person accepts what they read.
func (c *ClusterController) Accept(ctx context.Context, key store.Key, planToken string) error {
	p, err := c.Plan(ctx, key, nil)
	if err != nil {
		return err
	}
	if p.Token != planToken {
		return fmt.Errorf("accept the plan of %s: it has changed since it was shown: read it again: %w", key, store.ErrConflict)
	}
	cluster := &v1alpha1.EtcdCluster{}
	if err = c.opts.Store.Get(ctx, key, cluster); err != nil {
		return err
	}
	members, err := c.opts.Store.List(ctx, v1alpha1.KindMember, store.ListOptions{
		Namespace: key.Namespace, Labels: map[string]string{v1alpha1.LabelCluster: key.Name},
	})
	if err != nil {
		return err
	}
	// Members first: while the cluster is held, a second call finishes what a crash
	// between two writes has left.
	for _, o := range members {
		if err := c.release(ctx, store.KeyOf(o), &v1alpha1.EtcdMember{}); err != nil {
			return err
		}
	}
	if err := c.release(ctx, key, &v1alpha1.EtcdCluster{}); err != nil {
		return err
	}
	c.opts.Recorder.Record(ctx, store.About(cluster, store.Event{
		Type: store.Normal, Reason: "PlanAccepted", Source: "fleet",
		Message: fmt.Sprintf("plan %s was accepted: the cluster is no longer held", planToken),
	}))
	return nil
}

func (c *ClusterController) release(ctx context.Context, key store.Key, into v1alpha1.Object) error {
	return store.Mutate(ctx, c.opts.Store, key, into, func(o v1alpha1.Object) (bool, error) {
		a := o.GetAnnotations()
		if _, ok := a[v1alpha1.AnnotationRestored]; !ok {
			return false, nil
		}
		delete(a, v1alpha1.AnnotationRestored)
		o.SetAnnotations(a)
		return true, nil
	})
}
