package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/quorate/quorate/internal/process"
)

// guard is the process that takes a holder's place when it is killed. It sees that by
// the end of its standard input, whose other end the holder alone has.
type guard struct {
	id   process.ID
	line io.WriteCloser
	wait func() error
}

// dismissed is what a guard is told when all has been undone.
const dismissed = "undone\n"

// startGuard starts the guard of a record that is not in the ledger yet.
func startGuard(h *hold) (*guard, error) {
	o := order{ID: h.ID, Dir: h.dir, Guard: h.Record}
	cmd := detached(h.program)
	for _, f := range h.files {
		o.Files = append(o.Files, f != nil)
		if f != nil {
			cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		}
	}
	line, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err = cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the guard of %s: %w", h.ID, err)
	}
	g := &guard{line: in, wait: cmd.Wait}
	if g.id, err = process.Identify(cmd.Process.Pid); err == nil {
		_, err = in.Write(append(line, '\n'))
	}
	if err == nil {
		// It has its order and ignores what would end it.
		_, err = bufio.NewReader(out).ReadString('\n')
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the guard of %s: %w", h.ID, err), cmd.Process.Kill(), cmd.Wait())
	}
	return g, nil
}

// dismiss ends the guard; it has nothing to undo.
func (g *guard) dismiss() {
	if g == nil {
		return
	}
	if _, err := io.WriteString(g.line, dismissed); err != nil {
		return // it was killed: there is nobody to dismiss
	}
	_ = g.line.Close() // it has read all it wants
	_ = g.wait()       // however it ended, nothing is left for it
}

// keepGuard is the guard's process: it waits until it is dismissed, or undoes.
func keepGuard(ctx context.Context, in *bufio.Reader, out io.Writer, o order) error {
	ctx = context.WithoutCancel(ctx) // its order is to outlive whoever tells it to end
	files := make([]*os.File, len(o.Files))
	fd := uintptr(3)
	for i, given := range o.Files {
		if given {
			closeOnExec(fd)
			files[i] = os.NewFile(fd, "")
			fd++
		}
	}
	if err := watchdog(o.Guard.Disturbance.For + 2*graceOf(o.Guard.Disturbance)); err != nil {
		return err
	}
	if _, err := io.WriteString(out, "\n"); err != nil {
		return err
	}
	if told, err := in.ReadString('\n'); err == nil && told == dismissed {
		return nil
	}
	return settle(ctx, o.Dir, o.ID, files...)
}
