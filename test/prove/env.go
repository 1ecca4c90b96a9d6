package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// env is where items run: a checkout, the binary built from it, and a directory of
// each item's own below the temporary one.
type env struct {
	// repo is the checkout.
	repo string
	// built is bin/quorate in it; items run copies.
	built string
	// root holds the items' directories.
	root string
	// dir is the item's.
	dir string
	out io.Writer
	// ups that the item has started.
	ups []*up
}

func newEnv(ctx context.Context, out io.Writer) (*env, error) {
	repo, err := exec.CommandContext(ctx, "git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		return nil, fmt.Errorf("find the checkout: %w", err)
	}
	e := &env{repo: strings.TrimSpace(string(repo)), out: out}
	e.built = filepath.Join(e.repo, "bin", "quorate")
	if _, err = os.Stat(e.built); err != nil {
		return nil, fmt.Errorf("%w: run `make build` first", err)
	}
	// Below /tmp or TMPDIR, with a short name: paths appear in sockets and lines.
	if e.root, err = os.MkdirTemp("", "prove-"); err != nil {
		return nil, err
	}
	e.root, err = filepath.EvalSymlinks(e.root)
	return e, err
}

// begin gives an item its directory.
func (e *env) begin(name string) *env {
	e.dir, e.ups = filepath.Join(e.root, name), nil
	return e
}

// mkdir makes a directory of the item.
func (e *env) mkdir(name string) (string, error) {
	dir := filepath.Join(e.dir, name)
	return dir, os.MkdirAll(dir, 0o700)
}

// endItem ends every process below the item's directory, whatever came of it, and
// also when ctx has ended.
func (e *env) endItem(ctx context.Context) error {
	for _, u := range e.ups {
		u.kill()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	return killBelow(ctx, e.dir)
}

// close removes everything, unless an item fell short and KEEP is set.
func (e *env) close(good bool) error {
	if !good && os.Getenv("KEEP") != "" {
		printf(e.out, "kept in %s\n", e.root)
		return nil
	}
	return os.RemoveAll(e.root)
}

// install copies the binary to a path of the item's own, where it can be replaced.
func (e *env) install() (string, error) {
	dir, err := e.mkdir("bin")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "quorate")
	return bin, copyFile(e.built, bin)
}

// newer builds a Quorate of another version and puts it in the place of bin, as an
// upgrade does.
func (e *env) newer(ctx context.Context, bin string) (string, error) {
	const name = "v0.1.1-newer"
	next := bin + ".next"
	_, err := e.sh(ctx, e.repo, "CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X github.com/quorate/quorate/internal/version.version="+name+"' -o "+next+" ./cmd/quorate")
	if err != nil {
		return "", err
	}
	return name, os.Rename(next, bin)
}

// sh runs a line as a person would type it in dir, and returns what it printed.
func (e *env) sh(ctx context.Context, dir, line string, more ...string) (string, error) {
	return output(command(ctx, dir, more, "sh", "-c", line))
}

// command is in an environment without Quorate's own variables.
func command(ctx context.Context, dir string, more []string, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "QUORATE_") && !strings.HasPrefix(v, "ETCDCTL_") && !strings.HasPrefix(v, "MAKE") && !strings.HasPrefix(v, "ONLY=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, more...)
	// What a killed command leaves behind must not hold up the pipes.
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// output runs cmd and returns its stdout; its error holds the rest.
func output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, tail(stdout.String()+stderr.String(), 1500))
	}
	return stdout.String(), nil
}

func tail(text string, n int) string {
	text = strings.TrimSpace(text)
	if len(text) > n {
		return "…" + text[len(text)-n:]
	}
	return text
}

// patience is how long is waited for anything; promises are judged apart.
const patience = time.Minute

// poll asks every so often until done, and says at the deadline what was last seen.
func poll(ctx context.Context, what string, done func() (string, bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	last := ""
	for {
		seen, ok, err := done()
		if ok && err == nil {
			return nil
		}
		if err != nil {
			seen = err.Error()
		}
		if seen != "" {
			last = seen
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s: last seen: %s", what, patience, last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// pause lets time pass, which a few items are about.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func copyFile(from, to string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close() //nolint:errcheck // read only
	info, err := src.Stat()
	if err != nil {
		return err
	}
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, info.Mode().Perm())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	_, err = io.Copy(dst, src)
	return err
}

// copyTree copies the files below from as they are read, one after another, the way
// a backup taken under a running process would.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(dst, 0o700)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		if err := copyFile(path, dst); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil // it went away while we copied
	})
}
