package cli

import (
	"log/slog"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/app"
)

func agentCommand(e *env) *cobra.Command {
	var o app.AgentOptions
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run the agent, which looks after the members on this machine",
		Long: `Run the agent of this machine until it is told to stop. It dials the server and is
never dialled; it starts members and reports what it sees of them. Members keep
running when the agent ends, and the next agent finds them.

Its token must have been made for the host of that name.`,
		Example: `  quorate agent --server https://quorate.example.com:7379 --token-file token --address 10.0.0.7
  quorate agent --address 10.0.0.7 --allow-faults
  quorate agent --host db1 --address 10.0.0.7 --names db1.example.com --zone a`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Address == "" {
				return usagef(cmd, "--address is missing: the IP address that this machine's members listen on; a wrong guess would form a cluster that no one can reach")
			}
			var err error
			if o.Client, err = e.config(); err != nil {
				return err
			}
			if o.Logger, err = e.logger(slog.LevelInfo, e.Err); err != nil {
				return err
			}
			if o.DataDir, err = filepath.Abs(e.home()); err != nil {
				return err
			}
			return app.RunAgent(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Host, "host", "", "name of the EtcdHost (default: the name of this machine)")
	f.StringVar(&o.Address, "address", "", "IP address that members listen on and are reached at")
	f.StringSliceVar(&o.Names, "names", nil, "DNS names of this machine, for the members' certificates")
	f.StringVar(&o.Zone, "zone", "", "zone that this machine stands in")
	f.BoolVar(&o.AllowFaults, "allow-faults", false, "let members of this machine be killed on purpose, for admins who ask the server to")
	f.BoolVar(&o.AllowLoad, "allow-load", false, "let loads be driven from this machine, for admins who ask the server to (quorate bench --from)")
	return cmd
}

// memberCommand is started by agents, not by people.
func memberCommand(e *env) *cobra.Command {
	var home string
	cmd := &cobra.Command{
		Use:   "member",
		Short: "Supervise one member (started by the agent)",
		Long: `Start and watch the etcd of one member, by the order that lies in its home. The
agent starts one for each member; it outlives the agent.`,
		Example: `  quorate member --home /var/lib/quorate/members/default.playground-1.0a1b2c3d`,
		Hidden:  true,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if home == "" {
				return usagef(cmd, "--home is missing: the directory of the member")
			}
			log, err := e.logger(slog.LevelInfo, e.Err)
			if err != nil {
				return err
			}
			return app.RunMember(cmd.Context(), home, log)
		},
	}
	cmd.Flags().StringVar(&home, "home", "", "directory of the member")
	return cmd
}
