package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/api/schema"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/host"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/internal/atomicfile"
	"github.com/quorate/quorate/internal/process"
	"github.com/quorate/quorate/internal/version"
	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

const (
	// upHost is the one host of `up`.
	upHost    = "localhost"
	upAddress = "127.0.0.1"
	// upNamespace is where its cluster lives.
	upNamespace = "default"
	// upCheckAfter keeps the checks of the machine out of the way of its first cluster.
	upCheckAfter = 15 * time.Second
)

// UpOptions say what `up` brings up.
type UpOptions struct {
	// DataDir keeps everything; the next `up` finds it there.
	DataDir string
	// Listen is the API's address; empty takes DefaultListen, or a free port where
	// that is taken.
	Listen string
	// Cluster is its name; by default that of the only one there is, or playground.
	Cluster string
	// Version of etcd; empty takes that of the existing cluster, or the built-in one.
	Version string
	// Members; 0 takes that of the existing cluster, or 3.
	Members int
	// Ephemeral uses a directory that is removed in the end.
	Ephemeral bool
	Logger    *slog.Logger
	// Progress is told what happens; it must not block, save for asking for the details
	// of what is ready.
	Progress func(UpProgress)
}

// UpProgress is one thing that happened.
type UpProgress struct {
	// Text is a short line.
	Text string
	// Done says that what Text names is complete.
	Done bool
	// Ready is set once, when all is healthy.
	Ready *UpReady
}

// UpReady is what `up` has brought up.
type UpReady struct {
	Cluster *v1alpha1.EtcdCluster
	Members []*v1alpha1.EtcdMember
	DataDir string
	Server  string
	Seconds float64
	// Details asks for more of it, for a second at most.
	Details func(context.Context) UpDetails
}

// upRecord names the process of `up`, for `down`.
type upRecord struct {
	Process   process.ID `json:"process"`
	Ephemeral bool       `json:"ephemeral,omitempty"`
}

// Up runs server, agent and a cluster in one process until ctx ends, and then
// stops the members and itself. Killed instead, it leaves the members running
// under their supervisors, and the next Up, or Down, finds them.
func Up(ctx context.Context, opts UpOptions) (err error) {
	began := time.Now()
	if opts.Progress == nil {
		opts.Progress = func(UpProgress) {}
	}
	if opts.Ephemeral {
		if opts.DataDir, err = os.MkdirTemp("", "quorate-"); err != nil {
			return fmt.Errorf("make an ephemeral directory: %w", err)
		}
		defer func() {
			if err == nil {
				err = os.RemoveAll(opts.DataDir)
			}
		}()
	}
	unlock, err := claim(opts)
	if err != nil {
		return err
	}
	defer func() {
		// While a member runs, `down` must find what was left behind.
		if n, countErr := running(context.WithoutCancel(ctx), opts); countErr == nil && n == 0 {
			err = errors.Join(err, unlock())
		}
	}()

	srv, err := upServer(ctx, opts)
	if err != nil {
		return err
	}
	opts.Progress(UpProgress{Text: "server on " + srv.URL(), Done: true})
	u := &upRun{opts: opts, srv: srv, began: began, failed: make(chan error, 2), joined: make(chan struct{})}
	return u.run(ctx)
}

// claim makes this process the only `up` on its directory.
func claim(opts UpOptions) (release func() error, err error) {
	p := paths(opts.DataDir)
	if err = os.MkdirAll(opts.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("the data directory: %w: choose another with --data-dir", err)
	}
	if was, readErr := readUp(p); readErr == nil && was.Process.Alive() {
		return nil, fmt.Errorf("`quorate up` already runs on %s with pid %d: stop it with Ctrl-C or `quorate down`, or choose another --data-dir",
			opts.DataDir, was.Process.PID)
	}
	id, err := process.Identify(os.Getpid())
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(upRecord{Process: id, Ephemeral: opts.Ephemeral})
	if err != nil {
		return nil, err
	}
	if err := atomicfile.Write(p.up(), append(raw, '\n'), 0o600); err != nil {
		return nil, fmt.Errorf("the data directory %s can't be written: %w: choose another with --data-dir", opts.DataDir, err)
	}
	return func() error { return os.Remove(p.up()) }, nil
}

func readUp(p paths) (upRecord, error) {
	var r upRecord
	raw, err := os.ReadFile(p.up())
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return r, fmt.Errorf("%s is damaged: %w", p.up(), err)
	}
	return r, nil
}

// upServer opens the server on the default address, or on a free port where that
// is taken and no address was asked for.
func upServer(ctx context.Context, opts UpOptions) (*Server, error) {
	o := ServerOptions{DataDir: opts.DataDir, Listen: opts.Listen, Logger: opts.Logger}
	if o.Listen == "" {
		o.Listen = DefaultListen
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.Listen)
		if err != nil {
			o.Listen = upAddress + ":0"
		} else if err := ln.Close(); err != nil {
			return nil, err
		}
	}
	return NewServer(ctx, o)
}

// upRun is a running `up`.
type upRun struct {
	opts   UpOptions
	srv    *Server
	began  time.Time
	failed chan error
	// joined is closed once the agent has reported for the first time.
	joined chan struct{}
}

func (u *upRun) run(ctx context.Context) error {
	// The parts outlive ctx: the members are stopped through them.
	detached := context.WithoutCancel(ctx)
	serverCtx, stopServer := context.WithCancel(detached)
	agentCtx, stopAgent := context.WithCancel(detached)
	defer stopServer()
	defer stopAgent()
	found, err := running(ctx, u.opts)
	if err != nil {
		return err
	}
	var servers, agents sync.WaitGroup
	var serverErr, agentErr error
	servers.Go(func() {
		serverErr = u.srv.Run(serverCtx)
		u.failed <- fmt.Errorf("the server ended: %w", serverErr)
	})
	err = u.start(ctx, agentCtx, &agents, &agentErr)
	if err == nil {
		select {
		case <-ctx.Done():
		case err = <-u.failed:
		}
	}
	if ctx.Err() != nil {
		err = nil
	}
	if err != nil && found > 0 && !u.opts.Ephemeral {
		// They served before this `up` came, and nobody asked for their end.
		u.opts.Progress(UpProgress{Text: fmt.Sprintf("%d members are left running, as they were found: `quorate down` stops them", found)})
		stopAgent()
		agents.Wait()
	} else {
		u.opts.Progress(UpProgress{Text: "stopping the members"})
		stopAgent()
		agents.Wait()
		err = errors.Join(err, u.stop(detached))
	}
	stopServer()
	servers.Wait()
	u.opts.Progress(UpProgress{Text: "server and agent stopped", Done: true})
	for _, partErr := range []error{serverErr, agentErr} {
		if !errors.Is(err, partErr) {
			err = errors.Join(err, partErr)
		}
	}
	return err
}

// stop stops the members.
func (u *upRun) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return stopMembers(ctx, u.opts.DataDir, u.opts.Logger, func(text string) {
		u.opts.Progress(UpProgress{Text: text, Done: true})
	})
}

// running counts the members below the data directory whose etcd runs.
func running(ctx context.Context, opts UpOptions) (n int, err error) {
	err = eachMember(ctx, opts.DataDir, opts.Logger, func(_ *host.Driver, _ *v1alpha1.EtcdMember, pid int64) error {
		if pid > 0 {
			n++
		}
		return nil
	})
	return n, err
}

// start brings up the agent and the cluster, and waits until it is healthy.
func (u *upRun) start(ctx, agentCtx context.Context, agents *sync.WaitGroup, agentErr *error) error {
	client, err := u.agentClient(ctx)
	if err != nil {
		return err
	}
	agents.Go(func() {
		err := RunAgent(agentCtx, AgentOptions{
			DataDir: u.opts.DataDir, Client: client, Host: upHost, Address: upAddress, Logger: u.opts.Logger,
			AllowUnfit: true, Ephemeral: u.opts.Ephemeral, CheckAfter: upCheckAfter,
			AllowFaults: true, AllowLoad: true, Joined: func() { close(u.joined) }, FirstPort: firstPort(u.opts.DataDir),
		})
		if err != nil && agentCtx.Err() == nil {
			*agentErr = err
			u.failed <- fmt.Errorf("the agent ended: %w", err)
		}
	})
	if err := u.declare(ctx); err != nil {
		return err
	}
	// An agent that refuses the store has members that only look well.
	select {
	case <-u.joined:
	case <-ctx.Done():
		return ctx.Err()
	case err := <-u.failed:
		return err
	}
	return u.await(ctx)
}

// firstPort is where the ports of a data directory's members begin: etcd's own for
// the default directory, and some place of its own for any other, so that what is
// stopped here finds its ports free when it is started again.
func firstPort(dataDir string) int32 {
	const etcds, step, places = 2379, 10, 500
	if dataDir == DefaultDataDir() {
		return etcds
	}
	if abs, err := filepath.Abs(dataDir); err == nil {
		dataDir = abs
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(dataDir)) // it never fails
	return etcds + step*int32(h.Sum32()%places)
}

// agentClient is how the agent reaches the server: with a token for its host alone.
func (u *upRun) agentClient(ctx context.Context) (remote.Config, error) {
	p := paths(u.opts.DataDir)
	cfg := remote.Config{Server: u.srv.URL()}
	const name = "agent-" + upHost
	token, err := server.EnsureToken(ctx, u.srv.store, name, server.RoleAgent, upHost)
	if err != nil {
		return cfg, err
	}
	if token == "" {
		if known, loadErr := remote.LoadConfig(p.agentConfig()); loadErr == nil {
			token = known.Token
		}
	}
	if token == "" {
		if token, err = server.ResetToken(ctx, u.srv.store, name, server.RoleAgent, upHost); err != nil {
			return cfg, err
		}
	}
	cfg.Token = token
	if err := os.MkdirAll(p.agent(), 0o700); err != nil {
		return cfg, err
	}
	return cfg, cfg.Save(p.agentConfig())
}

// declare applies the cluster, or finds that it is there already.
func (u *upRun) declare(ctx context.Context) error {
	if err := u.choose(ctx); err != nil {
		return err
	}
	have := &v1alpha1.EtcdCluster{}
	err := u.srv.store.Get(ctx, u.key(), have)
	if err == nil {
		if u.opts.Members != 0 && int32(u.opts.Members) != have.Spec.Replicas { //nolint:gosec // a handful
			return fmt.Errorf("cluster %s exists with %d members, and scaling is not part of this release: leave out --members, or choose another --data-dir: %w",
				have.Name, have.Spec.Replicas, store.ErrInvalid)
		}
		if u.opts.Version != "" && u.opts.Version != have.Spec.Version {
			return fmt.Errorf("cluster %s exists with etcd %s, and upgrades are not part of this release: leave out --version, or choose another --data-dir: %w",
				have.Name, have.Spec.Version, store.ErrInvalid)
		}
		u.opts.Progress(UpProgress{Text: fmt.Sprintf("cluster %s found, with %d members", have.Name, have.Spec.Replicas), Done: true})
		return nil
	}
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	c := &v1alpha1.EtcdCluster{}
	v1alpha1.SetType(c, v1alpha1.KindCluster.Kind, v1alpha1.KindCluster.APIVersion)
	c.Namespace, c.Name = upNamespace, u.opts.Cluster
	c.Spec.Version, c.Spec.Replicas = u.opts.Version, int32(u.opts.Members) //nolint:gosec // validated below
	if c.Spec.Version == "" {
		c.Spec.Version = version.Etcd()
	}
	if u.opts.Members == 0 {
		c.Spec.Replicas = 3
	}
	// A playground is stopped and started as a whole, which the check would draw out.
	check := false
	c.Spec.Etcd.InitialCorruptCheck = &check
	admin, err := remote.New(u.srv.client, remote.Options{Logger: u.opts.Logger})
	if err != nil {
		return err
	}
	defer admin.Close()
	if err := schema.Default(c); err != nil {
		return err
	}
	if err := admin.Create(ctx, c); err != nil {
		return err
	}
	u.opts.Progress(UpProgress{Text: fmt.Sprintf("cluster %s declared: %d members of etcd %s", c.Name, c.Spec.Replicas, c.Spec.Version), Done: true})
	return nil
}

// choose settles which cluster is meant where none was named: the one there is, or
// a new playground.
func (u *upRun) choose(ctx context.Context) error {
	if u.opts.Cluster != "" {
		return nil
	}
	clusters, err := u.srv.store.List(ctx, v1alpha1.KindCluster, store.ListOptions{Namespace: upNamespace})
	if err != nil {
		return err
	}
	const playground = "playground"
	names := make([]string, 0, len(clusters))
	for _, c := range clusters {
		names = append(names, c.GetName())
	}
	switch {
	case len(names) == 0 || slices.Contains(names, playground):
		u.opts.Cluster = playground
	case len(names) == 1:
		u.opts.Cluster = names[0]
	default:
		return fmt.Errorf("there are the clusters %s: say with --cluster which is to be waited for", strings.Join(names, ", "))
	}
	return nil
}

func (u *upRun) key() store.Key { return store.Key{Namespace: upNamespace, Name: u.opts.Cluster} }

// await waits until every member is healthy and nothing is left to do.
func (u *upRun) await(ctx context.Context) error {
	const every = 100 * time.Millisecond
	said := ""
	for {
		c, err := u.srv.clusters.Look(ctx, u.key())
		if err != nil {
			return err
		}
		if c.Spec.Suspended && v1alpha1.IsTrue(c.Status.Conditions, v1alpha1.ConditionSuspended) || settled(c) {
			ready, err := u.ready(ctx, c)
			if err == nil {
				u.opts.Progress(UpProgress{Ready: ready, Done: true})
			}
			return err
		}
		if text := describe(c); text != said {
			said = text
			u.opts.Progress(UpProgress{Text: text})
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-u.failed:
			return err
		case <-time.After(every):
		}
	}
}

// settled reports whether all members are healthy and the plan is empty.
func settled(c *v1alpha1.EtcdCluster) bool {
	p := v1alpha1.FindCondition(c.Status.Conditions, v1alpha1.ConditionProgressing)
	return v1alpha1.IsTrue(c.Status.Conditions, v1alpha1.ConditionAvailable) &&
		c.Status.ObservedGeneration == c.Generation &&
		c.Status.Ready == fmt.Sprintf("%d/%d", c.Spec.Replicas, c.Spec.Replicas) &&
		p != nil && p.Status == v1alpha1.False
}

// describe says in a line how far a cluster is.
func describe(c *v1alpha1.EtcdCluster) string {
	p := v1alpha1.FindCondition(c.Status.Conditions, v1alpha1.ConditionProgressing)
	switch {
	case p == nil:
		return "looking at cluster " + c.Name
	case p.Status == v1alpha1.False && p.Reason == fleet.HeldNotPrepared && !strings.Contains(p.Message, "host has not reported yet"):
		return "waiting: " + p.Message
	case p.Status == v1alpha1.False && p.Reason == fleet.HeldNotPrepared:
		return "preparing the members: ports, release, certificates"
	case p.Status == v1alpha1.False && p.Reason != "AsWanted":
		return "waiting: " + p.Message
	case p.Reason == "Forming" || p.Reason == "AsWanted":
		return c.Status.Ready + " members healthy" + trouble(c)
	case p.Reason == string(v1alpha1.ActionCreateMember):
		return "declaring the members"
	case p.Reason == string(v1alpha1.ActionStartMember):
		return "starting the members"
	}
	return p.Message
}

// trouble says what keeps members down, where it is more than that they are
// starting.
func trouble(c *v1alpha1.EtcdCluster) string {
	for _, kind := range []string{v1alpha1.ConditionAvailable, v1alpha1.ConditionDegraded} {
		cond := v1alpha1.FindCondition(c.Status.Conditions, kind)
		if cond == nil {
			continue
		}
		for _, phase := range []v1alpha1.MemberPhase{v1alpha1.MemberCrashLoop, v1alpha1.MemberRefused, v1alpha1.MemberFailed} {
			if strings.Contains(cond.Message, string(phase)+": ") {
				return ": " + cond.Message
			}
		}
	}
	return ""
}

func (u *upRun) ready(ctx context.Context, c *v1alpha1.EtcdCluster) (*UpReady, error) {
	objects, err := u.srv.store.List(ctx, v1alpha1.KindMember, store.ListOptions{
		Namespace: upNamespace, Labels: map[string]string{v1alpha1.LabelCluster: c.Name},
	})
	if err != nil {
		return nil, err
	}
	r := &UpReady{Cluster: c, DataDir: u.opts.DataDir, Server: u.srv.URL(), Seconds: time.Since(u.began).Seconds()}
	for _, o := range objects {
		if m, ok := o.(*v1alpha1.EtcdMember); ok {
			r.Members = append(r.Members, m)
		}
	}
	r.Details = func(ctx context.Context) UpDetails { return u.details(ctx, r.Members) }
	return r, nil
}
