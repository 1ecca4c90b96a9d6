// Package scripts_test runs the command line as a person does: each *.txtar file
// is a session in a directory of its own. The test binary is quorate there.
package scripts_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/cli"
)

// patience bounds what a script waits for.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	quorate := func() {
		os.Exit(cli.Main(context.Background(), os.Args, cli.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
	}
	// Quorate starts itself under these names, which are no commands of the scripts.
	if slices.Contains([]string{"etcd", "etcdctl", "etcdutl"}, filepath.Base(os.Args[0])) {
		quorate()
	}
	testscript.Main(m, map[string]func(){"quorate": quorate})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 ".",
		RequireExplicitExec: true,
		Setup:               setup,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": exits, "until": until, "offers": offers, "holdport": holdPort, "expand": expand,
			"lines": lines, "watches": watches, "tmpfs": tmpfs, "fill": fill, "noprocess": noProcess,
		},
		Condition: func(cond string) (bool, error) {
			if cond != "mounts" {
				return false, fmt.Errorf("there is no condition %q", cond)
			}
			return canMount(t), nil
		},
	})
}

func setup(env *testscript.Env) error {
	env.Setenv("QUORATE_DATA_DIR", filepath.Join(env.WorkDir, "data"))
	env.Setenv("NO_COLOR", "1")
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		return err
	}
	env.Setenv("EXAMPLES", examples)
	env.Defer(func() {
		for _, pid := range processes(env.WorkDir) {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended meanwhile
		}
	})
	return nil
}

// processes are those whose command line or working directory lies in dir, which
// belongs to one script alone.
func processes(dir string) []int {
	var found []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		environ, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if bytes.Contains(cmdline, []byte(dir+"/")) || bytes.Contains(environ, []byte("QUORATE_DATA_DIR="+dir+"/")) {
			found = append(found, pid)
		}
	}
	return found
}

// exits CODE COMMAND… runs a command, which must end with that code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d\nstdout: %s\nstderr: %s", got, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// until COMMAND… runs a command again until it succeeds.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: until COMMAND...")
	}
	poll(ts, func() error {
		if err := ts.Exec(args[0], args[1:]...); err != nil {
			return fmt.Errorf("%w\nstdout: %s\nstderr: %s", err, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
		}
		return nil
	})
}

// offers PATTERN WORD… presses the tab key after the words until a line that matches is
// offered: what does not come in time is left out, and a busy machine may take that long.
func offers(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: offers PATTERN WORD...")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	poll(ts, func() error {
		if err := ts.Exec("quorate", append([]string{"__complete"}, args[1:]...)...); err != nil {
			return fmt.Errorf("%w\nstderr: %s", err, ts.ReadFile("stderr"))
		}
		if out := ts.ReadFile("stdout"); !pattern.MatchString(out) {
			return fmt.Errorf("no line matches %s in what is offered:\n%s", args[0], out)
		}
		return nil
	})
}

func poll(ts *testscript.TestScript, try func() error) {
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("not within %s: %v", patience, err)
		}
		<-tick.C
	}
}

// holdport VARIABLE listens on a free port until the script ends.
func holdPort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: holdport VARIABLE")
	}
	ln, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { _ = ln.Close() }) // the end of the script is the end of its use
	_, port, err := net.SplitHostPort(ln.Addr().String())
	ts.Check(err)
	ts.Setenv(args[0], port)
}

// expand FILE replaces the variables in a file.
func expand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: expand FILE")
	}
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

// lines FILE runs each line of a file as a shell does, one after another.
func lines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: lines FILE")
	}
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		ts.Logf("> %s", line)
		if err := ts.Exec("sh", "-c", line); err != nil {
			ts.Fatalf("%s: %v\nstdout: %s\nstderr: %s", line, err, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
		}
	}
}

// watches FILE runs each line of a file that would go on for ever: it must print
// something, and end well when it is interrupted.
func watches(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: watches FILE")
	}
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		ts.Logf("> %s", line)
		if err := watchOnce(ts, line); err != nil {
			ts.Fatalf("%s: %v", line, err)
		}
	}
}

func watchOnce(ts *testscript.TestScript, line string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", "exec "+line)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "NO_COLOR", "QUORATE_DATA_DIR"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	first, readErr := bufio.NewReader(out).ReadString('\n')
	if readErr != nil {
		_ = cmd.Wait() // that it printed nothing says more
		return fmt.Errorf("it printed %q and ended: %w: %s", first, readErr, errs.String())
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("interrupted, it ends with %w: %s", err, errs.String())
	}
	return nil
}

// tmpfs DIRECTORY SIZE|ro mounts a small or read-only file system.
func tmpfs(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: tmpfs DIRECTORY SIZE|ro")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	if args[1] == "ro" {
		ts.Check(unix.Mount("quorate-test", dir, "tmpfs", unix.MS_RDONLY, ""))
	} else {
		ts.Check(unix.Mount("quorate-test", dir, "tmpfs", 0, "size="+args[1]))
	}
	ts.Defer(func() {
		for _, pid := range processes(ts.Getenv("WORK")) {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended meanwhile
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			ts.Logf("unmount %s: %v", dir, err)
		}
	})
}

// fill DIRECTORY MIB fills a file system but for so much.
func fill(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fill DIRECTORY MIB")
	}
	leave, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	dir := ts.MkAbs(args[0])
	var st unix.Statfs_t
	ts.Check(unix.Statfs(dir, &st))
	size := int64(st.Bavail)*st.Bsize - leave<<20
	f, err := os.Create(filepath.Join(dir, "ballast"))
	ts.Check(err)
	ts.Check(unix.Fallocate(int(f.Fd()), 0, 0, size))
	ts.Check(f.Close())
}

// noprocess checks that nothing that the script started runs any more.
func noProcess(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: noprocess")
	}
	poll(ts, func() error {
		if pids := processes(ts.Getenv("WORK")); len(pids) > 0 {
			return fmt.Errorf("these still run: %v", pids)
		}
		return nil
	})
}

// canMount reports whether tmpfs can be mounted here.
func canMount(t *testing.T) bool {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("quorate-test", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Logf("tmpfs can't be mounted: %v", err)
		return false
	}
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		t.Errorf("unmount %s: %v", dir, err)
	}
	return true
}
