package app

import (
	"context"
	"path/filepath"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/hosts/preflight"
	"github.com/quorate/quorate/store/remote"
)

// hostChecks are the checks of this machine, with the server's clock.
type hostChecks struct {
	machine preflight.Machine
	opts    preflight.Options
}

func newHostChecks(opts AgentOptions, client *remote.Client) *hostChecks {
	o := preflightOptions(opts.DataDir)
	o.Address, o.FirstPort, o.Ephemeral = opts.Address, int(opts.FirstPort), opts.Ephemeral
	o.ServerTime = func(ctx context.Context) (preflight.Reading, error) {
		offset, within, err := client.ClockOffset(ctx)
		return preflight.Reading{Offset: offset, Error: within}, err
	}
	return &hostChecks{opts: o}
}

// preflightOptions are those of the members below a data directory.
func preflightOptions(dataDir string) preflight.Options {
	if abs, err := filepath.Abs(dataDir); err == nil {
		dataDir = abs
	}
	return preflight.Options{Dir: filepath.Join(dataDir, "members")}
}

// Check implements agent.Preflight.
func (h *hostChecks) Check(ctx context.Context, peers []string, light bool) []v1alpha1.HostCheck {
	o := h.opts
	o.Peers, o.Light = peers, light
	return preflight.Run(ctx, &h.machine, o)
}

// Capacity implements agent.Preflight.
func (h *hostChecks) Capacity(ctx context.Context) v1alpha1.Resources {
	return preflight.Capacity(ctx, &h.machine, h.opts.Dir)
}

// CheckLocal checks this machine for members below a data directory, without a server.
// Address that they are to listen on and peers may be empty.
func CheckLocal(ctx context.Context, dataDir, address string, peers []string) []v1alpha1.HostCheck {
	o := preflightOptions(dataDir)
	o.Address, o.Peers = address, peers
	m := &preflight.Machine{}
	etcds, err := m.Etcds()
	o.Light = err != nil || o.Hosts(etcds)
	return preflight.Run(ctx, m, o)
}
