package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	filippo "filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/inspect"
)

// runOptions are the flags of `quorate backup run`.
type runOptions struct {
	target doctorOptions
	store  storeFlags
	keep   keepFlags

	to             []string
	name           string
	encryptTo      []string
	recipientsFile string
	wanted         backup.Wanted
	prove          bool
	etcd           string
	lockFor        span
	compliance     bool
	dryRun         bool
	output         string

	// files with policies, and once takes one backup now by each.
	files []string
	once  bool
}

// backupJob is a backup that is ready to be taken.
type backupJob struct {
	take   backup.TakeOptions
	access *clusterAccess
	// prove is nil where nothing is to be proven.
	prove      *backup.EtcdCommand
	identities []filippo.Identity
	policy     catalog.Policy
	spool      string
	progress   *progress
	logger     *slog.Logger
}

func backupRunCommand(e *env) *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run ((--endpoints URL[,URL] --name NAME | -c CLUSTER) --to URL | -f FILE)",
		Short: "Back a cluster up, prove the backup by a restore, and prune old ones",
		Long: `Take a backup: of a learner or, where there is none, of a follower, and never of a
member that is behind. It is spooled to this machine's disk at full speed, so that
a slow store does not hold the member up, checked to its last record, compressed,
encrypted if asked, and stored at every --to.

Then it is proven: read back from each store, restored into a scratch directory,
and served by a real etcd on a socket that nobody else reaches, whose keys are
counted and hashed, and compared with what the backup says of itself. That costs a
download, a database's room on disk and some memory; --prove=false goes without.
An encrypted backup can be proven only where its identity is: give
--identity-file.

With a --keep flag, old backups of this cluster are deleted afterwards from each
store where this one arrived and, unless --prove=false, was proven. The newest of
each history, and the newest that is proven, always stay. "quorate backup prune
--dry-run" shows what would go.

With authentication on, the user needs the role root, as for any snapshot.

With -f, an EtcdBackupPolicy in a file says all that, as it does to a server,
and no server is needed. Beside it the files hold the EtcdClusters that it
selects, with spec.management: Observe and Backup in spec.import.maintain, and
the Secrets that both name; or --endpoints and --name say which cluster it is
for. It runs in the foreground: it takes backups when they are due, proves them,
prunes, and writes a line for each event, until it is interrupted. Whether one
is due is learned from the destinations, so that nothing else lasts from one
start to the next. --once takes one backup of each cluster now and ends, for
cron and systemd timers. Of two on the same machine that follow the same policy,
the second is refused. --dry-run says what is due, and what retention would
delete.

The exit code is 0 when every store has it and all proofs agree; 5 when no member
answers or none is fit to be read, 13 when only some stores have it, 14 when a
proof failed, and 15 when a backup was stored but could not be tried.`,
		Example: `  quorate backup run -c playground --to ./backups
  quorate backup run -c playground --to ./backups --keep-last 24 --keep-daily 7 --keep-weekly 5
  quorate backup run -c playground --to ./backups --dry-run
  quorate backup run -f policy.yaml
  quorate backup run -f policy.yaml --once
  quorate backup run -f policy.yaml --dry-run
  quorate backup run -f policy.yaml --once --endpoints http://127.0.0.1:2379 --name prod -o json
  quorate backup run --endpoints https://10.0.0.1:2379 --cacert ca.crt --cert client.crt --key client.key --name prod --to s3://backups/etcd?region=eu-west-1 --to s3://backups-far/etcd?region=us-east-1 --encrypt-to age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p --identity-file backup.key`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(o.files) > 0 {
				return e.backupPolicyRun(cmd, &o)
			}
			job, err := e.readRun(cmd, &o)
			if job != nil {
				defer job.close()
			}
			switch {
			case err != nil:
				return err
			case o.dryRun:
				return e.dryRunBackup(cmd.Context(), job, o.output)
			}
			return e.backupRun(cmd.Context(), job, o.output)
		},
	}
	checkTargetFlags(cmd, &o.target)
	f := cmd.Flags()
	f.StringArrayVar(&o.to, "to", nil, "store that it goes to; may be given several times")
	f.StringVar(&o.name, "name", "", "what the stores call the cluster: NAME or NAMESPACE/NAME (with -c it is the cluster's own)")
	f.StringArrayVar(&o.encryptTo, "encrypt-to", nil, "age recipient that it is encrypted for; may be given several times")
	f.StringVar(&o.recipientsFile, "recipients-file", "", "file with age recipients, one a line")
	f.StringVar(&o.wanted.Member, "member", "", "member to read, by name or ID (default: the best one)")
	f.BoolVar(&o.wanted.WithoutLeader, "without-leader", false, "take the member that is furthest where the cluster has no leader")
	f.BoolVar(&o.prove, "prove", true, "restore it from each store and try it")
	f.StringVar(&o.etcd, "etcd", "", "etcd that it is tried on (default: the one in this program)")
	f.Var(&o.store.rate, "rate", "bytes a second to and from each store at most, such as 50MiB (default: no limit)")
	f.Var(&o.lockFor, "lock-for", "keep anybody from deleting it for so long, such as 30d, by S3's object lock")
	f.BoolVar(&o.compliance, "compliance", false, "with --lock-for: nobody can shorten the lock")
	f.BoolVar(&o.once, "once", false, "with -f: take one backup of each cluster now, and end")
	f.BoolVar(&o.dryRun, "dry-run", false, "only say what would be done: which member would be read, or what is due, and what would be pruned")
	filesFlag(cmd, &o.files, "file or directory with a backup policy, and what it names")
	o.store.bindData(cmd)
	o.keep.bind(cmd)
	outputFlag(cmd, &o.output, backupForms...)
	_ = cmd.RegisterFlagCompletionFunc("to", completeStore) // the command has that flag
	e.completeClusters(cmd)
	return cmd
}

// readRun checks the flags and opens the stores. The job is to be closed also with an
// error.
func (e *env) readRun(cmd *cobra.Command, o *runOptions) (*backupJob, error) {
	if err := checkRunFlags(cmd, o); err != nil {
		return nil, err
	}
	job := &backupJob{progress: newProgress(e)}
	o.store.log = job.progress
	var err error
	if job.policy, err = o.keep.read(cmd); err != nil {
		return nil, err
	}
	if job.spool, err = e.spool(&o.store); err != nil {
		return nil, err
	}
	if job.logger, err = e.logger(slog.LevelWarn, job.progress); err != nil {
		return nil, err
	}
	job.take.Wanted, job.take.SpoolDir, job.take.Logger = o.wanted, job.spool, job.logger
	if job.take.Recipients, err = readRecipients(o.encryptTo, o.recipientsFile); err != nil {
		return nil, usagef(cmd, "%v", err)
	}
	if job.identities, err = readIdentities(o.store.identityFile); err != nil {
		return nil, err
	}
	if o.name != "" {
		if job.take.Cluster, err = e.clusterName(cmd, "name", o.name); err != nil {
			return nil, err
		}
	}
	if o.prove {
		if len(job.take.Recipients) > 0 && len(job.identities) == 0 {
			return nil, usagef(cmd, "an encrypted backup is tried with the identity that opens it: give --identity-file, or go without a proof by --prove=false")
		}
		scratch, etcdErr := scratchEtcd(cmd.Context(), o.etcd)
		if etcdErr != nil {
			return nil, etcdErr
		}
		job.prove = &scratch
	}
	if job.access, err = e.clusterOf(cmd, o.target); err != nil {
		return nil, err
	}
	job.take.Access = job.access.Access
	if o.target.cluster != "" {
		job.take.Cluster = job.access.name
		if err = job.access.refuseUnasked(); err != nil {
			return nil, err
		}
	}
	return job, e.openDestinations(cmd, o, job)
}

func checkRunFlags(cmd *cobra.Command, o *runOptions) error {
	if err := checkOutput(cmd, o.output, backupForms...); err != nil {
		return err
	}
	if err := readCheckTarget(cmd, o.target); err != nil {
		return err
	}
	switch {
	case o.once:
		return usagef(cmd, "--once belongs to -f: name the file with the policy, or leave it out: without -f one backup is taken anyway")
	case len(o.to) == 0:
		return usagef(cmd, "--to is missing: name a store, such as --to s3://bucket/prefix?region=eu-west-1, or a directory")
	case o.target.cluster == "" && o.name == "":
		return usagef(cmd, "--name is missing: etcd knows no name of its cluster, and a store keeps the backups of each apart by it, such as --name prod")
	case o.target.cluster != "" && o.name != "":
		return usagef(cmd, "-c names the cluster, and its backups are called the same: leave --name out")
	case !o.prove && o.etcd != "":
		return usagef(cmd, "--etcd belongs to the proof, which --prove=false leaves out: give one of them")
	case !o.prove && o.store.identityFile != "":
		return usagef(cmd, "--identity-file belongs to the proof, which --prove=false leaves out: give one of them")
	case o.compliance && o.lockFor == 0:
		return usagef(cmd, "--compliance belongs to --lock-for: say how long")
	}
	return nil
}

func (e *env) openDestinations(cmd *cobra.Command, o *runOptions, job *backupJob) error {
	for _, text := range o.to {
		c, err := storeConfig(cmd, text)
		if err != nil {
			return err
		}
		if o.lockFor > 0 && c.Provider != bucket.S3 {
			return usagef(cmd, "--lock-for: %s has no object lock, only S3 has", c)
		}
		for _, d := range job.take.Destinations {
			if d.Name == c.String() {
				return usagef(cmd, "--to names %s twice", c)
			}
		}
		b, err := e.openStore(cmd, text, &o.store, job.spool)
		if err != nil {
			return err
		}
		job.take.Destinations = append(job.take.Destinations, backup.Destination{
			Name: b.String(), Bucket: b, LockFor: time.Duration(o.lockFor), Compliance: o.compliance,
		})
	}
	return nil
}

func (j *backupJob) close() {
	j.progress.done()
	for _, d := range j.take.Destinations {
		_ = d.Bucket.Close() // what it stored was compared already
	}
}

// stored is what came of a backup at one destination.
type stored struct {
	Store string `json:"store"`
	ID    string `json:"id,omitempty"`
	Epoch uint32 `json:"epoch,omitempty"`
	// Seconds that storing it took, beside taking it.
	Seconds float64        `json:"seconds"`
	Error   string         `json:"error,omitempty"`
	Proof   *catalog.Proof `json:"proof,omitempty"`
	// Untried says why there is no proof.
	Untried string   `json:"untried,omitempty"`
	Pruned  []pruned `json:"pruned,omitempty"`
	// PruneError says why not all that was to be pruned is gone.
	PruneError string `json:"pruneError,omitempty"`
}

// backupResult is what is told of a backup.
type backupResult struct {
	Cluster    string         `json:"cluster"`
	Point      *catalog.Point `json:"point,omitempty"`
	Member     string         `json:"member"`
	Role       backup.Role    `json:"role"`
	Why        string         `json:"why"`
	Passed     []string       `json:"passed,omitempty"`
	ReadBytes  int64          `json:"readBytes"`
	ReadSecs   float64        `json:"readSeconds"`
	Seconds    float64        `json:"seconds"`
	Stores     []stored       `json:"stores"`
	Encrypted  bool           `json:"encrypted"`
	ProofAsked bool           `json:"proofAsked"`
}

func (e *env) backupRun(ctx context.Context, job *backupJob, form string) error {
	began := time.Now()
	if err := job.refused(ctx); err != nil {
		return err
	}
	job.take.Progress = job.progress.backing()
	taken, err := backup.Take(ctx, job.take)
	if taken == nil || len(taken.Written) == 0 {
		job.progress.done()
		return err
	}
	r := &backupResult{
		Cluster: job.take.Cluster.String(), Member: taken.Source.Name, Role: taken.Source.Role, Why: taken.Source.Why, Passed: taken.Passed,
		ReadBytes: taken.Snapshot.Size, ReadSecs: taken.StreamTook.Seconds(), Encrypted: len(job.take.Recipients) > 0, ProofAsked: job.prove != nil,
	}
	errs := []error{err}
	for i := range taken.Written {
		w := &taken.Written[i]
		s := stored{Store: w.Destination, Seconds: w.Took.Seconds()}
		if w.Err != nil {
			s.Error = w.Err.Error()
		}
		if w.Point != nil {
			r.Point, s.ID, s.Epoch = w.Point, w.Ref.ID(), w.Ref.Epoch
			errs = append(errs, job.after(ctx, job.take.Destinations[i], w, &s))
		}
		r.Stores = append(r.Stores, s)
	}
	job.progress.done()
	r.Seconds = time.Since(began).Seconds()
	if r.Point == nil {
		return nowhere(job.take.Cluster, taken.Written)
	}
	if bad := e.printChecked(form, r, func() { e.printBackup(r) }); bad != nil {
		return bad
	}
	return errors.Join(errs...)
}

// refused says that no store would take the backup, before a member is read for
// nothing. One that takes it is enough, and so is one of which that is not known.
func (j *backupJob) refused(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	errs := make([]error, 0, len(j.take.Destinations))
	for _, d := range j.take.Destinations {
		_, err := d.Bucket.Stat(ctx, "v1") // nothing has this name
		if !errors.Is(err, bucket.ErrNoBucket) && !errors.Is(err, bucket.ErrDenied) && !errors.Is(err, bucket.ErrClockSkew) {
			return nil // what is wrong may be over when the backup is there
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("back up %s: no store takes it: %w", j.take.Cluster, errors.Join(errs...))
}

// nowhere is the error where no destination has the backup: that of the destinations
// says what is wrong.
func nowhere(cluster catalog.Cluster, written []backup.Written) error {
	errs := make([]error, 0, len(written))
	for _, w := range written {
		errs = append(errs, w.Err)
	}
	return fmt.Errorf("back up %s: no store has it: %w", cluster, errors.Join(errs...))
}

// after proves what was stored at one destination, and prunes there.
func (j *backupJob) after(ctx context.Context, d backup.Destination, w *backup.Written, s *stored) error {
	filter := catalog.Filter{Clusters: []catalog.Cluster{w.Ref.Cluster}}
	if j.prove != nil {
		proof, err := j.tryOne(ctx, d.Bucket, filter, w)
		if err != nil {
			s.Untried = err.Error()
			return err
		}
		s.Proof = proof
		if proof.Result != catalog.Verified {
			return fmt.Errorf("%s in %s: %w: %s", w.Ref.ID(), d.Name, errUnsound, proof.Reason)
		}
	}
	if j.policy.Empty() {
		return nil
	}
	j.progress.step("pruning " + d.Name)
	cat, err := backup.ReadCatalog(ctx, d.Bucket, catalog.ReadOptions{Filter: filter})
	if err == nil {
		s.Pruned, err = pruneStore(ctx, d.Bucket, cat, j.policy)
	}
	if err != nil {
		s.PruneError = err.Error()
		return fmt.Errorf("prune %s: %w", d.Name, err)
	}
	return nil
}

func (j *backupJob) tryOne(ctx context.Context, b bucket.Bucket, filter catalog.Filter, w *backup.Written) (*catalog.Proof, error) {
	cat, err := backup.ReadCatalog(ctx, b, catalog.ReadOptions{Filter: filter})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", backup.ErrUnproven, err)
	}
	for i := range cat.Entries {
		if cat.Entries[i].Ref.Compare(w.Ref) == 0 {
			return backup.Prove(ctx, &cat.Entries[i], backup.ProveOptions{
				Bucket: b, Identities: j.identities, ScratchDir: j.spool, Etcd: *j.prove, Progress: j.progress.backing(), Logger: j.logger,
			})
		}
	}
	return nil, fmt.Errorf("%s in %s: %w: the store does not list it", w.Ref.ID(), b, backup.ErrUnproven)
}

// stageTexts say what goes on.
var stageTexts = map[backup.Stage]string{
	backup.StageChoose: "choosing a member", backup.StageStream: "reading", backup.StageCheck: "checking every record",
	backup.StageUpload: "storing in", backup.StageDownload: "reading it back", backup.StageRestore: "restoring",
	backup.StageStart: "starting etcd on it", backup.StageCompare: "counting and hashing its keys", backup.StageCommit: "noting it in", backup.StageReadBack: "reading it back from",
}

// backing shows the progress of a backup, a proof or a restore. Only a terminal shows
// each step of it.
func (p *progress) backing() func(backup.Progress) {
	var mu sync.Mutex
	began := map[string]time.Time{}
	return func(now backup.Progress) {
		text := strings.TrimSpace(stageTexts[now.Stage] + " " + now.Of)
		if now.Of == "" {
			text = strings.TrimSuffix(text, " in")
		}
		mu.Lock()
		defer mu.Unlock()
		since, told := began[text]
		if !told {
			since = time.Now()
			began[text] = since
		} else if !p.terminal {
			return
		}
		if p.terminal && now.Done > 0 {
			text += ": " + inspect.Size(now.Done)
			if now.Total >= now.Done {
				text += " of " + inspect.Size(now.Total)
			}
			if took := time.Since(since); took > time.Second {
				text += ", " + perSecond(now.Done, took)
			}
		}
		p.step(text)
	}
}

// perSecond is a speed in MB/s, as disks and networks have it.
func perSecond(n int64, took time.Duration) string {
	const mega = 1e6
	return fmt.Sprintf("%.0f MB/s", float64(n)/mega/max(took.Seconds(), 1e-3))
}
