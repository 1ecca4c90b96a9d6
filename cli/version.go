package cli

import (
	"context"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/internal/version"
)

// versions are those of this program and of the server.
type versions struct {
	Client string `json:"client"`
	// Etcd is the version that is linked in.
	Etcd     string `json:"etcd"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Server   string `json:"server,omitempty"`
	// ServerError says why the server's is not known.
	ServerError string `json:"serverError,omitempty"`
}

func versionCommand(e *env) *cobra.Command {
	var output string
	forms := []string{outTable, outJSON, outYAML}
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the versions of this program, its etcd, and the server",
		Long: `Show the version of this program, of the etcd that is linked into it, and of the
server, if one can be reached. It succeeds without a server.`,
		Example: `  quorate version
  quorate version -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(cmd, output, forms...); err != nil {
				return err
			}
			v := versions{
				Client: version.Version(), Etcd: version.Etcd(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
			}
			var err error
			if v.Server, err = e.serverVersion(cmd.Context()); err != nil {
				v.ServerError = err.Error()
			}
			if output != outTable {
				return e.printValue(output, v)
			}
			server := v.Server
			if server == "" {
				server = "not known: " + v.ServerError
			}
			e.printf("quorate  %s (%s, %s)\netcd     %s, linked in\nserver   %s\n", v.Client, v.Go, v.Platform, v.Etcd, server)
			return nil
		},
	}
	outputFlag(cmd, &output, forms...)
	return cmd
}

func (e *env) serverVersion(ctx context.Context) (string, error) {
	c, err := e.connect()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, completeTime)
	defer cancel()
	return c.Version(ctx)
}
