package inspect

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/etcd"
)

// How long the steps may take, in tenths of the whole time. A step that finds
// nothing in its way takes milliseconds; with black holes among the endpoints and
// the members that they lead to, the sum is still less than the whole.
const (
	forReach  = 2
	forLogin  = 2 // a password takes CPU to check, on purpose
	forStatus = 1
	forSample = 2
)

// maxURLs bounds at how many URLs one member is looked for.
const maxURLs = 3

// gatherer asks a cluster.
type gatherer struct {
	opts Options
	tls  *tls.Config
	// unit is a tenth of the whole time.
	unit     time.Duration
	token    string
	login    *Reach
	subjects []*subject
}

// subject is a member while it is asked.
type subject struct {
	Member
	line     *line
	observer *etcd.Observer
	// first look at /metrics.
	first families
	// list of the members, as this one knows them.
	list []etcd.Member
}

func (s *subject) close() {
	if s.line != nil {
		s.line.close()
	}
	if s.observer != nil {
		_ = s.observer.Close() // Nothing was written on it.
	}
}

// gather asks all, and always ends with an observation.
func (g *gatherer) gather(ctx context.Context) *Observation {
	began := time.Now()
	seen := &Observation{AskedAt: began.UTC(), Endpoints: g.opts.Endpoints, User: g.opts.User, etcdctl: g.opts.Etcdctl}
	for _, e := range g.opts.Endpoints {
		g.subjects = append(g.subjects, &subject{Member: Member{Endpoint: e, Given: true}})
	}
	defer func() {
		for _, s := range g.subjects {
			s.close()
		}
	}()
	g.each(g.subjects, func(s *subject) { g.reach(ctx, s) })
	g.logIn(ctx)
	g.each(g.subjects, func(s *subject) { g.ask(ctx, s) })
	seen.ClusterID = g.cluster()
	found := g.merge(seen.ClusterID)
	g.each(found, func(s *subject) {
		g.find(ctx, s)
		g.ask(ctx, s)
	})
	seen.SampledSeconds = g.sample(ctx, seen.ClusterID)
	seen.Login = g.login
	for _, s := range g.subjects {
		s.finish()
		seen.Members = append(seen.Members, s.Member)
	}
	slices.SortStableFunc(seen.Members, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Endpoint, b.Endpoint))
	})
	seen.Roots = certificatesIn(g.opts.CA)
	if own := certificatesIn(g.opts.Certificate); len(own) > 0 {
		seen.ClientCertificate = &own[0]
	}
	seen.Seconds = time.Since(began).Seconds()
	return seen
}

// each does something for all at once.
func (*gatherer) each(subjects []*subject, do func(*subject)) {
	var wg sync.WaitGroup
	for _, s := range subjects {
		wg.Go(func() { do(s) })
	}
	wg.Wait()
}

func (g *gatherer) within(ctx context.Context, tenths int) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, g.unit*time.Duration(tenths))
}

// reach connects to a subject's endpoint.
func (g *gatherer) reach(ctx context.Context, s *subject) {
	ctx, cancel := g.within(ctx, forReach)
	defer cancel()
	l, err := newLine(s.Endpoint, g.tls)
	if err != nil {
		s.Reach = Reach{Cause: etcd.FaultCall, Text: err.Error()}
		return
	}
	s.line = l
	s.Reach = l.reach(ctx)
	g.opts.Logger.LogAttrs(ctx, slog.LevelDebug, "asked for the version",
		slog.String("endpoint", s.Endpoint), slog.String("cause", string(s.Reach.Cause)), slog.String("text", s.Reach.Text))
	switch s.Reach.Cause {
	case Answered, etcd.FaultNotEtcd, etcd.FaultCall:
		// A listener for gRPC alone knows no HTTP: whether it is etcd, its status tells.
		if s.observer, err = etcd.Observe(l.target); err != nil {
			s.Reach = Reach{Cause: etcd.FaultCall, Text: err.Error()}
		}
	default:
	}
}

// logIn exchanges name and password for a token at the first member that answers.
func (g *gatherer) logIn(ctx context.Context) {
	if g.opts.User == "" {
		return
	}
	const attempts = 2
	tried := 0
	for _, s := range g.subjects {
		if s.observer == nil || s.Reach.Cause != Answered || tried == attempts {
			continue
		}
		tried++
		callCtx, cancel := g.within(ctx, forLogin)
		token, err := s.observer.Login(callCtx, g.opts.User, g.opts.Password)
		cancel()
		if err == nil {
			g.token, g.login = token, &Reach{Cause: Answered}
			return
		}
		g.login = callReach(s.line.target, err)
		if g.login.Cause == etcd.FaultLoginFailed || g.login.Cause == etcd.FaultNoAuth || g.login.Cause == etcd.FaultSilent {
			return
		}
	}
}

// ask asks a subject for its status and the list of members.
func (g *gatherer) ask(ctx context.Context, s *subject) {
	if s.observer == nil {
		return
	}
	ctx, cancel := g.within(ctx, forStatus)
	defer cancel()
	s.observer.UseToken(g.token)
	status, err := s.observer.Status(ctx)
	if err != nil {
		g.opts.Logger.LogAttrs(ctx, slog.LevelDebug, "no status", slog.String("endpoint", s.Endpoint), slog.Any("error", err))
		if s.Reach.Cause == Answered {
			connect := s.Reach.ConnectMilliseconds
			s.Reach = *callReach(s.line.target, err)
			s.Reach.ConnectMilliseconds = connect
		}
		return
	}
	s.Reach.Cause, s.Reach.Text = Answered, ""
	s.ID, s.ClusterID = status.MemberID.String(), status.ClusterID.String()
	s.Learner = status.Learner
	s.Status = statusOf(status)
	if s.list, err = s.observer.LocalMembers(ctx); err != nil {
		g.opts.Logger.LogAttrs(ctx, slog.LevelDebug, "no list of members", slog.String("endpoint", s.Endpoint), slog.Any("error", err))
	}
}

func statusOf(st etcd.Status) *Status {
	s := &Status{
		Version: st.Version, Term: st.Term, Index: st.Index, AppliedIndex: st.AppliedIndex, Revision: st.Revision,
		DBSize: st.DBSize, DBSizeInUse: st.DBSizeInUse, DBQuota: st.DBQuota, Learner: st.Learner, At: time.Now().UTC(),
	}
	if st.Leader != 0 {
		s.Leader = st.Leader.String()
	}
	for _, a := range st.Alarms() {
		s.Alarms = append(s.Alarms, Alarm{Type: a.Type, Member: a.Member.String()})
	}
	return s
}

// cluster is the ID that most endpoints answer with; the first of equals.
func (g *gatherer) cluster() string {
	counts := map[string]int{}
	best := ""
	for _, s := range g.subjects {
		if s.ClusterID == "" {
			continue
		}
		counts[s.ClusterID]++
	}
	for _, s := range g.subjects {
		if s.ClusterID != "" && counts[s.ClusterID] > counts[best] {
			best = s.ClusterID
		}
	}
	return best
}

// merge joins the endpoints with the members that the cluster lists, and returns
// those that nobody named: they are still to be asked.
func (g *gatherer) merge(cluster string) []*subject {
	g.dropDoubles()
	var list []etcd.Member
	var newest uint64
	for _, s := range g.subjects {
		if s.ClusterID == cluster && len(s.list) > 0 && s.Status.AppliedIndex >= newest {
			list, newest = s.list, s.Status.AppliedIndex
		}
	}
	var found []*subject
	for _, m := range list {
		s := g.match(cluster, m)
		if s == nil {
			s = &subject{Member: Member{Reach: Reach{Cause: NoURL}}}
			if len(m.ClientURLs) > 0 {
				s.Endpoint, s.Reach = m.ClientURLs[0], Reach{}
				found = append(found, s)
			}
			g.subjects = append(g.subjects, s)
		}
		s.ID, s.Name, s.Listed, s.Learner = m.ID.String(), m.Name, true, m.Learner
		s.PeerURLs, s.ClientURLs = m.PeerURLs, m.ClientURLs
	}
	return found
}

// dropDoubles keeps one of several endpoints that lead to the same member.
func (g *gatherer) dropDoubles() {
	seen := map[string]bool{}
	g.subjects = slices.DeleteFunc(g.subjects, func(s *subject) bool {
		key := s.ClusterID + "/" + s.ID
		if s.ID == "" || !seen[key] {
			seen[key] = true
			return false
		}
		s.close()
		return true
	})
}

// match finds the subject that is a listed member: by its ID, or where it did not
// answer, by its URL.
func (g *gatherer) match(cluster string, m etcd.Member) *subject {
	for _, s := range g.subjects {
		if s.ClusterID == cluster && s.ID == m.ID.String() {
			return s
		}
	}
	for _, s := range g.subjects {
		if s.ClusterID == "" && slices.ContainsFunc(m.ClientURLs, func(u string) bool { return sameURL(u, s.Endpoint) }) {
			return s
		}
	}
	return nil
}

func sameURL(a, b string) bool {
	x, err := url.Parse(a)
	if err != nil {
		return false
	}
	y, err := url.Parse(b)
	return err == nil && strings.EqualFold(x.Host, y.Host)
}

// find reaches a member at whichever of its URLs answers.
func (g *gatherer) find(ctx context.Context, s *subject) {
	urls := s.ClientURLs[:min(len(s.ClientURLs), maxURLs)]
	tries := make([]*subject, 0, len(urls))
	for _, u := range urls {
		tries = append(tries, &subject{Member: Member{Endpoint: u}})
	}
	g.each(tries, func(t *subject) { g.reach(ctx, t) })
	best := tries[0]
	for _, t := range tries {
		if t.Reach.Cause == Answered {
			best = t
			break
		}
	}
	for _, t := range tries {
		if t != best {
			t.close()
		}
	}
	s.Endpoint, s.Reach, s.line, s.observer = best.Endpoint, best.Reach, best.line, best.observer
}

// finish takes what the connection has seen.
func (s *subject) finish() {
	if s.line == nil {
		return
	}
	s.line.seen(func() {
		s.WantsCertificate = s.line.wanted
		s.Clock = s.line.clock.clock()
		for _, c := range s.line.certificates {
			s.Certificates = append(s.Certificates, certificateOf(c))
		}
	})
}

func certificateOf(c *x509.Certificate) Certificate {
	out := Certificate{
		Subject: c.Subject.String(), Issuer: c.Issuer.String(), NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(),
		Hosts: slices.Clone(c.DNSNames), CA: c.IsCA,
	}
	for _, ip := range c.IPAddresses {
		out.Hosts = append(out.Hosts, ip.String())
	}
	return out
}

// certificatesIn reads the certificates of a PEM text that was accepted before.
func certificatesIn(text []byte) []Certificate {
	var list []Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return list
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == "CERTIFICATE" {
			list = append(list, certificateOf(c))
		}
	}
}

// readable tells whether a failed read was still answered: the cluster served it,
// and then did not give what was read.
func readable(err error) bool {
	return err == nil || errors.Is(err, etcd.ErrDenied) || errors.Is(err, etcd.ErrNoUser) || errors.Is(err, etcd.ErrLoginWanted)
}
