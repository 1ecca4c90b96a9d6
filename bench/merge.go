package bench

import (
	"errors"
	"fmt"
	"slices"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// ErrMerge says that results can't be merged.
var ErrMerge = errors.New("the results can't be merged")

// Merge makes one result of those that several hosts had of the same load at the same
// time. Percentiles come from the merged histograms; those of the time series only
// where each slice kept its own (Spec.SliceHistograms), else they are left out.
func Merge(results []*Result) (*Result, error) {
	if len(results) == 0 {
		return nil, fmt.Errorf("%w: there are none", ErrMerge)
	}
	out := *results[0]
	out.Spec = results[0].Spec.Clone()
	out.Hosts, out.Notes, out.Operations, out.Series, out.Watch, out.ErrorTexts, out.Servers = nil, nil, nil, nil, nil, nil, nil
	out.Spec.Clients, out.Spec.Rate, out.Spec.Connections, out.Spec.MaxInFlight, out.Spec.Total = 0, 0, 0, 0, 0
	out.Client, out.Cleanup.Deleted, out.Cleanup.Revoked = ClientUsage{HostCPU: -1}, 0, 0
	texts := map[string]int64{}
	var operations []string
	for _, r := range results {
		if r.Format != Format || r.Spec.Loop != out.Spec.Loop {
			return nil, fmt.Errorf("%w: their formats or loops differ", ErrMerge)
		}
		out.mergeHeader(r)
		for _, m := range r.Operations {
			if !slices.Contains(operations, m.Name) {
				operations = append(operations, m.Name)
			}
		}
		for _, t := range r.ErrorTexts {
			texts[t.Text] += t.Count
		}
	}
	out.ErrorTexts = sortedTexts(texts)
	var err error
	if out.Total, err = mergeMeasures("all", out.Seconds, totals(results)); err != nil {
		return nil, err
	}
	for _, name := range operations {
		var of []Measure
		for _, r := range results {
			for _, m := range r.Operations {
				if m.Name == name {
					of = append(of, m)
				}
			}
		}
		m, measureErr := mergeMeasures(name, out.Seconds, of)
		if measureErr != nil {
			return nil, measureErr
		}
		out.Operations = append(out.Operations, m)
	}
	if n := out.Total.Count + out.Total.Errors.Total() - out.Total.Errors.Dropped; n > 0 {
		out.Client.CPUPerRequest = out.Client.CPUSeconds * 1e6 / float64(n)
	}
	if out.Series, err = mergeSeries(results); err != nil {
		return nil, err
	}
	if out.Watch, err = mergeWatch(results, out.Seconds); err != nil {
		return nil, err
	}
	out.Bottleneck = Bottleneck(&out)
	return &out, nil
}

func totals(results []*Result) []Measure {
	list := make([]Measure, 0, len(results))
	for _, r := range results {
		list = append(list, r.Total)
	}
	return list
}

// mergeHeader adds what is counted once for each host.
func (r *Result) mergeHeader(o *Result) {
	r.Hosts = append(r.Hosts, o.Hosts...)
	r.Interrupted = r.Interrupted || o.Interrupted
	r.Seconds = max(r.Seconds, o.Seconds)
	if o.StartedAt.Before(r.StartedAt) {
		r.StartedAt = o.StartedAt
	}
	r.Spec.Clients += o.Spec.Clients
	r.Spec.Rate += o.Spec.Rate
	r.Spec.Connections += o.Spec.Connections
	r.Spec.MaxInFlight += o.Spec.MaxInFlight
	r.Spec.Total += o.Spec.Total
	for _, n := range o.Notes {
		if !slices.Contains(r.Notes, n) {
			r.Notes = append(r.Notes, n)
		}
	}
	c := &r.Client
	c.CPUSeconds += o.Client.CPUSeconds
	c.Cores += o.Client.Cores
	c.Sent += o.Client.Sent
	c.Received += o.Client.Received
	c.MaxInFlight += o.Client.MaxInFlight
	c.LinkBytes += o.Client.LinkBytes
	c.HostCPU = max(c.HostCPU, o.Client.HostCPU)
	if o.Client.Lag != nil && (c.Lag == nil || o.Client.Lag.P99 > c.Lag.P99) {
		c.Lag = o.Client.Lag // that of the host that was latest
	}
	for _, s := range o.Servers {
		i := slices.IndexFunc(r.Servers, func(have ServerUsage) bool { return have.ID == s.ID })
		switch {
		case i < 0:
			r.Servers = append(r.Servers, s)
		case s.Seconds > r.Servers[i].Seconds:
			r.Servers[i] = s // all saw the same member: the longest look counts
		}
	}
	for _, v := range o.Versions.Etcd {
		if !slices.Contains(r.Versions.Etcd, v) {
			r.Versions.Etcd = append(slices.Clone(r.Versions.Etcd), v)
		}
	}
	r.Cleanup.Deleted += o.Cleanup.Deleted
	r.Cleanup.Revoked += o.Cleanup.Revoked
	if r.Cleanup.Error == "" {
		r.Cleanup.Error = o.Cleanup.Error
	}
}

func mergeMeasures(name string, seconds float64, list []Measure) (Measure, error) {
	out := Measure{Name: name}
	h := newHistogram()
	for _, m := range list {
		out.Count += m.Count
		out.Conflicts += m.Conflicts
		out.Errors = out.Errors.Add(m.Errors)
		if err := mergeInto(h, m.Histogram); err != nil {
			return out, err
		}
	}
	return out, out.measure(h, seconds)
}

func mergeInto(h *hdr.Histogram, raw []byte) error {
	other, err := Decode(raw)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMerge, err)
	}
	if h.Merge(other) > 0 {
		return fmt.Errorf("%w: a histogram holds more than %d s", ErrMerge, histogramMax/1_000_000)
	}
	return nil
}

// mergeSeries adds slices with the same number: hosts begin together.
func mergeSeries(results []*Result) ([]Slice, error) {
	var out []Slice
	most := 0
	for _, r := range results {
		most = max(most, len(r.Series))
	}
	for i := range most {
		var s Slice
		h := newHistogram()
		complete := true
		for _, r := range results {
			if i >= len(r.Series) {
				continue
			}
			o := r.Series[i]
			s.At, s.Seconds = max(s.At, o.At), max(s.Seconds, o.Seconds)
			s.Count += o.Count
			s.Errors += o.Errors
			s.OpsPerSecond += o.OpsPerSecond
			s.InFlight += o.InFlight
			s.Max = max(s.Max, o.Max)
			complete = complete && (len(o.Histogram) > 0 || o.Count+o.Errors == 0)
			if err := mergeInto(h, o.Histogram); err != nil {
				return nil, err
			}
		}
		if complete && h.TotalCount() > 0 {
			l := latencyOf(h)
			s.P50, s.P99 = l.P50, l.P99
			var err error
			if s.Histogram, err = encode(h); err != nil {
				return nil, err
			}
		}
		out = append(out, s)
	}
	return out, nil
}

func mergeWatch(results []*Result, seconds float64) (*WatchMeasure, error) {
	var out *WatchMeasure
	h := newHistogram()
	for _, r := range results {
		if r.Watch == nil {
			continue
		}
		if out == nil {
			out = &WatchMeasure{}
		}
		out.Watchers += r.Watch.Watchers
		out.Expected += r.Watch.Expected
		out.Delivered += r.Watch.Delivered
		out.Missing += r.Watch.Missing
		out.Undetermined += r.Watch.Undetermined
		out.Reconnects += r.Watch.Reconnects
		if err := mergeInto(h, r.Watch.Histogram); err != nil {
			return nil, err
		}
	}
	if out == nil {
		return nil, nil
	}
	out.Latency = latencyOf(h)
	if seconds > 0 {
		out.PerSecond = float64(out.Delivered) / seconds
	}
	var err error
	out.Histogram, err = encode(h)
	return out, err
}
