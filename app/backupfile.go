package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/backup"
	points "github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/memory"
)

const (
	// meetTime is how long clusters are waited for before it is said that they do not
	// answer, and meetAgain lies between two tries.
	meetTime  = 6 * time.Second
	meetAgain = 500 * time.Millisecond
	// observeTime bounds one look at a cluster, and observeAtOnce how many are looked at
	// at the same time.
	observeTime   = 10 * time.Second
	observeAtOnce = 16
)

// ErrUnanswered says that no member of a cluster answers.
var ErrUnanswered = errors.New("no member answers")

// BackupFileOptions say how policies in files are followed without a server.
type BackupFileOptions struct {
	// Objects of the files with their defaults, in namespaces: EtcdBackupPolicies, the
	// EtcdClusters that they select, and the Secrets that both name.
	Objects []v1alpha1.Object
	// SpoolDir has room for a database twice.
	SpoolDir string
	// Etcds that backups are tried on; the one in this program must be among them.
	Etcds []backup.EtcdCommand
	// Event is told what happens, one event at a time. May be nil.
	Event  func(store.Event)
	Logger *slog.Logger
	// Now is the clock; time.Now by default.
	Now func() time.Time
}

// BackupFile follows the policies of files with the controllers of the server, over a
// store in memory: what lasts is what lies in the stores of the backups. Whether a
// backup is due after a restart is learned from these.
type BackupFile struct {
	opts     BackupFileOptions
	spool    string
	server   string
	store    *memory.Store
	engine   *toldBackups
	recorder *eventTeller
	clusters *fleet.ClusterController
	backups  *fleet.BackupController
	// policies that are followed, and selected the clusters of each.
	policies []*v1alpha1.EtcdBackupPolicy
	selected map[store.Key][]store.Key
	locks    []*os.File
}

// OpenBackupFile checks the objects, and says all that is wrong with them at once; the
// error is store.ErrInvalid, or store.ErrForbidden where all policies are suspended.
// Close it.
func OpenBackupFile(ctx context.Context, o BackupFileOptions) (*BackupFile, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Event == nil {
		o.Event = func(store.Event) {}
	}
	spool, err := filepath.Abs(o.SpoolDir)
	if err != nil {
		return nil, err
	}
	name, err := serverName(spool)
	if err != nil {
		return nil, err
	}
	f := &BackupFile{
		opts: o, spool: spool, server: name, selected: map[store.Key][]store.Key{},
		// The moments of a schedule are drawn by UIDs, which so outlast a restart.
		store:    memory.New(memory.Options{UID: lastingUID, Now: o.Now}),
		recorder: &eventTeller{now: o.Now, tell: o.Event},
	}
	if err = f.load(ctx); err != nil {
		return nil, err
	}
	f.engine = &toldBackups{
		Backups: &backups{
			spool: spool, scratch: spool, releases: etcdsGiven(o.Etcds), log: o.Logger, read: map[string]*points.Cache{},
			missing: "name an etcd %s with --etcd",
		},
		recorder: f.recorder, taken: map[string]error{}, pruned: map[string]prunedBackups{},
	}
	f.clusters = fleet.NewClusterController(fleet.Options{Store: f.store, Recorder: f.recorder, Logger: o.Logger, Now: o.Now})
	f.backups, err = fleet.NewBackupController(fleet.BackupOptions{
		Store: f.store, Backups: f.engine, Credentials: fleet.NewSecretAuthority(f.store), Recorder: f.recorder, Logger: o.Logger, Server: name, Now: o.Now,
	})
	return f, err
}

// lastingUID is the same for every process that reads the same file. Records of backups
// get one of their own.
func lastingUID(kind v1alpha1.Kind, key store.Key) v1alpha1.UID {
	if kind.Kind == v1alpha1.KindBackup.Kind {
		return ""
	}
	return v1alpha1.UID(uuid.NewSHA1(uuid.NameSpaceOID, []byte("quorate.io/"+kind.Plural+"/"+key.String())).String())
}

// Close lets another process follow the same policies.
func (f *BackupFile) Close() error {
	var errs []error
	for _, lock := range f.locks {
		// Whoever looks into it is not to find a process that is gone.
		errs = append(errs, lock.Truncate(0), lock.Close())
	}
	f.locks = nil
	return errors.Join(errs...)
}

// PolicyOutlook is what one policy is about to do.
type PolicyOutlook struct {
	Policy *v1alpha1.EtcdBackupPolicy
	// Schedule in words, such as "every 1h".
	Schedule string
	Clusters []fleet.BackupOutlook
}

// Outlook asks the clusters and the stores, and tells what would be done. It changes
// nothing.
func (f *BackupFile) Outlook(ctx context.Context) ([]PolicyOutlook, error) {
	f.meet(ctx)
	all := make([]PolicyOutlook, 0, len(f.policies))
	for _, p := range f.policies {
		schedule, err := fleet.NewBackupSchedule(p.Spec.Schedule)
		if err != nil {
			return nil, err
		}
		clusters, err := f.backups.Outlook(ctx, store.KeyOf(p))
		if err != nil {
			return nil, err
		}
		for i := range clusters {
			if clusters[i].Refused == "" {
				continue
			}
			if why := f.silence(ctx, clusters[i].Cluster); why != "" {
				clusters[i].Refused = why
			}
		}
		all = append(all, PolicyOutlook{Policy: p, Schedule: schedule.String(), Clusters: clusters})
	}
	return all, nil
}

// meet asks the clusters that no one has asked yet what they are, until each has
// answered or has had its time.
func (f *BackupFile) meet(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, meetTime)
	defer cancel()
	slots := make(chan struct{}, observeAtOnce)
	met := map[store.Key]bool{}
	var wg sync.WaitGroup
	for _, p := range f.policies {
		for _, key := range f.selected[store.KeyOf(p)] {
			if met[key] {
				continue
			}
			met[key] = true
			wg.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				f.meetOne(ctx, key)
			})
		}
	}
	wg.Wait()
}

func (f *BackupFile) meetOne(ctx context.Context, key store.Key) {
	for {
		if c := f.cluster(ctx, key); c == nil || c.Status.ClusterID != "" {
			return
		}
		_, err := f.clusters.ReconcileImported(ctx, key)
		if err != nil && ctx.Err() == nil {
			f.opts.Logger.WarnContext(ctx, "a cluster could not be looked at", slog.String("cluster", key.String()), slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(meetAgain):
		}
	}
}

// cluster as it is known now; nil if the context has ended.
func (f *BackupFile) cluster(ctx context.Context, key store.Key) *v1alpha1.EtcdCluster {
	c := &v1alpha1.EtcdCluster{}
	if err := f.store.Get(ctx, key, c); err != nil {
		return nil
	}
	return c
}

// silence says why a cluster has never answered; empty if it has.
func (f *BackupFile) silence(ctx context.Context, key store.Key) string {
	c := f.cluster(context.WithoutCancel(ctx), key)
	if c == nil || c.Status.ClusterID != "" {
		return ""
	}
	if available := v1alpha1.FindCondition(c.Status.Conditions, v1alpha1.ConditionAvailable); available != nil {
		return available.Message
	}
	return fmt.Sprintf("cluster %s did not answer within %s", c.Name, meetTime)
}

// Run takes, proves and prunes as the policies say, until ctx ends. A backup under way
// is given up then. Lock it first.
func (f *BackupFile) Run(ctx context.Context) error {
	f.meet(ctx)
	if err := f.resume(ctx); err != nil {
		return err
	}
	watch := func(kind v1alpha1.Kind) fleet.Source {
		return func(ctx context.Context) <-chan store.Key { return f.store.Watch(ctx, kind, "") }
	}
	const patience, never = 5 * time.Minute, 7 * 24 * time.Hour
	var wg sync.WaitGroup
	for _, r := range []*fleet.Runner{
		{Name: "imported", Reconcile: f.clusters.ReconcileImported, Workers: observeAtOnce, Timeout: observeTime, Sources: []fleet.Source{watch(v1alpha1.KindCluster)}},
		{Name: "backuppolicy", Reconcile: f.backups.ReconcilePolicy, Workers: 1, Timeout: patience, Sources: []fleet.Source{watch(v1alpha1.KindBackupPolicy), policiesOfBackups(f.store)}},
		{Name: "backup", Reconcile: f.backups.ReconcileBackup, Workers: backupsAtOnce, Timeout: never, Sources: []fleet.Source{watch(v1alpha1.KindBackup)}},
	} {
		r.Logger = f.opts.Logger
		wg.Go(func() { r.Run(ctx) })
	}
	wg.Wait()
	return f.leftUnproven(context.WithoutCancel(ctx))
}

// resume has the newest backups proven that an earlier process has stored and not
// proven: it may have been stopped in between.
func (f *BackupFile) resume(ctx context.Context) error {
	for _, p := range f.policies {
		if !p.Spec.Proof.Wanted() {
			continue
		}
		outlook, err := f.backups.Outlook(ctx, store.KeyOf(p))
		if err != nil {
			return err
		}
		for i := range outlook {
			if outlook[i].Refused != "" {
				continue
			}
			for _, b := range f.unproven(ctx, p, &outlook[i]) {
				if err = f.store.Create(ctx, b); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// unproven are the records of backups whose proof is to go on, as a server would have
// kept them; one for each backup.
func (f *BackupFile) unproven(ctx context.Context, p *v1alpha1.EtcdBackupPolicy, o *fleet.BackupOutlook) map[string]*v1alpha1.EtcdBackup {
	records := map[string]*v1alpha1.EtcdBackup{}
	c := f.cluster(ctx, o.Cluster)
	if c == nil {
		return nil
	}
	for _, d := range o.Destinations {
		n := d.Holdings.Newest
		if n == nil || !n.ProofAt.IsZero() || n.Policy != store.KeyOf(p).String() {
			continue
		}
		if records[n.PointID] == nil {
			b := &v1alpha1.EtcdBackup{Spec: v1alpha1.EtcdBackupSpec{ClusterName: c.Name, PolicyName: p.Name, Reason: v1alpha1.BackupScheduled}}
			b.Namespace, b.Name = c.Namespace, c.Name+"-"+p.Name+"-"+strings.ToLower(n.PointID)
			b.Labels = map[string]string{v1alpha1.LabelCluster: c.Name, v1alpha1.LabelBackupPolicy: p.Name}
			began := v1alpha1.NewTime(n.At)
			b.Status.Phase, b.Status.StartedAt, b.Status.Server = v1alpha1.BackupProving, &began, f.server
			b.Status.ClusterID, b.Status.StoredSize, b.Status.TookMilliseconds = c.Status.ClusterID, n.StoredSize, n.Took.Milliseconds()
			records[n.PointID] = b
		}
		b := records[n.PointID]
		b.Status.Destinations = append(b.Status.Destinations, v1alpha1.BackupDestinationStatus{Name: d.Name, PointID: n.PointID})
	}
	return records
}

// leftUnproven tells of the backups that are stored and whose proof was given up.
func (f *BackupFile) leftUnproven(ctx context.Context) error {
	records, err := f.store.List(ctx, v1alpha1.KindBackup, store.ListOptions{})
	for _, o := range records {
		b, ok := o.(*v1alpha1.EtcdBackup)
		if !ok || b.Status.Phase != v1alpha1.BackupProving {
			continue
		}
		var where []string
		for _, d := range b.Status.Destinations {
			if d.PointID != "" && d.ProofAt == nil {
				where = append(where, d.PointID+" in "+d.Name)
			}
		}
		f.recorder.Record(ctx, store.About(b, store.Event{
			Type: store.Warning, Reason: "ProofGivenUp", Source: "fleet",
			Message: "Quorate was stopped while it proved " + strings.Join(where, ", ") + ": it is stored, and proven by the next start, or by `quorate backup verify`",
		}))
	}
	return err
}

// eventTeller passes events on, one at a time.
type eventTeller struct {
	now  func() time.Time
	mu   sync.Mutex
	tell func(store.Event)
}

// Record implements store.Recorder.
func (t *eventTeller) Record(_ context.Context, e store.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.Time.IsZero() {
		e.Time = t.now()
	}
	t.tell(e)
}

// etcdsGiven are the etcds that backups are tried on, in place of a catalogue.
type etcdsGiven []backup.EtcdCommand

// Resolve implements etcdReleases. The digest is the path.
func (l etcdsGiven) Resolve(version, _ string) (v1alpha1.ReleaseRef, error) {
	for _, e := range l {
		if e.Version == version {
			return v1alpha1.ReleaseRef{Version: version, Digest: e.Path}, nil
		}
	}
	return v1alpha1.ReleaseRef{}, fmt.Errorf("etcd %s: %w", version, store.ErrNotFound)
}

func (etcdsGiven) executable(_ context.Context, digest string) (string, error) { return digest, nil }

// toldBackups tells when a backup begins, and remembers what the records of backups
// have no room for.
type toldBackups struct {
	fleet.Backups

	recorder store.Recorder
	mu       sync.Mutex
	// taken by policy and cluster: the error of the latest backup; pruned by these and
	// the destination.
	taken  map[string]error
	pruned map[string]prunedBackups
}

type prunedBackups struct {
	fleet.BackupPruned

	err error
}

func takenOf(policy string, of store.Key) string { return policy + " " + of.String() }

// Take implements fleet.Backups.
func (b *toldBackups) Take(ctx context.Context, o fleet.BackupOrder) (fleet.BackupTaken, error) {
	b.recorder.Record(ctx, store.Event{
		Type: store.Normal, Reason: "BackupBegun", Kind: v1alpha1.KindCluster.Kind, Namespace: o.Namespace, Name: o.Cluster, Cluster: o.Cluster, Source: "fleet",
		Message: "a backup is being taken by policy " + o.Policy,
	})
	taken, err := b.Backups.Take(ctx, o)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken[takenOf(o.Policy, store.Key{Namespace: o.Namespace, Name: o.Cluster})] = err
	return taken, err
}

// Prune implements fleet.Backups.
func (b *toldBackups) Prune(ctx context.Context, o fleet.BackupPruning) (fleet.BackupPruned, error) {
	pruned, err := b.Backups.Prune(ctx, o)
	if !o.DryRun {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.pruned[takenOf(o.Policy, store.Key{Namespace: o.Namespace, Name: o.Cluster})+" "+o.Store.Name] = prunedBackups{pruned, err}
	}
	return pruned, err
}
