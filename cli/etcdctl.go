package cli

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// etcdctlTTL is how long the client certificate of one call lives: as long as a
// person may leave a watch running.
const etcdctlTTL = 24 * time.Hour

func etcdctlCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "etcdctl -c CLUSTER [ARGS...]",
		Short: "Run the real etcdctl on a cluster, with endpoints and certificate filled in",
		Long: `Run etcdctl, which is linked into this program, on a cluster. Its endpoints and a
client certificate of a day are asked of the server; the key is made for this
call, stays in memory, and is gone with it. Input, output, signals and the exit
code are etcdctl's.

Flags of quorate (-c, -n, --data-dir, --server, --token-file, --ca-file) go first;
everything behind them is given to etcdctl as it stands. What you set yourself
(--endpoints, --cacert, --cert, --key) is not filled in. For "snapshot save", which
takes one member's, a healthy follower is chosen.`,
		Example: `  quorate etcdctl -c playground put hello world
  quorate etcdctl -c playground snapshot save playground.db
  quorate etcdctl -c playground get --prefix -w json ''
  quorate etcdctl -c playground endpoint status -w table`,
		DisableFlagParsing: true,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 && (args[len(args)-1] == "-c" || args[len(args)-1] == "--cluster") {
				return e.completeClusterFlag(cmd, args, word)
			}
			return nil, noFiles
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.etcdctl(cmd, args)
		},
	}
}

// ownFlags takes quorate's own flags off the front of what was given; more are those
// of the command.
func (e *env) ownFlags(cmd *cobra.Command, args []string, more map[string]*string) (cluster string, help bool, rest []string, err error) {
	own := map[string]*string{
		"-c": &cluster, "--cluster": &cluster, "-n": &e.namespace, "--namespace": &e.namespace,
		"--data-dir": &e.dataDir, "--server": &e.server, "--token-file": &e.tokenFile, "--ca-file": &e.caFile,
		"-v": &e.level, "--log-level": &e.level,
	}
	maps.Copy(own, more)
	for len(args) > 0 {
		name, value, joined := strings.Cut(args[0], "=")
		switch {
		case args[0] == "--":
			return cluster, help, args[1:], nil
		case cluster == "" && (args[0] == "-h" || args[0] == "--help"):
			return cluster, true, args[1:], nil
		case own[name] == nil:
			return cluster, help, args, nil
		case joined:
			*own[name], args = value, args[1:]
		case len(args) == 1:
			return cluster, help, nil, usagef(cmd, "%s wants a value", name)
		default:
			*own[name], args = args[1], args[2:]
		}
	}
	return cluster, help, args, nil
}

func (e *env) etcdctl(cmd *cobra.Command, args []string) error {
	name, help, rest, err := e.ownFlags(cmd, args, nil)
	if err != nil {
		return err
	}
	if help {
		return cmd.Help()
	}
	if name == "" {
		return usagef(cmd, "-c is missing: name the cluster first, as in `quorate etcdctl -c playground get hello`")
	}
	c, err := e.connect()
	if err != nil {
		return err
	}
	key := e.cluster(name)
	cluster, err := readCluster(cmd.Context(), c, key)
	if err != nil {
		return err
	}
	if cluster.Spec.Suspended && !has(rest, "--endpoints") {
		return named(target{v1alpha1.KindCluster, key}, refuseSuspended(cluster))
	}
	pass, err := passTo(cmd.Context(), c, cluster, etcdctlTTL)
	if err != nil {
		return named(target{v1alpha1.KindCluster, key}, err)
	}
	endpoints := pass.endpoints
	if pass.serverName != "" {
		e.errorf("etcdctl looks for the URL's host in the certificates, not for %s, spec.import.serverName: if it refuses them, give --endpoints with that name\n", pass.serverName)
	}
	if len(endpoints) == 0 {
		return fmt.Errorf("%s has no members that listen yet: `quorate describe cluster %s%s` says why", label(v1alpha1.KindCluster, key.Name), key.Name, inNamespace(key.Namespace))
	}
	if wantsOne(rest) && !has(rest, "--endpoints") && len(endpoints) > 1 {
		if endpoints, err = e.oneEndpoint(cmd.Context(), c, key); err != nil {
			return err
		}
	}
	filled, err := fill(rest, endpoints, pass.bundle, pass.key)
	if err != nil {
		return err
	}
	if pass.user != "" && !has(rest, "--user") {
		return replaceBy(nameEtcdctl, append(filled, rest...), "ETCDCTL_USER="+pass.user, "ETCDCTL_PASSWORD="+pass.password)
	}
	return replaceBy(nameEtcdctl, append(filled, rest...))
}

// wantsOne reports whether etcdctl refuses several endpoints for what it is to do: a
// snapshot is that of one member.
func wantsOne(args []string) bool {
	for i, a := range args[:max(0, len(args)-1)] {
		if a == "snapshot" && args[i+1] == "save" {
			return true
		}
	}
	return false
}

// oneEndpoint chooses the member that is asked: a healthy follower, since the leader
// has the most to do, or else any that is healthy.
func (e *env) oneEndpoint(ctx context.Context, c *remote.Client, key store.Key) ([]string, error) {
	v, err := viewOf(ctx, c, key)
	if err != nil {
		return nil, err
	}
	var chosen *v1alpha1.MemberView
	for i, m := range v.Members {
		if !m.Healthy || m.Endpoint == "" || m.Role == v1alpha1.RoleLearner {
			continue
		}
		if chosen == nil || chosen.Role == v1alpha1.RoleLeader && m.Role == v1alpha1.RoleFollower {
			chosen = &v.Members[i]
		}
	}
	if chosen == nil {
		return nil, fmt.Errorf("%s has no healthy member to take a snapshot of: `quorate status %s%s` says why, and --endpoints chooses one all the same",
			label(v1alpha1.KindCluster, key.Name), key.Name, inNamespace(key.Namespace))
	}
	e.errorf("the snapshot is taken of %s (%s)\n", chosen.Name, strings.ToLower(string(chosen.Role)))
	return []string{chosen.Endpoint}, nil
}

// fill makes the flags that the user has not given. Certificate and key lie in
// memory: as files they would outlive a kill.
func fill(given, endpoints []string, bundle pki.Bundle, key []byte) ([]string, error) {
	var flags []string
	if !has(given, "--endpoints") {
		flags = append(flags, "--endpoints="+strings.Join(endpoints, ","))
	}
	files := []struct {
		flag string
		data []byte
	}{{"--cacert", bundle.CA}, {"--cert", bundle.Certificate}, {"--key", key}}
	// A key without its certificate is of no use.
	if has(given, "--cert") || has(given, "--key") || len(bundle.Certificate) == 0 {
		files = files[:1]
	}
	for _, f := range files {
		if has(given, f.flag) || len(f.data) == 0 {
			continue
		}
		path, err := memoryFile(strings.TrimLeft(f.flag, "-"), f.data)
		if err != nil {
			return nil, err
		}
		flags = append(flags, f.flag+"="+path)
	}
	return flags, nil
}

func has(args []string, flag string) bool {
	return slices.ContainsFunc(args, func(a string) bool { return a == flag || strings.HasPrefix(a, flag+"=") })
}

// memoryFile is the path of a file that lies in memory, belongs to this process and
// whatever replaces it, and ends with it.
func memoryFile(name string, data []byte) (string, error) {
	fd, err := unix.MemfdCreate("quorate-"+name, 0)
	if err != nil {
		return "", fmt.Errorf("keep the %s in memory: %w", name, err)
	}
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err != nil {
			return "", fmt.Errorf("keep the %s in memory: %w", name, err)
		}
		data = data[n:]
	}
	return fmt.Sprintf("/proc/self/fd/%d", fd), nil
}

// replaceBy makes this process another program of this binary: its input, output,
// signals and exit code are that program's from then on. It returns only if that
// fails. More are variables for it, where an argument could be read by others.
func replaceBy(name string, args []string, more ...string) error {
	environ := slices.DeleteFunc(os.Environ(), func(v string) bool {
		// Etcdctl refuses to start when one of these stands beside its flag.
		return slices.ContainsFunc([]string{"ENDPOINTS", "CACERT", "CERT", "KEY", "API"}, func(n string) bool {
			return strings.HasPrefix(v, "ETCDCTL_"+n+"=")
		})
	})
	err := syscall.Exec("/proc/self/exe", append([]string{name}, args...), append(environ, more...)) //nolint:gosec // this binary
	return fmt.Errorf("run %s: %w", name, err)
}
