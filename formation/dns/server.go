package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd/srv"
	"github.com/quorate/quorate/store"
)

const (
	// fresh is how old answers may be: the store is not read for each question.
	fresh = time.Second
	// readTime bounds a look into the store.
	readTime = 3 * time.Second
	// negativeTTL is for how long a name that is not there may be remembered.
	negativeTTL = 5
	// udpSize is the least that every resolver takes.
	udpSize = 512
	maxUDP  = 1232
)

// Server answers for the domains of clusters of mode DNS, and refuses all else.
type Server struct {
	store store.Store
	log   *slog.Logger
	now   func() time.Time
	udp   net.PacketConn
	tcp   net.Listener

	mu    sync.Mutex
	zones map[string]*zone
	read  time.Time
}

// zone is one domain. Names are in lower case and fully qualified with the last dot.
type zone struct {
	origin  string
	records map[string][]dns.RR
}

// Listen opens a name server on a UDP and a TCP port of the same number. Run it, or
// Close it.
func Listen(ctx context.Context, addr string, s store.Store, log *slog.Logger) (*Server, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var config net.ListenConfig
	tcp, err := config.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("name server: %w", err)
	}
	udp, err := config.ListenPacket(ctx, "udp", tcp.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("name server: %w", errors.Join(err, tcp.Close()))
	}
	return &Server{store: s, log: log, now: time.Now, udp: udp, tcp: tcp}, nil
}

// Addr is what it listens on.
func (s *Server) Addr() net.Addr { return s.tcp.Addr() }

// Close closes its sockets.
func (s *Server) Close() error {
	err := errors.Join(s.tcp.Close(), s.udp.Close())
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Serve answers until ctx ends, and closes the sockets.
func (s *Server) Serve(ctx context.Context) error {
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		if err := w.WriteMsg(s.answer(ctx, q, w.RemoteAddr().Network() == "udp")); err != nil {
			s.log.DebugContext(ctx, "answer a DNS question", slog.Any("error", err))
		}
	})
	servers := []*dns.Server{
		{PacketConn: s.udp, Handler: handler, ReadTimeout: readTime, WriteTimeout: readTime},
		{Listener: s.tcp, Handler: handler, ReadTimeout: readTime, WriteTimeout: readTime, MaxTCPQueries: 64},
	}
	failed := make(chan error, len(servers))
	for _, srv := range servers {
		go func() { failed <- srv.ActivateAndServe() }()
	}
	var err error
	left := len(servers)
	select {
	case err = <-failed:
		left--
	case <-ctx.Done():
	}
	_ = s.Close()
	for range left {
		err = errors.Join(err, <-failed)
	}
	if ctx.Err() != nil {
		return nil //nolint:nilerr // it was asked to end
	}
	return fmt.Errorf("name server: %w", err)
}

// answer is what is said to a question.
func (s *Server) answer(ctx context.Context, q *dns.Msg, udp bool) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.Compress = true
	if len(q.Question) != 1 || q.Opcode != dns.OpcodeQuery || q.Question[0].Qclass != dns.ClassINET {
		m.Rcode = dns.RcodeRefused
		return m
	}
	name := dns.CanonicalName(q.Question[0].Name)
	zones, err := s.current(ctx)
	if err != nil {
		s.log.WarnContext(ctx, "the name server can't read the clusters", slog.Any("error", err))
		m.Rcode = dns.RcodeServerFailure
		return m
	}
	z := zoneOf(zones, name)
	if z == nil {
		m.Rcode = dns.RcodeRefused
		return m
	}
	m.Authoritative = true
	z.fill(m, name, q.Question[0].Qtype)
	size := udpSize
	if opt := q.IsEdns0(); opt != nil {
		size = min(max(int(opt.UDPSize()), udpSize), maxUDP)
		m.SetEdns0(maxUDP, false)
	}
	if udp {
		m.Truncate(size)
	}
	return m
}

// zoneOf finds the zone that a name is in; nil where it is in none.
func zoneOf(zones map[string]*zone, name string) *zone {
	for i, end := 0, false; !end; i, end = dns.NextLabel(name, i) {
		if z := zones[name[i:]]; z != nil {
			return z
		}
	}
	return nil
}

func (z *zone) fill(m *dns.Msg, name string, kind uint16) {
	for _, rr := range z.records[name] {
		if kind != dns.TypeANY && rr.Header().Rrtype != kind {
			continue
		}
		m.Answer = append(m.Answer, rr)
		if s, ok := rr.(*dns.SRV); ok {
			for _, a := range z.records[dns.CanonicalName(s.Target)] {
				if t := a.Header().Rrtype; t == dns.TypeA || t == dns.TypeAAAA {
					m.Extra = append(m.Extra, a)
				}
			}
		}
	}
	if len(m.Answer) > 0 {
		return
	}
	m.Ns = []dns.RR{z.soa()}
	if !z.has(name) {
		m.Rcode = dns.RcodeNameError
	}
}

// has reports whether there is a record at the name or below it.
func (z *zone) has(name string) bool {
	if _, ok := z.records[name]; ok {
		return true
	}
	for known := range z.records {
		if strings.HasSuffix(known, "."+name) {
			return true
		}
	}
	return false
}

func (z *zone) soa() dns.RR {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: z.origin, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: negativeTTL},
		Ns:  "ns." + z.origin, Mbox: "hostmaster." + z.origin, Serial: 1, Refresh: srv.TTL, Retry: srv.TTL, Expire: srv.TTL, Minttl: negativeTTL,
	}
}

// current returns the zones, read anew when they are no longer fresh.
func (s *Server) current(ctx context.Context) (map[string]*zone, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if s.zones != nil && now.Sub(s.read) < fresh {
		return s.zones, nil
	}
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	zones, err := s.build(ctx)
	if err != nil {
		return nil, err
	}
	s.zones, s.read = zones, now
	return zones, nil
}

func (s *Server) build(ctx context.Context) (map[string]*zone, error) {
	clusters, err := s.store.List(ctx, v1alpha1.KindCluster, store.ListOptions{})
	if err != nil {
		return nil, err
	}
	zones := map[string]*zone{}
	for _, o := range clusters {
		c, ok := o.(*v1alpha1.EtcdCluster)
		if !ok || c.Spec.Formation.Mode != v1alpha1.FormationDNS {
			continue
		}
		members, err := MembersOf(ctx, s.store, c)
		if err != nil {
			return nil, err
		}
		r, err := ForCluster(c, members)
		if err != nil {
			// What one host reports of itself must not silence the domains of all others.
			s.log.WarnContext(ctx, "the name server leaves a cluster out", slog.String("cluster", c.Namespace+"/"+c.Name), slog.Any("error", err))
			continue
		}
		if r != nil {
			s.add(zones, r)
		}
	}
	return zones, nil
}

// MembersOf lists a cluster's members.
func MembersOf(ctx context.Context, s store.Store, c *v1alpha1.EtcdCluster) ([]*v1alpha1.EtcdMember, error) {
	objects, err := s.List(ctx, v1alpha1.KindMember, store.ListOptions{
		Namespace: c.Namespace, NamePrefix: c.Name + "-", Labels: map[string]string{v1alpha1.LabelCluster: c.Name},
	})
	if err != nil {
		return nil, err
	}
	var members []*v1alpha1.EtcdMember
	for _, o := range objects {
		if m, ok := o.(*v1alpha1.EtcdMember); ok && m.Spec.ClusterName == c.Name && m.DeletionTimestamp == nil {
			members = append(members, m)
		}
	}
	return members, nil
}

// add puts a cluster's records into the zone of its domain; several clusters may share
// one, under services of different names.
func (s *Server) add(zones map[string]*zone, r *Records) {
	origin := dns.CanonicalName(r.Domain)
	z := zones[origin]
	if z == nil {
		z = &zone{origin: origin, records: map[string][]dns.RR{}}
		zones[origin] = z
		z.put(z.soa())
		z.put(&dns.NS{Hdr: dns.RR_Header{Name: origin, Rrtype: dns.TypeNS, Class: dns.ClassINET, Ttl: srv.TTL}, Ns: "ns." + origin})
		if addr, err := netip.ParseAddrPort(s.tcp.Addr().String()); err == nil && !addr.Addr().IsUnspecified() {
			z.put(address("ns."+origin, addr.Addr().Unmap()))
		}
	}
	for _, service := range r.Services {
		name := dns.CanonicalName(service.Name)
		if _, ok := z.records[name]; !ok {
			z.records[name] = nil // the name is there even before its members are
		}
		for _, t := range service.Targets {
			z.put(&dns.SRV{
				Hdr:  dns.RR_Header{Name: name, Rrtype: dns.TypeSRV, Class: dns.ClassINET, Ttl: srv.TTL},
				Port: t.Port, Target: dns.CanonicalName(t.Host),
			})
		}
	}
	for _, h := range r.Hosts {
		if a, err := netip.ParseAddr(h.Address); err == nil {
			z.put(address(dns.CanonicalName(h.Host), a))
		}
	}
}

func (z *zone) put(rr dns.RR) {
	name := rr.Header().Name
	if !slices.ContainsFunc(z.records[name], func(have dns.RR) bool { return dns.IsDuplicate(have, rr) }) {
		z.records[name] = append(z.records[name], rr)
	}
}

func address(name string, a netip.Addr) dns.RR {
	h := dns.RR_Header{Name: name, Class: dns.ClassINET, Ttl: srv.TTL, Rrtype: dns.TypeA}
	if a.Is4() {
		return &dns.A{Hdr: h, A: a.AsSlice()}
	}
	h.Rrtype = dns.TypeAAAA
	return &dns.AAAA{Hdr: h, AAAA: a.AsSlice()}
}
