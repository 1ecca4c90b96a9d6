package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/bench"
	"github.com/quorate/quorate/inspect"
)

func benchCleanCommand(e *env) *cobra.Command {
	var o benchOptions
	var kept bool
	var quiet time.Duration
	cmd := &cobra.Command{
		Use:   "clean (--endpoints URL[,URL] | -c CLUSTER)",
		Short: "Delete the keys of loads that were killed before they could",
		Long: `Delete what loads have left that were killed with kill -9, or lost their cluster.

It looks below /quorate-bench/, where loads choose a prefix of their own, and
nowhere else: a load that was given --prefix elsewhere has left keys that this
can't tell from others'. Of what lies there it deletes single keys that have the
shape of a load's; others are counted, and stay. Leases go when all keys that they
hold were the load's; those without keys end with their TTL.

A load that goes on marks itself with a key on a lease of 60 seconds, and each
transaction that deletes fails if there is such a mark: what was killed less than
a minute ago counts as running. Keys without a mark are looked at twice, --quiet
apart, and count as running when they change. What --keep left stays, save with
--kept.

Keys are deleted by a hundred, with a rest after each page as long as the page
took, so that others are served meanwhile. Compact and defragment afterwards if
the space is wanted back.`,
		Example: `  quorate bench clean -c playground --dry-run
  quorate bench clean -c playground --yes`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return e.benchClean(cmd, &o, kept, quiet) },
	}
	e.targetFlags(cmd, &o)
	f := cmd.Flags()
	f.Lookup("endpoints").Usage = "client URLs of the cluster"
	f.BoolVar(&o.dry, "dry-run", false, "print what would be deleted, and delete nothing")
	f.BoolVar(&o.yes, "yes", false, "don't ask before it is deleted")
	f.BoolVar(&kept, "kept", false, "delete what --keep left on purpose, too")
	f.DurationVar(&quiet, "quiet", 3*time.Second, "how long keys without a mark must stay as they are to count as left")
	outputFlag(cmd, &o.output, outTable, outJSON, outYAML)
	return cmd
}

// cleaned is what became of the keys, for programs.
type cleaned struct {
	DryRun bool            `json:"dryRun"`
	Runs   []bench.LeftRun `json:"runs"`
}

func (e *env) benchClean(cmd *cobra.Command, o *benchOptions, kept bool, quiet time.Duration) error {
	const longestQuiet = time.Hour
	if err := checkOutput(cmd, o.output, outTable, outJSON, outYAML); err != nil {
		return err
	}
	if quiet < time.Second || quiet > longestQuiet {
		return usagef(cmd, "--quiet is %s: give 1s to %s", quiet, longestQuiet)
	}
	if err := checkTarget(cmd, o); err != nil {
		return err
	}
	s := bench.Default()
	if err := e.benchTarget(cmd, o, &s); err != nil {
		return err
	}
	p := newProgress(e)
	opts := bench.CleanOptions{Kept: kept, Quiet: quiet, Options: bench.Options{Progress: func(v bench.Progress) {
		if v.Phase == bench.PhaseCleanup {
			p.step(fmt.Sprintf("%s: deleting the keys: %.0f of %.0f", v.Note, v.Done, v.Of))
		}
	}}}
	if !o.dry {
		opts.Agree = func(runs []bench.LeftRun) error {
			if o.yes {
				return nil
			}
			if o.output == outTable {
				e.benchLeft(runs, kept, "would delete")
			}
			return e.confirm(cmd, "This deletes the keys of loads that are shown as left.", "delete")
		}
	}
	runs, err := bench.Clean(cmd.Context(), s, opts)
	p.done()
	if err != nil && !slices.ContainsFunc(runs, func(r bench.LeftRun) bool { return r.Deleted > 0 }) {
		return e.benchUsage(cmd, err)
	}
	if o.output != outTable {
		if printErr := e.printValue(o.output, cleaned{o.dry, slices.Concat([]bench.LeftRun{}, runs)}); printErr != nil {
			return printErr
		}
		return err
	}
	verb := "deleted"
	if o.dry {
		verb = "would delete"
	}
	e.benchLeft(runs, kept, verb)
	return err
}

// benchLeft prints what lies below the prefixes of loads, and what becomes of it.
func (e *env) benchLeft(runs []bench.LeftRun, kept bool, verb string) {
	if len(runs) == 0 {
		e.printf("no load has left keys below /quorate-bench/\n")
		return
	}
	keys, size, n := int64(0), int64(0), 0
	e.printf("%-34s %-9s %9s %11s %7s  %s\n", "PREFIX", "STATE", "KEYS", "SIZE", "LEASES", "")
	for i := range runs {
		r := &runs[i]
		var fate string
		switch {
		case r.State == bench.Running && r.TTL > 0:
			fate = fmt.Sprintf("stays: it goes on, or was killed so lately that its mark lasts %d s more", r.TTL)
		case r.State == bench.Running:
			fate = "stays: it goes on"
		case r.State == bench.Foreign:
			fate = fmt.Sprintf("stays: %s of no load", plural64(r.Others, "key is", "keys are"))
		case r.State == bench.Kept && !kept:
			fate = "stays: it was kept on purpose; --kept deletes it"
		default:
			fate, n = verb, n+1
			if verb == "deleted" {
				fate = fmt.Sprintf("%d deleted, %s revoked", r.Deleted, plural(r.Revoked, "lease", "leases"))
				keys += r.Deleted
			} else {
				keys += r.Keys
			}
			size += r.Bytes
			if r.Others > 0 {
				fate += "; " + plural64(r.Others, "key is of no load, and stays", "keys are of no load, and stay")
			}
		}
		e.printf("%-34s %-9s %9s %11s %7s  %s\n", printable(r.Prefix), r.State, strconv.FormatInt(r.Keys, 10), inspect.Size(r.Bytes), strconv.Itoa(r.Leases), fate)
		if r.By != "" {
			e.printf("  by %s\n", printable(r.By))
		}
	}
	e.printf("%s %s of %s, %s\n", verb, plural64(keys, "key", "keys"), plural(n, "load", "loads"), inspect.Size(size))
}

// printable keeps what others wrote from steering a terminal.
func printable(text string) string {
	return strings.Trim(strconv.QuoteToGraphic(strings.ReplaceAll(text, `"`, "'")), `"`)
}
