package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// freshRuns on data directories of their own, beside that of `make up`.
const (
	freshRuns  = 3
	freshLimit = 5 * time.Second
)

// clone makes a clean clone of what is committed.
func (e *env) clone(ctx context.Context) (dir, note string, err error) {
	changed, err := e.sh(ctx, e.repo, "git status --porcelain | wc -l")
	if err != nil {
		return "", "", err
	}
	commit, err := e.sh(ctx, e.repo, "git rev-parse --short HEAD")
	if err != nil {
		return "", "", err
	}
	note = "commit " + strings.TrimSpace(commit)
	if n := strings.TrimSpace(changed); n != "0" {
		note += " (" + n + " uncommitted changes are not covered)"
	}
	if dir, err = e.mkdir("."); err != nil {
		return "", "", err
	}
	dir = filepath.Join(dir, "clone")
	_, err = output(command(ctx, e.dir, nil, "git", "clone", "-q", e.repo, dir))
	return dir, note, err
}

func proveClone(ctx context.Context, e *env) (string, error) {
	dir, note, err := e.clone(ctx)
	if err != nil {
		return "", err
	}
	began := time.Now()
	if _, err = output(command(ctx, dir, nil, "make", "build")); err != nil {
		return "", err
	}
	built := time.Since(began)
	took := make([]time.Duration, 0, freshRuns)
	for n := range freshRuns {
		var one time.Duration
		if one, err = e.freshIn(ctx, dir, filepath.Join(e.dir, fmt.Sprint("fresh-", n))); err != nil {
			return "", err
		}
		took = append(took, one)
	}
	made, err := e.makeUp(ctx, dir)
	if err != nil {
		return "", err
	}
	left, err := e.ephemeral(ctx, dir)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s; make build %.0f s; healthy table %.1f s after the start, median of %s (limit %.0f s); %s; %s", note, built.Seconds(),
			median(took).Seconds(), list(took), freshLimit.Seconds(), made, left),
		atMost("the time to the healthy table", median(took), freshLimit)
}

// freshIn runs one on a new data directory until it is healthy, and returns how long
// that took.
func (e *env) freshIn(ctx context.Context, clone, data string) (time.Duration, error) {
	u, err := e.up(ctx, how{bin: "bin/quorate", cwd: clone, dir: data})
	if err != nil {
		return 0, err
	}
	if _, err := u.ctrlC(ctx); err != nil {
		return 0, err
	}
	return u.took(), u.gone()
}

func list(all []time.Duration) string {
	texts := make([]string, 0, len(all))
	for _, d := range all {
		texts = append(texts, fmt.Sprintf("%.1f", d.Seconds()))
	}
	return strings.Join(texts, ", ")
}

// makeUp does what a person does: `make up`, copy the lines, Ctrl-C, and again.
func (e *env) makeUp(ctx context.Context, dir string) (string, error) {
	data := filepath.Join(e.dir, "made")
	h := how{bin: "bin/quorate", cwd: dir, dir: data, command: []string{"make", "up", "ARGS=--data-dir " + data}}
	u, err := e.up(ctx, h)
	if err != nil {
		return "", err
	}
	// The binary may have been built anew: its own time counts.
	since, err := u.sinceExec()
	if err != nil {
		return "", err
	}
	lines := u.lines()
	get := slices.IndexFunc(lines, func(l copyLine) bool { return strings.HasSuffix(l.text, " get hello") })
	if len(lines) < len(copyWords) || get < 0 {
		return "", fmt.Errorf("only %d lines to copy are printed: %s", len(lines), tail(u.text(), 800))
	}
	if err = e.copied(ctx, dir, lines); err != nil {
		return "", err
	}
	stopped, err := u.ctrlC(ctx)
	if err != nil {
		return "", err
	}
	if err = u.gone(); err != nil {
		return "", fmt.Errorf("after Ctrl-C: %w", err)
	}
	second, err := e.up(ctx, h)
	if err != nil {
		return "", err
	}
	out, err := e.sh(ctx, dir, lines[get].text)
	if err != nil {
		return "", err
	}
	if err := contains("the second `up`: "+lines[get].text, out, "world"); err != nil {
		return "", err
	}
	if _, err := second.ctrlC(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("make up: healthy %.1f s after the binary started; %d printed lines ran as they stand; Ctrl-C left no process after %.1f s; the second `up` has the key",
			since.Seconds(), len(lines), stopped.Seconds()),
		errors.Join(second.gone(), atMost("the time to the healthy table of `make up`", since, freshLimit))
}

// copied runs the printed lines as they stand. What stands for a cluster that the
// reader has, and what stops this one, is not run; a link is opened.
func (e *env) copied(ctx context.Context, dir string, lines []copyLine, more ...string) error {
	for _, line := range lines {
		var out string
		var err error
		switch line.word {
		case "Console":
			err = opens(ctx, strings.Fields(line.text)[0])
		case "Break it":
			err = e.heals(ctx, dir, line.text, more...)
		case "Try":
			out, err = e.sh(ctx, dir, line.text, more...)
		}
		if err != nil {
			return fmt.Errorf("the printed line %q does not work: %w", line.text, err)
		}
		if !strings.HasSuffix(line.text, " get hello") {
			continue
		}
		if err := contains(line.text, out, "world"); err != nil {
			return err
		}
	}
	return nil
}

// opens asks for a page as a browser does.
func opens(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	if err = resp.Body.Close(); err != nil || resp.StatusCode < http.StatusBadRequest {
		return err
	}
	return fmt.Errorf("it answers %s", resp.Status)
}

// heals runs a line that breaks something and then watches, until what it prints says
// that all is healthy.
func (e *env) heals(ctx context.Context, dir, line string, more ...string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := command(ctx, dir, more, "sh", "-c", line)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	healthy := false
	for in := bufio.NewScanner(out); !healthy && in.Scan(); {
		healthy = strings.HasSuffix(in.Text(), " is healthy")
	}
	cancel()
	_ = cmd.Wait() // it was ended by the signal
	if !healthy {
		return errors.New("what it watches does not become healthy")
	}
	return nil
}

// sinceExec is the time from the start of Quorate's own process, below make, until it
// said that all is healthy.
func (u *up) sinceExec() (time.Duration, error) {
	procs, err := below(u.dir)
	if err != nil {
		return 0, err
	}
	for _, p := range procs {
		if filepath.Base(p.exe) != "quorate" || len(p.args) < 2 || p.args[1] != "up" {
			continue
		}
		age, err := p.age()
		if err != nil {
			return 0, err
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		return age - time.Since(u.healthy), nil
	}
	return 0, errors.New("no process of `up` was found below make")
}

// ephemeral runs one that keeps nothing, and looks for what it kept.
func (e *env) ephemeral(ctx context.Context, dir string) (string, error) {
	tmp, err := e.mkdir("tmp")
	if err != nil {
		return "", err
	}
	home, err := e.mkdir("home")
	if err != nil {
		return "", err
	}
	before, err := e.sh(ctx, dir, "git status --porcelain --ignored")
	if err != nil {
		return "", err
	}
	u, err := e.up(ctx, how{
		bin: "bin/quorate", cwd: dir, dir: tmp, command: []string{"bin/quorate", "up", "--ephemeral"},
		env: []string{"TMPDIR=" + tmp, "HOME=" + home, "XDG_DATA_HOME=" + home},
	})
	if err != nil {
		return "", err
	}
	used, err := entries(tmp)
	if err != nil {
		return "", err
	}
	if err = e.copied(ctx, dir, u.lines(), "TMPDIR="+tmp, "HOME="+home); err != nil {
		return "", err
	}
	if _, err = u.ctrlC(ctx); err != nil {
		return "", err
	}
	after, err := e.sh(ctx, dir, "git status --porcelain --ignored")
	if err != nil {
		return "", err
	}
	inTmp, err := entries(tmp)
	if err != nil {
		return "", err
	}
	inHome, err := entries(home)
	if err != nil {
		return "", err
	}
	return "--ephemeral left no file and no process", errors.Join(u.gone(), judgeEphemeral(used, append(inTmp, inHome...), before, after))
}

// judgeEphemeral: it must have used the temporary directory, and left nothing there
// nor in the checkout.
func judgeEphemeral(used, left []string, before, after string) error {
	var errs []error
	if len(used) == 0 {
		errs = append(errs, errors.New("--ephemeral did not use TMPDIR, so nothing was shown"))
	}
	if len(left) > 0 {
		errs = append(errs, fmt.Errorf("--ephemeral left %s", strings.Join(left, ", ")))
	}
	if before != after {
		errs = append(errs, fmt.Errorf("--ephemeral changed the checkout from %q to %q", before, after))
	}
	return errors.Join(errs...)
}

func entries(dir string) ([]string, error) {
	found, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	list := make([]string, 0, len(found))
	for _, f := range found {
		list = append(list, filepath.Join(dir, f.Name()))
	}
	return list, nil
}
