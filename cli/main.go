package cli

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Stdio are the streams of a command.
type Stdio struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// Main runs the command that args name and returns its exit code; args[0] is the
// name of the program. Under the name etcd, etcdctl or etcdutl it is that program,
// which ends the process itself. The first interrupt ends the context of the
// command.
func Main(ctx context.Context, args []string, stdio Stdio) int {
	if code, ok := runAs(args); ok {
		return code
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	e := newEnv(args, stdio)
	root := newRoot(e) //nolint:contextcheck // commands get theirs from ExecuteContext
	root.SetArgs(args[1:])
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code := exitCode(err)
	if text := errorText(err); text != "" {
		e.errorf("error: %s\n", text)
	}
	return code
}

// Root is the tree of commands, for documentation and tests.
func Root() *cobra.Command {
	return newRoot(newEnv([]string{"quorate"}, Stdio{In: eof{}, Out: io.Discard, Err: io.Discard}))
}

// eof is an empty input.
type eof struct{}

// Read implements io.Reader.
func (eof) Read([]byte) (int, error) { return 0, io.EOF }
