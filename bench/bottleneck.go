package bench

import (
	"fmt"
	"slices"
)

// Limit is what kept a load from being carried faster.
type Limit string

// The limits.
const (
	LimitNone      Limit = "none"
	LimitSpace     Limit = "space"
	LimitErrors    Limit = "errors"
	LimitQueue     Limit = "raft-queue"
	LimitClientCPU Limit = "client-cpu"
	LimitHostCPU   Limit = "host-cpu"
	LimitServerCPU Limit = "server-cpu"
	LimitFsync     Limit = "disk-fsync"
	LimitCommit    Limit = "backend-commit"
	LimitApply     Limit = "apply"
	LimitNetwork   Limit = "network"
	LimitInFlight  Limit = "in-flight"
	LimitClients   Limit = "clients"
)

// Finding is the bottleneck of a run, what speaks for it, and what else came close.
type Finding struct {
	Limit   Limit  `json:"limit"`
	Summary string `json:"summary"`
	// Evidence are figures of the run.
	Evidence []string `json:"evidence,omitempty"`
	// Advice is what to change to get further.
	Advice string `json:"advice,omitempty"`
	// Others came close, too.
	Others []Finding `json:"others,omitempty"`
}

// From where on a means counts as used up. Processes are never scheduled perfectly,
// and a disk that fsyncs for more than half of the time makes requests queue.
const (
	cpuFull     = 0.85
	hostFull    = 0.93
	diskFull    = 0.55
	networkFull = 0.8
	errorsMany  = 0.01
	// lateMost is how many milliseconds late a request may begin, and lateShare how much
	// of the p99 that may be, before it is the client's own doing.
	lateMost  = 10
	lateShare = 0.3
)

// weighed is a finding and how far the means is used up, 1 being all of it.
type weighed struct {
	Finding

	weight float64
}

// Bottleneck names what limited a run, from its figures alone.
func Bottleneck(r *Result) Finding {
	found := slices.Concat(byErrors(r), byClient(r), byServers(r), byNetwork(r))
	slices.SortStableFunc(found, func(a, b weighed) int {
		switch {
		case a.weight > b.weight:
			return -1
		case a.weight < b.weight:
			return 1
		}
		return 0
	})
	if len(found) == 0 {
		return unlimited(r)
	}
	f := found[0].Finding
	for _, o := range found[1:] {
		f.Others = append(f.Others, o.Finding)
	}
	return f
}

// unlimited is what to say where no means was used up.
func unlimited(r *Result) Finding {
	if r.Spec.Loop == Open {
		return Finding{
			Limit: LimitNone, Summary: "none found: it carried what was asked of it",
			Evidence: []string{fmt.Sprintf("%d requests were due, %d were answered", r.Total.Count+r.Total.Errors.Total(), r.Total.Count)},
			Advice:   "raise --rate, or let --find-max look for the limit",
		}
	}
	return Finding{
		Limit: LimitClients, Summary: "the clients: each waits for its answer, and nothing else is used up",
		Evidence: []string{fmt.Sprintf("%d clients / %.2f ms a request = %.0f requests a second", r.Spec.clients(), r.Total.Latency.Mean, r.Total.OpsPerSecond)},
		Advice:   "add --clients until something else gives, or ask for a rate with --rate",
	}
}

// byErrors comes first: what is refused is not carried, whatever the reason.
func byErrors(r *Result) []weighed {
	e := r.Total.Errors
	sent := float64(r.Total.Count + e.Total())
	if sent == 0 {
		return nil
	}
	var found []weighed
	add := func(weight float64, l Limit, n int64, summary, advice string) {
		if n > 0 {
			found = append(found, weighed{Finding{
				Limit: l, Summary: summary, Advice: advice, Evidence: []string{fmt.Sprintf("%d of %.0f requests", n, sent)},
			}, weight})
		}
	}
	const first, second, third, fourth = 10, 9, 8, 0.5
	add(first, LimitSpace, e.NoSpace, "space: etcd refuses writes, since the database has reached its quota", "compact, defragment, raise the quota, then disarm the alarm")
	add(second, LimitQueue, e.TooManyRequests, "the raft queue: more is committed than applied, and etcd refuses writes", "lower the load: this is beyond what the members carry")
	if failed := e.Unavailable + e.ServerTimeouts + e.Unfinished + e.Other; float64(failed) > errorsMany*sent {
		add(third, LimitErrors, failed, "errors: the cluster did not serve all of the time", "see what the errors say; a leader that changes or a member that is down is not a limit of load")
	}
	// What made them pile up is the better answer, where it is known.
	add(fourth, LimitInFlight, e.Dropped, fmt.Sprintf("the bound of requests in flight: %d were under way when more were due", r.Spec.MaxInFlight),
		"the cluster does not carry this rate at this latency: lower --rate, or raise --max-in-flight to see how far the queue grows")
	return found
}

func byClient(r *Result) []weighed {
	c := r.Client
	var found []weighed
	cores := float64(max(c.Cores, 1))
	local := 0.0
	for i := range r.Servers {
		if r.Servers[i].Local {
			local += r.Servers[i].CoresUsed()
		}
	}
	own := 0.0
	if r.Seconds > 0 {
		own = c.CPUSeconds / r.Seconds
	}
	late := ""
	if c.Lag != nil && c.Lag.P99 > lateMost {
		late = fmt.Sprintf("requests began %.1f ms late at p99, since there was no CPU to send them", c.Lag.P99)
	}
	switch {
	case own/cores >= cpuFull:
		found = append(found, weighed{Finding{
			Limit: LimitClientCPU, Summary: "the CPU of the load's own host: it can't send more",
			Evidence: told(fmt.Sprintf("%.2f of %.0f cores used by the load", own, cores), fmt.Sprintf("%.1f µs of CPU a request", c.CPUPerRequest), late),
			Advice:   "drive the load from more machines, or from a larger one: these figures are the client's, not the cluster's",
		}, 2 + own/cores})
	case c.HostCPU >= hostFull:
		evidence := []string{fmt.Sprintf("the host is %.0f %% busy", 100*c.HostCPU), fmt.Sprintf("the load used %.2f of its cores", own)}
		if local > 0 {
			evidence = append(evidence, fmt.Sprintf("members on the same host used %.2f", local))
		}
		evidence = told(append(evidence, late)...)
		found = append(found, weighed{Finding{
			Limit: LimitHostCPU, Summary: "the CPU of the host, which the load shares with others", Evidence: evidence,
			Advice: "drive the load from another machine than the members'",
		}, 1.5 + c.HostCPU})
	case late != "" && c.Lag.P99 > lateShare*r.Total.Latency.P99:
		found = append(found, weighed{Finding{
			Limit: LimitClientCPU, Summary: "the load's own host: it sends late, at moments that the average hides", Evidence: []string{late},
			Advice: "drive the load from a quieter machine: part of these latencies is its own",
		}, 1.4})
	}
	return found
}

// told leaves out what is empty.
func told(list ...string) []string {
	return slices.DeleteFunc(list, func(s string) bool { return s == "" })
}

func byServers(r *Result) []weighed {
	var found []weighed
	for i := range r.Servers {
		u := &r.Servers[i]
		if u.Seconds <= 0 {
			continue
		}
		who := u.Name
		if who == "" {
			who = u.Endpoint
		}
		if u.Leader {
			who += " (leader)"
		}
		if used := u.CoresUsed(); u.Cores > 0 && used/float64(u.Cores) >= cpuFull {
			found = append(found, weighed{Finding{
				Limit: LimitServerCPU, Summary: "the CPU of " + who, Evidence: []string{fmt.Sprintf("%.2f of %d cores", used, u.Cores)},
				Advice: "give the member more cores, or spread reads over the members",
			}, 1 + used/float64(u.Cores)})
		}
		for _, t := range []struct {
			limit   Limit
			t       Timing
			summary string
			advice  string
		}{
			{LimitFsync, u.Fsync, "the disk of " + who + ": writes wait for fsync of the WAL", "a disk with faster fsync, of its own for the WAL; or more clients, since those that wait share one fsync"},
			{LimitCommit, u.Commit, "the disk of " + who + ": commits of the backend", "a faster disk, or less and smaller values"},
			{LimitApply, u.Apply, "applying at " + who, "smaller transactions and ranges, or a faster core: it is done one after another"},
		} {
			if t.t.Busy < diskFull {
				continue
			}
			found = append(found, weighed{Finding{
				Limit: t.limit, Summary: t.summary, Advice: t.advice,
				Evidence: []string{fmt.Sprintf("it goes on for %.0f %% of the time, %.2f ms each, p99 %.1f ms", 100*min(t.t.Busy, 1), t.t.Mean, t.t.P99)},
			}, min(t.t.Busy, 1)})
		}
	}
	return found
}

func byNetwork(r *Result) []weighed {
	c := r.Client
	if c.LinkBytes <= 0 || r.Seconds <= 0 {
		return nil
	}
	rate := float64(max(c.Sent, c.Received)) / r.Seconds
	if rate/c.LinkBytes < networkFull {
		return nil
	}
	return []weighed{{Finding{
		Limit: LimitNetwork, Summary: "the network card of the load's own host",
		Evidence: []string{fmt.Sprintf("%.0f of %.0f MB/s", rate/1e6, c.LinkBytes/1e6)},
		Advice:   "drive the load from more machines, or over a faster card",
	}, 1.2 + rate/c.LinkBytes}}
}
