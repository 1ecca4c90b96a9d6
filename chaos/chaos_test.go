package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/chaos"
	"github.com/quorate/quorate/internal/process"

	"github.com/quorate/quorate/test/freeport"
)

func TestPauseEndsByItself(t *testing.T) {
	l := newLab(t, 1)
	n := l.Members[0]
	began := time.Now()
	r := l.start(chaos.Disturbance{Kind: chaos.Pause, Endpoint: n.Client, For: time.Second})
	if !stopped(t, n.PID()) {
		t.Errorf("its threads: %v", states(t, n.PID()))
	}
	if r.Record.Target.PID != n.PID() || !r.Record.Alive() {
		t.Errorf("the record: %+v", r.Record)
	}
	must(t, l.put(t.Context(), n))
	if took := time.Since(began); took < time.Second {
		t.Errorf("a write was answered after %s", took)
	}
	must(t, r.Wait(t.Context()))
	if stopped(t, n.PID()) {
		t.Errorf("its threads: %v", states(t, n.PID()))
	}
}

func TestPauseEndsWhenTold(t *testing.T) {
	l := newLab(t, 1)
	n := l.Members[0]
	r := l.start(chaos.Disturbance{Kind: chaos.Pause, Endpoint: n.Client, For: time.Minute})
	must(t, r.End(t.Context()))
	must(t, l.put(t.Context(), n))
	// By whoever reads the ledger, too.
	r = l.start(chaos.Disturbance{Kind: chaos.Pause, Endpoint: n.Client, For: time.Minute})
	swept, err := chaos.Sweep(t.Context(), l.ledger)
	if err != nil || len(swept) != 0 {
		t.Errorf("a disturbance in good order was swept: %v, %v", swept, err)
	}
	must(t, chaos.End(t.Context(), l.ledger, r.Record.ID))
	must(t, l.put(t.Context(), n))
	must(t, r.Wait(t.Context()))
	must(t, chaos.End(t.Context(), l.ledger, r.Record.ID))
}

func TestPauseOutlivesItsStarterAndNotItsHolder(t *testing.T) {
	l := newLab(t, 1)
	n := l.Members[0]
	pid := n.PID()
	starter, record := l.starter(chaos.Disturbance{Kind: chaos.Pause, Endpoint: n.Client, For: 2 * time.Second})
	must(t, starter.Process.Kill())
	_ = starter.Wait()
	if !stopped(t, pid) || !record.Alive() {
		t.Error("it ended with its starter")
	}
	l.gone(record.Holder)
	if over := time.Since(record.Deadline); over < -50*time.Millisecond {
		t.Errorf("it ended %s before its deadline", -over)
	}
	must(t, l.put(t.Context(), n))

	r := l.start(chaos.Disturbance{Kind: chaos.Pause, Endpoint: n.Client, For: time.Minute})
	must(t, r.Record.Holder.Signal(syscall.SIGKILL))
	must(t, l.put(t.Context(), n))
	if err := r.Wait(t.Context()); !errors.Is(err, chaos.ErrHolderKilled) {
		t.Errorf("waiting says %v", err)
	}
}

func TestHolderThatHangsIsKilled(t *testing.T) {
	l := newLab(t, 1)
	n := l.Members[0]
	r := l.start(chaos.Disturbance{Kind: chaos.Pause, Endpoint: n.Client, For: 100 * time.Millisecond})
	must(t, r.Record.Holder.Signal(syscall.SIGSTOP))
	began := time.Now()
	l.until("going on", func(context.Context) error {
		if stopped(t, n.PID()) {
			return errors.New("it is paused")
		}
		return nil
	})
	t.Logf("after %s", time.Since(began))
	must(t, l.put(t.Context(), n))
	if err := r.Wait(t.Context()); !errors.Is(err, chaos.ErrHolderKilled) {
		t.Errorf("waiting says %v", err)
	}
}

func TestPauseOfAProcessThatIsKilled(t *testing.T) {
	l := newLab(t, 1)
	n := l.Members[0]
	r := l.start(chaos.Disturbance{Kind: chaos.Pause, Endpoint: n.Client, For: time.Minute})
	must(t, n.Signal(syscall.SIGKILL))
	select {
	case <-n.Exited():
	case <-time.After(patience):
		t.Fatal("its parent did not get it")
	}
	must(t, r.Wait(t.Context()))
}

func TestTwoTracersOfOneProcess(t *testing.T) {
	l := newLab(t, 1)
	n := l.Members[0]
	d := chaos.Disturbance{Kind: chaos.Pause, Endpoint: n.Client, For: time.Minute}
	r := l.start(d)
	if _, err := chaos.Start(t.Context(), l.options(), d); err == nil || !strings.Contains(err.Error(), "trace") {
		t.Errorf("a second pause: %v", err)
	}
	if !stopped(t, n.PID()) {
		t.Error("the refused one has ended the first")
	}
	must(t, r.End(t.Context()))
}

// TestStartedAgain: whoever of those that see to it is killed, the process is back.
func TestStartedAgain(t *testing.T) {
	kill := func(who ...process.ID) {
		for _, id := range who {
			must(t, id.Signal(syscall.SIGKILL))
		}
	}
	for name, tc := range map[string]struct {
		kind string
		// meanwhile happens while the process is away; early says that it is back then.
		meanwhile func(l *lab, r *chaos.Running)
		early     bool
		want      error
	}{
		"kill":    {kind: chaos.Kill},
		"restart": {kind: chaos.Restart},
		"kill, ended early": {
			kind: chaos.Kill, early: true,
			meanwhile: func(_ *lab, r *chaos.Running) { must(t, r.End(t.Context())) },
		},
		"kill, holder killed": {
			kind: chaos.Kill, early: true, want: chaos.ErrHolderKilled,
			meanwhile: func(_ *lab, r *chaos.Running) { kill(r.Record.Holder) },
		},
		"restart, guard killed": {
			kind:      chaos.Restart,
			meanwhile: func(_ *lab, r *chaos.Running) { kill(r.Record.Guard) },
		},
		"kill, both killed": {
			kind: chaos.Kill, early: true, want: chaos.ErrHolderKilled,
			meanwhile: func(l *lab, r *chaos.Running) {
				kill(r.Record.Guard, r.Record.Holder)
				l.gone(r.Record.Guard, r.Record.Holder)
				swept, err := chaos.Sweep(t.Context(), l.ledger)
				if err != nil || len(swept) != 1 {
					t.Errorf("swept %v, %v", swept, err)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, 1)
			n := l.Members[0]
			before := l.process(n)
			away := time.Second
			if tc.early {
				away = time.Minute
			}
			began := time.Now()
			r := l.start(chaos.Disturbance{Kind: tc.kind, Endpoint: n.Client, For: away, Again: true})
			<-n.Exited()
			if tc.meanwhile != nil {
				tc.meanwhile(l, r)
			}
			after := l.successor(n)
			took := time.Since(began)
			if (took < away) != tc.early {
				t.Errorf("it was away for %s", took)
			}
			if err := r.Wait(t.Context()); !errors.Is(err, tc.want) {
				t.Errorf("waiting says %v", err)
			}
			l.until("written", func(ctx context.Context) error { return l.put(ctx, n) })
			if !slices.Equal(before.Args, after.Args) {
				t.Errorf("arguments were %q and are %q", before.Args, after.Args)
			}
			l.like(n, after)
		})
	}
}

func (l *lab) process(n *node) *chaos.Process {
	l.t.Helper()
	p, err := chaos.ProcessAt(n.Client, "")
	must(l.t, err)
	return p
}

// like checks that a successor has the directory, environment and output it should have.
func (l *lab) like(n *node, p *chaos.Process) {
	l.t.Helper()
	dir := fmt.Sprintf("/proc/%d/", p.PID)
	for link, want := range map[string]string{"cwd": n.Home, "fd/1": n.LogFile, "fd/2": n.LogFile} {
		if got, err := os.Readlink(dir + link); err != nil || got != want {
			l.t.Errorf("its %s is %s, %v", link, got, err)
		}
	}
	if raw, err := os.ReadFile(dir + "environ"); err != nil || !strings.Contains(string(raw), "MARK=of "+n.Name) {
		l.t.Errorf("its environment: %q, %v", raw, err)
	}
}

func TestLeftToItsSupervisor(t *testing.T) {
	for _, kind := range []string{chaos.Kill, chaos.Restart} {
		l := newLab(t, 1)
		n := l.Members[0]
		r := l.start(chaos.Disturbance{Kind: kind, Endpoint: n.Client})
		select {
		case <-n.Exited():
		case <-time.After(patience):
			t.Fatal("it lives on")
		}
		must(t, r.Wait(t.Context()))
		must(t, r.End(t.Context()))
		if _, err := chaos.ProcessAt(n.Client, ""); !errors.Is(err, chaos.ErrNoProcess) {
			t.Errorf("%s: who listens there: %v", kind, err)
		}
	}
}

func TestLeaderMove(t *testing.T) {
	l := newLab(t, 3)
	endpoints, c := l.URLs(), l.Members[0].Dial()
	leader := func() uint64 {
		st, err := c.Status(t.Context(), endpoints[0])
		must(t, err)
		return st.Leader
	}
	for range 3 {
		before := leader()
		r := l.start(chaos.Disturbance{Kind: chaos.LeaderMove, Endpoints: endpoints})
		must(t, r.Wait(t.Context()))
		l.until("led by another", func(context.Context) error {
			if now := leader(); now == before || now == 0 {
				return fmt.Errorf("%x leads", now)
			}
			return nil
		})
	}
	if _, err := chaos.Start(t.Context(), l.options(), chaos.Disturbance{Kind: chaos.LeaderMove, Endpoints: []string{"http://" + freeport.Address(t)}}); err == nil {
		t.Error("the leader of nothing was moved")
	}
}

func TestRefused(t *testing.T) {
	other := exec.CommandContext(t.Context(), "sleep", "600")
	must(t, other.Start())
	defer func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	}()
	id, err := process.Identify(other.Process.Pid)
	must(t, err)
	first, err := process.Identify(1)
	must(t, err)
	addr := netip.MustParseAddr
	dir := t.TempDir()
	for want, d := range map[string]chaos.Disturbance{
		`no disturbance "flood"`:   {Kind: "flood"},
		"at most 5m":               {Kind: chaos.Pause, Endpoint: "127.0.0.1:1", For: time.Hour},
		"at least 10ms":            {Kind: chaos.Pause, Endpoint: "127.0.0.1:1"},
		"say which process":        {Kind: chaos.Kill, For: time.Second},
		"no ADDRESS:PORT":          {Kind: chaos.Kill, Endpoint: "https://etcd.example:2379"},
		"listens there":            {Kind: chaos.Kill, Endpoint: freeport.Address(t)},
		"is no etcd but":           {Kind: chaos.Pause, Process: id, For: time.Second},
		"not to be disturbed":      {Kind: chaos.Kill, Process: first, For: time.Second},
		"has ended":                {Kind: chaos.Kill, Process: process.ID{PID: id.PID, StartTicks: 1, BootID: id.BootID}},
		"cut off from itself":      {Kind: chaos.Partition, For: time.Second, Cuts: chaos.Between([]netip.Addr{addr("127.0.0.1")}, []netip.Addr{addr("127.0.0.1")})},
		"one is IPv4":              {Kind: chaos.Partition, For: time.Second, Cuts: chaos.Between([]netip.Addr{addr("10.0.0.1")}, []netip.Addr{addr("::2")})},
		"which addresses":          {Kind: chaos.Partition, For: time.Second},
		"two addresses":            {Kind: chaos.Partition, For: time.Second, Cuts: []chaos.Cut{{From: addr("10.0.0.1")}}},
		"the network namespace":    {Kind: chaos.Partition, For: time.Second, NetNS: "/nowhere", Cuts: chaos.Between([]netip.Addr{addr("10.0.0.1")}, []netip.Addr{addr("10.0.0.2")})},
		"an endpoint of the clust": {Kind: chaos.LeaderMove},
	} {
		_, err := chaos.Start(t.Context(), chaos.Options{Dir: dir, Command: holdCommand()}, d)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v: want %q", d, err, want)
		}
	}
	if records, err := chaos.List(dir); err != nil || len(records) > 0 {
		t.Errorf("the ledger: %v, %v", records, err)
	}
	if s := states(t, other.Process.Pid); s["S"] != 1 {
		t.Errorf("the other process: %v", s)
	}
}

func TestWhatASupervisorStartsAgainIsNotStartedTwice(t *testing.T) {
	l := newLab(t, 1)
	n := l.Members[0]
	// As the home of a member has it.
	must(t, os.WriteFile(filepath.Join(n.Home, "member.json"), nil, 0o600))
	d := chaos.Disturbance{Kind: chaos.Kill, Endpoint: n.Client, For: time.Second, Again: true}
	if _, err := chaos.Start(t.Context(), l.options(), d); err == nil || !strings.Contains(err.Error(), "Quorate's supervisor") {
		t.Errorf("it was to be started again by two: %v", err)
	}
	must(t, l.put(t.Context(), n))
}

// TestStartedAgainInItsCgroup: what bounded it bounds its successor.
func TestStartedAgainInItsCgroup(t *testing.T) {
	group := ""
	for _, root := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		dir := filepath.Join(root, fmt.Sprintf("quorate-test-%d", os.Getpid()))
		if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err == nil && os.Mkdir(dir, 0o700) == nil {
			group = dir
			break
		}
	}
	if group == "" {
		t.Skip("no control group can be made here")
	}
	// After the processes in it have ended.
	t.Cleanup(func() {
		if err := os.Remove(group); err != nil {
			t.Error(err)
		}
	})
	l := newLab(t, 1)
	n := l.Members[0]
	file := filepath.Join(group, "cgroup.procs")
	must(t, os.WriteFile(file, []byte(strconv.Itoa(n.PID())), 0))
	r := l.start(chaos.Disturbance{Kind: chaos.Kill, Endpoint: n.Client, For: chaos.MinFor, Again: true})
	must(t, r.Wait(t.Context()))
	after := l.successor(n)
	raw, err := os.ReadFile(file)
	if err != nil || strings.TrimSpace(string(raw)) != strconv.Itoa(after.PID) {
		t.Errorf("process %d is to be in %s, and there is %q, %v", after.PID, group, raw, err)
	}
}

func TestATestIsNoHolder(t *testing.T) {
	l := newLab(t, 1)
	_, err := chaos.Start(t.Context(), chaos.Options{Dir: l.ledger}, chaos.Disturbance{Kind: chaos.Pause, Endpoint: l.Members[0].Client, For: time.Second})
	if err == nil || !strings.Contains(err.Error(), "Options.Command") {
		t.Errorf("it would run itself: %v", err)
	}
}
