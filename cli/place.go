package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
)

// errUnplaced: not every member has a place, which was printed.
var errUnplaced = errors.New("a member has no place")

var placeForms = []string{outTable, outJSON, outYAML}

type placeOptions struct {
	file      string
	dryRun    bool
	rebalance bool
	output    string
}

func placeCommand(e *env) *cobra.Command {
	var o placeOptions
	cmd := &cobra.Command{
		Use:   "place [NAME]",
		Short: "Show which hosts a cluster's members get, and why",
		Long: `Show on which hosts the members of a cluster stand, which hosts those that are
missing would get, and why; and of each other host why it can't have a member.
With -f it is what applying that file would do. Nothing is changed, and nothing is
kept free: members are placed by "quorate apply", and moved by "quorate host
drain". --dry-run is the only way this command works, and may be given or left
out.

With --rebalance it shows what would place the members of the whole fleet better:
members of one cluster that share a host, uneven zones, hosts of which more is
promised than they have, clusters whose classes or labels have changed, and
leaders that pile up on one host. Each suggestion comes with the evidence and the
commands; each makes the fleet better if those before it were carried out.

It ends with 17 when a member has no place.`,
		Example: `  quorate place playground
  quorate place -f playground.yaml --dry-run
  quorate place playground -o json
  quorate place --rebalance`,
		Args:              argsBetween(0, 1, "NAME"),
		ValidArgsFunction: e.completeCluster,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.place(cmd, args, o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.file, "filename", "f", "", "file with the cluster as it would be; - for the standard input")
	f.BoolVar(&o.dryRun, "dry-run", true, "only show it: the only way there is")
	f.BoolVar(&o.rebalance, "rebalance", false, "show what would place the whole fleet better")
	outputFlag(cmd, &o.output, placeForms...)
	return cmd
}

func (e *env) place(cmd *cobra.Command, args []string, o placeOptions) error {
	if err := checkOutput(cmd, o.output, placeForms...); err != nil {
		return err
	}
	switch {
	case !o.dryRun:
		return usagef(cmd, "--dry-run=false: this command only shows; members are placed by `quorate apply`, and moved by `quorate host drain`")
	case o.rebalance && (o.file != "" || len(args) > 0):
		return usagef(cmd, "--rebalance looks at the whole fleet: leave out the name and -f")
	case !o.rebalance && o.file == "" && len(args) == 0:
		return usagef(cmd, "NAME is missing: the cluster to place; or give -f, or --rebalance for the whole fleet")
	}
	if o.rebalance {
		return e.rebalance(cmd, o.output)
	}
	s, err := e.subject(cmd, args, o.file)
	if err != nil {
		return err
	}
	c, err := e.connect()
	if err != nil {
		return err
	}
	done := e.slowly("looking for hosts")
	p, err := ofSubject(cmd.Context(), c, s, c.Placement, c.PlacementFor)
	done()
	if err != nil {
		return err
	}
	if o.output != outTable {
		err = e.printValue(o.output, p)
	} else {
		err = e.printPlacement(&p)
	}
	if err == nil && p.Missing > 0 {
		err = errUnplaced
	}
	return err
}

func (e *env) printPlacement(p *v1alpha1.Placement) error {
	name := label(v1alpha1.KindCluster, p.Cluster)
	standing, coming := 0, 0
	g := grid{header: []string{"member", "host", "zone", "state", "reason"}, wrap: []int{4}}
	for _, m := range p.Members {
		state := "stands"
		switch {
		case m.Leaving:
			state = "is leaving"
		case m.Standing:
			standing++
		default:
			state = "would come"
			coming++
		}
		g.add(m.Member, m.Host, m.Zone, state, m.Reason)
	}
	e.printf("%s: %s\n", name, placedText(standing, coming, p.Missing))
	if p.Held != "" {
		e.printf("%s\n", e.painted(yellow, "no host ("+p.HeldReason+"): "+p.Held))
	}
	if len(p.Members) > 0 {
		e.printf("\n")
		if err := g.write(e.Out, width(e.Out)); err != nil {
			return err
		}
	}
	e.printNotes(p.Notes)
	if len(p.Refused) == 0 {
		return nil
	}
	what := "one more member"
	if p.Missing > 0 {
		what = "the next member"
	}
	e.printf("\nHosts that %s can't come to:\n\n", what)
	return e.printRefused(p.Refused)
}

// placedText says how many members have a host.
func placedText(standing, coming, missing int) string {
	var parts []string
	for _, part := range []struct {
		n         int
		one, more string
	}{{standing, "1 member stands", "members stand"}, {coming, "1 would come", "would come"}, {missing, "1 has no host", "have no host"}} {
		switch {
		case part.n == 1:
			parts = append(parts, part.one)
		case part.n > 1:
			parts = append(parts, fmt.Sprintf("%d %s", part.n, part.more))
		}
	}
	if len(parts) == 0 {
		return "no member"
	}
	return strings.Join(parts, ", ")
}

func (e *env) printNotes(notes []string) {
	if len(notes) > 0 {
		e.printf("\n")
	}
	for _, n := range notes {
		e.printf("note: %s\n", n)
	}
}

func (e *env) printRefused(refused []v1alpha1.RefusedHost) error {
	g := grid{header: []string{"host", "reason", "message"}, wrap: []int{2}}
	for _, r := range refused {
		g.add(r.Host, r.Reason, r.Message)
	}
	return g.write(e.Out, width(e.Out))
}

func (e *env) rebalance(cmd *cobra.Command, form string) error {
	c, err := e.connect()
	if err != nil {
		return err
	}
	ctx, cancel := call(cmd.Context())
	defer cancel()
	done := e.slowly("looking at the fleet")
	r, err := c.Rebalance(ctx)
	done()
	if err != nil {
		return err
	}
	if form != outTable {
		return e.printValue(form, r)
	}
	if len(r.Suggestions) == 0 {
		e.printf("nothing would place the fleet's members better\n")
	}
	for i, s := range r.Suggestions {
		if i > 0 {
			e.printf("\n")
		}
		e.printf("%d. %s: %s\n   %s\n", i+1, s.Reason, s.Evidence, s.Gain)
		for _, command := range s.Commands {
			e.printf("   $ %s\n", command)
		}
	}
	if len(r.Wrong) > 0 {
		e.printf("\n%s\n", e.painted(yellow, "No move of members mends this:"))
	}
	for _, text := range r.Wrong {
		e.printf("- %s\n", text)
	}
	return nil
}
