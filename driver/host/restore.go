package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/datadir"
	"github.com/quorate/quorate/driver"
	"github.com/quorate/quorate/driver/host/supervisor"
)

// Reasons of the condition Restored. NotRestored is one of Prepared too.
const (
	ReasonRestored          = "Restored"
	ReasonNotRestored       = "NotRestored"
	ReasonRestoring         = "Restoring"
	ReasonRestoreUnfinished = "RestoreUnfinished"
	ReasonAnotherRestore    = "AnotherRestore"
)

// A member is restored in three steps, so that a crash between any two is survived:
// its identity file says which IDs the directory will have, and the law refuses an
// empty one from then on; package datadir makes the directory and renames it into its
// place; the identity file says that it is done. A directory that is whole and has those
// IDs needs the last step only.

// restoring is the making of a home's data directory.
type restoring struct {
	mu sync.Mutex
	// lock of the home while it is under way, else nil. It keeps supervisors away.
	lock *supervisor.Lock
}

func (r *restoring) take(h supervisor.Home) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	lock, err := h.TryLock()
	if err == nil {
		r.lock = lock
	}
	return err
}

func (r *restoring) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.lock.Release() // nothing was written through it
	r.lock = nil
}

func (r *restoring) holds(h supervisor.Home) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lock != nil && r.lock.Holds(h)
}

// restoreOf is the home's, made if need be.
func (d *Driver) restoreOf(h supervisor.Home) *restoring {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.restores[string(h)]
	if r == nil {
		r = &restoring{}
		d.restores[string(h)] = r
	}
	return r
}

// holder tells who has the lock of the home: a supervisor, or a restore of this
// driver's.
func (d *Driver) holder(h supervisor.Home) (supervised, busy bool, err error) {
	d.mu.Lock()
	r := d.restores[string(h)]
	d.mu.Unlock()
	if r != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.lock != nil {
			return false, true, nil
		}
	}
	supervised, err = h.Held()
	return supervised, false, err
}

// formedFromBackup: the member's data is made before its etcd is first started.
func formedFromBackup(m *v1alpha1.EtcdMember) bool {
	return m.Spec.Bootstrap != nil && m.Spec.Bootstrap.State == v1alpha1.BootstrapRestored
}

// source is how messages name what the member is restored from.
func source(m *v1alpha1.EtcdMember) string {
	if m.Spec.RestoreName == "" {
		return "its backup"
	}
	return "EtcdRestore " + m.Spec.RestoreName
}

// hasData reports whether the member's data was made: here and for its bootstrap, or
// long ago, since it has joined its cluster.
func hasData(m *v1alpha1.EtcdMember, id datadir.Identity) bool {
	return m.Spec.MemberID != "" || id.Restore.Done() && id.Restore.Token == m.Spec.Bootstrap.Token
}

// restoreOptions are all but the snapshot.
func restoreOptions(m *v1alpha1.EtcdMember, h supervisor.Home) datadir.RestoreOptions {
	b := m.Spec.Bootstrap
	o := datadir.RestoreOptions{
		Path: source(m), Dir: h.DataDir(), Name: m.Name, Token: b.Token,
		BumpRevision: b.BumpRevision, DisarmCorrupt: b.DisarmCorrupt, InitialCluster: map[string][]string{},
	}
	for _, p := range b.InitialCluster {
		o.InitialCluster[p.Name] = append(o.InitialCluster[p.Name], p.URL)
	}
	return o
}

// joinedByRestore has the order say what the member is, for a supervisor that finds no
// identity file.
func joinedByRestore(m *v1alpha1.EtcdMember, h supervisor.Home, o *supervisor.Order) error {
	if !formedFromBackup(m) || o.Joined {
		return nil
	}
	cluster, member, err := restoreOptions(m, h).IDs()
	if err != nil {
		return err
	}
	o.Joined, o.ClusterID, o.MemberID = true, datadir.FormatID(cluster), datadir.FormatID(member)
	return nil
}

// afterRestore takes a directory for done that was made just before a crash, and keeps
// a member without one from being started.
func (d *Driver) afterRestore(ctx context.Context, m *v1alpha1.EtcdMember, h supervisor.Home) *problem {
	if m.Spec.MemberID != "" {
		return nil // it has joined its cluster
	}
	v := d.look(h)
	if v.idErr != nil || hasData(m, v.identity) {
		return nil //nolint:nilerr // the law reads the identity too
	}
	if !v.restoring {
		found, err := d.adoptRestored(ctx, m, h, v.identity)
		if found || errors.Is(err, driver.ErrNotRestorable) {
			err = nil // told by the condition Restored, and by who restores
		}
		if err != nil {
			return &problem{reason: ReasonNotPrepared, message: err.Error()}
		}
		if found {
			return nil
		}
	}
	if m.Spec.Run != v1alpha1.RunRunning {
		return nil
	}
	return &problem{reason: ReasonNotRestored, message: "etcd is not started: the member's data has not been made from " + source(m) + " yet; let it be restored first"}
}

// adoptRestored looks at what is in the place of the data directory: nothing, or one
// that this restore has made, which is noted. ErrNotRestorable when it is anything else.
func (d *Driver) adoptRestored(ctx context.Context, m *v1alpha1.EtcdMember, h supervisor.Home, id datadir.Identity) (bool, error) {
	entries, err := os.ReadDir(h.DataDir())
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%w: its data directory can't be read: %w; move it away, or let the member be replaced", driver.ErrNotRestorable, err)
	}
	verdict, err := datadir.Check(h.DataDir(), id.Expectation())
	switch {
	case err != nil:
		return false, err
	case verdict.State != datadir.OK:
		return false, fmt.Errorf("%w: %s", driver.ErrNotRestorable, verdict.Message)
	case id.Restore == nil || id.Restore.Token != m.Spec.Bootstrap.Token:
		return false, fmt.Errorf("%w: the data directory %s was made by another restore; let the member be replaced", driver.ErrNotRestorable, h.DataDir())
	}
	db, err := datadir.OpenDB(ctx, filepath.Join(h.DataDir(), "member", "snap", "db"))
	if err != nil {
		return false, err
	}
	made := datadir.Restored{ClusterID: verdict.Tail.ClusterID, MemberID: verdict.Tail.MemberID, Revision: db.Info().Revision}
	if err := errors.Join(db.Close(), noteRestored(m, h, made)); err != nil {
		return false, err
	}
	d.log.InfoContext(ctx, "the restored data directory was whole before it was noted", slog.String("home", string(h)))
	return true, nil
}

func noteRestored(m *v1alpha1.EtcdMember, h supervisor.Home, made datadir.Restored) error {
	now := time.Now().UTC()
	return h.ChangeIdentity(string(m.UID), m.Name, func(id *datadir.Identity) bool {
		note := datadir.RestoreNote{Name: m.Spec.RestoreName, Token: m.Spec.Bootstrap.Token, BegunAt: now, DoneAt: now, Revision: made.Revision}
		if id.Restore != nil {
			note.BegunAt = id.Restore.BegunAt
		}
		id.Restoring(note, made.ClusterID, made.MemberID)
		return true
	})
}

// Restore implements driver.Data. The home's lock is held meanwhile, so that no
// supervisor begins; the driver's own is not, so that the member can be looked at.
func (a data) Restore(ctx context.Context, from driver.Snapshot) error {
	if err := named(a.member); err != nil {
		return err
	}
	if err := a.restore(ctx, from); err != nil {
		return fmt.Errorf("restore member %s/%s: %w", a.member.Namespace, a.member.Name, err)
	}
	return nil
}

func (a data) restore(ctx context.Context, from driver.Snapshot) error {
	d, m := a.driver, a.member
	if !formedFromBackup(m) {
		return fmt.Errorf("%w: its spec.bootstrap.state is not Restored; the fleet sets that once every member is prepared", driver.ErrNotRestorable)
	}
	h := d.home(m)
	o := restoreOptions(m, h)
	r := d.restoreOf(h)
	done, err := d.beginRestore(ctx, m, h, r)
	if done || err != nil {
		return err
	}
	defer r.release()
	in := &counted{from: from}
	o.Snapshot, o.Size = in, max(from.Size, 0)
	if from.Name != "" {
		o.Path = from.Name
	}
	made, err := datadir.Restore(ctx, o)
	switch {
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	case err != nil && in.err != nil:
		// What package datadir says of a stream that broke is a consequence.
		return fmt.Errorf("%s: %w", o.Path, in.err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("the disk of %s is full: %w; make room on it", h, err)
	case err != nil:
		return err
	}
	defer d.lock(h)()
	if !r.holds(h) {
		return fmt.Errorf("%w: another directory was put in the place of %s meanwhile; put the home back", supervisor.ErrReplaced, h)
	}
	if err := noteRestored(m, h, made); err != nil {
		return fmt.Errorf("the data directory is made, but that can't be noted: %w; make %s writable", err, h)
	}
	d.log.InfoContext(ctx, "restored a data directory", slog.String("home", string(h)), slog.Int64("bytes", made.Bytes),
		slog.Int64("revision", made.Revision), slog.Duration("took", made.Took))
	return nil
}

// beginRestore takes the home's lock, checks that there is nothing to lose, and notes
// what the directory will be. It reports true, without the lock, when it is made already.
func (d *Driver) beginRestore(ctx context.Context, m *v1alpha1.EtcdMember, h supervisor.Home, r *restoring) (done bool, err error) {
	defer d.lock(h)()
	v := d.look(h)
	if done, err = v.mayRestore(m); done || err != nil {
		return done, err
	}
	cluster, member, err := restoreOptions(m, h).IDs()
	if err != nil {
		return false, fmt.Errorf("%w: %w", driver.ErrNotRestorable, err)
	}
	if err = r.take(h); err != nil {
		return false, err
	}
	defer func() {
		if done || err != nil {
			r.release()
		}
	}()
	if done, err = d.adoptRestored(ctx, m, h, v.identity); done || err != nil {
		return done, err
	}
	err = h.ChangeIdentity(string(m.UID), m.Name, func(id *datadir.Identity) bool {
		id.Restoring(datadir.RestoreNote{Name: m.Spec.RestoreName, Token: m.Spec.Bootstrap.Token, BegunAt: time.Now().UTC()}, cluster, member)
		return true
	})
	if err != nil {
		return false, notWritable(string(h), err)
	}
	return false, nil
}

// mayRestore refuses a home in which there is, or may be, anything else than a prepared
// member. It reports true when its data was made already.
func (v *view) mayRestore(m *v1alpha1.EtcdMember) (done bool, err error) {
	refuse := func(format string, args ...any) (bool, error) {
		return false, fmt.Errorf("%w: %s; let the member be replaced", driver.ErrNotRestorable, fmt.Sprintf(format, args...))
	}
	switch note := v.identity.Restore; {
	case v.restoring:
		return false, errors.New("a restore of it is under way already; wait for its end")
	case v.idErr != nil:
		return false, v.idErr
	case v.stateErr != nil:
		return false, v.stateErr
	case !v.there || v.ports.Client == 0:
		return false, fmt.Errorf("its home %s is not prepared; prepare it first", v.home)
	case v.identity.MemberUID != "" && v.identity.MemberUID != string(m.UID):
		return refuse("its home %s is that of the member with UID %s", v.home, v.identity.MemberUID)
	case note.Done() && note.Token == m.Spec.Bootstrap.Token:
		return true, nil
	case note.Done():
		return refuse("its home %s holds the data of another restore (%s)", v.home, note.Name)
	case m.Spec.MemberID != "":
		return refuse("it has joined its cluster as %s", m.Spec.MemberID)
	case v.held:
		return false, fmt.Errorf("%w: %s is locked; stop the member first", supervisor.ErrHeld, v.home.LockFile())
	case !v.neverStarted():
		return refuse("an etcd has been started in its home %s", v.home)
	}
	return false, nil
}

// restoredCondition tells whether the member has the data it is to begin with.
func (v *view) restoredCondition(m *v1alpha1.EtcdMember) v1alpha1.Condition {
	c := v1alpha1.Condition{Type: v1alpha1.ConditionRestored, Status: v1alpha1.False}
	note := v.identity.Restore
	switch {
	case v.idErr != nil:
		c.Status, c.Reason, c.Message = v1alpha1.Unknown, ReasonHomeCorrupt, v.idErr.Error()
	case hasData(m, v.identity):
		c.Status, c.Reason = v1alpha1.True, ReasonRestored
		if note.Done() {
			c.Message = fmt.Sprintf("made from %s, at revision %d", source(m), note.Revision)
		}
	case note.Done():
		c.Reason, c.Message = ReasonAnotherRestore, fmt.Sprintf("the home %s holds the data of another restore (%s); let the member be replaced", v.home, note.Name)
	case v.restoring:
		c.Reason, c.Message = ReasonRestoring, "its data is being made from "+source(m)
	case note != nil:
		c.Reason, c.Message = ReasonRestoreUnfinished, "its data was not yet whole when the restore from "+source(m)+" ended; it is begun anew"
	default:
		c.Reason, c.Message = ReasonNotRestored, "its data has not been made from "+source(m)+" yet"
	}
	return c
}

// counted reads a snapshot, tells how far it is, and keeps why it broke: package
// datadir takes io.ErrUnexpectedEOF for an end.
type counted struct {
	from driver.Snapshot
	done int64
	err  error
}

// errBroken stands for err.
var errBroken = errors.New("the snapshot broke off")

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.from.Reader.Read(p)
	c.done += int64(n)
	if n > 0 && c.from.Progress != nil {
		c.from.Progress(c.done)
	}
	size := c.from.Size
	switch {
	case size > 0 && c.done > size:
		c.err = fmt.Errorf("%w: it has more than the %d bytes that it should have; read it again", datadir.ErrAltered, size)
	case err == io.EOF && size > 0 && c.done < size: // one that is wrapped is no good end
		c.err = fmt.Errorf("%w: it ended after %d of %d bytes; read it again", datadir.ErrTruncated, c.done, size)
	case err == nil || err == io.EOF:
		return n, err
	default:
		c.err = fmt.Errorf("it broke off after %d bytes: %w", c.done, err)
	}
	return n, errBroken
}
