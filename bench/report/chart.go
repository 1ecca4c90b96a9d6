package report

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strings"
)

// line of a chart.
type line struct {
	name string
	// class is its colour: a, b or c.
	class string
	// y is NaN where there is nothing, which leaves a gap.
	y []float64
	// area fills what lies below.
	area bool
}

// chart draws lines over x.
type chart struct {
	title, unit string
	x           []float64
	lines       []line
	// logY and its lower end; xTicks where they are not chosen from the values.
	logY   bool
	label  func(float64) string
	xLabel func(float64) string
	xTicks []float64
	xUnit  string
}

// frame is the size of a drawing.
type frame struct{ width, height, left, right, top, bottom float64 }

var (
	wideFrame   = frame{960, 260, 64, 14, 12, 34}
	narrowFrame = frame{380, 230, 50, 10, 12, 34}
)

// svg draws the chart twice, for wide screens and for narrow ones: a drawing that is
// only scaled down can't be read there.
func (c *chart) svg() template.HTML {
	return template.HTML(c.draw(wideFrame, "wide") + c.draw(narrowFrame, "narrow")) //nolint:gosec // all text in it is escaped
}

func (c *chart) draw(f frame, class string) string {
	var out strings.Builder
	fmt.Fprintf(&out, `<svg class="chart %s" viewBox="0 0 %g %g" role="img" aria-label="%s">`, class, f.width, f.height, html.EscapeString(c.title))
	low, high := c.bounds()
	first, last := c.x[0], c.x[len(c.x)-1]
	if last <= first {
		last = first + 1
	}
	px := func(x float64) float64 { return f.left + (x-first)/(last-first)*(f.width-f.left-f.right) }
	py := func(y float64) float64 {
		if c.logY {
			y = math.Log10(max(y, low))
			return f.top + (math.Log10(high)-y)/(math.Log10(high)-math.Log10(low))*(f.height-f.top-f.bottom)
		}
		return f.top + (high-y)/(high-low)*(f.height-f.top-f.bottom)
	}
	for _, y := range c.yTicks(low, high) {
		fmt.Fprintf(&out, `<line class="grid" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/><text class="tick" text-anchor="end" x="%.1f" y="%.1f">%s</text>`,
			f.left, f.width-f.right, py(y), py(y), f.left-6, py(y)+4, html.EscapeString(c.tick(y)))
	}
	const wideTicks, narrowTicks = 10, 5
	most := wideTicks
	if class == "narrow" {
		most = narrowTicks
	}
	ticks := c.xTicks
	if ticks == nil {
		ticks = linearTicks(first, last, most)
	}
	for i, x := range ticks {
		anchor := "middle"
		if i == len(ticks)-1 && px(x) > f.width-f.right-20 {
			anchor = "end"
		}
		fmt.Fprintf(&out, `<line class="grid" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/><text class="tick" text-anchor="%s" x="%.1f" y="%.1f">%s</text>`,
			px(x), px(x), f.top, f.height-f.bottom, anchor, px(x), f.height-f.bottom+16, html.EscapeString(c.xLabel(x)))
	}
	fmt.Fprintf(&out, `<text class="tick unit" text-anchor="end" x="%.1f" y="%.1f">%s</text>`, f.width-f.right, f.height-4, html.EscapeString(c.xUnit))
	for _, l := range c.lines {
		c.drawLine(&out, l, px, py, f)
	}
	c.drawPoints(&out, px, py, f)
	out.WriteString("</svg>")
	return out.String()
}

func (c *chart) drawLine(out *strings.Builder, l line, px, py func(float64) float64, f frame) {
	var path strings.Builder
	gap := func(i int) bool { return i < 0 || i >= len(l.y) || math.IsNaN(l.y[i]) }
	for i, y := range l.y {
		if gap(i) {
			continue
		}
		command := "L"
		if gap(i - 1) {
			command = "M"
			if gap(i + 1) {
				fmt.Fprintf(out, `<circle class="dot %s" cx="%.1f" cy="%.1f" r="3"/>`, l.class, px(c.x[i]), py(y))
			}
		}
		fmt.Fprintf(&path, "%s%.1f %.1f", command, px(c.x[i]), py(y))
	}
	if l.area && len(l.y) > 0 {
		fmt.Fprintf(out, `<path class="area %s" d="%sL%.1f %.1fL%.1f %.1fZ"/>`, l.class, path.String(),
			px(c.x[len(l.y)-1]), f.height-f.bottom, px(c.x[0]), f.height-f.bottom)
	}
	fmt.Fprintf(out, `<path class="line %s" d="%s"/>`, l.class, path.String())
}

// drawPoints puts what a browser shows under the pointer: the values at each x.
func (c *chart) drawPoints(out *strings.Builder, px, py func(float64) float64, f frame) {
	const most = 600
	step := max(1, len(c.x)/most)
	for i := 0; i < len(c.x); i += step {
		from, to := f.left, f.width-f.right
		if i >= step {
			from = (px(c.x[i-step]) + px(c.x[i])) / 2
		}
		if i+step < len(c.x) {
			to = (px(c.x[i]) + px(c.x[i+step])) / 2
		}
		var text, dots strings.Builder
		text.WriteString(c.xLabel(c.x[i]) + " " + c.xUnit)
		for _, l := range c.lines {
			if i >= len(l.y) {
				continue
			}
			if math.IsNaN(l.y[i]) {
				fmt.Fprintf(&text, "\n%s: none", l.name)
				continue
			}
			fmt.Fprintf(&text, "\n%s %s %s", l.name, c.label(l.y[i]), c.unit)
			fmt.Fprintf(&dots, `<circle class="dot %s" cx="%.1f" cy="%.1f" r="3"/>`, l.class, px(c.x[i]), py(l.y[i]))
		}
		fmt.Fprintf(out, `<g class="point"><rect x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>%s<title>%s</title></g>`,
			from, f.top, max(to-from, 0), f.height-f.top-f.bottom, dots.String(), html.EscapeString(text.String()))
	}
}

// tick is the label of an axis; those of a logarithmic one are powers of ten.
func (c *chart) tick(y float64) string {
	if c.logY && y < 1000 {
		return fmt.Sprintf("%g", y)
	}
	return c.label(y)
}

// bounds of y: from zero, or on a logarithmic axis from a power of ten.
func (c *chart) bounds() (low, high float64) {
	low, high = math.Inf(1), 0
	for _, l := range c.lines {
		for _, y := range l.y {
			if math.IsNaN(y) {
				continue
			}
			high = max(high, y)
			if y > 0 {
				low = min(low, y)
			}
		}
	}
	if high <= 0 {
		return 0.1, 1
	}
	if !c.logY {
		return 0, niceCeil(high)
	}
	low = math.Pow(10, math.Floor(math.Log10(low)))
	high = math.Pow(10, math.Ceil(math.Log10(high)))
	if high <= low {
		high = 10 * low
	}
	return low, high
}

func (c *chart) yTicks(low, high float64) []float64 {
	if !c.logY {
		const most = 5
		return linearTicks(low, high, most)
	}
	var list []float64
	for y := low; y <= high*1.001; y *= 10 {
		list = append(list, y)
	}
	return list
}

// linearTicks are round numbers, at most so many or one more.
func linearTicks(from, to float64, most int) []float64 {
	if to <= from {
		return []float64{from}
	}
	raw := (to - from) / float64(most)
	base := math.Pow(10, math.Floor(math.Log10(raw)))
	step := 10 * base
	for _, f := range []float64{1, 2, 2.5, 5} {
		if raw <= f*base*(1+1e-9) {
			step = f * base
			break
		}
	}
	var list []float64
	for v := math.Ceil(from/step) * step; v <= to+step*1e-6; v += step {
		list = append(list, v)
	}
	return list
}
