package bench

import (
	"fmt"
	"math"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// Format is the version of a Result's JSON.
const Format = 1

// Result is what a load did and met.
type Result struct {
	Format int `json:"format"`
	// Name is free text; Command is how it was started.
	Name    string   `json:"name,omitempty"`
	Command []string `json:"command,omitempty"`
	// Spec that was run, without secrets.
	Spec      Spec      `json:"spec"`
	StartedAt time.Time `json:"startedAt"`
	// Seconds that were measured.
	Seconds float64 `json:"seconds"`
	// Interrupted: it was ended before its time.
	Interrupted bool `json:"interrupted,omitempty"`
	// Hosts that drove the load.
	Hosts    []string `json:"hosts,omitempty"`
	Versions Versions `json:"versions"`

	// Total is over all requests, Operations by their kind.
	Total      Measure   `json:"total"`
	Operations []Measure `json:"operations"`
	// Deliveries of watch events, from when the put was due.
	Watch *WatchMeasure `json:"watch,omitempty"`
	// ErrorTexts are what errors said, most frequent first.
	ErrorTexts []ErrorText `json:"errorTexts,omitempty"`
	// Series over time.
	Series []Slice `json:"series"`

	Client     ClientUsage   `json:"client"`
	Servers    []ServerUsage `json:"servers,omitempty"`
	Bottleneck Finding       `json:"bottleneck"`
	// Notes are what a reader should know: endpoints left out, metrics unread.
	Notes   []string `json:"notes,omitempty"`
	Cleanup Cleanup  `json:"cleanup"`
}

// Versions of all that took part.
type Versions struct {
	Quorate string   `json:"quorate"`
	Go      string   `json:"go"`
	Etcd    []string `json:"etcd,omitempty"`
}

// ErrorText is what an error said, and how often.
type ErrorText struct {
	Text  string `json:"text"`
	Count int64  `json:"count"`
}

// Measure is what requests of one kind took.
type Measure struct {
	Name string `json:"name"`
	// Count of requests that were answered, Errors of those that failed.
	Count  int64       `json:"count"`
	Errors ErrorCounts `json:"errors"`
	// Conflicts are transactions whose condition did not hold; they are answers.
	Conflicts    int64   `json:"conflicts,omitempty"`
	OpsPerSecond float64 `json:"opsPerSecond"`
	Latency      Latency `json:"latency"`
	// Histogram of latencies in microseconds, errors too, in HdrHistogram's compressed
	// V2 form.
	Histogram []byte `json:"histogram,omitempty"`
}

// Latency in milliseconds. That of requests that failed is in it: a timeout is no
// fast answer.
type Latency struct {
	Mean  float64 `json:"mean"`
	Min   float64 `json:"min"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p999"`
	P9999 float64 `json:"p9999"`
	Max   float64 `json:"max"`
}

// Slice is one step of the time series.
type Slice struct {
	// At is when it ended, in seconds since the measurement began, and Seconds its length.
	At      float64 `json:"at"`
	Seconds float64 `json:"seconds"`
	Count   int64   `json:"count"`
	Errors  int64   `json:"errors"`
	// OpsPerSecond, and latencies in milliseconds.
	OpsPerSecond float64 `json:"opsPerSecond"`
	P50          float64 `json:"p50"`
	P99          float64 `json:"p99"`
	Max          float64 `json:"max"`
	// InFlight at its end.
	InFlight  int64  `json:"inFlight"`
	Histogram []byte `json:"histogram,omitempty"`
}

// WatchMeasure is what watchers saw.
type WatchMeasure struct {
	Watchers int `json:"watchers"`
	// Expected events of acknowledged writes, Delivered and Missing ones; events of
	// writes without an answer may come on top.
	Expected  int64 `json:"expected"`
	Delivered int64 `json:"delivered"`
	Missing   int64 `json:"missing"`
	// Reconnects: a stream broke and was resumed.
	Reconnects   int64   `json:"reconnects"`
	PerSecond    float64 `json:"perSecond"`
	Latency      Latency `json:"latency"`
	Histogram    []byte  `json:"histogram,omitempty"`
	Undetermined int64   `json:"undetermined,omitempty"`
}

// ClientUsage is what the load cost where it came from.
type ClientUsage struct {
	// CPUSeconds of this process while it was measured; Cores that it had.
	CPUSeconds float64 `json:"cpuSeconds"`
	Cores      int     `json:"cores"`
	// CPUPerRequest in microseconds.
	CPUPerRequest float64 `json:"cpuPerRequestMicros"`
	// HostCPU is the share of the machine that all processes took, 0 to 1; -1 unknown.
	HostCPU  float64 `json:"hostCPU"`
	Sent     int64   `json:"sentBytes"`
	Received int64   `json:"receivedBytes"`
	// Lag is how late requests of an open loop began.
	Lag         *Latency `json:"lag,omitempty"`
	MaxInFlight int64    `json:"maxInFlight"`
	// LinkBytes per second of the slowest network card that is up; 0 unknown, or loopback.
	LinkBytes float64 `json:"linkBytesPerSecond,omitempty"`
}

// Cleanup is what became of the keys.
type Cleanup struct {
	Prefix  string `json:"prefix"`
	Kept    bool   `json:"kept,omitempty"`
	Deleted int64  `json:"deleted"`
	// Revoked leases.
	Revoked int64 `json:"revoked,omitempty"`
	// Error says why keys are left.
	Error string `json:"error,omitempty"`
}

// Histograms hold microseconds, 1 µs to 60 s, with three digits.
const (
	histogramMax    = 60_000_000
	histogramDigits = 3
)

func newHistogram() *hdr.Histogram { return hdr.New(1, histogramMax, histogramDigits) }

func latencyOf(h *hdr.Histogram) Latency {
	if h == nil || h.TotalCount() == 0 {
		return Latency{}
	}
	v := h.ValueAtPercentilesSlice([]float64{50, 90, 99, 99.9, 99.99})
	ms := func(us int64) float64 { return float64(us) / 1000 }
	return Latency{
		Mean: math.Round(h.Mean()) / 1000, Min: ms(h.Min()), P50: ms(v[0]), P90: ms(v[1]), P99: ms(v[2]), P999: ms(v[3]), P9999: ms(v[4]), Max: ms(h.Max()),
	}
}

func encode(h *hdr.Histogram) ([]byte, error) {
	if h == nil || h.TotalCount() == 0 {
		return nil, nil
	}
	raw, err := h.Encode(hdr.V2CompressedEncodingCookieBase)
	if err != nil {
		return nil, fmt.Errorf("encode a histogram: %w", err)
	}
	return raw, nil
}

// Decode reads a histogram of a Result: microseconds. None is an empty one.
func Decode(raw []byte) (*hdr.Histogram, error) {
	if len(raw) == 0 {
		return newHistogram(), nil
	}
	h, err := hdr.Decode(raw)
	if err != nil {
		return nil, fmt.Errorf("decode a histogram: %w", err)
	}
	return h, nil
}

// measure fills in what follows from counts and a histogram.
func (m *Measure) measure(h *hdr.Histogram, seconds float64) error {
	m.Latency = latencyOf(h)
	if seconds > 0 {
		m.OpsPerSecond = float64(m.Count) / seconds
	}
	var err error
	m.Histogram, err = encode(h)
	return err
}

// ErrorRate is the share of requests that failed, 0 to 1.
func (m *Measure) ErrorRate() float64 {
	failed := m.Errors.Total()
	if m.Count+failed == 0 {
		return 0
	}
	return float64(failed) / float64(m.Count+failed)
}
