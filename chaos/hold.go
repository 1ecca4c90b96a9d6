package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/google/nftables"

	"github.com/quorate/quorate/internal/process"
)

// grace is how long after its deadline a holder is killed by the kernel.
const grace = 5 * time.Second

// graceOf adds what a process may take to end.
func graceOf(d Disturbance) time.Duration {
	if startsAgain(d) {
		return grace + deathPatience
	}
	return grace
}

// hold is a disturbance in the process that holds it, or undoes it.
type hold struct {
	*Record
	dir     string
	program program
	// files of the target that its successor gets, see Launch.
	files []*os.File
	// free lets the threads of a paused process go, and says how that went.
	free func() error
	// signalled says that the target was told to end.
	signalled bool
	// gone is closed when the paused process has ended.
	gone chan struct{}
	// rules is the socket that owns the table of a partition.
	rules *nftables.Conn
	guard *guard
}

// Hold is the process of one disturbance: it reads an order from in, as Start writes it,
// does it, says so on out, and undoes it at the deadline, when ctx ends, on SIGTERM, or
// when its target has ended. An error is told on out too.
//
// It is meant to have a process for itself, started by Start: signals that would end it
// are ignored, and the kernel kills the process if it is still there after the deadline.
func Hold(ctx context.Context, in io.Reader, out io.Writer) error {
	// Who started it may be gone, and its terminal.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP, syscall.SIGINT)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	lines := bufio.NewReader(in)
	var o order
	line, err := lines.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read the order on standard input, which whoever starts a disturbance writes there: %w", err)
	}
	if err = json.Unmarshal(line, &o); err != nil {
		return fmt.Errorf("the order on standard input: %w", err)
	}
	if o.Guard != nil {
		return keepGuard(ctx, lines, out, o)
	}
	say := func(w word) { _ = json.NewEncoder(out).Encode(w) } // nobody may listen any more
	if err = holdOrder(ctx, o, say); err != nil {
		say(word{Error: err.Error()})
		return err
	}
	say(word{Ended: true})
	return nil
}

func holdOrder(ctx context.Context, o order, say func(word)) error {
	d := o.Disturbance
	kind, err := d.check()
	if err != nil {
		return err
	}
	self, err := process.Identify(os.Getpid())
	if err != nil {
		return err
	}
	h := &hold{dir: o.Dir, program: o.Program, Record: &Record{ID: o.ID, Disturbance: d, Holder: self}}
	if err = watchdog(d.For + graceOf(d)); err != nil {
		return err
	}
	if err = kind.prepare(h); err != nil {
		return err
	}
	h.Began = time.Now()
	h.Deadline = h.Began.Add(d.For)
	if h.Launch != nil {
		if h.guard, err = startGuard(h); err != nil {
			return err
		}
		h.Guard = h.guard.id
	}
	if err = h.save(o.Dir); err != nil {
		h.guard.dismiss()
		return err
	}
	if err = kind.begin(ctx, h); err == nil {
		deadline := time.NewTimer(d.For)
		defer deadline.Stop()
		say(word{Began: h.Record})
		select {
		case <-deadline.C:
		case <-ctx.Done():
		case <-h.gone:
		}
	}
	return errors.Join(err, h.finish(ctx, kind))
}

// finish undoes, and strikes the record off. What could not be undone stays in the
// ledger, for a sweep.
func (h *hold) finish(ctx context.Context, kind *Kind) (err error) {
	unlock, err := lock(h.dir, h.ID)
	if err != nil {
		return errors.Join(err, kind.end(context.WithoutCancel(ctx), h))
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err = kind.end(context.WithoutCancel(ctx), h); err != nil {
		return fmt.Errorf("undo %s: %w", h.ID, err)
	}
	err = strike(h.dir, h.ID)
	h.guard.dismiss()
	return err
}
