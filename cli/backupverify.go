package cli

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/inspect"
)

// verifyOptions are the flags of `quorate backup verify`.
type verifyOptions struct {
	store     storeFlags
	pick      pickFlags
	all       bool
	olderThan span
	etcd      string
	dryRun    bool
	output    string
}

// verified is what came of one proof.
type verified struct {
	ID      string         `json:"id"`
	Cluster string         `json:"cluster"`
	Proof   *catalog.Proof `json:"proof,omitempty"`
	// Untried says why there is no proof.
	Untried string `json:"untried,omitempty"`
	// Bytes would be read, in a dry run.
	Bytes int64 `json:"bytes,omitempty"`
}

func backupVerifyCommand(e *env) *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify URL (ID | --all)",
		Short: "Prove backups: restore them as they lie in the store, and ask an etcd that runs on them",
		Long: `Read a backup from the store, compare its bytes with the manifest, restore it into
a scratch directory, and start a real etcd on it, on a socket that nobody else
reaches. Its keys, leases, users and roles are counted, its keys hashed, and all
compared with the manifest. The proof is written beside the manifest, also one of
a failure.

It needs room for the database twice in --spool-dir. It runs on the etcd in this
program, which serves the data of etcd 3.5 to its own version; --etcd names
another.

The exit code is 14 when a proof failed. A backup that could not be tried, since
the store is away or the disk is full, is neither proven nor failed: the code is
15.`,
		Example: `  quorate backup verify ./backups latest
  quorate backup verify ./backups --all --older-than 7d
  quorate backup verify ./backups --all --dry-run
  quorate backup verify ./sealed latest --identity-file backup.key`,
		Args: func(cmd *cobra.Command, args []string) error {
			if o.all {
				return argsBetween(1, 1, "URL")(cmd, args)
			}
			return argsBetween(2, 2, "URL and ID, or URL --all,")(cmd, args)
		},
		ValidArgsFunction: e.completeStores(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(cmd, o.output, backupForms...); err != nil {
				return err
			}
			if o.olderThan != 0 && !o.all {
				return usagef(cmd, "--older-than belongs to --all: give both or none")
			}
			return e.backupVerify(cmd, args, &o)
		},
	}
	o.store.bindData(cmd)
	o.pick.bind(e, cmd)
	f := cmd.Flags()
	f.BoolVar(&o.all, "all", false, "all that are complete, the newest first")
	f.Var(&o.olderThan, "older-than", "with --all: only those whose last proof is older, such as 7d, or who have none")
	f.StringVar(&o.etcd, "etcd", "", "etcd that they are tried on (default: the one in this program)")
	f.Var(&o.store.rate, "rate", "bytes a second from the store at most, such as 50MiB (default: no limit)")
	f.BoolVar(&o.dryRun, "dry-run", false, "only say what would be tried")
	outputFlag(cmd, &o.output, backupForms...)
	return cmd
}

func (e *env) backupVerify(cmd *cobra.Command, args []string, o *verifyOptions) error {
	ctx := cmd.Context()
	p := newProgress(e)
	defer p.done()
	o.store.log = p
	prove := backup.ProveOptions{}
	var err error
	if prove.ScratchDir, err = e.spool(&o.store); err != nil {
		return err
	}
	if prove.Identities, err = readIdentities(o.store.identityFile); err != nil {
		return err
	}
	if prove.Logger, err = e.logger(slog.LevelWarn, p); err != nil {
		return err
	}
	if prove.Etcd, err = scratchEtcd(ctx, o.etcd); err != nil {
		return err
	}
	filter, err := o.pick.filter(e, cmd)
	if err != nil {
		return err
	}
	if prove.Bucket, err = e.openStore(cmd, args[0], &o.store, prove.ScratchDir); err != nil {
		return err
	}
	defer func() { _ = prove.Bucket.Close() }() // what was written was answered
	cat, err := e.readCatalog(ctx, prove.Bucket, filter)
	if err != nil {
		return err
	}
	chosen, err := chooseProofs(cmd, prove.Bucket, cat, args[1:], time.Duration(o.olderThan))
	if err != nil {
		return err
	}
	results := make([]verified, 0, len(chosen))
	var errs []error
	for i, entry := range chosen {
		r := verified{ID: entry.Ref.ID(), Cluster: entry.Ref.Cluster.String()}
		switch {
		case o.dryRun:
			r.Bytes = entry.Point.StoredSize
		case ctx.Err() != nil:
			return errors.Join(append(errs, ctx.Err())...)
		default:
			p.step(fmt.Sprintf("trying %s, %d of %d", entry.Ref.ID(), i+1, len(chosen)))
			prove.Progress = p.backing()
			r.Proof, err = backup.Prove(ctx, entry, prove)
			errs = append(errs, told(&r, err))
		}
		results = append(results, r)
	}
	p.done()
	if bad := e.printChecked(o.output, results, func() { e.printVerified(results, o.dryRun) }); bad != nil {
		return bad
	}
	return errors.Join(errs...)
}

// told is the error of a proof, for the exit code.
func told(r *verified, err error) error {
	switch {
	case err != nil:
		r.Untried = err.Error()
		return err
	case r.Proof.Result != catalog.Verified:
		return fmt.Errorf("%s: %w: %s", r.ID, errUnsound, r.Proof.Reason)
	}
	return nil
}

// chooseProofs finds what is to be tried, the newest first.
func chooseProofs(cmd *cobra.Command, b bucket.Bucket, cat *catalog.Catalog, id []string, olderThan time.Duration) ([]*catalog.Entry, error) {
	if len(id) > 0 {
		entry, err := pick(cmd, b, cat, id[0])
		if err != nil {
			return nil, err
		}
		if entry.Point == nil {
			return nil, noManifest(entry)
		}
		return []*catalog.Entry{entry}, nil
	}
	var chosen []*catalog.Entry
	for i := range cat.Entries {
		entry := &cat.Entries[i]
		if entry.Point == nil || len(entry.Proofs) > 0 && time.Since(entry.Proofs[0].Time) < olderThan {
			continue
		}
		chosen = append(chosen, entry)
	}
	slices.SortStableFunc(chosen, func(x, y *catalog.Entry) int { return y.Ref.Time.Compare(x.Ref.Time) })
	return chosen, nil
}

// noManifest says why nothing can be done with a backup.
func noManifest(entry *catalog.Entry) error {
	return fmt.Errorf("%s is %s: it has no manifest that can be read: %w", entry.Ref.ID(), strings.ToLower(string(entry.State)), cmp.Or(entry.Err, catalog.ErrIncomplete))
}

func (e *env) printVerified(results []verified, dryRun bool) {
	if len(results) == 0 {
		e.printf("nothing is to be tried\n")
		return
	}
	for _, r := range results {
		switch p := r.Proof; {
		case dryRun:
			e.printf("%s of %s would be tried: %s to read\n", r.ID, r.Cluster, inspect.Size(r.Bytes))
		case p == nil:
			e.printf("%s could not be tried\n", e.painted(yellow, "! "+r.ID))
			e.fact("why", r.Untried)
		case p.Result != catalog.Verified:
			e.printf("%s of %s failed its proof\n", e.painted(red, "✗ "+r.ID), r.Cluster)
			e.printProof(p)
		default:
			e.printf("%s of %s is proven\n", e.painted(green, "✓ "+r.ID), r.Cluster)
			e.printProof(p)
		}
	}
}

// copyOptions are the flags of `quorate backup copy`.
type copyOptions struct {
	from, to   storeFlags
	pick       pickFlags
	all        bool
	lockFor    span
	compliance bool
	dryRun     bool
	output     string
}

// copied is what came of one copy.
type copied struct {
	ID      string `json:"id"`
	Cluster string `json:"cluster"`
	Bytes   int64  `json:"bytes"`
	// Outcome is "copied", "there already", "would be copied" or "failed".
	Outcome string `json:"outcome"`
	Error   string `json:"error,omitempty"`
}

func backupCopyCommand(e *env) *cobra.Command {
	var o copyOptions
	cmd := &cobra.Command{
		Use:   "copy FROM-URL TO-URL (ID | --all)",
		Short: "Copy backups to another store, as they are",
		Long: `Copy backups to another store, such as those that it has missed while it was away.
They are streamed, still compressed and encrypted, so no identity is needed. Each
is read back from there, and only when its bytes are those that its manifest speaks
of is that written. Proofs stay behind, since they are of the store they lie in:
"quorate backup verify" tries the copies.

What is there already is left alone, so it may be repeated after a failure, and
then goes on where it was broken off. Nothing is deleted: "quorate backup prune"
does that, in each store by itself.

A store that counts the epochs of a cluster otherwise, since it has not seen the
same resets, gets a copy only where it has a place between the backups there.`,
		Example: `  quorate backup copy ./backups ./copies latest
  quorate backup copy ./backups ./copies --all
  quorate backup copy ./backups s3://backups/etcd?region=eu-west-1 --all --dry-run`,
		Args: func(cmd *cobra.Command, args []string) error {
			if o.all {
				return argsBetween(2, 2, "FROM-URL and TO-URL")(cmd, args)
			}
			return argsBetween(3, 3, "FROM-URL, TO-URL and ID, or --all,")(cmd, args)
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 2 && !o.all {
				return e.storeIDs(cmd, args), noFiles
			}
			return e.completeStores(2)(cmd, args, word)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(cmd, o.output, backupForms...); err != nil {
				return err
			}
			if o.compliance && o.lockFor == 0 {
				return usagef(cmd, "--compliance belongs to --lock-for: say how long")
			}
			return e.backupCopy(cmd, args, &o)
		},
	}
	o.from.bind(cmd)
	o.pick.bind(e, cmd)
	f := cmd.Flags()
	f.StringVar(&o.to.credentialsFile, "to-credentials-file", "", "file with the credentials for TO-URL, where they are others")
	f.BoolVar(&o.all, "all", false, "all that are complete, the oldest first")
	f.Var(&o.lockFor, "lock-for", "keep anybody from deleting the copy for so long, such as 30d, by S3's object lock")
	f.BoolVar(&o.compliance, "compliance", false, "with --lock-for: nobody can shorten the lock")
	f.Var(&o.from.rate, "rate", "bytes a second from and to each store at most, such as 50MiB (default: no limit)")
	f.BoolVar(&o.dryRun, "dry-run", false, "only say what would be copied")
	outputFlag(cmd, &o.output, backupForms...)
	return cmd
}

func (e *env) backupCopy(cmd *cobra.Command, args []string, o *copyOptions) error {
	ctx := cmd.Context()
	filter, err := o.pick.filter(e, cmd)
	if err != nil {
		return err
	}
	p := newProgress(e)
	defer p.done()
	o.from.log, o.to.log = p, p
	from, to, err := e.openPair(cmd, args, o)
	if err != nil {
		return err
	}
	defer func() { _, _ = from.Close(), to.Bucket.Close() }() // what was stored was compared
	cat, err := e.readCatalog(ctx, from, filter)
	if err != nil {
		return err
	}
	chosen, err := chooseCopies(cmd, from, cat, args[2:])
	if err != nil {
		return err
	}
	there := &catalog.Catalog{}
	if o.dryRun {
		if there, err = e.readCatalog(ctx, to.Bucket, filter); err != nil {
			return err
		}
	}
	results := make([]copied, 0, len(chosen))
	copier := backup.NewCopier(from, cat.Entries, to)
	var errs []error
	for _, entry := range chosen {
		c := copied{ID: entry.Ref.ID(), Cluster: entry.Ref.Cluster.String(), Bytes: entry.Bytes(), Outcome: "would be copied"}
		if slices.ContainsFunc(there.Entries, func(e catalog.Entry) bool { return e.State == catalog.Complete && e.Ref.SameBackup(entry.Ref) }) {
			c.Outcome = "there already"
		}
		if !o.dryRun {
			done, copyErr := copier.Copy(ctx, entry, p.backing())
			switch {
			case copyErr != nil:
				c.Outcome, c.Error = "failed", copyErr.Error()
				errs = append(errs, copyErr)
			case done:
				c.Outcome = "copied"
			default:
				c.Outcome = "there already"
			}
		}
		results = append(results, c)
		if ctx.Err() != nil {
			break
		}
	}
	p.done()
	if bad := e.printChecked(o.output, results, func() { e.printCopied(results) }); bad != nil {
		return bad
	}
	return errors.Join(errs...)
}

func (e *env) openPair(cmd *cobra.Command, args []string, o *copyOptions) (from bucket.Bucket, to backup.Destination, err error) {
	spool, err := e.spool(&o.from)
	if err != nil {
		return nil, to, err
	}
	o.to.instance, o.to.rate = o.from.instance, o.from.rate
	if o.to.credentialsFile == "" {
		o.to.credentialsFile = o.from.credentialsFile
	} else {
		o.to.instance = false
	}
	target, err := storeConfig(cmd, args[1])
	if err != nil {
		return nil, to, err
	}
	if source, sourceErr := storeConfig(cmd, args[0]); sourceErr != nil || source.String() == target.String() {
		return nil, to, cmp.Or(sourceErr, usagef(cmd, "both URLs name %s: give two stores", target))
	}
	if o.lockFor > 0 && target.Provider != bucket.S3 {
		return nil, to, usagef(cmd, "--lock-for: %s has no object lock, only S3 has", target)
	}
	if from, err = e.openStore(cmd, args[0], &o.from, spool); err != nil {
		return nil, to, err
	}
	b, err := e.openStore(cmd, args[1], &o.to, spool)
	if err != nil {
		return nil, to, errors.Join(err, from.Close())
	}
	return from, backup.Destination{Name: b.String(), Bucket: b, LockFor: time.Duration(o.lockFor), Compliance: o.compliance}, nil
}

// chooseCopies finds what is to be copied, the oldest first: a copy that is broken off
// has no gaps.
func chooseCopies(cmd *cobra.Command, b bucket.Bucket, cat *catalog.Catalog, id []string) ([]*catalog.Entry, error) {
	if len(id) > 0 {
		entry, err := pick(cmd, b, cat, id[0])
		if err != nil {
			return nil, err
		}
		return []*catalog.Entry{entry}, nil
	}
	var chosen []*catalog.Entry
	for i := range cat.Entries {
		if cat.Entries[i].State == catalog.Complete {
			chosen = append(chosen, &cat.Entries[i])
		}
	}
	return chosen, nil
}

func (e *env) printCopied(results []copied) {
	if len(results) == 0 {
		e.printf("nothing is to be copied\n")
		return
	}
	g := grid{header: []string{"id", "cluster", "size", "what"}}
	for _, c := range results {
		g.add(c.ID, c.Cluster, inspect.Size(c.Bytes), c.Outcome)
	}
	_ = g.write(e.Out, 0) // As with printf: a reader that has gone away is no failure.
}
