package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/store"
)

const (
	// restoreWait is how long a restore that waits for something waits before it looks
	// again, and restoreLook how often one under way is looked at.
	restoreWait = 5 * time.Second
	restoreLook = time.Second
)

// RestoreOptions are those of a RestoreController.
type RestoreOptions struct {
	Store    store.Store
	Restores Restores
	// Settings says how stores are reached.
	Settings *BackupController
	// Clusters are those that are restored.
	Clusters *ClusterController
	Recorder store.Recorder
	Logger   *slog.Logger
	// Now is the clock; time.Now by default.
	Now func() time.Time
}

// RestoreController carries out EtcdRestores: it finds the backup, has it proven, and
// names the restore in the cluster's spec; what the cluster's own controller then does
// stands in planrestore.go. Until the phase is Restoring, nothing has been touched.
type RestoreController struct {
	opts RestoreOptions
}

// NewRestoreController returns a controller.
func NewRestoreController(o RestoreOptions) *RestoreController {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &RestoreController{opts: o}
}

// Reconcile brings one restore further. It may take as long as a proof.
func (c *RestoreController) Reconcile(ctx context.Context, key store.Key) (time.Duration, error) {
	r := &v1alpha1.EtcdRestore{}
	err := c.opts.Store.Get(ctx, key, r)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil || r.Finished() || r.DeletionTimestamp != nil {
		return 0, err
	}
	if r.Status.Phase == v1alpha1.RestoreRunning {
		return c.follow(ctx, r)
	}
	return c.begin(ctx, r)
}

// begin takes a restore from its order to where members are touched.
func (c *RestoreController) begin(ctx context.Context, r *v1alpha1.EtcdRestore) (time.Duration, error) {
	tell := func(text string) { c.say(ctx, r, text) }
	found, wrong, err := c.check(ctx, r, tell)
	if err == nil && wrong == nil {
		wrong, err = c.prove(ctx, r, &found, tell)
	}
	if err == nil && wrong == nil {
		// The proof may have taken hours.
		wrong, err = c.accept(ctx, r, &found)
	}
	switch {
	case err != nil:
		return 0, err
	case wrong == nil:
		return time.Millisecond, nil
	case wrong.final:
		return 0, c.finish(ctx, r, v1alpha1.RestoreFailed, wrong.reason, wrong.message+"; nothing was touched")
	}
	again := restoreWait
	if wrong.reason == reasonUntried {
		again = time.Minute // each try may fetch all of it
	}
	return again, c.tellWaiting(ctx, r, wrong)
}

// check finds the backup, and what speaks against restoring the cluster from it.
func (c *RestoreController) check(ctx context.Context, r *v1alpha1.EtcdRestore, tell func(string)) (found foundBackup, wrong *restoreWrong, err error) {
	if _, wrong, err = c.target(ctx, r); wrong != nil || err != nil {
		return found, wrong, err
	}
	if found, wrong, err = c.find(ctx, r, tell); wrong != nil || err != nil {
		return found, wrong, err
	}
	t, wrong, err := c.target(ctx, r)
	if wrong != nil || err != nil {
		return found, wrong, err
	}
	return found, fits(t.Cluster, &found), nil
}

// target looks at the cluster that is restored, and says what speaks against it.
func (c *RestoreController) target(ctx context.Context, r *v1alpha1.EtcdRestore) (*State, *restoreWrong, error) {
	cluster := &v1alpha1.EtcdCluster{}
	err := c.opts.Store.Get(ctx, store.Key{Namespace: r.Namespace, Name: r.Spec.ClusterName}, cluster)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, waitf(reasonNoCluster, "there is no EtcdCluster %s in namespace %s: apply one with spec.restoreName: %s, and it is formed from the backup", r.Spec.ClusterName, r.Namespace, r.Name), nil
	case err != nil:
		return nil, nil, err
	case cluster.Observed():
		return nil, refusedf("cluster %s is run by others: make data directories with `quorate restore`, or restore into a cluster of another name", cluster.Name), nil
	case cluster.DeletionTimestamp != nil:
		return nil, waitf(reasonNoCluster, "cluster %s is being deleted", cluster.Name), nil
	case held(cluster):
		return nil, waitf(HeldRestored, "cluster %s is held since the fleet's store was restored: accept its plan first", cluster.Name), nil
	}
	other, err := c.another(ctx, r, func(*v1alpha1.EtcdRestore) bool { return true })
	if other != "" || err != nil {
		return nil, waitf(reasonWaits, "EtcdRestore %s of the cluster is under way; deleting it gives way to this one", other), err
	}
	s, _, err := c.opts.Clusters.observe(ctx, cluster)
	if err != nil {
		return nil, nil, err
	}
	return s, occupied(s, r), nil
}

// another names a restore of the same cluster that is under way, and is such a one.
func (c *RestoreController) another(ctx context.Context, r *v1alpha1.EtcdRestore, such func(other *v1alpha1.EtcdRestore) bool) (string, error) {
	objects, err := c.opts.Store.List(ctx, v1alpha1.KindRestore, store.ListOptions{Namespace: r.Namespace})
	if err != nil {
		return "", err
	}
	for _, o := range objects {
		if other, ok := o.(*v1alpha1.EtcdRestore); ok && other.UID != r.UID && other.Spec.ClusterName == r.Spec.ClusterName && other.Status.Phase == v1alpha1.RestoreRunning && such(other) {
			return other.Name, nil
		}
	}
	return "", nil
}

// goesFirst reports whether, of two restores of a cluster that were accepted at the same
// time, the other one is carried out: either of them must come to the same answer.
func goesFirst(other, r *v1alpha1.EtcdRestore, cluster *v1alpha1.EtcdCluster) bool {
	if other.Status.Token != restoreToken(cluster, other) || other.Status.StartedAt == nil || r.Status.StartedAt == nil {
		return false
	}
	return cmp.Or(other.Status.StartedAt.Compare(r.Status.StartedAt.Time), strings.Compare(other.Name, r.Name)) < 0
}

// occupied says why a cluster's members can't be replaced.
func occupied(s *State, r *v1alpha1.EtcdRestore) *restoreWrong {
	for m := range s.everyMember {
		spec := &m.Object.Spec
		switch {
		case spec.RestoreName == r.Name && spec.Bootstrap != nil && spec.Bootstrap.Token != restoreToken(s.Cluster, r):
			return refusedf("cluster %s was restored by an earlier EtcdRestore of the name %s: apply this one under another name", s.Cluster.Name, r.Name)
		case spec.RestoreName != r.Name && !r.Spec.InPlace:
			return refusedf("cluster %s has members: say inPlace: true to have their data renamed aside and replaced, or restore into a cluster of another name", s.Cluster.Name)
		}
	}
	return nil
}

// fits says why the data of a backup can't be served by a cluster as it is declared.
func fits(cluster *v1alpha1.EtcdCluster, found *foundBackup) *restoreWrong {
	have, wants := etcd.Minor(found.EtcdVersion), etcd.Minor(cluster.Spec.Version)
	quota := cluster.Spec.Etcd.QuotaBackend.Value()
	const mib = 1 << 20
	switch {
	case found.Failed != "":
		return refusedf("backup %s is not right, as its newest proof says: %s: choose another one", found.PointID, found.Failed)
	case have > wants && wants > 0:
		return refusedf("the backup is of etcd %s, and cluster %s runs %s, which does not read its data: restore into a cluster of version 3.%d", found.EtcdVersion, cluster.Name, cluster.Spec.Version, have)
	case quota > 0 && found.DBSize >= quota:
		return refusedf("the database has %d MiB, and the quota of cluster %s is %d MiB: it would refuse every write: raise spec.etcd.quotaBackend first", found.DBSize/mib, cluster.Name, quota/mib)
	}
	return nil
}

// prove has a backup restored into a scratch etcd, where nobody has done that yet. What
// is in no catalog was read whole and checked when it was found.
func (c *RestoreController) prove(ctx context.Context, r *v1alpha1.EtcdRestore, found *foundBackup, tell func(string)) (*restoreWrong, error) {
	if !found.ProvenAt.IsZero() || found.trial.Object != "" || r.Spec.Proof != nil && !r.Spec.Proof.Wanted() {
		return nil, nil //nolint:nilnil // nothing is wrong and nothing went wrong
	}
	tell("the backup is being restored into a scratch etcd, since nobody has done so yet")
	v, err := c.opts.Restores.Prove(ctx, found.trial)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return &restoreWrong{problem{reasonUntried, "the backup could not be proven: " + err.Error() + "; say proof.mode: Never, with a reason, to restore it all the same"}, errors.Is(err, ErrHopeless)}, nil
	case !v.Verified:
		return refusedf("backup %s is not right: %s: choose another one", found.PointID, v.Reason), nil
	}
	found.ProvenAt = v.At
	return nil, nil //nolint:nilnil // nothing is wrong and nothing went wrong
}

// accept writes down what is to be restored, and has the cluster's controller begin.
func (c *RestoreController) accept(ctx context.Context, r *v1alpha1.EtcdRestore, found *foundBackup) (*restoreWrong, error) {
	s, wrong, err := c.target(ctx, r)
	if wrong != nil || err != nil {
		return wrong, err
	}
	if wrong = c.settle(r, s, found); wrong != nil {
		return wrong, nil
	}
	if !r.Spec.InPlace && s.Cluster.Spec.RestoreName != r.Name {
		// From here on the cluster is held: it must not be given members without data.
		if err = c.name(ctx, r); err != nil {
			return nil, err
		}
		if _, wrong, err = c.target(ctx, r); wrong != nil || err != nil {
			return wrong, err
		}
	}
	now := v1alpha1.NewTime(c.opts.Now())
	r.Status.Phase, r.Status.StartedAt = v1alpha1.RestoreRunning, &now
	r.Status.Message = "the cluster is being formed from the backup"
	c.condition(r, true, "Restoring")
	if err = c.opts.Store.UpdateStatus(ctx, r); err != nil {
		return nil, ignoreNotFound(err)
	}
	c.opts.Recorder.Record(ctx, store.About(r, store.Event{Type: store.Normal, Reason: "RestoreBegun", Source: "fleet", Message: lossText(&r.Status, found.without)}))
	// Its name is put into the cluster's spec as soon as it is looked at again.
	return nil, nil //nolint:nilnil // nothing is wrong and nothing went wrong
}

// settle fills in the status of a restore as it would be carried out now.
func (c *RestoreController) settle(r *v1alpha1.EtcdRestore, s *State, found *foundBackup) *restoreWrong {
	st := &r.Status
	st.Point = &v1alpha1.RestorePoint{
		ID: found.PointID, Destination: found.trial.Store.Name, EtcdVersion: found.EtcdVersion,
		Revision: found.Revision, DBSize: found.DBSize, Keys: found.Keys,
	}
	if found.Of.Cluster != "" {
		st.Point.Cluster, st.Point.ClusterID = found.Of.Namespace+"/"+found.Of.Cluster, found.Of.ClusterID.String()
	}
	for _, t := range []struct {
		is   time.Time
		into **v1alpha1.Time
	}{{found.TakenAt, &st.Point.TakenAt}, {found.ProvenAt, &st.Point.ProvenAt}} {
		if !t.is.IsZero() {
			at := v1alpha1.NewTime(t.is)
			*t.into = &at
		}
	}
	st.LastRevision, st.Places = 0, nil
	for m := range s.everyMember {
		if m.Object.Spec.RestoreName == r.Name {
			continue
		}
		if a, ok := s.answer(m); ok {
			st.LastRevision = max(st.LastRevision, a.Revision)
		}
		st.Places = append(st.Places, v1alpha1.RestorePlace{Member: m.Object.Name, Host: m.Object.Spec.Host, Ports: m.Object.Spec.Ports})
	}
	st.LostRevisions = 0
	if found.Of.ClusterID.String() == s.Cluster.Status.ClusterID {
		st.LostRevisions = max(st.LastRevision-found.Revision, 0)
	}
	if b := r.Spec.BumpRevision; b != nil {
		if seen := max(st.LastRevision, found.remembered); seen > found.Revision+*b {
			return refusedf("bumpRevision %d leads to revision %d, and clients have seen up to %d: give at least %d, or leave it out",
				*b, found.Revision+*b, seen, seen-found.Revision)
		}
		st.BumpRevision, st.BumpReason = *b, "as spec.bumpRevision says"
	} else {
		st.BumpRevision, st.BumpReason = c.opts.Restores.Bump(found.Revision, st.LastRevision)
		if beyond := found.remembered - found.Revision; st.LastRevision == 0 && beyond > 0 {
			st.BumpRevision += beyond
			st.BumpReason += fmt.Sprintf("; records tell of revision %d, and nobody of how many came after it", found.remembered)
		}
	}
	st.Revision = found.Revision + st.BumpRevision
	st.Token = restoreToken(s.Cluster, r)
	return nil
}

// lossText says what a restore costs.
func lossText(st *v1alpha1.EtcdRestoreStatus, without []string) string {
	p := st.Point
	text := fmt.Sprintf("backup %s of revision %d, %d keys", p.ID, p.Revision, p.Keys)
	if p.TakenAt != nil {
		text += ", taken " + p.TakenAt.UTC().Format(time.RFC3339)
	}
	switch {
	case st.LastRevision > 0 && p.Cluster == "":
		text += fmt.Sprintf("; the cluster, at revision %d, loses all that it holds and the snapshot does not", st.LastRevision)
	case st.LastRevision > 0 && st.LostRevisions == 0 && st.LastRevision > p.Revision:
		text += fmt.Sprintf("; the cluster, at revision %d, is not the one that was backed up, but was formed since: all that it holds is lost to it", st.LastRevision)
	case st.LastRevision > 0:
		text += fmt.Sprintf("; the cluster is at revision %d: what %d revisions wrote since is lost to it", st.LastRevision, st.LostRevisions)
	case len(st.Places) > 0:
		text += "; no member answers, so nobody knows how much was written since: that is lost to the cluster"
	}
	if len(without) > 0 {
		text += "; other stores may have a newer one: " + clip(strings.Join(without, "; "))
	}
	return text
}

// name names the restore in the cluster's spec.
func (c *RestoreController) name(ctx context.Context, r *v1alpha1.EtcdRestore) error {
	key := store.Key{Namespace: r.Namespace, Name: r.Spec.ClusterName}
	return store.Mutate(ctx, c.opts.Store, key, &v1alpha1.EtcdCluster{}, func(o *v1alpha1.EtcdCluster) (bool, error) {
		if o.Spec.RestoreName == r.Name || restoreToken(o, r) != r.Status.Token {
			return false, nil
		}
		o.Spec.RestoreName = r.Name
		return true, nil
	})
}

// follow looks at a restore that the cluster's controller carries out.
func (c *RestoreController) follow(ctx context.Context, r *v1alpha1.EtcdRestore) (time.Duration, error) {
	cluster := &v1alpha1.EtcdCluster{}
	key := store.Key{Namespace: r.Namespace, Name: r.Spec.ClusterName}
	err := c.opts.Store.Get(ctx, key, cluster)
	if err == nil {
		other, listErr := c.another(ctx, r, func(o *v1alpha1.EtcdRestore) bool { return goesFirst(o, r, cluster) })
		if listErr != nil {
			return 0, listErr
		}
		if other != "" {
			return 0, c.finish(ctx, r, v1alpha1.RestoreFailed, reasonWaits, "EtcdRestore "+other+" of the cluster was begun before this one, and is carried out: apply this one under another name once that is over")
		}
		if err = c.name(ctx, r); err == nil {
			err = c.opts.Store.Get(ctx, key, cluster)
		}
	}
	if errors.Is(err, store.ErrNotFound) || err == nil && restoreToken(cluster, r) != r.Status.Token {
		return 0, c.finish(ctx, r, v1alpha1.RestoreFailed, reasonNoCluster, "the cluster was deleted meanwhile; the data of its members was renamed aside")
	}
	if err != nil {
		return 0, err
	}
	s, tasks, err := c.opts.Clusters.observe(ctx, cluster)
	if err != nil {
		return 0, err
	}
	if done, id := restored(s, r); done {
		r.Status.ClusterID = id
		return 0, c.finish(ctx, r, v1alpha1.RestoreCompleted, "Restored", fmt.Sprintf("all %d members serve the data of %s, from revision %d on", len(s.Members), r.Status.Point.ID, r.Status.Revision))
	}
	text := s.restoreText()
	if p := Plan(s); p.Held != "" && tasks.open == nil {
		text += ": " + p.Held
	}
	if cluster.Spec.Suspended {
		text += "; the cluster is suspended, and goes on once spec.suspended is false"
	}
	c.say(ctx, r, text)
	return restoreLook, nil
}

// restored reports whether every member serves what was restored.
func restored(s *State, r *v1alpha1.EtcdRestore) (done bool, clusterID string) {
	if len(s.Former) > 0 || len(s.Members) < int(s.Cluster.Spec.Replicas) {
		return false, ""
	}
	for i := range s.Members {
		m := &s.Members[i]
		a, ok := s.answer(m)
		if !ok || !s.serves(m) || m.Object.Spec.MemberID == "" || m.Object.Spec.RestoreName != r.Name || a.Revision < r.Status.Revision {
			return false, ""
		}
		clusterID = a.ClusterID.String()
	}
	return true, clusterID
}

// finish ends a restore.
func (c *RestoreController) finish(ctx context.Context, r *v1alpha1.EtcdRestore, phase v1alpha1.RestorePhase, reason, message string) error {
	now := v1alpha1.NewTime(c.opts.Now())
	r.Status.Phase, r.Status.Message, r.Status.FinishedAt = phase, clip(message), &now
	if r.Status.StartedAt != nil {
		r.Status.TookMilliseconds = now.Sub(r.Status.StartedAt.Time).Milliseconds()
	}
	c.condition(r, false, reason)
	if err := c.opts.Store.UpdateStatus(ctx, r); err != nil {
		return ignoreNotFound(err)
	}
	e := store.Event{Type: store.Normal, Reason: "Restore" + string(phase), Message: r.Status.Message, Source: "fleet"}
	if phase == v1alpha1.RestoreFailed {
		e.Type = store.Warning
	}
	c.opts.Recorder.Record(ctx, store.About(r, e))
	return nil
}

// tellWaiting writes what a restore waits for.
func (c *RestoreController) tellWaiting(ctx context.Context, r *v1alpha1.EtcdRestore, wrong *restoreWrong) error {
	message := clip(wrong.message)
	if r.Status.Phase == v1alpha1.RestorePending && r.Status.Message == message {
		return nil
	}
	r.Status.Phase, r.Status.Message = v1alpha1.RestorePending, message
	c.condition(r, false, wrong.reason)
	if err := c.opts.Store.UpdateStatus(ctx, r); err != nil {
		return ignoreNotFound(err)
	}
	c.opts.Recorder.Record(ctx, store.About(r, store.Event{Type: store.Warning, Reason: wrong.reason, Message: message, Source: "fleet"}))
	return nil
}

// say writes how far a restore is. That it could not be said costs nothing.
func (c *RestoreController) say(ctx context.Context, r *v1alpha1.EtcdRestore, text string) {
	if text = clip(text); r.Status.Message == text {
		return
	}
	if r.Status.Phase != v1alpha1.RestoreRunning {
		r.Status.Phase = v1alpha1.RestoreChecking
	}
	r.Status.Message = text
	c.condition(r, true, string(r.Status.Phase))
	if err := c.opts.Store.UpdateStatus(ctx, r); err != nil && ctx.Err() == nil {
		c.opts.Logger.DebugContext(ctx, "the progress of a restore", slog.String("restore", r.Name), slog.Any("error", err))
	}
}

// condition says whether a restore goes on, and whether something is wrong with it.
func (c *RestoreController) condition(r *v1alpha1.EtcdRestore, progressing bool, reason string) {
	conditions := []v1alpha1.Condition{
		{Type: v1alpha1.ConditionProgressing, Status: v1alpha1.False},
		{Type: v1alpha1.ConditionDegraded, Status: v1alpha1.False},
	}
	switch {
	case progressing:
		conditions[0].Status = v1alpha1.True
	case r.Status.Phase != v1alpha1.RestoreCompleted:
		conditions[1].Status = v1alpha1.True
	}
	for _, cond := range conditions {
		cond.Reason, cond.Message, cond.ObservedGeneration = reason, r.Status.Message, r.Generation
		v1alpha1.SetCondition(&r.Status.Conditions, cond)
	}
}

func ignoreNotFound(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// Preview returns the restore with the status that it would begin with: which backup,
// and what would be lost. Phase is Restoring where it would begin, and else Pending or
// Failed, with the reason in Message. Nothing is written, and nothing proven.
func (c *RestoreController) Preview(ctx context.Context, r *v1alpha1.EtcdRestore) (*v1alpha1.EtcdRestore, error) {
	r = r.DeepCopy()
	r.Status = v1alpha1.EtcdRestoreStatus{}
	s, wrong, err := c.target(ctx, r)
	if err != nil {
		return nil, err
	}
	// Which backup it is, and whether there is one, is worth knowing all the same.
	found, missing, err := c.find(ctx, r, func(string) {})
	switch {
	case err != nil:
		return nil, err
	case missing != nil:
		if wrong == nil || !wrong.final {
			wrong = missing
		}
	case wrong != nil:
		_ = c.settle(r, &State{Cluster: &v1alpha1.EtcdCluster{}}, &found)
	default:
		wrong = fits(s.Cluster, &found)
		if late := c.settle(r, s, &found); wrong == nil {
			wrong = late
		}
	}
	r.Status.Token = ""
	switch {
	case wrong == nil:
		r.Status.Phase, r.Status.Message = v1alpha1.RestoreRunning, lossText(&r.Status, found.without)
		if found.ProvenAt.IsZero() && found.trial.Object == "" {
			r.Status.Message += "; nobody has restored this backup yet: it is proven first, unless proof.mode is Never"
		}
	case wrong.final:
		r.Status.Phase, r.Status.Message = v1alpha1.RestoreFailed, wrong.message
	default:
		r.Status.Phase, r.Status.Message = v1alpha1.RestorePending, wrong.message
	}
	return r, nil
}

// Open reads the database that a member is to be made from.
func (c *RestoreController) Open(ctx context.Context, m *v1alpha1.EtcdMember) (io.ReadCloser, int64, error) {
	r := &v1alpha1.EtcdRestore{}
	if err := c.opts.Store.Get(ctx, store.Key{Namespace: m.Namespace, Name: m.Spec.RestoreName}, r); err != nil {
		return nil, 0, err
	}
	if r.Status.Phase != v1alpha1.RestoreRunning || r.Status.Point == nil || m.Spec.Bootstrap == nil || m.Spec.Bootstrap.Token != r.Status.Token {
		return nil, 0, fmt.Errorf("EtcdRestore %s is not being carried out for member %s: %w", r.Name, m.Name, store.ErrConflict)
	}
	s, wrong, err := c.seek(ctx, r)
	if err == nil && wrong != nil {
		err = fmt.Errorf("%s: %w", wrong.message, store.ErrUnavailable)
	}
	if err != nil {
		return nil, 0, err
	}
	p := r.Status.Point
	for _, in := range s.stores {
		if in.Name != p.Destination {
			continue
		}
		trial := BackupTrial{Store: in, PointID: p.ID, Object: s.what.Object, Identity: s.what.Identity}
		if trial.BackupsOf, err = pointOf(p); err != nil {
			return nil, 0, err
		}
		return c.opts.Restores.Open(ctx, trial)
	}
	return nil, 0, fmt.Errorf("destination %s, from which EtcdRestore %s reads, is gone: %w", p.Destination, r.Name, store.ErrUnavailable)
}
