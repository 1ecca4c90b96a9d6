package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/backup/bucket"
	"github.com/quorate/quorate/backup/catalog"
	"github.com/quorate/quorate/inspect"
)

// pruned is what becomes, or became, of one backup.
type pruned struct {
	ID      string   `json:"id"`
	Cluster string   `json:"cluster"`
	Time    string   `json:"time"`
	Outcome string   `json:"outcome"`
	Why     []string `json:"why"`
	Bytes   int64    `json:"bytes"`
}

func backupPruneCommand(e *env) *cobra.Command {
	var s storeFlags
	var p pickFlags
	var k keepFlags
	var dryRun, yes bool
	var output string
	cmd := &cobra.Command{
		Use:   "prune URL --keep-...",
		Short: "Delete backups that no rule keeps",
		Long: `Delete backups of one cluster that none of the --keep rules keeps. What goes, what
stays, and why, is shown before you are asked.

Whatever the rules, these stay: of each history the newest backup, and the newest
that is proven, whose restore was tried; what an object lock keeps; and what can't
be judged. Backups that are not proven don't push out proven ones. A history is
one cluster ID whose revisions only grow; rules count within each. Uploads that
were never finished are collected a day later, damaged backups after 30 days.

Each backup is looked at again just before it is deleted.`,
		Example: `  quorate backup prune ./backups --keep-last 24 --keep-daily 7 --keep-weekly 5 --dry-run
  quorate backup prune ./backups --keep-within 30d --yes
  quorate backup prune s3://backups/etcd?region=eu-west-1 --name default/prod --keep-daily 30 --keep-monthly 12`,
		Args:              argsBetween(1, 1, "URL"),
		ValidArgsFunction: completeOneStore,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(cmd, output, backupForms...); err != nil {
				return err
			}
			policy, err := k.read(cmd)
			if err != nil {
				return err
			}
			if policy.Empty() {
				return usagef(cmd, "no rule is given, and without one everything stays: give --keep-last, --keep-within, --keep-daily or another")
			}
			filter, err := p.filter(e, cmd)
			if err != nil {
				return err
			}
			b, err := e.openStore(cmd, args[0], &s, "")
			if err != nil {
				return err
			}
			defer func() { _ = b.Close() }() // deletions have been answered
			return e.backupPrune(cmd, b, filter, policy, pruneHow{dryRun, yes, output})
		},
	}
	s.bind(cmd)
	p.bind(e, cmd)
	k.bind(cmd)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only show what would go and what would stay")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	outputFlag(cmd, &output, backupForms...)
	return cmd
}

// completeOneStore offers stores for the first argument.
func completeOneStore(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, noFiles
	}
	return completeStore(cmd, args, word)
}

type pruneHow struct {
	dryRun, yes bool
	output      string
}

func (e *env) backupPrune(cmd *cobra.Command, b bucket.Bucket, filter catalog.Filter, policy catalog.Policy, how pruneHow) error {
	ctx := cmd.Context()
	cat, err := e.readCatalog(ctx, b, filter)
	if err != nil {
		return err
	}
	if err = oneName(cmd, b, cat); err != nil {
		return err
	}
	decisions, err := policy.Decide(cat.Entries, catalog.Situation{Now: time.Now()})
	if err != nil {
		return err
	}
	var going, stay []pruned
	var freed int64
	for i := range decisions {
		if d := &decisions[i]; d.Keep {
			stay = append(stay, prunedOf(d, "stays"))
		} else {
			going = append(going, prunedOf(d, "goes"))
			freed += d.Entry.Bytes()
		}
	}
	if how.dryRun {
		steps, dryErr := backup.Prune(ctx, b, decisions, catalog.PruneOptions{DryRun: true, Now: time.Now()})
		if dryErr != nil {
			return dryErr
		}
		going = prunedSteps(steps) // with what the last look before a deletion would find
		return e.printChecked(how.output, append(going, stay...), func() { e.printPrune(going, stay) })
	}
	if !how.yes {
		e.errorf("%s", pruneText(going, stay))
		if len(going) > 0 {
			question := fmt.Sprintf("%s would be deleted from %s, %s in all. This can't be undone.", plural(len(going), "backup", "backups"), b, inspect.Size(freed))
			if err = e.confirm(cmd, question, "prune"); err != nil {
				return err
			}
		}
	}
	steps, err := pruneStore(ctx, b, cat, policy)
	if bad := e.printChecked(how.output, steps, func() { e.printPruned(steps, len(stay)) }); bad != nil {
		return bad
	}
	return err
}

// oneName refuses to prune several clusters at once.
func oneName(cmd *cobra.Command, b bucket.Bucket, cat *catalog.Catalog) error {
	for i := range cat.Entries {
		if cat.Entries[i].Ref.Cluster != cat.Entries[0].Ref.Cluster {
			return usagef(cmd, "%s holds backups of several clusters: say which one is pruned:\n%s", b, lineageLines(cat))
		}
	}
	return nil
}

// pruneStore deletes what the policy does not keep, and what unfinished uploads left.
func pruneStore(ctx context.Context, b bucket.Bucket, cat *catalog.Catalog, policy catalog.Policy) ([]pruned, error) {
	decisions, err := policy.Decide(cat.Entries, catalog.Situation{Now: time.Now()})
	if err != nil {
		return nil, err
	}
	done, err := backup.Prune(ctx, b, decisions, catalog.PruneOptions{})
	if done == nil {
		return nil, err
	}
	if _, staleErr := b.AbortStale(ctx, catalog.LeftoverAge); staleErr != nil && !errors.Is(staleErr, errors.ErrUnsupported) {
		err = errors.Join(err, staleErr)
	}
	return prunedSteps(done), err
}

func prunedSteps(done *catalog.Pruned) []pruned {
	steps := make([]pruned, 0, len(done.Steps))
	for _, s := range done.Steps {
		steps = append(steps, pruned{
			ID: s.Ref.ID(), Cluster: s.Ref.Cluster.String(), Time: s.Ref.Time.Format(time.RFC3339), Outcome: string(s.Outcome), Why: []string{s.Why}, Bytes: s.Bytes,
		})
	}
	return steps
}

func prunedOf(d *catalog.Decision, outcome string) pruned {
	p := pruned{ID: d.Entry.Ref.ID(), Cluster: d.Entry.Ref.Cluster.String(), Time: d.Entry.Ref.Time.Format(time.RFC3339), Outcome: outcome, Bytes: d.Entry.Bytes()}
	for _, r := range d.Reasons {
		p.Why = append(p.Why, string(r.Rule)+": "+r.Text)
	}
	return p
}

func prunedText(d pruned) string {
	return d.ID + " " + strings.ToLower(d.Outcome) + ": " + strings.Join(d.Why, "; ")
}

// pruneText are the two tables: what goes and what stays.
func pruneText(going, staying []pruned) string {
	var out strings.Builder
	for _, part := range []struct {
		what string
		list []pruned
	}{{"goes", going}, {"stays", staying}} {
		if len(part.list) == 0 {
			fmt.Fprintf(&out, "nothing %s\n", part.what)
			continue
		}
		g := grid{header: []string{part.what, "size", "why"}}
		for _, p := range part.list {
			g.add(p.ID, inspect.Size(p.Bytes), strings.Join(p.Why, "; "))
		}
		_ = g.write(&out, 0) // a builder takes everything
		out.WriteString("\n")
	}
	return out.String()
}

// printPrune says what a prune would do.
func (e *env) printPrune(going, staying []pruned) {
	var freed int64
	n := 0
	for _, p := range going {
		if p.Outcome == string(catalog.WouldDelete) {
			n++
			freed += p.Bytes
		}
	}
	e.printf("%s", pruneText(going, staying))
	e.printf("%s would be deleted, %s in all; %d would stay (dry run)\n", plural(n, "backup", "backups"), inspect.Size(freed), len(staying)+len(going)-n)
}

func (e *env) printPruned(steps []pruned, stayed int) {
	var freed int64
	deleted := 0
	for _, s := range steps {
		if s.Outcome == string(catalog.Deleted) {
			deleted++
			freed += s.Bytes
		}
		e.printf("%s\n", prunedText(s))
	}
	e.printf("%s deleted, %s freed; %s left\n", plural(deleted, "backup was", "backups were"), inspect.Size(freed), plural(stayed+len(steps)-deleted, "is", "are"))
}
