package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/quorate/quorate/store"
)

// workerPatience is how long a worker may take to end by itself: it takes back what
// it wrote.
const workerPatience = 30 * time.Second

// load drives a load in a process of its own, so that it costs the agent nothing but
// its time, and its end takes all with it.
func (a *Agent) load(ctx context.Context, specification []byte) (io.ReadCloser, error) {
	if len(a.opts.Worker) == 0 {
		return nil, fmt.Errorf("%w: no load is driven from host %s: start its agent with --allow-load where that may be", store.ErrForbidden, a.opts.Host)
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, a.opts.Worker[0], a.opts.Worker[1:]...) //nolint:gosec // the agent's own executable
	cmd.Stdin = bytes.NewReader(specification)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = workerPatience
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	w := &worker{cmd: cmd, cancel: cancel, host: a.opts.Host}
	cmd.Stderr = &w.said
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("start the worker on host %s: %w", a.opts.Host, err)
	}
	w.out = out
	a.opts.Logger.InfoContext(ctx, "a load is driven from here, as was asked for", slog.Int("pid", cmd.Process.Pid))
	return w, nil
}

// worker is a load that is being driven. Reading it tells how it ends.
type worker struct {
	cmd    *exec.Cmd
	cancel context.CancelFunc
	host   string
	out    io.Reader
	said   last

	once sync.Once
	err  error
}

// Read reads what the worker writes; its failure is the last of it.
func (w *worker) Read(p []byte) (int, error) {
	n, err := w.out.Read(p)
	if err == nil || n > 0 {
		return n, nil
	}
	if failed := w.wait(); failed != nil {
		return 0, failed
	}
	return 0, io.EOF
}

// Close ends the load if it has not ended.
func (w *worker) Close() error {
	w.cancel()
	_ = w.wait() // who closes it wants no more of it
	return nil
}

func (w *worker) wait() error {
	w.once.Do(func() {
		defer w.cancel()
		if err := w.cmd.Wait(); err != nil {
			w.err = fmt.Errorf("the worker on host %s: %w", w.host, errors.Join(err, w.said.error()))
		}
	})
	return w.err
}

// last keeps the end of what was written.
type last struct {
	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (l *last) Write(p []byte) (int, error) {
	const keep = 2 << 10
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	if len(l.text) > keep {
		l.text = l.text[len(l.text)-keep:]
	}
	return len(p), nil
}

func (l *last) error() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if text := strings.TrimSpace(string(l.text)); text != "" {
		return errors.New(text)
	}
	return nil
}
