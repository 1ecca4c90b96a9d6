// Package check finds out whether an etcd cluster keeps its promises: it makes
// traffic on a prefix of its own, through every member, records what each client
// saw, and judges the record. It is the engine of `quorate check run`.
//
// What it writes stays below its prefix, which must be empty, and is deleted at the
// end. It reads nothing else. Compaction is the one thing that would reach beyond
// the prefix, so it is off unless it is asked for.
//
// While traffic runs, Disturbers may do harm to the cluster, one at a time. How, is
// none of this package's business: whoever calls Run gives them.
package check

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"strings"
	"time"

	"github.com/quorate/quorate/history"
)

// Errors of a run.
var (
	// ErrOptions says that a run can't be made as it was asked for.
	ErrOptions = errors.New("the check can't be run")
	// ErrNobody says that no endpoint answered before anything was done.
	ErrNobody = errors.New("nobody answers")
	// ErrNotEmpty says that there are keys below the prefix already.
	ErrNotEmpty = errors.New("the prefix is not empty")
	// ErrRecord says that the file of the history is not complete, though the run was
	// judged.
	ErrRecord = errors.New("the record is not complete")
	// ErrAbandoned says that a run was given up before it was judged.
	ErrAbandoned = errors.New("given up")
)

// Defaults of a run.
const (
	DefaultClients   = 8
	DefaultRate      = 400
	DefaultDuration  = 30 * time.Second
	DefaultKeys      = 24
	DefaultValueSize = 64
	DefaultTimeout   = 3 * time.Second
	DefaultPatience  = 30 * time.Second
	DefaultEvery     = 5 * time.Second
	defaultPrefix    = "/quorate-check/"
	lastKey          = "z/end"
	smallDB          = 64 << 20
	maxClients       = 1000
	maxKeys          = 10000
	maxValue         = 1 << 20
	compactEvery     = 2 * time.Second
	shortestPrefix   = 2
	clientsPerLeaser = 4
)

// HashPolicy says whether members are asked for the hash of their data, which holds
// up writes while a big database is read.
type HashPolicy string

// The policies.
const (
	// HashAuto asks where every database is small.
	HashAuto   HashPolicy = "auto"
	HashAlways HashPolicy = "always"
	HashNever  HashPolicy = "never"
)

// Disturber does one kind of harm to the cluster.
type Disturber interface {
	// Kind in a word, such as pause.
	Kind() string
	// Disturb chooses whom, does it, and returns when it is over, or soon after ctx is
	// done. The target, such as a member, is for the reader. Whatever was done has been
	// undone when it returns, or undoes itself.
	Disturb(ctx context.Context) (target string, err error)
}

// Options of a run. Zero values are the defaults.
type Options struct {
	// Endpoints are client URLs; the other members are found by the member list.
	Endpoints []string
	// TLS for https endpoints.
	TLS *tls.Config
	// User and Password log in where User is not empty.
	User     string
	Password string
	// Dial connects to HOST:PORT by another way than the machine's own; nil for that.
	Dial func(ctx context.Context, address string) (net.Conn, error)

	// Prefix that is empty and nobody else's; one below /quorate-check/ by default.
	Prefix string
	// Clients that make traffic at once; there are some more for leases and watches.
	Clients int
	// Rate of operations in a second, of all clients together; negative for as fast as
	// it goes.
	Rate float64
	// Duration of the traffic, unless Operations end it before. All that is seen is kept
	// until it is judged, so that without Operations there is a limit to these: see
	// Plan.Limit.
	Duration   time.Duration
	Operations int
	// Mix is the weight of each kind of operation, by its name.
	Mix Mix
	// MayCorrupt allows what is known to corrupt the release of etcd that runs: only for
	// clusters that are thrown away.
	MayCorrupt bool
	// Keys that are fought over, and the size of their values in bytes.
	Keys      int
	ValueSize int
	// Timeout of one operation.
	Timeout time.Duration
	// Seed of all that is chosen by chance; 0 is a new one.
	Seed uint64
	// AllowCompact compacts the cluster now and then, for everyone on it: about every
	// CompactEvery.
	AllowCompact bool
	CompactEvery time.Duration
	// Hash says when members are asked for their hash at the end.
	Hash HashPolicy
	// Keep leaves what was written.
	Keep bool
	// Patience bounds how long is waited at the end for members to catch up.
	Patience time.Duration

	// Disturbers take turns, with a rest of Every before each.
	Disturbers []Disturber
	Every      time.Duration

	// File gets the history; empty for none.
	File string
	// Name of the history, for the reader.
	Name string
	// Progress is told every two seconds; nil for nobody.
	Progress func(Progress)
	// Abandon gives everything up when it is closed, once ctx is done: what was written
	// stays, and nothing is judged. Nil for never.
	Abandon <-chan struct{}
	// Logger hears what went wrong on the way; nil for nobody.
	Logger *slog.Logger
}

// Progress of a run.
type Progress struct {
	// Phase is what is being done.
	Phase      string
	Elapsed    time.Duration
	Operations int
	Unknown    int
	Failed     int
	// PerSecond is how many operations ended in the last second or two.
	PerSecond float64
	// Disturbance under way: its kind.
	Disturbance string
}

// Verdict of a run.
type Verdict string

// The verdicts.
const (
	// Holds: nothing that was seen contradicts what etcd promises.
	Holds Verdict = "holds"
	// Violated: a promise was broken.
	Violated Verdict = "violated"
	// Undecided: the cluster did not answer at the end, and what was seen until then
	// contradicts nothing.
	Undecided Verdict = "undecided"
)

// Result of a run.
type Result struct {
	Verdict Verdict `json:"verdict"`
	Summary string  `json:"summary"`
	// Prefix of all keys, and the revisions of the cluster before and after.
	Prefix        string   `json:"prefix"`
	StartRevision int64    `json:"startRevision"`
	EndRevision   int64    `json:"endRevision,omitempty"`
	Members       []Member `json:"members"`
	Seed          uint64   `json:"seed"`
	Stats         Stats    `json:"stats"`
	// Disturbances that were made, by the clock of the history.
	Disturbances []history.Disturbance `json:"disturbances,omitempty"`
	// Hash says of how many members the hash was compared, or why not.
	Hash string `json:"hash"`
	// Notes are what a reader should know, and no violation.
	Notes []string `json:"notes,omitempty"`
	// History is the file of all that was seen.
	History string `json:"history,omitempty"`
	// Report is the judgement of the history.
	Report *history.Report `json:"report"`
}

// Stats of a run.
type Stats struct {
	Seconds    float64        `json:"seconds"`
	Operations int            `json:"operations"`
	PerSecond  float64        `json:"perSecond"`
	OK         int            `json:"ok"`
	Failed     int            `json:"failed"`
	Unknown    int            `json:"unknown"`
	Kinds      map[string]int `json:"kinds"`
	// Writes that were acknowledged, and the longest time without one.
	Writes                 int     `json:"writes"`
	LongestWriteGapSeconds float64 `json:"longestWriteGapSeconds"`
	Watches                int     `json:"watches"`
	WatchEvents            int     `json:"watchEvents"`
	// TruthResumed is how often the watch that all is held against went on elsewhere.
	TruthResumed int `json:"truthResumed"`
}

// withDefaults fills in what was left out, and refuses what can't be.
func (o *Options) withDefaults() error {
	o.Clients = orInt(o.Clients, DefaultClients)
	o.Keys = orInt(o.Keys, DefaultKeys)
	o.ValueSize = orInt(o.ValueSize, DefaultValueSize)
	if o.Rate == 0 {
		o.Rate = DefaultRate
	}
	o.Duration = orTime(o.Duration, DefaultDuration)
	o.Timeout = orTime(o.Timeout, DefaultTimeout)
	o.Patience = orTime(o.Patience, DefaultPatience)
	o.Every = orTime(o.Every, DefaultEvery)
	o.CompactEvery = orTime(o.CompactEvery, compactEvery)
	if o.Hash == "" {
		o.Hash = HashAuto
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if len(o.Mix) == 0 {
		o.Mix = DefaultMix()
	}
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		return fmt.Errorf("choose a prefix: %w", err)
	}
	if o.Prefix == "" {
		o.Prefix = defaultPrefix + hex.EncodeToString(random[:8]) + "/"
	}
	if o.Seed == 0 {
		o.Seed = binary.LittleEndian.Uint64(random[8:]) >> 1
	}
	return o.validate()
}

func (o *Options) validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrOptions}, args...)...)
	}
	switch {
	case len(o.Endpoints) == 0:
		return bad("no endpoint was given: name a client URL such as https://10.0.0.1:2379")
	case len(o.Prefix) < shortestPrefix || !strings.HasSuffix(o.Prefix, "/"):
		return bad("the prefix is %q: give one that ends with a slash and is nobody else's, such as %smine/", o.Prefix, defaultPrefix)
	case o.Clients < 1 || o.Clients > maxClients:
		return bad("there are to be %d clients: choose 1 to %d", o.Clients, maxClients)
	case o.Keys < 2 || o.Keys > maxKeys:
		return bad("there are to be %d keys: choose 2 to %d", o.Keys, maxKeys)
	case o.ValueSize < 1 || o.ValueSize > maxValue:
		return bad("values are to have %d bytes: choose 1 to %d", o.ValueSize, maxValue)
	case math.IsNaN(o.Rate) || math.IsInf(o.Rate, 0):
		return bad("the rate is %v: give operations in a second, such as %d", o.Rate, DefaultRate)
	case o.Operations < 0:
		return bad("there are to be %d operations: give a number above 0, or leave it out", o.Operations)
	case o.Duration < 0 || o.Timeout < 0 || o.Every < 0 || o.Patience < 0 || o.CompactEvery < 0:
		return bad("a time is negative: give one such as 30s")
	case o.Hash != HashAuto && o.Hash != HashAlways && o.Hash != HashNever:
		return bad("hash is %q: use %s, %s or %s", o.Hash, HashAuto, HashAlways, HashNever)
	}
	return o.Mix.validate()
}

func orInt(v, usual int) int {
	if v == 0 {
		return usual
	}
	return v
}

func orTime(v, usual time.Duration) time.Duration {
	if v == 0 {
		return usual
	}
	return v
}

// Decided says whether a history is one of a cluster that took a write at its end. Of
// histories that were recorded by others it is not known, and taken to be so.
func Decided(h *history.History) bool {
	asked := false
	for i := range h.Operations {
		op := &h.Operations[i]
		if op.Kind != history.Put || len(op.Then) != 1 || op.Then[0].Key != h.Meta.Prefix+lastKey {
			continue
		}
		if op.Outcome == history.OK {
			return true
		}
		asked = true
	}
	return !asked
}
