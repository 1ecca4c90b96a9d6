package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

const (
	// policyLook is how often a policy is looked at when nothing happens: a clock that was
	// set is noticed then. policyPause lies between two looks, however much happens.
	policyLook  = time.Minute
	policyPause = 2 * time.Second
	// readEvery is how often a store is asked what it has of a cluster, beside after each
	// backup, and readAgain how soon one that did not answer.
	readEvery = time.Hour
	readAgain = time.Minute
	// readTime is how long one store may take to tell, readMany how many are asked in one
	// look, and readAtOnce how many of them at the same time.
	readTime   = 20 * time.Second
	readMany   = 32
	readAtOnce = 4
	// retryFirst is how long after a failed backup the next is taken; each further wait is
	// twice as long, up to retryMost or the interval.
	retryFirst = time.Minute
	retryMost  = 30 * time.Minute
	// clockSlack is how far in the future a time may lie and be believed.
	clockSlack = time.Minute
)

// pass is a look at a policy.
type pass struct {
	at         time.Time
	generation int64
}

// policyView is what is known of a policy at one moment.
type policyView struct {
	policy   *v1alpha1.EtcdBackupPolicy
	schedule *BackupSchedule
	stale    time.Duration
	now      time.Time
	clusters []clusterBackups
	// unreadable are destinations that can't be asked, with the reason.
	unreadable map[string]string
	lastRun    time.Time
	nextRun    time.Time
}

// clusterBackups is what is known of one cluster's backups under a policy.
type clusterBackups struct {
	cluster *v1alpha1.EtcdCluster
	problem *problem
	// open is the backup that is not finished, and done those that are, newest first.
	open *v1alpha1.EtcdBackup
	done []*v1alpha1.EtcdBackup
	// entries by the destinations of the policy, in their order.
	entries []bookEntry
	due     time.Time
}

// ReconcilePolicy looks at one policy: it orders the backups that are due, and says how
// things stand. It returns when to look again.
func (c *BackupController) ReconcilePolicy(ctx context.Context, key store.Key) (time.Duration, error) {
	p := &v1alpha1.EtcdBackupPolicy{}
	err := c.opts.Store.Get(ctx, key, p)
	if errors.Is(err, store.ErrNotFound) || err == nil && p.DeletionTimestamp != nil {
		c.forgetPolicy(key)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if wait := c.pause(key, p.Generation); wait > 0 {
		return wait, nil
	}
	v := &policyView{policy: p, now: c.opts.Now(), unreadable: map[string]string{}}
	if v.schedule, err = NewBackupSchedule(p.Spec.Schedule); err == nil {
		v.stale, err = durationOr(p.Spec.StaleAfter, v.schedule.StaleAfter())
	}
	if err != nil {
		return policyLook, c.writeInvalid(ctx, p, err)
	}
	if err = c.view(ctx, v); err != nil {
		return 0, err
	}
	more := c.readStores(ctx, v)
	if err = c.order(ctx, v); err != nil {
		return 0, err
	}
	if err = c.writePolicyStatus(ctx, v); err != nil {
		return 0, err
	}
	if more {
		return policyPause, nil
	}
	if wait := v.nextRun.Sub(v.now); !v.nextRun.IsZero() && wait < policyLook {
		return max(wait, policyPause), nil
	}
	return policyLook, nil
}

func (c *BackupController) forgetPolicy(key store.Key) {
	c.book.keep(key, nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.passed, key)
}

// pause is how long until the policy may be looked at again. A changed one may at once.
func (c *BackupController) pause(key store.Key, generation int64) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now() // not the clock of the schedule: it is never set back within a process
	last, ok := c.passed[key]
	if since := now.Sub(last.at); ok && last.generation == generation && since < policyPause {
		return policyPause - since
	}
	c.passed[key] = pass{at: now, generation: generation}
	return 0
}

// view reads the clusters of a policy, and the records of their backups.
func (c *BackupController) view(ctx context.Context, v *policyView) error {
	clusters, err := c.chosen(ctx, v.policy)
	if err != nil {
		return err
	}
	records, err := c.records(ctx, v.policy.Namespace, "")
	if err != nil {
		return err
	}
	byCluster := map[string][]*v1alpha1.EtcdBackup{}
	for _, b := range records {
		if b.Spec.PolicyName == v.policy.Name {
			byCluster[b.Spec.ClusterName] = append(byCluster[b.Spec.ClusterName], b)
		}
	}
	wanted := map[bookKey]bool{}
	for _, cluster := range clusters {
		view := clusterBackups{cluster: cluster, problem: mayBackUp(cluster)}
		mine := byCluster[cluster.Name]
		newestFirst(mine)
		for _, b := range mine {
			if err = c.sort(ctx, v, &view, b); err != nil {
				return err
			}
		}
		for i := range v.policy.Spec.Destinations {
			d := &v.policy.Spec.Destinations[i]
			key := bookKey{policy: store.KeyOf(v.policy), cluster: cluster.Name, destination: d.Name}
			wanted[key] = true
			view.entries = append(view.entries, c.recall(key, d, &view, v.now))
		}
		v.clusters = append(v.clusters, view)
	}
	c.book.keep(store.KeyOf(v.policy), wanted)
	return nil
}

// chosen are the clusters that a policy backs up, by name.
func (c *BackupController) chosen(ctx context.Context, p *v1alpha1.EtcdBackupPolicy) ([]*v1alpha1.EtcdCluster, error) {
	if p.Spec.ClusterName != "" {
		cluster := &v1alpha1.EtcdCluster{}
		err := c.opts.Store.Get(ctx, store.Key{Namespace: p.Namespace, Name: p.Spec.ClusterName}, cluster)
		if errors.Is(err, store.ErrNotFound) || err == nil && cluster.DeletionTimestamp != nil {
			return nil, nil
		}
		return []*v1alpha1.EtcdCluster{cluster}, err
	}
	objects, err := c.opts.Store.List(ctx, v1alpha1.KindCluster, store.ListOptions{Namespace: p.Namespace})
	var chosen []*v1alpha1.EtcdCluster
	for _, o := range objects {
		if cluster, ok := o.(*v1alpha1.EtcdCluster); ok && cluster.DeletionTimestamp == nil && p.Spec.Selector != nil && p.Spec.Selector.Matches(cluster.Labels) {
			chosen = append(chosen, cluster)
		}
	}
	return chosen, err
}

// sort puts a record to those that are open or done. One that a dead server has left is
// finished first. What is dated in the future is passed over: a clock was wrong then.
func (c *BackupController) sort(ctx context.Context, v *policyView, view *clusterBackups, b *v1alpha1.EtcdBackup) error {
	if uid := b.Spec.ClusterUID; uid != "" && uid != string(view.cluster.UID) {
		return nil
	}
	// Those of before a restore are of another history.
	if id := b.Status.ClusterID; id != "" && id != view.cluster.Status.ClusterID && b.Finished() {
		return nil
	}
	if orphan, _ := c.orphan(b); orphan && b.Status.Phase == v1alpha1.BackupRunning {
		if err := c.bury(ctx, b); err != nil {
			return err
		}
	}
	switch {
	case !b.Finished():
		view.open = b
	case !began(b).After(v.now.Add(clockSlack)):
		view.done = append(view.done, b)
	}
	return nil
}

// recall returns what is known of a destination; where nothing is, what the records
// tell.
func (c *BackupController) recall(key bookKey, d *v1alpha1.BackupDestination, view *clusterBackups, now time.Time) bookEntry {
	who := identityOf(view.cluster)
	e := c.book.get(key, who, d.URL)
	if e.known {
		return e
	}
	for _, b := range slices.Backward(view.done) {
		for i := range b.Status.Destinations {
			if to := &b.Status.Destinations[i]; to.Name == d.Name {
				e.add(b, to, now)
			}
		}
	}
	if e.known {
		// How many there are, only the store can tell.
		e.readAt = time.Time{}
		c.book.change(key, who, d.URL, func(in *bookEntry) {
			if !in.known {
				in.known, in.holdings = true, e.holdings
			}
		})
	}
	return e
}

// readStores asks the stores of which too little is known, or not for long. It reports
// whether more are to be asked soon.
func (c *BackupController) readStores(ctx context.Context, v *policyView) (more bool) {
	type question struct{ cluster, destination int }
	var questions []question
	for i := range v.clusters {
		if v.clusters[i].cluster.Status.ClusterID == "" {
			continue
		}
		for j := range v.clusters[i].entries {
			e := &v.clusters[i].entries[j]
			if e.problem != "" {
				v.unreadable[v.policy.Spec.Destinations[j].Name] = e.problem
			}
			if !recently(e.readAt, v.now, readEvery) && !recently(e.triedAt, v.now, readAgain) {
				questions = append(questions, question{i, j})
			}
		}
	}
	if more = len(questions) > readMany; more {
		questions = questions[:readMany]
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	away := map[string]bool{}
	slots := make(chan struct{}, readAtOnce)
	for _, q := range questions {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			name := v.policy.Spec.Destinations[q.destination].Name
			mu.Lock()
			skip := away[name]
			mu.Unlock()
			if skip {
				return // one that is away would take the time of all
			}
			e := c.readStore(ctx, v, q.cluster, q.destination)
			mu.Lock()
			defer mu.Unlock()
			v.clusters[q.cluster].entries[q.destination] = e
			if away[name] = e.problem != ""; away[name] {
				v.unreadable[name] = e.problem
			} else {
				delete(v.unreadable, name)
			}
		})
	}
	wg.Wait()
	return more
}

// recently reports whether a time lies no longer back than that, and not in the future.
func recently(at, now time.Time, within time.Duration) bool {
	return !at.IsZero() && now.Sub(at) < within && !at.After(now.Add(clockSlack))
}

func (c *BackupController) readStore(ctx context.Context, v *policyView, cluster, destination int) bookEntry {
	of, d := v.clusters[cluster].cluster, &v.policy.Spec.Destinations[destination]
	key := bookKey{policy: store.KeyOf(v.policy), cluster: of.Name, destination: d.Name}
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	holdings, err := func() (BackupHoldings, error) {
		in, wrong, err := c.storeOf(ctx, v.policy.Namespace, d)
		if wrong != nil {
			err = errors.New(wrong.message)
		}
		if err != nil {
			return BackupHoldings{}, err
		}
		whose, err := backupsOf(of)
		if err != nil {
			return BackupHoldings{}, err
		}
		return c.opts.Backups.Holds(ctx, whose, in)
	}()
	if err != nil {
		c.opts.Logger.WarnContext(ctx, "a backup store could not be read", slog.String("destination", d.Name), slog.Any("error", err))
	}
	c.book.change(key, identityOf(of), d.URL, func(e *bookEntry) {
		if err == nil {
			e.read(v.now, holdings)
		} else {
			e.triedAt, e.problem = v.now, clip(err.Error())
		}
	})
	return c.book.get(key, identityOf(of), d.URL)
}

// order makes an EtcdBackup for each cluster that is due, and says when the others are.
func (c *BackupController) order(ctx context.Context, v *policyView) error {
	for i := range v.clusters {
		view := &v.clusters[i]
		if last := lastRun(view); last.After(v.lastRun) {
			v.lastRun = last
		}
		if v.policy.Spec.Suspended || view.problem != nil || view.open != nil {
			continue
		}
		due, known := v.dueAt(view)
		if !known {
			continue
		}
		view.due = due
		if due.After(v.now) {
			if v.nextRun.IsZero() || due.Before(v.nextRun) {
				v.nextRun = due
			}
			continue
		}
		b, err := c.create(ctx, v, view)
		if err != nil {
			return fmt.Errorf("order a backup of %s: %w", view.cluster.Name, err)
		}
		view.open = b
	}
	return nil
}

// create makes the order for a cluster that is due. Where a clock was wrong there may be
// one of that name that is over: then the name tells the present minute.
func (c *BackupController) create(ctx context.Context, v *policyView, view *clusterBackups) (*v1alpha1.EtcdBackup, error) {
	at := view.due
	if len(view.done) == 0 {
		at = v.now.Truncate(policyLook)
	}
	b := v.newBackup(view, at)
	err := c.opts.Store.Create(ctx, b)
	if !errors.Is(err, store.ErrExists) {
		return b, err
	}
	there := &v1alpha1.EtcdBackup{}
	if err = c.opts.Store.Get(ctx, store.KeyOf(b), there); err != nil || !there.Finished() {
		return there, err
	}
	b = v.newBackup(view, v.now.Truncate(policyLook))
	if err = c.opts.Store.Create(ctx, b); errors.Is(err, store.ErrExists) {
		err = nil
	}
	return b, err
}

// lastRun is when the latest backup of a cluster began.
func lastRun(view *clusterBackups) time.Time {
	var last time.Time
	if len(view.done) > 0 {
		last = began(view.done[0])
	}
	if view.open != nil && view.open.Status.StartedAt != nil {
		last = view.open.Status.StartedAt.Time
	}
	return last
}

// dueAt says when the next backup is due; a time that has passed means now. It is not
// known as long as neither records nor stores have said what there is.
func (v *policyView) dueAt(view *clusterBackups) (due time.Time, known bool) {
	who := view.cluster.Namespace + "/" + view.cluster.Name + "/" + string(view.cluster.UID)
	if len(view.done) == 0 {
		// Records may be lost; what the stores have counts then. One that could not be read
		// says nothing, unless that is so of all.
		last, told := v.now, false
		for i, e := range view.entries {
			switch {
			case !e.known && e.triedAt.IsZero() && v.unreadable[v.policy.Spec.Destinations[i].Name] == "":
				return due, false
			case !e.known:
				continue
			case e.holdings.Newest == nil || e.holdings.Newest.At.After(v.now.Add(clockSlack)):
				last = time.Time{}
			case e.holdings.Newest.At.Before(last):
				last = e.holdings.Newest.At
			}
			told = true
		}
		if !told {
			return v.now, true
		}
		if last.IsZero() {
			return v.now, true
		}
		return v.schedule.Next(who, last), true
	}
	due = v.schedule.Next(who, began(view.done[0]))
	if again := v.retryAt(view.done); !again.IsZero() && again.Before(due) {
		due = again
	}
	return due, true
}

// retryAt is when a backup that failed is taken again; zero if the last did not fail.
func (v *policyView) retryAt(done []*v1alpha1.EtcdBackup) time.Time {
	failures := 0
	for _, b := range done {
		if b.Status.Phase != v1alpha1.BackupFailed {
			break
		}
		failures++
	}
	if failures == 0 || done[0].Status.FinishedAt == nil {
		return time.Time{}
	}
	const doublings = 5
	wait := min(retryFirst<<min(failures-1, doublings), retryMost, v.schedule.pause())
	at := done[0].Status.FinishedAt.Time
	if at.After(v.now.Add(clockSlack)) {
		return v.now
	}
	return at.Add(wait)
}

// newBackup is the order for a backup that is due. Its name tells the run, so that of
// two servers that find it due only one can order it.
func (v *policyView) newBackup(view *clusterBackups, at time.Time) *v1alpha1.EtcdBackup {
	const nameTime = "20060102-150405"
	sum := sha256.Sum256([]byte(string(v.policy.UID) + "/" + string(view.cluster.UID)))
	b := &v1alpha1.EtcdBackup{Spec: v1alpha1.EtcdBackupSpec{
		ClusterName: view.cluster.Name, ClusterUID: string(view.cluster.UID), PolicyName: v.policy.Name, Reason: v1alpha1.BackupScheduled,
	}}
	b.Namespace = v.policy.Namespace
	b.Name = view.cluster.Name + "-" + at.UTC().Format(nameTime) + "-" + hex.EncodeToString(sum[:3])
	b.Labels = map[string]string{v1alpha1.LabelCluster: view.cluster.Name, v1alpha1.LabelBackupPolicy: v.policy.Name}
	b.Status.Phase, b.Status.Message = v1alpha1.BackupPending, "it is due, and waits for its turn"
	progressing(&b.Status, "Waiting", b.Status.Message)
	return b
}
