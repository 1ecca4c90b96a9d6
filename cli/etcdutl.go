package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/app"
	"github.com/quorate/quorate/store"
)

func etcdutlCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "etcdutl [-c CLUSTER [--member NAME]] [ARGS...]",
		Short: "Run the real etcdutl, also on the data of a stopped member",
		Long: `Run etcdutl, which is linked into this program. With -c it works on the data of a
member of that cluster which lies on this machine and is stopped: --data-dir (or the
file that "hashkv" reads) is filled in. --member chooses the member where there are
several. It is refused while the member's etcd runs.

Flags of quorate (-c, --member, -n, --data-dir, --server, --token-file, --ca-file)
go first; everything behind them is given to etcdutl as it stands.`,
		Example: `  quorate etcdutl version
  quorate etcdutl snapshot status playground.db -w table
  quorate etcdutl -c playground --member playground-1 hashkv
  quorate etcdutl -c playground --member playground-1 defrag`,
		DisableFlagParsing: true,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 && (args[len(args)-1] == "-c" || args[len(args)-1] == "--cluster") {
				return e.completeClusterFlag(cmd, args, word)
			}
			return nil, noFiles
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.etcdutl(cmd, args)
		},
	}
}

func (e *env) etcdutl(cmd *cobra.Command, args []string) error {
	member := ""
	name, help, rest, err := e.ownFlags(cmd, args, map[string]*string{"--member": &member})
	switch {
	case err != nil:
		return err
	case help:
		return cmd.Help()
	case name == "" && member != "":
		return usagef(cmd, "-c is missing: the cluster that --member belongs to")
	case name == "":
		return replaceBy(nameEtcdutl, rest)
	case len(rest) == 0:
		return usagef(cmd, "name what etcdutl is to do, as in `quorate etcdutl -c %s hashkv`", name)
	case slices.Contains(rest, "snapshot"):
		return usagef(cmd, "snapshot works on files of its own: leave out -c")
	case has(rest, "--data-dir"):
		return usagef(cmd, "-c fills in --data-dir, which was given as well: leave one of them out")
	}
	dir, err := e.stoppedData(cmd.Context(), e.cluster(name), member)
	if err != nil {
		return err
	}
	return replaceBy(nameEtcdutl, onData(rest, dir))
}

// onData fills in the data directory as the command wants it.
func onData(args []string, dir string) []string {
	if slices.Contains(args, "hashkv") { // it reads a database file
		return append(slices.Clone(args), filepath.Join(dir, "member", "snap", "db"))
	}
	return append(slices.Clone(args), "--data-dir="+dir)
}

// stoppedData is the data directory of a member that is stopped and lies on this
// machine.
func (e *env) stoppedData(ctx context.Context, key store.Key, member string) (string, error) {
	c, err := e.connect()
	if err != nil {
		return "", err
	}
	if _, err = readCluster(ctx, c, key); err != nil {
		return "", err
	}
	members, err := membersOf(ctx, c, key)
	if err != nil {
		return "", err
	}
	homes, err := app.Homes(ctx, e.home())
	if err != nil {
		return "", err
	}
	var names []string
	var found *v1alpha1.EtcdMember
	for _, m := range members {
		if _, here := homes[m.UID]; !here {
			continue
		}
		names = append(names, m.Name)
		if m.Name == strings.TrimPrefix(member, "member/") || member == "" {
			found = m
		}
	}
	label := label(v1alpha1.KindCluster, key.Name)
	switch {
	case len(names) == 0:
		return "", fmt.Errorf("no member of %s has its data below %s on this machine: run it on the member's host, or name its directory with --data-dir: %w", label, e.home(), store.ErrNotFound)
	case found == nil:
		return "", fmt.Errorf("%s: %w among the members of %s on this machine: they are %s", member, store.ErrNotFound, label, strings.Join(names, ", "))
	case member == "" && len(names) > 1:
		return "", fmt.Errorf("%s has the members %s on this machine: choose one with --member: %w", label, strings.Join(names, ", "), store.ErrInvalid)
	}
	home := homes[found.UID]
	if home.PID > 0 {
		return "", fmt.Errorf("%s runs (pid %d), and its data must not be touched meanwhile: `quorate suspend %s%s --wait` stops its cluster, or take a snapshot with `quorate etcdctl -c %s%s snapshot save FILE`: %w",
			found.Name, home.PID, key.Name, inNamespace(key.Namespace), key.Name, inNamespace(key.Namespace), store.ErrForbidden)
	}
	if found.Spec.Run == v1alpha1.RunRunning {
		return "", fmt.Errorf("%s is meant to run, and may be started at any moment: `quorate suspend %s%s --wait` stops its cluster: %w",
			found.Name, key.Name, inNamespace(key.Namespace), store.ErrForbidden)
	}
	return home.DataDir, nil
}
