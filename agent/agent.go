// Package agent is the kubelet of etcd: it runs the members bound to its host
// through a driver, reports what it sees, and only ever dials out. It may die and
// be replaced at any time: members go on under their supervisors.
package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver"
	"github.com/quorate/quorate/etcd"
	"github.com/quorate/quorate/fleet"
	"github.com/quorate/quorate/internal/backoff"
	"github.com/quorate/quorate/internal/process"
	"github.com/quorate/quorate/internal/version"
	"github.com/quorate/quorate/store"
)

// Driver is what an agent needs of the driver on its host.
type Driver interface {
	driver.Driver
	driver.Lister
	// ClientTLS is how the member's etcd is reached from its own host; nil without TLS.
	ClientTLS(m *v1alpha1.EtcdMember) (*tls.Config, error)
	// Mark remembers a raft position that the member has reached.
	Mark(m *v1alpha1.EtcdMember, term, index int64) error
	// KeepAll keeps every member as it was last told to be.
	KeepAll(ctx context.Context) error
	// Collect removes retired data whose time is over, and returns where it was.
	Collect(ctx context.Context) ([]string, error)
	// Sample looks at what the members use, and Used tells: nil before it is known.
	Sample(ctx context.Context) error
	Used() *v1alpha1.Resources
	// Supervision and Cgroups are what EtcdHost's status says of them.
	Supervision() v1alpha1.Supervision
	Cgroups() string
}

// Channel is the agent's link to the server, on which the server can ask.
type Channel interface {
	// Serve answers requests until ctx ends; it reconnects by itself.
	Serve(ctx context.Context, host string, answer Answer) error
}

// Options of an agent.
type Options struct {
	// Host is the name of the EtcdHost it stands for.
	Host string
	// Spec creates the EtcdHost where it does not exist yet.
	Spec v1alpha1.EtcdHostSpec
	// Labels the EtcdHost is created with.
	Labels map[string]string
	// Enroll makes the agent known to the server, before the first request to it; may be
	// nil. Members are kept running meanwhile.
	Enroll func(ctx context.Context) error
	// Store it reads its members from and reports to.
	Store    store.Store
	Recorder store.Recorder
	Driver   Driver
	// Snapshots opens what a member is formed from, where that is a backup; see
	// fleet.MemberOptions. Nil where there is no way to backups.
	Snapshots func(ctx context.Context, m *v1alpha1.EtcdMember) (io.ReadCloser, int64, error)
	// Channel to the server; nil where there is none.
	Channel Channel
	// AllowFaults lets the server break members on purpose, as when a person asks for a
	// member to be killed. Without it such requests are refused.
	AllowFaults bool
	// Preflight checks the host; nil where nothing is checked.
	Preflight Preflight
	// PreflightAfter is how long the first checks wait, where nothing waits for them.
	PreflightAfter time.Duration
	// AllowUnfit takes new members also where a check fails; what fails is reported.
	AllowUnfit bool
	// Worker is the command that drives a load from this host: it reads what to do from
	// its standard input and writes what came of it. Without it such requests are
	// refused.
	Worker []string
	// Joined is called once the host has been reported for the first time; may be nil.
	Joined func()
	Logger *slog.Logger
}

// Agent looks after one host.
type Agent struct {
	opts Options
	pool *etcd.Pool
	// direct reaches what listens on this host's loopback, so by no proxy.
	direct *http.Transport
	fit    *fitness

	mu  sync.Mutex
	tls map[v1alpha1.UID]*tls.Config
}

// New returns an agent.
func New(opts Options) *Agent {
	return &Agent{opts: opts, pool: etcd.NewPool(), direct: &http.Transport{IdleConnTimeout: time.Minute}, fit: newFitness(), tls: map[v1alpha1.UID]*tls.Config{}}
}

// Run works until ctx ends. Members are left running.
func (a *Agent) Run(ctx context.Context) error {
	// Before and beside all that needs the server: what was told to run runs, also
	// after a boot of the host while the server is away.
	keeping, stopKeeping := context.WithCancel(ctx)
	defer stopKeeping()
	go a.every(keeping, 5*time.Second, "keep", a.opts.Driver.KeepAll)
	if a.opts.Enroll != nil {
		if err := a.opts.Enroll(ctx); err != nil {
			return err
		}
	}
	if err := a.join(ctx); err != nil {
		return err
	}
	if a.opts.Joined != nil {
		a.opts.Joined()
	}
	var mayCome func(*v1alpha1.EtcdMember) *fleet.Refusal
	if a.opts.Preflight != nil && !a.opts.AllowUnfit {
		mayCome = a.mayCome
	}
	members := fleet.NewMemberController(fleet.MemberOptions{
		Store: a.opts.Store, Driver: a.opts.Driver, Recorder: a.opts.Recorder, Logger: a.opts.Logger,
		Host: a.opts.Host, Source: "agent/" + a.opts.Host, MayRestart: a.mayRestart,
		Snapshots: a.opts.Snapshots, MayCome: mayCome,
	})
	runner := fleet.Runner{
		Name: "member", Reconcile: members.Reconcile, Workers: 4, MaxDelay: 5 * time.Second, Timeout: time.Minute, Logger: a.opts.Logger,
		Sources: []fleet.Source{func(ctx context.Context) <-chan store.Key { return a.opts.Store.Watch(ctx, v1alpha1.KindMember, "") }},
	}
	var wg sync.WaitGroup
	wg.Go(func() { runner.Run(ctx) })
	wg.Go(func() { members.Run(ctx) })
	wg.Go(func() { a.every(ctx, time.Second, "mark", a.mark) })
	wg.Go(func() { a.every(ctx, 3*time.Second, "report", a.report) })
	wg.Go(func() { a.every(ctx, time.Minute, "collect", a.collect) })
	wg.Go(func() { a.every(ctx, 10*time.Second, "sample", a.opts.Driver.Sample) })
	if a.opts.Preflight != nil {
		wg.Go(func() { a.keepChecking(ctx) })
	}
	if a.opts.Channel != nil {
		wg.Go(func() {
			if err := a.opts.Channel.Serve(ctx, a.opts.Host, a.answer); err != nil && ctx.Err() == nil {
				a.opts.Logger.ErrorContext(ctx, "the channel to the server ended", slog.Any("error", err))
			}
		})
	}
	wg.Wait()
	a.direct.CloseIdleConnections()
	return a.pool.Close()
}

func (a *Agent) every(ctx context.Context, d time.Duration, what string, do func(context.Context) error) {
	for {
		callCtx, cancel := context.WithTimeout(ctx, 10*time.Second)
		if err := do(callCtx); err != nil && ctx.Err() == nil {
			a.opts.Logger.DebugContext(ctx, "to be tried again", slog.String("what", what), slog.Any("error", err))
		}
		cancel()
		if backoff.Sleep(ctx, d) != nil {
			return
		}
	}
}

// join makes sure that the host's object exists, and reports for the first time.
func (a *Agent) join(ctx context.Context) error {
	retry := backoff.Backoff{Min: 50 * time.Millisecond, Max: 5 * time.Second, Jitter: 0.3}
	for {
		err := a.joinOnce(ctx)
		if err == nil {
			return nil
		}
		if errors.Is(err, store.ErrForbidden) || errors.Is(err, store.ErrStale) {
			return fmt.Errorf("join as host %s: %w", a.opts.Host, err)
		}
		a.opts.Logger.WarnContext(ctx, "joining again", slog.String("host", a.opts.Host), slog.Any("error", err))
		if backoff.Sleep(ctx, retry.Next()) != nil {
			return fmt.Errorf("join as host %s: %w", a.opts.Host, err)
		}
	}
}

func (a *Agent) joinOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	host := &v1alpha1.EtcdHost{}
	err := a.opts.Store.Get(ctx, store.Key{Name: a.opts.Host}, host)
	if errors.Is(err, store.ErrNotFound) {
		host.Name, host.Labels, host.Spec = a.opts.Host, a.opts.Labels, a.opts.Spec
		err = a.opts.Store.Create(ctx, host)
		if errors.Is(err, store.ErrExists) {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	return a.report(ctx)
}

// report writes what the host is, and which members on it no object declares.
// Those are never touched: the object may have been lost rather than deleted.
func (a *Agent) report(ctx context.Context) error {
	found, err := a.opts.Driver.List(ctx)
	if err != nil {
		return err
	}
	var undeclared []v1alpha1.UndeclaredMember
	for _, f := range found {
		m := &v1alpha1.EtcdMember{}
		err = a.opts.Store.Get(ctx, store.Key{Namespace: f.Namespace, Name: f.Name}, m)
		if err == nil && m.UID == f.UID {
			continue
		}
		if err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrForbidden) {
			return err
		}
		undeclared = append(undeclared, v1alpha1.UndeclaredMember{
			Namespace: f.Namespace, Name: f.Name, UID: string(f.UID), Home: f.Home, PID: f.PID,
		})
	}
	boot, err := process.BootID()
	if err != nil {
		return err
	}
	host := &v1alpha1.EtcdHost{}
	var before []v1alpha1.UndeclaredMember
	err = store.MutateStatus(ctx, a.opts.Store, store.Key{Name: a.opts.Host}, host, func(h *v1alpha1.EtcdHost) (bool, error) {
		was := h.Status.DeepCopy()
		before = was.Undeclared
		h.Status.Platform = runtime.GOOS + "/" + runtime.GOARCH
		h.Status.AgentVersion, h.Status.BootID = version.Version(), boot
		h.Status.FaultsAllowed = a.opts.AllowFaults
		h.Status.Supervision, h.Status.Cgroups = a.opts.Driver.Supervision(), a.opts.Driver.Cgroups()
		h.Status.Used = a.opts.Driver.Used()
		h.Status.Undeclared, h.Status.UndeclaredCount = undeclared, int64(len(undeclared))
		return !v1alpha1.Equal(*was, h.Status), nil
	})
	if err != nil {
		return err
	}
	for _, u := range undeclared {
		if slices.ContainsFunc(before, func(b v1alpha1.UndeclaredMember) bool { return b.UID == u.UID }) {
			continue
		}
		state := "no etcd of it runs"
		if u.PID > 0 {
			state = fmt.Sprintf("its etcd runs with pid %d", u.PID)
		}
		a.opts.Recorder.Record(ctx, store.About(host, store.Event{
			Type: store.Warning, Reason: "UndeclaredMember", Source: "agent/" + a.opts.Host,
			Message: fmt.Sprintf("member %s/%s in %s has no object; %s; it is left alone", u.Namespace, u.Name, u.Home, state),
		}))
	}
	return nil
}

// collect removes retired data whose time is over.
func (a *Agent) collect(ctx context.Context) error {
	_, err := a.opts.Driver.Collect(ctx)
	return err
}

// mine lists the host's members.
func (a *Agent) mine(ctx context.Context) ([]*v1alpha1.EtcdMember, error) {
	objects, err := a.opts.Store.List(ctx, v1alpha1.KindMember, store.ListOptions{})
	if err != nil {
		return nil, err
	}
	var members []*v1alpha1.EtcdMember
	for _, o := range objects {
		if m, ok := o.(*v1alpha1.EtcdMember); ok && m.Spec.Host == a.opts.Host {
			members = append(members, m)
		}
	}
	return members, nil
}

// mark asks the host's etcds how far they are and has it remembered.
func (a *Agent) mark(ctx context.Context) error {
	members, err := a.mine(ctx)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	for _, m := range members {
		if m.Status.Process != nil && m.Status.ClientURL != "" {
			wg.Go(func() { a.markOne(ctx, m) })
		}
	}
	wg.Wait()
	return nil
}

func (a *Agent) markOne(ctx context.Context, m *v1alpha1.EtcdMember) {
	ctx, cancel := context.WithTimeout(ctx, 800*time.Millisecond)
	defer cancel()
	target, err := a.target(m, m.Status.ClientURL)
	if err != nil {
		return
	}
	st, err := a.pool.Status(ctx, target)
	if err != nil || st.MemberID.String() != m.Spec.MemberID {
		// Before its ID is recorded, whoever answers may be a stranger on its port.
		return
	}
	if err := a.opts.Driver.Mark(m, int64(st.Term), int64(st.AppliedIndex)); err != nil { //nolint:gosec // raft positions stay far below 2^63
		a.opts.Logger.WarnContext(ctx, "a member's position could not be remembered", slog.String("member", m.Name), slog.Any("error", err))
	}
}

func (a *Agent) target(m *v1alpha1.EtcdMember, endpoint string) (etcd.Target, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	config, ok := a.tls[m.UID]
	if !ok {
		var err error
		if config, err = a.opts.Driver.ClientTLS(m); err != nil {
			return etcd.Target{}, err
		}
		a.tls[m.UID] = config
	}
	return etcd.Target{Endpoint: endpoint, TLS: config}, nil
}

// mayRestart looks, just before a member is restarted, whether the others are a
// quorum without it. A member that refuses connections serves nobody and may
// always be restarted; one that merely does not answer may be slow, and one that
// knows no leader may be in an election that needs it.
func (a *Agent) mayRestart(ctx context.Context, m *v1alpha1.EtcdMember) error {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	own, err := a.target(m, m.Status.ClientURL)
	if err != nil {
		return fmt.Errorf("it can't be told whether it serves: %w", err)
	}
	st, err := a.status(ctx, own)
	if errors.Is(err, etcd.ErrRefused) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("it can't be told whether it serves: %w", err)
	}
	if st.Learner {
		return nil // no quorum counts it, and it lists no members
	}
	members, err := a.pool.LocalMembers(ctx, own)
	if err != nil {
		return fmt.Errorf("it runs, but its cluster can't be listed: %w", err)
	}
	voters, others := 0, 0
	for _, peer := range members {
		if peer.Learner {
			continue
		}
		voters++
		if peer.ID == st.MemberID || len(peer.ClientURLs) == 0 {
			continue
		}
		target, err := a.target(m, peer.ClientURLs[0])
		if err != nil {
			return err
		}
		if _, err := a.status(ctx, target); err == nil {
			others++
		}
	}
	// Without it they are no quorum, and with it they are one: it is needed.
	if need := voters/2 + 1; voters >= 3 && others < need && others+1 >= need {
		return fmt.Errorf("only %d of the other %d members answer, and %d are needed without it", others, voters-1, need)
	}
	return nil
}

func (a *Agent) status(ctx context.Context, target etcd.Target) (etcd.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return a.pool.Status(ctx, target)
}
