package chaos_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/chaos"
	"github.com/quorate/quorate/internal/process"
)

// holders finds the holders and guards that belong to this test: by the program and the
// order of arguments, long before the ledger knows them.
func holders(t *testing.T) []process.ID {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	var found []process.ID
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil || string(raw) != strings.Join([]string{self, "chaos", "hold", ""}, "\x00") {
			continue
		}
		var pid int
		if _, err = fmt.Sscanf(file, "/proc/%d/", &pid); err != nil {
			t.Fatal(err)
		}
		if id, err := process.Identify(pid); err == nil {
			found = append(found, id)
		}
	}
	return found
}

// TestKilledAtAnyMoment kills one process of a disturbance, whichever, whenever, the
// starter with it: nothing stays disturbed, and an etcd that is to be started again is
// there once.
func TestKilledAtAnyMoment(t *testing.T) {
	const rounds, lasts = 10, 300 * time.Millisecond
	l := newLab(t, 1)
	n := l.Members[0]
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for round := range rounds {
		d := chaos.Disturbance{Kind: []string{chaos.Pause, chaos.Kill, chaos.Restart}[round%3], Endpoint: n.Client, For: lasts}
		d.Again = d.Kind != chaos.Pause
		ctx, cancel := context.WithCancel(t.Context())
		started := make(chan *chaos.Running, 1)
		go func() {
			r, err := chaos.Start(ctx, l.options(), d)
			if err != nil {
				t.Logf("round %d, %s: %v", round, d.Kind, err)
			}
			started <- r
		}()
		<-time.After(time.Duration(random.Int64N(int64(lasts))))
		victims := holders(t)
		if len(victims) > 0 {
			victim := victims[random.IntN(len(victims))]
			_ = victim.Signal(syscall.SIGKILL) // it may have ended
			t.Logf("round %d, %s: killed one of %d", round, d.Kind, len(victims))
		}
		r := <-started
		cancel()
		if r != nil {
			_ = r.Wait(t.Context()) // that a holder was killed is known
		}
		// A guard may be at it without anybody who waits for it.
		l.gone(holders(t)...)
		p := l.process(n)
		if stopped(t, p.PID) {
			t.Fatalf("round %d, %s: it is paused", round, d.Kind)
		}
		l.until("written", func(ctx context.Context) error { return l.put(ctx, n) })
		l.once(p)
	}
	must(t, func() error { _, err := chaos.Sweep(t.Context(), l.ledger); return err }())
}

// once checks that a process is there once.
func (l *lab) once(p *chaos.Process) {
	l.t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(l.t, err)
	var found []string
	for _, file := range files {
		if raw, err := os.ReadFile(file); err == nil && string(raw) == strings.Join(p.Args, "\x00")+"\x00" {
			found = append(found, file)
		}
	}
	if len(found) != 1 {
		l.t.Fatalf("its arguments are those of %v", found)
	}
}
