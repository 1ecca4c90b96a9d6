package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// The load of all comparisons of load generators.
const (
	clients     = 64
	connections = 8
	keySize     = 48
	valueSize   = 256
	keySpace    = 10000
	requests    = 50000

	// The stall: so few clients that theirs can't see it in a thousand requests.
	stallClients = 8
	stallRate    = 1000
	stallLength  = 20 * time.Second
	stopped      = time.Second

	// key that ranges read; every lane has it.
	key = "perf"
)

// benchmark is etcd's own load generator.
var benchmark = peer{
	name: "benchmark", module: "go.etcd.io/etcd/v3", version: "v3.6.8", pkg: "go.etcd.io/etcd/v3/tools/benchmark",
}

const (
	throughput = "throughput"
	cpuTime    = "client CPU"
	p50        = "p50"
	p99        = "p99"
	p999       = "p99.9"
	slowest    = "slowest"
)

// closedLoop are the metrics and goals of the same load from both.
func closedLoop() []metric {
	return []metric{
		// The etcd is what both wait for, so that single runs differ more than they do.
		{throughput, "/s", &goal{"equal: medians within 5 %, interval reaches 1", func(m *measured) bool {
			return m.Ours.Median >= 0.95*m.Theirs.Median && m.High >= 1
		}}},
		{cpuTime, "µs", &goal{"ratio ≤ 1", func(m *measured) bool { return m.Ratio <= 1 }}},
		{p50, "ms", nil},
		{p99, "ms", nil},
		{p999, "ms", nil},
		{slowest, "ms", nil},
	}
}

func benchPut() comparison {
	return comparison{
		name: "bench-put", peer: benchmark, metrics: closedLoop(),
		claim: fmt.Sprintf("quorate bench and etcd's benchmark put in a closed loop: %d clients on %d connections, %d puts of %d bytes", clients, connections, requests, valueSize),
		ours: func(ctx context.Context, l *lane) (sample, error) {
			return l.quorateBench(ctx, nil, "--workload", "put", "--clients", strconv.Itoa(clients), "--connections", strconv.Itoa(connections),
				"--total", strconv.Itoa(requests), "--keys", strconv.Itoa(keySpace))
		},
		theirs: func(ctx context.Context, l *lane) (sample, error) {
			return l.benchmark(ctx, nil, requests, "put", "--clients", strconv.Itoa(clients), "--conns", strconv.Itoa(connections),
				"--key-size", strconv.Itoa(keySize), "--val-size", strconv.Itoa(valueSize), "--key-space-size", strconv.Itoa(keySpace))
		},
	}
}

func benchRange() comparison {
	return comparison{
		name: "bench-range", peer: benchmark, metrics: closedLoop(),
		claim: fmt.Sprintf("quorate bench and etcd's benchmark read one key linearizably in a closed loop: %d clients on %d connections, %d reads of %d bytes", clients, connections, requests, valueSize),
		ours: func(ctx context.Context, l *lane) (sample, error) {
			return l.quorateBench(ctx, nil, "--workload", "range", "--clients", strconv.Itoa(clients), "--connections", strconv.Itoa(connections),
				"--total", strconv.Itoa(requests), "--keys", "1")
		},
		theirs: func(ctx context.Context, l *lane) (sample, error) {
			return l.benchmark(ctx, nil, requests, "range", key, "--clients", strconv.Itoa(clients), "--conns", strconv.Itoa(connections), "--consistency", "l")
		},
	}
}

// benchStall has no goal for theirs but that it does not see what is there.
func benchStall() comparison {
	const total = stallRate * int(stallLength/time.Second)
	return comparison{
		name: "bench-stall", peer: benchmark,
		claim: fmt.Sprintf("etcd is stopped for %s under %d put/s for %s: quorate bench shows it, etcd's benchmark does not", stopped, stallRate, stallLength),
		metrics: []metric{
			{p999, "ms", &goal{"quorate ≥ 900, benchmark < 450", func(m *measured) bool { return m.Ours.Min >= 900 && m.Theirs.Median < 450 }}},
			{throughput, "/s", nil},
			{p50, "ms", nil},
			{p99, "ms", nil},
			{slowest, "ms", nil},
		},
		ours: func(ctx context.Context, l *lane) (sample, error) {
			return l.quorateBench(ctx, l.stall(stallLength/2, stopped), "--workload", "put", "--rate", strconv.Itoa(stallRate), "--arrivals", "constant",
				"--clients", strconv.Itoa(stallClients), "--connections", strconv.Itoa(stallClients), "--duration", stallLength.String(), "--keys", strconv.Itoa(keySpace))
		},
		theirs: func(ctx context.Context, l *lane) (sample, error) {
			return l.benchmark(ctx, l.stall(stallLength/2, stopped), total, "put", "--rate", strconv.Itoa(stallRate),
				"--clients", strconv.Itoa(stallClients), "--conns", strconv.Itoa(stallClients),
				"--key-size", strconv.Itoa(keySize), "--val-size", strconv.Itoa(valueSize), "--key-space-size", strconv.Itoa(keySpace))
		},
	}
}

// result is what is wanted of quorate bench's own.
type result struct {
	Total struct {
		Count        int64            `json:"count"`
		Errors       map[string]int64 `json:"errors"`
		OpsPerSecond float64          `json:"opsPerSecond"`
		Latency      struct {
			P50  float64 `json:"p50"`
			P99  float64 `json:"p99"`
			P999 float64 `json:"p999"`
			Max  float64 `json:"max"`
		} `json:"latency"`
	} `json:"total"`
}

// quorateBench runs ours. Its keys stay: the peer does not remove its own either.
func (l *lane) quorateBench(ctx context.Context, meanwhile func(context.Context) error, args ...string) (sample, error) {
	file := filepath.Join(l.dir, "result.json")
	args = append([]string{"bench", "--endpoints", l.endpoint, "--keep", "--save", file, "--key-size", strconv.Itoa(keySize), "--value-size", strconv.Itoa(valueSize)}, args...)
	run, err := l.program(ctx, meanwhile, l.quorate, args...)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var r result
	if err = json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("quorate bench's result: %w", err)
	}
	for kind, n := range r.Total.Errors {
		if n > 0 {
			return nil, fmt.Errorf("quorate bench met %d errors (%s)", n, kind)
		}
	}
	t := r.Total
	if t.Count == 0 {
		return nil, fmt.Errorf("quorate bench had no answer: %s", data[:min(len(data), 300)])
	}
	return sample{
		throughput: t.OpsPerSecond, cpuTime: perRequest(run.cpu, t.Count),
		p50: t.Latency.P50, p99: t.Latency.P99, p999: t.Latency.P999, slowest: t.Latency.Max,
	}, nil
}

// benchmark runs theirs.
func (l *lane) benchmark(ctx context.Context, meanwhile func(context.Context) error, total int, args ...string) (sample, error) {
	args = append(args, "--endpoints", l.endpoint, "--total", strconv.Itoa(total), "--precise")
	run, err := l.program(ctx, meanwhile, l.peer, args...)
	if err != nil {
		return nil, err
	}
	s, err := parseBenchmark(run.stdout)
	if err != nil {
		return nil, err
	}
	s[cpuTime] = perRequest(run.cpu, int64(total))
	return s, nil
}

// perRequest is in microseconds.
func perRequest(cpu time.Duration, count int64) float64 {
	return float64(cpu.Microseconds()) / float64(count)
}

// benchmarkLines are what etcd's benchmark says of its run, and what that is in the
// unit of the metric.
var benchmarkLines = []struct {
	metric string
	line   *regexp.Regexp
	factor float64
}{
	{throughput, regexp.MustCompile(`(?m)^\s*Requests/sec:\s+([0-9.e+-]+)\s*$`), 1},
	{slowest, regexp.MustCompile(`(?m)^\s*Slowest:\s+([0-9.e+-]+) secs\.\s*$`), 1000},
	{p50, regexp.MustCompile(`(?m)^\s*50% in ([0-9.e+-]+) secs\.\s*$`), 1000},
	{p99, regexp.MustCompile(`(?m)^\s*99% in ([0-9.e+-]+) secs\.\s*$`), 1000},
	{p999, regexp.MustCompile(`(?m)^\s*99\.9% in ([0-9.e+-]+) secs\.\s*$`), 1000},
}

var benchmarkErrors = regexp.MustCompile(`(?m)^Error distribution:\s*\n\s*(.+)$`)

func parseBenchmark(out []byte) (sample, error) {
	if found := benchmarkErrors.FindSubmatch(out); found != nil {
		return nil, fmt.Errorf("benchmark met errors: %s", found[1])
	}
	s := sample{}
	for _, l := range benchmarkLines {
		found := l.line.FindSubmatch(out)
		if found == nil {
			return nil, fmt.Errorf("benchmark does not tell its %s: %s", l.metric, out[max(0, len(out)-300):])
		}
		v, err := strconv.ParseFloat(string(found[1]), 64)
		if err != nil {
			return nil, fmt.Errorf("benchmark's %s: %w", l.metric, err)
		}
		s[l.metric] = v * l.factor
	}
	return s, nil
}
