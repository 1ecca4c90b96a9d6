package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/hosts/install"
	"github.com/quorate/quorate/hosts/provider"
	"github.com/quorate/quorate/internal/version"
)

type hostAddOptions struct {
	hostSSHOptions
	machine   provider.Machine
	labels    []string
	from      string
	count     int
	parallel  int
	binary    string
	serverURL string
	dataDir   string
	session   bool
	downgrade bool
	rejoin    bool
	dryRun    bool
	timeout   time.Duration
	output    string
}

// hostSSHOptions are the flags of commands that log in on machines.
type hostSSHOptions struct {
	identities []string
	knownHosts string
	hostKey    string
	acceptNew  bool
}

func (o *hostSSHOptions) bind(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVarP(&o.identities, "identity", "i", nil, "file with the private key to log in with; may be repeated (default: ssh-agent's, and ssh's usual ones)")
	f.StringVar(&o.knownHosts, "known-hosts", "", "file with the host keys that are known (default: ~/.ssh/known_hosts)")
	f.StringVar(&o.hostKey, "host-key", "", "fingerprint that the machine's host key must have, such as SHA256:…")
	f.BoolVar(&o.acceptNew, "accept-new-host-key", false, "take a host key that is not known, and add it to the known hosts")
}

// auth and keys as package install wants them.
func (o *hostSSHOptions) options() install.Options {
	home := ""
	if dir, err := os.UserHomeDir(); err == nil {
		home = filepath.Join(dir, ".ssh")
	}
	known := o.knownHosts
	if known == "" && home != "" {
		known = filepath.Join(home, "known_hosts")
	}
	return install.Options{
		Auth:     install.Auth{Identities: o.identities, AgentSocket: os.Getenv("SSH_AUTH_SOCK"), Home: home},
		HostKeys: install.HostKeys{Pin: o.hostKey, File: known, AcceptNew: o.acceptNew},
	}
}

// sshUser is who logs in on targets that name nobody, as ssh does it.
func sshUser() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return os.Getenv("USER")
}

func hostAddCommand(e *env) *cobra.Command {
	var o hostAddOptions
	cmd := &cobra.Command{
		Use:   "add SSH-TARGET...",
		Short: "Make machines hosts, by SSH",
		Long: `Install the agent on machines by SSH, have it join the server, and wait until the
hosts are Ready. A machine needs sshd, a user who is root or may become it by sudo
without a password, and systemd. The agent runs as root, since it makes the members'
systemd units and cgroups.

All is checked before anything is changed: the host key, the login, sudo, the
platform, free space, the clock, the address, and what of Quorate is there already.
Then this program is put at /usr/local/bin/quorate, a unit quorate-agent.service is
made and started, and the agent joins with a token that is good once. When it breaks
off, repeat the same command: it goes on, and is safe at every point. On a host that
is complete it changes nothing; where the program is another version it upgrades the
agent, and members go on.

Host keys are checked against the known hosts, or --host-key, and remembered by
the server. Keys come from --identity or ssh-agent; there are no passwords.
~/.ssh/config is not read.

--from takes the machines of a list: hosts, with name, ssh, address, names, zone,
pool, labels and hostKey of each. With --count it takes the next that are no hosts
yet; --zone and --pool choose among them.`,
		Example: `  quorate host add ssh://root@10.0.0.7 --zone a
  quorate host add ssh://ops@db1.example.com --address 10.0.0.7 --name db1 --dry-run
  quorate host add ssh://root@10.0.0.7 ssh://root@10.0.0.8 --identity ~/.ssh/fleet
  quorate host add --from hosts.yaml --count 2 --zone b`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.hostAdd(cmd, args, o)
		},
	}
	o.bind(cmd)
	f := cmd.Flags()
	f.StringVar(&o.machine.Name, "name", "", "name of the host (default: what the machine calls itself)")
	f.StringVar(&o.machine.Address, "address", "", "IP address that members listen on (default: that of the target)")
	f.StringSliceVar(&o.machine.Names, "names", nil, "DNS names of the machine, for the members' certificates")
	f.StringVar(&o.machine.Zone, "zone", "", "zone that the machine stands in")
	f.StringVar(&o.machine.Pool, "pool", "", "pool that the host belongs to")
	f.StringSliceVarP(&o.labels, "label", "l", nil, "labels of the host, as KEY=VALUE")
	f.StringVarP(&o.from, "from", "f", "", "file with a list of machines")
	f.IntVar(&o.count, "count", 0, "take so many machines of the list that are no hosts yet (default: all of it)")
	f.IntVar(&o.parallel, "parallel", 4, "how many machines are worked on at the same time")
	f.StringVar(&o.binary, "binary", "", "program to install, for machines of another platform (default: this one)")
	f.StringVar(&o.serverURL, "server-url", "", "URL at which the machines reach the server (default: the one by which you do)")
	f.StringVar(&o.dataDir, "host-data-dir", install.DefaultDataDir, "data directory on the machine")
	f.BoolVar(&o.session, "without-systemd", false, "where no systemd runs, start the agent in a session of its own")
	f.BoolVar(&o.downgrade, "allow-downgrade", false, "let an older program take the place of a newer one")
	f.BoolVar(&o.rejoin, "rejoin", false, "have a machine join anew that has joined already, here or elsewhere")
	f.BoolVar(&o.dryRun, "dry-run", false, "only look at the machines, and say what would be done")
	f.DurationVar(&o.timeout, "timeout", 2*time.Minute, "how long to wait for a host to be Ready")
	outputFlag(cmd, &o.output, outTable, outJSON, outYAML)
	return cmd
}

// check refuses what makes no sense together, before anything is asked for.
func (o *hostAddOptions) check(cmd *cobra.Command, args []string) error {
	single := o.machine.Name != "" || o.machine.Address != "" || len(o.machine.Names) > 0 || o.hostKey != ""
	switch {
	case len(args) == 0 && o.from == "":
		return usagef(cmd, "SSH-TARGET is missing: name machines as ssh://user@host, or a list of them with --from")
	case len(args) > 0 && o.from != "":
		return usagef(cmd, "machines were named both in the command and by --from: use one of them")
	case o.count != 0 && o.from == "":
		return usagef(cmd, "--count takes machines from a list: give --from")
	case o.count < 0 || o.parallel < 1:
		return usagef(cmd, "--count and --parallel are numbers of machines: give 1 or more")
	case single && (len(args) > 1 || o.from != ""):
		return usagef(cmd, "--name, --address, --names and --host-key are those of one machine: add it by itself, or write them into a list for --from")
	}
	return checkOutput(cmd, o.output, outTable, outJSON, outYAML)
}

func (e *env) hostAdd(cmd *cobra.Command, args []string, o hostAddOptions) error {
	if err := o.check(cmd, args); err != nil {
		return err
	}
	machines, err := o.machines(cmd, args)
	if err != nil {
		return err
	}
	c, err := e.connect()
	if err != nil {
		return err
	}
	base := o.options()
	base.Fleet, base.DataDir = c, o.dataDir
	base.WithoutSystemd, base.Downgrade, base.Rejoin, base.DryRun, base.Timeout = o.session, o.downgrade, o.rejoin, o.dryRun, o.timeout
	if base.ServerURL, err = serverForHosts(cmd, o.serverURL, c.Server()); err != nil {
		return err
	}
	if base.Binary, err = o.program(); err != nil {
		return err
	}
	p := newProgress(e)
	base.Progress = func(at install.Progress) {
		who := at.Host
		if who == "" {
			who = at.Target.String()
		}
		p.step(who + ": " + at.Step + ": " + at.Text)
	}
	results, err := o.add(cmd.Context(), &provider.SSH{Machines: machines, Options: base, User: sshUser()})
	p.done()
	return errors.Join(e.printHostResults(results, o.output), err)
}

// machines are those that the command names, or the list of --from.
func (o *hostAddOptions) machines(cmd *cobra.Command, args []string) ([]provider.Machine, error) {
	labels := map[string]string{}
	for _, l := range o.labels {
		k, v, ok := strings.Cut(l, "=")
		if !ok || k == "" {
			return nil, usagef(cmd, "--label is %q: give KEY=VALUE", l)
		}
		labels[k] = v
	}
	if o.from != "" {
		raw, err := os.ReadFile(o.from)
		if err != nil {
			return nil, fmt.Errorf("the list of hosts (--from): %w", err)
		}
		all, err := provider.ParseList(raw, sshUser())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o.from, err)
		}
		var fit []provider.Machine
		for _, m := range all {
			if m.Fits(provider.Spec{Zone: o.machine.Zone, Pool: o.machine.Pool, Labels: labels}) {
				fit = append(fit, m)
			}
		}
		if len(fit) == 0 {
			return nil, fmt.Errorf("%s: %w: none of its %d machines has that zone, pool and those labels", o.from, provider.ErrNone, len(all))
		}
		return fit, nil
	}
	var list []provider.Machine
	for _, target := range args {
		if _, err := install.ParseTarget(target, sshUser()); err != nil {
			return nil, usagef(cmd, "%s", err)
		}
		m := o.machine
		m.SSH, m.Labels = target, labels
		list = append(list, m)
	}
	return list, nil
}

// program is what is put on the machines.
func (o *hostAddOptions) program() (install.Binary, error) {
	path := o.binary
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return install.Binary{}, fmt.Errorf("find this program: %w: name it with --binary", err)
		}
		path = self
	}
	b, err := install.OpenBinary(path)
	if o.binary == "" {
		b.Version = version.Version()
	}
	return b, err
}

// serverForHosts is the URL at which machines reach the server. One that only this
// machine reaches is not guessed at.
func serverForHosts(cmd *cobra.Command, given, own string) (string, error) {
	if given != "" {
		return strings.TrimSuffix(given, "/"), nil
	}
	u, err := url.Parse(own)
	if err != nil {
		return "", fmt.Errorf("the server's URL: %w", err)
	}
	if name := u.Hostname(); name == "localhost" || strings.HasPrefix(name, "127.") || name == "::1" {
		return "", usagef(cmd, "--server-url is missing: you reach the server at %s, which is this machine alone; give the URL at which the hosts reach it, such as https://10.0.0.2:7379", own)
	}
	return own, nil
}

// add installs the machines, some at the same time, and returns what came of each that
// was tried. One that fails stops no other.
func (o *hostAddOptions) add(ctx context.Context, p *provider.SSH) ([]install.Result, error) {
	n := len(p.Machines)
	if o.count > 0 {
		n = o.count
	}
	results, errs := make([]install.Result, n), make([]error, n)
	var mu sync.Mutex
	var created []install.Result
	p.Report = func(r install.Result) {
		mu.Lock()
		defer mu.Unlock()
		created = append(created, r)
	}
	one := func(i int) {
		if o.count > 0 {
			_, errs[i] = p.Create(ctx, provider.Spec{})
			return
		}
		opts, err := p.Of(p.Machines[i])
		if err != nil {
			results[i], errs[i] = install.Result{Target: p.Machines[i].SSH, Error: err.Error()}, err
			return
		}
		results[i], errs[i] = install.Install(ctx, opts)
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, o.parallel)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			one(i)
		})
	}
	wg.Wait()
	if o.count > 0 {
		results = created
	}
	return results, errors.Join(errs...)
}

// printHostResults says what came of each machine; the errors are printed as such.
func (e *env) printHostResults(results []install.Result, form string) error {
	if form != outTable {
		if results == nil {
			results = []install.Result{}
		}
		return e.printValue(form, results)
	}
	for _, r := range results {
		if r.Host != "" {
			for _, w := range r.Warnings {
				e.errorf("host/%s: warning: %s\n", r.Host, w)
			}
		}
		if r.Error == "" {
			e.printf("host/%s %s\n", r.Host, hostResultText(r))
		}
	}
	return nil
}

// hostResultText is what was done, or would be.
func hostResultText(r install.Result) string {
	text := map[install.Change]string{
		install.Added: "added", install.Upgraded: "upgraded", install.Repaired: "repaired",
		install.Unchanged: "unchanged", install.Removed: "uninstalled",
	}[r.Change]
	switch {
	case r.Change == install.Unchanged:
		return text
	case r.DryRun:
		var b strings.Builder
		fmt.Fprintf(&b, "would be %s (dry run):", text)
		for _, s := range r.Steps {
			fmt.Fprintf(&b, "\n  %s: %s", s.Name, s.What)
		}
		return b.String()
	case r.Change == install.Upgraded && r.Previous != r.Version:
		return fmt.Sprintf("upgraded from %s to %s", r.Previous, r.Version)
	case r.Change == install.Removed:
		return text
	}
	return fmt.Sprintf("%s at %s (%s, quorate %s)", text, r.Address, r.Platform, r.Version)
}
