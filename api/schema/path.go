package schema

import (
	"slices"
	"strconv"
	"strings"
)

// path leads to a field: each step is a field's name, or "[3]" for an item, or
// "[key]" for the key of a map.
type path []string

func (p path) field(name string) path { return append(slices.Clip(p), name) }

func (p path) item(i int) path { return append(slices.Clip(p), "["+strconv.Itoa(i)+"]") }

func (p path) key(k string) path { return append(slices.Clip(p), "["+k+"]") }

// String writes the path as people and Kubernetes do: spec.names[0].
func (p path) String() string {
	var b strings.Builder
	for _, step := range p {
		if b.Len() > 0 && !strings.HasPrefix(step, "[") {
			b.WriteByte('.')
		}
		b.WriteString(step)
	}
	return b.String()
}

// parsePath undoes String.
func parsePath(s string) path {
	var p path
	for s != "" {
		switch s[0] {
		case '.':
			s = s[1:]
		case '[':
			end := strings.IndexByte(s, ']')
			if end < 0 {
				return append(p, s)
			}
			p, s = append(p, s[:end+1]), s[end+1:]
		default:
			end := strings.IndexAny(s, ".[")
			if end < 0 {
				return append(p, s)
			}
			p, s = append(p, s[:end]), s[end:]
		}
	}
	return p
}
