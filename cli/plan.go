package cli

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

var planForms = []string{outTable, outJSON, outYAML}

type planOptions struct {
	file   string
	accept bool
	yes    bool
	output string
}

func planCommand(e *env) *cobra.Command {
	var o planOptions
	cmd := &cobra.Command{
		Use:   "plan [NAME]",
		Short: "Show the steps that a cluster's change will take, and why",
		Long: `Show what would bring a cluster to its spec: the steps in order, each with its
reason, what must hold before it is taken, and what clients notice. With -f it is
the plan there would be if that file were applied.

After the fleet's store was restored, clusters are held still: --accept shows the
plan, asks, and lets the cluster go on if the plan is still the one that was shown.`,
		Example: `  quorate plan playground
  quorate plan -f playground.yaml
  quorate plan playground --accept`,
		Args:              argsBetween(0, 1, "NAME"),
		ValidArgsFunction: e.completeCluster,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.plan(cmd, args, o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.file, "filename", "f", "", "file with the cluster as it would be; - for the standard input")
	f.BoolVar(&o.accept, "accept", false, "let a cluster go on that is held since the store was restored")
	f.BoolVarP(&o.yes, "yes", "y", false, "accept without asking")
	outputFlag(cmd, &o.output, planForms...)
	return cmd
}

func (e *env) plan(cmd *cobra.Command, args []string, o planOptions) error {
	if err := checkOutput(cmd, o.output, planForms...); err != nil {
		return err
	}
	if o.file != "" && o.accept {
		return usagef(cmd, "--accept accepts the plan of what is stored, and -f proposes something else: leave one of them out")
	}
	if o.yes && !o.accept {
		return usagef(cmd, "--yes answers --accept, which is missing")
	}
	if len(args) == 0 && o.file == "" {
		return usagef(cmd, "NAME is missing: the cluster to plan for")
	}
	s, err := e.subject(cmd, args, o.file)
	if err != nil {
		return err
	}
	c, err := e.connect()
	if err != nil {
		return err
	}
	done := e.slowly("asking for the plan")
	p, err := ofSubject(cmd.Context(), c, s, c.Plan, c.PlanFor)
	done()
	if err != nil {
		return err
	}
	if err := e.printPlan(p, o.output); err != nil || !o.accept {
		return err
	}
	return e.accept(cmd, c, s.key, p, o.yes)
}

func (e *env) accept(cmd *cobra.Command, c *remote.Client, key store.Key, p v1alpha1.Plan, yes bool) error {
	if p.HeldReason != fleet.HeldRestored {
		e.printf("%s is not held since a restore: there is nothing to accept\n", label(v1alpha1.KindCluster, key.Name))
		return nil
	}
	if !yes {
		question := "Accepting lets Quorate take these steps."
		if len(p.Steps) == 0 {
			question = "Accepting lets Quorate look after the cluster again."
		}
		if err := e.confirm(cmd, question, key.Name); err != nil {
			return err
		}
	}
	ctx, cancel := call(cmd.Context())
	defer cancel()
	err := c.Accept(ctx, key, p.Token)
	if errors.Is(err, store.ErrConflict) {
		return fmt.Errorf("%s: the plan has changed since it was shown: read it again: %w", label(v1alpha1.KindCluster, key.Name), err)
	}
	if err != nil {
		return err
	}
	e.printf("%s: the plan is accepted\n", label(v1alpha1.KindCluster, key.Name))
	return nil
}

func (e *env) printPlan(p v1alpha1.Plan, form string) error {
	if form != outTable {
		return e.printValue(form, p)
	}
	name := label(v1alpha1.KindCluster, p.Cluster)
	switch n := len(p.Steps); {
	case n == 0 && p.Held == "":
		e.printf("%s is as its spec wants: nothing to do\n", name)
	case n == 0:
		e.printf("%s: no steps\n", name)
	case n == 1:
		e.printf("%s: 1 step\n", name)
	default:
		e.printf("%s: %d steps\n", name, n)
	}
	if p.Held != "" {
		e.printf("%s\n", e.painted(yellow, "held ("+p.HeldReason+"): "+p.Held))
	}
	if len(p.Refused) > 0 {
		e.printf("\nHosts that the next member can't come to:\n\n")
		if err := e.printRefused(p.Refused); err != nil {
			return err
		}
	}
	e.printNotes(p.Notes)
	if len(p.Steps) == 0 {
		return nil
	}
	e.printf("\n")
	g := grid{header: []string{"#", "action", "member", "reason", "precondition", "impact"}, wrap: []int{3, 4, 5}}
	for i, s := range p.Steps {
		g.add(strconv.Itoa(i+1), string(s.Action), s.Member, s.Reason, s.Precondition, s.Impact)
	}
	return g.write(e.Out, width(e.Out))
}
