package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver"
	"github.com/quorate/quorate/internal/process"
	"github.com/quorate/quorate/store"
)

// Action is what the server asks for.
type Action string

// The actions.
const (
	// ReadLog reads the member's log.
	ReadLog Action = "log"
	// ReadMetrics reads the metrics of the member's etcd.
	ReadMetrics Action = "metrics"
	// Kill ends the member's etcd by SIGKILL.
	Kill Action = "kill"
	// Load drives a load from this host.
	Load Action = "load"
	// Check checks the host.
	Check Action = "check"
)

// Request is what the server asks of the agent.
type Request struct {
	Action Action
	// Member and UID name the member beyond doubt; empty for Load and Check.
	Member store.Key
	UID    v1alpha1.UID
	// Log options, for ReadLog.
	Log driver.LogOptions
	// Load is the specification of a load, for Load.
	Load []byte
	// Peers to measure round trips to, for Check.
	Peers []string
}

// Answer answers a request of the server.
type Answer = func(ctx context.Context, req Request) (io.ReadCloser, error)

// metricsTime bounds the reading of a member's metrics.
const metricsTime = 10 * time.Second

func (a *Agent) answer(ctx context.Context, req Request) (io.ReadCloser, error) {
	if req.Action == Load {
		return a.load(ctx, req.Load)
	}
	if req.Action == Check {
		return a.check(ctx, req.Peers)
	}
	m := &v1alpha1.EtcdMember{}
	if err := a.opts.Store.Get(ctx, req.Member, m); err != nil {
		return nil, err
	}
	if m.UID != req.UID || m.Spec.Host != a.opts.Host {
		return nil, fmt.Errorf("member %s on host %s: %w", req.Member, a.opts.Host, store.ErrNotFound)
	}
	switch req.Action {
	case ReadLog:
		return a.opts.Driver.Logs(ctx, m, req.Log)
	case ReadMetrics:
		return a.metrics(ctx, m)
	case Kill:
		return a.kill(ctx, m)
	default:
		return nil, fmt.Errorf("%w: the agent of host %s knows no request %q: give it the server's version of Quorate", store.ErrInvalid, a.opts.Host, req.Action)
	}
}

// metrics asks the member's etcd, where the driver says that it is: what stands in
// the object could lead anywhere.
func (a *Agent) metrics(ctx context.Context, m *v1alpha1.EtcdMember) (io.ReadCloser, error) {
	seen, err := a.opts.Driver.Observe(ctx, m)
	if err != nil {
		return nil, err
	}
	if seen.Process == nil || seen.MetricsURL == "" {
		return nil, notRunning(m)
	}
	ctx, cancel := context.WithTimeout(ctx, metricsTime)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, seen.MetricsURL+"/metrics", nil)
	if err != nil {
		cancel()
		return nil, err
	}
	resp, err := a.direct.RoundTrip(req)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.Join(fmt.Errorf("it answered %s", resp.Status), resp.Body.Close())
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("%w: the metrics of member %s at %s: %w: look at its log", store.ErrUnavailable, store.KeyOf(m), seen.MetricsURL, err)
	}
	return &bounded{resp.Body, cancel}, nil
}

// bounded ends its request when it is closed.
type bounded struct {
	io.ReadCloser

	cancel context.CancelFunc
}

// Close ends the request.
func (b *bounded) Close() error {
	b.cancel()
	return b.ReadCloser.Close()
}

// kill ends the member's etcd without warning, as a crash would. Its supervisor
// starts it again.
func (a *Agent) kill(ctx context.Context, m *v1alpha1.EtcdMember) (io.ReadCloser, error) {
	if !a.opts.AllowFaults {
		return nil, fmt.Errorf("%w: the agent of host %s does not break members on purpose: start it with --allow-faults where that may be", store.ErrForbidden, a.opts.Host)
	}
	id, err := a.identify(ctx, m)
	if err != nil {
		return nil, err
	}
	if err = id.Signal(syscall.SIGKILL); errors.Is(err, process.ErrGone) {
		return nil, notRunning(m)
	}
	if err != nil {
		return nil, fmt.Errorf("kill the etcd of member %s, pid %d: %w", store.KeyOf(m), id.PID, err)
	}
	a.opts.Logger.WarnContext(ctx, "etcd killed, as was asked for", slog.String("member", store.KeyOf(m).String()), slog.Int("pid", id.PID))
	raw, err := json.Marshal(map[string]int{"pid": id.PID})
	if err != nil {
		return nil, err
	}
	return io.NopCloser(strings.NewReader(string(raw))), nil
}

// identify names the etcd of the member. The driver tells it by its pid and its
// start; it is asked before and after, so that the pid can't have passed to another
// in between.
func (a *Agent) identify(ctx context.Context, m *v1alpha1.EtcdMember) (process.ID, error) {
	before, err := a.opts.Driver.Observe(ctx, m)
	if err != nil {
		return process.ID{}, err
	}
	if before.Process == nil {
		return process.ID{}, notRunning(m)
	}
	id, err := process.Identify(int(before.Process.PID))
	if errors.Is(err, process.ErrGone) {
		return id, notRunning(m)
	}
	if err != nil {
		return id, err
	}
	after, err := a.opts.Driver.Observe(ctx, m)
	if err != nil {
		return id, err
	}
	if after.Process == nil || after.Process.PID != before.Process.PID || !after.Process.StartedAt.Equal(&before.Process.StartedAt) {
		return id, notRunning(m)
	}
	return id, nil
}

func notRunning(m *v1alpha1.EtcdMember) error {
	return fmt.Errorf("%w: no etcd of member %s runs at this moment: look at its status", store.ErrUnavailable, store.KeyOf(m))
}
