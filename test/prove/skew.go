package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/quorate/quorate/app"
	"github.com/quorate/quorate/store/remote"
)

// groundCommit is the last one before the faces: the version one below.
const groundCommit = "1f2dc00"

// pair is a server and an agent that run apart from each other.
type pair struct {
	e *env
	// server and agent are the binaries, dir holds both data directories.
	server, agent, dir string
	// more arguments of the agent.
	more []string
}

// proveSkew runs a server beside an agent of the version below it, through what an
// agent is there for, and then upgrades the agent under the running members.
func proveSkew(ctx context.Context, e *env) (string, error) {
	bin, err := e.install()
	if err != nil {
		return "", err
	}
	older, err := e.older(ctx)
	if err != nil {
		return "", err
	}
	dir, err := e.mkdir("pair")
	if err != nil {
		return "", err
	}
	p := &pair{e: e, server: bin, agent: older, dir: dir}
	stop, err := p.start(ctx)
	if err != nil {
		return "", err
	}
	pids, err := p.exercise(ctx)
	if err != nil {
		return "", err
	}
	stop()
	p.agent = bin
	if stop, err = p.start(ctx); err != nil {
		return "", err
	}
	defer stop()
	after, err := p.pids(ctx)
	if err != nil {
		return "", err
	}
	if pids != after {
		return "", fmt.Errorf("the upgrade of the agent changed etcd's pids from %s to %s", pids, after)
	}
	if _, err = p.quorate(ctx, "delete", "cluster", "three", "--yes"); err != nil {
		return "", err
	}
	_, err = p.quorate(ctx, "wait", "cluster/three", "--for", "delete")
	return "this server with an agent of commit " + groundCommit + ": formed a cluster, wrote, restarted its members, read a log, reported; then the agent was replaced by this version: etcd pids unchanged, and the cluster was deleted", err
}

// older builds the version below.
func (e *env) older(ctx context.Context) (string, error) {
	dir := filepath.Join(e.dir, "older")
	if _, err := output(command(ctx, e.repo, nil, "git", "clone", "-q", e.repo, dir)); err != nil {
		return "", err
	}
	_, err := e.sh(ctx, dir, "git checkout -q "+groundCommit+" && make build")
	return filepath.Join(dir, "bin", "quorate"), err
}

func (p *pair) serverDir() string { return filepath.Join(p.dir, "server") }

func (p *pair) quorate(ctx context.Context, args ...string) (string, error) {
	return output(command(ctx, p.e.repo, []string{"QUORATE_DATA_DIR=" + p.serverDir()}, p.server, args...))
}

// start starts both, and waits until the host reports.
func (p *pair) start(ctx context.Context) (stop func(), err error) {
	var running []*exec.Cmd
	stop = func() {
		for _, cmd := range running {
			_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
			_ = cmd.Wait()
		}
	}
	run := func(bin string, args ...string) error {
		cmd := command(context.WithoutCancel(ctx), p.dir, nil, bin, args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
		running = append(running, cmd)
		return cmd.Start()
	}
	if err = run(p.server, "server", "--data-dir", p.serverDir(), "--listen", "127.0.0.1:0"); err != nil {
		return stop, err
	}
	err = poll(ctx, "the server answers", func() (string, bool, error) {
		_, getErr := p.quorate(ctx, "get", "hosts")
		return "", getErr == nil, getErr
	})
	if err != nil {
		return stop, err
	}
	cmd, err := p.agentOf(ctx, "h1", p.more...)
	if err != nil {
		return stop, err
	}
	running = append(running, cmd)
	return stop, p.reports(ctx, "h1")
}

// agentOf starts the agent of a host.
func (p *pair) agentOf(ctx context.Context, host string, more ...string) (*exec.Cmd, error) {
	token := filepath.Join(p.dir, "token-"+host)
	plain, err := p.quorate(ctx, "server", "token", "agent-"+host, "--role", "agent", "--host", host, "--reset")
	if err != nil {
		return nil, err
	}
	if err = os.WriteFile(token, []byte(strings.TrimSpace(plain)), 0o600); err != nil {
		return nil, err
	}
	client, err := remote.LoadConfig(app.ClientConfigFile(p.serverDir()))
	if err != nil {
		return nil, err
	}
	dir := "agent"
	if host != "h1" {
		dir += "-" + host
	}
	args := append([]string{"agent", "--server", client.Server, "--token-file", token, "--data-dir", filepath.Join(p.dir, dir), "--host", host, "--address", "127.0.0.1"}, more...)
	cmd := command(context.WithoutCancel(ctx), p.dir, nil, p.agent, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	return cmd, cmd.Start()
}

// join adds a host with an agent of its own, and waits until it reports.
func (p *pair) join(ctx context.Context, host string, more ...string) (stop func(), err error) {
	cmd, err := p.agentOf(ctx, host, more...)
	if err != nil {
		return func() {}, err
	}
	return func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = cmd.Wait()
	}, p.reports(ctx, host)
}

// reports waits until a host does.
func (p *pair) reports(ctx context.Context, host string) error {
	return poll(ctx, "host "+host+" reports", func() (string, bool, error) {
		ready, err := p.quorate(ctx, "get", "host", host, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
		return ready, strings.TrimSpace(ready) == "True", err
	})
}

// exercise has the agent do all that it is there for, and returns the etcds' pids.
func (p *pair) exercise(ctx context.Context) (string, error) {
	for _, args := range [][]string{
		{"apply", "-f", filepath.Join("examples", "three-members.yaml")},
		{"wait", "cluster/three", "--for", "jsonpath={.status.summary}=Healthy", "--timeout", "90s"},
		{"etcdctl", "-c", "three", "put", "skew", "none"},
		{"restart", "three"},
		{"wait", "cluster/three", "--for", "jsonpath={.status.summary}=Healthy", "--timeout", "90s"},
		{"logs", "three-1"},
		{"events", "-c", "three"},
	} {
		if _, err := p.quorate(ctx, args...); err != nil {
			return "", err
		}
	}
	return p.pids(ctx)
}

func (p *pair) pids(ctx context.Context) (string, error) {
	var pids string
	err := poll(ctx, "all members are reported", func() (string, bool, error) {
		out, err := p.quorate(ctx, "get", "members", "-l", "quorate.io/cluster=three", "-o", "jsonpath={.items[*].status.process.pid}")
		pids = strings.TrimSpace(out)
		return pids, len(strings.Fields(pids)) == 3, err
	})
	return pids, err
}
