// Package history says whether an etcd cluster kept its promises, from what its
// clients saw.
//
// A History is what was asked and answered: every call of every client with the
// time it began and ended, every watch with each of its responses, and at the end
// the members' hashes. It is made on a private prefix, with values that are written
// once only, by package record or by whatever else writes the same format.
//
// Check replays it. A call without an answer may have happened at any time after
// it was made, or never: nothing is concluded from it alone. What etcd promises, by
// https://etcd.io/docs/v3.6/learning/api_guarantees/, is all that is asked.
package history

import "math"

// History is all that the clients of one cluster saw on one prefix.
type History struct {
	Meta Meta
	// Initial is what the prefix held at the start revision. A recorded history
	// begins with nothing; an excerpt has what was there before.
	Initial    []KeyValue
	Operations []Operation
	Watches    []Watch
	Hashes     []Hash
	// Torn says what is missing at the end of the file that it was read from; empty
	// where the file is whole. Calls that were under way are then in no record.
	Torn string
}

// Meta says where a history comes from.
type Meta struct {
	// Format is the version of the file format.
	Format int `json:"format"`
	// Name is free text: which cluster, which drill.
	Name string `json:"name,omitempty"`
	// Prefix that nobody else writes.
	Prefix string `json:"prefix"`
	// StartRevision is that of the cluster when the prefix was empty, before the
	// first operation.
	StartRevision int64 `json:"startRevision"`
	// StartedAt is the wall clock (RFC 3339) that all times count from.
	StartedAt string `json:"startedAt,omitempty"`
	// Members and their versions, for the reader.
	Members []string `json:"members,omitempty"`
	// Disturbances that were made meanwhile.
	Disturbances []Disturbance `json:"disturbances,omitempty"`
}

// Disturbance is what was done to the cluster, from and to in nanoseconds.
type Disturbance struct {
	Kind string `json:"kind"`
	// Target is a member, or what else it was done to.
	Target string `json:"target,omitempty"`
	From   int64  `json:"from"`
	To     int64  `json:"to,omitempty"`
}

// Kind of an operation.
type Kind string

// The kinds. A put, a delete and a range are the one request of Then.
const (
	Put         Kind = "put"
	Delete      Kind = "delete"
	Range       Kind = "range"
	Txn         Kind = "txn"
	LeaseGrant  Kind = "lease-grant"
	LeaseRevoke Kind = "lease-revoke"
	LeaseRenew  Kind = "lease-renew"
	LeaseTTL    Kind = "lease-ttl"
	Compact     Kind = "compact"
)

// Outcome of an operation.
type Outcome string

// The outcomes.
const (
	// OK: it was answered.
	OK Outcome = "ok"
	// Failed: etcd refused it, and it did not happen for sure.
	Failed Outcome = "failed"
	// Unknown: it may have happened, at any time after Call, or not at all.
	Unknown Outcome = "unknown"
)

// Never is when an operation returns whose outcome is unknown.
const Never = math.MaxInt64

// Operation is one call of one client, and what came of it.
type Operation struct {
	// Client asks one thing at a time.
	Client int `json:"client"`
	// Endpoint that was asked.
	Endpoint string `json:"endpoint,omitempty"`
	// Call and Return are nanoseconds since the history began, by one monotonic
	// clock; Return is Never where the outcome is unknown.
	Call    int64   `json:"call"`
	Return  int64   `json:"return"`
	Kind    Kind    `json:"kind"`
	Outcome Outcome `json:"outcome"`
	// Error of what did not go well.
	Error string `json:"error,omitempty"`

	// If, Then and Else of a transaction; a put, a delete and a range have Then only.
	If   []Condition `json:"if,omitempty"`
	Then []Request   `json:"then,omitempty"`
	Else []Request   `json:"else,omitempty"`
	// Serializable: it may be answered from old data.
	Serializable bool `json:"serializable,omitempty"`

	// Revision in the header of the answer; to compact, the one that was asked for.
	Revision int64 `json:"revision,omitempty"`
	// Succeeded: the conditions held. Results are those of the branch taken.
	Succeeded bool     `json:"succeeded,omitempty"`
	Results   []Result `json:"results,omitempty"`

	// Lease that was granted, revoked, renewed or asked for, TTL in seconds as etcd
	// answered it (-1: it is over).
	Lease int64 `json:"lease,omitempty"`
	TTL   int64 `json:"ttl,omitempty"`
}

// Field of a key that a condition compares.
type Field string

// The fields.
const (
	FieldValue   Field = "value"
	FieldVersion Field = "version"
	FieldCreate  Field = "create"
	FieldMod     Field = "mod"
	FieldLease   Field = "lease"
)

// Condition of a transaction.
type Condition struct {
	Key   string `json:"key"`
	Field Field  `json:"field"`
	// Op is "=", "!=", "<" or ">".
	Op string `json:"op"`
	// Value is compared with FieldValue, Number with the others.
	Value  string `json:"value,omitempty"`
	Number int64  `json:"number,omitempty"`
}

// Request is a put, delete or range within an operation.
type Request struct {
	// Kind is Put, Delete or Range.
	Kind Kind   `json:"kind"`
	Key  string `json:"key"`
	// End of the range, exclusive; empty for one key.
	End   string `json:"end,omitempty"`
	Value string `json:"value,omitempty"`
	Lease int64  `json:"lease,omitempty"`
	Limit int64  `json:"limit,omitempty"`
	// Revision to read at; 0 for the latest.
	Revision int64 `json:"revision,omitempty"`
	// PrevKV: what was there before is wanted in the answer.
	PrevKV bool `json:"prevKV,omitempty"`
}

// Result of a request.
type Result struct {
	// KVs that a range found, or that were there before.
	KVs []KeyValue `json:"kvs,omitempty"`
	// Count of all keys in the range, also those behind the limit.
	Count   int64 `json:"count,omitempty"`
	More    bool  `json:"more,omitempty"`
	Deleted int64 `json:"deleted,omitempty"`
}

// KeyValue is one key as etcd told it.
type KeyValue struct {
	Key            string `json:"key"`
	Value          string `json:"value,omitempty"`
	Version        int64  `json:"version,omitempty"`
	CreateRevision int64  `json:"create,omitempty"`
	ModRevision    int64  `json:"mod,omitempty"`
	Lease          int64  `json:"lease,omitempty"`
}

// Watch is one watch, with all that it delivered.
type Watch struct {
	// ID is unique in the history.
	ID       int    `json:"id"`
	Client   int    `json:"client"`
	Endpoint string `json:"endpoint,omitempty"`
	Key      string `json:"key"`
	End      string `json:"end,omitempty"`
	// StartRevision that was asked for; 0 for from now on.
	StartRevision int64 `json:"startRevision,omitempty"`
	PrevKV        bool  `json:"prevKV,omitempty"`
	NoPut         bool  `json:"noPut,omitempty"`
	NoDelete      bool  `json:"noDelete,omitempty"`
	Progress      bool  `json:"progress,omitempty"`
	// Truth: it was kept open over the whole prefix from the start revision on, and
	// resumed where it broke, so that its events are all there were.
	Truth bool `json:"truth,omitempty"`

	Responses []WatchResponse `json:"responses,omitempty"`
}

// WatchResponse is what one message of a watch said.
type WatchResponse struct {
	// At is when it arrived, in nanoseconds.
	At       int64 `json:"at"`
	Revision int64 `json:"revision"`
	Created  bool  `json:"created,omitempty"`
	// Progress: it says that everything up to Revision was delivered.
	Progress bool `json:"progress,omitempty"`
	// Fragment: more of the same revision follows in the next response.
	Fragment bool `json:"fragment,omitempty"`
	// Canceled, CompactRevision and Error say why it ended.
	Canceled        bool    `json:"canceled,omitempty"`
	CompactRevision int64   `json:"compactRevision,omitempty"`
	Error           string  `json:"error,omitempty"`
	Events          []Event `json:"events,omitempty"`
}

// Event is one change.
type Event struct {
	// Deleted, or else put.
	Deleted bool `json:"deleted,omitempty"`
	// Create: the key was not there before, as the event says.
	Create bool      `json:"isCreate,omitempty"`
	KV     KeyValue  `json:"kv"`
	PrevKV *KeyValue `json:"prev,omitempty"`
}

// Hash is a member's HashKV at one revision.
type Hash struct {
	Member          string `json:"member"`
	Revision        int64  `json:"revision"`
	CompactRevision int64  `json:"compactRevision"`
	Hash            uint32 `json:"hash"`
	At              int64  `json:"at"`
}
