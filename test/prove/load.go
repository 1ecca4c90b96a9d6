package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// loads lists what the issue of load and histories asks to be shown. Raw histories
// are kept below .cache/histories, pictures below .cache/screenshots.
func loads() []item {
	return []item{
		{"beside-put", "beside etcd's benchmark, closed loop: as many puts a second, at no more client CPU each", 20 * time.Minute, proveBeside("bench-put")},
		{"beside-range", "the same with linearizable reads", 20 * time.Minute, proveBeside("bench-range")},
		{"stall", "a SIGSTOP of 1 s is plain in our p99.9, and absent from that of etcd's benchmark", 20 * time.Minute, proveBeside("bench-stall")},
		{"matrix", "the operators' matrix of namespaces and clients on this machine", 20 * time.Minute, proveMatrix},
		{"bench", "all loads on real etcds: open and closed loop, mixes, watches, leases, Kubernetes, limits, the highest rate; reports that say what happened", 20 * time.Minute, proveBench},
		{"flags", "bad flags are refused with the reason", 10 * time.Minute, proveFlags},
		{"from", "a load from two hosts, merged into one report", 10 * time.Minute, proveFrom},
		{"million", "1,000,000 operations are recorded and checked within 60 s and 4 GiB", 15 * time.Minute, proveMillion},
		{"planted", "each rule finds the bug planted for it, and none is found in 50 clean histories", 15 * time.Minute, provePlanted},
		{"clean", "50 runs on a cluster that nothing happens to: no promise is called broken", 20 * time.Minute, proveClean},
		{"oracle", "porcupine alone agrees on 100 random histories, clean and broken", 15 * time.Minute, proveOracle},
		{"record", "what clients saw is recorded as it was: real etcds, every kind of call, watches that break", 15 * time.Minute, proveRecord},
		{"check", "`quorate check run` holds on 3.5, 3.6 and 3.7, under kills, pauses, restarts, partitions and moves of the leader", 25 * time.Minute, proveCheckRun},
		{"disturb", "every disturbance ends by itself, whoever is killed", 15 * time.Minute, proveDisturb},
		{"netlab", "hosts, zones, partitions and delays, removed after a kill -9", 15 * time.Minute, proveNetlab},
		{"durability", "an etcd that acknowledges before its data is durable: the loss is found, and none where it is durable", 20 * time.Minute, proveDurability},
		{"bugs", "bugs of etcd's published list are found again on the releases that have them, and not on later ones", 45 * time.Minute, proveBugs},
		{"pages", "the pages of a load, its limits, a matrix and a violation in headless Chromium, both themes and widths, without a console error", 15 * time.Minute, provePages},
		{"sabotage", "each line above turns red when what it shows is broken", 60 * time.Minute, proveSabotage("load", loadSabotages)},
	}
}

// comparison is what test/perf says of one.
type comparison struct {
	Versions []string `json:"versions"`
	Pairs    []any    `json:"pairs"`
	Metrics  []struct {
		Name   string `json:"name"`
		Unit   string `json:"unit"`
		Ours   side   `json:"quorate"`
		Theirs side   `json:"peer"`
		// Ratio within the pairs, between Low and High.
		Ratio float64 `json:"ratio"`
		Low   float64 `json:"low"`
		High  float64 `json:"high"`
		Goal  string  `json:"goal"`
		OK    bool    `json:"ok"`
	} `json:"metrics"`
}

type side struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// proveBeside runs one comparison of test/perf, which keeps its figures.
func proveBeside(name string) func(ctx context.Context, e *env) (string, error) {
	return func(ctx context.Context, e *env) (string, error) {
		file := filepath.Join(e.repo, ".cache", "perf", name+".json")
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return "", err
		}
		_, runErr := output(command(ctx, e.repo, nil, "go", "run", "./test/perf", "-json", file, name))
		raw, err := os.ReadFile(file)
		if err != nil {
			return "", errors.Join(runErr, err)
		}
		var c comparison
		if err = json.Unmarshal(raw, &c); err != nil {
			return "", err
		}
		seen, err := c.judge()
		return fmt.Sprintf("%d pairs: %s", len(c.Pairs), seen), errors.Join(err, runErr)
	}
}

// judge wants every goal to be met, and at least one to be there.
func (c *comparison) judge() (seen string, err error) {
	var parts []string
	var errs []error
	goals := 0
	for _, m := range c.Metrics {
		parts = append(parts, fmt.Sprintf("%s %.4g against %.4g %s (ratio %.3f, %.3f to %.3f)", m.Name, m.Ours.Median, m.Theirs.Median, m.Unit, m.Ratio, m.Low, m.High))
		if m.Goal == "" {
			continue
		}
		goals++
		if !m.OK {
			errs = append(errs, fmt.Errorf("%s misses %s", m.Name, m.Goal))
		}
	}
	if goals == 0 || len(c.Pairs) < 5 {
		errs = append(errs, fmt.Errorf("%d goals in %d pairs prove nothing", goals, len(c.Pairs)))
	}
	return strings.Join(parts, "; "), errors.Join(errs...)
}

// The matrix: clients are divided by the scale, so that two cores drive and serve.
const (
	matrixScale = 10
	matrixTime  = "10s"
)

// proveMatrix loads the playground with every cell that operators publish.
func proveMatrix(ctx context.Context, e *env) (string, error) {
	u, err := e.fresh(ctx)
	if err != nil {
		return "", err
	}
	out, err := u.quorate(ctx, "bench", "matrix", "-c", "playground", "--scale", strconv.Itoa(matrixScale), "--duration", matrixTime)
	if err != nil {
		return out, err
	}
	csv, err := u.quorate(ctx, "bench", "matrix", "-c", "playground", "--scale", "1000", "--duration", "1s", "-o", "csv")
	if err != nil {
		return out, err
	}
	return fmt.Sprintf("3 members with TLS and the load on the same %d cores, clients divided by %d, %s a cell:\n%s", runtime.NumCPU(), matrixScale, matrixTime, out),
		judgeMatrix(out, csv)
}

var matrixCell = regexp.MustCompile(`(?m)^\s*[148]\s+(300|400|500|800)\s`)

// judgeMatrix wants a line for each published cell, in the table and as CSV.
func judgeMatrix(table, csv string) error {
	const cells = 5
	var errs []error
	if n := len(matrixCell.FindAllString(table, -1)); n != cells {
		errs = append(errs, fmt.Errorf("the table has %d of %d cells", n, cells))
	}
	if n := strings.Count(strings.TrimSpace(csv), "\n"); n != cells {
		errs = append(errs, fmt.Errorf("the CSV has %d of %d cells", n, cells))
	}
	return errors.Join(append(errs, contains("the table", strings.ToLower(table), "scale 1:"+strconv.Itoa(matrixScale), "p99", "client", "server"))...)
}

func proveBench(ctx context.Context, e *env) (string, error) {
	more, err := e.releases(ctx)
	if err != nil {
		return "", err
	}
	return e.tests(ctx, more, "./bench/...", "", 40, "TestWorkloads", "TestStall", "TestDrops", "TestTimeouts", "TestFindMax", "TestSplit", "TestMerge", "TestCompare", "TestBottleneck", "TestOldEtcd")
}

func proveFlags(ctx context.Context, e *env) (string, error) {
	seen, err := e.tests(ctx, nil, "./cli", "TestBench|TestCheck", 5, "TestBenchFlags", "TestBenchWorkerRefuses")
	if err != nil {
		return seen, err
	}
	more, err := e.tests(ctx, nil, "./test/scripts", "TestScripts/(bench|check|chaos)$", 4, "TestScripts/bench", "TestScripts/check", "TestScripts/chaos")
	return seen + "; " + more, err
}

var millionLine = regexp.MustCompile(`million: operations=(\d+) .*`)

func proveMillion(ctx context.Context, e *env) (string, error) {
	out, err := output(command(ctx, e.repo, []string{"QUORATE_MILLION=1"}, "go", "test", "./history", "-run", "^TestMillion$", "-count=1", "-v", "-timeout=14m"))
	found := millionLine.FindStringSubmatch(out)
	if found == nil {
		return tail(out, 500), errors.Join(err, errors.New("it did not say what it measured"))
	}
	n, convErr := strconv.Atoi(found[1])
	if n < 1_000_000 {
		err = errors.Join(err, fmt.Errorf("only %d operations", n))
	}
	return found[0], errors.Join(err, convErr)
}

func provePlanted(ctx context.Context, e *env) (string, error) {
	return e.tests(ctx, nil, "./history", "TestPlantedBugs|TestCleanHistories|TestExcerpts", 40, "TestPlantedBugs", "TestCleanHistories", "TestExcerpts")
}

func proveOracle(ctx context.Context, e *env) (string, error) {
	return e.tests(ctx, nil, "./history/...", "TestOracle", 1, "TestOracle")
}

func proveRecord(ctx context.Context, e *env) (string, error) {
	return e.tests(ctx, nil, "./history/record", "", 8, "TestWhatIsRecorded", "TestLeases", "TestOutcomes", "TestWatch", "TestTruthGoesOn", "TestTruthHasAHole")
}

// proveCheckRun runs the engine's tests, and the command on a playground that is
// disturbed in every way; its raw history is kept and judged once more.
func proveCheckRun(ctx context.Context, e *env) (string, error) {
	more, err := e.releases(ctx)
	if err != nil {
		return "", err
	}
	seen, err := e.tests(ctx, more, "./check", "", 10, "TestHolds", "TestHoldsUnderKills", "TestHoldsUnderPartitions", "TestOlderEtcd", "TestStranger", "TestInterrupt")
	if err != nil {
		return seen, err
	}
	u, err := e.fresh(ctx)
	if err != nil {
		return seen, err
	}
	kept := filepath.Join(e.repo, ".cache", "histories")
	if err = os.MkdirAll(kept, 0o700); err != nil {
		return seen, err
	}
	file := filepath.Join(kept, "playground.history.zst")
	if err = os.RemoveAll(file); err != nil {
		return seen, err
	}
	out, err := u.quorate(ctx, "check", "run", "-c", "playground", "--disturb", "kill,pause,restart,leader-move", "--every", "2s", "--for", "2s",
		"--duration", "60s", "--history", file, "-o", "json", "--yes")
	if err != nil {
		return seen, fmt.Errorf("%w: %s", err, tail(out, 1500))
	}
	verdict, err := judgeCheck(out)
	if err != nil {
		return seen, err
	}
	again, err := u.quorate(ctx, "check", "history", file)
	return seen + "; `quorate check run` on the playground: " + verdict + "; judged again from .cache/histories: " + tail(strings.SplitN(again, "\n", 2)[0], 200), err
}

// cleanRuns are runs in which nothing is wrong.
const cleanRuns = 50

// proveClean runs `quorate check run` on a healthy playground, and keeps the raw
// histories.
func proveClean(ctx context.Context, e *env) (string, error) {
	u, err := e.fresh(ctx)
	if err != nil {
		return "", err
	}
	kept := filepath.Join(e.repo, ".cache", "histories", "clean")
	if err = errors.Join(os.RemoveAll(kept), os.MkdirAll(kept, 0o700)); err != nil {
		return "", err
	}
	operations := 0
	for i := range cleanRuns {
		file := filepath.Join(kept, fmt.Sprintf("%02d.history.zst", i+1))
		out, err := u.quorate(ctx, "check", "run", "-c", "playground", "--duration", "2s", "--rate", "0", "--history", file, "-o", "json")
		if err != nil {
			return fmt.Sprintf("run %d", i+1), fmt.Errorf("%w: %s", err, tail(out, 1500))
		}
		r, err := readCheck(out)
		if err == nil && (r.Verdict != "holds" || len(r.Report.Violations) > 0 || r.Stats.Operations < 100) {
			err = fmt.Errorf("%s, %d violations in %d operations", r.Verdict, len(r.Report.Violations), r.Stats.Operations)
		}
		if err != nil {
			return fmt.Sprintf("run %d", i+1), err
		}
		operations += r.Stats.Operations
	}
	return fmt.Sprintf("%d runs of %d operations in all hold; raw histories in .cache/histories/clean", cleanRuns, operations), nil
}

// checked is what `quorate check run` says.
type checked struct {
	Verdict string `json:"verdict"`
	Stats   struct {
		Operations int `json:"operations"`
		Unknown    int `json:"unknown"`
	} `json:"stats"`
	Disturbances []struct {
		Kind string `json:"kind"`
	} `json:"disturbances"`
	Report struct {
		Violations []any `json:"violations"`
	} `json:"report"`
}

func readCheck(out string) (r checked, err error) {
	if err = json.Unmarshal([]byte(out), &r); err != nil {
		err = fmt.Errorf("its JSON: %w: %s", err, tail(out, 300))
	}
	return r, err
}

// judgeCheck wants a run that was disturbed, whose traffic was real, and that broke
// no promise.
func judgeCheck(out string) (string, error) {
	r, err := readCheck(out)
	if err != nil {
		return "", err
	}
	kinds := map[string]int{}
	for _, d := range r.Disturbances {
		kinds[d.Kind]++
	}
	var errs []error
	for _, kind := range []string{"kill", "pause", "restart", "leader-move"} {
		if kinds[kind] == 0 {
			errs = append(errs, fmt.Errorf("there was no %s", kind))
		}
	}
	if r.Verdict != "holds" || len(r.Report.Violations) > 0 || r.Stats.Operations < 1000 || r.Stats.Unknown == 0 {
		errs = append(errs, fmt.Errorf("%s, %d violations in %d operations, %d without an answer", r.Verdict, len(r.Report.Violations), r.Stats.Operations, r.Stats.Unknown))
	}
	return fmt.Sprintf("%s, %d operations, %d without an answer, disturbed by %v", r.Verdict, r.Stats.Operations, r.Stats.Unknown, kinds), errors.Join(errs...)
}

func proveDisturb(ctx context.Context, e *env) (string, error) {
	return e.tests(ctx, nil, "./chaos", "", 15, "TestPauseEndsByItself", "TestPauseOutlivesItsStarterAndNotItsHolder", "TestHolderThatHangsIsKilled",
		"TestStartedAgain", "TestLeaderMove", "TestPartitionOfTheLeader", "TestPartitionGoesWithItsHolder", "TestRefused")
}

func proveNetlab(ctx context.Context, e *env) (string, error) {
	return e.tests(ctx, nil, "./test/netlab", "", 6, "TestHostsReachEachOtherUnlessCutOff", "TestDelay", "TestTwoLabsAtOnce", "TestSweepRemovesTheLabOfADeadProcess", "TestEtcdInAPartition")
}

func proveDurability(ctx context.Context, e *env) (string, error) {
	return e.makeTests(ctx, "repro-durability", 2)
}

func proveBugs(ctx context.Context, e *env) (string, error) {
	const least = 2
	return e.makeTests(ctx, "repro", 2*least)
}

var testPassed = regexp.MustCompile(`(?m)^\s*--- PASS: (\S+)`)

// makeTests runs a target that runs tests verbosely, and wants so many to pass and
// none to be skipped.
func (e *env) makeTests(ctx context.Context, target string, least int) (string, error) {
	out, err := output(command(ctx, e.repo, nil, "make", target))
	passed := testPassed.FindAllStringSubmatch(out, -1)
	names := make([]string, 0, len(passed))
	for _, p := range passed {
		if strings.Contains(p[1], "/") {
			names = append(names, p[1])
		}
	}
	if strings.Contains(out, "--- SKIP") {
		err = errors.Join(err, errors.New("some were skipped"))
	}
	if len(names) < least {
		err = errors.Join(err, fmt.Errorf("%d passed, at least %d were expected", len(names), least))
	}
	return fmt.Sprintf("make %s: %d passed: %s", target, len(names), strings.Join(names, ", ")), err
}

func provePages(ctx context.Context, e *env) (string, error) {
	dir := filepath.Join(e.repo, ".cache", "screenshots", "load")
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	seen, err := e.tests(ctx, []string{"QUORATE_SCREENSHOTS=" + dir}, "./test/browser", "TestPages", 1, "TestPages")
	pictures, globErr := filepath.Glob(filepath.Join(dir, "*.png"))
	if len(pictures) < 16 {
		globErr = errors.Join(globErr, fmt.Errorf("only %d pictures were made", len(pictures)))
	}
	return fmt.Sprintf("%s; for eyes to judge: %d pictures in .cache/screenshots/load", seen, len(pictures)), errors.Join(err, globErr)
}

// proveFrom drives a load from two agents, as if they were two machines.
func proveFrom(ctx context.Context, e *env) (string, error) {
	bin, err := e.install()
	if err != nil {
		return "", err
	}
	dir, err := e.mkdir("hosts")
	if err != nil {
		return "", err
	}
	p := &pair{e: e, server: bin, agent: bin, dir: dir, more: []string{"--allow-load"}}
	stop, err := p.start(ctx)
	defer stop()
	if err != nil {
		return "", err
	}
	second, err := p.join(ctx, "h2", "--allow-load")
	defer second()
	if err != nil {
		return "", err
	}
	for _, args := range [][]string{
		{"apply", "-f", filepath.Join("examples", "three-members.yaml")},
		{"wait", "cluster/three", "--for", "jsonpath={.status.summary}=Healthy", "--timeout", "90s"},
	} {
		if _, err = p.quorate(ctx, args...); err != nil {
			return "", err
		}
	}
	out, err := p.quorate(ctx, "bench", "-c", "three", "--from", "h1,h2", "--rate", "400", "--clients", "16", "--duration", "5s", "-o", "json")
	if err != nil {
		return "", err
	}
	seen, err := judgeFrom(out)
	if err != nil {
		return seen, err
	}
	events, err := p.quorate(ctx, "events", "-A")
	if err != nil {
		return seen, err
	}
	left, err := p.quorate(ctx, "etcdctl", "-c", "three", "get", "--prefix", "--keys-only", "/quorate-bench/")
	if strings.TrimSpace(left) != "" {
		err = errors.Join(err, fmt.Errorf("keys were left: %s", tail(left, 200)))
	}
	return seen + "; events name who asked; no key left", errors.Join(err, contains("the events", events, "LoadDriven"))
}

// judgeFrom wants both hosts to have had their share.
func judgeFrom(out string) (string, error) {
	var r struct {
		Hosts []string `json:"hosts"`
		Total struct {
			Count        int64   `json:"count"`
			OpsPerSecond float64 `json:"opsPerSecond"`
			Latency      struct {
				P50 float64 `json:"p50"`
				P99 float64 `json:"p99"`
			} `json:"latency"`
		} `json:"total"`
		Client struct {
			Hosts int `json:"hosts"`
		} `json:"client"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return "", fmt.Errorf("its JSON: %w: %s", err, tail(out, 300))
	}
	seen := fmt.Sprintf("from %s: %d requests, %.0f a second of 400 that were asked for, p50 %.2f ms, p99 %.2f ms", strings.Join(r.Hosts, " and "), r.Total.Count, r.Total.OpsPerSecond, r.Total.Latency.P50, r.Total.Latency.P99)
	if len(r.Hosts) != 2 || r.Total.OpsPerSecond < 360 || r.Total.OpsPerSecond > 440 {
		return seen, errors.New("that is not the whole load of both")
	}
	return seen, nil
}
