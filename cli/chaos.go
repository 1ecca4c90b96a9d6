package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/chaos"
)

func chaosCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "chaos",
		Short: "See what is disturbed on this machine, and end it",
		Long: `Disturbances are made by drills, such as "quorate check run --disturb kill".
Each is a process of its own, which undoes it at its deadline; if it is killed,
the kernel or a second process undoes it. These commands say what is going on,
clear up, and say which disturbances are possible on this machine.`,
		Example: `  quorate chaos list
  quorate chaos probe`,
		Args: noArgs,
		RunE: runGroup,
	}
	cmd.AddCommand(chaosListCommand(e), chaosSweepCommand(e), chaosProbeCommand(e), chaosHoldCommand(e))
	return cmd
}

var chaosForms = []string{outTable, outJSON, outYAML}

func ledgerFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "ledger", "", "directory with the records of disturbances (default: /run/quorate/chaos for root, else in the user's runtime directory)")
}

func chaosListCommand(e *env) *cobra.Command {
	var dir, output string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List what is disturbed on this machine",
		Long: `List the disturbances on this machine: what is done to which process, by which
holder, and when it ends. One that is left has lost its holder: "quorate chaos
sweep" clears up.`,
		Example: `  quorate chaos list
  quorate chaos list -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(cmd, output, chaosForms...); err != nil {
				return err
			}
			records, err := chaos.List(dir)
			if err != nil {
				return err
			}
			return e.printDisturbances(output, records)
		},
	}
	ledgerFlag(cmd, &dir)
	outputFlag(cmd, &output, chaosForms...)
	return cmd
}

// disturbance is a record as the outside sees it: without what undoing needs, which holds
// the environment of a process.
type disturbance struct {
	ID       string    `json:"id"`
	Kind     string    `json:"kind"`
	Endpoint string    `json:"endpoint,omitempty"`
	Process  int       `json:"process,omitempty"`
	Holder   int       `json:"holder"`
	Began    time.Time `json:"began"`
	Deadline time.Time `json:"deadline"`
	// State is running, overdue or left.
	State string `json:"state"`
}

func asDisturbance(r *chaos.Record) disturbance {
	d := disturbance{
		ID: r.ID, Kind: r.Disturbance.Kind, Endpoint: r.Disturbance.Endpoint, Process: r.Target.PID, Holder: r.Holder.PID,
		Began: r.Began, Deadline: r.Deadline, State: "running",
	}
	switch {
	case !r.Alive():
		d.State = "left"
	case r.Overdue():
		d.State = "overdue"
	}
	return d
}

func (e *env) printDisturbances(output string, records []chaos.Record) error {
	list := make([]disturbance, 0, len(records))
	for i := range records {
		list = append(list, asDisturbance(&records[i]))
	}
	if output != outTable {
		return e.printValue(output, list)
	}
	if len(list) == 0 {
		e.printf("nothing is disturbed\n")
		return nil
	}
	g := grid{header: []string{"id", "process", "endpoint", "holder", "ends in", "state"}}
	for _, d := range list {
		pid := ""
		if d.Process != 0 {
			pid = strconv.Itoa(d.Process)
		}
		g.add(d.ID, pid, d.Endpoint, strconv.Itoa(d.Holder), max(0, time.Until(d.Deadline)).Round(100*time.Millisecond).String(), d.State)
	}
	return g.write(e.Out, width(e.Out))
}

func chaosSweepCommand(e *env) *cobra.Command {
	var dir string
	var all, dryRun bool
	cmd := &cobra.Command{
		Use:   "sweep",
		Short: "Undo what killed processes have left disturbed",
		Long: `Undo disturbances whose holders were killed and which nobody else has undone,
and end holders that are overdue. What is running in good order stays; --all
ends it too, before its time.`,
		Example: `  quorate chaos sweep
  quorate chaos sweep --all --dry-run`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.sweepChaos(cmd.Context(), dir, all, dryRun)
		},
	}
	ledgerFlag(cmd, &dir)
	cmd.Flags().BoolVar(&all, "all", false, "end what is running in good order, too")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be undone")
	return cmd
}

func (e *env) sweepChaos(ctx context.Context, dir string, all, dryRun bool) error {
	records, err := chaos.List(dir)
	if err != nil {
		return err
	}
	if !dryRun {
		swept, sweepErr := chaos.Sweep(ctx, dir)
		for _, r := range swept {
			e.printf("%s: undone\n", r.ID)
		}
		err = sweepErr
	}
	for i := range records {
		r := &records[i]
		good := r.Alive() && !r.Overdue()
		switch {
		case dryRun && (all || !good):
			e.printf("%s: would be undone\n", r.ID)
		case !dryRun && all && good:
			if endErr := chaos.End(ctx, dir, r.ID); endErr != nil {
				err = errors.Join(err, fmt.Errorf("end %s: %w", r.ID, endErr))
				continue
			}
			e.printf("%s: ended\n", r.ID)
		}
	}
	return err
}

func chaosProbeCommand(e *env) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "probe",
		Short: "Say which disturbances are possible on this machine",
		Long: `Try what this machine offers to this user, and say which kinds of disturbance
are possible and how each is undone. What is tried on the network is tried in a
namespace that is thrown away.`,
		Example: `  quorate chaos probe
  quorate chaos probe -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(cmd, output, chaosForms...); err != nil {
				return err
			}
			return e.probeChaos(output)
		},
	}
	outputFlag(cmd, &output, chaosForms...)
	return cmd
}

// kindReport is one kind of disturbance.
type kindReport struct {
	Name    string `json:"name"`
	Summary string `json:"summary"`
	Undone  string `json:"undone"`
	Missing string `json:"missing,omitempty"`
}

func (e *env) probeChaos(output string) error {
	var report struct {
		Kinds        []kindReport       `json:"kinds"`
		Capabilities []chaos.Capability `json:"capabilities"`
	}
	for _, k := range chaos.Kinds() {
		r := kindReport{Name: k.Name, Summary: k.Summary, Undone: k.Undone}
		if err := k.Available(); err != nil {
			r.Missing = err.Error()
		}
		report.Kinds = append(report.Kinds, r)
	}
	report.Capabilities = chaos.Probe()
	if output != outTable {
		return e.printValue(output, report)
	}
	had := func(missing string) string {
		if missing == "" {
			return "yes"
		}
		return "no: " + missing
	}
	kinds := grid{header: []string{"disturbance", "possible", "what it does", "how it is undone"}, wrap: []int{1, 2, 3}}
	for _, k := range report.Kinds {
		kinds.add(k.Name, had(k.Missing), k.Summary, k.Undone)
	}
	if err := kinds.write(e.Out, width(e.Out)); err != nil {
		return err
	}
	e.printf("\n")
	can := grid{header: []string{"capability", "there", "what it is for"}, wrap: []int{1, 2}}
	for _, c := range report.Capabilities {
		can.add(c.Name, had(c.Missing), c.For)
	}
	return can.write(e.Out, width(e.Out))
}

func chaosHoldCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:    "hold",
		Short:  "Hold one disturbance (started by drills)",
		Hidden: true,
		Long: `Make one disturbance, by the order that is read from standard input, and undo it
at its deadline or on SIGTERM. Drills start one for each disturbance; it
outlives them.`,
		Example: `  quorate chaos hold`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return chaos.Hold(cmd.Context(), e.In, e.Out)
		},
	}
}
