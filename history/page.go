package history

import (
	"fmt"
	"html/template"
	"io"
	"strconv"
	"strings"
)

// Measures of a timeline in SVG.
const (
	svgLane   = 44
	svgLeft   = 110
	svgUnit   = 9   // at least
	svgWidest = 48  // at most
	svgRoom   = 900 // on a wide page
	svgLetter = 7.3
	svgTop    = 12
	svgBar    = 22
	svgMargin = 24
)

// svgMark is a mark with its place on the page.
type svgMark struct {
	X, Y, Width, Middle, Text int
	Lies, Point, Open         bool
	Title, Label              string
}

type svgLaneName struct {
	Y, Line int
	Name    string
}

type svgPicture struct {
	Width, Height, Left, Bar, Right int
	Lanes                           []svgLaneName
	Marks                           []svgMark
}

type pageMark struct {
	Number           int
	Lane, Text, When string
	Lies             bool
}

type pageViolation struct {
	Violation

	ID      string
	Picture *svgPicture
	Marks   []pageMark
	Left    int
}

type page struct {
	Name       string
	Report     *Report
	Violations []pageViolation
	More       int
	Facts      [][2]string
}

// WritePage writes a report as one self-contained HTML page, with a timeline for
// each violation: light and dark, without scripts, nothing loaded from elsewhere.
// The name says what was checked.
func WritePage(w io.Writer, name string, r *Report) error {
	s := r.Stats
	p := page{Name: name, Report: r, Facts: [][2]string{
		{"operations", strconv.Itoa(s.Operations)},
		{"without an answer", strconv.Itoa(s.Unknown)},
		{"refused", strconv.Itoa(s.Failed)},
		{"revisions", strconv.Itoa(s.Revisions)},
		{"reads", strconv.Itoa(s.Reads)},
		{"watch events", strconv.Itoa(s.WatchEvents)},
		{"hashes", strconv.Itoa(s.Hashes)},
		{"windows ordered", fmt.Sprintf("%d of %d", s.Windows, s.WindowsChecked)},
		{"checked in", fmt.Sprintf("%.1f s", s.Seconds)},
	}}
	for i := range r.Violations {
		p.Violations = append(p.Violations, drawn(&r.Violations[i], i))
	}
	for _, n := range r.Counts {
		p.More += n
	}
	p.More -= len(r.Violations)
	if err := pageTemplate.Execute(w, &p); err != nil {
		return fmt.Errorf("write the page of the report: %w", err)
	}
	return nil
}

func drawn(v *Violation, i int) pageViolation {
	out := pageViolation{Violation: *v, ID: fmt.Sprintf("v%d", i+1)}
	p := paint(v)
	out.Left = p.left
	if len(p.marks) == 0 {
		return out
	}
	for i := range p.marks {
		m := &p.marks[i]
		out.Marks = append(out.Marks, pageMark{m.number, p.lanes[m.lane], m.text, m.when, m.lies})
	}
	out.Picture = p.svg()
	return out
}

// svg gives every mark its place.
func (p *picture) svg() *svgPicture {
	at := p.places(func(m *mark) int { return 2 + len(strconv.Itoa(m.number)) })
	unit := min(max((svgRoom-svgLeft-svgMargin)/(at[len(at)-1]+1), svgUnit), svgWidest)
	s := &svgPicture{Left: svgLeft, Bar: svgBar, Height: svgTop + svgLane*len(p.lanes) + svgTop}
	s.Width = svgLeft + unit*(at[len(at)-1]+1) + svgMargin
	s.Right = s.Width - svgMargin/2
	for i, name := range p.lanes {
		y := svgTop + svgLane*i + svgLane/2
		s.Lanes = append(s.Lanes, svgLaneName{Y: y + 4, Line: y, Name: name})
	}
	for i := range p.marks {
		m := &p.marks[i]
		d := svgMark{
			X: svgLeft + unit*at[m.from], Y: svgTop + svgLane*m.lane + (svgLane-svgBar)/2,
			Lies: m.lies, Point: m.point, Open: m.open, Title: fmt.Sprintf("%d, %s: %s (%s)", m.number, p.lanes[m.lane], m.text, m.when),
		}
		d.Middle = svgTop + svgLane*m.lane + svgLane/2
		d.Width = unit * (at[min(m.to, len(at)-1)] - at[m.from])
		if m.point {
			d.Width = svgBar
		}
		d.Text = d.X + d.Width/2
		d.Label = strconv.Itoa(m.number)
		if room := int(float64(d.Width-12)/svgLetter) - len(d.Label) - 1; !m.point && room > 5 {
			d.Label += " " + cut(m.text, room)
		}
		s.Marks = append(s.Marks, d)
	}
	return s
}

var pageTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"plus": func(a, b int) int { return a + b },
	"diamond": func(m svgMark) string {
		x, y, r := m.Text, m.Middle, m.Width/2+2
		return fmt.Sprintf("%d,%d %d,%d %d,%d %d,%d", x, y-r, x+r, y, x, y+r, x-r, y)
	},
	"plural": func(n int, one, many string) string {
		if n == 1 {
			return "1 " + one
		}
		return fmt.Sprintf("%d %s", n, many)
	},
	"spaced": func(r Rule) string { return strings.ReplaceAll(string(r), "-", " ") },
}).Parse(pageText))

const pageText = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{if not (or .Report.Stats.Operations .Violations)}}Nothing judged{{else if .Report.OK}}Kept{{else}}Broken{{end}}: {{.Name}}</title>
<style>
:root{--page:#f7f7f5;--card:#fff;--text:#1c1e21;--soft:#5b6168;--line:#d9dbd8;--call:#d7e4f4;--edge:#3d6ea5;--bad:#b3261e;--badfill:#fbe0dc;--good:#1b6e3c;--code:#eef0ee}
@media (prefers-color-scheme:dark){:root{--page:#131517;--card:#1c1f22;--text:#e8e9ea;--soft:#a3a9af;--line:#363b40;--call:#22374f;--edge:#7fb0e6;--bad:#ff8a80;--badfill:#4a1f1c;--good:#7bd3a0;--code:#26292d}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
main{max-width:64rem;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .25rem;overflow-wrap:anywhere}
h2{font-size:1.15rem;line-height:1.35;margin:.35rem 0 .75rem;overflow-wrap:anywhere}
h3{font-size:.95rem;margin:1.25rem 0 .4rem}
p{margin:.4rem 0;max-width:46rem}
.verdict{font-weight:700}.kept{color:var(--good)}.broken{color:var(--bad)}
.soft{color:var(--soft)}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:.75rem;margin:1.25rem 0 2rem}
dt{color:var(--soft);font-size:.85rem}dd{margin:0;font-size:1.15rem;font-variant-numeric:tabular-nums}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:1.1rem 1.25rem 1.25rem;margin:0 0 1.25rem}
.rule{font:600 .8rem/1.6 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;color:var(--bad)}
ul{margin:.3rem 0;padding-left:1.2rem}li{overflow-wrap:anywhere}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:8px;background:var(--page)}
svg{display:block}
svg text{fill:var(--text);font:600 12px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
svg .name{font:13px system-ui,sans-serif;fill:var(--soft)}
svg .rail{stroke:var(--line);stroke-width:1}
svg .mark{fill:var(--call);stroke:var(--edge);stroke-width:1.5}
svg .lies{fill:var(--badfill);stroke:var(--bad);stroke-width:3}
svg .open{stroke-dasharray:5 4}
table{border-collapse:collapse;width:100%;margin-top:.75rem;font-size:.9rem}
th{text-align:left;color:var(--soft);font-weight:600}
th,td{padding:.35rem .75rem .35rem 0;border-bottom:1px solid var(--line);vertical-align:top}
td.n{font-variant-numeric:tabular-nums;white-space:nowrap}td.t{white-space:nowrap}
td code{font:.85rem/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
tr.lies td{background:var(--badfill)}tr.lies td:first-child{padding-left:.5rem}
tr.lies strong{color:var(--bad)}
a{color:var(--edge)}
@media (max-width:40rem){td.t,th.t{display:none}}
</style>
</head>
<body>
<main>
<h1>{{.Name}}</h1>
{{if not (or .Report.Stats.Operations .Violations)}}<p class="verdict">– The history holds no operations: there was nothing to judge.</p>
{{else if .Report.OK}}<p class="verdict kept">✓ Every promise that could be judged was kept.</p>
{{else}}<p class="verdict broken">✗ {{plural (plus .More (len .Violations)) "violation was" "violations were"}} found.</p>{{end}}
<dl>{{range .Facts}}<div><dt>{{index . 0}}</dt><dd>{{index . 1}}</dd></div>{{end}}</dl>
{{range .Violations}}
<section aria-labelledby="{{.ID}}">
<div class="rule">{{.Rule}}</div>
<h2 id="{{.ID}}">{{.Title}}</h2>
<p>{{.Meaning}}</p>
{{with .Evidence}}<h3>Evidence</h3><ul>{{range .}}<li>{{.}}</li>{{end}}</ul>{{end}}
{{with .Picture}}<h3>Timeline</h3>
<div class="scroll" tabindex="0" role="region" aria-label="timeline, the table below says the same">
<svg width="{{.Width}}" height="{{.Height}}" viewBox="0 0 {{.Width}} {{.Height}}" role="img" aria-label="timeline with {{len .Marks}} calls and messages on {{len .Lanes}} lanes">
{{$left := .Left}}{{$right := .Right}}{{$bar := .Bar}}{{range .Lanes}}<line class="rail" x1="{{$left}}" x2="{{$right}}" y1="{{.Line}}" y2="{{.Line}}"/><text class="name" x="12" y="{{.Y}}">{{.Name}}</text>
{{end}}{{range .Marks}}<g><title>{{.Title}}</title>{{if .Point}}<polygon class="mark{{if .Lies}} lies{{end}}" points="{{diamond .}}"/>{{else}}<rect class="mark{{if .Lies}} lies{{end}}{{if .Open}} open{{end}}" x="{{.X}}" y="{{.Y}}" width="{{.Width}}" height="{{$bar}}" rx="4"/>{{end}}<text x="{{.Text}}" y="{{plus .Middle 4}}" text-anchor="middle">{{.Label}}</text></g>
{{end}}</svg>
</div>
{{end}}{{if and .Picture (eq .ID "v1")}}<p class="soft">Time runs from left to right, in order and not to scale. Bars are calls from begin to end, dashed where no answer came; diamonds are messages of watches. What breaks the promise is drawn heavy.</p>{{end}}
{{with .Marks}}<table><thead><tr><th>#</th><th>who</th><th>asked → answered</th><th class="t">when</th></tr></thead><tbody>
{{range .}}<tr{{if .Lies}} class="lies"{{end}}><td class="n">{{if .Lies}}<strong>▶ {{.Number}}</strong>{{else}}{{.Number}}{{end}}</td><td class="n">{{.Lane}}</td><td><code>{{.Text}}</code></td><td class="t">{{.When}}</td></tr>
{{end}}</tbody></table>{{end}}
{{if .Left}}<p class="soft">{{.Left}} more are further away in time and not shown.</p>{{end}}
</section>
{{end}}
{{if gt .More 0}}<p>{{.More}} more violations of these rules are counted and not described.</p>{{end}}
{{with .Report.Skipped}}<h3>What could not be judged</h3><ul>{{range .}}<li>{{.}}</li>{{end}}</ul>{{end}}
{{with .Report.Notes}}<h3>Worth to know</h3><ul>{{range .}}<li>{{.}}</li>{{end}}</ul>{{end}}
</main>
</body>
</html>
`
