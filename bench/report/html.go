package report

import (
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"

	"github.com/quorate/quorate/bench"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

var errNothing = errors.New("nothing was measured")

// document is what the page shows.
type document struct {
	Title    string
	Name     string
	Headline string
	Subline  string
	Tiles    []tile
	Runs     []section
	// Table of a matrix, or of the rates that were tried.
	Table [][]string
	// Lead is a chart above all.
	Lead    template.HTML
	LeadOf  string
	Command string
	Made    string
}

type tile struct{ Name, Value, Unit, Style string }

// section is one run.
type section struct {
	Heading    string
	Bottleneck bench.Finding
	Good       bool
	Charts     []drawing
	Operations [][]string
	Watch      string
	Errors     [][]string
	ErrorsHeld string
	Texts      []bench.ErrorText
	Servers    [][]string
	Facts      [][]string
	Notes      []string
	Cleanup    string
}

type drawing struct {
	Title string
	Lines []legend
	SVG   template.HTML
}

type legend struct{ Name, Class string }

// HTML writes a result as one page.
func HTML(w io.Writer, r *bench.Result) error {
	d := newDocument(r)
	d.Headline, d.Subline = Headline(r), subline(r)
	s, err := sectionOf(r, "")
	if err != nil {
		return err
	}
	d.Tiles, d.Runs = tilesOf(r), []section{s}
	return d.write(w)
}

// KneeHTML writes a search for the highest rate as one page.
func KneeHTML(w io.Writer, k *bench.Knee) error {
	r := k.Best
	if r == nil {
		r = k.Broken
	}
	if r == nil {
		return errNothing
	}
	d := newDocument(r)
	d.Headline, d.Subline = KneeHeadline(k), subline(r)
	d.Table = kneeRows(k)
	d.Lead, d.LeadOf = kneeChart(k), "p99 by throughput, ms"
	d.Tiles = tilesOf(r)
	for _, one := range []struct {
		heading string
		r       *bench.Result
	}{{fmt.Sprintf("At %s requests a second", number(k.Rate)), k.Best}, {fmt.Sprintf("Beyond: at %s requests a second", number(k.Beyond)), k.Broken}} {
		if one.r == nil {
			continue
		}
		s, err := sectionOf(one.r, one.heading)
		if err != nil {
			return err
		}
		d.Runs = append(d.Runs, s)
	}
	return d.write(w)
}

// MatrixHTML writes a matrix as one page.
func MatrixHTML(w io.Writer, m *bench.Matrix) error {
	if len(m.Rows) == 0 {
		return errNothing
	}
	d := newDocument(m.Rows[0].Result)
	d.Headline, d.Subline = MatrixHeadline(m), subline(m.Rows[0].Result)
	d.Table = matrixRows(m)
	for _, row := range m.Rows {
		s, err := sectionOf(row.Result, plural(int64(row.Cell.Namespaces), "namespace")+" × "+plural(int64(row.Clients), "client"))
		if err != nil {
			return err
		}
		d.Runs = append(d.Runs, s)
	}
	return d.write(w)
}

func (d *document) write(w io.Writer) error {
	if err := pageTemplate.Execute(w, d); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}

func newDocument(r *bench.Result) *document {
	title := r.Name
	if title == "" {
		title = WorkloadName(&r.Spec)
	}
	return &document{
		Title: "Load: " + title, Name: r.Name, Command: strings.Join(r.Command, " "),
		Made: fmt.Sprintf("%s, quorate %s, %s, etcd %s", r.StartedAt.Format(time.RFC1123), r.Versions.Quorate, r.Versions.Go, strings.Join(r.Versions.Etcd, " and ")),
	}
}

func tilesOf(r *bench.Result) []tile {
	l := r.Total.Latency
	failed := tile{"errors", count(r.Total.Errors.Total()), fmt.Sprintf("%.3g %%", 100*r.Total.ErrorRate()), ""}
	if r.Total.Errors.Total() > 0 {
		failed.Style = "bad"
	}
	return []tile{
		{"throughput", number(r.Total.OpsPerSecond), "op/s", ""},
		{"p50", ms(l.P50), "ms", ""},
		{"p99", ms(l.P99), "ms", ""},
		{"p99.9", ms(l.P999), "ms", ""},
		{"max", ms(l.Max), "ms", ""},
		failed,
	}
}

func sectionOf(r *bench.Result, heading string) (section, error) {
	s := section{Heading: heading, Bottleneck: r.Bottleneck, Good: r.Bottleneck.Limit == bench.LimitNone, Notes: r.Notes, Texts: r.ErrorTexts}
	s.Operations = [][]string{{"operation", "count", "op/s", "mean ms", "p50", "p90", "p99", "p99.9", "max", "errors"}}
	for i := range r.Operations {
		s.Operations = append(s.Operations, operationCells(&r.Operations[i]))
	}
	if len(r.Operations) > 1 {
		s.Operations = append(s.Operations, operationCells(&r.Total))
	}
	if w := r.Watch; w != nil {
		s.Operations = append(s.Operations, append([]string{"watch event", count(w.Delivered), number(w.PerSecond)}, append(latencyCells(w.Latency), count(w.Missing))...))
		s.Watch = fmt.Sprintf("%d watchers: %s events expected, %s delivered, %s missing, %d streams broke and were resumed. Latency counts from when the put was due.",
			w.Watchers, count(w.Expected), count(w.Delivered), count(w.Missing), w.Reconnects)
	}
	if r.Total.Errors.Total() > 0 {
		s.ErrorsHeld = "Latencies hold failed requests, too, save those that were dropped, which have none."
	}
	for _, n := range r.Total.Errors.Named() {
		s.Errors = append(s.Errors, []string{n.Name, count(n.Count)})
	}
	if len(r.Servers) > 0 {
		s.Servers = [][]string{{"member", "cores", "fsync ms (p99)", "commit ms (p99)", "apply ms (p99)", "net in/out", "rss", "db", "elections", "pending"}}
		for i := range r.Servers {
			s.Servers = append(s.Servers, serverCells(&r.Servers[i]))
		}
	}
	s.Facts = factsOf(r)
	switch {
	case r.Cleanup.Error != "":
		s.Cleanup = r.Cleanup.Error
	case r.Cleanup.Kept:
		s.Cleanup = "The keys were kept below " + r.Cleanup.Prefix + "."
	}
	if len(r.Series) > 1 {
		s.Charts = append(s.Charts, overTime(r)...)
	}
	curve, err := percentiles(r)
	if err != nil {
		return s, err
	}
	if curve != nil {
		s.Charts = append(s.Charts, *curve)
	}
	return s, nil
}

func operationCells(m *bench.Measure) []string {
	return append([]string{m.Name, count(m.Count), number(m.OpsPerSecond)}, append(latencyCells(m.Latency), count(m.Errors.Total()))...)
}

func factsOf(r *bench.Result) [][]string {
	c, s := r.Client, &r.Spec
	facts := [][]string{
		{"client CPU", fmt.Sprintf("%.2f of %d cores, %.1f µs a request", c.CPUSeconds/r.Seconds, c.Cores, c.CPUPerRequest)},
		{"client traffic", fmt.Sprintf("%s/s sent, %s/s received", inBytes(float64(c.Sent)/r.Seconds), inBytes(float64(c.Received)/r.Seconds))},
	}
	if c.HostCPU >= 0 {
		facts = append(facts, []string{"client host", fmt.Sprintf("%.0f %% busy, all processes together", 100*c.HostCPU)})
	}
	if c.Lag != nil {
		facts = append(facts, []string{"began late", fmt.Sprintf("%s ms at p99, at most %s ms", ms(c.Lag.P99), ms(c.Lag.Max))})
	}
	facts = append(facts, []string{"under way", fmt.Sprintf("at most %s requests", count(c.MaxInFlight))},
		[]string{"keys", fmt.Sprintf("%s × %s of %s bytes, values of %s bytes, %s", count(int64(s.Namespaces)), count(int64(s.Keys)), s.KeySize, s.ValueSize, s.Skew)},
		[]string{"seed", strconv.FormatUint(s.Seed, 10)}, []string{"measured", duration(r.Seconds) + " from " + strings.Join(r.Hosts, ", ")})
	return facts
}

func overTime(r *bench.Result) []drawing {
	n := len(r.Series)
	x, ops, p50, p99, most := make([]float64, n), make([]float64, n), make([]float64, n), make([]float64, n), make([]float64, n)
	for i, s := range r.Series {
		x[i], ops[i], p50[i], p99[i], most[i] = s.At, s.OpsPerSecond, s.P50, s.P99, s.Max
		if s.Max == 0 { // nothing was answered, which is not a latency of zero
			p50[i], p99[i], most[i] = math.NaN(), math.NaN(), math.NaN()
		}
	}
	at := func(v float64) string { return fmt.Sprintf("%.3g", v) }
	throughput := &chart{title: "throughput over time", unit: "op/s", x: x, lines: []line{{"throughput", "a", ops, true}}, label: number, xLabel: at, xUnit: "seconds"}
	latency := &chart{
		title: "latency over time", unit: "ms", x: x, logY: true, label: ms, xLabel: at, xUnit: "seconds",
		lines: []line{{"p50", "a", p50, false}, {"p99", "b", p99, false}, {"max", "c", most, false}},
	}
	return []drawing{
		{"Throughput over time, op/s", nil, throughput.svg()},
		{"Latency over time, ms", []legend{{"p50", "a"}, {"p99", "b"}, {"max", "c"}}, latency.svg()},
	}
}

// percentiles draws latency by how many nines of the requests keep to it.
func percentiles(r *bench.Result) (*drawing, error) {
	h, err := bench.Decode(r.Total.Histogram)
	if err != nil || h.TotalCount() == 0 {
		return nil, err
	}
	lines := []line{}
	x := nines(h)
	lines = append(lines, line{"all requests", "a", latencies(h, x), false})
	names := []legend{{"all requests", "a"}}
	if w := r.Watch; w != nil && w.Delivered > 0 {
		events, err := bench.Decode(w.Histogram)
		if err != nil {
			return nil, err
		}
		lines = append(lines, line{"watch events", "b", latencies(events, x), false})
		names = append(names, legend{"watch events", "b"})
	}
	c := &chart{
		title: "latency by percentile", unit: "ms", x: x, lines: lines, logY: true, label: ms, xUnit: "% of requests keep to it",
		xLabel: percentLabel, xTicks: wholeNines(x[len(x)-1]),
	}
	return &drawing{"Latency by percentile, ms", names, c.svg()}, nil
}

// nines are places on an axis where each step is a tenth of the requests that the
// last one had, as far as the samples go.
func nines(h *hdr.Histogram) []float64 {
	const perStep = 20
	end := math.Log10(float64(h.TotalCount()))
	end = min(max(math.Ceil(end*perStep)/perStep, 1), 6)
	var x []float64
	for v := 0.0; v <= end+1e-9; v += 1.0 / perStep {
		x = append(x, v)
	}
	return x
}

func percentOf(nines float64) float64 { return 100 * (1 - math.Pow(10, -nines)) }

func latencies(h *hdr.Histogram, x []float64) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(h.ValueAtPercentile(percentOf(v))) / 1000
	}
	return y
}

func percentLabel(v float64) string {
	return strings.TrimSuffix(fmt.Sprintf("%.7g", math.Round(percentOf(v)*1e6)/1e6), ".0")
}

func wholeNines(end float64) []float64 {
	var list []float64
	for v := 0.0; v <= end+1e-9; v++ {
		list = append(list, v)
	}
	return list
}

// kneeChart draws p99 by throughput, over the rates in their order.
func kneeChart(k *bench.Knee) template.HTML {
	steps := slices.Clone(k.Steps)
	slices.SortStableFunc(steps, func(a, b bench.Step) int { return cmp.Compare(a.Rate, b.Rate) })
	var x, p99, limit []float64
	for i, s := range steps {
		if i+1 < len(steps) && steps[i+1].Rate == s.Rate {
			continue // it was tried again, and that counted
		}
		x, p99, limit = append(x, s.Rate), append(p99, s.P99), append(limit, k.Goal.P99.Std().Seconds()*1000)
	}
	c := &chart{
		title: "p99 by rate", unit: "ms", x: x, logY: true, label: ms, xLabel: number, xUnit: "requests a second",
		lines: []line{{"p99", "b", p99, false}, {"limit", "c", limit, false}},
	}
	return c.svg()
}
