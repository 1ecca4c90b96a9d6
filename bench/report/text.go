// Package report shows what a load did: as text for a terminal, CSV, percentile
// files of HdrHistogram, and one HTML page that needs nothing else.
package report

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/quorate/quorate/bench"
)

// Style of text.
type Style struct {
	// Width in columns; 0 is 100.
	Width int
	// Paint colours a text; nil leaves it. Names are "bold", "dim", "good", "warn", "bad".
	Paint func(name, text string) string
	// Folded folds a text to a width; nil leaves it.
	Folded func(text string, width int) string
}

const (
	usualWidth = 100
	leastWidth = 40
)

func (s Style) width() int {
	if s.Width <= 0 {
		return usualWidth
	}
	return max(s.Width, leastWidth)
}

func (s Style) paint(name, text string) string {
	if s.Paint == nil || text == "" {
		return text
	}
	return s.Paint(name, text)
}

// page collects text; a reader that has gone away ends it.
type page struct {
	Style

	w   io.Writer
	err error
}

func (p *page) printf(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

// entry writes a name and a text behind it, folded.
func (p *page) entry(name, text string) {
	const column = 12
	if p.Folded != nil {
		text = strings.ReplaceAll(p.Folded(text, max(p.width()-column, leastWidth/2)), "\n", "\n"+strings.Repeat(" ", column))
	}
	p.printf("%s%s\n", p.paint("dim", fmt.Sprintf("%-*s", column, name)), text)
}

// table writes rows in columns, the first row being the header. All columns but the
// first are aligned right. Where the terminal is too narrow for all of them, those
// that are named in drop go first.
func (p *page) table(rows [][]string, drop ...int) {
	const gap = 3
	widths := func() []int {
		list := make([]int, len(rows[0]))
		for _, r := range rows {
			for i, c := range r {
				list[i] = max(list[i], utf8.RuneCountInString(c))
			}
		}
		return list
	}
	hidden := map[int]bool{}
	w := widths()
	for _, d := range drop {
		sum := -gap
		for i := range w {
			if !hidden[i] {
				sum += w[i] + gap
			}
		}
		if sum <= p.width() {
			break
		}
		hidden[d] = true
	}
	for n, r := range rows {
		var line strings.Builder
		for i, c := range r {
			if hidden[i] {
				continue
			}
			pad := strings.Repeat(" ", w[i]-utf8.RuneCountInString(c))
			if i == 0 {
				line.WriteString(c + pad)
			} else {
				line.WriteString(strings.Repeat(" ", gap) + pad + c)
			}
		}
		text := strings.TrimRight(line.String(), " ")
		if n == 0 {
			text = p.paint("dim", strings.ToUpper(text))
		}
		p.printf("%s\n", text)
	}
}

// Text writes a result for a terminal.
func Text(w io.Writer, r *bench.Result, s Style) error {
	p := &page{Style: s, w: w}
	if r.Name != "" {
		p.printf("%s\n", p.paint("dim", r.Name))
	}
	p.printf("%s\n%s\n\n", p.paint("bold", Headline(r)), p.paint("dim", subline(r)))
	p.operations(r)
	p.errors(r)
	if len(r.Series) > 1 {
		p.plots(r)
	}
	p.printf("\n")
	p.usage(r)
	p.bottleneck(r.Bottleneck)
	for _, n := range r.Notes {
		p.entry("note", n)
	}
	p.cleanup(r.Cleanup)
	return p.err
}

// Headline says in one line what was run.
func Headline(r *bench.Result) string {
	s := &r.Spec
	load := plural(int64(s.Clients*s.Namespaces), "client")
	if s.Loop == bench.Open {
		load = fmt.Sprintf("%s requests a second (%s)", number(s.Rate), s.Arrivals)
	}
	text := fmt.Sprintf("%s, %s loop: %s on %s, %s measured", WorkloadName(s), s.Loop, load, plural(int64(s.Connections), "connection"), duration(r.Seconds))
	if r.Interrupted {
		text += " (interrupted)"
	}
	return text
}

// WorkloadName is the name of the mix, or the mix itself.
func WorkloadName(s *bench.Spec) string {
	if s.Workload != "" {
		return s.Workload
	}
	parts := make([]string, 0, len(s.Mix))
	for _, m := range s.Mix {
		parts = append(parts, fmt.Sprintf("%s=%g", m.Operation, m.Weight))
	}
	return strings.Join(parts, ",")
}

func subline(r *bench.Result) string {
	s := &r.Spec
	text := fmt.Sprintf("etcd %s at %s; %s × %s keys of %s bytes, values of %s bytes, %s", strings.Join(r.Versions.Etcd, " and "),
		strings.Join(s.Endpoints, ", "), count(int64(s.Namespaces)), count(int64(s.Keys)), s.KeySize, s.ValueSize, s.Skew)
	if len(r.Hosts) > 1 {
		text += "; driven from " + strings.Join(r.Hosts, ", ")
	}
	return text
}

func (p *page) operations(r *bench.Result) {
	rows := [][]string{{"operation", "count", "op/s", "mean ms", "p50", "p90", "p99", "p99.9", "max", "errors"}}
	row := func(m *bench.Measure) {
		rows = append(rows, append([]string{m.Name, count(m.Count), number(m.OpsPerSecond)}, append(latencyCells(m.Latency), count(m.Errors.Total()))...))
	}
	for i := range r.Operations {
		row(&r.Operations[i])
	}
	if len(r.Operations) > 1 {
		row(&r.Total)
	}
	if w := r.Watch; w != nil {
		rows = append(rows, append([]string{"watch event", count(w.Delivered), number(w.PerSecond)}, append(latencyCells(w.Latency), count(w.Missing))...))
	}
	const mean, p90, counted, highest = 3, 5, 1, 7
	p.table(rows, mean, p90, counted, highest)
	if w := r.Watch; w != nil {
		p.printf("%s\n", p.paint("dim", fmt.Sprintf("%d watchers; %s events expected, %s delivered, %s missing; latency from when the put was due", w.Watchers, count(w.Expected), count(w.Delivered), count(w.Missing))))
	}
	for i := range r.Operations {
		if m := &r.Operations[i]; m.Conflicts > 0 {
			p.printf("%s\n", p.paint("dim", fmt.Sprintf("%s: %s of %s met a condition that did not hold, and are answers all the same", m.Name, count(m.Conflicts), count(m.Count))))
		}
	}
}

func latencyCells(l bench.Latency) []string {
	return []string{ms(l.Mean), ms(l.P50), ms(l.P90), ms(l.P99), ms(l.P999), ms(l.Max)}
}

func (p *page) errors(r *bench.Result) {
	named := r.Total.Errors.Named()
	if len(named) == 0 {
		return
	}
	parts := make([]string, 0, len(named))
	for _, n := range named {
		parts = append(parts, fmt.Sprintf("%s %s", n.Name, count(n.Count)))
	}
	p.printf("\n")
	p.entry("errors", p.paint("bad", fmt.Sprintf("%.3g %% of requests: %s", 100*r.Total.ErrorRate(), strings.Join(parts, ", "))))
	held := "the latencies hold them, too"
	if r.Total.Errors.Dropped > 0 {
		held += ", save those that were dropped, which have none"
	}
	p.entry("", held)
	const shown = 5
	for i, t := range r.ErrorTexts {
		if i == shown {
			p.entry("", fmt.Sprintf("and %d other texts", len(r.ErrorTexts)-shown))
			break
		}
		p.entry("", fmt.Sprintf("%s × %s", count(t.Count), t.Text))
	}
}

func (p *page) usage(r *bench.Result) {
	c := r.Client
	text := fmt.Sprintf("%.2f of %d cores, %.1f µs a request; %s/s sent, %s/s received", c.CPUSeconds/r.Seconds, c.Cores, c.CPUPerRequest, inBytes(float64(c.Sent)/r.Seconds), inBytes(float64(c.Received)/r.Seconds))
	if c.HostCPU >= 0 {
		text += fmt.Sprintf("; host %.0f %% busy", 100*c.HostCPU)
	}
	if c.Lag != nil {
		text += fmt.Sprintf("; requests began %s ms late at p99, at most %s", ms(c.Lag.P99), ms(c.Lag.Max))
	}
	p.entry("client", text)
	if len(r.Servers) == 0 {
		return
	}
	rows := [][]string{{"member", "cores", "fsync ms (p99)", "commit ms (p99)", "apply ms (p99)", "net in/out", "rss", "db", "elections", "pending"}}
	for i := range r.Servers {
		rows = append(rows, serverCells(&r.Servers[i]))
	}
	p.printf("\n")
	const pending, changes, rss, net, db = 9, 8, 6, 5, 7
	p.table(rows, pending, rss, net, changes, db)
	p.printf("\n")
}

func serverCells(u *bench.ServerUsage) []string {
	name := u.Name
	if name == "" {
		name = u.Endpoint
	}
	if u.Leader {
		name += " *"
	}
	cores := "?"
	if u.CPUSource != "" {
		cores = fmt.Sprintf("%.2f", u.CoresUsed())
	}
	if u.Cores > 0 {
		cores += fmt.Sprintf(" of %d", u.Cores)
	}
	if u.Unread != "" {
		return []string{name, cores, "unread", "", "", "", "", "", "", ""}
	}
	timing := func(t bench.Timing) string { return fmt.Sprintf("%s (%s)", ms(t.Mean), ms(t.P99)) }
	return []string{
		name, cores, timing(u.Fsync), timing(u.Commit), timing(u.Apply),
		fmt.Sprintf("%s/%s", inBytes(float64(u.ClientReceived+u.PeerReceived)/u.Seconds), inBytes(float64(u.ClientSent+u.PeerSent)/u.Seconds)),
		inBytes(float64(u.RSSMax)), inBytes(float64(u.DBSize)), count(u.LeaderChanges), count(u.PendingMax),
	}
}

func (p *page) bottleneck(f bench.Finding) {
	style := "warn"
	if f.Limit == bench.LimitNone {
		style = "good"
	}
	p.entry("bottleneck", p.paint(style, f.Summary))
	for _, e := range f.Evidence {
		p.entry("", e)
	}
	if f.Advice != "" {
		p.entry("next", f.Advice)
	}
	for _, o := range f.Others {
		p.entry("also", o.Summary+": "+strings.Join(o.Evidence, "; "))
	}
}

func (p *page) cleanup(c bench.Cleanup) {
	switch {
	case c.Error != "":
		p.entry("keys", p.paint("bad", c.Error))
	case c.Kept:
		p.entry("keys", "kept below "+c.Prefix)
	}
}

// TextKnee writes what a search for the highest rate found.
func TextKnee(w io.Writer, k *bench.Knee, s Style) error {
	p := &page{Style: s, w: w}
	p.printf("%s\n\n", p.paint("bold", KneeHeadline(k)))
	p.table(kneeRows(k))
	p.printf("\n")
	if p.err != nil || k.Best == nil {
		if k.Broken != nil {
			p.bottleneck(k.Broken.Bottleneck)
			p.cleanup(k.Cleanup)
		}
		return p.err
	}
	if k.Broken != nil {
		p.entry("beyond", fmt.Sprintf("at %s a second: %s", number(k.Beyond), k.Broken.Bottleneck.Summary))
	}
	p.printf("\n")
	if p.err != nil {
		return p.err
	}
	return Text(w, k.Best, s)
}

// KneeHeadline says in one line what was found.
func KneeHeadline(k *bench.Knee) string {
	goal := fmt.Sprintf("p99 ≤ %s and errors ≤ %.3g %%", k.Goal.P99, 100*k.Goal.Errors)
	switch {
	case k.Interrupted:
		return fmt.Sprintf("interrupted; until then %s requests a second kept to %s", number(k.Rate), goal)
	case k.Rate == 0:
		return fmt.Sprintf("not even %s requests a second kept to %s", number(k.Beyond), goal)
	}
	return fmt.Sprintf("%s requests a second keep to %s", number(k.Rate), goal)
}

func kneeRows(k *bench.Knee) [][]string {
	rows := [][]string{{"rate", "op/s", "p50 ms", "p99", "max", "errors", "kept", "limit"}}
	for _, st := range k.Steps {
		kept := "yes"
		if !st.Kept {
			kept = "no"
		}
		rows = append(rows, []string{
			number(st.Rate), number(st.OpsPerSecond), ms(st.P50), ms(st.P99), ms(st.Max), fmt.Sprintf("%.2f %%", 100*st.ErrorRate), kept, string(st.Limit),
		})
	}
	return rows
}

// TextMatrix writes a matrix as operators publish it.
func TextMatrix(w io.Writer, m *bench.Matrix, s Style) error {
	p := &page{Style: s, w: w}
	p.printf("%s\n\n", p.paint("bold", MatrixHeadline(m)))
	const mean, p90, p999 = 5, 7, 9
	p.table(matrixRows(m), mean, p90, p999)
	for _, r := range m.Rows {
		p.printf("\n%s\n", p.paint("bold", fmt.Sprintf("%d × %d", r.Cell.Namespaces, r.Clients)))
		p.entry("bottleneck", r.Result.Bottleneck.Summary+": "+strings.Join(r.Result.Bottleneck.Evidence, "; "))
		for _, n := range r.Result.Notes {
			p.entry("note", n)
		}
		p.cleanup(r.Result.Cleanup)
	}
	return p.err
}

// each is how long every cell runs.
func each(s *bench.Spec) string {
	if s.Duration == 0 {
		return count(s.Total) + " requests"
	}
	return s.Duration.String()
}

// MatrixHeadline says what the rows are, and at which scale.
func MatrixHeadline(m *bench.Matrix) string {
	text := "namespaces × clients"
	if len(m.Rows) > 0 {
		s := &m.Rows[0].Result.Spec
		text = fmt.Sprintf("%s, %s loop, namespaces × clients, %s each", WorkloadName(s), s.Loop, each(s))
	}
	if m.Scale > 1 {
		text += fmt.Sprintf("; scale 1:%d, so that clients are 1/%d of what the published table has", m.Scale, m.Scale)
	} else {
		text += "; full scale"
	}
	switch {
	case m.Interrupted:
		text += " (interrupted)"
	case m.Error != "":
		text += " (not complete: " + m.Error + ")"
	}
	return text
}

func matrixRows(m *bench.Matrix) [][]string {
	rows := [][]string{{
		"namespaces", "clients/ns", "clients", "operations", "op/s", "avg ms", "p50", "p90", "p99", "p99.9", "max", "client timeouts", "server timeouts", "other errors",
	}}
	for _, r := range m.Rows {
		t := &r.Result.Total
		rows = append(rows, append(append([]string{
			count(int64(r.Cell.Namespaces)), count(int64(r.Clients)), count(int64(r.Cell.Namespaces * r.Clients)), count(t.Count), number(t.OpsPerSecond),
		}, latencyCells(t.Latency)...),
			count(t.Errors.ClientTimeouts), count(t.Errors.ServerTimeouts), count(t.Errors.Total()-t.Errors.ClientTimeouts-t.Errors.ServerTimeouts)))
	}
	return rows
}

func plural(n int64, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + one + "s"
}

// count writes 1234567 as 1,234,567.
func count(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// number writes a rate: whole from 100 on.
func number(v float64) string {
	if v >= 100 || v == float64(int64(v)) {
		return count(int64(v + 0.5))
	}
	return fmt.Sprintf("%.3g", v)
}

// ms writes milliseconds with three digits or so.
func ms(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	default:
		return count(int64(v + 0.5))
	}
}

func duration(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	if d < 10*time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

func inBytes(v float64) string {
	const step = 1000
	for _, unit := range []string{"B", "kB", "MB", "GB"} {
		if v < step || unit == "GB" {
			if unit == "B" {
				return fmt.Sprintf("%.0f B", v)
			}
			return fmt.Sprintf("%.3g %s", v, unit)
		}
		v /= step
	}
	return ""
}
