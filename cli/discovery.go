package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/formation/discovery"
	"github.com/quorate/quorate/internal/atomicfile"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

func discoveryCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "discovery",
		Short: "Make and list tokens of the server's discovery service",
		Long: `A discovery service is where the members of a new etcd cluster meet that are not
told of each other. A server that was started with --discovery-listen is one. For
clusters with spec.formation.mode Discovery it makes the tokens by itself; these
commands are for clusters that others run. It needs etcd 3.6 or later.`,
		Example: `  quorate discovery token --size 3
  quorate discovery list`,
		Args: cobra.ArbitraryArgs,
		RunE: runGroup,
	}
	cmd.AddCommand(discoveryTokenCommand(e), discoveryListCommand(e), discoveryDeleteCommand(e))
	return cmd
}

type discoveryTokenOptions struct {
	size   int
	ttl    time.Duration
	caFile string
	output string
	dryRun bool
}

// meetingToken is a token with all that a member needs to use it.
type meetingToken struct {
	*discovery.Token
	discovery.Where
	// Flags of etcd.
	Flags []string `json:"flags"`
}

func discoveryTokenCommand(e *env) *cobra.Command {
	var o discoveryTokenOptions
	forms := []string{outTable, outJSON, outYAML}
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make a token for a new cluster",
		Long: `Make a token for a new cluster of the given size, and print the flags that each of
its members is started with, beside --name, its URLs and its own TLS. The CA of
the service is written to a file, which belongs on every member's machine.

A token is good for one cluster. Who has it may register: treat it as a password
until the cluster is formed.`,
		Example: `  quorate discovery token --size 3
  quorate discovery token --size 5 --ttl 1h --ca-file discovery.crt
  quorate discovery token --size 3 --dry-run`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case o.size < 1 || o.size > discovery.MaxSize:
				return usagef(cmd, "--size is %d: a cluster has 1 to %d members", o.size, discovery.MaxSize)
			case o.ttl < time.Minute || o.ttl > 30*24*time.Hour:
				return usagef(cmd, "--ttl is %s: give 1m to 720h", o.ttl)
			}
			if err := checkOutput(cmd, o.output, forms...); err != nil {
				return err
			}
			return e.makeDiscoveryToken(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.size, "size", 3, "how many members the cluster begins with")
	f.DurationVar(&o.ttl, "ttl", discovery.DefaultTTL, "how long the token is good for")
	f.StringVar(&o.caFile, "ca-file", "discovery-ca.crt", "file that the service's CA is written to")
	f.BoolVar(&o.dryRun, "dry-run", false, "only say what would be made")
	outputFlag(cmd, &o.output, forms...)
	return cmd
}

func (e *env) makeDiscoveryToken(ctx context.Context, o discoveryTokenOptions) error {
	c, err := e.connect()
	if err != nil {
		return err
	}
	if o.dryRun {
		c = c.DryRun()
	}
	ctx, cancel := call(ctx)
	defer cancel()
	where, err := findDiscovery(ctx, c)
	if err != nil {
		return err
	}
	if !o.dryRun {
		if err = writeCA(o.caFile, where.CA); err != nil {
			return err
		}
	}
	t, err := discovery.New(ctx, c, o.size, o.ttl, time.Now())
	if err != nil {
		return fmt.Errorf("make a discovery token: %w", err)
	}
	if o.dryRun {
		e.printf("a token for %d members would be made at %s, good for %s (dry run)\n", o.size, where.URL, o.ttl)
		return nil
	}
	made := meetingToken{Token: t, Where: where, Flags: []string{
		"--discovery-endpoints=" + where.URL, "--discovery-token=" + t.Token,
		"--discovery-insecure-transport=false", "--discovery-cacert=" + o.caFile,
	}}
	if o.output != outTable {
		return e.printValue(o.output, made)
	}
	e.printf("%s\n\n", t.Token)
	e.printf("good for %d members until %s; start each etcd with\n", t.Size, t.Expires.Local().Format(time.RFC3339))
	for _, flag := range made.Flags {
		e.printf("  %s\n", flag)
	}
	e.printf("the CA of the service is in %s\n", o.caFile)
	return nil
}

func findDiscovery(ctx context.Context, c *remote.Client) (discovery.Where, error) {
	where, err := discovery.Find(ctx, c)
	if errors.Is(err, store.ErrNotFound) {
		return where, fmt.Errorf("this server has no discovery service: start it with --discovery-listen: %w", err)
	}
	return where, err
}

// writeCA leaves a file that is there, and says the same, as it is.
func writeCA(file, ca string) error {
	have, err := os.ReadFile(file) //nolint:gosec // the user names it
	switch {
	case err == nil && string(have) == ca:
		return nil
	case err == nil:
		return fmt.Errorf("%s: %w and holds something else: choose another file with --ca-file", file, fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return atomicfile.Write(file, []byte(ca), 0o644)
}

func discoveryListCommand(e *env) *cobra.Command {
	var output string
	forms := []string{outTable, outJSON, outYAML}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the tokens, and who has registered with them",
		Long: `List the discovery tokens, and how many members have registered with each. The
tokens themselves are shown with -o json only.`,
		Example: `  quorate discovery list
  quorate discovery list -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(cmd, output, forms...); err != nil {
				return err
			}
			c, err := e.connect()
			if err != nil {
				return err
			}
			ctx, cancel := call(cmd.Context())
			defer cancel()
			tokens, err := discovery.List(ctx, c)
			if err != nil {
				return err
			}
			if output != outTable {
				return e.printValue(output, tokens)
			}
			g := grid{header: []string{"name", "cluster", "size", "registered", "expires"}}
			for _, t := range tokens {
				expires := "expired"
				if left := time.Until(t.Expires); left > 0 {
					expires = "in " + left.Round(time.Minute).String()
				}
				g.add(t.Name, t.Cluster, strconv.Itoa(t.Size), strconv.Itoa(len(t.Members)), expires)
			}
			return g.write(e.Out, 0)
		},
	}
	outputFlag(cmd, &output, forms...)
	return cmd
}

func discoveryDeleteCommand(e *env) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "delete NAME|TOKEN",
		Short: "Delete a token",
		Long: `Delete a discovery token, named as "quorate discovery list" does or by itself.
Members that have not met by then do not find each other any more; a cluster that
has formed is not touched.`,
		Example: `  quorate discovery delete discovery-0123456789abcdef --dry-run`,
		Args:    argsBetween(1, 1, "NAME or TOKEN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.connect()
			if err != nil {
				return err
			}
			note := ""
			if dryRun {
				c, note = c.DryRun(), " (dry run)"
			}
			ctx, cancel := call(cmd.Context())
			defer cancel()
			err = discovery.Delete(ctx, c, args[0])
			if errors.Is(err, discovery.ErrUnknown) {
				err = fmt.Errorf("%w: %w", err, store.ErrNotFound)
			}
			if err != nil {
				return err
			}
			e.printf("discovery token deleted%s\n", note)
			return nil
		},
	}
	cmd.ValidArgsFunction = e.completeDiscoveryTokens
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be done")
	return cmd
}

func (e *env) completeDiscoveryTokens(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	c, err := e.connect()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := call(cmd.Context())
	defer cancel()
	tokens, err := discovery.List(ctx, c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names := make([]string, 0, len(tokens))
	for _, t := range tokens {
		names = append(names, t.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
