package load

import (
	"cmp"
	"slices"
	"time"
)

// Missing returns the acknowledged records that have (by key) lacks, or has with
// another value.
func Missing(records []Record, have map[string]string) []Record {
	var missing []Record
	for _, r := range records {
		if r.Acked.IsZero() {
			continue
		}
		if value, ok := have[r.Key]; !ok || value != r.Value {
			missing = append(missing, r)
		}
	}
	return missing
}

// Gap returns the time from fault to the first acknowledgement of a write that was
// sent after dead, the moment at which the fault was seen to have struck; false if
// there is none yet. A put is linearizable.
func Gap(records []Record, fault, dead time.Time) (time.Duration, bool) {
	var first time.Time
	for _, r := range records {
		if !r.Acked.IsZero() && r.Sent.After(dead) && (first.IsZero() || r.Acked.Before(first)) {
			first = r.Acked
		}
	}
	if first.IsZero() {
		return 0, false
	}
	return first.Sub(fault), true
}

// Stall returns the longest time between two acknowledgements, one after another,
// that touches the span from..to.
func Stall(records []Record, from, to time.Time) time.Duration {
	acks := make([]time.Time, 0, len(records))
	for _, r := range records {
		if !r.Acked.IsZero() {
			acks = append(acks, r.Acked)
		}
	}
	slices.SortFunc(acks, time.Time.Compare)
	longest := time.Duration(0)
	for i := 1; i < len(acks); i++ {
		if acks[i].After(from) && acks[i-1].Before(to) {
			longest = max(longest, acks[i].Sub(acks[i-1]))
		}
	}
	return longest
}

// Failed returns the writes sent within from..to that were not acknowledged, by
// the time at which they were sent.
func Failed(records []Record, from, to time.Time) []Record {
	var failed []Record
	for _, r := range records {
		if r.Acked.IsZero() && !r.Sent.Before(from) && !r.Sent.After(to) {
			failed = append(failed, r)
		}
	}
	slices.SortFunc(failed, func(a, b Record) int { return a.Sent.Compare(b.Sent) })
	return failed
}

// Summary counts a run.
type Summary struct {
	// Sent, Acked and Failed writes; those that were due and not begun are among the
	// failed.
	Sent, Acked, Failed int
	// Rate that was reached, in writes begun a second.
	Rate float64
	// P99 is the 99th percentile of the acknowledged writes' latencies.
	P99 time.Duration
}

// Summarize counts records.
func Summarize(records []Record) Summary {
	var s Summary
	if len(records) == 0 {
		return s
	}
	first, last := records[0].Sent, records[0].Sent
	var latencies []time.Duration
	for _, r := range records {
		s.Sent++
		if r.Sent.Before(first) {
			first = r.Sent
		}
		if r.Sent.After(last) {
			last = r.Sent
		}
		if r.Acked.IsZero() {
			s.Failed++
			continue
		}
		s.Acked++
		latencies = append(latencies, r.Acked.Sub(r.Sent))
	}
	if span := last.Sub(first).Seconds(); span > 0 {
		s.Rate = float64(s.Sent) / span
	}
	if len(latencies) > 0 {
		slices.SortFunc(latencies, cmp.Compare[time.Duration])
		s.P99 = latencies[len(latencies)*99/100]
	}
	return s
}
