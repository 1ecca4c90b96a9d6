package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
)

// completeTime bounds what a press of the tab key waits for. A server an ocean away
// needs most of a second for its handshake; one that is gone refuses at once, as a rule.
const completeTime = 3 * time.Second

const noFiles = cobra.ShellCompDirectiveNoFileComp

// complete offers values for a flag. It fails only for a flag that the command does
// not have, which then completes nothing.
func complete(cmd *cobra.Command, flag string, values ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, noFiles|cobra.ShellCompDirectiveNoSpace))
}

// completeObjects offers kinds, then names.
func (e *env) completeObjects(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return kindNames(), noFiles
	}
	kind, ok := v1alpha1.KindNamed(args[0])
	if !ok {
		return nil, noFiles
	}
	return e.names(cmd.Context(), kind, args[1:]), noFiles
}

// completeOne is completeObjects for commands that take one object.
func (e *env) completeOne(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 1 {
		return nil, noFiles
	}
	return e.completeObjects(cmd, args, word)
}

// completeCluster offers the names of clusters for the first argument.
func (e *env) completeCluster(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, noFiles
	}
	return e.names(cmd.Context(), v1alpha1.KindCluster, nil), noFiles
}

// completeLogs offers members and clusters.
func (e *env) completeLogs(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, noFiles
	}
	return append(e.names(cmd.Context(), v1alpha1.KindMember, nil), e.names(cmd.Context(), v1alpha1.KindCluster, nil)...), noFiles
}

// completeClusters completes -c. It can't fail: the command has that flag.
func (e *env) completeClusters(cmd *cobra.Command) {
	_ = cmd.RegisterFlagCompletionFunc("cluster", e.completeClusterFlag)
}

// completeClusterFlag offers the names of clusters for a flag.
func (e *env) completeClusterFlag(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return e.names(cmd.Context(), v1alpha1.KindCluster, nil), noFiles
}

// names asks the server; nothing is offered when it does not answer soon.
func (e *env) names(ctx context.Context, kind v1alpha1.Kind, but []string) []string {
	objs := e.glanceAt(ctx, kind)
	names := make([]string, 0, len(objs))
	for _, o := range objs {
		if !slices.Contains(but, o.GetName()) {
			names = append(names, o.GetName())
		}
	}
	return names
}
