package app

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/agent"
	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver"
	"github.com/quorate/quorate/driver/host"
	"github.com/quorate/quorate/driver/host/cgroup"
	"github.com/quorate/quorate/pki"
	"github.com/quorate/quorate/release"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/remote"
)

// AgentOptions say how an agent runs.
type AgentOptions struct {
	// DataDir holds the members' homes, releases and what the agent remembers.
	DataDir string
	// Client is how the server is reached.
	Client remote.Config
	// JoinToken, or the one in JoinTokenFile, is what an agent joins with that has not
	// joined yet. Client needs no token then, and no CA: the token names the server's.
	JoinToken     string
	JoinTokenFile string
	// Host is the name of the EtcdHost; the machine's name by default.
	Host string
	// Address that members listen on, Names and Zone make the EtcdHost where it does
	// not exist yet.
	Address string
	Names   []string
	Zone    string
	// Pool and Labels make the EtcdHost too.
	Pool   string
	Labels map[string]string
	// FirstPort is where members' ports are looked for first; 2379 by default.
	FirstPort int32
	// AllowFaults lets members be broken on purpose, for those who ask the server to.
	AllowFaults bool
	// AllowLoad lets loads be driven from this machine, for those who ask the server to.
	AllowLoad bool
	// AllowUnfit takes new members also where a check of this machine fails.
	AllowUnfit bool
	// Ephemeral says that the data directory is removed in the end, so that it may lie in
	// memory.
	Ephemeral bool
	// CheckAfter is how long the first checks wait, where no member waits for them.
	CheckAfter time.Duration
	// Joined is called once the server has taken the agent's first report; may be nil.
	Joined func()
	Logger *slog.Logger
}

// RunAgent runs an agent until ctx ends. Members are left running.
func RunAgent(ctx context.Context, opts AgentOptions) (err error) {
	p := paths(opts.DataDir)
	if opts.Host == "" {
		name, nameErr := os.Hostname()
		if nameErr != nil {
			return fmt.Errorf("the host's name: %w: give it with --host", nameErr)
		}
		opts.Host = name
	}
	if err = os.MkdirAll(p.agent(), 0o700); err != nil {
		return fmt.Errorf("the agent needs its data directory: %w: choose another with --data-dir", err)
	}
	unlock, err := lockAgent(filepath.Join(p.agent(), "lock"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	seen, err := remote.FilePosition(p.position())
	if err != nil {
		return err
	}
	if err = opts.readJoinToken(); err != nil {
		return err
	}
	who, err := openIdentity(p, &opts)
	if err != nil {
		return err
	}
	client, err := who.client(opts.Client, remote.Options{Logger: opts.Logger, Seen: seen})
	if err != nil {
		return err
	}
	defer client.Close()
	releases, err := openCatalog(ctx, p.releases(), release.Options{Logger: opts.Logger})
	if err != nil {
		return err
	}
	systemd, groups := keepers(ctx, opts)
	defer groups.Close() // those of members stay, since these run on
	drv, err := host.New(host.Options{
		Systemd: systemd, Groups: groups,
		Dir: opts.DataDir, Address: opts.Address, FirstPort: opts.FirstPort, Releases: fetching{releases, client}, Signer: signer{client}, Logger: opts.Logger,
	})
	if err != nil {
		return err
	}
	worker, err := loadWorker(opts.AllowLoad)
	if err != nil {
		return err
	}
	a := agent.New(agent.Options{
		Host: opts.Host, Spec: v1alpha1.EtcdHostSpec{Address: opts.Address, Names: opts.Names, Zone: opts.Zone, Pool: opts.Pool}, Labels: opts.Labels,
		Enroll: func(ctx context.Context) error { return who.enroll(ctx, client, opts.JoinToken) },
		Store:  client, Recorder: client, Driver: drv, Channel: channel{client},
		Snapshots: func(ctx context.Context, m *v1alpha1.EtcdMember) (io.ReadCloser, int64, error) {
			return client.RestoreData(ctx, store.KeyOf(m))
		},
		Preflight: newHostChecks(opts, client), PreflightAfter: opts.CheckAfter, AllowUnfit: opts.AllowUnfit,
		AllowFaults: opts.AllowFaults, Worker: worker, Joined: opts.Joined, Logger: opts.Logger,
	})
	err = a.Run(ctx)
	if flushErr := seen.Flush(); err == nil {
		err = flushErr
	}
	return err
}

// loadWorker is this program as the one that drives loads; none where they are not
// allowed.
func loadWorker(allowed bool) ([]string, error) {
	if !allowed {
		return nil, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program, which drives loads: %w", err)
	}
	return []string{self, "bench", "worker"}, nil
}

// keepers are who starts supervisors again and keeps service classes apart: systemd where
// it runs, control groups of the agent's own elsewhere.
func keepers(ctx context.Context, opts AgentOptions) (*host.Systemd, *cgroup.Groups) {
	dir := opts.DataDir
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	systemd, err := host.OpenSystemd(ctx, host.SystemdOptions{})
	if err == nil {
		return systemd, nil
	}
	opts.Logger.InfoContext(ctx, "members are supervised by processes of the agent's own", slog.Any("cause", err))
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(dir))
	groups := cgroup.Open(ctx, cgroup.Options{Name: fmt.Sprintf("%08x", sum.Sum32()), Dir: dir, Logger: opts.Logger})
	opts.Logger.InfoContext(ctx, "service classes are kept apart", slog.String("by", groups.String()), slog.String("less_because", groups.Why()))
	return nil, groups
}

// lockAgent makes this the only agent on a data directory, for as long as the
// process lives.
func lockAgent(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // below our own directory
	if err != nil {
		return nil, fmt.Errorf("the agent's lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another agent runs on this data directory (%s is locked): stop it first: %w", path, err), f.Close())
	}
	return f.Close, nil
}

// signer has the server sign the members' requests.
type signer struct{ client *remote.Client }

// Sign implements host.Signer.
func (s signer) Sign(ctx context.Context, m *v1alpha1.EtcdMember, usage pki.Usage, csr []byte) (pki.Bundle, error) {
	return s.client.SignMember(ctx, store.KeyOf(m), usage, csr)
}

// channel is the agent's link to the server.
type channel struct{ client *remote.Client }

// Serve implements agent.Channel.
func (c channel) Serve(ctx context.Context, hostName string, answer agent.Answer) error {
	c.client.Serve(ctx, hostName, func(ctx context.Context, r remote.Request) (io.ReadCloser, error) {
		return answer(ctx, agent.Request{
			Action: agent.Action(r.Kind), Member: store.Key{Namespace: r.Member.Namespace, Name: r.Member.Name}, UID: r.Member.UID,
			Load: r.Load, Peers: r.Peers,
			Log: driver.LogOptions{Source: driver.LogSource(r.Log.Source), Tail: r.Log.Tail, Follow: r.Log.Follow},
		})
	})
	return ctx.Err()
}
