package cli

import (
	"io"
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
	// wrap are the indexes of the columns that are folded to fit a terminal.
	wrap []int
}

func (g *grid) add(cells ...string) { g.rows = append(g.rows, cells) }

// write prints the table. An empty cell is shown as "-".
func (g *grid) write(w io.Writer, terminal int) error {
	t := table.NewWriter()
	t.SetStyle(plain())
	t.SuppressTrailingSpaces()
	t.SetColumnConfigs(g.columns(terminal))
	t.AppendHeader(row(g.header))
	for _, cells := range g.rows {
		t.AppendRow(row(cells))
	}
	_, err := io.WriteString(w, t.Render()+"\n")
	return err
}

func row(cells []string) table.Row {
	r := make(table.Row, len(cells))
	for i, c := range cells {
		if c == "" {
			c = "-"
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
