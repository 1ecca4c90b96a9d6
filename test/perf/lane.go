package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// peer is a program of others, and where it comes from.
type peer struct {
	name            string
	module, version string
	// pkg is the main package in it.
	pkg string
}

// built are the programs of a comparison.
type built struct {
	quorate, peer, etcd  string
	version, etcdVersion string
	// fixture is a snapshot that lanes begin with; empty: they begin empty.
	fixture string
}

// cache is where peers are kept, below the repository's root.
const cache = ".cache/peers"

// build makes the programs: ours and etcd from this module, the peer from its own.
func build(ctx context.Context, dir string, p peer, progress io.Writer) (*built, error) {
	root, err := output(ctx, "", "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return nil, err
	}
	b := &built{quorate: filepath.Join(dir, "quorate"), etcd: filepath.Join(dir, "etcd")}
	for _, one := range [][2]string{{b.quorate, "./cmd/quorate"}, {b.etcd, "go.etcd.io/etcd/server/v3"}} {
		if _, err = output(ctx, root, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", one[0], one[1]); err != nil {
			return nil, err
		}
	}
	if b.version, err = output(ctx, root, "git", "describe", "--tags", "--always", "--dirty"); err != nil {
		return nil, err
	}
	if b.etcdVersion, err = output(ctx, root, "go", "list", "-m", "-f", "{{.Version}}", "go.etcd.io/etcd/server/v3"); err != nil {
		return nil, err
	}
	b.peer, err = p.build(ctx, root, progress)
	return b, err
}

// build makes the peer in a module of its own, since it may have other versions of
// what this one has, and go install refuses modules that replace others.
func (p peer) build(ctx context.Context, root string, progress io.Writer) (string, error) {
	dir := filepath.Join(root, filepath.FromSlash(cache), filepath.FromSlash(p.module)+"@"+p.version)
	program := filepath.Join(dir, p.name)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	say(progress, "building %s of %s %s (once)\n", p.name, p.module, p.version)
	src := filepath.Join(dir, "src")
	if err := os.RemoveAll(src); err != nil {
		return "", err
	}
	if err := os.MkdirAll(src, 0o750); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(src, "go.mod"), []byte("module peer\n\ngo 1.26\n"), 0o600); err != nil {
		return "", err
	}
	for _, args := range [][]string{
		{"get", p.pkg + "@" + p.version},
		{"build", "-mod=mod", "-trimpath", "-ldflags", "-s -w", "-o", program + ".new", p.pkg},
	} {
		if _, err := output(ctx, src, "go", args...); err != nil {
			return "", err
		}
	}
	return program, os.Rename(program+".new", program)
}

// output runs a program and returns what it says, without the end of its last line.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var problem bytes.Buffer
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(problem.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

// lane is where one side runs once: an etcd with one member that nobody used before.
type lane struct {
	*built
	dir      string
	endpoint string
	server   *exec.Cmd
}

// inLane starts an etcd, does the run, and removes it all.
func inLane(ctx context.Context, dir string, b *built, do func(context.Context, *lane) (sample, error)) (s sample, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	l := &lane{built: b, dir: dir}
	if err = os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	if err = l.start(ctx); err != nil {
		return nil, err
	}
	defer func() {
		_ = l.server.Process.Kill() // it may be paused, and holds nothing worth keeping
		_ = l.server.Wait()
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	if err = l.ready(ctx); err != nil {
		return nil, err
	}
	return do(ctx, l)
}

func (l *lane) start(ctx context.Context) error {
	var urls [2]string
	for i := range urls {
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		urls[i] = "http://" + ln.Addr().String()
		if err := ln.Close(); err != nil {
			return err
		}
	}
	l.endpoint = urls[0]
	log, err := os.Create(filepath.Join(l.dir, "etcd.log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	if l.fixture != "" {
		if err = l.seed(ctx, urls[1]); err != nil {
			return err
		}
	}
	l.server = exec.CommandContext(ctx, l.etcd, "--name=one", "--data-dir="+filepath.Join(l.dir, "data"), "--log-level=warn",
		"--listen-client-urls="+urls[0], "--advertise-client-urls="+urls[0],
		"--listen-peer-urls="+urls[1], "--initial-advertise-peer-urls="+urls[1], "--initial-cluster=one="+urls[1])
	l.server.Stdout, l.server.Stderr = log, log
	l.server.Env = []string{"PATH=" + os.Getenv("PATH")}
	l.server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return l.server.Start()
}

// ready waits until the etcd takes writes.
func (l *lane) ready(ctx context.Context) error {
	return l.ask(ctx, func(c *clientv3.Client) error {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			try, cancel := context.WithTimeout(ctx, 2*time.Second)
			_, err := c.Put(try, key, strings.Repeat("v", valueSize))
			cancel()
			if err == nil {
				return nil
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("etcd does not take writes: %w", err)
			case <-tick.C:
			}
		}
	})
}

func (l *lane) ask(ctx context.Context, do func(*clientv3.Client) error) error {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{l.endpoint}, Logger: zap.NewNop(), Context: ctx})
	if err != nil {
		return err
	}
	return errors.Join(do(c), c.Close())
}

// ended is a program that ran to its end.
type ended struct {
	stdout []byte
	// cpu, in user and system mode, of the whole process, and how long it ran.
	cpu, took time.Duration
	// rss is the most memory it had, files that it mapped included, in bytes.
	rss int64
}

// program runs one and measures its CPU time. Meanwhile, if given, is called once it
// runs.
func (l *lane) program(ctx context.Context, meanwhile func(ctx context.Context) error, name string, args ...string) (ended, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + l.dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return ended{}, err
	}
	var err error
	if meanwhile != nil {
		err = meanwhile(ctx)
	}
	if runErr := cmd.Wait(); runErr != nil {
		text := stderr.String()
		err = errors.Join(err, fmt.Errorf("%s: %w: %s", filepath.Base(name), runErr, strings.TrimSpace(text[max(0, len(text)-500):])))
	}
	if err != nil {
		return ended{}, err
	}
	e := ended{stdout: stdout.Bytes(), cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), took: time.Since(began)}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		e.rss = usage.Maxrss << 10
	}
	return e, nil
}

// stall stops the etcd for a time, some time after it was called.
func (l *lane) stall(after, length time.Duration) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		for _, step := range []struct {
			after  time.Duration
			signal syscall.Signal
		}{{after, syscall.SIGSTOP}, {length, syscall.SIGCONT}} {
			timer := time.NewTimer(step.after)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			}
			if err := l.server.Process.Signal(step.signal); err != nil {
				return err
			}
		}
		return nil
	}
}
