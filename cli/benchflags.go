package cli

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/bench"
)

// benchOptions are the flags of `quorate bench` and what is below it.
type benchOptions struct {
	doctorOptions

	// clients and durations as they are; the rest as text that bench parses.
	spec      bench.Spec
	workload  string
	mix       string
	keySize   string
	valueSize string
	skew      string

	ramp, warmUp, duration, request, slice time.Duration

	hosts   []string
	findMax bool
	p99     time.Duration
	errors  string
	step    time.Duration
	from    float64

	cells string
	scale int

	name string
	save string
	csv  string
	hdr  string
	html string
	dry  bool
	yes  bool
}

// targetFlags are those that say which cluster.
func (e *env) targetFlags(cmd *cobra.Command, o *benchOptions) {
	f := cmd.Flags()
	f.StringSliceVar(&o.endpoints, "endpoints", nil, "client URLs that get the load, spread over all of them")
	f.StringVar(&o.cacert, "cacert", "", "file with the CA that signed the members' certificates (default: the system's)")
	f.StringVar(&o.cert, "cert", "", "file with the client certificate")
	f.StringVar(&o.key, "key", "", "file with the key of the client certificate")
	f.StringVar(&o.user, "user", "", "NAME or NAME:PASSWORD to log in with (env "+envEtcdPassword+" holds the password)")
	f.StringVar(&o.passwordFile, "password-file", "", "file with the user's password")
	f.StringVarP(&o.cluster, "cluster", "c", "", "a cluster of the server, instead of --endpoints")
	e.completeClusters(cmd)
}

// loadFlags are those that say what the load is.
func loadFlags(cmd *cobra.Command, o *benchOptions, matrix bool) {
	d := bench.Default()
	f, s := cmd.Flags(), &o.spec
	f.StringVar(&o.workload, "workload", "put", "what is done: "+strings.Join(workloads, ", "))
	f.StringVar(&o.mix, "mix", "", "operations and their weights, such as put=30,range=60,txn=10, instead of --workload")
	f.Float64Var(&s.Rate, "rate", 0, "open loop: so many requests a second, whatever the cluster does (default: a closed loop)")
	f.StringVar(&s.Arrivals, "arrivals", d.Arrivals, "when the requests of an open loop are due: poisson, constant")
	f.IntVar(&s.MaxInFlight, "max-in-flight", 0, "requests that an open loop has under way at most; more are dropped, which is an error (default 10000)")
	if !matrix {
		f.IntVar(&s.Namespaces, "namespaces", d.Namespaces, "key prefixes that the clients are spread over")
		f.IntVar(&s.Clients, "clients", d.Clients, "clients of each namespace; in a closed loop each has one request under way")
	}
	f.IntVar(&s.Connections, "connections", 0, "connections that all clients share (default: one for each 100 clients, at most 64)")
	f.DurationVar(&o.ramp, "ramp", 0, "how long the load takes to come up, unmeasured")
	f.DurationVar(&o.warmUp, "warm-up", 0, "how long it then runs unmeasured")
	f.DurationVar(&o.duration, "duration", 0, "how long it is measured (default 30s; with --total, until then)")
	f.Int64Var(&s.Total, "total", 0, "end after so many requests")
	f.DurationVar(&o.request, "request-timeout", d.Timeout.Std(), "how long a request may take")
	f.IntVar(&s.Keys, "keys", d.Keys, "keys of each namespace")
	f.StringVar(&o.keySize, "key-size", d.KeySize.String(), "bytes of a key: 64, 64-256, normal:100:20, lognormal:100:0.5 or a list 64,128")
	f.StringVar(&o.valueSize, "value-size", d.ValueSize.String(), "bytes of a value, in the same forms; K and M are taken")
	f.StringVar(&o.skew, "skew", d.Skew.String(), "which keys: uniform, sequential, zipf:1.1 or hot:0.01:0.9 (1% of the keys take 90% of the requests)")
	f.Uint64Var(&s.Seed, "seed", 0, "the same seed draws the same keys, sizes and arrivals (default: another each time)")
	f.StringVar(&s.Prefix, "prefix", "", "where all keys lie; it must be empty (default: a new one below /quorate-bench/)")
	f.BoolVar(&s.Keep, "keep", false, "leave the keys behind")
	f.IntVar(&s.RangeKeys, "range-keys", d.RangeKeys, "keys that a range reads")
	f.IntVar(&s.TxnOps, "txn-ops", d.TxnOps, "operations of a transaction")
	f.IntVar(&s.PageSize, "page-size", d.PageSize, "keys in a page of a list")
	f.IntVar(&s.Watchers, "watchers", 0, "watchers of each namespace (default 10 for the workload watch, 1 for kubernetes)")
	f.StringVar(&s.WatchScope, "watch-scope", d.WatchScope, "what a watcher looks at: prefix (its namespace), key (one key)")
	f.Int64Var(&s.LeaseTTL, "lease-ttl", d.LeaseTTL, "seconds of a lease")
	f.IntVar(&s.LeaseKeys, "lease-keys", d.LeaseKeys, "keys attached to a lease")
	f.DurationVar(&o.slice, "slice", d.Slice.Std(), "step of the time series")
	f.BoolVar(&s.NoServers, "no-server-metrics", false, "don't read the members' metrics")
	f.BoolVar(&o.dry, "dry-run", false, "print what would be done, and do nothing")
	f.BoolVar(&o.yes, "yes", false, "don't ask before other machines' members are loaded")
	complete(cmd, "workload", workloads...)
	complete(cmd, "arrivals", bench.Poisson, bench.Constant)
	complete(cmd, "watch-scope", bench.WatchPrefix, bench.WatchKey)
	complete(cmd, "skew", bench.Uniform, bench.Sequential, bench.Zipf, bench.HotSet)
}

// workloads in the order of help.
var workloads = []string{"put", "range", "range-serializable", "range-stream", "cas", "txn", "mixed", "watch", "lease", "kubernetes"}

// reportFlags are those that say where the report goes.
func reportFlags(cmd *cobra.Command, o *benchOptions) {
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "name of the run, for the report")
	f.StringVar(&o.save, "save", "", "file for the whole result as JSON, which `bench compare` reads")
	f.StringVar(&o.csv, "csv", "", "file for the time series as CSV")
	f.StringVar(&o.hdr, "hdr", "", "file for the percentiles, as HdrHistogram's plotters read them (.hgrm)")
	f.StringVar(&o.html, "html", "", "file for a report as one HTML page")
	outputFlag(cmd, &o.output, benchForms...)
}

var benchForms = []string{outTable, outJSON, outYAML, outCSV}

const outCSV = "csv"

// usage makes a mistake in a spec one of how the command was called.
func (*env) benchUsage(cmd *cobra.Command, err error) error {
	if errors.Is(err, bench.ErrSpec) {
		text := strings.TrimPrefix(err.Error(), bench.ErrSpec.Error()+": ")
		return usagef(cmd, "%s", text)
	}
	return err
}

// specOf is the load that the flags describe, save the cluster.
func (e *env) specOf(cmd *cobra.Command, o *benchOptions) (bench.Spec, error) {
	s := o.spec
	if cmd.Flags().Changed("mix") && cmd.Flags().Changed("workload") {
		return s, usagef(cmd, "--mix and --workload say the same: give one of them")
	}
	if _, ok := bench.Mixes[o.workload]; !ok {
		return s, usagef(cmd, "--workload is %q: use one of %s, or --mix", o.workload, strings.Join(workloads, ", "))
	}
	var err error
	if o.mix != "" {
		s.Mix, err = bench.ParseMix(o.mix)
	} else {
		s.Workload = o.workload
		s.Mix, err = bench.ParseMix(o.workload)
	}
	if err == nil {
		s.KeySize, err = bench.ParseSizes(o.keySize)
	}
	if err == nil {
		s.ValueSize, err = bench.ParseSizes(o.valueSize)
	}
	if err == nil {
		s.Skew, err = bench.ParseSkew(o.skew)
	}
	if err != nil {
		return s, e.benchUsage(cmd, err)
	}
	s.Loop = bench.Closed
	if cmd.Flags().Changed("rate") {
		s.Loop = bench.Open
	}
	const usualWatchers = 10
	if s.Workload == "watch" && !cmd.Flags().Changed("watchers") {
		s.Watchers = usualWatchers
	}
	s.Ramp, s.WarmUp, s.Duration = bench.Duration(o.ramp), bench.Duration(o.warmUp), bench.Duration(o.duration)
	s.Timeout, s.Slice = bench.Duration(o.request), bench.Duration(o.slice)
	return s, e.checkBench(cmd, o)
}

// checkBench refuses flags that do not go together.
func (*env) checkBench(cmd *cobra.Command, o *benchOptions) error {
	if err := checkOutput(cmd, o.output, benchForms...); err != nil {
		return err
	}
	f := cmd.Flags()
	for _, name := range []string{"max-in-flight", "arrivals"} {
		if f.Changed(name) && !f.Changed("rate") && !o.findMax {
			return usagef(cmd, "--%s belongs to an open loop: give --rate, too", name)
		}
	}
	for _, name := range []string{"arrivals", "watch-scope"} {
		if f.Changed(name) && f.Lookup(name).Value.String() == "" {
			return usagef(cmd, "--%s is empty: give one, or leave the flag out", name)
		}
	}
	files := map[string]string{}
	for _, file := range []struct{ flag, path string }{{"save", o.save}, {"csv", o.csv}, {"hdr", o.hdr}, {"html", o.html}} {
		other, twice := files[filepath.Clean(file.path)]
		if file.path != "" && twice && !strings.HasPrefix(file.path, "/dev/") {
			return usagef(cmd, "--%s and --%s name the same file, %s: give each its own", other, file.flag, file.path)
		}
		files[filepath.Clean(file.path)] = file.flag
	}
	for _, name := range []string{"namespaces", "clients", "connections", "max-in-flight", "keys", "range-keys", "txn-ops", "page-size", "duration", "total", "slice", "request-timeout", "lease-ttl"} {
		if flag := f.Lookup(name); flag != nil && flag.Changed && (strings.HasPrefix(flag.Value.String(), "-") || zero(flag.Value.String())) {
			return usagef(cmd, "--%s is %s: give more than 0", name, flag.Value)
		}
	}
	switch {
	case o.findMax && len(o.hosts) > 0:
		return usagef(cmd, "--find-max drives the load from here: leave --from out")
	case o.findMax && (f.Changed("rate") || f.Changed("duration") || f.Changed("total") || f.Changed("ramp") || f.Changed("warm-up")):
		return usagef(cmd, "--find-max chooses rates and times itself: leave --rate, --duration, --total, --ramp and --warm-up out; --step says how long a rate is measured")
	case !o.findMax && (f.Changed("p99") || f.Changed("errors") || f.Changed("step") || f.Changed("first-rate")):
		return usagef(cmd, "--p99, --errors, --step and --first-rate belong to --find-max: give that, too")
	case f.Changed("from") && (len(o.hosts) == 0 || slices.Contains(o.hosts, "")):
		return usagef(cmd, "--from names no host, or an empty one: give hosts of the server, such as db1,db2, or leave it out")
	case o.findMax && o.p99 > o.request:
		return usagef(cmd, "--p99 %s can't be passed where --request-timeout is %s: lower the one, or raise the other", o.p99, o.request)
	}
	return checkTarget(cmd, o)
}

// checkTarget refuses flags that don't say which cluster.
func checkTarget(cmd *cobra.Command, o *benchOptions) error {
	switch {
	case len(o.endpoints) == 0 && o.cluster == "":
		return usagef(cmd, "--endpoints is missing: name a client URL, such as --endpoints https://10.0.0.1:2379, or a cluster of the server with -c")
	case o.cluster != "" && (o.cacert != "" || o.cert != "" || o.key != "" || o.user != ""):
		return usagef(cmd, "-c takes certificates and user from the server: leave --cacert, --cert, --key and --user out, or name the cluster by --endpoints alone")
	case (o.cert == "") != (o.key == ""):
		return usagef(cmd, "--cert and --key belong together: give both or none")
	}
	return nil
}

func zero(text string) bool {
	d, err := time.ParseDuration(text)
	return text == "0" || err == nil && d == 0
}

// share reads 0.1% or 0.001.
func share(text string) (float64, error) {
	number, percent := strings.CutSuffix(strings.TrimSpace(text), "%")
	v, err := strconv.ParseFloat(number, 64)
	if percent {
		v /= 100
	}
	return v, err
}

// goalOf is what --find-max keeps to.
func (*env) goalOf(cmd *cobra.Command, o *benchOptions) (bench.Goal, error) {
	g := bench.DefaultGoal()
	g.P99, g.Step, g.From = bench.Duration(o.p99), bench.Duration(o.step), o.from
	var err error
	if g.Errors, err = share(o.errors); err != nil || !(g.Errors >= 0 && g.Errors < 1) {
		return g, usagef(cmd, "--errors is %q: give a share such as 0.1%%", o.errors)
	}
	if o.p99 < time.Millisecond || o.step < time.Second || !(o.from >= 1) {
		return g, usagef(cmd, "--p99 %s, --step %s and --first-rate %g: give at least 1ms, 1s and 1", o.p99, o.step, o.from)
	}
	return g, nil
}

// passwordOf is the password of --user NAME.
func passwordOf(o *doctorOptions) (name, password string, err error) {
	name, password, given := strings.Cut(o.user, ":")
	switch {
	case name == "" || given:
	case o.passwordFile != "":
		raw, readErr := os.ReadFile(o.passwordFile)
		if readErr != nil {
			return "", "", readErr
		}
		password = strings.TrimRight(string(raw), "\r\n")
	default:
		password = os.Getenv(envEtcdPassword)
	}
	return name, password, nil
}
