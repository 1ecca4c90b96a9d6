package fleet

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
	"github.com/quorate/quorate/driver"
	"github.com/quorate/quorate/internal/backoff"
	"github.com/quorate/quorate/store"
)

// Reasons of the condition Restored while the controller works on it.
const (
	ReasonRestoring     = "Restoring"
	ReasonRestoreFailed = "RestoreFailed"
)

const (
	// maxRestores is how many members are restored at once: each takes what disk and
	// network give.
	maxRestores = 2
	// restoreSilence is how long a snapshot may give no byte before it is asked for anew.
	restoreSilence = 2 * time.Minute
	// restoringLook is how often a member that is being restored is looked at.
	restoringLook = 500 * time.Millisecond
	// tellEvery and tellSteps bound how often the progress is told: no sooner, and in
	// steps of a share of the whole.
	tellEvery = 2 * time.Second
	tellSteps = 20
)

// errSilent ends an attempt whose snapshot gives nothing.
var errSilent = fmt.Errorf("it gave no byte within %s", restoreSilence)

// restores are the members that are being restored. What is wanted stands in their
// objects, and what is done on their disks: it may all be lost.
type restores struct {
	mu   sync.Mutex
	jobs map[store.Key]*restoreJob
	// begin starts a job; nil where Run does not run.
	begin func(job *restoreJob)
	// turns are taken by those that restore at this moment.
	turns chan struct{}
}

func newRestores() *restores {
	return &restores{jobs: map[store.Key]*restoreJob{}, turns: make(chan struct{}, maxRestores)}
}

func (r *restores) job(key store.Key) *restoreJob {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.jobs[key]
}

func (r *restores) drop(key store.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.jobs, key)
}

// add begins a restore of m, and returns nil where that can't be.
func (r *restores) add(m *v1alpha1.EtcdMember) *restoreJob {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begin == nil {
		return nil
	}
	job := &restoreJob{member: m.DeepCopy(), ended: make(chan struct{}), causes: map[string]bool{}}
	r.jobs[store.KeyOf(m)] = job
	r.begin(job)
	return job
}

// Run carries out the restores of members until ctx ends, and returns when the last
// has ended. Without it no member is restored.
func (c *MemberController) Run(ctx context.Context) {
	var wg sync.WaitGroup
	c.restores.mu.Lock()
	c.restores.begin = func(job *restoreJob) {
		jobCtx, cancel := context.WithCancel(ctx)
		job.cancel = cancel
		wg.Go(func() {
			defer close(job.ended)
			defer cancel()
			c.restore(jobCtx, job)
		})
	}
	c.restores.mu.Unlock()
	<-ctx.Done()
	c.restores.mu.Lock()
	c.restores.begin = nil
	c.restores.mu.Unlock()
	wg.Wait()
}

// formedFromBackup: the member's data is made before its etcd is first started.
func formedFromBackup(m *v1alpha1.EtcdMember) bool {
	return m.Spec.Bootstrap != nil && m.Spec.Bootstrap.State == v1alpha1.BootstrapRestored
}

// endRestore cancels the restore of the member at key, unless m wants it still, and
// waits for its end: nothing else is done to the member before. M is nil where the
// object is gone. The error is that it has not ended yet.
func (c *MemberController) endRestore(ctx context.Context, key store.Key, m *v1alpha1.EtcdMember) error {
	job := c.restores.job(key)
	if job == nil || m != nil && job.isFor(m) {
		return nil
	}
	job.cancel()
	ctx, cancel := context.WithTimeout(ctx, stopWait)
	defer cancel()
	select {
	case <-job.ended:
		c.restores.drop(key)
		return nil
	case <-ctx.Done():
		return fmt.Errorf("member %s: its restore was cancelled and has not ended yet: %w", key, ctx.Err())
	}
}

// restoreStep begins the restore of a member that is ready for it, and says in seen how
// far it is.
func (c *MemberController) restoreStep(m *v1alpha1.EtcdMember, seen *v1alpha1.EtcdMemberStatus) {
	if !formedFromBackup(m) {
		return
	}
	key := store.KeyOf(m)
	job := c.restores.job(key)
	over := job != nil && job.over()
	if over {
		c.restores.drop(key)
	}
	switch {
	case v1alpha1.IsTrue(seen.Conditions, v1alpha1.ConditionRestored):
		return
	case over:
		// What was seen may be from before its end: it is looked at again.
		job.show(seen)
		return
	}
	if job == nil && m.Spec.Run == v1alpha1.RunPrepared && v1alpha1.IsTrue(seen.Conditions, v1alpha1.ConditionPrepared) {
		job = c.restores.add(m)
	}
	if job != nil {
		job.show(seen)
	}
}

// restore makes the member's data, however often it fails, until that is done or ctx
// ends.
func (c *MemberController) restore(ctx context.Context, job *restoreJob) {
	wait := backoff.Backoff{Min: 2 * time.Second, Max: time.Minute}
	for {
		err := c.restoreOnce(ctx, job)
		if err == nil || ctx.Err() != nil {
			return
		}
		d := wait.Next()
		if job.failed(err, time.Now().Add(d)) {
			c.record(ctx, job.member, store.Warning, "RestoreFailed", err.Error()+"; it is tried again until it succeeds")
		}
		c.opts.Logger.WarnContext(ctx, "restore of a member failed", slog.String("member", store.KeyOf(job.member).String()), slog.Any("error", err), slog.Duration("in", d))
		if backoff.Sleep(ctx, d) != nil {
			return
		}
	}
}

func (c *MemberController) restoreOnce(ctx context.Context, job *restoreJob) (err error) {
	select {
	case c.restores.turns <- struct{}{}:
		defer func() { <-c.restores.turns }()
	case <-ctx.Done():
		return ctx.Err()
	}
	m, name := job.member, "EtcdRestore "+job.member.Spec.RestoreName
	if c.opts.Snapshots == nil {
		return fmt.Errorf("%s can't be read here: whoever runs this host's members was given no way to backups", name)
	}
	attempt, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	begun := time.Now()
	body, size, err := c.opts.Snapshots(attempt, m)
	if err != nil {
		return fmt.Errorf("%s can't be read: %w", name, err)
	}
	defer func() { _ = body.Close() }() // its end was read, or it is of no use
	if job.begins(size) {
		c.record(ctx, m, store.Normal, "RestoreStarted", "its data is being made from "+name+ofSize(size))
	}
	watchdog := time.AfterFunc(restoreSilence, func() { cancel(errSilent) })
	watchdog.Stop()
	err = c.opts.Driver.Data(m).Restore(attempt, driver.Snapshot{
		Reader: &watched{body, watchdog}, Size: size, Name: name, Progress: job.progress,
	})
	if cause := context.Cause(attempt); err != nil && errors.Is(cause, errSilent) {
		return fmt.Errorf("%s broke off: %w", name, cause)
	}
	if err != nil {
		return err
	}
	took, bytes := time.Since(begun), job.bytes()
	c.record(ctx, m, store.Normal, "RestoreCompleted", fmt.Sprintf("its data was made from %s: %s in %s%s",
		name, byteText(bytes), took.Round(time.Millisecond), rateText(bytes, took)))
	return nil
}

func (c *MemberController) record(ctx context.Context, m *v1alpha1.EtcdMember, t store.EventType, reason, message string) {
	c.opts.Recorder.Record(ctx, store.About(m, store.Event{Type: t, Reason: reason, Message: message, Source: c.opts.Source}))
}

// watched lets a read of the snapshot last no longer than its watchdog.
type watched struct {
	io.Reader

	watchdog *time.Timer
}

// Read implements io.Reader.
func (w *watched) Read(p []byte) (int, error) {
	w.watchdog.Reset(restoreSilence)
	defer w.watchdog.Stop()
	return w.Reader.Read(p)
}

// restoreJob is the restore of one member.
type restoreJob struct {
	// member as it was when the restore was begun.
	member *v1alpha1.EtcdMember
	cancel context.CancelFunc
	// ended is closed when nothing works on it any more.
	ended chan struct{}

	mu sync.Mutex
	// open: there was a snapshot to read. Size of it, and done bytes of that; size is 0
	// or less where it is not known.
	open       bool
	size, done int64
	// err is why it failed, until the next attempt has read something, and again when
	// that is due.
	err    error
	again  time.Time
	causes map[string]bool
	// said is the progress as it was last told: at that time, and at that step.
	said string
	at   time.Time
	step int64
}

// isFor reports whether m is still to be restored as this job does.
func (j *restoreJob) isFor(m *v1alpha1.EtcdMember) bool {
	_, held := m.Annotations[v1alpha1.AnnotationRestored]
	return m.UID == j.member.UID && m.Spec.Host == j.member.Spec.Host && !held &&
		m.DeletionTimestamp == nil && m.Spec.Run != v1alpha1.RunStopped && v1alpha1.Equal(m.Spec.Bootstrap, j.member.Spec.Bootstrap)
}

func (j *restoreJob) over() bool {
	select {
	case <-j.ended:
		return true
	default:
		return false
	}
}

// begins notes that an attempt has a snapshot to read, and reports whether it is the
// first.
func (j *restoreJob) begins(size int64) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	first := !j.open
	j.open, j.size, j.done = true, size, 0
	return first
}

func (j *restoreJob) progress(done int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.done, j.err = done, nil
}

func (j *restoreJob) bytes() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.done
}

// failed notes why, and reports whether that was not the cause before. Causes that
// differ in numbers alone, such as bytes, are one.
func (j *restoreJob) failed(err error, again time.Time) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.err, j.again = err, again
	cause := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, err.Error())
	if j.causes[cause] {
		return false
	}
	j.causes[cause] = true
	return true
}

// show says in the status how far the restore is.
func (j *restoreJob) show(seen *v1alpha1.EtcdMemberStatus) {
	j.mu.Lock()
	defer j.mu.Unlock()
	c := v1alpha1.Condition{Type: v1alpha1.ConditionRestored, Status: v1alpha1.False, Reason: ReasonRestoring}
	c.Message = "its data is being made from EtcdRestore " + j.member.Spec.RestoreName
	message := fmt.Sprintf("it waits for its turn to be restored: no more than %d members of a host are restored at once", maxRestores)
	switch {
	case j.err != nil:
		c.Reason = ReasonRestoreFailed
		c.Message = fmt.Sprintf("%v; it is tried again at %s", j.err, j.again.UTC().Format(time.RFC3339))
		message = c.Message
	case j.open:
		message = j.tell(time.Now())
	}
	v1alpha1.SetCondition(&seen.Conditions, c)
	if seen.Phase == v1alpha1.MemberPrepared {
		// Whatever else there is to say of it comes first.
		seen.Phase, seen.Message = v1alpha1.MemberRestoring, message
	}
}

// tell is the progress in words, which seldom change: a status is no stream of numbers.
func (j *restoreJob) tell(now time.Time) string {
	step := j.done >> 26 // of 64 MiB
	if j.size > 0 {
		step = min(j.done*tellSteps/j.size, tellSteps)
	}
	if j.said != "" && (step == j.step || now.Sub(j.at) < tellEvery) {
		return j.said
	}
	j.step, j.at = step, now
	j.said = "restored " + byteText(j.done)
	if j.size > 0 {
		j.said = fmt.Sprintf("restored %d %% of %s", step*100/tellSteps, byteText(j.size))
	}
	return j.said
}

func ofSize(n int64) string {
	if n <= 0 {
		return ""
	}
	return " (" + byteText(n) + ")"
}

func byteText(n int64) string {
	if n < 10<<20 {
		return fmt.Sprintf("%d KiB", (n+1<<10-1)>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// rateText is empty where the time was too short to say.
func rateText(n int64, took time.Duration) string {
	if took < time.Millisecond {
		return ""
	}
	return fmt.Sprintf(" (%.1f MiB/s)", float64(n)/(1<<20)/took.Seconds())
}
