package web

import (
	"math"
	"strings"

	"github.com/quorate/quorate/api/v1alpha1"
)

// The picture of a quorum, in the units of its SVG.
const (
	drawingWidth = 340.0
	centerX      = drawingWidth / 2
	ringRadius   = 92.0
	// wideRadius is that of more members than ringMost, whose names need the room.
	wideRadius = 112.0
	ringMost   = 5
	// aboveRing is the room for the topmost node and its name.
	aboveRing  = 60.0
	nodeRadius = 21.0
)

// drawing is the picture of a cluster's members on a circle, with a link from the
// leader to each that follows it.
type drawing struct {
	Nodes []node
	Links []link
	// Ring: there are several, so that a circle joins them.
	Ring bool
	// Y is the middle of the circle, and Radius its own.
	Y, Radius float64
	// Height that the nodes and their names take.
	Height float64
}

type node struct {
	Name, Label string
	X, Y        float64
	// NameY and RoleY are where its name and its part stand: outside of the circle.
	NameY, RoleY float64
	Up, Leader   bool
	Learner      bool
	// View of the member; nil when it is Missing.
	View *v1alpha1.MemberView
	// Missing: it is wanted, and nothing of it is known.
	Missing bool
}

type link struct {
	X1, Y1, X2, Y2 float64
	// Up: entries flow. Otherwise it is where they would.
	Up bool
}

// draw places members by their order, which does not change when roles do: a
// picture whose parts jump tells nothing.
func draw(members []v1alpha1.MemberView, wanted int) drawing {
	n := max(len(members), wanted)
	d := drawing{Ring: n > 1, Radius: ringRadius}
	if n > ringMost {
		d.Radius = wideRadius
	}
	d.Y = d.Radius + aboveRing
	leader := -1
	for i := range n {
		angle := 2*math.Pi*float64(i)/float64(n) - math.Pi/2
		radius := d.Radius
		if n == 1 {
			radius *= 0.6
		}
		p := node{X: round(centerX + radius*math.Cos(angle)), Y: round(d.Y + radius*math.Sin(angle)), Missing: i >= len(members)}
		p.place(angle)
		if !p.Missing {
			m := &members[i]
			p.View, p.Name, p.Label = m, m.Name, ordinal(m.Name)
			p.Up, p.Leader, p.Learner = m.Healthy, m.Role == v1alpha1.RoleLeader, m.Role == v1alpha1.RoleLearner
			if p.Leader {
				leader = i
			}
		}
		d.Nodes = append(d.Nodes, p)
	}
	for i := range d.Nodes {
		d.Height = max(d.Height, d.Nodes[i].Y+nodeRadius+43, d.Y+d.Radius/2)
		switch {
		case leader >= 0 && i != leader:
			d.Links = append(d.Links, between(&d.Nodes[leader], &d.Nodes[i], d.Nodes[i].Up))
		case leader < 0:
			if next := (i + 1) % n; n > 1 && (n > 2 || i == 0) {
				d.Links = append(d.Links, between(&d.Nodes[i], &d.Nodes[next], false))
			}
		}
	}
	return d
}

// place puts the texts outside of the circle, below or above the node.
func (p *node) place(angle float64) {
	// A leader's halo is 5 wider than its node.
	const line = 16
	p.NameY = p.Y + nodeRadius + 20
	if math.Sin(angle) < -0.2 {
		p.NameY = p.Y - nodeRadius - 13 - line
	}
	p.RoleY = p.NameY + line
}

// between joins two nodes from rim to rim.
func between(a, b *node, up bool) link {
	dx, dy := b.X-a.X, b.Y-a.Y
	length := math.Hypot(dx, dy)
	if length == 0 {
		return link{X1: a.X, Y1: a.Y, X2: b.X, Y2: b.Y, Up: up}
	}
	const gap = nodeRadius + 5
	ux, uy := dx/length*gap, dy/length*gap
	return link{X1: round(a.X + ux), Y1: round(a.Y + uy), X2: round(b.X - ux), Y2: round(b.Y - uy), Up: up}
}

func round(f float64) float64 { return math.Round(f*10) / 10 }

// ordinal is the number at the end of a member's name, or what fits into its node.
func ordinal(name string) string {
	if i := strings.LastIndexByte(name, '-'); i >= 0 && i < len(name)-1 && len(name)-i <= 4 {
		return name[i+1:]
	}
	return shortText(name, 5)
}
