package cli

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/app"
	"github.com/quorate/quorate/store/remote"
)

func agentCommand(e *env) *cobra.Command {
	var o app.AgentOptions
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run the agent, which looks after the members on this machine",
		Long: `Run the agent of this machine until it is told to stop. It dials the server and is
never dialled; it starts members and reports what it sees of them. Members keep
running when the agent ends, and the next agent finds them.

It joins once, with a token that "quorate host token NAME" prints and that is good
for one host: the agent makes a key here, the server signs a certificate for it,
and the agent proves itself by that from then on, and renews it by itself. The
token names the server's certificate too, so that no CA has to be brought here.
The token may lie in QUORATE_JOIN_TOKEN instead of a file, and is not needed any
more once it was used.

Zone, pool and labels make the host's object. Where that exists, a person changes
it (quorate edit host NAME).`,
		Example: `  quorate agent --server https://10.0.0.2:7379 --join-token-file join-token --host db1 --address 10.0.0.7
  quorate agent --host db1 --address 10.0.0.7 --names db1.example.com --zone a
  quorate agent --address 10.0.0.7 --allow-faults`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Address == "" {
				return usagef(cmd, "--address is missing: the IP address that this machine's members listen on; a wrong guess would form a cluster that no one can reach")
			}
			var err error
			if o.DataDir, err = filepath.Abs(e.home()); err != nil {
				return err
			}
			if o.JoinTokenFile == "" {
				o.JoinToken = strings.TrimSpace(os.Getenv(envJoinToken))
			}
			if o.Client, err = e.agentConfig(o); err != nil {
				return err
			}
			if o.Logger, err = e.logger(slog.LevelInfo, e.Err); err != nil {
				return err
			}
			return app.RunAgent(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Host, "host", "", "name of the EtcdHost (default: the name of this machine)")
	f.StringVar(&o.Address, "address", "", "IP address that members listen on and are reached at")
	f.StringSliceVar(&o.Names, "names", nil, "DNS names of this machine, for the members' certificates")
	f.StringVar(&o.JoinTokenFile, "join-token-file", "", "file with the token to join with (env "+envJoinToken+" holds the token itself)")
	f.StringVar(&o.Zone, "zone", "", "zone that this machine stands in")
	f.StringVar(&o.Pool, "pool", "", "pool that this machine belongs to (default: default)")
	f.StringToStringVar(&o.Labels, "labels", nil, "labels of the host, such as rack=r12,disk=nvme")
	f.BoolVar(&o.AllowFaults, "allow-faults", false, "let members of this machine be killed on purpose, for admins who ask the server to")
	f.BoolVar(&o.AllowUnfit, "allow-unfit", false, "take new members also where a check of this machine fails (quorate host check)")
	f.BoolVar(&o.AllowLoad, "allow-load", false, "let loads be driven from this machine, for admins who ask the server to (quorate bench --from)")
	return cmd
}

// agentConfig says how the agent reaches its server: by what it joins with, or has
// joined with, and else as other commands do.
func (e *env) agentConfig(o app.AgentOptions) (remote.Config, error) {
	joins := o.JoinToken != "" || o.JoinTokenFile != ""
	if !joins {
		token, err := e.token()
		if err != nil {
			return remote.Config{}, err
		}
		joins = token == "" && app.HasJoined(o.DataDir)
	}
	if !joins {
		return e.config()
	}
	return remote.Config{Server: orEnv(e.server, envServer), CAFile: orEnv(e.caFile, envCAFile)}, nil
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
