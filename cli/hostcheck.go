package cli

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/app"
	"github.com/quorate/quorate/hosts/preflight"
)

// hostCheckTime bounds the checks of a host: they take about five seconds.
const hostCheckTime = 30 * time.Second

var hostCheckForms = []string{outTable, outJSON, outYAML}

// errUnfit: a check of a host fails, which was printed.
var errUnfit = errors.New("a check of the host fails")

type hostCheckOptions struct {
	local   bool
	address string
	peers   []string
	output  string
}

func hostCheckCommand(e *env) *cobra.Command {
	var o hostCheckOptions
	cmd := &cobra.Command{
		Use:   "check (NAME | --local)",
		Short: "Check whether a machine is fit for etcd",
		Long: `Check whether a host is fit for etcd: how long its disk takes to sync, as etcd's log
would find it, and how fast it writes; space, inodes and kind of the disk; clock,
open files, memory, swap, huge pages; ports that others have, and etcds that others
run. Each check comes with its value, its threshold, and what to do about it.

The host's agent does it, and does it by itself when it starts, every ten minutes,
and before a member comes to the host: one that fails a check gets no new members.
With --local it is done here, without a server and before there is an agent.

--peer measures round trips to other hosts: a port that nobody listens on will do, a
firewall that drops what comes is told as Unknown.

It takes about five seconds and writes at most some 32 MiB in small pieces to a file
that it removes; less where members run. Nothing else is changed.

The exit code is 0 when every check passes or warns, and 16 when one fails, or one
that a host needs could not be made.`,
		Example: `  quorate host check localhost
  quorate host check db1 --peer 10.0.0.8 --peer 10.0.0.9:2380
  quorate host check --local
  quorate host check --local --data-dir /var/lib/quorate --address 10.0.0.7 --peer 10.0.0.8 -o json`,
		Args:              argsBetween(0, 1, "NAME"),
		ValidArgsFunction: e.completeHost,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkHostCheck(cmd, args, o); err != nil {
				return err
			}
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			return e.hostCheck(cmd.Context(), name, o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.local, "local", false, "check this machine, without a server")
	f.StringVar(&o.address, "address", "", "IP address that members of this machine are to listen on, with --local")
	f.StringSliceVar(&o.peers, "peer", nil, "ADDRESS or ADDRESS:PORT of another host, to measure the round trip to; up to 16 (default port: 2380)")
	outputFlag(cmd, &o.output, hostCheckForms...)
	return cmd
}

func checkHostCheck(cmd *cobra.Command, args []string, o hostCheckOptions) error {
	const most = 16
	switch {
	case o.local && len(args) > 0:
		return usagef(cmd, "--local is this machine, and %q a host of the server: give one of both", args[0])
	case !o.local && len(args) == 0:
		return usagef(cmd, "NAME is missing: the name of a host, as `quorate host list` has it, or --local for this machine")
	case !o.local && o.address != "":
		return usagef(cmd, "--address is for --local: a host's address stands in its object")
	case len(o.peers) > most:
		return usagef(cmd, "--peer was given %d times: give at most %d", len(o.peers), most)
	}
	for _, p := range o.peers {
		if _, err := preflight.WithPort(p); err != nil {
			return usagef(cmd, "--peer: %v", err)
		}
	}
	return checkOutput(cmd, o.output, hostCheckForms...)
}

func (e *env) hostCheck(ctx context.Context, name string, o hostCheckOptions) error {
	ctx, cancel := context.WithTimeout(ctx, hostCheckTime)
	defer cancel()
	found, err := e.hostChecks(ctx, name, o)
	if err != nil {
		return err
	}
	if o.output == outTable {
		e.printHostChecks(found.Checks)
	} else if err = e.printValue(o.output, found); err != nil {
		return err
	}
	switch preflight.Verdict(found.Checks) {
	case v1alpha1.VerdictFail, v1alpha1.VerdictUnknown:
		return errUnfit
	default:
		return nil
	}
}

func (e *env) hostChecks(ctx context.Context, name string, o hostCheckOptions) (v1alpha1.HostPreflight, error) {
	p := newProgress(e)
	if p.terminal {
		p.step("measuring for about five seconds")
	}
	defer p.done()
	if o.local {
		dir, err := filepath.Abs(e.home())
		if err != nil {
			return v1alpha1.HostPreflight{}, err
		}
		return v1alpha1.HostPreflight{At: v1alpha1.Now(), Checks: app.CheckLocal(ctx, dir, o.address, o.peers)}, nil
	}
	c, err := e.connect()
	if err != nil {
		return v1alpha1.HostPreflight{}, err
	}
	defer c.Close()
	t := e.target(v1alpha1.KindHost, name)
	found, err := c.CheckHost(ctx, t.key.Name, o.peers)
	if err != nil {
		return found, named(t, err)
	}
	return found, nil
}

var (
	fitColours = map[v1alpha1.Verdict]string{
		v1alpha1.VerdictPass: green, v1alpha1.VerdictWarn: yellow, v1alpha1.VerdictFail: red, v1alpha1.VerdictUnknown: yellow,
	}
	fitMarks = map[v1alpha1.Verdict]string{
		v1alpha1.VerdictPass: "✓", v1alpha1.VerdictWarn: "!", v1alpha1.VerdictFail: "✗", v1alpha1.VerdictUnknown: "?",
	}
)

// printHostChecks writes checks as a table, and below it what is wrong, worst first.
func (e *env) printHostChecks(list []v1alpha1.HostCheck) {
	g := grid{header: []string{"check", "verdict", "value", "threshold"}}
	for _, c := range list {
		g.add(c.Name, string(c.Verdict), c.Value, c.Threshold)
	}
	_ = g.write(e.Out, 0) // As with printf: a reader that has gone away is no failure.
	for _, v := range []v1alpha1.Verdict{v1alpha1.VerdictFail, v1alpha1.VerdictUnknown, v1alpha1.VerdictWarn} {
		for _, c := range list {
			if c.Verdict == v {
				e.printf("\n%s\n", e.painted(bold+fitColours[v], fitMarks[v]+" "+c.Name)+"  "+e.folded(c.Message, len(c.Name)+4))
				e.reportLine("fix", c.Fix)
			}
		}
	}
}
