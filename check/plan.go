package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/history/record"
)

// askTime bounds one question before and after the traffic.
const askTime = 5 * time.Second

// Member of the cluster, as it was before the traffic.
type Member struct {
	ID       string `json:"id"`
	Name     string `json:"name,omitempty"`
	Endpoint string `json:"endpoint"`
	Version  string `json:"version"`
	DBSize   int64  `json:"dbSize"`
	Leader   bool   `json:"leader,omitempty"`
	Learner  bool   `json:"learner,omitempty"`
	// PeerURLs at which the other members reach it.
	PeerURLs []string `json:"peerURLs,omitempty"`
}

// Plan is what a run would do.
type Plan struct {
	// Cluster is its ID.
	Cluster       string `json:"cluster"`
	Prefix        string `json:"prefix"`
	StartRevision int64  `json:"startRevision"`
	// Members that answer, through which traffic goes; learners get none.
	Members []Member `json:"members"`
	// Missing are members of the list that are not reached from here.
	Missing    []Member `json:"missing,omitempty"`
	Clients    int      `json:"clients"`
	Rate       float64  `json:"ratePerSecond"` // negative: as fast as it goes
	Seconds    float64  `json:"seconds"`
	Operations int      `json:"operations,omitempty"`
	// Limit is after how many operations the traffic ends in any case, and Memory, about
	// what it takes to keep those that are expected, in bytes.
	Limit        int    `json:"limit"`
	Memory       int64  `json:"memory"`
	Mix          Mix    `json:"mix"`
	Keys         int    `json:"keys"`
	ValueSize    int    `json:"valueSize"`
	Seed         uint64 `json:"seed"`
	AllowCompact bool   `json:"allowCompact,omitempty"`
	// Hash says whether members are asked for the hash of their data.
	Hash         string   `json:"hash"`
	Disturbances []string `json:"disturbances,omitempty"`
	EverySeconds float64  `json:"everySeconds,omitempty"`
	History      string   `json:"history,omitempty"`
	Keep         bool     `json:"keep,omitempty"`
	// Notes are what a reader should know.
	Notes []string `json:"notes,omitempty"`

	opts Options
}

// Prepare looks at the cluster and says what Run would do. It writes nothing.
// ErrOptions, ErrNobody or ErrNotEmpty say why there is nothing to be done.
func Prepare(ctx context.Context, o Options) (*Plan, error) {
	if err := o.withDefaults(); err != nil {
		return nil, err
	}
	p := &Plan{
		Prefix: o.Prefix, Clients: o.Clients, Rate: o.Rate, Seconds: o.Duration.Seconds(), Operations: o.Operations, Mix: o.Mix,
		Keys: o.Keys, ValueSize: o.ValueSize, Seed: o.Seed, AllowCompact: o.AllowCompact, History: o.File, Keep: o.Keep,
	}
	for _, d := range o.Disturbers {
		p.Disturbances, p.EverySeconds = append(p.Disturbances, d.Kind()), o.Every.Seconds()
	}
	if err := p.find(ctx, &o); err != nil {
		return nil, err
	}
	if err := p.harmless(&o); err != nil {
		return nil, err
	}
	if err := creatable(o.File); err != nil {
		return nil, err
	}
	p.bound(&o)
	p.Hash = p.hashPolicy(o.Hash)
	p.opts = o
	return p, p.begin(ctx)
}

// find asks the endpoints, then the members that they list.
func (p *Plan) find(ctx context.Context, o *Options) error {
	var failed error
	f := finder{o: o, seen: map[etcd.ID]bool{}}
	for _, e := range o.Endpoints {
		if err := f.ask(ctx, e); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if len(f.members) == 0 {
		return fmt.Errorf("%w at %s\n%w", ErrNobody, strings.Join(o.Endpoints, ", "), failed)
	}
	if failed != nil {
		p.Notes = append(p.Notes, strings.Split(failed.Error(), "\n")...)
	}
	for _, m := range f.listed {
		id := etcd.ID(m.GetID())
		if !f.seen[id] && !slices.ContainsFunc(m.GetClientURLs(), func(u string) bool { return f.ask(ctx, u) == nil && f.seen[id] }) {
			away := Member{ID: id.String(), Name: cmp.Or(m.GetName(), id.String()), Learner: m.GetIsLearner(), PeerURLs: m.GetPeerURLs()}
			p.Missing = append(p.Missing, away)
			p.Notes = append(p.Notes, fmt.Sprintf("member %s of the list is not reached from here: nothing is asked of it", away.Name))
		}
	}
	if len(f.strangers) > 0 {
		return fmt.Errorf("%w: the endpoints are of different clusters: %s is of %s, and %s: name those of one", ErrOptions, f.members[0].Endpoint, f.cluster, strings.Join(f.strangers, ", "))
	}
	p.Cluster = f.cluster.String()
	for i := range f.members {
		m := &f.members[i]
		m.Leader = m.ID == f.leader.String()
		if j := slices.IndexFunc(f.listed, func(l *pb.Member) bool { return etcd.ID(l.GetID()).String() == m.ID }); j >= 0 {
			m.Name, m.PeerURLs = f.listed[j].GetName(), f.listed[j].GetPeerURLs()
		}
	}
	slices.SortStableFunc(f.members, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	p.Members = f.members
	return nil
}

// finder asks who is there.
type finder struct {
	o       *Options
	members []Member
	seen    map[etcd.ID]bool
	listed  []*pb.Member
	leader  etcd.ID
	cluster etcd.ID
	// strangers are endpoints of other clusters than the first.
	strangers []string
}

// ask asks one endpoint for its status, and for the list of members until there is
// one.
func (f *finder) ask(ctx context.Context, endpoint string) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	target := f.o.target(endpoint)
	c, err := record.New(record.Options{Forget: true}).Dial(ctx, target)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // Nothing was written on it.
	conn := c.Etcd().ActiveConnection()
	st, err := pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		return fault(target, err)
	}
	its := etcd.ID(st.GetHeader().GetClusterId())
	if f.cluster = cmp.Or(f.cluster, its); its != f.cluster {
		f.strangers = append(f.strangers, fmt.Sprintf("%s of %s", endpoint, its))
		return nil
	}
	f.leader = cmp.Or(etcd.ID(st.GetLeader()), f.leader)
	if id := etcd.ID(st.GetHeader().GetMemberId()); !f.seen[id] {
		f.seen[id] = true
		f.members = append(f.members, Member{ID: id.String(), Endpoint: endpoint, Version: st.GetVersion(), DBSize: st.GetDbSize(), Learner: st.GetIsLearner()})
	}
	if len(f.listed) == 0 {
		if list, bad := pb.NewClusterClient(conn).MemberList(ctx, &pb.MemberListRequest{}); bad == nil { // those that were named are enough
			f.listed = list.GetMembers()
		}
	}
	return nil
}

// fault is why an endpoint can't be asked, and what a person can do.
func fault(t record.Target, err error) error {
	if strings.Contains(err.Error(), "user name is empty") {
		return fmt.Errorf("%s: authentication is on, and no user is given: give username and password of a user who may write the prefix", t.Endpoint)
	}
	target := etcd.Target{Endpoint: t.Endpoint, TLS: t.TLS}
	if strings.Contains(err.Error(), etcd.ErrRefused.Error()) {
		err = fmt.Errorf("%w: %w", etcd.ErrRefused, err)
	}
	return errors.New(etcd.FaultOf(target, err).String())
}

// harmless refuses what would corrupt a member of its release.
func (p *Plan) harmless(o *Options) error {
	if o.Mix[past] == 0 || o.MayCorrupt {
		return nil
	}
	for _, m := range p.Members {
		var major, minor, patch int
		if _, err := fmt.Sscanf(m.Version, "%d.%d.%d", &major, &minor, &patch); err != nil || cmp.Or(cmp.Compare(major, 3), cmp.Compare(minor, 7), cmp.Compare(patch, 3)) < 0 {
			return fmt.Errorf("%w: %s runs etcd %s, whose members differ for good after such a transaction (https://github.com/etcd-io/etcd/issues/18667): leave %s out of the mix",
				ErrOptions, m.Label(), m.Version, past)
		}
	}
	return nil
}

// What is kept in memory until it is judged.
const (
	// mostKept in bytes, unless a number of operations was asked for.
	mostKept = 4 << 30
	// garbage is by how much more the process takes than what it keeps.
	garbage = 2
	// perCall, and per event of a watch, besides the values.
	perCall, perEvent = 800, 200
	// watchesEach is how many watches of a member see a change, more or less.
	watchesEach = 2
	fewestKept  = 100
)

// mostOperations that are made unless more were asked for; tests make it fewer.
var mostOperations = 10_000_000

// bound limits the operations to what can be kept, or says what those that were asked
// for take.
func (p *Plan) bound(o *Options) {
	each := garbage * int64(perCall+o.ValueSize+o.Keys*o.ValueSize/16+len(p.Voters())*watchesEach*(perEvent+o.ValueSize))
	if p.Limit = o.Operations; p.Limit == 0 {
		p.Limit = min(mostOperations, max(fewestKept, int(mostKept/each)))
	}
	expected := p.Limit
	if o.Rate > 0 {
		expected = int(min(float64(p.Limit), o.Rate*o.Duration.Seconds()))
	}
	p.Memory = int64(expected) * each
	switch {
	case o.Operations > 0 && p.Memory > mostKept:
		p.Notes = append(p.Notes, fmt.Sprintf("to keep and judge %d operations takes about %d GiB of memory", expected, p.Memory>>30))
	case o.Operations == 0 && o.Rate > 0 && o.Rate*o.Duration.Seconds() > float64(p.Limit):
		p.Notes = append(p.Notes, fmt.Sprintf("the traffic will end after %d operations, before its time: to keep more takes more than %d GiB of memory; ask for them by their number, or take a lower rate",
			p.Limit, mostKept>>30))
	}
}

// hashPolicy says what comes of the policy with these members.
func (p *Plan) hashPolicy(policy HashPolicy) string {
	switch policy {
	case HashNever:
		return "skipped: as it was asked for"
	case HashAlways:
		return "compared"
	case HashAuto:
	}
	for _, m := range p.Members {
		if m.DBSize > smallDB {
			return fmt.Sprintf("skipped: the database of %s has %d MiB, and writes stall while it is read: ask for it if that may be", m.Label(), m.DBSize>>20)
		}
	}
	return "compared"
}

func (p *Plan) hashes() bool { return !strings.HasPrefix(p.Hash, "skipped") }

// Label is its name, or where it is reached.
func (m *Member) Label() string { return cmp.Or(m.Name, m.Endpoint) }

// Voters are where traffic goes.
func (p *Plan) Voters() []Member {
	return slices.DeleteFunc(slices.Clone(p.Members), func(m Member) bool { return m.Learner })
}

// targets are the voters as clients reach them.
func (p *Plan) targets() []record.Target {
	var list []record.Target
	for _, m := range p.Voters() {
		list = append(list, p.opts.target(m.Endpoint))
	}
	return list
}

// target is an endpoint as clients reach it.
func (o *Options) target(endpoint string) record.Target {
	return record.Target{Endpoint: endpoint, TLS: o.TLS, User: o.User, Password: o.Password, Dial: o.Dial}
}

// begin notes the revision at which the prefix is empty.
func (p *Plan) begin(ctx context.Context) error {
	var failed error
	for _, t := range p.targets() {
		err := p.empty(ctx, t)
		if err == nil || errors.Is(err, ErrNotEmpty) || ctx.Err() != nil {
			return err
		}
		failed = errors.Join(failed, err)
	}
	if failed == nil {
		return fmt.Errorf("%w: only learners do, which take no traffic", ErrNobody)
	}
	return failed
}

func (p *Plan) empty(ctx context.Context, t record.Target) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	c, err := record.New(record.Options{Forget: true}).Dial(ctx, t)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // Nothing was written on it.
	r, err := pb.NewKVClient(c.Etcd().ActiveConnection()).Range(ctx, &pb.RangeRequest{
		Key: []byte(p.Prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(p.Prefix)), CountOnly: true,
	})
	if err != nil {
		if strings.Contains(err.Error(), "permission denied") {
			return fmt.Errorf("%w: %s may not read %s: grant a role of that user readwrite on it: etcdctl role grant-permission ROLE --prefix=true readwrite %s",
				ErrOptions, cmp.Or(t.User, "the client"), p.Prefix, p.Prefix)
		}
		return fmt.Errorf("%w with a quorum: read %s: %w", ErrNobody, p.Prefix, fault(t, err))
	}
	if n := r.GetCount(); n > 0 {
		return fmt.Errorf("%w: there are %d keys below %s: choose another with a name that nobody uses, or delete them", ErrNotEmpty, n, p.Prefix)
	}
	p.StartRevision = r.GetHeader().GetRevision()
	return nil
}

// Endpoints gives each its scheme and port, http where nothing else is said.
func Endpoints(list []string, https bool) ([]string, error) {
	var out []string
	for _, e := range list {
		if e = strings.TrimSpace(e); e == "" {
			continue
		}
		if !strings.Contains(e, "://") {
			scheme := "http://"
			if https {
				scheme = "https://"
			}
			e = scheme + e
		}
		u, err := url.Parse(e)
		if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("%w: the endpoint is %q: give a client URL such as https://10.0.0.1:2379", ErrOptions, e)
		}
		if u.Port() == "" {
			u.Host += ":2379"
		}
		if e = u.Scheme + "://" + u.Host; !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	return out, nil
}
