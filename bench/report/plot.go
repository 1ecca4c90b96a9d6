package report

import (
	"math"
	"strings"

	"github.com/quorate/quorate/bench"
)

const (
	plotHeight = 7
	plotMargin = 11
	leastPlot  = 60
)

var blocks = []rune(" ▁▂▃▄▅▆▇█")

// plots draws throughput and latency over time.
func (p *page) plots(r *bench.Result) {
	columns := min(p.width()-plotMargin-1, max(len(r.Series), leastPlot))
	throughput := fold(r.Series, columns, func(s bench.Slice) float64 { return s.OpsPerSecond }, average)
	p99 := fold(r.Series, columns, func(s bench.Slice) float64 { return s.P99 }, largest)
	most := fold(r.Series, columns, func(s bench.Slice) float64 { return s.Max }, largest)
	span := r.Series[len(r.Series)-1].At
	p.printf("\n%s\n", p.paint("dim", "throughput, op/s"))
	p.plot(throughput, nil, span, number)
	p.printf("\n%s\n", p.paint("dim", "latency, ms: p99 as bars, the maximum as dots"))
	p.plot(p99, most, span, ms)
}

// fold brings a series to a number of columns: several slices share one, or each
// takes several.
func fold(series []bench.Slice, columns int, of func(bench.Slice) float64, join func([]float64) float64) []float64 {
	out := make([]float64, columns)
	for c := range out {
		from, to := c*len(series)/columns, (c+1)*len(series)/columns
		to = max(to, from+1)
		values := make([]float64, 0, to-from)
		for _, s := range series[from:to] {
			values = append(values, of(s))
		}
		out[c] = join(values)
	}
	return out
}

func average(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

func largest(v []float64) float64 {
	most := 0.0
	for _, x := range v {
		most = max(most, x)
	}
	return most
}

// plot draws bars of blocks, with dots above where they are given.
func (p *page) plot(bars, dots []float64, span float64, label func(float64) string) {
	top := max(largest(bars), largest(dots))
	if top <= 0 {
		top = 1
	}
	top = niceCeil(top)
	const eighths = 8
	for row := plotHeight - 1; row >= 0; row-- {
		var line strings.Builder
		for c, v := range bars {
			filled := int(math.Round(v / top * plotHeight * eighths))
			cell := min(max(filled-row*eighths, 0), eighths)
			r := blocks[cell]
			if dots != nil && cell == 0 && dots[c] > 0 && dotRow(dots[c], top) == row {
				r = '·'
			}
			line.WriteRune(r)
		}
		name := ""
		switch row {
		case plotHeight - 1:
			name = label(top)
		case plotHeight / 2:
			name = label(top / 2)
		case 0:
			name = "0"
		}
		p.printf("%*s %s%s\n", plotMargin-2, name, p.paint("dim", "│"), strings.TrimRight(line.String(), " "))
	}
	end := duration(span)
	p.printf("%*s %s\n", plotMargin-2, "", p.paint("dim", "└"+strings.Repeat("─", max(len(bars)-len(end)-1, 1))+" "+end))
}

func dotRow(v, top float64) int {
	return min(max(int(math.Ceil(v/top*plotHeight))-1, 0), plotHeight-1)
}

// niceCeil is the next 1, 1.5, 2, 3, 4, 5, 6 or 8 times a power of ten.
func niceCeil(v float64) float64 {
	if v <= 0 {
		return 1
	}
	base := math.Pow(10, math.Floor(math.Log10(v)))
	for _, f := range []float64{1, 1.5, 2, 3, 4, 5, 6, 8, 10} {
		if v <= f*base*(1+1e-9) {
			return f * base
		}
	}
	return 10 * base
}
