package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/internal/process"
	"github.com/quorate/quorate/test/load"
)

// healthySight is a cluster of two as it should be.
func healthySight() sight {
	s := sight{}
	for i, name := range []string{"m-1", "m-2"} {
		s[name] = seen{
			name: name, pid: int64(10 + i), supervisor: int64(20 + i), version: "3.7.3", digest: "sha256:a", exe: "sha256:a",
			memberID: name, process: process.ID{PID: 10 + i, StartTicks: 5},
		}
	}
	return s
}

// with is a sight in which m-1 was changed.
func with(change func(*seen)) sight {
	s := healthySight()
	m := s["m-1"]
	change(&m)
	s["m-1"] = m
	return s
}

func without(name string) sight {
	s := healthySight()
	delete(s, name)
	return s
}

// TestJudges shows that each shortfall is seen, and that nothing else is.
func TestJudges(t *testing.T) {
	ok := healthySight()
	good := load.Summary{Sent: 1000, Acked: 990, Failed: 10, Rate: 500}
	lessLoad := good
	lessLoad.Rate = 400
	noAck := good
	noAck.Acked = 0
	idle := footprint{quorate: usage{rss: quorateRSS}, supervisors: []usage{{anon: supervisorAnon, cpu: time.Second}}}
	look := func(change func(*footprint)) footprint {
		f := footprint{quorate: idle.quorate, supervisors: []usage{idle.supervisors[0]}}
		change(&f)
		return f
	}
	feet := func(after footprint, help time.Duration) error {
		_, err := judgeFootprint(idle, after, help)
		return err
	}
	step := func(action v1alpha1.TaskAction, member string) v1alpha1.PlanStep {
		return v1alpha1.PlanStep{Action: action, Member: member}
	}
	held := v1alpha1.Plan{HeldReason: fleet.HeldRestored, Steps: []v1alpha1.PlanStep{
		step(v1alpha1.ActionUpdateMember, "m-1"), step(v1alpha1.ActionMoveLeader, "m-2"), step(v1alpha1.ActionUpdateMember, "m-2"),
	}}
	missing := held
	missing.Steps = held.Steps[:2]
	free := held
	free.HeldReason = ""
	files := map[string]string{"a": "1", "b": "2"}

	for _, tc := range []struct {
		name string
		err  error
		// want is a part of what falls short; empty for what holds.
		want string
	}{
		{"a limit met", atMost("x", 3, 3), ""},
		{"a limit missed", atMost("x", 3.1, 3.0), "x is 3.1"},
		{"a duration too long", atMost("x", 3001*time.Millisecond, 3*time.Second), "at most 3s"},

		{"none lost", judgeLost(nil), ""},
		{"one lost", judgeLost([]load.Record{{Key: "k"}}), "1 acknowledged writes are lost"},
		{"the load was real", judgeLoad(good), ""},
		{"the load was too small", judgeLoad(lessLoad), "400 writes a second"},
		{"nothing acknowledged", judgeLoad(noAck), "no write was acknowledged"},

		{"nothing left", judgeLeft(nil), ""},
		{"a process left", judgeLeft([]proc{{ID: process.ID{PID: 7}, args: []string{"etcd"}}}), "pid 7 (etcd)"},

		{"same pids", samePids(ok, healthySight()), ""},
		{"another pid", samePids(ok, with(func(m *seen) { m.pid = 99 })), "m-1 was pid 10 and is pid 99"},
		{"the same pid of another process", samePids(ok, with(func(m *seen) { m.process.StartTicks++ })), "m-1"},
		{"another pid where it may be", samePids(ok, with(func(m *seen) { m.pid = 99 }), "m-1"), ""},
		{"a member is missing", samePids(ok, without("m-2")), "m-2"},
		{"none ever ran", samePids(with(func(m *seen) { m.pid = 0 }), with(func(m *seen) { m.pid = 0 })), "m-1"},
		{"one was not restarted", otherPids(ok, with(func(m *seen) { m.pid = 99 })), "m-2"},
		{"one does not run", otherPids(ok, without("m-2")), "m-2"},

		{"the same etcd", sameEtcd(ok, healthySight()), ""},
		{"another version", sameEtcd(ok, with(func(m *seen) { m.version = "3.7.4" })), "the version of m-1"},
		{"another digest", sameEtcd(ok, with(func(m *seen) { m.digest = "sha256:b" })), "pinned digest of m-1"},
		{"another executable", sameEtcd(ok, with(func(m *seen) { m.exe = "sha256:b" })), "executable of m-1"},
		{"never the pinned executable", sameEtcd(with(func(m *seen) { m.exe = "sha256:b" }), with(func(m *seen) { m.exe = "sha256:b" })), "its release has"},
		{"another member", sameEtcd(ok, with(func(m *seen) { m.memberID = "x" })), "member ID of m-1"},
		{"unknown before and after", sameEtcd(with(func(m *seen) { m.version = "" }), with(func(m *seen) { m.version = "" })), "version of m-1"},

		{"restarted once", restartedOnce(ok, sight{"m-1": {restarts: 1}, "m-2": {restarts: 1}}), ""},
		{"restarted twice", restartedOnce(ok, sight{"m-1": {restarts: 2}, "m-2": {restarts: 1}}), "m-1 was restarted 2 times"},
		{"not restarted", restartedOnce(ok, ok), "restarted 0 times"},
		{"enough samples", judgeSamples(leadership{samples: 20, leaders: map[uint64]etcd.ID{2: 1}}), ""},
		{"few samples", judgeSamples(leadership{samples: 3, leaders: map[uint64]etcd.ID{2: 1}}), "3 samples"},
		{"no leader seen", judgeSamples(leadership{samples: 99}), "99 samples"},

		{"same files, and more", sameFiles(files, map[string]string{"a": "1", "b": "2", "c": "3"}), ""},
		{"a file is gone", sameFiles(files, map[string]string{"a": "1"}), "b is gone"},
		{"a file was changed", sameFiles(files, map[string]string{"a": "1", "b": "x"}), "b was changed"},
		{"a text says it", contains("x", "a b", "a", "b"), ""},
		{"a text does not say it", contains("x", "a b", "a", "c"), `x does not say "c"`},

		{"a footprint within limits", feet(look(func(*footprint) {}), helpTime), ""},
		{"a large supervisor", feet(look(func(f *footprint) { f.supervisors[0].anon++ }), 0), "RssAnon"},
		{"a busy supervisor", feet(look(func(f *footprint) { f.supervisors[0].cpu += idleCPU + 1 }), 0), "CPU"},
		{"a large server", feet(look(func(f *footprint) { f.quorate.rss++ }), 0), "the RSS of server and agent"},
		{"slow help", feet(look(func(*footprint) {}), helpTime+1), "--help"},

		{"a held plan", judgeHeldPlan(held, []string{"m-1", "m-2"}), ""},
		{"a plan that is not held", judgeHeldPlan(free, []string{"m-1"}), "not held"},
		{"a plan without a member", judgeHeldPlan(missing, []string{"m-1", "m-2"}), "no update of m-2"},

		{"nothing in the clear", judgeSearch(nil, []string{"a", "b"}, 5, 2), ""},
		{"a key in the clear", judgeSearch([]string{"a private key"}, []string{"a", "b"}, 5, 2), "in the clear: a private key"},
		{"a search that finds nothing anywhere", judgeSearch(nil, []string{"a"}, 5, 2), "only 1 of 2"},
		{"a search of no files", judgeSearch(nil, []string{"a", "b"}, 0, 2), "only 0 files"},

		{"nothing kept", judgeEphemeral([]string{"x"}, nil, "s", "s"), ""},
		{"a file kept", judgeEphemeral([]string{"x"}, []string{"/tmp/x"}, "s", "s"), "left /tmp/x"},
		{"not there at all", judgeEphemeral(nil, nil, "s", "s"), "did not use TMPDIR"},
		{"a file in the checkout", judgeEphemeral([]string{"x"}, nil, "s", "s ?? x"), "changed the checkout"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			switch {
			case tc.want == "" && tc.err != nil:
				t.Errorf("fell short with %q, but holds", tc.err)
			case tc.want != "" && tc.err == nil:
				t.Errorf("holds, but should fall short with %q", tc.want)
			case tc.want != "" && !strings.Contains(tc.err.Error(), tc.want):
				t.Errorf("fell short with %q, want %q", tc.err, tc.want)
			}
		})
	}
}

const events = `{"Action":"start","Package":"github.com/quorate/quorate/fleet"}
{"Action":"run","Package":"github.com/quorate/quorate/fleet","Test":"TestA"}
{"Action":"pass","Package":"github.com/quorate/quorate/fleet","Test":"TestA"}
{"Action":"pass","Package":"github.com/quorate/quorate/fleet","Test":"TestB/script"}
`

func TestTally(t *testing.T) {
	for _, tc := range []struct {
		name, more string
		least      int
		skips      bool
		wanted     []string
		want       string
	}{
		{"all ran", `{"Action":"pass","Package":"fleet"}`, 2, false, []string{"TestA", "TestB/script"}, ""},
		{"one did not run", "", 2, false, []string{"TestC"}, "TestC did not run"},
		{"one whose name only ends so", "", 2, false, []string{"A"}, "A did not run"},
		{"too few ran", "", 3, false, nil, "2 tests passed"},
		{"one was skipped", `{"Action":"skip","Package":"fleet","Test":"TestC"}`, 2, false, nil, "skipped: fleet.TestC"},
		{"one may be skipped", `{"Action":"skip","Package":"fleet","Test":"TestC"}`, 2, true, nil, ""},
		{"one that is wanted was skipped", `{"Action":"skip","Package":"fleet","Test":"TestC"}`, 2, true, []string{"TestC"}, "TestC did not run"},
		{"one failed", `{"Action":"output","Package":"fleet","Test":"TestC","Output":"why"}` + "\n" + `{"Action":"fail","Package":"fleet","Test":"TestC"}`, 2, true, nil, "fleet.TestC failed: why"},
		{"a package does not build", `{"Action":"build-output","ImportPath":"fleet","Output":"syntax"}` + "\n" + `{"Action":"build-fail","ImportPath":"fleet"}`, 0, true, nil, "fleet failed: syntax"},
		{"a package failed without a test", `{"Action":"fail","Package":"fleet"}`, 0, true, nil, "fleet failed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := count(strings.NewReader(events + tc.more))
			if err != nil {
				t.Fatal(err)
			}
			said := ""
			if err := got.judge(tc.least, tc.skips, tc.wanted...); err != nil {
				said = err.Error()
			}
			if tc.want == "" && said != "" || !strings.Contains(said, tc.want) {
				t.Errorf("judged %q, want %q", said, tc.want)
			}
		})
	}
	if _, err := count(strings.NewReader("no event\n")); err == nil {
		t.Error("what is no event was counted")
	}
}

func TestJudgeScripts(t *testing.T) {
	ran := tally{passed: []string{"test/scripts.TestScripts/up", "test/scripts.TestScripts/down"}}
	if err := judgeScripts([]string{"a/up.txtar", "a/down.txtar"}, ran); err != nil {
		t.Error(err)
	}
	if err := judgeScripts([]string{"a/up.txtar", "a/help.txtar"}, ran); err == nil || !strings.Contains(err.Error(), "help") {
		t.Errorf("a script that did not run: %v", err)
	}
	if err := judgeScripts(nil, ran); err == nil {
		t.Error("no script at all is no shortfall")
	}
}

func TestChoose(t *testing.T) {
	items := []item{{name: "kill-etcd"}, {name: "kill-all"}, {name: "law"}, {name: "law-empty"}}
	for _, tc := range []struct {
		only string
		want []string
		bad  bool
	}{
		{"", []string{"kill-etcd", "kill-all", "law", "law-empty"}, false},
		{"law", []string{"law"}, false},
		{"kill", []string{"kill-etcd", "kill-all"}, false},
		{"law-empty, kill-a", []string{"kill-all", "law-empty"}, false},
		{"kill-all-newer", nil, true},
		{"kill,nothing", nil, true},
		{",", nil, true},
	} {
		chosen, err := choose(items, tc.only)
		var got []string
		for _, it := range chosen {
			got = append(got, it.name)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" || (err != nil) != tc.bad {
			t.Errorf("%q: %v, -want +got:\n%s", tc.only, err, diff)
		}
	}
}

func TestVerdict(t *testing.T) {
	if got := verdict(19, 19, 0, time.Minute); got != "19 of 19 items hold, 0 fell short (60.0 s in all)" {
		t.Error(got)
	}
	if got := verdict(19, 2, 1, time.Minute); got != "1 of 2 items hold, 1 fell short; 17 of 19 were left out by ONLY (60.0 s in all)" {
		t.Error(got)
	}
}

// TestProveOne shows that an item that falls short, or was never run, is no PASS.
func TestProveOne(t *testing.T) {
	for _, tc := range []struct {
		name string
		err  error
		good bool
		want string
	}{
		{"good", nil, true, "PASS  good             seen"},
		{"short", errors.New("too slow"), false, "FAIL  short            seen; FELL SHORT: too slow"},
	} {
		var out strings.Builder
		e := &env{root: t.TempDir(), out: &out}
		it := item{name: tc.name, limit: time.Minute, run: proved("seen", tc.err)}
		if got := proveOne(t.Context(), e, it, &out); got != tc.good || !strings.HasPrefix(out.String(), tc.want) {
			t.Errorf("%s: %v, printed %q, want %q", tc.name, got, out.String(), tc.want)
		}
	}
}

func TestJudgeFindings(t *testing.T) {
	const page = "# Doctor\n## member-down\ntext\n## clock\n"
	for tests, bad := range map[string]bool{
		`finding(t, r, "member-down"); finding(t, r, "clock")`: false,
		`finding(t, r, "member-down")`:                         true,
	} {
		if err := judgeFindings(page, tests); (err != nil) != bad {
			t.Errorf("%s: %v", tests, err)
		}
	}
	if judgeFindings("# Doctor\n", "") == nil {
		t.Error("a page without findings passes")
	}
}

// TestSabotages: every item of the list can be turned red, by a change whose place is
// there.
func TestSabotages(t *testing.T) {
	for _, l := range []struct {
		items []item
		all   []sabotage
	}{{loads(), loadSabotages}, {backups(), backupSabotages}, {hosts(), hostSabotages}} {
		if missing := unsabotaged(l.items, l.all); len(missing) > 0 {
			t.Errorf("nothing turns %v red", missing)
		}
	}
	for _, s := range slices.Concat(loadSabotages, backupSabotages, hostSabotages) {
		raw, err := os.ReadFile(filepath.Join("..", "..", s.file))
		if err != nil {
			t.Error(err)
			continue
		}
		if changed, err := s.apply(string(raw)); err != nil || changed == string(raw) {
			t.Errorf("%s: %v", s.item, err)
		}
	}
	if _, err := (&sabotage{old: "a", file: "x"}).apply("a a"); err == nil {
		t.Error("a place that stands twice was taken")
	}
	for name, tc := range map[string]struct {
		out  string
		err  error
		want string
	}{
		"red":             {"FAIL  stall            FELL SHORT", errors.New("exit status 1"), ""},
		"still green":     {"PASS  stall", nil, "it holds all the same"},
		"another is red":  {"FAIL  matrix", errors.New("exit status 1"), "it did not run"},
		"nothing was run": {"", errors.New("exit status 2"), "it did not run"},
	} {
		err := judgeSabotage("stall", tc.out, tc.err)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestJudgeLoad(t *testing.T) {
	good := "300 400\n 1  300  x\n 1 400 x\n 1 500 x\n 4  400 x\n 8 800 x\nscale 1:10; p99 client server timeouts\n"
	csv := "head\na\nb\nc\nd\ne\n"
	for name, tc := range map[string]struct {
		err  error
		want string
	}{
		"a matrix":                 {judgeMatrix(good, csv), ""},
		"a matrix without a cell":  {judgeMatrix(strings.Replace(good, " 8 800 x\n", "", 1), csv), "4 of 5"},
		"a matrix without a scale": {judgeMatrix(strings.Replace(good, "scale 1:10", "", 1), csv), "scale 1:10"},
		"a CSV without a cell":     {judgeMatrix(good, "head\na\n"), "1 of 5"},
	} {
		if tc.want == "" && tc.err != nil || tc.want != "" && (tc.err == nil || !strings.Contains(tc.err.Error(), tc.want)) {
			t.Errorf("%s: %v", name, tc.err)
		}
	}
	for name, tc := range map[string]struct{ out, want string }{
		"both":      {`{"hosts":["a","b"],"total":{"count":2000,"opsPerSecond":400}}`, ""},
		"one":       {`{"hosts":["a"],"total":{"count":2000,"opsPerSecond":400}}`, "not the whole load"},
		"too much":  {`{"hosts":["a","b"],"total":{"count":2000,"opsPerSecond":800}}`, "not the whole load"},
		"no answer": {`nothing`, "its JSON"},
	} {
		_, err := judgeFrom(tc.out)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("from %s: %v", name, err)
		}
	}
	kinds := `"disturbances":[{"kind":"kill"},{"kind":"pause"},{"kind":"restart"},{"kind":"leader-move"}]`
	for name, tc := range map[string]struct{ out, want string }{
		"that held":              {`{"verdict":"holds","stats":{"operations":5000,"unknown":7},` + kinds + `}`, ""},
		"that was violated":      {`{"verdict":"violated","stats":{"operations":5000,"unknown":7},"report":{"violations":[{}]},` + kinds + `}`, "1 violations"},
		"that did next to none":  {`{"verdict":"holds","stats":{"operations":50,"unknown":7},` + kinds + `}`, "50 operations"},
		"that was not disturbed": {`{"verdict":"holds","stats":{"operations":5000,"unknown":7}}`, "there was no kill"},
	} {
		_, err := judgeCheck(tc.out)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("a check %s: %v", name, err)
		}
	}
	c := comparison{Pairs: make([]any, 5)}
	if _, err := c.judge(); err == nil {
		t.Error("a comparison without a goal proved something")
	}
}
