package report

import (
	"bytes"
	"encoding/csv"
	"errors"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	hdr "github.com/HdrHistogram/hdrhistogram-go"

	"github.com/quorate/quorate/bench"
)

// sample is a result with something in every field, and hostile text in each that
// comes from elsewhere.
func sample(t *testing.T, slices int) *bench.Result {
	t.Helper()
	const hostile = `<script>alert("x")</script>`
	h := hdr.New(1, 60_000_000, 3)
	for i := range int64(10000) {
		if err := h.RecordValue(500 + i%5000); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := h.Encode(hdr.V2CompressedEncodingCookieBase)
	if err != nil {
		t.Fatal(err)
	}
	r := &bench.Result{
		Format: bench.Format, Name: hostile, Command: []string{"quorate", "bench", hostile}, Spec: bench.Default(), StartedAt: time.Unix(1e9, 0).UTC(), Seconds: 10,
		Interrupted: true, Hosts: []string{"a", "b"}, Versions: bench.Versions{Quorate: "v1", Go: "go1", Etcd: []string{"3.7.3"}},
		ErrorTexts: []bench.ErrorText{{Text: hostile, Count: 3}}, Notes: []string{hostile},
		Watch:      &bench.WatchMeasure{Watchers: 5, Expected: 10, Delivered: 9, Missing: 1, Histogram: raw},
		Bottleneck: bench.Finding{Limit: bench.LimitFsync, Summary: "the disk " + hostile, Evidence: []string{"90 %"}, Advice: "buy", Others: []bench.Finding{{Summary: "cpu"}}},
		Cleanup:    bench.Cleanup{Prefix: "/p/", Error: "keys are left " + hostile},
		Servers:    []bench.ServerUsage{{Endpoint: "http://x", Name: hostile, Leader: true, Seconds: 10, CPUSeconds: 5, CPUSource: "metrics", Cores: 4}, {Endpoint: "http://y", Unread: "refused"}},
	}
	r.Spec.Endpoints = []string{"http://127.0.0.1:2379"}
	m := bench.Measure{
		Name: "put", Count: 1234567, OpsPerSecond: 1234.5, Conflicts: 4, Errors: bench.ErrorCounts{ClientTimeouts: 2, Dropped: 1}, Histogram: raw,
		Latency: bench.Latency{Mean: 1.5, P50: 1.2, P90: 3, P99: 12.345, P999: 123.4, Max: 4321},
	}
	r.Operations, r.Total = []bench.Measure{m, m}, m
	r.Client = bench.ClientUsage{CPUSeconds: 3, Cores: 2, HostCPU: 0.5, Lag: &bench.Latency{P99: 1, Max: 2}}
	for i := range slices {
		v := 1000 + 500*math.Sin(float64(i)/5)
		r.Series = append(r.Series, bench.Slice{At: float64(i + 1), Seconds: 1, Count: int64(v), OpsPerSecond: v, P50: 1, P99: 20, Max: 100 + v/10})
	}
	return r
}

func knee(t *testing.T) *bench.Knee {
	t.Helper()
	return &bench.Knee{
		Goal: bench.DefaultGoal(), Rate: 1000, Beyond: 2000, Best: sample(t, 5), Broken: sample(t, 5),
		Steps: []bench.Step{{Rate: 1000, P99: 5, Kept: true}, {Rate: 4000, P99: 900}, {Rate: 2000, P99: 90, Why: "slow"}},
	}
}

func matrix(t *testing.T) *bench.Matrix {
	t.Helper()
	return &bench.Matrix{Scale: 100, Rows: []bench.MatrixRow{{Cell: bench.Cell{Namespaces: 8, Clients: 8000}, Clients: 80, Result: sample(t, 5)}}}
}

// TestText: no line is wider than the terminal, whatever its width.
func TestText(t *testing.T) {
	for _, width := range []int{0, 200, 80, 60} {
		for _, slices := range []int{1, 2, 10, 300, 5000} {
			var out bytes.Buffer
			if err := Text(&out, sample(t, slices), Style{Width: width}); err != nil {
				t.Fatal(err)
			}
			text := out.String()
			for _, want := range []string{"put, closed loop", "(interrupted)", "1,235", "client timeout 2, dropped 1", "the disk", "keys are left", "1 missing"} {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in\n%s", want, text)
				}
			}
			for line := range strings.Lines(text) {
				limit := width
				if width == 0 {
					limit = usualWidth
				}
				if drawn := strings.ContainsAny(line, "│└"); drawn && utf8.RuneCountInString(strings.TrimSpace(line)) > limit {
					t.Errorf("width %d: %q", width, line)
				}
			}
		}
	}
}

func TestTextIsPainted(t *testing.T) {
	var out bytes.Buffer
	painted := map[string]bool{}
	err := Text(&out, sample(t, 5), Style{Paint: func(name, text string) string { painted[name] = true; return text }})
	if err != nil || !painted["bold"] || !painted["dim"] || !painted["warn"] || !painted["bad"] {
		t.Errorf("%v %v", painted, err)
	}
}

func TestOtherTexts(t *testing.T) {
	for want, write := range map[string]func(*bytes.Buffer) error{
		"1,000 requests a second keep to p99 ≤ 50ms": func(b *bytes.Buffer) error { return TextKnee(b, knee(t), Style{}) },
		"not even 2 requests a second": func(b *bytes.Buffer) error {
			return TextKnee(b, &bench.Knee{Goal: bench.DefaultGoal(), Beyond: 2, Broken: sample(t, 1)}, Style{})
		},
		"scale 1:100": func(b *bytes.Buffer) error { return TextMatrix(b, matrix(t), Style{}) },
		"-20.0 %": func(b *bytes.Buffer) error {
			return TextCompare(b, &bench.Comparison{Metrics: []bench.Change{{Name: "throughput", Base: 100, With: 80, Delta: -0.2, Significant: true, Worse: true}, {Name: "p50"}}}, Style{})
		},
		"no significant change": func(b *bytes.Buffer) error {
			return TextCompare(b, &bench.Comparison{Metrics: []bench.Change{{Name: "p50"}}, Warnings: []string{"x"}}, Style{})
		},
	} {
		var out bytes.Buffer
		if err := write(&out); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%v: no %q in\n%s", err, want, out.String())
		}
	}
}

// TestHTML: a page needs nothing from elsewhere, runs nothing, and takes no text for
// its own.
func TestHTML(t *testing.T) {
	for name, write := range map[string]func(*bytes.Buffer) error{
		"run":    func(b *bytes.Buffer) error { return HTML(b, sample(t, 300)) },
		"one":    func(b *bytes.Buffer) error { return HTML(b, sample(t, 1)) },
		"knee":   func(b *bytes.Buffer) error { return KneeHTML(b, knee(t)) },
		"matrix": func(b *bytes.Buffer) error { return MatrixHTML(b, matrix(t)) },
	} {
		var out bytes.Buffer
		if err := write(&out); err != nil {
			t.Fatal(err)
		}
		text := out.String()
		for _, bad := range []string{"<script", "<link", "@import", "url(", "src=", "href=", "NaN", "Inf", "%!"} {
			if strings.Contains(text, bad) {
				t.Errorf("%s holds %s", name, bad)
			}
		}
		if !strings.Contains(text, "&lt;script&gt;") || strings.Count(text, "<svg") < 2 || !strings.Contains(text, "prefers-color-scheme: dark") {
			t.Errorf("%s: %d bytes", name, len(text))
		}
	}
	if err := KneeHTML(&bytes.Buffer{}, &bench.Knee{}); err == nil {
		t.Error("a search that measured nothing has a page")
	}
	if err := MatrixHTML(&bytes.Buffer{}, &bench.Matrix{}); err == nil {
		t.Error("a matrix without rows has a page")
	}
}

func TestCSV(t *testing.T) {
	for name, write := range map[string]func(*bytes.Buffer) error{
		"run":    func(b *bytes.Buffer) error { return CSV(b, sample(t, 1)) },
		"series": func(b *bytes.Buffer) error { return SeriesCSV(b, sample(t, 3)) },
		"knee":   func(b *bytes.Buffer) error { return KneeCSV(b, knee(t)) },
		"matrix": func(b *bytes.Buffer) error { return MatrixCSV(b, matrix(t)) },
	} {
		var out bytes.Buffer
		if err := write(&out); err != nil {
			t.Fatal(err)
		}
		rows, err := csv.NewReader(&out).ReadAll()
		if err != nil || len(rows) < 2 {
			t.Errorf("%s: %d rows, %v", name, len(rows), err)
		}
	}
	if err := CSV(broken{}, sample(t, 1)); err == nil {
		t.Error("a broken file is no error")
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestHDR(t *testing.T) {
	var out bytes.Buffer
	if err := HDR(&out, sample(t, 1)); err != nil || !strings.Contains(out.String(), "Percentile") || !strings.Contains(out.String(), "Total count    =        10000") {
		t.Errorf("%v\n%s", err, out.String())
	}
	bad := sample(t, 1)
	bad.Total.Histogram = []byte("x")
	if err := HDR(&out, bad); err == nil {
		t.Error("a broken histogram is no error")
	}
}

func TestNumbers(t *testing.T) {
	for want, got := range map[string]string{
		"1,234,567": count(1234567), "-12": count(-12), "-1,234": count(-1234), "0": count(0), "999": count(999),
		"1,235": number(1234.5), "0.5": number(0.5), "1.50": ms(1.5), "12.3": ms(12.34), "0 ": ms(0) + " ",
		"1.5 MB": inBytes(1.5e6), "12 B": inBytes(12), "2e+03 GB": inBytes(2e12), "1.5s": duration(1.5), "1m30s": duration(90),
	} {
		if want != got {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for v, want := range map[float64]float64{0: 1, 0.7: 0.8, 1: 1, 1.2: 1.5, 7: 8, 9: 10, 1234: 1500, 15000: 15000} {
		if got := niceCeil(v); math.Abs(got-want) > 1e-9 {
			t.Errorf("%g: got %g, want %g", v, got, want)
		}
	}
	if got := linearTicks(0, 10, 5); len(got) != 6 || got[5] != 10 {
		t.Errorf("%v", got)
	}
}

// TestStalledChart: a slice without an answer is a gap, and not a latency of nearly
// nothing.
func TestStalledChart(t *testing.T) {
	r := sample(t, 6)
	for i := 2; i < 4; i++ {
		r.Series[i] = bench.Slice{At: r.Series[i].At, Seconds: 1}
	}
	drawn := string(overTime(r)[1].SVG)
	if n := strings.Count(drawn, "p99: none"); n != 4 { // in both sizes
		t.Errorf("%d slices without latency are said to have none", n)
	}
	for path := range strings.SplitSeq(drawn, "<path ") {
		if strings.HasPrefix(path, `class="line`) && strings.Count(path, "M") != 2 {
			t.Errorf("no gap in %.200s", path)
		}
	}
	if strings.Contains(drawn, "NaN") {
		t.Error("NaN is drawn")
	}
	var out bytes.Buffer
	for i := range r.Series {
		r.Series[i].Max, r.Series[i].P99 = 0, 0
	}
	if err := Text(&out, r, Style{}); err != nil || strings.Contains(out.String(), "·") {
		t.Errorf("dots for latencies that are not there: %v\n%s", err, out.String())
	}
}
