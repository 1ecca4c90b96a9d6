package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/store"
)

type tokenOptions struct {
	role   string
	host   string
	reset  bool
	dryRun bool
}

func tokenCommand(e *env) *cobra.Command {
	var o tokenOptions
	cmd := &cobra.Command{
		Use:   "token NAME",
		Short: "Make a token for a person, a program or an agent",
		Long: `Make a token and print it, once: the server keeps only its SHA-256. An agent's token
is good for the members of one host; a viewer may read all but Secrets; an admin
may do everything.

Agents on other machines need none: they join with "quorate host token", and prove
themselves by certificates. An agent's token is for a server on a loopback address,
which has no TLS.

A token is void once its Secret is deleted: quorate delete secret NAME -n
quorate-system.`,
		Example: `  quorate server token agent-db1 --role agent --host db1
  quorate server token dashboard --role viewer
  quorate server token agent-db1 --role agent --host db1 --reset`,
		Args: argsBetween(1, 1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch role := server.Role(o.role); {
			case role != server.RoleAdmin && role != server.RoleViewer && role != server.RoleAgent:
				return usagef(cmd, "--role is %q: use admin, viewer or agent", o.role)
			case role == server.RoleAgent && o.host == "":
				return usagef(cmd, "--host is missing: the EtcdHost that the agent stands for")
			case role != server.RoleAgent && o.host != "":
				return usagef(cmd, "--host belongs to --role agent alone")
			}
			return e.makeToken(cmd.Context(), args[0], o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.role, "role", string(server.RoleAgent), "what it is good for: agent, viewer or admin")
	f.StringVar(&o.host, "host", "", "the EtcdHost of an agent")
	f.BoolVar(&o.reset, "reset", false, "replace a token of that name, which is void from then on")
	f.BoolVar(&o.dryRun, "dry-run", false, "only have the server check it")
	complete(cmd, "role", string(server.RoleAgent), string(server.RoleViewer), string(server.RoleAdmin))
	return cmd
}

func (e *env) makeToken(ctx context.Context, name string, o tokenOptions) error {
	c, err := e.connect()
	if err != nil {
		return err
	}
	if o.dryRun {
		c = c.DryRun()
	}
	ctx, cancel := call(ctx)
	defer cancel()
	create := server.EnsureToken
	if o.reset {
		create = server.ResetToken
	}
	token, err := create(ctx, c, name, server.Role(o.role), o.host)
	if err != nil && !errors.Is(err, store.ErrUnavailable) {
		return fmt.Errorf("token %s: %w", name, err)
	}
	if err != nil {
		return err
	}
	switch {
	case token == "":
		return fmt.Errorf("token %s: %w, and is shown only when it is made: give --reset to replace it", name, store.ErrExists)
	case o.dryRun:
		e.printf("token %s would be made (dry run)\n", name)
	default:
		e.printf("%s\n", token)
	}
	return nil
}
