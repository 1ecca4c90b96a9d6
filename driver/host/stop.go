package host

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver"
	"github.com/quorate/quorate/driver/host/supervisor"
	"github.com/quorate/quorate/internal/backoff"
)

// stopPoll is how often a stop that is under way is looked at.
const stopPoll = 30 * time.Millisecond

// Stop implements driver.Driver. It waits for the supervisor's proof until ctx
// ends; a supervisor is started where etcd may run without one. A stop takes up to
// its grace of 10 s; the order stands even when Stop returns early, so that it can
// be asked again.
func (d *Driver) Stop(ctx context.Context, m *v1alpha1.EtcdMember) (v1alpha1.StopProof, error) {
	if err := named(m); err != nil {
		return v1alpha1.StopProof{}, err
	}
	h := d.home(m)
	defer d.lock(h)()
	v := d.look(h)
	if why := d.missing(m, v); why != "" {
		return v1alpha1.StopProof{}, fmt.Errorf("%w: %s/%s: %s", driver.ErrNotStopped, m.Namespace, m.Name, why)
	}
	if !v.there || v.neverStarted() {
		return d.proveNeverStarted(m, v)
	}
	if err := d.stopOrder(m, h); err != nil {
		return v1alpha1.StopProof{}, fmt.Errorf("%w: %s/%s: the order to stop can't be written: %w", driver.ErrNotStopped, m.Namespace, m.Name, err)
	}
	d.nudge(ctx, h)
	for {
		v = d.look(h)
		if proof := v.proof(); proof != nil && v.state != nil && v.state.Phase == v1alpha1.MemberStopped {
			d.together(ctx, h)
			return d.checked(m, h, *proof)
		}
		why := "its supervisor is still stopping it"
		if !v.held {
			// Also where no etcd seems to run: whoever holds the lock can tell for sure.
			why = "a supervisor is being started to stop it"
			if err := d.spawn(ctx, h); err != nil {
				why = err.Error()
			}
		}
		if err := backoff.Sleep(ctx, stopPoll); err != nil {
			return v1alpha1.StopProof{}, fmt.Errorf("%w: %s/%s: %s; ask again", driver.ErrNotStopped, m.Namespace, m.Name, why)
		}
	}
}

// proveNeverStarted looks through all processes, since a home that is missing may
// only be out of reach.
func (d *Driver) proveNeverStarted(m *v1alpha1.EtcdMember, v *view) (v1alpha1.StopProof, error) {
	if v.stateErr != nil {
		return v1alpha1.StopProof{}, fmt.Errorf("%w: %s/%s: its home can't be looked at: %w", driver.ErrNotStopped, m.Namespace, m.Name, v.stateErr)
	}
	proof := v1alpha1.StopProof{At: v1alpha1.Now(), Evidence: supervisor.EvidenceNeverStarted}
	if !v.there {
		proof.Evidence = "no home of the member on this host, and no process runs on its data directory"
	} else if err := d.stopOrder(m, v.home); err != nil {
		return v1alpha1.StopProof{}, fmt.Errorf("%w: %s/%s: the order to stop can't be written: %w", driver.ErrNotStopped, m.Namespace, m.Name, err)
	}
	return d.checked(m, v.home, proof)
}

// checked returns the proof once all processes have been looked through, whatever
// files say.
func (d *Driver) checked(m *v1alpha1.EtcdMember, h supervisor.Home, proof v1alpha1.StopProof) (v1alpha1.StopProof, error) {
	dataDir := h.DataDir()
	found, runs, err := supervisor.Scan(dataDir)
	if err != nil {
		return v1alpha1.StopProof{}, fmt.Errorf("%w: %s/%s: %w", driver.ErrNotStopped, m.Namespace, m.Name, err)
	}
	if runs {
		d.log.Error("an etcd runs in spite of a proof that it does not", slog.String("home", string(h)), slog.Int("pid", found.ID.PID))
		return v1alpha1.StopProof{}, fmt.Errorf("%w: %s/%s: process %d runs on %s, which no supervisor watches; look after its home, or end it by hand", driver.ErrNotStopped, m.Namespace, m.Name, found.ID.PID, dataDir)
	}
	return proof, nil
}
