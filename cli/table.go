package cli

import (
	"cmp"
	"io"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// minWrap is the narrowest that a wrapped column may get.
const minWrap = 16

// grid is a table without borders.
type grid struct {
	header []string
	rows   [][]string
	// none stands for an empty cell; "-" by default.
	none string
	// ages are the indexes of the columns that change by themselves.
	ages []int
	// wrap are the indexes of the columns that are folded to fit a terminal.
	wrap []int
}

func (g *grid) add(cells ...string) { g.rows = append(g.rows, cells) }

// lasting is a row without what changes by itself.
func (g *grid) lasting(row int) string {
	var text strings.Builder
	for i, c := range g.rows[row] {
		if !slices.Contains(g.ages, i) {
			text.WriteString(c + "\x00")
		}
	}
	return text.String()
}

// widths are the columns' as write prints them.
func (g *grid) widths() []int {
	list := make([]int, len(g.header))
	for i, h := range g.header {
		list[i] = len([]rune(h))
		for _, r := range g.rows {
			if i < len(r) {
				list[i] = max(list[i], len([]rune(r[i])))
			}
		}
	}
	return list
}

// write prints the table.
func (g *grid) write(w io.Writer, terminal int) error {
	t := table.NewWriter()
	t.SetStyle(plain())
	t.SuppressTrailingSpaces()
	t.SetColumnConfigs(g.columns(terminal))
	t.AppendHeader(row(g.header, ""))
	for _, cells := range g.rows {
		t.AppendRow(row(cells, cmp.Or(g.none, "-")))
	}
	_, err := io.WriteString(w, t.Render()+"\n")
	return err
}

func row(cells []string, none string) table.Row {
	r := make(table.Row, len(cells))
	for i, c := range cells {
		if c == "" {
			c = none
		}
		r[i] = c
	}
	return r
}

// columns shares what is left of the terminal's width among those that wrap.
func (g *grid) columns(terminal int) []table.ColumnConfig {
	if terminal == 0 || len(g.wrap) == 0 {
		return nil
	}
	const gap = 3
	left := terminal
	wraps := map[int]bool{}
	for _, i := range g.wrap {
		wraps[i] = true
	}
	for i, h := range g.header {
		left -= gap
		if wraps[i] {
			continue
		}
		widest := len(h)
		for _, r := range g.rows {
			widest = max(widest, len(r[i]))
		}
		left -= widest
	}
	each := max(left/len(g.wrap), minWrap)
	configs := make([]table.ColumnConfig, 0, len(g.wrap))
	for _, i := range g.wrap {
		configs = append(configs, table.ColumnConfig{Number: i + 1, WidthMax: each, WidthMaxEnforcer: text.WrapSoft})
	}
	return configs
}

func plain() table.Style {
	s := table.StyleDefault
	s.Name = "plain"
	s.Options = table.OptionsNoBordersAndSeparators
	s.Format.Header = text.FormatUpper
	s.Box.PaddingLeft, s.Box.PaddingRight = "", "   "
	return s
}

// indent puts spaces before each line that is not empty.
func indent(s string, by int) string {
	pad := strings.Repeat(" ", by)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if l != "" {
			lines[i] = pad + l
		}
	}
	return strings.Join(lines, "\n")
}
