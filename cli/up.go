package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/app"
)

func upCommand(e *env) *cobra.Command {
	var o app.UpOptions
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run an etcd cluster on this machine, with all it needs",
		Long: `Start a server, an agent and a cluster of real etcd processes with TLS on this
machine, look after it until Ctrl-C, and then stop all of it. What was written is
kept in the data directory: the next "quorate up" finds it.

If it is killed, the members keep running under their supervisors; the next
"quorate up" takes them over, and "quorate down" stops them.`,
		Example: `  quorate up
  quorate up --members 1 --ephemeral
  quorate --data-dir ./etcd-data up --cluster dev --version 3.7.3`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("members") && (o.Members < 1 || o.Members > 9) {
				return usagef(cmd, "--members is %d: choose 1 to 9; 3 survive the loss of one, 5 the loss of two", o.Members)
			}
			if o.Ephemeral && (e.dataDir != "") {
				return usagef(cmd, "--ephemeral keeps nothing, and --data-dir says where to keep it: leave one of them out")
			}
			if err := checkUp(cmd, o); err != nil {
				return err
			}
			return e.up(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Cluster, "cluster", "", "name of the cluster (default: the one there is, or playground)")
	f.IntVar(&o.Members, "members", 0, "number of members (default 3, or those it has)")
	f.StringVar(&o.Version, "version", "", "version of etcd, such as 3.7.3 (default: the one in this binary, or the one it has)")
	f.BoolVar(&o.Ephemeral, "ephemeral", false, "keep nothing: use a temporary directory and remove it in the end")
	f.StringVar(&o.Listen, "listen", "", "address of the API (default "+app.DefaultListen+", or a free port where that is taken)")
	return cmd
}

// maxClusterName is how long a cluster's name may be: members append a number to it.
const maxClusterName = 48

var (
	etcdVersion = regexp.MustCompile(`^3\.[5-7]\.\d+$`)
	clusterName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
)

// checkUp refuses what could only fail once half of it runs.
func checkUp(cmd *cobra.Command, o app.UpOptions) error {
	if o.Cluster != "" && (!clusterName.MatchString(o.Cluster) || len(o.Cluster) > maxClusterName) {
		return usagef(cmd, "--cluster is %q: use at most %d lower case letters, digits and dashes, such as playground", o.Cluster, maxClusterName)
	}
	if o.Version != "" && !etcdVersion.MatchString(o.Version) {
		return usagef(cmd, "--version is %q: give a whole version of etcd from 3.5 to 3.7, such as 3.7.3", o.Version)
	}
	if o.Listen == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return usagef(cmd, "--listen is %q: give HOST:PORT, such as %s", o.Listen, app.DefaultListen)
	}
	if _, err = strconv.ParseUint(port, 10, 16); err != nil {
		return usagef(cmd, "--listen has the port %q: give a number up to 65535", port)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && !ip.IsLoopback() {
		return usagef(cmd, "--listen is %q, and quorate up serves this machine alone: for others run `quorate server` with --tls-cert-file and --tls-key-file", o.Listen)
	}
	return nil
}

func (e *env) up(ctx context.Context, o app.UpOptions) error {
	p := newProgress(e)
	var err error
	if o.Logger, err = e.logger(slog.LevelError, p); err != nil {
		return err
	}
	if !o.Ephemeral {
		if o.DataDir, err = filepath.Abs(e.home()); err != nil {
			return err
		}
	}
	o.Progress = func(u app.UpProgress) {
		if u.Ready == nil {
			p.step(u.Text)
			return
		}
		p.done()
		if werr := e.printReady(u.Ready, o.Ephemeral); werr != nil {
			p.step(werr.Error())
		}
	}
	// A terminal that is closed ends it in order, like Ctrl-C.
	if !signal.Ignored(syscall.SIGHUP) {
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, syscall.SIGHUP)
		defer stop()
	}
	ended := make(chan error, 1)
	go func() { ended <- app.Up(ctx, o) }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		p.step("stopping; press Ctrl-C again to leave at once")
		err = e.awaitEnd(ended, o)
	}
	p.done()
	if err == nil {
		p.end("stopped")
	}
	return err
}

// awaitEnd waits for the orderly end, unless a second signal asks to leave.
func (e *env) awaitEnd(ended <-chan error, o app.UpOptions) error {
	again := make(chan os.Signal, 1)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(again)
	select {
	case err := <-ended:
		return err
	case <-again:
		where := o.DataDir
		if o.Ephemeral {
			where = ""
		}
		return fmt.Errorf("left before everything was stopped: `%s` finishes it", e.self(where)+" down")
	}
}

// printReady says that the cluster serves, and what to try.
func (e *env) printReady(r *app.UpReady, ephemeral bool) error {
	c := r.Cluster
	self := e.self(r.DataDir)
	if c.Spec.Suspended {
		e.printf("%s is suspended: its members are stopped. To start them:\n\n  %s resume %s\n\nCtrl-C ends this.\n", c.Name, self, c.Name)
		return nil
	}
	security := "TLS"
	if c.Spec.TLS.Mode == v1alpha1.TLSDisabled {
		security = "no TLS"
	}
	members := "members"
	if c.Spec.Replicas == 1 {
		members = "member"
	}
	e.printf("%s %s is healthy: %d of %d %s, etcd %s, %s, %.1f s\n\n", e.painted(green, "✓"), c.Name,
		len(r.Members), c.Spec.Replicas, members, c.Spec.Version, security, r.Seconds)
	g := grid{header: []string{"name", "role", "client url", "pid"}}
	for _, m := range r.Members {
		role, pid := "follower", ""
		if m.Name == c.Status.Leader {
			role = "leader"
		}
		if m.Status.Process != nil {
			pid = strconv.FormatInt(m.Status.Process.PID, 10)
		}
		g.add(m.Name, role, m.Status.ClientURL, pid)
	}
	if err := g.write(e.Out, 0); err != nil {
		return err
	}
	e.printf("\nTry it in another terminal:\n\n")
	for _, line := range []string{
		"etcdctl -c " + c.Name + " put hello world",
		"etcdctl -c " + c.Name + " get hello",
		"get members",
		"describe cluster " + c.Name,
	} {
		e.printf("  %s %s\n", self, line)
	}
	kept := "The data is kept in " + r.DataDir + "."
	if ephemeral {
		kept = "Nothing is kept: " + r.DataDir + " is removed in the end."
	}
	e.printf("\n%s All members share one disk, and nothing is backed up: not for production.\nCtrl-C stops all of it; if it hangs, `%s down` does.\n", kept, self)
	return nil
}

// self is the program and its data directory as a person can type them again in
// the same directory.
func (e *env) self(dataDir string) string {
	program := e.arg0
	if strings.ContainsRune(program, filepath.Separator) {
		program = quoted(program)
	} else if !onPath(program) {
		if path, err := os.Executable(); err == nil {
			program = quoted(path)
		}
	}
	if dataDir != "" && dataDir != app.DefaultDataDir() {
		program += " --data-dir " + quoted(dataDir)
	}
	return program
}

// onPath reports whether the shell would find this very program by its bare name.
func onPath(name string) bool {
	found, err := exec.LookPath(name)
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return false
	}
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return false
	}
	other, err := os.Stat(found)
	return err == nil && os.SameFile(self, other)
}

var needsNoQuotes = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// quoted is a word as a shell takes it.
func quoted(word string) string {
	if needsNoQuotes.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
