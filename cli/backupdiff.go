package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/datadir"
	"github.com/quorate/quorate/etcd"
)

// compareOptions are the flags of `quorate backup diff` and `put-back`.
type compareOptions struct {
	target   doctorOptions
	store    storeFlags
	pick     pickFlags
	snapshot string
	prefix   string
	key      string
	all      bool
	output   string

	put    backup.PutBackOptions
	dryRun bool
	yes    bool
}

func (o *compareOptions) bind(e *env, cmd *cobra.Command) {
	checkTargetFlags(cmd, &o.target)
	o.store.bindData(cmd)
	o.pick.bind(e, cmd)
	f := cmd.Flags()
	f.StringVar(&o.snapshot, "snapshot", "", snapshotUsage)
	f.StringVar(&o.prefix, "prefix", "", "the keys that begin so")
	f.BoolVar(&o.all, "all", false, "all keys")
	outputFlag(cmd, &o.output, backupForms...)
	e.completeClusters(cmd)
}

// keys is the range that is meant.
func (o *compareOptions) keys(cmd *cobra.Command) (datadir.KeyRange, error) {
	prefixed := cmd.Flags().Changed("prefix")
	switch {
	case o.key != "" && (prefixed || o.all), prefixed && o.all:
		return datadir.KeyRange{}, usagef(cmd, "KEY, --prefix and --all each say which keys are meant: give one of them")
	case prefixed && o.prefix == "":
		return datadir.KeyRange{}, usagef(cmd, "--prefix is empty: say how the keys begin, or give --all")
	case o.key != "":
		return datadir.Single(o.key), nil
	case o.prefix != "":
		return datadir.Prefix(o.prefix), nil
	case o.all:
		return datadir.KeyRange{}, nil
	}
	return datadir.KeyRange{}, usagef(cmd, "say which keys are meant: KEY, --prefix, or --all")
}

// differing is a key that differs, as it is told.
type differing struct {
	Key         string            `json:"key"`
	Difference  backup.Difference `json:"difference"`
	InBackup    int64             `json:"backupRevision,omitempty"`
	InCluster   int64             `json:"clusterRevision,omitempty"`
	BackupSize  int               `json:"backupSize"`
	ClusterSize int               `json:"clusterSize"`
	// Newer: the cluster's was written after the backup, or nobody can say.
	Newer    bool           `json:"newer,omitempty"`
	Lease    string         `json:"lease,omitempty"`
	Outcome  backup.Outcome `json:"outcome,omitempty"`
	Revision int64          `json:"writtenRevision,omitempty"`
}

func differingOf(d backup.KeyDifference) differing {
	out := differing{
		Key: legible(d.Key), Difference: d.Kind, InBackup: d.InBackup, InCluster: d.InCluster, BackupSize: d.BackupSize, ClusterSize: d.ClusterSize, Newer: d.Newer,
	}
	if d.Lease != 0 {
		out.Lease = strconv.FormatInt(d.Lease, 16)
	}
	return out
}

// comparison is a backup and a cluster that are ready to be compared.
type comparison struct {
	backup.DiffOptions
	from  *origin
	of    *clusterAccess
	close func() error
	// unlike says why revisions of the two can't be compared.
	unlike string
}

// compared fetches the backup and connects to the cluster. Close it.
func (e *env) compared(cmd *cobra.Command, args []string, o *compareOptions) (_ *comparison, err error) {
	if err = checkOutput(cmd, o.output, backupForms...); err != nil {
		return nil, err
	}
	if err = readCheckTarget(cmd, o.target); err != nil {
		return nil, err
	}
	o.key = keyArg(args, o.snapshot)
	c := &comparison{}
	if c.Keys, err = o.keys(cmd); err != nil {
		return nil, err
	}
	if c.of, err = e.clusterOf(cmd, o.target); err != nil {
		return nil, err
	}
	ctx := cmd.Context()
	survey, err := c.of.survey(ctx)
	if err != nil {
		return nil, err
	}
	if c.from, err = e.originOf(cmd, args, o.snapshot, &o.store, &o.pick); err != nil {
		return nil, err
	}
	if c.unlike = unlike(c.from, &survey); c.unlike == "" {
		c.SameLineage = true
	}
	if c.Backup, err = e.fetch(ctx, c.from); err != nil {
		c.from.close()
		return nil, err
	}
	if c.Client, err = c.of.dial(); err != nil {
		err = errors.Join(err, c.Backup.Close())
		c.from.close()
		return nil, err
	}
	c.close = func() error {
		defer c.from.close()
		return errors.Join(c.Client.Close(), c.Backup.Close())
	}
	return c, nil
}

// unlike says why revisions of a backup and of a cluster can't be compared, or "".
func unlike(from *origin, s *etcd.Survey) string {
	if from.Entry == nil || from.Entry.Point == nil {
		return "a snapshot does not say of which cluster it is"
	}
	p := from.Entry.Point
	if p.ClusterID != catalog.ID(s.ClusterID) {
		return fmt.Sprintf("the backup is of cluster %s, and this is %s", p.ClusterID, catalog.ID(s.ClusterID))
	}
	for i := range from.catalog.Entries {
		if r := from.catalog.Entries[i].Ref; r.Cluster == from.Entry.Ref.Cluster && r.ClusterID == p.ClusterID && r.Epoch > p.Epoch {
			return fmt.Sprintf("the cluster was reset since: the backup is of epoch %d, and there is one of %d", p.Epoch, r.Epoch)
		}
	}
	var at etcd.Status
	for i := range s.Members {
		if m := &s.Members[i]; m.Answered && m.Status.Revision > at.Revision {
			at = m.Status
		}
	}
	if at.Revision < p.Revision || at.Term < p.RaftTerm || at.AppliedIndex < p.RaftIndex {
		return fmt.Sprintf("the cluster was reset since: it is at revision %d in term %d, and the backup at %d in term %d", at.Revision, at.Term, p.Revision, p.RaftTerm)
	}
	return ""
}

func backupDiffCommand(e *env) *cobra.Command {
	var o compareOptions
	cmd := &cobra.Command{
		Use:   "diff (URL ID | --snapshot FILE|URL) [KEY] (--endpoints URL[,URL] | -c CLUSTER)",
		Short: "Compare keys of a backup with those of a running cluster",
		Long: `Compare a range of keys in a backup with a cluster, as it is at one revision: keys
that are missing in the cluster, that have another value, and that are not in the
backup. Values are compared by their SHA-256; the table shows none. Nothing is
written.

The exit code is 0 when they are alike and 7 when they differ.`,
		Example: `  quorate backup diff ./backups latest -c playground --prefix /
  quorate backup diff ./backups latest hello -c playground -o json
  quorate backup diff --snapshot playground.db -c playground --all`,
		Args:              originArgs(&o.snapshot, 1, "URL, ID and maybe KEY"),
		ValidArgsFunction: e.completeStores(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			c, err := e.compared(cmd, args, &o)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, c.close()) }()
			return e.backupDiff(cmd.Context(), c, o.output)
		},
	}
	o.bind(e, cmd)
	return cmd
}

func (e *env) backupDiff(ctx context.Context, c *comparison, form string) error {
	done := e.slowly("comparing")
	found, at, err := backup.Diff(ctx, c.DiffOptions)
	done()
	if err != nil {
		return err
	}
	told := make([]differing, 0, len(found))
	for _, d := range found {
		told = append(told, differingOf(d))
	}
	err = e.printChecked(form, told, func() {
		if len(told) > 0 {
			e.printDiffering(told, false)
		}
		e.printf("%s: %s, as it was at revision %d, and %s at revision %d\n", differText(found), c.from, c.Backup.Info().Revision, c.of, at)
		if c.unlike != "" {
			e.errorf("which side is newer can't be told: %s\n", c.unlike)
		}
	})
	if err == nil && len(found) > 0 {
		return errDiffers
	}
	return err
}

// differText counts differences by kind.
func differText(found []backup.KeyDifference) string {
	n := map[backup.Difference]int{}
	for _, d := range found {
		n[d.Kind]++
	}
	if len(found) == 0 {
		return "no difference"
	}
	return fmt.Sprintf("%d missing, %d changed, %d extra", n[backup.Missing], n[backup.Changed], n[backup.Extra])
}

func (e *env) printDiffering(list []differing, outcomes bool) {
	g := grid{header: []string{"key", "in the cluster it is", "backup", "cluster", "lease"}}
	if outcomes {
		g.header = append(g.header, "outcome")
	}
	revision := func(rev int64, size int) string {
		if rev == 0 {
			return ""
		}
		return fmt.Sprintf("rev %d, %d B", rev, size)
	}
	for _, d := range list {
		what := string(d.Difference)
		if d.Newer && d.Difference != backup.Missing {
			what += ", newer"
		}
		cells := []string{d.Key, what, revision(d.InBackup, d.BackupSize), revision(d.InCluster, d.ClusterSize), d.Lease}
		if outcomes {
			cells = append(cells, string(d.Outcome))
		}
		g.add(cells...)
	}
	_ = g.write(e.Out, 0) // As with printf: a reader that has gone away is no failure.
}

func backupPutBackCommand(e *env) *cobra.Command {
	var o compareOptions
	cmd := &cobra.Command{
		Use:   "put-back (URL ID | --snapshot FILE|URL) [KEY] (--endpoints URL[,URL] | -c CLUSTER)",
		Short: "Put a key or a prefix of a backup back into a running cluster",
		Long: `Put keys of a backup back into a running cluster: those that are missing there,
and those that have another value. Each is written by a transaction that happens
only if the key is still as it was when it was compared, so that nothing that
others write is lost. It may be repeated after a failure.

A key that was written after the backup is left alone, unless --overwrite-newer.
Keys that are not in the backup stay, unless --delete-extra; newer ones need both.
Keys that hung on a lease stay away, unless --without-lease: the lease can't be
brought back, so they would stay for good.

What would be done is shown before you are asked. The exit code is 4 when keys
were left as they are.`,
		Example: `  quorate backup put-back ./backups latest hello -c playground --dry-run
  quorate backup put-back ./backups latest hello -c playground --yes
  quorate backup put-back ./backups latest -c playground --prefix /app/ --overwrite-newer --delete-extra --yes`,
		Args:              originArgs(&o.snapshot, 1, "URL, ID and maybe KEY"),
		ValidArgsFunction: e.completeStores(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			c, err := e.compared(cmd, args, &o)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, c.close()) }()
			if err = c.of.refuseObserved(); err != nil {
				return err
			}
			return e.backupPutBack(cmd, c, &o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.put.OverwriteNewer, "overwrite-newer", false, "also undo what was written after the backup")
	f.BoolVar(&o.put.DeleteExtra, "delete-extra", false, "delete the keys of the range that are not in the backup")
	f.BoolVar(&o.put.WithoutLease, "without-lease", false, "bring back keys that hung on a lease, for good")
	f.BoolVar(&o.dryRun, "dry-run", false, "only show what would be done")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	o.bind(e, cmd)
	return cmd
}

func (e *env) backupPutBack(cmd *cobra.Command, c *comparison, o *compareOptions) error {
	ctx := cmd.Context()
	put := o.put
	put.DiffOptions, put.DryRun = c.DiffOptions, true
	done := e.slowly("comparing")
	would, err := backup.Put(ctx, put)
	done()
	if err != nil {
		return err
	}
	if c.unlike != "" && len(would) > 0 && !put.OverwriteNewer {
		e.errorf("every key of the cluster counts as newer: %s\n", c.unlike)
	}
	if o.dryRun {
		return e.printChecked(o.output, outcomesOf(would), func() { e.printPutBack(would, true) })
	}
	puts, deletes := count(would, backup.PutBack), count(would, backup.Deleted)
	if puts+deletes > 0 && !o.yes {
		e.printPutBack(would, true)
		question := fmt.Sprintf("%s would be put back into %s, and %d deleted.", plural(puts, "key", "keys"), c.of, deletes)
		if err = e.confirm(cmd, question, "put-back"); err != nil {
			return err
		}
	}
	p := newProgress(e)
	put.DryRun = false
	n := 0
	if p.terminal {
		put.Progress = func(backup.PutBackKey) {
			n++
			p.step(fmt.Sprintf("%d of %d", n, puts+deletes))
		}
	}
	all, err := backup.Put(ctx, put)
	p.done()
	for i := range all { // it ended early: what it did not get to is as it was
		if k := &all[i]; err != nil && k.Revision == 0 && (k.Outcome == backup.PutBack || k.Outcome == backup.Deleted) {
			k.Outcome = "not done"
		}
	}
	if bad := e.printChecked(o.output, outcomesOf(all), func() { e.printPutBack(all, false) }); bad != nil {
		return bad
	}
	if left := count(all, backup.RefusedNewer) + count(all, backup.RefusedLease) + count(all, backup.Raced); err == nil && left > 0 {
		return fmt.Errorf("%w: %s: --overwrite-newer and --without-lease say that they are wanted", errRefusedKeys, plural(left, "key", "keys"))
	}
	return err
}

func outcomesOf(all []backup.PutBackKey) []differing {
	out := make([]differing, 0, len(all))
	for _, k := range all {
		d := differingOf(k.KeyDifference)
		d.Outcome, d.Revision = k.Outcome, k.Revision
		out = append(out, d)
	}
	return out
}

func count(all []backup.PutBackKey, o backup.Outcome) int {
	return len(all) - len(slices.DeleteFunc(slices.Clone(all), func(k backup.PutBackKey) bool { return k.Outcome == o }))
}

func (e *env) printPutBack(all []backup.PutBackKey, would bool) {
	if len(all) == 0 {
		e.printf("nothing differs\n")
		return
	}
	e.printDiffering(outcomesOf(all), true)
	puts, deletes := count(all, backup.PutBack), count(all, backup.Deleted)
	what := "were put back"
	if would {
		what = "would be put back"
	}
	e.printf("%d of %d keys %s, %d deleted, %d left as they are\n", puts, len(all), what, deletes, len(all)-puts-deletes)
}
