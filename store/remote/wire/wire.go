// Package wire is what Quorate's server and its clients say to each other over
// HTTP, beside the objects themselves: paths, headers, errors, and the shapes of
// actions. Both sides import it, so that they cannot come to differ.
package wire

import (
	"encoding/json"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
)

// Headers and trailers.
const (
	// HeaderEpoch carries "<number>/<id>" of the store's epoch, on every response.
	HeaderEpoch = "Quorate-Store-Epoch"
	// HeaderRevision carries the store's revision in decimal, on every response.
	HeaderRevision = "Quorate-Store-Revision"
	// TrailerError ends a stream that could not be completed, and says why.
	TrailerError = "Quorate-Error"
)

// Names of the events in event streams.
const (
	// EventDirty carries a Key that may have changed.
	EventDirty = "dirty"
	// EventRecorded carries a store.Event.
	EventRecorded = "recorded"
	// EventRequest carries a Request to an agent.
	EventRequest = "request"
)

// HeaderInstance tells one process of an agent from another that shows the same
// certificate.
const HeaderInstance = "Quorate-Agent"

// Heartbeat is how often an otherwise silent stream says that it lives.
const Heartbeat = 10 * time.Second

// Key names an object in an event stream.
type Key struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// List is a list of objects of one kind.
type List[T any] struct {
	Kind       string `json:"kind"`
	APIVersion string `json:"apiVersion"`
	Items      []T    `json:"items"`
	// After is where a watch of events goes on from this list.
	After string `json:"after,omitempty"`
}

// Accept is the body of an accept request: the token of the plan that was read.
type Accept struct {
	Token string `json:"token"`
}

// MemberCSR asks for a certificate of a member.
type MemberCSR struct {
	// Usage is Server or Peer.
	Usage string `json:"usage"`
	// CSR in PEM.
	CSR string `json:"csr"`
}

// ClientCSR asks for a client certificate of a cluster.
type ClientCSR struct {
	// CSR in PEM.
	CSR string `json:"csr"`
	// TTLSeconds the certificate is to live; 0 means a day.
	TTLSeconds int64 `json:"ttlSeconds,omitempty"`
}

// Certificate answers MemberCSR and ClientCSR.
type Certificate struct {
	// Certificate in PEM, followed by intermediates.
	Certificate string `json:"certificate"`
	// CA holds the roots to trust in PEM.
	CA string `json:"ca"`
	// Endpoints of the cluster, for ClientCSR.
	Endpoints []string `json:"endpoints,omitempty"`
}

// Release is an etcd release that the server holds.
type Release struct {
	Version  string    `json:"version"`
	Digest   string    `json:"digest"`
	Platform string    `json:"platform"`
	Source   string    `json:"source,omitempty"`
	Added    time.Time `json:"added"`
}

// KeyRotated answers a rotation of the sealing key.
type KeyRotated struct {
	// Secrets that were sealed anew.
	Secrets int `json:"secrets"`
}

// Version answers /version.
type Version struct {
	Version string `json:"version"`
	// Time is the server's clock as it answers.
	Time time.Time `json:"time"`
}

// CheckHost asks for the checks of a host.
type CheckHost struct {
	// Peers to measure round trips to: ADDRESS or ADDRESS:PORT.
	Peers []string `json:"peers,omitempty"`
}

// Kinds of a Request.
const (
	// RequestLog reads a member's log.
	RequestLog = "log"
	// RequestMetrics reads the metrics of a member's etcd.
	RequestMetrics = "metrics"
	// RequestKill kills a member's etcd, and is answered by Killed.
	RequestKill = "kill"
	// RequestLoad drives a load from the agent's host, and is answered by what the
	// worker writes.
	RequestLoad = "load"
	// RequestCheck checks the agent's host, and is answered by a HostPreflight.
	RequestCheck = "check"
)

// Request is what the server asks of an agent.
type Request struct {
	// ID names the response.
	ID string `json:"id"`
	// Kind is what is asked for.
	Kind string `json:"kind"`
	// Member it is about.
	Member Member `json:"member"`
	// Log options, for RequestLog.
	Log LogOptions `json:"log"`
	// Load is the specification of a load, for RequestLoad: as `quorate bench worker`
	// reads it.
	Load json.RawMessage `json:"load,omitempty"`
	// Peers to measure round trips to, for RequestCheck.
	Peers []string `json:"peers,omitempty"`
}

// Killed answers RequestKill.
type Killed struct {
	// PID of the etcd that was killed.
	PID int64 `json:"pid"`
}

// Member names a member beyond doubt.
type Member struct {
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	UID       v1alpha1.UID `json:"uid"`
}

// LogOptions choose what of a member's log is read.
type LogOptions struct {
	// Source is etcd, error or supervisor; empty means etcd.
	Source string `json:"source,omitempty"`
	// Tail is how many of the last lines to begin with; negative means all.
	Tail int `json:"tail"`
	// Follow goes on until the reader ends it.
	Follow bool `json:"follow,omitempty"`
}
