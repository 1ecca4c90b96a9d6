package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/inspect"
)

// envEtcdPassword holds the password of --user, which is no secret in a list of
// processes.
const envEtcdPassword = "QUORATE_ETCD_PASSWORD" //nolint:gosec // the name of a variable

// doctorTTL is how long the client certificate of one examination lives.
const doctorTTL = 10 * time.Minute

var doctorForms = []string{outTable, outJSON, outYAML}

// Verdicts are no failures: the report has been printed, and the exit code says how
// bad it is.
var (
	errWarning  = errors.New("the worst finding is a warning")
	errCritical = errors.New("the worst finding is critical")
	errNobody   = errors.New("no member answers")
)

func isVerdict(err error) bool {
	return errors.Is(err, errWarning) || errors.Is(err, errCritical) || errors.Is(err, errNobody)
}

type doctorOptions struct {
	endpoints []string
	cacert    string
	cert      string
	key       string
	user      string
	// passwordFile holds the user's password.
	passwordFile string
	cluster      string
	output       string
	timeout      time.Duration
	all          bool
}

func doctorCommand(e *env) *cobra.Command {
	var o doctorOptions
	cmd := &cobra.Command{
		Use:   "doctor (--endpoints URL[,URL] | -c CLUSTER)",
		Short: "Examine any etcd cluster, without a server and without writing anything",
		Long: `Look at an etcd cluster as a client, and say what is wrong with it, worst first:
quorum, leader, alarms, space, certificates, versions and their known bugs, members
that lag or differ, clocks, latency. Each finding comes with its evidence, why it
matters, and the command that puts it right.

It needs no server. It writes nothing: no key, no compaction, no defragmentation,
no alarm, no snapshot, no hash. Its reads leave revision, term and raft log as they
are; only --user adds an entry to the raft log, as every login does. It ends within
--timeout, even when members are behind a black hole.

With -c it takes endpoints and a client certificate from the server, as etcdctl
does. Members that are not named are found by the member list.

A healthy cluster is one line and exit code 0. The exit code is 10 when the worst
finding is a warning, 11 when one is critical, 5 when no member answers.`,
		Example: `  quorate doctor --endpoints http://127.0.0.1:2379
  quorate doctor --endpoints https://10.0.0.1:2379 --cacert ca.crt --cert client.crt --key client.key
  quorate doctor --endpoints https://10.0.0.1:2379 --cacert ca.crt --user root -o json
  quorate doctor -c playground --all`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkDoctor(cmd, o); err != nil {
				return err
			}
			return e.doctor(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.endpoints, "endpoints", nil, "client URLs of the cluster; one that answers is enough")
	f.StringVar(&o.cacert, "cacert", "", "file with the CA that signed the members' certificates (default: the system's)")
	f.StringVar(&o.cert, "cert", "", "file with the client certificate")
	f.StringVar(&o.key, "key", "", "file with the key of the client certificate")
	f.StringVar(&o.user, "user", "", "NAME or NAME:PASSWORD to log in with (env "+envEtcdPassword+" holds the password)")
	f.StringVar(&o.passwordFile, "password-file", "", "file with the user's password")
	f.StringVarP(&o.cluster, "cluster", "c", "", "a cluster of the server, instead of --endpoints")
	f.DurationVar(&o.timeout, "timeout", inspect.DefaultTimeout, "how long all of it may take")
	f.BoolVar(&o.all, "all", false, "show what is only worth to know, too, and the members")
	outputFlag(cmd, &o.output, doctorForms...)
	e.completeClusters(cmd)
	return cmd
}

func checkDoctor(cmd *cobra.Command, o doctorOptions) error {
	if err := checkOutput(cmd, o.output, doctorForms...); err != nil {
		return err
	}
	switch {
	case len(o.endpoints) == 0 && o.cluster == "":
		return usagef(cmd, "--endpoints is missing: name a client URL, such as --endpoints https://10.0.0.1:2379, or a cluster of the server with -c")
	case o.cluster != "" && (o.cacert != "" || o.cert != "" || o.key != ""):
		return usagef(cmd, "-c takes certificates from the server: leave --cacert, --cert and --key out, or name the cluster by --endpoints alone")
	case (o.cert == "") != (o.key == ""):
		return usagef(cmd, "--cert and --key belong together: give both or none")
	case o.timeout < time.Second || o.timeout > time.Minute:
		return usagef(cmd, "--timeout is %s: give 1s to 1m", o.timeout)
	}
	return nil
}

func (e *env) doctor(ctx context.Context, o doctorOptions) error {
	opts, err := e.doctorTarget(ctx, o)
	if err != nil {
		return err
	}
	opts.Timeout = o.timeout
	name, password, given := strings.Cut(o.user, ":")
	switch {
	case given:
	case o.passwordFile != "":
		raw, readErr := os.ReadFile(o.passwordFile)
		if readErr != nil {
			return fmt.Errorf("read the file of --password-file: %w", readErr)
		}
		password = strings.TrimRight(string(raw), "\r\n")
	default:
		password = os.Getenv(envEtcdPassword)
	}
	if name != "" {
		opts.User, opts.Password = name, password
	}
	if opts.User != "" && opts.Password == "" {
		return &usageError{command: "quorate doctor", text: "--user is " + name + " and there is no password: give --password-file FILE, put it into " + envEtcdPassword + ", or give --user NAME:PASSWORD"}
	}
	p := newProgress(e)
	if opts.Logger, err = e.logger(slog.LevelError, p); err != nil {
		return err
	}
	if p.terminal { // a healthy cluster is one line, also where each step would stay
		p.step("asking " + strings.Join(opts.Endpoints, ", "))
	}
	report, err := inspect.Inspect(ctx, opts)
	p.done()
	if errors.Is(err, inspect.ErrOptions) {
		return &usageError{command: "quorate doctor", text: err.Error()}
	}
	if err != nil {
		return err
	}
	if o.output == outTable {
		e.printReport(report, o.all)
	} else if err = e.printValue(o.output, report); err != nil {
		return err
	}
	return verdict(report)
}

// verdict is what the exit code is made of.
func verdict(r *inspect.Report) error {
	if r.State == v1alpha1.StateUnknown {
		return errNobody
	}
	switch r.Worst() {
	case inspect.Critical:
		return errCritical
	case inspect.Warning:
		return errWarning
	default:
		return nil
	}
}

// doctorTarget says how the cluster is reached, and how a person runs etcdctl on it.
func (e *env) doctorTarget(ctx context.Context, o doctorOptions) (inspect.Options, error) {
	if o.cluster != "" {
		return e.fleetTarget(ctx, o)
	}
	opts := inspect.Options{Endpoints: o.endpoints}
	etcdctl := []string{nameEtcdctl}
	for _, f := range []struct {
		flag, path string
		to         *[]byte
	}{{"--cacert", o.cacert, &opts.CA}, {"--cert", o.cert, &opts.Certificate}, {"--key", o.key, &opts.Key}} {
		if f.path == "" {
			continue
		}
		raw, err := os.ReadFile(f.path)
		if err != nil {
			return opts, fmt.Errorf("read the file of %s: %w", f.flag, err)
		}
		*f.to = raw
		etcdctl = append(etcdctl, f.flag+"="+quoted(f.path))
	}
	if name, _, _ := strings.Cut(o.user, ":"); name != "" {
		etcdctl = append(etcdctl, "--user="+quoted(name))
	}
	opts.Etcdctl = strings.Join(etcdctl, " ")
	return opts, nil
}

// fleetTarget asks the server for endpoints and for a client certificate whose key
// stays in this process.
func (e *env) fleetTarget(ctx context.Context, o doctorOptions) (inspect.Options, error) {
	c, err := e.connect()
	if err != nil {
		return inspect.Options{}, err
	}
	key := e.cluster(o.cluster)
	cluster, err := readCluster(ctx, c, key)
	if err != nil {
		return inspect.Options{}, err
	}
	pass, err := passTo(ctx, c, cluster, doctorTTL)
	if err != nil {
		return inspect.Options{}, named(target{v1alpha1.KindCluster, key}, err)
	}
	endpoints := pass.endpoints
	if len(o.endpoints) > 0 {
		endpoints = o.endpoints
	}
	if len(endpoints) == 0 {
		return inspect.Options{}, fmt.Errorf("%s has no members that listen yet: `quorate describe cluster %s` says why", label(v1alpha1.KindCluster, key.Name), key.Name)
	}
	opts := inspect.Options{Endpoints: endpoints, Etcdctl: e.called() + " etcdctl -c " + quoted(key.Name)}
	if key.Namespace != defaultNamespace {
		opts.Etcdctl += " -n " + quoted(key.Namespace)
	}
	opts.CA, opts.Certificate, opts.Key = pass.bundle.CA, pass.bundle.Certificate, pass.key
	opts.User, opts.Password = pass.user, pass.password
	return opts, nil
}

// Layout of a report: a column for what a line is, the text folded behind it.
const (
	reportColumn = 9
	reportWidth  = 100
	narrowest    = 40
)

var (
	stateColours = map[v1alpha1.ClusterState]string{
		v1alpha1.StateHealthy: green, v1alpha1.StateDegraded: yellow, v1alpha1.StateUnavailable: red, v1alpha1.StateUnknown: red,
	}
	severityColours = map[inspect.Severity]string{inspect.Critical: red, inspect.Warning: yellow, inspect.Info: cyan}
	severityMarks   = map[inspect.Severity]string{inspect.Critical: "✗", inspect.Warning: "!", inspect.Info: "i"}
)

// printReport writes a report for people: the state first, then what is wrong.
func (e *env) printReport(r *inspect.Report, all bool) {
	e.printf("%s: %s\n", e.painted(bold+stateColours[r.State], strings.ToLower(string(r.State))), r.Summary)
	shown := slices.DeleteFunc(slices.Clone(r.Findings), func(f inspect.Finding) bool { return f.Severity == inspect.Info && !all })
	hidden := len(r.Findings) - len(shown)
	if len(shown) == 0 && !all {
		return
	}
	e.printLooked(r.Observation)
	for _, f := range shown {
		e.printFinding(f)
	}
	if hidden > 0 {
		e.printf("\n%s\n", e.painted(dim, plural(hidden, "more finding is", "more findings are")+" worth to know: add --all"))
	}
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// printLooked says what was seen of whom.
func (e *env) printLooked(o *inspect.Observation) {
	id := ""
	if o.ClusterID != "" {
		id = "cluster " + o.ClusterID + ", "
	}
	e.printf("%s\n\n", e.painted(dim, fmt.Sprintf("%sasked for %.1f s, nothing was written", id, o.Seconds)))
	g := grid{header: []string{"member", "endpoint", "role", "version", "db size", "in use", "revision", "read"}}
	for i := range o.Members {
		g.add(memberCells(&o.Members[i])...)
	}
	_ = g.write(e.Out, 0) // As with printf: a reader that has gone away is no failure.
}

func memberCells(m *inspect.Member) []string {
	name := m.Name
	if name == "" {
		name = m.ID
	}
	if !m.Answers() {
		return []string{name, m.Endpoint, unanswered(m.Reach.Cause), "", "", "", "", ""}
	}
	st, role, read := m.Latest(), "follower", ""
	switch {
	case m.Learner:
		role = "learner"
	case st.Leader == "":
		role = "no leader"
	case st.Leader == m.ID:
		role = "leader"
	}
	if m.Linearizable != nil && m.Linearizable.Reads > 0 {
		read = fmt.Sprintf("%.1f ms", m.Linearizable.MedianMilliseconds)
	}
	return []string{name, m.Endpoint, role, st.Version, inspect.Size(st.DBSize), inspect.Size(st.DBSizeInUse), strconv.FormatInt(st.Revision, 10), read}
}

var hump = regexp.MustCompile(`([a-z])([A-Z])|([A-Z])([A-Z][a-z])`)

// unanswered is a cause in a few words.
func unanswered(c etcd.FaultKind) string {
	return strings.ToLower(hump.ReplaceAllString(string(c), "$1$3 $2$4"))
}

// printFinding writes one finding; its commands stand alone on their lines.
func (e *env) printFinding(f inspect.Finding) {
	colour := severityColours[f.Severity]
	e.printf("\n%s\n", e.painted(bold+colour, severityMarks[f.Severity]+" "+strings.ToUpper(string(f.Severity)))+"  "+
		e.painted(bold, e.folded(f.Title, 2+len(f.Severity)+2)))
	for i, line := range f.Evidence {
		name := ""
		if i == 0 {
			name = "seen"
		}
		e.reportLine(name, line)
	}
	e.reportLine("why", f.Why)
	e.reportLine("fix", f.Fix)
	for _, command := range f.Commands {
		e.printf("%s%s\n", strings.Repeat(" ", reportColumn+2), e.painted(cyan, command))
	}
	e.reportLine("more", f.Docs)
}

func (e *env) reportLine(name, text string) {
	e.printf("  %s%s\n", e.painted(dim, fmt.Sprintf("%-*s", reportColumn-2, name)), e.folded(text, reportColumn))
}

// folded folds a text into the columns right of a margin.
func (e *env) folded(text string, margin int) string {
	columns := reportWidth
	if w := width(e.Out); w > 0 {
		columns = min(columns, w)
	}
	return strings.ReplaceAll(fold(text, max(columns-margin, narrowest)), "\n", "\n"+strings.Repeat(" ", margin))
}
