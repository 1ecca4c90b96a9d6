package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/bench"
	"github.com/quorate/quorate/bench/report"
	"github.com/quorate/quorate/inspect"
)

// benchMargin is how long a certificate lives beyond the load: keys are written
// before it and deleted after it.
const benchMargin = 30 * time.Minute

// loadPercent is the garbage collector's goal while this process is a load
// generator: fewer collections leave more CPU for requests.
const loadPercent = 400

func benchCommand(e *env) *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use:   "bench (--endpoints URL[,URL] | -c CLUSTER)",
		Short: "Load a cluster, and say what it carries and what its limit is",
		Long: `Put a load on an etcd cluster and report throughput, latency, errors, what it cost
client and members, and what the bottleneck is.

Without --rate the loop is closed: each client sends its next request when the last
was answered. A cluster that stalls for a second then stalls the load too, and the
second shows up as one slow request for each client. With --rate the loop is open:
requests are due at that rate, and latency counts from when each was due, so that
the stall is in the figures as users would have met it. With --find-max the rate is
raised until --p99 or --errors is passed, and the limit reported.

It writes: all keys lie below a prefix that is its own, by default a new one below
/quorate-bench/, and are deleted at the end, also after Ctrl-C, in small ranges. A
prefix that holds keys is refused. Deleted keys still take space until the cluster
is compacted and defragmented. It is a load on a real cluster, which its other users
feel: --dry-run says what would be done, and members on other machines are loaded
only with --yes or after a question.

Requests that could not be sent, since --max-in-flight were under way, are errors.
Endpoints that do not answer at first, and metrics that can't be read, are named in
the report. The exit code is 1 when not one request was answered, 5 when no endpoint
can be used.`,
		Example: `  quorate bench --endpoints http://127.0.0.1:2379
  quorate bench -c playground --workload mixed --clients 64 --duration 5s --html report.html
  quorate bench -c playground --from db1,db2 --rate 20000
  quorate bench -c playground --rate 500 --duration 5s --save before.json
  quorate bench -c playground --find-max --p99 50ms --errors 0.1% --step 1s
  quorate bench -c playground --mix put=30,range=60,txn=10 --value-size lognormal:1K:0.5 --skew zipf:1.1 --dry-run`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return e.bench(cmd, &o) },
	}
	e.targetFlags(cmd, &o)
	loadFlags(cmd, &o, false)
	reportFlags(cmd, &o)
	f, g := cmd.Flags(), bench.DefaultGoal()
	f.StringSliceVar(&o.hosts, "from", nil, "hosts of the server whose agents drive the load, each its share, instead of this process")
	f.BoolVar(&o.findMax, "find-max", false, "look for the highest rate that keeps to --p99 and --errors")
	f.DurationVar(&o.p99, "p99", g.P99.Std(), "with --find-max: latency that 99% of the requests keep to")
	f.StringVar(&o.errors, "errors", "0.1%", "with --find-max: share of requests that may fail")
	f.DurationVar(&o.step, "step", g.Step.Std(), "with --find-max: how long each rate is measured")
	f.Float64Var(&o.from, "first-rate", g.From, "with --find-max: the rate to begin with")
	cmd.AddCommand(benchMatrixCommand(e), benchCompareCommand(e), benchCleanCommand(e), benchWorkerCommand(e))
	return cmd
}

func benchMatrixCommand(e *env) *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use:   "matrix (--endpoints URL[,URL] | -c CLUSTER)",
		Short: "Load a cluster by namespaces and clients, as operators publish it",
		Long: `Run one load for each cell of a matrix of namespaces and clients, and print the
table that operators of etcd services publish: operations, throughput, latencies,
client and server timeouts.

The published cells have up to 64,000 clients, each with a request under way.
--scale divides the clients of each cell; the table says so.`,
		Example: `  quorate bench matrix -c playground --scale 200 --duration 1s
  quorate bench matrix -c playground --cells 1x16,4x8 --duration 1s -o csv`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return e.benchMatrix(cmd, &o) },
	}
	e.targetFlags(cmd, &o)
	loadFlags(cmd, &o, true)
	reportFlags(cmd, &o)
	cmd.Flags().StringVar(&o.cells, "cells", bench.OperatorsMatrix, "namespaces x clients of each, for each load")
	cmd.Flags().IntVar(&o.scale, "scale", 1, "divide the clients of each cell by this")
	return cmd
}

// target says how the cluster of the flags is reached.
func (e *env) benchTarget(cmd *cobra.Command, o *benchOptions, s *bench.Spec) error {
	ctx := cmd.Context()
	if o.cluster == "" {
		opts, err := e.doctorTarget(ctx, o.doctorOptions)
		if err != nil {
			return err
		}
		s.Endpoints, s.CA, s.Certificate, s.Key = opts.Endpoints, opts.CA, opts.Certificate, opts.Key
		if s.User, s.Password, err = passwordOf(&o.doctorOptions); err != nil {
			return fmt.Errorf("read the file of --password-file: %w", err)
		}
		if s.User != "" && s.Password == "" {
			return usagef(cmd, "--user is %s and there is no password: give --password-file FILE, put it into %s, or give --user NAME:PASSWORD", s.User, envEtcdPassword)
		}
		return nil
	}
	c, err := e.connect()
	if err != nil {
		return err
	}
	key := e.cluster(o.cluster)
	cluster, err := readCluster(ctx, c, key)
	if err != nil {
		return err
	}
	pass, err := passTo(ctx, c, cluster, s.Ramp.Std()+s.WarmUp.Std()+s.Duration.Std()+benchMargin)
	if err != nil {
		return named(target{v1alpha1.KindCluster, key}, err)
	}
	s.Endpoints = pass.endpoints
	if len(o.endpoints) > 0 {
		s.Endpoints = o.endpoints
	}
	if len(s.Endpoints) == 0 {
		return fmt.Errorf("%s has no members that listen yet: `quorate describe cluster %s` says why", label(v1alpha1.KindCluster, key.Name), key.Name)
	}
	s.CA, s.Certificate, s.Key = pass.bundle.CA, pass.bundle.Certificate, pass.key
	s.ServerName, s.User, s.Password = pass.serverName, pass.user, pass.password
	return nil
}

// prepared is a load that has been checked.
type prepared struct {
	spec    bench.Spec
	options bench.Options
	p       *progress
	over    chan struct{}
}

// end takes the line of progress away once the load is over.
func (r *prepared) end() {
	close(r.over)
	r.p.done()
}

// prepare checks the flags, finds the cluster, and asks where a person is to agree.
// It returns nil after a dry run.
func (e *env) prepareBench(cmd *cobra.Command, o *benchOptions, goal *bench.Goal, cells []bench.Cell) (*prepared, error) {
	s, err := e.specOf(cmd, o)
	if err != nil {
		return nil, err
	}
	for _, path := range []string{o.save, o.csv, o.hdr, o.html} {
		if err = writable(path); err != nil {
			return nil, err
		}
	}
	if err = e.benchTarget(cmd, o, &s); err != nil {
		return nil, err
	}
	if len(cells) > 0 {
		if _, err = bench.MatrixSpecs(&s, cells, o.scale); err != nil {
			return nil, e.benchUsage(cmd, err)
		}
	}
	checked := s.Clone()
	if goal != nil {
		checked.Loop, checked.Rate, checked.Duration = bench.Open, goal.From, goal.Step
	}
	if err = checked.Complete(); err != nil {
		return nil, e.benchUsage(cmd, err)
	}
	if o.dry {
		members, notes, lookErr := bench.Look(cmd.Context(), checked)
		if lookErr != nil {
			return nil, e.benchUsage(cmd, lookErr)
		}
		e.benchMembers(members, notes)
		e.benchPlan(&checked, goal, cells, o.scale)
		return nil, nil
	}
	if !o.yes && slices.ContainsFunc(checked.Endpoints, func(u string) bool { return !bench.Loopback(u) }) {
		question := fmt.Sprintf("This puts a load on %s, which its other users will feel.", strings.Join(checked.Endpoints, ", "))
		if err = e.confirm(cmd, question, "load"); err != nil {
			return nil, err
		}
	}
	p := newProgress(e)
	log, err := e.logger(slog.LevelError, p)
	if err != nil {
		return nil, err
	}
	debug.SetGCPercent(loadPercent)
	over := make(chan struct{})
	return &prepared{spec: s, p: p, over: over, options: bench.Options{
		Logger: log, Progress: func(v bench.Progress) { e.benchStep(p, v) }, Abandon: twice(cmd.Context(), over, p),
	}}, nil
}

// twice is closed at the second interrupt: the first ends the load and deletes its
// keys, which may take a while.
func twice(ctx context.Context, over <-chan struct{}, p *progress) <-chan struct{} {
	again := make(chan struct{})
	go func() {
		select {
		case <-ctx.Done():
		case <-over:
			return
		}
		p.step("ending, then deleting the keys; Ctrl-C once more leaves them")
		c := make(chan os.Signal, 1)
		signal.Notify(c, os.Interrupt, syscall.SIGTERM)
		defer signal.Stop(c)
		select {
		case <-c:
			close(again)
		case <-over:
		}
	}()
	return again
}

// writable finds out before the load whether its report can be written. It leaves no
// file behind: there may be no report.
func writable(path string) error {
	if path == "" {
		return nil
	}
	_, statErr := os.Stat(path)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600) //nolint:gosec // named by whoever runs it
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	err = f.Close()
	if errors.Is(statErr, fs.ErrNotExist) {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

func (e *env) bench(cmd *cobra.Command, o *benchOptions) error {
	if o.findMax {
		return e.benchFindMax(cmd, o)
	}
	ready, err := e.prepareBench(cmd, o, nil, nil)
	if ready == nil || err != nil {
		return err
	}
	var r *bench.Result
	if len(o.hosts) > 0 {
		r, err = e.benchFrom(cmd.Context(), ready, o.hosts)
	} else {
		r, err = bench.Run(cmd.Context(), ready.spec, ready.options)
	}
	ready.end()
	if err != nil {
		return e.benchUsage(cmd, err)
	}
	e.sign(r, o)
	filesErr := e.benchFiles(o, r, r, func(w io.Writer) error { return report.HTML(w, r) })
	err = e.benchOutput(o, r,
		func(w io.Writer) error { return report.Text(w, r, e.benchStyle()) }, func(w io.Writer) error { return report.CSV(w, r) })
	return errors.Join(err, filesErr, answered(r))
}

func (e *env) benchFindMax(cmd *cobra.Command, o *benchOptions) error {
	goal, err := e.goalOf(cmd, o)
	if err != nil {
		return err
	}
	ready, err := e.prepareBench(cmd, o, &goal, nil)
	if ready == nil || err != nil {
		return err
	}
	k, err := bench.FindMax(cmd.Context(), ready.spec, goal, ready.options)
	ready.end()
	if err != nil {
		return e.benchUsage(cmd, err)
	}
	r := k.Best
	if r == nil {
		r = k.Broken
	}
	for _, run := range []*bench.Result{k.Best, k.Broken} {
		if run != nil {
			e.sign(run, o)
		}
	}
	filesErr := e.benchFiles(o, k, r, func(w io.Writer) error { return report.KneeHTML(w, k) })
	return errors.Join(e.benchOutput(o, k,
		func(w io.Writer) error { return report.TextKnee(w, k, e.benchStyle()) }, func(w io.Writer) error { return report.KneeCSV(w, k) }), filesErr)
}

func (e *env) benchMatrix(cmd *cobra.Command, o *benchOptions) error {
	cells, err := bench.ParseMatrix(o.cells)
	if err != nil {
		return e.benchUsage(cmd, err)
	}
	if o.scale < 1 {
		return usagef(cmd, "--scale is %d: give 1, or what the clients are divided by", o.scale)
	}
	ready, err := e.prepareBench(cmd, o, nil, cells)
	if ready == nil || err != nil {
		return err
	}
	m, err := bench.RunMatrix(cmd.Context(), ready.spec, cells, o.scale, ready.options)
	ready.end()
	if err != nil {
		return e.benchUsage(cmd, err)
	}
	var last *bench.Result
	for _, row := range m.Rows {
		last = row.Result
		e.sign(last, o)
	}
	filesErr := e.benchFiles(o, m, last, func(w io.Writer) error { return report.MatrixHTML(w, m) })
	err = e.benchOutput(o, m,
		func(w io.Writer) error { return report.TextMatrix(w, m, e.benchStyle()) }, func(w io.Writer) error { return report.MatrixCSV(w, m) })
	if m.Error != "" {
		err = errors.Join(err, fmt.Errorf("the matrix is not complete: %s", m.Error))
	}
	return errors.Join(err, filesErr)
}

// answered is an error when not one request was answered.
func answered(r *bench.Result) error {
	if r.Total.Count > 0 || r.Total.Errors.Total() == 0 {
		return nil
	}
	text := "none was sent"
	if len(r.ErrorTexts) > 0 {
		text = r.ErrorTexts[0].Text
	}
	return fmt.Errorf("not one of %d requests was answered: %s", r.Total.Errors.Total(), text)
}

// sign says how the run was started. Secrets given as arguments are left out.
func (e *env) sign(r *bench.Result, o *benchOptions) {
	r.Name = o.name
	args := slices.Clone(os.Args)
	if len(args) > 0 {
		args[0] = e.called()
	}
	if name, password, given := strings.Cut(o.user, ":"); given && password != "" {
		for i, a := range args {
			args[i] = strings.ReplaceAll(a, name+":"+password, name)
		}
	}
	r.Command = args
}

// benchFiles writes the files that were asked for. One that can't be written keeps
// none of the others back: the load took its time.
func (*env) benchFiles(o *benchOptions, whole any, r *bench.Result, html func(io.Writer) error) error {
	var failed []error
	for _, f := range []struct {
		path string
		to   func(io.Writer) error
	}{
		{o.save, func(w io.Writer) error {
			enc := json.NewEncoder(w)
			enc.SetIndent("", " ")
			return enc.Encode(whole)
		}},
		{o.csv, func(w io.Writer) error { return report.SeriesCSV(w, r) }},
		{o.hdr, func(w io.Writer) error { return report.HDR(w, r) }},
		{o.html, html},
	} {
		if f.path == "" || r == nil {
			continue
		}
		var text strings.Builder
		if err := f.to(&text); err != nil {
			failed = append(failed, fmt.Errorf("write %s: %w", f.path, err))
		} else if err = os.WriteFile(f.path, []byte(text.String()), 0o600); err != nil {
			failed = append(failed, fmt.Errorf("write the report: %w", err))
		}
	}
	return errors.Join(failed...)
}

func (e *env) benchOutput(o *benchOptions, v any, text, csv func(io.Writer) error) error {
	switch o.output {
	case outTable:
		_ = text(e.Out) // As with printf: a reader that has gone away is no failure.
		return nil
	case outCSV:
		return csv(e.Out)
	default:
		return e.printValue(o.output, v)
	}
}

func (e *env) benchStyle() report.Style {
	colours := map[string]string{"bold": bold, "dim": dim, "good": green, "warn": yellow, "bad": red}
	return report.Style{
		Width: width(e.Out), Paint: func(name, text string) string { return e.painted(colours[name], text) }, Folded: fold,
	}
}

// benchStep shows where a run stands.
func (*env) benchStep(p *progress, v bench.Progress) {
	switch v.Phase {
	case bench.PhaseConnect:
		p.step("connecting to " + v.Note)
	case bench.PhaseLoad:
		p.step(fmt.Sprintf("writing the keys to read: %.0f of %.0f", v.Done, v.Of))
	case bench.PhaseCleanup:
		p.step(fmt.Sprintf("deleting the keys: %.0f of %.0f", v.Done, v.Of))
	case bench.PhaseRun:
		of := ""
		if v.Of > 0 {
			of = fmt.Sprintf(" of %.0f", v.Of)
		}
		p.step(fmt.Sprintf("%.0f%s s: %.0f op/s, p50 %.2f ms, p99 %.2f ms, max %.1f ms, %d errors, %d under way",
			v.Done, of, v.Step.OpsPerSecond, v.Step.P50, v.Step.P99, v.Step.Max, v.Step.Errors, v.Step.InFlight))
	case bench.PhaseNote:
		_, _ = io.WriteString(p, "note: "+v.Note+"\n") // as with printf
	case bench.PhaseStep:
		p.end(v.Note)
		p.step(v.Note)
	case bench.PhaseCell:
		p.step(fmt.Sprintf("load %.0f of %.0f: %s", v.Done, v.Of, v.Note))
	case bench.PhaseTry:
		p.step(fmt.Sprintf("trying %.0f requests a second", v.Done))
	default:
		if v.Of >= 1 {
			p.step(fmt.Sprintf("%s, %.0f s", v.Phase, v.Of))
		}
	}
}

// benchLine is a line of a plan.
func (e *env) benchLine(name, text string) {
	const column = 12
	e.printf("%-*s%s\n", column, name, e.folded(text, column))
}

// benchMembers prints whom a load would go to.
func (e *env) benchMembers(members []bench.Member, notes []string) {
	for i, m := range members {
		name, role := "", "follower"
		if i == 0 {
			name = "members"
		}
		if m.Leader {
			role = "leader"
		}
		e.benchLine(name, fmt.Sprintf("%s, %s, etcd %s, database of %s", m.Endpoint, role, m.Version, inspect.Size(m.DBSize)))
	}
	for _, n := range notes {
		e.benchLine("note", n)
	}
}

// benchPlan prints what would be done.
func (e *env) benchPlan(s *bench.Spec, goal *bench.Goal, cells []bench.Cell, scale int) {
	line := e.benchLine
	prefix := s.Prefix
	if prefix == "" {
		prefix = "a new one below /quorate-bench/"
	}
	if s.Keep {
		prefix += ", kept"
	} else {
		prefix += ", deleted at the end"
	}
	line("prefix", prefix)
	parts := make([]string, 0, len(s.Mix))
	for _, m := range s.Mix {
		parts = append(parts, fmt.Sprintf("%s=%g", m.Operation, m.Weight))
	}
	line("workload", strings.Join(parts, ",")+fmt.Sprintf("; %d namespaces × %d keys of %s bytes, values of %s bytes, %s", s.Namespaces, s.Keys, s.KeySize, s.ValueSize, s.Skew))
	if s.Watchers > 0 {
		line("watchers", fmt.Sprintf("%d in each namespace, on a %s each", s.Watchers, s.WatchScope))
	}
	times := fmt.Sprintf("%s ramp, %s warm-up, %s measured", s.Ramp, s.WarmUp, s.Duration)
	if s.Total > 0 {
		times = fmt.Sprintf("%s ramp, %s warm-up, until %d requests", s.Ramp, s.WarmUp, s.Total)
	}
	switch {
	case goal != nil:
		line("load", fmt.Sprintf("open loop, %g requests a second and then twice as many each %s, until p99 is more than %s or more than %.3g %% fail", goal.From, goal.Step, goal.P99, 100*goal.Errors))
	case len(cells) > 0:
		for _, c := range cells {
			line("load", fmt.Sprintf("%d × %d clients, %s", c.Namespaces, max(1, c.Clients/scale), times))
		}
	case s.Loop == bench.Open:
		line("load", fmt.Sprintf("open loop, %g requests a second (%s), at most %d under way; %s", s.Rate, s.Arrivals, s.MaxInFlight, times))
	default:
		line("load", fmt.Sprintf("closed loop, %d × %d clients on %d connections, as fast as the cluster answers; %s", s.Namespaces, s.Clients, s.Connections, times))
	}
	line("warning", "this loads the cluster, which its other users will feel; nothing was done yet")
}

func benchWorkerCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:    "worker",
		Short:  "Run a load that is described on the input, for another host",
		Hidden: true,
		Long: `Read a load as JSON from the input, run it, and write lines of JSON: progress while
it runs, then a result or an error. It is started on hosts that a load is driven
from.`,
		Example: `  quorate bench worker`,
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return e.benchWorker(cmd.Context()) },
	}
}

// workerLine is a line of a worker.
type workerLine struct {
	Progress *bench.Progress `json:"progress,omitempty"`
	Result   *bench.Result   `json:"result,omitempty"`
	Error    string          `json:"error,omitempty"`
}

// mostSpec bounds what a worker reads.
const mostSpec = 16 << 20

func (e *env) benchWorker(ctx context.Context) error {
	enc := json.NewEncoder(e.Out)
	raw, err := io.ReadAll(io.LimitReader(e.In, mostSpec))
	var spec bench.Spec
	if err == nil {
		spec, err = bench.ParseSpec(raw)
	}
	var r *bench.Result
	if err == nil {
		debug.SetGCPercent(loadPercent)
		spec.SliceHistograms = true
		r, err = bench.Run(ctx, spec, bench.Options{Progress: func(p bench.Progress) {
			_ = enc.Encode(workerLine{Progress: &p}) // whoever reads may have gone away
		}})
	}
	if err != nil {
		return errors.Join(err, enc.Encode(workerLine{Error: err.Error()}))
	}
	return enc.Encode(workerLine{Result: r})
}
