package main

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/test/slow"
)

// hosts lists what the issue of hosts asks to be shown.
func hosts() []item {
	return []item{
		{"formation", "Static, Sequential, Discovery and DNS × 1, 3, 5 members × 3.5, 3.6, 3.7, where etcd has them, each with TLS", 25 * time.Minute, proveFormation},
		{"formation-wrong", "bad token, cluster full, missing and half SRV, wrong initial-cluster, mismatched URL, clock off: a clear condition and a stopped process", 20 * time.Minute, proveFormationWrong},
		{"host-add", "host add over a real sshd: wrong key, wrong host key, no sudo, full disk, broken at any point and repeated: safe each time", 20 * time.Minute, proveHostAdd},
		{"systemd", "a real systemd host: members survive the agent's restart and upgrade, and come back after a reboot", 20 * time.Minute, proveSystemd},
		{"leader-zones", "seven members 2/3/2, 25 ms to the third zone: after every leader loss leadership leaves it within 30 s, and never goes to and fro", 15 * time.Minute, proveLeaderZones},
		{"fleet", "40 hosts × 100 clusters: spread and class rules hold, drained hosts empty in order, no cluster degrades", 20 * time.Minute, proveFleet},
		{"drain", "ten real clusters on hosts of a network: a drained host empties in order, no cluster degrades, no write is lost", 15 * time.Minute, proveDrain},
		{"neighbours", "a BestEffort cluster saturates CPU and disk: Guaranteed neighbours hold no election, p99 ≤ 1.5 × solo", 20 * time.Minute, proveNeighbours},
		{"render", "each rendering is executed and ends in a healthy TLS cluster; ansible's second run changes nothing", 25 * time.Minute, proveRender},
		{"join", "a stolen, a reused, an expired token, another host's certificate: refused and audited; an agent sees its own host only", 15 * time.Minute, proveJoin},
		{"preflight", "host check: each threshold is crossed on a real disk, clock, port or network, and told with a fix; unfit hosts get no member", 15 * time.Minute, provePreflight},
		{"placement", "placement's rules hold for random fleets, under the race detector", 20 * time.Minute, provePlacement},
		{"commands", "the commands of hosts, placement, formation and rendering, as a person uses them", 20 * time.Minute, proveHostCommands},
		{"race", "what hosts are made of is clean under the race detector", 30 * time.Minute, proveHostRace},
		{"sabotage", "each line above turns red when what it shows is broken", 60 * time.Minute, proveSabotage("hosts", hostSabotages)},
	}
}

// part is a run of tests that an item is made of.
type part struct {
	pkg, run string
	least    int
	names    []string
	// figures are what a test of this part logs of what it measured; nil for none.
	figures *regexp.Regexp
}

// parts runs them, slow tests too, and stops at the first that falls short.
func (e *env) parts(ctx context.Context, more []string, all ...part) (string, error) {
	more = append(slices.Clone(more), slow.Variable+"=1")
	var seen []string
	for _, p := range all {
		if p.figures != nil {
			text, err := e.measured(ctx, more, p)
			seen = append(seen, text)
			if err != nil {
				return strings.Join(seen, "; "), err
			}
			continue
		}
		text, err := e.tests(ctx, more, p.pkg, p.run, p.least, p.names...)
		seen = append(seen, text)
		if err != nil {
			return strings.Join(seen, "; "), err
		}
	}
	return strings.Join(seen, "; "), nil
}

// measured runs one test, and returns what it says that it measured.
func (e *env) measured(ctx context.Context, more []string, p part) (string, error) {
	out, err := output(command(ctx, e.repo, more, "go", "test", p.pkg, "-run", "^"+p.run+"$", "-count=1", "-v", "-timeout=19m"))
	found := p.figures.FindAllStringSubmatch(out, -1)
	if err != nil || found == nil || strings.Contains(out, "--- SKIP") {
		if said := complained.FindAllString(out, 5); said != nil {
			out = strings.Join(said, "\n")
		}
		return tail(out, 900), errors.Join(err, errors.New("it did not say what it measured, or was skipped"))
	}
	var text []string
	for _, f := range found {
		text = append(text, f[1])
	}
	return strings.Join(text, "; "), nil
}

// logged is a line that a test logs and that says so.
func logged(words string) *regexp.Regexp {
	return regexp.MustCompile(`(?m)^\s+\w+_test\.go:\d+: (.*(?:` + words + `).*)$`)
}

func proveFormation(ctx context.Context, e *env) (string, error) {
	more, err := e.releases(ctx)
	if err != nil {
		return "", err
	}
	return e.parts(ctx, more, part{pkg: "./test/e2e", run: "TestFormation$|TestSequential", least: 20, names: []string{"TestFormation", "TestSequential"}})
}

func proveFormationWrong(ctx context.Context, e *env) (string, error) {
	more, err := e.releases(ctx)
	if err != nil {
		return "", err
	}
	return e.parts(ctx, more,
		part{pkg: "./test/e2e", run: "TestFormation.*Wrong|TestFormationRefused", least: 5, names: []string{"TestFormationWrong", "TestFormationDNSWrong", "TestFormationRefused"}},
		part{pkg: "./driver/host", run: "TestFormation", least: 10},
		part{pkg: "./formation/... ./etcd/srv", least: 10},
		part{pkg: "./app", run: "TestClockOff", least: 1, names: []string{"TestClockOff"}},
	)
}

func proveHostAdd(ctx context.Context, e *env) (string, error) {
	return e.parts(ctx, nil, part{pkg: "./hosts/install", run: "TestHostAdd", least: 8, names: []string{"TestHostAddKeys", "TestHostAddBroken", "TestHostAddTwice", "TestHostAddSystemd"}})
}

func proveSystemd(ctx context.Context, e *env) (string, error) {
	return e.parts(ctx, nil, part{pkg: "./test/e2e", run: "TestSystemdMembers", least: 1, names: []string{"TestSystemdMembers"}})
}

func proveLeaderZones(ctx context.Context, e *env) (string, error) {
	return e.parts(ctx, nil,
		part{pkg: "./fleet", run: "TestLeader|TestScatter", least: 10, names: []string{"TestLeaderZones", "TestLeaderBook", "TestScatterLeaders"}},
		part{pkg: "./test/e2e", run: "TestLeaderZones", figures: logged("leadership came")},
	)
}

func proveFleet(ctx context.Context, e *env) (string, error) {
	return e.parts(ctx, nil,
		part{pkg: "./fleet", run: "TestFleetDrains|TestAnyDrainConverges|TestPlacing", least: 4, names: []string{"TestFleetDrains", "TestAnyDrainConverges"}},
		part{pkg: "./fleet/place", run: "TestFortyHosts", least: 1, names: []string{"TestFortyHosts"}},
	)
}

func proveDrain(ctx context.Context, e *env) (string, error) {
	return e.parts(ctx, nil, part{pkg: "./test/e2e", run: "TestDrainOnNetlab", least: 1, names: []string{"TestDrainOnNetlab"}})
}

func proveNeighbours(ctx context.Context, e *env) (string, error) {
	return e.parts(ctx, []string{"QUORATE_NEIGHBOURS=1"}, part{pkg: "./driver/host", run: "TestNeighbours", figures: logged("p99")})
}

func proveRender(ctx context.Context, e *env) (string, error) {
	return e.parts(ctx, nil, part{pkg: "./test/render", run: "TestRender", least: 6})
}

func proveJoin(ctx context.Context, e *env) (string, error) {
	return e.parts(ctx, nil,
		part{pkg: "./server", run: "TestJoin|TestCertificatesRefused|TestAgent|TestAudit|TestVoid|TestRenewal", least: 10},
		part{pkg: "./app", run: "TestJoin|TestAgentRenews", least: 2},
	)
}

func provePreflight(ctx context.Context, e *env) (string, error) {
	return e.parts(ctx, nil,
		part{pkg: "./hosts/preflight", least: 15},
		part{pkg: "./agent ./app ./fleet ./server", run: "Unfit|Checks|TestCheckOnDemand|TestCheckHost", least: 5},
	)
}

func provePlacement(ctx context.Context, e *env) (string, error) {
	return e.parts(ctx, []string{"CGO_ENABLED=1"}, part{pkg: "-race ./fleet/place", least: 10, names: []string{"TestPlaceFindsWhatExists", "TestRulesHoldAfterAnyHistory"}})
}

func proveHostCommands(ctx context.Context, e *env) (string, error) {
	scripts := []string{"formation", "host-add", "host-check", "join", "place", "render"}
	names := make([]string, 0, len(scripts))
	for _, s := range scripts {
		names = append(names, "TestScripts/"+s)
	}
	return e.parts(ctx, nil, part{pkg: "./test/scripts", run: "TestScripts/^(" + strings.Join(scripts, "|") + ")$", least: 1 + len(scripts), names: names})
}

func proveHostRace(ctx context.Context, e *env) (string, error) {
	more, err := e.releases(ctx)
	if err != nil {
		return "", err
	}
	// What is timed is not timed under the race detector. No GOFLAGS: tests build too.
	return e.parts(ctx, append(more, "CGO_ENABLED=1"), part{
		pkg:   "-race -skip ^TestNeighbours$ ./hosts/... ./formation/... ./fleet/... ./server ./agent ./driver/host/... ./driver/render",
		least: 300,
	})
}

// hostSabotages has a change for each item of the hosts list.
var hostSabotages = []sabotage{
	{"formation", "fleet/formation.go", "		b.DNS = f.DNS.DeepCopy()\n", "", "members that are to find each other by DNS are told of each other"},
	{"formation-wrong", "driver/host/supervisor/formation.go", "	if !f.on {\n", "	if !f.on || len(line) > 0 {\n", "what etcd says of a wrong formation is not heard"},
	{"host-add", "hosts/install/conn.go", "check.check,", "ssh.InsecureIgnoreHostKey(),", "any host key is taken"},
	{"systemd", "driver/host/units.go", "WantedBy=multi-user.target", "", "units don't come back after a boot"},
	{"leader-zones", "fleet/leaders.go", "	return !s.mayLead(leader) && ", "	return false && ", "leadership stays wherever it falls"},
	{"fleet", "fleet/turns.go", "	if !s.draining(gone[0]) {\n", "	if host != \"\" {\n", "clusters leave a drained host all at once"},
	{"drain", "fleet/turns.go", "	if !s.draining(gone[0]) {\n", "	if host != \"\" {\n", "clusters leave a drained host all at once"},
	{"neighbours", "driver/host/cgroup/cgroup.go", "	for _, c := range g.controllers() {\n		if err := g.placeIn", "	for _, c := range g.controllers()[:0] {\n		if err := g.placeIn", "members are put into no group"},
	{"render", "driver/render/certs.go", "!pki.NeedsRenewal(cert, s.Now) &&", "pki.NeedsRenewal(cert, s.Now) &&", "certificates are made anew with each run"},
	{"join", "server/join.go", "	if err != nil || !s.tokens.now().Before(expires) {\n", "	if err != nil || expires.IsZero() {\n", "a token is good for ever"},
	{"preflight", "hosts/preflight/thresholds.go", "	fsyncFail = heartbeat\n", "	fsyncFail = 100 * heartbeat\n", "a disk that syncs in seconds is fit"},
	{"placement", "fleet/place/choose.go", "	return a != v1alpha1.ClassGuaranteed && b != v1alpha1.ClassGuaranteed\n", "	return true\n", "Guaranteed clusters share their hosts"},
	{"commands", "cli/exit.go", "	exitUnplaced    = 17\n", "	exitUnplaced    = 1\n", "a member without a place has no exit code of its own"},
	{"race", "fleet/leaders.go", "	b.mu.Lock()\n	defer b.mu.Unlock()\n	if b.begun.IsZero() {\n", "	if b.begun.IsZero() {\n", "who leads where is written without a lock"},
}
