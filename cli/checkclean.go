package cli

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/check"
)

func checkCleanCommand(e *env) *cobra.Command {
	var o checkOptions
	var c check.CleanOptions
	cmd := &cobra.Command{
		Use:   "clean (--endpoints URL[,URL] | -c CLUSTER)",
		Short: "Delete what killed runs have left",
		Long: `Delete the keys that runs of "quorate check run" have left, since they were killed,
given up, or told to --keep them.

Without --prefix that is all below /quorate-check/ whose name was chosen by a run.
Only keys as a run makes them are deleted, a hundred at a time; a prefix that holds
another key is left as it is, and so is one that is written while this looks: its
run goes on.

The exit code is 0 also when something was left.`,
		Example: `  quorate check clean -c playground --dry-run
  quorate check clean -c playground
  quorate check clean --endpoints http://127.0.0.1:2379 --prefix /mine/`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(cmd, o.output, checkForms...); err != nil {
				return err
			}
			if err := readCheckTarget(cmd, o.target); err != nil {
				return err
			}
			if c.Quiet <= 0 {
				return usagef(cmd, "--quiet is %s: give a time above 0, such as 5s", c.Quiet)
			}
			return e.checkClean(cmd, &o, c)
		},
	}
	checkTargetFlags(cmd, &o.target)
	f := cmd.Flags()
	f.StringVar(&c.Prefix, "prefix", "", "clean this prefix of a run alone; it ends with a slash")
	f.DurationVar(&c.Quiet, "quiet", check.DefaultQuiet, "how long nobody may have written a prefix")
	f.BoolVar(&c.DryRun, "dry-run", false, "only say what would be deleted")
	outputFlag(cmd, &o.output, checkForms...)
	e.completeClusters(cmd)
	return cmd
}

func (e *env) checkClean(cmd *cobra.Command, o *checkOptions, c check.CleanOptions) error {
	if err := e.checkTarget(cmd, o); err != nil {
		return err
	}
	done := e.slowly("looking whether anybody writes still")
	defer done()
	found, err := check.Clean(cmd.Context(), o.opts, c)
	done()
	if err != nil && len(found) == 0 {
		return checkFailed(cmd, err)
	}
	if found == nil {
		found = []check.Leftover{}
	}
	if bad := e.printChecked(o.output, found, func() { e.printCleaned(found, c.DryRun) }); bad != nil {
		return bad
	}
	return err
}

func (e *env) printCleaned(found []check.Leftover, dryRun bool) {
	if len(found) == 0 {
		e.printf("nothing is left\n")
		return
	}
	g := grid{header: []string{"prefix", "keys", "what"}}
	for _, l := range found {
		what := "deleted " + strconv.FormatInt(l.Deleted, 10)
		switch {
		case l.Kept != "":
			what = "left: " + l.Kept
		case dryRun:
			what = "would be deleted"
		}
		g.add(l.Prefix, strconv.FormatInt(l.Keys, 10), what)
	}
	_ = g.write(e.Out, 0) // As with printf: a reader that has gone away is no failure.
}
