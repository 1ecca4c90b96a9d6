package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

const (
	// restoreTimeout of a command that waits for a restore.
	restoreTimeout = 30 * time.Minute
	// previewTime bounds the look for a backup: a snapshot that is in no catalog is
	// fetched for it.
	previewTime = time.Hour
)

var clusterRestoreForms = []string{outTable, outJSON, outYAML}

// clusterRestoreOptions are the flags of `quorate restore cluster`.
type clusterRestoreOptions struct {
	backup      string
	policy      string
	store       string
	object      string
	credentials string
	identity    string

	of          string
	clusterID   string
	point       string
	notAfter    string
	destination string

	inPlace  bool
	bump     string
	disarm   bool
	noProof  string
	name     string
	version  string
	replicas int32

	dryRun  bool
	yes     bool
	wait    bool
	timeout time.Duration
	output  string
}

func restoreClusterCommand(e *env) *cobra.Command {
	var o clusterRestoreOptions
	cmd := &cobra.Command{
		Use:   "cluster NAME (--backup NAME | --policy NAME | --store URL)",
		Short: "Have the server form a cluster from a backup: a new one, or in place",
		Long: `Have the server form a cluster from a backup. A cluster that does not exist is
created, with the version, size and settings of the one that was backed up, where
the fleet still has that, and beside it. One that exists is replaced only with
--in-place: all its members are stopped, with proof; their data is renamed aside,
and kept; new members take their hosts and ports, with the data of the backup.
What was written since the backup is then in the data that was renamed aside, and
nowhere else. A backup that nobody has restored yet is tried in a scratch etcd
before anything is touched.

The backup is named by its EtcdBackup (--backup); by a policy, in whose
destinations it lies, and --point; or by the store alone (--store), where nothing
else is left. --object is a snapshot of etcdctl or of etcd-backup-restore in it.

The revision is moved on, above whatever clients have seen, so that those which
wait for a newer one are told that theirs is gone, and list again.

--dry-run says which backup that would be, what would be lost, and what would
happen to whom. In place it is shown in any case, and the name of the cluster is
asked for; where nobody can be asked, --yes is wanted. It waits until all members
serve, unless --wait=false; the restore goes on whether or not anybody waits.`,
		Example: `  quorate restore cluster prod --backup prod-before-upgrade --in-place --dry-run
  quorate restore cluster prod --backup prod-before-upgrade --in-place
  quorate restore cluster prod-copy --policy nightly --of prod
  quorate restore cluster prod-then --policy nightly --of prod --point latest --not-after 2026-11-21T03:00:00Z
  quorate restore cluster prod --store s3://backups/etcd?region=eu-west-1 --credentials-secret backup-store --of default/prod --version 3.7.3
  quorate restore cluster shoot --store s3://backups/shoot?region=eu-west-1 --object v2/Full-00000000-00012345-1700000000.gz --version 3.7.3`,
		Args:              argsBetween(1, 1, "NAME"),
		ValidArgsFunction: e.completeCluster,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkClusterRestore(cmd, &o); err != nil {
				return err
			}
			return e.restoreCluster(cmd, args[0], &o)
		},
	}
	o.bind(cmd)
	o.complete(e, cmd)
	return cmd
}

func (o *clusterRestoreOptions) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.backup, "backup", "", "the EtcdBackup to restore from")
	f.StringVar(&o.policy, "policy", "", "the EtcdBackupPolicy in whose destinations the backup lies")
	f.StringVar(&o.store, "store", "", "URL of the store in which the backup lies, as the server reaches it")
	f.StringVar(&o.object, "object", "", "with --store: the key of a snapshot that is in no catalog")
	f.StringVar(&o.credentials, "credentials-secret", "", "with --store: the Secret with its credentials (default: the environment of the server)")
	f.StringVar(&o.identity, "identity-secret", "", "with --store: the Secret with the age identity that opens encrypted backups")
	f.StringVar(&o.of, "of", "", "the cluster that was backed up, as NAME or NAMESPACE/NAME (default: that of the policy for a new cluster, else NAME)")
	f.StringVar(&o.clusterID, "cluster-id", "", "etcd's ID in hex of the cluster that was backed up, where several had the name")
	f.StringVar(&o.point, "point", "", "the backup: an ID as `quorate backup list` shows it, latest or latest-proven (default: latest-proven)")
	f.StringVar(&o.notAfter, "not-after", "", "leave out backups that were begun later, such as 2026-11-21T03:00:00Z")
	f.StringVar(&o.destination, "destination", "", "the destination of the policy or the backup to read from (default: the first in which it is proven)")
	f.BoolVar(&o.inPlace, "in-place", false, "replace the data of a cluster that exists; the old data is renamed aside")
	f.StringVar(&o.bump, "bump-revision", bumpAuto, "how far the revision is moved on: auto, a number, or 0")
	f.BoolVar(&o.disarm, "disarm-corrupt", false, "remove a CORRUPT alarm, after you have looked")
	f.StringVar(&o.noProof, "no-proof", "", "do not try a backup in a scratch etcd first that nobody has restored yet: the reason why")
	f.StringVar(&o.name, "restore-name", "", "name of the EtcdRestore (default: NAME-restore- and the time)")
	f.StringVar(&o.version, "version", "", "etcd release of a new cluster (default: that of the one that was backed up)")
	f.Int32Var(&o.replicas, "replicas", 0, "members of a new cluster (default: as many as the one that was backed up has, else 3)")
	f.BoolVar(&o.dryRun, "dry-run", false, "only say what would be done, and what would be lost")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask before a restore in place")
	f.BoolVar(&o.wait, "wait", true, "wait until all members serve")
	f.DurationVar(&o.timeout, "timeout", restoreTimeout, "how long to wait")
	outputFlag(cmd, &o.output, clusterRestoreForms...)
}

// complete offers values for the flags, as far as the server tells them soon.
func (o *clusterRestoreOptions) complete(e *env, cmd *cobra.Command) {
	complete(cmd, "bump-revision", bumpAuto, "0")
	_ = cmd.RegisterFlagCompletionFunc("store", completeStore) // the command has these flags
	_ = cmd.RegisterFlagCompletionFunc("of", e.completeClusterFlag)
	for flag, kind := range map[string]v1alpha1.Kind{
		"backup": v1alpha1.KindBackup, "policy": v1alpha1.KindBackupPolicy,
		"credentials-secret": v1alpha1.KindSecret, "identity-secret": v1alpha1.KindSecret,
	} {
		_ = cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return e.names(cmd.Context(), kind, nil), noFiles
		})
	}
	_ = cmd.RegisterFlagCompletionFunc("point", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return append([]string{wordLatest, wordLatestProven}, e.recordedPoints(cmd.Context(), o.policy)...), noFiles
	})
	_ = cmd.RegisterFlagCompletionFunc("destination", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return e.destinationNames(cmd.Context(), o.policy, o.backup), noFiles
	})
}

// checkClusterRestore refuses flags that do not go together, before a server is asked.
func checkClusterRestore(cmd *cobra.Command, o *clusterRestoreOptions) error {
	if err := checkOutput(cmd, o.output, clusterRestoreForms...); err != nil {
		return err
	}
	if err := checkRestoreSource(cmd, o); err != nil {
		return err
	}
	if o.bump != bumpAuto {
		if n, err := strconv.ParseInt(o.bump, 10, 64); err != nil || n < 0 {
			return usagef(cmd, "--bump-revision is %q: give %s, or a number of 0 or more", o.bump, bumpAuto)
		}
	}
	if o.notAfter != "" {
		if _, err := time.Parse(time.RFC3339, o.notAfter); err != nil {
			return usagef(cmd, "--not-after is %q: give a time such as 2026-11-21T03:00:00Z", o.notAfter)
		}
	}
	switch {
	case cmd.Flags().Changed("no-proof") && strings.TrimSpace(o.noProof) == "":
		return usagef(cmd, "--no-proof is empty: say in a sentence why a backup that nobody has restored is good enough")
	case o.noProof != "" && o.object != "":
		return usagef(cmd, "--no-proof: a snapshot that is in no catalog is read whole and checked, and not tried: leave it out")
	case o.inPlace && (o.version != "" || cmd.Flags().Changed("replicas")):
		return usagef(cmd, "--version and --replicas are for a cluster that is created, and --in-place is for one that exists: leave them out")
	case cmd.Flags().Changed("replicas") && (o.replicas < 1 || o.replicas > 9):
		return usagef(cmd, "--replicas is %d: choose 1 to 9", o.replicas)
	}
	return nil
}

// checkRestoreSource looks at the flags that say which backup is meant.
func checkRestoreSource(cmd *cobra.Command, o *clusterRestoreOptions) error {
	given := slices.DeleteFunc([]string{o.backup, o.policy, o.store}, func(s string) bool { return s == "" })
	switch {
	case len(given) == 0:
		return usagef(cmd, "it is not said from what: --backup names an EtcdBackup (`quorate get backups` lists them), --policy an EtcdBackupPolicy, --store a store")
	case len(given) > 1:
		return usagef(cmd, "--backup, --policy and --store each say where the backup is: give one of them")
	case o.store != "" && !strings.Contains(o.store, schemeMark):
		return usagef(cmd, "--store is %q: give a URL, such as s3://bucket/prefix?region=eu-west-1, or file:///directory for one on the machine of the server", o.store)
	case o.object != "" && o.store == "":
		return usagef(cmd, "--object is a snapshot in a store: name that with --store")
	case o.store == "" && (o.credentials != "" || o.identity != ""):
		return usagef(cmd, "--credentials-secret and --identity-secret belong to --store: the policy or the backup names its own")
	case o.store != "" && o.destination != "":
		return usagef(cmd, "--destination chooses among those of a policy or a backup, and --store is one: leave it out")
	}
	chosen := o.of != "" || o.clusterID != "" || o.point != "" || o.notAfter != ""
	switch {
	case chosen && o.backup != "":
		return usagef(cmd, "--backup names one backup: leave --of, --cluster-id, --point and --not-after out")
	case chosen && o.object != "":
		return usagef(cmd, "--object names one snapshot: leave --of, --cluster-id, --point and --not-after out")
	case o.notAfter != "" && o.point != "" && o.point != wordLatest && o.point != wordLatestProven:
		return usagef(cmd, "--not-after is for --point %s and %s: an ID names one backup", wordLatest, wordLatestProven)
	}
	return nil
}

// restoreOrder is an EtcdRestore that is to be created, and what goes with it.
type restoreOrder struct {
	opts    *clusterRestoreOptions
	restore *v1alpha1.EtcdRestore
	// target is the cluster as it is stored; nil where there is none.
	target *v1alpha1.EtcdCluster
	// fresh is the cluster that is created first; nil where there is one. Its spec is that
	// of like, an EtcdCluster, where that is not nil.
	fresh, like *v1alpha1.EtcdCluster
	// seen is the restore as the server says that it would begin.
	seen *v1alpha1.EtcdRestoreStatus
}

func (e *env) restoreCluster(cmd *cobra.Command, name string, o *clusterRestoreOptions) error {
	c, err := e.connect()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	order, err := e.orderRestore(cmd, c, name, o)
	if err != nil {
		return err
	}
	wrong := e.preview(ctx, c, order)
	if wrong == nil && order.target == nil {
		wrong = order.makeCluster(cmd)
	}
	if wrong == nil && order.fresh != nil {
		// The server completes and checks what it is given.
		tried := order.fresh.DeepCopy()
		wrong = createAs(ctx, c.DryRun(), tried)
		order.fresh.Spec = tried.Spec
	}
	if o.dryRun && order.seen != nil && order.seen.Point != nil && (wrong == nil || o.output == outTable) {
		return errors.Join(e.dryRunClusterRestore(order), wrong)
	}
	if wrong != nil {
		return wrong
	}
	if o.inPlace && !o.yes {
		told := *e
		told.Out = e.Err
		told.printClusterRestore("this would be done", order)
		if err = e.confirm(cmd, "This stops every member of "+order.cluster().String()+" and replaces its data.", order.target.Name); err != nil {
			return err
		}
	}
	if err = e.createRestore(ctx, c, order); err != nil {
		return err
	}
	if o.wait {
		return e.followRestore(ctx, c, order)
	}
	e.errorf("it goes on by itself: %s\n", watchHint(order.restore))
	if o.output != outTable {
		return e.printObjects([]v1alpha1.Object{order.restore}, shown{form: o.output, single: true})
	}
	return nil
}

// cluster is the one that is formed.
func (r *restoreOrder) cluster() target {
	return target{v1alpha1.KindCluster, store.Key{Namespace: r.restore.Namespace, Name: r.restore.Spec.ClusterName}}
}

// orderRestore makes the order that the flags ask for.
func (e *env) orderRestore(cmd *cobra.Command, c *remote.Client, name string, o *clusterRestoreOptions) (*restoreOrder, error) {
	ctx := cmd.Context()
	key := e.cluster(name)
	t := target{v1alpha1.KindCluster, key}
	r := &restoreOrder{opts: o, restore: &v1alpha1.EtcdRestore{}}
	v1alpha1.SetType(r.restore, v1alpha1.KindRestore.Kind, v1alpha1.KindRestore.APIVersion)
	r.restore.Namespace, r.restore.Name = key.Namespace, o.name
	if o.name == "" {
		r.restore.Name = restoreName(key.Name, time.Now())
	}
	found, err := look(ctx, c, t)
	if err != nil {
		return nil, named(t, err)
	}
	if cluster, ok := found.(*v1alpha1.EtcdCluster); ok {
		r.target = cluster
	}
	if err = e.admitTarget(ctx, c, r, t); err != nil {
		return nil, err
	}
	s := &r.restore.Spec
	s.ClusterName, s.InPlace, s.DisarmCorrupt = key.Name, o.inPlace, o.disarm
	if o.bump != bumpAuto {
		n, _ := strconv.ParseInt(o.bump, 10, 64) // it was read before
		s.BumpRevision = &n
	}
	if o.noProof != "" {
		s.Proof = &v1alpha1.BackupProof{Mode: v1alpha1.ProofNever, Reason: o.noProof}
	}
	s.Source, r.like, err = e.restoreSource(ctx, c, r)
	return r, err
}

// admitTarget refuses a cluster that is there without --in-place, and one that is not
// there with it. One that waits for a restore that was never created gets that.
func (e *env) admitTarget(ctx context.Context, c *remote.Client, r *restoreOrder, t target) error {
	order := target{v1alpha1.KindRestore, store.KeyOf(r.restore)}
	waits := false
	switch {
	case r.target == nil && r.opts.inPlace:
		return fmt.Errorf("there is no %s in namespace %s whose data could be replaced: leave --in-place out to have it created, or see `quorate get clusters -A`: %w", t, t.key.Namespace, store.ErrNotFound)
	case r.target != nil && !r.opts.inPlace:
		name := r.target.Spec.RestoreName
		if waits = name != "" && (r.opts.name == "" || r.opts.name == name); waits {
			order.key.Name = name
		}
	}
	obj, err := look(ctx, c, order)
	switch {
	case err != nil:
		return named(order, err)
	case r.target != nil && !r.opts.inPlace && (!waits || obj != nil):
		return fmt.Errorf("%s exists: give --in-place to have its members stopped, their data renamed aside and replaced, or name a cluster that does not exist: %w", t, store.ErrForbidden)
	case obj != nil:
		return fmt.Errorf("%s exists already, and an order never changes: choose another name with --restore-name: %w", order, store.ErrForbidden)
	}
	r.restore.Name = order.key.Name
	return nil
}

// restoreName is the usual name of a restore: names have 63 characters at most.
func restoreName(cluster string, now time.Time) string {
	const most = 63
	tail := "-restore-" + now.UTC().Format("20060102-150405")
	return strings.TrimRight(cluster[:min(len(cluster), most-len(tail))], "-.") + tail
}

// restoreSource says where the backup is, and which cluster of the fleet it is of; nil
// where that is not there.
func (e *env) restoreSource(ctx context.Context, c *remote.Client, r *restoreOrder) (src v1alpha1.RestoreSource, like *v1alpha1.EtcdCluster, err error) {
	o := r.opts
	src = v1alpha1.RestoreSource{
		BackupName: o.backup, PolicyName: o.policy, DestinationName: o.destination,
		ClusterName: o.of, ClusterID: strings.TrimPrefix(o.clusterID, "0x"), Point: o.point, Object: o.object, IdentitySecretRef: o.identity,
	}
	if o.notAfter != "" {
		t, _ := time.Parse(time.RFC3339, o.notAfter) // it was read before
		at := v1alpha1.NewTime(t)
		src.NotAfter = &at
	}
	of := store.Key{Namespace: r.restore.Namespace, Name: o.of}
	if namespace, name, both := strings.Cut(o.of, "/"); both {
		of = store.Key{Namespace: namespace, Name: name}
	}
	switch {
	case o.backup != "":
		obj, readErr := read(ctx, c, e.target(v1alpha1.KindBackup, o.backup))
		if readErr != nil {
			return src, nil, readErr
		}
		if b, ok := obj.(*v1alpha1.EtcdBackup); ok {
			of.Name = b.Spec.ClusterName
		}
	case o.policy != "":
		obj, readErr := read(ctx, c, e.target(v1alpha1.KindBackupPolicy, o.policy))
		if readErr != nil {
			return src, nil, readErr
		}
		// Nobody can have backed up a cluster that is yet to be made, in most cases.
		if p, ok := obj.(*v1alpha1.EtcdBackupPolicy); ok && o.of == "" && !o.inPlace && p.Spec.ClusterName != "" {
			src.ClusterName, of.Name = p.Spec.ClusterName, p.Spec.ClusterName
		}
	default:
		src.Destination = &v1alpha1.BackupDestination{Name: "store", URL: o.store, CredentialsSecretRef: o.credentials}
	}
	if r.target != nil || of.Name == "" {
		return src, nil, nil
	}
	obj, err := look(ctx, c, target{v1alpha1.KindCluster, of})
	if err != nil {
		return src, nil, err
	}
	like, _ = obj.(*v1alpha1.EtcdCluster)
	return src, like, nil
}

// preview asks the server what the order would do, and holds it to the backup that is
// meant now: a newer one may come before the order does. The error says why it would not
// be carried out.
func (e *env) preview(ctx context.Context, c *remote.Client, r *restoreOrder) error {
	ctx, cancel := context.WithTimeout(ctx, previewTime)
	defer cancel()
	done := e.slowly("looking for the backup")
	seen, err := c.Preview(ctx, r.restore)
	done()
	if err != nil {
		return named(target{v1alpha1.KindRestore, store.KeyOf(r.restore)}, err)
	}
	r.seen = &seen.Status
	point := seen.Status.Point
	if src := &r.restore.Spec.Source; point != nil && src.BackupName == "" && src.Object == "" {
		src.Point, src.NotAfter = point.ID, nil
	}
	switch {
	case seen.Status.Phase == v1alpha1.RestoreRunning:
		return nil
	case seen.Status.Phase == v1alpha1.RestorePending && r.target == nil && point != nil:
		return nil // it is the cluster that is missing, which is made first
	case seen.Status.Phase == v1alpha1.RestorePending:
		return fmt.Errorf("%s is not restored now: %s; nothing was done: try again", r.cluster(), seen.Status.Message)
	}
	return fmt.Errorf("%s is not restored: %s; nothing was done: %w", r.cluster(), seen.Status.Message, store.ErrForbidden)
}

// dryRunClusterRestore says what would be done.
func (e *env) dryRunClusterRestore(r *restoreOrder) error {
	if r.opts.output == outTable {
		e.printClusterRestore("nothing was done: this would be", r)
		return nil
	}
	var objs []v1alpha1.Object
	if r.fresh != nil {
		objs = append(objs, r.fresh)
	}
	order := r.restore.DeepCopy()
	order.Status = *r.seen
	objs = append(objs, order)
	if r.opts.output != outYAML {
		return e.printObjects(objs, shown{form: r.opts.output, single: len(objs) == 1})
	}
	raw, err := schema.YAML(objs...)
	if err != nil {
		return err
	}
	_, err = e.Out.Write(raw)
	return err
}

// recordedPoints are the IDs of backups of a policy, or of all, that are recorded.
func (e *env) recordedPoints(ctx context.Context, policy string) []string {
	var ids []string
	for _, obj := range e.glanceAt(ctx, v1alpha1.KindBackup) {
		b, ok := obj.(*v1alpha1.EtcdBackup)
		if !ok || policy != "" && b.Spec.PolicyName != policy {
			continue
		}
		for _, d := range b.Status.Destinations {
			if d.PointID != "" && !slices.Contains(ids, d.PointID) {
				ids = append(ids, d.PointID)
			}
		}
	}
	slices.Sort(ids)
	slices.Reverse(ids)
	return ids
}

// destinationNames are those of a policy, or of a backup.
func (e *env) destinationNames(ctx context.Context, policy, backup string) []string {
	var names []string
	for _, obj := range e.glanceAt(ctx, v1alpha1.KindBackup) {
		if b, ok := obj.(*v1alpha1.EtcdBackup); ok && b.Name == backup {
			for _, d := range b.Status.Destinations {
				names = append(names, d.Name)
			}
		}
	}
	for _, obj := range e.glanceAt(ctx, v1alpha1.KindBackupPolicy) {
		if p, ok := obj.(*v1alpha1.EtcdBackupPolicy); ok && p.Name == policy {
			for i := range p.Spec.Destinations {
				names = append(names, p.Spec.Destinations[i].Name)
			}
		}
	}
	return names
}

// glanceAt lists a kind for a press of the tab key; nil where that takes long or fails.
func (e *env) glanceAt(ctx context.Context, kind v1alpha1.Kind) []v1alpha1.Object {
	c, err := e.connect()
	if err != nil || ctx == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, completeTime)
	defer cancel()
	objs, err := c.List(ctx, kind, store.ListOptions{Namespace: e.listNamespace(kind, false)})
	if err != nil {
		return nil
	}
	return objs
}
