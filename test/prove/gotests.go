package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// checkLimit is the promise for make check.
const checkLimit = 45 * time.Minute

// tally is what `go test -json` said.
type tally struct {
	// passed, failed and skipped tests, subtests included, as package.Test.
	passed, failed, skipped []string
	// packages that failed, be it to build.
	broken []string
	// output of what failed.
	output map[string]string
}

// count reads the events of `go test -json`.
func count(r io.Reader) (tally, error) {
	t := tally{output: map[string]string{}}
	scan := bufio.NewScanner(r)
	scan.Buffer(nil, 16<<20)
	for scan.Scan() {
		var event struct{ Action, Package, ImportPath, Test, Output string }
		if err := json.Unmarshal(scan.Bytes(), &event); err != nil {
			return t, fmt.Errorf("go test printed what is no event: %s", tail(scan.Text(), 300))
		}
		name := strings.TrimPrefix(event.Package+event.ImportPath, "github.com/quorate/quorate/")
		if event.Test != "" {
			name += "." + event.Test
		}
		switch {
		case event.Action == "output" || event.Action == "build-output":
			t.output[name] += event.Output
		case event.Action == "build-fail" || event.Action == "fail" && event.Test == "":
			t.broken = append(t.broken, name)
		case event.Test == "":
		case event.Action == "pass":
			t.passed = append(t.passed, name)
		case event.Action == "fail":
			t.failed = append(t.failed, name)
		case event.Action == "skip":
			t.skipped = append(t.skipped, name)
		}
	}
	return t, scan.Err()
}

// judge wants tests to have run and passed: those that are named, and at least
// that many in all. No test may have been skipped unless skips are allowed.
func (t tally) judge(least int, allowSkips bool, wanted ...string) error {
	var errs []error
	for _, name := range slices.Concat(t.failed, t.broken) {
		errs = append(errs, fmt.Errorf("%s failed: %s%s", name, lastSaid(t.output[name], 3), tail(t.output[name], 700)))
	}
	for _, w := range wanted {
		if !slices.ContainsFunc(t.passed, func(name string) bool { return strings.HasSuffix(name, "."+w) }) {
			errs = append(errs, fmt.Errorf("%s did not run", w))
		}
	}
	if len(t.passed) < least {
		errs = append(errs, fmt.Errorf("%d tests passed, and at least %d were expected", len(t.passed), least))
	}
	if len(t.skipped) > 0 && !allowSkips {
		errs = append(errs, fmt.Errorf("skipped: %s", strings.Join(t.skipped, ", ")))
	}
	return errors.Join(errs...)
}

// lastSaid are the last lines that a test itself wrote: the logs of what it ran may follow,
// and be longer than what is shown.
func lastSaid(output string, lines int) string {
	said := complained.FindAllString(output, -1)
	if len(said) == 0 {
		return ""
	}
	return strings.Join(said[max(0, len(said)-lines):], "\n") + "\n"
}

// goTest runs go test and counts.
func (e *env) goTest(ctx context.Context, more []string, args ...string) (tally, error) {
	dir, err := e.mkdir("go-test")
	if err != nil {
		return tally{}, err
	}
	log, err := os.Create(filepath.Join(dir, "events.json"))
	if err != nil {
		return tally{}, err
	}
	defer log.Close() //nolint:errcheck // it is read below
	cmd := command(ctx, e.repo, more, "go", append([]string{"test", "-json"}, args...)...)
	var stderr strings.Builder
	cmd.Stdout, cmd.Stderr = log, &stderr
	runErr := cmd.Run()
	if _, err = log.Seek(0, io.SeekStart); err != nil {
		return tally{}, err
	}
	t, err := count(log)
	if runErr != nil && len(t.failed)+len(t.broken) == 0 {
		err = errors.Join(err, fmt.Errorf("go test %s: %w: %s", strings.Join(args, " "), runErr, tail(stderr.String(), 500)))
	}
	return t, err
}

func provePlanner(ctx context.Context, e *env) (string, error) {
	const checks = "3000"
	pure := []string{"TestAnyHistoryConverges", "TestEveryCrashPoint", "TestRollingChange"}
	began := time.Now()
	model, err := e.goTest(ctx, nil, "./fleet", "-run", strings.Join(pure, "|"), "-count=1", "-rapid.checks="+checks, "-timeout=15m")
	if err == nil {
		err = model.judge(len(pure), false, pure...)
	}
	took := time.Since(began)
	if err != nil {
		return "", err
	}
	real, err := e.goTest(ctx, nil, "./test/e2e", "-run", "TestPlannerOnRealEtcd", "-count=1", "-timeout=15m")
	if err == nil {
		err = real.judge(1, false, "TestPlannerOnRealEtcd")
	}
	return fmt.Sprintf("%s: %d tests with %s random histories each passed in %.0f s; on real etcd with observations delayed and reordered: %d passed",
		strings.Join(pure, ", "), len(model.passed), checks, took.Seconds(), len(real.passed)), err
}

func proveBadInput(ctx context.Context, e *env) (string, error) {
	t, err := e.goTest(ctx, nil, "./test/scripts", "-count=1", "-timeout=15m")
	if err == nil {
		scripts, _ := filepath.Glob(filepath.Join(e.repo, "test", "scripts", "*.txtar")) // the pattern is right
		err = errors.Join(t.judge(len(scripts), false), judgeScripts(scripts, t))
	}
	return fmt.Sprintf("%d scripts and tests passed, %d failed, %d skipped", len(t.passed), len(t.failed), len(t.skipped)), err
}

// judgeScripts wants every script to have passed.
func judgeScripts(scripts []string, t tally) error {
	if len(scripts) == 0 {
		return errors.New("there is no script")
	}
	var errs []error
	for _, s := range scripts {
		name := strings.TrimSuffix(filepath.Base(s), ".txtar")
		if !slices.ContainsFunc(t.passed, func(p string) bool { return strings.HasSuffix(p, "/"+name) }) {
			errs = append(errs, fmt.Errorf("script %s did not pass", name))
		}
	}
	return errors.Join(errs...)
}

func proveRace(ctx context.Context, e *env) (string, error) {
	began := time.Now()
	t, err := e.goTest(ctx, []string{"CGO_ENABLED=1"}, "-race", "-p=2", "-timeout=20m", "./...")
	if err == nil {
		err = t.judge(1, true)
	}
	text := fmt.Sprintf("go test -race ./...: %d passed, %d failed, %d skipped in %.0f s", len(t.passed), len(t.failed), len(t.skipped), time.Since(began).Seconds())
	if len(t.skipped) > 0 {
		text += " (skipped: " + strings.Join(t.skipped, ", ") + ")"
	}
	return text, err
}

func proveCheck(ctx context.Context, e *env) (string, error) {
	caches, args, more := "with warm caches", []string{"check"}, []string(nil)
	if os.Getenv("COLD") != "" {
		cache, err := e.mkdir("gocache")
		if err != nil {
			return "", err
		}
		tools, err := e.mkdir("tools")
		if err != nil {
			return "", err
		}
		lint, err := e.mkdir("lintcache")
		if err != nil {
			return "", err
		}
		caches = "without any cache of builds, tools or lint"
		args, more = append(args, "TOOLS="+tools), []string{"GOCACHE=" + cache, "GOLANGCI_LINT_CACHE=" + lint}
	}
	began := time.Now()
	out, err := output(command(ctx, e.repo, more, "make", args...))
	took := time.Since(began)
	return fmt.Sprintf("make check took %.1f min %s (limit %.0f); it ended with %q", took.Minutes(), caches, checkLimit.Minutes(), lastLine(out)),
		errors.Join(err, atMost("make check", took, checkLimit))
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndex(text, "\n")+1:]
}
