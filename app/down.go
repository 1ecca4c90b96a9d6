package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/host"
	"github.com/quorate/quorate/driver/host/supervisor"
	"github.com/quorate/quorate/store"
)

// DownOptions say what to bring down.
type DownOptions struct {
	// DataDir of the `up` that is stuck or was killed.
	DataDir string
	// DryRun only says what would be stopped.
	DryRun bool
	// Logger; none by default.
	Logger *slog.Logger
	// Progress is told what happens.
	Progress func(string)
}

// Down stops the `up` of a data directory, should it still run, and every member
// below it. Data is kept, save that of an ephemeral one.
func Down(ctx context.Context, opts DownOptions) error {
	if opts.Progress == nil {
		opts.Progress = func(string) {}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	p := paths(opts.DataDir)
	was, err := readUp(p)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no `quorate up` is running or was left behind on %s: name its directory with --data-dir: %w", opts.DataDir, store.ErrNotFound)
	}
	if err != nil {
		return err
	}
	if opts.DryRun {
		if was.Process.Alive() {
			opts.Progress(fmt.Sprintf("would end `quorate up` with pid %d", was.Process.PID))
		}
		return eachMember(ctx, opts.DataDir, opts.Logger, func(_ *host.Driver, m *v1alpha1.EtcdMember, pid int64) error {
			if pid > 0 {
				opts.Progress(fmt.Sprintf("would stop %s, pid %d", m.Name, pid))
			}
			return nil
		})
	}
	// It goes first: its agent would start the members again.
	if was.Process.Alive() {
		opts.Progress(fmt.Sprintf("ending `quorate up` with pid %d", was.Process.PID))
		if err := end(ctx, was); err != nil {
			return err
		}
	}
	if err := stopMembers(ctx, opts.DataDir, opts.Logger, opts.Progress); err != nil {
		return err
	}
	if was.Ephemeral {
		opts.Progress("removing the ephemeral directory " + opts.DataDir)
		return os.RemoveAll(opts.DataDir)
	}
	if err := os.Remove(p.up()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// end asks a process of `up` to end, and kills it if it does not.
func end(ctx context.Context, was upRecord) error {
	const patience = 30 * time.Second
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := was.Process.Signal(sig); err != nil {
			if !was.Process.Alive() {
				return nil
			}
			return fmt.Errorf("end `quorate up` with pid %d: %w", was.Process.PID, err)
		}
		waitCtx, cancel := context.WithTimeout(ctx, patience)
		err := was.Process.Wait(waitCtx)
		cancel()
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return fmt.Errorf("`quorate up` with pid %d does not end", was.Process.PID)
}

// stopMembers stops every member below a data directory, one after another: a
// leader that stops hands leadership over first, and would wait seconds for a
// follower that is stopping at the same time.
func stopMembers(ctx context.Context, dataDir string, log *slog.Logger, progress func(string)) error {
	return eachMember(ctx, dataDir, log, func(d *host.Driver, m *v1alpha1.EtcdMember, pid int64) error {
		proof, err := d.Stop(ctx, m)
		if err != nil {
			return fmt.Errorf("stop %s: %w", m.Name, err)
		}
		if pid > 0 {
			progress(fmt.Sprintf("%s stopped: %s", m.Name, proof.Evidence))
		}
		return nil
	})
}

func eachMember(ctx context.Context, dataDir string, log *slog.Logger, do func(d *host.Driver, m *v1alpha1.EtcdMember, pid int64) error) error {
	d, err := host.New(host.Options{Dir: dataDir, Address: upAddress, Releases: noReleases{}, Logger: log})
	if err != nil {
		return err
	}
	found, err := d.List(ctx)
	if err != nil {
		return err
	}
	errs := make([]error, 0, len(found))
	for _, f := range found {
		m := &v1alpha1.EtcdMember{}
		m.Namespace, m.Name, m.UID = f.Namespace, f.Name, f.UID
		errs = append(errs, do(d, m, f.PID))
	}
	return errors.Join(errs...)
}

// noReleases is for a driver that only stops.
type noReleases struct{}

// Path implements host.Releases.
func (noReleases) Path(context.Context, v1alpha1.ReleaseRef) (string, error) {
	return "", errors.New("this driver starts nothing")
}

// RunMember supervises the member whose home is given until it is told to stop.
func RunMember(ctx context.Context, home string, log *slog.Logger) error {
	return supervisor.Run(ctx, home, log)
}
