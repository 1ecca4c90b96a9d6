package history

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
)

// span is a run of revisions, both ends included.
type span struct{ from, to int64 }

// spans are sorted and do not touch.
type spans []span

// merged sorts spans and joins those that touch.
func merged(s spans) spans {
	slices.SortFunc(s, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	var out spans
	for _, one := range s {
		switch {
		case one.to < one.from:
		case len(out) > 0 && one.from <= out[len(out)-1].to+1:
			out[len(out)-1].to = max(out[len(out)-1].to, one.to)
		default:
			out = append(out, one)
		}
	}
	return out
}

// all says whether every revision from..to is covered; none at all is.
func (s spans) all(from, to int64) bool {
	if to < from {
		return true
	}
	i := sort.Search(len(s), func(i int) bool { return s[i].to >= from })
	return i < len(s) && s[i].from <= from && to <= s[i].to
}

func (s spans) has(rev int64) bool { return s.all(rev, rev) }

func (s spans) end() int64 {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1].to
}

// firstSeen tells when anybody first saw a revision.
type firstSeen struct {
	rev []int64 // ascending
	at  []int64 // the earliest time at which this or a higher one was seen
}

type sighting struct{ rev, at int64 }

func newFirstSeen(all []sighting) firstSeen {
	slices.SortFunc(all, func(a, b sighting) int { return cmp.Or(cmp.Compare(a.rev, b.rev), cmp.Compare(a.at, b.at)) })
	f := firstSeen{rev: make([]int64, 0, len(all)), at: make([]int64, 0, len(all))}
	for _, s := range all {
		if n := len(f.rev); n > 0 && f.rev[n-1] == s.rev {
			continue
		}
		f.rev, f.at = append(f.rev, s.rev), append(f.at, s.at)
	}
	for i := len(f.at) - 2; i >= 0; i-- {
		f.at[i] = min(f.at[i], f.at[i+1])
	}
	return f
}

// time is when the revision, or a higher one, was seen first; Never if nobody did.
func (f firstSeen) time(rev int64) int64 {
	i := sort.Search(len(f.rev), func(i int) bool { return f.rev[i] >= rev })
	if i == len(f.rev) {
		return Never
	}
	return f.at[i]
}

// index is the number of an operation, a key or a change. A history of 2^31 of them
// fits into no memory.
func index(i int) int32 {
	return int32(i) //nolint:gosec // see above
}

// fenwick counts live keys by index.
type fenwick []int32

func (f fenwick) add(i int, d int32) {
	for i++; i < len(f); i += i & -i {
		f[i] += d
	}
}

// below counts live keys of indexes < i.
func (f fenwick) below(i int) int64 {
	var n int64
	for ; i > 0; i -= i & -i {
		n += int64(f[i])
	}
	return n
}

func (s span) String() string { return fmt.Sprintf("%d to %d", s.from, s.to) }
