// Package chaos disturbs etcd on purpose, for drills: it kills, pauses, restarts and
// partitions members and moves the leader, and every disturbance ends by itself.
//
// A disturbance that holds a state is one process of its own, the holder, in a session
// of its own: Start runs it and may die. It undoes at its deadline, on SIGTERM, and when
// the process it is about has ended. What it holds is held so that a kill -9 of any one
// process undoes it too:
//
//   - pause: the holder traces the process (ptrace) and stops its threads. The kernel
//     detaches a tracer that dies, and the threads run on. There is no SIGSTOP that
//     could be left behind.
//   - partition: the rules stand in an nftables table that the holder's socket owns: the
//     kernel removes the table with the socket. Besides, each cut is a set element with a
//     timeout of the kernel's: it ends even where tables can't be owned.
//   - kill and restart, where the process is to be started again from here: a guard, a
//     second process in a third session, starts it as soon as the holder is gone without
//     having done so. If the guard is killed, the holder is still there.
//
// A holder that hangs, or was stopped, is killed by a timer of the kernel's soon after
// its deadline. A ledger, one file for each disturbance, says what is running: List reads
// it, Sweep clears up after what two kills at once have left.
//
// It refuses what is not an etcd, other users' processes unless root asks, and anything
// longer than MaxFor.
package chaos

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quorate/quorate/internal/process"
)

// MaxFor is the longest disturbance, MinFor the shortest that is held.
const (
	MaxFor = 5 * time.Minute
	MinFor = 10 * time.Millisecond
)

// The names of the kinds.
const (
	Kill       = "kill"
	Pause      = "pause"
	Restart    = "restart"
	LeaderMove = "leader-move"
	Partition  = "partition"
)

// Disturbance is what to do, to what, for how long.
type Disturbance struct {
	// Kind is a name in Kinds.
	Kind string `json:"kind"`
	// Cluster is whose members it is done to, by a name of the caller's: see Turn.
	Cluster string `json:"cluster,omitempty"`
	// Endpoint is where the process listens to which a kill, a pause or a restart is
	// done: ADDRESS:PORT or a URL. Process names it directly, and goes first.
	Endpoint string     `json:"endpoint,omitempty"`
	Process  process.ID `json:"process,omitzero"`
	// NetNS is the path of the network namespace that Endpoint is in, and where a
	// partition is made. Without it a partition is made in this process's namespace,
	// and Endpoint is looked for there first, then everywhere.
	NetNS string `json:"netns,omitempty"`
	// For is how long it lasts. To a kill or restart: how long the process is away
	// before it is started Again.
	For time.Duration `json:"for"`
	// Again: start the killed process again, with its arguments, environment and
	// directory. Without it that is left to its supervisor.
	Again bool `json:"again,omitempty"`
	// Cuts of a partition.
	Cuts []Cut `json:"cuts,omitempty"`
	// Ports narrow a partition to TCP from or to one of them, so that it spares what
	// else the hosts say to each other.
	Ports []uint16 `json:"ports,omitempty"`
	// Endpoints of the cluster whose leader is moved, and To, the ID of the member that
	// is to lead; 0: any voter that answers.
	Endpoints []string `json:"endpoints,omitempty"`
	To        uint64   `json:"to,omitempty"`
}

// Cut drops what From sends to To; and the answers, unless it is OneWay.
type Cut struct {
	From   netip.Addr `json:"from"`
	To     netip.Addr `json:"to"`
	OneWay bool       `json:"oneWay,omitempty"`
}

// Between cuts every address of one side off from every one of the other.
func Between(a, b []netip.Addr) []Cut {
	var cuts []Cut
	for _, from := range a {
		for _, to := range b {
			cuts = append(cuts, Cut{From: from, To: to})
		}
	}
	return cuts
}

// Options say how disturbances are run.
type Options struct {
	// Command runs Hold: a program and its arguments. By default this executable, which
	// is taken to be quorate, with the arguments "chaos hold". A test must say.
	Command []string
	// Dir is where the ledger is kept; by default DefaultDir.
	Dir string
	// Client connects to an endpoint of the cluster, for what is done by etcd's API.
	// By default without TLS or user. Whoever is given the client closes it.
	Client func(endpoint string) (*clientv3.Client, error)
	// Log is told what goes on; nil: nobody.
	Log *slog.Logger
}

// programName is that of the program which holds disturbances by default.
const programName = "quorate"

// program is what holders and guards run.
type program struct {
	Path string   `json:"path"`
	Args []string `json:"args"`
}

// program of the options, as it is found from any directory.
func (o *Options) program() (program, error) {
	if len(o.Command) == 0 {
		if flag.Lookup("test.run") != nil && filepath.Base(os.Args[0]) != programName {
			// It would run all tests, this one among them.
			return program{}, errors.New("this is a test, not quorate: say in Options.Command what runs Hold")
		}
		self, err := os.Executable()
		return program{Path: self, Args: []string{programName, "chaos", "hold"}}, err
	}
	path, err := exec.LookPath(o.Command[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	return program{Path: path, Args: o.Command}, err
}

func (o *Options) complete() {
	if o.Dir == "" {
		o.Dir = DefaultDir()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Running is a disturbance that was started. One that holds nothing has ended already.
type Running struct {
	// Record as the ledger has it; without an ID if nothing is held.
	Record Record
	dir    string
	// ended is closed when the holder has ended; then failure says what it said last.
	ended   chan struct{}
	told    bool
	failure error
}

// Start begins a disturbance. When it returns without an error the disturbance is in
// force, or, if it is one that holds nothing, it is done. ctx bounds the beginning only.
func Start(ctx context.Context, o Options, d Disturbance) (*Running, error) {
	o.complete()
	kind, err := d.check()
	if err != nil {
		return nil, err
	}
	if err = kind.Available(); err != nil {
		return nil, fmt.Errorf("%s is not possible here: %w", d.Kind, err)
	}
	if err = trusted(o.Dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	// What others have left would be mistaken for what this one does.
	if swept, sweepErr := Sweep(ctx, o.Dir); sweepErr != nil {
		o.Log.WarnContext(ctx, "disturbances that were left are not undone", slog.Any("error", sweepErr))
	} else if len(swept) > 0 {
		o.Log.WarnContext(ctx, "undid disturbances that were left", slog.Int("number", len(swept)))
	}
	if !kind.holds(d) {
		r := &Running{Record: Record{Disturbance: d, Began: time.Now()}, dir: o.Dir, ended: make(chan struct{}), told: true}
		close(r.ended)
		return r, kind.once(ctx, o, d)
	}
	return spawn(ctx, o, d)
}

// check says what is wrong with a disturbance before anything is done.
func (d *Disturbance) check() (*Kind, error) {
	kind := kindOf(d.Kind)
	if kind == nil {
		return nil, fmt.Errorf("there is no disturbance %q: take one of %s", d.Kind, strings.Join(Names(), ", "))
	}
	if d.For > MaxFor || d.For < 0 {
		return nil, fmt.Errorf("a %s for %s: give at most %s", d.Kind, d.For, MaxFor)
	}
	if kind.holds(*d) && d.For < MinFor {
		return nil, fmt.Errorf("a %s for %s: give at least %s", d.Kind, d.For, MinFor)
	}
	if err := kind.check(d); err != nil {
		return nil, fmt.Errorf("%s: %w", d.Kind, err)
	}
	return kind, nil
}

// order is what a holder is told on its standard input, one line of JSON.
type order struct {
	ID          string      `json:"id"`
	Dir         string      `json:"dir"`
	Program     program     `json:"program"`
	Disturbance Disturbance `json:"disturbance"`
	// Guard makes it the guard of this record, rather than a holder. Its files are
	// descriptors 3 and on.
	Guard *Record `json:"guard,omitempty"`
	Files []bool  `json:"files,omitempty"`
}

// word is what a holder says on its standard output, one line of JSON each: that it
// began, with the record; that it ended; or why not.
type word struct {
	Began *Record `json:"began,omitempty"`
	Ended bool    `json:"ended,omitempty"`
	Error string  `json:"error,omitempty"`
}

// spawn starts a holder, and waits until it says that the disturbance is in force.
func spawn(ctx context.Context, o Options, d Disturbance) (*Running, error) {
	holder, err := o.program()
	if err != nil {
		return nil, fmt.Errorf("the program that holds disturbances: %w", err)
	}
	line, err := json.Marshal(order{ID: newID(d.Kind), Dir: o.Dir, Program: holder, Disturbance: d})
	if err != nil {
		return nil, err
	}
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	var said bytes.Buffer
	cmd := detached(holder)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(append(line, '\n')), in, &said
	if err = cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the holder of a %s: %w", d.Kind, err), out.Close(), in.Close())
	}
	_ = in.Close() // the holder has its own
	r := &Running{dir: o.Dir, ended: make(chan struct{})}
	began := make(chan *Record, 1)
	go func() {
		defer close(r.ended)
		defer out.Close() //nolint:errcheck // nothing is written to it
		r.follow(out, began)
		if err := cmd.Wait(); err != nil && !r.told {
			r.failure = errors.Join(r.failure, fmt.Errorf("its holder ended: %w: %s", err, strings.TrimSpace(said.String())))
		}
	}()
	select {
	case record := <-began:
		r.Record = *record
		o.Log.InfoContext(ctx, "a disturbance is in force", slog.String("id", record.ID), slog.Duration("for", d.For), slog.Int("holder", record.Holder.PID))
		return r, nil
	case <-r.ended:
		select {
		case record := <-began: // it is over already
			r.Record = *record
			return r, nil
		default:
			return nil, fmt.Errorf("%s: %w", d.Kind, r.why())
		}
	case <-ctx.Done():
		// SIGTERM makes it undo what it has done by now.
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		return nil, fmt.Errorf("%s did not begin: %w", d.Kind, ctx.Err())
	}
}

// detached is a command in a session of its own with nothing of this process's.
func detached(p program) *exec.Cmd {
	return &exec.Cmd{
		Path: p.Path, Args: p.Args, Dir: "/",
		Env:         []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
}

// follow reads what a holder says until it ends.
func (r *Running) follow(out io.Reader, began chan<- *Record) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var w word
		if err := json.Unmarshal(lines.Bytes(), &w); err != nil {
			r.failure = fmt.Errorf("its holder said %q: %w", lines.Text(), err)
			continue
		}
		switch {
		case w.Began != nil:
			began <- w.Began
		case w.Error != "":
			r.failure = errors.New(w.Error)
		}
		r.told = r.told || w.Ended || w.Error != ""
	}
}

func (r *Running) why() error {
	if r.failure != nil {
		return r.failure
	}
	return errors.New("its holder ended without a word")
}

// Wait returns when the disturbance is undone, or with ctx's error. An error says that it
// was not undone as it should have been; one that wraps ErrHolderKilled says that its
// holder was killed, and that it is undone all the same.
func (r *Running) Wait(ctx context.Context) error {
	select {
	case <-r.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	if r.told || r.Record.ID == "" {
		return r.failure
	}
	// The kernel has undone it, or a guard is about to.
	if err := r.Record.Guard.Wait(ctx); r.Record.Guard.PID != 0 && err != nil {
		return err
	}
	if err := settle(ctx, r.dir, r.Record.ID); err != nil {
		return fmt.Errorf("%w, and %s is not undone: %w", ErrHolderKilled, r.Record.ID, err)
	}
	return fmt.Errorf("%s: %w", r.Record.ID, ErrHolderKilled)
}

// ErrHolderKilled says that a disturbance ended since somebody killed its holder.
var ErrHolderKilled = errors.New("the holder of the disturbance was killed before its deadline")

// End undoes the disturbance now, and waits until it is undone.
func (r *Running) End(ctx context.Context) error {
	if r.Record.ID == "" {
		return r.failure
	}
	if err := r.Record.Holder.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, process.ErrGone) {
		return fmt.Errorf("tell the holder of %s to end: %w", r.Record.ID, err)
	}
	return r.Wait(ctx)
}
