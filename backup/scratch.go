package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/etcd"
)

const (
	scratchPrefix = "quorate-scratch-"
	scratchData   = "data"
	scratchLog    = "etcd.log"
	// scratchPeer and scratchClient are sockets in the scratch directory, which only
	// its owner enters: the data has no other guard, since the scratch etcd asks nobody
	// for a password.
	scratchPeer   = "unix://peer:1"
	scratchClient = "client:1"
	scratchMember = "scratch"
	// minQuota is etcd's quota on the scratch copy unless it is larger itself.
	minQuota = 8 << 30
	// startTime is how long etcd may take until it answers, and what it gets on top for
	// each byte: it reads all keys at its start.
	startTime    = 30 * time.Second
	startPerByte = 100 * time.Nanosecond
	logTail      = 2 << 10
)

var (
	// ErrScratch says that the restored etcd could not be tried.
	ErrScratch = errors.New("the scratch etcd did not serve")
	// errRejected: etcd ended by itself on the restored data.
	errRejected = errors.New("etcd does not run on the restored data")
)

// EtcdCommand runs an etcd.
type EtcdCommand struct {
	// Path of the executable, and Name it is called by: an executable with several jobs
	// looks at it.
	Path, Name string
	// Version it is.
	Version string
}

// scratch is an etcd that runs on restored data, where nobody else reaches it.
type scratch struct {
	home   string
	cmd    *exec.Cmd
	client *clientv3.Client
	dir    *os.File
	ended  chan struct{}
	status error
}

// startScratch starts etcd on home/data and waits until it answers.
func startScratch(ctx context.Context, e EtcdCommand, home string, size int64) (_ *scratch, err error) {
	s := &scratch{home: home, ended: make(chan struct{})}
	log, err := os.OpenFile(filepath.Join(home, scratchLog), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600) //nolint:gosec // our own directory
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrScratch, err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	url := "unix://" + scratchClient
	s.cmd = &exec.Cmd{
		Path: e.Path, Dir: home, Stdout: log, Stderr: log,
		Args: []string{
			e.Name, "--name", scratchMember, "--data-dir", scratchData,
			"--listen-client-urls", url, "--advertise-client-urls", url,
			"--listen-peer-urls", scratchPeer, "--initial-advertise-peer-urls", scratchPeer, "--initial-cluster", scratchMember + "=" + scratchPeer,
			"--quota-backend-bytes", strconv.FormatInt(max(minQuota, 2*size), 10),
			"--enable-grpc-gateway=false", "--log-level", "warn", "--logger", "zap",
			// The copy is thrown away: nothing is lost when the machine stops.
			"--unsafe-no-fsync",
		},
		// An ETCD_NAME in the shell of whoever called must not reach it.
		Env: []string{},
		// Killed with this process, so that nothing is left running on a copy of the data.
		// The kernel means the thread that starts it; Go's threads stay.
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}
	if s.dir, err = os.Open(home); err != nil { //nolint:gosec // our own directory
		return nil, fmt.Errorf("%w: %w", ErrScratch, err)
	}
	if err = s.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: start %s: %w", ErrScratch, e.Path, err), s.dir.Close())
	}
	go func() {
		s.status = s.cmd.Wait()
		close(s.ended)
	}()
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	// By way of the directory's descriptor: the path of a socket has at most 107 bytes.
	s.client, err = etcd.Dial(etcd.Target{Endpoint: fmt.Sprintf("unix:///proc/self/fd/%d/%s", s.dir.Fd(), scratchClient)})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrScratch, err)
	}
	return s, s.ready(ctx, startTime+time.Duration(size)*startPerByte)
}

func (s *scratch) ready(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		askCtx, cancelAsk := context.WithTimeout(ctx, time.Second)
		_, err := s.client.Get(askCtx, "\x00")
		cancelAsk()
		if err == nil {
			return nil
		}
		select {
		case <-s.ended:
			return fmt.Errorf("%w: %w (%w): %s", ErrScratch, errRejected, s.status, s.tail())
		case <-ctx.Done():
			return fmt.Errorf("%w within %s: %w: %s", ErrScratch, patience.Round(time.Second), err, s.tail())
		case <-time.After(50 * time.Millisecond): // etcd tells nobody when it is ready
		}
	}
}

// tail is the end of etcd's log.
func (s *scratch) tail() string {
	raw, err := os.ReadFile(filepath.Join(s.home, scratchLog))
	if err != nil {
		return err.Error()
	}
	raw = bytes.TrimSpace(raw)
	return "its log ends: " + string(raw[max(0, len(raw)-logTail):])
}

// stop ends it; it has nothing to save.
func (s *scratch) stop() error {
	var errs []error
	if s.client != nil {
		errs = append(errs, s.client.Close())
	}
	select {
	case <-s.ended:
	default:
		// It may have ended by itself just now.
		if err := s.cmd.Process.Kill(); !errors.Is(err, os.ErrProcessDone) {
			errs = append(errs, err)
		}
		<-s.ended
	}
	return errors.Join(append(errs, s.dir.Close())...)
}

// peak is the most memory it had, in bytes, once it has ended.
func (s *scratch) peak() int64 {
	if usage, ok := s.cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		return usage.Maxrss << 10
	}
	return 0
}
