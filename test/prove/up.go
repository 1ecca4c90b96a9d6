package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/quorate/quorate/internal/process"
)

// up is a `quorate up` in the foreground of a terminal that no one looks at.
type up struct {
	e *env
	// bin as it is called, and the directory it is called in.
	bin, cwd string
	// dir is its data directory.
	dir string

	cmd   *exec.Cmd
	began time.Time
	done  chan struct{}
	err   error

	mu  sync.Mutex
	out bytes.Buffer
	// healthy is when the line came that says so.
	healthy time.Time
	// told is closed once the lines to copy have come as well.
	told chan struct{}
}

// how an `up` is started.
type how struct {
	// bin as it is to be called in cwd; by default a copy of the built one.
	bin, cwd string
	// dir is the data directory; empty leaves --data-dir out.
	dir string
	// command replaces bin up --data-dir dir.
	command []string
	// env adds to the environment.
	env []string
}

// start starts an `up` and does not wait for it. The end of ctx does not end it.
func (e *env) start(ctx context.Context, h how) (*up, error) {
	args := h.command
	if len(args) == 0 {
		args = []string{h.bin, "up"}
		if h.dir != "" {
			args = append(args, "--data-dir", h.dir)
		}
	}
	u := &up{e: e, bin: h.bin, cwd: h.cwd, dir: h.dir, done: make(chan struct{}), told: make(chan struct{})}
	// It ends by signals, and not with ctx, which would kill it.
	u.cmd = command(context.WithoutCancel(ctx), h.cwd, h.env, args[0], args[1:]...)
	u.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	u.cmd.Stdout, u.cmd.Stderr = u, u
	u.began = time.Now()
	if err := u.cmd.Start(); err != nil {
		return nil, err
	}
	e.ups = append(e.ups, u)
	go func() {
		u.err = u.cmd.Wait()
		close(u.done)
	}()
	return u, nil
}

// up starts an `up` and waits until it is healthy.
func (e *env) up(ctx context.Context, h how) (*up, error) {
	u, err := e.start(ctx, h)
	if err != nil {
		return nil, err
	}
	return u, u.ready(ctx)
}

// fresh installs a copy of the binary and brings up a cluster with it.
func (e *env) fresh(ctx context.Context) (*up, error) {
	bin, err := e.install()
	if err != nil {
		return nil, err
	}
	return e.up(ctx, how{bin: bin, cwd: e.dir, dir: filepath.Join(e.dir, "data")})
}

// again starts another `up` on the same directory, without waiting for it.
func (u *up) again(ctx context.Context) (*up, error) {
	return u.e.start(ctx, how{bin: u.bin, cwd: u.cwd, dir: u.dir})
}

// Write takes what it prints.
func (u *up) Write(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.out.Write(p)
	text := u.out.String()
	if u.healthy.IsZero() && strings.Contains(text, "is healthy: ") {
		u.healthy = time.Now()
	}
	if _, last, ok := strings.Cut(text, "\n  Stop "); ok && strings.Contains(last, "\n") {
		select {
		case <-u.told:
		default:
			close(u.told)
		}
	}
	return len(p), nil
}

// text is what it has printed so far.
func (u *up) text() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.out.String()
}

// ready waits until it has said that all is healthy and what to copy.
func (u *up) ready(ctx context.Context) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-u.told:
		return nil
	case <-u.done:
		return fmt.Errorf("`up` ended before it was healthy: %w: %s", errors.Join(u.err, errEnded), tail(u.text(), 1500))
	case <-ctx.Done():
		return fmt.Errorf("`up` is not healthy: %w: %s", ctx.Err(), tail(u.text(), 1500))
	case <-timer.C:
		return fmt.Errorf("`up` is not healthy after %s: %s", patience, tail(u.text(), 1500))
	}
}

var errEnded = errors.New("ended")

// took is the time from its start until it said that all is healthy.
func (u *up) took() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.healthy.Sub(u.began)
}

// lines are those it printed to copy.
func (u *up) lines() []copyLine { return copyLines(u.text()) }

// copyLine is a line to copy, and the word before it that says what it is for.
type copyLine struct{ word, text string }

// copyWords are the words in their order.
var copyWords = []string{"Console", "Try", "Break it", "Yours", "Stop"}

// copyLines finds the lines below the table, from the first of the words to the
// last. A line without a word belongs to the one above.
func copyLines(text string) []copyLine {
	var lines []copyLine
	for printed := range strings.Lines(text) {
		line, indented := strings.CutPrefix(strings.TrimRight(printed, "\n"), "  ")
		if !indented || line == "" {
			continue
		}
		word := ""
		for _, w := range copyWords {
			if strings.HasPrefix(line, w+" ") {
				word = w
			}
		}
		if word == "" && (len(lines) == 0 || !strings.HasPrefix(line, "  ")) {
			continue // no line of these
		}
		rest := strings.TrimSpace(strings.TrimPrefix(line, word))
		if word == "" {
			word = lines[len(lines)-1].word
		}
		lines = append(lines, copyLine{word, rest})
		if word == copyWords[len(copyWords)-1] {
			break
		}
	}
	return lines
}

// ctrlC is what a terminal does to the processes in its foreground, and waits until
// they have ended.
func (u *up) ctrlC(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	if err := syscall.Kill(-u.cmd.Process.Pid, syscall.SIGINT); err != nil {
		return 0, fmt.Errorf("Ctrl-C: %w", err)
	}
	select {
	case <-u.done:
		return time.Since(began), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("`up` does not end after Ctrl-C: %w: %s", ctx.Err(), tail(u.text(), 800))
	}
}

// kill kills it and what it runs in the foreground; its members run on.
func (u *up) kill() {
	select {
	case <-u.done:
		return
	default:
	}
	_ = syscall.Kill(-u.cmd.Process.Pid, syscall.SIGKILL) // its group is gone already, or is its own
	<-u.done
}

// pid of the process itself.
func (u *up) pid() int64 { return int64(u.cmd.Process.Pid) }

// quorate runs a command of the binary against this `up`, as a person would.
func (u *up) quorate(ctx context.Context, args ...string) (string, error) {
	return output(command(ctx, u.cwd, []string{"QUORATE_DATA_DIR=" + u.dir}, u.bin, args...))
}

// gone reports what is left of it after it was stopped.
func (u *up) gone() error {
	left, err := below(u.dir)
	if err != nil {
		return err
	}
	return judgeLeft(left)
}

// alive reports whether the very process lives that was identified before.
func alive(ids []process.ID) int {
	n := 0
	for _, id := range ids {
		if id.Alive() {
			n++
		}
	}
	return n
}
