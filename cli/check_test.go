package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/chaos"
	"github.com/quorate/quorate/check"
	"github.com/quorate/quorate/history"
)

func TestCheckVerdict(t *testing.T) {
	for verdict, want := range map[check.Verdict]int{
		check.Holds: exitOK, check.Violated: exitViolated, check.Undecided: exitUnreachable,
	} {
		err := checkVerdict(verdict)
		if got := exitCode(err); got != want {
			t.Errorf("%s ends with %d, want %d", verdict, got, want)
		}
		if err != nil && errorText(err) != "" {
			t.Errorf("%s is printed as an error: %q", verdict, errorText(err))
		}
	}
	for want, err := range map[int]error{
		exitUnreachable: fmt.Errorf("%w at http://a", check.ErrNobody), exitRefused: fmt.Errorf("%w: there are 2", check.ErrNotEmpty),
	} {
		if got := exitCode(err); got != want || errorText(err) == "" {
			t.Errorf("%v ends with %d and %q, want %d", err, got, errorText(err), want)
		}
	}
}

// lostWrite is a history of a write that nobody sees.
func lostWrite(t *testing.T) *history.History {
	t.Helper()
	return &history.History{
		Meta: history.Meta{Format: history.Format, Name: "lab", Prefix: "/p/", StartRevision: 1, StartedAt: "2026-11-21T12:00:00Z", Members: []string{"m1 3.7.3"}},
		Operations: []history.Operation{
			{Client: 1, Call: 1, Return: 2, Kind: history.Put, Outcome: history.OK, Revision: 2, Then: []history.Request{{Kind: history.Put, Key: "/p/a", Value: "1"}}, Results: []history.Result{{}}},
			{Client: 1, Call: 3, Return: 4, Kind: history.Range, Outcome: history.OK, Revision: 2, Then: []history.Request{{Kind: history.Range, Key: "/p/a"}}, Results: []history.Result{{}}},
		},
		Watches: []history.Watch{{ID: 2, Key: "/p/", End: "/p0", StartRevision: 2, Truth: true, Responses: []history.WatchResponse{{At: 1, Revision: 1, Created: true}, {At: 5, Revision: 2, Progress: true}}}},
	}
}

// TestCheckHistory: a file is judged, shown in each form, and drawn.
func TestCheckHistory(t *testing.T) {
	file, page := filepath.Join(t.TempDir(), "lost.zst"), filepath.Join(t.TempDir(), "lost.html")
	var raw bytes.Buffer
	if err := history.Write(&raw, lostWrite(t)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, raw.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := run(t, "check", "history", file, "--html", page)
	if code != exitViolated || stderr != "" {
		t.Errorf("it ends with %d: %s", code, stderr)
	}
	for _, want := range []string{
		"violated: ", "  of     lab, prefix /p/, begun 2026-11-21T12:00:00Z\n", "  on     m1 3.7.3\n", "\n✗ ", "\n  why    ", "\n  seen   ",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is missing in:\n%s", want, stdout)
		}
	}
	for line := range strings.Lines(stdout) {
		if len([]rune(line)) > reportWidth+1 && !strings.HasPrefix(line, "  file") {
			t.Errorf("a line is too long: %q", line)
		}
	}
	drawn, err := os.ReadFile(page)
	if err != nil || !bytes.Contains(drawn, []byte("</html>")) {
		t.Errorf("the page has %d bytes: %v", len(drawn), err)
	}
	for form, want := range map[string]string{"json": `"verdict": "violated"`, "yaml": "verdict: violated\n"} {
		if code, stdout, _ = run(t, "check", "history", file, "-o", form); code != exitViolated || !strings.Contains(stdout, want) {
			t.Errorf("as %s it ends with %d:\n%s", form, code, stdout)
		}
	}
	idle := &history.History{Meta: history.Meta{Format: history.Format, Prefix: "/p/", StartRevision: 1, StartedAt: "2026-11-21T12:00:00Z"}}
	raw.Reset()
	if err = history.Write(&raw, idle); err != nil {
		t.Fatal(err)
	}
	if err = os.WriteFile(file, raw.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stdout, _ = run(t, "check", "history", file); code != exitUnreachable || !strings.HasPrefix(stdout, "undecided: ") {
		t.Errorf("a history of nothing ends with %d:\n%s", code, stdout)
	}
	if err = os.WriteFile(file, []byte("no history"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr = run(t, "check", "history", file); code != exitFailed || !strings.Contains(stderr, "not a history of this format") {
		t.Errorf("what is no history ends with %d: %s", code, stderr)
	}
}

func TestPrintResult(t *testing.T) {
	var out bytes.Buffer
	e := newEnv([]string{"quorate"}, Stdio{In: eof{}, Out: &out, Err: &out})
	r := &check.Result{
		Verdict: check.Holds, Summary: "no promise was broken: 5 operations", Hash: "of 1 members at revision 9", History: "a b.zst",
		Members: []check.Member{{Name: "m1", Endpoint: "http://a:1", Version: "3.7.3", DBSize: 2048, Leader: true}},
		Stats:   check.Stats{OK: 3, Failed: 1, Unknown: 1, PerSecond: 5, LongestWriteGapSeconds: 0.25, Watches: 2, WatchEvents: 7, TruthResumed: 1},
		Disturbances: []history.Disturbance{
			{Kind: "kill", Target: "m1", From: 2e9, To: 3e9}, {Kind: "pause", Target: "m2", From: 5e9, To: 6e9},
		},
		Notes: []string{"something"}, Report: &history.Report{OK: true},
	}
	e.printResult(r)
	for _, want := range []string{
		"holds: no promise was broken: 5 operations\n", "m1       http://a:1   leader   3.7.3     2.0 KiB\n",
		"  asked  3 answered, 1 refused, 1 without an answer, 5 a second; the longest time without a write\n         was 250ms\n",
		"went on at another member once\n", "  harm   kill m1, from 2.0 s to 3.0 s\n         pause m2, from 5.0 s to 6.0 s\n",
		"  note   something\n", " check history 'a b.zst'\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
}

func TestPrintCheckPlan(t *testing.T) {
	var out bytes.Buffer
	e := newEnv([]string{"quorate"}, Stdio{In: eof{}, Out: &out, Err: &out})
	p := &check.Plan{
		Prefix: "/p/", StartRevision: 4, Clients: 2, Rate: -1, Seconds: 5, Operations: 10, Mix: check.Mix{"put": 1}, Keys: 3, ValueSize: 4, Seed: 5,
		AllowCompact: true, Hash: "compared", Disturbances: []string{"kill"}, EverySeconds: 3, History: "x.zst", Keep: true, Notes: []string{"m3 is not reached"},
	}
	if err := e.printCheckPlan(outTable, p); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"nothing was done", "  prefix /p/, empty at revision 4\n", "2 clients, as fast as it goes, for 5s or 10 operations", "  mix    put=1\n",
		"everyone on it loses the past", "  harm   kill, in turn, with a rest of 3s before each\n", "  after  what was written is left there\n", "  note   m3 is not reached\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, out.String())
		}
	}
}

func TestProgressText(t *testing.T) {
	got := progressText(check.Progress{Phase: "traffic", Elapsed: 2100 * time.Millisecond, Operations: 10, PerSecond: 5, Failed: 1, Unknown: 2, Disturbance: "kill"})
	if want := "traffic: 2s, 10 operations, 5/s, 1 refused, 2 without an answer, under way: kill"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestAim: who is disturbed in which way, and what can't be.
func TestAim(t *testing.T) {
	members := []check.Member{
		{ID: "a", Name: "m1", Endpoint: "http://10.0.0.1:2379", PeerURLs: []string{"http://10.0.0.1:2380"}},
		{ID: "b", Name: "m2", Endpoint: "http://10.0.0.2:2379", PeerURLs: []string{"http://10.0.0.2:2380"}},
		{ID: "c", Name: "m3", Endpoint: "http://10.0.0.3:2379", PeerURLs: []string{"http://10.0.0.3:2380"}},
	}
	o := &checkOptions{length: time.Second, startAgain: true}
	d := &disturber{opts: o, kind: chaos.Kill, members: members, all: members}
	if spec, target, err := d.aim(4); err != nil || target != "m2" || spec.Endpoint != "http://10.0.0.2:2379" || !spec.Again || spec.For != time.Second {
		t.Errorf("kill: %+v, %s, %v", spec, target, err)
	}
	d.kind = chaos.LeaderMove
	if spec, _, err := d.aim(0); err != nil || len(spec.Endpoints) != 3 {
		t.Errorf("leader-move: %+v, %v", spec, err)
	}
	d.kind = chaos.Partition
	spec, target, err := d.aim(2)
	if err != nil || target != "m3" || len(spec.Cuts) != 2 || spec.Cuts[0].From.String() != "10.0.0.3" || len(spec.Ports) != 1 || spec.Ports[0] != 2380 {
		t.Errorf("partition: %+v, %s, %v", spec, target, err)
	}
	for want, peers := range map[string]string{
		"members share the address 10.0.0.1": "http://10.0.0.1:3380",
		"which has a name in it":             "http://db1:2380",
	} {
		d.all = []check.Member{members[0], members[1], {Name: "m3", PeerURLs: []string{peers}}}
		if _, _, err = d.aim(0); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", peers, err)
		}
	}
	d.all = members[:1]
	if _, _, err = d.aim(0); err == nil {
		t.Error("one member is cut off from nobody")
	}
	d.kind, d.members = chaos.Kill, []check.Member{{Name: "m1", Endpoint: "http://127.0.0.1:1"}}
	if err = d.possible(); !errors.Is(err, chaos.ErrNoProcess) {
		t.Errorf("a member of another machine: %v", err)
	}
	d.kind, d.all, d.members = chaos.Partition, members, members
	if os.Geteuid() != 0 {
		return // only root can drop packets
	}
	if err = d.possible(); err == nil || !strings.Contains(err.Error(), "m1 has no address of this machine") {
		t.Errorf("a partition of other machines: %v", err)
	}
	d.away = []check.Member{{ID: "l", Name: "learner", Learner: true, PeerURLs: []string{"http://10.0.0.9:2380"}}}
	if spec, _, err = d.aim(2); err != nil || len(spec.Cuts) != 3 {
		t.Errorf("a partition spares the learner: %+v, %v", spec, err)
	}
	d.away = nil
	d.all = []check.Member{members[0], {ID: "d", Name: "m4", PeerURLs: []string{"http://127.0.0.1:2380"}}}
	d.members = d.all
	if err = d.possible(); err != nil || len(d.members) != 1 || d.members[0].Name != "m4" {
		t.Errorf("a partition of this machine's member: %v, %+v", err, d.members)
	}
	here, err := localAddresses()
	if i := slices.IndexFunc(here, func(a netip.Addr) bool { return a.Is4() && !a.IsLoopback() }); err == nil && i >= 0 {
		d.all = []check.Member{
			{ID: "d", Name: "m4", PeerURLs: []string{"http://127.0.0.1:2380"}}, {ID: "e", Name: "m5", PeerURLs: []string{"http://" + here[i].String() + ":2380"}},
		}
		d.members = d.all
		if err = d.possible(); err == nil || !strings.Contains(err.Error(), "are both addresses of this machine") {
			t.Errorf("a partition that would cut nothing: %v", err)
		}
	}
}

// TestCalm: what would be an outage is refused, unless it is meant.
func TestCalm(t *testing.T) {
	members := []check.Member{{ID: "a", Name: "m1"}, {ID: "b", Name: "m2"}, {ID: "c", Name: "m3"}}
	learner := check.Member{ID: "l", Name: "m4", Learner: true}
	for what, tc := range map[string]struct {
		kind, want string
		plan       check.Plan
	}{
		"three":                  {chaos.Kill, "", check.Plan{Members: members}},
		"three and a learner":    {chaos.Kill, "", check.Plan{Members: append(members[:3:3], learner)}},
		"a learner that is away": {chaos.Kill, "", check.Plan{Members: members, Missing: []check.Member{learner}}},
		"two":                    {chaos.Pause, "a cluster with 2 voters takes no write while one is away", check.Plan{Members: members[:2]}},
		"two and a learner":      {chaos.Partition, "a cluster with 2 voters", check.Plan{Members: append(members[:2:2], learner)}},
		"one":                    {chaos.Restart, "a cluster with 1 voter", check.Plan{Members: members[:1]}},
		"the leader of two":      {chaos.LeaderMove, "", check.Plan{Members: members[:2]}},
		"one is away":            {chaos.Kill, "member m3 is not reached", check.Plan{Members: members[:2], Missing: members[2:]}},
		"one is away, moved":     {chaos.LeaderMove, "member m3 is not reached", check.Plan{Members: members[:2], Missing: members[2:]}},
	} {
		o := &checkOptions{}
		d := &disturber{opts: o, kind: tc.kind}
		d.of(&tc.plan)
		if err := d.calm(); (err == nil) != (tc.want == "") || err != nil && (!strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "--allow-outage")) {
			t.Errorf("%s: %v, want %q", what, err, tc.want)
		}
		o.outage = true
		if err := d.calm(); err != nil {
			t.Errorf("%s, as it is wanted: %v", what, err)
		}
	}
}

// TestAgreed: a cluster of other machines is not loaded without a word.
func TestAgreed(t *testing.T) {
	e := newEnv([]string{"quorate"}, Stdio{In: eof{}, Out: io.Discard, Err: io.Discard})
	here := check.Plan{Members: []check.Member{{Endpoint: "http://127.0.0.1:2379"}, {Endpoint: "http://[::1]:2379"}}}
	afar := check.Plan{Members: append(here.Members[:1:1], check.Member{Endpoint: "https://10.0.0.1:2379"})}
	harmed, compacted := here, here
	harmed.Disturbances, compacted.AllowCompact = []string{"kill"}, true
	for what, tc := range map[string]struct {
		plan  check.Plan
		agree bool
	}{"this machine": {here, true}, "another": {afar, false}, "harm": {harmed, false}, "compaction": {compacted, false}} {
		cmd := checkRunCommand(e)
		if err := e.agreed(cmd, &checkOptions{}, &tc.plan); (err == nil) != tc.agree {
			t.Errorf("%s: %v", what, err)
		}
		if err := e.agreed(cmd, &checkOptions{yes: true}, &tc.plan); err != nil {
			t.Errorf("%s, with --yes: %v", what, err)
		}
	}
}

// TestSick: a member that hangs, or is another than it was, is no member to go without.
func TestSick(t *testing.T) {
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	o := &checkOptions{}
	o.opts.Logger = slog.New(slog.DiscardHandler)
	d := &disturber{opts: o, kind: chaos.Kill, all: []check.Member{{ID: "a", Name: "m1", Endpoint: "http://" + ln.Addr().String()}}}
	if err = d.ready(t.Context(), time.Second); err == nil || !strings.Contains(err.Error(), "m1 does not answer") {
		t.Errorf("a member that hangs: %v", err)
	}
}
