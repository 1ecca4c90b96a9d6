package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
)

func hostCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "host",
		Short: "Add, list, cordon, drain and remove the machines that run members",
		Long: `Hosts are the machines that run members. Each has an agent, which joins with a
token for that host and makes its object. A host that is cordoned keeps its
members and gets no new ones; one that is drained loses those it has to other
hosts.`,
		Example: `  quorate host list
  quorate host describe localhost
  quorate host cordon localhost`,
		Args: cobra.ArbitraryArgs,
		RunE: runGroup,
	}
	cmd.AddCommand(
		hostAddCommand(e),
		hostTokenCommand(e), hostLabelCommand(e), hostUnlabelCommand(e), hostDrainCommand(e), hostRemoveCommand(e),
		hostListCommand(e), hostDescribeCommand(e), hostUsageCommand(e), hostCheckCommand(e),
		cordonCommand(e, true, &cobra.Command{
			Use:   "cordon NAME",
			Short: "Keep new members away from a host",
			Long: `Keep new members away from a host, by setting spec.unschedulable. The members that
it has stay and serve.`,
			Example: `  quorate host cordon localhost
  quorate host cordon localhost --dry-run`,
		}),
		cordonCommand(e, false, &cobra.Command{
			Use:   "uncordon NAME",
			Short: "Let a host have new members again",
			Long: `Let a host have new members again, by taking spec.unschedulable and spec.drain back.
What a drain has moved stays where it is.`,
			Example: `  quorate host uncordon localhost
  quorate host uncordon localhost --dry-run`,
		}),
	)
	return cmd
}

func hostListCommand(e *env) *cobra.Command {
	var o getOptions
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the hosts",
		Long: `List the hosts: where they stand, whether their agents report and their last
checks passed, how many members they have, and whether they take new ones. Other
outputs, and -w, are those of "quorate get hosts".`,
		Example: `  quorate host list
  quorate host list -o wide`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.output == outTable && !o.watch {
				return e.listHosts(cmd.Context())
			}
			return e.get(cmd, []string{v1alpha1.KindHost.Plural}, o)
		},
	}
	cmd.Flags().BoolVarP(&o.watch, "watch", "w", false, "go on with what changes from now on")
	outputFlag(cmd, &o.output, getForms...)
	return cmd
}

// listHosts prints the hosts with what is on them.
func (e *env) listHosts(ctx context.Context) error {
	c, err := e.connect()
	if err != nil {
		return err
	}
	defer e.slowly("reading from " + c.Server())()
	callCtx, cancel := call(ctx)
	defer cancel()
	objs, err := c.List(callCtx, v1alpha1.KindHost, store.ListOptions{})
	if err != nil {
		return err
	}
	if len(objs) == 0 {
		e.errorf("%s: `quorate host add` or `quorate host token NAME` brings the first\n", e.nothing([]v1alpha1.Kind{v1alpha1.KindHost}, true))
		return nil
	}
	on, err := everyMember(ctx, c)
	if err != nil {
		return err
	}
	var hosts []*v1alpha1.EtcdHost
	for _, obj := range objs {
		if h, ok := obj.(*v1alpha1.EtcdHost); ok {
			hosts = append(hosts, h)
		}
	}
	g := hostTable(hosts, on)
	return g.write(e.Out, 0)
}

func hostDescribeCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:               "describe NAME",
		Short:             "Show a host with all that belongs to it",
		Long:              `Show a host for people: the same as "quorate describe host NAME".`,
		Example:           `  quorate host describe localhost`,
		Args:              argsBetween(1, 1, "NAME"),
		ValidArgsFunction: e.completeHost,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.connect()
			if err != nil {
				return err
			}
			return e.describe(cmd.Context(), c, e.target(v1alpha1.KindHost, args[0]))
		},
	}
}

// cordonCommand completes a command that sets spec.unschedulable.
func cordonCommand(e *env, on bool, cmd *cobra.Command) *cobra.Command {
	var dryRun bool
	cmd.Args = argsBetween(1, 1, "NAME")
	cmd.ValidArgsFunction = e.completeHost
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return e.cordon(cmd.Context(), args[0], on, dryRun)
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only have the server check it, and say what would be done")
	return cmd
}

func (e *env) cordon(ctx context.Context, name string, on, dryRun bool) error {
	c, err := e.connect()
	if err != nil {
		return err
	}
	note := ""
	if dryRun {
		c, note = c.DryRun(), " (dry run)"
	}
	t := e.target(v1alpha1.KindHost, name)
	ctx, cancel := call(ctx)
	defer cancel()
	changed := false
	err = store.Mutate(ctx, c, t.key, &v1alpha1.EtcdHost{}, func(h *v1alpha1.EtcdHost) (bool, error) {
		changed = h.Spec.Unschedulable != on || (!on && h.Spec.Drain)
		h.Spec.Unschedulable = on
		if !on {
			h.Spec.Drain = false
		}
		return changed, nil
	})
	if err != nil {
		return named(t, err)
	}
	did, already := "cordoned", "already cordoned"
	if !on {
		did, already = "uncordoned", "not cordoned"
	}
	if !changed {
		did = already
	}
	e.printf("%s %s%s\n", t, did, note)
	return nil
}

// completeHost offers the names of hosts.
func (e *env) completeHost(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, noFiles
	}
	return e.names(cmd.Context(), v1alpha1.KindHost, nil), noFiles
}
