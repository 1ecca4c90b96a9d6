package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrSpec says that a load can't be run as it was described.
var ErrSpec = errors.New("the load can't be run as described")

// Duration is a time.Duration that is "1.5s" in JSON.
type Duration time.Duration

// String is such as "1.5s".
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes "1.5s".
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads "1.5s".
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return err
	}
	*d = Duration(v)
	return nil
}

// Std is the duration of the standard library.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// Operation is one kind of request.
type Operation string

// The operations.
const (
	// Put writes one key.
	Put Operation = "put"
	// Delete removes one key.
	Delete Operation = "delete"
	// Range reads through a quorum, RangeSerializable what the member asked has,
	// RangeStream in chunks (etcd 3.7).
	Range             Operation = "range"
	RangeSerializable Operation = "range-serializable"
	RangeStream       Operation = "range-stream"
	// CAS is a transaction that writes a key if it is unchanged, and else reads it;
	// Txn is one of several puts and ranges.
	CAS Operation = "cas"
	Txn Operation = "txn"
	// LeaseGrant grants a lease and attaches keys, LeaseKeepAlive renews one that was
	// granted, LeaseRevoke ends the oldest.
	LeaseGrant     Operation = "lease-grant"
	LeaseKeepAlive Operation = "lease-keepalive"
	LeaseRevoke    Operation = "lease-revoke"
	// KubeList lists a namespace in pages at one revision, KubeGet reads an object,
	// KubeUpdate writes one if its revision is unchanged, KubeCreate and KubeDelete
	// make and remove one, as kube-apiserver does.
	KubeList   Operation = "kube-list"
	KubeGet    Operation = "kube-get"
	KubeUpdate Operation = "kube-update"
	KubeCreate Operation = "kube-create"
	KubeDelete Operation = "kube-delete"
)

// Operations are all of them, in the order of reports.
var Operations = []Operation{
	Put, Delete, Range, RangeSerializable, RangeStream, CAS, Txn, LeaseGrant, LeaseKeepAlive, LeaseRevoke,
	KubeList, KubeGet, KubeUpdate, KubeCreate, KubeDelete,
}

// Share of an operation in a mix.
type Share struct {
	Operation Operation `json:"operation"`
	Weight    float64   `json:"weight"`
}

// Mixes are named workloads. Kubernetes is ours: mostly updates of status and leases,
// some reads of single objects, some churn, and few lists, since kube-apiserver
// answers most of those itself; real clusters differ.
var Mixes = map[string][]Share{
	"put":                {{Put, 1}},
	"range":              {{Range, 1}},
	"range-serializable": {{RangeSerializable, 1}},
	"range-stream":       {{RangeStream, 1}},
	"cas":                {{CAS, 1}},
	"txn":                {{Txn, 1}},
	"mixed":              {{Put, 30}, {Range, 60}, {Txn, 10}},
	"watch":              {{Put, 1}},
	"lease":              {{LeaseGrant, 1}, {LeaseKeepAlive, 8}, {LeaseRevoke, 1}},
	"kubernetes":         {{KubeUpdate, 700}, {KubeGet, 200}, {KubeList, 1}, {KubeCreate, 50}, {KubeDelete, 50}},
}

// ParseMix reads the name of a mix, or "put=30,range=60".
func ParseMix(text string) ([]Share, error) {
	if mix, ok := Mixes[text]; ok {
		return slices.Clone(mix), nil
	}
	if text == "" {
		return nil, fmt.Errorf("%w: the mix is empty: write such as put=30,range=60", ErrSpec)
	}
	var mix []Share
	for part := range strings.SplitSeq(text, ",") {
		name, weight, given := strings.Cut(strings.TrimSpace(part), "=")
		s := Share{Operation(name), 1}
		if !slices.Contains(Operations, s.Operation) {
			return nil, fmt.Errorf("%w: there is no operation %q: use %s", ErrSpec, name, operationNames())
		}
		if given {
			w, err := strconv.ParseFloat(weight, 64)
			if err != nil || !(w > 0 && w <= mostWeight) {
				return nil, fmt.Errorf("%w: the weight of %s is %q: give a number above 0", ErrSpec, name, weight)
			}
			s.Weight = w
		}
		if slices.ContainsFunc(mix, func(o Share) bool { return o.Operation == s.Operation }) {
			return nil, fmt.Errorf("%w: %s stands twice in the mix", ErrSpec, name)
		}
		mix = append(mix, s)
	}
	return mix, nil
}

func operationNames() string {
	names := make([]string, 0, len(Operations))
	for _, o := range Operations {
		names = append(names, string(o))
	}
	return strings.Join(names, ", ")
}

// Arrivals of an open loop.
const (
	Poisson  = "poisson"
	Constant = "constant"
)

// Loops.
const (
	// Closed: each client sends its next request when the last was answered, so that a
	// stall of the cluster stops the load with it.
	Closed = "closed"
	// Open: requests come at a rate, whatever the cluster does, and latency counts
	// from when each was due.
	Open = "open"
)

// Watch scopes.
const (
	WatchPrefix = "prefix"
	WatchKey    = "key"
)

// Spec describes a load. Its JSON can be sent to another host; it holds secrets then.
// Zero values become those of Default, save where zero means none.
type Spec struct {
	Endpoints []string `json:"endpoints"`
	// CA, Certificate and Key are PEM; see inspect.Options.
	CA          []byte `json:"ca,omitempty"`
	Certificate []byte `json:"certificate,omitempty"`
	Key         []byte `json:"key,omitempty"`
	// ServerName to look for in the members' certificates; empty for the URL's host.
	ServerName string `json:"serverName,omitempty"`
	User       string `json:"user,omitempty"`
	Password   string `json:"password,omitempty"`

	// Workload is the name of Mix, for people.
	Workload string  `json:"workload,omitempty"`
	Mix      []Share `json:"mix"`
	// Loop is Closed or Open; Rate, requests a second of all clients, and Arrivals are
	// those of an open one.
	Loop     string  `json:"loop"`
	Rate     float64 `json:"rate,omitempty"`
	Arrivals string  `json:"arrivals,omitempty"`
	// MaxInFlight bounds what an open loop has under way; a request that is due while
	// the bound is reached counts as dropped, which is an error.
	MaxInFlight int `json:"maxInFlight,omitempty"`

	// Namespaces have a key prefix each. Clients are those of each namespace: in a
	// closed loop each has one request under way.
	Namespaces int `json:"namespaces"`
	Clients    int `json:"clients"`
	// Connections are shared by all clients, and spread over the endpoints.
	Connections int `json:"connections"`

	// Ramp is how long the load takes to come up, WarmUp how long it then runs
	// unmeasured, Duration how long it is measured. Total ends it after so many
	// requests; 0 for no such end.
	Ramp     Duration `json:"ramp,omitempty"`
	WarmUp   Duration `json:"warmUp,omitempty"`
	Duration Duration `json:"duration,omitempty"`
	Total    int64    `json:"total,omitempty"`
	// Timeout of one request.
	Timeout Duration `json:"timeout"`

	// Keys are those of each namespace, KeySize and ValueSize their sizes in bytes.
	Keys      int    `json:"keys"`
	KeySize   Sizes  `json:"keySize"`
	ValueSize Sizes  `json:"valueSize"`
	Skew      Skew   `json:"skew"`
	Seed      uint64 `json:"seed,omitempty"`
	// Prefix that all keys lie below; empty for a new one. It must be empty of keys.
	Prefix string `json:"prefix,omitempty"`
	// Keep leaves the keys behind.
	Keep bool `json:"keep,omitempty"`

	// RangeKeys are how many keys a range reads, TxnOps how many operations a
	// transaction has, PageSize that of lists.
	RangeKeys int `json:"rangeKeys"`
	TxnOps    int `json:"txnOps"`
	PageSize  int `json:"pageSize"`
	// Watchers of each namespace; WatchScope is WatchPrefix or WatchKey.
	Watchers   int    `json:"watchers,omitempty"`
	WatchScope string `json:"watchScope,omitempty"`
	// LeaseTTL in seconds and LeaseKeys, attached to each lease.
	LeaseTTL  int64 `json:"leaseTTL"`
	LeaseKeys int   `json:"leaseKeys"`

	// Slice is that of the time series.
	Slice Duration `json:"slice"`
	// SliceHistograms keeps the histogram of every slice, which merging wants.
	SliceHistograms bool `json:"sliceHistograms,omitempty"`
	// StartAt lets several hosts begin together; zero begins at once.
	StartAt time.Time `json:"startAt,omitzero"`
	// NoServers leaves out what the servers' metrics say.
	NoServers bool `json:"noServers,omitempty"`
}

// Default is a closed loop of puts by 8 clients for 30 seconds.
func Default() Spec {
	return Spec{
		Workload: "put", Mix: []Share{{Put, 1}}, Loop: Closed, Arrivals: Poisson,
		Namespaces: 1, Clients: 8, Duration: Duration(30 * time.Second), Timeout: Duration(7 * time.Second),
		Keys: 10000, KeySize: Sizes{Kind: Fixed, Min: 64}, ValueSize: Sizes{Kind: Fixed, Min: 256}, Skew: Skew{Kind: Uniform},
		RangeKeys: 1, TxnOps: 4, PageSize: 500, WatchScope: WatchPrefix, LeaseTTL: 60, LeaseKeys: 1, Slice: Duration(time.Second),
	}
}

// Bounds of a load, so that a slip does not take the machine down.
const (
	maxClients   = 200_000
	maxKeys      = 50_000_000
	maxInFlight  = 100_000
	maxValue     = 1 << 20
	maxKey       = 4096
	maxTxnOps    = 128
	minimalValue = 24
	mostWeight   = 1e9
	mostTime     = Duration(31 * 24 * time.Hour)
)

// openBound is how much an open loop has under way unless told otherwise.
const openBound = 10_000

// Complete fills in what was left out, and says what is wrong: an error is ErrSpec.
func (s *Spec) Complete() error {
	var err error
	if s.Endpoints, err = completeEndpoints(s.Endpoints, len(s.CA) > 0 || len(s.Certificate) > 0); err != nil {
		return err
	}
	d := Default()
	fill(&s.Loop, d.Loop)
	fill(&s.Arrivals, d.Arrivals)
	fill(&s.Namespaces, d.Namespaces)
	fill(&s.Clients, d.Clients)
	fill(&s.Timeout, d.Timeout)
	fill(&s.Keys, d.Keys)
	if s.KeySize.Kind == "" {
		s.KeySize = d.KeySize
	}
	if s.ValueSize.Kind == "" {
		s.ValueSize = d.ValueSize
	}
	fill(&s.Skew.Kind, d.Skew.Kind)
	fill(&s.RangeKeys, d.RangeKeys)
	fill(&s.TxnOps, d.TxnOps)
	fill(&s.PageSize, d.PageSize)
	fill(&s.WatchScope, d.WatchScope)
	fill(&s.LeaseTTL, d.LeaseTTL)
	fill(&s.Slice, d.Slice)
	if s.Duration == 0 && s.Total == 0 {
		s.Duration = d.Duration
	}
	if len(s.Mix) == 0 {
		s.Mix, s.Workload = d.Mix, d.Workload
	}
	if s.Connections == 0 {
		const clientsPerConnection, most = 100, 64
		s.Connections = min(max((s.Namespaces*s.Clients+clientsPerConnection-1)/clientsPerConnection, len(s.Endpoints)), most)
		if s.Loop == Open {
			s.Connections = max(s.Connections, min(8, s.Namespaces*s.Clients))
		}
	}
	if s.Loop == Open {
		fill(&s.MaxInFlight, max(openBound, min(s.Namespaces*s.Clients, maxInFlight)))
	}
	if s.Workload == "kubernetes" && s.Watchers == 0 {
		s.Watchers = 1
	}
	if s.Seed == 0 {
		s.Seed = uint64(time.Now().UnixNano())
	}
	return s.check()
}

func fill[T comparable](to *T, with T) {
	var zero T
	if *to == zero {
		*to = with
	}
}

// completeEndpoints gives each its scheme and port.
func completeEndpoints(given []string, tls bool) ([]string, error) {
	var list []string
	for _, e := range given {
		if e = strings.TrimSpace(e); e == "" {
			continue
		}
		if !strings.Contains(e, "://") {
			scheme := "http://"
			if tls {
				scheme = "https://"
			}
			e = scheme + e
		}
		u, err := url.Parse(e)
		if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("endpoint %q: %w: give a client URL such as https://10.0.0.1:2379", e, ErrSpec)
		}
		if u.User != nil {
			return nil, fmt.Errorf("endpoint %s: %w: a user stands in the URL: log in with --user", u.Redacted(), ErrSpec)
		}
		if u.Port() == "" {
			u.Host += ":2379"
		}
		if e = u.Scheme + "://" + u.Host; !slices.Contains(list, e) {
			list = append(list, e)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: no endpoint was given: name a client URL such as https://10.0.0.1:2379", ErrSpec)
	}
	return list, nil
}

// check says what is wrong with a complete spec.
func (s *Spec) check() error {
	for _, c := range []struct {
		bad  bool
		text string
	}{
		{s.Loop != Closed && s.Loop != Open, fmt.Sprintf("the loop is %q: use closed or open", s.Loop)},
		{s.Loop == Open && !(s.Rate > 0 && s.Rate <= 1e6), fmt.Sprintf("an open loop has a rate, and it is %g a second: give 1 to 1000000", s.Rate)},
		{s.Loop == Closed && s.Rate != 0, "a rate belongs to an open loop: a closed one sends when the last request was answered"},
		{s.Arrivals != Poisson && s.Arrivals != Constant, fmt.Sprintf("arrivals are %q: use poisson or constant", s.Arrivals)},
		{s.MaxInFlight < 0 || s.MaxInFlight > maxInFlight, fmt.Sprintf("%d requests in flight: give 1 to %d", s.MaxInFlight, maxInFlight)},
		{s.Namespaces < 1 || s.Namespaces > 10000, fmt.Sprintf("%d namespaces: give 1 to 10000", s.Namespaces)},
		{s.Clients < 1 || s.Clients > maxClients, fmt.Sprintf("%d clients: give 1 to %d", s.Clients, maxClients)},
		{s.Namespaces*s.Clients > maxClients, fmt.Sprintf("%d × %d clients are more than %d", s.Namespaces, s.Clients, maxClients)},
		{s.Connections < 1 || s.Connections > 20000, fmt.Sprintf("%d connections: give 1 to 20000", s.Connections)},
		{s.Ramp < 0 || s.WarmUp < 0 || s.Duration < 0 || s.Total < 0, "a duration or a total is negative"},
		{max(s.Duration, s.Ramp, s.WarmUp) > mostTime, "a ramp, a warm-up or a run of more than 31 days"},
		{s.Timeout < Duration(time.Millisecond) || s.Timeout > Duration(time.Minute), fmt.Sprintf("the timeout is %s: give 1ms to 1m", s.Timeout)},
		{s.Keys < 1 || s.Keys > maxKeys || s.Keys*s.Namespaces > maxKeys, fmt.Sprintf("%d × %d keys: give 1 to %d", s.Namespaces, s.Keys, maxKeys)},
		{s.RangeKeys < 1 || s.RangeKeys > s.Keys && s.reads(), fmt.Sprintf("a range reads %d keys of %d", s.RangeKeys, s.Keys)},
		{s.TxnOps < 1 || s.TxnOps > maxTxnOps, fmt.Sprintf("a transaction of %d operations: etcd takes 1 to %d", s.TxnOps, maxTxnOps)},
		{s.TxnOps > s.Keys && s.has(Txn), fmt.Sprintf("a transaction of %d operations on %d keys: it takes a key for each", s.TxnOps, s.Keys)},
		{s.PageSize < 1 || s.PageSize > 100000, fmt.Sprintf("a page of %d keys: give 1 to 100000", s.PageSize)},
		{s.Watchers < 0 || s.Watchers > maxClients || s.Watchers*s.Namespaces > maxClients, fmt.Sprintf("%d × %d watchers: give at most %d", s.Namespaces, s.Watchers, maxClients)},
		{s.WatchScope != WatchPrefix && s.WatchScope != WatchKey, fmt.Sprintf("the scope of watchers is %q: use prefix or key", s.WatchScope)},
		{s.LeaseTTL < 5 || s.LeaseTTL > 86400, fmt.Sprintf("a lease of %d seconds: give 5 to 86400", s.LeaseTTL)},
		{s.LeaseKeys < 0 || s.LeaseKeys > maxTxnOps, fmt.Sprintf("%d keys on a lease: give 0 to %d", s.LeaseKeys, maxTxnOps)},
		{s.Slice < Duration(100*time.Millisecond) || s.Slice > Duration(time.Hour), fmt.Sprintf("a slice of %s: give 100ms to 1h", s.Slice)},
		{s.Prefix != "" && path.Clean(s.Prefix) == "/", fmt.Sprintf("the prefix is %q: name one that is this run's own", s.Prefix)},
		{s.Prefix != "" && path.Clean(s.Prefix)+"/" == runsBelow, fmt.Sprintf("the prefix is %q, which all runs share: name one below it, or leave it out", s.Prefix)},
		{s.Prefix != "" && !strings.HasSuffix(s.Prefix, "/"), fmt.Sprintf("the prefix is %q: end it with /, so that it covers no neighbour", s.Prefix)},
		{len(s.Prefix) > 256, "the prefix is longer than 256 bytes"},
		{s.Watchers > 0 && s.WatchScope == WatchKey && s.Watchers > s.Keys, fmt.Sprintf("%d watchers of single keys, and %d keys", s.Watchers, s.Keys)},
	} {
		if c.bad {
			return fmt.Errorf("%w: %s", ErrSpec, c.text)
		}
	}
	for i, m := range s.Mix {
		if !slices.Contains(Operations, m.Operation) || !(m.Weight > 0 && m.Weight <= mostWeight) || slices.ContainsFunc(s.Mix[:i], func(o Share) bool { return o.Operation == m.Operation }) {
			return fmt.Errorf("%w: share %q of the mix is unknown, of no weight or twice there", ErrSpec, m.Operation)
		}
	}
	return s.checkSizes()
}

func (s *Spec) checkSizes() error {
	if err := s.KeySize.check("key", s.shortestKey(), maxKey); err != nil {
		return err
	}
	least := 0
	if s.Watchers > 0 {
		least = minimalValue // it carries when the put was due
	}
	if s.ValueSize.Kind == Fixed && s.ValueSize.Min < least {
		s.ValueSize.Min = least
	}
	if err := s.ValueSize.check("value", 0, maxValue); err != nil {
		return err
	}
	return s.Skew.check(s.Keys)
}

func (s *Spec) has(ops ...Operation) bool {
	return slices.ContainsFunc(s.Mix, func(m Share) bool { return slices.Contains(ops, m.Operation) })
}

func (s *Spec) reads() bool { return s.has(Range, RangeSerializable, RangeStream) }

// kubernetes reports whether the keys look like those of kube-apiserver.
func (s *Spec) kubernetes() bool {
	return s.has(KubeList, KubeGet, KubeUpdate, KubeCreate, KubeDelete)
}

// preloads reports whether the keys are to be there before the run.
func (s *Spec) preloads() bool {
	return s.reads() || s.has(Delete, CAS, KubeList, KubeGet, KubeUpdate)
}

// clients of all namespaces.
func (s *Spec) clients() int { return s.Namespaces * s.Clients }

// WithoutSecrets is a copy that may be kept and shown.
func (s *Spec) WithoutSecrets() Spec {
	c := *s
	c.CA, c.Certificate, c.Key, c.Password = nil, nil, nil, ""
	return c
}

// Clone is a deep copy.
func (s *Spec) Clone() Spec {
	c := *s
	c.Endpoints, c.Mix = slices.Clone(s.Endpoints), slices.Clone(s.Mix)
	c.KeySize.List, c.ValueSize.List = slices.Clone(s.KeySize.List), slices.Clone(s.ValueSize.List)
	return c
}

// ParseSpec reads a Spec from JSON; a field that it does not know is an error.
func ParseSpec(raw []byte) (Spec, error) {
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.DisallowUnknownFields()
	var s Spec
	if err := d.Decode(&s); err != nil {
		return s, fmt.Errorf("%w: %w", ErrSpec, err)
	}
	return s, nil
}
