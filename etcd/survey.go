package etcd

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// askTime is how long one endpoint may take to answer, and diagnoseTime how long
	// it may take to find out why it did not.
	askTime      = time.Second
	diagnoseTime = time.Second
	// loginTime is what a login may take on top: etcd hashes the password, slowly by
	// intention.
	loginTime = 1500 * time.Millisecond
	// loginAgain is how long a refused login is believed: each attempt costs the
	// member a slow hash.
	loginAgain = 3 * time.Second
	// nobodysKey is read to see that a login still counts. It need not exist, and a
	// user without a role is denied it, which says as much.
	nobodysKey = "\x00"
)

// Access is how a cluster that others run is reached.
type Access struct {
	// Endpoints are client URLs, of which one that answers is enough.
	Endpoints []string
	// TLS for https endpoints; nil trusts the system's roots.
	TLS *tls.Config
	// Username and Password of a user; empty where there is none.
	Username string
	Password string
}

// Survey is what a cluster answered at one moment.
type Survey struct {
	// AskedAt is when it was asked.
	AskedAt time.Time
	// ClusterID that the members below belong to; 0 when none has answered.
	ClusterID ID
	// Members as the cluster lists them, by name; empty when none has ever listed
	// them.
	Members []MemberAnswer
	// Deaf are the given endpoints that no answer came from, each with its cause.
	Deaf []*Fault
	// Strangers answer for another cluster than the one that was asked for.
	Strangers []Stranger
	// Login is why the user could not log in, where members answer all the same.
	Login *Fault
	// Authenticated: a login was needed and made.
	Authenticated bool
}

// MemberAnswer is what one member answered.
type MemberAnswer struct {
	Member
	// Endpoint that it answered at, or was asked at last.
	Endpoint string
	// Answered: Status is from now.
	Answered bool
	Status   Status
	Took     time.Duration
	// Fault is what is wrong with reaching it, or nil.
	Fault *Fault
}

// Stranger is an endpoint of another cluster.
type Stranger struct {
	Endpoint  string
	ClusterID ID
}

// Surveyor asks one cluster that others run what it is, again and again. It writes
// nothing: no call of it enters the raft log, save a login where authentication is
// on, whose token is kept.
type Surveyor struct {
	access Access

	// mu is held for a whole survey: a second one would only ask the same.
	mu      sync.Mutex
	last    Survey
	members []Member
	lines   map[string]*line

	login struct {
		sync.Mutex
		token    string
		failed   error
		failedAt time.Time
	}
}

// line is the connection to one endpoint.
type line struct {
	*Observer
	target Target
	// leaf is the certificate of the latest handshake.
	leaf atomic.Pointer[x509.Certificate]
	// token that is in use.
	token string
}

// NewSurveyor returns a surveyor; close it.
func NewSurveyor(access Access) *Surveyor {
	return &Surveyor{access: access, lines: map[string]*line{}}
}

// Close ends all connections. A survey under way is waited for.
func (s *Surveyor) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for endpoint, l := range s.lines {
		_ = l.Close() // nobody reads from it any more
		delete(s.lines, endpoint)
	}
}

// reply is what one endpoint answered.
type reply struct {
	endpoint string
	line     *line
	status   Status
	took     time.Duration
	fault    *Fault
	// login is why the user could not log in although the endpoint answered.
	login *Fault
}

func (r *reply) answered() bool { return r.status.ClusterID != 0 }

// Survey asks every member, all at once. It takes 3 s at most, unless a login hangs,
// and ends with ctx in any case. Want is the cluster that should answer; 0 takes the
// first that does.
func (s *Surveyor) Survey(ctx context.Context, want ID) Survey {
	called := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last.AskedAt.After(called) {
		// Another call has asked meanwhile.
		return s.last
	}
	out := Survey{AskedAt: time.Now()}
	replies := s.askAll(ctx, s.endpoints())
	out.ClusterID = want
	if want == 0 {
		out.ClusterID = firstCluster(s.access.Endpoints, replies)
	}
	if listed := s.list(ctx, replies, out.ClusterID); listed != nil {
		s.members = listed
		maps.Copy(replies, s.askAll(ctx, s.unasked(replies, out.ClusterID)))
	}
	s.hangUp()
	s.compose(&out, replies)
	s.last = out
	return out
}

// endpoints to ask: those given, and those that members advertise.
func (s *Surveyor) endpoints() []string {
	all := slices.Clone(s.access.Endpoints)
	for _, m := range s.members {
		all = append(all, m.ClientURLs...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// firstCluster is the cluster of the first given endpoint that answers.
func firstCluster(given []string, replies map[string]*reply) ID {
	for _, endpoint := range given {
		if r := replies[endpoint]; r != nil && r.answered() {
			return r.status.ClusterID
		}
	}
	return 0
}

// unasked are client URLs of listed members that have not answered and were not
// asked there.
func (s *Surveyor) unasked(replies map[string]*reply, cluster ID) []string {
	heard := map[ID]bool{}
	for _, r := range replies {
		if r.answered() && r.status.ClusterID == cluster {
			heard[r.status.MemberID] = true
		}
	}
	var urls []string
	for _, m := range s.members {
		for _, u := range m.ClientURLs {
			if !heard[m.ID] && replies[u] == nil {
				urls = append(urls, u)
			}
		}
	}
	return urls
}

func (s *Surveyor) askAll(ctx context.Context, endpoints []string) map[string]*reply {
	replies := make([]*reply, len(endpoints))
	var wg sync.WaitGroup
	for i, endpoint := range endpoints {
		replies[i] = &reply{endpoint: endpoint}
		l, err := s.line(endpoint)
		if err != nil {
			replies[i].fault = Diagnose(ctx, Target{Endpoint: endpoint}, err)
			continue
		}
		wg.Go(func() { s.ask(ctx, l, replies[i]) })
	}
	wg.Wait()
	all := make(map[string]*reply, len(replies))
	for _, r := range replies {
		all[r.endpoint] = r
	}
	return all
}

// line returns the connection to an endpoint. Its certificate is noted, since a
// connection outlives the certificate that it was made with.
func (s *Surveyor) line(endpoint string) (*line, error) {
	if l, ok := s.lines[endpoint]; ok {
		return l, nil
	}
	l := &line{}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.access.TLS != nil {
		cfg = s.access.TLS.Clone()
	}
	l.target = Target{Endpoint: endpoint, TLS: cfg.Clone()}
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) > 0 {
			l.leaf.Store(state.PeerCertificates[0])
		}
		return nil
	}
	o, err := Observe(Target{Endpoint: endpoint, TLS: cfg})
	if err != nil {
		return nil, err
	}
	l.Observer = o
	s.lines[endpoint] = l
	return l, nil
}

// hangUp closes connections to endpoints that no member has any more.
func (s *Surveyor) hangUp() {
	wanted := s.endpoints()
	for endpoint, l := range s.lines {
		if !slices.Contains(wanted, endpoint) {
			_ = l.Close() // nobody reads from it any more
			delete(s.lines, endpoint)
		}
	}
}

// ask asks one endpoint for its status, logging in if that is wanted.
func (s *Surveyor) ask(ctx context.Context, l *line, r *reply) {
	r.line = l
	began := time.Now()
	askCtx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	l.use(s.token())
	st, err := l.Status(askCtx)
	wanted := errors.Is(err, ErrLoginWanted) || errors.Is(err, ErrTokenRefused)
	if s.access.Username != "" && (wanted || err == nil && l.token == "") {
		loginErr := s.logIn(ctx, l)
		switch {
		case loginErr == nil && wanted:
			againCtx, cancelAgain := context.WithTimeout(ctx, askTime)
			defer cancelAgain()
			st, err = l.Status(againCtx)
		case loginErr != nil && wanted:
			err = loginErr
		case errors.Is(loginErr, ErrLoginFailed):
			r.login = Diagnose(ctx, l.target, loginErr)
		}
	}
	r.took = time.Since(began)
	if err != nil {
		diagnoseCtx, cancelDiagnosis := context.WithTimeout(ctx, diagnoseTime)
		defer cancelDiagnosis()
		r.fault = Diagnose(diagnoseCtx, l.target, err)
		return
	}
	r.status = st
	if leaf := l.leaf.Load(); leaf != nil && time.Now().After(leaf.NotAfter) {
		r.fault = expired(r.endpoint, leaf)
	}
}

func (l *line) use(token string) {
	l.token = token
	l.UseToken(token)
}

func (s *Surveyor) token() string {
	s.login.Lock()
	defer s.login.Unlock()
	return s.login.token
}

// logIn gives the line a newer token than the one it has used. One login serves
// every member, since each learns the token; so the others wait for the first.
func (s *Surveyor) logIn(ctx context.Context, l *line) error {
	s.login.Lock()
	defer s.login.Unlock()
	if s.login.token != "" && s.login.token != l.token {
		l.use(s.login.token)
		return nil
	}
	if s.login.failed != nil && time.Since(s.login.failedAt) < loginAgain {
		return s.login.failed
	}
	ctx, cancel := context.WithTimeout(ctx, loginTime)
	defer cancel()
	s.login.token = ""
	l.use("")
	token, err := l.Login(ctx, s.access.Username, s.access.Password)
	s.login.token, s.login.failed, s.login.failedAt = token, err, time.Now()
	if err != nil {
		return err
	}
	l.use(token)
	return nil
}

// checkLogin sees that the login still counts: some versions answer Status to
// anybody, and some tokens outlive their user's password.
func (s *Surveyor) checkLogin(outer context.Context, r *reply) *Fault {
	ctx, cancel := context.WithTimeout(outer, askTime)
	defer cancel()
	err := r.line.Read(ctx, Read{Key: nobodysKey, Serializable: true})
	if !errors.Is(err, ErrTokenRefused) && !errors.Is(err, ErrLoginWanted) {
		return nil
	}
	if err = s.logIn(outer, r.line); errors.Is(err, ErrLoginFailed) {
		return Diagnose(ctx, r.line.target, err)
	}
	return nil
}

// list asks the answering member that is furthest for the members, then the next.
func (s *Surveyor) list(ctx context.Context, replies map[string]*reply, cluster ID) []Member {
	var able []*reply
	for _, r := range replies {
		if r.answered() && r.status.ClusterID == cluster && !r.status.Learner {
			able = append(able, r)
		}
	}
	slices.SortFunc(able, func(a, b *reply) int {
		return cmp.Or(-cmp.Compare(b2i(a.status.Leader != 0), b2i(b.status.Leader != 0)), -cmp.Compare(a.status.Term, b.status.Term),
			-cmp.Compare(a.status.AppliedIndex, b.status.AppliedIndex), cmp.Compare(a.endpoint, b.endpoint))
	})
	listCtx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	for _, r := range able {
		if members, err := r.line.LocalMembers(listCtx); err == nil && len(members) > 0 {
			if r.login == nil && r.line.token != "" {
				r.login = s.checkLogin(ctx, r)
			}
			slices.SortFunc(members, func(a, b Member) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
			return members
		}
	}
	return nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// compose puts the replies of endpoints to the members that gave them.
func (s *Surveyor) compose(out *Survey, replies map[string]*reply) {
	best := map[ID]*reply{}
	for _, endpoint := range slices.Sorted(maps.Keys(replies)) {
		r := replies[endpoint]
		if r.login != nil && out.Login == nil {
			out.Login = r.login
		}
		switch known := best[r.status.MemberID]; {
		case !r.answered():
		case r.status.ClusterID != out.ClusterID:
			out.Strangers = append(out.Strangers, Stranger{Endpoint: endpoint, ClusterID: r.status.ClusterID})
		case known == nil || known.fault != nil && r.fault == nil:
			best[r.status.MemberID] = r
		}
	}
	for _, endpoint := range s.access.Endpoints {
		if r := replies[endpoint]; r != nil && !r.answered() {
			out.Deaf = append(out.Deaf, r.fault)
		}
	}
	for _, m := range s.members {
		a := MemberAnswer{Member: m}
		if r := best[m.ID]; r != nil {
			a.Answered, a.Endpoint, a.Status, a.Took, a.Fault = true, r.endpoint, r.status, r.took, r.fault
		} else {
			a.Endpoint, a.Fault = whyDeaf(m, replies)
		}
		out.Members = append(out.Members, a)
	}
	out.Authenticated = s.token() != ""
}

// whyDeaf finds what is wrong with the client URLs of a member.
func whyDeaf(m Member, replies map[string]*reply) (endpoint string, fault *Fault) {
	for _, u := range m.ClientURLs {
		r := replies[u]
		if r == nil {
			continue
		}
		endpoint, fault = u, r.fault
		if r.answered() {
			fault = &Fault{
				Kind: FaultOtherCluster, Endpoint: u, Cause: "another member answers there, " + r.status.MemberID.String() + " of cluster " + r.status.ClusterID.String(),
				Next: "see what runs at that address",
			}
		}
		if fault != nil && fault.Kind == FaultRefused {
			break
		}
	}
	if fault == nil {
		fault = &Fault{
			Kind: FaultRefused, Endpoint: cmp.Or(m.Name, m.ID.String()), Cause: "it has not started: it advertises no client URL",
			Next: "start it, or remove it from the cluster",
		}
	}
	return endpoint, fault
}

// RaisedAlarms are the alarms that members report with their status.
func (s *Survey) RaisedAlarms() []Alarm {
	var alarms []Alarm
	for i := range s.Members {
		alarms = append(alarms, s.Members[i].Status.Alarms()...)
	}
	slices.SortFunc(alarms, func(a, b Alarm) int { return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Member, b.Member)) })
	return slices.Compact(alarms)
}
