package bench

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/etcd"
)

// observeEvery is how often servers are asked for their metrics while a load runs:
// what goes up and down in between is only seen then.
const observeEvery = 5 * time.Second

// usage is what was used until now.
type usage struct {
	cpu            time.Duration
	sent, received int64
	host           hostCPU
}

// observer looks at the means of client and servers while a load runs.
type observer struct {
	s       *session
	http    *http.Client
	servers []*server
	before  usage
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

// server is one member that is observed.
type server struct {
	usage ServerUsage
	first *reading
	last  *reading
	fault string
	// pid of a local member, and its CPU at first.
	pid      int
	firstCPU float64
	lastCPU  float64
	firstAt  time.Time
	lastAt   time.Time
}

// newObserver finds the members. Those that are not among the endpoints are asked at
// the URLs that they advertise.
func (s *session) newObserver(ctx context.Context) *observer {
	const patience = 3 * time.Second
	o := &observer{s: s, http: &http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: s.dialer.tls.Clone(), DisableCompression: true, Proxy: nil, MaxIdleConnsPerHost: 1,
	}}}
	if s.spec.NoServers {
		return o
	}
	ids := map[uint64]bool{}
	for _, m := range s.members {
		st := m.status
		id := st.GetHeader().GetMemberId()
		if ids[id] {
			continue
		}
		ids[id] = true
		o.servers = append(o.servers, &server{usage: ServerUsage{
			Endpoint: m.endpoint, ID: etcd.ID(id).String(), Version: st.GetVersion(), Leader: st.GetLeader() == id,
		}})
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	list, err := pb.NewClusterClient(s.conns[0]).MemberList(ctx, &pb.MemberListRequest{})
	if err != nil {
		s.note("the members could not be listed, so that only the endpoints are observed: %v", err)
		return o
	}
	leader := s.members[0].status.GetLeader()
	for _, m := range list.GetMembers() {
		if !ids[m.GetID()] && len(m.GetClientURLs()) > 0 {
			o.servers = append(o.servers, &server{usage: ServerUsage{Endpoint: m.GetClientURLs()[0], ID: etcd.ID(m.GetID()).String(), Leader: m.GetID() == leader}})
		}
		for _, sv := range o.servers {
			if sv.usage.ID == etcd.ID(m.GetID()).String() {
				sv.usage.Name = m.GetName()
			}
		}
	}
	for _, sv := range o.servers {
		sv.pid = listener(sv.usage.Endpoint)
	}
	return o
}

func (s *session) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(s.notes, text) {
		s.notes = append(s.notes, text)
	}
}

// begin takes the first readings, and goes on in the background until finish.
func (o *observer) begin(ctx context.Context) {
	o.before = o.usage()
	ctx, o.cancel = context.WithCancel(ctx)
	o.wg.Go(func() {
		o.readAll(ctx)
		tick := time.NewTicker(observeEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				o.readAll(ctx)
			}
		}
	})
}

func (o *observer) readAll(ctx context.Context) {
	var wg sync.WaitGroup
	for _, sv := range o.servers {
		wg.Go(func() { o.read(ctx, sv) })
	}
	wg.Wait()
}

func (o *observer) read(ctx context.Context, sv *server) {
	if sv.pid > 0 {
		sv.lastCPU, sv.lastAt = processCPU(sv.pid), time.Now()
		if sv.firstAt.IsZero() {
			sv.firstCPU, sv.firstAt = sv.lastCPU, sv.lastAt
		}
	}
	r, err := o.scrape(ctx, sv.usage.Endpoint)
	if err != nil {
		if ctx.Err() == nil {
			sv.fault = err.Error()
		}
		return
	}
	if sv.first == nil || sv.first.started != r.started {
		if sv.first != nil {
			sv.usage.Restarts++
		}
		sv.first = r
	}
	sv.last = r
	sv.usage.PendingMax = max(sv.usage.PendingMax, int64(r.values[metricPending]))
	sv.usage.RSSMax = max(sv.usage.RSSMax, int64(r.values[metricRSS]))
}

func (o *observer) scrape(ctx context.Context, endpoint string) (*reading, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := o.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s/metrics answers %s", endpoint, resp.Status)
	}
	return parseReading(resp.Body)
}

func (o *observer) usage() usage {
	var ru unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &ru) // it can't fail with this argument
	return usage{
		cpu:  time.Duration(ru.Utime.Nano() + ru.Stime.Nano()),
		sent: o.s.dialer.traffic.sent.Load(), received: o.s.dialer.traffic.received.Load(),
		host: readHostCPU(),
	}
}

// abandon ends it without a result.
func (o *observer) abandon() {
	if o.cancel != nil {
		o.cancel()
	}
	o.wg.Wait()
	o.http.CloseIdleConnections()
}

// used takes what the client used, at the end of the load.
func (o *observer) used(r *ClientUsage) {
	after := o.usage()
	r.Cores = runtime.GOMAXPROCS(0)
	r.CPUSeconds = (after.cpu - o.before.cpu).Seconds()
	r.Sent, r.Received = after.sent-o.before.sent, after.received-o.before.received
	r.HostCPU = after.host.since(o.before.host)
	r.LinkBytes = linkBytes(o.s.spec.Endpoints)
}

// finish takes the last readings and puts all into the result.
func (o *observer) finish(ctx context.Context, r *Result) {
	o.abandon()
	if o.cancel == nil {
		return
	}
	o.readAll(context.WithoutCancel(ctx))
	leader := o.leaderNow(ctx)
	for _, sv := range o.servers {
		u := &sv.usage
		if leader != "" {
			u.Leader = u.ID == leader
		}
		switch sv.first {
		case nil:
			u.Unread = sv.fault
			o.s.note("%s: its metrics can't be read, so that little is known of it: %s", u.Endpoint, sv.fault)
		case sv.last:
			u.Unread = "read once only: " + sv.fault
		default:
			u.fill(sv.first, sv.last)
		}
		if u.Unread != "" && sv.pid > 0 && sv.lastAt.After(sv.firstAt) {
			u.CPUSeconds, u.CPUSource, u.Cores = sv.lastCPU-sv.firstCPU, "proc", runtime.NumCPU()
			u.Seconds = sv.lastAt.Sub(sv.firstAt).Seconds()
		}
		u.Local = sv.pid > 0
		if u.Restarts > 0 {
			o.s.note("%s was restarted during the run: its figures are those since then", u.Endpoint)
		}
		r.Servers = append(r.Servers, *u)
	}
	r.Notes = slices.Clone(o.s.notes)
}

// leaderNow asks the members who leads; empty when none says.
func (o *observer) leaderNow(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.http.Timeout)
	defer cancel()
	for _, c := range o.s.conns[:min(len(o.s.conns), len(o.s.members))] {
		st, err := pb.NewMaintenanceClient(c).Status(ctx, &pb.StatusRequest{})
		if err == nil && st.GetLeader() != 0 {
			return etcd.ID(st.GetLeader()).String()
		}
	}
	return ""
}

// hostCPU is what /proc/stat says of all processes, in ticks.
type hostCPU struct{ busy, all float64 }

func readHostCPU() hostCPU {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return hostCPU{}
	}
	defer func() { _ = f.Close() }()
	line, err := bufio.NewReader(f).ReadString('\n')
	fields := strings.Fields(line)
	if err != nil || len(fields) < 9 || fields[0] != "cpu" {
		return hostCPU{}
	}
	var h hostCPU
	for i, text := range fields[1:9] { // what guests use is in user time already
		v, parseErr := strconv.ParseFloat(text, 64)
		if parseErr != nil {
			return hostCPU{}
		}
		h.all += v
		if idle, waiting := 3, 4; i != idle && i != waiting {
			h.busy += v
		}
	}
	return h
}

// since is the share of the machine used since then; -1 where it is unknown.
func (h hostCPU) since(before hostCPU) float64 {
	if h.all <= before.all {
		return -1
	}
	return (h.busy - before.busy) / (h.all - before.all)
}

// listener is the process that listens at a loopback endpoint; 0 where it is none
// that can be seen.
func listener(endpoint string) int {
	if !Loopback(endpoint) {
		return 0
	}
	_, port, err := net.SplitHostPort(endpoint[strings.Index(endpoint, "://")+len("://"):])
	if err != nil {
		return 0
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return 0
	}
	inode := ""
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		raw, err := os.ReadFile(table) //nolint:gosec // one of two
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(raw)) {
			f := strings.Fields(line)
			const listening, state, owner = "0A", 3, 9
			if len(f) > owner && f[state] == listening && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", number)) {
				inode = f[owner]
			}
		}
	}
	if inode == "" {
		return 0
	}
	return holder("socket:[" + inode + "]")
}

// holder is the process that has a file open.
func holder(file string) int {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join("/proc", p.Name(), "fd")
		files, err := os.ReadDir(dir)
		if err != nil {
			continue // it has ended, or is another user's
		}
		for _, fd := range files {
			if to, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && to == file {
				return pid
			}
		}
	}
	return 0
}

// processCPU is what a process has used until now, in seconds.
func processCPU(pid int) float64 {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0
	}
	_, rest, ok := strings.Cut(string(raw), ") ") // the name may hold anything
	f := strings.Fields(rest)
	const user, system, ticks = 11, 12, 100
	if !ok || len(f) <= system {
		return 0
	}
	u, userErr := strconv.ParseFloat(f[user], 64)
	s, systemErr := strconv.ParseFloat(f[system], 64)
	if userErr != nil || systemErr != nil {
		return 0
	}
	return (u + s) / ticks
}

// linkBytes is what the slowest network card that is up carries in a second; 0 where
// the load goes over loopback, or nothing says.
func linkBytes(endpoints []string) float64 {
	if !slices.ContainsFunc(endpoints, func(e string) bool { return !Loopback(e) }) {
		return 0
	}
	files, err := filepath.Glob("/sys/class/net/*/speed")
	if err != nil {
		return 0
	}
	slowest := 0.0
	for _, f := range files {
		state, err := os.ReadFile(filepath.Join(filepath.Dir(f), "operstate"))
		if err != nil || strings.TrimSpace(string(state)) != "up" {
			continue
		}
		raw, err := os.ReadFile(f) //nolint:gosec // below /sys
		if err != nil {
			continue
		}
		const megabit = 1e6 / 8
		if v, err := strconv.ParseFloat(strings.TrimSpace(string(raw)), 64); err == nil && v > 0 && (slowest == 0 || v*megabit < slowest) {
			slowest = v * megabit
		}
	}
	return slowest
}
