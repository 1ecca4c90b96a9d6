package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// watchFor is how long an imported cluster is watched.
const watchFor = 30 * time.Minute

// proveImportIdle imports an etcd that nobody writes to, watches it, and looks
// whether watching left a trace.
func proveImportIdle(ctx context.Context, e *env) (string, error) {
	u, err := e.fresh(ctx)
	if err != nil {
		return "", err
	}
	endpoint, stop, err := e.strangeEtcd(ctx, u.bin)
	if err != nil {
		return "", err
	}
	defer stop()
	before, err := e.positionOf(ctx, endpoint)
	if err != nil {
		return "", err
	}
	if _, err = u.quorate(ctx, "import", "idle", "--endpoints", endpoint); err != nil {
		return "", err
	}
	began := time.Now()
	looks := 0
	for time.Since(began) < watchFor {
		out, getErr := u.quorate(ctx, "get", "cluster", "idle", "-o", "jsonpath={.status.summary}")
		if getErr != nil || strings.TrimSpace(out) != "Healthy" {
			return "", fmt.Errorf("after %s it is %q: %w", time.Since(began), out, getErr)
		}
		looks++
		if err = pause(ctx, 30*time.Second); err != nil {
			return "", err
		}
	}
	after, err := e.positionOf(ctx, endpoint)
	if err != nil {
		return "", err
	}
	if before.Revision != after.Revision || before.RaftTerm != after.RaftTerm {
		return "", fmt.Errorf("it went from %+v to %+v", before, after)
	}
	return fmt.Sprintf("watched for %.0f min, Healthy in each of %d looks; revision %d and term %d unchanged, raft index %d, then %d",
		time.Since(began).Minutes(), looks, after.Revision, after.RaftTerm, before.RaftIndex, after.RaftIndex), nil
}

// strangeEtcd starts an etcd of one member that Quorate knows nothing of.
func (e *env) strangeEtcd(ctx context.Context, quorate string) (endpoint string, stop func(), err error) {
	etcd, etcdctl := filepath.Join(e.dir, "etcd"), filepath.Join(e.dir, "etcdctl")
	for _, name := range []string{etcd, etcdctl} {
		// Copies, since what runs from the item's directory is ended with it.
		if err = copyFile(quorate, name); err != nil {
			return "", nil, err
		}
	}
	var urls [2]string
	for i := range urls {
		// Freed again and taken at once: nothing else here asks for ports by number.
		ln, listenErr := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if listenErr != nil {
			return "", nil, listenErr
		}
		urls[i] = "http://" + ln.Addr().String()
		if err = ln.Close(); err != nil {
			return "", nil, err
		}
	}
	cmd := command(context.WithoutCancel(ctx), e.dir, nil, etcd, "--name=strange", "--data-dir="+filepath.Join(e.dir, "strange"),
		"--listen-client-urls="+urls[0], "--advertise-client-urls="+urls[0], "--listen-peer-urls="+urls[1],
		"--initial-advertise-peer-urls="+urls[1], "--initial-cluster=strange="+urls[1], "--log-level=error")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err = cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Signal(os.Kill) // it may have ended
		_ = cmd.Wait()
	}
	err = poll(ctx, "the strange etcd serves", func() (string, bool, error) {
		_, putErr := e.sh(ctx, e.dir, etcdctl+" --endpoints="+urls[0]+" put key value")
		return "", putErr == nil, putErr
	})
	return urls[0], stop, err
}

// position is how far an etcd has come.
type position struct {
	Revision  int64
	RaftIndex uint64
	RaftTerm  uint64
}

func (e *env) positionOf(ctx context.Context, endpoint string) (position, error) {
	out, err := e.sh(ctx, e.dir, filepath.Join(e.dir, "etcdctl")+" --endpoints="+endpoint+" endpoint status -w json")
	if err != nil {
		return position{}, err
	}
	var said []struct {
		Status struct {
			Header    struct{ Revision int64 } `json:"header"`
			RaftIndex uint64                   `json:"raftIndex"`
			RaftTerm  uint64                   `json:"raftTerm"`
		}
	}
	if err := json.Unmarshal([]byte(out), &said); err != nil || len(said) != 1 {
		return position{}, fmt.Errorf("endpoint status said %s: %w", out, err)
	}
	s := said[0].Status
	return position{s.Header.Revision, s.RaftIndex, s.RaftTerm}, nil
}
