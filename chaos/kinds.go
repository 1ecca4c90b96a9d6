package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Kind is one way to disturb.
type Kind struct {
	Name string
	// Summary says what it does, in a line.
	Summary string
	// Undone says how it ends, and by whom when its holder is killed.
	Undone string
	// available says why it can't be done on this machine.
	available func() error
	// check says what is wrong with a disturbance, without looking at the machine.
	check func(d *Disturbance) error
	// holds says whether there is a state to hold; if not, once does it all.
	holds func(d Disturbance) bool
	once  func(ctx context.Context, o Options, d Disturbance) error
	// prepare finds what it is done to, refuses, and fills the record with all that
	// undo needs. Nothing is done yet.
	prepare func(h *hold) error
	// begin does it. The record is in the ledger by now.
	begin func(ctx context.Context, h *hold) error
	// end undoes it in the process that began it.
	end func(ctx context.Context, h *hold) error
	// undo undoes it in another process, when the one that began it is dead. It may be
	// called when there is nothing to undo.
	undo func(ctx context.Context, h *hold) error
}

// Available says why a disturbance of this kind is not possible on this machine, by this
// user; nil if it is.
func (k *Kind) Available() error { return k.available() }

// Kinds lists what there is.
func Kinds() []*Kind { return table() }

// Names lists the names of the kinds.
func Names() []string {
	kinds := table()
	names := make([]string, 0, len(kinds))
	for _, k := range kinds {
		names = append(names, k.Name)
	}
	return names
}

func kindOf(name string) *Kind {
	for _, k := range table() {
		if k.Name == name {
			return k
		}
	}
	return nil
}

func table() []*Kind {
	return []*Kind{
		{
			Name:      Kill,
			Summary:   "kill -9 a member's process",
			Undone:    "its supervisor starts it again, or else the holder does, or its guard",
			available: always, check: needsProcess, holds: startsAgain, once: killOnce,
			prepare: prepareAway, begin: beginKill, end: endAway, undo: undoAway,
		},
		{
			Name:      Pause,
			Summary:   "stop all threads of a member's process, as SIGSTOP does",
			Undone:    "the kernel lets the threads go when the holder detaches from them, or dies",
			available: canTrace, check: needsProcess, holds: held,
			prepare: preparePause, begin: beginPause, end: endPause, undo: nothing,
		},
		{
			Name:      LeaderMove,
			Summary:   "hand the leadership to another member",
			Undone:    "it holds nothing",
			available: always, check: needsEndpoints, holds: holdsNothing, once: moveLeader,
		},
		{
			Name:      Restart,
			Summary:   "end a member's process with SIGTERM",
			Undone:    "its supervisor starts it again, or else the holder does, or its guard",
			available: always, check: needsProcess, holds: startsAgain, once: terminateOnce,
			prepare: prepareAway, begin: beginRestart, end: endAway, undo: undoAway,
		},
		{
			Name:      Partition,
			Summary:   "drop what given addresses send to each other",
			Undone:    "the holder's nftables table goes with its socket, and each cut by a timeout in the kernel",
			available: canFilter, check: needsCuts, holds: held,
			prepare: preparePartition, begin: beginPartition, end: endPartition, undo: undoPartition,
		},
	}
}

func always() error                        { return nil }
func nothing(context.Context, *hold) error { return nil }
func held(Disturbance) bool                { return true }
func holdsNothing(Disturbance) bool        { return false }
func startsAgain(d Disturbance) bool       { return d.Again }

func needsProcess(d *Disturbance) error {
	if d.Endpoint == "" && d.Process.PID == 0 {
		return errors.New("say which process: by the endpoint it listens at")
	}
	if d.Process.PID == 0 {
		_, _, err := splitEndpoint(d.Endpoint)
		return err
	}
	return nil
}

func needsEndpoints(d *Disturbance) error {
	if len(d.Endpoints) == 0 {
		return errors.New("name an endpoint of the cluster")
	}
	return nil
}

func needsCuts(d *Disturbance) error {
	if len(d.Cuts) == 0 {
		return errors.New("say which addresses are cut off from which")
	}
	for _, c := range d.Cuts {
		switch {
		case !c.From.IsValid() || !c.To.IsValid():
			return errors.New("a cut needs two addresses")
		case c.From == c.To:
			return fmt.Errorf("%s can't be cut off from itself: members that share an address can't be partitioned, give each its own", c.From)
		case c.From.IsLoopback() && c.To.IsLoopback():
			return fmt.Errorf("%s and %s are loopback addresses, and what is sent between those comes from 127.0.0.1: give the members addresses of their own", c.From, c.To)
		case c.From.Is4() != c.To.Is4():
			return fmt.Errorf("%s and %s never speak to each other: one is IPv4, one IPv6", c.From, c.To)
		}
	}
	if d.NetNS != "" {
		if _, err := os.Stat(d.NetNS); err != nil {
			return fmt.Errorf("the network namespace: %w", err)
		}
	}
	return nil
}
