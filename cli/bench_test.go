package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/bench"
)

// TestBenchFlags: what can't be done is refused before anything is done, with the
// reason.
func TestBenchFlags(t *testing.T) {
	const at = "bench --endpoints http://127.0.0.1:1 "
	for args, want := range map[string]string{
		"bench":                                    "--endpoints is missing: name a client URL",
		"bench run":                                `there is no command "quorate bench run"`,
		"bench -c a --user b":                      "-c takes certificates and user from the server",
		at + "--cert x":                            "--cert and --key belong together",
		at + "--workload putt":                     `--workload is "putt": use one of put, range`,
		at + "--mix put=x":                         `the weight of put is "x"`,
		at + "--mix push=1":                        `there is no operation "push"`,
		at + "--mix put=1,put=2":                   "put stands twice in the mix",
		at + "--mix a --workload b":                "--mix and --workload say the same",
		at + "--rate 0":                            "an open loop has a rate, and it is 0",
		at + "--rate -5":                           "an open loop has a rate, and it is -5",
		at + "--rate x":                            `--rate is "x": give a number`,
		at + "--arrivals poisson":                  "--arrivals belongs to an open loop",
		at + "--max-in-flight 5":                   "--max-in-flight belongs to an open loop",
		at + "--rate 5 --arrivals sometimes":       `arrivals are "sometimes"`,
		at + "--clients 0":                         "--clients is 0: give more than 0",
		at + "--clients -1":                        "--clients is -1: give more than 0",
		at + "--clients x":                         `--clients is "x": give a whole number`,
		at + "--clients 300000":                    "300000 clients: give 1 to 200000",
		at + "--namespaces 100000":                 "100000 namespaces",
		at + "--connections 1000000":               "1000000 connections",
		at + "--duration 0s":                       "--duration is 0s: give more than 0",
		at + "--duration x":                        `--duration is "x": give a duration such as 30s`,
		at + "--total 0":                           "--total is 0: give more than 0",
		at + "--ramp -1s":                          "a duration or a total is negative",
		at + "--request-timeout 1h":                "the timeout is 1h0m0s: give 1ms to 1m",
		at + "--keys 0":                            "--keys is 0",
		at + "--key-size 5":                        "a key of 5 bytes: give",
		at + "--key-size x":                        `the size is "x": write such as 256`,
		at + "--value-size 2M":                     "a value of 2097152 bytes",
		at + "--value-size 9-3":                    `the size is "9-3"`,
		at + "--skew zipf:1":                       "the exponent of zipf is 1",
		at + "--skew warm":                         `the skew is "warm"`,
		at + "--seed x":                            `--seed is "x": give a whole number of 0 or more`,
		at + "--prefix /":                          `the prefix is "/": name one`,
		at + "--prefix /a":                         "end it with /",
		at + "--txn-ops 500":                       "etcd takes 1 to 128",
		at + "--workload range --range-keys 99999": "a range reads 99999 keys of 10000",
		at + "--watchers -1":                       "watchers: give at most",
		at + "--watch-scope all":                   `the scope of watchers is "all"`,
		at + "--lease-ttl 1":                       "a lease of 1 seconds",
		at + "--slice 1ms":                         "a slice of 1ms",
		at + "-o xml":                              `--output is "xml"`,
		at + "--p99 5ms":                           "belong to --find-max",
		at + "--find-max --rate 5":                 "--find-max chooses rates and times itself",
		at + "--find-max --p99 0s":                 "--p99 0s",
		at + "--find-max --errors many":            `--errors is "many": give a share such as 0.1%`,
		at + "--find-max --from a":                 "--find-max drives the load from here",
		at + "--user root":                         "put it into QUORATE_ETCD_PASSWORD",
		"bench --endpoints ftp://a":                "give a client URL such as https://10.0.0.1:2379",
		"bench --endpoints http://10.255.255.1:1":  "this needs a confirmation, and the input is no terminal: give --yes",
		"bench matrix":                             "--endpoints is missing",
		"bench matrix --endpoints a --cells 3":     `the matrix holds "3": write namespaces x clients`,
		"bench matrix --endpoints a --scale 0":     "--scale is 0: give 1, or what the clients are divided by",
		"bench matrix --endpoints a --clients 5":   "unknown flag: --clients",
		at + "--rate NaN":                          "and it is NaN a second",
		at + "--mix put=NaN":                       `the weight of put is "NaN"`,
		at + "--value-size lognormal:9:NaN":        `the size is "lognormal:9:NaN"`,
		at + "--request-timeout 0s":                "--request-timeout is 0s: give more than 0",
		at + "--lease-ttl 0":                       "--lease-ttl is 0: give more than 0",
		at + "--key-size 0":                        "a key of 0 bytes",
		at + "--arrivals= --rate 5":                "--arrivals is empty",
		at + "--from=":                             "--from names no host, or an empty one",
		at + "--from a,,b":                         "--from names no host, or an empty one",
		at + "--prefix /quorate-bench/":            "which all runs share",
		at + "--save x --html ./x":                 "--save and --html name the same file",
		at + "--find-max --errors NaN":             `--errors is "NaN"`,
		at + "--find-max --first-rate NaN":         "--first-rate NaN",
		at + "--find-max --p99 30s":                "--p99 30s can't be passed where --request-timeout is 7s",
		"bench --endpoints http://a:b@127.0.0.1:1": "a user stands in the URL: log in with --user",
		"bench matrix --endpoints 127.0.0.1 --cells 99999x9 --dry-run":     "99999x9: ",
		"bench matrix --endpoints 127.0.0.1 --keep --prefix /x/ --dry-run": "in the way of the second",
		"bench clean":                           "--endpoints is missing",
		"bench clean -c a --user b":             "-c takes certificates and user from the server",
		"bench clean --endpoints a --quiet 1ms": "--quiet is 1ms: give 1s to",
		"bench clean --endpoints a -o csv":      `--output is "csv"`,
		"bench compare a b --fail-over NaN":     `--fail-over is "NaN"`,
		"bench compare":                         "BASE.json NOW.json is missing",
		"bench compare a b --fail-over much":    `--fail-over is "much": give a share such as 10%`,
		"bench compare a b -o csv":              `--output is "csv"`,
	} {
		code, stdout, stderr := run(t, strings.Fields(args)...)
		if code != exitUsage || !strings.Contains(stderr, want) || stdout != "" {
			t.Errorf("%s: exit code %d, %q %q, want %q", args, code, stdout, stderr, want)
		}
	}
	if code, _, stderr := run(t, "bench", "--endpoints", "http://127.0.0.1:1"); code != exitUnreachable || !strings.Contains(stderr, "no endpoint can be used") || !strings.Contains(stderr, "nothing listens there") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	if code, _, stderr := run(t, "bench", "--endpoints", "http://127.0.0.1:1", "--html", "/does/not/exist/x"); code != exitFailed || !strings.Contains(stderr, "write the report") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}

// TestBenchLeavesNoFile: a load that does not run leaves no empty report behind, and
// what was there stays as it was.
func TestBenchLeavesNoFile(t *testing.T) {
	dir := t.TempDir()
	old, fresh := filepath.Join(dir, "old.json"), filepath.Join(dir, "new.json")
	if err := os.WriteFile(old, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := run(t, "bench", "--endpoints", "http://127.0.0.1:1", "--save", fresh, "--html", old); code != exitUnreachable {
		t.Errorf("%d %s", code, stderr)
	}
	raw, err := os.ReadFile(old)
	if err != nil || string(raw) != "old" {
		t.Errorf("%q, %v", raw, err)
	}
	if _, err = os.Stat(fresh); !os.IsNotExist(err) {
		t.Errorf("an empty report: %v", err)
	}
}

// TestBenchFiles: a file that can't be written keeps none of the others back.
func TestBenchFiles(t *testing.T) {
	good := filepath.Join(t.TempDir(), "good.html")
	o := &benchOptions{save: filepath.Join(t.TempDir(), "gone", "x.json"), html: good}
	err := quiet().benchFiles(o, 1, &bench.Result{}, func(w io.Writer) error {
		_, err := io.WriteString(w, "page")
		return err
	})
	raw, readErr := os.ReadFile(good)
	if err == nil || readErr != nil || string(raw) != "page" {
		t.Errorf("%v; %q, %v", err, raw, readErr)
	}
}

// TestBenchLeft: what lies there is said, and what becomes of it; nobody's names
// steer the terminal.
func TestBenchLeft(t *testing.T) {
	var out bytes.Buffer
	e := newEnv([]string{"quorate"}, Stdio{In: eof{}, Out: &out, Err: &out})
	e.benchLeft([]bench.LeftRun{
		{Prefix: "/quorate-bench/00000001/", State: bench.Left, Keys: 5, Bytes: 2048, Others: 2, Leases: 1},
		{Prefix: "/quorate-bench/00000002/", State: bench.Running, Keys: 7, TTL: 30, By: "\x1b[31mhost"},
		{Prefix: "/quorate-bench/00000003/", State: bench.Running, Keys: 7},
		{Prefix: "/quorate-bench/00000004/", State: bench.Kept, Keys: 7},
		{Prefix: "/quorate-bench/x/", State: bench.Foreign, Others: 9},
	}, false, "would delete")
	for _, want := range []string{
		"would delete; 2 keys are of no load, and stay", "its mark lasts 30 s more", "stays: it goes on\n", "--kept deletes it", "stays: 9 keys are of no load", "would delete 5 keys of 1 load, 2.0 KiB",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Errorf("%q", out.String())
	}
	out.Reset()
	e.benchLeft([]bench.LeftRun{
		{Prefix: "/quorate-bench/00000001/", State: bench.Left, Keys: 1, Deleted: 1, Revoked: 1, Others: 1},
		{Prefix: "/quorate-bench/x/", State: bench.Foreign, Others: 1},
	}, false, "deleted")
	for _, want := range []string{"1 deleted, 1 lease revoked; 1 key is of no load, and stays\n", "stays: 1 key is of no load\n", "deleted 1 key of 1 load, 0 B\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// savedRun writes a result with slices of about that throughput.
func savedRun(t *testing.T, name string, level float64) string {
	t.Helper()
	r := &bench.Result{Format: bench.Format, Spec: bench.Default(), Seconds: 20}
	for i := range 20 {
		v := level * (1 + 0.001*float64(i%5))
		r.Series = append(r.Series, bench.Slice{At: float64(i + 1), Seconds: 1, Count: int64(v), OpsPerSecond: v, P50: 1, P99: 2, Max: 3})
	}
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err = os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBenchCompare(t *testing.T) {
	base, same, slow := savedRun(t, "base.json", 1000), savedRun(t, "same.json", 1000), savedRun(t, "slow.json", 700)
	code, stdout, _ := run(t, "bench", "compare", base, same, "--fail-over", "10%")
	if code != exitOK || !strings.Contains(stdout, "no significant change") || strings.Contains(stdout, "worse") {
		t.Errorf("the same: %d\n%s", code, stdout)
	}
	code, stdout, stderr := run(t, "bench", "compare", base, same, slow, "--fail-over", "10%")
	if code != exitDiffers || !strings.Contains(stdout, "-30.0 %") || !strings.Contains(stderr, "worse than --fail-over allows: throughput") {
		t.Errorf("slower: %d\n%s%s", code, stdout, stderr)
	}
	if code, _, _ = run(t, "bench", "compare", base, slow); code != exitOK {
		t.Errorf("without --fail-over: %d", code)
	}
	if code, _, _ = run(t, "bench", "compare", base, slow, "--fail-over", "0.5"); code != exitOK {
		t.Errorf("within --fail-over: %d", code)
	}
	code, stdout, _ = run(t, "bench", "compare", base, slow, "-o", "json")
	var got []bench.Comparison
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != exitOK || len(got) != 1 || !got[0].Metrics[0].Worse {
		t.Errorf("%d %v\n%s", code, err, stdout)
	}
	odd := filepath.Join(t.TempDir(), "odd.json")
	if err := os.WriteFile(odd, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	bare := filepath.Join(t.TempDir(), "bare.json")
	if err := os.WriteFile(bare, []byte(`{"format":1,"seconds":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	knee := filepath.Join(t.TempDir(), "knee.json")
	if err := os.WriteFile(knee, []byte(`{"rate":5,"steps":[{}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{bare: "has no time series", knee: "is of --find-max or a matrix", odd: "is no result of a load", "/does/not/exist": "read a result"} {
		if code, _, stderr = run(t, "bench", "compare", base, path); code != exitFailed || !strings.Contains(stderr, want) {
			t.Errorf("%s: %d %s", path, code, stderr)
		}
	}
}

func TestShare(t *testing.T) {
	for text, want := range map[string]float64{"0.1%": 0.001, "10%": 0.1, "0.5": 0.5, "0": 0} {
		if got, err := share(text); err != nil || got != want {
			t.Errorf("%q: got %g, %v", text, got, err)
		}
	}
	if _, err := share("x%"); err == nil {
		t.Error("x% is a share")
	}
}

// TestSign: passwords given as arguments are not in the report.
func TestSign(t *testing.T) {
	args := os.Args
	t.Cleanup(func() { os.Args = args })
	os.Args = []string{"/usr/bin/quorate", "bench", "--user", "root:secret", "--user=root:secret"}
	r := &bench.Result{}
	o := &benchOptions{name: "n"}
	o.user = "root:secret"
	quiet().sign(r, o)
	if got := strings.Join(r.Command, " "); !strings.HasSuffix(got, " bench --user root --user=root") || r.Name != "n" {
		t.Errorf("%q", got)
	}
}

func TestBenchSteps(t *testing.T) {
	var out bytes.Buffer
	e := newEnv([]string{"quorate"}, Stdio{In: eof{}, Out: &out, Err: &out})
	p := newProgress(e)
	for _, v := range []bench.Progress{
		{Phase: bench.PhaseConnect, Note: "x"},
		{Phase: bench.PhaseLoad, Of: 5},
		{Phase: bench.PhaseWarmUp, Of: 5},
		{Phase: bench.PhaseRamp, Of: 0.5},
		{Phase: bench.PhaseRun, Done: 2, Of: 10, Step: bench.Slice{OpsPerSecond: 123}},
		{Phase: bench.PhaseTry, Done: 77},
		{Phase: bench.PhaseStep, Note: "77 a second: kept"},
		{Phase: bench.PhaseCell, Done: 1, Of: 2, Note: "cell"},
		{Phase: bench.PhaseCleanup, Of: 5},
		{Phase: bench.PhaseNote, Note: "keys are left"},
	} {
		e.benchStep(p, v)
	}
	for _, want := range []string{"connecting to x", "writing the keys", "warm-up, 5 s", "2 of 10 s: 123 op/s", "trying 77", "kept", "load 1 of 2: cell", "deleting the keys", "note: keys are left\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "ramp") {
		t.Error("a ramp of half a second is told")
	}
}

// TestBenchWorkerRefuses: a worker says what is wrong as a line, too.
func TestBenchWorkerRefuses(t *testing.T) {
	for input, want := range map[string]string{"": "EOF", `{"odd":1}`: "unknown field", `{"loop":"open"}`: "no endpoint was given"} {
		var out, errs bytes.Buffer
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		code := Main(ctx, []string{"quorate", "bench", "worker"}, Stdio{In: strings.NewReader(input), Out: &out, Err: &errs})
		cancel()
		var line workerLine
		if err := json.Unmarshal(out.Bytes(), &line); err != nil || code == exitOK || !strings.Contains(line.Error, want) {
			t.Errorf("%q: %d %q %v", input, code, out.String(), err)
		}
	}
}

// TestCrewNotes: what all hosts note is shown once, and is no phase of theirs.
func TestCrewNotes(t *testing.T) {
	var shown []bench.Progress
	c := &crew{hosts: []string{"a", "b"}, latest: map[string]bench.Progress{}, show: func(p bench.Progress) { shown = append(shown, p) }}
	for _, host := range c.hosts {
		c.progress(host, bench.Progress{Phase: bench.PhaseRun, Step: bench.Slice{OpsPerSecond: 5}})
		c.progress(host, bench.Progress{Phase: bench.PhaseNote, Note: "keys are left"})
	}
	if len(shown) != 3 || shown[1].Note != "keys are left" || shown[2].Phase != bench.PhaseRun || shown[2].Step.OpsPerSecond != 10 {
		t.Errorf("%+v", shown)
	}
}
