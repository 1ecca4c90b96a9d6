package report

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"

	"github.com/quorate/quorate/bench"
)

func float(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

func whole(n int64) string { return strconv.FormatInt(n, 10) }

func writeCSV(w io.Writer, rows [][]string) error {
	out := csv.NewWriter(w)
	if err := out.WriteAll(rows); err != nil {
		return fmt.Errorf("write CSV: %w", err)
	}
	return nil
}

// SeriesCSV writes the time series: a line for each slice.
func SeriesCSV(w io.Writer, r *bench.Result) error {
	rows := [][]string{{"at_seconds", "seconds", "count", "ops_per_second", "p50_ms", "p99_ms", "max_ms", "errors", "in_flight"}}
	for _, s := range r.Series {
		rows = append(rows, []string{
			float(s.At), float(s.Seconds), whole(s.Count), float(s.OpsPerSecond), float(s.P50), float(s.P99), float(s.Max), whole(s.Errors), whole(s.InFlight),
		})
	}
	return writeCSV(w, rows)
}

var csvHeader = []string{
	"operation", "count", "ops_per_second", "mean_ms", "min_ms", "p50_ms", "p90_ms", "p99_ms", "p99.9_ms", "p99.99_ms", "max_ms",
	"client_timeouts", "server_timeouts", "unavailable", "too_many_requests", "no_space", "dropped", "other", "unfinished",
}

func csvRow(m *bench.Measure) []string {
	l, e := m.Latency, m.Errors
	return []string{
		m.Name, whole(m.Count), float(m.OpsPerSecond), float(l.Mean), float(l.Min), float(l.P50), float(l.P90), float(l.P99), float(l.P999), float(l.P9999), float(l.Max),
		whole(e.ClientTimeouts), whole(e.ServerTimeouts), whole(e.Unavailable), whole(e.TooManyRequests), whole(e.NoSpace), whole(e.Dropped), whole(e.Other), whole(e.Unfinished),
	}
}

// CSV writes a line for each operation, and one for all.
func CSV(w io.Writer, r *bench.Result) error {
	rows := [][]string{csvHeader}
	for i := range r.Operations {
		rows = append(rows, csvRow(&r.Operations[i]))
	}
	return writeCSV(w, append(rows, csvRow(&r.Total)))
}

// MatrixCSV writes a line for each cell.
func MatrixCSV(w io.Writer, m *bench.Matrix) error {
	rows := [][]string{append([]string{"namespaces", "clients_per_namespace", "clients", "scale"}, csvHeader...)}
	for _, r := range m.Rows {
		rows = append(rows, append([]string{
			strconv.Itoa(r.Cell.Namespaces), strconv.Itoa(r.Clients), strconv.Itoa(r.Cell.Namespaces * r.Clients), strconv.Itoa(m.Scale),
		}, csvRow(&r.Result.Total)...))
	}
	return writeCSV(w, rows)
}

// KneeCSV writes a line for each rate that was tried.
func KneeCSV(w io.Writer, k *bench.Knee) error {
	rows := [][]string{{"rate", "ops_per_second", "p50_ms", "p99_ms", "max_ms", "error_rate", "kept", "limit"}}
	for _, s := range k.Steps {
		rows = append(rows, []string{
			float(s.Rate), float(s.OpsPerSecond), float(s.P50), float(s.P99), float(s.Max), float(s.ErrorRate), strconv.FormatBool(s.Kept), string(s.Limit),
		})
	}
	return writeCSV(w, rows)
}

// HDR writes the percentiles of all requests in milliseconds, in the form that
// HdrHistogram's plotters read (.hgrm).
func HDR(w io.Writer, r *bench.Result) error {
	h, err := bench.Decode(r.Total.Histogram)
	if err != nil {
		return err
	}
	const ticks, microseconds = 5, 1000
	if _, err = h.PercentilesPrint(w, ticks, microseconds); err != nil {
		return fmt.Errorf("write percentiles: %w", err)
	}
	return nil
}

// TextCompare writes a comparison; share is what counts as worse, 0 for not asked.
func TextCompare(w io.Writer, c *bench.Comparison, s Style) error {
	p := &page{Style: s, w: w}
	p.printf("%s\n\n", p.paint("bold", fmt.Sprintf("%s → %s, by %s", c.Base, c.With, c.Samples)))
	rows := [][]string{{"metric", "base", "now", "change", "p", "n", ""}}
	for _, m := range c.Metrics {
		change, verdict := "~", "no significant change"
		if m.Significant {
			change = fmt.Sprintf("%+.1f %%", 100*m.Delta)
			if m.Base == 0 {
				change = "from none"
			}
			verdict = "better"
			if m.Worse {
				verdict = "worse"
			}
		}
		rows = append(rows, []string{
			m.Name, value(m.Base) + " " + m.Unit, value(m.With) + " " + m.Unit, change, fmt.Sprintf("%.3f", m.P), fmt.Sprintf("%d+%d", m.NBase, m.NWith), verdict,
		})
	}
	p.table(rows)
	for i, text := range c.Warnings {
		if i == 0 {
			p.printf("\n")
		}
		p.entry("note", text)
	}
	return p.err
}

// value is one that may be small or large.
func value(v float64) string {
	if v >= 100 {
		return number(v)
	}
	return ms(v)
}
