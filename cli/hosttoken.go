package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"
)

// defaultJoinTTL is how long a join token lasts unless told otherwise.
const defaultJoinTTL = time.Hour

type hostTokenOptions struct {
	ttl    time.Duration
	dryRun bool
	output string
}

// madeToken is a join token as -o json and yaml print it.
type madeToken struct {
	Token     string    `json:"token,omitempty"`
	Host      string    `json:"host"`
	ExpiresAt time.Time `json:"expiresAt"`
}

func hostTokenCommand(e *env) *cobra.Command {
	var o hostTokenOptions
	forms := []string{outTable, outJSON, outYAML}
	cmd := &cobra.Command{
		Use:   "token NAME",
		Short: "Make a token by which one machine joins as a host, once",
		Long: `Make a token for the agent of one host, and print it, once: the server keeps only
its SHA-256. The token is good for that host, until it was used or has expired. It
names the server's certificate too, so that the machine needs no CA.

Start "quorate agent --join-token-file FILE" with it on the machine. The host need
not exist: its agent makes it. On a host that has joined before, the certificate
it had is void once the token is used.

The server needs TLS for this: see --tls-self-made of "quorate server".`,
		Example: `  quorate host token db1
  quorate host token db1 --ttl 15m -o json
  quorate host token db1 --dry-run`,
		Args:              argsBetween(1, 1, "NAME"),
		ValidArgsFunction: e.completeHost,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(cmd, o.output, forms...); err != nil {
				return err
			}
			if o.ttl < time.Second {
				return usagef(cmd, "--ttl is %s: give at least 1s", o.ttl)
			}
			return e.hostToken(cmd.Context(), args[0], o)
		},
	}
	f := cmd.Flags()
	f.DurationVar(&o.ttl, "ttl", defaultJoinTTL, "how long the token is good for; a week at most")
	f.BoolVar(&o.dryRun, "dry-run", false, "only have the server check it")
	outputFlag(cmd, &o.output, forms...)
	return cmd
}

func (e *env) hostToken(ctx context.Context, name string, o hostTokenOptions) error {
	c, err := e.connect()
	if err != nil {
		return err
	}
	if o.dryRun {
		c = c.DryRun()
	}
	ctx, cancel := call(ctx)
	defer cancel()
	token, expires, err := c.CreateJoinToken(ctx, name, o.ttl)
	if err != nil {
		return err
	}
	switch {
	case o.output != outTable:
		return e.printValue(o.output, madeToken{Token: token, Host: name, ExpiresAt: expires})
	case o.dryRun:
		e.printf("a join token for host %s would be made, good until %s (dry run)\n", name, expires.UTC().Format(time.RFC3339))
		return nil
	}
	e.printf("%s\n", token)
	e.errorf("it is good for one join as host %s, until %s; on the machine: quorate agent --server %s --host %s --join-token-file FILE --address IP\n",
		name, expires.UTC().Format(time.RFC3339), c.Server(), name)
	return nil
}
