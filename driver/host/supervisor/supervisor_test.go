package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/host/logfile"
	"github.com/quorate/quorate/internal/process"
)

func TestCrashDelay(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]time.Duration{
		0: 0, 1: 0, 2: time.Second, 3: 2 * time.Second, 4: 4 * time.Second, 6: 16 * time.Second, 7: 30 * time.Second, 1000: 30 * time.Second,
	} {
		if got := crashDelay(n); got != want {
			t.Errorf("after exit %d: %s, want %s", n, got, want)
		}
	}
}

func TestCrashLoopPhase(t *testing.T) {
	t.Parallel()
	s := &supervisor{log: slog.New(slog.DiscardHandler)}
	now := time.Now()
	for i, want := range []v1alpha1.MemberPhase{v1alpha1.MemberStarting, v1alpha1.MemberStarting, v1alpha1.MemberCrashLoop, v1alpha1.MemberCrashLoop} {
		s.crashed(now, &v1alpha1.ExitStatus{Code: 1, Message: "bind: address already in use"})
		if s.state.Phase != want || !strings.Contains(s.state.Message, "address already in use") {
			t.Errorf("exit %d: %s, %s", i+1, s.state.Phase, s.state.Message)
		}
	}
	// Running again, it is out of the loop only after a while.
	s.child = &child{Process: &Process{StartedAt: now, ConfigHash: "x"}}
	s.describe(now.Add(time.Second))
	if s.state.Phase != v1alpha1.MemberCrashLoop {
		t.Errorf("after a second: %s", s.state.Phase)
	}
	s.describe(now.Add(loopUp))
	if s.state.Phase != v1alpha1.MemberRunning {
		t.Errorf("after %s: %s", loopUp, s.state.Phase)
	}
}

func TestErrorLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := &Order{Logs: Logs{Etcd: filepath.Join(dir, "m.log"), Error: filepath.Join(dir, "m.error.log"), MaxSize: 1, MaxBackups: 1}}
	log := slog.New(slog.DiscardHandler)
	var at logfile.Cursor
	poll := func(e *errorLog) { e.poll(t.Context(), log, o, &at) }
	add := func(text string) {
		t.Helper()
		f, err := os.OpenFile(o.Logs.Etcd, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close() //nolint:errcheck // checked by reading
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	e := &errorLog{}
	poll(e) // before there is a log
	add(`{"level":"info","msg":"says \"level\":\"error\" only"}` + "\n")
	add(`{"level":"error","msg":"one"}` + "\n" + `{"level":"fa`)
	poll(e)
	add(`tal","msg":"discovery failed","error":"listen tcp: bind: address already in use"}` + "\n")
	poll(e)
	if got := e.cause(exit{code: 1}, ""); got != "listen tcp: bind: address already in use" {
		t.Errorf("cause %q", got)
	}
	e.close()
	// The next supervisor resumes, and copies nothing twice, over a rotation too.
	if err := os.Rename(o.Logs.Etcd, filepath.Join(dir, "m-2026-01-01T00-00-00.000.log")); err != nil {
		t.Fatal(err)
	}
	add(`{"level":"warn","msg":"no"}` + "\n" + `{"level":"panic","msg":"last"}` + "\n")
	e = &errorLog{}
	poll(e)
	poll(e)
	e.close()
	got, err := os.ReadFile(o.Logs.Error)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"level":"error","msg":"one"}
{"level":"fatal","msg":"discovery failed","error":"listen tcp: bind: address already in use"}
{"level":"panic","msg":"last"}
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestErrorLogIsBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := &Order{Logs: Logs{Etcd: filepath.Join(dir, "m.log"), Error: filepath.Join(dir, "errors", "m.error.log"), MaxSize: 1, MaxBackups: 2}}
	line := fmt.Sprintf(`{"level":"error","msg":"%s"}`+"\n", strings.Repeat("e", 1000))
	if err := os.WriteFile(o.Logs.Etcd, []byte(strings.Repeat(line, 5000)), 0o600); err != nil {
		t.Fatal(err)
	}
	e, at := &errorLog{}, logfile.Cursor{}
	e.poll(t.Context(), slog.New(slog.DiscardHandler), o, &at)
	e.close()
	for deadline := time.Now().Add(10 * time.Second); ; {
		files, err := logfile.Files(o.Logs.Error)
		if err != nil {
			t.Fatal(err)
		}
		if len(files) == 3 {
			break // the current one and two backups; lumberjack removes the rest behind us
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d files: %v", len(files), files)
		}
	}
}

func TestCause(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stderr       string
		fatal, worst string
		exit         exit
		why          string
		want         string
	}{
		"by us":        {exit: exit{signal: "terminated"}, why: "stop", worst: "x", want: "it was stopped: stop"},
		"panic":        {stderr: "{}\npanic: tocommit(118) is out of range\n\ngoroutine 1\n", fatal: "f", exit: exit{code: 2}, want: "panic: tocommit(118) is out of range"},
		"fatal":        {fatal: "f", worst: "w", exit: exit{code: 1}, want: "f"},
		"killed":       {worst: "w", exit: exit{code: -1, signal: "killed"}, want: "it was killed from outside"},
		"error":        {worst: "w", exit: exit{code: 1}, want: "w"},
		"flag":         {stderr: "flag provided but not defined: -x\n", exit: exit{code: 2}, want: "flag provided but not defined: -x"},
		"silent":       {exit: exit{code: 1}, want: "m.stderr.log"},
		"without sign": {exit: exit{code: 0}, worst: "w", want: "without an error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "m.stderr.log")
			before := "panic: of an earlier etcd\n"
			if err := os.WriteFile(path, []byte(before+c.stderr), 0o600); err != nil {
				t.Fatal(err)
			}
			e := &errorLog{fatal: c.fatal, worst: c.worst, stderr: path, stderrFrom: int64(len(before)), logs: Logs{Etcd: "m.log", Stderr: path}}
			if got := e.cause(c.exit, c.why); !strings.Contains(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestRotatePlain(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s.log")
	for i := range 5 {
		if err := os.WriteFile(path, fmt.Appendf(nil, "file %d", i), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := RotatePlain(path, 3, 2); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{path + ".1": "file 4", path + ".2": "file 3"} {
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := os.Stat(path + ".3"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a third is kept: %v", err)
	}
	if err := RotatePlain(path, 3, 2); err != nil {
		t.Errorf("rotating what is not there: %v", err)
	}
}

func TestLockIsHeldByOne(t *testing.T) {
	t.Parallel()
	h := Home(t.TempDir())
	if held, err := h.Held(); held || err != nil {
		t.Fatalf("held before: %v, %v", held, err)
	}
	l, err := h.TryLock()
	if err != nil {
		t.Fatal(err)
	}
	if held, err := h.Held(); !held || err != nil {
		t.Errorf("held: %v, %v", held, err)
	}
	if _, err := h.TryLock(); !errors.Is(err, ErrHeld) {
		t.Errorf("second lock: %v", err)
	}
	if err := Run(t.Context(), string(h), slog.New(slog.DiscardHandler)); !errors.Is(err, ErrHeld) {
		t.Errorf("second supervisor: %v", err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if held, err := h.Held(); held || err != nil {
		t.Errorf("held after: %v, %v", held, err)
	}
}

func TestFilesHalfWritten(t *testing.T) {
	t.Parallel()
	h := Home(t.TempDir())
	for _, text := range []string{"", "{", `{"phase":""}`, `[]`, "\x00\x00"} {
		if err := os.WriteFile(h.StateFile(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := h.ReadState(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("state %q: %+v, %v", text, s, err)
		}
		if err := os.WriteFile(h.OrderFile(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if o, err := h.ReadOrder(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("order %q: %+v, %v", text, o, err)
		}
	}
	if _, err := h.WriteOrder(&Order{Name: "m", UID: "u", DataDir: "/d", Run: v1alpha1.RunRunning}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("an order to run nothing: %v", err)
	}
	o := &Order{Name: "m", UID: "u", DataDir: "/d", Run: v1alpha1.RunStopped}
	for i, want := range []bool{true, false} {
		if changed, err := h.WriteOrder(o); err != nil || changed != want {
			t.Errorf("write %d: %v, %v", i, changed, err)
		}
	}
}

func TestScanIsNotFooled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		want bool
	}{
		"equals":      {[]string{"--name=a", "--data-dir=/q/d"}, true},
		"two words":   {[]string{"--data-dir", "/q/d"}, true},
		"longer":      {[]string{"--data-dir=/q/d2"}, false},
		"other flag":  {[]string{"--wal-dir=/q/d"}, false},
		"within text": {[]string{"x--data-dir=/q/d"}, false},
		"nothing":     {nil, false},
	} {
		if got := hasDataDir(c.args, "/q/d"); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if _, ok, err := Scan("/nowhere/" + t.Name()); ok || err != nil {
		t.Errorf("found: %v, %v", ok, err)
	}
}

func TestFoundAsProcess(t *testing.T) {
	t.Parallel()
	f := Found{ID: process.ID{PID: 5, BootID: "now"}, Executable: "/e", Args: []string{"a"}}
	o := &Order{Executable: "/e", Args: []string{"a"}, ConfigHash: "ordered", Digest: "d"}
	intent := &Intent{BootID: "now", ConfigHash: "intended"}
	for name, c := range map[string]struct {
		order  *Order
		intent *Intent
		want   string
	}{
		"as ordered":      {o, intent, "ordered"},
		"order changed":   {&Order{Executable: "/e", Args: []string{"b"}, ConfigHash: "new"}, intent, "intended"},
		"nothing known":   {&Order{Executable: "/f", Args: []string{"a"}, ConfigHash: "new"}, nil, ""},
		"of another boot": {nil, &Intent{BootID: "then", ConfigHash: "old"}, ""},
	} {
		if got := f.asProcess(c.order, c.intent); got.ConfigHash != c.want || !got.Adopted {
			t.Errorf("%s: %+v, want %q", name, got, c.want)
		}
	}
}

func TestStartTimeOfThisProcess(t *testing.T) {
	t.Parallel()
	id, err := process.Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if age := time.Since(startTime(id)); age < -5*time.Second || age > time.Hour {
		t.Errorf("this process would have begun %s ago", age)
	}
}

// TestRunWithoutAnythingToDo: an order to stop ends the supervisor with a proof.
func TestRunWithoutAnythingToDo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prepare func(t *testing.T, h Home)
		want    string
	}{
		"never started": {func(*testing.T, Home) {}, EvidenceNeverStarted},
		"earlier boot": {func(t *testing.T, h Home) {
			t.Helper()
			s := &State{Phase: v1alpha1.MemberRunning, Process: &Process{ID: process.ID{PID: os.Getpid(), StartTicks: 1, BootID: "earlier"}}}
			if err := writeJSON(h.StateFile(), s); err != nil {
				t.Fatal(err)
			}
		}, "earlier boot"},
		"died unseen": {func(t *testing.T, h Home) {
			t.Helper()
			boot, err := process.BootID()
			if err != nil {
				t.Fatal(err)
			}
			s := &State{Phase: v1alpha1.MemberRunning, Process: &Process{ID: process.ID{PID: os.Getpid(), StartTicks: 1, BootID: boot}}}
			if err := writeJSON(h.StateFile(), s); err != nil {
				t.Fatal(err)
			}
		}, "ended while no supervisor watched"},
		"state lost": {func(t *testing.T, h Home) {
			t.Helper()
			if err := os.WriteFile(h.StateFile(), []byte("{half"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, EvidenceNeverStarted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := Home(t.TempDir())
			o := &Order{Namespace: "n", Name: "m", UID: "uid", Run: v1alpha1.RunStopped, DataDir: h.DataDir()}
			if _, err := h.WriteOrder(o); err != nil {
				t.Fatal(err)
			}
			c.prepare(t, h)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := Run(ctx, string(h), slog.New(slog.DiscardHandler)); err != nil {
				t.Fatal(err)
			}
			s, err := h.ReadState()
			if err != nil || s.Phase != v1alpha1.MemberStopped || s.StopProof == nil || !strings.Contains(s.StopProof.Evidence, c.want) {
				t.Errorf("state %+v, proof %+v, %v; want %q", s, s.StopProof, err, c.want)
			}
		})
	}
}
