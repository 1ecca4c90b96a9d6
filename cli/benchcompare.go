package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/bench"
	"github.com/quorate/quorate/bench/report"
)

func benchCompareCommand(e *env) *cobra.Command {
	var failOver, output string
	cmd := &cobra.Command{
		Use:   "compare BASE.json NOW.json...",
		Short: "Say what changed between loads, and whether it is more than chance",
		Long: `Compare results that --save has written. The first is the base; each of the
others is compared with it. Several runs of one side are given as one argument with
commas in between.

With four runs of each side or more, the runs are the samples; with fewer, the
slices of their time series are. Whether a change is more than chance is told by
Mann and Whitney's test at 5 %. Slices of one run are not quite independent of each
other, and two runs differ for reasons of their own: repeat what matters, in turn.

With --fail-over the exit code is 7 when a metric is worse by more than that, and
surely so.`,
		Example: `  quorate bench compare before.json after.json
  quorate bench compare before.json after.json --fail-over 10% -o json
  quorate bench compare a1.json,a2.json,a3.json,a4.json b1.json,b2.json,b3.json,b4.json`,
		Args: argsBetween(2, -1, "BASE.json NOW.json"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(cmd, output, outTable, outJSON, outYAML); err != nil {
				return err
			}
			limit := -1.0
			if failOver != "" {
				var err error
				if limit, err = share(failOver); err != nil || !(limit >= 0) {
					return usagef(cmd, "--fail-over is %q: give a share such as 10%%", failOver)
				}
			}
			return e.benchCompare(args, output, limit)
		},
	}
	cmd.Flags().StringVar(&failOver, "fail-over", "", "exit with 7 when a metric is worse by more than this, such as 10%")
	outputFlag(cmd, &output, outTable, outJSON, outYAML)
	return cmd
}

func (e *env) benchCompare(args []string, output string, limit float64) error {
	sides := make([]bench.Series, 0, len(args))
	for _, arg := range args {
		s, err := readSeries(arg)
		if err != nil {
			return err
		}
		sides = append(sides, s)
	}
	var all []*bench.Comparison
	var worse []string
	for _, side := range sides[1:] {
		c, err := bench.Compare(sides[0], side)
		if err != nil {
			return err
		}
		all = append(all, c)
		if limit < 0 {
			continue
		}
		for _, m := range c.WorseThan(limit) {
			worse = append(worse, fmt.Sprintf("%s of %s: %+.1f %%", m.Name, side.Name, 100*m.Delta))
		}
	}
	if output != outTable {
		if err := e.printValue(output, all); err != nil {
			return err
		}
	} else {
		for i, c := range all {
			if i > 0 {
				e.printf("\n")
			}
			_ = report.TextCompare(e.Out, c, e.benchStyle()) // As with printf: a reader that has gone away is no failure.
		}
	}
	if len(worse) > 0 {
		e.errorf("worse than --fail-over allows: %s\n", strings.Join(worse, "; "))
		return errDiffers
	}
	return nil
}

// readSeries reads the runs of one side.
func readSeries(arg string) (bench.Series, error) {
	s := bench.Series{Name: arg}
	for path := range strings.SplitSeq(arg, ",") {
		raw, err := os.ReadFile(path) //nolint:gosec // named by whoever runs it
		if err != nil {
			return s, fmt.Errorf("read a result: %w", err)
		}
		var r bench.Result
		var whole struct {
			Steps []json.RawMessage `json:"steps"`
			Rows  []json.RawMessage `json:"rows"`
		}
		if json.Unmarshal(raw, &whole) == nil && len(whole.Steps)+len(whole.Rows) > 0 {
			return s, fmt.Errorf("%s is of --find-max or a matrix, which hold several loads: compare single ones, with --rate or --clients", path)
		}
		if err = json.Unmarshal(raw, &r); err == nil && (r.Format != bench.Format || r.Seconds <= 0) {
			err = errors.New("it is none of format 1: write one with quorate bench --save")
		}
		if err == nil && (r.Spec.Loop == "" || len(r.Series) == 0) {
			err = errors.New("it tells of no load or has no time series")
		}
		if err != nil {
			return s, fmt.Errorf("%s is no result of a load: %w", path, err)
		}
		s.Runs = append(s.Runs, &r)
	}
	return s, nil
}
