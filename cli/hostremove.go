package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

func hostRemoveCommand(e *env) *cobra.Command {
	var yes, dryRun, uninstall bool
	var ssh hostSSHOptions
	cmd := &cobra.Command{
		Use:     "remove NAME",
		Aliases: []string{"rm"},
		Short:   "Forget a host that runs no members, and shut its agent out",
		Long: `Delete the object of a host, and void its agent's certificate and its join tokens. A
host that has members is refused: drain it first.

Nothing on the machine is touched. It says what remains there, and how to remove it.
With --uninstall the agent is taken off the machine first, by SSH, if the host was
added so; the data directory stays, with what was retired in it.

On a terminal it asks for the name; elsewhere it wants --yes.`,
		Example: `  quorate host remove db1 --dry-run
  quorate host remove db1 --yes
  quorate host remove db1 --uninstall`,
		Args:              argsBetween(1, 1, "NAME"),
		ValidArgsFunction: e.completeHost,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !uninstall {
				return e.hostRemove(cmd, args[0], yes, dryRun, nil)
			}
			return e.hostRemove(cmd, args[0], yes, dryRun, &ssh)
		},
	}
	ssh.bind(cmd)
	cmd.Flags().BoolVar(&uninstall, "uninstall", false, "take the agent off the machine first, by SSH")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "remove without asking")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be done")
	return cmd
}

// hostRemove forgets a host. With ssh the agent is taken off its machine before.
func (e *env) hostRemove(cmd *cobra.Command, name string, yes, dryRun bool, ssh *hostSSHOptions) error {
	c, err := e.connect()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	t := e.target(v1alpha1.KindHost, name)
	obj, err := read(ctx, c, t)
	if err != nil {
		return err
	}
	bound, err := membersOn(ctx, c, name)
	if err != nil {
		return err
	}
	if len(bound) > 0 {
		return fmt.Errorf("%s: it has %s: `quorate host drain %s --wait` moves them to other hosts first: %w", t, memberNames(bound), name, store.ErrForbidden)
	}
	if dryRun {
		c = c.DryRun()
	} else if !yes {
		if err = e.confirm(cmd, "This forgets "+t.String()+" and shuts its agent out.", name); err != nil {
			return err
		}
	}
	if host, ok := obj.(*v1alpha1.EtcdHost); ok && ssh != nil {
		if err = e.hostUninstall(ctx, c, host, *ssh, dryRun); err != nil {
			return err
		}
	}
	callCtx, cancel := call(ctx)
	defer cancel()
	if err = c.Delete(callCtx, t.kind, t.key, store.Preconditions{UID: obj.GetUID()}); err != nil && !errors.Is(err, store.ErrNotFound) {
		return named(t, err)
	}
	if dryRun {
		e.printf("%s would be removed, and its agent's certificate would be void (dry run)\n", t)
		return nil
	}
	e.printf("%s removed; its agent's certificate is void\n", t)
	if ssh != nil {
		e.errorf("on the machine remains the data directory, with retired data of members and etcd releases\n")
		return nil
	}
	e.errorf(`on the machine remain the agent, retired data of members, and etcd releases. To remove them there:
  systemctl disable --now quorate-agent   # or end the agent as it was started
  rm -r DATA-DIRECTORY                    # /var/lib/quorate by default; retired/ in it holds what members left behind
`)
	return nil
}

// membersOn lists the members that are bound to a host.
func membersOn(ctx context.Context, c *remote.Client, host string) ([]*v1alpha1.EtcdMember, error) {
	all, err := everyMember(ctx, c)
	if err != nil {
		return nil, err
	}
	return all[host], nil
}

// everyMember lists the members of all hosts, by host.
func everyMember(ctx context.Context, c *remote.Client) (map[string][]*v1alpha1.EtcdMember, error) {
	ctx, cancel := call(ctx)
	defer cancel()
	objs, err := c.List(ctx, v1alpha1.KindMember, store.ListOptions{})
	if err != nil {
		return nil, err
	}
	of := map[string][]*v1alpha1.EtcdMember{}
	for _, obj := range objs {
		if m, ok := obj.(*v1alpha1.EtcdMember); ok {
			of[m.Spec.Host] = append(of[m.Spec.Host], m)
		}
	}
	return of, nil
}

// memberNames is such as "3 members (prod/pg-1, prod/pg-2, test/a-1)".
func memberNames(members []*v1alpha1.EtcdMember) string {
	const few = 8
	var names []string
	for i, m := range members {
		if i == few {
			names = append(names, fmt.Sprintf("and %d more", len(members)-few))
			break
		}
		names = append(names, store.KeyOf(m).String())
	}
	count := fmt.Sprintf("%d members", len(members))
	if len(members) == 1 {
		count = "1 member"
	}
	return count + " (" + strings.Join(names, ", ") + ")"
}
