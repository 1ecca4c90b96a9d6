package chaos_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/chaos"
	"github.com/quorate/quorate/internal/process"
	"github.com/quorate/quorate/test/etcdlab"
)

// envStart makes this binary start the disturbance it is given, say so, and live on.
const envStart = "QUORATE_TEST_START_CHAOS"

// TestMain makes the test binary act as etcd, as a holder and as a starter too.
func TestMain(m *testing.M) {
	etcdlab.ActAsEtcd()
	switch {
	case len(os.Args) == 3 && os.Args[1] == "chaos" && os.Args[2] == "hold":
		if err := chaos.Hold(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case os.Getenv(envStart) != "":
		os.Exit(start())
	}
	os.Exit(m.Run())
}

func start() int {
	var o struct {
		Dir         string
		Disturbance chaos.Disturbance
	}
	err := json.Unmarshal([]byte(os.Getenv(envStart)), &o)
	if err == nil {
		var r *chaos.Running
		if r, err = chaos.Start(context.Background(), chaos.Options{Dir: o.Dir, Command: holdCommand()}, o.Disturbance); err == nil {
			fmt.Println(r.Record.ID)
			select {}
		}
	}
	fmt.Println("error:", err)
	return 1
}

// holdCommand makes this binary a holder.
func holdCommand() []string {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	return []string{self, "chaos", "hold"}
}

const patience = etcdlab.Patience

// lab is a cluster of real etcd processes, and a ledger.
type lab struct {
	*etcdlab.Cluster
	t      *testing.T
	ledger string
}

type node = etcdlab.Member

func newLab(t *testing.T, members int) *lab {
	t.Helper()
	l := &lab{t: t, ledger: filepath.Join(t.TempDir(), "ledger")}
	l.Cluster = etcdlab.New(t, etcdlab.Options{Members: members, Edit: func(members []*node) {
		for _, n := range members {
			n.Env = []string{"MARK=of " + n.Name}
		}
	}})
	for _, n := range l.Members {
		t.Cleanup(func() { stop(t, n) })
	}
	t.Cleanup(l.checkLedger)
	l.Ready()
	return l
}

// stop ends the member, whoever started it last.
func stop(t *testing.T, n *node) {
	t.Helper()
	n.Kill()
	if p, err := chaos.ProcessAt(n.Client, ""); err == nil {
		_ = p.Signal(syscall.SIGKILL)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		_ = p.Wait(ctx)
	}
}

// checkLedger says if anything is left.
func (l *lab) checkLedger() {
	entries, err := os.ReadDir(l.ledger)
	if err != nil {
		return
	}
	for _, e := range entries {
		l.t.Errorf("%s is left in the ledger", e.Name())
	}
}

func (l *lab) options() chaos.Options {
	return chaos.Options{Dir: l.ledger, Command: holdCommand(), Log: slog.New(slog.NewTextHandler(l.t.Output(), nil))}
}

func (l *lab) start(d chaos.Disturbance) *chaos.Running {
	l.t.Helper()
	r, err := chaos.Start(l.t.Context(), l.options(), d)
	if err != nil {
		l.t.Fatal(err)
	}
	return r
}

// starter starts a disturbance in a process of its own, and returns that process and
// the disturbance's record.
func (l *lab) starter(d chaos.Disturbance) (*exec.Cmd, chaos.Record) {
	l.t.Helper()
	raw, err := json.Marshal(map[string]any{"Dir": l.ledger, "Disturbance": d})
	must(l.t, err)
	self, err := os.Executable()
	must(l.t, err)
	cmd := exec.CommandContext(l.t.Context(), self)
	cmd.Env = append(os.Environ(), envStart+"="+string(raw))
	cmd.Stderr = l.t.Output()
	out, err := cmd.StdoutPipe()
	must(l.t, err)
	must(l.t, cmd.Start())
	l.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	id, err := bufio.NewReader(out).ReadString('\n')
	must(l.t, err)
	return cmd, l.record(strings.TrimSpace(id))
}

func (l *lab) record(id string) chaos.Record {
	l.t.Helper()
	records, err := chaos.List(l.ledger)
	must(l.t, err)
	for _, r := range records {
		if r.ID == id {
			return r
		}
	}
	l.t.Fatalf("%q is not in the ledger", id)
	return chaos.Record{}
}

func (l *lab) put(ctx context.Context, n *node) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c, err := n.TryDial()
	must(l.t, err)
	defer func() { _ = c.Close() }()
	_, err = c.Put(ctx, "key", n.Name)
	return err
}

// until tries again until it works.
func (l *lab) until(what string, try func(ctx context.Context) error) {
	l.t.Helper()
	etcdlab.Until(l.t, what, try)
}

// states counts the threads of a process by their state.
func states(t *testing.T, pid int) map[string]int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	must(t, err)
	count := map[string]int{}
	for _, file := range files {
		if raw, err := os.ReadFile(file); err == nil {
			count[string(raw[bytes.LastIndexByte(raw, ')')+2])]++
		}
	}
	return count
}

func stopped(t *testing.T, pid int) bool {
	t.Helper()
	s := states(t, pid)
	return len(s) == 1 && s["t"] > 0
}

// gone waits until a process has ended.
func (l *lab) gone(who ...process.ID) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	for _, id := range who {
		if err := id.Wait(ctx); err != nil {
			l.t.Errorf("process %d lives on: %v", id.PID, err)
		}
	}
}

// successor is the process that listens where the member's did, when it is another one.
func (l *lab) successor(n *node) (p *chaos.Process) {
	l.t.Helper()
	l.until("started again", func(context.Context) (err error) {
		p, err = chaos.ProcessAt(n.Client, "")
		if err == nil && p.PID == n.PID() {
			return fmt.Errorf("process %d is there still", p.PID)
		}
		return err
	})
	return p
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
