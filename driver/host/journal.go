package host

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"strconv"

	"github.com/quorate/quorate/driver"
)

// journal reads what a unit said, as journalctl tells it: the files of the journal are
// systemd's own.
func journal(ctx context.Context, unit string, opts driver.LogOptions) (io.ReadCloser, error) {
	lines := "all"
	if opts.Tail >= 0 {
		lines = strconv.Itoa(opts.Tail)
	}
	args := []string{"--unit=" + unit, "--output=cat", "--no-pager", "--quiet", "--lines=" + lines}
	if opts.Follow {
		args = append(args, "--follow")
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, "journalctl", args...) //nolint:gosec // a unit of ours
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("read the journal of %s: %w", unit, err)
	}
	return &journalReader{ReadCloser: out, cmd: cmd, cancel: cancel}, nil
}

// journalReader ends its journalctl when it is closed.
type journalReader struct {
	io.ReadCloser
	cmd    *exec.Cmd
	cancel context.CancelFunc
}

// Close implements io.Closer.
func (j *journalReader) Close() error {
	j.cancel()
	// It was ended by us: how it ended says nothing.
	_ = j.cmd.Wait()
	return nil
}
