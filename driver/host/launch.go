package host

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/driver/host/cgroup"
	"github.com/quorate/quorate/driver/host/supervisor"
	"github.com/quorate/quorate/internal/process"
)

const (
	supervisorLogMax  = 1 << 20
	supervisorLogKeep = 2
)

// launcher starts supervisors, and keeps the members apart by their classes.
type launcher interface {
	// supervision names it.
	supervision() v1alpha1.Supervision
	// log says where a supervisor's own log is.
	log(h supervisor.Home) string
	// launch starts the home's supervisor. Where there is one already, the new one finds
	// the home locked and ends.
	launch(ctx context.Context, h supervisor.Home) (launched, error)
	// keepApart gives the member's processes what its order says of class and resources.
	keepApart(ctx context.Context, h supervisor.Home, o *supervisor.Order, pids []int) error
	// guard says whether Guaranteed members run on the host.
	guard(ctx context.Context, guaranteed bool) error
	// remove drops what was made for a home that is gone.
	remove(ctx context.Context, h supervisor.Home)
	// sweep drops what is left of homes that are gone.
	sweep(ctx context.Context)
}

// launched is a supervisor that was started.
type launched struct {
	// id is that of one that is not alive, if it has ended already.
	id process.ID
	// wait returns when it has ended, with the error if it did not end well.
	wait func(ctx context.Context) error
}

// sessions starts supervisors as processes of their own, each in its own session.
type sessions struct {
	driver *Driver
	groups *cgroup.Groups
}

func (*sessions) supervision() v1alpha1.Supervision { return v1alpha1.SupervisionSession }

func (*sessions) log(h supervisor.Home) string { return h.SupervisorLog() }

func (s *sessions) launch(ctx context.Context, h supervisor.Home) (launched, error) {
	cmd, err := s.start(h)
	if err != nil {
		return launched{}, err
	}
	id, _ := process.Identify(cmd.Process.Pid)
	if o, err := h.ReadOrder(); err == nil {
		// At once, so that its etcd is born where it belongs.
		if err := s.keepApart(ctx, h, o, []int{cmd.Process.Pid}); err != nil {
			s.driver.log.DebugContext(ctx, "keep a member apart", slog.String("home", string(h)), slog.Any("error", err))
		}
	}
	// Reaped by wait, so that it leaves no zombie.
	return launched{id: id, wait: func(context.Context) error { return cmd.Wait() }}, nil
}

func (s *sessions) keepApart(_ context.Context, h supervisor.Home, o *supervisor.Order, pids []int) error {
	return s.groups.Place(cgroup.Member{Name: filepath.Base(string(h)), Class: o.Class, Resources: o.Resources}, pids...)
}

func (s *sessions) guard(_ context.Context, guaranteed bool) error { return s.groups.Guard(guaranteed) }

func (s *sessions) remove(_ context.Context, h supervisor.Home) {
	s.groups.Remove(filepath.Base(string(h)))
}

func (s *sessions) sweep(context.Context) { s.groups.Sweep() }

// start starts it detached: in a session of its own, with nothing of
// this process but the log file.
func (s *sessions) start(h supervisor.Home) (cmd *exec.Cmd, err error) {
	if err = supervisor.RotatePlain(h.SupervisorLog(), supervisorLogMax, supervisorLogKeep); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(h.SupervisorLog(), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	args := append([]string{"quorate"}, s.driver.opts.Command...)
	cmd = &exec.Cmd{
		Path: s.driver.opts.Executable, Args: append(args, "--home", string(h)),
		Dir: string(h), Stdout: log, Stderr: log,
		Env:         []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	return cmd, cmd.Start()
}
