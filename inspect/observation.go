package inspect

import (
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/etcd"
)

// Observation is all that was seen of a cluster: data alone, which the checks
// examine without asking anything more.
type Observation struct {
	// AskedAt is when the first question was sent, and Seconds how long all took.
	AskedAt time.Time `json:"askedAt"`
	Seconds float64   `json:"seconds"`
	// Endpoints that were given.
	Endpoints []string `json:"endpoints"`
	// ClusterID in hex: that of most endpoints.
	ClusterID string `json:"clusterID,omitempty"`
	// Members: those of the list, and endpoints that are none of them.
	Members []Member `json:"members"`
	// SampledSeconds lie between the first look and the second.
	SampledSeconds float64 `json:"sampledSeconds,omitempty"`
	// User that was logged in, and how that went.
	User  string `json:"user,omitempty"`
	Login *Reach `json:"login,omitempty"`
	// ClientCertificate that is shown, and Roots that are trusted.
	ClientCertificate *Certificate  `json:"clientCertificate,omitempty"`
	Roots             []Certificate `json:"roots,omitempty"`

	// etcdctl is how a person runs etcdctl on this cluster, without endpoints.
	etcdctl string
}

// Member is one member, or an endpoint of which it is not known whose it is.
type Member struct {
	// ID in hex, and Name; both empty when nothing answered and nobody lists it.
	ID   string `json:"id,omitempty"`
	Name string `json:"name,omitempty"`
	// ClusterID in hex that it answered with.
	ClusterID string `json:"clusterID,omitempty"`
	// Given among the endpoints; Listed by the members of the cluster.
	Given  bool `json:"given,omitempty"`
	Listed bool `json:"listed,omitempty"`
	// Learner it is, by the list.
	Learner    bool     `json:"learner,omitempty"`
	PeerURLs   []string `json:"peerURLs,omitempty"`
	ClientURLs []string `json:"clientURLs,omitempty"`
	// Endpoint it was asked at.
	Endpoint string `json:"endpoint,omitempty"`
	// Reach says how far the connection got.
	Reach Reach `json:"reach"`
	// Status at the first look, and Later at the second.
	Status *Status `json:"status,omitempty"`
	Later  *Status `json:"later,omitempty"`
	// Reads that were timed.
	Linearizable *Latency `json:"linearizable,omitempty"`
	Serializable *Latency `json:"serializable,omitempty"`
	// CompactRevision is the oldest revision that can still be read; 0 for all of
	// them. Nil when it was not found out.
	CompactRevision *int64 `json:"compactRevision,omitempty"`
	// Certificates it shows, its own first.
	Certificates []Certificate `json:"certificates,omitempty"`
	// WantsCertificate: it asks clients for a certificate.
	WantsCertificate bool `json:"wantsCertificate,omitempty"`
	// Clock of its host against the one of this machine.
	Clock *Clock `json:"clock,omitempty"`
	// Metrics, where its client URL serves them.
	Metrics *Metrics `json:"metrics,omitempty"`
}

// What Reach says besides the faults.
const (
	// Answered: nothing is in the way.
	Answered etcd.FaultKind = "Answered"
	// NoURL: the list has no client URL of it, since it has never started.
	NoURL etcd.FaultKind = "NoURL"
)

// Reach is how far a question got.
type Reach struct {
	// Cause is a fault, or one of the above.
	Cause etcd.FaultKind `json:"cause"`
	// Text of the error.
	Text string `json:"text,omitempty"`
	// ConnectMilliseconds is how long the connection took.
	ConnectMilliseconds float64 `json:"connectMilliseconds,omitempty"`
}

// Status is what a member says of itself.
type Status struct {
	Version      string `json:"version"`
	Leader       string `json:"leader,omitempty"`
	Term         uint64 `json:"term"`
	Index        uint64 `json:"index"`
	AppliedIndex uint64 `json:"appliedIndex"`
	Revision     int64  `json:"revision"`
	DBSize       int64  `json:"dbSize"`
	DBSizeInUse  int64  `json:"dbSizeInUse"`
	// DBQuota is 0 where it does not tell: before 3.6.
	DBQuota int64 `json:"dbQuota,omitempty"`
	Learner bool  `json:"learner,omitempty"`
	// Alarms that it knows of.
	Alarms []Alarm `json:"alarms,omitempty"`
	// At is when it answered.
	At time.Time `json:"at"`
}

// Alarm that a member has raised.
type Alarm struct {
	// Type is NOSPACE or CORRUPT.
	Type string `json:"type"`
	// Member is its ID in hex; 0 where etcd does not tell.
	Member string `json:"member"`
}

// Latency is how long small reads took.
type Latency struct {
	Reads              int     `json:"reads"`
	MedianMilliseconds float64 `json:"medianMilliseconds,omitempty"`
	WorstMilliseconds  float64 `json:"worstMilliseconds,omitempty"`
	// Failed is the first that failed; the others are counted above.
	Failed *Reach `json:"failed,omitempty"`
}

// Clock is a host's clock against ours. The true offset lies within the bounds.
type Clock struct {
	OffsetSeconds float64 `json:"offsetSeconds"`
	MarginSeconds float64 `json:"marginSeconds"`
}

// Certificate is what is examined of one.
type Certificate struct {
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	// Hosts that it names.
	Hosts []string `json:"hosts,omitempty"`
	CA    bool     `json:"ca,omitempty"`
}

// Metrics are the few figures that only /metrics tells.
type Metrics struct {
	QuotaBytes int64 `json:"quotaBytes,omitempty"`
	// StartedAt is when the process started, and CompactedAt when it last compacted;
	// zero for never.
	StartedAt   time.Time `json:"startedAt,omitzero"`
	CompactedAt time.Time `json:"compactedAt,omitzero"`
	// Fsync of the WAL and commit of the backend since the process started, and
	// between the two looks.
	Fsync        Quantile `json:"fsync"`
	Commit       Quantile `json:"commit"`
	RecentFsync  Quantile `json:"recentFsync"`
	RecentCommit Quantile `json:"recentCommit"`
	// Peers tells for each peer's ID whether it is connected to it.
	Peers map[string]bool `json:"peers,omitempty"`
}

// Quantile is the 99th percentile of so many.
type Quantile struct {
	Count           uint64  `json:"count"`
	P99Milliseconds float64 `json:"p99Milliseconds,omitempty"`
}

// Label is how a member is called: name and URL as far as they are known.
func (m *Member) Label() string {
	name := m.Name
	if name == "" && m.ID != "" {
		name = "member " + m.ID
	}
	switch {
	case name == "":
		return m.Endpoint
	case m.Endpoint == "":
		return name
	}
	return name + " (" + m.Endpoint + ")"
}

// Answers says that its status is known.
func (m *Member) Answers() bool { return m.Status != nil }

// Latest is the later status, or the first.
func (m *Member) Latest() *Status {
	if m.Later != nil {
		return m.Later
	}
	return m.Status
}

// of yields the members of the cluster that is examined: those that are listed, or
// that answered with its ID.
func (o *Observation) of() []*Member {
	var list []*Member
	for i := range o.Members {
		m := &o.Members[i]
		if m.Listed || o.ClusterID != "" && m.ClusterID == o.ClusterID {
			list = append(list, m)
		}
	}
	return list
}

func (o *Observation) answering() []*Member {
	return slices.DeleteFunc(o.of(), func(m *Member) bool { return !m.Answers() })
}

func (o *Observation) voters() []*Member {
	return slices.DeleteFunc(o.of(), func(m *Member) bool { return m.Learner })
}

// leader is the member that most recently is said to lead, if it answers.
func (o *Observation) leader() *Member {
	for _, m := range o.answering() {
		if m.Latest().Leader == m.ID {
			return m
		}
	}
	return nil
}

// nameOf is the name of a member by its ID.
func (o *Observation) nameOf(id string) string {
	for i := range o.Members {
		if m := &o.Members[i]; m.ID == id && m.Name != "" {
			return m.Name
		}
	}
	return "member " + id
}

// command is an etcdctl command at these endpoints, to copy.
func (o *Observation) command(args string, at ...*Member) string {
	urls := make([]string, 0, len(at))
	for _, m := range at {
		if m.Endpoint != "" {
			urls = append(urls, m.Endpoint)
		}
	}
	endpoints := ""
	if len(urls) > 0 {
		endpoints = " --endpoints=" + strings.Join(urls, ",")
	}
	return o.etcdctl + endpoints + " " + args
}
