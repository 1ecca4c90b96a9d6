package bench

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Cell of a matrix: so many namespaces with so many clients each.
type Cell struct {
	Namespaces int `json:"namespaces"`
	Clients    int `json:"clients"`
}

// OperatorsMatrix is the one that operators publish.
const OperatorsMatrix = "1x3000,1x4000,1x5000,4x4000,8x8000"

// ParseMatrix reads 1x3000,4x4000: namespaces, and clients of each.
func ParseMatrix(text string) ([]Cell, error) {
	var cells []Cell
	for part := range strings.SplitSeq(text, ",") {
		ns, clients, ok := strings.Cut(strings.ToLower(strings.TrimSpace(part)), "x")
		n, err := strconv.Atoi(ns)
		c, clientsErr := strconv.Atoi(clients)
		if !ok || err != nil || clientsErr != nil || n < 1 || c < 1 {
			return nil, fmt.Errorf("%w: the matrix holds %q: write namespaces x clients, such as 1x3000,4x4000", ErrSpec, part)
		}
		cells = append(cells, Cell{n, c})
	}
	return cells, nil
}

// Matrix is a load for each cell.
type Matrix struct {
	// Scale that the clients of each cell were divided by.
	Scale int         `json:"scale"`
	Rows  []MatrixRow `json:"rows"`
	// Interrupted: cells are missing.
	Interrupted bool `json:"interrupted,omitempty"`
	// Error says why the rest is missing, where a cell could not be run.
	Error string `json:"error,omitempty"`
}

// MatrixRow is one cell and what it carried.
type MatrixRow struct {
	// Cell as it was asked for; Clients is how many there were in each namespace.
	Cell    Cell    `json:"cell"`
	Clients int     `json:"clients"`
	Result  *Result `json:"result"`
}

// PhaseCell is a cell of a matrix that begins.
const PhaseCell = "cell"

// MatrixSpecs are the loads of the cells.
func MatrixSpecs(spec *Spec, cells []Cell, scale int) ([]Spec, error) {
	if len(cells) > 1 && spec.Keep && spec.Prefix != "" {
		return nil, fmt.Errorf("%w: the keys of the first cell would be in the way of the second: leave --keep or --prefix out", ErrSpec)
	}
	specs := make([]Spec, 0, len(cells))
	for _, c := range cells {
		s := spec.Clone()
		s.Namespaces, s.Clients = c.Namespaces, max(1, c.Clients/scale)
		if err := s.Complete(); err != nil {
			return nil, fmt.Errorf("%dx%d: %w", c.Namespaces, c.Clients, err)
		}
		specs = append(specs, s)
	}
	return specs, nil
}

// RunMatrix runs the spec for each cell, with a part of its clients if scale is more
// than 1. Namespaces and clients of the spec are not used.
func RunMatrix(ctx context.Context, spec Spec, cells []Cell, scale int, o Options) (*Matrix, error) {
	if scale < 1 {
		return nil, fmt.Errorf("%w: a scale of %d: give 1, or what clients are divided by", ErrSpec, scale)
	}
	m := &Matrix{Scale: scale}
	specs, err := MatrixSpecs(&spec, cells, scale)
	if err != nil {
		return nil, err
	}
	for i, s := range specs {
		if ctx.Err() != nil {
			m.Interrupted = true
			break
		}
		if o.Progress != nil {
			o.Progress(Progress{Phase: PhaseCell, Done: float64(i + 1), Of: float64(len(specs)), Note: fmt.Sprintf("%d namespaces × %d clients", s.Namespaces, s.Clients)})
		}
		r, err := Run(ctx, s, o)
		if err != nil {
			if ctx.Err() != nil && len(m.Rows) > 0 {
				m.Interrupted = true
				break
			}
			err = fmt.Errorf("%d namespaces × %d clients: %w", s.Namespaces, s.Clients, err)
			if len(m.Rows) == 0 {
				return nil, err
			}
			m.Error = err.Error() // what was measured until now is worth its time
			break
		}
		m.Rows = append(m.Rows, MatrixRow{Cell: cells[i], Clients: s.Clients, Result: r})
		m.Interrupted = m.Interrupted || r.Interrupted
	}
	return m, nil
}
