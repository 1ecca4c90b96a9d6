package release

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	probeTimeout = 20 * time.Second
	probeOutput  = 64 << 10
	// busyWait is between attempts to run a file that is still open for writing in a
	// process being forked elsewhere in this one. It lasts until that one executes.
	busyWait = 10 * time.Millisecond
)

var versionLine = regexp.MustCompile(`(?m)^etcd Version:\s*(\S+)\s*$`)

// askVersion runs an etcd executable with --version, in an empty environment.
func askVersion(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	out, err := runVersion(ctx, path)
	for errors.Is(err, unix.ETXTBSY) {
		timer := time.NewTimer(busyWait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return "", fmt.Errorf("%w: run etcd --version: %w", ErrUnsuitable, err)
		}
		out, err = runVersion(ctx, path)
	}
	if ctx.Err() != nil {
		return "", fmt.Errorf("%w: etcd --version did not end in time: %w", ErrUnsuitable, ctx.Err())
	}
	if err != nil {
		return "", fmt.Errorf("%w: run etcd --version: %w: %s", ErrUnsuitable, err, excerpt(out))
	}
	match := versionLine.FindSubmatch(out)
	if match == nil {
		return "", fmt.Errorf("%w: etcd --version printed no line 'etcd Version: …': %s", ErrUnsuitable, excerpt(out))
	}
	return normalVersion(string(match[1]))
}

func runVersion(ctx context.Context, path string) ([]byte, error) {
	var out capped
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Dir = filepath.Dir(path)
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C"}
	cmd.Stdout, cmd.Stderr = &out, &out
	// What it starts ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	return out.buf.Bytes(), err
}

// capped keeps the beginning of what is written to it.
type capped struct{ buf bytes.Buffer }

func (c *capped) Write(p []byte) (int, error) {
	c.buf.Write(p[:min(len(p), max(0, probeOutput-c.buf.Len()))])
	return len(p), nil
}

func excerpt(out []byte) string {
	line := strings.TrimSpace(string(out))
	if len(line) > 200 {
		line = line[:200] + "…"
	}
	if line == "" {
		return "it printed nothing"
	}
	return fmt.Sprintf("it printed %q", line)
}

// platformOf reads the platform from an ELF header; anything else is taken to be
// for this host, and shows when it is run.
func platformOf(path string) string {
	f, err := os.Open(path) //nolint:gosec // a staged file
	if err != nil {
		return HostPlatform()
	}
	defer func() { _ = f.Close() }() // only read
	bin, err := elf.NewFile(f)
	if err != nil {
		return HostPlatform()
	}
	little := bin.Data == elf.ELFDATA2LSB
	switch bin.Machine {
	case elf.EM_X86_64:
		return "linux/amd64"
	case elf.EM_AARCH64:
		return "linux/arm64"
	case elf.EM_386:
		return "linux/386"
	case elf.EM_ARM:
		return "linux/arm"
	case elf.EM_S390:
		return "linux/s390x"
	case elf.EM_RISCV:
		return "linux/riscv64"
	case elf.EM_PPC64:
		if little {
			return "linux/ppc64le"
		}
		return "linux/ppc64"
	default:
		return "linux/" + strings.ToLower(strings.TrimPrefix(bin.Machine.String(), "EM_"))
	}
}
