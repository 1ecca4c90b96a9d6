// Package preflight checks whether a machine is fit for etcd: its disk as etcd's log
// would find it, its clock, its limits, its network. Each check is a pure function of
// what a Probe measured; Machine is the Probe of the machine that this process runs on.
//
// Checks do no harm: they write at most 32 MiB into one file that they remove, in
// pieces that are synced one by one so that nobody waits long behind them, take about
// five seconds at most, and open no port. Light ones, for a disk that members use, write
// at most 4 MiB and leave the disk a pause after each sync.
package preflight

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
)

// Options say what is checked.
type Options struct {
	// Dir is the directory of the members. Where it does not exist yet, the nearest one
	// above it stands for it.
	Dir string
	// Address is the IP address that members listen on; empty leaves its check out.
	Address string
	// FirstPort is where members' ports begin. Default: 2379.
	FirstPort int
	// Peers are addresses, ADDRESS or ADDRESS:PORT, to measure round trips to; the port
	// is 2380 by default. None leaves the check out.
	Peers []string
	// Heartbeat and Election are those of the etcd that is to run. Default: etcd's own.
	Heartbeat, Election time.Duration
	// Ephemeral accepts a directory in memory: what lies there is meant to be lost.
	Ephemeral bool
	// Light spares the disk, where members run on it.
	Light bool
	// ServerTime reads the clock of the server; nil leaves the check out.
	ServerTime func(ctx context.Context) (Reading, error)
}

// Reading is one look at another clock.
type Reading struct {
	// Offset is how far this clock is ahead of the other one; negative behind it.
	Offset time.Duration
	// Error bounds how wrong Offset may be: half the round trip.
	Error time.Duration
}

// Names of the checks.
const (
	FsyncLatency   = "fsync-latency"
	DiskThroughput = "disk-throughput"
	DiskSpace      = "disk-space"
	DiskInodes     = "disk-inodes"
	DiskKind       = "disk-kind"
	DiskShared     = "disk-shared"
	ClockOffset    = "clock-offset"
	ClockSync      = "clock-sync"
	OpenFiles      = "open-files"
	Swap           = "swap"
	HugePages      = "huge-pages"
	Ports          = "ports"
	OtherEtcd      = "other-etcd"
	Address        = "address"
	PeerRoundTrips = "peer-round-trips"
	CPUs           = "cpus"
	Memory         = "memory"
	Kernel         = "kernel"
)

// patience bounds all checks together.
const patience = 6 * time.Second

// check is one line of the report.
type check struct {
	name string
	// needed: where it is Unknown, so is whether the host is fit.
	needed bool
	// where is false for what the options leave out; nil is true.
	where func(o *Options) bool
	run   func(ctx context.Context, x *exam) result
}

// result is what a check found. Message and fix are empty with Pass.
type result struct {
	verdict             v1alpha1.Verdict
	value, message, fix string
}

// checks are all there are, in the order of the report.
var checks = []check{
	{name: FsyncLatency, needed: true, run: checkFsync},
	{name: DiskThroughput, run: checkThroughput},
	{name: DiskSpace, needed: true, run: checkSpace},
	{name: DiskInodes, needed: true, run: checkInodes},
	{name: DiskKind, needed: true, run: checkKind},
	{name: DiskShared, run: checkShared},
	{name: ClockOffset, needed: true, where: func(o *Options) bool { return o.ServerTime != nil }, run: checkOffset},
	{name: ClockSync, run: checkSync},
	{name: PeerRoundTrips, where: func(o *Options) bool { return len(o.Peers) > 0 }, run: checkPeers},
	{name: Address, needed: true, where: func(o *Options) bool { return o.Address != "" }, run: checkAddress},
	{name: Ports, run: checkPorts},
	{name: OtherEtcd, run: checkOthers},
	{name: OpenFiles, needed: true, run: checkOpenFiles},
	{name: CPUs, run: checkCPUs},
	{name: Memory, run: checkMemory},
	{name: Swap, run: checkSwap},
	{name: HugePages, run: checkHugePages},
	{name: Kernel, run: checkKernel},
}

// exam is what the checks of one run share.
type exam struct {
	probe Probe
	opts  Options

	// of the directory, or why it can't be told.
	fs    Filesystem
	fsErr error
	// etcds that run on the machine.
	etcds    []Etcd
	etcdsErr error
}

// Run makes all checks, in a fixed order; it ends within about six seconds, also
// where the disk or a peer never answers.
func Run(ctx context.Context, p Probe, o Options) []v1alpha1.HostCheck {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	x := &exam{probe: p, opts: o.withDefaults()}
	x.fs, x.fsErr = p.Filesystem(ctx, o.Dir)
	x.etcds, x.etcdsErr = p.Etcds()
	results := make([]*result, len(checks))
	var wg sync.WaitGroup
	do := func(names ...string) {
		wg.Go(func() {
			for i, c := range checks {
				if slices.Contains(names, c.name) && (c.where == nil || c.where(&x.opts)) {
					r := c.run(ctx, x)
					results[i] = &r
				}
			}
		})
	}
	// One after the other, since they measure the same disk; what waits for the network
	// waits beside them.
	do(FsyncLatency, DiskThroughput)
	do(ClockOffset)
	do(PeerRoundTrips)
	do(DiskSpace, DiskInodes, DiskKind, DiskShared, ClockSync, Address, Ports, OtherEtcd, OpenFiles, CPUs, Memory, Swap, HugePages, Kernel)
	wg.Wait()
	var list []v1alpha1.HostCheck
	for i, r := range results {
		if r != nil {
			list = append(list, v1alpha1.HostCheck{
				Name: checks[i].name, Verdict: r.verdict, Value: r.value, Threshold: x.opts.threshold(checks[i].name), Message: r.message, Fix: r.fix,
			})
		}
	}
	return list
}

func (o Options) withDefaults() Options {
	if o.FirstPort == 0 {
		o.FirstPort = firstPort
	}
	if o.Heartbeat == 0 {
		o.Heartbeat = heartbeat
	}
	if o.Election == 0 {
		o.Election = election
	}
	return o
}

// Verdict is the worst of the checks as far as a host is fit by them: Fail where one
// fails, Unknown where one that a host needs could not be made, else Pass or Warn.
func Verdict(list []v1alpha1.HostCheck) v1alpha1.Verdict {
	worst := v1alpha1.VerdictPass
	for i := range list {
		v := list[i].Verdict
		if v == v1alpha1.VerdictUnknown && !needed(list[i].Name) {
			v = v1alpha1.VerdictWarn
		}
		if rank(v) > rank(worst) {
			worst = v
		}
	}
	return worst
}

func rank(v v1alpha1.Verdict) int {
	return slices.Index([]v1alpha1.Verdict{v1alpha1.VerdictPass, v1alpha1.VerdictWarn, v1alpha1.VerdictUnknown, v1alpha1.VerdictFail}, v)
}

func needed(name string) bool {
	i := slices.IndexFunc(checks, func(c check) bool { return c.name == name })
	return i < 0 || checks[i].needed
}

// Failing are the checks that fail.
func Failing(list []v1alpha1.HostCheck) []v1alpha1.HostCheck {
	return slices.DeleteFunc(slices.Clone(list), func(c v1alpha1.HostCheck) bool { return c.Verdict != v1alpha1.VerdictFail })
}

// Why says in one line what is wrong by the checks given, and what to do.
func Why(list []v1alpha1.HostCheck) string {
	parts := make([]string, 0, len(list))
	for _, c := range list {
		text := c.Name + ": " + c.Message
		if c.Fix != "" {
			text += ": " + c.Fix
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

// Reasons of the condition Fit, beside the names of the checks that fail.
const (
	ReasonFit = "ChecksPass"
	// ReasonAllowed: checks fail, and the agent was told to take members all the same.
	ReasonAllowed = "UnfitAllowed"
)

// Condition is Fit, as the checks have it: its reason names those that fail. Allowed
// says that the host takes members all the same.
func Condition(list []v1alpha1.HostCheck, allowed bool) v1alpha1.Condition {
	c := v1alpha1.Condition{Type: v1alpha1.ConditionFit, Status: v1alpha1.True, Reason: ReasonFit}
	var those []v1alpha1.HostCheck
	switch Verdict(list) {
	case v1alpha1.VerdictFail:
		those = Failing(list)
		c.Status = v1alpha1.False
	case v1alpha1.VerdictUnknown:
		for _, l := range list {
			if l.Verdict == v1alpha1.VerdictUnknown && needed(l.Name) {
				those = append(those, l)
			}
		}
		c.Status = v1alpha1.Unknown
	default:
		return c
	}
	names := make([]string, 0, len(those))
	for _, l := range those {
		names = append(names, camel(l.Name))
	}
	c.Reason, c.Message = strings.Join(names, ","), Why(those)
	if allowed && c.Status == v1alpha1.False {
		c.Status, c.Reason = v1alpha1.True, ReasonAllowed
		c.Message = "members come all the same, as its agent was told (--allow-unfit): " + c.Message
	}
	return c
}

// camel writes a name as reasons are written: fsync-latency is FsyncLatency.
func camel(name string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(name, "-") {
		b.WriteString(strings.ToUpper(part[:1]) + part[1:])
	}
	return b.String()
}
