package supervisor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/datadir"
	"github.com/quorate/quorate/etcd/srv"
)

// FormationOrder is about the first steps of a member: until it has become part of
// its cluster, what etcd says is read for signs that it never will.
type FormationOrder struct {
	// Peers is how many entries the log of a member begins with: the founding members.
	// Entries beyond them came from a leader.
	Peers int `json:"peers"`
	// PatienceSeconds is how long what may pass by itself is waited for; 0 means 180.
	PatienceSeconds float64 `json:"patienceSeconds,omitempty"`
}

// FormationState is how the first steps of a member went.
type FormationState struct {
	// Formed: the member has become part of its cluster.
	Formed bool `json:"formed,omitempty"`
	// Refused: etcd was stopped, and is not started again for this Attempt.
	Refused bool   `json:"refused,omitempty"`
	Attempt string `json:"attempt,omitempty"`
	// Bootstrap is what etcd was told of its cluster in this Attempt.
	Bootstrap string `json:"bootstrap,omitempty"`
	// Peers are how many entries the log began with then.
	Peers int `json:"peers,omitempty"`
	// Reason in one word, and Message with the next step.
	Reason  string    `json:"reason,omitempty"`
	Message string    `json:"message,omitempty"`
	At      time.Time `json:"at,omitzero"`
	// Again is when the same Attempt is made once more, where what was wrong can pass by
	// itself; zero for never. Tries are how often it was refused.
	Again time.Time `json:"again,omitzero"`
	Tries int       `json:"tries,omitempty"`
}

// Reasons why a member does not become part of its cluster.
const (
	ReasonWrongInitialCluster   = "WrongInitialCluster"
	ReasonPeerURLMismatch       = "PeerURLMismatch"
	ReasonAlreadyBootstrapped   = "AlreadyBootstrapped"
	ReasonClusterIDMismatch     = "ClusterIDMismatch"
	ReasonPeersUnreachable      = "PeersUnreachable"
	ReasonDiscoveryTokenUnknown = "DiscoveryTokenUnknown"
	ReasonDiscoverySizeWrong    = "DiscoverySizeWrong"
	ReasonDiscoveryFull         = "DiscoveryFull"
	ReasonDiscoveryUnreachable  = "DiscoveryUnreachable"
	ReasonSRVRecordsWrong       = srv.ReasonWrong
	ReasonSRVLookupFailed       = srv.ReasonLookupFailed
	ReasonCertificateNotValid   = "CertificateNotValid"
)

// defaultPatience is for slow peers, DNS and discovery services: a founding member
// may well be minutes ahead of the others.
const defaultPatience = 3 * time.Minute

// sign is something that etcd says when it will not become part of its cluster.
type sign struct {
	// text is part of the line in its log, with the versions that say so.
	text   string
	reason string
	// means is what to tell a person: the cause and the next step.
	means string
	// share of the patience after which etcd, which goes on trying, is stopped; 0 where
	// it ends by itself.
	share float64
	// times it must have been said by then.
	times int
	// besides: one of these is part of the line too; none asks for nothing.
	besides []string
	// again is after how long etcd is started once more, where what is wrong may be put
	// right without anybody here being told: each time the wait doubles, up to atMost. 0
	// for never.
	again, atMost time.Duration
}

// How long etcd is kept stopped before what may have passed by itself is looked at
// again: nobody should have to get up for a name server that was away for a second, or
// for a discovery service that was away for the night.
const (
	lookupAgain, lookupAtMost   = 2 * time.Second, 30 * time.Second
	outsideAgain, outsideAtMost = 2 * time.Minute, 30 * time.Minute
)

// lookupFailures are said of a name server that gives no answer.
var lookupFailures = []string{"i/o timeout", "server misbehaving", "connection refused", "network is unreachable", "no route to host", "temporary failure"}

// signs were tried on real processes of 3.5.35, 3.6.16 and 3.7.3. The first that
// matches a line counts.
var signs = []sign{
	// Discovery: 3.6 and later.
	{
		text: "discovery: size key not found", reason: ReasonDiscoveryTokenUnknown,
		means: "the discovery service does not know the token: it was never made there, has expired or was deleted; make one for the cluster's size, or name the right one",
	},
	{
		text: "discovery: size key is bad", reason: ReasonDiscoverySizeWrong,
		means: "the size that the discovery service keeps with the token is not a number above zero; make a new token for the cluster's size",
	},
	{
		text: "discovery: cluster is full", reason: ReasonDiscoveryFull,
		means: "as many members as the token is for have registered with the discovery service already; make a new token for the cluster's size",
	},
	{
		text: "failed to get cluster size from discovery service", reason: ReasonDiscoveryUnreachable, share: 1, times: 2, again: outsideAgain, atMost: outsideAtMost,
		means: "the discovery service does not answer; see that its endpoints are right and can be reached from this host, and that its certificate is the expected one",
	},
	{
		text: "failed to get cluster members from discovery service", reason: ReasonDiscoveryUnreachable, share: 1, times: 2, again: outsideAgain, atMost: outsideAtMost,
		means: "the discovery service does not list the members that have registered; see that its endpoints are right and can be reached from this host",
	},
	{
		text: "failed to register members itself to the discovery service", reason: ReasonDiscoveryUnreachable, share: 1, times: 2, again: outsideAgain, atMost: outsideAtMost,
		means: "the discovery service does not let the member register; see that it can be written, and that the token is for as many members as the cluster has",
	},
	// A list of members that does not fit: all versions.
	{
		text: "error validating peerURLs", reason: ReasonWrongInitialCluster,
		means: "the members that it was told of are not those that the running cluster has; add the member to that cluster first, and tell it exactly the members that are there",
	},
	{
		text: "couldn't find local name", reason: ReasonWrongInitialCluster,
		means: "the member is not in the list of founding members that it was given; put it there under its own name",
	},
	{
		text: "has duplicate url", reason: ReasonWrongInitialCluster,
		means: "two founding members have the same peer URL; give each its own address or port",
	},
	{
		text: "missing from --initial-advertise-peer-urls", reason: ReasonPeerURLMismatch,
		means: "the list of founding members has another peer URL for the member than the one it is reached at; make them the same",
	},
	{
		text: "missing from --initial-cluster=", reason: ReasonPeerURLMismatch,
		means: "the member is reached at a peer URL that the list of founding members does not have; make them the same",
	},
	{
		text: "to match --initial-cluster=", reason: ReasonPeerURLMismatch,
		means: "the peer URL of the member in the list of founding members can't be resolved to the address it is reached at; make them the same",
	},
	{
		text: "has already been bootstrapped", reason: ReasonAlreadyBootstrapped,
		means: "the cluster runs already and has had a member of this name and peer URL; remove that one and add the member anew, instead of founding the cluster once more",
	},
	// DNS: what is said elsewhere of one scheme alone means nothing.
	{
		text: "cannot find local etcd member", reason: ReasonSRVRecordsWrong, again: outsideAgain, atMost: outsideAtMost,
		means: "no SRV record names the member; add its record",
	},
	{
		text: "error setting up initial cluster", besides: lookupFailures, reason: ReasonSRVLookupFailed, again: lookupAgain, atMost: lookupAtMost,
		means: "the host's resolver gave no answer when etcd looked the SRV records up; see its /etc/resolv.conf, and that the domain is served",
	},
	{
		text: "error setting up initial cluster", reason: ReasonSRVRecordsWrong, again: outsideAgain, atMost: outsideAtMost,
		means: "the SRV records that name the members can't be used; see `quorate dns records` for those that belong there",
	},
	// What goes on for ever.
	{
		text: "due to cluster ID mismatch", reason: ReasonClusterIDMismatch, share: 1.0 / 12, times: 3,
		means: "another cluster runs at the peer URLs that the member was told of; a member that is to join it must be added there first, and told that the cluster exists; for a new cluster choose other addresses or ports, or stop the one that runs",
	},
	{
		text: "certificate has expired or is not yet valid", reason: ReasonCertificateNotValid, share: 1.0 / 6, times: 3, again: outsideAgain, atMost: outsideAtMost,
		means: "a peer's certificate is not valid at this host's time; compare the clocks of the hosts, and set the one that is wrong",
	},
	{
		text: "could not retrieve cluster information from the given URLs", reason: ReasonPeersUnreachable, share: 1, times: 2, again: outsideAgain, atMost: outsideAtMost,
		means: "no member of the running cluster answers at the peer URLs that the member was told of; see that they run and can be reached from this host",
	},
}

// progressTexts are said when a discovery service answers again.
var progressTexts = [][]byte{[]byte("register member itself successfully"), []byte("waiting for peers from discovery service")}

// formedTexts are said by a member that its cluster has taken in.
var formedTexts = [][]byte{[]byte(`"published local member to cluster through raft"`), []byte(`"ready to serve client requests"`)}

// firstSteps watches an etcd that has yet to become part of its cluster.
type firstSteps struct {
	on     bool
	formed bool
	seen   map[string]*seenSign
	// fatal is what etcd said last before it ends by itself.
	fatal *seenSign
}

type seenSign struct {
	*sign
	first  time.Time
	times  int
	detail string
}

// begin forgets the fatal signs of an earlier etcd. What lasts may last over several.
func (f *firstSteps) begin() {
	f.fatal = nil
}

// hear looks at a line of etcd's log.
func (f *firstSteps) hear(line []byte) {
	if !f.on {
		return
	}
	contains := func(text []byte) bool { return bytes.Contains(line, text) }
	if slices.ContainsFunc(formedTexts, contains) {
		f.formed = true
		return
	}
	if slices.ContainsFunc(progressTexts, contains) {
		for text, s := range f.seen {
			if s.reason == ReasonDiscoveryUnreachable {
				delete(f.seen, text)
			}
		}
		return
	}
	for i := range signs {
		s := &signs[i]
		if !bytes.Contains(line, []byte(s.text)) || !s.beside(line) {
			continue
		}
		if f.seen == nil {
			f.seen = map[string]*seenSign{}
		}
		seen := f.seen[s.text]
		if seen == nil || seen.sign != s {
			seen = &seenSign{sign: s, first: time.Now()}
			f.seen[s.text] = seen
		}
		seen.times++
		seen.detail = detailOf(line)
		if s.share == 0 {
			f.fatal = seen
		}
		return
	}
}

func (s *sign) beside(line []byte) bool {
	return len(s.besides) == 0 || slices.ContainsFunc(s.besides, func(text string) bool { return bytes.Contains(line, []byte(text)) })
}

// detailOf is what a line says of the cause, with the IDs that tell clusters apart.
func detailOf(line []byte) string {
	var entry struct {
		Msg, Error string
		Local      string `json:"local-member-cluster-id"`
		Remote     string `json:"remote-peer-cluster-id"`
	}
	if json.Unmarshal(line, &entry) != nil {
		return strings.TrimSpace(string(line[:min(len(line), causeMax)]))
	}
	text := entry.Msg
	if entry.Error != "" {
		text = entry.Error
	}
	if entry.Remote != "" {
		text += fmt.Sprintf(" (this member's is %s, the other's is %s)", entry.Local, entry.Remote)
	}
	return text[:min(len(text), causeMax)]
}

// overdue returns what has lasted for too long, or nil.
func (f *firstSteps) overdue(now time.Time, patience time.Duration) *seenSign {
	for i := range signs {
		s := f.seen[signs[i].text]
		if s != nil && s.share > 0 && s.times >= s.sign.times && now.Sub(s.first) >= time.Duration(s.share*float64(patience)) {
			return s
		}
	}
	return nil
}

func (o *Order) patience() time.Duration {
	if o.Formation == nil || o.Formation.PatienceSeconds <= 0 {
		return defaultPatience
	}
	return time.Duration(o.Formation.PatienceSeconds * float64(time.Second))
}

// attempt names what etcd would be started with: a refusal stands for it alone.
func (o *Order) attempt() string {
	sum := sha256.Sum256([]byte(o.ConfigHash + "\x00" + strings.Join(o.Args, "\x00")))
	return hex.EncodeToString(sum[:8])
}

// bootstrap is what the arguments say of the cluster to become part of.
func (o *Order) bootstrap() string {
	var args []string
	for _, a := range o.Args {
		if strings.HasPrefix(a, "--initial-cluster") || strings.HasPrefix(a, "--discovery") {
			args = append(args, a)
		}
	}
	return strings.Join(args, " ")
}

// founding reports whether the member has yet to become part of its cluster.
func (s *supervisor) founding() bool {
	return s.order != nil && s.order.Formation != nil && !s.order.Joined && (s.state.Formation == nil || !s.state.Formation.Formed)
}

// followFormation turns the watch of the first steps on or off, and notes their end.
func (s *supervisor) followFormation() {
	if s.errors.steps.formed && s.founding() {
		s.noteFormed()
	}
	s.errors.steps.on = s.founding()
}

func (s *supervisor) noteFormed() {
	s.state.Formation = &FormationState{Formed: true, At: time.Now()}
}

// formedByLog: entries beyond the first ones came from a leader. It is asked where
// the log of etcd may have said less, before a member is stopped for good.
func (s *supervisor) formedByLog() bool {
	tail, err := datadir.ReadTail(s.order.DataDir)
	return err == nil && beyond(tail, s.order.Formation.Peers)
}

// beyond reports whether a log has entries that came from a leader.
func beyond(tail datadir.Tail, peers int) bool {
	return !tail.Empty && tail.LastIndex > uint64(max(peers, 0))
}

// checkFormation stops an etcd that goes on trying what can't succeed. It reports
// whether it did.
func (s *supervisor) checkFormation(ctx context.Context, now time.Time) bool {
	if !s.founding() || s.child.why != "" {
		return false
	}
	late := s.errors.steps.overdue(now, s.order.patience())
	if late == nil {
		return false
	}
	if s.formedByLog() {
		s.noteFormed()
		return false
	}
	s.refuseFormation(ctx, now, late)
	s.terminate(ctx, now, late.detail)
	return true
}

// refuseFormation notes that etcd is not to be started again in the same way.
func (s *supervisor) refuseFormation(ctx context.Context, now time.Time, why *seenSign) {
	tries := 1
	if s.state.Formation != nil {
		tries += s.state.Formation.Tries
	}
	f := &FormationState{
		Refused: true, Attempt: s.order.attempt(), Bootstrap: s.order.bootstrap(), Peers: s.order.Formation.Peers, Reason: why.reason, At: now, Tries: tries,
	}
	when := "it is started again"
	if why.again > 0 {
		f.Again = now.Add(why.wait(tries))
		when = fmt.Sprintf("it is tried again at %s, and before that", f.Again.UTC().Format(time.RFC3339))
	}
	f.Message = fmt.Sprintf("etcd said %q and is kept stopped: %s; %s when its configuration changes or a person restarts it", why.detail, why.means, when)
	s.state.Formation = f
	s.log.ErrorContext(ctx, "the member does not become part of its cluster", slog.String("reason", why.reason), slog.String("cause", why.detail))
}

// wait before the next try, after so many.
func (s *sign) wait(tries int) time.Duration {
	const most = 16 // doubled more often, it is at its limit anyway
	return min(s.again<<min(tries-1, most), s.atMost)
}

// endedForGood notes the end of an etcd that would end in the same way each time.
func (s *supervisor) endedForGood(ctx context.Context, now time.Time) bool {
	if !s.founding() {
		return false
	}
	why := s.errors.steps.fatal
	if why == nil {
		why = s.errors.steps.overdue(now, s.order.patience())
	}
	if why == nil || s.formedByLog() {
		return false
	}
	s.refuseFormation(ctx, now, why)
	return true
}

// formationRefused reports whether etcd is kept stopped, and begins anew where the
// order has changed since.
func (s *supervisor) formationRefused(ctx context.Context, now time.Time) bool {
	f := s.state.Formation
	if f == nil || !f.Refused || !s.founding() {
		return false
	}
	if f.Attempt == s.order.attempt() && !f.Again.IsZero() && !now.Before(f.Again) {
		s.state.Formation, s.errors.steps = &FormationState{Tries: f.Tries}, firstSteps{on: true}
		return false
	}
	if f.Attempt == s.order.attempt() {
		s.set(v1alpha1.MemberRefused, f.Reason, f.Message)
		return true
	}
	if err := s.beginAnew(ctx, now, f); err != nil {
		s.nextStart = now.Add(backoffMin)
		s.set(v1alpha1.MemberFailed, ReasonStateNotSaved, "etcd is not started: "+err.Error())
		return true
	}
	s.state.Formation, s.errors.steps = nil, firstSteps{on: true}
	return false
}

// beginAnew moves aside what a formation that failed has left, where the member is
// now to become part of another cluster: etcd would believe the directory rather than
// what it is told. A directory is only moved if nothing in it can have been promised
// to anyone: no entry came from a leader, and no vote went to another member.
func (s *supervisor) beginAnew(ctx context.Context, now time.Time, f *FormationState) error {
	if f.Bootstrap == s.order.bootstrap() {
		return nil
	}
	tail, err := datadir.ReadTail(s.order.DataDir)
	if err != nil {
		return err
	}
	if tail.Empty || beyond(tail, f.Peers) || tail.Vote != 0 && tail.Vote != tail.MemberID {
		return nil // the law of the data directory decides
	}
	where, err := datadir.Retire(s.order.DataDir, now, filepath.Join(filepath.Dir(filepath.Dir(string(s.home))), "retired"), datadir.Retirement{
		Reason: fmt.Sprintf("member %s/%s never became part of a cluster with it (%s), and is to become part of another", s.order.Namespace, s.order.Name, f.Reason),
	})
	if err != nil {
		return err
	}
	s.log.InfoContext(ctx, "moved the data directory of a failed formation aside", slog.String("to", where))
	s.idsKnown = false
	return s.changeIdentity(func(id *datadir.Identity) bool {
		id.ClusterID, id.MemberID, id.Mark, id.Rest = "", "", datadir.Mark{}, nil
		return true
	})
}
