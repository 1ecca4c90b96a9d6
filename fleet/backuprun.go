package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

const (
	// backupBeat is how often the server says that it still works on a backup, and
	// backupLease how long it is believed after that.
	backupBeat  = 10 * time.Second
	backupLease = 2 * time.Minute
	// backupTurn is how long a backup waits for another one of its cluster before it
	// looks again.
	backupTurn = time.Second
	// proofTries is how often a proof is tried that can't be carried out, and proofWait
	// how long after the first time; each further wait is four times as long.
	proofTries = 3
	proofWait  = 15 * time.Second
	// keepRecords is how many finished EtcdBackups of a cluster and policy are kept as
	// history, beside the newest that is verified. What they tell of stays in the stores.
	keepRecords = 10
	// lastWords is how long a server that is stopped takes to say so.
	lastWords = 3 * time.Second
)

// Reasons of conditions and events of backups.
const (
	reasonServerGone = "ServerGone"
	reasonFailed     = "BackupFailed"
	reasonUntried    = "ProofNotCarriedOut"
)

var (
	// errRecordLost: the record is gone, or another server has taken it over.
	errRecordLost = errors.New("the record of the backup is gone or has been taken over")
	// errTooLong: the time for a stage is over.
	errTooLong = errors.New("it took longer than it may")
)

// BackupOptions are those of a BackupController.
type BackupOptions struct {
	Store       store.Store
	Backups     Backups
	Credentials Credentials
	Recorder    store.Recorder
	Logger      *slog.Logger
	// Server names this server for as long as its data directory is the same: what it
	// left behind when it died is then known at once.
	Server string
	// Now is the clock; time.Now by default.
	Now func() time.Time
	// TakeTime, ProveTime and PruneTime are the most that a backup, one proof and one
	// pruning may take. Default 6 h, 6 h and 1 h.
	TakeTime, ProveTime, PruneTime time.Duration
	// Registerer of metrics. Default: none.
	Registerer prometheus.Registerer
}

// BackupController takes backups as EtcdBackups and EtcdBackupPolicies order them.
type BackupController struct {
	opts BackupOptions
	book backupBook

	mu sync.Mutex
	// busy are the clusters of which a backup is under way in this process, each with
	// the key of its record, and running the records.
	busy    map[store.Key]store.Key
	running map[store.Key]bool
	// passed is when each policy was looked at last.
	passed map[store.Key]pass
}

// NewBackupController returns a controller.
func NewBackupController(o BackupOptions) (*BackupController, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	for _, d := range []struct {
		of        *time.Duration
		otherwise time.Duration
	}{{&o.TakeTime, 6 * time.Hour}, {&o.ProveTime, 6 * time.Hour}, {&o.PruneTime, time.Hour}} {
		if *d.of == 0 {
			*d.of = d.otherwise
		}
	}
	c := &BackupController{
		opts: o, busy: map[store.Key]store.Key{}, running: map[store.Key]bool{}, passed: map[store.Key]pass{},
	}
	if o.Registerer != nil {
		if err := o.Registerer.Register(newBackupMetrics(&c.book)); err != nil {
			return nil, fmt.Errorf("register the metrics of backups: %w", err)
		}
	}
	return c, nil
}

// ReconcileBackup carries out one EtcdBackup, from its beginning to its end. It may take
// hours: how many run at once is how many workers its runner has. Of one cluster there
// is never more than one.
func (c *BackupController) ReconcileBackup(ctx context.Context, key store.Key) (time.Duration, error) {
	b := &v1alpha1.EtcdBackup{}
	err := c.opts.Store.Get(ctx, key, b)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil || b.Finished() || b.DeletionTimestamp != nil {
		return 0, err
	}
	orphan, wait := c.orphan(b)
	switch {
	case wait > 0:
		return wait, nil
	case orphan && b.Status.Phase == v1alpha1.BackupRunning:
		return 0, c.bury(ctx, b)
	}
	cluster := store.Key{Namespace: b.Namespace, Name: b.Spec.ClusterName}
	if !c.enter(cluster, key) {
		return backupTurn, c.tellWaiting(ctx, b, "it waits for another backup of the cluster")
	}
	defer c.leave(cluster, key)
	if other, err := c.elsewhere(ctx, b); err != nil || other != "" {
		return backupTurn, errors.Join(err, c.tellWaiting(ctx, b, "it waits for backup "+other+" of the cluster, which another server takes"))
	}
	return 0, c.carryOut(ctx, b)
}

// enter makes a record the only one of its cluster that this process works on.
func (c *BackupController) enter(cluster, record store.Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, taken := c.busy[cluster]; taken {
		return false
	}
	c.busy[cluster], c.running[record] = record, true
	return true
}

func (c *BackupController) leave(cluster, record store.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.busy, cluster)
	delete(c.running, record)
}

func (c *BackupController) runs(record store.Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running[record]
}

// orphan reports whether the server that works on a backup is gone, or how long until
// that can be told. A backup that nobody works on is none.
func (c *BackupController) orphan(b *v1alpha1.EtcdBackup) (orphan bool, wait time.Duration) {
	if b.Status.Phase != v1alpha1.BackupRunning && b.Status.Phase != v1alpha1.BackupProving {
		return false, 0
	}
	if b.Status.Server == c.opts.Server {
		return !c.runs(store.KeyOf(b)), 0
	}
	if b.Status.RenewedAt == nil {
		return true, 0
	}
	silent := c.opts.Now().Sub(b.Status.RenewedAt.Time)
	// A server whose clock is far ahead would be believed for ever.
	if silent < -backupLease || silent > backupLease {
		return true, 0
	}
	return false, max(backupLease-silent, backupTurn)
}

// bury marks a backup failed whose server is gone.
func (c *BackupController) bury(ctx context.Context, b *v1alpha1.EtcdBackup) error {
	buried := false
	err := store.MutateStatus(ctx, c.opts.Store, store.KeyOf(b), &v1alpha1.EtcdBackup{}, func(now *v1alpha1.EtcdBackup) (bool, error) {
		orphan, _ := c.orphan(now)
		if buried = orphan && now.UID == b.UID && now.Status.Phase == v1alpha1.BackupRunning; !buried {
			return false, nil
		}
		finishBackup(&now.Status, c.opts.Now(), backupEnd{
			phase: v1alpha1.BackupFailed, reason: reasonServerGone,
			message: "the server went away while it was taken: what was uploaded is no backup, and is collected",
		})
		*b = *now
		return true, nil
	})
	if errors.Is(err, store.ErrNotFound) || err == nil && !buried {
		return nil
	}
	if err == nil {
		c.tell(ctx, b)
	}
	return err
}

// elsewhere names a backup of the same cluster that another server works on. Records may
// be seen late, so this is no guard between servers, only between their habits.
func (c *BackupController) elsewhere(ctx context.Context, b *v1alpha1.EtcdBackup) (string, error) {
	records, err := c.records(ctx, b.Namespace, b.Spec.ClusterName)
	if err != nil {
		return "", err
	}
	for _, o := range records {
		if o.UID == b.UID || o.Status.Server == c.opts.Server {
			continue
		}
		if _, wait := c.orphan(o); wait > 0 {
			return o.Name, nil
		}
	}
	return "", nil
}

// records of a cluster, in the order of their names.
func (c *BackupController) records(ctx context.Context, namespace, cluster string) ([]*v1alpha1.EtcdBackup, error) {
	objects, err := c.opts.Store.List(ctx, v1alpha1.KindBackup, store.ListOptions{Namespace: namespace})
	if err != nil {
		return nil, err
	}
	var records []*v1alpha1.EtcdBackup
	for _, o := range objects {
		if b, ok := o.(*v1alpha1.EtcdBackup); ok && (cluster == "" || b.Spec.ClusterName == cluster) {
			records = append(records, b)
		}
	}
	return records, nil
}

// tellWaiting writes once why a backup has not begun.
func (c *BackupController) tellWaiting(ctx context.Context, b *v1alpha1.EtcdBackup, why string) error {
	if b.Status.Phase == v1alpha1.BackupProving || b.Status.Phase == v1alpha1.BackupPending && b.Status.Message == why {
		return nil
	}
	b.Status.Phase, b.Status.Message = v1alpha1.BackupPending, why
	progressing(&b.Status, "Waiting", why)
	err := c.opts.Store.UpdateStatus(ctx, b)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// backupRun is one backup under way.
type backupRun struct {
	c *BackupController
	// record as it was claimed; what it is now, seen tells.
	record   *v1alpha1.EtcdBackup
	cluster  *v1alpha1.EtcdCluster
	settings backupSettings
	of       BackupsOf
	order    BackupOrder
	identity string

	mu      sync.Mutex
	message string
	latest  *v1alpha1.EtcdBackup
}

// seen is the record as it was last written. It is not to be changed.
func (r *backupRun) seen() *v1alpha1.EtcdBackup {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.latest
}

// carryOut takes, proves and prunes.
func (c *BackupController) carryOut(ctx context.Context, b *v1alpha1.EtcdBackup) error {
	r := &backupRun{c: c, record: b, latest: b}
	wrong, err := r.prepare(ctx)
	if err != nil {
		return err
	}
	if wrong != nil {
		return ignoreGone(r.giveUp(ctx, wrong))
	}
	if err = r.claim(ctx); err != nil {
		return ignoreGone(err)
	}
	working, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var beats sync.WaitGroup
	beats.Go(func() { r.beat(working, cancel) })
	end := r.work(working)
	stopped := ctx.Err() != nil
	lost := errors.Is(context.Cause(working), errRecordLost)
	cancel(nil)
	beats.Wait()
	if lost {
		c.opts.Logger.WarnContext(ctx, "a backup was abandoned", slog.String("backup", b.Name), slog.Any("error", errRecordLost))
		return nil
	}
	if stopped && r.seen().Status.Phase == v1alpha1.BackupProving {
		// The next server goes on with the proof.
		return ctx.Err()
	}
	if stopped {
		end.reason, end.message = reasonServerGone, "Quorate was stopped while it was taken: what was uploaded is no backup, and is collected"
	}
	if err = r.end(ctx, end); err != nil {
		return ignoreGone(err)
	}
	return r.after(ctx, end)
}

// giveUp ends a backup that can't begin, or whose proof can't go on.
func (r *backupRun) giveUp(ctx context.Context, wrong *problem) error {
	c, st := r.c, &r.record.Status
	end := backupEnd{phase: v1alpha1.BackupFailed, reason: wrong.reason, message: wrong.message}
	if st.Phase == v1alpha1.BackupProving {
		for i := range st.Destinations {
			if d := &st.Destinations[i]; d.PointID != "" && d.ProofAt == nil {
				d.Error = clip(wrong.message)
			}
		}
		end = outcome(st.Destinations, r.settings.proof)
	}
	finishBackup(st, c.opts.Now(), end)
	if err := c.opts.Store.UpdateStatus(ctx, r.record); err != nil {
		return err
	}
	c.tell(ctx, r.record)
	if end.phase == v1alpha1.BackupFailed {
		r.learnFailure(allNames(r.settings.destinations))
	}
	return c.tidy(ctx, r.record)
}

func ignoreGone(err error) error {
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, errRecordLost) {
		return nil
	}
	return err
}

// prepare finds out what is to be done, or why it can't be.
func (r *backupRun) prepare(ctx context.Context) (wrong *problem, err error) {
	c, b := r.c, r.record
	if r.settings, wrong, err = c.settings(ctx, b); wrong != nil || err != nil {
		return wrong, err
	}
	r.cluster = &v1alpha1.EtcdCluster{}
	err = c.opts.Store.Get(ctx, store.Key{Namespace: b.Namespace, Name: b.Spec.ClusterName}, r.cluster)
	if errors.Is(err, store.ErrNotFound) {
		return &problem{reasonNoCluster, fmt.Sprintf("there is no EtcdCluster %s in namespace %s", b.Spec.ClusterName, b.Namespace)}, nil
	}
	if err != nil {
		return nil, err
	}
	if b.Spec.ClusterUID != "" && b.Spec.ClusterUID != string(r.cluster.UID) {
		return &problem{reasonNoCluster, fmt.Sprintf("cluster %s is another one than the one that was to be backed up: it was made anew since", r.cluster.Name)}, nil
	}
	proving := b.Status.Phase == v1alpha1.BackupProving
	if wrong = mayBackUp(r.cluster); wrong != nil && !proving {
		return wrong, nil
	}
	if r.of, err = backupsOf(r.cluster); err != nil {
		return nil, err
	}
	if proving && b.Status.ClusterID != r.of.ClusterID.String() {
		return &problem{reasonNoCluster, fmt.Sprintf("cluster %s has another cluster ID than the backup: it was made anew since", r.cluster.Name)}, nil
	}
	if r.order.Stores, wrong, err = c.stores(ctx, b.Namespace, r.settings.destinations); wrong != nil || err != nil {
		return wrong, err
	}
	if r.identity, wrong, err = c.identity(ctx, b.Namespace, r.settings.encryption); wrong != nil && r.settings.proof.Wanted() || err != nil {
		return wrong, err
	}
	if proving {
		return nil, nil //nolint:nilnil // nothing is wrong and nothing went wrong
	}
	if r.order.Access, wrong, err = c.reach(ctx, r.cluster); wrong != nil || err != nil {
		return wrong, err
	}
	r.order.BackupsOf, r.order.Policy = r.of, r.settings.policyName()
	r.order.Member, r.order.WithoutLeader, r.order.Compression = b.Spec.Member, r.settings.leaderless, r.settings.compression
	if r.settings.encryption != nil {
		r.order.Recipients = r.settings.encryption.Recipients
	}
	r.order.Progress = r.say
	return nil, nil //nolint:nilnil // nothing is wrong and nothing went wrong
}

// claim writes that this server works on the backup. Of two servers that try, the store
// lets one.
func (r *backupRun) claim(ctx context.Context) error {
	now := v1alpha1.NewTime(r.c.opts.Now())
	st := &r.record.Status
	if st.Phase != v1alpha1.BackupProving {
		st.Phase, st.StartedAt, st.Message = v1alpha1.BackupRunning, &now, "a member is being chosen"
		progressing(st, "Taking", "it is being taken")
	}
	st.Server, st.RenewedAt = r.c.opts.Server, &now
	return r.c.opts.Store.UpdateStatus(ctx, r.record)
}

// say notes how far it is; it is written with the next beat.
func (r *backupRun) say(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.message = text
}

// beat says every few seconds that this server works on the backup, until ctx ends.
func (r *backupRun) beat(ctx context.Context, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(backupBeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := r.write(ctx, func(*v1alpha1.EtcdBackupStatus) {})
		if errors.Is(err, errRecordLost) || errors.Is(err, store.ErrNotFound) {
			cancel(errRecordLost)
		}
	}
}

// write changes the status of the backup, as long as it is this server's.
func (r *backupRun) write(ctx context.Context, change func(*v1alpha1.EtcdBackupStatus)) error {
	b := &v1alpha1.EtcdBackup{}
	err := store.MutateStatus(ctx, r.c.opts.Store, store.KeyOf(r.record), b, func(b *v1alpha1.EtcdBackup) (bool, error) {
		if b.UID != r.record.UID || b.Finished() || b.Status.Server != r.c.opts.Server {
			return false, errRecordLost
		}
		now := v1alpha1.NewTime(r.c.opts.Now())
		b.Status.RenewedAt = &now
		r.mu.Lock()
		if r.message != "" {
			b.Status.Message = clip(r.message)
		}
		r.mu.Unlock()
		change(&b.Status)
		return true, nil
	})
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.latest = b
	}
	return err
}

// end writes what came of it. A store that is away for a moment does not cost it; a
// server that is being stopped takes a moment for it.
func (r *backupRun) end(ctx context.Context, end backupEnd) error {
	r.say("")
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), lastWords)
		defer cancel()
	}
	for {
		err := r.write(ctx, func(st *v1alpha1.EtcdBackupStatus) { finishBackup(st, r.c.opts.Now(), end) })
		if !errors.Is(err, store.ErrUnavailable) {
			if err == nil {
				r.c.tell(ctx, r.seen())
			}
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(backupTurn):
		}
	}
}

// work takes and proves, and returns how it ended.
func (r *backupRun) work(ctx context.Context) backupEnd {
	if r.record.Status.Phase != v1alpha1.BackupProving {
		if end := r.take(ctx); end.phase != "" {
			return end
		}
	}
	if r.settings.proof.Wanted() {
		r.prove(ctx)
	}
	r.learn()
	return outcome(r.seen().Status.Destinations, r.settings.proof)
}

// take returns how the backup ended, if it has.
func (r *backupRun) take(ctx context.Context) backupEnd {
	takeCtx, cancel := context.WithTimeoutCause(ctx, r.c.opts.TakeTime, errTooLong)
	defer cancel()
	taken, err := r.c.opts.Backups.Take(takeCtx, r.order)
	if err != nil {
		r.learnFailure(allNames(r.settings.destinations))
		return backupEnd{phase: v1alpha1.BackupFailed, reason: reasonFailed, message: because(takeCtx, err).Error()}
	}
	var failed []string
	err = r.write(ctx, func(st *v1alpha1.EtcdBackupStatus) {
		failed = recordTaken(st, &taken)
		if r.settings.proof.Wanted() {
			st.Phase, st.Message = v1alpha1.BackupProving, "it is stored, and is being restored to prove it"
			progressing(st, "Proving", st.Message)
		}
	})
	r.learnFailure(failed)
	if err != nil {
		// It is in the stores all the same.
		return backupEnd{phase: v1alpha1.BackupFailed, reason: reasonFailed, message: "it was taken, and that could not be recorded: " + err.Error()}
	}
	return backupEnd{}
}

// recordTaken notes what was taken, and names the destinations that do not have it.
func recordTaken(st *v1alpha1.EtcdBackupStatus, taken *BackupTaken) (failed []string) {
	st.Source, st.ClusterID, st.EtcdVersion = &taken.Source, taken.ClusterID.String(), taken.EtcdVersion
	st.Revision, st.DBSize, st.StoredSize, st.Keys = taken.Revision, taken.DBSize, taken.StoredSize, taken.Keys
	st.TookMilliseconds = taken.Took.Milliseconds()
	st.Destinations = nil
	for _, w := range taken.Written {
		d := v1alpha1.BackupDestinationStatus{Name: w.Store, PointID: w.PointID, Dir: w.Dir}
		if w.Err != nil {
			d.Error = clip(w.Err.Error())
			failed = append(failed, w.Store)
		}
		st.Destinations = append(st.Destinations, d)
	}
	return failed
}

// because puts the reason for the end of a ctx before what came of that.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// clip bounds what others say.
func clip(text string) string {
	const most = 1000
	text = strings.ToValidUTF8(text, "�")
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

func allNames(list []v1alpha1.BackupDestination) []string {
	names := make([]string, 0, len(list))
	for _, d := range list {
		names = append(names, d.Name)
	}
	return names
}

// bookKey of a destination of this backup; false where it has no policy.
func (r *backupRun) bookKey(destination string) (bookKey, string, bool) {
	i := slices.IndexFunc(r.settings.destinations, func(d v1alpha1.BackupDestination) bool { return d.Name == destination })
	if r.settings.policy == nil || r.cluster == nil || i < 0 {
		return bookKey{}, "", false
	}
	return bookKey{policy: store.KeyOf(r.settings.policy), cluster: r.record.Spec.ClusterName, destination: destination}, r.settings.destinations[i].URL, true
}

// learnFailure counts a failure for destinations.
func (r *backupRun) learnFailure(destinations []string) {
	for _, d := range destinations {
		if key, url, ok := r.bookKey(d); ok {
			r.c.book.change(key, identityOf(r.cluster), url, func(e *bookEntry) { e.failures++ })
		}
	}
}

// learn notes what the stores have now, until they are read again.
func (r *backupRun) learn() {
	b := r.seen()
	for i := range b.Status.Destinations {
		d := &b.Status.Destinations[i]
		if key, url, ok := r.bookKey(d.Name); ok {
			r.c.book.change(key, identityOf(r.cluster), url, func(e *bookEntry) { e.add(b, d, r.c.opts.Now()) })
		}
	}
}
