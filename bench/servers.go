package bench

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ServerUsage is what one member did meanwhile.
type ServerUsage struct {
	Endpoint string `json:"endpoint"`
	Name     string `json:"name,omitempty"`
	ID       string `json:"id"`
	Version  string `json:"version,omitempty"`
	Leader   bool   `json:"leader"`
	// Local: it runs on the host that the load came from.
	Local bool `json:"local,omitempty"`
	// Unread says why its metrics are not here. Empty where they are.
	Unread string `json:"unread,omitempty"`
	// Seconds between the first reading and the last.
	Seconds float64 `json:"seconds"`
	// CPUSeconds, from "metrics" or "proc"; Cores that it may use, 0 unknown.
	CPUSeconds float64 `json:"cpuSeconds"`
	CPUSource  string  `json:"cpuSource,omitempty"`
	Cores      int     `json:"cores,omitempty"`
	// Bytes to and from clients and peers.
	ClientSent     int64 `json:"clientSentBytes"`
	ClientReceived int64 `json:"clientReceivedBytes"`
	PeerSent       int64 `json:"peerSentBytes"`
	PeerReceived   int64 `json:"peerReceivedBytes"`
	// Fsync of the WAL, Commit of the backend, Apply of entries.
	Fsync  Timing `json:"fsync"`
	Commit Timing `json:"commit"`
	Apply  Timing `json:"apply"`
	// Sizes of the database in bytes.
	DBSizeBefore int64 `json:"dbSizeBefore"`
	DBSize       int64 `json:"dbSize"`
	DBInUse      int64 `json:"dbInUse"`
	// LeaderChanges that it saw; PendingMax proposals; Failed proposals; SlowApplies.
	LeaderChanges int64 `json:"leaderChanges"`
	PendingMax    int64 `json:"pendingMax"`
	Failed        int64 `json:"failedProposals"`
	SlowApplies   int64 `json:"slowApplies"`
	RSSMax        int64 `json:"rssMaxBytes"`
	Restarts      int   `json:"restarts,omitempty"`
}

// Timing is what something took, in milliseconds, within the buckets of the server's
// own histogram.
type Timing struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	// Busy is the share of the time that it went on, 0 to 1; of what goes on once at a
	// time, such as fsync, no more than 1 is possible.
	Busy float64 `json:"busy"`
}

// Names of the metrics that are read.
const (
	metricCPU        = "process_cpu_seconds_total"
	metricStarted    = "process_start_time_seconds"
	metricRSS        = "process_resident_memory_bytes"
	metricProcs      = "go_sched_gomaxprocs_threads"
	metricSent       = "etcd_network_client_grpc_sent_bytes_total"
	metricReceived   = "etcd_network_client_grpc_received_bytes_total"
	metricPeerSent   = "etcd_network_peer_sent_bytes_total"
	metricPeerGot    = "etcd_network_peer_received_bytes_total"
	metricDBSize     = "etcd_mvcc_db_total_size_in_bytes"
	metricDBInUse    = "etcd_mvcc_db_total_size_in_use_in_bytes"
	metricLeaders    = "etcd_server_leader_changes_seen_total"
	metricPending    = "etcd_server_proposals_pending"
	metricFailed     = "etcd_server_proposals_failed_total"
	metricSlowApply  = "etcd_server_slow_apply_total"
	metricFsync      = "etcd_disk_wal_fsync_duration_seconds"
	metricCommit     = "etcd_disk_backend_commit_duration_seconds"
	metricApply      = "etcd_server_apply_duration_seconds"
	suffixBucket     = "_bucket"
	suffixSum        = "_sum"
	suffixCount      = "_count"
	longestMetric    = 1 << 16
	labelUpper       = `le="`
	percentile99     = 0.99
	percentile50     = 0.5
	thousandthsOfOne = 1000
)

var (
	wantedValues = []string{
		metricCPU, metricStarted, metricRSS, metricProcs, metricSent, metricReceived, metricPeerSent, metricPeerGot,
		metricDBSize, metricDBInUse, metricLeaders, metricPending, metricFailed, metricSlowApply,
	}
	wantedHistograms = []string{metricFsync, metricCommit, metricApply}
)

// reading is what the metrics of a member say at one moment.
type reading struct {
	at      time.Time
	started float64
	// values are summed over their labels, histograms, too.
	values     map[string]float64
	histograms map[string]*buckets
}

// buckets of a histogram: how many were at most so long, in seconds.
type buckets struct {
	upTo       map[float64]float64
	sum, count float64
}

// parseReading takes the wanted lines out of the text form, which has some 1,500.
func parseReading(r io.Reader) (*reading, error) {
	out := &reading{at: time.Now(), values: map[string]float64{}, histograms: map[string]*buckets{}}
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, longestMetric)
	for scanner.Scan() {
		line := scanner.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		end := strings.IndexAny(line, "{ ")
		if end < 0 {
			continue
		}
		name := line[:end]
		labels, rest := "", line[end:]
		if rest[0] == '{' {
			closing := strings.LastIndexByte(rest, '}')
			if closing < 0 {
				continue
			}
			labels, rest = rest[:closing], rest[closing+1:]
		}
		first, _, _ := strings.Cut(strings.TrimSpace(rest), " ") // a timestamp may follow
		if slices.Contains(wantedValues, name) {
			if v, err := strconv.ParseFloat(first, 64); err == nil {
				out.values[name] += v
			}
			continue
		}
		out.histogram(name, labels, first)
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	if len(out.values) == 0 {
		return nil, errors.New("what answers has none of etcd's metrics")
	}
	out.started = out.values[metricStarted]
	return out, nil
}

func (r *reading) histogram(name, labels, value string) {
	for _, base := range wantedHistograms {
		suffix, ok := strings.CutPrefix(name, base)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return
		}
		b := r.histograms[base]
		if b == nil {
			b = &buckets{upTo: map[float64]float64{}}
			r.histograms[base] = b
		}
		switch suffix {
		case suffixSum:
			b.sum += v
		case suffixCount:
			b.count += v
		case suffixBucket:
			_, le, _ := strings.Cut(labels, labelUpper)
			le, _, _ = strings.Cut(le, `"`)
			if bound, err := strconv.ParseFloat(le, 64); err == nil {
				b.upTo[bound] += v
			}
		}
		return
	}
}

// fill takes what went on between two readings.
func (u *ServerUsage) fill(first, last *reading) {
	u.Seconds = last.at.Sub(first.at).Seconds()
	delta := func(name string) float64 { return max(last.values[name]-first.values[name], 0) }
	u.CPUSeconds, u.CPUSource, u.Cores = delta(metricCPU), "metrics", int(last.values[metricProcs])
	u.ClientSent, u.ClientReceived = int64(delta(metricSent)), int64(delta(metricReceived))
	u.PeerSent, u.PeerReceived = int64(delta(metricPeerSent)), int64(delta(metricPeerGot))
	u.DBSizeBefore, u.DBSize, u.DBInUse = int64(first.values[metricDBSize]), int64(last.values[metricDBSize]), int64(last.values[metricDBInUse])
	u.LeaderChanges, u.Failed, u.SlowApplies = int64(delta(metricLeaders)), int64(delta(metricFailed)), int64(delta(metricSlowApply))
	u.Fsync = timing(first, last, metricFsync, u.Seconds)
	u.Commit = timing(first, last, metricCommit, u.Seconds)
	u.Apply = timing(first, last, metricApply, u.Seconds)
}

func timing(first, last *reading, name string, seconds float64) Timing {
	now, before := last.histograms[name], first.histograms[name]
	if now == nil {
		return Timing{}
	}
	if before == nil {
		before = &buckets{}
	}
	count, sum := now.count-before.count, now.sum-before.sum
	if count <= 0 {
		return Timing{}
	}
	since := map[float64]float64{}
	for bound, n := range now.upTo {
		since[bound] = n - before.upTo[bound]
	}
	t := Timing{
		Count: int64(count), Mean: sum / count * thousandthsOfOne,
		P50: quantileOf(since, count, percentile50) * thousandthsOfOne, P99: quantileOf(since, count, percentile99) * thousandthsOfOne,
	}
	if seconds > 0 {
		t.Busy = sum / seconds
	}
	return t
}

// quantileOf lies somewhere within the bucket that it falls in: as far as its rank
// is within that bucket.
func quantileOf(upTo map[float64]float64, count, share float64) float64 {
	bounds := make([]float64, 0, len(upTo))
	for b := range upTo {
		bounds = append(bounds, b)
	}
	slices.Sort(bounds)
	rank := share * count
	below, from := 0.0, 0.0
	for _, b := range bounds {
		if n := upTo[b]; n >= rank {
			if math.IsInf(b, 1) || n == below {
				return from
			}
			return from + (b-from)*(rank-below)/(n-below)
		}
		below, from = upTo[b], b
	}
	return from
}

// CoresUsed is how many cores it used on average.
func (u *ServerUsage) CoresUsed() float64 {
	if u.Seconds <= 0 {
		return 0
	}
	return u.CPUSeconds / u.Seconds
}

// Loopback reports whether an endpoint is on this machine, as its address says.
func Loopback(endpoint string) bool {
	host := endpoint
	if u, err := url.Parse(endpoint); err == nil && u.Host != "" {
		host = u.Hostname()
	}
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
