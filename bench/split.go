package bench

import (
	"fmt"
	"strconv"
	"time"
)

// startMargin is how long hosts are given to connect before they begin together, and
// loadRate how many keys a second they are trusted to write before that.
const (
	startMargin = 3 * time.Second
	loadRate    = 5000
)

// Split divides a load among hosts, whose results Merge makes one again. Each has a
// share of clients, connections, rate and total, and keys of its own below the
// prefix; all begin at one time by their own clocks. The first reads the servers'
// metrics. It is ErrSpec when there is not a client and a request for each.
func (s *Spec) Split(hosts []string, now time.Time) ([]Spec, error) {
	whole := s.Clone()
	if err := whole.Complete(); err != nil {
		return nil, err
	}
	n := len(hosts)
	if n == 0 || whole.Clients < n {
		return nil, fmt.Errorf("%w: %d clients in each namespace can't be divided among %d hosts: give one for each at least", ErrSpec, whole.Clients, n)
	}
	if whole.Total > 0 && whole.Total < int64(n) {
		// A share of none would be one without an end.
		return nil, fmt.Errorf("%w: %d requests can't be divided among %d hosts: give one for each at least", ErrSpec, whole.Total, n)
	}
	if whole.Prefix == "" {
		whole.Prefix = fmt.Sprintf(runsBelow+"%08x/", uint32(whole.Seed)) //nolint:gosec // part of it will do
	}
	whole.StartAt = now.Add(startMargin).UTC()
	if whole.preloads() {
		whole.StartAt = whole.StartAt.Add(time.Duration(whole.Keys*whole.Namespaces) * time.Second / loadRate)
	}
	whole.SliceHistograms = true
	parts := make([]Spec, n)
	for i := range hosts {
		p := whole.Clone()
		p.Prefix = whole.Prefix + strconv.Itoa(i) + "/"
		p.Seed = whole.Seed + uint64(i)
		p.Clients = share(whole.Clients, n, i)
		p.Connections = max(1, share(whole.Connections, n, i))
		p.Total = int64(share(int(whole.Total), n, i))
		p.Rate = whole.Rate / float64(n)
		if whole.MaxInFlight > 0 {
			p.MaxInFlight = max(1, share(whole.MaxInFlight, n, i))
		}
		p.NoServers = whole.NoServers || i > 0
		parts[i] = p
	}
	return parts, nil
}

// share of the i-th of n.
func share(whole, n, i int) int {
	part := whole / n
	if i < whole%n {
		part++
	}
	return part
}
