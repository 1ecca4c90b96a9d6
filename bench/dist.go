package bench

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
)

// Kinds of sizes.
const (
	Fixed     = "fixed"
	Within    = "uniform"
	Normal    = "normal"
	LogNormal = "lognormal"
	Listed    = "list"
)

// Sizes is a distribution of sizes in bytes.
type Sizes struct {
	Kind string `json:"kind"`
	// Min is the size of Fixed, and the least of the others; Max their largest.
	Min int `json:"min,omitempty"`
	Max int `json:"max,omitempty"`
	// Mean and Deviation of Normal. To LogNormal, Mean is the median, and Deviation
	// that of the logarithm.
	Mean      float64 `json:"mean,omitempty"`
	Deviation float64 `json:"deviation,omitempty"`
	// List of sizes, each as probable as the others.
	List []int `json:"list,omitempty"`
}

// ParseSizes reads 256, 100-1000, normal:1000:200, lognormal:1000:0.5 or
// 128,1024,4096. K and M are 1024 and its square.
func ParseSizes(text string) (Sizes, error) {
	bad := fmt.Errorf("%w: the size is %q: write such as 256, 4K, 100-1000, normal:1000:200, lognormal:1000:0.5 or 128,1024,4096", ErrSpec, text)
	if name, rest, ok := strings.Cut(text, ":"); ok {
		mean, dev, two := strings.Cut(rest, ":")
		m, err := parseSize(mean)
		d, devErr := strconv.ParseFloat(dev, 64)
		if err != nil || devErr != nil || !two || !(d >= 0) || name != Normal && name != LogNormal {
			return Sizes{}, bad
		}
		return Sizes{Kind: name, Mean: float64(m), Deviation: d}, nil
	}
	if strings.Contains(text, ",") {
		s := Sizes{Kind: Listed}
		for part := range strings.SplitSeq(text, ",") {
			n, err := parseSize(part)
			if err != nil {
				return Sizes{}, bad
			}
			s.List = append(s.List, n)
		}
		return s, nil
	}
	low, high, ranged := strings.Cut(text, "-")
	from, err := parseSize(low)
	if err != nil {
		return Sizes{}, bad
	}
	if !ranged {
		return Sizes{Kind: Fixed, Min: from}, nil
	}
	to, err := parseSize(high)
	if err != nil || to < from {
		return Sizes{}, bad
	}
	return Sizes{Kind: Within, Min: from, Max: to}, nil
}

func parseSize(text string) (int, error) {
	text = strings.TrimSpace(text)
	unit := 1
	switch {
	case strings.HasSuffix(text, "K"):
		text, unit = strings.TrimSuffix(text, "K"), 1<<10
	case strings.HasSuffix(text, "M"):
		text, unit = strings.TrimSuffix(text, "M"), 1<<20
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > 1<<30/unit {
		return 0, fmt.Errorf("%w: %q is no size", ErrSpec, text)
	}
	return n * unit, nil
}

// String is what ParseSizes reads.
func (s Sizes) String() string {
	switch s.Kind {
	case Within:
		return fmt.Sprintf("%d-%d", s.Min, s.Max)
	case Normal, LogNormal:
		return fmt.Sprintf("%s:%g:%g", s.Kind, s.Mean, s.Deviation)
	case Listed:
		parts := make([]string, 0, len(s.List))
		for _, n := range s.List {
			parts = append(parts, strconv.Itoa(n))
		}
		return strings.Join(parts, ",")
	default:
		return strconv.Itoa(s.Min)
	}
}

func (s *Sizes) check(what string, least, most int) error {
	bad := func(n int) error {
		return fmt.Errorf("%w: a %s of %d bytes: give %d to %d", ErrSpec, what, n, least, most)
	}
	outside := func(n int) bool { return n < least || n > most }
	switch s.Kind {
	case Fixed:
		if outside(s.Min) {
			return bad(s.Min)
		}
	case Within:
		if outside(s.Min) {
			return bad(s.Min)
		}
		if outside(s.Max) || s.Max < s.Min {
			return bad(s.Max)
		}
	case Normal, LogNormal:
		if outside(int(s.Mean)) {
			return bad(int(s.Mean))
		}
		widest := float64(most)
		if s.Kind == LogNormal {
			widest = 4
		}
		if !(s.Deviation >= 0 && s.Deviation <= widest) { // which is not so of NaN, either
			return fmt.Errorf("%w: the deviation of the %s size is %g: give 0 to %g", ErrSpec, what, s.Deviation, widest)
		}
		s.Min, s.Max = max(s.Min, least), most
	case Listed:
		if len(s.List) == 0 {
			return fmt.Errorf("%w: the list of %s sizes is empty", ErrSpec, what)
		}
		for _, n := range s.List {
			if outside(n) {
				return bad(n)
			}
		}
	default:
		return fmt.Errorf("%w: the %s size is of kind %q: use fixed, uniform, normal, lognormal or list", ErrSpec, what, s.Kind)
	}
	return nil
}

// draw takes one size.
func (s *Sizes) draw(r *rand.Rand) int {
	switch s.Kind {
	case Within:
		return s.Min + r.IntN(s.Max-s.Min+1)
	case Normal:
		return s.clamp(s.Mean + r.NormFloat64()*s.Deviation)
	case LogNormal:
		return s.clamp(s.Mean * math.Exp(r.NormFloat64()*s.Deviation))
	case Listed:
		return s.List[r.IntN(len(s.List))]
	default:
		return s.Min
	}
}

func (s *Sizes) clamp(v float64) int { return int(min(max(v, float64(s.Min)), float64(s.Max))) }

// largest size that can be drawn.
func (s *Sizes) largest() int {
	switch s.Kind {
	case Fixed:
		return s.Min
	case Listed:
		most := 0
		for _, n := range s.List {
			most = max(most, n)
		}
		return most
	default:
		return s.Max
	}
}

// Kinds of skew.
const (
	Uniform    = "uniform"
	Zipf       = "zipf"
	Sequential = "sequential"
	HotSet     = "hot"
)

// Skew says which keys are asked for how often.
type Skew struct {
	Kind string `json:"kind"`
	// Exponent of Zipf, above 1.
	Exponent float64 `json:"exponent,omitempty"`
	// Share of the keys that is hot takes Hits of the requests; both 0 to 1.
	Share float64 `json:"share,omitempty"`
	Hits  float64 `json:"hits,omitempty"`
}

// ParseSkew reads uniform, sequential, zipf, zipf:1.2, hot or hot:0.01:0.9.
func ParseSkew(text string) (Skew, error) {
	parts := strings.Split(text, ":")
	numbers := make([]float64, 0, 2)
	for _, p := range parts[1:] {
		v, err := strconv.ParseFloat(p, 64)
		if err != nil {
			return Skew{}, skewError(text)
		}
		numbers = append(numbers, v)
	}
	s := Skew{Kind: parts[0]}
	switch {
	case (s.Kind == Uniform || s.Kind == Sequential) && len(numbers) == 0:
	case s.Kind == Zipf && len(numbers) == 0:
		s.Exponent = 1.1
	case s.Kind == Zipf && len(numbers) == 1:
		s.Exponent = numbers[0]
	case s.Kind == HotSet && len(numbers) == 0:
		s.Share, s.Hits = 0.01, 0.9
	case s.Kind == HotSet && len(numbers) == 2:
		s.Share, s.Hits = numbers[0], numbers[1]
	default:
		return Skew{}, skewError(text)
	}
	return s, s.check(1)
}

func skewError(text string) error {
	return fmt.Errorf("%w: the skew is %q: write uniform, sequential, zipf:1.1 or hot:0.01:0.9 (1%% of the keys take 90%% of the requests)", ErrSpec, text)
}

func (s *Skew) check(keys int) error {
	switch {
	case s.Kind == Uniform, s.Kind == Sequential:
		return nil
	case s.Kind == Zipf && s.Exponent > 1 && s.Exponent <= 10 && keys > 0:
		return nil
	case s.Kind == HotSet && s.Share > 0 && s.Share <= 1 && s.Hits >= 0 && s.Hits <= 1:
		return nil
	case s.Kind == Zipf:
		return fmt.Errorf("%w: the exponent of zipf is %g: give one above 1, at most 10", ErrSpec, s.Exponent)
	case s.Kind == HotSet:
		return fmt.Errorf("%w: hot keys are a share of %g with %g of the requests: give both between 0 and 1", ErrSpec, s.Share, s.Hits)
	}
	return skewError(s.Kind)
}

// String is what ParseSkew reads.
func (s Skew) String() string {
	switch s.Kind {
	case Zipf:
		return fmt.Sprintf("zipf:%g", s.Exponent)
	case HotSet:
		return fmt.Sprintf("hot:%g:%g", s.Share, s.Hits)
	default:
		return s.Kind
	}
}

// picker draws the index of a key. It belongs to one client.
type picker struct {
	skew Skew
	keys int
	zipf *rand.Zipf
	// next of a sequence, which the clients of a namespace share.
	next *atomic.Int64
}

func newPicker(s Skew, keys int, next *atomic.Int64, r *rand.Rand) *picker {
	p := &picker{skew: s, keys: keys, next: next}
	if s.Kind == Zipf {
		p.zipf = rand.NewZipf(r, s.Exponent, 1, uint64(keys-1)) //nolint:gosec // keys are positive
	}
	return p
}

func (p *picker) draw(r *rand.Rand) int {
	switch p.skew.Kind {
	case Zipf:
		return int(p.zipf.Uint64()) //nolint:gosec // below keys
	case Sequential:
		return int((p.next.Add(1) - 1) % int64(p.keys))
	case HotSet:
		hot := max(1, int(float64(p.keys)*p.skew.Share))
		if hot == p.keys || r.Float64() < p.skew.Hits {
			return r.IntN(hot)
		}
		return hot + r.IntN(p.keys-hot)
	default:
		return r.IntN(p.keys)
	}
}

// newRand is deterministic: the same seed and stream draw the same numbers.
func newRand(seed, stream uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed, stream)) //nolint:gosec // a load, not a secret
}

// mixer draws operations by their weight.
type mixer struct {
	ops    []int
	bounds []float64
}

func newMixer(mix []Share, index map[Operation]int) *mixer {
	m := &mixer{}
	total := 0.0
	for _, s := range mix {
		total += s.Weight
	}
	sum := 0.0
	for _, s := range mix {
		sum += s.Weight / total
		m.ops, m.bounds = append(m.ops, index[s.Operation]), append(m.bounds, sum)
	}
	return m
}

func (m *mixer) draw(r *rand.Rand) int {
	if len(m.ops) == 1 {
		return m.ops[0]
	}
	v := r.Float64()
	for i, b := range m.bounds {
		if v < b {
			return m.ops[i]
		}
	}
	return m.ops[len(m.ops)-1]
}
