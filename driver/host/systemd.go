package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"

	"github.com/quorate/quorate/internal/atomicfile"
)

// SystemdOptions are what OpenSystemd takes.
type SystemdOptions struct {
	// Executable that units run as the supervisor: a path that stays when the program is
	// upgraded. Default: where this program's own file is.
	Executable string
	// UnitDir holds the units. Default: /etc/systemd/system. Why: what is there comes back
	// after a boot, before any agent.
	UnitDir string
}

// Systemd is the systemd of this host.
type Systemd struct {
	opts SystemdOptions
}

// OpenSystemd finds the host's systemd. The error says why it can't be used, and that
// supervisors have sessions of their own then.
func OpenSystemd(ctx context.Context, opts SystemdOptions) (*Systemd, error) {
	if fi, err := os.Stat("/run/systemd/system"); err != nil || !fi.IsDir() {
		return nil, errors.New("systemd does not run on this host (there is no /run/systemd/system): each supervisor has a session of its own")
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("systemd is left alone, since this is not root: each supervisor has a session of its own")
	}
	if opts.UnitDir == "" {
		opts.UnitDir = "/etc/systemd/system"
	}
	if opts.Executable == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find this program, which units are to run: %w", err)
		}
		opts.Executable = self
	}
	s := &Systemd{opts: opts}
	err := s.ask(ctx, func(c *dbus.Conn) error {
		_, err := c.SystemStateContext(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("systemd runs, but does not answer: %w: each supervisor has a session of its own", err)
	}
	return s, nil
}

// ask connects for one question: systemd may be started anew at any time.
func (s *Systemd) ask(ctx context.Context, do func(*dbus.Conn) error) error {
	c, err := dbus.NewWithContext(ctx)
	if err != nil {
		return fmt.Errorf("ask systemd: %w", err)
	}
	defer c.Close()
	return do(c)
}

// Cgroups says which control groups systemd has on this host, as EtcdHost's status does.
func (s *Systemd) Cgroups() string {
	if raw, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return told("v2", strings.Fields(string(raw)), []string{"cpu", "memory", "io"})
	}
	var have []string
	for _, c := range []string{"cpu", "memory", "blkio"} {
		if _, err := os.Stat(filepath.Join("/sys/fs/cgroup", c, "cgroup.procs")); err == nil {
			have = append(have, c)
		}
	}
	return told("v1", have, []string{"cpu", "memory", "blkio"})
}

func told(version string, have, want []string) string {
	var used []string
	for _, w := range want {
		for _, h := range have {
			if h == w {
				used = append(used, w)
			}
		}
	}
	if len(used) == 0 {
		return "none: systemd has no controllers here; nice and I/O priority instead"
	}
	return version + ": " + strings.Join(used, ", ")
}

// install writes a unit so that it comes back after a boot, and reports whether it
// changed.
func (s *Systemd) install(ctx context.Context, c *dbus.Conn, unit, text string) (bool, error) {
	file := filepath.Join(s.opts.UnitDir, unit)
	if have, err := os.ReadFile(file); err == nil && string(have) == text { //nolint:gosec // our own unit
		return false, nil
	}
	if err := atomicfile.Write(file, []byte(text), 0o644); err != nil {
		return false, fmt.Errorf("write the member's unit: %w", err)
	}
	if _, _, err := c.EnableUnitFilesContext(ctx, []string{file}, false, true); err != nil {
		return true, fmt.Errorf("enable %s: %w", unit, err)
	}
	if err := c.ReloadContext(ctx); err != nil {
		return true, fmt.Errorf("have systemd read %s: %w", unit, err)
	}
	return true, nil
}

// start starts a unit and returns its process.
func (s *Systemd) start(ctx context.Context, c *dbus.Conn, unit string) (int, error) {
	// One that failed too often is not started before it is forgiven.
	_ = c.ResetFailedUnitContext(ctx, unit)
	done := make(chan string, 1)
	if _, err := c.StartUnitContext(ctx, unit, "replace", done); err != nil {
		return 0, fmt.Errorf("start %s: %w", unit, err)
	}
	select {
	case result := <-done:
		if result != "done" {
			return 0, fmt.Errorf("start %s: systemd says %q: see `systemctl status %s`", unit, result, unit)
		}
	case <-ctx.Done():
		return 0, fmt.Errorf("start %s: %w", unit, ctx.Err())
	}
	return s.mainPID(ctx, c, unit)
}

func (s *Systemd) mainPID(ctx context.Context, c *dbus.Conn, unit string) (int, error) {
	p, err := c.GetServicePropertyContext(ctx, unit, "MainPID")
	if err != nil {
		return 0, fmt.Errorf("the process of %s: %w", unit, err)
	}
	pid, _ := p.Value.Value().(uint32)
	return int(pid), nil
}

// result returns how the unit's latest process ended, nil if well.
func (s *Systemd) result(ctx context.Context, unit string) error {
	ctx, cancel := context.WithTimeout(ctx, systemdPatience)
	defer cancel()
	return s.ask(ctx, func(c *dbus.Conn) error {
		p, err := c.GetServicePropertyContext(ctx, unit, "Result")
		if err != nil {
			return fmt.Errorf("how %s ended: %w", unit, err)
		}
		if r, _ := p.Value.Value().(string); r != "success" {
			return fmt.Errorf("%s ended: %s", unit, r)
		}
		return nil
	})
}

// uninstall removes a unit whose member is gone. It stops nothing: that was proven.
func (s *Systemd) uninstall(ctx context.Context, unit string) error {
	file := filepath.Join(s.opts.UnitDir, unit)
	if _, err := os.Lstat(file); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return s.ask(ctx, func(c *dbus.Conn) error {
		_, err := c.DisableUnitFilesContext(ctx, []string{unit}, false)
		_ = c.ResetFailedUnitContext(ctx, unit)
		return errors.Join(err, os.Remove(file), c.ReloadContext(ctx))
	})
}

// weighs reports whether systemd can give weights to CPU here.
func (s *Systemd) weighs() bool { return strings.Contains(s.Cgroups(), "cpu") }
