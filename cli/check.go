package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/chaos"
	"github.com/quorate/quorate/check"
	"github.com/quorate/quorate/history"
	"github.com/quorate/quorate/pki"
)

// Verdicts of a check, as in doctor.go.
var (
	errViolated  = errors.New("a promise was broken")
	errUndecided = errors.New("the cluster did not answer at the end")
)

// checkMargin is how much longer than its run a client certificate lives.
const checkMargin = 10 * time.Minute

var checkForms = []string{outTable, outJSON, outYAML}

type checkOptions struct {
	target doctorOptions
	opts   check.Options
	mix    string
	hash   string
	html   string
	// disturb are kinds of disturbances; length, how long each lasts.
	disturb    []string
	length     time.Duration
	startAgain bool
	outage     bool
	dryRun     bool
	yes        bool
	output     string
}

func checkCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Find out whether a cluster keeps etcd's promises, under load and under harm",
		Long: `Make traffic on a cluster, record what every client saw, and judge the record: no
acknowledged write is lost, reads are not stale, transactions happen whole or not at
all, watches tell every change once and in order, leases live as long as they were
promised to, members have the same data.

"quorate check run" does it all; "quorate check history" judges a record again, and
"quorate check clean" deletes what a run has left that was killed.`,
		Example: `  quorate check run -c playground --duration 5s
  quorate check history playground.history.zst
  quorate check clean -c playground --dry-run`,
		Args: argsBetween(0, 0, ""),
		RunE: runGroup,
	}
	cmd.AddCommand(checkRunCommand(e), checkHistoryCommand(e), checkCleanCommand(e))
	return cmd
}

func checkRunCommand(e *env) *cobra.Command {
	var o checkOptions
	names, what := check.MixNames()
	mix := make([]string, 0, len(names))
	for i, name := range names {
		mix = append(mix, fmt.Sprintf("  %-13s %s", name, what[i]))
	}
	cmd := &cobra.Command{
		Use:   "run (--endpoints URL[,URL] | -c CLUSTER)",
		Short: "Make traffic on a private prefix, disturb the cluster if asked, and judge what was seen",
		Long: `Make traffic through every member, on a prefix that nobody else uses, and judge
what the clients saw. Besides the traffic there are leases that are renewed, revoked
or left to expire, and watches of all sorts at every member. At the end all members
must show the same.

It writes below its prefix only, which must be empty, and deletes it at the end;
"quorate check clean" deletes what a killed run has left. A raft log and a disk feel
it: take a small --rate where others work. Members on other machines are loaded only
with --yes or after a question. With --allow-compact it compacts the cluster now and
then, which takes the past from everyone on it.

With --disturb it does harm to members on this machine, one after another, and only
while all members answer. What would be an outage, since too few members are left,
is refused without --allow-outage. A killed member is started again by its
supervisor; where it has none, by --start-again.

All that was seen is kept in memory until it is judged. Without --operations the
traffic ends when that would be more than 4 GiB; --dry-run says when.

Kinds of operations for --mix, each with a weight:

` + strings.Join(mix, "\n") + `

All but past are done unless --mix says otherwise; past is refused on etcd before
3.7.3, whose members may differ for good after it (etcd's issue 18667).

The exit code is 0 when no promise was broken, 12 when one was, 5 when nobody
answers or the cluster took no write at the end. Ctrl-C ends the traffic; what was
seen until then is judged. A second Ctrl-C gives up: the keys stay.`,
		Example: `  quorate check run --endpoints http://127.0.0.1:2379
  quorate check run -c playground --duration 5s
  quorate check run -c playground --disturb kill,pause,leader-move --for 2s --every 3s --duration 20s --yes
  quorate check run --endpoints https://10.0.0.1:2379 --cacert ca.crt --cert client.crt --key client.key --rate 50
  quorate check run -c playground --dry-run`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := readCheck(cmd, &o); err != nil {
				return err
			}
			return e.checkRun(cmd, o)
		},
	}
	checkTargetFlags(cmd, &o.target)
	checkTrafficFlags(cmd, &o)
	f := cmd.Flags()
	f.StringVar(&o.opts.File, "history", "", "file for the record (default: quorate-check-TIME.history.zst here)")
	f.StringVar(&o.html, "html", "", "file for a page with pictures of what was violated")
	f.StringSliceVar(&o.disturb, "disturb", nil, "what to do to members, in turn: "+strings.Join(chaos.Names(), ", "))
	f.DurationVar(&o.opts.Every, "every", check.DefaultEvery, "rest before each disturbance")
	f.DurationVar(&o.length, "for", defaultDisturbance, "how long a disturbance lasts, up to "+chaos.MaxFor.String())
	f.BoolVar(&o.startAgain, "start-again", false, "start a killed member again from here, since nothing else does")
	f.BoolVar(&o.outage, "allow-outage", false, "disturb also where the members that are left are no quorum, or one is away already")
	f.BoolVar(&o.dryRun, "dry-run", false, "only say what would be done")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask before members on other machines are loaded, members are disturbed, or history is compacted")
	outputFlag(cmd, &o.output, checkForms...)
	complete(cmd, "hash", string(check.HashAuto), string(check.HashAlways), string(check.HashNever))
	complete(cmd, "disturb", chaos.Names()...)
	complete(cmd, "mix", check.DefaultMix().String())
	e.completeClusters(cmd)
	return cmd
}

func checkTargetFlags(cmd *cobra.Command, o *doctorOptions) {
	f := cmd.Flags()
	f.StringSliceVar(&o.endpoints, "endpoints", nil, "client URLs of the cluster; the other members are found by the member list")
	f.StringVar(&o.cacert, "cacert", "", "file with the CA that signed the members' certificates (default: the system's)")
	f.StringVar(&o.cert, "cert", "", "file with the client certificate")
	f.StringVar(&o.key, "key", "", "file with the key of the client certificate")
	f.StringVar(&o.user, "user", "", "NAME or NAME:PASSWORD to log in with (env "+envEtcdPassword+" holds the password)")
	f.StringVar(&o.passwordFile, "password-file", "", "file with the user's password")
	f.StringVarP(&o.cluster, "cluster", "c", "", "a cluster of the server, instead of --endpoints")
}

func checkTrafficFlags(cmd *cobra.Command, o *checkOptions) {
	f, c := cmd.Flags(), &o.opts
	f.StringVar(&c.Prefix, "prefix", "", "prefix to write below; it must be empty, and end with a slash (default: a new one below /quorate-check/)")
	f.IntVar(&c.Clients, "clients", check.DefaultClients, "clients that write and read at once")
	f.Float64Var(&c.Rate, "rate", check.DefaultRate, "operations in a second, of all clients together; 0 for as fast as it goes")
	f.DurationVar(&c.Duration, "duration", check.DefaultDuration, "how long there is traffic")
	f.IntVar(&c.Operations, "operations", 0, "end the traffic after so many operations")
	f.StringVar(&o.mix, "mix", "", "kinds of operations by weight, such as put=3,get=1 (default: some of all)")
	f.IntVar(&c.Keys, "keys", check.DefaultKeys, "keys that are fought over")
	f.IntVar(&c.ValueSize, "value-size", check.DefaultValueSize, "size of the values in bytes")
	f.DurationVar(&c.Timeout, "request-timeout", check.DefaultTimeout, "how long a client waits for an answer")
	f.DurationVar(&c.Patience, "patience", check.DefaultPatience, "how long members may take to catch up at the end")
	f.Uint64Var(&c.Seed, "seed", 0, "choose the same operations as the run that told this seed (default: a new one)")
	f.BoolVar(&c.AllowCompact, "allow-compact", false, "compact the cluster now and then: everyone on it loses the past")
	f.StringVar(&o.hash, "hash", string(check.HashAuto), "compare the members' hashes at the end, which stalls writes on a big database: auto, always, never")
	f.BoolVar(&c.Keep, "keep", false, "leave what was written")
}

// readCheck checks the flags, and turns them into options.
func readCheck(cmd *cobra.Command, o *checkOptions) error {
	if err := checkOutput(cmd, o.output, checkForms...); err != nil {
		return err
	}
	if err := readCheckTarget(cmd, o.target); err != nil {
		return err
	}
	return readTraffic(cmd, o)
}

// readCheckTarget checks the flags that name a cluster.
func readCheckTarget(cmd *cobra.Command, t doctorOptions) error {
	switch {
	case len(t.endpoints) == 0 && t.cluster == "":
		return usagef(cmd, "--endpoints is missing: name a client URL, such as --endpoints https://10.0.0.1:2379, or a cluster of the server with -c")
	case t.cluster != "" && (t.cacert != "" || t.cert != "" || t.key != ""):
		return usagef(cmd, "-c takes certificates from the server: leave --cacert, --cert and --key out, or name the cluster by --endpoints alone")
	case (t.cert == "") != (t.key == ""):
		return usagef(cmd, "--cert and --key belong together: give both or none")
	}
	return nil
}

func readTraffic(cmd *cobra.Command, o *checkOptions) error {
	f := cmd.Flags()
	for _, name := range []string{"clients", "keys", "value-size", "operations"} {
		if n, err := f.GetInt(name); err == nil && f.Changed(name) && n < 1 {
			return usagef(cmd, "--%s is %d: give a number above 0", name, n)
		}
	}
	for _, name := range []string{"duration", "request-timeout", "patience", "every", "for"} {
		if d, err := f.GetDuration(name); err == nil && d <= 0 {
			return usagef(cmd, "--%s is %s: give a time above 0, such as 5s", name, d)
		}
	}
	if o.opts.Rate < 0 {
		return usagef(cmd, "--rate is %v: give operations in a second, or 0 for as fast as it goes", o.opts.Rate)
	}
	if o.opts.Rate == 0 {
		o.opts.Rate = -1
	}
	o.opts.Hash = check.HashPolicy(o.hash)
	if o.mix != "" {
		mix, err := check.ParseMix(o.mix)
		if err != nil {
			return usagef(cmd, "--mix: %s", reason(err))
		}
		o.opts.Mix = mix
	}
	if o.opts.File == "" {
		// With milliseconds, so that two who start together get a file each.
		o.opts.File = "quorate-check-" + strings.Replace(time.Now().Format("20060102-150405.000"), ".", "", 1) + ".history.zst"
	}
	return readDisturb(cmd, o)
}

// reason is what an error says without its class.
func reason(err error) string {
	return strings.TrimPrefix(strings.TrimPrefix(err.Error(), check.ErrOptions.Error()), ": ")
}

func (e *env) checkRun(cmd *cobra.Command, o checkOptions) error {
	ctx := cmd.Context()
	err := e.checkTarget(cmd, &o)
	if err != nil {
		return err
	}
	p := newProgress(e)
	if o.opts.Logger, err = e.logger(slog.LevelError, p); err != nil {
		return err
	}
	o.opts.Progress = func(now check.Progress) { p.step(progressText(now)) }
	abandon := make(chan struct{})
	o.opts.Abandon = abandon
	disturbers := o.disturbers() // of this very o, whose options are complete now
	for _, d := range disturbers {
		o.opts.Disturbers = append(o.opts.Disturbers, d)
	}
	plan, err := check.Prepare(ctx, o.opts)
	if err != nil {
		return checkFailed(cmd, err)
	}
	if err = disturbable(ctx, plan, disturbers); err != nil {
		return err
	}
	if o.dryRun {
		return e.printCheckPlan(o.output, plan)
	}
	if err = writable(o.html); err != nil {
		return err
	}
	if err = e.agreed(cmd, &o, plan); err != nil {
		return err
	}
	over := make(chan struct{})
	go relay(abandon, twice(ctx, over, p), over)
	result, err := plan.Run(ctx)
	close(over)
	p.done()
	if result == nil {
		return checkFailed(cmd, err)
	}
	if bad := e.printChecked(o.output, result, func() { e.printResult(result) }); bad != nil {
		return bad
	}
	if bad := e.writePage(o.html, result.History, result.Report); bad != nil {
		return bad
	}
	return cmp.Or(checkVerdict(result.Verdict), err)
}

// relay closes a channel when another is closed, unless it is over before.
func relay(to chan<- struct{}, from, over <-chan struct{}) {
	select {
	case <-from:
		close(to)
	case <-over:
	}
}

// disturbable says before anything is done why the cluster is not to be disturbed.
func disturbable(ctx context.Context, plan *check.Plan, disturbers []*disturber) error {
	for _, d := range disturbers {
		d.of(plan)
		if err := d.calm(); err != nil {
			return err
		}
		if err := d.possible(); err != nil {
			return err
		}
	}
	if len(disturbers) == 0 {
		return nil
	}
	if err := disturbers[0].ready(ctx, settling); err != nil {
		return fmt.Errorf("--disturb: %w", err)
	}
	return nil
}

// checkTarget says how the cluster is reached.
func (e *env) checkTarget(cmd *cobra.Command, o *checkOptions) error {
	if o.target.cluster != "" {
		return e.checkFleetTarget(cmd.Context(), o)
	}
	target, err := e.doctorTarget(cmd.Context(), o.target)
	if err != nil {
		return err
	}
	name, password, err := passwordOf(&o.target)
	switch {
	case err != nil:
		return fmt.Errorf("read the file of --password-file: %w", err)
	case name != "" && password == "":
		return usagef(cmd, "--user is %s and there is no password: give --password-file FILE, put it into %s, or give --user NAME:PASSWORD", name, envEtcdPassword)
	}
	o.opts.User, o.opts.Password, o.opts.Name = name, password, strings.Join(target.Endpoints, ",")
	if o.opts.TLS, err = clientTLS(target.CA, target.Certificate, target.Key); err != nil {
		return usagef(cmd, "%v", err)
	}
	if o.opts.Endpoints, err = check.Endpoints(target.Endpoints, len(target.CA) > 0 || len(target.Certificate) > 0); err != nil {
		return usagef(cmd, "%s", reason(err))
	}
	return nil
}

// checkFleetTarget asks the server for endpoints and for a certificate that outlives
// the run.
func (e *env) checkFleetTarget(ctx context.Context, o *checkOptions) error {
	c, err := e.connect()
	if err != nil {
		return err
	}
	key := e.cluster(o.target.cluster)
	cluster, err := readCluster(ctx, c, key)
	if err != nil {
		return err
	}
	pass, err := passTo(ctx, c, cluster, o.opts.Duration+o.opts.Patience+checkMargin)
	if err != nil {
		return named(target{v1alpha1.KindCluster, key}, err)
	}
	endpoints := pass.endpoints
	if len(o.target.endpoints) > 0 {
		endpoints = o.target.endpoints
	}
	if len(endpoints) == 0 {
		return fmt.Errorf("%s has no members that listen yet: `quorate describe cluster %s` says why", label(v1alpha1.KindCluster, key.Name), key.Name)
	}
	if o.opts.TLS, err = clientTLS(pass.bundle.CA, pass.bundle.Certificate, pass.key); err != nil {
		return err
	}
	o.opts.TLS.ServerName = pass.serverName
	o.opts.User, o.opts.Password, o.opts.Name = pass.user, pass.password, key.Name
	o.opts.Endpoints, err = check.Endpoints(endpoints, len(pass.bundle.CA) > 0)
	return err
}

// clientTLS is what the certificates of a client make.
func clientTLS(ca, certificate, key []byte) (*tls.Config, error) {
	if len(ca) > 0 {
		return pki.ClientTLS(certificate, key, ca)
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(certificate) == 0 {
		return cfg, nil
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("client certificate: %w: give the certificate and its own key (PEM)", err)
	}
	cfg.Certificates = []tls.Certificate{pair}
	return cfg, nil
}

// checkFailed gives an error its class.
func checkFailed(cmd *cobra.Command, err error) error {
	if errors.Is(err, check.ErrOptions) {
		return usagef(cmd, "%s", reason(err))
	}
	return err
}

// checkVerdict is what the exit code is made of.
func checkVerdict(v check.Verdict) error {
	switch v {
	case check.Violated:
		return errViolated
	case check.Undecided:
		return errUndecided
	default:
		return nil
	}
}

func checkHistoryCommand(e *env) *cobra.Command {
	var output, html string
	cmd := &cobra.Command{
		Use:   "history FILE",
		Short: "Judge a recorded history",
		Long: `Judge a history that "quorate check run" has recorded, or anything else that writes
the same format: lines of JSON, compressed with zstd. A file whose end is missing is
judged up to there.

The exit code is 0 when no promise was broken, 12 when one was, and 5 when none was
and the cluster took no write, or none at the end.`,
		Example: `  quorate check history playground.history.zst
  quorate check history playground.history.zst --html playground.html
  quorate check history playground.history.zst -o json`,
		Args: argsBetween(1, 1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(cmd, output, checkForms...); err != nil {
				return err
			}
			return e.checkHistory(cmd.Context(), args[0], output, html)
		},
	}
	cmd.Flags().StringVar(&html, "html", "", "file for a page with pictures of what was violated")
	outputFlag(cmd, &output, checkForms...)
	return cmd
}

func (e *env) checkHistory(ctx context.Context, path, output, html string) error {
	f, err := os.Open(path) //nolint:gosec // the file that a person names
	if err != nil {
		return fmt.Errorf("read the history: %w", err)
	}
	defer func() { _ = f.Close() }() // It was only read.
	done := e.slowly("judging " + path)
	defer done()
	h, err := history.Read(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	log, err := e.logger(slog.LevelError, e.Err)
	if err != nil {
		return err
	}
	report, err := history.Check(ctx, h, history.Options{Logger: log})
	if err != nil {
		return err
	}
	done()
	judged := judgement{File: path, Meta: h.Meta, Report: report, Verdict: check.Holds}
	switch {
	case !report.OK:
		judged.Verdict = check.Violated
	case report.Stats.Changes == 0 || !check.Decided(h):
		judged.Verdict = check.Undecided
	}
	if err = e.printChecked(output, judged, func() { e.printJudgement(judged) }); err != nil {
		return err
	}
	if err = e.writePage(html, path, report); err != nil {
		return err
	}
	return checkVerdict(judged.Verdict)
}

// judgement is what is said of a file.
type judgement struct {
	Verdict check.Verdict   `json:"verdict"`
	File    string          `json:"file"`
	Meta    history.Meta    `json:"meta"`
	Report  *history.Report `json:"report"`
}
