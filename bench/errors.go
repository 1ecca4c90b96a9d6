package bench

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// class of an error.
type class int

const (
	classNone class = iota
	classClientTimeout
	classServerTimeout
	classUnavailable
	classTooMany
	classNoSpace
	classDropped
	classUnfinished
	classOther
	classes
)

// ErrorCounts are errors by their class.
type ErrorCounts struct {
	// ClientTimeouts were given up here, ServerTimeouts by etcd ("request timed out").
	ClientTimeouts int64 `json:"clientTimeouts"`
	ServerTimeouts int64 `json:"serverTimeouts"`
	// Unavailable: no connection, no leader, leader changed.
	Unavailable int64 `json:"unavailable"`
	// TooManyRequests: etcd applies more slowly than it commits.
	TooManyRequests int64 `json:"tooManyRequests"`
	NoSpace         int64 `json:"noSpace"`
	// Dropped were due in an open loop and never sent, since MaxInFlight were under way.
	Dropped int64 `json:"dropped"`
	// Unfinished were under way, without an answer, when the load was ended early; their
	// latency is how long they had waited by then.
	Unfinished int64 `json:"unfinished"`
	Other      int64 `json:"other"`
}

// Total of all classes.
func (e ErrorCounts) Total() int64 {
	return e.ClientTimeouts + e.ServerTimeouts + e.Unavailable + e.TooManyRequests + e.NoSpace + e.Dropped + e.Unfinished + e.Other
}

// Add sums two counts.
func (e ErrorCounts) Add(o ErrorCounts) ErrorCounts {
	return ErrorCounts{
		e.ClientTimeouts + o.ClientTimeouts, e.ServerTimeouts + o.ServerTimeouts, e.Unavailable + o.Unavailable,
		e.TooManyRequests + o.TooManyRequests, e.NoSpace + o.NoSpace, e.Dropped + o.Dropped,
		e.Unfinished + o.Unfinished, e.Other + o.Other,
	}
}

func countsOf(c *[classes]int64) ErrorCounts {
	return ErrorCounts{
		c[classClientTimeout], c[classServerTimeout], c[classUnavailable], c[classTooMany], c[classNoSpace], c[classDropped],
		c[classUnfinished], c[classOther],
	}
}

// Named counts, as reports show them; those of zero are left out.
func (e ErrorCounts) Named() []NamedCount {
	all := []NamedCount{
		{"client timeout", e.ClientTimeouts},
		{"server timeout", e.ServerTimeouts},
		{"unavailable", e.Unavailable},
		{"too many requests", e.TooManyRequests},
		{"no space", e.NoSpace},
		{"dropped", e.Dropped},
		{"unfinished", e.Unfinished},
		{"other", e.Other},
	}
	return slices.DeleteFunc(all, func(n NamedCount) bool { return n.Count == 0 })
}

// NamedCount is a count and what it counts.
type NamedCount struct {
	Name  string
	Count int64
}

// errTimeout is a request that was given up here.
var errTimeout = errors.New("no answer within the timeout")

// classOf sorts an error of a call.
func classOf(err error) class {
	switch {
	case err == nil:
		return classNone
	case errors.Is(err, errTimeout), errors.Is(err, context.DeadlineExceeded):
		return classClientTimeout
	}
	st, ok := status.FromError(err)
	if !ok {
		return classOther
	}
	text := st.Message()
	switch {
	case strings.Contains(text, "etcdserver: request timed out"), text == "etcdserver: context deadline exceeded":
		return classServerTimeout
	case strings.Contains(text, "too many requests"):
		return classTooMany
	case strings.Contains(text, "database space exceeded"):
		return classNoSpace
	}
	switch st.Code() {
	case codes.DeadlineExceeded:
		return classClientTimeout
	case codes.Unavailable:
		return classUnavailable
	default:
		return classOther
	}
}

// mostTexts bounds how many different errors are kept.
const mostTexts = 20

// errorTexts counts errors by what they say. It is safe for concurrent use.
type errorTexts struct {
	mu     sync.Mutex
	counts map[string]int64
}

func (t *errorTexts) add(err error) {
	text := err.Error()
	if st, ok := status.FromError(err); ok {
		text = st.Message()
	}
	const longest = 200
	text = text[:min(len(text), longest)]
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts = map[string]int64{}
	}
	if _, known := t.counts[text]; !known && len(t.counts) >= mostTexts {
		text = "others"
	}
	t.counts[text]++
}

// list is by count, most first.
func (t *errorTexts) list() []ErrorText {
	t.mu.Lock()
	defer t.mu.Unlock()
	return sortedTexts(t.counts)
}

func sortedTexts(counts map[string]int64) []ErrorText {
	list := make([]ErrorText, 0, len(counts))
	for text, n := range counts {
		list = append(list, ErrorText{text, n})
	}
	slices.SortFunc(list, func(a, b ErrorText) int {
		if a.Count != b.Count {
			return int(max(-1, min(1, b.Count-a.Count)))
		}
		return strings.Compare(a.Text, b.Text)
	})
	return list
}
