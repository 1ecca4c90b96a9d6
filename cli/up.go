package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

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
		if werr := e.printReady(ctx, u.Ready, o.Ephemeral); werr != nil {
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

// printReady says that the cluster serves, and what to do with it.
func (e *env) printReady(ctx context.Context, r *app.UpReady, ephemeral bool) error {
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
	e.printf("%s %s is healthy: %d/%d %s, %s, etcd %s, %.1f s\n\n", e.painted(green, "✓"), c.Name,
		len(r.Members), c.Spec.Replicas, members, security, c.Spec.Version, r.Seconds)
	d := r.Details(ctx)
	if err := e.printMembers(r, d); err != nil {
		return err
	}
	kept := "The data is kept in " + r.DataDir + "."
	if ephemeral {
		kept = "Nothing is kept: " + r.DataDir + " is removed in the end."
	}
	e.printf("\n%s All members share one disk, and nothing is backed up: not for production.\n  %s\n\n", e.painted(yellow, "!"), kept)
	e.printCopies(c, self, d)
	return nil
}

// printMembers is the table of what `up` has brought up.
func (e *env) printMembers(r *app.UpReady, d app.UpDetails) error {
	g := grid{header: []string{"name", "role", "client url", "db size", "fsync p99"}, none: "–"}
	for _, m := range r.Members {
		role := "follower"
		if m.Name == r.Cluster.Status.Leader {
			role = "leader"
		}
		size, fsync := "", ""
		if d.View != nil {
			for _, v := range d.View.Members {
				if v.Name == m.Name && v.Answered {
					role, size = strings.ToLower(string(v.Role)), bytesText(v.DBSize)
				}
			}
		}
		if p99, ok := d.FsyncP99[m.Name]; ok {
			fsync = fmt.Sprintf("%.1f ms", float64(p99)/float64(time.Millisecond))
		}
		g.add(m.Name, role, m.Status.ClientURL, size, fsync)
	}
	return g.write(e.Out, 0)
}

// leaderPID finds the process of the leader in a status.
const leaderPID = `-o jsonpath='{.members[?(@.role=="Leader")].pid}'`

// printCopies prints the lines to copy, each behind a word that says what it is for.
// They work as they stand; what a shell takes for a comment explains them.
func (e *env) printCopies(c *v1alpha1.EtcdCluster, self string, d app.UpDetails) {
	const wordWidth = 10
	line := func(word, text, comment string) {
		if comment != "" {
			comment = "  " + e.painted(dim, "# "+comment)
		}
		e.printf("  %s%s%s\n", e.painted(bold, fmt.Sprintf("%-*s", wordWidth, word)), text, comment)
	}
	if d.ConsoleURL != "" {
		line("Console", d.ConsoleURL, "logs you in once, until "+d.ConsoleUntil.Local().Format("15:04"))
	}
	line("Try", self+" etcdctl -c "+c.Name+" put hello world", "")
	line("", self+" etcdctl -c "+c.Name+" get hello", "")
	status := self + " status " + c.Name
	line("Break it", "kill -9 $("+status+" "+leaderPID+"); "+status+" -w", "the leader dies, and you see it heal")
	line("Yours", e.program()+" doctor --endpoints https://HOST:2379", "looks at a cluster you have, and writes nothing")
	line("Stop", self+" down", "or Ctrl-C here")
}
