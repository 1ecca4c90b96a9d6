package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/pki"
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
(--endpoints, --cacert, --cert, --key) is not filled in.`,
		Example: `  quorate etcdctl -c playground put hello world
  quorate etcdctl -c playground get --prefix -w json ''
  quorate etcdctl -c playground -n prod endpoint status -w table`,
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

// ownFlags takes quorate's own flags off the front of what was given.
func (e *env) ownFlags(cmd *cobra.Command, args []string) (cluster string, help bool, rest []string, err error) {
	own := map[string]*string{
		"-c": &cluster, "--cluster": &cluster, "-n": &e.namespace, "--namespace": &e.namespace,
		"--data-dir": &e.dataDir, "--server": &e.server, "--token-file": &e.tokenFile, "--ca-file": &e.caFile,
		"-v": &e.level, "--log-level": &e.level,
	}
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
	name, help, rest, err := e.ownFlags(cmd, args)
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
	private, err := pki.NewKey()
	if err != nil {
		return err
	}
	csr, err := pki.NewRequest(private, "quorate etcdctl")
	if err != nil {
		return err
	}
	ctx, cancel := call(cmd.Context())
	defer cancel()
	bundle, endpoints, err := c.ClientCertificate(ctx, key, csr, etcdctlTTL)
	if err != nil {
		return named(target{v1alpha1.KindCluster, key}, err)
	}
	if len(endpoints) == 0 {
		return fmt.Errorf("%s has no members that listen yet: `quorate describe cluster %s` says why", label(v1alpha1.KindCluster, key.Name), key.Name)
	}
	filled, err := fill(rest, endpoints, bundle, private)
	if err != nil {
		return err
	}
	return replaceBy(nameEtcdctl, append(filled, rest...))
}

// fill makes the flags that the user has not given. Certificate and key lie in
// memory: as files they would outlive a kill.
func fill(given, endpoints []string, bundle pki.Bundle, key []byte) ([]string, error) {
	var flags []string
	if !has(given, "--endpoints") {
		flags = append(flags, "--endpoints="+strings.Join(endpoints, ","))
	}
	if len(bundle.Certificate) == 0 {
		return flags, nil
	}
	files := []struct {
		flag string
		data []byte
	}{{"--cacert", bundle.CA}, {"--cert", bundle.Certificate}, {"--key", key}}
	if has(given, "--cert") || has(given, "--key") {
		files = files[:1]
	}
	for _, f := range files {
		if has(given, f.flag) {
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
// fails.
func replaceBy(name string, args []string) error {
	environ := slices.DeleteFunc(os.Environ(), func(v string) bool {
		// Etcdctl refuses to start when one of these stands beside its flag.
		return slices.ContainsFunc([]string{"ENDPOINTS", "CACERT", "CERT", "KEY", "API"}, func(n string) bool {
			return strings.HasPrefix(v, "ETCDCTL_"+n+"=")
		})
	})
	err := syscall.Exec("/proc/self/exe", append([]string{name}, args...), environ) //nolint:gosec // this binary
	return fmt.Errorf("run %s: %w", name, err)
}
