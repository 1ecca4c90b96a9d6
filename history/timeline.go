package history

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Measures of a timeline in text.
const (
	timelineColumns = 100
	laneColumns     = 13
	shownCalls      = 18 // there is no room for more
)

// mark is one thing on a timeline: a call from begin to end, or a message.
type mark struct {
	lane     int
	number   int // in the list below; from 1
	from, to int // ranks: times in their order
	lies     bool
	point    bool // a message
	open     bool // it has no end
	text     string
	when     string
}

// picture is a timeline, before it is drawn: times are told apart by their order
// alone, which is what counts.
type picture struct {
	lanes []string
	marks []mark
	ranks int
	left  int // things that are not shown
	title string
	rule  Rule
}

// paint puts the excerpt of a violation on lanes, one for each client and watch.
func paint(v *Violation) picture {
	p := picture{title: v.Title, rule: v.Rule}
	if v.Excerpt == nil {
		return p
	}
	p.addCalls(v)
	p.addMessages(v)
	p.near()
	p.order()
	return p
}

func (p *picture) lane(name string) int {
	if i := slices.Index(p.lanes, name); i >= 0 {
		return i
	}
	p.lanes = append(p.lanes, name)
	return len(p.lanes) - 1
}

// times are kept in from and to, in nanoseconds, until they are ranked.
func (p *picture) addCalls(v *Violation) {
	for i := range v.Excerpt.Operations {
		o := &v.Excerpt.Operations[i]
		m := mark{lane: p.lane(fmt.Sprintf("client %d", o.Client)), from: int(o.Call), to: int(o.Return), lies: slices.Contains(v.Marked, i), text: o.String()}
		m.when = at(o.Call) + " to " + at(o.Return)
		if o.Endpoint != "" {
			m.when += " of " + o.Endpoint
		}
		if o.Return == Never {
			m.open, m.when = true, at(o.Call)+", no answer"
		}
		p.marks = append(p.marks, m)
	}
}

func (p *picture) addMessages(v *Violation) {
	for i := range v.Excerpt.Watches {
		w := &v.Excerpt.Watches[i]
		name := fmt.Sprintf("watch %d", w.ID)
		if w.Truth {
			name += " (t)"
		}
		for j := range w.Responses {
			r := &w.Responses[j]
			m := mark{lane: p.lane(name), from: int(r.At), to: int(r.At), point: true, when: at(r.At)}
			m.text = messageText(r)
			for k := range r.Events {
				blamed := slices.Contains(v.MarkedWatches, w.ID) || len(v.MarkedWatches)+len(v.Marked) == 0
				m.lies = m.lies || blamed && r.Events[k].KV.ModRevision == v.Revision
			}
			p.marks = append(p.marks, m)
		}
	}
}

func messageText(r *WatchResponse) string {
	var parts []string
	for k := range r.Events {
		if k == shownKVs {
			parts = append(parts, fmt.Sprintf("… %d events", len(r.Events)))
			break
		}
		parts = append(parts, r.Events[k].String())
	}
	switch {
	case r.Created:
		parts = append(parts, fmt.Sprintf("begins at %d", r.Revision))
	case r.Progress:
		parts = append(parts, fmt.Sprintf("all up to %d was delivered", r.Revision))
	case r.Canceled:
		parts = append(parts, "ends: "+clipped(r.Error))
	}
	return strings.Join(parts, ", ")
}

// near keeps what lies next to the violation in time.
func (p *picture) near() {
	if len(p.marks) <= shownCalls {
		return
	}
	var center []int
	for i := range p.marks {
		if p.marks[i].lies {
			center = append(center, p.marks[i].from)
		}
	}
	if len(center) == 0 {
		center = []int{p.marks[len(p.marks)-1].from}
	}
	away := func(m mark) int {
		least := Never
		for _, c := range center {
			least = min(least, max(m.from-c, c-m.from))
		}
		return least
	}
	slices.SortStableFunc(p.marks, func(a, b mark) int { return cmp.Compare(away(a), away(b)) })
	p.left = len(p.marks) - shownCalls
	p.marks = p.marks[:shownCalls]
}

// order ranks the times, and numbers the marks by them.
func (p *picture) order() {
	slices.SortStableFunc(p.marks, func(a, b mark) int { return cmp.Compare(a.from, b.from) })
	var times []int
	for i := range p.marks {
		times = append(times, p.marks[i].from)
		if !p.marks[i].open {
			times = append(times, p.marks[i].to)
		}
	}
	slices.Sort(times)
	times = slices.Compact(times)
	used := map[int]bool{}
	for i := range p.marks {
		m := &p.marks[i]
		m.number = i + 1
		m.from, _ = slices.BinarySearch(times, m.from)
		if m.open {
			m.to = len(times)
		} else {
			m.to, _ = slices.BinarySearch(times, m.to)
		}
		used[m.lane] = true
	}
	p.ranks = len(times) + 1
	lanes := make([]string, 0, len(p.lanes))
	to := map[int]int{}
	for i, name := range p.lanes {
		if used[i] {
			lanes = append(lanes, name)
		}
	}
	slices.SortFunc(lanes, byNumber)
	for i, name := range p.lanes {
		to[i] = slices.Index(lanes, name)
	}
	p.lanes = lanes
	for i := range p.marks {
		p.marks[i].lane = to[p.marks[i].lane]
	}
}

// byNumber puts client 9 before client 10, and clients before watches.
func byNumber(a, b string) int {
	wordA, restA, _ := strings.Cut(a, " ")
	wordB, restB, _ := strings.Cut(b, " ")
	return cmp.Or(cmp.Compare(wordA, wordB), cmp.Compare(len(strings.TrimSuffix(restA, " (t)")), len(strings.TrimSuffix(restB, " (t)"))), cmp.Compare(restA, restB))
}

// places gives each rank a column (or another unit), so that every mark has room for
// what is in it.
func (p *picture) places(need func(m *mark) int) []int {
	at := make([]int, p.ranks)
	free := make([]int, len(p.lanes)) // by lane: first column behind its last mark
	for rank := range at {
		if rank > 0 {
			at[rank] = at[rank-1] + 1
		}
		for i := range p.marks {
			m := &p.marks[i]
			if m.from == rank {
				at[rank] = max(at[rank], free[m.lane])
			}
			if m.to == rank && m.from < rank {
				at[rank] = max(at[rank], at[m.from]+need(m)-1)
			}
		}
		for i := range p.marks {
			m := &p.marks[i]
			if m.from == rank {
				free[m.lane] = max(free[m.lane], at[rank]+need(m)+1)
			}
			if m.to == rank {
				free[m.lane] = max(free[m.lane], at[rank]+2)
			}
		}
	}
	return at
}

// Timeline draws the excerpt of a violation for a terminal, in lines of at most 100
// columns: a lane for each client and each watch, time from left to right (in order,
// not to scale), then what the numbers stand for. What breaks the promise is drawn
// heavy and marked with ▶. It is empty where there is no excerpt.
func Timeline(v *Violation) string {
	p := paint(v)
	if len(p.marks) == 0 {
		return ""
	}
	at := p.places(func(m *mark) int {
		digits := len(strconv.Itoa(m.number))
		if m.point {
			return digits + 1
		}
		return digits + 3
	})
	width := timelineColumns - laneColumns
	if last := at[len(at)-1] + 1; last > width { // squeezed: numbers may run into each other
		for i := range at {
			at[i] = at[i] * (width - 1) / (last - 1)
		}
	}
	var b strings.Builder
	for lane, name := range p.lanes {
		row := []rune(strings.Repeat("·", width))
		for i := range p.marks {
			if m := &p.marks[i]; m.lane == lane {
				draw(row, m, at)
			}
		}
		b.WriteString(fmt.Sprintf("%-*s", laneColumns, cut(name, laneColumns-1)) + strings.TrimRight(string(row), "·") + "\n")
	}
	b.WriteString("\n")
	for i := range p.marks {
		m := &p.marks[i]
		sign := "  "
		if m.lies {
			sign = "▶ "
		}
		head := fmt.Sprintf("%s%2d  %-*s", sign, m.number, laneColumns-1, cut(p.lanes[m.lane], laneColumns-1))
		b.WriteString(head + cut(m.text, timelineColumns-utf8.RuneCountInString(head)) + "\n")
		b.WriteString(strings.Repeat(" ", laneColumns+5) + cut(m.when, timelineColumns-laneColumns-5) + "\n")
	}
	if p.left > 0 {
		fmt.Fprintf(&b, "  and %d more that are further away in time\n", p.left)
	}
	return b.String()
}

// draw puts a mark on its lane.
func draw(row []rune, m *mark, at []int) {
	from, to := at[m.from], min(at[min(m.to, len(at)-1)], len(row)-1)
	number := []rune(strconv.Itoa(m.number))
	if m.point {
		put := append([]rune{'◇'}, number...)
		if m.lies {
			put[0] = '◆'
		}
		copy(row[min(from, len(row)-1):], put)
		return
	}
	left, line, right := '├', '─', '┤'
	if m.lies {
		left, line, right = '┣', '━', '┫'
	}
	for i := from; i <= to; i++ {
		row[i] = line
	}
	row[from], row[to] = left, right
	if m.open {
		row[to] = '…'
	}
	if to-from > len(number) {
		copy(row[from+1:to], number)
	}
}

// cut shortens a text to so many columns.
func cut(s string, columns int) string {
	if utf8.RuneCountInString(s) <= columns {
		return s
	}
	return string([]rune(s)[:max(columns-1, 0)]) + "…"
}
