package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/quorate/quorate/driver/host/supervisor"
)

// proveLeave stops Quorate and runs its members without it, by the command lines
// that the README says stand in their homes.
func proveLeave(ctx context.Context, e *env) (string, error) {
	u, err := e.fresh(ctx)
	if err != nil {
		return "", err
	}
	if _, err = u.quorate(ctx, "etcdctl", "-c", playground, "put", "leaving", "with it all"); err != nil {
		return "", err
	}
	cluster, err := u.cluster(ctx)
	if err != nil {
		return "", err
	}
	if _, err = u.ctrlC(ctx); err != nil {
		return "", err
	}
	orders, err := filepath.Glob(filepath.Join(u.dir, "members", "*", "member.json"))
	if err != nil || len(orders) != int(cluster.Spec.Replicas) {
		return "", fmt.Errorf("%d orders were found: %w", len(orders), err)
	}
	var home string
	for _, file := range orders {
		home = filepath.Dir(file)
		raw, readErr := os.ReadFile(file)
		if readErr != nil {
			return "", readErr
		}
		var o supervisor.Order
		if err = json.Unmarshal(raw, &o); err != nil {
			return "", err
		}
		cmd := exec.Command(o.Executable, o.Args...) //nolint:noctx // as a person would; it is ended below
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		if err = cmd.Start(); err != nil {
			return "", err
		}
		defer func() {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			_ = cmd.Wait() // it was killed
		}()
	}
	// Under the name etcdctl the binary is etcdctl.
	etcdctl := filepath.Join(e.dir, "etcdctl")
	if err = os.Symlink(u.bin, etcdctl); err != nil {
		return "", err
	}
	tls := filepath.Join(home, "tls")
	line := fmt.Sprintf("%s --endpoints=%s --cacert=%s --cert=%s --key=%s get leaving", etcdctl,
		strings.Join(cluster.Status.Endpoints, ","), filepath.Join(tls, "ca.crt"), filepath.Join(tls, "server.crt"), filepath.Join(tls, "server.key"))
	err = poll(ctx, "the key is read without Quorate", func() (string, bool, error) {
		out, getErr := e.sh(ctx, e.dir, line)
		return out, strings.Contains(out, "with it all"), getErr
	})
	return fmt.Sprintf("%d etcds started by hand from the command lines in member.json form the same cluster, and have the key", len(orders)), err
}
