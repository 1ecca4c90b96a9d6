package cli

import (
	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
)

func hostLabelCommand(e *env) *cobra.Command {
	var o labelOptions
	cmd := &cobra.Command{
		Use:   "label NAME... LABEL=VALUE|LABEL-...",
		Short: "Set and remove labels of hosts",
		Long: `Set labels of hosts (LABEL=VALUE) and remove them (LABEL-): the same as "quorate
label hosts NAME". What is used, and by what, is added up by label in "quorate
host usage".`,
		Example: `  quorate host label localhost rack=r12
  quorate host label localhost rack=r13 --overwrite
  quorate host label localhost rack- --dry-run`,
		Args:              argsBetween(1, -1, "NAME LABEL=VALUE"),
		ValidArgsFunction: e.completeHosts,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.label(cmd, append([]string{v1alpha1.KindHost.Plural}, args...), o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.overwrite, "overwrite", false, "replace labels that have another value")
	f.BoolVar(&o.dryRun, "dry-run", false, "only have the server check it, and say what would be done")
	return cmd
}

func hostUnlabelCommand(e *env) *cobra.Command {
	var o labelOptions
	cmd := &cobra.Command{
		Use:   "unlabel NAME LABEL...",
		Short: "Remove labels of a host",
		Long:  `Remove labels of a host: the same as "quorate host label NAME LABEL-".`,
		Example: `  quorate host unlabel localhost rack
  quorate host unlabel localhost rack disk --dry-run`,
		Args:              argsBetween(2, -1, "NAME LABEL"),
		ValidArgsFunction: e.completeHost,
		RunE: func(cmd *cobra.Command, args []string) error {
			all := []string{v1alpha1.KindHost.Plural, args[0]}
			for _, l := range args[1:] {
				all = append(all, l+"-")
			}
			return e.label(cmd, all, o)
		},
	}
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "only have the server check it, and say what would be done")
	return cmd
}

// completeHosts offers the names of hosts for every argument.
func (e *env) completeHosts(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return e.names(cmd.Context(), v1alpha1.KindHost, args), noFiles
}
