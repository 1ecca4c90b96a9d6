package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/store/remote"
)

// maxLinkTTL is the longest that the server lets a log-in link be good for.
const maxLinkTTL = time.Hour

// link is what `console -o json` prints.
type link struct {
	URL       string    `json:"url"`
	ExpiresAt time.Time `json:"expiresAt"`
}

func consoleCommand(e *env) *cobra.Command {
	var ttl time.Duration
	var output string
	forms := []string{outTable, outJSON, outYAML}
	cmd := &cobra.Command{
		Use:   "console",
		Short: "Print a link that logs a browser in to the console",
		Long: `Print a link to the server's console. It logs one browser in, once, with the rights
of the token that this command uses, and is void after 15 minutes. Send it to no
one.`,
		Example: `  quorate console
  quorate console --ttl 5m -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(cmd, output, forms...); err != nil {
				return err
			}
			if ttl <= 0 || ttl > maxLinkTTL {
				return usagef(cmd, "--ttl is %s: choose up to %s", ttl, maxLinkTTL)
			}
			c, err := e.connect()
			if err != nil {
				return err
			}
			l, err := loginLink(cmd.Context(), c, ttl)
			if err != nil {
				return err
			}
			if output != outTable {
				return e.printValue(output, l)
			}
			e.printf("%s\n", l.URL)
			e.errorf("it works once, until %s\n", l.ExpiresAt.Local().Format(time.TimeOnly))
			return nil
		},
	}
	cmd.Flags().DurationVar(&ttl, "ttl", 15*time.Minute, "how long the link is good for, if nobody uses it")
	outputFlag(cmd, &output, forms...)
	return cmd
}

func loginLink(ctx context.Context, c *remote.Client, ttl time.Duration) (link, error) {
	ctx, cancel := call(ctx)
	defer cancel()
	l, err := c.LoginLink(ctx, ttl)
	if err != nil {
		return link{}, err
	}
	return link{URL: c.Server() + l.Path, ExpiresAt: l.ExpiresAt}, nil
}
