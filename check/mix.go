package check

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Mix is the weight of each kind of operation, by its name.
type Mix map[string]int

// kind of operation that a session may do.
type kind struct {
	name   string
	weight int
	do     func(s *session, ctx context.Context)
	what   string
}

// kinds of traffic. Leases and watches have clients of their own.
func kinds() []kind {
	return []kind{
		{"put", 28, (*session).put, "write a key"},
		{"delete", 6, (*session).remove, "delete a key, or a few in a row"},
		{"get", 14, (*session).get, "read a key"},
		{"list", 6, (*session).list, "read many keys, with and without a limit"},
		{"serializable", 8, (*session).serializable, "read what a member has by itself"},
		{"old", 6, (*session).old, "read at an earlier revision"},
		{"cas", 16, (*session).swap, "write a key if it is still as it was seen"},
		{"txn", 12, (*session).several, "write and read several keys at once"},
		{past, 0, (*session).past, "write and read the past at once; not by itself"},
		{"impatient", 2, (*session).impatient, "write, and give up before there can be an answer"},
	}
}

// past is done only where it is asked for. Up to 3.6 and the first of 3.7, a member
// that refuses such a transaction, since its revision is compacted, is the only one to
// refuse: the others carry it out, and differ from then on (etcd #18667).
const past = "past"

// most is the largest weight.
const most = 1000

// DefaultMix has something of everything.
func DefaultMix() Mix {
	m := Mix{}
	for _, k := range kinds() {
		if k.weight > 0 {
			m[k.name] = k.weight
		}
	}
	return m
}

// ParseMix reads put=3,get=1: what is not named is not done.
func ParseMix(text string) (Mix, error) {
	m := Mix{}
	for part := range strings.SplitSeq(text, ",") {
		name, weight, ok := strings.Cut(strings.TrimSpace(part), "=")
		n, err := strconv.Atoi(weight)
		if !ok || err != nil {
			return nil, fmt.Errorf("%w: the mix has %q: write such as put=3,get=1", ErrOptions, part)
		}
		m[name] = n
	}
	return m, m.validate()
}

// MixNames are the kinds of operations, with what they do.
func MixNames() (names, what []string) {
	for _, k := range kinds() {
		names, what = append(names, k.name), append(what, k.what)
	}
	return names, what
}

// String is what ParseMix reads.
func (m Mix) String() string {
	parts := make([]string, 0, len(m))
	for _, k := range kinds() {
		if w, ok := m[k.name]; ok {
			parts = append(parts, k.name+"="+strconv.Itoa(w))
		}
	}
	return strings.Join(parts, ",")
}

func (m Mix) validate() error {
	names, _ := MixNames()
	sum := 0
	for _, name := range slices.Sorted(maps.Keys(m)) {
		switch {
		case !slices.Contains(names, name):
			return fmt.Errorf("%w: the mix has %q: use %s", ErrOptions, name, strings.Join(names, ", "))
		case m[name] < 0 || m[name] > most:
			return fmt.Errorf("%w: %s has the weight %d in the mix: choose 0 to %d", ErrOptions, name, m[name], most)
		}
		sum += m[name]
	}
	if sum == 0 {
		return fmt.Errorf("%w: nothing is in the mix: give something a weight above 0, such as put=3,get=1", ErrOptions)
	}
	return nil
}

// chooser picks kinds by weight.
type chooser struct {
	all []kind
	sum int
}

func (m Mix) chooser() chooser {
	c := chooser{}
	for _, k := range kinds() {
		if k.weight = m[k.name]; k.weight > 0 {
			c.all = append(c.all, k)
			c.sum += k.weight
		}
	}
	return c
}

// pick chooses by a number below the sum of all weights.
func (c chooser) pick(n int) kind {
	for _, k := range c.all {
		if n -= k.weight; n < 0 {
			return k
		}
	}
	return c.all[0]
}
