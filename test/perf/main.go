// Command perf runs Quorate and a peer side by side, on the same machine and under
// the same conditions: A B A B, five pairs or more. Only what was measured side by
// side in one run counts, so it gives medians with their spread, and the ratio of the
// two within each pair with its interval.
//
//	go run ./test/perf list                       the comparisons
//	go run ./test/perf bench-put                  one of them
//	go run ./test/perf -pairs 9 -json put.json bench-put
//
// Peers are built from their modules, into .cache/peers/<module>@<version>/. It exits
// with 1 if a goal is missed, and with 2 if it could not be run.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// comparison is one claim about Quorate and a peer.
type comparison struct {
	name, claim string
	// peer that is compared with.
	peer peer
	// metrics that each run gives, in the order of the report.
	metrics []metric
	// prepare, if not nil, is called once, before the pairs.
	prepare func(ctx context.Context, dir string, b *built) error
	// ours and theirs do one run each, on an etcd that nobody used before.
	ours, theirs func(ctx context.Context, l *lane) (sample, error)
}

// sample is what one run measured, by the names of metrics.
type sample map[string]float64

func comparisons() []comparison {
	return []comparison{benchPut(), benchRange(), benchStall(), backupFull(), backupRestore()}
}

var errUsage = errors.New("usage: perf [-pairs N] [-json FILE] NAME | list")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit code.
func run(ctx context.Context, args []string, out, progress io.Writer) int {
	flags := flag.NewFlagSet("perf", flag.ContinueOnError)
	flags.SetOutput(progress)
	pairs := flags.Int("pairs", 5, "how often each side runs")
	file := flags.String("json", "", "file for all that was measured (- for the output, in place of the table)")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	c, err := choose(flags.Args(), *pairs)
	if err != nil {
		say(progress, "perf: %v\n", err)
		return 2
	}
	if c == nil {
		for _, c := range comparisons() {
			say(out, "%-14s %s\n", c.name, c.claim)
		}
		return 0
	}
	r, err := compare(ctx, c, *pairs, progress)
	if err == nil {
		err = publish(r, *file, out)
	}
	switch {
	case err != nil:
		say(progress, "perf: %s: %v\n", c.name, err)
		return 2
	case !r.OK:
		return 1
	}
	return 0
}

// choose returns nil for the list.
func choose(args []string, pairs int) (*comparison, error) {
	if len(args) != 1 {
		return nil, errUsage
	}
	if pairs < minPairs {
		return nil, fmt.Errorf("%d pairs are too few to tell a difference from chance: run %d or more", pairs, minPairs)
	}
	if args[0] == "list" {
		return nil, nil //nolint:nilnil // the list is no comparison and no error
	}
	for _, c := range comparisons() {
		if c.name == args[0] {
			return &c, nil
		}
	}
	return nil, fmt.Errorf("there is no comparison %q: see perf list", args[0])
}

// compare runs the pairs.
func compare(ctx context.Context, c *comparison, pairs int, progress io.Writer) (*report, error) {
	dir, err := os.MkdirTemp("", "perf-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	built, err := build(ctx, dir, c.peer, progress)
	if err != nil {
		return nil, err
	}
	if c.prepare != nil {
		say(progress, "preparing\n")
		if err := c.prepare(ctx, dir, built); err != nil {
			return nil, err
		}
	}
	r := newReport(c, built)
	for i := range pairs {
		var pair [2]sample
		for side, do := range []func(context.Context, *lane) (sample, error){c.ours, c.theirs} {
			name := []string{"quorate", c.peer.name}[side]
			began := time.Now()
			s, err := inLane(ctx, filepath.Join(dir, fmt.Sprintf("%d-%s", i, name)), built, do)
			if err != nil {
				return nil, fmt.Errorf("pair %d, %s: %w", i+1, name, err)
			}
			say(progress, "pair %d of %d, %-10s %s (%.1f s)\n", i+1, pairs, name, s.text(c.metrics), time.Since(began).Seconds())
			pair[side] = s
		}
		r.Pairs = append(r.Pairs, pairOf{Ours: pair[0], Theirs: pair[1]})
	}
	r.judge(c.metrics)
	return r, nil
}

// text is all of a sample in one line.
func (s sample) text(metrics []metric) string {
	parts := make([]string, 0, len(metrics))
	for _, m := range metrics {
		parts = append(parts, fmt.Sprintf("%s %s", m.name, figure(s[m.name], m.unit)))
	}
	return strings.Join(parts, ", ")
}

// publish writes the report: as JSON to a file or to the output, and else a table.
func publish(r *report, file string, out io.Writer) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if file == "-" {
		say(out, "%s\n", data)
		return nil
	}
	if file != "" {
		if err := os.WriteFile(file, append(data, '\n'), 0o600); err != nil {
			return err
		}
	}
	return r.table(out)
}

// table is for people.
func (r *report) table(out io.Writer) error {
	say(out, "%s: %s\n%s; %s, %d pairs\n\n", r.Name, r.Claim, r.Machine, strings.Join(r.Versions, ", "), len(r.Pairs))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	say(w, "\tquorate\t(quartiles, range)\t%s\t(quartiles, range)\tratio\t(%.0f%% interval)\tgoal\t\t\n", r.Peer, 100*r.Confidence)
	for _, m := range r.Metrics {
		mark := ""
		if m.Goal != "" {
			mark = map[bool]string{true: "met", false: "MISSED"}[m.OK]
		}
		say(w, "%s\t%s\t%s\t%s\t%s\t%.3f\t(%.3f to %.3f)\t%s\t%s\t\n",
			m.Name, figure(m.Ours.Median, m.Unit), m.Ours.text(m.Unit), figure(m.Theirs.Median, m.Unit), m.Theirs.text(m.Unit),
			m.Ratio, m.Low, m.High, m.Goal, mark)
	}
	return w.Flush()
}

func (s spread) text(unit string) string {
	short := func(v float64) string { return strings.TrimSuffix(figure(v, unit), " "+unit) }
	return fmt.Sprintf("(%s-%s, %s-%s)", short(s.Q1), short(s.Q3), short(s.Min), short(s.Max))
}

// figure has three digits at least.
func figure(v float64, unit string) string {
	switch {
	case v >= 100 || v == 0:
		return fmt.Sprintf("%.0f %s", v, unit)
	case v >= 10:
		return fmt.Sprintf("%.1f %s", v, unit)
	}
	return fmt.Sprintf("%.2f %s", v, unit)
}

func say(out io.Writer, format string, args ...any) {
	_, _ = fmt.Fprintf(out, format, args...) // there is nowhere else to tell
}
