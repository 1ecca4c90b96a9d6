package drivertest

import (
	"errors"
	"fmt"
	"hash/fnv"
	"slices"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
)

// What etcd says to those who ask for what can't be. The words are its own.
var (
	ErrUnhealthy       = errors.New("etcdserver: unhealthy cluster")
	ErrTooManyLearners = errors.New("etcdserver: too many learner members in cluster")
	ErrNotStarted      = errors.New("etcdserver: re-configuration failed due to not enough started members")
	ErrNotFound        = errors.New("etcdserver: member not found")
	ErrNotReady        = errors.New("etcdserver: can only promote a learner member which is in sync with leader")
	ErrNoQuorum        = errors.New("etcdserver: request timed out")
	ErrNotLeader       = errors.New("etcdserver: not leader")
	ErrBadTransferee   = errors.New("etcdserver: bad leader transferee")
	// ErrRemoved and ErrNotListed end a process that is started.
	ErrRemoved   = errors.New("the member has been permanently removed from the cluster")
	ErrNotListed = errors.New("error validating peerURLs: member count is unequal")
)

// Ensemble is a model of one etcd cluster: who its members are, who leads, and what etcd
// refuses. It has no data but the length of its log. It is not safe for concurrent use.
type Ensemble struct {
	// ID of the cluster.
	ID etcd.ID
	// Index is the last entry of the log.
	Index uint64
	// Term counts the elections.
	Term uint64
	// Up reports whether the etcd that listens at a peer URL runs and answers.
	Up func(peerURL string) bool

	token   string
	peers   []*peer
	removed map[string]bool
	leader  etcd.ID
}

type peer struct {
	etcd.Member
	// started once it has ever been; applied is how far it is.
	started bool
	applied uint64
}

// NewEnsemble is a cluster that was founded by peers.
func NewEnsemble(token string, founders []v1alpha1.Peer, up func(peerURL string) bool) *Ensemble {
	const index = 10_000
	e := &Ensemble{ID: hash(token), Index: index, Up: up, token: token, removed: map[string]bool{}}
	for _, f := range founders {
		e.peers = append(e.peers, &peer{Member: etcd.Member{ID: hash(token + f.URL), Name: f.Name, PeerURLs: []string{f.URL}}, applied: index})
	}
	return e
}

func hash(text string) etcd.ID {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text)) // never fails
	return etcd.ID(h.Sum64())
}

func (e *Ensemble) at(url string) *peer {
	i := slices.IndexFunc(e.peers, func(p *peer) bool { return p.PeerURLs[0] == url })
	if i < 0 {
		return nil
	}
	return e.peers[i]
}

func (e *Ensemble) by(id etcd.ID) *peer {
	i := slices.IndexFunc(e.peers, func(p *peer) bool { return p.ID == id })
	if i < 0 {
		return nil
	}
	return e.peers[i]
}

// Start is what a process finds that is started at a peer URL: ErrRemoved, ErrNotListed,
// or its place.
func (e *Ensemble) Start(name, url string) error {
	p := e.at(url)
	switch {
	case e.removed[url]:
		return ErrRemoved
	case p == nil:
		return ErrNotListed
	}
	p.Name, p.started = name, true
	return nil
}

// CatchUp brings a learner to the end of the log.
func (e *Ensemble) CatchUp(url string) {
	if p := e.at(url); p != nil {
		p.applied = e.Index
	}
}

// Voters counts the voting members, and those of them that are up.
func (e *Ensemble) Voters() (all, up int) {
	for _, p := range e.peers {
		if !p.Learner {
			all++
			if e.Up(p.PeerURLs[0]) {
				up++
			}
		}
	}
	return all, up
}

// Serves reports whether a quorum of the voters is up; it elects a leader where there is
// none.
func (e *Ensemble) Serves() bool {
	all, up := e.Voters()
	if up < all/2+1 {
		e.leader = 0
		return false
	}
	if l := e.by(e.leader); l == nil || l.Learner || !e.Up(l.PeerURLs[0]) {
		var able []*peer
		for _, p := range e.peers {
			if !p.Learner && e.Up(p.PeerURLs[0]) {
				able = append(able, p)
			}
		}
		e.leader = able[e.Term%uint64(len(able))].ID
		e.Term++
	}
	return true
}

// Leader is the peer URL of the leader, or empty.
func (e *Ensemble) Leader() string {
	if !e.Serves() {
		return ""
	}
	return e.by(e.leader).PeerURLs[0]
}

// Has reports whether a member has that peer URL, and whether it is a learner.
func (e *Ensemble) Has(url string) (is, learner bool) {
	p := e.at(url)
	return p != nil, p != nil && p.Learner
}

// Removed reports whether the member with that peer URL was removed.
func (e *Ensemble) Removed(url string) bool { return e.removed[url] }

// InSync reports whether the member at that URL has the whole log.
func (e *Ensemble) InSync(url string) bool {
	p := e.at(url)
	return p != nil && p.applied == e.Index
}

// Status is the answer of the member at that URL.
func (e *Ensemble) Status(url string) (etcd.Status, error) {
	p := e.at(url)
	if p == nil || !e.Up(url) {
		return etcd.Status{}, etcd.ErrRefused
	}
	s := etcd.Status{ClusterID: e.ID, MemberID: p.ID, Index: p.applied, AppliedIndex: p.applied, Learner: p.Learner, Version: "3.7.3"}
	if e.Serves() {
		s.Leader = e.leader
	}
	s.Term = e.Term
	return s, nil
}

// Members lists them as a quorum knows them.
func (e *Ensemble) Members() ([]etcd.Member, error) {
	if !e.Serves() {
		return nil, ErrNoQuorum
	}
	var all []etcd.Member
	for _, p := range e.peers {
		all = append(all, p.Member)
	}
	return all, nil
}

// AddLearner is etcd.Pool's.
func (e *Ensemble) AddLearner(url string) error {
	if !e.Serves() {
		return ErrNoQuorum
	}
	if e.at(url) != nil {
		return nil
	}
	all, up := e.Voters()
	for _, p := range e.peers {
		if !p.started {
			return ErrNotStarted
		}
		if p.Learner {
			return ErrTooManyLearners
		}
	}
	if up < all {
		return ErrUnhealthy
	}
	e.peers = append(e.peers, &peer{Member: etcd.Member{ID: hash(fmt.Sprint(e.token, url, e.Index)), PeerURLs: []string{url}, Learner: true}})
	delete(e.removed, url)
	return nil
}

// Promote is etcd.Pool's.
func (e *Ensemble) Promote(id etcd.ID) error {
	p := e.by(id)
	switch {
	case !e.Serves():
		return ErrNoQuorum
	case p == nil:
		return ErrNotFound
	case p.applied < e.Index-e.Index/10:
		return ErrNotReady
	}
	p.Learner = false
	return nil
}

// Remove is etcd.Pool's.
func (e *Ensemble) Remove(id etcd.ID) error {
	p := e.by(id)
	all, up := e.Voters()
	switch {
	case !e.Serves():
		return ErrNoQuorum
	case p == nil:
		return nil
	case !p.Learner && e.Up(p.PeerURLs[0]) && up-1 < (all-1)/2+1:
		return ErrUnhealthy
	}
	e.peers = slices.DeleteFunc(e.peers, func(o *peer) bool { return o == p })
	e.removed[p.PeerURLs[0]] = true
	return nil
}

// MoveLeader hands leadership from the member at a peer URL to another.
func (e *Ensemble) MoveLeader(from string, to etcd.ID) error {
	if e.Leader() != from || from == "" {
		return ErrNotLeader
	}
	p := e.by(to)
	if p == nil || p.Learner || !e.Up(p.PeerURLs[0]) {
		return ErrBadTransferee
	}
	if e.leader != to {
		e.leader = to
		e.Term++
	}
	return nil
}
